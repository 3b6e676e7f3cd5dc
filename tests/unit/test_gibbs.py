"""The parts of the engine gibbs against dense algebra, enumeration and known laws."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from eocausal.errors import EstimationError, OutcomeError
from eocausal.estimators import gibbs, gibbs_run
from eocausal.estimators.gibbs import fit_gibbs
from eocausal.estimators.gibbs_convergence import effective_draws, r_hat
from eocausal.estimators.gibbs_gauss import Gaussian
from eocausal.estimators.gibbs_priors import Coordinate, Values, gibbs_prior
from eocausal.estimators.gibbs_slice import slice_step
from eocausal.estimators.gibbs_states import build_states
from eocausal.estimators.gibbs_student import Tails
from eocausal.estimators.spike_slab import choose_columns, log_evidence
from eocausal.estimators.structural import fit_structural
from eocausal.estimators.structural_model import Engine, Season, StructuralModel, Trend
from eocausal.estimators.structural_priors import CompatiblePrior, LearnedPrior

TIMES = 30
RNG = np.random.default_rng(0)
X = RNG.normal(size=(TIMES, 2))
SEEN = np.ones(TIMES, bool)
SEEN[[4, 5, 6, 17, 27, 28, 29]] = False
R = CompatiblePrior()
VALUES = Values(0.7, 0.0, 0.09, 0.04, 0.6, (0.05, 0.03), (0.02, 0.06))
NONE = np.array([], dtype=int)


def whole(states, values):
    """Prior covariance of states and coefficients, dense; flat parts get a precision near zero."""
    size, width = states.size, states.columns.shape[1]
    precision = np.zeros((size + width, size + width))
    for term in states.terms:
        precision[:size, :size] += term.weight(values) * term.matrix.toarray()
    for term in states.column_terms:
        precision[size:, size:] += term.weight(values) * term.matrix.toarray()
    at = size + states.static
    precision[np.ix_(at, at)] += states.information / values.residual
    if states.cross is not None:
        precision[:size, size:] += states.cross
        precision[size:, :size] += states.cross.T
    return np.linalg.inv(precision)


MODELS = {
    "level": StructuralModel(prior=R),
    "season": StructuralModel(season=5, prior=R),
    "seasons": StructuralModel(season=(Season(4), Season(3, duration=5)), prior=R),
    "cycles": StructuralModel(season=(Season(6, harmonics=3), Season(5, 2, 1)), prior=R),
    "fixed": StructuralModel(season=(Season(4, 2, changes=False), Season(5, 1, 2)), prior=R),
    "local linear": StructuralModel(trend=Trend.LOCAL_LINEAR, prior=R),
    "semi-local": StructuralModel(trend=Trend.SEMI_LOCAL, season=4, prior=R),
    "dynamic": StructuralModel(dynamic=True, prior=R),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_evidence_is_the_dense_normal_density(name):
    model = MODELS[name]
    y = np.random.default_rng(1).normal(size=TIMES)
    states = build_states(TIMES, X, np.ones(TIMES, bool), model, NONE)
    gaussian = Gaussian(states, y, SEEN, correlated=False)
    included = np.ones(len(states.static), bool)
    weights = np.linspace(0.5, 1.5, TIMES)
    gaussian.observe(weights)
    design = np.zeros((TIMES, states.size + states.columns.shape[1]))
    for slot in range(states.where.shape[1]):
        design[np.arange(TIMES), states.where[:, slot]] += states.loads[:, slot]
    design[:, states.size :] = states.columns

    def both(values):
        log_det, squares = gaussian.squares(gaussian.condition(values), included, values)
        cov = design @ whole(states, values) @ design.T
        cov = cov + np.diag(values.residual / weights**2)
        dense = stats.multivariate_normal(cov=cov[np.ix_(SEEN, SEEN)]).logpdf(y[SEEN])
        return log_det - 0.5 * squares, dense

    first, dense_first = both(VALUES)
    other = Values(0.3, 0.0, 0.2, 0.01, -0.4, (0.02, 0.2), (0.1, 0.01))
    second, dense_second = both(other)
    assert second - first == pytest.approx(dense_second - dense_first, abs=1e-8)


def test_draws_have_the_dense_conditional_law():
    model = MODELS["semi-local"]
    y = np.random.default_rng(2).normal(size=TIMES)
    states = build_states(TIMES, X, np.ones(TIMES, bool), model, NONE)
    gaussian = Gaussian(states, y, SEEN, correlated=False)
    included = np.ones(3, bool)
    law = gaussian.condition(VALUES)
    rng = np.random.default_rng(3)
    drawn = np.array(
        [gaussian.expected(*gaussian.draw(law, included, VALUES, 1.0, rng)) for _ in range(4000)]
    )
    design = np.zeros((TIMES, states.size + states.columns.shape[1]))
    for slot in range(states.where.shape[1]):
        design[np.arange(TIMES), states.where[:, slot]] += states.loads[:, slot]
    design[:, states.size :] = states.columns
    cov = design @ whole(states, VALUES) @ design.T
    gain = cov[:, SEEN] @ np.linalg.inv(cov[np.ix_(SEEN, SEEN)] + 0.7 * np.eye(SEEN.sum()))
    mean, left = gain @ y[SEEN], cov - gain @ cov[SEEN]
    sd = np.sqrt(np.diag(left))
    assert np.abs((drawn.mean(0) - mean) / sd * np.sqrt(4000)).max() < 4.5
    assert drawn.std(0) == pytest.approx(sd, rel=0.06)
    assert np.corrcoef(drawn[:, 10], drawn[:, -1])[0, 1] == pytest.approx(
        left[10, -1] / sd[10] / sd[-1], abs=0.07
    )


def test_gaps_of_a_correlated_residual_integrate_out():
    """Evidence with residuals of gaps as states, against the covariance of what was seen."""
    model = StructuralModel(season=Season(4, harmonics=1))
    gaps = np.array([4, 5, 6, 17])
    y = np.random.default_rng(4).normal(size=TIMES)
    states = build_states(TIMES, X, np.ones(TIMES, bool), model, gaps)
    gaussian = Gaussian(states, y, SEEN, correlated=True)
    included = np.array([True, False])
    use = np.flatnonzero(SEEN)

    def both(phi, level):
        values = Values(1.0, phi, level, 0.0, 0.0, (), ())
        log_det, squares = gaussian.squares(gaussian.condition(values), included, values)
        mine = log_det - 0.5 * gaussian.freedom * np.log(squares)
        cov = phi ** np.abs(np.subtract.outer(use, use)) + level * np.minimum.outer(use, use)
        flat = np.column_stack([np.ones(TIMES), states.columns[:, :2]])[use]
        column = X[use, :1]
        cov = cov + column @ column.T / states.information[0, 0]
        inverse = np.linalg.inv(cov)
        inner = flat.T @ inverse @ flat
        rest = inverse - inverse @ flat @ np.linalg.solve(inner, flat.T @ inverse)
        square = y[use] @ rest @ y[use]
        dense = -0.5 * np.linalg.slogdet(cov)[1] - 0.5 * np.linalg.slogdet(inner)[1]
        return mine, dense - 0.5 * (len(use) - 3) * np.log(square)

    one, two = both(0.6, 0.05), both(0.0, 0.4)
    assert gaussian.freedom == len(use) - 3
    assert two[0] - one[0] == pytest.approx(two[1] - one[1], abs=1e-8)


def test_columns_are_chosen_as_by_enumeration():
    rng = np.random.default_rng(5)
    z = rng.normal(size=(40, 4))
    z[:, 1] = 0.8 * z[:, 0] + 0.6 * z[:, 1]
    y = 0.4 * z[:, 0] + rng.normal(size=40)
    gram, signal, prior = z.T @ z, z.T @ y, 0.5 * np.eye(4)
    for settings in ({}, {"total": float(y @ y), "freedom": 40}):
        sets = np.array(np.meshgrid(*[[False, True]] * 4)).reshape(4, -1).T
        heights = [
            log_evidence(s, gram, signal, prior, **settings)
            + s.sum() * np.log(0.3) + (~s).sum() * np.log(0.7)
            for s in sets
        ]  # fmt: skip
        weight = np.exp(np.array(heights) - max(heights))
        wanted = weight @ sets / weight.sum()
        included, seen = np.zeros(4, bool), []
        for _ in range(1500):
            included = choose_columns(included, gram, signal, prior, 0.3, rng, **settings)
            seen.append(included)
        assert np.mean(seen, axis=0) == pytest.approx(wanted, abs=0.06)


def test_slices_find_a_gamma_law_and_places_on_a_grid():
    rng = np.random.default_rng(6)
    at, height = 0.0, -1.0
    drawn = []
    for _ in range(4000):
        at, height = slice_step(at, height, lambda u: 3 * u - np.exp(u), 1.0, (-50.0, 50.0), rng)
        drawn.append(at)
    assert stats.kstest(np.exp(drawn[::4]), stats.gamma(3.0).cdf).pvalue > 0.001
    share = np.log([0.1, 0.5, 0.2, 0.2])
    at, height = 0.5, share[0]
    places = []
    for _ in range(4000):
        at, height = slice_step(at, height, lambda u: share[int(u)], 2.0, (0.0, 4.0), rng)
        places.append(int(at))
    assert np.bincount(places) / 4000 == pytest.approx(np.exp(share), abs=0.04)


@pytest.mark.parametrize("phi", [0.0, 0.6])
def test_tails_keep_the_law_they_were_drawn_from(phi):
    """Geweke's check: precisions, degrees and residuals drawn in turn keep their joint prior."""
    rng = np.random.default_rng(7)
    prior = Coordinate("degrees", np.log(2.0), np.log(60.0), (1.0, 3.0), lambda u: 0.0)
    tails = Tails(prior, 2.0, np.ones(12), np.arange(12) != 5)
    degrees, precision = [], []
    for _ in range(4000):
        a = np.empty(12)
        a[0] = rng.normal()
        for t in range(1, 12):
            a[t] = phi * a[t - 1] + np.sqrt(1 - phi**2) * rng.normal()
        residual = 1.7 * a / np.sqrt(tails.precision)
        tails.step(residual, 1.7, phi, rng)
        degrees.append(tails.log_degrees)
        precision.append(tails.precision[[0, 5, 8]])
    uniform = (np.array(degrees) - prior.low) / (prior.high - prior.low)
    worth = effective_draws(uniform.reshape(4, -1))
    assert uniform.mean() == pytest.approx(0.5, abs=4 * np.sqrt(1 / 12 / worth))
    assert (uniform < 0.25).mean() == pytest.approx(0.25, abs=4 * np.sqrt(0.19 / worth))
    precision = np.array(precision)
    assert (precision[:, 1] == 1.0).all()
    scale = np.exp(-np.array(degrees))
    assert precision[:, 0].mean() == pytest.approx(1.0, abs=0.1)
    assert ((precision[:, 2] - 1.0) ** 2).mean() == pytest.approx(2 * scale.mean(), rel=0.4)


