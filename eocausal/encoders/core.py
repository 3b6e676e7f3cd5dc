"""What an encoder is, on arrays: needs numpy and torch only.

An :class:`Encoder` is a decision (how many features, which network). Fitting it on a sample of
chips gives a :class:`FittedEncoder`, which is frozen and gives the same features for the same
chip whatever the batch. The labelled layer is in :mod:`eocausal.encoders.base`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from eocausal.errors import EncoderError

__all__ = [
    "Architecture",
    "Backbone",
    "Encoder",
    "FittedEncoder",
    "ImageSpec",
    "Progress",
    "Scaling",
    "SequenceEncoder",
    "check_size",
    "valid_pixels",
]

Float32 = NDArray[np.float32]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """What chips look like: band names in order, units, pixel size (CRS units), size in pixels."""

    bands: tuple[str, ...]
    units: str
    resolution: float
    height: int
    width: int


def valid_pixels(images: Float32) -> NDArray[np.bool_]:
    """Mark the pixels at which every band is finite; ``(n, band, y, x) -> (n, y, x)``."""
    return np.asarray(np.isfinite(images).all(axis=1))


@dataclass(frozen=True, slots=True)
class Scaling:
    """Mean and standard deviation per band, in the units of the cube."""

    mean: tuple[float, ...]
    sd: tuple[float, ...]

    @classmethod
    def identity(cls, bands: int) -> Scaling:
        """Leave values in the units of the cube."""
        return cls((0.0,) * bands, (1.0,) * bands)

    @classmethod
    def from_images(cls, images: Float32, bands: tuple[str, ...]) -> Scaling:
        """Take mean and sd over the valid pixels of a sample of chips.

        A band that does not vary gets sd 1, so that it becomes zero.

        Raises
        ------
        EncoderError
            If no pixel is valid, or no band varies.
        """
        pixels = images.transpose(1, 0, 2, 3)[:, valid_pixels(images)].astype(np.float64)
        if pixels.shape[1] == 0:
            raise EncoderError(
                "No chip of the fitting sample has a valid pixel.",
                cause="A pixel is valid where every band is finite.",
                next_step="Look at cube['status'] and the failure ledger; "
                f"drop a band that is missing everywhere (bands: {', '.join(bands)}).",
            )
        sample = f"{images.shape[0]} chips of the fitting sample"
        return cls.from_moments(pixels.mean(axis=1), pixels.std(axis=1), sample=sample)

    @classmethod
    def from_moments(
        cls, mean: NDArray[np.float64], sd: NDArray[np.float64], *, sample: str
    ) -> Scaling:
        """Take mean and sd of the bands of a ``sample``; a band that does not vary gets sd 1.

        Raises
        ------
        EncoderError
            If no band varies.
        """
        flat = sd <= 1e-7 * np.maximum(np.abs(mean), 1.0)
        if flat.all():
            raise EncoderError(
                f"All {sample} hold one constant value.",
                cause="An embedding of constant images says nothing.",
                next_step="Check the scenes, their nodata value and the scale factor.",
            )
        return cls(tuple(mean.tolist()), tuple(np.where(flat, 1.0, sd).tolist()))

    def apply(self, images: Float32) -> tuple[Float32, NDArray[np.bool_]]:
        """Standardise; invalid pixels become 0, the band mean. Returns values and the mask."""
        batch = torch.from_numpy(np.ascontiguousarray(images, np.float32))
        values, valid = standardise(batch, self.tensors("cpu"))
        return values.numpy(), valid.numpy()

    def tensors(self, device: torch.device | str) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and sd, shaped ``(1, band, 1, 1)``, on a device."""
        mean = torch.tensor(self.mean, dtype=torch.float32, device=device)
        sd = torch.tensor(self.sd, dtype=torch.float32, device=device)
        return mean.view(1, -1, 1, 1), sd.view(1, -1, 1, 1)


