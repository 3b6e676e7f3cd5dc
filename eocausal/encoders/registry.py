"""Encoders by the name of their model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from eocausal.encoders.cards import ModelCard, load_card
from eocausal.encoders.core import Encoder
from eocausal.encoders.golden import check_golden
from eocausal.encoders.image import TorchvisionCNN
from eocausal.encoders.random_conv import GaussianPatches, RandomConv, SampledPatches
from eocausal.encoders.spectral import SpectralStats
from eocausal.encoders.spectral_indices import KNOWN
from eocausal.encoders.texture import Texture
from eocausal.encoders.torchscript import ScriptedNetwork
from eocausal.encoders.weights import find_weights
from eocausal.errors import ModelCardError

__all__ = ["load_encoder"]

_PATCHES = {"sampled": SampledPatches, "gaussian": GaussianPatches}


def _tuples(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in parameters.items()}


def _random_conv(card: ModelCard) -> Encoder:
    parameters = _tuples(card.parameters)
    patches = _PATCHES[parameters.pop("patches", "sampled")]()
    return RandomConv(features=card.features, patches=patches, **parameters)


def _spectral_stats(card: ModelCard) -> Encoder:
    parameters = _tuples(card.parameters)
    known = {index.name: index for index in KNOWN}
    if parameters.get("indices") is not None:
        parameters["indices"] = tuple(known[name] for name in parameters["indices"])
    if parameters.get("texture") is not None:
        parameters["texture"] = Texture(**_tuples(parameters["texture"]))
    return SpectralStats(**parameters)


_WITH_FILES: Mapping[str, Callable[[str | Path, Path | str | None], Encoder]] = {
    "torchvision": TorchvisionCNN.from_card,
    "torchscript": ScriptedNetwork.from_card,
}
_OF_PARAMETERS: Mapping[str, tuple[Callable[[ModelCard], Encoder], str]] = {
    "random_conv": (_random_conv, "patch, patches (sampled or gaussian), bias, stride and scales"),
    "spectral_stats": (
        _spectral_stats,
        f"quantiles, indices (names among {', '.join(index.name for index in KNOWN)}) and "
        "texture (levels and distances)",
    ),
}


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
    if found.family in _WITH_FILES:
        return _WITH_FILES[found.family](card, weights)
    find_weights(found, weights)
    make, parameters = _OF_PARAMETERS[found.family]
    try:
        encoder = make(found)
    except (AttributeError, KeyError, TypeError) as error:
        raise ModelCardError(
            f"The parameters of the model {found.name} are {found.parameters}.",
            cause=f"{found.family} takes {parameters}.",
            next_step="Correct them in the card.",
        ) from error
    least = encoder.minimum_pixels if isinstance(encoder, RandomConv) else 1
    if found.minimum_pixels > least:
        raise ModelCardError(
            f"The model {found.name} states minimum_pixels: {found.minimum_pixels}.",
            cause=f"{found.family} with these parameters takes chips from {least} pixels on.",
            next_step=f"Write minimum_pixels: {least} in the card.",
        )
    check_golden(encoder, found)
    return encoder
