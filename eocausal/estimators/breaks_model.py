"""What may change at a break, and the columns it takes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from eocausal.errors import EstimationError
from eocausal.estimators.breaks_bai_perron import room_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.breaks_calendar import Calendar

    Float64 = NDArray[np.float64]

__all__ = ["BreakModel", "Changes"]

USUAL_BREAKS = 5


class Changes(StrEnum):
    """Coefficients that each regime has to itself."""

    LEVEL = "level"
    TREND = "trend"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class BreakModel:
    """A series between two breaks: level, perhaps trend, season and controls.

    Parameters
    ----------
    changes
        ``level``: only the level changes at a break, trend, season and controls last. ``trend``:
        level and trend change. ``all``: every coefficient does, the season's and the controls' too.
    trend
        A straight line in time; implied by ``changes="trend"``.
    harmonics
        Pairs of sine and cosine of the year.
    period
        Steps in a year (12 for months). None: from the dates.
    min_segment
        Shortest regime: observations, or a share of them if below 1.
    max_breaks
        Largest number of breaks searched. None: 5, or as many as fit.
    """

    changes: Changes | str = Changes.LEVEL
    trend: bool = False
    harmonics: int = 0
    period: float | None = None
    min_segment: float = 0.15
    max_breaks: int | None = None

    def __post_init__(self) -> None:
        if self.changes not in tuple(Changes):
            raise EstimationError(
                f"changes={self.changes!r} is not one of {', '.join(Changes)}.",
                cause="It says which coefficients each regime has to itself.",
                next_step="Use 'level' unless trend or season are to change as well.",
            )
        if self.harmonics < 0 or self.max_breaks == 0 or not self.min_segment > 0:
            raise EstimationError(
                f"BreakModel(harmonics={self.harmonics}, min_segment={self.min_segment}, "
                f"max_breaks={self.max_breaks}) describes no model.",
                cause="Harmonics are 0 or more, breaks 1 or more, and a segment has a length.",
                next_step="Use e.g. BreakModel(harmonics=2, min_segment=0.15, max_breaks=5).",
            )
        if self.period is not None and not self.period > 2 * max(self.harmonics, 1):
            raise EstimationError(
                f"{self.harmonics} harmonics of a period of {self.period:g} steps.",
                cause="A harmonic needs more than two steps to go up and down.",
                next_step="Use fewer harmonics, or correct the period.",
            )

    def columns(
        self, calendar: Calendar, controls: Float64 | None = None
    ) -> tuple[Float64, Float64]:
        """Return the columns that change (n, q) and those that last (n, s).

        Parameters
        ----------
        calendar
            Observed times.
        controls
            (n, c) further regressors.
        """
        at = calendar.position.astype(float)
        level = np.ones((len(at), 1))
        line = ((at - at.mean()) / max(np.ptp(at), 1.0))[:, None]
        rest = [self._season(calendar)]
        if controls is not None and controls.shape[1]:
            rest.append(controls - controls.mean(axis=0))
        if self.changes == Changes.TREND:
            return np.concatenate([level, line], axis=1), np.concatenate(rest, axis=1)
        rest = [line, *rest] if self.trend else rest
        if self.changes == Changes.ALL:
            return np.concatenate([level, *rest], axis=1), level[:, :0]
        return level, np.concatenate(rest, axis=1)

    def _season(self, calendar: Calendar) -> Float64:
        if self.harmonics == 0:
            return np.empty((len(calendar.position), 0))
        period = self.period or calendar.period
        if period is None or not period > 2 * self.harmonics:
            raise EstimationError(
                f"{self.harmonics} harmonics are asked for, and times are {calendar.step}s.",
                cause="A season needs steps that are short beside its period.",
                next_step="Give period in steps, or harmonics=0.",
            )
        angle = 2 * np.pi * calendar.position[:, None] * np.arange(1, self.harmonics + 1) / period
        return np.concatenate([np.cos(angle), np.sin(angle)], axis=1)

    def shortest(self, n: int) -> int:
        """Return the fewest observations of a regime among n."""
        return int(self.min_segment * n) if self.min_segment < 1 else round(self.min_segment)

    def most(self, n: int) -> int:
        """Return the largest number of breaks searched among n observations."""
        room = room_for(n, max(self.shortest(n), 1))
        return min(room, USUAL_BREAKS) if self.max_breaks is None else self.max_breaks

    def __str__(self) -> str:
        line = self.trend or self.changes == Changes.TREND
        parts = ["level", *["trend"] * line]
        if self.harmonics:
            parts.append(f"season of {self.harmonics} harmonics")
        lasting = "" if self.changes == Changes.ALL else f", {_changing(self.changes)} changing"
        return ", ".join(parts) + (lasting if len(parts) > 1 else "")


def _changing(changes: Changes | str) -> str:
    return "level and trend" if changes == Changes.TREND else "only the level"
