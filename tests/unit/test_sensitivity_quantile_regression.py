"""Weighted quantile regression against linear programming and statsmodels."""

import numpy as np
import pytest
from scipy.optimize import linprog

from eocausal.errors import EstimationError
from eocausal.estimators.quantile_regression import check_loss, quantile_regression


def by_linear_programming(x, y, tau, w):
    n, p = x.shape
    found = linprog(
        np.concatenate([np.zeros(2 * p), tau * w, (1 - tau) * w]),
        A_eq=np.hstack([x, -x, np.eye(n), -np.eye(n)]),
        b_eq=y,
        method="highs",
    )
    return found.x[:p] - found.x[p : 2 * p], found.fun


@pytest.mark.parametrize(
    ("n", "p", "tau"), [(20, 3, 0.3), (200, 2, 0.7), (500, 3, 0.9), (500, 5, 0.99), (500, 3, 0.5)]
)
def test_equals_linear_programming_with_uneven_weights(n, p, tau):
    rng = np.random.default_rng(n + p)
    x = np.column_stack([np.ones(n), rng.normal(size=(n, p - 1))])
    y = 1000 + 100 * x @ rng.normal(size=p) + rng.standard_t(3, n) * (1 + x[:, 1] ** 2)
    w = np.exp(2 * rng.normal(size=n))
    slope = quantile_regression(x, y, tau, weights=w)
    expected, loss = by_linear_programming(x, y, tau, w)
    assert slope == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert w @ check_loss(y - x @ slope, tau) == pytest.approx(loss, rel=1e-9)


def test_equals_statsmodels_without_weights():
    from statsmodels.regression.quantile_regression import QuantReg

    rng = np.random.default_rng(3)
    x = np.column_stack([np.ones(400), rng.normal(size=(400, 2))])
    y = x @ [1.0, 2.0, -1.0] + np.exp(0.5 * x[:, 1]) * rng.normal(size=400)
    theirs = QuantReg(y, x).fit(q=0.8, p_tol=1e-9, max_iter=5000).params
    ours = quantile_regression(x, y, 0.8)
    loss = check_loss(y - x @ ours, 0.8).sum()
    assert loss <= check_loss(y - x @ theirs, 0.8).sum() * (1 + 1e-9)
    assert ours == pytest.approx(theirs, abs=2e-3)


def test_takes_columns_that_say_the_same_and_tied_outcomes():
    rng = np.random.default_rng(4)
    y = (rng.random(500) < 0.3).astype(float)
    x = np.column_stack([np.ones(500), np.full(500, 3.0), np.zeros(500)])
    line = x @ quantile_regression(x, y, 0.9)
    assert line == pytest.approx(np.ones(500), abs=1e-9)
    line = x @ quantile_regression(x, y, 0.5)
    assert line == pytest.approx(np.zeros(500), abs=1e-9)


def test_units_without_weight_do_not_count():
    rng = np.random.default_rng(5)
    x = np.column_stack([np.ones(300), rng.normal(size=300)])
    y = x[:, 1] + rng.normal(size=300)
    w = np.where(np.arange(300) < 200, 1.0, 0.0)
    y[200:] += 1e6
    some = quantile_regression(x, y, 0.7, weights=w)
    assert some == pytest.approx(quantile_regression(x[:200], y[:200], 0.7), abs=1e-7)


def test_refuses_what_is_no_quantile_and_no_weight():
    with pytest.raises(EstimationError, match="no quantile"):
        quantile_regression(np.ones((3, 1)), np.arange(3.0), 1.0)
    with pytest.raises(EstimationError, match="positive weight"):
        quantile_regression(np.ones((3, 1)), np.arange(3.0), 0.5, weights=np.zeros(3))
