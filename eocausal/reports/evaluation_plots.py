"""Figures of one placed treatment: balance, corrections, sensitivity, calibration."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from eocausal.reports.evaluation_corrections import corrections_figure
from eocausal.reports.evaluation_panels import BAND, look_of, quiet
from eocausal.reports.evaluation_rows import ADJUSTMENTS, cut, in_order
from eocausal.reports.plots import (
    BLUE,
    GRID,
    INK,
    ORANGE,
    SOFT,
    WIDTH,
    effect_axis,
    house_style,
    short_label,
)
from eocausal.reports.tables import format_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "calibration_figure",
    "corrections_figure",
    "love_figure",
    "sensitivity_figure",
]

TABLE = "table"
NAMED = 5
FAR = 8.0
LIGHT = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.7}


def love_figure(balance: pd.DataFrame, *, small: float = 0.1, max_rows: int = 30) -> Figure:
    """Draw how far the arms are apart in each confounder, before and after weighting.

    Features of an embedding share a row: the marks are at their median, lines go to the worst.

    Parameters
    ----------
    balance
        Indexed by ``covariate``: ``source, smd_before, smd_after``.
    small
        Difference that is of no concern, in standard deviations.
    max_rows
        Rows drawn, the columns that are furthest apart before or after; others are counted.
    """
    rows, left_out = _love_rows(balance, max_rows)
    finite = [v for row in rows for v in row[1:] if math.isfinite(v)]
    high = min(FAR, max([2.2 * small, *finite])) * 1.06
    labels = [short_label(row[0]) for row in rows]
    deep = [max(0.27, 0.15 * (label.count("\n") + 1) + 0.03) for label in labels]
    with house_style():
        figure = Figure(figsize=(5.6, 1.3 + max(0.3, sum(deep))), layout="constrained")
        axes = figure.add_subplot()
        axes.axvspan(0, small, color="#eef1f4", zorder=0, linewidth=0)
        axes.axvline(small, color=SOFT, linewidth=1, linestyle="--")
        for i, (_, before, after, worst_before, worst_after) in enumerate(rows):
            marks = ((before, worst_before, ORANGE, "o", "white", -0.1),
                     (after, worst_after, BLUE, "s", BLUE, 0.1))  # fmt: skip
            for value, worst, color, marker, face, lift in marks:
                if math.isfinite(worst):
                    axes.plot([value, min(worst, high)], [i + lift] * 2, color=color, linewidth=1.2)
                if math.isnan(value):
                    continue
                beyond = value > high
                axes.plot(min(value, high), i + lift, ">" if beyond else marker, color=color,
                          mfc=color if beyond else face, markersize=6, mew=1.4,
                          clip_on=False)  # fmt: skip
        axes.plot([], [], "o", color=ORANGE, mfc="white", mew=1.4, label="before weighting")
        axes.plot([], [], "s", color=BLUE, label="after weighting")
        axes.set_yticks(range(len(rows)), labels, fontsize=8.5)
        axes.set_ylim(max(1, len(rows)) - 0.5, -0.6)
        axes.set_xlim(0, high)
        quiet(axes)
        words = f"difference of arms in standard deviations (dashed: {small:g})"
        axes.set_xlabel("\n".join([words, *textwrap.wrap(left_out, 62)]))
        figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=8.5)
    return figure


_LoveRow = tuple[str, float, float, float, float]


def _love_rows(balance: pd.DataFrame, max_rows: int) -> tuple[list[_LoveRow], str]:
    """Return name, difference before and after, and the worst ones of an embedding's features."""
    size = balance[["smd_before", "smd_after"]].abs().to_numpy(float)
    source = balance["source"].astype(str).to_numpy()
    images: list[_LoveRow] = []
    for name in dict.fromkeys(source[source != TABLE]):
        block = pd.DataFrame(size[source == name])
        middle, worst = block.median(), block.max()
        label = f"{name}: {len(block):,} features, median and worst"
        images.append((label, middle[0], middle[1], worst[0], worst[1]))
    columns = np.flatnonzero(source == TABLE)
    furthest = np.nan_to_num(size[columns], nan=-1.0).max(axis=1, initial=-1.0)
    kept = columns[np.argsort(-furthest, kind="stable")][: max(0, max_rows - len(images))]
    kept = kept[np.argsort(-np.nan_to_num(size[kept, 0], nan=-1.0), kind="stable")]
    rows = [(str(balance.index[i]), size[i, 0], size[i, 1], math.nan, math.nan) for i in kept]
    others = np.setdiff1d(columns, kept)
    words = ""
    if len(others):
        worst_after = float(np.nan_to_num(size[others, 1]).max())
        words = (
            f"{len(others):,} further columns are not drawn; after weighting they differ by "
            f"{format_number(worst_after, 2)} at most"
        )
    return rows + images, words


