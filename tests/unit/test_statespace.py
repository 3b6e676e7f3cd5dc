"""State space models against the normal density and the normal conditional, written out in full."""

import numpy as np
import pytest
import torch

from eocausal.errors import EstimationError
from eocausal.estimators import components as parts
from eocausal.estimators.smoothing import Noise, draw_states, simulate, smooth
from eocausal.estimators.statespace import filter_series, forecast, log_likelihood

TIMES = 30
X = torch.tensor(np.random.default_rng(5).normal(size=(TIMES, 2)))
TWO = {"mean": torch.tensor([0.3, -0.2]).double(), "cov": torch.tensor([[2.0, 0.3], [0.3, 1.0]])}
TWO = {name: value.double() for name, value in TWO.items()}
LEVEL = parts.local_level(0.2, start=1.0, start_var=3.0)

MODELS = {
    "level": [LEVEL],
    "trend": [parts.local_linear_trend(0.1, 0.02, start_var=2.0, slope_start_var=0.3)],
    "semi-local": [
        parts.semi_local_trend(
            0.1, 0.05, 0.6, start_var=2.0, slope_start_var=0.3, long_run_slope=0.1, long_run_var=0.2
        )
    ],
    "dummies": [LEVEL, parts.seasonal_dummies(4, 0.05, start_var=1.0)],
    "harmonics": [LEVEL, parts.seasonal_harmonics(12, 0.01, start_var=0.5)],
    "two seasons": [
        LEVEL,
        parts.seasonal_harmonics(7.5, 0.02, harmonics=2, start_var=0.5),
        parts.seasonal_dummies(5, 0.03, start_var=1.0),
    ],
    "autoregressive": [parts.autoregressive(0.7, 0.4)],
    "level and autoregressive": [LEVEL, parts.autoregressive(0.5, 0.4)],
    "regression": [LEVEL, parts.regression(X, **TWO)],
    "dynamic regression": [parts.dynamic_regression(X, torch.tensor([0.1, 0.3]).double(), **TWO)],
}


def dense(model, times=TIMES):
    """Mean and covariance of all states, stacked over time, and the matrix that observes them."""
    f, q = model.transition.numpy(), model.state_cov.numpy()
    d = model.size
    mean, cov = np.zeros(times * d), np.zeros((times * d, times * d))
    m, p = model.mean.numpy(), model.cov.numpy()
    for t in range(times):
        block = p
        mean[t * d : (t + 1) * d] = m
        for s in range(t, times):
            cov[s * d : (s + 1) * d, t * d : (t + 1) * d] = block
            cov[t * d : (t + 1) * d, s * d : (s + 1) * d] = block.T
            block = f @ block
        m, p = f @ m, f @ p @ f.T + q
    observe = np.zeros((times, times * d))
    for t in range(times):
        observe[t, t * d : (t + 1) * d] = model.design_at(t).numpy()
    return mean, cov, observe


def series(seed, count=4, share=0.3):
    """Series with gaps of their own, one of them at the start and one at the end."""
    rng = np.random.default_rng(seed)
    y = rng.normal(1.0, 2.0, (count, TIMES))
    y[rng.random(y.shape) < share] = np.nan
    y[0, :3] = np.nan
    y[1, -5:] = np.nan
    return y


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("varying", [False, True])
def test_density_and_states_equal_the_dense_normal(name, varying):
    h = torch.tensor(np.linspace(0.5, 2.0, TIMES)) if varying else 0.7
    model = parts.combine(MODELS[name], h)
    y = series(1)
    mean, cov, observe = dense(model)
    noise = np.diag(np.broadcast_to(np.asarray(h), TIMES))
    total, centre = observe @ cov @ observe.T + noise, observe @ mean
    found = log_likelihood(model, torch.tensor(y)).numpy()
    smoothed = smooth(model, torch.tensor(y))
    for i, row in enumerate(y):
        there = np.isfinite(row)
        v, e = total[np.ix_(there, there)], (row - centre)[there]
        weight = np.linalg.solve(v, e)
        wanted = -0.5 * (e @ weight + np.linalg.slogdet(v)[1] + there.sum() * np.log(2 * np.pi))
        assert found[i] == pytest.approx(wanted, abs=1e-8)
        cross = cov @ observe[there].T
        states = mean + cross @ weight
        assert smoothed.mean[i].numpy().ravel() == pytest.approx(states, abs=1e-8)
        spread = cov - cross @ np.linalg.solve(v, cross.T)
        blocks = [
            spread[t * model.size : (t + 1) * model.size, t * model.size : (t + 1) * model.size]
            for t in range(TIMES)
        ]
        assert smoothed.cov[i].numpy() == pytest.approx(np.stack(blocks), abs=1e-8)


