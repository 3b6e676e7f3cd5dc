"""Probabilities of the arms by ridge logistic regression, the penalty chosen within folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eocausal.errors import EstimationError
from eocausal.estimators.inner_folds import arm_shares, check_arms
from eocausal.estimators.many_logits import ManyLogits, principal_columns, probabilities
from eocausal.estimators.penalties import cells_of, penalties_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.confounders import Confounders
    from eocausal.folds import Splits

__all__ = ["RidgeLogit"]

STRONG = 1.0
"""A penalty from which on every fit converges."""


@dataclass(frozen=True, slots=True)
class RidgeLogit:
    """Ridge logistic regression of the arm (le Cessie & van Houwelingen 1992).

    Minimises the log loss plus λ/2 ‖β‖² over standardised columns, each source with total variance
    one (:meth:`Confounders.standardised`), the intercept free: λ is about the inverse of the
    variance of the logit. More than two arms have a β each, all penalised alike. For each fold λ is
    the one of least log loss on units that are held out within the fold's training units; the
    inner folds are the other folds (:mod:`~eocausal.estimators.penalties`).

    Parameters
    ----------
    penalties
        Values of λ to choose from; one is taken as it is. Default: half-decades from 0.1 to
        1,000, extended as long as the best is at an end. Where columns separate arms, hardly
        penalised fits run away and do not converge: then the first of a hundred, ten thousand, ...
        times the chosen penalty that does is taken.
    """

    penalties: Sequence[float] | None = None

    def __post_init__(self) -> None:
        penalties_of(self.penalties)

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
            Of inner folds that are dealt at random (with one or two folds).

        Raises
        ------
        FoldError
            If a fold is fitted on fewer than two units of an arm.
        EstimationError
            If a fit does not converge.
        """
        arms = check_arms(arm, splits)
        rule = penalties_of(self.penalties)
        x = confounders.standardised()
        if x.shape[1] == 0:
            return arm_shares(arm, splits)
        cells = cells_of(splits, arm, seed=seed, choose=rule.fixed is None)
        order = np.concatenate(cells.rows)
        z = principal_columns(x, order)
        del x
        folds = np.unique(splits.fold)
        rough = ManyLogits.of(z.astype(np.float32), arm[order], cells)
        chosen = rule.choose(rough.loss, folds, len(arm))
        exact = ManyLogits.of(z, arm[order], cells)
        theta, reached = exact.fit(folds, chosen)
        while not reached.all() and self.penalties is None and chosen[~reached].max() < STRONG:
            left = ~reached
            chosen[left] *= 100.0
            theta[:, :, left], reached[left] = exact.fit(folds[left], chosen[left])
        if not reached.all():
            raise EstimationError(
                f"Ridge logistic regression with penalty {chosen[~reached][0]:g} did not converge.",
                cause="The penalty leaves the coefficients almost free.",
                next_step="Give stronger penalties, e.g. RidgeLogit(penalties=(1.0, 10.0, 100.0)).",
            )
        out = np.empty((len(arm), arms))
        for i, k in enumerate(folds):
            here = splits.fold[order] == k
            out[order[here]] = probabilities(z[here] @ theta[:, :, i])
        return out
