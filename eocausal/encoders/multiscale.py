"""Crops of several sizes around the middle of the chip, side by side.

After Zhu, Jerzak & Daoud (arXiv 2411.02134): a roof and the region it lies in are both in the
image, at different scales, and each is described for itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as functional

from eocausal.encoders.core import Encoder, FittedEncoder, Float32, ImageSpec, Scaling, check_size
from eocausal.errors import EncoderError

__all__ = ["MultiScale", "Resize", "central_crop"]


@dataclass(frozen=True, slots=True)
class Resize:
    """Bring every crop to one size, for networks that take no other.

    Bilinear, averaging where it shrinks; of valid pixels only. A new pixel counts as valid if at
    least half of what it is made of is. The pixel size that the inner encoder is told changes
    with it, so that a model card can refuse it.

    Parameters
    ----------
    pixels
        Side of the result.
    """

    pixels: int

    def __post_init__(self) -> None:
        if not (type(self.pixels) is int and self.pixels >= 1):
            raise EncoderError(
                f"Resize has pixels={self.pixels!r}.",
                cause="It is the side of an image in whole pixels.",
                next_step="Use the size that the network takes, e.g. Resize(224).",
            )

    def apply(self, values: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Resize ``(n, band, y, x)``, 0 where invalid, and the mask ``(n, y, x)``."""
        size = (self.pixels, self.pixels)
        both = torch.cat([values, valid[:, None].to(values.dtype)], dim=1)
        both = functional.interpolate(both, size, mode="bilinear", antialias=True)
        share = both[:, -1:]
        enough = share >= 0.5
        return torch.where(enough, both[:, :-1] / share.clamp_min(0.5), 0.0), enough[:, 0]


