"""From dated series to the summary of an effect, and what is refused on the way."""

import numpy as np
import pandas as pd
import pytest

from eocausal.designs import Event
from eocausal.effects import EffectPath
from eocausal.errors import AlignmentError, DuplicateIdError, EstimationError, OutcomeError
from eocausal.estimators.impact import bsts
from eocausal.estimators.impact_summary import summarise
from eocausal.estimators.structural_model import StructuralModel
from eocausal.estimators.structural_priors import CompatiblePrior

DATES = pd.date_range("2010-01-01", periods=96, freq="MS")
EVENT = Event("2016-01")
AFTER = np.asarray(pd.Timestamp("2016-01-01") <= DATES)
RNG = np.random.default_rng(0)
X = pd.DataFrame(RNG.normal(size=(96, 2)), DATES, ["sst", "control"])


def kd(effect=0.6):
    y = 5 + X["control"] + 0.3 * RNG.normal(size=96) + effect * AFTER
    return pd.Series(y, DATES, name="kd490")


Y = kd()


def test_the_effect_is_found_and_told_in_one_object():
    found = bsts(Y, EVENT, X, draws=2000)
    average, total = found.effects.table.loc["average"], found.effects.table.loc["cumulative"]
    assert average["effect_low"] < 0.6 < average["effect_high"]
    assert total["effect"] == pytest.approx(24 * average["effect"])
    low = np.quantile(found.path.cumulative[:, -1], 0.025)
    assert total["effect_low"] == pytest.approx(low)
    assert found.effects.p_value < 0.01
    assert found.inclusion["control"] == pytest.approx(1.0)
    assert average["relative"] == pytest.approx(average["effect"] / average["predicted"], rel=0.02)
    assert "p = " in repr(found)
    assert found.path.average()["estimate"] == pytest.approx(average["effect"], abs=0.02)
    assert bsts(Y, EVENT, X, draws=2000).effects.table.equals(found.effects.table)


def test_the_conventions_of_causalimpact():
    path = EffectPath(
        DATES[:4], np.array([1.0, 2.0, 5.0, 7.0]),
        np.array([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 5.0, 8.0], [1.0, 2.0, 4.0, 6.0]]),
        np.array([False, False, True, True]),
    )  # fmt: skip
    expected = path.counterfactual + np.array([[0.0], [0.0], [0.3]])
    found = summarise(path, expected, compatible=True)
    assert found.p_value == pytest.approx(2 / 4)  # one draw above the observed 12, and itself
    assert summarise(path).p_value == 1.0
    row = found.table.loc["average"]
    assert row["predicted"] == pytest.approx((3.5 + 6.5 + 5.3) / 3)
    assert row["relative"] == pytest.approx(np.mean([12 / 7, 12 / 13, 12 / 10]) - 1)
    assert row["effect_sd"] == pytest.approx(np.std([3.5, 6.5, 5.0], ddof=1))
    assert found.table.loc["cumulative", "effect_low"] == pytest.approx(
        12 - np.quantile([7, 13, 10], 0.975)
    )


def test_no_relative_effect_around_zero():
    found = bsts(Y - Y.mean(), EVENT, draws=200)
    assert np.isnan(found.effects.table["relative"]).all()
    assert "may be zero" in found.effects.notes[0]
    assert np.isfinite(found.effects.table["effect"]).all()


def test_gaps_anywhere():
    y, x = Y.copy(), X.copy()
    y.iloc[[0, 1, 30, 80]] = np.nan
    x.iloc[[40, 90], 0] = np.nan
    found = bsts(
        y, Event("2016-01", "2017-12"), x.drop(DATES[50]), learn_until="2015-06", draws=800
    )
    row = found.effects.table.loc["average"]
    assert row["effect_low"] < 0.6 < row["effect_high"]
    assert found.effects.n == 22
    assert "2 of 24 times" in found.effects.notes[0]
    assert np.isnan(found.path.counterfactual[:, 90]).all()


def test_causalimpact_priors_use_its_tail():
    found = bsts(Y, EVENT, X, model=StructuralModel(prior=CompatiblePrior()), draws=999)
    assert found.effects.p_value == pytest.approx(1 / 1000)


@pytest.mark.parametrize(
    ("outcome", "controls", "error", "said"),
    [
        (Y.reset_index(drop=True), None, AlignmentError, "indexed by"),
        (Y.set_axis([*DATES[:-1], DATES[0]]), None, DuplicateIdError, "occur twice"),
        (Y.iloc[::-1], None, AlignmentError, "do not increase"),
        (Y, X.set_axis(DATES + pd.Timedelta(days=7000)), AlignmentError, "no date in common"),
        (Y, pd.concat([X, X]), DuplicateIdError, "twice"),
        (Y, X.assign(mine=3 * Y + 1), EstimationError, "mine is the outcome"),
        (Y.where(~AFTER, Y / 100), None, EstimationError, "two units"),
        (Y, (X + 9).assign(sst=(X["sst"] + 9) * np.where(AFTER, 100, 1)), EstimationError, "sst"),
        (Y * 0 + 4, X, OutcomeError, "4 at all times"),
        (Y.where(DATES[68] < DATES), X, OutcomeError, "3 values"),
        (Y.where(~AFTER), X, OutcomeError, "No time after the event"),
    ],
)
def test_what_means_nothing_is_refused(outcome, controls, error, said):
    with pytest.raises(error, match=said):
        bsts(outcome, EVENT, controls, draws=20)
