"""Gridded files that ocean scientists really use, checked against xarray's own decoding."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from test_grids import assets, values_of

from eocausal.errors import SceneError
from eocausal.ingest.grids import close_idle, scan_grids
from eocausal.ingest.periods import dates_of, period_range
from eocausal.ingest.times import parse_period
from eocausal.provenance import FailureLedger

pytestmark = pytest.mark.realdata


@pytest.fixture(autouse=True)
def _nothing_left_open():
    yield
    close_idle()


def compare(scenes, path, names, dims, *, boxes=((0, 0, None, None),), steps=None):
    """Compare windows of steps with what xarray decodes, value by value and place by place."""
    y, x = dims
    with xr.open_dataset(path, decode_times=False) as truth:
        for step, asset in enumerate(assets(scenes)):
            if steps is not None and step not in steps:
                continue
            lon, lat = np.meshgrid(truth[x].values.astype(float), truth[y].values.astype(float))
            cols, rows = asset.grid.pixels(lon, lat)
            assert np.abs(cols - np.arange(lon.shape[1]) - 0.5).max() < 1e-3
            assert np.abs(rows - np.arange(lon.shape[0])[:, None] - 0.5).max() < 1e-3
            for left, top, width, height in boxes:
                width, height = width or asset.grid.width, height or asset.grid.height
                got = values_of(asset, (left, top, width, height))
                for k, name in enumerate(names):
                    held = truth[name].isel(time=step, missing_dims="ignore").squeeze(drop=True)
                    expected = held[top : top + height, left : left + width].values
                    np.testing.assert_array_equal(got[k].astype(expected.dtype), expected)


def test_monthly_chlorophyll_of_25_years(real_data):
    """NetCDF-3, longitudes 0..360, rows from the north; its times only number the months."""
    path = real_data("ocean") / "esa_cci_monthly_chl-a_masked.nc"
    with pytest.warns(UserWarning, match="number the layers"):
        undated = scan_grids(path)
    assert undated["time"].isna().all()
    months = period_range("1998-01", "2022-12")
    scenes = scan_grids(path, variables={"chl": "chlor_a"}, time=months)
    assert len(scenes) == 300
    assert scenes["time"].iloc[-1] == pd.Timestamp("2022-12-01")
    assert scenes["time_end"].iloc[1] == parse_period("1998-02")[1]
    assert scenes["scene_crs"].iloc[0] == "EPSG:4326"
    a, _, west, _, e, north = scenes["transform"].iloc[0]
    assert (a, e) == pytest.approx((1 / 24, -1 / 24), abs=1e-9)
    assert (west, north) == pytest.approx((201.583333, 21.833333), abs=1e-5)
    assert tuple(scenes.total_bounds) == pytest.approx((-158.41667, 21.125, -157.54167, 21.83333))
    compare(scenes, path, ["chlor_a"], ("latitude", "longitude"))
    with xr.open_dataset(path, decode_times=False) as truth:
        missing = float(truth["chlor_a"].isnull().mean())
    found = np.mean([np.isnan(values_of(a)).mean() for a in assets(scenes)])
    assert found == pytest.approx(missing)
    assert missing > 0.2


def test_reanalysis_with_one_depth(real_data):
    """GLORYS12: NetCDF-4, float32 coordinates, rows from the south, depth of length one."""
    path = real_data("morowali") / "salinity_temp.nc"
    scenes = scan_grids(path)
    assert (len(scenes), scenes["bands"].iloc[0]) == (324, ("so", "thetao"))
    assert set(scenes["time_source"]) == {"resolution"}
    spans = list(zip(scenes["time"], scenes["time_end"], strict=True))
    assert spans == [parse_period(label) for label in period_range("1998", "2024")]
    assert scenes["transform"].iloc[0][4] == pytest.approx(1 / 12, rel=1e-6)
    boxes = [(0, 0, None, None), (5, 3, 7, 4)]
    compare(scenes, path, ["so", "thetao"], ("latitude", "longitude"), boxes=boxes)
    labels = dates_of(scenes)
    assert (len(labels), labels[1]) == (324, "1998-02-01/1998-02-28")


def test_land_cover_stored_in_pieces_of_four_years(real_data):
    path = real_data("morowali") / "sentinel2LULC_IMIP.nc"
    scenes = scan_grids(path)
    assert list(scenes["time"].dt.year) == list(range(2017, 2025))
    row = scenes.iloc[0]
    assert (row["bands"], row["dtype"], row["nodata"]) == (("lulc",), "int8", -128.0)
    assert (row["block"], row["scene_crs"]) == ((1113, 1113), "EPSG:4326")
    boxes = [(0, 0, 1113, 1113), (1100, 1000, 300, 500)]
    compare(scenes, path, ["lulc"], ("lat", "lon"), boxes=boxes, steps=(0, 3, 7))


def test_a_swath_is_refused_with_what_to_do(real_data):
    folder = real_data("ocean")
    ledger = FailureLedger()
    with pytest.raises(SceneError, match="swath"):
        scan_grids(folder / "O_L2_0001_SNS_2017104102450_v1.0.nc", ledger=ledger)
    assert [r.reason for r in ledger.rows] == ["no_georeference"]
    assert "gdalwarp" in ledger.rows[0].detail
    with pytest.warns(UserWarning, match="layers"):
        scenes = scan_grids(folder, ledger=ledger)
    assert len(scenes) == 300
    assert len(ledger.rows) == 2
