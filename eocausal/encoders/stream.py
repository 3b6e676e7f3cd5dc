"""From chips to features without holding either: read ahead, encode, hand over in order.

The cube is cut into *pieces* (neighborhoods read at once) and *chunks* (whole pieces, written at
once). Both depend on the cube and the encoder alone, so that a run that goes on after it was cut
off computes the same batches.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from eocausal.encoders.chips import Chips
from eocausal.encoders.core import FittedEncoder, Float32
from eocausal.encoders.routed import Routed, RoutedRunner
from eocausal.provenance import hash_json, versions

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Cut", "encode_chunks", "stream_key"]

_PIECE_BYTES = 32 << 20
_PIECE_ROWS = 1024
_CHUNK_BYTES = 1 << 20
_CHUNK_READ_BYTES = 1 << 30
_READERS = 8
_SAMPLE_ROWS = 64


@dataclass(frozen=True, slots=True)
class Cut:
    """How a cube of ``total`` neighborhoods is cut: lengths of a piece and of a chunk."""

    total: int
    piece: int
    chunk: int

    @classmethod
    def of(cls, chips: Chips, row_bytes: int) -> Cut:
        """Cut a cube whose neighborhoods have ``row_bytes`` of features.

        A piece is about 32 MiB of pixels and where possible whole shards; a chunk is about 1 MiB of
        features, and not more than 1 GiB of pixels unless a piece is.
        """
        piece = max(1, min(_PIECE_BYTES // chips.bytes_each, _PIECE_ROWS))
        if piece >= chips.align:
            piece -= piece % chips.align
        rows = min(_CHUNK_BYTES // row_bytes, _CHUNK_READ_BYTES // chips.bytes_each)
        return cls(chips.shape[0], piece, max(piece, rows - rows % piece))

    def chunks(self) -> Iterator[tuple[int, int]]:
        """First and last row (exclusive) of each chunk."""
        yield from _ranges(0, self.total, self.chunk)

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """First and last row (exclusive) of each piece of a chunk."""
        yield from _ranges(start, stop, self.piece)


def _ranges(start: int, stop: int, step: int) -> Iterator[tuple[int, int]]:
    yield from pairwise([*range(start, stop, step), stop])


def encode_chunks(
    runner: RoutedRunner,
    chips: Chips,
    years: Float32 | None,
    cut: Cut,
    chunks: list[tuple[int, int]],
    advance: Callable[[int], None],
) -> Iterator[tuple[int, Float32]]:
    """Yield the first row and the features of each chunk, in order.

    One piece is read while others are computed, as many as keep all threads busy; no more are
    held. Features are ``(n, feature)``, for images ``(n, period, feature)``.

    Parameters
    ----------
    runner
        Runs the encoders.
    chips
        What to encode.
    years
        ``(neighborhood, period)`` for sequences, else None.
    cut
        How the cube is cut.
    chunks
        Those to compute.
    advance
        Called after each piece with its number of neighborhoods.
    """
    pieces = [piece for chunk in chunks for piece in cut.pieces(*chunk)]
    ready = _begun(runner, chips, years, pieces, cut.piece)
    with closing(ready):
        for start, stop in chunks:
            parts = []
            for a, b in cut.pieces(start, stop):
                parts.append(next(ready)())
                advance(b - a)
            yield start, np.concatenate(parts)


def _begun(
    runner: RoutedRunner,
    chips: Chips,
    years: Float32 | None,
    pieces: list[tuple[int, int]],
    length: int,
) -> Generator[Callable[[], Float32], None, None]:
    """Yield what waits for the features of each piece, with the next one submitted already."""
    waiting: deque[Callable[[], Float32]] = deque()
    at_once = _pieces_at_once(runner, chips, length)
    for (start, stop), images in _read_ahead(chips, pieces, length, at_once + 1, runner.device):
        waiting.append(_submit(runner, images, years, slice(start, stop)))
        if len(waiting) == at_once:
            yield waiting.popleft()
    yield from waiting


def _pieces_at_once(runner: RoutedRunner, chips: Chips, length: int) -> int:
    """How many pieces are begun, so that every lane has a batch while the first is waited for."""
    sequence = runner.sequence
    items = length if sequence else length * chips.shape[1]
    batches = math.ceil(items / runner.items(chips.shape[1:] if sequence else chips.shape[2:]))
    return 1 + math.ceil(runner.lanes / batches)


def _submit(
    runner: RoutedRunner, images: Float32, years: Float32 | None, rows: slice
) -> Callable[[], Float32]:
    if years is not None:
        images[np.isnan(years[rows])] = np.nan
        return runner.submit(images, years[rows], rows)
    n, periods = images.shape[:2]
    result = runner.submit(images.reshape(-1, *images.shape[2:]), None, rows)
    return lambda: result().reshape(n, periods, -1)


def _read_ahead(
    chips: Chips, pieces: list[tuple[int, int]], length: int, count: int, device: torch.device
) -> Iterator[tuple[tuple[int, int], Float32]]:
    """Yield pieces, reading the next one meanwhile, into ``count`` buffers that are used in turn.

    A piece's buffer is filled again when ``count - 1`` more pieces have been asked for.
    """
    on_gpu = device.type == "cuda"
    shape = (min(length, chips.shape[0]), *chips.shape[1:])
    readers = min(_READERS, os.cpu_count() or 1) if on_gpu else 1
    buffers = [
        torch.empty(shape, dtype=torch.float32, pin_memory=on_gpu).numpy()
        for _ in range(min(count, len(pieces)))
    ]

    def read(k: int) -> Float32:
        start, stop = pieces[k]
        out = buffers[k % count][: stop - start]
        chips.read_parallel(start, out, pool, readers)
        return out

    with (
        ThreadPoolExecutor(readers, thread_name_prefix="read") as pool,
        ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as ahead,
    ):
        following = ahead.submit(read, 0) if pieces else None
        for k, piece in enumerate(pieces):
            assert following is not None
            images = following.result()
            following = ahead.submit(read, k + 1) if k + 1 < len(pieces) else None
            yield piece, images


def stream_key(
    cube: xr.Dataset, chips: Chips, routed: Routed, runner: RoutedRunner, cut: Cut
) -> str:
    """Hash what determines an embedding to the last bit, so that only that is gone on with.

    Of a cube that is not in memory 64 neighborhoods, evenly spread, stand for the pixels, beside
    all its labels, attributes and shares of valid pixels.
    """
    digest = hashlib.sha256()
    for name in sorted({*map(str, cube.coords), "valid", "date"} & set(cube.variables)):
        digest.update(name.encode() + _bytes(cube[name].to_numpy()))
    if chips.in_memory:
        rows = range(chips.shape[0])
    else:
        rows = np.unique(np.linspace(0, chips.shape[0] - 1, _SAMPLE_ROWS).astype(int)).tolist()
    one = np.empty((1, *chips.shape[1:]), np.float32)
    for row in rows:
        chips.read(row, one)
        digest.update(one.tobytes())
    return hash_json(
        {
            "cube": digest.hexdigest(),
            "attrs": {str(k): repr(v) for k, v in cube.attrs.items()},
            "encoders": [_encoder_key(encoder) for encoder in routed.encoders],
            "routed": _routed_key(routed),
            "cut": [cut.total, cut.piece, cut.chunk, runner.batch_size, runner.device.type],
            "versions": {k: v for k, v in versions().items() if k in ("eocausal", "torch")},
        }
    )


def _routed_key(routed: Routed) -> list[object]:
    digest = hashlib.sha256(_bytes(routed.reads))
    for name, values in sorted(routed.coords.items()):
        digest.update(name.encode() + _bytes(values))
    return [routed.name, routed.weights_sha256, dict(routed.attrs), digest.hexdigest()]


def _encoder_key(encoder: FittedEncoder) -> list[object]:
    digest = hashlib.sha256()
    for name, tensor in encoder.network.state_dict().items():
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)} ".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().tobytes())  # numpy has no bfloat16
    kind = type(encoder.network)
    return [
        encoder.name,
        f"{kind.__module__}.{kind.__qualname__}",
        encoder.spec,
        encoder.scaling,
        encoder.n_features,
        encoder.weights_sha256,
        encoder.sequence,
        digest.hexdigest(),
    ]


def _bytes(values: NDArray[np.generic]) -> bytes:
    """Bytes of an array with its shape and type; of labels those of their text."""
    head = f"{values.dtype} {values.shape} ".encode()
    if values.dtype.kind in "OUT":
        return head + "\0".join(map(str, values.ravel())).encode()
    return head + np.ascontiguousarray(values).tobytes()
