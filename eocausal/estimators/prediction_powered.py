"""Effects from few measured outcomes, made precise by predictions of all.

Prediction-powered inference with a tuned weight: Angelopoulos, Duchi & Zrnic (arXiv 2311.01453);
with weights of a study: Egami, Hinck, Stewart & Wei (2023, NeurIPS 36; design-based supervised
learning). METHODS D12.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from eocausal.effects import Influence
from eocausal.errors import EstimationError, OneArmError
from eocausal.estimators.corrections import Effects
from eocausal.estimators.randomized import numeric_columns
from eocausal.folds import Splits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.arm_means import ArmMeans
    from eocausal.estimators.labelled import Labelled

__all__ = ["PredictionPowered", "pseudo_outcome"]

FEWEST = 5
FEW = 30


def pseudo_outcome(
    prediction: NDArray[np.float64],
    measured: NDArray[np.float64],
    labelled: NDArray[np.bool_],
    probability: NDArray[np.float64],
    arm: NDArray[np.int64],
    weights: NDArray[np.float64],
    power: float,
) -> NDArray[np.float64]:
    """Return (n,) outcomes of all units whose means are those of the measured outcome.

    g + 1{labelled}(measured - g)/probability, where g = power · prediction + a constant of the arm
    such that the labelled units' measured - g has the weighted mean 0. With labels drawn at random
    its mean is that of the measured outcome for any power: a weighted mean of it is the labelled
    units' mean of measured - power · prediction, plus power times the mean prediction of all.

    Parameters
    ----------
    prediction, measured
        (n,); ``measured`` is not read where not labelled.
    labelled
        (n,).
    probability
        (n,) probability that the unit was labelled.
    arm
        (n,) arms.
    weights
        (n,) weights of units within arms.
    power
        How far predictions are believed: 0 not at all, 1 to the letter, more where they shrink.
    """
    share = np.where(labelled, 1 / probability, 0.0)
    rest = np.where(labelled, measured, 0.0) - power * prediction
    base = power * prediction
    for k in np.unique(arm):
        mine = (arm == k) & labelled
        w = weights[mine] * share[mine]
        base[arm == k] += (w @ rest[mine]) / w.sum()
    return np.asarray(base + share * np.where(labelled, measured - base, 0.0))


@dataclass(frozen=True, slots=True)
class PredictionPowered:
    """Use measured outcomes where they are, predictions to fill in, and rectify these.

    Right whatever the map's errors depend on, treatment included, if the labelled units of each arm
    are a random sample of it, or were drawn with known probabilities.

    Parameters
    ----------
    power
        Weight λ of predictions; default that of least variance under the variance rule of the
        study, which is not held to 0..1: predictions that shrink deserve more than 1.
    probability
        Column with the probability that a unit is labelled; default the labelled share of its arm.
    """

    power: float | None = None
    probability: str | None = None

    @property
    def name(self) -> str:
        """Name of the correction."""
        return "prediction-powered inference"

    @property
    def trusts_map(self) -> bool:
        """False: labels of the study itself rectify the predictions."""
        return False

    @property
    def needs_labels(self) -> bool:
        """True."""
        return True

    def effects(self, known: Labelled, *, seed: int) -> Effects:
        """Estimate the effects from pseudo-outcomes of all units.

        Raises
        ------
        OneArmError
            If an arm has too few labelled units.
        EstimationError
            If probabilities of labelling are not in (0, 1].
        FoldError
            If the outcome model has too few labels in a fold's training units.
        """
        counts = known.by_arm()
        arms = known.study.data.arms
        if counts.min() < FEWEST:
            listed = ", ".join(f"{n} in arm {a!r}" for a, n in zip(arms, counts, strict=True))
            raise OneArmError(
                f"Units of the study with a measured outcome: {listed}.",
                cause=f"Predictions are rectified within arms, by {FEWEST} labelled units of each "
                "at the very least.",
                next_step="Measure the outcome of a random sample of each arm, or use "
                "LinearCalibration() with labels from elsewhere, which trusts the map more.",
            )
        chance = self._chance(known)
        zero, one = (self._means(known, chance, p, seed) for p in (0.0, 1.0))
        power = self._tuned(known, zero, one) if self.power is None else self.power
        value = zero.value + power * (one.value - zero.value)
        influence = zero.influence + power * (one.influence - zero.influence)
        numbers = {"power": power, "n_labelled": float(counts.sum())}
        note = (
            f"{counts.sum():,} measured outcomes, with predictions of {known.study.data.n:,} units "
            f"weighing {power:.2f}."
        )
        few = bool(counts.min() < FEW)
        if few:
            note += (
                f" An arm has only {counts.min()} of them: the interval may be somewhat too short."
            )
        spread = known.spread(influence - influence[:, :1])
        return Effects(value - value[0], spread, numbers, note, warned=few)

    def _chance(self, known: Labelled) -> NDArray[np.float64]:
        data = known.study.data
        if self.probability is None:
            return (known.by_arm() / data.counts())[data.arm]
        chance = numeric_columns(data.units, [self.probability], what="probability of a label")[
            :, 0
        ]
        if not ((chance > 0) & (chance <= 1)).all():
            raise EstimationError(
                f"{self.probability!r} has values outside 0..1, or zeros.",
                cause="A unit that could not be labelled is represented by no other.",
                next_step="Leave such units out, and say so.",
            )
        return chance

    def _means(
        self, known: Labelled, chance: NDArray[np.float64], power: float, seed: int
    ) -> ArmMeans:
        """Means of pseudo-outcomes; both they and their models are linear in the power."""
        study = known.study
        data, nuisances = study.data, study.nuisances
        y = pseudo_outcome(
            data.y, known.truth, known.labelled, chance, data.arm, study.means.weights, power
        )
        moved = replace(data, y=y, outcome=known.measured)
        if study.decisions.score.needs_outcome:
            nuisances = replace(nuisances, outcome=self._model(known, power, seed))
        return study.decisions.score.means(moved, nuisances)

    def _model(self, known: Labelled, power: float, seed: int) -> NDArray[np.float64]:
        """Predict the measured outcome: power · the model of predictions + that of the rest."""
        study = known.study
        rest = np.where(known.labelled, known.truth - power * study.data.y, 0.0)
        splits = Splits(study.splits.fold, study.splits.train & known.labelled[:, None])
        fitted = study.decisions.outcome_model.cross_fit(
            study.data.confounders, rest, study.data.arm, splits, seed=seed
        )
        if power == 0:
            return fitted
        assert study.nuisances.outcome is not None
        return np.asarray(power * study.nuisances.outcome + fitted)

    def _tuned(self, known: Labelled, zero: ArmMeans, one: ArmMeans) -> float:
        """Return the λ of least summed variance of the effects against arm 0.

        With influence values a + λ d, variances are quadratic in λ: λ = -Cov(a, d) / Var(d), and
        2 Cov(a, d) = Var(a + d) - Var(a) - Var(d).
        """
        index = known.study.data.units.index
        rule, units = known.study.decisions.vcov, known.study.data.units

        def variance(psi: NDArray[np.float64]) -> float:
            values = [
                rule.variance(Influence(index, psi[:, k] - psi[:, 0], psi[:, k] - psi[:, 0]), units)
                for k in range(1, psi.shape[1])
            ]
            return float(sum(v.value for v in values))

        slope = one.influence - zero.influence
        bend = variance(slope)
        if not bend > 0:
            return 0.0
        return (variance(zero.influence) + bend - variance(one.influence)) / (2 * bend)
