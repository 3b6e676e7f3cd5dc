"""Check an evaluation against its files before anything is computed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from eocausal.errors import StudyError
from eocausal.ingest.times import ALL
from eocausal.placements import Kind
from eocausal.studies.evaluation_decisions import first_projects
from eocausal.studies.evaluation_tables import (
    OUTCOME_YEAR,
    EvaluationTables,
    assemble_evaluation,
    read_evaluation_places,
    read_projects,
    with_coordinates,
    year_column,
)
from eocausal.studies.scenes import refuse_late_scenes

if TYPE_CHECKING:
    from eocausal.studies.load import EvaluationFile, Location
    from eocausal.studies.schema_evaluation import Evaluation
    from eocausal.studies.validate import Validation

__all__ = ["look_at_evaluation", "look_at_late_images"]


def look_at_evaluation(found: Validation, file: EvaluationFile) -> EvaluationTables | None:
    """Look at the tables of an evaluation; problems and facts are noted.

    Returns
    -------
    The tables, if nothing is wrong with them.
    """
    study = file.study
    before = len(found.problems)
    places = found.attempt(("data", "neighborhoods"), partial(read_evaluation_places, study))
    found.places = places
    found.attempt(("data", "projects"), partial(read_projects, study))
    if places is not None:
        table = with_coordinates(study, places)
        columns = [c for c in table.columns if c != OUTCOME_YEAR]
        for where, name in _named(study):
            _column(found, where, name, columns)
        outcome = study.estimate.outcome
        if outcome in table and not pd.api.types.is_numeric_dtype(table[outcome]):
            found.add(("estimate", "outcome"), f"{outcome!r} is not a number")
        _years(found, study, table)
    truth = study.report.truth
    if truth is not None and not (file.root / truth).is_file():
        found.add(("report", "truth"), f"there is no file {file.root / truth}")
    if len(found.problems) > before:
        return None
    tables = found.attempt(("design", "placement"), partial(assemble_evaluation, study))
    if tables is not None:
        _look_at_kinds(found, study, tables)
    return tables


def _named(study: Evaluation) -> Iterator[tuple[Location, str]]:
    """Yield every column of the neighborhoods that the study names, with where it does."""
    placement, estimate, checks = study.design.placement, study.estimate, study.checks
    if not placement.year.isdigit():
        yield ("design", "placement", "year"), placement.year
    if placement.within is not None:
        yield ("design", "placement", "within"), placement.within
    yield ("estimate", "outcome"), estimate.outcome
    for i, name in enumerate(estimate.covariates):
        yield ("estimate", "covariates", i), name
    if estimate.correct is not None:
        for i, name in enumerate(estimate.correct.predictions):
            yield ("estimate", "correct", "predictions", i), name
    for i, name in enumerate(checks.placebo):
        yield ("checks", "placebo", i), name
    if checks.leave_out is not None:
        yield ("checks", "leave_out"), checks.leave_out


def _column(found: Validation, where: Location, name: str, columns: Iterable[str]) -> None:
    known = [str(c) for c in columns]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        near = f"; closest: {close[0]}" if close else ""
        shown = ", ".join(known[:20]) + (" ..." if len(known) > 20 else "")
        found.add(where, f"the neighborhoods have no column {name!r}{near}; they have: {shown}")


def _years(found: Validation, study: Evaluation, table: pd.DataFrame) -> None:
    name = year_column(study, table.columns)
    if name not in table:
        return
    years = pd.to_numeric(table[name], errors="coerce")
    if years.notna().any() and not years.dropna().between(1900, 2200).all():
        found.add(
            ("design", "placement", "year"),
            f"{name!r} holds {years.min():g} to {years.max():g}, which are no years",
        )


def _look_at_kinds(found: Validation, study: Evaluation, tables: EvaluationTables) -> None:
    """Say how many kinds there are, and whether the headline and any other can be estimated."""
    p, kinds = study.design.placement, tables.exposures
    treated = {e.kind: int((e.treated & e.compared).sum()) for e in kinds}
    enough = [k for k, n in treated.items() if n >= p.fewest]
    found.facts.append(
        f"{len(tables.units):,} neighborhoods with all values, {len(tables.projects.lon):,} "
        f"projects of {len(kinds)} kinds; {len(enough)} kinds reached {p.fewest:,} neighborhoods "
        "or more"
    )
    if not enough:
        most = max(treated.values(), default=0)
        found.add(
            ("design", "placement"),
            f"no kind of project reached {p.fewest:,} neighborhoods (fewest); the most is {most:,}",
        )
    if study.estimate.headline is None:
        return
    wanted = Kind(study.estimate.headline.funder, study.estimate.headline.sector)
    try:
        tables.exposure(wanted)
    except StudyError as error:
        names = [str(k) for k in tables.kinds]
        close = difflib.get_close_matches(str(wanted), names, n=1)
        near = f"; closest: {close[0]}" if close else ""
        found.add(("estimate", "headline"), f"{error.fact.rstrip('.')}{near}")
        return
    if treated[wanted] < p.fewest:
        found.add(
            ("estimate", "headline"),
            f"{wanted} reached {treated[wanted]:,} neighborhoods, fewer than {p.fewest:,} (fewest)",
        )


def look_at_late_images(found: Validation, study: Evaluation) -> None:
    """Refuse images that are not older than the first project that counts."""
    if "imagery" in found.scenes and "imagery" in found.periods:
        scenes, periods = found.scenes["imagery"], found.periods["imagery"] or [ALL]
        late = partial(refuse_late_scenes, scenes, periods, first_projects(study))
        found.attempt(("data", "imagery", "periods"), late)
