"""The world as tables: neighborhoods, the people of the trial, and the truth."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eocausal.simulate.config import ByNeighborhood, WorldConfig
from eocausal.simulate.landscape import FEATURES, GRID_CRS, Landscape, build_landscape

__all__ = ["WorldTable", "redraw", "simulate_table"]

Float64 = NDArray[np.float64]
Int = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class WorldTable:
    """A world before it is rendered.

    Attributes
    ----------
    neighborhoods
        One row per neighborhood, index ``neighborhood``: what its chip shows (``settlement``,
        ``greenness``, ``roads``, ``water`` as shares of the chip, ``elevation`` in metres),
        ``true_effect``, ``in_trial``, ``utm_zone`` (35 or 36), ``stratum``, ``x``, ``y``
        (EPSG:32636, metres), ``lon``, ``lat`` (degrees).
    units
        One row per person of the trial, index ``unit``: ``neighborhood``, ``stratum``, ``arm``
        (0 or 1), ``prob``, ``income``, ``age`` (years), ``female``, ``educ`` (years of school),
        ``lon``, ``lat``.
    features
        The visible features, standardized over the country, ``(n_neighborhoods, 5)``.
    unit_rows
        Row in ``neighborhoods`` of every person.
    unit_mean
        Expected untreated income of every person given covariates (without the shock u_j).
    """

    config: WorldConfig
    neighborhoods: pd.DataFrame
    units: pd.DataFrame
    features: Float64
    unit_rows: Int
    unit_mean: Float64

    @property
    def unit_effects(self) -> Float64:
        """True effect on every person of the trial."""
        return np.asarray(self.neighborhoods["true_effect"].to_numpy()[self.unit_rows])

    @property
    def ate_trial(self) -> float:
        """Average effect over the people of the trial."""
        return float(self.unit_effects.mean())

    @property
    def ate_trial_neighborhoods(self) -> float:
        """Average effect over the trial's neighborhoods, each counting once."""
        table = self.neighborhoods
        return float(table.loc[table["in_trial"], "true_effect"].mean())

    @property
    def ate_country(self) -> float:
        """Average effect over all neighborhoods of the country, each counting once."""
        return float(self.neighborhoods["true_effect"].mean())


