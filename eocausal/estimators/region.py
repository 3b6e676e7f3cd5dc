"""Where units without counterpart lie, in words: a shallow tree read out as conditions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eocausal.contracts import some
from eocausal.errors import AlignmentError
from eocausal.estimators.confounders import TABLE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.confounders import Confounders

__all__ = ["Region", "describe_region", "find_region"]

PLACES = ("lon", "lat", "longitude", "latitude", "country")
DEPTHS = (1, 2, 3, 4)
FOLDS = 4
FEWEST = 8
SHOWN = 5

Interval = tuple[float, float]
Box = dict[int, Interval]


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
            return f"{count} in no simple region of {some_names(self.columns)}: {named}"
        where = "; or ".join(self.boxes)
        others = int(self.inside.sum()) - self.hits
        if others == 0 and self.hits == n:
            return f"{count}, exactly those with {where}: {named}"
        if self.hits == n:
            return f"{count}, all with {where} (as are {others:,} others): {named}"
        also = f"as are {others:,} others" if others else "and no others"
        return f"{count}, {self.hits:,} of them with {where} ({also}): {named}"


def some_names(names: tuple[str, ...], limit: int = 6) -> str:
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
    F-score on the rest. Nothing is described if that is not halfway from the F-score of naming all
    units to 1. A column of texts is split by the share of
    ``bad`` units of its values, so that a condition is a list of values.

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
    columns = _columns(confounders, units)
    names = tuple(column.name for column in columns)
    labels, nowhere = units.index[bad], np.zeros(len(bad), dtype=bool)
    n_bad = int(bad.sum())
    if not columns or n_bad < FEWEST or n_bad == len(bad):
        return Region(labels, (), nowhere, 0, columns=names)
    depth, precision, recall = _depth(columns, bad)
    if not _f_score(precision, recall) >= _clear(n_bad / len(bad)):
        return Region(labels, (), nowhere, 0, precision, recall, names)
    everyone = np.ones(len(bad), dtype=bool)
    coded = _encoded(columns, bad, everyone)
    boxes = _worth_saying(_grow(coded, bad, everyone, depth), coded, bad)
    boxes = _simplified(boxes, coded, bad)
    inside = _covered(boxes, coded)
    return Region(
        labels,
        tuple(_box_words(box, columns, coded) for box in boxes),
        inside,
        int((inside & bad).sum()),
        precision,
        recall,
        names,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    """A column to split on: numbers, or codes of texts where there are levels."""

    name: str
    values: NDArray[np.float64]
    levels: tuple[str, ...] = ()
    since: pd.Timestamp | None = None

    def encoded(self, bad: NDArray[np.bool_], rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return (n,) numbers; texts by the share of ``bad`` among ``rows`` with that value."""
        if not self.levels:
            return self.values
        code = self.values.astype(np.int64)
        k = len(self.levels)
        count = np.bincount(code[rows], minlength=k)
        hits = np.bincount(code[rows], bad[rows], minlength=k)
        share = (hits + bad[rows].mean()) / (count + 1)
        return np.asarray(share[code])


def _columns(confounders: Confounders, units: pd.DataFrame) -> list[_Column]:
    table = confounders.blocks.index(TABLE) if TABLE in confounders.blocks else -1
    found: dict[str, _Column] = {}
    for j in np.flatnonzero(confounders.block == table):
        name = confounders.names[j]
        text, _, level = name.partition("=")
        if level and name not in units.columns and text in units.columns:
            found.setdefault(text, _of_texts(text, units[text]))
            continue
        since = None
        if name in units.columns and pd.api.types.is_datetime64_any_dtype(units[name]):
            since = units[name].min()
        found[name] = _Column(name, confounders.x[:, j], since=since)
    for name in PLACES:
        if name not in units.columns or name in found:
            continue
        values = units[name]
        if pd.api.types.is_numeric_dtype(values):
            found[name] = _Column(name, values.to_numpy(dtype=float, na_value=np.nan))
        else:
            found[name] = _of_texts(name, values)
    return [c for c in found.values() if np.isfinite(c.values).all() and np.ptp(c.values) > 0]


def _of_texts(name: str, values: pd.Series) -> _Column:
    code, levels = pd.factorize(values.astype(str), sort=True)
    return _Column(name, code.astype(float), tuple(map(str, levels)))


def _encoded(
    columns: list[_Column], bad: NDArray[np.bool_], rows: NDArray[np.bool_]
) -> NDArray[np.float64]:
    return np.stack([column.encoded(bad, rows) for column in columns], axis=1)


def _depth(columns: list[_Column], bad: NDArray[np.bool_]) -> tuple[int, float, float]:
    """Return the depth that describes held-out units best, with its precision and recall."""
    rng = np.random.default_rng(0)
    fold = np.empty(len(bad), dtype=np.int64)
    for group in (bad, ~bad):
        fold[group] = rng.permutation(int(group.sum())) % FOLDS
    covered = np.zeros((len(DEPTHS), len(bad)), dtype=bool)
    for k in range(FOLDS):
        rows = fold != k
        coded = _encoded(columns, bad, rows)
        for i, depth in enumerate(DEPTHS):
            found = _covered(_grow(coded, bad, rows, depth), coded)
            covered[i, ~rows] = found[~rows]
    hits = (covered & bad).sum(axis=1)
    precision = hits / np.maximum(covered.sum(axis=1), 1)
    recall = hits / int(bad.sum())
    scores = np.array([_f_score(p, r) for p, r in zip(precision, recall, strict=True)])
    best = int(np.flatnonzero(scores >= scores.max() - 0.02)[0])
    return DEPTHS[best], float(precision[best]), float(recall[best])


