"""Ingestion of real rasters that break readers, checked against the files themselves."""

import numpy as np
import pandas as pd
import pytest
import rasterio
from ingest_helpers import chips, own_coordinates, places_at
from rasterio.warp import transform as warp_transform

from eocausal.ingest.cube import build_cube
from eocausal.ingest.places import read_neighborhoods
from eocausal.ingest.resample import Nearest
from eocausal.ingest.sources import scan
from eocausal.provenance import FailureLedger

pytestmark = pytest.mark.realdata

# file, places (lon, lat) on it, pixel of the chip in metres
EDGE_CASES = [
    ("utm.tif", [(-78.65, 41.06), (-78.7, 41.0)], 60.0),
    ("nz_habitat_anticross_4326_1deg.tif", [(179.9, -40.5), (-179.8, -41.2), (174.0, -41.0)], 2e4),
    ("bremen_sea_ice_conc_2022_9_9.tif", [(0.0, -89.99), (45.0, -70.0), (179.95, -71.0)], 3e3),
    ("nt_20201024_f18_nrt_s.tif", [(10.0, -65.0), (-120.0, -72.0), (180.0, -78.5)], 1e4),
    ("GeogToWGS84GeoKey5.tif", [(9.0, 52.0)], 1.0),
    ("gpm_1d.20240617.tif", [(-178.9, 40.0), (-60.0, 25.0)], 5e3),
    ("wind_direction.tif", [(147.0, -32.0)], 2e3),
    ("gfw-azores.tif", [(-27.0, 38.8)], 4e3),
    ("gadas-cyprus.tif", [(33.0, 35.0)], 300.0),
]


@pytest.mark.parametrize(("name", "points", "pixel"), EDGE_CASES, ids=[c[0] for c in EDGE_CASES])
def test_chip_equals_the_pixels_under_it(tmp_path, real_data, name, points, pixel):
    """Every chip pixel is the source pixel that GDAL's own transform finds under its centre."""
    path = real_data("edge_cases") / name
    cube = chips(tmp_path, places_at(*points), path, bands=["b1"], resolution=pixel, size=24,
                 resampling=Nearest())  # fmt: skip
    with rasterio.open(path) as source:
        data, nodata, crs = source.read(1).astype(float), source.nodata, source.crs
        opaque = source.dataset_mask() > 0 if source.count == 4 else np.ones(data.shape, bool)
        inverse = ~source.transform
    if nodata is not None:
        data[data == nodata] = np.nan
    data[~opaque] = np.nan
    data = data.astype("float32").astype(float)
    compared = 0
    for k in range(len(points)):
        own, x, y = own_coordinates(cube, k)
        xs, ys = warp_transform(own, crs, x.ravel(), y.ravel())
        cols, rows = inverse @ (np.array(xs), np.array(ys))
        if crs.is_geographic:
            cols = cols % (360.0 * inverse.a)
        got = cube["image"].values[k, 0, 0].ravel()
        sure = (np.abs(cols % 1 - 0.5) < 0.49) & (np.abs(rows % 1 - 0.5) < 0.49)
        sure &= (cols >= 0) & (cols < data.shape[1]) & (rows >= 0) & (rows < data.shape[0])
        want = data[rows[sure].astype(int), cols[sure].astype(int)]
        np.testing.assert_array_equal(got[sure], want)
        compared += int(sure.sum())
    assert compared > 0.9 * len(points) * 24 * 24


def test_uganda_chips_equal_their_files(tmp_path, real_data):
    folder = real_data("uganda_yop")
    places = read_neighborhoods(folder / "images_index.csv", id="image_key")
    ledger = FailureLedger()
    scenes = scan(
        folder / "tif",
        bands=["swir2", "nir", "green"],
        neighborhood_pattern=r"key_0*(?P<neighborhood>\d+)",
        ledger=ledger,
    )
    assert len(scenes) == len(places) == 327
    cube = build_cube(places, scenes, bands=["green", "nir", "swir2"], resolution=14.25, size=35,
                      out=tmp_path / "cube.zarr", ledger=ledger)  # fmt: skip
    assert ledger.rows == []
    assert (cube.status.values == 0).all()
    image = cube["image"].sel(neighborhood=places.index).values[:, 0]
    for k, key in enumerate(places.index):
        with rasterio.open(folder / "tif" / f"key_{key:03d}.tif") as source:
            np.testing.assert_array_equal(image[k], source.read([3, 2, 1]))


def test_uganda_files_of_neighbors_overlap(tmp_path, real_data):
    """Without the tie between file and place, overlapping files would be mixed."""
    folder = real_data("uganda_yop")
    places = read_neighborhoods(folder / "images_index.csv", id="image_key").loc[[228, 229]]
    scenes = scan([folder / "tif/key_228.tif", folder / "tif/key_229.tif"])
    mixed = build_cube(places, scenes, bands=[scenes.bands[0][0]], resolution=14.25, size=35,
                       out=tmp_path / "m.zarr")["image"].values  # fmt: skip
    for k, key in enumerate(places.index):
        with rasterio.open(folder / "tif" / f"key_{key}.tif") as source:
            own = source.read(1)
        assert np.isfinite(mixed[k]).all()
        if not np.array_equal(mixed[k, 0, 0], own):
            return
    pytest.fail("the two files are the same where they overlap: this test says nothing")


def test_pucallpa_years(tmp_path, real_data):
    folder = real_data("landsat_pucallpa")
    scenes = scan(folder, bands=["swir1", "nir", "red", "green"])
    assert scenes["time"].dt.year.tolist() == [1985, 1990, 1995, 2000, 2005, 2010, 2015, 2020]
    assert scenes["time_end"].dt.strftime("%Y-%m-%d").tolist()[0] == "1985-12-31"
    places = places_at((-74.55, -8.38), (-74.6, -8.4))
    cube = build_cube(places, scenes, bands=["nir", "red"], resolution=90.0, size=32,
                      periods=["1985/1990", "2018/2020", "2020", "1986"],
                      out=tmp_path / "c.zarr", max_failed=0.3)  # fmt: skip
    assert cube.last_date.values.tolist() == ["1990-12-31", "2020-12-31", "2020-12-31", ""]
    assert (cube.status.values[:, :3] == 0).all()
    assert (cube.status.values[:, 3] == 4).all()
    np.testing.assert_array_equal(cube["image"].values[:, 1], cube["image"].values[:, 2])


def test_bluemarble_before_the_projects(tmp_path, real_data):
    path = real_data("bluemarble") / "bluemarble_2004_africa.tif"
    table = pd.DataFrame({"lon": [32.5, -1.2, 18.4], "lat": [0.3, 6.7, -33.9]})
    places = read_neighborhoods(table, size_m=100_000)
    cube = build_cube(places, scan(path), bands=["b1", "b2", "b3"], resolution=9_800.0,
                      out=tmp_path / "c.zarr")  # fmt: skip
    assert cube.sizes["x"] == 11
    assert cube.last_date.values.tolist() == ["2004-12-31"]
    assert float(cube.valid.min()) == 1.0
