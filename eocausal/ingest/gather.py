"""From scenes to the chips of one shard: read windows, mask, resample, composite."""

from __future__ import annotations

import math
from collections import OrderedDict
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window

from eocausal.contracts import ChipStatus
from eocausal.ingest.grid import LocalGrid, SceneGrid, project
from eocausal.ingest.resample import Nearest, Resampling, median_of_looks

__all__ = ["OK_SHARE", "ShardJob", "ShardResult", "SourceScene", "gather_shard"]

FloatArray = NDArray[np.float64]
OK_SHARE: Final = 0.99
_MAX_WINDOW: Final = 4_000_000
_MAX_OPEN: Final = 128


@dataclass(frozen=True, slots=True)
class SourceScene:
    """What a task must know of one scene; ``indexes`` are the bands wanted, counted from 1."""

    name: str
    href: str
    grid: SceneGrid
    indexes: tuple[int, ...]
    mask_index: int | None
    nodata: float
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    date: str


@dataclass(frozen=True, slots=True)
class ShardJob:
    """The chips of one shard and the scenes that may feed each, by period.

    ``looks[chip][period]`` lists positions in ``scenes``; ``in_period[period]`` says whether the
    period has any scene at all.
    """

    store: Path
    marker: Path
    index: int
    start: int
    grids: tuple[LocalGrid, ...]
    looks: tuple[tuple[tuple[int, ...], ...], ...]
    in_period: tuple[bool, ...]
    scenes: dict[int, SourceScene]
    n_bands: int
    resampling: Resampling


@dataclass(slots=True)
class ShardResult:
    """What became of the chips of one shard: plain lists, so that it can be kept as JSON.

    ``used[period]`` holds the dates of the scenes that gave pixels ('' for undated ones);
    ``failed`` one ``(scene, chip, message)`` for each read that failed.
    """

    valid: list[list[float]] = field(default_factory=list)
    status: list[list[int]] = field(default_factory=list)
    used: list[list[str]] = field(default_factory=list)
    failed: list[tuple[int, int, str]] = field(default_factory=list)


