"""An effect in a table as R's CausalImpact prints it."""

from __future__ import annotations

import math

from eocausal.estimators.impact_summary import ImpactSummary

__all__ = ["effect_table"]

WIDTH = 26


def effect_table(effects: ImpactSummary, level: float) -> str:
    """Return the table: average and cumulative side by side, intervals below."""
    interval = f"{100 * level:g}% interval"
    rows = [
        ("", "Average", "Cumulative"),
        ("Actual", *_each(effects, "{actual}")),
        ("Prediction (s.d.)", *_each(effects, "{predicted} ({predicted_sd})")),
        (interval, *_each(effects, "[{predicted_low}, {predicted_high}]")),
        ("", "", ""),
        ("Effect (s.d.)", *_each(effects, "{effect} ({effect_sd})")),
        (interval, *_each(effects, "[{effect_low}, {effect_high}]")),
        ("", "", ""),
        ("Relative effect (s.d.)", *_each(effects, "{relative} ({relative_sd})")),
        (interval, *_each(effects, "[{relative_low}, {relative_high}]")),
    ]
    lines = [f"{a:<{WIDTH}}{b:<{WIDTH}}{c}".rstrip() for a, b, c in rows]
    lines += ["", f"{'Tail probability p':<{WIDTH}}{effects.p_value:.2g}"]
    return "\n".join(lines)


def _each(effects: ImpactSummary, form: str) -> list[str]:
    found = []
    for _, row in effects.table.iterrows():
        words = {
            str(name): percent(value) if str(name).startswith("relative") else number(value)
            for name, value in row.items()
        }
        found.append(form.format(**words))
    return found


def number(value: float) -> str:
    """Return a number with four figures."""
    return "not said" if math.isnan(value) else f"{value:.4g}"


def percent(value: float) -> str:
    """Return a share as a percentage with three figures."""
    return "not said" if math.isnan(value) else f"{100 * value:.3g}%"
