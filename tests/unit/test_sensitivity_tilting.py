"""Bounds under the marginal sensitivity model against linear programs that state them."""

import numpy as np
import pytest
from scipy.optimize import linprog, minimize_scalar

from eocausal.checks.sensitivity.tilting import (
    doubly_robust_shift,
    quantile_balancing_shift,
    sorting_shift,
)


@pytest.fixture(params=[1.0, 0.0], ids=["ate", "att"])
def world(request):
    rng = np.random.default_rng(1)
    n = 240
    x = rng.normal(size=n)
    own = rng.random(n) < 1 / (1 + np.exp(-0.6 * x))
    y = x + np.exp(0.4 * x) * rng.normal(size=n)
    basis = np.column_stack([np.ones(n), x, np.exp(0.4 * x)])
    return y, basis, np.exp(-0.6 * x), own, request.param


def largest_mean(y, low, high, balance, target):
    """Maximise Σ v y over low ≤ v ≤ high with balance'v = target."""
    found = linprog(-y, A_eq=balance.T, b_eq=target, bounds=np.stack([low, high], axis=1))
    return -found.fun


@pytest.mark.parametrize("lam", [1.2, 2.0, 5.0])
def test_balanced_bound_is_the_linear_program(world, lam):
    y, basis, odds, own, known = world
    shift = quantile_balancing_shift(y, basis, odds, own, known, lam).value
    plain, o = (known + odds)[own], odds[own]
    best = largest_mean(y[own], known + o / lam, known + o * lam, basis[own], basis[own].T @ plain)
    assert shift == pytest.approx((best - plain @ y[own]) / plain.sum(), rel=1e-8)


@pytest.mark.parametrize("lam", [1.2, 2.0, 5.0])
def test_sorted_bound_is_the_best_ratio(world, lam):
    y, _, odds, own, known = world
    v, o = y[own], odds[own]
    plain = known + o

    def excess(mean):
        weight = np.where(v > mean, known + o * lam, known + o / lam)
        return abs(weight @ (v - mean))

    best = minimize_scalar(excess, bounds=(v.min(), v.max()), method="bounded",
                           options={"xatol": 1e-12}).x  # fmt: skip
    shift = sorting_shift(v, o, known, lam)
    assert shift == pytest.approx(best - plain @ v / plain.sum(), abs=1e-5)


def test_sharp_bounds_lie_within_sorted_ones_and_grow(world):
    y, basis, odds, own, known = world
    before = 0.0
    for lam in (1.0, 1.1, 1.5, 3.0, 10.0):
        sharp = quantile_balancing_shift(y, basis, odds, own, known, lam).value
        wide = sorting_shift(y[own], odds[own], known, lam)
        assert sharp <= wide + 1e-9
        assert sharp >= before
        before = sharp
    assert before > 0.1


def test_nothing_moves_if_nothing_is_hidden(world):
    y, basis, odds, own, known = world
    assert sorting_shift(y[own], odds[own], known, 1.0) == pytest.approx(0.0, abs=1e-12)
    assert quantile_balancing_shift(y, basis, odds, own, known, 1.0).value == 0.0
    robust = doubly_robust_shift(y, basis, odds, own, ~own, known, 1.0)
    assert robust.value == pytest.approx(0.0, abs=1e-12)
    assert robust.influence == pytest.approx(np.zeros(len(y)), abs=1e-12)


def test_slope_is_the_derivative_with_respect_to_the_log_odds(world):
    y, basis, odds, own, known = world
    found = quantile_balancing_shift(y, basis, odds, own, known, 2.0)
    for i in (0, 5, 17):
        step = np.where(np.arange(len(y)) == i, 1e-4, 0.0)
        up, down = (
            quantile_balancing_shift(y, basis, odds * np.exp(s), own, known, 2.0).value
            for s in (step, -step)
        )
        assert found.slope[i] == pytest.approx((up - down) / 2e-4, abs=1e-6)


@pytest.mark.parametrize("kind", ["balanced", "robust"])
def test_influence_is_what_a_unit_adds(world, kind):
    """Leaving a unit out moves the shift by minus its influence, to first order."""
    y, basis, odds, own, known = world

    def shift(keep):
        parts = (y[keep], basis[keep], odds[keep], own[keep])
        if kind == "balanced":
            return quantile_balancing_shift(*parts, known, 2.0)
        return doubly_robust_shift(*parts, ~own[keep], known, 2.0)

    everyone = np.ones(len(y), dtype=bool)
    found = shift(everyone)
    moved = []
    for i in range(0, len(y), 3):
        keep = everyone.copy()
        keep[i] = False
        moved.append(found.value - shift(keep).value)
    assert found.influence.sum() == pytest.approx(0.0, abs=1e-8)
    assert np.corrcoef(moved, found.influence[::3])[0, 1] > 0.97
    assert np.std(moved) == pytest.approx(np.std(found.influence[::3]), rel=0.1)
