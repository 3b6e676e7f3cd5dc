"""The effect of an event on one series: labelled data in, an effect path and its summary out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eocausal.designs import Event
from eocausal.effects import EffectPath
from eocausal.errors import EstimationError, OutcomeError
from eocausal.estimators.impact_alignment import Aligned, align
from eocausal.estimators.impact_calendar import plain_times
from eocausal.estimators.impact_draws import ImpactDraws
from eocausal.estimators.impact_held_out import HeldOut
from eocausal.estimators.impact_input import series_of, table_of
from eocausal.estimators.impact_looks import Looks
from eocausal.estimators.impact_predictive import FitChecks
from eocausal.estimators.impact_record import impact_record
from eocausal.estimators.impact_report import impact_report
from eocausal.estimators.impact_summary import ImpactSummary
from eocausal.estimators.impact_transforms import Transform
from eocausal.estimators.impact_windows import EventRow
from eocausal.estimators.impact_words import effect_table
from eocausal.estimators.structural import fit_structural
from eocausal.estimators.structural_model import Engine, StructuralModel
from eocausal.estimators.structural_priors import CompatiblePrior
from eocausal.estimators.structural_result import SeriesDraws, StructuralFit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from eocausal.estimators.impact_input import Controls, Outcome

__all__ = ["Impact", "ImpactRequest", "bsts"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ImpactRequest:
    """What was asked, so that checks can ask again with something changed (``replace(...).run()``).

    The fields are the arguments of :func:`bsts`, outcome and controls as pandas.
    """

    outcome: pd.Series
    event: Event | EventRow | Sequence[Event | EventRow]
    controls: pd.DataFrame | None
    model: StructuralModel
    learn_until: str | int | None
    variance: pd.Series | Looks | None
    draws: int
    seed: int
    level: float
    transform: Transform | None = None

    def run(self) -> Impact:
        """Estimate."""
        return bsts(
            self.outcome, self.event, self.controls, model=self.model,
            learn_until=self.learn_until, variance=self.variance, draws=self.draws,
            seed=self.seed, level=self.level, transform=self.transform,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Impact:
    """What an event did to a series, and how that was found.

    ``path``, ``expected``, ``fit_checks`` and ``notes`` are computed when first asked for.

    Attributes
    ----------
    request
        What was asked.
    draws
        Draws of what would have been.
    effects
        Average, cumulative and relative effects over all counted times.
    inclusion
        Probability that each control is in the model.
    model, engine
        What the series was taken to be made of, and how the posterior was computed.
    by_event
        Effects over the window of each event, by its date.
    before
        (T,) True for times learned from.
    step
        What one step of the calendar is, in words.
    said
        What was done to the data and noticed on the way.
    """

    request: ImpactRequest
    draws: ImpactDraws
    effects: ImpactSummary
    inclusion: pd.Series
    model: StructuralModel
    engine: Engine
    by_event: dict[str, ImpactSummary]
    before: NDArray[np.bool_]
    step: str = "row"
    said: tuple[str, ...] = ()

    @property
    def path(self) -> EffectPath:
        """Observed values against draws of what would have been, residual included."""
        return self.draws.path

    @property
    def expected(self) -> Float64:
        """(draws, T) the same draws without the residual; with a transform, as in the path."""
        return self.draws.told.expected

    @cached_property
    def fit_checks(self) -> FitChecks:
        """Whether the model could have made the series before the event."""
        return self.draws.fit_checks(seasonal=bool(self.model.seasons))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done, what could not be said, and what does not fit."""
        return (*self.said, *self.effects.notes, *self.fit_checks.doubts)

    @property
    def name(self) -> str:
        """Name of the outcome."""
        return str(self.request.outcome.name or "the outcome")

    @property
    def unit(self) -> str:
        """Unit of the outcome (``outcome.attrs["units"]``), or empty."""
        return str(self.request.outcome.attrs.get("units", ""))

    def summary(self, kind: str = "table") -> str:
        """Say the effects: a ``"table"``, or a ``"report"`` in words.

        Raises
        ------
        EstimationError
            If ``kind`` is neither.
        """
        if kind == "table":
            tables = {" and ".join(self.by_event): self.effects}
            tables |= self.by_event
            unit = f" ({self.unit})" if self.unit else ""
            return "\n\n".join(
                f"Event {name}, {self.name}{unit}\n\n{effect_table(found, self.request.level)}"
                for name, found in tables.items()
            )
        if kind == "report":
            return impact_report(self)
        raise EstimationError(
            f"There is no summary {kind!r}.",
            cause="Known are 'table' and 'report'.",
            next_step="Write one of these.",
        )

    def to_frame(self) -> pd.DataFrame:
        """Return a row per time: observed, counterfactual and effects with intervals."""
        return self.path.to_frame()

    def record(self) -> dict[str, Any]:
        """Return what ``eocausal impact --json`` prints."""
        return impact_record(self)

    def held_out(self, share: float = 0.25) -> HeldOut:
        """Predict the last part of the times before the event as if an event began there.

        Nothing happened, so the interval of the average effect should hold zero, and those of
        single times most values.

        Raises
        ------
        OutcomeError
            If too little is left to learn from.
        """
        times = self.path.time[self.before & np.isfinite(self.path.observed)]
        cut = round(len(times) * (1.0 - share))
        if not 0.0 < share < 1.0 or cut < 1 or cut >= len(times):
            raise OutcomeError(
                f"A share of {share} of {len(times)} times cannot be held out.",
                cause="Both parts need times.",
                next_step="Hold out between 0.1 and 0.5.",
            )
        own = plain_times(self.request.outcome.index, "The outcome")
        first, last = map(int, own.get_indexer(times[[cut, -1]]))
        shorter = self.request.outcome.iloc[: last + 1]
        asked = replace(self.request, outcome=shorter, event=EventRow(first), learn_until=None)
        return HeldOut(asked.run())

    def plot(self) -> Figure:
        """Draw observed and counterfactual, pointwise and cumulative effects."""
        figure: Figure = import_module("eocausal.reports.impact_plot").impact_figure(self)
        return figure

    def __repr__(self) -> str:
        return f"Impact({self.engine}, {self.model.prior!r}: {self.effects!r})"


