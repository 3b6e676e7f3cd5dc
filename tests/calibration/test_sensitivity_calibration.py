"""Sensitivity bounds in worlds where what is hidden is known."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from eocausal.checks.sensitivity.marginal_sensitivity import MarginalBounds
from eocausal.checks.sensitivity.omitted_variable import OmittedVariableBounds, confounding_strength
from eocausal.estimators.arm_means import Estimand
from eocausal.estimators.scores import AIPW, Hajek
from eocausal.estimators.weighting import Weighting, weight


def logistic(x):
    return 1 / (1 + np.exp(-x))


def fit(x, w, y, score):
    units = pd.DataFrame(x, columns=[f"x{k}" for k in range(x.shape[1])]).assign(w=w, y=y)
    return weight(
        units, treatment="w", outcome="y", covariates=list(units.columns[:-2]),
        decisions=Weighting(score=score),
    )  # fmt: skip


def normal_world(rng, n):
    x = rng.normal(size=(n, 2))
    e, s = logistic(0.7 * x[:, 0] - 0.4 * x[:, 1]), np.exp(0.3 * x[:, 0])
    w = (rng.random(n) < e).astype(int)
    return x, w, w + x @ [1.0, 0.5] + s * rng.normal(size=n), e, s


@pytest.mark.parametrize(
    ("score", "bias", "cover"),
    [(AIPW(), 0.03, 0.9), (Hajek(), 0.04, 0.9), (AIPW(Estimand.ATT), 0.04, 0.87)],
    ids=repr,
)
def test_bounds_reach_the_worst_world_and_no_further(score, bias, cover):
    """The worst hidden confounder of strength Λ moves the mean by (Λ - 1/Λ) φ(q) s(x).

    With it, the outcome of units that are not in an arm has the density of those that are times
    Λ^sign(Y - Q), Q the quantile at Λ/(1 + Λ); outcomes are normal, q is theirs.
    """
    lam, runs, n = 2.0, 60, 800
    q = stats.norm.ppf(lam / (1 + lam))
    e, s = normal_world(np.random.default_rng(99), 400_000)[3:]
    share = e / e.mean() if score.estimand is Estimand.ATT else 1.0
    worst = (lam - 1 / lam) * stats.norm.pdf(q) * float((s * share).mean())
    rows = []
    for r in range(runs):
        x, w, y = normal_world(np.random.default_rng(r), n)[:3]
        bounds = MarginalBounds.of(fit(x, w, y, score))
        low, high = bounds.at(lam)
        rows.append([low.estimate, high.estimate, low.ci_low, high.ci_high,
                     *bounds.sorted_at(lam)])  # fmt: skip
    found = np.array(rows)
    mean = found.mean(axis=0)
    effect = 1.0
    assert mean[:2] == pytest.approx([effect - worst, effect + worst], abs=bias)
    assert (found[:, 2] <= effect - worst).mean() >= cover
    assert (found[:, 3] >= effect + worst).mean() >= cover
    assert mean[4] < mean[0]
    assert mean[5] > mean[1]


def hidden_world(rng, n, lam):
    """Draw a yes/no confounder that moves the odds of treatment by no more than Λ each way."""
    x = rng.normal(size=(n, 1))
    e = logistic(0.8 * x[:, 0])
    odds = e / (1 - e)
    u = rng.random(n) < 0.5
    up, down = odds * lam / (1 + odds * lam) - e, e - odds / lam / (1 + odds / lam)
    room = np.minimum(up, down)
    w = (rng.random(n) < e + np.where(u, room, -room)).astype(int)
    return x, w, w + x[:, 0] + 1.5 * u + rng.normal(size=n)


@pytest.mark.parametrize("score", [AIPW(), Hajek()], ids=repr)
def test_bounds_hold_the_truth_that_the_interval_misses(score):
    lam, covered, naive = 2.0, [], []
    for r in range(50):
        subject = fit(*hidden_world(np.random.default_rng(r), 800, lam), score)
        low, high = MarginalBounds.of(subject).at(lam)
        covered.append(low.ci_low <= 1.0 <= high.ci_high)
        naive.append(subject.estimate.ci_low <= 1.0 <= subject.estimate.ci_high)
    assert np.mean(naive) < 0.1
    assert np.mean(covered) >= 0.95


def omitted_world(rng, n):
    x, u = rng.normal(size=n), rng.random(n) < 0.5
    w = (rng.random(n) < logistic(0.5 * x + np.where(u, 0.8, -0.8))).astype(int)
    return x, u, w, w + x + 1.2 * u + rng.normal(size=n)


def omitted_strength(n=400_000):
    """Return C_Y, C_D, ρ and the bias of leaving u out, from what is known of the world."""
    rng = np.random.default_rng(7)
    x, u, w, _ = omitted_world(rng, n)
    e1, e0 = logistic(0.5 * x + 0.8), logistic(0.5 * x - 0.8)
    e, short = np.where(u, e1, e0), (e1 + e0) / 2
    likely = {1: e1 / (e1 + e0), 0: (1 - e1) / (2 - e1 - e0)}
    told = np.where(w == 1, likely[1], likely[0])
    missing = 1.2 * (u - told)
    alpha = np.where(w == 1, 1 / e, -1 / (1 - e))
    alpha_short = np.where(w == 1, 1 / short, -1 / (1 - short))
    c_y = (missing**2).mean() / ((missing**2).mean() + 1)
    c_d = 1 - (alpha_short**2).mean() / (alpha**2).mean()
    gap = alpha - alpha_short
    rho = (missing * gap).mean() / np.sqrt((missing**2).mean() * (gap**2).mean())
    return c_y, c_d, abs(rho), 1.2 * (likely[1] - likely[0]).mean()


def test_omitted_variable_bound_ends_at_the_truth():
    c_y, c_d, rho, bias = omitted_strength()
    assert bias > 0.3
    low_ends, covered, naive, worst = [], [], [], []
    for r in range(60):
        x, _, w, y = omitted_world(np.random.default_rng(r), 1000)
        bounds = OmittedVariableBounds.of(fit(x[:, None], w, y, AIPW()))
        low = bounds.at(c_y, c_d, rho)[0]
        low_ends.append(low.estimate)
        covered.append(low.ci_low <= 1.0 <= low.ci_high)
        naive.append(bounds.effect.ci_low <= 1.0)
        worst.append(bounds.at(c_y, c_d)[0].estimate <= low.estimate)
    assert confounding_strength(c_y, c_d, rho) > 0
    assert np.mean(low_ends) == pytest.approx(1.0, abs=0.03)
    assert np.mean(covered) >= 0.9
    assert np.mean(naive) < 0.1
    assert all(worst)
