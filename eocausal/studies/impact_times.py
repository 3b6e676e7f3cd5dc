"""Times of a table's rows, and events named by date or by row."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pandas.api import types

from eocausal.contracts import check_columns
from eocausal.designs import Event
from eocausal.errors import AlignmentError, DesignError

if TYPE_CHECKING:
    from eocausal.estimators.impact_windows import EventRow

__all__ = ["Timed", "read_events", "timed"]

NAMES = ("time", "date", "datetime", "timestamp", "period", "day", "week", "month", "year")
YEARS = (1000, 3000)


@dataclass(frozen=True, slots=True, eq=False)
class Timed:
    """A table indexed by its times.

    Attributes
    ----------
    table
        Indexed by dates, or by numbers where it has none.
    columns
        Columns that hold the times.
    notes
        What was done, in sentences.
    """

    table: pd.DataFrame
    columns: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def dated(self) -> bool:
        """Whether times are dates."""
        return isinstance(self.table.index, pd.DatetimeIndex)


def timed(table: pd.DataFrame, column: str | None = None) -> Timed:
    """Index a table by its times, in order.

    Without a column named, columns year and month (and day), then one called time or date, then
    the first text that reads as dates are looked for; otherwise rows are numbered from 0.

    Raises
    ------
    MissingColumnError
        If the column is not there.
    AlignmentError
        If it does not read as times.
    """
    if column is not None:
        check_columns(table, [column], what="table")
        return _indexed(table, _times(table[column], column), (column,))
    lower = {str(name).lower(): str(name) for name in table.columns}
    if {"year", "month"} <= set(lower) and types.is_numeric_dtype(table[lower["month"]]):
        parts = {p: table[lower[p]] for p in ("year", "month", "day") if p in lower}
        columns = tuple(lower[part] for part in parts)
        return _indexed(table, pd.Index(pd.to_datetime(pd.DataFrame({"day": 1, **parts}))), columns)
    for name in NAMES:
        if name in lower:
            return _indexed(table, _times(table[lower[name]], lower[name]), (lower[name],))
    for name in table.columns:
        if not types.is_numeric_dtype(table[name]) and (found := _dates(table[name])) is not None:
            return _indexed(table, found, (str(name),))
    return Timed(table.reset_index(drop=True), ())


def _indexed(table: pd.DataFrame, times: pd.Index, columns: tuple[str, ...]) -> Timed:
    out = table.set_axis(times, axis=0)
    notes: tuple[str, ...] = ()
    if not times.isna().any() and not times.is_monotonic_increasing:
        out = out.sort_index(kind="stable")
        notes = (f"Rows were sorted by {', '.join(columns)}.",)
    return Timed(out, columns, notes)


def _times(values: pd.Series, name: str) -> pd.Index:
    """Read dates; years, year and month (199801), days (19980131), years with fractions."""
    if types.is_datetime64_any_dtype(values):
        return pd.DatetimeIndex(values)
    if types.is_numeric_dtype(values):
        return _numbered(values)
    found = _dates(values)
    if found is None:
        raise AlignmentError(
            f"The column {name!r} does not read as dates, such as {str(values.iloc[0])!r}.",
            cause="Times are dates, or whole numbers.",
            next_step="Write dates as YYYY-MM-DD, or name another column with --time.",
        )
    return found


def _numbered(values: pd.Series) -> pd.Index:
    """Read years, year and month, days, years with fractions; else leave numbers as they are."""
    number = values.to_numpy(dtype=float)
    known = number[np.isfinite(number)]
    low, high = YEARS
    plain: pd.Index = pd.Index(number)
    if not len(known):
        return plain
    whole = bool((known == np.round(known)).all())
    if whole and low <= known.min() and known.max() <= high and len(np.unique(known)) == len(known):
        return pd.DatetimeIndex(pd.to_datetime(values.astype("Int64").astype(str), format="%Y"))
    for digits, form in ((6, "%Y%m"), (8, "%Y%m%d")):
        if whole and (np.floor(np.log10(np.maximum(known, 1))) == digits - 1).all():
            read = pd.to_datetime(values.astype("Int64").astype(str), format=form, errors="coerce")
            if read.notna().all():
                return pd.DatetimeIndex(read)
    if not whole and low <= known.min() and known.max() <= high:
        month = np.floor(number * 12 + 0.02).astype(np.int64)
        parts = {"year": month // 12, "month": month % 12 + 1, "day": 1}
        return pd.DatetimeIndex(pd.to_datetime(pd.DataFrame(parts)))
    if whole and len(known) == len(number):
        plain = pd.Index(number.astype(np.int64))
    return plain


def _dates(values: pd.Series) -> pd.DatetimeIndex | None:
    """Read dates, the day first where rows are only in order, or evenly spaced, that way."""
    found: list[pd.DatetimeIndex] = []
    for day_first in (False, True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read = pd.to_datetime(values, errors="coerce", dayfirst=day_first)
        if types.is_datetime64_any_dtype(read) and (read.notna() | values.isna()).all():
            found.append(pd.DatetimeIndex(read))
    ordered = [index for index in found if index.is_monotonic_increasing]
    return min(ordered or found, key=_unevenness, default=None)


def _unevenness(index: pd.DatetimeIndex) -> float:
    """Return how much steps differ in length: days taken for months come in bursts."""
    gaps = np.diff(index.dropna().asi8).astype(float)
    return float(gaps.std() / max(abs(gaps.mean()), 1.0)) if len(gaps) else 0.0


def read_events(
    found: Timed, texts: Sequence[str], end: str | None, learn_until: str | None
) -> tuple[Event | EventRow | list[Event | EventRow], str | int | None]:
    """Read events, ``2019-05`` or ``2012-01..2013-12``, and the last time to learn from.

    Where there are dates a number of four digits is a year if the record has that year or not as
    many rows. Other numbers are rows, counted from 0 (the number of rows before the event), or
    values of a time column of numbers.

    Raises
    ------
    DesignError
        If ``end`` is given with several events, or with one that has its own end.
    AlignmentError
        If a text is neither a date nor a row.
    """
    events: list[Event | EventRow] = []
    for text in texts:
        first, dots, last = (part.strip() for part in text.partition(".."))
        if end is not None and (dots or len(texts) > 1):
            raise DesignError(
                "--end with several events, or one that has an end.",
                cause="It would not be clear which event it ends.",
                next_step="Write each as FIRST..LAST.",
            )
        events.append(_event(found, first, last or end))
    until: str | int | None = learn_until
    if learn_until is not None and not _is_date(found, learn_until):
        until = _row(found, learn_until, last=True)
    return (events[0] if len(events) == 1 else events), until


def _event(found: Timed, first: str, last: str | None) -> Event | EventRow:
    from eocausal.estimators.impact_windows import EventRow

    dates = [_is_date(found, text) for text in (first, last) if text is not None]
    if all(dates):
        return Event(first, last)
    if any(dates):
        raise AlignmentError(
            f"The event goes from {first} to {last}.",
            cause="One is a date, the other a row.",
            next_step="Write both the same way.",
        )
    return EventRow(_row(found, first), None if last is None else _row(found, last, last=True))


def _is_date(found: Timed, text: str) -> bool:
    if not found.dated:
        return False
    if not text.isdigit():
        return True
    years = pd.DatetimeIndex(found.table.index).year
    inside = years.min() <= int(text) <= years.max()
    return len(text) == 4 and (inside or int(text) >= len(found.table))


def _row(found: Timed, text: str, *, last: bool = False) -> int:
    try:
        number = int(text)
    except ValueError as error:
        raise AlignmentError(
            f"{text!r} is not a row.",
            cause="The table has no dates, so that times are whole numbers.",
            next_step="Give a row counted from 0, or name the column of dates with --time.",
        ) from error
    index = found.table.index
    if found.dated or not found.columns:
        return number
    numbers = index.to_numpy(dtype=float)
    return int((numbers <= number).sum()) - 1 if last else int((numbers < number).sum())
