"""Effects on predicted outcomes over repeated worlds: slopes, coverage, and errors by treatment."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from eocausal.checks.measurement_error import PredictionError
from eocausal.estimators.given import GivenPropensity
from eocausal.estimators.inference import HC0, Clustered
from eocausal.estimators.linear_calibration import LinearCalibration
from eocausal.estimators.measurement import correct
from eocausal.estimators.observational import observe
from eocausal.estimators.overlap import Overlap
from eocausal.estimators.predicted_study import draw_labels
from eocausal.estimators.prediction_powered import PredictionPowered
from eocausal.estimators.ridge import Ridge
from eocausal.estimators.scores import AIPW, Hajek
from eocausal.estimators.tweedie import Tweedie
from eocausal.estimators.weighting import Weighting
from eocausal.simulate.predicted_outcome import PredictedOutcomeConfig, simulate_predicted_outcome

pytestmark = pytest.mark.slow

KNOWN = Weighting(
    score=Hajek(), propensity=GivenPropensity("propensity", calibrator=None), folds=None
)
LINEAR = {"layers": 1, "noise": 8.0}


def fit(units, decisions=KNOWN, extra=()):
    data = observe(
        units, treatment="treated", outcome="prediction", covariates=["propensity", *extra]
    )
    return decisions.fit(data, seed=0)


def estimates(world, labels, seed):
    naive = fit(world.units)
    n = len(world.units)
    found = {"naive": naive.estimate}
    for name, correction in (("LCC", LinearCalibration()), ("Tweedie", Tweedie())):
        found[name] = correct(
            naive, measured="outcome", labelled=np.zeros(n, dtype=bool),
            calibration=world.calibration, correction=correction,
        ).estimate  # fmt: skip
    mask = draw_labels(n, labels / n, seed=seed)
    found["PPI"] = correct(naive, measured="outcome", labelled=mask).estimate
    return found


def simulated(effects, runs, labels, **options):
    rows = []
    for run in range(runs):
        for k, effect in enumerate(effects):
            config = PredictedOutcomeConfig(effect=float(effect), trained=3_000, **options)
            world = simulate_predicted_outcome(config, np.random.default_rng([run, k]))
            rows += [
                (name, effect, e.estimate, e.ci_low <= effect <= e.ci_high)
                for name, e in estimates(world, labels, seed=run).items()
            ]
    return pd.DataFrame(rows, columns=["method", "effect", "estimate", "covered"])


def test_slopes_are_those_of_the_paper():
    rows = simulated(np.linspace(-2, 2, 9), 10, 100, n=10_000)
    slope = {
        name: np.polyfit(group["effect"], group["estimate"], 1)[0]
        for name, group in rows.groupby("method")
    }
    assert slope["naive"] == pytest.approx(0.535, abs=0.03)
    assert slope["LCC"] == pytest.approx(1.007, abs=0.03)
    assert slope["Tweedie"] == pytest.approx(0.995, abs=0.03)
    assert slope["PPI"] == pytest.approx(0.983, abs=0.06)


def test_intervals_cover_where_predictions_err_linearly():
    rows = simulated(np.linspace(-2, 2, 5), 50, 100, n=4_000, calibrated=1_000, **LINEAR)
    cover = rows.groupby("method")["covered"].mean()
    assert cover["naive"] < 0.3
    for name in ("LCC", "Tweedie", "PPI"):
        assert 0.91 <= cover[name] <= 0.98


def test_only_labels_help_where_images_overlook_half_of_the_effect():
    rows = simulated([1.0], 150, 200, n=2_000, calibrated=500, overlooked=0.5)
    bias = rows.groupby("method")["estimate"].mean() - 1
    cover = rows.groupby("method")["covered"].mean()
    assert bias["naive"] == pytest.approx(-0.73, abs=0.06)
    assert bias["LCC"] == pytest.approx(-0.5, abs=0.08)
    assert bias["Tweedie"] == pytest.approx(-0.5, abs=0.08)
    assert abs(bias["PPI"]) < 0.05
    assert cover["naive"] < 0.01
    assert cover["LCC"] < 0.5
    assert cover["PPI"] >= 0.91


def test_the_test_for_treatment_in_errors_has_its_size_and_the_power_it_says():
    found = {}
    for share in (0.0, 0.5):
        results = []
        for run in range(150):
            config = PredictedOutcomeConfig(
                n=1_000, overlooked=share, trained=3_000, calibrated=1, **LINEAR
            )
            world = simulate_predicted_outcome(config, np.random.default_rng(run))
            world.units["label"] = draw_labels(1_000, 0.2, seed=run)
            results.append(PredictionError("outcome", "label").run(fit(world.units)).values)
        found[share] = pd.DataFrame(results)
    size = (found[0.0]["p_value"] < 0.05).mean()
    power = (found[0.5]["p_value"] < 0.05).mean()
    assert size <= 0.1
    assert power == pytest.approx(found[0.0]["power"].mean(), abs=0.12)


def clustered(seed, districts=120, size=15):
    """Districts are treated as a whole, and the map errs by district."""
    rng = np.random.default_rng(seed)
    district = np.repeat(np.arange(districts), size)
    z = rng.normal(size=districts)
    chance = 1 / (1 + np.exp(-0.4 * z))
    treated = (rng.random(districts) < chance).astype(int)[district]
    y = (
        treated
        + z[district]
        + rng.normal(size=districts)[district]
        + rng.normal(size=len(district))
    )
    shared = 0.7 * rng.normal(size=districts)[district]
    prediction = 0.5 * y + shared + 0.5 * rng.normal(size=len(district))
    seen = np.isin(district, rng.permutation(districts)[:60])
    return pd.DataFrame(
        {
            "district": district,
            "z": z[district],
            "propensity": chance[district],
            "treated": treated,
            "outcome": y,
            "prediction": prediction,
            "label": seen,
        }
    )


def test_clusters_are_in_the_error_of_the_correction():
    cover = {}
    for rule in (HC0(), Clustered("district")):
        decisions = replace(KNOWN, vcov=rule, overlap=Overlap(min_ess=0, empty=None))
        covered = []
        for seed in range(150):
            naive = fit(clustered(seed), decisions)
            each = [
                correct(naive, measured="outcome", labelled="label", correction=c).estimate
                for c in (LinearCalibration(), PredictionPowered())
            ]
            covered.append([e.ci_low <= 1 <= e.ci_high for e in each])
        cover[rule] = np.mean(covered, axis=0)
    assert (cover[HC0()] < 0.75).all()
    assert (cover[Clustered("district")] >= 0.89).all()


def test_augmented_weights_with_few_labels_cover():
    decisions = Weighting(score=AIPW(), propensity=KNOWN.propensity, outcome_model=Ridge((1.0,)))
    covered, length = [], {"AIPW": [], "Hajek": []}
    for seed in range(120):
        config = PredictedOutcomeConfig(n=2_000, trained=1_000, calibrated=1, **LINEAR)
        world = simulate_predicted_outcome(config, np.random.default_rng(seed))
        mask = draw_labels(2_000, 0.1, seed=seed)
        augmented, plain = (
            correct(fit(world.units, d, ["confounder"]), measured="outcome", labelled=mask).estimate
            for d in (decisions, KNOWN)
        )
        covered.append(augmented.ci_low <= 1 <= augmented.ci_high)
        length["AIPW"].append(augmented.std_error)
        length["Hajek"].append(plain.std_error)
    assert 0.9 <= np.mean(covered) <= 0.99
    assert np.mean(length["AIPW"]) < 0.98 * np.mean(length["Hajek"])
