"""Probabilities of treatment and outcomes by gradient-boosted trees."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
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
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from eocausal.estimators.confounders import Confounders
    from eocausal.folds import Splits

    Rows = NDArray[np.int64]

__all__ = ["BoostedOutcome", "BoostedPropensity", "Trees"]

SMALL = 5_000_000


@dataclass(frozen=True, slots=True)
class Trees:
    """How trees are boosted (Friedman 2001; histograms as in LightGBM, by scikit-learn).

    Parameters
    ----------
    learning_rate
        Step taken by each tree.
    max_leaf_nodes
        Leaves of a tree: 2 adds effects of columns, more lets them interact.
    min_samples_leaf
        Units in a leaf at least.
    l2
        Ridge penalty on the values of leaves.
    most
        Trees at most.
    chunk
        Trees added between looks at the held-out loss.
    patience
        Looks without a better held-out loss after which no more trees are added.
    """

    learning_rate: float = 0.1
    max_leaf_nodes: int = 8
    min_samples_leaf: int = 20
    l2: float = 1.0
    most: int = 500
    chunk: int = 10
    patience: int = 3

    def __post_init__(self) -> None:
        counts = (self.min_samples_leaf, self.most, self.chunk, self.patience)
        if self.max_leaf_nodes < 2 or min(counts) < 1 or self.most < self.chunk:
            raise EstimationError(
                f"{self!r} grows no trees.",
                cause="A tree has two leaves or more, and at least one chunk of them is grown.",
                next_step="Use counts of at least one, and chunk no larger than most.",
            )
        if not (0 < self.learning_rate <= 1 and self.l2 >= 0):
            raise EstimationError(
                f"learning_rate={self.learning_rate} and l2={self.l2} cannot be used.",
                cause="Steps lie between 0 and 1, and a penalty is not negative.",
                next_step="Use e.g. learning_rate=0.1 and l2=1.",
            )

    def model(self, kind: type, seed: int) -> Any:
        """Return an unfitted scikit-learn model of one kind, to be grown by chunks."""
        return kind(
            learning_rate=self.learning_rate, max_leaf_nodes=self.max_leaf_nodes,
            min_samples_leaf=self.min_samples_leaf, l2_regularization=self.l2,
            max_iter=self.chunk, early_stopping=False, warm_start=True,
            random_state=seed % 2**32,
        )  # fmt: skip

    def grow(
        self,
        kind: type,
        x: NDArray[np.float64],
        target: NDArray[Any],
        inner: Sequence[tuple[Rows, Rows]],
        rows: Rows,
        loss: Callable[[Any, Rows], float],
        *,
        seed: int,
    ) -> Any:
        """Fit on ``rows``, with as many trees as serve best on the units left out by ``inner``.

        Parameters
        ----------
        kind
            Class of the model.
        x, target
            (n, p) columns and (n,) what is predicted.
        inner
            Pairs of rows to fit on and rows to look at, all within ``rows``.
        loss
            Sum of the loss of a model on some rows.
        """
        models = [self.model(kind, seed) for _ in inner]

        def losses() -> Iterator[float]:
            for count in range(self.chunk, self.most + 1, self.chunk):
                total = 0.0
                for model, (fit, look) in zip(models, inner, strict=True):
                    model.set_params(max_iter=count).fit(x[fit], target[fit])
                    total += loss(model, look)
                yield total

        step = best_step(losses(), patience=self.patience)
        model = self.model(kind, seed).set_params(max_iter=self.chunk * (step + 1))
        return model.fit(x[rows], target[rows])


@dataclass(frozen=True, slots=True)
class BoostedPropensity:
    """Gradient-boosted (multinomial) probabilities of the arms.

    The number of trees is chosen inside the training units of each fold, on the other folds in
    turn, and the model is then grown on all training units. Probabilities of trees are seldom
    calibrated: see :class:`~eocausal.estimators.calibration.Calibrated`.
    """

    trees: Trees = field(default_factory=Trees)

    def cross_fit(
        self, confounders: Confounders, arm: NDArray[np.int64], splits: Splits, *, seed: int
    ) -> NDArray[np.float64]:
        """Return (n, K) probabilities, each unit's from the model of its fold.

        Raises
        ------
        FoldError
            If a fold is fitted on fewer than two units of an arm.
        """
        from sklearn.ensemble import HistGradientBoostingClassifier

        x, out = confounders.x, arm_shares(arm, splits)
        if x.shape[1] == 0:
            return out

        def loss(model: Any, look: Rows) -> float:
            return log_loss(model.predict_proba(x[look]), arm[look])

        with _threads(x):
            for k in range(splits.k):
                here = splits.fold == k
                if not here.any():
                    continue
                rows, pairs = _inner(splits, k, arm, seed)
                model = self.trees.grow(
                    HistGradientBoostingClassifier, x, arm, pairs, rows, loss, seed=seed
                )
                out[here] = model.predict_proba(x[here])
        return out


@dataclass(frozen=True, slots=True)
class BoostedOutcome:
    """Gradient-boosted regression of the outcome, one model for each arm.

    The number of trees is chosen by arm inside the training units of each fold.
    """

    trees: Trees = field(default_factory=Trees)

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

        Raises
        ------
        FoldError
            If a fold is fitted on fewer than two units of an arm.
        """
        x, arms = confounders.x, check_arms(arm, splits)
        out = np.empty((len(y), arms))
        with _threads(x):
            for k in range(splits.k):
                here = splits.fold == k
                rows, pairs = _inner(splits, k, arm, seed)
                for a in range(arms if here.any() else 0):
                    own = rows[arm[rows] == a]
                    inner = [(fit[arm[fit] == a], look[arm[look] == a]) for fit, look in pairs]
                    out[here, a] = self._predict(x, y, inner, own, here, seed)
        return out

    def _predict(
        self,
        x: NDArray[np.float64],
        y: NDArray[np.float64],
        inner: Sequence[tuple[Rows, Rows]],
        own: Rows,
        here: NDArray[np.bool_],
        seed: int,
    ) -> NDArray[np.float64]:
        from sklearn.ensemble import HistGradientBoostingRegressor

        if x.shape[1] == 0:
            return np.full(int(here.sum()), y[own].mean())

        def loss(model: Any, look: Rows) -> float:
            return float(((y[look] - model.predict(x[look])) ** 2).sum())

        inner = [(fit, look) for fit, look in inner if len(fit) and len(look)]
        model = self.trees.grow(HistGradientBoostingRegressor, x, y, inner, own, loss, seed=seed)
        return np.asarray(model.predict(x[here]))


def _threads(x: NDArray[np.float64]) -> AbstractContextManager[object]:
    """Keep small work on one thread: threads that wait for each other take longer than it."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    return threadpool_limits(1) if x.size < SMALL else nullcontext()


def _inner(
    splits: Splits, k: int, arm: NDArray[np.int64], seed: int
) -> tuple[Rows, list[tuple[Rows, Rows]]]:
    rows, inner = inner_splits(splits, k, arm, seed=seed)
    pairs = [(rows[inner.train[:, j]], rows[inner.fold == j]) for j in range(inner.k)]
    return rows, pairs
