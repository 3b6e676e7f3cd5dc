"""Level, slope and season of one series as statsmodels has them, and their exact likelihood.

The start is diffuse: states before the first value are unknown constants, which enter the series
linearly, as coefficients of known columns (Rosenberg 1973; Durbin & Koopman 2012, section 5.7).
With columns A of the start and X of the controls,

    y = A d + X b + noise,   noise ~ N(0, s2 W),

where W depends on the ratios of state variances to s2 alone. A filter that starts at zero whitens
y, A and X at once, and a QR decomposition of what it leaves gives d, b, s2 and the likelihood of
the ratios. That likelihood is statsmodels' in the limit of its large starting variance, with as
many first values left out as there are states.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eocausal.errors import EstimationError
from eocausal.estimators.components import (
    Component,
    combine,
    local_level,
    local_linear_trend,
    seasonal_dummies,
)
from eocausal.estimators.structural_model import Trend

__all__ = ["UnobservedComponents", "Whitened", "log_likelihood", "whiten"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class UnobservedComponents:
    """A trend, dummies of a season that may change, and coefficients of controls that stay.

    Parameters
    ----------
    trend
        ``Trend.LOCAL_LINEAR`` or ``Trend.LEVEL``.
    season
        Times in a cycle; None for no season.
    """

    trend: Trend = Trend.LOCAL_LINEAR
    season: int | None = 12

    def __post_init__(self) -> None:
        if self.trend not in (Trend.LEVEL, Trend.LOCAL_LINEAR):
            raise EstimationError(
                f"Maximum likelihood with the trend {self.trend.value!r}.",
                cause="Only a level and a local linear trend are written for it.",
                next_step="Take Trend.LEVEL or Trend.LOCAL_LINEAR, or estimate with bsts(...).",
            )
        if self.season is not None and self.season < 2:
            raise EstimationError(
                f"A season of {self.season} times.",
                cause="A season is a pattern over at least two times.",
                next_step="Give the number of times in a cycle, such as 12 for months in a year.",
            )

    @property
    def variances(self) -> tuple[str, ...]:
        """Names of the state variances."""
        trend = ("level", "slope") if self.trend is Trend.LOCAL_LINEAR else ("level",)
        return trend if self.season is None else (*trend, "season")

    @property
    def states(self) -> int:
        """Number of states, each with a diffuse start."""
        trend = 2 if self.trend is Trend.LOCAL_LINEAR else 1
        return trend + (0 if self.season is None else self.season - 1)

    def natural(self, times: int) -> Float64:
        """Ratio of each state variance to s2 that moves a series about as much as its noise.

        Over ``times`` steps a level of variance q adds q n, a slope q n^3 / 3, a season q n / s.
        """
        scale = {"level": 1 / times, "slope": 3 / times**3, "season": (self.season or 1) / times}
        return np.array([scale[name] for name in self.variances])

    def matrices(self) -> tuple[Float64, Float64, NDArray[np.int64]]:
        """Return z ``(d,)``, F ``(d, d)`` and the state that each variance moves."""
        if self.trend is Trend.LOCAL_LINEAR:
            parts: list[Component] = [local_linear_trend(0, 0, start_var=0, slope_start_var=0)]
        else:
            parts = [local_level(0, start_var=0)]
        if self.season is not None:
            parts.append(seasonal_dummies(self.season, 0, start_var=0))
        space = combine(parts, 1.0)
        moved = np.arange(len(self.variances))
        return space.design[0].numpy(), space.transition.numpy(), moved

    def start_columns(self, times: int) -> Float64:
        """Return A, ``(times, states)``: what each starting state adds to the series."""
        row, transition, _ = self.matrices()
        rows = []
        for _ in range(times):
            rows.append(row)
            row = row @ transition
        return np.stack(rows)


@dataclass(frozen=True, slots=True, eq=False)
class Whitened:
    """What a filter leaves of columns [A, X, y] under given ratios.

    Attributes
    ----------
    innovations
        (n, d + K + 1) columns at the learned times minus their prediction, of variance s2.
    triangle
        (d + K + 1, d + K + 1) upper triangle of their QR decomposition.
    log_det
        Log determinant of W.
    ahead
        (T, d + K + 1) columns minus their prediction from the learned values before.
    ahead_cov
        (H, H) joint covariance, in units of s2, of the noise after the last learned time.
    slopes, log_det_slope
        (p, n, d + K + 1) and (p,) derivatives by the ratios.
    """

    innovations: Float64
    triangle: Float64
    log_det: float
    ahead: Float64
    ahead_cov: Float64
    slopes: Float64
    log_det_slope: Float64


def whiten(
    model: UnobservedComponents, ratios: Float64, columns: Float64, learned: NDArray[np.bool_]
) -> Whitened:
    """Filter all columns with the same gains; learn at the times ``learned`` (T,)."""
    step = _Steps(model, ratios, columns.shape[1])
    last = int(np.flatnonzero(learned)[-1])
    variances, slopes, rows, row_slopes, ahead, covs = [], [], [], [], [], []
    for time, row in enumerate(columns):
        error = row - step.design @ step.mean
        ahead.append(error)
        if time > last:
            covs.append(step.cov)
        if learned[time]:
            f, df, dv = step.update(error)
            variances.append(f)
            slopes.append(df / f)
            rows.append(error / math.sqrt(f))
            row_slopes.append((dv - 0.5 * np.outer(df / f, error)) / math.sqrt(f))
        step.predict(derivatives=time < last)
    used = np.stack(rows)
    return Whitened(
        used, np.linalg.qr(used)[1], float(np.log(variances).sum()), np.stack(ahead),
        _joint(step.design, step.transition, covs), np.stack(row_slopes, 1),
        np.stack(slopes).sum(0),
    )  # fmt: skip


def log_likelihood(
    model: UnobservedComponents, ratios: Float64, columns: Float64, learned: NDArray[np.bool_]
) -> tuple[float, Float64]:
    """Return the log likelihood of the ratios, all else at its maximum, and its gradient."""
    found, size = whiten(model, ratios, columns, learned), model.states
    free = len(found.innovations) - size
    known, target = found.innovations[:, :-1], found.innovations[:, -1]
    beta = np.linalg.lstsq(known, target)[0]
    left = target - known @ beta
    square = float(left @ left)
    start = known[:, :size]
    value = -0.5 * (
        free * math.log(2 * math.pi * math.e * square / free) + found.log_det
        + 2 * np.log(np.abs(np.diag(found.triangle)[:size])).sum()
    )  # fmt: skip
    moved = found.slopes[:, :, -1] - found.slopes[:, :, :-1] @ beta
    inverse = np.linalg.pinv(start).T
    turned = (found.slopes[:, :, :size] * inverse).sum((1, 2))
    slope = -free * (moved @ left) / square - 0.5 * found.log_det_slope - turned
    return float(value) + start_constant(columns, size), np.asarray(slope)


def start_constant(columns: Float64, size: int) -> float:
    """Return log |det A_1|, A_1 the first rows of A: what leaving them out takes away."""
    return float(np.linalg.slogdet(columns[:size, :size])[1])


class _Steps:
    """The filter between two times: states of all columns, their covariance, and derivatives."""

    def __init__(self, model: UnobservedComponents, ratios: Float64, columns: int) -> None:
        self.design, self.transition, moved = model.matrices()
        size, count = len(self.design), len(ratios)
        self.noise = np.zeros((size, size))
        self.noise[moved, moved] = ratios
        self.noise_slopes = np.zeros((count, size, size))
        self.noise_slopes[np.arange(count), moved, moved] = 1.0
        self.mean, self.cov = np.zeros((size, columns)), np.zeros((size, size))
        self.means, self.covs = np.zeros((count, size, columns)), np.zeros((count, size, size))

    def update(self, error: Float64) -> tuple[float, Float64, Float64]:
        """Take in a row; return its variance and the derivatives of that and of the error."""
        z = self.design
        spread = self.cov @ z
        f = float(spread @ z) + 1.0
        spreads = self.covs @ z
        df = spreads @ z
        dv = -(z @ self.means)
        gain = spread / f
        gains = (spreads - np.outer(df, gain)) / f
        self.mean = self.mean + np.outer(gain, error)
        self.cov = self.cov - np.outer(gain, spread)
        self.means = self.means + gains[:, :, None] * error + gain[:, None] * dv[:, None, :]
        self.covs = (
            self.covs - gains[:, :, None] * spread - gain[:, None] * spreads[:, None, :]
        )  # fmt: skip
        return f, df, dv

    def predict(self, *, derivatives: bool) -> None:
        """Move on to the next time."""
        turn = self.transition
        self.mean, self.cov = turn @ self.mean, turn @ self.cov @ turn.T + self.noise
        if derivatives:
            self.means, self.covs = turn @ self.means, turn @ self.covs @ turn.T + self.noise_slopes


def _joint(design: Float64, transition: Float64, covs: list[Float64]) -> Float64:
    """Joint covariance of values ahead: z F^(i - j) P_j z', plus their own noise."""
    horizon = len(covs)
    joint = np.eye(horizon)
    for j in range(horizon):
        carried = covs[j] @ design
        for i in range(j, horizon):
            joint[i, j] = joint[j, i] = design @ carried + float(i == j)
            carried = transition @ carried
    return joint
