"""The golden vector of a card: the features that a seeded input must give."""

from __future__ import annotations

import numpy as np

from eocausal.encoders.cards import FixedScaling, ModelCard
from eocausal.encoders.core import Encoder, Float32, ImageSpec
from eocausal.errors import ModelCardError

__all__ = ["check_golden", "golden_features"]

_CHIPS = 8
_BANDS = ("red", "green", "blue")


def golden_features(encoder: Encoder, card: ModelCard, *, seed: int, size: int) -> Float32:
    """Encode the seeded chip of a card; the first eight features.

    The input is ``numpy.random.default_rng(seed).standard_normal((8, band, size, size))``, taken to
    the card's units where its scaling is fixed, with bands red, green, blue where it takes any.

    Raises
    ------
    ModelCardError
        If there are not as many features as the card states.
    """
    bands = _BANDS if card.bands == "any" else card.bands
    images = np.random.default_rng(seed).standard_normal((_CHIPS, len(bands), size, size))
    if isinstance(card.scaling, FixedScaling):
        per_band = (1, -1, 1, 1)
        mean, sd = np.reshape(card.scaling.mean, per_band), np.reshape(card.scaling.sd, per_band)
        images = images * sd + mean
    distance = card.ground_sampling_distance_m
    resolution = 30.0 if distance == "any" else distance.min
    spec = ImageSpec(bands, card.units, resolution, size, size)
    fitted = encoder.fit(images.astype(np.float32), spec, seed=seed)
    if fitted.n_features != card.features:
        raise ModelCardError(
            f"The model {card.name} states {card.features} features.",
            cause=f"It gives {fitted.n_features} for the bands {', '.join(bands)}.",
            next_step=f"Write features: {fitted.n_features} in the card.",
        )
    return fitted.transform(images[:1].astype(np.float32))[0, :8]


def check_golden(encoder: Encoder, card: ModelCard) -> None:
    """Compare with the card's golden vector, if it has one.

    Raises
    ------
    ModelCardError
        If a feature differs by more than the tolerance, relative to the largest of the eight.
    """
    if card.golden is None:
        return
    expected = np.array(card.golden.first8)
    found = golden_features(encoder, card, seed=card.golden.seed, size=card.golden.size)
    difference = float(np.max(np.abs(found - expected)) / np.max(np.abs(expected)))
    if not difference <= card.golden.tolerance:
        raise ModelCardError(
            f"The model {card.name} gives other features than its card says: the golden vector "
            f"differs by {difference:.2g}, more than {card.golden.tolerance:g}.",
            cause="The weights, the code or the version of torch are not those of the card; "
            f"found [{', '.join(f'{v:.6g}' for v in found)}].",
            next_step="Restore the weights file and the versions in constraints.txt, or make a "
            "card of your own with a new golden vector.",
        )
