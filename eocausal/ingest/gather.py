"""From decoded blocks to the chips of a batch: every block once, windows copied into stacks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from eocausal.ingest.assets import Asset, Box
from eocausal.ingest.blocks import Block, BlockCache, Key
from eocausal.ingest.bundles import Bundle, Source
from eocausal.ingest.chips import Chip, Made, finish, slots_of, take_clear, take_stored, take_values
from eocausal.ingest.composites import Mean, Median
from eocausal.ingest.grid import ChipGrids
from eocausal.ingest.readers import ReaderPool
from eocausal.ingest.sampling import Piece, place_chips
from eocausal.ingest.spec import GridClass
from eocausal.ingest.stacks import Window, valid_pixels

__all__ = ["Batch", "gather_batch", "stored_as_is"]

_STACK_BYTES: Final = 96 * 2**20
_PLAIN: Final = ("int8", "uint8", "int16", "uint16", "float16", "float32")


@dataclass(frozen=True, slots=True)
class Batch:
    """Chips that are made together: their grids, and the chips that touch each class."""

    number: int
    chips: ChipGrids
    touching: dict[int, NDArray[np.intp]]


def gather_batch(
    source: Source, batch: Batch, cache: BlockCache, pool: ReaderPool
) -> Iterator[Made]:
    """Make the chips of a batch, in order.

    Every block is asked of ``cache``, which decodes it once. What a chip needs of all assets of
    a grid is copied into one stack, so that one sparse product resamples all dates and bands.
    """
    classes = [[] for _ in range(len(batch.chips))]  # type: list[list[int]]
    for one, rows in batch.touching.items():
        for row in rows.tolist():
            classes[row].append(one)
    looks_of = {one: source.looks_of(one) for one in batch.touching}
    chips = [Chip(tuple(sorted({k for one in own for k in looks_of[one]}))) for own in classes]
    simple = stored_as_is(source)
    for one in sorted(batch.touching):
        plain = {r for r in batch.touching[one].tolist() if simple and len(classes[r]) == 1}
        _gather_class(source, batch, one, chips, plain, cache, pool)
    for chip in chips:
        yield finish(source, chip, batch.chips.size)


def stored_as_is(source: Source) -> bool:
    """Whether a period has at most one look, stored as it is but for where it is sampled."""
    recipe = source.recipe
    if not source.packing.whole or recipe.masks or recipe.indices:
        return False
    every = [k for m in source.members for k in m]
    if len(set(every)) < len(every) or any(len(m) > 1 for m in source.members):
        return False
    return isinstance(recipe.composite, Median | Mean)


def _gather_class(
    source: Source,
    batch: Batch,
    one: int,
    chips: list[Chip],
    plain: set[int],
    cache: BlockCache,
    pool: ReaderPool,
) -> None:
    """Take all looks of one class of grids to the chips that touch it."""
    bundles = source.bundles.get(one, ())
    if not bundles:
        return
    rows = batch.touching[one]
    masks = source.recipe.masks
    n_inputs = len(source.recipe.inputs)
    targets = {t for b in bundles for t in np.unique(b.target).tolist()}
    margin = max((masks[t - n_inputs].reach for t in targets if t >= n_inputs), default=0)
    short = all(b.dtype.name in _PLAIN for b in bundles)
    grid = source.classes[one].grid
    placed = place_chips(
        batch.chips.take(rows), grid, source.recipe.resampling, margin=margin,
        precision=np.float32 if short else np.float64,
    )  # fmt: skip
    windows = [(int(r), p) for r, pieces in zip(rows, placed, strict=True) for p in pieces]
    if not windows:
        return
    feeds = _feeds(windows, source.classes[one])
    clear: dict[tuple[int, int], NDArray[np.bool_]] = {}
    for bundle in bundles:
        for group in _groups(bundle, windows):
            stacks = _read(source, one, group, windows, feeds, chips, batch.number, cache, pool)
            slots = slots_of(source, group) if plain else []
            looks = group.look[group.target < n_inputs].tolist()
            for place, window in enumerate(stacks):
                chip = chips[window.chip]
                valid = valid_pixels(group, window)
                if window.chip in plain and window.piece.pixels is None:
                    chip.covered.update(looks)
                    take_stored(source, group, chip, window, valid, slots, batch.chips.size)
                    continue
                take_clear(source, group, chip, window, valid, place, clear, batch.chips.size)
                take_values(source, group, chip, window, valid, place, clear, batch.chips.size)


def _groups(bundle: Bundle, windows: list[tuple[int, Piece]]) -> Iterator[Bundle]:
    """Split a bundle so that the stacks of one part fit in memory."""
    pixels = sum(p.box[2] * p.box[3] for _, p in windows)
    first = 0
    while first < len(bundle.assets):
        last, size = first, 0
        while last < len(bundle.assets):
            span = bundle.assets[last][2]
            size += (span.stop - span.start) * pixels * bundle.dtype.itemsize
            if size > _STACK_BYTES and last > first:
                break
            last += 1
        yield bundle if last - first == len(bundle.assets) else bundle.group(first, last)
        first = last


_Feed = tuple[int, tuple[slice, slice], tuple[slice, slice]]
"""Window, and the rows and columns it takes from a unit and to itself."""


def _feeds(windows: list[tuple[int, Piece]], one: GridClass) -> dict[tuple[int, int], list[_Feed]]:
    """For each unit: the windows it feeds, and where from and to."""
    height, width = one.unit
    found: dict[tuple[int, int], list[_Feed]] = {}
    for place, (_, piece) in enumerate(windows):
        left, top, wide, high = piece.box
        for i in range(top // height, (top + high - 1) // height + 1):
            low, end = max(top, i * height), min(top + high, (i + 1) * height)
            for j in range(left // width, (left + wide - 1) // width + 1):
                first, last = max(left, j * width), min(left + wide, (j + 1) * width)
                there = (
                    slice(low - i * height, end - i * height),
                    slice(first - j * width, last - j * width),
                )
                here = (slice(low - top, end - top), slice(first - left, last - left))
                found.setdefault((i, j), []).append((place, there, here))
    return dict(sorted(found.items()))


def _read(
    source: Source,
    one: int,
    bundle: Bundle,
    windows: list[tuple[int, Piece]],
    feeds: dict[tuple[int, int], list[_Feed]],
    chips: list[Chip],
    batch: int,
    cache: BlockCache,
    pool: ReaderPool,
) -> list[Window]:
    """Fill the stacks of all windows, block by block."""
    layers = len(bundle.look)
    stacks = [
        Window(chip, p, np.empty((layers, p.box[3], p.box[2]), bundle.dtype)) for chip, p in windows
    ]
    for (i, j), wanted in feeds.items():
        box = _around(wanted)
        for number, bands, span in bundle.assets:
            which = int(bundle.look[span.start]), number
            try:
                block = _block(source, number, bands, (one, i, j), box, cache, pool)
            except OSError as error:
                for place, _, here in wanted:
                    window = stacks[place]
                    chips[window.chip].errors[which] = str(error)
                    window.masked()[(span, *here)] = False
                    window.raw[(span, *here)] = 0
                continue
            try:
                _copy(block, wanted, span, stacks)
                for *place_of, text in block.broken:
                    for place, there, _ in wanted:
                        if all(p.start < t.stop and t.start < p.stop
                               for p, t in zip(place_of, there, strict=True)):  # fmt: skip
                            chips[stacks[place].chip].errors[which] = text
            finally:
                cache.release(block, (one, i, j), number, batch)
    return stacks


def _copy(block: Block, wanted: list[_Feed], span: slice, stacks: list[Window]) -> None:
    """Give a block's pixels to all windows that want some."""
    row, col = block.corner
    for place, (rows, cols), here in wanted:
        window = stacks[place]
        there = (slice(rows.start - row, rows.stop - row), slice(cols.start - col, cols.stop - col))
        window.raw[(span, *here)] = block.values[(slice(None), *there)]
        if block.known is not None:
            window.masked()[(span, *here)] &= block.known[(slice(None), *there)]


