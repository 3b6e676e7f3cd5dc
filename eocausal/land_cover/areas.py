"""Area of each class in each year."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from eocausal.errors import AlignmentError, MissingColumnError
from eocausal.land_cover.legend import ESRI, Legend
from eocausal.land_cover.pixels import GridPixels, PixelArea

__all__ = ["ClassAreas", "class_areas"]

Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class ClassAreas:
    """Areas by class and year.

    Attributes
    ----------
    km2
        One row per year, one column per class.
    unobserved
        km2 by year that no class was seen on: clouds and missing values.
    pixels
        How large pixels were taken to be.
    """

    km2: pd.DataFrame
    unobserved: pd.Series
    pixels: PixelArea

    @property
    def share(self) -> pd.DataFrame:
        """Share of each class in what was observed that year."""
        return self.km2.div(self.km2.sum(axis=1), axis=0)

    def of(self, name: str) -> pd.Series:
        """Return km2 of one class by year.

        Raises
        ------
        MissingColumnError
            If there is no such class.
        """
        if name not in self.km2:
            raise MissingColumnError(
                f"No class {name!r}.",
                cause=f"The classes are {', '.join(self.km2.columns)}.",
                next_step="Write one of them.",
            )
        return self.km2[name]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per year and class: km2, and share of what was observed."""
        long = self.km2.reset_index().melt("year", var_name="class", value_name="km2")
        long["share"] = self.share.reset_index().melt("year", value_name="share")["share"]
        return long.sort_values("year", kind="stable", ignore_index=True)

    def summary(self) -> str:
        """Say in words which classes grew and shrank."""
        first, last = self.km2.index[0], self.km2.index[-1]
        change = (self.km2.loc[last] - self.km2.loc[first]).sort_values()
        told = [
            f"{name} {self.km2.loc[first, name]:.2f} to {self.km2.loc[last, name]:.2f} km² "
            f"({value:+.2f})"
            for name, value in change.items()
            if max(self.km2.loc[first, name], self.km2.loc[last, name]) >= 0.005
        ]
        words = f"From {first} to {last} ({self.pixels.describe()}): {'; '.join(told)}."
        least, most = self.unobserved.min(), self.unobserved.max()
        if most > 0:
            words += f" No class was seen on {least:.2f} to {most:.2f} km²."
        if most - least >= 0.005:
            words += (
                f" The difference, {most - least:.2f} km², comes and goes with clouds: "
                "counted over places seen in every year only, areas would differ."
            )
        return words

    def __repr__(self) -> str:
        return (
            f"ClassAreas({self.km2.index[0]}..{self.km2.index[-1]}, {self.km2.shape[1]} classes, "
            f"{self.km2.iloc[-1].sum():,.1f} km²)"
        )


def class_areas(
    cover: xr.DataArray,
    legend: Legend = ESRI,
    *,
    pixels: PixelArea | None = None,
    within: xr.DataArray | None = None,
    common: bool = False,
) -> ClassAreas:
    """Measure the area of each class in each year.

    Parameters
    ----------
    cover
        Codes over time (dates or years) and space, rows before columns.
    legend
        What the codes mean.
    pixels
        How large a pixel is; from the coordinates if not given.
    within
        True on the same grid where to count.
    common
        Count only pixels that were observed in every year, so that clouds change nothing.

    Raises
    ------
    AlignmentError
        If the map is not over time, rows and columns, or the mask is on another grid.
    BandError
        If a code has no name.
    """
    how = GridPixels() if pixels is None else pixels
    years, rows = years_of(cover), how.of_rows(cover)
    mask = mask_of(cover, within)
    if common:
        for step in range(len(years)):
            mask = mask & (legend.positions(cover.isel({cover.dims[0]: step})) >= 0)
    kinds = len(legend.classes)
    table, missing = [], []
    for step in range(len(years)):
        found = legend.positions(cover.isel({cover.dims[0]: step}))
        table.append(row_sums(np.where(mask, found, -1), kinds, rows))
        missing.append(float(rows @ (mask & (found < 0)).sum(1)))
    index = pd.Index(years, name="year")
    columns = pd.Index(legend.classes, name="class")
    return ClassAreas(
        pd.DataFrame(table, index, columns), pd.Series(missing, index, name="unobserved"), how
    )


def years_of(cover: xr.DataArray) -> list[int]:
    """Return the year of each map.

    Raises
    ------
    AlignmentError
        If there are not three dimensions, or years do not increase.
    """
    if cover.ndim != 3:
        raise AlignmentError(
            f"Land cover over {', '.join(map(str, cover.dims))}.",
            cause="Areas by year need time, rows and columns, in this order.",
            next_step="Stack the maps along time.",
        )
    axis = cover[cover.dims[0]].to_numpy()
    years = pd.DatetimeIndex(axis).year if axis.dtype.kind == "M" else pd.Index(axis).astype(int)
    if not (years.is_monotonic_increasing and years.is_unique):
        raise AlignmentError(
            f"The maps are of {', '.join(map(str, years))}.",
            cause="One map a year, in order, is what areas and transitions are made of.",
            next_step="Sort the maps by year and keep one of each.",
        )
    return [int(year) for year in years]


def mask_of(cover: xr.DataArray, within: xr.DataArray | None) -> Bool:
    """Return where to count, ``(rows, columns)``."""
    shape = cover.shape[1:]
    if within is None:
        return np.ones(shape, dtype=bool)
    if within.shape != shape:
        raise AlignmentError(
            f"A mask of {within.shape} for maps of {shape}.",
            cause="Each pixel is counted or not.",
            next_step="Make the mask on the grid of the maps.",
        )
    return within.to_numpy().astype(bool)


def row_sums(
    positions: NDArray[np.integer[Any]], kinds: int, rows: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the area of each kind from its position in every pixel, -1 left out."""
    known = positions >= 0
    line = np.broadcast_to(np.arange(len(rows))[:, None], positions.shape)
    at = line[known].astype(np.int64) * kinds + positions[known]
    count = np.bincount(at, minlength=len(rows) * kinds).reshape(len(rows), kinds)
    return np.asarray(rows @ count)
