"""Breaks beside other methods, sensor changes, sizes of shifts, and many series at once."""

import importlib

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter

from eocausal.errors import AlignmentError, EmptyInputError, EstimationError, OutcomeError
from eocausal.estimators import breaks_peers
from eocausal.estimators.breakpoints import breakpoints
from eocausal.estimators.breaks_calendar import calendar_of
from eocausal.estimators.breaks_consensus import compare_methods, consensus
from eocausal.estimators.breaks_many import breakpoints_of_many
from eocausal.estimators.breaks_model import BreakModel
from eocausal.estimators.breaks_peers import Beast, Pelt
from eocausal.estimators.breaks_sensors import (
    SensorChange,
    SensorChanges,
    hold_against_sensors,
)
from eocausal.estimators.breaks_sieve import ArSieve
from eocausal.estimators.shift_sizes import Blocks, cliffs_delta, hodges_lehmann, shift_size

QUICK = ArSieve(draws=99, bias_draws=30)
MONTHS = pd.date_range("2000-01-01", periods=120, freq="MS")


@pytest.fixture(scope="module")
def stepped():
    """Two steps: one of them where a sensor is declared to have entered."""
    noise = lfilter([1.0], [1.0, -0.3], np.random.default_rng(0).normal(0, 0.3, 120))
    steps = 1.5 * (MONTHS >= "2003-05-01") - 1.5 * (MONTHS >= "2007-01-01")
    return breakpoints(pd.Series(noise + steps, MONTHS, name="Kd490"), choice=2, interval="bai")


def test_methods_agree_within_a_tolerance():
    found = consensus({"a": [50, 256], "b": [255], "c": [258, 20]}, tolerance=3, least=2)
    (one,) = found.agreed
    assert (one.at, one.earliest, one.latest, one.methods) == (256, 255, 258, ("a", "b", "c"))
    assert [a.at for a in found.alone] == [20, 50]
    table = found.to_frame()
    assert table["support"].tolist() == pytest.approx([1 / 3, 1 / 3, 1.0])
    assert table["agreed"].tolist() == [False, False, True]
    assert "3 of 3 methods (a, b, c) break at 256" in found.summary()
    assert "256 (3/3)" in repr(found)
    none = consensus({"a": [5], "b": [90]})
    assert "No 2 of 2 methods agree" in none.summary()
    assert repr(none) == "Consensus(none)"


def test_a_tolerance_counts_steps_of_the_calendar_not_rows():
    calendar = calendar_of(MONTHS[[0, 1, 2, 3, 40, 41, 42]])
    votes = {"a": [3], "b": [4]}
    assert consensus(votes, tolerance=2).agreed
    assert not consensus(votes, tolerance=2, calendar=calendar).agreed


def test_a_consensus_needs_methods():
    with pytest.raises(EmptyInputError, match="no methods"):
        consensus({})
    with pytest.raises(EstimationError, match="least=3"):
        consensus({"a": [1], "b": [2]}, least=3)


