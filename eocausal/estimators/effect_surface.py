"""Effects per neighborhood of a treatment that was placed: scores regressed on image features.

The cross-fitted doubly robust scores of :class:`~eocausal.estimators.weighting.Weighted` have each
unit's effect as their expectation (Kennedy 2023, Electronic Journal of Statistics 17); one of them
is noise, but their regression on what images show is the effect as a function of the image, with
an interval (:mod:`eocausal.estimators.field`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.contracts import check_neighborhoods, check_same_neighborhoods
from eocausal.errors import EstimationError
from eocausal.estimators.arm_means import Estimand
from eocausal.estimators.bases import PrincipalComponents, RidgeBasis
from eocausal.estimators.field import fit_field
from eocausal.estimators.learners import NUISANCE_COMPONENTS, feature_frame
from eocausal.estimators.place_means import Places
from eocausal.estimators.refusal import dependent_groups
from eocausal.estimators.transport import area_of_applicability, mapped_effects

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr
    from numpy.typing import NDArray

    from eocausal.effect_map import EffectMap
    from eocausal.estimators.weighting import Weighted
    from eocausal.folds import SpatialBlocks

__all__ = ["effect_surface"]


def effect_surface(
    fitted: Weighted,
    features: pd.DataFrame | xr.DataArray,
    neighborhoods: gpd.GeoDataFrame,
    *,
    arm: str | None = None,
    basis: RidgeBasis | None = None,
    blocks: SpatialBlocks | None = None,
) -> EffectMap:
    """Smooth scores to an effect per neighborhood.

    Parameters
    ----------
    fitted
        An analysis by AIPW for the average over all units (ATE); its units name their
        ``neighborhood`` in that column, or in the index.
    features
        Embedding by neighborhood.
    neighborhoods
        Where to draw the effects.
    arm
        Treatment, where there are several; default the first.
    basis
        What the effect may depend on.
    blocks
        Units of one block may have correlated scores; None: those that the analysis' variance
        takes to depend on each other.

    Returns
    -------
    EffectMap
        ``support`` and the status ``extrapolated`` say where no place of the study is alike.

    Raises
    ------
    EstimationError
        If the scores are not those of an average over all units.
    AlignmentError
    """
    score = fitted.decisions.score
    if score.estimand is not Estimand.ATE or not score.needs_outcome:
        raise EstimationError(
            f"The scores of {score.name} ({score.estimand}) are not effects of units.",
            cause="Only those of AIPW for the ATE have each unit's effect as expectation.",
            next_step="Fit with Weighting(score=AIPW()).",
        )
    check_neighborhoods(neighborhoods)
    frame = feature_frame(features)
    check_same_neighborhoods(frame.index, neighborhoods.index, what="neighborhoods", of="features")
    frame = frame.loc[[i for i in neighborhoods.index if i in frame.index]]
    units = fitted.data.units
    place = pd.Index(units["neighborhood"]) if "neighborhood" in units else units.index
    labels = pd.Index(place.unique()).sort_values()
    check_same_neighborhoods(labels, frame.index, what="features")
    at = labels.get_indexer(place)
    cluster = _clusters(fitted, blocks)
    z = frame.loc[labels].to_numpy()
    means = Places.average(fitted.scores(arm), at, cluster)
    mapping = (basis or RidgeBasis()).fit(z[means.place], means.value, means.count, seed=0)
    known = np.maximum(means.known, _noise(fitted, arm, at, cluster))
    posterior = fit_field(mapping(z[means.place]), means.value, known, means.group)
    target = frame.to_numpy()
    phi = mapping(target)
    like = PrincipalComponents.fit(z, NUISANCE_COMPONENTS)
    fold = np.arange(len(labels))
    if fitted.splits.crossed:
        fold[at] = fitted.splits.fold
    support = area_of_applicability(like(z), fold, like(target))
    return mapped_effects(
        neighborhoods,
        frame.index,
        posterior.predict(phi)[0],
        posterior.root_at(phi),
        support,
        in_study=labels,
        estimand="effect given the image",
        method=f"{score.name} scores on {basis or RidgeBasis()!r}",
        level=fitted.decisions.level,
        meta={
            "signal_sd": posterior.signal_sd,
            "noise_sd": posterior.noise_sd,
            "n_places": len(labels),
            "n_features": int(z.shape[1]),
        },
    )


def _clusters(fitted: Weighted, blocks: SpatialBlocks | None) -> NDArray[np.int64]:
    """Return (n,) groups of units whose scores may be correlated."""
    units = fitted.data.units
    if blocks is not None:
        return blocks.blocks(units)
    groups = dependent_groups(fitted.decisions.vcov, units)
    return np.arange(len(units)) if groups is None else groups


def _noise(
    fitted: Weighted,
    arm: str | None,
    place: NDArray[np.int64],
    cluster: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return the variance of each row's mean score that outcomes alone make.

    A unit's score has the variance σ²(1/e_a + 1/e_0) given its confounders, σ² being that of the
    outcome around its predictions: units that hardly could be in an arm are the noisy ones.
    """
    e, m = fitted.nuisances.propensity, fitted.nuisances.outcome
    assert e is not None
    assert m is not None
    data = fitted.data
    own = np.arange(data.n)
    left = data.y - m[own, data.arm]
    one = data.arms.index(arm) if arm is not None else 1
    variance = left.var() * (1 / e[:, one] + 1 / e[:, 0])
    count = Places.average(np.ones(data.n), place, cluster).count
    return Places.average(variance, place, cluster).value / count
