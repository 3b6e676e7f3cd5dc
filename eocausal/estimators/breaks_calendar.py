"""Times of a series as numbers of steps, so that gaps keep their length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.contracts import some
from eocausal.errors import DuplicateIdError, EstimationError, PanelError
from eocausal.estimators.composite_calendars import composites_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Calendar", "calendar_of"]

FREQUENCIES = {"Y": 1.0, "Q": 4.0, "M": 12.0, "D": 365.2425}


@dataclass(frozen=True, slots=True, eq=False)
class Calendar:
    """Times of a series as numbers of steps, so that gaps keep their length.

    Attributes
    ----------
    times
        (n,) as they were given: dates or numbers, rising.
    position
        (n,) numbers of steps.
    step
        ``year``, ``quarter``, ``month``, ``dekad``, ``half-month``, ``day`` or ``step``.
    period
        Steps in a year; None if unknown.
    """

    times: pd.Index
    position: NDArray[np.int64]
    step: str
    period: float | None

    def __repr__(self) -> str:
        gaps = int(self.position[-1] - self.position[0]) + 1 - len(self.position)
        first, last = self.label(0), self.label(len(self.times) - 1)
        return f"Calendar({len(self.times)} {self.step}s {first}..{last}, {gaps} missing)"

    def keep(self, mask: NDArray[np.bool_]) -> Calendar:
        """Return the times where ``mask`` holds."""
        return Calendar(self.times[mask], self.position[mask], self.step, self.period)

    def label(self, number: int) -> str:
        """Return the time of an observation in words."""
        time = self.times[number]
        if not isinstance(time, pd.Timestamp):
            return f"{time:g}" if isinstance(time, float) else str(time)
        form = {"year": "%Y", "quarter": "%Y-%m", "month": "%Y-%m"}.get(self.step, "%Y-%m-%d")
        return time.strftime(form)

    def locate(self, date: object) -> int:
        """Return the first observation at or after a date; n if there is none.

        Raises
        ------
        EstimationError
            If it is no date of this calendar.
        """
        try:
            if isinstance(self.times, pd.DatetimeIndex):
                return int(self.times.searchsorted(pd.Timestamp(str(date))))
            return int(np.searchsorted(self.times.to_numpy(float), float(str(date))))
        except ValueError as error:
            raise EstimationError(
                f"{date!r} is not a time of this series ({self!r}).",
                cause="It cannot be placed among the observations.",
                next_step="Write dates as YYYY-MM-DD, or numbers where times are numbers.",
            ) from error


def calendar_of(times: Sequence[object] | pd.Index) -> Calendar:
    """Give the times of a series numbers of steps.

    Dates are years, quarters, months or days: the longest of them that tells all apart. If days
    are further apart than one, the step is their usual distance; dekads, half months and composites
    that begin anew each year are counted as such. Numbers are used as they are.

    Raises
    ------
    DuplicateIdError
        If two observations have the same time, or the same step.
    PanelError
        If times are missing or do not rise.
    """
    index = pd.Index(times)
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    elif not pd.api.types.is_numeric_dtype(index):
        index = pd.DatetimeIndex(pd.to_datetime(index))
    _check(index)
    if isinstance(index, pd.DatetimeIndex):
        index = index.tz_localize(None)
        for frequency, period in FREQUENCIES.items():
            steps = index.to_period(frequency)
            if steps.is_unique:
                name = {"Y": "year", "Q": "quarter", "M": "month", "D": "day"}[frequency]
                return _spaced(index, steps.asi8.astype(np.int64), name, period)
        raise _doubled(index[index.normalize().duplicated()], "day")
    number = index.to_numpy(float)
    if not np.array_equal(number, np.round(number)):
        raise PanelError(
            "Times are numbers with fractions.",
            cause="Gaps are told by whole steps.",
            next_step="Give dates, or whole numbers of steps.",
        )
    return Calendar(index, number.astype(np.int64), "step", None)


def _spaced(index: pd.DatetimeIndex, day: NDArray[np.int64], name: str, period: float) -> Calendar:
    if name != "day" or len(day) < 3:
        return Calendar(index, day, name, None if name == "year" else period)
    parts = composites_of(index)
    if parts is not None:
        return Calendar(index, parts.code - parts.code[0], parts.name or name, float(parts.a_year))
    usual = int(np.median(np.diff(day)))
    position = np.round((day - day[0]) / usual).astype(np.int64)
    if (np.diff(position) == 0).any():
        raise _doubled(index[1:][np.diff(position) == 0], f"step of {usual} days")
    return Calendar(index, position, name, period / usual)


def _check(index: pd.Index) -> None:
    missing = np.asarray(index.isna())
    if missing.any():
        raise PanelError(
            f"{int(missing.sum())} times are missing.",
            cause="An observation without a date has no place in the series.",
            next_step="Complete the dates, or drop these rows.",
        )
    if not index.is_unique:
        raise _doubled(index[index.duplicated()], "time")
    if not index.is_monotonic_increasing:
        raise PanelError(
            "Times do not rise.",
            cause="A break parts what came before from what came after.",
            next_step="Sort the rows by date.",
        )


def _doubled(values: pd.Index, what: str) -> DuplicateIdError:
    return DuplicateIdError(
        f"{len(values)} observations share a {what} with another: {some(values)}.",
        cause="A series has one value at a time.",
        next_step="Average or drop what is double.",
    )
