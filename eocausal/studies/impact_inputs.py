"""The files that a study of an event reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eocausal.errors import StudyError

if TYPE_CHECKING:
    from eocausal.studies.load import ImpactFile
    from eocausal.studies.schema_impact import ImpactStudy

__all__ = ["impact_files", "series_groups"]


def series_groups(study: ImpactStudy) -> tuple[str, ...]:
    """Return the groups of files that series are read from."""
    data = study.data
    groups = [*(f"table {n}" for n in data.tables), *(f"grid {n}" for n in data.grids)]
    for name, grid in data.grids.items():
        for zone, section in grid.zones.items():
            if section.polygons is not None:
                groups.append(f"polygons {name}.{zone}")
    return tuple(groups)


def impact_files(file: ImpactFile) -> dict[str, list[Path]]:
    """List every file a study of an event reads, by what it is.

    Raises
    ------
    StudyError
        If one is missing.
    """
    study, data = file.study, file.study.data
    named = {f"table {name}": table.file for name, table in data.tables.items()}
    for name, grid in data.grids.items():
        named[f"grid {name}"] = grid.file
        for zone, section in grid.zones.items():
            if section.polygons is not None:
                named[f"polygons {name}.{zone}"] = section.polygons.file
    if study.land_cover is not None:
        named["land_cover"] = study.land_cover.file
    if study.report.truth is not None:
        named["truth"] = study.report.truth
    return {what: _files(file.root / name, what) for what, name in named.items()}


def _files(path: Path, what: str) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file())
    raise StudyError(
        f"There is no file {path}.",
        cause=f"The study names it for its {what}.",
        next_step="Check the name and data.root.",
    )
