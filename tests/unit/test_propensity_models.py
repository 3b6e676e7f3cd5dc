"""Models of treatment and outcome: elastic net, boosted trees, calibration, given probabilities."""

import warnings

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from eocausal.errors import EstimationError, FoldError, MissingColumnError
from eocausal.estimators.boosting import BoostedOutcome, BoostedPropensity, Trees
from eocausal.estimators.calibration import (
    Calibrated,
    Isotonic,
    Platt,
    fit_logits,
    log_odds,
)
from eocausal.estimators.confounders import Confounders
from eocausal.estimators.elastic_net import ElasticNetLogit
from eocausal.estimators.given import GivenPropensity
from eocausal.estimators.inner_folds import arm_shares, best_step, inner_splits, log_loss
from eocausal.folds import Splits

FEW = Trees(most=20, chunk=10, learning_rate=0.3)
MODELS = [
    ElasticNetLogit(),
    BoostedPropensity(FEW),
    Calibrated(BoostedPropensity(FEW)),
    Calibrated(ElasticNetLogit(), Isotonic()),
]


def confounders(x):
    return Confounders(
        x, tuple(f"c{j}" for j in range(x.shape[1])), np.zeros(x.shape[1], dtype=int), ("table",)
    )


def world(n=600, p=6, arms=2, strength=1.2, seed=0):
    """Arms by a (multinomial) logit in the first columns; returns x, arm, true probabilities."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p))
    eta = np.column_stack([np.zeros(n), *(strength * x[:, k] - 0.5 for k in range(arms - 1))])
    e = np.exp(eta) / np.exp(eta).sum(axis=1, keepdims=True)
    arm = (rng.random(n)[:, None] > e.cumsum(axis=1)).sum(axis=1)
    return x, arm, e


def folds(n, k=4, seed=0):
    return Splits.of(np.random.default_rng(seed).permutation(np.arange(n) % k))


# ---------------------------------------------------------------- what every model must do


@pytest.mark.parametrize("arms", [2, 3])
@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_probabilities_are_near_the_truth(model, arms):
    x, arm, truth = world(1200, p=3, strength=1.6, arms=arms)
    splits = folds(len(arm), k=3)
    found = model.cross_fit(confounders(x), arm, splits, seed=1)
    assert found.shape == (len(arm), arms)
    assert np.allclose(found.sum(axis=1), 1)
    assert ((found > 0) & (found < 1)).all()
    share = arm_shares(arm, splits)
    gained = log_loss(share, arm) - log_loss(found, arm)
    possible = log_loss(share, arm) - log_loss(truth, arm)
    assert gained > 0.7 * possible


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_no_unit_is_predicted_with_its_own_arm(model):
    x, arm, _ = world(200, p=3)
    splits = folds(200, k=3)
    other = arm.copy()
    changed = splits.fold == 2
    other[changed] = np.random.default_rng(3).permutation(arm[changed])
    assert (other != arm).any()
    a = model.cross_fit(confounders(x), arm, splits, seed=1)
    b = model.cross_fit(confounders(x), other, splits, seed=1)
    assert np.array_equal(a[changed], b[changed])
    assert not np.array_equal(a[~changed], b[~changed])


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_the_same_seed_gives_the_same_probabilities(model):
    x, arm, _ = world(200, p=3)
    runs = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            runs.append(model.cross_fit(confounders(x), arm, folds(200, k=3), seed=5))
    assert np.array_equal(*runs)


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_units_outside_every_fit_do_not_matter(model):
    x, arm, _ = world(240, p=3)
    splits = folds(200, k=3)
    train = np.zeros((240, splits.k), dtype=bool)
    train[:200] = splits.train
    wide = Splits(np.concatenate([splits.fold, np.arange(40) % splits.k]), train)
    scaled = x.copy()
    scaled[200:] = x[:40]
    base = model.cross_fit(confounders(scaled), arm, wide, seed=1)
    arm[200:] = 1 - arm[200:]
    assert np.array_equal(base, model.cross_fit(confounders(scaled), arm, wide, seed=1))


@pytest.mark.parametrize("splits", [Splits.none(150), folds(150, k=2)], ids=["in sample", "two"])
@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_one_or_two_folds_work(model, splits):
    x, arm, truth = world(150, strength=2.0)
    found = model.cross_fit(confounders(x), arm, splits, seed=1)
    assert np.corrcoef(found[:, 1], truth[:, 1])[0, 1] > 0.6


@pytest.mark.parametrize("model", MODELS[:3], ids=repr)
def test_without_confounders_there_are_shares(model):
    arm = world(150)[1]
    splits = folds(150, k=3)
    found = model.cross_fit(confounders(np.zeros((150, 0))), arm, splits, seed=1)
    assert np.allclose(found, arm_shares(arm, splits), atol=0.02)


@pytest.mark.parametrize("model", [*MODELS, GivenPropensity("c0")], ids=repr)
def test_an_arm_in_one_fold_only_is_told(model):
    arm = np.zeros(60, dtype=int)
    arm[::3] = 1
    splits = Splits.of(np.where(arm == 1, 0, 1 + np.arange(60) % 2))
    with pytest.raises(FoldError, match="fold 0 would be fitted on 0 units of arm 1"):
        model.cross_fit(confounders(np.full((60, 1), 0.5)), arm, splits, seed=0)


def test_separated_arms_give_finite_probabilities():
    x = np.linspace(-1, 1, 200)[:, None]
    arm = (x[:, 0] > 0).astype(int)
    for model in MODELS[:3]:
        found = model.cross_fit(confounders(x), arm, folds(200, k=3), seed=0)
        assert np.isfinite(found).all()
        assert ((found[:, 1] > 0.5) == arm).mean() > 0.97


# ---------------------------------------------------------------- inner folds


def test_inner_folds_are_the_other_folds_with_their_buffers():
    splits = folds(60, k=4)
    train = splits.train.copy()
    train[7, (splits.fold[7] + 1) % 4] = False
    buffered = Splits(splits.fold, train)
    arm = np.arange(60) % 2
    for k in range(4):
        rows, inner = inner_splits(buffered, k, arm, seed=0)
        others = [j for j in range(4) if j != k]
        assert np.array_equal(rows, np.flatnonzero(train[:, k]))
        assert np.array_equal(np.asarray(others)[inner.fold], splits.fold[rows])
        assert np.array_equal(
            inner.train, train[np.ix_(rows, others)] & (inner.fold[:, None] != np.arange(3))
        )
        assert inner.crossed


def test_inner_folds_are_random_where_blocks_would_lose_an_arm():
    fold = np.repeat(np.arange(3), 20)
    arm = np.zeros(60, dtype=int)
    arm[:6] = 1
    arm[20:26] = 1
    _, inner = inner_splits(Splits.of(fold), 2, arm, seed=0)
    assert inner.k == 2
    fold = np.concatenate([fold, np.full(20, 3)])
    arm = np.concatenate([arm, np.zeros(20, dtype=int)])
    arm[20:26] = 0
    arm[26] = arm[79] = 1
    rows, inner = inner_splits(Splits.of(fold), 0, np.where(np.arange(80) < 6, 1, arm), seed=0)
    assert inner.k == 2
    assert len(rows) == 60


def test_the_best_step_is_the_last_before_patience_ends():
    asked = []

    def losses():
        for step, loss in enumerate([5.0, 3.0, 4.0, 2.0, 2.5, 2.5, 2.5, 0.0]):
            asked.append(step)
            yield loss

    assert best_step(losses(), patience=3) == 3
    assert asked == list(range(7))


# ---------------------------------------------------------------- elastic net


def test_the_elastic_net_is_that_of_scikit_learn_at_the_chosen_penalty():
    x, arm, _ = world(300, p=10)
    model, splits = ElasticNetLogit(l1_ratio=0.7), folds(300)
    found = model.cross_fit(confounders(x), arm, splits, seed=2)
    z = confounders(x).standardised()
    for k in range(splits.k):
        rows = splits.train[:, k]
        penalty = model.penalties(z, arm, splits, k, seed=2)[-1]
        other = LogisticRegression(
            solver="saga", l1_ratio=0.7, C=1 / (penalty * rows.sum()), tol=1e-9, max_iter=100_000
        ).fit(z[rows], arm[rows])
        here = splits.fold == k
        assert np.allclose(found[here], other.predict_proba(z[here]), atol=1e-4)


def test_the_penalty_is_that_of_a_search_over_inner_folds():
    x, arm, _ = world(240, p=8)
    z, splits = confounders(x).standardised(), folds(240)
    model = ElasticNetLogit(patience=100, decades=3)
    rows, inner = inner_splits(splits, 1, arm, seed=0)
    indicator = arm[rows] - arm[rows].mean()
    top = np.abs(z[rows].T @ indicator).max() / len(rows) / 0.5
    path = top * 10.0 ** (-np.arange(13) / 4)
    losses = []
    for penalty in path:
        total = 0.0
        for j in range(inner.k):
            fit, look = inner.train[:, j], inner.fold == j
            other = LogisticRegression(
                solver="saga", l1_ratio=0.5, C=1 / (penalty * fit.sum()), tol=1e-9, max_iter=100_000
            ).fit(z[rows][fit], arm[rows][fit])
            total += log_loss(other.predict_proba(z[rows][look]), arm[rows][look])
        losses.append(total)
    found = model.penalties(z, arm, splits, 1, seed=0)
    assert found == pytest.approx(path[: np.argmin(losses) + 1])
    assert 0 < np.argmin(losses) < 12


def test_noise_is_given_no_weight():
    rng = np.random.default_rng(0)
    x, arm = rng.normal(size=(400, 40)), rng.integers(0, 2, 400)
    found = ElasticNetLogit().cross_fit(confounders(x), arm, folds(400), seed=0)
    assert found[:, 1].std() < 0.05


def test_wrong_decisions_are_refused():
    with pytest.raises(EstimationError, match="l1_ratio"):
        ElasticNetLogit(l1_ratio=1.5)
    with pytest.raises(EstimationError, match="penalties"):
        ElasticNetLogit(patience=0)
    with pytest.raises(EstimationError, match="no trees"):
        Trees(max_leaf_nodes=1)
    with pytest.raises(EstimationError, match="cannot be used"):
        Trees(learning_rate=0.0)


# ---------------------------------------------------------------- boosted outcomes


def test_boosted_outcomes_find_a_bend_in_each_arm():
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, size=(1500, 3))
    arm = rng.integers(0, 3, 1500)
    mean = np.stack([x[:, 0] ** 2, 1 + x[:, 1], np.abs(x[:, 2])], axis=1)
    y = mean[np.arange(1500), arm] + 0.3 * rng.normal(size=1500)
    found = BoostedOutcome().cross_fit(confounders(x), y, arm, folds(1500, k=3), seed=0)
    assert found.shape == (1500, 3)
    error = ((found - mean) ** 2).mean(axis=0) / mean.var(axis=0)
    assert (error < 0.1).all()


def test_boosted_outcomes_do_not_see_their_fold():
    x, arm, _ = world(200)
    y = x[:, 0] + arm
    splits = folds(200)
    a = BoostedOutcome(FEW).cross_fit(confounders(x), y, arm, splits, seed=0)
    b = BoostedOutcome(FEW).cross_fit(
        confounders(x), y + 5 * (splits.fold == 1), arm, splits, seed=0
    )
    assert np.array_equal(a[splits.fold == 1], b[splits.fold == 1])
    assert not np.array_equal(a[splits.fold != 1], b[splits.fold != 1])


def test_boosted_outcomes_without_columns_are_means_of_arms():
    rng = np.random.default_rng(0)
    arm, y, splits = np.arange(60) % 2, rng.normal(size=60), folds(60)
    found = BoostedOutcome().cross_fit(confounders(np.zeros((60, 0))), y, arm, splits, seed=0)
    for k in range(splits.k):
        for a in range(2):
            mean = y[splits.train[:, k] & (arm == a)].mean()
            assert np.allclose(found[splits.fold == k, a], mean)


def test_more_trees_are_grown_where_there_is_more_to_learn():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(600, 3))
    noise = rng.integers(0, 2, 600)
    signal = (x[:, 0] * x[:, 1] > 0).astype(int)
    spread = [
        BoostedPropensity().cross_fit(confounders(x), arm, folds(600), seed=0)[:, 1].std()
        for arm in (noise, signal)
    ]
    assert spread[0] < 0.1 < 0.3 < spread[1]


# ---------------------------------------------------------------- calibration


@pytest.mark.parametrize("arms", [2, 3])
def test_platt_scaling_undoes_too_extreme_log_odds(arms):
    _, arm, truth = world(6000, arms=arms)
    odds = 3 * log_odds(truth) + 0.7
    wrong = np.column_stack([np.ones(6000), np.exp(odds)])
    wrong /= wrong.sum(axis=1, keepdims=True)
    fitted = Platt().fit(wrong, arm)
    assert fitted.stretch == pytest.approx(1 / 3, abs=0.03)
    assert np.abs(fitted(wrong) - truth).max() < 0.05


def test_logistic_calibration_is_a_logistic_regression():
    _, arm, truth = world(400)
    odds = log_odds(truth) * 2
    indicator = np.stack([1 - arm, arm], axis=1).astype(float)
    shift, stretch = fit_logits(odds, indicator)
    other = LogisticRegression(C=np.inf, tol=1e-10, solver="newton-cholesky").fit(odds, arm)
    assert shift == pytest.approx(other.intercept_[0], abs=1e-6)
    assert stretch == pytest.approx(other.coef_[0, 0], abs=1e-6)


def test_three_arms_are_calibrated_by_maximum_likelihood():
    _, arm, truth = world(300, arms=3)
    odds, target = log_odds(truth) * 0.4, np.eye(3)[arm]
    at = fit_logits(odds, target)

    def likelihood(value):
        q = np.column_stack([np.ones(300), np.exp(value[:-1] + value[-1] * odds)])
        return (target * np.log(q / q.sum(axis=1, keepdims=True))).sum()

    for j in range(3):
        for step in (-1e-3, 1e-3):
            assert likelihood(at) > likelihood(at + step * np.eye(3)[j])


def test_platt_scaling_of_separated_or_reversed_scores_is_finite():
    score = np.linspace(0.01, 0.99, 100)
    both = np.stack([1 - score, score], axis=1)
    arm = (score > 0.5).astype(int)
    apart = Platt().fit(both, arm)(both)
    assert np.isfinite(apart).all()
    assert (apart > 0).all()
    reversed_ = Platt().fit(both, 1 - arm)(both)
    assert np.allclose(reversed_, 0.5)
    flat = Platt().fit(np.full((100, 2), 0.5), np.r_[np.ones(25, int), np.zeros(75, int)])
    assert np.allclose(flat(np.full((3, 2), 0.5))[:, 1], 0.25, atol=0.01)


def test_isotonic_calibration_pools_violators_and_never_says_never():
    rng = np.random.default_rng(0)
    score = rng.random(2000)
    arm = (rng.random(2000) < np.where(score < 0.2, 0, score**2)).astype(int)
    both = np.stack([1 - score, score], axis=1)
    found = Isotonic().fit(both, arm)(both)[:, 1]
    order = np.argsort(score)
    assert (np.diff(found[order]) >= 0).all()
    assert 0 < found.min() < 0.01
    assert found.max() < 1
    plain = IsotonicRegression().fit_transform(score, arm)
    middle = (score > 0.3) & (score < 0.9)
    assert np.allclose(found[middle], plain[middle])


def test_isotonic_calibration_of_three_arms_sums_to_one():
    _, arm, truth = world(900, arms=3)
    found = Isotonic().fit(truth, arm)(truth)
    assert np.allclose(found.sum(axis=1), 1)
    assert (found > 0).all()


def test_calibration_repairs_trees_that_say_too_much():
    x, arm, _ = world(600, strength=0.6)
    eager = BoostedPropensity(
        Trees(learning_rate=1.0, max_leaf_nodes=16, min_samples_leaf=2, chunk=20, most=20, l2=0.0)
    )
    splits = folds(600, k=3)
    loss = [
        log_loss(model.cross_fit(confounders(x), arm, splits, seed=0), arm)
        for model in (eager, Calibrated(eager), Calibrated(eager, Isotonic()))
    ]
    assert loss[1] < 0.6 * loss[0]
    assert loss[2] < 0.6 * loss[0]


# ---------------------------------------------------------------- given probabilities


def test_given_probabilities_are_calibrated_on_other_folds():
    _, arm, truth = world(4000)
    wrong = 1 / (1 + np.exp(-2 * log_odds(truth)[:, 0] - 1))
    table = confounders(np.column_stack([wrong, np.arange(4000)]))
    splits = folds(4000)
    found = GivenPropensity("c0").cross_fit(table, arm, splits, seed=0)
    assert np.abs(found - truth).max() < 0.06
    kept = GivenPropensity("c0", calibrator=None).cross_fit(table, arm, splits, seed=0)
    assert np.array_equal(kept[:, 1], wrong)
    train = splits.train[:, 1]
    fitted = Platt().fit(kept[train], arm[train])
    here = splits.fold == 1
    assert np.array_equal(found[here], fitted(kept[here]))


def test_given_probabilities_of_several_treatments():
    _, arm, truth = world(2000, arms=3)
    table = confounders(truth[:, 1:])
    found = GivenPropensity(("c0", "c1")).cross_fit(table, arm, folds(2000), seed=0)
    assert np.abs(found - truth).max() < 0.06


def test_what_is_no_probability_is_refused():
    _, arm, _ = world(50)
    table = confounders(np.column_stack([np.linspace(-1, 1, 50), np.linspace(0, 2, 50)]))
    with pytest.raises(EstimationError, match="25 units have values in c0"):
        GivenPropensity("c0").cross_fit(table, arm, folds(50), seed=0)
    with pytest.raises(EstimationError, match="25 units have values in c1"):
        GivenPropensity("c1").cross_fit(table, arm, folds(50), seed=0)
    with pytest.raises(MissingColumnError, match="'score'"):
        GivenPropensity("score").cross_fit(table, arm, folds(50), seed=0)
    with pytest.raises(EstimationError, match="2 columns of probabilities for 1 treatments"):
        GivenPropensity(("c0", "c1")).cross_fit(table, arm, folds(50), seed=0)


def test_nothing_warns():
    x, arm, _ = world(80, p=3, strength=8.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for model in MODELS:
            model.cross_fit(confounders(x), arm, folds(80, k=3), seed=0)
