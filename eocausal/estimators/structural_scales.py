"""Series and controls on a scale of their own, from the times learned from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eocausal.errors import EstimationError

__all__ = ["scaled_controls", "series_scales"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
FLAT = 1e-10  # standard deviation over the mean below which a series is constant


def series_scales(
    outcomes: Float64, seen: Bool, need: int
) -> tuple[Float64, Float64, dict[int, str]]:
    """Return mean and standard deviation of each series, and why some have none.

    Parameters
    ----------
    outcomes
        (N, T) the series.
    seen
        (N, T) True where a value is learned from.
    need
        Values that a series must have.

    Returns
    -------
    (N,) means and (N,) standard deviations, NaN for series that are refused; row and reason of
    these.
    """
    refused: dict[int, str] = {}
    count = seen.sum(1)
    center = np.where(seen, outcomes, 0.0).sum(1) / np.maximum(count, 1)
    deviation = np.where(seen, outcomes - center[:, None], 0.0)
    scale = np.sqrt((deviation**2).sum(1) / np.maximum(count - 1, 1))
    constant = scale <= FLAT * np.maximum(np.abs(center), 1e-300)
    for row in np.flatnonzero((count < need) | constant):
        refused[int(row)] = (
            f"{count[row]} values before the event, {need} are needed"
            if count[row] < need
            else f"it is {center[row]:.6g} at all times before the event"
        )
    bad = list(refused)
    center[bad], scale[bad] = np.nan, np.nan
    return center, scale, refused


def scaled_controls(controls: Float64, known: Bool) -> Float64:
    """Return controls (T, K) of mean zero and standard deviation one over the times ``known``.

    Raises
    ------
    EstimationError
        If a control does not vary there.
    """
    center, sd = controls[known].mean(0), controls[known].std(0, ddof=1)
    flat = np.flatnonzero(~(sd > FLAT * np.maximum(np.abs(center), 1e-300)))
    if flat.size:
        raise EstimationError(
            f"Control {', '.join(map(str, flat))} does not vary before the event.",
            cause="It cannot explain the outcome there, and has no scale.",
            next_step="Leave it out.",
        )
    return np.asarray((controls - center) / sd)
