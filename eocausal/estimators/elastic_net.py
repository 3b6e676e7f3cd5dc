"""Probabilities of treatment by logistic regression with an elastic-net penalty."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from eocausal.errors import EstimationError
from eocausal.estimators.inner_folds import (
    arm_shares,
    best_step,
    check_arms,
    inner_splits,
    log_loss,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from eocausal.estimators.confounders import Confounders
    from eocausal.folds import Splits

__all__ = ["ElasticNetLogit"]

PASSES = 3_000


@dataclass(frozen=True, slots=True)
class ElasticNetLogit:
    """(Multinomial) logistic regression that keeps only columns which help (Zou & Hastie 2005).

    Minimises the mean log loss plus λ(α‖β‖₁ + (1−α)/2 ‖β‖₂²) over standardised columns, each
    source with total variance one (:meth:`Confounders.standardised`), the intercept free. λ goes
    down from the value at which every coefficient is zero; inside the training units of each fold
    it is the one with the least held-out log loss, among those whose fit converges. Where most
    columns matter a little, as in embeddings, the ridge penalty of ``RidgeLogit`` is faster and
    usually predicts better.

    Parameters
    ----------
    l1_ratio
        α: 1 is the lasso, 0 ridge.
    steps_per_decade
        Penalties tried in each factor of ten.
    patience
        Penalties without a better held-out loss after which no weaker one is tried.
    decades
        Powers of ten that the penalty may go down at most.
    """

    l1_ratio: float = 0.5
    steps_per_decade: int = 4
    patience: int = 3
    decades: float = 4.0

    def __post_init__(self) -> None:
        if not 0 <= self.l1_ratio <= 1:
            raise EstimationError(
                f"l1_ratio={self.l1_ratio} is not a share.",
                cause="It divides the penalty between absolute and squared coefficients.",
                next_step="Give a number from 0 (ridge) to 1 (lasso).",
            )
        if self.steps_per_decade < 1 or self.patience < 1 or not self.decades > 0:
            raise EstimationError(
                f"steps_per_decade={self.steps_per_decade}, patience={self.patience} and "
                f"decades={self.decades} try no penalties.",
                cause="The penalty is chosen among several.",
                next_step="Use at least one step per decade, patience 1, and a positive range.",
            )

    def cross_fit(
        self, confounders: Confounders, arm: NDArray[np.int64], splits: Splits, *, seed: int
    ) -> NDArray[np.float64]:
        """Return (n, K) probabilities, each unit's from the model of its fold.

        Raises
        ------
        FoldError
            If a fold is fitted on fewer than two units of an arm.
        EstimationError
            If a fit does not converge.
        """
        check_arms(arm, splits)
        z = confounders.standardised()
        out = arm_shares(arm, splits)
        if z.shape[1] == 0:
            return out
        for k in range(splits.k):
            here, rows = splits.fold == k, splits.train[:, k]
            if not here.any():
                continue
            path = self.penalties(z, arm, splits, k, seed=seed)
            model = _model(self.l1_ratio, seed)
            for penalty in path[:: -self.steps_per_decade][::-1]:
                converged = _fit(model, z[rows], arm[rows], float(penalty))
            if not converged:
                raise _not_converged(float(path[-1]))
            out[here] = model.predict_proba(z[here])
        return out

    def penalties(
        self,
        z: NDArray[np.float64],
        arm: NDArray[np.int64],
        splits: Splits,
        k: int,
        *,
        seed: int,
    ) -> NDArray[np.float64]:
        """Return λ from the largest down to the one chosen inside a fold's training units.

        Parameters
        ----------
        z
            (n, q) standardised columns.
        """
        rows, inner = inner_splits(splits, k, arm, seed=seed)
        x, a = z[rows], arm[rows]
        top = _largest(x, a) / max(self.l1_ratio, 1e-3)
        steps = np.arange(int(self.steps_per_decade * self.decades) + 1)
        path = top * 10.0 ** (-steps / self.steps_per_decade)
        losses = self._losses(x, a, inner, path, seed)
        return path[: best_step(losses, patience=self.patience) + 1]

    def _losses(
        self,
        x: NDArray[np.float64],
        arm: NDArray[np.int64],
        inner: Splits,
        path: NDArray[np.float64],
        seed: int,
    ) -> Iterator[float]:
        models = [_model(self.l1_ratio, seed) for _ in range(inner.k)]
        sets = [(inner.train[:, j], inner.fold == j) for j in range(inner.k)]
        for penalty in path:
            total = 0.0
            for model, (train, test) in zip(models, sets, strict=True):
                if not _fit(model, x[train], arm[train], float(penalty)):
                    return
                total += log_loss(model.predict_proba(x[test]), arm[test])
            yield total


def _largest(x: NDArray[np.float64], arm: NDArray[np.int64]) -> float:
    """Return the least λα at which all coefficients are zero."""
    indicator = (arm[:, None] == np.arange(arm.max() + 1)).astype(float)
    slope = x.T @ (indicator - indicator.mean(axis=0)) / len(arm)
    return max(float(np.abs(slope).max()), 1e-12)


def _model(l1_ratio: float, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        solver="saga", l1_ratio=l1_ratio, warm_start=True, tol=1e-5, max_iter=PASSES,
        random_state=seed % 2**32,
    )  # fmt: skip
    # scikit-learn 1.8 reads the kind of penalty from l1_ratio; before, it had to be named.
    if model.get_params()["penalty"] == "l2":
        model.set_params(penalty="elasticnet")
    return model


def _fit(model: Any, x: NDArray[np.float64], arm: NDArray[np.int64], penalty: float) -> bool:
    """Fit, beginning at the last coefficients, and say whether that converged."""
    from sklearn.exceptions import ConvergenceWarning

    model.set_params(C=1 / (penalty * len(arm)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(x, arm)
    return not any(issubclass(w.category, ConvergenceWarning) for w in caught)


def _not_converged(penalty: float) -> EstimationError:
    return EstimationError(
        f"The elastic net did not converge within {PASSES:,} passes over the data.",
        cause=f"The penalty chosen, {penalty:.3g}, leaves the coefficients almost free.",
        next_step="Use RidgeLogit(), or fewer columns.",
    )
