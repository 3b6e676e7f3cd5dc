"""Where random filters come from: patches of the data, whitened, or Gaussian noise.

Whitened patches: Coates & Ng (2012, "Learning feature representations with k-means", in Neural
Networks: Tricks of the Trade, LNCS 7700).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray

from eocausal.encoders.core import Float32
from eocausal.errors import EncoderError

__all__ = ["GaussianPatches", "Patches", "SampledPatches", "draw_patches", "whiten"]

Float64 = NDArray[np.float64]


@runtime_checkable
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
        numbers = isinstance(self.regularisation, int | float) and isinstance(self.sample, int)
        if not (numbers and 0 < self.regularisation < math.inf and self.sample >= 2):
            raise EncoderError(
                f"SampledPatches has regularisation={self.regularisation}, sample={self.sample}.",
                cause="Whitening divides by the eigenvalues plus the regularisation.",
                next_step="Use a finite regularisation > 0 (e.g. 0.01) and a whole number of "
                "thousands as sample.",
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
        if float(patches.std(axis=0).max()) <= 1e-6:
            raise EncoderError(
                f"All patches of {size} by {size} valid pixels are the same.",
                cause="Pixels differ only where no whole patch is valid, or a single patch is: "
                "filters would be zero, and so would every feature.",
                next_step="Use a smaller patch, GaussianPatches(), or imagery with fewer gaps.",
            )
        mean, matrix = whiten(patches, self.regularisation)
        directions = (patches[:count] - mean) @ matrix
        length = np.linalg.norm(directions, axis=1, keepdims=True)
        filters = (directions / np.maximum(length, 1e-12)) @ matrix
        return filters, -filters @ mean


@dataclass(frozen=True, slots=True)
class GaussianPatches:
    """Filters are Gaussian noise of unit length, on bands of unit variance, without whitening."""

    def draw(
        self,
        images: Float32,
        valid: NDArray[np.bool_],
        *,
        size: int,
        count: int,
        rng: np.random.Generator,
    ) -> tuple[Float64, Float64]:
        """Return filters and zero offsets; of the images only the sd of each band is used.

        A band that does not vary counts as of sd 1.
        """
        pixels = images.transpose(1, 0, 2, 3)[:, valid]
        if pixels.shape[1] == 0:
            raise EncoderError(
                "No coarse pixel of the fitting sample is valid at one of the scales.",
                cause="A coarse pixel is valid where at least half of it is.",
                next_step="Use smaller scales, or imagery with fewer gaps.",
            )
        sd = pixels.std(axis=1, dtype=np.float64)
        filters = rng.standard_normal((count, images.shape[1] * size * size))
        filters /= np.linalg.norm(filters, axis=1, keepdims=True)
        return filters / np.repeat(np.where(sd > 1e-6, sd, 1.0), size * size), np.zeros(count)
