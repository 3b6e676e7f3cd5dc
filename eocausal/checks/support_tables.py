"""Tables behind the check of overlap: weights, probabilities, what trimming would keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eocausal.estimators.trimming import Crump, Drop, Trimming

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from eocausal.estimators.weighting import Weighted

__all__ = [
    "EXTREME",
    "heaviest_units",
    "propensity_histogram",
    "support_table",
    "trimming_table",
]

EXTREME = 0.05
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


def support_table(subject: Weighted) -> pd.DataFrame:
    """Describe the weights and probabilities arm by arm.

    Returns
    -------
    DataFrame
        Indexed by ``arm``: ``n``, ``ess`` (effective sample size (Σw)²/Σw²), ``ess_share`` of n,
        ``largest_share`` of the arm's weight on one unit, and, where probabilities were used, of
        all units' probability of that arm its quantiles among units of the arm (``own_0`` to
        ``own_100``, in percent) and among units of other arms (``other_0`` to ``other_100``), and
        ``share_extreme``, the share of units for which it is below 0.05.
    """
    rows = {}
    e, arm = subject.nuisances.propensity, subject.data.arm
    for k, s in enumerate(subject.support):
        row = {"n": s.n, "ess": s.ess, "ess_share": s.ess / s.n, "largest_share": s.largest}
        if e is not None:
            own, other = (np.quantile(e[at, k], QUANTILES) for at in (arm == k, arm != k))
            percent = [f"{100 * q:g}" for q in QUANTILES]
            row |= {f"own_{p}": v for p, v in zip(percent, own, strict=True)}
            row |= {f"other_{p}": v for p, v in zip(percent, other, strict=True)}
            row["share_extreme"] = float((e[:, k] < EXTREME).mean())
        rows[s.arm] = row
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "arm"
    return table.astype({"n": int})


def propensity_histogram(subject: Weighted, bins: int = 20) -> pd.DataFrame:
    """Count units by their arm and their probability of each treatment, for a figure.

    Returns
    -------
    DataFrame
        Columns ``treatment`` (whose probability), ``low``, ``high`` (ends of the bin), and ``arm``
        and ``units`` (how many of that arm). Empty where no probabilities were used.
    """
    names = ["treatment", "low", "high", "arm", "units"]
    e, data = subject.nuisances.propensity, subject.data
    if e is None:
        return pd.DataFrame(columns=names)
    ends = np.linspace(0, 1, bins + 1)
    parts = []
    for k, treatment in enumerate(data.arms[1:], start=1):
        for a, arm in enumerate(data.arms):
            count = np.histogram(e[data.arm == a, k], ends)[0]
            parts.append(
                pd.DataFrame(
                    {
                        "treatment": treatment,
                        "low": ends[:-1],
                        "high": ends[1:],
                        "arm": arm,
                        "units": count,
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def heaviest_units(subject: Weighted, count: int = 5) -> pd.DataFrame:
    """Name the units with the largest share of their arm's weight.

    Returns
    -------
    DataFrame
        ``arm``, ``unit`` (label), ``share`` of the arm's weight, ``propensity`` of the own arm
        (NaN without), ``variance_share`` of the unit in Σψ² of the first effect; ``count`` rows
        per arm, the heaviest first.
    """
    data, weights = subject.data, subject.means.weights
    e = subject.nuisances.propensity
    own = np.full(data.n, np.nan) if e is None else e[np.arange(data.n), data.arm]
    square = (subject.means.influence[:, 1] - subject.means.influence[:, 0]) ** 2
    parts = []
    for k, arm in enumerate(data.arms):
        rows = np.flatnonzero(data.arm == k)
        rows = rows[np.argsort(-weights[rows], kind="stable")[:count]]
        parts.append(
            pd.DataFrame(
                {
                    "arm": arm,
                    "unit": data.units.index[rows],
                    "share": weights[rows] / weights[data.arm == k].sum(),
                    "propensity": own[rows],
                    "variance_share": square[rows] / max(float(square.sum()), 1e-300),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def trimming_table(
    propensity: NDArray[np.float64],
    arm: NDArray[np.int64],
    arms: Sequence[str],
    rules: Sequence[Trimming] = (Drop(0.01), Drop(0.05), Drop(0.1), Crump()),
) -> pd.DataFrame:
    """Count what rules of trimming would keep.

    Parameters
    ----------
    propensity
        (n, K) probabilities of the arms.
    arm
        (n,) arms.

    Returns
    -------
    DataFrame
        Indexed by ``rule``: ``kept`` and its ``share``, ``lowest`` probability among the kept, and
        ``kept ARM`` per arm.
    """
    rows = {}
    for rule in rules:
        keep = rule.keep(propensity)
        lowest = float(propensity[keep].min()) if keep.any() else np.nan
        row: dict[str, Any] = {"kept": int(keep.sum()), "share": float(keep.mean())}
        row["lowest"] = lowest
        row |= {f"kept {name}": int((keep & (arm == k)).sum()) for k, name in enumerate(arms)}
        rows[repr(rule)] = row
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "rule"
    return table
