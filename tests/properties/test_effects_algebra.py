"""Differences, pooling and re-clustering of estimates equal what a joint fit would give."""

import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st

from eocausal.designs import Trial
from eocausal.effects import EffectEstimate, Influence, pool
from eocausal.errors import AlignmentError, EstimationError
from eocausal.estimators.inference import HC0, HC2, Clustered
from eocausal.estimators.randomized import difference_in_means, lin_adjusted

RULES = [HC0(), HC2(), Clustered("village")]


def make_units(seed, n=60, prefix="u"):
    rng = np.random.default_rng(seed)
    village = rng.permutation(np.arange(n) % 15)
    arm = rng.permutation(np.arange(15) % 2)[village]
    z = rng.normal(size=n)
    return pd.DataFrame(
        {
            "arm": arm,
            "village": [f"{prefix}{v}" for v in village],
            "z": z,
            "y1": arm + z + rng.normal(size=n),
            "y2": 2 * z - arm + rng.normal(size=n),
        },
        index=[f"{prefix}{i}" for i in range(n)],
    )


def means(units, outcome="y1", rule=HC2()):  # noqa: B008
    return difference_in_means(units, Trial("arm"), outcome, vcov=rule)


seeds = st.integers(0, 10_000)
rules = st.sampled_from(RULES)


@settings(max_examples=60, deadline=None)
@given(seeds, rules)
def test_estimate_minus_itself_is_nothing(seed, rule):
    a = means(make_units(seed), rule=rule)
    nothing = a - a
    assert nothing.estimate == 0
    assert nothing.std_error == 0
    assert nothing.ci_low == nothing.ci_high == 0
    assert math.isnan(nothing.p_value)


