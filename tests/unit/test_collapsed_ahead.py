"""Draws of the engine ``collapsed`` after the last value, and those before given them."""

from dataclasses import replace

import numpy as np
import pytest

from eocausal.estimators.collapsed import fit_collapsed
from eocausal.estimators.collapsed_ahead import CollapsedDraws
from eocausal.estimators.collapsed_draws import draw_paths
from eocausal.estimators.structural_model import Season, StructuralModel, Trend
from eocausal.estimators.structural_priors import CompatiblePrior

TIMES, FROM, DRAWS = 60, 45, 5000
BEFORE = np.arange(TIMES) < FROM
R = CompatiblePrior()
MODELS = {
    "season of R": StructuralModel(season=Season(4, changes=True), prior=R),
    "slope of R": StructuralModel(trend=Trend.LOCAL_LINEAR, prior=R),
    "season and red residual": StructuralModel(season=Season(4, changes=True)),
    "waves and slope": StructuralModel(
        season=Season(6, harmonics=2, changes=True), trend=Trend.LOCAL_LINEAR
    ),
}


def fitted(model, gaps):
    rng = np.random.default_rng(8)
    x = rng.normal(size=(TIMES, 2))
    y = x[:, :1].T + np.cumsum(0.3 * rng.normal(size=(1, TIMES)), 1) + rng.normal(size=(1, TIMES))
    if gaps:
        y[0, 10:14] = y[0, 30] = np.nan
    found = fit_collapsed(y, BEFORE, model, controls=x)
    posterior = found.posteriors[0]
    weight = np.zeros_like(posterior.weight)
    weight[np.unravel_index(posterior.weight.argmax(), weight.shape)] = 1.0
    return replace(posterior, weight=weight)


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_both_ways_to_draw_have_one_law(name, gaps):
    posterior = fitted(MODELS[name], gaps)
    scaled = {"center": np.zeros(TIMES), "scale": np.ones(TIMES)}
    apart = CollapsedDraws(posterior, DRAWS, 1, 0, *scaled.values()).all()
    together = draw_paths(posterior, draws=DRAWS, seed=2, key=0, **scaled)
    for kind in ("expected", "replicate"):
        one, other = getattr(apart, kind), getattr(together, kind)
        sd = other.std(0)
        assert np.abs((one.mean(0) - other.mean(0)) / sd).max() < 5 * (2 / DRAWS) ** 0.5
        assert np.abs(one.std(0) / sd - 1.0).max() < 0.06
        assert np.abs(np.corrcoef(one.T) - np.corrcoef(other.T)).max() < 0.09


def test_times_after_the_last_value_are_the_same_alone():
    posterior = fitted(MODELS["season of R"], gaps=True)
    scaled = {"center": np.linspace(0, 1, TIMES), "scale": np.full(TIMES, 2.0)}
    alone, whole = (CollapsedDraws(posterior, 150, 1, 0, *scaled.values()) for _ in range(2))
    part, ahead = alone.ahead()
    assert part == slice(FROM, TIMES)
    every = whole.all()
    assert np.array_equal(every.expected[:, part], ahead.expected)
    assert np.array_equal(every.replicate[:, part], ahead.replicate)
    few = CollapsedDraws(posterior, 40, 1, 0, *scaled.values()).all()
    assert few.replicate == pytest.approx(every.replicate[:40], rel=1e-8)
    assert few.expected == pytest.approx(every.expected[:40], rel=1e-8)


@pytest.mark.parametrize("name", ["season of R", "slope of R"])
def test_the_law_at_the_end_from_the_last_values_is_that_from_all(name, monkeypatch):
    posterior = fitted(MODELS[name], gaps=False)
    arguments = (posterior, 20, 1, 0, np.zeros(TIMES), np.ones(TIMES))
    quick = CollapsedDraws(*arguments)
    assert quick._edge is not None
    monkeypatch.setattr(CollapsedDraws, "_edge", None)
    plain = CollapsedDraws(*arguments)
    assert quick._points.given == pytest.approx(plain._points.given, rel=1e-8, abs=1e-10)
    one, other = (p.root @ p.root.swapaxes(1, 2) for p in (quick._points, plain._points))
    assert one == pytest.approx(other, rel=1e-6, abs=1e-10)
