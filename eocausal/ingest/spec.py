"""Everything about a cube that can be decided before a pixel is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eocausal.contracts import check_columns, check_neighborhoods, some
from eocausal.errors import (
    BandError,
    EmptyInputError,
    IngestError,
    SceneError,
)
from eocausal.ingest.acquisitions import (
    as_asset,
    check_bands,
    item_numbers,
    scene_names,
    store_labels,
    without_repeats,
)
from eocausal.ingest.assets import Asset
from eocausal.ingest.grid import ChipGrids, SceneGrid, parse_crs
from eocausal.ingest.match import Touches, touches
from eocausal.ingest.order import along_strips
from eocausal.ingest.packing import Packing, choose_packing
from eocausal.ingest.places import Centres, locate
from eocausal.ingest.recipe import Recipe
from eocausal.ingest.remote import is_remote, unsigned
from eocausal.ingest.sources import SCENE_COLUMNS
from eocausal.ingest.times import ALL, parse_period
from eocausal.provenance import Failure

__all__ = ["CubeSpec", "GridClass", "Layers", "Look", "specify"]

_CHUNK_BYTES: Final = 2**20
_UNIT: Final = 256
_UNIT_PIXELS: Final = 4_000_000
_NEEDED: Final = SCENE_COLUMNS[:11]
_VERSIONS: Final = ("checksum", "etag", "size_bytes")


@dataclass(frozen=True, slots=True)
class GridClass:
    """Assets that share one grid, and so one way from a chip to their pixels.

    ``unit`` is the height and width of the pieces that are read at once: a stored block, or as
    many of them as make 256 pixels. ``owner`` is the neighborhood they are for, if for one alone.
    """

    grid: SceneGrid
    unit: tuple[int, int]
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """One acquisition. ``start`` and ``date`` are the first and last day it may be from.

    ``day`` counts from 1970-01-01 to the middle of it; the least integer if unknown.
    """

    name: str
    start: str
    date: str
    day: int


@dataclass(frozen=True, slots=True)
class Layers:
    """The bands wanted of every look: where each is, shape (layers,).

    ``band`` counts the bands of the asset; ``target`` the recipe's inputs, then its masks.
    """

    look: NDArray[np.int32]
    asset: NDArray[np.int32]
    band: NDArray[np.int32]
    target: NDArray[np.int32]

    def of(self, which: NDArray[np.bool_]) -> Layers:
        """Choose some."""
        return Layers(self.look[which], self.asset[which], self.band[which], self.target[which])


@dataclass(frozen=True, slots=True)
class CubeSpec:
    """A cube before any pixel is read, with its chips in the order of the store.

    ``labels`` are the neighborhoods' ids as the store holds them (whole numbers or text);
    ``members[period]`` the looks of each period by date and name; ``chunk`` the periods that are
    stored together; ``hrefs`` says where every scene is that was given, by name; ``versions`` tells
    remote files of one address apart.
    """

    recipe: Recipe
    packing: Packing
    index: pd.Index[Any]
    labels: NDArray[Any]
    centres: Centres
    chips: ChipGrids
    classes: tuple[GridClass, ...]
    assets: tuple[Asset, ...]
    asset_class: NDArray[np.int32]
    looks: tuple[Look, ...]
    layers: Layers
    pairs: Touches
    periods: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]
    chunk: int
    resolution: float
    failures: tuple[Failure, ...]
    hrefs: dict[str, str]
    versions: dict[str, str]

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Neighborhoods, periods, bands and pixels of the cube."""
        size = self.chips.size
        return len(self.chips), len(self.periods), len(self.recipe.bands), size, size


