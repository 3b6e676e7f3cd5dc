"""Monthly composites of daily or 8-day ocean colour, with the number of looks behind each value.

Attenuation and chlorophyll are about lognormal, so the mean of logarithms is the default: a mean of
values follows the few bright ones. An observation that covers several days counts for a month by
the share of its days in it.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from eocausal.errors import AlignmentError, OutcomeError

__all__ = ["Statistic", "monthly_composites"]

Float64 = NDArray[np.float64]


class Statistic(StrEnum):
    """What one value of a month is.

    ``log_mean``: exponential of the mean logarithm. ``median``: middle value, of the observations
    whose middle day is in the month. ``mean``: arithmetic mean.
    """

    LOG_MEAN = "log_mean"
    MEDIAN = "median"
    MEAN = "mean"


def monthly_composites(
    data: xr.DataArray,
    *,
    valid: xr.DataArray | None = None,
    statistic: Statistic = Statistic.LOG_MEAN,
    minimum_looks: float = 0.0,
    days: int = 1,
) -> xr.Dataset:
    """Make one value a month of many observations.

    Parameters
    ----------
    data
        Observations over ``time`` and any other dimensions, NaN where missing.
    valid
        True where an observation may be used: flags applied by the caller.
    statistic
        What a value is.
    minimum_looks
        Fewer leave the month empty.
    days
        Days that an observation covers from its time on: 1, or 8 for 8-day composites.

    Returns
    -------
    xarray.Dataset
        ``value``, ``looks`` (observations behind a value, by their share of days) and ``log_sd``
        (spread of the logarithms of single observations, where all are positive), over all months
        of the record.

    Raises
    ------
    AlignmentError
        If there is no time, or it does not increase.
    OutcomeError
        If logarithms are asked for and values are zero or less.
    """
    times = _times(data)
    given = data.where(valid) if valid is not None else data
    ordered = given.transpose("time", ...)
    values = ordered.to_numpy().astype(float)
    months = pd.date_range(
        times[0].normalize().replace(day=1), times[-1] + pd.Timedelta(days=days - 1), freq="MS"
    )
    share = _shares(times, months, days)
    there = np.isfinite(values)
    positive = bool((values[there] > 0).all())
    if statistic is Statistic.LOG_MEAN and not positive:
        raise OutcomeError(
            f"{int((values[there] <= 0).sum())} observations are zero or less.",
            cause="They have no logarithm.",
            next_step="Mask them with valid, or take Statistic.MEDIAN.",
        )
    looks = np.tensordot(share, there.astype(float), 1)
    logs = np.log(np.where(there, values, 1.0)) if positive else np.zeros_like(values)
    if statistic is Statistic.MEDIAN:
        value = _medians(values, share)
    else:
        whole = logs if statistic is Statistic.LOG_MEAN else np.where(there, values, 0.0)
        value = _mean(share, whole, looks)
        value = np.exp(value) if statistic is Statistic.LOG_MEAN else value
    enough = looks >= max(minimum_looks, 1e-9)
    dims = ("time", *ordered.dims[1:])
    coords = {name: c for name, c in ordered.coords.items() if "time" not in c.dims}
    out = xr.Dataset(
        {
            "value": (dims, np.where(enough, value, np.nan), dict(data.attrs)),
            "looks": (dims, looks, {"units": "1", "long_name": "valid observations"}),
        },
        coords={"time": months, **coords},
        attrs={"statistic": str(statistic), "minimum_looks": minimum_looks, "days": days},
    )
    if positive:
        out["log_sd"] = dims, _spread(share, logs, looks)
    return out


def _times(data: xr.DataArray) -> pd.DatetimeIndex:
    if "time" not in data.dims or data.sizes["time"] == 0:
        raise AlignmentError(
            f"Observations over {', '.join(map(str, data.dims))}.",
            cause="Composites are over time.",
            next_step="Name the dimension of time 'time' and give it dates.",
        )
    times = pd.DatetimeIndex(data["time"].to_numpy())
    if not times.is_monotonic_increasing:
        raise AlignmentError(
            "The times of the observations do not increase.",
            cause="Months are counted from the first to the last.",
            next_step="Sort by time: data.sortby('time').",
        )
    return times


def _shares(times: pd.DatetimeIndex, months: pd.DatetimeIndex, days: int) -> Float64:
    """Share of the days of each observation in each month, ``(months, times)``."""
    begin = times.to_numpy().astype("datetime64[D]").astype(np.int64)
    edges = months.append(months[-1:] + pd.offsets.MonthBegin(1))
    marks = edges.to_numpy().astype("datetime64[D]").astype(np.int64)
    first = np.maximum(begin, marks[:-1, None])
    last = np.minimum(begin + days, marks[1:, None])
    return np.asarray(np.clip(last - first, 0, None) / days)


def _mean(share: Float64, values: Float64, looks: Float64) -> Float64:
    total = np.tensordot(share, values, 1)
    return np.asarray(total / np.where(looks > 0, looks, np.nan))


def _spread(share: Float64, logs: Float64, looks: Float64) -> Float64:
    """Return the standard deviation of logarithms around their month's mean; NaN below two."""
    centre = _mean(share, logs, looks)
    square = np.tensordot(share, logs**2, 1)
    left = np.clip(square - looks * np.nan_to_num(centre) ** 2, 0, None)
    return np.asarray(np.sqrt(left / np.where(looks >= 2, looks - 1, np.nan)))


def _medians(values: Float64, share: Float64) -> Float64:
    """Median of the observations that have most of their days in the month."""
    owner = share.argmax(0)
    out = np.full((len(share), *values.shape[1:]), np.nan)
    for month in np.unique(owner):
        stack = values[owner == month]
        some = np.isfinite(stack).any(0)
        out[month][some] = np.nanmedian(stack[:, some], axis=0)
    return out
