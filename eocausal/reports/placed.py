"""The part of a report on placed projects that trials do not have, ready for its template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eocausal.reports.evaluation_text import (
    gaps_words,
    placement_words,
    sectors_table,
)
from eocausal.reports.tables import (
    TextTable,
    format_interval,
    format_number,
    format_p,
    text_table,
)

if TYPE_CHECKING:
    from eocausal.reports.content import PlacedContent

__all__ = ["placed_view"]

POPULATIONS = {
    "ATE": "all places compared (ATE)",
    "ATT": "the places that got a project (ATT)",
    "ATO": "places that could about as well have got a project as not (ATO)",
}


def placed_view(placed: PlacedContent, images: Mapping[str, str]) -> dict[str, Any]:
    """Return what the template shows of placed projects.

    Parameters
    ----------
    images
        Figures by name, as data addresses.
    """
    funder, sector = placed.headline
    asked = POPULATIONS.get(placed.estimand, placed.estimand)
    return {
        "asked": asked,
        "other": POPULATIONS.get(placed.stand_in, placed.stand_in),
        "headline": f"{funder}, {sector}",
        "sectors": sectors_table(placed.sectors),
        "stand_ins": sectors_table(placed.stand_ins) if len(placed.stand_ins) else None,
        "few": _few(placed.kinds),
        "gaps": gaps_words(placed.gaps),
        "refusals": _refusals(placed),
        "image": differences_table(placed.differences, "both - table"),
        "funders": differences_table(placed.differences, ""),
        "kinds": text_table(placed.kinds.drop(columns=["estimated"], errors="ignore")),
        "placement": placement_words(placed.placement, headline=placed.headline),
        "importance": _importance(placed.importance),
        "corrections": list(placed.correction_words),
        "corrected": _corrected(placed.corrections),
        "images": images,
    }


def _refusals(placed: PlacedContent) -> list[str]:
    """Say for every kind whose effect is refused, adjusted as the headline is, for whom."""
    rows = placed.sectors[
        (placed.sectors["status"] == "refused")
        & (placed.sectors["adjustment"] == placed.adjustment)
        & (placed.sectors["estimand"] == placed.estimand)
    ]
    return [f"{r['funder']}, {r['sector']}: {r['reason']}" for r in rows.to_dict("records")]


def _few(kinds: pd.DataFrame) -> list[str]:
    """List the kinds that reached too few places, with how many."""
    if not len(kinds):
        return []
    few = kinds[~kinds["estimated"].astype(bool)].sort_values(
        ["funder", "n_treated", "sector"], ascending=[True, False, True]
    )
    return [f"{k.funder}, {k.sector} ({k.n_treated:,})" for k in few.itertuples()]


def differences_table(differences: pd.DataFrame, adjustment: str) -> TextTable | None:
    """Print differences: of adjustments if one is named, else of funders."""
    if not len(differences):
        return None
    own = differences["adjustment"] == "both - table"
    table = differences[own if adjustment else ~own]
    if not len(table):
        return None
    rows = [
        (
            str(r["funder"]), str(r["sector"]), str(r["estimand"]),
            format_number(r["of"]), format_number(r["minus"]), format_number(r["estimate"]),
            format_interval(r["ci_low"], r["ci_high"]), format_p(r["q_value"]),
        )
        for r in table.astype({"q_value": float}).to_dict("records")
    ]  # fmt: skip
    names = ("both", "table alone") if adjustment else ("first", "second")
    header = (
        "funder" if adjustment else "funders", "sector", "effect", *names, "difference",
        "interval", "q",
    )  # fmt: skip
    return TextTable(header, tuple(rows), tuple(i >= 3 for i in range(len(header))))


def _corrected(corrections: pd.DataFrame) -> TextTable | None:
    """Print the effects on predictions, naive and corrected."""
    if not len(corrections):
        return None
    names = ["prediction", "method", "estimate", "std_error", "ci_low", "ci_high", "slope",
             "n_labelled", "note"]  # fmt: skip
    return text_table(corrections[[n for n in names if n in corrections]])


def _importance(importance: pd.DataFrame) -> TextTable | None:
    """Print what the model of placement leans on."""
    if not len(importance):
        return None
    table = importance[np.isfinite(importance["estimate"].to_numpy(float))]
    rows = [
        (str(r["confounders"]), format_number(r["estimate"]),
         format_interval(r["ci_low"], r["ci_high"]))
        for r in table.to_dict("records")
    ]  # fmt: skip
    return TextTable(("column or image", "AUC lost", "interval"), tuple(rows), (False, True, True))
