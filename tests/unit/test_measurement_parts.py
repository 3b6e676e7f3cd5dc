"""Densities and their scores, draws combined, and the world in which a map predicts outcomes."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from eocausal.errors import DesignError, EstimationError, MissingColumnError
from eocausal.estimators.density_score import density_of
from eocausal.estimators.imputation import MultipleImputation, combine_draws
from eocausal.estimators.inference import Clustered
from eocausal.estimators.labelled import labelled_study
from eocausal.estimators.logit import Logit
from eocausal.estimators.measurement import correct
from eocausal.estimators.scores import AIPW, Hajek
from eocausal.estimators.tweedie import Tweedie, smooth_score
from eocausal.estimators.weighting import Weighting, weight
from eocausal.simulate.predicted_outcome import (
    FrozenNetwork,
    PredictedOutcomeConfig,
    simulate_predicted_outcome,
)


def test_the_score_is_that_of_a_gaussian_kernel_density():
    rng = np.random.default_rng(0)
    sample = np.concatenate([rng.normal(size=150), rng.normal(4, 0.5, 50)])
    kde = stats.gaussian_kde(sample)
    h = kde.factor * sample.std(ddof=1)
    density = density_of(sample, h, -3.0, 6.0)
    x = np.linspace(-3, 6, 41)
    step = 1e-4
    expected = (kde.logpdf(x + step) - kde.logpdf(x - step)) / (2 * step)
    np.testing.assert_allclose(density.score(x), expected, atol=0.01)


def test_far_tails_keep_their_digits():
    density = density_of(np.array([0.0, 0.5, 30.0]), 1.0, 0.0, 30.0)
    assert density.score(np.array([12.0]))[0] == pytest.approx(-11.5, rel=0.01)
    with pytest.raises(EstimationError, match="density of predictions is 0"):
        density_of(np.array([0.0, 1.0, 300.0]), 1.0, 0.0, 300.0).score(np.array([150.0]))
    with pytest.raises(EstimationError, match="far from all others"):
        density_of(np.array([0.0, 1.0, 1e9]), 1.0, 0.0, 1.0)


@pytest.mark.parametrize("keep", [True, False])
def test_influence_of_the_score_is_that_of_deleting_observations(keep):
    rng = np.random.default_rng(1)
    sample, x = rng.normal(size=120), rng.uniform(-1.5, 1.5, 30)
    weights = rng.normal(size=(30, 2))

    def at(values):
        found = smooth_score(values, x, weights, bandwidth=0.4, keep_variance=keep)
        return weights.T @ found.value, found.influence

    whole, influence = at(sample)
    left = np.array([at(np.delete(sample, i))[0] for i in range(len(sample))])
    np.testing.assert_allclose(influence.sum(axis=0), 0, atol=0.01)
    for k in (0, 1):
        assert np.corrcoef(influence[:, k], whole[k] - left[:, k])[0, 1] > 0.995


def test_keeping_the_variance_gives_the_score_of_a_normal_density():
    sample = stats.norm.ppf((np.arange(400) + 0.5) / 400)
    x, weights = np.linspace(-1.5, 1.5, 7), np.ones((7, 1))
    kept, plain = (
        smooth_score(sample, x, weights, bandwidth=0.35, keep_variance=k).value
        for k in (True, False)
    )
    np.testing.assert_allclose(kept, -x / sample.var(), atol=0.02)
    np.testing.assert_allclose(plain, -x / (1 + 0.35**2), atol=0.03)
    with pytest.raises(EstimationError, match="bandwidth"):
        Tweedie(bandwidth=0.0)


def drawn(known_treatment, seed=0, n=3000, m=20):
    """A map's draws of wealth, made knowing treatment or not."""
    rng = np.random.default_rng(seed)
    x, noise, error = rng.normal(size=(3, n))
    w = (rng.random(n) < 1 / (1 + np.exp(-x))).astype(int)
    y = 2.0 * w + x + noise
    seen = 0.5 * y + error
    columns = np.column_stack([np.ones(n), seen, *((w, x) if known_treatment else ())])
    beta = np.linalg.lstsq(columns, y, rcond=None)[0]
    spread = (y - columns @ beta).std()
    units = pd.DataFrame(
        {"x": x, "w": w, "y": y, "map": columns @ beta, "g": rng.integers(0, 50, n)}
    )
    for k in range(m):
        units[f"draw {k}"] = columns @ beta + spread * rng.normal(size=n)
    return units, [f"draw {k}" for k in range(m)]


def on_map(units, score=None):
    decisions = Weighting(score=score or Hajek(), propensity=Logit(), folds=None)
    return weight(units, treatment="w", outcome="map", covariates=["x"], decisions=decisions)