def simulate_table(config: WorldConfig, landscape: Landscape | None = None) -> WorldTable:
    """Simulate a world without rendering it.

    Parameters
    ----------
    config
        All decisions, the seed among them.
    landscape
        The land, if it is already built (it takes most of the time).

    Returns
    -------
    WorldTable
        The same for the same configuration, and in agreement with the images that
        :func:`eocausal.simulate.world.render_world` makes of it.
    """
    land = build_landscape(config) if landscape is None else landscape
    raw = land.features
    spread = raw.std(axis=0)
    features = (raw - raw.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    places = _neighborhoods(land, raw, features)
    units, rows = _people(config, places, features)
    s, g = features[rows, 0], features[rows, 1]
    m = config.outcome
    mean = (
        m.settlement * s
        + m.greenness * g
        + m.curvature * (s**2 - 1.0)
        + m.age * (units["age"].to_numpy() - 35.0) / 10.0
        + m.female * units["female"].to_numpy()
        + m.educ * (units["educ"].to_numpy() - 7.0)
    )
    table = WorldTable(config, places, units, features, rows, np.asarray(mean))
    return redraw(table, config.rng("draw"))


def redraw(table: WorldTable, rng: np.random.Generator) -> WorldTable:
    """Draw new arms, neighborhood shocks and noise for the same people in the same places.

    The land, the people and the true effects stay, so that ``ate_trial`` is the same number in
    every replication. A few milliseconds at the default size.
    """
    model, rows = table.config.outcome, table.unit_rows
    arm, prob = _assign(table, rng)
    shock = rng.normal(0.0, model.noise * np.sqrt(model.icc), len(table.neighborhoods))
    own = rng.normal(0.0, model.noise * np.sqrt(1.0 - model.icc), len(rows))
    income = table.unit_mean + shock[rows] + own + arm * table.unit_effects
    return replace(table, units=table.units.assign(arm=arm, prob=prob, income=income))


def _neighborhoods(land: Landscape, raw: Float64, features: Float64) -> pd.DataFrame:
    from pyproj import Transformer

    config, effect = land.config, land.config.effects
    centers = land.centers()
    lon, lat = Transformer.from_crs(GRID_CRS, "EPSG:4326", always_xy=True).transform(
        centers[:, 0], centers[:, 1]
    )
    s, g = features[:, 0], features[:, 1]
    product = s * g
    tau = (
        effect.mean
        + effect.settlement * s
        + effect.greenness * g
        + effect.interaction * (product - product.mean())
    )
    # Gumbel noise on the log weights draws without replacement, proportionally to the weights.
    gumbel = config.rng("selection").gumbel(size=len(s))
    chosen = np.argsort(-(config.selection * s + gumbel), kind="stable")[: config.n_trial]
    middle = land.origin[1] - config.resolution * config.shape[0] / 2.0
    north = np.where(centers[:, 1] >= middle, "north", "south").astype(object)
    east = np.where(lon >= 30.0, "east", "west").astype(object)
    table = pd.DataFrame(dict(zip(FEATURES, raw.T, strict=True)))
    table["true_effect"] = tau
    table["in_trial"] = np.isin(np.arange(len(s)), chosen)
    table["utm_zone"] = np.where(lon >= 30.0, 36, 35)
    table["stratum"] = north + "-" + east
    table["x"], table["y"], table["lon"], table["lat"] = *centers.T, lon, lat
    table.index = pd.Index([f"n{i:04d}" for i in range(len(s))], name="neighborhood")
    return table


def _people(
    config: WorldConfig, places: pd.DataFrame, features: Float64
) -> tuple[pd.DataFrame, Int]:
    """Draw who lives in the trial's neighborhoods; arms and incomes are still empty."""
    rng = config.rng("people")
    trial = np.flatnonzero(places["in_trial"].to_numpy())
    count = 1 + rng.poisson(config.people_per_neighborhood - 1.0, len(trial))
    rows = np.repeat(trial, count)
    n = len(rows)
    half = 0.5 * config.chip_px * config.resolution / 111_320.0
    spot = rng.uniform(-0.9 * half, 0.9 * half, (n, 2))
    educ = np.clip(np.rint(7.0 + 1.5 * features[rows, 0] + rng.normal(0, 3, n)), 0, 16)
    units = pd.DataFrame(
        {
            "neighborhood": places.index.to_numpy()[rows],
            "stratum": places["stratum"].to_numpy()[rows],
            "arm": np.zeros(n, dtype=np.int64),
            "prob": np.full(n, config.assignment.prob),
            "income": np.full(n, np.nan),
            "age": rng.integers(16, 61, n),
            "female": rng.integers(0, 2, n),
            "educ": educ.astype(np.int64),
            "lon": places["lon"].to_numpy()[rows] + spot[:, 0],
            "lat": places["lat"].to_numpy()[rows] + spot[:, 1],
        },
        index=pd.Index([f"p{i:05d}" for i in range(n)], name="unit"),
    )
    return units, rows


def _assign(table: WorldTable, rng: np.random.Generator) -> tuple[NDArray[np.int64], Float64]:
    """Randomize completely within blocks; returns arm and probability of every person."""
    how = table.config.assignment
    if isinstance(how, ByNeighborhood):
        who, inverse = np.unique(table.unit_rows, return_inverse=True)
        blocks = table.neighborhoods["stratum"].to_numpy()[who]
    else:
        inverse = np.arange(len(table.unit_rows))
        blocks = table.unit_rows
        who = inverse
    if not how.blocked:
        blocks = np.zeros(len(who), dtype=np.int64)
    arm = _randomize(blocks, how.prob, rng)
    return arm[inverse], np.full(len(inverse), how.prob)


def _randomize(
    blocks: NDArray[np.generic], prob: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Treat floor or ceil of ``prob * size`` in every block, at random so that P(arm=1) = prob."""
    _, block, size = np.unique(blocks, return_inverse=True, return_counts=True)
    treated = np.floor(prob * size + rng.random(len(size)))
    order = np.lexsort((rng.random(len(block)), block))
    first = np.cumsum(size) - size
    rank = np.empty(len(block))
    rank[order] = np.arange(len(block)) - first[block[order]]
    return np.asarray(rank < treated[block], dtype=np.int64)