class _OpenScenes(AbstractContextManager["_OpenScenes"]):
    """Scenes held open while a task needs them; the one not used for longest is closed first."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, Any] = OrderedDict()

    def get(self, scene: SourceScene) -> Any:
        if scene.href in self._open:
            self._open.move_to_end(scene.href)
            return self._open[scene.href]
        source = rasterio.open(scene.href)
        if (source.width, source.height) != (scene.grid.width, scene.grid.height):
            source.close()
            raise OSError("its size is not what it was when it was scanned")
        self._open[scene.href] = source
        if len(self._open) > _MAX_OPEN:
            self._open.popitem(last=False)[1].close()
        return source

    def __exit__(self, *_: object) -> None:
        for source in self._open.values():
            source.close()


def gather_shard(job: ShardJob) -> tuple[NDArray[np.float32], ShardResult]:
    """Make the chips of one shard.

    Returns
    -------
    image
        Shape (chip, period, band, size, size), NaN where there is no valid pixel.
    result
        Share of valid pixels, status, dates used and failed reads.
    """
    size, periods = job.grids[0].size, len(job.in_period)
    image = np.full((len(job.grids), periods, job.n_bands, size, size), np.nan, dtype=np.float32)
    result = ShardResult()
    used: list[set[str]] = [set() for _ in range(periods)]
    with rasterio.Env(GDAL_CACHEMAX=256), _OpenScenes() as sources:
        for chip, grid in enumerate(job.grids):
            reader = _ChipReader(grid, job.resampling, sources)
            shares, codes = [], []
            for period in range(periods):
                share, code, dates, errors = _composite(
                    reader, job, chip, period, image[chip, period]
                )
                shares.append(share)
                codes.append(int(code))
                used[period] |= dates
                result.failed += [(s, job.start + chip, text) for s, text in errors]
            result.valid.append(shares)
            result.status.append(codes)
    result.used = [sorted(dates) for dates in used]
    return image, result


def _composite(
    reader: _ChipReader, job: ShardJob, chip: int, period: int, out: NDArray[np.float32]
) -> tuple[float, ChipStatus, set[str], list[tuple[int, str]]]:
    """Fill one chip of one period; return its valid share, status, dates used and errors."""
    if not job.in_period[period]:
        return 0.0, ChipStatus.NO_SOURCE, set(), []
    looks: list[NDArray[np.float32]] = []
    dates: set[str] = set()
    errors: list[tuple[int, str]] = []
    covered = False
    for index in job.looks[chip][period]:
        scene = job.scenes[index]
        try:
            look = reader.read(scene)
        except (RasterioError, OSError) as error:
            errors.append((index, str(error.__cause__ or error)))
            continue
        if look is None:
            continue
        covered = True
        if np.isfinite(look).any():
            looks.append(look)
            dates.add(scene.date)
    if looks:
        out[...] = median_of_looks(looks)
    share = float(np.isfinite(out).all(axis=0).mean())
    if share > 0:
        status = ChipStatus.OK if share >= OK_SHARE else ChipStatus.PARTIAL
    elif errors:
        status = ChipStatus.READ_ERROR
    else:
        status = ChipStatus.NODATA_ONLY if covered else ChipStatus.OUTSIDE
    return share, status, dates, errors


class _ChipReader:
    """Reads scenes onto the grid of one chip; positions are kept for scenes of one CRS."""

    def __init__(self, grid: LocalGrid, resampling: Resampling, sources: _OpenScenes) -> None:
        self._grid = grid
        self._resampling = resampling
        self._sources = sources
        self._positions: dict[str, tuple[FloatArray, FloatArray]] = {}

    def read(self, scene: SourceScene) -> NDArray[np.float32] | None:
        """Return (band, size, size), or None if no pixel centre of the chip is on the scene."""
        if scene.grid.crs not in self._positions:
            x, y = self._grid.centres()
            self._positions[scene.grid.crs] = project(self._grid.crs, scene.grid.crs, x, y)
        cols, rows = scene.grid.pixels(*self._positions[scene.grid.crs])
        inside = scene.grid.contains(cols, rows)
        if not inside.any():
            return None
        aligned = scene.grid.aligned_with(self._grid, self._resampling.snap)
        method = Nearest() if aligned else self._resampling
        cols = np.clip(cols, 0.0, scene.grid.width - 1e-6)
        rows = np.clip(rows, 0.0, scene.grid.height - 1e-6)
        out = np.full((len(scene.indexes), *inside.shape), np.nan)
        self._fill(out, scene, method, cols, rows, inside)
        scale, offset = (np.array(v)[:, None, None] for v in (scene.scales, scene.offsets))
        scaled: NDArray[np.float32] = (out * scale + offset).astype(np.float32)
        return scaled

    def _fill(
        self,
        out: FloatArray,
        scene: SourceScene,
        method: Resampling,
        cols: FloatArray,
        rows: FloatArray,
        inside: NDArray[np.bool_],
    ) -> None:
        """Fill the pixels ``inside``; where they span a large window, one part after another."""
        if not inside.any():
            return
        box = _window_of(scene.grid, cols[inside], rows[inside], method.reach)
        left, top, width, height = box
        if width * height > _MAX_WINDOW:
            first = cols < left + width / 2 if width >= height else rows < top + height / 2
            for part in (inside & first, inside & ~first):
                self._fill(out, scene, method, cols, rows, part)
            return
        values, good = _read_window(self._sources.get(scene), scene, box)
        out[:, inside] = method.sample(values, good, cols[inside] - left, rows[inside] - top)


def _window_of(
    grid: SceneGrid, cols: FloatArray, rows: FloatArray, reach: int
) -> tuple[int, int, int, int]:
    """Left, top, width and height of the window needed."""
    left = max(math.floor(cols.min()) - reach, 0)
    right = min(math.floor(cols.max()) + 1 + reach, grid.width)
    top = max(math.floor(rows.min()) - reach, 0)
    bottom = min(math.floor(rows.max()) + 1 + reach, grid.height)
    return left, top, right - left, bottom - top


def _read_window(
    source: Any, scene: SourceScene, box: tuple[int, int, int, int]
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Read all bands of a window at once; return values and which of them are good."""
    indexes, window = list(scene.indexes), Window(*box)
    extra = [] if scene.mask_index is None else [scene.mask_index]
    raw = source.read(indexes=indexes + extra, window=window)
    values = raw[: len(indexes)].astype(np.float64)
    good = np.isfinite(values)
    if math.isfinite(scene.nodata):
        good &= raw[: len(indexes)] != _as_stored(scene.nodata, raw.dtype)
    if extra:
        mask = raw[-1]
        good &= np.isfinite(mask) & (mask != 0)
    flags = source.mask_flag_enums
    if any(MaskFlags.per_dataset in flags[i - 1] for i in indexes):
        good &= source.read_masks(indexes=indexes, window=window) != 0
    return values, good


def _as_stored(nodata: float, dtype: np.dtype[Any]) -> Any:
    """Return nodata as a pixel would hold it; NaN (equal to nothing) if none can."""
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        whole = nodata == int(nodata) and info.min <= nodata <= info.max
        return dtype.type(int(nodata)) if whole else math.nan
    with np.errstate(over="ignore"):
        return dtype.type(nodata)
