"""Networks of torchvision without their heads: built, given weights, run on chips.

The features are those before the last linear layer. Convolutional networks and the Swin
transformer average them over the chip; a vision transformer gives its class token.
"""

from __future__ import annotations

from collections import OrderedDict

import torch

from eocausal.encoders.card_input import resize
from eocausal.encoders.cards import ModelCard
from eocausal.encoders.key_maps import State
from eocausal.encoders.stems import replace_module, stem_of, with_channels
from eocausal.encoders.torchvision_import import import_torchvision
from eocausal.errors import ModelCardError, WeightsError

__all__ = ["CardFeatures", "headless_network", "load_state"]

_FAMILIES = (
    "convnext", "densenet", "efficientnet", "mobilenet_v3", "regnet", "resnet", "resnext",
    "shufflenet", "swin", "vit", "wide_resnet",
)  # fmt: skip
_HEADS = ("classifier.", "fc.", "head.", "heads.")
_POSITIONS = "encoder.pos_embedding"


class CardFeatures(torch.nn.Module):
    """Resize if the card says so, then run the network; gaps are the band mean already."""

    def __init__(
        self, network: torch.nn.Module, input_size: int | None, *, channels_last: bool
    ) -> None:
        super().__init__()
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(memory_format=self.format)  # type: ignore[call-overload]
        self.input_size = input_size

    def forward(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Encode ``(n, band, y, x)``; the mask is not used."""
        values = resize(values, self.input_size)
        features: torch.Tensor = self.network(values.contiguous(memory_format=self.format))
        return features


def headless_network(card: ModelCard, bands: int) -> torch.nn.Module:
    """Build the card's architecture with ``bands`` input channels and no head.

    Its weights are drawn from torch's global generator.

    Raises
    ------
    ModelCardError
        If torchvision has no such network, or the card states another number of features.
    """
    network = _architecture(card)
    stem = stem_of(network)
    if bands != stem.in_channels:
        replace_module(network, stem, with_channels(stem, bands))
    head = [m for m in network.modules() if isinstance(m, torch.nn.Linear)][-1]
    if head.in_features != card.features:
        raise ModelCardError(
            f"The model {card.name} states {card.features} features.",
            cause=f"{card.architecture} has {head.in_features} before its last layer.",
            next_step=f"Write features: {head.in_features} in the card.",
        )
    replace_module(network, head, torch.nn.Identity())
    return network


def _architecture(card: ModelCard) -> torch.nn.Module:
    if not card.architecture.startswith(_FAMILIES):
        raise ModelCardError(
            f"The model {card.name} has the architecture {card.architecture!r}.",
            cause=f"Features are taken from {', '.join(_FAMILIES)} networks of torchvision.",
            next_step="Name one of these, e.g. resnet18.",
        )
    size = {}
    if card.architecture.startswith("vit"):
        if card.input_size is None:
            raise ModelCardError(
                f"The model {card.name} has no input_size.",
                cause="A vision transformer has one position embedding for each patch, so it "
                "takes chips of one size.",
                next_step="Write input_size: 224 in the card (another size interpolates the "
                "embeddings); chips are resized to it.",
            )
        size = {"image_size": card.input_size}
    models = import_torchvision().models
    try:
        network: torch.nn.Module = models.get_model(card.architecture, weights=None, **size)
    except ValueError as error:
        raise ModelCardError(
            f"torchvision has no architecture {card.architecture!r}.",
            cause=str(error),
            next_step="See torchvision.models.list_models().",
        ) from error
    except AssertionError as error:
        raise ModelCardError(
            f"{card.architecture} does not take input_size {card.input_size}.",
            cause=str(error),
            next_step="Write a multiple of the patch size, e.g. 224.",
        ) from error
    return network


def load_state(network: torch.nn.Module, state: State, card: ModelCard) -> None:
    """Fill in the weights; only those of the head, which is not used, may be left over.

    Position embeddings of a vision transformer for another image size are interpolated as
    torchvision does it (bicubic).

    Raises
    ------
    WeightsError
        If tensors are missing, left over, have another shape, or are not finite.
    """
    wanted = network.state_dict()
    tensors = _positions(network, state, wanted)
    wrong = {
        k: f"{k} is {tuple(v.shape)}, not {tuple(wanted[k].shape)}"
        for k, v in tensors.items()
        if k in wanted and v.shape != wanted[k].shape
    }
    broken = [k for k, v in tensors.items() if k in wanted and not bool(v.isfinite().all())]
    if broken:
        raise WeightsError(
            f"{len(broken)} tensors of the weights file hold NaN or infinite values.",
            cause=f"Features would be NaN; the first of these tensors is {broken[0]}.",
            next_step="Use a checkpoint from before the training diverged.",
        )
    found = network.load_state_dict({k: v for k, v in tensors.items() if k not in wrong}, False)
    missing = [k for k in found.missing_keys if k not in wrong]
    left = [k for k in found.unexpected_keys if not k.startswith(_HEADS)]
    if missing or wrong or left:
        raise WeightsError(
            f"The weights file does not fit {card.architecture} with {len(card.bands)} bands: "
            f"{len(missing)} tensors missing, {len(wrong)} of another shape, "
            f"{len(left)} left over.",
            cause="; ".join(
                [f"missing {k}" for k in missing[:3]]
                + list(wrong.values())[:3]
                + [f"left over {k}" for k in left[:3]]
            )
            + ".",
            next_step="Use the file that the card names, or correct the card's architecture, "
            "bands, prefix or key_map.",
        )


def _positions(network: torch.nn.Module, state: State, wanted: State) -> State:
    """Fit position embeddings ``(1, 1 + patches, width)`` to the network's number of patches."""
    if _POSITIONS not in wanted or _POSITIONS not in state:
        return state
    theirs, ours = state[_POSITIONS], wanted[_POSITIONS]
    sides = [round((t.shape[1] - 1) ** 0.5) for t in (theirs, ours)]
    if theirs.shape == ours.shape or theirs.dim() != 3 or sides[0] ** 2 + 1 != theirs.shape[1]:
        return state
    from torchvision.models.vision_transformer import interpolate_embeddings

    patch = stem_of(network).kernel_size[0]
    fitted: State = interpolate_embeddings(sides[1] * int(patch), int(patch), OrderedDict(state))
    return fitted
