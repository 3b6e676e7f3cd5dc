"""How much each cell of a grid, with each set of regressors, is believed after the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import special

if TYPE_CHECKING:
    from eocausal.estimators.level_grid import GridPrior

__all__ = ["inside_bound", "log_weights", "normalised"]

Float64 = NDArray[np.float64]
SURE = 8.8  # standard deviations of a gamma law below its mean: less than 2e-17 is beyond
FAR = 70.0  # in log weight: nothing beyond counts


def log_weights(
    prior: GridPrior,
    log_prior: Float64,
    shape: float | Float64,
    ssr: Float64,
    log_dets: Float64,
) -> tuple[Float64, Float64]:
    """Return scale c of s^2 ~ IG(shape, c) and the log posterior, not normalised.

    Parameters
    ----------
    log_prior
        (sets,) log probability of each set plus half the log determinant of its prior precision.
    shape
        a of s^2, or (N,) those of each series.
    ssr
        (N, cells, sets) sums of squares.
    log_dets
        (..., cells, sets) log determinants of V plus those of the posterior precision.

    Returns
    -------
    Both (N, cells, sets).
    """
    a = np.asarray(shape, dtype=float)
    a = a[:, None, None] if a.ndim else a
    scale = 0.5 * np.maximum(ssr, 1e-300)
    scale += prior.scale.ravel()[:, None]
    weight = np.log(scale)
    weight *= -a
    weight += (prior.log_weight.ravel()[:, None] + log_prior) - 0.5 * log_dets
    bound = prior.max_var.ravel()[:, None]
    if np.isfinite(bound).any():
        _apply_bound(weight, scale / bound, np.broadcast_to(a, weight.shape))
    return scale, weight


def _apply_bound(weight: Float64, ratio: Float64, shape: Float64) -> None:
    """Add the log probability that s^2 is below its bound, in place, where it can matter."""
    unsure = ratio > shape - SURE * np.sqrt(shape)
    top = np.where(unsure, -np.inf, weight).max((1, 2), keepdims=True)
    hopeless = unsure & (weight < top - FAR)
    unsure &= ~hopeless
    found = special.gammaincc(shape[unsure], ratio[unsure])
    weight[unsure] += np.log(np.maximum(found, 1e-300))
    weight[hopeless] = -np.inf


def inside_bound(shape: float, scale: Float64, bound: Float64) -> Float64:
    """Return the probability that s^2 ~ IG(shape, scale) is below a bound."""
    return np.asarray(special.gammaincc(shape, scale / bound))


def normalised(log_weight: Float64) -> Float64:
    """Return (N, cells, sets) weights that sum to one over cells and sets."""
    weight = log_weight - log_weight.max((1, 2), keepdims=True)
    np.maximum(weight, -1.5 * FAR, out=weight)
    np.exp(weight, out=weight)
    weight /= weight.sum((1, 2), keepdims=True)
    return weight
