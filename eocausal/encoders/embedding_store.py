"""The Zarr store of an embedding: a chunk at a time, a marker a chunk, and a rename at the end.

While an embedding is being made it lives in ``<out>.partial/``: ``store/`` (the Zarr group),
``done/`` (an empty file for each finished chunk) and ``key.json``. A run that was cut off finds
there what is left to do; one with another key starts anew.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eocausal.contracts import check_embedding
from eocausal.encoders.core import Float32
from eocausal.errors import EncoderError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["PartialStore", "Skeleton", "check_free", "lazy_embedding", "open_embedding"]

_NAME = "embedding"


@dataclass(frozen=True, slots=True)
class Skeleton:
    """An embedding without its features."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    coords: dict[str, Any]
    attrs: dict[str, str]

    def filled(self, features: Float32) -> xr.DataArray:
        """Put features in."""
        import xarray as xr

        return xr.DataArray(features, self.coords, self.dims, name=_NAME, attrs=self.attrs)


@dataclass(frozen=True, slots=True)
class PartialStore:
    """An embedding that is being made for ``out``; ``rows`` neighborhoods are a chunk."""

    out: Path
    key: str
    rows: int

    @property
    def folder(self) -> Path:
        """Where the parts are."""
        return self.out.with_name(self.out.name + ".partial")

    @property
    def _store(self) -> Path:
        return self.folder / "store"

    def _marker(self, start: int) -> Path:
        return self.folder / "done" / f"{start // self.rows:06d}"

    def done(self, start: int) -> bool:
        """Whether the chunk that begins at row ``start`` is finished."""
        return self._marker(start).exists()

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the place, so that two processes do not make one embedding.

        Raises
        ------
        EncoderError
            If another process holds it, or something else is there.
        """
        from filelock import FileLock, Timeout

        with _telling(self.out):
            self.out.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.out.with_name(self.out.name + ".lock"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise EncoderError(
                    f"{self.out} is being made by another process.",
                    cause=f"It holds {lock.lock_file}.",
                    next_step="Wait for it, or give another out=....",
                ) from None
        try:
            yield
        finally:
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)

    def prepare(self, skeleton: Skeleton) -> None:
        """Make the empty store, or keep the one of a run that was cut off.

        Raises
        ------
        EncoderError
            If something else is in the way, or it cannot be written.
        """
        ours = not self.folder.exists() or (self.folder / "key.json").is_file()
        if not ours and any(self.folder.iterdir()):
            raise _in_the_way(self.folder, "an embedding that was cut off")
        with _telling(self.out):
            if self._current():
                for left in self._store.rglob("*.partial"):
                    left.unlink()
                return
            shutil.rmtree(self.folder, ignore_errors=True)
            (self.folder / "done").mkdir(parents=True)
            note = self.folder / "key.json"
            note.touch()  # the folder is ours from here on; the key follows when it is whole
            _create(self._store, skeleton, self.rows, self.key)
            note.write_text(json.dumps(self.key), encoding="utf-8")

    def _current(self) -> bool:
        try:
            note = (self.folder / "key.json").read_text(encoding="utf-8")
            return bool(json.loads(note) == self.key) and self._store.is_dir()
        except (OSError, ValueError):
            return False

    def write(self, start: int, features: Float32) -> None:
        """Write the chunk that begins at row ``start`` and mark it.

        Raises
        ------
        EncoderError
            If it cannot be written; what is marked stays.
        """
        import zarr

        with _telling(self.out):
            array: Any = zarr.open_group(self._store, mode="r+")[_NAME]
            array[start : start + len(features)] = features
            self._marker(start).touch()

    def finish(self) -> None:
        """Move the store to its place; an older embedding there is replaced."""
        with _telling(self.out):
            if self.out.exists():
                self.out.rename(self.folder / "replaced")
            os.replace(self._store, self.out)
            shutil.rmtree(self.folder, ignore_errors=True)


def check_free(out: Path) -> None:
    """Refuse a place where something else than an embedding is (``EncoderError``)."""
    if out.exists() and not (out / _NAME / "zarr.json").is_file():
        raise _in_the_way(out, "an embedding")


def _in_the_way(path: Path, what: str) -> EncoderError:
    return EncoderError(
        f"{path} exists and is not {what}.",
        cause="Writing there would delete it.",
        next_step="Give another out=..., or remove it yourself.",
    )


@contextmanager
def _telling(out: Path) -> Iterator[None]:
    """Turn what the file system says into a typed error."""
    try:
        yield
    except OSError as error:
        raise EncoderError(
            f"The embedding {out} cannot be written: {error.strerror or error}.",
            cause="The file system refused; chunks that are finished are kept.",
            next_step="Make room or take another place, and call encode again: with the same "
            "arguments it goes on where it stopped.",
        ) from error


def _create(store: Path, skeleton: Skeleton, rows: int, key: str) -> None:
    """Write everything but the features; labels as strings of any length."""
    import xarray as xr
    import zarr

    labels = xr.Dataset(coords=skeleton.coords)
    texts = {n: c.astype(object) for n, c in labels.coords.items() if c.dtype.kind == "U"}
    labels = labels.assign_coords(texts).drop_encoding()
    try:
        labels.to_zarr(store, mode="w", consolidated=False, zarr_format=3)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise EncoderError(
            f"The labels {', '.join(map(str, labels.coords))} cannot be stored.",
            cause=f"Zarr cannot hold one of them: {str(error).splitlines()[0]}.",
            next_step="Give numbers, text or dates as labels, of one plain type for each "
            "coordinate, e.g. cube.assign_coords(neighborhood=[...]).",
        ) from error
    group = zarr.open_group(store, mode="r+")
    group.attrs["eocausal_key"] = key
    group.create_array(
        _NAME,
        shape=skeleton.shape,
        chunks=(min(rows, max(skeleton.shape[0], 1)), *skeleton.shape[1:]),
        dtype="float32",
        fill_value=np.float32(np.nan),
        compressors=None,
        dimension_names=skeleton.dims,
        attributes=dict(skeleton.attrs),
    )


def lazy_embedding(path: Path) -> xr.DataArray:
    """Open a store; features are read when asked for.

    Raises
    ------
    EncoderError
        If there is no store, or it holds no embedding.
    """
    import xarray as xr

    if not path.is_dir():
        raise EncoderError(
            f"There is no embedding at {path}.",
            cause="The folder does not exist.",
            next_step="Make one with encode(cube, encoder, out=...).",
        )
    store = xr.open_zarr(path, consolidated=False, chunks=None)
    if _NAME not in store:
        raise EncoderError(
            f"The store {path} holds no variable 'embedding'.",
            cause=f"It holds {', '.join(map(str, store.variables)) or 'nothing'}.",
            next_step="Open the store that encode wrote; for a cube use open_cube.",
        )
    found: xr.DataArray = store[_NAME]
    return found


def open_embedding(path: Path | str) -> xr.DataArray:
    """Read an embedding that :func:`encode` wrote.

    Raises
    ------
    EncoderError
        If there is no store, or it holds no embedding.
    EmbeddingError
        If the embedding breaks its contract.
    """
    return check_embedding(lazy_embedding(Path(path)).load())
