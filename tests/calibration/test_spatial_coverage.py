"""Coverage where neighbours share errors and regions share treatment, and of many intervals."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eocausal.effects import EffectEstimate, Influence
from eocausal.estimators.inference import HC0, Clustered
from eocausal.estimators.multiplicity import simultaneous
from eocausal.simulate.clustered_aid import ClusteredAidConfig, disc_field, simulate_clustered_aid

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    path = BENCHMARKS / "spatial_variance.py"
    spec = importlib.util.spec_from_file_location("spatial_variance_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("range_km", [25, 100])
def test_variances_over_space(benchmark, range_km):
    """Bounds leave room for the Monte Carlo error of 100 replications (0.022)."""
    config = ClusteredAidConfig(range_km=range_km, country_km=1500, n=1500, towns=150)
    honest = ("by region", "Conley, 2x", "Conley, Wendland, 3x", "bootstrap, 2x")
    only = ("independent", *honest)
    rows = pd.DataFrame(
        [benchmark.replicate(i, config=config, seed=1, only=only) for i in range(100)]
    )
    error = rows["error"]
    assert abs(error.mean()) < 3.5 * error.std() / np.sqrt(len(rows))
    covered = {name: rows[f"{name}|covered"].mean() for name in only}
    assert covered["independent"] < 0.8
    for name in honest:
        assert 0.895 <= covered[name] <= 0.99, name
        ratio = np.sqrt((rows[f"{name}|se"] ** 2).mean()) / error.std()
        assert 0.82 < ratio < 1.18, name


def test_the_field_ends_at_its_range():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 300, (400, 2))
    apart = np.sqrt(((points[:, None] - points) ** 2).sum(axis=2))
    products = np.zeros_like(apart)
    for _ in range(300):
        field = disc_field(points, 60.0, rng)
        products += np.outer(field, field) / 300
    assert products[apart == 0].mean() == pytest.approx(1, abs=0.03)
    u = 30 / 60
    circular = 2 / np.pi * (np.arccos(u) - u * np.sqrt(1 - u**2))
    assert products[(apart > 29) & (apart < 31)].mean() == pytest.approx(circular, abs=0.04)
    assert products[(apart > 66) & (apart < 100)].mean() == pytest.approx(0, abs=0.03)


def test_the_world_keeps_its_promises():
    config = ClusteredAidConfig(n=4000, treated=0.3)
    drawn = simulate_clustered_aid(config, np.random.default_rng(1))
    units = drawn.units
    assert (units.groupby("region")["treated"].nunique() == 1).all()
    assert units["treated"].mean() == pytest.approx(drawn.propensity.mean(), abs=0.05)
    again = simulate_clustered_aid(config, np.random.default_rng(1)).units
    pd.testing.assert_frame_equal(units, again)


def test_twenty_correlated_effects_hold_together():
    """Twenty sectors share untreated units and shocks of districts."""
    rng = np.random.default_rng(2)
    n, k, districts = 300, 20, 60
    units = pd.DataFrame({"district": np.arange(n) % districts}, index=[f"u{i}" for i in range(n)])
    joint, apart, bonferroni, critical = [], [], [], []
    for repetition in range(250):
        shared = rng.normal(size=(districts, 1))
        shock = (shared + rng.normal(size=(districts, k)))[units["district"]]
        values = shock + rng.normal(size=(n, k))
        mean = values.mean(axis=0)
        psi = (values - mean) / n
        items = [
            EffectEstimate.of(
                float(mean[j]), Influence(units.index, psi[:, j], psi[:, j]),
                estimand="ATE", method="m", units=units, vcov=Clustered("district"),
            )
            for j in range(k)
        ]  # fmt: skip
        found = simultaneous(items, seed=repetition, draws=4000)
        t = np.abs(mean) / [e.std_error for e in items]
        joint.append(t.max() <= found.critical)
        apart.append(t.max() <= 2.0)
        naive = [e.with_vcov(HC0()).std_error for e in items]
        bonferroni.append((np.abs(mean) / naive).max() <= found.critical)
        critical.append(found.critical)
    assert 0.92 <= np.mean(joint) <= 0.98
    assert np.mean(apart) < 0.75
    assert np.mean(bonferroni) < 0.6
    assert np.mean(critical) < 3.1  # Bonferroni's for 59 degrees of freedom is 3.20
