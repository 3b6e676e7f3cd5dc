"""Intensity analysis: which intervals, classes and transitions change more than evenly.

Aldwaik & Pontius (2012, Landscape and Urban Planning 106:103). At each level an observed intensity
is held against the one that would hold if the change were spread evenly: over time (equations 1 and
2), over all classes of the interval (3, 4), and over what a class could gain from (5, 6) or lose to
(7, 8). All are in percent of an area per year. Errors of the maps count as change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eocausal.errors import EstimationError, MissingColumnError
from eocausal.land_cover.transitions import Transitions

__all__ = ["IntensityAnalysis", "intensity_analysis"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class IntensityAnalysis:
    """The three levels, one table each.

    Attributes
    ----------
    intervals
        One row per interval: ``changed`` km2, ``intensity``, ``uniform``, ``fast``.
    categories
        One row per interval and class: ``gain`` and ``loss`` intensities, ``uniform``, and
        ``gain_active`` and ``loss_active``.
    gains
        One row per interval, gaining class ``to`` and losing class ``from``: km2, ``intensity`` in
        percent of the losing class, ``uniform``, ``targeted``.
    losses
        One row per interval, losing class ``from`` and gaining class ``to``: km2, ``intensity`` in
        percent of the gaining class, ``uniform``, ``targeted``.
    """

    intervals: pd.DataFrame
    categories: pd.DataFrame
    gains: pd.DataFrame
    losses: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """Return the table of intervals."""
        return self.intervals.copy()

    def steady(self) -> pd.DataFrame:
        """Return one row per class: intervals in which its gain and its loss were active.

        A pattern is called stationary where it is the same in all intervals.
        """
        by_class = self.categories.groupby("class", sort=False)
        frame = by_class[["gain_active", "loss_active"]].sum().astype(int)
        frame["intervals"] = by_class.size()
        for side in ("gain", "loss"):
            frame[f"{side}_stationary"] = frame[f"{side}_active"].isin([0]) | (
                frame[f"{side}_active"] == frame["intervals"]
            )
        return frame

    def sources(self, name: str) -> pd.DataFrame:
        """Return what a class gained from, over all intervals.

        One row per losing class: km2 in all, and intervals in which it was targeted.

        Raises
        ------
        MissingColumnError
            If there is no such class.
        """
        return _over_time(self.gains, "to", "from", name)

    def sinks(self, name: str) -> pd.DataFrame:
        """Return what a class was lost to, as :meth:`sources`."""
        return _over_time(self.losses, "from", "to", name)

    def summary(self) -> str:
        """Say in words when and what changed most intensely."""
        frame = self.intervals
        rate = frame["uniform"].iloc[0]
        fast = frame[frame["fast"]]
        told = ", ".join(
            f"{row['first']}-{row['last']} ({row['intensity']:.2f} %)"
            for row in fast.to_dict("records")
        )
        steady = self.steady()
        always = steady.index[steady["gain_active"] == steady["intervals"]]
        words = (
            f"On average {rate:.2f} % of the area changes class per year; faster than that: "
            f"{told or 'no interval'}."
        )
        if len(always):
            words += f" Gained more than evenly in every interval: {', '.join(always)}."
        return words + " Errors of the maps count as change here."

    def __repr__(self) -> str:
        return (
            f"IntensityAnalysis({len(self.intervals)} intervals, uniform "
            f"{self.intervals['uniform'].iloc[0]:.2f} % a year, {int(self.intervals['fast'].sum())}"
            " fast)"
        )


def intensity_analysis(found: Transitions) -> IntensityAnalysis:
    """Analyse transitions at three levels.

    Where clouds make the observed area differ between intervals, the uniform rate is all change
    over all observed area and time.

    Raises
    ------
    EstimationError
        If nothing was observed in some interval.
    """
    tables = [m.to_numpy(dtype=float) for m in found.matrices]
    years = [last - first for first, last in found.intervals]
    if min(table.sum() for table in tables) <= 0:
        raise EstimationError(
            "No pixel was observed in both years of some interval.",
            cause="Its intensity is nothing over nothing.",
            next_step="Leave that year out, or exclude fewer classes.",
        )
    changed = [float(table.sum() - np.trace(table)) for table in tables]
    exposed = sum(span * table.sum() for span, table in zip(years, tables, strict=True))
    uniform = 100 * sum(changed) / exposed
    intervals, categories, gains, losses = [], [], [], []
    for pair, span, table, moved in zip(found.intervals, years, tables, changed, strict=True):
        rate = 100 * moved / (span * table.sum())
        intervals.append((*pair, moved, rate, uniform, rate > uniform))
        categories += _categories(pair, span, table, found.classes, rate)
        gains += _from_each(pair, span, table, found.classes)
        losses += [
            (first, last, source, gaining, *rest)
            for first, last, gaining, source, *rest in _from_each(
                pair, span, table.T, found.classes
            )
        ]
    level = ["first", "last"]
    return IntensityAnalysis(
        pd.DataFrame(intervals, columns=[*level, "changed", "intensity", "uniform", "fast"]),
        pd.DataFrame(
            categories,
            columns=[*level, "class", "gain", "loss", "uniform", "gain_active", "loss_active"],
        ),
        pd.DataFrame(
            gains, columns=[*level, "from", "to", "km2", "intensity", "uniform", "targeted"]
        ),
        pd.DataFrame(
            losses, columns=[*level, "from", "to", "km2", "intensity", "uniform", "targeted"]
        ),
    )


def _categories(
    pair: tuple[int, int], span: int, table: Float64, classes: tuple[str, ...], rate: float
) -> list[tuple[object, ...]]:
    """Gain in percent of the class at the end, loss in percent of it at the start, per year."""
    rows: list[tuple[object, ...]] = []
    for k, name in enumerate(classes):
        start, end, kept = table[k].sum(), table[:, k].sum(), table[k, k]
        gain = 100 * (end - kept) / (span * end) if end > 0 else np.nan
        loss = 100 * (start - kept) / (span * start) if start > 0 else np.nan
        rows.append((*pair, name, gain, loss, rate, bool(gain > rate), bool(loss > rate)))
    return rows


def _from_each(
    pair: tuple[int, int], span: int, table: Float64, classes: tuple[str, ...]
) -> list[tuple[object, ...]]:
    """Transitions into each column class in percent of each row class, per year.

    With the table turned: transitions out of each class in percent of what they end in.
    """
    rows: list[tuple[object, ...]] = []
    size = table.sum(1)
    for n, gaining in enumerate(classes):
        others = size.sum() - size[n]
        gross = table[:, n].sum() - table[n, n]
        uniform = 100 * gross / (span * others) if others > 0 else np.nan
        for i, losing in enumerate(classes):
            if i == n:
                continue
            rate = 100 * table[i, n] / (span * size[i]) if size[i] > 0 else np.nan
            targeted = bool(rate > uniform)
            rows.append((*pair, losing, gaining, table[i, n], rate, uniform, targeted))
    return rows


def _over_time(frame: pd.DataFrame, one: str, other: str, name: str) -> pd.DataFrame:
    part = frame[frame[one] == name]
    if part.empty:
        raise MissingColumnError(
            f"No class {name!r} in the analysis.",
            cause=f"The classes are {', '.join(frame[one].unique())}.",
            next_step="Write one of them.",
        )
    by_class = part.groupby(other, sort=False)
    told = pd.DataFrame(
        {
            "km2": by_class["km2"].sum(),
            "targeted": by_class["targeted"].sum().astype(int),
            "intervals": by_class.size(),
        }
    )
    return told.sort_values("km2", ascending=False)
