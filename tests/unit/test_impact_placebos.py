"""Checks of an impact: placebos in time and space, one left out, drift, controls that break."""

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter

from eocausal.checks.base import Verdict
from eocausal.checks.impact_controls import ControlBreaks, ControlReach
from eocausal.checks.impact_drift import Drift, slope_before
from eocausal.checks.impact_leave_out import LeaveOneControlOut, LeaveOneYearOut
from eocausal.checks.impact_question import question_of
from eocausal.checks.impact_ranks import judge, rank_among
from eocausal.checks.impact_ratios import rmse_ratios
from eocausal.checks.impact_space import PlaceboInSpace
from eocausal.checks.impact_time import PlaceboInTime, pseudo_events
from eocausal.designs import Event
from eocausal.errors import EmptyInputError, EstimationError, OneClusterError
from eocausal.estimators.breaks_sieve import ArSieve
from eocausal.estimators.controls_region import pixel_table, region_control
from eocausal.estimators.impact import bsts
from eocausal.estimators.impact_transforms import Log
from eocausal.estimators.impact_windows import EventRow
from eocausal.estimators.structural_model import StructuralModel, Trend
from eocausal.estimators.structural_priors import CompatiblePrior
from eocausal.simulate.coast import simulate_coast
from eocausal.simulate.config import CoastModel

TIMES, FIRST = 180, 156
DATES = pd.date_range("2005-01-01", periods=TIMES, freq="MS")
EVENT = Event("2018-01")
AFTER = np.arange(TIMES) >= FIRST
QUICK = ArSieve(draws=199, bias_draws=50)


def red(rng, shape, phi=0.5):
    shocks = rng.normal(size=(*shape[:-1], shape[-1] + 50))
    return lfilter([1.0], [1.0, -phi], shocks)[..., 50:]


def world(effect=3.0, seed=0, slope=0.0):
    """Outcome, and eight sites that share a disturbance with it; the event moves the outcome."""
    rng = np.random.default_rng(seed)
    shared = red(rng, (TIMES,), 0.8)
    sites = pd.DataFrame(20 + (shared + red(rng, (8, TIMES))).T, DATES).add_prefix("site")
    y = 20 + shared + red(rng, (TIMES,)) + effect * AFTER + slope * np.arange(TIMES)
    return pd.Series(y, DATES, name="kd"), sites


def impact(effect=3.0, seed=0, slope=0.0, controls=2, **asked):
    y, sites = world(effect, seed, slope)
    x = sites.iloc[:, :controls] if controls else None
    return bsts(y, EVENT, x, draws=50, **asked)


FOUND = impact()


def test_an_effect_stands_out_from_events_that_did_not_happen():
    result = PlaceboInTime(horizon=12, step=4).run(impact(seed=1))
    assert result.verdict is Verdict.PASS
    assert result.values["at_least"] == 0
    assert result.values["p_value"] == 1 / (1 + result.values["placebos"])
    assert result.values["p_scaled"] < 0.01
    assert 0.6 < result.values["spread"] < 1.4
    assert result.table["event"].iloc[-1] == "2017-01"  # the last twelve times before the event
    assert result.values["independent"] == pytest.approx(len(result.table) / 3, rel=0.15)
    none = PlaceboInTime(horizon=12, step=4).run(impact(effect=0.0, seed=1))
    assert none.verdict is Verdict.PASS
    assert "No effect is claimed" in none.detail


def test_placebo_events_have_the_horizon_and_the_gap_of_the_real_one_and_see_nothing_later():
    y, sites = world()
    found = bsts(y, Event("2018-01", "2018-12"), sites[["site0"]], learn_until="2017-06", draws=20)
    result = PlaceboInTime(step=5, least=40).run(found)
    assert result.values["horizon"] == 12
    assert (result.table["n"] == 12).all()
    assert result.table["event"].iloc[-1] == "2016-07"  # ends where learning does, in 2017-06
    assert result.table["event"].iloc[0] == "2009-01"  # 40 learned from and 6 of gap: 2008-11
    later, x = y.copy(), sites[["site0"]].copy()
    later[AFTER], x[AFTER] = 1e3, 1e3 * np.random.default_rng(1).normal(size=(24, 1))
    question = question_of(bsts(later, Event("2018-01", "2018-12"), x, learn_until="2017-06"))
    again = pseudo_events(question, np.arange(12), 6, 5, 40)[1]
    assert again["estimate"].to_numpy() == pytest.approx(result.table["estimate"].to_numpy())
    start = int(np.flatnonzero(DATES == "2012-05-01")[0])
    cut = bsts(
        y.iloc[: start + 12], EventRow(start), sites[["site0"]], learn_until=start - 7, draws=4000
    )
    own = result.table.set_index("event").loc["2012-05"]
    assert cut.effects.table.loc["average", "effect"] == pytest.approx(own["estimate"], abs=0.08)


