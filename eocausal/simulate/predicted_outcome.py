"""Outcomes that a map predicts: effects on predictions are attenuated.

The design of Pettersson, Jerzak & Daoud (arXiv 2508.01341, section on simulations): one confounder,
images that are a frozen random network of the outcome plus noise, a map trained on other places.
Here the map is a ridge regression on the features (theirs is a second network), and the noise of
images is added to the features. With ``overlooked`` images are taken after treatment and do not
show all of its effect, so that predictions err differently in the arms (METHODS section 9).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.errors import DesignError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "FrozenNetwork",
    "PredictedOutcomeConfig",
    "PredictedOutcomeWorld",
    "simulate_predicted_outcome",
]

PENALTY = 10.0
"""Of the ridge regression on standardised features: enough to invert, too little to shrink."""


@dataclass(frozen=True, slots=True)
class PredictedOutcomeConfig:
    """Decisions behind the world.

    C ~ N(0, 1); ``W ~ Bern(1 / (1 + exp(-C)))``; Y = effect · W + C + N(0, 1); features =
    network(Y - overlooked · effect · W) + N(0, noise²); the map is fitted on ``trained`` other
    places where images overlook nothing.

    Parameters
    ----------
    n
        Units of the study.
    effect
        Of treatment on everyone.
    overlooked
        Share of the effect that images of treated units do not show.
    noise
        Standard deviation of the noise of each feature.
    features, hidden, layers
        Width of the network's output and inner layers, and number of layers; weights and biases
        are uniform within ±1/√(inputs).
    network
        Seed of the network. How far the map shrinks is a matter of this draw: slopes of prediction
        on outcome are 0.39 to 0.72 for seeds 0 to 29, and by default about that of the paper.
    trained, calibrated
        Other places that the map is fitted on, and still others with predictions and outcomes.

    Raises
    ------
    DesignError
        If the numbers make no world.
    """

    n: int = 10_000
    effect: float = 1.0
    overlooked: float = 0.0
    noise: float = 0.3
    features: int = 100
    hidden: int = 50
    layers: int = 4
    network: int = 26
    trained: int = 10_000
    calibrated: int = 2_000

    def __post_init__(self) -> None:
        sizes = (self.features, self.hidden, self.trained, self.calibrated)
        if self.n < 4 or min(sizes) < 1 or self.layers < 1 or not self.noise >= 0:
            raise DesignError(
                f"A world of n={self.n}, layers={self.layers}, noise={self.noise} and sizes "
                f"{sizes}.",
                cause="It has a few units, a network with layers, a map with places to learn from, "
                "and a noise that is a sd.",
                next_step="Correct these fields of PredictedOutcomeConfig.",
            )


@dataclass(frozen=True, slots=True, eq=False)
class PredictedOutcomeWorld:
    """One draw of the world.

    Attributes
    ----------
    units
        The study: ``confounder``, ``treated``, ``outcome``, ``prediction``, and ``propensity``,
        which no one sees.
    calibration
        Other places with ``prediction`` and ``outcome``.
    """

    config: PredictedOutcomeConfig
    units: pd.DataFrame
    calibration: pd.DataFrame


@dataclass(frozen=True, slots=True, eq=False)
class FrozenNetwork:
    """A random network with rectified inner layers, from one number to many features."""

    layers: tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...]

    @classmethod
    def of(cls, config: PredictedOutcomeConfig) -> FrozenNetwork:
        """Draw weights and biases with the seed ``config.network``."""
        rng = np.random.default_rng(config.network)
        sizes = [1, *[config.hidden] * (config.layers - 1), config.features]
        drawn = []
        for before, after in pairwise(sizes):
            reach = before**-0.5
            drawn.append(
                (rng.uniform(-reach, reach, (before, after)), rng.uniform(-reach, reach, after))
            )
        return cls(tuple(drawn))

    def __call__(self, shown: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n, features) of (n,) numbers."""
        out = shown[:, None]
        for k, (weight, bias) in enumerate(self.layers):
            out = (out if k == 0 else np.maximum(out, 0)) @ weight + bias
        return out


def simulate_predicted_outcome(
    config: PredictedOutcomeConfig, rng: np.random.Generator
) -> PredictedOutcomeWorld:
    """Draw places to train the map on, places to calibrate it, and a study that it predicts.

    Parameters
    ----------
    config
        The world.
    rng
        Source of every draw but the network's.
    """
    network = FrozenNetwork.of(config)

    def images(shown: NDArray[np.float64]) -> NDArray[np.float64]:
        features = network(shown)
        return features + config.noise * rng.standard_normal(features.shape)

    outcome = _places(config, config.trained, rng)["outcome"].to_numpy()
    predict = _Map.of(images(outcome), outcome)
    calibration = _places(config, config.calibrated, rng)[["outcome"]]
    calibration["prediction"] = predict(images(calibration["outcome"].to_numpy()))
    units = _places(config, config.n, rng)
    hidden = config.overlooked * config.effect * units["treated"].to_numpy()
    units["prediction"] = predict(images(units["outcome"].to_numpy() - hidden))
    units.index.name = "unit"
    labels = [f"elsewhere {k}" for k in range(config.calibrated)]
    return PredictedOutcomeWorld(config, units, calibration.set_axis(labels))


def _places(config: PredictedOutcomeConfig, n: int, rng: np.random.Generator) -> pd.DataFrame:
    confounder = rng.standard_normal(n)
    propensity = 1 / (1 + np.exp(-confounder))
    treated = (rng.random(n) < propensity).astype(np.int64)
    outcome = config.effect * treated + confounder + rng.standard_normal(n)
    return pd.DataFrame(
        {
            "confounder": confounder,
            "treated": treated,
            "outcome": outcome,
            "propensity": propensity,
        }
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Map:
    """A ridge regression on standardised features."""

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    level: float
    slope: NDArray[np.float64]

    @classmethod
    def of(cls, features: NDArray[np.float64], outcome: NDArray[np.float64]) -> _Map:
        mean, spread = features.mean(axis=0), features.std(axis=0)
        spread = np.where(spread > 0, spread, 1.0)
        z, level = (features - mean) / spread, float(outcome.mean())
        square = z.T @ z + PENALTY * np.eye(z.shape[1])
        return cls(mean, spread, level, np.linalg.solve(square, z.T @ (outcome - level)))

    def __call__(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.level + (features - self.mean) / self.spread @ self.slope
