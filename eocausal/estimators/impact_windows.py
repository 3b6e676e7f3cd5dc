"""Which times are learned from, and over which the effect of each event is counted.

With several events only times before the first are learned from: an effect may last beyond its
window, and would be taken for what the series does by itself. What would have been is therefore a
world without any of the events, and what is counted in a later window is the effect of all so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eocausal.designs import Event, parse_date
from eocausal.errors import AlignmentError, DesignError
from eocausal.estimators.impact_calendar import RegularTimes, time_label

__all__ = ["EventRow", "Windows", "windows_of"]

Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event by row of the series, for series without dates.

    Parameters
    ----------
    first
        First row after the event, counted from 0: the number of rows before it.
    last
        Last row counted; None for the end of the record.
    """

    first: int
    last: int | None = None

    def __post_init__(self) -> None:
        if self.first < 0 or (self.last is not None and self.last < self.first):
            raise DesignError(
                f"The event is in rows {self.first} to {self.last}.",
                cause="Rows are counted from 0, and the last does not come before the first.",
                next_step="Correct the rows.",
            )

    def post(self, times: pd.Index) -> Bool:
        """Which rows count as after the event.

        Raises
        ------
        DesignError
            If no row is before, or none after the event.
        """
        rows = np.arange(len(times))
        if not 0 < self.first < len(times):
            raise DesignError(
                f"The event in row {self.first} leaves no row "
                f"{'before' if self.first == 0 else 'after'} it among {len(times)}.",
                cause="Rows are counted from 0, and an effect needs times before and after.",
                next_step="Check the row against the record.",
            )
        last = len(times) if self.last is None else self.last
        return np.asarray((rows >= self.first) & (rows <= last))


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Times learned from and counted.

    Attributes
    ----------
    before
        (T,) True for times to learn from.
    each
        (T,) True for the times counted, for every event.
    names
        What each event is called: its date, or its row.
    """

    before: Bool
    each: tuple[Bool, ...]
    names: tuple[str, ...]

    @property
    def post(self) -> Bool:
        """(T,) True where any event is counted."""
        return np.asarray(np.any(self.each, axis=0))


def windows_of(
    event: Event | EventRow | Sequence[Event | EventRow],
    given: pd.Index,
    regular: RegularTimes,
    learn_until: str | int | None = None,
) -> Windows:
    """Place events in a record.

    An event without an end that another follows is counted until the other begins.

    Parameters
    ----------
    given
        (n,) times of the series as it came; rows are counted among these.
    regular
        The same without steps left out.
    learn_until
        Last date, or row, to learn from.

    Raises
    ------
    DesignError
        If an event leaves no time before or after it, two overlap, or nothing is left to learn
        from.
    AlignmentError
        If an event is a date and times are numbers.
    """
    events = [event] if isinstance(event, Event | EventRow) else list(event)
    if not events:
        raise DesignError(
            "There is no event.",
            cause="The list of events is empty.",
            next_step="Give one, e.g. Event('2019-05').",
        )
    placed = sorted(
        ((_window(item, given, regular), _name(item), _ended(item)) for item in events),
        key=lambda found: int(np.argmax(found[0])),
    )
    starts = [int(np.argmax(mask)) for mask, _, _ in placed]
    rows = np.arange(len(regular.times))
    each: list[Bool] = []
    for at, (mask, name, ended) in enumerate(placed):
        later = rows >= (starts[at + 1] if at + 1 < len(starts) else len(rows))
        if (mask & later).any() and (ended or (mask & ~later).sum() == 0):
            raise DesignError(
                f"The events {name} and {placed[at + 1][1]} overlap.",
                cause="Their effects cannot be told apart where both are counted.",
                next_step="End the first before the second begins, or count them as one.",
            )
        each.append(mask & ~later)
    before: Bool = rows < starts[0]
    before &= _until(learn_until, given, regular)
    if not before.any():
        raise DesignError(
            f"Nothing is left to learn from until {learn_until}.",
            cause="The record begins later.",
            next_step="Check the date against the record.",
        )
    return Windows(before, tuple(each), tuple(name for _, name, _ in placed))


def _name(event: Event | EventRow) -> str:
    return event.when if isinstance(event, Event) else f"row {event.first}"


def _ended(event: Event | EventRow) -> bool:
    return (event.end if isinstance(event, Event) else event.last) is not None


def _window(event: Event | EventRow, given: pd.Index, regular: RegularTimes) -> Bool:
    if isinstance(event, Event):
        if not isinstance(regular.times, pd.DatetimeIndex):
            raise AlignmentError(
                f"The event {event.when} is a date, but the outcome is indexed by numbers.",
                cause="It cannot be placed among them.",
                next_step="Set the dates as index, or give the row, e.g. EventRow(256).",
            )
        event.post(pd.DatetimeIndex(given))
        mask = event.post(regular.times)
    else:
        places = regular.place[event.post(given)]
        rows = np.arange(len(regular.times))
        mask = np.asarray((rows >= places[0]) & (rows <= places[-1]))
    if not mask.any():
        raise DesignError(
            f"No time of the record is in the window of the event {_name(event)}.",
            cause=f"The record goes from {time_label(given[0])} to {time_label(given[-1])}.",
            next_step="Check its dates.",
        )
    return mask


def _until(learn_until: str | int | None, given: pd.Index, regular: RegularTimes) -> Bool:
    if learn_until is None:
        return np.ones(len(regular.times), bool)
    if isinstance(learn_until, str) and isinstance(regular.times, pd.DatetimeIndex):
        parse_date(learn_until, what="learn_until")
        return np.asarray(regular.times <= pd.Period(learn_until).end_time)
    try:
        row = int(learn_until)
    except ValueError as error:
        raise AlignmentError(
            f"learn_until={learn_until!r} is a date, but the outcome is indexed by numbers.",
            cause="It cannot be placed among them.",
            next_step="Give the last row to learn from, counted from 0.",
        ) from error
    inside = regular.place[: max(row + 1, 0)]
    return np.arange(len(regular.times)) <= (inside[-1] if len(inside) else -1)
