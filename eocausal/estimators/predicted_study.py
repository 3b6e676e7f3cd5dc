"""Another outcome in the place of a study's, with the same probabilities and folds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from eocausal.contracts import check_columns
from eocausal.errors import EstimationError
from eocausal.estimators.randomized import outcome_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.arm_means import ArmMeans
    from eocausal.estimators.weighting import Weighted

__all__ = ["draw_labels", "means_of", "predicted_study"]


def means_of(study: Weighted, y: NDArray[np.float64], *, seed: int) -> ArmMeans:
    """Estimate the arms' means of other outcomes with a study's probabilities and folds.

    Parameters
    ----------
    study
        The analysis.
    y
        (n,) outcomes of its units; the outcome model is fitted anew on them.
    seed
        Of the outcome model.
    """
    data, nuisances, decided = replace(study.data, y=y), study.nuisances, study.decisions
    if decided.score.needs_outcome:
        outcome = decided.outcome_model.cross_fit(
            data.confounders, y, data.arm, study.splits, seed=seed
        )
        nuisances = replace(nuisances, outcome=outcome)
    return decided.score.means(data, nuisances)


def predicted_study(fitted: Weighted, prediction: str, *, seed: int = 0) -> Weighted:
    """Put a column of predictions in the place of the outcome and keep everything else.

    Probabilities and folds stay, the outcome model is fitted anew.

    Parameters
    ----------
    fitted
        An analysis, e.g. of the measured outcome.
    prediction
        Column of its units.
    seed
        Of the outcome model.

    Raises
    ------
    EstimationError
        If the column is the treatment or a confounder.
    MissingColumnError, OutcomeError
    """
    data = fitted.data
    check_columns(data.units, [prediction], what="units table")
    if prediction == data.treatment or prediction in data.confounders.names:
        raise EstimationError(
            f"{prediction!r} is the treatment or a confounder.",
            cause="It cannot be the outcome as well.",
            next_step="Name the column of predictions.",
        )
    moved = replace(data, y=outcome_of(data.units, prediction), outcome=prediction)
    nuisances, decided = fitted.nuisances, fitted.decisions
    if decided.score.needs_outcome:
        outcome = decided.outcome_model.cross_fit(
            moved.confounders, moved.y, moved.arm, fitted.splits, seed=seed
        )
        nuisances = replace(nuisances, outcome=outcome)
    means = decided.score.means(moved, nuisances)
    return replace(fitted, data=moved, means=means, nuisances=nuisances)


def draw_labels(n: int, share: float, *, seed: int) -> NDArray[np.bool_]:
    """Draw a share of n units at random, those whose measurement is used.

    Raises
    ------
    EstimationError
        If the share is not in (0, 1], or draws no unit.
    """
    count = round(share * n) if 0 < share <= 1 else 0
    if count == 0:
        raise EstimationError(
            f"A share of {share} of {n} units is no unit.",
            cause="Labelled units are drawn at random from the study.",
            next_step="Give a share above 0 and up to 1.",
        )
    return np.random.default_rng(seed).permutation(n) < count
