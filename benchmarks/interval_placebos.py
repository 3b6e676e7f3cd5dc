"""Events that were not, on the water of Morowali: how often the 95 % interval leaves zero out.

python benchmarks/interval_placebos.py [--data ../shared/data/morowali] [--step 6]

Each window of a series without an event is taken for what follows one, with at least eight years
before it, at horizons of 24, 36 and 68 months. Windows overlap and are far from independent: the
number of windows that do not is printed beside them, and it is small.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from eocausal.estimators.structural import fit_structural
from eocausal.estimators.structural_model import StructuralModel, Trend
from eocausal.estimators.structural_priors import CompatiblePrior

FIRST = 96
MODELS = {
    "default, season of 12": StructuralModel(season=12),
    "default, no season": StructuralModel(),
    "default with line": StructuralModel(season=12, trend=Trend.LINE),
    "CausalImpact, no season": StructuralModel(prior=CompatiblePrior()),
}
ZONES = {
    "Control 1998-2024": ("Control", 324, False),
    "Impact until 2019-04": ("Impact", 256, False),
    "Impact, 3 controls": ("Impact", 256, True),
}


def windows(
    y: np.ndarray, horizon: int, step: int, model: StructuralModel, x: np.ndarray | None = None
) -> np.ndarray:
    """Estimate over its error in each window that leaves zero out or not: (windows, 2)."""
    found = []
    for start in range(len(y) - horizon, FIRST - 1, -step):
        before = np.arange(start + horizon) < start
        controls = None if x is None else x[: start + horizon]
        fit = fit_structural(y[None, : start + horizon], before, model, controls=controls)
        at = fit.average(~before)
        outside = not at.ci_low[0] <= 0.0 <= at.ci_high[0]
        found.append((at.estimate[0], float(outside)))
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("../shared/data/morowali"))
    parser.add_argument("--step", type=int, default=6)
    chosen = parser.parse_args()
    control = pd.read_csv(chosen.data / "Control_Zone_Kd490_Temp_Sal.csv")
    known = control[["Kd490", "Temperature", "Salinity"]].to_numpy()
    for label, (zone, last, beside) in ZONES.items():
        table = pd.read_csv(chosen.data / f"{zone}_Zone_Kd490_Temp_Sal.csv")
        y = table["Kd490"].to_numpy()[:last]
        for horizon in (24, 36, 68):
            for name, model in MODELS.items():
                found = windows(y, horizon, chosen.step, model, known[:last] if beside else None)
                apart = (last - FIRST) // horizon
                print(
                    f"{label:22s}{horizon:3d} months  {name:25s}"
                    f"{int(found[:, 1].sum()):3d} of {len(found):3d} windows leave zero out; "
                    f"effects above zero: {(found[:, 0] > 0).mean():.2f}; {apart} windows apart",
                    flush=True,
                )


if __name__ == "__main__":
    main()
