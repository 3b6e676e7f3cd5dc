"""How often images raise an alarm with and without a trace of treatment; what repairs do."""

import numpy as np
import pandas as pd
import pytest

from eocausal.checks.base import Verdict
from eocausal.checks.image_changes import trace_test
from eocausal.checks.late_images import LateImages, repair
from eocausal.encoders.core import ImageSpec
from eocausal.encoders.random_conv import GaussianPatches, RandomConv
from eocausal.estimators.observational import observe
from eocausal.estimators.ridge import Ridge
from eocausal.estimators.ridge_logit import RidgeLogit
from eocausal.estimators.weighting import Weighting
from eocausal.simulate.image_confounding import (
    BANDS,
    ImageConfoundingConfig,
    simulate_image_confounding,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def encoder():
    world = simulate_image_confounding(ImageConfoundingConfig(), np.random.default_rng(10**6))
    rule = RandomConv(features=64, patch=5, patches=GaussianPatches())
    return rule.fit(world.before, ImageSpec(BANDS, "reflectance", 30.0, 20, 20), seed=0)


def alarms(encoder, mark, runs):
    found = []
    for seed in range(runs):
        config = ImageConfoundingConfig(n=700, mark=mark)
        world = simulate_image_confounding(config, np.random.default_rng([8, seed]))
        before, after = (pd.DataFrame(encoder.transform(i)) for i in (world.before, world.after))
        data = observe(
            world.units, treatment="treated", outcome="outcome", covariates=["x"],
            images={"image": after},
        )  # fmt: skip
        result = LateImages({"before": before}, estimates=False, draws=399).run(data)
        found.append(result.verdict is not Verdict.PASS)
    return np.mean(found)


def test_images_that_show_treatment_raise_an_alarm(encoder):
    assert alarms(encoder, 0.6, 20) >= 0.95


def test_images_that_do_not_seldom_raise_one(encoder):
    assert alarms(encoder, 0.0, 60) <= 0.05


@pytest.mark.parametrize("groups", [None, 60])
def test_changes_are_tested_at_the_level_they_say(groups):
    p_values = []
    for seed in range(300):
        rng = np.random.default_rng([5, seed])
        cluster = np.arange(300) if groups is None else np.arange(300) % groups
        noise = rng.standard_t(5, size=(300, 6)) + (
            0 if groups is None else rng.normal(size=(groups, 6))[cluster]
        )
        w = rng.integers(0, 3, 300 if groups is None else groups)[cluster] > 1
        # Images of the treated vary more: labels could not be exchanged.
        change = noise * (1 + w[:, None])
        p_values.append(trace_test(change, w.astype(int), groups=cluster, draws=199).p_value)
    assert 0.015 <= np.mean(np.array(p_values) <= 0.05) <= 0.1


def linear(seed, mark, n=800, p=20):
    """True features confound linearly; both exposures have a little noise, one shows treatment."""
    rng = np.random.default_rng([6, seed])
    true = rng.normal(size=(n, p))
    c = true @ np.ones(p) / np.sqrt(p)
    w = (rng.random(n) < 1 / (1 + np.exp(-0.8 * c))).astype(int)
    units = pd.DataFrame({"w": w, "y": w + 0.85 * c + rng.normal(size=n)})
    before, after = true + 0.15 * rng.normal(size=(2, n, p))
    trace = mark * rng.gamma(4, 0.25, n) * w
    after[:, 0] += trace
    after[:, 1] += 0.5 * trace
    data = observe(units, treatment="w", outcome="y", images={"image": pd.DataFrame(after)})
    return data, pd.DataFrame(before)


def test_repaired_images_adjust_as_well_as_earlier_ones():
    decided = Weighting(propensity=RidgeLogit((0.3,)), outcome_model=Ridge((0.3,)))
    held = {"earlier": 0, "projected": 0, "repaired": 0}
    bias = dict.fromkeys(held, 0.0)
    runs = 120
    for seed in range(runs):
        data, before = linear(seed, mark=1.5)
        old = observe(data.units, treatment="w", outcome="y", images={"image": before})
        ways = {
            "earlier": old,
            "projected": repair(data, before, keep_earlier=False),
            "repaired": repair(data, before),
        }
        for name, way in ways.items():
            e = decided.fit(way, seed=seed).estimate
            held[name] += e.ci_low <= 1 <= e.ci_high
            bias[name] += (e.estimate - 1) / runs
    assert held["repaired"] / runs >= 0.9
    assert held["repaired"] >= held["earlier"] - 0.05 * runs
    assert abs(bias["repaired"]) < 0.04
    # A tenth of what confounds lies along the trace, and is lost where only the later one speaks.
    assert bias["projected"] > bias["repaired"] + 0.02
