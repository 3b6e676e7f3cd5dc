"""Dates of scenes and labels of periods.

A date that is known only to the month or year stands for the whole month or year, so a time is
always an interval ``(first, last)``. A scene belongs to a period that contains all of it.
"""

from __future__ import annotations

import re
from typing import Final

import pandas as pd

from eocausal.errors import IngestError

__all__ = ["ALL", "date_in_name", "parse_period", "read_date", "span_of"]

ALL: Final = "all"

_YEAR = r"(?<!\d)(?P<year>(?:19|20)\d{2})"
_NAME_PATTERNS: Final = tuple(
    re.compile(_YEAR + rest)
    for rest in (
        r"(?P<month>0[1-9]|1[0-2])(?P<day>0[1-9]|[12]\d|3[01])(?!\d)",
        r"(?P<sep>[-_.])(?P<month>\d{1,2})(?P=sep)(?P<day>\d{1,2})(?!\d)",
        r"(?P<doy>[0-3]\d{2})(?!\d)",
        r"(?P<month>0[1-9]|1[0-2])(?!\d)",
        r"[-_.](?P<month>0[1-9]|1[0-2])(?!\d)",
        r"(?!\d)",
    )
)
_LABEL = re.compile(r"\d{4}(-\d{2}){0,2}")
_MOMENT = re.compile(
    r"\d{4}([-/]?)\d{2}\1\d{2}"
    r"([T ]\d{2}(:?\d{2}(:?\d{2}([.,]\d+)?)?)?\s*(Z|UTC|[+-]\d{2}(:?\d{2})?)?)?"
)
_FREQUENCY: Final = {4: "Y", 7: "M", 10: "D"}

Span = tuple[pd.Timestamp, pd.Timestamp]


def span_of(label: str) -> Span:
    """Turn ``'YYYY'``, ``'YYYY-MM'`` or ``'YYYY-MM-DD'`` into its first and last instant."""
    if not _LABEL.fullmatch(label):
        raise ValueError(f"{label!r} is not a year, month or day")
    period = pd.Period(label, freq=_FREQUENCY[len(label)])
    return period.start_time, period.end_time


def parse_period(label: str) -> Span:
    """Turn the label of a period into its first and last instant, both inclusive.

    Parameters
    ----------
    label
        ``'YYYY'``, ``'YYYY-MM'``, ``'YYYY-MM-DD'``, two of these joined by ``/`` (an inclusive
        range), or ``'all'``.

    Raises
    ------
    IngestError
        If the label is none of these, or the range runs backwards.

    Examples
    --------
    >>> [str(t.date()) for t in parse_period("1999/2001")]
    ['1999-01-01', '2001-12-31']
    """
    label = str(label).strip()
    if label == ALL:
        return pd.Timestamp.min, pd.Timestamp.max
    start, _, end = (part.strip() for part in label.partition("/"))
    try:
        first, last = span_of(start)[0], span_of(end if "/" in label else start)[1]
    except ValueError as error:
        raise IngestError(
            f"The period {label!r} cannot be read.",
            cause=f"{error}.",
            next_step="Write '2010', '2010-05', '1999/2001', '2010-03-01/2010-05-31' or 'all'.",
        ) from error
    if first > last:
        raise IngestError(
            f"The period {label!r} ends before it begins.",
            cause="Its second date is earlier than its first.",
            next_step="Swap the two dates.",
        )
    return first, last


def _from_groups(groups: dict[str, str | None]) -> Span | None:
    if groups.get("date"):
        return read_date(str(groups["date"]))
    year, month, day, doy = (groups.get(k) for k in ("year", "month", "day", "doy"))
    if not year:
        return None
    try:
        if doy:
            start = pd.Timestamp(int(year), 1, 1) + pd.Timedelta(days=int(doy) - 1)
            return span_of(start.strftime("%Y-%m-%d")) if start.year == int(year) else None
        if month and day:
            return span_of(f"{year}-{int(month):02d}-{int(day):02d}")
        return span_of(f"{year}-{int(month):02d}" if month else year)
    except ValueError:
        return None


def read_date(text: str) -> Span | None:
    """Read a date or date-time (ISO, ``YYYYMMDD`` or TIFF's ``YYYY:MM:DD hh:mm:ss``), or None.

    Two of them joined by ``/`` are the interval from the first to the second. Times with an
    offset are turned into UTC; the result is UTC without a zone.
    """
    text = text.strip()
    if _LABEL.fullmatch(text):
        try:
            return span_of(text)
        except ValueError:
            return None
    text = re.sub(r"^(\d{4}):(\d{2}):(\d{2})", r"\1-\2-\3", text)
    if text.count("/") == 1:
        first, last = (read_date(part) for part in text.split("/"))
        return (first[0], last[1]) if first and last and first[0] <= last[1] else None
    if not _MOMENT.fullmatch(text):
        return None
    try:
        moment = pd.Timestamp(text)
    except ValueError:
        return None
    if moment.tzinfo is not None:
        moment = moment.tz_convert("UTC").tz_localize(None)
    midnight = moment == moment.normalize()
    return span_of(moment.strftime("%Y-%m-%d")) if midnight else (moment, moment)


def date_in_name(name: str, pattern: str | None = None) -> Span | None:
    """Find the date in a file name: the first full date, else day of year, month or year.

    Parameters
    ----------
    name
        File name, with or without folders in front when ``pattern`` is given.
    pattern
        Regular expression with a named group ``date``, or ``year`` and optionally ``month`` and
        ``day`` (or ``doy``); instead of the built-in patterns.
    """
    for compiled in (re.compile(pattern),) if pattern else _NAME_PATTERNS:
        for match in compiled.finditer(name):
            found = _from_groups(match.groupdict())
            if found is not None:
                return found
    return None
