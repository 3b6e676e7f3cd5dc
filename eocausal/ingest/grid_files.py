"""Open gridded files: one handle a file and process, windows of stored numbers."""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import h5py  # type: ignore[import-untyped]
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from eocausal.ingest.assets import Asset, Box
from eocausal.ingest.cf import Layout, Packing, Refused, layout_of, packing_of

__all__ = [
    "ZARR_MARKS",
    "GridReader",
    "GridSource",
    "close_idle",
    "common_dtype",
    "common_fill",
    "open_dataset",
    "open_grid",
]

ZARR_MARKS: Final = ("zarr.json", ".zgroup", ".zmetadata")
_IDLE_FILES: Final = 8
_SLAB_BYTES: Final = 64 * 2**20
_SMALL_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True)
class GridSource:
    """A file, and what of it is wanted that its bands alone do not say.

    The href of a scene is the path, followed, only where needed, by ``#`` and JSON: ``variables``
    (the variable behind each band that has another name) and ``select`` (the position along each
    further dimension).
    """

    path: str
    variables: Mapping[str, str] = field(default_factory=dict)
    select: Mapping[str, int] = field(default_factory=dict)

    @property
    def href(self) -> str:
        """Path and wishes as one text."""
        wishes = {"variables": dict(self.variables), "select": dict(self.select)}
        wishes = {k: v for k, v in wishes.items() if v}
        return self.path + ("#" + json.dumps(wishes, sort_keys=True) if wishes else "")

    @classmethod
    def parse(cls, href: str) -> GridSource:
        """Take apart what :attr:`href` put together."""
        path, mark, text = href.partition("#{")
        return cls(path, **json.loads("{" + text)) if mark else cls(href)


def open_dataset(path: str) -> xr.Dataset:
    """Open NetCDF-3, NetCDF-4/HDF5 or a Zarr store; nothing is decoded and no pixel is read.

    Raises
    ------
    OSError
        If it is none of these, or is damaged.
    """
    options: dict[str, Any] = {"engine": _engine(path)}
    if options["engine"] == "zarr":
        options["consolidated"] = False
    if options["engine"] == "h5netcdf":
        options["phony_dims"] = "access"
    try:
        return xr.open_dataset(
            path, mask_and_scale=False, decode_times=False, decode_coords=False,
            decode_timedelta=False, cache=False, **options,
        )  # fmt: skip
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"it cannot be opened: {_said(error)}") from error


def _engine(path: str) -> str:
    if os.path.isdir(path):
        if any((Path(path) / mark).exists() for mark in ZARR_MARKS):
            return "zarr"
        raise OSError("the folder is not a Zarr store")
    with open(path, "rb") as stream:
        start = stream.read(8)
    if start[:3] == b"CDF":
        return "scipy"
    if start == b"\x89HDF\r\n\x1a\n":
        return "h5netcdf"
    if start[:4] == b"\x0e\x03\x13\x01":
        raise OSError("it is HDF4: convert it to NetCDF-4 first (h4toh5, or ncks -4)")
    raise OSError("it is neither NetCDF nor HDF5")


