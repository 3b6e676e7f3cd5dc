"""Whether a posterior means what it says: worlds drawn from the prior, and bands for their ranks.

Simulation-based calibration (Talts et al. 2018): parameters and series are drawn from the model,
the posterior is asked for the rank of the truth, and ranks must be uniform. The band is that of
Säilynoja, Bürkner & Vehtari (2022), section 2: it holds the whole empirical distribution of N
uniform ranks with a given probability.

The prior of :class:`~eocausal.estimators.structural_priors.LearnedPrior` is flat in the level, line
and season, and 1/s^2 in the residual's variance. Answers move and stretch with these, so that the
rank of a truth is the same whatever their values: any proper law of them gives the ranks that a
flat one would. Here log s is N(0, 1) and the flat parts are N(0, (3 s)^2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.signal import lfilter

from eocausal.estimators.structural_design import Design, build_design
from eocausal.estimators.structural_model import StructuralModel

__all__ = ["Worlds", "draw_worlds", "outside_band", "randomised_ranks", "simultaneous_level"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
FLAT = 3.0


@dataclass(frozen=True, slots=True, eq=False)
class Worlds:
    """Series without an effect drawn from a model, and what they were drawn with.

    Attributes
    ----------
    outcomes
        (N, T) the series.
    expected
        (N, T) level, line, season and controls, without the residual.
    phi, q
        (N,) autocorrelation, and sd of the level's steps over that of the residual.
    included
        (N, K) which controls are in the model.
    """

    outcomes: Float64
    expected: Float64
    phi: Float64
    q: Float64
    included: Bool


def draw_worlds(
    series: int,
    before: Bool,
    model: StructuralModel,
    rng: np.random.Generator,
    controls: Float64 | None = None,
) -> Worlds:
    """Draw series from a model with our prior, as the engine ``grid`` has it.

    Parameters
    ----------
    before
        (T,) True for the times before the event: the prior knows how many there are.
    controls
        (T, K), or none.
    """
    times = len(before)
    design = build_design(times, before, controls, model)
    cells = np.exp(design.prior.log_weight).ravel()
    cell = rng.choice(len(cells), series, p=cells / cells.sum())
    kind, step = np.divmod(cell, len(design.prior.q))
    phi = np.array([residual.phi for residual in design.prior.residuals])[kind]
    q = design.prior.q[step]
    shocks = rng.normal(size=(series, times)) * np.sqrt(1.0 - phi**2)[:, None]
    shocks[:, 0] = rng.normal(size=series)
    noise = np.empty_like(shocks)
    for value in np.unique(phi):
        rows = phi == value
        noise[rows] = lfilter([1.0], [1.0, -value], shocks[rows], axis=1)
    steps = q[:, None] * rng.normal(size=(series, times))
    steps[:, 0] = 0.0
    beta, included = _coefficients(series, design, rng)
    sd = np.exp(rng.normal(size=series))[:, None]
    expected = sd * (np.cumsum(steps, 1) + beta @ design.columns.T)
    return Worlds(expected + sd * noise, expected, phi, q, included)


def _coefficients(series: int, design: Design, rng: np.random.Generator) -> tuple[Float64, Bool]:
    """Draw (N, k) coefficients over s, and which of the controls are in the model."""
    share = np.exp(design.sets.log_prior)
    chosen = rng.choice(len(share), series, p=share / share.sum())
    member = design.sets.included[chosen]
    beta = FLAT * rng.normal(size=member.shape)
    first = member.shape[1] - design.controls
    for at in range(len(share)):
        rows = np.flatnonzero(chosen == at)
        held = np.flatnonzero(design.sets.included[at, first:]) + first
        beta[rows[:, None], np.arange(first, member.shape[1])] = 0.0
        if held.size:
            root = np.linalg.cholesky(design.sets.precision[np.ix_(held, held)])
            drawn = np.linalg.solve(root.T, rng.normal(size=(held.size, len(rows))))
            beta[rows[:, None], held] = drawn.T
    return beta, member[:, first:]


def randomised_ranks(weight: Float64, values: Float64, truth: Float64, uniform: Float64) -> Float64:
    """Return (N,) ranks of numbers with few values, ties broken at random.

    Parameters
    ----------
    weight
        (N, values) posterior probabilities.
    values
        (values,) in increasing order.
    truth, uniform
        (N,) the values drawn, and numbers between 0 and 1.
    """
    at = np.searchsorted(values, truth)
    rows = np.arange(len(weight))
    upper = np.cumsum(weight, 1)[rows, at]
    return np.asarray(upper - uniform * weight[rows, at])


def simultaneous_level(
    count: int, points: int, rng: np.random.Generator, *, level: float = 0.99, samples: int = 4000
) -> float:
    """Return the pointwise tail that ``count`` uniform ranks leave nowhere, with ``level``.

    The least of the two-sided binomial tails over ``points`` equal steps, simulated: equation 8
    and algorithm 1 of Säilynoja et al. (2022).
    """
    ranks = rng.random((samples, count))
    least = [_least_tail(row, points) for row in ranks]
    return float(np.quantile(least, 1.0 - level))


def outside_band(ranks: Float64, points: int, level: float) -> float:
    """Return the least tail of ranks over ``level`` of the band: below one they leave it."""
    return _least_tail(ranks, points) / level


def _least_tail(ranks: Float64, points: int) -> float:
    at = np.arange(1, points) / points
    below = np.searchsorted(np.sort(ranks), at, side="right")
    law = stats.binom(len(ranks), at)
    return float(np.minimum(1.0, 2.0 * np.minimum(law.cdf(below), law.sf(below - 1))).min())
