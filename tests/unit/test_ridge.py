"""Cross-fitted ridge against scikit-learn and against choosing penalties one by one."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge as SklearnRidge

from eocausal.errors import EstimationError, FoldError
from eocausal.estimators import ridge as module
from eocausal.estimators.confounders import Confounders
from eocausal.estimators.inner_folds import inner_splits
from eocausal.estimators.penalties import GRID
from eocausal.estimators.ridge import Ridge
from eocausal.estimators.ridge_path import ridge_path
from eocausal.folds import Buffered, RandomFolds, SpatialBlocks, Splits, split


def confounders(x: np.ndarray) -> Confounders:
    p = x.shape[1]
    return Confounders(x, tuple(map(str, range(p))), np.zeros(p, dtype=np.int64), ("table",))


def world(n: int, p: int, *, seed: int, noise: float = 1.0, arms: int = 2):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) @ rng.normal(size=(p, p)) / np.sqrt(max(p, 1)) + 3
    arm = rng.permutation(np.arange(n) % arms)
    signal = x[:, : max(p // 2, 1)].sum(axis=1) if p else np.zeros(n)
    return confounders(x), 50 + signal * (1 + arm) + noise * rng.normal(size=n), arm


def explicit(c, y, arm, splits, penalty_of):
    """Fit each fold and arm by scikit-learn."""
    x, out = c.standardised(), np.empty((len(y), arm.max() + 1))
    for k in np.unique(splits.fold):
        here = splits.fold == k
        for a in range(arm.max() + 1):
            rows = splits.train[:, k] & (arm == a)
            model = SklearnRidge(alpha=penalty_of(k, a), solver="svd").fit(x[rows], y[rows])
            out[here, a] = model.predict(x[here])
    return out


def slow_errors(c, y, arm, splits, k, a, grid, *, seed=0):
    """Return the held-out squared error of each penalty by explicit inner cross-validation."""
    x = c.standardised()
    rows, inner = inner_splits(splits, k, arm, seed=seed)
    x, y, own = x[rows], y[rows], arm[rows] == a
    error = np.zeros(len(grid))
    for j in range(inner.k):
        train, test = inner.train[:, j] & own, (inner.fold == j) & own
        for i, penalty in enumerate(grid):
            model = SklearnRidge(alpha=penalty, solver="svd").fit(x[train], y[train])
            error[i] += ((y[test] - model.predict(x[test])) ** 2).sum() if test.any() else 0.0
    return error


def slow_choice(c, y, arm, splits, k, a, grid, *, seed=0):
    """Choose the penalty of least held-out error."""
    return grid[slow_errors(c, y, arm, splits, k, a, grid, seed=seed).argmin()]


@pytest.mark.parametrize(("n", "p"), [(200, 7), (60, 90), (50, 1)])
@pytest.mark.parametrize("penalty", [1e-3, 1.0, 300.0])
def test_equals_scikit_learn_at_the_same_penalty(n, p, penalty):
    c, y, arm = world(n, p, seed=1, arms=3)
    splits = Splits.of(np.arange(n) % 4)
    got = Ridge(penalties=(penalty,)).cross_fit(c, y, arm, splits, seed=0)
    np.testing.assert_allclose(got, explicit(c, y, arm, splits, lambda k, a: penalty), atol=1e-8)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_penalty_is_the_one_of_an_explicit_inner_cross_validation(k):
    c, y, arm = world(240, 20, seed=k, noise=4)
    splits = Splits.none(240) if k == 1 else Splits.of(np.random.default_rng(k).integers(0, k, 240))
    grid = (0.03, 0.3, 3.0, 30.0, 300.0)
    got = Ridge(grid, slack=0).cross_fit(c, y, arm, splits, seed=0)
    want = explicit(c, y, arm, splits, lambda k, a: slow_choice(c, y, arm, splits, k, a, grid))
    np.testing.assert_allclose(got, want, atol=1e-8)


@pytest.mark.parametrize("slack", [0.02, 0.5])
def test_slack_takes_the_weakest_penalty_whose_error_is_hardly_larger(slack):
    c, y, arm = world(240, 60, seed=2, noise=6)
    splits = Splits.of(np.arange(240) % 4)
    grid = tuple(10.0 ** (np.arange(6, -5, -1) / 2))
    weaker = []

    def weakest(k, a):
        errors = slow_errors(c, y, arm, splits, k, a, grid)
        at = errors.argmin()
        while at + 1 < len(grid) and errors[at + 1] <= (1 + slack) * errors.min():
            at += 1
        weaker.append(at > errors.argmin())
        return grid[at]

    got = Ridge(grid, slack=slack).cross_fit(c, y, arm, splits, seed=0)
    np.testing.assert_allclose(got, explicit(c, y, arm, splits, weakest), atol=1e-8)
    assert any(weaker)


def test_slack_may_lead_beyond_the_grid():
    c, y, arm = world(300, 10, seed=2, noise=0.5)
    splits = Splits.of(np.arange(300) % 3)
    wide = tuple(10.0 ** (np.arange(6, -7, -1) / 2))
    got = Ridge().cross_fit(c, y, arm, splits, seed=0)
    np.testing.assert_allclose(
        got, Ridge(wide).cross_fit(c, y, arm, splits, seed=0), rtol=0, atol=1e-6
    )
    inside = Ridge(GRID).cross_fit(c, y, arm, splits, seed=0)
    assert np.abs(got - inside).max() > 1e-4


@pytest.mark.parametrize("slack", [-0.1, float("nan"), float("inf")])
def test_slack_is_a_share(slack):
    with pytest.raises(EstimationError, match="no share of a loss"):
        Ridge(slack=slack)


def spatial(n: int, *, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"lon": rng.uniform(10, 20, n), "lat": rng.uniform(-5, 5, n)})


def test_buffers_are_kept_inside_and_outside():
    units = spatial(400, seed=0)
    c, y, arm = world(400, 12, seed=3, noise=5)
    rule = Buffered(SpatialBlocks(km=250, k=4), km=100)
    splits = split(rule, units, seed=0)
    assert splits.train.sum() < 0.8 * 3 * 400
    grid = (0.1, 1.0, 10.0, 100.0)
    got = Ridge(grid, slack=0).cross_fit(c, y, arm, splits, seed=0)
    want = explicit(c, y, arm, splits, lambda k, a: slow_choice(c, y, arm, splits, k, a, grid))
    np.testing.assert_allclose(got, want, atol=1e-8)


def test_outcomes_of_a_fold_do_not_move_its_own_predictions():
    c, y, arm = world(150, 6, seed=5)
    splits = Splits.of(np.arange(150) % 3)
    other = np.where(splits.fold == 0, -1e4 * y, y)
    a = Ridge().cross_fit(c, y, arm, splits, seed=0)[splits.fold == 0]
    b = Ridge().cross_fit(c, other, arm, splits, seed=0)[splits.fold == 0]
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(("noise", "beyond"), [(1e-4, "below"), (1e3, "above")])
def test_the_grid_is_extended_where_the_best_is_at_its_end(noise, beyond):
    c, y, arm = world(300, 10, seed=2, noise=noise)
    splits = Splits.of(np.arange(300) % 3)
    got = Ridge(slack=0).cross_fit(c, y, arm, splits, seed=0)
    wide = tuple(10.0 ** (np.arange(-12, 15) / 2))

    def slow(k, a):
        return slow_choice(c, y, arm, splits, k, a, wide)

    chosen = [slow(k, a) for k in range(3) for a in range(2)]
    outside = min(chosen) < GRID[0] if beyond == "below" else max(chosen) > GRID[-1]
    assert outside
    np.testing.assert_allclose(got, explicit(c, y, arm, splits, slow), atol=1e-5)


def test_results_do_not_depend_on_the_size_of_blocks(monkeypatch):
    c, y, arm = world(300, 8, seed=4)
    splits = split(RandomFolds(5), pd.DataFrame(index=range(300)), seed=0)
    want = Ridge().cross_fit(c, y, arm, splits, seed=0)
    monkeypatch.setattr(module, "BLOCK", 7)
    np.testing.assert_allclose(
        Ridge().cross_fit(c, y, arm, splits, seed=0), want, rtol=0, atol=1e-9
    )


@given(st.integers(0, 10_000), st.floats(-1e4, 1e4), st.floats(0.01, 100))
def test_predictions_follow_affine_changes_of_outcome_and_columns(seed, shift, factor):
    c, y, arm = world(80, 4, seed=seed, noise=3)
    splits = Splits.of(np.arange(80) % 4)
    a = Ridge().cross_fit(c, y, arm, splits, seed=0)
    moved = confounders(c.x * factor + shift)
    b = Ridge().cross_fit(moved, factor * y + shift, arm, splits, seed=0)
    np.testing.assert_allclose(b, factor * a + shift, rtol=1e-6, atol=1e-6 * (1 + factor))


def test_without_columns_the_mean_of_the_arm_is_predicted():
    c, y, arm = world(40, 0, seed=0)
    splits = Splits.of(np.arange(40) % 2)
    got = Ridge().cross_fit(c, y, arm, splits, seed=0)
    want = explicit_means(y, arm, splits)
    np.testing.assert_allclose(got, want, atol=1e-12)
    constant = confounders(np.ones((40, 3)))
    np.testing.assert_allclose(Ridge().cross_fit(constant, y, arm, splits, seed=0), want)


def explicit_means(y, arm, splits):
    return np.stack(
        [
            [y[splits.train[:, k] & (arm == a)].mean() for a in range(arm.max() + 1)]
            for k in splits.fold
        ]
    )


def test_an_outcome_that_does_not_vary_is_predicted_exactly():
    c, _, arm = world(60, 5, seed=0)
    got = Ridge().cross_fit(c, np.full(60, 7.0), arm, Splits.of(np.arange(60) % 3), seed=0)
    np.testing.assert_allclose(got, 7.0)


def test_an_arm_with_one_unit_to_fit_on_is_refused():
    c, y, _ = world(30, 2, seed=0)
    arm = np.zeros(30, dtype=np.int64)
    arm[[0, 1]] = 1
    with pytest.raises(FoldError, match="fitted on 1 units of arm 1"):
        Ridge().cross_fit(c, y, arm, Splits.of(np.arange(30) % 2), seed=0)


@pytest.mark.parametrize("penalties", [(), (0.0,), (1.0, -1.0), (float("inf"),), (float("nan"),)])
def test_penalties_must_be_positive(penalties):
    with pytest.raises(EstimationError, match="not ridge penalties"):
        Ridge(penalties=penalties)


@pytest.mark.parametrize("count", [1, 5, 6, 20])
@pytest.mark.parametrize(("n", "q"), [(30, 0), (30, 1), (30, 2), (30, 3), (300, 70), (40, 90)])
def test_ridge_equations_are_solved(n, q, count):
    x = np.random.default_rng(0).normal(size=(n, q)) * np.logspace(0, -3, q)
    square, cross = x.T @ x, x.sum(axis=0)
    penalties = np.logspace(-4, 4, count)
    before = square.copy()
    got = ridge_path(square[:, :], cross, penalties)
    np.testing.assert_array_equal(square, before)
    assert got.shape == (q, count)
    for beta, penalty in zip(got.T, penalties, strict=True):
        want = np.linalg.solve(square + penalty * np.eye(q), cross)
        np.testing.assert_allclose(beta, want, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("count", [1, 9])
def test_a_penalty_that_double_precision_cannot_see_is_an_error(count):
    with pytest.raises(EstimationError, match="no solution in double precision"):
        ridge_path(np.full((4, 4), 1e9), np.ones(4), np.full(count, 1e-30))


def test_an_inner_fold_may_have_no_unit_of_a_rare_arm():
    rng = np.random.default_rng(0)
    arm = np.array([0] * 5 + [1] * 2)
    for seed in range(20):
        c, y = confounders(rng.normal(size=(7, 2))), rng.normal(size=7)
        assert np.isfinite(Ridge().cross_fit(c, y, arm, Splits.none(7), seed=seed)).all()
