"""A fitted encoder run over arrays of chips: batches, threads, devices, memory that runs out."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import Self

import numpy as np
import torch

from eocausal.encoders.core import (
    FittedEncoder,
    Float32,
    ImageSpec,
    Progress,
    check_size,
    standardise,
)
from eocausal.encoders.devices import (
    float32_arithmetic,
    halved,
    lanes_of,
    resolve_device,
    single_threaded_pool,
)
from eocausal.errors import DeviceError, EncoderError

__all__ = ["BatchRunner", "embed_array"]

# More chips, or more pixels, in a batch gain nothing on a CPU and only take memory.
_CPU_FRAMES = 64
_CPU_PIXELS = 1 << 19
_BATCHES_AT_ONCE = 4


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
        self._lender: BatchRunner | None = None

    def share(self, other: BatchRunner) -> None:
        """Use the threads of another runner, which is entered before this one and left after."""
        self._lender = other

    def __enter__(self) -> Self:
        self._held = ExitStack()
        if self._lender is None:
            self._pool = single_threaded_pool(self.lanes)
            self._held.callback(self._pool.shutdown, cancel_futures=True)
        else:
            self._pool = self._lender._pool
        if self.device.type == "cuda":
            self._held.enter_context(float32_arithmetic())
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
        what, frames = ("sequence", images.shape[1]) if self.encoder.sequence else ("chip", 1)
        size = halved(len(images), what, self.device, error)
        self.batch_size = min(self.batch_size, size * frames)

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
