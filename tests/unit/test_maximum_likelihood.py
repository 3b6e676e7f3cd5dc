"""Impact by maximum likelihood: likelihood against the Kalman core, gradient, truth, refusals."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from eocausal.designs import Event
from eocausal.errors import AlignmentError, EstimationError, OutcomeError
from eocausal.estimators import components, statespace
from eocausal.estimators.maximum_likelihood import maximum_likelihood
from eocausal.estimators.maximum_likelihood_result import Parameters
from eocausal.estimators.structural_model import Trend
from eocausal.estimators.unobserved_components import (
    UnobservedComponents,
    log_likelihood,
    whiten,
)


def series(seed=0, times=120, season=4, level=0.1, noise=0.5, effect=2.0, after=30, slope=0.05):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=times)
    pattern = np.resize([1.0, -0.5, 0.3, -0.8][:season], times)
    y = rng.normal(0, level, times).cumsum() + slope * np.arange(times) + pattern + 0.7 * x
    y += rng.normal(0, noise, times)
    y[-after:] += effect
    index = pd.date_range("2000-01-01", periods=times, freq="MS")
    return pd.Series(y, index), pd.DataFrame({"x": x}, index), Event(f"{index[-after]:%Y-%m-%d}")


@pytest.mark.parametrize("trend", [Trend.LEVEL, Trend.LOCAL_LINEAR])
def test_likelihood_is_that_of_the_kalman_core_with_a_wide_start(trend):
    """The core's likelihood with starting variance k is ours - d log(2 pi k) / 2 as k grows."""
    y, _, _ = series(times=40, after=5)
    model = UnobservedComponents(trend, 4)
    ratios = np.array([0.3, 0.02, 0.05])[[0, 1, 2] if trend is Trend.LOCAL_LINEAR else [0, 2]]
    columns = np.column_stack([model.start_columns(40), y])
    ours, _ = log_likelihood(model, ratios, columns, np.ones(40, bool))
    # the variance that makes our likelihood highest
    whole = np.linalg.lstsq(*_whitened(model, ratios, columns))[1][0] / (40 - model.states)
    wide = 1e7
    q = ratios * whole
    parts = [
        components.local_level(q[0], start_var=wide)
        if trend is Trend.LEVEL
        else components.local_linear_trend(q[0], q[1], start_var=wide, slope_start_var=wide),
        components.seasonal_dummies(4, q[-1], start_var=wide),
    ]
    core = statespace.log_likelihood(components.combine(parts, whole), torch.tensor(y.to_numpy()))
    start = columns[: model.states, : model.states]
    wide_part = model.states * math.log(2 * math.pi * wide) / 2 + np.linalg.slogdet(start)[1]
    assert ours == pytest.approx(float(core) + wide_part, abs=2e-5)


def _whitened(model, ratios, columns):
    found = whiten(model, ratios, columns, np.ones(len(columns), bool))
    return found.innovations[:, :-1], found.innovations[:, -1]


def test_gradient_is_that_of_differences_with_gaps():
    y, x, _ = series(times=60, after=5)
    model = UnobservedComponents(season=4)
    columns = np.column_stack([model.start_columns(60), x, y])
    learned = np.ones(60, bool)
    learned[[7, 20, 21, 22, 58]] = False
    ratios = np.array([0.2, 0.004, 0.03])
    _, slope = log_likelihood(model, ratios, columns, learned)
    for i, h in enumerate(1e-5 * ratios):
        step = np.eye(3)[i] * h
        above, below = (log_likelihood(model, ratios + s, columns, learned)[0]
                        for s in (step, -step))  # fmt: skip
        assert slope[i] == pytest.approx((above - below) / (2 * h), rel=1e-5)


def test_without_state_variances_it_is_least_squares():
    y, x, event = series(season=4)
    at = Parameters(0.25, {"level": 0.0, "slope": 0.0, "season": 0.0}, {"x": 0.7})
    found = maximum_likelihood(y, event, x, model=UnobservedComponents(season=4), at=at)
    t = np.arange(120)
    known = np.column_stack([t, np.eye(4)[t % 4]])
    target = y.to_numpy() - 0.7 * x["x"].to_numpy()
    beta = np.linalg.lstsq(known[:90], target[:90])[0]
    assert found.effect == pytest.approx(target[90:] - known[90:] @ beta, abs=1e-9)
    inverse = np.linalg.inv(known[:90].T @ known[:90])
    joint = 0.25 * (np.eye(30) + known[90:] @ inverse @ known[90:].T)
    assert found.covariance == pytest.approx(joint, abs=1e-9)


