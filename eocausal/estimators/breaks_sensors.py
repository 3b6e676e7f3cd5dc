"""Breaks that an instrument may have made: declared dates, tested as if they were causes.

A record merged from several sensors can step where one of them comes or goes. Dates known
beforehand are tested one by one, without a search, and each break that was found is held against
them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.errors import EmptyInputError, EstimationError
from eocausal.estimators.breaks_scan import scan
from eocausal.estimators.breaks_sieve import ArSieve
from eocausal.estimators.breaks_sup_f import sup_f

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.breaks_result import Breaks

__all__ = ["SensorChange", "SensorChanges", "SensorVerdict", "hold_against_sensors"]


@dataclass(frozen=True, slots=True)
class SensorChange:
    """A date at which the record changed hands.

    Parameters
    ----------
    date
        First time observed the new way: ISO date, or a number where times are numbers.
    what
        What happened, e.g. ``'MODIS-Aqua enters'``.
    """

    date: str
    what: str


@dataclass(frozen=True, slots=True)
class SensorChanges:
    """All declared dates.

    Parameters
    ----------
    changes
        The dates.
    tolerance
        Steps by which a break may miss a date and still coincide with it.
    sieve
        How red noise is drawn.
    """

    changes: tuple[SensorChange, ...]
    tolerance: int = 2
    sieve: ArSieve = field(default_factory=ArSieve)

    def __post_init__(self) -> None:
        if not self.changes:
            raise EmptyInputError(
                "No sensor change is declared.",
                cause="There is nothing that breaks could be held against.",
                next_step="Name the dates at which sensors entered or left the record.",
            )
        if self.tolerance < 0:
            raise EstimationError(
                f"A tolerance of {self.tolerance} steps is negative.",
                cause="It is a distance between two dates.",
                next_step="Use 0 or more, e.g. tolerance=2.",
            )


@dataclass(frozen=True, slots=True, eq=False)
class SensorVerdict:
    """Declared dates and breaks held against each other.

    Attributes
    ----------
    name
        Of the series.
    dates
        One row per declared date: ``date``, ``what``, ``statistic`` F and ``p_value`` of a break
        there given the breaks that are not at it (NaN outside the record), ``nearest`` break and
        ``steps`` between them.
    breaks
        One row per break: first time ``after``, ``declared`` change it coincides with or empty,
        and whether it lies within the ``tolerance`` or only in the ``interval`` of the break.
    chance
        Share of the record's times that coincide with some declared date by the same rule.
    tolerance
        In steps.
    """

    name: str
    dates: pd.DataFrame
    breaks: pd.DataFrame
    chance: float
    tolerance: int

    @property
    def coincides(self) -> bool:
        """Whether some break coincides with a declared date."""
        return bool((self.breaks["declared"] != "").any())

    def __repr__(self) -> str:
        count = int((self.breaks["declared"] != "").sum())
        return (
            f"SensorVerdict({self.name}: {count} of {len(self.breaks)} breaks at one of "
            f"{len(self.dates)} declared dates)"
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row per declared date."""
        return self.dates.copy()

    def summary(self) -> str:
        """Say in words which breaks an instrument may have made."""
        lines = []
        for row in self.breaks.to_dict("records"):
            if not row["declared"]:
                lines.append(f"The break from {row['after']} on is at no declared sensor change.")
                continue
            how = (
                f"within {self.tolerance} steps of" if row['within'] == "tolerance"
                else "no further than its interval reaches from"
            )  # fmt: skip
            lines.append(
                f"The break from {row['after']} on is {how} a declared sensor change: "
                f"{row['declared']}. "
                "An instrument explains it as well as an event does."
            )
        if not lines:
            lines.append("No break was found that could be held against sensor changes.")
        stepped = self.dates[self.dates["p_value"] < 0.05]
        for row in stepped.to_dict("records"):
            lines.append(
                f"The series steps at the declared date {row['date']} ({row['what']}): "
                f"p = {row['p_value']:.3f} against red noise."
            )
        lines.append(f"By chance {self.chance:.0%} of dates would coincide.")
        return "\n".join(lines)


def hold_against_sensors(found: Breaks, declared: SensorChanges, *, seed: int = 0) -> SensorVerdict:
    """Hold breaks against declared dates, and test these as placebo breaks.

    Raises
    ------
    EstimationError
        If a date is not one of the series' calendar.
    """
    calendar, n = found.calendar, len(found.values)
    at = np.array([calendar.locate(change.date) for change in declared.changes])
    room = found.changing.shape[1] + 1
    inside = (at >= room) & (at <= n - room)
    coincide = [_within(found, k, at[inside], declared.tolerance) for k in range(len(found.at))]
    names = [c for c, there in zip(declared.changes, inside, strict=True) if there]
    said = []
    for k, (number, within) in enumerate(coincide):
        text = "" if number is None else f"{names[number].what} ({names[number].date})"
        said.append((found.breaks[k].after, text, within))
    statistic, p_value = np.full((2, len(at)), np.nan)
    for k, row in enumerate(np.flatnonzero(inside).tolist()):
        others = [b for b, (j, _) in zip(found.at, coincide, strict=True) if j != k]
        apart = [b for b in others if abs(b - at[row]) >= room]
        look = scan(found.changing, found.shared, at[row : row + 1], apart)
        test = sup_f(found.values, look, calendar.position, declared.sieve, seed)
        statistic[row], p_value[row] = test.statistic, test.p_value
    return SensorVerdict(
        found.name, _dates(found, declared, at, statistic, p_value),
        pd.DataFrame(said, columns=["after", "declared", "within"]),
        _chance(calendar.position, at[inside], declared.tolerance), declared.tolerance,
    )  # fmt: skip


def _within(found: Breaks, k: int, at: NDArray[np.int64], tolerance: int) -> tuple[int | None, str]:
    """Return which declared date a break coincides with, if any, and how."""
    position, item = found.calendar.position, found.breaks[k]
    if not len(at):
        return None, ""
    steps = np.abs(position[at] - position[item.at])
    if steps.min() <= tolerance:
        return int(steps.argmin()), "tolerance"
    held = np.flatnonzero(np.isin(at, item.interval.held))
    if len(held):
        return int(held[steps[held].argmin()]), "interval"
    return None, ""


def _chance(position: NDArray[np.int64], at: NDArray[np.int64], tolerance: int) -> float:
    if not len(at):
        return 0.0
    near = np.abs(position[:, None] - position[at]) <= tolerance
    return float(near.any(axis=1).mean())


def _dates(
    found: Breaks,
    declared: SensorChanges,
    at: NDArray[np.int64],
    statistic: NDArray[np.float64],
    p_value: NDArray[np.float64],
) -> pd.DataFrame:
    position = found.calendar.position
    rows = []
    for change, number, f, p in zip(declared.changes, at, statistic, p_value, strict=True):
        nearest, steps = "", np.nan
        if found.at and np.isfinite(f):
            distance = position[list(found.at)] - position[number]
            nearest = found.breaks[int(np.abs(distance).argmin())].after
            steps = float(distance[np.abs(distance).argmin()])
        rows.append((change.date, change.what, f, p, nearest, steps))
    columns = ["date", "what", "statistic", "p_value", "nearest", "steps"]
    return pd.DataFrame(rows, columns=columns)