def test_r_hat_and_effective_draws_know_what_they_should():
    rng = np.random.default_rng(8)
    plain = rng.normal(size=(4, 1000))
    assert r_hat(plain) < 1.01
    assert 3000 < effective_draws(plain) < 5500
    apart = plain + np.array([0.0, 0.0, 0.0, 1.0])[:, None]
    assert r_hat(apart) > 1.1
    wide = plain * np.array([1.0, 1.0, 1.0, 3.0])[:, None]
    assert r_hat(wide) > 1.05
    slow = np.empty((4, 4000))
    slow[:, 0] = rng.normal(size=4)
    for t in range(1, 4000):
        slow[:, t] = 0.9 * slow[:, t - 1] + np.sqrt(0.19) * rng.normal(size=4)
    assert effective_draws(slow) == pytest.approx(16000 / 19, rel=0.3)
    assert r_hat(np.ones((4, 10))) == 1.0


@pytest.mark.parametrize("model", [*MODELS.values(), StructuralModel(season=Season(4, changes=True),
                                   dynamic=True, trend=Trend.SEMI_LOCAL)])  # fmt: skip
def test_priors_are_bounded_and_say_what_coordinates_mean(model):
    prior = gibbs_prior(model, 40, np.ones(2))
    middle = [0.5 * (c.start[0] + c.start[1]) for c in prior.coordinates]
    assert np.isfinite(prior.log_density(middle))
    outside = [*middle]
    outside[0] = prior.coordinates[0].high
    assert prior.log_density(outside) == -np.inf
    values = prior.values(middle)
    assert values.residual > 0
    assert values.level > 0
    assert len(values.seasons) == sum(bool(s.changes) for s in model.seasons)
    assert len(values.coefficients) == 2 * model.dynamic


