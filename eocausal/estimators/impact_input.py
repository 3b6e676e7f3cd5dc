"""Outcome and controls as pandas, whatever they came as."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eocausal.contracts import check_panel, some
from eocausal.errors import AlignmentError, DuplicateIdError, OutcomeError, PanelError

if TYPE_CHECKING:
    import xarray as xr

    Outcome = (
        pd.Series | pd.DataFrame | xr.DataArray | xr.Dataset | Sequence[float] | NDArray[np.float64]
    )
    Controls = pd.DataFrame | pd.Series | xr.DataArray | xr.Dataset | NDArray[np.float64]

__all__ = ["series_of", "table_of"]


def series_of(outcome: Outcome) -> pd.Series:
    """Return an outcome as a series of numbers over its times.

    Parameters
    ----------
    outcome
        Series; table or dataset with one variable; DataArray over ``time``, other dimensions of
        length one; a panel cut to one neighborhood and variable; or plain numbers, one a row.

    Raises
    ------
    PanelError
        If it is more than one series; the message says how to choose.
    OutcomeError
        If it holds something else than finite numbers and missing values.
    """
    if _is_xarray(outcome):
        series = _one_of_xarray(outcome)
    elif isinstance(outcome, pd.DataFrame):
        if outcome.shape[1] != 1:
            raise PanelError(
                f"The outcome has {outcome.shape[1]} columns: {some(outcome.columns)}.",
                cause="One series is estimated at a time.",
                next_step="Choose one, e.g. table['kd490'], and give others as controls.",
            )
        series = outcome.iloc[:, 0]
    elif isinstance(outcome, pd.Series):
        series = outcome
    else:
        values = np.asarray(outcome)
        if values.ndim != 1:
            raise PanelError(
                f"The outcome has the shape {values.shape}.",
                cause="A series has one dimension, time.",
                next_step="Give one row or column of it.",
            )
        series = pd.Series(values)
    found = pd.Series(_numbers(series, "The outcome"), index=series.index, name=series.name)
    found.attrs.update(series.attrs)
    return found


def table_of(controls: Controls | None) -> pd.DataFrame | None:
    """Return controls as a table, a column each; None if there are none.

    Parameters
    ----------
    controls
        Table or series; dataset over ``time``, a variable each; DataArray or panel over
        ``(neighborhood, time)``, a neighborhood each, or a neighborhood and variable.

    Raises
    ------
    PanelError
        If a DataArray has no dimension ``time``.
    DuplicateIdError
        If two controls have the same name.
    OutcomeError
        If one holds something else than finite numbers and missing values.
    """
    if controls is None:
        return None
    if _is_xarray(controls):
        table = _table_of_xarray(controls)
    elif isinstance(controls, pd.Series):
        table = controls.to_frame(controls.name or "control")
    elif isinstance(controls, pd.DataFrame):
        table = controls
    else:
        values = np.asarray(controls)
        values = values[:, None] if values.ndim == 1 else values
        table = pd.DataFrame(values).rename(columns=lambda k: f"x{k + 1}")
    if not table.columns.is_unique:
        raise DuplicateIdError(
            f"Controls share a name: {some(table.columns[table.columns.duplicated()])}.",
            cause="Their probabilities could not be told apart.",
            next_step="Rename or drop one.",
        )
    if table.shape[1] == 0:
        return None
    values = table.to_numpy()
    if values.dtype == np.float64 and not np.isinf(values).any():
        found = pd.DataFrame(values.copy(), table.index, table.columns)
    else:
        found = pd.DataFrame(
            {name: _numbers(table[name], f"Control {name}") for name in table.columns},
            index=table.index,
        )
    found.attrs.update(table.attrs)
    return found


def _is_xarray(value: object) -> bool:
    return type(value).__module__.partition(".")[0] == "xarray"


def _numbers(values: pd.Series, what: str) -> NDArray[np.float64]:
    try:
        if values.dtype == np.float64:
            found = values.to_numpy()
        else:
            found = pd.to_numeric(values).to_numpy(dtype=float, na_value=np.nan)
    except (ValueError, TypeError) as error:
        raise OutcomeError(
            f"{what} holds something that is no number.",
            cause=f"{' '.join(str(error).split())}.",
            next_step="Correct these entries, or make them missing.",
        ) from error
    if np.isinf(found).any():
        raise OutcomeError(
            f"{what} is infinite at {int(np.isinf(found).sum())} times.",
            cause="Nothing can be learned from these.",
            next_step="Make them missing, or find where they came from.",
        )
    return np.asarray(found)


def _one_of_xarray(outcome: Any) -> pd.Series:
    import xarray as xr

    if isinstance(outcome, xr.Dataset):
        names = list(outcome.data_vars)
        if len(names) != 1:
            raise PanelError(
                f"The outcome has the variables {some(names)}.",
                cause="One series is estimated at a time.",
                next_step=f"Choose one, e.g. panel[{names[0]!r}]." if names else "Give a variable.",
            )
        outcome = outcome[names[0]]
    return _over_time(outcome.squeeze(drop=True))


def _over_time(array: Any) -> pd.Series:
    others = [d for d in array.dims if d != "time"]
    if "time" not in array.dims or others:
        example = ", ".join(f"{d}=..." for d in others)
        raise PanelError(
            f"{array.name or 'The outcome'} has the dimensions {tuple(array.dims)}.",
            cause="A series has one, named 'time'.",
            next_step=f"Choose one series, e.g. array.sel({example})."
            if others
            else "Rename its dimension to 'time'.",
        )
    series = pd.Series(array.values, index=_dates(array.indexes.get("time")), name=array.name)
    series.attrs.update(array.attrs)
    return series


def _dates(index: pd.Index | None) -> pd.Index | None:
    """Return plain dates for those of a climate model's calendar, if all of them exist."""
    if index is None or type(index).__name__ != "CFTimeIndex":
        return index
    try:
        return pd.DatetimeIndex([pd.Timestamp(str(time)) for time in index])
    except ValueError as error:
        raise AlignmentError(
            f"Some dates of the calendar {getattr(index, 'calendar', '')!r} do not exist.",
            cause="Times are told by real dates.",
            next_step="Average to months, or convert with convert_calendar('standard').",
        ) from error


def _table_of_xarray(controls: Any) -> pd.DataFrame:
    import xarray as xr

    several = isinstance(controls, xr.Dataset)
    arrays = [controls[name] for name in controls.data_vars] if several else [controls]
    if several and {"neighborhood", "time"} <= set(controls.dims):
        check_panel(controls)
    columns: dict[str, pd.Series] = {}
    for array in arrays:
        other = [d for d in array.dims if d != "time"]
        if not other:
            columns[str(array.name or "control")] = _over_time(array)
            continue
        if len(other) > 1:
            _over_time(array)
        for label in array[other[0]].values.tolist():
            name = f"{array.name} {label}" if several and len(arrays) > 1 else str(label)
            columns[name] = _over_time(array.sel({other[0]: label}))
    table = pd.DataFrame(columns)
    units = {name: str(c.attrs["units"]) for name, c in columns.items() if "units" in c.attrs}
    table.attrs["units_of"] = units
    return table
