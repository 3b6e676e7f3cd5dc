"""Posterior of a walking level with residual and regressors, on a grid.

    y = Z b + level + residual,   (level, residual) ~ N(0, s^2 V),

with V of :mod:`eocausal.estimators.level_spectrum`. Level, residual, coefficients b and scale s^2
integrate out in closed form; what is left is q = sd of the level's steps over sd of the residual,
and the kind of residual, on a grid, times the sets of regressors that may be in the model. With
S = Z'V^-1 [Z, y], prior b ~ N(0, s^2 W^-1) and s^2 ~ IG(a, c), for each cell and set

    s^2 | y ~ IG(a + n/2, c + SSR/2),   SSR = S_yy - S_yZ (S_ZZ + W)^-1 S_Zy

(METHODS.md section 5, "Engine"; the algebra of the normal-inverse-gamma model is in O'Hagan &
Forster 2004, chapter 11). The first column of Z is the level at time 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from eocausal.estimators.grid_weights import log_weights, normalised
from eocausal.estimators.level_spectrum import Residual, Spectrum, walk_cov
from eocausal.estimators.subset_inverses import subset_inverses
from eocausal.estimators.subset_remainders import regression_remainders
from eocausal.estimators.t_mixture import TMixture

__all__ = ["Contrast", "GridPosterior", "GridPrior", "LevelGrid", "RegressorSets"]

Float64 = NDArray[np.float64]
START_PRECISION = 0.5  # any value: the precision of each series replaces it
FEW = 3  # series for which projecting takes less time than inverting


@dataclass(frozen=True, slots=True, eq=False)
class GridPrior:
    """What is believed before the data, for a series of standard deviation about one.

    Attributes
    ----------
    residuals
        R kinds of residual.
    q
        (Q,) sds of the level's steps over the sd of the residual.
    log_weight
        (R, Q) log prior of the cells, up to a constant.
    shape
        a of s^2 ~ IG(a, c).
    scale
        (R, Q) c of each cell.
    start_var
        Variance of the level at time 0; infinite for a flat prior.
    max_var
        (R, Q) bound of s^2 in each cell, infinite where there is none.
    """

    residuals: tuple[Residual, ...]
    q: Float64
    log_weight: Float64
    shape: float
    scale: Float64
    start_var: float
    max_var: Float64

    @property
    def start_is_flat(self) -> bool:
        """Whether nothing is believed about the level at time 0."""
        return not np.isfinite(self.start_var)


@dataclass(frozen=True, slots=True, eq=False)
class RegressorSets:
    """Which columns of Z are in the model, and what is believed about their coefficients.

    Attributes
    ----------
    included
        (sets, k) True where the column is in the model; the first column always is.
    log_prior
        (sets,) log probability.
    precision
        (k, k) W; rows and columns of zero for the first column and those with a flat prior.
    """

    included: NDArray[np.bool_]
    log_prior: Float64
    precision: Float64

    @property
    def always(self) -> int:
        """Number of columns, the first ones, that are in all sets."""
        return int(np.argmin(np.append(self.included.all(0), False)))

    @property
    def flat(self) -> NDArray[np.bool_]:
        """(k,) True for columns without a proper prior."""
        return np.asarray(np.diagonal(self.precision) == 0)

    def log_det(self) -> Float64:
        """Return (sets,) log determinants of the proper part of W."""
        proper = self.included & ~self.flat
        gram = np.where(proper[:, :, None] & proper[:, None, :], self.precision, 0.0)
        gram = gram + np.eye(gram.shape[-1]) * ~proper[:, None, :]
        return np.asarray(np.linalg.slogdet(gram)[1])


@dataclass(frozen=True, slots=True, eq=False)
class Contrast:
    """Weighted sums of values that were not observed, as far as they do not depend on data.

    Attributes
    ----------
    near, walk
        For each residual (S, n), rotated: covariance of each sum with the residual at the observed
        times, and with the walk per q^2.
    loading
        (S, cells, k) what each sum loads on the coefficients once the values are known.
    spread
        (S, cells) variance over s^2 of each sum given values and coefficients.
    """

    near: list[Float64]
    walk: list[Float64]
    loading: Float64
    spread: Float64

    def of(self, rows: NDArray[np.int64]) -> Contrast:
        """Return the sums ``rows``; one alone stays as it is, to be shared by all series."""
        if len(self.spread) == 1:
            return self
        return Contrast(
            [part[rows] for part in self.near], [part[rows] for part in self.walk],
            self.loading[rows], self.spread[rows],
        )  # fmt: skip


class LevelGrid:
    """Sums that do not depend on data, for series with the same gaps and regressors.

    Parameters
    ----------
    rotations
        One for each residual of the prior, of the observed times.
    prior, sets
        What is believed.
    design
        (T, k) Z; rows of times without a value may be anything finite.
    observed
        (T,) True where the series have values.
    variance
        (T,) relative variances of the residual, or None.
    """

    def __init__(
        self,
        rotations: tuple[Spectrum, ...],
        prior: GridPrior,
        sets: RegressorSets,
        design: Float64,
        observed: NDArray[np.bool_],
        variance: Float64 | None = None,
    ) -> None:
        self.rotations, self.prior, self.sets = rotations, prior, sets
        self.design, self.variance = design, variance
        self.times = np.flatnonzero(observed)
        square = prior.q[:, None] ** 2
        self.weights = [1.0 / (1.0 + square * r.walk) for r in rotations]
        self.turned = [r.rotation @ design[self.times] for r in rotations]
        log_det, grams, k = [], [], design.shape[1]
        for rotation, d, az in zip(rotations, self.weights, self.turned, strict=True):
            pairs = (az[:, :, None] * az[:, None, :]).reshape(len(az), k * k)
            grams.append((d @ pairs).reshape(len(d), k, k))
            log_det.append(rotation.log_det - np.log(d).sum(1))
        self.grams = np.concatenate(grams)
        self.log_det = np.concatenate(log_det)
        self.log_prior = sets.log_prior + 0.5 * sets.log_det()

    @property
    def log_det_precision(self) -> Float64:
        """(cells, sets) log determinants of S_ZZ + W."""
        return self._inverses[1]

    @property
    def inverse(self) -> Float64:
        """(cells, sets, k, k) inverses of S_ZZ + W; zero in columns left out."""
        return self._inverses[0]

    @cached_property
    def _inverses(self) -> tuple[Float64, Float64]:
        """Invert S_ZZ + W for each cell and set, by blocks: columns in all sets come first."""
        always = self.sets.always
        precision = self.grams + self.sets.precision
        if not self.prior.start_is_flat:
            precision[..., 0, 0] += START_PRECISION
        base = np.linalg.inv(precision[..., :always, :always])
        turned = base @ precision[..., :always, always:]
        rest = precision[..., always:, always:] - precision[..., always:, :always] @ turned
        inner, log_det = subset_inverses(rest, self.sets.included[:, always:])
        log_det = log_det + np.linalg.slogdet(precision[..., :always, :always])[1][:, None]
        side = -turned[:, None] @ inner
        inverse = np.empty((*inner.shape[:2], *precision.shape[1:]))
        inverse[..., :always, :always] = base[:, None] - side @ turned.swapaxes(-1, -2)[:, None]
        inverse[..., :always, always:] = side
        inverse[..., always:, :always] = side.swapaxes(-1, -2)
        inverse[..., always:, always:] = inner
        return inverse, log_det

    @cached_property
    def _loads(self) -> list[Float64]:
        """(n, Q k) weighted rotated columns of each residual."""
        each = zip(self.weights, self.turned, strict=True)
        return [(d[:, :, None] * az).swapaxes(0, 1).reshape(len(az), -1) for d, az in each]

    def fit(self, y: Float64) -> GridPosterior:
        """Return the posterior of series ``(N, n)`` at the observed times."""
        rotated = [y @ r.rotation.T for r in self.rotations]
        return GridPosterior(self, rotated, self._squared(rotated, rotated), self._loaded(rotated))

    def _squared(self, left: list[Float64], right: list[Float64]) -> Float64:
        """Return (N, cells) weighted inner products of rotated values."""
        parts = zip(left, right, self.weights, strict=True)
        return np.concatenate([(a * b) @ d.T for a, b, d in parts], 1)

    def _loaded(self, rotated: list[Float64]) -> Float64:
        """Return (N, cells, k) weighted inner products of rotated values with columns."""
        cells, k = self.prior.q.size, self.design.shape[1]
        if len(rotated[0]) <= FEW:
            each = zip(rotated, self.weights, self.turned, strict=True)
            return np.concatenate([d @ (a[:, :, None] * az) for a, d, az in each], 1)
        parts = zip(rotated, self._loads, strict=True)
        return np.concatenate([(a @ loads).reshape(len(a), cells, k) for a, loads in parts], 1)

    def contrast(self, weights: Float64) -> Contrast:
        """Prepare weighted sums of the values, ``weights`` (S, T), zero at the observed times."""
        ahead = np.flatnonzero(weights.any(0))
        share = weights[:, ahead]
        to_walk = share @ walk_cov(ahead, self.times)
        walk_var = ((share @ walk_cov(ahead, ahead)) * share).sum(1)[:, None]
        square = self.prior.q**2
        near, walk, own = [], [], []
        for rotation in self.rotations:
            residual, turn = rotation.residual, rotation.rotation.T
            near.append(share @ residual.cov(ahead, self.times, self.variance) @ turn)
            walk.append(to_walk @ turn)
            inner = ((share @ residual.cov(ahead, ahead, self.variance)) * share).sum(1)
            own.append(inner[:, None] + square * walk_var)
        q2 = np.tile(square, len(self.rotations))
        known = self._squared(near, near) + q2 * (
            2.0 * self._squared(near, walk) + q2 * self._squared(walk, walk)
        )
        loading = self._loaded(near) + q2[:, None] * self._loaded(walk)
        plain = (share @ self.design[ahead])[:, None, :]
        return Contrast(near, walk, plain - loading, np.concatenate(own, 1) - known)

    def predicted(self, rotated: list[Float64], contrast: Contrast) -> Float64:
        """Return (N, cells) the sums given rotated values, as if all coefficients were zero."""
        q2 = np.tile(self.prior.q**2, len(self.rotations))
        return self._squared(rotated, contrast.near) + q2 * self._squared(rotated, contrast.walk)

    def bilinear(self, left: Float64, right: Float64) -> Float64:
        """Return (N, cells, sets) left' (S_ZZ + W)^-1 right of (N or 1, cells, k) vectors."""
        rows, cells, k = np.broadcast_shapes(left.shape, right.shape)
        if len(right) == 1:
            side = self.inverse @ right[0][:, None, :, None]
            return self._by_cell(left, side[..., 0].swapaxes(-1, -2))
        products = left[..., :, None] * right[..., None, :]
        flat = self.inverse.reshape(*self.inverse.shape[:2], -1).swapaxes(-1, -2)
        return self._by_cell(products.reshape(rows, cells, k * k), flat)

    def _by_cell(self, left: Float64, right: Float64) -> Float64:
        """Multiply (N, cells, j) with (cells, j, sets)."""
        return np.asarray(np.matmul(left.swapaxes(0, 1), right).swapaxes(0, 1))

    def first(self, vector: Float64) -> Float64:
        """Return (N, cells, sets) the first entry of (S_ZZ + W)^-1 times (N, cells, k) vectors."""
        return self._by_cell(vector, self.inverse[..., 0].swapaxes(-1, -2))


