"""What a run of a study of an event would do: what it reads, and how long it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eocausal.studies.schema_impact import ImpactStudy
    from eocausal.studies.validate import Validation

__all__ = ["ImpactPlan", "plan_impact"]

SECONDS_TO_START = 6.0
SECONDS_PER_SERIES_AND_DRAW = 2.5e-3
"""Of breaks, for 324 months on one core of 2024."""
SECONDS_PER_FIT = 0.3


@dataclass(frozen=True, slots=True)
class ImpactPlan:
    """What a run would do.

    Attributes
    ----------
    title
        The study.
    facts
        What will be read, in sentences.
    steps
        What will be done, in sentences.
    seconds
        A rough estimate of the whole run on one core.
    problems
        What stands in the way of the run.
    """

    title: str
    facts: tuple[str, ...]
    steps: tuple[str, ...]
    seconds: float
    problems: tuple[str, ...]

    def summary(self) -> str:
        """Say the plan in words."""
        lines = [self.title, "", "Reads:", *(f"  {fact}." for fact in self.facts)]
        lines += ["", "Does:", *(f"  {step}." for step in self.steps)]
        minutes = round(self.seconds / 60)
        time = "a minute" if minutes <= 1 else f"{minutes} minutes"
        lines += ["", f"About {time} in all (a rough estimate, for one core)."]
        if self.problems:
            lines += ["", f"{len(self.problems)} problems stand in the way of a run:"]
            lines += [f"  - {problem}" for problem in self.problems]
        return "\n".join(lines)

    def record(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return {
            "study": self.title,
            "facts": list(self.facts),
            "steps": list(self.steps),
            "seconds": self.seconds,
            "problems": list(self.problems),
        }


def plan_impact(found: Validation, study: ImpactStudy) -> ImpactPlan:
    """Say what a run would do, from what validation found."""
    from eocausal.studies.plan import input_sizes

    seconds = SECONDS_TO_START + SECONDS_PER_FIT * (1 + len(study.variants))
    if study.breaks is not None:
        draws = study.breaks.draws
        seconds += (1 + len(study.controls)) * draws * SECONDS_PER_SERIES_AND_DRAW
    return ImpactPlan(
        study.title, (*found.facts, *input_sizes(found)), tuple(_steps(study)), seconds,
        tuple(found.problems),
    )  # fmt: skip


def _steps(study: ImpactStudy) -> list[str]:
    """Say what will be estimated, checked and shown."""
    from eocausal.studies.impact_estimates import model_words

    n = len(study.controls)
    steps = [f"the effect of {study.event.name} by a {model_words(study.model, n)}"]
    if study.variants:
        steps.append(f"the same otherwise: {', '.join(study.variants)}")
    if study.breaks is not None:
        sensors = len(study.breaks.sensors)
        held = f", held against {sensors} dates of sensors" if sensors else ""
        steps.append(f"breaks of the outcome and {n} controls{held}")
    asked = [n.replace("_", " ") for n, on in study.checks.model_dump().items() if on]
    if asked:
        steps.append(f"checks: {', '.join(asked)}")
    if study.optics is not None:
        steps.append("the euphotic depth by several relations")
    if study.land_cover is not None:
        steps.append("land cover by class and year, beside the breaks")
    if study.map is not None:
        steps.append(f"the effect in each pixel of {study.map.grid}")
    return steps
