"""The last stage of an evaluation: what was left in the run folder becomes figures and a report."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eocausal.checks.base import CheckResult
from eocausal.provenance import FailureLedger, versions
from eocausal.studies.embed import read_description
from eocausal.studies.evaluation_decisions import SETS
from eocausal.studies.evaluation_estimates import ASKED, OVERLAP, STANDS_IN
from eocausal.studies.evaluation_facts import facts
from eocausal.studies.evaluation_truth import compared_with_truth, mapped_truth
from eocausal.studies.progress import Advance
from eocausal.studies.reporting import read_checks, write_report_files

if TYPE_CHECKING:
    from eocausal.effect_map import EffectMap
    from eocausal.reports.content import Gallery, PlacedContent, ReportContent
    from eocausal.studies.evaluation_space import EvaluationSpace

__all__ = ["evaluation_content", "report", "sector_frame"]

METHODS = {
    "Tweedie correction": "Tweedie",
    "prediction-powered inference": "prediction-powered",
}
MARGINAL = "Odds of treatment that are off by a factor"
SECTOR_COLUMNS = [
    "funder", "sector", "adjustment", "estimand", "status", "estimate", "std_error", "ci_low",
    "ci_high", "simultaneous_low", "simultaneous_high", "p_value", "q_value", "n", "n_treated",
    "ess_treated", "ess_control", "note",
]  # fmt: skip


def report(space: EvaluationSpace, progress: Advance) -> list[str]:
    """Write ``figures/`` and ``report.html``."""
    return write_report_files(space, evaluation_content(space), progress)


def sector_frame(records: list[dict[str, Any]]) -> pd.DataFrame:
    """Return records of sectors as the table that figures and words take."""
    more = ["population", "image_words", "reason"]
    table = pd.DataFrame(records).reindex(columns=[*SECTOR_COLUMNS, *more])
    notes = [
        " ".join(str(part) for part in (a, b) if isinstance(part, str) and part)
        for a, b in zip(table["note"], table["image_words"], strict=True)
    ]
    numbers = {c: table[c].astype(float) for c in SECTOR_COLUMNS[5:-1]}
    place = table["adjustment"].map({a: k for k, a in enumerate(SETS)})
    table = table.assign(note=notes, few=table["status"] == "few", place=place, **numbers)
    order = ["few", "sector", "funder", "place"]
    kept = table.sort_values(order, kind="stable", ignore_index=True)
    return kept.drop(columns=["few", "place"])


def evaluation_content(space: EvaluationSpace) -> ReportContent:
    """Gather everything the report shows."""
    from eocausal.reports.content import ReportContent
    from eocausal.reports.evaluation_text import evaluation_claim

    section, study = space.study.report, space.study
    outcome, unit = section.outcome or study.estimate.outcome, section.unit or ""
    checks = read_checks(space.folder)
    placed = _placed(space, checks, outcome, unit)
    surface = _read_map(space)
    marginal = next((c for c in checks if c.name == MARGINAL), None)
    claim = evaluation_claim(
        placed.sectors, headline=placed.headline, adjustment=placed.adjustment,
        estimand=placed.estimand, outcome=outcome, unit=unit, level=study.estimate.level,
        sensitivity={**marginal.values, "benchmarks": placed.benchmarks} if marginal else None,
        gaps=placed.gaps, checks=checks,
    )  # fmt: skip
    has_truth = section.truth is not None
    return ReportContent(
        title=study.title,
        claim=claim,
        summary=_summary(space, placed),
        estimates=_headline_records(space, placed),
        effect_map=surface,
        checks=checks,
        truth=mapped_truth(space, surface) if has_truth else None,
        galleries=_galleries(space),
        placed=placed,
        data=facts(space),
        failures=FailureLedger.read(space.folder / "failures.parquet").to_frame(),
        provenance={
            "study": study.study,
            "seed": study.seed,
            "versions": versions(),
            "sha256": dict(space.hashes),
        },
        outcome=outcome,
        unit=unit,
    )


def _placed(
    space: EvaluationSpace, checks: list[CheckResult], outcome: str, unit: str
) -> PlacedContent:
    from eocausal.reports.content import PlacedContent

    found, closer = space.kept("sectors.json"), space.kept("closer.json")
    placement = space.kept("placement.json")
    head = found["headline"]
    marginal = next((c for c in checks if c.name == MARGINAL), None)
    sectors = sector_frame(found["records"])
    corrections, words = _corrections(space, outcome, unit)
    names = set(space.study.estimate.covariates)
    benchmarks = dict(marginal.values.get("benchmarks", {})) if marginal else {}
    own = {k: v for k, v in benchmarks.items() if k != "image"} or benchmarks
    return PlacedContent(
        sectors=_asked(sectors, space),
        stand_ins=_stand_ins(sectors, space),
        differences=pd.DataFrame([*found["gains"], *found["funders"]]),
        kinds=pd.DataFrame(space.kept("kinds.json")),
        gaps=pd.DataFrame(found["gaps"]),
        placement=pd.DataFrame(placement["rows"]),
        curves=pd.DataFrame(placement["curves"]),
        importance=pd.DataFrame(placement["importance"]),
        balance=pd.DataFrame(closer["balance"]).set_index("covariate"),
        bounds=marginal.table if marginal is not None and "factor" in marginal.table
        else pd.DataFrame(),
        benchmarks={k: own[k] for k in sorted(own, key=lambda k: (k not in names, k))},
        corrections=corrections,
        correction_words=words,
        estimand=space.study.estimate.estimand,
        stand_in="" if space.study.estimate.otherwise == "none" else space.study.estimate.otherwise,
        headline=(head["funder"], head["sector"]),
        adjustment=head["adjustment"],
    )  # fmt: skip


def _asked(sectors: pd.DataFrame, space: EvaluationSpace) -> pd.DataFrame:
    """Return the effects asked for, refused ones, and those that stand in for these."""
    refused = sectors["status"] == "refused"
    refused &= sectors["estimand"] == space.study.estimate.estimand
    given = sectors["population"].isin([ASKED, STANDS_IN])
    return sectors[given | refused | (sectors["status"] == "few")].reset_index(drop=True)


def _stand_ins(sectors: pd.DataFrame, space: EvaluationSpace) -> pd.DataFrame:
    """Return the effects on the population with overlap, for all kinds."""
    other = space.study.estimate.otherwise
    if other == "none":
        return sectors.iloc[:0]
    few = sectors["status"] == "few"
    refused = (sectors["status"] == "refused") & (sectors["estimand"] == other)
    mine = sectors[(sectors["population"] == OVERLAP) | refused | few].reset_index(drop=True)
    return mine.assign(estimand=mine["estimand"].where(mine["status"] != "few", other))


def _corrections(
    space: EvaluationSpace, outcome: str, unit: str
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the effects on predictions as a table and in words."""
    from eocausal.reports.evaluation_text import corrections_words

    if space.study.estimate.correct is None:
        return pd.DataFrame(), ()
    kept = space.kept("corrections.json")
    table = pd.DataFrame(kept["rows"]).rename(columns={"correction": "method"})
    table["method"] = table["method"].replace(METHODS)
    table = table.assign(n=kept["n"])
    exclusion = pd.DataFrame(kept["exclusion"])
    words = corrections_words(table, outcome=outcome, unit=unit, exclusion=exclusion)
    return table, tuple(part for part in words.split("\n\n") if part)


