"""Torchvision networks by model card, for any number of bands.

The features are those before the last linear layer, averaged over the chip by the network itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as functional

from eocausal.encoders.cards import FixedScaling, ModelCard, load_card
from eocausal.encoders.core import FittedEncoder, Float32, ImageSpec, Scaling
from eocausal.encoders.golden import check_golden
from eocausal.encoders.torchvision_import import import_torchvision
from eocausal.encoders.weights import State, find_weights, read_weights
from eocausal.errors import ModelCardError, WeightsError

__all__ = ["TorchvisionCNN", "inflate_stem"]

_FAMILIES = (
    "convnext", "densenet", "efficientnet", "mobilenet_v3", "regnet", "resnet", "resnext",
    "shufflenet", "swin", "wide_resnet",
)  # fmt: skip


def inflate_stem(
    weight: torch.Tensor, own: tuple[str, ...], bands: tuple[str, ...]
) -> torch.Tensor:
    """Carry the filters of a first layer over to other bands, by name.

    A band of ``bands`` that the layer knows gets that band's filter, any other the mean filter;
    all are multiplied by ``len(own) / len(bands)``; what then still lacks to the sum over bands
    of the original is shared equally. So the sum over bands is kept exactly (equal values in
    all bands give the same response as before), and if every known band is there the last step
    does nothing.

    Parameters
    ----------
    weight
        ``(filter, len(own), y, x)``.
    own
        Names of the bands of ``weight``, in order.
    bands
        Names wanted, in order.

    Returns
    -------
    torch.Tensor
        ``(filter, len(bands), y, x)``.
    """
    if own == bands:
        return weight
    mean = weight.mean(dim=1)
    chosen = [weight[:, own.index(b)] if b in own else mean for b in bands]
    inflated = torch.stack(chosen, dim=1) * (len(own) / len(bands))
    lacking = weight.sum(dim=1) - inflated.sum(dim=1)
    return inflated + lacking[:, None] / len(bands)


@dataclass(frozen=True, slots=True)
class TorchvisionCNN:
    """A torchvision network described by a model card; make one with :meth:`from_card`.

    Parameters
    ----------
    card
        The model card.
    weights
        Path of the weights file, if the card names one.
    channels_last
        Lay tensors out by pixel rather than by channel (faster on most processors).
    """

    card: ModelCard
    weights: Path | None = None
    channels_last: bool = True

    @classmethod
    def from_card(cls, card: str | Path, weights: Path | str | None = None) -> Self:
        """Read a card, check the weights' checksum and the golden vector.

        Parameters
        ----------
        card
            Name of a card (``str``) or its folder (``Path``).
        weights
            Path of the weights file that the card names; without it the file is looked for
            beside the card.

        Raises
        ------
        ModelCardError
            If the card is wrong, or the golden vector differs.
        WeightsError
            If the file is missing, or has another checksum or other tensors.
        """
        found = load_card(card)
        if found.family != "torchvision":
            raise ModelCardError(
                f"The model {found.name} is of the family {found.family!r}.",
                cause="Only torchvision networks are made here.",
                next_step="Use eocausal.encoders.registry.load_encoder.",
            )
        folder = card if isinstance(card, Path) else None
        encoder = cls(found, find_weights(found, weights, folder))
        encoder._state()
        check_golden(encoder, found)
        return encoder

    @property
    def name(self) -> str:
        """Id string."""
        return self.card.name

    def check(self, spec: ImageSpec) -> None:
        """Refuse chips that do not fit the card (``ModelCardError``)."""
        self.card.check(
            bands=spec.bands,
            units=spec.units,
            resolution=spec.resolution,
            pixels=min(spec.height, spec.width),
        )

    def fit(self, images: Float32, spec: ImageSpec, *, seed: int) -> FittedEncoder:
        """Build the network for these bands; take mean and sd from the sample if the card says so.

        Without weights the convolutions and linear layers are drawn by ``seed``: He et al. 2015,
        eq. 10 (normal, variance 2 / fan-in).
        """
        self.check(spec)
        if isinstance(self.card.scaling, FixedScaling):
            scaling = _by_name(self.card.scaling, self.card.bands, spec.bands)
        else:
            scaling = Scaling.from_images(images, spec.bands)
        state, sha256 = self._state()
        own = spec.bands if self.card.bands == "any" else self.card.bands
        network = _build(self.card, len(own))
        if state is None:
            _initialise(network, seed)
        else:
            _load(network, state, self.card)
        stem = _stem(network)
        _replace(network, stem, _inflated(stem, own, spec.bands))
        module = _Features(network, self.card.input_size, self.channels_last).eval()
        return FittedEncoder(
            name=self.name if state is not None else f"{self.name}, random weights, seed={seed}",
            spec=spec,
            scaling=scaling,
            network=module.requires_grad_(False),
            n_features=self.card.features,
            weights_sha256=sha256,
            minimum_pixels=self.card.minimum_pixels,
        )

    def _state(self) -> tuple[State | None, str]:
        if self.card.weights is None or self.weights is None:
            return None, ""
        return read_weights(self.weights, self.card.weights)


class _Features(torch.nn.Module):
    """Resize if the card says so, then run the network; gaps are the band mean already."""

    def __init__(
        self, network: torch.nn.Module, input_size: int | None, channels_last: bool
    ) -> None:
        super().__init__()
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(memory_format=self.format)  # type: ignore[call-overload]
        self.input_size = input_size

    def forward(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Encode ``(n, band, y, x)``; the mask is not used."""
        if self.input_size is not None:
            size = (self.input_size, self.input_size)
            values = functional.interpolate(values, size, mode="bilinear", antialias=True)
        features: torch.Tensor = self.network(values.contiguous(memory_format=self.format))
        return features


