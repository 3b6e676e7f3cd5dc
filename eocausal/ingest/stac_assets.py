"""The assets of STAC items: which hold the bands wanted, and the rows that they become."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

import geopandas as gpd
import numpy as np

from eocausal.contracts import some
from eocausal.errors import BandError, CRSError, EmptyInputError, SceneError
from eocausal.ingest.catalog import Item, span_of_item
from eocausal.ingest.grid import same_crs
from eocausal.ingest.headers import Header, band_names, read_headers, scene_row, scenes_table
from eocausal.ingest.remote import Retry, Sign, probe, unsigned
from eocausal.provenance import Failure, FailureLedger

__all__ = ["table_of_items"]

_PROBE_THREADS: Final = 8
_OFFSET_FLAGS: Final = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")


@dataclass(frozen=True, slots=True)
class _Pick:
    """An asset that has bands wanted: their names, by position; None if it is the asset's only."""

    item: Item
    key: str
    names: tuple[tuple[int | None, str], ...]

    @property
    def asset(self) -> dict[str, Any]:
        asset: dict[str, Any] = self.item["assets"][self.key]
        return asset

    @property
    def href(self) -> str:
        return str(self.asset["href"])


def table_of_items(
    items: list[Item],
    wanted: dict[str, str],
    where: str,
    retry: Retry,
    sign: Sign | None,
    ledger: FailureLedger | None,
) -> gpd.GeoDataFrame:
    """Read the headers of the assets that hold the bands wanted; make the table of scenes.

    Parameters
    ----------
    items
        STAC items with absolute hrefs.
    wanted
        From the name wanted to the key of an asset, or the name or common name of a band.
    where
        The catalog, for messages.
    retry, sign, ledger
        See :func:`eocausal.ingest.stac.search_stac`.

    Raises
    ------
    EmptyInputError, BandError, SceneError
    """
    if not items:
        raise EmptyInputError(
            f"{where} has no item that was asked for.",
            cause="No item meets the collections, the place, the time and the query together.",
            next_step="Widen one of them; a time is searched in UTC.",
        )
    items = sorted(items, key=_order)
    picks, failures = _picks(items, wanted)
    if not picks:
        _raise_no_band(items, wanted)
    labels = _item_labels(items)
    rows: list[dict[str, Any]] = []
    found = read_headers([p.href for p in picks], retry=retry, sign=sign)
    sizes = _sizes(picks, found, sign)
    for pick, header, size in zip(picks, found, sizes, strict=True):
        if isinstance(header, Failure):
            failures.append(header)
            continue
        row, noted = _row(pick, header, labels[id(pick.item)], size)
        failures += noted
        if row is not None:
            rows.append(row)
    if ledger is not None:
        ledger.rows.extend(failures)
    if not rows:
        lost = [f for f in failures if f.reason not in ("asset_missing", "stac_mismatch")]
        raise SceneError(
            f"None of the {len(picks)} assets can be used.",
            cause="; ".join(f"{f.subject}: {f.detail}" for f in lost[:3]),
            next_step="If they must be signed, give sign=...; else check the connection.",
        )
    return scenes_table(rows)


def _order(item: Item) -> tuple[str, str, str]:
    span = span_of_item(item)
    first = span[0].isoformat() if span else ""
    return first, str(item["id"]), str(item.get("collection") or "")


def _item_labels(items: list[Item]) -> dict[int, str]:
    """Ids of items; with the collection in front where two collections use the same id."""
    ids = [str(i["id"]) for i in items]
    repeated = {i for i in ids if ids.count(i) > 1} if len(set(ids)) < len(ids) else set()
    return {
        id(item): f"{item.get('collection')}/{name}" if name in repeated else name
        for item, name in zip(items, ids, strict=True)
    }


