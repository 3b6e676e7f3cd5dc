"""Calendars: what is missing is put back, composites begin anew each year, the rest is refused."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eocausal.errors import AlignmentError, DuplicateIdError, PanelError
from eocausal.estimators.impact_calendar import plain_times, regular_times, time_label

MONTHS = pd.date_range("2000-01-01", periods=120, freq="MS")


def anew(step, first=1, years=range(2000, 2012)):
    """Composites of ``step`` days that begin anew each year, leap years among them."""
    days = [pd.Timestamp(year=y, month=1, day=1) + pd.Timedelta(days=d)
            for y in years for d in range(first - 1, 365, step)]  # fmt: skip
    return pd.DatetimeIndex(days)


def days_of_month(*days):
    return pd.DatetimeIndex([m + pd.Timedelta(days=d - 1) for m in MONTHS for d in days])


WHOLE = {
    "month": (MONTHS, "month", 12),
    "middles of months": (MONTHS + pd.Timedelta(days=14), "month", 12),
    "ends of months": (pd.date_range("2000-01-31", periods=120, freq="ME"), "month", 12),
    "year": (pd.date_range("2000-01-01", periods=40, freq="YS"), "year", None),
    "quarter": (pd.date_range("2000-01-01", periods=40, freq="QS"), "quarter", 4),
    "16 days": (anew(16), "step of 16 days, beginning anew each year", 23),
    "8 days": (anew(8), "step of 8 days, beginning anew each year", 46),
    "8 days, middles": (anew(8, 5), "step of 8 days, beginning anew each year", 46),
    "dekad": (days_of_month(1, 11, 21), "dekad", 36),
    "half-month": (days_of_month(1, 16), "half-month", 24),
    "week": (pd.date_range("2000-01-01", periods=120, freq="7D"), "step of 7 days", 365.2425 / 7),
    "day": (pd.date_range("2000-01-01", periods=400), "day", 365.2425),
    "6 hours": (pd.date_range("2000-01-01", periods=99, freq="6h"), "step of 6 hours", 1460.97),
    "rows": (pd.RangeIndex(50), "row", None),
    "numbers": (pd.Index(np.arange(2000, 2100, 5)), "step of 5", None),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_calendar_is_known_and_left_as_it_is(name):
    index, step, period = WHOLE[name]
    found = regular_times(plain_times(index, "The outcome"))
    assert found.times.equals(index)
    assert found.step == step
    assert found.period == (None if period is None else pytest.approx(period))
    assert found.note == ""


@pytest.mark.parametrize("name", WHOLE)
@settings(deadline=None, max_examples=20)
@given(st.data())
def test_what_is_missing_is_put_back_where_it_was(name, data):
    index = WHOLE[name][0]
    inner = st.integers(1, len(index) - 2)
    gone = sorted(data.draw(st.sets(inner, min_size=1, max_size=len(index) // 6)))
    kept = index.delete(gone)
    found = regular_times(kept)
    assert len(found.times) == len(index)
    assert found.times[found.place].equals(kept)
    assert set(range(len(index))) - set(found.place) == set(gone)
    assert found.times.is_monotonic_increasing
    assert np.array_equal(found.locate(found.times), np.arange(len(index)))
    assert f"{len(gone)} step" in found.note
    values = found.spread(np.arange(len(kept), dtype=float))
    assert np.isnan(values[gone]).all()
    assert np.array_equal(values[found.place], np.arange(len(kept)))


def test_months_are_met_by_month_and_days_by_day():
    month = regular_times(MONTHS)
    assert np.array_equal(month.locate(MONTHS + pd.Timedelta(days=14)), np.arange(120))
    week = regular_times(WHOLE["week"][0])
    assert week.locate(week.times + pd.Timedelta(days=1))[0] == 0
    assert week.locate(week.times + pd.Timedelta(days=3))[0] == -1


def test_dates_a_little_off_are_said():
    rng = np.random.default_rng(0)
    off = pd.to_timedelta(rng.integers(-1, 2, 120), unit="D")
    found = regular_times(WHOLE["week"][0] + off)
    assert len(found.times) == 120
    assert "usually 7" in found.note


@pytest.mark.parametrize(
    ("index", "error", "said"),
    [
        (pd.DatetimeIndex(np.sort(np.datetime64("2000-01-01") + np.cumsum(
            np.random.default_rng(1).integers(1, 60, 99)))), PanelError, "irregular"),
        (pd.Index([199811, 199812, 199901]), PanelError, "irregular"),
        (pd.Index([1.5, 2.5, 3.5]), PanelError, "fractions"),
        (MONTHS.append(MONTHS[:1]), DuplicateIdError, "twice: '2000-01'"),
        (MONTHS[::-1], AlignmentError, "do not increase"),
        (MONTHS.append(pd.DatetimeIndex([None])), PanelError, "1 of the times"),
        (pd.Index(["a", "b"]), AlignmentError, "indexed by"),
    ],
)  # fmt: skip
def test_what_is_no_calendar_is_refused(index, error, said):
    with pytest.raises(error, match=said):
        regular_times(plain_times(index, "The outcome"))


def test_time_zones_and_periods_are_plain_dates():
    assert plain_times(MONTHS.tz_localize("Asia/Makassar"), "x").equals(MONTHS)
    assert plain_times(pd.period_range("2000-01", periods=120, freq="M"), "x").equals(MONTHS)


def test_labels_are_as_short_as_they_can_be():
    assert time_label(pd.Timestamp("2019-05-01")) == "2019-05"
    assert time_label(pd.Timestamp("2019-05-03")) == "2019-05-03"
    assert time_label(pd.Timestamp("2019-05-03 06:00")) == "2019-05-03 06:00"
    assert time_label(7) == "7"