@pytest.fixture
def brief(monkeypatch):
    """Few sweeps, whether or not the chains agree."""
    monkeypatch.setattr(gibbs, "DRAWS", 40)
    monkeypatch.setattr(gibbs_run, "DOUBLINGS", 0)
    monkeypatch.setattr(gibbs_run, "TUNING", 15)


def short(model, y, before, **options):
    return fit_structural(y, before, dataclasses.replace(model, engine=Engine.GIBBS), **options)


@pytest.mark.usefixtures("brief")
@pytest.mark.filterwarnings("ignore:The chains of series")
def test_the_same_seed_gives_the_same_draws_in_any_batch():
    before = np.arange(TIMES) < 24
    y = 3.0 + np.random.default_rng(9).normal(size=(3, TIMES))
    batch = short(StructuralModel(), y, before)
    alone = short(StructuralModel(), y[2:], before)
    first = batch.paths(2, draws=50, seed=4, key=1)
    again = alone.paths(0, draws=50, seed=4, key=1)
    assert np.array_equal(first.replicate, again.replicate)
    other = alone.paths(0, draws=50, seed=5, key=1)
    assert not np.array_equal(first.replicate, other.replicate)
    assert first.replicate.shape == (50, TIMES)
    assert batch.convergence(2, draws=50, seed=4, key=1).kept >= 50


