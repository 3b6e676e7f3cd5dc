"""Effects that vary with the image: the DR-learner.

Doubly robust scores with the trial's known probabilities (Kennedy 2023, Electronic Journal of
Statistics 17; METHODS D4) are regressed on image features, place by place, with every variance
integrated out (:mod:`eocausal.estimators.field`). Folds keep clusters of assignment together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eocausal.contracts import check_columns, check_embedding, check_same_neighborhoods
from eocausal.effects import EffectEstimate, Influence, VarianceRule
from eocausal.errors import EmbeddingError, EstimationError, FoldError, LeakageError
from eocausal.estimators.bases import Basis, FeatureMap, PrincipalComponents, RidgeBasis
from eocausal.estimators.field import FieldPosterior, fit_field
from eocausal.estimators.place_means import Places
from eocausal.estimators.randomized import default_vcov, numeric_columns, outcome_of
from eocausal.folds import FoldRule, GroupFolds, RandomFolds, halves

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from eocausal.designs import Assignment, Trial

__all__ = [
    "EffectLearner",
    "FittedEffects",
    "TrialArrays",
    "feature_frame",
    "trial_arrays",
]

NUISANCE_COMPONENTS = 32


def feature_frame(features: pd.DataFrame | xr.DataArray) -> pd.DataFrame:
    """Return features as a (neighborhood × feature) table; periods of an embedding are averaged.

    Places without any image (all NaN) are left out.

    Raises
    ------
    EmbeddingError
        If a row is partly missing, or none is left.
    """
    if isinstance(features, pd.DataFrame):
        frame: pd.DataFrame = features.astype(float)
    else:
        array = check_embedding(features)
        if "period" in array.dims:
            array = array.mean("period", skipna=True)
        frame = pd.DataFrame(
            np.asarray(array.transpose("neighborhood", "feature").values, dtype=float),
            index=array.indexes["neighborhood"],
        )
    if not frame.index.is_unique:
        raise EmbeddingError(
            "The features have repeated neighborhood labels.",
            cause="Units are joined to places by that label.",
            next_step="Keep one row per neighborhood.",
        )
    finite = np.isfinite(frame.to_numpy())
    if (finite.any(axis=1) & ~finite.all(axis=1)).any():
        raise EmbeddingError(
            "Some rows of the features are partly missing.",
            cause="A place is either seen or not.",
            next_step="Impute or drop these places.",
        )
    frame = frame.loc[finite.all(axis=1)]
    if frame.empty:
        raise EmbeddingError(
            "No place has features.",
            cause="Every row is missing.",
            next_step="Look at failures.parquet: no chip could be used.",
        )
    return frame


@dataclass(frozen=True, slots=True, eq=False)
class TrialArrays:
    """A trial joined to its image features, as arrays over the n units with an image."""

    units: pd.DataFrame
    y: NDArray[np.float64]
    treated: NDArray[np.float64]
    propensity: NDArray[np.float64]
    cluster: NDArray[np.int64]
    place: NDArray[np.int64]
    labels: pd.Index
    z: NDArray[np.float64]
    x: NDArray[np.float64]
    n_without_image: int

    def subset(self, keep: NDArray[np.bool_]) -> TrialArrays:
        """Keep some units (places stay numbered as they are)."""
        cluster = np.unique(self.cluster[keep], return_inverse=True)[1].reshape(-1)
        return TrialArrays(
            self.units[keep], self.y[keep], self.treated[keep], self.propensity[keep], cluster,
            self.place[keep], self.labels, self.z, self.x[keep], self.n_without_image,
        )  # fmt: skip


def trial_arrays(
    trial: Trial,
    units: pd.DataFrame,
    features: pd.DataFrame | xr.DataArray,
    *,
    outcome: str,
    covariates: Sequence[str] = (),
) -> TrialArrays:
    """Join units to image features by their column ``neighborhood``.

    Raises
    ------
    LeakageError
        If the last image is dated on or after the trial's start.
    AlignmentError, MissingColumnError, OutcomeError, DesignError
    """
    check_columns(units, ["neighborhood"], what="units table")
    _refuse_late_images(features, trial)
    wanted = pd.Index(units["neighborhood"].unique())
    all_labels = (
        features.index if isinstance(features, pd.DataFrame) else features.indexes["neighborhood"]
    )
    check_same_neighborhoods(wanted, all_labels, what="features")
    frame = feature_frame(features)
    seen = units["neighborhood"].isin(frame.index).to_numpy()
    kept = units[seen]
    assignment: Assignment = trial.assignment(kept)
    labels = pd.Index(kept["neighborhood"].unique()).sort_values()
    return TrialArrays(
        kept, outcome_of(kept, outcome), assignment.treated, assignment.propensity,
        assignment.cluster, labels.get_indexer(pd.Index(kept["neighborhood"])), labels,
        frame.loc[labels].to_numpy(), numeric_columns(kept, covariates, what="covariate"),
        int((~seen).sum()),
    )  # fmt: skip


def _refuse_late_images(features: pd.DataFrame | xr.DataArray, trial: Trial) -> None:
    if isinstance(features, pd.DataFrame) or trial.start is None:
        return
    last = str(features.attrs.get("last_image_date", ""))
    if last and pd.Timestamp(last) >= pd.Timestamp(trial.start):
        raise LeakageError(
            f"The embedding's last image is of {last}, and the trial began {trial.start}.",
            cause="An image taken after treatment shows its effects; used as a covariate it "
            "biases every estimate.",
            next_step="Build the cube from periods that end before the trial began.",
        )


@dataclass(frozen=True, slots=True)
class EffectLearner:
    """A DR-learner: what the effect may depend on, and how data are split.

    Parameters
    ----------
    basis
        :class:`RidgeBasis` or :class:`ForestBasis`.
    folds
        Folds for cross-fitting the outcome models. None: 5 folds of whole clusters.
    level
        Level of intervals.
    seed
        Seeds folds and forests.

    Examples
    --------
    >>> learner = EffectLearner(RidgeBasis(), seed=7)
    >>> learner.level
    0.95
    """

    basis: Basis = field(default_factory=RidgeBasis)
    folds: FoldRule | None = None
    level: float = 0.95
    seed: int = 0

    def fit(
        self,
        trial: Trial,
        units: pd.DataFrame,
        features: pd.DataFrame | xr.DataArray,
        *,
        outcome: str,
        covariates: Sequence[str] = (),
    ) -> FittedEffects:
        """Fit the effect as a function of image features.

        Parameters
        ----------
        units
            One row per unit, with a column ``neighborhood``.
        features
            Embedding or table by neighborhood.
        outcome, covariates
            Columns of ``units``; covariates sharpen the scores and do not enter the effect.

        Raises
        ------
        OneArmError, OneClusterError, OutcomeError, LeakageError, AlignmentError
        """
        data = trial_arrays(trial, units, features, outcome=outcome, covariates=covariates)
        folds = self.folds or _default_folds(trial)
        fold = folds.assign(data.units, seed=self.seed, stratum=data.treated)
        _refuse_split_clusters(fold, data.cluster)
        scores = dr_scores(data, fold)
        components = self._effect_components(data, scores)
        support = PrincipalComponents.fit(data.z, NUISANCE_COMPONENTS)
        return FittedEffects(self, trial, data, fold, scores, tuple(components), support)

    def fit_arrays(self, data: TrialArrays) -> tuple[Component, ...]:
        """Fit on arrays with whole clusters dealt to five folds; for repeated splits."""
        from eocausal.folds import fold_groups

        fold = fold_groups(data.cluster, 5, seed=self.seed, stratum=data.treated)
        return tuple(self._effect_components(data, dr_scores(data, fold)))

    def _effect_components(self, data: TrialArrays, scores: NDArray[np.float64]) -> list[Component]:
        if not self.basis.adaptive:
            both = np.ones(len(scores), dtype=bool)
            return [_component(self.basis, data, scores, both, both, self.seed)]
        first = halves(data.cluster, seed=self.seed, stratum=data.treated)
        return [
            _component(self.basis, data, scores, grow, ~grow, self.seed) for grow in (first, ~first)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Component:
    """One regression of scores on a fitted basis."""

    basis: FeatureMap
    posterior: FieldPosterior


def _component(
    basis: Basis,
    data: TrialArrays,
    scores: NDArray[np.float64],
    grow: NDArray[np.bool_],
    regress: NDArray[np.bool_],
    seed: int,
) -> Component:
    a = Places.average(scores[grow], data.place[grow], data.cluster[grow])
    fitted = basis.fit(data.z[a.place], a.value, a.count, seed=seed)
    b = Places.average(scores[regress], data.place[regress], data.cluster[regress])
    return Component(fitted, fit_field(fitted(data.z[b.place]), b.value, b.known, b.group))


def predict_components(
    components: Sequence[Component], z: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean (m,) and a root (m, r) of the covariance of the averaged components.

    The average's variance is at most the components' mean variance (attained if they were
    perfectly correlated), which is what the root gives: covariance = root @ root.T.
    """
    mean = np.zeros(len(z))
    roots = []
    for item in components:
        phi = item.basis(z)
        mean += item.posterior.predict(phi)[0] / len(components)
        roots.append(item.posterior.root_at(phi) / np.sqrt(len(components)))
    return mean, np.concatenate(roots, axis=1)


