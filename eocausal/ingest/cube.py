"""Neighborhoods and scenes become a cube: one chip per neighborhood, period and band."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import geopandas as gpd
import numpy as np
import xarray as xr

from eocausal.contracts import ChipStatus
from eocausal.errors import CubeError, IngestError, TooManyFailuresError
from eocausal.ingest.composites import Composite
from eocausal.ingest.describe import describe
from eocausal.ingest.indices import Index
from eocausal.ingest.keys import build_key
from eocausal.ingest.masks import Mask
from eocausal.ingest.recipe import make_recipe
from eocausal.ingest.remote import Sign
from eocausal.ingest.resample import Resampling
from eocausal.ingest.schedule import Scheduler, active_scheduler
from eocausal.ingest.spec import CubeSpec, specify
from eocausal.ingest.store import (
    Parts,
    ShardResult,
    open_cube,
    read_failures,
    shard_length,
    stored_key,
)
from eocausal.ingest.work import ShardTask, cut_work, shard_tasks
from eocausal.provenance import Failure, FailureLedger

__all__ = ["CubeProgress", "build_cube"]

_MEMORY: Final = 2**30
_BASE: Final = 400 * 2**20
_PER_THREAD: Final = 96 * 2**20


@dataclass(frozen=True, slots=True)
class CubeProgress:
    """How far a build is: chips done and in all, pixels read so far, seconds since it began."""

    done: int
    total: int
    bytes_read: int
    seconds: float


def build_cube(
    neighborhoods: gpd.GeoDataFrame,
    scenes: gpd.GeoDataFrame,
    *,
    bands: Sequence[str | Index],
    resolution: float,
    out: str | Path,
    size: int | None = None,
    periods: Sequence[str] | None = None,
    crs: str | None = None,
    resampling: Resampling | None = None,
    mask: Mask | Sequence[Mask] | None = None,
    composite: Composite | None = None,
    count_band: str | None = None,
    max_failed: float = 0.5,
    ledger: FailureLedger | None = None,
    progress: Callable[[CubeProgress], None] | None = None,
    scheduler: Scheduler | None = None,
    memory: int = _MEMORY,
    sign: Sign | None = None,
    units: str = "DN",
) -> xr.Dataset:
    """Cut one chip per neighborhood and period out of the scenes, into a Zarr store.

    Each chip is centred exactly on its neighborhood, north up, in the neighborhood's UTM zone
    (or ``crs``). Every block of the imagery is decoded once and given to all chips it touches.
    Where several looks of a period cover a pixel, ``composite`` makes one of the valid ones. A
    build that was killed goes on where it stopped; one that is already there for the same
    parameters and files is opened without work.

    Parameters
    ----------
    neighborhoods
        See :func:`eocausal.read_neighborhoods`.
    scenes
        See :func:`eocausal.scan`. Rows with the same ``item`` and time are one look. A column
        ``neighborhood``, where present and not empty, ties a scene to that one neighborhood.
    bands
        Names of the bands, in the order wanted, and indices: ``NDVI`` (an
        :class:`~eocausal.ingest.indices.Index`) or ``'ndvi = (nir - red) / (nir + red)'``, which
        are computed for each look. A look that lacks a band is left out and recorded.
    resolution
        Pixel size in units of the chips' CRS (metres for UTM).
    out
        Folder of the Zarr store. It appears whole or not at all; an older cube is replaced.
    size
        Pixels per side; by default from ``size_m`` or the widest polygon.
    periods
        Labels ``'2010'``, ``'2010-05'``, ``'1999/2001'``, ``'2010-03-01/2010-05-31'`` or
        ``'all'`` (the default). A look belongs to the periods that contain all of its date.
    crs
        One CRS for all chips instead of local ones.
    resampling
        ``Bilinear()`` (default) or ``Nearest()``.
    mask
        Which pixels of a look are clear: ``QAPixel()``, ``SceneClassification()``,
        ``CloudProbability(below=40)``, ``NonZero('clear')``, ``Values(...)``, or several of them.
    composite
        ``Median()`` (default), ``Mean()``, ``Medoid()``, ...
    count_band
        Name of a further band: the number of looks valid in all bands at each pixel.
    max_failed
        Share of chips that may have no valid pixel, over neighborhoods and periods.
    ledger
        Receives a row for each scene and chip that could not be used. A file given twice with
        the same date is used once (``duplicate``).
    progress
        Called after every shard.
    scheduler
        ``Threads(n)``, ``Processes(n)`` or ``Distributed('tcp://...')``; by default the
        dask.distributed client that is active, else threads on all cores. The bytes of the store
        do not depend on it.
    memory
        Bytes that a worker may use, about (default 1 GiB; at least 600 MiB is used).
    sign
        Turns the href of a remote scene into one that can be read now; called when it is opened,
        on the worker.
    units
        What pixel values are after scale and offset, e.g. ``'DN'`` or ``'reflectance'``.

    Returns
    -------
    xarray.Dataset
        ``image`` (neighborhood, period, band, y, x) float32, NaN where invalid; ``valid``, the
        share of pixels valid in all bands; ``status`` (:class:`~eocausal.contracts.ChipStatus`);
        ``looks``, how many looks gave pixels; ``date``, their mean day. Rows are in the order of
        the store (see :func:`eocausal.open_cube`): select by label. Whole numbers are stored as
        the scenes hold them where type, scale and nodata of all agree.

    Raises
    ------
    BandError, SceneError, IngestError, CubeError, CRSError, GeometryError
    TooManyFailuresError
        After the store and the ledger are complete.
    """
    out = Path(out).absolute()
    _check_share(max_failed)
    recipe = make_recipe(
        bands, masks=mask, composite=composite, resampling=resampling, count_band=count_band
    )
    spec = specify(neighborhoods, scenes, recipe, resolution, size, periods, crs=crs)
    for one in recipe.indices:
        one.check(recipe.inputs, units)
    key = build_key(spec, units)
    parts = Parts(out, key)
    total = len(spec.chips) * len(spec.periods)
    if stored_key(out) != key:
        if out.exists() and stored_key(out) is None:
            raise CubeError(
                f"{out} exists and is not a cube.",
                cause="Building there would delete it.",
                next_step="Give another out=..., or remove it yourself.",
            )
        with parts.claimed():
            _build(spec, parts, units, scheduler or active_scheduler(), memory, sign, progress)
    else:
        parts.clear()
        if progress is not None:
            progress(CubeProgress(total, total, 0, 0.0))
    if ledger is not None:
        ledger.rows.extend(_with_hrefs(read_failures(out), spec))
    cube = open_cube(out)
    _check_failed(cube, max_failed)
    return cube


def _build(
    spec: CubeSpec,
    parts: Parts,
    units: str,
    scheduler: Scheduler,
    memory: int,
    sign: Sign | None,
    progress: Callable[[CubeProgress], None] | None,
) -> None:
    n, _, bands, size, _ = spec.shape
    length = shard_length(n, spec.chunk * bands * size**2 * spec.packing.dtype.itemsize)
    parts.prepare(spec.shape, spec.chunk, length, spec.packing)
    tasks = shard_tasks(spec, length)
    watch = _Watch(spec, parts, tasks, progress)
    threads = scheduler.threads
    left = [t for t in tasks if t.number not in watch.seen]
    if left:
        work = cut_work(
            spec, parts, left, length, pieces=scheduler.pieces, threads=threads,
            memory=max(memory - _BASE - threads * _PER_THREAD, 64 * 2**20), sign=sign,
            done=watch.one if scheduler.pieces == 1 else None,
        )  # fmt: skip
        scheduler.run(work, watch.all)
    results = {t.number: parts.result(t.number) for t in tasks}
    parts.finish(*describe(spec, tasks, results, units))


class _Watch:
    """Tells a caller how far the shards are, from their markers."""

    def __init__(
        self,
        spec: CubeSpec,
        parts: Parts,
        tasks: list[ShardTask],
        tell: Callable[[CubeProgress], None] | None,
    ) -> None:
        self._parts, self._tell = parts, tell
        self._total = len(spec.chips) * len(spec.periods)
        self._periods = [len(spec.periods[c * spec.chunk :][: spec.chunk]) for c in
                         range(-(-len(spec.periods) // spec.chunk))]  # fmt: skip
        self._left = {t.number: t for t in tasks}
        self._done = self._bytes = 0
        self._start = time.monotonic()
        self._lock = threading.RLock()
        self.seen: set[int] = set()
        self.all(before=True)

    def one(self, task: ShardTask, result: ShardResult) -> None:
        """Count a shard that was just made."""
        with self._lock:
            self._count(task, result.bytes_read)
            self._say()

    def all(self, *, before: bool = False) -> None:
        """Count the shards that have been marked since."""
        found = [t for t in self._left.values() if self._parts.marker(t.number).exists()]
        for task in found:
            self._count(task, 0 if before else self._parts.result(task.number).bytes_read)
        if found or before:
            self._say()

    def _count(self, task: ShardTask, bytes_read: int) -> None:
        del self._left[task.number]
        self.seen.add(task.number)
        self._done += (task.stop - task.start) * self._periods[task.chunk]
        self._bytes += bytes_read

    def _say(self) -> None:
        if self._tell is not None:
            seconds = time.monotonic() - self._start
            self._tell(CubeProgress(self._done, self._total, self._bytes, seconds))


def _with_hrefs(failures: list[Failure], spec: CubeSpec) -> list[Failure]:
    """Name scenes by where they are; the store itself keeps names without their folder."""
    return [
        Failure(f.stage, f.kind, spec.hrefs.get(f.subject, f.subject), f.reason, f.detail, f.period)
        if f.kind == "scene" else f
        for f in failures
    ]  # fmt: skip


def _check_share(max_failed: float) -> None:
    if not 0.0 <= max_failed <= 1.0:
        raise IngestError(
            f"max_failed is {max_failed!r}.",
            cause="It is a share.",
            next_step="Give a number from 0 to 1.",
        )


def _check_failed(cube: xr.Dataset, max_failed: float) -> None:
    status = np.asarray(cube["status"].values)
    failed = status >= ChipStatus.NODATA_ONLY
    share = float(failed.mean())
    if share <= max_failed and not failed.all():
        return
    step = "the places may lie outside the scenes or the periods hold none."
    if not failed.all():
        step += " Raise max_failed to go on anyway."
    counts = {ChipStatus(int(c)).name.lower(): int((status == c).sum()) for c in np.unique(status)}
    raise TooManyFailuresError(
        f"{int(failed.sum())} of {failed.size} chips have no valid pixel ({share:.0%}).",
        cause=f"At most {max_failed:.0%} may fail, and never all; the chips are {counts}.",
        next_step=f"Look at the ledger; {step}",
    )
