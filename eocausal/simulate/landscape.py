"""The land itself: continuous fields over the country, from which images and tables are made.

Settlement, vegetation, relief, water and roads live on one grid in EPSG:32636. What a
neighborhood's chip shows is the mean of these layers over its pixels, so that imagery and
tables agree by construction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from eocausal.simulate.config import BORDER_PX, CELL_GAP_PX, WorldConfig

__all__ = ["FEATURES", "GRID_CRS", "Landscape", "build_landscape"]

GRID_CRS = "EPSG:32636"
SEAM = (30.0, 1.5)
FEATURES = ("settlement", "greenness", "roads", "water", "elevation")

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Int = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Landscape:
    """Layers ``(row, column)`` of a country and the places of its neighborhoods.

    Attributes
    ----------
    density
        Share of land that is built up in the last year of imagery, 0..1.
    plots
        Uniform 0..1 field of small clusters; a pixel is built where it is below the density.
    canopy
        Vegetation cover where nothing is built, 0..1.
    elevation
        Metres.
    brightness
        Multiplies all land reflectance: relief shading and soil texture, around 1.
    roads, water
        Masks.
    origin
        Easting and northing of the top-left corner (EPSG:32636, metres).
    corners
        Row and column of each neighborhood's top-left pixel, ``(n, 2)``.
    features
        What each chip shows in the last year of imagery, ``(n, 5)`` in ``FEATURES`` order.
    """

    config: WorldConfig
    density: Float32
    plots: Float32
    canopy: Float32
    elevation: Float32
    brightness: Float32
    roads: Bool
    water: Bool
    origin: tuple[float, float]
    corners: Int
    features: Float64

    def built(self, year: int) -> Float32:
        """Built-up part of each pixel in a year, 0..1 (0.55..1 where there are buildings)."""
        growth = (1.0 + self.config.growth) ** (year - max(self.config.years))
        threshold = self.density * np.float32(growth)
        houses = (self.plots < threshold) & ~self.water & ~self.roads
        fullness = 1.0 - 0.45 * self.plots / np.maximum(threshold, np.float32(1e-6))
        return np.where(houses, fullness, 0.0).astype(np.float32)

    def vegetation(self, year: int) -> Float32:
        """Vegetated part of each pixel in a year, 0..1."""
        open_land = (~self.water & ~self.roads).astype(np.float32)
        return open_land * (1.0 - self.built(year)) * self.canopy

    def centers(self) -> Float64:
        """Easting and northing of the neighborhoods' centres, ``(n, 2)`` metres."""
        middle = self.corners + self.config.chip_px / 2.0
        left, top = self.origin
        step = self.config.resolution
        return np.column_stack([left + step * middle[:, 1], top - step * middle[:, 0]])


