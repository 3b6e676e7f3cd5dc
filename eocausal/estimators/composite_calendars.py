"""Steps shorter than a month that do not run on over the end of a month or year.

Composites of 8 or 16 days begin anew each January, dekads and half months with each month: the
last step is shorter or longer than the others, and a plain count of days would drift.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Composites", "composites_of"]

PARTS: dict[tuple[int, ...], str] = {(1, 11, 21): "dekad", (1, 16): "half-month"}


@dataclass(frozen=True, slots=True, eq=False)
class Composites:
    """Dates as numbers of such steps.

    Attributes
    ----------
    code
        (n,) numbers of steps, rising.
    a_year
        Steps in a year.
    days
        Where steps begin: days of a month, or days of a year.
    name
        ``dekad``, ``half-month``, or empty for a number of days that begins anew each year.
    """

    code: NDArray[np.int64]
    a_year: int
    days: tuple[int, ...]
    name: str = ""

    @property
    def step(self) -> int:
        """Days from one beginning to the next."""
        return self.days[1] - self.days[0]

    def every(self) -> pd.DatetimeIndex:
        """Return (T,) beginnings of all steps from the first date to the last."""
        every = np.arange(self.code[0], self.code[-1] + 1)
        begins = np.asarray(self.days) - 1
        unit = "datetime64[M]" if self.name else "datetime64[Y]"
        start = (every // len(begins) - (0 if self.name else 1970)).astype(unit)
        days = start.astype("datetime64[D]") + begins[every % len(begins)]
        return pd.DatetimeIndex(days.astype("datetime64[ns]"))


def composites_of(index: pd.DatetimeIndex) -> Composites | None:
    """Return the steps of rising dates, if they are such composites."""
    return _in_month(index) or _in_year(index)


def _in_month(index: pd.DatetimeIndex) -> Composites | None:
    """Dekads and half months."""
    day = index.day.to_numpy()
    for days, name in PARTS.items():
        if len(set(day)) > 1 and set(day) <= set(days):
            month = (index.year.to_numpy() - 1970) * 12 + index.month.to_numpy() - 1
            code = (month * len(days) + np.searchsorted(days, day)).astype(np.int64)
            if np.median(np.diff(code)) < len(days):
                return Composites(code, 12 * len(days), days, name)
            return None
    return None


def _in_year(index: pd.DatetimeIndex) -> Composites | None:
    """Every k days from a day of each year on, so that the last step of a year is shorter."""
    day = index.day_of_year.to_numpy()
    first = int(day.min())
    step = int(np.gcd.reduce(day - first))
    years = index.year.to_numpy()
    if step < 2 or len(set(years)) < 2 or step != int(np.median(np.diff(index)).astype(
        "timedelta64[D]").astype(int)):  # fmt: skip
        return None
    slots = (366 - first) // step + 1
    slots -= first + (slots - 1) * step == 366  # a step that leap years alone would have
    slot = (day - first) // step
    if (slot >= slots).any():
        return None
    days = tuple(range(first, first + slots * step, step))
    return Composites((years * slots + slot).astype(np.int64), slots, days)
