"""The NSW experiment as in Dehejia & Wahba (1999), weighted as R's WeightIt weights it.

Estimates, effective sample sizes and standard errors of seven combinations of estimand and method.
All are closed forms of a convex problem that both solve, so that digits are lost by stopping rules
only: measured, estimates agree to 2e-11 and standard errors to 2e-10 of their size.
"""

import json

import numpy as np
import pandas as pd
import pytest

from eocausal.estimators.arm_means import Estimand
from eocausal.estimators.balancing import balance_by_entropy
from eocausal.estimators.logit import Logit
from eocausal.estimators.scores import CBPS, EntropyBalancing, Hajek
from eocausal.estimators.weighting import Weighting, weight

COLUMNS = [
    "age", "education", "black", "hispanic", "married",
    "nodegree", "re74", "re75", "u74", "u75",
]  # fmt: skip
SCORES = {"glm": Hajek, "ebal": EntropyBalancing, "cbps": CBPS}
CASES = [
    ("ATE", "glm"), ("ATE", "ebal"), ("ATE", "cbps"),
    ("ATT", "glm"), ("ATT", "ebal"), ("ATT", "cbps"),
    ("ATO", "glm"),
]  # fmt: skip


@pytest.fixture
def lalonde(reference):
    folder = reference("lalonde")
    values = json.loads((folder / "weightit_nsw_dw.json").read_text())["values"]
    return pd.read_csv(folder / "nsw_dw.csv"), {(v["estimand"], v["method"]): v for v in values}


def fitted(units, estimand, method):
    return weight(
        units, treatment="treat", outcome="re78", covariates=COLUMNS,
        decisions=Weighting(
            score=SCORES[method](Estimand(estimand)), propensity=Logit(), folds=None
        ),
    )  # fmt: skip


def test_every_case_of_the_reference_is_compared(lalonde):
    assert set(lalonde[1]) == set(CASES)


@pytest.mark.parametrize(("estimand", "method"), CASES)
def test_estimates_and_weights_are_those_of_weightit(lalonde, estimand, method):
    units, wanted = lalonde
    found, case = fitted(units, estimand, method), wanted[estimand, method]
    assert found.data.n == case["n"]
    assert found.estimate.estimate == pytest.approx(case["est"], rel=1e-9)
    ess = {s.arm: s.ess for s in found.support}
    assert ess["0"] == pytest.approx(case["ess"]["Control"], rel=1e-8)
    assert ess["1"] == pytest.approx(case["ess"]["Treated"], rel=1e-8)
    # With weights taken as given, the variance is a function of weights and outcomes alone.
    arm, y, w = found.data.arm, found.data.y, found.means.weights
    left = w * (y - found.means.value[arm]) / np.bincount(arm, w)[arm]
    assert np.sqrt(left @ left) == pytest.approx(case["se_hc0"], rel=1e-8)


@pytest.mark.parametrize(("estimand", "method"), [c for c in CASES if c[1] != "ebal"])
def test_standard_errors_are_those_of_m_estimation(lalonde, estimand, method):
    units, wanted = lalonde
    found = fitted(units, estimand, method).estimate
    assert found.std_error == pytest.approx(wanted[estimand, method]["se_mest"], rel=1e-8)


@pytest.mark.parametrize("estimand", ["ATE", "ATT"])
def test_entropy_balancing_differs_by_the_targets_alone(lalonde, estimand):
    """WeightIt takes the means that it balances to as known; here they count as estimated.

    For the ATT both weights and their errors are then those of CBPS, whose standard error WeightIt
    gives with the targets estimated: the one to agree with.
    """
    units, wanted = lalonde
    x, arm = units[COLUMNS].to_numpy(float), units["treat"].to_numpy()
    y, population = units["re78"].to_numpy(float), Estimand(estimand)
    means = balance_by_entropy(y, arm, x, population)
    target = x[arm == 1] if estimand == "ATT" else x
    z = (x - target.mean(axis=0)) / x.std(axis=0)
    psi = np.zeros((len(y), 2))
    for k in (0, 1):
        w = means.weights * (arm == k)
        left = y - means.value[k]
        if estimand == "ATE" or k == 0:
            weighted = z * w[:, None]
            left = left - z @ np.linalg.solve(weighted.T @ z, weighted.T @ left)
        psi[:, k] = w * left / w.sum()
    known = np.linalg.norm(psi[:, 1] - psi[:, 0])
    assert known == pytest.approx(wanted[estimand, "ebal"]["se_mest"], rel=1e-8)
    ours = np.linalg.norm(means.influence[:, 1] - means.influence[:, 0])
    if estimand == "ATT":
        assert ours == pytest.approx(wanted["ATT", "cbps"]["se_mest"], rel=1e-8)
    else:
        assert ours > known
