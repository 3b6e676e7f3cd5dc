"""An effect in paragraphs: what was found, what it rests on, and what it does not say."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.estimators.impact_calendar import time_label
from eocausal.estimators.impact_words import number, percent
from eocausal.estimators.structural_model import Engine, Trend
from eocausal.estimators.structural_priors import CompatiblePrior

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.impact import Impact
    from eocausal.estimators.impact_summary import ImpactSummary
    from eocausal.estimators.structural_model import StructuralModel

__all__ = ["impact_report"]

TRENDS = {
    Trend.LEVEL: "a level that may walk",
    Trend.LINE: "a level that may walk, a straight line",
    Trend.LOCAL_LINEAR: "a level and a slope that walk",
    Trend.SEMI_LOCAL: "a level that walks with a slope around a long-run mean",
}
ENGINES = {
    Engine.GRID: "exact integration over all but two numbers, these on a grid",
    Engine.COLLAPSED: "importance sampling of the variances, the rest integrated out",
    Engine.GIBBS: "Gibbs sampling",
}


def impact_report(impact: Impact) -> str:
    """Return paragraphs on an impact."""
    paragraphs = [_found(impact), _relative(impact), _likely(impact), *_events(impact)]
    paragraphs += [_causal(impact), _learned(impact), _controls(impact)]
    if impact.notes:
        paragraphs.append("Notes:\n" + "\n".join(f"- {note}" for note in impact.notes))
    return "\n\n".join(part for part in paragraphs if part)


def _span(impact: Impact, where: NDArray[np.bool_]) -> str:
    at = np.flatnonzero(where)
    times = impact.path.time
    first, last = time_label(times[at[0]]), time_label(times[at[-1]])
    if isinstance(times, pd.RangeIndex):
        first, last = f"row {first}", f"row {last}"
    return f"{first} to {last} ({len(at)} {'value' if len(at) == 1 else 'values'})"


def _unit(impact: Impact) -> str:
    return f" {impact.unit}" if impact.unit else ""


def _found(impact: Impact) -> str:
    level, unit = f"{100 * impact.path.level:g}% interval", _unit(impact)
    several = len(impact.by_event) > 1
    when = f"In the windows of {len(impact.by_event)} events, " if several else "From "
    average, total = (impact.effects.row(name) for name in ("average", "cumulative"))
    return (
        f"{when}{_span(impact, impact.path.counted)}, {impact.name} was "
        f"{number(average['actual'])}{unit} on average. From its own past"
        f"{' and the controls' if len(impact.inclusion) else ''}, "
        f"{number(average['predicted'])}{unit} would be expected without the event ({level} "
        f"{number(average['predicted_low'])} to {number(average['predicted_high'])}). "
        f"The difference is {_signed(average['effect'])}{unit} "
        f"({level} {_signed(average['effect_low'])} to {_signed(average['effect_high'])}). "
        f"Summed over these values it is {_signed(total['effect'])} "
        f"({_signed(total['effect_low'])} to {_signed(total['effect_high'])}); a sum means "
        "something for amounts, such as a catch or a discharge, not for states such as a "
        "temperature or a clarity."
    )


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{number(value)}".replace("-", "\N{MINUS SIGN}")


def _share(value: float) -> str:
    return f"{'+' if value > 0 else ''}{percent(value)}".replace("-", "\N{MINUS SIGN}")


def _relative(impact: Impact) -> str:
    row = impact.effects.row()
    if math.isnan(row["relative"]):
        return (
            "A relative effect cannot be said: what would have been may be zero, and nothing "
            "relates to zero."
        )
    parts = ("relative", "relative_low", "relative_high")
    size, low, high = (_share(row[name]) for name in parts)
    return f"Relative to what would be expected, that is {size} ({low} to {high})."


def _likely(impact: Impact) -> str:
    effects, draws = impact.effects, impact.request.draws
    compatible = isinstance(impact.model.prior, CompatiblePrior)
    least = (1 if compatible else 2) / (1 + draws)
    bound = f", the smallest that {draws:,} draws can show" if effects.p_value <= least else ""
    side = "in this direction" if compatible else "in either direction"
    row = effects.row()
    excluded = row["effect_low"] > 0 or row["effect_high"] < 0
    found = (
        f"The interval does not hold zero: {impact.name} "
        f"{'rose above' if row['effect'] > 0 else 'fell below'} what the model expects."
        if excluded
        else "The interval holds zero: the data go with no effect at all, and as well with any "
        "effect within the interval. They do not show that there was none."
    )
    return (
        f"{found} Had nothing changed, the model would give an average at least this far from its "
        f"expectation, {side}, with probability {effects.p_value:.2g}{bound}."
    )


def _events(impact: Impact) -> list[str]:
    if len(impact.by_event) < 2:
        return []
    lines = [f"- {name}: {_short(impact, found)}" for name, found in impact.by_event.items()]
    return [
        "By event, each over its own window:\n"
        + "\n".join(lines)
        + "\nOnly times before the first event are learned from, so a later window counts what all "
        "events up to then did together."
    ]


def _short(impact: Impact, found: ImpactSummary) -> str:
    row = found.row()
    return (
        f"{_signed(row['effect'])}{_unit(impact)} ({_signed(row['effect_low'])} to "
        f"{_signed(row['effect_high'])}) on average over {found.n} values, "
        f"p = {found.p_value:.2g}"
    )


def _causal(impact: Impact) -> str:
    controls = len(impact.inclusion) > 0
    return (
        "This is the effect of the event only if nothing else that moves "
        f"{impact.name} changed at that time"
        + (
            ", the event did not reach the controls, and the outcome would have gone on with them "
            "as before. "
            if controls
            else ", and what it did before would have gone on. Without controls a change that "
            "came from elsewhere, such as a warm year or a new sensor, cannot be told from one of "
            "the event. "
        )
        + "The numbers cannot show that; placebo events and placebo sites can cast doubt on it."
    )


def _learned(impact: Impact) -> str:
    model, request = impact.model, impact.request
    learned = impact.before & np.isfinite(impact.path.observed)
    prior = "the priors of R's CausalImpact" if _compatible(model) else "eocausal's own priors"
    scale = "" if request.transform is None else (
        f" It is modelled as {type(request.transform).__name__.lower()}, and effects are those on "
        "the scale of the outcome."
    )  # fmt: skip
    named = impact.step.startswith("step of ")
    steps = impact.step.replace("step", "steps", 1) if named else f"steps of one {impact.step}"
    return (
        f"The model was learned from {_span(impact, learned)}, in {steps}: "
        f"{_parts(model, len(impact.inclusion))}; {prior}; engine {impact.engine} "
        f"({ENGINES[impact.engine]}); {request.draws:,} draws, seed {request.seed}.{scale}"
    )


def _compatible(model: StructuralModel) -> bool:
    return isinstance(model.prior, CompatiblePrior)


def _parts(model: StructuralModel, controls: int) -> str:
    parts = [TRENDS[model.trend]]
    for season in model.seasons:
        kind = "changing" if season.changes else "constant"
        parts.append(f"a {kind} season of {season.period * season.duration} steps")
    if controls:
        walk = " whose coefficients walk" if model.dynamic else ""
        parts.append(f"{controls} control{'s' if controls > 1 else ''}{walk}")
    tails = " with heavy tails" if model.heavy_tails else ""
    kind = "independent" if _compatible(model) else "autocorrelated"
    return f"{', '.join(parts)} and {'an' if kind[0] in 'ai' else 'a'} {kind} residual{tails}"


def _controls(impact: Impact) -> str:
    shares = impact.inclusion
    if not len(shares):
        return ""
    if (shares >= 1.0 - 1e-9).all():
        names = ", ".join(map(str, shares.index))
        return f"Controls, all of them in the model: {names}."
    told = ", ".join(
        f"{name} {share:.2f}" for name, share in shares.sort_values(ascending=False).items()
    )
    return f"Probability that each control is in the model: {told}."
