"""The Zarr store of a cube: one shard a task, markers beside it, and a rename at the end.

While a cube is being built it lives in ``<out>.parts/``: ``store/`` (the Zarr group), ``done/``
(one JSON a finished shard) and ``key.json``. A killed build finds there what is left to do;
one with another key starts again. The finished store replaces ``<out>`` by rename.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
import zarr
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from eocausal.contracts import CUBE_DIMS, check_cube
from eocausal.errors import CubeError
from eocausal.ingest.packing import Packing
from eocausal.ingest.shards import compressor
from eocausal.provenance import Failure

__all__ = ["Parts", "ShardResult", "open_cube", "read_failures", "shard_length", "stored_key"]

KEY: Final = "eocausal_key"
_FAILURES: Final = "failures"
_SHARD_BYTES: Final = 128 * 2**20


@dataclass(slots=True)
class ShardResult:
    """What became of the chips of one shard: plain lists, so that it can be kept as JSON.

    ``valid``, ``status``, ``looks`` and ``day`` have a row a chip and a column a period (``day`` is
    None where unknown); ``used[period]`` holds the dates of the looks that gave pixels ('' for
    undated ones); ``failed`` one ``(asset, chip, message)`` for each asset that could not be read.
    """

    valid: list[list[float]] = field(default_factory=list)
    status: list[list[int]] = field(default_factory=list)
    looks: list[list[int]] = field(default_factory=list)
    day: list[list[float | None]] = field(default_factory=list)
    used: list[list[str]] = field(default_factory=list)
    failed: list[tuple[int, int, str]] = field(default_factory=list)
    bytes_read: int = 0


def open_cube(path: str | Path) -> xr.Dataset:
    """Open a cube written by :func:`eocausal.build_cube`; pixels are read when asked for.

    The rows are in the order of the store, in which neighbors on the ground are neighbors in the
    file, and not in that of the table of neighborhoods: select by label.

    Raises
    ------
    CubeError
        If there is no cube at ``path``, or it breaks its contract.
    """
    path = Path(path)
    if stored_key(path) is None:
        raise CubeError(
            f"There is no finished cube at {path}.",
            cause="The folder is absent, or was not written by eocausal.",
            next_step="Build it with eocausal.build_cube(..., out=...).",
        )
    raw = xr.open_zarr(path, consolidated=False, chunks=None, mask_and_scale=False)
    raw = raw.drop_vars(_FAILURES)
    for name in ("scale_factor", "add_offset"):
        if name in raw["image"].attrs:
            raw["image"].attrs[name] = np.float32(raw["image"].attrs[name])
    cube = xr.decode_cf(raw)
    texts = [n for n, c in cube.coords.items() if c.dtype.kind == "T"]
    cube = cube.assign_coords({n: cube[n].astype(object) for n in texts})
    for name in (*cube.coords, *(v for v in cube.data_vars if v != "image")):
        cube[name].load()
    return check_cube(cube)


def stored_key(path: Path) -> str | None:
    """Key of the finished cube at ``path``; None if there is none."""
    try:
        content = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    key = content.get("attributes", {}).get(KEY)
    return str(key) if key else None


def read_failures(path: Path) -> list[Failure]:
    """Read the failures recorded in a finished cube."""
    raw = np.asarray(zarr.open_group(path, mode="r")[_FAILURES][:], dtype=np.uint8)
    return [Failure(**row) for row in json.loads(raw.tobytes() or b"[]")]


def shard_length(n: int, chunk_bytes: int) -> int:
    """Neighborhoods per shard: an eighth of all, from 16 to 256, within 128 MiB of pixels."""
    return max(1, min(max(16, -(-n // 8)), 256, n, _SHARD_BYTES // chunk_bytes))


@dataclass(frozen=True, slots=True)
class Parts:
    """The folder of a cube being built."""

    out: Path
    key: str

    @property
    def folder(self) -> Path:
        """Where the parts are."""
        return self.out.with_name(self.out.name + ".parts")

    @property
    def store(self) -> Path:
        """The Zarr group being filled."""
        return self.folder / "store"

    def marker(self, index: int) -> Path:
        """Name the file that says shard ``index`` is done."""
        return self.folder / "done" / f"{index:06d}.json"

    def result(self, index: int) -> ShardResult:
        """Read what became of a finished shard."""
        return ShardResult(**json.loads(self.marker(index).read_text(encoding="utf-8")))

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the folder while building, so that two processes do not build one cube.

        Raises
        ------
        CubeError
            If another process is building it now.
        """
        self.out.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.out.with_name(self.out.name + ".lock"))
        try:
            with lock.acquire(timeout=0):
                try:
                    yield
                finally:
                    Path(lock.lock_file).unlink(missing_ok=True)
        except Timeout:
            raise CubeError(
                f"{self.out} is being built by another process.",
                cause=f"It holds {lock.lock_file}.",
                next_step="Wait for it, or give another out=....",
            ) from None

    def clear(self) -> None:
        """Remove what a build killed after its very end left behind."""
        if self.current():
            self._remove()

    def _remove(self) -> None:
        """Remove the folder, and last the file that says whose it is."""
        for name in ("store", "done", "replaced"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def current(self) -> bool:
        """Whether the folder is still that of this build."""
        try:
            note = (self.folder / "key.json").read_text(encoding="utf-8")
            return bool(json.loads(note) == self.key)
        except (OSError, ValueError):
            return False

    def prepare(self, shape: tuple[int, ...], chunk: int, length: int, packing: Packing) -> None:
        """Make the folder and the empty store, or keep them if they have the same key.

        Raises
        ------
        CubeError
            If the folder of parts is there and was not made by a build.
        """
        if self.current() and (self.store / "image" / "zarr.json").is_file():
            return
        ours = not self.folder.exists() or (self.folder / "key.json").is_file()
        if not ours and any(self.folder.iterdir()):
            raise CubeError(
                f"{self.folder} exists and is not a build that was interrupted.",
                cause="Building there would delete it.",
                next_step="Give another out=..., or remove it yourself.",
            )
        self._remove()
        self.folder.mkdir(parents=True)
        (self.folder / "key.json").write_text(json.dumps(self.key), encoding="utf-8")
        (self.folder / "done").mkdir()
        group = zarr.open_group(self.store, mode="w", zarr_format=3)
        group.create_array(
            "image",
            shape=shape,
            dtype=packing.dtype,
            chunks=(1, chunk, *shape[2:]),
            shards=(length, chunk, *shape[2:]),
            fill_value=packing.fill,
            compressors=compressor(),
            dimension_names=CUBE_DIMS,
        )
        group["image"].attrs.update(packing.attributes)

    def finish(
        self,
        arrays: dict[str, tuple[tuple[str, ...], NDArray[Any]]],
        attrs: dict[str, Any],
        failures: list[Failure],
    ) -> None:
        """Write everything beside the image, then move the store to its place.

        What a killed worker left of a shard is removed.
        """
        for left in self.store.rglob("*.tmp"):
            left.unlink()
        group = zarr.open_group(self.store, mode="r+")
        text = json.dumps([asdict(f) for f in failures], ensure_ascii=False).encode()
        arrays = {**arrays, _FAILURES: (("failure_byte",), np.frombuffer(text, dtype=np.uint8))}
        for name, (dims, values) in arrays.items():
            _write_array(group, name, dims, values)
        group["image"].attrs["coordinates"] = "crs transform lon lat"
        group["date"].attrs.update(units="days since 1970-01-01", calendar="standard")
        group.attrs.update({**attrs, KEY: self.key})
        if self.out.exists():
            self.out.rename(self.folder / "replaced")
        os.replace(self.store, self.out)
        self._remove()


def _write_array(group: Any, name: str, dims: tuple[str, ...], values: NDArray[Any]) -> None:
    dtype: Any = "str" if values.dtype.kind in "OUT" else values.dtype
    if name in group:
        del group[name]
    array = group.create_array(
        name, shape=values.shape, chunks=values.shape, dtype=dtype, dimension_names=dims
    )
    array[...] = values.astype(object) if dtype == "str" else values