def _said(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def common_dtype(packings: Sequence[Packing]) -> np.dtype[Any]:
    """Smallest type that holds the stored numbers of all variables."""
    return np.result_type(*(p.dtype for p in packings))


def common_fill(packings: Sequence[Packing]) -> float:
    """Return the one stored number that means no data in all variables; NaN if there is none."""
    fills = {p.fills for p in packings}
    first = next(iter(fills))
    if len(fills) > 1 or len(first) != 1 or float(first[0]) != first[0]:
        return float("nan")
    return float(first[0])


class _Slabs:
    """Pieces of all steps that are stored together, so that each is decoded once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[tuple[Any, ...], NDArray[Any]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def fits(self, size: int) -> bool:
        return size <= self._limit // 4

    def get(self, key: tuple[Any, ...]) -> NDArray[Any] | None:
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
            return self._held.get(key)

    def put(self, key: tuple[Any, ...], slab: NDArray[Any]) -> None:
        with self._lock:
            if key not in self._held:
                self._held[key] = slab
                self._bytes += slab.nbytes
            while self._bytes > self._limit:
                self._bytes -= self._held.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        with self._lock:
            self._held.clear()
            self._bytes = 0


_slabs = _Slabs(_SLAB_BYTES)


class _OpenFile:
    """One open file, shared by the readers of all its steps; any thread may read."""

    def __init__(self, path: str, key: tuple[Any, ...]) -> None:
        self.dataset = open_dataset(path)
        self.key = key
        self.readers = 0
        self._layouts: dict[str, tuple[Layout, Packing]] = {}
        self._hdf = h5py.File(path, "r") if _engine(path) == "h5netcdf" else None

    def close(self) -> None:
        self.dataset.close()
        if self._hdf is not None:
            self._hdf.close()

    def variable(self, name: str) -> tuple[Layout, Packing]:
        """Layout and packing of a variable; KeyError if it is not there or not on a grid."""
        if name not in self._layouts:
            layout = layout_of(self.dataset, name)
            if layout is None:
                raise KeyError(name)
            self._layouts[name] = layout, packing_of(self.dataset.variables[name])
        return self._layouts[name]

    def read(self, name: str, step: int, select: Mapping[str, int], box: Box) -> NDArray[Any]:
        """Read the stored numbers of a window of one step, shape (height, width).

        Steps that are stored together, or that are so small that reading many costs no more than
        one, are read together and kept for a while.
        """
        layout, packing = self.variable(name)
        left, top, width, height = box
        at: dict[str, int | slice] = {d: select.get(d, 0) for d in layout.others}
        at |= {layout.y: slice(top, top + height), layout.x: slice(left, left + width)}
        if layout.time is None:
            return self._part(name, at)
        step_bytes = width * height * packing.dtype.itemsize
        chunks = self.dataset.variables[name].encoding.get("preferred_chunks") or {}
        depth = int(chunks.get(layout.time, max(1, _SMALL_BYTES // max(step_bytes, 1))))
        if depth == 1 or not _slabs.fits(depth * step_bytes):
            return self._part(name, {**at, layout.time: step})
        first = step // depth * depth
        last = min(first + depth, self.dataset.sizes[layout.time])
        key = (*self.key, name, tuple(sorted(select.items())), first, box)
        slab = _slabs.get(key)
        if slab is None:
            slab = self._part(name, {**at, layout.time: slice(first, last)})
            _slabs.put(key, slab)
        plane: NDArray[Any] = slab[step - first].copy()
        return plane

    def _part(self, name: str, at: Mapping[str, int | slice]) -> NDArray[Any]:
        """Read part of a variable in the order time, rows, columns, as its packing means it."""
        layout, packing = self.variable(name)
        variable = self.dataset.variables[name]
        dims = [str(d) for d in variable.dims]
        index = tuple(at[d] for d in dims)
        values = self._direct(name, variable.shape, index)
        if values is None:
            values = np.asarray(variable[index].values)
        left = [d for d in dims if isinstance(at[d], slice)]
        order = [left.index(d) for d in (layout.time, layout.y, layout.x) if d in left]
        values = values.transpose(order)
        if values.dtype.kind != packing.dtype.kind and values.dtype.kind in "iu":
            values = values.astype(values.dtype.newbyteorder("=")).view(packing.dtype)
        return values.astype(packing.dtype, copy=False)

    def _direct(
        self, name: str, shape: tuple[int, ...], index: tuple[int | slice, ...]
    ) -> NDArray[Any] | None:
        """Read from HDF5 itself, many times faster than through h5netcdf; None if it is padded."""
        stored = self._hdf.get(name) if self._hdf is not None else None
        if stored is None or stored.shape != shape:
            return None
        return np.asarray(stored[index])


_lock = threading.Lock()
_files: OrderedDict[tuple[Any, ...], _OpenFile] = OrderedDict()


def _acquire(path: str) -> _OpenFile:
    """Return the open file; opened anew if it changed on disk, or in another process."""
    marks = [Path(path) / m for m in ZARR_MARKS] if os.path.isdir(path) else [Path(path)]
    stats = [m.stat() for m in marks if m.exists()]
    if not stats:
        raise FileNotFoundError(f"there is no {path}")
    key = (os.getpid(), path, *((s.st_ino, s.st_mtime_ns, s.st_size) for s in stats))
    with _lock:
        file = _files.get(key)
        if file is None:
            file = _files[key] = _OpenFile(path, key)
        _files.move_to_end(key)
        file.readers += 1
        return file


def _release(file: _OpenFile) -> None:
    """Give a file back; a few that no one uses stay open for the next step."""
    with _lock:
        file.readers -= 1
        _close_idle(_IDLE_FILES)


def _close_idle(keep: int) -> None:
    idle = [f for f in _files.values() if f.readers == 0]
    for old in idle[: max(len(idle) - keep, 0)]:
        del _files[old.key]
        old.close()


def close_idle() -> None:
    """Close files that no reader uses, and forget what was kept of them.

    A run calls it at its end: an HDF5 file that is still open cannot be written anew.
    """
    with _lock:
        _close_idle(0)
    _slabs.clear()


class GridReader:
    """Reads windows of one step of a gridded file (:class:`eocausal.ingest.assets.Reader`).

    Stored numbers are returned as they lie in the file: rows as stored, packed, nothing masked.
    Variables of several types are brought to one that holds them all. The file itself is open
    once a process, whatever the number of steps and threads. Where several steps are stored in
    one piece, all of them are kept for a while, so that the piece is decoded once.

    Parameters
    ----------
    asset
        With ``step`` not None.

    Raises
    ------
    OSError
        If the file cannot be opened, or is not what it was when it was scanned.
    """

    def __init__(self, asset: Asset) -> None:
        if asset.step is None:
            raise OSError("it is not a step of a gridded file")
        self._asset = asset
        self._source = GridSource.parse(asset.href)
        self._names = [self._source.variables.get(b, b) for b in asset.bands]
        self._step = asset.step
        self._dtype = np.dtype(asset.dtype)
        self._file: _OpenFile | None = _acquire(self._source.path)
        try:
            self._packings = [self._checked(self._file, n) for n in self._names]
        except BaseException:
            self.close()
            raise
        fill = common_fill(self._packings)
        self._own_mask = any(p.fills for p in self._packings) and fill != asset.nodata

    def _checked(self, file: _OpenFile, name: str) -> Packing:
        try:
            layout, packing = file.variable(name)
        except (KeyError, Refused) as error:
            raise OSError(f"it has no variable {name!r} on a grid any more") from error
        sizes = file.dataset.sizes
        if (sizes[layout.x], sizes[layout.y]) != (self._asset.grid.width, self._asset.grid.height):
            raise OSError("its size is not what it was when it was scanned")
        if layout.time is not None and not 0 <= self._step < sizes[layout.time]:
            raise OSError("it has fewer steps than when it was scanned")
        return packing

    def read(self, bands: Sequence[int], box: Box) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Read bands of a window, see :meth:`eocausal.ingest.assets.Reader.read`.

        ``known`` is given only where a single nodata value could not say which pixels are good:
        variables with different fill values, or several each.
        """
        if self._file is None:
            raise OSError("the reader is closed")
        _, _, width, height = box
        values = np.empty((len(bands), height, width), dtype=self._dtype)
        known = np.ones(values.shape, dtype=np.bool_) if self._own_mask else None
        for k, band in enumerate(bands):
            stored = self._plane(self._file, self._names[band], box)
            values[k] = stored
            if known is not None:
                fills = np.array(self._packings[band].fills, dtype=stored.dtype)
                known[k] = ~np.isin(stored, fills)
        return values, known

    def _plane(self, file: _OpenFile, name: str, box: Box) -> NDArray[Any]:
        try:
            stored = file.read(name, self._step, self._source.select, box)
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"{name!r} cannot be read: {_said(error)}") from error
        if stored.shape != (box[3], box[2]):
            raise OSError(f"the window {box} of {name!r} reaches beyond the grid")
        return stored

    def close(self) -> None:
        """Give back the file."""
        file, self._file = self._file, None
        if file is not None:
            _release(file)


def open_grid(asset: Asset) -> GridReader:
    """Open one step of a gridded file, see :class:`GridReader`."""
    return GridReader(asset)
