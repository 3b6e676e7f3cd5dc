"""How a study differs from what was published about it, and why, from computed numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eocausal.reports.evaluation_words import joined
from eocausal.reports.impact_words import (
    begin,
    month_words,
    percent,
    signed,
    with_unit,
)
from eocausal.reports.tables import as_float, format_interval, format_number, format_p

__all__ = ["PaperFacts", "paper_words"]

SAME = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperFacts:
    """What is known of a published study and of this one.

    Attributes
    ----------
    source
        Authors and year.
    printed
        ``average, relative, cumulative, p_value, placebo_p_value, placebos, depth_change_m``;
        those that are known.
    own
        Record of this study's average effect.
    given, best
        Records by maximum likelihood: at the published parameters, and at the highest likelihood.
    compatible
        Record under CausalImpact's priors.
    unit
        Of the outcome.
    years
        Mean of the outcome in the first and last whole year before the event: ``(year, mean)``.
    in_time
        ``count, as_far, p_value, excluded, worth, p_worth`` of pretended events; may be empty.
    drift
        Claim of the check of drift; may be empty.
    depths
        Rows by relation: ``relation, change_at_mean, change_at_mean_low, change_at_mean_high,
        meaning``.
    sensor_steps
        ``series, date, what, p_value``: series that step where a sensor came or went.
    sensor_breaks
        ``series, after, declared``: breaks that lie at such a date.
    by_bic
        The same for breaks that BIC finds in series where no test does.
    """

    source: str
    printed: Mapping[str, Any]
    own: Mapping[str, Any]
    unit: str
    given: Mapping[str, Any] | None = None
    best: Mapping[str, Any] | None = None
    compatible: Mapping[str, Any] | None = None
    years: Sequence[tuple[int, float]] = ()
    in_time: Mapping[str, Any] = field(default_factory=dict)
    drift: str = ""
    depths: Sequence[Mapping[str, Any]] = ()
    sensor_steps: Sequence[Mapping[str, Any]] = ()
    sensor_breaks: Sequence[Mapping[str, Any]] = ()
    by_bic: Sequence[Mapping[str, Any]] = ()


def paper_words(facts: PaperFacts) -> list[str]:
    """Say what was printed, whether it comes out again, and what speaks for other numbers."""
    parts = [
        _numbers(facts), _p_value(facts), _placebos(facts), _model(facts), _drift(facts),
        _light(facts), _record(facts),
    ]  # fmt: skip
    return [part for part in parts if part]


def _known(facts: PaperFacts, name: str) -> float:
    return as_float(facts.printed.get(name))


def _numbers(facts: PaperFacts) -> str:
    average = _known(facts, "average")
    if math.isnan(average):
        return ""
    relative, total = _known(facts, "relative"), _known(facts, "cumulative")
    more = [
        *([percent(relative, 2)] if relative == relative else []),
        *([f"a sum of {format_number(total, 4)}"] if total == total else []),
    ]  # fmt: skip
    text = (
        f"{facts.source} print an average effect of {with_unit(signed(average, 5), facts.unit)}"
        + (f" ({joined(more)})." if more else ".")
    )
    for record in (facts.given, facts.best):
        if record is not None:
            text += " " + _again(record, average, facts)
    low, high = as_float(facts.own["ci_low"]), as_float(facts.own["ci_high"])
    text += (
        f" This study finds {with_unit(signed(as_float(facts.own['estimate'])), facts.unit)} "
        f"({format_interval(low, high)})."
    )
    return text


def _again(record: Mapping[str, Any], average: float, facts: PaperFacts) -> str:
    """Say whether a fit by maximum likelihood gives the printed number."""
    found = as_float(record["estimate"])
    same = abs(found - average) <= SAME * abs(average)
    how = (
        "At the parameters where their search stopped, the same model"
        if record.get("given")
        else "At the highest likelihood, the model"
    )
    text = (
        f"{how} gives {signed(found, 5)} ({percent(as_float(record['relative']), 2)}; sum "
        f"{format_number(as_float(record['cumulative']), 4)})"
    )
    if record.get("given"):
        return text + (": their number comes out again." if same else ": not their number.")
    better = as_float(record.get("log_likelihood")) - as_float(
        (facts.given or {}).get("log_likelihood")
    )
    if better > 0.05:
        text += f"; its log-likelihood is {better:.2f} higher, so that their search had not ended"
    return text + "."


def _p_value(facts: PaperFacts) -> str:
    record = facts.given or facts.best
    if record is None:
        return ""
    one, joint = as_float(record["std_error_of_one"]), as_float(record["std_error"])
    printed = _known(facts, "p_value")
    judged = as_float(record["p_value_of_one"])
    text = (
        f"The mean of {record['n']:,} times was judged by the spread of a single one, "
        f"{format_number(one)}, which gives p = {judged:.4f}"
    )
    if printed == printed:
        same = abs(judged - printed) <= 0.02 * printed + 5e-5
        text += f"; printed is {printed:.4f}" + (", the same number" if same else "")
    return text + (
        ". That is not the p-value of the mean: errors of single times partly cancel in it. Their "
        f"joint covariance gives the mean a standard error of {format_number(joint)}, and on the "
        f"model's own terms p {_p(as_float(record['p_value']))}. These terms are too narrow, as "
        "the next paragraphs say."
    )


def _placebos(facts: PaperFacts) -> str:
    count, printed = _known(facts, "placebos"), _known(facts, "placebo_p_value")
    parts = []
    if count == count and printed == printed:
        least = 1.0 / (1.0 + count)
        parts.append(
            f"A p-value of {printed:.3f} is printed for {count:.0f} placebos. The event itself is "
            f"one of the {count + 1:.0f} that could be the most extreme, so that the smallest "
            f"p-value possible is 1/{count + 1:.0f} = {least:.3f}"
            + (
                "; and a placebo with fewer times after it than the event varies otherwise than "
                "the event does."
            )
        )
    found = facts.in_time
    if found:
        parts.append(
            f"With the same number of times after each, {found['count']} pretended events fit into "
            f"the record before the real one, and {found['as_far'] or 'none'} of them "
            f"{'is' if found['as_far'] == 1 else 'are'} as far from zero: "
            f"p = {found['p_value']:.3f}. Their windows overlap, so that they are worth "
            f"{found['worth']:.1f} independent ones, and p = {found['p_worth']:.2f} is the honest "
            "number."
        )
        if found.get("excluded") is not None:
            parts.append(
                f"{found['excluded']} of the {found['count']} intervals "
                f"{'excludes' if found['excluded'] == 1 else 'exclude'} zero although "
                "nothing happened."
            )
    return " ".join(parts)


def _model(facts: PaperFacts) -> str:
    record = facts.best or facts.given
    parts = []
    if record is not None:
        collapsed = list(record.get("collapsed") or ())
        if collapsed:
            several = len(collapsed) > 1
            parts.append(
                f"The {'variances' if several else 'variance'} of {joined(collapsed)} "
                f"{'are' if several else 'is'} estimated at practically nothing: in "
                f"{'these parts' if several else 'this part'} the structural model stands still, "
                "and its interval takes it as certain that it does."
            )
        left = as_float(record.get("autocorrelation"))
        if left > 0.1:
            parts.append(
                f"Neighbouring errors before the event are still correlated by {left:.2f}, which "
                "the model takes for none."
            )
    wide = as_float(facts.own["ci_high"]) - as_float(facts.own["ci_low"])
    shares = []
    for other, name in (
        (record, "by maximum likelihood"), (facts.compatible, "under CausalImpact's priors")
    ):  # fmt: skip
        if other is not None and other.get("estimate") is not None:
            share = wide / (as_float(other["ci_high"]) - as_float(other["ci_low"]))
            shares += [f"{share:.1f} times as wide as {name}"] if share > 1.15 else []
    if shares:
        parts.append(
            "Where autocorrelation and the walk of the level are learned, as here, the interval is "
            f"{joined(shares)}."
        )
    return " ".join(parts)


def _drift(facts: PaperFacts) -> str:
    text = ""
    if len(facts.years) == 2:
        (first, early), (last, late) = facts.years
        way = "rose" if late > early else "fell"
        text = (
            f"The series moved before the event: its yearly mean {way} from "
            f"{format_number(early)} in {first} to {with_unit(format_number(late), facts.unit)} in "
            f"{last}. A trend that goes on is not an effect of the event; how much of one is taken "
            "to go on decides the answer, as the models above show."
        )
    return f"{text} {facts.drift}".strip()


def _light(facts: PaperFacts) -> str:
    rows = {str(r["relation"]): r for r in facts.depths if not r.get("refused")}
    plain = rows.pop("4.6 / Kd490", None)
    if plain is None or not rows:
        return ""
    printed = _known(facts, "depth_change_m")
    changes = [as_float(r["change_at_mean"]) for r in rows.values()]
    least, most = max(changes, key=lambda c: -abs(c)), max(changes, key=abs)
    shown = f" (printed: {signed(printed)} m)" if printed == printed else ""
    return (
        f"4.6/Kd490 is the depth where 1% of the light of 490 nm is left, not the euphotic depth, "
        f"which is of all light that plants use. It changed by "
        f"{signed(as_float(plain['change_at_mean']))} m{shown}; by relations for that light the "
        f"change is {signed(least)} to {signed(most)} m."
    )


def _record(facts: PaperFacts) -> str:
    parts = []
    for row in facts.sensor_breaks:
        parts.append(
            f"{begin(row['series'])} breaks from {month_words(row['after'])} on, where the record "
            f"changed hands: {row['declared']}."
        )
    for row in facts.sensor_steps:
        parts.append(
            f"{begin(row['series'])} steps at {month_words(row['date'])} ({row['what']}): p "
            f"{_p(as_float(row['p_value']))}, tested at that date alone."
        )
    for row in facts.by_bic:
        parts.append(
            f"By BIC {row['series']} breaks from {month_words(row['after'])} on, at "
            f"{row['declared']}; against red noise that is no break."
        )
    return " ".join(parts)


def _p(value: float) -> str:
    said = format_p(value)
    return said if said.startswith("<") else f"= {said}"