def test_any_detector_may_keep_company(stepped):
    class Midpoint:
        name = "midpoint"

        def find(self, values):
            return (len(values) // 3,)

    found = compare_methods(stepped, [Midpoint()])
    assert set(found.found) == {"Bai-Perron", "midpoint"}
    assert found.agreed[0].after.startswith("2003")


@pytest.mark.parametrize("detector", [Pelt(), Beast()])
def test_a_package_that_is_missing_is_named(monkeypatch, detector):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(breaks_peers, "import_module", missing)
    with pytest.raises(EstimationError, match=r"pip install (ruptures|Rbeast)"):
        detector.find(np.arange(9.0))


def test_other_packages_are_not_imported_by_ours():
    import subprocess
    import sys

    names = [importlib.util.resolve_name(f".{m}", "eocausal.estimators") for m in
             ("breakpoints", "breaks_consensus", "breaks_peers")]  # fmt: skip
    code = f"import sys, {', '.join(names)}; sys.exit('ruptures' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_breaks_are_held_against_sensor_changes(stepped):
    declared = SensorChanges(
        (
            SensorChange("2003-04-10", "new sensor"),
            SensorChange("2005-02-01", "recalibration"),
            SensorChange("1980-01-01", "before the record"),
        ),
        tolerance=2,
        sieve=QUICK,
    )
    found = hold_against_sensors(stepped, declared)
    assert found.coincides
    assert found.breaks["declared"].tolist() == ["new sensor (2003-04-10)", ""]
    assert found.breaks["within"].tolist() == ["tolerance", ""]
    table = found.to_frame().set_index("what")
    assert table.loc["new sensor", "p_value"] == pytest.approx(0.01)
    assert table.loc["recalibration", "p_value"] > 0.05
    assert np.isnan(table.loc["before the record", "p_value"])
    assert found.chance == pytest.approx(10 / 120)
    text = found.summary()
    assert "within 2 steps of a declared sensor change: new sensor" in text
    assert "from 2007-01 on is at no declared sensor change" in text
    assert "steps at the declared date 2003-04-10" in text
    assert "1 of 2 breaks" in repr(found)


def test_a_sensor_inside_the_interval_of_a_break_is_told_apart(stepped):
    second = stepped.breaks[1]
    assert second.interval.last > second.at
    date = str(stepped.calendar.times[second.interval.last].date())
    declared = SensorChanges((SensorChange(date, "late"),), tolerance=0, sieve=QUICK)
    found = hold_against_sensors(stepped, declared)
    assert found.breaks["within"].tolist() == ["", "interval"]
    assert "no further than its interval reaches" in found.summary()


def test_sensor_changes_must_be_declared():
    with pytest.raises(EmptyInputError, match="No sensor change"):
        SensorChanges(())
    with pytest.raises(EstimationError, match="negative"):
        SensorChanges((SensorChange("2000", "x"),), tolerance=-1)


def test_delta_and_shift_by_all_pairs():
    rng = np.random.default_rng(1)
    before, after = rng.integers(0, 9, 40).astype(float), rng.integers(3, 12, 25).astype(float)
    pairs = after[:, None] - before
    assert cliffs_delta(before, after) == pytest.approx(np.sign(pairs).mean())
    assert hodges_lehmann(before, after) == np.median(pairs)
    assert cliffs_delta(before, before) == 0


@pytest.mark.parametrize("resample", [QUICK, Blocks(draws=99), Blocks(length=4, draws=99)])
def test_intervals_of_shifts(resample):
    y = lfilter([1.0], [1.0, -0.5], np.random.default_rng(2).normal(size=320))[200:]
    y[70:] = 1.5 * y[70:] + 2.0
    found = shift_size(y, 70, resample=resample)
    assert found.delta_low < found.delta < found.delta_high <= 1
    assert found.shift_low < 2.0 < found.shift_high
    moved = shift_size(3 * y + 10, 70, resample=resample)
    assert moved.delta == found.delta
    np.testing.assert_allclose(moved.shift_high, 3 * found.shift_high, rtol=1e-6)
    assert found.word == "large"
    assert "large" in found.summary()
    assert found.to_frame().loc["cliffs_delta", "estimate"] == found.delta
    assert "shift +" in repr(found)
    assert found.method.startswith("red noise" if resample is QUICK else "blocks of")


def test_red_noise_widens_intervals_of_shifts():
    y = lfilter([1.0], [1.0, -0.8], np.random.default_rng(3).normal(size=400))[200:]
    red, white = (shift_size(y, 120, resample=ArSieve(m, draws=99)) for m in (1, 0))
    assert red.shift_high - red.shift_low > 1.8 * (white.shift_high - white.shift_low)


def test_shifts_that_say_nothing_are_refused():
    y = np.arange(30.0)
    with pytest.raises(EstimationError, match="28 values before and 2 after"):
        shift_size(y, 28)
    with pytest.raises(OutcomeError, match="all the same"):
        shift_size(np.ones(30), 15)
    with pytest.raises(OutcomeError, match="missing"):
        shift_size(np.where(y == 3, np.nan, y), 15)
    with pytest.raises(EstimationError, match="no bootstrap"):
        Blocks(length=0)


@pytest.fixture
def scene():
    rng = np.random.default_rng(4)
    month = np.cos(2 * np.pi * MONTHS.month.to_numpy() / 12)
    table = pd.DataFrame(rng.normal(0, 0.4, (120, 6)) + month[:, None], MONTHS, list("abcdef"))
    table.loc["2005-06-01":, ["b", "c"]] += 1.5
    table.loc["2003-01-01":"2003-06-01", "c"] = np.nan
    table["d"], table["e"] = np.nan, 7.0
    table.loc["2000-05-01":, "f"] = np.nan
    return table


def test_many_series_are_searched_as_one_is(scene):
    model = BreakModel(harmonics=1, max_breaks=2)
    found = breakpoints_of_many(scene, model)
    assert found.number.tolist() == [0, 1, 1, -1, -1, -1]
    table = found.to_frame()
    assert table.loc["a", "after_1"] == ""
    for name in "bc":
        alone = breakpoints(scene[name], model=model, choice="lwz", interval="bai")
        assert table.loc[name, "after_1"] == alone.breaks[0].after
        row = scene.columns.get_loc(name)
        np.testing.assert_allclose(found.rss[row], alone.rss, rtol=1e-9)
    assert "No time has a value" in table.loc["d", "problem"]
    assert "All values are the same" in table.loc["e", "problem"]
    assert "4 observations" in table.loc["f", "problem"]
    text = found.summary()
    assert "2 of 3 series have a break (LWZ)" in text
    assert "1 series not searched: No time has a value." in text
    assert "3 not searched" in repr(found)
    assert breakpoints_of_many(scene, model, choice=2).number.tolist()[:3] == [2, 2, 2]


def test_many_series_take_controls(scene):
    control = pd.DataFrame({"x": scene["b"].to_numpy() + 0.0})
    found = breakpoints_of_many(scene[["c"]], BreakModel(max_breaks=1), controls=control)
    assert found.rss[0, 0] < breakpoints_of_many(scene[["c"]], BreakModel(max_breaks=1)).rss[0, 0]


def test_tables_that_say_nothing_are_refused(scene):
    with pytest.raises(AlignmentError, match="0 series"):
        breakpoints_of_many(scene.iloc[:, :0], BreakModel())
    with pytest.raises(EstimationError, match="choice='tests'"):
        breakpoints_of_many(scene, BreakModel(), choice="tests")
    with pytest.raises(EstimationError, match="too few"):
        breakpoints_of_many(scene, BreakModel(min_segment=0.7))
