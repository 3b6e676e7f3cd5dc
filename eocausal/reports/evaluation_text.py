"""What a study of placed projects says, in sentences that can be quoted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eocausal.reports.evaluation_details import (
    corrections_words,
    gaps_words,
    placement_words,
    sectors_table,
)
from eocausal.reports.evaluation_rows import (
    FALSE_DISCOVERIES,
    asked_estimand,
    cut,
    in_order,
    population_words,
    status_word,
    tidy_sectors,
)
from eocausal.reports.evaluation_words import ADJUSTED, LONGEST, joined, kind_words, with_unit
from eocausal.reports.tables import (
    MINUS,
    format_level,
    format_number,
    format_together,
)
from eocausal.reports.text import claim_in_words

if TYPE_CHECKING:
    from eocausal.reports.content import CheckLike

__all__ = [
    "corrections_words",
    "evaluation_claim",
    "gaps_words",
    "headline_kind",
    "placement_words",
    "sectors_table",
]

GAP = 220


def evaluation_claim(
    sectors: pd.DataFrame,
    *,
    headline: tuple[str, str] | None = None,
    adjustment: str = "both",
    estimand: str | None = None,
    outcome: str = "",
    unit: str = "",
    level: float = 0.95,
    sensitivity: Mapping[str, Any] | None = None,
    gaps: pd.DataFrame | None = None,
    checks: Sequence[CheckLike] = (),
) -> str:
    """Say what was found, for whom, how sure it is and what it rests on.

    Parameters
    ----------
    sectors
        ``funder, sector, adjustment, estimand, status, estimate, std_error, ci_low, ci_high,
        q_value, n, n_treated``.
    headline
        Funder and sector that are looked at closely; default :func:`headline_kind`.
    adjustment
        What the effects that are said are adjusted for.
    estimand
        The effect that was asked for; default the one on the widest population that occurs.
    outcome, unit
        The outcome in words and what it is measured in.
    level
        Of the intervals.
    sensitivity
        Of the headline: ``factor_interval`` and ``factor_estimate``, the factors by which the odds
        of treatment would have to be off to make the interval include zero and the estimate zero,
        and ``benchmarks``, those of measured confounders by name.
    gaps
        Where there is no overlap: ``funder, sector, words``.
    checks
        Results of checks; a failed one puts the claim in doubt, in its first sentence.

    Returns
    -------
    str
        Short paragraphs separated by empty lines: doubt (if a check failed), the headline, how many
        effects are shown after having looked at all, what the image changed, what is refused, what
        is assumed.
    """
    table = tidy_sectors(sectors, estimand=estimand)
    asked = estimand or asked_estimand(sectors)
    mine = table[table["adjustment"] == adjustment]
    chosen = headline or headline_kind(sectors, adjustment=adjustment)
    row = _row(mine, chosen)
    what = outcome or "the outcome"
    given = row is not None and bool(row["given"])
    parts = [claim_in_words([], None, checks)]
    if row is not None:
        parts.append(_headline(row, asked, what, unit, level))
    else:
        parts.append(_none_at_all(mine, what) if len(mine) else "Nothing was estimated.")
    parts += [_all_kinds(mine, unit), _image(table, row, adjustment, unit) if given else ""]
    parts.append(_left_out(mine, asked, gaps))
    if mine["given"].any():
        parts.append(_assumption(row if given else None, what, sensitivity))
    return "\n\n".join(part for part in parts if part)


def headline_kind(
    sectors: pd.DataFrame, *, adjustment: str = "both", estimand: str | None = None
) -> tuple[str, str] | None:
    """Choose the kind of projects to look at closely: with an estimate, and the most treated.

    Kinds with the effect asked for come before those with one on another population; None if
    there is no estimate at all.
    """
    table = tidy_sectors(sectors, estimand=estimand)
    rows = table[(table["adjustment"] == adjustment) & table["given"]]
    if not len(rows):
        return None
    order = np.lexsort((-rows["n_treated"].fillna(0).to_numpy(), rows["fall_back"].to_numpy()))
    first = rows.iloc[order[0]]
    return str(first["funder"]), str(first["sector"])


def _row(rows: pd.DataFrame, kind: tuple[str, str] | None) -> pd.Series[Any] | None:
    if kind is None:
        return None
    funder, sector = (" ".join(str(name).split()) for name in kind)
    found = rows[(rows["funder"] == funder) & (rows["sector"] == sector)]
    return found.iloc[0] if len(found) else None


def _headline(row: pd.Series[Any], asked: str, what: str, unit: str, level: float) -> str:
    kind = kind_words(row)
    if not row["given"]:
        why = {
            "no overlap": "treated and untreated neighborhoods are too unlike each other",
            "too few treated": "too few neighborhoods were treated",
            "no estimate": "it could not be computed",
        }[status_word(row)]
        return (
            f"There is no estimate of the effect of {kind} on {what}: {why}. That is not an "
            "estimate of zero."
        )
    adjusted = f"Adjusted for {ADJUSTED.get(row['adjustment'], row['adjustment'])}, "
    whom = population_words(row["estimand"])
    shown, low, high = format_together([row["estimate"], row["ci_low"], row["ci_high"]])
    if not math.isfinite(row["ci_low"] + row["ci_high"]):
        return (
            f"{adjusted}the estimated effect of {kind} on {what} is "
            f"{with_unit(format_number(row['estimate']), unit)} {whom}, but how uncertain it is "
            "could not be computed, so that nothing can be concluded."
        )
    interval = f"{format_level(level)} interval {low} to {high}{_basis(row)}"
    signed = with_unit(shown, unit)
    if row["ci_low"] <= 0 <= row["ci_high"]:
        text = (
            f"{adjusted}no effect of {kind} on {what} is shown: the estimate is {signed} on "
            f"average {whom} ({interval}). The data are compatible with any effect in that "
            "interval, not only with none."
        )
    elif row["q_value"] >= FALSE_DISCOVERIES:
        text = (
            f"{adjusted}the estimated effect of {kind} on {what} is {signed} on average {whom} "
            f"({interval}). By itself that excludes zero, but after accounting for having looked "
            f"at all kinds of projects the effect is not shown (q = {row['q_value']:.2g})."
        )
    else:
        turned = "raised" if row["estimate"] > 0 else "lowered"
        text = (
            f"{adjusted}{kind} {turned} {what} by {signed.lstrip(MINUS)} on average {whom} "
            f"({interval})."
        )
    if row["fall_back"]:
        text += (
            f" It is not the effect {population_words(asked)}: that one is refused for lack of "
            "overlap."
        )
    if row["status"] == "warned":
        text += " A few neighborhoods carry much of the weight."
    return text


def _basis(row: pd.Series[Any]) -> str:
    parts = []
    if math.isfinite(row["std_error"]):
        parts.append(f"standard error {format_number(row['std_error'])}")
    if math.isfinite(row["n"]):
        treated = f", {row['n_treated']:,.0f} treated" if math.isfinite(row["n_treated"]) else ""
        space = "\N{NO-BREAK SPACE}"
        parts.append(f"n{space}={space}{row['n']:,.0f}{treated}")
    return "".join(f"; {part}" for part in parts)


def _none_at_all(rows: pd.DataFrame, what: str) -> str:
    words = [status_word(row) for _, row in rows.iterrows()]
    counted = {
        "no overlap": "without overlap of treated and untreated neighborhoods",
        "too few treated": "with too few treated neighborhoods",
        "no estimate": "that could not be computed",
    }
    parts = [f"{words.count(w):,} {said}" for w, said in counted.items() if w in words]
    return (
        f"There is no estimate of an effect on {what} for any of {len(rows):,} kinds of projects: "
        f"{joined(parts)}. That is no evidence that there is no effect."
    )


def _all_kinds(rows: pd.DataFrame, unit: str) -> str:
    """Say how many effects are shown by funder after having looked at all."""
    given = rows[rows["given"]]
    if len(given) < 2:
        return ""
    tested = given[np.isfinite(given["q_value"].to_numpy())]
    if not len(tested):
        return "How many of the effects would be shown after having looked at all is not computed."
    lead = f"After accounting for having looked at {len(tested):,} kinds of projects (q < 0.05)"
    if not tested["told"].any():
        return (
            f"{lead}, no effect is shown for any of them. That is no evidence that they have none."
        )
    parts = []
    for funder in in_order(tested["funder"].tolist()):
        mine = tested[tested["funder"] == funder]
        found = mine[mine["told"]]
        count = f"{len(found):,}" if len(found) else "none"
        numbers = format_together(found["estimate"].tolist())
        named = [
            f"“{cut(name, LONGEST)}” {number if number.startswith(MINUS) else '+' + number}"
            for name, number in zip(found["sector"], numbers, strict=True)
        ]
        measure = f", in {unit}" if unit else ""
        listed = f" ({joined(named)}{measure})" if named else ""
        parts.append(f"{count} of {len(mine):,} sectors of {cut(funder, LONGEST)}{listed}")
    return f"{lead}, an effect is shown in {joined(parts, 6)}."


def _image(table: pd.DataFrame, row: pd.Series[Any] | None, adjustment: str, unit: str) -> str:
    """Say how adjusting for the image besides the table changed the estimate."""
    if row is None or adjustment != "both":
        return ""
    by = {a: _row(table[table["adjustment"] == a], (row["funder"], row["sector"]))
          for a in ("table", "image")}  # fmt: skip
    plain, alone = by["table"], by["image"]
    if plain is None or not plain["given"]:
        return ""
    if plain["estimand"] != row["estimand"]:
        return (
            "What the image changed cannot be said: with the table alone the effect is "
            f"{population_words(plain['estimand'])}."
        )
    before, after = format_together([plain["estimate"], row["estimate"]])
    text = (
        f"Adjusting for the image besides the table changed the estimate from {before} to "
        f"{with_unit(after, unit)}"
    )
    if row["std_error"] > 0:
        moved = abs(row["estimate"] - plain["estimate"]) / row["std_error"]
        text += f", by {format_number(moved, 2)} of its standard errors"
    if alone is not None and alone["given"] and alone["estimand"] == row["estimand"]:
        text += f"; the image alone gives {format_number(alone['estimate'])}"
    pairs = _pairs(table)
    if len(pairs) > 1:
        nearer = int((pairs["both"].abs() < pairs["table"].abs()).sum())
        text += (
            f". In {nearer:,} of {len(pairs):,} kinds of projects it brought the estimate nearer "
            "to zero"
        )
    return f"{text}."


def _pairs(table: pd.DataFrame) -> pd.DataFrame:
    """Return the estimates of each kind with the table alone and with both, of one population."""
    given = table[table["given"]].set_index(["funder", "sector", "estimand"])
    parts = {name: given.loc[given["adjustment"] == name, "estimate"] for name in ("table", "both")}
    return pd.concat(parts, axis=1, join="inner")


def _left_out(rows: pd.DataFrame, asked: str, gaps: pd.DataFrame | None) -> str:
    """Say which kinds have no estimate of the effect asked for, and why."""
    if not rows["given"].any():
        return _first_gap(rows[rows["refused"]], gaps)
    refused, few = rows[rows["refused"]], rows[rows["status"] == "few"]
    sentences = []
    if len(refused):
        names = joined(kind_words(row) for _, row in refused.iterrows())
        instead = int(refused["fall_back"].sum())
        text = (
            f"The effect {population_words(asked)} is refused for {names}, because some "
            "treated or untreated neighborhoods have no counterpart among the others"
        )
        if instead:
            text += f" (the effect on a narrower population stands in for {instead:,} of them)"
        sentences.append(f"{text}; a refused effect is not an effect of zero.")
        sentences.append(_first_gap(refused, gaps))
    if len(few):
        kinds = "kind of projects" if len(few) == 1 else "kinds of projects"
        sentences.append(f"{len(few):,} {kinds} reached too few neighborhoods to be estimated.")
    return " ".join(s for s in sentences if s)


def _first_gap(rows: pd.DataFrame, gaps: pd.DataFrame | None) -> str:
    if gaps is None or not len(gaps) or not len(rows):
        return ""
    named = {(str(g["funder"]), str(g["sector"])) for _, g in rows.iterrows()}
    for _, gap in gaps.iterrows():
        if (str(gap["funder"]), str(gap["sector"])) in named and str(gap["words"] or ""):
            return f"Without counterpart are, for {kind_words(gap)}, {cut(str(gap['words']), GAP)}."
    return ""


def _assumption(
    row: pd.Series[Any] | None, what: str, sensitivity: Mapping[str, Any] | None
) -> str:
    text = (
        "All this assumes that among neighborhoods alike in what is adjusted for it was chance who "
        f"got a project, so that nothing unmeasured drove both placement and {what}. The data "
        "cannot prove that."
    )
    if row is None or not math.isfinite(row["ci_low"] + row["ci_high"]):
        return text
    if row["ci_low"] <= 0 <= row["ci_high"]:
        return (
            f"{text} Something unmeasured may as well hide an effect as make one where the "
            "interval includes zero."
        )
    interval = float((sensitivity or {}).get("factor_interval", math.nan))
    point = float((sensitivity or {}).get("factor_estimate", math.nan))
    if math.isnan(interval) or math.isnan(point):
        return f"{text} How strong something unmeasured would have to be is not computed."
    text += (
        " Something unmeasured would have to change the odds of getting a project by a factor of "
        f"{_factor(interval)} to make the interval of the first effect above include zero, and of "
        f"{_factor(point)} to make the estimate zero"
    )
    known = {k: float(v) for k, v in dict((sensitivity or {}).get("benchmarks", {})).items()}
    known = {k: v for k, v in known.items() if not math.isnan(v)}
    if not known:
        return f"{text}; no measured confounder could be left out to compare with."
    name = max(known, key=lambda k: known[k])
    enough = "would be enough" if known[name] >= interval else "would not be enough"
    return (
        f"{text}; the strongest measured confounder, “{cut(name, LONGEST)}”, changes them by "
        f"{_factor(known[name])}, so that something as strong {enough} for the former."
    )


def _factor(value: float) -> str:
    return f"{value:.2f}" if value <= 1000 else "more than 1,000"
