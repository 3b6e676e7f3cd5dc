"""Difference in means and Lin's regression against an independent implementation."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from eocausal.designs import Trial
from eocausal.errors import (
    DuplicateIdError,
    EstimationError,
    MissingColumnError,
    OneArmError,
    OneClusterError,
    OutcomeError,
)
from eocausal.estimators.inference import HC0, HC2, Clustered, Conley
from eocausal.estimators.randomized import difference_in_means, lin_adjusted


@pytest.fixture
def units():
    rng = np.random.default_rng(3)
    village = np.repeat(np.arange(40), rng.integers(3, 9, 40))
    n = len(village)
    arm = rng.permutation(np.arange(40) % 2)[village]
    age, wealth = rng.normal(40, 9, n), rng.gamma(2.0, 1.0, n)
    y = 1 + 0.4 * arm + 0.03 * age + 0.2 * arm * wealth + rng.normal(size=40)[village]
    y = y + rng.normal(size=n)
    return pd.DataFrame(
        {"arm": arm, "village": village, "age": age, "wealth": wealth, "y": y,
         "lon": 30 + village * 0.01, "lat": 1 + (village % 7) * 0.01},
        index=[f"u{i}" for i in range(n)],
    )  # fmt: skip


def lin_design(units):
    z = units[["age", "wealth"]].to_numpy()
    z = z - z.mean(axis=0)
    arm = units["arm"].to_numpy()[:, None]
    return np.column_stack([np.ones(len(z)), arm, z, arm * z])


def test_difference_in_means_is_neyman(units):
    found = difference_in_means(units, Trial("arm"), "y")
    one, zero = (units.loc[units["arm"] == a, "y"] for a in (1, 0))
    assert found.estimate == pytest.approx(one.mean() - zero.mean(), abs=1e-12)
    neyman = np.sqrt(one.var() / len(one) + zero.var() / len(zero))
    assert found.std_error == pytest.approx(neyman, rel=1e-10)


@pytest.mark.parametrize("kind", ["HC0", "HC2"])
def test_lin_equals_regression(units, kind):
    rule = {"HC0": HC0(), "HC2": HC2()}[kind]
    found = lin_adjusted(units, Trial("arm"), "y", ["age", "wealth"], vcov=rule)
    fit = sm.OLS(units["y"].to_numpy(), lin_design(units)).fit(cov_type=kind)
    assert found.estimate == pytest.approx(fit.params[1], rel=1e-10)
    assert found.std_error == pytest.approx(fit.bse[1], rel=1e-8)


def test_clustered_equals_regression(units):
    found = lin_adjusted(units, Trial("arm", cluster="village"), "y", ["age", "wealth"])
    fit = sm.OLS(units["y"].to_numpy(), lin_design(units)).fit(
        cov_type="cluster",
        cov_kwds={"groups": units["village"].to_numpy(), "use_correction": False},
    )
    assert found.std_error == pytest.approx(fit.bse[1] * np.sqrt(40 / 39), rel=1e-8)
    assert found.df == 39


def test_conley_with_tiny_cutoff_sums_within_places(units):
    wide = units.assign(village=units["lon"].astype(str) + units["lat"].astype(str))
    conley = difference_in_means(wide, Trial("arm"), "y", vcov=Conley(km=0.001))
    cluster = difference_in_means(wide, Trial("arm"), "y", vcov=Clustered("village"))
    g = wide["village"].nunique()
    assert conley.std_error == pytest.approx(cluster.std_error * np.sqrt((g - 1) / g), rel=0.02)


def test_unequal_probabilities_are_weighted():
    rng = np.random.default_rng(0)
    n = 4000
    block = rng.integers(0, 2, n)
    prob = np.where(block == 1, 0.8, 0.2)
    arm = (rng.random(n) < prob).astype(int)
    units = pd.DataFrame({"arm": arm, "prob": prob, "y": 5.0 * block + arm + rng.normal(size=n)})
    naive = difference_in_means(units, Trial("arm"), "y")
    right = difference_in_means(units, Trial("arm", prob="prob"), "y")
    assert naive.estimate > 3
    assert right.estimate == pytest.approx(1, abs=4 * right.std_error)
    assert "Hájek" in right.method


def test_collinear_covariates_do_not_change_the_effect(units):
    twice = units.assign(age_again=2 * units["age"] + 1, one=1.0)
    plain = lin_adjusted(units, Trial("arm"), "y", ["age"])
    doubled = lin_adjusted(twice, Trial("arm"), "y", ["age", "age_again", "one"])
    assert doubled.estimate == pytest.approx(plain.estimate, rel=1e-9)
    assert doubled.std_error == pytest.approx(plain.std_error, rel=1e-6)


def test_bad_input_is_refused(units):
    trial = Trial("arm", cluster="village")
    with pytest.raises(OutcomeError, match="u3"):
        difference_in_means(units.assign(y=units["y"].where(units.index != "u3")), trial, "y")
    with pytest.raises(OutcomeError, match="7"):
        difference_in_means(units.assign(y=7.0), trial, "y")
    with pytest.raises(OneArmError, match="control"):
        difference_in_means(units.assign(arm=0), trial, "y")
    with pytest.raises(OneClusterError):
        difference_in_means(units.assign(village="a"), trial, "y")
    with pytest.raises(MissingColumnError, match="closest: 'age'"):
        lin_adjusted(units, trial, "y", ["agee"])
    with pytest.raises(EstimationError, match="wealth"):
        lin_adjusted(units.assign(wealth=np.inf), trial, "y", ["wealth"])
    with pytest.raises(DuplicateIdError, match="'u0'"):
        difference_in_means(pd.concat([units, units.head(2)]), trial, "y")
    lone = pd.concat([units[units["arm"] == 1].head(1), units[units["arm"] == 0]])
    with pytest.raises(OneClusterError, match="treated arm has 1"):
        difference_in_means(lone, Trial("arm"), "y")
    few = units.groupby("arm").head(3)
    with pytest.raises(EstimationError, match="covariates"):
        lin_adjusted(few, Trial("arm"), "y", ["age", "wealth"])
