"""The part of a report that is of an event on a series, ready for its template."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from eocausal.reports.impact_words import date_words
from eocausal.reports.tables import (
    TextTable,
    as_float,
    format_interval,
    format_number,
    format_p,
    text_table,
)

if TYPE_CHECKING:
    from eocausal.reports.impact_content import ImpactContent, LandCover, PixelMap

__all__ = ["impact_view"]


def impact_view(impact: ImpactContent, images: Mapping[str, str]) -> dict[str, Any]:
    """Return what the template shows of an event on a series.

    Parameters
    ----------
    images
        Figures by name, as data addresses.
    """
    return {
        "series_caption": _series_caption(impact),
        "variants": variants_table(impact.variants),
        "variants_notes": _variant_notes(impact.variants),
        "variants_words": list(impact.variants_words),
        "paper": list(impact.paper),
        "breaks": breaks_table(impact) if impact.breaks else None,
        "breaks_words": list(impact.breaks_words),
        "breaks_caption": _breaks_caption(impact),
        "broken": [(b.name, list(b.words)) for b in impact.breaks],
        "sensors": [f"{r['date']}: {r['what']}" for r in impact.sensors.to_dict("records")],
        "sensor_tests": text_table(impact.sensor_tests) if len(impact.sensor_tests) else None,
        "depths": _depths(impact.depths) if len(impact.depths) else None,
        "depth_words": list(impact.depth_words),
        "land": None if impact.land is None else _land(impact.land),
        "pixels": None if impact.pixels is None else _pixels(impact.pixels),
        "truth": list(impact.truth),
        "methods": list(impact.methods),
        "references": list(impact.references),
        "images": images,
    }


def _series_caption(impact: ImpactContent) -> str:
    gap = ""
    if impact.learn_until is not None:
        gap = " The grey stretch is neither learned from nor counted."
    return (
        "Top: observed values (black) against what was expected without the event (blue, with the "
        "interval of single times). Middle: their difference. Bottom: its running sum, which means "
        "more for amounts than for a state such as clarity. The "
        f"vertical line is the event, {date_words(impact.when, impact.path.index)}.{gap}"
    )


def _breaks_caption(impact: ImpactContent) -> str:
    sensors = "; numbered dashed lines are dates of sensors, listed below" if len(
        impact.sensors
    ) else ""  # fmt: skip
    return (
        "Grey: the series. Blue: the level of each regime, season taken out; bands are intervals "
        f"for the date of a break. The orange line is the event{sensors}."
    )


def variants_table(variants: pd.DataFrame) -> TextTable:
    """Print the average effect by model, the study's own first."""
    rows = []
    for r in variants.to_dict("records"):
        relative = as_float(r.get("relative"))
        rows.append((
            str(r["name"]), format_number(as_float(r["estimate"])),
            format_interval(as_float(r["ci_low"]), as_float(r["ci_high"])),
            f"{relative:+.1%}".replace("-", "−") if relative == relative else "–",
            format_number(as_float(r.get("cumulative"))), format_p(as_float(r.get("p_value"))),
            str(r["method"]),
        ))  # fmt: skip
    header = ("", "average", "interval", "relative", "sum", "p", "model")
    return TextTable(header, tuple(rows), tuple(1 <= i <= 5 for i in range(len(header))))


def _variant_notes(variants: pd.DataFrame) -> list[str]:
    """Return what was noted of estimates, each once, with the models it was noted of."""
    notes: dict[str, list[str]] = {}
    for r in variants.to_dict("records"):
        if r.get("note") and as_float(r["estimate"]) == as_float(r["estimate"]):
            notes.setdefault(str(r["note"]), []).append(str(r["name"]))
    return [f"{', '.join(names)}: {note}" for note, names in notes.items()]


def breaks_table(impact: ImpactContent) -> TextTable:
    """Print the breaks of all series."""
    rows = []
    for item in impact.breaks:
        if not len(item.breaks):
            rows.append((item.name, "none", "", "", "", ""))
        for r in item.breaks.to_dict("records"):
            rows.append((
                item.name, str(r["after"]), f"{r['first']} to {r['last']}",
                format_number(as_float(r["change"])), format_number(as_float(r["std_error"])),
                format_p(as_float(r["p_value"])),
            ))  # fmt: skip
    header = ("series", "new level from", "interval of the date", "change", "SE", "p")
    return TextTable(header, tuple(rows), (False, False, False, True, True, True))


def _depths(depths: pd.DataFrame) -> TextTable:
    rows = [
        (
            str(r["relation"]), str(r["means"]), format_number(as_float(r["before"])),
            format_number(as_float(r["after"])), format_number(as_float(r["change"])),
            format_interval(as_float(r["ci_low"]), as_float(r["ci_high"])),
        )
        for r in depths.to_dict("records")
    ]  # fmt: skip
    header = ("relation", "what it means", "expected, m", "observed, m", "change, m", "interval")
    return TextTable(header, tuple(rows), (False, False, True, True, True, True))


def _land(land: LandCover) -> dict[str, Any]:
    areas = land.areas.set_axis([str(y) for y in land.areas.index], axis=0).rename_axis("year")
    return {
        "words": list(land.words),
        "areas": text_table(areas),
        "tables": [(caption, text_table(table)) for caption, table in land.tables],
    }


def _pixels(pixels: PixelMap) -> dict[str, Any]:
    pictures = [
        {
            "source": f"data:image/png;base64,{base64.b64encode(p.png).decode()}",
            "caption": p.caption,
        }
        for p in pixels.pictures
    ]
    return {"words": list(pixels.words), "pictures": pictures}
