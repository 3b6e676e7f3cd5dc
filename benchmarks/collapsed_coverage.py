"""Coverage of 95 % intervals of the average effect, under no effect, of slopes and seasons.

python benchmarks/collapsed_coverage.py [--series 200] [--seed 0] [--before 256 --after 24]
    [--cells "line, AR 0.6" ...] [--default-only]

Series of unit residual variance whose truth does not come from the prior: a slope or a season that
stays, and ones that walk at fixed speeds, with independent or AR(0.6) residual. Our prior first,
CausalImpact's (bsts' defaults for the trend) beside it unless left out.
"""

import argparse

import numpy as np
from scipy.signal import lfilter

from eocausal.estimators.structural import fit_structural
from eocausal.estimators.structural_model import Season, StructuralModel, Trend
from eocausal.estimators.structural_priors import CompatiblePrior, LearnedPrior

CELLS = {
    "line, independent": ("trend", 0.0, 0.0),
    "line, AR 0.6": ("trend", 0.0, 0.6),
    "slope 0.001, independent": ("trend", 0.001, 0.0),
    "slope 0.001, AR 0.6": ("trend", 0.001, 0.6),
    "slope 0.003, independent": ("trend", 0.003, 0.0),
    "season stays, AR 0.6": ("season", 0.0, 0.6),
    "season 0.03, independent": ("season", 0.03, 0.0),
    "season 0.03, AR 0.6": ("season", 0.03, 0.6),
    "season 0.1, independent": ("season", 0.1, 0.0),
}


def draw(kind: str, size: float, phi: float, shape: tuple[int, int], seed: list[int]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shocks = rng.normal(size=shape) * np.sqrt(1.0 - phi**2)
    shocks[:, 0] /= np.sqrt(1.0 - phi**2)
    y = lfilter([1.0], [1.0, -phi], shocks, axis=1)
    walk = size * rng.normal(size=shape)
    walk[:, 0] = 0.0
    if kind == "trend":
        slope = 0.002 + np.cumsum(walk, 1)
        return y + np.cumsum(slope, 1) - slope
    season = lfilter([1.0, -1.0], np.concatenate([[1.0], np.zeros(11), [-1.0]]), walk, axis=1)
    return y + season + 2.0 * np.sin(2.0 * np.pi * np.arange(shape[1]) / 12.0)


def measure(kind: str, y: np.ndarray, before: np.ndarray, prior: object) -> str:
    model = (
        StructuralModel(trend=Trend.LOCAL_LINEAR, prior=prior)
        if kind == "trend"
        else StructuralModel(season=Season(12, changes=True), prior=prior)
    )
    fit = fit_structural(y, before, model)
    found = fit.average(~before)
    kept = np.isfinite(found.estimate)
    covered = ((found.ci_low <= 0) & (found.ci_high >= 0))[kept].mean()
    width = (found.ci_high - found.ci_low)[kept].mean()
    return f"{covered:8.3f} {width:6.2f} {len(y) - kept.sum():4d}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--series", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--before", type=int, default=256)
    parser.add_argument("--after", type=int, default=24)
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--default-only", action="store_true")
    chosen = parser.parse_args()
    priors = [LearnedPrior()] if chosen.default_only else [LearnedPrior(), CompatiblePrior()]
    before = np.arange(chosen.before + chosen.after) < chosen.before
    error = np.sqrt(0.05 * 0.95 / chosen.series)
    print(f"{chosen.series} series a cell, standard error {error:.3f}: coverage, width, refused")
    print(f"{'':28s}{'default':>20s}{'as CausalImpact':>20s}", flush=True)
    for number, (name, (kind, size, phi)) in enumerate(CELLS.items()):
        if name in chosen.cells:
            shape = (chosen.series, len(before))
            y = draw(kind, size, phi, shape, [chosen.seed, number])
            texts = [measure(kind, y, before, prior) for prior in priors]
            print(f"{name:28s}{''.join(texts)}", flush=True)


if __name__ == "__main__":
    main()
