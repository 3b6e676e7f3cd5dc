"""Gridded files of every kind become scenes whose pixels, place and time are those of the file."""

import gc
import json
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from ingest_helpers import places_at

from eocausal.errors import BandError, CRSError, EmptyInputError, IngestError, SceneError
from eocausal.ingest import grid_files
from eocausal.ingest.assets import Asset
from eocausal.ingest.cube import build_cube
from eocausal.ingest.grid import SceneGrid, project
from eocausal.ingest.grids import close_idle, open_grid, scan_grids
from eocausal.ingest.periods import period_range
from eocausal.ingest.resample import Nearest
from eocausal.ingest.sources import SCENE_COLUMNS
from eocausal.ingest.times import parse_period
from eocausal.provenance import FailureLedger

LON, LAT = np.arange(12) * 0.25 + 10.125, np.arange(10) * -0.25 + 4.875
PACKED = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 5.0, "_FillValue": -32767}


@pytest.fixture(autouse=True)
def _nothing_left_open():
    yield
    close_idle()
    assert not grid_files._files
    gc.collect()


def field(steps=4, lon=LON, lat=LAT, seed=0, times=None):
    """Chlorophyll-like data set (time, lat, lon) with holes, in steps of 0.01."""
    rng = np.random.default_rng(seed)
    values = np.round(rng.gamma(2.0, 3.0, (steps, len(lat), len(lon))), 2)
    values[rng.random(values.shape) < 0.2] = np.nan
    times = pd.date_range("2015-01-01", periods=steps, freq="MS") if times is None else times
    coordinates = {"time": times, "lat": ("lat", lat), "lon": ("lon", lon)}
    found = xr.Dataset({"chl": (("time", "lat", "lon"), values)}, coords=coordinates)
    found["lat"].attrs["units"], found["lon"].attrs["units"] = "degrees_north", "degrees_east"
    return found


def write(dataset, path, kind, chunks=None, **encoding):
    """Write a data set as NetCDF-3, NetCDF-4 or Zarr 2 or 3."""
    encoding = {n: dict(e) for n, e in encoding.items()}
    if chunks:
        for name in dataset.data_vars:
            key = "chunksizes" if kind == "nc4" else "chunks"
            if dataset[name].ndim == len(chunks):
                encoding.setdefault(name, {})[key] = chunks
    if kind == "nc3":
        dataset.to_netcdf(path, engine="scipy", format="NETCDF3_64BIT", encoding=encoding)
    elif kind == "nc4":
        dataset.to_netcdf(path, engine="h5netcdf", encoding=encoding)
    else:
        dataset.to_zarr(path, zarr_format=int(kind[-1]), consolidated=False, encoding=encoding)
    return path


def assets(scenes):
    """Turn rows of the table into assets."""
    return [
        Asset(
            row["item"], row["href"],
            SceneGrid(row["scene_crs"], row["transform"], row["width"], row["height"]),
            row["bands"], row["dtype"], row["nodata"], row["scales"], row["offsets"],
            row["block"], int(row["step"]),
        )
        for row in scenes.to_dict("records")
    ]  # fmt: skip


def values_of(asset, box=None, bands=None):
    """Read a window in units, NaN where there is no data."""
    box = box or (0, 0, asset.grid.width, asset.grid.height)
    bands = range(len(asset.bands)) if bands is None else bands
    reader = open_grid(asset)
    try:
        stored, known = reader.read(bands, box)
    finally:
        reader.close()
    assert stored.shape == (len(bands), box[3], box[2])
    assert str(stored.dtype) == asset.dtype
    good = np.isfinite(stored)
    if np.isfinite(asset.nodata):
        good &= stored != np.asarray(asset.nodata, dtype=stored.dtype)
    if known is not None:
        good &= known
    scale, offset = (
        np.array([v[b] for b in bands])[:, None, None] for v in (asset.scales, asset.offsets)
    )
    return np.where(good, stored.astype(float) * scale + offset, np.nan)


def refused(path, **options):
    """Return the reason for which a file is left out."""
    ledger = FailureLedger()
    with pytest.raises((SceneError, BandError, CRSError)):
        scan_grids(path, ledger=ledger, **options)
    assert len(ledger.rows) == 1
    return ledger.rows[0].reason, ledger.rows[0].detail


KINDS = ["nc3", "nc4", "zarr2", "zarr3"]


