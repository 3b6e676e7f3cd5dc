"""Sums over pairs of near places, without a list of the pairs.

Places are kept in the order of the leaves of a k-d tree. A leaf meets the places within reach of
it in one dense block, so that the work grows with the number of neighbours and memory does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import cKDTree

from eocausal.folds import EARTH_RADIUS_KM

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.kernels import Kernel

__all__ = ["KernelSums", "Places", "kernel_sums"]

LEAF = 64
COLUMNS = 1024
EDGE = 1 + 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where units are, and how far apart.

    Attributes
    ----------
    points
        (p, 3) kilometres from the centre of the Earth, or (p, 2) kilometres on a plane; one row
        per distinct place.
    at
        (n,) place 0..p-1 of each unit.
    radius_km
        Radius of the sphere along which distance is measured; None on a plane.
    """

    points: NDArray[np.float64]
    at: NDArray[np.int64]
    radius_km: float | None

    @classmethod
    def on_sphere(
        cls,
        lon: NDArray[np.float64],
        lat: NDArray[np.float64],
        radius_km: float = EARTH_RADIUS_KM,
    ) -> Places:
        """Place units by longitude and latitude in degrees, (n,) each."""
        places, at = _distinct(np.stack([lon, lat], axis=1))
        rad = np.deg2rad(places)
        east = np.cos(rad[:, 1])
        xyz = [east * np.cos(rad[:, 0]), east * np.sin(rad[:, 0]), np.sin(rad[:, 1])]
        return cls(radius_km * np.stack(xyz, axis=1), at, radius_km)

    @classmethod
    def on_plane(cls, x: NDArray[np.float64], y: NDArray[np.float64]) -> Places:
        """Place units by coordinates of a projected system in metres, (n,) each."""
        places, at = _distinct(np.stack([x, y], axis=1))
        return cls(places / 1000, at, None)

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum (n, k) values of units by place; returns (p, k)."""
        columns = [np.bincount(self.at, column, len(self.points)) for column in values.T]
        return np.stack(columns, axis=1)

    def reach(self, km: float) -> float:
        """Straight-line distance of places ``km`` apart."""
        if self.radius_km is None:
            return km
        return 2 * self.radius_km * math.sin(min(km / self.radius_km, math.pi) / 2)

    def distance(self, straight: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance in kilometres of places a straight-line distance apart."""
        if self.radius_km is None:
            return straight
        double = 2 * self.radius_km
        return double * np.arcsin(np.minimum(straight / double, 1.0))


def _distinct(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    places, at = np.unique(rows, axis=0, return_inverse=True)
    return places, at.reshape(-1)


@dataclass(frozen=True, slots=True, eq=False)
class KernelSums:
    """Sums of values over the neighbours of each place.

    Attributes
    ----------
    plain
        (p, k) Σ_q K(d_pq / c) v_q.
    squared
        (p, m) Σ_q K(d_pq / c)² w_q.
    """

    plain: NDArray[np.float64]
    squared: NDArray[np.float64]


def kernel_sums(
    places: Places,
    km: float,
    kernel: Kernel,
    values: NDArray[np.float64],
    for_squares: NDArray[np.float64] | None = None,
) -> KernelSums:
    """Weight the values of all places within ``km`` of each place, itself included.

    Parameters
    ----------
    places
        p places.
    km
        Cutoff.
    kernel
        Weights up to the cutoff; beyond it they are 0.
    values
        (p, k) values summed with the weights.
    for_squares
        (p, m) values summed with the squared weights, or None.

    Returns
    -------
    KernelSums
        In the order of ``places``.
    """
    tree = cKDTree(places.points, leafsize=LEAF)
    order = np.asarray(tree.indices)
    v = values[order]
    w = np.empty((len(order), 0)) if for_squares is None else for_squares[order]
    plain, squared = np.zeros_like(v), np.zeros_like(w)
    for rows, columns, straight in _blocks(places, tree, order, places.reach(km) * EDGE):
        u = places.distance(straight) / km
        k = kernel.weight(np.minimum(u, 1.0))
        k[u > EDGE] = 0.0
        for weights, given, out in ((k, v, plain), (k * k if w.size else k, w, squared)):
            if given.shape[1] == 0:
                continue
            out[rows] += weights @ given[columns]
            if columns[0] >= rows.stop:
                out[columns] += weights.T @ given[rows]
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return KernelSums(plain[back], squared[back])


def _blocks(
    places: Places, tree: cKDTree, order: NDArray[np.int64], reach: float
) -> Iterator[tuple[slice, NDArray[np.int64], NDArray[np.float64]]]:
    """Go through all pairs within reach: each leaf with itself, then with what comes after it."""
    points = places.points[order]
    axes = np.ascontiguousarray(points.T)
    leaves = list(_leaves(tree.tree))
    low = np.stack([points[i:j].min(axis=0) for i, j in leaves])
    high = np.stack([points[i:j].max(axis=0) for i, j in leaves])
    size = np.array([j - i for i, j in leaves])
    for leaf, (begin, end) in enumerate(leaves):
        gap = np.maximum(np.maximum(low[leaf + 1 :] - high[leaf], low[leaf] - high[leaf + 1 :]), 0)
        near = (gap**2).sum(axis=1) <= reach**2
        later = end + np.flatnonzero(np.repeat(near, size[leaf + 1 :]))
        pieces = [np.arange(begin, end)]
        pieces += [later[i : i + COLUMNS] for i in range(0, len(later), COLUMNS)]
        for columns in pieces:
            yield slice(begin, end), columns, _straight(axes[:, begin:end], axes[:, columns])


def _straight(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Straight-line distances of (d, m) and (d, c) points, from differences.

    Squares and inner products would be faster, and lose the small distances.
    """
    square = np.zeros((a.shape[1], b.shape[1]))
    gap = np.empty_like(square)
    for one, two in zip(a, b, strict=True):
        np.subtract(one[:, None], two, out=gap)
        np.multiply(gap, gap, out=gap)
        square += gap
    return np.sqrt(square, out=square)


def _leaves(node: Any) -> Iterator[tuple[int, int]]:
    if node.lesser is None:
        yield node.start_idx, node.end_idx
        return
    yield from _leaves(node.lesser)
    yield from _leaves(node.greater)
