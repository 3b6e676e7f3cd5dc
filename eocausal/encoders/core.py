"""What an encoder is, on arrays: needs numpy and torch only.

An :class:`Encoder` is a decision (how many features, which network). Fitting it on a sample of
chips gives a :class:`FittedEncoder`, which is frozen and gives the same features for the same
chip whatever the batch. The labelled layer is in :mod:`eocausal.encoders.base`.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from eocausal.encoders.devices import (
    float32_convolutions,
    lanes_of,
    resolve_device,
    single_threaded_pool,
)
from eocausal.errors import DeviceError, EncoderError

__all__ = [
    "Architecture",
    "Backbone",
    "BatchRunner",
    "Encoder",
    "FittedEncoder",
    "ImageSpec",
    "Progress",
    "Scaling",
    "SequenceEncoder",
    "check_size",
    "embed_array",
    "resolve_device",
    "valid_pixels",
]

Float32 = NDArray[np.float32]
Progress = Callable[[int, int], None]

# More chips, or more pixels, in a batch gain nothing on a CPU and only take memory.
_CPU_FRAMES = 64
_CPU_PIXELS = 1 << 19
_BATCHES_AT_ONCE = 4


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
        mean, sd = pixels.mean(axis=1), pixels.std(axis=1)
        flat = sd <= 1e-7 * np.maximum(np.abs(mean), 1.0)
        if flat.all():
            raise EncoderError(
                f"All {images.shape[0]} chips of the fitting sample hold one constant value.",
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

        Sequences are ``(n, period, band, y, x)`` with the ``years`` that :func:`embed_array` takes.
        """
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


