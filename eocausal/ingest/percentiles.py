"""Percentiles over a stack of looks with gaps, much faster than ``numpy.nanpercentile``.

Work goes chunk by chunk of pixels, so that what is sorted stays in the processor's cache.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

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
    good = np.isfinite(part)
    if good.all():
        low, high, _ = _between(len(part), percent)
        # Adding zero copies, and makes -0.0 (which has no place before or after 0.0) 0.0.
        rows = _ordered(np.add(part, np.float32(0.0)), (low, high))
        return _mixed(rows, len(part), percent)
    filled = np.where(good, part, np.float32(np.inf)) + np.float32(0.0)
    count = good.sum(axis=0, dtype=np.int32)
    rows = _ordered(filled, range(_between(len(part), percent)[1] + 1))
    out = np.full(count.shape, np.nan, dtype=np.float32)
    for valid in np.unique(count[count > 0]).tolist():
        here = count == valid
        low, high, _ = _between(valid, percent)
        picked = {k: rows[k][here] for k in (low, high)}
        out[here] = _mixed(picked, valid, percent)
    return out


def _between(valid: int, percent: float) -> tuple[int, int, float]:
    """Positions in ascending order between which the percentile lies, and how far."""
    position = percent * (valid - 1) / 100.0
    low = math.floor(position)
    return low, math.ceil(position), position - low


def _mixed(
    rows: Sequence[FloatArray] | Mapping[int, FloatArray], valid: int, percent: float
) -> FloatArray:
    low, high, share = _between(valid, percent)
    if low == high:
        return rows[low]
    mixed = rows[low].astype(np.float64) * (1.0 - share) + rows[high].astype(np.float64) * share
    rounded: FloatArray = mixed.astype(np.float32)
    return rounded


def _ordered(values: FloatArray, wanted: Sequence[int]) -> list[FloatArray]:
    """Sort along the first axis, in place; only the rows ``wanted`` are sure to be right.

    Few rows go through a sorting network, whose steps are minima and maxima of whole rows; for
    many rows a sort of the transposed array is faster.
    """
    if len(values) > _NETWORK_UP_TO:
        columns = np.ascontiguousarray(values.T)
        columns.sort(axis=1)
        return list(columns.T)
    rows = list(values)
    spare = np.empty_like(rows[0])
    for i, j, smaller, larger in _network(len(values), tuple(wanted)):
        if smaller and larger:
            np.minimum(rows[i], rows[j], out=spare)
            np.maximum(rows[i], rows[j], out=rows[j])
            rows[i], spare = spare, rows[i]
        elif smaller:
            np.minimum(rows[i], rows[j], out=rows[i])
        else:
            np.maximum(rows[i], rows[j], out=rows[j])
    return rows


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
