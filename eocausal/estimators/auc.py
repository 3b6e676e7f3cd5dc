"""How well treatment can be told from images: cross-fitted AUC, with folds that matter.

In a trial the answer should be "not at all". With random folds a model can recognise a place it
has seen (several units share an image, and arms are assigned by group), so that the AUC looks
high where there is nothing but memory; with grouped folds it cannot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from eocausal.errors import FoldError
from eocausal.estimators.bases import PrincipalComponents
from eocausal.estimators.inference import cluster_sums
from eocausal.estimators.learners import feature_frame

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from numpy.typing import NDArray

    from eocausal.designs import Trial
    from eocausal.folds import FoldRule

__all__ = ["AUC", "fold_dependence", "placements", "treatment_auc"]


@dataclass(frozen=True, slots=True)
class AUC:
    """Area under the ROC curve of treatment, cross-fitted."""

    folds: str
    auc: float
    std_error: float
    n: int
    level: float = 0.95

    @property
    def ci_low(self) -> float:
        """Lower end of the interval, at least 0."""
        return max(0.0, self.auc - self._critical * self.std_error)

    @property
    def ci_high(self) -> float:
        """Upper end of the interval, at most 1."""
        return min(1.0, self.auc + self._critical * self.std_error)

    @property
    def _critical(self) -> float:
        return float(stats.norm.ppf(0.5 + self.level / 2))

    def record(self) -> dict[str, Any]:
        """Return the record; the p-value is of an AUC of one half."""
        z = (self.auc - 0.5) / self.std_error if self.std_error > 0 else float("nan")
        return {
            "estimand": "AUC of treatment from images",
            "method": f"cross-fitted logistic regression, {self.folds}",
            "estimate": self.auc,
            "std_error": self.std_error,
            "ci_low": self.ci_low,
            "ci_high": self.ci_high,
            "p_value": float(2 * stats.norm.sf(abs(z))),
            "n": self.n,
        }


def treatment_auc(
    trial: Trial,
    units: pd.DataFrame,
    features: pd.DataFrame | xr.DataArray,
    folds: FoldRule,
    *,
    seed: int,
    components: int = 32,
    level: float = 0.95,
) -> AUC:
    """Predict the arm from image features by ridge logistic regression, across folds.

    The AUC is the mean over folds (weighted by pairs), since scores of different folds' models
    are not comparable; its variance treats clusters as independent (DeLong et al. 1988,
    placements summed by cluster) and is widened for what models of different folds share
    (:func:`fold_dependence`), so that the interval is too wide where much is told.

    Parameters
    ----------
    units
        One row per unit, with a column ``neighborhood``.
    folds
        How units are dealt to folds.
    components
        Principal components of the features used.
    level
        Level of the interval.

    Raises
    ------
    FoldError
        If no fold has both arms.
    """
    from sklearn.linear_model import LogisticRegression

    frame = feature_frame(features)
    units = units[units["neighborhood"].isin(frame.index)]
    a = trial.assignment(units)
    z = frame.loc[units["neighborhood"]].to_numpy()
    fold = folds.assign(units, seed=seed)
    pairs, total, scored = 0.0, 0.0, 0
    placement = np.zeros(len(units))
    for k in np.unique(fold):
        out = fold == k
        if np.unique(a.treated[out]).size < 2 or np.unique(a.treated[~out]).size < 2:
            continue
        reduce = PrincipalComponents.fit(z[~out], components)
        scale = np.sqrt(reduce.rotation.shape[1])
        model = LogisticRegression(C=1.0, max_iter=1000)
        model.fit(reduce(z[~out]) * scale, a.treated[~out])
        score = model.decision_function(reduce(z[out]) * scale)
        weight, value, place = placements(score, a.treated[out])
        pairs += weight
        total += weight * value
        scored += 1
        placement[out] = weight * place
    if pairs == 0:
        raise FoldError(
            "No fold has units of both arms.",
            cause="The AUC compares treated with control units within a fold.",
            next_step="Use fewer folds.",
        )
    sums = cluster_sums(fold_dependence(scored) * placement / pairs, a.cluster)
    g = sums.size
    error = float(np.sqrt(g / (g - 1) * (sums @ sums)))
    return AUC(repr(folds), total / pairs, error, len(units), level)


def fold_dependence(folds: int) -> float:
    """Factor on the standard error of a score that is averaged over folds.

    Models of different folds are fitted on mostly the same data and err together: near chance the
    variance is ``1 + K / (K - 1)`` times what the placements within folds say (Nadeau & Bengio
    2003, Machine Learning 52:239, with test sets 1 / (K - 1) of the size of the fitting sets).
    """
    return float(np.sqrt(1 + folds / max(folds - 1, 1)))


def placements(
    score: NDArray[np.float64], treated: NDArray[np.float64]
) -> tuple[float, float, NDArray[np.float64]]:
    """Return the number of pairs, the AUC, and each unit's influence value on it."""
    rank = stats.rankdata(score)
    one = treated == 1
    n1, n0 = int(one.sum()), int((~one).sum())
    within = np.empty(len(score))
    within[one] = stats.rankdata(score[one])
    within[~one] = stats.rankdata(score[~one])
    share = np.where(one, (rank - within) / n0, 1 - (rank - within) / n1)
    auc = float(share[one].mean())
    return float(n1 * n0), auc, np.where(one, (share - auc) / n1, (share - auc) / n0)
