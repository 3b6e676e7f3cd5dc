"""Effects and placement by sector, a panel per funder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from eocausal.reports.evaluation_panels import (
    Look,
    Panels,
    draw_interval,
    look_of,
    panels_of,
    write_word,
)
from eocausal.reports.evaluation_rows import (
    ADJUSTMENTS,
    asked_estimand,
    cut,
    in_order,
    status_word,
    tidy_placement,
    tidy_sectors,
)
from eocausal.reports.plots import INK, SOFT, effect_axis, house_style
from eocausal.reports.tables import format_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["forest_figure", "placement_figure"]

NAMED = 8
IN_DOUBT = 0.95


def forest_figure(
    sectors: pd.DataFrame, *, outcome: str = "", unit: str = "", estimand: str | None = None
) -> Figure:
    """Draw the effects of all sectors, a panel per funder, each adjustment on its own line.

    Thick lines are intervals of one effect, thin ones hold for all effects together. Where there is
    no effect to show the row says why. Sectors with too few treated units for every funder are
    named below.

    Parameters
    ----------
    sectors
        ``funder, sector, adjustment, estimand, status, estimate, ci_low, ci_high,
        simultaneous_low, simultaneous_high, q_value, n_treated``.
    outcome, unit
        The outcome in words and what it is measured in.
    estimand
        The effect asked for; others are drawn open, with their name.
    """
    table = tidy_sectors(sectors, estimand=estimand)
    asked = estimand or asked_estimand(sectors)
    few = table["status"].eq("few").groupby(table["sector"], sort=False).all()
    left_out = [str(name) for name in few.index[few.to_numpy(bool)]]
    shown = table[~table["sector"].isin(left_out)]
    kinds = in_order(shown["adjustment"].tolist(), ADJUSTMENTS)
    with house_style():
        grid = panels_of(
            in_order(table["funder"].tolist()), in_order(shown["sector"].tolist()), kinds
        )
        low, high = _limits(shown)
        for funder, axes in grid.panels.items():
            axes.axvline(0, color=SOFT, linewidth=1, zorder=1)
            axes.set_xlim(low, high)
            mine = shown[shown["funder"] == funder]
            _treated_column(axes, grid, mine)
            for i, sector in enumerate(grid.sectors):
                _draw_sector(axes, grid, i, mine[mine["sector"] == sector])
        grid.label(effect_axis(outcome, unit).replace("\n", " "), _few_words(left_out))
        _legend(grid, shown, asked)
    return grid.figure


def _few_words(names: Sequence[str]) -> str:
    if not names:
        return ""
    some = ", ".join(cut(n, 30) for n in names[:NAMED])
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"Too few treated neighborhoods: {some}{more}"


def _limits(table: pd.DataFrame) -> tuple[float, float]:
    """Return ends of the axis: of all intervals but those far out (Tukey 1977: 3 quartile ranges).

    An interval that goes on is cut with an arrow.
    """
    names = ["ci_low", "ci_high", "simultaneous_low", "simultaneous_high", "estimate"]
    ends = table.loc[table["given"], names].to_numpy(float).ravel()
    ends = np.append(ends[np.isfinite(ends)], 0.0)
    first, third = np.quantile(ends, [0.25, 0.75])
    far = 3 * (third - first)
    ends = ends[(ends >= first - far) & (ends <= third + far)]
    low, high = min(0.0, float(ends.min())), max(0.0, float(ends.max()))
    if not high > low:
        return -1.0, 1.0
    return low - 0.05 * (high - low), high + 0.12 * (high - low)


def _draw_sector(axes: Any, grid: Panels, at: int, rows: pd.DataFrame) -> None:
    words = {status_word(row) for _, row in rows.iterrows() if not row["given"]}
    if not len(rows) or (len(words) == 1 and not rows["given"].any()):
        write_word(axes, at, next(iter(words), "\N{EN DASH}"))
        return
    for _, row in rows.iterrows():
        y, look = at + grid.lift(row["adjustment"]), look_of(row["adjustment"])
        if row["given"]:
            _draw_effect(axes, y, row, look)
        else:
            write_word(axes, y, status_word(row), look.color)


def _draw_effect(axes: Any, y: float, row: pd.Series[Any], look: Look) -> None:
    ends = draw_interval(axes, y, row["simultaneous_low"], row["simultaneous_high"], look, 1.0)
    ends += draw_interval(axes, y, row["ci_low"], row["ci_high"], look, 3.0)
    low, high = axes.get_xlim()
    value = min(max(row["estimate"], low), high)
    beyond = value != row["estimate"]
    marker = (">" if row["estimate"] > high else "<") if beyond else look.marker
    axes.plot(value, y, marker, color=look.color, markersize=6, zorder=5, clip_on=False,
              mfc="white" if row["fall_back"] else look.color, mew=1.5)  # fmt: skip
    signs = [
        row["estimand"] if row["fall_back"] else "",
        "*" if row["told"] else "",
        "!" if row["status"] == "warned" else "",
        format_number(row["estimate"]) if beyond else "",
    ]
    said = " ".join(sign for sign in signs if sign)
    if said:
        at, side = _room(axes, [value, *ends])
        axes.annotate(said, (value if side == 0 else at, y),
                      xytext=(5 * side, 0 if side else 4), textcoords="offset points",
                      fontsize=7.5, va="center" if side else "bottom",
                      ha={1: "left", -1: "right", 0: "center"}[side], color=look.color,
                      weight="bold", zorder=6)  # fmt: skip


def _room(axes: Any, ends: Sequence[float]) -> tuple[float, int]:
    """Return where beside a line there is room for a few letters: right 1, left -1, neither 0."""
    low, high = axes.get_xlim()
    need = 0.13 * (high - low)
    if max(ends) < high - need:
        return max(ends), 1
    return (min(ends), -1) if min(ends) > low + need else (0.0, 0)


def _treated_column(axes: Any, grid: Panels, rows: pd.DataFrame) -> None:
    """Print in each row how many units were treated."""
    counts = rows.groupby("sector", sort=False)["n_treated"].max()
    if not np.isfinite(counts.to_numpy(float)).any():
        return
    axes.annotate("treated", (1.0, 1.0), xycoords="axes fraction", xytext=(28, 3), fontsize=7.5,
                  textcoords="offset points", ha="right", va="bottom", color=SOFT)  # fmt: skip
    for i, sector in enumerate(grid.sectors):
        count = float(counts.get(sector, math.nan))
        if math.isfinite(count):
            axes.annotate(f"{count:,.0f}", (1.0, i), xycoords=axes.get_yaxis_transform(),
                          xytext=(28, 0), textcoords="offset points", fontsize=7.5, ha="right",
                          va="center", color=SOFT)  # fmt: skip


def _legend(grid: Panels, rows: pd.DataFrame, asked: str) -> None:
    handles = [look_of(k).handle(f"adjusted for {look_of(k).label}") for k in grid.kinds]
    thin = rows.loc[rows["given"], ["simultaneous_low", "simultaneous_high"]]
    if np.isfinite(thin.to_numpy(float)).any():
        handles.append(Line2D([], [], color=INK, lw=3, label="thick: interval of one effect"))
        handles.append(Line2D([], [], color=INK, lw=1, label="thin: all effects together"))
    others = in_order(rows.loc[rows["fall_back"], "estimand"].tolist())
    if others:
        words = f"open: {' or '.join(others)}, not {asked}"
        handles.append(Line2D([], [], ls="", marker="o", mfc="white", mec=INK, label=words))
    if rows["told"].any():
        handles.append(Line2D([], [], ls="", label="* shown after looking at all (q < 0.05)"))
    if (rows["given"] & (rows["status"] == "warned")).any():
        handles.append(Line2D([], [], ls="", label="! few units carry most of the weight"))
    grid.legend(handles)


def placement_figure(placement: pd.DataFrame) -> Figure:
    """Draw how well placement is told, a panel per funder, each set of confounders on its line.

    Parameters
    ----------
    placement
        ``funder, sector, confounders, auc, ci_low, ci_high``.
    """
    table = tidy_placement(placement)
    kinds = in_order(table["confounders"].tolist(), ADJUSTMENTS)
    with house_style():
        grid = panels_of(
            in_order(table["funder"].tolist()), in_order(table["sector"].tolist()), kinds
        )
        ends = table[["auc", "ci_low"]].to_numpy(float)
        low = min(0.45, float(np.nanmin(ends, initial=0.45)))
        for funder, axes in grid.panels.items():
            axes.set_xlim(max(0.0, low), 1.01)
            axes.axvline(0.5, color=SOFT, linewidth=1, zorder=1)
            axes.axvspan(IN_DOUBT, 1.01, color="#f3e3d6", zorder=0.5, linewidth=0)
            for i, sector in enumerate(grid.sectors):
                mine = table[(table["funder"] == funder) & (table["sector"] == sector)]
                _draw_placement(axes, grid, i, mine)
        grid.label(
            "area under the ROC curve on held-out places",
            f"line at 0.5: chance; shaded, above {IN_DOUBT:g}: overlap in doubt",
        )
        grid.legend([look_of(k).handle(f"told from {look_of(k).label}") for k in kinds])
    return grid.figure


def _draw_placement(axes: Any, grid: Panels, at: int, rows: pd.DataFrame) -> None:
    if not np.isfinite(rows["auc"].to_numpy(float)).any():
        write_word(axes, at, "not told" if len(rows) else "\N{EN DASH}")
    for _, row in rows.iterrows():
        if math.isfinite(row["auc"]):
            y, look = at + grid.lift(row["confounders"]), look_of(row["confounders"])
            draw_interval(axes, y, row["ci_low"], row["ci_high"], look, 2.4)
            axes.plot(row["auc"], y, look.marker, color=look.color, markersize=6, zorder=5)
