"""Partitions where some coefficients change at breaks and others, a season's say, do not.

One break and two are searched exactly. More are found by turns: breaks given the lasting
coefficients, by dynamic programming, and coefficients given the breaks (Bai & Perron 2003, section
4.2), from the solution with one break fewer and from the model without breaks. Each turn lowers the
sum of squares; its end need not be the lowest of all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eocausal.estimators.breaks_bai_perron import Partitions, partition
from eocausal.estimators.breaks_pairs import best_pairs
from eocausal.estimators.breaks_scan import Scan, candidates, independent, scan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

__all__ = ["fit_partitions"]

CHUNK = 2048
MOST_TURNS = 30


def fit_partitions(
    y: Float64, changing: Float64, shared: Float64, shortest: int, breaks: int
) -> Partitions:
    """Split series where the coefficients of ``changing`` change, those of ``shared`` do not.

    Parameters
    ----------
    y
        (N, n) series without gaps.
    changing, shared
        (n, q) and (n, s) regressors of all series; s may be 0.
    shortest, breaks
        As in :func:`~eocausal.estimators.breaks_bai_perron.partition`.

    Raises
    ------
    EstimationError
        If segments do not fit, or columns are linearly dependent.
    """
    if shared.shape[1] == 0 or breaks == 0:
        return partition(y, np.concatenate([changing, shared], axis=1), shortest, breaks)
    look = scan(changing, shared, candidates(len(changing), shortest))
    parts = [
        _fit(y[a : a + CHUNK], changing, shared, shortest, breaks, look)
        for a in range(0, len(y), CHUNK)
    ]
    return Partitions(
        np.concatenate([part.rss for part in parts]),
        tuple(np.concatenate([part.breaks[m] for part in parts]) for m in range(breaks + 1)),
    )


def _fit(
    y: Float64, changing: Float64, shared: Float64, shortest: int, breaks: int, look: Scan
) -> Partitions:
    squares = _Squares(y, changing, shared)
    every = np.arange(len(y))
    none = np.empty((len(y), 0), dtype=np.int64)
    rss, first = squares.fit(every, none)
    found, sums = [none], [rss]
    exact = [look.at[look.reductions(look.residuals(y)).argmax(-1)][:, None]]
    if breaks > 1:
        exact.append(best_pairs(look, y, shortest))
    for where in exact:
        rss, lasting = squares.fit(every, where)
        found.append(where)
        sums.append(rss)
    for m in range(3, breaks + 1):
        where, rss, other = squares.turns(shortest, m, lasting)
        again = squares.turns(shortest, m, first)
        better = again[1] < rss
        where[better], rss[better], other[better] = (part[better] for part in again)
        found.append(where)
        sums.append(rss)
        lasting = other
    return Partitions(np.stack(sums, axis=1), tuple(found))


class _Squares:
    """Least squares of series with breaks of their own, from running totals of products."""

    def __init__(self, y: Float64, changing: Float64, shared: Float64) -> None:
        n, q = changing.shape
        base = independent(np.concatenate([changing, shared], axis=1))
        self.y = y - (y @ base) @ base.T
        self.changing = base[:, :q] * np.sqrt(n)
        self.shared = independent(shared) * np.sqrt(n)
        self.own = _totals(self.changing[:, :, None] * self.changing[:, None, :])
        self.cross = _totals(self.shared[:, :, None] * self.changing[:, None, :])
        self.products = _totals(self.changing[:, None, :] * self.y.T[:, :, None])
        self.lasting = self.y @ self.shared
        self.total = (self.y**2).sum(1)

    def fit(self, which: NDArray[np.int64], breaks: NDArray[np.int64]) -> tuple[Float64, Float64]:
        """Return rss (k,) and lasting coefficients (k, s) of series given their breaks (k, m)."""
        k, m = breaks.shape
        (n, q), s = self.changing.shape, self.shared.shape[1]
        size = s + q * (m + 1)
        gram, right = np.zeros((k, size, size)), np.empty((k, size))
        gram[:, :s, :s] = n * np.eye(s)
        right[:, :s] = self.lasting[which]
        start = np.zeros(k, dtype=np.int64)
        for number in range(m + 1):
            end = breaks[:, number] if number < m else np.full(k, n)
            at = slice(s + q * number, s + q * (number + 1))
            gram[:, at, at] = self.own[end] - self.own[start]
            gram[:, :s, at] = self.cross[end] - self.cross[start]
            gram[:, at, :s] = gram[:, :s, at].transpose(0, 2, 1)
            right[:, at] = self.products[end, which] - self.products[start, which]
            start = end
        solved = np.linalg.solve(gram, right[:, :, None])[:, :, 0]
        rss = self.total[which] - (solved * right).sum(1)
        return np.maximum(rss, 0.0), solved[:, :s]

    def turns(
        self, shortest: int, m: int, lasting: Float64
    ) -> tuple[NDArray[np.int64], Float64, Float64]:
        """Search m breaks from given lasting coefficients (N, s): breaks, rss, coefficients."""
        count = len(self.y)
        where = np.zeros((count, m), dtype=np.int64)
        rss, lasting = np.full(count, np.inf), lasting.copy()
        going = np.arange(count)
        for _ in range(MOST_TURNS):
            free = self.y[going] - lasting[going] @ self.shared.T
            new = partition(free, self.changing, shortest, m).breaks[m]
            left, coefficients = self.fit(going, new)
            better = (new != where[going]).any(1) & (left < rss[going])
            going, new = going[better], new[better]
            where[going], rss[going], lasting[going] = new, left[better], coefficients[better]
            if not len(going):
                break
        return where, rss, lasting


def _totals(products: Float64) -> Float64:
    """Return running totals over the first axis, from 0 on."""
    out = np.zeros((len(products) + 1, *products.shape[1:]))
    np.cumsum(products, axis=0, out=out[1:])
    return out
