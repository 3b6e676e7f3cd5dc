"""Variances from influence values: robust, clustered one way or two.

Every rule is a frozen dataclass with ``variance(influence, units)``. Influence values sum to the
estimation error, so that a variance is a sum of products of the values of dependent units
(METHODS D1, D7). Rules over space are in :mod:`~eocausal.estimators.conley` and
:mod:`~eocausal.estimators.bootstrap`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eocausal.contracts import check_columns, codes
from eocausal.effects import Influence, Variance
from eocausal.errors import OneClusterError
from eocausal.estimators.conley import Conley, Projected, conley_variance
from eocausal.estimators.kernels import Bartlett, Kernel, Spherical, Uniform, Wendland
from eocausal.folds import EARTH_RADIUS_KM

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = [
    "EARTH_RADIUS_KM",
    "HC0",
    "HC2",
    "Bartlett",
    "Clustered",
    "Conley",
    "Kernel",
    "Projected",
    "Spherical",
    "TwoWay",
    "Uniform",
    "Wendland",
    "cluster_codes",
    "cluster_sums",
    "conley_variance",
]


@dataclass(frozen=True, slots=True)
class HC0:
    """Independent units: sum of squared influence values (White 1980)."""

    def variance(self, influence: Influence, units: pd.DataFrame) -> Variance:
        """Return Σψ²."""
        return Variance(float(influence.raw @ influence.raw), influence.df)


@dataclass(frozen=True, slots=True)
class HC2:
    """Independent units with the leverage correction; Neyman's variance for two arms."""

    def variance(self, influence: Influence, units: pd.DataFrame) -> Variance:
        """Return Σψ²/(1-h) (MacKinnon & White 1985)."""
        return Variance(float(influence.hc2 @ influence.hc2), influence.df)


def cluster_sums(values: NDArray[np.float64], cluster: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum values within clusters numbered 0..G-1; returns (G,)."""
    return np.asarray(np.bincount(cluster, values), dtype=float)


@dataclass(frozen=True, slots=True)
class Clustered:
    """Units of one cluster depend on each other in any way; clusters are independent.

    Parameters
    ----------
    by
        Column of the units table. Cluster at the level of assignment or coarser.
    """

    by: str

    def variance(self, influence: Influence, units: pd.DataFrame) -> Variance:
        """Return G/(G-1) Σ_g (Σ_{i∈g} ψ_i)², with G-1 degrees of freedom.

        Raises
        ------
        OneClusterError
            If there are fewer than two clusters.
        """
        found = _one_way(
            influence.raw, cluster_codes(units.loc[influence.labels], self.by), self.by
        )
        return Variance(found.value, found.df, _few(int(found.df) + 1, self.by))


def cluster_codes(units: pd.DataFrame, by: str) -> NDArray[np.int64]:
    """Give units the numbers 0..G-1 of their clusters, (n,).

    Raises
    ------
    MissingColumnError, DesignError
        If there is no such column, or a value is missing.
    """
    check_columns(units, [by], what="units table")
    return codes(units[by], by)


def _one_way(values: NDArray[np.float64], cluster: NDArray[np.int64], what: str) -> Variance:
    sums = cluster_sums(values, cluster)
    n = sums.size
    if n < 2:
        raise OneClusterError(
            f"There is one cluster of {what!r}.",
            cause="With one cluster no variance can be estimated.",
            next_step="Cluster by a finer column.",
        )
    return Variance(float(n / (n - 1) * (sums @ sums)), n - 1)


def _few(n: int, by: str) -> str:
    if n >= 20:
        return ""
    return f"Only {n} clusters of {by!r}: the interval may still be too short."


@dataclass(frozen=True, slots=True)
class TwoWay:
    """Units that share either of two groups depend on each other, e.g. district and year.

    Parameters
    ----------
    a, b
        Columns of the units table.
    """

    a: str
    b: str

    def variance(self, influence: Influence, units: pd.DataFrame) -> Variance:
        """Return V_a + V_b - V_ab, or V_a or V_b where that is larger.

        Each term is that of :class:`Clustered`, V_ab over the groups that share both (Cameron,
        Gelbach & Miller 2011, Journal of Business & Economic Statistics 29:238). The sum can be
        smaller than one-way variances, and negative; the largest of the three cannot be
        (MacKinnon, Nielsen & Webb 2024, arXiv 2406.08880). Degrees of freedom are those of the
        column with fewer clusters.

        Raises
        ------
        OneClusterError
            If a column has fewer than two clusters.
        """
        here = units.loc[influence.labels]
        first, second = (cluster_codes(here, by) for by in (self.a, self.b))
        both = np.unique(first * (second.max() + 1) + second, return_inverse=True)[1].reshape(-1)
        one = _one_way(influence.raw, first, self.a)
        two = _one_way(influence.raw, second, self.b)
        shared = _one_way(influence.raw, both, f"{self.a} x {self.b}")
        joint = one.value + two.value - shared.value
        largest = max(joint, one.value, two.value)
        notes = [_few(int(v.df) + 1, by) for v, by in ((one, self.a), (two, self.b))]
        if largest > joint:
            by = self.a if largest == one.value else self.b
            notes.append(
                f"The variance by {self.a!r} and {self.b!r} was smaller than that by {by!r} "
                "alone, which is used."
            )
        return Variance(largest, min(one.df, two.df), " ".join(note for note in notes if note))
