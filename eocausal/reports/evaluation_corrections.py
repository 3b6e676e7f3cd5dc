"""The effect on a measured outcome beside those on its predictions."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from eocausal.reports.evaluation_panels import BAND, TEAL, quiet
from eocausal.reports.evaluation_rows import cut, in_order, tidy_corrections
from eocausal.reports.plots import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    SOFT,
    effect_axis,
    house_style,
    short_label,
)
from eocausal.reports.tables import format_together

__all__ = ["corrections_figure"]

_LOOKS = {
    "measured": (INK, "D"),
    "naive": (ORANGE, "X"),
    "linear calibration": (TEAL, "s"),
    "Tweedie": ("#8a6fb0", "^"),
    "prediction-powered": (BLUE, "o"),
}


def corrections_figure(corrections: pd.DataFrame, *, outcome: str = "", unit: str = "") -> Figure:
    """Draw the effect on the measured outcome beside those on its predictions, corrected or not.

    Parameters
    ----------
    corrections
        ``prediction, method, estimate, ci_low, ci_high``; ``measured`` once, or per prediction.
    outcome, unit
        The outcome in words and what it is measured in.
    """
    table = tidy_corrections(corrections)
    names = in_order(table["prediction"].tolist(), ("",))
    groups = [(name, table[table["prediction"] == name]) for name in names]
    lines = sum(len(rows) for _, rows in groups)
    headings = sum(bool(name) for name, _ in groups)
    with house_style():
        figure = Figure(figsize=(5.6, 0.9 + 0.34 * max(1, lines + headings)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color=SOFT, linewidth=1, zorder=1)
        at, ticks, band = 0.0, {}, None
        for name, rows in groups:
            measured = rows[rows["method"] == "measured"]
            band = measured.iloc[0] if len(measured) else band
            end = at + len(rows) + bool(name)
            if band is not None and math.isfinite(band["ci_low"] + band["ci_high"]):
                axes.fill_betweenx([at - 0.5, end - 0.5], band["ci_low"], band["ci_high"],
                                   color=BAND, linewidth=0, zorder=0)  # fmt: skip
            if name:
                _heading(axes, at, name)
                at += 1
            said = format_together(rows["estimate"].tolist())
            for (_, row), number in zip(rows.iterrows(), said, strict=True):
                _draw_correction(axes, at, row, number)
                ticks[at] = short_label(str(row["method"]))
                at += 1
        axes.set_yticks(list(ticks), list(ticks.values()), fontsize=8.5)
        axes.set_ylim(max(1.0, at) - 0.4, -0.6)
        quiet(axes)
        axes.set_xlabel(f"{effect_axis(outcome, unit)}\n(shaded: interval of the measured one)")
    return figure


def _heading(axes: Any, at: float, name: str) -> None:
    axes.annotate(cut(name, 60), (0, at + 0.1), va="center",
                  xycoords=axes.get_yaxis_transform(), xytext=(3, 0), textcoords="offset points",
                  weight="bold", fontsize=9, zorder=4,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})  # fmt: skip


def _draw_correction(axes: Any, at: float, row: pd.Series[Any], number: str) -> None:
    color, marker = _LOOKS.get(str(row["method"]), (GREY, "o"))
    value = float(row["estimate"])
    if not math.isfinite(value):
        axes.text(0.02, at, "no estimate", transform=axes.get_yaxis_transform(), va="center",
                  fontsize=8, color=SOFT, style="italic")  # fmt: skip
        return
    if math.isfinite(row["ci_low"]) and math.isfinite(row["ci_high"]):
        axes.plot([row["ci_low"], row["ci_high"]], [at, at], color=color, linewidth=2.4,
                  solid_capstyle="butt")  # fmt: skip
    axes.plot(value, at, marker, color=color, markersize=7)
    axes.annotate(number, (value, at), xytext=(0, 5.5), ha="center", fontsize=7.5,
                  textcoords="offset points", color=INK)  # fmt: skip
