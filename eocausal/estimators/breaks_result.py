"""What was found about the breaks of a series, and how it is said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from eocausal.estimators.breaks_calendar import Calendar
    from eocausal.estimators.breaks_dates import DateInterval
    from eocausal.estimators.breaks_model import BreakModel
    from eocausal.estimators.breaks_number import UDMax
    from eocausal.estimators.breaks_sieve import Autoregression
    from eocausal.estimators.breaks_sup_f import SupF

    Float64 = NDArray[np.float64]

__all__ = ["Break", "Breaks"]


@dataclass(frozen=True, slots=True, eq=False)
class Break:
    """One break.

    Attributes
    ----------
    at
        First observation of the new regime, counted from 0 among the observed ones: as many lie
        before.
    before, after
        Last time of the old regime and first time of the new one.
    first, last
        Ends of the interval for ``after``.
    interval
        The same as observations.
    change
        Step of the level (and trend, where it changes) at the break, in units of the series.
    std_error
        Of the change, the date taken as known; red noise is allowed for.
    p_value
        Of no break between its neighbours, against red noise.
    """

    at: int
    before: str
    after: str
    first: str
    last: str
    interval: DateInterval
    change: float
    std_error: float
    p_value: float

    def __repr__(self) -> str:
        return (
            f"Break({self.after} [{self.first}, {self.last}], {self.change:+.4g} "
            f"± {self.std_error:.2g}, p = {self.p_value:.3f})"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Breaks:
    """Breaks of a series.

    Attributes
    ----------
    name
        Of the series.
    calendar
        Observed times.
    values
        (n,) observed values.
    lasting
        (n,) what season, trend and controls with lasting coefficients add to them.
    changing, shared
        (n, q) and (n, s) columns of the model.
    model
        What may change.
    rule
        How the number of breaks was chosen.
    breaks
        Those found, in time.
    rss, bic, lwz
        (M + 1,) for 0..M breaks.
    partitions
        Best breaks for each number of them: first observations of new regimes.
    anything
        Test of any break at all; None if the number was not chosen by tests.
    tests
        Tests of the first break, of a second given the first, and so on.
    noise
        What is left, as an autoregression.
    left_out
        Times without a value.
    """

    name: str
    calendar: Calendar
    values: Float64
    lasting: Float64
    changing: Float64
    shared: Float64
    model: BreakModel
    rule: str
    breaks: tuple[Break, ...]
    rss: Float64
    bic: Float64
    lwz: Float64
    partitions: tuple[tuple[int, ...], ...]
    anything: UDMax | None
    tests: tuple[SupF, ...]
    noise: Autoregression
    left_out: int

    def __repr__(self) -> str:
        found = ", ".join(repr(b) for b in self.breaks) or "none"
        return f"Breaks({self.name}, {self.calendar!r}, {self.rule}: {found})"

    @property
    def at(self) -> tuple[int, ...]:
        """First observations of the new regimes."""
        return tuple(b.at for b in self.breaks)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per break."""
        columns = ["before", "after", "first", "last", "change", "std_error", "p_value"]
        rows = [[getattr(b, column) for column in columns] for b in self.breaks]
        return pd.DataFrame(
            rows, columns=columns, index=pd.RangeIndex(1, len(rows) + 1)
        ).rename_axis("break")

    def criteria(self) -> pd.DataFrame:
        """Return rss, BIC, LWZ and dates for each number of breaks."""
        dates = [", ".join(self.calendar.label(int(b)) for b in found) for found in self.partitions]
        return pd.DataFrame(
            {"rss": self.rss, "bic": self.bic, "lwz": self.lwz, "after": dates},
            index=pd.RangeIndex(len(self.rss), name="breaks"),
        )

    def summary(self) -> str:
        """Say in words what was found."""
        first, last = self.calendar.label(0), self.calendar.label(len(self.values) - 1)
        lines = [
            f"{self.name}: {len(self.values)} {self.calendar.step}s from {first} to {last}"
            + (f", {self.left_out} more without a value" if self.left_out else "")
            + f"; model: {self.model}."
        ]
        lines.append(self._verdict())
        for found in self.breaks:
            percent = 100 * found.interval.level
            lines.append(
                f"From {found.after} on ({percent:.0f} % interval {found.first} to {found.last}) "
                f"the level is {abs(found.change):.4g} {'higher' if found.change > 0 else 'lower'} "
                f"(standard error {found.std_error:.2g}); p = {found.p_value:.3f} against red "
                "noise without this break."
            )
        if self.noise.order:
            lines.append(
                "What is left is red noise: it makes the standard error of a mean "
                f"{self.noise.inflation:.1f} times that of independent errors."
            )
        return "\n".join(lines)

    def _verdict(self) -> str:
        count = len(self.breaks)
        what = "No break" if count == 0 else "One break" if count == 1 else f"{count} breaks"
        text = f"{what} ({self.rule})."
        if self.anything is not None:
            text += (
                f" Test of no break against up to {len(self.anything.path)}: "
                f"p = {self.anything.p_value:.3f}."
            )
        return text
