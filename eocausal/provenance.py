"""Hashes, versions, the ledger of failures and the content-addressed cache of stages.

Outputs appear whole or not at all: they are written beside their place and renamed
(:func:`atomic_path`). A stage is known by the hash of its parameters and of its inputs'
hashes (:class:`StageCache`), so that a second run does nothing and a killed one resumes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "Failure",
    "FailureLedger",
    "StageCache",
    "atomic_path",
    "hash_file",
    "hash_json",
    "hash_tree",
    "versions",
    "write_json",
]


def _plain(value: Any) -> Any:
    """Turn dataclasses, paths, dates and numpy scalars into JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: getattr(value, f.name) for f in fields(value)}
        return {"__class__": type(value).__name__, **parts}
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def hash_json(value: Any) -> str:
    """Hash a value through its canonical JSON form (sha256, hexadecimal)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_file(path: Path | str) -> str:
    """Hash a file's bytes (sha256, hexadecimal)."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_tree(path: Path | str) -> str:
    """Hash a file, or a folder by the names and bytes of all its files."""
    path = Path(path)
    if path.is_file():
        return hash_file(path)
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        digest.update(bytes.fromhex(hash_file(file)))
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of eocausal and of the packages its numbers depend on."""
    from importlib.metadata import PackageNotFoundError, version

    names = (
        "eocausal", "numpy", "scipy", "pandas", "scikit-learn", "xarray", "zarr", "dask",
        "rasterio", "geopandas", "pyproj", "shapely", "torch", "torchvision",
    )  # fmt: skip
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@contextmanager
def atomic_path(target: Path | str) -> Iterator[Path]:
    """Give a temporary path beside ``target`` that becomes ``target`` if the block succeeds.

    The file or folder written there replaces an older ``target`` by rename; if the block
    raises (or is interrupted) the temporary is removed and ``target`` stays as it was.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    temporary = holder / target.name
    try:
        yield temporary
        if not temporary.exists():
            raise FileNotFoundError(f"nothing was written to {temporary}")
        if target.is_dir() or temporary.is_dir():
            with suppress(FileNotFoundError):
                target.rename(holder / ".replaced")
        os.replace(temporary, target)
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def write_json(target: Path | str, value: Any) -> None:
    """Write a value as indented JSON, whole or not at all; NaN becomes null."""
    with atomic_path(target) as temporary:
        plain = json.loads(json.dumps(value, default=_plain), parse_constant=lambda _: None)
        text = json.dumps(plain, indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Failure:
    """One scene or chip that could not be used.

    ``kind`` is ``'scene'`` or ``'chip'``; ``subject`` the file or neighborhood id; ``period`` the
    period label where there is one; ``reason`` a short stable word (``'read_error'``,
    ``'outside'``, ``'nodata_only'``, ``'band_missing'``, ``'no_crs'``, ...); ``detail`` a sentence.
    """

    stage: str
    kind: str
    subject: str
    reason: str
    detail: str = ""
    period: str = ""


@dataclass(slots=True)
class FailureLedger:
    """Every failure of a run, so that none is lost in silence; written as parquet."""

    rows: list[Failure] = field(default_factory=list)

    def add(self, failure: Failure) -> None:
        """Record one failure."""
        self.rows.append(failure)

    def to_frame(self) -> Any:
        """Return a DataFrame, sorted so that it does not depend on the order of work."""
        import pandas as pd

        columns = list(Failure.__dataclass_fields__)
        frame = pd.DataFrame([asdict(r) for r in self.rows], columns=columns).astype("string")
        return frame.drop_duplicates().sort_values(columns, ignore_index=True)

    def write(self, path: Path | str) -> None:
        """Write the ledger as parquet, whole or not at all."""
        with atomic_path(path) as temporary:
            self.to_frame().to_parquet(temporary, index=False)

    @classmethod
    def read(cls, path: Path | str) -> FailureLedger:
        """Read a ledger written by :meth:`write`; an absent file is an empty ledger."""
        import pandas as pd

        if not Path(path).exists():
            return cls()
        records = pd.read_parquet(path).to_dict("records")
        return cls([Failure(**{str(k): str(v) for k, v in r.items()}) for r in records])


@dataclass(frozen=True, slots=True)
class StageCache:
    """Remembers which stage made which outputs, by content.

    ``folder/<stage>.json`` holds the key (hash of parameters and input hashes) and the hash of
    every output. A stage is fresh if its key is the same and its outputs still hash as noted.
    """

    folder: Path

    def _note(self, stage: str) -> Path:
        return self.folder / f"{stage}.json"

    def key(self, stage: str, parameters: Any, inputs: dict[str, str]) -> str:
        """Hash what determines a stage's outputs."""
        return hash_json({"stage": stage, "parameters": parameters, "inputs": inputs})

    def fresh(self, stage: str, key: str) -> dict[str, str] | None:
        """Return the outputs' hashes if the stage need not run again, else None."""
        note = self._note(stage)
        if not note.exists():
            return None
        try:
            record = json.loads(note.read_text(encoding="utf-8"))
            known: str = record["key"]
            outputs: dict[str, str] = dict(record["outputs"])
        except (ValueError, KeyError, TypeError):
            return None
        if known != key:
            return None
        for name, digest in outputs.items():
            path = self.folder.parent / name
            if not path.exists() or hash_tree(path) != digest:
                return None
        return outputs

    def store(self, stage: str, key: str, outputs: list[str]) -> dict[str, str]:
        """Note a finished stage; ``outputs`` are names relative to the run folder."""
        hashes = {name: hash_tree(self.folder.parent / name) for name in outputs}
        write_json(self._note(stage), {"stage": stage, "key": key, "outputs": hashes})
        return hashes
