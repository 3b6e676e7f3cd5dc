"""What a run of an evaluation would do: what it reads, which kinds it can estimate, how long."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from eocausal.studies.evaluation_tables import EvaluationTables, assemble_evaluation
from eocausal.studies.rates import time_encoder

if TYPE_CHECKING:
    from eocausal.ingest.plan import CubePlan
    from eocausal.studies.schema_evaluation import Evaluation
    from eocausal.studies.validate import Validation

__all__ = ["EvaluationPlan", "plan_evaluation"]

SECONDS_TO_START = 15.0
SECONDS_PER_FIT = 2.5e-7
FITS_OF_A_KIND = 5
FITS_OF_THE_HEADLINE = 45
STANDARD_ERRORS = 2.802
"""Standard errors of an effect that a test at level 0.05 finds with probability 0.8."""


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """What a run would do.

    Attributes
    ----------
    title
        The study.
    facts
        What will be read, in sentences.
    kinds
        ``funder, sector, n, n_treated``, and ``detectable``: the smallest effect on all units, in
        standard deviations of the outcome, that would be found with probability 0.8 if treatment
        were chance and units independent. Placement and neighbours make it larger.
    fewest
        Kinds with fewer treated units are only listed.
    cube
        The plan of the cube, or None if places or images are missing.
    encoding
        Seconds to encode the chips on one core; None if not known.
    seconds
        A rough estimate of the whole run on one core.
    problems
        What stands in the way of the run.
    """

    title: str
    facts: tuple[str, ...]
    kinds: tuple[dict[str, Any], ...]
    fewest: int
    cube: CubePlan | None
    encoding: float | None
    seconds: float
    problems: tuple[str, ...]

    def summary(self) -> str:
        """Say the plan in words."""
        lines = [self.title, "", "Reads:", *(f"  {fact}." for fact in self.facts)]
        if self.cube is not None:
            lines += ["", "Chips:", *(f"  {line}" for line in self.cube.summary().splitlines())]
        lines += ["", "Kinds of projects (treated of compared; smallest effect in standard "
                  "deviations that could be found at best):"]  # fmt: skip
        for k in self.kinds:
            enough = k["n_treated"] >= self.fewest
            effect = f"{k['detectable']:.2f}" if enough and k["detectable"] else "only listed"
            lines.append(
                f"  {k['funder']}, {k['sector']}: {k['n_treated']:,} of {k['n']:,}; {effect}"
            )
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
            "kinds": list(self.kinds),
            "cube": asdict(self.cube) if self.cube is not None else None,
            "seconds_encoding": self.encoding,
            "seconds": self.seconds,
            "problems": list(self.problems),
        }


def plan_evaluation(found: Validation, study: Evaluation) -> EvaluationPlan:
    """Say what a run would do, from what validation found."""
    from eocausal.studies.plan import input_sizes, plan_chips

    cube = plan_chips(found)
    timed = found.attempt(
        ("data", "encoder"),
        lambda: time_encoder(study.data.encoder, study.data.imagery, cube, found.file.root),
    )
    encoding = timed[0] if timed else None
    tables = None
    if not found.problems:
        tables = found.attempt(("design", "placement"), lambda: assemble_evaluation(study))
    kinds = _kinds(tables)
    seconds = SECONDS_TO_START + (cube.seconds if cube is not None else 0.0) + (encoding or 0.0)
    seconds += _seconds(study, kinds)
    return EvaluationPlan(
        study.title, (*found.facts, *input_sizes(found)), tuple(kinds),
        study.design.placement.fewest, cube, encoding, seconds, tuple(found.problems),
    )  # fmt: skip


def _kinds(tables: EvaluationTables | None) -> list[dict[str, Any]]:
    rows = []
    for exposure in tables.exposures if tables is not None else ():
        n = int(exposure.compared.sum())
        treated = int((exposure.treated & exposure.compared).sum())
        error = np.sqrt(1 / treated + 1 / (n - treated)) if 0 < treated < n else np.nan
        rows.append({
            "funder": exposure.kind.funder, "sector": exposure.kind.sector, "n": n,
            "n_treated": treated,
            "detectable": round(float(STANDARD_ERRORS * error), 4) if np.isfinite(error) else None,
        })  # fmt: skip
    return rows


def _seconds(study: Evaluation, kinds: list[dict[str, Any]]) -> float:
    """Estimate the time of models, from rates measured on one core of 2024."""
    section = study.data.encoder.random_conv
    features = section.features if section is not None else 512
    fewest = study.design.placement.fewest
    sizes = [k["n"] for k in kinds if k["n_treated"] >= fewest]
    each = [SECONDS_PER_FIT * n * features * 2.5 for n in sizes]
    most = max(each, default=0.0)
    return float(FITS_OF_A_KIND * sum(each) + FITS_OF_THE_HEADLINE * most)
