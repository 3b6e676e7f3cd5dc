"""The breaks of outcome and controls, beside the event and the dates of sensors."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eocausal.errors import EocausalError
from eocausal.studies.impact_decisions import break_choice, break_model, sensors_of
from eocausal.studies.impact_rules import control_name
from eocausal.studies.progress import Advance

if TYPE_CHECKING:
    from eocausal.estimators.breaks_result import Breaks
    from eocausal.studies.impact_space import ImpactSpace

__all__ = ["find_breaks"]

NEAR = 2
"""Steps by which a break may miss a declared date and still be at it."""


def find_breaks(space: ImpactSpace, progress: Advance) -> list[str]:
    """Find the breaks of every series, and hold them against the dates of sensors."""
    series = {str(space.outcome.name): space.outcome}
    series |= {str(name): values for name, values in space.controls.items()}
    found = []
    for k, (name, values) in enumerate(series.items()):
        found.append(_one(space, name, values.rename(name), treated=k == 0))
        progress(k + 1, len(series))
    return [space.keep("breaks.json", found)]


def _one(
    space: ImpactSpace, name: str, values: pd.Series[float], *, treated: bool
) -> dict[str, Any]:
    from eocausal.estimators.breakpoints import breakpoints

    study = space.study
    same = {control_name(c.series, c.name) for c in study.controls if c.same_record}
    try:
        breaks = breakpoints(
            values, model=break_model(study), choice=break_choice(study), seed=study.seed,
            level=study.model.level,
        )  # fmt: skip
    except EocausalError as error:
        return {"name": name, "treated": treated, "refused": f"{error.fact} {error.cause}"}
    return {
        "name": name, "treated": treated, "refused": "", "summary": breaks.summary(),
        "model": str(breaks.model), "rule": breaks.rule,
        "p_any": _number(breaks.anything.p_value) if breaks.anything is not None else None,
        "inflation": _number(breaks.noise.inflation),
        "breaks": [
            {**{k: _plain(v) for k, v in row.items()}, "at": at}
            for row, at in zip(breaks.to_frame().to_dict("records"), breaks.at, strict=True)
        ],
        "levels": _levels(breaks), **_sensors(space, breaks, same=treated or name in same),
        "by_bic": _by_bic(space, breaks) if treated or name in same else [],
        "methods": _company(space, breaks) if treated else [],
        "shift": _shift(space, breaks) if treated else None,
    }  # fmt: skip


def _levels(breaks: Breaks) -> list[dict[str, Any]]:
    """Return the level of each regime, season and controls taken out."""
    plain = breaks.values - breaks.lasting
    edges = [0, *breaks.at, len(plain)]
    label = breaks.calendar.label
    return [
        {"first": label(a), "last": label(b - 1), "level": float(plain[a:b].mean())}
        for a, b in pairwise(edges)
    ]


def _sensors(space: ImpactSpace, breaks: Breaks, *, same: bool) -> dict[str, Any]:
    from eocausal.estimators.breaks_sensors import hold_against_sensors

    declared = sensors_of(space.study)
    if declared is None or not same:
        return {"sensors": [], "coincide": [], "chance": None, "verdict": ""}
    verdict = hold_against_sensors(breaks, declared, seed=space.study.seed)
    return {
        "sensors": [
            {k: _plain(v) for k, v in row.items()} for row in verdict.dates.to_dict("records")
        ],
        "coincide": verdict.breaks.to_dict("records"),
        "chance": verdict.chance,
        "verdict": verdict.summary(),
    }  # fmt: skip


def _by_bic(space: ImpactSpace, breaks: Breaks) -> list[dict[str, Any]]:
    """Return the breaks that BIC would choose, with declared changes next to them."""
    declared = sensors_of(space.study)
    calendar = breaks.calendar
    found = []
    for at in breaks.partitions[int(breaks.bic.argmin())]:
        near = [
            f"{c.what} ({c.date})" for c in (declared.changes if declared is not None else ())
            if (k := calendar.locate(c.date)) < len(calendar.position)
            and abs(int(calendar.position[k]) - int(calendar.position[at])) <= NEAR
        ]  # fmt: skip
        found.append({"after": calendar.label(int(at)), "declared": ", ".join(near)})
    return found


def _company(space: ImpactSpace, breaks: Breaks) -> list[dict[str, Any]]:
    """Return where other detectors see breaks."""
    if space.study.breaks is None or not space.study.breaks.compare:
        return []
    from eocausal.estimators.breaks_consensus import compare_methods

    rows = compare_methods(breaks).to_frame().to_dict("records")
    return [{str(k): _plain(v) for k, v in row.items()} for row in rows]


def _shift(space: ImpactSpace, breaks: Breaks) -> dict[str, Any] | None:
    """Measure how far values after the event lie from those before, season taken out."""
    from eocausal.estimators.breaks_sieve import ArSieve
    from eocausal.estimators.shift_sizes import shift_size

    assert space.study.breaks is not None
    at = breaks.calendar.locate(space.study.event.when)
    try:
        found = shift_size(
            breaks.values - breaks.lasting, int(at), position=breaks.calendar.position,
            resample=ArSieve(draws=space.study.breaks.draws), level=space.study.model.level,
            seed=space.study.seed,
        )  # fmt: skip
    except EocausalError:
        return None
    names = ("delta", "delta_low", "delta_high", "shift", "shift_low", "shift_high")
    return {**{n: _number(getattr(found, n)) for n in names}, "word": found.word}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return _number(float(value))
    return value.item() if isinstance(value, np.generic) else value
