"""A walking level beside an autocorrelated residual, as a Markov chain over the observed times.

Given the values, the level at the observed times has the precision P = R^-1 + M^-1 / q^2 (per s^2;
R and M as in :mod:`eocausal.estimators.level_spectrum`), which couples neighbours alone: an AR(1)
seen at some times needs only its last value. Hence

    V^-1 = R^-1 - R^-1 P^-1 R^-1,   log|V| = log|R| + log|q^2 M| + log|P|,

and P is tridiagonal (Rue & Held 2005, section 2.4): for many calendars, phi and q all P stand in
one long tridiagonal matrix, which LAPACK factors and solves in one call. So a calendar of its own
costs a series no decomposition. Calendars are aligned at their last time; places before the first
are inert.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from eocausal.errors import EstimationError

__all__ = ["Chain", "Elimination", "Sweep", "chain_of"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Int64 = NDArray[np.int64]
MANY = 9  # columns from which on solving takes less time than summing squares
PRODUCT = 8  # pivots multiplied before a logarithm is taken


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """N calendars of up to n observed times, beside residuals of R autocorrelations.

    Attributes
    ----------
    times
        (N, n) the observed times, at the end of each row; -1 in places before them.
    diagonal, coupling
        (N, R, n) R^-1: its diagonal, and its entry with the place before.
    log_det
        (N, R) log|R|.
    rate
        (N, n) one over the time since the observed time before, or since time 0; zero in inert
        places and at time 0, where the walk is zero.
    coupled
        (N, n) True where the place before is observed too.
    log_walk
        (N,) log|M|, without time 0.
    """

    times: Int64
    diagonal: Float64
    coupling: Float64
    log_det: Float64
    rate: Float64
    coupled: Bool
    log_walk: Float64

    @property
    def free(self) -> Bool:
        """(N, n) True where the walk is not known to be zero."""
        return np.asarray(self.rate > 0)

    def whitened(self, values: Float64) -> Float64:
        """Return R^-1 values for ``values`` (C, N, n), as (C, N, R, n)."""
        v = values[:, :, None]
        out = self.diagonal * v
        out[..., 1:] += self.coupling[..., 1:] * v[..., :-1]
        out[..., :-1] += self.coupling[..., 1:] * v[..., 1:]
        return np.asarray(out)

    def _precision(self) -> tuple[Float64, Float64, Float64, Float64]:
        """Return the diagonal of P as a + b / q^2, and its entry with the place before alike.

        Where the walk is zero P has a one and no neighbours.
        """
        free = self.free[:, None]
        before = np.append(np.zeros((len(free), 1), bool), self.free[:, :-1], axis=1)
        within = np.where(self.coupled, self.rate, 0.0)
        following = np.append(within[:, 1:], np.zeros((len(within), 1)), axis=1)
        both = free & before[:, None]
        return (
            np.where(free, self.diagonal, 1.0),
            np.where(self.free, self.rate + following, 0.0),
            np.where(both, self.coupling, 0.0),
            np.where(both[:, 0], -within, 0.0),
        )

    def sweep(self, columns: Float64, q: Float64) -> Sweep:
        """Pass over time for ``columns`` (C, N, n) and each of (Q,) q above zero."""
        right = self.whitened(columns)
        return self._solved(right, q) if len(columns) > MANY else self._summed(right, q)

    def _solved(self, right: Float64, q: Float64) -> Sweep:
        """Solve for the levels, and multiply."""
        found = self.eliminate(q)
        x = found.solve(right)
        gram = np.matmul(x.transpose(1, 2, 0, 3, 4), right.transpose(1, 2, 3, 0)[:, :, None])
        level = x[..., -1].transpose(1, 2, 3, 0)
        return Sweep(gram.swapaxes(2, 3), found.log_det, level, found.inverse[..., -1])

    def _summed(self, right: Float64, q: Float64) -> Sweep:
        """Advance all cases together; what they have summed so far stays in the cache.

        The work goes with the square of the number of columns, but no level is kept.
        """
        right = (right * self.free[:, None]).transpose(3, 0, 1, 2)
        count, width, rows, phis = right.shape
        right = np.ascontiguousarray(right.reshape(count, width, 1, rows * phis))
        noise, walk, noise_before, walk_before = (
            np.repeat(part[:, None], phis, 1) if part.ndim == 2 else part
            for part in self._precision()
        )
        stack = np.stack([noise, walk, noise_before, walk_before]).reshape(4, rows * phis, count)
        stack = np.ascontiguousarray(stack.swapaxes(1, 2))
        tight = (1.0 / q**2)[:, None]
        shape = (len(q), rows * phis)
        z, w, part = np.zeros((3, width, *shape))
        gram = np.zeros((width, width, *shape))
        inverse, log_det, product = np.ones(shape), np.zeros(shape), np.ones(shape)
        for j in range(count):
            noise, walk, noise_before, walk_before = stack[:, j]
            off = walk_before * tight
            off += noise_before
            factor = off * inverse
            off *= factor
            pivot = walk * tight
            pivot += noise
            pivot -= off
            np.reciprocal(pivot, out=inverse)
            product *= pivot
            if j % PRODUCT == 0:
                log_det += np.log(product)
                product.fill(1.0)
            z *= factor
            np.subtract(right[j], z, out=z)
            np.multiply(z, inverse, out=w)
            for c in range(width):
                np.multiply(w[c], z[c:], out=part[c:])
                gram[c, c:] += part[c:]
        log_det += np.log(product)
        for c in range(width):
            gram[c:, c] = gram[c, c:]
        scaled = self.free.sum(1)[:, None] * np.log(q**2) + self.log_walk[:, None]
        log_det = log_det.reshape(-1, rows, phis).transpose(1, 2, 0) + scaled[:, None]
        return Sweep(
            gram.reshape(width, width, -1, rows, phis).transpose(3, 4, 2, 0, 1),
            log_det + self.log_det[..., None],
            w.reshape(width, -1, rows, phis).transpose(2, 3, 1, 0),
            inverse.reshape(-1, rows, phis).transpose(1, 2, 0),
        )

    def eliminate(self, q: Float64) -> Elimination:
        """Eliminate P for each of (Q,) q above zero, and keep how."""
        tight = (1.0 / q**2)[:, None]
        noise, walk, noise_before, walk_before = self._precision()
        diagonal = noise[:, :, None] + walk[:, None, None] * tight
        coupling = noise_before[:, :, None] + walk_before[:, None, None] * tight
        pivots, factors, info = lapack.dpttrf(diagonal.ravel(), coupling.ravel()[1:])
        if info:
            raise EstimationError(
                "The levels' precision is not positive.",
                cause="Variances or times are out of any reasonable range.",
                next_step="Check the variances of the observations.",
            )
        scaled = self.free.sum(1)[:, None] * np.log(q**2) + self.log_walk[:, None]
        log_det = _log_product(pivots.reshape(diagonal.shape)) + scaled[:, None]
        return Elimination(pivots, factors, self.free, log_det + self.log_det[..., None])


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """What one pass over time leaves, for each calendar, phi and q.

    Attributes
    ----------
    gram
        (N, R, Q, C, C) columns' R^-1 P^-1 R^-1 columns.
    log_det
        (N, R, Q) log|V|.
    level
        (N, R, Q, C) mean of the walk at the last time, if each column were the values.
    level_var
        (N, R, Q) its variance.
    """

    gram: Float64
    log_det: Float64
    level: Float64
    level_var: Float64


@dataclass(frozen=True, slots=True, eq=False)
class Elimination:
    """P = L D L' of each calendar, phi and q.

    Attributes
    ----------
    pivots
        (N R Q n,) D; one where the walk is zero.
    factors
        (N R Q n - 1,) what L holds below its diagonal; zero between two matrices.
    free
        (N, n) False where the walk is zero.
    log_det
        (N, R, Q) log|V|.
    """

    pivots: Float64
    factors: Float64
    free: Bool
    log_det: Float64

    @property
    def inverse(self) -> Float64:
        """(N, R, Q, n) one over D; zero where the walk is zero."""
        shape = (*self.log_det.shape, self.free.shape[1])
        return np.where(self.free[:, None, None], 1.0 / self.pivots.reshape(shape), 0.0)

    @property
    def factor(self) -> Float64:
        """(N, R, Q, n) what L holds left of its diagonal."""
        shape = (*self.log_det.shape, self.free.shape[1])
        return np.append(0.0, self.factors).reshape(shape)

    def solve(self, right: Float64) -> Float64:
        """Return P^-1 right for ``right`` (C, N, R, n), as (C, N, R, Q, n)."""
        steps = self.log_det.shape[-1]
        x = np.empty((*right.shape[:3], steps, right.shape[-1]))
        x[...] = (right * self.free[:, None])[:, :, :, None]
        lapack.dpttrs(self.pivots, self.factors, x.reshape(len(x), -1).T, overwrite_b=1)
        return x


def chain_of(observed: Bool, phi: Float64, variance: Float64 | None = None) -> Chain:
    """Set up the chains of calendars ``observed`` (N, T), each with at least one time.

    Relative variances of the residual are (T,), or (N, T) those of each series.
    """
    count = observed.sum(1)
    n = int(count.max())
    order = np.argsort(observed, axis=1, kind="stable")[:, -n:]
    live = np.arange(n) >= n - count[:, None]
    times = np.where(live, order, -1)
    coupled = live & np.roll(live, 1, axis=1)
    coupled[:, 0] = False
    step = np.where(coupled, times - np.roll(times, 1, axis=1), np.maximum(times, 0))
    rate = np.where(live & (step > 0), 1.0 / np.maximum(step, 1), 0.0)
    log_walk = np.where(rate > 0, np.log(np.maximum(step, 1)), 0.0).sum(1)
    powers = phi[:, None] ** np.arange(1.0 + int(step.max()))
    rho = np.where(coupled[:, None], powers[:, step].swapaxes(0, 1), 0.0)
    noise = 1.0 - rho**2
    weight = np.ones_like(rate)
    if variance is not None:
        at = np.maximum(times, 0)
        own = variance[at] if variance.ndim == 1 else np.take_along_axis(variance, at, 1)
        weight = np.where(live, own, 1.0)
    following = np.append((rho**2 / noise)[..., 1:], np.zeros((*rho.shape[:2], 1)), axis=2)
    diagonal = np.where(live[:, None], (1.0 / noise + following) / weight[:, None], 1.0)
    root = np.sqrt(weight * np.roll(weight, 1, axis=1))
    coupling = np.where(coupled[:, None], -rho / noise / root[:, None], 0.0)
    log_det = np.log(noise).sum(2) + np.log(weight).sum(1)[:, None]
    return Chain(times, diagonal, coupling, log_det, rate, coupled, log_walk)


def _log_product(values: Float64) -> Float64:
    """Return the sum of logarithms over the last axis."""
    whole = values.shape[-1] // PRODUCT * PRODUCT
    parts = values[..., :whole].reshape(*values.shape[:-1], -1, PRODUCT).prod(-1)
    return np.asarray(np.log(parts).sum(-1) + np.log(values[..., whole:]).sum(-1))
