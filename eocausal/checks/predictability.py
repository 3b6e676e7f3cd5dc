"""How much of what is known about places their embedding can tell.

An image adjusts for a confounder only as far as its embedding expresses it. How far it expresses
confounders nobody measured cannot be seen; how far it expresses those that were measured can, and
is the best hint there is. Places near each other look alike and share covariates, so that scores
from random folds flatter: those from spatial blocks count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from eocausal.checks.balance import expand
from eocausal.checks.positions import lon_lat
from eocausal.contracts import codes, some
from eocausal.errors import AlignmentError, EstimationError
from eocausal.estimators.auc import fold_dependence, placements
from eocausal.estimators.bases import PrincipalComponents
from eocausal.estimators.inference import cluster_sums
from eocausal.estimators.learners import feature_frame
from eocausal.folds import FoldRule, GroupFolds, RandomFolds, SpatialBlocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import xarray as xr
    from numpy.typing import NDArray

__all__ = ["predictability"]

FEWEST_PLACES = 30
FEWEST_FOLDS = 3
PENALTIES = np.logspace(-6, 3, 19)
LOGISTIC_PENALTIES = np.logspace(-5, 0, 6)


def predictability(
    embedding: xr.DataArray,
    covariates: pd.DataFrame,
    folds: FoldRule,
    *,
    seed: int = 0,
    components: int = 64,
    level: float = 0.95,
    beside: bool = True,
) -> pd.DataFrame:
    """Predict each known covariate from the embedding, in places the model has not seen.

    Ridge regression, or ridge logistic regression for covariates with two values, on principal
    components (made of all places: they do not look at the covariate). The penalty is chosen
    within the folds fitted on. R² = 1 − Σ(y−ŷ)²/Σ(y−ȳ)² with ȳ the mean of the folds fitted on;
    the AUC is the mean over folds, weighted by pairs. The models of different folds share most of
    their data and err together, by which the variance of an AUC near chance is (2K−1)/(K−1) times
    what its placements say (K folds; Nadeau & Bengio 2003, Machine Learning 52:239); the interval
    of the AUC is widened by that much, and so is too wide where much is told. Intervals treat the
    spatial blocks (or the groups) of ``folds`` as independent, for random folds too.

    Parameters
    ----------
    embedding
        Periods are averaged.
    covariates
        Indexed by neighborhood. Numbers, truth values, dates, or texts (one indicator for each
        of the 20 most frequent; of two values, or of other complements, only the first). Missing
        values are left out one covariate at a time. It has to hold the columns that ``folds``
        reads; positions come from the embedding where it has ``lon`` and ``lat``.
    folds
        :class:`~eocausal.folds.SpatialBlocks` where places have positions. The same number of
        random folds stands beside them, to show how much those flatter.
    seed
        Of the folds.
    components
        Principal components used, at most.
    level
        Of the intervals.
    beside
        Whether scores from random folds stand beside those of ``folds``.

    Returns
    -------
    DataFrame
        One row per covariate and kind of folds: ``covariate``, ``measure`` (``R2`` or ``AUC``),
        ``folds`` (in words), ``honest`` (False for the random folds beside ``folds``),
        ``score``, ``std_error``, ``ci_low``, ``ci_high`` (t with clusters − 1 degrees of freedom),
        ``n``, ``clusters``, ``note`` (why there is no score).

    Raises
    ------
    AlignmentError
        If no place has both an embedding and covariates, or labels repeat.
    EmbeddingError, FoldError, OneClusterError
    """
    if not 0 < level < 1:
        raise EstimationError(
            f"level={level} is not a probability.",
            cause="It is the share of intervals that hold the truth.",
            next_step="Use level=0.95.",
        )
    frame = feature_frame(embedding)
    units = _joined(frame, covariates)
    z = frame.loc[units.index].to_numpy()
    points = PrincipalComponents.fit(z, components)(z)
    units = _placed(embedding, units, folds)
    cluster = _clusters(folds, units)
    rules = [(folds, True)]
    if beside and not isinstance(folds, RandomFolds):
        rules.append((RandomFolds(folds.k), False))
    none = np.zeros(len(units), dtype=np.int64)
    enough = len(units) >= FEWEST_PLACES
    dealt = [
        (rule, honest, rule.assign(units, seed=seed) if enough else none) for rule, honest in rules
    ]
    by = folds.by if isinstance(folds, GroupFolds) else None
    names = [str(name) for name in covariates.columns if name != by]
    rows = []
    for name, values in _distinct(expand(covariates.loc[units.index], names)).items():
        seen = np.isfinite(values)
        for rule, honest, fold in dealt:
            score = _score(points[seen], values[seen], fold[seen], cluster[seen])
            rows.append({
                "covariate": name, "measure": score.measure, "folds": _words(rule),
                "honest": honest, **score.row(level),
            })  # fmt: skip
    columns = ["covariate", "measure", "folds", "honest", "score", "std_error", "ci_low",
               "ci_high", "n", "clusters", "note"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _joined(frame: pd.DataFrame, covariates: pd.DataFrame) -> pd.DataFrame:
    repeated = covariates.index[covariates.index.duplicated()].unique()
    if len(repeated):
        raise AlignmentError(
            f"{len(repeated)} neighborhoods have more than one row of covariates: "
            f"{some(repeated)}.",
            cause="An embedding has one row for each neighborhood.",
            next_step="Average the covariates of the units in each neighborhood first.",
        )
    shared = covariates.index[covariates.index.isin(frame.index)]
    if not len(shared):
        raise AlignmentError(
            "No neighborhood has both features and covariates.",
            cause=f"Features are for {some(frame.index)}, covariates for {some(covariates.index)}.",
            next_step="Index the covariates by neighborhood, with the embedding's labels.",
        )
    return covariates.loc[shared]


def _placed(embedding: xr.DataArray, units: pd.DataFrame, folds: FoldRule) -> pd.DataFrame:
    """Give spatial folds the positions of the embedding; without any, the table has to have them.

    A covariate named ``lon`` may be anything, and may be missing for some places.
    """
    known = {"lon", "lat"} <= set(embedding.coords)
    if not isinstance(folds, SpatialBlocks) or (
        not known and {folds.lon, folds.lat} <= set(units.columns)
    ):
        return units
    lon, lat = lon_lat(embedding, units.index)
    return units.assign(**{folds.lon: lon, folds.lat: lat})


def _distinct(columns: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Leave out the indicator that is one minus another of the same covariate."""
    kept: dict[str, NDArray[np.float64]] = {}
    for name, values in columns.items():
        stem = name.partition("=")[0]
        twins = (v for k, v in kept.items() if "=" in k and k.partition("=")[0] == stem)
        if "=" not in name or not any(np.allclose(values, 1 - v, equal_nan=True) for v in twins):
            kept[name] = values
    return kept