def central_crop(grid: torch.Tensor, size: int) -> torch.Tensor:
    """Cut the middle ``size`` by ``size`` pixels out of ``(..., y, x)``.

    Where it cannot be in the middle, it is half a pixel towards the first row and column.
    """
    top, left = ((side - size) // 2 for side in grid.shape[-2:])
    return grid[..., top : top + size, left : left + size]


@dataclass(frozen=True, slots=True)
class MultiScale:
    """Features of crops of several sizes around the chip's centre, concatenated.

    Each size has a fit of the inner encoder of its own, on the same chips and with the same seed.
    A chip of which one crop is not seen at all gets NaN, as its row would be incomplete.

    Parameters
    ----------
    encoder
        Any encoder of images.
    sizes
        Sides of the crops in pixels, in the order of the features, without repetition.
    resize
        Bring crops to one size first; None leaves them as they are.

    Raises
    ------
    EncoderError
        If the sizes are not different whole numbers of pixels, or ``encoder`` or ``resize`` are not
        such objects.

    Examples
    --------
    >>> from eocausal.encoders.spectral import SpectralStats
    >>> MultiScale(SpectralStats((), (), None), sizes=(8, 32)).name
    'MultiScale(SpectralStats(quantiles=(), indices=none, texture=None), sizes=(8, 32))'
    """

    encoder: Encoder
    sizes: tuple[int, ...] = (16, 32, 64)
    resize: Resize | None = None

    def __post_init__(self) -> None:
        sizes = self.sizes if isinstance(self.sizes, tuple) else ()
        whole = all(type(size) is int and size >= 1 for size in sizes)
        if not sizes or not whole or len(set(sizes)) < len(sizes):
            raise EncoderError(
                f"MultiScale has sizes={self.sizes!r}.",
                cause="They are a tuple of different whole numbers of pixels.",
                next_step="Use e.g. sizes=(16, 32, 64).",
            )
        if isinstance(self.encoder, type) or not isinstance(self.encoder, Encoder):
            raise EncoderError(
                f"MultiScale has encoder={self.encoder!r}.",
                cause="It is fitted on each crop, so it needs an encoder of images; networks to be "
                "trained and encoders of sequences are none.",
                next_step="Use e.g. MultiScale(RandomConv()).",
            )
        if not isinstance(self.resize, Resize | None):
            raise EncoderError(
                f"MultiScale has resize={self.resize!r}.",
                cause="It is a Resize object, or None to leave crops as they are.",
                next_step="Use e.g. resize=Resize(224).",
            )

    @property
    def name(self) -> str:
        """Id string; lists the sizes in the order of the features."""
        resize = "" if self.resize is None else f", resize={self.resize.pixels}"
        return f"MultiScale({self.encoder.name}, sizes={self.sizes}{resize})"

    def check(self, spec: ImageSpec) -> None:
        """Refuse chips smaller than the largest crop, or crops that the inner encoder refuses."""
        check_size(self.name, spec, max(self.sizes))
        for size in self.sizes:
            self.encoder.check(self._inner_spec(spec, size))

    def fit(self, images: Float32, spec: ImageSpec, *, seed: int) -> FittedEncoder:
        """Fit the inner encoder on each crop of a sample of chips, NaN where invalid.

        Mean and sd per band are those of the largest crop; a network that was fitted with others
        is given values by its own.
        """
        self.check(spec)
        fits = [self._fit_crop(images, spec, size, seed) for size in self.sizes]
        scaling = fits[self.sizes.index(max(self.sizes))].scaling
        crops = [
            _Crop(size, self.resize, scaling, fit)
            for size, fit in zip(self.sizes, fits, strict=True)
        ]
        detail = fits[0].name.removeprefix(self.encoder.name)
        checksums = dict.fromkeys(fit.weights_sha256 for fit in fits if fit.weights_sha256)
        return FittedEncoder(
            name=f"{self.name}{detail}",
            spec=spec,
            scaling=scaling,
            network=_Crops(crops).eval().requires_grad_(False),
            n_features=sum(fit.n_features for fit in fits),
            weights_sha256="+".join(checksums),
            minimum_pixels=max(self.sizes),
        )

    def _inner_spec(self, spec: ImageSpec, size: int) -> ImageSpec:
        pixels, resolution = size, spec.resolution
        if self.resize is not None:
            pixels = self.resize.pixels
            resolution *= size / pixels
        return replace(spec, resolution=resolution, height=pixels, width=pixels)

    def _fit_crop(self, images: Float32, spec: ImageSpec, size: int, seed: int) -> FittedEncoder:
        crops = central_crop(torch.from_numpy(images), size)
        if self.resize is not None:
            valid = crops.isfinite().all(dim=1)
            values, valid = self.resize.apply(torch.where(valid[:, None], crops, 0.0), valid)
            crops = torch.where(valid[:, None], values, torch.nan)
        return self.encoder.fit(crops.numpy(), self._inner_spec(spec, size), seed=seed)


class _Crop(torch.nn.Module):
    """One size: crop, resize, go from the shared scaling to the inner fit's own, encode."""

    def __init__(
        self, size: int, resize: Resize | None, shared: Scaling, fit: FittedEncoder
    ) -> None:
        super().__init__()
        self.size = size
        self.resize = resize
        self.network = fit.network
        self.same = shared == fit.scaling
        (mean, sd), (own_mean, own_sd) = shared.tensors("cpu"), fit.scaling.tensors("cpu")
        self.register_buffer("factor", sd / own_sd)
        self.register_buffer("shift", (mean - own_mean) / own_sd)

    def forward(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Encode ``(n, band, y, x), (n, y, x) -> (n, feature)``; NaN where nothing is seen."""
        values, valid = central_crop(values, self.size), central_crop(valid, self.size)
        if self.resize is not None:
            values, valid = self.resize.apply(values, valid)
        if not self.same:
            own = values * self.get_buffer("factor") + self.get_buffer("shift")
            values = torch.where(valid[:, None], own, 0.0)
        features: torch.Tensor = self.network(values, valid)
        return torch.where(valid.flatten(1).any(dim=1)[:, None], features, torch.nan)


class _Crops(torch.nn.Module):
    def __init__(self, crops: list[_Crop]) -> None:
        super().__init__()
        self.crops = torch.nn.ModuleList(crops)

    def forward(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Encode ``(n, band, y, x), (n, y, x) -> (n, feature)``."""
        features = torch.cat([crop(values, valid) for crop in self.crops], dim=1)
        unseen = features.isnan().any(dim=1, keepdim=True)
        return torch.where(unseen, torch.nan, features)