@pytest.mark.parametrize("name", MODELS)
def test_a_draw_is_the_drawn_path_corrected_by_the_conditional_mean(name):
    model = parts.combine(MODELS[name], 0.7)
    y = torch.tensor(series(2))
    noise = Noise.of((4, TIMES), model.size, torch.Generator().manual_seed(0))
    states, values = simulate(model, noise)
    _, cov, observe = dense(model)
    total = observe @ cov @ observe.T + 0.7 * np.eye(TIMES)
    drawn = draw_states(model, y, noise)
    for i in range(4):
        there = np.isfinite(y[i].numpy())
        gain = cov @ observe[there].T @ np.linalg.inv(total[np.ix_(there, there)])
        wanted = states[i].numpy().ravel() + gain @ (y[i] - values[i]).numpy()[there]
        assert drawn[i].numpy().ravel() == pytest.approx(wanted, abs=1e-8)


def test_draws_without_data_have_the_moments_of_the_model():
    model = parts.combine(MODELS["dummies"], 0.7)
    noise = Noise.of((20_000, 12), model.size, torch.Generator().manual_seed(1))
    _, values = simulate(model, noise)
    mean, cov, observe = dense(model, 12)
    wanted = observe @ cov @ observe.T + 0.7 * np.eye(12)
    error = np.cov(values.numpy().T) - wanted
    spread = np.sqrt((np.outer(np.diag(wanted), np.diag(wanted)) + wanted**2) / 20_000)
    assert np.abs(error / spread).max() < 5.0
    assert np.abs(values.numpy().mean(0) - observe @ mean).max() < 0.15


def test_forecast_equals_the_dense_conditional():
    model = parts.combine([LEVEL, parts.regression(X, **TWO)], 0.7)
    y = series(3)[:, :20]
    mean, cov, observe = dense(model)
    total, centre = observe @ cov @ observe.T + 0.7 * np.eye(TIMES), observe @ mean
    found = forecast(model, torch.tensor(y), 10)
    for i, row in enumerate(y):
        there = np.flatnonzero(np.isfinite(row))
        gain = total[20:][:, there] @ np.linalg.inv(total[np.ix_(there, there)])
        assert found.mean[i].numpy() == pytest.approx(
            centre[20:] + gain @ (row - centre[:20])[there], abs=1e-8
        )
        spread = total[20:, 20:] - gain @ total[20:][:, there].T
        assert found.variance[i].numpy() == pytest.approx(np.diag(spread), abs=1e-8)


def test_a_series_does_not_depend_on_its_batch_nor_on_whose_parameters_are_beside_its_own():
    variances = torch.tensor([0.1, 0.5, 2.0, 0.0]).double()
    y = torch.tensor(series(4))
    many = parts.combine(
        [
            parts.local_level(variances, start_var=1.0),
            parts.autoregressive(variances / 4, variances + 0.1),
            parts.seasonal_harmonics(6, variances, start_var=1.0),
            parts.regression(X, **TWO),
        ],
        (variances + 0.3)[:, None],
    )
    together = filter_series(many, y)
    for i, value in enumerate(variances):
        one = parts.combine(
            [
                parts.local_level(float(value), start_var=1.0),
                parts.autoregressive(float(value) / 4, float(value) + 0.1),
                parts.seasonal_harmonics(6, float(value), start_var=1.0),
                parts.regression(X, **TWO),
            ],
            float(value) + 0.3,
        )
        alone = filter_series(one, y[i])
        assert together.log_likelihood[i].item() == pytest.approx(
            alone.log_likelihood.item(), rel=1e-12
        )
        assert torch.allclose(together.filtered[i], alone.filtered, rtol=1e-10, atol=1e-12)


def test_an_empty_series_has_density_one_and_leaves_the_others_alone():
    model = parts.combine([LEVEL], 0.7)
    y = torch.tensor(series(5))
    y[2] = torch.nan
    found = log_likelihood(model, y)
    assert found[2] == 0.0
    assert torch.equal(found[3], log_likelihood(model, y[3]))


def test_designs_and_seasons_that_do_not_fit_are_refused():
    model = parts.combine([parts.regression(X, **TWO)], 1.0)
    with pytest.raises(EstimationError, match="30 times"):
        log_likelihood(model, torch.zeros(12, dtype=torch.float64))
    with pytest.raises(EstimationError, match="season of 1"):
        parts.seasonal_dummies(1, 0.1, start_var=1.0)
    with pytest.raises(EstimationError, match="without components"):
        parts.combine([], 1.0)
