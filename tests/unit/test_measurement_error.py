"""The test for treatment in the errors of predictions."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from eocausal.checks.base import Verdict
from eocausal.checks.measurement_error import PredictionError, error_table
from eocausal.errors import EstimationError, OneArmError
from eocausal.estimators.inference import HC0, HC2, Clustered
from eocausal.estimators.labelled import labelled_study
from eocausal.estimators.linear_calibration import LinearCalibration
from eocausal.estimators.logit import Logit
from eocausal.estimators.measurement import correct
from eocausal.estimators.prediction_error import (
    bend_of,
    least_squares,
    power_of_test,
    prediction_slope,
    treatment_in_error,
)
from eocausal.estimators.scores import Hajek
from eocausal.estimators.weighting import Weighting, weight


def study(n=2000, labels=500, shift=0.0, towns=0.0, seed=0, arms=2):
    rng = np.random.default_rng(seed)
    x, town, noise, error = rng.normal(size=(4, n))
    w = (rng.random(n) < 1 / (1 + np.exp(-0.8 * x - 0.8 * town))).astype(int)
    if arms == 3:
        w *= rng.integers(1, 3, n)
    y = 1.0 * (w > 0) + x + noise
    seen = rng.permutation(n) < labels
    return pd.DataFrame(
        {
            "x": x,
            "town": town,
            "w": w,
            "wealth": np.where(seen, y, np.nan),
            "map": 0.6 * y + 0.5 * error + shift * (w == arms - 1) + towns * town,
            "district": rng.integers(0, 30, n),
        },
        index=pd.Index([f"u{i}" for i in range(n)], name="unit"),
    )


def on_map(units, vcov=None):
    return weight(
        units, treatment="w", outcome="map", covariates=["x", "town"], seed=1,
        decisions=Weighting(score=Hajek(), propensity=Logit(), folds=None, vcov=vcov or HC0()),
    )  # fmt: skip


def test_the_coefficient_is_that_of_least_squares_with_its_robust_error():
    units = study(shift=0.1)
    found = treatment_in_error(labelled_study(on_map(units), "wealth"), curved=False)
    some = units.dropna()
    x = np.column_stack([np.ones(len(some)), some["wealth"], some["w"]])
    beta = np.linalg.lstsq(x, some["map"], rcond=None)[0]
    e = some["map"].to_numpy() - x @ beta
    bread = np.linalg.inv(x.T @ x)
    assert found.estimate == pytest.approx(beta[2])
    robust = bread @ (x.T * e**2) @ x @ bread
    assert found.std_error == pytest.approx(np.sqrt(robust[2, 2]))
    leverage = np.einsum("ij,jk,ik->i", x, bread, x)
    hc2 = bread @ (x.T * (e**2 / (1 - leverage))) @ x @ bread
    assert found.with_vcov(HC2()).std_error == pytest.approx(np.sqrt(hc2[2, 2]))
    groups = some["district"].to_numpy()
    sums = np.stack([(x * e[:, None])[groups == g].sum(axis=0) for g in np.unique(groups)])
    clustered = bread @ sums.T @ sums @ bread * len(sums) / (len(sums) - 1)
    by_district = found.with_vcov(Clustered("district")).std_error
    assert by_district == pytest.approx(np.sqrt(clustered[2, 2]))


def test_the_slope_has_the_variance_that_was_decided():
    units = study()
    plain = prediction_slope(labelled_study(on_map(units), "wealth"))
    grouped = prediction_slope(labelled_study(on_map(units, Clustered("district")), "wealth"))
    some = units.dropna()
    assert plain.estimate == pytest.approx(np.polyfit(some["wealth"], some["map"], 1)[0])
    assert grouped.std_error == plain.with_vcov(Clustered("district")).std_error
    assert plain.ci_high < 1


def test_an_error_that_knows_the_treatment_fails_and_none_passes():
    clean = PredictionError("wealth").run(on_map(study()))
    assert clean.verdict is Verdict.PASS
    assert clean.values["power"] > 0.9
    assert clean.values["slope"] == pytest.approx(0.6, abs=0.05)
    broken = PredictionError("wealth").run(on_map(study(shift=-0.4)))
    assert broken.verdict is Verdict.FAIL
    assert broken.values["bias"] < -0.4
    assert "lower" in broken.claim
    assert "PredictionPowered" in broken.detail
    slight = PredictionError("wealth").run(on_map(study(n=20_000, labels=20_000, shift=-0.05)))
    assert slight.verdict is Verdict.WARN
    assert slight.values["p_value"] < 0.05


def test_few_labels_say_little_and_none_nothing():
    few = PredictionError("wealth").run(on_map(study(labels=40)))
    assert few.verdict is Verdict.WARN
    assert few.values["power"] < 0.8
    assert "With 40 labels an error of 50% of the effect would be found in" in few.detail
    for measured in (None, "wealth"):
        none = PredictionError(measured).run(on_map(study(labels=0)))
        assert none.verdict is Verdict.WARN
        assert "cannot be tested" in none.claim
        assert none.table.empty


def test_labels_in_one_arm_cannot_test():
    units = study()
    units.loc[units["w"] == 1, "wealth"] = np.nan
    result = PredictionError("wealth").run(on_map(units))
    assert result.verdict is Verdict.WARN
    assert "0 treated" in result.claim
    with pytest.raises(OneArmError):
        treatment_in_error(labelled_study(on_map(units), "wealth"))


def test_an_error_by_a_confounder_is_told_apart_by_adjusting():
    units = study(towns=0.5, labels=2000)
    naive = on_map(units)
    assert PredictionError("wealth").run(naive).verdict is not Verdict.PASS
    assert PredictionError("wealth", adjust=True).run(naive).verdict is Verdict.PASS


def test_a_curved_map_is_not_one_that_knows_the_treatment():
    units = study(n=4000, labels=4000)
    units["map"] += 0.3 * np.maximum(units["wealth"] - 1, 0) ** 2
    known = labelled_study(on_map(units), "wealth")
    straight, bent = (treatment_in_error(known, curved=c) for c in (False, True))
    assert straight.p_value < 0.01
    assert bent.p_value > 0.05
    assert bent.std_error < 1.5 * straight.std_error


def test_every_treatment_is_tested():
    units = study(n=6000, labels=3000, shift=-0.3, arms=3)
    known = labelled_study(on_map(units), "wealth")
    table = error_table(known)
    assert list(table["treatment"]) == ["1", "2"]
    assert abs(table["coefficient"][0]) < 3 * table["std_error"][0]
    assert table["coefficient"][1] == pytest.approx(-0.3, abs=0.1)
    one, two = treatment_in_error(known, "1"), treatment_in_error(known, "2")
    assert table["coefficient"][0] == one.estimate
    assert table["coefficient"][1] == two.estimate
    assert PredictionError("wealth").run(on_map(units)).values["p_value"] < 1e-3


def test_a_correction_brings_its_labels():
    fixed = correct(on_map(study()), measured="wealth", correction=LinearCalibration())
    result = PredictionError().run(fixed)
    assert result.verdict is Verdict.PASS
    assert result.values["n_labelled"] == 500
    assert result.record()["values"]["n_labelled"] == 500


def test_power_is_that_of_a_t_test():
    assert power_of_test(0.0, 1.0, np.inf, 0.05) == pytest.approx(0.05)
    z = stats.norm.ppf(0.975)
    assert power_of_test(-2.0, 1.0, np.inf, 0.05) == pytest.approx(
        stats.norm.sf(z - 2) + stats.norm.cdf(-z - 2)
    )
    assert power_of_test(2.0, 1.0, 10, 0.05) < power_of_test(2.0, 1.0, np.inf, 0.05)
    assert np.isnan(power_of_test(1.0, 0.0, 10, 0.05))


def test_regressions_without_a_solution_are_refused():
    x = np.column_stack([np.ones(5), np.ones(5)])
    with pytest.raises(EstimationError, match="no unique solution"):
        least_squares(x, np.arange(5.0))


def test_a_bend_is_found():
    units = study(labels=2000)
    straight = bend_of(labelled_study(on_map(units), "wealth").pairs)
    assert straight.p_value > 0.01
    units["map"] += 0.1 * units["wealth"] ** 2
    bent = bend_of(labelled_study(on_map(units), "wealth").pairs)
    assert bent.p_value < 1e-6
    assert bent.above > bent.below
    assert bend_of(labelled_study(on_map(study(labels=12)), "wealth").pairs) is None
