"""The engine gibbs against R's reference runs, and against the engines that need no chain.

R: CausalImpact 1.4.1 with bsts 0.9.10, 20,000 draws on Morowali (METHODS.md section 5).
Tolerances: the average within the larger of 4 Monte Carlo errors, of R's run and ours, and
0.02 sd, ends within 0.08 sd and four errors of a quantile, inclusion within 0.03 and four errors.
R's chains are taken as worth 2,000 independent draws where a season or coefficients change.
"""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from eocausal.estimators.structural import fit_structural
from eocausal.estimators.structural_model import Engine, StructuralModel, Trend
from eocausal.estimators.structural_priors import CompatiblePrior, LearnedPrior

pytestmark = pytest.mark.slow

BEFORE = np.arange(324) < 256  # 1998-01..2019-04
DRAWS = 2000
AT_END = np.sqrt(0.025 * 0.975) / 0.0584  # error of a 2.5 % point of a normal law, in sds
R = CompatiblePrior()


@pytest.fixture(scope="module")
def zones(real_data):
    folder = real_data("morowali")
    impact, control = (
        pd.read_csv(folder / f"{zone}_Zone_Kd490_Temp_Sal.csv") for zone in ("Impact", "Control")
    )
    x = control[["Kd490", "Temperature", "Salinity"]].to_numpy()
    return impact["Kd490"].to_numpy()[None], x


def chains(model, y, before, **options):
    """Return effects of draws with and without residual, their worth, and the fit."""
    fit = fit_structural(y, before, dataclasses.replace(model, engine=Engine.GIBBS), **options)
    paths = fit.paths(0, draws=DRAWS, seed=1)
    worth = fit.convergence(0, draws=DRAWS, seed=1).effective
    after = y[0, ~before]
    effect = np.nanmean(after - paths.replicate[:, ~before], axis=1)
    plain = np.nanmean(after - paths.expected[:, ~before], axis=1)
    return effect, plain, worth, fit


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("options", "average", "low", "high", "independent"),
    [
        ({}, 0.8948, 0.7727, 1.0144, 20_000),
        ({"season": 12, "hole": True}, 0.8656, 0.7467, 0.9811, 2_000),
        ({"dynamic": True}, 0.913, -0.408, 2.260, 2_000),
    ],
)
def test_average_effects_equal_r(zones, options, average, low, high, independent):
    y, x = zones[0].copy(), zones[1]
    options = {"prior": R, **options}
    if options.pop("hole", False):
        y[:, 100:118] = np.nan
    effect, plain, worth, _ = chains(StructuralModel(**options), y, BEFORE, controls=x)
    sd = (high - low) / (2 * 1.96)
    error = np.hypot(sd / np.sqrt(independent), plain.std() / np.sqrt(worth))
    assert plain.mean() == pytest.approx(average, abs=max(4 * error, 0.02 * sd))
    ends = np.quantile(effect, [0.025, 0.975])
    slack = 0.08 * sd + 4 * AT_END * sd / np.sqrt(worth)
    assert ends == pytest.approx([low, high], abs=slack)


@pytest.mark.realdata
def test_a_season_that_changes_equals_r_and_the_faster_engine(zones):
    y, x = zones
    model = StructuralModel(season=12, prior=R)
    effect, plain, worth, fit = chains(model, y, BEFORE, controls=x)
    other = fit_structural(y, BEFORE, model, controls=x)
    law = other.average(~BEFORE)
    error = plain.std() / np.sqrt(worth)
    both = np.sqrt(2.0)  # the other is one of draws too
    assert plain.mean() == pytest.approx(law.estimate[0], abs=4 * both * error)
    assert plain.mean() == pytest.approx(0.8602, abs=4 * np.hypot(error, 0.0615 / np.sqrt(2000)))
    slack = 0.02 * 0.0615 + 4 * both * AT_END * 0.0615 / np.sqrt(worth)
    ends = [law.ci_low[0], law.ci_high[0]]
    assert np.quantile(effect, [0.025, 0.975]) == pytest.approx(ends, abs=slack)
    shares = fit.inclusion()[0]
    error = 4 * 0.5 / np.sqrt(1000)
    assert shares == pytest.approx([1.0, 0.32, 0.78], abs=0.03 + error)
    assert shares == pytest.approx(other.inclusion()[0], abs=0.01 + both * error)


