"""Outcomes under each arm by ridge regression, cross-fitted, the penalty chosen within folds.

Every fit comes from the cross products of groups of units, which are summed up once: the data are
read once to fit and once to score, whatever the number of folds and penalties.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eocausal.estimators.inner_folds import check_arms
from eocausal.estimators.penalties import Cells, cells_of, penalties_of
from eocausal.estimators.ridge_path import ridge_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.confounders import Confounders
    from eocausal.folds import Splits

__all__ = ["Ridge"]

BLOCK = 2048


@dataclass(frozen=True, slots=True)
class Ridge:
    """Ridge regression of the outcome, for each arm apart (Hoerl & Kennard 1970).

    Minimises Σ(y − α − xβ)² + λ‖β‖² over an arm's training units, with standardised columns, each
    source with total variance one (:meth:`Confounders.standardised`): λ is about the ratio of the
    outcome's variance that the columns cannot explain to that which they can. For each fold and
    arm λ is chosen by the squared error on units that are held out within the fold's training
    units; the inner folds are the other folds (:mod:`~eocausal.estimators.penalties`).

    It is not the λ that predicts best. What a penalty keeps out of the outcome model, another
    keeps out of the probabilities, and what neither knows biases the effect; noise in predictions
    of units that were not fitted on only adds to its variance, by no more than the same share
    (Newey & Robins 2018, arXiv 1801.09138: models behind an effect should smooth less).

    Parameters
    ----------
    penalties
        Values of λ to choose from; one is taken as it is. Default: half-decades from 0.1 to
        1,000, extended as long as the chosen one is at an end.
    slack
        The weakest λ is taken whose held-out squared error exceeds the least by no more than this
        share; 0: the λ of least error.
    """

    penalties: Sequence[float] | None = None
    slack: float = 0.05

    def __post_init__(self) -> None:
        penalties_of(self.penalties, self.slack)

    def cross_fit(
        self,
        confounders: Confounders,
        y: NDArray[np.float64],
        arm: NDArray[np.int64],
        splits: Splits,
        *,
        seed: int,
    ) -> NDArray[np.float64]:
        """Return (n, K) predictions under each arm, each unit's from the model of its fold.

        Parameters
        ----------
        confounders
            Columns.
        y
            (n,) outcome.
        arm
            (n,) arm 0..K-1.
        splits
            Who is fitted on whom.
        seed
            Of inner folds that are dealt at random (with one or two folds).

        Raises
        ------
        FoldError
            If a fold is fitted on fewer than two units of an arm.
        """
        arms = check_arms(arm, splits)
        rule = penalties_of(self.penalties, self.slack)
        x = confounders.standardised()
        choose = rule.fixed is None and x.shape[1] > 0
        cells = cells_of(splits, arm, seed=seed, choose=choose)
        folds = np.unique(splits.fold)
        out = np.empty((len(y), arms))
        for a in range(arms):
            part = _Arm.of(x, y - y.mean(), cells.only(arm == a))
            chosen = np.full(len(folds), rule.fixed or 1.0)
            if choose:
                chosen = rule.choose(part.loss, folds, len(y))
            out[:, a] = y.mean() + part.predict(splits, folds, chosen)
        return out


@dataclass(frozen=True, slots=True, eq=False)
class _Arm:
    """Sums over the units of one arm, by cell."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    cells: Cells
    sums: NDArray[np.float64]
    """(c, q + 2, q + 2) cross products of (1, y, x)."""

    @classmethod
    def of(cls, x: NDArray[np.float64], y: NDArray[np.float64], cells: Cells) -> _Arm:
        own = np.concatenate(cells.rows)
        if len(own) < x.shape[1]:
            # Coefficients lie in the span of the arm's units: fewer, rotated columns say the same.
            x = x @ np.linalg.qr(x[own].T)[0]
        q = x.shape[1] + 2
        sums = np.zeros((len(cells.rows), q, q))
        for i, rows in enumerate(cells.rows):
            for begin in range(0, len(rows), BLOCK):
                some = rows[begin : begin + BLOCK]
                z = np.empty((len(some), q))
                z[:, 0], z[:, 1], z[:, 2:] = 1.0, y[some], x[some]
                sums[i] += z.T @ z
        return cls(x, y, cells, sums)

    def fit(
        self, task: int, penalties: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (L,) intercepts and (q, L) coefficients, one of each penalty."""
        c, q, _ = self.sums.shape
        s = (self.cells.train[:, task].astype(float) @ self.sums.reshape(c, -1)).reshape(q, q)
        mean = s[0, 1:] / max(s[0, 0], 1.0)
        centred = s[1:, 1:] - s[0, 0] * np.outer(mean, mean)
        slope = ridge_path(centred[1:, 1:], centred[1:, 0], penalties)
        return mean[0] - mean[1:] @ slope, slope

    def loss(self, penalties: NDArray[np.float64], folds: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (folds, penalties) squared errors on held-out units."""
        fits = {task: self.fit(int(task), penalties) for task in self.cells.inner(folds)}
        out = np.zeros((len(folds), len(penalties)))
        for rows, scored in zip(self.cells.rows, self.cells.scored[:, folds], strict=True):
            asked = np.flatnonzero(scored >= 0)
            if len(asked) == 0:
                continue
            level = np.concatenate([fits[scored[i]][0] for i in asked])
            slope = np.concatenate([fits[scored[i]][1] for i in asked], axis=1)
            for begin in range(0, len(rows), BLOCK):
                some = rows[begin : begin + BLOCK]
                error = self.y[some, None] - level - self.x[some] @ slope
                out[asked] += (error**2).sum(axis=0).reshape(len(asked), -1)
        return out

    def predict(
        self, splits: Splits, folds: NDArray[np.int64], penalties: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return (n,) predictions of all units under the arm."""
        out = np.empty(len(self.y))
        for k, penalty in zip(folds, penalties, strict=True):
            level, slope = self.fit(int(k), np.array([penalty]))
            here = np.flatnonzero(splits.fold == k)
            for begin in range(0, len(here), BLOCK):
                some = here[begin : begin + BLOCK]
                out[some] = level + self.x[some] @ slope[:, 0]
        return out
