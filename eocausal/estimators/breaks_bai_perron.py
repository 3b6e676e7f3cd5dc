"""The partitions of a series with the smallest sum of squares, for every number of breaks.

Dynamic programming over the starts of regimes (Bai & Perron 2003, Journal of Applied Econometrics
18:1, section 3), here from left to right, so that a row of sums of squares is used up where it is
computed. Sums of squares of all regimes of all series come from running totals of x_t y_t and y_t²
and from factors of X'X of each regime, which series of the same design share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eocausal.errors import EstimationError
from eocausal.estimators.breaks_scan import DEPENDENT, independent

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

__all__ = ["Partitions", "partition", "room_for"]

CHUNK = 2**18
KEPT = 2**25


@dataclass(frozen=True, slots=True, eq=False)
class Partitions:
    """The best partitions of N series with m = 0..M breaks.

    Attributes
    ----------
    rss
        (N, M + 1) sums of squared residuals.
    breaks
        M + 1 arrays (N, m): first observation of each new regime.
    """

    rss: Float64
    breaks: tuple[NDArray[np.int64], ...]


def room_for(n: int, shortest: int) -> int:
    """Return the largest number of breaks that leaves ``shortest`` of n observations to each."""
    return max(n // shortest - 1, 0)


def partition(y: Float64, columns: Float64, shortest: int, breaks: int) -> Partitions:
    """Split series where the coefficients of ``columns`` change.

    Parameters
    ----------
    y
        (N, n) series without gaps.
    columns
        (n, q) regressors, the same for all; each regime has its own coefficients.
    shortest
        Fewest observations of a regime, more than q.
    breaks
        Largest number of breaks M.

    Raises
    ------
    EstimationError
        If M regimes and one do not fit into n observations, or if columns are linearly dependent
        within a regime.
    """
    n, q = columns.shape
    if shortest <= q or breaks > room_for(n, shortest):
        raise EstimationError(
            f"{breaks} breaks need {breaks + 1} segments of {shortest} observations with {q} "
            f"coefficients; there are {n} observations.",
            cause="Each segment needs its observations, and more of them than coefficients.",
            next_step=f"Ask for {room_for(n, shortest)} breaks at most, or change min_segment.",
        )
    base = independent(columns)
    segments = _Segments(base * np.sqrt(n), shortest)
    smooth = y - (y @ base) @ base.T
    width = max(CHUNK // (n * q), 1)
    parts = [_split(smooth[a : a + width], segments, breaks) for a in range(0, len(smooth), width)]
    return Partitions(
        np.concatenate([rss for rss, _ in parts]),
        tuple(np.concatenate([found[m] for _, found in parts]) for m in range(breaks + 1)),
    )


class _Segments:
    """Inverse factors of X'X over the observations [i, e), for the regimes that may start at i."""

    def __init__(self, columns: Float64, shortest: int) -> None:
        self.columns, self.shortest, self.n = columns, shortest, len(columns)
        products = columns[:, :, None] * columns[:, None, :]
        self.gram = np.concatenate([np.zeros_like(products[:1]), products.cumsum(0)])
        self.kept: dict[int, Float64] = {}
        self.size = 0

    def ends(self, start: int, inner: bool) -> NDArray[np.int64]:
        """Return where a regime that starts there may end; the last end is n."""
        last = self.n - self.shortest
        first = start + self.shortest
        middle = np.arange(first, last + 1) if inner else np.empty(0, dtype=np.int64)
        return np.append(middle, self.n)

    def factors(self, start: int, inner: bool) -> Float64:
        """Return (J, q, q) inverses of the lower factors, one for each end."""
        key = 2 * start + inner
        if key in self.kept:
            return self.kept[key]
        gram = self.gram[self.ends(start, inner)] - self.gram[start]
        try:
            lower = np.linalg.cholesky(gram)
        except np.linalg.LinAlgError:
            lower = np.zeros_like(gram)
        weight = np.diagonal(lower, axis1=1, axis2=2) ** 2
        if (weight <= DEPENDENT * np.diagonal(gram, axis1=1, axis2=2)).any():
            raise EstimationError(
                "A column that may change is a combination of the others within a segment of "
                f"{self.shortest} observations from observation {start} on.",
                cause="The segment has no coefficients of its own then.",
                next_step="Let fewer columns change, or use longer segments.",
            )
        inverse = np.asarray(np.linalg.inv(lower))
        if self.size + inverse.size <= KEPT:
            self.kept[key] = inverse
            self.size += inverse.size
        return inverse


def _split(y: Float64, segments: _Segments, breaks: int) -> tuple[Float64, list[NDArray[np.int64]]]:
    n, h, series = segments.n, segments.shortest, len(y)
    products = np.zeros((n + 1, segments.columns.shape[1], series))
    np.cumsum(segments.columns[:, :, None] * y.T[:, None, :], axis=0, out=products[1:])
    squares = np.zeros((n + 1, series))
    np.cumsum(y.T**2, axis=0, out=squares[1:])
    cost = np.full((breaks + 2, n + 1, series), np.inf)
    origin = np.zeros((breaks + 2, n + 1, series), dtype=np.int32)
    starts = [0, *range(h, n - h + 1)] if breaks else [0]
    for start in starts:
        inner = breaks > (1 if start else 0)
        ends = segments.ends(start, inner)
        left = _left(products, squares, start, ends, segments.factors(start, inner))
        if start == 0:
            cost[1, ends] = left
            continue
        for m in range(1, min(breaks, start // h) + 1):
            kept = slice(0, len(ends)) if m < breaks else slice(len(ends) - 1, len(ends))
            _improve(cost, origin, m, start, ends[kept], left[kept])
    rss = np.maximum(cost[1:, n].T, 0.0)
    return rss, [_trace(origin, m, n) for m in range(breaks + 1)]


def _left(
    products: Float64, squares: Float64, start: int, ends: NDArray[np.int64], factors: Float64
) -> Float64:
    """Return (J, N) sums of squared residuals of the regimes from ``start`` to each end."""
    inner = slice(int(ends[0]), int(ends[0]) + len(ends) - 1)
    total = np.empty((len(ends), *products.shape[1:]))
    square = np.empty((len(ends), squares.shape[1]))
    np.subtract(products[inner], products[start], out=total[:-1])
    np.subtract(squares[inner], squares[start], out=square[:-1])
    total[-1], square[-1] = products[-1] - products[start], squares[-1] - squares[start]
    turned = factors * total if factors.shape[1] == 1 else factors @ total
    np.multiply(turned, turned, out=turned)
    square -= turned.sum(axis=1)
    return square


def _improve(
    cost: Float64,
    origin: NDArray[np.int32],
    m: int,
    start: int,
    ends: NDArray[np.int64],
    left: Float64,
) -> None:
    """Let a regime from ``start`` follow m others where that lowers the cost up to its end."""
    offered = cost[m, start] + left
    middle = len(ends) - 1
    for rows, found in (
        (slice(int(ends[0]), int(ends[0]) + middle), offered[:-1]),
        (slice(int(ends[-1]), int(ends[-1]) + 1), offered[-1:]),
    ):
        better = found < cost[m + 1, rows]
        np.copyto(cost[m + 1, rows], found, where=better)
        np.copyto(origin[m + 1, rows], start, where=better)


def _trace(origin: NDArray[np.int32], m: int, n: int) -> NDArray[np.int64]:
    series = np.arange(origin.shape[2])
    out = np.empty((len(series), m), dtype=np.int64)
    end = np.full(len(series), n)
    for number in range(m, 0, -1):
        end = origin[number + 1, end, series].astype(np.int64)
        out[:, number - 1] = end
    return out
