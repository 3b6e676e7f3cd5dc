"""Probabilities of the arms by plain (multinomial) logistic regression, without a penalty.

The textbook's model: what it gives can be checked against anyone's, and in sample the variance of
weighted means can account for its estimation (:mod:`~eocausal.estimators.hajek`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eocausal.contracts import some
from eocausal.errors import OverlapError
from eocausal.estimators.design_columns import design_columns, independent_columns
from eocausal.estimators.hajek import information
from eocausal.estimators.inner_folds import check_arms
from eocausal.estimators.many_logits import log_losses, probabilities
from eocausal.estimators.newton import minimise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from eocausal.estimators.confounders import Confounders
    from eocausal.folds import Splits

__all__ = ["Logit"]


@dataclass(frozen=True, slots=True)
class Logit:
    """(Multinomial) logistic regression of the arm by maximum likelihood.

    Columns that are constant, or a linear combination of earlier ones, are left out, as R's
    ``glm`` does. It suits few columns and many units of every arm; with hundreds of image features
    use :class:`~eocausal.estimators.ridge_logit.RidgeLogit`.
    """

    def design(self, confounders: Confounders) -> NDArray[np.float64]:
        """Return (n, q) independent columns of the model on all units, the intercept first.

        The others have mean 0 and standard deviation 1, which no fitted probability depends on.
        """
        return design_columns(confounders.x)[0]

    def cross_fit(
        self, confounders: Confounders, arm: NDArray[np.int64], splits: Splits, *, seed: int
    ) -> NDArray[np.float64]:
        """Return (n, K) probabilities, each unit's from the model of its fold; rows sum to 1.

        Parameters
        ----------
        confounders
            Columns.
        arm
            (n,) arm 0..K-1.
        splits
            Who is fitted on whom.
        seed
            Not used.

        Raises
        ------
        OverlapError
            If the columns separate the arms, so that the likelihood has no maximum.
        FoldError
            If a fold is fitted on fewer than two units of an arm.
        """
        arms = check_arms(arm, splits)
        z, kept = design_columns(confounders.x)
        names = ["intercept", *(confounders.names[j] for j in kept)]
        out = np.empty((len(arm), arms))
        for k in np.unique(splits.fold):
            here, train = splits.fold == k, splits.train[:, k]
            found = _fit(z[train], arm[train], arms, names)
            out[here] = probabilities(np.column_stack([np.zeros(int(here.sum())), z[here] @ found]))
        return out


def _fit(
    z: NDArray[np.float64], arm: NDArray[np.int64], arms: int, names: Sequence[str]
) -> NDArray[np.float64]:
    """Return (q, K-1) coefficients for logits against arm 0, 0 for columns that depend on others.

    Raises
    ------
    OverlapError
    """
    n, m = len(arm), arms - 1
    used = independent_columns(z)
    axes, turn = np.linalg.qr(z[:, used])
    axes, turn = axes * np.sqrt(n), turn / np.sqrt(n)
    indicator = arm[:, None] == np.arange(1, arms)

    def logits(at: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(axes @ at.reshape(m, -1).T)

    def value(at: NDArray[np.float64]) -> float:
        eta = np.column_stack([np.zeros(n), logits(at)])
        return float(log_losses(eta[:, :, None], arm)[0].sum())

    def derivatives(
        at: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        p = probabilities(np.column_stack([np.zeros(n), logits(at)]))[:, 1:]
        return ((p - indicator).T @ axes).reshape(-1), information(p, axes)

    share = np.bincount(arm, minlength=arms) / n
    start = np.outer(np.log(share[1:] / share[0]), axes.mean(axis=0)).reshape(-1)
    found = minimise(value, derivatives, start, lambda step: float(np.abs(logits(step)).max()))
    out = np.zeros((z.shape[1], m))
    if not found.converged:
        out[used] = np.linalg.solve(turn, found.step.reshape(m, -1).T)
        raise _separated(z, arm, np.abs(out).max(axis=1), names)
    out[used] = np.linalg.solve(turn, found.at.reshape(m, -1).T)
    return out


def _separated(
    z: NDArray[np.float64],
    arm: NDArray[np.int64],
    growth: NDArray[np.float64],
    names: Sequence[str],
) -> OverlapError:
    """Name the columns that separate arms: each alone, or else those whose coefficients grow."""
    alone = [j for j in range(1, z.shape[1]) if _parts(z[:, j], arm)]
    growth = np.where(np.arange(len(growth)) == 0, 0.0, growth)
    together = np.argsort(-growth)[: int((growth > 0.25 * growth.max()).sum())]
    named = some(names[j] for j in alone or together)
    what = "each of them alone does" if alone else "together they do"
    return OverlapError(
        f"Plain logistic regression has no solution: columns tell arms apart without error "
        f"({named}; {what}).",
        cause=f"Fitted probabilities of {len(arm):,} units by {z.shape[1]} columns would be 0 or "
        "1, and weights infinite: some units have no counterpart in another arm, or there are too "
        "many columns for the units of an arm.",
        next_step="Use a penalty (RidgeLogit), leave out or merge these columns, or leave out the "
        "units that occur in one arm only.",
    )


def _parts(x: NDArray[np.float64], arm: NDArray[np.int64]) -> bool:
    """Whether one column alone sets an arm apart from all others, or touches them at one value."""
    for k in range(int(arm.max()) + 1):
        mine, rest = x[arm == k], x[arm != k]
        for one, two in ((mine, rest), (rest, mine)):
            if one.max() <= two.min() and one.min() < two.max():
                return True
    return False
