"""Mixtures of Student t distributions: the exact law of an average effect on a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["TMixture", "student_cdf"]

Float64 = NDArray[np.float64]
LEAST = 1e-13  # parts that weigh less than this share of the largest are left out of cdf
FINE, ROUGH = 1e-10, 1e-4  # the same for quantiles, and for where to look for them
ENOUGH_DF = 20.0


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
        Degrees of freedom of all parts, or (N,) those of each series.
    """

    weight: Float64
    center: Float64
    scale: Float64
    df: float | Float64

    @property
    def mean(self) -> Float64:
        """(N,) means."""
        return np.asarray(np.einsum("np,np->n", self.weight, self.center))

    @property
    def sd(self) -> Float64:
        """(N,) standard deviations; infinite at two degrees of freedom or fewer."""
        df = np.broadcast_to(self.df, len(self.weight))
        inflation = np.where(df > 2, df / np.where(df > 2, df - 2.0, 1.0), np.inf)
        inner = np.einsum("np,np,np->n", self.weight, self.scale, self.scale) * inflation
        outer = self.center - self.mean[:, None]
        return np.asarray(np.sqrt(inner + np.einsum("np,np,np->n", self.weight, outer, outer)))

    def cdf(self, x: Float64) -> Float64:
        """Return the probability of a value up to ``x`` (N,)."""
        return self._parts(LEAST).cdf(np.asarray(x, dtype=float))

    def quantile(self, p: float) -> Float64:
        """Return the (N,) quantiles; see :meth:`quantiles`."""
        return np.asarray(self.quantiles((p,))[0])

    def quantiles(self, levels: tuple[float, ...]) -> Float64:
        """Return the (levels, N) quantiles.

        Newton's steps kept between the least and the largest quantile of the parts, first on the
        parts that weigh most; right to about 1e-9 in probability.
        """
        if not len(self.weight):
            return np.zeros((len(levels), 0))
        rough, fine = self._parts(ROUGH), self._parts(FINE)
        found = []
        for p in levels:
            start = self.mean + special.ndtri(p) * np.minimum(self.sd, 1e300)
            found.append(fine.quantile(p, rough.quantile(p, start, 1e-3), 1e-6))
        return np.stack(found)

    def _parts(self, least: float) -> _Parts:
        top = self.weight.max(1, keepdims=True)
        row, part = np.nonzero(self.weight >= least * top)
        starts = np.searchsorted(row, np.arange(len(self.weight)))
        weight = self.weight[row, part]
        total = np.add.reduceat(weight, starts) if len(starts) else np.zeros(0)
        df = self.df if np.ndim(self.df) == 0 else np.asarray(self.df)[row]
        return _Parts(
            weight / total[row], self.center[row, part], self.scale[row, part], df, row, starts
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Parts:
    """Parts of all mixtures one after another; ``starts`` is where each mixture begins."""

    weight: Float64
    center: Float64
    scale: Float64
    df: float | Float64
    row: NDArray[np.int64]
    starts: NDArray[np.int64]

    def cdf(self, x: Float64) -> Float64:
        below = student_cdf((x[self.row] - self.center) / self.scale, self.df)
        return self._sum(self.weight * below)

    def quantile(self, p: float, guess: Float64, tolerance: float) -> Float64:
        """Return quantiles from a first guess.

        Steps end where Newton's last one was below ``tolerance`` of the widest part, so that the
        next would be below about its square.
        """
        ends = self.center + special.stdtrit(self.df, p) * self.scale
        low, high = (f.reduceat(ends, self.starts) for f in (np.minimum, np.maximum))
        size = tolerance * np.maximum.reduceat(self.scale, self.starts)
        x = np.clip(guess, low, high)
        steepness = self.weight / self.scale
        for _ in range(80):
            t = (x[self.row] - self.center) / self.scale
            below, density = _student(t, self.df)
            gap = self._sum(self.weight * below) - p
            slope = self._sum(steepness * density)
            low, high = np.where(gap < 0, x, low), np.where(gap < 0, high, x)
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                step = x - gap / slope
            inside = (step >= low) & (step <= high)
            following = np.where(inside, step, 0.5 * (low + high))
            moved, x = np.abs(following - x), following
            if (moved <= np.where(inside, size, 1e-6 * size)).all():
                break
        return x

    def _sum(self, values: Float64) -> Float64:
        return np.asarray(np.add.reduceat(values, self.starts) if len(self.starts) else values)


def student_cdf(t: Float64, df: float | Float64) -> Float64:
    """Return the probability of a t-distributed value up to ``t``.

    From 20 degrees of freedom on by the expansion of the equivalent normal deviate (Hill 1970,
    Communications of the ACM 13:617, algorithm 395), right to 1e-11 there and to 1e-6 of the tail.
    """
    if np.min(df) < ENOUGH_DF:
        return np.asarray(special.stdtr(df, t))
    return _by_deviate(t, (np.asarray(df) - 0.5) * np.log1p(t * t / df), df)


def _by_deviate(t: Float64, y: Float64, df: float | Float64) -> Float64:
    a = np.asarray(df) - 0.5
    b = 48.0 * a * a
    first = (y + 3.0) / b
    second = (((4.0 * y + 33.0) * y + 240.0) * y + 855.0) / (10.0 * b * (b + 0.8 * y * y + 100.0))
    return np.asarray(special.ndtr(np.copysign(np.sqrt(y) * (1.0 + first - second), t)))


def _student(t: Float64, df: float | Float64) -> tuple[Float64, Float64]:
    """Return distribution and density of t-distributed values."""
    freedom = np.asarray(df, dtype=float)
    logarithm = np.log1p(t * t / freedom)
    if np.min(freedom) < ENOUGH_DF:
        below = np.asarray(special.stdtr(freedom, t))
    else:
        below = _by_deviate(t, (freedom - 0.5) * logarithm, df)
    constant = np.exp(special.gammaln((freedom + 1) / 2) - special.gammaln(freedom / 2))
    power = np.exp(-0.5 * (freedom + 1) * logarithm)
    return below, np.asarray(constant / np.sqrt(freedom * np.pi) * power)
