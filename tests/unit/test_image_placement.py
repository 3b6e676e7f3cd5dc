"""From image to placement and back: networks as propensities, and the logit in pixels."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from training_helpers import Tiny, bright_world

from eocausal.encoders.base import encode, fit_encoder
from eocausal.encoders.objectives import Propensity
from eocausal.encoders.random_conv import RandomConv
from eocausal.encoders.salience import Target, salience
from eocausal.encoders.salience_checks import mass_on, randomise
from eocausal.encoders.salience_methods import Gradient, Occlusion
from eocausal.encoders.schedule import TrainingSchedule
from eocausal.encoders.small_cnn import SmallCNN
from eocausal.encoders.spectral import SpectralStats
from eocausal.encoders.training import train_encoder
from eocausal.errors import EstimationError
from eocausal.estimators.assignment import AssignmentMechanism
from eocausal.estimators.boosting import BoostedPropensity, Trees
from eocausal.estimators.calibration import Platt
from eocausal.estimators.given import GivenPropensity
from eocausal.estimators.observational import observe
from eocausal.estimators.placement_logit import placement_logit
from eocausal.estimators.ridge_logit import RidgeLogit
from eocausal.estimators.scores import Hajek
from eocausal.estimators.weighting import Weighting, weight
from eocausal.folds import RandomFolds, Splits
from eocausal.simulate.objects import ObjectWorldConfig, simulate_objects

FOLDS = RandomFolds(3)


def naive(units: pd.DataFrame) -> float:
    mean = units.groupby("treated")["outcome"].mean()
    return float(mean[1] - mean[0])


def test_a_network_is_the_propensity_of_a_weighted_effect():
    cube, units = bright_world(n=300)
    trained = train_encoder(
        cube, Tiny(), Propensity(), units, folds=FOLDS, seed=3, device="cpu",
        schedule=TrainingSchedule(epochs=15, learning_rate=0.02),
    )  # fmt: skip
    told = trained.predict(cube, device="cpu")["propensity"]
    assert told.isna().sum() == 1
    units = units.assign(network=units["neighborhood"].map(told)).dropna(subset="network")
    decisions = Weighting(Hajek(), GivenPropensity("network"), folds=FOLDS)
    fitted = weight(
        units, treatment="treated", outcome="outcome", covariates=["network"],
        decisions=decisions, seed=3,
    )  # fmt: skip
    given = np.column_stack([1 - units["network"], units["network"]])
    for k in range(3):
        train, here = fitted.splits.train[:, k], fitted.splits.fold == k
        wanted = Platt().fit(given[train], units["treated"].to_numpy()[train])(given[here])
        np.testing.assert_allclose(fitted.nuisances.propensity[here], wanted, atol=1e-12)
    assert abs(fitted.estimate.estimate - 20) < 0.5 * abs(naive(units) - 20)
    analysis = AssignmentMechanism(GivenPropensity("network"), folds=FOLDS, permutations=2)
    found = analysis.fit(fitted.data, seed=3)
    assert found.predicted[0].auc.estimate > 0.7
    assert found.importances[0].drop.estimate > 0.15


@pytest.mark.slow
def test_a_network_sees_planted_objects_and_removes_their_bias():
    world = simulate_objects(ObjectWorldConfig(n=600, size=18, shapes=3, confounding=1.2))
    folds = RandomFolds(3)
    trained = train_encoder(
        world.cube, SmallCNN(widths=(16, 32, 64)), Propensity(), world.units, folds=folds,
        schedule=TrainingSchedule(epochs=15), device="cpu",
    )  # fmt: skip
    told = trained.predict(world.cube, device="cpu")["propensity"]
    units = world.units.assign(network=world.units["neighborhood"].map(told))
    fitted = weight(
        units, treatment="treated", outcome="outcome", covariates=["network"],
        decisions=Weighting(propensity=GivenPropensity("network"), folds=folds), seed=0,
    )  # fmt: skip
    truth = units["effect"].mean()
    assert abs(naive(units) - truth) > 0.5
    assert abs(fitted.estimate.estimate - truth) < 0.25 * abs(naive(units) - truth)
    auc = AssignmentMechanism(GivenPropensity("network"), folds=folds, permutations=0)
    assert auc.fit(fitted.data, seed=0).predicted[0].auc.estimate > 0.7


def linear_study(n=400, p=6, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, p)) * rng.uniform(0.5, 3, p) + 2
    x = rng.normal(size=n)
    odds = x + features[:, 0] - 2
    units = pd.DataFrame(
        {"x": x, "w": (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(int), "y": x},
        index=[f"u{i}" for i in range(n)],
    )
    images = {"image": pd.DataFrame(features, index=units.index)}
    return observe(units, treatment="w", outcome="y", covariates=["x"], images=images)


class TestPlacementLogit:
    @pytest.mark.parametrize("p", [6, 600])
    def test_it_is_the_logit_of_the_model(self, p):
        data = linear_study(p=p)
        model = RidgeLogit((1.0,))
        found = placement_logit(data, model, image="image")
        e = model.cross_fit(data.confounders, data.arm, Splits.none(data.n), seed=0)
        logit = np.log(e[:, 1] / e[:, 0])
        image = data.confounders.only("image").x @ found.coefficients + found.intercept
        x = data.confounders.x[:, 0]
        slope, level = np.polyfit(x - x.mean(), logit - image, 1)
        np.testing.assert_allclose(logit - image, level + slope * (x - x.mean()), atol=1e-5)
        assert level == pytest.approx(0, abs=1e-5)
        assert 0.1 < found.share < 1

    @pytest.mark.parametrize("p", [6, 600])
    def test_coefficients_are_those_of_scikit_learn(self, p):
        data = linear_study(n=150, p=p)
        found = placement_logit(data, RidgeLogit((2.0,)), image="image")
        z = data.confounders.standardised()
        other = LogisticRegression(C=1 / 2.0, tol=1e-10, max_iter=10_000).fit(z, data.arm)
        features = data.confounders.only("image").x
        wanted = other.coef_[0, 1:] / (features.std(axis=0) * np.sqrt(p))
        np.testing.assert_allclose(
            found.coefficients, wanted, atol=1e-4 * np.abs(wanted).max(), rtol=1e-3
        )

    def test_several_arms(self):
        data = linear_study()
        rng = np.random.default_rng(1)
        names = np.where(data.arm == 1, rng.choice(["roads", "water"], data.n), "none")
        units = data.units.assign(w=names)
        image = pd.DataFrame(data.confounders.only("image").x, index=units.index)
        several = observe(
            units, treatment="w", outcome="y", covariates=["x"], images={"image": image}
        )
        one = placement_logit(several, RidgeLogit((1.0,)), image="image")
        two = placement_logit(several, RidgeLogit((1.0,)), image="image", treatment="water")
        assert one.coefficients[0] > 0.1
        assert two.coefficients[0] > 0.1
        assert not np.allclose(one.coefficients, two.coefficients)

    def test_bad_input(self):
        data = linear_study()
        with pytest.raises(EstimationError, match="no treatment 'roads'"):
            placement_logit(data, RidgeLogit((1.0,)), image="image", treatment="roads")
        with pytest.raises(EstimationError, match="no confounders called 'radar'"):
            placement_logit(data, RidgeLogit((1.0,)), image="radar")
        trees = BoostedPropensity(Trees(most=10, chunk=5))
        with pytest.raises(EstimationError, match="not a linear function"):
            placement_logit(data, trees, image="image")

    def test_salience_of_placement_is_on_what_drives_it(self):
        world = simulate_objects(ObjectWorldConfig(n=400, size=18, shapes=2, confounding=3.0))
        fitted = fit_encoder(world.cube, RandomConv(features=256, patch=5), seed=0)
        features = encode(world.cube, fitted, device="cpu")
        data = observe(
            world.units, treatment="treated", outcome="outcome", images={"image": features}
        )
        told = placement_logit(data, RidgeLogit((1.0,)), image="image")
        assert told.share == pytest.approx(1)
        target = Target.linear(
            fitted, told.coefficients, told.intercept, name="logit of treatment", units="logit"
        )
        some, how = list(world.cube.indexes["neighborhood"][:40]), Occlusion(size=5, stride=3)
        maps = salience(world.cube, target, how, neighborhoods=some, device="cpu")
        e = RidgeLogit((1.0,)).cross_fit(data.confounders, data.arm, Splits.none(400), seed=0)
        np.testing.assert_allclose(maps["score"], np.log(e[:40, 1] / e[:40, 0]), atol=1e-3)
        # Crosses speak for treatment, saltires of the same pixels do not; with random weights both.
        image = world.cube["image"].to_numpy()[:40, 0]
        shapes = (image[:, 0] > 0.25) & (image[:, 1] > 0.3)
        foil = salience(
            world.cube, randomise(target, seed=5), how, neighborhoods=some, device="cpu"
        )
        own, other = (
            mass_on(m.clip(min=0), world.planted[:40], among=shapes).contrast for m in (maps, foil)
        )
        assert own > 3
        assert own > 2 * other

    def test_spectral_features_too(self):
        cube, units = bright_world(n=120)
        keep = units["neighborhood"] != "n04"
        fitted = fit_encoder(cube, SpectralStats(), seed=0)
        features = encode(cube, fitted, device="cpu")
        data = observe(
            units[keep], treatment="treated", outcome="outcome", images={"image": features}
        )
        told = placement_logit(data, RidgeLogit((1.0,)), image="image")
        target = Target.linear(fitted, told.coefficients, told.intercept, name="logit")
        maps = salience(cube, target, Gradient(), neighborhoods=["n00", "n01"], device="cpu")
        assert np.isfinite(maps["score"]).all()
