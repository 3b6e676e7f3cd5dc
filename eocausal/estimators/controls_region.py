"""A region as a control: the mean or median of its pixels, clouds or not.

Pixels differ in level, so that a mean over those seen that month moves with the clouds. The level
of each pixel before the event is taken out first and the mean level put back.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.designs import parse_date
from eocausal.errors import AlignmentError, EmptyInputError, EstimationError
from eocausal.estimators.controls_reach import distances_km, outside_reach

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

__all__ = ["Centre", "RegionControl", "pixel_table", "region_control"]

FEWEST = 12


class Centre(StrEnum):
    """How pixels become one series."""

    MEAN = "mean"
    MEDIAN = "median"


@dataclass(frozen=True, slots=True, eq=False)
class RegionControl:
    """A region's series.

    Attributes
    ----------
    series
        (T,) value of the region; NaN where too little of it was seen.
    coverage
        (T rows) ``pixels`` seen, ``share`` of the region's area seen, ``looks`` in all.
    pixels
        A row for each pixel given: ``used``, ``km`` from the event (where places were given), and
        ``why`` it was left out.
    centre
        How pixels became one series.
    """

    series: pd.Series
    coverage: pd.DataFrame
    pixels: pd.DataFrame
    centre: Centre

    def __repr__(self) -> str:
        used = int(self.pixels["used"].sum())
        return (
            f"RegionControl({self.centre} of {used} of {len(self.pixels)} pixels, "
            f"{int(self.series.notna().sum())} of {len(self.series)} times)"
        )

    def to_frame(self) -> pd.DataFrame:
        """Return the series beside its coverage."""
        return self.coverage.assign(value=self.series)

    def summary(self) -> str:
        """Say in words what the region is made of."""
        left = self.pixels.loc[~self.pixels["used"], "why"].value_counts()
        out = "".join(f" {count} pixels left out: {why}." for why, count in left.items())
        seen = self.coverage["share"]
        return (
            f"{self!r}. At a time {seen.mean():.0%} of it is seen ({seen.min():.0%} at least).{out}"
        )


def pixel_table(array: xr.DataArray) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Turn ``(time, lat, lon)`` into a column for each pixel, and its ``lon`` and ``lat``.

    Pixels without any value (land) are left out.
    """
    rows, columns = array.dims[1:]
    values = np.asarray(array.values, dtype=float).reshape(len(array), -1)
    lat, lon = np.meshgrid(array[rows].values, array[columns].values, indexing="ij")
    water = np.isfinite(values).any(0)
    number = np.flatnonzero(water)
    places = pd.DataFrame({"lon": lon.ravel()[water], "lat": lat.ravel()[water]}, index=number)
    time = pd.DatetimeIndex(array[array.dims[0]].values)
    return pd.DataFrame(values[:, water], index=time, columns=number), places


def region_control(
    pixels: pd.DataFrame,
    before: str,
    *,
    places: pd.DataFrame | None = None,
    looks: pd.DataFrame | None = None,
    centre: Centre = Centre.MEAN,
    event: pd.DataFrame | None = None,
    reach_km: float | None = None,
    least_share: float = 0.1,
    name: str = "region",
) -> RegionControl:
    """Make one series of a region's pixels.

    Parameters
    ----------
    pixels
        A row for each time, a column for each pixel, NaN where not seen.
    before
        Levels of pixels are those of the times before this ISO date.
    places
        ``lon`` and ``lat`` of each pixel: weights it by the cosine of latitude.
    looks
        Valid looks of each pixel at each time, as weights; with the median they only count.
    centre
        Mean or median.
    event, reach_km
        Points of the event, and how far it may have been felt: pixels within are left out.
    least_share
        A time at which less of the region's area is seen has no value.

    Raises
    ------
    EstimationError
        If a reach is given without places or event.
    AlignmentError
        If places or looks do not match the pixels.
    EmptyInputError
        If no pixel is left.
    """
    table = _pixels(pixels, places, event, reach_km)
    past = np.asarray(pixels.index < parse_date(before, what="before"))
    values = pixels.to_numpy(dtype=float)
    count = looks if looks is None else looks.reindex(index=pixels.index, columns=pixels.columns)
    if count is not None and count.isna().all(axis=None):
        raise AlignmentError(
            "Looks share no time or pixel with the values.",
            cause="They are weights of single values.",
            next_step="Give the same index and columns.",
        )
    seen = np.isfinite(values)
    known = (seen & past[:, None]).sum(0) >= FEWEST
    table.loc[~known & table["used"].to_numpy(), "why"] = f"fewer than {FEWEST} values before"
    table["used"] &= known
    use = table["used"].to_numpy()
    if not use.any():
        raise EmptyInputError(
            "No pixel of the region is left.",
            cause="; ".join(f"{n} are out: {w}" for w, n in table["why"].value_counts().items()),
            next_step="Take a larger region, or one further away.",
        )
    area = (
        np.ones(len(use)) if places is None else np.cos(np.deg2rad(places["lat"].to_numpy(float)))
    )
    number = np.ones_like(values) if count is None else count.fillna(0).to_numpy(dtype=float)
    seen = (seen & (number > 0))[:, use]
    values, area, number = values[:, use], area[use], np.where(seen, number[:, use], 0.0)
    level = np.nanmean(np.where(past[:, None], values, np.nan), axis=0)
    share = seen @ area / area.sum()
    z = np.where(seen, values - level, np.nan)
    series = np.full(len(z), np.nan)
    good = (share >= least_share) & seen.any(1)
    if centre is Centre.MEAN:
        weight = number[good] * area
        series[good] = np.nansum(weight * z[good], axis=1) / weight.sum(1)
    else:
        series[good] = np.nanmedian(z[good], axis=1)
    series += level @ area / area.sum()
    coverage = pd.DataFrame(
        {"pixels": seen.sum(1), "share": share, "looks": number.sum(1)}, index=pixels.index
    )
    return RegionControl(pd.Series(series, pixels.index, name=name), coverage, table, centre)


def _pixels(
    pixels: pd.DataFrame,
    places: pd.DataFrame | None,
    event: pd.DataFrame | None,
    reach_km: float | None,
) -> pd.DataFrame:
    if (reach_km is None) != (event is None) or (reach_km is not None and places is None):
        raise EstimationError(
            "A reach needs reach_km, the points of the event and the places of the pixels.",
            cause="Pixels are left out by their distance from it.",
            next_step="Give all three, or none.",
        )
    if places is not None and not places.index.equals(pixels.columns):
        raise AlignmentError(
            f"{len(places)} places for {pixels.shape[1]} pixels, or in another order.",
            cause="Each column of pixels has a row of places.",
            next_step="Give places.loc[pixels.columns].",
        )
    table = pd.DataFrame({"used": True, "why": ""}, index=pixels.columns)
    if places is not None and event is not None and reach_km is not None:
        table["km"] = distances_km(places, event)
        table["used"] = outside_reach(places, event, reach_km)
        table.loc[~table["used"], "why"] = f"within {reach_km:g} km of the event"
    return table
