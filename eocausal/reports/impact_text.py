"""What an event did to a series, and how far to trust it, in careful plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eocausal.reports.evaluation_words import joined
from eocausal.reports.impact_words import (
    begin,
    date_words,
    month_words,
    percent,
    plural,
    with_unit,
)
from eocausal.reports.tables import as_float, format_interval, format_level, format_number, format_p
from eocausal.reports.text import failed_checks

if TYPE_CHECKING:
    from eocausal.reports.content import CheckLike

__all__ = ["break_words", "depth_words", "impact_claim", "variants_words"]


def impact_claim(
    own: Mapping[str, Any],
    checks: Sequence[CheckLike],
    values: Mapping[str, Mapping[str, Any]],
    *,
    outcome: str,
    unit: str,
    event: str,
    when: pd.Timestamp,
    times: pd.DatetimeIndex,
) -> str:
    """Say the answer in a sentence or two, then how far to trust it.

    Parameters
    ----------
    own
        Record of the average effect under the study's own model.
    checks
        Results of checks; those that failed are named in the first paragraph.
    values
        Deciding numbers of checks by ``drift``, ``in_time``, ``in_space``, ``leave_out_controls``,
        ``leave_out_years``, ``control_breaks``, each with its ``verdict``; those that were run.
    outcome, unit
        The outcome in words and what it is measured in.
    event, when
        As it is named in a sentence, and its first time.
    times
        Of the series.

    Returns
    -------
    str
        Paragraphs, separated by empty lines: the answer, how far to trust it, what is assumed.
    """
    first = [_answer(own, outcome, unit, event, date_words(when, times))]
    first.append(_doubt(values))
    failed = failed_checks(checks)
    if failed:
        names = joined((f"“{check.name}”" for check in failed), 6)
        which = "check" if len(failed) == 1 else "checks"
        first.append(f"Do not rely on it yet: the {which} {names} failed, see the top.")
    parts = [" ".join(filter(None, first)), _trust(own, values, unit), ASSUMED]
    return "\n\n".join(part for part in parts if part)


ASSUMED = (
    "All this assumes that nothing else changed at that time in this place alone: “the event” is "
    "the name given to whatever did."
)


def _doubt(values: Mapping[str, Mapping[str, Any]]) -> str:
    """Say in the first paragraph if the effect may be a drift, or its interval too narrow."""
    said = []
    drift = values.get("drift", {})
    if drift.get("verdict", "pass") != "pass":
        explained = as_float(drift.get("explained"))
        share = f" explains {percent(min(max(explained, 0.0), 1.0), 0)} of it and" if (
            math.isfinite(explained)
        ) else ""  # fmt: skip
        said.append(
            "It may be no effect but a drift that was under way: the trend before the "
            f"event{share} may merely have gone on."
        )
    in_time = values.get("in_time", {})
    spread, p = as_float(in_time.get("spread")), as_float(in_time.get("p_spread"))
    if p < 0.05 and spread > 1.25:
        said.append(
            "Its interval is too narrow: events that did not happen look like effects too often, "
            f"as if standard errors had to be {spread:.1f} times as large."
        )
    return " ".join(said)


def _answer(own: Mapping[str, Any], outcome: str, unit: str, event: str, when: str) -> str:
    value, low, high = (as_float(own.get(k)) for k in ("estimate", "ci_low", "ci_high"))
    level = format_level(as_float(own.get("level", 0.95)))
    if not math.isfinite(value):
        return f"What {event} did to {outcome} could not be estimated."
    interval = f"({level} interval {with_unit(format_interval(low, high), unit)})"
    relative = as_float(own.get("relative"))
    share = f" ({percent(abs(relative))})" if math.isfinite(relative) else ""
    size = with_unit(format_number(abs(value)), unit)
    way = "higher" if value > 0 else "lower"
    if low <= 0 <= high:
        return (
            f"Whether {event} changed {outcome} cannot be told: from {when} on it was {size} {way} "
            f"on average than expected without it, and no change is inside the interval {interval}."
        )
    return (
        f"From {when} on, {outcome} was {size}{share} {way} on average than expected without "
        f"{event} {interval}."
    )


def _trust(own: Mapping[str, Any], values: Mapping[str, Mapping[str, Any]], unit: str) -> str:
    """Say what each check means for the answer, a sentence each."""
    p = as_float(own.get("p_value"))
    said = [_chance(p)] if math.isfinite(p) else []
    drift, in_time = values.get("drift", {}), values.get("in_time", {})
    explained = as_float(drift.get("explained"))
    if drift.get("verdict") == "pass" and math.isfinite(explained):
        line = with_unit(format_number(as_float(drift.get("estimate_line"))), unit)
        said.append(
            f"With the straight line of the years before going on, {line} would be left of it."
        )
    if in_time.get("placebos"):
        said.append(_pretended(in_time))
    in_space = values.get("in_space", {})
    if in_space.get("placebos"):
        count, large = int(in_space["placebos"]), int(in_space["at_least"])
        few = ", which are too few to tell much" if in_space["smallest"] > 0.05 else ""
        said.append(
            f"At {large or 'none'} of {plural(count, 'other place')} is it as large{few}."
            if count > 1
            else "In the one other series that took its place it is "
            f"{'as large' if large else 'smaller'}."
        )
    said.append(_left(values, unit))
    broken = values.get("control_breaks", {})
    names = list(dict.fromkeys(
        [*(broken.get("break_near_event") or []), *(broken.get("change_at_event") or [])]
    ))  # fmt: skip
    if names:
        said.append(
            f"{begin(joined(names, 4))} {'changes' if len(names) == 1 else 'change'} at about the "
            "same time, by itself or because the event reached it."
        )
    text = " ".join(part for part in said if part)
    return f"How far to trust it: {text[:1].lower()}{text[1:]}" if text else ""


def _chance(p: float) -> str:
    said = format_p(p)
    return (
        f"If the model is right, chance alone would make a difference this large with probability "
        f"{said}."
        if said.startswith("<")
        else f"If the model is right, chance alone makes a difference this large with probability "
        f"{said}."
    )


def _pretended(in_time: Mapping[str, Any]) -> str:
    count, rejected = int(in_time["placebos"]), int(in_time["rejected"])
    expected = as_float(in_time.get("expected"))
    large = int(in_time["at_least"])
    worth = as_float(in_time.get("independent"))
    text = (
        f"Of {plural(count, 'event')} that did not happen, {large or 'none'} "
        f"{'looks' if large == 1 else 'look'} as large"
    )
    if rejected > expected:
        text += f", but {rejected} would have been called an effect where {expected:.1f} should be"
    if worth < 19:
        text += f"; they are worth {worth:.1f} independent ones, too few for a small p-value"
    return text + "."


def _left(values: Mapping[str, Mapping[str, Any]], unit: str) -> str:
    """Say within what range the effect stays if something is left out."""
    found = {k: v for k, v in values.items() if k.startswith("leave_out") and "lowest" in v}
    lows = [as_float(v["lowest"]) for v in found.values()]
    highs = [as_float(v["highest"]) for v in found.values()]
    if not found or not all(map(math.isfinite, [*lows, *highs])):
        return ""
    what = joined(
        [w for k, w in (("leave_out_controls", "control"), ("leave_out_years", "year"))
         if k in found]
    ).replace(" and ", " or ")  # fmt: skip
    a, b = format_number(min(lows)), with_unit(format_number(max(highs)), unit)
    return f"Without any one {what} it is {a} to {b}."


def variants_words(variants: pd.DataFrame, unit: str) -> list[str]:
    """Say how far the answer depends on how the question is asked.

    Parameters
    ----------
    variants
        ``name, estimate, ci_low, ci_high, kind``.
    """
    mine = variants[variants["kind"] != "published"]
    known = mine[np.isfinite(mine["estimate"].to_numpy(float))]
    if len(known) < 2:
        return []
    values = known["estimate"].to_numpy(float)
    least, most = known.iloc[values.argmin()], known.iloc[values.argmax()]
    away = (known["ci_low"] > 0) | (known["ci_high"] < 0)
    text = (
        f"Over {len(known)} ways to ask, the average effect lies between "
        f"{format_number(values.min())} ({least['name']}) and "
        f"{with_unit(format_number(values.max()), unit)} ({most['name']}); "
    )
    count = int(away.sum())
    if count == len(known):
        text += "every interval excludes zero."
    else:
        text += f"{count} of {len(known)} intervals {'excludes' if count == 1 else 'exclude'} zero."
    width = (known["ci_high"] - known["ci_low"]).to_numpy(float)
    own = float(width[(known["kind"] == "own").to_numpy()][0])
    narrow = known.iloc[int(np.nanargmin(width))]
    if np.nanmin(width) < 0.75 * own:
        text += (
            f" The interval of “{narrow['name']}” is {np.nanmin(width) / own:.0%} as wide as the "
            "study's own; narrower is no better where autocorrelation and the walk of the level "
            "are left out of it."
        )
    refused = mine[~np.isfinite(mine["estimate"].to_numpy(float))]
    said = [text]
    for row in refused.to_dict("records"):
        said.append(f"“{row['name']}” gives no answer: {row['note']}")
    return said


def break_words(
    found: Sequence[Mapping[str, Any]], when: pd.Timestamp, times: pd.DatetimeIndex, unit: str
) -> list[str]:
    """Say which breaks lie at the event, which elsewhere, and which at dates of sensors.

    Parameters
    ----------
    found
        One mapping per series, the outcome first: ``name, breaks, coincide, sensors, refused,
        p_any, chance``.
    """
    said = []
    outcome, *controls = found
    said.append(_outcome_breaks(outcome, when, times, unit))
    broken = [c for c in controls if not c["refused"] and c["breaks"]]
    quiet = [c["name"] for c in controls if not c["refused"] and not c["breaks"]]
    if quiet:
        said.append(f"No break against red noise in {joined(quiet, 6)}.")
    for control in broken:
        every = [
            f"{month_words(b['after'])} ({month_words(b['first'])} to {month_words(b['last'])})"
            for b in control["breaks"]
        ]
        said.append(
            f"The control {control['name']} breaks as well, from {joined(every, 6)} on: a control "
            "that steps by itself moves the prediction."
        )
    said += _sensor_words(found)
    said += _by_bic(found)
    return said


def _by_bic(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say where series without a break would break by BIC, and which sensors came then."""
    said = []
    for item in found:
        if item["refused"] or item["breaks"] or not item.get("by_bic"):
            continue
        dates = joined([month_words(b["after"]) for b in item["by_bic"]], 6)
        at = [f"{month_words(b['after'])}: {b['declared']}" for b in item["by_bic"]
              if b["declared"]]  # fmt: skip
        where = f" At a date of sensors: {joined(at)}." if at else ""
        said.append(
            f"By BIC, which takes red noise for breaks, {item['name']} would break from {dates} "
            f"on.{where}"
        )
    return said


