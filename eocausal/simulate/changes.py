"""A world in which only the change between images matters.

Every place has some houses at first and gets more at its own pace. What drives treatment and
outcome is the growth; how many houses one image shows says little about it, since places differ
far more in what they began with. Dates are uneven, and some images are missing.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.errors import EmptyInputError
from eocausal.simulate.chips import chip_cube, correlated_field, draw_units, terrain

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

__all__ = ["ChangeWorld", "ChangeWorldConfig", "simulate_changes"]

_SLOT = 3
_ROOF = (0.34, 0.38, 0.42, 0.45)
_START, _DAYS = np.datetime64("2010-01-01"), 3650


@dataclass(frozen=True, slots=True)
class ChangeWorldConfig:
    """Decisions of a :class:`ChangeWorld`.

    Parameters
    ----------
    n
        Number of neighborhoods.
    size
        Side of a chip in pixels, at least 24.
    periods
        Images a neighborhood, from 2010 to 2019.
    missing
        Share of images that are missing; at least two of each neighborhood are there.
    seed
        Of everything drawn.
    confounding, effect, heterogeneity, noise
        As in :class:`~eocausal.simulate.objects.ObjectWorldConfig`, of the growth.
    """

    n: int = 1500
    size: int = 32
    periods: int = 6
    missing: float = 0.2
    seed: int = 0
    confounding: float = 1.5
    effect: float = 1.0
    heterogeneity: float = 0.5
    noise: float = 0.5
    resolution: float = 30.0
    bands: tuple[str, ...] = ("blue", "green", "red", "nir")

    def __post_init__(self) -> None:
        if self.size < 24 or self.n < 4 or self.periods < 2 or not 0 <= self.missing < 1:
            raise EmptyInputError(
                f"A world of {self.n} chips of {self.size} pixels and {self.periods} periods, "
                f"{self.missing:.0%} of them missing, shows no change.",
                cause="Houses take 3 pixels, and change needs two images.",
                next_step="Use n=1500, size=32, periods=6 and missing=0.2.",
            )


@dataclass(frozen=True, slots=True, eq=False)
class ChangeWorld:
    """Sequences of chips, places and truth.

    Attributes
    ----------
    cube
        ``(n, periods, 4, size, size)``, in memory, NaN where an image is missing.
    units
        As of :class:`~eocausal.simulate.objects.ObjectWorld`; ``objects`` is the growth.
    houses
        ``(n, periods)``: houses standing on each date.
    """

    config: ChangeWorldConfig
    cube: xr.Dataset
    units: pd.DataFrame
    houses: NDArray[np.int64]


def simulate_changes(config: ChangeWorldConfig) -> ChangeWorld:
    """Draw a world in which growth drives treatment and outcome.

    Growth over the ten years is 7 + 4 z houses (z a field correlated over the map and noise,
    cut at 0), built at uniform times; a place begins with 8 to 55 houses.
    """
    rng = np.random.default_rng((config.seed, 42))
    n, size, periods = config.n, config.size, config.periods
    slots = (size // _SLOT) ** 2
    field = 0.6 * correlated_field(n, rng, cells=4.0) + 0.8 * rng.standard_normal(n)
    growth = np.clip(np.rint(7.0 + 4.0 * field), 0, slots - 56).astype(np.int64)
    begin = rng.integers(8, 56, size=n)
    edges = np.linspace(0, _DAYS, periods + 1)
    middle = rng.uniform(edges[:-1] + 60, edges[1:] - 60)
    day = np.rint(middle + rng.uniform(-30, 30, size=(n, periods)))
    gain = 1.0 + 0.02 * rng.standard_normal((periods, 1, 1, 1))
    ground = terrain(n, size, len(config.bands), rng)
    roof = np.resize(np.array(_ROOF, dtype=np.float32), len(config.bands))[:, None]
    images = np.empty((n, periods, *ground.shape[1:]), dtype=np.float32)
    houses = np.zeros((n, periods), dtype=np.int64)
    for i in range(n):
        places = rng.choice(slots, size=begin[i] + growth[i], replace=False)
        born = np.concatenate([np.full(begin[i], -1.0), rng.uniform(0, _DAYS, growth[i])])
        rows, columns = np.divmod(places, size // _SLOT)
        for t in range(periods):
            stands = born <= day[i, t]
            houses[i, t] = stands.sum()
            mask = np.zeros((size, size), dtype=bool)
            for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
                mask[rows[stands] * _SLOT + down, columns[stands] * _SLOT + right] = True
            frame = ground[i].copy()
            frame[:, mask] = roof
            images[i, t] = frame
    images *= gain.astype(np.float32)
    images += 0.006 * rng.standard_normal(images.shape, dtype=np.float32)
    gone = _missing(n, periods, config.missing, rng)
    images[gone] = np.nan
    dates = (_START + day.astype("timedelta64[D]")).astype("datetime64[D]")
    dates[gone] = np.datetime64("NaT")
    units = draw_units(
        growth, rng, confounding=config.confounding, effect=config.effect,
        heterogeneity=config.heterogeneity, noise=config.noise,
    )  # fmt: skip
    starts = _START + np.rint(edges).astype("timedelta64[D]")
    spans = [(str(a), str(b - np.timedelta64(1, "D"))) for a, b in itertools.pairwise(starts)]
    cube = chip_cube(
        images, dates, bands=config.bands, resolution=config.resolution,
        periods=[f"{a}/{b}" for a, b in spans], spans=spans,
    )  # fmt: skip
    units = units.assign(lon=cube["lon"].to_numpy(), lat=cube["lat"].to_numpy())
    return ChangeWorld(config, cube, units, houses)


def _missing(n: int, periods: int, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Mark missing images; of each place the two that chance favours most are kept."""
    luck = rng.random((n, periods))
    rank = luck.argsort(axis=1).argsort(axis=1)
    return np.asarray((luck < share) & (rank < periods - 2))
