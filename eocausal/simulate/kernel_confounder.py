"""Real chips in which the strongest response to a planted kernel confounds.

The simulation of Jerzak, Johansson & Daoud (arXiv 2301.12985; METHODS section 1): the image is real
and what it holds of the confounder is known, because the confounder is computed from it. A kernel
of ones on the anti-diagonal finds streaks; its width against that of the analyst's filters, and
the resolution of the images the analyst has, say how wrong the analyst is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.errors import DesignError, EmptyInputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating]
    Float64 = NDArray[np.float64]

__all__ = [
    "KernelConfounderConfig",
    "anti_diagonal_kernel",
    "coarsen",
    "simulate_kernel_confounder",
    "strongest_response",
]


@dataclass(frozen=True, slots=True)
class KernelConfounderConfig:
    """Decisions behind the world.

    With U the standardised strongest response, ``W ~ Bern(1 / (1 + exp(-(U + e))))`` and
    ``Y = U + effect * W + e'``, e and e' ~ N(0, noise^2).

    Parameters
    ----------
    width
        Side of the kernel in pixels.
    effect
        Of treatment on everyone.
    noise
        Standard deviation of both errors.

    Raises
    ------
    DesignError
        If the numbers make no world.
    """

    width: int = 8
    effect: float = 1.0
    noise: float = 0.1

    def __post_init__(self) -> None:
        if self.width < 1 or not self.noise >= 0:
            raise DesignError(
                f"A kernel of {self.width} pixels and a noise of {self.noise}.",
                cause="A width is at least 1, and a noise is a standard deviation.",
                next_step="Use e.g. KernelConfounderConfig(width=8, noise=0.1).",
            )


def anti_diagonal_kernel(width: int) -> Float64:
    """Return the (width, width) kernel of ones on the anti-diagonal, centred, of unit length."""
    kernel = np.eye(width)[::-1]
    if width > 1:
        kernel = kernel - kernel.mean()
    return np.asarray(kernel / np.linalg.norm(kernel))


def strongest_response(crops: Floats, kernel: Float64) -> Float64:
    """Return the largest response to a kernel over the places where it lies within the crop.

    Parameters
    ----------
    crops
        (n, y, x), or (n, y, x, ...) never: one band.
    kernel
        (k, k).

    Returns
    -------
    (n,) maxima, not standardised.

    Raises
    ------
    DesignError
        If the crops are smaller than the kernel.
    """
    from scipy.signal import fftconvolve

    if crops.ndim != 3 or min(crops.shape[1:]) < len(kernel):
        raise DesignError(
            f"A kernel of {len(kernel)} pixels for crops of shape {crops.shape}.",
            cause="Crops have one band, (n, y, x), and hold the whole kernel somewhere.",
            next_step="Use a narrower kernel or larger crops.",
        )
    flipped = kernel[None, ::-1, ::-1]
    return np.asarray(fftconvolve(crops, flipped, mode="valid", axes=(1, 2)).max(axis=(1, 2)))


def coarsen(crops: Floats, factor: int) -> Floats:
    """Average blocks of ``factor`` by ``factor`` pixels; rows and columns left over are dropped.

    Parameters
    ----------
    crops
        (..., y, x).
    factor
        Side of a block, at least 1 and at most the side of a crop.

    Returns
    -------
    (..., y // factor, x // factor)

    Raises
    ------
    DesignError
        If no block fits.
    """
    *lead, height, width = crops.shape
    if not 1 <= factor <= min(height, width):
        raise DesignError(
            f"Blocks of {factor} pixels for crops of {height} by {width}.",
            cause="A block has at least one pixel and lies within the crop.",
            next_step=f"Use a factor from 1 to {min(height, width)}.",
        )
    rows, columns = height // factor, width // factor
    cut = crops[..., : rows * factor, : columns * factor]
    return np.asarray(cut.reshape(*lead, rows, factor, columns, factor).mean(axis=(-3, -1)))


def simulate_kernel_confounder(
    crops: Floats, config: KernelConfounderConfig, rng: np.random.Generator
) -> pd.DataFrame:
    """Draw treatment and outcome from what a kernel finds in crops.

    Parameters
    ----------
    crops
        (n, y, x) one band of any images, finite; standardised over all of them first.
    config
        The world.
    rng
        Source of every draw.

    Returns
    -------
    pandas.DataFrame
        ``neighborhood`` (number of the crop), ``treated``, ``outcome``; and what no one sees:
        ``confounder`` (mean 0, sd 1), ``propensity``.

    Raises
    ------
    DesignError
        If the crops are smaller than the kernel.
    EmptyInputError
        If all crops respond alike, or some are not finite.
    """
    if not np.isfinite(crops).all() or not np.ptp(crops) > 0:
        raise EmptyInputError(
            "The crops are not finite, or all of one value.",
            cause="The confounder is computed from every pixel.",
            next_step="Leave out or fill crops with missing pixels.",
        )
    standard = (crops - crops.mean(dtype=np.float64)) / crops.std(dtype=np.float64)
    found = strongest_response(standard, anti_diagonal_kernel(config.width))
    if not found.std() > 1e-9:
        raise EmptyInputError(
            "All crops respond to the kernel alike.",
            cause="Then nothing in them confounds.",
            next_step="Give different crops.",
        )
    u = (found - found.mean()) / found.std()
    n = len(u)
    propensity = 1 / (1 + np.exp(-(u + config.noise * rng.standard_normal(n))))
    treated = (rng.random(n) < propensity).astype(np.int64)
    outcome = u + config.effect * treated + config.noise * rng.standard_normal(n)
    return pd.DataFrame(
        {
            "neighborhood": np.arange(n),
            "treated": treated,
            "outcome": outcome,
            "confounder": u,
            "propensity": propensity,
        },
        index=pd.RangeIndex(n, name="unit"),
    )