def _outcome_breaks(
    outcome: Mapping[str, Any], when: pd.Timestamp, times: pd.DatetimeIndex, unit: str
) -> str:
    name = outcome["name"]
    if outcome["refused"]:
        return f"Breaks of {name} could not be looked for: {outcome['refused']}"
    if not outcome["breaks"]:
        return f"{name} has no break that red noise would not make as well."
    held: list[Mapping[str, Any]] = []
    others: list[Mapping[str, Any]] = []
    for b in outcome["breaks"]:
        inside = pd.Timestamp(b["first"]) <= when <= pd.Period(b["last"]).end_time
        (held if inside else others).append(b)
    text = ""
    for b in held:
        exact = pd.Timestamp(b["after"]) == when
        where = "at the event itself" if exact else "and the event lies in the interval of its date"
        change = with_unit(format_number(abs(b["change"])), unit)
        text += (
            f"{begin(name)} breaks {where}: from {date_words(pd.Timestamp(b['after']), times)} on "
            f"(interval {month_words(b['first'])} to {month_words(b['last'])}) its level is "
            f"{change} {'higher' if b['change'] > 0 else 'lower'} (standard error "
            f"{format_number(b['std_error'])}). "
        )
    if not held:
        text += f"No break of {name} lies at the event. "
    for b in others:
        change = with_unit(format_number(abs(b["change"])), unit)
        text += (
            f"It {'also ' if held else ''}breaks from {month_words(b['after'])} on (interval "
            f"{month_words(b['first'])} to {month_words(b['last'])}), {change} "
            f"{'up' if b['change'] > 0 else 'down'}"
        )
        early = pd.Timestamp(b["after"]) < when
        text += ": the level was not steady before the event. " if early else ". "
    return text.strip()


