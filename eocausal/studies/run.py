"""Run a study: stage by stage, each known by its content, so that nothing is done twice."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from eocausal.checks.base import CheckResult, Verdict, worst
from eocausal.errors import StudyError
from eocausal.provenance import StageCache, hash_file, hash_json, versions, write_json
from eocausal.studies.inputs import FileHashes, digests, input_files
from eocausal.studies.load import StudyFile, read_study
from eocausal.studies.progress import Quiet, Reporter
from eocausal.studies.stages import OUTPUTS, Stage, stages_of
from eocausal.studies.workspace import Workspace

__all__ = ["RunResult", "run_study"]


@dataclass(frozen=True, slots=True, eq=False)
class RunResult:
    """What a run left.

    Attributes
    ----------
    folder
        The run folder.
    ran
        Titles of the stages that had to run; empty if everything was up to date.
    records
        The records of ``estimates.json``.
    checks
        Results of the checks.
    claim
        The finding in words.
    """

    folder: Path
    ran: tuple[str, ...]
    records: tuple[Mapping[str, Any], ...]
    checks: tuple[CheckResult, ...]
    claim: str

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the checks."""
        return worst(self.checks)


def run_study(
    path: Path | str, out: Path | str, *, workers: int = 2, reporter: Reporter | None = None
) -> RunResult:
    """Run a study into a folder.

    A stage runs only if its part of the study, its input files (by content), what earlier stages
    left, or the versions of the packages have changed, or if its outputs are not as it left them.
    A run that was killed goes on where it was and ends with the same bytes.

    Parameters
    ----------
    path
        The study file.
    out
        The run folder; see the README for what it will hold.
    workers
        Threads for reading images; the results do not depend on it.
    reporter
        Told of every stage.

    Raises
    ------
    EocausalError
        Of the stage that could not be done; what earlier stages left is kept.
    """
    file, folder = read_study(path), Path(out).resolve()
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
        return _run(file, folder, workers, reporter or Quiet())


def _run(file: StudyFile, folder: Path, workers: int, reporter: Reporter) -> RunResult:
    from eocausal.studies.reporting import read_checks

    for left in folder.glob(".*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
    stored = StageCache(folder / ".stages")
    files = FileHashes(stored.folder / "files.json").groups(input_files(file), file.root)
    space = Workspace(file, folder, workers)
    hashes = {**digests(files), "encoder": _encoder_hash(file)}
    space.hashes.update({f"inputs {what}": digest for what, digest in digests(files).items()})
    timings = _read_timings(stored.folder / "timings.json")
    ran: list[str] = []
    stages = stages_of(file.study)
    for stage in stages:
        key = stored.key(
            stage.name,
            {"study": stage.parameters(file.study), "versions": versions(), "code": _code()},
            {need: hashes[need] for need in stage.needs},
        )
        outputs = stored.fresh(stage.name, key)
        if outputs is None:
            outputs, seconds = _do(stage, key, stored, space, reporter)
            timings[stage.name] = seconds
            write_json(stored.folder / "timings.json", timings)
            ran.append(stage.title)
        else:
            reporter.done(stage.title)
        hashes[stage.name] = hash_json(outputs)
        space.hashes.update({n: h for n, h in outputs.items() if not n.startswith(".")})
    _remove_stale(folder, space.hashes)
    if ran or not (folder / "provenance.json").exists():
        _write_provenance(space, files, timings)
    records = json.loads((folder / "estimates.json").read_text(encoding="utf-8"))
    return RunResult(
        folder, tuple(ran), tuple(records), tuple(read_checks(folder)), space.kept("claim.json")
    )


def _do(
    stage: Stage, key: str, stored: StageCache, space: Workspace, reporter: Reporter
) -> tuple[dict[str, str], float]:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    begin = time.perf_counter()
    limit = 1 if stage.one_thread else None
    with reporter.stage(stage.title) as advance, threadpool_limits(limit):
        outputs = stage.work(space, advance)
        hashes = stored.store(stage.name, key, outputs)
    return hashes, round(time.perf_counter() - begin, 3)


def _encoder_hash(file: StudyFile) -> str:
    """Hash a model card and its weights; what a study says of other encoders is in its keys."""
    model = file.study.data.encoder.model
    if model is None:
        return ""
    from eocausal.encoders.cards import load_card

    card = load_card(file.root / model.card if "/" in model.card else model.card)
    return hash_json(card.model_dump(mode="json"))


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


def _remove_stale(folder: Path, made: Mapping[str, str]) -> None:
    """Remove outputs of an earlier version of the study that this one does not make."""
    for name in set(OUTPUTS) - set(made):
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _write_provenance(
    space: Workspace, files: Mapping[str, Mapping[str, str]], timings: Mapping[str, float]
) -> None:
    write_json(space.folder / "provenance.json", {
        "study": space.study.study,
        "file": space.file.path.name,
        "seed": space.study.seed,
        "versions": versions(),
        "inputs": {what: dict(group) for what, group in files.items()},
        "outputs": {n: h for n, h in space.hashes.items() if not n.startswith("inputs ")},
        "timings": {"finished": datetime.now(UTC).isoformat(timespec="seconds"),
                    "seconds": dict(timings)},
    })  # fmt: skip


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