@pytest.mark.parametrize(
    ("kind", "chunks"),
    [("nc3", None), ("nc4", None)]
    + [(kind, chunks) for kind in KINDS[1:] for chunks in ((1, 4, 5), (3, 4, 5))],
)
def test_every_kind_gives_the_values_that_xarray_decodes(tmp_path, kind, chunks):
    path = write(field(), tmp_path / f"a.{kind}.nc", kind, chunks, chl=PACKED)
    scenes = scan_grids(path)
    assert list(scenes.columns) == [*SCENE_COLUMNS, "geometry"]
    assert scenes["size_bytes"].sum() > 0
    assert set(scenes["step"]) == {0, 1, 2, 3}
    assert scenes["item"].is_unique
    row = scenes.iloc[2]
    assert (row["dtype"], row["nodata"], row["bands"]) == ("int16", -32767.0, ("chl",))
    assert (row["scales"], row["offsets"]) == ((0.01,), (5.0,))
    assert row["scene_crs"] == "EPSG:4326"
    assert row["transform"] == pytest.approx((0.25, 0, 10.0, 0, -0.25, 5.0))
    if chunks:
        assert row["block"] == (4, 5)
    truth = field()["chl"].values
    for step, asset in enumerate(assets(scenes)):
        for box in [(0, 0, 12, 10), (3, 2, 5, 4), (11, 9, 1, 1)]:
            left, top, width, height = box
            expected = truth[step, top : top + height, left : left + width]
            np.testing.assert_allclose(values_of(asset, box), expected[None], atol=1e-9)


def test_sharded_zarr_is_read_by_its_chunks(tmp_path):
    dataset = field(6)
    encoding = {"chl": {"chunks": (2, 5, 4), "shards": (4, 10, 12), **PACKED}}
    dataset.to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False, encoding=encoding)
    scenes = scan_grids(tmp_path)
    assert set(scenes["block"]) == {(5, 4)}
    truth = dataset["chl"].values
    for step, asset in enumerate(assets(scenes)):
        np.testing.assert_allclose(values_of(asset)[0], truth[step], atol=1e-9)


@pytest.mark.parametrize(
    ("lon", "lat"),
    [
        (LON, LAT[::-1]),
        (np.arange(12) * 0.25 + 200.125, LAT),
        (np.arange(-6, 6) * 0.25 % 360, LAT),
        ((np.arange(12) * 0.25 + 178.625 + 180) % 360 - 180, LAT[::-1]),
        (LON[::-1], LAT),
        (LON.astype("float32"), np.float32(LAT)),
        (np.round(np.arange(12) / 12 + 20, 3), np.round(np.arange(10) / -12 + 7, 3)),
    ],
    ids=["south-up", "0..360", "across 0", "across 180", "east-left", "float32", "rounded"],
)
def test_the_transform_describes_the_rows_as_they_are_stored(tmp_path, lon, lat):
    """Each pixel holds its own position; the grid must find it from longitude and latitude."""
    dataset = field(1, lon, lat)
    own = np.add.outer(np.arange(len(lat)) * 100.0, np.arange(len(lon)))
    dataset["chl"] = (("time", "lat", "lon"), own[None])
    (asset,) = assets(scan_grids(write(dataset, tmp_path / "a.nc", "nc4")))
    held = values_of(asset)[0]
    turned = (np.asarray(lon, dtype=float) + 180) % 360 - 180
    x, y = np.meshgrid(turned, np.asarray(lat, dtype=float))
    cols, rows = asset.grid.pixels(x, y)
    assert asset.grid.contains(cols, rows).all()
    np.testing.assert_array_equal(held[rows.astype(int), cols.astype(int)], own)
    assert np.abs(cols - np.floor(cols) - 0.5).max() < 0.05


def test_the_footprint_of_a_grid_across_the_antimeridian_stays_small(tmp_path):
    lon = (np.arange(12) * 0.25 + 178.625 + 180) % 360 - 180
    scenes = scan_grids(write(field(1, lon), tmp_path / "a.nc", "nc4"))
    west, _, east, _ = scenes.total_bounds
    assert (west, east) == (-180.0, 180.0)
    assert scenes.geometry.iloc[0].area == pytest.approx(3.0 * 2.5)


def test_float32_coordinates_give_the_grid_they_were_rounded_from(tmp_path):
    lon, lat = (np.arange(8640) / 24 - 180 + 1 / 48), (90 - 1 / 48 - np.arange(40) / 24)
    dataset = xr.Dataset(
        {"chl": (("lat", "lon"), np.zeros((40, 8640), "float32"))},
        coords={"lat": lat.astype("float32"), "lon": lon.astype("float32")},
    )
    row = scan_grids(write(dataset, tmp_path / "a.nc", "nc4")).iloc[0]
    a, _, c, _, e, f = row["transform"]
    pixel = 1 / 24
    assert abs(c + 180) < 0.002 * pixel
    assert abs(f - 90) < 0.002 * pixel
    assert abs(a - pixel) * 8640 < 0.002 * pixel
    assert abs(e + pixel) * 40 < 0.002 * pixel
    assert row["block"] == (30, 8640)


def l3m(path, **attrs):
    """A MODIS-like level-3 mapped file: one map, time in the global attributes only."""
    rng = np.random.default_rng(1)
    chl = rng.gamma(2.0, 1.0, (18, 36)).astype("float32")
    chl[rng.random(chl.shape) < 0.3] = -32767
    sst = rng.integers(-1000, 8000, (18, 36)).astype("int16")
    dataset = xr.Dataset(
        {
            "chlor_a": (("lat", "lon"), chl, {"_FillValue": np.float32(-32767)}),
            "sst": (("lat", "lon"), sst,
                    {"_FillValue": np.int16(-32767), "scale_factor": 0.005, "add_offset": 10.0}),
            "palette": (("rgb", "eightbitcolor"), np.zeros((3, 256), "uint8")),
        },
        coords={
            "lat": ("lat", np.float32(85 - 10.0 * np.arange(18)), {"units": "degrees_north"}),
            "lon": ("lon", np.float32(-175 + 10.0 * np.arange(36)), {"units": "degrees_east"}),
        },
        attrs={"map_projection": "Equidistant Cylindrical", **attrs},
    )  # fmt: skip
    dataset.to_netcdf(path, engine="h5netcdf")
    return path


