"""The engine ``collapsed``: states and coefficients integrate out, variances by importance."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from eocausal.errors import EstimationError
from eocausal.estimators.collapsed_ahead import series_draws
from eocausal.estimators.collapsed_bands import Layout, bands_of
from eocausal.estimators.collapsed_draws import Posterior, average_law
from eocausal.estimators.collapsed_group import Columns, Group
from eocausal.estimators.collapsed_importance import LEAST, Sample, sample
from eocausal.estimators.collapsed_model import Stratum, layout_of, strata_of
from eocausal.estimators.collapsed_spread import starts_of
from eocausal.estimators.level_draws import Paths
from eocausal.estimators.structural_design import Design, build_design, harmonics
from eocausal.estimators.structural_model import Engine, StructuralModel, Trend
from eocausal.estimators.structural_priors import CompatiblePrior
from eocausal.estimators.structural_result import (
    AverageEffects,
    SeriesDraws,
    effects_of_law,
    not_fitted,
)
from eocausal.estimators.structural_scales import series_scales

__all__ = ["CollapsedFit", "fit_collapsed"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
KEPT = 20_000_000  # numbers kept of the series that are fitted together


@dataclass(frozen=True, slots=True, eq=False)
class CollapsedFit:
    """Posterior of N series; see :class:`~eocausal.estimators.structural_result.StructuralFit`.

    Attributes
    ----------
    effective
        (N,) number of equally weighted points that the importance sample is worth.
    """

    model: StructuralModel
    outcomes: Float64
    center: Float64
    scale: Float64
    refused: dict[int, str]
    effective: Float64
    posteriors: tuple[Posterior | None, ...]
    usable: Bool
    controls: int
    engine: Engine = Engine.COLLAPSED

    def average(self, after: Bool, level: float = 0.95) -> AverageEffects:
        """Return the mean effect over the times ``after`` (T,) at which a series has a value.

        The law is a mixture of normal or t distributions, one for each point and set of controls.
        Times with a missing control are not counted. Series without any, and those refused, are
        NaN.
        """
        out = np.full((5, len(self.outcomes)), np.nan)
        counted = after & np.isfinite(self.outcomes) & self.usable
        for row, posterior in enumerate(self.posteriors):
            times = counted[row]
            if posterior is None or not times.any():
                continue
            law = average_law(posterior, times / times.sum())
            mean, scale = self.outcomes[row, times].mean(), self.scale[row]
            middle = self.center[row] + scale * (posterior.offset @ times) / times.sum()
            out[:, row] = effects_of_law(law, np.array([mean - middle]), scale, level)[:, 0]
        return AverageEffects(out[0], out[1], out[2], out[3], out[4], counted.sum(1))

    def inclusion(self) -> Float64:
        """Return (N, K) the probability that each control is in the model."""
        out = np.full((len(self.outcomes), self.controls), np.nan)
        for row, posterior in enumerate(self.posteriors):
            if posterior is not None and self.controls:
                out[row] = posterior.inclusion()[-self.controls :]
        return out

    def paths(self, series: int, *, draws: int = 1000, seed: int = 0, key: int = 0) -> Paths:
        """Draw what one series would have been, in its own units, ``(draws, T)``.

        Times with a missing control are NaN.

        Parameters
        ----------
        seed, key
            Fix the random numbers; the same pair gives the same draws in any batch.

        Raises
        ------
        OutcomeError
            If the series was refused.
        """
        return self.path_draws(series, draws=draws, seed=seed, key=key).all()

    def path_draws(
        self, series: int, *, draws: int = 1000, seed: int = 0, key: int = 0
    ) -> SeriesDraws:
        """Prepare the draws of :meth:`paths`; the times to learn from are drawn when asked for."""
        posterior = self.posteriors[series] if series < len(self.posteriors) else None
        if posterior is None:
            raise not_fitted(series, self.refused)
        center = self.center[series] + self.scale[series] * posterior.offset
        scale = np.where(self.usable, self.scale[series], np.nan)
        return series_draws(posterior, draws=draws, seed=seed, key=key, center=center, scale=scale)


def fit_collapsed(
    outcomes: Float64,
    before: Bool,
    model: StructuralModel,
    *,
    controls: Float64 | None = None,
    variance: Float64 | None = None,
    seed: int = 0,
) -> CollapsedFit:
    """Fit by the engine ``collapsed``; see :func:`~eocausal.estimators.structural.fit_structural`.

    Parameters
    ----------
    seed
        Shifts the importance points.

    Raises
    ------
    EstimationError
        If a semi-local trend with our prior meets variances of the residual that differ.
    """
    _check(model, variance)
    times = outcomes.shape[1]
    usable: Bool = np.ones(times, bool)
    if controls is not None:
        usable = np.asarray(np.isfinite(controls).all(1))
    known = before & usable
    if not known.any():
        raise EstimationError(
            "No time before the event has a value of every control.",
            cause="There is nothing to learn from.",
            next_step="Leave out the control with gaps.",
        )
    plain = replace(model, season=None, trend=Trend.LEVEL, engine=None)
    design = build_design(times, before, controls, plain)
    layout, columns = layout_of(model, times, variance), _columns(model, design, times)
    asked = _Asked(model, layout, columns, int(np.flatnonzero(known)[-1]) + 1, seed)
    seen = np.isfinite(outcomes) & known
    center, scale, refused = series_scales(outcomes, seen, asked.lost + columns.values.shape[1] + 3)
    posteriors: list[Posterior | None] = [None] * len(outcomes)
    effective = np.full(len(outcomes), np.nan)
    z = (outcomes - center[:, None]) / scale[:, None]
    after = np.isfinite(outcomes) & usable & ~before
    ahead = after / np.maximum(after.sum(1, keepdims=True), 1)
    for rows in _batches(seen, np.flatnonzero(np.isfinite(scale)), asked.at_once):
        for row, posterior in zip(
            rows, asked.fit(seen[rows[0]], z[rows], ahead[rows]), strict=True
        ):
            effective[row] = posterior.effective
            if posterior.effective >= LEAST:
                posteriors[row] = posterior
                continue
            center[row] = scale[row] = np.nan
            refused[int(row)] = (
                f"the importance sample of its variances is worth {posterior.effective:.0f} "
                f"points, {LEAST:.0f} are needed; the engine gibbs does without one"
            )
    return CollapsedFit(
        model, outcomes, center, scale, refused, effective, tuple(posteriors), usable,
        design.controls,
    )  # fmt: skip


def _batches(seen: Bool, rows: NDArray[np.intp], size: int) -> Iterator[NDArray[np.intp]]:
    """Yield rows that have their values at the same times, at most ``size`` together."""
    patterns, back = np.unique(seen[rows], axis=0, return_inverse=True)
    for at in range(len(patterns)):
        members = rows[back.ravel() == at]
        for first in range(0, len(members), size):
            yield members[first : first + size]


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A model over T times, to be fitted to the first ``last`` of them."""

    model: StructuralModel
    layout: Layout
    columns: Columns
    last: int
    seed: int

    @property
    def lost(self) -> int:
        """Number of starting values of the states."""
        layout = self.layout
        return sum(len(start) for start in layout.start_vars) + int(layout.returning is not None)

    @property
    def at_once(self) -> int:
        """How many series to fit together, by what is kept of each."""
        width = self.columns.values.shape[1] + 2
        kept = 400 * (2 * len(self.columns.log_prior) + width**2)
        return int(np.clip(KEPT // kept, 1, 64))

    def fit(self, pattern: Bool, z: Float64, ahead: Float64) -> list[Posterior]:
        """Fit series (S, T) with values at the same times; ``ahead`` as in :class:`Group`."""
        pattern = pattern[: self.last]
        z = np.where(pattern, z[:, : self.last], 0.0)
        offset = _offsets(self.model, pattern, z, self.layout.times)
        values = np.where(pattern, z - offset[:, : self.last], 0.0)
        regressors = bool(self.columns.precision.any())
        count = int(pattern.sum())
        strata = strata_of(self.model, self.layout, count, regressors=regressors)
        own = self.layout.variance[: 8 * self.last]
        bands = bands_of(replace(self.layout, times=self.last, variance=own))
        group = Group(
            bands, pattern, self.columns, values,
            scale_known=strata[0].scale_known, lost=self.lost, layout=self.layout, ahead=ahead,
        )  # fmt: skip
        guess = np.log(_residual_variance(group, self.layout))
        samples = [_sampled(stratum, group, guess, self.seed) for stratum in strata]
        return [
            Posterior.of(group, self.layout, row, strata, samples, offset[row])
            for row in range(len(z))
        ]


def _sampled(stratum: Stratum, group: Group, guess: Float64, seed: int) -> Sample:
    """Sample the numbers of a stratum, for all series of a group."""
    box = np.tile([b.box for b in stratum.numbers.values()], (len(guess), 1, 1))
    if stratum.scale_known:
        box[:, 0] = guess[:, None] + np.array([-0.7, 0.1])

    def target(x: Float64, series: NDArray[np.intp], keep: bool) -> tuple[Float64, Float64]:
        density, kept = group.sampled(*stratum.ratios(x), series, keep=keep)
        return density + stratum.log_prior(x), kept

    least = np.array([b.least for b in stratum.numbers.values()])
    return sample(target, box, least, len(guess), seed=seed)


def _check(model: StructuralModel, variance: Float64 | None) -> None:
    unequal = variance is not None and np.ptp(variance) > 0
    if unequal and model.trend is Trend.SEMI_LOCAL and not isinstance(model.prior, CompatiblePrior):
        raise EstimationError(
            "A semi-local trend and an autocorrelated residual whose variance changes.",
            cause="The engine collapsed has no covariance for both.",
            next_step="Leave the variances out, or take another trend.",
        )


def _columns(model: StructuralModel, design: Design, times: int) -> Columns:
    """Return the regressors: line, fixed seasons, intercept and controls."""
    parts = []
    if model.trend is Trend.LINE:
        parts.append(np.linspace(-1.0, 1.0, times)[:, None])
    parts.extend(harmonics(times, season) for season in model.seasons if not season.changes)
    fixed = np.concatenate([np.zeros((times, 0)), *parts], 1)
    x = design.columns[:, 1:]  # the first is the level at time 0, a state here
    count = fixed.shape[1]
    precision = np.zeros((count + x.shape[1],) * 2)
    precision[count:, count:] = design.sets.precision[1:, 1:]
    included = design.sets.included[:, 1:]
    always = int(included.all(0).sum()) if len(included) == 1 else 0
    long_run = None
    if model.trend is Trend.SEMI_LOCAL:
        long_run = 1.0 if isinstance(model.prior, CompatiblePrior) else math.inf
    return Columns(
        np.concatenate([fixed, x], 1), count + always, precision, included[:, always:],
        design.sets.log_prior, long_run,
    )  # fmt: skip


def _offsets(model: StructuralModel, pattern: Bool, z: Float64, times: int) -> Float64:
    """Return (S, T) prior means of the level: CausalImpact's start at the first value.

    Its local linear trend also starts with the slope from the first value to the last.
    """
    out: Float64 = np.zeros((len(z), times))
    if isinstance(model.prior, CompatiblePrior):
        seen = np.flatnonzero(pattern)
        out += z[:, seen[0], None]
        if model.trend is Trend.LOCAL_LINEAR:
            slope = (z[:, seen[-1]] - z[:, seen[0]]) / times
            out += slope[:, None] * np.arange(times)
    return out


def _residual_variance(group: Group, layout: Layout) -> Float64:
    """Return (S,) residual variances of a regression on controls and starts, to start from."""
    y = group.values[:, group.seen]
    n = len(group.seen)
    starts = [start[:n][group.seen] for start in starts_of(layout)]
    z = np.concatenate([*starts, group.columns.values[:n][group.seen]], 1)
    basis = np.linalg.qr(z)[0]
    rest = y - (y @ basis) @ basis.T
    return np.asarray(np.clip((rest**2).sum(1) / max(1, y.shape[1] - z.shape[1]), 1e-3, 1.2))
