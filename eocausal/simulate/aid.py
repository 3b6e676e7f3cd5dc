"""Aid projects that go where the image says, and the yearly wealth they change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eocausal.simulate.table import WorldTable

__all__ = ["SECTORS", "AidWorld", "simulate_aid"]

SECTORS = ("transport", "health")

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class AidWorld:
    """Projects, the wealth of every neighborhood and year, and the truth about both.

    Attributes
    ----------
    projects
        One row per project: ``project``, ``sector``, ``start_year``, ``lon``, ``lat``.
    wealth
        One row per neighborhood and year: ``neighborhood``, ``year``, ``wealth`` (an index with
        standard deviation about 1).
    effect
        Effect a transport project has or would have on each neighborhood, ``(n,)``.
    start
        First year of the transport project of each neighborhood; 0 where there is none, ``(n,)``.
    propensity
        Probability of a project of any one sector given the visible features, ``(n,)``.
    """

    projects: pd.DataFrame
    wealth: pd.DataFrame
    effect: Float64
    start: NDArray[np.int64]
    propensity: Float64

    @property
    def att(self) -> float:
        """Average effect of transport projects where there is one, once all have started."""
        return float(self.effect[self.start > 0].mean())

    @property
    def ate(self) -> float:
        """Average effect of a transport project over all neighborhoods."""
        return float(self.effect.mean())


def simulate_aid(table: WorldTable, rng: np.random.Generator) -> AidWorld:
    """Place projects and let wealth follow.

    Treatment is confounded by what the image shows and by nothing else: given settlement and
    greenness, whether and when a neighborhood gets a project is chance.

    Parameters
    ----------
    table
        The world's neighborhoods.
    rng
        Source of placement, start years and noise.
    """
    model, n = table.config.aid, len(table.neighborhoods)
    s, g = table.features[:, 0], table.features[:, 1]
    propensity = 1.0 / (
        1.0 + np.exp(-(model.intercept + model.settlement * s + model.greenness * g))
    )
    starts = {
        sector: np.where(rng.random(n) < propensity, rng.choice(model.start_years, n), 0)
        for sector in SECTORS
    }
    effect = model.transport + model.transport_settlement * s
    years = np.array(model.wealth_years)
    start = starts["transport"][:, None]
    on = (start > 0) & (years[None, :] >= start)
    level = 0.6 * s - 0.3 * g + rng.normal(0.0, 0.4, n)
    trend = 0.03 * (years - years[0])
    noise = rng.normal(0.0, model.wealth_noise, (n, len(years)))
    wealth = level[:, None] + trend[None, :] + effect[:, None] * on + noise
    return AidWorld(
        projects=_projects(table, starts, rng),
        wealth=pd.DataFrame(
            {
                "neighborhood": np.repeat(table.neighborhoods.index.to_numpy(), len(years)),
                "year": np.tile(years, n),
                "wealth": wealth.ravel(),
            }
        ),
        effect=effect,
        start=starts["transport"],
        propensity=propensity,
    )


def _projects(
    table: WorldTable, starts: dict[str, NDArray[np.int64]], rng: np.random.Generator
) -> pd.DataFrame:
    """Put each project at a point inside its neighborhood's square."""
    half = 0.5 * table.config.chip_px * table.config.resolution / 111_320.0
    parts = []
    for sector, start in starts.items():
        rows = np.flatnonzero(start > 0)
        spot = rng.uniform(-0.8 * half, 0.8 * half, (len(rows), 2))
        places = table.neighborhoods.iloc[rows]
        parts.append(
            pd.DataFrame(
                {
                    "sector": sector,
                    "start_year": start[rows],
                    "lon": places["lon"].to_numpy() + spot[:, 0],
                    "lat": places["lat"].to_numpy() + spot[:, 1],
                }
            )
        )
    projects = pd.concat(parts, ignore_index=True)
    projects.insert(0, "project", [f"a{i:04d}" for i in range(len(projects))])
    return projects
