"""Labels of periods: what they cover, and that scenes find theirs."""

from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eocausal.errors import EmptyInputError, IngestError, MissingColumnError, SceneError
from eocausal.ingest.periods import dates_of, period_range
from eocausal.ingest.times import parse_period

DAY = pd.Timedelta(days=1)


@pytest.mark.parametrize(
    ("arguments", "first", "last", "count"),
    [
        (("1998-01", "2022-12"), "1998-01", "2022-12", 300),
        (("1998", "2022"), "1998-01", "2022-12", 300),
        (("1998", "2022", "year"), "1998", "2022", 25),
        (("1990", "2009", "5Y"), "1990/1994", "2005/2009", 4),
        (("1990", "2001", "5Y"), "1990/1994", "2000/2001", 3),
        (("2015-01", "2015-10", "quarter"), "2015-01/2015-03", "2015-10", 4),
        (("2015-11", "2016-04", "2M"), "2015-11/2015-12", "2016-03/2016-04", 3),
        (("2014", "2016", "season"), "2014-03/2014-05", "2016-09/2016-11", 11),
        (("2016-02-27", "2016-03-01", "day"), "2016-02-27", "2016-03-01", 4),
        (("2015", "2016", "8D"), "2015-01-01/2015-01-08", "2016-12-26/2016-12-31", 92),
        (("2015-12-27", "2016-01-08", "8D"), "2015-12-27/2015-12-31", "2016-01-01/2016-01-08", 2),
        (("2015-12-20", "2015-12-28", "8D"), "2015-12-20/2015-12-27", "2015-12-28", 2),
    ],
)
def test_regular_periods(arguments, first, last, count):
    labels = period_range(*arguments)
    assert (labels[0], labels[-1], len(labels)) == (first, last, count)


@given(
    st.dates(pd.Timestamp("1980-01-01").date(), pd.Timestamp("2030-12-31").date()),
    st.integers(0, 900),
    st.integers(1, 400),
)
def test_periods_of_days_cover_every_day_once(start, length, days):
    first = pd.Timestamp(start)
    end = first + length * DAY
    spans = [
        parse_period(p) for p in period_range(f"{first:%Y-%m-%d}", f"{end:%Y-%m-%d}", f"{days}D")
    ]
    assert spans[0][0] == first
    assert spans[-1][1].normalize() == end
    for (_, before), (after, last) in pairwise(spans):
        assert after - before.normalize() == DAY
        assert after.year == last.year
    assert all((b.normalize() - a).days < days for a, b in spans)


@given(st.integers(1980, 2030), st.integers(0, 11), st.integers(1, 60), st.integers(1, 30))
def test_periods_of_months_cover_every_month_once(year, month, length, step):
    months = pd.period_range(f"{year}-{month + 1:02d}", periods=length, freq="M")
    spans = [parse_period(p) for p in period_range(str(months[0]), str(months[-1]), f"{step}M")]
    assert spans[0][0] == months[0].start_time
    assert spans[-1][1] == months[-1].end_time
    for (_, before), (after, _) in pairwise(spans):
        assert after - before.normalize() == DAY


@pytest.mark.parametrize("every", ["weekly", "0D", "D8", "1.5M", "", "8W"])
def test_lengths_that_cannot_be_read(every):
    with pytest.raises(IngestError, match="every="):
        period_range("2015", "2016", every)


@pytest.mark.parametrize(
    "arguments",
    [("2015-01-15", "2015-06"), ("2015-01", "2015-06-29"), ("2015-02", "2016", "year")],
)
def test_a_part_of_a_month_does_not_pass_for_a_whole_one(arguments):
    with pytest.raises(IngestError, match="cuts a"):
        period_range(*arguments)


def test_stretches_that_cannot_be():
    with pytest.raises(IngestError, match="before it begins"):
        period_range("2016", "2015")
    with pytest.raises(IngestError, match="all"):
        period_range("all", "2015")
    assert period_range("2015-01", "2015-02", "season") == []


def table(*spans):
    first, last = zip(*((s if isinstance(s, tuple) else (s, s)) for s in spans), strict=True)
    hrefs = [f"/data/{k}.tif" for k in range(len(spans))]
    times = {"time": [pd.Timestamp(t) for t in first], "time_end": [pd.Timestamp(t) for t in last]}
    return pd.DataFrame({"href": hrefs, **times})


def test_every_day_of_acquisition_is_a_period():
    scenes = table("2016-07-05 08:12", "2015-01-01", "2016-07-05 08:13", "2016-07-15")
    assert dates_of(scenes) == ["2015-01-01", "2016-07-05", "2016-07-15"]


def test_acquisitions_within_some_days_share_a_period():
    days = [f"2016-07-{d:02d}" for d in (1, 3, 5, 7, 20)]
    assert dates_of(table(*days), within=4) == [
        "2016-07-01/2016-07-05",
        "2016-07-07",
        "2016-07-20",
    ]
    assert dates_of(table(*days), within=1) == days


def test_scenes_that_overlap_in_time_share_a_period():
    scenes = table(("2016-07-01", "2016-07-31 23:59"), "2016-07-10", "2016-08-01")
    assert dates_of(scenes) == ["2016-07-01/2016-07-31", "2016-08-01"]
    night = table(("2016-07-01 23:59", "2016-07-02 00:01"), "2016-07-04")
    assert dates_of(night) == ["2016-07-01/2016-07-02", "2016-07-04"]


@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 20)), min_size=1, max_size=40),
    st.integers(0, 30),
)
def test_each_scene_lies_in_exactly_one_period(days, within):
    origin = pd.Timestamp("2010-01-01 10:30")
    spans = [(origin + a * DAY, origin + (a + n) * DAY) for a, n in days]
    labels = dates_of(table(*spans), within=within)
    periods = [parse_period(p) for p in labels]
    for begin, end in spans:
        assert sum(a <= begin and end <= b for a, b in periods) == 1
    assert all(b < c for (_, b), (c, _) in pairwise(periods))


def test_scenes_that_have_no_day():
    scenes = table("2016-07-01", "2016-07-02")
    scenes.loc[1, ["time", "time_end"]] = pd.NaT
    with pytest.raises(SceneError, match=r"1\.tif"):
        dates_of(scenes)
    with pytest.raises(EmptyInputError):
        dates_of(scenes.iloc[:0])
    with pytest.raises(IngestError, match="within"):
        dates_of(scenes, within=-1)
    with pytest.raises(MissingColumnError, match="time_end"):
        dates_of(scenes.drop(columns="time_end"))