def test_level_3_mapped_file(tmp_path):
    path = l3m(
        tmp_path / "A20151522015181.L3m_MO_CHL_chlor_a_4km.nc",
        time_coverage_start="2015-06-01T00:05:01.000Z",
        time_coverage_end="2015-07-01T02:44:59.000Z",
        temporal_range="month",
    )
    scenes = scan_grids(path)
    row = scenes.iloc[0]
    assert (len(scenes), row["step"], row["bands"]) == (1, -1, ("chlor_a", "sst"))
    assert row["transform"] == (10.0, 0.0, -180.0, 0.0, -10.0, 90.0)
    assert row["time"] == pd.Timestamp("2015-06-01")
    assert row["time_end"] == parse_period("2015-06")[1]
    (asset,) = assets(scenes)
    with xr.open_dataset(path) as truth:
        got = values_of(asset)
        np.testing.assert_allclose(got[0], truth["chlor_a"].values, rtol=1e-7)
        np.testing.assert_allclose(got[1], truth["sst"].values, rtol=1e-6)
        assert np.isnan(got).any()


@pytest.mark.parametrize(
    ("attrs", "first", "last"),
    [
        ({"time_coverage_start": "201506010000Z", "time_coverage_end": "201506302359Z"},
         "2015-06-01", "2015-06-30"),
        ({"period_start_day": "20150602", "period_end_day": "20150609"},
         "2015-06-02", "2015-06-09"),
        ({"start_time": "20151231T234500Z", "end_time": "20160101T013000Z"},
         "2015-12-31 23:45", "2016-01-01 01:30"),
        ({"time_coverage_start": "2015-12-27T00:10:00Z",
          "time_coverage_end": "2016-01-01T02:20:00Z"},
         "2015-12-27", "2015-12-31"),
    ],
    ids=["OC-CCI", "GlobColour", "granule", "last 8 days"],
)  # fmt: skip
def test_stretch_in_the_global_attributes(tmp_path, attrs, first, last):
    row = scan_grids(l3m(tmp_path / "a.nc", **attrs)).iloc[0]
    assert row["time_source"] == "coverage"
    assert row["time"] == pd.Timestamp(first)
    end = row["time_end"]
    assert (end if " " in last else end.normalize()) == pd.Timestamp(last)


def test_a_file_without_any_time_takes_the_date_in_its_name(tmp_path):
    row = scan_grids(l3m(tmp_path / "chl_2015-06.nc")).iloc[0]
    assert (row["time_source"], row["time_end"].day) == ("name", 30)
    row = scan_grids(l3m(tmp_path / "chl.nc")).iloc[0]
    assert row["time_source"] == ""
    assert pd.isna(row["time"])
    row = scan_grids(tmp_path / "chl.nc", time="2015-06").iloc[0]
    assert (row["time_source"], row["time"]) == ("argument", pd.Timestamp("2015-06-01"))


@pytest.mark.parametrize(
    ("day", "attrs", "name"),
    [
        (1, {"time_coverage_resolution": "P1M"}, ""),
        (15, {"temporal_resolution": "monthly"}, ""),
        (1, {}, "glo_phy_P1M-m_2015"),
        (16, {"dataset_id": "phy_P1M-m_2023"}, ""),
    ],
    ids=["ACDD", "words", "name", "id"],
)
def test_a_monthly_step_lasts_a_month(tmp_path, day, attrs, name):
    stamps = pd.date_range("2015-01-01", periods=4, freq="MS") + pd.Timedelta(days=day - 1)
    dataset = field(4, times=stamps).assign_attrs(attrs)
    scenes = scan_grids(write(dataset, tmp_path / f"{name or 'a'}.nc", "nc4"))
    assert set(scenes["time_source"]) == {"resolution"}
    months = [parse_period(label) for label in period_range("2015-01", "2015-04")]
    assert list(zip(scenes["time"], scenes["time_end"], strict=True)) == months


def test_eight_days_end_with_the_year_where_the_next_begin(tmp_path):
    stamps = pd.to_datetime(["2015-12-19", "2015-12-27", "2016-01-01", "2016-01-09"])
    dataset = field(4, times=stamps).assign_attrs(temporal_resolution="8-day")
    scenes = scan_grids(write(dataset, tmp_path / "a.nc", "nc4"))
    labels = [*period_range("2015-12-19", "2015-12-31", "8D"), "2016-01-01/2016-01-08"]
    spans = list(zip(scenes["time"], scenes["time_end"], strict=True))
    assert spans[:3] == [parse_period(label) for label in labels]
    assert spans[3][1].day == 16


