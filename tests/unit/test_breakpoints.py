"""Breakpoints of one series: gaps, dates, words and refusals."""

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter

from eocausal.errors import (
    AlignmentError,
    DuplicateIdError,
    EocausalError,
    EstimationError,
    OutcomeError,
    PanelError,
)
from eocausal.estimators.breakpoints import breakpoints
from eocausal.estimators.breaks_calendar import calendar_of
from eocausal.estimators.breaks_model import BreakModel
from eocausal.estimators.breaks_number import Sequential
from eocausal.estimators.breaks_sieve import ArSieve

QUICK = Sequential(sieve=ArSieve(draws=199, bias_draws=50))
MONTHS = pd.date_range("2000-01-01", periods=168, freq="MS")


@pytest.fixture
def series():
    rng = np.random.default_rng(11)
    noise = lfilter([1.0], [1.0, -0.4], rng.normal(0.0, 0.2, 368))[200:]
    month = MONTHS.month.to_numpy()
    values = 4.0 + 0.8 * np.cos(2 * np.pi * month / 12) + noise + 1.0 * (MONTHS >= "2008-03-01")
    return pd.Series(values, MONTHS, name="Kd490")


def test_a_break_beside_a_season_and_gaps_keeps_its_date(series):
    series[["2001-04-01", "2006-11-01", "2010-02-01"]] = np.nan
    series = series.drop(pd.Timestamp("2004-07-01"))
    found = breakpoints(series, model=BreakModel(harmonics=1), choice=QUICK, seed=3)
    (one,) = found.breaks
    before, after = (pd.Period(text, "M").ordinal for text in (one.before, one.after))
    assert abs(after - pd.Period("2008-03", "M").ordinal) <= 1
    assert after - before == 1
    assert one.first <= "2008-03" <= one.last
    assert one.change == pytest.approx(1.0, abs=3 * one.std_error)
    assert 0.03 < one.std_error < 0.12
    assert one.p_value == pytest.approx(1 / 200)
    assert (len(found.values), found.left_out) == (164, 4)
    np.testing.assert_allclose(found.lasting.mean(), 0.0, atol=1e-12)
    assert np.ptp(found.lasting) == pytest.approx(1.6, rel=0.1)


def test_it_says_in_words_and_in_tables_what_it_found(series):
    found = breakpoints(series, model=BreakModel(harmonics=1), choice=QUICK)
    text = found.summary()
    assert "Kd490: 168 months from 2000-01 to 2013-12" in text
    assert "One break (tests against red noise at 5%)" in text
    assert "higher" in text
    assert "red noise: it makes the standard error" in text
    assert found.to_frame()["after"].tolist() == [found.breaks[0].after]
    assert found.criteria().shape == (6, 4)
    assert found.breaks[0].after in repr(found)
    assert len(found.tests) == 2
    assert found.anything.p_value == pytest.approx(1 / 200)
    same = breakpoints(series, model=BreakModel(harmonics=1), choice=QUICK)
    pd.testing.assert_frame_equal(same.to_frame(), found.to_frame())


def test_no_break_is_said_so():
    noise = pd.Series(np.random.default_rng(2).normal(size=60), pd.RangeIndex(1951, 2011))
    found = breakpoints(noise, choice=QUICK)
    assert found.breaks == ()
    assert found.to_frame().empty
    assert "No break" in found.summary()
    assert "none" in repr(found)


def test_a_trend_is_no_break_where_the_model_has_one():
    rng = np.random.default_rng(3)
    values = pd.Series(0.02 * np.arange(168) + rng.normal(0, 0.3, 168), MONTHS)
    assert breakpoints(values, choice="bic", model=BreakModel(min_segment=30)).breaks
    assert not breakpoints(values, choice=QUICK, model=BreakModel(trend=True)).breaks
    kink = values + 0.06 * np.maximum(np.arange(168) - 90, 0)
    found = breakpoints(kink, choice=QUICK, model=BreakModel(changes="trend"))
    assert len(found.breaks) == 1
    assert abs(found.at[0] - 90) < 15
    assert "level and trend changing" in found.summary()


