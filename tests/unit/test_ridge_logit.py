"""Cross-fitted ridge logit against scikit-learn and against choosing penalties one by one."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from eocausal.errors import EstimationError, FoldError
from eocausal.estimators import many_logits
from eocausal.estimators.confounders import Confounders
from eocausal.estimators.descent import minimise_together
from eocausal.estimators.inner_folds import inner_splits, log_loss
from eocausal.estimators.many_logits import (
    ManyLogits,
    log_losses,
    principal_columns,
    probabilities,
)
from eocausal.estimators.penalties import PenaltyRule
from eocausal.estimators.ridge_logit import RidgeLogit
from eocausal.folds import Buffered, SpatialBlocks, Splits, split


def confounders(x: np.ndarray) -> Confounders:
    p = x.shape[1]
    return Confounders(x, tuple(map(str, range(p))), np.zeros(p, dtype=np.int64), ("table",))


def world(n: int, p: int, *, seed: int, strength: float = 1.0, arms: int = 2):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) @ rng.normal(size=(p, p)) / np.sqrt(p) + 3
    c = confounders(x)
    z = c.standardised()
    eta = strength * np.sqrt(p) * z @ rng.normal(size=(p, arms)) + np.linspace(1, 0, arms)
    eta += rng.gumbel(size=eta.shape)
    return c, eta.argmax(axis=1)


def scikit(x, arm, penalty):
    model = LogisticRegression(C=1 / penalty, solver="newton-cholesky", tol=1e-12, max_iter=1000)
    return model.fit(x, arm)


def explicit(c, arm, splits, penalty_of):
    """Fit each fold by scikit-learn."""
    x, out = c.standardised(), np.empty((len(arm), arm.max() + 1))
    for k in np.unique(splits.fold):
        here, rows = splits.fold == k, splits.train[:, k]
        out[here] = scikit(x[rows], arm[rows], penalty_of(k)).predict_proba(x[here])
    return out


def slow_choice(c, arm, splits, k, grid, *, seed=0):
    """Choose a penalty by explicit inner cross-validation."""
    x = c.standardised()
    rows, inner = inner_splits(splits, k, arm, seed=seed)
    x, arm = x[rows], arm[rows]
    loss = np.zeros(len(grid))
    for j in range(inner.k):
        train, test = inner.train[:, j], inner.fold == j
        for i, penalty in enumerate(grid):
            model = scikit(x[train], arm[train], penalty)
            loss[i] += log_loss(model.predict_proba(x[test]), arm[test])
    return grid[loss.argmin()]


@pytest.mark.parametrize("arms", [2, 3, 5])
@pytest.mark.parametrize(("n", "p"), [(400, 7), (80, 120)])
@pytest.mark.parametrize("penalty", [0.01, 1.0, 100.0])
def test_equals_scikit_learn_at_the_same_penalty(n, p, arms, penalty):
    c, arm = world(n, p, seed=1, arms=arms)
    splits = Splits.of(np.arange(n) % 4)
    got = RidgeLogit(penalties=(penalty,)).cross_fit(c, arm, splits, seed=0)
    want = explicit(c, arm, splits, lambda k: penalty)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)
    np.testing.assert_allclose(got.sum(axis=1), 1.0, atol=1e-12)


@pytest.mark.parametrize(("k", "arms"), [(1, 2), (2, 2), (3, 3), (5, 2)])
def test_penalty_is_the_one_of_an_explicit_inner_cross_validation(k, arms):
    c, arm = world(300, 15, seed=k, strength=0.7, arms=arms)
    fold = np.random.default_rng(k).integers(0, k, 300)
    splits = Splits.none(300) if k == 1 else Splits.of(fold)
    grid = (0.03, 0.3, 3.0, 30.0, 300.0)
    got = RidgeLogit(penalties=grid).cross_fit(c, arm, splits, seed=0)
    want = explicit(c, arm, splits, lambda k: slow_choice(c, arm, splits, k, grid))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


def test_buffers_are_kept_inside_and_outside():
    rng = np.random.default_rng(0)
    units = pd.DataFrame({"lon": rng.uniform(10, 20, 400), "lat": rng.uniform(-5, 5, 400)})
    c, arm = world(400, 12, seed=3)
    splits = split(Buffered(SpatialBlocks(km=250, k=4), km=100), units, seed=0)
    assert splits.train.sum() < 0.8 * 3 * 400
    grid = (0.1, 1.0, 10.0, 100.0)
    got = RidgeLogit(penalties=grid).cross_fit(c, arm, splits, seed=0)
    want = explicit(c, arm, splits, lambda k: slow_choice(c, arm, splits, k, grid))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


def test_arms_of_a_fold_do_not_move_its_own_probabilities():
    c, arm = world(240, 6, seed=5)
    splits = Splits.of(np.arange(240) % 3)
    other = np.where(splits.fold == 0, 1 - arm, arm)
    a = RidgeLogit().cross_fit(c, arm, splits, seed=0)[splits.fold == 0]
    b = RidgeLogit().cross_fit(c, other, splits, seed=0)[splits.fold == 0]
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_the_grid_is_extended_where_the_best_is_at_its_end():
    c, arm = world(300, 8, seed=2, strength=12.0)
    splits = Splits.of(np.arange(300) % 3)
    wide = tuple(10.0 ** (np.arange(-10, 7) / 2))
    chosen = [slow_choice(c, arm, splits, k, wide) for k in range(3)]
    assert min(chosen) < 0.1
    got = RidgeLogit().cross_fit(c, arm, splits, seed=0)
    want = explicit(c, arm, splits, lambda k: chosen[k])
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


def test_arms_drawn_at_random_get_their_shares():
    c, _ = world(2000, 30, seed=0)
    arm = (np.random.default_rng(1).random(2000) < 0.3).astype(int)
    got = RidgeLogit().cross_fit(c, arm, Splits.of(np.arange(2000) % 5), seed=0)
    assert np.abs(got[:, 1] - 0.3).max() < 0.05


def test_results_do_not_depend_on_the_size_of_blocks(monkeypatch):
    c, arm = world(300, 8, seed=4)
    splits = Splits.of(np.arange(300) % 5)
    want = RidgeLogit().cross_fit(c, arm, splits, seed=0)
    monkeypatch.setattr(many_logits, "BLOCK", 7)
    got = RidgeLogit().cross_fit(c, arm, splits, seed=0)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-7)


@pytest.mark.parametrize("n", [50, 400])
def test_a_column_that_tells_the_arms_apart_stays_finite(n):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 3))
    arm = (x[:, 0] > 0).astype(int)
    got = RidgeLogit().cross_fit(confounders(x), arm, Splits.of(np.arange(n) % 5), seed=0)
    assert np.isfinite(got).all()
    assert (got.argmax(axis=1) == arm).mean() > 0.9


def test_fifty_units_and_a_rare_arm():
    c, _ = world(50, 4, seed=0)
    arm = np.zeros(50, dtype=np.int64)
    arm[[3, 14, 25, 36, 47]] = 1
    splits = Splits.of(np.arange(50) % 5)
    wide = tuple(10.0 ** (np.arange(-6, 7) / 2))
    want = explicit(c, arm, splits, lambda k: slow_choice(c, arm, splits, k, wide))
    got = RidgeLogit().cross_fit(c, arm, splits, seed=0)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


def test_an_inner_fold_may_have_no_unit_of_a_rare_arm():
    rng = np.random.default_rng(0)
    arm = np.array([0] * 5 + [1] * 2)
    for seed in range(20):
        got = RidgeLogit().cross_fit(
            confounders(rng.normal(size=(7, 2))), arm, Splits.none(7), seed=seed
        )
        assert np.isfinite(got).all()


def test_without_columns_shares_of_the_fitting_units_are_predicted():
    arm = np.array([0, 1, 1, 0, 1, 1, 0, 0, 0, 1, 0, 1])
    splits = Splits.of(np.arange(12) % 2)
    want = [1 - arm[splits.fold != k].mean() for k in splits.fold]
    for x in (np.zeros((12, 0)), np.ones((12, 2))):
        got = RidgeLogit().cross_fit(confounders(x), arm, splits, seed=0)
        np.testing.assert_allclose(got[:, 0], want)


def test_an_arm_with_one_unit_to_fit_on_is_refused():
    c, _ = world(30, 2, seed=0)
    arm = np.zeros(30, dtype=np.int64)
    arm[[0, 1]] = 1
    with pytest.raises(FoldError, match="fitted on 1 units of arm 1"):
        RidgeLogit().cross_fit(c, arm, Splits.of(np.arange(30) % 2), seed=0)


def test_penalties_too_weak_to_converge_are_an_error(monkeypatch):
    c, arm = world(200, 5, seed=0)
    splits = Splits.of(np.arange(200) % 4)

    def no_steps(evaluate, start, metric, **settings):
        return minimise_together(evaluate, start, metric, **(settings | {"passes": 1}))

    monkeypatch.setattr(many_logits, "minimise_together", no_steps)
    with pytest.raises(EstimationError, match="did not converge"):
        RidgeLogit(penalties=(1.0,)).cross_fit(c, arm, splits, seed=0)
    with pytest.raises(EstimationError, match="No penalty"):
        RidgeLogit(penalties=(1.0, 2.0)).cross_fit(c, arm, splits, seed=0)


def test_a_chosen_penalty_that_does_not_converge_gives_way_to_a_stronger_one(monkeypatch):
    c, arm = world(300, 5, seed=0, strength=3.0)
    splits = Splits.of(np.arange(300) % 3)
    plain = RidgeLogit().cross_fit(c, arm, splits, seed=0)
    fit = ManyLogits.fit

    def weak_ones_run_away(self, fits, penalties):
        theta, reached = fit(self, fits, penalties)
        return theta, reached & ((penalties >= 1e-1) | (self.z.dtype == np.float32))

    def choose_the_weakest(self, loss, folds, n):
        return np.full(len(folds), 2e-3)

    monkeypatch.setattr(PenaltyRule, "choose", choose_the_weakest)
    weakest = RidgeLogit().cross_fit(c, arm, splits, seed=0)
    monkeypatch.setattr(ManyLogits, "fit", weak_ones_run_away)
    found = RidgeLogit().cross_fit(c, arm, splits, seed=0)
    monkeypatch.undo()
    stronger = RidgeLogit(penalties=(2e-1,)).cross_fit(c, arm, splits, seed=0)
    np.testing.assert_allclose(found, stronger, rtol=1e-6)
    assert np.abs(found - weakest).max() > 1e-4
    assert np.abs(plain - found).max() < 0.5


@pytest.mark.parametrize("arms", [2, 4])
def test_derivatives_of_the_log_loss(arms):
    rng = np.random.default_rng(0)
    eta = 3 * rng.normal(size=(20, 1 if arms == 2 else arms, 3))
    arm = rng.integers(0, arms, 20)
    loss, slope = log_losses(eta, arm)
    for f in range(3):
        own = probabilities(eta[:, :, f])[np.arange(20), arm]
        np.testing.assert_allclose(loss[:, f], -np.log(own), atol=1e-12)
    step = 1e-6
    for c in range(eta.shape[1]):
        moved = eta.copy()
        moved[:, c] += step
        np.testing.assert_allclose(
            (log_losses(moved, arm)[0] - loss) / step, slope[:, c], atol=1e-5
        )


def test_log_losses_do_not_overflow():
    eta = np.array([[[800.0]], [[-800.0]]])
    loss, slope = log_losses(eta, np.array([0, 0]))
    np.testing.assert_allclose(loss[:, 0], [800.0, 0.0])
    np.testing.assert_allclose(slope[:, 0, 0], [1.0, 0.0])


@pytest.mark.parametrize(("n", "p"), [(50, 6), (20, 45)])
def test_principal_columns_keep_all_inner_products(n, p):
    x = np.random.default_rng(0).normal(size=(n, p))
    x -= x.mean(axis=0)
    order = np.random.default_rng(1).permutation(n)
    z = principal_columns(x, order)
    assert z.shape == (n, 1 + min(n, p))
    np.testing.assert_allclose(z[:, 1:] @ z[:, 1:].T, x[order] @ x[order].T, atol=1e-10)
    square = z[:, 1:].T @ z[:, 1:]
    np.testing.assert_allclose(square, np.diag(np.diag(square)), atol=1e-9)


def test_functions_go_down_together_each_to_its_own_minimum():
    rng = np.random.default_rng(0)
    half = rng.normal(size=(30, 6, 6))
    square = half @ half.transpose(0, 2, 1) + np.eye(6)
    target = rng.normal(size=(6, 30))

    def evaluate(at, which):
        left = at - target[:, which]
        slope = np.einsum("fij,jf->if", square[which], left)
        return (left * slope).sum(axis=0) / 2, slope

    metric = 1 / np.stack([np.diag(s) for s in square], axis=1)
    got, reached = minimise_together(evaluate, np.zeros((6, 30)), metric, tolerance=1e-20)
    assert reached.all()
    np.testing.assert_allclose(got, target, atol=1e-8)
    _, reached = minimise_together(evaluate, np.zeros((6, 30)), metric, tolerance=1e-20, passes=2)
    assert not reached.any()
