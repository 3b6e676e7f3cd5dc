"""Whether chains agree: rank-normalised split R-hat and effective number of draws.

Vehtari et al. (2021): chains are cut in halves; R-hat compares the variance between halves with
that within, of ranks turned into normal scores, and of their distance from the middle. The number
of independent draws that would say as much follows from the autocorrelations, summed in pairs as
long as these are positive and fall (Geyer 1992).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, special, stats

__all__ = ["Convergence", "effective_draws", "r_hat"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Convergence:
    """How far the chains of a series can be trusted.

    Attributes
    ----------
    r_hat
        Largest R-hat; near one if the chains agree.
    worst
        What it is of.
    effective
        Independent draws that the mean of the times not learned from is worth.
    burn_in
        Sweeps of each chain that were dropped.
    kept
        Sweeps of all chains that were kept.
    agreed
        Whether R-hat and number are good enough.
    """

    r_hat: float
    worst: str
    effective: float
    burn_in: int
    kept: int
    agreed: bool


def r_hat(draws: Float64) -> float:
    """Return R-hat of ``draws`` (chains, sweeps), one for a constant."""
    halves = _halves(draws)
    if np.ptp(halves) == 0:
        return 1.0
    folded = np.abs(halves - np.median(halves))
    return max(_plain(_scores(halves)), _plain(_scores(folded)))


def effective_draws(draws: Float64) -> float:
    """Return how many independent draws ``draws`` (chains, sweeps) are worth for their mean."""
    halves = _halves(draws)
    chains, n = halves.shape
    if np.ptp(halves) == 0:
        return float(halves.size)
    centred = halves - halves.mean(1, keepdims=True)
    spectrum = fft.rfft(centred, 2 * n, axis=1)
    autocov = fft.irfft(np.abs(spectrum) ** 2, 2 * n, axis=1)[:, :n] / n
    within = float(autocov[:, 0].mean()) * n / (n - 1)
    total = within * (n - 1) / n + float(halves.mean(1).var(ddof=1))
    rho = 1.0 - (within - autocov.mean(0)) / total
    rho[0] = 1.0
    pairs = rho[: n - n % 2].reshape(-1, 2).sum(1)
    negative = np.flatnonzero(pairs < 0)
    pairs = pairs[: negative[0]] if negative.size else pairs
    time = max(2.0 * float(np.minimum.accumulate(pairs).sum()) - 1.0, 1.0 / np.log10(chains * n))
    return float(chains * n / time)


def _halves(draws: Float64) -> Float64:
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, -half:]])


def _scores(draws: Float64) -> Float64:
    ranks = stats.rankdata(draws).reshape(draws.shape)
    return np.asarray(special.ndtri((ranks - 0.375) / (draws.size + 0.25)))


def _plain(draws: Float64) -> float:
    n = draws.shape[1]
    within = float(draws.var(1, ddof=1).mean())
    between = float(draws.mean(1).var(ddof=1))
    if within == 0:
        return 1.0 if between == 0 else np.inf
    return float(np.sqrt((n - 1) / n + between / within))
