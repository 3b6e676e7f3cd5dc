"""Real GeoTIFFs for the tests of ingestion, among them scenes that hold their own coordinates."""

import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning

from eocausal.ingest.cube import build_cube
from eocausal.ingest.grid import project
from eocausal.ingest.places import read_neighborhoods
from eocausal.ingest.sources import scan


def write_tif(path: Path, values, crs, transform, *, names=None, tags=None, **profile) -> Path:
    """Write an array (band, h, w) as a GeoTIFF."""
    values = np.asarray(values)
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {
        "driver": "GTiff",
        "count": values.shape[0],
        "height": values.shape[1],
        "width": values.shape[2],
        "dtype": values.dtype,
        "crs": crs,
        "transform": transform,
        **profile,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **options) as target:
            target.write(values)
            if names:
                target.descriptions = tuple(names)
            if tags:
                target.update_tags(**tags)
    return path


def coordinates_of(transform: Affine, width: int, height: int) -> np.ndarray:
    """Return the coordinates of the pixel centres, float64 (2, h, w)."""
    cols, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    a, b, c, d, e, f = transform[:6]
    return np.stack([a * cols + b * rows + c, d * cols + e * rows + f])


def write_coordinates(path: Path, crs, transform: Affine, width: int, height: int, **kw) -> Path:
    """Write a scene whose two bands are the x and y of each pixel's centre in its own CRS."""
    values = coordinates_of(transform, width, height)
    return write_tif(path, values, crs, transform, names=["x", "y"], **kw)


def centred(crs, lon, lat, pixel, width, height, *, angle=0.0) -> Affine:
    """Transform of a scene around a place, optionally rotated about it."""
    x, y = (float(v) for v in project("EPSG:4326", crs, lon, lat))
    corner = Affine.translation(-width * pixel / 2, height * pixel / 2)
    return Affine.translation(x, y) @ Affine.rotation(angle) @ corner @ Affine.scale(pixel, -pixel)


def places_at(*points, size_m=None, ids=None) -> gpd.GeoDataFrame:
    """Neighborhoods at (lon, lat) points."""
    import pandas as pd

    table = pd.DataFrame(points, columns=["lon", "lat"], dtype=float)
    table["neighborhood"] = ids or [f"n{i}" for i in range(len(points))]
    return read_neighborhoods(table, size_m=size_m)


def chips(tmp_path: Path, places, files, *, resolution, size, bands=("x", "y"), **options):
    """Scan files and build a cube of them; its rows come in the order of the places."""
    scenes = scan(files, **options.pop("scan", {}))
    cube = build_cube(
        places,
        scenes,
        bands=bands,
        resolution=resolution,
        size=size,
        out=tmp_path / "cube.zarr",
        **{"max_failed": 1.0, **options},
    )
    integer = places.index.inferred_type == "integer"
    return cube.sel(neighborhood=places.index if integer else places.index.astype(str))


def own_coordinates(cube, neighborhood=0) -> tuple[str, np.ndarray, np.ndarray]:
    """Coordinates of a chip's pixel centres from what the cube says of itself."""
    chip = cube.isel(neighborhood=neighborhood)
    a, b, c, d, e, f = chip["transform"].values
    size = cube.sizes["x"]
    cols, rows = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    return str(chip["crs"].values), a * cols + b * rows + c, d * cols + e * rows + f


def misplacement(cube, scene_crs, *, neighborhood=0, period=0, turn=None) -> np.ndarray:
    """How far the x and y held by each pixel are from where the pixel is, in the scene's CRS."""
    crs, x, y = own_coordinates(cube, neighborhood)
    true = np.stack(project(crs, scene_crs, x, y))
    held = cube["image"].isel(neighborhood=neighborhood, period=period).values.astype(float)
    error = held - true
    if turn is not None:
        error[0] -= turn * np.round(error[0] / turn)
    return np.abs(error)