def _sensor_words(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what declared dates of sensors explain."""
    said = []
    for item in found:
        if item["refused"] or not item.get("sensors"):
            continue
        for row in item["coincide"]:
            if row["declared"]:
                how = (
                    "at"
                    if row["within"] == "tolerance"
                    else "no further than its interval reaches from"
                )
                said.append(
                    f"The break of {item['name']} from {month_words(row['after'])} on lies {how} "
                    f"a change of the record: {row['declared']}. An instrument explains it as well."
                )
        stepped = [
            f"{month_words(s['date'])} ({s['what']}, p = {format_p(s['p_value'])})"
            for s in item["sensors"]
            if s["p_value"] is not None and s["p_value"] < 0.05
        ]  # fmt: skip
        if stepped:
            said.append(
                f"Tested without a search, {item['name']} steps at "
                f"{plural(len(stepped), 'declared date')} of sensors: {joined(stepped, 6)}."
            )
    return said


def depth_words(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say how far light reaches, by which relations, and where these do not hold.

    Parameters
    ----------
    rows
        By relation: ``relation, meaning, expected, observed, change, change_low, change_high,
        outside, refused``.
    """
    said = []
    usable = [r for r in rows if not r["refused"]]
    par = [r for r in usable if "490 nm" not in r["meaning"]]
    if par:
        least, most = (f(par, key=lambda r: abs(r["change"])) for f in (min, max))
        said.append(
            "The euphotic depth, where 1% of the light that plants use is left, changed by "
            f"{format_number(least['change'])} m ({least['relation']}) to "
            f"{format_number(most['change'])} m ({most['relation']}) on average: the relations "
            "differ by more than a rounding, and none of them was made in this water."
        )
    other = [r for r in usable if "490 nm" in r["meaning"]]
    for r in other:
        said.append(
            f"The depth where 1% of the light of 490 nm is left changed by "
            f"{format_number(r['change'])} m. It is often called euphotic depth and is not: this "
            "light reaches deeper than most."
        )
    outside = max((as_float(r.get("outside")) for r in usable), default=0.0)
    if outside > 0.01:
        said.append(
            f"Up to {outside:.0%} of values lie outside the range that a relation was made for."
        )
    said.append(
        "All relations are for water whose color follows its chlorophyll. Off a port, mud and "
        "dissolved matter rule, so that depths are rough while the change of Kd490 is not."
    )
    said += [f"{r['relation']} gives no answer: {r['refused']}" for r in rows if r["refused"]]
    return said
