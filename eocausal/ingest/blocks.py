"""Decoded blocks, each made once and kept exactly as long as a chip still needs it.

Which batch of chips needs which block is known before the first is read. A block is dropped after
its last use; where the budget of memory is reached before, the one whose next use is farthest in
the future goes first, which no other rule can better (Belady 1966, IBM Systems Journal 5(2)).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Block", "BlockCache", "Key", "units_of"]

Key = tuple[int, int, int]
"""Class of grids, row and column of a unit in it."""
_NEVER: Final = 2**62
_SPARE_BYTES: Final = 48 * 2**20


@dataclass(slots=True)
class Block:
    """Pixels of one unit of one asset: shape (band, height, width), and where they are known.

    ``broken`` lists rows, columns and message of the stored blocks that could not be read;
    ``corner`` is the row and column of the unit at which the pixels begin. ``users`` copy from it
    now; when they have done, one that is ``dropped`` and ``whole`` gives its memory to the next.
    """

    values: NDArray[Any]
    known: NDArray[np.bool_] | None
    broken: tuple[tuple[slice, slice, str], ...] = ()
    corner: tuple[int, int] = (0, 0)
    users: int = 0
    dropped: bool = False
    whole: bool = True

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        return self.values.nbytes + (0 if self.known is None else self.known.nbytes)

    def holds(self, box: tuple[int, int, int, int]) -> bool:
        """Whether rows and columns (first row, first column, last row, last column) are in it."""
        row, col = self.corner
        high, wide = self.values.shape[1:]
        return row <= box[0] and col <= box[1] and box[2] <= row + high and box[3] <= col + wide

    def cut(self, box: tuple[int, int, int, int]) -> Block:
        """Keep the box alone, if that is at most half of it and none of it is broken."""
        high, wide = self.values.shape[1:]
        area = (box[2] - box[0]) * (box[3] - box[1])
        if 2 * area > high * wide or self.broken or not self.holds(box):
            return self
        rows = slice(box[0] - self.corner[0], box[2] - self.corner[0])
        cols = slice(box[1] - self.corner[1], box[3] - self.corner[1])
        known = None if self.known is None else self.known[:, rows, cols].copy()
        pixels = self.values[:, rows, cols].copy()
        return Block(pixels, known, (), (box[0], box[1]), whole=False)


def units_of(
    grid: NDArray[np.intp], box: NDArray[np.int64], unit: NDArray[np.int64]
) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """List the units under boxes.

    Parameters
    ----------
    grid
        Class of each of n boxes.
    box
        First column and row, last column and row (exclusive), shape (n, 4).
    unit
        Height and width of the units of each class, shape (classes, 2).

    Returns
    -------
    which
        Position of the box, shape (m,).
    key
        Class, unit row and unit column, shape (m, 3).
    """
    height, width = unit[grid].T
    first_col, last_col = box[:, 0] // width, (box[:, 2] - 1) // width
    first_row, last_row = box[:, 1] // height, (box[:, 3] - 1) // height
    across, down = last_col - first_col + 1, last_row - first_row + 1
    count = across * down
    which = np.repeat(np.arange(len(grid)), count)
    place = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    row = first_row[which] + place // across[which]
    col = first_col[which] + place % across[which]
    return which, np.column_stack([grid[which], row, col]).astype(np.int64)


@dataclass(slots=True)
class _Kept:
    """What is in memory of one unit, and the part of it that each batch still needs."""

    blocks: dict[int, Block] = field(default_factory=dict)
    boxes: dict[int, tuple[int, int, int, int]] = field(default_factory=dict)

    @property
    def next_use(self) -> int:
        return next(iter(self.boxes), _NEVER)

    def needed(self, batch: int) -> tuple[int, int, int, int] | None:
        """Rows and columns that batches other than this one need; None if none does."""
        boxes = [box for k, box in self.boxes.items() if k != batch]
        if not boxes:
            return None
        rows, cols, last_rows, last_cols = zip(*boxes, strict=True)
        return min(rows), min(cols), max(last_rows), max(last_cols)


@dataclass(slots=True)
class _Making:
    """A block that one thread decodes, and how many others wait for it."""

    future: Future[Block] = field(default_factory=Future)
    waiting: int = 0


class BlockCache:
    """Blocks shared by the threads of one process.

    A block whose remaining uses lie within half of it is cut down to that part: of a block that a
    sweep has passed, only the edge that later chips straddle stays in memory.

    Parameters
    ----------
    budget
        Bytes of pixels to keep.
    uses
        Every use planned: class, unit row, unit column, batch, and the rows and columns (first
        row, first column, last row, last column, exclusive) within the unit; shape (m, 8).
    """

    def __init__(self, budget: int, uses: NDArray[np.int64]) -> None:
        self._budget = budget
        self._lock = threading.Lock()
        self._units: dict[Key, _Kept] = {}
        self._making: dict[tuple[Key, int], _Making] = {}
        self._spare: dict[tuple[tuple[int, ...], np.dtype[Any]], list[NDArray[Any]]] = {}
        self._spare_bytes = 0
        self._held = 0
        for a, b, c, batch, *box in uses[np.argsort(uses[:, 3], kind="stable")].tolist():
            boxes = self._units.setdefault((a, b, c), _Kept()).boxes
            old = boxes.get(batch, box)
            boxes[batch] = (min(old[0], box[0]), min(old[1], box[1]),
                            max(old[2], box[2]), max(old[3], box[3]))  # fmt: skip

    def get(
        self, key: Key, asset: int, box: tuple[int, int, int, int], make: Callable[[], Block]
    ) -> Block:
        """Return a block that holds ``box``; ``make`` decodes it where no thread has it.

        It must be given back by :meth:`release`.

        Raises
        ------
        OSError
            What ``make`` raised; the next call tries again.
        """
        with self._lock:
            unit = self._units.setdefault(key, _Kept())
            held = unit.blocks.get(asset)
            if held is not None and held.holds(box):
                held.users += 1
                return held
            making = self._making.get((key, asset))
            if making is not None:
                making.waiting += 1
            else:
                mine = self._making[key, asset] = _Making()
        if making is not None:
            return making.future.result()
        try:
            block = make()
        except BaseException as error:
            with self._lock:
                del self._making[key, asset]
            mine.future.set_exception(error)
            raise
        with self._lock:
            del self._making[key, asset]
            block.users = 1 + mine.waiting
            if unit.boxes:
                self._keep(unit, asset, block)
            else:
                block.dropped = True
        mine.future.set_result(block)
        return block

    def release(self, block: Block, key: Key, asset: int, batch: int) -> None:
        """Say that a batch has copied all it needs of a block."""
        with self._lock:
            block.users -= 1
            unit = self._units.get(key)
            if block.dropped:
                self._recycle(block)
            elif unit is not None and not block.users and unit.blocks.get(asset) is block:
                self._trim(unit, asset, block, batch)

    def spare(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Give memory for a block: that of one not needed any more, which costs no page faults."""
        with self._lock:
            if self._spare.get((shape, dtype)):
                found = self._spare[shape, dtype].pop()
                self._spare_bytes -= found.nbytes
                return found
        return np.empty(shape, dtype=dtype)

    def done(self, batch: int, keys: Sequence[Key]) -> None:
        """Say that a batch is made."""
        with self._lock:
            for key in keys:
                unit = self._units.get(key)
                if unit is None:
                    continue
                unit.boxes.pop(batch, None)
                for asset, block in list(unit.blocks.items()):
                    self._trim(unit, asset, block, batch)
                if not unit.boxes:
                    del self._units[key]

    def _keep(self, unit: _Kept, asset: int, block: Block) -> None:
        before = unit.blocks.pop(asset, None)
        if before is not None:
            self._drop(before)
        self._held += block.nbytes
        unit.blocks[asset] = block
        while self._held > self._budget:
            farthest = max((u for u in self._units.values() if u.blocks), key=lambda u: u.next_use)
            self._drop(farthest.blocks.popitem()[1])

    def _trim(self, unit: _Kept, asset: int, block: Block, batch: int) -> None:
        """Keep of a block what batches other than this one need."""
        box = unit.needed(batch)
        smaller = None if box is None else block.cut(box)
        if smaller is block:
            return
        if smaller is None:
            del unit.blocks[asset]
        else:
            unit.blocks[asset] = smaller
            self._held += smaller.nbytes
        self._drop(block)

    def _drop(self, block: Block) -> None:
        self._held -= block.nbytes
        block.dropped = True
        self._recycle(block)

    def _recycle(self, block: Block) -> None:
        values = block.values
        if block.users or not (block.whole and values.flags.owndata):
            return
        if self._spare_bytes + values.nbytes <= _SPARE_BYTES:
            self._spare.setdefault((values.shape, values.dtype), []).append(values)
            self._spare_bytes += values.nbytes
