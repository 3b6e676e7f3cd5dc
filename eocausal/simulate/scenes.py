"""The land as a satellite sees it: dated scenes in two UTM zones, with clouds and holes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.transform import Affine

from eocausal.simulate.config import WorldConfig
from eocausal.simulate.landscape import GRID_CRS, Landscape, gaussian_field

__all__ = ["BANDS", "SCALE", "Scene", "plan_scenes", "write_scenes"]

BANDS = ("blue", "green", "red", "nir", "swir1")
SCALE = 10_000
RADIOMETRIC_STEP = 20
OVERLAP_M = 3_000.0
SENSOR_NOISE = 0.004

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]

SOIL = np.array([0.085, 0.115, 0.160, 0.235, 0.310], dtype=np.float32)
LEAVES = np.array([0.025, 0.055, 0.030, 0.440, 0.170], dtype=np.float32)
ROOFS = np.array([0.230, 0.260, 0.290, 0.330, 0.340], dtype=np.float32)
TRACK = np.array([0.150, 0.180, 0.220, 0.260, 0.320], dtype=np.float32)
WATER = np.array([0.060, 0.055, 0.035, 0.015, 0.008], dtype=np.float32)
CLOUD = np.array([0.560, 0.560, 0.560, 0.580, 0.480], dtype=np.float32)
HAZE = np.array([0.030, 0.022, 0.014, 0.006, 0.003], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Scene:
    """One image: UTM zone, date, its number (which names its random stream), and file name."""

    zone: int
    day: date
    number: int

    @property
    def crs(self) -> str:
        """Coordinate reference system of the scene."""
        return f"EPSG:326{self.zone}"

    @property
    def name(self) -> str:
        """File name, with zone and date."""
        return f"world_utm{self.zone}n_{self.day:%Y%m%d}.tif"


@dataclass(frozen=True, slots=True, eq=False)
class _Window:
    """A zone's pixel grid, with the landscape pixel seen by each (-1 outside the country)."""

    transform: Affine
    shape: tuple[int, int]
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    inside: Bool

    def look(self, layer: NDArray[np.float32]) -> Float32:
        return np.asarray(layer[self.rows, self.columns])


@dataclass(slots=True)
class _Surface:
    """Reflectance of one year, ``bare + season * green`` per band, made once per year."""

    land: Landscape
    year: int = -1
    bare: list[Float32] = field(default_factory=list)
    green: list[Float32] = field(default_factory=list)

    def show(self, year: int) -> None:
        if year == self.year:
            return
        built, land = self.land.built(year), self.land
        dry = (~land.water).astype(np.float32)
        road = land.roads.astype(np.float32)
        open_land = dry * (1.0 - built) * (1.0 - road)
        self.bare, self.green = [], []
        for soil, leaf, roof, track, water in zip(SOIL, LEAVES, ROOFS, TRACK, WATER, strict=True):
            ground = dry * (built * roof + road * track) + open_land * soil
            self.bare.append(land.brightness * ground + (1.0 - dry) * water)
            self.green.append(land.brightness * open_land * land.canopy * (leaf - soil))
        self.year = year


def plan_scenes(config: WorldConfig) -> tuple[Scene, ...]:
    """Dates of the scenes of both zones, spread over every year, in order of time."""
    rng = config.rng("dates")
    gap = 365 // config.scenes_per_year
    days = [
        (date(year, 1, 1) + timedelta(days=int(k * gap + rng.integers(0, gap))), zone)
        for year in config.years
        for k in range(config.scenes_per_year)
        for zone in (35, 36)
    ]
    return tuple(Scene(zone, day, number) for number, (day, zone) in enumerate(sorted(days)))


