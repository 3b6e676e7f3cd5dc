"""Boxes of conditions that hold units to be described: leaves of a classification tree, tidied."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from eocausal.estimators.region_columns import encoded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.region_columns import Column

__all__ = [
    "Box",
    "best_depth",
    "clear",
    "covered_by",
    "f_score",
    "grow",
    "in_box",
    "sample",
    "simplified",
    "worth_saying",
]

DEPTHS = (1, 2, 3, 4)
FOLDS = 4
SAMPLE = 20_000

Box = dict[int, tuple[float, float]]


def sample(bad: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the units that a description is made from: enough of them, not a hundred thousand."""
    n = len(bad)
    if n <= SAMPLE or bad.sum() * SAMPLE < 200 * n:
        return np.ones(n, dtype=bool)
    return np.asarray(np.random.default_rng(0).permutation(n) < SAMPLE)


def best_depth(columns: list[Column], bad: NDArray[np.bool_]) -> tuple[int, float, float]:
    """Return the depth that describes held-out units best, with its precision and recall."""
    rng = np.random.default_rng(0)
    fold = np.empty(len(bad), dtype=np.int64)
    for group in (bad, ~bad):
        fold[group] = rng.permutation(int(group.sum())) % FOLDS
    covered = np.zeros((len(DEPTHS), len(bad)), dtype=bool)
    for k in range(FOLDS):
        rows = fold != k
        coded = encoded(columns, bad, rows)
        for i, depth in enumerate(DEPTHS):
            found = covered_by(grow(coded, bad, rows, depth), coded)
            covered[i, ~rows] = found[~rows]
    hits = (covered & bad).sum(axis=1)
    precision = hits / np.maximum(covered.sum(axis=1), 1)
    recall = hits / int(bad.sum())
    scores = np.array([f_score(p, r) for p, r in zip(precision, recall, strict=True)])
    best = int(np.flatnonzero(scores >= scores.max() - 0.02)[0])
    return DEPTHS[best], float(precision[best]), float(recall[best])


def f_score(precision: float, recall: float) -> float:
    """Return the harmonic mean of precision and recall, 0 if both are."""
    total = precision + recall
    return 2 * precision * recall / total if total > 0 else 0.0


def clear(share: float) -> float:
    """F-score from which on a description says more than that all units are meant."""
    return 0.5 + share / (1 + share)


def grow(
    coded: NDArray[np.float64],
    bad: NDArray[np.bool_],
    rows: NDArray[np.bool_],
    depth: int,
    purity: float = 0.5,
) -> list[Box]:
    """Fit a tree on some rows and return the boxes where a share ``purity`` of them is bad."""
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
            return ([within], True) if share[node] >= purity else ([], False)
        j, cut = int(tree.feature[node]), float(tree.threshold[node])
        low, high = within.get(j, (-math.inf, math.inf))
        one, all_one = boxes(left, {**within, j: (low, min(high, cut))})
        two, all_two = boxes(right, {**within, j: (max(low, cut), high)})
        return ([within], True) if all_one and all_two else (one + two, False)

    return [box for box in boxes(0, {})[0] if box]


def in_box(box: Box, coded: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mark the units, (n, columns) as coded, that meet all conditions of a box."""
    inside = np.ones(len(coded), dtype=bool)
    for j, (low, high) in box.items():
        inside &= (coded[:, j] > low) & (coded[:, j] <= high)
    return inside


def covered_by(boxes: list[Box], coded: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mark the units that meet all conditions of some box."""
    inside = np.zeros(len(coded), dtype=bool)
    for box in boxes:
        inside |= in_box(box, coded)
    return inside


def worth_saying(
    boxes: list[Box], coded: NDArray[np.float64], bad: NDArray[np.bool_], limit: int = 3
) -> list[Box]:
    """Keep the boxes with most bad units: at most three, each with a twentieth of them."""
    counted = [(int((in_box(box, coded) & bad).sum()), i) for i, box in enumerate(boxes)]
    kept = sorted(counted, key=lambda item: (-item[0], item[1]))[:limit]
    return [boxes[i] for hits, i in kept if hits >= 0.05 * bad.sum() or i == kept[0][1]]


def simplified(boxes: list[Box], coded: NDArray[np.float64], bad: NDArray[np.bool_]) -> list[Box]:
    """Drop conditions without which no further unit is covered that is not meant."""
    for i in range(len(boxes)):
        for j in list(boxes[i]):
            shorter = {key: ends for key, ends in boxes[i].items() if key != j}
            tried = [*boxes[:i], shorter, *boxes[i + 1 :]]
            more = covered_by(tried, coded) & ~covered_by(boxes, coded)
            if shorter and not (more & ~bad).any():
                boxes = tried
    return boxes