def _default_folds(trial: Trial) -> FoldRule:
    return GroupFolds(trial.cluster) if trial.cluster is not None else RandomFolds()


def _refuse_split_clusters(fold: NDArray[np.int64], cluster: NDArray[np.int64]) -> None:
    low = np.full(cluster.max() + 1, fold.max())
    high = np.zeros(cluster.max() + 1, dtype=np.int64)
    np.minimum.at(low, cluster, fold)
    np.maximum.at(high, cluster, fold)
    if (low != high).any():
        raise FoldError(
            f"{int((low != high).sum())} clusters of assignment are split between folds.",
            cause="A unit's outcome model would have seen its own cluster, and scores would look "
            "better than they are.",
            next_step="Use GroupFolds with the cluster, or blocks that contain whole clusters.",
        )


def dr_scores(data: TrialArrays, fold: NDArray[np.int64]) -> NDArray[np.float64]:
    """Doubly robust scores Γ = m₁ - m₀ + (W - e)/(e(1 - e)) (Y - m_W), cross-fitted.

    Returns
    -------
    (n,) scores whose expectation given the unit is its effect, whatever the outcome models,
    since e is known.
    """
    m = np.empty((2, len(data.y)))
    for k in np.unique(fold):
        out = fold == k
        m[:, out] = outcome_models(data, ~out, out)
    return scores_from(data, m)


