"""The stages that ingest: find the scenes, cut the chips, summarize over polygons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eocausal.provenance import FailureLedger, atomic_path
from eocausal.studies.decisions import composite_of, masks_of, resampling_of, statistics_of
from eocausal.studies.engine import Stage, resolved, scope
from eocausal.studies.inputs import source_of
from eocausal.studies.progress import Advance
from eocausal.studies.scenes import find_scenes, periods_of, source_record, write_scenes
from eocausal.studies.schema import Ingestion, PlacesData
from eocausal.studies.workspace import IngestSpace, RunSpace, lock_name

if TYPE_CHECKING:
    from eocausal.ingest.cube import CubeProgress
    from eocausal.ingest.schedule import Scheduler

__all__ = ["INGESTED", "cube_arguments", "ingest_stages", "sections_of", "write_study"]

INGESTED = ("scenes.lock.json", "panel.lock.json", "cube.zarr", "panel.parquet")


def sections_of(data: PlacesData) -> list[str]:
    """Name the sections that have scenes of their own."""
    return [n for n in ("imagery", "panel") if getattr(data, n) is not None
            and source_of(data, n) is getattr(data, n)]  # fmt: skip


def find(space: IngestSpace, progress: Advance) -> list[str]:
    """Scan files or search catalogs, and lock what was found."""
    ledger = FailureLedger()
    locks: list[str] = []
    data = space.study.data
    try:
        for name in sections_of(data):
            scenes = find_scenes(space.file, name, ledger)
            lock = lock_name(data, name)
            write_scenes(space.file, name, scenes, space.folder / lock)
            locks.append(lock)
    finally:
        failures = space.keep_ledger("scenes", ledger)
        ledger.write(space.folder / "failures.parquet")
    return [*locks, failures]


def cube_arguments(data: PlacesData) -> dict[str, Any]:
    """Return what :func:`eocausal.build_cube` and ``plan_cube`` are told, but for the periods."""
    image = data.imagery
    assert image is not None
    return {
        "bands": image.bands,
        "resolution": image.resolution,
        "size": image.size,
        "crs": image.crs,
        "resampling": resampling_of(image.resampling),
        "mask": masks_of(image.mask) or None,
        "composite": composite_of(image.composite),
        "count_band": image.count_band,
    }


def build(space: IngestSpace, progress: Advance) -> list[str]:
    """Cut the chips."""
    from eocausal.ingest.cube import build_cube

    data = space.study.data
    image = data.imagery
    assert image is not None
    scenes = space.scenes()
    ledger = FailureLedger()
    try:
        build_cube(
            space.places, scenes, **cube_arguments(data),
            periods=periods_of(image.periods, scenes), max_failed=image.max_failed, ledger=ledger,
            progress=_Rates(progress), scheduler=space.scheduler,
            memory=int(data.memory_gb * 1e9), units=image.units, out=space.folder / "cube.zarr",
        )  # fmt: skip
    finally:
        failures = _keep(space, "cube", ledger)
    return ["cube.zarr", failures]


class _Rates:
    """Tells chips and megabytes a second, without those of an earlier run."""

    def __init__(self, progress: Advance) -> None:
        self._progress, self._before = progress, -1

    def __call__(self, now: CubeProgress) -> None:
        if self._before < 0:
            self._before = now.done
        note = ""
        if now.seconds > 0.5 and now.done > self._before:
            chips = (now.done - self._before) / now.seconds
            note = f"{chips:,.0f} chips/s, {now.bytes_read / 1e6 / now.seconds:,.1f} MB/s read"
        self._progress(now.done, now.total, note)


def summarize(space: IngestSpace, progress: Advance) -> list[str]:
    """Summarize pixels over the neighborhoods, for every time."""
    from eocausal.ingest.zonal import zonal_series

    panel = space.study.data.panel
    assert panel is not None
    scenes = space.scenes("panel")
    ledger = FailureLedger()
    try:
        zonal_series(
            space.places, scenes, bands=panel.bands, statistics=statistics_of(panel.statistics),
            periods=periods_of(panel.periods, scenes), mask=masks_of(panel.mask) or None,
            composite=composite_of(panel.composite), area=panel.area,
            workers=_threads(space.scheduler), max_failed=panel.max_failed, ledger=ledger,
            progress=progress, out=space.folder / "panel.parquet",
        )  # fmt: skip
    finally:
        failures = _keep(space, "panel", ledger)
    return ["panel.parquet", failures]


def _threads(scheduler: Scheduler) -> int:
    """Threads of this process: series are read here, whoever cuts the chips."""
    from eocausal.ingest.schedule import Threads

    return scheduler.threads if isinstance(scheduler, Threads) else Threads().threads


def _keep(space: IngestSpace, stage: str, ledger: FailureLedger) -> str:
    """Keep a stage's failures, and show them with those of the scenes even if it fails."""
    FailureLedger([*space.scene_ledger.rows, *ledger.rows]).write(space.folder / "failures.parquet")
    return space.keep_ledger(stage, FailureLedger([*space.notes.rows, *ledger.rows]))


def write_study(space: RunSpace) -> None:
    """Write the study with every default, so that it can be run again."""
    import yaml

    with atomic_path(space.folder / "study.yaml") as temporary:
        text = yaml.safe_dump(resolved(space.study), sort_keys=False, allow_unicode=True)
        temporary.write_text(text, encoding="utf-8")


def ingest_stages(study: Ingestion) -> list[Stage[IngestSpace]]:
    """Return the stages that ingest, in the order they run; the first finds the scenes."""
    data = study.data

    def sources(study: Ingestion) -> Any:
        return {name: source_record(study, name) for name in sections_of(study.data)}

    stages: list[Stage[IngestSpace]] = [
        Stage("scenes", "Find scenes", sources, ("neighborhoods", *sections_of(data)), find)
    ]
    if data.imagery is not None:
        stages.append(
            Stage("cube", "Cut chips", scope("data.imagery", "data.neighborhoods"),
                  ("neighborhoods", "imagery", "scenes"), build, one_thread=False)
        )  # fmt: skip
    if data.panel is not None:
        own = "panel" if source_of(data, "panel") is data.panel else "imagery"
        stages.append(
            Stage("panel", "Summarize", scope("data.panel", "data.neighborhoods"),
                  ("neighborhoods", own, "scenes"), summarize, one_thread=False)
        )  # fmt: skip
    return stages
