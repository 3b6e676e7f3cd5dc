"""Slice sampling of one number at a time (Neal 2003): steps out, then shrinks.

Nothing is tuned but the first width; a density that is constant over whole numbers, as of a place
on a grid, is sampled the same way.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

__all__ = ["slice_step"]

MOST_STEPS = 12


def slice_step(
    at: float,
    height: float,
    density: Callable[[float], float],
    width: float,
    bounds: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Return the next value and its log density.

    Parameters
    ----------
    at, height
        The present value and its log density.
    density
        Log density.
    width
        First guess of how wide the slice is.
    bounds
        Lower and upper end, where the density need not be asked.
    """
    level = height - rng.exponential()
    low = at - width * rng.random()
    high = low + width
    left = int(rng.random() * MOST_STEPS)
    right = MOST_STEPS - 1 - left
    while left > 0 and low > bounds[0] and density(low) > level:
        low, left = low - width, left - 1
    while right > 0 and high < bounds[1] and density(high) > level:
        high, right = high + width, right - 1
    low, high = max(low, bounds[0]), min(high, bounds[1])
    while True:
        value = low + (high - low) * rng.random()
        found = density(value) if value < bounds[1] else -math.inf
        if found > level:
            return value, found
        if value < at:
            low = value
        else:
            high = value
        if high - low < 1e-12 * max(1.0, abs(at)):
            return at, height
