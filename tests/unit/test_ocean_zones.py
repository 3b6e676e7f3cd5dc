"""Monthly composites with looks, and means over a stretch of sea."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import eocausal.ocean as ocean
from eocausal.errors import AlignmentError, EmptyInputError, GeometryError, OutcomeError


def grid(values, lat, lon, time=None):
    dims = ("time", "lat", "lon") if time is not None else ("lat", "lon")
    coords = {"lat": lat, "lon": lon} | ({} if time is None else {"time": time})
    return xr.DataArray(values, dims=dims, coords=coords)


def daily(days=90, seed=0):
    rng = np.random.default_rng(seed)
    time = pd.date_range("2020-01-01", periods=days)
    values = np.exp(rng.normal(-3, 0.5, (days, 2, 3)))
    values[rng.random(values.shape) < 0.4] = np.nan
    return xr.DataArray(values, dims=("time", "lat", "lon"), coords={"time": time})


def test_composites_equal_what_pandas_groups():
    data = daily()
    found = ocean.monthly_composites(data)
    for i in range(2):
        for j in range(3):
            logs = np.log(data[:, i, j].to_series())
            months = logs.groupby(pd.Grouper(freq="MS"))
            assert found["value"][:, i, j].to_numpy() == pytest.approx(np.exp(months.mean()))
            assert found["looks"][:, i, j].to_numpy() == pytest.approx(months.count())
            assert found["log_sd"][:, i, j].to_numpy() == pytest.approx(months.std())
    median = ocean.monthly_composites(data, statistic=ocean.Statistic.MEDIAN)
    series = data[:, 1, 2].to_series().groupby(pd.Grouper(freq="MS")).median()
    assert median["value"][:, 1, 2].to_numpy() == pytest.approx(series)


def test_an_8_day_composite_counts_by_its_days():
    time = pd.DatetimeIndex(["2020-01-25", "2020-02-02"])
    data = xr.DataArray([2.0, 8.0], dims="time", coords={"time": time})
    found = ocean.monthly_composites(data, days=8)
    assert found["looks"].to_numpy() == pytest.approx([7 / 8, 9 / 8])
    assert found["value"].to_numpy()[0] == pytest.approx(2.0)
    logs = (np.log(2) / 8 + np.log(8)) / (9 / 8)
    assert found["value"].to_numpy()[1] == pytest.approx(np.exp(logs))


def test_lazy_cubes_are_read_month_by_month():
    data = daily()
    lazy = data.chunk({"time": 10})
    for statistic in ocean.Statistic:
        xr.testing.assert_identical(
            ocean.monthly_composites(data, statistic=statistic),
            ocean.monthly_composites(lazy, statistic=statistic),
        )


def test_few_looks_leave_a_month_empty_and_gaps_stay_months():
    time = pd.DatetimeIndex(["2020-01-05", "2020-01-06", "2020-03-01"])
    data = xr.DataArray([1.0, 3.0, 5.0], dims="time", coords={"time": time})
    found = ocean.monthly_composites(data, minimum_looks=2, statistic=ocean.Statistic.MEAN)
    assert found.sizes["time"] == 3
    assert found["value"].to_numpy() == pytest.approx([2.0, np.nan, np.nan], nan_ok=True)
    assert found["looks"].to_numpy() == pytest.approx([2, 0, 1])


def test_flags_are_applied_and_bad_times_refused():
    data = daily(31)
    none = ocean.monthly_composites(data, valid=xr.zeros_like(data, dtype=bool))
    assert np.isnan(none["value"].to_numpy()).all()
    with pytest.raises(OutcomeError, match="zero or less"):
        ocean.monthly_composites(-data)
    plain = ocean.monthly_composites(-data, statistic=ocean.Statistic.MEAN)
    assert np.isnan(plain["log_sd"].to_numpy()).all()
    assert (plain["value"].to_numpy() < 0).all()
    with pytest.raises(AlignmentError, match="increase"):
        ocean.monthly_composites(data.isel(time=slice(None, None, -1)))
    with pytest.raises(AlignmentError, match="time"):
        ocean.monthly_composites(data.isel(time=0, drop=True))


def test_areas_are_those_of_the_globe():
    lat, lon = np.arange(-89.5, 90), np.arange(0.5, 360)
    assert ocean.cell_areas(lat, lon).sum() == pytest.approx(4 * np.pi * 6371.0088**2, rel=1e-4)
    assert ocean.cell_areas(lat[::-1], lon)[0] == pytest.approx(ocean.cell_areas(lat, lon)[-1])
    wide = np.meshgrid(lat, (lon + 180) % 360 - 180, indexing="ij")
    assert ocean.cell_areas(*wide) == pytest.approx(ocean.cell_areas(lat, lon))


def test_a_turned_grid_has_the_same_areas():
    """A regular grid turned by 30 degrees keeps its area at the equator."""
    i, j = np.meshgrid(np.arange(20), np.arange(20), indexing="ij")
    turn = np.radians(30)
    lat = 0.01 * (i * np.cos(turn) - j * np.sin(turn))
    lon = 0.01 * (i * np.sin(turn) + j * np.cos(turn))
    side = 0.01 * np.pi / 180 * 6371.0088
    assert ocean.cell_areas(lat, lon) == pytest.approx(side**2, rel=1e-4)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("shift", [0, 360])
def test_means_weigh_by_cosine_whatever_the_order(descending, shift):
    lat, lon = np.array([0.0, 30.0, 60.0]), np.array([-2.0, -1.0, 0.0]) + shift
    values = np.repeat([[1.0], [2.0], [4.0]], 3, axis=1)
    if descending:
        lat, values = lat[::-1], values[::-1]
    found = ocean.zone_means(grid(values, lat, lon), ocean.Box(-3, -1, 1, 61))
    weight = np.cos(np.radians([0, 30, 60]))
    assert found.mean.iloc[0] == pytest.approx((weight @ [1, 2, 4]) / weight.sum())
    turned = grid(values, lat, lon).transpose("lon", "lat")
    assert ocean.zone_means(turned, ocean.Box(-3, -1, 1, 61)).mean.iloc[0] == pytest.approx(
        found.mean.iloc[0]
    )


def test_a_zone_across_the_antimeridian():
    lon = np.array([178.0, 179.0, -180.0, -179.0, -178.0])
    values = np.tile([1.0, 2.0, 3.0, 4.0, 5.0], (3, 1))
    data = grid(values, np.array([-1.0, 0.0, 1.0]), lon)
    box = ocean.Box(178.5, -2, -178.5, 2)
    assert ocean.zone_means(data, box).mean.iloc[0] == pytest.approx(3.0)
    again = data.assign_coords(lon=lon % 360)
    assert ocean.zone_means(again, box).mean.iloc[0] == pytest.approx(3.0)
    assert ocean.zone_means(again, ocean.Box(-180, -2, 180, 2)).frame["pixels"].iloc[0] == 15


def test_coverage_looks_and_effective_n():
    time = pd.date_range("2020-01-01", periods=3, freq="MS")
    values = np.full((3, 2, 3), 2.0)
    values[:, 0, 0] = np.nan  # land: never a value
    values[1, 0] = np.nan
    values[2] = np.nan
    looks = xr.DataArray(np.full((3, 2, 3), 4.0), dims=("time", "lat", "lon"))
    data = grid(values, np.array([0.0, 1.0]), np.arange(3.0), time)
    found = ocean.zone_means(data, ocean.Box(-1, -1, 3, 2), looks=looks, minimum_coverage=0.7)
    frame = found.to_frame()
    assert frame["pixels"].tolist() == [5, 3, 0]
    assert frame["looks"].tolist() == [20, 12, 0]
    assert frame["coverage"].to_numpy() == pytest.approx([1.0, 0.6, 0.0], abs=1e-3)
    assert frame["effective_n"].to_numpy() == pytest.approx([5, 3, 0], abs=1e-3)
    assert frame["mean"].notna().tolist() == [True, False, False]
    assert "1 of 3 times" in found.summary()


def test_logarithms_skip_what_has_none():
    values = np.array([[1.0, 4.0], [0.0, -1.0]])
    data = grid(values, np.array([0.0, 0.001]), np.array([0.0, 0.001]))
    found = ocean.zone_means(data, ocean.Box(-1, -1, 1, 1), log=True)
    assert found.mean.iloc[0] == pytest.approx(2.0)
    assert found.frame["pixels"].iloc[0] == 2


def test_a_mask_as_zone_and_refusals():
    data = grid(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    mask = data > 3.5
    assert ocean.zone_means(data, mask).mean.iloc[0] == 4.0
    with pytest.raises(EmptyInputError, match="No pixel"):
        ocean.zone_means(data, ocean.Box(50, 0, 60, 1))
    with pytest.raises(GeometryError, match="zone"):
        ocean.Box(0, 10, 1, 5)
    with pytest.raises(AlignmentError, match="latitude"):
        ocean.zone_means(xr.DataArray(np.ones((2, 2)), dims=("a", "b")), mask)
    with pytest.raises(GeometryError, match="one row"):
        ocean.zone_means(data.isel(lat=slice(0, 1)), ocean.Box(-1, -1, 2, 2))
    with pytest.raises(AlignmentError, match="Looks"):
        ocean.zone_means(data, mask, looks=data.isel(lat=slice(0, 1)))
