"""Units of attenuation: published records come in m-1 and in 10^-2 m-1, and mixing them is silent.

Pure water attenuates light of 490 nm by 0.0166 per metre, and no retrieval goes beyond 6.4 (the
limit of NASA's processing): outside, a factor of 100 is the first thing to suspect.
"""

from __future__ import annotations

from enum import Enum

import numpy as np
from numpy.typing import NDArray

from eocausal.errors import OutcomeError

__all__ = ["HIGHEST", "PURE_WATER", "AttenuationUnits", "per_metre"]

Float64 = NDArray[np.float64]
PURE_WATER = 0.0166
HIGHEST = 6.4
TURBID = 1.0


class AttenuationUnits(Enum):
    """What one unit of a record is in m-1."""

    PER_METRE = 1.0
    HUNDREDTH_PER_METRE = 0.01


def per_metre(
    values: Float64,
    units: AttenuationUnits = AttenuationUnits.PER_METRE,
    *,
    what: str = "Kd490",
    turbid: bool = False,
) -> Float64:
    """Return attenuation in m-1, refusing records that seem to be in other units.

    Parameters
    ----------
    values
        Attenuation at 490 nm, NaN where missing.
    units
        What they are given in.
    what
        Their name, for messages.
    turbid
        Whether typical values above 1 m-1 are to be believed: a muddy estuary.

    Raises
    ------
    OutcomeError
        If nothing is finite, or the typical value is less than that of pure water or above 1 m-1.
    """
    kd = np.asarray(values, dtype=float) * units.value
    if not np.isfinite(kd).any():
        raise OutcomeError(
            f"{what} has no value at all.",
            cause="There is no light to follow down.",
            next_step="Check the record and its masks.",
        )
    typical = float(np.nanmedian(kd))
    given = "10^-2 m-1" if units is AttenuationUnits.HUNDREDTH_PER_METRE else "m-1"
    if typical < 0.9 * PURE_WATER:
        raise OutcomeError(
            f"{what} is typically {typical:.3g} m-1 if its values are in {given}.",
            cause=f"Pure water has {PURE_WATER} m-1: a factor of 100 is the likely reason.",
            next_step="Say AttenuationUnits.PER_METRE if the values are in m-1 already.",
        )
    if typical > TURBID and not turbid:
        raise OutcomeError(
            f"{what} is typically {typical:.3g} m-1 if its values are in {given}.",
            cause="Few waters have more than 1 m-1: a factor of 100 is the likely reason.",
            next_step=(
                "Say AttenuationUnits.HUNDREDTH_PER_METRE if the values are in 10^-2 m-1, or "
                "turbid=True if the water is mud."
            ),
        )
    return kd
