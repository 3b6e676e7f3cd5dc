"""Folds for cross-fitting that keep together what belongs together.

A fold rule is a frozen dataclass; ``assign`` gives each unit its fold. Folds depend on the seed
and on the group labels, not on the order of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from eocausal.contracts import check_columns, codes
from eocausal.errors import FoldError, OneClusterError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["FoldRule", "GroupFolds", "RandomFolds", "SpatialBlocks", "fold_groups", "halves"]


class FoldRule(Protocol):
    """Anything that gives units their folds."""

    @property
    def k(self) -> int:
        """Number of folds."""
        ...

    def assign(
        self, units: pd.DataFrame, *, seed: int, stratum: NDArray[np.float64] | None = None
    ) -> NDArray[np.int64]:
        """Return (n,) fold numbers 0..k-1."""
        ...


def fold_groups(
    group: NDArray[np.int64],
    k: int,
    *,
    seed: int,
    stratum: NDArray[np.float64] | None = None,
) -> NDArray[np.int64]:
    """Deal whole groups to ``k`` folds of about equal size.

    Groups are ordered by ``stratum`` (their mean of it, e.g. the share treated) and size, and
    each run of ``k`` neighbours in that order goes to the ``k`` folds at random, so that folds have
    both arms in the right proportion and about the same number of units.

    Parameters
    ----------
    group
        (n,) codes 0..G-1.
    stratum
        (n,) values to balance over folds, or None.

    Returns
    -------
    (n,) fold numbers.

    Raises
    ------
    OneClusterError
        If there are fewer groups than folds.
    FoldError
        If ``k`` is less than 2.
    """
    if k < 2:
        raise FoldError(
            f"k={k} folds leave nothing to fit on.",
            cause="Each fold is predicted by a model fitted on the others.",
            next_step="Use at least 2 folds; 5 is usual.",
        )
    n_groups = int(group.max()) + 1
    if n_groups < k:
        raise OneClusterError(
            f"There are {n_groups} groups for {k} folds.",
            cause="A group must not be split between folds.",
            next_step=f"Use at most {n_groups} folds, or a finer grouping.",
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(n_groups)
    size = np.bincount(group, minlength=n_groups)
    mean = np.zeros(n_groups)
    if stratum is not None:
        mean = np.bincount(group, stratum, minlength=n_groups) / size
    order = order[np.lexsort((-size[order], mean[order]))]
    fold_of_group = np.empty(n_groups, dtype=np.int64)
    for begin in range(0, n_groups, k):
        row = order[begin : begin + k]
        fold_of_group[row] = rng.permutation(k)[: row.size]
    return fold_of_group[group]


def halves(
    group: NDArray[np.int64], *, seed: int, stratum: NDArray[np.float64] | None = None
) -> NDArray[np.bool_]:
    """Split whole groups into two halves; True marks the first."""
    return np.asarray(fold_groups(group, 2, seed=seed, stratum=stratum) == 0)


@dataclass(frozen=True, slots=True)
class RandomFolds:
    """Units dealt at random: honest only where units are independent of each other."""

    k: int = 5

    def assign(
        self, units: pd.DataFrame, *, seed: int, stratum: NDArray[np.float64] | None = None
    ) -> NDArray[np.int64]:
        """Return (n,) fold numbers; see :func:`fold_groups`."""
        return fold_groups(np.arange(len(units)), self.k, seed=seed, stratum=stratum)


@dataclass(frozen=True, slots=True)
class GroupFolds:
    """Whole groups (village, image, cluster of assignment) dealt to folds."""

    by: str
    k: int = 5

    def assign(
        self, units: pd.DataFrame, *, seed: int, stratum: NDArray[np.float64] | None = None
    ) -> NDArray[np.int64]:
        """Return (n,) fold numbers; see :func:`fold_groups`."""
        check_columns(units, [self.by], what="units table")
        return fold_groups(codes(units[self.by], self.by), self.k, seed=seed, stratum=stratum)


@dataclass(frozen=True, slots=True)
class SpatialBlocks:
    """Square blocks of ``km`` kilometres dealt to folds (METHODS D6).

    Blocks repair optimistic scores on spatially correlated data; choose an edge no shorter than
    the range of correlation. They do not repair missing confounders.
    """

    km: float
    k: int = 5
    lon: str = "lon"
    lat: str = "lat"

    def __post_init__(self) -> None:
        if not self.km > 0:
            raise FoldError(
                f"km={self.km} is not a length.",
                cause="Blocks need a positive edge.",
                next_step="Give the edge in kilometres, e.g. SpatialBlocks(km=100).",
            )

    def blocks(self, units: pd.DataFrame) -> NDArray[np.int64]:
        """Give each unit the number of its block, on a cylindrical equal-area grid."""
        check_columns(units, [self.lon, self.lat], what="units table")
        lon = np.deg2rad(units[self.lon].to_numpy(float))
        lat = np.deg2rad(units[self.lat].to_numpy(float))
        if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
            raise FoldError(
                "Some units have no finite longitude or latitude.",
                cause="They lie in no block.",
                next_step="Complete the coordinates or drop these units.",
            )
        middle = float(np.median(lat))
        centre = float(np.arctan2(np.sin(lon).mean(), np.cos(lon).mean()))
        x = 6371.0 * np.cos(middle) * ((lon - centre + np.pi) % (2 * np.pi) - np.pi)
        y = 6371.0 * np.sin(lat) / max(np.cos(middle), 1e-6)
        cells = np.stack([np.floor(x / self.km), np.floor(y / self.km)], axis=1)
        return np.unique(cells, axis=0, return_inverse=True)[1].reshape(-1)

    def assign(
        self, units: pd.DataFrame, *, seed: int, stratum: NDArray[np.float64] | None = None
    ) -> NDArray[np.int64]:
        """Return (n,) fold numbers; see :func:`fold_groups`."""
        return fold_groups(self.blocks(units), self.k, seed=seed, stratum=stratum)
