"""Simulation-based calibration of the default: ranks of the truth in posteriors of drawn worlds.

python benchmarks/interval_ranks.py [--series 1000] [--seed 0] [--draws 199]
(also as benchmarks/impact_coverage.py --sbc)

Worlds are drawn from the prior made proper (eocausal/estimators/interval_calibration.py); for each
model and quantity the least pointwise tail of the ranks over that of the 99 % simultaneous band:
below one, ranks leave the band. Exact laws by ``average``, the others by draws of ``paths``.
"""

import argparse

import numpy as np

from eocausal.estimators.interval_calibration import (
    draw_worlds,
    outside_band,
    simultaneous_level,
)
from eocausal.estimators.structural import fit_structural
from eocausal.estimators.structural_model import StructuralModel, Trend

TIMES, LAST, POINTS = 120, 96, 50
MODELS = {
    "level": (StructuralModel(), 0),
    "line": (StructuralModel(trend=Trend.LINE), 0),
    "season of 12": (StructuralModel(season=12), 0),
    "regression, 4 controls": (StructuralModel(), 4),
    "season of 12, 4 controls": (StructuralModel(season=12), 4),
}


def ranks(name: str, series: int, draws: int, seed: int) -> dict[str, np.ndarray]:
    model, count = MODELS[name]
    rng = np.random.default_rng([seed, list(MODELS).index(name)])
    before = np.arange(TIMES) < LAST
    x = rng.normal(size=(TIMES, count)) + 0.05 * np.cumsum(rng.normal(size=(TIMES, count)), 0)
    controls = x if count else None
    worlds = draw_worlds(series, before, model, rng, controls)
    fit = fit_structural(worlds.outcomes, before, model, controls=controls)
    found = {}
    first = ~before & (np.arange(TIMES) < LAST + 6)
    for label, after in (("average effect", ~before), ("first 6 times", first)):
        middle = fit.average(after, level=0.0).ci_low
        tail = fit.average(after).p_value / 2.0
        found[label] = np.where(middle < 0, tail, 1.0 - tail)
    names = (
        "cumulative effect, draws",
        "last single effect, draws",
        "state before the event, draws",
    )
    drawn = np.empty((len(names), series))
    for row in range(series):
        paths = fit.paths(row, draws=draws, seed=seed, key=row)
        truth, expected = worlds.outcomes[row], worlds.expected[row]
        below = (
            (paths.replicate[:, ~before].sum(1) < truth[~before].sum()).sum(),
            (paths.replicate[:, -1] < truth[-1]).sum(),
            (paths.expected[:, LAST - 1] < expected[LAST - 1]).sum(),
        )
        drawn[:, row] = (np.array(below) + rng.random(3)) / (draws + 1)
    found.update(zip(names, drawn, strict=True))
    if count:
        shares = fit.inclusion()
        uniform = rng.random(shares.shape)
        held = worlds.included
        cut = np.where(held, 1.0 - shares * uniform, (1.0 - shares) * uniform)
        found["inclusion of a control"] = cut[:, 0]
    return found


def report(series: int, draws: int, seed: int) -> None:
    level = simultaneous_level(series, POINTS, np.random.default_rng(seed))
    print(f"{series} worlds a model, {LAST} times before the event, {TIMES - LAST} after")
    print("least tail of the ranks over that of the 99 % simultaneous band; below 1 is outside")
    for name in MODELS:
        for label, found in ranks(name, series, draws, seed).items():
            ratio = outside_band(found, POINTS, level)
            middle = ((found > 0.025) & (found < 0.975)).mean()
            print(
                f"{name:26s}{label:32s}{ratio:9.1f}   central 95 %: {middle:.3f}"
                f"{'   OUTSIDE' if ratio < 1 else ''}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=199)
    chosen = parser.parse_args()
    report(chosen.series, chosen.draws, chosen.seed)


if __name__ == "__main__":
    main()
