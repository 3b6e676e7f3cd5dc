"""How the chips of a batch lie on the grid of a scene, and the weights that follow from it.

The way from a chip to a scene is smooth, so it is taken exactly at 25 Chebyshev nodes and
interpolated by a polynomial of fourth degree in each direction (Trefethen, *Approximation Theory
and Approximation Practice*, ch. 5); where that misses nine check points by more than 1e-4 source
pixels (a pole, the antimeridian, a very large chip) every pixel is projected instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from eocausal.ingest.assets import Box
from eocausal.ingest.grid import ChipGrids, SceneGrid, same_crs
from eocausal.ingest.resample import Resampling

__all__ = ["Piece", "place_chips"]

FloatArray = NDArray[np.float64]
_NODES: Final = 5
_TOLERANCE: Final = 1e-4
_LARGEST: Final = 4_000_000
_COARSER: Final = 1.5


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a chip (as a rule all of it) and the window of the scene that feeds it.

    Attributes
    ----------
    box
        Window of the scene.
    pixels
        Positions of the chip's pixels, counted along its rows; None for all of them.
    corner
        Where chip pixels are source pixels: column and row of the chip at which the window's
        first pixel goes; negative where a margin reaches beyond the chip.
    weights
        Else: sparse matrix (pixels, window); None where ``corner`` is given.
    centre
        Position in the window of the source pixel each chip pixel falls in.
    """

    box: Box
    pixels: NDArray[np.intp] | None = None
    corner: tuple[int, int] | None = None
    weights: sparse.csr_array | None = None
    centre: NDArray[np.int64] | None = None

    def overlap(self, size: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Rows and columns shared by an aligned window and its chip: in the one, in the other."""
        assert self.corner is not None
        col, row = self.corner
        low_col, high_col = max(col, 0), min(col + self.box[2], size)
        low_row, high_row = max(row, 0), min(row + self.box[3], size)
        there = slice(low_row - row, high_row - row), slice(low_col - col, high_col - col)
        return there, (slice(low_row, high_row), slice(low_col, high_col))


def place_chips(
    chips: ChipGrids,
    scene: SceneGrid,
    method: Resampling,
    *,
    margin: int = 0,
    precision: type[np.floating[Any]] = np.float32,
) -> list[list[Piece]]:
    """Find the windows and weights of chips on a scene; an empty list for a chip off the scene.

    Parameters
    ----------
    chips
        Grids of n chips.
    scene
        Grid of the scene.
    method
        How values are taken.
    margin
        Least number of pixels of the window around the pixels needed.
    precision
        Type of the weights.
    """
    shift, aligned = scene.shifts(chips, method.snap)
    pieces: list[list[Piece]] = [[] for _ in range(len(chips))]
    for k in np.flatnonzero(aligned):
        pieces[k] = _aligned(shift[k], chips.size, scene, margin)
    rest = np.flatnonzero(~aligned)
    if not rest.size:
        return pieces
    cols, rows = _positions(chips.take(rest), scene)
    inside = scene.contains(cols, rows)
    for k, col, row, on in zip(rest, cols, rows, inside, strict=True):
        if on.any():
            pieces[k] = _weighted(col, row, on, scene, method, margin, precision)
    return pieces


def _aligned(shift: FloatArray, size: int, scene: SceneGrid, margin: int) -> list[Piece]:
    left, top = int(shift[0]), int(shift[1])
    if not (-size < left < scene.width and -size < top < scene.height):
        return []
    low_col, low_row = max(left - margin, 0), max(top - margin, 0)
    high_col = min(left + size + margin, scene.width)
    high_row = min(top + size + margin, scene.height)
    box = (low_col, low_row, high_col - low_col, high_row - low_row)
    return [Piece(box, corner=(low_col - left, low_row - top))]


def _positions(chips: ChipGrids, scene: SceneGrid) -> tuple[FloatArray, FloatArray]:
    """Fractional column and row of every chip pixel's centre, shape (n, size, size)."""
    if all(same_crs(n, scene.crs) for n in chips.names) or chips.size < 2 * _NODES:
        return _exact(chips, scene)
    nodes, basis, checks, at_checks = _chebyshev(chips.size)
    grid_cols, grid_rows = np.meshgrid(nodes, nodes)
    test_cols, test_rows = np.meshgrid(checks, checks)
    x, y = chips.points(
        np.concatenate([grid_cols.ravel(), test_cols.ravel()]),
        np.concatenate([grid_rows.ravel(), test_rows.ravel()]),
    )
    known = scene.pixels(*chips.project(x, y, scene.crs))
    cut = nodes.size**2
    found = []
    good = np.ones(len(chips), dtype=bool)
    for values in known:
        at_nodes = values[:, :cut].reshape(-1, nodes.size, nodes.size)
        guess = at_checks @ at_nodes @ at_checks.T
        miss = np.abs(guess.reshape(len(chips), -1) - values[:, cut:]).max(axis=1)
        good &= miss < _TOLERANCE
        found.append(basis @ at_nodes @ basis.T)
    wild = np.flatnonzero(~good)
    if wild.size:
        exact = _exact(chips.take(wild), scene)
        for values, true in zip(found, exact, strict=True):
            values[wild] = true
    return found[0], found[1]


def _exact(chips: ChipGrids, scene: SceneGrid) -> tuple[FloatArray, FloatArray]:
    steps = np.arange(chips.size, dtype=np.float64) + 0.5
    cols, rows = np.meshgrid(steps, steps)
    return scene.pixels(*chips.project(*chips.points(cols, rows), scene.crs))


@lru_cache(maxsize=16)
def _chebyshev(size: int) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Nodes, matrix from nodes to pixel centres, check points, matrix from nodes to those."""
    k = np.arange(_NODES)
    unit = -np.cos((2 * k + 1) * np.pi / (2 * _NODES))
    signs = (-1.0) ** k * np.sin((2 * k + 1) * np.pi / (2 * _NODES))
    half = size / 2

    def matrix(points: NDArray[Any]) -> FloatArray:
        """Barycentric interpolation (Berrut & Trefethen 2004, eq. 4.2)."""
        gap = (points / half - 1.0)[:, None] - unit[None, :]
        hit = np.abs(gap) < 1e-14
        terms = signs / np.where(hit, 1.0, gap)
        rows = terms / terms.sum(axis=1, keepdims=True)
        rows[hit.any(axis=1)] = hit[hit.any(axis=1)]
        return np.asarray(rows, dtype=np.float64)

    checks = np.array([0.5, 0.41 * size, size - 0.5])
    return (unit + 1.0) * half, matrix(np.arange(size) + 0.5), checks, matrix(checks)


def _weighted(
    cols: FloatArray,
    rows: FloatArray,
    inside: NDArray[np.bool_],
    scene: SceneGrid,
    method: Resampling,
    margin: int,
    precision: type[np.floating[Any]],
) -> list[Piece]:
    step = _steps(cols, rows)
    step = step if min(step) > _COARSER else (1.0, 1.0)
    pixels = None if inside.all() else np.flatnonzero(inside)
    chosen = slice(None) if pixels is None else pixels
    col = np.clip(cols.ravel()[chosen], 0.0, scene.width - 1e-6)
    row = np.clip(rows.ravel()[chosen], 0.0, scene.height - 1e-6)
    reach = (max(method.reach(step[0]), margin), max(method.reach(step[1]), margin))
    return _split(col, row, pixels, scene, method, step, reach, precision)


def _steps(cols: FloatArray, rows: FloatArray) -> tuple[float, float]:
    """Source columns and rows from one chip pixel to the next, as a median over the chip."""
    if cols.shape[0] < 2:
        return 1.0, 1.0

    every = slice(None, None, max(1, cols.shape[0] // 8))

    def along(values: FloatArray) -> float:
        down, across = np.diff(values[:, every], axis=0)[every], np.diff(values[every], axis=1)
        across = across[: len(down), every][:, : down.shape[1]]
        change = np.hypot(down[: len(across), : across.shape[1]], across)
        change = change[np.isfinite(change)]
        return float(np.median(change)) if change.size else 1.0

    return along(cols), along(rows)


def _split(
    col: FloatArray,
    row: FloatArray,
    pixels: NDArray[np.intp] | None,
    scene: SceneGrid,
    method: Resampling,
    step: tuple[float, float],
    reach: tuple[int, int],
    precision: type[np.floating[Any]],
) -> list[Piece]:
    """Make one piece, or several where the pixels span a window far larger than they are."""
    left = max(int(np.floor(col.min())) - reach[0], 0)
    right = min(int(np.floor(col.max())) + 1 + reach[0], scene.width)
    top = max(int(np.floor(row.min())) - reach[1], 0)
    bottom = min(int(np.floor(row.max())) + 1 + reach[1], scene.height)
    wide, high = right - left, bottom - top
    needed = col.size * max(1.0, step[0]) * max(1.0, step[1])
    if wide * high > max(_LARGEST, 8 * needed) and col.size > 1:
        first = col < left + wide / 2 if wide >= high else row < top + high / 2
        if first.any() and not first.all():
            places = np.arange(col.size) if pixels is None else pixels
            return [
                piece
                for part in (first, ~first)
                for piece in _split(
                    col[part], row[part], places[part], scene, method, step, reach, precision
                )
            ]
    weights = _matrix(col, row, scene, method, step, (left, top, wide, high), precision)
    centre = (np.floor(row).astype(np.int64) - top) * wide + np.floor(col).astype(np.int64) - left
    return [Piece((left, top, wide, high), pixels=pixels, weights=weights, centre=centre)]


def _matrix(
    col: FloatArray,
    row: FloatArray,
    scene: SceneGrid,
    method: Resampling,
    step: tuple[float, float],
    box: Box,
    precision: type[np.floating[Any]],
) -> sparse.csr_array:
    left, top, wide, high = box
    i, j, weight = method.weights(col, row, step)
    off = (i < 0) | (i >= scene.width) | (j < 0) | (j >= scene.height)
    if off.any():
        weight = np.where(off, 0.0, weight)
        weight /= weight.sum(axis=1, keepdims=True)
    flat = np.clip(j - top, 0, high - 1) * wide + np.clip(i - left, 0, wide - 1)
    count = weight.shape[1]
    pointers = np.arange(0, weight.size + 1, count, dtype=np.int32)
    return sparse.csr_array(
        (weight.astype(precision).ravel(), flat.astype(np.int32).ravel(), pointers),
        shape=(col.size, wide * high),
    )
