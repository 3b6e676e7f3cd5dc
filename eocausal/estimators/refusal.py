"""When units of one arm have no counterpart in another: which, where, and what to ask instead.

An estimate would be a number about people whom nobody in the arm resembles, with a standard error
that does not show it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eocausal.errors import OverlapError
from eocausal.estimators.arm_means import Estimand
from eocausal.estimators.bootstrap import SpatialBootstrap
from eocausal.estimators.empty_region import empty_region
from eocausal.estimators.inference import Clustered, Conley, TwoWay, cluster_codes
from eocausal.estimators.overlap import ArmSupport
from eocausal.estimators.region import describe_region
from eocausal.folds import SpatialBlocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from eocausal.effects import VarianceRule
    from eocausal.estimators.arm_means import ArmMeans
    from eocausal.estimators.observational import Observed
    from eocausal.estimators.overlap import Overlap

__all__ = [
    "arm_supports",
    "dependent_groups",
    "refuse_empty_regions",
    "refuse_lost_arm",
    "refuse_thin_arms",
]

UNLIKELY = 20.0
"""Units this many times less likely to be in an arm than the average one hardly ever are."""


def arm_supports(
    data: Observed, means: ArmMeans, propensity: NDArray[np.float64] | None, estimand: Estimand
) -> tuple[ArmSupport, ...]:
    """Measure how many units speak for each arm."""
    found = []
    for k, name in enumerate(data.arms):
        weights = means.weights[data.arm == k]
        hard = None if propensity is None else _hardest(data.arm, propensity, k, estimand)
        if hard is None:
            found.append(ArmSupport.of(name, weights))
            continue
        assert propensity is not None
        e = propensity[:, k]
        found.append(
            ArmSupport.of(
                name,
                weights,
                hardest=int((hard & (data.arm == k)).sum()),
                expected=float(e[hard].sum()),
                even=float(hard.sum() * e.mean()),
            )
        )
    return tuple(found)


def _hardest(
    arm: NDArray[np.int64], propensity: NDArray[np.float64], k: int, estimand: Estimand
) -> NDArray[np.bool_] | None:
    """Mark units as unlikely to be in an arm as the most unlikely tenth of the population.

    None where the arm need not occur everywhere: the treated for the ATT, any arm for the ATO.
    """
    people = _population(arm, k, estimand)
    if people is None:
        return None
    return np.asarray(propensity[:, k] <= np.quantile(propensity[people, k], 0.1))


def _population(arm: NDArray[np.int64], k: int, estimand: Estimand) -> NDArray[np.bool_] | None:
    """Mark units that arm k must speak for; None if there are none but its own."""
    if estimand is Estimand.ATE:
        return np.ones(len(arm), dtype=bool)
    if estimand is Estimand.ATT and k == 0:
        return arm > 0
    return None


def refuse_lost_arm(data: Observed) -> None:
    """Refuse to go on after trimming if an arm has fewer than two units.

    Raises
    ------
    OverlapError
    """
    lost = [name for name, n in zip(data.arms, data.counts(), strict=True) if n < 2]
    if lost:
        raise OverlapError(
            f"Trimming leaves fewer than two units in arm {lost[0]!r}.",
            cause="Its units are those that could hardly have been in another arm.",
            next_step="There is no overlap to estimate an effect from; compare other units.",
        )


def refuse_empty_regions(
    data: Observed, estimand: Estimand, overlap: Overlap, vcov: VarianceRule
) -> None:
    """Refuse if a large share of the population lies where an arm does not occur.

    Such regions of the confounders' columns are looked for whatever a model of treatment says
    (:func:`~eocausal.estimators.empty_region.empty_region`), units that depend on each other
    counting once.

    Raises
    ------
    OverlapError
        Naming the region and some of its units.
    """
    if overlap.empty is None:
        return
    groups = dependent_groups(vcov, data.units)
    for k, name in enumerate(data.arms):
        people = _population(data.arm, k, estimand)
        if people is None:
            continue
        region = empty_region(data.confounders, data.units, data.arm == k, cluster=groups)
        share = float(region.inside[people].mean())
        if not region.boxes or share < overlap.empty:
            continue
        whom = "the treated" if estimand is Estimand.ATT else "all units"
        raise OverlapError(
            f"The {estimand} is refused: no unit of arm {name!r} occurs among {region.words()}.",
            cause=f"They are {share:.0%} of {whom}, and nothing shows their outcome in arm "
            f"{name!r}: a number would come from a model's guess.",
            next_step=f"Estimate {_instead(data, estimand, k)}, or leave these units out and say "
            "so.",
        )


def refuse_thin_arms(
    data: Observed,
    estimand: Estimand,
    overlap: Overlap,
    support: Sequence[ArmSupport],
    propensity: NDArray[np.float64] | None,
) -> None:
    """Refuse if too few units speak for an arm.

    Raises
    ------
    OverlapError
        Naming, where probabilities are used, the units that could hardly have been in the arm.
    """
    refused = overlap.refused(support)
    if not refused:
        return
    worst = min(refused, key=lambda s: s.ess)
    k = data.arms.index(worst.arm)
    where = ""
    if propensity is not None:
        where = describe_region(
            data.confounders, data.units, _unlikely(data.arm, propensity, k, estimand)
        )
    raise OverlapError(
        f"The {estimand} is refused: {worst.words()}."
        + (f" Hardly ever in it are {where}." if where not in ("", "no unit") else ""),
        cause="Some units could hardly have been in that arm, and a few others would speak for "
        "all of them; the standard error would not show it.",
        next_step=f"Estimate {_instead(data, estimand, k)}.",
    )


def _unlikely(
    arm: NDArray[np.int64], propensity: NDArray[np.float64], k: int, estimand: Estimand
) -> NDArray[np.bool_]:
    """Mark units of the population that hardly ever are in an arm, or else its hardest tenth."""
    people = _population(arm, k, estimand)
    if people is None:
        return np.zeros(len(arm), dtype=bool)
    e = propensity[:, k]
    bad = people & (e * UNLIKELY < e.mean())
    return bad if bad.any() else people & (e <= np.quantile(e[people], 0.1))


def _instead(data: Observed, estimand: Estimand, lacking: int) -> str:
    """Say what can be asked; untreated who are lacking are lacking for the ATT, too."""
    if estimand is Estimand.ATO:
        return "a comparison of fewer arms"
    offered = ["the effect where both arms occur (ATO)"]
    if estimand is Estimand.ATE and lacking > 0 and len(data.arms) == 2:
        offered.append("that on the treated (ATT)")
    return f"{', '.join(offered)} or that of the units that trimming keeps (Crump)"


def dependent_groups(vcov: VarianceRule, units: pd.DataFrame) -> NDArray[np.int64] | None:
    """Return (n,) groups of units that a variance takes to depend on each other; None: each alone.

    For variances over space these are blocks with the cutoff as edge.
    """
    if isinstance(vcov, Clustered):
        return cluster_codes(units, vcov.by)
    if isinstance(vcov, TwoWay):
        return cluster_codes(units, vcov.a)
    if isinstance(vcov, Conley | SpatialBootstrap):
        if vcov.projected is None:
            return SpatialBlocks(vcov.km, lon=vcov.lon, lat=vcov.lat).blocks(units)
        cell = units[[vcov.projected.x, vcov.projected.y]].to_numpy(float) // (1000 * vcov.km)
        return np.unique(cell, axis=0, return_inverse=True)[1].reshape(-1)
    return None
