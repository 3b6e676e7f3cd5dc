"""Series with the same gaps: their densities at points, states and coefficients integrated out.

With G = [X, y]' V^-1 [X, y], prior b ~ N(0, s^2 W^-1) and a set of columns,

    SSR = G_yy - G_yX (G_XX + W)^-1 G_Xy,
    y | s^2 has log density -(n log 2 pi s^2 + log |V| + log |G_XX + W| - log |W| + SSR / s^2) / 2,

which with s^2 ~ 1/s^2 integrates to a power of SSR (O'Hagan & Forster 2004, chapter 11).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from eocausal.estimators.collapsed_bands import Bands, Factor, Layout, Ratios
from eocausal.estimators.collapsed_sets import eliminated, log_sum
from eocausal.estimators.collapsed_spread import noise_spread, state_spread

__all__ = ["Columns", "Group", "Sums"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.intp]
HELD = 20_000  # numbers in a factor that is held
AT_ONCE = 150_000  # numbers in the banded matrices factored together


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Regressors over all T times, and what is believed about their coefficients.

    Attributes
    ----------
    values
        (T, k), those in every set first; a long-run slope comes before them, without values.
    always
        How many are in every set, the long-run slope left aside.
    precision
        (k, k) prior precision times s^2, zero where the prior is flat.
    included, log_prior
        (sets, k - always) and (sets,): sets of the others and their log probabilities.
    long_run
        Prior variance of the long-run slope, infinite if flat; None without one.
    """

    values: Float64
    always: int
    precision: Float64
    included: NDArray[np.bool_]
    log_prior: Float64
    long_run: float | None

    @property
    def flat(self) -> int:
        """How many coefficients have a flat prior."""
        own = int((np.diagonal(self.precision) == 0).sum())
        return own + int(self.long_run is not None and math.isinf(self.long_run))

    def log_det(self) -> Float64:
        """Return (sets,) log determinants of the proper part of the precision."""
        proper = np.diagonal(self.precision) > 0
        matrix = self.precision + np.diag(~proper * 1.0)
        bordered = np.pad(matrix, (0, 1))[None]
        return np.asarray(eliminated(bordered, self.always, self.included.shape[1])[1][0])

    def added(self, own: Float64) -> Float64:
        """Return (rows, m, m) precisions with the long-run slope's and a border for y."""
        slope = int(self.long_run is not None)
        out = np.zeros((1, *np.add(self.precision.shape, slope + 1)))
        out[0, slope:-1, slope:-1] = self.precision
        if self.long_run is None:
            return out
        out = np.repeat(out, len(own), 0)
        out[:, 0, 0] = own / self.long_run
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """log |V| (rows,) and [X, y]' V^-1 [X, y] (rows, m, m) over the values that are there."""

    log_det: Float64
    gram: Float64


