"""Where the pixels of a map are: axes in either direction, longitudes to 360, areas, cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from eocausal.errors import CRSError, CubeError

if TYPE_CHECKING:
    from affine import Affine

__all__ = ["MapGrid", "grid_of"]

Float64 = NDArray[np.float64]
AXES = (("y", "x"), ("lat", "lon"), ("latitude", "longitude"), ("northing", "easting"))
DEGREES = 1e-3  # of a pixel by which steps may differ


@dataclass(frozen=True, slots=True, eq=False)
class MapGrid:
    """Pixel centres of a grid.

    Attributes
    ----------
    rows, columns
        Names of the two dimensions.
    y, x
        Centres as they came: either direction, longitudes to 180 or 360.
    crs
        Coordinate reference system, as text.
    geographic
        Whether x and y are degrees of longitude and latitude.
    """

    rows: str
    columns: str
    y: Float64
    x: Float64
    crs: str
    geographic: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.y), len(self.x)

    def weights(self) -> Float64:
        """Return (H, W) areas of the pixels, of mean one: cosines of latitude, or all equal."""
        by_row = np.cos(np.deg2rad(self.y)) if self.geographic else np.ones(len(self.y))
        return np.repeat((by_row / by_row.mean())[:, None], len(self.x), 1)

    def north_up(self) -> tuple[NDArray[np.int64], NDArray[np.int64], Float64]:
        """Return rows from the north, columns from the west, and the columns' longitudes.

        Longitudes become -180..180, and a whole turn is cut there; a map across the antimeridian
        stays in one piece and goes on beyond 180.
        """
        rows = np.argsort(-self.y, kind="stable")
        x = self.x
        if self.geographic and x.max() > 180.0:
            wrapped = (x + 180.0) % 360.0 - 180.0
            order = np.argsort(wrapped, kind="stable")
            if _is_even(wrapped[order]):
                return rows, order, wrapped[order]
        order = np.argsort(x, kind="stable")
        return rows, order, x[order]

    def transform(self) -> Affine:
        """Return the affine transform of the map with north up.

        Raises
        ------
        CubeError
            If pixels are not evenly spaced.
        """
        from affine import Affine

        rows, _, x = self.north_up()
        y = self.y[rows]
        if len(x) < 2 or len(y) < 2 or not (_is_even(x) and _is_even(-y)):
            raise CubeError(
                "The pixels of the map are not evenly spaced.",
                cause=f"Steps of {self.columns} or {self.rows} differ, or there is only one.",
                next_step="Write NetCDF, which keeps coordinates, or bring the cube to a grid.",
            )
        width, height = (x[-1] - x[0]) / (len(x) - 1), (y[0] - y[-1]) / (len(y) - 1)
        return Affine(width, 0.0, x[0] - width / 2, 0.0, -height, y[0] + height / 2)

    def boxes(self) -> tuple[Float64, Float64]:
        """Return (H, 2) and (W, 2) edges of the pixels, longitudes within 180 where they can be."""
        x = self.x
        if self.geographic and x.min() >= 180.0:
            x = x - 360.0
        return _edges(self.y), _edges(x)


def grid_of(cube: xr.DataArray, crs: str | None = None) -> MapGrid:
    """Read the grid of a cube (time, rows, columns).

    Parameters
    ----------
    crs
        Where the cube does not say, or says it wrongly.

    Raises
    ------
    CubeError
        If the dimensions are not time and two known axes, or have no coordinates.
    CRSError
        If axes are not degrees and no coordinate reference system is given.
    """
    names = next((pair for pair in AXES if set(pair) <= set(cube.dims)), None)
    if names is None or set(cube.dims) != {"time", *names}:
        raise CubeError(
            f"The cube has the dimensions {', '.join(map(str, cube.dims))}.",
            cause=f"A map needs time and one of {', '.join('/'.join(pair) for pair in AXES)}.",
            next_step="Rename the dimensions, and select one band.",
        )
    missing = [name for name in names if name not in cube.coords]
    if missing:
        raise CubeError(
            f"The cube has no coordinates {', '.join(missing)}.",
            cause="Its pixels could not be placed.",
            next_step="Assign them.",
        )
    y, x = (cube[name].to_numpy().astype(float) for name in names)
    found = crs or _own_crs(cube)
    degrees = names[1] in ("lon", "longitude") or "degrees_east" in str(cube[names[1]].attrs)
    if found is None and not degrees:
        raise CRSError(
            "The cube has no coordinate reference system.",
            cause="Neither an attribute crs nor a coordinate spatial_ref says it.",
            next_step="Give it, e.g. crs='EPSG:32651'.",
        )
    if found is None:
        found = "EPSG:4326"
    geographic = degrees if crs is None and degrees else _is_geographic(found)
    return MapGrid(names[0], names[1], y, x, found, geographic)


def _own_crs(cube: xr.DataArray) -> str | None:
    for name in ("spatial_ref", "crs"):
        if name in cube.coords:
            attrs = cube.coords[name].attrs
            if attrs.get("crs_wkt") or attrs.get("spatial_ref"):
                return str(attrs.get("crs_wkt") or attrs["spatial_ref"])
    own: Any = cube.attrs.get("crs")
    return str(own) if own else None


def _is_geographic(crs: str) -> bool:
    from pyproj import CRS
    from pyproj.exceptions import CRSError as Unknown

    try:
        return bool(CRS.from_user_input(crs).is_geographic)
    except Unknown as error:
        raise CRSError(
            f"{crs!r} is not a coordinate reference system.",
            cause=str(error),
            next_step="Give e.g. crs='EPSG:4326'.",
        ) from error


def _is_even(values: Float64) -> bool:
    steps = np.diff(values)
    return bool(len(steps) > 0 and steps.min() > 0 and np.ptp(steps) <= DEGREES * steps.mean() * 10)


def _edges(centres: Float64) -> Float64:
    if len(centres) == 1:
        return np.array([[centres[0] - 0.5, centres[0] + 0.5]])
    middle = (centres[1:] + centres[:-1]) / 2
    ends = np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])
    return np.sort(np.column_stack([ends[:-1], ends[1:]]), axis=1)
