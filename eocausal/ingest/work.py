"""Pieces of work: some shards of one chunk of periods, made by threads that share blocks."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import rasterio
from numpy.typing import NDArray

from eocausal.errors import CubeError
from eocausal.ingest.blocks import BlockCache, Key, units_of
from eocausal.ingest.bundles import Source, bundle_up
from eocausal.ingest.chips import Made
from eocausal.ingest.gather import Batch, gather_batch, stored_as_is
from eocausal.ingest.grid import ChipGrids
from eocausal.ingest.grid_files import close_idle
from eocausal.ingest.match import Touches
from eocausal.ingest.readers import ReaderPool
from eocausal.ingest.remote import Sign
from eocausal.ingest.shards import ShardWriter
from eocausal.ingest.spec import CubeSpec
from eocausal.ingest.store import Parts, ShardResult

__all__ = ["ShardTask", "ShardWork", "cut_work", "shard_tasks"]

_BATCH_BYTES: Final = 32 * 2**20
_MOST_CHIPS: Final = 64
_GDAL_CACHE: Final = 32 * 2**20


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One shard: its number, its chips in the store, its chunk of periods."""

    number: int
    start: int
    stop: int
    chunk: int


@dataclass(frozen=True, slots=True)
class ShardWork:
    """Shards to make; calling it makes those that are not done yet.

    ``chips`` and ``pairs`` are those of the shards alone, one shard after another.
    """

    parts: Parts
    tasks: tuple[ShardTask, ...]
    chips: ChipGrids
    pairs: Touches
    source: Source
    length: int
    chunk: int
    memory: int
    threads: int
    sign: Sign | None = None
    done: Callable[[ShardTask, ShardResult], None] | None = None

    def __call__(self) -> int:
        """Make the shards; return the number of chips.

        The GDAL cache is kept small: decoded blocks live in ours, which knows when each is
        needed again.
        """
        starts = np.cumsum([0, *(t.stop - t.start for t in self.tasks)])
        left = [k for k, t in enumerate(self.tasks) if not self.parts.marker(t.number).exists()]
        batches = list(self._batches(left, starts))
        uses = self._uses(batches)
        cache = BlockCache(self.memory, uses)
        own: dict[int, list[Key]] = {}
        for a, b, c, number, *_ in uses.tolist():
            own.setdefault(number, []).append((a, b, c))
        sizes = Counter(k for k, _, _ in batches)
        first = {k: number for k, number, _ in reversed(batches)}
        shards = {k: _Shard(self, self.tasks[k], sizes[k], first[k]) for k in left}
        queue, lock, stop = iter(batches), threading.Lock(), threading.Event()

        def worker() -> None:
            with rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE):
                pool = ReaderPool(self.sign)
                try:
                    while not stop.is_set():
                        with lock:
                            k, number, rows = next(queue, (-1, -1, starts))
                        if k < 0:
                            return
                        before = pool.bytes_read
                        batch = self._batch(number, rows)
                        made = [
                            (shards[k].encode(m), m)
                            for m in gather_batch(self.source, batch, cache, pool)
                        ]
                        shards[k].take(number, made, pool.bytes_read - before)
                        cache.done(number, own.get(number, ()))
                except BaseException:
                    stop.set()
                    raise
                finally:
                    pool.close()

        try:
            _in_threads(worker, max(1, min(self.threads, len(batches))), stop)
        finally:
            for shard in shards.values():
                shard.drop()
            if any(a.step is not None for a in self.source.assets.values()):
                close_idle()
        return int(starts[-1])

    def _batches(
        self, left: list[int], starts: NDArray[np.int64]
    ) -> Iterator[tuple[int, int, NDArray[np.intp]]]:
        """Shard, number and chips (positions in ``chips``) of each batch."""
        weight = self._weights()
        number = 0
        for k in left:
            rows = np.arange(starts[k], starts[k + 1])
            total = np.cumsum(weight[rows])
            first = 0
            while first < len(rows):
                before = total[first - 1] if first else 0.0
                last = int(np.searchsorted(total, before + _BATCH_BYTES, side="right"))
                last = min(max(last, first + 1), first + _MOST_CHIPS, len(rows))
                yield k, number, rows[first:last]
                number, first = number + 1, last

    def _weights(self) -> NDArray[np.float64]:
        """About the bytes that the looks at each chip take while it is made."""
        size = self.chips.size**2
        most = max(self.source.classes, default=0) + 1
        layers, stacked = np.zeros(most), np.zeros(most)
        for k, bundles in self.source.bundles.items():
            layers[k] = sum(len(b.look) for b in bundles)
            stacked[k] = sum(len(b.look) * b.dtype.itemsize for b in bundles)
        box, grid = self.pairs.box, self.pairs.grid
        values = 0.0 if stored_as_is(self.source) else 4.0
        area = ((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])).astype(float)
        bytes_of = stacked[grid] * np.minimum(area, 16.0 * size) + layers[grid] * values * size
        found = np.bincount(self.pairs.chip, weights=bytes_of, minlength=len(self.chips))
        return np.asarray(1.0 + found, dtype=np.float64)

    def _uses(self, batches: list[tuple[int, int, NDArray[np.intp]]]) -> NDArray[np.int64]:
        """List which batch needs which part of which unit; see :class:`BlockCache`."""
        batch_of = np.full(len(self.chips), -1, dtype=np.int64)
        for _, number, rows in batches:
            batch_of[rows] = number
        most = max(self.source.classes, default=0) + 1
        unit = np.ones((most, 2), dtype=np.int64)
        for k, one in self.source.classes.items():
            unit[k] = one.unit
        pairs = self.pairs.keep(batch_of[self.pairs.chip] >= 0)
        which, keys = units_of(pairs.grid, pairs.box, unit)
        high, wide = unit[keys[:, 0]].T
        box, zero = pairs.box[which], np.zeros(len(which), dtype=np.int64)
        top, left = keys[:, 1] * high, keys[:, 2] * wide
        part = np.column_stack([
            np.maximum(box[:, 1] - top, zero), np.maximum(box[:, 0] - left, zero),
            np.minimum(box[:, 3] - top, high), np.minimum(box[:, 2] - left, wide),
        ])  # fmt: skip
        numbers = batch_of[pairs.chip[which]]
        order = np.lexsort((*keys.T[::-1], numbers))
        head = np.column_stack([keys, numbers])[order]
        if not len(head):
            return np.empty((0, 8), dtype=np.int64)
        first = np.flatnonzero(np.r_[True, (np.diff(head, axis=0) != 0).any(axis=1)])
        low = np.minimum.reduceat(part[order, :2], first)
        top_of = np.maximum.reduceat(part[order, 2:], first)
        return np.hstack([head[first], low, top_of])

    def _batch(self, number: int, rows: NDArray[np.intp]) -> Batch:
        low, high = np.searchsorted(self.pairs.chip, [rows[0], rows[-1] + 1])
        chip, grid = self.pairs.chip[low:high] - rows[0], self.pairs.grid[low:high]
        touching = {int(g): chip[grid == g] for g in np.unique(grid)}
        return Batch(number, self.chips.take(rows), touching)


