"""Bias, standard errors and coverage of weighting where treatment follows the columns of a table.

python benchmarks/weighting_coverage.py [--replications 1000] [--seed 0] [--workers 2] [--only WORD]

``--only`` takes the worlds whose name has a word in it, e.g. clusters.

Each replication draws the world once and asks every score. SE/SD is the root mean squared standard
error over the standard deviation of the errors: 1 is right; bias/MC is the bias over its Monte
Carlo error. Truths are those of each estimand's own population, by quadrature.
"""

import argparse
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pandas as pd

from eocausal.errors import OverlapError
from eocausal.estimators.arm_means import Estimand
from eocausal.estimators.inference import HC0, Clustered
from eocausal.estimators.logit import Logit
from eocausal.estimators.observational import observe
from eocausal.estimators.overlap import Overlap
from eocausal.estimators.scores import AIPW, CBPS, EntropyBalancing, Hajek
from eocausal.estimators.weighting import Weighted, Weighting
from eocausal.folds import GroupFolds, RandomFolds
from eocausal.simulate.placed_table import COVARIATES, PlacedTableConfig, simulate_placed_table

ATE, ATT, ATO = Estimand.ATE, Estimand.ATT, Estimand.ATO

WORLDS = {
    "two arms": PlacedTableConfig(),
    "two arms, weak overlap": PlacedTableConfig(confounding=1.5),
    "two arms, 300 units": PlacedTableConfig(n=300),
    "three arms": PlacedTableConfig(n=1500, arms=3),
    "200 clusters of 5": PlacedTableConfig(cluster=5),
    "three arms, 200 clusters of 10": PlacedTableConfig(2000, 3, cluster=10, confounding=0.4),
}

GIVEN = "Hájek, given"


def methods(config: PlacedTableConfig) -> dict[str, Weighting]:
    """Decisions compared in a world."""
    clustered = config.cluster > 1
    vcov = Clustered("cluster") if clustered else HC0()
    folds = GroupFolds("cluster") if clustered else RandomFolds()
    # Every unit may be in every arm: regions without one are not looked for, which saves time.
    overlap = Overlap(empty=None)
    textbook = Weighting(propensity=Logit(), folds=None, vcov=vcov, overlap=overlap)
    crossed = Weighting(folds=folds, vcov=vcov, overlap=overlap)
    found = {
        "Hájek": replace(textbook, score=Hajek()),
        "Hájek, crossed": replace(crossed, score=Hajek()),
        "overlap": replace(textbook, score=Hajek(ATO)),
        "AIPW": crossed,
        "entropy, ATE": replace(textbook, score=EntropyBalancing(ATE)),
    }
    if config.arms == 2:
        found |= {
            "Hájek, ATT": replace(textbook, score=Hajek(ATT)),
            "AIPW, ATT": replace(crossed, score=AIPW(ATT)),
            "AIPW, ATO": replace(crossed, score=AIPW(ATO)),
            "entropy, ATT": replace(textbook, score=EntropyBalancing()),
            "CBPS, ATE": replace(textbook, score=CBPS()),
            "CBPS, ATT": replace(textbook, score=CBPS(ATT)),
            "CBPS, ATO": replace(textbook, score=CBPS(ATO)),
        }
    if config == PlacedTableConfig():
        found["AIPW, 3 repeats"] = replace(crossed, repeats=3)
    return found


@cache
def truth(config: PlacedTableConfig, estimand: str, arm: str) -> float:
    """Return the true effect of an arm against none."""
    return 0.0 if arm == "none" else config.truth(estimand, 1 + (arm == "b"))


def replicate(
    number: int, *, config: PlacedTableConfig, seed: int, only: tuple[str, ...] = ()
) -> list[dict[str, object]]:
    """Draw the world once; return a row per method and contrast."""
    units = simulate_placed_table(config, np.random.default_rng([seed, number]))
    data = observe(units, treatment="arm", outcome="outcome", covariates=COVARIATES)
    rows = []
    for name, decisions in methods(config).items():
        if only and name not in only:
            continue
        try:
            fitted = decisions.fit(data, seed=number)
        except OverlapError:
            rows.append({"method": name, "contrast": "a", "refused": 1.0})
            continue
        estimand = str(decisions.score.estimand)
        contrasts = {"a": ("a", "none")}
        if config.arms == 3:
            contrasts = {"a": ("a", "none"), "b": ("b", "none"), "b - a": ("b", "a")}
        for contrast, pair in contrasts.items():
            found = fitted.contrast(*pair)
            true = truth(config, estimand, pair[0]) - truth(config, estimand, pair[1])
            error = found.estimate - true
            covered = float(found.ci_low <= true <= found.ci_high)
            row = {"error": error, "se": found.std_error, "covered": covered, "refused": 0.0}
            rows.append({"method": name, "contrast": contrast, **row})
            if name == "Hájek":
                known = given(fitted, pair, true)
                rows.append({"method": GIVEN, "contrast": contrast, **row, **known})
    return rows


def given(fitted: Weighted, pair: tuple[str, str], true: float) -> dict[str, float]:
    """Return standard error and coverage were the probabilities taken as known."""
    d = fitted.data
    means = fitted.decisions.score.means(d, replace(fitted.nuisances, design=None))
    found = replace(fitted, means=means).contrast(*pair)
    return {"se": found.std_error, "covered": float(found.ci_low <= true <= found.ci_high)}


def run(replications: int, config: PlacedTableConfig, *, seed: int, workers: int) -> pd.DataFrame:
    """Return a row per replication, method and contrast."""
    job = partial(replicate, config=config, seed=seed)
    with ProcessPoolExecutor(workers) as pool:
        found = pool.map(job, range(replications), chunksize=10)
        return pd.DataFrame([row for rows in found for row in rows])


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Sum up replications by method and contrast."""

    def one(group: pd.DataFrame) -> pd.Series:
        kept = group[group["refused"] == 0]
        error, r = kept["error"], len(kept)
        bias = error.mean()
        return pd.Series(
            {
                "bias": bias,
                "bias/MC": bias / (error.std() / math.sqrt(r)),
                "SD": error.std(),
                "SE/SD": math.sqrt((kept["se"] ** 2).mean()) / error.std(),
                "coverage": kept["covered"].mean(),
                "refused": group["refused"].mean(),
            }
        )

    grouped = rows.groupby(["method", "contrast"], sort=False)
    table = pd.DataFrame({key: one(group) for key, group in grouped}).T
    return table.rename_axis(index=["method", "contrast"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replications", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    r = options.replications
    print(f"{r} replications; Monte Carlo error of a coverage of 0.95: "
          f"{math.sqrt(0.95 * 0.05 / r):.4f}, of SE/SD: {1 / math.sqrt(2 * r):.3f}")  # fmt: skip
    for world, config in WORLDS.items():
        if options.only not in world:
            continue
        rows = run(r, config, seed=options.seed, workers=options.workers)
        table = summary(rows)
        print(f"\n{world}: coverage {table['coverage'].min():.3f} to {table['coverage'].max():.3f}")
        print(table.round(3).to_string(), flush=True)


if __name__ == "__main__":
    main()
