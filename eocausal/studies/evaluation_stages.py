"""The stages of an evaluation: what each depends on, and what it leaves."""

from __future__ import annotations

from eocausal.ingest.times import ALL
from eocausal.studies.embed import check_embedding, embedding_stages
from eocausal.studies.engine import Stage, resolved, scope
from eocausal.studies.evaluation_closer import (
    check_headline,
    collect_evaluation,
    correct_predictions,
    map_effects,
)
from eocausal.studies.evaluation_decisions import first_projects
from eocausal.studies.evaluation_sectors import (
    count_kinds,
    estimate_sectors,
    look_at_image,
    look_at_placement,
)
from eocausal.studies.evaluation_space import EvaluationSpace
from eocausal.studies.ingest_stages import ingest_stages
from eocausal.studies.progress import Advance
from eocausal.studies.scenes import periods_of, refuse_late_scenes
from eocausal.studies.schema_evaluation import Evaluation

__all__ = ["evaluation_stages"]


def check_inputs(space: EvaluationSpace, progress: Advance) -> list[str]:
    """Read every table and header, and refuse late images, before anything costly is done."""
    scenes = space.scenes()
    periods = periods_of(space.study.data.imagery.periods, scenes)
    refuse_late_scenes(scenes, periods or [ALL], first_projects(space.study))
    check_embedding(space, progress)
    tables = space.tables
    notes = {"notes": list(tables.notes), "scenes": scenes["href"].nunique()}
    return [space.keep("inputs.json", notes), space.keep_ledger("inputs", tables.ledger)]


_KINDS = (
    "data.neighborhoods", "data.projects", "data.outcomes", "design", "estimate.outcome",
    "estimate.covariates", "estimate.history", "estimate.adjust",
)  # fmt: skip
_MODELS = (
    *_KINDS, "estimate.score", "estimate.estimand", "estimate.otherwise", "estimate.propensity",
    "estimate.trim", "estimate.folds", "estimate.conley_km", "estimate.level", "seed",
)  # fmt: skip


def evaluation_stages(study: Evaluation) -> list[Stage[EvaluationSpace]]:
    """Return the stages of an evaluation in the order they run."""
    from eocausal.studies.evaluation_reporting import report

    found, *ingested = ingest_stages(study)
    tables: tuple[str, ...] = ("neighborhoods", "projects")
    if study.data.outcomes is not None:
        tables = (*tables, "outcomes")
    sees = set(study.estimate.adjust) != {"table"}
    image = ("image", "embedding") if sees else ()
    stages: list[Stage[EvaluationSpace]] = [
        found,
        Stage("inputs", "Check inputs",
              scope("data", "design", "estimate", "checks", "embedding", "seed"),
              (*tables, "scenes", "encoder"), check_inputs),
        *ingested,
        *embedding_stages(study),
        Stage("kinds", "Count projects near", scope(*_KINDS), (*tables, *image[1:]), count_kinds),
    ]  # fmt: skip
    if sees:
        stages.append(
            Stage("image", "What the image tells",
                  scope(*_KINDS, "estimate.folds", "seed"), (*tables, "embedding"), look_at_image)
        )  # fmt: skip
    stages += [
        Stage("sectors", "Effects by sector",
              scope(*_MODELS, "estimate.headline", "checks.benchmarks"),
              (*tables, "kinds", *image), estimate_sectors),
        Stage("placement", "Predict placement", scope(*_MODELS),
              (*tables, "kinds", "sectors", *image[1:]), look_at_placement),
        Stage("checks", "Check the headline", scope(*_MODELS, "checks"),
              (*tables, "sectors", "description", *image[1:]), check_headline),
    ]  # fmt: skip
    if study.estimate.correct is not None:
        stages.append(
            Stage("corrections", "Correct predictions", scope(*_MODELS, "estimate.correct"),
                  (*tables, "sectors", *image[1:]), correct_predictions)
        )  # fmt: skip
    if study.estimate.map:
        stages.append(
            Stage("map", "Map effects", scope(*_MODELS), (*tables, "sectors", "embedding"),
                  map_effects)
        )  # fmt: skip
    before = tuple(s.name for s in stages)
    stages.append(Stage("results", "Collect results", resolved, before, collect_evaluation))
    shown = (*tables, "truth") if study.report.truth is not None else tables
    stages.append(Stage("report", "Report", resolved, (*before, "results", *shown), report))
    return stages
