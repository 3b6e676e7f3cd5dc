"""Chips whose blobs tell what drives both placement and outcome; treatment may leave a mark.

The world of METHODS section 9. A hidden development, smooth over the map, decides how many blobs
(houses) a small chip shows. What confounds is the part of it that a carrier names: exactly what
an embedding can express, the number of blobs, or the development itself, of which the blobs are
but a proxy. The second image of a place is taken after treatment and shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd

from eocausal.errors import DesignError
from eocausal.simulate.chips import chip_cube, correlated_field

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]
    Float64 = NDArray[np.float64]
    Int64 = NDArray[np.int64]

__all__ = [
    "BANDS",
    "BlobPlaces",
    "Carrier",
    "Embedded",
    "Hidden",
    "ImageConfounding",
    "ImageConfoundingConfig",
    "Visible",
    "simulate_image_confounding",
]

BANDS = ("red", "green", "blue")
_YEARS = ("2010", "2015")
_MARK = 3
_SENSOR_NOISE = 0.04


@dataclass(frozen=True, slots=True, eq=False)
class BlobPlaces:
    """Places before anyone is treated.

    Attributes
    ----------
    images
        (n, 3, y, x) reflectance.
    count
        (n,) number of blobs in each chip.
    development
        (n,) what the expected number of blobs depends on, mean 0 and sd 1.
    """

    images: Float32
    count: Int64
    development: Float64


class Carrier(Protocol):
    """A decision which part of what the image shows confounds."""

    def values(self, places: BlobPlaces) -> Float64:
        """Return (n,) values of the confounder, in any units."""
        ...


@dataclass(frozen=True, slots=True)
class Visible:
    """The number of blobs confounds: all of it is in the image, in no feature exactly."""

    def values(self, places: BlobPlaces) -> Float64:
        """Return the number of blobs."""
        return places.count.astype(np.float64)


@dataclass(frozen=True, slots=True)
class Hidden:
    """Development itself confounds: the image shows a noisy proxy of it."""

    def values(self, places: BlobPlaces) -> Float64:
        """Return the development."""
        return places.development


@dataclass(frozen=True, slots=True)
class Embedded:
    """What an embedding tells of the number of blobs confounds: linear in it, nothing is hidden.

    Parameters
    ----------
    encode
        Turns images (n, 3, y, x) into features (n, d).
    """

    encode: Callable[[Float32], NDArray[np.floating]]

    def values(self, places: BlobPlaces) -> Float64:
        """Return the ridge regression of the number of blobs on the features.

        The penalty is that of least generalised cross-validation (Golub, Heath & Wahba 1979):
        least squares would make a confounder of what fits these chips by chance, too.
        """
        features = self.encode(places.images).astype(np.float64)
        features = features - features.mean(axis=0)
        spread = features.std(axis=0)
        u, s, _ = np.linalg.svd(features[:, spread > 0] / spread[spread > 0], full_matrices=False)
        count = places.count - places.count.mean()
        share = s**2 / (s**2 + (s[0] ** 2 * np.logspace(0, -10, 61))[:, None])
        fits = u @ (share * (u.T @ count)).T
        left = ((count[:, None] - fits) ** 2).sum(axis=0)
        free = 1 - share.sum(axis=1) / (len(count) - 1)
        score = np.where(free > 0.1, left / np.maximum(free, 0.1) ** 2, np.inf)
        return np.asarray(fits[:, score.argmin()])


@dataclass(frozen=True, slots=True)
class ImageConfoundingConfig:
    """Decisions behind the world.

    With c the standardised confounder and x ~ N(0, 1) a column of the table,
    ``W ~ Bern(1 / (1 + exp(-(placement * c + table * x))))`` and
    ``Y = effect * W + confounding * c + table * x + error``.

    Parameters
    ----------
    n
        Places, one chip each, on a gapless grid.
    size
        Side of a chip in pixels.
    carrier
        What confounds: :class:`Embedded`, :class:`Visible` or :class:`Hidden`.
    blobs
        Number of blobs in a chip of average development.
    growth
        Change of the logarithm of the expected number with a sd of development.
    placement, confounding
        Slopes of the log odds of treatment and of the outcome on the confounder.
    table
        Slope of both on x.
    effect
        Of treatment on everyone.
    noise
        Standard deviation of the outcome's error.
    shared
        Share of the variance of development and of the error that varies smoothly over the map.
    range_cells
        Range of the smooth part, in chips.
    mark
        Mean reflectance that treatment adds, in the later image, to a square of 3 pixels; from
        place to place it varies by a gamma distribution of shape 4.

    Raises
    ------
    DesignError
        If the numbers make no world.
    """

    n: int = 1500
    size: int = 20
    carrier: Carrier = field(default_factory=Visible)
    blobs: float = 16.0
    growth: float = 0.35
    placement: float = 0.8
    confounding: float = 0.85
    table: float = 0.4
    effect: float = 1.0
    noise: float = 1.0
    shared: float = 0.5
    range_cells: float = 4.0
    mark: float = 0.0

    def __post_init__(self) -> None:
        problems = [
            text
            for wrong, text in (
                (self.n < 16, "n is below 16"),
                (self.size < _MARK, f"size is below {_MARK}"),
                (not self.blobs > 0, "blobs is not positive"),
                (not self.noise >= 0, "noise is negative"),
                (not self.range_cells > 0, "range_cells is not positive"),
                (not 0 <= self.shared <= 1, "shared is not in [0, 1]"),
            )
            if wrong
        ]
        if problems:
            raise DesignError(
                f"This world cannot be made: {'; '.join(problems)}.",
                cause="It has a few chips with blobs, and variances that are not negative.",
                next_step="Correct these fields of ImageConfoundingConfig.",
            )


@dataclass(frozen=True, slots=True, eq=False)
class ImageConfounding:
    """One draw of the world.

    Attributes
    ----------
    before, after
        (n, 3, y, x) reflectance, before and after treatment; each has its own sensor noise.
    cube
        Both images, as the periods ``2010`` and ``2015``; treatment lies between them.
    units
        One row per place: ``neighborhood``, ``treated``, ``outcome``, ``earlier`` (the outcome
        before treatment, with an error of its own), ``x``, ``lon``, ``lat`` (degrees); and what no
        one sees: ``confounder`` (mean 0, sd 1), ``propensity``.
    places
        What was there before treatment.
    """

    config: ImageConfoundingConfig
    before: Float32
    after: Float32
    cube: xr.Dataset
    units: pd.DataFrame
    places: BlobPlaces


def simulate_image_confounding(
    config: ImageConfoundingConfig, rng: np.random.Generator
) -> ImageConfounding:
    """Draw places, their first images, treatment, outcomes and the images taken afterwards.

    Parameters
    ----------
    config
        The world.
    rng
        Source of every draw.
    """
    c = config
    development = _partly_smooth(c, rng)
    count = rng.poisson(c.blobs * np.exp(c.growth * development - c.growth**2 / 2))
    scene = _draw_scene(count, c.size, rng)
    places = BlobPlaces(_expose(scene, rng), count, development)
    values = c.carrier.values(places)
    confounder = (values - values.mean()) / values.std()
    x = rng.standard_normal(c.n)
    propensity = 1 / (1 + np.exp(-(c.placement * confounder + c.table * x)))
    treated = (rng.random(c.n) < propensity).astype(np.int64)
    level = c.confounding * confounder + c.table * x
    outcome = c.effect * treated + level + c.noise * _partly_smooth(c, rng)
    after = _expose(_mark(scene, treated, c.mark, rng), rng)
    earlier = level + c.noise * _partly_smooth(c, rng)
    cube = _cube(np.stack([places.images, after], axis=1))
    units = pd.DataFrame(
        {
            "neighborhood": np.arange(c.n),
            "treated": treated,
            "outcome": outcome,
            "earlier": earlier,
            "x": x,
            "lon": cube["lon"].to_numpy(),
            "lat": cube["lat"].to_numpy(),
            "confounder": confounder,
            "propensity": propensity,
        },
        index=pd.RangeIndex(c.n, name="unit"),
    )
    return ImageConfounding(c, places.images, after, cube, units, places)


def _partly_smooth(config: ImageConfoundingConfig, rng: np.random.Generator) -> Float64:
    """Draw (n,) values with mean 0 and sd about 1, partly shared by neighbours."""
    smooth = correlated_field(config.n, rng, cells=config.range_cells)
    own = rng.standard_normal(config.n)
    return np.asarray(np.sqrt(config.shared) * smooth + np.sqrt(1 - config.shared) * own)


def _draw_scene(count: Int64, size: int, rng: np.random.Generator) -> Float32:
    """Draw blobs of various brightness, width and colour on ground of various brightness."""
    n, most = len(count), max(int(count.max()), 1)
    shape = (n, most)
    there = np.arange(most) < count[:, None]
    centre = rng.uniform(0, size - 1, (2, *shape))
    width = rng.uniform(0.8, 1.2, shape)
    apart = np.arange(size)[:, None] - centre[:, :, None, :]
    down, across = np.exp(-0.5 * (apart / width[:, None]) ** 2).astype(np.float32)
    bright = np.where(there, rng.uniform(0.22, 0.28, shape), 0.0)
    colour = rng.uniform(0.85, 1.15, (3, *shape))
    bands = [
        (down * (bright * tint).astype(np.float32)[:, None]) @ across.transpose(0, 2, 1)
        for tint in colour
    ]
    ground = rng.normal(0.25, 0.03, (n, 1, 1, 1)).astype(np.float32)
    return np.asarray(np.stack(bands, axis=1) + ground)


def _mark(scene: Float32, treated: Int64, strength: float, rng: np.random.Generator) -> Float32:
    """Add a square, here faint and there bright, somewhere in the chips of the treated."""
    size = scene.shape[-1]
    corner = rng.integers(0, size - _MARK + 1, (2, len(scene)))
    inside = (np.arange(size) >= corner[..., None]) & (np.arange(size) < corner[..., None] + _MARK)
    square = inside[0, :, :, None] & inside[1, :, None, :] & (treated == 1)[:, None, None]
    brightness = strength * rng.gamma(4.0, 0.25, len(scene)).astype(np.float32)
    return np.asarray(scene + brightness[:, None, None, None] * square[:, None])


def _expose(scene: Float32, rng: np.random.Generator) -> Float32:
    noise = rng.standard_normal(scene.shape, dtype=np.float32)
    return np.asarray(scene + np.float32(_SENSOR_NOISE) * noise)


def _cube(images: Float32) -> xr.Dataset:
    days = np.array([f"{year}-07-01" for year in _YEARS], dtype="datetime64[D]")
    return chip_cube(
        images, np.tile(days, (len(images), 1)), bands=BANDS,
        resolution=600.0 / images.shape[-1], periods=_YEARS,
        spans=[(f"{year}-01-01", f"{year}-12-31") for year in _YEARS],
    )  # fmt: skip
