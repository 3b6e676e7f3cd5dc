"""The engine ``grid``: all but two numbers of the posterior integrate out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eocausal.estimators.grid_groups import OwnGaps, SharedGaps, group_by_gaps
from eocausal.estimators.level_draws import PathDraws, Paths
from eocausal.estimators.structural_design import Design, build_design
from eocausal.estimators.structural_model import Engine, StructuralModel
from eocausal.estimators.structural_result import AverageEffects, effects_of_law, not_fitted
from eocausal.estimators.structural_scales import series_scales

__all__ = ["GridFit", "ScaledDraws", "fit_grid"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class GridFit:
    """Posterior of N series.

    What is kept are the series; the posterior is computed for some of them at a time when it is
    asked for, unless they are few.

    Attributes
    ----------
    outcomes
        (N, T) the series.
    center, scale
        (N,) mean and standard deviation before the event; NaN for series that were refused.
    refused
        Row and reason of every series that could not be fitted.
    engine
        How the posterior was computed.
    """

    model: StructuralModel
    design: Design
    outcomes: Float64
    center: Float64
    scale: Float64
    refused: dict[int, str]
    groups: tuple[SharedGaps | OwnGaps, ...]
    engine: Engine = Engine.GRID

    def average(self, after: Bool, level: float = 0.95) -> AverageEffects:
        """Return the mean effect over the times ``after`` (T,) at which a series has a value.

        Times with a missing control are not counted. Series without any, and those refused, are
        NaN.
        """
        out = np.full((5, len(self.outcomes)), np.nan)
        counted = after & np.isfinite(self.outcomes) & self.design.usable
        n = counted.sum(1)
        for group in self.groups:
            for rows, law in group.laws(counted):
                members = group.rows[rows]
                mean = np.where(counted[members], self.outcomes[members], 0.0).sum(1) / n[members]
                scale = self.scale[members]
                shift = self.center[members] + scale * group.offset[rows]
                out[:, members] = effects_of_law(law, mean - shift, scale, level)
        return AverageEffects(out[0], out[1], out[2], out[3], out[4], n)

    def inclusion(self) -> Float64:
        """Return (N, K) the probability that each control is in the model."""
        out = np.full((len(self.outcomes), self.design.controls), np.nan)
        for group in self.groups:
            for rows, shares in group.inclusions():
                out[group.rows[rows]] = shares[:, shares.shape[1] - self.design.controls :]
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
    ) -> ScaledDraws:
        """Prepare the draws of :meth:`paths`; the times to learn from are drawn when asked for."""
        for group in self.groups:
            place = np.flatnonzero(group.rows == series)
            if place.size:
                row = int(place[0])
                posterior, at, values = group.one(row)
                drawn = PathDraws(posterior, at, values, draws=draws, seed=seed, key=key)
                shift = self.center[series] + self.scale[series] * group.offset[row]
                scale = np.where(self.design.usable, self.scale[series], np.nan)
                return ScaledDraws(drawn, float(shift), scale)
        raise not_fitted(series, self.refused)


@dataclass(frozen=True, slots=True, eq=False)
class ScaledDraws:
    """Draws of one series in its own units."""

    drawn: PathDraws
    shift: float
    scale: Float64

    def all(self) -> Paths:
        """Return (draws, T) draws of all times."""
        return self._scaled(self.drawn.paths, self.scale)

    def ahead(self) -> tuple[slice, Paths]:
        """Return the times after the last one learned from, and (draws, these) their draws."""
        part = slice(self.drawn.last + 1, len(self.scale))
        return part, self._scaled(self.drawn.ahead, self.scale[part])

    def _scaled(self, paths: Paths, scale: Float64) -> Paths:
        expected, replicate = scale * paths.expected, scale * paths.replicate
        expected += self.shift
        replicate += self.shift
        return Paths(expected, replicate)


def fit_grid(
    outcomes: Float64,
    before: Bool,
    model: StructuralModel,
    *,
    controls: Float64 | None = None,
    variance: Float64 | None = None,
) -> GridFit:
    """Fit by the engine ``grid``; see :func:`~eocausal.estimators.structural.fit_structural`.

    Series with the same gaps before the event share one decomposition; those whose gaps few others
    have pass through time each on their own, and so do all if ``variance`` is (N, T), one for each
    series.
    """
    design = build_design(outcomes.shape[1], before, controls, model)
    known = before & design.usable
    seen = np.isfinite(outcomes) & known
    center, scale, refused = series_scales(outcomes, seen, design.columns.shape[1] + 3)
    fitted = np.flatnonzero(np.isfinite(scale))
    z = np.where(seen[fitted], outcomes[fitted], 0.0) - center[fitted, None]
    z /= scale[fitted, None]
    if variance is not None and variance.ndim == 2:
        variance = variance[fitted]
    groups = group_by_gaps(fitted, z, seen[fitted], design, variance)
    return GridFit(model, design, outcomes, center, scale, refused, groups)
