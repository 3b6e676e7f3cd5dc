"""What an impact was estimated from, as arrays, so that checks can ask the same of other data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from eocausal.checks.base import Verdict
from eocausal.errors import EocausalError
from eocausal.estimators.impact_alignment import align
from eocausal.estimators.impact_calendar import RegularTimes, plain_times, time_label
from eocausal.estimators.structural import fit_structural
from eocausal.estimators.structural_priors import CompatiblePrior

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.impact import Impact
    from eocausal.estimators.structural_model import StructuralModel
    from eocausal.estimators.structural_result import AverageEffects

    Float64 = NDArray[np.float64]
    Bool = NDArray[np.bool_]

__all__ = ["Question", "column", "excludes_zero", "normal_scores", "question_of", "row", "turned"]

NUMBERS = ("estimate", "std_error", "ci_low", "ci_high", "p_value", "n")


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A record on its calendar and what was asked of it.

    Attributes
    ----------
    name
        Of the outcome.
    regular
        The calendar.
    y
        (T,) outcome on the scale of the model.
    controls
        (T, K) table; no columns if there are none.
    variance
        (T,) relative variances of the residual, or None.
    before, post
        (T,) times learned from and counted.
    model, level
        As in the request.
    impact
        Where it comes from.
    """

    name: str
    regular: RegularTimes
    y: Float64
    controls: pd.DataFrame
    variance: Float64 | None
    before: Bool
    post: Bool
    model: StructuralModel
    level: float
    impact: Impact

    @property
    def times(self) -> pd.Index:
        """(T,) the calendar."""
        return self.regular.times

    @property
    def alpha(self) -> float:
        """One less the level of intervals."""
        return 1.0 - self.level

    @property
    def first(self) -> int:
        """First time after the event that is counted."""
        return int(np.argmax(self.post))

    def label(self, at: int) -> str:
        """Return a time in words."""
        return time_label(self.times[at])

    def averages(
        self,
        outcomes: Float64 | None = None,
        *,
        before: Bool | None = None,
        after: Bool | None = None,
        controls: Float64 | None = None,
        model: StructuralModel | None = None,
        until: int | None = None,
    ) -> AverageEffects:
        """Estimate mean effects of (N, T) outcomes, or of the own one.

        Parameters
        ----------
        before, after
            Times learned from and counted, the question's own if not given.
        controls
            (T, K), the question's own if not given; (T, 0) for none.
        until
            Steps from here on are cut off, so that nothing can come from them.
        """
        keep = slice(None, until)
        x = self.controls.to_numpy(dtype=float) if controls is None else controls
        y = self.y[None] if outcomes is None else outcomes
        fit = fit_structural(
            y[:, keep], (self.before if before is None else before)[keep],
            self.model if model is None else model,
            controls=x[keep] if x.shape[1] else None,
            variance=None if self.variance is None else self.variance[keep],
        )  # fmt: skip
        return fit.average((self.post if after is None else after)[keep], self.level)

    def matched(self, table: pd.DataFrame) -> tuple[Float64, list[str]]:
        """Return other series (T, N) on this calendar and scale, and why one cannot be used.

        A series without a value on the scale of the model is NaN.
        """
        place = self.regular.locate(plain_times(table.index, "The candidates"))
        values = np.full((len(self.times), table.shape[1]), np.nan)
        values[place[place >= 0]] = table.to_numpy(dtype=float)[place >= 0]
        notes = [""] * table.shape[1]
        transform = self.impact.request.transform
        if transform is not None:
            labels = [time_label(t) for t in self.times]
            for k in range(values.shape[1]):
                try:
                    values[:, k] = transform.forward(values[:, k], labels)
                except EocausalError as error:
                    values[:, k], notes[k] = np.nan, error.fact
        return values, notes


def question_of(impact: Impact) -> Question:
    """Return what an impact was estimated from."""
    asked = impact.request
    data = align(
        asked.outcome, asked.event, asked.controls, learn_until=asked.learn_until,
        variance=asked.variance, transform=asked.transform,
    )  # fmt: skip
    y = data.modelled.copy()
    if isinstance(asked.model.prior, CompatiblePrior):
        y[np.arange(len(y)) >= (data.from_first_value().stop)] = np.nan
    controls = pd.DataFrame(index=data.regular.times) if data.controls is None else data.controls
    return Question(
        str(asked.outcome.name or "the outcome"), data.regular, y, controls, data.variance,
        data.windows.before, data.windows.post, asked.model, asked.level, impact,
    )  # fmt: skip


def row(effects: AverageEffects, at: int) -> dict[str, Any]:
    """Return the numbers of one series."""
    found: dict[str, Any] = {name: float(getattr(effects, name)[at]) for name in NUMBERS}
    return {**found, "n": int(effects.n[at])}


def column(table: pd.DataFrame, name: str) -> Float64:
    """Return a column as numbers."""
    return np.asarray(table[name].to_numpy(dtype=float, na_value=np.nan))


def excludes_zero(low: Float64, high: Float64) -> Bool:
    """Return whether intervals leave zero out; not where they are NaN."""
    return np.asarray((low > 0) | (high < 0))


def normal_scores(estimate: Float64, p_value: Float64) -> Float64:
    """Return the normal deviates that two-sided p-values belong to, with the estimates' signs."""
    return np.asarray(np.sign(estimate) * stats.norm.isf(np.clip(p_value, 1e-300, 1.0) / 2.0))


def turned(table: pd.DataFrame, whole: dict[str, Any]) -> tuple[Verdict, Bool, Bool]:
    """Judge estimates with something left out against the whole.

    Fail if a sign turns that was sure; warn if the exclusion of zero does, or there is no
    estimate. Returns the verdict, and the rows whose sign, and whose exclusion of zero, turns.
    """
    estimate = column(table, "estimate")
    known = np.isfinite(estimate)
    sure = bool(excludes_zero(np.array([whole["ci_low"]]), np.array([whole["ci_high"]]))[0])
    flips = known & sure & (estimate * whole["estimate"] < 0)
    turns = known & (excludes_zero(column(table, "ci_low"), column(table, "ci_high")) != sure)
    if flips.any():
        return Verdict.FAIL, flips, turns
    warned = turns.any() or not known.all()
    return (Verdict.WARN if warned else Verdict.PASS), flips, turns
