"""Encoders by the name of their model card."""

from __future__ import annotations

from pathlib import Path

from eocausal.encoders.cards import load_card
from eocausal.encoders.core import Encoder
from eocausal.encoders.golden import check_golden
from eocausal.encoders.image import TorchvisionCNN
from eocausal.encoders.random_conv import GaussianPatches, RandomConv, SampledPatches
from eocausal.errors import ModelCardError

__all__ = ["load_encoder"]

_PATCHES = {"sampled": SampledPatches, "gaussian": GaussianPatches}


def load_encoder(card: str | Path, weights: Path | str | None = None) -> Encoder:
    """Make the encoder that a model card describes and check its golden vector.

    Parameters
    ----------
    card
        Name of a card (``str``) or its folder (``Path``).
    weights
        Path of the weights file, where the card names one.

    Raises
    ------
    ModelCardError, WeightsError
    """
    found = load_card(card)
    if found.family == "torchvision":
        return TorchvisionCNN.from_card(card, weights)
    parameters = dict(found.parameters)
    patches = parameters.pop("patches", "sampled")
    try:
        patch = parameters.pop("patch", 3)
        encoder = RandomConv(
            features=found.features,
            patch=tuple(patch) if isinstance(patch, list) else patch,
            patches=_PATCHES[patches](),
            **parameters,
        )
    except (KeyError, TypeError) as error:
        raise ModelCardError(
            f"The parameters of the model {found.name} are {found.parameters}.",
            cause="random_conv takes patch, patches (sampled or gaussian), bias and stride.",
            next_step="Correct them in the card.",
        ) from error
    check_golden(encoder, found)
    return encoder
