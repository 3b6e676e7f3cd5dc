"""Ridge penalties chosen inside the training units of each fold, with every fit used twice.

Inner folds are the other outer folds, so the model that leaves out folds k and j is scored on j to
choose the penalty of k, and on k to choose that of j: K(K - 1)/2 fits instead of K(K - 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from eocausal.errors import EstimationError
from eocausal.estimators.inner_folds import inner_splits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from eocausal.folds import Splits

__all__ = ["GRID", "Cells", "HeldOutLoss", "PenaltyRule", "cells_of", "penalties_of"]

GRID = tuple(float(10.0**power) for power in np.arange(-1.0, 3.01, 0.5))
MORE = 4
FREE = 2e-3


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Units grouped by the fits they are used in; F fits, of which the first K are the folds'.

    Attributes
    ----------
    rows
        Row numbers of the units of each of c cells.
    train
        (c, F) whether a cell's units are used in a fit.
    scored
        (c, K) number of the fit that is scored on a cell to choose the penalty of a fold, or -1.
    """

    rows: tuple[NDArray[np.int64], ...]
    train: NDArray[np.bool_]
    scored: NDArray[np.int64]

    def inner(self, folds: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers of the fits that are scored for some folds."""
        found = np.unique(self.scored[:, folds])
        return found[found >= 0]

    def only(self, mine: NDArray[np.bool_]) -> Cells:
        """Keep some of the n units."""
        return Cells(tuple(rows[mine[rows]] for rows in self.rows), self.train, self.scored)


def cells_of(
    splits: Splits, arm: NDArray[np.int64], *, seed: int, choose: bool = True
) -> Cells:  # fmt: skip
    """Group units by the fits that cross-fitting with a chosen penalty needs.

    Parameters
    ----------
    splits
        Who is fitted on whom.
    arm
        (n,) arm of each unit.
    seed
        Of inner folds that are dealt at random; see
        :func:`~eocausal.estimators.inner_folds.inner_splits`.
    choose
        Whether there is a penalty to choose; else there are no inner fits.
    """
    n = len(arm)
    train = [splits.train[:, k] for k in range(splits.k)]
    scored = np.full((n, splits.k), -1, dtype=np.int64)
    number: dict[bytes, int] = {}
    for k in np.unique(splits.fold) if choose else ():
        rows, inner = inner_splits(splits, k, arm, seed=seed)
        for j in range(inner.k):
            used = np.zeros(n, dtype=bool)
            used[rows[inner.train[:, j]]] = True
            key = np.packbits(used).tobytes()
            if key not in number:
                number[key] = len(train)
                train.append(used)
            scored[rows[inner.fold == j], k] = number[key]
    used = np.stack(train, axis=1)
    code = np.concatenate([used.astype(np.int32), scored.astype(np.int32)], axis=1)
    whole = np.ascontiguousarray(code).view(np.dtype((np.void, code.shape[1] * 4))).reshape(-1)
    _, first, cell = np.unique(whole, return_index=True, return_inverse=True)
    order = np.argsort(cell, kind="stable")
    bounds = np.cumsum(np.bincount(cell))[:-1]
    return Cells(tuple(np.split(order, bounds)), used[first], scored[first])


class HeldOutLoss(Protocol):
    """Held-out loss of penalised fits."""

    def __call__(
        self, penalties: NDArray[np.float64], folds: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return (folds, penalties) loss summed over the training units of each fold."""
        ...


@dataclass(frozen=True, slots=True)
class PenaltyRule:
    """Which penalties are tried.

    Parameters
    ----------
    penalties
        The penalties, none beside them; one is taken as it is. None: half-decades from 0.1 to
        1,000, and further out as long as the chosen one is at the end.
    slack
        Share by which the held-out loss may exceed the least.
    """

    penalties: tuple[float, ...] | None
    slack: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.slack < np.inf:
            raise EstimationError(
                f"slack={self.slack} is no share of a loss.",
                cause="A held-out loss may exceed the least by a share of it, 0 or more.",
                next_step="Give e.g. slack=0.1, or 0 for the penalty of least loss.",
            )
        given = self.penalties
        if given is not None and not (given and all(0 < p < np.inf for p in given)):
            raise EstimationError(
                f"penalties={given} are not ridge penalties.",
                cause="A penalty must be positive and finite, and there must be one.",
                next_step="Give positive numbers, e.g. (0.1, 1.0, 10.0), or None.",
            )

    @property
    def fixed(self) -> float | None:
        """The penalty, where there is nothing to choose."""
        return self.penalties[0] if self.penalties and len(self.penalties) == 1 else None

    def choose(self, loss: HeldOutLoss, folds: NDArray[np.int64], n: int) -> NDArray[np.float64]:
        """Return the penalty of each fold: that of least held-out loss, at a tie the strongest.

        With ``slack``, the weakest to which losses stay within (1 + slack) times the least all the
        way from that one.

        Parameters
        ----------
        loss
            Held-out loss.
        folds
            Numbers of the folds.
        n
            Number of units. The default grid goes no further than 10⁻⁶ (for the sake of slack
            10⁻³), where hardly anything is penalised, and 1000 n, where nothing is left of any
            coefficient.

        Raises
        ------
        EstimationError
            If no penalty has a finite loss.
        """
        if self.fixed is not None:
            return np.full(len(folds), self.fixed)
        grid = np.sort(np.array(self.penalties or GRID))[::-1]
        low, high = 1e-6, 1e3 * n
        table = loss(grid, folds)
        while self.penalties is None:
            best = table.argmin(axis=1)
            top = (best == 0) & (table[:, 0] < table[:, 1]) & (grid[0] < high)
            bottom = (best == len(grid) - 1) & (grid[-1] > low)
            bottom |= (self._weakest(table) == len(grid) - 1) & (grid[-1] > FREE)
            if not (top.any() or bottom.any()):
                break
            more = grid[0] * 10 ** (np.arange(MORE, 0, -1) / 2)
            less = grid[-1] * 10 ** (-np.arange(1, MORE + 1) / 2)
            if top.any():
                grid, table = np.r_[more, grid], np.c_[_only(loss, more, folds, top), table]
            if bottom.any():
                grid, table = np.r_[grid, less], np.c_[table, _only(loss, less, folds, bottom)]
        if not np.isfinite(table.min(axis=1)).all():
            raise EstimationError(
                f"No penalty from {grid[-1]:g} to {grid[0]:g} gives a fit that converges.",
                cause="The penalties are too weak for so many columns.",
                next_step="Give stronger ones, or None for the default.",
            )
        return np.asarray(grid[self._weakest(table)])

    def _weakest(self, table: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the column of each row's choice; penalties get weaker from left to right."""
        best = np.asarray(table.argmin(axis=1))
        if self.slack == 0:
            return best
        bound = (1 + self.slack) * table.min(axis=1, keepdims=True)
        beyond = (table > bound) & (np.arange(table.shape[1]) > best[:, None])
        end = np.where(beyond.any(axis=1), beyond.argmax(axis=1), table.shape[1])
        return np.asarray(end - 1)


def _only(
    loss: HeldOutLoss,
    penalties: NDArray[np.float64],
    folds: NDArray[np.int64],
    wanted: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Compute the loss of some folds; for the others further penalties are not considered."""
    out = np.full((len(folds), len(penalties)), np.inf)
    out[wanted] = loss(penalties, folds[wanted])
    return out


def penalties_of(given: Sequence[float] | None, slack: float = 0.0) -> PenaltyRule:
    """Read what a user gave."""
    return PenaltyRule(None if given is None else tuple(float(p) for p in given), slack)
