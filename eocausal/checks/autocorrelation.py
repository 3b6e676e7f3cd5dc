"""How far on the ground an embedding resembles itself: Moran's I and a correlogram.

Near places look alike. Held-out scores are honest only if the places held out are farther from the
others than that likeness reaches, which is what the range found here is for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.spatial import cKDTree

from eocausal.checks.positions import chord, great_circle, lon_lat, unit_vectors
from eocausal.errors import EstimationError
from eocausal.estimators.bases import PrincipalComponents
from eocausal.estimators.inference import EARTH_RADIUS_KM
from eocausal.estimators.learners import feature_frame

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

__all__ = [
    "Autocorrelation",
    "Nearest",
    "Neighborhoods",
    "Within",
    "correlogram",
    "morans_i",
    "spatial_autocorrelation",
]

ALL = "all"
FEWEST_PLACES = 10
FEWEST_PAIRS = 100
ANCHORS = 2000
WIDER = 1.5
"""Each distance class of the correlogram ends this many times as far as the one before."""


class Neighborhoods(Protocol):
    """A decision which places count as near each other."""

    def weights(self, lon: NDArray[np.float64], lat: NDArray[np.float64]) -> sparse.csr_array:
        """Return (n, n) weights whose rows sum to one (to zero where a place has no neighbor)."""
        ...


@dataclass(frozen=True, slots=True)
class Nearest:
    """The ``k`` nearest places, each with the same weight."""

    k: int = 8

    def weights(self, lon: NDArray[np.float64], lat: NDArray[np.float64]) -> sparse.csr_array:
        """Return row-standardised weights."""
        n, k = len(lon), min(self.k, len(lon) - 1)
        at = cKDTree(unit_vectors(lon, lat)).query(unit_vectors(lon, lat), k=k + 1)[1]
        own = at == np.arange(n)[:, None]
        own[~own.any(axis=1), -1] = True  # more than k other places at the same point
        near = at[~own].reshape(n, k)
        rows = np.repeat(np.arange(n), k)
        return sparse.csr_array((np.full(n * k, 1 / k), (rows, near.ravel())), shape=(n, n))


@dataclass(frozen=True, slots=True)
class Within:
    """All places within ``km`` kilometres along the great circle, each with the same weight."""

    km: float

    def weights(self, lon: NDArray[np.float64], lat: NDArray[np.float64]) -> sparse.csr_array:
        """Return row-standardised weights."""
        pairs = cKDTree(unit_vectors(lon, lat)).query_pairs(chord(self.km), output_type="ndarray")
        rows = np.concatenate([pairs[:, 0], pairs[:, 1]])
        columns = np.concatenate([pairs[:, 1], pairs[:, 0]])
        count = np.bincount(rows, minlength=len(lon))
        return sparse.csr_array((1 / count[rows], (rows, columns)), shape=(len(lon), len(lon)))


EIGHT_NEAREST = Nearest()


@dataclass(frozen=True, slots=True, eq=False)
class Autocorrelation:
    """How an embedding's leading principal components vary over the ground.

    Attributes
    ----------
    moran
        Indexed by ``component`` (``PC1``…, and ``all``: their mean weighted by variance):
        ``share`` of the variance, ``moran`` (I), ``expected`` (−1/(n−1) without
        autocorrelation), ``p_value``.
    correlogram
        One row per component (``all`` included) and distance class: ``component``, ``km_low``,
        ``km_high``, ``km`` (mean distance of its pairs), ``correlation``, ``pairs``.
    range_km
        Distance at which the correlation of all components falls below ``threshold``; infinite
        if it does not within the distances looked at, 0 if it is below from the start.
    threshold
        The correlation that counts as none.
    """

    moran: pd.DataFrame
    correlogram: pd.DataFrame
    range_km: float
    threshold: float

    @property
    def p_value(self) -> float:
        """Permutation p-value of no autocorrelation in all components together."""
        return float(self.moran["p_value"].loc[ALL])


def spatial_autocorrelation(
    embedding: xr.DataArray,
    *,
    neighbors: Neighborhoods = EIGHT_NEAREST,
    components: int = 3,
    permutations: int = 999,
    threshold: float = 0.1,
    seed: int = 0,
) -> Autocorrelation:
    """Measure the spatial autocorrelation of an embedding's leading principal components.

    Parameters
    ----------
    embedding
        With coordinates ``lon`` and ``lat`` in degrees; periods are averaged.
    neighbors
        What is near: :class:`Nearest` or :class:`Within`.
    components
        Principal components looked at, at most.
    permutations
        Of the places, for the p-value.
    threshold
        Correlation below which places count as unrelated.
    seed
        Of the permutations and of the sample of places behind the correlogram.

    Raises
    ------
    EmbeddingError
        If coordinates are missing.
    EstimationError
        If there are fewer than 10 places, or nothing varies.
    """
    frame = feature_frame(embedding)
    lon, lat = lon_lat(embedding, frame.index)
    if len(frame) < FEWEST_PLACES:
        raise EstimationError(
            f"{len(frame)} places are too few for a spatial autocorrelation.",
            cause=f"It needs at least {FEWEST_PLACES}.",
            next_step="Use more neighborhoods.",
        )
    principal = PrincipalComponents.fit(frame.to_numpy(), components)
    scores = principal(frame.to_numpy())
    power = scores.var(axis=0)
    if not power.sum() > 0:
        raise EstimationError(
            "All places have the same features.",
            cause="What does not vary has no autocorrelation.",
            next_step="Look at the images and at the encoder.",
        )
    share = power / power.sum() * principal.explained
    names = [f"PC{i + 1}" for i in range(scores.shape[1])]
    weights = neighbors.weights(lon, lat)
    moran, p = morans_i(scores, weights, power, permutations=permutations, seed=seed)
    table = pd.DataFrame(
        {"share": [*share, share.sum()], "moran": moran, "expected": -1 / (len(frame) - 1),
         "p_value": p},
        index=pd.Index([*names, ALL], name="component"),
    )  # fmt: skip
    curve = correlogram(scores, lon, lat, names=names, seed=seed)
    main = curve[curve["component"] == ALL]
    reach = _reach(main["km"].to_numpy(), main["correlation"].to_numpy(), threshold)
    return Autocorrelation(table, curve, reach, threshold)


def morans_i(
    values: NDArray[np.float64],
    weights: sparse.csr_array,
    power: NDArray[np.float64],
    *,
    permutations: int,
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute Moran's I of columns, and of all of them together, with permutation p-values.

    I = (n / Σᵢⱼ wᵢⱼ) Σᵢⱼ wᵢⱼ zᵢ zⱼ / Σᵢ zᵢ² with centered z (Moran 1950, Biometrika 37:17).
    Places are permuted with all their columns; p = (1 + #{I* ≥ I}) / (1 + permutations), one-sided:
    near places more alike than chance (Phipson & Smyth 2010, SAGMB 9:39).

    Parameters
    ----------
    values
        (n, k).
    weights
        (n, n).
    power
        (k,) weights of the columns in the mean of all.

    Returns
    -------
    tuple of numpy.ndarray
        (k + 1,) values of I and (k + 1,) p-values, that of all columns together last.
    """
    z = values - values.mean(axis=0)
    size = (z**2).sum(axis=0)
    z = z / np.sqrt(np.where(size > 0, size, np.inf))
    factor = len(z) / weights.sum()

    def index(x: NDArray[np.float64]) -> NDArray[np.float64]:
        each = factor * (x * (weights @ x)).sum(axis=0)
        return np.append(each, each @ power / power.sum())

    rng = np.random.default_rng(seed)
    observed = index(z)
    more = np.zeros(len(observed))
    for _ in range(permutations):
        more += index(z[rng.permutation(len(z))]) >= observed - 1e-12
    return observed, (1 + more) / (1 + permutations)