def test_a_model_that_misses_drift_is_seen_by_its_placebos():
    model = StructuralModel(prior=CompatiblePrior(0.001))
    result = PlaceboInTime(horizon=24).run(impact(slope=0.06, controls=0, effect=0.0, model=model))
    assert result.verdict is Verdict.FAIL
    assert result.values["p_spread"] < 0.01
    assert "Intervals are too narrow" in result.detail


def test_no_room_for_placebo_events_is_said():
    result = PlaceboInTime(least=150).run(FOUND)
    assert result.verdict is Verdict.WARN
    assert "No event of 24 times fits" in result.claim
    assert "horizon=6" in result.detail
    with pytest.raises(EstimationError, match="below one"):
        PlaceboInTime(step=0)


def test_an_effect_stands_out_from_places_without_the_event():
    _, sites = world()
    sites["gappy"] = np.where(np.arange(TIMES) < 170, np.nan, 1.0)
    result = PlaceboInSpace(sites).run(FOUND)
    assert result.verdict is Verdict.PASS
    assert (result.values["placebos"], result.values["at_least"]) == (8, 0)
    assert result.values["smallest"] == pytest.approx(1 / 9)
    assert result.values["p_scaled"] < 0.01
    assert "'gappy' (too few values)" in result.detail
    table = result.table.set_index("place")
    alone = bsts(
        sites["site0"], EVENT, sites[["site1"]], draws=4000
    )  # left out of its own controls
    average = alone.effects.table.loc["average"]
    assert table.loc["site0", "estimate"] == pytest.approx(average["effect"], abs=0.05)
    plain = bsts(sites["site5"], EVENT, sites[["site0", "site1"]], draws=4000)
    average = plain.effects.table.loc["average"]
    assert table.loc["site5", "estimate"] == pytest.approx(average["effect"], abs=0.05)
    own = PlaceboInSpace().run(FOUND)
    assert own.table["place"].tolist() == ["site0", "site1"]


def test_a_shock_that_all_places_share_is_not_an_effect():
    y, sites = world(effect=0.0)
    shock = 6.0 * AFTER
    found = bsts(y + shock, EVENT, draws=50)
    result = PlaceboInSpace(sites.add(shock, axis=0)).run(found)
    assert result.verdict is Verdict.FAIL
    assert result.values["rejected"] >= 6
    assert result.values["independent"] < 6


def test_ratios_of_synthetic_controls():
    y, sites = world(effect=5.0)
    result = PlaceboInSpace(sites, statistic="rmse_ratio").run(FOUND)
    assert result.values["at_least"] == 0
    assert np.isnan(result.values["p_scaled"])
    values = np.column_stack([y, sites])
    ratios, errors = rmse_ratios(values, ~AFTER, AFTER)
    scaled, _ = rmse_ratios(values * np.arange(1, 10) + 3, ~AFTER, AFTER)
    assert ratios == pytest.approx(scaled)
    assert ratios[0] > 2 * ratios[1:].max()
    other = values.copy()
    other[:, 0] = np.random.default_rng(0).normal(size=TIMES)  # no donor for the others
    assert rmse_ratios(other, ~AFTER, AFTER)[0][1:] == pytest.approx(ratios[1:])
    assert (errors > 0.3).all()
    with pytest.raises(EstimationError, match="0 times before"):
        PlaceboInSpace(sites.assign(gap=np.nan), statistic="rmse_ratio").run(FOUND)


def test_every_pixel_of_a_coast_takes_the_treated_role():
    coast = simulate_coast(CoastModel(first="2006-01"), np.random.default_rng(0))
    pixels, places = pixel_table(coast["kd490"])
    zone = coast["zone"].to_numpy().ravel()[pixels.columns]
    at = [pixels.columns[zone == k] for k in range(3)]
    series = [region_control(pixels[c], "2015-06", name=str(k)).series for k, c in enumerate(at)]
    found = bsts(series[1], Event("2015-06"), series[2].to_frame(), draws=50)
    some = at[0][::6]
    result = PlaceboInSpace(
        pixels[some], places=places.loc[some], event=places.loc[at[1]], reach_km=15
    ).run(found)
    out = result.table["note"].str.contains("within its reach")
    assert 0 < out.sum() < 30
    assert result.values["placebos"] == len(some) - out.sum()
    assert result.values["at_least"] == 0
    assert result.values["independent"] < 15  # they share one disturbance