def write_scenes(land: Landscape, folder: Path) -> Iterator[Path]:
    """Write every scene as a GeoTIFF and yield its path.

    Bands: reflectance x 10,000 (uint16, steps of 20) of ``BANDS``, then ``clear`` (1 clear,
    0 cloud, shadow or nodata). Nodata is 0; tiled, deflate; the time is in TIFFTAG_DATETIME
    and the date in the file name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    windows = {zone: _window(land, zone) for zone in (35, 36)}
    surface = _Surface(land)
    for scene in plan_scenes(land.config):
        surface.show(scene.day.year)
        path = folder / scene.name
        _write(path, scene, windows[scene.zone], _image(scene, windows[scene.zone], surface))
        yield path


def _window(land: Landscape, zone: int) -> _Window:
    """Lay a zone's grid over its half of the country and over the seam."""
    step = land.config.resolution
    height, width = land.config.shape
    left, top = land.origin
    seam = left + step * (width // 2)
    if zone == 36:
        left, right = seam - OVERLAP_M, left + step * width
    else:
        right = seam + OVERLAP_M
    left = max(left, land.origin[0])
    right = min(right, land.origin[0] + step * width)
    crs = f"EPSG:326{zone}"
    box = Transformer.from_crs(GRID_CRS, crs, always_xy=True).transform_bounds(
        left, top - step * height, right, top
    )
    west, north = np.floor(box[0] / step) * step, np.ceil(box[3] / step) * step
    shape = (int(np.ceil((north - box[1]) / step)), int(np.ceil((box[2] - west) / step)))
    x = west + step * (np.arange(shape[1]) + 0.5)
    y = north - step * (np.arange(shape[0]) + 0.5)
    east, up = np.meshgrid(x, y)
    if zone != 36:
        east, up = Transformer.from_crs(crs, GRID_CRS, always_xy=True).transform(east, up)
    columns = np.floor((east - land.origin[0]) / step).astype(np.intp)
    rows = np.floor((land.origin[1] - up) / step).astype(np.intp)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    rows, columns = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
    return _Window(Affine(step, 0.0, west, 0.0, -step, north), shape, rows, columns, inside)


def _image(scene: Scene, window: _Window, surface: _Surface) -> NDArray[np.uint16]:
    """Render a scene, ``(6, row, column)``."""
    config = surface.land.config
    rng = config.rng(f"scene {scene.number}")
    season = np.float32(1.0 + 0.12 * np.sin(2 * np.pi * scene.day.timetuple().tm_yday / 182.6))
    haze, gain = rng.uniform(0.0, 1.0), 1.0 + rng.normal(0.0, 0.015, len(BANDS))
    opacity, shadow = _clouds(rng, window.shape, config.cloud_share)
    clear = (opacity < 0.1) & ~shadow
    light = np.where(shadow, np.float32(0.55), np.float32(1.0))
    seen = window.inside & _swath(rng, window.shape, config.nodata_share)
    image = np.zeros((len(BANDS) + 1, *window.shape), dtype=np.uint16)
    for band in range(len(BANDS)):
        ground = window.look(surface.bare[band]) + season * window.look(surface.green[band])
        value = (ground * light * np.float32(gain[band]) + np.float32(haze) * HAZE[band]) * (
            1.0 - opacity
        ) + opacity * CLOUD[band]
        value += SENSOR_NOISE * rng.standard_normal(window.shape, dtype=np.float32)
        steps = np.rint(value * np.float32(SCALE / RADIOMETRIC_STEP))
        image[band] = np.clip(steps, 1, SCALE / RADIOMETRIC_STEP) * RADIOMETRIC_STEP
        image[band][~seen] = 0
    image[-1] = clear & seen
    return image


def _clouds(rng: np.random.Generator, shape: tuple[int, int], share: float) -> tuple[Float32, Bool]:
    """Opacity of the clouds, 0..0.97, and the mask of the shadows they cast."""
    covered = share * rng.uniform(0.4, 1.6)
    if covered <= 0:
        return np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=bool)
    height = gaussian_field(rng, shape, 45.0, smoothness=0.9)
    edge = np.float32(np.quantile(height, 1.0 - min(covered, 0.95)))
    opacity = np.clip((height - edge) * 1.6 + 0.1, 0.0, 0.97).astype(np.float32)
    shadow = np.roll(opacity > 0.3, (7, -11), axis=(0, 1)) & (opacity < 0.1)
    return opacity, shadow


def _swath(rng: np.random.Generator, shape: tuple[int, int], nodata_share: float) -> Bool:
    """Cut the asked share off one side, along a track tilted by about ten degrees."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    across = columns + 0.18 * rows
    if rng.random() < 0.5:
        across = -across
    if nodata_share <= 0:
        return np.ones(shape, dtype=bool)
    return np.asarray(across >= np.quantile(across[::4, ::4], nodata_share))


def _write(path: Path, scene: Scene, window: _Window, image: NDArray[np.uint16]) -> None:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype="uint16",
        count=len(image),
        height=window.shape[0],
        width=window.shape[1],
        crs=scene.crs,
        transform=window.transform,
        nodata=0,
        tiled=True,
        blockxsize=256,
        blockysize=256,
        interleave="band",
        compress="deflate",
        zlevel=4,
    ) as target:
        target.write(image)
        target.descriptions = (*BANDS, "clear")
        taken = datetime.combine(scene.day, time(8, 5, scene.number % 60))
        target.update_tags(TIFFTAG_DATETIME=taken.strftime("%Y:%m:%d %H:%M:%S"))
