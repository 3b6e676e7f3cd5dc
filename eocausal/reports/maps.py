"""The interactive map: Bokeh, inlined, without network and without map tiles."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eocausal.effects import Status
from eocausal.reports.layers import NO_ESTIMATE, PlaceLayers, color_scale
from eocausal.reports.tables import MISSING, format_interval, format_level, format_number

if TYPE_CHECKING:
    import pandas as pd
    from bokeh.models import GlyphRenderer
    from bokeh.plotting import figure as Plot

    from eocausal.effect_map import EffectMap

__all__ = [
    "MEASURES",
    "bokeh_script",
    "embeddable_json",
    "interactive_map",
    "map_shape",
    "status_words",
]

MEASURES = {"estimate": "Estimate", "std_error": "Standard error", "support": "Support"}
EDGE = "#5a6570"
HATCH = "#7d868e"
FONT = "system-ui, Roboto, Arial, sans-serif"

TOOLTIP = f"""<div style="font: 14px/1.45 {FONT}; color: #1b2733;
max-width: 19rem; padding: 2px 4px; white-space: normal; overflow-wrap: anywhere">
<div style="font-weight: 650">@neighborhood</div>
<div>Estimate: <b>@shown_estimate</b></div>
<div>Interval: @shown_interval</div>
<div>Standard error: @shown_error</div>
<div>Support: @shown_support</div>
<div>Status: @shown_status</div>
</div>"""

_STATUS_WORDS = {
    Status.OK: "inside the study's support",
    Status.WARNED: "with a warning",
    Status.EXTRAPOLATED: "extrapolated: unlike any place of the study",
    Status.NO_IMAGE: "no usable image, so no estimate",
    Status.REFUSED: "refused: an estimate would be meaningless",
}


def status_words(status: str) -> str:
    """Say a status in words."""
    return _STATUS_WORDS[Status(status)] if status in set(Status) else str(status)


def bokeh_script() -> str:
    """Return the JavaScript of Bokeh, from the installed package."""
    from bokeh.resources import Resources

    return str(Resources(mode="inline", components=["bokeh"]).js_raw[0])


def embeddable_json(value: Any) -> str:
    """Write JSON that cannot end the ``<script>`` element it stands in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def interactive_map(effect_map: EffectMap, layers: PlaceLayers) -> dict[str, Any]:
    """Build the map as a Bokeh JSON item whose ids do not depend on what was drawn before.

    Parameters
    ----------
    effect_map
        Effects per neighborhood. Areas too small to be seen are drawn as marks; places outside
        support are hatched or crossed, those without estimate grey.
    layers
        Its shapes, from :func:`eocausal.reports.layers.place_layers`.

    Returns
    -------
    dict
        For ``Bokeh.embed.embed_item``. Renderers have the tag ``places``, the color bars are
        named after the keys of :data:`MEASURES`.
    """
    from bokeh.embed import json_item

    plot = _empty_plot(layers)
    mappers = _color_bars(plot, effect_map.table)
    renderers = [
        *_add_areas(plot, layers, effect_map, mappers["estimate"]),
        *_add_marks(plot, layers, effect_map, mappers["estimate"]),
    ]
    _add_hover(plot, renderers)
    return _renumbered(json_item(plot, "effect-map"))


def map_shape(layers: PlaceLayers) -> float:
    """Return width over height of the drawn map, kept within what fits a page."""
    width, height = layers.size_km
    return min(2.0, max(0.75, width / max(height, 1e-9)))


def _empty_plot(layers: PlaceLayers) -> Plot:
    from bokeh.models import PanTool, ResetTool, WheelZoomTool
    from bokeh.plotting import figure

    height = round(960 / map_shape(layers))
    wheel = WheelZoomTool(modifiers={"ctrl": True})
    plot = figure(
        sizing_mode="scale_width", width=960, height=height, match_aspect=True,
        tools=[PanTool(), wheel, ResetTool()], toolbar_location="above",
        x_axis_label="km east of the center", y_axis_label="km north of the center",
        background_fill_color="#f7f9fa", border_fill_color="white", output_backend="canvas",
    )  # fmt: skip
    plot.add_tools("box_zoom", "zoom_in", "zoom_out")
    plot.toolbar.logo = None
    plot.toolbar.active_scroll = wheel
    plot.x_range.range_padding = plot.y_range.range_padding = 0.04
    plot.grid.grid_line_color = "#e4e9ed"
    plot.outline_line_color = "#c3cad1"
    for axis in plot.axis:
        axis.axis_label_text_font = axis.major_label_text_font = FONT
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_color = axis.major_label_text_color = "#3d4954"
        axis.axis_line_color = axis.major_tick_line_color = "#c3cad1"
        axis.minor_tick_line_color = None
    return plot


