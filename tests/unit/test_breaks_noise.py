"""Red noise: autoregressions, tests against it, and intervals of dates."""

import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from eocausal.errors import EstimationError
from eocausal.estimators.breaks_dates import argmax_quantiles, bai_interval, sieve_interval
from eocausal.estimators.breaks_number import Sequential, ud_max
from eocausal.estimators.breaks_scan import candidates, scan
from eocausal.estimators.breaks_sieve import (
    ArSieve,
    fit_autoregression,
    levinson,
    long_run_variance,
    serial_variance,
)
from eocausal.estimators.breaks_sup_f import sup_f

QUICK = ArSieve(draws=199, bias_draws=60)


def red(seed, phi, n, count=1):
    shocks = np.random.default_rng(seed).normal(size=(count, n + 200))
    return lfilter([1.0], [1.0, -phi], shocks)[:, 200:]


def less_mean(drawn):
    return drawn - drawn.mean(1, keepdims=True)


def test_levinson_solves_the_equations_of_yule_and_walker():
    u = less_mean(red(0, 0.7, 400))
    phi, variance = levinson(u, 3)
    r = np.array([(u[0, k:] * u[0, : 400 - k]).sum() / 400 for k in range(4)])
    toeplitz = r[np.abs(np.subtract.outer(np.arange(3), np.arange(3)))]
    np.testing.assert_allclose(phi[0], np.linalg.solve(toeplitz, r[1:]), rtol=1e-10)
    assert variance[0, 3] == pytest.approx(r[0] - phi[0] @ r[1:])
    with_gaps = np.insert(u, [100, 250], np.nan, axis=1)
    assert levinson(with_gaps, 1)[0][0, 0] == pytest.approx(levinson(u, 1)[0][0, 0], abs=0.02)


def test_bias_of_coefficients_is_taken_out():
    position = np.arange(80)
    plain, better = [], []
    for seed in range(40):
        u = less_mean(red(seed, 0.7, 80))[0]
        for into, rule in ((plain, ArSieve(1, bias_draws=0)), (better, ArSieve(1, bias_draws=60))):
            found = fit_autoregression(u, position, less_mean, rule, seed)
            into.append(found.coefficients[0] if found.order else 0.0)
    assert np.mean(plain) < 0.66
    assert abs(np.mean(better) - 0.7) < 0.03


def test_draws_are_as_long_as_asked_and_as_red():
    found = fit_autoregression(red(1, 0.6, 500)[0], np.arange(500), less_mean, ArSieve(1), 0)
    drawn = found.draw(300, 200, np.random.default_rng(0))
    assert drawn.shape == (300, 200)
    assert levinson(drawn, 1)[0].mean() == pytest.approx(0.6, abs=0.1)
    assert found.inflation == pytest.approx(np.sqrt(1.6 / 0.4), rel=0.25)
    assert "sd of shocks" in repr(found)


def test_noise_of_few_observations_is_normal():
    found = fit_autoregression(red(2, 0.0, 20)[0], np.arange(20), less_mean, QUICK, 0)
    assert len(found.shocks) == 0
    assert np.isfinite(found.draw(5, 20, np.random.default_rng(0))).all()


def test_long_run_variance_is_that_of_means():
    u = red(3, 0.5, 4000)
    assert long_run_variance(u, np.arange(4000), 1)[0] == pytest.approx(4.0, rel=0.25)
    assert serial_variance(u[0], np.arange(4000)) == pytest.approx(4.0, rel=0.25)


def test_a_break_is_told_from_red_noise():
    steps, rng = np.arange(180), np.random.default_rng(4)
    season = np.column_stack([np.cos(2 * np.pi * steps / 12), np.sin(2 * np.pi * steps / 12)])
    look = scan(np.ones((180, 1)), season, candidates(180, 27))
    noise = red(4, 0.5, 180)[0] + season @ [2.0, 1.0]
    shifted = noise + 2.5 * (steps >= 100)
    found = sup_f(shifted, look, steps, QUICK, 1)
    assert found.p_value == pytest.approx(1 / 200)
    assert abs(found.at - 100) <= 2
    assert found.statistic == found.path.max()
    assert (found.p_at >= found.p_value / 1.01).all() or found.p_at.min() == found.p_value
    assert "SupF" in repr(found)
    alike = sup_f(noise + rng.normal(0, 1e-9, 180), look, steps, QUICK, 1)
    assert alike.p_value > 0.05


