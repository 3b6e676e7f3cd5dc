"""When the images of a cube were taken, as networks read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eocausal.encoders.core import Float32

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["period_years"]


def period_years(cube: xr.Dataset) -> Float32:
    """Decimal years since 2000 of each image, ``(neighborhood, period)``; NaN where it is missing.

    The cube's variable ``date``; without one, the middle of the period.
    """
    seen = cube["valid"].transpose("neighborhood", "period").to_numpy() > 0
    if "date" in cube:
        days = cube["date"].transpose("neighborhood", "period").to_numpy()
    elif "period_start" in cube.coords and "period_end" in cube.coords:
        first, last = (
            cube[name].to_numpy().astype("datetime64[D]") for name in ("period_start", "period_end")
        )
        days = np.broadcast_to(first + (last - first) / 2, seen.shape)
    else:
        return np.full(seen.shape, np.nan, np.float32)
    since = days.astype("datetime64[D]") - np.datetime64("2000-01-01")
    years = since / np.timedelta64(1, "D") / 365.25
    return np.where(seen, years, np.nan).astype(np.float32)
