"""Read a study's tables, link units to places, and make the covariates complete numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eocausal.contracts import check_columns, check_same_neighborhoods, codes, some
from eocausal.errors import (
    AlignmentError,
    DuplicateIdError,
    EmptyInputError,
    EstimationError,
    StudyError,
)
from eocausal.provenance import Failure, FailureLedger
from eocausal.studies.decisions import trial_of
from eocausal.studies.schema import Ingestion, Study

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = [
    "StudyTables",
    "as_labels",
    "assemble",
    "complete_covariates",
    "group_column",
    "link",
    "read_places",
    "read_table",
    "read_units",
]

MOST_LEVELS = 30
GROUP = "fold_group"


@dataclass(frozen=True, slots=True, eq=False)
class StudyTables:
    """The tables of a study, ready for estimation.

    Attributes
    ----------
    raw
        Every unit as it was read, with a unique index and the column ``neighborhood``.
    units
        The units that are used; their covariates are complete numbers.
    places
        Every place, in the trial or not.
    covariates
        Numeric, complete columns of ``units`` that stand for the study's covariates.
    group
        Column whose groups must not be split between folds.
    notes
        What was done to the table, in sentences.
    ledger
        A row for every unit left out.
    """

    raw: pd.DataFrame
    units: pd.DataFrame
    places: gpd.GeoDataFrame
    covariates: tuple[str, ...]
    group: str
    notes: tuple[str, ...]
    ledger: FailureLedger


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV, TSV, Parquet or Stata table.

    Raises
    ------
    StudyError
        If the file is missing, of another kind, or broken.
    EmptyInputError
        If it has no rows.
    """
    readers: dict[str, Any] = {
        ".csv": pd.read_csv,
        ".tsv": lambda p: pd.read_csv(p, sep="\t"),
        ".parquet": pd.read_parquet,
        ".dta": lambda p: pd.read_stata(p, convert_categoricals=False),
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise StudyError(
            f"The table {path} is of the kind {path.suffix or 'without suffix'!r}.",
            cause=f"Known are {', '.join(readers)}.",
            next_step="Save it as CSV.",
        )
    try:
        table = reader(path)
    except FileNotFoundError as error:
        raise StudyError(
            f"There is no table {path}.",
            cause="The file does not exist.",
            next_step="Check the path; in a study it is relative to data.root.",
        ) from error
    except (ValueError, OSError) as error:
        raise StudyError(
            f"The table {path} cannot be read.",
            cause=f"{' '.join(str(error).split())}.",
            next_step="Check that it is whole and of the kind its suffix says.",
        ) from error
    if len(table) == 0:
        raise EmptyInputError(
            f"The table {path} has no rows.",
            cause="There is nothing to estimate from.",
            next_step="Check the file.",
        )
    return pd.DataFrame(table)


def read_units(study: Study) -> pd.DataFrame:
    """Read the units with their id as index and their place in the column ``neighborhood``.

    Raises
    ------
    MissingColumnError, DuplicateIdError, StudyError, EmptyInputError, AlignmentError
    """
    section = study.data.units
    table = read_table(Path(study.data.root) / section.file)
    named = [section.id, section.neighborhood]
    check_columns(table, [c for c in named if c is not None], what="units table")
    if section.id is not None:
        repeated = table[section.id][table[section.id].duplicated()].unique()
        if len(repeated) or table[section.id].isna().any():
            raise DuplicateIdError(
                f"{len(repeated)} ids of {section.id!r} occur more than once: {some(repeated)}."
                if len(repeated)
                else f"Some units have no {section.id!r}.",
                cause="A unit could not be told from another.",
                next_step="Make the id unique, or leave data.units.id out to number the rows.",
            )
        table = table.set_index(section.id, drop=False)
    table.index.name = "unit"
    place = table[section.neighborhood]
    if place.isna().any():
        raise AlignmentError(
            f"{int(place.isna().sum())} units have no {section.neighborhood!r}: "
            f"{some(table.index[place.isna()])}.",
            cause="Their place, and so their image, is unknown.",
            next_step="Complete the column, or take these units out of the table.",
        )
    _refuse_taken_names(study, table)
    return table.assign(neighborhood=place)


def _refuse_taken_names(study: Study, table: pd.DataFrame) -> None:
    """Refuse a column of the study that the place or the coordinates of units would replace."""
    section, estimate = study.data.units, study.estimate
    by = {c.clustered.by for c in estimate.vcov if c.clustered is not None}
    used = {*trial_of(study).columns, estimate.outcome, *estimate.covariates, *by}
    given = {"neighborhood": section.neighborhood, "lon": section.lon, "lat": section.lat}
    for name, column in given.items():
        if name in used and name in table and name != column:
            raise StudyError(
                f"The study uses the column {name!r} of the units table, but data.units.{name} "
                f"is {column!r}.",
                cause=f"{name!r} is the name of that column wherever units and places are joined.",
                next_step=f"Give the column {name!r} another name in the table and the study.",
            )


def read_places(study: Ingestion) -> gpd.GeoDataFrame:
    """Read the neighborhoods of a study."""
    from eocausal.ingest.places import read_neighborhoods

    n = study.data.neighborhoods
    return read_neighborhoods(
        Path(study.data.root) / n.file,
        id=n.id, x=n.x, y=n.y, size_m=n.size_m, crs=n.crs, layer=n.layer,
    )  # fmt: skip


def link(
    units: pd.DataFrame, places: gpd.GeoDataFrame, *, lon: str = "lon", lat: str = "lat"
) -> tuple[pd.DataFrame, gpd.GeoDataFrame]:
    """Give units and places the same labels, and units a ``lon`` and ``lat`` in degrees.

    Labels of different types (7 in a CSV, ``"007"`` in a GeoPackage) are compared as text, then
    as numbers; the places keep theirs. Units without coordinates of their own get those of their
    place.

    Raises
    ------
    AlignmentError
        If a unit's place is not among the places.
    """
    number = pd.api.types.is_numeric_dtype
    if number(units["neighborhood"]) != number(places.index):
        units = units.assign(neighborhood=as_labels(units["neighborhood"], places.index))
    check_same_neighborhoods(
        pd.Index(units["neighborhood"].unique()), places.index, what="table of neighborhoods"
    )
    centre = places.geometry.to_crs("EPSG:4326").representative_point()
    for name, column, values in (("lon", lon, centre.x), ("lat", lat, centre.y)):
        own = units["neighborhood"].map(values)
        if column in units:
            own = pd.to_numeric(units[column], errors="coerce").fillna(own)
        units = units.assign(**{name: own})
    return units, places


def as_labels(values: pd.Series, places: pd.Index) -> pd.Series:
    """Replace values by the labels of places that read the same, or are the same number."""
    text = {str(label): label for label in places}
    numbers = [_as_number(label) for label in places]
    count = Counter(numbers)
    same = {n: p for n, p in zip(numbers, places, strict=True) if count[n] == 1}
    same.pop(None, None)
    found = {v: text.get(str(v), same.get(_as_number(v), v)) for v in values.unique()}
    return pd.Series([found[v] for v in values], index=values.index)


def _as_number(label: Any) -> Decimal | None:
    try:
        number = Decimal(str(label))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def group_column(units: pd.DataFrame, cluster: str | None) -> tuple[pd.DataFrame, str]:
    """Find what must stay together in a fold: units that share a cluster or an image.

    Returns
    -------
    The table, and the column to group by: the cluster or ``neighborhood`` where one contains the
    other, else a new column with the connected parts of the two.
    """
    place = codes(units["neighborhood"], "neighborhood")
    if cluster is None:
        return units, "neighborhood"
    own = codes(units[cluster], cluster)
    pairs = len(np.unique(np.stack([own, place], axis=1), axis=0))
    if pairs == place.max() + 1:
        return units, cluster
    if pairs == own.max() + 1:
        return units, "neighborhood"
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    size = int(own.max() + place.max() + 2)
    graph = coo_matrix((np.ones(len(own)), (own, place + own.max() + 1)), shape=(size, size))
    part = connected_components(graph, directed=False)[1][own]
    return units.assign(**{GROUP: part}), GROUP


def complete_covariates(
    units: pd.DataFrame, names: Sequence[str], *, missing: str
) -> tuple[pd.DataFrame, tuple[str, ...], tuple[str, ...], FailureLedger]:
    """Turn covariates into complete numeric columns.

    Text and categories become indicators of all levels but the first; dates become days. With
    ``missing='impute'`` a missing value becomes the mean and an indicator of missingness is added,
    which keeps a randomized comparison unbiased (Zhao & Ding 2024, JASA 119); with ``'drop'`` the
    unit is left out and recorded; with ``'refuse'`` it is an error.

    Returns
    -------
    The units kept, with the new columns; the columns' names; what was done, in sentences; the
    ledger of units left out.

    Raises
    ------
    EstimationError
        If values are missing and that is refused, or a category has more than 30 levels.
    """
    check_columns(units, names, what="units table")
    ledger, notes = FailureLedger(), []
    absent = units[list(names)].isna()
    if missing == "refuse" and absent.to_numpy().any():
        counts = absent.sum()
        shown = ", ".join(f"{n} of {c!r}" for c, n in counts[counts > 0].items())
        raise EstimationError(
            f"Values of covariates are missing: {shown}.",
            cause="The study refuses missing covariates.",
            next_step="Set estimate.missing_covariates to impute or drop.",
        )
    if missing == "drop" and absent.to_numpy().any():
        lost = absent.any(axis=1)
        for label in units.index[lost]:
            why = ", ".join(absent.columns[absent.loc[label]])
            ledger.add(Failure("units", "unit", str(label), "covariate_missing", why))
        notes.append(f"{int(lost.sum())} units with a missing covariate are left out.")
        units, absent = units[~lost], absent[~lost]
    new: dict[str, pd.Series] = {}
    for name in names:
        new.update(_numeric(units[name]))
        if absent[name].any():
            new[f"{name} missing"] = absent[name].astype(float)
            notes.append(
                f"{int(absent[name].sum())} missing values of {name} are replaced by the mean, "
                "with an indicator."
            )
    units = units.assign(**{k: v.fillna(v.mean()) for k, v in new.items()})
    return units, tuple(new), tuple(notes), ledger


def _numeric(values: pd.Series) -> dict[str, pd.Series]:
    name = str(values.name)
    if pd.api.types.is_datetime64_any_dtype(values):
        return {name: (values - values.min()).dt.total_seconds() / 86400.0}
    if pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return {name: values.astype(float)}
    levels = sorted(values.dropna().unique(), key=str)
    if len(levels) > MOST_LEVELS:
        raise EstimationError(
            f"The covariate {name!r} has {len(levels)} levels: {some(levels)}.",
            cause=f"More than {MOST_LEVELS} indicators would use up the data.",
            next_step="Merge levels, or leave it out.",
        )
    return {
        f"{name}={level}": (values == level).astype(float).where(values.notna())
        for level in levels[1:]
    }


def assemble(study: Study) -> StudyTables:
    """Read and complete the tables of a study.

    Raises
    ------
    EocausalError
        If a table is missing or broken, or its columns do not fit the study.
    """
    section, estimate = study.data.units, study.estimate
    raw, places = link(read_units(study), read_places(study), lon=section.lon, lat=section.lat)
    units = raw
    trial = trial_of(study)
    check_columns(units, [*trial.columns, estimate.outcome], what="units table")
    notes: list[str] = []
    ledger = FailureLedger()
    unknown = units[estimate.outcome].isna()
    if unknown.any() and estimate.missing_outcome == "drop":
        for label in units.index[unknown]:
            ledger.add(Failure("units", "unit", str(label), "outcome_missing", estimate.outcome))
        notes.append(f"{int(unknown.sum())} units without an outcome are left out.")
        units = units[~unknown]
    units, covariates, done, dropped = complete_covariates(
        units, estimate.covariates, missing=estimate.missing_covariates
    )
    ledger.rows.extend(dropped.rows)
    units, group = group_column(units, trial.cluster)
    return StudyTables(raw, units, places, covariates, group, (*notes, *done), ledger)
