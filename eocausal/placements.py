"""Projects on a map become treatments of neighborhoods: which, when, how near.

A placement design says which projects count for a neighborhood: near enough, begun late enough to
be treatment and early enough to have had time to work. Everything before is history, and may be
adjusted for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from eocausal.contracts import check_columns, some
from eocausal.designs import parse_date
from eocausal.errors import DesignError
from eocausal.folds import EARTH_RADIUS_KM

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Exposure", "Kind", "Placement", "Projects", "near_pairs"]


@dataclass(frozen=True, slots=True, order=True)
class Kind:
    """A kind of project that is evaluated: a funder's projects of a sector."""

    funder: str
    sector: str

    def __str__(self) -> str:
        return f"{self.funder}, {self.sector}"


@dataclass(frozen=True, slots=True, eq=False)
class Projects:
    """Locations of projects as arrays.

    Attributes
    ----------
    lon, lat
        (m,) degrees.
    start
        (m,) dates of begin.
    kind
        (m,) codes into ``kinds``.
    kinds
        Funder and sector of each code.
    """

    lon: NDArray[np.float64]
    lat: NDArray[np.float64]
    start: NDArray[np.datetime64]
    kind: NDArray[np.int64]
    kinds: tuple[Kind, ...]

    @classmethod
    def of(
        cls,
        table: pd.DataFrame,
        *,
        lon: str = "lon",
        lat: str = "lat",
        start: str = "start",
        funder: str | None = "funder",
        sector: str | None = "sector",
        names: Mapping[str, str] | None = None,
    ) -> Projects:
        """Read a table with one row per location of a project.

        Parameters
        ----------
        lon, lat, start, funder, sector
            Columns; ``start`` is a date, or a year. Without a column of funders (sectors) all
            projects have one, called ``all funders`` (``all sectors``).
        names
            Readable names of funders and sectors by the table's own.

        Raises
        ------
        DesignError
            If a position or a date is missing or impossible.
        MissingColumnError
        """
        named = [lon, lat, start, *(c for c in (funder, sector) if c is not None)]
        check_columns(table, named, what="table of projects")
        x, y = (pd.to_numeric(table[c], errors="coerce").to_numpy(float) for c in (lon, lat))
        when = table[start]
        if pd.api.types.is_numeric_dtype(when):
            when = when.astype("Int64").astype("string")
        date = pd.to_datetime(when, errors="coerce", format="ISO8601")
        lost = ~((np.abs(x) <= 180) & (np.abs(y) <= 90)) | date.isna().to_numpy()
        if lost.any():
            raise DesignError(
                f"{int(lost.sum())} projects have no position or no date: "
                f"{some(table.index[lost])}.",
                cause="Whom they could have reached, and when, is unknown.",
                next_step="Complete these rows or take them out of the table.",
            )
        known = dict(names or {})
        columns = [
            [known.get(str(v), str(v)) for v in ([none] * len(table) if c is None else table[c])]
            for c, none in ((funder, "all funders"), (sector, "all sectors"))
        ]
        pairs = [Kind(f, s) for f, s in zip(*columns, strict=True)]
        kinds = tuple(sorted(set(pairs)))
        at = {kind: k for k, kind in enumerate(kinds)}
        return cls(
            x, y, date.to_numpy("datetime64[D]"), np.array([at[p] for p in pairs]), kinds
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Exposure:
    """Who was treated by a kind of project, who was not, and who is neither.

    Attributes
    ----------
    kind
        Funder and sector.
    treated
        (n,) True where a project counts as treatment.
    compared
        (n,) True where the unit is treated or may stand for untreated ones.
    recent, near, abroad
        Units left out: a project began too shortly before the outcome; one lies within the donut
        but not near; the funder has no such project in the unit's country.
    history
        (n, 3) numbers of projects near that began before: of this kind, of this funder in other
        sectors, of other funders.
    """

    kind: Kind
    treated: NDArray[np.bool_]
    compared: NDArray[np.bool_]
    recent: int
    near: int
    abroad: int
    history: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Placement:
    """A design for projects that were placed: which count as treatment of a neighborhood.

    Parameters
    ----------
    year
        Column with the year in which the outcome was measured.
    first
        ISO date: projects that began before are history, not treatment.
    within_km
        A neighborhood is reached by projects within this distance of its centre.
    years_before
        Whole years that must lie between a project's begin and the outcome. Units reached only by
        a later one, up to the year of the outcome, are neither treated nor untreated.
    donut_km
        Units with such a project within this distance, but not within ``within_km``, are left out
        too, since it may reach them. None: they stay.
    within
        Column (country): only units are compared where the funder has such a project somewhere in
        the same country. None: all.
    """

    year: str
    first: str
    within_km: float = 25.0
    years_before: int = 1
    donut_km: float | None = None
    within: str | None = None

    def __post_init__(self) -> None:
        parse_date(self.first, what="first")
        if not self.within_km > 0 or self.years_before < 0:
            raise DesignError(
                f"Projects within {self.within_km} km and {self.years_before} years before count.",
                cause="A distance must be positive, and a treatment begins before its outcome.",
                next_step="Give e.g. within_km=25, years_before=1.",
            )
        if self.donut_km is not None and self.donut_km <= self.within_km:
            raise DesignError(
                f"The donut ends at {self.donut_km} km, and treatment at {self.within_km} km.",
                cause="The donut lies outside of what counts as treated.",
                next_step="Give a larger donut_km, or leave it out.",
            )

    def exposures(
        self, units: pd.DataFrame, projects: Projects, *, lon: str = "lon", lat: str = "lat"
    ) -> Iterator[Exposure]:
        """Yield the exposure of units to every kind of project.

        Parameters
        ----------
        units
            One row per neighborhood, with coordinates in degrees, the year of the outcome, and the
            column ``within`` if there is one.
        projects
            Where projects are and when they began.

        Raises
        ------
        MissingColumnError, DesignError
        """
        check_columns(
            units, [lon, lat, self.year, *([self.within] if self.within else [])], what="units"
        )
        x, y = units[lon].to_numpy(float), units[lat].to_numpy(float)
        reach = max(self.within_km, self.donut_km or 0.0)
        unit, project, km = near_pairs(x, y, projects.lon, projects.lat, reach)
        begun = projects.start.astype("datetime64[Y]").astype(np.int64) + 1970
        gap = units[self.year].to_numpy(np.int64)[unit] - begun[project]
        late = projects.start[project] >= np.datetime64(pd.Timestamp(self.first), "D")
        inside = km <= self.within_km
        group = units[self.within].to_numpy() if self.within else None
        funders = np.array([kind.funder for kind in projects.kinds], dtype=object)
        of = projects.kind[project]
        for k, kind in enumerate(projects.kinds):
            mine = of == k
            treats = mine & late & inside & (gap >= self.years_before)
            soon = mine & late & inside & (gap < self.years_before) & (gap >= 0)
            treated = _any(unit, treats, len(x))
            recent = _any(unit, soon, len(x)) & ~treated
            near = _any(unit, mine & late & ~inside & (gap >= 0), len(x)) & ~treated & ~recent
            home = np.ones(len(x), dtype=bool)
            if group is not None:
                home = np.isin(group, np.unique(group[treated]))
            abroad = ~home & ~recent & ~near
            before = ~late & inside
            history = np.stack(
                [
                    np.bincount(unit[before & mine], minlength=len(x)),
                    np.bincount(
                        unit[before & ~mine & (funders[of] == kind.funder)], minlength=len(x)
                    ),
                    np.bincount(unit[before & (funders[of] != kind.funder)], minlength=len(x)),
                ],
                axis=1,
            )
            yield Exposure(
                kind, treated, ~recent & ~near & ~abroad, int(recent.sum()), int(near.sum()),
                int(abroad.sum()), history,
            )  # fmt: skip


def _any(unit: NDArray[np.int64], which: NDArray[np.bool_], n: int) -> NDArray[np.bool_]:
    return np.bincount(unit[which], minlength=n) > 0


def near_pairs(
    lon: NDArray[np.float64],
    lat: NDArray[np.float64],
    other_lon: NDArray[np.float64],
    other_lat: NDArray[np.float64],
    km: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Find all pairs of points of two sets within a great-circle distance.

    Returns
    -------
    The pairs' numbers in the first and in the second set, and their distances in kilometres.
    """
    here, there = _unit_vectors(lon, lat), _unit_vectors(other_lon, other_lat)
    chord = 2 * np.sin(min(km / EARTH_RADIUS_KM, np.pi) / 2) * (1 + 1e-12)
    found = cKDTree(here).query_ball_tree(cKDTree(there), chord)
    first = np.repeat(np.arange(len(lon)), [len(row) for row in found])
    second = np.array([j for row in found for j in row], dtype=np.int64)
    gap = np.linalg.norm(here[first] - there[second], axis=1)
    distance = EARTH_RADIUS_KM * 2 * np.arcsin(np.clip(gap / 2, 0, 1))
    keep = distance <= km * (1 + 1e-12)
    return first[keep], second[keep], distance[keep]


def _unit_vectors(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y = np.deg2rad(lon), np.deg2rad(lat)
    return np.stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)], axis=1)
