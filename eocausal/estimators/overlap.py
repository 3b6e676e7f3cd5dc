"""Effective sample sizes, and when an estimate is refused because arms do not overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["ArmSupport", "Overlap", "effective_sample_size"]


def effective_sample_size(weights: NDArray[np.float64]) -> float:
    """Return (Σw)² / Σw² (Kish 1965), 0 if all weights are 0."""
    square = float(weights @ weights)
    return float(weights.sum()) ** 2 / square if square > 0 else 0.0


@dataclass(frozen=True, slots=True)
class ArmSupport:
    """How many units really speak for an arm.

    Attributes
    ----------
    arm
        Its name.
    n
        Units in it.
    ess
        Effective sample size of their weights.
    largest
        Share of the arm's weight on its heaviest unit.
    hardest
        Units of the arm among those as unlikely to be in it as the most unlikely tenth of the
        population; None where probabilities are not used.
    expected, even
        How many the probabilities expect there, and how many there were if all units were equally
        likely to be in the arm.
    """

    arm: str
    n: int
    ess: float
    largest: float
    hardest: int | None = None
    expected: float = 0.0
    even: float = 0.0

    @classmethod
    def of(
        cls,
        arm: str,
        weights: NDArray[np.float64],
        *,
        hardest: int | None = None,
        expected: float = 0.0,
        even: float = 0.0,
    ) -> ArmSupport:
        """Measure the weights of an arm's units."""
        total = float(weights.sum())
        largest = float(weights.max()) / total if total > 0 else 1.0
        ess = effective_sample_size(weights)
        return cls(arm, len(weights), ess, largest, hardest, expected, even)

    @property
    def absent(self) -> bool:
        """Whether the arm does not occur where it is least likely, and that is no accident.

        Either the probabilities expect at least three units there (none has probability e⁻³), or
        they are a twentieth of the average, so that one unit would have to speak for twenty.
        """
        none = self.hardest == 0
        return none and (self.expected >= 3 or 20 * self.expected < self.even)

    def words(self) -> str:
        """Say what speaks against the arm."""
        if self.absent:
            return (
                f"arm {self.arm!r} has no unit among the tenth of units that are least likely to "
                f"be in it, and its {self.n:,} units weigh as much as {self.ess:.1f} even ones"
            )
        return (
            f"the {self.n:,} units of arm {self.arm!r} weigh as much as {self.ess:.1f} even ones, "
            f"and the heaviest has {self.largest:.0%} of the weight"
        )


@dataclass(frozen=True, slots=True)
class Overlap:
    """A decision when too few units speak for an arm to give a number.

    An arm is refused if its effective sample size is below ``min_ess`` and below half of its
    units (an arm that is small but evenly weighted is a small study, not a lack of overlap), if
    one unit carries more than ``max_share`` of its weight, or if an arm of at least ``min_ess``
    units has none where it is least likely (:attr:`ArmSupport.absent`): there the other arm has no
    counterpart at all, and weights, being finite, do not show it. ``min_ess=0`` turns this off as
    well as the first. An arm is warned about below ``warn_share`` of its units.

    An effect is refused, too, if regions of the table's columns in which an arm does not occur
    hold at least ``empty`` of the population; None: none are looked for.
    """

    min_ess: float = 30.0
    max_share: float = 0.25
    warn_share: float = 0.2
    empty: float | None = 0.1

    def refused(self, arms: Sequence[ArmSupport]) -> list[ArmSupport]:
        """Return the arms for which too few units speak."""
        return [
            a
            for a in arms
            if (a.ess < self.min_ess and a.ess < 0.5 * a.n)
            or (a.largest > self.max_share and a.n > 2 / self.max_share)
            or (a.absent and a.n >= self.min_ess > 0)
        ]

    def warned(self, arms: Sequence[ArmSupport]) -> list[ArmSupport]:
        """Return the arms whose weights are very uneven."""
        return [a for a in arms if a.ess < self.warn_share * a.n]
