"""Choices made inside the training units of a fold: folds within folds, and when to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eocausal.errors import FoldError
from eocausal.folds import Splits, fold_groups

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["arm_shares", "best_step", "check_arms", "inner_splits", "log_loss"]

FEWEST = 2
INNER = 5


def check_arms(arm: NDArray[np.int64], splits: Splits) -> int:
    """Return the number of arms; every fold must be fitted on some units of each.

    Parameters
    ----------
    arm
        (n,) arm 0..K-1 of each unit.
    splits
        Who is fitted on whom.

    Raises
    ------
    FoldError
        If a fold's model would be fitted on fewer than two units of an arm.
    """
    arms = int(arm.max()) + 1
    for k in range(splits.k):
        counts = np.bincount(arm[splits.train[:, k]], minlength=arms)
        if counts.min() < FEWEST:
            raise FoldError(
                f"The model of fold {k} would be fitted on {counts.min()} units of arm "
                f"{counts.argmin()}.",
                cause="From so few it cannot learn who is in that arm.",
                next_step="Use fewer folds or smaller blocks, or leave the arm out.",
            )
    return arms


def arm_shares(arm: NDArray[np.int64], splits: Splits) -> NDArray[np.float64]:
    """Return (n, K) shares of the arms among the units each unit's model is fitted on."""
    arms = check_arms(arm, splits)
    share = np.stack(
        [np.bincount(arm[splits.train[:, k]], minlength=arms) for k in range(splits.k)]
    ).astype(float)
    return np.asarray((share / share.sum(axis=1, keepdims=True))[splits.fold])


def inner_splits(
    splits: Splits, k: int, arm: NDArray[np.int64], *, seed: int
) -> tuple[NDArray[np.int64], Splits]:
    """Split the training units of one fold for choices that must not see the fold itself.

    The inner folds are the other folds, so that blocks stay whole and buffers are kept. With one
    or two folds there are none, and where leaving out two folds takes an arm away they do not
    serve: then units are dealt at random to five inner folds, each arm in proportion.

    Parameters
    ----------
    splits
        Who is fitted on whom.
    k
        The fold.
    arm
        (n,) arm of each unit.
    seed
        Of the random inner folds.

    Returns
    -------
    (m,) rows of the training units, and splits of these m.
    """
    rows = np.flatnonzero(splits.train[:, k])
    others, fold = np.unique(splits.fold[rows], return_inverse=True)
    if len(others) > 1:
        fold = fold.reshape(-1)
        train = splits.train[np.ix_(rows, others)] & (fold[:, None] != np.arange(len(others)))
        arms = np.unique(arm[rows])
        here = arm[rows][:, None, None] == arms
        if (train[:, :, None] & here).sum(axis=0).min() >= FEWEST:
            return rows, Splits(fold, train)
    fewest = int(np.unique(arm[rows], return_counts=True)[1].min())
    count = max(2, min(INNER, fewest))
    dealt = fold_groups(np.arange(len(rows)), count, seed=seed + k, stratum=arm[rows].astype(float))
    return rows, Splits.of(dealt)


def best_step(losses: Iterator[float], *, patience: int) -> int:
    """Return the step of least loss; stop asking after ``patience`` steps without a new best."""
    best, at = np.inf, 0
    for step, loss in enumerate(losses):
        if loss < best:
            best, at = loss, step
        elif step - at >= patience:
            break
    return at


def log_loss(probability: NDArray[np.float64], arm: NDArray[np.int64]) -> float:
    """Return the sum of -log of the probabilities of the arms that units are in."""
    own = probability[np.arange(len(arm)), arm]
    return float(-np.log(np.maximum(own, 1e-15)).sum())
