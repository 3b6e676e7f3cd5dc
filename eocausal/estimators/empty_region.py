"""Regions of units among whom one arm does not occur, whatever fitted probabilities say.

A model that does not know of a region gives its units ordinary probabilities: the weights look
fine, and the effect there is made up. A region is looked for in one half of the units and must be
empty of the arm in the other half too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eocausal.errors import AlignmentError
from eocausal.estimators.region import Region, box_words
from eocausal.estimators.region_boxes import covered_by, grow, in_box, simplified
from eocausal.estimators.region_columns import columns_of, encoded
from eocausal.folds import halves

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from eocausal.estimators.confounders import Confounders
    from eocausal.estimators.region_boxes import Box

__all__ = ["empty_region"]

DEPTH = 6
EDGE = 0.05


def empty_region(
    confounders: Confounders,
    units: pd.DataFrame,
    member: NDArray[np.bool_],
    *,
    cluster: NDArray[np.int64] | None = None,
    rare: float = 0.05,
    alpha: float = 0.01,
    seed: int = 0,
) -> Region:
    """Find units in whose region no member of an arm occurs.

    A classification tree of depth six on one half of the units proposes boxes without members;
    conditions that keep no member out are dropped. A box counts if it has no member in the other
    half either, once its edges are moved in by up to a twentieth of its units; if that would happen
    by chance with probability below ``alpha`` over the number of boxes where members are spread
    evenly; and if it holds at least 3 / ``rare`` units: with none among n the probability of the
    arm is below 3/n with confidence 0.95 (Hanley & Lippman-Hand 1983, JAMA 249:1743). Where whole
    clusters are treated, clusters are counted in place of units.

    Parameters
    ----------
    confounders
        Of the n units; columns of the table are used, features of images are not.
    units
        (n) rows.
    member
        (n,) True for units of the arm.
    cluster
        (n,) codes of the clusters that are treated or not as a whole; default each unit by itself.
    rare
        Probability of the arm that counts as none.
    seed
        Of the halves.

    Returns
    -------
    Region
        Of all units in such boxes: ``labels`` are theirs, and precision and recall are 1; without
        labels if there is no such box.

    Raises
    ------
    AlignmentError
        If lengths differ.
    """
    member = np.asarray(member, dtype=bool)
    if not len(member) == len(units) == confounders.n:
        raise AlignmentError(
            f"{len(member)} marks and {len(units)} rows for the confounders of {confounders.n} "
            "units.",
            cause="Each unit has one mark and one row.",
            next_step="Make them from the same table, in the same order.",
        )
    columns = columns_of(confounders, units, places=False)
    names = tuple(column.name for column in columns)
    nowhere = np.zeros(len(member), dtype=bool)
    if not columns or not 0 < member.sum() < len(member):
        return Region(units.index[nowhere], (), nowhere, 0, columns=names)
    group = np.arange(len(member)) if cluster is None else cluster
    first = halves(group, seed=seed, stratum=member.astype(float))
    coded = encoded(columns, ~member, first)
    proposed = grow(coded, ~member, first, DEPTH, purity=1.0)
    wide = [simplified([box], coded[first], ~member[first])[0] for box in proposed]
    kept = _confirmed(wide, coded, member, group, ~first, alpha, 3 / rare)
    inside = covered_by(kept, coded)
    said = tuple(box_words(box, columns, coded) for box in kept)
    return Region(units.index[inside], said, inside, int(inside.sum()), columns=names)


def _confirmed(
    boxes: list[Box],
    coded: NDArray[np.float64],
    member: NDArray[np.bool_],
    group: NDArray[np.int64],
    held_out: NDArray[np.bool_],
    alpha: float,
    fewest: float,
) -> list[Box]:
    """Keep boxes without members that are too large to be so by chance, none within the rest."""
    share = _count(group, member & held_out) / _count(group, held_out)
    found: list[tuple[int, Box]] = []
    for proposed in boxes:
        box = _tightened(proposed, coded, member)
        inside = in_box(box, coded)
        n = _count(group, inside & held_out)
        enough = _count(group, inside) >= fewest and (1 - share) ** n < alpha / len(boxes)
        if enough and not (inside & member).any():
            found.append((int(inside.sum()), box))
    kept: list[Box] = []
    for _, box in sorted(found, key=lambda item: -item[0]):
        if (in_box(box, coded) & ~covered_by(kept, coded)).any():
            kept.append(box)
    return kept[:3]


def _count(group: NDArray[np.int64], where: NDArray[np.bool_]) -> int:
    return len(np.unique(group[where]))


def _tightened(box: Box, coded: NDArray[np.float64], member: NDArray[np.bool_]) -> Box:
    """Move edges in past members near them, while a twentieth of the units is not yet lost."""
    least = (1 - EDGE) * in_box(box, coded).sum()
    while (in_box(box, coded) & member).any():
        tried = [_without_outermost(box, coded, member, j, k) for j in box for k in (0, 1)]
        sizes = [int(in_box(new, coded).sum()) for new in tried]
        best = int(np.argmax(sizes))
        if sizes[best] < least:
            break
        box = tried[best]
    return box


def _without_outermost(
    box: Box, coded: NDArray[np.float64], member: NDArray[np.bool_], j: int, side: int
) -> Box:
    """Move one edge past the member that is nearest to it."""
    inside = in_box(box, coded)
    values = coded[inside, j]
    members = coded[inside & member, j]
    low, high = box[j]
    if side == 0:
        return {**box, j: (float(members.min()), high)}
    under = values[values < members.max()]
    return {**box, j: (low, float(under.max(initial=-np.inf)))}
