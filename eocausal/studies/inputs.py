"""The files a study reads: finding them, and knowing them by their content."""

from __future__ import annotations

import glob
import json
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from eocausal.errors import EmptyInputError, SceneError, StudyError
from eocausal.provenance import hash_file, hash_json, write_json
from eocausal.studies.encoders import cards_of
from eocausal.studies.impact_inputs import impact_files
from eocausal.studies.load import ImpactFile, IngestFile, OpenedFile
from eocausal.studies.schema import PlacesData, Study
from eocausal.studies.schema_evaluation import Evaluation
from eocausal.studies.schema_imagery import SourceSection

__all__ = [
    "FileHashes",
    "digests",
    "grid_files",
    "image_files",
    "input_files",
    "roots_of",
    "source_of",
]


def source_of(data: PlacesData, name: str) -> SourceSection:
    """Return the section that says where the scenes of ``imagery`` or ``panel`` come from."""
    section: SourceSection | None = getattr(data, name)
    if section is not None and section.sources:
        return section
    assert data.imagery is not None
    return data.imagery


def image_files(source: SourceSection) -> list[str]:
    """List the images of a source, sorted: those of folders, patterns, single names and URLs.

    What a run left in such a folder is no image of the study.

    Raises
    ------
    SceneError, EmptyInputError
        If a name leads nowhere, or there is no image.
    """
    from eocausal.ingest.remote import is_remote
    from eocausal.ingest.sources import list_images

    names, root = source.files or (), Path(source.root)
    found = list_images([n if is_remote(n) else str(root / n) for n in names])
    kept = _outside_runs([Path(f) for f in found if not is_remote(f)], root)
    images = sorted([*(f for f in found if is_remote(f)), *map(str, kept)])
    if not images:
        raise EmptyInputError(
            f"There is no image in {', '.join(names)} of {root}, but for what a run left.",
            cause="A study needs images (.tif, .tiff, .jp2).",
            next_step="Check data.root and data.imagery.files.",
        )
    return images


def grid_files(source: SourceSection) -> list[Path]:
    """List the paths of a source of gridded files, with patterns resolved.

    Raises
    ------
    SceneError
        If a name leads nowhere.
    """
    assert source.grids is not None
    found: set[Path] = set()
    for name in source.grids.files:
        path = Path(source.root) / name
        matches = {path} if path.exists() else {Path(p) for p in glob.glob(str(path))}
        if not matches:
            raise SceneError(
                f"There is no gridded file {path}.",
                cause="The path is wrong, or the file was moved.",
                next_step="Check data.root and grids.files.",
            )
        found |= matches
    return sorted(found)


def _outside_runs(paths: list[Path], root: Path) -> list[Path]:
    runs = {folder for folder in {p.parent for p in paths} if _in_run_folder(folder, root)}
    return [p for p in paths if p.parent not in runs]


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


def input_files(file: OpenedFile) -> dict[str, list[Path]]:
    """List every file a study reads, by what it is.

    Raises
    ------
    StudyError, SceneError, EmptyInputError
        If one is missing.
    """
    if isinstance(file, ImpactFile):
        return impact_files(file)
    assert isinstance(file, IngestFile)
    study = file.study
    named = {"neighborhoods": study.data.neighborhoods.file}
    if isinstance(study, Study):
        named = {"units": study.data.units.file, **named}
    if isinstance(study, Evaluation):
        named["projects"] = study.data.projects.file
        if study.data.outcomes is not None:
            named["outcomes"] = study.data.outcomes.file
    if isinstance(study, Study | Evaluation) and study.report.truth is not None:
        named["truth"] = study.report.truth
    named |= weights_of(study.data)
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
    for what in ("imagery", "panel"):
        section: SourceSection | None = getattr(study.data, what)
        if section is not None and section.sources:
            groups[what] = _source_files(file, section)
    return groups


def weights_of(data: PlacesData) -> dict[str, str]:
    """Return the names of the weights files of an encoder's model cards."""
    if data.encoder is None:
        return {}
    files = [c.weights for c in cards_of(data.encoder) if c.weights is not None]
    return {f"weights {k}": name for k, name in enumerate(files, start=1)}


def roots_of(file: OpenedFile) -> dict[str, Path]:
    """Return the folder that each group of input files is named within."""
    if isinstance(file, ImpactFile):
        return dict.fromkeys(impact_files(file), file.root)
    assert isinstance(file, IngestFile)
    data = file.study.data
    sections = {"imagery": data.imagery, "panel": data.panel}
    own = {what: Path(s.root) for what, s in sections.items() if s is not None}
    tables = ("units", "neighborhoods", "projects", "outcomes", "truth")
    named = (*tables, *weights_of(file.study.data))
    return {**dict.fromkeys(named, file.root), **own}


def _source_files(file: IngestFile, source: SourceSection) -> list[Path]:
    """List the local files that scenes come from; what is behind a URL is known by its lock."""
    from eocausal.ingest.remote import is_remote

    lock = file.root / source.lock if source.lock is not None else None
    locks = [lock] if lock is not None and lock.is_file() else []
    root = Path(source.root)
    if source.grids is not None:
        found = [f for p in grid_files(source) for f in _files_under(p)]
        return sorted(_outside_runs(found, root))
    if source.catalog is not None and not is_remote(source.catalog.address):
        address = root / source.catalog.address
        if not address.is_file():
            raise StudyError(
                f"There is no catalog {address}.",
                cause="The study names it for its scenes.",
                next_step="Check data.root and catalog.address.",
            )
        inside = _outside_runs(_files_under(address.parent), root)
        return sorted({*inside, *locks})
    if source.files is None:
        return locks
    local = [Path(f) for f in image_files(source) if not is_remote(f)]
    return _with_siblings(local)


def _files_under(path: Path) -> list[Path]:
    return [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]


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

    def groups(
        self, files: dict[str, list[Path]], roots: Mapping[str, Path]
    ) -> dict[str, dict[str, str]]:
        """Return the hash of every file by group and name within its root; remember them."""
        before = dict(self.known)
        found = {
            what: {
                (p.relative_to(r) if p.is_relative_to(r := roots[what]) else p).as_posix(): self.of(
                    p
                )
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