def _by_name(scaling: FixedScaling, own: str | tuple[str, ...], bands: tuple[str, ...]) -> Scaling:
    order = [own.index(b) for b in bands]
    return Scaling(tuple(scaling.mean[i] for i in order), tuple(scaling.sd[i] for i in order))


def _build(card: ModelCard, bands: int) -> torch.nn.Module:
    """Build the architecture with ``bands`` input channels and no head; global seeds untouched."""
    if not card.architecture.startswith(_FAMILIES):
        raise ModelCardError(
            f"The model {card.name} has the architecture {card.architecture!r}.",
            cause=f"Features are taken from {', '.join(_FAMILIES)} networks of torchvision.",
            next_step="Name one of these, e.g. resnet18.",
        )
    models = import_torchvision().models
    with torch.random.fork_rng(devices=[]):
        try:
            network: torch.nn.Module = models.get_model(card.architecture, weights=None)
        except ValueError as error:
            raise ModelCardError(
                f"torchvision has no architecture {card.architecture!r}.",
                cause=str(error),
                next_step="See torchvision.models.list_models().",
            ) from error
        stem = _stem(network)
        if bands != stem.in_channels:
            _replace(network, stem, _with_channels(stem, bands))
    head = [m for m in network.modules() if isinstance(m, torch.nn.Linear)][-1]
    if head.in_features != card.features:
        raise ModelCardError(
            f"The model {card.name} states {card.features} features.",
            cause=f"{card.architecture} has {head.in_features} before its last layer.",
            next_step=f"Write features: {head.in_features} in the card.",
        )
    _replace(network, head, torch.nn.Identity())
    return network


def _stem(network: torch.nn.Module) -> torch.nn.Conv2d:
    return next(m for m in network.modules() if isinstance(m, torch.nn.Conv2d))


def _replace(network: torch.nn.Module, old: torch.nn.Module, new: torch.nn.Module) -> None:
    path = next(name for name, module in network.named_modules() if module is old)
    parent, _, last = path.rpartition(".")
    setattr(network.get_submodule(parent), last, new)


def _with_channels(stem: torch.nn.Conv2d, channels: int) -> torch.nn.Conv2d:
    return torch.nn.Conv2d(
        channels,
        stem.out_channels,
        stem.kernel_size,  # type: ignore[arg-type]
        stride=stem.stride,  # type: ignore[arg-type]
        padding=stem.padding,  # type: ignore[arg-type]
        bias=stem.bias is not None,
    )


def _inflated(
    stem: torch.nn.Conv2d, own: tuple[str, ...], bands: tuple[str, ...]
) -> torch.nn.Conv2d:
    if own == bands:
        return stem
    new = _with_channels(stem, len(bands))
    with torch.no_grad():
        new.weight.copy_(inflate_stem(stem.weight, own, bands))
        if stem.bias is not None and new.bias is not None:
            new.bias.copy_(stem.bias)
    return new


def _initialise(network: torch.nn.Module, seed: int) -> None:
    """Draw filters with numpy, so that they do not depend on torch or on global seeds.

    Biases and position tables become 0; the scales of normalisation layers stay at 1.
    """
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("bias", "bias_table")):
                parameter.zero_()
            elif name.endswith("weight") and parameter.dim() >= 2:
                draw = rng.standard_normal(tuple(parameter.shape), np.float32)
                sd = np.float32(np.sqrt(2.0 / parameter[0].numel()))
                parameter.copy_(torch.from_numpy(draw * sd))


def _load(network: torch.nn.Module, state: State, card: ModelCard) -> None:
    """Fill in the weights; only those of the head, which is not used, may be left over."""
    wanted = network.state_dict()
    missing = sorted(set(wanted) - set(state))
    wrong = [
        f"{k} is {tuple(state[k].shape)}, not {tuple(v.shape)}"
        for k, v in wanted.items()
        if k in state and state[k].shape != v.shape
    ]
    if missing or wrong:
        raise WeightsError(
            f"The weights file does not fit {card.architecture} with {len(card.bands)} bands: "
            f"{len(missing)} tensors missing, {len(wrong)} of another shape.",
            cause="; ".join([*missing[:3], *wrong[:3]]) + ".",
            next_step="Use the file that the card names, or correct the card's architecture "
            "and bands.",
        )
    network.load_state_dict({k: state[k] for k in wanted})
