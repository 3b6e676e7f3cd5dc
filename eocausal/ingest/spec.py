"""Everything about a cube that can be decided before a pixel is read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eocausal.contracts import check_columns, check_neighborhoods, some
from eocausal.errors import (
    BandError,
    DuplicateIdError,
    EmptyInputError,
    IngestError,
    SceneError,
)
from eocausal.ingest.gather import SourceScene
from eocausal.ingest.grid import LocalGrid, SceneGrid, parse_crs
from eocausal.ingest.match import Touches, touches
from eocausal.ingest.places import Centres, locate
from eocausal.ingest.sources import SCENE_COLUMNS
from eocausal.ingest.times import ALL, parse_period
from eocausal.provenance import Failure

__all__ = ["CubeSpec", "specify"]


@dataclass(frozen=True, slots=True)
class CubeSpec:
    """A cube before any pixel is read: grids, scenes, and which feeds which.

    ``labels`` are the neighborhoods' ids as the store holds them (whole numbers or text);
    ``members[period]`` the scenes (positions in ``scenes``) of each period; ``hrefs`` says where
    every scene is that was given, by name.
    """

    index: pd.Index[Any]
    labels: NDArray[Any]
    centres: Centres
    grids: tuple[LocalGrid, ...]
    scenes: tuple[SourceScene, ...]
    pairs: Touches
    periods: tuple[str, ...]
    members: tuple[frozenset[int], ...]
    bands: tuple[str, ...]
    resolution: float
    size: int
    failures: tuple[Failure, ...]
    item_bytes: tuple[int, ...]
    hrefs: dict[str, str]


def specify(
    neighborhoods: gpd.GeoDataFrame,
    scenes: gpd.GeoDataFrame,
    bands: Sequence[str],
    resolution: float,
    size: int | None,
    periods: Sequence[str] | None,
    *,
    crs: str | None = None,
    mask_band: str | None = None,
) -> CubeSpec:
    """Decide everything about a cube that can be decided without reading pixels."""
    check_neighborhoods(neighborhoods)
    check_columns(scenes, SCENE_COLUMNS[:11], what="table of scenes")
    if len(scenes) == 0:
        raise EmptyInputError(
            "There are no scenes.",
            cause="The table has no rows.",
            next_step="Give a table from scan().",
        )
    if not (np.isfinite(resolution) and resolution > 0):
        raise IngestError(
            f"resolution is {resolution!r}.",
            cause="A pixel has a positive size.",
            next_step="Give it in units of the chips' CRS, e.g. resolution=30 for 30 m in UTM.",
        )
    wanted = _band_list(bands)
    labels = _labels(neighborhoods.index)
    centres = locate(neighborhoods, parse_crs(crs).to_string() if crs is not None else None)
    pixels = _pixels_per_side(centres, resolution, size)
    grids = tuple(
        LocalGrid.centred(name, float(x), float(y), float(resolution), pixels)
        for name, x, y in zip(centres.crs, centres.x, centres.y, strict=True)
    )
    table = scenes.reset_index(drop=True)
    names = _scene_names(table["href"].astype(str).tolist())
    keep, failures = _with_bands(table, names, wanted, mask_band)
    keep, repeated = _once(table, names, keep)
    table = table.loc[keep].reset_index(drop=True)
    sources = tuple(
        _source(row, names[k], wanted, mask_band)
        for k, row in zip(keep, table.to_dict("records"), strict=True)
    )
    period_labels, members = _periods(table, periods)
    pairs = _own_pairs(touches(grids, [s.grid for s in sources]), table, neighborhoods.index)
    return CubeSpec(
        index=neighborhoods.index, labels=labels, centres=centres, grids=grids, scenes=sources,
        pairs=pairs, periods=period_labels, members=members, bands=wanted,
        resolution=float(resolution), size=pixels, failures=(*failures, *repeated),
        item_bytes=tuple(np.dtype(d).itemsize for d in table["dtype"]),
        hrefs=dict(zip(names, scenes["href"].astype(str), strict=True)),
    )  # fmt: skip


def _labels(index: pd.Index[Any]) -> NDArray[Any]:
    if pd.api.types.infer_dtype(index, skipna=False) == "integer":
        return index.to_numpy(dtype=np.int64)
    labels = index.astype(str)
    if not labels.is_unique:
        raise DuplicateIdError(
            f"Some ids differ only in their type: {some(labels[labels.duplicated()])}.",
            cause="A cube keeps ids as whole numbers or as text.",
            next_step="Give all ids one type, e.g. places.index = places.index.astype(str), "
            "and tell the repeated ones apart.",
        )
    return labels.to_numpy(dtype=object)


def _band_list(bands: Sequence[str]) -> tuple[str, ...]:
    wanted = (bands,) if isinstance(bands, str) else tuple(str(b) for b in bands)
    if not wanted or len(set(wanted)) < len(wanted):
        raise BandError(
            "No bands were asked for." if not wanted else f"A band is named twice: {some(wanted)}.",
            cause="A cube has one layer per band name.",
            next_step="Give bands=[...] with each name once.",
        )
    return wanted


def _pixels_per_side(centres: Centres, resolution: float, size: int | None) -> int:
    if size is not None:
        if int(size) != size or size < 1:
            raise IngestError(
                f"size is {size!r}.",
                cause="A chip has a whole number of pixels per side, at least 1.",
                next_step="Give e.g. size=64.",
            )
        return int(size)
    side = float(np.max(centres.side))
    if not np.isfinite(side) or side <= 0:
        raise IngestError(
            "The size of the chips is not known.",
            cause="The neighborhoods are points, or sized in metres in a CRS of degrees.",
            next_step="Pass size=... (pixels per side), or size_m=... to read_neighborhoods.",
        )
    return max(1, int(np.ceil(side / resolution - 1e-6)))


def _scene_names(hrefs: list[str]) -> list[str]:
    """Names without the folders that all scenes share."""
    if len(hrefs) == 1:
        return [Path(hrefs[0]).name]
    try:
        common = os.path.commonpath([os.path.dirname(h) for h in hrefs])
    except ValueError:
        return hrefs
    return [Path(os.path.relpath(h, common)).as_posix() if common else h for h in hrefs]


def _with_bands(
    table: pd.DataFrame, names: list[str], wanted: tuple[str, ...], mask_band: str | None
) -> tuple[list[int], list[Failure]]:
    """Positions of the scenes that have all bands, and a failure for each of the others."""
    needed = wanted + ((mask_band,) if mask_band is not None else ())
    present: set[str] = set().union(*table["bands"])
    for band in needed:
        if band not in present:
            close = get_close_matches(band, sorted(present), n=1, cutoff=0.4)
            raise BandError(
                f"No scene has a band {band!r}" + (f" (closest: {close[0]!r})." if close else "."),
                cause=f"The scenes have {some(sorted(present), 20)}.",
                next_step="Correct the name, or name the bands in scan(..., bands=[...]).",
            )
    keep, failures = [], []
    for k, own in enumerate(table["bands"]):
        missing = [b for b in needed if b not in own]
        if missing:
            detail = f"It has no band {some(missing)}; its bands are {some(own, 20)}."
            failures.append(Failure("cube", "scene", names[k], "band_missing", detail))
        else:
            keep.append(k)
    if not keep:
        raise BandError(
            f"No scene has all of the bands {some(needed, 20)}.",
            cause="Each is in some scene, but all must be in one file.",
            next_step="Stack the bands of a date into one file (gdalbuildvrt -separate).",
        )
    return keep, failures


def _once(
    table: pd.DataFrame, names: list[str], keep: list[int]
) -> tuple[list[int], list[Failure]]:
    """Drop a file met again (by a link, or a table given twice): it would weigh double."""
    first: dict[tuple[str, ...], int] = {}
    failures = []
    columns = [c for c in ("time", "time_end", "neighborhood") if c in table]
    for k in keep:
        href = str(table["href"][k])
        real = os.path.realpath(href) if os.path.isfile(href) else href
        same = first.setdefault((real, *(str(table[c][k]) for c in columns)), k)
        if same != k:
            detail = f"It is the same file, of the same date, as {names[same]}."
            failures.append(Failure("cube", "scene", names[k], "duplicate", detail))
    return list(first.values()), failures


def _source(
    row: dict[Any, Any], name: str, wanted: tuple[str, ...], mask_band: str | None
) -> SourceScene:
    own = list(row["bands"])
    at = [own.index(b) for b in wanted]
    last = row.get("time_end", row["time"])
    return SourceScene(
        name=name,
        href=str(row["href"]),
        grid=SceneGrid(
            str(row["scene_crs"]),
            tuple(float(v) for v in row["transform"]),  # type: ignore[arg-type]
            int(row["width"]),
            int(row["height"]),
        ),
        indexes=tuple(i + 1 for i in at),
        mask_index=own.index(mask_band) + 1 if mask_band is not None else None,
        nodata=float("nan") if pd.isna(row["nodata"]) else float(row["nodata"]),
        scales=tuple(float(row["scales"][i]) for i in at),
        offsets=tuple(float(row["offsets"][i]) for i in at),
        date=_day(last),
        start=_day(row["time"]),
    )


def _day(moment: Any) -> str:
    return "" if pd.isna(moment) else pd.Timestamp(moment).strftime("%Y-%m-%d")


def _periods(
    table: pd.DataFrame, periods: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[frozenset[int], ...]]:
    given = [ALL] if periods is None else [periods] if isinstance(periods, str) else list(periods)
    labels = tuple(str(p) for p in given)
    if not labels or len(set(labels)) < len(labels):
        raise IngestError(
            "There are no periods." if not labels else f"A period occurs twice: {some(labels)}.",
            cause="A cube has one layer per period.",
            next_step="Give each period once, or leave periods out.",
        )
    first = pd.to_datetime(table["time"])
    last = pd.to_datetime(table.get("time_end", table["time"])).fillna(first)
    undated = table.loc[first.isna(), "href"].tolist()
    members = []
    for label in labels:
        start, end = parse_period(label)
        if label == ALL:
            members.append(frozenset(range(len(table))))
            continue
        if undated:
            raise SceneError(
                f"{len(undated)} scenes have no date: {some(Path(h).name for h in undated)}.",
                cause=f"Whether they belong to the period {label!r} is unknown.",
                next_step="Pass time=... or time_pattern=... to scan(), or use periods=['all'].",
            )
        members.append(frozenset(np.flatnonzero((first >= start) & (last <= end)).tolist()))
    return labels, tuple(members)


def _own_pairs(pairs: Touches, table: pd.DataFrame, index: pd.Index[Any]) -> Touches:
    """Drop pairs of a scene that belongs to another neighborhood."""
    if "neighborhood" not in table.columns:
        return pairs
    owner = table["neighborhood"]
    tied = owner.notna().to_numpy()
    ids = set(index.astype(str))
    if tied.any() and not ids.intersection(owner[tied].astype(str)):
        raise SceneError(
            f"No scene belongs to a neighborhood that is there: the scenes name "
            f"{some(owner[tied])}, the neighborhoods are {some(index)}.",
            cause="The ids found in the file names are written in another way (zeros in front?).",
            next_step="Correct neighborhood_pattern in scan(), or the ids of the neighborhoods.",
        )
    same = owner.astype(str).to_numpy()[pairs.scene] == index.astype(str).to_numpy()[pairs.chip]
    keep = same | ~tied[pairs.scene]
    return Touches(pairs.chip[keep], pairs.scene[keep], pairs.pixels[keep])
