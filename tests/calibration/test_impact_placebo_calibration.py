"""How often placebos doubt a series without an event, and find an effect that is there.

Series of independent noise and AR(0.6); 240 times before an event that does nothing. Rates are held
within two standard errors of 300 series (0.025 at 0.05) above the nominal one; p-values that count
placebos by what they are worth are conservative.
"""

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter

from eocausal.checks.impact_question import excludes_zero, normal_scores
from eocausal.checks.impact_ranks import PlaceboRank, rank_among
from eocausal.checks.impact_time import PlaceboInTime
from eocausal.designs import Event
from eocausal.estimators.controls_innovations import independent_number, innovations
from eocausal.estimators.impact import bsts
from eocausal.estimators.structural import fit_structural
from eocausal.estimators.structural_model import StructuralModel, Trend

pytestmark = pytest.mark.slow
SERIES, BEFORE, ABOVE = 300, 240, 0.025


def red(rng, shape, phi):
    shocks = rng.normal(size=(*shape[:-1], shape[-1] + 100)) * np.sqrt(1 - phi**2)
    return lfilter([1.0], [1.0, -phi], shocks)[..., 100:]


def effects(y, start, horizon):
    before = np.arange(start + horizon) < start
    found = fit_structural(y[:, : start + horizon], before, StructuralModel()).average(~before)
    sure = excludes_zero(found.ci_low, found.ci_high)
    scores = normal_scores(found.estimate, found.p_value)
    return np.stack([np.abs(found.estimate) / found.std_error, scores, sure])


def ranks_in_time(y, horizon, step) -> tuple[list[PlaceboRank], float]:
    """Return ranks of many series, as :class:`PlaceboInTime` has them, and the share rejected."""
    starts = np.arange(BEFORE - horizon, max(36, horizon) - 1, -step)[::-1]
    placebos = np.stack([effects(y, int(s), horizon) for s in starts], axis=2)
    real = effects(y, BEFORE, horizon)
    worth = (starts[-1] - starts[0] + horizon) / horizon
    ranks = [
        rank_among(real[0, i], placebos[0, i], worth, score=real[1, i], scores=placebos[1, i])
        for i in range(len(y))
    ]
    return ranks, float(placebos[2].mean())


def rate(ranks, name):
    return float(np.mean([getattr(rank, name) <= 0.05 for rank in ranks]))


@pytest.mark.parametrize("phi", [0.0, 0.6])
def test_events_that_did_not_happen_are_rejected_at_the_nominal_rate(phi):
    y = red(np.random.default_rng(1), (SERIES, BEFORE + 12), phi)
    ranks, rejected = ranks_in_time(y, 12, 6)
    assert 0.02 <= rejected <= 0.07
    assert rate(ranks, "p_spread") <= 0.05 + ABOVE
    assert rate(ranks, "p_value") <= 0.05 + ABOVE
    assert rate(ranks, "p_independent") <= 0.05
    assert 0.02 <= rate(ranks, "p_scaled") <= 0.05 + ABOVE
    y[:, BEFORE:] += 2.5 if phi else 1.2
    moved, _ = ranks_in_time(y[:80], 12, 6)
    assert rate(moved, "p_scaled") > 0.85


def test_dense_windows_make_the_plain_rank_too_sure_and_what_they_are_worth_does_not():
    y = red(np.random.default_rng(2), (SERIES, BEFORE + 68), 0.0)
    ranks, _ = ranks_in_time(y, 68, 4)
    assert rate(ranks, "p_value") > 0.075  # 0.12 of 400 series with 256 times before
    assert rate(ranks, "p_independent") == 0.0
    assert rate(ranks, "p_scaled") <= 0.05 + ABOVE


def test_places_that_move_together_make_the_plain_rank_too_sure():
    rng = np.random.default_rng(3)
    reps, sites, times, first = 200, 20, 150, 126
    shared = red(rng, (reps, 2, times), 0.6)  # of the outcome's coast, and of the candidates'
    y = shared[:, :1].repeat(1 + sites, 1)
    y[:, 1:] = shared[:, 1:]
    y = 1.5 * y + red(rng, y.shape, 0.3)
    t, scores, _ = effects(y.reshape(-1, times), first, times - first).reshape(3, reps, -1)
    ranks = []
    for i in range(reps):
        worth = independent_number(innovations(y[i, 1:, :first].T))
        ranks.append(rank_among(t[i, 0], t[i, 1:], worth, score=scores[i, 0], scores=scores[i, 1:]))
    assert 1.0 < np.mean([rank.independent for rank in ranks]) < 6.0
    assert rate(ranks, "p_value") > 0.1
    assert rate(ranks, "p_independent") <= 0.05
    assert rate(ranks, "p_scaled") <= 0.08


def table(real_data, zone):
    path = real_data("morowali") / f"{zone}_Zone_Kd490_Temp_Sal.csv"
    return pd.read_csv(path, parse_dates=["Time"], index_col="Time")


@pytest.mark.realdata
def test_the_control_zone_of_morowali_rejects_about_as_often_as_stated(real_data):
    y = table(real_data, "Control")["Kd490"]
    found = bsts(y, Event("2019-05"), model=StructuralModel(season=12), draws=50)
    for horizon, step in ((12, 6), (24, 6), (68, 17)):
        values = PlaceboInTime(horizon, step).run(found).values
        error = np.sqrt(0.05 * 0.95 / values["independent"])
        assert values["rejected"] / values["placebos"] <= 0.05 + 2 * error
        assert values["p_spread"] > 0.05


@pytest.mark.realdata
def test_a_line_mends_what_placebos_see_in_the_impact_zone_of_morowali(real_data):
    y, x = table(real_data, "Impact")["Kd490"], table(real_data, "Control")
    values = {}
    for trend in (Trend.LEVEL, Trend.LINE):
        model = StructuralModel(season=12, trend=trend)
        found = bsts(y, Event("2019-05"), x, model=model, draws=50)
        values[trend] = PlaceboInTime(step=8).run(found).values
    assert values[Trend.LEVEL]["spread"] > 1.3 > 0.9 > values[Trend.LINE]["spread"]
    assert values[Trend.LINE]["rejected"] == values[Trend.LINE]["at_least"] == 0
    assert values[Trend.LINE]["p_scaled"] < 0.02
