"""Diffuse attenuation at 490 nm from two bands of remote-sensing reflectance: NASA's KD2.

    Kd490 = 0.0166 + 10^(a0 + a1 x + a2 x^2 + a3 x^3 + a4 x^4),   x = log10(Rrs blue / Rrs green),

fitted to NOMAD version 2 (Werdell 2009; oceancolor.gsfc.nasa.gov/resources/atbd/kd). It is meant
for clear and moderately turbid water and reads too low where sediment dominates (Wang et al. 2009,
J. Geophys. Res. 114:C10011).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import cast

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from eocausal.errors import OutcomeError
from eocausal.ocean.units import HIGHEST, PURE_WATER

__all__ = ["Attenuation", "BandRatio", "RetrievalFlag", "Sensor", "kd490_from_reflectance"]

Float64 = NDArray[np.float64]
Array = xr.DataArray | Float64
LARGEST_REFLECTANCE = 0.2


@dataclass(frozen=True, slots=True)
class BandRatio:
    """Coefficients of one sensor.

    Attributes
    ----------
    blue, green
        Wavelengths of its bands in nm.
    coefficients
        a0 to a4.
    """

    blue: int
    green: int
    coefficients: tuple[float, float, float, float, float]


class Sensor(Enum):
    """Sensors with published KD2 coefficients."""

    SEAWIFS = BandRatio(490, 555, (-0.8515, -1.8263, 1.8714, -2.4414, -1.0690))
    MODIS = BandRatio(488, 547, (-0.8813, -2.0584, 2.5878, -3.4885, -1.5061))
    MERIS = BandRatio(490, 560, (-0.8641, -1.6549, 2.0112, -2.5174, -1.1035))
    VIIRS = BandRatio(486, 550, (-0.8730, -1.8912, 1.8021, -2.3865, -1.0453))
    OCTS = BandRatio(490, 565, (-0.8878, -1.5135, 2.1459, -2.4943, -1.1043))


class RetrievalFlag(IntEnum):
    """What became of a pixel."""

    GOOD = 0
    MISSING = 1
    NOT_POSITIVE = 2
    BEYOND = 3


@dataclass(frozen=True, slots=True, eq=False)
class Attenuation:
    """Kd490 and what became of each pixel.

    Attributes
    ----------
    kd490
        m-1, of the type and shape of the reflectances; NaN where not good.
    flags
        :class:`RetrievalFlag` of every pixel, int8.
    sensor
        Whose coefficients were used.
    """

    kd490: Array
    flags: NDArray[np.int8]
    sensor: Sensor

    def to_frame(self) -> pd.DataFrame:
        """Return pixels and their share, by flag."""
        count = [int((self.flags == flag).sum()) for flag in RetrievalFlag]
        return pd.DataFrame(
            {"pixels": count, "share": np.array(count) / max(self.flags.size, 1)},
            index=pd.Index([flag.name.lower() for flag in RetrievalFlag], name="flag"),
        )

    def summary(self) -> str:
        """Say in words how many pixels gave a value."""
        share = self.to_frame()["share"]
        return (
            f"Kd490 by NASA's KD2 for {self.sensor.name} ({self.sensor.value.blue}/"
            f"{self.sensor.value.green} nm): {share['good']:.1%} of pixels have a value; "
            f"{share['missing']:.1%} had no reflectance, {share['not_positive']:.1%} one of zero "
            f"or less, {share['beyond']:.1%} came out above {HIGHEST} m-1 and were dropped."
        )

    def __repr__(self) -> str:
        good = (self.flags == RetrievalFlag.GOOD).mean()
        return f"Attenuation({self.sensor.name}, {self.flags.size:,} pixels, {good:.1%} good)"


def kd490_from_reflectance(blue: Array, green: Array, sensor: Sensor) -> Attenuation:
    """Retrieve Kd490 from reflectances.

    Parameters
    ----------
    blue, green
        Remote-sensing reflectance in sr-1 in the bands of the sensor, NaN where missing.
    sensor
        Whose bands they are.

    Raises
    ------
    OutcomeError
        If shapes differ, or reflectances are typically above 0.2 sr-1: they are then no
        remote-sensing reflectance of water, or not in sr-1.
    """
    first, second = (np.asarray(band, dtype=float) for band in (blue, green))
    _check(first, second)
    missing = ~(np.isfinite(first) & np.isfinite(second))
    positive = ~missing & (first > 0) & (second > 0)
    ratio = np.where(positive, first, 1.0) / np.where(positive, second, 1.0)
    exponent = np.polynomial.polynomial.polyval(np.log10(ratio), sensor.value.coefficients)
    with np.errstate(over="ignore"):
        value = PURE_WATER + 10.0**exponent
    flags = np.full(first.shape, RetrievalFlag.GOOD, dtype=np.int8)
    flags[positive & (value > HIGHEST)] = RetrievalFlag.BEYOND
    flags[~positive] = RetrievalFlag.NOT_POSITIVE
    flags[missing] = RetrievalFlag.MISSING
    value = np.where(flags == RetrievalFlag.GOOD, value, np.nan)
    if isinstance(blue, xr.DataArray):
        named = blue.copy(data=value).rename("kd490")
        named.attrs = {
            "units": "m-1",
            "long_name": "diffuse attenuation coefficient of downwelling light at 490 nm",
            "algorithm": f"NASA KD2, {sensor.name}",
        }
        return Attenuation(named, flags, sensor)
    return Attenuation(cast(Float64, value), flags, sensor)


def _check(blue: Float64, green: Float64) -> None:
    if blue.shape != green.shape:
        raise OutcomeError(
            f"Reflectances of shapes {blue.shape} and {green.shape}.",
            cause="The ratio is one of two bands at the same pixels.",
            next_step="Give both bands on the same grid.",
        )
    for name, band in (("blue", blue), ("green", green)):
        if np.isfinite(band).any() and np.nanmedian(band) > LARGEST_REFLECTANCE:
            raise OutcomeError(
                f"The {name} reflectance is typically {np.nanmedian(band):.3g}.",
                cause="Water reflects less than 0.1 sr-1: these are percent, counts, or another "
                "reflectance.",
                next_step="Give remote-sensing reflectance in sr-1.",
            )
