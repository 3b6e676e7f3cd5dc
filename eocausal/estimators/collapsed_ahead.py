"""Draws after the last value from the state there; those before it given that state, when asked.

What the states become without further shocks is, from time n - 1 on, a combination c of what unit
starting values become. Given the values, c is normal: with D V D' = L L' and G = L^-1 D Cov(y, c),

    c | y ~ N(G L^-1 D y, Var(c) - G G'),

so that the times after it need c and new shocks alone. A path before it is drawn from the model,
with its own c, and corrected by the conditional mean given the values and the c that was drawn
(Durbin & Koopman 2012, section 4.9.1, with c as one more observation).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from eocausal.estimators.collapsed_bands import Ratios, solve_one
from eocausal.estimators.collapsed_draws import (
    BLOCK,
    Chosen,
    Numbers,
    Posterior,
    draw_paths,
    stream,
)
from eocausal.estimators.collapsed_ends import Edge, edge_of, end_of
from eocausal.estimators.collapsed_parts import autoregression
from eocausal.estimators.collapsed_spread import state_spread
from eocausal.estimators.level_draws import Paths

__all__ = ["CollapsedDraws", "series_draws"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.intp]
MOST_STATES = 40
SMALL = 1e-12


def series_draws(
    posterior: Posterior, *, draws: int, seed: int, key: int, center: Float64, scale: Float64
) -> CollapsedDraws | _Together:
    """Prepare draws of one series; see :func:`~.collapsed_draws.draw_paths`.

    A semi-local trend, seasons that last several times, and an autocorrelated residual that is
    unknown at the last time learned from are drawn all times at once.
    """
    group, layout = posterior.group, posterior.layout
    apart = (
        layout.returning is None
        and all(getattr(part, "duration", 1) == 1 for part in layout.parts)
        and sum(map(len, layout.start_vars)) <= MOST_STATES
        and len(group.seen) < layout.times
        and not (layout.autocorrelated and not group.seen[-1])
    )
    if apart:
        return CollapsedDraws(posterior, draws, seed, key, center, scale)
    return _Together(
        draw_paths(posterior, draws=draws, seed=seed, key=key, center=center, scale=scale),
        len(group.seen),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Together:
    """Draws of which all times were made at once."""

    paths: Paths
    n: int

    def all(self) -> Paths:
        return self.paths

    def ahead(self) -> tuple[slice, Paths]:
        part = slice(self.n, self.paths.expected.shape[1])
        return part, Paths(self.paths.expected[:, part], self.paths.replicate[:, part])


@dataclass(frozen=True, slots=True, eq=False)
class _Points:
    """Laws of c at the points that were chosen.

    Attributes
    ----------
    back
        (draws,) which of them.
    factors, gaps
        Cholesky factors, and orthonormal bases of what missing values explain.
    given
        (points, m, k + 1) G L^-1 D [X, y].
    root
        (points, m, m) R with R R' = Var(c | y).
    """

    back: Int64
    factors: list[Float64]
    gaps: Float64 | None
    given: Float64
    root: Float64


def _corners(factors: list[Float64], w: int) -> Float64:
    """Return (points, w, w) the last rows and columns of banded factors."""
    banded = np.stack([factor[len(factor) - w :] for factor in factors])
    out = np.zeros((len(factors), w, w))
    for lag in range(w):
        at = np.arange(w - lag)
        out[:, at + lag, at] = banded[:, : w - lag, lag]
    return out


def _root(variance: Float64) -> Float64:
    """Return R (rows, m, m) with R R' of variances, also where some combination has none."""
    try:
        return np.asarray(np.linalg.cholesky(variance))
    except np.linalg.LinAlgError:
        value, vector = np.linalg.eigh(variance)
        return np.asarray(vector * np.sqrt(np.maximum(value, 0.0))[:, None])


