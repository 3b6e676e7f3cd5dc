"""Breaks of many series on one calendar: a map's pixels, say.

Series with the same gaps share their design and are searched together; each further pattern of gaps
costs a search of its own. The number of breaks is chosen by a criterion, which knows nothing of red
noise: treat what it finds as where to look (:func:`~eocausal.estimators.breakpoints.breakpoints`
tests a series).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.errors import AlignmentError, EocausalError, EstimationError
from eocausal.estimators.breaks_calendar import Calendar, calendar_of
from eocausal.estimators.breaks_input import CONSTANT, check_segments, control_values
from eocausal.estimators.breaks_number import bic, lwz
from eocausal.estimators.breaks_partial import fit_partitions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.breaks_model import BreakModel

    Float64 = NDArray[np.float64]

__all__ = ["ManyBreaks", "breakpoints_of_many"]

CRITERIA = {"bic": bic, "lwz": lwz}


@dataclass(frozen=True, slots=True, eq=False)
class ManyBreaks:
    """Breaks of N series.

    Attributes
    ----------
    names
        (N,) labels of the series.
    calendar
        The T times.
    number
        (N,) breaks; -1 where a series could not be searched.
    at
        (N, M) times, counted from 0, of the first values of new regimes; -1 where there is none.
    rss
        (N, M + 1) sums of squares for 0..M breaks, NaN where not searched.
    rule
        How the number was chosen.
    problem
        (N,) why a series was not searched, else empty.
    """

    names: pd.Index
    calendar: Calendar
    number: NDArray[np.int64]
    at: NDArray[np.int64]
    rss: Float64
    rule: str
    problem: NDArray[np.object_]

    def __repr__(self) -> str:
        return (
            f"ManyBreaks({len(self.names)} series, {int((self.number > 0).sum())} with breaks, "
            f"{int((self.number < 0).sum())} not searched, {self.rule})"
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row per series: number of breaks, first times of new regimes, problem."""
        label = np.array([*(self.calendar.label(k) for k in range(len(self.calendar.times))), ""])
        table = pd.DataFrame({"breaks": self.number}, index=self.names)
        for k in range(self.at.shape[1]):
            table[f"after_{k + 1}"] = label[self.at[:, k]]
        return table.assign(problem=self.problem)

    def summary(self) -> str:
        """Say in words how many series break, and when most of them do."""
        searched, broken = int((self.number >= 0).sum()), int((self.number > 0).sum())
        lines = [f"{broken} of {searched} series have a break ({self.rule})."]
        if broken:
            times, counts = np.unique(self.at[self.at >= 0], return_counts=True)
            most = int(counts.argmax())
            lines.append(
                f"The commonest date is {self.calendar.label(int(times[most]))}, in "
                f"{counts[most]} of them."
            )
        for problem, count in pd.Series(self.problem[self.number < 0]).value_counts().items():
            lines.append(f"{count} series not searched: {problem}")
        return "\n".join(lines)


def breakpoints_of_many(
    table: pd.DataFrame,
    model: BreakModel,
    *,
    controls: pd.DataFrame | None = None,
    choice: str | int = "lwz",
) -> ManyBreaks:
    """Find the breaks of every column of a table.

    Parameters
    ----------
    table
        (T, N) a row per time, a column per series, NaN where missing; its index are the times.
    model
        What may change, for all series.
    controls
        (T, c) further regressors of all series.
    choice
        ``'lwz'`` or ``'bic'``, or a number of breaks.

    Raises
    ------
    EstimationError
        If breaks do not fit into T times, or ``choice`` is no rule.
    DuplicateIdError, PanelError, AlignmentError
        If times are double, unsorted, or not as many as rows of controls.
    """
    values = table.to_numpy(float).T
    if not values.size:
        raise AlignmentError(
            f"The table has {table.shape[1]} series of {len(table)} times.",
            cause="There is nothing to search.",
            next_step="Give a column per series and a row per time.",
        )
    calendar = calendar_of(table.index)
    given = None if controls is None else control_values(controls, len(table))
    usable = np.ones(len(table), bool) if given is None else np.isfinite(given).all(axis=1)
    columns = 1 + (0 if given is None else given.shape[1])
    check_segments(model, len(table), columns, 1)
    most = model.most(len(table))
    if not (choice in CRITERIA or (isinstance(choice, int) and 0 <= choice <= most)):
        raise EstimationError(
            f"choice={choice!r} does not say how many breaks.",
            cause=f"It is 'lwz', 'bic' or a number from 0 to {most} here.",
            next_step="Search single series with breakpoints to have the number tested.",
        )
    rule = f"{choice.upper()}" if isinstance(choice, str) else f"{choice} asked for"
    out = ManyBreaks(
        table.columns, calendar, np.full(len(values), -1), np.full((len(values), most), -1),
        np.full((len(values), most + 1), np.nan), rule, np.full(len(values), "", dtype=object),
    )  # fmt: skip
    there = np.isfinite(values) & usable
    patterns, which = np.unique(there, axis=0, return_inverse=True)
    order = np.argsort(which.reshape(-1), kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(which.reshape(-1)))[:-1])
    for pattern, mine in zip(patterns, groups, strict=True):
        _search(out, values, mine, pattern, model, given, choice)
    return out


def _search(
    out: ManyBreaks,
    values: Float64,
    mine: NDArray[np.int64],
    pattern: NDArray[np.bool_],
    model: BreakModel,
    controls: Float64 | None,
    choice: str | int,
) -> None:
    """Fill in the series ``mine``, which are observed where ``pattern`` says."""
    if not pattern.any():
        out.problem[mine] = "No time has a value."
        return
    y = values[np.ix_(mine, pattern)]
    still = np.ptp(y, axis=1) <= CONSTANT * np.abs(y).max(axis=1)
    out.problem[mine[still]] = "All values are the same."
    mine, y = mine[~still], y[~still]
    if not len(mine):
        return
    n, most = y.shape[1], out.at.shape[1]
    try:
        changing, shared = model.columns(
            out.calendar.keep(pattern), None if controls is None else controls[pattern]
        )
        check_segments(model, n, changing.shape[1] + shared.shape[1], changing.shape[1])
        parts = fit_partitions(y, changing, shared, model.shortest(n), min(most, model.most(n)))
    except EocausalError as error:
        out.problem[mine] = error.fact
        return
    found = len(parts.breaks) - 1
    out.rss[mine, : found + 1] = parts.rss
    if isinstance(choice, str):
        size = n, changing.shape[1], shared.shape[1]
        out.number[mine] = CRITERIA[choice](parts.rss, *size).argmin(1)
    else:
        out.number[mine] = min(choice, found)
    times = np.flatnonzero(pattern)
    for m in range(1, found + 1):
        these = out.number[mine] == m
        out.at[mine[these], :m] = times[parts.breaks[m][these]]
