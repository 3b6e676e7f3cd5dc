"""How often placebo outcomes and neighbours raise an alarm, with and without a reason."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from eocausal.checks.base import Verdict
from eocausal.checks.placebo import Placebo
from eocausal.checks.spillover import Spillover
from eocausal.estimators.inference import Clustered
from eocausal.estimators.overlap import Overlap
from eocausal.estimators.weighting import Weighting, weight
from eocausal.simulate.clustered_aid import disc_field

pytestmark = pytest.mark.slow

KM = 111.19492664455873
PAST = ("before", "earlier", "height")


def placed(seed, hidden, n=500, clusters=None):
    """Placement by x and a hidden u; outcomes before treatment know both."""
    rng = np.random.default_rng(seed)
    x, u = rng.normal(size=(2, n))
    shared = rng.normal(size=(n if clusters is None else clusters, 4)) * (clusters is not None)
    group = np.arange(n) % len(shared)
    w = (rng.random(n) < 1 / (1 + np.exp(-0.7 * x - hidden * u))).astype(int)
    if clusters is not None:
        z = rng.normal(size=clusters)
        w = (rng.random(clusters) < 1 / (1 + np.exp(-0.3 * z))).astype(int)[group]
        x = z[group]
    errors = rng.normal(size=(n, 4)) + u[:, None] + shared[group]
    columns = x[:, None] + errors
    units = pd.DataFrame(columns, columns=[*PAST, "y"]).assign(x=x, w=w, group=group)
    units["y"] += w
    return units


def alarms(hidden, runs, **options):
    decisions = options.pop("decisions", None)
    rejected = 0
    for seed in range(runs):
        subject = weight(
            placed(seed, hidden, **options), treatment="w", outcome="y", covariates=["x"],
            decisions=decisions, seed=seed,
        )  # fmt: skip
        p = Placebo(PAST).run(subject).values["p_joint"]
        rejected += p < 0.05
    return rejected / runs


def test_placebos_raise_false_alarms_as_often_as_they_say():
    assert 0.015 <= alarms(0.0, 200) <= 0.09


def test_placebos_see_a_hidden_confounder():
    assert alarms(0.5, 60) >= 0.9


def test_placebos_of_clusters_are_tested_by_clusters():
    plain = Weighting(overlap=Overlap(min_ess=1000, empty=None))
    clustered = replace(plain, vcov=Clustered("group"))
    assert alarms(0.0, 150, clusters=80, n=480, decisions=clustered) <= 0.12
    assert alarms(0.0, 40, clusters=80, n=480, decisions=plain) >= 0.3


def scattered(seed, spill, n=600):
    """Units whose errors are alike up to 60 km; treatment is placed unit by unit."""
    rng = np.random.default_rng(seed)
    km = rng.uniform(0, 600, (n, 2))
    x = rng.normal(size=n)
    w = (rng.random(n) < 1 / (1 + np.exp(-0.7 * x))).astype(int)
    near = np.hypot(*(km[:, None] - km).T) < 30
    share = (near @ w - w) / np.maximum(near.sum(axis=1) - 1, 1)
    y = x + w + spill * share + 0.7 * (disc_field(km, 60.0, rng) + rng.normal(size=n))
    return pd.DataFrame({"lon": km[:, 0] / KM, "lat": km[:, 1] / KM, "x": x, "w": w, "y": y})


def spilled(spill, runs):
    found = []
    for seed in range(runs):
        subject = weight(
            scattered(seed, spill), treatment="w", outcome="y", covariates=["x"], seed=seed
        )
        found.append(Spillover(km=(30.0, 60.0)).run(subject).verdict)
    return np.mean([verdict is not Verdict.PASS for verdict in found])


def test_spillovers_are_seen_and_seldom_where_there_are_none():
    assert spilled(0.0, 100) <= 0.12
    assert spilled(1.5, 30) >= 0.9
