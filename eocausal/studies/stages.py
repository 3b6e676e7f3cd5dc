"""The stages of a run: what each depends on, and what it leaves.

A stage reads what earlier ones left in the run folder, never their memory, so that a run that
was killed goes on with the same numbers as one that was not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from eocausal.effects import EffectEstimate, Status
from eocausal.folds import GroupFolds, RandomFolds
from eocausal.ingest.times import ALL
from eocausal.provenance import FailureLedger, write_json
from eocausal.studies.decisions import variances_of
from eocausal.studies.embed import (
    EMBEDDED,
    check_embedding,
    check_record,
    embedding_stages,
    read_description,
)
from eocausal.studies.engine import Stage, resolved, scope
from eocausal.studies.explain import explain
from eocausal.studies.ingest_stages import INGESTED, ingest_stages, write_study
from eocausal.studies.progress import Advance
from eocausal.studies.records import plain_records, write_estimates
from eocausal.studies.scenes import periods_of, refuse_late_scenes
from eocausal.studies.schema import CheckChoice, Study
from eocausal.studies.workspace import Workspace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.checks.base import CheckResult
    from eocausal.effect_map import EffectMap
    from eocausal.estimators.ranking import Target

__all__ = ["OUTPUTS", "leakage_alpha", "stages_of"]

OUTPUTS = (
    *INGESTED, *EMBEDDED, "study.yaml", "effects.parquet", "effects.gpkg", "effects.tif",
    "salience", "estimates.json", "estimates.csv", "checks.json", "figures", "report.html",
    "failures.parquet",
)  # fmt: skip

WHY_GROUPED = (
    "Units that share an image or a cluster are kept in one fold, so that the model cannot "
    "recognise a place it has seen."
)
WHY_NOT_RANDOM = (
    "Units of one place are in several folds: the model recognises the place and recalls its arm. "
    "Shown for comparison only."
)


def check_inputs(space: Workspace, progress: Advance) -> list[str]:
    """Read every table and header, and refuse leaks, before anything costly is done."""
    from eocausal.checks.leakage import refuse_leaks

    trial, estimate = space.trial, space.study.estimate
    raw = space.tables.raw
    trial.assignment(raw)
    refuse_leaks(raw, trial, estimate.covariates, alpha=leakage_alpha(space.study))
    scenes = space.scenes()
    periods = periods_of(space.study.data.imagery.periods, scenes)
    refuse_late_scenes(scenes, periods or [ALL], trial)
    check_embedding(space, progress)
    notes = {"notes": list(space.tables.notes), "scenes": scenes["href"].nunique()}
    return [space.keep("inputs.json", notes), space.keep_ledger("inputs", space.tables.ledger)]


def leakage_alpha(study: Study) -> float:
    """Return the level of the leak check."""
    chosen = next((c.leakage for c in study.checks if c.leakage is not None), None)
    return chosen.alpha if chosen is not None else 1e-6


def average(space: Workspace, progress: Advance) -> list[str]:
    """Estimate the average effect from the tables alone."""
    from eocausal.estimators.randomized import difference_in_means, lin_adjusted, outcome_of
    from eocausal.studies.power import minimum_detectable_effect

    tables, trial, spec = space.tables, space.trial, space.study.estimate
    first, *others = variances_of(space.study)
    records: list[dict[str, Any]] = []
    estimates = [difference_in_means(tables.units, trial, spec.outcome, vcov=first)]
    if "lin" in spec.methods:
        covariates = list(tables.covariates)
        estimates.append(lin_adjusted(tables.units, trial, spec.outcome, covariates, vcov=first))
    for item in estimates:
        records += _under_all(item, others, spec.level)
    records[0]["primary"] = True
    power = minimum_detectable_effect(
        trial.assignment(tables.units), outcome_of(tables.units, spec.outcome), level=spec.level
    )
    return [space.keep("average.json", plain_records([*records, power.record()]))]


def _under_all(estimate: EffectEstimate, others: list[Any], level: float) -> list[dict[str, Any]]:
    """Return the records of an estimate under its own and other variances."""
    each = [estimate, *(estimate.with_vcov(rule) for rule in others)]
    return [replace(e, level=level).record() for e in each]


def effects(space: Workspace, progress: Advance) -> list[str]:
    """Learn how the effect varies with the image, and carry it to every neighborhood."""
    from eocausal.estimators.transport import transport

    tables, spec = space.tables, space.study.estimate
    fitted = space.learner.fit(
        space.trial, tables.units, space.embedding,
        outcome=spec.outcome, covariates=tables.covariates,
    )  # fmt: skip
    progress(1, 2)
    first, *others = variances_of(space.study)
    records: list[dict[str, Any]] = []
    if "aipw" in spec.methods:
        records += _under_all(fitted.average(first), others, spec.level)
    if spec.map is None:
        return [space.keep("effects.json", {"records": plain_records(records)})]
    effect_map = transport(fitted, space.embedding, tables.places)
    records.append(effect_map.average())
    if (effect_map.table["status"] == Status.EXTRAPOLATED).any():
        records.append({
            **effect_map.average(supported_only=True),
            "estimand": "average effect over mapped neighborhoods that are like the trial's",
        })  # fmt: skip
    written = _write_map(effect_map, space, spec.map.resolution)
    return [*written, space.keep("effects.json", {"records": plain_records(records)})]


def _write_map(effect_map: EffectMap, space: Workspace, resolution: float | None) -> list[str]:
    """Write the map's files; places that are points make no raster."""
    import shapely

    names = ["effects.parquet", "effects.gpkg"]
    for name in names:
        effect_map.write(space.folder / name)
    if (shapely.area(effect_map.table.geometry.to_numpy()) > 0).any():
        effect_map.write(space.folder / "effects.tif", resolution=resolution)
        names.append("effects.tif")
    return names


