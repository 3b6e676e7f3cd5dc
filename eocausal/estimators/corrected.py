"""A corrected effect on a predicted outcome, and what it says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eocausal.effects import EffectEstimate, Influence, Status
from eocausal.errors import EstimationError
from eocausal.estimators.prediction_error import (
    FEWEST,
    higher,
    power_of_test,
    prediction_slope,
    treatment_in_error,
)

if TYPE_CHECKING:
    from eocausal.estimators.corrections import Correction, Effects
    from eocausal.estimators.labelled import Labelled

__all__ = ["Corrected"]


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
        """Slope of prediction on measurement; None with hardly any labels."""
        return prediction_slope(self.known) if self.known.pairs.n >= FEWEST else None

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
    if min(known.by_arm()) < 2:
        return rests + (
            "that cannot be tested without labelled units in each arm, and is in doubt if images "
            "were taken after treatment."
        )
    try:
        found = treatment_in_error(known)
    except EstimationError as error:
        return f"{rests}that could not be tested: {error.fact}"
    half = 0.5 * known.study.estimate.estimate
    power = power_of_test(half, found.std_error, found.df, 0.05)
    return rests + (
        f"on {found.extra['n_labelled']:,} labelled units the treated are predicted "
        f"{higher(found.estimate)} than others of the same outcome (p = {found.p_value:.2g}; an "
        f"error of half the effect would be found in {power:.0%} of studies)."
    )
