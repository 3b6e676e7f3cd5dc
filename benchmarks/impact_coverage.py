"""Coverage and width of 95 % intervals of the average effect when there is none.

python benchmarks/impact_coverage.py [--series 1000] [--seed 0] [--before 256 --after 24]
    [--cells "AR 0.6" "walk 0.02" ...] [--compatible-seasonal 100]

Series of unit residual variance in cells: independent noise, AR(1), a level that walks under
independent noise (sd of a step 0.02, 0.05), a season of 12, 20 % of values missing; and beside the
range the default was chosen for: AR(0.9), a faster walk, a walk under AR(0.6). The second line of
a cell is an interval that knows the truth, which no method can undercut at the same coverage.
"""

import argparse
from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from eocausal.estimators.structural import fit_structural
from eocausal.estimators.structural_model import StructuralModel
from eocausal.estimators.structural_priors import CompatiblePrior, LearnedPrior


@dataclass(frozen=True)
class Cell:
    """A truth without effect; ``target`` if it is of the range the default must cover."""

    phi: float = 0.0
    walk: float = 0.0
    season: bool = False
    missing: float = 0.0
    target: bool = True


CELLS = {
    "independent": Cell(),
    "AR 0.3": Cell(phi=0.3),
    "AR 0.6": Cell(phi=0.6),
    "AR 0.8": Cell(phi=0.8),
    "walk 0.02": Cell(walk=0.02),
    "walk 0.05": Cell(walk=0.05),
    "seasonal": Cell(season=True),
    "AR 0.6, 20 % missing": Cell(phi=0.6, missing=0.2),
    "independent, 20 % missing": Cell(missing=0.2),
    "AR 0.9": Cell(phi=0.9, target=False),
    "walk 0.1": Cell(walk=0.1, target=False),
    "AR 0.6, walk 0.05": Cell(phi=0.6, walk=0.05, target=False),
}
PATTERNS = 8  # of gaps in a cell


def draw(cell: Cell, series: int, times: int, rng: np.random.Generator) -> np.ndarray:
    shocks = rng.normal(size=(series, times)) * np.sqrt(1.0 - cell.phi**2)
    shocks[:, 0] /= np.sqrt(1.0 - cell.phi**2)
    y = lfilter([1.0], [1.0, -cell.phi], shocks, axis=1)
    y = y + np.cumsum(cell.walk * rng.normal(size=y.shape), axis=1)
    if cell.season:
        y = y + 2.0 * np.sin(2.0 * np.pi * np.arange(times) / 12.0 + 1.0)
    if cell.missing:
        holes = rng.random((PATTERNS, times)) < cell.missing
        y[holes[np.arange(series) % PATTERNS]] = np.nan
    return y


def known(cell: Cell, y: np.ndarray, before: np.ndarray) -> tuple[float, float]:
    """Coverage and width of the interval from the true covariance, mean unknown."""
    times = np.arange(y.shape[1])
    cov = cell.phi ** np.abs(np.subtract.outer(times, times)) + cell.walk**2 * np.minimum.outer(
        times, times
    )
    covered, width = [], []
    for pattern in np.unique(np.isfinite(y), axis=0):
        rows = (np.isfinite(y) == pattern).all(1)
        a, b = np.flatnonzero(pattern & before), np.flatnonzero(pattern & ~before)
        weight = np.linalg.solve(cov[np.ix_(a, a)], np.ones(len(a)))
        cross = cov[np.ix_(b, a)].mean(0)
        gain = np.linalg.solve(cov[np.ix_(a, a)], cross)
        gain = gain + weight * (1.0 - gain.sum()) / weight.sum()
        spread = cov[np.ix_(b, b)].mean() - 2 * gain @ cross + gain @ cov[np.ix_(a, a)] @ gain
        error = y[rows][:, b].mean(1) - y[rows][:, a] @ gain
        covered.extend(np.abs(error) <= 1.959964 * np.sqrt(spread))
        width.extend(np.full(rows.sum(), 2 * 1.959964 * np.sqrt(spread)))
    return float(np.mean(covered)), float(np.mean(width))


def measure(cell: Cell, y: np.ndarray, before: np.ndarray, prior: object) -> tuple[float, float]:
    model = StructuralModel(season=12 if cell.season else None, prior=prior)
    found = fit_structural(y, before, model).average(~before)
    return float(((found.ci_low <= 0) & (found.ci_high >= 0)).mean()), float(
        (found.ci_high - found.ci_low).mean()
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--before", type=int, default=256)
    parser.add_argument("--after", type=int, default=24)
    parser.add_argument("--compatible-seasonal", type=int, default=100)
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=list(CELLS))
    chosen = parser.parse_args()
    before = np.arange(chosen.before + chosen.after) < chosen.before
    lines, shares = [], []
    for number, (name, cell) in enumerate(CELLS.items()):
        if name not in chosen.cells:
            continue
        rng = np.random.default_rng([chosen.seed, number])
        y = draw(cell, chosen.series, len(before), rng)
        columns = [measure(cell, y, before, LearnedPrior())]
        few = y[: chosen.compatible_seasonal] if cell.season else y
        columns.append(measure(cell, few, before, CompatiblePrior()))
        flat = cell if not cell.season else Cell()
        stripped = y - draw_season(len(before)) if cell.season else y
        columns.append(known(flat, stripped, before))
        shares.extend([columns[0][0]] if cell.target else [])
        text = "".join(f"{share:12.3f} {width:6.2f}" for share, width in columns)
        lines.append(f"{name:28s}{text}{'' if cell.target else '   beside the range'}")
    inside = sum(0.93 <= share <= 0.97 for share in shares)
    error = np.sqrt(0.05 * 0.95 / chosen.series)
    print(f"{inside} of {len(shares)} cells of the range cover 0.93 to 0.97")
    print(
        f"{chosen.series} series a cell (standard error {error:.3f}), {chosen.before} times before "
        f"the event, {chosen.after} after; coverage and mean width in sds of the residual"
    )
    print(f"{'':28s}{'default':>19s}{'as CausalImpact':>19s}{'truth known':>19s}")
    print("\n".join(lines))
    if "seasonal" in chosen.cells:
        print(f"as CausalImpact, seasonal: {chosen.compatible_seasonal} series only")


def draw_season(times: int) -> np.ndarray:
    return 2.0 * np.sin(2.0 * np.pi * np.arange(times) / 12.0 + 1.0)


if __name__ == "__main__":
    main()
