"""Real ocean colour: a monthly grid with longitudes to 360, a swath, and the coast of Morowali."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import eocausal.ocean as ocean
from eocausal.effects import EffectPath
from eocausal.errors import OutcomeError

pytestmark = pytest.mark.realdata


@pytest.fixture(scope="module")
def oahu(real_data):
    with xr.open_dataset(real_data("ocean") / "esa_cci_monthly_chl-a_masked.nc") as data:
        months = pd.date_range("1998-01-01", periods=300, freq="MS")
        return data["chlor_a"].load().assign_coords(time=months)


@pytest.fixture(scope="module")
def swath(real_data):
    with xr.open_dataset(real_data("ocean") / "O_L2_0001_SNS_2017104102450_v1.0.nc") as data:
        return data.load()


def test_a_grid_with_longitudes_to_360_and_descending_latitudes(oahu):
    west, east = ocean.Box(-158.3, 21.2, -157.7, 21.8), ocean.Box(201.7, 21.2, 202.3, 21.8)
    found = ocean.zone_means(oahu, west, log=True)
    again = ocean.zone_means(oahu, east, log=True)
    pd.testing.assert_frame_equal(found.frame, again.frame)
    assert found.mean.notna().sum() == 299  # 1998-07 has no pixel at all
    picked = oahu.sel(latitude=slice(21.8, 21.2), longitude=slice(201.7, 202.3))
    weight = np.cos(np.radians(picked["latitude"]))
    by_hand = np.exp(np.log(picked).weighted(weight).mean(("latitude", "longitude")))
    assert found.mean.to_numpy() == pytest.approx(by_hand.to_numpy(), rel=1e-6, nan_ok=True)
    assert found.frame["coverage"].max() <= 1.0


def test_chlorophyll_of_clear_water_lights_deep(oahu):
    bridge = ocean.AttenuationOfChlorophyll()
    kd = bridge.attenuation(oahu.to_numpy())
    low, high = bridge.valid
    there = np.isfinite(kd)
    assert ((kd[there] > low) & (kd[there] < high)).all()
    depth = ocean.EuphoticFromChlorophyll().depth(kd)
    assert 60 < np.nanmedian(depth) < 120


def test_a_swath_with_flags_and_two_dimensional_coordinates(swath):
    """Nine pixels of 10,000 passed the retrieval's own test; the rest holds zeros, not gaps."""
    valid = (swath["c2rcc_flags"].astype("uint32") & np.uint32(1 << 31)) != 0
    assert int(valid.sum()) == 9
    kd = swath["kd489"]
    assert int((kd > 0).sum()) == 9
    everything = ocean.zone_means(kd, ocean.Box(1.0, 52.0, 2.0, 53.0))
    assert everything.mean.iloc[0] < 1e-3  # what taking zeros for values does
    found = ocean.zone_means(kd.where(valid), ocean.Box(1.0, 52.0, 2.0, 53.0), log=True)
    assert found.frame["pixels"].iloc[0] == 9
    assert 0.2 < found.mean.iloc[0] < 0.7
    assert found.area_km2 == pytest.approx(9 * 0.079, rel=0.02)  # pixels of 280 m


def test_kd2_reads_low_in_turbid_water(swath):
    found = ocean.kd490_from_reflectance(swath["rrs_4"], swath["rrs_6"], ocean.Sensor.MERIS)
    good = np.isfinite(found.kd490.to_numpy())
    assert good.sum() == 9
    assert found.to_frame().loc["not_positive", "pixels"] == 9991
    theirs, ours = swath["kd489"].to_numpy()[good], found.kd490.to_numpy()[good]
    assert np.corrcoef(np.log(theirs), np.log(ours))[0, 1] > 0.9
    assert (ours < theirs).all()


@pytest.mark.parametrize(
    ("zone", "box"),
    [
        ("Impact", ocean.Box(122.08, -2.92, 122.28, -2.72)),
        ("Control", ocean.Box(123.0, -2.75, 123.4, -2.45)),
    ],
)
def test_zones_of_morowali_are_those_of_its_tables(real_data, zone, box):
    """Published temperature and salinity of the zones, from the grid they were averaged from."""
    folder = real_data("morowali")
    table = pd.read_csv(folder / f"{zone}_Zone_Kd490_Temp_Sal.csv")
    with xr.open_dataset(folder / "salinity_temp.nc") as grid:
        for name, column in (("thetao", "Temperature"), ("so", "Salinity")):
            found = ocean.zone_means(grid[name].isel(depth=0, drop=True), box)
            assert found.mean.to_numpy() == pytest.approx(table[column].to_numpy(), abs=2e-5)


def test_morowali_is_in_hundredths_and_its_depth_by_every_relation(real_data):
    path = real_data("morowali") / "Impact_Zone_Kd490_Temp_Sal.csv"
    kd = pd.read_csv(path, parse_dates=["Time"]).set_index("Time")["Kd490"]
    post = np.asarray(kd.index >= "2019-05-01")
    drawn = np.tile(kd.to_numpy() - 0.676485 * post, (20, 1))
    effect = EffectPath(kd.index, kd.to_numpy(), drawn, post)
    with pytest.raises(OutcomeError, match="factor of 100"):
        ocean.compare_relations(effect)
    table = ocean.compare_relations(effect, units=ocean.AttenuationUnits.HUNDREDTH_PER_METRE)
    first = table.iloc[0]
    assert first["expected_at_mean"] == pytest.approx(97.78, abs=0.01)
    assert first["observed_at_mean"] == pytest.approx(85.49, abs=0.01)
    others = table["change_at_mean"].iloc[1:]
    assert others.between(-6.85, -4.1).all()
