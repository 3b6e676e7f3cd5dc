"""Image sequences: an encoder of frames, and a head over time.

What is missing is never filled in: a frame without a valid pixel, or without a date, is not
computed, and the head is told that it is not there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from eocausal.encoders.core import (
    Architecture,
    Backbone,
    Encoder,
    FittedEncoder,
    Float32,
    ImageSpec,
)
from eocausal.encoders.temporal import Head
from eocausal.errors import EncoderError

__all__ = ["FrameSequence", "SequenceNetwork", "seen_frames"]

_FRAMES_AT_ONCE = 64


def seen_frames(images: Float32, years: Float32) -> NDArray[np.bool_]:
    """Mark the frames that are there: a valid pixel, and a date.

    Parameters
    ----------
    images
        ``(n, period, band, y, x)``, NaN where invalid.
    years
        ``(n, period)`` decimal years since 2000, NaN where missing.

    Returns
    -------
    numpy.ndarray
        ``(n, period)``.
    """
    valid = np.isfinite(images).all(axis=2).reshape(*years.shape, -1)
    return np.asarray(valid.any(axis=2) & np.isfinite(years))


@dataclass(frozen=True, slots=True)
class FrameSequence:
    """Encode each image, then bring the images of a place together over time.

    A head without weights goes with any encoder and needs no training::

        encode(cube, FrameSequence(RandomConv(features=512), MeanDifference()))

    A head with weights goes with a network that is trained, both at once::

        train_encoder(cube, FrameSequence(SmallCNN(), TemporalAttention()), Propensity(), ...)

    Parameters
    ----------
    frame
        Encoder of one image (fitted or not), or a network to be trained.
    head
        How frames become one vector, e.g. :class:`~eocausal.encoders.temporal.MeanDifference`.

    Notes
    -----
    A frame is present if it has a valid pixel and a date; the rest is neither computed nor seen.
    A frame whose features are not finite (of :class:`~eocausal.encoders.random_conv.RandomConv`:
    no place where the whole patch is valid) counts as missing. A sequence without a frame gets
    NaN.
    """

    frame: Encoder | FittedEncoder | Architecture
    head: Head

    def __post_init__(self) -> None:
        if getattr(self.frame, "sequence", False):
            raise EncoderError(
                f"{self.frame.name} reads whole sequences.",
                cause="The frames of a sequence are single images.",
                next_step="Give an encoder of images, e.g. RandomConv() or SmallCNN().",
            )

    @property
    def name(self) -> str:
        """Id string."""
        return self._named(self.frame.name)

    @property
    def sequence(self) -> bool:
        """True: it reads all periods at once."""
        return True

    def _named(self, frame: str) -> str:
        return f"FrameSequence({frame}; {self.head.name})"

    def check(self, spec: ImageSpec) -> None:
        """Refuse chips that do not suit the encoder of frames."""
        self.frame.check(spec)

    def fit_sequence(
        self, images: Float32, years: Float32, spec: ImageSpec, *, seed: int
    ) -> FittedEncoder:
        """Fit the encoder of frames on the images that are there.

        Parameters
        ----------
        images
            ``(n, period, band, y, x)``, NaN where invalid.
        years
            ``(n, period)`` decimal years since 2000, NaN where missing.
        spec
            What the chips look like.
        seed
            Of the encoder's draws.

        Raises
        ------
        EncoderError
            If the head or the frames have weights that must be trained first, or nothing is seen.
        """
        if self.head.trained or not isinstance(self.frame, (Encoder, FittedEncoder)):
            untrained = self.head.name if self.head.trained else self.frame.name
            raise EncoderError(
                f"{self.name} has to be trained: {untrained} has weights that are random at first.",
                cause="Fitting an encoder takes filters and scales from images, not labels.",
                next_step="Use train_encoder(cube, FrameSequence(SmallCNN(), head), ...), or "
                "RandomConv() with MeanDifference(), which need no training.",
            )
        seen = seen_frames(images, years)
        if not seen.any():
            raise EncoderError(
                "No image of the fitting sample has both a valid pixel and a date.",
                cause="A period without either counts as missing and is never filled in.",
                next_step="Look at cube['status'], cube['date'] and the failure ledger.",
            )
        self.check(spec)
        if isinstance(self.frame, FittedEncoder):
            frame = self.frame
        else:
            frame = self.frame.fit(images[seen], spec, seed=seed)
        head = self.head.build(frame.n_features, seed=seed)
        n_outputs = self.head.n_outputs(frame.n_features)
        return FittedEncoder(
            name=self._named(frame.name),
            spec=spec,
            scaling=frame.scaling,
            network=SequenceNetwork(frame.network, head, n_outputs).eval(),
            n_features=n_outputs,
            weights_sha256=frame.weights_sha256,
            minimum_pixels=frame.minimum_pixels,
            sequence=True,
        )

    def build(self, spec: ImageSpec, *, seed: int) -> Backbone:
        """Build the networks of frames and of time, to be trained together.

        Raises
        ------
        EncoderError
            If the encoder of frames cannot be trained.
        """
        if not isinstance(self.frame, Architecture):
            raise EncoderError(
                f"{self.frame.name} cannot be trained.",
                cause="Its numbers come from a sample of chips.",
                next_step="Use SmallCNN() or a TorchvisionCNN for the frames; or encode the frames "
                "first and train FrameSequence(EmbeddedFrames(), head) on embedding_cube(...).",
            )
        self.check(spec)
        frame = self.frame.build(spec, seed=seed)
        head = self.head.build(frame.n_features, seed=seed)
        n_outputs = self.head.n_outputs(frame.n_features)
        return Backbone(
            module=SequenceNetwork(frame.module, head, n_outputs),
            n_features=n_outputs,
            minimum_pixels=frame.minimum_pixels,
        )


class SequenceNetwork(torch.nn.Module):
    """The network of a :class:`FrameSequence`: the frames that are there, then the head."""

    def __init__(self, frame: torch.nn.Module, head: torch.nn.Module, n_outputs: int) -> None:
        super().__init__()
        self.frame = frame
        self.head = head
        self.n_outputs = n_outputs

    def forward(
        self, values: torch.Tensor, valid: torch.Tensor, years: torch.Tensor
    ) -> torch.Tensor:
        """``(n, t, band, y, x), (n, t, y, x), (n, t) -> (n, f)``; NaN rows where nothing is."""
        present = valid.flatten(2).any(dim=2) & years.isfinite()
        if not present.any():
            return values.new_full((len(values), self.n_outputs), torch.nan)
        features = self._features(values, valid, present)
        features = features.to(torch.promote_types(features.dtype, years.dtype))
        finite = features.isfinite().all(dim=1)
        places = tuple(index[finite] for index in present.nonzero(as_tuple=True))
        table = features.new_zeros(*years.shape, features.shape[1])
        table = table.index_put(places, features[finite])
        present = torch.zeros_like(present).index_put(places, finite[finite])
        joined: torch.Tensor = self.head(table, present, years.to(features.dtype))
        return torch.where(present.any(dim=1, keepdim=True), joined, torch.nan)

    def _features(
        self, values: torch.Tensor, valid: torch.Tensor, present: torch.Tensor
    ) -> torch.Tensor:
        """Features of the present frames, in the order of rows; ``(frame, f)``."""
        images, masks = values.flatten(0, 1), valid.flatten(0, 1)
        if not present.all():
            images, masks = images[present.flatten()], masks[present.flatten()]
        if self.training or len(images) <= _FRAMES_AT_ONCE:
            features: torch.Tensor = self.frame(images, masks)
            return features
        starts = range(0, len(images), _FRAMES_AT_ONCE)
        parts = [slice(start, start + _FRAMES_AT_ONCE) for start in starts]
        return torch.cat([self.frame(images[part], masks[part]) for part in parts])
