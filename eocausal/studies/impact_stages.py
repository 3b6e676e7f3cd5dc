"""The stages of a study of an event: what each depends on, and what it leaves."""

from __future__ import annotations

from eocausal.provenance import FailureLedger, atomic_path
from eocausal.studies.engine import Stage, resolved, scope
from eocausal.studies.impact_breaks import find_breaks
from eocausal.studies.impact_checks import check_effect
from eocausal.studies.impact_estimates import estimate_effect, estimate_variants
from eocausal.studies.impact_inputs import series_groups
from eocausal.studies.impact_land import LAND_FILES, look_at_land
from eocausal.studies.impact_pixels import MAP_FILES, map_pixels
from eocausal.studies.impact_space import ImpactSpace
from eocausal.studies.impact_water import light_in_water
from eocausal.studies.ingest_stages import write_study
from eocausal.studies.progress import Advance
from eocausal.studies.records import write_estimates
from eocausal.studies.schema_impact import ImpactStudy

__all__ = ["IMPACT_OUTPUTS", "impact_stages"]

IMPACT_OUTPUTS = ("series.csv", "effect.csv", *LAND_FILES, *MAP_FILES)

_EFFECT = (
    "outcome.series", "outcome.looks_share", "event.when", "event.end", "event.learn_until",
    "controls", "model", "report.outcome", "seed",
)  # fmt: skip


def impact_stages(study: ImpactStudy) -> list[Stage[ImpactSpace]]:
    """Return the stages of a study of an event in the order they run."""
    from eocausal.studies.impact_reporting import report

    stages: list[Stage[ImpactSpace]] = [
        Stage("series", "Read series", scope("data", "outcome", "controls", "optics.per_metre"),
              series_groups(study), read_in),
    ]  # fmt: skip
    if study.breaks is not None:
        stages.append(
            Stage("breaks", "Find breaks",
                  scope("breaks", "event.when", "model.level", "report.outcome", "seed"),
                  ("series",), find_breaks)
        )  # fmt: skip
    stages += [
        Stage("effect", "Estimate the effect", scope(*_EFFECT), ("series",), estimate_effect),
        Stage("checks", "Check the effect", scope(*_EFFECT, "data", "checks", "breaks"),
              (*series_groups(study), "series"), check_effect),
        Stage("variants", "Ask otherwise", scope(*_EFFECT, "variants"), ("series",),
              estimate_variants),
    ]  # fmt: skip
    if study.optics is not None:
        stages.append(
            Stage("optics", "Light in the water", scope(*_EFFECT, "outcome.units", "optics"),
                  ("series",), light_in_water)
        )  # fmt: skip
    if study.land_cover is not None:
        broken = ("breaks",) if study.breaks is not None else ()
        stages.append(
            Stage("land_cover", "Land cover", scope("land_cover", "event.when"),
                  ("land_cover", *broken), look_at_land)
        )  # fmt: skip
    if study.map is not None:
        stages.append(
            Stage("map", "Map pixels", scope(*_EFFECT, "data", "outcome", "map"),
                  (*series_groups(study), "series"), map_pixels)
        )  # fmt: skip
    before = tuple(s.name for s in stages)
    stages.append(Stage("results", "Collect results", resolved, before, collect))
    shown = ("truth",) if study.report.truth is not None else ()
    stages.append(Stage("report", "Report", resolved, (*before, "results", *shown), report))
    return stages


def read_in(space: ImpactSpace, progress: Advance) -> list[str]:
    """Read outcome and controls into one table."""
    found = space.found
    with atomic_path(space.folder / "series.csv") as temporary:
        found.frame.to_csv(temporary, date_format="%Y-%m-%d", lineterminator="\n")
    return ["series.csv", space.keep_ledger("series", found.ledger)]


def collect(space: ImpactSpace, progress: Advance) -> list[str]:
    """Put the results where users look for them; the headline comes first."""
    own = space.kept("effect.json")["records"]
    records = [{**own[0], "primary": True}, *own[1:], *space.kept("variants.json")["records"]]
    write_estimates(space.folder, records)
    ledger = FailureLedger.read(space.part("series.failures.parquet"))
    ledger.write(space.folder / "failures.parquet")
    write_study(space)
    return ["estimates.json", "estimates.csv", "failures.parquet", "study.yaml"]
