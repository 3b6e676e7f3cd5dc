"""What a model of treatment leans on: columns permuted among the units it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eocausal.estimators.confounders import TABLE, Confounders
from eocausal.folds import Splits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from eocausal.estimators.observational import PropensityModel

__all__ = ["Group", "groups_of", "permuted"]

CELLS = 20_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Columns that are permuted together.

    Attributes
    ----------
    name
        A column of the table, or a source of features.
    columns
        Numbers of the columns.
    """

    name: str
    columns: NDArray[np.int64]


def groups_of(confounders: Confounders) -> list[Group]:
    """Return each column of the table (indicators of one together), then each other source."""
    groups: dict[str, list[int]] = {}
    for j, name in enumerate(confounders.names):
        source = confounders.blocks[confounders.block[j]]
        stem = name.partition("=")[0] if source == TABLE else source
        groups.setdefault(stem, []).append(j)
    return [Group(name, np.asarray(columns)) for name, columns in groups.items()]


def permuted(
    model: PropensityModel,
    confounders: Confounders,
    arm: NDArray[np.int64],
    splits: Splits,
    *,
    repeats: int,
    seed: int,
) -> Iterator[tuple[Group, list[NDArray[np.float64]]]]:
    """Predict treatment with each group of columns permuted among the units of a fold.

    Models are those of ``splits``, not fitted anew without the group: permuted copies of the units
    are predicted beside them, and no model is fitted on a copy. As many copies as 20 million
    numbers hold are predicted at once, so that memory is bounded; each such batch costs one fit.

    Yields
    ------
    The group, and for each repeat the (n, K) probabilities with its columns permuted.
    """
    groups = groups_of(confounders)
    jobs = [(g, r) for g in range(len(groups)) for r in range(repeats)]
    size = max(1, CELLS // max(confounders.x.size, 1))
    found: dict[int, list[NDArray[np.float64]]] = {}
    for begin in range(0, len(jobs), size):
        batch = jobs[begin : begin + size]
        copies = [
            _permuted(confounders.x, groups[g], splits.fold, np.random.default_rng([seed, g, r]))
            for g, r in batch
        ]
        for (g, r), probability in zip(
            batch, _predict(model, confounders, copies, arm, splits, seed), strict=True
        ):
            found.setdefault(g, []).append(probability)
            if r == repeats - 1:
                yield groups[g], found.pop(g)


def _permuted(
    x: NDArray[np.float64], group: Group, fold: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    out = x.copy()
    for k in np.unique(fold):
        here = np.flatnonzero(fold == k)
        out[np.ix_(here, group.columns)] = x[np.ix_(rng.permutation(here), group.columns)]
    return out


def _predict(
    model: PropensityModel,
    confounders: Confounders,
    copies: list[NDArray[np.float64]],
    arm: NDArray[np.int64],
    splits: Splits,
    seed: int,
) -> list[NDArray[np.float64]]:
    c, n = confounders, confounders.n
    times = len(copies) + 1
    wide = Confounders(np.concatenate([c.x, *copies]), c.names, c.block, c.blocks)
    unseen = np.zeros((n * len(copies), splits.k), dtype=bool)
    everyone = Splits(np.tile(splits.fold, times), np.concatenate([splits.train, unseen]))
    found = model.cross_fit(wide, np.tile(arm, times), everyone, seed=seed)
    return [found[n * t : n * (t + 1)] for t in range(1, times)]
