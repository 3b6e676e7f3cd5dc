"""One Zarr shard, written chunk by chunk as chips are made.

A shard (Zarr v3, ``sharding_indexed`` codec) is its chunks one after another and, at the end, where
each begins and how long it is, as little-endian 64-bit integers with a CRC-32C. Written so, no
more than one chip is held, and the work is that of the compressor; zarr-python reads it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import google_crc32c
import numpy as np
import zarr
from numcodecs import Blosc
from numpy.typing import NDArray

__all__ = ["ShardWriter", "compressor"]

_EMPTY: Final = 2**64 - 1
_NAME: Final = "lz4"
_LEVEL: Final = 1


def compressor() -> Any:
    """Return the compressor of pixels, as Zarr knows it: Blosc LZ4 after a bit shuffle.

    On 16-bit imagery it makes files 6 % larger than zstd (level 1) in a quarter of the time.
    """
    return zarr.codecs.BloscCodec(cname=_NAME, clevel=_LEVEL, shuffle="bitshuffle")


class ShardWriter:
    """Writes chunks in order to ``path``, which appears whole at the end.

    Parameters
    ----------
    path
        File of the shard.
    length
        Chunks in it; those not written are empty.
    """

    def __init__(self, path: Path, length: int) -> None:
        self._path = path
        self._temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        self._index = np.full((length, 2), _EMPTY, dtype="<u8")
        self._codec = Blosc(cname=_NAME, clevel=_LEVEL, shuffle=Blosc.BITSHUFFLE)
        self._next = 0
        self._at = 0
        self._file: BinaryIO | None = None

    def encode(self, pixels: NDArray[Any]) -> bytes:
        """Compress a chunk; any thread may do it."""
        return bytes(self._codec.encode(np.ascontiguousarray(pixels)))

    def add(self, encoded: bytes | None) -> None:
        """Write the next chunk; None leaves it empty."""
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._temporary.open("wb")
        if encoded is not None:
            self._file.write(encoded)
            self._index[self._next] = self._at, len(encoded)
            self._at += len(encoded)
        self._next += 1

    def close(self) -> None:
        """Write where the chunks are, and give the file its name."""
        if self._file is None:
            return
        index = self._index.tobytes()
        self._file.write(index)
        self._file.write(np.uint32(google_crc32c.value(index)).tobytes())
        self._file.close()
        self._file = None
        os.replace(self._temporary, self._path)

    def drop(self) -> None:
        """Remove what was written of a shard that is not closed."""
        if self._file is not None:
            with suppress(OSError):  # a full disk refuses what is still in the buffer
                self._file.close()
            self._file = None
            self._temporary.unlink(missing_ok=True)
