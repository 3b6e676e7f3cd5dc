"""From the stacks under a chip to the chip: mask, resample, composite, pack."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from eocausal.contracts import ChipStatus
from eocausal.ingest.bundles import Bundle, Source
from eocausal.ingest.composites import count_valid
from eocausal.ingest.sampling import Piece
from eocausal.ingest.stacks import Window, sample

__all__ = [
    "OK_SHARE",
    "Chip",
    "Made",
    "finish",
    "slots_of",
    "take_clear",
    "take_stored",
    "take_values",
]

OK_SHARE: Final = 0.99


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
        ``(asset, message)`` of each asset that could not be read.
    """

    stored: NDArray[Any]
    valid: list[float]
    status: list[int]
    looks: list[int]
    day: list[float]
    used: list[set[str]]
    errors: list[tuple[int, str]]


@dataclass(slots=True)
class Chip:
    """The looks at one chip while it is made; ``errors`` by look and asset."""

    looks: tuple[int, ...]
    values: NDArray[np.float32] | None = None
    clear: NDArray[np.bool_] | None = None
    stored: NDArray[Any] | None = None
    good: NDArray[np.bool_] | None = None
    covered: set[int] = field(default_factory=set)
    errors: dict[tuple[int, int], str] = field(default_factory=dict)


def take_stored(
    source: Source,
    bundle: Bundle,
    chip: Chip,
    window: Window,
    valid: NDArray[np.bool_] | None,
    slots: list[int],
    size: int,
) -> None:
    """Take a window to stored pixels directly: each period has one look, kept as it is.

    ``slots`` are those of :func:`slots_of`.
    """
    packing, bands = source.packing, len(source.recipe.bands)
    shape = (len(source.members), bands, size, size)
    piece = window.piece
    if piece.corner is not None:
        col, row = piece.corner
        high, wide = window.raw.shape[1:]
        values, rows, cols = window.raw, slice(row, row + high), slice(col, col + wide)
    else:
        sampled, known = sample(window.raw, valid, piece)
        stored = np.ascontiguousarray(packing.rounded(sampled).T)
        values, rows, cols = stored.reshape(-1, size, size), slice(None), slice(None)
        valid = None if known is None else np.ascontiguousarray(known.T).reshape(values.shape)
    complete = values.shape == (shape[0] * bands, size, size) and slots == list(range(len(slots)))
    if chip.stored is None and complete:
        chip.stored = values.astype(packing.dtype, copy=False).reshape(shape)
        if valid is not None:
            chip.good = valid.reshape(shape)
            same = bundle.alike and bundle.nodata[0] == packing.fill
            if piece.corner is None or window.known is not None or not same:
                chip.stored[~chip.good] = packing.fill
        return
    if chip.stored is None:
        chip.stored = np.full(shape, packing.fill, dtype=packing.dtype)
        chip.good = np.zeros(shape, dtype=bool)
    if chip.good is None:
        return
    for k, slot in enumerate(slots):
        p, b = divmod(slot, bands)
        before = chip.good[p, b, rows, cols]
        new = ~before if valid is None else valid[k] & ~before
        np.copyto(chip.stored[p, b, rows, cols], values[k], where=new, casting="unsafe")
        before |= new


def slots_of(source: Source, bundle: Bundle) -> list[int]:
    """Period and band of each layer as one number, where each look is in one period."""
    period_of = {k: p for p, m in enumerate(source.members) for k in m}
    bands = len(source.recipe.bands)
    pairs = zip(bundle.look.tolist(), bundle.target.tolist(), strict=True)
    return [period_of[k] * bands + b for k, b in pairs]


def take_clear(
    source: Source,
    bundle: Bundle,
    chip: Chip,
    window: Window,
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


def take_values(
    source: Source,
    bundle: Bundle,
    chip: Chip,
    window: Window,
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
        sampled, known = sample(raw, valid, piece)
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


def finish(source: Source, chip: Chip, size: int) -> Made:
    """Composite the periods of one chip and say what became of it."""
    periods, packing = len(source.members), source.packing
    bands = len(source.recipe.bands)
    made = Made(
        stored=np.full((periods, bands, size, size), packing.fill, dtype=packing.dtype)
        if chip.stored is None else chip.stored,
        valid=[], status=[], looks=[], day=[], used=[],
        errors=sorted((asset, text) for (_, asset), text in chip.errors.items()),
    )  # fmt: skip
    slot = {k: i for i, k in enumerate(chip.looks)}
    broken = {look for look, _ in chip.errors}
    whole = None if chip.good is None else _shares(chip.good)
    for period, members in enumerate(source.members):
        own = [k for k in members if k in slot]
        if chip.stored is not None:
            share, some = (1.0, True) if whole is None else whole[period]
            seen = own if some else []
        else:
            share, used = _composite(source, chip, [slot[k] for k in own], made.stored[period])
            seen = [chip.looks[k] for k in used]
        covered = not chip.covered.isdisjoint(own)
        failed = not broken.isdisjoint(own)
        looks = [source.looks[k] for k in seen]
        dates = {k.date for k in looks}
        made.valid.append(share)
        made.status.append(_status(share, bool(members), covered, failed))
        made.looks.append(len(looks))
        known = looks and "" not in dates
        made.day.append(sum(k.day for k in looks) / len(looks) if known else math.nan)
        made.used.append(dates)
    return made


def _shares(good: NDArray[np.bool_]) -> list[tuple[float, bool]]:
    """For each period: share of pixels valid in all bands, and whether any value is valid."""
    flat = good.reshape(*good.shape[:2], -1)
    whole = np.logical_and.reduce(flat, axis=1)
    found = []
    for all_bands, each in zip(whole, flat, strict=True):
        count = int(np.count_nonzero(all_bands))
        found.append((count / len(all_bands), count > 0 or bool(each.any())))
    return found


def _composite(
    source: Source, chip: Chip, slots: list[int], out: NDArray[Any]
) -> tuple[float, list[int]]:
    """Fill one period; return its share of valid pixels and the looks that gave any."""
    if chip.values is None or not slots:
        return 0.0, []
    recipe = source.recipe
    values = chip.values[slots]
    if recipe.masks:
        if chip.clear is None:
            return 0.0, []
        cloudy = ~np.asarray(chip.clear[slots].all(axis=1))
        values[np.broadcast_to(cloudy[:, None], values.shape)] = np.nan
    some = [k for k in range(len(slots)) if np.isfinite(values[k]).any()]
    if not some:
        return 0.0, []
    if len(some) < len(slots):
        values, slots = values[some], [slots[k] for k in some]
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


def _status(share: float, members: bool, covered: bool, failed: bool) -> int:
    if not members:
        return ChipStatus.NO_SOURCE
    if share > 0:
        return ChipStatus.OK if share >= OK_SHARE else ChipStatus.PARTIAL
    if failed:
        return ChipStatus.READ_ERROR
    return ChipStatus.NODATA_ONLY if covered else ChipStatus.OUTSIDE