class GridPosterior:
    """Posterior of N series over cells (R Q of them) and sets; see :class:`LevelGrid`.

    Attributes
    ----------
    shape
        a of s^2 | cell, set ~ IG(a, c), the same everywhere.
    scale
        (N, cells, sets) c.
    log_weight
        (N, cells, sets) log posterior, not normalised.
    start
        (N,) prior precision of the level at time 0, times s^2.
    """

    def __init__(
        self, grid: LevelGrid, rotated: list[Float64], squares: Float64, products: Float64
    ) -> None:
        self.grid, self.rotated = grid, rotated
        self._squares, self._products = squares, products
        prior = grid.prior
        lost = int(grid.sets.flat[1:].sum()) + int(prior.start_is_flat)
        self.shape = prior.shape + (len(grid.times) - lost) / 2
        self._few = len(squares) <= FEW
        self._first: Float64 | None = None
        self._corner = np.zeros(())
        self.start = np.full(len(squares), 0.0 if prior.start_is_flat else START_PRECISION)
        if self._few:
            first = None
            if not prior.start_is_flat:
                first = np.zeros_like(products)
                first[..., 0] = 1.0
            left, self._log_dets = self._remainders(first)
            self._plain = left[0, 0]
            if first is not None:
                self._first, self._corner = -left[0, 1], -left[1, 1]
        else:
            self._plain = squares[:, :, None] - grid.bilinear(products, products)
            self._log_dets = grid.log_det_precision
            if not prior.start_is_flat:
                self._first, self._corner = grid.first(products), grid.inverse[..., 0, 0]
        self._weigh()
        if not prior.start_is_flat:
            self.start = self.mean_variance() / prior.start_var
            self._weigh()

    def _shift(self) -> tuple[Float64, Float64]:
        """Return what the precision of the start adds to that of the grid, and 1 + its effect."""
        shift = (self.start - START_PRECISION)[:, None, None]
        return shift, 1.0 + shift * self._corner

    def _remainders(self, loading: Float64 | None = None) -> tuple[Float64, Float64]:
        """Project columns out of few series directly, without all inverses."""
        grid = self.grid
        gram = (grid.grams + grid.sets.precision)[None]
        if loading is not None and len(loading) < len(self.start):
            loading = np.broadcast_to(loading, self._products.shape)
        return regression_remainders(
            gram, self._products, self._squares, self.start, grid.sets.included, loading
        )

    def _weigh(self) -> None:
        ssr, log_dets = self._plain, self._log_dets
        if self._first is not None:
            shift, stretch = self._shift()
            ssr = ssr + shift * self._first**2 / stretch
            log_dets = log_dets + np.log(stretch)
        log_dets = log_dets + self.grid.log_det[:, None]
        self.scale, self.log_weight = log_weights(
            self.grid.prior, self.grid.log_prior, self.shape, ssr, log_dets
        )

    @cached_property
    def weight(self) -> Float64:
        """(N, cells, sets) posterior probabilities."""
        return normalised(self.log_weight)

    def coefficients(
        self, series: int, cell: NDArray[np.int64], chosen: NDArray[np.int64]
    ) -> tuple[Float64, Float64]:
        """Return means (n, k) of one series' coefficients and their covariances over s^2.

        Columns left out of a set are zero in both.
        """
        grid = self.grid
        gram = grid.grams[cell] + grid.sets.precision
        gram[:, 0, 0] += self.start[series]
        member = grid.sets.included[chosen]
        both = member[:, :, None] & member[:, None, :]
        inverse = np.linalg.inv(np.where(both, gram, np.eye(gram.shape[-1])))
        inverse = np.where(both, inverse, 0.0)
        return (inverse @ self._products[series, cell][..., None])[..., 0], inverse

    def mean_variance(self) -> Float64:
        """Return (N,) posterior means of s^2, its bound left aside."""
        weight = normalised(self.log_weight)
        return np.asarray(np.einsum("ngm,ngm->n", weight, self.scale) / (self.shape - 1.0))

    def inclusion(self) -> Float64:
        """Return (N, k) the probability that each column is in the model."""
        return np.asarray(self.weight.sum(1) @ self.grid.sets.included)

    def functional(self, weights: Float64) -> TMixture:
        """Return the law of a weighted sum of the values, ``weights`` (T,).

        The weights must be zero at the observed times: values there are known.
        """
        return self.law(self.grid.contrast(weights[None]))

    def law(self, contrast: Contrast) -> TMixture:
        """Return the laws of weighted sums, one for each series or one for all."""
        grid, h = self.grid, contrast.loading
        center = grid.predicted(self.rotated, contrast)[:, :, None]
        if self._few:
            remainder, _ = self._remainders(h)
            center, known = center - remainder[0, 1], -remainder[1, 1]
        else:
            center = center + grid.bilinear(self._products, h)
            known = grid.bilinear(h, h)
        if self._first is not None and not self._few:
            shift, stretch = self._shift()
            first = grid.first(h)
            center -= shift * self._first * first / stretch
            known = known - shift * first**2 / stretch
        variance = (contrast.spread[:, :, None] + known) * (self.scale / self.shape)
        rows = len(self.weight)
        return TMixture(
            self.weight.reshape(rows, -1), center.reshape(rows, -1),
            np.sqrt(variance).reshape(rows, -1), 2.0 * self.shape,
        )  # fmt: skip
