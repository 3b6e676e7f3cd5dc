"""What the stages of a run share: the study, its tables, scenes, cube and embedding."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eocausal.designs import Trial
from eocausal.errors import LeakageError
from eocausal.folds import GroupFolds
from eocausal.provenance import FailureLedger, write_json
from eocausal.studies.assemble import StudyTables, assemble
from eocausal.studies.decisions import basis_of, trial_of
from eocausal.studies.inputs import image_files
from eocausal.studies.load import StudyFile

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr

    from eocausal.estimators.learners import EffectLearner

__all__ = ["Workspace", "refuse_late_scenes"]


class Workspace:
    """The things a stage may ask for; each is read or made once, when first asked for.

    Parameters
    ----------
    file
        The study.
    folder
        The run folder.
    workers
        Threads for reading images; the results do not depend on it.

    Attributes
    ----------
    hashes
        Hash of every group of input files and of every output so far.
    """

    def __init__(self, file: StudyFile, folder: Path, workers: int) -> None:
        self.file = file
        self.study = file.study
        self.folder = folder
        self.workers = workers
        self.hashes: dict[str, str] = {}

    @cached_property
    def trial(self) -> Trial:
        """The design."""
        return trial_of(self.study)

    @cached_property
    def tables(self) -> StudyTables:
        """Units and places."""
        return assemble(self.study)

    @cached_property
    def scan_ledger(self) -> FailureLedger:
        """Files that are no scenes; filled by :attr:`scenes`."""
        return FailureLedger()

    @cached_property
    def scenes(self) -> gpd.GeoDataFrame:
        """The table of scenes."""
        return scan_scenes(self.file, self.scan_ledger)

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


def scan_scenes(file: StudyFile, ledger: FailureLedger | None = None) -> gpd.GeoDataFrame:
    """Read the headers of a study's images."""
    from eocausal.ingest.sources import scan

    image = file.study.data.imagery
    return scan(
        image_files(file), time=image.time, time_pattern=image.time_pattern,
        bands=image.band_names, nodata=image.nodata, crs=image.files_crs,
        neighborhood_pattern=image.neighborhood_pattern, ledger=ledger,
    )  # fmt: skip


def refuse_late_scenes(scenes: gpd.GeoDataFrame, periods: tuple[str, ...], trial: Trial) -> None:
    """Refuse images taken on or after the day the trial began, before any pixel is read.

    Raises
    ------
    LeakageError
        Naming how many, and the latest.
    """
    import pandas as pd

    from eocausal.ingest.times import ALL, parse_period

    if trial.start is None:
        return
    first = pd.to_datetime(scenes["time"])
    last = pd.to_datetime(scenes["time_end"]).fillna(first)
    used = pd.Series(False, index=scenes.index)
    for label in periods:
        if label == ALL:
            used |= True
        else:
            begin, end = parse_period(label)
            used |= (first >= begin) & (last <= end)
    late = used & (last >= pd.Timestamp(trial.start))
    if late.any():
        raise LeakageError(
            f"{int(late.sum())} of {int(used.sum())} scenes are not older than the trial, which "
            f"began {trial.start}; the latest is of {last[late].max():%Y-%m-%d}.",
            cause="An image taken after treatment shows its effects; used as a covariate it "
            "biases every estimate.",
            next_step="Set data.imagery.periods to periods that end before the trial began.",
        )
