"""Image sequences with irregular dates: nothing is filled in, and every chip knows its dates."""

import json

import numpy as np
import pandas as pd
import pytest
import rasterio
from affine import Affine
from ingest_helpers import chips, write_tif
from test_gather import GRID, UTM, noise, places_on

from eocausal.contracts import ChipStatus
from eocausal.ingest.composites import Mean, Median
from eocausal.ingest.cube import build_cube
from eocausal.ingest.masks import CloudProbability, NonZero
from eocausal.ingest.periods import dates_of, period_range
from eocausal.ingest.places import read_neighborhoods
from eocausal.ingest.resample import Nearest
from eocausal.ingest.schedule import Threads
from eocausal.ingest.sources import scan
from eocausal.provenance import hash_tree

DAYS = ["2019-12-30", "2020-01-03", "2020-01-04", "2020-03-17", "2021-07-01"]


def west_and_east(folder):
    """The first scene covers the west alone, the second the east; the others both."""
    for k, day in enumerate(DAYS):
        values = np.full((1, 480, 640), 10 * (k + 1), dtype="uint16")
        if k == 0:
            values[:, :, 320:] = 0
        if k == 1:
            values[:, :, :320] = 0
        write_tif(folder / f"s_{day}.tif", values, UTM, GRID, names=["a"], nodata=0)
    return scan(folder)


def test_each_date_is_a_period_and_gaps_stay_gaps(tmp_path):
    scenes = west_and_east(tmp_path / "in")
    periods = dates_of(scenes)
    assert periods == DAYS
    cube = build_cube(places_on(GRID, (100, 200), (500, 200)), scenes, bands=["a"], size=16,
                      resolution=30.0, periods=periods, out=tmp_path / "c.zarr")  # fmt: skip
    cube = cube.sel(neighborhood=["n000", "n001"])
    assert cube["period"].values.tolist() == DAYS
    assert cube["looks"].values.tolist() == [[1, 0, 1, 1, 1], [0, 1, 1, 1, 1]]
    flat = cube["image"].values[:, :, 0].reshape(2, 5, -1)
    known = np.isfinite(flat)
    np.testing.assert_array_equal(known.all(axis=2), cube["looks"].values == 1)
    np.testing.assert_array_equal(known.any(axis=2), cube["looks"].values == 1)
    for k in range(5):
        assert set(flat[:, k][known[:, k]]) == {10.0 * (k + 1)}
    date = cube["date"].values
    assert np.isnat(date[0, 1])
    assert np.isnat(date[1, 0])
    np.testing.assert_array_equal(date[0, [0, 2, 3, 4]],
                                  np.array(DAYS, "datetime64[ns]")[[0, 2, 3, 4]])  # fmt: skip
    codes = cube["status"].values
    assert codes[0, 1] == codes[1, 0] == ChipStatus.NODATA_ONLY


def test_the_date_of_a_composite_is_the_mean_of_what_each_chip_used(tmp_path):
    scenes = west_and_east(tmp_path / "in")
    cube = build_cube(places_on(GRID, (100, 200), (500, 200)), scenes, bands=["a"], size=16,
                      resolution=30.0, periods=["2019-12-01/2020-01-31", "2020-02", "2020/2021"],
                      composite=Mean(), out=tmp_path / "c.zarr").sel(
        neighborhood=["n000", "n001"]
    )  # fmt: skip
    assert cube["looks"].values.tolist() == [[2, 0, 3], [2, 0, 4]]
    assert cube["status"].values[:, 1].tolist() == [ChipStatus.NO_SOURCE] * 2
    days = pd.to_datetime(DAYS)

    def middle(*which):
        return np.datetime64(days[list(which)].to_series().mean(), "ns")

    date = cube["date"].values
    assert date[0, 0] == middle(0, 2)
    assert date[1, 0] == middle(1, 2)
    assert abs(date[0, 2] - middle(2, 3, 4)) < np.timedelta64(1, "s")
    assert abs(date[1, 2] - middle(1, 2, 3, 4)) < np.timedelta64(1, "s")
    assert np.isnat(date[:, 1]).all()
    image = cube["image"].values[:, :, 0, 0, 0]
    assert image[0].tolist()[0] == 20.0
    np.testing.assert_allclose(image[:, 2], [40.0, 35.0])
    assert cube["last_date"].values.tolist() == ["2020-01-04", "", "2021-07-01"]


