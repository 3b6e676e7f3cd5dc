"""Draws of whole paths from the posterior of a walking level with autocorrelated residual.

A draw takes a cell and a set of regressors by their weight, s^2 and the coefficients from their
exact laws, and corrects a path drawn from the model alone by the conditional mean given the data
(Durbin & Koopman 2012, section 4.9.1, with the dense covariances of the grid).
Random numbers come from a counter (Philox) keyed by seed and series, a row for each draw: a draw
is the same whatever series are beside it and however many draws follow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.signal import lfilter

from eocausal.estimators.level_grid import GridPosterior
from eocausal.estimators.level_spectrum import Spectrum, season_responses

__all__ = ["Paths", "draw_paths"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Paths:
    """Draws for one series, each ``(draws, T)``.

    Attributes
    ----------
    expected
        Level, season and regressors, without the residual.
    replicate
        The same with a residual: after the last value the residual that continues the observed
        one, before it a new one that knows nothing of it.
    """

    expected: Float64
    replicate: Float64


def draw_paths(
    posterior: GridPosterior, series: int, y: Float64, *, draws: int, seed: int, key: int
) -> Paths:
    """Draw paths of one series.

    Parameters
    ----------
    series
        Row of the posterior.
    y
        (n,) its values at the observed times.
    seed, key
        Together they fix the random numbers; ``key`` names the series.
    """
    grid = posterior.grid
    pick, rng = (
        np.random.Generator(np.random.Philox(key=[seed, key], counter=[0, 0, 0, stream]))
        for stream in (0, 1)
    )
    times, sets = len(grid.design), grid.sets.included.shape[0]
    columns = grid.design.shape[1]
    choice = pick.random((draws, 2))
    normal = rng.standard_normal((draws, columns + 4 * times))
    weight = posterior.weight[series].ravel()
    which = np.searchsorted(np.cumsum(weight) / weight.sum(), choice[:, 0], side="right")
    cell, chosen = np.divmod(np.minimum(which, weight.size - 1), sets)
    sd = np.sqrt(_variances(posterior, series, cell, chosen, choice[:, 1]))[:, None]
    beta = _coefficients(posterior, series, cell, chosen, sd, normal[:, :columns])
    mean = beta @ grid.design.T
    gap = (y - mean[:, grid.times]) / sd
    state, noise = np.empty_like(mean), np.empty_like(mean)
    kind, step = np.divmod(cell, len(grid.prior.q))
    past = np.arange(times) <= grid.times[-1]
    for at, (rotation, weights, _) in enumerate(grid.parts()):
        mine = np.flatnonzero(kind == at)
        if not mine.size:
            continue
        given = _Conditional(
            rotation, weights[step[mine]], grid.prior.q[step[mine], None], grid.times, grid.variance
        )
        numbers = np.split(normal[mine, columns:], 4, axis=1)
        state[mine], ahead = given.draw(gap[mine], numbers)
        noise[mine] = np.where(past, given.noise(numbers[3]), ahead)
    expected = mean + sd * state
    return Paths(expected, expected + sd * noise)


def _variances(
    posterior: GridPosterior, series: int, cell: Int64, chosen: Int64, uniform: Float64
) -> Float64:
    """Draw s^2 from inverse-gamma laws cut off at their bounds, by inversion."""
    scale = posterior.scale[series][cell, chosen]
    inside = posterior.inside()[series][cell, chosen]
    return np.asarray(scale / special.gammainccinv(posterior.shape, uniform * inside))


def _coefficients(
    posterior: GridPosterior, series: int, cell: Int64, chosen: Int64, sd: Float64, normal: Float64
) -> Float64:
    """Draw coefficients ``(draws, k)``; those of columns left out are zero."""
    grid = posterior.grid
    pairs, back = np.unique(np.stack([cell, chosen], 1), axis=0, return_inverse=True)
    gram = grid.grams[pairs[:, 0]] + grid.sets.precision
    if np.isfinite(grid.prior.start_var):
        gram[:, 0, 0] += posterior.start[series]
    member = grid.sets.included[pairs[:, 1]]
    gram = np.where(member[:, :, None] & member[:, None, :], gram, 0.0)
    gram = gram + np.eye(gram.shape[-1]) * ~member[:, None, :]
    root = np.linalg.inv(np.linalg.cholesky(gram))
    noise = np.einsum("dlk,dl->dk", root[back.ravel()], normal)
    center = posterior.coefficients[series][cell, chosen]
    return np.asarray(center + sd * noise * grid.sets.included[chosen])


@dataclass(frozen=True, slots=True, eq=False)
class _Conditional:
    """Level, season and residual of scale one given their sum at the observed times."""

    rotation: Spectrum
    weights: Float64
    q: Float64
    times: Int64
    variance: Float64 | None

    def draw(self, total: Float64, numbers: list[Float64]) -> tuple[Float64, Float64]:
        """Return (draws, T) level with season, zero at time 0, and residual."""
        residual, every = self.rotation.residual, np.arange(numbers[0].shape[1])
        steps = np.where(every > 0, numbers[0], 0.0)
        state = self.q * np.cumsum(steps, 1)
        noise = self.noise(numbers[1])
        if residual.season_sd:
            shocks = residual.season_sd * numbers[2]
            state += shocks @ season_responses(residual.period, len(every)).T
        gap = total - (state + noise)[:, self.times]
        turn = self.rotation.rotation
        loads = ((gap @ turn.T) * self.weights) @ turn
        placed = np.zeros_like(state)
        placed[:, self.times] = loads
        later = np.where(every > 0, np.cumsum(placed[:, ::-1], 1)[:, ::-1], 0.0)
        state += self.q**2 * np.cumsum(later, 1)
        if residual.season_sd:
            state += loads @ residual.season_cov(self.times, every)
        return state, noise + loads @ residual.noise_cov(self.times, every, self.variance)

    def noise(self, numbers: Float64) -> Float64:
        """Return stationary residuals from standard normal numbers ``(draws, T)``."""
        phi = self.rotation.residual.phi
        shocks = np.where(np.arange(numbers.shape[1]) > 0, np.sqrt(1.0 - phi**2), 1.0) * numbers
        path = np.asarray(lfilter([1.0], [1.0, -phi], shocks, axis=1))
        return path if self.variance is None else path * np.sqrt(self.variance)
