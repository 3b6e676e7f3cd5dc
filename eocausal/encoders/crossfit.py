"""Which network may learn from which place, and a common coordinate system for their features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from eocausal.contracts import NEIGHBORHOOD, check_columns, check_same_neighborhoods, some
from eocausal.encoders.core import Float32
from eocausal.encoders.objectives import TrainingHead
from eocausal.errors import AlignmentError, EncoderError, FoldError

if TYPE_CHECKING:
    import pandas as pd

    from eocausal.folds import FoldRule

__all__ = ["Aligned", "Parts", "align", "fold_of_neighborhoods", "parts_of", "rows_of_units"]

Int64 = NDArray[np.int64]

_LEAST_SD = 0.01


def rows_of_units(units: pd.DataFrame, neighborhoods: pd.Index) -> Int64:
    """Position of each unit's neighborhood in the cube; (units,).

    Raises
    ------
    MissingColumnError
        If the units name no neighborhood, in a column or as their index.
    AlignmentError
        If a neighborhood is not in the cube.
    """
    import pandas as pd

    if units.index.name == NEIGHBORHOOD and NEIGHBORHOOD not in units.columns:
        labels = units.index
    else:
        check_columns(units, [NEIGHBORHOOD], what="units table")
        labels = pd.Index(units[NEIGHBORHOOD])
    if labels.hasnans:
        raise AlignmentError(
            f"{int(np.sum(labels.isna()))} units name no neighborhood.",
            cause="Without one it is unknown which image is theirs.",
            next_step="Complete the column 'neighborhood', or drop these units.",
        )
    check_same_neighborhoods(labels.unique(), neighborhoods, what="cube")
    return np.asarray(neighborhoods.get_indexer(labels), dtype=np.int64)


def fold_of_neighborhoods(
    units: pd.DataFrame, row: Int64, neighborhoods: pd.Index, folds: FoldRule, *, seed: int
) -> Int64:
    """Give each neighborhood the fold of its units; -1 where it has none. ``(neighborhoods,)``.

    Folds are dealt without looking at any label.

    Raises
    ------
    FoldError
        If units of one neighborhood are in several folds, or folds are not 0..k-1.
    """
    of_unit = np.asarray(folds.assign(units, seed=seed), dtype=np.int64)
    if of_unit.shape != (len(units),) or not np.isin(of_unit, np.arange(folds.k)).all():
        raise FoldError(
            f"{folds!r} gives {len(units)} units the folds {some(np.unique(of_unit))}.",
            cause=f"Every unit has one fold, and {folds.k} folds are numbered from 0.",
            next_step="Correct its method assign, or use GroupFolds on a column of your own.",
        )
    fold = np.full(len(neighborhoods), -1, dtype=np.int64)
    fold[row] = of_unit
    split = np.unique(row[fold[row] != of_unit])
    if len(split):
        raise FoldError(
            f"{len(split)} neighborhoods have units in several folds: "
            f"{some(neighborhoods[split])}.",
            cause="A network would be trained on the treatment of the image it is to encode.",
            next_step=f"Use folds that keep neighborhoods whole, e.g. "
            f"GroupFolds({NEIGHBORHOOD!r}) or SpatialBlocks(km=...) on the neighborhoods' places.",
        )
    return fold


@dataclass(frozen=True, slots=True)
class Parts:
    """Folds that a network is trained on, and those that decide when it stops."""

    network: int
    training: tuple[int, ...]
    held_out: tuple[int, ...]


def parts_of(k: int, held_out: int) -> tuple[Parts, ...]:
    """Split ``k`` folds for each of ``k`` networks: its own fold is in neither part.

    Network j stops by the ``held_out`` folds that follow fold j, in a circle.

    Raises
    ------
    FoldError
        If no fold is left to train on.
    """
    if k - 1 - held_out < 1:
        raise FoldError(
            f"Of {k} folds one is predicted and {held_out} decide when to stop.",
            cause="None is left to train on.",
            next_step=f"Use at least {held_out + 2} folds, or TrainingSchedule(held_out=0).",
        )
    parts = []
    for network in range(k):
        after = [(network + i) % k for i in range(1, k)]
        parts.append(Parts(network, tuple(after[held_out:]), tuple(after[:held_out])))
    return tuple(parts)


class Aligned(torch.nn.Module):
    """What a network's head says, and the network's features moved to mean 0, turned and scaled.

    What the head says comes first: networks agree on what a logit is, however their features lie.
    """

    centre: torch.Tensor
    turn: torch.Tensor

    def __init__(
        self,
        network: torch.nn.Module,
        head: TrainingHead,
        centre: torch.Tensor,
        turn: torch.Tensor,
    ) -> None:
        super().__init__()
        self.network = network
        self.head = head
        self.register_buffer("centre", centre)
        self.register_buffer("turn", turn)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return the scores and ``(features - centre) turn``, ``(n, outputs + f)``."""
        features: torch.Tensor = self.network(*inputs)
        turned = (features - self.centre) @ self.turn
        return torch.cat([self.head.scores(features), turned], dim=1)


def align(
    network: torch.nn.Module,
    head: TrainingHead,
    features: Float32,
    reference: Float32,
    number: int,
) -> Aligned:
    """Turn a network's features onto a reference (orthogonal Procrustes; Schönemann 1966).

    ``R = U V'`` with ``U S V'`` the singular value decomposition of ``(F - mean)' (G - mean)``; it
    minimises ``|| (F - mean) R - (G - mean) ||``. One factor makes the features' mean variance 1;
    a feature that then hardly varies (sd below 0.01) becomes 0, since a model that standardises its
    inputs would make noise of it that differs from network to network.

    Parameters
    ----------
    network, head
        The network of these features, and what was trained on them.
    features, reference
        ``(n, f)`` of the same chips; the reference has seen no label.
    number
        Of the network, for messages.

    Raises
    ------
    EncoderError
        If features are not finite, or the same for all chips.
    """
    own, common = features.astype(np.float64), reference.astype(np.float64)
    centre = own.mean(axis=0)
    own, common = own - centre, common - common.mean(axis=0)
    size = float(np.sqrt(np.mean(own**2)))
    if not np.isfinite(size) or size <= 1e-6 * max(1.0, float(np.abs(centre).max())):
        raise EncoderError(
            f"The features of network {number} are "
            f"{'the same for all chips' if np.isfinite(size) else 'not finite'}.",
            cause="Its weights have gone where no chip makes a difference.",
            next_step="Lower learning_rate or weight_decay, or choose another network.",
        )
    left, _, right = np.linalg.svd(own.T @ common)
    turn = (left @ right) / size
    turn[:, (own @ turn).std(axis=0) < _LEAST_SD] = 0.0
    return Aligned(
        network,
        head,
        torch.from_numpy(centre.astype(np.float32)),
        torch.from_numpy(turn.astype(np.float32)),
    )