def scores_from(data: TrialArrays, m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores from given (2, n) predictions of control and treated outcomes."""
    own = np.where(data.treated == 1, m[1], m[0])
    e = data.propensity
    return np.asarray(m[1] - m[0] + (data.treated - e) / (e * (1 - e)) * (data.y - own))


def outcome_models(
    data: TrialArrays, train: NDArray[np.bool_], predict: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Fit each arm's outcome on ``train`` and predict both for the units of ``predict``: (2, n).

    Covariates by least squares with the arm; image features by :func:`fit_field` on the
    residual means of places.
    """
    x = np.column_stack([np.ones(len(data.y)), data.treated, data.x])
    gamma = np.linalg.lstsq(x[train], data.y[train], rcond=None)[0][2:]
    rest = data.y - data.x @ gamma
    offset = data.x[predict] @ gamma
    used = np.unique(data.place[train])
    reduce = PrincipalComponents.fit(data.z[used], NUISANCE_COMPONENTS)
    phi = reduce(data.z)
    out = np.empty((2, int(predict.sum())))
    for arm in (0, 1):
        mine = train & (data.treated == arm)
        if mine.sum() < 2:
            raise FoldError(
                f"A training fold has {int(mine.sum())} units in arm {arm}.",
                cause="Its outcome model cannot be fitted.",
                next_step="Use fewer folds.",
            )
        p = Places.average(rest[mine], data.place[mine], data.cluster[mine])
        posterior = fit_field(phi[p.place], p.value, p.known, p.group)
        out[arm] = offset + posterior.predict(phi[data.place[predict]])[0]
    return out


@dataclass(frozen=True, slots=True, eq=False)
class FittedEffects:
    """A fitted learner.

    Attributes
    ----------
    data
        The units it was fitted on.
    fold
        (n,) cross-fitting folds.
    scores_array
        (n,) doubly robust scores.
    support
        Principal components of the trial's places, in which distance to them is measured.
    """

    learner: EffectLearner
    trial: Trial
    data: TrialArrays
    fold: NDArray[np.int64]
    scores_array: NDArray[np.float64]
    components: tuple[Component, ...]
    support: PrincipalComponents

    @property
    def scores(self) -> pd.Series:
        """Doubly robust scores by unit."""
        return pd.Series(self.scores_array, index=self.data.units.index, name="dr_score")

    def average(self, vcov: VarianceRule | None = None) -> EffectEstimate:
        """Return the average effect: the mean score (AIPW with known probabilities)."""
        value = float(self.scores_array.mean())
        psi = (self.scores_array - value) / len(self.scores_array)
        adjusted = psi / np.sqrt(1 - 1 / len(psi))
        note = ""
        if self.data.n_without_image:
            note = f"{self.data.n_without_image} units without a usable image are left out."
        return EffectEstimate.of(
            value,
            Influence(self.data.units.index, psi, adjusted, len(psi) - 1),
            estimand="ATE",
            method="AIPW",
            units=self.data.units,
            vcov=vcov or default_vcov(self.trial),
            level=self.learner.level,
            note=note,
            extra={
                "n_treated": int(self.data.treated.sum()),
                "n_clusters": int(self.data.cluster.max()) + 1,
            },
        )

    def predict(self, features: pd.DataFrame | xr.DataArray) -> tuple[pd.Series, pd.Series]:
        """Return mean and sd of the effect for places, by neighborhood."""
        frame = feature_frame(features)
        mean, root = predict_components(self.components, frame.to_numpy())
        sd = np.sqrt((root**2).sum(axis=1))
        return pd.Series(mean, frame.index), pd.Series(sd, frame.index)

    def linear(self) -> tuple[NDArray[np.float64], float]:
        """Return the mean effect as a linear function of the features: coefficients, intercept.

        ``predict`` of features ``z`` has the mean ``intercept + z @ coefficients``; with it the
        effect can be followed back to the pixels that the features were made from.

        Raises
        ------
        EstimationError
            If the effect is not linear in the features (:class:`ForestBasis`).
        """
        total, intercept = np.zeros(self.data.z.shape[1]), 0.0
        for item in self.components:
            if not isinstance(item.basis, PrincipalComponents):
                raise EstimationError(
                    f"Effects learned on {self.learner.basis} are not linear in the features.",
                    cause="They are constant on the leaves of trees.",
                    next_step="Use RidgeBasis().",
                )
            slope = item.basis.rotation @ item.posterior.mean[1:] / item.basis.scale
            total += slope / len(self.components)
            offset = item.posterior.mean[0] - item.basis.mean @ slope
            intercept += float(offset) / len(self.components)
        return total, intercept

    def describe(self) -> dict[str, Any]:
        """Return the learner's variances: how much the effect varies with the image."""
        signal = float(np.mean([c.posterior.signal_sd for c in self.components]))
        return {
            "signal_sd": signal,
            "noise_sd": float(np.mean([c.posterior.noise_sd for c in self.components])),
            "n_places": len(self.data.labels),
            "n_features": int(self.data.z.shape[1]),
        }

    def __repr__(self) -> str:
        d = self.describe()
        return (
            f"FittedEffects({len(self.data.y)} units in {d['n_places']} places, "
            f"{type(self.learner.basis).__name__}, sd of effects {d['signal_sd']:.3g})"
        )
