"""Repeated trials in one country, for coverage: fresh places, people, arms and noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from eocausal.simulate.table import WorldTable

__all__ = ["TrialDraw", "draw_trial"]


@dataclass(frozen=True, slots=True, eq=False)
class TrialDraw:
    """One trial drawn from a country.

    Attributes
    ----------
    units
        People with ``neighborhood`` (a fresh label per sampled place), ``arm``, ``income``,
        ``age``, ``female``.
    features
        What the image shows of each sampled place, by that label.
    ate
        Average effect in the population that the places were drawn from.
    """

    units: pd.DataFrame
    features: pd.DataFrame
    ate: float


def draw_trial(table: WorldTable, rng: np.random.Generator) -> TrialDraw:
    """Sample places independently from the country, settled ones more often, and run a trial.

    Places are drawn with replacement with probability proportional to
    exp(selection · settlement), so that the average effect of the sampled population is known
    exactly; half of the places are treated.

    Parameters
    ----------
    table
        A simulated world; its outcome and effect surfaces are used.
    rng
        Source of every draw.
    """
    config, model = table.config, table.config.outcome
    z = table.features
    weight = np.exp(config.selection * z[:, 0])
    weight /= weight.sum()
    place = rng.choice(len(z), config.n_trial, p=weight)
    count = 1 + rng.poisson(config.people_per_neighborhood - 1.0, config.n_trial)
    row = np.repeat(np.arange(config.n_trial), count)
    arm = (rng.permutation(config.n_trial) < config.n_trial // 2).astype(np.int64)[row]
    tau = table.neighborhoods["true_effect"].to_numpy()
    s, g = z[place, 0], z[place, 1]
    level = model.settlement * s + model.greenness * g + model.curvature * (s**2 - 1.0)
    level = level + rng.normal(0.0, model.noise * np.sqrt(model.icc), config.n_trial)
    n = len(row)
    age, female = rng.integers(16, 61, n), rng.integers(0, 2, n)
    income = (
        level[row]
        + tau[place][row] * arm
        + model.age * (age - 35.0) / 10.0
        + model.female * female
        + rng.normal(0.0, model.noise * np.sqrt(1 - model.icc), n)
    )
    labels = np.arange(config.n_trial)
    units = pd.DataFrame(
        {"neighborhood": labels[row], "arm": arm, "income": income, "age": age, "female": female},
        index=pd.RangeIndex(n, name="unit"),
    )
    return TrialDraw(units, pd.DataFrame(z[place], labels), float(tau @ weight))