def sensitivity_figure(
    bounds: pd.DataFrame,
    *,
    benchmarks: Mapping[str, float] | pd.Series[float] | None = None,
    outcome: str = "",
    unit: str = "",
) -> Figure:
    """Draw the bounds on an effect against the factor by which odds of treatment may be off.

    Parameters
    ----------
    bounds
        ``factor, low, high, ci_low, ci_high``, a row per factor.
    benchmarks
        Factor of measured confounders, by name; the five largest are said and marked.
    outcome, unit
        The outcome in words and what it is measured in.
    """
    table = bounds.sort_values("factor")
    x = table["factor"].to_numpy(float)
    with house_style():
        figure = Figure(figsize=(5.6, 4.0), layout="constrained")
        axes = figure.add_subplot()
        axes.axhline(0, color=SOFT, linewidth=1)
        axes.set_xscale("log")
        axes.fill_between(x, table["ci_low"].to_numpy(float), table["ci_high"].to_numpy(float),
                          color=BAND, linewidth=0, label="with sampling error")  # fmt: skip
        axes.fill_between(x, table["low"].to_numpy(float), table["high"].to_numpy(float),
                          color=BLUE, alpha=0.45, linewidth=0,
                          label="what the factor allows")  # fmt: skip
        for name in ("low", "high"):
            axes.plot(x, table[name].to_numpy(float), "o-", color=BLUE, linewidth=1.4, markersize=3)
        strongest = _draw_benchmarks(axes, benchmarks, x)
        axes.set_xticks(x)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks([], minor=True)
        axes.grid(axis="y", color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        label = "factor by which something hidden changes the odds of treatment"
        note = f"measured confounders: {strongest}" if strongest else ""
        axes.set_xlabel("\n".join([label, *textwrap.wrap(note, 62)]))
        axes.set_ylabel(effect_axis(outcome, unit))
        figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=8.5)
    return figure


def _draw_benchmarks(
    axes: Any, benchmarks: Mapping[str, float] | pd.Series[float] | None, x: NDArray[np.float64]
) -> str:
    """Mark measured confounders, named where there is room; return the strongest in words."""
    known = {
        str(k): float(v)
        for k, v in dict({} if benchmarks is None else benchmarks).items()
        if math.isfinite(v)
    }
    strongest = sorted(known, key=lambda name: -known[name])[:NAMED]
    last = float(x.max()) if len(x) else 1.0
    inside = [name for name in strongest if 1 < known[name] <= last]
    room = 0.05 * math.log(max(last, 1.01))
    named: list[float] = []
    for name in inside:
        place = math.log(known[name])
        axes.axvline(known[name], color=ORANGE, linewidth=1, linestyle=":")
        if all(abs(place - other) > room for other in named):
            named.append(place)
            axes.annotate(cut(name, 26), (known[name], 1.0),
                          xycoords=axes.get_xaxis_transform(), xytext=(3, -3), rotation=90,
                          textcoords="offset points", ha="left", va="top", fontsize=7.5,
                          color="#8a3f0e", bbox=LIGHT)  # fmt: skip
    if inside:
        axes.plot([], [], ":", color=ORANGE, label="as strong as a measured confounder")
    return ", ".join(f"{cut(name, 40)} {format_number(known[name])}" for name in strongest)


def calibration_figure(curves: pd.DataFrame) -> Figure:
    """Draw the share treated against its predicted probability, a curve per set of confounders.

    Parameters
    ----------
    curves
        Of one treatment: ``confounders, predicted, share_treated, ci_low, ci_high``, a row per bin.
    """
    names = in_order(curves["confounders"].astype(str).tolist(), ADJUSTMENTS)
    ends = curves[["predicted", "share_treated"]].to_numpy(float)
    top = min(1.0, 1.15 * float(np.nanmax(ends, initial=0.05)))
    with house_style():
        figure = Figure(figsize=(WIDTH, 4.5), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, top], [0, top], color=INK, linewidth=1, linestyle="--",
                  label="share = probability")  # fmt: skip
        for name in names:
            rows = curves[curves["confounders"].astype(str) == name].sort_values("predicted")
            rows, look = rows[np.isfinite(rows["share_treated"].to_numpy(float))], look_of(name)
            x = rows["predicted"].to_numpy(float)
            axes.vlines(x, rows["ci_low"].to_numpy(float), rows["ci_high"].to_numpy(float),
                        color=look.color, alpha=0.45, linewidth=1.6)  # fmt: skip
            axes.plot(x, rows["share_treated"].to_numpy(float), look.marker + "-", linewidth=1.2,
                      color=look.color, markersize=5, label=f"from {look.label}")  # fmt: skip
        axes.set_xlim(0, top)
        axes.set_ylim(0, top)
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.set_xlabel("predicted probability of a project (held-out places)")
        axes.set_ylabel("share of places that got one")
        figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=8.5)
    return figure
