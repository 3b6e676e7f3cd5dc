"""What is done about units that almost surely belong to one arm: leave out, or clip.

Either changes what is estimated, so both are decisions that the result reports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from eocausal.errors import EstimationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Clip", "Crump", "Drop", "Trimming", "crump_threshold"]


class Trimming(Protocol):
    """A decision about extreme probabilities."""

    def keep(self, propensity: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return (n,) True for units that stay."""
        ...

    def apply(self, propensity: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n, K) probabilities of the units that stayed, as they are used."""
        ...


def crump_threshold(propensity: NDArray[np.float64]) -> float:
    """Return the largest g = Σ_k 1/e_k at which a unit is kept (Crump et al. 2009; METHODS D5).

    The kept units are those with g no larger than twice the mean of g among the kept, the largest
    such set; for two arms this leaves out e outside [α, 1 - α] with 1/(α(1 - α)) the threshold
    (Biometrika 96:187; for several arms Yang et al. 2016, Biometrics 72:1055).
    """
    g = np.sort((1 / propensity).sum(axis=1))
    running = np.cumsum(g) / np.arange(1, len(g) + 1)
    return float(g[np.flatnonzero(g <= 2 * running)[-1]])


@dataclass(frozen=True, slots=True)
class Crump:
    """Leave out units so that the variance of the average effect of the rest is smallest."""

    def keep(self, propensity: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return (n,) True for units at or below :func:`crump_threshold`."""
        return np.asarray((1 / propensity).sum(axis=1) <= crump_threshold(propensity))

    def apply(self, propensity: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probabilities as they are."""
        return propensity


@dataclass(frozen=True, slots=True)
class Drop:
    """Leave out units with some probability below ``low``."""

    low: float

    def __post_init__(self) -> None:
        _check(self.low)

    def keep(self, propensity: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return (n,) True for units whose smallest probability is at least ``low``."""
        return np.asarray(propensity.min(axis=1) >= self.low)

    def apply(self, propensity: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probabilities as they are."""
        return propensity


@dataclass(frozen=True, slots=True)
class Clip:
    """Raise probabilities below ``low`` to it; every unit stays, some with a wrong weight."""

    low: float = 0.01

    def __post_init__(self) -> None:
        _check(self.low)

    def keep(self, propensity: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return (n,) True."""
        return np.ones(len(propensity), dtype=bool)

    def apply(self, propensity: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return clipped probabilities; rows need not sum to one afterwards for K > 2."""
        k = propensity.shape[1]
        return np.clip(propensity, self.low, 1 - (k - 1) * self.low)


def _check(low: float) -> None:
    if not 0 < low < 0.5:
        raise EstimationError(
            f"{low} is no bound for probabilities.",
            cause="Probabilities below it count as too small.",
            next_step="Give a number between 0 and 0.5, e.g. 0.01.",
        )