def build_landscape(config: WorldConfig) -> Landscape:
    """Draw the country's layers and place its neighborhoods.

    Fields are white noise filtered in the Fourier domain with a Matern-like spectrum, so that
    neighboring chips resemble each other. About a second at the default size.
    """
    rng = config.rng("landscape")
    shape = config.shape
    elevation = gaussian_field(rng, shape, 220.0, smoothness=2.0)
    moisture = gaussian_field(rng, shape, 130.0, smoothness=1.3) - 0.35 * elevation
    people = gaussian_field(rng, shape, 90.0, smoothness=1.4) - 0.4 * elevation
    water = _water(rng, elevation)
    dryland = np.where(water, -3.0, people)
    towns = _towns(dryland, spacing=max(60, min(shape) // 9))
    roads = _roads(rng, towns, shape)
    people = 0.85 * people + 0.9 * _closeness(roads, 25.0)
    density = 0.004 + 0.40 * _logistic(1.5 * people - 1.2)
    canopy = _logistic(1.2 * moisture + 0.35 * _parcels(rng, shape) + 0.3)
    clusters = gaussian_field(rng, shape, 1.6, smoothness=1.6)
    land = Landscape(
        config=config,
        density=density.astype(np.float32),
        plots=_normal_cdf(clusters),
        canopy=canopy.astype(np.float32),
        elevation=(950.0 + 180.0 * elevation).astype(np.float32),
        brightness=_brightness(rng, elevation),
        roads=roads & ~water,
        water=water,
        origin=_origin(config),
        corners=_place(config, water),
        features=np.empty((0, len(FEATURES))),
    )
    return replace(land, features=_features(land))


def _features(land: Landscape) -> Float64:
    year = max(land.config.years)
    layers = (land.built(year), land.vegetation(year), land.roads, land.water, land.elevation)
    return np.column_stack([_chip_means(x, land.corners, land.config.chip_px) for x in layers])


def gaussian_field(
    rng: np.random.Generator, shape: tuple[int, int], range_px: float, *, smoothness: float
) -> Float32:
    """Draw a stationary Gaussian field, mean 0 and variance 1 over the grid.

    The spectral density is that of a Matern field, (1 + (range * k)^2)^-(smoothness + 1).
    """
    from scipy import fft

    size = [fft.next_fast_len(n, real=True) for n in shape]
    noise = fft.rfft2(rng.standard_normal(size, dtype=np.float32))
    down = 2 * np.pi * np.fft.fftfreq(size[0])[:, None]
    across = 2 * np.pi * np.fft.rfftfreq(size[1])[None, :]
    power = (1.0 + range_px**2 * (down**2 + across**2)) ** (-(smoothness + 1.0) / 2.0)
    values = fft.irfft2(noise * power.astype(np.float32), s=size)[: shape[0], : shape[1]]
    scaled = (values - values.mean()) / values.std()
    return np.ascontiguousarray(scaled, dtype=np.float32)


def _logistic(x: NDArray[np.floating]) -> Float32:
    return np.asarray(1.0 / (1.0 + np.exp(-x)), dtype=np.float32)


def _normal_cdf(x: Float32) -> Float32:
    from scipy.special import ndtr

    return np.asarray(ndtr(x), dtype=np.float32)


def _closeness(mask: Bool, reach_px: float) -> Float32:
    from scipy.ndimage import distance_transform_edt

    if not mask.any():
        return np.zeros(mask.shape, dtype=np.float32)
    return np.exp(-np.asarray(distance_transform_edt(~mask)) / reach_px).astype(np.float32)


def _water(rng: np.random.Generator, elevation: Float32) -> Bool:
    """Lakes in the lowest land and rivers along the zero line of a field, wider when low."""
    course = gaussian_field(rng, elevation.shape, 160.0, smoothness=2.0)
    slope = np.hypot(*np.gradient(course))
    width = np.clip(1.2 - 0.9 * elevation, 0.0, 3.0)
    lakes = elevation < np.quantile(elevation, 0.02)
    return np.asarray(lakes | (np.abs(course) < width * np.maximum(slope, 1e-3)))


def _parcels(rng: np.random.Generator, shape: tuple[int, int]) -> Float32:
    """Fields of 6 x 9 pixels, each with its own crop."""
    high, wide = 6, 9
    small = rng.standard_normal((shape[0] // high + 1, shape[1] // wide + 2), dtype=np.float32)
    big = np.repeat(np.repeat(small, high, axis=0), wide, axis=1)
    rows = np.arange(shape[0])[:, None]
    columns = np.arange(shape[1])[None, :] + (rows // high % 3) * 3
    return np.asarray(big[rows, columns], dtype=np.float32)


def _brightness(rng: np.random.Generator, elevation: Float32) -> Float32:
    down, across = np.gradient(elevation)
    relief = across + down
    relief = relief / relief.std()
    texture = gaussian_field(rng, elevation.shape, 3.0, smoothness=0.6)
    return np.asarray(1.0 + 0.05 * np.clip(relief, -3, 3) + 0.05 * texture, dtype=np.float32)


def _towns(people: Float32, spacing: int) -> Int:
    """Row and column of the peaks of settlement, ``(k, 2)``."""
    from scipy.ndimage import maximum_filter

    peaks = (people == maximum_filter(people, size=spacing)) & (people > 0.0)
    found = np.argwhere(peaks)
    return (
        found if len(found) > 1 else np.array([[0, 0], [people.shape[0] - 1, people.shape[1] - 1]])
    )


def _roads(rng: np.random.Generator, towns: Int, shape: tuple[int, int]) -> Bool:
    """Join the towns by a minimum spanning tree and each to its two nearest towns."""
    from scipy.sparse.csgraph import minimum_spanning_tree
    from scipy.spatial.distance import cdist

    apart = cdist(towns, towns)
    links = {(int(a), int(b)) for a, b in zip(*minimum_spanning_tree(apart).nonzero(), strict=True)}
    for town, order in enumerate(np.argsort(apart, axis=1)[:, 1:3]):
        links |= {(min(town, int(other)), max(town, int(other))) for other in order}
    mask = np.zeros(shape, dtype=bool)
    for a, b in sorted({(min(pair), max(pair)) for pair in links}):
        steps = np.linspace(0.0, 1.0, int(3 * apart[a, b]) + 2)[:, None]
        line = towns[a] + steps * (towns[b] - towns[a])
        along = (towns[b] - towns[a]) / max(apart[a, b], 1.0)
        bend = 0.06 * apart[a, b] * rng.standard_normal(3) / np.arange(1, 4)
        wobble = np.sin(np.pi * steps * np.arange(1, 4)) @ bend
        points = np.rint(line + wobble[:, None] * np.array([-along[1], along[0]])).astype(int)
        inside = ((points >= 0) & (points < np.array(shape))).all(axis=1)
        mask[points[inside, 0], points[inside, 1]] = True
    return mask


def _origin(config: WorldConfig) -> tuple[float, float]:
    """Top-left corner that centres the country on 30 degrees east, snapped to the pixel."""
    from pyproj import Transformer

    east, north = Transformer.from_crs("EPSG:4326", GRID_CRS, always_xy=True).transform(*SEAM)
    step, (height, width) = config.resolution, config.shape
    return (
        float(np.floor(east / step) - width // 2) * step,
        float(np.floor(north / step) + height // 2) * step,
    )


def _place(config: WorldConfig, water: Bool) -> Int:
    """Choose cells that are mostly land and put one chip in each, jittered within its cell."""
    rng = config.rng("places")
    rows, columns = config.cells
    cells = np.argwhere(np.ones((rows, columns), dtype=bool))
    jitter = rng.integers(0, CELL_GAP_PX + 1, size=cells.shape)
    corners = BORDER_PX + cells * config.pitch_px + jitter
    wet = _chip_means(water, corners, config.chip_px)
    likely = np.argsort(rng.random(len(corners)) + (wet > 0.5), kind="stable")
    return np.asarray(corners[np.sort(likely[: config.n_neighborhoods])], dtype=np.intp)


def _chip_means(layer: NDArray[np.generic], corners: Int, size: int) -> Float64:
    """Mean of a layer over square chips, by an integral image, ``(n,)``."""
    total = np.zeros((layer.shape[0] + 1, layer.shape[1] + 1))
    np.cumsum(np.cumsum(layer.astype(np.float64), axis=0), axis=1, out=total[1:, 1:])
    r, c = corners[:, 0], corners[:, 1]
    window = total[r + size, c + size] - total[r, c + size] - total[r + size, c] + total[r, c]
    return np.asarray(window / size**2)