@pytest.mark.slow
def test_a_known_effect_is_found_with_the_error_it_states():
    """The standard error of the mean, not that of one time, is how far the mean is off."""
    model = UnobservedComponents(Trend.LEVEL, None)
    found = []
    for seed in range(36):
        rng = np.random.default_rng(seed)
        y, x, event = series(seed, level=0.3, slope=0.0, after=10)
        y = y - np.resize([1.0, -0.5, 0.3, -0.8], 120) + rng.normal(0, 0.01, 120)
        found.append(maximum_likelihood(y, event, x, model=model))
    errors = np.array([f.average - 2.0 for f in found])
    stated = np.sqrt(np.mean([f.std_error_estimated**2 for f in found]))
    assert abs(errors.mean()) < 3 * errors.std() / np.sqrt(36)
    assert stated == pytest.approx(errors.std(), rel=0.35)
    assert np.mean([f.parameters.noise for f in found]) == pytest.approx(0.25, rel=0.15)
    assert np.mean([f.parameters.states["level"] for f in found]) == pytest.approx(0.09, rel=0.25)


def test_gaps_are_skipped_and_what_is_said_is_what_was_found():
    y, x, event = series()
    y.iloc[[5, 50, 100]] = np.nan
    x.iloc[105] = np.nan
    found = maximum_likelihood(y, event, x, model=UnobservedComponents(season=4))
    assert found.converged
    assert len(found.effect) == 28
    assert found.learned == 88
    assert found.average == pytest.approx(2.0, abs=4 * found.std_error_estimated)
    frame = found.to_frame()
    assert frame["cumulative"].iloc[-1] == pytest.approx(found.cumulative)
    assert found.std_error < found.std_error_estimated < found.std_error_of_one
    words = found.summary()
    assert "That is not its p-value" in words
    assert f"{found.p_value_of_one:.4f}" in words


def test_draws_have_the_joint_covariance():
    y, x, event = series()
    found = maximum_likelihood(y, event, x, model=UnobservedComponents(Trend.LEVEL, 4))
    path = found.path(draws=20_000, seed=1)
    average = path.average()
    assert average["estimate"] == pytest.approx(found.average, abs=0.01)
    assert average["std_error"] == pytest.approx(found.std_error_estimated, rel=0.03)
    assert np.array_equal(path.counterfactual, found.path(draws=20_000, seed=1).counterfactual)


def test_relative_to_a_prediction_near_zero_is_not_a_number():
    y, x, event = series()
    before = y.index < pd.Timestamp(event.when)
    at = Parameters(0.25, {"level": 0.0}, {"x": 0.7})
    model = UnobservedComponents(Trend.LEVEL, None)
    first = maximum_likelihood(y, event, x, model=model, at=at)
    shifted = maximum_likelihood(y - first.predicted, event, x, model=model, at=at)
    assert before.any()
    assert math.isnan(shifted.relative)
    assert math.isfinite(first.relative)


def test_refusals():
    y, x, event = series()
    with pytest.raises(EstimationError, match="Only a level"):
        UnobservedComponents(Trend.SEMI_LOCAL)
    with pytest.raises(EstimationError, match="season"):
        UnobservedComponents(season=1)
    for bad in (y.reset_index(drop=True), y[::-1], pd.concat([y, y.iloc[-1:]])):
        with pytest.raises(AlignmentError, match="increasing dates"):
            maximum_likelihood(bad, event)
    with pytest.raises(EstimationError, match="values before the event"):
        maximum_likelihood(y.iloc[75:], event, x)
    with pytest.raises(OutcomeError, match="does not vary"):
        maximum_likelihood(y * 0 + 1.0, event, x)
    with pytest.raises(EstimationError, match="straight line"):
        maximum_likelihood(y, event, x.assign(line=np.arange(120.0)))
    with pytest.raises(EstimationError, match="variances"):
        maximum_likelihood(y, event, x, at=Parameters(1.0, {"level": 0.1}, {"x": 1.0}))
    at = Parameters(1.0, {"level": 0.1, "slope": 0.0, "season": 0.0})
    with pytest.raises(EstimationError, match="coefficient"):
        maximum_likelihood(y, event, x, at=at)
