"""Averages of series that each have gaps of their own, such as pixels under clouds.

The posterior is that of :mod:`eocausal.estimators.level_grid`, exactly, on the same grid; but where
that shares one decomposition among series with the same gaps, here each series passes once through
:mod:`eocausal.estimators.level_chain`. It predicts times after the last observed one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eocausal.estimators.grid_weights import log_weights, normalised
from eocausal.estimators.level_chain import Chain, chain_of
from eocausal.estimators.level_grid import START_PRECISION, GridPrior, RegressorSets
from eocausal.estimators.level_spectrum import walk_cov
from eocausal.estimators.subset_remainders import regression_remainders
from eocausal.estimators.t_mixture import TMixture

__all__ = ["ScatteredPosterior", "scattered_size"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
NUMBERS = 2_500_000  # held at once in the largest array


def scattered_size(times: int, columns: int, prior: GridPrior, sets: int) -> int:
    """Return how many series to take at once: the largest array holds about 20 MB."""
    cells = prior.log_weight.size
    return max(1, NUMBERS // (cells * max(times * (columns + 1), 4 * sets)))


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """Weighted inner products of [y, Z], (N, cells, ...), and what the chain says of its end.

    Attributes
    ----------
    gram
        (N, cells, 1 + k, 1 + k) [y, Z]' V^-1 [y, Z].
    log_det
        (N, cells) log|V|.
    level
        (N, cells, 1 + k) mean of the walk at the last observed time, of each column.
    level_var
        (N, cells) its variance.
    """

    gram: Float64
    log_det: Float64
    level: Float64
    level_var: Float64


class ScatteredPosterior:
    """Posterior of N series over cells and sets.

    Parameters
    ----------
    values
        (N, T) series; what is not observed may be anything.
    observed
        (N, T) True where a value is learned from.
    prior, sets
        What is believed.
    design
        (T, k) columns.
    variance
        (T,) relative variances of the residual, (N, T) those of each series, or None.

    Attributes
    ----------
    start
        (N,) prior precision of the level at time 0, times s^2.
    shape
        (N,) a of s^2.
    """

    def __init__(
        self,
        values: Float64,
        observed: Bool,
        prior: GridPrior,
        sets: RegressorSets,
        design: Float64,
        variance: Float64 | None = None,
    ) -> None:
        self.prior, self.sets, self.design, self.variance = prior, sets, design, variance
        self.phi = np.array([residual.phi for residual in prior.residuals])
        self.chain = chain_of(observed, self.phi, variance)
        self.columns = self._columns(values)
        self.sums = _sums(self.chain, self.columns, prior.q)
        lost = int(sets.flat[1:].sum()) + int(prior.start_is_flat)
        self.shape = prior.shape + (observed.sum(1) - lost) / 2
        self.log_prior = sets.log_prior + 0.5 * sets.log_det()
        self.start = np.full(len(values), 0.0 if prior.start_is_flat else START_PRECISION)
        if not prior.start_is_flat:
            remainder, log_det = self._remainders(None)
            scale, weight = self._weigh(remainder, log_det)
            mean = np.einsum("ngm,ngm->n", normalised(weight), scale) / (self.shape - 1.0)
            self.start = mean / prior.start_var

    def _columns(self, values: Float64) -> Float64:
        """Return (1 + k, N, n) values and columns at the observed times, zero elsewhere."""
        times = self.chain.times
        at = np.maximum(times, 0)
        y = np.take_along_axis(values, at, 1)[..., None]
        both = np.concatenate([y, self.design[at]], -1)
        return np.where(times >= 0, both.transpose(2, 0, 1), 0.0)

    def _remainders(self, loading: Float64 | None) -> tuple[Float64, Float64]:
        """Return (r, r, N, cells, sets) what the columns leave of [y, loading], and log dets."""
        gram = self.sums.gram
        return regression_remainders(
            gram[:, :, 1:, 1:] + self.sets.precision, gram[:, :, 0, 1:], gram[:, :, 0, 0],
            self.start, self.sets.included, loading,
        )  # fmt: skip

    def _weigh(self, remainder: Float64, log_det: Float64) -> tuple[Float64, Float64]:
        log_det = log_det + self.sums.log_det[..., None]
        return log_weights(self.prior, self.log_prior, self.shape, remainder[0, 0], log_det)

    def inclusion(self) -> Float64:
        """Return (N, k) the probability that each column is in the model."""
        _, weight = self._weigh(*self._remainders(None))
        return np.asarray(normalised(weight).sum(1) @ self.sets.included)

    def law(self, shares: Float64) -> TMixture:
        """Return the law of each series' weighted sum, ``shares`` (N, T).

        They must be zero up to the last observed time of the series.
        """
        plain, loading, spread = self._ahead(shares)
        remainder, log_det = self._remainders(loading)
        scale, weight = self._weigh(remainder, log_det)
        rows = len(weight)
        center = plain[..., None] - remainder[0, 1]
        variance = (spread[..., None] - remainder[1, 1]) * scale / self.shape[:, None, None]
        return TMixture(
            normalised(weight).reshape(rows, -1), center.reshape(rows, -1),
            np.sqrt(variance).reshape(rows, -1), 2.0 * self.shape,
        )  # fmt: skip

    def _ahead(self, shares: Float64) -> tuple[Float64, Float64, Float64]:
        """Return sums without coefficients, (N, cells); their loadings; variances over s^2.

        After the last observed time the walk goes on from its value there, and the residual from
        the value less the walk.
        """
        last = self.chain.times[:, -1]
        ahead = np.flatnonzero(shares.any(0))
        share = shares[:, ahead]
        root = np.ones(len(self.design)) if self.variance is None else np.sqrt(self.variance)
        root = np.broadcast_to(root, shares.shape)
        at_last = np.take_along_axis(root, last[:, None], 1)
        weighted = share * root[:, ahead]
        lag = np.maximum(ahead - last[:, None], 0)[..., None].astype(float)
        keeps = np.einsum("nh,nhr->nr", weighted, self.phi**lag) / at_last
        distance = np.abs(np.subtract.outer(ahead, ahead))[..., None].astype(float)
        noise = np.einsum("ng,ghr,nh->nr", weighted, self.phi**distance, weighted, optimize=True)
        noise = noise - (keeps * at_last) ** 2
        walk = ((share @ walk_cov(ahead, ahead)) * share).sum(1) - last * share.sum(1) ** 2
        steps = self.prior.q.size
        keeps, noise = np.repeat(keeps, steps, 1), np.repeat(noise, steps, 1)
        moves = share.sum(1)[:, None] - keeps
        end = self.columns[..., -1].T[:, None, :]
        known = moves[..., None] * self.sums.level + keeps[..., None] * end
        square = np.tile(self.prior.q**2, len(self.phi))
        spread = moves**2 * self.sums.level_var + square * walk[:, None] + noise
        loading = (share @ self.design[ahead])[:, None, :] - known[..., 1:]
        return known[..., 0], loading, spread


def _sums(chain: Chain, columns: Float64, q: Float64) -> _Sums:
    """Pass through the chain; cells are phi by q."""
    right = chain.whitened(columns)
    base = np.matmul(columns.transpose(1, 0, 2)[:, None], right.transpose(1, 2, 3, 0))
    walks = q > 0
    rows, phis, width = len(chain.times), right.shape[2], len(columns)
    gram = np.empty((rows, phis, q.size, width, width))
    log_det = np.empty((rows, phis, q.size))
    level, level_var = np.zeros(gram.shape[:-1]), np.zeros(log_det.shape)
    gram[:, :, ~walks] = base[:, :, None]
    log_det[:, :, ~walks] = chain.log_det[..., None]
    found = chain.sweep(columns, q[walks])
    gram[:, :, walks] = base[:, :, None] - found.gram
    log_det[:, :, walks] = found.log_det
    level[:, :, walks] = found.level
    level_var[:, :, walks] = found.level_var
    cells = (rows, phis * q.size)
    return _Sums(
        gram.reshape(*cells, width, width), log_det.reshape(cells),
        level.reshape(*cells, width), level_var.reshape(cells),
    )  # fmt: skip
