"""Zones of a grid as series: means over pixels, weighted by the cosine of latitude."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from eocausal.errors import StudyError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.studies.schema_impact import GridSection, ZoneSection

    Bool = NDArray[np.bool_]

__all__ = ["Grid", "open_grid_series", "outside_zones", "zone_pixels", "zone_series"]

LATITUDES = ("lat", "latitude", "y")
LONGITUDES = ("lon", "longitude", "x")


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """A variable over time on a grid in degrees.

    Attributes
    ----------
    values
        (time, y, x).
    dataset
        What it was read from.
    latitude, longitude
        Names of its dimensions.
    """

    values: xr.DataArray
    dataset: xr.Dataset
    latitude: str
    longitude: str

    @property
    def times(self) -> pd.DatetimeIndex:
        """Its times."""
        return pd.DatetimeIndex(self.values.indexes["time"])


def open_grid_series(path: Path, section: GridSection) -> Grid:
    """Open a grid and bring its variable to (time, y, x); longitudes to -180..180.

    Raises
    ------
    StudyError
        If it cannot be read, or has no such variable, no times, or no degrees.
    """
    try:
        found = xr.open_zarr(path) if path.is_dir() else xr.open_dataset(path, engine="h5netcdf")
    except (OSError, ValueError, KeyError) as error:
        raise StudyError(
            f"The grid {path} cannot be read.",
            cause=f"{' '.join(str(error).split())}.",
            next_step="Check that it is a NetCDF-4 file or a Zarr store.",
        ) from error
    if section.variable not in found.data_vars:
        raise StudyError(
            f"The grid {path} has no variable {section.variable!r}.",
            cause=f"It has: {', '.join(map(str, found.data_vars))}.",
            next_step="Correct variable.",
        )
    values = found[section.variable].isel(section.select)
    values = values.squeeze([d for d in values.dims if values.sizes[d] == 1 and d != "time"])
    latitude = next((n for n in LATITUDES if n in values.dims), None)
    longitude = next((n for n in LONGITUDES if n in values.dims), None)
    dated = "time" in values.indexes and isinstance(values.indexes["time"], pd.DatetimeIndex)
    if latitude is None or longitude is None or not dated or values.ndim != 3:
        raise StudyError(
            f"{section.variable!r} of {path} lies on {', '.join(map(str, values.dims))}.",
            cause="A series of zones needs a time with dates, a latitude and a longitude.",
            next_step="Rename the dimensions; choose one of each other dimension with select.",
        )
    return Grid(values.transpose("time", latitude, longitude), found, latitude, longitude)


def zone_pixels(grid: Grid, zone: ZoneSection, root: Path) -> Bool:
    """Return (y, x) True for the pixels of a zone.

    Raises
    ------
    StudyError
        If the zone is empty or its mask does not lie on the grid.
    """
    if zone.mask is not None:
        inside = _by_mask(grid, zone)
    else:
        lat = grid.values[grid.latitude].to_numpy()
        lon = (grid.values[grid.longitude].to_numpy() + 180.0) % 360.0 - 180.0
        inside = _by_shape(zone, root, *np.meshgrid(lat, lon, indexing="ij"))
    if not inside.any():
        raise StudyError(
            f"The zone {zone.model_dump(exclude_none=True)} holds no pixel of the grid.",
            cause="It lies outside the grid, or between the centres of its pixels.",
            next_step="Correct the box, the polygons, or the values of the mask.",
        )
    return inside


def _by_mask(grid: Grid, zone: ZoneSection) -> Bool:
    assert zone.mask is not None
    name = zone.mask.variable
    if name not in grid.dataset or set(grid.dataset[name].dims) != {grid.latitude, grid.longitude}:
        raise StudyError(
            f"The grid has no mask {name!r} over latitude and longitude.",
            cause=f"It has: {', '.join(map(str, grid.dataset.data_vars))}.",
            next_step="Correct mask.variable.",
        )
    codes = grid.dataset[name].transpose(grid.latitude, grid.longitude).to_numpy()
    return np.asarray(np.isin(codes, zone.mask.values))


def _by_shape(
    zone: ZoneSection, root: Path, lat: NDArray[np.float64], lon: NDArray[np.float64]
) -> Bool:
    if zone.box is not None:
        from eocausal.ocean.zones import Box

        return Box(*zone.box).covers(lat, lon)
    import geopandas as gpd
    import shapely

    assert zone.polygons is not None
    places = gpd.read_file(root / zone.polygons.file).to_crs("EPSG:4326")
    for column, value in zone.polygons.where.items():
        if column not in places:
            raise StudyError(
                f"{zone.polygons.file} has no column {column!r}.",
                cause=f"It has: {', '.join(map(str, places.columns))}.",
                next_step="Correct polygons.where.",
            )
        places = places[places[column].astype(str) == value]
    return np.asarray(shapely.contains_xy(places.geometry.union_all(), lon, lat))


def zone_series(grid: Grid, inside: Bool, least_seen: float) -> pd.DataFrame:
    """Return a zone's mean over area and the share of its area that was seen, by time.

    Returns
    -------
    DataFrame
        ``value``, NaN where less than ``least_seen`` was seen, and ``seen`` (0 to 1).
    """
    from eocausal.ocean.zones import zone_means

    where = xr.DataArray(inside, dims=(grid.latitude, grid.longitude))
    found = zone_means(grid.values, where, minimum_coverage=least_seen).frame
    return pd.DataFrame({"value": found["mean"], "seen": found["coverage"]})


def outside_zones(grid: Grid, zones: Bool, least: float) -> pd.DataFrame:
    """Return (time, pixels) the pixels in no zone that are seen at a share of times or more."""
    values = grid.values.to_numpy().astype(float)
    seen = np.isfinite(values).mean(0)
    rows, columns = np.nonzero(~zones & (seen >= least))
    lat, lon = (grid.values[n].to_numpy() for n in (grid.latitude, grid.longitude))
    names = [f"{lat[r]:.3f}, {lon[c]:.3f}" for r, c in zip(rows, columns, strict=True)]
    return pd.DataFrame(values[:, rows, columns], index=grid.times, columns=names)
