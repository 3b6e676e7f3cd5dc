"""The plain logit: digits of statsmodels, columns that R leaves out, separation with names."""

import numpy as np
import pytest
import statsmodels.api as sm

from eocausal.errors import FoldError, OverlapError
from eocausal.estimators.confounders import Confounders
from eocausal.estimators.design_columns import design_columns, independent_columns
from eocausal.estimators.logit import Logit
from eocausal.estimators.newton import minimise
from eocausal.folds import Splits


def confounders(x, names=None):
    names = names or tuple(f"x{j}" for j in range(x.shape[1]))
    return Confounders(x, names, np.zeros(x.shape[1], dtype=np.int64), ("table",))


def draw(n=500, arms=2, columns=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, columns))
    eta = x @ rng.normal(size=(columns, arms)) * np.r_[0.0, np.ones(arms - 1)]
    return x, (eta + rng.gumbel(size=eta.shape)).argmax(axis=1)


def fit(x, arm, splits=None, names=None):
    return Logit().cross_fit(confounders(x, names), arm, splits or Splits.none(len(arm)), seed=0)


def plain(z, arm, at):
    if arm.max() == 1:
        one = sm.Logit(arm, z).fit(disp=0, tol=1e-14, maxiter=100).predict(at)
        return np.column_stack([1 - one, one])
    found = sm.MNLogit(arm, z).fit(disp=0, tol=1e-14, maxiter=100, method="newton")
    return np.asarray(found.predict(at))


@pytest.mark.parametrize("arms", [2, 3, 5])
def test_probabilities_are_those_of_statsmodels(arms):
    x, arm = draw(arms=arms)
    z = sm.add_constant(x)
    np.testing.assert_allclose(fit(x, arm), plain(z, arm, z), atol=1e-11)
    np.testing.assert_allclose(fit(x, arm).sum(axis=1), 1, rtol=1e-14)


@pytest.mark.parametrize("arms", [2, 3])
def test_each_fold_is_predicted_by_a_model_of_the_others(arms):
    x, arm = draw(arms=arms)
    z, splits = sm.add_constant(x), Splits.of(np.arange(len(arm)) % 4)
    found = fit(x, arm, splits)
    for k in range(4):
        train, here = splits.train[:, k], splits.fold == k
        np.testing.assert_allclose(found[here], plain(z[train], arm[train], z[here]), atol=1e-10)
    changed = np.where(splits.fold == 2, 1 - np.minimum(arm, 1), arm)
    np.testing.assert_array_equal(
        fit(x, changed, splits)[splits.fold == 2], found[splits.fold == 2]
    )


def test_units_of_columns_do_not_matter():
    x, arm = draw()
    odd = 1e4 + x * [1e6, 1e-3, 1]
    np.testing.assert_allclose(fit(odd, arm), fit(x, arm), atol=1e-10)


def test_rare_arms_and_extreme_probabilities_are_fitted():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20_000, 2))
    arm = (rng.random(20_000) < 1 / (1 + np.exp(8 - 4 * x[:, 0]))).astype(int)
    z = sm.add_constant(x)
    found = fit(x, arm)
    assert found[:, 1].min() < 1e-8
    np.testing.assert_allclose(found, plain(z, arm, z), atol=1e-10)


def test_constant_and_dependent_columns_are_left_out_as_r_does():
    x, arm = draw()
    full = np.column_stack([x[:, 0], np.full(len(x), 2.0), x[:, 1], x[:, 0] - x[:, 1], x[:, 2]])
    np.testing.assert_allclose(fit(full, arm), fit(x, arm), atol=1e-11)
    z, kept = design_columns(full)
    assert list(kept) == [0, 2, 4]
    np.testing.assert_array_equal(Logit().design(confounders(full)), z)
    np.testing.assert_allclose(z[:, 0], 1)
    np.testing.assert_allclose(z[:, 1:].std(axis=0), 1)


def test_earlier_columns_are_kept_also_among_many_and_more_than_units():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(40, 10))
    mixed = np.column_stack([base[:, :6], base[:, :6] @ rng.normal(size=(6, 5)), base[:, 6:]])
    assert list(independent_columns(mixed)) == [0, 1, 2, 3, 4, 5, 11, 12, 13, 14]
    assert list(independent_columns(rng.normal(size=(5, 9)))) == [0, 1, 2, 3, 4]
    assert list(independent_columns(np.zeros((5, 3)))) == []
    near = np.column_stack([base[:, 0], base[:, 0] + 1e-6 * base[:, 1]])
    assert list(independent_columns(near)) == [0, 1]


