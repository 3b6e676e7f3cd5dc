"""Outcomes and controls from xarray and pandas, transforms, looks, units, windows."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from eocausal.designs import Event
from eocausal.errors import (
    AlignmentError,
    DesignError,
    DuplicateIdError,
    EstimationError,
    OutcomeError,
    PanelError,
)
from eocausal.estimators.impact_calendar import regular_times
from eocausal.estimators.impact_input import _dates, series_of, table_of
from eocausal.estimators.impact_looks import Looks
from eocausal.estimators.impact_transforms import Log, Logit
from eocausal.estimators.impact_units import check_units, notes_on_units
from eocausal.estimators.impact_windows import EventRow, windows_of

DATES = pd.date_range("2010-01-01", periods=60, freq="MS")
RNG = np.random.default_rng(0)
PANEL = xr.Dataset(
    {
        "kd490": (("neighborhood", "time"), RNG.normal(size=(3, 60)), {"units": "m-1"}),
        "sst": (("neighborhood", "time"), RNG.normal(size=(3, 60))),
    },
    {"neighborhood": ["impact", "north", "south"], "time": DATES},
)
REGULAR = regular_times(DATES)
AFTER = np.asarray(DATES[36] <= DATES)


def test_one_series_of_a_panel():
    chosen = PANEL["kd490"].sel(neighborhood="impact")
    found = series_of(chosen)
    assert found.index.equals(DATES)
    assert found.name == "kd490"
    assert found.attrs["units"] == "m-1"
    assert found.equals(series_of(PANEL[["kd490"]].sel(neighborhood=["impact"])))
    assert series_of(chosen.to_series().to_frame()).equals(found)
    assert series_of(list(chosen.values)).index.equals(pd.RangeIndex(60))


@pytest.mark.parametrize(
    ("outcome", "error", "said"),
    [
        (PANEL, PanelError, r"variables 'kd490', 'sst'.*panel\['kd490'\]"),
        (PANEL["kd490"], PanelError, r"sel\(neighborhood=...\)"),
        (PANEL["kd490"].isel(neighborhood=0).rename(time="t"), PanelError, "dimensions"),
        (PANEL.to_dataframe(), PanelError, "2 columns"),
        (np.ones((3, 3)), PanelError, "shape"),
        (pd.Series(["1", "clear"]), OutcomeError, "no number"),
        (pd.Series([1.0, np.inf]), OutcomeError, "infinite at 1 times"),
    ],
)
def test_what_is_not_one_series_of_numbers_is_refused(outcome, error, said):
    with pytest.raises(error, match=f"(?s){said}"):
        series_of(outcome)


def test_controls_from_everything():
    assert table_of(None) is None
    assert table_of(pd.DataFrame(index=DATES)) is None
    others = PANEL["kd490"].sel(neighborhood=["north", "south"])
    assert list(table_of(others).columns) == ["north", "south"]
    both = table_of(PANEL.sel(neighborhood=["north", "south"]))
    assert list(both.columns) == ["kd490 north", "kd490 south", "sst north", "sst south"]
    assert both.index.equals(DATES)
    assert both.attrs["units_of"] == {"kd490 north": "m-1", "kd490 south": "m-1"}
    assert list(table_of(PANEL.sel(neighborhood="north")).columns) == ["kd490", "sst"]
    assert list(table_of(PANEL["sst"].sel(neighborhood="north")).columns) == ["sst"]
    assert list(table_of(np.ones((4, 2))).columns) == ["x1", "x2"]
    assert list(table_of(pd.Series([1.0], name="a")).columns) == ["a"]
    with pytest.raises(DuplicateIdError, match="share a name"):
        table_of(pd.concat([both, both], axis=1))
    with pytest.raises(PanelError, match="dimensions"):
        table_of(xr.DataArray(np.ones((2, 2, 60)), dims=("y", "x", "time")))


def test_dates_of_climate_models():
    """xarray holds these as a CFTimeIndex, of objects that print as ISO dates."""
    calendar = type("CFTimeIndex", (list,), {"calendar": "360_day"})
    assert _dates(calendar(["2010-01-15", "2010-02-15"]))[1] == pd.Timestamp("2010-02-15")
    with pytest.raises(AlignmentError, match="'360_day' do not exist"):
        _dates(calendar(["2010-01-30", "2010-02-30"]))


@pytest.mark.parametrize("transform", [Log(), Logit()])
def test_transforms_go_back(transform):
    y = RNG.uniform(0.01, 0.99, 50)
    assert transform.back(transform.forward(y, [""] * 50)) == pytest.approx(y)
    assert np.isnan(transform.forward(np.array([np.nan]), [""])).all()


@pytest.mark.parametrize(("transform", "bad"), [(Log(), 0.0), (Logit(), 1.0), (Logit(), -0.2)])
def test_values_without_a_scale_are_named(transform, bad):
    with pytest.raises(OutcomeError, match=rf"1 values.*2010-02: {bad:g}"):
        transform.forward(np.array([0.5, bad]), ["2010-01", "2010-02"])


def test_variance_falls_with_looks():
    count = pd.Series([1, 2, 4, 0], DATES[:4])
    assert Looks(count).variance().iloc[:3].tolist() == pytest.approx([12 / 7, 6 / 7, 3 / 7])
    assert np.isnan(Looks(count).variance().iloc[3])
    half = Looks(count, share=0.5).variance().iloc[:3]
    assert half.mean() == pytest.approx(1.0)
    assert half.min() > 0.5
    for wrong in ({"count": -count}, {"count": count, "share": 0.0}, {"count": 0 * count}):
        with pytest.raises(EstimationError, match="Looks from"):
            Looks(**wrong)


def test_a_factor_of_a_hundred_is_refused_wherever_it_begins():
    x = RNG.uniform(3, 6, 60)
    assert check_units("kd", x, DATES, ~AFTER, AFTER) == []
    for part in (AFTER, np.arange(60) < 9, np.arange(60) % 5 == 0):
        with pytest.raises(EstimationError, match="two units"):
            check_units("kd", np.where(part, x / 100, x), DATES, ~AFTER, AFTER)
    one = x.copy()
    one[7] *= 100
    assert "2010-08" in check_units("kd", one, DATES, ~AFTER, AFTER)[0]
    wide = np.exp(RNG.normal(0, 2.5, 60))  # three orders of magnitude, none left out
    assert check_units("chlorophyll", wide, DATES, ~AFTER, AFTER) == []
    assert check_units("anomaly", x - x.mean(), DATES, ~AFTER, AFTER) == []


@pytest.mark.parametrize("middle", [-0.053, 0.053])
def test_medians_of_anomalies_are_no_units(middle):
    x = np.linspace(-3.0, 3.0, len(DATES))
    for side, median in ((~AFTER, middle), (AFTER, 5.3)):
        x[side] += median - np.median(x[side])
    assert np.median(x[AFTER]) / np.median(x[~AFTER]) == pytest.approx(np.sign(middle) * 100)
    assert check_units("anomaly", x, DATES, ~AFTER, AFTER) == []
    assert check_units("anomaly", np.where(AFTER, 5.3, -0.053), DATES, ~AFTER, AFTER) == []
    with pytest.raises(EstimationError, match="two units"):
        check_units("anomaly", np.where(AFTER, -500.0, -5.0) + x, DATES, ~AFTER, AFTER)


def test_a_control_named_like_the_outcome_in_another_unit_is_said():
    y = pd.Series(RNG.uniform(3, 6, 60), DATES, name="Kd490")
    x = pd.DataFrame({"kd490_control": RNG.uniform(0.03, 0.06, 60), "sst": 29.0}, DATES)
    notes = notes_on_units(y, x, ~AFTER, {})
    assert len(notes) == 1
    assert "factor of about 100" in notes[0]
    units = {"Kd490": "m-1", "kd490_control": "cm-1"}
    assert "is in m-1, the control" in notes_on_units(y / 100, x, ~AFTER, units)[0]


def test_windows_by_date_and_row_are_the_same():
    by_date = windows_of(Event("2013-01", "2014-06"), DATES, REGULAR, "2012-06")
    by_row = windows_of(EventRow(36, 53), DATES, REGULAR, 29)
    assert np.array_equal(by_date.post, by_row.post)
    assert np.array_equal(by_date.before, by_row.before)
    assert (by_date.before.sum(), by_date.post.sum()) == (30, 18)
    assert by_row.names == ("row 36",)


def test_rows_are_counted_among_those_given():
    given = DATES.delete([5, 40])
    found = windows_of(EventRow(35), given, regular_times(given))
    assert found.post.sum() == 24
    assert found.before.sum() == 36


def test_several_events_are_learned_from_before_the_first():
    events = [Event("2014-01"), Event("2012-01", "2012-06"), Event("2013-01")]
    found = windows_of(events, DATES, REGULAR)
    assert found.names == ("2012-01", "2013-01", "2014-01")
    assert [mask.sum() for mask in found.each] == [6, 12, 12]
    assert found.before.sum() == 24
    assert found.post.sum() == 30


@pytest.mark.parametrize(
    ("event", "until", "error", "said"),
    [
        (Event("2009"), None, DesignError, "only post-period"),
        (Event("2016"), None, DesignError, "no post-period"),
        (EventRow(0), None, DesignError, "no row before"),
        (EventRow(60), None, DesignError, "no row after"),
        (Event("2013-01-05", "2013-01-20"), None, DesignError, "in the window"),
        (Event("2013"), "2009", DesignError, "Nothing is left"),
        (Event("2013"), -1, DesignError, "Nothing is left"),
        ([Event("2012", "2013-05"), Event("2013-01")], None, DesignError, "overlap"),
        ([Event("2012"), Event("2012")], None, DesignError, "overlap"),
        ([], None, DesignError, "no event"),
    ],
)
def test_events_outside_the_record_are_refused(event, until, error, said):
    with pytest.raises(error, match=said):
        windows_of(event, DATES, REGULAR, until)


def test_dates_need_dates():
    rows = regular_times(pd.RangeIndex(60))
    with pytest.raises(AlignmentError, match=r"EventRow\(256\)"):
        windows_of(Event("2013"), rows.times, rows)
    with pytest.raises(AlignmentError, match="learn_until"):
        windows_of(EventRow(30), rows.times, rows, "2012-01")
    with pytest.raises(DesignError, match="rows 5 to 3"):
        EventRow(5, 3)