def _words(folds: FoldRule) -> str:
    match folds:
        case SpatialBlocks():
            return f"blocks of {folds.km:g} km"
        case GroupFolds():
            return f"groups by {folds.by}"
        case RandomFolds():
            return "random"
    return repr(folds)


def _clusters(folds: FoldRule, units: pd.DataFrame) -> NDArray[np.int64]:
    if isinstance(folds, SpatialBlocks):
        return folds.blocks(units)
    if isinstance(folds, GroupFolds):
        return codes(units[folds.by], folds.by)
    return np.arange(len(units))


@dataclass(frozen=True, slots=True, eq=False)
class _Score:
    """A held-out score with its influence values summed by cluster."""

    measure: str
    n: int
    value: float = math.nan
    sums: NDArray[np.float64] | None = None
    note: str = ""

    def row(self, level: float) -> dict[str, object]:
        error, half, g = math.nan, math.nan, 0
        if self.sums is not None:
            g = len(self.sums)
        if self.sums is not None and g > 1:
            error = math.sqrt(g / (g - 1) * float(self.sums @ self.sums))
            half = float(stats.t.ppf(0.5 + level / 2, g - 1)) * error
        return {
            "score": self.value, "std_error": error, "ci_low": self.value - half,
            "ci_high": min(1.0, self.value + half) if half == half else math.nan,
            "n": self.n, "clusters": g, "note": self.note,
        }  # fmt: skip


def _score(
    points: NDArray[np.float64],
    y: NDArray[np.float64],
    fold: NDArray[np.int64],
    cluster: NDArray[np.int64],
) -> _Score:
    values = np.unique(y)
    measure = "AUC" if len(values) == 2 else "R2"
    if len(y) < FEWEST_PLACES:
        return _Score(measure, len(y), note=f"fewer than {FEWEST_PLACES} places have a value")
    if len(values) < 2:
        return _Score(measure, len(y), note="the covariate does not vary")
    if len(np.unique(fold)) < FEWEST_FOLDS:
        return _Score(measure, len(y), note=f"fewer than {FEWEST_FOLDS} folds have a value")
    cluster = np.unique(cluster, return_inverse=True)[1].reshape(-1)
    if measure == "AUC":
        return _auc(points, (y == values[1]).astype(float), fold, cluster)
    return _r_squared(points, y, fold, cluster)


