"""Texture by grey-level co-occurrence (Haralick, Shanmugam & Dinstein 1973, IEEE TSMC 3(6)).

Pixels are sorted into grey levels; for pairs of pixels a given step apart the joint frequencies of
their levels make a symmetric matrix ``p``, of which a few numbers are taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from eocausal.encoders.core import Float32, valid_pixels
from eocausal.errors import EncoderError

__all__ = [
    "MEASURES",
    "Texture",
    "cooccurrence",
    "grey_levels",
    "haralick",
    "texture_features",
]

MEASURES = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "entropy")

_DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1))


@dataclass(frozen=True, slots=True)
class Texture:
    """Which co-occurrence matrices are made.

    Parameters
    ----------
    levels
        Number of grey levels of a band: equally full classes of the pixels of the fitting sample,
        so that neither brightness nor contrast of a sensor matters. 2 to 64.
    distances
        Steps between the pixels of a pair, along rows, columns and both diagonals.
    """

    levels: int = 16
    distances: tuple[int, ...] = (1, 2)

    def __post_init__(self) -> None:
        steps = self.distances if isinstance(self.distances, tuple) else ()
        whole = all(type(number) is int for number in (self.levels, *steps))
        if not (steps and whole and 2 <= self.levels <= 64 and min(steps) >= 1):
            raise EncoderError(
                f"Texture has levels={self.levels}, distances={self.distances}.",
                cause="There are 2 to 64 grey levels; distances are a tuple of whole pixels, "
                "at least 1.",
                next_step="Use levels=16, distances=(1, 2).",
            )


def grey_levels(images: Float32, levels: int) -> Float32:
    """Bounds between equally full classes of each band; ``(band, levels - 1)``.

    Parameters
    ----------
    images
        Sample of chips ``(n, band, y, x)``, NaN where invalid; at least one pixel is valid.
    levels
        Number of classes.
    """
    pixels = images.transpose(1, 0, 2, 3)[:, valid_pixels(images)]
    at = np.arange(1, levels) / levels
    return np.ascontiguousarray(np.quantile(pixels, at, axis=1).T, np.float32)


def _pairs(grid: torch.Tensor, step: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Take two views of ``(..., y, x)`` whose equal places are ``step`` apart."""
    down, right = step
    height, width = grid.shape[-2:]
    first = grid[..., : max(height - down, 0), max(-right, 0) : width - max(right, 0)]
    second = grid[..., down:, max(right, 0) : width + min(right, 0)]
    return first, second


def cooccurrence(
    classes: torch.Tensor, valid: torch.Tensor, levels: int, step: tuple[int, int]
) -> torch.Tensor:
    """Count pairs of grey levels both ways; pairs with an invalid pixel are left out.

    Parameters
    ----------
    classes
        ``(n, band, y, x)`` integers from 0 to ``levels - 1``.
    valid
        ``(n, y, x)`` bool.
    levels
        Number of grey levels.
    step
        Rows (>= 0) and columns from the first pixel of a pair to the second.

    Returns
    -------
    torch.Tensor
        ``(n, band, levels, levels)`` float32, symmetric.
    """
    n, bands = classes.shape[:2]
    if abs(step[1]) >= classes.shape[3] or step[0] >= classes.shape[2]:
        return torch.zeros(n, bands, levels, levels, device=classes.device)
    first, second = _pairs(classes, step)
    both = torch.logical_and(*_pairs(valid, step))
    matrix = torch.arange(n * bands, dtype=classes.dtype, device=classes.device)
    matrix = matrix.view(n, bands, 1, 1)
    cell = (matrix * levels + first) * levels + second
    cell = torch.where(both[:, None], cell, n * bands * levels**2)
    counts = torch.bincount(cell.flatten(), minlength=n * bands * levels**2 + 1)[:-1]
    counts = counts.view(n, bands, levels, levels).float()
    return counts + counts.transpose(2, 3)


def haralick(counts: torch.Tensor) -> torch.Tensor:
    """Measures of co-occurrence matrices, in the order of :data:`MEASURES`.

    With ``p`` the matrix divided by its sum: contrast ``sum p (i - j)^2``, dissimilarity
    ``sum p |i - j|``, homogeneity ``sum p / (1 + (i - j)^2)``, energy ``sqrt(sum p^2)``,
    correlation of ``i`` and ``j``, entropy ``- sum p log p`` in nats. A matrix of one level, or
    without a pair, is that of a flat image: 0, 0, 1, 1, 1, 0.

    Parameters
    ----------
    counts
        ``(..., level, level)``, symmetric.

    Returns
    -------
    torch.Tensor
        ``(..., 6)``.
    """
    levels = counts.shape[-1]
    total = counts.sum(dim=(-2, -1), keepdim=True)
    flat = torch.zeros_like(counts)
    flat[..., 0, 0] = 1.0
    p = torch.where(total > 0, counts / total.clamp_min(1.0), flat)
    level = torch.arange(levels, device=counts.device, dtype=counts.dtype)
    gap = level[:, None] - level
    margin = p.sum(dim=-1)
    centred = level - (margin * level).sum(dim=-1, keepdim=True)
    variance = (margin * centred**2).sum(dim=-1)
    products = centred[..., :, None] * centred[..., None, :]
    covariance = (p * products).sum(dim=(-2, -1))
    varies = variance > 1e-6
    correlation = torch.where(varies, covariance / torch.where(varies, variance, 1.0), 1.0)
    return torch.stack(
        [
            (p * gap**2).sum(dim=(-2, -1)),
            (p * gap.abs()).sum(dim=(-2, -1)),
            (p / (1.0 + gap**2)).sum(dim=(-2, -1)),
            (p**2).sum(dim=(-2, -1)).sqrt(),
            correlation,
            torch.special.entr(p).sum(dim=(-2, -1)),
        ],
        dim=-1,
    )


def texture_features(
    values: torch.Tensor, valid: torch.Tensor, bounds: torch.Tensor, distances: tuple[int, ...]
) -> torch.Tensor:
    """Haralick's measures of each band and distance, averaged over the four directions.

    Directions without a pair of valid pixels are left out of the average; diagonal pairs are as
    many rows as columns apart. No gradient passes: levels are steps.

    Parameters
    ----------
    values
        ``(n, band, y, x)``.
    valid
        ``(n, y, x)`` bool.
    bounds
        ``(band, levels - 1)``, as of :func:`grey_levels`.
    distances
        Steps in pixels.

    Returns
    -------
    torch.Tensor
        ``(n, band * distance * 6)``.
    """
    levels = bounds.shape[1] + 1
    by_band = values.detach().transpose(0, 1).contiguous()
    classes = torch.stack(
        [
            torch.bucketize(band, levels_of_band, right=True, out_int32=True)
            for band, levels_of_band in zip(by_band, bounds, strict=True)
        ],
        dim=1,
    )
    flat = haralick(torch.zeros(levels, levels, device=values.device))
    pieces = []
    for distance in distances:
        each, seen = [], []
        for down, right in _DIRECTIONS:
            counts = cooccurrence(classes, valid, levels, (down * distance, right * distance))
            each.append(haralick(counts))
            seen.append((counts.sum(dim=(2, 3)) > 0)[..., None])
        weight = torch.stack(seen).to(values.dtype)
        mean = (torch.stack(each) * weight).sum(dim=0) / weight.sum(dim=0).clamp_min(1.0)
        pieces.append(torch.where(weight.any(dim=0), mean, flat))
    return torch.stack(pieces, dim=2).flatten(1)