class _Shard:
    """One shard while threads make its batches, which are written in their order."""

    def __init__(self, work: ShardWork, task: ShardTask, batches: int, first: int) -> None:
        path = work.parts.store / "image" / "c" / str(task.start // work.length)
        self._writer = ShardWriter(path / str(task.chunk) / "0" / "0" / "0", work.length)
        self._work, self._task = work, task
        self._left = batches
        self._next = first
        self._place = task.start
        self._waiting: dict[int, list[tuple[bytes | None, Made]]] = {}
        self._lock = threading.Lock()
        self._result = ShardResult()
        self._used: list[set[str]] = [set() for _ in work.source.members]

    def encode(self, made: Made) -> bytes | None:
        """Compress one chip; None if it has no valid pixel."""
        if not any(made.looks):
            return None
        stored, short = made.stored, self._work.chunk - len(made.stored)
        if short:
            fill = self._work.source.packing.fill
            stored = np.pad(stored, ((0, short), *[(0, 0)] * 3), constant_values=fill)
        return self._writer.encode(stored)

    def take(self, number: int, made: list[tuple[bytes | None, Made]], bytes_read: int) -> None:
        """Take the chips of a batch, and write what has come in order.

        A worker of a cluster may outlive the build that sent it. It must not write into the next.
        """
        if not self._work.parts.current():
            raise CubeError(
                f"A worker does not find the build of {self._work.parts.out} that sent it work.",
                cause="It does not see that folder under this path, or the build was interrupted "
                "and another began or ended since.",
                next_step="Give a folder that all workers see; a rerun goes on where it was.",
            )
        with self._lock:
            self._waiting[number] = made
            self._result.bytes_read += bytes_read
            while self._next in self._waiting:
                for encoded, chip in self._waiting.pop(self._next):
                    self._writer.add(encoded)
                    _record(self._result, self._used, chip, self._place)
                    self._place += 1
                self._next += 1
                self._left -= 1
            if self._left:
                return
            self._writer.close()
            self._result.used = [sorted(dates) for dates in self._used]
            marker = self._work.parts.marker(self._task.number)
            temporary = marker.with_name(f"{marker.name}.{os.getpid()}.tmp")
            temporary.write_text(
                json.dumps({f.name: getattr(self._result, f.name) for f in fields(ShardResult)}),
                encoding="utf-8",
            )
            os.replace(temporary, marker)
        if self._work.done is not None:
            self._work.done(self._task, self._result)

    def drop(self) -> None:
        """Leave nothing of a shard that is not whole."""
        self._writer.drop()


def _in_threads(worker: Callable[[], None], count: int, stop: threading.Event) -> None:
    if count == 1:
        worker()
        return
    with ThreadPoolExecutor(count) as threads:
        futures = [threads.submit(worker) for _ in range(count)]
        try:
            for future in futures:
                future.result()
        except BaseException:
            stop.set()
            raise


def _record(result: ShardResult, used: list[set[str]], made: Made, chip: int) -> None:
    result.valid.append(made.valid)
    result.status.append(made.status)
    result.looks.append(made.looks)
    result.day.append([None if d != d else d for d in made.day])
    for dates, own in zip(used, made.used, strict=True):
        dates |= own
    result.failed += [(asset, chip, text) for asset, text in made.errors]


def shard_tasks(spec: CubeSpec, length: int) -> list[ShardTask]:
    """List the shards of a cube, chunk of periods by chunk of periods."""
    n, chunks = len(spec.chips), -(-len(spec.periods) // spec.chunk)
    starts = range(0, n, length)
    return [
        ShardTask(c * len(starts) + i, start, min(start + length, n), c)
        for c in range(chunks) for i, start in enumerate(starts)
    ]  # fmt: skip


def cut_work(
    spec: CubeSpec,
    parts: Parts,
    tasks: list[ShardTask],
    length: int,
    *,
    pieces: int,
    threads: int,
    memory: int,
    sign: Sign | None = None,
    done: Callable[[ShardTask, ShardResult], None] | None = None,
) -> list[ShardWork]:
    """Cut shards into at least ``pieces`` pieces of work, each within one chunk of periods."""
    work = []
    chunks = sorted({t.chunk for t in tasks})
    for chunk in chunks:
        own = [t for t in tasks if t.chunk == chunk]
        source = _source(spec, chunk)
        share = max(1, -(-pieces // len(chunks)))
        for group in np.array_split(np.arange(len(own)), min(share, len(own))):
            chosen = tuple(own[int(k)] for k in group)
            rows = np.concatenate([np.arange(t.start, t.stop) for t in chosen])
            pairs = _pairs_of(spec.pairs, rows)
            pairs = pairs.keep(np.isin(pairs.grid, list(source.bundles)))
            work.append(
                ShardWork(parts, chosen, spec.chips.take(rows), pairs, _narrow(source, pairs),
                          length, spec.chunk, memory, threads, sign, done)
            )  # fmt: skip
    return work


def _pairs_of(pairs: Touches, rows: NDArray[np.intp]) -> Touches:
    low = np.searchsorted(pairs.chip, rows)
    count = np.searchsorted(pairs.chip, rows + 1) - low
    which = np.repeat(low - np.cumsum(count) + count, count) + np.arange(count.sum())
    return Touches(np.repeat(np.arange(len(rows)), count), pairs.grid[which], pairs.box[which])


def _source(spec: CubeSpec, chunk: int) -> Source:
    members = spec.members[chunk * spec.chunk : (chunk + 1) * spec.chunk]
    looks = np.unique([k for m in members for k in m]).astype(np.int32)
    layers = spec.layers.of(np.isin(spec.layers.look, looks))
    assets = {int(a): spec.assets[a] for a in np.unique(layers.asset)}
    bundles = bundle_up(layers, spec.asset_class, assets, len(spec.recipe.inputs))
    classes = {k: spec.classes[k] for k in bundles}
    own = {int(k): spec.looks[k] for k in looks}
    return Source(spec.recipe, spec.packing, classes, assets, own, members, bundles)


def _narrow(source: Source, pairs: Touches) -> Source:
    """Leave out the grids, and what belongs to them, that no chip touches."""
    here = set(np.unique(pairs.grid).tolist())
    bundles = {k: v for k, v in source.bundles.items() if k in here}
    assets = {a for v in bundles.values() for b in v for a, _, _ in b.assets}
    return Source(
        recipe=source.recipe,
        packing=source.packing,
        classes={k: v for k, v in source.classes.items() if k in bundles},
        assets={k: v for k, v in source.assets.items() if k in assets},
        looks=source.looks,
        members=source.members,
        bundles=bundles,
    )
