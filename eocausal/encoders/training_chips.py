"""Chips for training: read from the cube at random, ahead of their use, in bounded memory."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from eocausal.encoders.chips import chips_of
from eocausal.encoders.core import FittedEncoder, Float32, Scaling, standardise, valid_pixels
from eocausal.encoders.dates import sequence_years
from eocausal.encoders.runner import BatchRunner
from eocausal.errors import EncoderError

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "ChipReader",
    "Chips",
    "Moments",
    "encode_cells",
    "moments",
    "read_ahead",
    "scaling_of",
    "to_device",
]

Int64 = NDArray[np.int64]

_BLOCK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Chips:
    """Chips ``(n, [period,] band, y, x)``, NaN where invalid, and the years of sequences."""

    images: Float32
    years: Float32 | None


class ChipReader:
    """Reads what a network is trained on: images, or sequences, that have a valid pixel.

    A *cell* is an image (neighborhood and period) or, for sequences, a neighborhood. If all chips
    fit into ``memory`` they are read once and kept, else each is read when its turn comes; what
    is read does not depend on it.

    Parameters
    ----------
    cube
        As :func:`eocausal.contracts.check_cube` says.
    sequence
        Whether all periods of a neighborhood are read at once.
    memory
        Bytes of pixels that may be kept.

    Attributes
    ----------
    row, period
        ``(cells,)`` positions of the neighborhood and of the period (-1 for sequences).
    years
        Of sequences: ``(neighborhoods, periods)`` as
        :func:`~eocausal.encoders.dates.sequence_years` gives them; else None.

    Raises
    ------
    EncoderError
        If no chip has a valid pixel.
    """

    def __init__(self, cube: xr.Dataset, *, sequence: bool, memory: int) -> None:
        self._chips = chips_of(cube)
        self._seen = cube["valid"].transpose("neighborhood", "period").to_numpy() > 0
        self.sequence = sequence
        self.years = sequence_years(cube) if sequence else None
        if sequence:
            self.row = np.flatnonzero(self._seen.any(axis=1))
            self.period = np.full(len(self.row), -1)
        else:
            self.row, self.period = np.nonzero(self._seen)
        if len(self.row) == 0:
            raise EncoderError(
                "No chip of the cube has a valid pixel.",
                cause="Every chip's share of valid pixels is 0.",
                next_step="Look at cube['status'] and the failure ledger of the ingestion.",
            )
        self._kept: Float32 | None = None
        if self._chips.bytes_each * len(self._seen) <= memory:
            self._kept = self._read(np.arange(len(self._seen)))

    def __len__(self) -> int:
        return len(self.row)

    @property
    def cells_of_row(self) -> Int64:
        """Number of cells of each neighborhood; ``(neighborhoods,)``."""
        return np.bincount(self.row, minlength=len(self._seen))

    def leave_out(self, cells: NDArray[np.bool_]) -> None:
        """Forget some cells ``(cells,)``: those that turn out to have no valid pixel."""
        self.row, self.period = self.row[~cells], self.period[~cells]

    @property
    def block(self) -> int:
        """Cells to read at a time where all are read in order."""
        periods = 1 if self.sequence else self._chips.shape[1]
        return max(1, min(256, _BLOCK_BYTES * periods // self._chips.bytes_each))

    def __call__(self, cells: Int64) -> Chips:
        """Read some cells, in the order given."""
        rows, back = np.unique(self.row[cells], return_inverse=True)
        whole = self._read(rows) if self._kept is None else self._kept[rows]
        if self.years is None:
            return Chips(whole[back, self.period[cells]], None)
        whole[~self._seen[rows]] = np.nan
        return Chips(whole[back], self.years[rows][back])

    def _read(self, rows: Int64) -> Float32:
        images = np.empty((len(rows), *self._chips.shape[1:]), np.float32)
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
        for start, stop in pairwise([*starts.tolist(), len(rows)]):
            self._chips.read(int(rows[start]), images[start:stop])
        return images


def read_ahead(
    reader: ChipReader, batches: Sequence[Int64], *, readers: int
) -> Iterator[tuple[Int64, Chips]]:
    """Yield batches in order, read by threads up to ``readers`` batches ahead."""
    with ThreadPoolExecutor(readers, thread_name_prefix="training-chips") as pool:
        pending: deque[tuple[Int64, Future[Chips]]] = deque()
        try:
            for batch in batches:
                pending.append((batch, pool.submit(reader, batch)))
                if len(pending) > readers:
                    cells, future = pending.popleft()
                    yield cells, future.result()
            while pending:
                cells, future = pending.popleft()
                yield cells, future.result()
        finally:
            for _, future in pending:
                future.cancel()


def to_device(
    chips: Chips, scaling: tuple[torch.Tensor, torch.Tensor], device: torch.device
) -> tuple[torch.Tensor, ...]:
    """Standardise chips on a device: what a network is called with."""
    images = torch.from_numpy(np.ascontiguousarray(chips.images)).to(device)
    values, valid = standardise(images.flatten(0, -4), scaling)
    if chips.years is None:
        return values, valid
    years = torch.from_numpy(np.ascontiguousarray(chips.years)).to(device)
    return values.view(images.shape), valid.view(*images.shape[:2], *valid.shape[1:]), years


def encode_cells(
    encoder: FittedEncoder,
    reader: ChipReader,
    cells: Int64,
    *,
    device: torch.device,
    batch_size: int,
    readers: int,
) -> Float32:
    """Encode some cells in the order given; ``(cells, feature)``."""
    batches = [cells[i : i + batch_size] for i in range(0, len(cells), batch_size)]
    with BatchRunner(encoder, batch_size=batch_size, device=device) as runner:
        parts = [
            runner(chips.images, chips.years)
            for _, chips in read_ahead(reader, batches, readers=readers)
        ]
    return np.concatenate(parts) if parts else np.empty((0, encoder.n_features), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """What is known of each cell after one pass over the cube.

    Attributes
    ----------
    count
        Number of valid pixels; ``(cells,)``.
    mean, squares
        Mean and sum of squared deviations; ``(cells, band)``.
    pixels
        Hash of all values; ``(cells,)``.
    """

    count: NDArray[np.float64]
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]
    pixels: NDArray[np.void]

    def rows(self, cells: Int64) -> Moments:
        """Return some cells."""
        return Moments(self.count[cells], self.mean[cells], self.squares[cells], self.pixels[cells])


def moments(reader: ChipReader, *, readers: int) -> Moments:
    """Take the moments of every cell in one pass over the cube."""
    cells = np.arange(len(reader))
    blocks = [cells[i : i + reader.block] for i in range(0, len(cells), reader.block)]
    parts = []
    for _, chips in read_ahead(reader, blocks, readers=readers):
        images = chips.images
        shape = images.shape
        valid = valid_pixels(images.reshape(-1, *shape[-3:])).reshape(*shape[:-3], *shape[-2:])
        weight = np.expand_dims(valid, -3)
        pixels = np.where(weight, images, 0.0).astype(np.float64)
        over = tuple(a for a in range(1, images.ndim) if a != images.ndim - 3)
        count = valid.reshape(len(images), -1).sum(axis=1).astype(np.float64)
        mean = pixels.sum(axis=over) / np.maximum(count, 1.0)[:, None]
        centre = mean.reshape(len(images), *(1,) * (images.ndim - 4), -1, 1, 1)
        squares = np.where(weight, (pixels - centre) ** 2, 0.0).sum(axis=over)
        parts.append((count, mean, squares, _hashes(images)))
    return Moments(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _hashes(images: Float32) -> NDArray[np.void]:
    digests = [hashlib.blake2b(i.tobytes(), digest_size=16).digest() for i in images]
    return np.frombuffer(b"".join(digests), "V16")


def scaling_of(known: Moments, cells: Int64, bands: tuple[str, ...]) -> Scaling:
    """Mean and sd per band over the valid pixels of some cells.

    Raises
    ------
    EncoderError
        If no pixel is valid, or no band varies.
    """
    count, means = known.count[cells][:, None], known.mean[cells]
    total = count.sum()
    if total == 0:
        raise EncoderError(
            f"None of the {len(cells)} chips to train on has a valid pixel.",
            cause="A pixel is valid where every band is finite.",
            next_step="Look at cube['status'] and the failure ledger; "
            f"drop a band that is missing everywhere (bands: {', '.join(bands)}).",
        )
    mean = (count * means).sum(axis=0) / total
    spread = known.squares[cells].sum(axis=0) + (count * (means - mean) ** 2).sum(axis=0)
    sample = f"{len(cells)} chips to train on"
    return Scaling.from_moments(mean, np.sqrt(spread / total), sample=sample)
