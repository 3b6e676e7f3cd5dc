"""The Zarr store of a cube: one shard a task, markers beside it, and a rename at the end.

While a cube is being built it lives in ``<out>.parts/``: ``store/`` (the Zarr group), ``done/``
(one JSON a finished shard) and ``key.json``. A killed build finds there what is left to do;
one with another key starts again. The finished store replaces ``<out>`` by rename.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from eocausal.contracts import CUBE_DIMS, check_cube
from eocausal.errors import CubeError
from eocausal.ingest.gather import ShardJob, ShardResult, gather_shard
from eocausal.provenance import Failure

__all__ = ["Parts", "open_cube", "read_failures", "stored_key", "write_shard"]

KEY: Final = "eocausal_key"
_FAILURES: Final = "failures"
_SHARD_BYTES: Final = 128 * 2**20


def open_cube(path: str | Path) -> xr.Dataset:
    """Open a cube written by :func:`eocausal.build_cube`; pixels are read when asked for.

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
    cube = xr.open_zarr(path, consolidated=False, chunks=None).drop_vars(_FAILURES)
    texts = [n for n, c in cube.coords.items() if c.dtype.kind == "T"]
    cube = cube.assign_coords({n: cube[n].astype(object) for n in texts})
    for name in (*cube.coords, "valid", "status"):
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


def shard_length(n: int, periods: int, bands: int, size: int) -> int:
    """Neighborhoods per shard: an eighth of all, from 16 to 256, within 128 MiB of pixels."""
    chip = periods * bands * size * size * 4
    return max(1, min(max(16, -(-n // 8)), 256, n, _SHARD_BYTES // chip))


def write_shard(job: ShardJob) -> int:
    """Make one shard and write it whole, then mark it done; return its number of chips.

    This is the unit of work of the scheduler: it takes paths, numbers and names only and
    returns a number, so it may run in another process.
    """
    image, result = gather_shard(job)
    array = zarr.open_group(job.store, mode="r+")["image"]
    array[job.start : job.start + len(job.grids)] = image
    temporary = job.marker.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(result)), encoding="utf-8")
    os.replace(temporary, job.marker)
    return len(job.grids)


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

    def clear(self) -> None:
        """Remove what a build killed after its very end left behind."""
        if self._same_key():
            shutil.rmtree(self.folder)

    def _same_key(self) -> bool:
        try:
            note = (self.folder / "key.json").read_text(encoding="utf-8")
            return bool(json.loads(note) == self.key)
        except (OSError, ValueError):
            return False

    def prepare(self, shape: tuple[int, ...], length: int) -> None:
        """Make the folder and the empty store, or keep them if they have the same key."""
        if self._same_key() and (self.store / "image" / "zarr.json").is_file():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "done").mkdir(parents=True)
        group = zarr.open_group(self.store, mode="w", zarr_format=3)
        group.create_array(
            "image",
            shape=shape,
            dtype="float32",
            chunks=(1, *shape[1:]),
            shards=(length, *shape[1:]),
            fill_value=np.nan,
            compressors=zarr.codecs.BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),
            dimension_names=CUBE_DIMS,
        )
        (self.folder / "key.json").write_text(json.dumps(self.key), encoding="utf-8")

    def finish(
        self,
        arrays: dict[str, tuple[tuple[str, ...], NDArray[Any]]],
        attrs: dict[str, Any],
        failures: list[Failure],
    ) -> None:
        """Write everything beside the image, then move the store to its place."""
        group = zarr.open_group(self.store, mode="r+")
        text = json.dumps([asdict(f) for f in failures], ensure_ascii=False).encode()
        arrays = {**arrays, _FAILURES: (("failure_byte",), np.frombuffer(text, dtype=np.uint8))}
        for name, (dims, values) in arrays.items():
            _write_array(group, name, dims, values)
        group["image"].attrs["coordinates"] = "crs transform lon lat"
        group.attrs.update({**attrs, KEY: self.key})
        if self.out.exists():
            self.out.rename(self.folder / "replaced")
        os.replace(self.store, self.out)
        shutil.rmtree(self.folder)


def _write_array(group: Any, name: str, dims: tuple[str, ...], values: NDArray[Any]) -> None:
    dtype: Any = "str" if values.dtype.kind in "OUT" else values.dtype
    if name in group:
        del group[name]
    array = group.create_array(
        name, shape=values.shape, chunks=values.shape, dtype=dtype, dimension_names=dims
    )
    array[...] = values.astype(object) if dtype == "str" else values
