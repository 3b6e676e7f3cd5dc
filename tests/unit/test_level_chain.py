"""Series with gaps of their own: the pass over time against dense covariances and shared gaps."""

from itertools import product

import numpy as np
import pytest
from scipy import special, stats

from eocausal.estimators import grid_groups, grid_weights, level_chain
from eocausal.estimators.grid_groups import OwnGaps, SharedGaps
from eocausal.estimators.level_chain import chain_of
from eocausal.estimators.level_draws import PathDraws
from eocausal.estimators.level_spectrum import Residual, walk_cov
from eocausal.estimators.structural import fit_structural
from eocausal.estimators.structural_model import StructuralModel, Trend
from eocausal.estimators.structural_priors import CompatiblePrior, LearnedPrior
from eocausal.estimators.subset_inverses import subset_inverses
from eocausal.estimators.subset_remainders import subset_remainders
from eocausal.estimators.t_mixture import TMixture, student_cdf

TIMES, LAST = 60, 45
BEFORE = np.arange(TIMES) < LAST
RNG = np.random.default_rng(0)
X = RNG.normal(size=(TIMES, 3))
VARIANCE = RNG.uniform(0.5, 2.0, TIMES)
PHI = np.array([0.0, 0.3, 0.9])
Q = np.array([0.05, 0.4, 2.0])


def clouded(count, share=0.3, seed=1):
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.normal(size=(count, TIMES)), 1) * rng.choice([0, 0.05, 0.3], (count, 1))
    y = 5 + X[:, 0] + walk + rng.normal(size=(count, TIMES))
    y[rng.random(y.shape) < share] = np.nan
    return y


@pytest.mark.parametrize("variance", [None, VARIANCE])
@pytest.mark.parametrize("many", [9, 0])
def test_the_chain_is_the_dense_covariance(variance, many, monkeypatch):
    monkeypatch.setattr(level_chain, "MANY", many)
    rng = np.random.default_rng(2)
    observed = rng.random((3, TIMES)) > 0.3
    observed[0, 0], observed[1, 0] = True, False
    columns = rng.normal(size=(2, 3, TIMES))
    chain = chain_of(observed, PHI, variance)
    n = chain.times.shape[1]
    aligned = np.zeros((2, 3, n))
    for i in range(3):
        live = chain.times[i] >= 0
        aligned[:, i, live] = columns[:, i, chain.times[i, live]]
    found = chain.sweep(aligned, Q)
    white = chain.whitened(aligned)
    for i, (r, phi), (k, q) in product(range(3), enumerate(PHI), enumerate(Q)):
        times = np.flatnonzero(observed[i])
        noise = Residual(phi).cov(times, times, variance)
        cov = noise + q**2 * walk_cov(times, times)
        data = columns[:, i, times]
        wanted = data @ np.linalg.solve(cov, data.T)
        got = np.einsum("cn,dn->cd", aligned[:, i], white[:, i, r]) - found.gram[i, r, k]
        assert got == pytest.approx(wanted, rel=1e-8)
        assert found.log_det[i, r, k] == pytest.approx(np.linalg.slogdet(cov)[1], abs=1e-8)
        to_end = q**2 * walk_cov(times[-1:], times)
        level = to_end @ np.linalg.solve(cov, data.T)
        assert found.level[i, r, k] == pytest.approx(level[0], rel=1e-7, abs=1e-10)
        spread = q**2 * times[-1] - to_end @ np.linalg.solve(cov, to_end.T)
        assert found.level_var[i, r, k] == pytest.approx(spread[0, 0], rel=1e-7)


@pytest.mark.parametrize("prior", [LearnedPrior(), CompatiblePrior()])
@pytest.mark.parametrize(("controls", "variance"), [(None, None), (X, None), (X, VARIANCE)])
def test_own_gaps_give_the_answer_of_a_decomposition(prior, controls, variance, monkeypatch):
    y = clouded(8)
    y[0, LAST:] = np.where(np.arange(TIMES - LAST) == 3, 5.0, np.nan)
    season = 4 if isinstance(prior, LearnedPrior) else None
    trend = Trend.LINE if isinstance(prior, LearnedPrior) else Trend.LEVEL
    model = StructuralModel(season=season, trend=trend, prior=prior)
    own = fit_structural(y, BEFORE, model, controls=controls, variance=variance)
    assert [type(group) for group in own.groups] == [OwnGaps]
    monkeypatch.setattr(grid_groups, "FEW_SERIES", 0)
    shared = fit_structural(y, BEFORE, model, controls=controls, variance=variance)
    assert {type(group) for group in shared.groups} == {SharedGaps}
    a, b = own.average(~BEFORE), shared.average(~BEFORE)
    for name in ("estimate", "std_error", "ci_low", "ci_high", "p_value"):
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-6, abs=1e-8), name
    assert a.estimate == pytest.approx(b.estimate, rel=1e-9, abs=1e-10)
    assert own.inclusion() == pytest.approx(shared.inclusion(), abs=1e-9)
    one, other = (fit.paths(3, draws=30, seed=1).replicate for fit in (own, shared))
    assert one == pytest.approx(other, rel=1e-6)


def test_a_window_within_the_times_learned_from_is_predicted_too():
    y = clouded(6)
    y[:, 10:15] = np.nan
    inner = np.zeros(TIMES, bool)
    inner[10:15] = True
    fit = fit_structural(y, BEFORE)
    filled = np.where(inner, 3.0, y)
    fit = type(fit)(
        fit.model, fit.design, filled, fit.center, fit.scale, fit.refused, fit.groups, fit.engine
    )
    found = fit.average(inner)
    drawn = fit.paths(2, draws=4000, seed=1).expected[:, inner].mean(1)
    assert found.estimate[2] == pytest.approx(3.0 - drawn.mean(), abs=0.1)
    assert (found.n == 5).all()


