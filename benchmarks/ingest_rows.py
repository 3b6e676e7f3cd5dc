"""What ``benchmarks/ingest.py`` measures: ours, two peers, the limits, the plan.

Each function here runs alone in a fresh process. It returns plain numbers: processor seconds
(this process and its children), seconds on the wall, and what is its own. Only the work itself
is timed, not imports, headers or the drawing of sites.
"""

from __future__ import annotations

import cProfile
import json
import os
import pstats
import resource
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
from archive import BANDS, BLOCK, CHIP, NODATA, RESOLUTION, Archive, Sites
from numpy.typing import NDArray
from rasterio.windows import Window

Record = dict[str, Any]
_SHARD: Final = 256
_MOST_SAMPLED: Final = 64
_WAITS: Final = ("_queue.SimpleQueue", "_thread.lock", "_thread.RLock", "select.epoll")


class Stopwatch:
    """Processor and wall seconds of what ran within ``running()``."""

    def __init__(self) -> None:
        self.cpu = self.wall = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what happens within."""
        cpu, wall = _cpu(), time.perf_counter()
        try:
            yield
        finally:
            self.cpu += _cpu() - cpu
            self.wall += time.perf_counter() - wall

    def record(self, **more: Any) -> Record:
        """Return both counts, and more."""
        return {"cpu": self.cpu, "wall": self.wall, **more}


def _cpu() -> float:
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def peak_memory() -> float:
    """Most bytes of memory that this process, or one that it started and that ended, ever held.

    Linux counts into ``ru_maxrss`` what the parent held before ``exec``; ``VmHWM`` does not.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        own = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return float(max(own, children))


def _places(sites: Sites) -> Any:
    import geopandas as gpd
    import pandas as pd
    from archive import CRS

    index = pd.RangeIndex(len(sites), name="neighborhood")
    return gpd.GeoDataFrame(geometry=gpd.points_from_xy(*sites.points()), crs=CRS, index=index)


def _scenes(archive: Archive) -> Any:
    import eocausal as eo

    return eo.scan(list(archive.files), time_pattern=r"mosaic_(?P<year>\d{4})")


def ours(
    archive: Archive,
    n: int,
    aligned: bool,
    scratch: Path,
    check: int = 12,
    watcher: AbstractContextManager[Any] | None = None,
) -> Record:
    """Build the cube into a Zarr store; hold some of its chips against the mosaics.

    A cube of one chip comes first, so that what is imported when it is needed is not counted.
    """
    from eocausal import build_cube

    sites = Sites.draw(archive, n, aligned=aligned)
    places, scenes = _places(sites), _scenes(archive)
    out = scratch / "cube.zarr"

    def build(places: Any, periods: Sequence[str], out: Path) -> Any:
        return build_cube(
            places, scenes, bands=BANDS, resolution=RESOLUTION, size=CHIP, periods=periods,
            crs=sites.crs, out=out,
        )  # fmt: skip

    build(places.iloc[:1], archive.labels[:1], scratch / "first.zarr").close()
    before, watch = peak_memory(), Stopwatch()
    with watcher or nullcontext(), watch.running():
        cube = build(places, archive.labels, out)
    peak = peak_memory()
    written = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    codec = _blosc_in(json.loads((out / "image" / "zarr.json").read_text(encoding="utf-8")))
    largest = check_chips(cube, archive, sites, check)
    cube.close()
    shutil.rmtree(out)
    return watch.record(peak=peak, before=before, written=written, difference=largest, codec=codec)


def _blosc_in(metadata: Any) -> Record | None:
    """Find how the chunks of a Zarr array are compressed, in a shard or not."""
    if isinstance(metadata, dict):
        if metadata.get("name") == "blosc":
            return dict(metadata["configuration"])
        metadata = list(metadata.values())
    parts = (_blosc_in(part) for part in metadata) if isinstance(metadata, list) else ()
    return next((part for part in parts if part), None)


def check_chips(cube: Any, archive: Archive, sites: Sites, check: int) -> float:
    """Compare random chips of the cube with the mosaics; return the largest difference.

    Aligned chips must be the mosaics' own windows, to the bit and with the same holes. The
    others must be within 1 of linear interpolation between pixel centres (scipy) wherever no
    neighbor is missing, and missing exactly where the centre falls in a hole.
    """
    rng = np.random.default_rng(5)
    largest = 0.0
    for which in rng.choice(len(sites), min(check, len(sites)), replace=False).tolist():
        year = int(rng.integers(archive.years))
        chip = cube["image"].sel(neighborhood=which, period=archive.labels[year]).values
        if chip.dtype.kind in "iu":
            chip = np.where(chip == NODATA, np.nan, chip.astype(np.float64))
        expected, hole = _expected(archive, sites, which, year)
        if not np.array_equal(np.isnan(chip), np.broadcast_to(hole, chip.shape)):
            raise SystemExit(f"WRONG: the holes of chip {which} in {archive.labels[year]} differ.")
        known = np.isfinite(expected)
        difference = float(np.abs(chip[known] - expected[known]).max(initial=0.0))
        if difference > (0.0 if sites.aligned else 1.0):
            raise SystemExit(
                f"WRONG: chip {which} in {archive.labels[year]} differs by {difference:g}."
            )
        largest = max(largest, difference)
    return largest


