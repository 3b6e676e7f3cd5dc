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
        (spread of the logarithms of single observations; NaN in months with some not positive),
        over all months of the record. One month is in memory at a time.

    Raises
    ------
    AlignmentError
        If there is no time, or it does not increase.
    OutcomeError
        If logarithms are asked for and values are zero or less.
    """
    times = _times(data)
    given = (data.where(valid) if valid is not None else data).transpose("time", ...)
    months = pd.date_range(
        times[0].normalize().replace(day=1), times[-1] + pd.Timedelta(days=days - 1), freq="MS"
    )
    share = _shares(times, months, days)
    parts = []
    for month, part in enumerate(share):
        used = np.flatnonzero(part)
        stack = given.isel(time=used).to_numpy().astype(float)
        most = share[:, used].argmax(0) == month
        parts.append(_month(stack, part[used], most, statistic))
    value, looks, spread = (np.stack(several) for several in zip(*parts, strict=True))
    dims = given.dims
    coords = {name: c for name, c in given.coords.items() if "time" not in c.dims}
    enough = looks >= max(minimum_looks, 1e-9)
    return xr.Dataset(
        {
            "value": (dims, np.where(enough, value, np.nan), dict(data.attrs)),
            "looks": (dims, looks, {"units": "1", "long_name": "valid observations"}),
            "log_sd": (dims, spread, {"units": "1"}),
        },
        coords={"time": months, **coords},
        attrs={"statistic": str(statistic), "minimum_looks": minimum_looks, "days": days},
    )


def _month(
    stack: Float64, share: Float64, most: NDArray[np.bool_], statistic: Statistic
) -> tuple[Float64, Float64, Float64]:
    """Value, looks and spread of one month from the observations ``(n, ...)`` that touch it."""
    there = np.isfinite(stack)
    weight = there * share.reshape(-1, *(1,) * (stack.ndim - 1))
    looks = np.asarray(weight.sum(0))
    some = np.where(looks > 0, looks, np.nan)
    bad = int((stack[there] <= 0).sum())
    if bad and statistic is Statistic.LOG_MEAN:
        raise OutcomeError(
            f"{bad} observations of a month are zero or less.",
            cause="They have no logarithm.",
            next_step="Mask them with valid, or take Statistic.MEDIAN.",
        )
    logs = np.log(np.where(there & (stack > 0), stack, 1.0))
    centre = (weight * logs).sum(0) / some
    square = (weight * (logs - np.nan_to_num(centre)) ** 2).sum(0)
    spread = np.sqrt(square / np.where(looks >= 2, looks - 1, np.nan))
    if statistic is Statistic.LOG_MEAN:
        value = np.exp(centre)
    elif statistic is Statistic.MEAN:
        value = (weight * np.where(there, stack, 0.0)).sum(0) / some
    else:
        value = _median(stack[most])
    return np.asarray(value), looks, np.where(bad == 0, spread, np.nan)


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


def _median(stack: Float64) -> Float64:
    """Median of what is there, NaN where nothing is."""
    out = np.full(stack.shape[1:], np.nan)
    some = np.isfinite(stack).any(0)
    if some.any():
        out[some] = np.nanmedian(stack[:, some], axis=0)
    return out
