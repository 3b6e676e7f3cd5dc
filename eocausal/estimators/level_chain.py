"""A walking level beside an autocorrelated residual, as a Markov chain over the observed times.

Given the values, the level at the observed times has the precision P = R^-1 + M^-1 / q^2 (per s^2;
R and M as in :mod:`eocausal.estimators.level_spectrum`), which couples neighbours alone: an AR(1)
seen at some times needs only its last value. Hence

    V^-1 = R^-1 - R^-1 P^-1 R^-1,   log|V| = log|R| + log|q^2 M| + log|P|,

and P is eliminated in one pass over time (Rue & Held 2005, section 2.4), for many calendars, phi
and q side by side, so that a calendar of its own costs a series no decomposition. Calendars are
aligned at their last time; places before the first are inert.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Chain", "Elimination", "chain_of"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """N calendars of up to n observed times, beside residuals of R autocorrelations.

    Attributes
    ----------
    times
        (N, n) the observed times, at the end of each row; -1 in places before them.
    diagonal, coupling
        (n, N, R) R^-1: its diagonal, and its entry with the place before.
    log_det
        (N, R) log|R|.
    rate
        (n, N) one over the time since the observed time before, or since time 0; zero in inert
        places and at time 0, where the walk is zero.
    coupled
        (n, N) True where the place before is observed too.
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
        """(n, N) True where the walk is not known to be zero."""
        return np.asarray(self.rate > 0)

    def whitened(self, values: Float64) -> Float64:
        """Return R^-1 values for ``values`` (n, C, N), as (n, C, N, R)."""
        v = values[..., None]
        out = self.diagonal[:, None] * v
        out[1:] += self.coupling[1:, None] * v[:-1]
        out[:-1] += self.coupling[1:, None] * v[1:]
        return np.asarray(out)

    def eliminate(self, q: Float64) -> Elimination:
        """Eliminate P for each of (Q,) q above zero."""
        tight = 1.0 / q**2
        following = np.append(np.where(self.coupled, self.rate, 0.0)[1:], self.rate[:1] * 0, axis=0)
        diagonal = self.diagonal[..., None] + (self.rate + following)[:, :, None, None] * tight
        own = np.where(self.coupled, self.rate, 0.0)[:, :, None, None]
        coupling = self.coupling[..., None] - own * tight
        free = self.free[:, :, None, None]
        inverse, factor = np.empty_like(diagonal), np.zeros_like(diagonal)
        log_det = np.zeros(diagonal.shape[1:])
        for j in range(len(diagonal)):
            if j:
                np.multiply(coupling[j], inverse[j - 1], out=factor[j])
                diagonal[j] -= coupling[j] * factor[j]
            np.divide(free[j], diagonal[j], out=inverse[j])
        log_det = np.log(np.where(free, diagonal, 1.0)).sum(0)
        scaled = self.free.sum(0)[:, None] * np.log(q**2) + self.log_walk[:, None]
        return Elimination(inverse, factor, log_det + scaled[:, None] + self.log_det[..., None])


@dataclass(frozen=True, slots=True, eq=False)
class Elimination:
    """P = L D L' of each calendar, phi and q.

    Attributes
    ----------
    inverse
        (n, N, R, Q) one over D; zero where the walk is zero.
    factor
        (n, N, R, Q) what L holds left of the diagonal.
    log_det
        (N, R, Q) log|V|.
    """

    inverse: Float64
    factor: Float64
    log_det: Float64

    def solve(self, right: Float64) -> Float64:
        """Return P^-1 right for ``right`` (n, C, N, R), as (n, C, N, R, Q)."""
        x = np.empty((*right.shape, self.inverse.shape[-1]))
        x[...] = right[..., None]
        part = np.empty_like(x[0])
        for j in range(1, len(x)):
            np.multiply(x[j - 1], self.factor[j], out=part)
            x[j] -= part
        x[-1] *= self.inverse[-1]
        for j in range(len(x) - 2, -1, -1):
            x[j] *= self.inverse[j]
            np.multiply(x[j + 1], self.factor[j + 1], out=part)
            x[j] -= part
        return x


def chain_of(observed: Bool, phi: Float64, variance: Float64 | None = None) -> Chain:
    """Set up the chains of calendars ``observed`` (N, T), each with at least one time."""
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
    rho = np.where(coupled[..., None], phi ** step[..., None].astype(float), 0.0)
    noise = 1.0 - rho**2
    weight = np.ones_like(rate) if variance is None else np.where(live, variance[times], 1.0)
    following = np.append((rho**2 / noise)[:, 1:], np.zeros((len(rho), 1, len(phi))), axis=1)
    diagonal = np.where(live[..., None], (1.0 / noise + following) / weight[..., None], 1.0)
    root = np.sqrt(weight * np.roll(weight, 1, axis=1))
    coupling = np.where(coupled[..., None], -rho / noise / root[..., None], 0.0)
    log_det = np.log(noise).sum(1) + np.log(weight).sum(1)[:, None]
    first = (1, 0, 2)
    return Chain(
        times, np.ascontiguousarray(diagonal.transpose(first)),
        np.ascontiguousarray(coupling.transpose(first)), log_det,
        rate.T.copy(), coupled.T.copy(), log_walk,
    )  # fmt: skip
