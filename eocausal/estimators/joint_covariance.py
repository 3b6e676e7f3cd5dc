"""The covariance matrix of several estimates from their joint influence values."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from typing import TYPE_CHECKING

import numpy as np

from eocausal.effects import EffectEstimate, Influence, VarianceRule, pool
from eocausal.estimators.bootstrap import SpatialBootstrap, on_equal_area, random_blocks
from eocausal.estimators.conley import Conley, places_of
from eocausal.estimators.inference import HC0, HC2, Clustered, cluster_codes
from eocausal.estimators.neighbours import kernel_sums

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["joint_covariance", "joint_covariance_of"]


def joint_covariance_of(estimates: Sequence[EffectEstimate]) -> NDArray[np.float64]:
    """Covariance of estimates under the variance rule of the first, units matched by label.

    Returns
    -------
    (K, K).
    """
    merged = pool(estimates, weights=[1.0] * len(estimates))
    labels = merged.influence.labels
    raw, hc2 = np.zeros((2, len(labels), len(estimates)))
    for k, item in enumerate(estimates):
        at = labels.get_indexer(item.influence.labels)
        raw[at, k], hc2[at, k] = item.influence.raw, item.influence.hc2
    return joint_covariance(estimates[0].vcov, raw, hc2, merged.units.loc[labels])


@singledispatch
def joint_covariance(
    rule: VarianceRule,
    raw: NDArray[np.float64],
    hc2: NDArray[np.float64],
    units: pd.DataFrame,
) -> NDArray[np.float64]:
    """Covariance matrix of K estimates under a variance rule.

    For rules that this function does not know, Cov(a, b) = (V(a + b) - V(a - b)) / 4.

    Parameters
    ----------
    rule
        How units depend on each other.
    raw, hc2
        (n, K) influence values; see :class:`~eocausal.effects.Influence`.
    units
        The n units.

    Returns
    -------
    (K, K).
    """
    k = raw.shape[1]

    def value(weights: NDArray[np.float64]) -> float:
        return rule.variance(Influence(units.index, raw @ weights, hc2 @ weights), units).value

    one = np.eye(k)
    out = np.diag([value(one[i]) for i in range(k)])
    for i in range(k):
        for j in range(i):
            plus, minus = value(one[i] + one[j]), value(one[i] - one[j])
            out[i, j] = out[j, i] = (plus - minus) / 4
    return out


@joint_covariance.register(HC0)
def _hc0(
    rule: HC0, raw: NDArray[np.float64], hc2: NDArray[np.float64], units: pd.DataFrame
) -> NDArray[np.float64]:
    return np.asarray(raw.T @ raw)


@joint_covariance.register(HC2)
def _hc2(
    rule: HC2, raw: NDArray[np.float64], hc2: NDArray[np.float64], units: pd.DataFrame
) -> NDArray[np.float64]:
    return np.asarray(hc2.T @ hc2)


@joint_covariance.register(Clustered)
def _clustered(
    rule: Clustered, raw: NDArray[np.float64], hc2: NDArray[np.float64], units: pd.DataFrame
) -> NDArray[np.float64]:
    code = cluster_codes(units, rule.by)
    sums = np.stack([np.bincount(code, column) for column in raw.T], axis=1)
    return np.asarray(sums.T @ sums)


@joint_covariance.register(Conley)
def _conley(
    rule: Conley, raw: NDArray[np.float64], hc2: NDArray[np.float64], units: pd.DataFrame
) -> NDArray[np.float64]:
    places = places_of(units, rule.lon, rule.lat, rule.projected)
    sums = places.sums(hc2)
    total = sums.T @ kernel_sums(places, rule.km, rule.kernel, sums).plain
    return np.asarray((total + total.T) / 2)


@joint_covariance.register(SpatialBootstrap)
def _blocks(
    rule: SpatialBootstrap,
    raw: NDArray[np.float64],
    hc2: NDArray[np.float64],
    units: pd.DataFrame,
) -> NDArray[np.float64]:
    places = places_of(units, rule.lon, rule.lat, rule.projected)
    values, plane = places.sums(hc2), on_equal_area(places)
    rng = np.random.default_rng(rule.seed)
    total = np.zeros((hc2.shape[1], hc2.shape[1]))
    for _ in range(rule.origins):
        block = random_blocks(plane, rule.km, rng)
        sums = np.stack([np.bincount(block, column) for column in values.T], axis=1)
        total += sums.T @ sums / rule.origins
    return total
