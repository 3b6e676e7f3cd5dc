"""Which scene touches which chip, for all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from eocausal.ingest.grid import WGS84, LocalGrid, SceneGrid, parse_crs, project

__all__ = ["Touches", "touches"]

FloatArray = NDArray[np.float64]
_POLAR: Final = 84.0


@dataclass(frozen=True, slots=True)
class Touches:
    """Pairs of chips and scenes that may share pixels.

    Attributes
    ----------
    chip, scene
        Positions in the two lists, sorted by chip, then scene.
    pixels
        Source pixels of the scene under the chip, about.
    """

    chip: NDArray[np.intp]
    scene: NDArray[np.intp]
    pixels: FloatArray

    def by_chip(self, n: int) -> list[list[int]]:
        """List the scenes of each of ``n`` chips."""
        cuts = np.searchsorted(self.chip, np.arange(1, n))
        return [part.tolist() for part in np.split(self.scene, cuts)]


def touches(grids: Sequence[LocalGrid], scenes: Sequence[SceneGrid]) -> Touches:
    """Find every pair of chip and scene whose outlines may overlap.

    Nine points of each chip (corners, middles of the edges, centre) are taken to each CRS among
    the scenes in one call. The answer errs on the side of too many pairs, never too few: whether
    a pixel is really on a scene is decided pixel by pixel later.
    """
    x, y, lat = _nine_points(grids)
    polar = np.abs(lat).max(axis=1) > _POLAR
    cache: dict[str, tuple[FloatArray, FloatArray]] = {}
    chips, which, pixels = [], [], []
    for index, scene in enumerate(scenes):
        if scene.crs not in cache:
            cache[scene.crs] = _to_crs(grids, x, y, scene.crs)
        area = _overlap(*cache[scene.crs], scene, polar)
        rows = np.flatnonzero(area > 0)
        chips.append(rows)
        which.append(np.full(len(rows), index, dtype=np.intp))
        pixels.append(area[rows])
    chip = np.concatenate(chips) if chips else np.empty(0, dtype=np.intp)
    scene_index = np.concatenate(which) if which else np.empty(0, dtype=np.intp)
    order = np.lexsort((scene_index, chip))
    all_pixels = np.concatenate(pixels) if pixels else np.empty(0)
    return Touches(chip[order], scene_index[order], all_pixels[order])


def _nine_points(grids: Sequence[LocalGrid]) -> tuple[FloatArray, FloatArray, FloatArray]:
    transforms = np.array([g.transform for g in grids], dtype=np.float64)
    sizes = np.array([g.size for g in grids], dtype=np.float64)
    steps = np.array([0.5, 0.0, 1.0])
    cols, rows = (m.ravel() * sizes[:, None] for m in np.meshgrid(steps, steps))
    x = transforms[:, [0]] * cols + transforms[:, [1]] * rows + transforms[:, [2]]
    y = transforms[:, [3]] * cols + transforms[:, [4]] * rows + transforms[:, [5]]
    _, lat = _to_crs(grids, x, y, WGS84)
    return x, y, np.where(np.isfinite(lat), lat, 90.0)


def _to_crs(
    grids: Sequence[LocalGrid], x: FloatArray, y: FloatArray, target: str
) -> tuple[FloatArray, FloatArray]:
    out_x, out_y = np.empty_like(x), np.empty_like(y)
    names = np.array([g.crs for g in grids])
    for name in np.unique(names):
        rows = np.flatnonzero(names == name)
        out_x[rows], out_y[rows] = project(str(name), target, x[rows], y[rows])
    return out_x, out_y


def _overlap(
    x: FloatArray, y: FloatArray, scene: SceneGrid, polar: NDArray[np.bool_]
) -> FloatArray:
    """Scene pixels within the (widened) outline of each chip, shape (n,)."""
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
    wide = np.where(polar | partly, 1.0, 0.1)
    low_col, high_col = _reach(cols, known, wide)
    low_row, high_row = _reach(rows, known, wide)
    if period is not None and parse_crs(scene.crs).is_geographic:
        low_col = np.where(polar & known, -np.inf, low_col)
        high_col = np.where(polar & known, np.inf, high_col)
    across = np.minimum(high_col, scene.width) - np.maximum(low_col, 0.0)
    down = np.minimum(high_row, scene.height) - np.maximum(low_row, 0.0)
    return np.where(known, np.maximum(across, 0.0) * np.maximum(down, 0.0), 0.0)


def _reach(
    values: FloatArray, known: NDArray[np.bool_], wide: FloatArray
) -> tuple[FloatArray, FloatArray]:
    safe = np.where(known[:, None], values, 0.0)
    low, high = np.nanmin(safe, axis=1), np.nanmax(safe, axis=1)
    margin = wide * (high - low) + 1.0
    return low - margin, high + margin
