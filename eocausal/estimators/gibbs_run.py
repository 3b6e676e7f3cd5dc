"""Chains of one series side by side, run until they agree.

Four chains start apart. Each drops a burn-in: at least the sweeps in which slices find their
widths, and, as bsts, those before the log density first exceeds its minimum over the last tenth.
The rest is kept while rank-normalised split R-hat of every number, and of the mean over the times
not learned from, is at most 1.01 and that mean is worth 400 draws or more; else the chains run on,
to twice the length, three times at most. If they do not agree even then, a warning says so, and
:class:`Convergence` keeps it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from eocausal.estimators.gibbs_chain import Chain, Sweep
from eocausal.estimators.gibbs_convergence import Convergence, effective_draws, r_hat
from eocausal.estimators.gibbs_gauss import Gaussian
from eocausal.estimators.gibbs_priors import degrees_prior, gibbs_prior
from eocausal.estimators.gibbs_states import build_states
from eocausal.estimators.gibbs_student import Tails
from eocausal.estimators.level_draws import Paths
from eocausal.estimators.structural_model import StructuralModel, Trend
from eocausal.estimators.structural_priors import CompatiblePrior

__all__ = ["CHAINS", "Chains", "run_chains"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
CHAINS = 4
TUNING = 100
DOUBLINGS = 3
AGREED, ENOUGH = 1.01, 400.0


@dataclass(frozen=True, slots=True, eq=False)
class Chains:
    """What the chains of a series found, the series of mean zero and sd one before the event.

    Attributes
    ----------
    sweeps
        Those kept of all chains, in turn.
    inclusion
        (K,) probability of each control.
    convergence
        How far the chains agree.
    offset
        (T,) prior mean that was taken off.
    last
        Last time learned from.
    relative
        (T,) relative sds of the residual.
    ratios
        Whether variances are ratios to that of the residual.
    key
        Of the random numbers.
    """

    sweeps: list[Sweep]
    inclusion: Float64
    convergence: Convergence
    offset: Float64
    last: int
    relative: Float64
    ratios: bool
    key: tuple[int, int]

    def paths(self, draws: int) -> Paths:
        """Return some of the draws, evenly spaced, with residuals."""
        chosen = self._chosen(draws)
        path = self.offset + np.stack([sweep.expected for sweep in chosen])
        rng = np.random.Generator(np.random.Philox(key=list(self.key), counter=[0, 0, 0, CHAINS]))
        return Paths(path, path + _noise(chosen, self.last, self.relative, rng))

    def parameters(self, draws: int) -> dict[str, Float64]:
        """Return standard deviations, autocorrelations and degrees of freedom of these draws."""
        chosen = self._chosen(draws)
        sd = np.array([sweep.sd for sweep in chosen])
        unit = sd if self.ratios else np.ones(len(chosen))
        out = {"residual": sd, "degrees": np.array([sweep.degrees for sweep in chosen])}
        for name in ("phi", "rho"):
            out[name] = np.array([getattr(sweep.values, name) for sweep in chosen])
        for name in ("level", "slope", "seasons", "coefficients"):
            squares = np.array([getattr(sweep.values, name) for sweep in chosen])
            out[name] = (unit * np.sqrt(squares).T).T
        return out

    def _chosen(self, draws: int) -> list[Sweep]:
        pick = np.linspace(0, len(self.sweeps) - 1, draws).round().astype(int)
        return [self.sweeps[at] for at in pick]


def run_chains(
    y: Float64,
    seen: Bool,
    x: Float64,
    usable: Bool,
    count: int,
    relative: Float64,
    model: StructuralModel,
    *,
    least: int,
    seed: int,
    key: int,
    name: int,
) -> Chains:
    """Run the chains of one series.

    Parameters
    ----------
    y
        (T,) series of mean zero and sd one over the times ``seen``.
    x
        (T, K) controls of the same kind, zero where not ``usable``.
    count
        Number of times before the event.
    relative
        (T,) relative sds of the residual.
    least
        Sweeps of each chain to keep at least.
    name
        Row that a warning names.
    """
    ours = not isinstance(model.prior, CompatiblePrior)
    offset = _offset(y, seen, model)
    states = build_states(len(y), x, usable, model, _gaps(seen) if ours else np.array([], int))
    spread = x[usable].std(0, ddof=1) if x.shape[1] else None
    prior = gibbs_prior(model, count, spread)
    team = []
    for number in range(CHAINS):
        rng = np.random.Generator(np.random.Philox(key=[seed, key], counter=[0, 0, 0, number]))
        gaussian = Gaussian(states, y - offset, seen, correlated=ours)
        tails = None
        if model.heavy_tails:
            start = degrees_prior(model)
            span = gaussian.span
            tails = Tails(start, rng.uniform(*start.start), np.ones(len(span)), seen[span])
        team.append(Chain(gaussian, prior, tails, relative, rng))
    ahead = usable & ~seen
    ahead = ahead if ahead.any() else usable
    kept, convergence = _agree(team, ahead, least, _names(team[0]))
    if not convergence.agreed:
        warnings.warn(
            f"The chains of series {name} do not agree: R-hat {convergence.r_hat:.3f} of "
            f"{convergence.worst}, {convergence.effective:.0f} effective draws of "
            f"{convergence.kept}. Ask for more draws, or take a simpler model.",
            UserWarning,
            stacklevel=4,
        )
    sweeps = [sweep for together in zip(*kept, strict=True) for sweep in together]
    shares = np.mean([sweep.included for sweep in sweeps], axis=0)
    first = len(states.static) - states.controls
    inclusion = np.ones(states.controls) if states.dynamic else np.asarray(shares[first:])
    return Chains(
        sweeps, inclusion, convergence, offset, int(np.flatnonzero(seen)[-1]), relative,
        prior.ratios, (seed, key),
    )  # fmt: skip


def _names(chain: Chain) -> tuple[str, ...]:
    """Return the names of the numbers that are checked."""
    return (*(c.name for c in chain.prior.coordinates), "scale", "degrees", "controls", "mean")


def _offset(y: Float64, seen: Bool, model: StructuralModel) -> Float64:
    """Return (T,) the prior mean: with CausalImpact's prior the first value, and bsts's line."""
    if not isinstance(model.prior, CompatiblePrior):
        return np.zeros(len(y))
    times = np.flatnonzero(seen)
    first = np.full(len(y), y[times[0]])
    if model.trend is Trend.LOCAL_LINEAR:
        first = first + (y[times[-1]] - y[times[0]]) / (times[-1] + 1) * np.arange(len(y))
    return first


def _gaps(seen: Bool) -> NDArray[np.int64]:
    times = np.flatnonzero(seen)
    return np.setdiff1d(np.arange(times[0], times[-1] + 1), times)


def _agree(
    team: list[Chain], ahead: Bool, least: int, names: tuple[str, ...]
) -> tuple[list[list[Sweep]], Convergence]:
    """Run until the chains agree; return the sweeps to keep of each."""
    paths: list[list[Sweep]] = [[chain.sweep(tune=True) for _ in range(TUNING)] for chain in team]
    for doubling in range(DOUBLINGS + 1):
        for chain, path in zip(team, paths, strict=True):
            while len(path) < TUNING + least * 2**doubling:
                path.append(chain.sweep(tune=False))
        burn = max(TUNING, *(_suggested(path) for path in paths))
        burn = min(burn, len(paths[0]) // 2)
        kept = [path[burn:] for path in paths]
        table = np.array([[_monitored(sweep, ahead) for sweep in path] for path in kept])
        table = table.transpose(2, 0, 1)
        hats = np.array([r_hat(draws) for draws in table])
        effective = effective_draws(table[-1])
        worst = int(np.argmax(hats))
        agreed = bool(hats[worst] <= AGREED and effective >= ENOUGH)
        found = Convergence(
            float(hats[worst]), names[worst], effective, burn, table[0].size, agreed
        )
        if agreed:
            break
    return kept, found


def _suggested(path: list[Sweep]) -> int:
    """Return the burn-in of bsts: sweeps before the minimum of the last tenth is exceeded."""
    heights = np.array([sweep.log_density for sweep in path])
    least = heights[-max(1, len(heights) // 10) :].min()
    return int(np.argmax(heights >= least))


def _monitored(sweep: Sweep, ahead: Bool) -> Float64:
    degrees = np.log(sweep.degrees) if np.isfinite(sweep.degrees) else 0.0
    rest = [degrees, float(sweep.included.sum()), float(sweep.expected[ahead].mean())]
    return np.array([*sweep.at, np.log(sweep.sd), *rest])


def _noise(chosen: list[Sweep], last: int, relative: Float64, rng: np.random.Generator) -> Float64:
    """Draw residuals (draws, T): new ones up to the last value, going on from it afterwards."""
    times, count = len(relative), len(chosen)
    sd = np.array([sweep.sd for sweep in chosen])[:, None]
    phi = np.array([sweep.values.phi for sweep in chosen])
    shocks = rng.standard_normal((count, times))
    degrees = np.array([sweep.degrees for sweep in chosen])
    noise = np.empty_like(shocks)
    before = np.arange(times) <= last
    for value in np.unique(phi):
        rows = np.flatnonzero(phi == value)
        own = shocks[rows] * np.sqrt(1.0 - value**2)
        start = np.array([chosen[row].last for row in rows])
        old, new = own[:, before], own[:, ~before]
        old[:, 0] = shocks[rows, 0]
        filtered = lfilter([1.0], [1.0, -value], old, axis=1)
        noise[np.ix_(rows, before)] = filtered
        if new.shape[1]:
            going = lfilter([1.0], [1.0, -value], new, axis=1, zi=value * start[:, None])[0]
            noise[np.ix_(rows, ~before)] = going
    heavy = np.isfinite(degrees)
    if heavy.any():
        half = np.broadcast_to(0.5 * degrees[:, None], noise.shape)
        noise = noise / np.sqrt(rng.standard_gamma(half) / half)
    return np.asarray(sd * relative * noise)