@pytest.mark.parametrize(
    ("asked", "said"),
    [({"statistic": "z"}, "not one of t, rmse_ratio"), ({"reach_km": 3.0}, "needs reach_km")],
)
def test_placebo_places_that_mean_nothing_are_refused(asked, said):
    with pytest.raises(EstimationError, match=said):
        PlaceboInSpace(**asked)
    with pytest.raises(EmptyInputError, match="no candidate"):
        PlaceboInSpace().run(impact(controls=0))


def test_candidates_are_on_the_scale_of_the_model():
    y, sites = world(effect=8.0)
    found = bsts(np.exp(0.1 * y), EVENT, np.exp(0.1 * sites[["site0"]]), transform=Log(), draws=20)
    result = PlaceboInSpace(np.exp(0.1 * sites).assign(zero=0.0)).run(found)
    table = result.table.set_index("place")
    assert "not above zero" in table.loc["zero", "note"]
    assert table.loc["site3", "statistic"] < 3
    assert result.values["statistic"] > 4


def test_ranks_and_what_placebos_are_worth():
    rank = rank_among(3.0, np.array([1.0, 3.0, 4.0, 0.5]), 2.0, score=3.0, scores=np.full(4, 1.5))
    assert (rank.at_least, rank.p_value, rank.smallest) == (2, 3 / 5, 1 / 5)
    assert rank.p_independent == pytest.approx((1 + 0.5 * 2) / 3)
    assert rank.spread == 1.5
    assert rank.p_scaled == pytest.approx(2 * (1 - 0.908248) / 1, abs=1e-5)  # t = 2, 2 df
    assert rank_among(3.0, np.ones(4), 99.0).independent == 4
    calm = rank_among(5.0, np.ones(99), 99.0, score=5.0, scores=np.ones(99))
    assert judge(calm, True, 0.05)[0] is Verdict.PASS
    usual = rank_among(0.5, np.ones(99), 99.0, score=2.0, scores=np.ones(99))
    assert judge(usual, True, 0.05)[0] is Verdict.FAIL
    wide = rank_among(9.0, np.ones(99), 99.0, score=9.0, scores=np.full(99, 3.0))
    assert judge(wide, True, 0.05)[0] is Verdict.WARN
    assert judge(wide, False, 0.05)[0] is Verdict.WARN
    few = rank_among(9.0, np.ones(3), 3.0)
    assert judge(few, True, 0.05) == (
        Verdict.WARN,
        "They are worth 3.0 independent ones, of which no rank gives a p-value below 0.25: so few "
        "cannot set the effect apart.",
    )


def test_leaving_out_a_control_that_decides():
    y, sites = world(effect=0.0)
    sites["reached"] = sites["site0"] - 5.0 * AFTER
    fine = LeaveOneControlOut().run(FOUND)
    assert fine.verdict is Verdict.PASS
    assert fine.table["without"].tolist().count("any control") == 1
    found = bsts(y, EVENT, sites[["site1", "reached"]], draws=20)
    result = LeaveOneControlOut().run(found)
    assert result.verdict is Verdict.FAIL
    assert "reached" in result.values["significance_hangs_on"]
    without = bsts(y, EVENT, sites[["site1"]], draws=4000).effects.table.loc["average", "effect"]
    row = result.table.set_index("without").loc["reached"]
    assert row["estimate"] == pytest.approx(without, abs=0.05)
    with pytest.raises(EmptyInputError, match="no controls"):
        LeaveOneControlOut().run(impact(controls=0))


def test_leaving_out_the_year_that_decides():
    y, sites = world(effect=0.0)
    y["2018"] += 8.0
    found = bsts(y, EVENT, sites.iloc[:, :2], draws=20)
    result = LeaveOneYearOut().run(found)
    assert result.verdict is Verdict.FAIL
    assert set(result.table["without"].iloc[:2]) == {"2018", "2019"}
    assert "2018" in result.values["significance_hangs_on"]
    assert result.table["side"].value_counts().to_dict() == {"before": 13, "after": 2}
    gone = y.where(DATES.year != 2010)
    again = bsts(gone, EVENT, sites.iloc[:, :2], draws=4000).effects.table.loc["average", "effect"]
    row = result.table.set_index("without").loc["2010"]
    assert row["estimate"] == pytest.approx(again, abs=0.06)
    assert LeaveOneYearOut().run(FOUND).verdict is Verdict.PASS
    rows = bsts(y.reset_index(drop=True), EventRow(FIRST), draws=20)
    assert set(LeaveOneYearOut().run(rows).table["without"].iloc[:2]) == {"156", "168"}
    year = pd.Series(y.to_numpy()[:12], DATES[:12])
    with pytest.raises(OneClusterError, match="one year"):
        LeaveOneYearOut().run(bsts(year, Event("2005-10"), draws=20))


