"""Patterns by which a covariate carries the treatment, each with its chance under random arms.

A covariate fixed before arms were drawn can show a pattern that implies the arm of some units
of assignment only by luck. How much luck follows from the draw itself, whatever the covariate's
distribution (Fisher 1935: the randomization is the reasoned basis of the test): if the pattern
implies the arms of m of the G units of a stratum, m1 of them treated, and T were treated, the
chance is C(G - m, T - m1) / C(G, T). Patterns chosen after looking are paid for by a union bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eocausal.checks.draw import log_choose

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.checks.draw import Draw

__all__ = [
    "Column",
    "Pattern",
    "arms_equal",
    "missing_in_one_arm",
    "one_sided",
    "pure_values",
    "separated",
]

UNDECLARED_VALUES = 20
"""Most values that may tell the arm where no clean cluster rules out that they name groups."""

ERROR_SHARE = 0.05
"""Share of an arm that may lie on the wrong side of a threshold that separates the arms."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern, in words that continue the column's name, and the log of its chance.

    ``certain`` marks a pattern that is refused whatever its chance, because nothing could be
    estimated with such a column. ``throughout`` marks one that runs through nearly all units of
    assignment of an arm although the column varies within them: with few clusters its chance
    cannot be very small, but what names clusters does not vary within them.
    """

    how: str
    log_chance: float
    certain: bool = False
    throughout: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """A covariate as codes of its values and, where values have an order, as numbers.

    Attributes
    ----------
    code
        (n,) 0..K-1 in the order of values, -1 where missing. Values that differ by rounding only
        share a code.
    values
        (K,) one value of each code.
    number
        (n,) float, NaN where missing; None if the values have no order.
    """

    name: str
    code: NDArray[np.int64]
    values: NDArray[Any]
    number: NDArray[np.float64] | None

    @classmethod
    def of(cls, values: pd.Series, name: str) -> Column:
        """Read a column of any type."""
        number = _numbers(values)
        if number is None:
            code, texts = pd.factorize(values.astype("string"), sort=True)
            return cls(name, np.asarray(code, np.int64), np.asarray(texts, object), None)
        single = values.dtype == np.float32
        code, kept = _round_codes(number, 1e-6 if single else 1e-12)
        return cls(name, code, kept, number)

    @property
    def present(self) -> NDArray[np.bool_]:
        """(n,) whether there is a value."""
        return self.code >= 0

    @property
    def varies(self) -> bool:
        """Whether it takes more than one value."""
        return len(self.values) > 1

    def shown(self, code: int) -> str:
        """Write one value for a message."""
        value = self.values[code]
        return repr(value) if isinstance(value, str) else f"{float(value) + 0.0:.6g}"


def _numbers(values: pd.Series) -> NDArray[np.float64] | None:
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(values.cat.categories.dtype)
    if pd.api.types.is_datetime64_any_dtype(values) or pd.api.types.is_timedelta64_dtype(values):
        start = values.min()
        return np.asarray((values - start) / pd.Timedelta(days=1), dtype=float)
    if pd.api.types.is_bool_dtype(values) or pd.api.types.is_numeric_dtype(values):
        number = values.to_numpy(dtype=float, na_value=np.nan)
    else:
        converted = pd.to_numeric(values, errors="coerce")
        if converted.isna().sum() > values.isna().sum():
            return None
        number = converted.to_numpy(dtype=float, na_value=np.nan)
    return np.where(np.isfinite(number), number, np.nan)


def _round_codes(
    number: NDArray[np.float64], relative: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Code values in order; neighbours closer than ``relative`` of the largest share a code."""
    code = np.full(len(number), -1, dtype=np.int64)
    present = np.isfinite(number)
    distinct, at = np.unique(number[present], return_inverse=True)
    if distinct.size == 0:
        return code, distinct
    new = np.diff(distinct) > relative * np.abs(distinct).max()
    group = np.concatenate([[0], np.cumsum(new)])
    code[present] = group[at]
    return code, distinct[np.unique(group, return_index=True)[1]]


def arms_equal(column: Column, draw: Draw) -> Pattern | None:
    """Two values, one for each arm: the column is the arm under another name."""
    seen = column.present
    if len(column.values) != 2:
        return None
    treated = draw.treated[seen]
    if treated.all() or not treated.any():
        return None
    for flip in (False, True):
        if np.array_equal((column.code[seen] == 1) ^ flip, treated):
            values = [column.shown(code) for code in ((0, 1) if flip else (1, 0))]
            how = f"equals the arm ({values[0]} for treated, {values[1]} for control)"
            return Pattern(how, draw.log_chance(seen) + math.log(2), certain=True)
    return None


