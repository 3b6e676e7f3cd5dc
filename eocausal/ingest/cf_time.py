"""What stretch of time each step of a gridded file covers (CF 4.4, 7.1 and ACDD attributes)."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr

from eocausal.ingest.cf import Refused, unpacked
from eocausal.ingest.times import Span, date_in_name, read_date

__all__ = ["spans_of"]

_CALENDARS: Final = ("standard", "gregorian", "proleptic_gregorian", "")
_COVERAGE: Final = (
    ("time_coverage_start", "time_coverage_end"),
    ("period_start_day", "period_end_day"),
    ("start_time", "end_time"),
    ("start_date", "end_date"),
)
_RESOLUTION: Final = ("time_coverage_resolution", "temporal_resolution", "frequency")
_OF_ONE_STEP: Final = ("time_coverage_duration", "temporal_range")
_ISO: Final = re.compile(r"P(\d+)([DMY])")
_ISO_IN_NAME: Final = re.compile(r"(?:^|[_.-])P(\d+)([DMY])(?=[-_.]|$)")
_WORDS: Final = {
    "day": (1, "D"), "daily": (1, "D"), "month": (1, "M"), "monthly": (1, "M"), "mon": (1, "M"),
    "year": (1, "Y"), "yearly": (1, "Y"), "annual": (1, "Y"),
}  # fmt: skip
_N_DAYS: Final = re.compile(r"(\d+)[- ]?d(?:ays?)?")
_LONG_UNITS: Final = re.compile(r"(month|year)s?\s+since\s+(.+)", re.IGNORECASE)
_WHOLE_DAYS: Final = pd.Timedelta(hours=20)
_INSTANT: Final = pd.Timedelta(1, unit="us")
_LENGTHS: Final = {"D": 1.0, "M": 28.0, "Y": 365.0}
Length = tuple[int, str]


def spans_of(dataset: xr.Dataset, dim: str | None, href: str) -> tuple[list[Span | None], str]:
    """First and last instant of each step along ``dim``, or of the whole file if it is None.

    In this order: the bounds of the time coordinate (a step ends where the next may begin); the
    resolution that the attributes or the product's name state (``time_coverage_resolution``,
    ``temporal_resolution``, ``frequency``, ``..._P1M-m``), so that a monthly mean stamped on the
    1st or the 15th is the whole month; else the stamp itself. A file of one step may say its
    stretch in its attributes (``time_coverage_start`` and ``_end``), and one without a time axis
    in its name. The stretch of a composite of whole days is rounded to midnights: orbits that
    end after midnight belong to the day before.

    Returns
    -------
    spans
        One a step (None where nothing is known).
    source
        Where they were found: ``'bounds'``, ``'resolution'``, ``'coverage'``, ``'time'``,
        ``'name'`` or ``''``.

    Raises
    ------
    Refused
        If there is a time coordinate that cannot be read as dates of the real calendar.
    """
    steps = 1 if dim is None else dataset.sizes[dim]
    axis = _axis(dataset, dim)
    coverage = _coverage(dataset.attrs) if steps == 1 else None
    if axis is None:
        if coverage is not None:
            return [coverage], "coverage"
        found = date_in_name(Path(href).stem) if steps == 1 else None
        return [found] * steps, "name" if found else ""
    variable = dataset.variables[axis]
    stamps = _decode(variable, variable.attrs)
    if _counts_layers(variable):
        warnings.warn(
            f"The times of {Path(href).name} are 1, 2, 3... seconds: they number the layers. "
            "Its scenes are left without a date; give one with time=[...].",
            UserWarning,
            stacklevel=5,
        )
        return [None] * steps, ""
    bounds = _bounds(dataset, variable, steps)
    if bounds is not None:
        return bounds, "bounds"
    length = _resolution(dataset.attrs, Path(href).name, steps)
    if length is not None and _agrees(stamps, length):
        nexts = [*stamps[1:], pd.NaT]
        spans = [_stretch(t, length, after) for t, after in zip(stamps, nexts, strict=True)]
        return [_within(s, coverage) for s in spans], "resolution"
    if coverage is not None and coverage[0] <= stamps[0] <= coverage[1]:
        return [coverage], "coverage"
    return [None if pd.isna(t) else (t, t) for t in stamps], "time"


def _axis(dataset: xr.Dataset, dim: str | None) -> str | None:
    """Name of the time coordinate along ``dim``, or of a scalar one."""
    names = [str(n) for n in dataset.variables]
    names.sort(key=lambda n: (n != dim, n != "time"))
    for name in names:
        variable = dataset.variables[name]
        dims = (dim,) if dim is not None else ()
        is_time = " since " in str(variable.attrs.get("units", "")) or name == dim
        if is_time and tuple(variable.dims) == dims and variable.dtype.kind in "iuf":
            return name
    return None


def _decode(variable: xr.Variable, attrs: dict[Any, Any]) -> pd.DatetimeIndex:
    """Turn numbers since a date into dates; only calendars that have the days of the real one."""
    units, calendar = str(attrs.get("units", "")), str(attrs.get("calendar", "")).lower()
    if calendar not in _CALENDARS:
        text = f"Its calendar is {calendar!r}, not the real one. Give dates with time=[...]."
        raise Refused("wrong_time", text)
    values = np.atleast_1d(unpacked(variable)).ravel()
    long = _LONG_UNITS.fullmatch(units.strip())
    try:
        if long is not None:
            return _add_months(values, long)
        plain = xr.Variable(("t",), values, {"units": units, "calendar": calendar or "standard"})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            decoded = xr.decode_cf(xr.Dataset({"t": plain}))["t"].values
        if decoded.dtype.kind != "M":
            raise ValueError("no unit 'since' a date")  # noqa: TRY301
        return pd.DatetimeIndex(decoded).as_unit("ns")
    except (ValueError, OverflowError, ImportError, TypeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        text = f"Its times in {units!r} cannot be read: {first}. Give dates with time=[...]."
        raise Refused("wrong_time", text) from error


def _add_months(values: np.ndarray[Any, Any], units: re.Match[str]) -> pd.DatetimeIndex:
    if not (values == np.round(values)).all():
        raise ValueError("a part of a month or year has no fixed length")
    origin = pd.Timestamp(units[2].strip())
    origin = origin.tz_convert("UTC").tz_localize(None) if origin.tzinfo is not None else origin
    step = 12 if units[1].lower() == "year" else 1
    dates = [origin + pd.DateOffset(months=int(v) * step) for v in values]
    return pd.DatetimeIndex(dates).as_unit("ns")


def _counts_layers(variable: xr.Variable) -> bool:
    """Whether times are the numbers 0, 1, 2... or 1, 2, 3... of seconds: layers, not times."""
    values = np.atleast_1d(unpacked(variable))
    in_seconds = str(variable.attrs.get("units", "")).strip().lower().startswith("second")
    steps = np.arange(values.size, dtype=np.float64)
    return bool(
        in_seconds
        and values.size > 2
        and (np.array_equal(values, steps) or np.array_equal(values, steps + 1.0))
    )


def _bounds(dataset: xr.Dataset, axis: xr.Variable, steps: int) -> list[Span | None] | None:
    """Bounds of each step, also those of a climatology (CF 7.1 and 7.4)."""
    name = str(axis.attrs.get("bounds", axis.attrs.get("climatology", "")))
    if name not in dataset.variables:
        return None
    variable = dataset.variables[name]
    if variable.size != 2 * steps:
        return None
    moments = _decode(variable, {**axis.attrs, **variable.attrs})
    pairs = zip(moments[::2], moments[1::2], strict=True)
    return [None if pd.isna(a) or pd.isna(b) else _from_bounds(a, b) for a, b in pairs]


def _from_bounds(first: pd.Timestamp, last: pd.Timestamp) -> Span:
    first, last = min(first, last), max(first, last)
    return first, max(first, last - _INSTANT)


def _resolution(attrs: dict[Any, Any], name: str, steps: int) -> Length | None:
    """Length of a step, as the attributes or the name of the product state it."""
    keys = _RESOLUTION + (_OF_ONE_STEP if steps == 1 else ())
    for key in keys:
        text = str(attrs.get(key, "")).strip()
        match = _ISO.fullmatch(text)
        if match is not None:
            return int(match[1]), match[2]
        if text.lower() in _WORDS:
            return _WORDS[text.lower()]
        days = _N_DAYS.fullmatch(text.lower())
        if days is not None:
            return int(days[1]), "D"
    ids = [str(v) for k, v in attrs.items() if str(k).lower().endswith("id")]
    for text in (*ids, name):
        match = _ISO_IN_NAME.search(text)
        if match is not None:
            return int(match[1]), match[2]
    return None


def _agrees(stamps: pd.DatetimeIndex, length: Length) -> bool:
    """Whether steps are about as far apart as they are said to be long."""
    if len(stamps) < 2:
        return not pd.isna(stamps[0])
    days = float(np.median(np.diff(stamps.values) / np.timedelta64(1, "D")))
    return bool(stamps.notna().all() and days >= 0.9 * length[0] * _LENGTHS[length[1]])


def _stretch(stamp: pd.Timestamp, length: Length, after: pd.Timestamp) -> Span:
    """Stretch of a step; one of some days ends where the next begins, if that is sooner."""
    number, unit = length
    if unit == "D":
        first = stamp.normalize()
        until = first + pd.Timedelta(days=number)
        if first < after < until:
            until = max(after.normalize(), first + pd.Timedelta(days=1))
        return first, until - _INSTANT
    first = pd.Timestamp(stamp.year, stamp.month if unit == "M" else 1, 1).as_unit("ns")
    months = number if unit == "M" else 12 * number
    return first, first + pd.DateOffset(months=months) - _INSTANT


def _within(span: Span, coverage: Span | None) -> Span:
    """Shorten a step to the stretch its file covers (the last 8 days of a year are fewer)."""
    if coverage is None or coverage[0] > span[1] or coverage[1] < span[0]:
        return span
    return max(span[0], coverage[0]), min(span[1], coverage[1])


def _coverage(attrs: dict[Any, Any]) -> Span | None:
    """Stretch that the global attributes state, to whole days where it is long enough."""
    for keys in _COVERAGE:
        texts = [_separated(str(attrs.get(k, ""))) for k in keys]
        first, last = (read_date(t) for t in texts)
        if first is None or last is None or last[1] < first[0]:
            continue
        begin, end = first[0], last[0] if "T" in texts[1] or " " in texts[1] else last[1]
        if end - begin < _WHOLE_DAYS:
            return begin, max(begin, end)
        return begin.round("D").as_unit("ns"), end.round("D").as_unit("ns") - _INSTANT
    return None


def _separated(text: str) -> str:
    """Put a T between the date and the time of ``20150601000000Z``."""
    return re.sub(r"^(\d{8})(\d{4}(?:\d{2})?)(Z?)$", r"\1T\2\3", text.strip())
