"""The stages that estimate every kind of project, and say how predictable its placement is."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from eocausal.errors import EocausalError, OverlapError
from eocausal.placements import Exposure, Kind
from eocausal.provenance import Failure, FailureLedger
from eocausal.studies.evaluation_decisions import SETS, assignment_of, benchmarks_of
from eocausal.studies.evaluation_estimates import (
    KindFit,
    fit_kind,
    funder_differences,
    gains_of_images,
    sector_records,
)
from eocausal.studies.evaluation_gaps import gaps_of
from eocausal.studies.evaluation_image import carried_by_image, image_sentence
from eocausal.studies.progress import Advance
from eocausal.studies.records import plain_records

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.assignment_results import FittedAssignment
    from eocausal.studies.evaluation_space import EvaluationSpace

__all__ = [
    "count_kinds",
    "estimate_sectors",
    "last_adjustment",
    "look_at_image",
    "look_at_placement",
]

WORKERS = 4
T = TypeVar("T")


def last_adjustment(adjust: Sequence[str]) -> str:
    """Return the fullest of the adjustments asked for."""
    return "both" if "both" in adjust else adjust[-1]


def count_kinds(space: EvaluationSpace, progress: Advance) -> list[str]:
    """Count who was reached by every kind of project, among the places that are used."""
    seen = space.seen
    ledger = FailureLedger()
    for label in space.tables.units.index[~seen]:
        ledger.add(Failure("kinds", "unit", str(label), "no_image", "Nothing was seen of it."))
    rows = [_counted(space, exposure, seen) for exposure in space.tables.exposures]
    return [space.keep("kinds.json", rows), space.keep_ledger("kinds", ledger)]


def _counted(space: EvaluationSpace, exposure: Exposure, seen: NDArray[np.bool_]) -> dict[str, Any]:
    compared = exposure.compared & seen
    treated = exposure.treated & compared
    within = space.study.design.placement.within
    row: dict[str, Any] = {
        "funder": exposure.kind.funder, "sector": exposure.kind.sector,
        "n": int(compared.sum()), "n_treated": int(treated.sum()),
        "too_recent": exposure.recent, "within_donut": exposure.near, "elsewhere": exposure.abroad,
    }  # fmt: skip
    if within is not None:
        row["groups_treated"] = int(space.tables.units[within][treated].nunique())
    row["estimated"] = row["n_treated"] >= space.study.design.placement.fewest
    return row


def kinds_to_estimate(space: EvaluationSpace) -> list[Kind]:
    """Return the kinds with enough treated units."""
    kept = [Kind(k["funder"], k["sector"]) for k in space.kept("kinds.json") if k["estimated"]]
    if not kept:
        most = max((k["n_treated"] for k in space.kept("kinds.json")), default=0)
        raise OverlapError(
            f"No kind of project reached {space.study.design.placement.fewest:,} places; the most "
            f"is {most:,}.",
            cause="There are too few treated places to estimate anything.",
            next_step="Look at design.placement (first, within_km, years_before, fewest).",
        )
    return kept


def look_at_image(space: EvaluationSpace, progress: Advance) -> list[str]:
    """Measure how far the image tells the covariates of all places."""
    units = space.tables.units[space.seen]
    columns = list(space.study.estimate.covariates)
    return [space.keep("carried.json", carried_by_image(space, units, columns))]


@dataclass(frozen=True, slots=True, eq=False)
class _Estimated:
    """What was found for one kind."""

    fits: tuple[KindFit, ...]
    gaps: Sequence[Mapping[str, Any]]
    image: Mapping[str, Mapping[str, Any]]


def estimate_sectors(space: EvaluationSpace, progress: Advance) -> list[str]:
    """Estimate every kind with every adjustment, and set them side by side."""
    study = space.study
    kinds = kinds_to_estimate(space)
    told = space.kept("carried.json") if space.sees else []
    found = in_threads(lambda kind: _estimate(space, kind, told), kinds, progress)
    fits = [fit for item in found for fit in item.fits]
    few = [
        {name: k[name] for name in ("funder", "sector", "n", "n_treated")}
        for k in space.kept("kinds.json")
        if not k["estimated"]
    ]
    records = sector_records(fits, few, study)
    said = {
        (f.kind.funder, f.kind.sector, a): words
        for item in found
        for f in item.fits[:1]
        for a, words in item.image.items()
    }
    for record in records:
        key = (record["funder"], record["sector"], record["adjustment"])
        if record.get("estimate") is not None:
            record |= said.get(key, {})
    last = last_adjustment(study.estimate.adjust)
    kept = {
        "records": plain_records(records),
        "gains": plain_records(gains_of_images(fits)),
        "funders": plain_records(funder_differences(fits, last)),
        "gaps": [gap for item in found for gap in item.gaps],
        "headline": _headline(space, fits, last),
    }
    return [space.keep("sectors.json", kept)]


def _estimate(space: EvaluationSpace, kind: Kind, told: list[dict[str, Any]]) -> _Estimated:
    study = space.study
    units, history = space.compared(kind)
    gaps = gaps_of(study, kind, units, history)
    data = space.observe(units, [*study.estimate.covariates, *history])
    fitted = {a: fit_kind(study, data, kind, a) for a in study.estimate.adjust}
    image: dict[str, dict[str, Any]] = {}
    if space.sees:
        scores = told + (carried_by_image(space, units, history) if history else [])
        both = fitted["both"][0] if "both" in fitted else None
        known = benchmarks_of(study, [*study.estimate.covariates, *history])
        image = {
            a: image_sentence(scores, data, fit, analysis, both, known)
            for a, (fit, analysis) in fitted.items()
            if a != "table"
        }
    return _Estimated(tuple(fit for fit, _ in fitted.values()), gaps, image)


def in_threads(work: Callable[[Kind], T], kinds: Sequence[Kind], progress: Advance) -> list[T]:
    """Work on kinds side by side; the results are in their order and do not depend on it."""
    done = 0

    def one(kind: Kind) -> T:
        nonlocal done
        result = work(kind)
        done += 1
        progress(done, len(kinds), str(kind))
        return result

    with ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1)) as pool:
        return list(pool.map(one, kinds))


def _headline(space: EvaluationSpace, fits: Sequence[KindFit], last: str) -> dict[str, Any]:
    """Choose the kind that is looked at closely.

    The one that the study names, or that with the largest effective sample size in its smaller arm:
    of the kinds with the effect asked for, or else of those with the one that stands in.
    """
    asked = space.study.estimate.headline
    mine = [f for f in fits if f.adjustment == last]
    if asked is not None:
        chosen = Kind(asked.funder, asked.sector)
        space.tables.exposure(chosen)
        if not any(f.kind == chosen for f in mine):
            raise OverlapError(
                f"The headline, {chosen}, is not estimated.",
                cause="Too few places were treated.",
                next_step="Name another kind in estimate.headline, or lower "
                "design.placement.fewest.",
            )
        return {"funder": chosen.funder, "sector": chosen.sector, "adjustment": last}
    best = max(mine, key=_strength)
    return {"funder": best.kind.funder, "sector": best.kind.sector, "adjustment": last}


def _strength(fit: KindFit) -> tuple[int, float]:
    effect = fit.shown
    if effect is None:
        return 0, 0.0
    ess = min(float(effect.extra["ess_treated"]), float(effect.extra["ess_control"]))
    return (2 if fit.asked is not None else 1), ess


def look_at_placement(space: EvaluationSpace, progress: Advance) -> list[str]:
    """Measure how predictable the placement of every kind is, closely for the headline."""
    headline = space.headline
    found = in_threads(lambda kind: _placement(space, kind, headline), kinds_to_estimate(space),
                       progress)  # fmt: skip
    rows = [row for rows, _ in found for row in rows]
    fitted = next((f for _, f in found if f is not None), None)
    kept: dict[str, Any] = {"rows": rows, "curves": [], "importance": [], "summary": ""}
    if fitted is not None:
        kept["curves"] = fitted.curves().to_dict("records")
        kept["importance"] = fitted.importance_frame().to_dict("records")
        kept["summary"] = fitted.summary()
    return [space.keep("placement.json", kept)]


def _placement(
    space: EvaluationSpace, kind: Kind, headline: Kind
) -> tuple[list[dict[str, Any]], FittedAssignment | None]:
    """Return the AUCs of one kind, and the whole analysis if it is the headline."""
    data = space.observed(kind)
    asked: tuple[str, ...] = space.study.estimate.adjust
    sets = {a: of for a, of in SETS.items() if a in asked}
    decided = assignment_of(space.study, permutations=5 if kind == headline else 0)
    try:
        fitted = decided.fit(data, seed=space.study.seed, sets=sets)
    except EocausalError as error:
        return [
            {"funder": kind.funder, "sector": kind.sector, "confounders": name, "auc": np.nan,
             "note": error.fact}
            for name in sets
        ], None  # fmt: skip
    gains = {d.of: d.gain for d in fitted.differences if d.over == "table"}
    rows = []
    for predicted in fitted.predicted:
        name = predicted.auc.confounders
        gain = gains.get(name)
        rows.append({
            "funder": kind.funder, "sector": kind.sector, "confounders": name,
            "auc": predicted.auc.estimate, "ci_low": predicted.auc.ci_low,
            "ci_high": predicted.auc.ci_high,
            "gain_over_table": gain.estimate if gain else None,
            "gain_low": gain.ci_low if gain else None,
            "gain_high": gain.ci_high if gain else None, "note": predicted.auc.note,
        })  # fmt: skip
    return rows, fitted if kind == headline else None
