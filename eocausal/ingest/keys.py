"""The key of a cube: a hash of everything that the bytes of its store depend on."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

from eocausal.ingest.grid_files import GridSource
from eocausal.ingest.remote import is_remote, unsigned
from eocausal.ingest.spec import CubeSpec
from eocausal.provenance import hash_json

__all__ = ["build_key"]

_FORMAT: Final = 3
_WHOLE_FILE: Final = 64 * 2**20
_EDGE: Final = 2**20


def _fingerprint(href: str, known: dict[str, str]) -> str:
    """Hash a file and the mask beside it: bytes up to 64 MiB, else size, time and both ends."""
    if href not in known:
        path = Path(GridSource.parse(href).path)
        if is_remote(href) or not path.exists():
            known[href] = href
        elif path.is_dir():
            known[href] = hash_json([
                (str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns)
                for p in sorted(path.rglob("*")) if p.is_file()
            ])  # fmt: skip
        else:
            beside = path.with_name(path.name + ".msk")
            mask = f" {_digest(beside)}" if beside.is_file() else ""
            known[href] = _digest(path) + mask
    return known[href]


def _digest(path: Path) -> str:
    stat = path.stat()
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        if stat.st_size <= _WHOLE_FILE:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
        digest.update(stream.read(_EDGE))
        stream.seek(-_EDGE, os.SEEK_END)
        digest.update(stream.read(_EDGE))
    return digest.hexdigest()


def build_key(spec: CubeSpec, units: str) -> str:
    """Name everything that the bytes of the store depend on."""
    known = {h: f"{h} {v}" for h, v in spec.versions.items()}
    arrays = hashlib.sha256()
    layers, pairs, chips = spec.layers, spec.pairs, spec.chips
    for array in (layers.look, layers.asset, layers.band, layers.target, pairs.chip, pairs.grid,
                  chips.code, chips.transform):  # fmt: skip
        arrays.update(f"{array.dtype} {array.shape}".encode())
        arrays.update(array.tobytes())
    arrays.update("\n".join(map(str, spec.labels)).encode())
    return hash_json(
        {
            "format": _FORMAT,
            "arrays": arrays.hexdigest(),
            "crs": chips.names,
            "labels": str(spec.labels.dtype),
            "size": chips.size,
            "assets": [
                (a.name, _fingerprint(unsigned(a.href), known), a.grid, a.bands, repr(a.nodata),
                 a.scales, a.offsets, a.step) for a in spec.assets
            ],
            "classes": [c.owner for c in spec.classes],
            "looks": spec.looks,
            "members": spec.members,
            "periods": spec.periods,
            "recipe": repr(spec.recipe),
            "failures": list(spec.failures),
            "units": units,
        }
    )  # fmt: skip
