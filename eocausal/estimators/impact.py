"""The effect of an event on one series: labelled data in, an effect path and its summary out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eocausal.designs import Event
from eocausal.effects import EffectPath
from eocausal.errors import AlignmentError, DuplicateIdError, EstimationError, OutcomeError
from eocausal.estimators.impact_summary import ImpactSummary, summarise
from eocausal.estimators.impact_words import effect_table
from eocausal.estimators.structural import fit_structural
from eocausal.estimators.structural_model import Engine, StructuralModel
from eocausal.estimators.structural_priors import CompatiblePrior

__all__ = ["Impact", "ImpactRequest", "bsts"]

Float64 = NDArray[np.float64]
HUNDRED = (80.0, 125.0)


@dataclass(frozen=True, slots=True, eq=False)
class ImpactRequest:
    """What was asked, so that checks can ask again with something changed (``replace(...).run()``).

    The fields are the arguments of :func:`bsts`.
    """

    outcome: pd.Series
    event: Event
    controls: pd.DataFrame | None
    model: StructuralModel
    learn_until: str | None
    variance: pd.Series | None
    draws: int
    seed: int
    level: float

    def run(self) -> Impact:
        """Estimate."""
        return bsts(
            self.outcome, self.event, self.controls, model=self.model,
            learn_until=self.learn_until, variance=self.variance, draws=self.draws,
            seed=self.seed, level=self.level,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Impact:
    """What an event did to a series, and how that was found.

    Attributes
    ----------
    request
        What was asked.
    path
        Observed values against draws of what would have been, residual included.
    expected
        (draws, T) the same draws without the residual.
    effects
        Average, cumulative and relative effects.
    inclusion
        Probability that each control is in the model.
    model, engine
        What the series was taken to be made of, and how the posterior was computed.
    """

    request: ImpactRequest
    path: EffectPath
    expected: Float64
    effects: ImpactSummary
    inclusion: pd.Series
    model: StructuralModel
    engine: Engine

    def summary(self) -> str:
        """Say the effects in a table."""
        return effect_table(self.effects, self.path.level)

    def __repr__(self) -> str:
        return f"Impact({self.engine}, {self.model.prior!r}: {self.effects!r})"


def bsts(
    outcome: pd.Series,
    event: Event,
    controls: pd.DataFrame | None = None,
    *,
    model: StructuralModel | None = None,
    learn_until: str | None = None,
    variance: pd.Series | None = None,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Impact:
    """Estimate the effect of an event on a series with a Bayesian structural time series.

    Parameters
    ----------
    outcome
        Series over increasing dates, one step of the model each; NaN where missing.
    event
        First and last date that count as after the event.
    controls
        Columns the event did not reach, matched by date. Times with a missing one are left out.
    model
        Our default if not given: level, autocorrelated residual and controls.
    learn_until
        Last date to learn from, if there is to be a gap before the event.
    variance
        Relative variance of the residual at each date, such as one over the number of valid looks.
    seed
        Fixes the random numbers.
    level
        Probability of the intervals.

    Raises
    ------
    DuplicateIdError
        If a date occurs twice.
    AlignmentError
        If dates are not increasing, or a control shares none with the outcome.
    DesignError
        If the event leaves no time before or after it.
    EstimationError
        If a control is the outcome, or a series changes its unit.
    OutcomeError
        If the outcome is constant or too short before the event.
    """
    decided = StructuralModel() if model is None else model
    times = _times(outcome)
    post = event.post(times)
    before = np.asarray(times < pd.Timestamp(event.when))
    if learn_until is not None:
        before &= np.asarray(times <= pd.Period(learn_until).end_time)
    y = outcome.to_numpy(dtype=float)
    table = None if controls is None else _matched(controls, times)
    _check_units(str(outcome.name or "The outcome"), y, before, post)
    for name in [] if table is None else table.columns:
        x = table[name].to_numpy(dtype=float) if table is not None else y
        _check_units(f"Control {name}", x, before, post)
        _check_own(str(name), x, y)
    fit = fit_structural(
        y[None], before, decided,
        controls=None if table is None else table.to_numpy(dtype=float),
        variance=None if variance is None else variance.reindex(times).to_numpy(dtype=float),
    )  # fmt: skip
    if fit.refused:
        raise OutcomeError(
            f"The outcome cannot be fitted: {fit.refused[0]}.",
            cause="Nothing can be learned of how it varies.",
            next_step="Give more values before the event, or fewer controls and no season.",
        )
    paths = fit.paths(0, draws=draws, seed=seed)
    path = EffectPath(times, y, paths.replicate, post, level)
    names = [] if table is None else list(table.columns)
    request = ImpactRequest(
        outcome, event, controls, decided, learn_until, variance, draws, seed, level
    )
    return Impact(
        request, path, paths.expected,
        summarise(path, paths.expected, compatible=isinstance(decided.prior, CompatiblePrior)),
        pd.Series(fit.inclusion()[0], index=names, dtype=float), decided, fit.engine,
    )  # fmt: skip


def _times(outcome: pd.Series) -> pd.DatetimeIndex:
    if not isinstance(outcome.index, pd.DatetimeIndex):
        raise AlignmentError(
            f"The outcome is indexed by {type(outcome.index).__name__}.",
            cause="The event is a date.",
            next_step="Set the dates as index, e.g. with pandas.to_datetime.",
        )
    repeated = outcome.index[outcome.index.duplicated()]
    if len(repeated):
        raise DuplicateIdError(
            f"{len(repeated)} dates of the outcome occur twice, such as {repeated[0]:%Y-%m-%d}.",
            cause="A series has one value at a time.",
            next_step="Average them, or correct the dates.",
        )
    if not outcome.index.is_monotonic_increasing:
        raise AlignmentError(
            "The dates of the outcome do not increase.",
            cause="The order of values is the order of time.",
            next_step="Sort the series by its index.",
        )
    return outcome.index


def _matched(controls: pd.DataFrame, times: pd.DatetimeIndex) -> pd.DataFrame:
    if not controls.index.is_unique:
        raise DuplicateIdError(
            "A date of the controls occurs twice.",
            cause="A series has one value at a time.",
            next_step="Average them, or correct the dates.",
        )
    if not controls.index.isin(times).any():
        raise AlignmentError(
            "The controls have no date in common with the outcome.",
            cause="They are matched by date.",
            next_step="Give both the same dates, such as the first day of each month.",
        )
    return controls.reindex(times)


def _check_units(name: str, x: Float64, before: NDArray[np.bool_], post: NDArray[np.bool_]) -> None:
    """Refuse a series that is a hundred times as large on one side of the event."""
    sides = [x[side & np.isfinite(x)] for side in (before, post)]
    if not all(len(side) for side in sides):
        return
    first, second = (float(np.median(side)) for side in sides)
    ratio = abs(second / first) if first and second else 1.0
    if HUNDRED[0] <= max(ratio, 1.0 / ratio) <= HUNDRED[1]:
        raise EstimationError(
            f"{name} has a median of {first:.4g} before and {second:.4g} after the event.",
            cause="A factor near 100 looks like two units, such as m-1 and 10^-2 m-1.",
            next_step="Bring all values to one unit.",
        )


def _check_own(name: str, x: Float64, y: Float64) -> None:
    both = np.isfinite(x) & np.isfinite(y)
    if both.sum() < 3 or not (x[both].std() and y[both].std()):
        return
    if abs(np.corrcoef(x[both], y[both])[0, 1]) > 1.0 - 1e-12:
        raise EstimationError(
            f"Control {name} is the outcome, in the same or another unit.",
            cause="It knows the effect, so that none would be found.",
            next_step="Leave it out.",
        )
