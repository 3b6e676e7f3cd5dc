"""Whether a map errs differently where treatment was given, in the words of its power.

Corrections that are learned elsewhere, or from all units alike, take a prediction to depend on the
outcome only. METHODS D12: prediction ~ measured + treatment on labelled units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from eocausal.checks.base import CheckResult, Verdict
from eocausal.errors import EstimationError, OneArmError
from eocausal.estimators.corrected import Corrected
from eocausal.estimators.labelled import Labelled, labelled_study
from eocausal.estimators.prediction_error import (
    FEWEST,
    higher,
    power_of_test,
    prediction_slope,
    treatment_in_error,
)

if TYPE_CHECKING:
    from eocausal.effects import EffectEstimate
    from eocausal.estimators.weighting import Weighted

__all__ = ["PredictionError", "error_table"]

NAME = "Treatment in the errors of predictions"
UNTESTED = (
    "The effect on predictions, and what corrects it by labels from elsewhere, rest on a map that "
    "errs alike with and without treatment. Images taken after treatment can break this: then only "
    "labels of a random sample of the study, in each arm, repair it (PredictionPowered)."
)


def error_table(
    known: Labelled, *, adjust: bool = False, share: float = 0.5, alpha: float = 0.05
) -> pd.DataFrame:
    """Test every treatment for what it adds to predictions of units with the same outcome.

    Parameters
    ----------
    known
        A study of predictions with labelled units.
    adjust
        Whether confounders of the table are in the regression.
    share, alpha
        The power is that of finding, at level alpha, an error that is this share of the effect.

    Returns
    -------
    DataFrame
        One row per treatment: ``treatment``, ``coefficient``, ``std_error``, ``ci_low``,
        ``ci_high``, ``p_value``, ``slope`` (of prediction on measured), ``bias`` = coefficient /
        slope (of an effect that is corrected by the slope), ``ratio`` = coefficient / naive effect
        (share of such an effect that is error), ``power``, ``n_treated`` and ``n_untreated``
        (labelled), and ``note`` with the reason where it cannot be tested.
    """
    study = known.study
    counts = known.by_arm()
    rows: list[dict[str, Any]] = []
    for k, arm in enumerate(study.data.arms[1:], start=1):
        row = {"treatment": arm, "n_treated": int(counts[k]), "n_untreated": int(counts[0])}
        naive = study.effect(arm)
        try:
            found = treatment_in_error(known, arm, adjust=adjust)
        except (OneArmError, EstimationError) as error:
            rows.append({**row, "note": f"{error.fact} {error.cause}"})
            continue
        rows.append({**row, **_numbers(found, naive, share, alpha)})
    return pd.DataFrame(rows)


def _numbers(
    found: EffectEstimate, naive: EffectEstimate, share: float, alpha: float
) -> dict[str, Any]:
    slope = float(found.extra["slope"])
    return {
        "coefficient": found.estimate,
        "std_error": found.std_error,
        "ci_low": found.ci_low,
        "ci_high": found.ci_high,
        "p_value": found.p_value,
        "slope": slope,
        "bias": found.estimate / slope if slope != 0 else math.nan,
        "ratio": found.estimate / naive.estimate if naive.estimate != 0 else math.nan,
        "power": power_of_test(share * naive.estimate, found.std_error, found.df, alpha),
        "note": found.note,
    }


@dataclass(frozen=True, slots=True)
class PredictionError:
    """Check that predictions of units with the same outcome do not depend on treatment.

    Parameters
    ----------
    measured, labelled
        Column of the measured outcome and, if not all that is measured may be used, of labelled
        units, where the subject is an analysis of predictions. A
        :class:`~eocausal.estimators.measurement.Corrected` has its own.
    adjust
        Whether confounders of the table are in the regression: an error that depends on them only
        is balanced by the weights.
    alpha
        Warn if the smallest p-value times the number of treatments is below this.
    large
        Fail if, besides, the error is at least this share of the effect on predictions.
    share, power
        Warn if an error that is ``share`` of the effect would be found in fewer than this share of
        studies: that none was found says little.
    """

    measured: str | None = None
    labelled: str | None = None
    adjust: bool = False
    alpha: float = 0.05
    large: float = 0.25
    share: float = 0.5
    power: float = 0.8

    def run(self, subject: Weighted | Corrected) -> CheckResult:
        """Regress predictions on measurements and treatment, and judge."""
        if isinstance(subject, Corrected):
            known = subject.known
        else:
            known = labelled_study(subject, self.measured, self.labelled, needed=False)
        if not known.labelled.any():
            claim = (
                "Whether predictions err differently with treatment cannot be tested: no unit of "
                "the study has a measured outcome."
            )
            return CheckResult(NAME, Verdict.WARN, claim, UNTESTED, values={"n_labelled": 0})
        table = error_table(known, adjust=self.adjust, share=self.share, alpha=self.alpha)
        tested = table[table["p_value"].notna()] if "p_value" in table else table.iloc[:0]
        if tested.empty:
            claim = (
                "Whether predictions err differently with treatment could not be tested: "
                f"{table['note'].iloc[0]}"
            )
            return CheckResult(NAME, Verdict.WARN, claim, UNTESTED, table)
        return self._judge(known, table, tested)

    def _judge(self, known: Labelled, table: pd.DataFrame, tested: pd.DataFrame) -> CheckResult:
        row: dict[Any, Any] = tested.iloc[int(tested["p_value"].to_numpy().argmin())].to_dict()
        p = min(1.0, float(row["p_value"]) * len(tested))
        weakest = float(tested["power"].min())
        n = int(known.labelled.sum())
        claim = (
            f"Units of the same outcome are predicted {higher(row['coefficient'])} (SE "
            f"{row['std_error']:.2g}) with treatment {row['treatment']!r}, {abs(row['ratio']):.0%} "
            f"of the effect on predictions (p = {p:.2g})."
        )
        words = (
            f"With {n:,} labels an error of {self.share:.0%} of the effect would be found in "
            f"{weakest:.0%} of studies."
        )
        values = {"p_value": p, "power": weakest, "n_labelled": n, "bias": float(row["bias"])}
        values |= {"ratio": float(row["ratio"]), **_slope(known)}
        if p < self.alpha:
            large = bool((tested["ratio"].abs() >= self.large).any())
            verdict = Verdict.FAIL if large else Verdict.WARN
            return CheckResult(NAME, verdict, claim, f"{words} {_BROKEN}", table, values)
        if weakest < self.power:
            detail = f"{words} That none was found says little. {UNTESTED}"
            return CheckResult(NAME, Verdict.WARN, claim, detail, table, values)
        return CheckResult(NAME, Verdict.PASS, claim, words, table, values)


_BROKEN = (
    "The map errs differently with treatment: effects on predictions are off, and corrections by a "
    "slope or by Tweedie's formula with them. Use the labels of the study (PredictionPowered), or "
    "images that end before treatment in a map of other places. If the error depends on a "
    "confounder only, adjusting for it shows."
)


def _slope(known: Labelled) -> dict[str, float]:
    if known.pairs.n < FEWEST:
        return {}
    slope = prediction_slope(known)
    return {"slope": slope.estimate, "slope_error": slope.std_error}