def test_a_control_takes_a_shared_shift_out(series):
    shared = pd.DataFrame({"control": 2.0 * (MONTHS >= "2008-03-01") + np.sin(np.arange(168.0))})
    shared["control"] += np.random.default_rng(4).normal(0, 0.3, 168)
    both = series + shared["control"].to_numpy()
    alone = breakpoints(both, model=BreakModel(harmonics=1), choice=1, interval="bai")
    beside = breakpoints(
        both, controls=shared, model=BreakModel(harmonics=1), choice=1, interval="bai"
    )
    assert beside.rss[0] < 0.2 * alone.rss[0]
    assert beside.breaks[0].change < alone.breaks[0].change
    shared.loc[7, "control"] = np.nan
    gap = breakpoints(both, controls=shared, model=BreakModel(harmonics=1), choice=0)
    assert gap.left_out == 1


def test_every_coefficient_may_change():
    steps = np.arange(168)
    swing = np.cos(2 * np.pi * steps / 12) * np.where(steps < 80, 0.3, 2.0)
    values = pd.Series(swing + np.random.default_rng(5).normal(0, 0.3, 168), MONTHS)
    model = BreakModel(harmonics=1, changes="all", max_breaks=2)
    found = breakpoints(values, choice="lwz", model=model)
    assert len(found.breaks) == 1
    assert abs(found.at[0] - 80) <= 3
    assert abs(found.breaks[0].change) < 0.3
    for interval in ("bai", "bai hac"):
        again = breakpoints(values, choice=1, interval=interval, model=model)
        assert again.breaks[0].interval.first <= 80 <= again.breaks[0].interval.last


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda s: s.iloc[:0], OutcomeError, "None of 0 times"),
        (lambda s: s * np.nan, OutcomeError, "None of 168 times"),
        (lambda s: s * 0 + 3, OutcomeError, "All 168 values of the series are 3"),
        (lambda s: s.where(s.index != MONTHS[5], np.inf), OutcomeError, "infinite"),
        (lambda s: s.iloc[:5], EstimationError, "Segments of 0 observations"),
        (lambda s: pd.concat([s, s.iloc[-1:]]), DuplicateIdError, "share a time"),
        (lambda s: s.iloc[::-1], PanelError, "do not rise"),
        (lambda s: s.set_axis([pd.NaT, *MONTHS[1:]]), PanelError, "times are missing"),
        (lambda s: s.set_axis(np.arange(168) / 12), PanelError, "fractions"),
    ],
)
def test_series_that_say_nothing_are_refused(series, change, error, said):
    with pytest.raises(error, match=said) as caught:
        breakpoints(change(series), choice=1)
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": BreakModel(min_segment=0.6)}, "too few for 1 break with segments of 100"),
        ({"model": BreakModel(min_segment=90)}, "too few for 1 break with segments of 90"),
        ({"model": BreakModel(max_breaks=9)}, "too few for 9 breaks"),
        ({"model": BreakModel(harmonics=2, changes="all", min_segment=4)}, "cannot hold 5"),
        ({"choice": 7}, "choice=7"),
        ({"choice": "aic"}, "choice='aic'"),
        ({"choice": 1, "interval": "wild"}, "interval='wild'"),
        ({"choice": 1, "level": 0.2}, "level=0.2"),
    ],
)
def test_models_that_do_not_fit_are_refused(series, options, said):
    with pytest.raises(EstimationError, match=said):
        breakpoints(series, **options)


def test_controls_and_times_must_fit(series):
    with pytest.raises(AlignmentError, match="Controls have 3 rows"):
        breakpoints(series, controls=pd.DataFrame({"x": [1.0, 2, 3]}))
    with pytest.raises(AlignmentError, match="2 times and 168 values"):
        breakpoints(series.to_numpy(), MONTHS[:2])
    with pytest.raises(AlignmentError, match="shape"):
        breakpoints(np.zeros((4, 5)))
    with pytest.raises(OutcomeError, match="explain every value"):
        breakpoints(series, controls=pd.DataFrame({"x": series.to_numpy()}))
    with pytest.raises(EstimationError, match="combination of the others"):
        breakpoints(series, controls=pd.DataFrame({"x": np.ones(168)}))
    with pytest.raises(EstimationError, match="harmonics are asked for"):
        breakpoints(series.to_numpy(), model=BreakModel(harmonics=2))


