"""What the stages of a run share: the study, its tables, scenes, cube and embedding."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eocausal.designs import Trial
from eocausal.folds import GroupFolds
from eocausal.provenance import FailureLedger, write_json
from eocausal.studies.assemble import StudyTables, assemble, read_places
from eocausal.studies.decisions import basis_of, trial_of
from eocausal.studies.inputs import source_of
from eocausal.studies.load import IngestFile, OpenedFile, StudyFile
from eocausal.studies.scenes import harmonized, read_scenes

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr

    from eocausal.estimators.learners import EffectLearner
    from eocausal.ingest.schedule import Scheduler
    from eocausal.studies.schema import Ingestion, Opening, PlacesData, Study

__all__ = ["IngestSpace", "RunSpace", "Workspace", "lock_name"]


def lock_name(data: PlacesData, name: str) -> str:
    """Name the lock of the scenes of ``imagery`` or ``panel`` in a run folder."""
    shared = data.imagery is None or source_of(data, name) is data.imagery
    return "scenes.lock.json" if shared else "panel.lock.json"


class RunSpace:
    """What the stages of any study share: the run folder and what is left in it.

    Parameters
    ----------
    file
        The study.
    folder
        The run folder.

    Attributes
    ----------
    hashes
        Hash of every group of input files and of every output so far.
    """

    def __init__(self, file: OpenedFile, folder: Path) -> None:
        self.file = file
        self.study: Opening = file.study
        self.folder = folder
        self.hashes: dict[str, str] = {}

    def part(self, name: str) -> Path:
        """Return the path of an intermediate result."""
        return self.folder / ".stages" / "parts" / name

    def keep(self, name: str, value: Any) -> str:
        """Write an intermediate result as JSON; returns its name within the run folder."""
        write_json(self.part(name), value)
        return f".stages/parts/{name}"

    def kept(self, name: str) -> Any:
        """Read an intermediate result."""
        return json.loads(self.part(name).read_text(encoding="utf-8"))

    def keep_ledger(self, stage: str, ledger: FailureLedger) -> str:
        """Write a stage's failures; returns the name within the run folder."""
        name = f"{stage}.failures.parquet"
        ledger.write(self.part(name))
        return f".stages/parts/{name}"


class IngestSpace(RunSpace):
    """The things a stage of ingestion may ask for; each is read once, when first asked for.

    Parameters
    ----------
    file
        The study.
    folder
        The run folder.
    scheduler
        Who reads images, instead of what the study says; the results do not depend on it.

    Attributes
    ----------
    notes
        What was noted when scenes were harmonized.
    """

    file: IngestFile
    study: Ingestion

    def __init__(self, file: IngestFile, folder: Path, scheduler: Scheduler | None = None) -> None:
        super().__init__(file, folder)
        self._scheduler = scheduler
        self.notes = FailureLedger()

    @cached_property
    def scheduler(self) -> Scheduler:
        """Who reads images."""
        from eocausal.ingest.schedule import read_scheduler

        return self._scheduler or read_scheduler(self.study.data.scheduler)

    @cached_property
    def places(self) -> gpd.GeoDataFrame:
        """Every place."""
        return read_places(self.study)

    def scenes(self, name: str = "imagery") -> gpd.GeoDataFrame:
        """Return the table of scenes of ``imagery`` or ``panel``, from its lock."""
        data = self.study.data
        found = read_scenes(self.file, name, self.folder / lock_name(data, name))
        return harmonized(found, getattr(data, name), self.notes)

    @property
    def scene_ledger(self) -> FailureLedger:
        """Files that are no scenes, and what was noted when they were harmonized."""
        found = FailureLedger.read(self.part("scenes.failures.parquet"))
        return FailureLedger([*found.rows, *self.notes.rows])

    @cached_property
    def cube(self) -> xr.Dataset:
        """The finished cube."""
        from eocausal.ingest.store import open_cube

        return open_cube(self.folder / "cube.zarr")

    @cached_property
    def embedding(self) -> xr.DataArray:
        """The finished embedding."""
        from eocausal.encoders.base import open_embedding

        return open_embedding(self.folder / "embedding.zarr")


class Workspace(IngestSpace):
    """The things a stage of a study may ask for."""

    file: StudyFile
    study: Study

    @cached_property
    def trial(self) -> Trial:
        """The design."""
        return trial_of(self.study)

    @cached_property
    def tables(self) -> StudyTables:
        """Units and places."""
        return assemble(self.study)

    @cached_property
    def places(self) -> gpd.GeoDataFrame:
        """Every place, in the trial or not."""
        return self.tables.places

    @cached_property
    def learner(self) -> EffectLearner:
        """The learner that the study asks for, with folds that split neither cluster nor image."""
        from eocausal.estimators.learners import EffectLearner

        section = self.study.estimate.heterogeneity
        assert section is not None
        return EffectLearner(
            basis_of(section.basis),
            folds=GroupFolds(self.tables.group, section.folds),
            level=self.study.estimate.level,
            seed=self.study.seed,
        )
