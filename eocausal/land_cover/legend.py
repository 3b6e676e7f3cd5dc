"""What the codes of a land-cover map mean, and which of them say that nothing was seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from eocausal.contracts import some
from eocausal.errors import BandError, EmptyInputError

__all__ = ["ESRI", "Legend"]


@dataclass(frozen=True, slots=True)
class Legend:
    """Names of codes.

    Parameters
    ----------
    names
        Of the classes, by code.
    unobserved
        Codes that are no land cover, such as clouds. Codes without a name and not here are
        refused, missing values and negative codes are taken as not observed.
    """

    names: Mapping[int, str]
    unobserved: frozenset[int] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise EmptyInputError(
                f"A legend of {len(self.classes)} classes, {len(set(self.classes))} names.",
                cause="Classes are told apart by name.",
                next_step="Give each code of land cover a name of its own.",
            )

    @property
    def codes(self) -> tuple[int, ...]:
        """Codes of land cover, in order."""
        return tuple(sorted(code for code in self.names if code not in self.unobserved))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of land cover, in the order of the codes."""
        return tuple(self.names[code] for code in self.codes)

    def positions(self, values: xr.DataArray) -> NDArray[np.int8]:
        """Return the position of each pixel's class in :attr:`classes`, -1 where not observed.

        Raises
        ------
        BandError
            If a code has no name.
        """
        raw = values.to_numpy()
        if raw.dtype.kind == "f":
            raw = np.where(np.isfinite(raw), raw, -1)
        codes = raw.astype(np.int32)
        largest = max(int(codes.max(initial=0)), *self.names, *self.unobserved)
        table = np.full(largest + 1, -2, dtype=np.int8)
        table[list(self.codes)] = np.arange(len(self.codes))
        table[[code for code in self.unobserved if code >= 0]] = -1
        found = np.where(codes < 0, np.int8(-1), table[np.clip(codes, 0, None)])
        if (found == -2).any():
            unknown = np.unique(codes[found == -2])
            raise BandError(
                f"The map has codes without a name: {some(unknown.tolist())}.",
                cause="Their area would be missing from every table.",
                next_step="Name them in the legend, or list them as unobserved.",
            )
        return np.asarray(found, dtype=np.int8)


ESRI = Legend(
    {
        1: "Water", 2: "Trees", 4: "Flooded vegetation", 5: "Crops", 7: "Built area",
        8: "Bare ground", 9: "Snow/ice", 10: "Clouds", 11: "Rangeland",
    },
    unobserved=frozenset({0, 10}),
)  # fmt: skip
