"""How often red noise is taken for a break, and breaks for red noise; benchmarks/breakpoints.py."""

import numpy as np
import pytest
from scipy.signal import lfilter

from eocausal.estimators.breaks_dates import bai_interval, sieve_interval
from eocausal.estimators.breaks_scan import candidates, scan
from eocausal.estimators.breaks_sieve import ArSieve
from eocausal.estimators.breaks_sup_f import sup_f

pytestmark = pytest.mark.slow

SIEVE = ArSieve(draws=199, bias_draws=60)
STEPS = np.arange(150)
SEASON = np.column_stack(
    [f(2 * np.pi * k * STEPS / 12) for k in (1, 2) for f in (np.cos, np.sin)]
)  # fmt: skip
ONES = np.ones((150, 1))


def red_noise(seed, phi, count):
    shocks = np.random.default_rng(seed).normal(0, np.sqrt(1 - phi**2), (count, 450))
    return lfilter([1.0], [1.0, -phi], shocks)[:, 300:]


def rejections(phi, shift, count):
    look = scan(ONES, SEASON, candidates(150, 22))
    series = red_noise(round(100 * phi), phi, count) + SEASON @ [1.0, 0.3, 0.5, 0.2]
    series[:, 75:] += shift
    p = [sup_f(y, look, STEPS, SIEVE, k).p_value for k, y in enumerate(series)]
    return np.mean(np.array(p) <= 0.05)


@pytest.mark.parametrize("phi", [0.0, 0.3, 0.6, 0.8])
def test_red_noise_does_not_count_as_a_break(phi):
    assert rejections(phi, 0.0, 120) <= 0.08 + 2 * np.sqrt(0.08 * 0.92 / 120)


@pytest.mark.parametrize(("phi", "least"), [(0.0, 0.95), (0.3, 0.8), (0.6, 0.35)])
def test_a_shift_of_one_standard_deviation_is_seen(phi, least):
    assert rejections(phi, 1.0, 30) >= least


def test_intervals_of_dates_hold_the_date_in_red_noise():
    held = np.zeros(2)
    for seed, y in enumerate(red_noise(7, 0.6, 60)):
        y[75:] += 2.0
        look = scan(ONES, ONES[:, :0], candidates(150, 22))
        at = look.at[look.reductions(look.residuals(y[None])).argmax()]
        design = y, ONES, ONES[:, :0], [at], 0
        ours = sieve_interval(*design, position=STEPS, shortest=22, sieve=SIEVE, seed=seed)
        held += [75 in ours.held, 75 in bai_interval(*design).held]
    assert held[0] / 60 >= 0.87
    assert held[0] > held[1]
