"""Growth of a class beside a break in the water: what annual maps can and cannot say."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from eocausal.errors import EstimationError
from eocausal.land_cover.areas import ClassAreas

__all__ = ["Timing", "timing_beside_break"]

RISE = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class Timing:
    """Yearly growth of a class and the date of a break.

    Attributes
    ----------
    name
        Of the class.
    table
        One row per interval between two maps: ``first``, ``last`` year, ``growth`` in km2 per year
        and ``beside``: before, during or after the year of the break.
    when
        Date of the break.
    low, high
        Ends of its interval; the date itself if not known.
    """

    name: str
    table: pd.DataFrame
    when: pd.Timestamp
    low: pd.Timestamp
    high: pd.Timestamp

    @property
    def rates(self) -> pd.Series:
        """Mean growth in km2 per year before, during and after; NaN where no interval is."""
        spans = self.table["last"] - self.table["first"]
        grown = (self.table["growth"] * spans).groupby(self.table["beside"]).sum()
        rates = grown / spans.groupby(self.table["beside"]).sum()
        return rates.reindex(["before", "during", "after"])

    @property
    def fastest(self) -> tuple[int, int]:
        """Years of the interval in which the class grew fastest."""
        row = self.table.iloc[int(self.table["growth"].to_numpy().argmax())]
        return int(row["first"]), int(row["last"])

    @property
    def supports(self) -> bool | None:
        """Whether the class grew clearly faster in the year of the break than before.

        Half as fast again; None if no interval lies before.
        """
        rates = self.rates
        if rates.isna()["before"] or rates.isna()["during"]:
            return None
        return bool(rates["during"] > RISE * max(rates["before"], 0.0))

    def to_frame(self) -> pd.DataFrame:
        """Return one row per interval."""
        return self.table.copy()

    def summary(self) -> str:
        """Say in words whether growth and break go together."""
        rates, (first, last) = self.rates, self.fastest
        told = ", ".join(
            f"{rate:+.2f} km² a year {label} it" for label, rate in rates.items() if pd.notna(rate)
        )
        verdict = {
            True: "It grew clearly faster around the break than before.",
            False: "It did not grow clearly faster around the break than before, so the maps do "
            "not by themselves date it.",
            None: "No map is early enough to say whether it grew faster than before.",
        }[self.supports]
        lag = first - self.when.year
        where = (
            "which holds the break" if first <= self.when.year <= last
            else f"{lag} years after the break" if lag > 0
            else f"{self.when.year - last} years before the break"
        )  # fmt: skip
        return (
            f"{self.name} beside the break of {self.when:%Y-%m}: {told}; fastest between the maps "
            f"of {first} and {last}, {where}. {verdict} A map stands for a year: it cannot tell "
            "which month came first, and growth on land is no proof of what moved the water."
        )

    def __repr__(self) -> str:
        return f"Timing({self.name}, break {self.when:%Y-%m}, fastest {self.fastest})"


def timing_beside_break(
    areas: ClassAreas, name: str, when: str, *, interval: tuple[str, str] | None = None
) -> Timing:
    """Put yearly growth of a class beside a break.

    Growth between the maps of two years happened somewhere between the start of the first and the
    end of the second; it counts as *during* where the break (or its interval) lies in the two
    years.

    Parameters
    ----------
    areas
        Areas by class and year.
    name
        Class that would have grown, such as ``'Built area'``.
    when
        ISO date of the break.
    interval
        Its ends, if known.

    Raises
    ------
    MissingColumnError
        If there is no such class.
    EstimationError
        If there are fewer than three maps, or the interval does not hold the break.
    """
    km2 = areas.of(name)
    date = pd.Timestamp(when)
    low, high = (date, date) if interval is None else (pd.Timestamp(end) for end in interval)
    if len(km2) < 3 or not low <= date <= high:
        raise EstimationError(
            f"{len(km2)} maps, a break of {when} within {low:%Y-%m} to {high:%Y-%m}.",
            cause="A change of pace needs three maps, and an interval holds its break.",
            next_step="Give more years, or correct the dates.",
        )
    rows = []
    for first, last in zip(km2.index[:-1], km2.index[1:], strict=True):
        beside = "before" if last < low.year else "after" if first > high.year else "during"
        growth = (km2[last] - km2[first]) / (last - first)
        rows.append((int(first), int(last), float(growth), beside))
    table = pd.DataFrame(rows, columns=["first", "last", "growth", "beside"])
    return Timing(name, table, date, low, high)
