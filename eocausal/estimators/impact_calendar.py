"""A series on the calendar it belongs to: every step has its place, missing ones are gaps.

A structural model takes one step from each time to the next. Where rows are missing (a month
without an image) they are put back without a value. Calendars are years, quarters, months, a
number of days, a number of days that begins anew each year (8- and 16-day composites), dekads and
half months, or whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eocausal.contracts import some
from eocausal.errors import AlignmentError, DuplicateIdError, PanelError
from eocausal.estimators.composite_calendars import Composites, composites_of

__all__ = ["RegularTimes", "plain_times", "regular_times", "time_label"]

Int64 = NDArray[np.int64]
MOST_ADDED = 4  # times as many steps as there are values
MONTHS = {"year": 12, "quarter": 3, "month": 1}
IN_YEAR = {"year": None, "quarter": 4.0, "month": 12.0}
NEAR = 0.1  # of a step, not worth a word
SHORT = 0.5  # of a step: nearer than this are two values in one step


@dataclass(frozen=True, slots=True, eq=False)
class RegularTimes:
    """Times with no step left out.

    Attributes
    ----------
    times
        (T,) all of them, those given under their own label.
    place
        (n,) where each given time is among them.
    step
        What one step is, in words.
    period
        Steps in a year, if there are such.
    note
        What was done, or empty.
    """

    times: pd.Index
    place: Int64
    step: str
    period: float | None
    note: str = ""

    def spread(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (T, ...) ``values`` (n, ...) at their places, NaN elsewhere."""
        out = np.full((len(self.times), *values.shape[1:]), np.nan)
        out[self.place] = values
        return out

    def locate(self, other: pd.Index) -> Int64:
        """Return where other times belong among these; -1 where they do not.

        Years, quarters and months are told by themselves, whatever the day; days may be off by a
        quarter of a step.
        """
        months = MONTHS.get(self.step)
        if not isinstance(self.times, pd.DatetimeIndex) or not isinstance(other, pd.DatetimeIndex):
            return np.asarray(self.times.get_indexer(other), dtype=np.int64)
        if months is not None and len(self.times):
            own = _months(self.times) // months
            place = _months(other) // months - own[0]  # no step is left out
            return np.where((place >= 0) & (place < len(own)), place, -1)
        if len(self.times) < 2:
            return np.asarray(self.times.get_indexer(other), dtype=np.int64)
        gap = (self.times[1:] - self.times[:-1]).min() / 4
        return np.asarray(self.times.get_indexer(other, method="nearest", tolerance=gap), np.int64)


def _months(index: pd.DatetimeIndex) -> Int64:
    """Return the number of the month of each date."""
    return index.to_numpy().astype("datetime64[M]").astype(np.int64)


def plain_times(index: pd.Index, what: str) -> pd.Index:
    """Return dates without time zone, or numbers, that are complete, different and increasing.

    Raises
    ------
    AlignmentError
        If they are neither dates nor numbers, or do not increase.
    DuplicateIdError
        If one occurs twice.
    PanelError
        If one is missing.
    """
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    if isinstance(index, pd.DatetimeIndex):
        index = index if index.tz is None else index.tz_localize(None)
    elif not pd.api.types.is_numeric_dtype(index) or pd.api.types.is_bool_dtype(index):
        raise AlignmentError(
            f"{what} is indexed by {type(index).__name__} of {index.dtype}.",
            cause="The event is placed by date, or by row.",
            next_step="Set the dates as index, e.g. with pandas.to_datetime.",
        )
    if index.hasnans:
        missing = int(np.asarray(index.isna()).sum())
        raise PanelError(
            f"{missing} of the times of {_small(what)} are missing.",
            cause="A value without a date has no place in the series.",
            next_step="Complete the dates, or drop these rows.",
        )
    if not index.is_unique:
        repeated = index[index.duplicated()].unique()
        raise DuplicateIdError(
            f"Times of {_small(what)} occur twice: {some([time_label(t) for t in repeated])}.",
            cause="A series has one value at a time.",
            next_step="Average them, or correct the dates.",
        )
    if not index.is_monotonic_increasing:
        raise AlignmentError(
            f"The times of {_small(what)} do not increase.",
            cause="The order of values is the order of time.",
            next_step="Sort it by its index.",
        )
    return index


def _small(what: str) -> str:
    return what[:1].lower() + what[1:] if what.startswith("The ") else what


def time_label(time: object) -> str:
    """Return a time in words: a month where the day is the first, a date, or a number."""
    if not isinstance(time, pd.Timestamp):
        return str(time)
    if time != time.normalize():
        return f"{time:%Y-%m-%d %H:%M}"
    return f"{time:%Y-%m}" if time.day == 1 else f"{time:%Y-%m-%d}"


def regular_times(index: pd.Index) -> RegularTimes:
    """Put times, as :func:`plain_times` gives them, on their calendar.

    Raises
    ------
    PanelError
        If they are on none: some are less than half the usual step apart, or only few steps have
        a value.
    """
    if len(index) < 3:
        return RegularTimes(index, np.arange(len(index)), "row", None)
    if not isinstance(index, pd.DatetimeIndex):
        return _numbers(index)
    day = index.to_numpy().astype("datetime64[D]")
    if (day[1:] == day[:-1]).any():
        return _clock(index)
    parts = composites_of(index)
    if parts is not None and parts.name:
        return _composites(index, parts)
    found = _in_calendar(index)
    if found is not None:
        return found
    return _spaced(index) if parts is None else _composites(index, parts)