def series(times=150, last=110, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(times, 4))
    walk = np.cumsum(0.04 * rng.normal(size=times))
    season = 0.5 * np.sin(2 * np.pi * np.arange(times) / 6)
    y = x @ [0.6, 0.15, 0.0, 0.0] + season + walk + 0.5 * rng.normal(size=times)
    y[[20, 21, 22, 23, 60]] = np.nan
    x[80, 2] = np.nan
    return y[None], x, np.arange(times) < last


@pytest.mark.parametrize(
    ("model", "other"),
    [
        (StructuralModel(prior=CompatiblePrior(0.03)), Engine.GRID),
        (StructuralModel(season=6, prior=R), Engine.COLLAPSED),
        (StructuralModel(), Engine.GRID),
        (StructuralModel(trend=Trend.LOCAL_LINEAR), Engine.COLLAPSED),
    ],
)
def test_engines_agree_with_gaps_and_selection(model, other):
    y, x, before = series()
    effect, plain, worth, fit = chains(model, y, before, controls=x)
    known = fit_structural(y, before, dataclasses.replace(model, engine=other), controls=x)
    law = known.average(~before)
    share = 1.0 if other is Engine.GRID else np.sqrt(2.0)  # the other is one of draws too
    sd = law.std_error[0]
    assert plain.mean() == pytest.approx(
        law.estimate[0], abs=4 * share * effect.std() / np.sqrt(worth)
    )
    slack = (0.02 + 4 * share * AT_END / np.sqrt(worth)) * sd
    ends = [law.ci_low[0], law.ci_high[0]]
    assert np.quantile(effect, [0.025, 0.975]) == pytest.approx(ends, abs=slack)
    error = 0.01 + 4 * share * 0.5 / np.sqrt(1000)
    assert fit.inclusion()[0] == pytest.approx(known.inclusion()[0], abs=error)


def test_level_and_autocorrelation_have_the_law_of_the_grid():
    y, x, before = series(seed=3)
    fit = fit_structural(y, before, StructuralModel(engine=Engine.GIBBS), controls=x)
    drawn = fit.parameters(0, draws=DRAWS, seed=1)
    exact_fit = fit_structural(y, before, StructuralModel(), controls=x)
    posterior, at, _ = exact_fit.groups[0].one(0)
    prior = LearnedPrior().grid(int(before.sum()))
    weight = posterior.weight[at].sum(-1).reshape(prior.log_weight.shape)
    phi = np.array([residual.phi for residual in prior.residuals])
    exact, worth = float(weight.sum(1) @ phi), 0.3 * DRAWS
    assert drawn["phi"].mean() == pytest.approx(exact, abs=4 * drawn["phi"].std() / worth**0.5)
    stays = float(weight[:, 0].sum())
    found = (drawn["level"] < 1e-3 * drawn["residual"]).mean()
    assert found == pytest.approx(stays, abs=4 * np.sqrt(stays * (1 - stays) / worth))
    assert (drawn["residual"] ** 2).mean() == pytest.approx(posterior.mean_variance()[at], rel=0.03)


@pytest.mark.parametrize("prior", [R, LearnedPrior()])
def test_three_of_eleven_controls_are_found(prior):
    """What a peer misses: it gives true controls 0.01 to 0.19 where there are three or more."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(140, 11))
    x[:, 3] = 0.8 * x[:, 0] + 0.6 * x[:, 3]
    y = (x[:, :3] @ [1.0, -0.7, 0.5] + 0.5 * rng.normal(size=140))[None]
    before = np.arange(140) < 100
    fit = fit_structural(y, before, StructuralModel(prior=prior), controls=x)
    assert fit.engine is Engine.GIBBS
    shares = fit.inclusion()[0]
    assert (shares[:3] > 0.97).all()
    assert (shares[3:] < 0.3).all()


def test_outliers_make_student_intervals_narrower_and_they_cover():
    rng = np.random.default_rng(6)
    y = rng.normal(size=(1, 160))
    y[0, rng.choice(120, 8, replace=False)] += 8.0 * rng.choice([-1, 1], 8)
    before = np.arange(160) < 120
    widths, degrees = [], []
    for heavy in (False, True):
        model = StructuralModel(prior=R, heavy_tails=heavy)
        effect, plain, _, fit = chains(model, y, before)
        low, high = np.quantile(plain, [0.025, 0.975])
        widths.append(high - low)
        ends = np.quantile(effect, [0.025, 0.975])
        assert ends[0] < 0.0 < ends[1]
        degrees.append(np.median(fit.parameters(0, draws=DRAWS, seed=1)["degrees"]))
    assert widths[1] < 0.85 * widths[0]
    assert degrees[1] < 6.0
