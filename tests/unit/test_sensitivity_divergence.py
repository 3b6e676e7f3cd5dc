"""Bounds by divergences against the dual they come from, and against each other."""

import numpy as np
import pytest
from scipy.optimize import linprog, minimize

from eocausal.checks.sensitivity.divergence_bounds import Divergence, greatest_mean


@pytest.fixture
def outcomes():
    return np.random.default_rng(0).beta(2, 4, size=60) * 10


BUDGET = {
    Divergence.KL: lambda e: -np.log(e),
    Divergence.HELLINGER: lambda e: 1 - np.sqrt(e),
    Divergence.CHI2: lambda e: (1 - e) / (2 * e),
}
CONJUGATE = {
    Divergence.KL: (lambda t: -1 - np.log(-t), 0.0),
    Divergence.HELLINGER: (lambda t: t / (1 - 2 * t), 0.5),
    Divergence.CHI2: (lambda t: 1 - np.sqrt(1 - 2 * t), 0.5),
}


@pytest.mark.parametrize("kind", list(BUDGET))
@pytest.mark.parametrize("e", [0.1, 0.5, 0.9])
def test_equals_the_dual_with_two_numbers(outcomes, kind, e):
    """Minimise λB + u + λ E g*((Y - u)/λ), with g*'s domain kept at the greatest outcome."""
    conjugate, edge = CONJUGATE[kind]
    y_hi = 10.0

    def dual(free):
        lam, room = np.exp(free)
        u = y_hi - edge * lam + room
        return lam * BUDGET[kind](e) + u + lam * conjugate((outcomes - u) / lam).mean()

    best = min(
        minimize(dual, start, method="Nelder-Mead",
                 options={"xatol": 1e-10, "fatol": 1e-12, "maxiter": 8000}).fun
        for start in ([0.0, 0.0], [2.0, 1.0], [1.0, -12.0])
    )  # fmt: skip
    assert greatest_mean(outcomes, e, y_hi, kind).value == pytest.approx(best, abs=1e-5)


def test_total_variation_is_the_linear_program(outcomes):
    n, e = len(outcomes), 0.37
    values = np.append(outcomes, 10.0)
    p = np.append(np.full(n, 1 / n), 0.0)
    cost = np.concatenate([-values, np.zeros(n + 1)])
    up = np.hstack([np.eye(n + 1), -np.eye(n + 1)])
    total = np.concatenate([np.zeros(n + 1), np.ones(n + 1)])[None]
    found = linprog(
        cost, A_ub=np.vstack([up, total]), b_ub=np.append(p, 1 - e),
        A_eq=np.concatenate([np.ones(n + 1), np.zeros(n + 1)])[None], b_eq=[1.0],
    )  # fmt: skip
    mean = greatest_mean(outcomes, e, 10.0, Divergence.TV).value
    assert mean == pytest.approx(-found.fun, rel=1e-9)


@pytest.mark.parametrize("e", [0.02, 0.3, 0.7, 0.99])
def test_no_divergence_beats_manski(outcomes, e):
    mean = {d: greatest_mean(outcomes, e, 10.0, d).value for d in Divergence}
    assert mean[Divergence.MANSKI] == pytest.approx(e * outcomes.mean() + (1 - e) * 10.0)
    assert mean[Divergence.MANSKI] < mean[Divergence.CHI2]
    assert mean[Divergence.CHI2] < mean[Divergence.KL] < mean[Divergence.HELLINGER]
    assert mean[Divergence.TV] > mean[Divergence.MANSKI]


@pytest.mark.parametrize("kind", list(Divergence))
def test_everything_seen_leaves_nothing_open(outcomes, kind):
    if kind in (Divergence.MANSKI, Divergence.TV):
        found = greatest_mean(outcomes, 1.0, 10.0, kind)
        assert found.value == pytest.approx(outcomes.mean())
    near = greatest_mean(outcomes, 1 - 1e-9, 10.0, kind)
    assert near.value == pytest.approx(outcomes.mean(), abs=0.01)


@pytest.mark.parametrize("kind", list(Divergence))
def test_slope_and_influence_are_derivatives(outcomes, kind):
    e, step = 0.37, 1e-5
    found = greatest_mean(outcomes, e, 10.0, kind)
    up, down = (greatest_mean(outcomes, e + s, 10.0, kind).value for s in (step, -step))
    assert found.slope_e == pytest.approx((up - down) / (2 * step), rel=1e-3)
    twice = np.repeat(outcomes, 50)
    for i in (0, 7, 30):
        more = np.append(twice, outcomes[i])
        moved = greatest_mean(more, e, 10.0, kind).value - found.value
        assert moved * len(twice) / len(outcomes) == pytest.approx(found.influence[i], abs=2e-3)
    assert found.influence.sum() == pytest.approx(0.0, abs=1e-12)


def test_outcomes_that_do_not_vary():
    for kind in Divergence:
        found = greatest_mean(np.full(5, 3.0), 0.5, 3.0, kind)
        assert found.value == pytest.approx(3.0)
