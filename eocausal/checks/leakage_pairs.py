"""Patterns by which a covariate carries the treatment once another covariate is known.

Three rules look at every ordered pair (x given z):

cells
    Within each value of z, x takes one value in one arm, and units with another value are all
    in the other arm (``treat * z``, ``treat XOR z``, ``z + treat * anything`` with a discrete z).
lines
    In one arm x is an exact linear function of z, and units off that line are all in the other
    arm (``z + 2 * treat``, ``z * (1 + treat)`` with a continuous z).
neighbors
    Units are sorted by z and cut into blocks of six. In each block, of all ways to place its
    number of treated units, the way that best explains x is the true one (``log(z + treat)``,
    ``z**2 + treat``, up to rounding and a little noise).

Each event has a known chance under random arms; see :mod:`eocausal.checks.leakage_rules`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from eocausal.checks.leakage_rules import Column, Pattern

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from eocausal.checks.draw import Draw

__all__ = ["PairPattern", "cells", "lines", "neighbors"]

MAX_CELLS = 1000
BLOCK = 6
FOUND_SHARE = 0.9
FEW_CLUSTER_CHANCE = 0.01
MIN_DISTINCT = 10
DRAWS = 5
MAX_WORK = 150_000
NAMES = ("control", "treated")


@dataclass(frozen=True, slots=True)
class PairPattern:
    """Columns ``x`` and ``z`` (positions) of which x carries the arm given z, and the pattern."""

    x: int
    z: int
    pattern: Pattern


def cells(columns: Sequence[Column], draw: Draw) -> Iterator[PairPattern]:
    """Yield pairs in which x tells the arm within the values of a discrete z."""
    n = len(draw.treated)
    code = np.stack([c.code for c in columns], axis=1).astype(np.int32)
    low = np.where(code < 0, np.iinfo(np.int32).max, code)
    for j, z in enumerate(columns):
        if not 2 <= len(z.values) <= min(MAX_CELLS, n // 4):
            continue
        rows = np.flatnonzero(z.present)
        cell = 2 * z.code[rows] + draw.treated[rows]
        order = np.argsort(cell, kind="stable")
        rows, cell = rows[order], cell[order]
        starts = np.flatnonzero(np.diff(cell, prepend=-1))
        first = np.minimum.reduceat(low[rows], starts, axis=0)
        last = np.maximum.reduceat(code[rows], starts, axis=0)
        for constant in (0, 1):
            mine = cell[starts] % 2 == constant
            fixed = (last[mine] <= first[mine]).all(axis=0)
            for i in np.flatnonzero(fixed).tolist():
                if i == j or not columns[i].varies:
                    continue
                at = np.full(len(z.values), -1, dtype=np.int64)
                at[cell[starts][mine] // 2] = last[mine, i]
                pattern = _cell_pattern(columns[i], z, draw, at, constant)
                if pattern is not None:
                    yield PairPattern(i, j, pattern)


def _cell_pattern(
    x: Column, z: Column, draw: Draw, at: NDArray[np.int64], constant: int
) -> Pattern | None:
    """Chance that units whose x differs from its value ``at`` the cell are all of one arm."""
    value = np.where(z.present, at[z.code], -1)
    seen = x.present & (value >= 0)
    off = seen & (x.code != value)
    if not off.any():
        return None
    informative = np.zeros(len(z.values), dtype=bool)
    informative[z.code[off]] = True
    pairs = np.unique(np.stack([z.code[seen], x.code[seen]]), axis=1)
    n_values = np.bincount(pairs[0], minlength=len(z.values))[informative]
    chance = draw.log_chance(off)
    inside = seen & informative[np.maximum(z.code, 0)]
    on = inside & ~off
    if (n_values == 2).all() and (draw.treated[on] == constant).all():
        chance = min(chance, draw.log_chance(inside))
    chance += math.log(2) + float(np.log(n_values).sum())
    how = (
        f"takes one value for every {NAMES[constant]} unit and another for {int(off.sum()):,} "
        f"{NAMES[1 - constant]} units with the same {z.name}"
    )
    return Pattern(how, chance, throughout=draw.throughout(off, x.code))


def lines(columns: Sequence[Column], draw: Draw) -> Iterator[PairPattern]:
    """Yield pairs in which x is exactly linear in z in one arm and off that line in the other."""
    ordered = [i for i, c in enumerate(columns) if c.number is not None and c.varies]
    if len(ordered) < 2:
        return
    number = np.stack([columns[i].number for i in ordered], axis=1)  # type: ignore[misc]
    for constant in (0, 1):
        exact = _correlated(number[draw.treated == constant])
        for a, b in np.argwhere(exact):
            x, z = columns[ordered[a]], columns[ordered[b]]
            if len(z.values) < MIN_DISTINCT:
                continue
            pattern = _line_pattern(x, z, draw, constant)
            if pattern is not None:
                yield PairPattern(ordered[a], ordered[b], pattern)


def _correlated(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Pairs of columns whose rows that have both are correlated by ±1, up to rounding."""
    seen = np.isfinite(values).astype(float)
    count = seen.sum(axis=0)
    centre = np.where(count > 0, np.nansum(values, axis=0) / np.maximum(count, 1), 0.0)
    scale = np.nanmax(np.abs(np.vstack([values - centre, np.zeros_like(centre)])), axis=0)
    unit = np.where(seen > 0, (values - centre) / np.where(scale > 0, scale, 1.0), 0.0)
    n = seen.T @ seen
    with np.errstate(invalid="ignore", divide="ignore"):
        sum_x, sum_z = unit.T @ seen, (unit.T @ seen).T
        square_x, square_z = (unit**2).T @ seen, ((unit**2).T @ seen).T
        cross = n * (unit.T @ unit) - sum_x * sum_z
        spread_x, spread_z = n * square_x - sum_x**2, n * square_z - sum_z**2
        exact = (cross**2 >= (1 - 1e-8) * spread_x * spread_z) & (spread_x > 0) & (spread_z > 0)
    np.fill_diagonal(exact, False)
    return np.asarray(exact)


