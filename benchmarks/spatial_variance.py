"""Coverage of 95 % intervals where aid goes to whole regions and neighbours share their errors.

python benchmarks/spatial_variance.py [--replications 500] [--seed 0] [--workers 2] [--scale]

Each replication draws the world, estimates the effect by cross-fitted AIPW (whole regions to
folds) and asks whether the interval of each variance holds the truth. SE/SD is the root mean
squared standard error over the standard deviation of the errors: 1 is right. ``--scale`` prints
seconds and memory of the spatial variances up to 200,000 units instead.
"""

import argparse
import math
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import pandas as pd
from scipy import stats

from eocausal.effects import Influence
from eocausal.estimators.aipw import aipw_ate
from eocausal.estimators.bootstrap import SpatialBootstrap
from eocausal.estimators.conley import Conley
from eocausal.estimators.inference import HC0, Clustered
from eocausal.estimators.kernels import Wendland
from eocausal.folds import fold_groups
from eocausal.simulate.clustered_aid import ClusteredAidConfig, simulate_clustered_aid

WORLDS = {
    "regions of 25 km": ClusteredAidConfig(range_km=25),
    "regions of 100 km": ClusteredAidConfig(range_km=100),
    "100 km, 15 % treated": ClusteredAidConfig(range_km=100, treated=0.15),
    "100 km, small country": ClusteredAidConfig(range_km=100, country_km=1000, n=1000),
}


def rules(range_km: float) -> dict[str, object]:
    """Variances compared; cutoffs are multiples of the range of dependence."""
    return {
        "independent": HC0(),
        "by region": Clustered("region"),
        "Conley, textbook, 1x": Conley(range_km, reference=False),
        "Conley, textbook, 2x": Conley(2 * range_km, reference=False),
        "Conley, 1x": Conley(range_km),
        "Conley, 2x": Conley(2 * range_km),
        "Conley, 3x": Conley(3 * range_km),
        "Conley, Wendland, 2x": Conley(2 * range_km, kernel=Wendland()),
        "Conley, Wendland, 3x": Conley(3 * range_km, kernel=Wendland()),
        "bootstrap, 2x": SpatialBootstrap(2 * range_km),
        "bootstrap, 3x": SpatialBootstrap(3 * range_km),
    }


def aipw(units: pd.DataFrame, *, seed: int, folds: int = 5) -> tuple[float, np.ndarray]:
    """Estimate the effect from logit and least squares fitted on other regions."""
    y, w = units["outcome"].to_numpy(), units["treated"].to_numpy()
    design = np.column_stack([np.ones(len(units)), units[["z", "x"]]])
    fold = fold_groups(units["region"].to_numpy(), folds, seed=seed, stratum=w.astype(float))
    e, m = np.empty(len(y)), np.empty((len(y), 2))
    for k in range(folds):
        out, fit = fold == k, fold != k
        e[out] = 1 / (1 + np.exp(-design[out] @ logit(design[fit], w[fit])))
        for a in (0, 1):
            use = fit & (w == a)
            m[out, a] = design[out] @ np.linalg.lstsq(design[use], y[use], rcond=None)[0]
    means = aipw_ate(y, w, np.stack([1 - e, e], axis=1), m)
    return float(means.value[1] - means.value[0]), means.influence[:, 1] - means.influence[:, 0]


def logit(design: np.ndarray, w: np.ndarray, penalty: float = 1e-3) -> np.ndarray:
    """Fit a logistic regression by Newton's method, with a hair of a ridge."""
    beta = np.zeros(design.shape[1])
    ridge = penalty * np.eye(len(beta))
    for _ in range(50):
        p = 1 / (1 + np.exp(-design @ beta))
        hessian = (design * (p * (1 - p))[:, None]).T @ design + ridge
        step = np.linalg.solve(hessian, design.T @ (w - p) - penalty * beta)
        beta = beta + step
        if np.abs(step).max() < 1e-8:
            break
    return beta


def replicate(
    number: int, *, config: ClusteredAidConfig, seed: int, only: tuple[str, ...] = ()
) -> dict[str, float]:
    """Draw the world once; return the error and each rule's standard error and coverage."""
    drawn = simulate_clustered_aid(config, np.random.default_rng([seed, number]))
    value, psi = aipw(drawn.units, seed=number)
    influence = Influence(drawn.units.index, psi, psi)
    row = {"error": value - drawn.ate}
    for name, rule in rules(config.range_km).items():
        if only and name not in only:
            continue
        found = rule.variance(influence, drawn.units)
        se, critical = math.sqrt(found.value), float(stats.t.ppf(0.975, found.df))
        row |= {f"{name}|se": se, f"{name}|critical": critical}
        row[f"{name}|covered"] = float(abs(row["error"]) <= critical * se)
    return row


def run(replications: int, config: ClusteredAidConfig, *, seed: int, workers: int) -> pd.DataFrame:
    """Return a row per replication."""
    job = partial(replicate, config=config, seed=seed)
    with ProcessPoolExecutor(workers) as pool:
        return pd.DataFrame(list(pool.map(job, range(replications), chunksize=10)))


def target(name: str) -> str:
    """Say what the coverage of a rule is to be."""
    if name == "independent":
        return "< 0.85"
    return "" if "textbook" in name or name.endswith("1x") else "0.93-0.97"


def scale() -> None:
    """Print seconds and memory against the number of units, with thousands of neighbours."""
    print(f"{'units':>9}{'neighbours':>12}{'rule':>12}{'CPU s':>8}{'peak MB above start':>21}")
    for n, km in ((20_000, 100), (50_000, 100), (200_000, 100), (200_000, 180)):
        rng = np.random.default_rng(n)
        units = pd.DataFrame(rng.uniform(-9, 9, (n, 2)), columns=["lon", "lat"])
        psi = rng.standard_normal(n) / n
        influence = Influence(units.index, psi - psi.mean(), psi - psi.mean())
        near = n * math.pi * km**2 / (18 * 111.19) ** 2
        for name, rule in (("Conley", Conley(km)), ("bootstrap", SpatialBootstrap(km))):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            start = time.process_time()
            rule.variance(influence, units)
            used = time.process_time() - start
            more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            print(f"{n:9,}{near:12,.0f}{name:>12}{used:8.1f}{more:21.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replications", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scale", action="store_true")
    options = parser.parse_args()
    if options.scale:
        scale()
        return
    r = options.replications
    print(f"{r} replications; Monte Carlo error of a coverage of 0.95: "
          f"{math.sqrt(0.95 * 0.05 / r):.4f}, of SE/SD: {1 / math.sqrt(2 * r):.3f}")  # fmt: skip
    for world, config in WORLDS.items():
        rows = run(r, config, seed=options.seed, workers=options.workers)
        sd = rows["error"].std()
        print(f"\n{world}: {config.n} units; bias {rows['error'].mean():+.4f}, SD {sd:.4f}")
        print(f"{'variance':24}{'coverage':>10}{'target':>12}{'SE/SD':>8}{'critical':>10}")
        for name in rules(config.range_km):
            ratio = math.sqrt((rows[f"{name}|se"] ** 2).mean()) / sd
            print(f"{name:24}{rows[f'{name}|covered'].mean():10.3f}{target(name):>12}"
                  f"{ratio:8.3f}{rows[f'{name}|critical'].median():10.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
