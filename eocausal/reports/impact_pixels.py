"""Pictures of effects pixel by pixel, and what they show in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from eocausal.reports.content import Picture
from eocausal.reports.plots import INK, SOFT, house_style, to_png

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["pixel_pictures", "pixel_words"]

LAND = "#e4e7ea"


def pixel_words(zones: Sequence[Mapping[str, Any]], q: float) -> list[str]:
    """Say how many pixels of each zone are told from no effect.

    Parameters
    ----------
    zones
        ``zone, pixels, marked, estimate``.
    q
        Share of marked pixels that may be false.
    """
    parts = [f"{z['marked']:,} of {z['pixels']:,} ({z['zone']})" for z in zones]
    if not parts:
        return []
    return [
        f"Pixels marked as told from no effect, by zone: {'; '.join(parts)}. At most {100 * q:g}% "
        "of marked pixels are false on average."
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
        left.plot(columns[x], rows[y], ".", color=INK, markersize=1.6, markeredgewidth=0)
        for name, inside in zones.items():
            y, x = np.nonzero(inside)
            left.annotate(
                name,
                (columns[x].mean(), rows[y].max()),
                fontsize=8,
                ha="center",
                va="bottom",
                color=SOFT,
                weight="bold",
            )
    caption = (
        f"Left: the average effect in each pixel, dots where it is told from none (q < {q:g}). "
        "Right: its standard error. Outlines are zones; grey is land or too few values, or a "
        "zone that serves as control."
    )
    return [Picture("effect_by_pixel", caption, to_png(figure, dpi=140))]  # fmt: skip


def _shape(rows: NDArray[np.float64], columns: NDArray[np.float64]) -> float:
    wide = float(np.ptp(columns)) * np.cos(np.radians(rows.mean()))
    return float(np.ptp(rows)) / wide if wide else 1.0
