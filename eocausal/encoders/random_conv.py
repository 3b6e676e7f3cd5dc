"""Random convolutional features: the encoder that needs no weights.

After MOSAIKS (Rolf et al. 2021, Nature Communications 12:4392) and Coates & Ng (2012,
"Learning feature representations with k-means"): random patches of the data, whitened, are
slid over the chip; the response is rectified on both sides and averaged over the chip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import product
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from eocausal.encoders.core import FittedEncoder, Float32, ImageSpec, Scaling, check_size
from eocausal.encoders.initial_weights import generator_of
from eocausal.encoders.largest import LargestResponses
from eocausal.encoders.patches import (
    GaussianPatches,
    Patches,
    SampledPatches,
    draw_patches,
    whiten,
)
from eocausal.encoders.rectified import RectifiedMeans, average_pool
from eocausal.errors import EncoderError

__all__ = [
    "GaussianPatches",
    "Patches",
    "Pool",
    "RandomConv",
    "SampledPatches",
    "draw_patches",
    "whiten",
]

Pool = Literal["mean", "max"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RandomConv:
    """Random convolutional features of the chip.

    Feature pair ``k`` of a chip is the mean over its places of ``max(r - bias, 0)`` and
    ``max(-r - bias, 0)``, with ``r`` the response to filter ``k``; or the largest ``r`` and the
    largest ``-r``. Only places where the whole patch is valid count, so the means of a chip with
    gaps estimate those of the whole chip from what is seen (a maximum falls short if it lies in
    the gap); a chip without such a place for one of the sizes and scales gets NaN.

    Parameters
    ----------
    features
        Number of features, even; half as many filters, shared evenly among scales, patch sizes
        and ways of pooling.
    patch
        Side of the patches in pixels, or several sides.
    patches
        :class:`SampledPatches` (default) or :class:`GaussianPatches`.
    bias
        Threshold in units of the response (about one sd for whitened patches), >= 0.
    stride
        Step between places; 2 is up to four times faster and a little noisier.
    scales
        One or several factors by which chips are averaged down before filtering: at scale 4 a
        patch of 3 pixels covers 12 by 12 of the chip, and costs a sixteenth. Patches are drawn
        and whitened anew at each scale. A coarse pixel counts as valid if at least half of it is.
    pool
        ``"mean"`` tells how often patterns occur in the chip; ``"max"`` how strongly the strongest
        does, wherever it is: the one large thing. Or both, ``("mean", "max")``, each with filters
        of its own.

    Raises
    ------
    EncoderError
        If a number is not one of those described.

    Notes
    -----
    Bands are standardised with mean and sd of the fitting sample. Source: Rolf et al. 2021
    (two-sided rectification, patches from the data); Coates & Ng 2012 (whitening).

    Examples
    --------
    >>> RandomConv(features=512, scales=(1, 2)).name
    'RandomConv(features=512, patch=3, patches=SampledPatches(), bias=1, stride=1, scales=(1, 2))'
    """

    features: int = 512
    patch: int | tuple[int, ...] = 3
    patches: Patches = field(default_factory=SampledPatches)
    bias: float = 1.0
    stride: int = 1
    scales: int | tuple[int, ...] = 1
    pool: Pool | tuple[Pool, ...] = "mean"

    def __post_init__(self) -> None:
        for what, numbers in (
            ("patch", _several(self.patch)),
            ("scales", _several(self.scales)),
            ("stride", (self.stride,)),
        ):
            if not numbers or not all(_is_whole(number, 1) for number in numbers):
                raise EncoderError(
                    f"{what} is {getattr(self, what)!r}.",
                    cause="Patch sides, scales and stride are whole numbers of pixels, at least 1.",
                    next_step="Use e.g. patch=3, scales=(1, 2, 4), stride=1.",
                )
        if not (isinstance(self.bias, int | float) and 0 <= self.bias < math.inf):
            raise EncoderError(
                f"bias is {self.bias!r}.",
                cause="It is a finite threshold of the response's size, which is never negative.",
                next_step="Use bias=1.",
            )
        if not _is_rule(self.patches):
            raise EncoderError(
                f"patches is {self.patches!r}.",
                cause="It is a rule for drawing filters, an object with a method draw.",
                next_step="Use patches=SampledPatches() or patches=GaussianPatches().",
            )
        if sorted(map(str, self.pools)) not in (["mean"], ["max"], ["max", "mean"]):
            raise EncoderError(
                f"pool is {self.pool!r}.",
                cause="Responses are pooled by mean or by max, or by both.",
                next_step='Use pool="mean", "max" or ("mean", "max").',
            )
        least = 2 * len(self.sizes) * len(_several(self.scales)) * len(self.pools)
        if not _is_whole(self.features, 1) or self.features < least or self.features % 2:
            raise EncoderError(
                f"features is {self.features!r}.",
                cause="Features come in pairs, at least one pair for each patch size, scale and "
                f"way of pooling: {least} here.",
                next_step="Use an even number, e.g. features=512.",
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Patch sides."""
        return _several(self.patch)

    @property
    def pools(self) -> tuple[Pool, ...]:
        """Ways of pooling."""
        return _several(self.pool)

    @property
    def name(self) -> str:
        """Id string."""
        patches = repr(self.patches)
        if self.patches == type(self.patches)():
            patches = f"{type(self.patches).__name__}()"
        return (
            f"RandomConv(features={self.features}, patch={self.patch}, patches={patches}, "
            f"bias={self.bias:g}, stride={self.stride}, scales={self.scales}"
            + ("" if self.pools == ("mean",) else f", pool={self.pool!r}")
            + ")"
        )

    @property
    def minimum_pixels(self) -> int:
        """Smallest chip side that holds a patch at every scale."""
        return max(self.sizes) * max(_several(self.scales))

    def check(self, spec: ImageSpec) -> None:
        """Refuse chips smaller than the largest patch at the coarsest scale."""
        check_size(self.name, spec, self.minimum_pixels)

    def fit(self, images: Float32, spec: ImageSpec, *, seed: int) -> FittedEncoder:
        """Draw the filters from a sample of chips ``(n, band, y, x)``, NaN where invalid.

        Raises
        ------
        EncoderError
            If the chips are too small, hold no whole patch or one constant value, or the seed is
            negative.
        """
        self.check(spec)
        scaling = Scaling.from_images(images, spec.bands)
        values, valid = (torch.from_numpy(a) for a in scaling.apply(images))
        scales = _several(self.scales)
        n_banks = len(scales) * len(self.sizes) * len(self.pools)
        counts = iter(_shares(self.features // 2, n_banks))
        generators = iter(generator_of(seed).spawn(n_banks))
        banks = []
        for scale in scales:
            coarse, seen = (a.numpy() for a in average_pool(values, valid, scale))
            for size, pool in product(self.sizes, self.pools):
                filters, offsets = self._filters(
                    coarse, seen, size=size, count=next(counts), rng=next(generators)
                )
                banks.append((scale, self._bank(filters, offsets, pool)))
        return FittedEncoder(
            name=f"{self.name}, seed={seed}",
            spec=spec,
            scaling=scaling,
            network=_Pyramid(banks).eval(),
            n_features=self.features,
            minimum_pixels=self.minimum_pixels,
        )

    def _filters(
        self,
        values: Float32,
        valid: NDArray[np.bool_],
        *,
        size: int,
        count: int,
        rng: np.random.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        filters, offsets = self.patches.draw(values, valid, size=size, count=count, rng=rng)
        shaped = filters.reshape(count, values.shape[1], size, size)
        return torch.from_numpy(shaped), torch.from_numpy(offsets)

    def _bank(self, filters: torch.Tensor, offsets: torch.Tensor, pool: str) -> torch.nn.Module:
        if pool == "max":
            return LargestResponses(filters, offsets, self.stride)
        return RectifiedMeans(filters, offsets, self.bias, self.stride)


class _Pyramid(torch.nn.Module):
    """Banks of filters, each at its scale; a row is NaN where one of them has no place."""

    def __init__(self, banks: list[tuple[int, torch.nn.Module]]) -> None:
        super().__init__()
        self.scales = [scale for scale, _ in banks]
        self.banks = torch.nn.ModuleList(bank for _, bank in banks)

    def forward(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Encode ``(n, band, y, x), (n, y, x) -> (n, feature)``."""
        levels = {scale: average_pool(values, valid, scale) for scale in set(self.scales)}
        banks = zip(self.scales, self.banks, strict=True)
        features = torch.cat([bank(*levels[scale]) for scale, bank in banks], dim=1)
        unseen = features.isnan().any(dim=1, keepdim=True)
        return torch.where(unseen, torch.nan, features)


def _several(value: T | tuple[T, ...]) -> tuple[T, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _is_whole(value: object, least: int) -> bool:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole and int(value) >= least  # type: ignore[call-overload]


def _is_rule(value: object) -> bool:
    return isinstance(value, Patches) and not isinstance(value, type)


def _shares(total: int, parts: int) -> list[int]:
    return [total // parts + (i < total % parts) for i in range(parts)]