def _r_squared(
    points: NDArray[np.float64],
    y: NDArray[np.float64],
    fold: NDArray[np.int64],
    cluster: NDArray[np.int64],
) -> _Score:
    y = (y - y.mean()) / y.std()
    predicted, plain = np.empty(len(y)), np.empty(len(y))
    for test, train in _splits(fold):
        penalty = _choose_penalty(points[train], y[train], fold[train])
        predicted[test] = _ridge(points[train], y[train], np.array([penalty]))(points[test])[:, 0]
        plain[test] = y[train].mean()
    error, total = (y - predicted) ** 2, (y - plain) ** 2
    ratio = float(error.sum() / total.sum())
    influence = (ratio * total - error) / total.sum()
    return _Score("R2", len(y), 1 - ratio, cluster_sums(influence, cluster))


def _splits(
    fold: NDArray[np.int64],
) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    for k in np.unique(fold):
        yield fold == k, fold != k


def _choose_penalty(
    points: NDArray[np.float64], y: NDArray[np.float64], fold: NDArray[np.int64]
) -> float:
    """Choose the ridge penalty with the least squared error over folds."""
    loss = np.zeros(len(PENALTIES))
    for test, train in _splits(fold):
        fitted = _ridge(points[train], y[train], PENALTIES)
        loss += ((y[test, None] - fitted(points[test])) ** 2).sum(axis=0)
    return float(PENALTIES[len(loss) - 1 - np.argmin(loss[::-1])])


@dataclass(frozen=True, slots=True, eq=False)
class _Ridge:
    """Ridge regressions with an unpenalised intercept, one column per penalty."""

    middle: NDArray[np.float64]
    level: float
    slope: NDArray[np.float64]

    def __call__(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.level + (points - self.middle) @ self.slope


def _ridge(
    points: NDArray[np.float64], y: NDArray[np.float64], penalties: NDArray[np.float64]
) -> _Ridge:
    middle, level = points.mean(axis=0), float(y.mean())
    x = points - middle
    value, vector = np.linalg.eigh(x.T @ x)
    turned = vector.T @ (x.T @ (y - level))
    shrunk = turned[:, None] / (np.maximum(value, 0.0)[:, None] + penalties * len(y))
    return _Ridge(middle, level, vector @ shrunk)


def _auc(
    points: NDArray[np.float64],
    y: NDArray[np.float64],
    fold: NDArray[np.int64],
    cluster: NDArray[np.int64],
) -> _Score:
    pairs, total, scored = 0.0, 0.0, 0
    placement = np.zeros(len(y))
    for test, train in _splits(fold):
        if np.unique(y[test]).size < 2 or np.unique(y[train]).size < 2:
            continue
        penalty = _choose_logistic_penalty(points[train], y[train], fold[train])
        score = _logistic(points[train], y[train], penalty)(points[test])
        weight, value, place = placements(score, y[test])
        pairs += weight
        total += weight * value
        scored += 1
        placement[test] = weight * place
    if pairs == 0:
        return _Score("AUC", len(y), note="no fold has both values")
    shared = fold_dependence(scored) * placement / pairs
    return _Score("AUC", len(y), total / pairs, cluster_sums(shared, cluster))


def _logistic(
    points: NDArray[np.float64], y: NDArray[np.float64], penalty: float
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1 / (penalty * len(y)), solver="newton-cholesky", max_iter=200)
    model.fit(points, y)
    return lambda x: np.asarray(model.decision_function(x))


def _choose_logistic_penalty(
    points: NDArray[np.float64], y: NDArray[np.float64], fold: NDArray[np.int64]
) -> float:
    """Choose the penalty with the least deviance on the first fold that can be left out."""
    for test, train in _splits(fold):
        if np.unique(y[train]).size < 2:
            continue
        sign = 2 * y[test] - 1
        loss = [
            np.logaddexp(
                0, -sign * _logistic(points[train], y[train], penalty)(points[test])
            ).mean()
            for penalty in LOGISTIC_PENALTIES
        ]
        return float(LOGISTIC_PENALTIES[int(np.argmin(loss))])
    return float(LOGISTIC_PENALTIES[-1])