def correlogram(
    values: NDArray[np.float64],
    lon: NDArray[np.float64],
    lat: NDArray[np.float64],
    *,
    names: list[str],
    seed: int,
) -> pd.DataFrame:
    """Compute the mean of zᵢ zⱼ / var(z) over the pairs of places in each class of distance.

    Classes grow by half from the median distance to the nearest other place up to the radius
    of the region; those with fewer than 100 pairs are left out. Where there are more than 2,000
    places, a seeded sample of 2,000 is compared with all.

    Parameters
    ----------
    values
        (n, k) columns; the row ``all`` is their mean weighted by variance.
    lon, lat
        (n,) degrees.
    names
        Names of the k columns.

    Returns
    -------
    DataFrame
        See :class:`Autocorrelation`; empty if all places are at one point.
    """
    z = values - values.mean(axis=0)
    power = z.var(axis=0)
    where = unit_vectors(lon, lat)
    edges = _edges(where)
    n_bins, k = len(edges) - 1, z.shape[1]
    pairs, km = np.zeros(n_bins), np.zeros(n_bins)
    product = np.zeros((n_bins, k))
    rng = np.random.default_rng(seed)
    anchors = np.sort(rng.choice(len(z), size=min(ANCHORS, len(z)), replace=False))
    for chunk in np.array_split(anchors, max(1, len(anchors) * len(z) // 2_000_000)):
        distance = great_circle(where[chunk], where)
        distance[np.arange(len(chunk)), chunk] = np.inf
        at = np.searchsorted(edges, distance, side="right") - 1
        first, second = np.nonzero((at >= 0) & (at < n_bins))
        code = at[first, second]
        pairs += np.bincount(code, minlength=n_bins)
        km += np.bincount(code, distance[first, second], minlength=n_bins)
        for c in range(k):
            both = z[chunk[first], c] * z[second, c]
            product[:, c] += np.bincount(code, both, minlength=n_bins)
    kept = np.flatnonzero(pairs >= FEWEST_PAIRS)
    mean = product[kept] / pairs[kept, None]
    columns = [*(mean / power).T, mean.sum(axis=1) / power.sum()]
    frames = [
        pd.DataFrame({
            "component": name, "km_low": edges[kept], "km_high": edges[kept + 1],
            "km": km[kept] / pairs[kept], "correlation": column,
            "pairs": pairs[kept].astype(int),
        })
        for name, column in zip([*names, ALL], columns, strict=True)
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def _edges(where: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ends of the distance classes in km, the first of them 0."""
    points = np.unique(where, axis=0)
    if len(points) < 2:
        return np.zeros(1)
    near = cKDTree(points).query(points, k=2)[0][:, 1]
    start = 2 * EARTH_RADIUS_KM * math.asin(min(float(np.median(near)) / 2, 1.0))
    middle = where.mean(axis=0) / max(float(np.linalg.norm(where.mean(axis=0))), 1e-12)
    radius = float(great_circle(middle[None], where).max())
    steps = max(1, math.ceil(math.log(max(radius / start, 1.0), WIDER)))
    return np.concatenate([[0.0], start * WIDER ** np.arange(steps + 1)])


def _reach(km: NDArray[np.float64], correlation: NDArray[np.float64], threshold: float) -> float:
    """Find where a correlogram first falls below the threshold, between class means."""
    below = np.flatnonzero(correlation < threshold)
    if not len(below):
        return math.inf if len(km) else 0.0
    at = int(below[0])
    if at == 0:
        return 0.0
    share = (correlation[at - 1] - threshold) / (correlation[at - 1] - correlation[at])
    return float(km[at - 1] + share * (km[at] - km[at - 1]))
