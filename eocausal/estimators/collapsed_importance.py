"""Importance sampling over a few numbers for many series at once: mode, curvature, adapted t.

The numbers left when states and coefficients integrate out are few. Their mode is found by damped
Newton steps on differences, and points are drawn quasi-randomly from a t distribution around it;
a second t has the weighted moments of the first points, and all points are weighed against the
mixture of what they were drawn from (deterministic mixture weights, Owen & Zhou 2000; adaptation
as Cornuet et al. 2012). Where the points are worth fewer than ``WANTED`` equal ones, such as along
a prior that is nearly flat, more are drawn around resampled points (Cappe et al. 2004); with fewer
than ``LEAST`` at the end a series is not to be trusted. Uniform numbers are a Kronecker sequence
(Roberts 2018), shifted by a seed, the same for every series, so that a series' answer does not
depend on those beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from eocausal.estimators.collapsed_sets import log_sum

__all__ = ["LEAST", "Sample", "sample"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.intp]
Target = Callable[[Float64, Int64, bool], tuple[Float64, Float64]]
LEAST, WANTED = 40.0, 85.0
DF = 5.0
WIDEST = 2.0  # sd of a proposal along any number, all of which are on log-like scales
ROUNDS = (48, 96)
MORE = (256, 512)
KERNELS, KERNEL = 32, 0.6  # centers of the later rounds, and their sd over that of all points
STEPS = 9


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Points for each of S series.

    Attributes
    ----------
    x
        (S, P, d) points.
    log_weight
        (S, P) log importance weights, minus infinity for points that a series does not have; their
        sum of exponentials is the integral of the target.
    kept
        (S, P, q) what the target returned beside its value.
    """

    x: Float64
    log_weight: Float64
    kept: Float64

    @property
    def effective(self) -> Float64:
        """(S,) number of equally weighted points that the weighted are worth."""
        return _normalised(self.log_weight)[1]


def sample(target: Target, box: Float64, least: Float64, count: int, *, seed: int) -> Sample:
    """Draw points of a target for each of ``count`` series.

    Parameters
    ----------
    target
        Log densities (rows,) at points (rows, d), of the series (rows,), and what to keep of them
        (rows, q) if they are points of the sample, as the third argument says.
    box
        (S, d, 2) where each number of each series is looked for first.
    least
        (d,) sds that the curvature at the mode may not tell of, where a density has wide shoulders.
    """
    every = np.arange(count)
    start, wide = _swept(target, box, every)
    center, root = _climbed(target, start, wide, every)
    root = np.asarray(np.linalg.cholesky(root @ root.swapaxes(1, 2) + np.diag(least**2)))
    found = _Rounds(target, box.shape[1], seed)
    found.draw(center[:, None], root, ROUNDS[0], every)
    center, root = found.moments(center, root)
    found.draw(center[:, None], root, ROUNDS[1], every)
    for size in MORE:
        poor = np.flatnonzero(found.result().effective < WANTED)
        if not poor.size:
            break
        _, root = found.moments(center, root)
        found.draw(found.kernels(), KERNEL * root, size, poor)
    return found.result()


def uniforms(start: int, count: int, dims: int, seed: int) -> Float64:
    """Return (count, dims) points of a Kronecker sequence, shifted by the seed."""
    root = 2.0
    for _ in range(40):
        root = (1.0 + root) ** (1.0 / (dims + 1))
    steps = root ** -np.arange(1.0, dims + 1)
    shift = np.random.Generator(np.random.Philox(key=[seed, 2])).random(dims)
    at = np.arange(start + 1, start + count + 1)[:, None]
    return np.asarray(np.clip((shift + at * steps) % 1.0, 1e-9, 1.0 - 1e-9))


def _swept(target: Target, box: Float64, every: Int64) -> tuple[Float64, Float64]:
    """Return the best of a few points in the box, and first steps for differences."""
    dims = box.shape[1]
    u = uniforms(0, 8 * dims, dims, 0)
    low, high = box[:, None, :, 0], box[:, None, :, 1]
    x = low + u * (high - low)
    value = _at(target, x, every)
    best = value.argmax(1)
    return x[every, best], np.clip(0.1 * (box[..., 1] - box[..., 0]), 0.05, 0.5)


