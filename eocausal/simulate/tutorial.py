"""The dual-confounder tutorial: one confounder is in the pixels only, two are in the table.

The design of METHODS section 1, after the tutorial of the R package causalimages (Jerzak, Johansson
& Daoud, arXiv 2310.00233): the level of an image's red channel is a confounder that no table has.
What that text leaves open (how random the other channels are, how steep the gradient) is decided
here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.errors import DesignError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BANDS", "TutorialConfig", "TutorialWorld", "simulate_tutorial"]

BANDS = ("red", "green", "blue")


@dataclass(frozen=True, slots=True)
class TutorialConfig:
    """Decisions behind the world.

    C, X1, X2 ~ N(0, 1); ``W ~ Bern(1 / (1 + exp(-(C + X1 + X2))))``;
    ``Y = effect * W + C + X1 + X2 + noise * N(0, 1)``.

    Parameters
    ----------
    n
        Units, one image each.
    size
        Side of an image in pixels.
    effect
        Of treatment on everyone.
    noise
        Standard deviation of the outcome's error.
    gradient
        Rise of every channel from the first row to the last; the red channel's level, C scaled to
        0..1 over the sample, has range 1.

    Raises
    ------
    DesignError
        If the numbers make no world.
    """

    n: int = 1000
    size: int = 64
    effect: float = 2.0
    noise: float = 1.0
    gradient: float = 0.2

    def __post_init__(self) -> None:
        if self.n < 4 or self.size < 2 or not self.noise >= 0:
            raise DesignError(
                f"A world of n={self.n}, size={self.size}, noise={self.noise}.",
                cause="It has a few units, images of some pixels, and a noise that is a sd.",
                next_step="Correct these fields of TutorialConfig.",
            )


@dataclass(frozen=True, slots=True, eq=False)
class TutorialWorld:
    """One draw of the world.

    Attributes
    ----------
    images
        (n, 3, y, x), red, green, blue.
    units
        ``neighborhood``, ``treated``, ``outcome``, ``x1``, ``x2``; and what no one sees:
        ``confounder``, ``propensity``.
    """

    config: TutorialConfig
    images: NDArray[np.float32]
    units: pd.DataFrame


def simulate_tutorial(config: TutorialConfig, rng: np.random.Generator) -> TutorialWorld:
    """Draw units and their images.

    Parameters
    ----------
    config
        The world.
    rng
        Source of every draw.
    """
    n = config.n
    c, x1, x2 = rng.standard_normal((3, n))
    propensity = 1 / (1 + np.exp(-(c + x1 + x2)))
    treated = (rng.random(n) < propensity).astype(np.int64)
    outcome = config.effect * treated + c + x1 + x2 + config.noise * rng.standard_normal(n)
    units = pd.DataFrame(
        {
            "neighborhood": np.arange(n),
            "treated": treated,
            "outcome": outcome,
            "x1": x1,
            "x2": x2,
            "confounder": c,
            "propensity": propensity,
        },
        index=pd.RangeIndex(n, name="unit"),
    )
    return TutorialWorld(config, _images(config, c, rng), units)


def _images(
    config: TutorialConfig, c: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Paint C as the level of red; green and blue are noise around a level of their own."""
    images = rng.random((config.n, len(BANDS), config.size, config.size), dtype=np.float32)
    images[:, 1:] *= 0.5
    images[:, 1:] += 0.5 * rng.random((config.n, 2, 1, 1), dtype=np.float32)
    images[:, 0] = ((c - c.min()) / np.ptp(c)).astype(np.float32)[:, None, None]
    images += np.linspace(0, config.gradient, config.size, dtype=np.float32)[:, None]
    return images
