"""Places as shapes on a flat local map, and the colors of their values.

Both the interactive and the static map are drawn from these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from eocausal.effects import Status
from eocausal.errors import CRSError

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    from numpy.typing import NDArray

    from eocausal.effect_map import EffectMap

__all__ = ["NO_ESTIMATE", "ColorScale", "PlaceLayers", "color_scale", "place_layers"]

NO_ESTIMATE = "#b9bfc5"
MAX_VERTICES = 250_000
MIN_VISIBLE = 0.008
COLORS = 64

_SEQUENTIAL = {"estimate": "YlGnBu", "std_error": "YlOrBr", "support": "BuPu"}


@dataclass(frozen=True, slots=True, eq=False)
class PlaceLayers:
    """Places in kilometres east and north of the middle of the map.

    Attributes
    ----------
    x, y
        (n,) center of each place; NaN where it has no position.
    polygons
        Per row of ``area_rows``, its polygons, each a list of (k, 2) rings, outer ring first.
    hatched
        Polygons of the union of areas outside the area of applicability, for one hatching.
    mark_rows
        Rows drawn as marks: points, or areas too small to be seen on the whole map.
    extrapolated
        (n,) True outside the area of applicability.
    mark_size
        Diameter of a mark in pixels.
    size_km
        Width and height of the map.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    polygons: dict[int, list[list[NDArray[np.float64]]]]
    hatched: list[list[NDArray[np.float64]]]
    mark_rows: list[int]
    extrapolated: NDArray[np.bool_]
    mark_size: float
    size_km: tuple[float, float]

    @property
    def area_rows(self) -> list[int]:
        """Rows drawn as areas."""
        return list(self.polygons)

    def rings(self, row: int) -> list[NDArray[np.float64]]:
        """Return all rings of a place."""
        return [ring for polygon in self.polygons[row] for ring in polygon]


@dataclass(frozen=True, slots=True)
class ColorScale:
    """Colors from ``low`` to ``high``; ``extend`` says at which end values go beyond them."""

    palette: tuple[str, ...]
    low: float
    high: float
    extend: str = "neither"


def local_projection(table: gpd.GeoDataFrame) -> str:
    """Return an equal-area projection centerd on the places, in kilometres, as a PROJ string."""
    import pyproj

    where = table.geometry[~(table.geometry.is_empty | table.geometry.isna())]
    if not len(where):
        raise CRSError(
            "No place of the map has a geometry.",
            cause="There is nothing to draw.",
            next_step="Look at the geometry column of the effect map.",
        )
    middle = where.representative_point()
    to_degrees = pyproj.Transformer.from_crs(table.crs, "EPSG:4326", always_xy=True)
    lon, lat = (np.asarray(v) for v in to_degrees.transform(middle.x, middle.y))
    turn = np.deg2rad(lon)
    lon_0 = math.degrees(math.atan2(np.sin(turn).mean(), np.cos(turn).mean()))
    lat_0 = (lat.min() + lat.max()) / 2
    return f"+proj=laea +lon_0={lon_0:.4f} +lat_0={lat_0:.4f} +datum=WGS84 +units=km"


