"""Where the published search off Morowali stopped, from the numbers it printed.

Seven parameters are sought that give back 68 monthly predictions and the widths of their 95 %
intervals (tests/reference/morowali_published.csv; supplMorowaliOcean, MIT); the highest
likelihood is printed beside it.

    python benchmarks/published_parameters.py ../shared/data/morowali
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import optimize

from eocausal.designs import Event
from eocausal.estimators.maximum_likelihood import maximum_likelihood
from eocausal.estimators.maximum_likelihood_result import LikelihoodImpact, Parameters

NAMES = ["Kd490", "Temperature", "Salinity"]
STATES = ["level", "slope", "season"]
SCALES = np.array([1e-6, 1e-8, 1e-6])
START = np.array([0.25, 0.1, 0.9, 0.2, 0.5, 0.07, -0.11])


def main(folder: Path) -> None:
    def read(zone: str) -> pd.DataFrame:
        path = folder / f"{zone}_Zone_Kd490_Temp_Sal.csv"
        return pd.read_csv(path, parse_dates=["Time"]).set_index("Time")

    outcome, controls, event = read("Impact")["Kd490"], read("Control")[NAMES], Event("2019-05")
    root = Path(__file__).parents[1]
    printed = pd.read_csv(root / "tests" / "reference" / "morowali_published.csv")

    def fitted(theta: np.ndarray) -> LikelihoodImpact:
        states = dict(zip(STATES, theta[1:4] ** 2 * SCALES, strict=True))
        at = Parameters(theta[0] ** 2, states, dict(zip(NAMES, theta[4:], strict=True)))
        return maximum_likelihood(outcome, event, controls, at=at)

    def misses(theta: np.ndarray) -> np.ndarray:
        frame = fitted(theta).to_frame()
        width = frame["high"] - frame["low"]
        ours = np.concatenate([frame["predicted"], width])
        return 1e4 * (ours - np.concatenate([printed["predicted"], printed["width"]]))

    found = optimize.least_squares(misses, START, x_scale=np.maximum(np.abs(START), 0.1) / 10)
    stopped, highest = fitted(found.x), maximum_likelihood(outcome, event, controls)
    print(f"largest miss {np.abs(found.fun).max():.2f} of the last printed digit")
    for name, one in (("published", stopped), ("highest", highest)):
        print(f"{name}: {one!r}, log likelihood {one.log_likelihood:.4f}, {one.parameters}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
