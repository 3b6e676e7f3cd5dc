"""Names, units and lists in sentences about placed projects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from eocausal.reports.evaluation_rows import cut

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ADJUSTED", "LONGEST", "joined", "kind_words", "with_unit"]

NAMED = 4
LONGEST = 60
ADJUSTED = {"table": "the table", "image": "the image", "both": "table and image"}


def kind_words(row: Mapping[str, Any] | pd.Series[Any]) -> str:
    """Name a kind of projects."""
    return f"{cut(str(row['funder']), LONGEST)} projects in “{cut(str(row['sector']), LONGEST)}”"


def with_unit(number: str, unit: str) -> str:
    """Return a number and its unit."""
    return f"{number} {unit}" if unit else number


def joined(items: Iterable[str], limit: int = NAMED) -> str:
    """List some items in words, and count the others."""
    named = list(items)
    shown, more = named[:limit], len(named) - limit
    if more > 0:
        return f"{', '.join(shown)} and {more:,} more"
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))
