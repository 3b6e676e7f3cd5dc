"""How often intervals of AUCs and of their differences hold the truth, blocked and not."""

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

from eocausal.estimators.assignment import AssignmentMechanism
from eocausal.estimators.inference import HC0
from eocausal.estimators.observational import observe
from eocausal.estimators.ridge_logit import RidgeLogit
from eocausal.folds import SpatialBlocks

pytestmark = pytest.mark.slow

MODEL = RidgeLogit((1.0,))
PLAIN = AssignmentMechanism(MODEL, permutations=0)
RUNS = 150


def study(seed, *, n=200, slope=0.0, image=0.0, p=12):
    rng = np.random.default_rng([11, seed])
    x, features = rng.normal(size=n), rng.normal(size=(n, p))
    odds = slope * x + image * features[:, 0]
    w = (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(int)
    units = pd.DataFrame({"x": x, "w": w, "y": rng.normal(size=n)})
    return observe(
        units, treatment="w", outcome="y", covariates=["x"],
        images={"image": pd.DataFrame(features)},
    )  # fmt: skip


def auc_of(slope: float) -> float:
    """AUC of the true probability where the log odds are N(0, slope²)."""

    def density(x: float, arm: int) -> float:
        e = 1 / (1 + np.exp(-slope * x))
        return float(2 * stats.norm.pdf(x) * (e if arm else 1 - e))

    inner = lambda x: integrate.quad(density, -9, x, args=(0,))[0]  # noqa: E731
    return float(integrate.quad(lambda x: density(x, 1) * inner(x), -9, 9)[0])


def test_nothing_is_told_where_there_is_nothing_to_tell():
    missed = {"table": 0, "image": 0, "table + image": 0}
    shown = 0
    for seed in range(RUNS):
        fitted = PLAIN.fit(study(seed), seed=seed)
        for found in fitted.predicted:
            auc = found.auc
            missed[auc.confounders] += not auc.ci_low <= 0.5 <= auc.ci_high
        shown += sum(d.gain.p_value < 0.05 for d in fitted.differences) / 3
    for rejected in missed.values():
        assert 0.005 <= rejected / RUNS <= 0.1
    assert shown / RUNS <= 0.09


def test_an_image_that_adds_nothing_is_seldom_said_to_add():
    adds = 0
    for seed in range(RUNS):
        d = PLAIN.fit(study(seed, slope=1.0), seed=seed).differences[1]
        assert (d.of, d.over) == ("table + image", "table")
        adds += d.gain.ci_low > 0
    assert adds / RUNS <= 0.05


def test_an_image_that_adds_is_said_to():
    adds = 0
    for seed in range(40):
        d = PLAIN.fit(study(seed, n=400, slope=0.7, image=1.0), seed=seed).differences[1]
        adds += d.gain.ci_low > 0
    assert adds / 40 >= 0.9


@pytest.mark.parametrize("slope", [0.5, 1.5])
def test_intervals_hold_the_auc(slope):
    truth, held = auc_of(slope), 0
    for seed in range(RUNS):
        auc = PLAIN.fit(study(seed, slope=slope), seed=seed, sets={"x": ["table"]}).predicted[0].auc
        held += auc.ci_low <= truth <= auc.ci_high
    assert 0.9 <= held / RUNS <= 0.99


def test_calibration_slopes_hold_one_where_probabilities_are_true():
    held = 0
    for seed in range(RUNS):
        found = PLAIN.fit(study(seed, n=1500, slope=1.5), seed=seed, sets={"x": ["table"]})
        slope = found.predicted[0].slope
        held += slope.ci_low <= 1 <= slope.ci_high
    assert held / RUNS >= 0.9


def villages(seed, n=600, edge=20):
    """Treatment drawn by district; features are shared within districts and tell nothing."""
    rng = np.random.default_rng([13, seed])
    cell = rng.integers(0, edge * edge // 4, n)
    lon = (cell % (edge // 2)) + rng.uniform(0.05, 0.95, n)
    lat = (cell // (edge // 2)) + rng.uniform(0.05, 0.95, n) - edge / 4
    shared = rng.normal(size=(edge * edge // 4, 6))[cell]
    w = rng.integers(0, 2, edge * edge // 4)[cell]
    units = pd.DataFrame({"lon": lon, "lat": lat, "w": w, "y": rng.normal(size=n)})
    image = pd.DataFrame(shared + 0.3 * rng.normal(size=(n, 6)))
    return observe(units, treatment="w", outcome="y", images={"image": image})


def test_districts_treated_as_a_whole():
    blocks = SpatialBlocks(km=222.4)
    honest = AssignmentMechanism(MODEL, folds=blocks, permutations=0)
    naive = AssignmentMechanism(MODEL, folds=blocks, vcov=HC0(), permutations=0)
    missed = np.zeros(2)
    for seed in range(RUNS):
        data = villages(seed)
        for i, mechanism in enumerate((honest, naive)):
            auc = mechanism.fit(data, seed=seed).predicted[0].auc
            missed[i] += not auc.ci_low <= 0.5 <= auc.ci_high
    assert missed[0] / RUNS <= 0.12
    assert missed[1] / RUNS >= 0.3