def test_draws_are_combined_by_rubins_rules():
    units, names = drawn(True)
    found = correct(on_map(units), correction=MultipleImputation(names))
    each = [
        weight(
            units, treatment="w", outcome=name, covariates=["x"],
            decisions=Weighting(score=Hajek(), propensity=Logit(), folds=None),
        ).estimate
        for name in names
    ]  # fmt: skip
    value = np.array([e.estimate for e in each])
    within = np.mean([e.std_error**2 for e in each])
    between = (1 + 1 / 20) * value.var(ddof=1)
    assert found.estimate.estimate == pytest.approx(value.mean())
    assert found.estimate.std_error**2 == pytest.approx(within + between)
    assert found.estimate.df == pytest.approx(19 * (1 + within / between) ** 2)
    assert found.estimate.with_vcov(Clustered("g")).std_error > 0


def test_draws_that_do_not_know_the_treatment_stay_attenuated():
    for known, expected in ((True, 2.0), (False, 0.5)):
        units, names = drawn(known)
        found = correct(on_map(units), correction=MultipleImputation(names)).estimate
        if known:
            assert abs(found.estimate - expected) < 4 * found.std_error
        else:
            assert found.estimate < 1.3
        assert "attenuated" in found.note


def test_measured_outcomes_replace_draws():
    units, names = drawn(False)
    all_measured = correct(on_map(units), measured="y", correction=MultipleImputation(names))
    direct = weight(
        units, treatment="w", outcome="y", covariates=["x"],
        decisions=Weighting(score=Hajek(), propensity=Logit(), folds=None),
    ).estimate  # fmt: skip
    assert all_measured.estimate.estimate == pytest.approx(direct.estimate)
    assert all_measured.estimate.std_error == pytest.approx(direct.std_error)
    aipw = correct(on_map(units, AIPW()), correction=MultipleImputation(names)).estimate
    assert aipw.method == "AIPW, multiple imputation"


def test_draws_must_be_several_and_complete():
    units, names = drawn(False)
    with pytest.raises(EstimationError, match="1 draws"):
        MultipleImputation(["a", "a"])
    with pytest.raises(MissingColumnError):
        correct(on_map(units), correction=MultipleImputation(["draw 1", "draw x"]))
    units.loc[3, "draw 1"] = np.nan
    with pytest.raises(EstimationError, match="draw of the outcome"):
        correct(on_map(units), correction=MultipleImputation(names))
    value, _, df = combine_draws(np.ones(3), np.ones((3, 2)))
    assert value == 1
    assert np.isinf(df)


def test_the_world_is_as_decided():
    config = PredictedOutcomeConfig(n=4000, effect=1.5, trained=3000, calibrated=500)
    world = simulate_predicted_outcome(config, np.random.default_rng(0))
    units = world.units
    assert len(units) == 4000
    assert len(world.calibration) == 500
    w, e = units["treated"].to_numpy(), units["propensity"].to_numpy()
    weights = np.where(w == 1, 1 / e, 1 / (1 - e))

    def effect(column):
        y = units[column].to_numpy()
        return np.average(y[w == 1], weights=weights[w == 1]) - np.average(
            y[w == 0], weights=weights[w == 0]
        )

    assert effect("outcome") == pytest.approx(1.5, abs=0.15)
    assert 0.4 < effect("prediction") / 1.5 < 0.7
    slope = np.polyfit(world.calibration["outcome"], world.calibration["prediction"], 1)[0]
    assert slope == pytest.approx(0.54, abs=0.06)
    again = simulate_predicted_outcome(config, np.random.default_rng(0))
    pd.testing.assert_frame_equal(units, again.units)


def test_what_images_overlook_predictions_lack():
    config = PredictedOutcomeConfig(n=6000, effect=2.0, overlooked=1.0, trained=3000)
    world = simulate_predicted_outcome(config, np.random.default_rng(1))
    units = world.units
    shown = units["outcome"] - 2.0 * units["treated"]
    assert abs(np.corrcoef(shown, units["prediction"])[0, 1]) > 0.6
    by = units.groupby("treated")["prediction"].mean()
    assert by[1] - by[0] < 0.8


def test_a_network_of_one_layer_is_linear():
    config = PredictedOutcomeConfig(layers=1, features=3)
    out = FrozenNetwork.of(config)(np.array([0.0, 1.0, 2.0]))
    np.testing.assert_allclose(out[2] - out[1], out[1] - out[0])
    with pytest.raises(DesignError):
        PredictedOutcomeConfig(layers=0)
    with pytest.raises(DesignError):
        PredictedOutcomeConfig(noise=-1.0)


def test_pairs_are_the_labelled_units():
    units, _ = drawn(False)
    units["some"] = units["y"].where(units["g"] < 10)
    known = labelled_study(on_map(units), "some")
    assert known.pairs.n == (units["g"] < 10).sum()
    np.testing.assert_array_equal(known.pairs.at, np.flatnonzero(units["g"] < 10))
    assert not known.outside
    assert known.by_arm().sum() == known.pairs.n
