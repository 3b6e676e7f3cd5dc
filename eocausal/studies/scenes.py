"""The scenes of a study: files scanned, catalogs searched, and kept in a lock."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from eocausal.designs import Trial
from eocausal.errors import LeakageError, StudyError
from eocausal.ingest.times import ALL, parse_period
from eocausal.provenance import FailureLedger, atomic_path, hash_json
from eocausal.studies.inputs import grid_files, image_files, source_of
from eocausal.studies.load import IngestFile
from eocausal.studies.schema import Ingestion
from eocausal.studies.schema_imagery import LooksSection, PeriodsSection, SourceSection

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = [
    "find_scenes",
    "harmonized",
    "periods_of",
    "read_scenes",
    "refuse_late_scenes",
    "source_record",
    "write_scenes",
]

_ROOT = "root"
_ASKED = "asked"
_RECORD = "record"


def source_record(study: Ingestion, name: str) -> dict[str, Any]:
    """Return what the scenes of ``imagery`` or ``panel`` depend on, as plain values."""
    section, source = _looks(study, name), source_of(study.data, name)
    kept = set(SourceSection.model_fields) - {"root"}
    record = source.model_dump(mode="json", by_alias=True, exclude_none=True, include=kept)
    if source.stac is not None or source.catalog is not None:
        record["searched"] = _search_time(source, section)
    return record


def find_scenes(
    file: IngestFile, name: str, ledger: FailureLedger | None = None
) -> gpd.GeoDataFrame:
    """Scan the files, or search the catalog, of ``imagery`` or ``panel``.

    A lock that the study names and that is there is read, and nothing is searched.

    Raises
    ------
    EocausalError
        If there is no scene, or a source cannot be read.
    """
    section, source = _looks(file.study, name), source_of(file.study.data, name)
    if source.lock is not None and (file.root / source.lock).is_file():
        return _from_named_lock(file, name, file.root / source.lock)
    if source.grids is not None:
        from eocausal.ingest.grids import scan_grids

        return scan_grids(
            [str(p) for p in grid_files(source)],
            variables=source.grids.variables, select=source.grids.select, crs=source.files_crs,
            time=_grid_times(source), item_pattern=source.item_pattern, ledger=ledger,
        )  # fmt: skip
    if source.files is None:
        return _search(file, source, section, ledger)
    from eocausal.ingest.sources import scan

    return scan(
        image_files(source), time=source.time, time_pattern=source.time_pattern,
        bands=source.band_names, band_pattern=source.band_pattern,
        item_pattern=source.item_pattern, nodata=source.nodata, crs=source.files_crs,
        neighborhood_pattern=source.neighborhood_pattern, ledger=ledger,
    )  # fmt: skip


def _grid_times(source: SourceSection) -> str | list[str] | None:
    """Return the dates of the steps of gridded files: one label for all, or one for each."""
    assert source.grids is not None
    if source.grids.time is None:
        return None
    labels = periods_of(source.grids.time, None) or []
    return labels[0] if len(labels) == 1 else labels


def _search(
    file: IngestFile, source: SourceSection, section: LooksSection, ledger: FailureLedger | None
) -> gpd.GeoDataFrame:
    from eocausal.ingest.remote import is_remote
    from eocausal.ingest.stac import read_catalog, search_stac
    from eocausal.studies.assemble import read_places

    places, time = read_places(file.study), _search_time(source, section)
    if source.stac is not None:
        s = source.stac
        return search_stac(
            s.url, collections=s.collections, bands=s.bands, neighborhoods=places, time=time,
            query=s.query or None, max_items=s.max_items, ledger=ledger,
        )  # fmt: skip
    c = source.catalog
    assert c is not None
    return read_catalog(
        c.address if is_remote(c.address) else Path(source.root) / c.address,
        bands=c.bands, neighborhoods=places, time=time, query=c.query or None, ledger=ledger,
    )  # fmt: skip


def _search_time(source: SourceSection, section: LooksSection) -> list[str] | None:
    """Return when to search: as the source says, else in the periods, where they are known."""
    asked = source.stac or source.catalog
    if asked is not None and asked.time is not None:
        return [asked.time]
    periods: PeriodsSection | None = getattr(section, "periods", None)
    if periods is None or periods.dates is not None:
        return None
    if periods.every is not None:
        return [f"{periods.start}/{periods.end}"]
    labels = periods.labels or (ALL,)
    return None if ALL in labels else list(labels)


def _looks(study: Ingestion, name: str) -> LooksSection:
    section: LooksSection = getattr(study.data, name)
    return section


def write_scenes(file: IngestFile, name: str, scenes: gpd.GeoDataFrame, path: Path) -> None:
    """Write scenes to a lock; and to the one that the study names, if it is not there yet."""
    from eocausal.ingest.lock import write_lock

    source = source_of(file.study.data, name)
    named = file.root / source.lock if source.lock is not None else None
    if named is not None and named.is_file():
        _copy(named, path)
        return
    asked = dict(scenes.attrs.get("query", {}))
    kept = {_ROOT: source.root, _RECORD: _record_hash(file, name), _ASKED: asked}
    write_lock(scenes, path, kept)
    if named is not None:
        _copy(path, named)


def _from_named_lock(file: IngestFile, name: str, path: Path) -> gpd.GeoDataFrame:
    scenes = _from_lock(path, Path(source_of(file.study.data, name).root))
    if scenes.attrs.get(_RECORD, now := _record_hash(file, name)) != now:
        raise StudyError(
            f"The lock {path} holds another search.",
            cause=f"The source, bands or time of data.{name} were changed since it was written.",
            next_step="Remove the lock to search again, or name another one.",
        )
    return scenes


def _record_hash(file: IngestFile, name: str) -> str:
    record = source_record(file.study, name)
    return hash_json({k: v for k, v in record.items() if k != "lock"})


def _copy(one: Path, other: Path) -> None:
    with atomic_path(other) as temporary:
        shutil.copyfile(one, temporary)


def read_scenes(file: IngestFile, name: str, path: Path) -> gpd.GeoDataFrame:
    """Read the scenes that :func:`write_scenes` wrote; a study may have been moved since."""
    return _from_lock(path, Path(source_of(file.study.data, name).root))


def _from_lock(path: Path, root: Path) -> gpd.GeoDataFrame:
    from eocausal.ingest.lock import read_lock

    scenes = read_lock(path)
    query: dict[str, Any] = scenes.attrs["query"]
    old = str(query.get(_ROOT, root))
    if old != str(root):
        for column in ("href", "item"):
            scenes[column] = [_moved(str(v), old, str(root)) for v in scenes[column]]
    scenes.attrs["query"] = query.get(_ASKED, query)
    if _RECORD in query:
        scenes.attrs[_RECORD] = query[_RECORD]
    return scenes


def _moved(href: str, old: str, new: str) -> str:
    inside = href == old or href.startswith(old.rstrip("/") + "/")
    return new + href[len(old.rstrip("/")) :] if inside else href


def harmonized(
    scenes: gpd.GeoDataFrame, section: LooksSection, ledger: FailureLedger | None = None
) -> gpd.GeoDataFrame:
    """Make sensors and processing versions comparable, as the study asks."""
    from eocausal.ingest import harmonise

    for name in section.harmonize:
        if name == "sentinel2_offset":
            scenes = harmonise.sentinel2_offset(scenes, ledger=ledger)
        elif name == "landsat_c2_scale":
            scenes = harmonise.landsat_c2_scale(scenes)
        else:
            scenes = harmonise.landsat_to_oli(scenes)
    return scenes


def periods_of(periods: PeriodsSection | None, scenes: gpd.GeoDataFrame | None) -> list[str] | None:
    """Return the labels of periods, which may be the dates of the scenes.

    Raises
    ------
    IngestError, SceneError
    """
    from eocausal.ingest.periods import dates_of, period_range

    if periods is None:
        return None
    if periods.dates is not None:
        assert scenes is not None
        return dates_of(scenes, within=periods.dates.within)
    if periods.every is not None:
        return period_range(str(periods.start), str(periods.end), periods.every)
    return list(periods.labels or (ALL,))


def refuse_late_scenes(scenes: gpd.GeoDataFrame, periods: Sequence[str], trial: Trial) -> None:
    """Refuse images taken on or after the day the trial began, before any pixel is read.

    Raises
    ------
    LeakageError
        Naming how many, and the latest.
    """
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
