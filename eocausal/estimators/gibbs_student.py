"""Student errors as Normal ones, each with a precision of its own.

A residual r_t = s a_t / sqrt(l_t) with l_t ~ Gamma(v/2, v/2) has Student's t distribution with v
degrees of freedom (Geweke 1993). The a_t are independent, or an AR(1) of variance one: then the
l_t no longer have gamma laws given the residuals, because neighbours share a product, and are
proposed from the law without it and kept with the probability that makes up for it. Degrees of
freedom and l_t hold each other in place: without autocorrelation v moves with the l_t integrated
out, with it v also moves while the probabilities of the l_t below their values stay (Yu & Meng
2011).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from eocausal.estimators.gibbs_priors import Coordinate
from eocausal.estimators.gibbs_slice import slice_step

__all__ = ["Tails"]

Float64 = NDArray[np.float64]
STEP = 0.5
EDGE = 1e-13  # nearer to zero or one a probability has lost the value it came from


@dataclass(slots=True, eq=False)
class Tails:
    """Precisions of the residuals at the times from the first to the last value learned from.

    Attributes
    ----------
    prior
        Of the log degrees of freedom.
    log_degrees
        Their present value.
    precision
        (span,) l_t, one where there is no value.
    known
        (span,) True where there is one.
    """

    prior: Coordinate
    log_degrees: float
    precision: Float64
    known: NDArray[np.bool_]

    @property
    def degrees(self) -> float:
        """Degrees of freedom."""
        return math.exp(self.log_degrees)

    def step(self, residual: Float64, sd: float, phi: float, rng: np.random.Generator) -> None:
        """Move degrees of freedom and precisions given residuals (span,) over relative sds.

        At times without a value the residual is the one drawn for them.
        """
        scaled = residual / sd
        if phi == 0.0:
            known = scaled[self.known]
            self._degrees(lambda v: _student(known, v), rng)
        else:
            self._degrees(self._gamma, rng)
            self._move_together(scaled, phi, rng)
        self._precisions(scaled, phi, rng)

    def _degrees(self, density: Callable[[float], float], rng: np.random.Generator) -> None:
        def total(at: float) -> float:
            return self.prior.log_density(at) + density(math.exp(at))

        bounds = self.prior.low, self.prior.high
        height = total(self.log_degrees)
        self.log_degrees, _ = slice_step(self.log_degrees, height, total, 1.0, bounds, rng)

    def _gamma(self, degrees: float) -> float:
        precision = self.precision[self.known]
        half, n = 0.5 * degrees, len(precision)
        sums = float(np.log(precision).sum() - precision.sum())
        return n * (half * math.log(half) - math.lgamma(half)) + half * sums

    def _move_together(self, scaled: Float64, phi: float, rng: np.random.Generator) -> None:
        """Propose other degrees of freedom and the precisions that have the same probabilities."""
        proposed = self.log_degrees + STEP * rng.standard_normal()
        if not self.prior.low < proposed < self.prior.high:
            return
        half, other = 0.5 * self.degrees, 0.5 * math.exp(proposed)
        below = special.gammainc(half, half * self.precision[self.known])
        if below.min() < EDGE or below.max() > 1.0 - EDGE:
            return
        precision = self.precision.copy()
        precision[self.known] = special.gammaincinv(other, below) / other
        gain = self.prior.log_density(proposed) - self.prior.log_density(self.log_degrees)
        gain += _correlated(scaled, precision, phi) - _correlated(scaled, self.precision, phi)
        if gain > -rng.exponential():
            self.log_degrees, self.precision = proposed, precision

    def _precisions(self, scaled: Float64, phi: float, rng: np.random.Generator) -> None:
        """Propose from the law without neighbours, at every other time in turn."""
        n, degrees = len(scaled), self.degrees
        own = np.full(n, 1.0 + phi**2)
        own[[0, -1]] = 1.0
        own /= 1.0 - phi**2
        shape, rate = 0.5 * (degrees + 1.0), 0.5 * (degrees + own * scaled**2)
        proposed = rng.standard_gamma(shape, n) / rate
        proposed = np.where(self.known, np.maximum(proposed, 1e-300), 1.0)
        if phi == 0.0:
            self.precision = proposed
            return
        keep = np.log(rng.random(n))
        for first in (0, 1):
            at = slice(first, None, 2)
            beside = np.zeros(n)
            rooted = np.sqrt(self.precision) * scaled
            beside[1:] += rooted[:-1]
            beside[:-1] += rooted[1:]
            pull = phi / (1.0 - phi**2) * beside * scaled
            gain = pull * (np.sqrt(proposed) - np.sqrt(self.precision))
            taken = np.where(gain > keep, proposed, self.precision)
            self.precision[at] = taken[at]


def _correlated(scaled: Float64, precision: Float64, phi: float) -> float:
    """Return the log density of residuals of scale one given their precisions."""
    a = np.sqrt(precision) * scaled
    squares = float(a @ a + phi**2 * (a[1:-1] @ a[1:-1]) - 2.0 * phi * (a[1:] @ a[:-1]))
    return 0.5 * float(np.log(precision).sum()) - 0.5 * squares / (1.0 - phi**2)


def _student(scaled: Float64, degrees: float) -> float:
    half = 0.5 * degrees
    constant = float(special.gammaln(half + 0.5) - special.gammaln(half)) - 0.5 * math.log(degrees)
    return len(scaled) * constant - (half + 0.5) * float(np.log1p(scaled**2 / degrees).sum())