class BatchRunner:
    """Runs a fitted encoder on one device, several batches at once; used in a ``with`` block.

    On a CPU as many threads as ``torch.get_num_threads()`` says take batches in turn, each alone:
    threads that share every operation wait for each other hundreds of times a batch, which is
    ruinous where other programs use the same cores. How batches are cut does not depend on the
    number of threads. Where a GPU runs out of memory the batch is halved, for this and all later
    calls.

    Parameters
    ----------
    encoder
        What to run.
    batch_size
        Chips at a time, at most; of sequences every period counts.
    device
        Where.
    """

    def __init__(self, encoder: FittedEncoder, *, batch_size: int, device: torch.device) -> None:
        if batch_size < 1:
            raise EncoderError(
                f"batch_size is {batch_size}.",
                cause="A batch holds at least one chip.",
                next_step="Use batch_size=64.",
            )
        on_cpu = device.type == "cpu"
        self.encoder = encoder
        self.device = device
        self.batch_size = batch_size
        try:
            self.network = encoder.network if on_cpu else copy.deepcopy(encoder.network).to(device)
            self._scaling = encoder.scaling.tensors(device)
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"{device} has no room for the network of {encoder.name}.",
                cause=str(error).split(". ")[0] + ".",
                next_step="Free memory on the device, or use device='cpu'.",
            ) from error
        self.lanes = lanes_of(device)
        self._lane = threading.local()

    def __enter__(self) -> Self:
        self._held = ExitStack()
        self._pool = single_threaded_pool(self.lanes)
        self._held.callback(self._pool.shutdown, cancel_futures=True)
        if self.device.type == "cuda":
            self._held.enter_context(float32_convolutions())
            torch.cuda.synchronize(self.device)
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def __call__(self, images: Float32, years: Float32 | None = None) -> Float32:
        """Encode chips ``(n, [period,] band, y, x)``; NaN rows where too few pixels are valid.

        ``years`` ``(n, period)`` goes with sequences only.
        """
        return self.submit(images, years)()

    def submit(self, images: Float32, years: Float32 | None = None) -> Callable[[], Float32]:
        """Begin to encode; what is returned waits for the features when called.

        ``images`` must not change until then.
        """
        features = np.empty((len(images), self.encoder.n_features), np.float32)
        size = self.items(images.shape[1:])
        jobs: list[Future[None]] = []
        for start in range(0, len(images), size):
            part = slice(start, start + size)
            dates = None if years is None else years[part]
            jobs.append(self._pool.submit(self._encode, images[part], dates, features[part]))

        def result() -> Float32:
            try:
                for job in jobs:
                    job.result()
            finally:
                for job in jobs:
                    job.cancel()
            return features

        return result

    def items(self, shape: tuple[int, ...]) -> int:
        """How many items ``([period,] band, y, x)`` make a batch."""
        frames = shape[0] if self.encoder.sequence else 1
        most = max(1, self.batch_size // frames)
        if self.device.type != "cpu":
            return most
        pixels = frames * shape[-1] * shape[-2]
        return max(1, min(most, _CPU_FRAMES // frames, _CPU_PIXELS // pixels))

    def _encode(self, images: Float32, years: Float32 | None, features: Float32) -> None:
        start = 0
        while start < len(images):
            stop = min(start + self.items(images.shape[1:]), len(images))
            dates = None if years is None else years[start:stop]
            try:
                features[start:stop] = self._features(images[start:stop], dates)
            except torch.OutOfMemoryError as error:
                self._halve(images[start:stop], error)
                continue
            start = stop

    def _halve(self, images: Float32, error: torch.OutOfMemoryError) -> None:
        if len(images) == 1:
            what = "sequence" if self.encoder.sequence else "chip"
            raise DeviceError(
                f"{self.device} ran out of memory on a single {what}.",
                cause=str(error).split(". ")[0] + ".",
                next_step="Free memory on the device, use device='cpu', or smaller chips.",
            ) from error
        frames = images.shape[1] if self.encoder.sequence else 1
        self.batch_size = min(self.batch_size, len(images) // 2 * frames)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _features(self, images: Float32, years: Float32 | None) -> Float32:
        with torch.inference_mode(), self._own_stream():
            batch = self._to_device(images)
            values, valid = standardise(batch.flatten(0, -4), self._scaling)
            if years is None:
                features: torch.Tensor = self.network(values, valid)
            else:
                valid = valid.view(*batch.shape[:2], *valid.shape[1:])
                features = self.network(values.view(batch.shape), valid, self._to_device(years))
            valid = valid.flatten(1)
            features = torch.where(valid.any(dim=1)[:, None], features, torch.nan)
            overflowed = valid.all(dim=1)[:, None] & features.isnan()
            features = torch.where(overflowed, torch.inf, features)  # NaN would say: not seen
            return np.asarray(features.float().cpu().numpy())

    def _to_device(self, values: Float32) -> torch.Tensor:
        """Copy to the device; from page-locked memory without waiting."""
        host = torch.from_numpy(np.ascontiguousarray(values, np.float32))
        return host.to(self.device, non_blocking=self.device.type == "cuda")

    @contextmanager
    def _own_stream(self) -> Iterator[None]:
        """Let each thread have its own queue on a GPU, so that copies and sums overlap."""
        if self.device.type != "cuda":
            yield
            return
        if not hasattr(self._lane, "stream"):
            self._lane.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._lane.stream):
            yield


def _check_array(encoder: FittedEncoder, images: Float32, years: Float32 | None) -> None:
    dims = "(n, period, {}, y, x)" if encoder.sequence else "(n, {}, y, x)"
    if images.ndim != 4 + encoder.sequence or images.shape[-3] != len(encoder.spec.bands):
        raise EncoderError(
            f"The images have shape {images.shape}.",
            cause=f"{encoder.name} takes {dims.format(len(encoder.spec.bands))}.",
            next_step="Give the bands "
            f"{', '.join(encoder.spec.bands)} in this order on the third axis from the end.",
        )
    if encoder.sequence and (years is None or years.shape != images.shape[:2]):
        raise EncoderError(
            f"The years have shape {None if years is None else years.shape}.",
            cause=f"{encoder.name} reads sequences and has to know when each image was taken.",
            next_step=f"Give years of shape {images.shape[:2]}, NaN where a period is missing.",
        )
    if years is not None and not encoder.sequence:
        raise EncoderError(
            f"Years were given to {encoder.name}.",
            cause="It reads single images and knows no dates.",
            next_step="Leave years out, or choose an encoder of sequences.",
        )


def embed_array(
    encoder: FittedEncoder,
    images: Float32,
    *,
    years: Float32 | None = None,
    batch_size: int = 64,
    device: str = "auto",
    progress: Progress | None = None,
) -> Float32:
    """Encode an array of chips.

    Parameters
    ----------
    encoder
        A fitted encoder.
    images
        ``(n, band, y, x)``, or ``(n, period, band, y, x)`` for an encoder of sequences, in the
        units it was fitted on; NaN (or infinite) where invalid.
    years
        For sequences only: ``(n, period)`` decimal years since 2000, NaN where a period is missing.
    batch_size
        Chips at a time, at most (of sequences every period counts); changes memory and speed, not
        results (to 1e-5).
    device
        ``'auto'``, ``'cpu'``, ``'cuda[:i]'`` or ``'mps'``.
    progress
        Called with (chips done, chips in all).

    Returns
    -------
    numpy.ndarray
        ``(n, feature)`` float32; a row is NaN where the chip has no valid pixel, or too few for
        the encoder. What overflows for a chip without gaps is infinite.

    Raises
    ------
    EncoderError, DeviceError
    """
    _check_array(encoder, images, years)
    check_size(
        encoder.name,
        ImageSpec(encoder.spec.bands, "", 0.0, *images.shape[-2:]),
        encoder.minimum_pixels,
    )
    features = np.empty((len(images), encoder.n_features), np.float32)
    with BatchRunner(encoder, batch_size=batch_size, device=resolve_device(device)) as runner:
        step = _BATCHES_AT_ONCE * runner.lanes * runner.items(images.shape[1:])
        for start in range(0, len(images), step):
            part = slice(start, start + step)
            features[part] = runner(images[part], None if years is None else years[part])
            if progress is not None:
                progress(min(start + step, len(images)), len(images))
    return features