def test_two_breaks_that_cancel_are_seen_by_the_test_of_any_number():
    steps = np.arange(150)
    y = red(5, 0.0, 150)[0] + 1.5 * ((steps >= 55) & (steps < 95))
    ones, none = np.ones((150, 1)), np.empty((150, 0))
    found = ud_max(y, ones, none, 22, 2, steps, QUICK, 0)
    assert (found.breaks, found.p_value) == (2, pytest.approx(1 / 200))
    assert "UDMax" in repr(found)


def test_where_a_motion_is_highest():
    low, high = argmax_quantiles(0.025)
    assert high == pytest.approx(11.033, abs=2e-3)
    assert low == -high
    assert argmax_quantiles(0.05)[1] == pytest.approx(7.687, abs=2e-3)
    rng, step = np.random.default_rng(6), 0.04
    drift, variance = np.array([0.5, 1.0]), np.array([1.0, 2.0])
    peak, when = np.zeros((2, 3000)), np.zeros((2, 3000))
    for side in (0, 1):
        paths = rng.normal(-drift[side] * step, np.sqrt(variance[side] * step), (3000, 1000))
        np.cumsum(paths, axis=1, out=paths)
        peak[side], when[side] = paths.max(1), step * (1 + paths.argmax(1))
    right = (peak[1] > np.maximum(peak[0], 0)) * when[1]
    left = (peak[0] > np.maximum(peak[1], 0)) * when[0]
    for tail in (0.05, 0.2):
        low, high = argmax_quantiles(tail, 2.0, 2.0)
        assert (right > high).mean() == pytest.approx(tail, abs=0.02)
        assert (left > -low).mean() == pytest.approx(tail, abs=0.02)


def test_intervals_of_dates_are_wider_in_red_noise():
    steps = np.arange(200)
    ones, none = np.ones((200, 1)), np.empty((200, 0))
    y = red(7, 0.7, 200)[0] + 4.0 * (steps >= 90)
    plain = bai_interval(y, ones, none, [90], 0)
    serial = bai_interval(y, ones, none, [90], 0, position=steps)
    ours = sieve_interval(y, ones, none, [90], 0, position=steps, shortest=30, sieve=QUICK)
    assert plain.first <= 90 <= plain.last
    assert len(serial.held) > len(plain.held)
    assert ours.first <= 90 <= ours.last
    assert len(ours.held) > len(plain.held)
    wider = sieve_interval(
        y, ones, none, [90], 0, position=steps, shortest=30, sieve=QUICK, level=0.99
    )
    assert set(ours.held) <= set(wider.held)


def test_an_interval_of_one_break_stays_between_its_neighbours():
    steps = np.arange(240)
    ones, none = np.ones((240, 1)), np.empty((240, 0))
    y = red(8, 0.3, 240)[0] + 3.0 * (steps >= 80) - 3.0 * (steps >= 160)
    for number, at in enumerate((80, 160)):
        found = sieve_interval(
            y, ones, none, [80, 160], number, position=steps, shortest=36, sieve=QUICK
        )
        assert at in found.held
        assert (found.first > 80 if number else found.last < 160) or len(found.held) == 1


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ArSieve(draws=5), "no bootstrap"),
        (lambda: ArSieve(max_order=-1), "no bootstrap"),
        (lambda: Sequential(level=1.5), "no level of a test"),
    ],
)
def test_decisions_that_mean_nothing_are_refused(make, said):
    with pytest.raises(EstimationError, match=said):
        make()


def test_p_values_of_white_noise_are_uniform():
    look = scan(np.ones((60, 1)), np.empty((60, 0)), candidates(60, 9))
    rule = ArSieve(max_order=0, draws=99)
    p = [sup_f(red(s, 0.0, 60)[0], look, np.arange(60), rule, s).p_value for s in range(100)]
    assert stats.kstest(p, "uniform").pvalue > 0.001
