"""From a series with dates and gaps to the arrays that breaks are searched in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.contracts import some
from eocausal.errors import AlignmentError, EstimationError, OutcomeError
from eocausal.estimators.breaks_bai_perron import room_for
from eocausal.estimators.breaks_calendar import Calendar, calendar_of
from eocausal.estimators.breaks_model import BreakModel, Changes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

__all__ = ["Observed", "check_segments", "control_values", "observe"]

CONSTANT = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """A series without its gaps.

    Attributes
    ----------
    name
        Of the series.
    calendar
        The n observed times.
    values
        (n,).
    changing, shared
        (n, q) and (n, s) columns of the model.
    level_columns
        How many of the first columns that change are level and trend.
    shortest
        Fewest observations of a regime.
    most
        Largest number of breaks searched.
    left_out
        Times without a value, those between that are not in the table included.
    """

    name: str
    calendar: Calendar
    values: Float64
    changing: Float64
    shared: Float64
    level_columns: int
    shortest: int
    most: int
    left_out: int


def observe(
    series: pd.Series | Float64,
    times: Sequence[object] | pd.Index | None,
    controls: pd.DataFrame | None,
    model: BreakModel,
) -> Observed:
    """Check a series and lay out its columns; see :func:`~eocausal.estimators.breakpoints`."""
    values = _numbers(series)
    calendar = calendar_of(_times(series, times, len(values)))
    given = None if controls is None else control_values(controls, len(values))
    there = np.isfinite(values)
    if given is not None:
        there &= np.isfinite(given).all(axis=1)
    _check_values(values, there)
    calendar, y = calendar.keep(there), values[there]
    changing, shared = model.columns(calendar, None if given is None else given[there])
    check_segments(model, len(y), changing.shape[1] + shared.shape[1], changing.shape[1])
    design = np.concatenate([changing, shared], axis=1)
    left = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    if not np.linalg.norm(left) > CONSTANT * np.linalg.norm(y):
        raise OutcomeError(
            "Trend, season and controls explain every value of the series.",
            cause="Nothing is left in which a break could be seen.",
            next_step="Leave out a control that is the outcome itself, or harmonics.",
        )
    straight = model.trend or model.changes == Changes.TREND
    steps = int(calendar.position[-1] - calendar.position[0]) + 1
    name = (
        str(series.name) if isinstance(series, pd.Series) and series.name is not None else "series"
    )
    return Observed(
        name, calendar, y, changing, shared, min(1 + straight, changing.shape[1]),
        model.shortest(len(y)), model.most(len(y)), max(steps, len(values)) - len(y),
    )  # fmt: skip


def check_segments(model: BreakModel, n: int, coefficients: int, changing: int) -> None:
    """Raise ``EstimationError`` unless breaks of the model fit into n observations."""
    shortest = model.shortest(n)
    asked = 1 if model.max_breaks is None else model.max_breaks
    if n <= coefficients + changing or room_for(n, max(shortest, 1)) < asked:
        raise EstimationError(
            f"{n} observations are too few for {asked} break{'s' * (asked > 1)} with segments of "
            f"{max(shortest, 1)} and {coefficients} coefficients, {changing} of which change.",
            cause="Each regime needs observations of its own.",
            next_step="Give a longer series, a smaller min_segment, or a simpler model.",
        )
    if shortest <= changing:
        raise EstimationError(
            f"Segments of {shortest} observations cannot hold {changing} coefficients that change.",
            cause="A regime would fit its values exactly, wherever it lies.",
            next_step=f"Use min_segment={changing + 1} or more, or let fewer coefficients change.",
        )


def control_values(controls: pd.DataFrame, count: int) -> Float64:
    """Return (T, c) controls as numbers.

    Raises
    ------
    AlignmentError
        If there is not one row for each time.
    """
    if len(controls) != count:
        raise AlignmentError(
            f"Controls have {len(controls)} rows, the series {count}.",
            cause="Each time needs controls of its own.",
            next_step="Reindex the controls to the times of the series.",
        )
    return controls.to_numpy(float)


def _numbers(series: pd.Series | Float64) -> Float64:
    values = np.asarray(series, dtype=float)
    if values.ndim != 1:
        raise AlignmentError(
            f"The series has the shape {values.shape}.",
            cause="Breaks are searched in one series at a time here.",
            next_step="Give one column, or use breakpoints_of_many for many series.",
        )
    return values


def _times(
    series: pd.Series | Float64, times: Sequence[object] | pd.Index | None, count: int
) -> Sequence[object] | pd.Index:
    if times is None:
        return series.index if isinstance(series, pd.Series) else pd.RangeIndex(count)
    if len(times) != count:
        raise AlignmentError(
            f"There are {len(times)} times and {count} values.",
            cause="Each value has a time of its own.",
            next_step="Give as many times as values.",
        )
    return times


def _check_values(values: Float64, there: NDArray[np.bool_]) -> None:
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        raise OutcomeError(
            f"The series is infinite at positions {some(infinite)}.",
            cause="Sums over it are not numbers.",
            next_step="Mark missing values as NaN.",
        )
    if not there.any():
        raise OutcomeError(
            f"None of {len(values)} times has a value with its controls.",
            cause="There is nothing in which a break could be seen.",
            next_step="Check the mask and the join that made this series.",
        )
    seen = values[there]
    if np.ptp(seen) <= CONSTANT * np.abs(seen).max():
        raise OutcomeError(
            f"All {len(seen)} values of the series are {seen[0]:g}.",
            cause="A constant has no breaks and no noise to compare them with.",
            next_step="Check the column and its units.",
        )
