"""Dates, numbers and lists in sentences about an event on a series."""

from __future__ import annotations

import pandas as pd

from eocausal.reports.tables import format_number

__all__ = ["begin", "date_words", "month_words", "percent", "plural", "signed", "with_unit"]


def date_words(when: pd.Timestamp, times: pd.Index) -> str:
    """Say a date as exactly as the series has it: May 2019, or 17 May 2019."""
    monthly = isinstance(times, pd.DatetimeIndex) and bool((times.day == 1).all())
    return f"{when:%B %Y}" if monthly else f"{when.day} {when:%B %Y}"


def with_unit(number: str, unit: str) -> str:
    """Return a number and its unit; a unit that begins with a number is multiplied."""
    if not unit or unit == "1":
        return number
    return f"{number} × {unit}" if unit[0].isdigit() else f"{number} {unit}"


def percent(value: float, digits: int = 1) -> str:
    """Print a share as percent."""
    return f"{100 * value:.{digits}f}%".replace("-", "−")


def signed(value: float, digits: int = 3) -> str:
    """Print a number with its sign."""
    return f"{'+' if value > 0 else ''}{format_number(value, digits)}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return a count and what is counted."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def month_words(label: str) -> str:
    """Say a label of a calendar: ``2010-01`` as January 2010; others as they are."""
    parts = label.split("-")
    if len(parts) == 2 and all(p.isdigit() for p in parts):
        return f"{pd.Timestamp(label):%B %Y}"
    return label


def begin(sentence: str) -> str:
    """Return a sentence with a capital at its beginning."""
    return sentence[:1].upper() + sentence[1:]