@pytest.mark.parametrize(
    "options", [{"changes": "slope"}, {"harmonics": -1}, {"harmonics": 6, "period": 12.0}]
)
def test_models_that_mean_nothing_are_refused(options):
    with pytest.raises(EstimationError):
        BreakModel(**options)


@pytest.mark.parametrize(
    ("times", "step", "period", "last"),
    [
        (pd.date_range("2000", periods=9, freq="YS"), "year", None, 8),
        (pd.date_range("2000", periods=9, freq="QS"), "quarter", 4.0, 8),
        (pd.date_range("2000", periods=9, freq="ME"), "month", 12.0, 8),
        (pd.period_range("2000-01", periods=9, freq="M"), "month", 12.0, 8),
        (pd.date_range("2000", periods=9, freq="D"), "day", 365.2425, 8),
        (pd.date_range("2000", periods=9, freq="8D").delete(3), "day", 365.2425 / 8, 8),
        ([1990, 1991, 1995], "step", None, 5),
        (["2000-01-01", "2000-02-01", "2000-07-01"], "month", 12.0, 6),
    ],
)
def test_calendars_count_steps(times, step, period, last):
    found = calendar_of(times)
    assert (found.step, found.position[-1] - found.position[0]) == (step, last)
    assert found.period == (pytest.approx(period) if period else None)
    assert "missing" in repr(found)


@pytest.mark.parametrize(
    ("days", "step", "a_year"),
    [
        (range(0, 365, 8), "day", 46), (range(0, 365, 16), "day", 23),
        ((0, 10, 20), "dekad", 36), ((0, 15), "half-month", 24),
    ],
)  # fmt: skip
def test_composites_that_begin_anew_are_counted_without_drift(days, step, a_year):
    starts = pd.date_range("2001", "2012", freq="YS" if step == "day" else "MS", inclusive="left")
    times = pd.DatetimeIndex([start + pd.Timedelta(days=d) for start in starts for d in days])
    assert np.array_equal(calendar_of(times).position, np.arange(len(times)))
    rng = np.random.default_rng(5)
    there = np.sort(rng.permutation(len(times))[: -len(times) // 10])
    found = calendar_of(times[there])
    assert (found.step, found.period) == (step, a_year)
    assert np.array_equal(found.position, there - there[0])
    season = 3.0 * np.sin(2 * np.pi * np.arange(len(times)) / a_year)
    y = (season + 2.0 * (times >= "2007") + rng.normal(0.0, 0.5, len(times)))[there]
    model = BreakModel(harmonics=1, period=a_year)
    (one,) = breakpoints(y, times[there], model=model, choice=1).breaks
    (counted,) = breakpoints(y, there, model=model, choice=1).breaks
    assert one.at == counted.at == int((times[there] < "2007").sum())
    assert (one.change, one.std_error) == (counted.change, counted.std_error)


def test_a_calendar_finds_dates():
    months = calendar_of(MONTHS)
    assert months.locate("2000-03-15") == 3
    assert months.locate("1990-01-01") == 0
    assert months.locate("2030-01-01") == 168
    assert calendar_of([5, 7, 9]).locate("8") == 2
    with pytest.raises(EstimationError, match="not a time of this series"):
        months.locate("the year it rained")
    with pytest.raises(DuplicateIdError, match="share a day"):
        calendar_of(pd.to_datetime(["2000-01-01 06:00", "2000-01-01 18:00", "2000-01-03 06:00"]))
    with pytest.raises(EocausalError, match="step of 8 days"):
        calendar_of(pd.to_datetime(["2000-01-01", "2000-01-09", "2000-01-11", "2000-01-19"]))
