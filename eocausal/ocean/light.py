"""From attenuation at 490 nm to the depth that light reaches: named relations, each of its kind.

"Euphotic depth" is the depth of 1 % of the photosynthetically available radiation (PAR, 400-700
nm) at the surface. Light of 490 nm reaches deeper than PAR in clear water, so 4.6 / Kd490 is not
the euphotic depth, although it is often called so. All relations take Kd490 in m-1 and hold for
waters whose optics follow chlorophyll (case 1); where mud or dissolved matter rule they are an
extrapolation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from eocausal.errors import EstimationError
from eocausal.ocean.units import PURE_WATER

__all__ = [
    "AttenuationOfChlorophyll",
    "DepthOf490",
    "DepthOfPar",
    "DepthRelation",
    "EuphoticFromChlorophyll",
    "Layer",
    "attenuation_of_par",
    "photic_depth_lee",
]

Float64 = NDArray[np.float64]
ONE_PERCENT = 4.6
MOST_CHLOROPHYLL = 15.0
LEAST_CHLOROPHYLL = 0.01


class DepthRelation(Protocol):
    """A depth in m from Kd490 in m-1."""

    @property
    def name(self) -> str:
        """Return a short name."""
        ...

    @property
    def meaning(self) -> str:
        """Say what the depth is one of."""
        ...

    @property
    def source(self) -> str:
        """Name where the relation was published."""
        ...

    @property
    def valid(self) -> tuple[float, float]:
        """Return the range of Kd490 in m-1 it was made for."""
        ...

    def depth(self, kd490: Float64) -> Float64:
        """Return the depth in m, NaN where the relation has none."""
        ...


class Layer(IntEnum):
    """Depth over which attenuation of PAR is averaged, in attenuation lengths 1 / Kd490.

    PAR is attenuated fastest near the surface, where its red part goes first, so a thinner layer
    has the higher attenuation.
    """

    ONE = 1
    TWO = 2


_MOREL_PAR = {Layer.ONE: (0.0864, 0.884, 0.00137), Layer.TWO: (0.0665, 0.874, 0.00121)}


def attenuation_of_par(kd490: Float64, layer: Layer = Layer.ONE) -> Float64:
    """Return Kd(PAR) in m-1, ``a + b Kd490 - c / Kd490``.

    Morel et al. (2007, Remote Sens. Environ. 111:69, equations 9 and 9'), with the layers as in
    NASA's l2gen (``Kd_PAR_morel``): 0.0864, 0.884, 0.00137 for a layer of 1 / Kd490 and 0.0665,
    0.874, 0.00121 for one of 2 / Kd490. NaN below the attenuation of pure water.
    """
    kd = np.asarray(kd490, dtype=float)
    a, b, c = _MOREL_PAR[layer]
    water = np.where(kd >= PURE_WATER, kd, np.nan)
    return np.asarray(a + b * water - c / water)


@dataclass(frozen=True, slots=True)
class AttenuationOfChlorophyll:
    """``Kd490 = 0.0166 + scale Chl^exponent`` in case 1 waters, and back.

    The default is the fit to the LOV data in Morel et al. (2007) and Morel & Maritorena (2001);
    0.077746 and 0.672846 is the one to LOV and NOMAD together as NASA's l2gen has it
    (``Kd490_morel``).
    """

    scale: float = 0.07242
    exponent: float = 0.68955

    def attenuation(self, chlorophyll: Float64) -> Float64:
        """Return Kd490 in m-1 of chlorophyll in mg m-3; NaN where it is not positive."""
        chl = np.asarray(chlorophyll, dtype=float)
        known = np.where(chl > 0, chl, np.nan)
        return np.asarray(PURE_WATER + self.scale * known**self.exponent)

    def chlorophyll(self, kd490: Float64) -> Float64:
        """Return chlorophyll in mg m-3 of Kd490 in m-1; NaN at or below pure water."""
        over = np.asarray(kd490, dtype=float) - PURE_WATER
        known = np.where(over > 0, over, np.nan) / self.scale
        return np.asarray(known ** (1 / self.exponent))

    @property
    def valid(self) -> tuple[float, float]:
        """Range of Kd490 for chlorophyll of 0.01 to 15 mg m-3."""
        low, high = self.attenuation(np.array([LEAST_CHLOROPHYLL, MOST_CHLOROPHYLL]))
        return float(low), float(high)


@dataclass(frozen=True, slots=True)
class DepthOf490:
    """``4.6 / Kd490``: where 1 % of the light of 490 nm is left. It is not the euphotic depth."""

    name: str = "4.6 / Kd490"
    meaning: str = "depth of 1 % of the light of 490 nm, not of PAR"
    source: str = "Beer's law at one wavelength"
    valid: tuple[float, float] = (PURE_WATER, 6.4)

    def depth(self, kd490: Float64) -> Float64:
        """Return the depth in m."""
        kd = np.asarray(kd490, dtype=float)
        return np.asarray(ONE_PERCENT / np.where(kd > 0, kd, np.nan))


@dataclass(frozen=True, slots=True)
class DepthOfPar:
    """``4.6 / Kd(PAR)``, attenuation of PAR from Kd490 over one or two attenuation lengths.

    The relation knows Kd(PAR) of the upper layer; the euphotic layer is thicker, and attenuation
    of PAR falls with depth, so this depth is rather too small.
    """

    layer: Layer = Layer.ONE

    @property
    def name(self) -> str:
        """Return a short name."""
        return f"4.6 / Kd(PAR), layer of {int(self.layer)} / Kd490"

    @property
    def meaning(self) -> str:
        """Say what the depth is one of."""
        return "depth of 1 % of PAR, if the attenuation of the upper layer held all the way down"

    @property
    def source(self) -> str:
        """Name where the relation was published."""
        return "Morel et al. 2007, equations 9 and 9'"

    @property
    def valid(self) -> tuple[float, float]:
        """Return the range of Kd490."""
        return AttenuationOfChlorophyll().valid

    def depth(self, kd490: Float64) -> Float64:
        """Return the depth in m."""
        return np.asarray(ONE_PERCENT / attenuation_of_par(kd490, self.layer))


@dataclass(frozen=True, slots=True)
class EuphoticFromChlorophyll:
    """``log10 Zeu = 1.524 - 0.436 X - 0.0145 X^2 + 0.0186 X^3``, X = log10 Chl of Kd490.

    Attributes
    ----------
    bridge
        How chlorophyll follows from Kd490.
    """

    bridge: AttenuationOfChlorophyll = AttenuationOfChlorophyll()

    @property
    def name(self) -> str:
        """Return a short name."""
        return f"Zeu(Chl), Chl from Kd490 by {self.bridge.scale:g} Chl^{self.bridge.exponent:g}"

    @property
    def meaning(self) -> str:
        """Say what the depth is one of."""
        return "depth of 1 % of PAR in water whose optics follow chlorophyll"

    @property
    def source(self) -> str:
        """Name where the relation was published."""
        return "Morel et al. 2007, equation 10"

    @property
    def valid(self) -> tuple[float, float]:
        """Return the range of Kd490."""
        return self.bridge.valid

    def depth(self, kd490: Float64) -> Float64:
        """Return the depth in m."""
        x = np.log10(self.bridge.chlorophyll(kd490))
        return np.asarray(10 ** (1.524 + x * (-0.436 + x * (-0.0145 + x * 0.0186))))


def photic_depth_lee(
    absorption: Float64, backscatter: Float64, *, percent: float = 1.0, sun_zenith: float = 0.0
) -> Float64:
    """Return the depth in m at which a percentage of PAR is left, from inherent properties.

    Solves ``-log(percent / 100) = K(z) z`` with ``K = K1 + K2 / sqrt(1 + z)`` of Lee et al. (2005,
    J. Geophys. Res. 110:C02017; 2007, 112:C03009).

    Parameters
    ----------
    absorption, backscatter
        At 490 nm in m-1.
    percent
        1 for the euphotic depth, 10 for a Secchi-like one.
    sun_zenith
        In degrees.

    Raises
    ------
    EstimationError
        If the percentage is not between 0 and 100.
    """
    if not 0 < percent < 100:
        raise EstimationError(
            f"The depth of {percent} % of the light.",
            cause="Between the surface and the dark it is between 0 and 100.",
            next_step="Give 1 for the euphotic depth.",
        )
    a, bb = (np.asarray(part, dtype=float) for part in (absorption, backscatter))
    known = (a > 0) & (bb > 0)
    a, bb = np.where(known, a, np.nan), np.where(known, bb, np.nan)
    angle = np.radians(sun_zenith)
    k1 = (-0.057 + 0.482 * np.sqrt(a) + 4.221 * bb) * (1 + 0.090 * np.sin(angle))
    k2 = (0.183 + 0.702 * a - 2.567 * bb) * (1.465 - 0.667 * np.cos(angle))
    target = -np.log(percent / 100)
    low, high = np.zeros_like(k1), np.full_like(k1, 2000.0)
    for _ in range(60):
        middle = 0.5 * (low + high)
        less = (k1 + k2 / np.sqrt(1 + middle)) * middle < target
        low, high = np.where(less, middle, low), np.where(less, high, middle)
    return np.where(known & (high < 2000.0), 0.5 * (low + high), np.nan)