def specify(
    neighborhoods: gpd.GeoDataFrame,
    scenes: gpd.GeoDataFrame,
    recipe: Recipe,
    resolution: float,
    size: int | None,
    periods: Sequence[str] | None,
    *,
    crs: str | None = None,
) -> CubeSpec:
    """Decide everything about a cube that can be decided without reading pixels."""
    check_neighborhoods(neighborhoods)
    check_columns(scenes, _NEEDED, what="table of scenes")
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
    labels = store_labels(neighborhoods.index)
    centres = locate(neighborhoods, parse_crs(crs).to_string() if crs is not None else None)
    pixels = _pixels_per_side(centres, resolution, size)
    chips = ChipGrids.centred(centres.crs, centres.x, centres.y, float(resolution), pixels)
    table = scenes.reset_index(drop=True)
    hrefs = [unsigned(h) for h in table["href"].astype(str)]
    names = scene_names(hrefs)
    if "step" in table:
        names = [
            n if pd.isna(k) else f"{n} [{k}]" for n, k in zip(names, table["step"], strict=True)
        ]
    where = dict(zip(names, hrefs, strict=True))
    kept, failures = without_repeats(table, names)
    table, names = table.loc[kept].reset_index(drop=True), [names[k] for k in kept]
    items = item_numbers(table)
    layers, short = _layers(table, names, items, recipe)
    used = np.unique(layers.asset)
    table = table.loc[used].reset_index(drop=True)
    names, items = [names[k] for k in used], items[used]
    rank = np.searchsorted(used, layers.asset).astype(np.int32)
    layers = Layers(layers.look, rank, layers.band, layers.target)
    assets = tuple(
        as_asset(row, name) for row, name in zip(table.to_dict("records"), names, strict=True)
    )
    looks, layers = _looks(table, names, layers)
    classes, asset_class = _classes(table, assets)
    period_labels, members = _periods(looks, periods)
    recipe.composite.check(recipe.seen, all(look.date for look in looks))
    packing = choose_packing(assets, layers.asset, layers.band, layers.target, recipe)
    pairs = _own_pairs(touches(chips, [c.grid for c in classes]), classes, neighborhoods.index)
    per_period = len(recipe.bands) * pixels**2 * packing.dtype.itemsize
    chunk = max(1, min(len(period_labels), _CHUNK_BYTES // per_period))
    order = along_strips(chips, pairs, classes, _heavy(assets, asset_class, layers, members, chunk))
    return CubeSpec(
        recipe=recipe, packing=packing, index=neighborhoods.index[order], labels=labels[order],
        centres=centres.take(order), chips=chips.take(order), classes=classes, assets=assets,
        asset_class=asset_class, looks=looks, layers=layers, pairs=_reordered(pairs, order),
        periods=period_labels, members=members, chunk=chunk, resolution=float(resolution),
        failures=(*failures, *short), hrefs=where, versions=_versions(table),
    )  # fmt: skip


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


def _versions(table: pd.DataFrame) -> dict[str, str]:
    """List what servers said of the content of remote files: checksum, else ETag, else size."""
    found: dict[str, str] = {}
    for row in table[[c for c in ("href", *_VERSIONS) if c in table]].to_dict("records"):
        href = str(row["href"])
        said = [str(row[c]) for c in _VERSIONS if c in row and not pd.isna(row[c]) and row[c]]
        if said and is_remote(href):
            found[unsigned(href)] = said[0]
    return found


def _layers(
    table: pd.DataFrame, names: list[str], items: NDArray[np.int64], recipe: Recipe
) -> tuple[Layers, list[Failure]]:
    """Find every band wanted of every look; a failure for each look that lacks one."""
    wanted = recipe.wanted
    own = table["bands"].tolist()
    check_bands(own, wanted)
    found: list[tuple[int, int, int, int]] = []
    failures = []
    order = np.argsort(items, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(items[order])) + 1):
        rows = sorted(group.tolist(), key=lambda k: names[k])
        here = [
            (int(items[rows[0]]), k, own[k].index(band), target)
            for target, band in enumerate(wanted) for k in rows if band in own[k]
        ]  # fmt: skip
        missing = [b for t, b in enumerate(wanted) if not any(h[3] == t for h in here)]
        if missing:
            has = sorted({b for k in rows for b in own[k]})
            detail = f"It has no band {some(missing)}; its bands are {some(has, 20)}."
            failures += [Failure("cube", "scene", names[k], "band_missing", detail) for k in rows]
        else:
            found += here
    if not found:
        raise BandError(
            f"No scene has all of the bands {some(wanted, 20)}.",
            cause="Each is in some scene, but all must be of one acquisition.",
            next_step="Say which files are one acquisition (item_pattern in scan), or stack the "
            "bands of a date into one file (gdalbuildvrt -separate).",
        )
    columns = np.array(found, dtype=np.int32).T
    return Layers(*columns), failures


def _looks(
    table: pd.DataFrame, names: list[str], layers: Layers
) -> tuple[tuple[Look, ...], Layers]:
    """Make the looks, sorted by date and name, and number the layers' looks accordingly."""
    first: dict[int, int] = {}
    for look, asset in zip(layers.look.tolist(), layers.asset.tolist(), strict=True):
        first[look] = min(first.get(look, asset), asset)
    starts = table["time"]
    ends = table.get("time_end", starts)
    ends = ends.where(ends.notna(), starts)
    made = {k: _look(names[a], _day(starts[a]), _day(ends[a])) for k, a in first.items()}
    order = sorted(made, key=lambda k: (made[k].date, made[k].start, made[k].name))
    rank = {k: i for i, k in enumerate(order)}
    look = np.array([rank[k] for k in layers.look.tolist()], dtype=np.int32)
    place = np.lexsort((layers.asset, layers.target, look))
    moved = Layers(look[place], layers.asset[place], layers.band[place], layers.target[place])
    return tuple(made[k] for k in order), moved


def _look(name: str, start: str, date: str) -> Look:
    if not date:
        return Look(name, start, date, int(np.iinfo(np.int64).min))
    first, last = np.datetime64(start or date, "D"), np.datetime64(date, "D")
    return Look(name, start, date, (int(first.astype(np.int64)) + int(last.astype(np.int64))) // 2)


def _day(moment: Any) -> str:
    return "" if pd.isna(moment) else pd.Timestamp(moment).strftime("%Y-%m-%d")


def _classes(
    table: pd.DataFrame, assets: tuple[Asset, ...]
) -> tuple[tuple[GridClass, ...], NDArray[np.int32]]:
    owners = table["neighborhood"] if "neighborhood" in table else pd.Series(None, table.index)
    found: dict[tuple[SceneGrid, str | None], int] = {}
    classes: list[GridClass] = []
    which = np.empty(len(assets), dtype=np.int32)
    for k, (asset, owner) in enumerate(zip(assets, owners, strict=True)):
        key = (asset.grid, None if pd.isna(owner) else str(owner))
        if key not in found:
            found[key] = len(classes)
            classes.append(GridClass(key[0], _unit(asset), key[1]))
        which[k] = found[key]
    return tuple(classes), which


def _unit(asset: Asset) -> tuple[int, int]:
    """Height and width of what is read at once: blocks up to 256 pixels, within 4 million."""
    grid = asset.grid
    height, width = min(asset.block[0], grid.height), min(asset.block[1], grid.width)
    width *= max(1, -(-_UNIT // width))
    height *= max(1, min(-(-_UNIT // height), _UNIT_PIXELS // (width * height)))
    return min(height, grid.height), min(width, grid.width)


def _periods(
    looks: tuple[Look, ...], periods: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    given = [ALL] if periods is None else [periods] if isinstance(periods, str) else list(periods)
    labels = tuple(str(p) for p in given)
    if not labels or len(set(labels)) < len(labels):
        raise IngestError(
            "There are no periods." if not labels else f"A period occurs twice: {some(labels)}.",
            cause="A cube has one layer per period.",
            next_step="Give each period once, or leave periods out.",
        )
    first = np.array([look.start or "NaT" for look in looks], dtype="datetime64[D]")
    last = np.array([look.date or "NaT" for look in looks], dtype="datetime64[D]")
    undated = [look.name for look in looks if not look.start]
    members = []
    for label in labels:
        start, end = parse_period(label)
        if label == ALL:
            members.append(tuple(range(len(looks))))
            continue
        if undated:
            raise SceneError(
                f"{len(undated)} scenes have no date: {some(Path(h).name for h in undated)}.",
                cause=f"Whether they belong to the period {label!r} is unknown.",
                next_step="Pass time=... or time_pattern=... to scan(), or use periods=['all'].",
            )
        inside = (first >= np.datetime64(start, "D")) & (last <= np.datetime64(end, "D"))
        members.append(tuple(np.flatnonzero(inside).tolist()))
    return labels, tuple(members)


def _own_pairs(pairs: Touches, classes: tuple[GridClass, ...], index: pd.Index[Any]) -> Touches:
    """Drop pairs of a scene that belongs to another neighborhood."""
    owner = np.array([c.owner or "" for c in classes], dtype=object)
    tied = np.array([c.owner is not None for c in classes])
    if not tied.any():
        return pairs
    ids = index.astype(str).to_numpy(dtype=object)
    if not set(ids).intersection(owner[tied]):
        raise SceneError(
            f"No scene belongs to a neighborhood that is there: the scenes name "
            f"{some(owner[tied])}, the neighborhoods are {some(index)}.",
            cause="The ids found in the file names are written in another way (zeros in front?).",
            next_step="Correct neighborhood_pattern in scan(), or the ids of the neighborhoods.",
        )
    return pairs.keep((owner[pairs.grid] == ids[pairs.chip]) | ~tied[pairs.grid])


def _heavy(
    assets: tuple[Asset, ...],
    asset_class: NDArray[np.int32],
    layers: Layers,
    members: tuple[tuple[int, ...], ...],
    chunk: int,
) -> NDArray[np.int64]:
    """Bytes of one pixel of each class, over the looks of the fullest chunk of periods."""
    pairs = np.unique(np.column_stack([layers.asset, layers.band, layers.look]), axis=0)
    item = np.array([np.dtype(a.dtype).itemsize for a in assets], dtype=np.int64)
    most = np.zeros(int(asset_class.max()) + 1, dtype=np.int64)
    for start in range(0, len(members), chunk):
        looks = np.unique([k for m in members[start : start + chunk] for k in m]).astype(np.int64)
        here = pairs[np.isin(pairs[:, 2], looks)]
        found = np.bincount(
            asset_class[here[:, 0]], weights=item[here[:, 0]], minlength=len(most)
        ).astype(np.int64)
        most = np.maximum(most, found)
    return most


def _reordered(pairs: Touches, order: NDArray[np.intp]) -> Touches:
    rank = np.empty(len(order), dtype=np.intp)
    rank[order] = np.arange(len(order))
    chip = rank[pairs.chip]
    place = np.lexsort((pairs.grid, chip))
    return Touches(chip[place], pairs.grid[place], pairs.box[place])
