"""Training without labels: two changed views of a chip are to be told as one place.

No label enters, so that one network serves all folds.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as functional

from eocausal.encoders.augment import (
    Augmentation,
    BandJitter,
    Crop,
    FlipsAndTurns,
    HiddenSquares,
)
from eocausal.encoders.initial_weights import untouched_seeds
from eocausal.encoders.objectives import Float64, Labels, Targets, TrainingHead, seeded
from eocausal.errors import EncoderError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BYOL", "SATELLITE_VIEW", "SimCLR", "nt_xent"]

SATELLITE_VIEW: tuple[Augmentation, ...] = (
    FlipsAndTurns(),
    Crop(),
    HiddenSquares(),
    BandJitter(),
)


def nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the normalised temperature-scaled cross-entropy of Chen et al. 2020, eq. 1.

    Parameters
    ----------
    first, second
        ``(n, d)``: row i of both stands for the same chip; every other row is a negative.
    temperature
        Of the cosines.
    """
    both = functional.normalize(torch.cat([first, second]), dim=1)
    cosines = both @ both.T / temperature
    itself = torch.eye(len(both), dtype=torch.bool, device=both.device)
    n = len(first)
    partner = torch.arange(2 * n, device=both.device).roll(n)
    return functional.cross_entropy(cosines.masked_fill(itself, -torch.inf), partner)


class _WithoutLabels:
    """What objectives share that need no labels."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """Id string."""
        return repr(self)

    @property
    def columns(self) -> tuple[str, ...]:
        """No label is used."""
        return ()

    def quantities(self, units: pd.DataFrame) -> Float64:
        """Return nothing, ``(units, 0)``."""
        return np.empty((len(units), 0))

    def check(self, labels: Labels, where: str) -> None:
        """Accept anything."""


@dataclass(frozen=True, slots=True)
class SimCLR(_WithoutLabels):
    """Contrast: two views of a chip are near each other, views of other chips are not.

    Chen et al. 2020, "A simple framework for contrastive learning" (arXiv 2002.05709). Every
    other chip of the batch is a negative, so that batches of 64 and more are of use.

    Parameters
    ----------
    temperature
        Of the cosines.
    augmentations
        How each of the two views is changed. They decide what is forgotten: with
        :class:`BandJitter` small differences of brightness, with :class:`Crop` where things lie.
    width
        Of the projection's hidden layer and output; the projection is dropped after training.
    """

    temperature: float = 0.2
    augmentations: tuple[Augmentation, ...] = SATELLITE_VIEW
    width: int = 128

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and self.width >= 1):
            raise EncoderError(
                f"temperature={self.temperature}, width={self.width}.",
                cause="Cosines are divided by a positive temperature, and a layer has a unit.",
                next_step="Use temperature=0.2, width=128.",
            )

    @property
    def views(self) -> tuple[tuple[Augmentation, ...], ...]:
        """Two views, changed alike."""
        return (self.augmentations, self.augmentations)

    def head(self, n_features: int, *, seed: int) -> TrainingHead:
        """Build the projection."""
        head = untouched_seeds(lambda: _SimCLRHead(n_features, self))
        return seeded(head, (), seed)


class _SimCLRHead(TrainingHead):
    def __init__(self, n_features: int, decision: SimCLR) -> None:
        super().__init__()
        self.temperature = decision.temperature
        self.projection = torch.nn.Sequential(
            torch.nn.Linear(n_features, decision.width),
            torch.nn.ReLU(),
            torch.nn.Linear(decision.width, decision.width, bias=False),
        )

    def loss(
        self, features: torch.Tensor, targets: Targets | None, anchors: torch.Tensor | None
    ) -> torch.Tensor:
        return nt_xent(self.projection(features[0]), self.projection(features[1]), self.temperature)


@dataclass(frozen=True, slots=True)
class BYOL(_WithoutLabels):
    """Prediction: from one view of a chip what a slowly following network says of the other.

    Grill et al. 2020, "Bootstrap your own latent" (arXiv 2006.07733), eq. 2; needs no negatives,
    so small batches do.

    Parameters
    ----------
    momentum
        Share of the following network that each step keeps.
    augmentations
        How each of the two views is changed.
    width
        Of projection and prediction, which are dropped after training.
    """

    momentum: float = 0.99
    augmentations: tuple[Augmentation, ...] = SATELLITE_VIEW
    width: int = 128

    def __post_init__(self) -> None:
        if not (0 <= self.momentum < 1 and self.width >= 1):
            raise EncoderError(
                f"momentum={self.momentum}, width={self.width}.",
                cause="The following network keeps a share below 1 of itself.",
                next_step="Use momentum=0.99, width=128.",
            )

    @property
    def views(self) -> tuple[tuple[Augmentation, ...], ...]:
        """Two views, changed alike."""
        return (self.augmentations, self.augmentations)

    def head(self, n_features: int, *, seed: int) -> TrainingHead:
        """Build projection and prediction."""
        head = untouched_seeds(lambda: _BYOLHead(n_features, self))
        return seeded(head, (), seed)


def _perceptron(inputs: int, width: int) -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.Linear(inputs, width),
        torch.nn.BatchNorm1d(width),
        torch.nn.ReLU(),
        torch.nn.Linear(width, width, bias=False),
    )


class _BYOLHead(TrainingHead):
    def __init__(self, n_features: int, decision: BYOL) -> None:
        super().__init__()
        self.momentum = decision.momentum
        self.projection = _perceptron(n_features, decision.width)
        self.prediction = _perceptron(decision.width, decision.width)

    def begin(self, network: torch.nn.Module, labels: Labels | None) -> None:
        self.slow_network = copy.deepcopy(network).requires_grad_(False)
        self.slow_projection = copy.deepcopy(self.projection).requires_grad_(False)

    def anchors(self, encode: Callable[[torch.nn.Module], torch.Tensor]) -> torch.Tensor | None:
        with torch.no_grad():
            views = encode(self.slow_network)
            return torch.stack([self.slow_projection(view) for view in views])

    def loss(
        self, features: torch.Tensor, targets: Targets | None, anchors: torch.Tensor | None
    ) -> torch.Tensor:
        assert anchors is not None
        cosines = [
            functional.cosine_similarity(self.prediction(self.projection(own)), other, dim=1)
            for own, other in zip(features, anchors.flip(0), strict=True)
        ]
        return (2.0 - 2.0 * torch.stack(cosines)).mean(dim=1).sum()

    def follow(self, network: torch.nn.Module) -> None:
        with torch.no_grad():
            for slow, fast in (
                (self.slow_network, network),
                (self.slow_projection, self.projection),
            ):
                for old, new in zip(slow.parameters(), fast.parameters(), strict=True):
                    old.lerp_(new, 1.0 - self.momentum)