class Group:
    """Series with values at the same times.

    Parameters
    ----------
    bands
        Covariances over the times up to the last to learn from.
    seen
        (n,) True where the series have values.
    columns
        Regressors.
    values
        (S, n) the series, anything finite where missing.
    scale_known
        Whether the residual's variance is given with the points.
    lost
        Degrees of freedom that starts of the states take, if it is not.
    layout
        Parts over all T times.
    ahead
        (S, T) weights of the average of each series that is asked for most, zero at the times
        learned from.
    """

    def __init__(
        self, bands: Bands, seen: NDArray[np.bool_], columns: Columns, values: Float64, *,
        scale_known: bool, lost: int, layout: Layout, ahead: Float64,
    ) -> None:  # fmt: skip
        self.bands, self.seen, self.columns = bands, seen, columns
        self.layout, self.ahead = layout, ahead
        n = len(seen)
        self.missing = np.flatnonzero(~seen)
        self.gaps = bands.filtered(np.eye(n)[self.missing] * bands.root)[:, None]
        self.values = values
        self.x = bands.filtered(np.where(seen, columns.values[:n].T, 0.0))[:, None]
        self.y = bands.filtered(np.where(seen, values, 0.0))
        self.log_root = float(bands.scale_log_det(seen[None])[0])
        self.count = int(seen.sum())
        self.scale_known = scale_known
        self.df = float(self.count - columns.flat - (0 if scale_known else lost))
        self.slope = int(columns.long_run is not None)
        self.prior_log_det = columns.log_det()
        self.alone = len(values) == 1 and not self.missing.size and bands.basis.shape[1] < HELD
        self.held: list[Float64] = []  # factors of a single series at its points, for its draws

    @property
    def dims(self) -> int:
        """Number of columns of [X, y]."""
        return self.slope + len(self.x) + 1

    def near(self, ratios: Ratios, weights: Float64) -> tuple[Float64, Float64]:
        """Return covariances of a weighted sum with the values, filtered, and its variance.

        Parameters
        ----------
        weights
            (rows, T), zero at the times learned from.
        """
        cov = state_spread(self.layout, ratios, weights)
        cov += noise_spread(self.layout, ratios, weights)
        filtered = self.bands.filtered(cov[:, : len(self.seen)])
        variance = np.einsum("rt,rt->r", cov, weights)
        return self.bands.autocorrelated(filtered[None], ratios), variance

    def reached(self, ratios: Ratios, y: Float64, weights: Float64) -> tuple[Float64, Float64]:
        """Return (rows, m) what a weighted sum shares with [X, y], and its variance given these.

        Parameters
        ----------
        y
            (rows, n) filtered series.
        weights
            (rows, T), zero at the times learned from.
        """
        extra, variance = self.near(ratios, weights)
        _, solved, _ = self.whitened(ratios, y, extra)
        known = np.einsum("rn,rn->r", solved[-1], solved[-1])
        return np.einsum("krn,rn->rk", solved[:-1], solved[-1]), variance - known

    def whitened(
        self, ratios: Ratios, y: Float64, extra: Float64 | None = None
    ) -> tuple[Factor, Float64, Float64]:
        """Return the factor, L^-1 D [X, y] without what missing values explain, and log |E'V^-1 E|.

        Parameters
        ----------
        y
            (rows, n) filtered series, a row each.
        extra
            (columns, rows, n) more columns, filtered, after y.
        """
        factor = self.bands.factor(ratios)
        blocks = [self.bands.autocorrelated(part, ratios) for part in (self.gaps, self.x, y[None])]
        if self.slope:
            blocks.insert(1, self.bands.long_run(ratios)[None])
        if extra is not None:
            blocks.append(extra)
        solved = factor.solve(np.concatenate(blocks))
        gone = self.missing.size
        if not gone:
            return factor, solved, np.zeros(len(ratios))
        explained, log_det = _orthonormal(solved[:gone])
        rest = solved[gone:].swapaxes(0, 1)
        rest = rest - (rest @ explained.swapaxes(1, 2)) @ explained
        return factor, rest.swapaxes(0, 1), log_det

    def factors(self, ratios: Ratios) -> tuple[list[Float64], Float64 | None]:
        """Return the factor of each row and (rows, missing, n) an orthonormal basis of L^-1 D E."""
        factor = self.bands.factor(ratios)
        if not self.missing.size:
            return factor.each(), None
        solved = factor.solve(self.bands.autocorrelated(self.gaps, ratios))
        return factor.each(), _orthonormal(solved)[0]

    def sampled(
        self, ratios: Ratios, own: Float64, series: Int64, *, keep: bool
    ) -> tuple[Float64, Float64]:
        """Return (rows,) log densities over all sets, and what :meth:`unpacked` takes apart."""
        size = max(1, AT_ONCE // self.bands.basis.shape[1])
        parts = []
        for first in range(0, len(ratios), size):
            rows = np.arange(first, min(first + size, len(ratios)))
            parts.append(self._sampled(ratios.take(rows), own[rows], series[rows], keep))
        density, kept = zip(*parts, strict=True)
        return np.concatenate(density), np.concatenate(kept)

    def _sampled(
        self, ratios: Ratios, own: Float64, series: Int64, keep: bool
    ) -> tuple[Float64, Float64]:
        extra, variance = self.near(ratios, self.ahead[series]) if keep else (None, None)
        factor, solved, log_det = self.whitened(ratios, self.y[series], extra)
        rows = solved.swapaxes(0, 1)
        gram = rows @ rows.swapaxes(1, 2)
        m = self.dims
        sums = Sums(factor.log_det + log_det + self.log_root, gram[:, :m, :m])
        density, ssr = self.densities(sums, own)
        total = log_sum(density)
        if keep and self.alone:
            self.held.extend(factor.each())
        if variance is None:
            return total, np.zeros((len(own), 0))
        left = (variance - gram[:, m, m])[:, None]
        blocks = [density, ssr, sums.gram.reshape(len(own), -1), gram[:, :m, m], left]
        return total, np.concatenate(blocks, 1)

    def unpacked(self, kept: Float64) -> tuple[Float64, Float64, Float64, Float64, Float64]:
        """Return (rows, sets) densities and SSR, (rows, m, m) sums, and :meth:`reached`."""
        sets, m = len(self.columns.log_prior), self.dims
        density, ssr, gram, to_y, own = np.split(kept, np.cumsum([sets, sets, m * m, m]), axis=1)
        return density, ssr, gram.reshape(len(kept), m, m), to_y, own[:, 0]

    def densities(self, sums: Sums, own: Float64) -> tuple[Float64, Float64]:
        """Return (rows, sets) log densities at residual variances ``own``, and SSR."""
        chosen = self.columns.included.shape[1]
        always = self.slope + self.columns.always
        left, grown = eliminated(sums.gram + self.columns.added(own), always, chosen)
        ssr = np.maximum(left[..., 0, 0], 1e-300)
        common = -sums.log_det[:, None] - grown + self.prior_log_det
        long_run = self.columns.long_run
        if long_run is not None and math.isfinite(long_run):
            common = common + np.log(own / long_run)[:, None]
        power = self.df
        if self.scale_known:
            size = power * np.log(2.0 * np.pi * own)[:, None] + ssr / own[:, None]
        else:
            size = power * np.log(np.pi * ssr) - 2.0 * special.gammaln(0.5 * power)
        return 0.5 * (common - size) + self.columns.log_prior, ssr


def _orthonormal(solved: Float64) -> tuple[Float64, Float64]:
    """Return (rows, columns, n) an orthonormal basis of columns, and log |columns' columns|."""
    columns = solved.swapaxes(0, 1)
    root = np.linalg.cholesky(columns @ columns.swapaxes(1, 2))
    log_det = 2.0 * np.log(np.diagonal(root, axis1=1, axis2=2)).sum(1)
    return np.linalg.solve(root, columns), log_det