def _f_score(precision: float, recall: float) -> float:
    total = precision + recall
    return 2 * precision * recall / total if total > 0 else 0.0


def _clear(share: float) -> float:
    """F-score from which on a description says more than that all units are meant."""
    return 0.5 + share / (1 + share)


def _grow(
    coded: NDArray[np.float64], bad: NDArray[np.bool_], rows: NDArray[np.bool_], depth: int
) -> list[Box]:
    """Fit a tree on some rows and return the boxes where most of them are bad."""
    from sklearn.tree import DecisionTreeClassifier

    x, wanted = coded[rows], bad[rows]
    fewest = max(2, int(0.02 * wanted.sum()))
    model = DecisionTreeClassifier(
        max_depth=depth, min_samples_leaf=fewest, class_weight="balanced", random_state=0
    ).fit(x, wanted)
    tree: Any = model.tree_
    leaf = model.apply(x)
    total = np.bincount(leaf, minlength=tree.node_count)
    share = np.bincount(leaf, wanted, tree.node_count) / np.maximum(total, 1)

    def boxes(node: int, within: Box) -> tuple[list[Box], bool]:
        left, right = int(tree.children_left[node]), int(tree.children_right[node])
        if left < 0:
            return ([within], True) if share[node] >= 0.5 else ([], False)
        j, cut = int(tree.feature[node]), float(tree.threshold[node])
        low, high = within.get(j, (-math.inf, math.inf))
        one, all_one = boxes(left, {**within, j: (low, min(high, cut))})
        two, all_two = boxes(right, {**within, j: (max(low, cut), high)})
        return ([within], True) if all_one and all_two else (one + two, False)

    return [box for box in boxes(0, {})[0] if box]


def _in_box(box: Box, coded: NDArray[np.float64]) -> NDArray[np.bool_]:
    inside = np.ones(len(coded), dtype=bool)
    for j, (low, high) in box.items():
        inside &= (coded[:, j] > low) & (coded[:, j] <= high)
    return inside


def _covered(boxes: list[Box], coded: NDArray[np.float64]) -> NDArray[np.bool_]:
    inside = np.zeros(len(coded), dtype=bool)
    for box in boxes:
        inside |= _in_box(box, coded)
    return inside


def _worth_saying(
    boxes: list[Box], coded: NDArray[np.float64], bad: NDArray[np.bool_], limit: int = 3
) -> list[Box]:
    """Keep the boxes with most bad units: at most three, each with a twentieth of them."""
    counted = [(int((_in_box(box, coded) & bad).sum()), i) for i, box in enumerate(boxes)]
    kept = sorted(counted, key=lambda item: (-item[0], item[1]))[:limit]
    return [boxes[i] for hits, i in kept if hits >= 0.05 * bad.sum() or i == kept[0][1]]


def _simplified(boxes: list[Box], coded: NDArray[np.float64], bad: NDArray[np.bool_]) -> list[Box]:
    """Drop conditions without which no further unit is covered that is not meant."""
    for i in range(len(boxes)):
        for j in list(boxes[i]):
            shorter = {key: ends for key, ends in boxes[i].items() if key != j}
            tried = [*boxes[:i], shorter, *boxes[i + 1 :]]
            more = _covered(tried, coded) & ~_covered(boxes, coded)
            if shorter and not (more & ~bad).any():
                boxes = tried
    return boxes


def _box_words(box: Box, columns: list[_Column], coded: NDArray[np.float64]) -> str:
    return " and ".join(
        _condition(columns[j], coded[:, j], low, high) for j, (low, high) in sorted(box.items())
    )


def _condition(column: _Column, coded: NDArray[np.float64], low: float, high: float) -> str:
    inside = (coded > low) & (coded <= high)
    if column.levels:
        here = np.unique(column.values[inside]).astype(int)
        if 2 * len(here) <= len(column.levels):
            return f"{column.name} {_listed([column.levels[k] for k in here])}"
        there = np.setdiff1d(np.arange(len(column.levels)), here)
        return f"{column.name} not {_listed([column.levels[k] for k in there])}"
    distinct = np.unique(column.values)
    if len(distinct) == 2:
        return f"{column.name} = {column.values[inside][0]:.4g}"
    ends = [None if math.isinf(cut) else _written(column, distinct, cut) for cut in (low, high)]
    below, above = ("below", "above") if column.since is None else ("before", "after")
    if ends[0] is None:
        return f"{column.name} {below} {ends[1]}"
    if ends[1] is None:
        return f"{column.name} {above} {ends[0]}"
    return f"{column.name} between {ends[0]} and {ends[1]}"


def _listed(names: list[str], limit: int = 6) -> str:
    if len(names) > limit:
        return f"{', '.join(names[:limit])} or {len(names) - limit} more"
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _written(column: _Column, distinct: NDArray[np.float64], cut: float) -> str:
    at = int(np.searchsorted(distinct, cut, side="right"))
    number = _roundest(float(distinct[at - 1]), float(distinct[at]))
    if column.since is not None:
        return f"{column.since + pd.Timedelta(days=number):%Y-%m-%d}"
    return f"{number:.12g}"


def _roundest(low: float, high: float) -> float:
    """Return the number with the fewest digits strictly between two numbers."""
    middle = (low + high) / 2
    first = math.floor(math.log10(high - low))
    for digits in range(-first - 1, -first + 3):
        number = round(middle, digits)
        if low < number < high:
            return float(number)
    return middle
