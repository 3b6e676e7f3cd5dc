"""One record of several sensors, adjusted to each other where they overlap.

Sensors are linked one after the other, the one with the longest overlap first, to those linked
before. Without an overlap there is no telling a change of the water from one of the instrument,
and the merge is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from eocausal.errors import AlignmentError, EmptyInputError, OutcomeError
from eocausal.ocean.adjustment import Adjustment, Fitted, fit_adjustment

__all__ = ["Merged", "merge_sensors"]

Float64 = NDArray[np.float64]
Record = pd.Series | xr.DataArray
MINOR = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """A merged record and how it came about.

    Attributes
    ----------
    values
        Merged record, a series or a grid over time, in the units of the reference.
    shares
        (T, sensors) part of each sensor in the values of each time.
    adjustments
        One row per sensor: ``linked`` sensors it was fitted to, ``overlap`` times and their
        ``first`` and ``last``, ``factor`` (or ``offset``) with its interval, ``exponent``, and
        ``spread`` of single times around it. With one value per month the median one is shown.
    changes
        Dates at which a sensor enters or leaves, as ``date`` and ``what``: declare them when
        breaks are sought, ``SensorChanges(tuple(SensorChange(d, w) for d, w in
        merged.declared()))``.
    adjustment
        How sensors were adjusted.
    reference
        Sensor that was left as it is.
    """

    values: Record
    shares: pd.DataFrame
    adjustments: pd.DataFrame
    changes: pd.DataFrame
    adjustment: Adjustment
    reference: str
    _drawn: Float64

    def declared(self) -> tuple[tuple[str, str], ...]:
        """Return date and description of every change of sensors."""
        return tuple(self.changes.itertuples(index=False, name=None))

    def draws(self) -> Float64:
        """Return (draws, T) of the record, for grids of its mean over space on the scale of work.

        They differ by the uncertainty of the adjustments alone.
        """
        return self._drawn

    def to_frame(self) -> pd.DataFrame:
        """Return one row per time: merged value (of a grid its mean), interval and shares."""
        low, middle, high = np.nanquantile(self._drawn, [0.025, 0.5, 0.975], axis=0)
        frame = pd.DataFrame(
            {"merged": middle, "adjustment_low": low, "adjustment_high": high},
            index=self.shares.index,
        )
        if isinstance(self.values, pd.Series):
            frame["merged"] = self.values.to_numpy()
        return frame.join(self.shares.add_prefix("share_"))

    def summary(self) -> str:
        """Say in words how sensors were put together and what may be left of them."""
        size = "factor" if self.adjustment.logarithmic else "offset"
        lines = [f"{len(self.shares.columns)} sensors, adjusted to {self.reference}."]
        for name, row in self.adjustments.iterrows():
            if name != self.reference:
                lines.append(
                    f"{name}: {size} {row[size]:.4g} ({row['low']:.4g} to {row['high']:.4g}) from "
                    f"{row['overlap']} times shared with {row['linked']}, {row['first']} to "
                    f"{row['last']}."
                )
        if len(self.changes):
            lines.append(
                "The record changes hands at "
                + "; ".join(f"{date} ({what})" for date, what in self.declared())
                + ". A step there as large as an adjustment is uncertain may be the instrument's."
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return (
            f"Merged({', '.join(self.shares.columns)}; reference {self.reference}, "
            f"{len(self.changes)} changes)"
        )


def merge_sensors(
    records: Mapping[str, Record], reference: str, adjustment: Adjustment | None = None
) -> Merged:
    """Merge records of the same quantity by several sensors.

    Parameters
    ----------
    records
        By sensor: all series over dates, or all grids over ``time`` and the same space.
    reference
        Sensor whose level the record takes.
    adjustment
        How the others are brought to it: by a factor for all months if not given.

    Raises
    ------
    EmptyInputError
        If fewer than two records are given or the reference is none of them.
    OutcomeError
        If values of zero or less have to be taken logarithms of.
    AlignmentError
        If grids differ, or a sensor does not overlap with the others for long enough.
    """
    how = Adjustment() if adjustment is None else adjustment
    if len(records) < 2 or reference not in records:
        raise EmptyInputError(
            f"Records of {', '.join(records) or 'no sensor'}, reference {reference!r}.",
            cause="A merge needs two sensors, one of them the reference.",
            next_step="Give a record by sensor and name one of them.",
        )
    times, work = _stack(records, how)
    month = times.month.to_numpy() - 1
    fitted, rows = {reference: Fitted.reference(how.draws)}, {reference: _row(how, None)}
    while len(fitted) < len(records):
        name, pairs = _next(work, fitted, month)
        _check_overlap(name, pairs, month, how)
        at = pairs["times"]
        fitted[name] = fit_adjustment(
            pairs["target"][at], pairs["targets"][:, at], pairs["own"][at], month[at], how,
            len(fitted),
        )  # fmt: skip
        linked = ", ".join(pairs["linked"])
        rows[name] = _row(how, fitted[name], linked, times[at], month[at])
    adjusted = np.stack([fitted[name].apply(work[name], month) for name in records])
    there = np.isfinite(adjusted)
    count = there.sum(0)
    merged = np.where(there, adjusted, 0.0).sum(0) / np.where(count > 0, count, np.nan)
    weight = there / np.where(count > 0, count, np.nan)
    pixels = np.maximum((count > 0).sum(1), 1)
    shares = pd.DataFrame(
        np.nansum(weight, 2).T / pixels[:, None],
        index=pd.Index(times, name="time"), columns=list(records),
    )  # fmt: skip
    drawn = _draws(work, fitted, weight, month, count)
    return Merged(
        _labelled(records[reference], times, np.exp(merged) if how.logarithmic else merged),
        shares, pd.DataFrame.from_dict(rows, orient="index").loc[list(records)],
        _changes(shares), how, reference, np.exp(drawn) if how.logarithmic else drawn,
    )  # fmt: skip


def _stack(
    records: Mapping[str, Record], how: Adjustment
) -> tuple[pd.DatetimeIndex, dict[str, Float64]]:
    """Put records on the union of their times, ``(T, pixels)``, on the scale of work."""
    found: dict[str, tuple[pd.DatetimeIndex, Float64]] = {}
    shape: tuple[int, ...] | None = None
    for name, record in records.items():
        if isinstance(record, pd.Series):
            index, values = record.index, record.to_numpy(dtype=float)[:, None]
        else:
            ordered = record.transpose("time", ...)
            index, values = ordered["time"].to_index(), ordered.to_numpy().astype(float)
        if shape is not None and values.shape[1:] != shape:
            raise AlignmentError(
                f"{name} has a grid of {values.shape[1:]}, others one of {shape}.",
                cause="Sensors are compared pixel by pixel.",
                next_step="Bring all to one grid first.",
            )
        shape = values.shape[1:]
        _check_index(name, index)
        if how.logarithmic and (values <= 0).any():
            raise OutcomeError(
                f"{int((values <= 0).sum())} values of {name} are zero or less.",
                cause="They have no logarithm.",
                next_step="Mask them, or adjust by Kind.DIFFERENCE.",
            )
        flat = values.reshape(len(values), -1)
        found[name] = pd.DatetimeIndex(index), np.log(flat) if how.logarithmic else flat
    times = pd.DatetimeIndex(np.unique(np.concatenate([i.to_numpy() for i, _ in found.values()])))
    work = {}
    for name, (index, flat) in found.items():
        work[name] = np.full((len(times), flat.shape[1]), np.nan)
        work[name][times.get_indexer(index)] = flat
    return times, work


def _check_index(name: str, index: pd.Index) -> None:
    if not isinstance(index, pd.DatetimeIndex) or not index.is_unique:
        raise AlignmentError(
            f"The times of {name} are {type(index).__name__}"
            + (", some twice." if not index.is_unique else "."),
            cause="Records are matched by date, each once.",
            next_step="Give unique dates, e.g. monthly composites of each sensor.",
        )


def _next(
    work: dict[str, Float64], fitted: dict[str, Fitted], month: NDArray[np.int64]
) -> tuple[str, dict[str, Any]]:
    """Return the sensor that overlaps longest with those already linked, and its pairs."""
    candidates = {
        name: _pairs(work, fitted, name, month) for name in work if name not in fitted
    }  # fmt: skip
    best = max(candidates, key=lambda name: int(candidates[name]["times"].sum()))
    return best, candidates[best]


def _pairs(
    work: dict[str, Float64], fitted: dict[str, Fitted], name: str, month: NDArray[np.int64]
) -> dict[str, Any]:
    """Means over common pixels of a sensor and of each linked one, averaged over these."""
    own, target, drawn, linked = [], [], [], []
    for other, fit in fitted.items():
        common = np.isfinite(work[name]) & np.isfinite(work[other])
        some = np.where(common.any(1), common.sum(1), np.nan)
        theirs = np.where(common, work[other], 0.0).sum(1) / some
        own.append(np.where(common, work[name], 0.0).sum(1) / some)
        target.append(fit.apply(theirs, month))
        drawn.append(fit.draw(theirs, month))
        if common.any():
            linked.append(other)
    present = np.isfinite(target)
    count = np.where(present.any(0), present.sum(0), np.nan)
    return {
        "own": np.nansum(own, 0) / count, "target": np.nansum(target, 0) / count,
        "targets": np.nansum(drawn, 0) / count, "times": present.any(0), "linked": linked,
    }  # fmt: skip


def _check_overlap(
    name: str, pairs: dict[str, Any], month: NDArray[np.int64], how: Adjustment
) -> None:
    shared = int(pairs["times"].sum())
    fewest = int(np.bincount(month[pairs["times"]], minlength=12).min())
    if shared < how.minimum_overlap or (how.by_month and fewest < 2):
        enough = f"{how.minimum_overlap} times" + (
            ", two in each month of the year" if how.by_month else ""
        )
        raise AlignmentError(
            f"{name} shares {shared} times with the other sensors"
            + (f", {fewest} in its rarest month." if how.by_month else "."),
            cause=f"At least {enough} are needed: without an overlap a change of the water cannot "
            "be told from one of the instrument.",
            next_step="Add a sensor that bridges the gap, leave this one out, or study the records "
            "apart.",
        )


def _row(
    how: Adjustment, fit: Fitted | None, linked: str = "", shared: pd.DatetimeIndex | None = None,
    month: NDArray[np.int64] | None = None,
) -> dict[str, object]:  # fmt: skip
    """Say one adjustment, at the middle month and attenuation one where it is a line."""
    size = "factor" if how.logarithmic else "offset"
    if fit is None or shared is None or month is None:
        none = 1.0 if how.logarithmic else 0.0
        return {
            "linked": "", "overlap": 0, "first": "", "last": "", size: none, "low": none,
            "high": none, "exponent": 1.0, "spread": 0.0,
        }  # fmt: skip
    seen = np.unique(month)
    middle = np.median(fit.intercepts[:, seen], axis=1)
    values = np.array([np.median(fit.intercept[seen]), *np.quantile(middle, [0.025, 0.975])])
    told = np.exp(values) if how.logarithmic else values
    return {
        "linked": linked, "overlap": len(shared), "first": f"{shared[0]:%Y-%m-%d}",
        "last": f"{shared[-1]:%Y-%m-%d}", size: told[0], "low": told[1], "high": told[2],
        "exponent": fit.slope, "spread": fit.spread,
    }  # fmt: skip


def _draws(
    work: dict[str, Float64], fitted: dict[str, Fitted], weight: Float64,
    month: NDArray[np.int64], count: NDArray[np.int64],
) -> Float64:  # fmt: skip
    """Mean over pixels of the merged record in every draw of the adjustments."""
    pixels = np.where((count > 0).any(1), (count > 0).sum(1), np.nan)
    total: Float64 | float = 0.0
    for own, part, fit in zip(work.values(), weight, (fitted[n] for n in work), strict=True):
        mass = np.nansum(part, 1)
        value = np.nansum(np.where(np.isfinite(own), own, 0.0) * np.nan_to_num(part), 1)
        total = total + fit.intercepts[:, month] * mass + fit.slopes[:, None] * value
    return np.asarray(total / pixels)


def _changes(shares: pd.DataFrame) -> pd.DataFrame:
    """First time of each sensor that enters later, first time without each that leaves."""
    times, rows = shares.index, []
    for name in shares.columns:
        used = np.flatnonzero(shares[name].to_numpy() > MINOR)
        if not len(used):
            continue
        if used[0] > 0:
            rows.append((f"{times[used[0]]:%Y-%m-%d}", f"{name} enters"))
        if used[-1] + 1 < len(times):
            rows.append((f"{times[used[-1] + 1]:%Y-%m-%d}", f"{name} leaves"))
    return pd.DataFrame(sorted(rows), columns=["date", "what"])


def _labelled(like: Record, times: pd.DatetimeIndex, merged: Float64) -> Record:
    if isinstance(like, pd.Series):
        return pd.Series(merged[:, 0], index=pd.Index(times, name="time"), name=like.name)
    ordered = like.transpose("time", ...)
    coords = {name: c for name, c in ordered.coords.items() if "time" not in c.dims}
    return xr.DataArray(
        merged.reshape(len(times), *ordered.shape[1:]), dims=ordered.dims,
        coords={"time": times, **coords}, name=like.name, attrs=like.attrs,
    )  # fmt: skip
