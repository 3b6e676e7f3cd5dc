"""Random convolutional features: the encoder that needs no weights.

After MOSAIKS (Rolf et al. 2021, Nature Communications 12:4392) and Coates & Ng (2012,
"Learning feature representations with k-means"): random patches of the data, whitened, are
slid over the chip; the response is rectified on both sides and averaged over the chip.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray

from eocausal.encoders.core import (
    FittedEncoder,
    Float32,
    ImageSpec,
    Scaling,
    check_size,
)
from eocausal.errors import EncoderError

__all__ = ["GaussianPatches", "Patches", "RandomConv", "SampledPatches", "draw_patches", "whiten"]

Float64 = NDArray[np.float64]


class Patches(Protocol):
    """A rule for drawing filters."""

    def draw(
        self,
        images: Float32,
        valid: NDArray[np.bool_],
        *,
        size: int,
        count: int,
        rng: np.random.Generator,
    ) -> tuple[Float64, Float64]:
        """Return filters ``(count, band * size * size)`` and offsets ``(count,)``."""


def draw_patches(
    images: Float32,
    valid: NDArray[np.bool_],
    *,
    size: int,
    count: int,
    rng: np.random.Generator,
) -> Float64:
    """Draw patches at random among the places where every pixel is valid, with replacement.

    Parameters
    ----------
    images
        ``(n, band, y, x)``.
    valid
        ``(n, y, x)``.
    size
        Side of a patch in pixels.
    count
        Number of patches.
    rng
        Generator.

    Returns
    -------
    numpy.ndarray
        ``(count, band * size * size)``.

    Raises
    ------
    EncoderError
        If no chip has a fully valid patch.
    """
    gaps = torch.from_numpy(~valid).float()[:, None]
    whole = functional.max_pool2d(gaps, size, stride=1)[:, 0].numpy() == 0
    places = np.flatnonzero(whole)
    if len(places) == 0:
        raise EncoderError(
            f"No chip has a patch of {size} by {size} valid pixels.",
            cause="Patches are sampled from the data, away from missing pixels.",
            next_step="Use a smaller patch, GaussianPatches(), or imagery with fewer gaps.",
        )
    chosen = places[rng.integers(len(places), size=count)]
    image, row, column = np.unravel_index(chosen, whole.shape)
    windows = np.lib.stride_tricks.sliding_window_view(images, (size, size), axis=(2, 3))
    patches = windows[image, :, row, column]
    return patches.reshape(count, -1).astype(np.float64)


def whiten(patches: Float64, regularisation: float) -> tuple[Float64, Float64]:
    """Mean and ZCA matrix of patches.

    ``W = U diag(1 / sqrt(l + r * mean(l))) U'`` with ``U diag(l) U'`` the covariance, so that
    ``W (p - mean)`` has covariance I as ``r`` goes to 0 (Bell & Sejnowski 1997, Vision Research
    37:3327; regularised as in Coates & Ng 2012).

    Parameters
    ----------
    patches
        ``(n, d)``.
    regularisation
        ``r`` > 0, as a share of the mean eigenvalue.

    Returns
    -------
    tuple of numpy.ndarray
        Mean ``(d,)`` and symmetric matrix ``(d, d)``.
    """
    mean = patches.mean(axis=0)
    covariance = np.cov(patches, rowvar=False).reshape(len(mean), len(mean))
    eigenvalues, vectors = np.linalg.eigh(covariance)
    floor = max(regularisation * float(eigenvalues.mean()), np.finfo(np.float64).tiny)
    scale = 1.0 / np.sqrt(np.maximum(eigenvalues, 0.0) + floor)
    return mean, (vectors * scale) @ vectors.T


@dataclass(frozen=True, slots=True)
class SampledPatches:
    """Filters are patches of the data, ZCA-whitened and scaled to unit length.

    Parameters
    ----------
    regularisation
        Added to every eigenvalue, as a share of their mean. Larger values damp pixel noise.
    sample
        Patches drawn to learn the whitening from.
    """

    regularisation: float = 0.01
    sample: int = 100_000

    def __post_init__(self) -> None:
        if not (self.regularisation > 0 and self.sample >= 2):
            raise EncoderError(
                f"SampledPatches has regularisation={self.regularisation}, sample={self.sample}.",
                cause="Whitening divides by the eigenvalues plus the regularisation.",
                next_step="Use regularisation > 0 (e.g. 0.01) and a sample of thousands.",
            )

    def draw(
        self,
        images: Float32,
        valid: NDArray[np.bool_],
        *,
        size: int,
        count: int,
        rng: np.random.Generator,
    ) -> tuple[Float64, Float64]:
        """Return filters and offsets such that the response is ``w' W (x - mean)``, |w| = 1."""
        patches = draw_patches(images, valid, size=size, count=max(self.sample, count), rng=rng)
        mean, matrix = whiten(patches, self.regularisation)
        directions = (patches[:count] - mean) @ matrix
        length = np.linalg.norm(directions, axis=1, keepdims=True)
        filters = (directions / np.maximum(length, 1e-12)) @ matrix
        return filters, -filters @ mean


