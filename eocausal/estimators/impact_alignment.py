"""Outcome, controls and events on one calendar, checked, with what was done said in notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eocausal.contracts import some
from eocausal.designs import Event
from eocausal.errors import AlignmentError, DuplicateIdError, OutcomeError
from eocausal.estimators.impact_calendar import (
    RegularTimes,
    plain_times,
    regular_times,
    time_label,
)
from eocausal.estimators.impact_looks import Looks
from eocausal.estimators.impact_transforms import Transform
from eocausal.estimators.impact_units import check_controls, check_units, notes_on_units
from eocausal.estimators.impact_windows import EventRow, Windows, windows_of

__all__ = ["Aligned", "align"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """A record ready to be modelled.

    Attributes
    ----------
    regular
        Its calendar, T steps.
    y
        (T,) the outcome, NaN where missing.
    modelled
        (T,) the same on the scale of the model.
    controls
        (T, K) table, or None.
    variance
        (T,) relative variances of the residual, or None.
    windows
        Times learned from and counted.
    notes
        What was done and noticed, in sentences.
    """

    regular: RegularTimes
    y: Float64
    modelled: Float64
    controls: pd.DataFrame | None
    variance: Float64 | None
    windows: Windows
    notes: tuple[str, ...]

    def from_first_value(self) -> slice:
        """Return the steps from the first value to the last that is counted, as R takes them."""
        first = np.flatnonzero(np.isfinite(self.y) & self.windows.before)
        last = np.flatnonzero(self.windows.post)
        return slice(int(first[0]) if len(first) else 0, int(last[-1]) + 1)


def align(
    outcome: pd.Series,
    event: Event | EventRow | Sequence[Event | EventRow],
    controls: pd.DataFrame | None,
    *,
    learn_until: str | int | None = None,
    variance: pd.Series | Looks | None = None,
    transform: Transform | None = None,
) -> Aligned:
    """Bring a record onto its calendar; see :func:`~eocausal.estimators.impact.bsts`."""
    given = plain_times(outcome.index, "The outcome")
    regular = regular_times(given)
    windows = windows_of(event, given, regular, learn_until)
    y = regular.spread(outcome.to_numpy(dtype=float))
    before, post = windows.before, windows.post
    name = str(outcome.name or "The outcome")
    notes = [regular.note] if regular.note else []
    notes += check_units(name, y, regular.times, before, post)
    modelled = y
    if transform is not None:
        modelled = transform.forward(y, [time_label(t) for t in regular.times])
    table = None if controls is None else _matched(controls, regular)
    if table is not None:
        for column, x in zip(table.columns, table.to_numpy(dtype=float).T, strict=True):
            notes += check_units(f"Control {column}", x, regular.times, before, post)
        check_controls(table, y, before, () if transform is None else (modelled,))
        notes += _gaps(table, y, before, post)
        here = pd.Series(y, index=regular.times, name=outcome.name)
        notes += notes_on_units(here, table, before, _units(outcome, controls))
    spread = None if variance is None else _variances(variance, regular, y, before | post)
    return Aligned(regular, y, modelled, table, spread, windows, tuple(notes))


def _units(outcome: pd.Series, controls: pd.DataFrame | None) -> dict[str, str]:
    found = {} if controls is None else dict(controls.attrs.get("units_of", {}))
    if "units" in outcome.attrs:
        found[str(outcome.name)] = str(outcome.attrs["units"])
    return found


def _matched(controls: pd.DataFrame, regular: RegularTimes) -> pd.DataFrame:
    """Return controls at the steps of the outcome, NaN where they have none."""
    own = plain_times(controls.index, "The controls")
    if isinstance(own, pd.DatetimeIndex) != isinstance(regular.times, pd.DatetimeIndex):
        raise AlignmentError(
            f"The outcome is indexed by {regular.times.dtype}, the controls by {own.dtype}.",
            cause="They are matched by date, or by row.",
            next_step="Give both the same index.",
        )
    place = regular.locate(own)
    inside = place >= 0
    if not inside.any():
        raise AlignmentError(
            "The controls have no date in common with the outcome.",
            cause=f"They go from {time_label(own[0])} to {time_label(own[-1])}, the outcome from "
            f"{time_label(regular.times[0])} to {time_label(regular.times[-1])}.",
            next_step="Give both the same dates, such as the first day of each month.",
        )
    again = np.diff(place[inside]) == 0  # places increase, as dates do
    if again.any():
        doubled = own[inside][1:][again]
        raise DuplicateIdError(
            f"Several rows of the controls fall into one {regular.step} of the outcome: "
            f"{some([time_label(t) for t in doubled])}.",
            cause="A series has one value at a time.",
            next_step="Average them to the calendar of the outcome.",
        )
    out = np.full((len(regular.times), controls.shape[1]), np.nan)
    out[place[inside]] = controls.to_numpy(dtype=float)[inside]
    return pd.DataFrame(out, regular.times, controls.columns)


def _gaps(table: pd.DataFrame, y: Float64, before: Bool, post: Bool) -> list[str]:
    """Say where a missing control keeps a value of the outcome out of use.

    Raises
    ------
    OutcomeError
        If that leaves no value after the event.
    """
    missing = table.isna().to_numpy()
    notes = []
    for side, what, verb in ((before, "before", "learned from"), (post, "after", "counted")):
        known = side & np.isfinite(y)
        lost = known & missing.any(1)
        if not lost.any():
            continue
        each = {str(c): int((missing[:, k] & known).sum()) for k, c in enumerate(table.columns)}
        names = ", ".join(f"{name} at {count}" for name, count in each.items() if count)
        times = "1 time" if lost.sum() == 1 else f"{lost.sum()} times"
        if side is post and not (known & ~lost).any():
            raise OutcomeError(
                "No time after the event has a value of the outcome and of all controls.",
                cause=f"Missing controls: {names} of {known.sum()} times.",
                next_step="Leave out the control that is missing, or end the event earlier.",
            )
        first = time_label(table.index[lost][0])
        notes.append(
            f"{times} {what} the event with a value cannot be {verb} because a control is "
            f"missing ({names}; first {first})."
        )
    return notes


def _variances(
    variance: pd.Series | Looks, regular: RegularTimes, y: Float64, used: Bool
) -> Float64:
    """Return (T,) relative variances, one where there is no value.

    Raises
    ------
    OutcomeError
        If a value that is used has none, or it is not above zero.
    """
    given = variance.variance() if isinstance(variance, Looks) else variance
    own = plain_times(given.index, "The variances")
    place = regular.locate(own)
    out = np.full(len(regular.times), np.nan)
    out[place[place >= 0]] = given.to_numpy(dtype=float)[place >= 0]
    wrong = ~(np.isfinite(out) & (out > 0))
    lost = np.flatnonzero(wrong & used & np.isfinite(y))
    if len(lost):
        raise OutcomeError(
            f"{len(lost)} values have no variance above zero (or no look): "
            f"{some([time_label(t) for t in regular.times[lost]])}.",
            cause="It says how far each value can be trusted.",
            next_step="Complete the variances, or make these values missing.",
        )
    return np.where(wrong, 1.0, out)
