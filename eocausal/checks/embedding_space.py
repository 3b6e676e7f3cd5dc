"""The space an embedding spans: which places are alike, and whether it has collapsed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from eocausal.checks.positions import great_circle, lon_lat, unit_vectors
from eocausal.contracts import check_embedding, check_same_neighborhoods
from eocausal.errors import EmbeddingError
from eocausal.estimators.bases import PrincipalComponents
from eocausal.estimators.learners import feature_frame

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

__all__ = [
    "Cosine",
    "Degeneracy",
    "Metric",
    "Whitened",
    "degeneracy",
    "nearest_neighbors",
    "typical_places",
]

CONSTANT = 1e-6
"""A feature whose sd is below this share of its largest value does not vary (float32)."""

TWIN = 1e-5
"""Places closer than this share of the typical distance between two places are twins."""


PLACES_PER_COMPONENT = 5


class Metric(Protocol):
    """A decision what it means for two places to look alike."""

    def points(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n, k) points whose Euclidean distances say how unlike (n, p) rows are."""
        ...


@dataclass(frozen=True, slots=True)
class Whitened:
    """Euclidean distance in the leading principal components, each scaled to variance one.

    Parameters
    ----------
    components
        Principal components kept, at most; and at most one for every five places, since with as
        many components as places all places are equally far from each other. Every one counts
        alike: with many of them what is faint counts as much as what is plain to see.
    """

    components: int = 16

    def points(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the whitened components."""
        most = max(1, len(features) // PLACES_PER_COMPONENT)
        scores = _components(features, min(self.components, most))
        spread = scores.std(axis=0)
        return np.asarray(scores / np.where(spread > 0, spread, np.inf))


@dataclass(frozen=True, slots=True)
class Cosine:
    """Angle between the centered features in principal-component space.

    Distances are √(2 − 2 cos): 0 for the same direction, √2 for a right angle, 2 for opposites.

    Parameters
    ----------
    components
        Principal components kept, at most.
    """

    components: int = 64

    def points(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the components, scaled to length one."""
        scores = _components(features, self.components)
        length = np.linalg.norm(scores, axis=1, keepdims=True)
        return np.asarray(scores / np.where(length > 0, length, np.inf))


def _components(features: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    return PrincipalComponents.fit(features, count)(features)


WHITENED = Whitened()


def nearest_neighbors(
    embedding: xr.DataArray,
    *,
    queries: Sequence[Hashable],
    k: int = 5,
    metric: Metric = WHITENED,
    exclude_within_km: float = 0.0,
) -> pd.DataFrame:
    """Find the places whose images are most like those of some places.

    Parameters
    ----------
    embedding
        As :func:`eocausal.contracts.check_embedding` says; periods are averaged, as estimators
        do. Coordinates ``lon`` and ``lat`` are needed if ``exclude_within_km`` is positive.
    queries
        Neighborhoods whose neighbors are looked for.
    k
        Neighbors of each; fewer are returned where there are no more places.
    metric
        :class:`Whitened` or :class:`Cosine`.
    exclude_within_km
        Leave out places as near as this on the ground: an embedding of anything that varies
        smoothly finds the places next door, which says nothing about what it sees.

    Returns
    -------
    DataFrame
        One row per query and rank: ``query``, ``rank`` (1 the nearest), ``neighbor``,
        ``distance`` (of the metric), ``relative`` (distance over the query's median distance to
        all others: near 0 is alike, 1 is like any place) and ``km`` on the ground (NaN if the
        embedding has no coordinates).

    Raises
    ------
    EmbeddingError, AlignmentError
        If the embedding breaks its contract, or a query is not in it or has no image.
    """
    if k < 1 or not exclude_within_km >= 0:
        raise EmbeddingError(
            f"k={k} neighbors beyond {exclude_within_km} km cannot be looked for.",
            cause="k is at least 1 and a distance is not negative.",
            next_step="Use k=5, exclude_within_km=0.",
        )
    frame = feature_frame(embedding)
    check_same_neighborhoods(pd.Index(queries), frame.index, what="embedding", of="queries")
    points = metric.points(frame.to_numpy())
    placed = exclude_within_km > 0 or {"lon", "lat"} <= set(embedding.coords)
    where = unit_vectors(*lon_lat(embedding, frame.index)) if placed else None
    rows = []
    for query in dict.fromkeys(queries):
        at = int(frame.index.get_indexer(pd.Index([query]))[0])
        distance = np.linalg.norm(points - points[at], axis=1)
        km = np.full(len(frame), np.nan)
        if where is not None:
            km = great_circle(where[at : at + 1], where)[0]
        usable = np.arange(len(frame)) != at
        typical = float(np.median(distance[usable])) if usable.any() else np.nan
        if exclude_within_km > 0:
            usable &= km > exclude_within_km
        found = np.flatnonzero(usable)
        found = found[np.argsort(distance[found], kind="stable")[:k]]
        for rank, other in enumerate(found.tolist(), start=1):
            relative = distance[other] / typical if typical > 0 else np.nan
            rows.append((query, rank, frame.index[other], distance[other], relative, km[other]))
    return pd.DataFrame(rows, columns=["query", "rank", "neighbor", "distance", "relative", "km"])


def typical_places(
    embedding: xr.DataArray, count: int, *, metric: Metric = WHITENED, seed: int = 0
) -> list[Hashable]:
    """Choose places that stand for the kinds of image there are: medoids of k-means clusters.

    Parameters
    ----------
    count
        How many; fewer are returned if there are fewer distinct places.
    seed
        Of the first centers of the clusters.

    Returns
    -------
    list
        Neighborhoods, those of the largest cluster first.
    """
    from sklearn.cluster import KMeans

    frame = feature_frame(embedding)
    points = metric.points(frame.to_numpy())
    count = min(count, len(np.unique(points, axis=0)))
    means = KMeans(count, n_init=3, random_state=seed).fit(points)
    size = np.bincount(means.labels_, minlength=count)
    at = [
        int(np.argmin(((points - means.cluster_centers_[c]) ** 2).sum(axis=1)))
        for c in np.argsort(-size, kind="stable")
    ]
    return [frame.index[i] for i in dict.fromkeys(at)]


@dataclass(frozen=True, slots=True)
class Degeneracy:
    """How much an embedding can say at all.

    Attributes
    ----------
    n
        Places.
    unseen
        Places without features (all NaN).
    features
        Number of features.
    constant
        Features that do not vary.
    effective_rank
        Participation ratio (Σλ)²/Σλ² of the eigenvalues λ of the correlation matrix of the
        features that vary: 1 if one direction is all there is, the number of features if they
        are unrelated (Gao et al. 2017, bioRxiv 214262); 0 if nothing varies.
    leading_share
        Share of the standardised features' variance on their first principal component.
    twins
        Places whose features equal those of another place, up to rounding.
    """

    n: int
    unseen: int
    features: int
    constant: int
    effective_rank: float
    leading_share: float
    twins: int


def degeneracy(embedding: xr.DataArray) -> Degeneracy:
    """Look for collapse: constant features, one direction only, equal rows, places unseen.

    Raises
    ------
    EmbeddingError
        If the embedding breaks its contract, or no place has features.
    """
    frame = feature_frame(check_embedding(embedding))
    values = frame.to_numpy()
    spread = values.std(axis=0)
    varies = spread > CONSTANT * np.abs(values).max(axis=0)
    z = (values[:, varies] - values[:, varies].mean(axis=0)) / spread[varies]
    gram = z @ z.T if z.shape[0] < z.shape[1] else z.T @ z
    power = np.maximum(np.linalg.eigvalsh(gram), 0.0) if gram.size else np.zeros(1)
    total = float(power.sum())
    return Degeneracy(
        n=int(embedding.sizes["neighborhood"]),
        unseen=int(embedding.sizes["neighborhood"]) - len(frame),
        features=values.shape[1],
        constant=int((~varies).sum()),
        effective_rank=total**2 / float(power @ power) if total > 0 else 0.0,
        leading_share=float(power.max()) / total if total > 0 else 1.0,
        twins=_twins(z),
    )


def _twins(z: NDArray[np.float64]) -> int:
    """Count rows that have an equal, up to rounding; exact equals are merged before the search."""
    if z.shape[1] == 0:
        return len(z) if len(z) > 1 else 0
    rows, at, count = np.unique(z, axis=0, return_inverse=True, return_counts=True)
    twin = count > 1
    if len(rows) > 1:
        points = _components(rows, min(8, z.shape[1]))
        typical = float(np.sqrt(2 * points.var(axis=0).sum()))
        distance, near = cKDTree(points).query(points, k=2)
        close = np.flatnonzero(distance[:, 1] < TWIN * typical)
        other = np.where(near[close, 0] == close, near[close, 1], near[close, 0])
        gap = np.sqrt(((rows[close] - rows[other]) ** 2).mean(axis=1) / 2)
        twin[close[gap < TWIN]] = True
    return int(twin[at.reshape(-1)].sum())
