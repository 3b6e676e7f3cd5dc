"""Placement, corrections and lack of overlap in words, and the table of sectors."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd

from eocausal.reports.evaluation_panels import look_of
from eocausal.reports.evaluation_rows import (
    cut,
    in_order,
    status_word,
    tidy_corrections,
    tidy_placement,
    tidy_sectors,
)
from eocausal.reports.evaluation_words import ADJUSTED, LONGEST, joined, kind_words, with_unit
from eocausal.reports.tables import (
    MISSING,
    TextTable,
    format_interval,
    format_number,
    format_p,
)

__all__ = ["corrections_words", "gaps_words", "placement_words", "sectors_table"]

IN_DOUBT = 0.95
SHOWN = 4
SMALL = 0.05


def placement_words(placement: pd.DataFrame, *, headline: tuple[str, str] | None = None) -> str:
    """Say how well placement is told, what the image adds to the table, and what that means.

    Parameters
    ----------
    placement
        ``funder, sector, confounders, auc, ci_low, ci_high, gain_over_table, gain_low, gain_high``.
    headline
        Funder and sector that are looked at closely; default none.
    """
    table = tidy_placement(placement)
    table = table[np.isfinite(table["auc"].to_numpy())]
    if not len(table):
        return "How predictable placement is could not be computed."
    kinds = in_order(table["confounders"].tolist(), ("table", "image"))
    full = next((k for k in kinds if look_of(k).marker == look_of("both").marker), kinds[-1])
    whole = table[table["confounders"] == full]
    parts = [_one_placement(table, headline, full), _all_placements(whole, full)]
    doubtful = whole[whole["auc"] > IN_DOUBT]
    if len(doubtful):
        names = joined(kind_words(row) for _, row in doubtful.iterrows())
        parts.append(
            f"For {names} so few neighborhoods could have been in either arm (above "
            f"{IN_DOUBT:g}) that overlap is in doubt."
        )
    parts.append(
        "What tells placement is a confounder only if it also matters for the outcome; a better "
        "prediction is not by itself a better adjustment."
    )
    return " ".join(part for part in parts if part)


def _one_placement(table: pd.DataFrame, headline: tuple[str, str] | None, full: str) -> str:
    if headline is None:
        return ""
    funder, sector = (" ".join(str(name).split()) for name in headline)
    mine = table[(table["funder"] == funder) & (table["sector"] == sector)]
    if not len(mine):
        return ""
    told = [
        f"from {_set_words(row['confounders'])} {_with_interval(row, 'auc', 'ci')}"
        for _, row in mine.iterrows()
    ]
    text = (
        f"Which neighborhoods got {kind_words(mine.iloc[0])} is told, in places not used for "
        f"learning, with an area under the ROC curve of: {'; '.join(told)} (0.5 is chance, 1 "
        "certainty)."
    )
    for _, row in mine[mine["confounders"] == full].iterrows():
        if math.isnan(row["gain_over_table"]):
            continue
        gain = _with_interval(row, "gain_over_table", "gain")
        if row["gain_low"] > 0:
            text += f" The image adds to what the table tells: {gain}."
        else:
            text += f" That the image adds to what the table tells is not shown: {gain}."
    return text


def _all_placements(whole: pd.DataFrame, full: str) -> str:
    if len(whole) < 2:
        return ""
    parts = []
    for funder in in_order(whole["funder"].tolist()):
        auc = whole.loc[whole["funder"] == funder, "auc"]
        if len(auc) == 1:
            parts.append(f"{auc.iloc[0]:.2f} for the one sector of {cut(funder, LONGEST)}")
            continue
        parts.append(
            f"{auc.min():.2f} to {auc.max():.2f} (median {auc.median():.2f}) over "
            f"{len(auc):,} sectors of {cut(funder, LONGEST)}"
        )
    text = f"From {_set_words(full)} the area is {joined(parts, 6)}."
    tested = whole[np.isfinite(whole["gain_low"].to_numpy())]
    if len(tested):
        more = int((tested["gain_low"] > 0).sum())
        text += (
            f" In {more:,} of {len(tested):,} the image tells more than the table alone, each "
            "judged by its own interval."
        )
    return text


def _set_words(confounders: str) -> str:
    return ADJUSTED.get(confounders, cut(confounders, LONGEST))


def _with_interval(row: pd.Series[Any], value: str, ends: str) -> str:
    low, high = row[f"{ends}_low"], row[f"{ends}_high"]
    known = math.isfinite(low) and math.isfinite(high)
    return f"{row[value]:.2f}" + (f" ({format_interval(low, high, 2)})" if known else "")


def corrections_words(
    corrections: pd.DataFrame,
    *,
    outcome: str = "",
    unit: str = "",
    exclusion: pd.DataFrame | None = None,
) -> str:
    """Say how effects on predictions differ from that on what was measured, and what helps.

    Parameters
    ----------
    corrections
        ``prediction, method, estimate, ci_low, ci_high, n_labelled``; ``measured`` once, or per
        prediction.
    outcome, unit
        The outcome in words and what it is measured in.
    exclusion
        Whether predictions differ between arms at equal measured outcome, tested on labelled units:
        ``prediction, p_value``.
    """
    table = tidy_corrections(corrections)
    names = [name for name in in_order(table["prediction"].tolist()) if name]
    if not names:
        return ""
    common = table[(table["prediction"] == "") & (table["method"] == "measured")]
    paragraphs = []
    for name in names[:SHOWN]:
        mine = table[table["prediction"] == name].drop_duplicates("method")
        rows = {str(row["method"]): row for _, row in mine.iterrows()}
        if "measured" not in rows and len(common):
            rows["measured"] = common.iloc[0]
        text = _one_prediction(name, rows, outcome or "the outcome", unit)
        paragraphs.append(f"{text} {_exclusion_words(name, rows, exclusion)}".strip())
    if len(names) > SHOWN:
        more = len(names) - SHOWN
        are = "prediction is" if more == 1 else "predictions are"
        paragraphs.append(f"{more:,} further {are} in the table.")
    paragraphs.append(
        "Predictions are pulled toward the mean, which makes effects on them too small. Linear "
        "calibration and Tweedie's correction undo that where the error of a prediction does not "
        "depend on treatment. Where it does, as it may if the images were taken after the projects "
        "began, only measured outcomes help (prediction-powered inference)."
    )
    return "\n\n".join(paragraphs)


def _one_prediction(name: str, rows: dict[str, pd.Series[Any]], what: str, unit: str) -> str:
    naive, measured = rows.get("naive"), rows.get("measured")
    if naive is None or math.isnan(naive["estimate"]):
        text = f"There is no effect on the prediction “{cut(name, LONGEST)}” as it is."
    else:
        text = f"On the prediction “{cut(name, LONGEST)}” the effect is {_said(naive, unit)}"
        if measured is not None and not math.isnan(measured["estimate"]):
            text += f", on {what} as measured {_said(measured, unit)}"
            if measured["ci_low"] > 0 or measured["ci_high"] < 0:
                share = naive["estimate"] / measured["estimate"]
                text += f"; that is {share:.0%} of it"
            else:
                text += ", so that no share of it can be given"
        text += "."
    corrected = {
        method: f"{method} {_said(row, unit)}"
        for method, row in rows.items()
        if method not in ("measured", "naive") and not math.isnan(row["estimate"])
    }
    if corrected:
        labels = pd.Series([rows[method]["n_labelled"] for method in corrected]).max()
        with_labels = f", with {labels:,.0f} labelled neighborhoods" if labels > 0 else ""
        text += f" Corrected{with_labels}: {'; '.join(corrected.values())}."
    return text


def _said(row: pd.Series[Any], unit: str) -> str:
    number = with_unit(format_number(row["estimate"]), unit)
    if not math.isfinite(row["ci_low"] + row["ci_high"]):
        return f"{number} (of unknown uncertainty)"
    zero = ", which includes zero" if row["ci_low"] <= 0 <= row["ci_high"] else ""
    return f"{number} ({format_interval(row['ci_low'], row['ci_high'])}{zero})"


def _exclusion_words(name: str, methods: Collection[str], exclusion: pd.DataFrame | None) -> str:
    """Say whether the error of a prediction depends on treatment, as far as labels tell."""
    if exclusion is None or not len(exclusion):
        return ""
    tested = exclusion[exclusion["prediction"].astype(str) == name]
    p = pd.to_numeric(tested["p_value"], errors="coerce").dropna()
    if not len(p):
        return "Whether its error depends on treatment could not be tested."
    if float(p.iloc[0]) < SMALL:
        powered = "prediction-powered" in methods
        return f"Its error depends on treatment (p {_relation(float(p.iloc[0]))}): " + (
            "use the prediction-powered effect alone." if powered else "do not use it."
        )
    return (
        f"That its error depends on treatment is not shown (p {_relation(float(p.iloc[0]))}); with "
        "few labels such a test finds little."
    )


def _relation(p: float) -> str:
    said = format_p(p)
    return said if said.startswith("<") else f"= {said}"


def gaps_words(gaps: pd.DataFrame) -> list[str]:
    """Say for whom there is no overlap, a sentence per kind of projects.

    Parameters
    ----------
    gaps
        ``funder, sector, words`` (which units, in words), ``n_inside``, ``share`` of all units.
    """
    said = []
    for _, gap in gaps.iterrows():
        share, n = (_number(gap.get(name)) for name in ("share", "n_inside"))
        words = gap.get("words")
        where = "" if pd.isna(words) else " ".join(str(words).split()).rstrip(".")
        if not where:
            where = f"{n:,.0f} neighborhoods" if math.isfinite(n) else "some neighborhoods"
        size = f" ({share:.1%} of those compared)" if math.isfinite(share) else ""
        said.append(f"{kind_words(gap)}: no counterpart among the others for {where}{size}.")
    return said


def _number(value: Any) -> float:
    return math.nan if value is None or pd.isna(value) else float(value)


def sectors_table(sectors: pd.DataFrame) -> TextTable:
    """Print the effects by funder, sector and adjustment, with a word where there is none."""
    rows = []
    for _, row in tidy_sectors(sectors).iterrows():
        numbers = [status_word(row), MISSING, MISSING, MISSING]
        if row["given"]:
            numbers = [
                format_number(row["estimate"]),
                format_interval(row["ci_low"], row["ci_high"]),
                format_interval(row["simultaneous_low"], row["simultaneous_high"]),
                format_p(row["q_value"]),
            ]
        adjusted = ADJUSTED.get(row["adjustment"], row["adjustment"])
        counts = [_count(row[name]) for name in ("n_treated", "n", "ess_treated")]
        names = [row["funder"], row["sector"], adjusted, row["estimand"]]
        rows.append((*names, *counts, *numbers, row["note"]))
    header = (
        "funder", "sector", "adjusted for", "effect", "treated", "n", "effective treated",
        "estimate", "interval", "all together", "q", "note",
    )  # fmt: skip
    return TextTable(header, tuple(rows), tuple(4 <= i <= 10 for i in range(len(header))))


def _count(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else MISSING