class CollapsedDraws:
    """Draws of one series; parameters are those of :func:`series_draws`."""

    def __init__(
        self, posterior: Posterior, draws: int, seed: int, key: int,
        center: Float64, scale: Float64,
    ) -> None:  # fmt: skip
        self.posterior, self.draws, self._key = posterior, draws, (seed, key)
        self.center, self.scale = center, scale
        self.n = len(posterior.group.seen)
        self.end = end_of(posterior.layout, self.n)
        self.taken = Chosen.of(posterior, draws, seed, key)

    def all(self) -> Paths:
        """Return (draws, T) draws of all times."""
        n, (_, after) = self.n, self.ahead()
        expected, replicate = np.empty((2, self.draws, self.posterior.layout.times))
        expected[:, n:], replicate[:, n:] = after.expected, after.replicate
        self._behind(expected[:, :n], replicate[:, :n])
        for out in (expected, replicate):
            out[:, :n] *= self.scale[:n]
            out[:, :n] += self.center[:n]
        return Paths(expected, replicate)

    def ahead(self) -> tuple[slice, Paths]:
        """Return the times after the last one learned from, and (draws, these) their draws."""
        return slice(self.n, len(self.scale)), self._ahead[0]

    @cached_property
    def _ahead(self) -> tuple[Paths, Float64, Float64]:
        """Draws of the times from n on, coefficients (draws, k) and c (draws, m)."""
        layout, taken, end = self.posterior.layout, self.taken, self.end
        ratios = self.posterior.ratios.take(taken.point)
        m, count = len(end.inverse), taken.middle.shape[1]
        times = layout.times - self.n
        shocks = [part.shocks * (times + 1) for part in layout.parts]
        sizes = np.cumsum([count, m, times, *shocks])[:-1]
        normal = stream(*self._key, 1).standard_normal((self.draws, sizes[-1] + shocks[-1]))
        noise, own, residual, *blocks = np.split(normal, sizes, axis=1)
        beta = taken.middle + taken.sd * np.einsum("dlk,dl->dk", taken.root, noise)
        points = self._points
        given = points.given[points.back]
        c = given[..., -1] - np.einsum("dmk,dk->dm", given[..., :-1], beta)
        c += taken.sd * np.einsum("dlm,dm->dl", points.root[points.back], own)
        walk = np.zeros((self.draws, times))
        for at, (part, block) in enumerate(zip(layout.parts, blocks, strict=True)):
            path = part.path(block.reshape(self.draws, part.shocks, -1))[:, 1:]
            path *= np.sqrt(ratios.parts[:, at, None])
            walk += path
        walk *= taken.sd
        walk += c @ end.basis[1:].T
        walk += beta @ self.posterior.group.columns.values[self.n :].T
        residual = self._continued(residual, ratios, beta, c)
        residual += walk
        for out in (walk, residual):
            out *= self.scale[self.n :]
            out += self.center[self.n :]
        return Paths(walk, residual), beta, c

    def _continued(self, normal: Float64, ratios: Ratios, beta: Float64, c: Float64) -> Float64:
        """Return residuals after the last value, from standard normal numbers."""
        group, taken, n = self.posterior.group, self.taken, self.n
        root = np.sqrt(self.posterior.layout.variances())
        if not self.posterior.layout.autocorrelated:
            return np.asarray(normal * (root[n:] * taken.sd))
        shocks = normal * (taken.sd * np.sqrt(1.0 - ratios.phi**2)[:, None])
        last = group.values[self.posterior.row, -1] - beta @ group.columns.values[n - 1]
        last -= c @ self.end.basis[0]
        shocks[:, 0] += ratios.phi * last / root[n - 1]
        return np.asarray(autoregression(shocks, ratios.phi) * root[n:])

    @cached_property
    def _points(self) -> _Points:
        posterior, group = self.posterior, self.posterior.group
        used, back = np.unique(self.taken.point, return_inverse=True)
        ratios = posterior.ratios.take(used)
        sizes = np.column_stack([ratios.parts, ratios.start])
        if posterior.factors:
            factors, gaps = [posterior.factors[at] for at in used], None
        else:
            factors, gaps = group.factors(ratios)
        blocks = [group.x, group.y[posterior.row, None, None]]
        known = self._whitened(blocks, ratios, factors, gaps)
        edge = self._edge
        if edge is None:
            load = self._load(ratios, factors, gaps)
            given = load @ known.swapaxes(1, 2)
            variance = np.tensordot(sizes, self.end.variance, 1) - load @ load.swapaxes(1, 2)
            return _Points(back.ravel(), factors, gaps, given, _root(variance))
        sizes = np.column_stack([sizes, np.ones(len(used))])
        w = edge.shared.shape[1]
        near = np.linalg.solve(_corners(factors, w), np.tensordot(sizes, edge.shared, 1))
        raw = np.column_stack([group.columns.values[: self.n], group.values[posterior.row]])
        given = near.swapaxes(1, 2) @ known[:, :, self.n - w :].swapaxes(1, 2) - edge.past @ raw
        variance = np.tensordot(sizes, edge.variance, 1) - near.swapaxes(1, 2) @ near
        root = edge.turn @ _root(variance)
        return _Points(back.ravel(), factors, gaps, edge.turn @ given, root)

    @property
    def _edge(self) -> Edge | None:
        """What makes the law of c quick; None where D leaves more than a few values."""
        group, layout = self.posterior.group, self.posterior.layout
        if layout.autocorrelated or group.bands.dense or group.missing.size:
            return None
        if len(group.bands.shared) >= self.n:
            return None
        return edge_of(layout, self.n, group.bands.shared.astype(float).tobytes())

    def _whitened(
        self, blocks: list[Float64], ratios: Ratios, factors: list[Float64], gaps: Float64 | None
    ) -> Float64:
        """Return (points, columns, n) L^-1 of columns, less what missing values explain."""
        bands = self.posterior.group.bands
        blocks = [bands.autocorrelated(block, ratios) for block in blocks]
        solved = np.concatenate([block.swapaxes(0, 1) for block in blocks], 1)
        for at, factor in enumerate(factors):
            solved[at] = solve_one(factor, solved[at])
        if gaps is not None:
            solved -= (solved @ gaps.swapaxes(1, 2)) @ gaps
        return solved

    def _load(self, ratios: Ratios, factors: list[Float64], gaps: Float64 | None) -> Float64:
        """Return (points, m, n) G."""
        shared = self.posterior.group.bands.filtered(self.end.shared).reshape(
            len(self.end.shared), -1
        )
        sizes = np.column_stack([ratios.parts, ratios.start])
        filtered = (sizes @ shared).reshape(len(ratios), -1, self.n).swapaxes(0, 1)
        return self._whitened([filtered], ratios, factors, gaps)

    def _behind(self, expected: Float64, replicate: Float64) -> None:
        """Fill in the times up to n, scaled as they were fitted."""
        posterior, group, n = self.posterior, self.posterior.group, self.n
        _, beta, c = self._ahead
        layout = replace(posterior.layout, times=n, variance=posterior.layout.variance[: 8 * n])
        m, rng = len(self.end.inverse), stream(*self._key, 2)
        mean = beta @ group.columns.values[:n].T
        loads, toward = np.empty((self.draws, n)), c / self.taken.sd
        blocks = [slice(at, min(at + BLOCK, self.draws)) for at in range(0, self.draws, BLOCK)]
        for rows in blocks:
            ratios, sd = posterior.ratios.take(self.taken.point[rows]), self.taken.sd[rows]
            numbers = Numbers(layout, 0, n, len(sd), rng)
            path = numbers.states(ratios, m - 1)
            toward[rows] -= path[:, n - 1 :] @ self.end.inverse.T
            expected[rows] = path[:, :n]
            replicate[rows] = numbers.noise(ratios, numbers.fresh)
            gap = (group.values[posterior.row] - mean[rows]) / sd
            gap -= path[:, :n]
            gap -= numbers.noise(ratios, numbers.residual)
            gap[:, group.missing] = 0.0
            loads[rows] = group.bands.autocorrelated(group.bands.filtered(gap), ratios)
        self._solve(loads, toward)
        for rows in blocks:
            ratios, sd = posterior.ratios.take(self.taken.point[rows]), self.taken.sd[rows]
            path = state_spread(layout, ratios, group.bands.adjoint(loads[rows], ratios))
            sizes = np.column_stack([ratios.parts, ratios.start])
            for size, shared in zip(sizes.T, self.end.shared, strict=True):
                path += (size[:, None] * toward[rows]) @ shared
            path += expected[rows]
            path *= sd
            path += mean[rows]
            expected[rows] = path
            path += sd * replicate[rows]
            replicate[rows] = path

    def _solve(self, loads: Float64, toward: Float64) -> None:
        """Turn D u (draws, n) and c less its draw (draws, m) into what they weigh, in place."""
        points = self._points
        variance = points.root @ points.root.swapaxes(1, 2)
        inverse = np.linalg.pinv(variance, rcond=SMALL, hermitian=True)
        used = np.unique(self.taken.point)
        loads_of = self._load(self.posterior.ratios.take(used), points.factors, points.gaps)
        order = np.argsort(points.back, kind="stable")
        ends = np.cumsum(np.bincount(points.back))
        for at, members in enumerate(np.split(order, ends[:-1])):
            inner = solve_one(points.factors[at], loads[members])
            if points.gaps is not None:
                inner = inner - (inner @ points.gaps[at].T) @ points.gaps[at]
            load = loads_of[at]
            toward[members] = (toward[members] - inner @ load.T) @ inverse[at]
            inner = inner - toward[members] @ load
            loads[members] = solve_one(points.factors[at], inner, transposed=True)