@settings(max_examples=60, deadline=None)
@given(seeds, rules)
def test_difference_equals_the_effect_on_the_difference(seed, rule):
    """One sample, two outcomes: the estimator is linear in the outcome."""
    units = make_units(seed)
    units["d"] = units["y1"] - units["y2"]
    here, direct = means(units, "y1", rule) - means(units, "y2", rule), means(units, "d", rule)
    assert here.estimate == pytest.approx(direct.estimate, abs=1e-12)
    assert here.std_error == pytest.approx(direct.std_error, rel=1e-9)
    assert here.ci_low == pytest.approx(direct.ci_low, rel=1e-9, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(seeds, rules)
def test_difference_of_adjusted_and_plain_estimates(seed, rule):
    """Variance of a difference: var a + var b - 2 cov(a, b), whichever comes first."""
    units = make_units(seed)
    a = means(units, rule=rule)
    b = lin_adjusted(units, Trial("arm"), "y1", ["z"], vcov=rule)
    assert (a - b).std_error == pytest.approx((b - a).std_error, rel=1e-12)
    plus = pool([a, b], [1, 1])
    total = 2 * (a.std_error**2 + b.std_error**2)
    assert (a - b).std_error ** 2 + (2 * plus.std_error) ** 2 == pytest.approx(total, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(seeds, rules)
def test_disjoint_samples_add_their_variances(seed, rule):
    if isinstance(rule, Clustered):
        rule = HC0()
    a, b = means(make_units(seed), rule=rule), means(make_units(seed + 1, 80, "v"), rule=rule)
    d = a - b
    assert d.estimate == pytest.approx(a.estimate - b.estimate)
    assert d.std_error == pytest.approx(math.hypot(a.std_error, b.std_error), rel=1e-12)
    assert d.n == 140


def test_disjoint_clusters_equal_a_joint_regression():
    """Two samples with clusters of their own, against one saturated regression."""
    one, two = make_units(3), make_units(4, 80, "v")
    d = means(one, rule=Clustered("village")) - means(two, rule=Clustered("village"))
    both = pd.concat([one, two])
    second = np.repeat([0, 1], [60, 80])
    design = np.column_stack([1 - second, second, both["arm"] * (1 - second), both["arm"] * second])
    fit = sm.OLS(both["y1"].to_numpy(), design).fit(
        cov_type="cluster",
        cov_kwds={"groups": pd.factorize(both["village"])[0], "use_correction": False},
    )
    contrast = np.array([0, 0, 1, -1])
    n = both["village"].nunique()
    se = math.sqrt(contrast @ fit.cov_params() @ contrast * n / (n - 1))
    assert d.estimate == pytest.approx(contrast @ fit.params, rel=1e-10)
    assert d.std_error == pytest.approx(se, rel=1e-10)
    assert d.df == n - 1


def test_overlapping_samples_share_their_covariance():
    units = make_units(5, 120)
    a, b = means(units.iloc[:80], rule=HC0()), means(units.iloc[40:], rule=HC0())
    d = a - b
    assert d.n == 120
    psi = a.influence.raw[40:], b.influence.raw[:40]
    covariance = float(psi[0] @ psi[1])
    expected = a.std_error**2 + b.std_error**2 - 2 * covariance
    assert d.std_error**2 == pytest.approx(expected, rel=1e-10)


@settings(max_examples=40, deadline=None)
@given(seeds, rules, rules)
def test_another_variance_equals_a_new_estimate(seed, before, after):
    units = make_units(seed)
    changed = means(units, rule=before).with_vcov(after)
    direct = means(units, rule=after)
    assert changed.estimate == direct.estimate
    assert changed.std_error == pytest.approx(direct.std_error, rel=1e-12)
    assert changed.record()["vcov"] == direct.record()["vcov"]
    again = changed.with_vcov(before)
    assert again.std_error == pytest.approx(means(units, rule=before).std_error, rel=1e-12)
    a = means(units, "y1", before) - means(units, "y2", before)
    b = means(units, "y1", after) - means(units, "y2", after)
    assert a.with_vcov(after).std_error == pytest.approx(b.std_error, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(-5, 5).filter(lambda f: abs(f) > 1e-3))
def test_multiples(seed, factor):
    a = means(make_units(seed))
    b = factor * a
    assert b.estimate == pytest.approx(factor * a.estimate)
    assert b.std_error == pytest.approx(abs(factor) * a.std_error)
    assert b.ci_low < b.ci_high
    assert b.p_value == pytest.approx(a.p_value)
    assert b.with_vcov(HC2()).std_error == pytest.approx(b.std_error)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(2, 5))
def test_pool_of_independent_samples(seed, k):
    """Inverse-variance pooling: 1 / var = sum of 1 / var."""
    parts = [means(make_units(seed + i, 60 + 4 * i, f"s{i}_"), rule=HC0()) for i in range(k)]
    pooled = pool(parts)
    weight = np.array([1 / p.std_error**2 for p in parts])
    value = weight @ [p.estimate for p in parts] / weight.sum()
    assert pooled.estimate == pytest.approx(value, rel=1e-10)
    assert pooled.std_error == pytest.approx(weight.sum() ** -0.5, rel=1e-10)
    assert pooled.n == sum(p.n for p in parts)
    backward = pool(parts[::-1])
    assert backward.estimate == pytest.approx(pooled.estimate, rel=1e-10)
    assert backward.std_error == pytest.approx(pooled.std_error, rel=1e-10)


def test_pool_of_one_estimate_with_itself_is_that_estimate():
    a = means(make_units(1), rule=Clustered("village"))
    same = pool([a, a, a])
    assert same.estimate == pytest.approx(a.estimate)
    assert same.std_error == pytest.approx(a.std_error)
    third = pool([a, a], [3, 0])
    assert third.std_error == pytest.approx(a.std_error)


def test_pool_refuses_nonsense():
    a = means(make_units(1))
    for estimates, weights in (([], None), ([a], [1, 2]), ([a, a], [-1, 2]), ([a, a], [0, 0])):
        with pytest.raises(EstimationError):
            pool(estimates, weights)


def test_pool_of_estimates_without_error():
    a = means(make_units(1))
    with pytest.raises(EstimationError):
        pool([a - a, a])


def test_accidental_labels_are_refused():
    one, two = (make_units(s, n).reset_index(drop=True) for s, n in ((1, 60), (2, 80)))
    with pytest.raises(AlignmentError, match="60 and 80 units"):
        means(one) - means(two)


def test_accidental_labels_are_refused_for_tables_of_one_length():
    one, two = (make_units(s).reset_index(drop=True) for s in (1, 2))
    with pytest.raises(AlignmentError):
        means(one) - means(two)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_row_order_does_not_matter(seed):
    units = make_units(seed)
    mixed = units.sample(frac=1, random_state=seed)
    for rule in RULES:
        a, b = means(units, rule=rule), means(mixed, rule=rule)
        assert a.std_error == pytest.approx(b.std_error, rel=1e-9)
        assert abs((a - b).estimate) < 1e-12
        assert (a - b).std_error < 1e-9


def test_estimate_must_be_finite():
    psi = Influence(pd.Index(["a", "b"]), np.zeros(2), np.zeros(2))
    units = pd.DataFrame(index=["a", "b"])
    for value in (math.nan, math.inf):
        with pytest.raises(EstimationError, match=r"is (nan|inf)"):
            EffectEstimate.of(value, psi, estimand="ATE", method="m", units=units, vcov=HC0())
