"""From scenes to the chips of one shard: read windows, mask, resample, composite."""

from __future__ import annotations

import math
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
_GROUP_PIXELS: Final = 2_000_000
_GROUP_VALUES: Final = 64_000_000


@dataclass(frozen=True, slots=True)
class SourceScene:
    """What a task must know of one scene; ``indexes`` are the bands wanted, counted from 1.

    ``start`` and ``date`` are the first and the last day on which it may have been taken.
    """

    name: str
    href: str
    grid: SceneGrid
    indexes: tuple[int, ...]
    mask_index: int | None
    nodata: float
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    date: str
    start: str


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


def gather_shard(job: ShardJob) -> tuple[NDArray[np.float32], ShardResult]:
    """Make the chips of one shard.

    Chips are taken in groups that fit in memory; for each group and period every scene is
    opened once and read chip by chip in the order of its rows, so that a block is decoded once
    while GDAL's cache holds it.

    Returns
    -------
    image
        Shape (chip, period, band, size, size), NaN where there is no valid pixel.
    result
        Share of valid pixels, status, dates used and failed reads.
    """
    size, periods = job.grids[0].size, len(job.in_period)
    image = np.full((len(job.grids), periods, job.n_bands, size, size), np.nan, dtype=np.float32)
    result = ShardResult(
        valid=[[0.0] * periods for _ in job.grids], status=[[0] * periods for _ in job.grids]
    )
    used: list[set[str]] = [set() for _ in range(periods)]
    with rasterio.Env(GDAL_CACHEMAX=256):
        for chips in _groups(job):
            readers = {c: _ChipReader(job.grids[c], job.resampling) for c in chips}
            for period in range(periods):
                looks = _read_period(job, readers, period)
                for chip, look in looks.items():
                    share, status = _composite(job, look, period, image[chip, period])
                    result.valid[chip][period] = share
                    result.status[chip][period] = int(status)
                    used[period] |= look.dates
                    result.failed += [(s, job.start + chip, text) for s, text in look.errors]
    result.used = [sorted(dates) for dates in used]
    return image, result


