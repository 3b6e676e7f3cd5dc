"""Whether the chains of the engine gibbs have the law they should: ranks of truths.

Simulation-based calibration (Talts et al. 2018): parameters and a series are drawn from the prior,
a chain is run on the series up to the event, and the rank of the true average after it among the
draws must be uniform. Priors that are flat (level, scale of ours) take any value. A chain of its
own for each series, so that agreement of chains is not what is checked.

    python benchmarks/gibbs_calibration.py [series] [seed]

prints, for each model, a test of uniform ranks of the average after the event and of a number of
the prior, and how often 50 % and 95 % intervals hold the truth.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from eocausal.estimators.gibbs_chain import Chain
from eocausal.estimators.gibbs_convergence import Convergence
from eocausal.estimators.gibbs_gauss import Gaussian
from eocausal.estimators.gibbs_priors import GibbsPrior, degrees_prior, gibbs_prior
from eocausal.estimators.gibbs_run import Chains
from eocausal.estimators.gibbs_states import States, build_states
from eocausal.estimators.gibbs_student import Tails
from eocausal.estimators.structural_model import StructuralModel
from eocausal.estimators.structural_priors import CompatiblePrior

__all__ = ["CASES", "Case", "ranks"]

Float64 = NDArray[np.float64]
TIMES, LAST, BURN, DRAWS = 36, 28, 40, 60
APART = 4  # sweeps from one draw to the next where these depend on each other


@dataclass(frozen=True, slots=True)
class Case:
    """A model, and the name of the number whose rank is asked for beside the average."""

    model: StructuralModel
    number: str


CASES = {
    "dynamic, R": Case(StructuralModel(dynamic=True, prior=CompatiblePrior(0.05)), "coefficients"),
    "dynamic, ours": Case(StructuralModel(dynamic=True), "coefficients"),
    "Student, R": Case(StructuralModel(heavy_tails=True, prior=CompatiblePrior(0.05)), "degrees"),
    "Student, ours": Case(StructuralModel(heavy_tails=True), "degrees"),
    "selection, ours": Case(StructuralModel(), "residual"),
}


def ranks(case: Case, count: int, seed: int) -> Float64:
    """Return (count, 2) shares of draws below the truth: of the average, and of the number."""
    rng = np.random.default_rng(seed)
    return np.array([_rank(case, rng, key) for key in range(count)])


def _rank(case: Case, rng: np.random.Generator, key: int) -> Float64:
    model = case.model
    controls = 0 if model.heavy_tails else 4 if not model.dynamic else 2
    x = rng.normal(size=(TIMES, controls))
    x = (x - x[:LAST].mean(0)) / x[:LAST].std(0, ddof=1)
    ours = not isinstance(model.prior, CompatiblePrior)
    seen = np.arange(TIMES) < LAST
    seen[[9, 10, 20]] = False
    gaps = np.array([9, 10, 20]) if ours else np.array([], dtype=int)
    states = build_states(TIMES, x, np.ones(TIMES, bool), model, gaps)
    prior = gibbs_prior(model, LAST, x.std(0, ddof=1) if controls else None)
    y, truth = _world(case, states, prior, x, rng, ours=ours)
    own = np.random.Generator(np.random.Philox(key=[1, key]))
    gaussian = Gaussian(states, y, seen, correlated=ours)
    tails = None
    if model.heavy_tails:
        span = gaussian.span
        tails = Tails(degrees_prior(model), 2.0, np.ones(len(span)), seen[span])
    chain = Chain(gaussian, prior, tails, np.ones(TIMES), own)
    apart = APART if model.heavy_tails or not ours else 1
    for _ in range(BURN * apart):
        chain.sweep(tune=True)
    sweeps = [chain.sweep(tune=False) for _ in range(DRAWS * apart)][::apart]
    unknown = Convergence(np.nan, "", np.nan, BURN, DRAWS, agreed=False)
    found = Chains(
        sweeps, np.ones(controls), unknown, np.zeros(TIMES), LAST - 1, np.ones(TIMES),
        prior.ratios, (2, key),
    )  # fmt: skip
    drawn = found.paths(DRAWS).replicate[:, LAST:].mean(1)
    number = found.parameters(DRAWS)[case.number].reshape(DRAWS, -1)[:, 0]
    out = [(drawn < y[LAST:].mean()).mean(), (number < truth).mean()]
    return np.asarray(out) + rng.random(2) / DRAWS


def _world(
    case: Case,
    states: States,
    prior: GibbsPrior,
    x: Float64,
    rng: np.random.Generator,
    *,
    ours: bool,
) -> tuple[Float64, float]:
    """Draw truths from the prior and a series from them; return it and the true number."""
    model = case.model
    at = _coordinates(prior, rng)
    values = prior.values(at)
    sd = np.exp(rng.uniform(-1.0, 1.0)) if ours else np.sqrt(values.residual)
    unit = sd if ours else 1.0
    level = 5.0 if ours else rng.normal()
    path = level + unit * np.sqrt(values.level) * np.cumsum(np.r_[0.0, rng.normal(size=TIMES - 1)])
    degrees = np.inf
    if model.dynamic:
        start = np.eye(2)
        if ours:
            information = 0.005 * (x.T @ x + np.diag(np.diagonal(x.T @ x))) / TIMES
            start = sd * np.linalg.inv(np.linalg.cholesky(information)).T
        steps = unit * np.sqrt(values.coefficients) * rng.normal(size=(TIMES, 2))
        steps[0] = start @ rng.normal(size=2)
        path = path + (x * np.cumsum(steps, 0)).sum(1)
    elif not model.heavy_tails:
        included = rng.random(4) < states.share
        information = states.information[np.ix_(included, included)]
        root = np.linalg.inv(np.linalg.cholesky(information)).T
        path = path + sd * x[:, included] @ (root @ rng.normal(size=int(included.sum())))
    noise = np.empty(TIMES)
    noise[0] = rng.normal()
    for time in range(1, TIMES):
        noise[time] = values.phi * noise[time - 1] + np.sqrt(1 - values.phi**2) * rng.normal()
    if model.heavy_tails:
        degrees = _degrees(ours, rng)
        noise = noise / np.sqrt(rng.gamma(degrees / 2, 2 / degrees, TIMES))
    truths = {"degrees": degrees, "residual": sd}
    if model.dynamic:
        truths["coefficients"] = unit * np.sqrt(values.coefficients[0])
    return path + sd * noise, float(truths[case.number])


def _coordinates(prior: GibbsPrior, rng: np.random.Generator) -> list[float]:
    """Draw the coordinates of a prior by inversion on a fine grid."""
    out: list[float] = []
    if prior.cells is not None:
        cell = int(np.searchsorted(prior.cells, rng.random(), side="right"))
        out.extend(map(float, divmod(min(cell, len(prior.cells) - 1), prior.columns)))
    for coordinate in prior.coordinates[len(out) :]:
        grid = np.linspace(coordinate.low, coordinate.high, 20001)[:-1]
        height = np.array([coordinate.log_density(float(u)) for u in grid])
        weight = np.cumsum(np.exp(height - height.max()))
        out.append(float(grid[np.searchsorted(weight, weight[-1] * rng.random())]))
    return out


def _degrees(ours: bool, rng: np.random.Generator) -> float:
    if not ours:
        return float(rng.uniform(0.1, 100.0))
    while (degrees := rng.gamma(2.0, 10.0)) <= 2.0:
        pass
    return float(degrees)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    for name, case in CASES.items():
        found = ranks(case, count, seed)
        tests = [stats.kstest(found[:, at], "uniform").pvalue for at in range(2)]
        inside = [(np.abs(found[:, 0] - 0.5) < half).mean() for half in (0.25, 0.475)]
        print(
            f"{name:16s} {count} series: p of uniform ranks {tests[0]:.3f} (average), "
            f"{tests[1]:.3f} ({case.number}); 50 % holds {inside[0]:.3f}, 95 % {inside[1]:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
