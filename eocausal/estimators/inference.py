"""Variances from influence values: robust, clustered, Conley.

Every rule is a frozen dataclass with ``variance(influence, units)``. Influence values sum to the
estimation error, so that a variance is a sum of products of the values of dependent units
(METHODS D1, D7).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.spatial import cKDTree

from eocausal.contracts import check_columns, codes
from eocausal.effects import Influence, Variance
from eocausal.errors import EstimationError, OneClusterError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = [
    "HC0",
    "HC2",
    "Bartlett",
    "Clustered",
    "Conley",
    "Kernel",
    "Spherical",
    "Uniform",
    "cluster_sums",
    "conley_variance",
]

EARTH_RADIUS_KM = 6371.0


@dataclass(frozen=True, slots=True)
class HC0:
    """Independent units: sum of squared influence values (White 1980)."""

    def variance(self, influence: Influence, units: pd.DataFrame) -> Variance:
        """Return Σψ²."""
        return Variance(float(influence.raw @ influence.raw), influence.df)


@dataclass(frozen=True, slots=True)
class HC2:
    """Independent units with the leverage correction; Neyman's variance for two arms."""

    def variance(self, influence: Influence, units: pd.DataFrame) -> Variance:
        """Return Σψ²/(1-h) (MacKinnon & White 1985)."""
        return Variance(float(influence.hc2 @ influence.hc2), influence.df)


def cluster_sums(values: NDArray[np.float64], cluster: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum values within clusters numbered 0..G-1; returns (G,)."""
    return np.asarray(np.bincount(cluster, values), dtype=float)


@dataclass(frozen=True, slots=True)
class Clustered:
    """Units of one cluster depend on each other in any way; clusters are independent.

    Parameters
    ----------
    by
        Column of the units table. Cluster at the level of assignment or coarser.
    """

    by: str

    def variance(self, influence: Influence, units: pd.DataFrame) -> Variance:
        """Return G/(G-1) Σ_g (Σ_{i∈g} ψ_i)², with G-1 degrees of freedom.

        Raises
        ------
        OneClusterError
            If there are fewer than two clusters.
        """
        check_columns(units, [self.by], what="units table")
        sums = cluster_sums(influence.raw, codes(units[self.by].loc[influence.labels], self.by))
        n = sums.size
        if n < 2:
            raise OneClusterError(
                f"There is one cluster of {self.by!r}.",
                cause="With one cluster no variance can be estimated.",
                next_step="Cluster by a finer column.",
            )
        note = ""
        if n < 20:
            note = f"Only {n} clusters of {self.by!r}: the interval may still be too short."
        return Variance(float(n / (n - 1) * (sums @ sums)), n - 1, note)


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
        return 1 - 1.5 * u + 0.5 * u**3


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


def conley_variance(
    psi: NDArray[np.float64],
    lon: NDArray[np.float64],
    lat: NDArray[np.float64],
    km: float,
    kernel: Kernel = SPHERICAL,
    radius_km: float = EARTH_RADIUS_KM,
) -> NDArray[np.float64]:
    """Compute ΣᵢΣⱼ K(dᵢⱼ/c) ψᵢψⱼᵀ over pairs of units within ``km`` (Conley 1999).

    Values at one location are summed first; pairs are found with a k-d tree on unit vectors, so
    that the work grows with the number of neighbours and not with n².

    Parameters
    ----------
    psi
        (n,) or (n, K) influence values.
    lon, lat
        (n,) degrees.
    km
        Cutoff in kilometres along the great circle.

    Returns
    -------
    (K, K) variance matrix ((1, 1) for a vector).
    """
    psi = psi.reshape(len(lon), -1)
    places, at = np.unique(np.stack([lon, lat], axis=1), axis=0, return_inverse=True)
    at = at.reshape(-1)
    sums = np.stack([cluster_sums(column, at) for column in psi.T], axis=1)
    rad = np.deg2rad(places)
    xyz = np.stack(
        [np.cos(rad[:, 1]) * np.cos(rad[:, 0]), np.cos(rad[:, 1]) * np.sin(rad[:, 0]),
         np.sin(rad[:, 1])], axis=1,
    )  # fmt: skip
    angle = min(km / radius_km, math.pi)
    tree = cKDTree(xyz)
    total: NDArray[np.float64] = np.asarray(sums.T @ sums, dtype=float)
    for first, chunk in _pairs(tree, 2 * math.sin(angle / 2) * (1 + 1e-12)):
        chord = np.linalg.norm(xyz[first] - xyz[chunk], axis=1)
        distance = radius_km * 2 * np.arcsin(np.clip(chord / 2, 0, 1))
        weight = kernel.weight(np.minimum(distance / km, 1.0))
        cross = (weight[:, None] * sums[first]).T @ sums[chunk]
        total += cross + cross.T
    return total


def _pairs(tree: cKDTree, chord: float) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    pairs = tree.query_pairs(chord, output_type="ndarray")
    step = 2_000_000
    return [(pairs[i : i + step, 0], pairs[i : i + step, 1]) for i in range(0, len(pairs), step)]


@dataclass(frozen=True, slots=True)
class Conley:
    """Units closer than ``km`` depend on each other, less so with distance (Conley 1999).

    Parameters
    ----------
    km
        Cutoff in kilometres along the great circle.
    lon, lat
        Columns in degrees.
    kernel
        :class:`Spherical` (default, always gives a variance >= 0), :class:`Bartlett` or
        :class:`Uniform`.
    """

    km: float
    lon: str = "lon"
    lat: str = "lat"
    kernel: Kernel = SPHERICAL

    def __post_init__(self) -> None:
        if not self.km > 0:
            raise EstimationError(
                f"A Conley cutoff of {self.km} km is not a length.",
                cause="Pairs closer than the cutoff are summed.",
                next_step="Give a positive distance, e.g. Conley(km=50).",
            )

    def variance(self, influence: Influence, units: pd.DataFrame) -> Variance:
        """Return ΣΣ K(d/c) ψᵢψⱼ; a negative value is reported and gives no standard error.

        The leverage-corrected influence values are used, so that with a cutoff shorter than any
        distance the variance is HC2.
        """
        check_columns(units, [self.lon, self.lat], what="units table")
        here = units.loc[influence.labels, [self.lon, self.lat]].to_numpy(float)
        if not np.isfinite(here).all():
            raise EstimationError(
                "Some units have no finite longitude or latitude.",
                cause="Their distance to others is unknown.",
                next_step="Complete the coordinates or use another variance.",
            )
        value = float(
            conley_variance(influence.hc2, here[:, 0], here[:, 1], self.km, self.kernel)[0, 0]
        )
        note = ""
        if value <= 0:
            note = (
                f"The Conley variance at {self.km:g} km is not positive ({value:.3g}): this "
                "kernel is not positive semidefinite in two dimensions; use Spherical()."
            )
        return Variance(value, influence.df, note)