def place_layers(effect_map: EffectMap) -> PlaceLayers:
    """Project, simplify and round the places of a map so that many can be drawn.

    Areas are simplified to about a third of a pixel of a map 1,000 pixels wide, and further if
    they have more than 250,000 vertices together.

    Raises
    ------
    CRSError
        If no place has a geometry.
    """
    import shapely

    table = effect_map.table
    shapes = table.geometry.to_crs(local_projection(table)).to_numpy()
    present = ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
    inner = np.where(present, shapely.point_on_surface(shapes), None)
    x, y = shapely.get_x(inner), shapely.get_y(inner)
    low_x, low_y, high_x, high_y = shapely.total_bounds(shapes[present])
    size = (float(high_x - low_x), float(high_y - low_y))
    extent = max(*size, 1e-3)
    digits = max(0, math.ceil(math.log10(20_000 / extent)))
    area = np.where(present, np.nan_to_num(shapely.area(shapes)), 0.0)
    has_area = area > 0
    seen = has_area.any() and np.median(np.sqrt(area[has_area])) >= MIN_VISIBLE * extent
    drawn = has_area if seen else np.zeros_like(has_area)
    shapes = _simplify(shapes, drawn, extent / 3000)
    polygons = {int(i): _polygons(shapes[i], digits) for i in np.flatnonzero(drawn)}
    extrapolated = (table["status"].astype(str) == Status.EXTRAPOLATED).to_numpy()
    n = len(table)
    return PlaceLayers(
        x=np.round(x, digits),
        y=np.round(y, digits),
        polygons=polygons,
        hatched=_polygons(shapely.union_all(shapes[drawn & extrapolated]), digits),
        mark_rows=[int(i) for i in np.flatnonzero(present & ~drawn)],
        extrapolated=extrapolated,
        mark_size=10.0 if n <= 300 else (7.0 if n <= 2000 else 4.5),
        size_km=size,
    )


def _simplify(
    shapes: NDArray[np.object_], drawn: NDArray[np.bool_], tolerance: float
) -> NDArray[np.object_]:
    import shapely

    out = shapes.copy()
    if not drawn.any():
        return out
    out[drawn] = shapely.simplify(shapes[drawn], tolerance)
    while int(shapely.get_num_coordinates(out[drawn]).sum()) > MAX_VERTICES:
        before = int(shapely.get_num_coordinates(out[drawn]).sum())
        tolerance *= 2
        out[drawn] = shapely.simplify(shapes[drawn], tolerance)
        if int(shapely.get_num_coordinates(out[drawn]).sum()) == before:
            break
    return out


def _polygons(shape: Any, digits: int) -> list[list[NDArray[np.float64]]]:
    """Return the rings of each polygon, outer ones counter-clockwise and holes clockwise."""
    import shapely
    from shapely.geometry.polygon import orient

    parts = [p for p in shapely.get_parts(shape) if p.geom_type == "Polygon" and not p.is_empty]
    out = []
    for part in parts:
        turned = orient(part)
        rings = [turned.exterior, *turned.interiors]
        out.append([np.round(shapely.get_coordinates(ring), digits) + 0.0 for ring in rings])
    return out


def color_scale(table: pd.DataFrame, column: str) -> ColorScale:
    """Choose colors for a column: diverging around zero if the signs differ, else sequential.

    The range is that of the places inside the area of applicability, so that an extrapolation
    cannot wash out the rest; values beyond it take the color of the nearer end.

    Parameters
    ----------
    table
        Table of an effect map.
    column
        ``'estimate'``, ``'std_error'`` or ``'support'``.
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    values = table[column].to_numpy(float)
    inside = np.isfinite(values) & (table["status"].astype(str) != Status.EXTRAPOLATED).to_numpy()
    core = values[inside] if inside.any() else values[np.isfinite(values)]
    low, high = (float(core.min()), float(core.max())) if core.size else (0.0, 1.0)
    positions = np.linspace(0.06, 0.96, COLORS)
    if column == "support":
        low, high = min(0.0, low), max(1.0, high)
    if column == "estimate" and low < 0 < high:
        low, high = -max(-low, high), max(-low, high)
        name = "RdBu"
    else:
        name = _SEQUENTIAL[column]
        if column == "estimate" and high <= 0:
            positions = positions[::-1]
    if not high > low:
        pad = abs(low) * 0.05 or 1.0
        low, high = low - pad, high + pad
    below, above = bool(np.nanmin(values, initial=low) < low), bool(
        np.nanmax(values, initial=high) > high
    )  # fmt: skip
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]
    palette = tuple(to_hex(colormaps[name](p)) for p in positions)
    return ColorScale(palette, low, high, extend)
