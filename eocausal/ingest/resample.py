"""From source pixels to chip pixels: nearest and bilinear, aware of missing pixels.

Both are plain gathers at given fractional positions, so a chip may have any CRS relative to
its source. A chip pixel is valid only if the source pixel it falls in is valid; the bilinear
weights are then shared among the valid neighbors alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bilinear", "Nearest", "Resampling", "median_of_looks"]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


class Resampling(Protocol):
    """How a chip takes values from a scene: a frozen dataclass with these members."""

    @property
    def snap(self) -> float:
        """Grids closer than this share of a pixel are taken pixel by pixel."""

    @property
    def reach(self) -> int:
        """How many pixels beyond the nearest one are needed."""

    def sample(
        self, values: FloatArray, good: BoolArray, cols: FloatArray, rows: FloatArray
    ) -> FloatArray:
        """Sample ``values`` (band, h, w) at points (n,); NaN where nothing is valid."""


def _flat_index(
    shape: tuple[int, ...], cols: NDArray[np.intp], rows: NDArray[np.intp]
) -> tuple[NDArray[np.intp], BoolArray]:
    height, width = shape[-2:]
    inside = (cols >= 0) & (cols < width) & (rows >= 0) & (rows < height)
    flat = np.clip(rows, 0, height - 1) * width + np.clip(cols, 0, width - 1)
    return flat, inside


@dataclass(frozen=True, slots=True)
class Nearest:
    """The value of the source pixel in which the centre of the chip pixel lies."""

    snap: float = 0.01

    @property
    def reach(self) -> int:
        """No pixel beyond the nearest one is needed."""
        return 0

    def sample(
        self, values: FloatArray, good: BoolArray, cols: FloatArray, rows: FloatArray
    ) -> FloatArray:
        """Sample at fractional window positions.

        Parameters
        ----------
        values, good
            Source window, shape (band, h, w).
        cols, rows
            Positions in the window, shape (n,); 0.5 is the centre of its first pixel.

        Returns
        -------
        ndarray
            Shape (band, n), NaN where the source pixel is not good.
        """
        bands = values.shape[0]
        flat, inside = _flat_index(
            values.shape, np.floor(cols).astype(np.intp), np.floor(rows).astype(np.intp)
        )
        taken = values.reshape(bands, -1)[:, flat]
        return np.where(good.reshape(bands, -1)[:, flat] & inside, taken, np.nan)


@dataclass(frozen=True, slots=True)
class Bilinear:
    """Linear interpolation between the four nearest source pixel centres.

    Parameters
    ----------
    snap
        Where chip and scene share CRS and resolution and their grids differ by less than this
        share of a pixel, source pixels are taken as they are (default 0.01).
    """

    snap: float = 0.01

    @property
    def reach(self) -> int:
        """One pixel beyond the nearest one is needed."""
        return 1

    def sample(
        self, values: FloatArray, good: BoolArray, cols: FloatArray, rows: FloatArray
    ) -> FloatArray:
        """Sample at fractional window positions; arguments as in :meth:`Nearest.sample`."""
        bands = values.shape[0]
        source = np.where(good, values, 0.0).reshape(bands, -1)
        fine = good.reshape(bands, -1)
        u, v = _settle(cols - 0.5), _settle(rows - 0.5)
        left, top = np.floor(u), np.floor(v)
        right_share, low_share = u - left, v - top
        i, j = left.astype(np.intp), top.astype(np.intp)
        total = np.zeros((bands, cols.size))
        weight = np.zeros((bands, cols.size))
        for down, w_row in ((0, 1.0 - low_share), (1, low_share)):
            for across, w_col in ((0, 1.0 - right_share), (1, right_share)):
                flat, inside = _flat_index(values.shape, i + across, j + down)
                share = np.where(inside, w_row * w_col, 0.0) * fine[:, flat]
                total += share * source[:, flat]
                weight += share
        flat, inside = _flat_index(
            values.shape, np.floor(cols).astype(np.intp), np.floor(rows).astype(np.intp)
        )
        known = fine[:, flat] & inside & (weight > 0)
        return np.where(known, total / np.where(weight > 0, weight, 1.0), np.nan)


def _settle(position: FloatArray) -> FloatArray:
    """Move positions within a millionth of a pixel centre onto it, so that they are exact."""
    whole = np.round(position)
    return np.where(np.abs(position - whole) < 1e-6, whole, position)


def median_of_looks(looks: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Median per pixel over the valid looks, NaN where there is none.

    Parameters
    ----------
    looks
        Arrays of one shape, NaN where invalid. For an even number of valid looks the median
        is the mean of the middle two.
    """
    if len(looks) == 1:
        return looks[0]
    ordered = np.sort(np.stack(looks), axis=0)
    valid = np.isfinite(ordered).sum(axis=0)
    low = np.take_along_axis(ordered, np.maximum(valid - 1, 0)[None] // 2, axis=0)[0]
    high = np.take_along_axis(ordered, np.minimum(valid // 2, len(looks) - 1)[None], axis=0)[0]
    middle = 0.5 * (low.astype(np.float64) + high.astype(np.float64))
    return np.where(valid > 0, middle, np.nan).astype(np.float32)
