"""From source pixels to chip pixels, as sparse weights: nearest, and bilinear.

A chip may have any CRS relative to its source. A chip pixel is valid only if the source pixel it
falls in is valid; the weights are then shared among the valid source pixels alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bilinear", "Nearest", "Resampling"]

FloatArray = NDArray[np.float64]


class Resampling(Protocol):
    """How a chip takes values from a scene: a frozen dataclass with these members."""

    @property
    def snap(self) -> float:
        """Grids closer than this share of a pixel are taken pixel by pixel."""

    def reach(self, step: float) -> int:
        """How many pixels beyond the one a position lies in are needed."""

    def weights(
        self, cols: FloatArray, rows: FloatArray, step: tuple[float, float]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray]:
        """Columns, rows and weights of the source pixels of each position, shape (n, k)."""


@dataclass(frozen=True, slots=True)
class Nearest:
    """The value of the source pixel in which the centre of the chip pixel lies."""

    snap: float = 0.01

    def reach(self, step: float) -> int:
        """No pixel beyond it is needed."""
        del step
        return 0

    def weights(
        self, cols: FloatArray, rows: FloatArray, step: tuple[float, float]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray]:
        """Weigh the one pixel; see :meth:`Bilinear.weights`."""
        del step
        left, top = np.floor(cols).astype(np.int64), np.floor(rows).astype(np.int64)
        return left[:, None], top[:, None], np.ones((cols.size, 1))


@dataclass(frozen=True, slots=True)
class Bilinear:
    """Linear interpolation between source pixel centres, widened where a chip is coarser.

    Where a chip pixel is more than 1.5 source pixels wide and high, the triangle that weighs source
    pixels is as wide as the chip pixel, so that all of them count (as image libraries and GDAL's
    warper do); else it is plain bilinear interpolation.

    Parameters
    ----------
    snap
        Where chip and scene share CRS and resolution and their grids differ by less than this
        share of a pixel, source pixels are taken as they are (default 0.01).
    """

    snap: float = 0.01

    def reach(self, step: float) -> int:
        """One pixel, or as many source pixels as a chip pixel is wide."""
        return int(np.ceil(max(1.0, step)))

    def weights(
        self, cols: FloatArray, rows: FloatArray, step: tuple[float, float]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray]:
        """Weigh source pixels by their distance.

        Parameters
        ----------
        cols, rows
            Positions, shape (n,); 0.5 is the centre of the first pixel.
        step
            Source columns and rows from one chip pixel to the next.

        Returns
        -------
        cols, rows, weights
            Shape (n, k), weights adding up to 1; positions may lie outside the scene.
        """
        if max(step) <= 1.0:
            return _plain(cols, rows)
        left, across = _triangle(cols, max(1.0, step[0]))
        top, down = _triangle(rows, max(1.0, step[1]))
        shape = (cols.size, across.shape[1] * down.shape[1])
        weights = (down[:, :, None] * across[:, None, :]).reshape(shape)
        i = left[:, None] + np.arange(across.shape[1])
        j = top[:, None] + np.arange(down.shape[1])
        grid = (cols.size, down.shape[1], across.shape[1])
        all_cols = np.broadcast_to(i[:, None, :], grid).reshape(shape)
        all_rows = np.broadcast_to(j[:, :, None], grid).reshape(shape)
        return all_cols, all_rows, weights


def _plain(
    cols: FloatArray, rows: FloatArray
) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray]:
    """Weigh the four nearest pixel centres."""
    u, v = _settle(cols - 0.5), _settle(rows - 0.5)
    left, top = np.floor(u), np.floor(v)
    right_share, low_share = u - left, v - top
    weights = np.empty((cols.size, 4))
    np.multiply(1.0 - right_share, 1.0 - low_share, out=weights[:, 0])
    np.multiply(right_share, 1.0 - low_share, out=weights[:, 1])
    np.multiply(1.0 - right_share, low_share, out=weights[:, 2])
    np.multiply(right_share, low_share, out=weights[:, 3])
    across = left.astype(np.int64)[:, None] + np.array([0, 1, 0, 1])
    down = top.astype(np.int64)[:, None] + np.array([0, 0, 1, 1])
    return across, down, weights


def _triangle(position: FloatArray, wide: float) -> tuple[NDArray[np.int64], FloatArray]:
    """First source pixel and the weights from it on, along one axis."""
    centre = _settle(position - 0.5)
    first = np.floor(centre - wide).astype(np.int64) + 1
    count = int(np.ceil(2 * wide))
    distance = np.abs(first[:, None] + np.arange(count) - centre[:, None])
    weight = np.maximum(0.0, 1.0 - distance / wide)
    if wide > 1.0:
        weight /= weight.sum(axis=1, keepdims=True)
    return first, weight


def _settle(position: FloatArray) -> FloatArray:
    """Move positions within a millionth of a pixel centre onto it, so that they are exact."""
    whole = np.rint(position)
    return np.where(np.abs(position - whole) < 1e-6, whole, position)
