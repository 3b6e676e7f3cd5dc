"""Salience as georeferenced files: a GeoTIFF per neighborhood and a table of them."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from eocausal.contracts import check_cube, check_same_neighborhoods
from eocausal.errors import CubeError, EncoderError
from eocausal.provenance import atomic_path

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["write_salience"]

MANIFEST: Final = "manifest.csv"
_COLUMNS: Final = ("neighborhood", "file", "crs", "lon", "lat", "score", "target", "method",
                   "units")  # fmt: skip


def write_salience(salience: xr.DataArray, cube: xr.Dataset, folder: Path | str) -> Path:
    """Write one GeoTIFF per neighborhood, on the grid of its chip, and ``manifest.csv``.

    Files are float32, deflated, nodata NaN, one band per period, described by its label. A file
    is named by the place of its row and by letters and digits of its label, so that no label can
    lead out of the folder. The manifest has the columns neighborhood, file, crs, lon, lat, score
    (of the first period, where each has its own), target, method, units.

    Parameters
    ----------
    salience
        As :func:`eocausal.encoders.salience.salience` gives it.
    cube
        The cube it was computed from, with its coordinates ``crs`` and ``transform``.
    folder
        To be written; it appears whole or not at all. An older one that this function wrote is
        replaced, anything else refused.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    CubeError
        If the cube does not say where its chips are, or chips and maps differ in size.
    AlignmentError
        If a neighborhood is not in the cube.
    EncoderError
        If the folder exists and holds something else.
    """
    folder = Path(folder)
    labels = salience.indexes["neighborhood"]
    check_same_neighborhoods(
        labels, check_cube(cube).indexes["neighborhood"], what="cube", of="salience"
    )
    _check_places(salience, cube)
    _check_free(folder)
    stacked = salience if "period" in salience.dims else salience.expand_dims("period", 1)
    stacked = stacked.transpose("neighborhood", "period", "y", "x")
    places = cube[["crs", "transform"]].sel(neighborhood=labels)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        rows = []
        for i in range(len(labels)):
            one, place = stacked.isel(neighborhood=i), places.isel(neighborhood=i)
            name = _file_name(i, str(labels[i]))
            _write_tiff(temporary / name, one, str(place["crs"].item()), place["transform"])
            rows.append(_record(one, name, str(place["crs"].item())))
        with (temporary / MANIFEST).open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, _COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    return folder


def _check_places(salience: xr.DataArray, cube: xr.Dataset) -> None:
    lacking = [name for name in ("crs", "transform") if name not in cube.coords]
    if lacking:
        raise CubeError(
            f"The cube has no coordinate {' and '.join(map(repr, lacking))}.",
            cause="Without them a map of pixels has no place on Earth.",
            next_step="Build the cube with eocausal.build_cube, or add them.",
        )
    own, chip = ([a.sizes[d] for d in ("y", "x")] for a in (salience, cube))
    if own != chip:
        raise CubeError(
            f"The maps have {own[0]} by {own[1]} pixels, the chips {chip[0]} by {chip[1]}.",
            cause="The grid of a chip places its pixels only.",
            next_step="Give the cube from which the salience was computed.",
        )


def _check_free(folder: Path) -> None:
    """Refuse to replace anything but an older result."""
    if not folder.exists():
        return
    manifest = folder / MANIFEST
    first = manifest.read_text(encoding="utf-8").split("\n", 1)[0] if manifest.is_file() else ""
    if first.strip() != ",".join(_COLUMNS):
        raise EncoderError(
            f"{folder} exists and holds no salience.",
            cause="Writing there would delete it.",
            next_step="Give another folder, or remove it yourself.",
        )


def _file_name(row: int, label: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9]+", "-", label).strip("-")[:60]
    return f"{row:06d}{'_' if safe else ''}{safe}.tif"


def _record(one: xr.DataArray, name: str, crs: str) -> dict[str, Any]:
    known = {
        key: float(np.ravel(one[key].to_numpy())[0])
        for key in ("lon", "lat", "score")
        if key in one.coords
    }
    words = {key: str(one.attrs.get(key, "")) for key in ("target", "method", "units")}
    label = str(one["neighborhood"].item())
    return {"neighborhood": label, "file": name, "crs": crs, **known, **words}


def _write_tiff(path: Path, one: xr.DataArray, crs: str, transform: xr.DataArray) -> None:
    import rasterio

    count, height, width = one.shape
    profile = {
        "driver": "GTiff", "count": count, "height": height, "width": width, "dtype": "float32",
        "crs": crs, "transform": rasterio.Affine(*transform.to_numpy().astype(float)),
        "nodata": float("nan"), "compress": "deflate", "predictor": 3,
    }  # fmt: skip
    periods = one["period"].to_numpy() if "period" in one.coords else ["salience"] * count
    with rasterio.open(path, "w", **profile) as sink:
        sink.write(one.to_numpy().astype(np.float32))
        sink.descriptions = tuple(str(p) for p in periods)
        sink.update_tags(
            neighborhood=str(one["neighborhood"].item()),
            **{key: str(one.attrs.get(key, "")) for key in ("target", "method", "units")},
        )
