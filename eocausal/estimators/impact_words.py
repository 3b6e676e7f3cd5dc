"""An effect in a table as R's CausalImpact prints it."""

from __future__ import annotations

import math

from eocausal.estimators.impact_summary import ImpactSummary

__all__ = ["effect_table"]

WIDTH = 26


def effect_table(effects: ImpactSummary, level: float) -> str:
    """Return the table: average and cumulative side by side, intervals below."""
    interval = f"{100 * level:g}% interval"
    rows: list[tuple[str, ...]] = [
        ("", "Average", "Cumulative"),
        ("Actual", *_each(effects, "{actual}")),
        ("Prediction (s.d.)", *_each(effects, "{predicted} ({predicted_sd})")),
        (interval, *_each(effects, "[{predicted_low}, {predicted_high}]")),
        ("", "", ""),
        ("Effect (s.d.)", *_each(effects, "{effect} ({effect_sd})")),
        (interval, *_each(effects, "[{effect_low}, {effect_high}]")),
        ("", "", ""),
        *_relative(effects, interval),
    ]
    lines = [f"{a:<{WIDTH}}{b:<{WIDTH}}{c}".rstrip() for a, b, c in rows]
    lines += ["", f"{'Tail probability p':<{WIDTH}}{effects.p_value:.2g}"]
    return "\n".join(lines)


def _relative(effects: ImpactSummary, interval: str) -> list[tuple[str, ...]]:
    if math.isnan(effects.row()["relative"]):
        return [("Relative effect", "cannot be said", "cannot be said")]
    return [
        ("Relative effect (s.d.)", *_each(effects, "{relative} ({relative_sd})")),
        (interval, *_each(effects, "[{relative_low}, {relative_high}]")),
    ]


def _each(effects: ImpactSummary, form: str) -> list[str]:
    found = []
    for name in ("average", "cumulative"):
        words = {
            key: percent(value) if key.startswith("relative") else number(value)
            for key, value in effects.row(name).items()
        }
        found.append(form.format(**words))
    return found


def number(value: float) -> str:
    """Return a number with four figures."""
    return f"{value:.4g}"


def percent(value: float) -> str:
    """Return a share as a percentage with three figures."""
    return f"{100 * value:.3g}%"
