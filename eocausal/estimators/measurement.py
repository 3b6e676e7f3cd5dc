"""Effects on outcomes that a model predicted from images, corrected by what was measured.

Predictions shrink to the mean, and effects on them are too small. :func:`correct` takes an analysis
of predictions (:func:`~eocausal.estimators.weighting.weight` with the column of predictions as its
outcome) and gives effects on the outcome itself, whose influence values carry the error of the
correction: other variances and differences need no refit. METHODS section 2 and D12.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eocausal.effects import EffectEstimate, Influence, Status
from eocausal.errors import EocausalError, EstimationError
from eocausal.estimators.labelled import (
    Labelled,
    draw_labels,
    labelled_study,
    predicted_study,
)
from eocausal.estimators.linear_calibration import LinearCalibration
from eocausal.estimators.prediction_error import higher, prediction_slope, treatment_in_error
from eocausal.estimators.prediction_powered import PredictionPowered
from eocausal.estimators.tweedie import Tweedie

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.corrections import Correction, Effects
    from eocausal.estimators.weighting import Weighted

__all__ = ["CORRECTIONS", "Corrected", "correct", "corrected_table"]

CORRECTIONS: tuple[Correction, ...] = (LinearCalibration(), Tweedie(), PredictionPowered())


@dataclass(frozen=True, slots=True, eq=False)
class Corrected:
    """Effects on an outcome that was predicted, corrected.

    Attributes
    ----------
    correction
        What was decided.
    known
        The analysis of predictions, and what was measured.
    found
        Effects, influence values and numbers of the correction.
    """

    correction: Correction
    known: Labelled
    found: Effects

    @property
    def estimate(self) -> EffectEstimate:
        """The corrected effect of the first treatment against none."""
        return self.effect(self.known.study.data.arms[1])

    @property
    def naive(self) -> EffectEstimate:
        """The effect of the first treatment on the predictions."""
        return self.known.study.estimate

    @property
    def slope(self) -> EffectEstimate | None:
        """Slope of prediction on measurement; None without labels."""
        return None if self.known.pairs.n == 0 else prediction_slope(self.known)

    def effects(self) -> list[EffectEstimate]:
        """Return the effect of every treatment against none."""
        return [self.effect(arm) for arm in self.known.study.data.arms[1:]]

    def effect(self, arm: str) -> EffectEstimate:
        """Return the effect of one treatment against none."""
        return self.contrast(arm, self.known.study.data.arms[0])

    def contrast(self, a: str, b: str) -> EffectEstimate:
        """Return the mean outcome under ``a`` minus that under ``b``.

        Raises
        ------
        EstimationError
            If there is no such arm.
        """
        study, found = self.known.study, self.found
        naive = study.contrast(a, b)
        one, zero = (study.data.arms.index(name) for name in (a, b))
        psi = found.influence[:, one] - found.influence[:, zero]
        units = self.known.units
        return EffectEstimate.of(
            float(found.value[one] - found.value[zero]),
            Influence(units.index, psi, psi, found.df),
            estimand=naive.estimand,
            method=f"{naive.method}, {self.correction.name}",
            units=units,
            vcov=naive.vcov,
            level=naive.level,
            status=Status.WARNED if found.warned else naive.status,
            note=" ".join(part for part in (naive.note, found.note) if part),
            extra={
                **naive.extra,
                "outcome": self.known.measured or study.data.outcome,
                "prediction": study.data.outcome,
                "correction": self.correction.name,
                "naive": naive.estimate,
                "n_labelled": self.known.pairs.n,
                **{name: value for name, value in found.numbers.items() if name != "n_labelled"},
            },
        )

    def summary(self) -> str:
        """Say what was corrected, by how much, and what it rests on."""
        parts = [self.estimate.summary(), _shrinkage(self)]
        if self.correction.trusts_map:
            parts.append(_trust(self.known))
        return " ".join(part for part in parts if part)

    def __repr__(self) -> str:
        return (
            f"Corrected({self.correction.name}: {self.naive.estimate:.4g} on predictions, "
            f"{self.estimate.estimate:.4g} ± {self.estimate.std_error:.2g} corrected)"
        )


def correct(
    fitted: Weighted,
    *,
    measured: str | None = None,
    labelled: str | NDArray[np.bool_] | None = None,
    calibration: pd.DataFrame | None = None,
    correction: Correction | None = None,
    seed: int = 0,
) -> Corrected:
    """Correct effects on predictions by what was measured.

    Parameters
    ----------
    fitted
        The analysis of predictions: its outcome is the column of predictions.
    measured
        Column of the measured outcome; missing where it was not measured. Draws of a model can be
        combined without (:class:`~eocausal.estimators.imputation.MultipleImputation`).
    labelled
        Column of yes and no, or (n,) booleans: units whose measurement may be used; default those
        that have one.
    calibration
        Units outside the study with columns of the same names for prediction and measurement, from
        which linear calibration and Tweedie's formula learn; its units count as further units of
        the analysis, with the columns that the variance rule reads.
    correction
        Default :class:`~eocausal.estimators.prediction_powered.PredictionPowered` where units of
        the study are labelled, :class:`~eocausal.estimators.linear_calibration.LinearCalibration`
        where only others are.
    seed
        Of outcome models.

    Returns
    -------
    Corrected

    Raises
    ------
    OutcomeError
        If nothing was measured, or predictions or measurements do not vary.
    OneArmError
        If a correction needs labels in every arm and one has too few.
    EstimationError, AlignmentError, MissingColumnError, EmptyInputError, FoldError

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from eocausal.estimators.weighting import weight
    >>> rng = np.random.default_rng(0)
    >>> x, noise, error = rng.normal(size=(3, 2000))
    >>> w = (rng.random(2000) < 1 / (1 + np.exp(-x))).astype(int)
    >>> y = 2.0 * w + x + noise
    >>> table = pd.DataFrame({"x": x, "w": w, "map": 0.5 * y + 0.5 * error, "wealth": y})
    >>> table.loc[300:, "wealth"] = np.nan
    >>> on_map = weight(table, treatment="w", outcome="map", covariates=["x"])
    >>> fixed = correct(on_map, measured="wealth")
    >>> abs(fixed.estimate.estimate - 2) < 4 * fixed.estimate.std_error
    True
    """
    needed = correction is None or correction.needs_labels
    known = labelled_study(fitted, measured, labelled, calibration, needed=needed)
    if correction is None:
        correction = PredictionPowered() if known.labelled.any() else LinearCalibration()
    return Corrected(correction, known, correction.effects(known, seed=seed))


def corrected_table(
    fitted: Weighted,
    predictions: Sequence[str],
    *,
    labelled: float | str | NDArray[np.bool_] = 0.2,
    corrections: Sequence[Correction] = CORRECTIONS,
    seed: int = 0,
) -> tuple[pd.DataFrame, list[Corrected]]:
    """Compare an effect on a measured outcome with those on predictions of it, naive and corrected.

    Some units keep their measured outcome and the others play units that were never surveyed, so
    that corrections can be judged by the effect that all measurements give.

    Parameters
    ----------
    fitted
        The analysis of the measured outcome.
    predictions
        Columns of its units.
    labelled
        A share of units drawn at random, or a column, or (n,) booleans.
    corrections
        What is compared.
    seed
        Of the draw and of outcome models.

    Returns
    -------
    DataFrame
        One row per prediction, treatment and correction, first ``measured`` for the outcome
        itself, then ``naive``: ``prediction``, ``treatment``, ``correction``, ``estimate``,
        ``std_error``, ``ci_low``, ``ci_high``, ``p_value``, ``slope`` (of prediction on measured),
        ``n_labelled``, ``status``, and ``note`` with the reason where there is no estimate.
    list of Corrected
        Those that could be computed.

    Raises
    ------
    EstimationError, OutcomeError, MissingColumnError
    """
    data = fitted.data
    mask: str | NDArray[np.bool_]
    if isinstance(labelled, float | int):
        mask = draw_labels(data.n, float(labelled), seed=seed)
    else:
        mask = labelled
    rows: list[dict[str, Any]] = [
        _row("", data.arms[k], "measured", e) for k, e in enumerate(fitted.effects(), start=1)
    ]
    done: list[Corrected] = []
    for prediction in predictions:
        study = predicted_study(fitted, prediction, seed=seed)
        known = labelled_study(study, data.outcome, mask)
        slope = prediction_slope(known).estimate
        for k, effect in enumerate(study.effects(), start=1):
            rows.append({**_row(prediction, data.arms[k], "naive", effect), "slope": slope})
        for correction in corrections:
            try:
                item = Corrected(correction, known, correction.effects(known, seed=seed))
            except EocausalError as error:
                rows += [_gap(prediction, a, correction, error, slope) for a in data.arms[1:]]
                continue
            done.append(item)
            rows += [
                {
                    **_row(prediction, arm, correction.name, item.effect(arm)),
                    "slope": slope,
                    "n_labelled": known.pairs.n,
                }
                for arm in data.arms[1:]
            ]
    return pd.DataFrame(rows), done


def _row(prediction: str, arm: str, name: str, effect: EffectEstimate) -> dict[str, Any]:
    return {
        "prediction": prediction,
        "treatment": arm,
        "correction": name,
        "estimate": effect.estimate,
        "std_error": effect.std_error,
        "ci_low": effect.ci_low,
        "ci_high": effect.ci_high,
        "p_value": effect.p_value,
        "slope": np.nan,
        "n_labelled": 0,
        "status": str(effect.status),
        "note": effect.note,
    }


def _gap(
    prediction: str, arm: str, correction: Correction, error: EocausalError, slope: float
) -> dict[str, Any]:
    return {
        "prediction": prediction,
        "treatment": arm,
        "correction": correction.name,
        "slope": slope,
        "n_labelled": 0,
        "status": str(Status.REFUSED),
        "note": f"{error.fact} {error.cause}".strip(),
    }


def _shrinkage(corrected: Corrected) -> str:
    """Say how predictions follow measurements."""
    slope = corrected.slope
    if slope is None:
        return ""
    shown = f"{slope.estimate:.2f} ({slope.ci_low:.2f} to {slope.ci_high:.2f})"
    text = (
        f"On {corrected.known.pairs.n:,} units a difference of 1 in the measured outcome shows as "
        f"{shown} in the prediction"
    )
    if slope.ci_high < 1:
        return f"{text}: effects on predictions are about {1 - slope.estimate:.0%} too small."
    return f"{text}: shrinkage is not evident."


def _trust(known: Labelled) -> str:
    """Say whether it was tested that predictions err alike in the arms."""
    rests = "This rests on predictions that err alike in all arms, given the outcome; "
    if min(known.by_arm()) == 0:
        return rests + (
            "that cannot be tested without labelled units in each arm, and is in doubt if images "
            "were taken after treatment."
        )
    try:
        found = treatment_in_error(known)
    except EstimationError as error:
        return f"{rests}that could not be tested: {error.fact}"
    return rests + (
        f"on {found.extra['n_labelled']:,} labelled units the treated are predicted "
        f"{higher(found.estimate)} than others of the same outcome (p = {found.p_value:.2g})."
    )
