"""What no single key of a study's file shows to be wrong: sources, periods, the trial."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from eocausal.ingest.times import span_of
from eocausal.studies.schema import Ingestion, Study
from eocausal.studies.schema_imagery import LooksSection, PeriodsSection

__all__ = ["contradictions_of_trial", "wrong_sources"]

Location = tuple[str | int, ...]

_OF_FILES = (
    "band_names", "band_pattern", "time", "time_pattern", "neighborhood_pattern", "nodata",
)  # fmt: skip


def wrong_sources(study: Ingestion) -> Iterator[tuple[Location, str]]:
    """Yield what is wrong with where scenes come from, and with the periods."""
    data = study.data
    if data.imagery is None and data.panel is None:
        yield ("data",), "neither imagery nor panel is given; there is nothing to ingest"
    sections: dict[str, LooksSection | None] = {"imagery": data.imagery, "panel": data.panel}
    for name, section in sections.items():
        if section is None:
            continue
        at: Location = ("data", name)
        yield from _wrong_source(section, at, borrows=name == "panel" and data.imagery is not None)
        periods = getattr(section, "periods", None)
        if periods is not None:
            yield from _wrong_periods(periods, (*at, "periods"))
        if section.grids is not None and section.grids.time is not None:
            yield from _wrong_grid_time(section.grids.time, (*at, "grids", "time"))


def _wrong_source(
    section: LooksSection, at: Location, *, borrows: bool
) -> Iterator[tuple[Location, str]]:
    given = section.sources
    if len(given) > 1:
        yield (*at, given[1]), f"{given[0]} is given too; give one source of scenes"
    if not given and not borrows:
        yield at, "no source of scenes; give one of files, stac, catalog, grids"
    if section.lock is not None and not {"stac", "catalog"} & set(given):
        yield (*at, "lock"), "a lock keeps what a search found; give stac or catalog with it"
    if "files" not in given:
        for name in _OF_FILES:
            if getattr(section, name) is not None:
                yield (*at, name), _elsewhere(name, given)
    if {"stac", "catalog"} & set(given):
        for name in ("item_pattern", "files_crs"):
            if getattr(section, name) is not None:
                yield (*at, name), "it is for files and grids"


def _elsewhere(name: str, given: Sequence[str]) -> str:
    """Say where else a key of files is written, if anywhere."""
    bands = "variables" if "grids" in given else "bands"
    own = {"band_names": bands, "time": "time"}
    return "it is for files" + (f"; write {given[0]}.{own[name]}" if given and name in own else "")


def _wrong_grid_time(time: PeriodsSection, at: Location) -> Iterator[tuple[Location, str]]:
    if time.dates is not None:
        yield at, "give labels, or every with from and to"
    yield from _wrong_periods(time, at)


def _wrong_periods(periods: PeriodsSection, at: Location) -> Iterator[tuple[Location, str]]:
    ways = [n for n in ("labels", "every", "dates") if getattr(periods, n) is not None]
    if len(ways) != 1:
        yield at, "give labels, or every with from and to, or dates"
    elif (periods.every is None) != (periods.start is None and periods.end is None):
        yield at, "every, from and to belong together"
    elif periods.every is not None and (periods.start is None or periods.end is None):
        yield at, "every needs from and to"


def contradictions_of_trial(study: Study) -> Iterator[tuple[Location, str]]:
    """Yield what no single key shows."""
    trial, estimate = study.design.trial, study.estimate
    for i, choice in enumerate(estimate.vcov):
        if choice.clustered is not None and not (choice.clustered.by or trial.cluster):
            yield (
                ("estimate", "vcov", i),
                "the design has no cluster; name design.trial.cluster, "
                "or write {clustered: {by: COLUMN}}",
            )
    methods = estimate.average or ()
    if "lin" in methods and not estimate.covariates:
        yield ("estimate", "average"), "lin needs covariates; add estimate.covariates"
    if "aipw" in methods and estimate.heterogeneity is None:
        yield ("estimate", "average"), "aipw needs estimate.heterogeneity"
    if estimate.map is not None and estimate.heterogeneity is None:
        yield ("estimate", "map"), "a map needs estimate.heterogeneity"
    if estimate.outcome == trial.arm:
        yield ("estimate", "outcome"), f"{trial.arm!r} is the arm of the trial"
    seen: set[str] = set()
    for i, name in enumerate(estimate.covariates):
        at: Location = ("estimate", "covariates", i)
        if name == estimate.outcome:
            yield at, f"{name!r} is the outcome"
        if name in seen:
            yield at, f"{name!r} is named twice"
        seen.add(name)
    if isinstance(trial.prob, float) and not 0 < trial.prob < 1:
        yield ("design", "trial", "prob"), f"{trial.prob} is not strictly between 0 and 1"
    time, start = study.data.imagery.time, trial.start
    if time is not None and start is not None and span_of(time)[1] >= pd.Timestamp(start):
        yield (
            ("data", "imagery", "time"),
            f"the images ({time}) are not all older than the trial (start {start}); "
            "they would show what the treatment did",
        )
