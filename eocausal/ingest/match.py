"""Which scene touches which chip, and where, for all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import shapely
from numpy.typing import NDArray

from eocausal.ingest.footprints import scene_footprint
from eocausal.ingest.grid import WGS84, ChipGrids, SceneGrid, parse_crs

__all__ = ["Touches", "touches"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
_POLAR: Final = 84.0
_FEW: Final = 24
_WIDER: Final = 0.05


@dataclass(frozen=True, slots=True)
class Touches:
    """Pairs of chips and scene grids that may share pixels.

    Attributes
    ----------
    chip, grid
        Positions in the two lists, sorted by chip, then grid.
    box
        First column and row, last column and row (exclusive) of the part of the grid under the
        chip, somewhat wider than needed; shape (pairs, 4).
    """

    chip: IntArray
    grid: IntArray
    box: NDArray[np.int64]

    def keep(self, which: NDArray[np.bool_]) -> Touches:
        """Choose some of the pairs."""
        return Touches(self.chip[which], self.grid[which], self.box[which])


def touches(chips: ChipGrids, grids: Sequence[SceneGrid]) -> Touches:
    """Find every pair of chip and scene grid whose outlines may overlap.

    Nine points of each chip (corners, middles of the edges, centre) are taken to each CRS among
    the grids in one call. The answer errs on the side of too many pairs, never too few: whether
    a pixel is really on a scene is decided pixel by pixel later. Of many grids, only those whose
    footprint's bounding box (widened by a twentieth) meets that of the chip are looked at.
    """
    x, y, lon, lat = _nine_points(chips)
    polar = np.abs(lat).max(axis=1) > _POLAR
    candidates = _candidates(lon, lat, polar, grids)
    cache: dict[str, tuple[FloatArray, FloatArray]] = {}
    rows, which, boxes = [], [], []
    for index, grid in enumerate(grids):
        if grid.crs not in cache:
            cache[grid.crs] = chips.project(x, y, grid.crs)
        some = candidates[index]
        far_x, far_y = cache[grid.crs]
        if some is None:
            box = _boxes(far_x, far_y, grid, polar)
        else:
            box = _boxes(far_x[some], far_y[some], grid, polar[some])
        on = np.flatnonzero((box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1]))
        rows.append(on if some is None else some[on])
        which.append(np.full(len(on), index, dtype=np.intp))
        boxes.append(box[on])
    chip = np.concatenate(rows) if rows else np.empty(0, dtype=np.intp)
    scene = np.concatenate(which) if which else np.empty(0, dtype=np.intp)
    box = np.concatenate(boxes) if boxes else np.empty((0, 4), dtype=np.int64)
    order = np.lexsort((scene, chip))
    return Touches(chip[order], scene[order], box[order])


def _nine_points(chips: ChipGrids) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    steps = np.array([0.5, 0.0, 1.0]) * chips.size
    cols, rows = (m.ravel() for m in np.meshgrid(steps, steps))
    x, y = chips.points(cols, rows)
    ends = np.array([0, 4, 5, 7, 8])  # the centre and the corners
    lon, lat = chips.project(x[:, ends], y[:, ends], WGS84)
    return x, y, lon, np.where(np.isfinite(lat), lat, 90.0)


def _candidates(
    lon: FloatArray, lat: FloatArray, polar: NDArray[np.bool_], grids: Sequence[SceneGrid]
) -> list[IntArray | None]:
    """Chips to look at for each grid; None for all of them."""
    if len(grids) <= _FEW:
        return [None] * len(grids)
    shapes = [scene_footprint(g) for g in grids]
    bounds = np.array([s.bounds if not s.is_empty else (-180, -90, 180, 90) for s in shapes])
    margin = _WIDER * (bounds[:, 2:] - bounds[:, :2]) + 1e-3
    wider = np.hstack([bounds[:, :2] - margin, bounds[:, 2:] + margin])
    tree = shapely.STRtree(shapely.box(*wider.T))
    finite = np.isfinite(lon)
    wild = polar | ~finite.all(axis=1)
    near = lon[:, [0]] + (lon - lon[:, [0]] + 180.0) % 360.0 - 180.0
    near = np.where(finite, near, 0.0)
    pairs = []
    for turn in (-360.0, 0.0, 360.0):
        low, high = near.min(axis=1) + turn, near.max(axis=1) + turn
        boxes = shapely.box(low, lat.min(axis=1), high, lat.max(axis=1))
        pairs.append(tree.query(boxes))
    chip, grid = np.unique(np.hstack(pairs), axis=1)
    always = np.flatnonzero(wild)
    order = np.argsort(grid, kind="stable")
    cuts = np.searchsorted(grid[order], np.arange(1, len(grids)))
    return [np.union1d(part, always) for part in np.split(chip[order], cuts)]


def _boxes(
    x: FloatArray, y: FloatArray, scene: SceneGrid, polar: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Part of the scene's grid within the (widened) outline of each chip, shape (n, 4)."""
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = np.where(finite, x, np.nan), np.where(finite, y, np.nan)
    period = scene.period
    if period is not None:
        middle = x[:, [0]] - period * np.floor((x[:, [0]] - scene.x_middle) / period + 0.5)
        x = x - period * np.floor((x - middle) / period + 0.5)
    a, b, c, d, e, f = scene.transform
    det = a * e - b * d
    cols = (e * (x - c) - b * (y - f)) / det
    rows = (a * (y - f) - d * (x - c)) / det
    known: NDArray[np.bool_] = np.asarray(finite.any(axis=1))
    partly = known & ~finite.all(axis=1)
    wide = np.where(polar | partly, 1.0, _WIDER)
    low_col, high_col = _reach(cols, known, wide)
    low_row, high_row = _reach(rows, known, wide)
    if period is not None:
        seam = (low_col < 0) | (high_col > scene.width)
        around = known & seam & (abs(a) * scene.width > period / 2)
        if parse_crs(scene.crs).is_geographic:
            around |= known & polar
        low_col = np.where(around, -np.inf, low_col)
        high_col = np.where(around, np.inf, high_col)
    edges = np.column_stack([
        np.clip(np.floor(low_col), 0, scene.width), np.clip(np.floor(low_row), 0, scene.height),
        np.clip(np.ceil(high_col), 0, scene.width), np.clip(np.ceil(high_row), 0, scene.height),
    ])  # fmt: skip
    edges[~known] = 0
    return edges.astype(np.int64)


def _reach(
    values: FloatArray, known: NDArray[np.bool_], wide: FloatArray
) -> tuple[FloatArray, FloatArray]:
    safe = np.where(known[:, None], values, 0.0)
    low, high = np.nanmin(safe, axis=1), np.nanmax(safe, axis=1)
    margin = wide * (high - low) + 2.0
    return low - margin, high + margin