@pytest.mark.usefixtures("brief")
@pytest.mark.filterwarnings("ignore:The chains of series")
def test_what_cannot_be_fitted_is_refused_and_missing_controls_are_left_out():
    before = np.arange(TIMES) < 24
    y = np.random.default_rng(10).normal(size=(2, TIMES))
    y[0, :24] = 5.0
    x = X.copy()
    x[26, 1] = np.nan
    fit = fit_gibbs(y, before, StructuralModel(prior=R), controls=x)
    assert "5 at all times" in fit.refused[0]
    with pytest.raises(OutcomeError, match="at all times"):
        fit.paths(0)
    average = fit.average(~before)
    assert np.isnan(average.estimate[0])
    assert average.n[1] == 5
    paths = fit.paths(1, draws=20)
    assert np.isnan(paths.replicate[:, 26]).all()
    assert np.isfinite(np.delete(paths.replicate, 26, 1)).all()
    assert np.isnan(fit.inclusion()[0]).all()
    with pytest.warns(UserWarning, match="do not agree"):
        fit.paths(1, draws=41)
    with pytest.raises(EstimationError, match="does not vary"):
        fit_gibbs(y, before, StructuralModel(), controls=np.ones((TIMES, 1)))
    assert LearnedPrior() == fit_gibbs(y, before, StructuralModel()).model.prior
