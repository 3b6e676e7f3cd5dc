"""Effects on predictions divided by how much the predictions shrink.

Linear calibration correction: Pettersson, Jerzak & Daoud (arXiv 2508.01341); METHODS D12.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eocausal.errors import EstimationError
from eocausal.estimators.corrections import Effects
from eocausal.estimators.prediction_error import bend_of, line_through

if TYPE_CHECKING:
    from eocausal.estimators.labelled import Labelled

__all__ = ["LinearCalibration"]


@dataclass(frozen=True, slots=True)
class LinearCalibration:
    """Divide by the slope of prediction on measurement.

    With E(prediction | outcome Y, arm) = m + k Y the effect on the outcome is that on the
    prediction divided by k. Its error is the influence ψ/k of the effect τ' on predictions less
    τ'/k² times that of k, so that a pair of the study counts in both.

    Parameters
    ----------
    clear
        Refuse where the slope is fewer than this many standard errors above 0: the ratio has
        then no finite interval (Fieller 1954, JRSS B 16:175).
    alpha
        Warn if slopes below and above the median outcome differ with a smaller p-value.
    """

    clear: float = 3.0
    alpha: float = 0.01

    @property
    def name(self) -> str:
        """Name of the correction."""
        return "linear calibration"

    @property
    def trusts_map(self) -> bool:
        """True: labels teach only how predictions follow the outcome."""
        return True

    @property
    def needs_labels(self) -> bool:
        """True."""
        return True

    def effects(self, known: Labelled, *, seed: int) -> Effects:
        """Divide the effects and carry the error of the slope.

        Raises
        ------
        EstimationError
            If there are too few pairs, or the slope is not clearly above 0.
        """
        line = line_through(known.pairs)
        error = float(np.sqrt(line.influence @ line.influence))
        if line.slope <= self.clear * error:
            raise EstimationError(
                f"The slope of prediction on measurement is {line.slope:.3g} (SE {error:.2g}).",
                cause="The map hardly follows the outcome, or labels are few: dividing by "
                "the slope gives any number.",
                next_step="Use labels by themselves, PredictionPowered(), or a better map.",
            )
        means = known.study.means
        naive = means.value - means.value[0]
        value = naive / line.slope
        influence = known.spread(means.influence - means.influence[:, :1]) / line.slope
        np.add.at(influence, known.pairs.at, -np.outer(line.influence, value) / line.slope)
        numbers = {"slope": line.slope, "slope_error": error, "r2": line.r2}
        note = f"Divided by the slope of prediction on measurement, {line.slope:.3f}."
        bend = bend_of(known.pairs)
        bent = bend is not None and bend.p_value < self.alpha
        if bend is not None:
            numbers |= {"slope_below": bend.below, "slope_above": bend.above}
        if bend is not None and bent:
            note += (
                f" That slope is {bend.below:.3f} below the median outcome and {bend.above:.3f} "
                "above: the error is not linear, and the effect may be off by such a factor."
            )
        return Effects(value, influence, numbers, note, warned=bent)
