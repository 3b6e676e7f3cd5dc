"""Standardised mean differences before and after weighting."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from eocausal.checks.base import Verdict
from eocausal.checks.weighted_balance import (
    WeightedBalance,
    standard_deviations,
    weighted_balance,
    weighted_means,
)
from eocausal.estimators.arm_means import Estimand
from eocausal.estimators.logit import Logit
from eocausal.estimators.scores import CBPS, EntropyBalancing, Hajek
from eocausal.estimators.weighting import Weighting, weight

NAMES = ["a", "b", "binary"]


def study(n=1200, seed=0, arms=2):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n))
    binary = (rng.random(n) < 0.3).astype(float)
    score = np.stack([np.zeros(n), a + binary, 0.5 * b], axis=1)[:, :arms]
    e = np.exp(score) / np.exp(score).sum(axis=1, keepdims=True)
    w = (e.cumsum(axis=1) < rng.random(n)[:, None]).sum(axis=1)
    y = a + b + binary + (w > 0) + rng.normal(size=n)
    return pd.DataFrame({"a": a, "b": b, "binary": binary, "w": w, "y": y})


def fitted(units, covariates=NAMES, images=None, **decisions):
    return weight(
        units, treatment="w", outcome="y", covariates=covariates, images=images,
        decisions=Weighting(**decisions), seed=1,
    )  # fmt: skip


def by_hand(values, w, weights, denominator):
    one, zero = w == 1, w == 0
    gap = np.average(values[one], weights=weights[one])
    gap -= np.average(values[zero], weights=weights[zero])
    return gap / denominator


def test_differences_are_the_textbooks():
    units = study()
    subject = fitted(units, score=Hajek(), propensity=Logit(), folds=None)
    table = weighted_balance(subject)
    e, w = subject.nuisances.propensity[:, 1], units["w"].to_numpy()
    ipw = np.where(w == 1, 1 / e, 1 / (1 - e))
    for name in NAMES:
        values = units[name].to_numpy()
        if name == "binary":
            p = [values[w == k].mean() for k in (0, 1)]
            sd = np.sqrt(np.mean([q * (1 - q) for q in p]))
        else:
            sd = np.sqrt(np.mean([values[w == k].var(ddof=1) for k in (0, 1)]))
        assert table.loc[name, "sd"] == pytest.approx(sd, rel=1e-12)
        plain = np.ones(len(w))
        assert table.loc[name, "smd_before"] == pytest.approx(by_hand(values, w, plain, sd))
        assert table.loc[name, "smd_after"] == pytest.approx(by_hand(values, w, ipw, sd), abs=1e-10)


def test_the_att_is_scaled_by_the_treated():
    units = study()
    x, w = units[NAMES].to_numpy(), units["w"].to_numpy()
    found = standard_deviations(x, w, 2, Estimand.ATT)
    np.testing.assert_allclose(found[:2], x[w == 1, :2].std(axis=0, ddof=1))
    p = x[w == 1, 2].mean()
    assert found[2] == pytest.approx(np.sqrt(p * (1 - p)))
    result = WeightedBalance().run(fitted(units, score=EntropyBalancing()))
    assert result.values["sd"] == "treated"


@pytest.mark.parametrize("score", [EntropyBalancing(), CBPS(), CBPS(Estimand.ATT)])
def test_weights_that_balance_exactly_leave_nothing(score):
    result = WeightedBalance().run(fitted(study(), score=score))
    assert result.verdict is Verdict.PASS
    assert result.values["table_worst_before"] > 0.3
    assert result.values["table_worst_after"] < 1e-4


def test_overlap_weights_of_a_logit_balance_exactly():
    subject = fitted(study(), score=Hajek(Estimand.ATO), propensity=Logit(), folds=None)
    assert weighted_balance(subject)["smd_after"].abs().max() < 1e-6


def unadjusted(subject):
    """Give every unit the same weight, as if probabilities had been constant."""
    return replace(subject, means=replace(subject.means, weights=np.ones(subject.data.n)))


def test_imbalance_fails_without_an_outcome_model_and_warns_with_one():
    alone = unadjusted(fitted(study(), score=Hajek()))
    result = WeightedBalance().run(alone)
    assert result.verdict is Verdict.FAIL
    assert "nothing else adjusts" in result.detail
    assert result.values["table_worst_after"] == result.values["table_worst_before"]
    helped = WeightedBalance().run(unadjusted(fitted(study())))
    assert helped.verdict is Verdict.WARN
    assert "rests on the outcome model" in helped.detail


def test_several_arms_show_their_worst_pair():
    subject = fitted(study(n=3000, arms=3), score=Hajek())
    table = weighted_balance(subject)
    x, arm, w = subject.data.confounders.x, subject.data.arm, subject.means.weights
    means = np.stack([np.average(x[arm == k], axis=0, weights=w[arm == k]) for k in range(3)])
    for j, name in enumerate(NAMES):
        largest = max(abs(means[i, j] - means[k, j]) for i in range(3) for k in range(i))
        assert abs(table.loc[name, "difference_after"]) == pytest.approx(largest)
    assert set(table["pair"]) <= {"1 - 0", "2 - 0", "2 - 1"}


def test_features_of_images_are_judged_together_and_shown_by_the_worst():
    units = study()
    rng = np.random.default_rng(3)
    features = np.column_stack([units[["a", "b", "binary"]], rng.normal(size=(len(units), 40))])
    frame = pd.DataFrame(features, index=units.index.rename("neighborhood"))
    subject = fitted(units, covariates=["b"], images={"chip": frame}, score=Hajek())
    result = WeightedBalance().run(subject)
    assert list(result.table.index) == ["b", "chip (worst of 43)"]
    whole = weighted_balance(subject)
    chip = whole[whole["source"] == "chip"]["smd_after"].abs()
    assert result.values["chip_share_after"] == (chip > 0.1).mean()
    assert result.table["smd_after"].abs().iloc[1] == chip.max()
    assert result.verdict is Verdict.PASS


def test_many_features_apart_beyond_chance_warn():
    units = study()
    rng = np.random.default_rng(3)
    apart = rng.normal(size=(len(units), 20)) + 0.3 * units["w"].to_numpy()[:, None]
    frame = pd.DataFrame(apart, index=units.index.rename("neighborhood"))
    subject = fitted(units, covariates=["b"], images={"chip": frame}, score=Hajek())
    balanced = WeightedBalance(small=0.01, large=9).run(subject)
    assert balanced.values["share_by_chance"] > 0.7
    table = balanced.table.loc[["b"]]
    assert table["smd_after"].abs().max() < 0.1
    result = WeightedBalance().run(unadjusted(subject))
    assert result.values["chip_share_after"] == 1.0
    assert result.verdict is not Verdict.PASS


def test_a_column_that_differs_and_does_not_vary_within_arms_is_infinite():
    x = np.array([[1.0, 2.0], [1.0, 3.0], [0.0, 2.0], [0.0, 4.0]])
    arm = np.array([1, 1, 0, 0])
    assert standard_deviations(x, arm, 2, Estimand.ATE)[0] == 0
    np.testing.assert_allclose(weighted_means(x, arm, 2, np.ones(4)), [[0, 3], [1, 2.5]])
