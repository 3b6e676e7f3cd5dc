"""What follows from an importance sample: inclusion, laws of averages, draws of whole paths.

A draw takes a point and a set of columns by their weight, the residual's variance and the
coefficients from their exact laws, and corrects a path drawn from the model alone by the
conditional mean given the data (Durbin & Koopman 2012, section 4.9.1). Random numbers come from
streams of seed and series, a row for each draw: a draw is the same whatever series are beside it
and however many draws follow. Times after the last value can be drawn without those before it:
:mod:`eocausal.estimators.collapsed_ahead`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from eocausal.estimators.collapsed_bands import Layout, Ratios, solve_one
from eocausal.estimators.collapsed_group import Group
from eocausal.estimators.collapsed_importance import Sample
from eocausal.estimators.collapsed_model import Stratum
from eocausal.estimators.collapsed_parts import Returning, autoregression
from eocausal.estimators.collapsed_sets import eliminated
from eocausal.estimators.collapsed_spread import drift, noise_spread, starts_of, state_spread
from eocausal.estimators.level_draws import Paths
from eocausal.estimators.t_mixture import TMixture

__all__ = ["Chosen", "Numbers", "Posterior", "average_law", "draw_paths", "stream"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.intp]
NORMAL = 1e8  # degrees of freedom of a t that is a normal
NEGLIGIBLE = 1e-10
BLOCK = 100  # draws made together: what they need fits the processor's cache


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """Posterior of one series, at P points and for each set of columns.

    Attributes
    ----------
    group, row
        The series and those with the same gaps.
    layout
        Parts over all T times.
    ratios, own
        Points, and the residual's variance there (ones where it is integrated out).
    gram
        (P, m, m) sums over the values, see :class:`~.collapsed_group.Sums`.
    ssr
        (P, sets) sums of squares.
    to_y, to_own
        (P, m) and (P,) what an average over the times of ``group.ahead`` shares with the values,
        and its own variance given these.
    weight
        (P, sets), adds up to one.
    offset
        (T,) prior mean of the level.
    effective
        Equally weighted points that the sample is worth.
    factors
        Cholesky factors at the points, where they were held.
    """

    group: Group
    row: int
    layout: Layout
    ratios: Ratios
    own: Float64
    gram: Float64
    ssr: Float64
    to_y: Float64
    to_own: Float64
    weight: Float64
    offset: Float64
    effective: float
    factors: tuple[Float64, ...]

    @classmethod
    def of(
        cls, group: Group, layout: Layout, row: int, strata: Sequence[Stratum],
        samples: Sequence[Sample], offset: Float64,
    ) -> Posterior:  # fmt: skip
        """Put the samples of the strata together, for one of their series."""
        weights = np.concatenate([s.log_weight[row] for s in samples])
        weights = np.exp(weights - weights.max())
        effective = float(weights.sum() ** 2 / (weights**2).sum())
        live = weights >= NEGLIGIBLE * weights.sum()
        points = [stratum.ratios(s.x[row]) for stratum, s in zip(strata, samples, strict=True)]
        fields = [np.concatenate([getattr(r, name) for r, _ in points])[live]
                  for name in ("parts", "slope", "start", "phi", "rho")]  # fmt: skip
        density, ssr, gram, to_y, own = group.unpacked(
            np.concatenate([s.kept[row] for s in samples])[live]
        )
        share = weights[live, None] * special.softmax(density, axis=1)
        return cls(
            group, row, layout, Ratios(*fields), np.concatenate([own for _, own in points])[live],
            gram, ssr, to_y, own, share / share.sum(), offset, effective,
            tuple(group.held[at] for at in np.flatnonzero(live)) if group.held else (),
        )  # fmt: skip

    def inclusion(self) -> Float64:
        """Return (k,) the probability that each column is in the model."""
        columns = self.group.columns
        return np.append(np.ones(columns.always), self.weight.sum(0) @ columns.included)

    def variances(self) -> Float64:
        """Return (P, sets) what squared scales are multiplied by: s^2, or its estimate."""
        if self.group.scale_known:
            return np.broadcast_to(self.own[:, None], self.ssr.shape)
        return self.ssr / self.group.df

    def prior_and_data(self) -> Float64:
        """Return (P, m, m) sums over the values with what is believed about coefficients."""
        return self.gram + self.group.columns.added(self.own)


def average_law(posterior: Posterior, weights: Float64) -> TMixture:
    """Return the law of a weighted sum of values, ``weights`` (T,) zero where they are known.

    It is in units of the series scaled, less its offset.
    """
    group, ratios = posterior.group, posterior.ratios
    to_y, own = posterior.to_y, posterior.to_own
    if not np.array_equal(weights, group.ahead[posterior.row]):
        size = max(1, 2_000_000 // (len(group.seen) * (group.dims + group.missing.size + 8)))
        parts = []
        for first in range(0, len(ratios), size):
            some = ratios.take(np.arange(first, min(first + size, len(ratios))))
            y, share = (np.tile(row, (len(some), 1)) for row in (group.y[posterior.row], weights))
            parts.append(group.reached(some, y, share))
        to_y, own = (np.concatenate(part) for part in zip(*parts, strict=True))
    reach = _regressors(posterior) @ weights - to_y[:, :-1]
    bordered = np.zeros((len(ratios), group.dims + 1, group.dims + 1))
    bordered[:, :-1, :-1] = posterior.prior_and_data()
    bordered[:, :-2, -1] = bordered[:, -1, :-2] = reach
    columns = group.columns
    always = group.slope + columns.always
    left, _ = eliminated(bordered, always, columns.included.shape[1])
    center = to_y[:, -1, None] - left[..., 0, 1]
    spread = np.sqrt((own[:, None] - left[..., 1, 1]) * posterior.variances())
    df = NORMAL if group.scale_known else group.df
    weight, center, spread = (part.reshape(1, -1) for part in (posterior.weight, center, spread))
    return TMixture(weight, center, spread, df)


def _regressors(posterior: Posterior) -> Float64:
    """Return (P, m - 1, T) long-run slope and columns."""
    values = np.broadcast_to(
        posterior.group.columns.values.T,
        (len(posterior.ratios), *posterior.group.columns.values.T.shape),
    )
    if not posterior.group.slope:
        return values
    return np.concatenate([drift(posterior.layout, posterior.ratios)[:, None], values], 1)


def stream(seed: int, key: int, number: int) -> np.random.Generator:
    """Return one of the streams of random numbers of a series."""
    seeds = np.random.SeedSequence([seed, key], spawn_key=(number,))
    return np.random.Generator(np.random.SFC64(seeds))


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """Point, residual sd and law of the coefficients of each draw.

    Attributes
    ----------
    point
        (draws,) points.
    sd
        (draws, 1) residual sds.
    middle, root
        (draws, m - 1) means of coefficients and (draws, m - 1, m - 1) roots of their covariances
        over the residual's variance.
    """

    point: Int64
    sd: Float64
    middle: Float64
    root: Float64

    @classmethod
    def of(cls, posterior: Posterior, draws: int, seed: int, key: int) -> Chosen:
        """Take points and sets by their weight."""
        choice = stream(seed, key, 0).random((draws, 2))
        weight = posterior.weight.ravel()
        which = np.searchsorted(np.cumsum(weight) / weight.sum(), choice[:, 0], side="right")
        point, chosen = np.divmod(np.minimum(which, weight.size - 1), posterior.ssr.shape[1])
        sd = np.sqrt(_variances(posterior, point, chosen, choice[:, 1]))[:, None]
        return cls(point, sd, *_coefficients(posterior, point, chosen))


def draw_paths(
    posterior: Posterior, *, draws: int, seed: int, key: int, center: Float64, scale: Float64
) -> Paths:
    """Draw paths of one series, all times at once.

    Parameters
    ----------
    seed, key
        Together they fix the random numbers; ``key`` names the series.
    center, scale
        (T,) what turns the series as it was fitted into its own units.
    """
    group, layout = posterior.group, posterior.layout
    taken = Chosen.of(posterior, draws, seed, key)
    point, sd, middle, root = taken.point, taken.sd, taken.middle, taken.root
    rng = stream(seed, key, 1)
    seen, times = group.seen, layout.times
    n, last = len(seen), int(np.flatnonzero(seen)[-1]) + 1
    expected, replicate = np.empty((2, draws, times))
    loads = np.empty((draws, n))
    blocks = [slice(first, min(first + BLOCK, draws)) for first in range(0, draws, BLOCK)]
    for rows in blocks:
        ratios, own = posterior.ratios.take(point[rows]), sd[rows]
        numbers = Numbers(layout, group.dims - 1, last, len(own), rng)
        noise = np.einsum("dlk,dl->dk", root[rows], numbers.coefficients)
        path = numbers.states(ratios)
        path *= own
        path += _mean(posterior, ratios, middle[rows] + own * noise)
        residual = numbers.noise(ratios, numbers.residual)
        gap = (group.values[posterior.row] - path[:, :n]) / own
        gap -= residual[:, :n]
        gap[:, group.missing] = 0.0
        loads[rows] = group.bands.autocorrelated(group.bands.filtered(gap), ratios)
        residual[:, :last] = numbers.noise(ratios, numbers.fresh)
        expected[rows] = path
        np.multiply(residual, own, out=replicate[rows])
    _solve(posterior, point, loads)
    for rows in blocks:
        ratios, own = posterior.ratios.take(point[rows]), sd[rows]
        given = np.zeros((len(own), times))
        given[:, :n] = group.bands.adjoint(loads[rows], ratios)
        given *= own
        path = state_spread(layout, ratios, given)
        path += expected[rows]
        new = replicate[rows]
        if layout.autocorrelated:
            new[:, last:] += noise_spread(layout, ratios, given)[:, last:]
        new += path
        new *= scale
        new += center
        path *= scale
        np.add(path, center, out=expected[rows])
    return Paths(expected, replicate)


def _mean(posterior: Posterior, ratios: Ratios, beta: Float64) -> Float64:
    """Return (rows, T) what regressors and the long-run slope add."""
    slope = posterior.group.slope
    out = beta[:, slope:] @ posterior.group.columns.values.T
    return out + beta[:, :1] * drift(posterior.layout, ratios) if slope else out


class Numbers:
    """Standard normal numbers, a row for each draw, and what they make of the model alone."""

    def __init__(
        self, layout: Layout, columns: int, last: int, draws: int, rng: np.random.Generator
    ) -> None:
        self.layout = layout
        times = layout.times
        kinds = [part.shocks for part in layout.parts] + [1] * (layout.returning is not None)
        starts = sum(map(len, layout.start_vars)) + int(layout.returning is not None)
        sizes = [columns, starts, *(kind * times for kind in kinds), times, last]
        blocks = np.split(rng.standard_normal((draws, sum(sizes))), np.cumsum(sizes)[:-1], axis=1)
        self.coefficients, self.starts, *self.shocks, self.residual, self.fresh = blocks

    def states(self, ratios: Ratios, more: int = 0) -> Float64:
        """Return (rows, T + more) the sum of all states, without a shock at ``more`` times."""
        rows, times = len(ratios), self.layout.times + more
        layout = replace(self.layout, times=times, variance=b"") if more else self.layout
        out = np.zeros((rows, times))
        used = 0
        for at, (part, start) in enumerate(zip(layout.parts, starts_of(layout), strict=True)):
            shocks = self.shocks[at].reshape(rows, part.shocks, -1)
            if more:
                shocks = np.concatenate([shocks, np.zeros((rows, part.shocks, more))], 2)
            path = part.path(shocks)
            path *= np.sqrt(ratios.parts[:, at, None])
            out += path
            own = self.starts[:, used : used + start.shape[1]] * np.sqrt(ratios.start)[:, None]
            out += own @ start.T
            used += start.shape[1]
        if layout.returning is not None:
            first = self.starts[:, -1] * np.sqrt(ratios.start * layout.returning)
            shocks = np.sqrt(ratios.slope)[:, None] * self.shocks[-1]
            out += Returning(ratios.rho).path(shocks, first, np.zeros(rows))
        return out

    def noise(self, ratios: Ratios, normal: Float64) -> Float64:
        """Return (rows, n) residuals of the first n times."""
        root = np.sqrt(self.layout.variances())[: normal.shape[1]]
        if not self.layout.autocorrelated:
            return normal * root
        shocks = normal * np.sqrt(1.0 - ratios.phi**2)[:, None]
        shocks[:, 0] = normal[:, 0]
        return autoregression(shocks, ratios.phi) * root


def _variances(posterior: Posterior, point: Int64, chosen: Int64, uniform: Float64) -> Float64:
    """Return the residual's variance: that of the point, or drawn from its inverse gamma."""
    if posterior.group.scale_known:
        return posterior.own[point]
    inner = special.gammainccinv(0.5 * posterior.group.df, uniform)
    return np.asarray(0.5 * posterior.ssr[point, chosen] / inner)


