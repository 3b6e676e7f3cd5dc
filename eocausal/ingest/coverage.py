"""How much of every pixel each polygon covers, and which blocks hold these pixels.

Coverage fractions are exact (``exactextract``). They are computed once for a grid, on polygons
that were taken to the grid's own columns and rows, so rotated and south-up grids, longitudes in
0..360 and polygons across the antimeridian need no rule of their own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import scipy.sparse as sparse
import shapely
from exactextract import exact_extract
from exactextract.feature import FeatureSource, JSONFeature
from exactextract.raster import NumPyRasterSource
from numpy.typing import NDArray

from eocausal.ingest.assets import Box
from eocausal.ingest.footprints import polygon_on_globe
from eocausal.ingest.grid import SceneGrid, parse_crs, project, same_crs, x_period

__all__ = ["Coverage", "Piece", "coverage_of", "ground_areas", "pieces_of", "pooled"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Shapes = NDArray[np.object_]

_EDGE_TOLERANCE: Final = 0.01
_DENSIFY_ROUNDS: Final = 6
_MOST_SEGMENTS: Final = 4096
_TABLE_PIXELS: Final = 2**27
_WINDOW_PIXELS: Final = 2**22


@dataclass(frozen=True)
class Coverage:
    """What share of each pixel of a grid each polygon covers.

    Attributes
    ----------
    pixels
        Pixels that some polygon touches, as row * width + column, ascending; shape (p,).
    fraction
        Sparse matrix (CSR), shape (n, p): share of the pixel's area, in (0, 1].
    area
        Weight of a whole pixel, shape (p,), or (1,) where all weigh the same: its area on the
        ground in square metres; 1 where areas were not asked for.
    whole
        Weight of each whole polygon, the part off the grid included, shape (n,); 0 for polygons
        that touch no pixel.
    """

    pixels: IntArray
    fraction: Any
    area: FloatArray
    whole: FloatArray

    @cached_property
    def share(self) -> FloatArray:
        """Number of pixels in each polygon, partly covered ones by their share, shape (n,)."""
        return np.asarray(self.fraction.sum(axis=1)).ravel()

    @cached_property
    def inside(self) -> FloatArray:
        """Weight of the part of each polygon on the grid, shape (n,)."""
        even = len(self.area) == 1
        return self.share * self.area[0] if even else np.asarray(self.fraction @ self.area)

    @cached_property
    def by_pixel(self) -> Any:
        """The same matrix by columns (CSC)."""
        return self.fraction.tocsc()


@dataclass(frozen=True, slots=True)
class Piece:
    """A window to read and where its pixels go: ``out[at] = window.ravel()[local]``.

    ``at`` is a slice where the pixels follow one another.
    """

    box: Box
    at: slice | IntArray
    local: IntArray


class _Shape(JSONFeature):  # type: ignore[misc]
    """A polygon handed over as WKB."""

    def __init__(self, wkb: bytes) -> None:
        super().__init__()
        self._wkb = wkb

    def geometry(self) -> bytes:
        return self._wkb


class _Shapes(FeatureSource):  # type: ignore[misc]
    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self._wkb = shapely.to_wkb(shapes)

    def count(self) -> int:
        return len(self._wkb)

    def __iter__(self) -> Iterator[_Shape]:
        return (_Shape(wkb) for wkb in self._wkb)

    def srs_wkt(self) -> None:
        return None


def coverage_of(shapes: Shapes, crs: str, grid: SceneGrid, *, area: bool = True) -> Coverage:
    """Find what share of each pixel each polygon covers.

    Edges are straight in the polygons' own CRS: before they are taken to another they get as
    many vertices as keep them within a hundredth of a pixel.

    Parameters
    ----------
    shapes
        Polygons or MultiPolygons, shape (n,). Across the antimeridian they are cut there (RFC
        7946) or their longitudes go on beyond 180 degrees.
    crs
        Their CRS.
    grid
        The scene's grid. Columns beyond one turn around the Earth are left out.
    area
        Weigh pixels by their area on the ground (the ellipsoid's for a grid in degrees); else
        every pixel weighs 1.

    Returns
    -------
    Coverage
    """
    stored_width = grid.width
    grid = _one_turn(grid)
    owner, placed, whole = _placed(shapes, crs, grid)
    rows, cells, share = _extract(owner, placed, grid)
    pixels, cols = _compact(cells, grid.width * grid.height)
    fraction = sparse.coo_matrix((share, (rows, cols)), shape=(len(shapes), len(pixels))).tocsr()
    at_row, at_col = np.divmod(pixels, grid.width)
    if not area or not len(pixels):
        weight = np.ones(1)
    elif parse_crs(grid.crs).is_geographic:
        weight = ground_areas(grid, at_row, at_col)
    else:
        weight = ground_areas(grid, at_row[:1], at_col[:1])
    found = Coverage(at_row * stored_width + at_col, fraction, weight, whole)
    mean = np.divide(found.inside, found.share, out=np.zeros(len(whole)), where=found.share > 0)
    return replace(found, whole=whole * mean)


def pooled(covers: Sequence[Coverage]) -> Coverage:
    """Put the pixels of several grids side by side; ``pixels`` are then numbers of no grid."""
    if len(covers) == 1:
        return covers[0]
    return Coverage(
        pixels=np.arange(sum(len(c.pixels) for c in covers)),
        fraction=sparse.hstack([c.fraction for c in covers], format="csr"),
        area=np.concatenate([np.broadcast_to(c.area, len(c.pixels)) for c in covers]),
        whole=np.max([c.whole for c in covers], axis=0),
    )


def _one_turn(grid: SceneGrid) -> SceneGrid:
    """Leave out the columns of an upright grid that show the same ground once more."""
    a, b, _, d, _, _ = grid.transform
    if grid.period is None or b or d:
        return grid
    most = math.floor(grid.period / abs(a) + 1e-3)
    return grid if grid.width <= most else replace(grid, width=most)


def _placed(shapes: Shapes, crs: str, grid: SceneGrid) -> tuple[IntArray, Shapes, FloatArray]:
    """Polygons in columns and rows (counted upwards from the bottom) that meet the grid.

    Each part of a polygon comes for itself, once for every turn that brings it onto the grid.
    Last comes the size of every whole polygon in pixels.
    """
    parts, owner = shapely.get_parts(shapes, return_index=True)
    if not same_crs(crs, grid.crs):
        parts, owner = _projected(*_densified(parts, owner, crs, grid), crs, grid)
    kept = np.isfinite(shapely.bounds(parts)).all(axis=1)
    owner, parts = owner[kept], _areas_only(parts[kept])
    a, b, c, d, e, f = grid.transform
    det = a * e - b * d

    def to_pixels(points: FloatArray, turn: float) -> FloatArray:
        x, y = points[:, 0] + turn - c, points[:, 1] - f
        return np.column_stack([(e * x - b * y) / det, grid.height - (a * y - d * x) / det])

    found: list[tuple[IntArray, Shapes]] = []
    for turn in _turns(parts, grid):
        moved = shapely.transform(parts, lambda p, turn=turn: to_pixels(p, turn))
        low_x, low_y, high_x, high_y = shapely.bounds(moved).T
        meets = (low_x < grid.width) & (high_x > 0) & (low_y < grid.height) & (high_y > 0)
        found.append((owner[meets], moved[meets]))
    size = np.zeros(len(shapes))
    np.add.at(size, owner, shapely.area(parts) / abs(det))
    owner, placed = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.argsort(owner, kind="stable")
    return owner[order], placed[order], size


def _projected(
    parts: Shapes, owner: IntArray, crs: str, grid: SceneGrid
) -> tuple[Shapes, IntArray]:
    """Take polygons to the grid's CRS; where x is periodic, edges never jump a turn.

    Polygons that go around a pole are drawn down to it.
    """
    points, part = shapely.get_coordinates(parts, return_index=True)
    x, y = project(crs, grid.crs, points[:, 0], points[:, 1])
    period = grid.period
    around = np.zeros(len(parts), dtype=bool)
    if period is not None:
        with np.errstate(invalid="ignore"):
            jump = np.nan_to_num(np.round(np.diff(x, prepend=x[:1]) / period))
        starts = np.flatnonzero(np.diff(part, prepend=-1))
        jump[starts] = 0.0
        turns = np.cumsum(jump)
        turns -= turns[starts][np.cumsum(np.diff(part, prepend=-1) > 0) - 1]
        rings, ring_part = shapely.get_rings(parts, return_index=True)
        ends = np.cumsum(shapely.get_num_coordinates(rings))
        firsts = ends - shapely.get_num_coordinates(rings)
        around[ring_part[turns[ends - 1] != turns[firsts]]] = True
        x = np.where(around[part], x, x - period * turns)
    moved = shapely.set_coordinates(parts.copy(), np.column_stack([x, y]))
    for k in np.flatnonzero(around):
        if period == 360.0:
            lon, lat = shapely.get_coordinates(shapely.get_exterior_ring(moved[k])).T
            moved[k] = polygon_on_globe(lon, lat)
    split, which = shapely.get_parts(moved, return_index=True)
    return split, owner[which]


def _turns(shapes: Shapes, grid: SceneGrid) -> list[float]:
    """Shifts by whole turns that bring some polygon to the grid; only 0 if x is not periodic."""
    if grid.period is None or len(shapes) == 0:
        return [0.0]
    a, b, c = grid.transform[:3]
    corners = c + np.array([0.0, a * grid.width, b * grid.height, a * grid.width + b * grid.height])
    low, _, high, _ = shapely.bounds(shapes).T
    first = math.ceil((corners.min() - high.max()) / grid.period)
    last = math.floor((corners.max() - low.min()) / grid.period)
    return [k * grid.period for k in range(first, last + 1)] or [0.0]


def _areas_only(shapes: Shapes) -> Shapes:
    """Make polygons valid that a projection folded, as where an edge runs over a pole."""
    broken = np.flatnonzero(~shapely.is_valid(shapes))
    if len(broken) == 0:
        return shapes
    shapes = shapes.copy()
    for k in broken:
        parts = shapely.get_parts(shapely.get_parts(shapely.make_valid(shapes[k])))
        flat = [p for p in parts if p.geom_type == "Polygon"]
        shapes[k] = shapely.union_all(flat) if flat else shapely.Polygon()
    return shapes


def _densified(
    shapes: Shapes, owner: IntArray, crs: str, grid: SceneGrid
) -> tuple[Shapes, IntArray]:
    """Add vertices until no edge bends by more than a hundredth of a pixel when projected."""
    pixel = math.sqrt(abs(grid.transform[0] * grid.transform[4] - grid.transform[1]
                          * grid.transform[3]))  # fmt: skip
    turn = x_period(crs)
    if turn is not None:
        shapes = shapely.segmentize(shapes, turn / 8)
    finest: FloatArray | None = None
    for _ in range(_DENSIFY_ROUNDS):
        length, bend = _bends(shapes, crs, grid)
        finest = length / _MOST_SEGMENTS if finest is None else finest
        segments = np.sqrt(bend / pixel / _EDGE_TOLERANCE)
        rows = np.flatnonzero((segments > 1.0) & (length > finest))
        if len(rows) == 0:
            break
        shapes = shapes.copy()
        step = np.maximum(length[rows] / np.ceil(segments[rows]), finest[rows])
        shapes[rows] = shapely.segmentize(shapes[rows], step)
    return shapes, owner


def _bends(shapes: Shapes, crs: str, grid: SceneGrid) -> tuple[FloatArray, FloatArray]:
    """Longest edge that bends, and the most that any bends, of each polygon."""
    rings, owner = shapely.get_rings(shapes, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    edge = np.flatnonzero(ring[:-1] == ring[1:])
    middle = (points[edge] + points[edge + 1]) / 2
    x, y = project(crs, grid.crs, points[:, 0], points[:, 1])
    mid_x, mid_y = project(crs, grid.crs, middle[:, 0], middle[:, 1])
    with np.errstate(invalid="ignore"):
        off_x = mid_x - _half_way(x[edge], x[edge + 1], grid.period)
        off_y = mid_y - (y[edge] + y[edge + 1]) / 2
    if grid.period is not None:
        off_x = off_x - grid.period * np.round(off_x / grid.period)
    bend = np.hypot(off_x, off_y)
    bend = np.where(np.isfinite(bend), bend, 0.0)
    row = owner[ring[edge]]
    most, longest = np.zeros(len(shapes)), np.zeros(len(shapes))
    np.maximum.at(most, row, bend)
    np.maximum.at(longest, row, np.hypot(*(points[edge + 1] - points[edge]).T))
    return longest, most


def _half_way(first: FloatArray, second: FloatArray, period: float | None) -> FloatArray:
    step = second - first
    if period is not None:
        step = step - period * np.round(step / period)
    return first + step / 2


def _extract(
    owner: IntArray, placed: Shapes, grid: SceneGrid
) -> tuple[IntArray, IntArray, FloatArray]:
    """Polygon, pixel (row * width + column) and share of every pair that meets."""
    none = np.zeros(0, dtype=np.int64)
    if len(placed) == 0:
        return none, none, np.zeros(0)
    blank = np.broadcast_to(np.zeros((1, 1), dtype=np.uint8), (grid.height, grid.width))
    table = exact_extract(
        NumPyRasterSource(blank), _Shapes(placed), ["cell_id", "coverage"], output="pandas"
    )
    cells = [none if c is None else np.asarray(c, dtype=np.int64) for c in table["cell_id"]]
    shares = [np.zeros(0) if s is None else np.asarray(s) for s in table["coverage"]]
    rows = np.repeat(owner, [len(c) for c in cells])
    cell, share = np.concatenate(cells), np.concatenate(shares).astype(np.float64)
    touched = share > 0
    return (rows, cell, share) if touched.all() else (rows[touched], cell[touched], share[touched])


def _compact(cells: IntArray, count: int) -> tuple[IntArray, NDArray[np.integer[Any]]]:
    """Sort the distinct pixels; return them and each cell's position among them."""
    if len(cells) == 0 or count > _TABLE_PIXELS:
        pixels, at = np.unique(cells, return_inverse=True)
        return pixels, at.astype(np.int32 if len(pixels) < 2**31 else np.int64)
    seen = np.zeros(count, dtype=bool)
    seen[cells] = True
    pixels = np.flatnonzero(seen).astype(np.int64)
    place = np.empty(count, dtype=np.int32)
    place[pixels] = np.arange(len(pixels), dtype=np.int32)
    return pixels, place[cells]


def ground_areas(grid: SceneGrid, rows: IntArray, cols: IntArray) -> FloatArray:
    """Areas of pixels on the ground in square metres, shape as ``rows``.

    For a grid in degrees the area on its ellipsoid (exact for upright grids; Snyder 1987, *Map
    Projections: A Working Manual*, equation 3-12); the part of a pixel beyond a pole has none.
    In a projected CRS all pixels have the same: its own units squared, in metres.
    """
    a, b, _, d, e, f = grid.transform
    cell = abs(a * e - b * d)
    crs = parse_crs(grid.crs)
    unit = crs.axis_info[0].unit_conversion_factor
    if not crs.is_geographic:
        return np.full(np.shape(rows), cell * unit**2)
    height = abs(d) + abs(e)
    middle = f + d * (cols + 0.5) + e * (rows + 0.5)
    north = np.clip((middle + height / 2) * unit, -math.pi / 2, math.pi / 2)
    south = np.clip((middle - height / 2) * unit, -math.pi / 2, math.pi / 2)
    squashed = crs.ellipsoid.inverse_flattening
    flattening = 1.0 / squashed if squashed else 0.0
    square = flattening * (2.0 - flattening)
    radius = crs.ellipsoid.semi_major_metre
    strip = _authalic(np.sin(north), square) - _authalic(np.sin(south), square)
    return np.asarray(radius**2 * (1.0 - square) / 2 * strip * (cell / height) * unit)


def _authalic(sine: FloatArray, square: float) -> FloatArray:
    """Snyder's q(latitude) / (1 - e^2); ``square`` is the squared eccentricity."""
    if square == 0.0:
        return 2.0 * sine
    e = math.sqrt(square)
    return sine / (1.0 - square * sine**2) + np.arctanh(e * sine) / e


def pieces_of(
    pixels: IntArray, grid: SceneGrid, block: tuple[int, int], *, margin: int = 0
) -> list[Piece]:
    """Windows of whole blocks that hold the pixels, each block in one window.

    Parameters
    ----------
    pixels
        row * width + column, in any order, shape (p,).
    grid, block
        Grid of the scene; rows and columns of its blocks.
    margin
        Pixels by which every window is made wider (within the grid).

    Returns
    -------
    list of Piece
        Neighboring blocks are joined into rectangles of up to 4 million pixels.
    """
    if len(pixels) == 0:
        return []
    high, wide = (max(1, min(b, n)) for b, n in zip(block, (grid.height, grid.width), strict=True))
    across = -(-grid.width // wide)
    rows, cols = np.divmod(pixels, grid.width)
    of_pixel = rows // high * across + cols // wide
    touched = np.unique(of_pixel)
    rectangles, member = _rectangles(touched, across, high * wide)
    group = member[np.searchsorted(touched, of_pixel)]
    order = np.argsort(group, kind="stable")
    ends = np.searchsorted(group[order], np.arange(len(rectangles) + 1))
    pieces = []
    for k, (top, left, below, right) in enumerate(rectangles):
        x0, y0 = max(left * wide - margin, 0), max(top * high - margin, 0)
        x1 = min(right * wide + margin, grid.width)
        y1 = min(below * high + margin, grid.height)
        at = order[ends[k] : ends[k + 1]]
        local = (rows[at] - y0) * (x1 - x0) + cols[at] - x0
        whole = at[-1] - at[0] + 1 == len(at) and bool((np.diff(at) == 1).all())
        where = slice(int(at[0]), int(at[-1]) + 1) if whole else at
        pieces.append(Piece((x0, y0, x1 - x0, y1 - y0), where, local))
    return pieces


def _rectangles(
    touched: IntArray, across: int, block_pixels: int
) -> tuple[list[tuple[int, int, int, int]], IntArray]:
    """Join touched blocks along rows, then equal runs downwards; say which holds each block."""
    most = max(1, _WINDOW_PIXELS // block_pixels)
    rows, cols = np.divmod(touched, across)
    breaks = (np.diff(touched) != 1) | (np.diff(rows) != 0)
    starts = np.concatenate([[0], np.flatnonzero(breaks) + 1, [len(touched)]])
    rectangles: list[tuple[int, int, int, int]] = []
    member = np.empty(len(touched), dtype=np.int64)
    above: dict[tuple[int, int], int] = {}
    for start, stop in itertools.pairwise(starts):
        for first in range(int(start), int(stop), most):
            last = min(first + most, int(stop))
            row, left, right = int(rows[first]), int(cols[first]), int(cols[last - 1]) + 1
            k = above.get((left, right), -1)
            if k >= 0:
                top, _, below, _ = rectangles[k]
                if below != row or (row + 1 - top) * (right - left) > most:
                    k = -1
            if k < 0:
                k = len(rectangles)
                rectangles.append((row, left, row + 1, right))
                above[left, right] = k
            else:
                rectangles[k] = (rectangles[k][0], left, row + 1, right)
            member[first:last] = k
    return rectangles, member
