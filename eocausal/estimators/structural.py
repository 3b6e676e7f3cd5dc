"""Structural time series of many outcomes at once, and what they would have been without an event.

The outcome before the event is a trend, a residual, seasons and controls; the posterior predicts
the times after it. Priors are ours (:class:`LearnedPrior`) or those of R's CausalImpact
(:class:`CompatiblePrior`); the engine follows from the model (:mod:`.structural_model`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eocausal.errors import EstimationError
from eocausal.estimators.collapsed import fit_collapsed
from eocausal.estimators.gibbs import fit_gibbs
from eocausal.estimators.structural_grid import fit_grid
from eocausal.estimators.structural_model import Engine, StructuralModel, engine_of
from eocausal.estimators.structural_result import StructuralFit

__all__ = ["fit_structural"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


def fit_structural(
    outcomes: Float64,
    before: Bool,
    model: StructuralModel | None = None,
    *,
    controls: Float64 | None = None,
    variance: Float64 | None = None,
    seed: int = 0,
) -> StructuralFit:
    """Fit a structural model to the times before an event, to each series on its own.

    Parameters
    ----------
    outcomes
        (N, T) series over the whole record, NaN where missing.
    before
        (T,) True for the times to learn from.
    controls
        (T, K) series the event did not reach, the same for all outcomes. Times before the event
        with a missing control are not learned from.
    variance
        (T,) variance of the residual at each time relative to others, such as one over the number
        of valid looks; equal if not given.
    seed
        Fixes what an engine draws to fit; ``grid`` draws nothing.

    Raises
    ------
    EstimationError
        If shapes do not fit, there is no time before the event, or the engine that the model names
        cannot compute it.
    """
    decided = StructuralModel() if model is None else model
    _check(outcomes, before, controls, variance)
    engine = engine_of(decided, 0 if controls is None else controls.shape[1])
    if engine is Engine.GRID:
        return fit_grid(outcomes, before, decided, controls=controls, variance=variance)
    if engine is Engine.COLLAPSED:
        return fit_collapsed(
            outcomes, before, decided, controls=controls, variance=variance, seed=seed
        )
    return fit_gibbs(outcomes, before, decided, controls=controls, variance=variance, seed=seed)


def _check(
    outcomes: Float64, before: Bool, controls: Float64 | None, variance: Float64 | None
) -> None:
    times = outcomes.shape[-1]
    if outcomes.ndim != 2 or before.shape != (times,):
        raise EstimationError(
            f"Outcomes {outcomes.shape} with a mask of {before.shape} times before the event.",
            cause="Series are rows, and the mask has one entry for each of their times.",
            next_step="Give outcomes (N, T) and before (T,).",
        )
    if not before.any():
        raise EstimationError(
            "No time is before the event.",
            cause="There is nothing to learn from what the series does without it.",
            next_step="Check the date of the event against the record.",
        )
    if controls is not None and (controls.ndim != 2 or len(controls) != times):
        raise EstimationError(
            f"Controls {controls.shape} for {times} times.",
            cause="Controls are columns over the same times as the outcomes.",
            next_step="Give controls (T, K).",
        )
    if variance is not None and (
        variance.shape != (times,) or not (np.isfinite(variance) & (variance > 0)).all()
    ):
        raise EstimationError(
            f"Variances {variance.shape} for {times} times, or some not above zero.",
            cause="Each time needs a finite variance above zero.",
            next_step="Give variance (T,), such as 1 / looks, with any number at missing times.",
        )
