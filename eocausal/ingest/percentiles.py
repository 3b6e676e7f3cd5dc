"""Percentiles over a stack of looks with gaps, much faster than ``numpy.nanpercentile``.

Work goes chunk by chunk of pixels, so that what is sorted stays in the processor's cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["percentile_of_looks"]

FloatArray = NDArray[np.float32]

_CHUNK: Final = 16_384
_NETWORK_UP_TO: Final = 24


def percentile_of_looks(looks: FloatArray, percent: float) -> FloatArray:
    """Percentile over the first axis of what is finite, NaN where nothing is.

    Parameters
    ----------
    looks
        Shape (look, ...); not changed.
    percent
        From 0 to 100; linear between the nearest two values (Hyndman & Fan 1996, *The American
        Statistician* 50(4), definition 7), computed in float64 and rounded once.

    Returns
    -------
    ndarray
        The shape of one look.
    """
    if len(looks) == 0:
        return np.full(looks.shape[1:], np.nan, dtype=np.float32)
    flat = looks.reshape(len(looks), -1)
    out = np.empty(flat.shape[1], dtype=np.float32)
    for start in range(0, flat.shape[1], _CHUNK):
        part = flat[:, start : start + _CHUNK]
        out[start : start + _CHUNK] = _percentile_of_chunk(part, percent)
    return out.reshape(looks.shape[1:])


def _percentile_of_chunk(part: FloatArray, percent: float) -> FloatArray:
    low, high, share = _between(len(part), percent)
    good = np.isfinite(part)
    if len(part) == 1:
        return np.where(good[0], part[0], np.float32(np.nan))
    if good.all():
        # Adding zero makes -0.0, which has no place before or after 0.0, the same as 0.0.
        ordered = _order(part + np.float32(0.0), (int(low[-1]), int(high[-1])))
        first = ordered.rank(int(low[-1]))
        return first if share[-1] == 0 else _mixed(first, ordered.rank(int(high[-1])), share[-1])
    filled = np.where(good, part, np.float32(np.inf))
    filled += np.float32(0.0)
    ordered = _order(filled, tuple(range(int(high[-1]) + 1)))
    count = good.sum(axis=0, dtype=np.intp)
    first, second = ordered.rank_by(low, count), ordered.rank_by(high, count)
    first[count == 0] = second[count == 0] = np.nan
    return _mixed(first, second, share.take(count))


def _between(
    most: int, percent: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """For 0 to ``most`` valid values: the two the percentile lies between, and how far."""
    position = percent * np.maximum(np.arange(most + 1) - 1, 0) / 100.0
    low, high = np.floor(position).astype(np.int64), np.ceil(position).astype(np.int64)
    return low, high, position - low


def _mixed(first: FloatArray, second: FloatArray, share: Any) -> FloatArray:
    mixed = first.astype(np.float64) * (1.0 - share) + second.astype(np.float64) * share
    rounded: FloatArray = mixed.astype(np.float32)
    return rounded


@dataclass(frozen=True, slots=True)
class _Ordered:
    """Ascending values: the k-th of pixel p is ``values[starts[k] + p * stride]``."""

    values: FloatArray
    starts: NDArray[np.int64]
    stride: int
    pixels: int

    def rank(self, k: int) -> FloatArray:
        """Take the k-th value of every pixel."""
        return self.values[self.starts[k] :][:: self.stride][: self.pixels]

    def rank_by(self, ranks: NDArray[np.int64], count: NDArray[np.intp]) -> FloatArray:
        """Take value ``ranks[count]`` of every pixel."""
        at = self.starts[ranks].take(count)
        at += np.arange(0, self.pixels * self.stride, self.stride)
        taken: FloatArray = self.values.take(at)
        return taken


def _order(values: FloatArray, wanted: tuple[int, ...]) -> _Ordered:
    """Sort along the first axis; only the ranks ``wanted`` are sure to be right.

    Few rows go through a sorting network, whose steps are minima and maxima of whole rows; for
    many rows a sort of the transposed array is faster.
    """
    count, pixels = values.shape
    if count > _NETWORK_UP_TO:
        columns = np.ascontiguousarray(values.T)
        columns.sort(axis=1)
        return _Ordered(columns.reshape(-1), np.arange(count, dtype=np.int64), count, pixels)
    buffer = np.concatenate([values, np.empty((1, pixels), dtype=values.dtype)])
    at, spare = list(range(count)), count
    for i, j, smaller, larger in _network(count, wanted):
        one, other = buffer[at[i]], buffer[at[j]]
        if smaller and larger:
            np.minimum(one, other, out=buffer[spare])
            np.maximum(one, other, out=other)
            at[i], spare = spare, at[i]
        elif smaller:
            np.minimum(one, other, out=one)
        else:
            np.maximum(one, other, out=other)
    return _Ordered(buffer.reshape(-1), np.array(at, dtype=np.int64) * pixels, 1, pixels)


@lru_cache(maxsize=1024)
def _network(size: int, wanted: tuple[int, ...]) -> tuple[tuple[int, int, bool, bool], ...]:
    """Batcher's merge exchange, without the steps that no wanted row depends on.

    Each step ``(i, j, smaller, larger)`` puts the smaller of rows i and j into i and the larger
    into j; the flags say which of the two is still needed.

    References
    ----------
    Knuth, *The Art of Computer Programming* 3, section 5.2.2, algorithm M.
    """
    pairs = []
    top = 1 << max(0, (size - 1).bit_length() - 1)
    p = top if size > 1 else 0
    while p > 0:
        q, r, d = top, 0, p
        while True:
            pairs += [(i, i + d) for i in range(size - d) if i & p == r]
            if q == p:
                break
            d, q, r = q - p, q >> 1, p
        p >>= 1
    live, steps = set(wanted), []
    for i, j in reversed(pairs):
        if i in live or j in live:
            steps.append((i, j, i in live, j in live))
            live |= {i, j}
    return tuple(reversed(steps))
