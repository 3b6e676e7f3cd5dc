"""Which looks make which step of a panel, and in which groups polygons are taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from eocausal.contracts import check_columns, some
from eocausal.errors import BandError, EmptyInputError, IngestError, SceneError
from eocausal.ingest.acquisitions import as_asset, check_bands, item_numbers
from eocausal.ingest.assets import Asset
from eocausal.ingest.coverage import ground_areas
from eocausal.ingest.grid import WGS84, SceneGrid, project
from eocausal.ingest.remote import unsigned
from eocausal.ingest.sources import SCENE_COLUMNS
from eocausal.ingest.times import ALL, parse_period
from eocausal.provenance import Failure

__all__ = ["Step", "ZonalLook", "groups_of", "lonlat_boxes", "looks_of", "steps_of"]

_NEEDED: Final = SCENE_COLUMNS[:11]
_MOST_ENTRIES: Final = 2**24
_MOST_BYTES: Final = 2**29
_EQUAL_AREA: Final = "EPSG:6933"


@dataclass(frozen=True, slots=True)
class ZonalLook:
    """One acquisition: where each band wanted and each mask band is.

    ``bands`` and ``masks`` hold ``(name, asset, position in the asset)``; ``owner`` is the
    neighborhood it is for, if for one alone; ``outlines`` the boxes around its parts in degrees,
    shape (part, 4).
    """

    name: str
    start: pd.Timestamp
    end: pd.Timestamp
    owner: str | None
    bands: tuple[tuple[str, Asset, int], ...]
    masks: tuple[tuple[str, Asset, int], ...]
    outlines: tuple[tuple[float, ...], ...]

    @property
    def day(self) -> int:
        """Days from 1970-01-01 to its middle; the least integer if unknown."""
        days = np.array([self.start, self.end], dtype="datetime64[D]")
        if np.isnat(days).any():
            return int(np.iinfo(np.int64).min)
        return int(days.astype(np.int64).sum() // 2)


@dataclass(frozen=True, slots=True)
class Step:
    """One time of the panel and its looks, by date and name."""

    label: str
    start: pd.Timestamp
    end: pd.Timestamp
    looks: tuple[ZonalLook, ...]


def looks_of(
    scenes: gpd.GeoDataFrame, bands: Sequence[str], masks: Sequence[str]
) -> tuple[tuple[ZonalLook, ...], list[Failure]]:
    """Put the assets of each acquisition together.

    A look may lack bands, but not all of them and no mask; one that does is left out.

    Raises
    ------
    MissingColumnError, EmptyInputError
        If the table of scenes is not one.
    BandError
        If a band is in no scene, or no look can be used.
    """
    check_columns(scenes, _NEEDED, what="table of scenes")
    if len(scenes) == 0:
        raise EmptyInputError(
            "There are no scenes.",
            cause="The table has no rows.",
            next_step="Give a table from scan() or scan_grids().",
        )
    table = scenes.reset_index(drop=True)
    check_bands(table["bands"].tolist(), (*bands, *masks))
    rows, items = table.to_dict("records"), item_numbers(table)
    boxes = [tuple(map(tuple, shapely.bounds(shapely.get_parts(g)))) for g in table.geometry]
    seen: set[tuple[str, ...]] = set()
    looks, failures = [], []
    for item in dict.fromkeys(items.tolist()):
        members = np.flatnonzero(items == item) if len(set(items)) < len(items) else [item]
        fresh = [k for k in members if not _repeated(rows[k], seen)]
        failures += [
            Failure(
                "zonal", "scene", unsigned(str(rows[k]["href"])), "duplicate", "It is given twice."
            )
            for k in members
            if k not in fresh
        ]
        if not fresh:
            continue
        assets = [(as_asset(rows[k], unsigned(str(rows[k]["href"]))), k) for k in fresh]
        found = _find(bands, [a for a, _ in assets])
        masked = _find(masks, [a for a, _ in assets])
        if not found or len(masked) < len(masks):
            lacking = sorted({*bands, *masks} - {b for b, _, _ in (*found, *masked)})
            detail = f"It has no band {some(lacking)}."
            failures += [Failure("zonal", "scene", a.name, "band_missing", detail)
                         for a, _ in assets]  # fmt: skip
            continue
        looks.append(_look(rows[fresh[0]], found, masked, [b for k in fresh for b in boxes[k]]))
    if not looks:
        raise BandError(
            f"No scene has a band of {some([*bands], 20)} and all of the masks.",
            cause=f"The masks need {some(masks, 20)}." if masks else "Each scene was left out.",
            next_step="Say which files are one acquisition (the column item), or leave mask out.",
        )
    return tuple(sorted(looks, key=_by_date)), failures


def _by_date(look: ZonalLook) -> tuple[str, str, str]:
    return str(look.end), str(look.start), look.name


def _repeated(row: dict[Any, Any], seen: set[tuple[str, ...]]) -> bool:
    import os

    href = str(row["href"])
    real = os.path.realpath(href) if os.path.isfile(href) else unsigned(href)
    keys = ("step", "time", "time_end", "neighborhood", "bands")
    key = (real, *(str(row.get(k)) for k in keys))
    if key in seen:
        return True
    seen.add(key)
    return False


def _find(names: Sequence[str], assets: Sequence[Asset]) -> tuple[tuple[str, Asset, int], ...]:
    return tuple(
        next((name, a, a.bands.index(name)) for a in assets if name in a.bands)
        for name in names
        if any(name in a.bands for a in assets)
    )


def _look(
    row: dict[Any, Any],
    bands: tuple[tuple[str, Asset, int], ...],
    masks: tuple[tuple[str, Asset, int], ...],
    boxes: list[tuple[float, ...]],
) -> ZonalLook:
    start = pd.Timestamp(row["time"])
    end = pd.Timestamp(row.get("time_end", row["time"]))
    owner = row.get("neighborhood")
    return ZonalLook(
        name=unsigned(str(row["href"])),
        start=start,
        end=start if pd.isna(end) else end,
        owner=None if owner is None or pd.isna(owner) else str(owner),
        bands=bands,
        masks=masks,
        outlines=tuple(boxes),
    )


def steps_of(looks: Sequence[ZonalLook], periods: Sequence[str] | None) -> tuple[Step, ...]:
    """Assign looks to times: each distinct time its own, or the periods asked for.

    A look belongs to the periods that contain all of its date.

    Raises
    ------
    SceneError
        If a look has no date.
    IngestError
        If two steps would begin at the same time.
    """
    labels = [periods] if isinstance(periods, str) else periods
    undated = [look.name for look in looks if pd.isna(look.start)]
    if undated and (labels is None or set(labels) != {ALL}):
        raise SceneError(
            f"{len(undated)} scenes have no date: {some(undated)}.",
            cause="Their place in a series is unknown.",
            next_step="Pass time=... or time_pattern=... to scan().",
        )
    if labels is None:
        return _own_times(looks)
    steps = []
    for label in map(str, labels):
        start, end = parse_period(label)
        inside = tuple(look for look in looks if start <= look.start and look.end <= end)
        if label == ALL:
            inside = tuple(looks)
            dated = [look for look in looks if not pd.isna(look.start)]
            start = min((look.start for look in dated), default=pd.Timestamp(0))
            end = max((look.end for look in dated), default=pd.Timestamp(0))
        steps.append(Step(label, start, end, inside))
    steps.sort(key=lambda s: s.start)
    starts = [s.start for s in steps]
    if not steps or len(set(starts)) < len(starts):
        raise IngestError(
            "There are no periods." if not steps else f"Two periods begin alike: {some(labels)}.",
            cause="A panel has one value for each time.",
            next_step="Give periods that begin at different times, or leave periods out.",
        )
    return tuple(steps)


def _own_times(looks: Sequence[ZonalLook]) -> tuple[Step, ...]:
    by_time: dict[pd.Timestamp, list[ZonalLook]] = {}
    for look in looks:
        by_time.setdefault(look.start, []).append(look)
    return tuple(
        Step(_label(start), start, max(look.end for look in found), tuple(found))
        for start, found in sorted(by_time.items())
    )


def _label(start: pd.Timestamp) -> str:
    return start.strftime("%Y-%m-%d") if start == start.normalize() else start.isoformat()


def groups_of(
    shapes: NDArray[np.object_], crs: str, steps: Sequence[Step], bands: int, workers: int
) -> list[NDArray[np.intp]]:
    """Split polygons into groups of neighbors whose pixels fit in memory.

    A group has at most 16 million pixels (the one polygon of a larger group excepted), and its
    values of one step on all workers take at most 512 MiB, by estimate. Within a group polygons
    go from north to south, as pixels do, which makes the products with their matrix twice as fast.
    """
    grids = {asset.grid for s in steps for look in s.looks for _, asset, _ in look.bands}
    cell = min(_middle_area(g) for g in grids)
    area = np.nan_to_num(shapely.area(_moved(shapes, crs, _EQUAL_AREA)), posinf=0.0)
    looks = max((len(s.looks) for s in steps), default=1)
    most = min(_MOST_ENTRIES, _MOST_BYTES // (8 * bands * max(looks, 1) * workers))
    pixels = area / cell + 1.0
    box = np.nan_to_num(lonlat_boxes(shapes, crs))
    order = np.arange(len(shapes))
    if pixels.sum() > most:
        middle = shapely.points((box[:, 0] + box[:, 2]) / 2, (box[:, 1] + box[:, 3]) / 2)
        along = gpd.GeoSeries(middle, crs=WGS84).hilbert_distance()
        order = np.argsort(np.asarray(along), kind="stable")
    part = np.cumsum(pixels[order]) // most
    groups = np.split(order, np.flatnonzero(np.diff(part)) + 1)
    return [rows[np.argsort(-box[rows, 3], kind="stable")] for rows in groups]


def _middle_area(grid: SceneGrid) -> float:
    middle = np.array([grid.height // 2]), np.array([grid.width // 2])
    return max(float(ground_areas(grid, *middle)[0]), 1e-12)


def lonlat_boxes(shapes: NDArray[np.object_], crs: str) -> NDArray[np.float64]:
    """Boxes around the vertices in degrees, shape (n, 4); NaN if unknown.

    Those of polygons across the antimeridian go around the Earth.
    """
    box = shapely.bounds(_moved(shapes, crs, WGS84))
    return np.where(np.isfinite(box).all(axis=1)[:, None], box, np.nan)


def _moved(shapes: NDArray[np.object_], source: str, target: str) -> NDArray[np.object_]:
    moved: NDArray[np.object_] = shapely.transform(
        shapes, lambda p: np.column_stack(project(source, target, p[:, 0], p[:, 1]))
    )
    return moved
