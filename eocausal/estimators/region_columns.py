"""Columns that say where units are, and conditions on them in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.estimators.confounders import TABLE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.confounders import Confounders

__all__ = ["Column", "Interval", "columns_of", "condition", "encoded"]

PLACES = ("lon", "lat", "longitude", "latitude", "country")

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """A column to split on: numbers, or codes of texts where there are levels."""

    name: str
    values: NDArray[np.float64]
    levels: tuple[str, ...] = ()
    since: pd.Timestamp | None = None

    def at(self, rows: NDArray[np.bool_]) -> Column:
        """Keep some units."""
        return Column(self.name, self.values[rows], self.levels, self.since)

    def encoded(self, bad: NDArray[np.bool_], rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return (n,) numbers; texts by the share of ``bad`` among ``rows`` with that value."""
        if not self.levels:
            return self.values
        code = self.values.astype(np.int64)
        k = len(self.levels)
        count = np.bincount(code[rows], minlength=k)
        hits = np.bincount(code[rows], bad[rows], minlength=k)
        share = (hits + bad[rows].mean()) / (count + 1)
        return np.asarray(share[code])


def columns_of(
    confounders: Confounders, units: pd.DataFrame, *, places: bool = True
) -> list[Column]:
    """Collect the columns of the table, and of ``places``, that are complete and vary.

    Indicators ``column=value`` become one column of texts again.
    """
    table = confounders.blocks.index(TABLE) if TABLE in confounders.blocks else -1
    found: dict[str, Column] = {}
    for j in np.flatnonzero(confounders.block == table):
        name = confounders.names[j]
        text, _, level = name.partition("=")
        if level and name not in units.columns and text in units.columns:
            found.setdefault(text, _of_texts(text, units[text]))
            continue
        since = None
        if name in units.columns and pd.api.types.is_datetime64_any_dtype(units[name]):
            since = units[name].min()
        found[name] = Column(name, confounders.x[:, j], since=since)
    for name in PLACES if places else ():
        if name not in units.columns or name in found:
            continue
        values = units[name]
        if pd.api.types.is_numeric_dtype(values):
            found[name] = Column(name, values.to_numpy(dtype=float, na_value=np.nan))
        else:
            found[name] = _of_texts(name, values)
    return [c for c in found.values() if np.isfinite(c.values).all() and np.ptp(c.values) > 0]


def _of_texts(name: str, values: pd.Series) -> Column:
    code, levels = pd.factorize(values.astype(str), sort=True)
    return Column(name, code.astype(float), tuple(map(str, levels)))


def encoded(
    columns: list[Column], bad: NDArray[np.bool_], rows: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return (n, columns) numbers, texts by the share of ``bad`` among ``rows``."""
    return np.stack([column.encoded(bad, rows) for column in columns], axis=1)


def condition(
    column: Column, coded: NDArray[np.float64], ends: Interval, elsewhere: NDArray[np.bool_]
) -> str:
    """Say a condition on a column for the units that meet the others of its box."""
    low, high = ends
    inside = (coded > low) & (coded <= high)
    if column.levels:
        here = np.unique(column.values[inside]).astype(int)
        if 2 * len(here) <= len(column.levels):
            return f"{column.name} {_listed([column.levels[k] for k in here])}"
        there = np.setdiff1d(np.arange(len(column.levels)), here)
        return f"{column.name} not {_listed([column.levels[k] for k in there])}"
    if len(np.unique(column.values)) == 2:
        return f"{column.name} = {column.values[inside][0]:.4g}"
    near = column.values[elsewhere]
    first, last = ("" if math.isinf(cut) else _written(column, near, cut) for cut in ends)
    below, above = ("below", "above") if column.since is None else ("before", "after")
    if not first:
        return f"{column.name} {below} {last}"
    if not last:
        return f"{column.name} {above} {first}"
    return f"{column.name} between {first} and {last}"


def _listed(names: list[str], limit: int = 6) -> str:
    if len(names) > limit:
        return f"{', '.join(names[:limit])} or {len(names) - limit} more"
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _written(column: Column, near: NDArray[np.float64], cut: float) -> str:
    """Write the roundest number that parts the units as ``cut`` does."""
    under, over = near[near <= cut], near[near > cut]
    number = _roundest(float(under.max()), float(over.min())) if under.size and over.size else cut
    if column.since is not None:
        return f"{column.since + pd.Timedelta(days=number):%Y-%m-%d}"
    return f"{number:.12g}"


def _roundest(low: float, high: float) -> float:
    """Return the number with the fewest digits strictly between two numbers."""
    middle = (low + high) / 2
    first = math.floor(math.log10(high - low))
    for digits in range(-first - 1, -first + 3):
        number = round(middle, digits)
        if low < number < high:
            return float(number) + 0.0
    return middle
