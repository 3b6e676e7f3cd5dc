"""Means over a stretch of sea: each pixel by its area on the globe, with what was seen of it.

Latitudes may ascend or descend, longitudes run from 0 to 360 or from -180 to 180, a zone may cross
the antimeridian, and grids may be curvilinear (a swath with two-dimensional coordinates).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from eocausal.errors import AlignmentError, EmptyInputError, GeometryError

__all__ = ["Box", "ZoneSeries", "cell_areas", "zone_means"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
RADIUS_KM = 6371.0088
_LATITUDES = ("lat", "latitude", "y", "nav_lat")
_LONGITUDES = ("lon", "longitude", "x", "nav_lon")


@dataclass(frozen=True, slots=True)
class Box:
    """Zone between meridians and parallels, in degrees.

    ``west`` greater than ``east`` crosses the antimeridian: ``Box(170, -20, -170, -10)``.
    Longitudes may be given from 0 to 360 or from -180 to 180, whatever the grid has.
    """

    west: float
    south: float
    east: float
    north: float

    def __post_init__(self) -> None:
        if not (-90 <= self.south < self.north <= 90) or not all(
            -180 <= edge <= 360 for edge in (self.west, self.east)
        ):
            raise GeometryError(
                f"A zone from {self.south} to {self.north} north, {self.west} to {self.east} east.",
                cause="South lies below north, latitudes are -90 to 90, longitudes -180 to 360.",
                next_step="Box(west, south, east, north) in degrees.",
            )

    def covers(self, lat: Float64, lon: Float64) -> Bool:
        """Whether points lie in the zone."""
        width = (self.east - self.west) % 360 or (360.0 if self.east != self.west else 0.0)
        along = (lon - self.west) % 360 <= width
        return np.asarray(along & (lat >= self.south) & (lat <= self.north))


@dataclass(frozen=True, slots=True, eq=False)
class ZoneSeries:
    """Area-weighted means of a zone over time.

    Attributes
    ----------
    frame
        One row per time: ``mean``; ``pixels`` with a value; ``coverage``, their share of the
        zone's area that ever has one; ``looks`` behind them (pixels, if not given); and
        ``effective_n``, the number of equally weighted pixels of the same precision if pixels were
        independent. Neighbouring pixels are not: it is an upper bound.
    area_km2
        Of the zone's pixels that ever have a value.
    log
        Whether the mean is of logarithms.
    """

    frame: pd.DataFrame
    area_km2: float
    log: bool

    @property
    def mean(self) -> pd.Series:
        """The means, NaN where coverage was too low."""
        return self.frame["mean"]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per time."""
        return self.frame.copy()

    def summary(self) -> str:
        """Say in words how much of the zone was seen."""
        there = self.frame["mean"].notna()
        return (
            f"{there.sum()} of {len(there)} times have a mean over {self.area_km2:,.0f} km2 of sea "
            f"({'mean of logarithms' if self.log else 'arithmetic mean'}, weighted by area); "
            f"coverage is typically {self.frame['coverage'].median():.0%}, and "
            f"{(self.frame['coverage'] < 0.5).sum()} times see less than half."
        )

    def __repr__(self) -> str:
        return f"ZoneSeries({len(self.frame)} times, {self.area_km2:,.0f} km2)"


def cell_areas(lat: Float64, lon: Float64) -> Float64:
    """Return the area of each cell in km2 from coordinates of centres.

    Parameters
    ----------
    lat, lon
        One-dimensional axes of a regular grid, or two-dimensional coordinates of a curvilinear
        one. Differences of longitude are taken the short way round.
    """
    if lat.ndim == 1:
        step_lat = np.abs(_difference(lat))
        step_lon = np.abs(_difference(lon, turn=True))
        area = np.outer(step_lat * np.cos(np.radians(lat)), step_lon)
    else:
        lat_i, lat_j = _difference(lat, 0), _difference(lat, 1)
        lon_i, lon_j = _difference(lon, 0, turn=True), _difference(lon, 1, turn=True)
        area = np.abs(lat_i * lon_j - lat_j * lon_i) * np.cos(np.radians(lat))
    return np.asarray(area * np.radians(1.0) ** 2 * RADIUS_KM**2)


