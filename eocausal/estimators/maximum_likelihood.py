"""An impact by maximum likelihood: an unobserved components model fitted before the event.

This is what statsmodels' ``UnobservedComponents`` does, and what is often called a "Bayesian
structural time series" without being Bayesian. It is here so that results found with it can be
told apart into what the model says and what was read into it. For an effect with an honest
interval use :func:`eocausal.estimators.impact.bsts`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize

from eocausal.designs import Event
from eocausal.errors import AlignmentError, EstimationError, OutcomeError
from eocausal.estimators.maximum_likelihood_result import LikelihoodImpact, Parameters
from eocausal.estimators.unobserved_components import (
    UnobservedComponents,
    Whitened,
    log_likelihood,
    start_constant,
    whiten,
)

__all__ = ["maximum_likelihood"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
STARTS = (0.0, 1.0, 30.0)


def maximum_likelihood(
    outcome: pd.Series,
    event: Event,
    controls: pd.DataFrame | None = None,
    *,
    model: UnobservedComponents | None = None,
    at: Parameters | None = None,
    level: float = 0.95,
) -> LikelihoodImpact:
    """Fit before the event, predict after it, and compare.

    Parameters
    ----------
    outcome
        Series over increasing dates, one step of the model each; NaN where missing.
    event
        First and last date that count as after the event.
    controls
        Columns the event did not reach, on the dates of the outcome.
    model
        Local linear trend and a season of 12 if not given.
    at
        Take these parameters instead of those of highest likelihood.
    level
        Probability of the intervals of single times.

    Raises
    ------
    AlignmentError
        If dates are not increasing, each once.
    DesignError
        If the event leaves no time before or after it.
    EstimationError
        If there are fewer values before the event than parameters, or controls repeat each other
        or the trend and season.
    OutcomeError
        If the outcome is constant before the event, or has no value after it.
    """
    decided = UnobservedComponents() if model is None else model
    times = _times(outcome)
    post = event.post(times)
    before = np.asarray(times < pd.Timestamp(event.when))
    table = pd.DataFrame(index=times) if controls is None else controls.reindex(times)
    y, x = outcome.to_numpy(dtype=float), table.to_numpy(dtype=float)
    whole = np.isfinite(y) & np.isfinite(x).all(1)
    learned, ahead = before & whole, post & whole
    _check(y, x, learned, ahead, decided)
    columns = np.column_stack([decided.start_columns(len(y)), x, y])
    if at is None:
        ratios, converged = _highest(decided, columns, learned)
    else:
        ratios, converged = at.ratios(decided.variances), True
    found = whiten(decided, ratios, columns, learned)
    solved = _solve(decided, ratios, found, [str(name) for name in table.columns], at)
    last = int(np.flatnonzero(learned)[-1]) + 1
    return _impact(times, y, last, ahead, found, decided, solved, columns, converged, level)


def _times(outcome: pd.Series) -> pd.DatetimeIndex:
    times = outcome.index
    if not (
        isinstance(times, pd.DatetimeIndex) and times.is_monotonic_increasing and times.is_unique
    ):
        raise AlignmentError(
            f"The outcome is indexed by {type(times).__name__}, not by increasing dates.",
            cause="The order of values is the order of time, and the event is a date.",
            next_step="Set the dates as index, sort by it, and keep each once.",
        )
    return times


@dataclass(frozen=True, slots=True, eq=False)
class _Solved:
    """All coefficients, the parameters, and the noise variance."""

    coefficients: Float64
    parameters: Parameters


def _highest(model: UnobservedComponents, columns: Float64, learned: Bool) -> tuple[Float64, bool]:
    """Maximise over ratios >= 0, in units in which each matters about alike."""
    natural = model.natural(int(learned.sum()))

    def negative(scaled: Float64) -> tuple[float, Float64]:
        value, slope = log_likelihood(model, scaled * natural, columns, learned)
        return -value, -slope * natural

    size = len(natural)
    starts = sorted((np.full(size, s) for s in STARTS), key=lambda s: negative(s)[0])
    best = None
    for start in starts[:2]:
        found = optimize.minimize(
            negative, np.maximum(start, 0.01), jac=True, method="L-BFGS-B",
            bounds=[(0, None)] * size, options={"ftol": 1e-12, "gtol": 1e-6, "maxiter": 200},
        )  # fmt: skip
        if best is None or found.fun < best.fun:
            best = found
    assert best is not None
    return np.asarray(best.x) * natural, bool(best.success)


def _solve(
    model: UnobservedComponents,
    ratios: Float64,
    found: Whitened,
    names: list[str],
    at: Parameters | None,
) -> _Solved:
    """Coefficients by generalised least squares; the start alone where the others are given."""
    triangle, size = found.triangle, model.states
    free = len(found.innovations) - size
    if at is None:
        beta = np.linalg.solve(triangle[:-1, :-1], triangle[:-1, -1])
        noise = float(triangle[-1, -1] ** 2) / free
    else:
        given = at.of(names)
        left = triangle[:, -1] - triangle[:, size:-1] @ given
        start = np.linalg.solve(triangle[:size, :size], left[:size])
        beta, noise = np.concatenate([start, given]), at.noise
    states = dict(zip(model.variances, (float(v) for v in ratios * noise), strict=True))
    coefficients = dict(zip(names, (float(b) for b in beta[size:]), strict=True))
    return _Solved(np.asarray(beta, dtype=float), Parameters(noise, states, coefficients))


def _impact(
    times: pd.DatetimeIndex, y: Float64, last: int, ahead: Bool, found: Whitened,
    model: UnobservedComponents, solved: _Solved, columns: Float64, converged: bool, level: float,
) -> LikelihoodImpact:  # fmt: skip
    """Put the effects, their joint covariance and the likelihood together."""
    size, noise = model.states, solved.parameters.noise
    errors = found.ahead[ahead]
    effect = errors[:, -1] - errors[:, :-1] @ solved.coefficients
    keep = ahead[last:]
    joint = found.ahead_cov[np.ix_(keep, keep)]
    triangle = found.triangle
    fixed = joint + _spread(errors[:, :size], triangle[:size, :size])
    whole = joint + _spread(errors[:, :-1], triangle[:-1, :-1])
    innovations = found.innovations[:, -1] - found.innovations[:, :-1] @ solved.coefficients
    free = len(innovations) - size
    log_likelihood = start_constant(columns, size) - 0.5 * (
        free * np.log(2 * np.pi * noise) + found.log_det
        + 2 * np.log(np.abs(np.diag(triangle)[:size])).sum()
        + float(innovations @ innovations) / noise
    )  # fmt: skip
    centred = innovations - innovations.mean()
    return LikelihoodImpact(
        times[ahead], y[ahead], effect, noise * fixed, noise * whole, model, solved.parameters,
        float(log_likelihood), converged, len(innovations),
        float(centred[1:] @ centred[:-1] / (centred @ centred)), level,
    )  # fmt: skip


def _spread(errors: Float64, triangle: Float64) -> Float64:
    """Covariance that coefficients of (R'R)^-1 add to predictions."""
    half = np.linalg.solve(triangle.T, errors.T)
    return np.asarray(half.T @ half)


def _check(y: Float64, x: Float64, learned: Bool, ahead: Bool, model: UnobservedComponents) -> None:
    needed = model.states + x.shape[1] + len(model.variances) + 1
    if learned.sum() <= needed:
        raise EstimationError(
            f"{int(learned.sum())} values before the event for {needed} parameters.",
            cause="Nothing would be left to tell noise from the rest.",
            next_step="Give a longer record, no season, or fewer controls.",
        )
    if np.ptp(y[learned]) == 0 or not ahead.any():
        raise OutcomeError(
            "The outcome does not vary before the event, or has no value after it.",
            cause="There is nothing to learn from, or nothing to compare.",
            next_step="Check the outcome, the controls and the date of the event.",
        )
    known = np.column_stack([model.start_columns(len(y)), x])[learned]
    if np.linalg.matrix_rank(known / np.linalg.norm(known, axis=0).clip(1e-300)) < known.shape[1]:
        raise EstimationError(
            "Some control is a sum of the others, a straight line or a season.",
            cause="Its coefficient can be anything.",
            next_step="Leave it out.",
        )
