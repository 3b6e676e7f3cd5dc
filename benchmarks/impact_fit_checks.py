"""How often checks of fit cast doubt: where a model is right, where red noise is taken for white.

Series without an event, 12 years of months to learn from, in front of 2 years. Prints the share
with any doubt, and that of each aspect.

    python benchmarks/impact_fit_checks.py --series 100
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
import pandas as pd
from scipy.signal import lfilter

from eocausal.estimators.impact import bsts
from eocausal.estimators.impact_predictive import DOUBT
from eocausal.estimators.impact_windows import EventRow
from eocausal.estimators.structural_model import StructuralModel
from eocausal.estimators.structural_priors import CompatiblePrior, LearnedPrior

BEFORE, AFTER = 144, 24
DATES = pd.date_range("2000-01-01", periods=BEFORE + AFTER, freq="MS")
CELLS = {
    "independent, default": (0.0, LearnedPrior()),
    "AR 0.5, default": (0.5, LearnedPrior()),
    "independent, as CausalImpact": (0.0, CompatiblePrior()),
    "AR 0.5, as CausalImpact": (0.5, CompatiblePrior()),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    for name, (phi, prior) in CELLS.items():
        rng = np.random.default_rng(chosen.seed)
        shocks = rng.normal(size=(chosen.series, 100 + len(DATES))) * np.sqrt(1 - phi**2)
        series = lfilter([1.0], [1.0, -phi], shocks, axis=1)[:, 100:]
        found: Counter[str] = Counter()
        for key, y in enumerate(series):
            checks = bsts(
                pd.Series(y, DATES), EventRow(BEFORE), model=StructuralModel(prior=prior),
                draws=300, seed=key,
            ).fit_checks  # fmt: skip
            found["any"] += bool(checks.doubts)
            found.update(map(str, checks.table.index[checks.table["p_value"] < DOUBT]))
        shares = ", ".join(f"{aspect} {n / chosen.series:.0%}" for aspect, n in found.items() if n)
        print(f"{name:30s} {shares or 'none'}")


if __name__ == "__main__":
    main()