def bsts(
    outcome: Outcome,
    event: Event | EventRow | Sequence[Event | EventRow],
    controls: Controls | None = None,
    *,
    model: StructuralModel | None = None,
    learn_until: str | int | None = None,
    variance: pd.Series | Looks | None = None,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    transform: Transform | None = None,
) -> Impact:
    """Estimate the effect of an event on a series with a Bayesian structural time series.

    Parameters
    ----------
    outcome
        Series over increasing dates or rows, NaN where missing: pandas, a DataArray over ``time``,
        or a panel cut to one neighborhood and variable. Steps of its calendar without a row are
        put in as missing.
    event
        First and last date that count as after the event, or :class:`EventRow` for a series without
        dates; or several of them, each counted over its own window. Only times before the first
        are learned from.
    controls
        Series the event did not reach, matched by date (years, quarters and months by
        themselves). Times with a missing one are neither learned from nor counted.
    model
        Our default if not given: level, autocorrelated residual and controls.
    learn_until
        Last date, or row, to learn from, if there is to be a gap before the event.
    variance
        Relative variance of the residual at each date, or :class:`Looks`; with a transform, on
        the scale of the model.
    seed
        Fixes the random numbers.
    level
        Probability of the intervals.
    transform
        ``Log()`` or ``Logit()`` to model the outcome on that scale; effects are on its own.
        Controls are taken as they are.

    Raises
    ------
    DuplicateIdError
        If a date occurs twice.
    AlignmentError
        If times are not increasing or do not fit the event, or a control shares none with the
        outcome.
    PanelError
        If the outcome is more than one series, or its times are irregular.
    DesignError
        If the event leaves no time before or after it.
    EstimationError
        If a control is the outcome or does not vary, or a series changes its unit.
    OutcomeError
        If the outcome is constant or too short before the event, or has no value on the scale of
        the transform.
    """
    decided = StructuralModel() if model is None else model
    request = ImpactRequest(
        series_of(outcome), event, table_of(controls), decided, learn_until, variance, draws, seed,
        level, transform,
    )  # fmt: skip
    data = align(
        request.outcome, event, request.controls,
        learn_until=learn_until, variance=variance, transform=transform,
    )  # fmt: skip
    compatible = isinstance(decided.prior, CompatiblePrior)
    part = data.from_first_value() if compatible else slice(None)
    fit = _fitted(data, part, decided, seed)
    return _told(request, data, part, fit)


def _fitted(data: Aligned, part: slice, model: StructuralModel, seed: int) -> StructuralFit:
    controls = None if data.controls is None else data.controls.to_numpy(dtype=float)[part]
    fit = fit_structural(
        data.modelled[None, part], data.windows.before[part], model, controls=controls,
        variance=None if data.variance is None else data.variance[part], seed=seed,
    )  # fmt: skip
    if fit.refused:
        raise OutcomeError(
            f"The outcome cannot be fitted: {fit.refused[0]}.",
            cause="Nothing can be learned of how it varies.",
            next_step="Give more values before the event, or fewer controls and no season.",
        )
    return fit


def _drawn(
    fit: StructuralFit, request: ImpactRequest
) -> tuple[SeriesDraws, Float64, tuple[str, ...]]:
    """Return draws, inclusion, and what the engine warned of (chains that do not agree)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        drawn = fit.path_draws(0, draws=request.draws, seed=request.seed)
        inclusion = np.clip(fit.inclusion()[0], 0.0, 1.0)
    for item in caught:
        if item.category is not UserWarning:
            warnings.warn_explicit(item.message, item.category, item.filename, item.lineno)
    texts = [str(item.message) for item in caught if item.category is UserWarning]
    said = dict.fromkeys(text.replace(" of series 0", "") for text in texts)
    return drawn, inclusion, tuple(said)


def _told(request: ImpactRequest, data: Aligned, part: slice, fit: StructuralFit) -> Impact:
    """Draw what would have been after the event, and say what the draws say."""
    drawn, inclusion, warned = _drawn(fit, request)
    compatible = isinstance(request.model.prior, CompatiblePrior)
    draws = ImpactDraws(drawn, data, part, request.transform, request.level, compatible)
    effects, by_event = draws.effects()
    names = [] if data.controls is None else list(data.controls.columns)
    return Impact(
        request, draws, effects, pd.Series(inclusion, index=names, dtype=float), request.model,
        fit.engine, by_event, data.windows.before, data.regular.step, (*data.notes, *warned),
    )  # fmt: skip