def _around(wanted: list[_Feed]) -> Box:
    """First row, first column, last row and last column of all that is taken from a unit."""
    rows, cols = [f[1][0] for f in wanted], [f[1][1] for f in wanted]
    return (
        min(r.start for r in rows), min(c.start for c in cols),
        max(r.stop for r in rows), max(c.stop for c in cols),
    )  # fmt: skip


def _block(
    source: Source,
    number: int,
    bands: tuple[int, ...],
    key: Key,
    needed: Box,
    cache: BlockCache,
    pool: ReaderPool,
) -> Block:
    asset, (height, width) = source.assets[number], source.classes[key[0]].unit
    top, left = key[1] * height, key[2] * width
    box = (left, top, min(width, asset.grid.width - left), min(height, asset.grid.height - top))
    return cache.get(key, number, needed, lambda: _decode(number, asset, bands, box, cache, pool))


def _decode(
    number: int,
    asset: Asset,
    bands: tuple[int, ...],
    box: Box,
    cache: BlockCache,
    pool: ReaderPool,
) -> Block:
    """Read a unit at once; where that fails, its stored blocks one by one.

    Raises
    ------
    OSError
        If none of them can be read.
    """
    left, top, wide, high = box
    rows, cols = asset.block
    try:
        spare = cache.spare((len(bands), high, wide), np.dtype(asset.dtype))
        return Block(*pool.read(number, asset, bands, box, out=spare))
    except OSError:
        if high <= rows and wide <= cols:
            raise
    values = np.zeros((len(bands), high, wide), dtype=asset.dtype)
    known = np.ones(values.shape, dtype=bool)
    broken = []
    for y in range(0, high, rows):
        for x in range(0, wide, cols):
            part = (left + x, top + y, min(cols, wide - x), min(rows, high - y))
            there = (slice(y, y + part[3]), slice(x, x + part[2]))
            try:
                found, good = pool.read(number, asset, bands, part)
            except OSError as error:
                known[(slice(None), *there)] = False
                broken.append((*there, str(error)))
                continue
            values[(slice(None), *there)] = found
            if good is not None:
                known[(slice(None), *there)] = good
    if not known.any():
        raise OSError(broken[0][2])
    return Block(values, known, tuple(broken))