def test_a_column_that_is_constant_in_a_fold_has_no_coefficient_there():
    x, arm = draw()
    fold = np.arange(len(arm)) % 2
    x[:, 2] = np.where(fold == 0, np.arange(len(arm)) % 4 == 0, 0)
    found = fit(x, arm, Splits.of(fold))
    here = fold == 0
    want = plain(sm.add_constant(x[~here, :2]), arm[~here], sm.add_constant(x[here, :2]))
    np.testing.assert_allclose(found[here], want, atol=1e-10)


def test_without_columns_probabilities_are_shares():
    x, arm = draw(arms=3)
    found = fit(x[:, :0], arm)
    np.testing.assert_allclose(found, np.tile(np.bincount(arm) / len(arm), (len(arm), 1)))


@pytest.mark.parametrize("kind", ["indicator", "cut", "exactly one value"])
def test_a_column_that_separates_alone_is_named(kind):
    x, arm = draw()
    x[:, 1] = {
        "indicator": (arm == 1) & (x[:, 2] > 1),
        "cut": np.where(arm == 1, 1 + np.abs(x[:, 1]), -np.abs(x[:, 1])),
        "exactly one value": arm.astype(float),
    }[kind]
    with pytest.raises(OverlapError, match="alone does") as caught:
        fit(x, arm, names=("urban", "country=Chad", "rain"))
    assert "'country=Chad'" in caught.value.fact
    assert "urban" not in caught.value.fact
    assert "RidgeLogit" in caught.value.next_step


def test_columns_that_separate_together_are_named():
    x, _ = draw(columns=4)
    arm = (x[:, 0] + 2 * x[:, 2] > 0.3).astype(int)
    with pytest.raises(OverlapError, match="together they do") as caught:
        fit(x, arm, names=("a", "b", "c", "d"))
    assert "'c', 'a'" in caught.value.fact
    assert "'b'" not in caught.value.fact
    assert "'d'" not in caught.value.fact


def test_one_arm_of_several_that_is_apart_is_found():
    x, arm = draw(n=900, arms=3)
    x[:, 1] = (arm == 2) & (x[:, 0] > 0)
    with pytest.raises(OverlapError, match="'x1'; each of them alone"):
        fit(x, arm)


def test_separation_within_a_fold_is_found():
    x, arm = draw()
    fold = np.arange(len(arm)) % 2
    x[:, 1] = (fold == 1) & (arm == 1) & (x[:, 0] > 0)
    x[:, 1] += (fold == 0) & (x[:, 0] > 0)
    with pytest.raises(OverlapError, match="'x1'"):
        fit(x, arm, Splits.of(fold))


def test_too_many_columns_for_the_units_are_refused():
    x, arm = draw(n=60, columns=80)
    with pytest.raises(OverlapError, match="too many columns"):
        fit(x, arm)


def test_a_fold_without_an_arm_is_refused():
    x, arm = draw(n=60)
    with pytest.raises(FoldError, match="units of arm"):
        fit(x, arm, Splits.of((arm == 1).astype(int)))


def test_newton_says_when_there_is_no_minimum():
    def run(value, first, second):
        return minimise(
            lambda at: float(value(at[0])),
            lambda at: (np.array([first(at[0])]), np.array([[second(at[0])]])),
            np.array([2.0]), lambda step: float(np.abs(step).max()),
        )  # fmt: skip

    found = run(lambda t: (t - 1) ** 4 + t**2, lambda t: 4 * (t - 1) ** 3 + 2 * t,
                lambda t: 12 * (t - 1) ** 2 + 2)  # fmt: skip
    assert found.converged
    assert 4 * (found.at[0] - 1) ** 3 + 2 * found.at[0] == pytest.approx(0, abs=1e-14)
    # Full steps from 2 would overshoot further and further.
    found = run(lambda t: np.log(np.cosh(t)), np.tanh, lambda t: 1 / np.cosh(t) ** 2)
    assert found.converged
    assert abs(found.at[0]) < 1e-14
    assert not run(lambda t: np.exp(-t), lambda t: -np.exp(-t), lambda t: np.exp(-t)).converged
    assert not run(lambda t: t, lambda t: 1.0, lambda t: 0.0).converged
