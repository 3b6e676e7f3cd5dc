"""Spectral indices as ratios of weighted sums of bands, on tensors.

The indices of :data:`KNOWN` and their sources: NDVI (Rouse et al. 1974), NDWI of open water
(McFeeters 1996, IJRS 17(7)), MNDWI (Xu 2006, IJRS 27(14)), NDBI (Zha et al. 2003, IJRS 24(3)), EVI
(Huete et al. 2002, RSE 83), SAVI with L = 0.5 (Huete 1988, RSE 25), NBR (Key & Benson 2006,
FIREMON), BSI (Rikimaru et al. 2002, Tropical Ecology 43).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from eocausal.encoders.core import ImageSpec
from eocausal.errors import EncoderError

__all__ = ["KNOWN", "Index", "Sum", "applicable", "normalised_difference"]


@dataclass(frozen=True, slots=True)
class Sum:
    """A weighted sum of bands and a constant.

    Parameters
    ----------
    weights
        Pairs of a band's name and its weight.
    constant
        Added to the sum, in the units of the bands.
    """

    weights: tuple[tuple[str, float], ...]
    constant: float = 0.0

    def of(self, values: torch.Tensor, bands: tuple[str, ...]) -> torch.Tensor:
        """Compute it; ``(n, band, y, x) -> (n, y, x)``."""
        total = torch.full_like(values[:, 0], self.constant)
        for band, weight in self.weights:
            total = total + weight * values[:, bands.index(band)]
        return total


@dataclass(frozen=True, slots=True)
class Index:
    """``gain * numerator / denominator``, held within ``-limit`` to ``limit``.

    Pixels where the denominator is 0 have no value. The limit matters where a denominator comes
    near 0, as over water or where a correction has left negative reflectance: one such pixel would
    otherwise outweigh the chip.

    Parameters
    ----------
    name
        A short name.
    numerator, denominator
        Weighted sums of bands.
    gain
        Factor.
    units
        Units in which the constants hold, e.g. ``'reflectance'``; empty if any will do.
    limit
        Largest absolute value, > 0.
    """

    name: str
    numerator: Sum
    denominator: Sum
    gain: float = 1.0
    units: str = ""
    limit: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.gain) and self.limit > 0 and self.bands):
            raise EncoderError(
                f"The index {self.name!r} has gain={self.gain}, limit={self.limit} and the bands "
                f"{', '.join(sorted(self.bands)) or '(none)'}.",
                cause="It is a ratio of sums of bands, held within its limit.",
                next_step="Name at least one band, and use gain=1, limit=1.",
            )

    @property
    def bands(self) -> frozenset[str]:
        """Names of the bands it is computed from."""
        return frozenset(b for b, _ in (*self.numerator.weights, *self.denominator.weights))

    def problem(self, spec: ImageSpec) -> str:
        """Say why it cannot be computed from such chips; empty if it can."""
        missing = sorted(self.bands - set(spec.bands))
        if missing:
            return f"{self.name} needs the bands {', '.join(missing)}"
        if self.units not in ("", spec.units):
            return f"{self.name} holds in units of {self.units!r}, not {spec.units!r}"
        return ""

    def evaluate(
        self, values: torch.Tensor, valid: torch.Tensor, bands: tuple[str, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute it, differentiably.

        Parameters
        ----------
        values
            ``(n, band, y, x)`` in the units of the cube.
        valid
            ``(n, y, x)`` bool.
        bands
            Names of the bands, in order.

        Returns
        -------
        tuple of torch.Tensor
            ``(n, y, x)``, 0 where it has no value, and where it has one.
        """
        below = self.denominator.of(values, bands)
        defined = valid & (below != 0)
        ratio = self.gain * self.numerator.of(values, bands) / torch.where(defined, below, 1.0)
        return torch.where(defined, ratio.clamp(-self.limit, self.limit), 0.0), defined


def normalised_difference(name: str, first: str, second: str) -> Index:
    """``(first - second) / (first + second)`` of two bands.

    Examples
    --------
    >>> sorted(normalised_difference("ndvi", "nir", "red").bands)
    ['nir', 'red']
    """
    return Index(name, Sum(((first, 1.0), (second, -1.0))), Sum(((first, 1.0), (second, 1.0))))


def applicable(indices: tuple[Index, ...], spec: ImageSpec) -> tuple[Index, ...]:
    """Those of some indices that can be computed from such chips."""
    return tuple(index for index in indices if not index.problem(spec))


KNOWN = (
    normalised_difference("ndvi", "nir", "red"),
    normalised_difference("ndwi", "green", "nir"),
    normalised_difference("mndwi", "green", "swir1"),
    normalised_difference("ndbi", "swir1", "nir"),
    Index(
        "evi",
        Sum((("nir", 1.0), ("red", -1.0))),
        Sum((("nir", 1.0), ("red", 6.0), ("blue", -7.5)), constant=1.0),
        gain=2.5,
        units="reflectance",
    ),
    Index(
        "savi",
        Sum((("nir", 1.0), ("red", -1.0))),
        Sum((("nir", 1.0), ("red", 1.0)), constant=0.5),
        gain=1.5,
        units="reflectance",
    ),
    normalised_difference("nbr", "nir", "swir2"),
    Index(
        "bsi",
        Sum((("swir1", 1.0), ("red", 1.0), ("nir", -1.0), ("blue", -1.0))),
        Sum((("swir1", 1.0), ("red", 1.0), ("nir", 1.0), ("blue", 1.0))),
    ),
)
"""Indices on bands named blue, green, red, nir, swir1 and swir2; see the module's sources."""
