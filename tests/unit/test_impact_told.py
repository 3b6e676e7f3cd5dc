"""What an impact says of itself: scales, several events, checks of fit, words, figure, record."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from eocausal.designs import Event
from eocausal.effects import EffectPath
from eocausal.errors import EstimationError, OutcomeError
from eocausal.estimators.impact import bsts
from eocausal.estimators.impact_looks import Looks
from eocausal.estimators.impact_predictive import check_fit
from eocausal.estimators.impact_summary import summarise
from eocausal.estimators.impact_transforms import Log, Logit
from eocausal.estimators.impact_windows import EventRow
from eocausal.estimators.structural import fit_structural
from eocausal.estimators.structural_model import StructuralModel
from eocausal.estimators.structural_priors import CompatiblePrior

DATES = pd.date_range("2010-01-01", periods=96, freq="MS")
AFTER = np.asarray(DATES[72] <= DATES)
RNG = np.random.default_rng(1)
SEA, NOISE = RNG.normal(size=96), RNG.normal(size=96)
X = pd.DataFrame({"sea": SEA}, DATES)
Y = pd.Series(5 + SEA + 0.3 * NOISE + 0.6 * AFTER, DATES, name="kd490")
EVENT = Event("2016-01")


def test_a_panel_and_a_table_give_the_same():
    panel = xr.Dataset(
        {"kd490": (("neighborhood", "time"), np.stack([Y, SEA]), {"units": "m-1"})},
        {"neighborhood": ["impact", "sea"], "time": DATES},
    )["kd490"]
    found = bsts(
        panel.sel(neighborhood="impact"), EVENT, panel.sel(neighborhood=["sea"]), draws=300
    )
    plain = bsts(Y, EVENT, X, draws=300)
    assert found.effects.table.equals(plain.effects.table)
    assert found.unit == "m-1"
    assert "m-1 on average" in found.summary("report")
    assert found.record()["unit"] == "m-1"


def test_rows_and_dates_give_the_same():
    by_row = bsts(Y.to_numpy(), EventRow(72), X.to_numpy(), draws=300)
    assert by_row.effects.table.equals(bsts(Y, EVENT, X, draws=300).effects.table)
    assert "From row 72 to row 95 (24 values)" in by_row.summary("report")
    assert by_row.request.run().effects.table.equals(by_row.effects.table)


def test_rows_left_out_are_gaps():
    gone = DATES[[10, 50, 80]]
    left_out = bsts(Y.drop(gone), EVENT, X, draws=300)
    missing = bsts(Y.where(~Y.index.isin(gone)), EVENT, X, draws=300)
    assert left_out.effects.table.equals(missing.effects.table)
    assert left_out.path.time.equals(DATES)
    assert left_out.notes[0].startswith("3 steps of the calendar (month) had no row")


def test_a_first_value_that_is_missing_changes_nothing_for_r():
    """R begins at the first value; rows after the last that is counted are no part of the model."""
    model = StructuralModel(prior=CompatiblePrior())
    late = Y.where(DATES[6] <= DATES)
    found = bsts(late, Event("2016-01", "2016-12"), X, model=model, draws=500)
    cut = bsts(Y.iloc[6:84], EVENT, X, model=model, draws=500)
    assert found.effects.table.equals(cut.effects.table)
    assert len(found.path.time) == 96
    assert np.isnan(found.path.counterfactual[:, [0, 5, 84, 95]]).all()
    assert bsts(late, EVENT, X, draws=300).effects.row()["effect"] == pytest.approx(0.6, abs=0.2)


@pytest.mark.parametrize(
    ("transform", "back", "size"),
    [(Log(), np.exp, 0.4), (Logit(), lambda v: 1 / (1 + np.exp(-v)), 0.8)],
)
def test_effects_are_on_the_scale_of_the_outcome(transform, back, size):
    before = 0.5 + 0.5 * SEA + 0.2 * NOISE
    y = pd.Series(back(before + size * AFTER), DATES)
    truth = float((y - back(before))[AFTER].mean())
    found = bsts(y, EVENT, X, transform=transform, draws=2000)
    row = found.effects.row()
    assert row["effect_low"] < truth < row["effect_high"]
    assert row["effect"] == pytest.approx(truth, rel=0.25)
    draws = found.path.counterfactual[:, AFTER]
    assert row["predicted"] == pytest.approx(draws.mean())  # not the mean of the logs turned back
    assert found.path.relative()["estimate"] == pytest.approx(row["relative"])
    again = found.request.run()
    assert again.effects.table.equals(found.effects.table)
    assert f"modelled as {type(transform).__name__.lower()}" in found.summary("report")


def test_values_without_a_logarithm_are_refused():
    with pytest.raises(OutcomeError, match="not above zero"):
        bsts(Y - 5, EVENT, X, transform=Log())
    with pytest.raises(EstimationError, match="sea is the outcome"):
        bsts(np.exp(X["sea"]), EVENT, X, transform=Log())


def test_each_event_is_counted_over_its_own_window():
    y = Y + 1.0 * ((DATES >= "2014-01-01") & (DATES <= "2014-12-31"))
    events = [Event("2016-01"), Event("2014-01", "2014-12")]
    found = bsts(y, events, X, draws=1000)
    assert list(found.by_event) == ["2014-01", "2016-01"]
    first, second = (found.by_event[name].row() for name in found.by_event)
    assert first["effect"] == pytest.approx(1.0, abs=0.25)
    assert second["effect"] == pytest.approx(0.6, abs=0.25)
    assert found.effects.n == 36
    total = sum(e.row("cumulative")["effect"] for e in found.by_event.values())
    assert found.effects.row("cumulative")["effect"] == pytest.approx(total)
    assert found.before.sum() == 48
    assert "By event" in found.summary("report")
    assert "Event 2014-01 and 2016-01, kd490" in found.summary()
    assert "Event 2014-01, kd490" in found.summary()
    assert [e["event"] for e in found.record()["by_event"]] == list(found.by_event)
    with pytest.raises(OutcomeError, match="after the event 2014-01 has"):
        bsts(y.where(y.index.year != 2014), events, X, draws=20)


def test_missing_controls_are_named():
    x = X.assign(other=RNG.normal(size=96))
    x.iloc[[75, 76], 0] = np.nan
    x.iloc[3, 1] = np.nan
    found = bsts(Y, EVENT, x, draws=200)
    assert found.effects.n == 22
    assert any("2 times after the event" in n and "sea at 2" in n for n in found.notes)
    assert any("1 time before the event" in n and "other at 1" in n for n in found.notes)
    assert found.path.average()["n"] == 22
    with pytest.raises(OutcomeError, match=r"(?s)of all controls.*sea at 24 of 24"):
        bsts(Y, EVENT, x.assign(sea=X["sea"].where(~AFTER)), draws=20)
    with pytest.raises(EstimationError, match="sea has no value before"):
        bsts(Y, EVENT, x.assign(sea=X["sea"].where(AFTER)), draws=20)
    with pytest.raises(EstimationError, match="flat is 2 at all times before"):
        bsts(Y, EVENT, x.assign(flat=2.0), draws=20)


def test_a_series_without_values_does_not_stop_the_others():
    batch = np.stack([Y, np.full(96, np.nan), Y + 1])
    fit = fit_structural(batch, ~AFTER, controls=X.to_numpy())
    assert list(fit.refused) == [1]
    found = fit.average(AFTER)
    assert np.isnan(found.estimate[1])
    assert found.estimate[[0, 2]] == pytest.approx(fit.average(AFTER).estimate[0])


def test_looks_say_how_far_each_value_is_trusted():
    looks = pd.Series(np.where(np.arange(96) % 2, 20, 1), DATES)
    noisy = Y + RNG.normal(size=96) * np.where(looks == 1, 1.0, 0.0)
    wide = bsts(noisy, EVENT, X, draws=600).effects.row()
    narrow = bsts(noisy, EVENT, X, draws=600, variance=Looks(looks)).effects.row()
    assert narrow["effect_low"] < 0.6 < narrow["effect_high"]
    by_hand = bsts(noisy, EVENT, X, draws=600, variance=Looks(looks).variance()).effects.row()
    assert narrow == by_hand
    assert narrow["predicted_sd"] < wide["predicted_sd"]
    with pytest.raises(OutcomeError, match="no variance above zero"):
        bsts(noisy, EVENT, X, variance=Looks(looks.where(looks > 1)))


def checks(residual, draws=400, **options):
    """Check a residual against independent ones of the same spread."""
    times = len(residual)
    expected = np.zeros((draws, times))
    drawn = np.random.default_rng(5).normal(size=(draws, times))
    return check_fit(residual, expected, drawn, np.ones(times, bool), period=12, **options)


TIME = np.arange(240)


@pytest.mark.parametrize(
    ("change", "aspect", "said"),
    [
        (lambda e: np.convolve(e, 0.8 ** np.arange(30))[:240] * 0.6, "lag-1", "neighbouring"),
        (lambda e: e + 0.8 * np.sin(2 * np.pi * TIME / 12), "seasonal", "season of 12"),
        (lambda e: e + 0.008 * (TIME - 120), "drift", "A trend is missing"),
        (lambda e: np.where(np.arange(240) == 100, 9.0, e), "largest", "at time 100, is"),
        (lambda e: e * np.where(TIME < 120, 0.6, 1.4), "spread", "later half"),
        (lambda e: 2 * e, "standard deviation$", "Distrust"),
    ],
)
def test_what_does_not_fit_is_said(change, aspect, said):
    residual = np.random.default_rng(8).normal(size=240)
    assert checks(residual).doubts == ()
    found = checks(change(residual))
    (row,) = [p for name, p in found.table["p_value"].items() if re.search(aspect, name)]
    assert row < 0.02
    assert any(said in doubt for doubt in found.doubts)
    assert said in found.summary()


def test_checks_of_a_right_model_seldom_doubt():
    """Each of six aspects is doubted at 0.02, two-sided: 12 in 100 series at most."""
    found = [checks(np.random.default_rng(k).normal(size=240), draws=100) for k in range(60)]
    assert sum(bool(f.doubts) for f in found) < 7.2 + 3 * 2.5
    assert "Nothing speaks against" in next(f for f in found if not f.doubts).summary()


def test_too_few_values_are_not_checked():
    found = checks(np.zeros(8))
    assert found.table.empty
    assert "Too few" in found.summary()


def test_an_unmodelled_season_and_autocorrelation_are_noticed():
    season = pd.Series(np.sin(2 * np.pi * np.arange(96) / 12), DATES)
    without = bsts(Y + season, EVENT, X, draws=300)
    assert any("season of 12" in note for note in without.notes)
    given = bsts(Y + season, EVENT, X, draws=300, model=StructuralModel(season=12))
    assert not any("season" in note for note in given.notes)
    red = pd.Series(np.convolve(NOISE, 0.8 ** np.arange(40))[:96], DATES)
    as_r = bsts(red, EVENT, X, draws=300, model=StructuralModel(prior=CompatiblePrior()))
    assert any("our own prior learns it" in note for note in as_r.notes)


def test_the_end_of_the_past_can_be_held_out():
    found = bsts(Y, EVENT, X, draws=500)
    held = found.held_out()
    assert held.n == 18
    assert held.impact.path.time[-1] == DATES[71]
    assert held.holds_zero
    assert held.inside > 0.75
    assert held.doubts == ()
    assert "18 values before the event, predicted from the 54" in held.summary()
    assert held.record()["holds_zero"] is True
    with pytest.raises(OutcomeError, match="cannot be held out"):
        found.held_out(1.0)
    earlier = bsts(Y + 2.0 * (DATES[60] <= DATES), EVENT, X, draws=500).held_out()
    assert "finds an effect where there was none" in earlier.summary()


def test_the_report_keeps_to_what_can_be_said():
    clear = bsts(Y, EVENT, X, draws=300).summary("report")
    for part in ("rose above", "only if nothing else", "did not reach the controls", "seed 0",
                 "Controls, all of them in the model: sea", "smallest that 300 draws"):  # fmt: skip
        assert part in clear
    unclear = bsts(Y - 0.6 * AFTER, EVENT, draws=300).summary("report")
    assert "do not show that there was none" in unclear
    assert "Without controls" in unclear
    around = bsts(Y - Y.mean(), EVENT, X, draws=300)
    assert "A relative effect cannot be said" in around.summary("report")
    assert "cannot be said" in around.summary()
    with pytest.raises(EstimationError, match="no summary 'long'"):
        around.summary("long")


def test_a_prediction_below_zero_is_said():
    path = EffectPath(DATES[:3], np.array([0.0, -2.0, -2.0]),
                      np.array([[0.0, -4.0, -4.0], [0.0, -5.0, -3.0]]),
                      np.array([False, True, True]))  # fmt: skip
    found = summarise(path)
    assert found.row()["relative"] == pytest.approx(-0.5)
    assert "below zero" in found.notes[0]


def test_a_path_counts_what_it_can():
    draws = np.array([[1.0, 2.0, np.nan, 4.0], [1.0, 4.0, np.nan, 4.0]])
    path = EffectPath(
        DATES[:4], np.array([1.0, 5.0, 5.0, np.nan]), draws, np.array([0, 1, 1, 1]) > 0
    )
    assert path.counted.tolist() == [False, True, False, False]
    assert path.average()["estimate"] == pytest.approx(2.0)
    assert path.cumulative.tolist() == [[0, 3, 3, 3], [0, 1, 1, 1]]
    frame = path.to_frame()
    assert np.isnan(frame["effect"].iloc[[2, 3]]).all()
    assert frame["p_value"].iloc[1] == pytest.approx(2 / 3)
    assert np.isnan(frame["p_value"].iloc[2])
    zero = replace(path, counterfactual=draws - 3.0)
    assert np.isnan(zero.relative()["estimate"])


def test_the_figure_has_three_panels(tmp_path):
    found = bsts(Y.where(np.arange(96) != 40), [Event("2014", "2014-06"), EVENT], X, draws=200)
    figure = found.plot()
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels == ["kd490", "Difference", "Summed"]
    figure.savefig(tmp_path / "a.png")
    assert bsts(Y.to_numpy(), EventRow(72), draws=200).plot().axes[-1].get_xlabel() == "row"


def test_a_record_is_plain():
    record = bsts(Y, EVENT, X, draws=200, model=StructuralModel(season=12)).record()
    assert json.loads(json.dumps(record)) == record
    assert record["model"]["season"] == [
        {"period": 12, "duration": 1, "harmonics": None, "changes": False}
    ]
