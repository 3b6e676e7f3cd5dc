"""Panels that share rows: one panel per funder, one row per sector, one line per adjustment."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eocausal.reports.evaluation_rows import cut
from eocausal.reports.plots import BLUE, GRID, ORANGE, SOFT, short_label

__all__ = ["Look", "Panels", "draw_interval", "look_of", "panels_of", "quiet"]

TEAL = "#2b9780"
BAND = "#dde7f1"
STRIPE = "#f4f6f8"
WIDE = 7.5
NARROW = 5.6
ACROSS = 3
LINE = 0.21
TITLES = (40, 24, 14)
LETTERS = 13.5


@dataclass(frozen=True, slots=True)
class Look:
    """How a set of confounders is drawn: told by color and by marker."""

    color: str
    marker: str
    label: str

    def handle(self, words: str) -> Line2D:
        """Return its line in a legend."""
        return Line2D([], [], color=self.color, marker=self.marker, lw=2.5, markersize=6,
                      label=words)  # fmt: skip


_LOOKS = {
    "table": Look(TEAL, "s", "table"),
    "image": Look(ORANGE, "^", "image"),
    "both": Look(BLUE, "o", "table and image"),
}


def look_of(name: str) -> Look:
    """Return the look of a set of confounders: ``table``, an image, or both."""
    if name in _LOOKS:
        return _LOOKS[name]
    same = _LOOKS["both" if " + " in name or " and " in name else "image"]
    return Look(same.color, same.marker, short_label(name))


@dataclass(frozen=True, slots=True, eq=False)
class Panels:
    """Panels that share rows and their axis.

    Attributes
    ----------
    figure
        The figure.
    panels
        Axes by funder.
    sectors
        Rows from the top.
    kinds
        Lines of a row from the top.
    """

    figure: Figure
    panels: dict[str, Any]
    sectors: list[str]
    kinds: list[str]

    def lift(self, kind: str) -> float:
        """Return how far the line of a kind lies below the middle of its row."""
        return 0.8 * ((self.kinds.index(kind) + 0.5) / len(self.kinds) - 0.5)

    def label(self, words: str, note: str = "") -> None:
        """Write what the axis is, and a note under it."""
        width = int(LETTERS * self.figure.get_figwidth())
        lines = [*textwrap.wrap(words, width), *textwrap.wrap(note, width)]
        self.figure.supxlabel("\n".join(lines), fontsize=9.5)

    def legend(self, handles: Sequence[Line2D]) -> None:
        """Put a legend above the panels."""
        columns = 3 if self.figure.get_figwidth() > NARROW else 2
        self.figure.legend(handles=handles, loc="outside upper left", ncols=columns, frameon=False,
                           fontsize=8.5)  # fmt: skip


def panels_of(funders: Sequence[str], sectors: Sequence[str], kinds: Sequence[str]) -> Panels:
    """Make empty panels, up to three side by side, as high as their rows need."""
    columns = min(ACROSS, max(1, len(funders)))
    rows = math.ceil(max(1, len(funders)) / columns)
    labels = [short_label(sector) for sector in sectors]
    deep = max([LINE * max(2, len(kinds)), *(0.15 * (s.count("\n") + 1) + 0.06 for s in labels)])
    height = 1.5 + rows * (0.45 + deep * max(1, len(sectors)))
    size = (WIDE if columns > 1 else NARROW, height)
    figure = Figure(figsize=size, layout="constrained")
    drawn = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for spare in drawn[max(1, len(funders)) :]:
        spare.set_visible(False)
    panels = dict(zip(funders, drawn, strict=False))
    for funder, axes in panels.items():
        width = TITLES[columns - 1]
        title = textwrap.fill(cut(funder, 2 * width), width)
        axes.set_title(title, fontsize=10.5, weight="bold", loc="left")
        quiet(axes)
        axes.tick_params(axis="y", pad=8)
        for i in range(1, len(sectors), 2):
            axes.axhspan(i - 0.5, i + 0.5, color=STRIPE, zorder=0, linewidth=0)
    drawn[0].set_yticks(range(len(sectors)), labels, fontsize=8.5)
    drawn[0].set_ylim(max(1, len(sectors)) - 0.5, -0.5)
    return Panels(figure, panels, list(sectors), list(kinds))


def quiet(axes: Any) -> None:
    """Leave of an axis with named rows only what is read."""
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)


def draw_interval(
    axes: Any, y: float, low: float, high: float, look: Look, width: float
) -> list[float]:
    """Draw an interval, cut at the ends of the axis with arrows; return its ends as drawn."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return []
    left, right = axes.get_xlim()
    ends = [min(max(v, left), right) for v in (low, high)]
    axes.plot(ends, [y, y], color=look.color, linewidth=width, solid_capstyle="butt", zorder=3)
    for end, wanted, marker in ((ends[0], low, "<"), (ends[1], high, ">")):
        if end != wanted:
            axes.plot(end, y, marker, color=look.color, markersize=4, clip_on=False, zorder=3)
    return ends


def write_word(axes: Any, y: float, word: str, color: str = SOFT) -> None:
    """Write why there is nothing to draw."""
    axes.text(0.02, y, word, transform=axes.get_yaxis_transform(), va="center", ha="left",
              fontsize=8, color=color, style="italic", zorder=4)  # fmt: skip
