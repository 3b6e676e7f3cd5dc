"""From the words of an evaluation's study file to the decision objects they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eocausal.designs import Trial
from eocausal.estimators.arm_means import Estimand
from eocausal.estimators.inference import Conley
from eocausal.folds import Buffered, FoldRule, SpatialBlocks
from eocausal.placements import Placement
from eocausal.studies.schema_evaluation import Evaluation, TrimChoice

if TYPE_CHECKING:
    from eocausal.estimators.assignment import AssignmentMechanism
    from eocausal.estimators.observational import OutcomeModel, PropensityModel
    from eocausal.estimators.trimming import Trimming
    from eocausal.estimators.weighting import Weighting

__all__ = [
    "SETS",
    "assignment_of",
    "benchmarks_of",
    "first_projects",
    "folds_of",
    "placement_of",
    "weighting_of",
]

SETS: dict[str, tuple[str, ...]] = {
    "table": ("table",),
    "image": ("image",),
    "both": ("table", "image"),
}
"""Sources of confounders by adjustment."""


def placement_of(study: Evaluation, year: str) -> Placement:
    """Return which projects count as treatment; ``year`` is the column with that of the outcome."""
    p = study.design.placement
    return Placement(year, p.first, p.within_km, p.years_before, p.donut_km, p.within)


def first_projects(study: Evaluation) -> Trial:
    """Return the begin of the first projects that count, as a design that images must precede."""
    return Trial("projects", start=study.design.placement.first)


def benchmarks_of(study: Evaluation, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of the table that something hidden is compared with.

    Parameters
    ----------
    columns
        Those that are adjusted for.
    """
    asked = study.checks.benchmarks
    if asked:
        return tuple(c for c in columns if c in asked)
    return tuple(c for c in columns if c != study.design.placement.within) or tuple(columns)


def folds_of(study: Evaluation) -> FoldRule:
    """Return the blocks that are held out."""
    section = study.estimate.folds
    blocks = SpatialBlocks(section.blocks_km, k=section.k)
    return blocks if section.buffer_km is None else Buffered(blocks, section.buffer_km)


def weighting_of(study: Evaluation, estimand: str | None = None) -> Weighting:
    """Return how effects are estimated.

    Parameters
    ----------
    estimand
        Instead of the study's own.
    """
    from eocausal.estimators.scores import AIPW, Hajek
    from eocausal.estimators.weighting import Weighting

    section = study.estimate
    population = Estimand(estimand or section.estimand)
    propensity, outcome = _models(study)
    return Weighting(
        AIPW(population) if section.score == "aipw" else Hajek(population),
        propensity,
        outcome,
        folds_of(study),
        trim=_trimming(section.trim),
        vcov=Conley(section.conley_km),
        level=section.level,
    )


def assignment_of(study: Evaluation, *, permutations: int) -> AssignmentMechanism:
    """Return how predictable placement is looked at."""
    from eocausal.estimators.assignment import AssignmentMechanism

    return AssignmentMechanism(
        _models(study)[0], folds_of(study), permutations=permutations, level=study.estimate.level
    )


def _models(study: Evaluation) -> tuple[PropensityModel, OutcomeModel]:
    if study.estimate.propensity == "boost":
        from eocausal.estimators.boosting import BoostedOutcome, BoostedPropensity

        return BoostedPropensity(), BoostedOutcome()
    from eocausal.estimators.ridge import Ridge
    from eocausal.estimators.ridge_logit import RidgeLogit

    return RidgeLogit(), Ridge()


def _trimming(choice: TrimChoice) -> Trimming | None:
    from eocausal.estimators import trimming

    if choice.crump is not None:
        return trimming.Crump()
    if choice.drop is not None:
        return trimming.Drop(choice.drop.below)
    return trimming.Clip(choice.clip.at) if choice.clip is not None else None
