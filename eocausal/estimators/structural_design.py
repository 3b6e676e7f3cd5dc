"""Columns of a structural model: start of the level, line, season, controls, and their priors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eocausal.estimators.level_grid import GridPrior, RegressorSets
from eocausal.estimators.structural_model import Season, StructuralModel, Trend
from eocausal.estimators.structural_priors import (
    CompatiblePrior,
    enumerated_sets,
    information_matrix,
)
from eocausal.estimators.structural_scales import scaled_controls

__all__ = ["Design", "build_design", "harmonics"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
EXPECTED_SIZE = 3.0


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
    """

    columns: Float64
    usable: Bool
    controls: int
    prior: GridPrior
    sets: RegressorSets


def build_design(
    times: int, before: Bool, controls: Float64 | None, model: StructuralModel
) -> Design:
    """Put the columns of a model of the engine ``grid`` together.

    Controls are scaled to mean zero and standard deviation one before the event. Seasons stay the
    same: those under CausalImpact's priors belong to other engines.

    Raises
    ------
    EstimationError
        If a control does not vary before the event.
    """
    prior = model.prior
    usable: Bool = np.ones(times, bool)
    if controls is not None:
        usable = np.asarray(np.isfinite(controls).all(1))
    x = np.zeros((times, 0)) if controls is None else scaled_controls(controls, before & usable)
    x = np.where(usable[:, None], x, 0.0)
    count = x.shape[1]
    if isinstance(prior, CompatiblePrior):
        return _compatible(times, x, usable, prior)
    parts = [np.ones((times, 1))]
    if model.trend is Trend.LINE:
        parts.append(np.linspace(-1.0, 1.0, times)[:, None])
    parts.extend(harmonics(times, season) for season in model.seasons)
    columns = np.concatenate([*parts, x], 1)
    fixed = columns.shape[1] - count
    precision = np.zeros((columns.shape[1],) * 2)
    precision[fixed:, fixed:] = information_matrix(x[usable])
    share = min(1.0, EXPECTED_SIZE / max(count, 1))
    sets = enumerated_sets(fixed, precision, share)
    return Design(columns, usable, count, prior.grid(int(before.sum())), sets)


def _compatible(times: int, x: Float64, usable: Bool, prior: CompatiblePrior) -> Design:
    """CausalImpact's columns: with controls there is an intercept beside the level, to select."""
    count = x.shape[1]
    columns = np.concatenate([np.ones((times, 2 if count else 1)), x], 1)
    precision = np.zeros((columns.shape[1],) * 2)
    if count:
        precision[1:, 1:] = information_matrix(columns[usable, 1:])
    sets = enumerated_sets(1, precision, min(1.0, EXPECTED_SIZE / (count + 1)))
    return Design(columns, usable, count, prior.grid(regressors=bool(count)), sets)


def harmonics(times: int, season: Season) -> Float64:
    """Return (T, k) cosines and sines of a season: of its whole cycle, half of it, and so on."""
    most = season.period // 2 if season.harmonics is None else season.harmonics
    step = np.arange(times)[:, None] // season.duration
    angle = 2.0 * np.pi * step * np.arange(1, most + 1) / season.period
    waves = np.concatenate([np.cos(angle), np.sin(angle)], 1)
    return waves[:, : season.period - 1]
