"""The report: one HTML file that opens without a network.

Everything is inlined. A content security policy in the page forbids every request and every
script but the two that belong to the report, named by their hash, so that a hostile name in the
data could do nothing even if it were not escaped.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eocausal.provenance import atomic_path
from eocausal.reports.content import CheckLike, Gallery, ReportContent
from eocausal.reports.figures import report_figures, save_figures
from eocausal.reports.impact_view import impact_view
from eocausal.reports.placed import placed_view
from eocausal.reports.plots import effect_records, to_png, to_svg
from eocausal.reports.tables import (
    as_float,
    estimates_table,
    failures_table,
    flatten,
    format_interval,
    format_level,
    format_number,
    format_p,
    text_table,
    vcov_words,
)
from eocausal.reports.text import (
    failed_checks,
    heterogeneity_in_words,
    primary_estimate,
    treatment_auc_in_words,
    truth_in_words,
)

if TYPE_CHECKING:
    import pandas as pd

    from eocausal.effect_map import EffectMap

__all__ = ["ReportContent", "render_report", "save_figures", "write_report"]

TEMPLATES = Path(__file__).parent / "templates"
MAP_HEIGHT_REM = 42.0
PLACE_COLUMNS = ["estimate", "std_error", "ci_low", "ci_high", "support", "status"]


def write_report(path: Path | str, content: ReportContent) -> Path:
    """Write a report as one HTML file, whole or not at all.

    Equal content gives equal bytes.

    Parameters
    ----------
    path
        Where to write, e.g. ``run/report.html``.
    content
        What to show.
    """
    path = Path(path)
    page = render_report(content)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
    return path


def render_report(content: ReportContent) -> str:
    """Return the report as HTML text.

    Parameters
    ----------
    content
        What to show; parts that are None or empty are left out.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    scripts = _scripts(content.effect_map)
    images = _images(content)
    return environment.get_template("report.html.j2").render(
        title=content.title,
        policy=_policy(scripts),
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],
        failed=failed_checks(content.checks),
        claim=[part for part in content.claim.split("\n\n") if part.strip()],
        claim_lead=1 if failed_checks(content.checks) and content.impact is None else 0,
        summary=list(content.summary),
        headline=_headline(content.estimates),
        verdicts=_verdict_counts(content.checks),
        map=_map_view(content.effect_map),
        images=images,
        placed=None if content.placed is None else placed_view(content.placed, images),
        impact=None if content.impact is None else impact_view(content.impact, images),
        estimates=estimates_table(content.estimates),
        estimates_drawn=len(effect_records(content.estimates)),
        heterogeneity=_heterogeneity_view(content),
        auc=_auc_view(content.treatment_auc),
        truth=None if content.truth is None else {"words": truth_in_words(content.truth)},
        galleries=[_gallery_view(gallery) for gallery in content.galleries],
        checks=[_check_view(check) for check in content.checks],
        failures=failures_table(content.failures),
        failure_count=len(content.failures),
        data=[(str(label), str(value)) for label, value in content.data],
        provenance=flatten(content.provenance),
    )


def _scripts(effect_map: EffectMap | None) -> list[str]:
    if effect_map is None or not len(effect_map):
        return []
    from eocausal.reports.maps import bokeh_script

    return [bokeh_script(), (TEMPLATES / "report.js").read_text(encoding="utf-8")]


def _policy(scripts: Sequence[str]) -> str:
    """Return the content security policy that allows these scripts and nothing from outside."""
    digests = [hashlib.sha256(script.encode()).digest() for script in scripts]
    allowed = [f"'sha256-{base64.b64encode(d).decode()}'" for d in digests] or ["'none'"]
    return (
        f"default-src 'none'; script-src {' '.join(allowed)}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _headline(estimates: Sequence[Mapping[str, Any]]) -> dict[str, str] | None:
    record = primary_estimate(estimates)
    if record is None:
        return None
    n = as_float(record.get("n"))
    return {
        "estimate": format_number(as_float(record.get("estimate"))),
        "level": format_level(as_float(record.get("level", 0.95))),
        "interval": format_interval(
            as_float(record.get("ci_low")), as_float(record.get("ci_high"))
        ),
        "std_error": format_number(as_float(record.get("std_error"))),
        "vcov": vcov_words(str(record.get("vcov") or "")),
        "p": format_p(as_float(record.get("p_value"))),
        "n": f"{n:,.0f}" if n == n else "",
        "method": str(record.get("method", "")),
        "estimand": str(record.get("estimand", "")),
    }


def _verdict_counts(checks: Sequence[CheckLike]) -> dict[str, int]:
    verdicts = [str(check.verdict) for check in checks]
    return {name: verdicts.count(name) for name in ("pass", "warn", "fail")}


def _check_view(check: CheckLike) -> dict[str, Any]:
    table = check.table
    return {
        "name": check.name,
        "verdict": str(check.verdict),
        "claim": check.claim,
        "detail": check.detail,
        "table": text_table(table) if table is not None and len(table) else None,
    }


def _map_view(effect_map: EffectMap | None) -> dict[str, Any] | None:
    if effect_map is None or not len(effect_map):
        return None
    from markupsafe import Markup

    from eocausal.reports.layers import place_layers
    from eocausal.reports.maps import (
        MEASURES,
        embeddable_json,
        interactive_map,
        map_shape,
        status_words,
    )

    layers = place_layers(effect_map)
    table = effect_map.table
    counts = table["status"].astype(str).value_counts().sort_index(kind="stable")
    places = table[PLACE_COLUMNS]
    return {
        "item": Markup(embeddable_json(interactive_map(effect_map, layers))),
        "measures": list(MEASURES.items()),
        "summary": effect_map.summary(),
        "statuses": [(status_words(str(s)), f"{int(n):,}") for s, n in counts.items()],
        "has_extrapolated": bool((table["status"].astype(str) == "extrapolated").any()),
        "has_missing": bool(table["estimate"].isna().any()),
        "places": text_table(places.set_axis(places.index.rename("neighborhood"))),
        "n": len(table),
        "width": round(MAP_HEIGHT_REM * map_shape(layers), 1),
    }


def _images(content: ReportContent) -> dict[str, str]:
    """Return the figures as data addresses: SVG, and PNG for the map, which has many shapes."""
    images = {}
    for name, figure in report_figures(content).items():
        if name == "effects_map":
            kind, data = "image/png", to_png(figure, dpi=110)
        else:
            kind, data = "image/svg+xml", to_svg(figure)
        images[name] = _data_address(kind, data)
    return images


def _gallery_view(gallery: Gallery) -> dict[str, Any]:
    pictures = [
        {"source": _data_address("image/png", picture.png), "caption": picture.caption}
        for picture in gallery.pictures
    ]
    return {"title": gallery.title, "words": gallery.words, "pictures": pictures}


def _data_address(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _heterogeneity_view(content: ReportContent) -> dict[str, Any] | None:
    table = content.heterogeneity
    if table is None or not len(table):
        return None
    return {
        "words": content.heterogeneity_text or heterogeneity_in_words(table),
        "table": text_table(table),
    }


def _auc_view(auc: pd.DataFrame | None) -> dict[str, Any] | None:
    if auc is None or not len(auc):
        return None
    return {"words": treatment_auc_in_words(auc), "table": text_table(auc)}
