"""Stages in a run folder, each known by its content, so that nothing is done twice."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from eocausal.errors import StudyError
from eocausal.provenance import StageCache, hash_file, hash_json, versions, write_json
from eocausal.studies.inputs import FileHashes, digests, input_files, roots_of
from eocausal.studies.progress import Advance, Reporter
from eocausal.studies.schema import Opening, Study
from eocausal.studies.schema_impact import ImpactStudy
from eocausal.studies.workspace import RunSpace

__all__ = ["Done", "Stage", "execute", "remove_stale", "resolved", "run_folder", "scope"]

W = TypeVar("W", bound=RunSpace)
W_contra = TypeVar("W_contra", bound=RunSpace, contravariant=True)

_NOT_CONTENT = ("root", "scheduler", "memory_gb")


@dataclass(frozen=True, slots=True)
class Stage(Generic[W_contra]):
    """One stage.

    Attributes
    ----------
    name
        Id in ``.stages``.
    title
        What it does, for the progress display.
    parameters
        The part of the study that it depends on.
    needs
        Groups of input files and names of stages that it depends on.
    work
        Does it and returns the names of its outputs within the run folder.
    one_thread
        Whether linear algebra is held to one thread, so that sums are taken in the same order, and
        the last digits are the same, on any number of cores.
    """

    name: str
    title: str
    parameters: Callable[[Any], Any]
    needs: tuple[str, ...]
    work: Callable[[W_contra, Advance], list[str]]
    one_thread: bool = True


def resolved(study: Opening) -> dict[str, Any]:
    """Return a study as plain values with every default written out; it reads back as equal."""
    plain = study.model_dump(mode="json", exclude_none=True, by_alias=True)
    if isinstance(study, Study):
        for name in ("heterogeneity", "map", "salience"):
            plain["estimate"].setdefault(name, False)
    if isinstance(study, ImpactStudy):
        plain.setdefault("breaks", False)
        for name in ("in_time", "in_space"):
            plain["checks"].setdefault(name, False)
    return plain


def scope(*parts: str) -> Callable[[Opening], Any]:
    """Return a function that picks parts of a study, as ``section.key``.

    Where the data are, and who reads them, is never among them.
    """

    def pick(study: Opening) -> Any:
        plain = resolved(study)
        for key in _NOT_CONTENT:
            plain["data"].pop(key, None)
        for name in ("imagery", "panel"):
            plain["data"].get(name, {}).pop("root", None)
        found = {}
        for part in parts:
            value: Any = plain
            for key in part.split("."):
                value = value.get(key) if isinstance(value, dict) else None
            found[part] = value
        return found

    return pick


@dataclass(slots=True)
class Done:
    """What was executed: titles of the stages that had to run, hashes of the input files."""

    ran: list[str]
    files: dict[str, dict[str, str]]
    timings: dict[str, float] = field(default_factory=dict)

    def write_provenance(self, space: RunSpace) -> None:
        """Write ``provenance.json``, if something ran or it is not there."""
        if not self.ran and (space.folder / "provenance.json").exists():
            return
        write_json(space.folder / "provenance.json", {
            "study": space.study.study,
            "file": space.file.path.name,
            "seed": space.study.seed,
            "versions": versions(),
            "inputs": {what: dict(group) for what, group in self.files.items()},
            "outputs": {n: h for n, h in space.hashes.items() if not n.startswith("inputs ")},
            "timings": {"finished": datetime.now(UTC).isoformat(timespec="seconds"),
                        "seconds": dict(self.timings)},
        })  # fmt: skip


def execute(
    stages: Sequence[Stage[W]], space: W, reporter: Reporter, more: Mapping[str, str] | None = None
) -> Done:
    """Run the stages whose parameters, inputs, code or outputs are not as they were.

    Parameters
    ----------
    stages
        In the order they run.
    space
        What they share; its ``hashes`` are filled.
    reporter
        Told of every stage.
    more
        Hashes of further things that stages need.
    """
    for left in space.folder.glob(".*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
    stored = StageCache(space.folder / ".stages")
    files = FileHashes(stored.folder / "files.json").groups(
        input_files(space.file), roots_of(space.file)
    )
    hashes = {**digests(files), **(more or {})}
    space.hashes.update({f"inputs {what}": digest for what, digest in digests(files).items()})
    done = Done([], files, _read_timings(stored.folder / "timings.json"))
    for stage in stages:
        key = stored.key(
            stage.name,
            {"study": stage.parameters(space.study), "versions": versions(), "code": _code()},
            {need: hashes[need] for need in stage.needs},
        )
        outputs = stored.fresh(stage.name, key)
        if outputs is None:
            outputs, seconds = _do(stage, key, stored, space, reporter)
            done.timings[stage.name] = seconds
            write_json(stored.folder / "timings.json", done.timings)
            done.ran.append(stage.title)
        else:
            reporter.done(stage.title)
        hashes[stage.name] = hash_json(outputs)
        space.hashes.update({n: h for n, h in outputs.items() if not n.startswith(".")})
    return done


def _do(
    stage: Stage[W], key: str, stored: StageCache, space: W, reporter: Reporter
) -> tuple[dict[str, str], float]:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    begin = time.perf_counter()
    limit = 1 if stage.one_thread else None
    with reporter.stage(stage.title) as advance, threadpool_limits(limit):
        outputs = stage.work(space, advance)
        hashes = stored.store(stage.name, key, outputs)
    return hashes, round(time.perf_counter() - begin, 3)


@cache
def _code() -> str:
    """Hash the package's own source, so that a changed installation never passes for the old."""
    package = Path(__file__).parents[1]
    sources = (p for p in package.rglob("*") if p.suffix in {".py", ".j2", ".css", ".js"})
    return hash_json({p.relative_to(package).as_posix(): hash_file(p) for p in sorted(sources)})


def _read_timings(path: Path) -> dict[str, float]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return {}


def remove_stale(folder: Path, names: Iterable[str], made: Mapping[str, str]) -> None:
    """Remove outputs of an earlier version of the study that this one does not make."""
    for name in set(names) - set(made):
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def run_folder(out: Path | str) -> Iterator[Path]:
    """Make, or open, a run folder and hold it.

    Raises
    ------
    StudyError
        If it cannot be made, holds things that no run made, or another run uses it.
    """
    folder = Path(out).resolve()
    _refuse_foreign(folder)
    try:
        (folder / ".stages").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(
            f"The run folder {folder} cannot be made.",
            cause=f"{error.strerror}.",
            next_step="Give another --out.",
        ) from error
    with _locked(folder):
        yield folder


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder with things that no run made."""
    if not folder.exists() or (folder / ".stages").exists():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise StudyError(
            f"{folder} exists and is not a run folder.",
            cause="A run replaces what it finds under the names of its outputs.",
            next_step="Give another --out, or empty that folder.",
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the run folder; the system lets go of it however the process ends."""
    with (folder / ".lock").open("a+b") as handle:
        try:
            _lock(handle.fileno())
        except OSError as error:
            raise StudyError(
                f"Another run is using {folder}.",
                cause="Two runs in one folder would overwrite each other.",
                next_step="Wait for it to end, or give another --out.",
            ) from error
        yield


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
