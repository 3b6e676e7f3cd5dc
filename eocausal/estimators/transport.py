"""Carry a trial's effects to places without experiment: estimate, interval, support.

The effect is predicted from the image as the learner found it to vary in the trial. Support
follows Meyer & Pebesma (2021, Methods in Ecology and Evolution 12; METHODS D11): a place's
distance to the nearest trial place in feature space, against the distances of trial places to
trial places of other folds. This assumes that the effect depends on place only through what
the image shows (Dahabreh et al. 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats
from scipy.spatial import cKDTree

from eocausal.contracts import check_neighborhoods, check_same_neighborhoods
from eocausal.effect_map import EffectMap
from eocausal.effects import Status
from eocausal.errors import SupportError
from eocausal.estimators.learners import FittedEffects, feature_frame, predict_components

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import xarray as xr
    from numpy.typing import NDArray

__all__ = ["Support", "area_of_applicability", "mapped_effects", "transport"]

ROWS = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Support:
    """How like the trial's places the others are.

    Attributes
    ----------
    index
        (m,) dissimilarity index of each target place.
    share
        (m,) share of trial places that are at least as far from trial places of other folds: 1 is
        as usual as can be, 0 farther than any.
    threshold
        Index above which a place lies outside the area of applicability.
    """

    index: NDArray[np.float64]
    share: NDArray[np.float64]
    threshold: float

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Whether each place lies inside the area of applicability."""
        return np.asarray(self.index <= self.threshold)


def area_of_applicability(
    train: NDArray[np.float64], fold: NDArray[np.int64], target: NDArray[np.float64]
) -> Support:
    """Compare distances to the trial's places.

    DI = distance to the nearest trial place / mean distance between trial places; the threshold
    is the upper whisker (third quartile + 1.5 interquartile ranges, at most the maximum) of the
    trial places' own DI to places of other folds.

    Parameters
    ----------
    train
        (m, k) scaled features of the trial's places.
    fold
        (m,) their folds.
    target
        (t, k) scaled features of the target places.
    """
    square = (train**2).sum(axis=1)
    total, own = 0.0, np.full(len(train), np.nan)
    for begin in range(0, len(train), ROWS):
        rows = slice(begin, begin + ROWS)
        gram = square[rows, None] + square - 2 * train[rows] @ train.T
        distance = np.sqrt(np.maximum(gram, 0.0))
        total += float(distance.sum())
        distance[fold[rows, None] == fold] = np.inf
        own[rows] = distance.min(axis=1)
    typical = total / (len(train) * max(len(train) - 1, 1)) or 1.0
    own /= typical
    low, high = np.quantile(own, [0.25, 0.75])
    threshold = min(high + 1.5 * (high - low), float(own.max()))
    nearest = cKDTree(train).query(target)[0] / typical
    ordered = np.sort(own)
    share = 1 - np.searchsorted(ordered, nearest, side="left") / len(own)
    return Support(nearest, share, float(threshold))


def transport(
    fitted: FittedEffects,
    features: pd.DataFrame | xr.DataArray,
    neighborhoods: gpd.GeoDataFrame,
) -> EffectMap:
    """Predict the effect in every neighborhood.

    Parameters
    ----------
    fitted
        A learner fitted on the trial.
    features
        The same encoder's embedding of the target places (the trial's may be among them).
    neighborhoods
        Where to draw them; neighborhoods without features get status ``no_image`` and no number.

    Returns
    -------
    EffectMap
        Estimates with intervals; ``support`` and the status ``extrapolated`` where the place is
        outside the area of applicability.

    Raises
    ------
    AlignmentError
        If the features have places that are not neighborhoods.
    SupportError
        If no target place is inside the area of applicability.
    """
    check_neighborhoods(neighborhoods)
    frame = feature_frame(features)
    check_same_neighborhoods(frame.index, neighborhoods.index, what="neighborhoods", of="features")
    frame = frame.loc[[i for i in neighborhoods.index if i in frame.index]]
    z = frame.to_numpy()
    mean, root = predict_components(fitted.components, z)
    support = area_of_applicability(
        fitted.support(fitted.data.z), _place_folds(fitted), fitted.support(z)
    )
    if not support.inside.any():
        raise SupportError(
            f"None of {len(frame)} places is like a place of the trial.",
            cause=f"The smallest dissimilarity is {support.index.min():.2f}, the threshold "
            f"{support.threshold:.2f}: other units, another sensor, or another kind of country.",
            next_step="Check that both embeddings come from the same encoder, bands and units.",
        )
    return mapped_effects(
        neighborhoods,
        frame.index,
        mean,
        root,
        support,
        in_study=fitted.data.labels,
        estimand="CATE given the image",
        method=f"DR-learner, {type(fitted.learner.basis).__name__}",
        level=fitted.learner.level,
        meta=fitted.describe(),
    )


def mapped_effects(
    neighborhoods: gpd.GeoDataFrame,
    labels: pd.Index,
    mean: NDArray[np.float64],
    root: NDArray[np.float64],
    support: Support,
    *,
    in_study: pd.Index,
    estimand: str,
    method: str,
    level: float,
    meta: Mapping[str, Any],
) -> EffectMap:
    """Lay predicted effects over neighborhoods.

    Parameters
    ----------
    neighborhoods
        Where to draw them; those without a prediction get status ``no_image`` and no number.
    labels
        (m,) neighborhoods with a prediction.
    mean, root
        (m,) effects and the (m, r) root of their covariance.
    support
        How like the study's places these are.
    in_study
        Neighborhoods that the effects were learned from.
    estimand, method, level, meta
        As in the map.
    """
    sd = np.sqrt((root**2).sum(axis=1))
    critical = float(stats.norm.ppf(0.5 + level / 2))
    table = neighborhoods.copy()
    at = table.index.get_indexer(labels)
    columns = {
        "estimate": mean,
        "std_error": sd,
        "ci_low": mean - critical * sd,
        "ci_high": mean + critical * sd,
        "support": support.share,
    }
    table["estimand"] = estimand
    table["method"] = method
    for name, values in columns.items():
        full = np.full(len(table), np.nan)
        full[at] = values
        table[name] = full
    status = np.full(len(table), str(Status.NO_IMAGE), dtype=object)
    status[at] = np.where(support.inside, str(Status.OK), str(Status.EXTRAPOLATED))
    table["status"] = status
    table["in_trial"] = table.index.isin(in_study)
    whole = np.full((len(table), root.shape[1]), np.nan)
    whole[at] = root
    return EffectMap(table, level, whole, {**meta, "threshold": support.threshold})


def _place_folds(fitted: FittedEffects) -> NDArray[np.int64]:
    """Fold of each trial place (that of its first unit)."""
    fold = np.zeros(len(fitted.data.labels), dtype=np.int64)
    fold[fitted.data.place[::-1]] = fitted.fold[::-1]
    return fold