def _groups(job: ShardJob) -> list[range]:
    """Split the chips into runs whose looks of one period fit in memory together."""
    most = max((len(p) for chip in job.looks for p in chip), default=1)
    pixels = job.grids[0].size ** 2
    length = max(1, min(_GROUP_PIXELS, _GROUP_VALUES // (job.n_bands * max(most, 1))) // pixels)
    return [range(i, min(i + length, len(job.grids))) for i in range(0, len(job.grids), length)]


@dataclass(slots=True)
class _Looks:
    """What the scenes of one period gave for one chip."""

    pixels: list[NDArray[np.float32]] = field(default_factory=list)
    dates: set[str] = field(default_factory=set)
    errors: list[tuple[int, str]] = field(default_factory=list)
    covered: bool = False


def _read_period(job: ShardJob, readers: dict[int, _ChipReader], period: int) -> dict[int, _Looks]:
    looks = {chip: _Looks() for chip in readers}
    for index in sorted({s for chip in readers for s in job.looks[chip][period]}):
        scene = job.scenes[index]
        chips = [c for c in readers if index in job.looks[c][period]]
        chips.sort(key=lambda c: readers[c].place_in(scene.grid))
        try:
            with rasterio.open(scene.href) as source:
                if (source.width, source.height) != (scene.grid.width, scene.grid.height):
                    raise OSError("its size is not what it was when it was scanned")  # noqa: TRY301
                if source.count < max(*scene.indexes, scene.mask_index or 1):
                    raise OSError("it has fewer bands than when it was scanned")  # noqa: TRY301
                for chip in chips:
                    _read_look(readers[chip], source, index, scene, looks[chip])
        except (RasterioError, OSError) as error:
            for chip in chips:
                looks[chip].errors.append((index, str(error.__cause__ or error)))
    return looks


def _read_look(
    reader: _ChipReader, source: Any, index: int, scene: SourceScene, look: _Looks
) -> None:
    try:
        pixels = reader.read(source, scene)
    except (RasterioError, OSError) as error:
        look.errors.append((index, str(error.__cause__ or error)))
        return
    if pixels is None:
        return
    look.covered = True
    if np.isfinite(pixels).any():
        look.pixels.append(pixels)
        look.dates.add(scene.date)


def _composite(
    job: ShardJob, look: _Looks, period: int, out: NDArray[np.float32]
) -> tuple[float, ChipStatus]:
    """Fill one chip of one period; return its share of valid pixels and its status."""
    if not job.in_period[period]:
        return 0.0, ChipStatus.NO_SOURCE
    if look.pixels:
        out[...] = median_of_looks(look.pixels)
    share = float(np.isfinite(out).all(axis=0).mean())
    if share > 0:
        return share, ChipStatus.OK if share >= OK_SHARE else ChipStatus.PARTIAL
    if look.errors:
        return share, ChipStatus.READ_ERROR
    return share, ChipStatus.NODATA_ONLY if look.covered else ChipStatus.OUTSIDE


class _ChipReader:
    """Reads scenes onto the grid of one chip; positions are kept for scenes of one CRS."""

    def __init__(self, grid: LocalGrid, resampling: Resampling) -> None:
        self._grid = grid
        self._resampling = resampling
        self._positions: dict[str, tuple[FloatArray, FloatArray]] = {}

    def _pixels(self, grid: SceneGrid) -> tuple[FloatArray, FloatArray]:
        if grid.crs not in self._positions:
            x, y = self._grid.centres()
            self._positions[grid.crs] = project(self._grid.crs, grid.crs, x, y)
        return grid.pixels(*self._positions[grid.crs])

    def place_in(self, grid: SceneGrid) -> tuple[float, float]:
        """Row (by bands of 256) and column of the chip's middle in a scene, to sort by."""
        a, b, c, d, e, f = grid.transform
        middle = self._grid.size // 2
        self._pixels(grid)
        x, y = (v[middle, middle] for v in self._positions[grid.crs])
        rows = (a * (y - f) - d * (x - c)) / (a * e - b * d)
        cols = (e * (x - c) - b * (y - f)) / (a * e - b * d)
        return (float(rows // 256), float(cols)) if np.isfinite(rows + cols) else (0.0, 0.0)

    def read(self, source: Any, scene: SourceScene) -> NDArray[np.float32] | None:
        """Return (band, size, size), or None if no pixel centre of the chip is on the scene."""
        cols, rows = self._pixels(scene.grid)
        inside = scene.grid.contains(cols, rows)
        if not inside.any():
            return None
        aligned = scene.grid.aligned_with(self._grid, self._resampling.snap)
        method = Nearest() if aligned else self._resampling
        cols = np.clip(cols, 0.0, scene.grid.width - 1e-6)
        rows = np.clip(rows, 0.0, scene.grid.height - 1e-6)
        out = np.full((len(scene.indexes), *inside.shape), np.nan)
        _fill(out, source, scene, method, cols, rows, inside)
        scale, offset = (np.array(v)[:, None, None] for v in (scene.scales, scene.offsets))
        scaled: NDArray[np.float32] = (out * scale + offset).astype(np.float32)
        return scaled


def _fill(
    out: FloatArray,
    source: Any,
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
            _fill(out, source, scene, method, cols, rows, part)
        return
    values, good = _read_window(source, scene, box)
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
    known = np.isfinite(raw)
    for band, nodata in enumerate(_nodata_of(source, scene, indexes + extra)):
        if math.isfinite(nodata):
            known[band] &= raw[band] != _as_stored(nodata, raw.dtype)
    good = known[: len(indexes)]
    if extra:
        good &= known[-1] & (raw[-1] != 0)
    flags = source.mask_flag_enums
    if any(MaskFlags.per_dataset in flags[i - 1] for i in indexes):
        good &= source.read_masks(indexes=indexes, window=window) != 0
    return values, good


def _nodata_of(source: Any, scene: SourceScene, indexes: list[int]) -> list[float]:
    """Nodata of each band: the scene's, or the bands' own where a file has several."""
    own = [math.nan if v is None else float(v) for v in source.nodatavals]
    if own[0] != scene.nodata and not (math.isnan(own[0]) and math.isnan(scene.nodata)):
        return [scene.nodata] * len(indexes)
    return [own[i - 1] for i in indexes]


def _as_stored(nodata: float, dtype: np.dtype[Any]) -> Any:
    """Return nodata as a pixel would hold it; NaN (equal to nothing) if none can."""
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        whole = nodata == int(nodata) and info.min <= nodata <= info.max
        return dtype.type(int(nodata)) if whole else math.nan
    with np.errstate(over="ignore"):
        return dtype.type(nodata)
