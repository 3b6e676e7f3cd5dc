"""Mean outcomes under each arm with joint influence values, and the population they speak of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ArmMeans", "Estimand"]


class Estimand(StrEnum):
    """The population over which an effect is averaged."""

    ATE = "ATE"
    """All units."""
    ATT = "ATT"
    """The treated."""
    ATO = "ATO"
    """Where both arms are likely: each unit weighted by e(1 - e) (Li, Morgan & Zaslavsky 2018)."""


@dataclass(frozen=True, slots=True, eq=False)
class ArmMeans:
    """Mean outcomes had all units of a population been in each arm.

    Attributes
    ----------
    value
        (K,) means; for estimators that give only an effect, (0, effect).
    influence
        (n, K) influence values; a column sums to the error of its mean, to first order.
    weights
        (n,) non-negative weight that each unit has within its own arm; arms need not sum to one.
    note
        What a reader must know of how the weights came about.
    """

    value: NDArray[np.float64]
    influence: NDArray[np.float64]
    weights: NDArray[np.float64]
    note: str = ""
