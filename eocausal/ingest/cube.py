"""Neighborhoods and scenes become a cube: one chip per neighborhood, period and band."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import geopandas as gpd
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from eocausal.contracts import ChipStatus
from eocausal.errors import CubeError, IngestError, TooManyFailuresError
from eocausal.ingest.gather import ShardJob, ShardResult
from eocausal.ingest.resample import Bilinear, Resampling
from eocausal.ingest.spec import CubeSpec, specify
from eocausal.ingest.store import (
    Parts,
    open_cube,
    read_failures,
    shard_length,
    stored_key,
    write_shard,
)
from eocausal.ingest.times import ALL, parse_period
from eocausal.provenance import Failure, FailureLedger, hash_json

__all__ = ["build_cube"]

_FORMAT: Final = 1
_WHOLE_FILE: Final = 64 * 2**20
_EDGE: Final = 2**20


def build_cube(
    neighborhoods: gpd.GeoDataFrame,
    scenes: gpd.GeoDataFrame,
    *,
    bands: Sequence[str],
    resolution: float,
    out: str | Path,
    size: int | None = None,
    periods: Sequence[str] | None = None,
    crs: str | None = None,
    resampling: Resampling | None = None,
    mask_band: str | None = None,
    max_failed: float = 0.5,
    ledger: FailureLedger | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 2,
    units: str = "DN",
) -> xr.Dataset:
    """Cut one chip per neighborhood and period out of the scenes, into a Zarr store.

    Each chip is centred exactly on its neighborhood, north up, in the neighborhood's UTM zone
    (or ``crs``). Where several scenes of a period cover a pixel it is the median of the valid
    ones. A build that was killed goes on where it stopped; one that is already there for the
    same parameters and files is opened without work.

    Parameters
    ----------
    neighborhoods
        See :func:`eocausal.read_neighborhoods`.
    scenes
        See :func:`eocausal.scan`. A column ``neighborhood``, where present and not empty, ties
        a scene to that one neighborhood.
    bands
        Names of the bands, in the order wanted. A scene that lacks one is left out and recorded.
    resolution
        Pixel size in units of the chips' CRS (metres for UTM).
    out
        Folder of the Zarr store. It appears whole or not at all; an older cube is replaced.
    size
        Pixels per side; by default from ``size_m`` or the widest polygon.
    periods
        Labels ``'2010'``, ``'2010-05'``, ``'1999/2001'``, ``'2010-03-01/2010-05-31'`` or
        ``'all'`` (the default). A scene belongs to the periods that contain all of its date.
    crs
        One CRS for all chips instead of local ones.
    resampling
        ``Bilinear()`` (default) or ``Nearest()``.
    mask_band
        Name of a band that is nonzero where the pixel is clear.
    max_failed
        Share of chips that may have no valid pixel, over neighborhoods and periods.
    ledger
        Receives a row for each scene and chip that could not be used. A file given twice with
        the same date is used once (``duplicate``).
    progress
        Called with (chips done, chips in all) after every shard.
    workers
        Threads; ignored where a dask.distributed client is active, which then does the work.
        The bytes of the store do not depend on it.
    units
        What pixel values are after scale and offset, e.g. ``'DN'`` or ``'reflectance'``.

    Returns
    -------
    xarray.Dataset
        ``image`` (neighborhood, period, band, y, x) float32, NaN where invalid; ``valid``, the
        share of pixels valid in all bands; ``status`` (:class:`~eocausal.contracts.ChipStatus`).

    Raises
    ------
    BandError, SceneError, IngestError, CubeError, CRSError, GeometryError
    TooManyFailuresError
        After the store and the ledger are complete.
    """
    out = Path(out)
    method = resampling if resampling is not None else Bilinear()
    _check_share(max_failed)
    spec = specify(
        neighborhoods, scenes, bands, resolution, size, periods, crs=crs, mask_band=mask_band
    )
    key = _key(spec, method, units)
    if stored_key(out) != key:
        if out.exists() and stored_key(out) is None:
            raise CubeError(
                f"{out} exists and is not a cube.",
                cause="Building there would delete it.",
                next_step="Give another out=..., or remove it yourself.",
            )
        _build(spec, method, Parts(out, key), units, max(1, workers), progress)
    else:
        Parts(out, key).clear()
        if progress is not None:
            progress(len(spec.grids), len(spec.grids))
    if ledger is not None:
        ledger.rows.extend(_with_hrefs(read_failures(out), spec))
    cube = open_cube(out)
    _check_failed(cube, max_failed)
    return cube


def _fingerprint(href: str) -> str:
    """Hash a file and the mask beside it: bytes up to 64 MiB, else size, time and both ends."""
    path = Path(href)
    if not path.is_file():
        return href
    if Path(href + ".msk").is_file():
        return f"{_digest(path)} {_digest(Path(href + '.msk'))}"
    return _digest(path)


def _digest(path: Path) -> str:
    stat = path.stat()
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        if stat.st_size <= _WHOLE_FILE:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
        digest.update(stream.read(_EDGE))
        stream.seek(-_EDGE, os.SEEK_END)
        digest.update(stream.read(_EDGE))
    return digest.hexdigest()


def _key(spec: CubeSpec, method: Resampling, units: str) -> str:
    return hash_json(
        {
            "format": _FORMAT,
            "neighborhoods": spec.labels.tolist(),
            "grids": [(g.crs, g.transform, g.size) for g in spec.grids],
            "scenes": [
                (s.name, _fingerprint(s.href), s.grid, s.indexes, s.mask_index, repr(s.nodata),
                 s.scales, s.offsets, s.start, s.date) for s in spec.scenes
            ],
            "feeds": hashlib.sha256(spec.pairs.chip.tobytes() + spec.pairs.scene.tobytes())
            .hexdigest(),
            "members": [sorted(m) for m in spec.members],
            "periods": spec.periods,
            "bands": spec.bands,
            "failures": list(spec.failures),
            "resampling": method,
            "units": units,
        }
    )  # fmt: skip


def _build(
    spec: CubeSpec,
    method: Resampling,
    parts: Parts,
    units: str,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    shape = (len(spec.grids), len(spec.periods), len(spec.bands), spec.size, spec.size)
    length = shard_length(shape[0], shape[1], shape[2], spec.size)
    parts.prepare(shape, length)
    jobs = _jobs(spec, method, parts, length)
    left = [job for job in jobs if not job.marker.exists()]
    done = shape[0] - sum(len(job.grids) for job in left)
    if progress is not None:
        progress(done, shape[0])
    _run(left, workers, lambda chips: progress(chips + done, shape[0]) if progress else None)
    results = [parts.result(job.index) for job in jobs]
    parts.finish(*_summary(spec, results, units))


def _jobs(spec: CubeSpec, method: Resampling, parts: Parts, length: int) -> list[ShardJob]:
    feeds = spec.pairs.by_chip(len(spec.grids))
    jobs = []
    for index, start in enumerate(range(0, len(spec.grids), length)):
        rows = range(start, min(start + length, len(spec.grids)))
        needed = sorted({s for r in rows for s in feeds[r]})
        jobs.append(
            ShardJob(
                store=parts.store,
                marker=parts.marker(index),
                index=index,
                start=start,
                grids=tuple(spec.grids[r] for r in rows),
                looks=tuple(
                    tuple(tuple(s for s in feeds[r] if s in m) for m in spec.members) for r in rows
                ),
                in_period=tuple(bool(m) for m in spec.members),
                scenes={s: spec.scenes[s] for s in needed},
                n_bands=len(spec.bands),
                resampling=method,
            )
        )
    return jobs


def _run(jobs: list[ShardJob], workers: int, tell: Callable[[int], object]) -> None:
    """Write the shards on dask: on the active distributed client, else on threads here."""
    import dask
    from dask.callbacks import Callback

    done = 0
    client = _active_client()
    if client is not None:
        from distributed import as_completed

        for future in as_completed(client.map(write_shard, jobs, pure=False)):
            done += future.result()
            tell(done)
        return

    def after(_key: object, chips: object, _graph: object, _state: object, _worker: object) -> None:
        nonlocal done
        if isinstance(chips, int):
            done += chips
            tell(done)

    with Callback(posttask=after):
        dask.compute(
            *(dask.delayed(write_shard, pure=False)(job) for job in jobs),
            scheduler="threads",
            num_workers=workers,
            optimize_graph=False,
        )


def _active_client() -> Any:
    if "distributed" not in sys.modules:
        return None
    from distributed import default_client

    try:
        return default_client()
    except ValueError:
        return None


def _summary(
    spec: CubeSpec, results: list[ShardResult], units: str
) -> tuple[dict[str, tuple[tuple[str, ...], NDArray[Any]]], dict[str, Any], list[Failure]]:
    """Everything in the store beside the image: arrays, attributes, failures."""
    per_place, per_period = ("neighborhood",), ("period",)
    both = per_place + per_period
    status = np.array([row for r in results for row in r.status], dtype=np.int8)
    used = [sorted({d for r in results for d in r.used[p]}) for p in range(len(spec.periods))]
    spans = [_span(spec, p) for p in range(len(spec.periods))]
    arrays: dict[str, tuple[tuple[str, ...], NDArray[Any]]] = {
        "valid": (both, np.array([v for r in results for v in r.valid], dtype=np.float32)),
        "status": (both, status),
        "neighborhood": (per_place, spec.labels),
        "period": (per_period, np.array(spec.periods, dtype=object)),
        "band": (("band",), np.array(spec.bands, dtype=object)),
        "crs": (per_place, np.array(spec.centres.crs, dtype=object)),
        "transform": ((*per_place, "affine"), np.array([g.transform for g in spec.grids])),
        "lon": (per_place, spec.centres.lon),
        "lat": (per_place, spec.centres.lat),
        "period_start": (per_period, np.array([s[0] for s in spans], dtype=object)),
        "period_end": (per_period, np.array([s[1] for s in spans], dtype=object)),
        "last_date": (per_period, np.array([_latest(d) for d in used], dtype=object)),
    }
    attrs = {
        "resolution": spec.resolution,
        "units": units,
        "sources": json.dumps([s.name for s in spec.scenes], ensure_ascii=False),
        "coordinates": "crs transform lon lat period_start period_end last_date",
    }
    return arrays, attrs, _failures(spec, results, status)


def _span(spec: CubeSpec, period: int) -> tuple[str, str]:
    label = spec.periods[period]
    if label != ALL:
        start, end = parse_period(label)
        return start.strftime("%Y-%m-%d"), end.strftime("%Y-%m-%d")
    scenes = [spec.scenes[s] for s in spec.members[period]]
    first, last = min(s.start for s in scenes), max(s.date for s in scenes)
    return (first, last) if first else ("", "")


def _latest(dates: list[str]) -> str:
    """Last of the dates; '' (unknown) if any image used has none."""
    return "" if not dates or dates[0] == "" else dates[-1]


_REASONS: Final = {
    ChipStatus.NODATA_ONLY: "Scenes cover it, but none has a valid pixel there.",
    ChipStatus.OUTSIDE: "No scene of the period covers it.",
    ChipStatus.NO_SOURCE: "The period has no scene.",
    ChipStatus.READ_ERROR: "A scene that covers it could not be read, and nothing else did.",
}


def _failures(
    spec: CubeSpec, results: list[ShardResult], status: NDArray[np.int8]
) -> list[Failure]:
    found = list(spec.failures)
    by_scene: dict[int, dict[int, str]] = {}
    for result in results:
        for scene, chip, text in result.failed:
            by_scene.setdefault(int(scene), {}).setdefault(int(chip), text)
    for scene, chips in sorted(by_scene.items()):
        first = chips[min(chips)]
        detail = f"Reading failed for {len(chips)} chips: {first}"
        found.append(Failure("cube", "scene", spec.scenes[scene].name, "read_error", detail))
    for chip, period in np.argwhere(status >= ChipStatus.NODATA_ONLY):
        code = ChipStatus(int(status[chip, period]))
        subject, label = str(spec.index[chip]), spec.periods[period]
        found.append(Failure("cube", "chip", subject, code.name.lower(), _REASONS[code], label))
    return found


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