def standardise(
    images: torch.Tensor, scaling: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Standardise a batch; values where a pixel is invalid become 0."""
    mean, sd = scaling
    valid = images.abs().amax(dim=1) < torch.inf  # as isfinite, in a quarter of its time
    return torch.where(valid[:, None], (images - mean).div_(sd), 0.0), valid


@dataclass(frozen=True, slots=True)
class FittedEncoder:
    """An encoder with its numbers: the same chip always gives the same features.

    Parameters
    ----------
    name
        Id string: the decision and the seed.
    spec
        The chips it was fitted on; other bands, units or pixel sizes are refused.
    scaling
        Mean and sd per band, taken from the fitting sample or the model card.
    network
        Module in evaluation mode, ``(standardised (n, band, y, x), valid (n, y, x)) ->
        (n, feature)``; of a sequence ``((n, period, band, y, x), (n, period, y, x),
        years (n, period)) -> (n, feature)``. Differentiable in its first argument.
    n_features
        Number of features.
    weights_sha256
        Checksum of the weights file; empty if there is none.
    minimum_pixels
        Smallest chip side that the network takes.
    sequence
        Whether it reads all periods of a neighborhood at once.
    """

    name: str
    spec: ImageSpec
    scaling: Scaling
    network: torch.nn.Module
    n_features: int
    weights_sha256: str = ""
    minimum_pixels: int = 1
    sequence: bool = False

    def check(self, spec: ImageSpec) -> None:
        """Refuse chips that this encoder would read wrongly.

        Raises
        ------
        EncoderError
            If bands (with their order), units or resolution are not those it was fitted on, or
            the chips are too small.
        """
        own = self.spec
        problems = [
            f"{what}: fitted on {mine!r}, given {theirs!r}"
            for what, mine, theirs, same in (
                ("bands", own.bands, spec.bands, own.bands == spec.bands),
                ("units", own.units, spec.units, own.units == spec.units),
                (
                    "resolution",
                    own.resolution,
                    spec.resolution,
                    bool(np.isclose(own.resolution, spec.resolution, rtol=0.01)),
                ),
            )
            if not same
        ]
        if problems:
            raise EncoderError(
                f"These chips differ from those {self.name} was fitted on. "
                f"{'; '.join(problems).capitalize()}.",
                cause="Its scaling and filters would mean something else here.",
                next_step="Build both cubes with the same bands in the same order, "
                "units and resolution.",
            )
        check_size(self.name, spec, self.minimum_pixels)

    def transform(self, images: Float32, years: Float32 | None = None) -> Float32:
        """Encode chips ``(n, band, y, x)`` (NaN = invalid) on the CPU; ``(n, feature)``.

        Sequences are ``(n, period, band, y, x)`` with the ``years`` that
        :func:`~eocausal.encoders.runner.embed_array` takes.
        """
        from eocausal.encoders.runner import embed_array

        return embed_array(self, images, years=years, device="cpu")


def check_size(name: str, spec: ImageSpec, minimum: int) -> None:
    """Refuse chips smaller than the network can take (``EncoderError``)."""
    if min(spec.height, spec.width) < minimum:
        raise EncoderError(
            f"The chips are {spec.height} by {spec.width} pixels; {name} needs at least {minimum}.",
            cause="Its filters would reach over the border of every chip.",
            next_step="Build the cube with a larger size, or choose another encoder.",
        )


@runtime_checkable
class Encoder(Protocol):
    """A decision how chips become features; fitting gives a :class:`FittedEncoder`."""

    @property
    def name(self) -> str:
        """Id string."""

    def check(self, spec: ImageSpec) -> None:
        """Refuse chips that do not suit this encoder, before any is read."""

    def fit(self, images: Float32, spec: ImageSpec, *, seed: int) -> FittedEncoder:
        """Fit on a sample of chips ``(n, band, y, x)``, NaN where invalid; changes nothing."""


@runtime_checkable
class SequenceEncoder(Protocol):
    """A decision how all periods of a neighborhood become one vector of features."""

    @property
    def name(self) -> str:
        """Id string."""

    def check(self, spec: ImageSpec) -> None:
        """Refuse chips that do not suit this encoder, before any is read."""

    def fit_sequence(
        self, images: Float32, years: Float32, spec: ImageSpec, *, seed: int
    ) -> FittedEncoder:
        """Fit on sequences ``(n, period, band, y, x)`` with decimal years ``(n, period)``.

        Years are counted from 2000 and NaN where the period is missing.
        """


@dataclass(frozen=True, slots=True)
class Backbone:
    """A network to be trained; ``module`` is called like a :class:`FittedEncoder`'s network."""

    module: torch.nn.Module
    n_features: int
    minimum_pixels: int = 1


@runtime_checkable
class Architecture(Protocol):
    """A decision which network is trained; ``build`` draws its first weights by the seed."""

    @property
    def name(self) -> str:
        """Id string."""

    @property
    def sequence(self) -> bool:
        """Whether the network reads all periods of a neighborhood at once."""

    def check(self, spec: ImageSpec) -> None:
        """Refuse chips that do not suit this network, before any is read."""

    def build(self, spec: ImageSpec, *, seed: int) -> Backbone:
        """Build the network for these bands; global random states stay as they are."""
