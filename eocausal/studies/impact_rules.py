"""What no single key of a study of an event shows to be wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

import pandas as pd

from eocausal.studies.schema_impact import ImpactStudy

__all__ = ["PER_METRE", "contradictions_of_impact", "control_name", "known_series", "per_metre"]

Location = tuple[str | int, ...]

PER_METRE = {
    "m-1": 1.0, "m^-1": 1.0, "1/m": 1.0, "m⁻¹": 1.0, "0.01 m-1": 0.01, "0.01 m^-1": 0.01,
    "10^-2 m-1": 0.01, "10^-2 m^-1": 0.01, "1e-2 m-1": 0.01, "10⁻² m⁻¹": 0.01, "0.01 m⁻¹": 0.01,
    "cm-1": 100.0,
}  # fmt: skip
"""What one unit is in m-1, by its name."""


def per_metre(study: ImpactStudy) -> float | None:
    """Return what one unit of the outcome is in m-1; None if that is not known."""
    given = study.optics.per_metre if study.optics is not None else None
    return given if given is not None else PER_METRE.get(" ".join(study.outcome.units.split()))


def control_name(series: str, name: str | None) -> str:
    """Name a control: as it is given, or by its series."""
    return name if name is not None else series


def known_series(study: ImpactStudy) -> list[str]:
    """Return the series that can be known without opening a file, by zone or table."""
    data = study.data
    zones = [f"{grid}.{zone}" for grid, section in data.grids.items() for zone in section.zones]
    return [*(f"{table}.COLUMN" for table in data.tables), *zones]


def contradictions_of_impact(study: ImpactStudy) -> Iterator[tuple[Location, str]]:
    """Yield where keys contradict each other, and how."""
    yield from _references(study)
    yield from _controls(study)
    yield from _dates(study)
    yield from _models(study)
    if study.optics is not None and per_metre(study) is None:
        yield (
            ("optics", "per_metre"),
            f"what one {study.outcome.units!r} is in m-1 is not known; give per_metre, such as "
            "0.01 for 10^-2 m-1",
        )
    if study.map is not None and study.map.grid not in study.data.grids:
        yield ("map", "grid"), _unknown("grid", study.map.grid, list(study.data.grids))


def _references(study: ImpactStudy) -> Iterator[tuple[Location, str]]:
    """Yield references to series that lead nowhere."""
    named: list[tuple[Location, str]] = [(("outcome", "series"), study.outcome.series)]
    named += [(("controls", i), c.series) for i, c in enumerate(study.controls)]
    if study.checks.in_space is not None:
        at: Location = ("checks", "in_space", "series")
        named += [((*at, i), s) for i, s in enumerate(study.checks.in_space.series)]
    for where, reference in named:
        source, _, column = reference.partition(".")
        if not column:
            shown = ", ".join(known_series(study))
            yield where, f"{reference!r} names no series; write one of {shown}"
        elif source not in study.data.tables and source not in study.data.grids:
            yield where, _unknown("source", source, [*study.data.tables, *study.data.grids])
        elif source in study.data.grids:
            zones = list(study.data.grids[source].zones)
            if column == "*" and where[:2] == ("checks", "in_space"):
                continue
            if column not in zones:
                yield where, _unknown(f"zone of {source}", column, zones)


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    near = f"; closest: {close[0]}" if close else ""
    return f"there is no {what} {name!r}{near}; there are: {', '.join(known) or 'none'}"


def _controls(study: ImpactStudy) -> Iterator[tuple[Location, str]]:
    """Yield controls that are the outcome, are named twice, or lie within reach."""
    seen: dict[str, int] = {}
    for i, control in enumerate(study.controls):
        where: Location = ("controls", i)
        name = control_name(control.series, control.name)
        if control.series == study.outcome.series:
            yield where, f"{control.series!r} is the outcome"
        if name in seen:
            yield where, f"{name!r} is named twice"
        seen.setdefault(name, i)
        reach, distance = study.event.reach_km, control.distance_km
        if reach is not None and distance is not None and distance < reach:
            yield (
                (*where, "distance_km"),
                f"{name!r} is {distance:g} km from the event, which reaches {reach:g} km; a "
                "control that the event reached hides the effect; leave it out",
            )
    if study.published is not None:
        for name in study.published.controls or ():
            if name not in seen:
                at: Location = ("published", "controls")
                yield at, _unknown("control", name, list(seen))
    for variant, section in study.variants.items():
        for name in section.controls or ():
            if name not in seen:
                yield (
                    ("variants", variant, "controls"), _unknown("control", name, list(seen))
                )  # fmt: skip


def _dates(study: ImpactStudy) -> Iterator[tuple[Location, str]]:
    event = study.event
    begin = pd.Timestamp(event.when)
    if event.end is not None and pd.Period(event.end).end_time < begin:
        yield ("event", "end"), f"the event ends ({event.end}) before it begins ({event.when})"
    if event.learn_until is not None and pd.Timestamp(event.learn_until) >= begin:
        yield (
            ("event", "learn_until"),
            f"{event.learn_until} is not before the event ({event.when}); times after it would "
            "teach the model the effect",
        )


def _models(study: ImpactStudy) -> Iterator[tuple[Location, str]]:
    """Yield models that do not exist."""
    model = study.model
    compatible = model.prior.compatible is not None
    if compatible and model.trend == "line":
        yield ("model", "trend"), "R's CausalImpact has no straight line; take local_linear"
    for name, variant in study.variants.items():
        where: Location = ("variants", name)
        prior = variant.prior or model.prior
        if variant.method == "bayes":
            if variant.parameters is not None:
                yield (*where, "parameters"), "they are for method: maximum_likelihood"
            if prior.compatible is not None and (variant.trend or model.trend) == "line":
                yield where, "R's CausalImpact has no straight line; give trend: level"
            continue
        odd = variant.model_fields_set & {"prior", "transform", "dynamic"}
        if odd:
            yield where, f"{', '.join(sorted(odd))} cannot be chosen with maximum_likelihood"
        if (variant.trend or "local_linear") not in ("level", "local_linear"):
            yield (*where, "trend"), "maximum_likelihood knows level and local_linear"
        named = set(variant.parameters.coefficients) if variant.parameters is not None else set()
        own = {control_name(c.series, c.name) for c in study.controls}
        used = own if variant.controls is None else set(variant.controls)
        if variant.parameters is not None and named != used:
            yield (
                (*where, "parameters", "coefficients"),
                f"give one for each control used: {', '.join(sorted(used)) or 'none'}",
            )