def test_a_resolution_that_the_steps_contradict_is_not_believed(tmp_path):
    days = pd.date_range("2015-01-01", periods=4)
    dataset = field(4, times=days).assign_attrs(time_coverage_resolution="P1M")
    scenes = scan_grids(write(dataset, tmp_path / "a.nc", "nc4"))
    assert set(scenes["time_source"]) == {"time"}
    assert list(scenes["time_end"]) == list(days)


def test_bounds_say_how_long_a_step_lasts(tmp_path):
    dataset = field(3, times=pd.to_datetime(["2015-01-16", "2015-02-15", "2015-03-16"]))
    edges = pd.to_datetime(["2015-01-01", "2015-02-01", "2015-03-01", "2015-04-01"])
    dataset["time_bnds"] = (("time", "bnds"), np.column_stack([edges[:-1], edges[1:]]))
    dataset["time"].attrs["bounds"] = "time_bnds"
    dataset["time"].encoding["units"] = "days since 1970-01-01"
    scenes = scan_grids(write(dataset, tmp_path / "a.nc", "nc4"))
    assert set(scenes["time_source"]) == {"bounds"}
    assert scenes["bands"].iloc[0] == ("chl",)
    months = [parse_period(label) for label in period_range("2015-01", "2015-03")]
    assert list(zip(scenes["time"], scenes["time_end"], strict=True)) == months


def numbered(path, values, units, calendar="standard"):
    """Write a file whose time coordinate holds these numbers."""
    dataset = field(len(values)).drop_vars("time")
    dataset["time"] = ("time", values, {"units": units, "calendar": calendar})
    return write(dataset, path, "nc4")


def test_months_and_years_since_a_date(tmp_path):
    scenes = scan_grids(numbered(tmp_path / "a.nc", [0, 1, 14], "months since 1998-01-01"))
    assert list(scenes["time"].dt.strftime("%Y-%m-%d")) == [
        "1998-01-01",
        "1998-02-01",
        "1999-03-01",
    ]


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "julian"])
def test_other_calendars_are_refused_unless_dates_are_given(tmp_path, calendar):
    path = numbered(tmp_path / "a.nc", [59.0, 90.0], "days since 2000-01-01", calendar)
    reason, detail = refused(path)
    assert reason == "wrong_time"
    assert calendar in detail
    scenes = scan_grids(path, time=["2000-03", "2000-04"])
    assert list(scenes["time"].dt.month) == [3, 4]


@pytest.mark.parametrize(
    "units", ["day as %Y%m%d.%f", "months since 1998-01-01 ", "parsecs since 2"]
)
def test_times_that_cannot_be_read_are_refused(tmp_path, units):
    path = numbered(tmp_path / "a.nc", [0.25, 1.5], units)
    assert refused(path)[0] == "wrong_time"


def test_layer_numbers_are_not_taken_for_seconds_of_1970(tmp_path):
    path = numbered(tmp_path / "a.nc", np.arange(1, 7, dtype="int32"), "seconds since 1970-01-01")
    with pytest.warns(UserWarning, match="number the layers") as caught:
        scenes = scan_grids(path)
    assert scenes["time"].isna().all()
    assert caught[0].filename == __file__
    scenes = scan_grids(path, time=period_range("1998-01", "1998-06"))
    assert list(scenes["time_end"].dt.strftime("%m-%d"))[1] == "02-28"
    with pytest.raises(SceneError, match="2 labels"):
        scan_grids(path, time=["1998-01", "1998-02"])


def test_bytes_meant_as_unsigned(tmp_path):
    stored = np.arange(120, dtype="uint8").reshape(1, 10, 12) + 100
    stored[0, 0, :2] = 255
    dataset = field(1)
    attrs = {"_Unsigned": "true", "_FillValue": np.int8(-1), "scale_factor": 0.5}
    dataset["chl"] = (("time", "lat", "lon"), stored.view("int8"), attrs)
    path = write(dataset, tmp_path / "a.nc", "nc3")
    (asset,) = assets(scan_grids(path))
    assert (asset.dtype, asset.nodata) == ("uint8", 255.0)
    got = values_of(asset)[0]
    assert np.isnan(got[0, :2]).all()
    assert np.isnan(got).sum() == 2
    np.testing.assert_array_equal(got[1:], stored[0, 1:] * 0.5)


def test_fill_values_that_differ_come_as_a_mask(tmp_path):
    dataset = field(2)
    flags = np.tile(np.arange(12, dtype="int8"), (2, 10, 1))
    dataset["flags"] = (("time", "lat", "lon"), flags, {"_FillValue": np.int8(7)})
    dataset["depth_m"] = (("lat", "lon"), np.arange(120.0).reshape(10, 12))
    path = write(dataset, tmp_path / "a.nc", "nc4", chl=PACKED)
    asset = assets(scan_grids(path))[1]
    assert (asset.bands, asset.dtype) == (("chl", "flags", "depth_m"), "float64")
    assert np.isnan(asset.nodata)
    got = values_of(asset)
    np.testing.assert_allclose(got[0], field(2)["chl"].values[1], atol=1e-9)
    np.testing.assert_array_equal(np.isnan(got[1]), flags[1] == 7)
    np.testing.assert_array_equal(got[2], dataset["depth_m"].values)
    np.testing.assert_array_equal(values_of(asset, bands=[2, 0])[0], got[2])


