"""Where the places of an embedding are, and how far apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eocausal.contracts import some
from eocausal.errors import EmbeddingError
from eocausal.estimators.inference import EARTH_RADIUS_KM

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from numpy.typing import NDArray

__all__ = ["chord", "great_circle", "lon_lat", "unit_vectors"]


def lon_lat(
    embedding: xr.DataArray, labels: pd.Index
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return longitude and latitude (degrees) of some neighborhoods of an embedding.

    Raises
    ------
    EmbeddingError
        If the embedding has no coordinates ``lon`` and ``lat``, or one is not finite.
    """
    if "lon" not in embedding.coords or "lat" not in embedding.coords:
        raise EmbeddingError(
            "The embedding has no coordinates 'lon' and 'lat'.",
            cause="Distances between its places are not known.",
            next_step="Add them with embedding.assign_coords(lon=('neighborhood', ...), lat=...).",
        )
    at = embedding.indexes["neighborhood"].get_indexer(labels)
    lon = np.asarray(embedding["lon"].values, dtype=float)[at]
    lat = np.asarray(embedding["lat"].values, dtype=float)[at]
    lost = ~(np.isfinite(lon) & np.isfinite(lat))
    if lost.any():
        raise EmbeddingError(
            f"{int(lost.sum())} places have no finite longitude or latitude: {some(labels[lost])}.",
            cause="Their distance to others is unknown.",
            next_step="Complete the coordinates or drop these places.",
        )
    return lon, lat


def unit_vectors(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn (n,) degrees into (n, 3) points of the unit sphere."""
    east, north = np.deg2rad(lon), np.deg2rad(lat)
    return np.stack(
        [np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)], axis=1
    )


def great_circle(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (m, n) distances in km between (m, 3) and (n, 3) unit vectors."""
    square = ((a[:, None] - b[None]) ** 2).sum(axis=2)
    return np.asarray(2 * EARTH_RADIUS_KM * np.arcsin(np.clip(np.sqrt(square) / 2, 0.0, 1.0)))


def chord(km: float) -> float:
    """Return the straight distance on the unit sphere that spans ``km`` of a great circle."""
    return float(2 * np.sin(min(km / EARTH_RADIUS_KM, np.pi) / 2))
