"""An impact in three panels: the series and what would have been, and its effects over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from eocausal.reports.plots import BLUE, GRID, INK, ORANGE, SOFT, house_style

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.impact import Impact

__all__ = ["impact_figure"]

SIZE = (7.2, 6.4)
SHADE = "#f3efe8"
BAND = 0.2


def impact_figure(impact: Impact) -> Figure:
    """Draw observed values against what would have been, pointwise and cumulative effects.

    The band of each panel is the interval of single times (of the running sum in the last panel).
    Windows of events are shaded; the line between times learned from and those after is dashed.
    """
    frame = impact.to_frame()
    unit = f" ({impact.unit})" if impact.unit else ""
    with house_style():
        figure = Figure(figsize=SIZE, layout="constrained")
        top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=[1.5, 1, 1])
        for axes in (top, middle, bottom):
            _windows(axes, impact)
            axes.grid(axis="y", color=GRID, linewidth=0.7)
            axes.set_axisbelow(True)
        _band(
            top, frame, "counterfactual", BLUE, f"expected, {100 * impact.path.level:g}% interval"
        )
        _line(top, frame.index, frame["observed"].to_numpy(float), INK, "observed")
        top.set_ylabel(f"{impact.name}{unit}")
        top.legend(frameon=False, fontsize=8.5, ncols=3, loc="lower left",
                   bbox_to_anchor=(0.0, 1.0), borderaxespad=0.1)  # fmt: skip
        for axes, name, label in (
            (middle, "effect", f"Difference{unit}"),
            (bottom, "cumulative", f"Summed{unit}"),
        ):
            axes.axhline(0, color=SOFT, linewidth=1)
            _band(axes, _counted(frame, impact) if name == "cumulative" else frame, name, ORANGE)
            axes.set_ylabel(label)
        if not isinstance(frame.index, pd.DatetimeIndex):
            bottom.set_xlabel("row")
        figure.align_ylabels()
    return figure


def _counted(frame: pd.DataFrame, impact: Impact) -> pd.DataFrame:
    """Return the running sum from the last time before the first event on."""
    first = int(np.argmax(impact.path.post))
    return frame.iloc[max(0, first - 1) :]


def _windows(axes: Any, impact: Impact) -> None:
    post, time = impact.path.post, impact.path.time
    edges = np.flatnonzero(np.diff(np.concatenate([[False], post, [False]]).astype(int)))
    for first, end in zip(edges[::2], edges[1::2], strict=True):
        label = "counted" if first == edges[0] else "_"
        axes.axvspan(time[first], time[end - 1], color=SHADE, linewidth=0, zorder=0, label=label)
    axes.axvline(time[int(np.argmax(post))], color=SOFT, linewidth=1, linestyle=(0, (4, 3)))


def _band(axes: Any, frame: pd.DataFrame, name: str, color: str, label: str = "") -> None:
    axes.fill_between(
        frame.index, frame[f"{name}_low"], frame[f"{name}_high"], color=color, alpha=BAND,
        linewidth=0,
    )  # fmt: skip
    _line(axes, frame.index, frame[name].to_numpy(float), color, label)


def _line(axes: Any, time: pd.Index, values: NDArray[np.float64], color: str, label: str) -> None:
    """Draw a line, and values with gaps on both sides as dots."""
    axes.plot(time, values, color=color, linewidth=1.3, label=label or "_")
    known = np.concatenate([[False], np.isfinite(values), [False]])
    alone = known[1:-1] & ~known[:-2] & ~known[2:]
    axes.plot(time[alone], values[alone], "o", color=color, markersize=2.5, mew=0)
