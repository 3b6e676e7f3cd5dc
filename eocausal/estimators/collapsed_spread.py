"""Covariances of all states and of the residual, times a vector, without being written out."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from eocausal.estimators.collapsed_bands import Layout, Ratios
from eocausal.estimators.collapsed_parts import Returning, autoregression

__all__ = ["drift", "noise_spread", "starts_of", "state_spread"]

Float64 = NDArray[np.float64]


def drift(layout: Layout, ratios: Ratios) -> Float64:
    """Return (rows, T) what a long-run slope of one adds to the level."""
    rows = len(ratios)
    nothing = np.zeros((rows, layout.times))
    return Returning(ratios.rho).path(nothing, np.zeros(rows), np.ones(rows))


def state_spread(layout: Layout, ratios: Ratios, v: Float64) -> Float64:
    """Return (rows, T) the covariance of all states' sum, times v (rows, T)."""
    starts = np.concatenate(starts_of(layout), 1)
    out: Float64 = (ratios.start[:, None] * (v @ starts)) @ starts.T
    for at, part in enumerate(layout.parts):
        own = part.spread(v)
        own *= ratios.parts[:, at, None]
        out += own
    if layout.returning is not None:
        trend = Returning(ratios.rho)
        rows = len(ratios)
        first = trend.path(np.zeros_like(v), np.ones(rows), np.zeros(rows))
        out += ratios.slope[:, None] * trend.spread(v)
        out += (ratios.start * layout.returning * (v * first).sum(1))[:, None] * first
    return out


@lru_cache(maxsize=8)
def starts_of(layout: Layout) -> tuple[Float64, ...]:
    """Return (T, m) what starting values of one sd become, for each part."""
    return tuple(
        part.starts(layout.times) * np.sqrt(var)
        for part, var in zip(layout.parts, layout.start_vars, strict=True)
    )


def noise_spread(layout: Layout, ratios: Ratios, v: Float64) -> Float64:
    """Return (rows, T) the covariance of the residual, times v."""
    root = np.sqrt(layout.variances())
    u = v * root
    if layout.autocorrelated:
        ahead = autoregression(u[:, ::-1], ratios.phi)[:, ::-1]
        u = autoregression(u, ratios.phi) + ahead - u
    return u * root
