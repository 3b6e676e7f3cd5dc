"""The stages that look closely at the headline: its checks, corrected predictions, its map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from eocausal.effects import Status
from eocausal.errors import EocausalError, SupportError
from eocausal.provenance import FailureLedger
from eocausal.studies.embed import check_record, read_description
from eocausal.studies.evaluation_checks import headline_checks
from eocausal.studies.evaluation_estimates import fit_kind
from eocausal.studies.evaluation_sectors import last_adjustment
from eocausal.studies.evaluation_space import adjusted
from eocausal.studies.ingest_stages import write_study
from eocausal.studies.progress import Advance
from eocausal.studies.records import plain_records, write_estimates

if TYPE_CHECKING:
    from eocausal.estimators.measurement import Corrected
    from eocausal.estimators.weighting import Weighted
    from eocausal.folds import SpatialBlocks
    from eocausal.studies.evaluation_space import EvaluationSpace

__all__ = ["check_headline", "collect_evaluation", "correct_predictions", "map_effects"]


def fit_headline(space: EvaluationSpace) -> Weighted:
    """Estimate the headline once more: the same data and seed give the same numbers.

    Raises
    ------
    OverlapError
        If there is no estimate of it for any population.
    """
    kind = space.headline
    last = last_adjustment(space.study.estimate.adjust)
    data = space.observed(kind)
    found, fitted = fit_kind(space.study, data, kind, last)
    if fitted is None:
        raise SupportError(
            f"There is no effect of {kind} that could be estimated.",
            cause=str(found.refused[-1]["note"]) if found.refused else "It is refused.",
            next_step="Name another kind in estimate.headline.",
        )
    return fitted


def check_headline(space: EvaluationSpace, progress: Advance) -> list[str]:
    """Run the checks of the headline, and keep what their figures need."""
    from eocausal.checks.weighted_balance import weighted_balance
    from eocausal.provenance import write_json

    fitted = fit_headline(space)
    results = headline_checks(space, fitted, progress)
    if space.sees:
        results.append(read_description(space.folder)[0])
    write_json(space.folder / "checks.json", [check_record(r) for r in results])
    balance = weighted_balance(fitted).reset_index()
    effect = fitted.estimate
    kept = {
        "balance": balance.to_dict("records"),
        "effect": plain_records([effect.record()])[0],
    }
    return ["checks.json", space.keep("closer.json", kept)]


def correct_predictions(space: EvaluationSpace, progress: Advance) -> list[str]:
    """Compare the headline's effect on the outcome with those on predictions of it."""
    from eocausal.estimators.measurement import corrected_table

    section = space.study.estimate.correct
    assert section is not None
    fitted = fit_headline(space)
    progress(1, 3)
    table, done = corrected_table(
        fitted, section.predictions, labelled=section.labelled, seed=space.study.seed
    )
    exclusion = {item.known.study.data.outcome: item for item in done}
    kept = {
        "rows": table.to_dict("records"),
        "exclusion": [_exclusion(name, item) for name, item in exclusion.items()],
        "n": fitted.data.n,
    }
    return [space.keep("corrections.json", kept)]


def _exclusion(prediction: str, item: Corrected) -> dict[str, Any]:
    """Test whether a prediction differs between arms at equal measured outcome."""
    from eocausal.estimators.prediction_error import treatment_in_error

    try:
        shift = treatment_in_error(item.known, adjust=True)
    except EocausalError:
        return {"prediction": prediction, "p_value": None}
    return {
        "prediction": prediction, "p_value": shift.p_value, "estimate": shift.estimate,
        "ci_low": shift.ci_low, "ci_high": shift.ci_high,
    }  # fmt: skip


def map_effects(space: EvaluationSpace, progress: Advance) -> list[str]:
    """Smooth the headline's scores to an effect per neighborhood, if they are effects of units."""
    from eocausal.estimators.effect_surface import effect_surface
    from eocausal.estimators.weighting import Weighting
    from eocausal.studies.evaluation_decisions import folds_of, weighting_of

    kind = space.headline
    data = adjusted(space.observed(kind), last_adjustment(space.study.estimate.adjust))
    decisions: Weighting = weighting_of(space.study)
    try:
        fitted = decisions.fit(data, seed=space.study.seed)
        blocks = _blocks(folds_of(space.study))
        surface = effect_surface(fitted, space.embedding, space.places, blocks=blocks)
    except EocausalError as error:
        why = f"The effects of {kind} are not mapped: {error.fact}"
        return [space.keep("map.json", {"note": why, "files": []})]
    progress(1, 2)
    files = ["effects.parquet", "effects.gpkg"]
    if not space.places.geometry.geom_type.isin(["Point", "MultiPoint"]).all():
        files.append("effects.tif")
    for name in files:
        surface.write(space.folder / name)
    found = [surface.average()]
    if (surface.table["status"] == Status.EXTRAPOLATED).any():
        alike = "average effect over mapped neighborhoods like those compared"
        found.append({**surface.average(supported_only=True), "estimand": alike})
    key = {"funder": kind.funder, "sector": kind.sector}
    kept = {"note": "", "files": files, "records": plain_records([{**r, **key} for r in found])}
    return [*files, space.keep("map.json", kept)]


def _blocks(folds: Any) -> SpatialBlocks:
    found: SpatialBlocks = getattr(folds, "folds", folds)
    return found


def collect_evaluation(space: EvaluationSpace, progress: Advance) -> list[str]:
    """Put the results where users look for them; the headline comes first."""
    found = space.kept("sectors.json")
    head = found["headline"]
    records = [*found["records"], *found["gains"], *found["funders"]]
    key = ("funder", "sector", "adjustment")
    first = next(
        (r for r in records
         if r.get("estimate") is not None and all(r.get(k) == head[k] for k in key)), None,
    )  # fmt: skip
    if first is not None:
        records = [{**first, "primary": True}, *(r for r in records if r is not first)]
    if space.study.estimate.correct is not None:
        records += _corrected(space)
    if space.study.estimate.map:
        records += space.kept("map.json").get("records", [])
    write_estimates(space.folder, records)
    ledger = FailureLedger()
    for stage in ("inputs", "scenes", "cube", "panel", "kinds"):
        ledger.rows += FailureLedger.read(space.part(f"{stage}.failures.parquet")).rows
    ledger.write(space.folder / "failures.parquet")
    write_study(space)
    return ["estimates.json", "estimates.csv", "failures.parquet", "study.yaml"]


def _corrected(space: EvaluationSpace) -> list[dict[str, Any]]:
    """Return the records of effects on predictions."""
    kind, study = space.headline, space.study
    kept = space.kept("corrections.json")
    effect = space.kept("closer.json")["effect"]
    rows = pd.DataFrame(kept["rows"])
    rows = rows[rows["correction"] != "measured"]
    records = [
        {
            "estimand": effect["estimand"],
            "method": f"{effect['method']}, {row['correction']}",
            **{k: row[k] for k in ("estimate", "std_error", "ci_low", "ci_high", "p_value")},
            "n": kept["n"],
            "level": study.estimate.level,
            "vcov": effect["vcov"],
            "status": row["status"],
            "note": row["note"] or "",
            "funder": kind.funder,
            "sector": kind.sector,
            "adjustment": last_adjustment(study.estimate.adjust),
            "population": "predicted outcome",
            "prediction": row["prediction"],
            "n_labelled": row["n_labelled"],
        }
        for row in rows.to_dict("records")
    ]
    return plain_records(records)
