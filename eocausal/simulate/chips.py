"""What the simulated worlds of chips share: places on a grid, the cube, treatment and outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eocausal.contracts import ChipStatus, check_cube
from eocausal.simulate.landscape import GRID_CRS, gaussian_field

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["chip_cube", "correlated_field", "draw_units", "grid_side", "terrain"]

Float32 = NDArray[np.float32]

_ORIGIN = (400_000.0, 260_000.0)


def grid_side(n: int) -> int:
    """Side of the smallest square grid that holds ``n`` places."""
    return int(np.ceil(np.sqrt(n)))


def correlated_field(n: int, rng: np.random.Generator, *, cells: float) -> NDArray[np.float64]:
    """Draw a standard normal field over the grid of places, correlated over some cells; (n,)."""
    side = max(grid_side(n), 8)
    field = gaussian_field(rng, (side, side), cells, smoothness=1.0)
    field = field[: grid_side(n), : grid_side(n)].ravel()[:n].astype(np.float64)
    return np.asarray((field - field.mean()) / field.std())


def terrain(n: int, size: int, bands: int, rng: np.random.Generator) -> Float32:
    """Draw grounds between soil and vegetation, ``(n, band, y, x)`` in reflectance."""
    side = grid_side(n)
    cover = gaussian_field(rng, (side * size, side * size), 10.0, smoothness=1.0)
    share = 1.0 / (1.0 + np.exp(-cover))
    tiles = share.reshape(side, size, side, size).swapaxes(1, 2).reshape(-1, size, size)[:n]
    soil = np.linspace(0.12, 0.30, bands, dtype=np.float32)
    green = np.linspace(0.04, 0.10, bands, dtype=np.float32)
    green[-1] = 0.40
    mixed = soil[:, None, None] + tiles[:, None] * (green - soil)[:, None, None]
    grainy = mixed + 0.012 * rng.standard_normal(mixed.shape)
    return np.maximum(grainy, 0.005).astype(np.float32)


def draw_units(
    strength: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    confounding: float,
    effect: float,
    heterogeneity: float,
    noise: float,
) -> pd.DataFrame:
    """Draw treatment and outcome from what the chips show.

    With ``u`` the standardised ``strength``: ``W ~ Bern(1 / (1 + exp(-confounding * u)))``,
    ``Y = u + (effect + heterogeneity * u) * W + noise * e``.

    Parameters
    ----------
    strength
        (n,) the number of things in each chip.

    Returns
    -------
    pandas.DataFrame
        Columns neighborhood, treated, outcome, propensity, objects, effect; one row per chip.
    """
    u = (strength - strength.mean()) / strength.std()
    propensity = 1.0 / (1.0 + np.exp(-confounding * u))
    treated = (rng.random(len(u)) < propensity).astype(np.int64)
    each = effect + heterogeneity * u
    outcome = u + each * treated + noise * rng.standard_normal(len(u))
    return pd.DataFrame(
        {
            "neighborhood": np.arange(len(u)),
            "treated": treated,
            "outcome": outcome,
            "propensity": propensity,
            "objects": strength,
            "effect": each,
        }
    )


def chip_cube(
    images: Float32,
    dates: NDArray[np.datetime64],
    *,
    bands: Sequence[str],
    resolution: float,
    periods: Sequence[str],
    spans: Sequence[tuple[str, str]],
) -> xr.Dataset:
    """Put chips on a gapless grid of places, as a cube.

    Parameters
    ----------
    images
        ``(n, period, band, y, x)`` reflectance, NaN where missing.
    dates
        ``(n, period)`` days, NaT where missing.
    resolution
        Metres.
    spans
        First and last day of each period.
    """
    import pyproj
    import xarray as xr

    n, size = len(images), images.shape[-1]
    row, column = np.divmod(np.arange(n), grid_side(n))
    left = _ORIGIN[0] + column * size * resolution
    top = _ORIGIN[1] - row * size * resolution
    zero = np.zeros(n)
    transform = np.stack([zero + resolution, zero, left, zero, zero - resolution, top], axis=1)
    to_degrees = pyproj.Transformer.from_crs(GRID_CRS, "EPSG:4326", always_xy=True)
    half = size * resolution / 2
    lon, lat = to_degrees.transform(left + half, top - half)
    valid = np.isfinite(images).all(axis=2).mean(axis=(2, 3), dtype=np.float32)
    status = np.select(
        [valid == 1, valid > 0], [ChipStatus.OK, ChipStatus.PARTIAL], ChipStatus.NODATA_ONLY
    )
    last = pd.DataFrame(dates).max().dt.strftime("%Y-%m-%d").to_numpy(dtype=object)
    both = ("neighborhood", "period")
    return check_cube(
        xr.Dataset(
            {
                "image": ((*both, "band", "y", "x"), images),
                "valid": (both, valid),
                "status": (both, status.astype(np.int8)),
                "date": (both, dates.astype("datetime64[ns]")),
            },
            coords={
                "neighborhood": np.arange(n),
                "period": np.array(periods, dtype=object),
                "band": np.array(bands, dtype=object),
                "crs": ("neighborhood", np.full(n, GRID_CRS, dtype=object)),
                "transform": (("neighborhood", "affine"), transform),
                "lon": ("neighborhood", lon),
                "lat": ("neighborhood", lat),
                "period_start": ("period", np.array([s for s, _ in spans], dtype=object)),
                "period_end": ("period", np.array([e for _, e in spans], dtype=object)),
                "last_date": ("period", last),
            },
            attrs={"resolution": resolution, "units": "reflectance", "sources": "[]"},
        )
    )
