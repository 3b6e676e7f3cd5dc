"""Omitted-variable formulas against published numbers and against really omitting a variable."""

import numpy as np
import pytest

from eocausal.checks.sensitivity.linear_bias import (
    adjusted_std_error,
    bias_bound,
    bound_by_benchmark,
    least_squares,
    partial_r2_of,
    robustness_value,
    robustness_value_interval,
)
from eocausal.errors import EstimationError

DARFUR = (0.09731582, 0.02325654, 783)
"""Estimate, standard error, df of Cinelli & Hazlett (2020), section 5."""


def test_robustness_values_of_darfur():
    estimate, se, df = DARFUR
    assert robustness_value(estimate / se, df) == pytest.approx(0.13878, abs=5e-6)
    assert robustness_value_interval(estimate / se, df) == pytest.approx(0.07626, abs=5e-6)


@pytest.mark.parametrize(
    ("k", "r2_y", "r2_d", "adjusted", "se"),
    [
        (1, 0.1246409, 0.0091643, 0.0752, 0.0219),
        (2, 0.2493240, 0.0183286, 0.0529, 0.0204),
        (3, 0.3740500, 0.0274929, 0.0304, 0.0187),
    ],
)
def test_benchmarks_of_darfur(k, r2_y, r2_d, adjusted, se):
    estimate, error, df = DARFUR
    assert estimate - bias_bound(error, df, r2_y, r2_d) == pytest.approx(adjusted, abs=5e-5)
    assert adjusted_std_error(error, df, r2_y, r2_d) == pytest.approx(se, abs=5e-5)
    placed = 0.0091643 / (1 + 0.0091643)
    shared = placed**2 / (1 - placed) ** 2
    outcome = 0.1246409 * (1 - shared) / (1 + np.sqrt(shared)) ** 2
    outcome /= 1 + outcome
    assert bound_by_benchmark(outcome, placed, k) == pytest.approx((r2_y, r2_d), abs=5e-6)


def test_value_for_the_interval_is_none_if_it_includes_zero_and_never_larger():
    assert robustness_value_interval(1.5, 500) == 0.0
    for t in (2.5, 5.0, 20.0):
        assert 0 < robustness_value_interval(t, 500) < robustness_value(t, 500)


def test_value_for_the_interval_where_the_outcome_is_used_up():
    """Beyond f = 1/f*, R² with the outcome cannot grow; the R² with treatment alone decides."""
    t, df = 60.0, 10
    f, chance = t / np.sqrt(df), 2.262157 / np.sqrt(9)
    expected = (f**2 - chance**2) / (1 + f**2)
    assert robustness_value_interval(t, df) == pytest.approx(expected, rel=1e-6)


@pytest.fixture
def regression():
    rng = np.random.default_rng(2)
    n = 300
    x = rng.normal(size=(n, 3))
    z = 0.5 * x[:, 0] + rng.normal(size=n)
    d = x @ [0.3, -0.2, 0.1] + 0.7 * z + rng.normal(size=n)
    y = d + x @ [1.0, 0.5, 0.0] - 0.8 * z + rng.normal(size=n)
    return y, d, x, z


def test_bound_is_exact_for_one_omitted_variable(regression):
    y, d, x, z = regression
    short, long = least_squares(y, d, x), least_squares(y, d, np.column_stack([x, z]))
    outcome = partial_r2_of(z[:, None], y, np.column_stack([d, x]))
    placed = partial_r2_of(z[:, None], d, x)
    bias = bias_bound(short.std_error, short.df, outcome, placed)
    assert bias == pytest.approx(abs(short.estimate - long.estimate), rel=1e-10)
    adjusted = adjusted_std_error(short.std_error, short.df, outcome, placed)
    assert adjusted == pytest.approx(long.std_error, rel=1e-10)


def test_regression_equals_statsmodels(regression):
    import statsmodels.api as sm

    y, d, x, _ = regression
    ours = least_squares(y, d, x)
    fit = sm.OLS(y, sm.add_constant(np.column_stack([d, x]))).fit()
    assert ours.estimate == pytest.approx(fit.params[1], rel=1e-10)
    assert ours.std_error == pytest.approx(fit.bse[1], rel=1e-10)
    assert ours.influence @ ours.influence == pytest.approx(
        fit.get_robustcov_results("HC0").bse[1] ** 2, rel=1e-10
    )
    t2 = fit.tvalues[1] ** 2
    assert ours.partial_r2 == pytest.approx(t2 / (t2 + fit.df_resid), rel=1e-10)


def test_variable_as_strong_as_a_measured_one(regression):
    """Of one that is unrelated to confounders the R² with treatment is exact, the other a bound."""
    y, d, x, z = regression
    base = np.column_stack([np.ones(len(y)), x])
    z = z - base @ np.linalg.lstsq(base, z, rcond=None)[0]
    rest, column = x[:, 1:], x[:, :1]
    k_d = partial_r2_of(z[:, None], d, rest) / partial_r2_of(column, d, rest)
    given = np.column_stack([d, rest])
    # the outcome's k is given treatment and the other columns (Cinelli & Hazlett, section 4.4)
    k_y = partial_r2_of(z[:, None], y, rest) / partial_r2_of(column, y, given)
    k = max(k_d, k_y)
    placed = partial_r2_of(column, d, rest)
    outcome = partial_r2_of(column, y, given)
    assert bound_by_benchmark(outcome, placed, k_d)[1] == pytest.approx(
        partial_r2_of(z[:, None], d, x), rel=1e-8
    )
    found = bound_by_benchmark(outcome, placed, k)
    assert found[0] >= partial_r2_of(z[:, None], y, np.column_stack([d, x])) - 1e-12


def test_what_cannot_be_so_strong_and_what_cannot_be_regressed():
    assert np.isnan(bound_by_benchmark(0.1, 0.6, 1.0)).all()
    rng = np.random.default_rng(0)
    d = rng.integers(0, 2, 50).astype(float)
    with pytest.raises(EstimationError, match="leave nothing"):
        least_squares(rng.normal(size=50), d, d[:, None])
    with pytest.raises(EstimationError, match="leave nothing"):
        least_squares(rng.normal(size=50), d, rng.normal(size=(50, 60)))


def test_columns_that_say_the_same_do_no_harm(regression):
    y, d, x, _ = regression
    once, twice = least_squares(y, d, x), least_squares(y, d, np.column_stack([x, x[:, 0] * 2 + 1]))
    assert (once.estimate, once.df) == pytest.approx((twice.estimate, twice.df), rel=1e-9)