def _line_pattern(x: Column, z: Column, draw: Draw, constant: int) -> Pattern | None:
    assert x.number is not None
    assert z.number is not None
    seen = x.present & z.present
    mine = seen & (draw.treated == constant)
    if np.unique(z.code[mine]).size < 3:
        return None
    on = _on_line(x.number, z.number, mine)
    if not on[mine].all():
        return None
    off = seen & ~on
    if not off.any():
        return None
    chance = draw.log_chance(off) + _log_lines(z, draw, seen, mine)
    certain = False
    theirs = seen & (draw.treated != constant)
    distinct = min(np.unique(z.code[rows]).size for rows in (mine, theirs))
    how = (
        f"is a linear function of {z.name} for every {NAMES[constant]} unit, and "
        f"{int(off.sum()):,} {NAMES[1 - constant]} units are off that line"
    )
    if distinct >= MIN_DISTINCT and _on_line(x.number, z.number, theirs)[theirs].all():
        how = f"is one linear function of {z.name} for treated and another for control units"
        whole = draw.log_chance(seen) + math.log(2)
        chance, certain = min(chance, whole), whole < math.log(FEW_CLUSTER_CHANCE)
    return Pattern(how, chance, certain, draw.throughout(off, x.code))


def _log_lines(z: Column, draw: Draw, seen: NDArray[np.bool_], mine: NDArray[np.bool_]) -> float:
    """Log of how many lines can hold a whole arm: few if each unit of assignment fixes its line."""
    code = z.code[mine]
    low = np.full(draw.n_units, len(z.values))
    high = np.full(draw.n_units, -1)
    np.minimum.at(low, draw.unit[mine], code)
    np.maximum.at(high, draw.unit[mine], code)
    reached = high >= 0
    if (low[reached] < high[reached]).all():
        return draw.log_values(seen)
    return math.log(2) + 2 * math.log(int(seen.sum()))