def rank(space: Workspace, progress: Advance) -> list[str]:
    """Ask whether images tell the arms apart, and whether they tell who gains more."""
    from eocausal.estimators.auc import treatment_auc
    from eocausal.estimators.ranking import AUTOC, Qini, rate_over_splits

    tables, spec, seed = space.tables, space.study.estimate, space.study.seed
    section = spec.heterogeneity
    assert section is not None
    grouped = GroupFolds(tables.group, section.folds)
    records, rows = [], []
    for folds, used, why in (
        (grouped, True, WHY_GROUPED),
        (RandomFolds(section.folds), False, WHY_NOT_RANDOM),
    ):
        auc = treatment_auc(
            space.trial, tables.units, space.embedding, folds, seed=seed, level=spec.level
        )
        label = f"grouped by {tables.group}" if used else "random"
        method = f"cross-fitted logistic regression, {label} folds"
        records.append({**auc.record(), "method": method, "used": used})
        rows.append({"folds": label, "auc": auc.auc, "ci_low": auc.ci_low,
                     "ci_high": auc.ci_high, "used": used, "why": why})  # fmt: skip
    targets: dict[str, Target] = {"autoc": AUTOC(), "qini": Qini()}
    rates = rate_over_splits(
        space.trial, tables.units, space.embedding, outcome=spec.outcome,
        covariates=tables.covariates, learner=space.learner, splits=section.splits, seed=seed,
        targets=[targets[name] for name in section.targets], progress=progress,
    )  # fmt: skip
    kept = {
        "records": plain_records([*rates.records(), *records]),
        "auc": rows,
        "splits": rates.to_frame().to_dict("records"),
        "summary": rates.summary(),
    }
    return [space.keep("ranking.json", kept)]


def run_checks(space: Workspace, progress: Advance) -> list[str]:
    """Run the checks that the study asks for; leakage is always among them."""
    chosen = list(space.study.checks)
    if not any(c.name == "leakage" for c in chosen):
        chosen.insert(0, CheckChoice.model_validate("leakage"))
    results = []
    for i, choice in enumerate(chosen):
        results.append(_check(choice, space))
        progress(i + 1, len(chosen))
    results.append(read_description(space.folder)[0])
    write_json(space.folder / "checks.json", [check_record(r) for r in results])
    return ["checks.json"]


