"""How much each cell of a grid, with each set of regressors, is believed after the data."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import special

if TYPE_CHECKING:
    from eocausal.estimators.level_grid import GridPrior

__all__ = ["inside_bound", "log_weights", "normalised"]

Float64 = NDArray[np.float64]
SURE = 8.8  # standard deviations of a gamma law below its mean: less than 2e-17 is beyond
FAR = 40.0  # in log weight: nothing beyond counts
TABLE = 8000


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
    flat = weight.reshape(len(weight), -1)
    best = np.where(ratio < shape, weight, -np.inf).reshape(flat.shape).argmax(1)[:, None]
    a, x = (np.take_along_axis(part.reshape(flat.shape), best, 1) for part in (shape, ratio))
    top = np.take_along_axis(flat, best, 1) + np.log(np.maximum(special.gammaincc(a, x), 1e-300))
    hopeless = unsure & (weight < top[..., None] - FAR)
    unsure &= ~hopeless
    weight[unsure] += _log_upper(shape[unsure], ratio[unsure])
    weight[hopeless] = -np.inf


def _log_upper(shape: Float64, x: Float64) -> Float64:
    """Return the log of the upper incomplete gamma function, from tables if there are many x."""
    kinds = np.unique(shape)
    if x.size < 2 * TABLE * kinds.size:
        return np.asarray(np.log(np.maximum(special.gammaincc(shape, x), 1e-300)))
    found = np.empty_like(x)
    for a in kinds:
        mine = shape == a
        found[mine] = _tabulated(float(a), x[mine])
    return found


def _tabulated(a: float, x: Float64) -> Float64:
    """Interpolate by cubics that have the right slopes; the table ends where nothing is left."""
    grid, value, slope = _table(a)
    width = grid[1] - grid[0]
    place = np.clip((x - grid[0]) / width, 0.0, TABLE - 1.0)
    at = np.minimum(place.astype(np.int64), TABLE - 2)
    t = place - at
    left, right = value[at], value[at + 1]
    rise = right - left
    bend = t * (1.0 - t)
    inner = (slope[at] * width - rise) * (1.0 - t) - (slope[at + 1] * width - rise) * t
    return np.asarray(left + rise * t + bend * inner)


@lru_cache(maxsize=8)
def _table(a: float) -> tuple[Float64, Float64, Float64]:
    grid = np.linspace(max(a - 10.0 * np.sqrt(a), 0.0), a + 60.0 * np.sqrt(a) + 60.0, TABLE)
    upper = np.maximum(special.gammaincc(a, grid), 1e-300)
    log_density = special.xlogy(a - 1.0, grid) - grid - special.gammaln(a)
    slope = np.where(upper > 1e-300, -np.exp(log_density) / upper, 0.0)
    return grid, np.log(upper), slope


def inside_bound(shape: float, scale: Float64, bound: Float64) -> Float64:
    """Return the probability that s^2 ~ IG(shape, scale) is below a bound."""
    return np.asarray(special.gammaincc(shape, scale / bound))


def normalised(log_weight: Float64) -> Float64:
    """Return (N, cells, sets) weights that sum to one over cells and sets."""
    weight = log_weight - log_weight.max((1, 2), keepdims=True)
    np.maximum(weight, -2.0 * FAR, out=weight)
    np.exp(weight, out=weight)
    weight /= weight.sum((1, 2), keepdims=True)
    return np.asarray(weight)
