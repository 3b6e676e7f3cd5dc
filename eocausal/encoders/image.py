"""Torchvision networks by model card, for any number of bands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from eocausal.encoders.card_input import check_chips, scaling_of
from eocausal.encoders.cards import FixedScaling, ModelCard, load_card
from eocausal.encoders.core import Backbone, FittedEncoder, Float32, ImageSpec
from eocausal.encoders.golden import check_golden
from eocausal.encoders.initial_weights import draw_weights, untouched_seeds
from eocausal.encoders.stems import replace_module, stem_of, with_bands
from eocausal.encoders.torchvision_models import CardFeatures, headless_network, load_state
from eocausal.encoders.weights import State, find_weights, read_weights
from eocausal.errors import ModelCardError

__all__ = ["TorchvisionCNN"]


@dataclass(frozen=True, slots=True)
class TorchvisionCNN:
    """A torchvision network described by a model card; make one with :meth:`from_card`.

    Frozen, it is an encoder (:meth:`fit`); it is also an architecture to be trained further
    (:meth:`build`).

    Parameters
    ----------
    card
        The model card.
    weights
        Path of the weights file, if the card names one; None looks beside the card.
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

    @property
    def sequence(self) -> bool:
        """False: it reads one image."""
        return False

    def check(self, spec: ImageSpec) -> None:
        """Refuse chips that do not fit the card (``ModelCardError``)."""
        check_chips(self.card, spec)

    def fit(self, images: Float32, spec: ImageSpec, *, seed: int) -> FittedEncoder:
        """Build the network for these bands; take mean and sd from the sample if the card says so.

        Without weights the convolutions and linear layers are drawn by ``seed``: He et al. 2015,
        eq. 10 (normal, variance 2 / fan-in).

        Raises
        ------
        ModelCardError
            If the chips do not fit the card.
        WeightsError
            If the weights are missing or do not fit the architecture.
        EncoderError
            If the seed is not a whole number, at least 0.
        """
        self.check(spec)
        scaling = scaling_of(self.card, images, spec)
        network, sha256 = self._network(spec, seed)
        return FittedEncoder(
            name=self.name if sha256 else f"{self.name}, random weights, seed={seed}",
            spec=spec,
            scaling=scaling,
            network=network.eval().requires_grad_(False),
            n_features=self.card.features,
            weights_sha256=sha256,
            minimum_pixels=self.card.minimum_pixels,
        )

    def build(self, spec: ImageSpec, *, seed: int) -> Backbone:
        """Build the network for these bands to be trained, with the card's weights if it has any.

        All its layers are trainable, batch normalisation included; no global seed is touched.

        Raises
        ------
        ModelCardError
            If the chips do not fit the card, or its scaling is fixed: whoever trains a network
            standardises the bands by the training sample.
        WeightsError
            If the weights are missing or do not fit the architecture.
        EncoderError
            If the seed is not a whole number, at least 0.
        """
        self.check(spec)
        if isinstance(self.card.scaling, FixedScaling):
            raise ModelCardError(
                f"The model {self.name} has a fixed scaling.",
                cause="Training standardises the bands by its own sample, so the network would "
                "see other values than the card says.",
                next_step="Copy the card's folder, write 'scaling: from_data' in the copy, and "
                "give its path.",
            )
        network, _ = self._network(spec, seed)
        return Backbone(network.train(), self.card.features, self.card.minimum_pixels)

    def _network(self, spec: ImageSpec, seed: int) -> tuple[CardFeatures, str]:
        """Return the network for the bands of ``spec`` and the checksum of its weights."""
        state, sha256 = self._state()
        own = spec.bands if self.card.bands == "any" else self.card.bands
        network = untouched_seeds(lambda: headless_network(self.card, len(own)))
        if state is None:
            draw_weights(network, seed)
        else:
            load_state(network, state, self.card)
        stem = stem_of(network)
        wide = untouched_seeds(lambda: with_bands(stem, own, spec.bands))
        replace_module(network, stem, wide)
        return CardFeatures(network, self.card.input_size, channels_last=self.channels_last), sha256

    def _state(self) -> tuple[State | None, str]:
        if self.card.weights is None:
            return None, ""
        path = self.weights or find_weights(self.card, None)
        assert path is not None  # of a card that names a file
        return read_weights(path, self.card.weights)
