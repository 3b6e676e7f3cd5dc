"""Read an evaluation's places, outcomes and projects; who was reached by which projects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.contracts import check_columns, some
from eocausal.errors import AlignmentError, DuplicateIdError, EmptyInputError, StudyError
from eocausal.placements import Exposure, Kind, Projects
from eocausal.provenance import Failure, FailureLedger
from eocausal.studies.assemble import as_labels, read_places, read_table
from eocausal.studies.evaluation_decisions import placement_of
from eocausal.studies.schema_evaluation import Evaluation

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = [
    "HISTORY",
    "OUTCOME_YEAR",
    "TREATMENT",
    "EvaluationTables",
    "assemble_evaluation",
    "read_evaluation_places",
    "read_projects",
    "units_of_kind",
    "with_coordinates",
    "year_column",
]

TREATMENT = "project"
ARMS = ("untreated", "treated")
OUTCOME_YEAR = "year of the outcome"
HISTORY = (
    "same-kind projects before (log)",
    "same-funder projects before (log)",
    "other-funder projects before (log)",
)
"""Columns with the logarithm of one plus the number of projects near that are history: of the
kind, of the funder in other sectors, of other funders."""


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationTables:
    """The tables of an evaluation.

    Attributes
    ----------
    places
        Every place, with the columns of the table of outcomes.
    units
        The places that are used, by their label, with ``lon`` and ``lat`` in degrees.
    projects
        Where and when they began.
    exposures
        Who was reached, for every kind of project.
    notes
        What was done to the tables, in sentences.
    ledger
        A row for every place left out.
    """

    places: gpd.GeoDataFrame
    units: pd.DataFrame
    projects: Projects
    exposures: tuple[Exposure, ...]
    notes: tuple[str, ...]
    ledger: FailureLedger

    def exposure(self, kind: Kind) -> Exposure:
        """Return who was reached by a kind of project.

        Raises
        ------
        StudyError
            If there is no such kind.
        """
        for exposure in self.exposures:
            if exposure.kind == kind:
                return exposure
        near = [e.kind for e in self.exposures if kind.sector == e.kind.sector]
        raise StudyError(
            f"There are no projects of {kind}.",
            cause=f"The table of projects has {some([str(k) for k in near or self.kinds], 8)}.",
            next_step="Name funder and sector as data.projects.names has them.",
        )

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """All kinds of projects."""
        return tuple(e.kind for e in self.exposures)


def read_evaluation_places(study: Evaluation) -> gpd.GeoDataFrame:
    """Read the neighborhoods with the columns of the table of outcomes, if there is one.

    Raises
    ------
    StudyError, MissingColumnError, DuplicateIdError, AlignmentError, EmptyInputError
    """
    places = read_places(study)
    section = study.data.outcomes
    if section is None:
        return places
    table = read_table(Path(study.data.root) / section.file)
    check_columns(table, [section.neighborhood, section.year], what="table of outcomes")
    keys = [section.neighborhood, section.year]
    if table.duplicated(keys).any():
        twice = table.loc[table.duplicated(keys), section.neighborhood].unique()
        raise DuplicateIdError(
            f"Some neighborhoods have several rows in one year: {some(twice)}.",
            cause="A neighborhood has one outcome in a year.",
            next_step="Keep one row, or the mean, per neighborhood and year.",
        )
    table = table.assign(**{section.neighborhood: as_labels(table[keys[0]], places.index)})
    wide = pd.DataFrame(table.set_index(keys).unstack())
    wide.columns = pd.Index(["_".join(map(str, pair)) for pair in wide.columns.to_flat_index()])
    if not wide.index.isin(places.index).any():
        raise AlignmentError(
            f"No neighborhood of the table of outcomes is among the places: {some(wide.index)}.",
            cause="Their labels differ.",
            next_step="Check data.outcomes.neighborhood and data.neighborhoods.id.",
        )
    taken = [c for c in wide.columns if c in places.columns]
    if taken:
        raise StudyError(
            f"The places have columns that the table of outcomes gives too: {some(taken)}.",
            cause="Which is meant cannot be told.",
            next_step="Rename them in the file of the neighborhoods.",
        )
    return places.join(wide)


def read_projects(study: Evaluation) -> Projects:
    """Read the table of projects.

    Raises
    ------
    StudyError, MissingColumnError, DesignError, EmptyInputError
    """
    section = study.data.projects
    table = read_table(Path(study.data.root) / section.file)
    return Projects.of(
        table, lon=section.lon, lat=section.lat, start=section.start, funder=section.funder,
        sector=section.sector, names=section.names,
    )  # fmt: skip


def year_column(study: Evaluation, columns: pd.Index) -> str:
    """Name the column with the year of the outcome."""
    year = study.design.placement.year
    return OUTCOME_YEAR if year not in columns and year.isdigit() else year


def with_coordinates(study: Evaluation, places: gpd.GeoDataFrame) -> pd.DataFrame:
    """Return places as a table with ``lon`` and ``lat`` of their centres, and the year."""
    centre = places.geometry.to_crs("EPSG:4326").representative_point()
    table = pd.DataFrame(places.drop(columns=places.geometry.name))
    table["lon"] = places.get("center_lon", centre.x)
    table["lat"] = places.get("center_lat", centre.y)
    if year_column(study, table.columns) == OUTCOME_YEAR:
        table[OUTCOME_YEAR] = int(study.design.placement.year)
    table.index = pd.Index(table.index.to_numpy(), name="unit")
    return table


def assemble_evaluation(study: Evaluation) -> EvaluationTables:
    """Read the tables, leave out places that lack something, and find who was reached.

    Raises
    ------
    EocausalError
        If a table is missing or broken, or its columns do not fit the study.
    """
    places = read_evaluation_places(study)
    units = with_coordinates(study, places)
    year = year_column(study, units.columns)
    within = study.design.placement.within
    needed = [study.estimate.outcome, year, *study.estimate.covariates]
    needed += [within] if within is not None else []
    needed = list(dict.fromkeys(needed))
    check_columns(units, needed, what="neighborhoods")
    units, notes, ledger = _complete(units, needed)
    projects = read_projects(study)
    placement = placement_of(study, year)
    exposures = tuple(placement.exposures(units, projects))
    return EvaluationTables(places, units, projects, exposures, tuple(notes), ledger)


def _complete(
    units: pd.DataFrame, needed: list[str]
) -> tuple[pd.DataFrame, list[str], FailureLedger]:
    """Leave out units that lack a value of a column that is needed."""
    ledger = FailureLedger()
    absent = units[needed].isna()
    lost = absent.any(axis=1)
    if not lost.any():
        return units, [], ledger
    if lost.all():
        raise EmptyInputError(
            "Every neighborhood lacks the outcome or a covariate.",
            cause=f"Missing values: {absent.sum().to_dict()}.",
            next_step="Check the columns, and the join of outcomes to neighborhoods.",
        )
    for label in units.index[lost]:
        why = ", ".join(absent.columns[absent.loc[label]])
        ledger.add(Failure("inputs", "unit", str(label), "value_missing", why))
    counts = absent.sum()
    shown = ", ".join(f"{name} {n:,}" for name, n in counts[counts > 0].items())
    note = f"{int(lost.sum()):,} places lack a value ({shown}) and are left out."
    return units[~lost], [note], ledger


def units_of_kind(
    tables: EvaluationTables, exposure: Exposure, *, history: bool
) -> tuple[pd.DataFrame, list[str]]:
    """Return the units that are compared for a kind of project, with treatment and history.

    Returns
    -------
    The table with the column ``project`` (``untreated`` or ``treated``), and the names of the
    columns of history that vary.
    """
    keep = exposure.compared
    columns = {TREATMENT: np.where(exposure.treated[keep], ARMS[1], ARMS[0])}
    counts = np.log1p(exposure.history[keep])
    if history:
        columns |= {n: counts[:, k] for k, n in enumerate(HISTORY) if np.ptp(counts[:, k]) > 0}
    return tables.units[keep].assign(**columns), [n for n in columns if n != TREATMENT]
