"""Twenty simulated countries, rendered to GeoTIFF and run end to end: map against truth.

python benchmarks/worlds.py [--worlds 20] [--first 100] [--workers 2]

Each world has its own land, trial and noise; the study is the one of ``make demo``. What is
printed: how often the average effect's interval holds the truth, the share of neighborhoods
whose interval does, and the correlation of the map with the true effects.
"""

from __future__ import annotations

import argparse
import tempfile
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pandas as pd

from eocausal.ingest.schedule import Threads
from eocausal.simulate.world import WorldConfig
from eocausal.studies.demo import run_demo


def one_world(seed: int) -> dict[str, Any]:
    """Render, run and compare one world."""
    with tempfile.TemporaryDirectory() as folder:
        found = run_demo(folder, WorldConfig(seed=seed), scheduler=Threads(1)).record()
    row = {"world": seed, "truth": found["truth"], "correlation": found["correlation"]}
    for average in found["average"]:
        name = average["method"]
        row[f"{name}|covered"] = average["ci_low"] <= found["truth"] <= average["ci_high"]
        row[f"{name}|z"] = (average["estimate"] - found["truth"]) / average["std_error"]
    return row | found["coverage"]


def main() -> None:
    """Run the worlds and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--worlds", type=int, default=20)
    parser.add_argument("--first", type=int, default=100, help="seed of the first world")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.worlds)
    with ProcessPoolExecutor(options.workers) as pool:
        table = pd.DataFrame(pool.map(one_world, seeds)).set_index("world")
    inside, outside = table["in places of the trial"], table["elsewhere"]
    print(
        f"neighborhood intervals that hold the truth: {inside.mean():.3f} in places of the trial, "
        f"{outside.mean():.3f} elsewhere (sd over worlds {inside.std():.3f}, {outside.std():.3f})"
    )
    for column in [c for c in table if str(c).endswith("|covered")]:
        name = str(column).removesuffix("|covered")
        z = table[f"{name}|z"]
        print(
            f"{name}: interval holds the true average effect in {int(table[column].sum())} of "
            f"{len(table)} worlds; error / SE has mean {z.mean():.2f}, sd {z.std():.2f}"
        )
    correlation = table["correlation"]
    print(
        f"correlation of map with truth: median {correlation.median():.3f}, "
        f"{correlation.min():.3f} to {correlation.max():.3f}"
    )
    shown = table[["truth", "correlation", "in places of the trial", "elsewhere"]]
    print(shown.map(lambda v: float(np.round(v, 3))).to_string())


if __name__ == "__main__":
    main()
