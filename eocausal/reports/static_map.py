"""The map for print and for readers without JavaScript."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PathCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.path import Path as Outline

from eocausal.reports.layers import NO_ESTIMATE, PlaceLayers, color_scale, place_layers
from eocausal.reports.plots import effect_axis, house_style

if TYPE_CHECKING:
    from eocausal.effect_map import EffectMap

__all__ = ["map_figure"]

EDGE = "#5a6570"
HATCH = "#7d868e"


def map_figure(effect_map: EffectMap, *, outcome: str = "", unit: str = "") -> Figure:
    """Draw the estimates as a static map in a local projection, with a scale in km.

    Parameters
    ----------
    effect_map
        Effects per neighborhood; those outside support are hatched, those without estimate grey.
    """
    layers = place_layers(effect_map)
    scale = color_scale(effect_map.table, "estimate")
    cmap = ListedColormap(scale.palette).with_extremes(bad=NO_ESTIMATE)
    norm = Normalize(scale.low, scale.high)
    width, height = layers.size_km
    shape = min(1.6, max(0.45, height / max(width, 1e-9)))
    with house_style():
        figure = Figure(figsize=(7.0, 7.0 * shape * 0.76 + 0.9), layout="constrained")
        axes = figure.add_subplot()
        values = np.ma.masked_invalid(effect_map.table["estimate"].to_numpy(float))
        shades = cmap(norm(values))
        _draw_areas(axes, layers, shades)
        _draw_marks(axes, layers, shades)
        axes.set_aspect("equal")
        axes.autoscale_view()
        axes.set_xlabel("km east of the center")
        axes.set_ylabel("km north of the center")
        for side in ("top", "right"):
            axes.spines[side].set_visible(True)
        bar = figure.colorbar(ScalarMappable(norm, cmap), ax=axes, shrink=0.8, aspect=30,
                              extend=scale.extend)  # fmt: skip
        bar.set_label(effect_axis(outcome, unit))
        bar.outline.set_visible(False)
        _map_legend(figure, layers, effect_map)
    return figure


def _draw_areas(axes: Any, layers: PlaceLayers, shades: Any) -> None:
    def outline(rings: Sequence[Any]) -> Outline:
        return Outline.make_compound_path(*(Outline(ring, closed=True) for ring in rings))

    for hatched in (False, True):
        rows = [i for i in layers.area_rows if layers.extrapolated[i] == hatched]
        if rows:
            paths = [outline(layers.rings(i)) for i in rows]
            axes.add_collection(PathCollection(
                paths, facecolors=shades[rows], edgecolors=HATCH if hatched else "white",
                linewidths=0.25, hatch="////" if hatched else None,
            ))  # fmt: skip


def _draw_marks(axes: Any, layers: PlaceLayers, shades: Any) -> None:
    size = layers.mark_size**2 * 0.7
    for crossed, marker in ((False, "o"), (True, "X")):
        rows = [i for i in layers.mark_rows if layers.extrapolated[i] == crossed]
        if rows:
            axes.scatter(layers.x[rows], layers.y[rows], c=shades[rows], s=size, marker=marker,
                         edgecolors=EDGE, linewidths=0.4)  # fmt: skip


def _map_legend(figure: Figure, layers: PlaceLayers, effect_map: EffectMap) -> None:
    handles = []
    if layers.extrapolated.any():
        words = "crossed" if layers.mark_rows else "hatched"
        handles.append(Patch(facecolor="white", edgecolor=EDGE, hatch="////",
                             label=f"{words}: extrapolated, unlike the study"))  # fmt: skip
    if effect_map.table["estimate"].isna().any():
        handles.append(Patch(facecolor=NO_ESTIMATE, label="grey: no estimate"))
    if handles:
        figure.legend(handles=handles, loc="outside upper left", ncols=2, frameon=False,
                      fontsize=8.5)  # fmt: skip
