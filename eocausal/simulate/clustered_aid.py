"""Aid given to whole regions, outcomes that neighbours share: a world for spatial variances.

Towns are scattered over a square country, units around towns. Regions, the cells of a jittered
grid, are treated or not according to a measured confounder of the region. What is not
measured of the outcome is correlated in space up to a known range and independent beyond, so that
errors of treatment effects are correlated exactly where both are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from eocausal.errors import DesignError

__all__ = ["ClusteredAid", "ClusteredAidConfig", "disc_field", "simulate_clustered_aid"]

Float64 = NDArray[np.float64]
KM_PER_DEGREE = 111.19492664455873


@dataclass(frozen=True, slots=True)
class ClusteredAidConfig:
    """Decisions behind the world.

    Attributes
    ----------
    n
        Units.
    towns
        Towns around which units lie.
    country_km
        Edge of the country.
    town_km
        Standard deviation of a unit's distance from its town, in each direction.
    range_km
        Edge of regions and distance at which errors of the outcome become independent.
    treated
        About this share of regions is treated.
    shared
        Share of the unmeasured variance of the outcome (which is 1) that neighbours share.
    confounding
        Effect of the measured confounder on the log odds of a region and on the outcome.
    ate
        Average effect over the places that a unit may come from.
    heterogeneity
        Change of the effect with the measured confounder.
    """

    n: int = 2000
    towns: int = 200
    country_km: float = 2000.0
    town_km: float = 4.0
    range_km: float = 100.0
    treated: float = 0.5
    shared: float = 0.5
    confounding: float = 0.5
    ate: float = 0.3
    heterogeneity: float = 0.1

    def __post_init__(self) -> None:
        lengths = (self.country_km, self.town_km, self.range_km)
        if not (self.n >= 2 and self.towns >= 1 and min(lengths) > 0):
            raise DesignError(
                f"A country of {self.n} units, {self.towns} towns and lengths {lengths} km.",
                cause="It needs two units, a town and positive lengths.",
                next_step="Correct the configuration.",
            )
        if not (0 < self.treated < 1 and 0 <= self.shared <= 1):
            raise DesignError(
                f"Shares treated={self.treated}, shared={self.shared}.",
                cause="A share of regions lies between 0 and 1, one of variance in [0, 1].",
                next_step="Correct the configuration.",
            )


@dataclass(frozen=True, slots=True, eq=False)
class ClusteredAid:
    """One draw of the world.

    Attributes
    ----------
    units
        ``treated`` (0/1), ``outcome``, ``z`` (the region's confounder), ``x`` (the unit's own),
        ``region``, ``town``, ``lon``, ``lat`` (degrees), ``east``, ``north`` (metres).
    propensity
        (n,) probability that the region of a unit is treated.
    ate
        Average effect over the places that a unit may come from.
    """

    units: pd.DataFrame
    propensity: Float64
    ate: float


def disc_field(points: Float64, range_km: float, rng: np.random.Generator) -> Float64:
    """Draw a Gaussian field of variance one whose correlation ends at ``range_km``.

    Noise is averaged over discs of that diameter, so that the correlation is the share of two discs
    that overlaps (the circular model of geostatistics; Chilès & Delfiner 2012, section 2.5).

    Parameters
    ----------
    points
        (n, 2) positions in kilometres.
    range_km
        Diameter of the discs.
    rng
        Source of the noise.

    Returns
    -------
    (n,) values.
    """
    step = range_km / 8
    low = points.min(axis=0) - range_km
    shape = np.ceil((points.max(axis=0) + range_km - low) / step).astype(int) + 1
    reach = np.arange(-4, 5) * step
    disc = (reach[:, None] ** 2 + reach**2 <= (range_km / 2) ** 2).astype(float)
    disc /= math.sqrt(float((disc**2).sum()))
    size = tuple(int(s) for s in shape)
    noise = np.fft.rfft2(rng.standard_normal(size))
    field = np.fft.irfft2(noise * np.fft.rfft2(disc, size), size)
    cell = np.rint((points - low) / step).astype(int)
    return np.asarray(field[cell[:, 0], cell[:, 1]])


def simulate_clustered_aid(config: ClusteredAidConfig, rng: np.random.Generator) -> ClusteredAid:
    """Draw places, regions, treatment and outcomes.

    Given the confounder ``z`` of its region, whether a region is treated is chance; the outcome is
    effect · treated + confounding · z + 0.5 x + error, where the effect is
    ate + heterogeneity · z.

    Parameters
    ----------
    config
        The world.
    rng
        Source of every draw.
    """
    c = config
    town_at = rng.uniform(0, c.country_km, (c.towns, 2))
    town = rng.integers(0, c.towns, c.n)
    km = town_at[town] + rng.normal(0, c.town_km, (c.n, 2))
    region, seats = _regions(km, c, rng)
    z_of_region = rng.standard_normal(len(seats))
    intercept = math.log(c.treated / (1 - c.treated))
    propensity = 1 / (1 + np.exp(-(intercept + c.confounding * z_of_region)))
    treated = (rng.random(len(seats)) < propensity).astype(np.int64)[region]
    z, x = z_of_region[region], rng.standard_normal(c.n)
    error = math.sqrt(c.shared) * disc_field(km, c.range_km, rng)
    error += math.sqrt(1 - c.shared) * rng.standard_normal(c.n)
    effect = c.ate + c.heterogeneity * z
    units = pd.DataFrame(
        {
            "treated": treated,
            "outcome": effect * treated + c.confounding * z + 0.5 * x + error,
            "z": z,
            "x": x,
            "region": region,
            "town": town,
            "lon": 20 + (km[:, 0] - c.country_km / 2) / KM_PER_DEGREE,
            "lat": (km[:, 1] - c.country_km / 2) / KM_PER_DEGREE,
            "east": 1000 * km[:, 0],
            "north": 1000 * km[:, 1],
        },
        index=pd.RangeIndex(c.n, name="unit"),
    )
    return ClusteredAid(units, propensity[region], c.ate)


def _regions(
    km: Float64, config: ClusteredAidConfig, rng: np.random.Generator
) -> tuple[NDArray[np.int64], Float64]:
    """Give each unit the nearest seat of a jittered grid; returns regions and the seats' places."""
    edge = config.range_km
    begin = np.arange(-edge, config.country_km + edge, edge)
    grid = np.stack(np.meshgrid(begin, begin, indexing="ij"), axis=-1).reshape(-1, 2)
    seats = grid + rng.uniform(0.2, 0.8, grid.shape) * edge
    nearest = np.asarray(cKDTree(seats).query(km)[1])
    used, region = np.unique(nearest, return_inverse=True)
    return region.reshape(-1).astype(np.int64), seats[used]
