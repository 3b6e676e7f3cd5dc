"""A world in which small objects in the image drive treatment, outcome and effect.

Chips hold shapes of two kinds, ``+`` and ``x``, made of the same number of pixels with the same
values, and equally many shapes in all. So the statistics of the bands say nothing about the number
of ``+``, on which placement and outcome depend: an encoder has to see the shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.errors import EmptyInputError
from eocausal.provenance import atomic_path
from eocausal.simulate.chips import chip_cube, correlated_field, draw_units, grid_side, terrain

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

__all__ = ["ObjectWorld", "ObjectWorldConfig", "render_objects", "simulate_objects"]

_SHAPE = 7
_SLOT = 9
_ROOF = (0.34, 0.38, 0.42, 0.45)


@dataclass(frozen=True, slots=True)
class ObjectWorldConfig:
    """Decisions of an :class:`ObjectWorld`.

    Parameters
    ----------
    n
        Number of neighborhoods, one chip each.
    size
        Side of a chip in pixels, at least 9.
    seed
        Of everything drawn.
    confounding
        Slope of the logit of treatment on the standardised number of ``+``.
    effect, heterogeneity
        Mean effect, and its slope on the standardised number of ``+``.
    noise
        Standard deviation of the outcome's own noise.
    shapes
        Number of shapes of both kinds in every chip, at most one for each 9 by 9 pixels.
    """

    n: int = 1500
    size: int = 48
    seed: int = 0
    confounding: float = 1.0
    effect: float = 1.0
    heterogeneity: float = 0.5
    noise: float = 0.5
    shapes: int = 10
    resolution: float = 30.0
    bands: tuple[str, ...] = ("blue", "green", "red", "nir")

    def __post_init__(self) -> None:
        if not 1 <= self.shapes <= self.slots or self.n < 4:
            raise EmptyInputError(
                f"{self.n} chips of {self.size} pixels cannot hold {self.shapes} shapes each.",
                cause=f"A shape takes {_SLOT} by {_SLOT} pixels, and there must be a few chips.",
                next_step="Use n=1500, size=48 and shapes=10.",
            )

    @property
    def slots(self) -> int:
        """Places for shapes in a chip."""
        return (self.size // _SLOT) ** 2


@dataclass(frozen=True, slots=True, eq=False)
class ObjectWorld:
    """Chips, places and truth.

    Attributes
    ----------
    cube
        ``(n, 1, 4, size, size)``, in memory.
    units
        One row per neighborhood: neighborhood, treated, outcome, propensity (true), objects
        (number of ``+``), effect (true), lon, lat.
    planted
        ``(n, y, x)``: the pixels of every ``+``.
    """

    config: ObjectWorldConfig
    cube: xr.Dataset
    units: pd.DataFrame
    planted: NDArray[np.bool_]


def _templates() -> NDArray[np.bool_]:
    middle = np.arange(_SHAPE) == _SHAPE // 2
    plus = middle[:, None] | middle[None, :]
    saltire = np.eye(_SHAPE, dtype=bool) | np.eye(_SHAPE, dtype=bool)[::-1]
    return np.stack([saltire, plus])


def simulate_objects(config: ObjectWorldConfig) -> ObjectWorld:
    """Draw a world of planted objects; the design is that of METHODS section 1 with shapes.

    The share of ``+`` among a chip's shapes varies smoothly over the map, so that neighbors
    resemble each other in treatment, too.
    """
    rng = np.random.default_rng((config.seed, 41))
    n, size = config.n, config.size
    images = terrain(n, size, len(config.bands), rng)
    share = 1.0 / (1.0 + np.exp(-1.2 * correlated_field(n, rng, cells=4.0)))
    planted = np.zeros((n, size, size), dtype=bool)
    counts = np.zeros(n, dtype=np.int64)
    shapes = _templates()
    roof = np.resize(np.array(_ROOF, dtype=np.float32), len(config.bands))[:, None]
    for i in range(n):
        chosen = rng.choice(config.slots, size=config.shapes, replace=False)
        kinds = (rng.random(config.shapes) < share[i]).astype(int)
        counts[i] = kinds.sum()
        jitter = rng.integers(0, _SLOT - _SHAPE + 1, size=(config.shapes, 2))
        corners = np.stack(np.divmod(chosen, size // _SLOT), axis=1) * _SLOT + jitter
        for (row, column), kind in zip(corners, kinds, strict=True):
            window = (slice(row, row + _SHAPE), slice(column, column + _SHAPE))
            images[i][:, *window][:, shapes[kind]] = roof
            if kind:
                planted[i][window] |= shapes[kind]
    units = draw_units(
        counts, rng, confounding=config.confounding, effect=config.effect,
        heterogeneity=config.heterogeneity, noise=config.noise,
    )  # fmt: skip
    dates = np.full((n, 1), np.datetime64("2015-07-01"))
    cube = chip_cube(
        images[:, None], dates, bands=config.bands, resolution=config.resolution,
        periods=["2015"], spans=[("2015-01-01", "2015-12-31")],
    )  # fmt: skip
    units = units.assign(lon=cube["lon"].to_numpy(), lat=cube["lat"].to_numpy())
    return ObjectWorld(config, cube, units, planted)


def render_objects(config: ObjectWorldConfig, folder: Path | str) -> Path:
    """Write a world as a user would find it: one mosaic, places and units.

    ``scenes/20150701.tif`` (reflectance x 10000, uint16), ``places.csv`` (id, lon, lat: centres of
    the chips) and ``units.csv``. The folder appears whole or not at all and replaces an older one.
    """
    import rasterio

    world = simulate_objects(config)
    n, side, size = config.n, grid_side(config.n), config.size
    values = np.zeros((side * side, len(config.bands), size, size), dtype=np.uint16)
    values[:n] = np.rint(10_000 * np.clip(world.cube["image"].to_numpy()[:, 0], 1e-4, 6))
    mosaic = values.reshape(side, side, -1, size, size).transpose(2, 0, 3, 1, 4)
    mosaic = mosaic.reshape(len(config.bands), side * size, side * size)
    folder = Path(folder)
    with atomic_path(folder) as temporary:
        (temporary / "scenes").mkdir(parents=True)
        with rasterio.open(
            temporary / "scenes" / "20150701.tif", "w", driver="GTiff",
            count=mosaic.shape[0], height=mosaic.shape[1], width=mosaic.shape[2],
            dtype="uint16", nodata=0, tiled=True, compress="deflate",
            crs=str(world.cube["crs"].values[0]),
            transform=rasterio.Affine(*world.cube["transform"].values[0]),
        ) as target:  # fmt: skip
            target.write(mosaic)
            target.descriptions = config.bands
        named = world.units.rename(columns={"neighborhood": "place"})
        named[["place", "lon", "lat"]].to_csv(temporary / "places.csv", index=False)
        named.to_csv(temporary / "units.csv", index=False)
    return folder
