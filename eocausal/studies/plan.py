"""What a run would do: what it reads, how big, about how long, and what it could find."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from eocausal.errors import EocausalError
from eocausal.studies.decisions import trial_of
from eocausal.studies.evaluation_plan import EvaluationPlan, plan_evaluation
from eocausal.studies.impact_plan import ImpactPlan, plan_impact
from eocausal.studies.ingest_stages import cube_arguments
from eocausal.studies.inputs import input_files
from eocausal.studies.load import EvaluationFile, ImpactFile, read_study
from eocausal.studies.power import MinimumDetectableEffect, minimum_detectable_effect
from eocausal.studies.rates import time_encoder
from eocausal.studies.records import plain_records
from eocausal.studies.schema import Study
from eocausal.studies.validate import Validation, inspect_study

if TYPE_CHECKING:
    from eocausal.ingest.plan import CubePlan

__all__ = ["StudyPlan", "input_sizes", "plan_chips", "plan_study"]

SECONDS_PER_SPLIT_AND_UNIT = 1.5e-3
SECONDS_TO_START = 10.0


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """What a run would do.

    Attributes
    ----------
    title
        The study.
    facts
        What will be read, in sentences.
    cube
        The plan of the cube, or None if places or images are missing.
    encoding
        Seconds to encode the chips on one core, timed on a few random chips; None if the encoder
        cannot be made, or there is no plan of the cube.
    training
        Seconds to train the encoder before, at most; 0 for an encoder that is not trained.
    seconds
        A rough estimate of the whole run on one core.
    power
        The minimum detectable effect, or None without a table of units.
    problems
        What stands in the way of the run.
    """

    title: str
    facts: tuple[str, ...]
    cube: CubePlan | None
    encoding: float | None
    training: float
    seconds: float
    power: MinimumDetectableEffect | None
    problems: tuple[str, ...]

    def summary(self) -> str:
        """Say the plan in words."""
        lines = [self.title, "", "Reads:", *(f"  {fact}." for fact in self.facts)]
        if self.cube is not None:
            lines += ["", "Chips:", *(f"  {line}" for line in self.cube.summary().splitlines())]
        if self.encoding is not None:
            words = f"Encoding them takes about {_duration(self.encoding)}"
            if self.training:
                words += f", after at most {_duration(self.training)} of training"
            lines += ["", f"{words} (timed on this machine, for one core)."]
        lines += ["", f"About {_duration(self.seconds)} in all (a rough estimate, for one core)."]
        lines += ["", "Power:"]
        if self.power is None:
            lines.append("  Not known: there is no usable table of units yet.")
        else:
            lines.append("  " + self.power.summary())
            if self.power.sd is None:
                lines.append("  The outcome is not in the table yet; the correlation is assumed.")
        if self.problems:
            lines += ["", f"{len(self.problems)} problems stand in the way of a run:"]
            lines += [f"  - {problem}" for problem in self.problems]
        return "\n".join(lines)

    def record(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        from dataclasses import asdict

        return {
            "study": self.title,
            "facts": list(self.facts),
            "cube": asdict(self.cube) if self.cube is not None else None,
            "seconds_encoding": self.encoding,
            "seconds_training": self.training,
            "seconds": self.seconds,
            "power": plain_records([self.power.record()])[0] if self.power is not None else None,
            "problems": list(self.problems),
        }


def plan_study(path: Path | str) -> StudyPlan | EvaluationPlan | ImpactPlan:
    """Look at a study's tables and image headers, and say what a run would do.

    A study that is not complete yet (no outcome, no images) is planned as far as it goes.

    Raises
    ------
    StudyError
        If the study file itself is wrong.
    """
    read_study(path)
    found = inspect_study(path)
    if isinstance(found.opened, ImpactFile):
        return plan_impact(found, found.opened.study)
    if isinstance(found.file, EvaluationFile):
        return plan_evaluation(found, found.file.study)
    study = found.study
    facts = [*found.facts, *input_sizes(found)]
    cube = plan_chips(found)
    power = _power(study, found.units)
    problems = list(found.problems)
    n = len(found.units) if found.units is not None else 0
    root, image = found.file.root, study.data.imagery
    timed = found.attempt(
        ("data", "encoder"), lambda: time_encoder(study.data.encoder, image, cube, root)
    )
    encoding, training = timed or (None, 0.0)
    seconds = _seconds(study, cube, n) + (encoding or 0.0) + training
    return StudyPlan(
        study.title, tuple(facts), cube, encoding, training, seconds, power, tuple(problems)
    )


def input_sizes(found: Validation) -> list[str]:
    """Say how many files of each kind are read, and how big they are."""
    try:
        groups = input_files(found.opened)
    except EocausalError:
        return []
    return [
        f"{what}: {len(paths):,} file{'s' if len(paths) > 1 else ''}, "
        f"{sum(p.stat().st_size for p in paths) / 2**20:,.1f} MiB"
        for what, paths in groups.items()
    ]


def plan_chips(found: Validation) -> CubePlan | None:
    """Plan the cube, if the study has imagery and it can be read."""
    if found.places is None or not {"imagery"} <= set(found.scenes) & set(found.periods):
        return None
    from eocausal.ingest.plan import plan_cube

    return found.attempt(
        ("data", "imagery"),
        lambda: plan_cube(
            found.places, found.scenes["imagery"], periods=found.periods["imagery"],
            **cube_arguments(found.file.study.data),
        ),
    )  # fmt: skip


def _power(study: Study, units: pd.DataFrame | None) -> MinimumDetectableEffect | None:
    if units is None:
        return None
    outcome = None
    if study.estimate.outcome in units:
        values = pd.to_numeric(units[study.estimate.outcome], errors="coerce")
        known = values.notna()
        if known.any():
            units, outcome = units[known], values[known].to_numpy(float)
    try:
        assignment = trial_of(study).assignment(units)
    except EocausalError:
        return None
    return minimum_detectable_effect(assignment, outcome, level=study.estimate.level)


def _seconds(study: Study, cube: CubePlan | None, n_units: int) -> float:
    """Estimate the time of all but the encoder, from rates measured on one core of 2024."""
    total = SECONDS_TO_START + (cube.seconds if cube is not None else 0.0)
    if study.estimate.heterogeneity is not None:
        total += study.estimate.heterogeneity.splits * n_units * SECONDS_PER_SPLIT_AND_UNIT
    return total


def _duration(seconds: float) -> str:
    if seconds < 90:
        return "a second" if seconds < 1.5 else f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