def _picks(items: list[Item], wanted: dict[str, str]) -> tuple[list[_Pick], list[Failure]]:
    picks, failures = [], []
    for item in items:
        chosen: dict[str, list[tuple[int | None, str]]] = {}
        missing = []
        for name, band in wanted.items():
            at = _find(item.get("assets", {}), band)
            if at is None:
                missing.append(f"{name} ({band})" if name != band else name)
            else:
                chosen.setdefault(at[0], []).append((at[1], name))
        picks += [_Pick(item, key, tuple(names)) for key, names in chosen.items()]
        if missing:
            detail = f"It has no {some(missing, 20)}; its assets are {some(item['assets'], 20)}."
            subject = str(item["id"])
            failures.append(Failure("scan", "scene", subject, "asset_missing", detail))
    return picks, failures


def _find(assets: Mapping[str, Any], band: str) -> tuple[str, int | None] | None:
    """Key of the asset that holds a band, and the band's position in it."""
    if band in assets:
        own = [b["name"] for b in _bands_of(assets[band])]
        return band, own.index(band) if len(own) > 1 and band in own else None
    best: tuple[tuple[Any, ...], str, int | None] | None = None
    for key, asset in assets.items():
        described = _bands_of(asset)
        hits = [k for k, b in enumerate(described) if band in (b["name"], b["common"])]
        if not hits:
            continue
        roles = set(asset.get("roles") or [])
        shown = bool(roles & {"overview", "thumbnail", "visual"})
        rank = (shown, "tiff" not in str(asset.get("type")), len(described), key)
        if best is None or rank < best[0]:
            best = rank, key, hits[0] if len(described) > 1 else None
    return None if best is None else best[1:]


def _bands_of(asset: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Say what an item says of an asset's bands, in the words of STAC 1.0 or 1.1."""
    lists = [asset.get(name) or [] for name in ("bands", "eo:bands", "raster:bands")]
    described = []
    for k in range(max(len(entries) for entries in lists)):
        merged: dict[str, Any] = {}
        for entries in lists:
            merged.update(entries[k] if k < len(entries) else {})
        described.append(
            {
                "name": merged.get("name"),
                "common": merged.get("common_name", merged.get("eo:common_name")),
                **_storage_of(merged),
            }
        )
    return described


def _storage_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "scale": entry.get("scale", entry.get("raster:scale")),
        "offset": entry.get("offset", entry.get("raster:offset")),
        "nodata": entry.get("nodata"),
    }


def _raise_no_band(items: list[Item], wanted: dict[str, str]) -> None:
    assets = {k: a for item in items for k, a in item.get("assets", {}).items()}
    named = {b[k] for a in assets.values() for b in _bands_of(a) for k in ("name", "common")}
    known = sorted({*assets, *(str(n) for n in named if n)})
    first = next(iter(wanted.values()))
    close = get_close_matches(first, known, n=1, cutoff=0.4)
    raise BandError(
        f"No item has any of the bands {some(wanted.values(), 20)}"
        + (f" (closest: {close[0]!r})." if close else "."),
        cause=f"The {len(items)} items found have {some(known, 30)}.",
        next_step="Give the key of an asset, or the name or common name of a band.",
    )


def _sizes(
    picks: list[_Pick], found: list[Header | Failure], sign: Sign | None
) -> list[tuple[int, str]]:
    """Bytes and ETag of each asset."""

    def size(pair: tuple[_Pick, Header | Failure]) -> tuple[int, str]:
        pick, header = pair
        if isinstance(header, Failure):
            return 0, ""
        if os.path.isfile(pick.href):
            return os.path.getsize(pick.href), ""
        bytes_, etag = probe(pick.href, sign=sign)
        return bytes_ or int(pick.asset.get("file:size") or 0), etag

    with ThreadPoolExecutor(_PROBE_THREADS, thread_name_prefix="probe") as pool:
        return list(pool.map(size, zip(picks, found, strict=True)))


