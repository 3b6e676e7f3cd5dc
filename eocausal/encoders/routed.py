"""Several fitted encoders as one: each neighborhood is read by its own, or by several.

Networks trained by cross-fitting each speak for the places they did not learn from. Here they read
a cube together, in the order of its store, so that every chip is read once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from eocausal.encoders.core import FittedEncoder, Float32, ImageSpec
from eocausal.encoders.prepared import prepared
from eocausal.encoders.runner import BatchRunner
from eocausal.errors import EncoderError

__all__ = ["Routed", "RoutedRunner"]


@dataclass(frozen=True, slots=True, eq=False)
class Routed:
    """Which fitted encoders read which neighborhoods of one cube.

    Parameters
    ----------
    name
        Id string of the whole.
    encoders
        Fitted on the same bands, units and resolution, with as many features each.
    reads
        ``(encoder, neighborhood)`` bool, neighborhoods in the order of the cube. The features of
        a neighborhood are the mean over the encoders that read it.
    weights_sha256
        Checksum over all weights; empty if there is none.
    coords
        More coordinates of the embedding, each of one value per neighborhood.
    attrs
        More attributes of the embedding.

    Raises
    ------
    EncoderError
        If encoders differ in what they read or give, or a neighborhood is read by none.
    """

    name: str
    encoders: tuple[FittedEncoder, ...]
    reads: NDArray[np.bool_]
    weights_sha256: str = ""
    coords: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    attrs: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kinds = {(e.sequence, e.n_features, e.spec.bands) for e in self.encoders}
        if len(kinds) != 1:
            raise EncoderError(
                f"{len(self.encoders)} encoders of {len(kinds)} kinds were given.",
                cause="They make one embedding: of the same bands, with the same features, of "
                "images or of sequences.",
                next_step="Give encoders that differ in their weights alone.",
            )
        if self.reads.ndim != 2 or len(self.reads) != len(self.encoders):
            raise EncoderError(
                f"reads has shape {self.reads.shape} for {len(self.encoders)} encoders.",
                cause="It says of each encoder which neighborhoods it reads.",
                next_step="Give an array (encoder, neighborhood).",
            )
        unread = np.flatnonzero(~self.reads.any(axis=0))
        if len(unread):
            raise EncoderError(
                f"{len(unread)} neighborhoods, from row {unread[0]} on, are read by no encoder.",
                cause="They would look like places without an image.",
                next_step="Let at least one encoder read each, or leave them out of the cube.",
            )

    @classmethod
    def alone(cls, encoder: FittedEncoder, neighborhoods: int) -> Self:
        """Let one encoder read everything."""
        reads = np.ones((1, neighborhoods), bool)
        return cls(encoder.name, (encoder,), reads, encoder.weights_sha256)

    @property
    def sequence(self) -> bool:
        """Whether all periods of a neighborhood are read at once."""
        return self.encoders[0].sequence

    @property
    def n_features(self) -> int:
        """Number of features."""
        return self.encoders[0].n_features

    @property
    def bands(self) -> tuple[str, ...]:
        """Band names in order."""
        return self.encoders[0].spec.bands

    def check(self, spec: ImageSpec, neighborhoods: int) -> None:
        """Refuse chips that an encoder would read wrongly, and a cube of other length."""
        for encoder in self.encoders:
            encoder.check(spec)
        if self.reads.shape[1] != neighborhoods:
            raise EncoderError(
                f"The cube has {neighborhoods} neighborhoods; {self.name} is to read "
                f"{self.reads.shape[1]}.",
                cause="Encoders are chosen by the row of the cube.",
                next_step="Choose them for the neighborhoods of this cube, in its order.",
            )


class RoutedRunner:
    """Runs the encoders of a :class:`Routed` on one device; used in a ``with`` block.

    They share threads. Parameters as for :class:`~eocausal.encoders.runner.BatchRunner`.
    """

    def __init__(self, routed: Routed, *, batch_size: int, device: torch.device) -> None:
        self.device = device
        self.batch_size = batch_size
        self.sequence = routed.sequence
        self._reads = routed.reads
        self._runners = [
            BatchRunner(prepared(encoder, device), batch_size=batch_size, device=device)
            for encoder in routed.encoders
        ]
        self.lanes = self._runners[0].lanes

    def __enter__(self) -> Self:
        self._held = ExitStack()
        with ExitStack() as stack:
            first, *others = self._runners
            stack.enter_context(first)
            for runner in others:
                runner.share(first)
                stack.enter_context(runner)
            self._held = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def items(self, shape: tuple[int, ...]) -> int:
        """How many items ``([period,] band, y, x)`` make a batch."""
        return self._runners[0].items(shape)

    def submit(self, images: Float32, years: Float32 | None, rows: slice) -> Callable[[], Float32]:
        """Begin to encode neighborhoods ``rows``; what is returned waits for the features.

        ``images`` are sequences ``(n, period, band, y, x)``, or chips ``(n * periods, band, y, x)``
        neighborhood by neighborhood; they must not change until then.
        """
        reads = self._reads[:, rows]
        reads = np.repeat(reads, len(images) // reads.shape[1], axis=1)
        if len(reads) == 1:
            return self._runners[0].submit(images, years)
        jobs = []
        for runner, own in zip(self._runners, reads, strict=True):
            if own.any():
                jobs.append(
                    (own, runner.submit(images[own], None if years is None else years[own]))
                )

        def result() -> Float32:
            features = np.zeros((len(images), self._runners[0].encoder.n_features), np.float32)
            for own, found in jobs:
                features[own] += found()
            features /= reads.sum(axis=0, dtype=np.float32)[:, None]
            return features

        return result