def test_counting_different_times_does_not_need_different_gaps():
    y = clouded(60, share=0.0)
    y[:, LAST:][np.random.default_rng(3).random((60, TIMES - LAST)) < 0.4] = np.nan
    together = fit_structural(y, BEFORE, controls=X).average(~BEFORE)
    for row in (0, 17):
        alone = fit_structural(y[row : row + 1], BEFORE, controls=X).average(~BEFORE)
        assert alone.estimate[0] == pytest.approx(together.estimate[row], rel=1e-9)
        assert alone.ci_low[0] == pytest.approx(together.ci_low[row], rel=1e-7)


@pytest.mark.parametrize("phi", [0.0, 0.6])
def test_paths_without_season_have_the_law_of_the_dense_model(phi):
    y = clouded(1)
    model = StructuralModel()
    fit = fit_structural(y, BEFORE, model, variance=VARIANCE)
    posterior, row, values = fit.groups[0].one(0)
    grid = posterior.grid
    kind = int(np.argmin([abs(r.residual.phi - phi) for r in grid.rotations]))
    cell = kind * grid.prior.q.size + 9
    posterior.weight[:] = 0.0
    posterior.weight[0, cell] = 1.0
    count = 20_000
    draws = PathDraws(posterior, row, values, draws=count, seed=1, key=2)
    every = draws.paths
    np.testing.assert_array_equal(every.replicate[:, draws.last + 1 :], draws.ahead.replicate)
    step, s2 = grid.prior.q[9], posterior.scale[0, cell, 0] / (posterior.shape - 1.0)
    times, all_times = grid.times, np.arange(TIMES)
    walk = step**2 * walk_cov(all_times, all_times) + 1e4
    noise = grid.rotations[kind].residual.cov(all_times, all_times, VARIANCE)
    cov = walk + noise
    inverse = np.linalg.inv(cov[np.ix_(times, times)])
    mean = walk[:, times] @ inverse @ values
    spread = s2 * np.diag(walk - walk[:, times] @ inverse @ walk[times])
    error = 5 * np.sqrt(spread / count)
    assert (np.abs(every.expected.mean(0) - mean) < error + 1e-3).all()
    assert every.expected.var(0) == pytest.approx(spread, rel=0.08)
    ahead = slice(draws.last + 1, None)
    total = cov[ahead, ahead] - cov[ahead, times] @ inverse @ cov[times, ahead]
    assert np.cov(every.replicate[:, ahead].T) == pytest.approx(
        s2 * total, abs=0.08 * s2 * total.max()
    )
    early = np.cov(every.expected[:, 5:20].T)
    exact = s2 * (walk - walk[:, times] @ inverse @ walk[times])[5:20, 5:20]
    assert early == pytest.approx(exact, abs=0.08 * exact.max())


def test_sweeps_invert_every_subset():
    rng = np.random.default_rng(4)
    a = rng.normal(size=(5, 9, 4))
    a = np.einsum("abj,abl->ajl", a, a)
    included = np.array(list(product([False, True], repeat=4)))
    inverse, log_det = subset_inverses(a, included)
    columns = np.moveaxis(np.pad(a, ((0, 0), (0, 1), (0, 1))), 0, -1)
    columns[4, :4] = columns[:4, 4] = rng.normal(size=(4, 5))
    left = {row: (rest, det) for row, rest, det in subset_remainders(columns, included)}
    assert sorted(left) == list(range(16))
    for m, members in enumerate(included):
        at = np.ix_(range(5), members, members)
        assert inverse[:, m].any(axis=(1, 2)).all() == members.any()
        if members.any():
            wanted = np.linalg.inv(a[at])
            assert inverse[:, m][at] == pytest.approx(wanted, rel=1e-9)
            assert log_det[:, m] == pytest.approx(np.linalg.slogdet(a[at])[1])
            side = columns[4, :4][members]
            rest = -np.einsum("kn,nkl,ln->n", side, wanted, side)
            assert left[m][0][0, 0] == pytest.approx(rest, rel=1e-9)
            assert left[m][1] == pytest.approx(log_det[:, m])
        else:
            assert (left[m][0] == 0).all()


@pytest.mark.parametrize("df", [3.0, 25.0, 200.0, np.array([25.0, 60.0])])
def test_mixtures_of_any_degrees_of_freedom(df):
    rng = np.random.default_rng(5)
    weight = rng.dirichlet(np.ones(5) * 0.3, 2)
    law = TMixture(weight, rng.normal(size=(2, 5)), rng.uniform(0.05, 3.0, (2, 5)), df)
    for p in (1e-4, 0.025, 0.5, 0.975):
        assert law.cdf(law.quantile(p)) == pytest.approx(np.full(2, p), abs=2e-8)
    exact = [
        sum(
            w * stats.t(np.broadcast_to(df, 2)[i], c, s).cdf(0.3)
            for w, c, s in zip(weight[i], law.center[i], law.scale[i], strict=True)
        )
        for i in range(2)
    ]
    assert law.cdf(np.full(2, 0.3)) == pytest.approx(np.array(exact), abs=1e-10)


def test_the_t_distribution_far_out():
    t = np.linspace(-9, 9, 181)
    for df in (20.0, 45.5, 300.0):
        assert student_cdf(t, df) == pytest.approx(special.stdtr(df, t), rel=2e-6, abs=1e-14)


def test_tabulated_gamma_tails():
    x = np.random.default_rng(6).uniform(40.0, 400.0, 50_000)
    found = grid_weights._log_upper(np.full(x.shape, 169.0), x)
    np.testing.assert_allclose(found, np.log(special.gammaincc(169.0, x)), atol=1e-9)