def _headline_records(space: EvaluationSpace, placed: PlacedContent) -> list[dict[str, Any]]:
    """Return the estimates of the headline under every adjustment, said in their method."""
    records = json.loads((space.folder / "estimates.json").read_text(encoding="utf-8"))
    mine = [r for r in records if (r.get("funder"), r.get("sector")) == placed.headline]
    twice = any(r.get("primary") and r.get("population") == STANDS_IN for r in mine)
    wanted = (ASKED, STANDS_IN) if twice else (ASKED, STANDS_IN, OVERLAP)
    mine = [r for r in mine if r.get("population") in wanted and r.get("estimate") is not None]
    return [
        {**r, "method": f"{r['method']}, adjusted for {r['adjustment']}", "note": ""} for r in mine
    ]


def _galleries(space: EvaluationSpace) -> list[Gallery]:
    from eocausal.reports.content import Gallery

    check, pictures = read_description(space.folder)
    words = f"{check.claim} {check.detail}".strip()
    return [Gallery("What the images show, as the encoder sees it", words, pictures)]


def _read_map(space: EvaluationSpace) -> EffectMap | None:
    import geopandas as gpd

    from eocausal.effect_map import EffectMap

    if not space.study.estimate.map or not space.kept("map.json")["files"]:
        return None
    table = gpd.read_parquet(space.folder / "effects.parquet")
    return EffectMap(table, space.study.estimate.level)


def _differences(space: EvaluationSpace, placed: PlacedContent) -> list[str]:
    """Say for the headline what the image changed, and how funders differ in its sector."""
    funder, sector = placed.headline
    found, said = space.kept("sectors.json"), []
    unit = f" {space.study.report.unit}" if space.study.report.unit else ""
    for r in found["gains"]:
        if (r["funder"], r["sector"]) == (funder, sector):
            said.append(
                f"Adjusting for the image besides the table changed the {r['estimand']} of "
                f"{funder}, {sector} by {_with_interval(r, unit)}."
            )
    said += [
        f"In {r['sector']}, the difference between the effects ({r['estimand']}), {r['funder']}, "
        f"is {_with_interval(r, unit)}."
        for r in found["funders"]
        if r["sector"] == sector
    ]
    return said


def _with_interval(record: dict[str, Any], unit: str) -> str:
    from eocausal.reports.tables import format_interval, format_number

    interval = format_interval(record["ci_low"], record["ci_high"])
    return f"{format_number(record['estimate'])}{unit} ({interval})"


def _summary(space: EvaluationSpace, placed: PlacedContent) -> list[str]:
    """Return the sentences under the claim: notes, what was done, what the image carries."""
    sentences = [*space.study.report.notes, *space.kept("inputs.json")["notes"]]
    unseen = int((~space.seen).sum())
    if unseen:
        has = "place has" if unseen == 1 else "places have"
        sentences.append(f"{unseen:,} {has} no usable image and {'is' if unseen == 1 else 'are'} "
                         "left out.")  # fmt: skip
    records = space.kept("sectors.json")["records"]
    for r in records:
        key = (r["funder"], r["sector"])
        if key == placed.headline and r["adjustment"] == placed.adjustment and r.get("image_words"):
            sentences.append(str(r["image_words"]))
            break
    sentences += _differences(space, placed)
    if space.study.estimate.map and space.kept("map.json")["note"]:
        sentences.append(str(space.kept("map.json")["note"]))
    if space.study.report.truth is not None:
        usable = placed.sectors[np.isfinite(placed.sectors["estimate"].to_numpy(float))]
        mine = usable[usable["adjustment"] == placed.adjustment]
        sentences += compared_with_truth(space, mine)
    return sentences
