"""Covariances of a walking level plus another process, made diagonal once.

With residuals of scale one, the values at the observed times have covariance

    V(q) = R + q^2 M,   M_st = min(s, t),   R_st = sqrt(w_s w_t) phi^|s - t| + g^2 S_st,

the level counted from its value at time 0, w the relative variances, S the covariance of seasonal
effects that start at zero and take a shock of variance one at each time. For each R one rotation
A gives A V A' = I + q^2 diag(l) for every q at once, so that a density costs a sum, and data enter
linearly: all series with the same gaps share A (METHODS.md section 5, "Engine").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["Residual", "Spectrum", "season_responses", "spectra", "walk_cov"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Residual:
    """What is around the level, in units of the residual's scale.

    Attributes
    ----------
    phi
        Autocorrelation of the residual from one time to the next, 0 to below 1.
    season_sd
        Standard deviation of the shocks to the seasonal effects; 0 if these do not change.
    period
        Times in a season; only read if ``season_sd`` is above zero.
    """

    phi: float = 0.0
    season_sd: float = 0.0
    period: int = 0

    def noise_cov(self, rows: Int64, columns: Int64, variance: Float64 | None = None) -> Float64:
        """Return the covariance of the residual alone between two sets of times."""
        cov = np.asarray(self.phi ** np.abs(np.subtract.outer(rows, columns)).astype(float))
        if variance is None:
            return cov
        return cov * np.sqrt(np.outer(variance[rows], variance[columns]))

    def season_cov(self, rows: Int64, columns: Int64) -> Float64:
        """Return the covariance of the seasonal effects between two sets of times."""
        if not self.season_sd:
            return np.zeros((len(rows), len(columns)))
        responses = season_responses(self.period, int(max(rows.max(), columns.max())) + 1)
        return self.season_sd**2 * responses[rows] @ responses[columns].T

    def cov(self, rows: Int64, columns: Int64, variance: Float64 | None = None) -> Float64:
        """Return R between two sets of times."""
        noise = self.noise_cov(rows, columns, variance)
        return noise + self.season_cov(rows, columns) if self.season_sd else noise


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """The rotation that makes the covariances of level and residual diagonal.

    Attributes
    ----------
    residual
        What is around the level.
    rotation
        (n, n) A, for the n observed times.
    walk
        (n,) l, the variances of the rotated level walk per q^2.
    log_det
        Log determinant of R.
    """

    residual: Residual
    rotation: Float64
    walk: Float64
    log_det: float


def spectra(
    observed: NDArray[np.bool_], residuals: Sequence[Residual], variance: Float64 | None = None
) -> tuple[Spectrum, ...]:
    """Decompose the covariances at the observed times, once for each residual.

    Parameters
    ----------
    observed
        (T,) True where there is a value.
    residuals
        What may be around the level.
    variance
        (T,) relative variances of the residual, all above zero; equal if not given.
    """
    weights = b"" if variance is None else np.ascontiguousarray(variance, dtype=float).tobytes()
    return _spectra(observed.tobytes(), tuple(residuals), weights)


@lru_cache(maxsize=16)
def _spectra(
    observed: bytes, residuals: tuple[Residual, ...], variance: bytes
) -> tuple[Spectrum, ...]:
    times = np.flatnonzero(np.frombuffer(observed, dtype=np.bool_))
    weights = np.frombuffer(variance) if variance else None
    walk = walk_cov(times, times)
    found = []
    for residual in residuals:
        whiten, log_det = _whitener(residual, times, weights)
        values, vectors = np.linalg.eigh(whiten @ walk @ whiten.T)
        found.append(Spectrum(residual, vectors.T @ whiten, np.clip(values, 0.0, None), log_det))
    return tuple(found)


def _whitener(residual: Residual, times: Int64, variance: Float64 | None) -> tuple[Float64, float]:
    """Return W with W R W' = I, and log |R|; an AR(1) needs only its last value, over gaps too."""
    if residual.season_sd:
        root = np.linalg.cholesky(residual.cov(times, times, variance))
        return np.linalg.inv(root), 2.0 * float(np.log(np.diagonal(root)).sum())
    n = len(times)
    rho = residual.phi ** np.diff(times).astype(float)
    sd = np.sqrt(1.0 - rho**2)
    whiten = np.eye(n)
    at = np.arange(1, n)
    whiten[at, at] = 1.0 / sd
    whiten[at, at - 1] = -rho / sd
    scale = np.ones(n) if variance is None else np.sqrt(variance[times])
    return whiten / scale, 2.0 * float(np.log(sd).sum() + np.log(scale).sum())


def walk_cov(rows: Int64, columns: Int64) -> Float64:
    """Return M between two sets of times."""
    return np.minimum.outer(rows, columns).astype(float)


@lru_cache(maxsize=4)
def season_responses(period: int, times: int) -> Float64:
    """Return (T, T) effects at each time of a unit shock at each time; none at time 0.

    Seasonal effects over any ``period`` times sum to the shock at the last of them.
    """
    lag = np.subtract.outer(np.arange(times), np.arange(times))
    response = 1.0 * ((lag >= 0) & (lag % period == 0)) - ((lag > 0) & (lag % period == 1))
    response[:, 0] = 0.0
    response.setflags(write=False)
    return np.asarray(response)
