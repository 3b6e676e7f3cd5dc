"""Several sensors in one record: known factors come back, and what cannot be told is refused."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import eocausal.ocean as ocean
from eocausal.errors import AlignmentError, EmptyInputError, EstimationError, OutcomeError
from eocausal.estimators.breakpoints import breakpoints
from eocausal.estimators.breaks_model import BreakModel
from eocausal.estimators.breaks_sensors import SensorChange, SensorChanges, hold_against_sensors
from eocausal.estimators.breaks_sieve import ArSieve

QUICK = ArSieve(draws=49, bias_draws=19)


def truth(years=20, seed=0):
    rng = np.random.default_rng(seed)
    time = pd.date_range("1998-01-01", periods=12 * years, freq="MS")
    season = 0.3 * np.sin(2 * np.pi * np.arange(len(time)) / 12)
    return pd.Series(np.exp(-3 + season + rng.normal(0, 0.15, len(time))), time), rng


def three(noise=0.05, seed=0):
    water, rng = truth(seed=seed)

    def seen(factor, first, last, power=1.0):
        part = water.loc[first:last]
        return factor * part**power * np.exp(rng.normal(0, noise, len(part)))

    return water, {
        "seawifs": seen(1.2, "1998", "2010"), "modis": seen(1.0, "2002-07", "2017"),
        "viirs": seen(0.8, "2012", "2017"),
    }  # fmt: skip


def test_known_factors_come_back_and_the_record_follows_the_reference():
    water, records = three()
    found = ocean.merge_sensors(records, "modis")
    row = found.adjustments
    assert row.loc["seawifs", "factor"] == pytest.approx(1 / 1.2, rel=0.03)
    assert row.loc["viirs", "factor"] == pytest.approx(1 / 0.8, rel=0.03)
    assert row.loc["modis", "factor"] == 1.0
    assert row.loc["seawifs", "overlap"] == 102
    assert row.loc["seawifs", "linked"] == "modis"
    error = np.log(found.values / water)
    assert abs(error[:"2002-06"].mean() - error["2002-07":].mean()) < 0.03
    assert found.shares.sum(axis=1).to_numpy() == pytest.approx(1.0)
    assert found.shares.loc["1999-01-01", "seawifs"] == 1.0
    assert found.shares.loc["2005-01-01"].tolist() == [0.5, 0.5, 0.0]


def test_changes_are_the_dates_at_which_sensors_come_and_go():
    _, records = three()
    found = ocean.merge_sensors(records, "modis")
    assert found.declared() == (
        ("2002-07-01", "modis enters"), ("2011-01-01", "seawifs leaves"),
        ("2012-01-01", "viirs enters"),
    )  # fmt: skip
    assert "changes hands at 2002-07-01" in found.summary()
    declared = SensorChanges(
        tuple(SensorChange(*change) for change in found.declared()), sieve=QUICK
    )
    verdict = hold_against_sensors(
        breakpoints(np.log(found.values), model=BreakModel(harmonics=1), choice="bic"), declared
    )
    assert len(verdict.dates) == 3


def test_intervals_of_the_factor_cover_it():
    """Of 60 merges, about 57 intervals hold the factor: at least 50."""
    held = 0
    for seed in range(60):
        _, records = three(noise=0.1, seed=seed)
        how = ocean.Adjustment(draws=100, seed=seed)
        row = ocean.merge_sensors(records, "modis", how).adjustments.loc["seawifs"]
        held += row["low"] <= 1 / 1.2 <= row["high"]
    assert held >= 50


def test_a_chain_carries_the_doubt_of_its_links():
    water, _ = three()
    rng = np.random.default_rng(1)

    def seen(first, last):
        part = water.loc[first:last]
        return part * np.exp(rng.normal(0, 0.1, len(part)))

    records = {"a": seen("1998", "2005"), "b": seen("2004", "2012"), "c": seen("2011", "2017")}
    found = ocean.merge_sensors(records, "a", ocean.Adjustment(draws=400))
    assert found.adjustments.loc["c", "linked"] == "b"
    width = np.log(found.adjustments["high"] / found.adjustments["low"])
    assert width["c"] > width["b"] > width["a"] == 0.0
    spread = np.log(found.draws()).std(0)
    assert spread[-1] > 2 * spread[96] or spread[-1] > spread[84] > 0
    assert spread[0] == pytest.approx(0.0, abs=1e-9)


def test_factors_by_month_and_offsets():
    water, _ = truth()
    by_month = 1 + 0.3 * np.cos(2 * np.pi * water.index.month / 12)
    records = {"old": water[:"2010"] * by_month[: 13 * 12], "new": water["2002":]}
    how = ocean.Adjustment(by_month=True)
    found = ocean.merge_sensors(records, "new", how)
    assert found.values.to_numpy() == pytest.approx(water.to_numpy())
    plain = ocean.merge_sensors(records, "new")
    assert np.abs(np.log(plain.values / water)).max() > 0.1
    offset = {"old": water[:"2010"] + 0.01, "new": water["2002":]}
    found = ocean.merge_sensors(offset, "new", ocean.Adjustment(ocean.Kind.DIFFERENCE))
    assert found.adjustments.loc["old", "offset"] == pytest.approx(-0.01)
    assert found.values.to_numpy() == pytest.approx(water.to_numpy())


def test_a_line_of_logarithms():
    water, rng = truth()
    bent = 0.5 * water[:"2010"] ** 0.8
    noisy = {
        "old": bent * np.exp(rng.normal(0, 0.02, len(bent))),
        "new": water["2002":] * np.exp(rng.normal(0, 0.02, len(water["2002":]))),
    }
    found = ocean.merge_sensors(noisy, "new", ocean.Adjustment(ocean.Kind.LINE))
    assert found.adjustments.loc["old", "exponent"] == pytest.approx(1.25, rel=0.05)
    assert np.abs(np.log(found.values / water)).max() < 0.15


def test_grids_with_gaps():
    water, rng = truth(10)
    pattern = np.exp(rng.normal(0, 0.5, (4, 5)))
    cube = water.to_numpy()[:, None, None] * pattern
    coords = {"time": water.index, "lat": np.arange(4.0), "lon": np.arange(5.0)}
    whole = xr.DataArray(cube, dims=("time", "lat", "lon"), coords=coords, attrs={"units": "m-1"})
    old = (1.3 * whole.isel(time=slice(0, 80))).where(rng.random((80, 4, 5)) > 0.4)
    new = whole.isel(time=slice(50, 120)).where(rng.random((70, 4, 5)) > 0.4)
    found = ocean.merge_sensors({"old": old, "new": new}, "new")
    assert found.adjustments.loc["old", "factor"] == pytest.approx(1 / 1.3)
    there = np.isfinite(found.values.to_numpy())
    assert found.values.to_numpy()[there] == pytest.approx(cube[there])
    assert found.values.attrs == {"units": "m-1"}
    assert found.to_frame().shape == (120, 5)


def test_no_overlap_is_refused_and_so_are_other_mistakes():
    water, _ = truth()
    apart = {"old": water[:"2005"], "new": water["2006":]}
    with pytest.raises(AlignmentError, match="shares 0 times"):
        ocean.merge_sensors(apart, "new")
    short = {"old": water[:"2006-06"], "new": water["2006":]}
    with pytest.raises(AlignmentError, match="shares 6 times"):
        ocean.merge_sensors(short, "new")
    year = {"old": water[:"2007-02"], "new": water["2006":]}
    with pytest.raises(AlignmentError, match="rarest month"):
        ocean.merge_sensors(year, "new", ocean.Adjustment(by_month=True))
    with pytest.raises(EmptyInputError, match="reference"):
        ocean.merge_sensors(short, "modis")
    with pytest.raises(OutcomeError, match="zero or less"):
        ocean.merge_sensors({"old": -water, "new": water}, "new")
    with pytest.raises(AlignmentError, match="some twice"):
        ocean.merge_sensors({"old": pd.concat([water, water]), "new": water}, "new")
    with pytest.raises(EstimationError, match="line for every month"):
        ocean.Adjustment(ocean.Kind.LINE, by_month=True)
    with pytest.raises(EstimationError, match="no adjustment"):
        ocean.Adjustment(draws=1)


def test_the_same_seed_gives_the_same_draws():
    _, records = three()
    one, two = (ocean.merge_sensors(records, "modis").draws() for _ in range(2))
    other = ocean.merge_sensors(records, "modis", ocean.Adjustment(seed=1)).draws()
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
