"""The series of a study of an event: outcome, controls and those that play the treated role."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from eocausal.errors import AlignmentError, DuplicateIdError, OutcomeError, StudyError
from eocausal.ocean.units import per_metre as as_attenuation
from eocausal.provenance import Failure, FailureLedger
from eocausal.studies.assemble import read_table
from eocausal.studies.impact_rules import control_name, per_metre
from eocausal.studies.impact_zones import (
    Grid,
    open_grid_series,
    outside_zones,
    zone_pixels,
    zone_series,
)
from eocausal.studies.schema_impact import ImpactStudy, TableSection

__all__ = ["OUTCOME", "SEEN", "Series", "Sources", "candidate_series", "read_series"]

OUTCOME, SEEN = "outcome", "seen"
LEAST_PIXEL = 0.5
"""Share of times at which a pixel that takes the treated role is seen."""


@dataclass(slots=True)
class Sources:
    """Tables and grids of a study, each read once.

    Attributes
    ----------
    study
        The study.
    root
        Folder of the files.
    """

    study: ImpactStudy
    root: Path
    _tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    _grids: dict[str, Grid] = field(default_factory=dict)

    def table(self, name: str) -> pd.DataFrame:
        """Return a table by its dates."""
        if name not in self._tables:
            section = self.study.data.tables[name]
            self._tables[name] = _by_date(read_table(self.root / section.file), section)
        return self._tables[name]

    def grid(self, name: str) -> Grid:
        """Return a grid."""
        if name not in self._grids:
            section = self.study.data.grids[name]
            self._grids[name] = open_grid_series(self.root / section.file, section)
        return self._grids[name]

    def pixels(self, name: str) -> pd.DataFrame:
        """Return the pixels of a grid that lie in none of its zones and are seen often enough.

        Returns
        -------
        DataFrame
            A column for each, named by latitude and longitude.
        """
        section, grid = self.study.data.grids[name], self.grid(name)
        inside = [zone_pixels(grid, zone, self.root) for zone in section.zones.values()]
        return _monthly(outside_zones(grid, np.logical_or.reduce(inside), LEAST_PIXEL))

    def series(self, reference: str) -> pd.DataFrame:
        """Return ``value`` and ``seen`` of a series by time; ``seen`` is one for tables.

        Raises
        ------
        StudyError, OutcomeError
            If it is not there or no number.
        """
        source, _, column = reference.partition(".")
        if source in self.study.data.tables:
            return _monthly(_column(self.table(source), source, column))
        section, grid = self.study.data.grids[source], self.grid(source)
        inside = zone_pixels(grid, section.zones[column], self.root)
        return _monthly(zone_series(grid, inside, section.least_seen))


def _by_date(table: pd.DataFrame, section: TableSection) -> pd.DataFrame:
    if section.time not in table:
        raise StudyError(
            f"The table {section.file} has no column {section.time!r}.",
            cause=f"It has: {', '.join(map(str, table.columns))}.",
            next_step="Name the column with dates in time.",
        )
    raw = table[section.time]
    text = raw.astype(str) if pd.api.types.is_integer_dtype(raw) else raw
    times = pd.to_datetime(text, errors="coerce")
    wrong = times.isna()
    if wrong.any():
        raise AlignmentError(
            f"{int(wrong.sum())} dates of {section.file} cannot be read, such as "
            f"{raw[wrong].iloc[0]!r}.",
            cause="Dates are ISO: 2019-05-01, 2019-05 or 2019.",
            next_step="Correct the column, or name another one in time.",
        )
    twice = times[times.duplicated()]
    if len(twice):
        raise DuplicateIdError(
            f"{len(twice)} dates of {section.file} occur twice, such as {twice.iloc[0]:%Y-%m-%d}.",
            cause="A series has one value at a time.",
            next_step="Average them, or correct the dates.",
        )
    found = table.drop(columns=section.time).set_axis(pd.DatetimeIndex(times), axis=0)
    return found.sort_index().rename_axis("time")


def _column(table: pd.DataFrame, source: str, column: str) -> pd.DataFrame:
    if column not in table:
        raise StudyError(
            f"The table {source} has no column {column!r}.",
            cause=f"It has: {', '.join(map(str, table.columns))}.",
            next_step=f"Write one of these after {source}.",
        )
    value = pd.to_numeric(table[column], errors="coerce")
    text = value.isna() & table[column].notna()
    if text.any():
        raise OutcomeError(
            f"{int(text.sum())} values of {source}.{column} are no numbers, such as "
            f"{table.loc[text, column].iloc[0]!r}.",
            cause="A series is of numbers; leave a cell empty where there is none.",
            next_step="Correct the table.",
        )
    value = value.astype(float).replace([np.inf, -np.inf], np.nan)
    return pd.DataFrame({"value": value, "seen": value.notna().astype(float)})


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """What is estimated from.

    Attributes
    ----------
    frame
        By time: ``outcome``, ``seen`` (share of the outcome's zone), and a column per control.
    ledger
        A row for every time without an outcome or a control.
    """

    frame: pd.DataFrame
    ledger: FailureLedger

    @property
    def outcome(self) -> pd.Series[float]:
        """The outcome."""
        return self.frame[OUTCOME]

    @property
    def controls(self) -> list[str]:
        """Names of the controls."""
        return [str(c) for c in self.frame.columns if c not in (OUTCOME, SEEN)]


def read_series(study: ImpactStudy, sources: Sources) -> Series:
    """Read outcome and controls, in their units, on the outcome's dates.

    Raises
    ------
    StudyError, OutcomeError, AlignmentError, DuplicateIdError
        If one is not there, has no date in common, or the outcome's unit cannot be right.
    """
    found = sources.series(study.outcome.series)
    frame = pd.DataFrame({OUTCOME: found["value"] * study.outcome.factor, SEEN: found["seen"]})
    for control in study.controls:
        name = control_name(control.series, control.name)
        values = sources.series(control.series)["value"] * control.factor
        if not values.index.isin(frame.index).any():
            raise AlignmentError(
                f"The control {name} has no date in common with the outcome.",
                cause="They are matched by date.",
                next_step="Give both the same dates, such as the first day of each month.",
            )
        frame[name] = values.reindex(frame.index)
    _check_scale(study, frame[OUTCOME])
    return Series(frame, _missing(frame))


def _monthly(frame: pd.DataFrame) -> pd.DataFrame:
    """Date a monthly series by the first of each month, and give every month a row."""
    times = pd.DatetimeIndex(frame.index)
    steps = np.diff(times.to_numpy()) / np.timedelta64(1, "D")
    if len(steps) < 2 or steps.min() < 27 or not 27 <= np.median(steps) <= 32:
        return frame
    months = times.to_period("M")
    if not months.is_unique:
        return frame
    every = pd.period_range(months[0], months[-1], freq="M")
    found = frame.set_axis(months, axis=0).reindex(every)
    if "seen" in found:
        found["seen"] = found["seen"].fillna(0.0)
    return found.set_axis(every.to_timestamp(), axis=0).rename_axis("time")


def candidate_series(study: ImpactStudy, sources: Sources, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the series that take the treated role, on the dates of ``frame``.

    Those that ``checks.in_space`` names; controls of the outcome's record if it names none.
    """
    section = study.checks.in_space
    if section is None or not section.series:
        names = [control_name(c.series, c.name) for c in study.controls if c.same_record]
        return frame[names] if section is not None else frame.iloc[:, :0]
    parts = []
    for reference in section.series:
        source, _, column = reference.partition(".")
        if column == "*":
            parts.append(sources.pixels(source))
        else:
            parts.append(sources.series(reference)["value"].rename(reference).to_frame())
    return pd.concat([p.reindex(frame.index) for p in parts], axis=1) * study.outcome.factor


def _check_scale(study: ImpactStudy, outcome: pd.Series[float]) -> None:
    """Refuse Kd490 that no water has."""
    scale = per_metre(study)
    if study.optics is None or scale is None:
        return
    try:
        as_attenuation(np.asarray(outcome, dtype=np.float64) * scale, what=study.outcome.series)
    except OutcomeError as error:
        raise OutcomeError(
            f"{error.fact.rstrip('.')} ({study.outcome.units}).",
            cause=error.cause,
            next_step="Correct outcome.factor, outcome.units or optics.per_metre.",
        ) from error


def _missing(frame: pd.DataFrame) -> FailureLedger:
    ledger = FailureLedger()
    for name in [c for c in frame.columns if c != SEEN]:
        for time in frame.index[frame[name].isna()]:
            reason = "no_value" if name == OUTCOME else "no_control"
            detail = "" if name == OUTCOME else name
            ledger.add(Failure("series", "time", f"{time:%Y-%m-%d}", reason, detail))
    return ledger
