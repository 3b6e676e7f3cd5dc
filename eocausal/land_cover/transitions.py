"""What became of each class from one year to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from eocausal.errors import AlignmentError, MissingColumnError
from eocausal.land_cover.areas import mask_of, row_sums, years_of
from eocausal.land_cover.legend import ESRI, Legend
from eocausal.land_cover.pixels import GridPixels, PixelArea

__all__ = ["Transitions", "cross_years"]


@dataclass(frozen=True, slots=True, eq=False)
class Transitions:
    """Areas that went from one class to another in each interval.

    Attributes
    ----------
    years
        Of the maps; an interval lies between two.
    matrices
        One table per interval: rows from, columns to, km2; the diagonal stayed.
    pixels
        How large pixels were taken to be.
    """

    years: tuple[int, ...]
    matrices: tuple[pd.DataFrame, ...]
    pixels: PixelArea

    @property
    def intervals(self) -> tuple[tuple[int, int], ...]:
        """First and last year of each interval."""
        return tuple(zip(self.years[:-1], self.years[1:], strict=True))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(map(str, self.matrices[0].index))

    def between(self, first: int, last: int) -> pd.DataFrame:
        """Return the table of one interval.

        Raises
        ------
        MissingColumnError
            If there is no such interval.
        """
        if (first, last) not in self.intervals:
            raise MissingColumnError(
                f"No interval {first} to {last}.",
                cause=f"Those measured: {', '.join(f'{a}-{b}' for a, b in self.intervals)}.",
                next_step="Ask for one of them, or measure transitions of these two years.",
            )
        return self.matrices[self.intervals.index((first, last))]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per interval and pair of classes."""
        parts = []
        for (first, last), matrix in zip(self.intervals, self.matrices, strict=True):
            long = matrix.reset_index().melt("from", var_name="to", value_name="km2")
            long.insert(0, "last", last)
            long.insert(0, "first", first)
            parts.append(long)
        return pd.concat(parts, ignore_index=True)

    def flows(self) -> pd.DataFrame:
        """Return one row per interval and class: gain, loss, net and swap in km2.

        Swap is gain that loss elsewhere made up for: twice the smaller of the two (Pontius et al.
        2004). Much swap and little net change is what an unsure map looks like.
        """
        rows = []
        for (first, last), matrix in zip(self.intervals, self.matrices, strict=True):
            kept = np.diag(matrix)
            gain, loss = matrix.sum(axis=0) - kept, matrix.sum(axis=1) - kept
            for name in self.classes:
                rows.append(
                    (first, last, name, gain[name], loss[name], gain[name] - loss[name],
                     2 * min(gain[name], loss[name]))
                )  # fmt: skip
        return pd.DataFrame(rows, columns=["first", "last", "class", "gain", "loss", "net", "swap"])

    def summary(self) -> str:
        """Say in words what changed most, and how much of it is swap."""
        total = np.sum([m.to_numpy() for m in self.matrices], axis=0)
        moved = total - np.diag(np.diag(total))
        order = np.argsort(moved, axis=None)[::-1][:3]
        pairs = (np.unravel_index(k, moved.shape) for k in order)
        told = "; ".join(
            f"{self.classes[i]} to {self.classes[j]} {moved[i, j]:.2f} km²" for i, j in pairs
        )
        flows = self.flows()
        change = flows["gain"].sum()
        swap = flows["swap"].sum() / (flows["gain"].sum() + flows["loss"].sum()) if change else 0.0
        return (
            f"Over {self.years[0]} to {self.years[-1]} the yearly maps change on {change:.1f} km² "
            f"in all; most: {told}. {swap:.0%} of gain and loss within an interval make up for "
            "each other in the same class, which real change and an unsure map both do."
        )

    def __repr__(self) -> str:
        return f"Transitions({self.years[0]}..{self.years[-1]}, {len(self.classes)} classes)"


def cross_years(
    cover: xr.DataArray,
    legend: Legend = ESRI,
    *,
    pixels: PixelArea | None = None,
    within: xr.DataArray | None = None,
    exclude: Sequence[str] = (),
    years: Sequence[int] | None = None,
) -> Transitions:
    """Cross each map with the next one.

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
    exclude
        Classes that are no part of the study, such as water: pixels of them in either year are
        left out.
    years
        Of the maps to use; all if not given.

    Raises
    ------
    AlignmentError
        If there are fewer than two maps, or grids differ.
    MissingColumnError
        If a class to exclude is not in the legend.
    BandError
        If a code has no name.
    """
    how = GridPixels() if pixels is None else pixels
    known, rows = years_of(cover), how.of_rows(cover)
    used = tuple(known if years is None else [y for y in known if y in set(years)])
    if len(used) < 2:
        raise AlignmentError(
            f"Maps of {', '.join(map(str, used)) or 'no year'}.",
            cause="A transition is from one map to another.",
            next_step="Give maps of two years at least.",
        )
    for name in exclude:
        if name not in legend.classes:
            raise MissingColumnError(
                f"No class {name!r} to exclude.",
                cause=f"The classes are {', '.join(legend.classes)}.",
                next_step="Write one of them.",
            )
    mask, kinds = mask_of(cover, within), len(legend.classes)
    kept = [name for name in legend.classes if name not in exclude]
    matrices, before = [], None
    for year in used:
        found = legend.positions(cover.isel({cover.dims[0]: known.index(year)})).astype(np.int64)
        if before is not None:
            pair = np.where(mask & (before >= 0) & (found >= 0), before * kinds + found, -1)
            table = row_sums(pair, kinds**2, rows).reshape(kinds, kinds)
            named = pd.DataFrame(
                table, pd.Index(legend.classes, name="from"), pd.Index(legend.classes, name="to")
            )
            matrices.append(named.loc[kept, kept])
        before = found
    return Transitions(used, tuple(matrices), how)
