"""Where units without counterpart lie, in words: a shallow tree read out as conditions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.contracts import some
from eocausal.errors import AlignmentError
from eocausal.estimators.region_boxes import (
    Box,
    best_depth,
    clear,
    covered_by,
    f_score,
    grow,
    in_box,
    sample,
    simplified,
    worth_saying,
)
from eocausal.estimators.region_columns import Column, columns_of, condition, encoded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.confounders import Confounders

__all__ = ["Region", "box_words", "describe_region", "find_region"]

FEWEST = 8
SHOWN = 5


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A description of some units among others.

    Attributes
    ----------
    labels
        Labels of the units to be described.
    boxes
        Conditions in words; a unit is inside if it meets all of one. Empty if no description
        by up to four conditions holds on units that it was not made from.
    inside
        (n,) True for the units that the description covers.
    hits
        How many of the units to be described are inside.
    held_out_precision, held_out_recall
        Share of the units covered that are meant, and share of the units meant that are covered,
        by descriptions made from other units; NaN where too few units are meant to try.
    columns
        Columns that were looked at.
    """

    labels: pd.Index
    boxes: tuple[str, ...]
    inside: NDArray[np.bool_]
    hits: int
    held_out_precision: float = math.nan
    held_out_recall: float = math.nan
    columns: tuple[str, ...] = ()

    @property
    def precision(self) -> float:
        """Share of the units inside that are meant; NaN without a description."""
        return self.hits / int(self.inside.sum()) if self.inside.any() else math.nan

    @property
    def recall(self) -> float:
        """Share of the units meant that are inside; NaN if no unit is meant."""
        return self.hits / len(self.labels) if len(self.labels) else math.nan

    def words(self) -> str:
        """Say which units, where they lie, and how well that is said."""
        n = len(self.labels)
        if n == 0:
            return "no unit"
        named = some(self.labels, SHOWN)
        count = f"{n:,} unit{'s' if n > 1 else ''}"
        if n == len(self.inside):
            return f"all {count}"
        if not self.boxes:
            if n < FEWEST or not self.columns:
                return f"{count}: {named}"
            return f"{count} in no simple region of {_names(self.columns)}: {named}"
        where = "; or ".join(self.boxes)
        others = int(self.inside.sum()) - self.hits
        if others == 0 and self.hits == n:
            return f"{count}, exactly those with {where}: {named}"
        if self.hits == n:
            return f"{count}, all with {where} (as are {others:,} others): {named}"
        also = f"as are {others:,} others" if others else "and no others"
        return f"{count}, {self.hits:,} of them with {where} ({also}): {named}"


def _names(names: tuple[str, ...], limit: int = 6) -> str:
    """List the first few names."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def describe_region(confounders: Confounders, units: pd.DataFrame, bad: NDArray[np.bool_]) -> str:
    """Say in words where some units lie, e.g. those that could hardly have been treated.

    Parameters
    ----------
    confounders
        Of the n units; columns of the table are used, features of images are not.
    units
        (n) rows; ``lon``, ``lat`` and ``country`` are used even if they are no confounders.
    bad
        (n,) True for the units to be described.

    Returns
    -------
    E.g. ``132 units, exactly those with lon below 20.1 and country Angola: 45, 51 and 130 more``.

    Raises
    ------
    AlignmentError
        If lengths differ.
    """
    return find_region(confounders, units, bad).words()


def find_region(confounders: Confounders, units: pd.DataFrame, bad: NDArray[np.bool_]) -> Region:
    """Describe units by the leaves of a classification tree (Breiman et al. 1984).

    The depth is the one whose descriptions, made from three quarters of the units, have the best
    F-score on the rest. Nothing is described if that is less than halfway from the F-score of
    naming all units to 1. A column of texts is split by the share of ``bad`` units of its values,
    so that a condition is a list of values. Of more than 20,000 units a sample is looked at.

    Parameters
    ----------
    confounders, units, bad
        As in :func:`describe_region`.

    Returns
    -------
    Region

    Raises
    ------
    AlignmentError
        If lengths differ.
    """
    bad = np.asarray(bad, dtype=bool)
    if not len(bad) == len(units) == confounders.n:
        raise AlignmentError(
            f"{len(bad)} marks and {len(units)} rows for the confounders of {confounders.n} units.",
            cause="Each unit has one mark and one row.",
            next_step="Make them from the same table, in the same order.",
        )
    columns = columns_of(confounders, units)
    names = tuple(column.name for column in columns)
    labels, nowhere = units.index[bad], np.zeros(len(bad), dtype=bool)
    n_bad = int(bad.sum())
    if not columns or n_bad < FEWEST or n_bad == len(bad):
        return Region(labels, (), nowhere, 0, columns=names)
    rows = sample(bad)
    depth, precision, recall = best_depth([column.at(rows) for column in columns], bad[rows])
    if not f_score(precision, recall) >= clear(n_bad / len(bad)):
        return Region(labels, (), nowhere, 0, precision, recall, names)
    coded = encoded(columns, bad, rows)
    boxes = worth_saying(grow(coded, bad, rows, depth), coded, bad)
    boxes = simplified(boxes, coded, bad)
    inside = covered_by(boxes, coded)
    return Region(
        labels,
        tuple(box_words(box, columns, coded) for box in boxes),
        inside,
        int((inside & bad).sum()),
        precision,
        recall,
        names,
    )


def box_words(box: Box, columns: list[Column], coded: NDArray[np.float64]) -> str:
    """Say the conditions of a box."""
    said = []
    for j, ends in sorted(box.items()):
        elsewhere = in_box({key: at for key, at in box.items() if key != j}, coded)
        said.append(condition(columns[j], coded[:, j], ends, elsewhere))
    return " and ".join(said)
