"""Figures of an event on a series: the series, breaks, placebos, what is left out, land cover."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from eocausal.reports.plots import (
    BLUE,
    GREY,
    GRID,
    INK,
    ORANGE,
    SOFT,
    house_style,
    short_label,
)
from eocausal.reports.tables import format_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eocausal.reports.impact_content import BrokenSeries, ImpactContent, LandCover

__all__ = [
    "breaks_figure",
    "impact_figures",
    "in_time_figure",
    "land_figure",
    "placebo_figure",
    "rows_figure",
    "series_figure",
    "years_figure",
]

WIDE = 7.5
BAND = "#cfdfef"
TEAL = "#2b9780"
PALE = "#eef1f4"
PINK = "#b0478f"
CLASSES = (ORANGE, TEAL, BLUE, PINK, "#8a6d00", GREY, INK)
"""Told apart without color by the names at their ends."""


def impact_figures(content: ImpactContent, outcome: str, unit: str) -> dict[str, Figure]:
    """Draw the figures that the content has numbers for, by name."""
    label = _axis(outcome, unit)
    effect = _axis("Average effect", unit)
    figures = {"series": series_figure(content, label, unit)}
    if len(content.variants):
        figures["variants"] = rows_figure(content.variants, effect)
    if content.breaks:
        figures["breaks"] = breaks_figure(content.breaks, content.sensors, content.when, unit)
    if len(content.in_time):
        own = content.variants.iloc[0]
        figures["in_time"] = in_time_figure(content.in_time, own, content.when, effect)
    if len(content.in_space):
        figures["in_space"] = placebo_figure(content.in_space, effect)
    if len(content.controls_left_out):
        figures["controls_left_out"] = rows_figure(content.controls_left_out, effect)
    if len(content.years_left_out):
        figures["years_left_out"] = years_figure(content.years_left_out, content.when, effect)
    if len(content.depths):
        rows = content.depths.assign(
            name=content.depths["relation"], estimate=content.depths["change"], kind="variant"
        )
        figures["depths"] = rows_figure(rows, "Change of the depth (m); negative: less light")
    if content.land is not None:
        figures["land_cover"] = land_figure(content.land, content.when)
    return figures


def _axis(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit and unit != "1" else name


def _frame(axes: Any) -> None:
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=3)


def _event_line(axes: Any, when: pd.Timestamp, words: str = "") -> None:
    axes.axvline(when, color=ORANGE, linewidth=1.4)
    if words:
        axes.annotate(words, (when, 1), xycoords=("data", "axes fraction"), xytext=(-5, -2),
                      textcoords="offset points", ha="right", va="top", fontsize=8.5,
                      color=ORANGE, weight="bold")  # fmt: skip


def series_figure(content: ImpactContent, label: str, unit: str) -> Figure:
    """Draw the series with what would have been, the effect by time, and its running sum."""
    path, when = content.path, content.when
    after = path["after"].to_numpy(bool)
    with house_style():
        figure = Figure(figsize=(WIDE, 6.6), layout="constrained")
        top, middle, low = figure.subplots(3, 1, sharex=True, height_ratios=[1.5, 1, 1])
        top.fill_between(
            path.index,
            path["counterfactual_low"],
            path["counterfactual_high"],
            color=BAND,
            linewidth=0,
            label="95% of single times without the event",
        )
        top.plot(path.index, path["observed"], color=INK, linewidth=0.9, label="observed")
        top.plot(
            path.index,
            path["counterfactual"],
            color=BLUE,
            linewidth=1.2,
            label="expected without the event",
        )
        top.set_ylabel(textwrap.fill(label, 34))
        top.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=3,
            frameon=False,
            fontsize=8,
            borderaxespad=0.2,
            columnspacing=1.2,
        )
        for axes, name, words in (
            (middle, "effect", _axis("Effect", unit)),
            (low, "cumulative", _axis("Summed effect", f"{unit} × times" if unit else "")),
        ):
            shown = path[after] if name == "cumulative" else path
            axes.fill_between(
                shown.index, shown[f"{name}_low"], shown[f"{name}_high"], color=BAND, linewidth=0
            )
            axes.plot(shown.index, shown[name], color=BLUE, linewidth=1.0)
            axes.axhline(0, color=SOFT, linewidth=0.9)
            axes.set_ylabel(textwrap.fill(words, 22))
        for axes in (top, middle, low):
            _frame(axes)
            _event_line(axes, when)
            if content.end is not None:
                axes.axvline(content.end, color=ORANGE, linewidth=1, linestyle=":")
            if content.learn_until is not None:
                axes.axvspan(content.learn_until, when, color=PALE, zorder=0)
        low.set_xlim(path.index[0], path.index[-1])
    return figure  # fmt: skip


def rows_figure(rows: pd.DataFrame, label: str) -> Figure:
    """Draw a row per estimate with its interval; the study's own in blue, published ones open.

    Parameters
    ----------
    rows
        ``name, estimate, ci_low, ci_high, kind``.
    """
    names = [short_label(str(name)) for name in rows["name"]]
    each = max([0.42, *(0.15 * (n.count("\n") + 1) + 0.14 for n in names)])
    with house_style():
        figure = Figure(figsize=(WIDE * 0.85, 0.95 + each * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color=SOFT, linewidth=1)
        for at, row in enumerate(rows.to_dict("records")):
            _row(axes, at, row)
        axes.set_yticks(range(len(rows)), names, fontsize=8.5)
        axes.set_ylim(len(rows) - 0.4, -0.7)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.margins(x=0.12)
        axes.set_xlabel(label)
    return figure


def _row(axes: Any, at: int, row: dict[Any, Any]) -> None:
    value, low, high = (float(row[k]) for k in ("estimate", "ci_low", "ci_high"))
    own, published = row.get("kind") == "own", row.get("kind") == "published"
    color = BLUE if own else ORANGE if published else SOFT
    if not math.isfinite(value):
        axes.annotate(str(row.get("note") or "no estimate")[:70], (0.01, at), va="center",
                      xycoords=("axes fraction", "data"), fontsize=8, style="italic",
                      color=SOFT)  # fmt: skip
        return
    if math.isfinite(low) and math.isfinite(high):
        axes.plot([low, high], [at, at], color=color, linewidth=2.6 if own else 1.6,
                  solid_capstyle="butt")  # fmt: skip
    axes.plot(value, at, "D" if published else "o", color=color, markersize=7 if own else 5.5,
              markerfacecolor="white" if published else color)  # fmt: skip
    axes.annotate(format_number(value), (value, at), xytext=(0, 6), fontsize=8, ha="center",
                  textcoords="offset points", color=color,
                  weight="bold" if own else "normal")  # fmt: skip


def breaks_figure(
    series: Sequence[BrokenSeries], sensors: pd.DataFrame, when: pd.Timestamp, unit: str
) -> Figure:
    """Draw each series with the levels of its regimes, intervals of breaks, dates of sensors."""
    dates = pd.to_datetime(sensors["date"]) if len(sensors) else pd.Series(dtype="datetime64[ns]")
    with house_style():
        figure = Figure(figsize=(WIDE, 0.7 + 1.75 * len(series)), layout="constrained")
        drawn = figure.subplots(len(series), 1, sharex=True, squeeze=False).ravel()
        for axes, item in zip(drawn, series, strict=True):
            values = item.values
            axes.plot(values.index, values, color=GREY, linewidth=0.8)
            for row in item.levels.to_dict("records"):
                axes.plot(
                    [pd.Timestamp(row["first"]), pd.Period(row["last"]).end_time],
                    [row["level"]] * 2,
                    color=BLUE,
                    linewidth=2.2,
                    solid_capstyle="butt",
                )
            for row in item.breaks.to_dict("records"):
                first, last = pd.Timestamp(row["first"]), pd.Period(row["last"]).end_time
                axes.axvspan(first, last, color=BAND, zorder=0, linewidth=0)
                axes.axvline(pd.Timestamp(row["after"]), color=BLUE, linewidth=1.2)
            for number, date in enumerate(dates if item.sensors else [], 1):
                axes.axvline(date, color=SOFT, linewidth=0.9, linestyle=(0, (2, 2)))
                axes.annotate(
                    str(number),
                    (date, 1),
                    xycoords=("data", "axes fraction"),
                    xytext=(1.5, -1),
                    textcoords="offset points",
                    va="top",
                    fontsize=7.5,
                    color=SOFT,
                )
            _event_line(axes, when)
            _frame(axes)
            axes.set_title(textwrap.shorten(item.name, 90), fontsize=9.5, loc="left", weight="bold")
        drawn[-1].set_xlim(series[0].values.index[0], series[0].values.index[-1])
    return figure  # fmt: skip


def in_time_figure(
    placebos: pd.DataFrame, own: pd.Series[Any], when: pd.Timestamp, label: str
) -> Figure:
    """Draw the effects of events that did not happen by their date, beside the real one."""
    with house_style():
        figure = Figure(figsize=(WIDE, 2.9), layout="constrained")
        axes = figure.add_subplot()
        axes.axhline(0, color=SOFT, linewidth=1)
        for color, rows in ((SOFT, placebos), (BLUE, pd.DataFrame([{**own, "when": when}]))):
            at = pd.to_datetime(rows["when"])
            axes.vlines(at, rows["ci_low"], rows["ci_high"], color=color, linewidth=1.6)
            axes.plot(at, rows["estimate"].astype(float), "o", color=color, markersize=5)
        named = axes.annotate(
            "the event",
            (when, float(own["ci_high"])),
            xytext=(0, 4),
            ha="right",
            textcoords="offset points",
            fontsize=8.5,
            color=BLUE,
            weight="bold",
        )
        named.set_in_layout(False)  # words past the axes would push its label off the page
        _frame(axes)
        axes.margins(y=0.12)
        axes.set_ylabel(textwrap.fill(label, 26))
        axes.set_xlabel("First time of the pretended event")
    return figure  # fmt: skip


def years_figure(rows: pd.DataFrame, when: pd.Timestamp, label: str) -> Figure:
    """Draw the effect with one year left out, by that year, over the band of the whole."""
    own, others = rows.iloc[0], rows.iloc[1:]
    with house_style():
        figure = Figure(figsize=(WIDE, 2.7), layout="constrained")
        axes = figure.add_subplot()
        axes.axhspan(own["ci_low"], own["ci_high"], color=BAND, zorder=0, linewidth=0)
        axes.axhline(own["estimate"], color=BLUE, linewidth=1.2)
        axes.axhline(0, color=SOFT, linewidth=1)
        at = np.arange(len(others))
        axes.vlines(at, others["ci_low"], others["ci_high"], color=SOFT, linewidth=1.4)
        axes.plot(at, others["estimate"], "o", color=SOFT, markersize=4.5)
        names = others["name"].astype(str).tolist()
        every = max(1, len(names) // 10)
        axes.set_xticks(at[::every], names[::every])
        begin = [k for k, n in enumerate(names) if n.isdigit() and int(n) >= when.year]
        if begin:
            axes.axvline(begin[0] - 0.5, color=ORANGE, linewidth=1.4)
        _frame(axes)
        axes.set_xlabel("Year left out")
        axes.set_ylabel(textwrap.fill(label, 26))
    return figure  # fmt: skip


def placebo_figure(placebos: pd.DataFrame, label: str) -> Figure:
    """Draw the effects of series that the event did not reach, and that of the one it did.

    Few are drawn as rows with their names, many as a histogram.
    """
    treated = placebos["treated"].to_numpy(bool)
    if len(placebos) <= 12:
        kind = np.where(treated, "own", "variant")
        return rows_figure(placebos.assign(kind=kind), label)
    with house_style():
        figure = Figure(figsize=(WIDE * 0.85, 2.7), layout="constrained")
        axes = figure.add_subplot()
        values = placebos.loc[~treated, "estimate"].to_numpy(float)
        axes.hist(
            values[np.isfinite(values)],
            bins=min(30, max(8, len(values) // 8)),
            color=GREY,
            edgecolor="white",
            linewidth=0.6,
        )
        value = float(placebos.loc[treated, "estimate"].iloc[0])
        axes.axvline(value, color=BLUE, linewidth=2.4)
        axes.annotate(
            "the event's zone",
            (value, 1),
            xycoords=("data", "axes fraction"),
            xytext=(-5, -2),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=8.5,
            color=BLUE,
            weight="bold",
        )
        _frame(axes)
        axes.set_xlabel(label)
        axes.set_ylabel("Series")
    return figure  # fmt: skip


def land_figure(land: LandCover, when: pd.Timestamp) -> Figure:
    """Draw the area of the followed classes by year, and the event."""
    areas = land.areas
    years = areas.index.to_numpy(float)
    with house_style():
        figure = Figure(figsize=(WIDE, 3.1), layout="constrained")
        axes = figure.add_subplot()
        for name, color in zip(land.followed, CLASSES, strict=False):
            values = areas[name].to_numpy(float)
            axes.plot(years, values, "o-", color=color, linewidth=1.8, markersize=4.5)
            label = textwrap.shorten(str(name).replace("_", " "), 24)
            axes.annotate(
                label,
                (years[-1], values[-1]),
                xytext=(7, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
                color=color,
                weight="bold",
            )
        at = when.year + (when.day_of_year - 1) / 365.25
        axes.axvline(at, color=ORANGE, linewidth=1.4, linestyle="--")
        axes.annotate(
            "event",
            (at, 1),
            xycoords=("data", "axes fraction"),
            xytext=(4, -2),
            textcoords="offset points",
            va="top",
            fontsize=8.5,
            color=ORANGE,
        )
        axes.set_xticks(years, [f"{y:.0f}" for y in years])
        axes.set_xlim(years[0] - 0.3, years[-1] + max(1.0, 0.22 * (years[-1] - years[0])))
        axes.set_ylim(bottom=0)
        _frame(axes)
        axes.set_ylabel("Area (km²)")
    return figure  # fmt: skip
