"""Intervals that hold together, and q-values."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from eocausal.effects import EffectEstimate, Influence, Status, Variance
from eocausal.errors import AlignmentError, EstimationError
from eocausal.estimators.bootstrap import SpatialBootstrap
from eocausal.estimators.conley import Conley
from eocausal.estimators.inference import HC0, HC2, Clustered, TwoWay
from eocausal.estimators.joint_covariance import joint_covariance, joint_covariance_of
from eocausal.estimators.multiplicity import benjamini_hochberg, simultaneous

N = 400


@pytest.fixture
def units():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "lon": rng.uniform(0, 3, N), "lat": rng.uniform(0, 3, N),
            "district": rng.integers(0, 40, N), "year": rng.integers(0, 25, N),
        },
        index=[f"u{i}" for i in range(N)],
    )  # fmt: skip


def estimates_of(psi, units, rule=None, values=None, df=math.inf):
    values = np.zeros(psi.shape[1]) if values is None else values
    return [
        EffectEstimate.of(
            float(v), Influence(units.index, column, column, df), estimand="ATE", method="m",
            units=units, vcov=rule or HC0(), extra={"sector": k},
        )
        for k, (v, column) in enumerate(zip(values, psi.T, strict=True))
    ]  # fmt: skip


def orthogonal(k):
    """Influence values of k estimates that are exactly uncorrelated."""
    psi = np.random.default_rng(1).normal(size=(N, k))
    return np.linalg.qr(psi - psi.mean(axis=0))[0]


def test_one_estimate_needs_no_widening(units):
    found = simultaneous(estimates_of(orthogonal(1), units), seed=1)
    assert found.critical == pytest.approx(stats.norm.ppf(0.975), abs=0.03)
    assert found.critical >= stats.norm.ppf(0.975) - 1e-9


def test_independent_estimates_need_sidaks_quantile(units):
    found = simultaneous(estimates_of(orthogonal(20), units), seed=1, draws=100_000)
    assert found.critical == pytest.approx(stats.norm.ppf(1 - (1 - 0.95 ** (1 / 20)) / 2), abs=0.02)


def test_copies_cost_nothing(units):
    psi = np.repeat(orthogonal(1), 12, axis=1) * np.linspace(-3, 3.5, 12)
    found = simultaneous(estimates_of(psi, units), seed=1)
    assert found.critical == pytest.approx(stats.norm.ppf(0.975), abs=0.03)


def test_covariances_that_no_normal_distribution_has(units):
    """Three estimates cannot all be correlated by -0.9: what can be drawn stays standardised."""
    rule = Opposed()
    items = estimates_of(np.eye(N)[:, :3], units, rule)
    found = simultaneous(items, seed=1, draws=100_000)
    assert 2.3 < found.critical < stats.norm.ppf(1 - (1 - 0.95 ** (1 / 3)) / 2)


@dataclass(frozen=True)
class Opposed:
    """Units of either of the first three rows have variance 1 and correlations of -0.9."""

    def variance(self, influence, units):
        psi = influence.raw[:3]
        return Variance(float(psi @ (1.9 * np.eye(3) - 0.9) @ psi))


def test_few_degrees_of_freedom_widen(units):
    psi = orthogonal(5)
    many = simultaneous(estimates_of(psi, units), seed=1).critical
    few = simultaneous(estimates_of(psi, units, df=8.0), seed=1).critical
    assert few > many + 0.3


def test_an_estimate_with_few_degrees_of_freedom_widens_its_own_interval_only(units):
    psi = orthogonal(8)
    alike = simultaneous(estimates_of(psi, units), seed=1)
    few = [*estimates_of(psi[:, :1], units, df=3.0), *estimates_of(psi[:, 1:], units)]
    found = simultaneous(few, seed=1)
    np.testing.assert_allclose(found.halves[1:], alike.halves[1:], rtol=0.02)
    assert found.halves[0] > 2 * alike.halves[0]
    assert "standard errors)" in found.summary()
    assert " to " in found.summary()
    rng = np.random.default_rng(3)
    t = rng.normal(size=(4000, 8))
    t[:, 0] /= np.sqrt(rng.chisquare(3, 4000) / 3)
    error = np.array([e.std_error for e in few])
    assert np.mean((np.abs(t) * error <= found.halves).all(axis=1)) == pytest.approx(
        0.95, abs=0.012
    )


def test_records_and_summary(units):
    values = [0.0, 2.5, 5.0]
    items = estimates_of(orthogonal(3), units, values=values)
    found = simultaneous(items, seed=1)
    table = found.to_frame()
    assert list(table["sector"]) == [0, 1, 2]
    half = found.critical * np.array([e.std_error for e in items])
    np.testing.assert_allclose(table["joint_high"] - table["estimate"], half)
    np.testing.assert_allclose(table["estimate"] - table["joint_low"], half)
    assert (table["p_joint"] >= table["p_value"] - 0.01).all()
    sidak = 1 - (1 - table["p_value"][1]) ** 3
    assert table["p_joint"][1] == pytest.approx(sidak, abs=0.01)
    np.testing.assert_allclose(table["q_value"], benjamini_hochberg([e.p_value for e in items]))
    outside = (table["joint_low"] > 0) | (table["joint_high"] < 0)
    assert list(outside) == list(table["p_joint"] < 0.05) == [False, True, True]
    assert found.summary().startswith("2 of 3 effects differ from none")
    assert simultaneous(items, seed=1).critical == found.critical


def test_refused_estimates_are_carried_along_and_count_for_nothing(units):
    psi = orthogonal(6)
    items = estimates_of(psi, units, values=np.arange(6.0))
    refused = replace(items[2], status=Status.REFUSED)
    found = simultaneous([*items[:2], refused, *items[3:]], seed=1)
    without = simultaneous([*items[:2], *items[3:]], seed=1)
    assert found.critical == without.critical
    table = found.to_frame()
    assert table.loc[2, ["joint_low", "joint_high", "p_joint", "q_value"]].isna().all()
    np.testing.assert_array_equal(table["q_value"].drop(2), without.to_frame()["q_value"])
    assert "1 refused" in found.summary()
    with pytest.raises(EstimationError, match="None of 1"):
        simultaneous([refused])


def test_estimates_on_different_units(units):
    """Two sectors share untreated units: the correlation is that of what they share."""
    psi = np.random.default_rng(2).normal(size=N)
    one = estimates_of(psi[:300, None], units.iloc[:300])[0]
    two = estimates_of(psi[100:, None], units.iloc[100:])[0]
    found = joint_covariance_of([one, two])
    wanted = [
        [psi[:300] @ psi[:300], psi[100:300] @ psi[100:300]],
        [psi[100:300] @ psi[100:300], psi[100:] @ psi[100:]],
    ]
    np.testing.assert_allclose(found, wanted)


def test_units_numbered_alike_that_are_not_the_same(units):
    psi = orthogonal(1)
    other = units.sample(frac=1, random_state=3).reset_index(drop=True)
    one = estimates_of(psi, units.reset_index(drop=True))[0]
    with pytest.raises(AlignmentError):
        simultaneous([one, estimates_of(psi, other)[0]])


def test_one_variance_rule_for_all(units):
    psi = orthogonal(2)
    mixed = [estimates_of(psi, units)[0], estimates_of(psi, units, Clustered("district"))[1]]
    with pytest.raises(EstimationError, match=r"HC0\(\).*Clustered"):
        simultaneous(mixed)
    with pytest.raises(EstimationError, match="no level"):
        simultaneous(mixed[:1], level=95)


@pytest.mark.parametrize("rule", [HC0(), HC2(), Clustered("district"), Conley(60, reference=False)])
def test_covariances_equal_those_of_sums_and_differences(units, rule):
    rng = np.random.default_rng(4)
    raw = rng.normal(size=(N, 3)) @ rng.normal(size=(3, 3))
    hc2 = raw * 1.1
    found = joint_covariance(rule, raw, hc2, units)
    slow = joint_covariance.dispatch(object)(rule, raw, hc2, units)
    factor = slow[0, 0] / found[0, 0]
    assert factor == pytest.approx(40 / 39 if isinstance(rule, Clustered) else 1.0)
    np.testing.assert_allclose(found * factor, slow, atol=1e-9 * np.abs(slow).max())


def test_covariance_of_blocks(units):
    """Origins differ between the two ways, and so do the results, a little."""
    rng = np.random.default_rng(9)
    raw = rng.normal(size=(N, 2)) @ np.array([[1.0, 0.7], [0.0, 1.0]])
    rule = SpatialBootstrap(20, origins=600, repetitions=1200)
    found = joint_covariance(rule, raw, raw, units)
    slow = joint_covariance.dispatch(object)(rule, raw, raw, units)
    np.testing.assert_allclose(found, slow, rtol=0.06)


def test_any_variance_rule_will_do(units):
    shock = np.random.default_rng(5).normal(size=(40, 4))[units["district"]]
    found = simultaneous(estimates_of(shock, units, TwoWay("district", "year")), seed=1)
    assert 2.3 < found.critical < 3.2


def test_q_values_equal_an_independent_implementation():
    from statsmodels.stats.multitest import multipletests

    rng = np.random.default_rng(6)
    p = np.concatenate([rng.uniform(size=30), rng.uniform(size=10) ** 6, [0.02, 0.02, 0.0, 1.0]])
    q = benjamini_hochberg(p)
    np.testing.assert_allclose(q, multipletests(p, method="fdr_bh")[1])
    assert (q >= p).all()
    order = np.argsort(p)
    assert (np.diff(q[order]) >= 0).all()


def test_what_was_not_tested_has_no_q_value():
    p = [0.01, math.nan, 0.04, math.nan]
    q = benjamini_hochberg(p)
    np.testing.assert_allclose(q, [0.02, math.nan, 0.04, math.nan])
    assert benjamini_hochberg([]).shape == (0,)
    assert np.isnan(benjamini_hochberg([math.nan])).all()
    with pytest.raises(EstimationError, match="not in"):
        benjamini_hochberg([0.5, 1.2])
