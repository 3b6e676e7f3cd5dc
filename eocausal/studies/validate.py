"""Check a study against its files before anything is computed; list every problem at once."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from eocausal.errors import EocausalError, StudyError
from eocausal.ingest.grid import parse_crs
from eocausal.ingest.times import ALL, parse_period
from eocausal.studies.assemble import (
    assemble,
    complete_covariates,
    link,
    read_places,
    read_units,
)
from eocausal.studies.decisions import (
    composite_of,
    masks_of,
    statistics_of,
    trial_of,
)
from eocausal.studies.embed import (
    check_description,
    check_training_folds,
    refuse_missing_labels,
)
from eocausal.studies.encoders import check_encoder
from eocausal.studies.evaluation_validate import look_at_evaluation, look_at_late_images
from eocausal.studies.impact_validate import look_at_impact
from eocausal.studies.inputs import source_of
from eocausal.studies.load import (
    EvaluationFile,
    ImpactFile,
    IngestFile,
    Location,
    OpenedFile,
    StudyFile,
    line_of,
    read_any,
)
from eocausal.studies.scenes import find_scenes, harmonized, periods_of, refuse_late_scenes
from eocausal.studies.schema import Study
from eocausal.studies.schema_imagery import ImagerySection, LooksSection
from eocausal.studies.stages import leakage_alpha

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

__all__ = ["Validation", "inspect", "inspect_study", "validate_study"]

T = TypeVar("T")


@dataclass(slots=True)
class Validation:
    """What was found while a study was checked.

    Attributes
    ----------
    opened
        The study.
    facts
        What is there, in sentences.
    problems
        What is wrong, with lines.
    units, places
        The tables, where they can be read.
    scenes, periods
        Those of ``imagery`` and ``panel``, where they can be read.
    """

    opened: OpenedFile
    facts: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    units: pd.DataFrame | None = None
    places: gpd.GeoDataFrame | None = None
    scenes: dict[str, gpd.GeoDataFrame] = field(default_factory=dict)
    periods: dict[str, list[str] | None] = field(default_factory=dict)

    @property
    def file(self) -> IngestFile:
        """The study, where it has places and imagery."""
        assert isinstance(self.opened, IngestFile)
        return self.opened

    @property
    def study(self) -> Study:
        """The study, where it is a whole one."""
        assert isinstance(self.file.study, Study)
        return self.file.study

    def add(self, where: Location, text: str) -> None:
        """Note a problem once."""
        problem = self.opened.problem(where, text)
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
    return inspect(read_any(path))


def inspect(file: IngestFile | ImpactFile) -> Validation:
    """Look at everything a study names; see :func:`inspect_study`."""
    found = Validation(file)
    if isinstance(file, ImpactFile):
        look_at_impact(found, file)
        return found
    if isinstance(found.file, StudyFile):
        _look_at_study(found, found.file)
    elif isinstance(found.file, EvaluationFile):
        look_at_evaluation(found, found.file)
        _look_at_sources(found)
        look_at_late_images(found, found.file.study)
    else:
        places = found.attempt(("data", "neighborhoods"), lambda: read_places(found.file.study))
        found.places = places
        if places is not None:
            found.facts.append(f"{len(places):,} neighborhoods")
        _look_at_sources(found)
    _look_at_embedding(found)
    return found


def _look_at_embedding(found: Validation) -> None:
    """Check what is to be encoded, learned and shown."""
    study, before = found.file.study, len(found.problems)
    periods = len(found.periods["imagery"] or [ALL]) if "imagery" in found.periods else None
    at: Location = ("data", "encoder")
    found.attempt(at, lambda: check_encoder(study.data, found.file.root, periods))
    found.attempt(at, lambda: refuse_missing_labels(study))
    if found.places is not None and (found.units is not None or not isinstance(study, Study)):
        places, units = found.places, found.units
        found.attempt(("embedding",), lambda: check_description(study, places, units))
    if isinstance(study, Study) and not before and len(found.problems) == before:
        found.attempt(at, lambda: check_training_folds(study, assemble(study)))


def _look_at_study(found: Validation, file: StudyFile) -> None:
    study = file.study
    found.units = found.attempt(("data", "units"), lambda: read_units(study))
    found.places = found.attempt(("data", "neighborhoods"), lambda: read_places(study))
    if found.units is not None:
        _look_at_columns(found, found.units)
    if found.units is not None and found.places is not None:
        _look_at_links(found, found.units, found.places)
    _look_at_sources(found)
    if "imagery" in found.scenes and "imagery" in found.periods:
        scenes, periods = found.scenes["imagery"], found.periods["imagery"] or [ALL]
        late = partial(refuse_late_scenes, scenes, periods, trial_of(study))
        found.attempt(("data", "imagery", "periods"), late)
    truth = study.report.truth
    if truth is not None and not (file.root / truth).is_file():
        found.add(("report", "truth"), f"there is no file {file.root / truth}")


def _look_at_columns(found: Validation, units: pd.DataFrame) -> None:
    from eocausal.checks.leakage import refuse_leaks
    from eocausal.estimators.randomized import outcome_of

    study, trial = found.study, trial_of(found.study)
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


def _look_at_sources(found: Validation) -> None:
    from eocausal.ingest.schedule import read_scheduler

    data = found.file.study.data
    found.attempt(("data", "scheduler"), lambda: read_scheduler(data.scheduler))
    sections: dict[str, LooksSection | None] = {"imagery": data.imagery, "panel": data.panel}
    for name, section in sections.items():
        if section is None:
            continue
        if name == "panel" and source_of(data, name) is data.imagery:
            if "imagery" not in found.scenes:
                continue
            scenes: gpd.GeoDataFrame | None = found.scenes["imagery"]
        else:
            scenes = found.attempt(("data", name), partial(find_scenes, found.file, name))
        if scenes is None:
            continue
        scenes = found.attempt(("data", name, "harmonize"), partial(harmonized, scenes, section))
        if scenes is not None:
            found.scenes[name] = scenes
            _look_at_looks(found, name, section, scenes)


def _look_at_looks(
    found: Validation, name: str, section: LooksSection, scenes: gpd.GeoDataFrame
) -> None:
    """Check what is to be made of the scenes against the bands and dates that they have."""
    at: Location = ("data", name)
    present = sorted(set().union(*scenes["bands"]))
    for where, band in _wanted(found, at, section):
        if band not in present:
            close = difflib.get_close_matches(band, present, n=1)
            near = f"; closest: {close[0]}" if close else ""
            found.add(where, f"no image has a band {band!r}{near}; they have: {', '.join(present)}")
    composite = getattr(section, "composite", None)
    found.attempt((*at, "composite"), lambda: composite_of(composite))
    if isinstance(section, ImagerySection) and section.crs is not None:
        found.attempt((*at, "crs"), partial(parse_crs, section.crs))
    statistics = getattr(section, "statistics", ())
    found.attempt((*at, "statistics"), lambda: statistics_of(statistics))
    before = len(found.problems)
    section_periods = getattr(section, "periods", None)
    periods = found.attempt((*at, "periods"), partial(periods_of, section_periods, scenes))
    for i, label in enumerate(periods or ()):
        found.attempt((*at, "periods", i), partial(parse_period, label))
    if len(found.problems) == before:
        found.periods[name] = periods
    if section.sources:
        files = scenes["href"].nunique()
        steps = f" with {len(scenes):,} steps" if len(scenes) > files else ""
        what = "image" if name == "imagery" else "panel file"
        plural = "" if files == 1 else "s"
        found.facts.append(f"{files:,} {what}{plural}{steps}; bands {', '.join(present)}")


def _wanted(
    found: Validation, at: Location, section: LooksSection
) -> Iterator[tuple[Location, str]]:
    """Yield where each band is asked for: bands, those of indices, those of masks."""
    from eocausal.ingest.indices import index

    for i, band in enumerate(section.bands):
        where: Location = (*at, "bands", i)
        if "=" not in band:
            yield where, band
            continue
        derived = found.attempt(where, partial(index, band))
        for name in sorted(derived.bands) if derived is not None else ():
            yield where, name
    for mask in found.attempt((*at, "mask"), partial(masks_of, section.mask)) or ():
        yield (*at, "mask"), mask.band
