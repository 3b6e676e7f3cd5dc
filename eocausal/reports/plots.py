"""Static figures: coefficients, RATE over splits, AUC, truth, and the map for print.

Every function returns a matplotlib ``Figure`` made without pyplot, so that nothing global is left
behind; :func:`to_svg` and :func:`to_png` give equal bytes for equal figures.
"""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from eocausal.reports.tables import as_float, format_interval, format_number, vcov_words
from eocausal.reports.text import primary_estimate

__all__ = [
    "auc_figure",
    "coefficients_figure",
    "rate_figure",
    "short_label",
    "to_png",
    "to_svg",
    "truth_figure",
]

INK = "#1b2733"
SOFT = "#5b6875"
GRID = "#d9dee3"
BLUE = "#1f5a94"
ORANGE = "#c4601d"
GREY = "#9aa3ab"
WIDTH = 4.9
LABEL_WIDTH = 24
AXIS_WIDTH = 44
MAX_LABEL = 72

_STYLE = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "svg.hashsalt": "eocausal",
    "svg.fonttype": "path",
}  # fmt: skip


@contextmanager
def house_style() -> Iterator[None]:
    with rc_context(_STYLE), warnings.catch_warnings():
        # a label in a script the font lacks is still right in the tables of the report
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def to_svg(figure: Figure) -> bytes:
    """Return a figure as SVG bytes without date; equal figures give equal bytes."""
    stream = io.BytesIO()
    with house_style():
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def to_png(figure: Figure, *, dpi: int = 160) -> bytes:
    """Return a figure as PNG bytes without date; equal figures give equal bytes."""
    stream = io.BytesIO()
    with house_style():
        figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
    return stream.getvalue()


