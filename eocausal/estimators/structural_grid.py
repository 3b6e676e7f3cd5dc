"""The engine ``grid``: all but two numbers of the posterior integrate out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eocausal.errors import OutcomeError
from eocausal.estimators.level_draws import Paths, draw_paths
from eocausal.estimators.level_grid import GridPosterior, LevelGrid
from eocausal.estimators.level_spectrum import spectra
from eocausal.estimators.structural_design import Design, build_design
from eocausal.estimators.structural_model import Engine, StructuralModel
from eocausal.estimators.structural_result import AverageEffects
from eocausal.estimators.t_mixture import TMixture

__all__ = ["GridFit", "fit_grid"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
CHUNK = 4_000_000  # numbers held at once for a group of series


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Series that have their values at the same times, ready to predict."""

    rows: NDArray[np.int64]
    posterior: GridPosterior
    values: Float64
    offset: Float64


@dataclass(frozen=True, slots=True, eq=False)
class GridFit:
    """Posterior of N series.

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
    groups: tuple[_Group, ...]
    engine: Engine = Engine.GRID

    def average(self, after: Bool, level: float = 0.95) -> AverageEffects:
        """Return the mean effect over the times ``after`` (T,) at which a series has a value.

        Times with a missing control are not counted. Series without any, and those refused, are
        NaN.
        """
        out = np.full((5, len(self.outcomes)), np.nan)
        counted = after & np.isfinite(self.outcomes) & self.design.usable
        for group in self.groups:
            patterns, back = np.unique(counted[group.rows], axis=0, return_inverse=True)
            for at, pattern in enumerate(patterns):
                rows = np.flatnonzero(back.ravel() == at)
                if pattern.any():
                    law = group.posterior.functional(pattern / pattern.sum())
                    members = group.rows[rows]
                    out[:, members] = self._effects(group, rows, law, pattern, level)
        return AverageEffects(out[0], out[1], out[2], out[3], out[4], counted.sum(1))

    def _effects(
        self, group: _Group, rows: NDArray[np.int64], law: TMixture, pattern: Bool, level: float
    ) -> Float64:
        law = TMixture(law.weight[rows], law.center[rows], law.scale[rows], law.df).pruned()
        members = group.rows[rows]
        mean = self.outcomes[members][:, pattern].mean(1)
        scale = self.scale[members]
        shift = self.center[members] + scale * group.offset[rows]
        low, high = law.quantile(0.5 - level / 2), law.quantile(0.5 + level / 2)
        below = law.cdf((mean - shift) / scale)
        ends = [mean - shift - scale * x for x in (law.mean, high, low)]
        tail = 2.0 * np.clip(np.minimum(below, 1.0 - below), 0.0, 0.5)
        return np.stack([ends[0], scale * law.sd, ends[1], ends[2], tail])

    def inclusion(self) -> Float64:
        """Return (N, K) the probability that each control is in the model."""
        out = np.full((len(self.outcomes), self.design.controls), np.nan)
        for group in self.groups:
            shares = group.posterior.inclusion()
            out[group.rows] = shares[:, shares.shape[1] - self.design.controls :]
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
        for group in self.groups:
            place = np.flatnonzero(group.rows == series)
            if place.size:
                row = int(place[0])
                drawn = draw_paths(
                    group.posterior, row, group.values[row], draws=draws, seed=seed, key=key
                )
                shift = self.center[series] + self.scale[series] * group.offset[row]
                scale = np.where(self.design.usable, self.scale[series], np.nan)
                return Paths(shift + scale * drawn.expected, shift + scale * drawn.replicate)
        raise OutcomeError(
            f"Series {series} was not fitted: {self.refused.get(series, 'there is none')}.",
            cause="There is no posterior to draw from.",
            next_step="Look at the refused series, and give each enough different values.",
        )


def fit_grid(
    outcomes: Float64,
    before: Bool,
    model: StructuralModel,
    *,
    controls: Float64 | None = None,
    variance: Float64 | None = None,
) -> GridFit:
    """Fit by the engine ``grid``; see :func:`~eocausal.estimators.structural.fit_structural`.

    Time and memory go with the number of series, and setting up with the number of different
    patterns of gaps before the event: one decomposition for each.
    """
    design = build_design(outcomes.shape[1], before, controls, model)
    known = before & design.usable
    seen = np.isfinite(outcomes) & known
    center, scale, refused = _scales(outcomes, seen, design)
    groups: list[_Group] = []
    fitted = np.flatnonzero(np.isfinite(scale))
    patterns, back = np.unique(seen[fitted], axis=0, return_inverse=True)
    for at, pattern in enumerate(patterns):
        rows = fitted[back.ravel() == at]
        z = (outcomes[rows][:, pattern] - center[rows, None]) / scale[rows, None]
        groups.extend(_fit_group(rows, z, pattern, design, variance))
    return GridFit(model, design, outcomes, center, scale, refused, tuple(groups))


def _fit_group(
    rows: NDArray[np.int64], z: Float64, pattern: Bool, design: Design, variance: Float64 | None
) -> list[_Group]:
    """Fit series with the same gaps, some at a time."""
    prior = design.prior
    offset = np.zeros(len(z)) if prior.start_is_flat else z[:, 0]
    rotations = spectra(pattern, prior.residuals, variance)
    cells = prior.log_weight.size * len(design.sets.log_prior) * design.columns.shape[1]
    size = max(1, CHUNK // cells)
    size = 1 if design.season else size
    grid = LevelGrid(rotations, prior, design.sets, design.columns, pattern, variance)
    out = []
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        values = z[part] - offset[part, None]
        posterior = grid.fit(values)
        if design.season:
            sets = design.with_season_precision(float(posterior.mean_variance()[0]))
            second = LevelGrid(rotations, prior, sets, design.columns, pattern, variance)
            posterior = second.fit(values)
        out.append(_Group(rows[part], posterior, values, offset[part]))
    return out


def _scales(
    outcomes: Float64, seen: Bool, design: Design
) -> tuple[Float64, Float64, dict[int, str]]:
    """Mean and standard deviation of the values learned from, and why a series has none."""
    refused: dict[int, str] = {}
    count, need = seen.sum(1), design.columns.shape[1] + 3
    total = np.where(seen, outcomes, 0.0).sum(1)
    center = total / np.maximum(count, 1)
    deviation = np.where(seen, outcomes - center[:, None], 0.0)
    scale = np.sqrt((deviation**2).sum(1) / np.maximum(count - 1, 1))
    constant = scale <= 1e-10 * np.maximum(np.abs(center), 1e-300)
    for row in np.flatnonzero((count < need) | constant):
        refused[int(row)] = (
            f"{count[row]} values before the event, {need} are needed"
            if count[row] < need
            else f"it is {center[row]:.6g} at all times before the event"
        )
    bad = list(refused)
    center[bad], scale[bad] = np.nan, np.nan
    return center, scale, refused
