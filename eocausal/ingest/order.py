"""The order of chips in a store: along strips, so that blocks are needed once.

The Earth (or, where one grid holds nearly all chips, that grid) is cut into strips some blocks
high, and a strip is walked cell by cell, each cell about one block: down a column, then down the
next. A chip that lies on several blocks comes with the last of them. So what is needed again
later is but the right edge of the blocks of one column, which fits in memory; a Hilbert curve
would come back to the border of each quadrant long after.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from eocausal.ingest.grid import WGS84, ChipGrids, SceneGrid, parse_crs, project
from eocausal.ingest.match import Touches

if TYPE_CHECKING:
    from eocausal.ingest.spec import GridClass

__all__ = ["along_strips"]

FloatArray = NDArray[np.float64]
_STRIP_BYTES: Final = 320 * 2**20
_WHOLE: Final = 4
_METRES_PER_DEGREE: Final = 111_195.0


def along_strips(
    chips: ChipGrids,
    pairs: Touches,
    classes: Sequence[GridClass],
    heavy: NDArray[np.int64],
) -> NDArray[np.intp]:
    """Order chips so that neighbors in the order share blocks.

    Parameters
    ----------
    chips
        Grids of n chips.
    pairs
        Which chip touches which class.
    classes
        Grids of scenes.
    heavy
        Bytes of one pixel of each class, over all its assets that are needed together.

    Returns
    -------
    ndarray
        Positions of the chips, shape (n,). It depends on nothing but the arguments.
    """
    if not len(pairs.chip):
        return np.arange(len(chips))
    column, row, unit_bytes = _cells(chips, pairs, classes, heavy)
    wide = np.array([c.unit[1] for c in classes], dtype=float)[pairs.grid]
    edge = float(np.clip((pairs.box[:, 2] - pairs.box[:, 0]) / wide, 0.02, 1.0).mean())
    height = max(1, int((_STRIP_BYTES / max(unit_bytes, 1.0) - _WHOLE) / edge))
    cell_x, cell_y = np.floor(column).astype(np.int64), np.floor(row).astype(np.int64)
    return np.lexsort((np.arange(len(chips)), column, cell_y, cell_x, cell_y // height))


def _cells(
    chips: ChipGrids, pairs: Touches, classes: Sequence[GridClass], heavy: NDArray[np.int64]
) -> tuple[FloatArray, FloatArray, float]:
    """Right and bottom end of each chip in units of blocks, and the bytes of such a unit."""
    counts = np.bincount(pairs.grid, minlength=len(classes))
    main = int(np.argmax(counts))
    area = np.array([c.unit[0] * c.unit[1] for c in classes], dtype=float)
    if counts[main] >= 0.9 * len(chips):
        unit = classes[main].unit
        column, row = np.zeros(len(chips)), np.zeros(len(chips))
        on = pairs.grid == main
        column[pairs.chip[on]] = (pairs.box[on, 2] - 1) / unit[1]
        row[pairs.chip[on]] = (pairs.box[on, 3] - 1) / unit[0]
    else:
        corner = np.array(float(chips.size))
        x, y = (v.ravel() for v in chips.points(corner, corner))
        lon, lat = chips.project(x, y, WGS84)
        side = float(np.median([_unit_metres(c) for c in classes])) / _METRES_PER_DEGREE
        column, row = np.nan_to_num(lon) / side, -np.nan_to_num(lat) / side
    depth = float((counts * heavy * area).sum() / max(np.count_nonzero(np.bincount(pairs.chip)), 1))
    return column, row, depth


def _unit_metres(one: GridClass) -> float:
    """About the side of a unit on the ground."""
    grid: SceneGrid = one.grid
    a, b, c, d, e, f = grid.transform
    pixel = float(np.sqrt(abs(a * e - b * d)))
    if parse_crs(grid.crs).is_geographic:
        return pixel * one.unit[0] * _METRES_PER_DEGREE
    col, row = grid.width / 2, grid.height / 2
    x, y = c + a * col + b * row, f + d * col + e * row
    lon, lat = project(grid.crs, WGS84, np.array([x, x]), np.array([y, y + pixel]))
    metres = abs(float(lat[1] - lat[0])) * _METRES_PER_DEGREE
    if not np.isfinite(metres) or metres == 0 or not np.isfinite(lon).all():
        metres = pixel
    return metres * one.unit[0]
