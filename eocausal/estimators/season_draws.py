"""Draws of a level with seasonal effects that change, given their sum with the residual.

A path drawn from the model alone is corrected by the conditional mean given the data (Durbin &
Koopman 2012, section 4.9.1, with the dense covariances of the grid).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from eocausal.estimators.level_spectrum import Spectrum, season_responses

__all__ = ["SeasonConditional"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class SeasonConditional:
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