@dataclass(frozen=True, slots=True)
class GaussianPatches:
    """Filters are Gaussian noise of unit length, on standardised bands, without whitening."""

    def draw(
        self,
        images: Float32,
        valid: NDArray[np.bool_],
        *,
        size: int,
        count: int,
        rng: np.random.Generator,
    ) -> tuple[Float64, Float64]:
        """Return filters and zero offsets; of the images only the number of bands is used."""
        filters = rng.standard_normal((count, images.shape[1] * size * size))
        return filters / np.linalg.norm(filters, axis=1, keepdims=True), np.zeros(count)


@dataclass(frozen=True, slots=True)
class RandomConv:
    """Random convolutional features, averaged over the chip.

    Feature pair ``k`` of a chip is the mean over its places of ``max(r - bias, 0)`` and
    ``max(-r - bias, 0)``, with ``r`` the response to filter ``k``. Only places where the whole
    patch is valid count, so the features of a chip with gaps estimate those of the whole chip
    from what is seen; a chip without one such place gets NaN.

    Parameters
    ----------
    features
        Number of features, even; half as many filters, shared evenly among patch sizes.
    patch
        Side of the patches in pixels, or several sides.
    patches
        :class:`SampledPatches` (default) or :class:`GaussianPatches`.
    bias
        Threshold in units of the response (about one sd for whitened patches), >= 0.
    stride
        Step between places; 2 is four times faster and a little noisier.

    Notes
    -----
    Bands are standardised with mean and sd of the fitting sample. Source: Rolf et al. 2021
    (two-sided rectification, patches from the data); Coates & Ng 2012 (whitening).

    Examples
    --------
    >>> RandomConv(features=512, patch=(3, 5)).name
    'RandomConv(features=512, patch=(3, 5), patches=SampledPatches(), bias=1, stride=1)'
    """

    features: int = 512
    patch: int | tuple[int, ...] = 3
    patches: Patches = field(default_factory=SampledPatches)
    bias: float = 1.0
    stride: int = 1

    def __post_init__(self) -> None:
        if self.features < 2 * len(self.sizes) or self.features % 2:
            raise EncoderError(
                f"features is {self.features}.",
                cause="Features come in pairs, at least one pair for each patch size.",
                next_step="Use an even number, e.g. features=512.",
            )
        if not self.sizes or min(self.sizes) < 1 or self.stride < 1 or not self.bias >= 0:
            raise EncoderError(
                f"patch={self.patch}, stride={self.stride}, bias={self.bias}.",
                cause="Patch sides and stride are at least 1 pixel, the bias is at least 0.",
                next_step="Use e.g. patch=3, stride=1, bias=1.",
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Patch sides."""
        return (self.patch,) if isinstance(self.patch, int) else tuple(self.patch)

    @property
    def name(self) -> str:
        """Id string."""
        patches = repr(self.patches)
        if self.patches == type(self.patches)():
            patches = f"{type(self.patches).__name__}()"
        return (
            f"RandomConv(features={self.features}, patch={self.patch}, patches={patches}, "
            f"bias={self.bias:g}, stride={self.stride})"
        )

    def check(self, spec: ImageSpec) -> None:
        """Refuse chips smaller than the largest patch."""
        check_size(self.name, spec, max(self.sizes))

    def fit(self, images: Float32, spec: ImageSpec, *, seed: int) -> FittedEncoder:
        """Draw the filters from a sample of chips ``(n, band, y, x)``, NaN where invalid."""
        self.check(spec)
        scaling = Scaling.from_images(images, spec.bands)
        values, valid = scaling.apply(images)
        counts = _shares(self.features // 2, len(self.sizes))
        generators = np.random.default_rng(seed).spawn(len(self.sizes))
        banks = []
        for size, count, rng in zip(self.sizes, counts, generators, strict=True):
            filters, offset = self.patches.draw(values, valid, size=size, count=count, rng=rng)
            shape = (count, images.shape[1], size, size)
            banks.append((filters.reshape(shape), offset))
        return FittedEncoder(
            name=f"{self.name}, seed={seed}",
            spec=spec,
            scaling=scaling,
            network=_RandomConvNetwork(banks, self.bias, self.stride).eval(),
            n_features=self.features,
            minimum_pixels=max(self.sizes),
        )


def _shares(total: int, parts: int) -> list[int]:
    return [total // parts + (i < total % parts) for i in range(parts)]


# Responses of this size stay in a processor's cache and below the size (32 MiB) from which malloc
# maps fresh pages every time; on a GPU they only bound memory.
_CPU_BYTES = 8 << 20
_GPU_BYTES = 512 << 20
_FILTERS_AT_ONCE = 128


class _RandomConvNetwork(torch.nn.Module):
    """Filters and offsets of each patch size; the forward pass holds few responses at a time."""

    def __init__(self, banks: list[tuple[Float64, Float64]], bias: float, stride: int) -> None:
        super().__init__()
        self.bias = bias
        self.stride = stride
        self.filters = torch.nn.ParameterList()
        self.offsets = torch.nn.ParameterList()
        for filters, offset in banks:
            weight = torch.tensor(filters, dtype=torch.float32)
            weight = weight.contiguous(memory_format=torch.channels_last)
            threshold = torch.tensor(offset - bias, dtype=torch.float32)
            self.filters.append(torch.nn.Parameter(weight, requires_grad=False))
            self.offsets.append(torch.nn.Parameter(threshold, requires_grad=False))

    def forward(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Average the rectified responses; ``(n, band, y, x), (n, y, x) -> (n, feature)``."""
        banks = zip(self.filters, self.offsets, strict=True)
        return torch.cat([self._bank(values, valid, w, b) for w, b in banks], dim=1)

    def _bank(
        self, values: torch.Tensor, valid: torch.Tensor, weight: torch.Tensor, offset: torch.Tensor
    ) -> torch.Tensor:
        gaps = (~valid).to(values.dtype)[:, None]
        places = (functional.max_pool2d(gaps, weight.shape[-1], stride=self.stride) == 0).float()
        n_places = places.sum(dim=(1, 2, 3))
        whole = bool((n_places == places[0].numel()).all())
        budget = _CPU_BYTES if values.device.type == "cpu" else _GPU_BYTES
        one = 4 * places[0].numel()
        n_filters = max(1, min(_FILTERS_AT_ONCE, len(weight), budget // one))
        n_images = max(1, budget // (one * n_filters))
        values = values.contiguous(memory_format=torch.channels_last)
        rows = []
        for i in range(0, len(values), n_images):
            chips = values[i : i + n_images]
            mask = None if whole else places[i : i + n_images]
            pieces = [
                self._rectified_sums(
                    chips, mask, weight[j : j + n_filters], offset[j : j + n_filters]
                )
                for j in range(0, len(weight), n_filters)
            ]
            rows.append(torch.cat(pieces, dim=1))
        return torch.cat(rows) / n_places[:, None]

    def _rectified_sums(
        self,
        chips: torch.Tensor,
        mask: torch.Tensor | None,
        weight: torch.Tensor,
        offset: torch.Tensor,
    ) -> torch.Tensor:
        """Sum ``max(r - bias, 0)`` and ``max(-r - bias, 0)``, side by side.

        ``excess`` is ``r - bias``; set to 0 where masked, it adds nothing to either sum.
        """
        excess = functional.conv2d(chips, weight, offset, stride=self.stride)
        if mask is not None:
            excess.mul_(mask)
        negative = torch.rsub(excess, -2.0 * self.bias).clamp_min_(0.0).sum(dim=(2, 3))
        positive = excess.clamp_min_(0.0).sum(dim=(2, 3))
        return torch.stack([positive, negative], dim=2).flatten(1)
