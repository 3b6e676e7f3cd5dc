"""Where several methods agree that there is a break, and how many of them do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.errors import EmptyInputError, EstimationError
from eocausal.estimators.breaks_peers import BinSeg, Pelt, Window

if TYPE_CHECKING:
    from eocausal.estimators.breaks_calendar import Calendar
    from eocausal.estimators.breaks_peers import Detector
    from eocausal.estimators.breaks_result import Breaks

__all__ = ["Agreement", "Consensus", "compare_methods", "consensus"]

OURS = "Bai-Perron"


@dataclass(frozen=True, slots=True)
class Agreement:
    """Breaks of several methods that lie next to each other.

    Attributes
    ----------
    at
        Their median: first observation of the new regime.
    after
        Its time, or its number where there is no calendar.
    earliest, latest
        The outermost of them.
    methods
        Who found it.
    """

    at: int
    after: str
    earliest: int
    latest: int
    methods: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Consensus:
    """What methods agree on.

    Attributes
    ----------
    agreed
        Breaks with enough support.
    alone
        Those without.
    found
        Breaks of each method.
    tolerance
        Steps between neighbours that count as one break.
    least
        Methods it takes.
    """

    agreed: tuple[Agreement, ...]
    alone: tuple[Agreement, ...]
    found: dict[str, tuple[int, ...]]
    tolerance: int
    least: int

    def __repr__(self) -> str:
        said = ", ".join(f"{a.after} ({len(a.methods)}/{len(self.found)})" for a in self.agreed)
        return f"Consensus({said or 'none'})"

    def to_frame(self) -> pd.DataFrame:
        """Return one row per place where some method has a break, in time."""
        rows = [
            (a.at, a.after, a.earliest, a.latest, len(a.methods), len(a.methods) / len(self.found),
             ", ".join(a.methods), len(a.methods) >= self.least)
            for a in sorted((*self.agreed, *self.alone), key=lambda a: a.at)
        ]  # fmt: skip
        columns = ["at", "after", "earliest", "latest", "count", "support", "methods", "agreed"]
        return pd.DataFrame(rows, columns=columns)

    def summary(self) -> str:
        """Say in words where methods agree."""
        count = len(self.found)
        lines = [
            f"{len(a.methods)} of {count} methods ({', '.join(a.methods)}) break at {a.after}."
            for a in self.agreed
        ]
        if not lines:
            lines = [f"No {self.least} of {count} methods agree on a break."]
        if self.alone:
            places = ", ".join(f"{a.after} ({', '.join(a.methods)})" for a in self.alone)
            lines.append(f"Without company: {places}.")
        return "\n".join(lines)


def consensus(
    found: Mapping[str, Sequence[int]],
    *,
    tolerance: int = 5,
    least: int = 2,
    calendar: Calendar | None = None,
) -> Consensus:
    """Group the breaks of methods, neighbours no further than ``tolerance`` apart.

    Parameters
    ----------
    found
        First observations of new regimes, by method.
    tolerance
        In steps.
    least
        Methods it takes to agree.
    calendar
        Gives the dates and the length of gaps; None: observations are steps.

    Raises
    ------
    EmptyInputError
        If there is no method.
    EstimationError
        If fewer methods are there than it takes.
    """
    if not found:
        raise EmptyInputError(
            "There are no methods to compare.",
            cause="A consensus is of several.",
            next_step="Give the breaks of two methods at least.",
        )
    if not 1 <= least <= len(found) or tolerance < 0:
        raise EstimationError(
            f"least={least} and tolerance={tolerance} with {len(found)} methods.",
            cause="It takes from one to all methods, and a distance is not negative.",
            next_step="Use e.g. least=2, tolerance=5.",
        )
    votes = sorted({(int(b), name) for name, breaks in found.items() for b in breaks})
    groups: list[list[tuple[int, str]]] = []
    for vote in votes:
        if groups and _step(calendar, vote[0]) - _step(calendar, groups[-1][-1][0]) <= tolerance:
            groups[-1].append(vote)
        else:
            groups.append([vote])
    places = [_agreement(group, tuple(found), calendar) for group in groups]
    return Consensus(
        tuple(p for p in places if len(p.methods) >= least),
        tuple(p for p in places if len(p.methods) < least),
        {name: tuple(int(b) for b in breaks) for name, breaks in found.items()}, tolerance, least,
    )  # fmt: skip


def compare_methods(
    found: Breaks,
    detectors: Sequence[Detector] = (Pelt(), BinSeg(), Window()),
    *,
    tolerance: int = 5,
    least: int = 2,
) -> Consensus:
    """Set our breaks beside those that other detectors find in the same series.

    They see the values less what lasts (season, trend and controls, where the model has them).
    """
    values = found.values - found.lasting
    said: dict[str, tuple[int, ...]] = {OURS: found.at}
    said.update({detector.name: detector.find(values) for detector in detectors})
    return consensus(said, tolerance=tolerance, least=least, calendar=found.calendar)


def _step(calendar: Calendar | None, at: int) -> int:
    return at if calendar is None else int(calendar.position[at])


def _agreement(
    group: list[tuple[int, str]], order: tuple[str, ...], calendar: Calendar | None
) -> Agreement:
    at = [b for b, _ in group]
    middle = int(np.median(at))
    names = {name for _, name in group}
    label = str(middle) if calendar is None else calendar.label(middle)
    return Agreement(middle, label, at[0], at[-1], tuple(name for name in order if name in names))
