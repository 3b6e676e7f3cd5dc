"""Tiles of a cube, one after another or on workers of dask.distributed, kept as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from zipfile import BadZipFile

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from eocausal.errors import EstimationError
from eocausal.estimators.impact_map_grid import MapGrid
from eocausal.estimators.impact_map_tiles import MapTask, TileEffects, fit_tile
from eocausal.provenance import atomic_path

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Progress", "TileJob", "run_jobs", "tiles_of"]

Window = tuple[slice, slice]
AHEAD = 2  # tiles handed out to each worker


class Progress(Protocol):
    """Told how many tiles are done of how many, and how long the rest may take."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Take note."""


@dataclass(frozen=True, slots=True, eq=False)
class TileJob:
    """A tile to be fitted, and where what is found is kept.

    Attributes
    ----------
    values
        (time, rows, columns), not read yet.
    left_out, weights, looks
        See :func:`~eocausal.estimators.impact_map_tiles.fit_tile`.
    store
        File of a tile that was done, taken if values and task are the same; or None.
    """

    values: xr.DataArray
    task: MapTask
    left_out: NDArray[np.int8]
    weights: NDArray[np.float64]
    looks: xr.DataArray | None = None
    store: Path | None = None

    def __call__(self) -> TileEffects:
        """Fit the tile, or read what was found."""
        if self.store is None:
            return fit_tile(self.values, self.task, self.left_out, self.weights, self.looks)
        import dask

        with dask.config.set(scheduler="synchronous"):
            values = self.values.compute()
            looks = None if self.looks is None else self.looks.compute()
        key = self._key(values, looks)
        kept = _read_tile(self.store, key)
        if kept is None:
            kept = fit_tile(values, self.task, self.left_out, self.weights, looks)
            with atomic_path(self.store) as temporary, temporary.open("wb") as sink:
                parts = {f.name: getattr(kept, f.name) for f in fields(kept)}
                np.savez(sink, key=np.array(key), **parts)
        return kept

    def _key(self, values: xr.DataArray, looks: xr.DataArray | None) -> str:
        task = self.task
        asked = (task.model, task.level, task.least, task.look_share)
        parts: list[bytes] = [repr(asked).encode()]
        count = None if looks is None else looks.to_numpy()
        for array in (
            values.to_numpy(), count, self.left_out, self.weights, task.place, task.before,
            task.after, task.controls, task.variance,
        ):  # fmt: skip
            known = np.zeros(0) if array is None else np.ascontiguousarray(array)
            parts += [str((known.shape, known.dtype)).encode(), known.tobytes()]
        return sha256(b"".join(parts)).hexdigest()


def _read_tile(path: Path, key: str) -> TileEffects | None:
    try:
        with np.load(path) as kept:
            if str(kept["key"]) != key:
                return None
            return TileEffects(**{f.name: kept[f.name] for f in fields(TileEffects)})
    except (OSError, KeyError, ValueError, BadZipFile):
        return None


def tiles_of(cube: xr.DataArray, grid: MapGrid, pixels: int) -> list[Window]:
    """Cut a cube into tiles of about so many pixels, along its chunks where it has some."""
    height, width = grid.shape
    chunks = {str(k): int(max(v)) for k, v in cube.chunksizes.items()} or {
        str(k): int(v) for k, v in dict(cube.encoding.get("preferred_chunks", {})).items()
    }
    rows, columns = chunks.get(grid.rows, 1), chunks.get(grid.columns, width)
    columns = max(min(columns * max(pixels // (rows * columns), 1), width), 1)
    if columns > pixels:
        columns = pixels
    if rows * columns > 2 * pixels:
        rows = max(pixels // columns, 1)
    else:
        rows *= max(pixels // (rows * columns), 1)
    return [
        (slice(top, min(top + rows, height)), slice(left, min(left + columns, width)))
        for top in range(0, height, rows)
        for left in range(0, width, columns)
    ]


def run_jobs(
    jobs: Sequence[Callable[[], Any]],
    *,
    workers: int = 1,
    client: Client | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[int, Any]]:
    """Run jobs, and yield place and result of each as it comes.

    Parameters
    ----------
    workers
        Processes on this machine, one thread each; one is this process.
    client
        A client of dask.distributed whose workers do it instead.
    """
    begin = time.monotonic()
    if progress is not None:
        progress(0, len(jobs))
    if client is None and workers == 1:
        found: Iterator[tuple[int, Any]] = ((at, job()) for at, job in enumerate(jobs))
        yield from _told(found, len(jobs), begin, progress)
        return
    with _client(workers, client) as active:
        yield from _told(_on_client(jobs, active), len(jobs), begin, progress)


def _told(
    found: Iterator[tuple[int, Any]], total: int, begin: float, progress: Progress | None
) -> Iterator[tuple[int, Any]]:
    for done, item in enumerate(found, start=1):
        yield item
        if progress is not None:
            left = (time.monotonic() - begin) / done * (total - done)
            progress(done, total, _words(left) if done < total else "")


def _words(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(round(seconds), 1)} s left"
    return f"about {round(seconds / 60)} min left"


@contextmanager
def _client(workers: int, client: Client | None) -> Iterator[Client]:
    if client is not None:
        yield client
        return
    if workers < 1:
        raise EstimationError(
            f"{workers} workers were asked for.",
            cause="It takes at least one.",
            next_step="Give a number of processes, or a client of dask.distributed.",
        )
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, memory_limit=0,
            dashboard_address="127.0.0.1:0", scheduler_kwargs={"dashboard": False},
            host="127.0.0.1",
        ) as cluster,
        Client(cluster) as own,
    ):  # fmt: skip
        yield own


def _on_client(jobs: Sequence[Callable[[], Any]], client: Client) -> Iterator[tuple[int, Any]]:
    """Keep every worker busy without handing out all jobs at once."""
    from distributed import as_completed

    window = AHEAD * max(len(client.scheduler_info(n_workers=-1)["workers"]), 1)
    waiting = iter(enumerate(jobs))
    running: dict[Any, int] = {}

    def hand_out() -> Any:
        at, job = next(waiting, (None, None))
        if at is None or job is None:
            return None
        future = client.submit(_call, _Sealed(job), pure=False, retries=2)
        running[future] = at
        return future

    try:
        first = [future for future in (hand_out() for _ in range(window)) if future is not None]
        coming = as_completed(first)
        for future in coming:
            result, at = future.result(), running.pop(future)
            following = hand_out()
            if following is not None:
                coming.add(following)
            yield at, result
    finally:
        client.cancel(list(running))


@dataclass(frozen=True, slots=True, eq=False)
class _Sealed:
    """A job with its lazy cube inside, which the worker is to read, not the scheduler."""

    job: Callable[[], Any]


def _call(sealed: _Sealed) -> Any:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1):
        return sealed.job()
