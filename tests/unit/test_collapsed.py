"""The engine ``collapsed``: densities written out in full, sampling, and fits that make sense."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from eocausal.errors import EstimationError, OutcomeError
from eocausal.estimators import components, structural_priors
from eocausal.estimators.collapsed import fit_collapsed
from eocausal.estimators.collapsed_bands import Layout, Ratios, bands_of
from eocausal.estimators.collapsed_group import Columns, Group
from eocausal.estimators.collapsed_importance import sample
from eocausal.estimators.collapsed_parts import Dummies, Harmonics, Level, Slope
from eocausal.estimators.collapsed_sets import eliminated
from eocausal.estimators.season_effects import season_responses, season_starts
from eocausal.estimators.structural import fit_structural
from eocausal.estimators.structural_model import Engine, Season, StructuralModel, Trend
from eocausal.estimators.structural_priors import CompatiblePrior, LearnedPrior

N = 60
RNG = np.random.default_rng(3)
X = RNG.normal(size=(N, 3))
OWN = np.array([0.7, 1.3])
LOOKS = np.linspace(0.5, 2.0, N)

PARTS = {
    "level": ((Level(),), ((2.0,),)),
    "local linear": ((Level(), Slope()), ((2.0,), (0.3,))),
    "dummies": ((Level(), Dummies(12)), ((2.0,), (1.0,) * 11)),
    "harmonics": ((Level(), Harmonics(12, 2)), ((2.0,), (0.5,) * 4)),
    "all harmonics": ((Level(), Harmonics(6, 3)), ((2.0,), (0.5,) * 5)),
    "two seasons and a slope": (
        (Level(), Slope(), Dummies(5), Harmonics(7, 1)),
        ((2.0,), (0.3,), (1.0,) * 4, (0.5,) * 2),
    ),
    "a season longer than half the record": ((Level(), Dummies(40)), ((2.0,), (1.0,) * 39)),
}  # fmt: skip


def states(layout, ratios, row):
    """Components of the same model, apart from durations, which they do not know."""
    parts = []
    for at, (part, var) in enumerate(zip(layout.parts, layout.start_vars, strict=True)):
        size, start = float(ratios.parts[row, at]), float(ratios.start[row] * var[0])
        if isinstance(part, Level):
            parts.append(components.local_level(size, start_var=start))
        elif isinstance(part, Slope):
            parts.append(
                components.local_linear_trend(0.0, size, start_var=0.0, slope_start_var=start)
            )
        elif isinstance(part, Dummies):
            parts.append(components.seasonal_dummies(part.period, size, start_var=start))
        else:
            parts.append(
                components.seasonal_harmonics(
                    part.period, size, harmonics=part.count, start_var=start
                )
            )
    rho, phi = float(ratios.rho[row]), float(ratios.phi[row])
    if layout.returning is not None:
        first = float(ratios.start[row] * layout.returning)
        parts.append(
            components.semi_local_trend(
                0.0, float(ratios.slope[row]), rho, start_var=0.0, slope_start_var=first,
                long_run_var=0.0,
            )
        )  # fmt: skip
    if layout.autocorrelated:
        parts.append(components.autoregressive(phi, 1.0 - phi**2))
        return components.combine(parts, 0.0), np.sqrt(layout.variances())
    return components.combine(parts, torch.tensor(layout.variances())), np.ones(layout.times)


def covariance(layout, ratios, row):
    """Covariance of the values from transition, noise and design of the states."""
    model, root = states(layout, ratios, row)
    f, q = model.transition.numpy(), model.state_cov.numpy()
    n, p = layout.times, model.cov.numpy()
    z = model.design.numpy()[0].copy()
    out = np.zeros((n, n))
    scaled = np.ones((n, 1)) * z
    if layout.autocorrelated:
        scaled[:, -1] *= root
    for t in range(n):
        block = p
        for s in range(t, n):
            out[s, t] = out[t, s] = scaled[s] @ block @ scaled[t]
            block = f @ block
        p = f @ p @ f.T + q
    return out + np.diag(np.broadcast_to(model.obs_var.numpy(), n))


def points(layout, seed):
    rng = np.random.default_rng(seed)
    shape = (2, len(layout.parts))
    autocorrelated, returning = layout.autocorrelated, layout.returning is not None
    return Ratios(
        np.exp(rng.uniform(-7, -1, shape)),
        np.exp(rng.uniform(-6, -2, 2)) * returning,
        rng.uniform(0.5, 2, 2),
        rng.uniform(0, 0.9, 2) * autocorrelated,
        rng.uniform(-0.5, 0.9, 2) * returning,
    )


def columns(long_run=None):
    included = np.array([[False], [True]])
    precision = np.diag([0.0, 0.4, 0.8])
    return Columns(X, 2, precision, included, np.log([0.3, 0.7]), long_run)


def drift(rho):
    """What a long-run slope of one adds to the level, step by step."""
    level, slope, out = 0.0, 0.0, []
    for _ in range(N):
        out.append(level)
        level, slope = level + slope, slope + (1 - rho) * (1 - slope)
    return np.array(out)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("autocorrelated", [False, True])
@pytest.mark.parametrize("gaps", [False, True])
def test_densities_equal_the_normal_written_out(name, autocorrelated, gaps):
    check(Layout(*PARTS[name], None, autocorrelated, N), gaps)


@pytest.mark.parametrize("name", ["level", "dummies", "harmonics", "all harmonics"])
@pytest.mark.parametrize("autocorrelated", [False, True])
@pytest.mark.parametrize("gaps", [False, True])
def test_densities_of_a_semi_local_trend_equal_the_normal(name, autocorrelated, gaps):
    check(Layout(*PARTS[name], 0.6, autocorrelated, N), gaps)


@pytest.mark.parametrize("autocorrelated", [False, True])
def test_densities_with_variances_that_change_equal_the_normal(autocorrelated):
    parts, starts = PARTS["dummies"]
    check(Layout(parts, starts, None, autocorrelated, N, LOOKS.tobytes()), True)


@pytest.mark.parametrize("part", [Dummies(4, 3), Harmonics(7, 2, 2), Dummies(3), Slope()])
def test_polynomials_leave_recent_shocks_and_maps_agree(part):
    polynomial, h = part.polynomial(), part.responses(N)
    for response in h:
        left = np.array([np.convolve(polynomial, column)[:N] for column in response.T]).T
        for shock in left.T:
            times = np.flatnonzero(np.abs(shock) > 1e-9)
            assert not len(times) or np.ptp(times) < len(polynomial) - 1
    starts = np.array([np.convolve(polynomial, column)[:N] for column in part.starts(N).T])
    assert np.abs(starts[:, len(polynomial) - 1 :]).max() < 1e-9
    v = RNG.normal(size=(2, N))
    whole = sum(response @ response.T for response in h)
    assert part.spread(v) == pytest.approx(v @ whole, abs=1e-8)
    z = RNG.normal(size=(4000, part.shocks, N))
    sd = np.sqrt(np.maximum(np.diagonal(whole), 1.0))
    gap = np.abs(part.path(z).T @ part.path(z) / 4000 - whole)
    assert (gap / np.outer(sd, sd)).max() < 5 * np.sqrt(2 / 4000)


def check(layout, gaps):
    ratios = points(layout, 1)
    seen = np.ones(N, bool)
    if gaps:
        seen[[0, 1, 7, 20, 21, 22, 23, 24, 58]] = False
    y = np.random.default_rng(2).normal(size=(2, N)).cumsum(1) * 0.3
    slope = None if layout.returning is None else 0.8
    group = Group(
        bands_of(layout), seen, columns(slope), y,
        scale_known=True, lost=0, layout=layout, ahead=np.zeros((2, N)),
    )  # fmt: skip
    total, kept = group.sampled(ratios, OWN, np.arange(2), keep=True)
    found = group.unpacked(kept)[0]
    assert total == pytest.approx(np.logaddexp(found[:, 0], found[:, 1]))
    for row in range(2):
        v = covariance(layout, ratios, row) * OWN[row]
        if slope is not None:
            d = drift(ratios.rho[row])
            v = v + slope * np.outer(d, d)
        for at, chosen in enumerate(columns().included):
            cov = v + OWN[row] / 0.4 * np.outer(X[:, 1], X[:, 1])
            if chosen[0]:
                cov = cov + OWN[row] / 0.8 * np.outer(X[:, 2], X[:, 2])
            expected = flat_density(y[row, seen], cov[np.ix_(seen, seen)], X[seen, 0])
            expected += columns().log_prior[at]
            assert found[row, at] == pytest.approx(expected, abs=1e-8)


def flat_density(y, cov, x):
    """Log density with the coefficient of x integrated over a flat prior."""
    root = np.linalg.cholesky(cov)
    y, x = np.linalg.solve(root, np.stack([y, x], 1)).T
    own = x @ x
    rest = y @ y - (x @ y) ** 2 / own
    size = (len(y) - 1) * np.log(2 * np.pi) + np.log(own) + rest
    return -0.5 * size - np.log(np.diagonal(root)).sum()


def test_seasonal_responses_follow_the_recursion():
    responses = season_responses(4, 12)
    shocks = np.random.default_rng(3).normal(size=12)
    shocks[0] = 0.0
    path = responses @ shocks
    for t in range(3, 12):
        assert path[t - 3 : t + 1].sum() == pytest.approx(shocks[t])
    start = season_starts(4, 12)
    assert start[0] == pytest.approx([1.0, 0.0, 0.0])
    assert start[1] == pytest.approx([-1.0, -1.0, -1.0])
    assert np.abs(start[1:5].sum(0)).max() < 1e-12


def test_elimination_goes_through_all_sets():
    matrix = np.cov(RNG.normal(size=(50, 5)).T)[None]
    left, log_det = eliminated(matrix, 1, 2)
    for at, chosen in enumerate([[0], [0, 2], [0, 1], [0, 1, 2]]):
        inside = matrix[0][np.ix_(chosen, chosen)]
        cross = matrix[0][np.ix_(chosen, [3, 4])]
        rest = matrix[0, 3:, 3:] - cross.T @ np.linalg.solve(inside, cross)
        assert left[0, at] == pytest.approx(rest)
        assert log_det[0, at] == pytest.approx(np.linalg.slogdet(inside)[1])


def test_importance_sampling_integrates_a_skewed_density():
    def target(x, series, keep):
        first = stats.norm(series * 3.0, 0.1).logpdf(x[:, 0])
        return first + stats.loggamma(2.0).logpdf(x[:, 1] - x[:, 0]) + 5.0, x

    box = np.array([[[-1, 7], [-4, 4]]] * 3, float)
    found = sample(target, box, np.array([0.0, 0.5]), 3, seed=1)
    weight = np.exp(found.log_weight)
    assert np.log(weight.sum(1)) == pytest.approx([5.0] * 3, abs=0.05)
    weight /= weight.sum(1, keepdims=True)
    assert (weight * found.x[..., 0]).sum(1) == pytest.approx([0.0, 3.0, 6.0], abs=0.02)
    gap = (weight * (found.x[..., 1] - found.x[..., 0])).sum(1)
    assert gap == pytest.approx([stats.loggamma(2.0).mean()] * 3, abs=0.06)
    assert (found.effective > 60).all()
    assert np.array_equal(found.kept, found.x)


TIMES = 96
BEFORE = np.arange(TIMES) < 72
CONTROLS = np.random.default_rng(7).normal(size=(TIMES, 2))
OURS, THEIRS = LearnedPrior(), CompatiblePrior()
MODELS = {
    "season": StructuralModel(season=Season(4, changes=True)),
    "season of CausalImpact": StructuralModel(season=4, prior=THEIRS),
    "harmonics": StructuralModel(season=Season(12, harmonics=2), prior=THEIRS),
    "two seasons": StructuralModel(season=(Season(4, 2), Season(3)), prior=THEIRS),
    "local linear": StructuralModel(trend=Trend.LOCAL_LINEAR),
    "local linear of CausalImpact": StructuralModel(trend=Trend.LOCAL_LINEAR, prior=THEIRS),
    "semi-local and a fixed season": StructuralModel(season=4, trend=Trend.SEMI_LOCAL),
    "semi-local of CausalImpact": StructuralModel(trend=Trend.SEMI_LOCAL, prior=THEIRS),
}


def series(count=3, effect=0.0):
    rng = np.random.default_rng(1)
    t = np.arange(TIMES)
    season = np.array([0.6, -0.2, -0.8, 0.4])[t % 4]
    y = 10.0 + CONTROLS @ [1.0, 0.5] + season + 0.3 * rng.normal(size=(count, TIMES))
    return y + effect * ~BEFORE


@pytest.mark.parametrize("name", MODELS)
def test_a_planted_effect_is_found_and_draws_follow_the_law(name):
    found = fit_structural(series(effect=2.0), BEFORE, MODELS[name], controls=CONTROLS)
    assert found.engine is Engine.COLLAPSED
    average = found.average(~BEFORE)
    assert (average.ci_low < 2.0).all()
    assert (average.ci_high > 2.0).all()
    draws = 1500
    paths = found.paths(2, draws=draws, seed=1)
    drawn = (series(effect=2.0)[2] - paths.replicate)[:, ~BEFORE].mean(1)
    error = drawn.std() / draws**0.5
    assert drawn.mean() == pytest.approx(average.estimate[2], abs=4 * error)
    assert np.quantile(drawn, 0.9) - np.quantile(drawn, 0.1) == pytest.approx(
        2 * 1.2816 * drawn.std(), rel=0.25
    )
    low, high = found.average(~BEFORE, level=0.8).ci_low[2], average.ci_low[2]
    assert (drawn < low).mean() == pytest.approx(0.1, abs=0.035)
    assert (drawn < high).mean() == pytest.approx(0.025, abs=0.02)
    residual = series()[2] - paths.expected
    assert 0.2 < residual[:, BEFORE].std(1).mean() < 0.75
    assert paths.replicate[:, BEFORE].std(0).mean() > paths.expected[:, BEFORE].std(0).mean()


def test_states_drawn_at_one_point_equal_the_smoothed_states():
    model = MODELS["season of CausalImpact"]
    y = series()
    y[:, 30:36] = np.nan
    found = fit_collapsed(y, BEFORE, model)
    posterior = found.posteriors[0]
    at = int(posterior.weight.sum(1).argmax())
    weight = np.zeros_like(posterior.weight)
    weight[at] = 1.0
    one = replace(found, posteriors=(replace(posterior, weight=weight),))
    paths = one.paths(0, draws=6000, seed=3)
    z = (y[0] - found.center[0]) / found.scale[0] - posterior.offset
    cov = covariance(
        replace(posterior.layout, times=TIMES), posterior.ratios.take(np.array([at])), 0
    )
    own = posterior.own[at]
    states_cov = own * (cov - np.eye(TIMES))
    seen = np.isfinite(z) & BEFORE
    inner = np.linalg.solve(own * cov[np.ix_(seen, seen)], states_cov[seen])
    mean, spread = inner.T @ z[seen], states_cov - inner.T @ states_cov[seen]
    drawn = (paths.expected - found.center[0]) / found.scale[0] - posterior.offset
    sd = np.sqrt(np.diagonal(spread))
    assert np.abs((drawn.mean(0) - mean) / sd).max() < 5 / 6000**0.5
    assert np.abs(np.cov(drawn.T) - spread).max() < 0.1 * np.diagonal(spread).max()


def test_draws_do_not_depend_on_those_that_follow_or_on_the_batch():
    y = series()
    together = fit_structural(y, BEFORE, MODELS["season"], controls=CONTROLS)
    alone = fit_structural(y[1:2], BEFORE, MODELS["season"], controls=CONTROLS)
    few, many = (together.paths(1, draws=d, seed=5, key=9) for d in (70, 200))
    assert few.replicate == pytest.approx(many.replicate[:70], rel=1e-9)
    other = alone.paths(0, draws=70, seed=5, key=9)
    assert few.expected == pytest.approx(other.expected, rel=1e-6)
    assert not np.allclose(few.replicate, together.paths(1, draws=70, seed=6, key=9).replicate)


def test_gaps_of_a_series_are_its_own_and_empty_series_are_refused():
    y = series(4)
    y[1, 5:20] = np.nan
    y[1, 80:90] = np.nan
    y[2] = np.nan
    y[3, BEFORE] = 1.5
    model = MODELS["season of CausalImpact"]
    found = fit_structural(y, BEFORE, model, controls=CONTROLS)
    average = found.average(~BEFORE)
    assert sorted(found.refused) == [2, 3]
    assert "0 values" in found.refused[2]
    assert np.isnan(average.estimate[2:]).all()
    assert average.n[:2].tolist() == [24, 14]
    alone = fit_structural(y[1:2], BEFORE, model, controls=CONTROLS).average(~BEFORE)
    assert alone.ci_high[0] == pytest.approx(average.ci_high[1], rel=1e-6)
    with pytest.raises(OutcomeError, match="0 values"):
        found.paths(2)


def test_missing_controls_and_units():
    y, x = series(), CONTROLS.copy()
    x[3, 0] = x[80, 1] = np.nan
    plain = fit_structural(y, BEFORE, MODELS["season of CausalImpact"], controls=x)
    other = fit_structural(100 * y - 7, BEFORE, MODELS["season of CausalImpact"], controls=3 - x)
    average = plain.average(~BEFORE)
    assert (average.n == 23).all()
    assert other.average(~BEFORE).estimate == pytest.approx(100 * average.estimate, rel=1e-3)
    paths = plain.paths(0, draws=10)
    assert np.isnan(paths.replicate[:, [3, 80]]).all()
    assert np.isfinite(np.delete(paths.replicate, [3, 80], axis=1)).all()


@pytest.mark.parametrize(
    "model",
    [
        StructuralModel(),
        StructuralModel(trend=Trend.LINE, season=Season(4, harmonics=1)),
        StructuralModel(prior=THEIRS),
    ],
)
def test_what_a_fine_grid_can_do_too_is_the_same(model, monkeypatch):
    monkeypatch.setattr(structural_priors, "PHI", tuple(np.arange(-0.34, 0.985, 0.02) + 1e-9))
    monkeypatch.setattr(structural_priors, "STEPS", tuple(np.geomspace(0.01, 3.0, 40)))
    y = series()
    y[:, 40:44] = np.nan
    fits = [
        fit_structural(y, BEFORE, replace(model, engine=engine), controls=CONTROLS, seed=seed)
        for engine, seed in ((Engine.GRID, 0), *((Engine.COLLAPSED, s) for s in range(4)))
    ]
    exact, *sampled = (fit.average(~BEFORE) for fit in fits)
    for name in ("estimate", "ci_low", "ci_high"):
        values = np.array([getattr(average, name) for average in sampled])
        spread = values.std(0, ddof=1) / 2.0
        tolerance = np.maximum(4.0 * spread, 0.03 * exact.std_error)
        assert (np.abs(values.mean(0) - getattr(exact, name)) < tolerance).all()
    shares = np.mean([fit.inclusion() for fit in fits[1:]], axis=0)
    assert shares == pytest.approx(fits[0].inclusion(), abs=0.02)


def test_noisier_times_count_less():
    rng = np.random.default_rng(3)
    variance = np.where(np.arange(TIMES) % 2 == 0, 1.0, 100.0)
    y = rng.normal(size=(3, TIMES)) * np.sqrt(variance)
    clear = ~BEFORE & (variance == 1.0)
    for model in (MODELS["season"], MODELS["season of CausalImpact"]):
        plain = fit_structural(y, BEFORE, model).average(clear)
        known = fit_structural(y, BEFORE, model, variance=variance).average(clear)
        assert known.std_error.mean() < 0.5 * plain.std_error.mean()


def test_what_cannot_be_is_refused():
    with pytest.raises(EstimationError, match="semi-local trend"):
        fit_structural(
            series(), BEFORE, StructuralModel(trend=Trend.SEMI_LOCAL), variance=LOOKS_LONG
        )
    with pytest.raises(EstimationError, match="No time before"):
        fit_structural(series(), BEFORE, MODELS["season"], controls=np.full((TIMES, 1), np.nan))


LOOKS_LONG = np.linspace(1.0, 2.0, TIMES)
