"""Bias, standard errors and coverage of weighting; full size: benchmarks/weighting_coverage.py.

Bounds leave room for three Monte Carlo errors of 200 replications (0.015 of a coverage, 0.05 of
SE/SD) and for intervals that hold 0.94, as sandwich variances do at these sizes.
"""

import importlib.util
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from shapely.geometry import Point

from eocausal.estimators.effect_surface import effect_surface
from eocausal.estimators.weighting import Weighting, weight
from eocausal.simulate.placed_table import COVARIATES, PlacedTableConfig, simulate_placed_table

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
REPLICATIONS = 200


@pytest.fixture(scope="module")
def benchmark():
    path = BENCHMARKS / "weighting_coverage.py"
    spec = importlib.util.spec_from_file_location("weighting_coverage_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table(benchmark, config, only, replications=REPLICATIONS):
    rows = [
        row
        for i in range(replications)
        for row in benchmark.replicate(i, config=config, seed=1, only=only)
    ]
    return benchmark.summary(pd.DataFrame(rows))


def check(found):
    for name, row in found.iterrows():
        if "given" in name[0]:
            continue
        assert abs(row["bias/MC"]) < 3.5, name
        assert 0.85 < row["SE/SD"] < 1.15, name
        assert 0.89 <= row["coverage"] <= 0.99, name
        assert row["refused"] < 0.05, name


def test_two_arms(benchmark):
    config = PlacedTableConfig(confounding=0.6)
    only = ("Hájek", "overlap", "Hájek, ATT", "entropy, ATE", "entropy, ATT", "CBPS, ATE",
            "CBPS, ATT", "CBPS, ATO")  # fmt: skip
    found = table(benchmark, config, only)
    given = found.xs(benchmark.GIVEN)
    check(found)
    # What the estimation of probabilities is worth: without it the interval is far too wide.
    assert given["SE/SD"].iloc[0] > 1.25


def test_cross_fitted_scores(benchmark):
    config = PlacedTableConfig(n=600, confounding=0.6)
    check(table(benchmark, config, ("AIPW", "AIPW, ATT", "AIPW, ATO"), 120))


def test_contrasts_of_three_arms(benchmark):
    config = PlacedTableConfig(n=900, arms=3, confounding=0.6)
    found = table(benchmark, config, ("Hájek", "overlap", "entropy, ATE"))
    check(found)
    assert set(found.index.get_level_values("contrast")) == {"a", "b", "b - a"}


def test_clusters_that_are_treated_as_a_whole(benchmark):
    config = PlacedTableConfig(n=1200, cluster=6, confounding=0.5)
    found = table(benchmark, config, ("Hájek", "overlap", "entropy, ATT", "CBPS, ATE"))
    check(found)


def test_estimands_differ_and_each_score_finds_its_own(benchmark):
    config = PlacedTableConfig(confounding=0.6)
    ate, att, ato = (config.truth(e) for e in ("ATE", "ATT", "ATO"))
    assert ate == pytest.approx(1)
    assert att > ate + 0.1
    x = np.random.default_rng(0).standard_normal((400_000, 3))
    e = config.probabilities(x)
    tau = config.effect + config.heterogeneity * x[:, 0]
    assert att == pytest.approx(e[:, 1] @ tau / e[:, 1].sum(), abs=0.003)
    overlap = e[:, 0] * e[:, 1]
    assert ato == pytest.approx(overlap @ tau / overlap.sum(), abs=0.003)
    three = replace(config, arms=3)
    h = 1 / (1 / three.probabilities(x)).sum(axis=1)
    for arm in (1, 2):
        assert three.truth("ATO", arm) == pytest.approx(arm * (h @ tau) / h.sum(), abs=0.003)


@pytest.mark.parametrize(("arms", "cluster"), [(2, 1), (3, 1), (2, 10)])
def test_the_world_keeps_its_promises(arms, cluster):
    config = PlacedTableConfig(n=60_000, arms=arms, cluster=cluster)
    units = simulate_placed_table(config, np.random.default_rng(0))
    again = simulate_placed_table(config, np.random.default_rng(0))
    pd.testing.assert_frame_equal(units, again)
    x = units[list(COVARIATES)].to_numpy()
    e = config.probabilities(x)
    code = units["arm"].map({"none": 0, "a": 1, "b": 2}).to_numpy()
    decile = pd.qcut(e[:, 1], 10, labels=False)
    for k in range(arms):
        gap = pd.Series((code == k) - e[:, k]).groupby(decile).mean().abs().max()
        assert gap < (0.02 if cluster == 1 else 0.06)
    left = units["outcome"] - x[:, 0] - (x[:, 1] + x[:, 2]) / 2 - code * (1 + 0.5 * x[:, 0])
    assert left.std() == pytest.approx(1, abs=0.02)
    if cluster > 1:
        assert (units.groupby("cluster")["arm"].nunique() == 1).all()
        shared = left.groupby(units["cluster"]).mean().var() - 1 / cluster * left.var()
        assert shared / (1 - 1 / cluster) == pytest.approx(0.3, abs=0.03)


def surface_row(seed, *, heterogeneity, confounding, n=600, elsewhere=200):
    """Draw places whose features place treatment; return coverage and fit of the map of effects."""
    rng = np.random.default_rng([7, seed])
    z = rng.normal(size=(n + elsewhere, 8))
    effect = 1 + heterogeneity * (z[:, 0] + 0.5 * z[:, 1])
    w = (rng.random(n) < 1 / (1 + np.exp(-confounding * z[:n, 0]))).astype(int)
    y = z[:n, 0] + z[:n, 2] + w * effect[:n] + rng.normal(size=n)
    labels = pd.Index([f"p{i}" for i in range(len(z))], name="neighborhood")
    units = pd.DataFrame({"w": w, "y": y}, index=labels[:n])
    features = pd.DataFrame(z, index=labels)
    places = gpd.GeoDataFrame(
        geometry=[Point(i % 40, i // 40) for i in range(len(z))], index=labels, crs=4326
    )
    fitted = weight(
        units, treatment="w", outcome="y", images={"chip": features.iloc[:n]},
        decisions=Weighting(), seed=seed,
    )  # fmt: skip
    map_ = effect_surface(fitted, features, places).table
    covered = (map_["ci_low"] <= effect) & (effect <= map_["ci_high"])
    error = map_["estimate"] - effect
    return {
        "covered": covered.mean(),
        "elsewhere": covered.iloc[n:].mean(),
        "rmse": np.sqrt((error**2).mean()),
        "spread": effect.std(),
    }


def test_maps_of_effects_cover_the_known_surface():
    """Averaged over places, in the study and elsewhere."""
    rows = pd.DataFrame(
        [surface_row(i, heterogeneity=0.7, confounding=0.8) for i in range(40)]
    )  # fmt: skip
    assert 0.91 <= rows["covered"].mean() <= 0.985
    assert 0.91 <= rows["elsewhere"].mean() <= 0.985
    assert rows["rmse"].mean() < 0.5 * rows["spread"].mean()


def test_maps_where_effects_do_not_differ_find_no_differences():
    rows = pd.DataFrame(
        [surface_row(i, heterogeneity=0.0, confounding=0.8) for i in range(25)]
    )  # fmt: skip
    assert rows["covered"].mean() > 0.93
    assert rows["rmse"].mean() < 0.25
