"""How far controls lie from an event, and which of them it may have reached.

A control that the event reached carries part of the effect, and takes that part out of what is
found. No test on the series can rule this out: distance, currents and knowledge of the site must.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.contracts import check_columns
from eocausal.errors import EstimationError, GeometryError, LeakageError
from eocausal.folds import EARTH_RADIUS_KM

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

__all__ = ["check_reach", "distances_km", "outside_reach"]

NAMED = 5


def distances_km(places: pd.DataFrame, event: pd.DataFrame) -> pd.Series:
    """Return the great-circle distance of each place from the nearest point of the event.

    Parameters
    ----------
    places
        A row for each control, site or pixel, with ``lon`` and ``lat`` in degrees.
    event
        One row or several (a plume, the pixels of an impact zone), with the same columns.

    Raises
    ------
    MissingColumnError
        If a column is missing.
    GeometryError
        If there is no row, a coordinate is missing, or a latitude is beyond a pole.
    """
    there, here = _unit_vectors(places, "places"), _unit_vectors(event, "event")
    nearest = np.full(len(there), math.inf)
    for point in here:
        nearest = np.minimum(nearest, ((there - point) ** 2).sum(1))
    angle = 2.0 * np.arcsin(np.clip(np.sqrt(nearest) / 2.0, 0.0, 1.0))
    return pd.Series(EARTH_RADIUS_KM * angle, places.index, name="km")


def outside_reach(places: pd.DataFrame, event: pd.DataFrame, reach_km: float) -> pd.Series:
    """Return whether each place lies further from the event than its reach.

    Raises
    ------
    EstimationError
        If the reach is not a distance.
    MissingColumnError, GeometryError
        As :func:`distances_km`.
    """
    if not 0 <= reach_km < math.inf:
        raise EstimationError(
            f"reach_km={reach_km} is not a distance.",
            cause="It is how far the event may have been felt, in kilometres.",
            next_step="Give e.g. reach_km=20.",
        )
    return distances_km(places, event) > reach_km


def check_reach(places: pd.DataFrame, event: pd.DataFrame, reach_km: float) -> pd.Series:
    """Refuse controls that the event may have reached; return all distances in kilometres.

    Raises
    ------
    LeakageError
        If a control lies within the reach.
    EstimationError, MissingColumnError, GeometryError
        As :func:`outside_reach`.
    """
    outside = outside_reach(places, event, reach_km)
    km = distances_km(places, event)
    near = km[~outside].sort_values()
    if len(near):
        named = ", ".join(f"{name} ({d:.1f} km)" for name, d in near.iloc[:NAMED].items())
        more = f" and {len(near) - NAMED} more" if len(near) > NAMED else ""
        raise LeakageError(
            f"{len(near)} of {len(km)} controls lie within {reach_km:g} km of the event: "
            f"{named}{more}.",
            cause="What the event did to a control is taken out of the effect.",
            next_step="Leave them out, take controls further away, or state a shorter reach.",
        )
    return km


def _unit_vectors(table: pd.DataFrame, what: str) -> Float64:
    check_columns(table, ["lon", "lat"], what=what)
    degrees = table[["lon", "lat"]].to_numpy(dtype=float)
    if not len(degrees) or not np.isfinite(degrees).all() or (np.abs(degrees[:, 1]) > 90).any():
        raise GeometryError(
            f"Some coordinates of {what} are missing or beyond a pole, or there are none.",
            cause="Distances cannot be told.",
            next_step="Give lon and lat in degrees for every row.",
        )
    east, north = np.deg2rad(degrees).T
    across = np.cos(north)
    return np.column_stack([across * np.cos(east), across * np.sin(east), np.sin(north)])
