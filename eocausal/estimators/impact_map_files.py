"""Maps of effects as files: a COG with a band for each variable, NetCDF with CF metadata."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import xarray as xr

from eocausal.estimators.impact_map_grid import MapGrid
from eocausal.provenance import atomic_path

__all__ = ["MAP_BANDS", "write_map_cog", "write_map_netcdf"]

MAP_BANDS = (
    "estimate", "std_error", "ci_low", "ci_high", "p_value", "q_value", "q_value_dependent",
    "relative", "relative_low", "relative_high", "n_before", "n_after", "status",
)  # fmt: skip


def write_map_cog(data: xr.Dataset, grid: MapGrid, path: Path) -> Path:
    """Write a cloud-optimised GeoTIFF, north up; the file appears whole or not at all."""
    import rasterio
    from rasterio.shutil import copy as copy_raster

    transform = grid.transform()
    rows, columns, _ = grid.north_up()
    profile = {
        "driver": "GTiff", "width": len(columns), "height": len(rows), "count": len(MAP_BANDS),
        "dtype": "float32", "crs": grid.crs, "transform": transform, "nodata": math.nan,
        "tiled": True, "blockxsize": 256, "blockysize": 256,
    }  # fmt: skip
    with atomic_path(path) as temporary:
        plain = temporary.with_suffix(".plain.tif")
        with rasterio.open(plain, "w", **profile) as sink:
            for band, name in enumerate(MAP_BANDS, start=1):
                values = data[name].to_numpy()[np.ix_(rows, columns)]
                sink.write(values.astype("float32"), band)
                sink.set_band_description(band, name)
        copy_raster(
            plain, temporary, driver="COG", compress="deflate", predictor="yes",
            overview_resampling="nearest",
        )  # fmt: skip
        plain.unlink()
    return path


def write_map_netcdf(data: xr.Dataset, grid: MapGrid, path: Path) -> Path:
    """Write NetCDF-4 with CF metadata; the file appears whole or not at all."""
    from pyproj import CRS

    out = data.copy()
    for name, standard, unit, axis in (
        (grid.rows, "latitude", "degrees_north", "Y"),
        (grid.columns, "longitude", "degrees_east", "X"),
    ):
        if grid.geographic:
            out[name].attrs = {**out[name].attrs, "standard_name": standard, "units": unit}
        out[name].attrs = {**out[name].attrs, "axis": axis}
    out["spatial_ref"] = ((), np.int32(0), CRS.from_user_input(grid.crs).to_cf())
    encoding: dict[str, dict[str, object]] = {
        name: {"zlib": True, "complevel": 4, "dtype": "float32", "_FillValue": np.float32("nan")}
        if out[name].dtype.kind == "f"
        else {"zlib": True, "complevel": 4, "_FillValue": None}
        for name in MAP_BANDS
    }
    for name in MAP_BANDS:
        out[name].attrs["grid_mapping"] = "spatial_ref"
    for name in (grid.rows, grid.columns):
        encoding[name] = {"_FillValue": None}
    with atomic_path(path) as temporary:
        out.to_netcdf(temporary, engine="h5netcdf", encoding=encoding)
    return path