def test_fill_and_missing_value_both_count(tmp_path):
    dataset = field(1)
    stored = np.arange(120, dtype="int16").reshape(1, 10, 12)
    attrs = {"_FillValue": np.int16(3), "missing_value": np.int16(5)}
    dataset["chl"] = (("time", "lat", "lon"), stored, attrs)
    (asset,) = assets(scan_grids(write(dataset, tmp_path / "a.nc", "nc4")))
    assert np.flatnonzero(np.isnan(values_of(asset)[0].ravel())).tolist() == [3, 5]


def test_coordinates_and_profiles_are_no_bands_and_no_axes(tmp_path):
    dataset = field(2)
    lon, lat = np.meshgrid(LON, LAT)
    dataset["longitude"] = (("lat", "lon"), lon, {"units": "degrees_east"})
    dataset["area"] = (("lat", "lon"), np.cos(np.radians(lat)))
    dataset["chl"].attrs["coordinates"] = "area longitude"
    dataset["t"] = (("level",), np.arange(3.0))
    dataset["u"] = (("time", "level", "lat", "lon"), np.zeros((2, 3, 10, 12)))
    path = write(dataset, tmp_path / "a.nc", "nc4")
    assert refused(path)[0] == "extra_dimension"
    assert scan_grids(path, select={"level": 0})["bands"].iloc[0] == ("chl", "u")
    assert scan_grids(path, variables=["area"])["bands"].iloc[0] == ("area",)


def test_bands_by_other_names_and_one_depth(tmp_path):
    values = np.arange(2 * 3 * 10 * 12, dtype="float32").reshape(2, 3, 10, 12)
    dataset = field(2)
    dataset["thetao"] = (("time", "depth", "lat", "lon"), values)
    path = write(dataset, tmp_path / "a.nc", "nc4")
    reason, detail = refused(path)
    assert reason == "extra_dimension"
    assert "select={'depth': 0}" in detail
    assert len(scan_grids(path, variables="chl")) == 2
    scenes = scan_grids(path, variables={"sst": "thetao"}, select={"depth": 2})
    asset = assets(scenes)[1]
    assert asset.bands == ("sst",)
    np.testing.assert_array_equal(values_of(asset)[0], values[1, 2])
    assert refused(path, select={"depth": 3})[0] == "extra_dimension"
    assert refused(path, variables="chl", select={"level": 0})[0] == "extra_dimension"
    other = scan_grids(path, variables={"sst": "thetao"}, select={"depth": 1})
    assert not set(scenes["href"]) & set(other["href"])
    assert not set(scenes["item"]) & set(other["item"])


def test_columns_before_rows_are_turned(tmp_path):
    dataset = field(2).transpose("lon", "lat", "time")
    assets_ = assets(scan_grids(write(dataset, tmp_path / "a.nc", "nc4", (4, 5, 2))))
    for step in range(2):
        np.testing.assert_array_equal(
            values_of(assets_[step])[0], dataset["chl"].values[:, :, step].T
        )


def projected(path, mapping, units="m", scale=1.0):
    x, y = 500_000 + np.arange(6) * 100.0, 6_000_000 - np.arange(5) * 100.0
    dataset = xr.Dataset(
        {"ndvi": (("y", "x"), np.arange(30.0).reshape(5, 6), {"grid_mapping": "proj"})},
        coords={"x": ("x", x / scale, {"units": units}), "y": ("y", y / scale, {"units": units})},
    )
    if mapping is not None:
        dataset["proj"] = ((), 0, mapping)
    return write(dataset, path, "nc4")


@pytest.mark.parametrize(
    "mapping",
    [
        {"spatial_ref": "EPSG:32636"},
        {"epsg_code": 32636},
        {"grid_mapping_name": "transverse_mercator", "latitude_of_projection_origin": 0.0,
         "longitude_of_central_meridian": 33.0, "scale_factor_at_central_meridian": 0.9996,
         "false_easting": 500000.0, "false_northing": 0.0, "semi_major_axis": 6378137.0,
         "inverse_flattening": 298.257223563, "longitude_of_prime_meridian": 0.0},
    ],
    ids=["wkt", "code", "parameters"],
)  # fmt: skip
def test_projected_grids(tmp_path, mapping):
    row = scan_grids(projected(tmp_path / "a.nc", mapping)).iloc[0]
    x, y = project(row["scene_crs"], "EPSG:32636", 500_000.0, 6_000_000.0)
    assert (float(x), float(y)) == pytest.approx((500_000.0, 6_000_000.0), abs=1e-3)
    assert row["transform"] == pytest.approx((100.0, 0, 499_950.0, 0, -100.0, 6_000_050.0))
    in_km = scan_grids(projected(tmp_path / "b.nc", mapping, "km", 1000.0)).iloc[0]
    assert in_km["transform"] == pytest.approx(row["transform"])


