"""The grid against the dense normal-inverse-gamma model, state spaces, and its own draws."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from eocausal.errors import EstimationError
from eocausal.estimators import components as parts
from eocausal.estimators.level_draws import draw_paths
from eocausal.estimators.level_grid import GridPrior, LevelGrid
from eocausal.estimators.level_spectrum import Residual, spectra, walk_cov
from eocausal.estimators.statespace import log_likelihood
from eocausal.estimators.structural_priors import enumerated_sets, information_matrix
from eocausal.estimators.t_mixture import TMixture

TIMES, LAST = 40, 30
RNG = np.random.default_rng(0)
OBSERVED = (np.arange(TIMES) < LAST) & (RNG.random(TIMES) > 0.2)
X = RNG.normal(size=(TIMES, 3))
Z = np.column_stack([np.ones(TIMES), X])
VARIANCE = RNG.uniform(0.5, 2.0, TIMES)
RESIDUALS = (Residual(), Residual(0.6), Residual(-0.3))


def prior(start_var=2.0, max_var=np.inf):
    q = np.array([0.0, 0.1, 0.7])
    log_weight = np.log(RNG.uniform(0.5, 1.0, (3, 3)))
    return GridPrior(
        RESIDUALS, q, log_weight, 2.0, RNG.uniform(1.0, 2.0, (3, 3)), start_var,
        np.full((3, 3), max_var),
    )  # fmt: skip


def grid(believed, variance=None, share=0.4):
    precision = np.zeros((4, 4))
    precision[1:, 1:] = 20.0 * information_matrix(X)
    sets = enumerated_sets(1, precision, share)
    rotations = spectra(OBSERVED, believed.residuals, variance)
    return LevelGrid(rotations, believed, sets, Z, OBSERVED, variance)


def series(count=3):
    rng = np.random.default_rng(1)
    return rng.normal(size=(count, TIMES)) + 0.7 * X[:, 0] + np.cumsum(rng.normal(size=TIMES)) / 3


def dense(model, cell, chosen, start):
    """Covariance over s^2 of all values, with coefficients integrated out."""
    at, step = divmod(cell, len(model.prior.q))
    every = np.arange(TIMES)
    cov = model.prior.residuals[at].cov(every, every, model.variance)
    cov = cov + model.prior.q[step] ** 2 * walk_cov(every, every) + 1.0 / start
    held = model.sets.included[chosen].copy()
    held[0] = False
    if held.any():
        w = model.sets.precision[np.ix_(held, held)]
        cov = cov + Z[:, held] @ np.linalg.solve(w, Z[:, held].T)
    return cov


@pytest.mark.parametrize("variance", [None, VARIANCE])
@pytest.mark.parametrize("start_var", [2.0, np.inf])
@pytest.mark.parametrize("max_var", [np.inf, 1.5])
def test_weights_and_predictions_equal_the_dense_model(variance, start_var, max_var):
    model = grid(prior(start_var, max_var), variance)
    y = series()[:, OBSERVED]
    found = model.fit(y)
    ahead = np.where(np.arange(TIMES) >= LAST, RNG.random(TIMES), 0.0)
    law = found.functional(ahead)
    for i, row in enumerate(y):
        start = found.start[i] if np.isfinite(start_var) else 1e-7
        flat = 0.0 if np.isfinite(start_var) else 0.5
        wanted, centers, scales = [], [], []
        for cell in range(9):
            for chosen in range(8):
                cov = dense(model, cell, chosen, start)
                v = cov[np.ix_(OBSERVED, OBSERVED)]
                weight = np.linalg.solve(v, row)
                c = model.prior.scale.ravel()[cell] + 0.5 * row @ weight
                a = 2.0 + len(row) / 2 - flat
                inside = stats.invgamma(a, scale=c).cdf(max_var) if max_var < np.inf else 1.0
                wanted.append(
                    model.prior.log_weight.ravel()[cell] + model.sets.log_prior[chosen]
                    - 0.5 * np.linalg.slogdet(v)[1] - a * np.log(c) + np.log(inside)
                )  # fmt: skip
                cross = ahead @ cov[:, OBSERVED]
                centers.append(cross @ weight)
                spread = ahead @ cov @ ahead - cross @ np.linalg.solve(v, cross)
                scales.append(np.sqrt(spread * c / a))
        wanted = np.exp(np.array(wanted) - max(wanted))
        exact = 1e-8 if np.isfinite(start_var) else 1e-3
        assert found.weight[i].ravel() == pytest.approx(wanted / wanted.sum(), abs=exact)
        assert law.center[i] == pytest.approx(np.array(centers), abs=exact)
        assert law.scale[i] == pytest.approx(np.array(scales), rel=exact)


def test_the_state_space_engine_gives_the_same_density():
    y = np.full(TIMES, np.nan)
    y[OBSERVED] = series(1)[0, OBSERVED]
    for residual in RESIDUALS:
        (rotation,) = spectra(OBSERVED, [residual])
        pieces = [parts.local_level(0.3**2, start_var=2.0)]
        noise = 1.0
        if residual.phi:
            pieces.append(parts.autoregressive(residual.phi, 1.0 - residual.phi**2))
            noise = 0.0
        start, turned = rotation.rotation.sum(1), rotation.rotation @ y[OBSERVED]
        cov = np.diag(1.0 + 0.3**2 * rotation.walk) + 2.0 * np.outer(start, start)
        density = stats.multivariate_normal(cov=cov).logpdf(turned)
        density -= 0.5 * rotation.log_det
        found = log_likelihood(parts.combine(pieces, noise), torch.tensor(y)).item()
        assert density == pytest.approx(found, abs=1e-8)


def test_draws_have_the_exact_law():
    model = grid(prior(max_var=1.5), VARIANCE)
    y = series()[:, OBSERVED]
    found = model.fit(y)
    paths = draw_paths(found, 1, y[1], draws=20_000, seed=3, key=7)
    for _ in range(3):
        ahead = np.where(np.arange(TIMES) >= LAST, RNG.normal(size=TIMES), 0.0)
        law = found.functional(ahead)
        drawn = paths.replicate @ ahead
        # the exact law leaves the bound of s^2 aside within a cell: compare centres tightly
        assert drawn.mean() == pytest.approx(law.mean[1], abs=4.5 * drawn.std() / np.sqrt(20_000))
    loose = grid(replace(model.prior, max_var=np.full((3, 3), np.inf)), VARIANCE).fit(y)
    paths = draw_paths(loose, 1, y[1], draws=20_000, seed=3, key=7)
    drawn = paths.replicate @ ahead
    law = loose.functional(ahead)
    for p in (0.025, 0.2, 0.5, 0.8, 0.975):
        share = (drawn <= law.quantile(p)[1]).mean()
        assert abs(share - p) < 4.5 * np.sqrt(p * (1 - p) / 20_000)


def test_before_the_event_a_draw_is_the_smoothed_state_with_new_noise():
    model = grid(replace(prior(), residuals=(Residual(),) * 3), VARIANCE)
    y = series()[:, OBSERVED]
    paths = draw_paths(model.fit(y), 0, y[0], draws=4000, seed=1, key=0)
    noise = paths.replicate - paths.expected
    assert np.abs(np.corrcoef(noise[:, :LAST].T) - np.eye(LAST)).max() < 0.09
    expected = paths.expected.mean(0)[OBSERVED]
    assert np.corrcoef(expected, y[0])[0, 1] > 0.7


def test_a_series_has_the_same_answer_and_draws_in_any_batch():
    model = grid(prior())
    y = series(5)[:, OBSERVED]
    together, alone = model.fit(y), model.fit(y[3:4])
    assert alone.weight[0] == pytest.approx(together.weight[3], rel=1e-10)
    a = draw_paths(together, 3, y[3], draws=50, seed=2, key=9).replicate
    b = draw_paths(alone, 0, y[3], draws=50, seed=2, key=9).replicate
    assert a == pytest.approx(b, abs=1e-9)
    more = draw_paths(alone, 0, y[3], draws=80, seed=2, key=9).replicate
    assert more[:50] == pytest.approx(b, abs=1e-9)
    assert not np.allclose(a, draw_paths(together, 3, y[3], draws=50, seed=2, key=8).replicate)


def test_quantiles_of_a_mixture_invert_its_distribution():
    rng = np.random.default_rng(2)
    weight = rng.dirichlet(np.ones(6), 4)
    law = TMixture(weight, rng.normal(size=(4, 6)), rng.uniform(0.1, 2.0, (4, 6)), 7.0)
    for p in (0.001, 0.3, 0.975):
        assert law.cdf(law.quantile(p)) == pytest.approx(np.full(4, p), abs=1e-9)
    one = TMixture(np.ones((1, 1)), np.array([[2.0]]), np.array([[3.0]]), 5.0)
    assert one.sd == pytest.approx(stats.t(5, 2, 3).std())


def test_too_many_columns_to_select_among_are_refused():
    with pytest.raises(EstimationError, match="12 columns to select"):
        enumerated_sets(1, np.eye(13), 0.3)
