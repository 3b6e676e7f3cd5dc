"""Covariances of a walking level plus another process, made diagonal once.

With residuals of scale one, the values at the observed times have covariance

    V(q) = R + q^2 M,   M_st = min(s, t),   R_st = sqrt(w_s w_t) phi^|s - t|,

the level counted from its value at time 0, w the relative variances. For each R one rotation A
gives A V A' = I + q^2 diag(l) for every q at once, so that a density costs a sum, and data enter
linearly: all series with the same gaps share A (METHODS.md section 5, "Engine").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["Residual", "Spectrum", "spectra", "walk_cov"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Residual:
    """What is around the level, in units of the residual's scale.

    Attributes
    ----------
    phi
        Autocorrelation of the residual from one time to the next, above -1 and below 1.
    """

    phi: float = 0.0

    def cov(self, rows: Int64, columns: Int64, variance: Float64 | None = None) -> Float64:
        """Return R between two sets of times."""
        cov = np.asarray(self.phi ** np.abs(np.subtract.outer(rows, columns)).astype(float))
        if variance is None:
            return cov
        return cov * np.sqrt(np.outer(variance[rows], variance[columns]))


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
