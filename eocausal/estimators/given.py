"""Probabilities of treatment that came from elsewhere, e.g. a network trained end to end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from eocausal.errors import EstimationError, MissingColumnError
from eocausal.estimators.calibration import Calibrator, Platt
from eocausal.estimators.inner_folds import check_arms

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.confounders import Confounders
    from eocausal.folds import Splits

__all__ = ["GivenPropensity"]


@dataclass(frozen=True, slots=True)
class GivenPropensity:
    """Probabilities read from columns, recalibrated on the units of the other folds.

    The probabilities must have been predicted by models that had not seen the unit. What made
    them may have other folds than this study: then the correction, of two numbers, is learned from
    units whose probability was predicted with help of the unit's own arm, which does not matter
    beside the columns' own error unless units are few.

    Parameters
    ----------
    columns
        Name of the confounder that is the probability of treatment; for K arms the K-1 names, in
        the order of the treatments.
    calibrator
        How probabilities are changed; None takes them as they are, e.g. known by design.

    Examples
    --------
    A network trained end to end (:func:`eocausal.encoders.training.train_encoder` with the
    objective ``Propensity``) predicts each place by the network that has not seen its fold::

        told = trained.predict(cube)["propensity"]
        units = units.assign(network=units["neighborhood"].map(told)).dropna(subset="network")
        decisions = Weighting(propensity=GivenPropensity("network"), folds=folds)
        weight(units, treatment="w", outcome="y", covariates=["network"], decisions=decisions)

    Such probabilities know of the image alone. To let the table speak as well, leave the model of
    treatment at its default and name the network's column among the covariates.
    """

    columns: str | tuple[str, ...]
    calibrator: Calibrator | None = field(default_factory=Platt)

    def cross_fit(
        self, confounders: Confounders, arm: NDArray[np.int64], splits: Splits, *, seed: int
    ) -> NDArray[np.float64]:
        """Return (n, K) probabilities, each unit's with the correction of its fold.

        Raises
        ------
        MissingColumnError
            If a column is not among the confounders.
        EstimationError
            If there is not a column for each treatment, or values are no probabilities.
        FoldError
            If a correction would be learned from fewer than two units of an arm.
        """
        arms = check_arms(arm, splits)
        given = self._read(confounders, arms)
        if self.calibrator is None:
            return given
        out = np.empty_like(given)
        for k in range(splits.k):
            train, here = splits.train[:, k], splits.fold == k
            out[here] = self.calibrator.fit(given[train], arm[train])(given[here])
        return out

    def _read(self, confounders: Confounders, arms: int) -> NDArray[np.float64]:
        names = (self.columns,) if isinstance(self.columns, str) else self.columns
        missing = [name for name in names if name not in confounders.names]
        if missing:
            raise MissingColumnError(
                f"There is no confounder {missing[0]!r} to read the probability of treatment from.",
                cause="Given probabilities are a column of the table, named among the covariates.",
                next_step="Add the column to the covariates.",
            )
        if len(names) != arms - 1:
            raise EstimationError(
                f"There are {len(names)} columns of probabilities for {arms - 1} treatments.",
                cause="Each treatment has a probability; that of none is the rest.",
                next_step="Name one column for each treatment, in their order.",
            )
        treated = confounders.x[:, [confounders.names.index(name) for name in names]]
        none = 1 - treated.sum(axis=1)
        if (treated < 0).any() or (none < -1e-6).any():
            bad = int(((treated < 0).any(axis=1) | (none < -1e-6)).sum())
            raise EstimationError(
                f"{bad} units have values in {', '.join(names)} that are no probabilities.",
                cause="They are negative, or sum to more than 1.",
                next_step="Give probabilities, e.g. 1 / (1 + exp(-score)) of a score.",
            )
        return np.column_stack([np.maximum(none, 0), treated])
