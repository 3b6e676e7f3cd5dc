"""Seasonal effects that change, as linear maps of their start and of their shocks.

Effects over any ``period`` times sum to the shock at the last of them (Harvey 1989, section 2.3.4).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["season_responses", "season_starts"]

Float64 = NDArray[np.float64]


@lru_cache(maxsize=4)
def season_responses(period: int, times: int) -> Float64:
    """Return (T, T) effects at each time of a unit shock at each time; none at time 0."""
    lag = np.subtract.outer(np.arange(times), np.arange(times))
    response = 1.0 * ((lag >= 0) & (lag % period == 0)) - ((lag > 0) & (lag % period == 1))
    response[:, 0] = 0.0
    response.setflags(write=False)
    return np.asarray(response)


def season_starts(period: int, times: int) -> Float64:
    """Return (T, period - 1) what unit seasonal effects at times 0, -1, -2, ... become later."""
    size = period - 1
    history = np.zeros((times + size, size))
    history[:size] = np.eye(size)[::-1]  # rows: times -(size - 1), ..., 0
    for at in range(size, len(history)):
        history[at] = -history[at - size : at].sum(0)
    return history[size - 1 : size - 1 + times]
