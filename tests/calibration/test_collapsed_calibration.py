"""Whether the engine ``collapsed`` has the uncertainty it states.

Simulation-based calibration (Talts et al. 2018): truths and series drawn from the prior, and the
posterior asked for the rank of the truth. First with proper priors of all variances; then with our
prior as users meet it, where level, slope and scale have flat priors, so that any values of these
will do.
"""

import numpy as np
import pytest
from scipy import stats

from eocausal.estimators.collapsed import _sampled
from eocausal.estimators.collapsed_bands import Layout, bands_of
from eocausal.estimators.collapsed_draws import Posterior, average_law
from eocausal.estimators.collapsed_group import Columns, Group
from eocausal.estimators.collapsed_model import (
    InverseGamma,
    Stratum,
    layout_of,
    strata_of,
)
from eocausal.estimators.collapsed_parts import Dummies, Level, Slope, autoregression
from eocausal.estimators.structural import fit_structural
from eocausal.estimators.structural_model import Season, StructuralModel, Trend

pytestmark = pytest.mark.slow

SERIES, TIMES, LAST = 200, 60, 45
AFTER = np.arange(TIMES) >= LAST
SEEN = ~AFTER[:LAST].copy()
SEEN[[3, 20, 21, 22, 23]] = False
RNG = np.random.default_rng(0)
X = RNG.normal(size=(TIMES, 2))
COLUMNS = Columns(
    X, 0, np.diag([2.0, 2.0]), np.array([[0, 0], [0, 1], [1, 0], [1, 1]], bool),
    np.log([0.16, 0.24, 0.24, 0.36]), None,
)  # fmt: skip


def uniform(ranks):
    assert stats.kstest(ranks, "uniform").pvalue > 0.01


@pytest.mark.parametrize("second", [Slope(), Dummies(4)])
def test_ranks_with_proper_priors_are_uniform(second):
    width = second.starts(3).shape[1]
    layout = Layout((Level(), second), ((1.0,), (0.1,) * width), None, False, TIMES)
    believed = {
        "residual": (4.0, 2.0), "part 0": (3.0, 0.1), "part 1": (3.0, 0.02),
    }  # fmt: skip
    truth = {name: 1.0 / RNG.gamma(a, 1.0 / b, SERIES) for name, (a, b) in believed.items()}
    chosen = RNG.random((SERIES, 2)) < 0.6
    own = truth["residual"]
    beta = RNG.normal(size=(SERIES, 2)) * chosen * np.sqrt(own / 2.0)[:, None]
    y = beta @ X.T + np.sqrt(own)[:, None] * RNG.normal(size=(SERIES, TIMES))
    for at, part in enumerate(layout.parts):
        shocks = RNG.normal(size=(SERIES, part.shocks, TIMES))
        y += np.sqrt(truth[f"part {at}"])[:, None] * part.path(shocks)
        start = part.starts(TIMES) * np.sqrt(layout.start_vars[at])
        y += RNG.normal(size=(SERIES, start.shape[1])) @ start.T
    short = Layout(layout.parts, layout.start_vars, None, False, LAST)
    group = Group(
        bands_of(short), SEEN, COLUMNS, np.where(SEEN, y[:, :LAST], 0.0), scale_known=True,
        lost=0, layout=layout, ahead=np.tile(AFTER / AFTER.sum(), (SERIES, 1)),
    )  # fmt: skip
    numbers = {
        name: InverseGamma(a, b, np.inf, (np.log(b / a) - 1.0, np.log(b / a) + 1.5))
        for name, (a, b) in believed.items()
    }
    stratum = Stratum(numbers, 2)
    found = _sampled(stratum, group, np.log(own), 0)
    assert (found.effective > 40).all()
    weight = np.exp(found.log_weight - found.log_weight.max(1, keepdims=True))
    weight /= weight.sum(1, keepdims=True)
    for at, name in enumerate(believed):
        uniform((weight * (found.x[:, :, at] < np.log(truth[name])[:, None])).sum(1))
    for share in (AFTER / AFTER.sum(), np.eye(TIMES)[LAST + 2]):
        ranks = []
        for row in range(SERIES):
            posterior = Posterior.of(group, layout, row, [stratum], [found], np.zeros(TIMES))
            ranks.append(average_law(posterior, share).cdf(y[row, None] @ share)[0])
        uniform(ranks)
    picked = [Posterior.of(group, layout, row, [stratum], [found], np.zeros(TIMES)).inclusion()
              for row in range(SERIES)]  # fmt: skip
    expected = np.array(picked)
    error = np.sqrt((expected * (1 - expected)).mean(0) / SERIES)
    assert (np.abs(chosen.mean(0) - expected.mean(0)) < 4 * error).all()


def learned(model, series, times, rng):
    """Draw series of residual sd one from our prior, level and slope at zero to begin with."""
    before = int(0.75 * times)
    layout = layout_of(model, times, None)
    strata = strata_of(model, layout, before, regressors=False)
    case = rng.random(series) > np.exp(strata[0].log_prob)
    y = np.zeros((series, times))
    for at, stratum in enumerate(strata):
        rows = np.flatnonzero(case == at)
        x = np.stack([drawn(b, len(rows), rng) for b in stratum.numbers.values()], 1)
        ratios, _ = stratum.ratios(x)
        shocks = rng.normal(size=(len(rows), times)) * np.sqrt(1.0 - ratios.phi**2)[:, None]
        shocks[:, 0] = rng.normal(size=len(rows))
        y[rows] = autoregression(shocks, ratios.phi)
        for number, part in enumerate(layout.parts):
            z = rng.normal(size=(len(rows), part.shocks, times))
            y[rows] += np.sqrt(ratios.parts[:, number, None]) * part.path(z)
    return y, np.arange(times) < before


def drawn(believed, count, rng):
    """Draw from a prior by its density on a fine grid."""
    x = np.linspace(-12, 12, 40_001) + (
        np.log(believed.center) if hasattr(believed, "center") else 0
    )
    weight = np.exp(believed.log_density(x))
    assert weight.sum() * (x[1] - x[0]) == pytest.approx(1.0, abs=1e-3)
    return rng.choice(x, count, p=weight / weight.sum())


@pytest.mark.parametrize(
    "model",
    [
        StructuralModel(trend=Trend.LOCAL_LINEAR),
        StructuralModel(season=Season(4, changes=True)),
    ],
)
def test_ranks_with_our_prior_are_uniform(model):
    rng = np.random.default_rng(1)
    y, before = learned(model, 150, 80, rng)
    found = fit_structural(5.0 + 2.0 * y, before, model)
    assert not found.refused
    share = ~before / (~before).sum()
    ranks = []
    for row, posterior in enumerate(found.posteriors):
        value = (5.0 + 2.0 * y[row] - found.center[row]) / found.scale[row]
        ranks.append(average_law(posterior, share).cdf(np.array([value @ share]))[0])
    uniform(ranks)
    covered = found.average(~before)
    inside = ((covered.ci_low <= 0) & (covered.ci_high >= 0)).mean()
    assert abs(inside - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 150)