def missing_in_one_arm(column: Column, draw: Draw) -> Pattern | None:
    """Missing values in one arm only."""
    gone = ~column.present
    if not gone.any():
        return None
    treated = draw.treated[gone]
    if treated.any() and not treated.all():
        return None
    name = "treated" if treated.all() else "control"
    whole = int(gone.sum()) == int((draw.treated == treated[0]).sum())
    if whole:
        how = f"is missing for every {name} unit and for no other, so that it equals the arm"
        return Pattern(how, draw.log_chance(np.ones_like(gone)) + math.log(2), certain=True)
    how = f"is missing for {len(treated):,} units, all of them {name}"
    throughout = draw.throughout(gone, gone.astype(np.int64))
    return Pattern(how, draw.log_chance(gone) + math.log(2), throughout=throughout)


def one_sided(column: Column, draw: Draw) -> Pattern | None:
    """One value for a whole arm while the other arm varies: treatment times something."""
    if not column.varies:
        return None
    best = None
    for constant, name, other in ((False, "control", "treated"), (True, "treated", "control")):
        inside = np.unique(column.code[column.present & (draw.treated == constant)])
        if inside.size != 1:
            continue
        off = column.present & (column.code != inside[0])
        log_chance = draw.log_chance(off) + draw.log_values(column.present)
        if best is None or log_chance < best.log_chance:
            best = Pattern(
                f"is {column.shown(inside[0])} for every {name} unit, while {int(off.sum()):,} "
                f"{other} units have other values",
                log_chance,
                throughout=draw.throughout(off, column.code),
            )
    return best


def pure_values(column: Column, draw: Draw) -> Pattern | None:
    """Each of a few values occurs in one arm only."""
    k = len(column.values)
    if k < 2 or (k > UNDECLARED_VALUES and not draw.clean):
        return None
    seen = column.present
    ones = np.bincount(column.code[seen], draw.treated[seen], minlength=k)
    size = np.bincount(column.code[seen], minlength=k)
    if not ((ones == 0) | (ones == size)).all():
        return None
    how = f"tells the arm: each of its {k} values occurs in one arm only"
    chance = draw.log_chance(seen) + k * math.log(2)
    return Pattern(how, chance, throughout=draw.throughout(seen, column.code))


def separated(column: Column, draw: Draw) -> Pattern | None:
    """One threshold splits the arms, up to a few units: the column contains the arm.

    Texts are taken in alphabetical order, so that ``T-0031`` against ``C-0007`` shows.
    """
    k = len(column.values)
    if k < 2:
        return None
    seen = column.present
    code, treated = column.code[seen], draw.treated[seen]
    ones, size = np.bincount(code, treated, minlength=k), np.bincount(code, minlength=k)
    if ones.sum() in (0, size.sum()):
        return None
    below1 = np.cumsum(ones)[:-1] / ones.sum()
    below0 = np.cumsum(size - ones)[:-1] / (size - ones).sum()
    cut = int(np.argmax(np.abs(below1 - below0)))
    high = bool(below0[cut] > below1[cut])
    wrong1, wrong0 = below1[cut], 1 - below0[cut]
    if not high:
        wrong1, wrong0 = 1 - wrong1, 1 - wrong0
    if max(wrong1, wrong0) > ERROR_SHARE:
        return None
    wrong = seen & (((column.code > cut) == high) != draw.treated)
    erring = np.zeros(draw.n_units, dtype=bool)
    erring[draw.unit[wrong]] = True
    right = seen & ~erring[draw.unit]
    chance = draw.log_chance(right) + math.log(2)
    if (r := int(erring.sum())) > 0 or not seen.all():
        chance += math.log(min(k, draw.n_units)) + float(log_choose(draw.n_units, r))
    low, up = ("control", "treated") if high else ("treated", "control")
    how = (
        f"contains the arm: {low} units have values up to {column.shown(cut)} and {up} units from "
        f"{column.shown(cut + 1)}, with {int(wrong.sum()):,} exceptions"
    )
    return Pattern(how, chance, throughout=draw.throughout(right, column.code))
