"""What an analysis of placement found: measures with intervals, in tables and in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
from scipy import stats

if TYPE_CHECKING:
    from eocausal.effects import Influence
    from eocausal.estimators.assignment import AssignmentMechanism
    from eocausal.estimators.held_out import Losses
    from eocausal.folds import Splits

__all__ = ["Difference", "FittedAssignment", "Importance", "Measure", "Predicted"]


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """A number about held-out probabilities, with its uncertainty.

    Attributes
    ----------
    treatment
        The treatment that is compared with none.
    name
        What is measured.
    confounders
        The set it was predicted from, or the columns in question.
    estimate, std_error, df
        The number, its standard error and degrees of freedom.
    null
        Its value where there is nothing to tell.
    influence
        Influence values of the units of that treatment and of the untreated.
    level
        Of the interval.
    note
        What was noticed about the variance.
    """

    treatment: str
    name: str
    confounders: str
    estimate: float
    std_error: float
    df: float
    null: float
    influence: Influence
    level: float = 0.95
    note: str = ""

    @property
    def _half(self) -> float:
        return float(stats.t.ppf(0.5 + self.level / 2, self.df)) * self.std_error

    @property
    def ci_low(self) -> float:
        """Lower end of the interval; of an AUC at least 0."""
        low = self.estimate - self._half
        return max(0.0, low) if self.name == "AUC" else low

    @property
    def ci_high(self) -> float:
        """Upper end of the interval; of an AUC at most 1."""
        high = self.estimate + self._half
        return min(1.0, high) if self.name == "AUC" else high

    @property
    def p_value(self) -> float:
        """Two-sided p-value of the null; NaN without a standard error."""
        if not self.std_error > 0:
            return math.nan
        t = abs(self.estimate - self.null) / self.std_error
        return float(2 * stats.t.sf(t, self.df))

    def record(self) -> dict[str, Any]:
        """Return the record that tables print."""
        return {
            "treatment": self.treatment, "measure": self.name, "confounders": self.confounders,
            "estimate": self.estimate, "std_error": self.std_error, "ci_low": self.ci_low,
            "ci_high": self.ci_high, "null": self.null, "p_value": self.p_value,
            "n": len(self.influence.labels), "note": self.note,
        }  # fmt: skip

    def words(self) -> str:
        """Return the number and its interval."""
        return f"{self.estimate:.3f} ({self.ci_low:.3f} to {self.ci_high:.3f})"


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """How well one set of confounders tells one treatment.

    Attributes
    ----------
    auc
        Area under the ROC curve, averaged over folds.
    noise
        Share of what the models say that is noise of the units they were fitted on.
    n_treated
        Units of the treatment.
    intercept, slope
        Of the logistic regression of treatment on held-out log odds; 0 and 1 if calibrated.
    brier, log_loss
        Losses beside those of the shares of the arms.
    brier_skill, log_skill
        One minus loss over that of the shares.
    curve
        Calibration in bins: ``n, predicted, share_treated, ci_low, ci_high``.
    calibration_error
        Expected calibration error over the bins.
    error_by_chance
        What it would be on average if the probabilities were true.
    """

    auc: Measure
    noise: float
    n_treated: int
    intercept: Measure
    slope: Measure
    brier: Losses
    brier_skill: Measure
    log_loss: Losses
    log_skill: Measure
    curve: pd.DataFrame
    calibration_error: float
    error_by_chance: float

    def measures(self) -> list[Measure]:
        """Return all measures that have an interval."""
        return [self.auc, self.intercept, self.slope, self.brier_skill, self.log_skill]

    def record(self) -> dict[str, Any]:
        """Return one row."""
        return {
            "treatment": self.auc.treatment, "confounders": self.auc.confounders,
            "n": len(self.auc.influence.labels), "n_treated": self.n_treated,
            "auc": self.auc.estimate, "auc_std_error": self.auc.std_error,
            "auc_low": self.auc.ci_low, "auc_high": self.auc.ci_high,
            "noise_share": self.noise,
            "slope": self.slope.estimate, "slope_low": self.slope.ci_low,
            "slope_high": self.slope.ci_high,
            "intercept": self.intercept.estimate, "intercept_low": self.intercept.ci_low,
            "intercept_high": self.intercept.ci_high,
            "calibration_error": self.calibration_error,
            "calibration_error_by_chance": self.error_by_chance,
            "brier": self.brier.loss, "brier_of_shares": self.brier.base,
            "brier_skill": self.brier.skill,
            "log_loss": self.log_loss.loss, "log_loss_of_shares": self.log_loss.base,
            "log_loss_skill": self.log_loss.skill, "note": self.auc.note,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """How much better one set tells a treatment than another, on the same units.

    Attributes
    ----------
    gain
        AUC of ``of`` minus that of ``over``.
    of, over
        Names of the sets.
    noise
        Share of the difference of what the models say that is noise.
    """

    gain: Measure
    of: str
    over: str
    noise: float

    def record(self) -> dict[str, Any]:
        """Return one row."""
        return {**self.gain.record(), "of": self.of, "over": self.over, "noise_share": self.noise}


@dataclass(frozen=True, slots=True, eq=False)
class Importance:
    """How much a model of placement leans on a column, or on a whole image.

    Attributes
    ----------
    drop
        AUC lost, on average, when it is permuted among held-out units; its interval holds the
        variance over units and over permutations, given the models.
    within
        The set of confounders of the model.
    spread
        Standard deviation over permutations.
    repeats
        Number of permutations.
    """

    drop: Measure
    within: str
    spread: float
    repeats: int

    def record(self) -> dict[str, Any]:
        """Return one row."""
        return {
            **self.drop.record(), "within": self.within, "sd_over_permutations": self.spread,
            "permutations": self.repeats,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class FittedAssignment:
    """How predictable placement is.

    Attributes
    ----------
    decisions
        What was decided.
    predicted
        One entry for each treatment and set of confounders.
    differences
        One for each treatment and pair of sets.
    importances
        Columns and images of the last set, by treatment, the most important first.
    splits
        Folds.
    """

    decisions: AssignmentMechanism
    predicted: tuple[Predicted, ...]
    differences: tuple[Difference, ...]
    importances: tuple[Importance, ...]
    splits: Splits

    def records(self) -> list[dict[str, Any]]:
        """Return a record of every measure, difference and importance."""
        return [
            *(m.record() for p in self.predicted for m in p.measures()),
            *(d.gain.record() for d in self.differences),
            *(i.drop.record() for i in self.importances),
        ]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per treatment and set: AUC, calibration, losses beside their base."""
        return _table(self.predicted)

    def differences_frame(self) -> pd.DataFrame:
        """Return one row per treatment and pair of sets."""
        return _table(self.differences)

    def importance_frame(self) -> pd.DataFrame:
        """Return one row per treatment and column or image."""
        return _table(self.importances)

    def curves(self) -> pd.DataFrame:
        """Return the calibration curves, one row per treatment, set and bin."""
        parts = [
            p.curve.assign(
                treatment=p.auc.treatment, confounders=p.auc.confounders, bin=range(len(p.curve))
            )
            for p in self.predicted
        ]
        first = ["treatment", "confounders", "bin"]
        out = pd.concat(parts, ignore_index=True)
        return out[[*first, *[c for c in out.columns if c not in first]]]

    def summary(self) -> str:
        """Say how well each treatment is told, and what images add."""
        treatments = list(dict.fromkeys(p.auc.treatment for p in self.predicted))
        return " ".join(self._sentences(name) for name in treatments)

    def _sentences(self, treatment: str) -> str:
        mine = [p for p in self.predicted if p.auc.treatment == treatment]
        seen = "held-out units" if self.splits.crossed else "the units that models were fitted on"
        told = "; ".join(f"from {p.auc.confounders} {p.auc.words()}" for p in mine)
        text = f"Placement of {treatment!r} is told, on {seen}, with an AUC of: {told}."
        full = mine[-1]
        for d in self.differences:
            if d.gain.treatment == treatment and d.of == full.auc.confounders:
                text += f" {_versus(d)}"
        slope = full.slope
        if math.isfinite(slope.estimate) and slope.ci_high < 1:
            text += (
                f" Probabilities from {full.auc.confounders} are too extreme (slope "
                f"{slope.words()})."
            )
        if full.auc.estimate > 0.95:
            text += " So few units could have been in either arm that overlap is in doubt."
        return text

    def __repr__(self) -> str:
        parts = ", ".join(
            f"{p.auc.treatment} from {p.auc.confounders}: {p.auc.estimate:.3f}"
            for p in self.predicted
        )
        return f"FittedAssignment(AUC of {parts})"


def _versus(d: Difference) -> str:
    if d.gain.ci_low > 0:
        return f"{d.of} tells more than {d.over} alone, by {d.gain.words()}."
    if d.gain.ci_high < 0:
        return f"{d.of} tells less than {d.over} alone, by {d.gain.words()}."
    return f"That {d.of} tells more than {d.over} alone is not shown: {d.gain.words()}."


def _table(items: Sequence[Predicted | Difference | Importance]) -> pd.DataFrame:
    return pd.DataFrame([item.record() for item in items])
