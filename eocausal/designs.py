"""Designs: who was treated, when, and how that was decided.

A design names columns of the units table; :meth:`Trial.assignment` turns them into checked
arrays once, and estimators work on those.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.contracts import check_columns, codes, some
from eocausal.errors import (
    AssignmentError,
    DesignError,
    EmptyInputError,
    OneArmError,
    OneClusterError,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Adoption", "Assignment", "Event", "Trial"]


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """The arrays of a trial, one entry per unit.

    Attributes
    ----------
    treated
        (n,) float, 1 for the treated arm and 0 for control.
    propensity
        (n,) float in (0, 1): the known probability of treatment.
    cluster
        (n,) int codes 0..G-1 of the unit of assignment; each unit its own if none was named.
    n_clusters
        G.
    known
        Whether the probabilities were given (True) or are the arm's share (False).
    """

    treated: NDArray[np.float64]
    propensity: NDArray[np.float64]
    cluster: NDArray[np.int64]
    n_clusters: int
    known: bool

    def __repr__(self) -> str:
        share = float(self.treated.mean())
        return (
            f"Assignment({len(self.treated)} units, {share:.1%} treated, "
            f"{self.n_clusters} clusters)"
        )


@dataclass(frozen=True, slots=True)
class Trial:
    """A randomized trial.

    Parameters
    ----------
    arm
        Column with two values: 1/True treated, 0/False control.
    cluster
        Column with the unit of assignment (village, group). None: each unit by itself.
    prob
        Column or number: known probability of treatment. None: the treated share, within
        ``block`` where one is given.
    block
        Column with the stratum within which arms were drawn.
    start
        ISO date when treatment began; images used as covariates must be older.
    """

    arm: str
    cluster: str | None = None
    prob: str | float | None = None
    block: str | None = None
    start: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.prob, int | float) and not 0 < float(self.prob) < 1:
            raise AssignmentError(
                f"prob={self.prob} is not a probability strictly between 0 and 1.",
                cause="Every unit of a trial could have been in either arm.",
                next_step="Give the share assigned to treatment, e.g. prob=0.5.",
            )
        if self.start is not None:
            parse_date(self.start, what="start")

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the units table that this design reads."""
        named = (self.arm, self.cluster, self.block)
        prob = (self.prob,) if isinstance(self.prob, str) else ()
        return tuple(c for c in (*named, *prob) if c is not None)

    def assignment(self, units: pd.DataFrame) -> Assignment:
        """Read and check arms, probabilities and clusters.

        Raises
        ------
        MissingColumnError, AssignmentError, OneArmError, OneClusterError
        """
        check_columns(units, self.columns, what="units table")
        if len(units) == 0:
            raise EmptyInputError(
                "The units table has no rows.",
                cause="There is no one whose outcome could be compared.",
                next_step="Check the filter and the join that made this table.",
            )
        treated = _arm(units[self.arm], self.arm)
        if self.cluster is None:
            cluster = np.arange(len(units))
        else:
            cluster = codes(units[self.cluster], self.cluster)
        n_clusters = int(cluster.max()) + 1
        if n_clusters < 2:
            raise OneClusterError(
                f"All units are in one cluster of {self.cluster!r}.",
                cause="With one unit of assignment no variance can be estimated.",
                next_step="Name the column that was randomized, or leave cluster out.",
            )
        return Assignment(treated, self._propensity(units, treated), cluster, n_clusters,
                          self.prob is not None)  # fmt: skip

    def _propensity(self, units: pd.DataFrame, treated: NDArray[np.float64]) -> NDArray[np.float64]:
        if isinstance(self.prob, str):
            prob = pd.to_numeric(units[self.prob], errors="coerce").to_numpy(float)
        elif self.prob is not None:
            prob = np.full(len(units), float(self.prob))
        elif self.block is not None:
            block = codes(units[self.block], self.block)
            share = np.bincount(block, treated) / np.bincount(block)
            if bad := np.flatnonzero((share == 0) | (share == 1)).size:
                raise AssignmentError(
                    f"{bad} blocks of {self.block!r} hold one arm only.",
                    cause="Within such a block nothing can be compared.",
                    next_step="Merge blocks, drop these, or give prob.",
                )
            prob = share[block]
        else:
            prob = np.full(len(units), treated.mean())
        wrong = ~((prob > 0) & (prob < 1))
        if wrong.any():
            raise AssignmentError(
                f"{int(wrong.sum())} probabilities of treatment are not strictly between 0 and 1: "
                f"units {some(units.index[wrong])}.",
                cause="Such a unit could have been in one arm only.",
                next_step="Correct the column, or leave these units out of the trial.",
            )
        return prob