def test_passes_within_days_share_a_period(tmp_path):
    scenes = west_and_east(tmp_path / "in")
    assert dates_of(scenes, within=5) == ["2019-12-30/2020-01-04", "2020-03-17", "2021-07-01"]
    cube = build_cube(places_on(GRID, (100, 200)), scenes, bands=["a"], size=8, resolution=30.0,
                      periods=dates_of(scenes, within=5), out=tmp_path / "c.zarr")  # fmt: skip
    assert cube["looks"].values.tolist() == [[2, 1, 1]]


def test_adding_a_scene_leaves_the_other_periods_alone(tmp_path):
    first = west_and_east(tmp_path / "in")
    ask = {"bands": ["a"], "size": 16, "resolution": 30.0}
    places = places_on(GRID, (100, 200), (500, 200))
    before = build_cube(places, first, out=tmp_path / "a.zarr", periods=DAYS, **ask)
    write_tif(tmp_path / "in/s_2020-02-02.tif", noise(0, count=1), UTM, GRID, names=["a"])
    after = build_cube(places, scan(tmp_path / "in"), out=tmp_path / "b.zarr",
                       periods=dates_of(scan(tmp_path / "in")), **ask)  # fmt: skip
    assert after.sizes["period"] == 6
    np.testing.assert_array_equal(
        after["image"].sel(period=DAYS, neighborhood=before["neighborhood"]).values,
        before["image"].values,
    )


# Real sequences


