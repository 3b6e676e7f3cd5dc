"""Coverage and width of 95 % intervals of the average effect when there is none.

python benchmarks/impact_coverage.py [--series 1000] [--seed 0] [--before 256 --after 24]
    [--cells "AR 0.6" "walk 0.02" ...] [--compatible-sds 0.01 0.03 0.1] [--sbc]

Series of unit residual variance in cells: independent noise, AR(1), a level that walks under
independent noise (sd of a step 0.02, 0.05), a season of 12, 20 % of values missing, three shared
controls of which one matters; and beside the range the default was chosen for: stronger
autocorrelation, faster walks, both, ARMA(2, 1), a season that walks, a step before the event that
no one declared, residuals whose variance triples, t residuals. The last columns are an interval
that knows the truth, which no method can undercut at the same coverage (AR and walks only).
With ``--sbc``: ranks of worlds drawn from the prior, see interval_ranks.py.
"""

import argparse
from dataclasses import dataclass

import numpy as np
from interval_ranks import report
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
    controls: int = 0
    other: str = ""

    @property
    def plain(self) -> bool:
        """Whether the true covariance is known here."""
        return not self.controls and not self.other


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
    "3 controls": Cell(controls=3),
    "AR 0.6, 3 controls": Cell(phi=0.6, controls=3),
    "3 controls of AR 0.8": Cell(controls=3, other="AR controls"),
    "AR 0.9": Cell(phi=0.9, target=False),
    "walk 0.1": Cell(walk=0.1, target=False),
    "AR 0.6, walk 0.05": Cell(phi=0.6, walk=0.05, target=False),
    "ARMA(2, 1)": Cell(target=False, other="ARMA"),
    "season walks, 0.02": Cell(season=True, target=False, other="season walks"),
    "step of 1 before": Cell(target=False, other="step"),
    "variance triples": Cell(target=False, other="variance"),
    "t of 3 df": Cell(target=False, other="tails"),
}
PATTERNS = 8  # of gaps in a cell
SEASONAL = 40  # series by an engine that takes them one at a time


def autoregressive(phi: float, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    shocks = rng.normal(size=shape) * np.sqrt(1.0 - phi**2)
    shocks[:, 0] /= np.sqrt(1.0 - phi**2)
    return np.asarray(lfilter([1.0], [1.0, -phi], shocks, axis=1))


def residual(cell: Cell, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draw residuals of variance one (on average over times)."""
    if cell.other == "tails":
        return rng.standard_t(3, size=shape) / np.sqrt(3.0)
    if cell.other == "ARMA":
        burnt = rng.normal(size=(shape[0], shape[1] + 200))
        y = lfilter([1.0, 0.4], [1.0, -0.5, -0.2], burnt, axis=1)[:, 200:]
        return y / y.std()
    y = autoregressive(cell.phi, shape, rng)
    if cell.other == "variance":
        return y * np.sqrt(np.where(np.arange(shape[1]) < shape[1] // 2, 0.5, 1.5))
    return y


def draw(
    cell: Cell, series: int, before: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """Draw series and their controls."""
    times = len(before)
    y = residual(cell, (series, times), rng)
    y = y + np.cumsum(cell.walk * rng.normal(size=y.shape), axis=1)
    if cell.season:
        y = y + draw_season(times)
    if cell.other == "season walks":
        steps = 0.02 * rng.normal(size=(2, series, times)).cumsum(2)
        angle = 2.0 * np.pi * np.arange(times) / 12.0
        y = y + steps[0] * np.cos(angle) + steps[1] * np.sin(angle)
    if cell.other == "step":
        y[:, before.sum() // 2 :] += 1.0
    if cell.missing:
        holes = rng.random((PATTERNS, times)) < cell.missing
        y[holes[np.arange(series) % PATTERNS]] = np.nan
    if not cell.controls:
        return y, None
    phi = 0.8 if cell.other == "AR controls" else 0.0
    x = autoregressive(phi, (cell.controls, times), rng).T
    return y + x[:, 0], x


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


def measure(
    cell: Cell, y: np.ndarray, x: np.ndarray | None, before: np.ndarray, prior: object
) -> tuple[float, float]:
    model = StructuralModel(season=12 if cell.season else None, prior=prior)
    found = fit_structural(y, before, model, controls=x).average(~before)
    return float(((found.ci_low <= 0) & (found.ci_high >= 0)).mean()), float(
        (found.ci_high - found.ci_low).mean()
    )


def together(
    cell: Cell, prior: object, before: np.ndarray, series: int, seed: list[int]
) -> tuple[float, float]:
    """Measure over several draws of the controls, as these are shared by the series of one."""
    parts = 20 if cell.controls else 1
    found = []
    for part in range(parts):
        rng = np.random.default_rng([*seed, part])
        y, x = draw(cell, -(-series // parts), before, rng)
        found.append(measure(cell, y, x, before, prior))
    share, width = np.mean(found, axis=0)
    return float(share), float(width)


def row(cell: Cell, chosen: argparse.Namespace, number: int) -> list[tuple[float, float]]:
    before = np.arange(chosen.before + chosen.after) < chosen.before
    seed = [chosen.seed, number]
    columns = [together(cell, LearnedPrior(), before, chosen.series, seed)]
    for sd in chosen.compatible_sds:
        few = min(chosen.series, SEASONAL) if cell.season else chosen.series
        columns.append(together(cell, CompatiblePrior(sd), before, few, seed))
    if cell.plain:
        y, _ = draw(cell, chosen.series, before, np.random.default_rng([*seed, 0]))
        flat = Cell() if cell.season else cell
        columns.append(known(flat, y - draw_season(len(before)) if cell.season else y, before))
    return columns


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--before", type=int, default=256)
    parser.add_argument("--after", type=int, default=24)
    parser.add_argument("--compatible-sds", type=float, nargs="*", default=[0.01, 0.03, 0.1])
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--sbc", action="store_true", help="ranks of worlds from the prior instead")
    chosen = parser.parse_args()
    if chosen.sbc:
        report(chosen.series, 199, chosen.seed)
        return
    print(
        f"{chosen.series} series a cell (standard error "
        f"{np.sqrt(0.05 * 0.95 / chosen.series):.4f}), {chosen.before} times before the event, "
        f"{chosen.after} after; coverage and mean width in sds of the residual"
    )
    names = ["default", *(f"CausalImpact {sd:g}" for sd in chosen.compatible_sds), "truth known"]
    print(" " * 28 + "".join(f"{name:>20s}" for name in names))
    shares = []
    for number, (name, cell) in enumerate(CELLS.items()):
        if name not in chosen.cells:
            continue
        columns = row(cell, chosen, number)
        shares.extend([columns[0][0]] if cell.target else [])
        text = "".join(f"{share:13.3f} {width:6.2f}" for share, width in columns)
        print(f"{name:28s}{text}{'' if cell.target else '   beside the range'}", flush=True)
    inside = sum(0.93 <= share <= 0.97 for share in shares)
    print(f"{inside} of {len(shares)} cells of the range cover 0.93 to 0.97")
    if chosen.compatible_sds:
        print(f"CausalImpact's priors with a season: {SEASONAL} series at most")


def draw_season(times: int) -> np.ndarray:
    return 2.0 * np.sin(2.0 * np.pi * np.arange(times) / 12.0 + 1.0)


if __name__ == "__main__":
    main()
