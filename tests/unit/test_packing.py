"""Stored numbers: what any Zarr and CF reader sees equals what open_cube gives."""

import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from ingest_helpers import chips, write_tif
from test_gather import GRID, UTM, places_on

from eocausal.ingest.composites import Median
from eocausal.ingest.packing import Packing
from eocausal.ingest.resample import Bilinear
from eocausal.ingest.store import open_cube

SPOT = (300, 200)


def tagged(path, values, *, scale=1.0, offset=0.0, **profile):
    write_tif(path, values, UTM, GRID, names=["a"], **profile)
    with rasterio.open(path, "r+") as target:
        target.scales, target.offsets = (scale,), (offset,)
    return path


def ends(kind: str, nodata) -> np.ndarray:
    """Every corner of a type but its nodata, and nodata itself."""
    info = np.iinfo(kind)
    values = np.random.default_rng(0).integers(info.min, info.max + 1, (1, 480, 640)).astype(kind)
    values[0, 200, 300:304] = info.min, info.min + 1, info.max - 1, info.max
    if nodata is not None:
        values[0, 201, 300] = nodata
    return values


KINDS = {
    "uint16 nodata 0": ("uint16", 0, 1.0, 0.0, "uint16", 0),
    "uint16 nodata 65535": ("uint16", 65535, 1.0, 0.0, "uint16", 65535),
    "uint16 reflectance": ("uint16", 0, 2.75e-5, -0.2, "uint16", 0),
    "int16 nodata -9999": ("int16", -9999, 1.0, 0.0, "int16", -9999),
    "int16 index": ("int16", -32768, 1e-4, 0.0, "int16", -32768),
    "uint8 nodata 255": ("uint8", 255, 1.0, 0.0, "uint8", 255),
    "uint8 without nodata": ("uint8", None, 1.0, 0.0, "int16", -32768),
    "int8 without nodata": ("int8", None, 0.5, 3.0, "int16", -32768),
    "uint16 without nodata": ("uint16", None, 1.0, 0.0, "float32", None),
    "int16 without nodata": ("int16", None, 1.0, 0.0, "float32", None),
    "uint16 with nodata beyond it": ("uint16", None, 1.0, 0.0, "float32", None),
    "int32": ("int32", -1, 1.0, 0.0, "float32", None),
}


@pytest.mark.parametrize("kind", KINDS, ids=list(KINDS))
def test_any_reader_sees_the_same_values(tmp_path, kind):
    dtype, nodata, scale, offset, stored, fill = KINDS[kind]
    values = ends(dtype, nodata)
    tag = {} if nodata is None else {"nodata": nodata}
    path = tagged(tmp_path / "s.tif", values, scale=scale, offset=offset, **tag)
    options = {"scan": {"nodata": 70_000.0}} if "beyond" in kind else {}
    cube = chips(tmp_path, places_on(GRID, SPOT), path, bands=["a"], resolution=30.0, size=32,
                 **options)  # fmt: skip
    raw = zarr.open_array(tmp_path / "cube.zarr/image", mode="r")
    assert raw.dtype == stored
    there = values[0, 184:216, 284:316].astype(np.float64)
    truth = there * scale + offset
    if nodata is not None:
        truth[there == nodata] = np.nan
    exact = 1e-6 if dtype != "int32" else 1e-7
    got = cube["image"].values[0, 0, 0]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, truth, rtol=exact, atol=exact * abs(offset))
    plain = xr.open_zarr(tmp_path / "cube.zarr", consolidated=False)["image"].values[0, 0, 0]
    np.testing.assert_allclose(plain, truth, rtol=exact, atol=exact * abs(offset))
    if fill is None:
        assert raw.attrs.get("_FillValue") is None
    else:
        assert raw.fill_value == fill
        np.testing.assert_array_equal(raw[0, 0, 0] == fill, np.isnan(truth))
        np.testing.assert_array_equal(raw[0, 0, 0][np.isfinite(truth)],
                                      there[np.isfinite(truth)])  # fmt: skip


def test_types_or_scales_that_differ_are_kept_as_floats(tmp_path):
    for k, (kind, scale) in enumerate([("uint16", 1.0), ("uint8", 1.0), ("uint16", 0.5)]):
        values = np.full((1, 480, 640), 100 + k, dtype=kind)
        tagged(tmp_path / f"in/{k}_200{k + 1}.tif", values, scale=scale, nodata=0)
    for chosen in ([0, 1], [0, 2]):
        files = [tmp_path / f"in/{k}_200{k + 1}.tif" for k in chosen]
        cube = chips(tmp_path / str(chosen), places_on(GRID, SPOT), files, bands=["a"],
                     resolution=30.0, size=8, periods=[f"200{k + 1}" for k in chosen])  # fmt: skip
        assert open_cube(tmp_path / str(chosen) / "cube.zarr")["image"].dtype == np.float32
        store = zarr.open_array(tmp_path / str(chosen) / "cube.zarr/image", mode="r")
        assert store.dtype == np.float32
        assert cube["image"].values[0, :, 0, 0, 0].tolist() == [100, [101, 51][chosen[1] - 1]]


@pytest.mark.parametrize("looks", [1, 2])
def test_a_value_between_pixels_is_never_taken_for_nodata(tmp_path, looks):
    """Between 4 and 6 lies 5, which means nodata here: the pixel is there all the same."""
    values = np.full((1, 480, 640), 4, dtype="int16")
    values[0, :, 1::2] = 6
    if looks == 1:
        write_tif(tmp_path / "in/s.tif", values, UTM, GRID, names=["a"], nodata=5)
        spot = (300.5, 200)
    else:
        for k in (4, 6):
            write_tif(tmp_path / f"in/{k}.tif", np.full_like(values, k), UTM, GRID, names=["a"],
                      nodata=5)  # fmt: skip
        spot = SPOT
    cube = chips(tmp_path, places_on(GRID, spot), tmp_path / "in", bands=["a"], resolution=30.0,
                 size=16, resampling=Bilinear(), composite=Median())  # fmt: skip
    assert cube["valid"].values.tolist() == [[1.0]]
    image = cube["image"].values
    assert np.isin(image, (4, 6)).all()


@pytest.mark.parametrize("packing", [
    Packing("uint16", 0, 1e-4, -0.1), Packing("int16", -9999, 0.01, 0.0),
    Packing("uint8", 255), Packing("int16", -32768, 2.0, 5.0),
], ids=str)  # fmt: skip
def test_packed_values_come_back(packing):
    """To within half a step, or a whole one beside the number that means missing."""
    info = np.iinfo(packing.name)
    rng = np.random.default_rng(0)
    numbers = rng.uniform(info.min, info.max, 5000)
    numbers[:200] = packing.fill + np.linspace(-2, 2, 200)
    numbers = np.clip(numbers, info.min + (packing.fill == info.min),
                      info.max - (packing.fill == info.max))  # fmt: skip
    values = (numbers * packing.scale + packing.offset).astype(np.float32)
    values[::7] = np.nan
    stored = packing.pack(values)
    assert stored.dtype == packing.dtype
    np.testing.assert_array_equal(stored == packing.fill, np.isnan(values))
    kept = np.isfinite(values)
    away = np.abs(stored[kept].astype(float) - numbers[kept])
    assert away.max() <= 1.02
    assert away[np.abs(numbers[kept] - packing.fill) > 1].max() <= 0.52
