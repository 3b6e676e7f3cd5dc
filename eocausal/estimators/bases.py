"""What an effect may depend on: linear in image features, or the leaves of an honest forest.

A basis turns features of places into (m, k) columns φ for :func:`fit_field`, scaled so that the
mean of ‖φ‖² over the fitting places is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sklearn.ensemble import RandomForestRegressor

__all__ = ["Basis", "FeatureMap", "ForestBasis", "PrincipalComponents", "RidgeBasis"]


class FeatureMap(Protocol):
    """A fitted basis."""

    def __call__(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (m, k) columns for (m, p) features."""
        ...


class Basis(Protocol):
    """A decision what the effect may depend on."""

    @property
    def adaptive(self) -> bool:
        """Whether fitting looks at the scores, so that other places must be used to regress."""
        ...

    def fit(
        self,
        features: NDArray[np.float64],
        target: NDArray[np.float64],
        weight: NDArray[np.float64],
        *,
        seed: int,
    ) -> FeatureMap:
        """Fit on (m, p) features and (m,) scores with weights."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class PrincipalComponents:
    """Principal components of standardised features, in their own proportions.

    Attributes
    ----------
    mean, scale
        (p,) of the fitting places; constant features have scale infinite, and so drop out.
    rotation
        (p, k), scaled so that the mean of ‖φ‖² over the fitting places is one.
    explained
        Share of the standardised features' variance that the k components carry.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    rotation: NDArray[np.float64]
    explained: float

    @classmethod
    def fit(cls, features: NDArray[np.float64], components: int) -> PrincipalComponents:
        """Fit on (m, p) features, keeping at most ``components``."""
        mean = features.mean(axis=0)
        scale = features.std(axis=0)
        scale = np.where(scale > 1e-10 * (1 + np.abs(mean)), scale, np.inf)
        z = (features - mean) / scale
        _, singular, right = np.linalg.svd(z, full_matrices=False)
        power = singular**2
        k = max(1, min(components, int((power > power[0] * 1e-10).sum()) if power[0] > 0 else 1))
        rotation = right[:k].T
        sign = np.sign(rotation[np.abs(rotation).argmax(axis=0), np.arange(k)])
        size = np.sqrt(power[:k].sum() / len(z)) or 1.0
        share = float(power[:k].sum() / power.sum()) if power.sum() > 0 else 1.0
        return cls(mean, scale, rotation * sign / size, share)

    def __call__(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (m, k) components."""
        return np.asarray(((features - self.mean) / self.scale) @ self.rotation)


@dataclass(frozen=True, slots=True)
class RidgeBasis:
    """Effects linear in the image features, with ridge penalties learned from the data.

    Parameters
    ----------
    components
        Principal components kept, at most. Too few leave out part of the effect and make intervals
        too short.
    """

    components: int = 128

    @property
    def adaptive(self) -> bool:
        """False: the components do not depend on the scores."""
        return False

    def fit(
        self,
        features: NDArray[np.float64],
        target: NDArray[np.float64],
        weight: NDArray[np.float64],
        *,
        seed: int,
    ) -> FeatureMap:
        """Fit the components."""
        return PrincipalComponents.fit(features, self.components)


@dataclass(frozen=True, slots=True)
class ForestBasis:
    """Effects constant on the leaves of regression trees grown on other places' scores.

    Two places are alike in proportion to how often they share a leaf; the effects are regressed
    on the leading eigenvectors of that kernel (Scornet 2016, IEEE Trans. Inf. Theory 62; honesty
    as in Wager & Athey 2018, JASA 113).

    Parameters
    ----------
    trees
        Number of trees.
    min_leaf
        Fewest places in a leaf.
    components
        Principal components of the features given to the forest, and eigenvectors kept.
    """

    trees: int = 300
    min_leaf: int = 10
    components: int = 32

    @property
    def adaptive(self) -> bool:
        """True: the trees look at the scores."""
        return True

    def fit(
        self,
        features: NDArray[np.float64],
        target: NDArray[np.float64],
        weight: NDArray[np.float64],
        *,
        seed: int,
    ) -> FeatureMap:
        """Grow the forest."""
        from sklearn.ensemble import RandomForestRegressor

        reduce = PrincipalComponents.fit(features, self.components)
        forest = RandomForestRegressor(
            self.trees, min_samples_leaf=self.min_leaf, max_features=1 / 3,
            random_state=seed, n_jobs=1,
        )  # fmt: skip
        z = reduce(features)
        forest.fit(z, target, sample_weight=weight)
        return _LeafKernel.fit(reduce, forest, z, self.components)


@dataclass(frozen=True, slots=True, eq=False)
class _LeafKernel:
    reduce: PrincipalComponents
    forest: RandomForestRegressor
    leaves: NDArray[np.int64]
    projection: NDArray[np.float64]

    @classmethod
    def fit(
        cls,
        reduce: PrincipalComponents,
        forest: RandomForestRegressor,
        z: NDArray[np.float64],
        components: int,
    ) -> _LeafKernel:
        leaves = forest.apply(z)
        value, vector = np.linalg.eigh(_shared_leaves(leaves, leaves))
        k = min(components, len(z) - 1)
        value, vector = value[::-1][:k], vector[:, ::-1][:, :k]
        keep = value > value[0] * 1e-8
        sign = np.sign(vector[np.abs(vector).argmax(axis=0), np.arange(k)])
        projection = (vector * sign)[:, keep] / np.sqrt(value[keep])
        size = np.sqrt(value[keep].sum() / len(z))
        return cls(reduce, forest, leaves, projection / size)

    def __call__(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        leaves = self.forest.apply(self.reduce(features))
        return np.asarray(_shared_leaves(leaves, self.leaves) @ self.projection)


def _shared_leaves(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of trees in which two places fall in one leaf; (m, trees), (n, trees) → (m, n)."""
    shared = np.zeros((len(a), len(b)))
    for tree in range(a.shape[1]):
        shared += a[:, tree, None] == b[None, :, tree]
    return np.asarray(shared / a.shape[1])