def _coefficients(posterior: Posterior, point: Int64, chosen: Int64) -> tuple[Float64, Float64]:
    """Return means (draws, m - 1) of coefficients and roots of their covariances over s^2.

    Those of columns left out are zero.
    """
    group = posterior.group
    pairs, back = np.unique(np.stack([point, chosen], 1), axis=0, return_inverse=True)
    always = np.ones((len(pairs), group.slope + group.columns.always), bool)
    member = np.concatenate([always, group.columns.included[pairs[:, 1]]], 1)
    both = member[:, :, None] & member[:, None, :]
    full = posterior.prior_and_data()[pairs[:, 0]]
    gram = np.where(both, full[:, :-1, :-1], 0.0) + np.eye(member.shape[1]) * ~member[:, None, :]
    center = np.linalg.solve(gram, np.where(member, full[:, :-1, -1], 0.0)[..., None])[..., 0]
    root = np.linalg.inv(np.linalg.cholesky(gram)) * both
    return center[back.ravel()], root[back.ravel()]


def _solve(posterior: Posterior, point: Int64, filtered: Float64) -> None:
    """Turn D u (draws, n) into L'^-1 L^-1 D u, less what missing values explain, in place."""
    group = posterior.group
    used, back = np.unique(point, return_inverse=True)
    order = np.argsort(back.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(back.ravel()))
    if posterior.factors:
        factors, gaps = [posterior.factors[at] for at in used], None
    else:
        factors, gaps = group.factors(posterior.ratios.take(used))
    for row, members in enumerate(np.split(order, ends[:-1])):
        inner = solve_one(factors[row], filtered[members])
        if gaps is not None:
            inner = inner - (inner @ gaps[row].T) @ gaps[row]
        filtered[members] = solve_one(factors[row], inner, transposed=True)
