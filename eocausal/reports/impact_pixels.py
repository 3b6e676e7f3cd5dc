"""Pictures of effects pixel by pixel, and what they show in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from eocausal.reports.content import Picture
from eocausal.reports.evaluation_words import joined
from eocausal.reports.impact_words import with_unit
from eocausal.reports.plots import INK, house_style, to_png
from eocausal.reports.tables import format_interval, format_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["pixel_pictures", "pixel_words"]

LAND = "#e4e7ea"


def pixel_words(kept: Mapping[str, Any], unit: str, q: float) -> list[str]:
    """Say in how many pixels of each zone the effect is told from none, and its mean.

    Parameters
    ----------
    kept
        ``pixels, estimated, strict`` counts; ``zones`` of ``zone, pixels, marked``; ``area``, the
        mean effect over all; ``lost`` of ``words, pixels``.
    unit
        Of the outcome.
    q
        Share of marked pixels that may be false.
    """
    parts = [f"{z['marked']:,} of {z['pixels']:,} in {z['zone']}" for z in kept["zones"]]
    lost = [f"{row['pixels']:,} {row['words']}" for row in kept["lost"]]
    area = kept["area"]
    interval = with_unit(format_interval(area["ci_low"], area["ci_high"]), unit)
    return [
        f"The effect is told from none in {joined(parts, 8)}; at most {100 * q:g}% of the pixels "
        "so marked are false on average (Benjamini-Hochberg, which holds where neighbours rise "
        f"and fall together). By the rule for any dependence (Benjamini-Yekutieli) there are "
        f"{kept['strict']:,}.",
        f"Over all {kept['estimated']:,} pixels with an estimate the mean effect is "
        f"{format_number(area['estimate'])} ({interval}), from their mean series: intervals of "
        "single pixels do not add up to it, because pixels depend on each other."
        + (f" Without an estimate: {'; '.join(lost)}." if lost else ""),
    ]


def pixel_pictures(
    data: xr.Dataset, zones: Mapping[str, NDArray[np.bool_]], *, unit: str, q: float
) -> list[Picture]:
    """Draw the effect in each pixel, and its standard error.

    Parameters
    ----------
    data
        ``estimate, std_error, q_value`` over two dimensions with coordinates.
    zones
        (rows, columns) True where a zone is, by name; drawn as outlines.
    """
    rows, columns = (np.asarray(data[str(d)].to_numpy(), float) for d in data["estimate"].dims)
    estimate, error, q_value = (
        data[n].to_numpy() for n in ("estimate", "std_error", "q_value")
    )  # fmt: skip
    label = f" ({unit})" if unit and unit != "1" else ""
    top = float(np.nanquantile(np.abs(estimate), 0.995)) or 1.0
    with house_style():
        height = min(7.0, max(2.8, 3.4 * _shape(rows, columns)))
        figure = Figure(figsize=(7.5, height + 0.5), layout="constrained")
        left, right = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, values, name, look in (
            (left, estimate, "Average effect", {"cmap": "RdBu_r", "vmin": -top, "vmax": top}),
            (right, error, "Standard error", {"cmap": "cividis", "vmin": 0.0}),
        ):
            axes.set_facecolor(LAND)
            shown = axes.pcolormesh(columns, rows, np.ma.masked_invalid(values), **look)
            figure.colorbar(shown, ax=axes, location="bottom", shrink=0.9, pad=0.03).set_label(
                f"{name}{label}", fontsize=8.5
            )
            for inside in zones.values():
                axes.contour(
                    columns, rows, inside.astype(float), levels=[0.5], colors=[INK], linewidths=1.1
                )
            axes.set_aspect(1 / max(np.cos(np.radians(rows.mean())), 0.1))
            axes.tick_params(labelsize=8, length=3)
        marked = np.where(np.isfinite(q_value), q_value < q, False)
        y, x = np.nonzero(marked)
        left.plot(columns[x], rows[y], "o", markerfacecolor="white", markeredgecolor=INK,
                  markersize=2.4, markeredgewidth=0.4)  # fmt: skip
        for name, inside in zones.items():
            y, x = np.nonzero(inside)
            left.annotate(name, (columns[x].mean(), rows[y].max()), xytext=(0, 5), fontsize=8,
                          textcoords="offset points", ha="center", va="bottom", color=INK,
                          weight="bold")  # fmt: skip
    caption = (
        f"Left: the average effect in each pixel, dots where it is told from none (q < {q:g}). "
        "Right: its standard error. Outlines are zones; grey is land or too few values, or a "
        "zone that serves as control."
    )
    return [Picture("effect_by_pixel", caption, to_png(figure, dpi=140))]  # fmt: skip


def _shape(rows: NDArray[np.float64], columns: NDArray[np.float64]) -> float:
    wide = float(np.ptp(columns)) * np.cos(np.radians(rows.mean()))
    return float(np.ptp(rows)) / wide if wide else 1.0
