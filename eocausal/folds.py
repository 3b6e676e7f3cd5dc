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

__all__ = [
    "Buffered",
    "FoldRule",
    "GroupFolds",
    "RandomFolds",
    "SpatialBlocks",
    "Splits",
    "fold_groups",
    "halves",
    "split",
]

EARTH_RADIUS_KM = 6371.0


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


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """Which units a model is fitted on, and which it then predicts.

    Attributes
    ----------
    fold
        (n,) fold 0..k-1 of each unit: the model of that fold predicts it.
    train
        (n, k) True where the unit is used to fit the model of a fold.
    """

    fold: NDArray[np.int64]
    train: NDArray[np.bool_]

    @property
    def k(self) -> int:
        """Number of folds; 1 if models predict the units they were fitted on."""
        return int(self.train.shape[1])

    @property
    def crossed(self) -> bool:
        """Whether no unit is predicted by a model that was fitted on it."""
        return not bool(self.train[np.arange(len(self.fold)), self.fold].any())

    @classmethod
    def of(cls, fold: NDArray[np.int64]) -> Splits:
        """Fit the model of each fold on all units of the others."""
        fold = np.asarray(fold, dtype=np.int64)
        return cls(fold, fold[:, None] != np.arange(int(fold.max()) + 1))

    @classmethod
    def none(cls, n: int) -> Splits:
        """One model fitted on all units that predicts them all."""
        return cls(np.zeros(n, dtype=np.int64), np.ones((n, 1), dtype=bool))

    def subset(self, keep: NDArray[np.bool_]) -> Splits:
        """Keep some units; folds are as they were."""
        return Splits(self.fold[keep], self.train[keep])


def split(
    rule: FoldRule | None,
    units: pd.DataFrame,
    *,
    seed: int,
    stratum: NDArray[np.float64] | None = None,
) -> Splits:
    """Deal units to folds; ``None`` means that models predict the units they were fitted on.

    Raises
    ------
    FoldError, OneClusterError, MissingColumnError
        As the rule does; FoldError also where a buffer leaves nothing to fit on.
    """
    if rule is None:
        return Splits.none(len(units))
    splits = Splits.of(rule.assign(units, seed=seed, stratum=stratum))
    if isinstance(rule, Buffered):
        return rule.apart(units, splits)
    return splits


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
        x = EARTH_RADIUS_KM * np.cos(middle) * ((lon - centre + np.pi) % (2 * np.pi) - np.pi)
        y = EARTH_RADIUS_KM * np.sin(lat) / max(np.cos(middle), 1e-6)
        cells = np.stack([np.floor(x / self.km), np.floor(y / self.km)], axis=1)
        return np.unique(cells, axis=0, return_inverse=True)[1].reshape(-1)

    def assign(
        self, units: pd.DataFrame, *, seed: int, stratum: NDArray[np.float64] | None = None
    ) -> NDArray[np.int64]:
        """Return (n,) fold numbers; see :func:`fold_groups`."""
        return fold_groups(self.blocks(units), self.k, seed=seed, stratum=stratum)


@dataclass(frozen=True, slots=True)
class Buffered:
    """Folds whose models see no unit closer than ``km`` to a unit they predict.

    Le Rest et al. (2014, Global Ecology and Biogeography 23:811): near units share what is not
    measured, and a model fitted on them is scored too well.

    Parameters
    ----------
    folds
        How units are dealt; :class:`SpatialBlocks` keeps most units away from the border.
    km
        Width of the buffer along the great circle.
    """

    folds: FoldRule
    km: float
    lon: str = "lon"
    lat: str = "lat"

    def __post_init__(self) -> None:
        if not self.km > 0:
            raise FoldError(
                f"A buffer of {self.km} km is not a length.",
                cause="Units closer than it are not used for fitting.",
                next_step="Give a positive distance, e.g. Buffered(SpatialBlocks(km=100), km=20).",
            )

    @property
    def k(self) -> int:
        """Number of folds."""
        return self.folds.k

    def assign(
        self, units: pd.DataFrame, *, seed: int, stratum: NDArray[np.float64] | None = None
    ) -> NDArray[np.int64]:
        """Return (n,) fold numbers of the rule within."""
        return self.folds.assign(units, seed=seed, stratum=stratum)

    def apart(self, units: pd.DataFrame, splits: Splits) -> Splits:
        """Take units within the buffer of a fold out of its fitting units."""
        from scipy.spatial import cKDTree

        check_columns(units, [self.lon, self.lat], what="units table")
        lon = np.deg2rad(units[self.lon].to_numpy(float))
        lat = np.deg2rad(units[self.lat].to_numpy(float))
        if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
            raise FoldError(
                "Some units have no finite longitude or latitude.",
                cause="Their distance to others is unknown.",
                next_step="Complete the coordinates or drop these units.",
            )
        xyz = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
        chord = 2 * np.sin(min(self.km / EARTH_RADIUS_KM, np.pi) / 2)
        train = splits.train.copy()
        for k in range(splits.k):
            near = cKDTree(xyz[splits.fold == k]).query(xyz, distance_upper_bound=chord)[0]
            train[:, k] &= ~np.isfinite(near)
            if not train[:, k].any():
                raise FoldError(
                    f"A buffer of {self.km:g} km leaves no unit to fit fold {k} on.",
                    cause="Every unit is that close to some unit of the fold.",
                    next_step="Use a narrower buffer, or larger blocks.",
                )
        return Splits(splits.fold, train)
