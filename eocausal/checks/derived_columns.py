"""Refuse confounders of a study of placed treatments that were made from the treatment.

Where treatment was placed, a column may tell the arms apart by right: a country in which nobody
was treated, a rule by which only poor districts were. That is a lack of overlap, which weighting
states itself, and no ground to suspect the column; :mod:`eocausal.checks.leakage`, which takes
every column that tells the arm for a leak, holds for trials only. Here only patterns of derivation
count, and each of them leaves nobody to compare, so that nothing is lost where it arose by right:

equal
    A column that takes one value in each arm.
one-sided
    A column that takes one value in an arm and never that value elsewhere, where it varies from
    unit to unit (treatment times a dose, a column that only exists for the treated).
product
    A column that takes one value in an arm and, in the other, is exactly linear in another column
    of the table, which varies in both (treatment times a covariate).
two lines
    A column that is exactly linear in another one, with one line for each arm.

Treatment times something that is no column of the table, and is often zero, cannot be told from
a covariate that is zero for a whole arm, and passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.checks.base import CheckResult, Verdict
from eocausal.checks.leakage import Leak
from eocausal.contracts import some
from eocausal.errors import LeakageError
from eocausal.estimators.confounders import TABLE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.observational import Observed
    from eocausal.estimators.weighting import Weighted

__all__ = ["DerivedColumns", "derived_columns", "refuse_derived_columns"]

MIN_CONSTANT = 10
"""Fewest units that must share one value before their doing so counts."""

MIN_DISTINCT = 10
"""Fewest values of a column through which a line for each arm counts as no coincidence."""

COMMON = 0.1
"""Least share of each value of a yes/no column in both arms for its product to count."""

MISSING = " missing"


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    """A confounder as numbers (a column of texts as codes), NaN where it was imputed."""

    name: str
    x: NDArray[np.float64]
    texts: bool

    @property
    def seen(self) -> NDArray[np.bool_]:
        return np.isfinite(self.x)

    def shown(self, value: float) -> str:
        return "one text" if self.texts else f"{value + 0.0:.6g}"


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """The units of one arm against all others."""

    inside: NDArray[np.bool_]
    name: str
    others: str


def derived_columns(data: Observed) -> list[Leak]:
    """Find the columns among the confounders that were made from the treatment.

    Parameters
    ----------
    data
        The study. Features of images are not looked at. Partners by which a product shows may be
        any numeric column of ``data.units`` but treatment and outcome. Where a column was imputed
        and has an indicator ``NAME missing``, imputed values are left out.

    Returns
    -------
    list of Leak
        At most one for each column, in the order of the confounders; ``given`` names the partner.
    """
    sides = _sides(data)
    columns = list(_columns(data))
    partners = _partners(data)
    found: dict[str, Leak] = {}
    for column in columns:
        hit = _alone(column, data, sides) or _product(column, sides, partners)
        if hit is not None:
            found[column.name] = hit
    _add_lines(found, columns, data, partners)
    return [found[c.name] for c in columns if c.name in found]


def refuse_derived_columns(data: Observed) -> None:
    """Raise if a confounder was made from the treatment; see :func:`derived_columns`.

    Raises
    ------
    LeakageError
        Naming every such column and the pattern.
    """
    leaks = derived_columns(data)
    if not leaks:
        return
    names = [leak.column for leak in leaks]
    many = len(names) > 1
    raise LeakageError(
        f"{len(names)} confounder{'s were' if many else ' was'} made from the treatment "
        f"{data.treatment!r}: " + "; ".join(map(str, leaks)) + ".",
        cause="A column made from the treatment predicts it without having led to it: adjusting "
        "for it leaves nobody to compare, or removes part of the effect.",
        next_step=f"Leave {some(names, 20)} out. If a column names a group that was treated as a "
        "whole, there is no comparison within it: compare groups, or other units.",
    )


def _sides(data: Observed) -> list[_Side]:
    if len(data.arms) == 2:
        return [_Side(data.arm == 1, "treated unit", "untreated unit")]
    return [
        _Side(data.arm == k, f"unit in arm {name!r}", "unit in another arm")
        for k, name in enumerate(data.arms)
    ]


def _columns(data: Observed) -> Iterator[_Column]:
    """Yield the confounders of the table, indicators of one column of texts put together."""
    c = data.confounders
    table = [i for i, b in enumerate(c.block) if c.blocks[b] == TABLE]
    at = {c.names[i]: i for i in table}
    groups: dict[str, list[int]] = {}
    for i in table:
        stem = c.names[i].split("=", 1)[0]
        groups.setdefault(stem if "=" in c.names[i] else c.names[i], []).append(i)
    for name, places in groups.items():
        if name.endswith(MISSING) and name.removesuffix(MISSING) in groups:
            continue
        texts = any("=" in c.names[i] for i in places)
        x = c.x[:, places[0]].copy()
        if texts:
            x = c.x[:, places] @ np.arange(1.0, len(places) + 1)
        gone = at.get(name + MISSING)
        if gone is not None:
            x = np.where(c.x[:, gone] == 1, math.nan, x)
        yield _Column(name, x, texts)


def _partners(data: Observed) -> dict[str, NDArray[np.float64]]:
    """Return the numeric columns of the table that vary."""
    found = {}
    for name in data.units.columns:
        values = data.units[name]
        number = pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values)
        if name in (data.treatment, data.outcome) or not number:
            continue
        z = values.to_numpy(float, na_value=np.nan)
        z = np.where(np.isfinite(z), z, np.nan)
        if f"{name}{MISSING}" in data.units:
            z = np.where(data.units[f"{name}{MISSING}"] == 1, np.nan, z)
        if np.isfinite(z).any() and np.nanmin(z) < np.nanmax(z):
            found[str(name)] = z
    return found


def _alone(column: _Column, data: Observed, sides: list[_Side]) -> Leak | None:
    x, seen = column.x, column.seen
    for side in sides:
        for inside, who in ((side.inside, side.name), (~side.inside, side.others)):
            if inside.any() and np.array_equal(~seen, inside):
                return _leak(column, f"is missing for every {who} and for nobody else")
    if not seen.any() or np.nanmin(x) == np.nanmax(x):
        return None
    by_arm = [np.unique(x[seen & (data.arm == k)]) for k in range(len(data.arms))]
    if all(values.size == 1 for values in by_arm):
        values = ", ".join(
            f"{column.shown(float(v[0]))} for {name!r}"
            for v, name in zip(by_arm, data.arms, strict=True)
        )
        return _leak(column, f"equals the treatment ({values})")
    for side in sides:
        for inside, name, others in (
            (side.inside, side.name, side.others),
            (~side.inside, side.others, side.name),
        ):
            hit = _one_sided(column, inside)
            if hit is not None:
                how = f"is {hit} for every {name} and never for any {others}, where it varies"
                return _leak(column, how)
    return None


def _one_sided(column: _Column, inside: NDArray[np.bool_]) -> str | None:
    """Return the one value in these rows if it never occurs elsewhere, where values vary."""
    x, seen = column.x, column.seen
    mine, theirs = x[seen & inside], x[seen & ~inside]
    if len(mine) == 0 or np.ptp(mine) > 0 or (theirs == mine[0]).any():
        return None
    by_unit = mine[0] == 0 or column.texts or 2 * np.unique(theirs).size >= len(theirs)
    counts = by_unit and len(mine) >= MIN_CONSTANT and len(theirs) > 0 and np.ptp(theirs) > 0
    return column.shown(float(mine[0])) if counts else None


def _product(
    column: _Column, sides: list[_Side], partners: dict[str, NDArray[np.float64]]
) -> Leak | None:
    """Find a partner of which a column that is constant in an arm is a line in the other."""
    if column.texts:
        return None
    for side in sides:
        for inside, name, others in (
            (side.inside, side.others, side.name),
            (~side.inside, side.name, side.others),
        ):
            fixed = column.x[column.seen & ~inside]
            if len(fixed) < MIN_CONSTANT or np.ptp(fixed) > 0:
                continue
            for other, z in partners.items():
                if other != column.name and _times(column.x, z, inside, float(fixed[0])):
                    how = (
                        f"is {column.shown(float(fixed[0]))} for every {name}, and a function of "
                        f"{other} for every {others}"
                    )
                    return _leak(column, how, other)
    return None


def _times(
    x: NDArray[np.float64], z: NDArray[np.float64], inside: NDArray[np.bool_], fixed: float
) -> bool:
    """Whether x is linear in z in these rows and could have been so in the others, but is fixed."""
    both = np.isfinite(x) & np.isfinite(z)
    mine, theirs = both & inside, both & ~inside
    line = _line(x[mine], z[mine])
    if line is None or not theirs.any():
        return False
    if np.unique(z[mine]).size == 2:
        if np.unique(z[theirs]).size > 2:
            return False
        shares = [np.mean(z[rows] == z[mine][0]) for rows in (mine, theirs)]
        if min(shares) < COMMON or max(shares) > 1 - COMMON:
            return False
    off = np.abs(line[0] + line[1] * z[theirs] - fixed) > line[2]
    return int(off.sum()) >= MIN_CONSTANT and bool(np.unique(z[theirs]).size > 1)


def _line(x: NDArray[np.float64], z: NDArray[np.float64]) -> tuple[float, float, float] | None:
    """Return intercept, slope and tolerance of the line on which all points lie, or None."""
    if len(z) < 2 or np.ptp(z) == 0 or np.ptp(x) == 0:
        return None
    low, high = int(np.argmin(z)), int(np.argmax(z))
    slope = (x[high] - x[low]) / (z[high] - z[low])
    start = x[low] - slope * z[low]
    tolerance = 1e-7 * float(np.ptp(x) + np.finfo(float).eps * np.abs(x).max())
    exact = np.abs(start + slope * z - x).max() <= tolerance
    return (float(start), float(slope), tolerance) if exact and slope != 0 else None


def _lines(
    column: _Column, data: Observed, partners: dict[str, NDArray[np.float64]]
) -> Iterator[str]:
    """Yield the partners on which the column depends by another line in each arm."""
    if column.texts or np.unique(column.x[column.seen]).size < MIN_DISTINCT:
        return
    for other, z in partners.items():
        both = column.seen & np.isfinite(z)
        fitted = []
        for k in range(len(data.arms)):
            rows = both & (data.arm == k)
            line = _line(column.x[rows], z[rows])
            if line is None or np.unique(z[rows]).size < MIN_DISTINCT:
                break
            fitted.append((line, float(z[rows].min()), float(z[rows].max())))
        if len(fitted) == len(data.arms) and _differ(fitted):
            yield other


def _add_lines(
    found: dict[str, Leak],
    columns: list[_Column],
    data: Observed,
    partners: dict[str, NDArray[np.float64]],
) -> None:
    """Of each pair that tells the arm together, name the confounder nearer to the treatment."""
    rest = {c.name: c for c in columns if c.name not in found}
    pairs = [(name, other) for name, c in rest.items() for other in _lines(c, data, partners)]
    order = {name: i for i, name in enumerate(rest)}

    def nearness(name: str) -> tuple[float, float]:
        x = rest[name].x if name in rest else partners[name]
        return round(_explained(x, data.arm), 2), order.get(name, math.inf)

    for name, other in pairs:
        if nearness(name) > nearness(other) and name not in found and other not in found:
            how = f"is a linear function of {other}, with another line in each arm"
            found[name] = _leak(rest[name], how, other)


def _explained(x: NDArray[np.float64], arm: NDArray[np.int64]) -> float:
    """Share of a column's variance that lies between arms."""
    seen = np.isfinite(x)
    x, arm = x[seen], arm[seen]
    size = np.bincount(arm)
    mean = np.bincount(arm, x - x.mean()) / np.maximum(size, 1)
    return float(size @ mean**2 / (len(x) * x.var()))


