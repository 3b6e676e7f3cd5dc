"""The area of a pixel: on the ellipsoid for degrees, by spacing for metres, or as stated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from eocausal.errors import CRSError

__all__ = ["GridPixels", "NominalPixels", "PixelArea"]

Float64 = NDArray[np.float64]
EQUATOR = 6_378_137.0
FLATTENING = 1 / 298.257223563
_DEGREES = ("lat", "latitude")
_METRES = ("y", "northing")


class PixelArea(Protocol):
    """How large pixels are taken to be."""

    def of_rows(self, data: xr.DataArray) -> Float64:
        """Return km2 of a pixel in each row of a map ``(..., row, column)``."""
        ...

    def describe(self) -> str:
        """Say it in a few words."""
        ...


@dataclass(frozen=True, slots=True)
class NominalPixels:
    """Every pixel is a square of a stated size, as a map's product sheet has it.

    Parameters
    ----------
    metres
        Side of the square.
    """

    metres: float = 10.0

    def of_rows(self, data: xr.DataArray) -> Float64:
        """Return km2 of a pixel in each row."""
        return np.full(data.shape[-2], self.metres**2 / 1e6)

    def describe(self) -> str:
        """Say it in a few words."""
        return f"pixels taken as {self.metres:g} m squares"


@dataclass(frozen=True, slots=True)
class GridPixels:
    """Pixels as large as the coordinates make them.

    Axes called lat and lon are degrees on WGS 84, and areas those of the ellipsoid; axes called y
    and x are metres of a projection, which must be one that keeps areas, or nearly, as UTM.
    """

    def of_rows(self, data: xr.DataArray) -> Float64:
        """Return km2 of a pixel in each row.

        Raises
        ------
        CRSError
            If the axes are neither degrees nor metres, or unevenly spaced.
        """
        row, column = data.dims[-2:]
        steps = [_step(data[axis]) for axis in (row, column)]
        if str(row).lower() in _DEGREES:
            lat = data[row].to_numpy().astype(float)
            band = _band(lat + steps[0] / 2) - _band(lat - steps[0] / 2)
            return np.asarray(np.abs(band * np.radians(steps[1])) / 1e6)
        if str(row).lower() in _METRES:
            return np.full(data.sizes[row], abs(steps[0] * steps[1]) / 1e6)
        raise CRSError(
            f"A map over {row} and {column}.",
            cause="Whether these are degrees or metres decides the area of a pixel.",
            next_step="Name the axes lat and lon, or y and x, or give NominalPixels(metres=...).",
        )

    def describe(self) -> str:
        """Say it in a few words."""
        return "areas of pixels from their coordinates"


def _step(axis: xr.DataArray) -> float:
    values = axis.to_numpy().astype(float)
    steps = np.diff(values)
    if len(values) < 2 or not np.allclose(steps, steps.mean(), rtol=1e-3):
        raise CRSError(
            f"The axis {axis.name} has {len(values)} values, unevenly spaced or a single one.",
            cause="The area of a pixel is not known then.",
            next_step="Give a regular grid, or NominalPixels(metres=...).",
        )
    return float((values[-1] - values[0]) / (len(values) - 1))


def _band(lat: Float64) -> Float64:
    """Area in m2 per radian of longitude from the equator to a latitude on the ellipsoid."""
    e = np.sqrt(FLATTENING * (2 - FLATTENING))
    sine = np.sin(np.radians(np.clip(lat, -90, 90)))
    polar = EQUATOR * (1 - FLATTENING)
    return np.asarray(
        polar**2 / 2 * (sine / (1 - (e * sine) ** 2) + np.arctanh(e * sine) / e)
    )  # fmt: skip
