"""The files a study reads: finding them, and knowing them by their content."""

from __future__ import annotations

import glob
import json
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from eocausal.errors import StudyError
from eocausal.provenance import hash_file, hash_json, write_json
from eocausal.studies.load import StudyFile

__all__ = ["FileHashes", "digests", "image_files", "input_files"]

_IMAGE_SUFFIXES = (".tif", ".tiff")


def image_files(file: StudyFile) -> list[Path]:
    """List the GeoTIFFs of a study, sorted: those of folders, patterns and single names.

    What a run left in such a folder is no image of the study.

    Raises
    ------
    StudyError
        If there is none.
    """
    found: set[Path] = set()
    for name in file.study.data.imagery.files:
        path = file.root / name
        if path.is_dir():
            found |= {p for p in path.rglob("*") if p.suffix.lower() in _IMAGE_SUFFIXES}
        elif path.is_file():
            found.add(path)
        else:
            found |= {Path(p) for p in glob.glob(str(path), recursive=True)}
    runs = {folder for folder in {p.parent for p in found} if _in_run_folder(folder, file.root)}
    found = {p for p in found if p.parent not in runs}
    if not found:
        raise StudyError(
            f"There is no image in {', '.join(file.study.data.imagery.files)} of {file.root}.",
            cause="A study needs GeoTIFFs (.tif, .tiff).",
            next_step="Check data.root and data.imagery.files.",
        )
    return sorted(found)


def _in_run_folder(folder: Path, root: Path) -> bool:
    within = [f for f in (folder, *folder.parents) if f != root and f.is_relative_to(root)]
    return any((f / ".stages").is_dir() for f in within)


def _with_siblings(paths: list[Path]) -> list[Path]:
    """Add the files that go with each: the parts of a Shapefile, an image's sidecar."""
    beside: dict[Path, dict[str, list[Path]]] = {}
    out: set[Path] = set()
    for path in paths:
        if path.parent not in beside:
            by_stem: dict[str, list[Path]] = defaultdict(list)
            for other in path.parent.iterdir():
                if other.is_file():
                    by_stem[other.name.partition(".")[0]].append(other)
            beside[path.parent] = by_stem
        out.update(beside[path.parent][path.name.partition(".")[0]])
        out.add(path)
    return sorted(out)


def input_files(file: StudyFile) -> dict[str, list[Path]]:
    """List every file a study reads, by what it is.

    Raises
    ------
    StudyError
        If one is missing.
    """
    data, report = file.study.data, file.study.report
    named = {"units": data.units.file, "neighborhoods": data.neighborhoods.file}
    if report.truth is not None:
        named["truth"] = report.truth
    if data.encoder.model is not None and data.encoder.model.weights is not None:
        named["weights"] = data.encoder.model.weights
    groups: dict[str, list[Path]] = {}
    for what, name in named.items():
        path = file.root / name
        if not path.is_file():
            raise StudyError(
                f"There is no file {path}.",
                cause=f"The study names it for its {what}.",
                next_step="Check the name and data.root.",
            )
        groups[what] = _with_siblings([path]) if what == "neighborhoods" else [path]
    groups["imagery"] = _with_siblings(image_files(file))
    return groups


@dataclass(slots=True)
class FileHashes:
    """Hashes of files, remembered by size and time of change so that none is read twice."""

    note: Path
    known: dict[str, tuple[int, int, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.note.exists():
            with suppress(ValueError, TypeError, AttributeError):
                stored = json.loads(self.note.read_text(encoding="utf-8"))
                self.known = {
                    name: (size, time, digest) for name, (size, time, digest) in stored.items()
                }

    def of(self, path: Path) -> str:
        """Return the sha256 of a file."""
        state = path.stat()
        size, time, digest = self.known.get(str(path), (-1, -1, ""))
        if (size, time) != (state.st_size, state.st_mtime_ns):
            digest = hash_file(path)
            self.known[str(path)] = (state.st_size, state.st_mtime_ns, digest)
        return digest

    def groups(self, files: dict[str, list[Path]], root: Path) -> dict[str, dict[str, str]]:
        """Return the hash of every file by group and name relative to ``root``; remember them."""
        before = dict(self.known)
        found = {
            what: {
                (p.relative_to(root) if p.is_relative_to(root) else p).as_posix(): self.of(p)
                for p in paths
            }
            for what, paths in files.items()
        }
        if self.known != before:
            write_json(self.note, self.known)
        return found


def digests(groups: dict[str, dict[str, str]]) -> dict[str, str]:
    """Return one hash for each group of files."""
    return {what: hash_json(files) for what, files in groups.items()}