def effect_records(estimates: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the records that can share an axis: effects in the unit of the headline.

    Those are the records of the headline's estimand, and averages of the map.
    """
    headline = primary_estimate(estimates)
    if headline is None:
        return []
    return [
        e
        for e in estimates
        if math.isfinite(as_float(e.get("estimate")))
        and (
            e.get("estimand") == headline.get("estimand")
            or str(e.get("estimand", "")).startswith("average effect")
        )
    ]


def short_label(label: str) -> str:
    """Wrap a label to the width of an axis, and cut one that is far too long."""
    label = " ".join(label.split())
    label = label if len(label) <= MAX_LABEL else label[: MAX_LABEL - 1] + "…"
    return textwrap.fill(label, LABEL_WIDTH)


def effect_axis(outcome: str, unit: str) -> str:
    label = "Effect" + (f" on {outcome}" if outcome else "") + (f" ({unit})" if unit else "")
    return textwrap.fill(label, AXIS_WIDTH)


def coefficients_figure(
    estimates: Sequence[Mapping[str, Any]], *, outcome: str = "", unit: str = ""
) -> Figure:
    """Draw each estimate with its interval, the headline emphasized.

    Parameters
    ----------
    estimates
        Records; those with another estimand than the headline's are left out.
    """
    records = effect_records(estimates)
    headline = primary_estimate(estimates)
    labels = [_coefficient_label(record, headline) for record in records]
    row = max([0.46, *(0.15 * (label.count("\n") + 1) for label in labels)])
    with house_style():
        figure = Figure(figsize=(WIDTH, 0.9 + row * max(1, len(records))), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color=SOFT, linewidth=1)
        for i, record in enumerate(records):
            _draw_coefficient(axes, i, record, main=record is headline)
        axes.set_yticks(range(len(records)), labels, fontsize=8.5)
        axes.set_ylim(len(records) - 0.5, -0.75)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.set_xlabel(effect_axis(outcome, unit))
    return figure


def _coefficient_label(record: Mapping[str, Any], headline: Mapping[str, Any] | None) -> str:
    """Return the method and its variance, or the estimand where it is another one."""
    if headline is not None and record.get("estimand") != headline.get("estimand"):
        return short_label(str(record.get("estimand", "")))
    below = vcov_words(str(record.get("vcov") or ""))
    return short_label(str(record.get("method", ""))) + (f"\n{short_label(below)}" if below else "")


def _draw_coefficient(axes: Any, at: int, record: Mapping[str, Any], *, main: bool) -> None:
    color = BLUE if main else SOFT
    low, high = as_float(record.get("ci_low")), as_float(record.get("ci_high"))
    value = as_float(record.get("estimate"))
    axes.plot([low, high], [at, at], color=color, linewidth=2.6 if main else 1.6,
              solid_capstyle="butt")  # fmt: skip
    axes.plot(value, at, "o", color=color, markersize=7.5 if main else 5.5)
    axes.annotate(
        f"{format_number(value)}  [{format_interval(low, high)}]", (value, at), xytext=(0, 7),
        textcoords="offset points", ha="center", fontsize=8, color=color,
        weight="bold" if main else "normal",
    )  # fmt: skip


def rate_figure(heterogeneity: pd.DataFrame) -> Figure:
    """Draw the distribution over splits of RATE divided by its standard error, per target.

    Parameters
    ----------
    heterogeneity
        ``target, split, estimate, std_error, ratio``.
    """
    targets = list(dict.fromkeys(heterogeneity["target"].astype(str)))
    with house_style():
        figure = Figure(figsize=(WIDTH, 1.1 + 0.85 * len(targets)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvspan(-1.96, 1.96, color="#eef1f4", zorder=0)
        axes.axvline(0, color=SOFT, linewidth=1)
        labels = [short_label(target) for target in targets]
        for i, target in enumerate(targets):
            mine = heterogeneity[heterogeneity["target"].astype(str) == target]
            ratio = mine.sort_values("split")["ratio"].to_numpy(float)
            ratio = ratio[np.isfinite(ratio)]
            if not ratio.size:
                continue
            order = np.argsort(np.argsort(ratio, kind="stable"), kind="stable")
            lift = 0.17 * np.sin(order * 2.399963)  # golden angle: spread without chance
            axes.plot(ratio, i + lift, "o", color=BLUE, alpha=0.55, markersize=5, mew=0)
            low, middle, high = np.quantile(ratio, [0.25, 0.5, 0.75])
            axes.plot([low, high], [i, i], color=INK, linewidth=3.2, solid_capstyle="butt")
            axes.plot(middle, i, "D", color="white", mec=INK, mew=1.6, markersize=7)
            labels[i] += f"\nmedian {format_number(middle, 2)}"
        axes.set_yticks(range(len(targets)), labels)
        axes.set_ylim(len(targets) - 0.5, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("estimate ÷ standard error, one dot per split\n(shaded: within ±1.96)")
    return figure


def auc_figure(auc: pd.DataFrame) -> Figure:
    """Draw how well imagery tells the arms apart under each kind of folds.

    Parameters
    ----------
    auc
        ``folds, auc, ci_low, ci_high, used, why``.
    """
    rows = auc.to_dict("records")
    with house_style():
        figure = Figure(figsize=(WIDTH, 0.9 + 0.5 * max(1, len(rows))), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0.5, color=SOFT, linewidth=1)
        for i, row in enumerate(rows):
            used = bool(row["used"])
            color = BLUE if used else GREY
            axes.plot([row["ci_low"], row["ci_high"]], [i, i], color=color, linewidth=2.4,
                      solid_capstyle="butt")  # fmt: skip
            axes.plot(row["auc"], i, "o" if used else "s", color=color, markersize=7)
            axes.annotate(f"{row['auc']:.3f}", (row["auc"], i), xytext=(0, 7), color=INK,
                          textcoords="offset points", ha="center", fontsize=8.5)  # fmt: skip
        labels = [short_label(f"{r['folds']}") + ("\nused" if r["used"] else "\nnot used")
                  for r in rows]  # fmt: skip
        axes.set_yticks(range(len(rows)), labels)
        axes.set_ylim(len(rows) - 0.5, -0.75)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.set_xlabel("area under the ROC curve (line at 0.5: chance)")
    return figure


def truth_figure(truth: pd.DataFrame, *, unit: str = "") -> Figure:
    """Draw estimates with intervals against the truth; intervals that miss it stand out.

    Parameters
    ----------
    truth
        ``estimate, ci_low, ci_high, truth``, one row per neighborhood.
    """
    use = truth[np.isfinite(truth["estimate"].to_numpy(float))]
    x, y = use["truth"].to_numpy(float), use["estimate"].to_numpy(float)
    low, high = use["ci_low"].to_numpy(float), use["ci_high"].to_numpy(float)
    missed = (x < low) | (x > high)
    with house_style():
        figure = Figure(figsize=(5.2, 4.8), layout="constrained")
        axes = figure.add_subplot()
        thin = 0.8 if len(use) < 300 else 0.3
        for some, color, name in ((~missed, BLUE, "interval covers the truth"),
                                  (missed, ORANGE, "interval misses it")):  # fmt: skip
            if some.any():
                axes.vlines(x[some], low[some], high[some], color=color, alpha=0.3,
                            linewidth=thin, rasterized=True)  # fmt: skip
                axes.plot(x[some], y[some], "o" if color == BLUE else "^", color=color, mew=0,
                          markersize=4 if len(use) < 1000 else 2.4, alpha=0.8, rasterized=True,
                          label=f"{name} ({int(some.sum()):,})")  # fmt: skip
        if len(use):
            ends = [min(x.min(), y.min()), max(x.max(), y.max())]
            axes.plot(ends, ends, color=INK, linewidth=1, linestyle="--", label="estimate = truth")
            figure.legend(loc="outside upper left", frameon=False, fontsize=8.5, ncols=2)
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        suffix = f" ({unit})" if unit else ""
        axes.set_xlabel(f"true effect{suffix}")
        axes.set_ylabel(f"estimated effect{suffix}")
    return figure