@pytest.mark.realdata
def test_eight_mosaics_of_pucallpa_pixel_by_pixel(tmp_path, real_data):
    """Chips in the mosaics' own degrees are their pixels, for all years in one read."""
    folder = real_data("landsat_pucallpa")
    scenes = scan(folder, bands=["swir1", "nir", "red", "green"])
    with rasterio.open(folder / "1985.tif") as source:
        grid, shape = source.transform, source.shape
        years = {}
    for year in range(1985, 2021, 5):
        with rasterio.open(folder / f"{year}.tif") as source:
            if source.transform == grid:
                years[str(year)] = source.read([2, 3], masked=True).astype(float).filled(np.nan)
    assert len(years) >= 2
    if abs(grid.a + grid.e) > 1e-12 * grid.a:
        pytest.fail("pixels of the mosaics are not square: take another way to compare")
    spots = [(50, 60), (shape[1] // 2, shape[0] // 2), (shape[1] - 20, shape[0] - 20), (5, 5)]
    cube = build_cube(places_on(grid, *spots, crs="EPSG:4326"), scenes, bands=["nir", "red"],
                      crs="EPSG:4326", resolution=grid.a, size=32, periods=list(years),
                      out=tmp_path / "c.zarr")  # fmt: skip
    cube = cube.sel(neighborhood=[f"n{k:03d}" for k in range(4)])
    for p, values in enumerate(years.values()):
        padded = np.pad(values, ((0, 0), (32, 32), (32, 32)), constant_values=np.nan)
        for k, (col, row) in enumerate(spots):
            expected = padded[:, row + 16 : row + 48, col + 16 : col + 48]
            np.testing.assert_array_equal(cube["image"].values[k, p], expected)


@pytest.fixture(scope="module")
def eopatch(tmp_path_factory, real_data):
    """68 real dates of Sentinel-2 as GeoTIFFs with a file each for index, mask and probability."""
    folder = real_data("s2_eopatch")
    out = tmp_path_factory.mktemp("s2")
    stamps = json.loads((folder / "timestamps.json").read_text())
    days = [str(t)[:10] for t in stamps]
    bands = {"ndvi": np.load(folder / "NDVI.npy")[..., 0].astype("float32"),
             "valid": np.load(folder / "IS_DATA.npy")[..., 0].astype("uint8"),
             "clp": np.load(folder / "CLP.npy")[..., 0].astype("float32")}  # fmt: skip
    grid = Affine(10, 0, 465_180, 0, -10, 5_080_260)
    for k, day in enumerate(days):
        for name, values in bands.items():
            write_tif(out / f"T33_{day.replace('-', '')}_{k:02d}_{name}.tif", values[k][None],
                      "EPSG:32633", grid)  # fmt: skip
    scenes = scan(out, item_pattern=r"(?P<item>T33_\d+_\d+)_", band_pattern=r"_(?P<band>[a-z]+)\.")
    return scenes, days, bands, grid


@pytest.mark.realdata
def test_a_dense_real_series_date_by_date(tmp_path, eopatch):
    """Every date of NDVI, with and without its cloud mask, equals the array it came from."""
    scenes, days, bands, grid = eopatch
    periods = dates_of(scenes)
    assert len(periods) == len(set(days))
    ask = {"bands": ["ndvi"], "resolution": 10.0, "size": 24, "resampling": Nearest(),
           "periods": periods, "max_failed": 1.0}  # fmt: skip
    places = places_on(grid, (50, 50), (20, 70), crs="EPSG:32633")
    masks = [NonZero("valid"), CloudProbability("clp", below=0.4)]
    plain = build_cube(places, scenes, out=tmp_path / "plain.zarr", **ask)
    clear = build_cube(places, scenes, out=tmp_path / "clear.zarr", mask=masks, **ask)
    lost = 0
    for p, period in enumerate(periods):
        own = [k for k, day in enumerate(days) if day == period]
        for k, name in enumerate(("n000", "n001")):
            there = [np.s_[38:62, 38:62], np.s_[58:82, 8:32]][k]
            looks = np.stack([bands["ndvi"][i][there] for i in own])
            seen = np.stack([(bands["valid"][i][there] > 0) & (bands["clp"][i][there] < 0.4)
                             for i in own])  # fmt: skip
            if len(own) > 1:
                continue
            got = plain["image"].sel(neighborhood=name).values[p, 0]
            np.testing.assert_array_equal(got, looks[0])
            got = clear["image"].sel(neighborhood=name).values[p, 0]
            np.testing.assert_array_equal(got, np.where(seen[0], looks[0], np.nan))
            lost += int((~seen[0]).sum())
    assert lost > 1000


@pytest.mark.realdata
def test_real_clouds_change_yearly_medians_and_no_worker_does(tmp_path, eopatch):
    scenes, days, bands, grid = eopatch
    places = places_on(grid, (50, 50), crs="EPSG:32633")
    ask = {"bands": ["ndvi"], "resolution": 10.0, "size": 40, "resampling": Nearest(),
           "periods": period_range("2015", "2017", "year"), "composite": Median(),
           "max_failed": 1.0,
           "mask": [NonZero("valid"), CloudProbability("clp", below=0.4)]}  # fmt: skip
    one = build_cube(places, scenes, out=tmp_path / "one.zarr", scheduler=Threads(1), **ask)
    build_cube(places, scenes, out=tmp_path / "three.zarr", scheduler=Threads(3), **ask)
    assert hash_tree(tmp_path / "one.zarr") == hash_tree(tmp_path / "three.zarr")
    there = np.s_[:, 30:70, 30:70]
    for p, year in enumerate(("2015", "2016", "2017")):
        own = [k for k, day in enumerate(days) if day[:4] == year]
        looks = bands["ndvi"][own][there].astype(float)
        seen = (bands["valid"][own][there] > 0) & (bands["clp"][own][there] < 0.4)
        expected = np.ma.median(np.ma.masked_array(looks, ~seen | ~np.isfinite(looks)), axis=0)
        got = one["image"].values[0, p, 0]
        np.testing.assert_allclose(got, expected.filled(np.nan), atol=1e-6)
        used = int((seen & np.isfinite(looks)).any(axis=(1, 2)).sum())
        assert int(one["looks"].values[0, p]) == used
        assert np.abs(np.nanmedian(looks, axis=0) - got).max() > 0.05 or used == len(own)


@pytest.mark.realdata
def test_tiles_of_uganda_alone_and_together(tmp_path, real_data):
    """A file for each place, read as one shard and as many, gives each place its own file."""
    folder = real_data("uganda_yop")
    keys = list(range(1, 41))
    places = read_neighborhoods(folder / "images_index.csv", id="image_key").loc[keys]
    files = [folder / "tif" / f"key_{k:03d}.tif" for k in keys]
    pattern = {"neighborhood_pattern": r"key_0*(?P<neighborhood>\d+)"}
    cube = chips(tmp_path, places, files, bands=["b1"], resolution=14.25, size=35,
                 scan={**pattern, "bands": ["b1", "b2", "b3"]})  # fmt: skip
    for k, path in enumerate(files):
        with rasterio.open(path) as source:
            np.testing.assert_array_equal(cube["image"].values[k, 0, 0], source.read(1))
