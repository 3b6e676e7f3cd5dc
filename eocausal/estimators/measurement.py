"""Effects on outcomes that a model predicted from images, corrected by what was measured.

Predictions shrink to the mean, and effects on them are too small. :func:`correct` takes an analysis
of predictions (:func:`~eocausal.estimators.weighting.weight` with the column of predictions as its
outcome) and gives effects on the outcome itself, whose influence values carry the error of the
correction: other variances and differences need no refit. METHODS section 2 and D12.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eocausal.effects import Status
from eocausal.errors import EocausalError
from eocausal.estimators.corrected import Corrected
from eocausal.estimators.labelled import labelled_study
from eocausal.estimators.linear_calibration import LinearCalibration
from eocausal.estimators.predicted_study import draw_labels, predicted_study
from eocausal.estimators.prediction_error import FEWEST, prediction_slope
from eocausal.estimators.prediction_powered import PredictionPowered
from eocausal.estimators.tweedie import Tweedie

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.effects import EffectEstimate
    from eocausal.estimators.corrections import Correction
    from eocausal.estimators.weighting import Weighted

__all__ = ["CORRECTIONS", "Corrected", "correct", "corrected_table"]

CORRECTIONS: tuple[Correction, ...] = (LinearCalibration(), Tweedie(), PredictionPowered())


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
        slope = prediction_slope(known).estimate if known.pairs.n >= FEWEST else np.nan
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
