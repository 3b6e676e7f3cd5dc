"""Kernels over space: how much a pair of units counts, by distance over cutoff.

:class:`Spherical` and :class:`Wendland` are positive semidefinite on planes, in space, and along
great circles up to half around the sphere (Gneiting 2013, Bernoulli 19:1327): no variance is
negative. The others are not, and are there to replicate what was done with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SPHERICAL", "Bartlett", "Kernel", "Spherical", "Uniform", "Wendland"]


class Kernel(Protocol):
    """Weight of a pair of units as a function of distance over cutoff."""

    def weight(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return weights for u = distance/cutoff in [0, 1]."""
        ...


@dataclass(frozen=True, slots=True)
class Spherical:
    """1 - 1.5u + 0.5u³: positive semidefinite in up to three dimensions; the default."""

    def weight(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return weights for u in [0, 1]."""
        return 1 - u * (1.5 - 0.5 * (u * u))


@dataclass(frozen=True, slots=True)
class Wendland:
    """(1 - u)⁴(4u + 1): positive semidefinite in up to three dimensions, and flat at u = 0.

    Near units keep almost their whole weight, so that less correlation is lost, at a cutoff about
    1.5 times that of :class:`Spherical` (Wendland 1995, Advances in Computational Mathematics
    4:389).
    """

    def weight(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return weights for u in [0, 1]."""
        left = 1 - u
        left *= left
        return left * left * (4 * u + 1)


@dataclass(frozen=True, slots=True)
class Bartlett:
    """1 - u; not positive semidefinite in two dimensions, for replication."""

    def weight(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return weights for u in [0, 1]."""
        return 1 - u


@dataclass(frozen=True, slots=True)
class Uniform:
    """1 within the cutoff; not positive semidefinite, for replication."""

    def weight(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return weights for u in [0, 1]."""
        return np.ones_like(u)


SPHERICAL = Spherical()
