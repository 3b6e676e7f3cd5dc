"""Whether a model could have made the series before the event (posterior predictive checks).

For each draw of the parameters and states the residual of the series is compared with a residual
that the model draws anew (Gelman, Meng & Stern 1996; realised discrepancies). A probability near
zero or one says that the model does not make series like this one in that respect; what follows
from that is said. The probabilities are conservative: the same data were learned from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eocausal.estimators.impact_calendar import time_label

__all__ = ["FitChecks", "check_fit"]

Float64 = NDArray[np.float64]
DOUBT = 0.02
MOST_DRAWS = 500
YEARS = 2.0
FEWEST = 12


@dataclass(frozen=True, slots=True, eq=False)
class FitChecks:
    """What the residual before the event looks like, beside what the model expects.

    Attributes
    ----------
    table
        A row for each aspect: ``observed``, ``expected_low`` and ``expected_high`` (95 % of what
        the model draws), ``p_value`` (two-sided).
    doubts
        What does not fit and what follows, in sentences; empty if all fits.
    n
        Times looked at.
    """

    table: pd.DataFrame
    doubts: tuple[str, ...]
    n: int

    def to_frame(self) -> pd.DataFrame:
        """Return a copy of the table."""
        return self.table.copy()

    def summary(self) -> str:
        """Say the checks in words."""
        if self.table.empty:
            return f"Too few times before the event to check the model ({self.n})."
        lines = [f"Model against the {self.n} values before the event:"]
        for name, row in self.table.iterrows():
            lines.append(
                f"  {name}: {row['observed']:.3g}, the model draws {row['expected_low']:.3g} to "
                f"{row['expected_high']:.3g} (p = {row['p_value']:.2g})"
            )
        lines.extend(self.doubts or ["Nothing speaks against the model."])
        return "\n".join(lines)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name} p = {p:.2g}" for name, p in self.table["p_value"].items())
        return f"FitChecks({shown}; {len(self.doubts)} doubts)"


def check_fit(
    y: Float64,
    expected: Float64,
    replicate: Float64,
    before: NDArray[np.bool_],
    *,
    period: float | None = None,
    variance: Float64 | None = None,
    seasonal: bool = False,
    learned: bool = True,
    times: pd.Index | None = None,
) -> FitChecks:
    """Compare the residual before the event with residuals that the model draws.

    Parameters
    ----------
    y
        (T,) the series, on the scale of the model.
    expected, replicate
        (draws, T) draws without and with a new residual.
    before
        (T,) times learned from.
    period
        Steps in a year.
    variance
        (T,) relative variance of the residual.
    seasonal
        Whether the model has a season.
    learned
        Whether autocorrelation and the level's variance are learned (our prior).
    times
        (T,) what times are called.
    """
    use = np.flatnonzero(before & np.isfinite(y) & np.isfinite(expected[0]))
    empty = pd.DataFrame(columns=["observed", "expected_low", "expected_high", "p_value"])
    if len(use) < FEWEST:
        return FitChecks(empty, (), len(use))
    some = slice(0, MOST_DRAWS)
    scale = 1.0 if variance is None else np.sqrt(variance[use])
    seen = (y[use] - expected[some, use]) / scale
    drawn = (replicate[some, use] - expected[some, use]) / scale
    aspects = {
        "standard deviation": (_deviation(seen), _deviation(drawn)),
        "lag-1 autocorrelation": (_lag(seen, use), _lag(drawn, use)),
        "drift (correlation with time)": (_drift(seen, use), _drift(drawn, use)),
        "largest, in standard deviations": (_extreme(seen), _extreme(drawn)),
        "spread, later over earlier half": (_spread(seen), _spread(drawn)),
    }
    if period is not None and period >= 3 and (use[-1] - use[0]) >= YEARS * period:
        waves = _waves(use, period)
        aspects["share that is seasonal"] = (_share(seen, waves), _share(drawn, waves))
    rows = {name: _compared(*pair) for name, pair in aspects.items()}
    table = pd.DataFrame(rows).T
    farthest = use[int(np.abs(np.median(seen, axis=0)).argmax())]
    where = f"time {farthest}" if times is None else time_label(times[farthest])
    doubts = _doubts(table, where, seasonal=seasonal, learned=learned, period=period)
    return FitChecks(table, doubts, len(use))


def _compared(seen: Float64, drawn: Float64) -> dict[str, float]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    above = (1 + int((drawn >= seen).sum())) / (1 + len(drawn))
    below = (1 + int((drawn <= seen).sum())) / (1 + len(drawn))
    return {
        "observed": float(np.median(seen)),
        "expected_low": float(low),
        "expected_high": float(high),
        "p_value": min(1.0, 2.0 * min(above, below)),
    }


def _deviation(r: Float64) -> Float64:
    return np.asarray(r.std(axis=1, ddof=1))


def _lag(r: Float64, use: NDArray[np.int64]) -> Float64:
    """Autocorrelation over pairs of neighbouring times that both have a value."""
    first = np.flatnonzero(np.diff(use) == 1)
    centered = r - r.mean(axis=1, keepdims=True)
    pairs = (centered[:, first] * centered[:, first + 1]).mean(axis=1)
    return np.asarray(pairs / (centered**2).mean(axis=1))


def _drift(r: Float64, use: NDArray[np.int64]) -> Float64:
    time = (use - use.mean()) / np.linalg.norm(use - use.mean())
    centered = r - r.mean(axis=1, keepdims=True)
    return np.asarray(centered @ time / np.linalg.norm(centered, axis=1))


def _extreme(r: Float64) -> Float64:
    return np.asarray(np.abs(r).max(axis=1) / r.std(axis=1))


def _spread(r: Float64) -> Float64:
    half = r.shape[1] // 2
    return np.asarray(r[:, half:].std(axis=1) / r[:, :half].std(axis=1))


def _waves(use: NDArray[np.int64], period: float) -> Float64:
    """Return an orthonormal basis of a year and half a year, without their mean."""
    counts = np.arange(1, 3 if period >= 5 else 2)
    angle = 2.0 * np.pi * use[:, None] * counts / period
    waves = np.concatenate([np.cos(angle), np.sin(angle)], 1)
    return np.asarray(np.linalg.qr(waves - waves.mean(0))[0])


def _share(r: Float64, waves: Float64) -> Float64:
    centered = r - r.mean(axis=1, keepdims=True)
    return np.asarray(((centered @ waves) ** 2).sum(axis=1) / (centered**2).sum(axis=1))


def _doubts(
    table: pd.DataFrame, farthest: str, *, seasonal: bool, learned: bool, period: float | None
) -> tuple[str, ...]:
    """Say what does not fit, and what to do."""
    words = {
        "standard deviation": ("the residual has a standard deviation of {}", "Distrust the fit."),
        "lag-1 autocorrelation": (
            "neighbouring residuals have a correlation of {}",
            "Give the model what it lacks (a season, a control)."
            if learned
            else "These priors take it for zero, so that intervals are too narrow: our own prior "
            "learns it.",
        ),
        "drift (correlation with time)": (
            "the residual has a correlation of {} with time",
            "A trend is missing, or the level is held too still.",
        ),
        "largest, in standard deviations": (
            f"the largest residual, at {farthest}, is {{}} standard deviations",
            "Check such values, or take heavy tails.",
        ),
        "spread, later over earlier half": (
            "the residual of the later half has {} times the spread of the earlier",
            "It may be another sensor or number of looks: give variances, or model the logarithm.",
        ),
        "share that is seasonal": (
            "a share of {} of the residual is a yearly season",
            "The season changes more than the model lets it."
            if seasonal
            else f"Give the model a season of {period or 12:.0f}.",
        ),
    }
    found = []
    for name, row in table[table["p_value"] < DOUBT].iterrows():
        fact, advice = words[str(name)]
        size = fact.format(f"{row['observed']:.2g}")
        found.append(
            f"Before the event {size}, where the model expects {row['expected_low']:.2g} to "
            f"{row['expected_high']:.2g}. {advice}"
        )
    return tuple(found)
