"""Check a study against its files before anything is computed; list every problem at once."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from eocausal.errors import EocausalError, StudyError
from eocausal.ingest.grid import parse_crs
from eocausal.ingest.times import parse_period
from eocausal.studies.assemble import complete_covariates, link, read_places, read_units
from eocausal.studies.decisions import encoder_of, trial_of
from eocausal.studies.load import Location, StudyFile, line_of, read_study
from eocausal.studies.stages import leakage_alpha
from eocausal.studies.workspace import refuse_late_scenes, scan_scenes

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

__all__ = ["Validation", "validate_study"]

T = TypeVar("T")


@dataclass(slots=True)
class Validation:
    """What was found while a study was checked.

    Attributes
    ----------
    file
        The study.
    facts
        What is there, in sentences.
    problems
        What is wrong, with lines.
    """

    file: StudyFile
    facts: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    units: pd.DataFrame | None = None
    places: gpd.GeoDataFrame | None = None
    scenes: gpd.GeoDataFrame | None = None

    def add(self, where: Location, text: str) -> None:
        """Note a problem once."""
        problem = self.file.problem(where, text)
        if problem not in self.problems:
            self.problems.append(problem)

    def attempt(self, where: Location, action: Callable[[], T]) -> T | None:
        """Do something; a typed error becomes a problem."""
        try:
            return action()
        except EocausalError as error:
            next_step = f" Next: {error.next_step}" if error.next_step else ""
            self.add(where, " ".join(f"{error.fact} {error.cause}{next_step}".split()))
            return None


def validate_study(path: Path | str) -> Validation:
    """Check that a study's files, columns, bands and dates are there and fit, and refuse leaks.

    Raises
    ------
    StudyError
        With every problem found.
    """
    found = inspect_study(path)
    if found.problems:
        count = len(found.problems)
        raise StudyError(
            f"The study {path} has {count} problem{'s' if count > 1 else ''}.",
            cause="It would fail, or mean something else than intended.",
            next_step="Correct the lines below.",
            problems=sorted(found.problems, key=line_of),
        )
    return found


def inspect_study(path: Path | str) -> Validation:
    """Look at everything a study names, and keep the problems beside what is there.

    Raises
    ------
    StudyError
        If the study file itself is wrong.
    """
    found = Validation(read_study(path))
    study = found.file.study
    found.units = found.attempt(("data", "units"), lambda: read_units(study))
    found.places = found.attempt(("data", "neighborhoods"), lambda: read_places(study))
    found.scenes = found.attempt(("data", "imagery"), lambda: scan_scenes(found.file))
    found.attempt(("data", "encoder"), lambda: encoder_of(study.data.encoder, found.file.root))
    if found.units is not None:
        _look_at_columns(found, found.units)
    if found.units is not None and found.places is not None:
        _look_at_links(found, found.units, found.places)
    if found.scenes is not None:
        _look_at_scenes(found, found.scenes)
    truth = study.report.truth
    if truth is not None and not (found.file.root / truth).is_file():
        found.add(("report", "truth"), f"there is no file {found.file.root / truth}")
    return found


def _look_at_columns(found: Validation, units: pd.DataFrame) -> None:
    from eocausal.checks.leakage import refuse_leaks
    from eocausal.estimators.randomized import outcome_of

    study, trial = found.file.study, trial_of(found.file.study)
    before = len(found.problems)
    design: Location = ("design", "trial")
    for key in ("arm", "cluster", "block", "prob"):
        name = getattr(study.design.trial, key)
        if isinstance(name, str):
            _column(found, (*design, key), name, units.columns)
    _column(found, ("estimate", "outcome"), study.estimate.outcome, units.columns)
    for i, name in enumerate(study.estimate.covariates):
        _column(found, ("estimate", "covariates", i), name, units.columns)
    for i, choice in enumerate(study.estimate.vcov):
        if choice.clustered is not None and choice.clustered.by is not None:
            _column(found, ("estimate", "vcov", i), choice.clustered.by, units.columns)
    if len(found.problems) > before:
        return
    if found.attempt(design, lambda: trial.assignment(units)) is None:
        return
    known = units
    if study.estimate.missing_outcome == "drop":
        known = units[units[study.estimate.outcome].notna()]
    found.attempt(("estimate", "outcome"), lambda: outcome_of(known, study.estimate.outcome))
    names = study.estimate.covariates
    missing = study.estimate.missing_covariates
    covariates: Location = ("estimate", "covariates")
    found.attempt(covariates, lambda: complete_covariates(units, names, missing=missing))
    alpha = leakage_alpha(study)
    found.attempt(covariates, lambda: refuse_leaks(units, trial, names, alpha=alpha))
    if len(found.problems) == before:
        a = trial.assignment(units)
        found.facts.append(
            f"{len(units):,} units, {int(a.treated.sum()):,} treated, {a.n_clusters:,} clusters"
        )


def _column(found: Validation, where: Location, name: str, columns: Iterable[str]) -> None:
    known = [str(c) for c in columns]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        near = f"; closest: {close[0]}" if close else ""
        shown = ", ".join(known[:20]) + (" ..." if len(known) > 20 else "")
        found.add(where, f"the units table has no column {name!r}{near}; it has: {shown}")


def _look_at_links(found: Validation, units: pd.DataFrame, places: gpd.GeoDataFrame) -> None:
    linked = found.attempt(("data", "units", "neighborhood"), lambda: link(units, places))
    if linked is not None:
        used = linked[0]["neighborhood"].nunique()
        found.facts.append(f"{len(places):,} neighborhoods, {used:,} with units of the trial")


def _look_at_scenes(found: Validation, scenes: gpd.GeoDataFrame) -> None:
    image, trial = found.file.study.data.imagery, trial_of(found.file.study)
    present = sorted(set().union(*scenes["bands"]))
    wanted: list[tuple[Location, str]] = [
        (("data", "imagery", "bands", i), b) for i, b in enumerate(image.bands)
    ]
    if image.mask_band is not None:
        wanted.append((("data", "imagery", "mask_band"), image.mask_band))
    for where, band in wanted:
        if band not in present:
            close = difflib.get_close_matches(band, present, n=1)
            near = f"; closest: {close[0]}" if close else ""
            found.add(where, f"no image has a band {band!r}{near}; they have: {', '.join(present)}")
    if image.crs is not None:
        found.attempt(("data", "imagery", "crs"), partial(parse_crs, image.crs))
    before = len(found.problems)
    for i, label in enumerate(image.periods):
        found.attempt(("data", "imagery", "periods", i), partial(parse_period, label))
    if len(found.problems) == before:
        late = partial(refuse_late_scenes, scenes, image.periods, trial)
        found.attempt(("data", "imagery", "periods"), late)
    found.facts.append(f"{len(scenes):,} images with the bands {', '.join(present)}")