def drifting(seed, slope=0.02):
    noise = red(np.random.default_rng(seed), (TIMES,), 0.3)
    return pd.Series(20 + slope * np.arange(TIMES) + noise, DATES, name="kd")


def test_an_event_that_continues_a_trend_is_called_that():
    stiff = StructuralModel(prior=CompatiblePrior())
    result = Drift().run(bsts(drifting(101), EVENT, draws=20, model=stiff))
    assert result.verdict is Verdict.FAIL
    assert "merely continue" in result.detail
    assert result.values["explained"] > 0.5
    assert result.values["slope"] == pytest.approx(12 * 0.02, abs=0.1)
    assert result.values["slope_p"] < 1e-6
    assert "rose by" in result.claim
    assert "need not go on" in result.detail
    walks = Drift().run(bsts(drifting(101), EVENT, draws=20))  # our level may walk that far
    assert walks.verdict is Verdict.PASS
    assert "No effect is claimed" in walks.detail
    assert Drift().run(bsts(drifting(103), EVENT, draws=20)).verdict is Verdict.FAIL
    lined = StructuralModel(trend=Trend.LINE)
    told = Drift().run(bsts(drifting(103), EVENT, draws=20, model=lined))
    assert told.verdict is Verdict.WARN
    assert "says so" in told.detail


def test_an_effect_beyond_a_trend_passes_and_none_is_not_explained():
    result = Drift().run(impact(effect=6.0))
    assert result.verdict is Verdict.PASS
    assert result.values["explained"] < 0.5
    assert "given the controls" in result.claim
    none = Drift().run(impact(effect=0.0))
    assert none.verdict is Verdict.PASS
    assert "No effect is claimed" in none.detail
    assert "explains" not in none.claim
    compatible = Drift().run(impact(effect=6.0, model=StructuralModel(prior=CompatiblePrior())))
    assert compatible.table["model"].tolist() == ["level", "level and line"]
    with pytest.raises(EstimationError, match="no share"):
        Drift(most=1.0)


def test_the_slope_has_an_error_that_knows_of_memory():
    rng = np.random.default_rng(0)
    for phi, low, high in ((0.0, 0.02, 0.09), (0.6, 0.02, 0.11)):
        before, none = np.ones(150, bool), np.zeros((150, 0))
        found = [slope_before(y, before, none) for y in red(rng, (400, 150), phi)]
        assert low <= np.mean([s.p_value < 0.05 for s in found]) <= high
    line = slope_before(np.arange(150) * 0.3 + rng.normal(size=150), before, none)
    assert line.per_step == pytest.approx(0.3, abs=0.01)
    assert np.isnan(slope_before(np.arange(4.0), np.ones(4, bool), np.ones((4, 1))).per_step)


def test_a_control_that_breaks_at_the_event_is_named_with_its_date():
    y, sites = world()
    sites["moved"] = sites["site3"] + 8.0 * AFTER
    found = bsts(y, EVENT, sites[["site0", "moved"]], draws=20)
    result = ControlBreaks(sieve=QUICK).run(found)
    assert result.verdict is Verdict.FAIL
    assert result.values["break_near_event"] == ["moved"]
    assert result.values["change_at_event"] == ["moved"]
    row = result.table.set_index("control").loc["moved"]
    assert abs(pd.Timestamp(row["near"]) - pd.Timestamp("2018-01")) < pd.Timedelta(days=100)
    assert row["near_change"] == pytest.approx(8.0, abs=2)
    assert row["ci_low"] < 8.0 < row["ci_high"]
    assert "moved breaks in" in result.claim
    calm = ControlBreaks(sieve=QUICK).run(FOUND)
    assert calm.verdict is Verdict.PASS
    assert "No control (2) breaks" in calm.claim
    with pytest.raises(EmptyInputError, match="no controls"):
        ControlBreaks().run(impact(controls=0))


def test_distances_of_controls_are_stated():
    places = pd.DataFrame({"lon": [122.0, 122.3], "lat": [-2.8, -2.8]}, ["site0", "site1"])
    event = pd.DataFrame({"lon": [122.1], "lat": [-2.8]})
    near = ControlReach(places, event, 15).run(FOUND)
    assert near.verdict is Verdict.FAIL
    assert "1 of 2 controls lie within 15 km of the event: site0 (11.1 km)" in near.claim
    assert ControlReach(places, event, 5).run(FOUND).verdict is Verdict.PASS
    with pytest.raises(EstimationError, match="without a place: site1"):
        ControlReach(places.iloc[:1], event, 5).run(FOUND)
