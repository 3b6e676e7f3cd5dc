"""What a card says is done to chips before the network sees them."""

from __future__ import annotations

import torch
import torch.nn.functional as functional

from eocausal.encoders.cards import FixedScaling, ModelCard
from eocausal.encoders.core import Float32, ImageSpec, Scaling

__all__ = ["check_chips", "resize", "scaling_of"]


def check_chips(card: ModelCard, spec: ImageSpec) -> None:
    """Refuse chips that do not fit the card (``ModelCardError``)."""
    card.check(
        bands=spec.bands,
        units=spec.units,
        resolution=spec.resolution,
        height=spec.height,
        width=spec.width,
    )


def scaling_of(card: ModelCard, images: Float32, spec: ImageSpec) -> Scaling:
    """Return mean and sd in the order of the chips' bands: the card's, or those of the sample.

    Raises
    ------
    EncoderError
        If they come from the sample, and it has no valid pixel or does not vary.
    """
    if not isinstance(card.scaling, FixedScaling):
        return Scaling.from_images(images, spec.bands)
    order = [card.bands.index(b) for b in spec.bands]
    return Scaling(
        tuple(card.scaling.mean[i] for i in order), tuple(card.scaling.sd[i] for i in order)
    )


def resize(values: torch.Tensor, size: int | None) -> torch.Tensor:
    """Resize ``(n, band, y, x)`` to squares of ``size`` pixels (bilinear, antialiased)."""
    if size is None or values.shape[-2:] == (size, size):
        return values
    return functional.interpolate(values, (size, size), mode="bilinear", antialias=True)
