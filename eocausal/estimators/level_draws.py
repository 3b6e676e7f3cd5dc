"""Draws of whole paths from the posterior of a walking level with autocorrelated residual.

A draw takes a cell and a set of regressors by their weight, s^2 and the coefficients from their
exact laws, then the level at the last observed time, and goes on from there: the times after it
need nothing else. The times before are drawn backward from that level (Fruhwirth-Schnatter 1994,
Journal of Time Series Analysis 15:183), and only when they are asked for.

Random numbers come from streams of seed and series, a row for each draw: a draw is the same
whatever series are beside it and however many draws follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.signal import lfilter

from eocausal.estimators.level_chain import chain_of
from eocausal.estimators.level_grid import GridPosterior

__all__ = ["PathDraws", "Paths", "draw_paths"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
BLOCK = 200  # draws made together: what they need fits the processor's cache


@dataclass(frozen=True, slots=True, eq=False)
class Paths:
    """Draws for one series, each ``(draws, T)``.

    Attributes
    ----------
    expected
        Level, season and regressors, without the residual.
    replicate
        The same with a residual: after the last value the residual that continues the observed
        one, before it a new one that knows nothing of it.
    """

    expected: Float64
    replicate: Float64


def draw_paths(
    posterior: GridPosterior, series: int, y: Float64, *, draws: int, seed: int, key: int
) -> Paths:
    """Draw paths of one series.

    Parameters
    ----------
    series
        Row of the posterior.
    y
        (n,) its values at the observed times.
    seed, key
        Together they fix the random numbers; ``key`` names the series.
    """
    return PathDraws(posterior, series, y, draws=draws, seed=seed, key=key).paths


class PathDraws:
    """Draws of one series; the times after the last observed one alone, or all.

    Parameters are those of :func:`draw_paths`.
    """

    def __init__(
        self,
        posterior: GridPosterior,
        series: int,
        y: Float64,
        *,
        draws: int,
        seed: int,
        key: int,
    ) -> None:
        self.posterior, self.series, self.y, self.draws = posterior, series, y, draws
        self._key = [seed, key]
        grid = posterior.grid
        weight = posterior.weight[series].ravel()
        choice = self._stream(0).random((draws, 2))
        which = np.searchsorted(np.cumsum(weight) / weight.sum(), choice[:, 0], side="right")
        sets = grid.sets.included.shape[0]
        self.cell, self.chosen = np.divmod(np.minimum(which, weight.size - 1), sets)
        self.kind, self.step = np.divmod(self.cell, grid.prior.q.size)
        self.sd = np.sqrt(self._variances(choice[:, 1]))[:, None]
        self.beta = self._coefficients(
            self._stream(1).standard_normal((draws, grid.design.shape[1]))
        )
        self.last = int(grid.times[-1])

    def _stream(self, number: int) -> np.random.Generator:
        seeds = np.random.SeedSequence(self._key, spawn_key=(number,))
        return np.random.Generator(np.random.SFC64(seeds))

    @cached_property
    def paths(self) -> Paths:
        """All times."""
        count, after = self.last + 1, self.ahead
        expected, replicate = np.empty((2, self.draws, len(self.posterior.grid.design)))
        expected[:, count:], replicate[:, count:] = after.expected, after.replicate
        self._behind(expected[:, :count], replicate[:, :count])
        return Paths(expected, replicate)

    @cached_property
    def ahead(self) -> Paths:
        """The times after the last observed one, the same as in ``paths``."""
        grid, end = self.posterior.grid, self._end
        design, rng = grid.design[self.last + 1 :], self._stream(3)
        size = grid.prior.q[self.step, None] * self.sd
        before = (self.y[-1] - self.beta @ grid.design[self.last]) / self.sd[:, 0] - end
        root = None if grid.variance is None else np.sqrt(grid.variance)
        if root is not None:
            before /= root[self.last]
        expected = np.matmul(self.beta, design.T)
        replicate = np.empty_like(expected)
        for first in range(0, self.draws, BLOCK):
            rows = slice(first, min(first + BLOCK, self.draws))
            normal = rng.standard_normal((rows.stop - first, 2 * len(design)))
            steps, shocks = normal[:, : len(design)], normal[:, len(design) :]
            steps *= size[rows]
            steps[:, :1] += end[rows, None] * self.sd[rows]
            expected[rows] += np.cumsum(steps, 1)
            noise = self._residuals(shocks, before[rows], self.kind[rows])
            noise *= self.sd[rows]
            if root is not None:
                noise *= root[self.last + 1 :]
            np.add(expected[rows], noise, out=replicate[rows])
        return Paths(expected, replicate)

    def _variances(self, uniform: Float64) -> Float64:
        """Draw s^2 from inverse-gamma laws; those beyond their bound again, within it."""
        posterior = self.posterior
        scale = posterior.scale[self.series][self.cell, self.chosen]
        bound = posterior.grid.prior.max_var.ravel()[self.cell]
        gamma = self._stream(2).standard_gamma(posterior.shape, self.draws)
        least = scale / bound
        for at in np.flatnonzero(gamma < least):
            inside = special.gammaincc(posterior.shape, least[at])
            gamma[at] = special.gammainccinv(posterior.shape, uniform[at] * inside)
        return np.asarray(scale / gamma)

    def _coefficients(self, normal: Float64) -> Float64:
        """Draw coefficients ``(draws, k)``; those of columns left out are zero."""
        posterior, grid = self.posterior, self.posterior.grid
        sets = len(grid.sets.included)
        pairs, back = np.unique(self.cell * sets + self.chosen, return_inverse=True)
        cell, chosen = np.divmod(pairs, sets)
        center, cov = posterior.coefficients(self.series, cell, chosen)
        member = grid.sets.included[chosen]
        root = np.linalg.cholesky(cov + np.eye(cov.shape[-1]) * ~member[:, None, :])
        noise = np.einsum("dkl,dl->dk", root[back], normal)
        return np.asarray(center[back] + self.sd * noise * member[back])

    @cached_property
    def _end(self) -> Float64:
        """(draws,) walk at the last observed time, over s, given the values."""
        grid = self.posterior.grid
        q2 = grid.prior.q**2
        mean, var = [], []
        for at, rotation in enumerate(grid.rotations):
            load = rotation.rotation @ np.minimum(grid.times, self.last)
            weighted = grid.weights[at] * load
            columns = np.column_stack([self.posterior.rotated[at][self.series], grid.turned[at]])
            mean.append(q2[:, None] * (weighted @ columns))
            var.append(q2 * (self.last - q2 * (weighted @ load)))
        center, spread = np.concatenate(mean)[self.cell], np.concatenate(var)[self.cell]
        given = (center[:, 0] - (center[:, 1:] * self.beta).sum(1)) / self.sd[:, 0]
        normal = self._stream(4).standard_normal(self.draws)
        return np.asarray(given + np.sqrt(np.maximum(spread, 0.0)) * normal)

    def _residuals(self, shocks: Float64, before: Float64 | None, kind: Int64) -> Float64:
        """Return residuals from standard normal numbers (draws, H), after one or stationary."""
        out = shocks
        for at, rotation in enumerate(self.posterior.grid.rotations):
            phi, mine = rotation.residual.phi, np.flatnonzero(kind == at)
            if not phi or not mine.size:
                continue
            first = 1.0 if before is None else np.sqrt(1.0 - phi**2)
            size = np.append(first, np.full(shocks.shape[1] - 1, np.sqrt(1.0 - phi**2)))
            state = np.zeros((mine.size, 1)) if before is None else phi * before[mine, None]
            out[mine] = lfilter([1.0], [1.0, -phi], shocks[mine] * size, axis=1, zi=state)[0]
        return out

    def _behind(self, expected: Float64, replicate: Float64) -> None:
        """Fill in the times up to the last observed one."""
        grid, count = self.posterior.grid, self.last + 1
        walk = np.zeros((count, self.draws))
        walk[grid.times] = self._walk()
        self._bridge(walk)
        np.multiply(walk.T, self.sd, out=expected)
        expected += self.beta @ grid.design[:count].T
        noise = self._residuals(
            self._stream(6).standard_normal((self.draws, count)), None, self.kind
        )
        if grid.variance is not None:
            noise *= np.sqrt(grid.variance[:count])
        np.multiply(noise, self.sd, out=replicate)
        replicate += expected

    def _walk(self) -> Float64:
        """Return (n, draws) the walk at the observed times, over s, backward from its end."""
        grid = self.posterior.grid
        columns = np.column_stack([self.y, grid.design[grid.times]]).T
        normal = self._stream(5).standard_normal((self.draws, columns.shape[1]))
        walk = np.zeros((columns.shape[1], self.draws))
        live = np.flatnonzero(grid.prior.q[self.step] > 0)
        if not live.size:
            return walk
        live = live[np.argsort(self.cell[live], kind="stable")]
        kinds, kind = np.unique(self.kind[live], return_inverse=True)
        steps, step = np.unique(self.step[live], return_inverse=True)
        calendar = np.zeros((1, self.last + 1), bool)
        calendar[0, grid.times] = True
        phi = np.array([grid.rotations[at].residual.phi for at in kinds])
        chain = chain_of(calendar, phi, grid.variance)
        found = chain.eliminate(grid.prior.q[steps])
        solved = found.solve(chain.whitened(columns[:, None]))[:, 0]
        spread, factor = np.sqrt(found.inverse[0]), found.factor[0]
        loads = (np.column_stack([np.ones(self.draws), -self.beta]) / self.sd)[live]
        noise = normal[live].T.copy()
        mean, factors = np.empty_like(noise), np.empty_like(noise)
        starts = np.flatnonzero(np.append(True, np.diff(self.cell[live]) > 0))
        for start, end in zip(starts, np.append(starts[1:], live.size), strict=True):
            at = kind[start], step[start]
            np.matmul(solved[:, *at].T, loads[start:end].T, out=mean[:, start:end])
            noise[:, start:end] *= spread[at][:, None]
            factors[:, start:end] = factor[at][:, None]
        noise[-1] = self._end[live] - mean[-1]
        part = np.empty(live.size)
        for j in range(len(noise) - 2, -1, -1):
            noise[j] -= np.multiply(factors[j + 1], noise[j + 1], out=part)
        noise += mean
        walk[:, live] = noise
        return walk

    def _bridge(self, walk: Float64) -> None:
        """Fill (T, draws) at times without a value, between those with one, in place."""
        times, q = self.posterior.grid.times, self.posterior.grid.prior.q[self.step]
        missing = np.setdiff1d(np.arange(1, len(walk)), times)
        if not missing.size:
            return
        normal = self._stream(7).standard_normal((self.draws, len(walk)))
        for t in missing:
            ahead = int(times[np.searchsorted(times, t)])
            left = ahead - t + 1.0
            walk[t] = walk[t - 1] + (walk[ahead] - walk[t - 1]) / left
            walk[t] += q * np.sqrt((left - 1.0) / left) * normal[:, t]