@pytest.mark.parametrize(
    ("mapping", "name"),
    [
        ({"grid_mapping_name": "latitude_longitude"}, "EPSG:4326"),
        ({"grid_mapping_name": "latitude_longitude", "semi_major_axis": 6378137.0,
          "inverse_flattening": 298.257223563, "longitude_of_prime_meridian": 0.0}, "EPSG:4326"),
        ({"proj4": "+proj=longlat +datum=WGS84 +no_defs"}, "EPSG:4326"),
        ({"crs_wkt": 'GEOGCS["NAD27",DATUM["North_American_Datum_1927",SPHEROID["Clarke 1866",'
          '6378206.4,294.978698213898]],PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433],'
          'AUTHORITY["EPSG","4267"]]'}, "EPSG:4267"),
    ],
    ids=["bare", "ellipsoid", "proj4", "NAD27"],
)  # fmt: skip
def test_crs_of_degrees(tmp_path, mapping, name):
    dataset = field(1)
    dataset["crs"] = ((), 0, mapping)
    dataset["chl"].attrs["grid_mapping"] = "crs"
    assert scan_grids(write(dataset, tmp_path / "a.nc", "nc4"))["scene_crs"].iloc[0] == name


def test_a_grid_around_the_earth_from_0_to_360(tmp_path):
    lon, lat = np.arange(72) * 5.0 + 2.5, 87.5 - np.arange(36) * 5.0
    scenes = scan_grids(write(field(1, lon, lat), tmp_path / "a.nc", "nc4"))
    assert tuple(scenes.total_bounds) == (-180.0, -90.0, 180.0, 90.0)
    (asset,) = assets(scenes)
    cols, _ = asset.grid.pixels(np.array([-2.5, 2.5, 179.9, -179.9]), np.zeros(4))
    assert np.floor(cols).tolist() == [71, 0, 35, 36]


def test_crs_that_is_missing_contradicted_or_given(tmp_path):
    path = projected(tmp_path / "a.nc", None)
    assert refused(path)[0] == "no_crs"
    assert scan_grids(path, crs="EPSG:32636")["scene_crs"].iloc[0] == "EPSG:32636"
    with pytest.raises(CRSError, match="32633"):
        scan_grids(projected(tmp_path / "b.nc", {"epsg_code": 32636}), crs="EPSG:32633")
    far = field(1, np.arange(12) * 1000.0, np.arange(10) * 1000.0)
    assert refused(write(far, tmp_path / "c.nc", "nc4"))[0] == "wrong_crs"


def test_grids_that_are_not_regular_or_have_no_place(tmp_path):
    rough = LAT + np.sin(np.arange(10)) * 0.05
    reason, detail = refused(write(field(1, LON, rough), tmp_path / "a.nc", "nc4"))
    assert reason == "irregular_grid"
    assert "'lat'" in detail
    assert refused(write(field(1, LON[:1]), tmp_path / "b.nc", "nc4"))[0] == "irregular_grid"
    swath = xr.Dataset({"chl": (("y", "x"), np.zeros((10, 12)))})
    lon, lat = np.meshgrid(LON, LAT)
    swath["lon"], swath["lat"] = (("y", "x"), lon), (("y", "x"), lat)
    reason, detail = refused(write(swath, tmp_path / "c.nc", "nc4"))
    assert reason == "no_georeference"
    assert "swath" in detail
    plain = swath.drop_vars(["lon", "lat"])
    assert refused(write(plain, tmp_path / "d.nc", "nc4"))[0] == "no_georeference"


def test_a_bad_file_among_good_ones_is_left_out_and_named(tmp_path):
    good = write(field(2), tmp_path / "a.nc", "nc4")
    (tmp_path / "b.nc").write_bytes(good.read_bytes()[:700])
    (tmp_path / "c.nc").write_text("not a grid")
    old = write(field(2), tmp_path / "g.nc", "nc3").read_bytes()
    (tmp_path / "g.nc").write_bytes(old[:-300])
    store = write(field(2), tmp_path / "h.zarr", "zarr3")
    (store / "zarr.json").write_text("{")
    wrong = field(1)
    wrong["chl"].attrs["units"] = "1"
    write(wrong, tmp_path / "i.nc", "nc4")
    with h5py.File(tmp_path / "i.nc", "a") as file:
        file["chl"].attrs["scale_factor"] = "ten"
    (tmp_path / "d.hdf").write_bytes(b"\x0e\x03\x13\x01" + b"0" * 100)
    write(field(1).rename(chl="other"), tmp_path / "e.nc", "nc4")
    write(field(3, seed=2), tmp_path / "deep" / "f.zarr", "zarr3")
    ledger = FailureLedger()
    scenes = scan_grids(tmp_path, variables=["chl"], ledger=ledger)
    assert scenes["href"].nunique() == 2
    assert len(scenes) == 5
    found = {r.subject.rsplit("/", 1)[-1]: r.reason for r in ledger.rows}
    assert found == {
        "b.nc": "read_error", "c.nc": "read_error", "d.hdf": "read_error", "e.nc": "band_missing",
        "g.nc": "read_error", "h.zarr": "read_error", "i.nc": "wrong_scale",
    }  # fmt: skip


