"""Labels of periods: regular ones, and one for each date on which there is an image."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pandas as pd

from eocausal.contracts import check_columns, some
from eocausal.errors import EmptyInputError, IngestError, SceneError
from eocausal.ingest.times import ALL, parse_period

__all__ = ["dates_of", "period_range"]

_WORDS: Final = {"day": "1D", "month": "1M", "quarter": "3M", "year": "1Y"}
_LENGTH: Final = re.compile(r"([1-9]\d*)?([DMY])")
_INSTANT: Final = pd.Timedelta(1, unit="us")


def period_range(start: str, end: str, every: str = "month") -> list[str]:
    """Cut a stretch of time into periods, one after another.

    Parameters
    ----------
    start, end
        First and last year, month or day, both inclusive: ``'1998'``, ``'1998-01'``,
        ``'1998-01-01'``.
    every
        ``'day'``, ``'month'``, ``'quarter'``, ``'season'`` (December to February and so on; only
        seasons that lie wholly inside), ``'year'``, or a number with D, M or Y, such as ``'8D'``
        or ``'3M'``. Days are counted anew from each 1 January, as those of 8-day composites of
        MODIS and ocean colour are, so the last period of a year may be shorter; the last of all
        ends with ``end``.

    Returns
    -------
    list of str
        Labels as ``periods=`` takes them.

    Raises
    ------
    IngestError
        If ``every`` cannot be read, the stretch runs backwards, or months and years would begin
        in the middle of one.

    Examples
    --------
    >>> period_range("1998-11", "1999-01")
    ['1998-11', '1998-12', '1999-01']
    >>> period_range("1998-11", "1999-12", "season")[:2]
    ['1998-12/1999-02', '1999-03/1999-05']
    >>> period_range("2015", "2015", "8D")[-1]
    '2015-12-27/2015-12-31'
    """
    if ALL in (start, end):
        raise IngestError(
            f"A range of periods cannot start or end with {ALL!r}.",
            cause="It has no first and no last day.",
            next_step="Give years, months or days, e.g. period_range('1998', '2022').",
        )
    first, last = parse_period(f"{start}/{end}")
    if every == "season":
        return _seasons(first, last)
    match = _LENGTH.fullmatch(_WORDS.get(every, every))
    if match is None:
        raise IngestError(
            f"every={every!r} is not a length of time.",
            cause="It is neither a word for one nor a number with D, M or Y.",
            next_step="Write 'day', 'month', 'quarter', 'season', 'year', or e.g. '8D'.",
        )
    length, unit = int(match[1] or 1), match[2]
    if unit == "D":
        return _days(first, last, length)
    return _months(first, last, length, unit)


def _days(first: pd.Timestamp, last: pd.Timestamp, length: int) -> list[str]:
    labels, begin = [], first
    while begin <= last:
        until = min(begin + pd.Timedelta(days=length), pd.Timestamp(begin.year + 1, 1, 1))
        labels.append(_label(begin, min(until - _INSTANT, last)))
        begin = until
    return labels


def _months(first: pd.Timestamp, last: pd.Timestamp, length: int, unit: str) -> list[str]:
    after = last + _INSTANT
    begins = [t for t in (first, after) if t.day != 1 or (unit == "Y" and t.month != 1)]
    if begins:
        what = "year" if unit == "Y" else "month"
        raise IngestError(
            f"The stretch {first:%Y-%m-%d} to {last:%Y-%m-%d} cuts a {what}.",
            cause=f"It would hold a part of a {what} that looks like a whole one.",
            next_step=f"Start on the first and end on the last day of a {what}, or count in days.",
        )
    step = length * (12 if unit == "Y" else 1)
    starts = pd.period_range(first, last, freq="M")[::step]
    labels = []
    for period in starts:
        until = min(period + step - 1, pd.Period(last, freq="M"))
        ends = (period.year, until.year) if unit == "Y" else (period, until)
        labels.append(str(ends[0]) if ends[0] == ends[1] else f"{ends[0]}/{ends[1]}")
    return labels


def _seasons(first: pd.Timestamp, last: pd.Timestamp) -> list[str]:
    months = pd.period_range(first, last, freq="M")
    starts = [m for m in months if m.month in (3, 6, 9, 12)]
    return [f"{m}/{m + 2}" for m in starts if m.start_time >= first and (m + 2).end_time <= last]


def _label(begin: pd.Timestamp, end: pd.Timestamp) -> str:
    a, b = f"{begin:%Y-%m-%d}", f"{end:%Y-%m-%d}"
    return a if a == b else f"{a}/{b}"


def dates_of(scenes: pd.DataFrame, *, within: int = 0) -> list[str]:
    """Make a period of every date on which a scene was taken, for irregular image sequences.

    Parameters
    ----------
    scenes
        Table of scenes (columns ``time``, ``time_end``, ``href``).
    within
        Scenes whose days all lie within so many days of the first of them share a period, as the
        tiles of one overpass, or the passes of one week, should. Scenes that overlap in time
        (a day within a monthly composite) always share one.

    Returns
    -------
    list of str
        Labels as ``periods=`` takes them: ``'YYYY-MM-DD'``, or ``'YYYY-MM-DD/YYYY-MM-DD'`` where
        several days share a period. They are in order and do not overlap.

    Raises
    ------
    EmptyInputError, MissingColumnError, SceneError, IngestError
        If there is no scene, a scene has no date, or ``within`` is not a number of days.

    Examples
    --------
    >>> days = pd.to_datetime(["2020-05-01 10:30", "2020-05-01 10:31", "2020-05-06 10:30"])
    >>> dates_of(pd.DataFrame({"href": ["a", "b", "c"], "time": days, "time_end": days}))
    ['2020-05-01', '2020-05-06']
    """
    check_columns(scenes, ("href", "time", "time_end"), what="table of scenes")
    if len(scenes) == 0:
        raise EmptyInputError(
            "There are no scenes.",
            cause="The table has no rows.",
            next_step="Give a table from scan().",
        )
    if int(within) != within or within < 0:
        raise IngestError(
            f"within is {within!r}.",
            cause="It is a number of days, 0 or more.",
            next_step="Give e.g. within=3.",
        )
    undated = scenes.loc[scenes["time"].isna(), "href"]
    if len(undated):
        names = some(dict.fromkeys(Path(str(h)).name for h in undated))
        raise SceneError(
            f"{len(undated)} scenes have no date: {names}.",
            cause="They belong to no day.",
            next_step="Pass time=... when scanning, or leave these scenes out.",
        )
    begins = pd.to_datetime(scenes["time"]).dt.normalize()
    ends = pd.to_datetime(scenes["time_end"]).dt.normalize().fillna(begins)
    spans: list[tuple[pd.Timestamp, pd.Timestamp]] = []
    for begin, end in sorted(set(zip(begins, ends, strict=True))):
        if spans and (begin <= spans[-1][1] or (end - spans[-1][0]).days <= within):
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((begin, end))
    return [_label(*span) for span in spans]
