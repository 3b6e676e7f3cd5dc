"""Scores averaged to places, the rows of the regressions of effects on image features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Places"]


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Scores averaged to the rows of the place-level regression."""

    place: NDArray[np.int64]
    value: NDArray[np.float64]
    known: NDArray[np.float64]
    count: NDArray[np.float64]
    group: NDArray[np.int64] | None

    @classmethod
    def average(
        cls, value: NDArray[np.float64], place: NDArray[np.int64], cluster: NDArray[np.int64]
    ) -> Places:
        """Average unit values by place, or by place and cluster where clusters span places.

        The known noise variance of a mean is the pooled variance between the independent pieces
        within a place (units, or clusters where several share a place) over their number.
        """
        spans = _spans(cluster, place)
        row_key = cluster * (place.max() + 1) + place if spans else place
        first, row = np.unique(row_key, return_index=True, return_inverse=True)[1:]
        row = row.reshape(-1)
        count = np.bincount(row).astype(float)
        mean = np.bincount(row, value) / count
        pieces = np.unique(row * (cluster.max() + 1) + cluster, return_inverse=True)[1].reshape(-1)
        several = pieces.max() + 1 > len(count)
        piece = pieces if several else np.arange(len(value))
        known = _variance_of_means(value, row, piece)
        return cls(place[first], mean, known, count, cluster[first] if spans else None)


def _spans(cluster: NDArray[np.int64], place: NDArray[np.int64]) -> bool:
    """Whether some cluster has units in several places."""
    pairs = np.unique(np.stack([cluster, place], axis=1), axis=0)
    return len(pairs) > np.unique(cluster).size


def _variance_of_means(
    value: NDArray[np.float64], row: NDArray[np.int64], piece: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Variance of each row's mean from the pooled variance between its pieces' means."""
    size = np.bincount(piece).astype(float)
    piece_mean = np.bincount(piece, value) / size
    row_of = np.zeros(size.size, dtype=np.int64)
    row_of[piece] = row
    n_row = np.bincount(row_of, size)
    mean = np.bincount(row_of, size * piece_mean) / n_row
    freedom = size.size - n_row.size
    if freedom <= 0:
        return np.zeros(n_row.size)
    pooled = float((size * (piece_mean - mean[row_of]) ** 2).sum() / freedom)
    typical = float((size**2).sum() / size.sum())
    share = np.bincount(row_of, size**2) / n_row**2
    return pooled / typical * share