def _differ(fitted: list[tuple[tuple[float, float, float], float, float]]) -> bool:
    """Whether lines differ by more than rounding where the first of them was seen."""
    (start, slope, tolerance), low, high = fitted[0]
    return any(
        max(abs(start + slope * z - (a + b * z)) for z in (low, high)) > 10 * (tolerance + t)
        for (a, b, t), _, _ in fitted[1:]
    )


def _leak(column: _Column, how: str, *given: str) -> Leak:
    return Leak(column.name, given, how, math.nan)


@dataclass(frozen=True, slots=True)
class DerivedColumns:
    """Check that no confounder was made from the treatment; see :func:`derived_columns`."""

    def run(self, subject: Weighted) -> CheckResult:
        """Look at every confounder of the table; fail if one was made from the treatment."""
        leaks = derived_columns(subject.data)
        names = [leak.column for leak in leaks]
        table = pd.DataFrame(
            [(k.column, ", ".join(k.given), k.how) for k in leaks],
            columns=["column", "given", "how"],
        )
        claim = (
            f"{some(names, 20)} {'were' if len(names) > 1 else 'was'} made from the treatment."
            if names
            else "No confounder of the table was made from the treatment."
        )
        return CheckResult(
            "Confounders made from the treatment",
            Verdict.FAIL if names else Verdict.PASS,
            claim,
            " ".join(f"{leak}." for leak in leaks),
            table,
            {"derived": names},
        )
