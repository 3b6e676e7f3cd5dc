"""Outlines on the globe.

Rings that cross the antimeridian or enclose a pole are split as RFC 7946 asks, so that every
longitude lies in -180..180 and every geometry is valid.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.affinity import translate
from shapely.ops import unary_union

from eocausal.ingest.grid import WGS84, SceneGrid, parse_crs, project

__all__ = ["polygon_on_globe", "scene_footprint", "square_ring"]

FloatArray = NDArray[np.float64]


def square_ring(steps: int) -> tuple[FloatArray, FloatArray]:
    """Ring around the square (0, 0)..(1, 1), closed, with ``steps`` segments on each side."""
    ahead = np.arange(steps) / steps
    zero, one = np.zeros(steps), np.ones(steps)
    u = np.concatenate([ahead, one, 1.0 - ahead, zero, [0.0]])
    v = np.concatenate([zero, ahead, one, 1.0 - ahead, [0.0]])
    return u, v


def polygon_on_globe(lon: FloatArray, lat: FloatArray) -> Any:
    """Polygon of a closed ring in degrees, cut at the antimeridian if the ring crosses it.

    Neighboring vertices are taken to be less than half a turn apart. A ring that goes once around
    the Earth is taken to enclose the pole on its side of the equator.

    Returns
    -------
    shapely Polygon or MultiPolygon
        Longitudes within -180..180.
    """
    turns = np.diff(lon)
    turns = turns - 360.0 * np.round(turns / 360.0)
    lon = lon[0] + np.concatenate([[0.0], np.cumsum(turns)])
    if abs(lon[-1] - lon[0]) > 180.0:
        pole = 90.0 if lat.mean() > 0 else -90.0
        lon = np.concatenate([lon, [lon[-1], lon[0], lon[0]]])
        lat = np.concatenate([lat, [pole, pole, lat[0]]])
    return _cut(shapely.make_valid(shapely.Polygon(np.column_stack([lon, lat]))))


def _cut(shape: Any) -> Any:
    """Cut a shape with continuous longitudes at the antimeridian; keep its polygons only."""
    low, _, high, _ = shape.bounds
    if low >= -180.0 and high <= 180.0:
        return shape
    pieces = []
    for turn in range(int((low + 180.0) // 360.0), int((high + 180.0) // 360.0) + 1):
        box = shapely.box(360.0 * turn - 180.0, -90.0, 360.0 * turn + 180.0, 90.0)
        piece = translate(shape.intersection(box), xoff=-360.0 * turn)
        pieces += [p for p in shapely.get_parts(piece) if p.geom_type == "Polygon" and p.area > 0]
    return unary_union(pieces)


def scene_footprint(grid: SceneGrid) -> Any:
    """Outline of a scene in EPSG:4326, with 16 points a side.

    Where part of the outline has no longitude and latitude (a full-disc image), the box around
    the points inside that have one is given instead.
    """
    a, b, c, d, e, f = grid.transform

    def place(u: FloatArray, v: FloatArray) -> tuple[FloatArray, FloatArray]:
        cols, rows = u * grid.width, v * grid.height
        return a * cols + b * rows + c, d * cols + e * rows + f

    x, y = place(*square_ring(16))
    if parse_crs(grid.crs).is_geographic and grid.period == 360.0:
        lat = np.clip(project(grid.crs, WGS84, x, y)[1], -90.0, 90.0)
        return _cut(shapely.make_valid(shapely.Polygon(np.column_stack([x, lat]))))
    lon, lat = project(grid.crs, WGS84, x, y)
    if np.isfinite(lon).all() and np.isfinite(lat).all():
        return polygon_on_globe(lon, lat)
    steps = (np.arange(64) + 0.5) / 64
    lon, lat = project(grid.crs, WGS84, *place(*(m.ravel() for m in np.meshgrid(steps, steps))))
    known = np.isfinite(lon) & np.isfinite(lat)
    if not known.any():
        return shapely.Polygon()
    return shapely.box(lon[known].min(), lat[known].min(), lon[known].max(), lat[known].max())