def _climbed(
    target: Target, start: Float64, wide: Float64, every: Int64
) -> tuple[Float64, Float64]:
    """Return modes (S, d) and roots (S, d, d) of the inverse negative curvature."""
    series, dims = start.shape
    offsets, pairs = _stencil(dims)
    center, step, root = start.copy(), wide.copy(), np.tile(np.eye(dims), (series, 1, 1))
    best, move = np.full(series, -np.inf), np.zeros_like(start)
    active = every.copy()
    for _ in range(STEPS):
        h = step[active]
        x = (center + move)[active, None] + offsets * h[:, None]
        value = _at(target, x, active)
        worse = value[:, 0] < best[active] - 0.05
        move[active[worse]] *= 0.3
        good, h, value = active[~worse], h[~worse], value[~worse]
        center[good] += move[good]
        best[good] = value[:, 0]
        gradient, curvature = _derivatives(value, dims, pairs)
        sd_root, shift = _newton(gradient, curvature, h)
        root[good] = sd_root
        sd = np.sqrt((sd_root**2).sum(2))
        move[good] = np.clip(shift, -1.5, 1.5)
        step[good] = np.clip(0.5 * sd, 0.02, 0.6)
        done = np.zeros(series, bool)
        done[good] = (np.abs(shift) < 0.15 * sd).all(1)
        center[done] += move[done]
        active = active[~done[active]]
        if not active.size:
            break
    return center, root


def _stencil(dims: int) -> tuple[Float64, list[tuple[int, int]]]:
    unit = np.eye(dims)
    pairs = [(i, j) for i in range(dims) for j in range(i)]
    crossed = [unit[i] + unit[j] for i, j in pairs]
    return np.array([np.zeros(dims), *unit, *-unit, *crossed]), pairs


def _derivatives(
    value: Float64, dims: int, pairs: list[tuple[int, int]]
) -> tuple[Float64, Float64]:
    """Return gradient and second derivatives per step, from values on the stencil."""
    top = value[:, 0]
    up, down = value[:, 1 : dims + 1], value[:, dims + 1 : 2 * dims + 1]
    gradient = 0.5 * (up - down)
    curvature = np.zeros((len(value), dims, dims))
    at = np.arange(dims)
    curvature[:, at, at] = up + down - 2.0 * top[:, None]
    for number, (i, j) in enumerate(pairs):
        crossed = value[:, 2 * dims + 1 + number] - up[:, i] - up[:, j] + top
        curvature[:, i, j] = curvature[:, j, i] = crossed
    return gradient, curvature


def _newton(gradient: Float64, curvature: Float64, h: Float64) -> tuple[Float64, Float64]:
    """Return a root of the covariance and the step, with curvatures of a concave function."""
    slope = gradient / h
    bend = -curvature / (h[:, :, None] * h[:, None, :])
    values, vectors = np.linalg.eigh(bend)
    values = np.maximum(np.abs(values), 1.0 / WIDEST**2)
    root = vectors / np.sqrt(values)[:, None, :]
    shift = np.einsum("sij,skj,sk->si", root, root, slope)
    return root, shift


def _at(target: Target, x: Float64, series: Int64) -> Float64:
    """Return (S, P) the target at points (S, P, d), finite everywhere."""
    value, _ = target(x.reshape(-1, x.shape[-1]), np.repeat(series, x.shape[1]), False)
    value = value.reshape(x.shape[:2])
    return np.where(np.isfinite(value), value, -1e6)