def _color_bars(plot: Plot, table: pd.DataFrame) -> dict[str, Any]:
    from bokeh.models import ColorBar, LinearColorMapper

    mappers = {}
    for measure, title in MEASURES.items():
        scale = color_scale(table, measure)
        mapper = LinearColorMapper(
            palette=list(scale.palette), low=scale.low, high=scale.high, nan_color=NO_ESTIMATE,
            name=f"mapper-{measure}",
        )  # fmt: skip
        bar = ColorBar(
            color_mapper=mapper, title=title, name=f"bar-{measure}", height=12,
            visible=measure == "estimate", title_text_font=FONT, major_label_text_font=FONT,
            title_text_font_style="bold", title_text_color="#1b2733", title_standoff=8,
            major_label_text_color="#3d4954", bar_line_color=None, major_tick_line_color="#3d4954",
        )  # fmt: skip
        plot.add_layout(bar, "below")
        mappers[measure] = mapper
    return mappers


def _columns(effect_map: EffectMap, rows: list[int]) -> dict[str, Any]:
    table = effect_map.table.iloc[rows]
    values = {name: table[name].to_numpy("float32") for name in MEASURES}
    status = table["status"].astype(str)
    level = format_level(effect_map.level)
    intervals = [
        format_interval(low, high)
        for low, high in zip(table["ci_low"].tolist(), table["ci_high"].tolist(), strict=True)
    ]
    return {
        **values,
        "neighborhood": [str(name) for name in table.index],
        "shown_estimate": [format_number(v) for v in table["estimate"].tolist()],
        "shown_interval": [text if text == MISSING else f"{text} ({level})" for text in intervals],
        "shown_error": [format_number(v) for v in table["std_error"].tolist()],
        "shown_support": [format_number(v, 2) for v in table["support"].tolist()],
        "shown_status": [status_words(s) for s in status],
    }


def _add_areas(
    plot: Plot, layers: PlaceLayers, effect_map: EffectMap, mapper: Any
) -> list[GlyphRenderer]:
    from bokeh.models import ColumnDataSource

    rows = layers.area_rows
    if not rows:
        return []
    data = _columns(effect_map, rows)
    data["xs"], data["ys"] = _ring_columns([layers.polygons[i] for i in rows])
    renderer = plot.multi_polygons(
        "xs", "ys", source=ColumnDataSource(data),
        fill_color={"field": "estimate", "transform": mapper}, line_color="white",
        line_width=0.6 if len(rows) < 2000 else 0.2, hover_line_color="#111111",
    )  # fmt: skip
    renderer.tags = ["places"]
    renderer.nonselection_glyph = None
    if layers.hatched:
        # one shape for all: a hatch per place takes a browser a minute for thousands of places
        xs, ys = _ring_columns([layers.hatched])
        plot.multi_polygons(
            "xs", "ys", source=ColumnDataSource({"xs": xs, "ys": ys}), fill_color=None,
            line_color=HATCH, line_width=0.8, hatch_pattern="/", hatch_color=HATCH,
            hatch_alpha=1.0, hatch_scale=11.0, hatch_weight=1.4,
        )  # fmt: skip
    return [renderer]


def _ring_columns(places: Sequence[Sequence[Sequence[Any]]]) -> tuple[list[Any], list[Any]]:
    """Return the x and y of places as nested lists: place, polygon, ring, vertex."""
    xs, ys = (
        [[[ring[:, axis].tolist() for ring in polygon] for polygon in place] for place in places]
        for axis in (0, 1)
    )
    return xs, ys


def _add_marks(
    plot: Plot, layers: PlaceLayers, effect_map: EffectMap, mapper: Any
) -> list[GlyphRenderer]:
    from bokeh.models import ColumnDataSource

    rows = layers.mark_rows
    if not rows:
        return []
    data = _columns(effect_map, rows)
    data["x"] = layers.x[rows].tolist()
    data["y"] = layers.y[rows].tolist()
    data["marker"] = ["square_x" if layers.extrapolated[i] else "circle" for i in rows]
    renderer = plot.scatter(
        "x", "y", source=ColumnDataSource(data),  size=layers.mark_size,
        marker={"field": "marker"}, fill_color={"field": "estimate", "transform": mapper},
        line_color=EDGE, line_width=0.6, hover_line_color="#111111",
    )  # fmt: skip
    renderer.tags = ["places"]
    renderer.nonselection_glyph = None
    return [renderer]


def _add_hover(plot: Plot, renderers: list[GlyphRenderer]) -> None:
    from bokeh.models import HoverTool

    plot.add_tools(
        HoverTool(
            renderers=renderers,
            point_policy="follow_mouse",
            tooltips=TOOLTIP,
        )
    )


def _renumbered(item: dict[str, Any]) -> dict[str, Any]:
    """Give the models of a Bokeh JSON item ids in the order in which they appear."""
    names: dict[str, str] = {}

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            out = {}
            for key, inner in value.items():
                if key == "id" and isinstance(inner, str):
                    out[key] = names.setdefault(inner, f"m{len(names) + 1}")
                else:
                    out[key] = walk(inner)
            return out
        if isinstance(value, list | tuple):
            return [walk(inner) for inner in value]
        if isinstance(value, np.generic):
            return walk(value.item())
        return None if isinstance(value, float) and math.isnan(value) else value

    document = walk(item["doc"])
    return {
        "target_id": item["target_id"],
        "root_id": names[item["root_id"]],
        "doc": document,
        "version": item["version"],
    }