def _expected(
    archive: Archive, sites: Sites, which: int, year: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Pixels of one chip (NaN where unknown), and where it must be missing."""
    from scipy.ndimage import map_coordinates

    left, right, top, bottom = sites[[which]].boxes()[0]
    left, top = max(left - 1, 0), max(top - 1, 0)
    with rasterio.open(archive.files[year]) as source:
        raw = source.read(window=Window.from_slices((top, bottom + 2), (left, right + 2)))
    values = np.where(raw == NODATA, np.nan, raw.astype(np.float64))
    cols, rows = sites.chip_pixels(which)
    cols, rows = cols - left, rows - top
    hole = np.isnan(values[0])[np.floor(rows).astype(int), np.floor(cols).astype(int)]
    at = [rows - 0.5, cols - 0.5]
    if sites.aligned:
        return values[:, np.rint(at[0]).astype(int), np.rint(at[1]).astype(int)], hole
    return np.stack([map_coordinates(v, at, order=1, cval=np.nan) for v in values]), hole


def decode_limit(archive: Archive, n: int, aligned: bool, threads: int) -> Record:
    """Decode every block that some chip needs once, all bands together, and drop it."""
    blocks = Sites.draw(archive, n, aligned=aligned).blocks(archive.side)
    local = threading.local()

    def one(path: Path) -> None:
        if not hasattr(local, "buffer"):
            local.buffer = np.empty((len(BANDS), BLOCK, BLOCK), dtype=np.int16)
        with rasterio.Env(GDAL_CACHEMAX=16), rasterio.open(path) as source:
            for row, col in blocks:
                source.read(out=local.buffer, window=Window(col * BLOCK, row * BLOCK, BLOCK, BLOCK))

    watch = Stopwatch()
    with watch.running():
        _on_threads(one, archive.files, threads)
    return watch.record(blocks=len(blocks) * archive.years, peak=peak_memory())


def write_limit(
    archive: Archive, n: int, threads: int, scratch: Path, codec: Record | None
) -> Record:
    """Compress and write the bytes of ``n`` chips: real chips, over and over, and nothing else.

    ``codec`` is the store's own (Blosc's settings in Zarr's words); None writes them as they are.
    """
    from numcodecs import Blosc

    shuffles = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}
    blosc = codec and Blosc(
        codec["cname"], codec["clevel"], shuffles[codec["shuffle"]], codec["blocksize"]
    )
    chips = _sample(archive, Sites.draw(archive, min(n, _MOST_SAMPLED), aligned=True))
    written: list[int] = []

    def one(start: int) -> None:
        size = 0
        with (scratch / f"shard-{start}").open("wb", buffering=0) as stream:
            for which in range(start, min(start + _SHARD, n)):
                chip = chips[which % len(chips)]
                size += stream.write(blosc.encode(chip) if blosc else chip.data)
        written.append(size)

    watch = Stopwatch()
    with watch.running():
        _on_threads(one, range(0, n, _SHARD), threads)
    return watch.record(written=sum(written), pixels=n * chips[0].nbytes)


def _sample(archive: Archive, sites: Sites) -> list[NDArray[np.int16]]:
    """Read the chips of some sites: (year, band, size, size) each."""
    chips = np.empty((len(sites), archive.years, len(BANDS), CHIP, CHIP), dtype=np.int16)
    for year, path in enumerate(archive.files):
        with rasterio.open(path) as source:
            for chip, (left, _, top, _) in zip(chips[:, year], sites.boxes(), strict=True):
                source.read(out=chip, window=Window(left, top, CHIP, CHIP))
    return list(chips)


def _on_threads(work: Callable[[Any], None], items: Any, threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(work, item) for item in items]:
            future.result()


def window_loop(archive: Archive, n: int, sample: int, keep_open: bool) -> Record:
    """Read the aligned chips site by site with rasterio, one window of each mosaic.

    The sample is spread over all ``n`` sites; GDAL's cache is as it comes.
    """
    sites = Sites.draw(archive, n, aligned=True)[_spread(n, sample)]
    out = np.empty((archive.years, len(BANDS), CHIP, CHIP), dtype=np.int16)
    held = [rasterio.open(p) for p in archive.files] if keep_open else []
    watch = Stopwatch()
    with watch.running():
        for left, _, top, _ in sites.boxes():
            window = Window(left, top, CHIP, CHIP)
            for year, path in enumerate(archive.files):
                if keep_open:
                    held[year].read(out=out[year], window=window)
                    continue
                with rasterio.open(path) as source:
                    source.read(out=out[year], window=window)
    for source in held:
        source.close()
    return watch.record(sites=len(sites))


def odc_stac(archive: Archive, n: int, aligned: bool, sample: int) -> Record:
    """Load the chips site by site with odc-stac, each on a geobox of its own, after one warm-up."""
    import odc.stac
    from odc.geo.geobox import GeoBox
    from rasterio.transform import from_origin

    sites = Sites.draw(archive, n, aligned=aligned)
    items = _items(archive)
    half = RESOLUTION * CHIP / 2
    which = _spread(n, sample).tolist()
    geoboxes = [
        GeoBox((CHIP, CHIP), from_origin(x - half, y + half, RESOLUTION, RESOLUTION), sites.crs)
        for x, y in zip(*sites[which].centres(), strict=True)
    ]

    def load(geobox: Any) -> NDArray[np.int16]:
        chips = odc.stac.load(
            items, bands=list(BANDS), geobox=geobox, fail_on_error=True,
            resampling="nearest" if aligned else "bilinear",
        )  # fmt: skip
        return np.stack([chips[b].values for b in BANDS], axis=1)

    load(geoboxes[0])
    watch = Stopwatch()
    with watch.running():
        loaded = [load(geobox) for geobox in geoboxes]
    if aligned:
        for chips, one in zip(loaded, which, strict=True):
            (expected,) = _sample(archive, sites[[one]])
            if not np.array_equal(chips, expected):
                raise SystemExit(f"WRONG: odc-stac's chips of site {one} differ.")
    return watch.record(sites=len(geoboxes))


def _items(archive: Archive) -> list[Any]:
    """STAC items of the mosaics, with their grids, so that no header need be read first."""
    import pystac
    from archive import CRS
    from rasterio.warp import transform_bounds
    from shapely.geometry import box, mapping

    side = archive.side
    edges = rasterio.transform.array_bounds(side, side, archive.transform)
    bounds = transform_bounds(CRS, "EPSG:4326", *edges)
    stac = "https://stac-extensions.github.io"
    asset = {
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "roles": ["data"],
        "proj:code": CRS,
        "proj:shape": [side, side],
        "proj:transform": list(archive.transform)[:6],
        "eo:bands": [{"name": name} for name in BANDS],
        "raster:bands": [{"data_type": "int16", "nodata": NODATA} for _ in BANDS],
    }
    return [
        pystac.Item.from_dict(
            {
                "type": "Feature",
                "stac_version": "1.0.0",
                "stac_extensions": [
                    f"{stac}/projection/v2.0.0/schema.json",
                    f"{stac}/eo/v1.1.0/schema.json",
                    f"{stac}/raster/v1.1.0/schema.json",
                ],
                "id": f"mosaic_{label}",
                "geometry": mapping(box(*bounds)),
                "bbox": list(bounds),
                "properties": {"datetime": f"{label}-07-01T00:00:00Z"},
                "links": [],
                "assets": {"image": {**asset, "href": str(path)}},
            },
            migrate=False,
        )
        for label, path in zip(archive.labels, archive.files, strict=True)
    ]


def _spread(n: int, sample: int) -> NDArray[np.intp]:
    return np.linspace(0, n - 1, min(sample, n)).astype(np.intp)


def plan(archive: Archive, n: int) -> Record:
    """Plan a cube from the tables in memory: all that happens before the first block is read."""
    from eocausal.ingest.plan import plan_cube

    sites = Sites.draw(archive, n, aligned=True)
    places, scenes = _places(sites), _scenes(archive)
    watch = Stopwatch()
    with watch.running():
        plan_cube(places, scenes, BANDS, RESOLUTION, CHIP, archive.labels)
    return watch.record(peak=peak_memory())


def profile(archive: Archive, n: int, aligned: bool, scratch: Path, lines: int) -> Record:
    """Build the cube under cProfile in every thread, by processor time; print where it goes."""
    found: list[cProfile.Profile] = []
    record = ours(archive, n, aligned, scratch, check=0, watcher=_profiled(found))
    rows = [
        (own, calls, name if file == "~" else f"{os.path.basename(file)}:{line} {name}")
        for (file, line, name), (_, calls, own, _, _) in _statistics(found)
        if not any(wait in name for wait in _WAITS)
    ]
    total = sum(own for own, _, _ in rows)
    print(f"own processor time by function, {total:.1f} s in all, profiler included")
    for own, calls, name in sorted(rows, reverse=True)[:lines]:
        print(f"{own / total:6.1%} {own:8.2f} s {calls:9,} calls  {name}")
    return record


@contextmanager
def _profiled(found: list[cProfile.Profile]) -> Iterator[None]:
    """Profile this thread and all threads that start within."""

    def start(*_: Any) -> None:
        found.append(cProfile.Profile(time.thread_time))
        found[-1].enable()

    threading.setprofile(start)
    start()
    try:
        yield
    finally:
        threading.setprofile(None)  # type: ignore[arg-type]
        for one in found:
            one.disable()


def _statistics(found: list[cProfile.Profile]) -> Any:
    return pstats.Stats(*found).stats.items()  # type: ignore[attr-defined]
