"""When images were taken, and whether there is a sequence of them to see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eocausal.encoders.core import Float32
from eocausal.errors import EncoderError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["check_periods", "check_sequences", "sequence_years", "unseen_periods"]

_ORIGIN = np.datetime64("2000-01-01", "D")
_DAYS_PER_YEAR = 365.25
_NO_DATE = ("", "None", "nan", "NaN", "<NA>", "NaT")


def unseen_periods(cube: xr.Dataset) -> list[Any]:
    """Labels of the periods of which no neighborhood has a valid pixel."""
    seen = (cube["valid"] > 0).any("neighborhood").to_numpy()
    return cube.indexes["period"][~seen].tolist()


def check_periods(cube: xr.Dataset, name: str) -> None:
    """Refuse a cube of one period to an encoder of sequences (``EncoderError``)."""
    if cube.sizes["period"] < 2:
        raise EncoderError(
            f"The cube has one period; {name} reads sequences.",
            cause="There is no change to see in a single image.",
            next_step="Build the cube with periods=..., e.g. period_range or dates_of, or choose "
            "an encoder of single images.",
        )


def check_sequences(cube: xr.Dataset, name: str) -> None:
    """Refuse a cube from which an encoder of sequences cannot learn.

    Raises
    ------
    EncoderError
        If the cube has one period, or places with images have them of one period each.
    """
    check_periods(cube, name)
    images = (cube["valid"] > 0).sum("period").to_numpy()
    if images.max() != 1:
        return
    unseen = [str(label) for label in unseen_periods(cube)]
    raise EncoderError(
        f"No place has images of two periods; {name} reads sequences.",
        cause="There is no change to see in a single image. Periods without any image: "
        f"{', '.join(unseen[:5]) or 'none'}{', ...' if len(unseen) > 5 else ''}.",
        next_step="Look at the failure ledger for the periods that are missing, or choose an "
        "encoder of single images.",
    )


def sequence_years(cube: xr.Dataset) -> Float32:
    """Decimal years since 2000 of each chip: the cube's ``date``, else the middle of the period.

    A year is 365.25 days. The middle of ``period_start`` to ``period_end`` stands in where the
    images of a chip have no date of their own.

    Returns
    -------
    numpy.ndarray
        ``(neighborhood, period)`` float32; NaN where a chip has no valid pixel.

    Raises
    ------
    EncoderError
        If a chip is seen and nothing says when, or a date cannot be read.
    """
    dims = ("neighborhood", "period")
    seen = cube["valid"].transpose(*dims).to_numpy() > 0
    years = np.full(seen.shape, np.nan)
    if "date" in cube.variables:
        years[...] = _years(_dates(cube["date"].transpose(*dims).to_numpy(), "date"))
    years = np.where(np.isnan(years), _middles(cube), years)
    years[~seen] = np.nan
    undated = (seen & np.isnan(years)).any(axis=0)
    if undated.any():
        labels = cube.indexes["period"][undated]
        raise EncoderError(
            f"Nothing says when the images of {', '.join(map(str, labels[:5]))} were taken.",
            cause="An encoder of sequences has to know how far apart images are; the cube has "
            "neither 'date' nor 'period_start' and 'period_end' for them.",
            next_step="Give the scenes dates, or choose an encoder of single images.",
        )
    return years.astype(np.float32)


def _years(dates: NDArray[np.datetime64]) -> NDArray[np.float64]:
    return np.asarray((dates - _ORIGIN) / np.timedelta64(1, "D") / _DAYS_PER_YEAR, np.float64)


def _dates(values: NDArray[Any], name: str) -> NDArray[np.datetime64]:
    """Read dates, or text like 2015-07-01; None, NaN and empty text are no date."""
    if np.issubdtype(values.dtype, np.datetime64):
        return values
    text = ["NaT" if str(v) in _NO_DATE else str(v) for v in values.flat]
    try:
        return np.array([np.datetime64(t, "D") for t in text]).reshape(values.shape)
    except ValueError as error:
        raise EncoderError(
            f"{name!r} holds what is no date: {error}.",
            cause="An encoder of sequences has to know how far apart images are.",
            next_step="Write dates as 2015-07-01, and leave out those that are not known (NaT).",
        ) from error


def _middles(cube: xr.Dataset) -> NDArray[np.float64]:
    """Middle of each period, NaN where it has no beginning or end."""
    names = ("period_start", "period_end")
    if not set(names) <= set(cube.variables):
        return np.full(cube.sizes["period"], np.nan)
    ends = [_years(_dates(np.atleast_1d(cube[name].to_numpy()), name)) for name in names]
    middles: NDArray[np.float64] = np.mean(ends, axis=0)
    return middles
