"""The true effect of a simulated coast beside the answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from eocausal.errors import StudyError
from eocausal.reports.impact_words import signed, with_unit
from eocausal.reports.tables import format_interval, format_number
from eocausal.studies.impact_pixels import zones_of_grid
from eocausal.studies.impact_rules import PER_METRE, per_metre

if TYPE_CHECKING:
    from eocausal.studies.impact_space import ImpactSpace

__all__ = ["read_true_effect", "truth_words"]


def read_true_effect(space: ImpactSpace) -> float | None:
    """Return the true effect in units of the outcome; None if the study names no truth.

    Raises
    ------
    StudyError
        If the file has no ``coast`` with an event, an effect and its units.
    """
    name = space.study.report.truth
    if name is None:
        return None
    path = space.file.root / name
    try:
        coast = json.loads(path.read_text(encoding="utf-8"))["coast"]
        effect, unit = float(coast["effect"]), str(coast["units"])
        begin = pd.Timestamp(coast["event"])
    except (ValueError, KeyError, TypeError) as error:
        raise StudyError(
            f"{path} holds no true effect on a coast.",
            cause="It needs coast: {event, effect, units}, as a simulated world has it.",
            next_step="Correct report.truth, or leave it out.",
        ) from error
    scale = per_metre(space.study)
    if unit in PER_METRE and scale is not None:
        effect *= PER_METRE[unit] / scale
    if begin != pd.Timestamp(space.study.event.when):
        raise StudyError(
            f"The simulated event is of {begin:%Y-%m-%d}, the study's of {space.study.event.when}.",
            cause="The true effect is that of its own event.",
            next_step="Correct event.when, or leave report.truth out.",
        )
    return effect


def truth_words(space: ImpactSpace) -> list[str]:
    """Say whether intervals hold the true effect: the study's own, its variants', those of pixels.

    Raises
    ------
    StudyError
        As of :func:`read_true_effect`.
    """
    truth = read_true_effect(space)
    if truth is None:
        return []
    own = space.kept("effect.json")["records"][0]
    unit = space.study.report.unit or space.study.outcome.units
    said = [_one("The study's own interval", own, truth, unit)]
    variants = [r for r in space.kept("variants.json")["records"] if r.get("estimate") is not None]
    if variants:
        missed = [r["variant"] for r in variants if not _holds(r, truth)]
        said.append(
            f"Of the {len(variants)} other ways to ask, {len(variants) - len(missed)} have an "
            "interval that holds it"
            + (f"; those that miss it: {', '.join(missed)}." if missed else ".")
        )
    if space.study.map is not None and space.kept("map.json")["files"]:
        said += _pixels(space, truth)
    return said


def _holds(record: dict[str, float], truth: float) -> bool:
    return bool(record["ci_low"] <= truth <= record["ci_high"])


def _one(what: str, record: dict[str, float], truth: float, unit: str) -> str:
    verb = "holds" if _holds(record, truth) else "misses"
    return (
        f"The true effect is {with_unit(format_number(truth), unit)}. {what}, "
        f"{format_interval(record['ci_low'], record['ci_high'])}, {verb} it; the estimate is off "
        f"by {signed(record['estimate'] - truth, 2)}."
    )


def _pixels(space: ImpactSpace, truth: float) -> list[str]:
    """Say how often intervals of pixels hold their true effect: that in the zone, none outside."""
    section = space.study.map
    assert section is not None
    name = space.study.outcome.series.partition(".")[2]
    inside = zones_of_grid(space, section.grid).get(name)
    if inside is None:
        return []
    with xr.open_dataset(space.folder / "effects.nc", engine="h5netcdf") as data:
        low, high, q = (data[n].to_numpy() for n in ("ci_low", "ci_high", "q_value"))
    known = np.isfinite(low)
    effect = np.where(inside, truth, 0.0)
    held = (low <= effect) & (effect <= high)
    mine, others = known & inside, known & ~inside
    marked = q < section.false_discovery
    share = (marked & others).sum() / max(int((marked & known).sum()), 1)
    return [
        f"Pixels: {held[mine].mean():.0%} of {int(mine.sum()):,} intervals in the zone hold the "
        f"true effect, {held[others].mean():.0%} of {int(others.sum()):,} elsewhere hold zero. "
        f"{(marked & mine).sum() / max(int(mine.sum()), 1):.0%} of the zone is marked; "
        f"{share:.0%} of marked pixels are false (asked for: at most {section.false_discovery:.0%} "
        "on average)."
    ]