def test_a_file_for_each_variable_makes_one_acquisition(tmp_path):
    chl, sst = field(3, seed=1), field(3, seed=2).rename(chl="sst")
    write(chl, tmp_path / "A2015.CHL.nc", "nc4")
    write(sst.isel(time=[1, 2]), tmp_path / "A2015.SST.nc", "nc4")
    apart = scan_grids(tmp_path)
    assert apart["item"].is_unique
    scenes = scan_grids(tmp_path, item_pattern=r"(?P<item>A\d+)\.")
    assert set(scenes["item"]) == {"A2015"}
    cube = build_cube(
        places_at((LON[4], LAT[4]), (LON[7], LAT[2])), scenes, bands=["chl", "sst"],
        resolution=1000.0, size=1, periods=["2015-02", "2015-03"], out=tmp_path / "cube.zarr",
        resampling=Nearest(), max_failed=1.0,
    )  # fmt: skip
    both = np.stack([chl["chl"].values, sst["sst"].values])[:, 1:]
    truth = [both[:, :, row, col].T for row, col in ((4, 4), (2, 7))]
    np.testing.assert_allclose(cube["image"].values[..., 0, 0], truth, atol=1e-5)
    with pytest.raises(IngestError, match="no group"):
        scan_grids(tmp_path, item_pattern="A")
    with pytest.raises(IngestError, match="regular expression"):
        scan_grids(tmp_path, item_pattern="(")


def test_arguments_that_are_wrong(tmp_path):
    path = write(field(1), tmp_path / "a.nc", "nc4")
    with pytest.raises(BandError, match="chl"):
        scan_grids(path, variables="chlor")
    with pytest.raises(BandError, match="twice"):
        scan_grids(path, variables=["chl", "chl"])
    with pytest.raises(IngestError, match="position"):
        scan_grids(path, select={"depth": -1})
    with pytest.raises(SceneError, match="no file"):
        scan_grids(tmp_path / "none.nc")
    with pytest.raises(SceneError, match="not a local file"):
        scan_grids("https://example.org/a.nc")
    (tmp_path / "empty").mkdir()
    with pytest.raises(EmptyInputError, match=r"\.nc"):
        scan_grids(tmp_path / "empty")


@pytest.mark.parametrize("kind", KINDS)
def test_many_threads_read_many_steps_of_one_file_opened_once(tmp_path, kind, monkeypatch):
    opened = []
    real = grid_files.open_dataset
    monkeypatch.setattr(grid_files, "open_dataset", lambda p: opened.append(p) or real(p))
    dataset = field(24, seed=3)
    chunks = None if kind == "nc3" else (5, 4, 5)
    path = write(dataset, tmp_path / f"a.{kind}.nc", kind, chunks, chl=PACKED)
    found = assets(scan_grids(path))
    start = threading.Barrier(6)

    def work(worker):
        start.wait()
        rng = np.random.default_rng(worker)
        for _ in range(30):
            step, left, top = rng.integers(24), rng.integers(8), rng.integers(6)
            got = values_of(found[step], (int(left), int(top), 4, 4))[0]
            expected = dataset["chl"].values[step, top : top + 4, left : left + 4]
            np.testing.assert_allclose(got, expected, atol=1e-9)
        return True

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))
    assert opened == [str(path)]


@pytest.mark.parametrize(("kind", "chunks"), [("nc4", (12, 10, 12)), ("zarr3", (4, 10, 12)),
                                                ("nc3", None)])  # fmt: skip
def test_steps_stored_together_are_decoded_once(tmp_path, monkeypatch, kind, chunks):
    reads = []
    real = grid_files._OpenFile._part
    monkeypatch.setattr(grid_files._OpenFile, "_part", lambda *a: reads.append(a[1:]) or real(*a))
    path = write(field(12), tmp_path / f"a.{kind}.nc", kind, chunks)
    for asset in assets(scan_grids(path)):
        values_of(asset)
    assert len(reads) == (3 if kind == "zarr3" else 1)


def test_large_steps_are_read_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr(grid_files, "_SMALL_BYTES", 100)
    reads = []
    real = grid_files._OpenFile._part
    monkeypatch.setattr(grid_files._OpenFile, "_part", lambda *a: reads.append(a[1:]) or real(*a))
    dataset = field(5)
    path = write(dataset, tmp_path / "a.nc", "nc4")
    for step, asset in enumerate(assets(scan_grids(path))):
        np.testing.assert_array_equal(values_of(asset)[0], dataset["chl"].values[step])
    assert len(reads) == 5


def test_steps_that_a_file_left_unwritten_have_no_data(tmp_path):
    """A variable of HDF5 may be shorter than its unlimited dimension."""
    path = write(field(2), tmp_path / "a.nc", "nc4")
    path.unlink()
    dataset = field(2)
    dataset.to_netcdf(path, engine="h5netcdf", unlimited_dims=["time"])
    with h5py.File(path, "a") as file:
        for name in ("time", "chl"):
            file[name].resize(5 if name == "time" else 3, axis=0)
        file["time"][2:] = [59, 90, 120]
        file["chl"][2] = 7.0
    found = assets(scan_grids(path))
    assert len(found) == 5
    np.testing.assert_array_equal(values_of(found[1])[0], dataset["chl"].values[1])
    assert (values_of(found[2]) == 7.0).all()
    assert not np.isfinite(values_of(found[4])).any()