def _numbers(index: pd.Index) -> RegularTimes:
    number = index.to_numpy(float)
    if not np.array_equal(number, np.round(number)):
        raise PanelError(
            "Times are numbers with fractions.",
            cause="Gaps are told by whole steps.",
            next_step="Give dates, or whole numbers of steps.",
        )
    whole = number.astype(np.int64)
    step = int(np.gcd.reduce(np.diff(whole)))
    place = (whole - whole[0]) // step
    times = pd.Index(whole[0] + step * np.arange(place[-1] + 1), name=index.name)
    return _found(index, times, place, "row" if step == 1 else f"step of {step}", None)


def _clock(index: pd.DatetimeIndex) -> RegularTimes:
    """Place times of the day: whole numbers of the largest step that divides all distances."""
    seconds = (index - index[0]).total_seconds().to_numpy().round().astype(np.int64)
    step = int(reduce(np.gcd, np.diff(seconds)))
    if step == 0:
        raise _irregular(index, "second")
    place = seconds // step
    if place[-1] + 1 > (1 + MOST_ADDED) * len(index):
        raise _irregular(index, f"step of {pd.Timedelta(seconds=step)}")
    times = index[0] + pd.to_timedelta(step * np.arange(place[-1] + 1), unit="s")
    return _found(index, times, place, _hours(step), 365.2425 * 86_400 / step)


def _hours(seconds: int) -> str:
    names = {3600: "hour", 60: "minute", 1: "second"}
    size = next(size for size in names if seconds % size == 0)
    count = seconds // size
    return names[size] if count == 1 else f"step of {count} {names[size]}s"


def _in_calendar(index: pd.DatetimeIndex) -> RegularTimes | None:
    """Years, quarters, months."""
    month = _months(index)
    for name, months in MONTHS.items():
        code = month // months
        if (np.diff(code) > 0).all():
            every = months * np.arange(code[0], code[-1] + 1)
            own = every.astype("datetime64[M]").astype(index.to_numpy().dtype)
            return _found(index, pd.DatetimeIndex(own), code - code[0], name, IN_YEAR[name])
    return None


def _composites(index: pd.DatetimeIndex, parts: Composites) -> RegularTimes:
    name = parts.name or f"step of {parts.step} days, beginning anew each year"
    place = parts.code - parts.code[0]
    return _found(index, parts.every(), place, name, float(parts.a_year))


def _spaced(index: pd.DatetimeIndex) -> RegularTimes:
    """Days apart: the usual distance is the step, and every distance is a whole number of it."""
    day = (index - index[0]) / pd.Timedelta(days=1)
    gaps = np.diff(day.to_numpy())
    usual = float(np.median(gaps))
    ratio = gaps / usual
    if (ratio < SHORT).any():
        raise _irregular(index, _days(usual))
    steps = np.maximum(np.round(ratio), 1).astype(np.int64)
    place = np.concatenate([[0], np.cumsum(steps)])
    since = np.concatenate([np.arange(count) for count in steps] + [[0]])
    base = np.repeat(np.arange(len(index)), np.append(steps, 1))
    times = index[base] + pd.to_timedelta(np.round(since * usual), unit="D")
    off = np.abs(ratio - steps).max()
    note = ""
    if off > NEAR:
        note = (
            f"Dates are {gaps.min():g} to {gaps.max():g} days apart, usually {usual:g}: each "
            f"distance is taken as the nearest whole number of steps."
        )
    return _found(index, times, place, _days(usual), 365.2425 / usual, note)


def _days(usual: float) -> str:
    return "day" if usual == 1 else f"step of {usual:g} days"


def _found(
    index: pd.Index, times: pd.Index, place: Int64, step: str, period: float | None, note: str = ""
) -> RegularTimes:
    added = len(times) - len(index)
    if added > MOST_ADDED * len(index):
        raise _irregular(index, step)
    if not added:
        times = index
    else:
        own = times.to_numpy().copy()
        own[place] = index.to_numpy().astype(own.dtype)
        times = type(times)(own, name=index.name)
        steps = "1 step" if added == 1 else f"{added} steps"
        note = f"{note} {steps} of the calendar ({step}) had no row: taken as missing.".strip()
    return RegularTimes(times, np.asarray(place, dtype=np.int64), step, period, note)


def _irregular(index: pd.Index, step: str) -> PanelError:
    gaps = np.diff(index.to_numpy())
    shown = [
        pd.Timedelta(gap) if isinstance(index, pd.DatetimeIndex) else gap
        for gap in (gaps.min(), gaps.max())
    ]
    return PanelError(
        f"The times are irregular: {shown[0]} to {shown[1]} apart, usually a {step}.",
        cause="A structural model takes one step from each value to the next.",
        next_step="Average to a regular calendar first, e.g. series.resample('MS').mean().",
    )
