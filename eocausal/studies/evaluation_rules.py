"""What no single key of an evaluation's study file shows to be wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from eocausal.ingest.times import span_of
from eocausal.studies.schema_evaluation import Evaluation

__all__ = ["contradictions_of"]

Location = tuple[str | int, ...]


def contradictions_of(study: Evaluation) -> Iterator[tuple[Location, str]]:
    """Yield where keys contradict each other, and how."""
    placement, estimate = study.design.placement, study.estimate
    if placement.donut_km is not None and placement.donut_km <= placement.within_km:
        yield (
            ("design", "placement", "donut_km"),
            f"the donut ends at {placement.donut_km:g} km, within the {placement.within_km:g} km "
            "of treatment; give a larger one, or leave it out",
        )
    if estimate.otherwise == estimate.estimand:
        yield (
            ("estimate", "otherwise"),
            f"{estimate.otherwise} is the estimand itself; name another, or none",
        )
    yield from _roles(study)
    unknown = [b for b in study.checks.benchmarks if b not in estimate.covariates]
    for name in unknown:
        yield (
            ("checks", "benchmarks", study.checks.benchmarks.index(name)),
            f"{name!r} is no covariate; those are {', '.join(estimate.covariates)}",
        )
    time, first = study.data.imagery.time, placement.first
    if time is not None and span_of(time)[1] >= pd.Timestamp(first):
        yield (
            ("data", "imagery", "time"),
            f"the images ({time}) are not all older than the projects that count (first "
            f"{first}); they would show what projects did",
        )


def _roles(study: Evaluation) -> Iterator[tuple[Location, str]]:
    """Yield columns that are named in two roles."""
    estimate = study.estimate
    role = {estimate.outcome: "the outcome"}
    named: list[tuple[Location, tuple[str, ...], str]] = [
        (("estimate", "covariates"), estimate.covariates, "a covariate"),
        (("checks", "placebo"), study.checks.placebo, "a placebo outcome"),
    ]
    if estimate.correct is not None:
        at = ("estimate", "correct", "predictions")
        named.append((at, estimate.correct.predictions, "a prediction of the outcome"))
    for where, names, what in named:
        for i, name in enumerate(names):
            if name in role:
                already = role[name]
                text = "named twice" if already == what else f"{already} already"
                yield (*where, i), f"{name!r} is {text}"
            role.setdefault(name, what)