class _Rounds:
    """Points so far, what they were drawn from, and the target there."""

    def __init__(self, target: Target, dims: int, seed: int) -> None:
        self.target, self.dims, self.seed, self.used = target, dims, seed, 0
        self.x: list[Float64] = []
        self.value: list[Float64] = []
        self.kept: list[Float64] = []
        self.laws: list[tuple[Float64, Float64, int, Int64]] = []

    def draw(self, centers: Float64, root: Float64, size: int, series: Int64) -> None:
        """Add points of a mixture of t, centers (S, m, d), for some series."""
        u = uniforms(self.used, size, self.dims + 1, self.seed)
        self.used += size
        t = special.ndtri(u[:, :-1]) / np.sqrt(special.chdtri(DF, u[:, -1:]) / DF)
        x = np.zeros((len(centers), size, self.dims))
        which = np.arange(size) % centers.shape[1]
        x[series] = centers[series][:, which] + t @ root[series].swapaxes(1, 2)
        value = np.full(x.shape[:2], -np.inf)
        flat = x[series].reshape(-1, self.dims)
        found, kept = self.target(flat, np.repeat(series, size), True)
        value[series] = found.reshape(len(series), size)
        room = np.zeros((len(centers), size, kept.shape[1]))
        room[series] = kept.reshape(len(series), size, -1)
        self.kept.append(room)
        self.x.append(x)
        self.value.append(np.where(np.isnan(value), -np.inf, value))
        self.laws.append((centers.copy(), root.copy(), size, series))

    def result(self) -> Sample:
        """Return all points, weighed against the mixture of their laws."""
        return Sample(np.concatenate(self.x, 1), self.log_weights(), np.concatenate(self.kept, 1))

    def log_weights(self) -> Float64:
        """Return (S, P) log importance weights."""
        x, value = np.concatenate(self.x, 1), np.concatenate(self.value, 1)
        density = np.full(value.shape, -np.inf)
        for centers, root, size, series in self.laws:
            inverse = np.linalg.inv(root[series]).swapaxes(1, 2)
            at, around = x[series] @ inverse, centers[series] @ inverse
            far = ((at[:, :, None] - around[:, None]) ** 2).sum(3)
            log_t = -0.5 * (DF + self.dims) * np.log1p(far / DF)
            log_t = log_sum(log_t) - np.log(centers.shape[1])
            log_t = log_t - np.linalg.slogdet(root[series])[1][:, None]
            density[series] = np.logaddexp(density[series], np.log(size) + log_t)
        constant = (
            special.gammaln(0.5 * (DF + self.dims))
            - special.gammaln(0.5 * DF)
            - 0.5 * self.dims * np.log(DF * np.pi)
        )
        return np.asarray(value - density - constant)

    def moments(self, center: Float64, root: Float64) -> tuple[Float64, Float64]:
        """Return weighted means and roots of covariances, the less changed the fewer points."""
        weight, effective = _normalised(self.log_weights())
        x = np.concatenate(self.x, 1)
        share = effective / (effective + 5.0 * self.dims)
        mean = np.einsum("sp,spd->sd", weight, x)
        far = x - mean[:, None]
        cov = np.einsum("sp,spd,spe->sde", weight, far, far)
        own = root @ root.swapaxes(1, 2)
        mixed = share[:, None, None] * cov + (1.0 - share)[:, None, None] * own
        return center + share[:, None] * (mean - center), np.linalg.cholesky(mixed)

    def kernels(self) -> Float64:
        """Return (S, m, d) points resampled by weight, at even steps of their cumulative sum."""
        weight, _ = _normalised(self.log_weights())
        steps = (np.arange(KERNELS) + 0.5) / KERNELS
        at = (np.cumsum(weight, 1)[:, None, :] < steps[:, None]).sum(2)
        at = np.minimum(at, weight.shape[1] - 1)
        return np.take_along_axis(np.concatenate(self.x, 1), at[:, :, None], 1)


def _normalised(log_weight: Float64) -> tuple[Float64, Float64]:
    """Return weights that sum to one, and how many equal ones they are worth."""
    weight = np.exp(log_weight - log_weight.max(1, keepdims=True))
    weight /= weight.sum(1, keepdims=True)
    return weight, 1.0 / (weight**2).sum(1)
