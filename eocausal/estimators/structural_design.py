"""Columns of a structural model: start of the level, line, season, controls, and their priors."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from eocausal.errors import EstimationError
from eocausal.estimators.level_grid import GridPrior, RegressorSets
from eocausal.estimators.structural_model import Season, StructuralModel, Trend
from eocausal.estimators.structural_priors import (
    CompatiblePrior,
    enumerated_sets,
    information_matrix,
    seasonal_start,
)

__all__ = ["Design", "build_design", "harmonics"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
EXPECTED_SIZE = 3.0
SEASON_START = 0.5  # precision times s^2 in a first pass, which finds s^2


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """Columns and what is believed about them.

    Attributes
    ----------
    columns
        (T, k) the level at time 0, line, season and controls, in this order.
    usable
        (T,) True where all controls are known.
    controls
        Number of controls, the last columns.
    prior
        Grid of level and residual.
    sets
        Sets of columns.
    season
        Number of columns, after the first, of the seasonal effects at the start where these may
        change; their prior variance is one, so that W must be s^2 there.
    """

    columns: Float64
    usable: Bool
    controls: int
    prior: GridPrior
    sets: RegressorSets
    season: int = 0

    def with_season_precision(self, value: float) -> RegressorSets:
        """Return the sets with another prior precision of the first seasonal effects."""
        precision = self.sets.precision.copy()
        at = np.arange(1, 1 + self.season)
        precision[at, at] = value
        return replace(self.sets, precision=precision)


def build_design(
    times: int, before: Bool, controls: Float64 | None, model: StructuralModel
) -> Design:
    """Put the columns of a model of the engine ``grid`` together.

    Controls are scaled to mean zero and standard deviation one before the event.

    Raises
    ------
    EstimationError
        If a control does not vary before the event.
    """
    prior, seasons = model.prior, model.seasons
    usable: Bool = np.ones(times, bool)
    if controls is not None:
        usable = np.asarray(np.isfinite(controls).all(1))
    x = np.zeros((times, 0)) if controls is None else _scaled(controls, before & usable)
    x = np.where(usable[:, None], x, 0.0)
    count = x.shape[1]
    if isinstance(prior, CompatiblePrior):
        return _compatible(times, x, usable, seasons[0].period if seasons else 0, prior)
    parts = [np.ones((times, 1))]
    if model.trend is Trend.LINE:
        parts.append(np.linspace(-1.0, 1.0, times)[:, None])
    parts.extend(harmonics(times, season) for season in seasons)
    columns = np.concatenate([*parts, x], 1)
    fixed = columns.shape[1] - count
    precision = np.zeros((columns.shape[1],) * 2)
    precision[fixed:, fixed:] = information_matrix(x[usable])
    share = min(1.0, EXPECTED_SIZE / max(count, 1))
    sets = enumerated_sets(fixed, precision, share)
    return Design(columns, usable, count, prior.grid(int(before.sum())), sets)


def _compatible(
    times: int, x: Float64, usable: Bool, period: int, prior: CompatiblePrior
) -> Design:
    """CausalImpact's columns: with controls there is an intercept beside the level, to select."""
    parts = [np.ones((times, 1))]
    if period:
        parts.append(seasonal_start(period, times))
    fixed = sum(part.shape[1] for part in parts)
    count = x.shape[1]
    if count:
        parts.append(np.ones((times, 1)))
    columns = np.concatenate([*parts, x], 1)
    precision = np.zeros((columns.shape[1],) * 2)
    at = np.arange(1, fixed)
    precision[at, at] = SEASON_START
    if count:
        precision[fixed:, fixed:] = information_matrix(columns[usable, fixed:])
    sets = enumerated_sets(fixed, precision, min(1.0, EXPECTED_SIZE / (count + 1)))
    grid = prior.grid(regressors=bool(count), period=period)
    return Design(columns, usable, count, grid, sets, fixed - 1)


def _scaled(controls: Float64, known: Bool) -> Float64:
    center, sd = controls[known].mean(0), controls[known].std(0, ddof=1)
    flat = np.flatnonzero(~(sd > 1e-10 * np.maximum(np.abs(center), 1e-300)))
    if flat.size:
        raise EstimationError(
            f"Control {', '.join(map(str, flat))} does not vary before the event.",
            cause="It cannot explain the outcome there, and has no scale.",
            next_step="Leave it out.",
        )
    return np.asarray((controls - center) / sd)


def harmonics(times: int, season: Season) -> Float64:
    """Return (T, k) cosines and sines of a season: of its whole cycle, half of it, and so on."""
    most = season.period // 2 if season.harmonics is None else season.harmonics
    step = np.arange(times)[:, None] // season.duration
    angle = 2.0 * np.pi * step * np.arange(1, most + 1) / season.period
    waves = np.concatenate([np.cos(angle), np.sin(angle)], 1)
    return waves[:, : season.period - 1]