def _on_line(
    x: NDArray[np.float64], z: NDArray[np.float64], rows: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which units lie on the line through the two units of ``rows`` that z sets farthest apart."""
    inside = np.flatnonzero(rows)
    low, high = inside[np.argmin(z[inside])], inside[np.argmax(z[inside])]
    fit = x[low] + (z - z[low]) / (z[high] - z[low]) * (x[high] - x[low])
    tolerance = 1e-7 * (np.ptp(x[inside]) + np.finfo(float).eps * np.abs(x[inside]).max())
    return np.asarray(np.abs(x - fit) <= tolerance)


def neighbors(columns: Sequence[Column], draw: Draw) -> Iterator[PairPattern]:
    """Yield pairs in which x tells the arm among units with nearly the same z.

    One row of each unit of assignment is drawn, so that rows are exchangeable; where a unit has
    several, the drawing is repeated and the chance multiplied by the number of drawings. All rows
    are used as well to see whether the pattern runs throughout the clusters.
    """
    usable = [i for i, c in enumerate(columns) if c.varies and _scored(c) is not None]
    if not usable:
        return
    scored = np.stack([_scored(columns[i]) for i in usable])  # type: ignore[misc]
    rng = np.random.default_rng(20_260_101)
    n = len(draw.treated)
    n_draws = 1 if draw.n_units == n else DRAWS
    for _ in range(n_draws):
        order = rng.permutation(n)
        picked = order[np.unique(draw.unit[order], return_index=True)[1]]
        rng.shuffle(picked)
        for a, j, found, total, luck in _neighbor_counts(columns, scored, draw, picked):
            chance = float(stats.binom.logsf(found - 1, total, luck)) + math.log(n_draws)
            if usable[a] != j:
                yield _told(columns, usable[a], j, found, total, chance)
    if n_draws > 1:
        chance = draw.log_chance(np.ones(n, dtype=bool)) + math.log(2)
        for a, j, found, total, _ in _neighbor_counts(columns, scored, draw, rng.permutation(n)):
            x = columns[usable[a]]
            if usable[a] != j and total >= 20 and draw.throughout(x.present, x.code):
                yield _told(columns, usable[a], j, found, total, chance, throughout=True)


def _told(
    columns: Sequence[Column], x: int, z: int, found: int, total: int, chance: float,
    *, throughout: bool = False,
) -> PairPattern:  # fmt: skip
    how = (
        f"tells the arm among units with nearly the same {columns[z].name}, in {found:,} of "
        f"{total:,} groups of {BLOCK} neighbors"
    )
    return PairPattern(x, z, Pattern(how, chance, throughout=throughout))


def _neighbor_counts(
    columns: Sequence[Column], scored: NDArray[np.float64], draw: Draw, picked: NDArray[np.int64]
) -> Iterator[tuple[int, int, int, int, float]]:
    """Yield (row of ``scored``, z, blocks told, blocks, chance per block) where most are told."""
    picked = picked[: int(np.clip(MAX_WORK // max(len(columns), 1), 600, 3000))]
    if picked.size < 2 * BLOCK:
        return
    stratum = draw.stratum[draw.unit[picked]]
    if picked.size < 4 * BLOCK * (int(stratum.max()) + 1):
        stratum = np.zeros_like(stratum)
    for j, z in enumerate(columns):
        if not z.varies:
            continue
        here = z.code[picked].astype(float) if z.number is None else z.number[picked]
        key = np.where(z.present[picked], here, np.nan)
        sort = np.lexsort((key, stratum))
        sort = sort[np.isfinite(key[sort])]
        sort = sort[: sort.size // BLOCK * BLOCK]
        if sort.size < BLOCK:
            continue
        told, informative, luck = _blocks(
            scored[:, picked[sort]], key[sort], draw.treated[picked[sort]]
        )
        total, found = informative.sum(axis=1), told.sum(axis=1)
        for a in np.flatnonzero((total > 0) & (found >= FOUND_SHARE * total)).tolist():
            yield a, j, int(found[a]), int(total[a]), float(luck[informative[a]].mean())


def _scored(column: Column) -> NDArray[np.float64] | None:
    if column.number is not None:
        return column.number
    if len(column.values) == 2:
        return np.where(column.present, column.code.astype(float), np.nan)
    return None


def _labelings() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """All ways to mark 1..5 of the six units of a block, and how many each marks."""
    rows = [c for k in range(1, BLOCK) for c in combinations(range(BLOCK), k)]
    marks = np.zeros((len(rows), BLOCK))
    for row, chosen in zip(marks, rows, strict=True):
        row[list(chosen)] = 1.0
    return marks, marks.sum(axis=1).astype(np.int64)


LABELINGS, LABEL_SIZES = _labelings()


def _blocks(
    x: NDArray[np.float64], z: NDArray[np.float64], treated: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64]]:
    """Whether the true arms explain x best in each block of six neighbors, given a line in z.

    Returns success (p, B), informative (p, B) and the chance of success (B,).
    """
    p, n = x.shape
    block = x.reshape(p, n // BLOCK, BLOCK)
    z = z.reshape(-1, BLOCK) / max(float(np.abs(z).max()), np.finfo(float).tiny)
    zc = z - z.mean(axis=1, keepdims=True)
    norm = np.sqrt((zc**2).sum(axis=1, keepdims=True))
    flat = norm <= 1e-12
    direction = np.where(flat, 0.0, zc / np.where(flat, 1.0, norm))
    residual = np.eye(BLOCK) - 1 / BLOCK - direction[:, :, None] * direction[:, None, :]
    size = treated.reshape(-1, BLOCK).sum(axis=1)
    mixed = (size > 0) & (size < BLOCK)
    complete = np.asarray(np.isfinite(block).all(axis=2))
    filled = np.where(complete[:, :, None], block, 0.0)
    centred = filled - filled.mean(axis=2, keepdims=True)
    scale = np.abs(centred).max(axis=2)
    centred /= np.where(scale > 0, scale, 1.0)[:, :, None]
    rest = np.einsum("bij,pbj->pbi", residual, centred)
    whole = np.abs(filled).max(axis=2)
    informative = complete & mixed & (np.abs(rest).max(axis=2) > 1e-7)
    informative &= scale > 1e-12 * whole

    spread = np.einsum("li,bij,lj->bl", LABELINGS, residual, LABELINGS)
    allowed = (size[:, None] == LABEL_SIZES) & (spread > 1e-9)
    explained = (rest @ LABELINGS.T) ** 2 / np.where(allowed, spread, np.inf)
    arms = treated.reshape(-1, 1, BLOCK).astype(float)
    truth = np.abs(LABELINGS[None] - arms).max(axis=2) == 0
    mine = np.where(truth & allowed, explained, 0.0).sum(axis=2)
    best = explained.max(axis=2)
    ties = (explained >= mine[:, :, None] * (1 - 1e-9)).sum(axis=2)
    alone = np.where(size == BLOCK // 2, 2, 1)
    success = informative & (mine >= best * (1 - 1e-9)) & (ties <= alone) & (mine > 0)
    luck = np.where(mixed, alone / np.maximum((size[:, None] == LABEL_SIZES).sum(axis=1), 1), 1.0)
    return success, informative, luck
