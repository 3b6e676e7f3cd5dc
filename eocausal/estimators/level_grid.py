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

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import special

from eocausal.estimators.level_spectrum import Residual, Spectrum, walk_cov
from eocausal.estimators.t_mixture import TMixture

__all__ = ["GridPosterior", "GridPrior", "LevelGrid", "RegressorSets"]

Float64 = NDArray[np.float64]
START_PRECISION = 0.5  # any value: the precision of each series replaces it


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

    def masked(self, gram: Float64) -> Float64:
        """Return (..., sets, k, k) ``gram`` without the columns left out, which get a one."""
        left_out = np.eye(self.included.shape[1]) * ~self.included[:, None, :]
        return np.where(self.both, gram[..., None, :, :], 0.0) + left_out

    @property
    def both(self) -> NDArray[np.bool_]:
        """(sets, k, k) True where row and column are in the model."""
        return self.included[:, :, None] & self.included[:, None, :]

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
        parts = list(self.parts())
        self.grams = np.concatenate([az.T @ (d[:, :, None] * az) for _, d, az in parts])
        self.log_det = np.concatenate([r.log_det - np.log(d).sum(1) for r, d, _ in parts])
        self.inverse, self.log_det_precision = self._inverses()

    def _inverses(self) -> tuple[Float64, Float64]:
        """Invert S_ZZ + W for each cell and set, by blocks: columns in all sets come first."""
        always = int(np.argmin(np.append(self.sets.included.all(0), False)))
        precision = self.grams + self.sets.precision
        if not self.prior.start_is_flat:
            precision[..., 0, 0] += START_PRECISION
        base = np.linalg.inv(precision[..., :always, :always])
        turned = base @ precision[..., :always, always:]
        rest = precision[..., always:, always:] - precision[..., always:, :always] @ turned
        chosen = RegressorSets(self.sets.included[:, always:], self.sets.log_prior, rest)
        rest = chosen.masked(rest)
        inner = np.linalg.inv(rest)
        inner = np.where(chosen.both, inner, 0.0)
        log_det = np.linalg.slogdet(rest)[1]
        log_det = log_det + np.linalg.slogdet(precision[..., :always, :always])[1][:, None]
        side = -turned[:, None] @ inner
        corner = base[:, None] - side @ turned.transpose(0, 2, 1)[:, None]
        top = np.concatenate([corner, side], -1)
        return np.concatenate(
            [top, np.concatenate([side.swapaxes(-1, -2), inner], -1)], -2
        ), log_det

    def parts(self) -> Iterator[tuple[Spectrum, Float64, Float64]]:
        """Yield for each residual: rotation, weights (Q, n) and rotated Z (n, k)."""
        for rotation in self.rotations:
            weights = 1.0 / (1.0 + self.prior.q[:, None] ** 2 * rotation.walk)
            yield rotation, weights, rotation.rotation @ self.design[self.times]

    def fit(self, y: Float64) -> GridPosterior:
        """Return the posterior of series ``(N, n)`` at the observed times."""
        squares, products, rotated = [], [], []
        for rotation, d, az in self.parts():
            ay = y @ rotation.rotation.T
            rotated.append(ay)
            squares.append(ay**2 @ d.T)
            weighted = d.T[:, :, None] * az[:, None, :]
            flat = ay @ weighted.reshape(len(az), -1)
            products.append(flat.reshape(len(y), *weighted.shape[1:]))
        return GridPosterior(self, rotated, np.concatenate(squares, 1), np.concatenate(products, 1))


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
    coefficients
        (N, cells, sets, k) means of the coefficients, zero for columns left out.
    start
        (N,) prior precision of the level at time 0, times s^2.
    """

    def __init__(
        self, grid: LevelGrid, rotated: list[Float64], squares: Float64, products: Float64
    ) -> None:
        self.grid, self.rotated, self._squares = grid, rotated, squares
        self._products = np.where(grid.sets.included, products[:, :, None, :], 0.0)
        prior, flat = grid.prior, grid.sets.flat
        lost = int(flat[1:].sum()) + int(prior.start_is_flat)
        self.shape = prior.shape + (len(grid.times) - lost) / 2
        self.start = np.full(len(squares), 0.0 if prior.start_is_flat else START_PRECISION)
        self._weigh()
        if not prior.start_is_flat:
            self.start = self.mean_variance() / prior.start_var
            self._weigh()

    def _shift(self) -> tuple[Float64, Float64]:
        """Return what the precision of the start adds to that of the grid, and 1 + its effect."""
        base = 0.0 if self.grid.prior.start_is_flat else START_PRECISION
        shift = (self.start - base)[:, None, None]
        return shift, 1.0 + shift * self.grid.inverse[..., 0, 0]

    def _weigh(self) -> None:
        grid, prior = self.grid, self.grid.prior
        shift, stretch = self._shift()
        plain = (grid.inverse @ self._products[..., None])[..., 0]
        correction = shift * plain[..., 0] / stretch
        self.coefficients = plain - correction[..., None] * grid.inverse[..., 0, :]
        ssr = self._squares[:, :, None] - (self.coefficients * self._products).sum(-1)
        self.scale = prior.scale.ravel()[:, None] + 0.5 * np.maximum(ssr, 1e-300)
        self.log_weight = (
            (prior.log_weight.ravel() - 0.5 * grid.log_det)[:, None]
            + grid.sets.log_prior
            + 0.5 * (grid.sets.log_det() - grid.log_det_precision - np.log(stretch))
            - self.shape * np.log(self.scale)
            + np.log(np.maximum(self.inside(), 1e-300))
        )

    def inside(self) -> Float64:
        """Return (N, cells, sets) the probability of s^2 below its bound, without the bound."""
        bound = self.grid.prior.max_var.ravel()
        if not np.isfinite(bound).any():
            return np.ones_like(self.scale)
        return np.asarray(special.gammaincc(self.shape, self.scale / bound[:, None]))

    @cached_property
    def weight(self) -> Float64:
        """(N, cells, sets) posterior probabilities."""
        return self._normalised()

    def _normalised(self) -> Float64:
        top = self.log_weight.max((1, 2), keepdims=True)
        weight = np.exp(self.log_weight - top)
        return np.asarray(weight / weight.sum((1, 2), keepdims=True))

    def mean_variance(self) -> Float64:
        """Return (N,) posterior means of s^2, its bound left aside."""
        return np.asarray((self._normalised() * self.scale).sum((1, 2)) / (self.shape - 1.0))

    def inclusion(self) -> Float64:
        """Return (N, k) the probability that each column is in the model."""
        return np.asarray(np.einsum("ngm,mk->nk", self.weight, self.grid.sets.included))

    def functional(self, weights: Float64) -> TMixture:
        """Return the law of a weighted sum of the values, ``weights`` (T,).

        The weights must be zero at the observed times: values there are known.
        """
        grid, ahead = self.grid, np.flatnonzero(weights)
        share = weights[ahead]
        to_walk = walk_cov(grid.times, ahead) @ share
        walk_var = share @ walk_cov(ahead, ahead) @ share
        square = grid.prior.q[:, None] ** 2
        centers, loadings, spreads = [], [], []
        for (rotation, d, az), ay in zip(grid.parts(), self.rotated, strict=True):
            near = rotation.residual.cov(grid.times, ahead, grid.variance) @ share
            own = share @ rotation.residual.cov(ahead, ahead, grid.variance) @ share
            cross = (near + square * to_walk) @ rotation.rotation.T
            loading = d * cross
            centers.append(ay @ loading.T)
            loadings.append(share @ grid.design[ahead] - loading @ az)
            spreads.append(own + square[:, 0] * walk_var - (loading * cross).sum(1))
        h = np.concatenate(loadings)[:, None, :] * grid.sets.included
        center = np.concatenate(centers, 1)[:, :, None] + (self.coefficients * h).sum(-1)
        turned = np.einsum("gmkl,gml->gmk", grid.inverse, h)
        shift, stretch = self._shift()
        known = (turned * h).sum(-1) - shift * turned[..., 0] ** 2 / stretch
        variance = (np.concatenate(spreads)[:, None] + known) * self.scale / self.shape
        rows = len(self.weight)
        return TMixture(
            self.weight.reshape(rows, -1), center.reshape(rows, -1),
            np.sqrt(variance).reshape(rows, -1), 2.0 * self.shape,
        )  # fmt: skip