def test_what_was_kept_is_not_given_for_a_file_that_changed(tmp_path):
    path = write(field(4), tmp_path / "a.nc", "nc4", (4, 10, 12))
    asset = assets(scan_grids(path))[1]
    before = values_of(asset)
    path.unlink()
    write(field(4, seed=9), path, "nc4", (4, 10, 12))
    after = values_of(asset)
    np.testing.assert_array_equal(after[0], field(4, seed=9)["chl"].values[1])
    assert not np.array_equal(before, after, equal_nan=True)
    path.unlink()
    write(field(1), path, "nc4")
    with pytest.raises(OSError, match="fewer steps"):
        open_grid(asset)
    path.unlink()
    write(field(4, LON[:5]), path, "nc4")
    with pytest.raises(OSError, match="size"):
        open_grid(asset)
    path.unlink()
    with pytest.raises(OSError, match="no"):
        open_grid(asset)


def test_a_damaged_chunk_is_an_error_not_a_number(tmp_path):
    path = write(field(2), tmp_path / "a.nc", "nc4", (1, 10, 12), chl={**PACKED, "zlib": True})
    found = assets(scan_grids(path))
    with h5py.File(path) as file:
        chunk = file["chl"].id.get_chunk_info(1)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)
    reader = open_grid(found[1])
    with pytest.raises(OSError, match=r"\w"):
        reader.read([0], (0, 0, 12, 10))
    reader.close()
    reader = open_grid(found[0])
    with pytest.raises(OSError, match="beyond the grid"):
        reader.read([0], (8, 0, 12, 10))
    assert np.isfinite(reader.read([0], (0, 0, 12, 10))[0]).all()
    reader.close()
    with pytest.raises(OSError, match="closed"):
        reader.read([0], (0, 0, 1, 1))


def test_a_file_may_be_written_anew_after_it_was_read(tmp_path):
    path = write(field(2), tmp_path / "a.nc", "nc4")
    values_of(assets(scan_grids(path))[0])
    close_idle()
    write(field(2, seed=5), path, "nc4")
    got = values_of(assets(scan_grids(path))[0])[0]
    np.testing.assert_array_equal(got, field(2, seed=5)["chl"].values[0])


def test_few_files_stay_open(tmp_path):
    for k in range(12):
        values_of(assets(scan_grids(write(field(1, seed=k), tmp_path / f"{k}.nc", "nc3")))[0])
    assert len(grid_files._files) == 8


def test_hrefs_are_plain_paths_unless_more_must_be_said(tmp_path):
    path = write(field(1), tmp_path / "a.nc", "nc4")
    assert scan_grids(path)["href"].iloc[0] == str(path)
    href = scan_grids(path, variables={"c": "chl"})["href"].iloc[0]
    assert json.loads(href.partition("#")[2]) == {"variables": {"c": "chl"}}
    assert grid_files.GridSource.parse(href).path == str(path)


def test_nothing_is_warned_of(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in KINDS:
            scenes = scan_grids(write(field(2), tmp_path / f"{kind}.nc", kind, chl=PACKED))
            values_of(assets(scenes)[0])
        close_idle()
        gc.collect()


@pytest.mark.parametrize(
    ("lon", "lat"),
    [
        (np.arange(12) * 0.25 + 200.125, LAT[::-1]),
        ((np.arange(12) * 0.25 + 178.625 + 180) % 360 - 180, LAT),
    ],
    ids=["0..360, south-up", "across 180"],
)
def test_a_cube_of_a_gridded_file_holds_its_values(tmp_path, lon, lat):
    """From the file to the chips, against the nearest pixel that xarray finds."""
    dataset = field(3, lon, lat, seed=4)
    deep = dataset["chl"].expand_dims(depth=2).transpose("time", "depth", "lat", "lon").copy()
    deep[:, 0] = 1.0
    path = write(dataset.assign(chl=deep), tmp_path / "a.nc", "nc4", (2, 1, 4, 5), chl=PACKED)
    scenes = scan_grids(path, variables={"pigment": "chl"}, select={"depth": 1})
    turned = (lon + 180) % 360 - 180
    points = [(turned[2], lat[3]), (turned[6], lat[6]), (turned[9], lat[2])]
    cube = build_cube(
        places_at(*points), scenes, bands=["pigment"], resolution=1000.0, size=1,
        periods=period_range("2015-01", "2015-03"), out=tmp_path / "cube.zarr",
        resampling=Nearest(), max_failed=1.0,
    )  # fmt: skip
    truth = np.stack([dataset["chl"].values[:, r, c] for r, c in ((3, 2), (6, 6), (2, 9))])
    np.testing.assert_allclose(cube["image"].values[:, :, 0, 0, 0], truth, atol=2e-3)
    assert np.isnan(truth).any()
