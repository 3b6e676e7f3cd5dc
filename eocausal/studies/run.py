"""Run a study: stage by stage, each known by its content, so that nothing is done twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eocausal.checks.base import CheckResult, Verdict, worst
from eocausal.studies.encoders import card_hashes
from eocausal.studies.engine import Done, execute, remove_stale, run_folder
from eocausal.studies.evaluation_space import EvaluationSpace
from eocausal.studies.evaluation_stages import evaluation_stages
from eocausal.studies.impact_space import ImpactSpace
from eocausal.studies.impact_stages import IMPACT_OUTPUTS, impact_stages
from eocausal.studies.load import EvaluationFile, ImpactFile, StudyFile, read_study
from eocausal.studies.progress import Quiet, Reporter
from eocausal.studies.stages import OUTPUTS, stages_of
from eocausal.studies.workspace import Workspace

if TYPE_CHECKING:
    from eocausal.ingest.schedule import Scheduler

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
    path: Path | str,
    out: Path | str,
    *,
    scheduler: Scheduler | None = None,
    reporter: Reporter | None = None,
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
    scheduler
        Who reads images, instead of ``data.scheduler``; the results do not depend on it.
    reporter
        Told of every stage.

    Raises
    ------
    EocausalError
        Of the stage that could not be done; what earlier stages left is kept.
    """
    from eocausal.studies.reporting import read_checks

    file = read_study(path)
    with run_folder(out) as folder:
        space, done = _execute(file, folder, scheduler, reporter or Quiet())
        remove_stale(folder, (*OUTPUTS, *IMPACT_OUTPUTS), space.hashes)
        done.write_provenance(space)
        records = json.loads((folder / "estimates.json").read_text(encoding="utf-8"))
        return RunResult(
            folder, tuple(done.ran), tuple(records), tuple(read_checks(folder)),
            space.kept("claim.json"),
        )  # fmt: skip


def _execute(
    file: StudyFile | EvaluationFile | ImpactFile,
    folder: Path,
    scheduler: Scheduler | None,
    reporter: Reporter,
) -> tuple[Workspace | EvaluationSpace | ImpactSpace, Done]:
    """Run the stages that the study's design, or its event, asks for."""
    if isinstance(file, ImpactFile):
        series = ImpactSpace(file, folder)
        return series, execute(impact_stages(file.study), series, reporter)
    more = {"encoder": card_hashes(file.study.data.encoder, file.root)}
    if isinstance(file, EvaluationFile):
        placed = EvaluationSpace(file, folder, scheduler)
        return placed, execute(evaluation_stages(file.study), placed, reporter, more)
    space = Workspace(file, folder, scheduler)
    return space, execute(stages_of(file.study), space, reporter, more)