def _arm(values: pd.Series, name: str) -> NDArray[np.float64]:
    if values.isna().any():
        raise AssignmentError(
            f"The arm {name!r} is missing for {int(values.isna().sum())} units: "
            f"{some(values.index[values.isna()])}.",
            cause="A unit without an arm was not in the trial.",
            next_step="Drop these units or complete the column.",
        )
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.isna().any() or not set(np.unique(numbers)) <= {0.0, 1.0}:
        raise AssignmentError(
            f"The arm {name!r} has the values {some(pd.unique(values))}.",
            cause="An arm is 1 (treated) or 0 (control).",
            next_step="Recode it; compare several arms pair by pair.",
        )
    arm = numbers.to_numpy(float)
    if np.unique(arm).size < 2:
        only = "treated" if arm[0] == 1 else "control"
        raise OneArmError(
            f"All {len(arm)} units are in the {only} arm ({name!r}).",
            cause="An effect is a comparison of two arms.",
            next_step="Check the filter and the join that made this table.",
        )
    return arm


def parse_date(text: str, *, what: str) -> pd.Timestamp:
    """Parse an ISO date or raise ``DesignError``."""
    date = pd.to_datetime(text, errors="coerce")
    if not isinstance(date, pd.Timestamp):
        raise DesignError(
            f"{what}={text!r} is not a date.",
            cause="Before and after are told by it.",
            next_step="Write it as YYYY-MM-DD.",
        )
    return date


@dataclass(frozen=True, slots=True)
class Adoption:
    """A treatment that units adopt at different times (aid projects, policies).

    Parameters
    ----------
    start
        Column with the date of first treatment; missing means never treated.
    time
        Column with the date of the outcome.
    """

    start: str
    time: str

    def treated(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Whether each row's outcome lies at or after its unit's start."""
        check_columns(table, [self.start, self.time], what="table")
        begun, now = _dates(table[self.start]), _dates(table[self.time])
        return np.asarray(begun.notna() & (now >= begun))


def _dates(values: pd.Series) -> pd.Series:
    """Read dates; whole numbers are years."""
    if pd.api.types.is_numeric_dtype(values):
        values = values.astype("Int64").astype("string")
    return pd.to_datetime(values)


@dataclass(frozen=True, slots=True)
class Event:
    """One event at a known date that hits some series at once (a port, a spill).

    Parameters
    ----------
    when
        ISO date (day, month or year) of the first treated time.
    end
        ISO date of the last time counted; None means to the end of the record.
    """

    when: str
    end: str | None = None

    def __post_init__(self) -> None:
        begin = parse_date(self.when, what="when")
        if self.end is not None and parse_date(self.end, what="end") < begin:
            raise DesignError(
                f"The event ends ({self.end}) before it begins ({self.when}).",
                cause="There would be no time after the event.",
                next_step="Swap the dates.",
            )

    def post(self, times: pd.DatetimeIndex) -> NDArray[np.bool_]:
        """Which times count as after the event.

        Those from ``when`` on, through the end of the month or year that ``end`` names.

        Raises
        ------
        DesignError
            If no time is before, or none after the event.
        """
        after = np.asarray(times >= pd.Timestamp(self.when))
        if not after.any() or after.all():
            raise DesignError(
                f"The event {self.when} leaves {'no' if not after.any() else 'only'} "
                f"post-period in {times.min():%Y-%m-%d}..{times.max():%Y-%m-%d}.",
                cause="An effect needs times before and after.",
                next_step="Check the date against the record.",
            )
        if self.end is not None:
            after &= np.asarray(times <= pd.Period(self.end).end_time)
        return after
