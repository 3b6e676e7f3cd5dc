"""Whether effects of an event have the uncertainty they state.

Simulation-based calibration (Talts et al. 2018): parameters and data drawn from the model, the
exact posterior of the average effect asked for the rank of the truth; then coverage of the
default's interval under no effect, where the truth is not drawn from its prior.
"""

import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from eocausal.estimators.level_grid import GridPrior, LevelGrid
from eocausal.estimators.level_spectrum import Residual, spectra
from eocausal.estimators.structural import fit_structural
from eocausal.estimators.structural_design import harmonics
from eocausal.estimators.structural_model import Season, StructuralModel
from eocausal.estimators.structural_priors import enumerated_sets

pytestmark = pytest.mark.slow

TIMES, LAST, DRAWS = 60, 45, 6000
OBSERVED = np.arange(TIMES) < LAST
PHI, Q = np.array([0.0, 0.5, 0.8]), np.array([0.0, 0.1, 0.4])


def believed():
    weight = np.full((3, 3), 1 / 9)
    return GridPrior(
        tuple(Residual(p) for p in PHI), Q, np.log(weight), 4.0, np.full((3, 3), 4.0), np.inf,
        np.full((3, 3), np.inf),
    )  # fmt: skip


def worlds(rng, columns, precision):
    """Draw truths and series from the prior: scale, cell, set of regressors, coefficients."""
    sd = 1.0 / np.sqrt(rng.gamma(4.0, 1.0 / 4.0, DRAWS))[:, None]
    phi, q = rng.choice(PHI, (DRAWS, 1)), rng.choice(Q, (DRAWS, 1))
    shocks = rng.normal(size=(DRAWS, TIMES)) * np.sqrt(1 - phi**2)
    shocks[:, 0] /= np.sqrt(1 - phi[:, 0] ** 2)
    noise = np.empty_like(shocks)
    for value in PHI:
        rows = phi[:, 0] == value
        noise[rows] = lfilter([1.0], [1.0, -value], shocks[rows], axis=1)
    steps = q * rng.normal(size=(DRAWS, TIMES))
    steps[:, 0] = 0.0
    chosen = rng.random((DRAWS, 2)) < 0.6
    always = rng.normal(size=(DRAWS, 3))
    beta = np.concatenate([always, rng.normal(size=(DRAWS, 2)) * chosen], 1) / np.sqrt(precision)
    y = 7.0 + sd * (noise + np.cumsum(steps, 1) + beta @ columns[:, 1:].T)  # any level: flat prior
    return y


def test_ranks_of_average_and_cumulative_effects_are_uniform():
    rng = np.random.default_rng(0)
    columns = np.column_stack(
        [np.ones(TIMES), harmonics(TIMES, Season(4)), rng.normal(size=(TIMES, 2))]
    )
    precision = np.zeros((6, 6))
    np.fill_diagonal(precision[1:, 1:], 2.0)
    grid = LevelGrid(
        spectra(OBSERVED, believed().residuals), believed(),
        enumerated_sets(4, precision, 0.6), columns, OBSERVED,
    )  # fmt: skip
    y = worlds(rng, columns, 2.0)
    posterior = grid.fit(y[:, :LAST])
    for weights in (np.where(OBSERVED, 0.0, 1.0 / (TIMES - LAST)), np.eye(TIMES)[LAST + 2]):
        ranks = posterior.functional(weights).cdf(y @ weights)
        assert stats.kstest(ranks, "uniform").pvalue > 0.01


def truth(cell, rng, series=1000, times=280):
    phi = {"AR 0.3": 0.3, "AR 0.6": 0.6, "AR 0.8": 0.8}.get(cell, 0.0)
    shocks = rng.normal(size=(series, times + 100)) * np.sqrt(1 - phi**2)
    y = lfilter([1.0], [1.0, -phi], shocks, axis=1)[:, 100:]
    step = {"walk 0.02": 0.02, "walk 0.05": 0.05}.get(cell, 0.0)
    y = y + np.cumsum(step * rng.normal(size=y.shape), axis=1)
    if cell == "seasonal":
        y = y + 2 * np.sin(2 * np.pi * np.arange(times) / 12)
    if cell == "gaps":
        y[:, rng.random(times) < 0.2] = np.nan
    return y


@pytest.mark.parametrize(
    "cell",
    ["independent", "AR 0.3", "AR 0.6", "AR 0.8", "walk 0.02", "walk 0.05", "seasonal", "gaps"],
)
def test_two_years_after_twenty_the_default_covers(cell):
    y = truth(cell, np.random.default_rng(1))
    before = np.arange(y.shape[1]) < 256
    model = StructuralModel(season=12 if cell == "seasonal" else None)
    found = fit_structural(y, before, model).average(~before)
    covered = ((found.ci_low <= 0) & (found.ci_high >= 0)).mean()
    error = np.sqrt(0.05 * 0.95 / len(y))
    assert 0.93 - 2 * error <= covered <= 0.97 + 2 * error
