"""Mixtures of Student t distributions: the exact law of an average effect on a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["TMixture"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class TMixture:
    """One mixture for each of N series.

    Attributes
    ----------
    weight
        (N, parts), sums to one over the parts.
    center, scale
        (N, parts) location and scale of each part.
    df
        Degrees of freedom of all parts.
    """

    weight: Float64
    center: Float64
    scale: Float64
    df: float

    @property
    def mean(self) -> Float64:
        """(N,) means."""
        return np.asarray((self.weight * self.center).sum(1))

    @property
    def sd(self) -> Float64:
        """(N,) standard deviations; infinite at two degrees of freedom or fewer."""
        if self.df <= 2:
            return np.full(len(self.weight), np.inf)
        inner = self.scale**2 * self.df / (self.df - 2)
        outer = (self.center - self.mean[:, None]) ** 2
        return np.asarray(np.sqrt((self.weight * (inner + outer)).sum(1)))

    def cdf(self, x: Float64) -> Float64:
        """Return the probability of a value up to ``x`` (N,)."""
        standard = (x[:, None] - self.center) / self.scale
        return np.asarray((self.weight * special.stdtr(self.df, standard)).sum(1))

    def quantile(self, p: float) -> Float64:
        """Return the (N,) quantiles, by bisection to 1e-12 of the widest part."""
        reach = special.stdtrit(self.df, p)
        inner = self.center + reach * self.scale
        live = self.weight > 0
        low = np.where(live, inner, np.inf).min(1)
        high = np.where(live, inner, -np.inf).max(1)
        for _ in range(42):
            middle = 0.5 * (low + high)
            below = self.cdf(middle) < p
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return np.asarray(0.5 * (low + high))

    def pruned(self, least: float = 1e-9) -> TMixture:
        """Leave out parts that weigh less than ``least`` in every series."""
        keep = self.weight.max(0) >= least
        weight = self.weight[:, keep]
        return TMixture(
            weight / weight.sum(1, keepdims=True),
            self.center[:, keep],
            self.scale[:, keep],
            self.df,
        )
