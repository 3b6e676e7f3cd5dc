"""Ingest the imagery of a study: its cube and its panel, without a design or an estimate."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eocausal.contracts import ChipStatus
from eocausal.errors import StudyError
from eocausal.provenance import FailureLedger
from eocausal.studies.embed import (
    EMBEDDED,
    check_embedding,
    embedding_stages,
    read_description,
)
from eocausal.studies.encoders import card_hashes
from eocausal.studies.engine import Stage, execute, remove_stale, resolved, run_folder, scope
from eocausal.studies.evaluation_space import EvaluationSpace
from eocausal.studies.ingest_stages import INGESTED, ingest_stages, sections_of, write_study
from eocausal.studies.inputs import source_of
from eocausal.studies.load import (
    EvaluationFile,
    IngestFile,
    StudyFile,
    line_of,
    read_ingestion,
)
from eocausal.studies.plan import input_sizes, plan_chips
from eocausal.studies.progress import Advance, Quiet, Reporter
from eocausal.studies.validate import inspect
from eocausal.studies.workspace import IngestSpace, Workspace

if TYPE_CHECKING:
    from eocausal.ingest.plan import CubePlan
    from eocausal.ingest.schedule import Scheduler

__all__ = ["IngestPlan", "IngestResult", "plan_ingestion", "run_ingestion"]


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What an ingestion left.

    Attributes
    ----------
    folder
        The folder.
    ran
        Titles of the stages that had to run; empty if everything was up to date.
    facts
        What is there, in sentences.
    """

    folder: Path
    ran: tuple[str, ...]
    facts: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"folder": str(self.folder), "ran": list(self.ran), "facts": list(self.facts)}


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """What an ingestion would do.

    Attributes
    ----------
    title
        The study.
    facts
        What will be read, in sentences.
    cube
        The plan of the cube; None if there is none.
    panel
        What the panel will hold, in sentences.
    """

    title: str
    facts: tuple[str, ...]
    cube: CubePlan | None
    panel: tuple[str, ...]

    def summary(self) -> str:
        """Say the plan in words."""
        lines = [self.title, "", "Reads:", *(f"  {fact}." for fact in self.facts)]
        if self.cube is not None:
            lines += ["", "Chips:", *(f"  {line}" for line in self.cube.summary().splitlines())]
        if self.panel:
            lines += ["", "Panel:", *(f"  {line}" for line in self.panel)]
        return "\n".join(lines)

    def record(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return {
            "study": self.title,
            "facts": list(self.facts),
            "cube": asdict(self.cube) if self.cube is not None else None,
            "panel": list(self.panel),
        }


def run_ingestion(
    path: Path | str,
    out: Path | str,
    *,
    scheduler: Scheduler | None = None,
    lock: str | None = None,
    encode: bool = False,
    reporter: Reporter | None = None,
) -> IngestResult:
    """Find the scenes of a study, cut its chips and summarize its panel, into a folder.

    With ``encode`` its chips become features too (``embedding.zarr``), with pictures of what they
    tell (``embedding/``). What is there already is not done again, and a build that was killed
    goes on where it was. A run of the whole study in the same folder uses what is there.

    Parameters
    ----------
    path
        The study file; it need not have units, design and estimate.
    out
        The folder: ``scenes.lock.json``, ``cube.zarr``, ``panel.parquet``, ``failures.parquet``,
        ``provenance.json``, ``study.yaml``.
    scheduler
        Who reads images, instead of ``data.scheduler``; the results do not depend on it.
    lock
        File that a search is written to, or read from if it is there, instead of the study's.
    encode
        Whether to encode the chips as well.
    reporter
        Told of every stage.

    Raises
    ------
    StudyError
        If chips are to be encoded and the study names no imagery or no encoder.
    EocausalError
        Of the stage that could not be done; what earlier stages left is kept.
    """
    file = _with_lock(read_ingestion(path), lock)
    stages: list[Stage[Any]] = [*ingest_stages(file.study)]
    if encode:
        encoding = _encoding(file)
        stages = [stages[0], encoding[0], *stages[1:], *encoding[1:]]
    stages.append(_last(file))
    with run_folder(out) as folder:
        space = _space(file, folder, scheduler)
        cards = card_hashes(file.study.data.encoder, file.root)
        done = execute(stages, space, reporter or Quiet(), {"encoder": cards})
        remove_stale(folder, (*INGESTED, *EMBEDDED) if encode else INGESTED, space.hashes)
        done.write_provenance(space)
        facts = [*_facts(space), *(_told(space) if encode else [])]
        return IngestResult(folder, tuple(done.ran), tuple(facts))


def _space(file: IngestFile, folder: Path, scheduler: Scheduler | None) -> IngestSpace:
    if isinstance(file, StudyFile):
        return Workspace(file, folder, scheduler)
    if isinstance(file, EvaluationFile):
        return EvaluationSpace(file, folder, scheduler)
    return IngestSpace(file, folder, scheduler)


def _encoding(file: IngestFile) -> list[Stage[Any]]:
    """Return the stage that checks what will be encoded, then those that encode."""
    stages = embedding_stages(file.study)
    if not stages or file.study.data.imagery is None:
        raise StudyError(
            f"The study {file.path} names no {'encoder' if not stages else 'imagery'}.",
            cause="Features are made of chips by an encoder.",
            next_step="Add data.imagery and data.encoder, e.g. encoder: random_conv.",
        )
    parts, needs = ["data", "embedding", "seed"], ["neighborhoods", "scenes", "encoder"]
    if isinstance(file, StudyFile):
        parts += ["design", "estimate"]
        needs.append("units")
    if isinstance(file, EvaluationFile):
        parts.append("design")
        if file.study.data.outcomes is not None:
            needs.append("outcomes")
    return [
        Stage("encodable", "Check encoder", scope(*parts), tuple(needs), check_embedding),
        *stages,
    ]


def _told(space: IngestSpace) -> list[str]:
    """Say what the embedding is, and what it can tell."""
    embedding = space.embedding
    shape = " x ".join(f"{size:,} {name}s" for name, size in embedding.sizes.items())
    check, found = read_description(space.folder)
    names = ", ".join(f"{picture.name}.png" for picture in found)
    return [
        f"embedding.zarr: {shape}, by {embedding.attrs['encoder']}",
        f"embedding/: {names}",
        f"{check.verdict.upper()} {check.name}: {check.claim} {check.detail}".rstrip(" ."),
    ]


def _with_lock(file: IngestFile, lock: str | None) -> IngestFile:
    if lock is None:
        return file
    data = file.study.data
    changed = {}
    for name in sections_of(data):
        source = source_of(data, name)
        if source.stac is not None or source.catalog is not None:
            changed[name] = source.model_copy(update={"lock": str(Path(lock).resolve())})
    if len(changed) != 1:
        raise StudyError(
            f"A lock was given, but {len(changed)} sections of the study search for scenes.",
            cause="A lock keeps what one search found.",
            next_step="Leave --lock out, or name locks in the study.",
        )
    study = file.study.model_copy(update={"data": data.model_copy(update=changed)})
    return replace(file, study=study)


def _last(file: IngestFile) -> Stage[IngestSpace]:
    """Return the stage that puts the failures and the study where users look for them."""
    before = tuple(s.name for s in ingest_stages(file.study))
    return Stage("ingested", "Collect failures", resolved, before, _collect)


def _collect(space: IngestSpace, progress: Advance) -> list[str]:
    ledger = FailureLedger()
    for stage in ("scenes", "cube", "panel"):
        ledger.rows += FailureLedger.read(space.part(f"{stage}.failures.parquet")).rows
    ledger.write(space.folder / "failures.parquet")
    write_study(space)
    return ["failures.parquet", "study.yaml"]


def _facts(space: IngestSpace) -> list[str]:
    facts = []
    if space.study.data.imagery is not None:
        cube = space.cube
        sizes, bands = cube["image"].sizes, ", ".join(map(str, cube["band"].values))
        facts.append(
            f"cube.zarr: {sizes['neighborhood']:,} neighborhoods x {sizes['period']:,} periods, "
            f"{sizes['y']} x {sizes['x']} pixels, bands {bands}; "
            + _shares(cube["status"].to_numpy())
        )
    if space.study.data.panel is not None:
        from eocausal.ingest.panels import read_panel

        panel = read_panel(space.folder / "panel.parquet")
        names = [str(n) for n in panel.data_vars if n != "status"]
        facts.append(
            f"panel.parquet: {panel.sizes['neighborhood']:,} neighborhoods x "
            f"{panel.sizes['time']:,} times, {', '.join(names)}; "
            + _shares(panel["status"].to_numpy())
        )
    failed = len(FailureLedger.read(space.folder / "failures.parquet").rows)
    facts.append(f"failures.parquet: {failed:,} rows")
    return facts


def _shares(status: np.ndarray[Any, Any]) -> str:
    codes, counts = np.unique(status, return_counts=True)
    return ", ".join(
        f"{count / status.size:.1%} {ChipStatus(int(code)).name.lower()}"
        for code, count in zip(codes, counts, strict=True)
    )


def plan_ingestion(path: Path | str, *, lock: str | None = None) -> IngestPlan:
    """Look at a study's places and image headers, and say what an ingestion would do.

    No pixel is read. A study that searches a catalog does search it, unless its lock is there.

    Raises
    ------
    StudyError
        With every problem found.
    """
    found = inspect(_with_lock(read_ingestion(path), lock))
    cube = plan_chips(found)
    places = [p for p in found.problems if "data." in p and "data.units" not in p]
    if places:
        raise StudyError(
            f"The study {path} has {len(places)} problem{'s' if len(places) > 1 else ''}.",
            cause="Its imagery cannot be ingested.",
            next_step="Correct the lines below.",
            problems=sorted(places, key=line_of),
        )
    data = found.file.study.data
    panel = []
    if data.panel is not None and found.places is not None:
        scenes = found.scenes["panel"]
        periods = found.periods["panel"]
        steps = len(periods) if periods is not None else scenes["time"].nunique()
        panel = [
            f"{len(found.places):,} neighborhoods x {steps:,} times; bands "
            f"{', '.join(data.panel.bands)}; "
            f"statistics {', '.join(s.name for s in data.panel.statistics)}.",
            f"The scenes hold {scenes['size_bytes'].sum() / 1e6:,.1f} MB; only blocks under the "
            "neighborhoods are read.",
        ]
    facts = [f for f in [*found.facts, *input_sizes(found)] if "units" not in f]
    return IngestPlan(found.file.study.title, tuple(facts), cube, tuple(panel))
