"""From decoded blocks to the chips of a batch: copy windows, mask, resample, composite."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from eocausal.contracts import ChipStatus
from eocausal.ingest.assets import Asset, Box
from eocausal.ingest.blocks import Block, BlockCache, Key
from eocausal.ingest.composites import count_valid
from eocausal.ingest.grid import ChipGrids
from eocausal.ingest.packing import Packing
from eocausal.ingest.readers import ReaderPool, stored_nodata
from eocausal.ingest.recipe import Recipe
from eocausal.ingest.sampling import Piece, place_chips
from eocausal.ingest.spec import GridClass, Layers, Look

__all__ = ["OK_SHARE", "Batch", "Made", "Source", "gather_batch"]

OK_SHARE: Final = 0.99
_STACK_BYTES: Final = 96 * 2**20
_PLAIN: Final = ("int8", "uint8", "int16", "uint16", "float16", "float32")


@dataclass(frozen=True, slots=True)
class Bundle:
    """Layers of one class of grids and one pixel type, sorted by asset and target.

    ``assets`` holds, for each asset, its number, its bands and where its layers are.
    """

    dtype: np.dtype[Any]
    assets: tuple[tuple[int, tuple[int, ...], slice], ...]
    look: NDArray[np.int32]
    target: NDArray[np.int32]
    nodata: tuple[Any, ...]
    scale: NDArray[np.float64]
    offset: NDArray[np.float64]

    def group(self, first: int, last: int) -> Bundle:
        """Choose the assets from ``first`` to before ``last``."""
        low, high = self.assets[first][2].start, self.assets[last - 1][2].stop
        moved = tuple(
            (a, b, slice(s.start - low, s.stop - low)) for a, b, s in self.assets[first:last]
        )
        return replace(
            self,
            assets=moved,
            look=self.look[low:high],
            target=self.target[low:high],
            nodata=self.nodata[low:high],
            scale=self.scale[low:high],
            offset=self.offset[low:high],
        )


@dataclass(frozen=True, slots=True)
class Source:
    """What the chips of one chunk of periods are made from.

    ``members[period]`` are the looks of each period of the chunk; ``bundles[class]`` the layers
    of their looks.
    """

    recipe: Recipe
    packing: Packing
    classes: dict[int, GridClass]
    assets: dict[int, Asset]
    looks: dict[int, Look]
    members: tuple[tuple[int, ...], ...]
    bundles: dict[int, tuple[Bundle, ...]]

    @property
    def looks_of(self) -> dict[int, tuple[int, ...]]:
        """Looks of each class."""
        return {
            k: tuple(np.unique(np.concatenate([b.look for b in v])).tolist())
            for k, v in self.bundles.items()
        }


def bundle_up(
    layers: Layers, asset_class: NDArray[np.int32], assets: dict[int, Asset]
) -> dict[int, tuple[Bundle, ...]]:
    """Sort layers by class of grids, pixel type, asset and target; masks come before data."""
    found: dict[int, dict[str, list[int]]] = {}
    order = np.lexsort((layers.target, layers.asset))
    for k in order.tolist():
        asset = int(layers.asset[k])
        found.setdefault(int(asset_class[asset]), {}).setdefault(assets[asset].dtype, []).append(k)
    return {
        one: tuple(_bundle(layers, np.array(v), assets) for v in kinds.values())
        for one, kinds in found.items()
    }


def _bundle(layers: Layers, which: NDArray[np.intp], assets: dict[int, Asset]) -> Bundle:
    number, band = layers.asset[which], layers.band[which]
    cuts = np.flatnonzero(np.diff(number)) + 1
    spans = zip([0, *cuts.tolist()], [*cuts.tolist(), len(which)], strict=True)
    dtype = np.dtype(assets[int(number[0])].dtype)
    parts = tuple((int(number[a]), tuple(band[a:b].tolist()), slice(a, b)) for a, b in spans)
    own = [assets[int(a)] for a in number]
    return Bundle(
        dtype=dtype,
        assets=parts,
        look=layers.look[which],
        target=layers.target[which],
        nodata=tuple(stored_nodata(a.nodata, dtype) for a in own),
        scale=np.array([a.scales[b] for a, b in zip(own, band.tolist(), strict=True)]),
        offset=np.array([a.offsets[b] for a, b in zip(own, band.tolist(), strict=True)]),
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """Chips that are made together: their grids, and the chips that touch each class."""

    number: int
    chips: ChipGrids
    touching: dict[int, NDArray[np.intp]]


@dataclass(slots=True)
class Made:
    """One finished chip: pixels as stored, and what became of each period.

    Attributes
    ----------
    stored
        Shape (period, band, size, size).
    valid, status, looks, day
        For each period: share of pixels valid in all bands, status, looks that gave pixels, and
        the mean day of those (NaN if unknown).
    used
        Dates of these looks, for each period.
    errors
        ``(look, message)`` of each read that failed.
    """

    stored: NDArray[Any]
    valid: list[float]
    status: list[int]
    looks: list[int]
    day: list[float]
    used: list[set[str]]
    errors: list[tuple[int, str]]


@dataclass(slots=True)
class _Chip:
    """The looks at one chip while it is made."""

    looks: tuple[int, ...]
    values: NDArray[np.float32] | None = None
    clear: NDArray[np.bool_] | None = None
    stored: NDArray[Any] | None = None
    good: NDArray[np.bool_] | None = None
    covered: set[int] = field(default_factory=set)
    errors: dict[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Window:
    """One piece of a chip and the source pixels under it."""

    chip: int
    piece: Piece
    raw: NDArray[Any]
    known: NDArray[np.bool_] | None = None


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
    looks_of = source.looks_of
    chips = [
        _Chip(tuple(sorted({k for one in own for k in looks_of.get(one, ())}))) for own in classes
    ]
    simple = _simple(source)
    for one in sorted(batch.touching):
        plain = {r for r in batch.touching[one].tolist() if simple and len(classes[r]) == 1}
        _gather_class(source, batch, one, chips, plain, cache, pool)
    for chip in chips:
        yield _finish(source, chip, batch.chips.size)


def _simple(source: Source) -> bool:
    """Whether a period has at most one look, stored as it is but for where it is sampled."""
    recipe = source.recipe
    if not source.packing.whole or recipe.masks or recipe.indices:
        return False
    every = [k for m in source.members for k in m]
    if len(set(every)) < len(every) or any(len(m) > 1 for m in source.members):
        return False
    return type(recipe.composite).__name__ in ("Median", "Mean")


def _gather_class(
    source: Source,
    batch: Batch,
    one: int,
    chips: list[_Chip],
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
    ordered = sorted(bundles, key=lambda b: int(b.target.max()) < n_inputs)
    for bundle in ordered:
        for group in _groups(bundle, windows):
            stacks = _read(source, one, group, windows, feeds, chips, cache, pool)
            for place, window in enumerate(stacks):
                chip = chips[window.chip]
                valid = _valid(group, window)
                if window.chip in plain and window.piece.pixels is None:
                    _store(source, group, chip, window, valid, batch.chips.size)
                    continue
                _clear(source, group, chip, window, valid, place, clear, batch.chips.size)
                _values(source, group, chip, window, valid, place, clear, batch.chips.size)


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
    chips: list[_Chip],
    cache: BlockCache,
    pool: ReaderPool,
) -> list[_Window]:
    """Fill the stacks of all windows, block by block."""
    layers = len(bundle.look)
    stacks = [
        _Window(chip, p, np.empty((layers, p.box[3], p.box[2]), bundle.dtype))
        for chip, p in windows
    ]
    for (i, j), wanted in feeds.items():
        box = _around(wanted)
        for number, bands, span in bundle.assets:
            try:
                block = _block(source, number, bands, (one, i, j), box, cache, pool)
            except OSError as error:
                for place, _, here in wanted:
                    window = stacks[place]
                    chips[window.chip].errors[int(bundle.look[span.start])] = str(error)
                    _known(window)[(span, *here)] = False
                    window.raw[(span, *here)] = 0
                continue
            row, col = block.corner
            for place, there, here in wanted:
                window = stacks[place]
                rows, cols = there
                rows = slice(rows.start - row, rows.stop - row)
                cols = slice(cols.start - col, cols.stop - col)
                window.raw[(span, *here)] = block.values[:, rows, cols]
                if block.known is not None:
                    _known(window)[(span, *here)] &= block.known[:, rows, cols]
                for *place_of, text in block.broken:
                    if all(a.start < b.stop and b.start < a.stop
                           for a, b in zip(place_of, there, strict=True)):  # fmt: skip
                        chips[window.chip].errors[int(bundle.look[span.start])] = text
    return stacks


def _around(wanted: list[_Feed]) -> Box:
    """First row, first column, last row and last column of all that is taken from a unit."""
    rows, cols = [f[1][0] for f in wanted], [f[1][1] for f in wanted]
    return (
        min(r.start for r in rows), min(c.start for c in cols),
        max(r.stop for r in rows), max(c.stop for c in cols),
    )  # fmt: skip


def _known(window: _Window) -> NDArray[np.bool_]:
    if window.known is None:
        window.known = np.ones(window.raw.shape, dtype=bool)
    return window.known


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
    return cache.get(key, number, needed, lambda: _decode(number, asset, bands, box, pool))


def _decode(number: int, asset: Asset, bands: tuple[int, ...], box: Box, pool: ReaderPool) -> Block:
    """Read a unit at once; where that fails, its stored blocks one by one.

    Raises
    ------
    OSError
        If none of them can be read.
    """
    left, top, wide, high = box
    rows, cols = asset.block
    try:
        return Block(*pool.read(number, asset, bands, box))
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


def _valid(bundle: Bundle, window: _Window) -> NDArray[np.bool_] | None:
    """Where source pixels are known and not nodata; None if all are."""
    raw, known = window.raw, window.known
    first = bundle.nodata[0]
    same = all(n is first or n == first for n in bundle.nodata)
    if same and first == first:
        good = raw != first
        known = good if known is None else known & good
    elif not same:
        for k, nodata in enumerate(bundle.nodata):
            if nodata == nodata:
                _known(window)[k] &= raw[k] != nodata
        known = window.known
    if bundle.dtype.kind == "f":
        finite = np.isfinite(raw)
        known = finite if known is None else known & finite
    return None if known is None or known.all() else known


def _sample(
    raw: NDArray[Any], valid: NDArray[np.bool_] | None, piece: Piece
) -> tuple[NDArray[np.floating[Any]], NDArray[np.bool_] | None]:
    """Take a stack (layer, h, w) to the chip's pixels by the piece's weights, shape (pixel, layer).

    The second is where a value is known, None for everywhere.
    """
    weights = piece.weights
    assert weights is not None
    layers = raw.shape[0]
    flat = np.ascontiguousarray(raw.reshape(layers, -1).T, dtype=weights.dtype)
    if valid is None:
        return weights @ flat, None
    seen = valid.reshape(layers, -1).T
    share = np.ascontiguousarray(seen, dtype=weights.dtype)
    flat[~seen] = 0.0
    total = weights @ share
    known = seen[piece.centre] & (total > 1e-6)
    return (weights @ flat) / np.where(known, total, 1.0), known


def _store(
    source: Source,
    bundle: Bundle,
    chip: _Chip,
    window: _Window,
    valid: NDArray[np.bool_] | None,
    size: int,
) -> None:
    """Take a window to stored pixels directly: each period has one look, kept as it is."""
    packing, bands = source.packing, len(source.recipe.bands)
    shape = (len(source.members), bands, size, size)
    period_of = {k: p for p, m in enumerate(source.members) for k in m}
    period = np.array([period_of[k] for k in bundle.look.tolist()])
    chip.covered.update(bundle.look.tolist())
    piece = window.piece
    if piece.corner is not None:
        col, row = piece.corner
        high, wide = window.raw.shape[1:]
        values, rows, cols = window.raw, slice(row, row + high), slice(col, col + wide)
    else:
        sampled, known = _sample(window.raw, valid, piece)
        values = np.empty((sampled.shape[1], size, size), packing.dtype)
        packing.spare(sampled)
        values[...] = sampled.T.reshape(values.shape)
        rows, cols = slice(None), slice(None)
        valid = None if known is None else known.T.reshape(values.shape)
    if chip.stored is None and values.shape == (shape[0] * bands, size, size):
        place = period * bands + bundle.target
        if (place == np.arange(len(place))).all():
            chip.stored = values.astype(packing.dtype, copy=False).reshape(shape)
            if valid is not None:
                chip.stored[~valid.reshape(shape)] = packing.fill
            chip.good = (np.ones(shape, bool) if valid is None else valid).reshape(shape)
            return
    if chip.stored is None:
        chip.stored = np.full(shape, packing.fill, dtype=packing.dtype)
        chip.good = np.zeros(shape, dtype=bool)
    assert chip.good is not None
    for k, (p, b) in enumerate(zip(period.tolist(), bundle.target.tolist(), strict=True)):
        before = chip.good[p, b, rows, cols]
        new = ~before if valid is None else valid[k] & ~before
        np.copyto(chip.stored[p, b, rows, cols], values[k], where=new, casting="unsafe")
        before |= new


def _clear(
    source: Source,
    bundle: Bundle,
    chip: _Chip,
    window: _Window,
    valid: NDArray[np.bool_] | None,
    place: int,
    clear: dict[tuple[int, int], NDArray[np.bool_]],
    size: int,
) -> None:
    """Evaluate mask layers, on the source's grid and on the chip's."""
    masks, n_inputs = source.recipe.masks, len(source.recipe.inputs)
    for k in np.flatnonzero(bundle.target >= n_inputs).tolist():
        which, look = int(bundle.target[k]) - n_inputs, int(bundle.look[k])
        good = masks[which].clear(window.raw[k])
        if valid is not None:
            good = good & valid[k]
        before = clear.get((place, look))
        clear[place, look] = good if before is None else before & good
        if chip.clear is None:
            chip.clear = np.zeros((len(chip.looks), len(masks), size, size), dtype=bool)
        there = chip.clear[chip.looks.index(look), which]
        piece = window.piece
        if piece.corner is not None:
            inner, outer = piece.overlap(size)
            there[outer] |= good[inner]
        elif piece.pixels is None:
            there |= good.ravel()[piece.centre].reshape(size, size)
        else:
            there.reshape(-1)[piece.pixels] |= good.ravel()[piece.centre]


def _values(
    source: Source,
    bundle: Bundle,
    chip: _Chip,
    window: _Window,
    valid: NDArray[np.bool_] | None,
    place: int,
    clear: dict[tuple[int, int], NDArray[np.bool_]],
    size: int,
) -> None:
    """Take data layers to the chip, in the units of the cube."""
    n_inputs = len(source.recipe.inputs)
    data = np.flatnonzero(bundle.target < n_inputs)
    if not data.size:
        return
    if chip.values is None:
        chip.values = np.full((len(chip.looks), n_inputs, size, size), np.nan, dtype=np.float32)
    raw = window.raw if data.size == len(bundle.target) else window.raw[data]
    valid = None if valid is None else valid[data]
    looks = bundle.look[data].tolist()
    chip.covered.update(looks)
    if any((place, k) in clear for k in looks):
        valid = np.ones(raw.shape, dtype=bool) if valid is None else valid
        for k, look in enumerate(looks):
            if (place, look) in clear:
                valid[k] &= clear[place, look]
    piece = window.piece
    if piece.corner is not None:
        rows, cols = piece.overlap(size)[0]
        values = raw[:, rows, cols].astype(np.float64)
        if valid is not None:
            values[~valid[:, rows, cols]] = np.nan
    else:
        sampled, known = _sample(raw, valid, piece)
        values = np.ascontiguousarray(sampled.T, dtype=np.float64)
        if known is not None:
            values[~known.T] = np.nan
    shape = (-1,) + (1,) * (values.ndim - 1)
    scale, offset = bundle.scale[data], bundle.offset[data]
    if (scale != 1.0).any() or (offset != 0.0).any():
        values = values * scale.reshape(shape) + offset.reshape(shape)
    slot = {k: i for i, k in enumerate(chip.looks)}
    for k, (look, target) in enumerate(zip(looks, bundle.target[data].tolist(), strict=True)):
        _put(chip.values[slot[look], target], values[k], piece)


def _put(there: NDArray[np.float32], values: NDArray[np.float64], piece: Piece) -> None:
    """Write where nothing is written yet."""
    if piece.corner is not None:
        there = there[piece.overlap(len(there))[1]]
    elif piece.pixels is not None:
        flat = there.reshape(-1)
        before = flat[piece.pixels]
        flat[piece.pixels] = np.where(np.isnan(before), values, before)
        return
    else:
        values = values.reshape(there.shape)
    np.copyto(there, values, where=np.isnan(there), casting="same_kind")


def _finish(source: Source, chip: _Chip, size: int) -> Made:
    """Composite the periods of one chip and say what became of it."""
    periods, packing = len(source.members), source.packing
    bands = len(source.recipe.bands)
    made = Made(
        stored=np.full((periods, bands, size, size), packing.fill, dtype=packing.dtype)
        if chip.stored is None else chip.stored,
        valid=[], status=[], looks=[], day=[], used=[], errors=sorted(chip.errors.items()),
    )  # fmt: skip
    slot = {k: i for i, k in enumerate(chip.looks)}
    for period, members in enumerate(source.members):
        own = [k for k in members if k in slot]
        if chip.stored is not None and chip.good is not None:
            good = chip.good[period].all(axis=0)
            share = float(good.mean())
            seen = own if bool(chip.good[period].any()) else []
        else:
            share, seen = _composite(source, chip, [slot[k] for k in own], made.stored[period])
            seen = [chip.looks[k] for k in seen]
        covered = any(k in chip.covered for k in own)
        failed = any(k in chip.errors for k in own)
        made.valid.append(share)
        made.status.append(int(_status(share, bool(members), covered, failed)))
        made.looks.append(len(seen))
        days = [source.looks[k].day for k in seen]
        known = bool(days) and all(source.looks[k].date for k in seen)
        made.day.append(float(np.mean(days)) if known else float("nan"))
        made.used.append({source.looks[k].date for k in seen})
    return made


def _composite(
    source: Source, chip: _Chip, slots: list[int], out: NDArray[Any]
) -> tuple[float, list[int]]:
    """Fill one period; return its share of valid pixels and the looks that gave any."""
    if chip.values is None or not slots:
        return 0.0, []
    recipe = source.recipe
    values = chip.values[slots]
    if recipe.masks:
        if chip.clear is None:
            return 0.0, []
        values[np.broadcast_to(~chip.clear[slots].all(axis=1)[:, None], values.shape)] = np.nan
    any_valid = np.isfinite(values).any(axis=(1, 2, 3))
    if not any_valid.any():
        return 0.0, []
    values, slots = values[any_valid], [s for s, v in zip(slots, any_valid, strict=True) if v]
    if recipe.indices:
        named = dict(zip(recipe.inputs, values.transpose(1, 0, 2, 3), strict=True))
        derived = [i.evaluate(named)[:, None] for i in recipe.indices]
        values = np.concatenate([values, *derived], axis=1)
    days = np.array([source.looks[chip.looks[s]].day for s in slots], dtype=np.int64)
    image = recipe.composite.reduce(values, days, recipe.seen)
    layers = {name: image[k] for k, name in enumerate(recipe.seen)}
    if recipe.count_band is not None:
        wanted = [recipe.seen.index(b) for b in recipe.bands if b != recipe.count_band]
        layers[recipe.count_band] = count_valid(values[:, wanted]).astype(np.float32)
    result = np.stack([layers[b] for b in recipe.bands])
    data = [k for k, b in enumerate(recipe.bands) if b != recipe.count_band]
    out[...] = source.packing.pack(result)
    return float(np.isfinite(result[data]).all(axis=0).mean()), slots


def _status(share: float, members: bool, covered: bool, failed: bool) -> ChipStatus:
    if not members:
        return ChipStatus.NO_SOURCE
    if share > 0:
        return ChipStatus.OK if share >= OK_SHARE else ChipStatus.PARTIAL
    if failed:
        return ChipStatus.READ_ERROR
    return ChipStatus.NODATA_ONLY if covered else ChipStatus.OUTSIDE