def _check(choice: CheckChoice, space: Workspace) -> CheckResult:
    from eocausal.checks.balance import Balance
    from eocausal.checks.leakage import Leakage, TrialData
    from eocausal.checks.overlap import Attrition

    raw, seed = space.tables.raw, space.study.seed
    subject = TrialData(
        raw, space.trial, space.study.estimate.covariates,
        embedding_last_date=str(space.embedding.attrs["last_image_date"]),
        outcome=space.study.estimate.outcome, has_image=_has_image(space),
    )  # fmt: skip
    if choice.balance is not None:
        return Balance(draws=choice.balance.draws, seed=seed).run(subject)
    if choice.attrition is not None:
        return Attrition(draws=choice.attrition.draws, seed=seed).run(subject)
    return Leakage(leakage_alpha(space.study)).run(subject)


def _has_image(space: Workspace) -> NDArray[np.bool_]:
    """Whether each unit's place has features in some period."""
    embedding = space.embedding
    seen = np.isfinite(embedding.isel(feature=0).to_numpy())
    seen = seen.reshape(len(embedding.indexes["neighborhood"]), -1).any(axis=1)
    labels = embedding.indexes["neighborhood"][seen]
    return space.tables.raw["neighborhood"].isin(labels).to_numpy()


def collect(space: Workspace, progress: Advance) -> list[str]:
    """Put the results where users look for them."""
    records = [*space.kept("average.json")]
    if space.study.estimate.heterogeneity is not None:
        records += [*space.kept("effects.json")["records"], *space.kept("ranking.json")["records"]]
    write_estimates(space.folder, records)
    ledger = FailureLedger()
    for stage in ("inputs", "scenes", "cube", "panel"):
        ledger.rows += FailureLedger.read(space.part(f"{stage}.failures.parquet")).rows
    ledger.write(space.folder / "failures.parquet")
    write_study(space)
    return ["estimates.json", "estimates.csv", "failures.parquet", "study.yaml"]


_TABLES = (
    "data.units", "data.neighborhoods", "design", "estimate.outcome", "estimate.covariates",
    "estimate.missing_covariates", "estimate.missing_outcome", "estimate.average",
    "estimate.vcov", "estimate.level",
)  # fmt: skip
_LEARNED = (*_TABLES, "estimate.heterogeneity", "estimate.map", "seed")


def stages_of(study: Study) -> list[Stage[Workspace]]:
    """Return the stages of a study in the order they run."""
    from eocausal.studies.reporting import report

    tables = ("units", "neighborhoods", "inputs")
    found, *ingested = ingest_stages(study)
    stages: list[Stage[Workspace]] = [
        found,
        Stage("inputs", "Check inputs",
              scope("data", "design", "estimate", "checks", "embedding", "seed"),
              ("units", "neighborhoods", "scenes", "encoder"), check_inputs),
        *ingested,
        *embedding_stages(study),
        Stage("average", "Average effect", scope(*_TABLES), tables, average),
    ]  # fmt: skip
    if study.estimate.heterogeneity is not None:
        stages += [
            Stage("effects", "Effects by place", scope(*_LEARNED), (*tables, "embedding"), effects),
            Stage("ranking", "Who gains more", scope(*_LEARNED), (*tables, "embedding"), rank),
        ]
    if study.estimate.salience is not None:
        stages.append(
            Stage(
                "salience",
                "Explain effects by pixels",
                scope(*_LEARNED, "estimate.salience", "data.encoder", "report.unit"),
                (*tables, "cube", "encoder", "embedding"),
                explain,
                one_thread=False,
            )
        )
    stages.append(
        Stage("checks", "Checks", scope("checks", *_TABLES, "seed"),
              (*tables, "embedding", "description"), run_checks)
    )  # fmt: skip
    before = tuple(s.name for s in stages)
    stages.append(Stage("results", "Collect results", resolved, before, collect))
    shown: tuple[str, ...] = ("units", "neighborhoods", "imagery")
    if study.report.truth is not None:
        shown = (*shown, "truth")
    stages.append(Stage("report", "Report", resolved, (*before, "results", *shown), report))
    return stages
