"""Effects come from draws after the event alone, and paths continue the same draws."""

import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pandas as pd
import pytest

from eocausal.designs import Event
from eocausal.estimators.impact import bsts
from eocausal.estimators.impact_summary import summarise
from eocausal.estimators.impact_transforms import Log
from eocausal.estimators.structural_model import Engine, Season, StructuralModel, Trend
from eocausal.estimators.structural_priors import CompatiblePrior

DATES = pd.date_range("2010-01-01", periods=96, freq="MS")
RNG = np.random.default_rng(5)
X = pd.DataFrame({"sea": RNG.normal(size=96), "wind": RNG.normal(size=96)}, DATES)
Y = pd.Series(9.0 + X["sea"] + RNG.normal(size=96), DATES, name="kd490")
EVENT = Event("2016-01")
R = CompatiblePrior()
MODELS = {
    "grid": StructuralModel(),
    "grid of R": StructuralModel(prior=R),
    "season of R": StructuralModel(season=12, prior=R),
    "slope": StructuralModel(season=Season(12), trend=Trend.LOCAL_LINEAR, prior=R),
    "semi-local": StructuralModel(trend=Trend.SEMI_LOCAL, prior=R),
    "changing season": StructuralModel(season=Season(4, changes=True), engine=Engine.COLLAPSED),
    "quarters": StructuralModel(season=Season(4, duration=3), prior=R),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("gap", [False, True])
def test_effects_are_those_of_the_path_drawn_later(name, gap):
    y = Y.where(~np.isin(np.arange(96), [20, 21, 71, 80])) if gap else Y
    found = bsts(y, EVENT, X, model=MODELS[name], draws=130, seed=4)
    path = found.path
    assert path.counterfactual.shape == (130, 96)
    compatible = MODELS[name].prior == R
    again = summarise(path, found.expected, compatible=compatible)
    pd.testing.assert_frame_equal(again.table, found.effects.table, rtol=1e-13)
    assert (again.p_value, again.n) == (found.effects.p_value, found.effects.n)
    average, row = path.average(), found.effects.row()
    assert average["ci_low"] == pytest.approx(row["effect_low"], rel=1e-12)
    assert average["std_error"] == pytest.approx(row["effect_sd"], rel=1e-12)
    assert found.path is path
    other = bsts(y, EVENT, X, model=MODELS[name], draws=130, seed=4)
    assert other.fit_checks.table.equals(found.fit_checks.table)


def test_several_events_and_another_scale():
    events = [Event("2016-01", "2016-12"), Event("2017-02")]
    found = bsts(np.exp(0.2 * Y), events, X, transform=Log(), draws=100)
    assert list(found.by_event) == ["2016-01", "2017-02"]
    assert summarise(found.path, found.expected).table.equals(found.effects.table)
    assert found.expected is found.path.counterfactual


@pytest.mark.parametrize("name", ["grid", "season of R"])
def test_an_impact_is_frozen_and_survives_a_file(name):
    found = bsts(Y, EVENT, X, model=MODELS[name], draws=60)
    again = pickle.loads(pickle.dumps(found))
    assert np.array_equal(again.path.counterfactual, found.path.counterfactual)
    assert np.array_equal(again.expected, found.expected)
    assert again.notes == found.notes
    assert again.summary("report") == found.summary("report")
    for name in ("effects", "path"):
        with pytest.raises((FrozenInstanceError, AttributeError)):
            setattr(found, name, None)