def zone_means(
    data: xr.DataArray,
    zone: Box | xr.DataArray,
    *,
    looks: xr.DataArray | None = None,
    minimum_coverage: float = 0.0,
    log: bool = False,
) -> ZoneSeries:
    """Average a grid over a zone at each time.

    Parameters
    ----------
    data
        Values over ``time`` and space (or space alone), with latitude and longitude as
        one-dimensional axes or two-dimensional coordinates; NaN where missing.
    zone
        A :class:`Box`, or True on the grid where the zone is.
    looks
        Observations behind each value, on the same grid.
    minimum_coverage
        Times that see a smaller share of the zone get no mean.
    log
        Average logarithms, for lognormal quantities.

    Raises
    ------
    AlignmentError
        If the grid has no latitude and longitude.
    EmptyInputError
        If no pixel of the zone ever has a value.
    """
    lat, lon = _coordinates(data)
    places = tuple(dim for dim in data.dims if dim != "time")
    whole = data if "time" in data.dims else data.expand_dims("time")
    values = whole.transpose("time", *places).to_numpy().astype(float)
    if lat.ndim == 1:
        order = (lat.dims[0], lon.dims[0])
        areas = cell_areas(lat.to_numpy().astype(float), lon.to_numpy().astype(float))
        here = np.meshgrid(
            lat.to_numpy().astype(float), lon.to_numpy().astype(float), indexing="ij"
        )
        here_lat, here_lon = here
        if order != places:
            areas, here_lat, here_lon = areas.T, here_lat.T, here_lon.T
    else:
        here_lat, here_lon = (c.transpose(*places).to_numpy().astype(float) for c in (lat, lon))
        areas = cell_areas(here_lat, here_lon)
    inside = (
        zone.covers(here_lat, here_lon) if isinstance(zone, Box)
        else zone.transpose(*places).to_numpy().astype(bool)
    )  # fmt: skip
    there = np.isfinite(values) & inside & (values > 0 if log else True)
    sea = there.any(0)
    if not sea.any():
        raise EmptyInputError(
            f"No pixel of the zone {zone if isinstance(zone, Box) else 'given'} has a value.",
            cause=f"The grid runs from {here_lat.min():.2f} to {here_lat.max():.2f} north and "
            f"{here_lon.min():.2f} to {here_lon.max():.2f} east.",
            next_step="Check the zone against the grid, and the masks.",
        )
    counts = None if looks is None else _counts(looks, whole, places)
    frame = _frame(values[:, sea], there[:, sea], areas[sea], log)
    frame["looks"] = frame["pixels"] if counts is None else (counts * there).sum((1, 2))
    frame.loc[frame["coverage"] < minimum_coverage, "mean"] = np.nan
    if "time" in data.dims:
        frame.index = pd.Index(whole["time"].to_index(), name="time")
    return ZoneSeries(frame, float(areas[sea].sum()), log)


def _frame(values: Float64, there: Bool, areas: Float64, log: bool) -> pd.DataFrame:
    weight = there * areas
    total = weight.sum(1)
    some = np.where(total > 0, total, np.nan)
    known = np.where(there, values, 1.0)
    mean = (weight * (np.log(known) if log else known)).sum(1) / some
    return pd.DataFrame(
        {
            "mean": np.exp(mean) if log else mean,
            "pixels": there.sum(1),
            "coverage": total / areas.sum(),
            "effective_n": np.nan_to_num(total**2 / np.where(total > 0, (weight**2).sum(1), 1.0)),
        }
    )


def _counts(looks: xr.DataArray, whole: xr.DataArray, places: tuple[object, ...]) -> Float64:
    several = looks if "time" in looks.dims else looks.expand_dims("time")
    counts = several.transpose("time", *places).to_numpy().astype(float)
    if counts.shape[1:] != whole.transpose("time", *places).shape[1:]:
        raise AlignmentError(
            f"Looks of shape {counts.shape} for values of shape {whole.shape}.",
            cause="Each value has its own number of looks.",
            next_step="Give both on the same grid and times.",
        )
    return np.asarray(np.nan_to_num(counts))


def _coordinates(data: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    found = []
    for names in (_LATITUDES, _LONGITUDES):
        name = next((n for n in names if n in data.coords), None)
        if name is None:
            raise AlignmentError(
                f"Coordinates {', '.join(map(str, data.coords))}.",
                cause="Without latitude and longitude pixels have no area and no place.",
                next_step=f"Name them {names[0]!r}, as axes or two-dimensional coordinates.",
            )
        found.append(data[name])
    if found[0].ndim != found[1].ndim or found[0].ndim > 2:
        raise AlignmentError(
            f"Latitude has {found[0].ndim} dimensions, longitude {found[1].ndim}.",
            cause="Both are axes, or both are two-dimensional.",
            next_step="Correct the coordinates.",
        )
    return found[0], found[1]


def _difference(values: Float64, axis: int = 0, *, turn: bool = False) -> Float64:
    """Centred differences, one-sided at the ends; ``turn`` takes longitudes the short way."""
    if values.shape[axis] < 2:
        raise GeometryError(
            "A grid of one row or column.",
            cause="Its cells have no known size.",
            next_step="Keep at least two rows and columns around the zone.",
        )
    step = np.diff(values, axis=axis)
    if turn:
        step = (step + 180.0) % 360.0 - 180.0
    first, last = (np.take(step, [i], axis) for i in (0, -1))
    wide = np.concatenate([first, step, last], axis)
    count = values.shape[axis]
    lower, upper = np.arange(count), np.arange(1, count + 1)
    return np.asarray(0.5 * (np.take(wide, lower, axis) + np.take(wide, upper, axis)))