def _row(
    pick: _Pick, header: Header, item: str, size: tuple[int, str]
) -> tuple[dict[str, Any] | None, list[Failure]]:
    described = _bands_of(pick.asset)
    noted: list[Failure] = []

    def note(reason: str, detail: str) -> None:
        noted.append(Failure("scan", "scene", unsigned(header.href), reason, detail))

    if len(described) not in (0, header.count):
        detail = f"The catalog describes {len(described)} bands, the file has {header.count}."
        if any(at is not None for at, _ in pick.names):
            note("band_count", detail)
            return None, noted
        described = []
        note("stac_mismatch", f"{detail} The file was used.")
    for detail in _disagreements(pick.asset, pick.item.get("properties", {}), header):
        note("stac_mismatch", f"{detail} The file was used.")
    span, values = span_of_item(pick.item), pick.item.get("properties", {})
    storage, detail = _storage(pick.asset, described, header, values)
    if detail:
        note("stac_mismatch", detail)
    row = scene_row(
        header, bands=_labels(pick, described, header), item=item, span=span,
        time_source="item" if span is not None else "", size_bytes=size[0],
        asset=pick.key, collection=str(pick.item.get("collection") or ""),
        platform=str(values.get("platform") or ""),
        baseline=str(values.get("s2:processing_baseline") or ""),
        offset_applied=any(bool(values.get(f)) for f in _OFFSET_FLAGS), etag=size[1],
        checksum=str(pick.asset.get("file:checksum") or ""), **storage,
    )  # fmt: skip
    return row, noted


def _labels(pick: _Pick, described: list[dict[str, Any]], header: Header) -> tuple[str, ...]:
    if header.count == 1:
        return (pick.names[0][1],)
    if described:
        common = [b["common"] for b in described]
        own = [b["common"] if common.count(b["common"]) == 1 else b["name"] for b in described]
        own = [o or b["name"] for o, b in zip(own, described, strict=True)]
    else:
        own = list(header.descriptions)
    claimed = {at: name for at, name in pick.names if at is not None}
    names = [claimed.get(k, None if o in claimed.values() else o) for k, o in enumerate(own)]
    return band_names(names)


def _disagreements(
    asset: Mapping[str, Any], properties: Mapping[str, Any], header: Header
) -> list[str]:
    """Sentences on the ``proj:`` fields that are not what the file says."""
    grid, found = header.grid, []
    code = asset.get("proj:code", asset.get("proj:epsg"))
    if code is None:
        code = properties.get("proj:code", properties.get("proj:epsg"))
    name = f"EPSG:{code}" if isinstance(code, int) else code
    if name is not None and not _same(str(name), grid.crs):
        found.append(f"The catalog says {name}, the file {grid.crs[:60]}.")
    shape, own = asset.get("proj:shape"), [grid.height, grid.width]
    if shape is not None and list(shape) != own:
        found.append(f"The catalog says {list(shape)} rows and columns, the file {own}.")
    said = asset.get("proj:transform")
    pixel = abs(grid.transform[0]) + abs(grid.transform[1])
    if said is not None and not np.allclose(said[:6], grid.transform, rtol=0, atol=1e-3 * pixel):
        found.append(f"The catalog says transform {said[:6]}, the file {list(grid.transform)}.")
    return found


def _same(first: str, second: str) -> bool:
    try:
        return same_crs(first, second)
    except CRSError:
        return False


def _storage(
    asset: Mapping[str, Any],
    described: list[dict[str, Any]],
    header: Header,
    properties: Mapping[str, Any],
) -> tuple[dict[str, Any], str]:
    """Scale, offset and nodata of the catalog, where the file has none of its own."""
    whole = _storage_of(asset)
    each = [
        {k: b[k] if b[k] is not None else whole[k] for k in whole}
        for b in described or [whole] * header.count
    ]
    changed: dict[str, Any] = {}
    detail = ""
    silent = set(header.scales) == {1.0} and set(header.offsets) == {0.0}
    if silent and any(b["scale"] is not None or b["offset"] is not None for b in each):
        changed["scales"] = tuple(_number(b["scale"], 1.0) for b in each)
        changed["offsets"] = tuple(_number(b["offset"], 0.0) for b in each)
        if any(changed["offsets"]) and any(bool(properties.get(f)) for f in _OFFSET_FLAGS):
            changed["offsets"] = (0.0,) * header.count
            detail = "The catalog gives an offset and says that it was applied already: none is."
    if math.isnan(header.nodata) and each[0]["nodata"] is not None:
        changed["nodata"] = _number(each[0]["nodata"], float("nan"))
    return changed, detail


def _number(value: Any, default: float) -> float:
    try:
        return default if value is None else float(value)
    except (TypeError, ValueError):
        return default
