"""Decoded blocks, each made once and kept exactly as long as a chip still needs it.

Which batch of chips needs which block is known before the first is read. A block is dropped after
its last use; where the budget of memory is reached before, the one whose next use is farthest in
the future goes first, which no other rule can better (Belady 1966, IBM Systems Journal 5(2)).
"""

from __future__ import annotations

import threading
from collections import deque
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


@dataclass(frozen=True, slots=True)
class Block:
    """Pixels of one unit of one asset: shape (band, height, width), and where they are known.

    ``broken`` lists rows, columns and message of the stored blocks that could not be read.
    """

    values: NDArray[Any]
    known: NDArray[np.bool_] | None
    broken: tuple[tuple[slice, slice, str], ...] = ()

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        return self.values.nbytes + (0 if self.known is None else self.known.nbytes)


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
    """What is in memory of one unit, and the batches that still need it."""

    blocks: dict[int, Block] = field(default_factory=dict)
    batches: deque[int] = field(default_factory=deque)

    @property
    def next_use(self) -> int:
        return self.batches[0] if self.batches else _NEVER


class BlockCache:
    """Blocks shared by the threads of one process.

    Parameters
    ----------
    budget
        Bytes of pixels to keep.
    keys, batches
        Every unit needed, shape (m, 3), and the number of the batch that needs it, shape (m,).
    """

    def __init__(self, budget: int, keys: NDArray[np.int64], batches: NDArray[np.int64]) -> None:
        self._budget = budget
        self._lock = threading.Lock()
        self._units: dict[Key, _Kept] = {}
        self._making: dict[tuple[Key, int], Future[Block]] = {}
        self._held = 0
        order = np.lexsort((batches, *keys.T[::-1]))
        for (a, b, c), batch in zip(keys[order].tolist(), batches[order].tolist(), strict=True):
            uses = self._units.setdefault((a, b, c), _Kept()).batches
            if not uses or uses[-1] != batch:
                uses.append(batch)

    def get(self, key: Key, asset: int, make: Callable[[], Block]) -> Block:
        """Return a block; ``make`` decodes it where no thread has done so yet.

        Raises
        ------
        OSError
            What ``make`` raised; the next call tries again.
        """
        with self._lock:
            unit = self._units.setdefault(key, _Kept())
            if asset in unit.blocks:
                return unit.blocks[asset]
            waiting = self._making.get((key, asset))
            if waiting is None:
                mine: Future[Block] = Future()
                self._making[key, asset] = mine
        if waiting is not None:
            return waiting.result()
        try:
            block = make()
        except BaseException as error:
            with self._lock:
                del self._making[key, asset]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._making[key, asset]
            if unit.batches:
                unit.blocks[asset] = block
                self._held += block.nbytes
                self._shrink()
        mine.set_result(block)
        return block

    def done(self, batch: int, keys: Sequence[Key]) -> None:
        """Say that a batch needs its units no more."""
        with self._lock:
            for key in keys:
                unit = self._units.get(key)
                if unit is None:
                    continue
                if batch in unit.batches:
                    unit.batches.remove(batch)
                if not unit.batches:
                    self._drop(unit)
                    del self._units[key]

    def _drop(self, unit: _Kept) -> None:
        self._held -= sum(b.nbytes for b in unit.blocks.values())
        unit.blocks.clear()

    def _shrink(self) -> None:
        while self._held > self._budget:
            full = [u for u in self._units.values() if u.blocks]
            farthest = max(full, key=lambda u: u.next_use)
            _, block = farthest.blocks.popitem()
            self._held -= block.nbytes
