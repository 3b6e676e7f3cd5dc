"""Coverage of 95 % intervals on the embedded world, trial by trial at the level of tables.

python benchmarks/coverage.py [--replications 1000] [--seed 0] [--forest]

Each replication draws the trial's places from the country, people, arms and noise, fits every
estimator and asks whether the interval holds the truth: the average effect of the population the
places came from, and the effect of every neighborhood of the country.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import pandas as pd

from eocausal.designs import Trial
from eocausal.estimators.bases import ForestBasis, RidgeBasis
from eocausal.estimators.learners import EffectLearner
from eocausal.estimators.randomized import difference_in_means, lin_adjusted
from eocausal.simulate.config import WorldConfig
from eocausal.simulate.replications import draw_trial
from eocausal.simulate.table import simulate_table

TRIAL = Trial("arm", cluster="neighborhood", prob=0.5)


def replicate(seed: int, *, config: WorldConfig, forest: bool) -> dict[str, float]:
    """Run one trial; return errors, standard errors and coverage by estimator."""
    table = _table(config)
    draw = draw_trial(table, np.random.default_rng([config.seed, seed]))
    fitted = EffectLearner(ForestBasis() if forest else RidgeBasis(), seed=seed).fit(
        TRIAL, draw.units, draw.features, outcome="income", covariates=["age", "female"]
    )
    out: dict[str, float] = {}
    for name, found in {
        "difference in means": difference_in_means(draw.units, TRIAL, "income"),
        "Lin": lin_adjusted(draw.units, TRIAL, "income", ["age", "female"]),
        "AIPW": fitted.average(),
    }.items():
        out[f"{name}|error"] = found.estimate - draw.ate
        out[f"{name}|se"] = found.std_error
        out[f"{name}|covered"] = float(found.ci_low <= draw.ate <= found.ci_high)
    truth = table.neighborhoods["true_effect"].to_numpy()
    mean, sd = fitted.predict(pd.DataFrame(table.features))
    error = mean.to_numpy() - truth
    out["neighborhoods|error"] = float(np.sqrt((error**2).mean()))
    out["neighborhoods|se"] = float(np.sqrt((sd**2).mean()))
    out["neighborhoods|covered"] = float((np.abs(error) <= 1.959964 * sd.to_numpy()).mean())
    out["neighborhoods|correlation"] = float(np.corrcoef(mean, truth)[0, 1])
    return out


_CACHE: dict[WorldConfig, object] = {}


def _table(config: WorldConfig):  # noqa: ANN202
    if config not in _CACHE:
        _CACHE[config] = simulate_table(config)
    return _CACHE[config]


def run(replications: int, config: WorldConfig, *, forest: bool = False, workers: int = 2):  # noqa: ANN201
    """Return a row per replication."""
    job = partial(replicate, config=config, forest=forest)
    with ProcessPoolExecutor(workers) as pool:
        rows = list(pool.map(job, range(replications), chunksize=10))
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replications", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--forest", action="store_true")
    options = parser.parse_args()
    rows = run(options.replications, WorldConfig(seed=options.seed), forest=options.forest)
    n = len(rows)
    print(f"{n} trials of 300 places; Monte Carlo error of a coverage of 0.95: "
          f"{np.sqrt(0.95 * 0.05 / n):.4f}")  # fmt: skip
    print(f"{'':24}{'coverage':>10}{'bias':>10}{'RMSE':>10}{'mean SE':>10}{'SD':>10}")
    for name in ("difference in means", "Lin", "AIPW"):
        error, se = rows[f"{name}|error"], rows[f"{name}|se"]
        numbers = (
            rows[f"{name}|covered"].mean(), error.mean(), np.sqrt((error**2).mean()),
            se.mean(), error.std(),
        )  # fmt: skip
        print(f"{name:24}" + "".join(f"{v:10.4f}" for v in numbers))
    name = "neighborhoods"
    error, se = rows[f"{name}|error"], rows[f"{name}|se"]
    numbers = (rows[f"{name}|covered"].mean(), np.nan, np.sqrt((error**2).mean()), se.mean())
    print(f"{name + ' (average)':24}" + "".join(f"{v:10.4f}" for v in numbers))
    print(f"correlation of map with truth: median {rows[f'{name}|correlation'].median():.3f}")


if __name__ == "__main__":
    main()
