"""The lock file: what a search resolved to, so that a run can be repeated without it.

A catalog changes: items are reprocessed, withdrawn, added. The lock holds the query and the table
of scenes it gave: ids, hrefs, dates, grids and, where the source has them, ETag, size and checksum.
It is JSON to be read by people, and by :func:`read_lock`, which gives back the same table to the
last bit. No signature, token or password is written.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import geopandas as gpd
import pandas as pd
import shapely

from eocausal.contracts import check_columns
from eocausal.errors import IngestError
from eocausal.ingest.headers import SCENE_COLUMNS
from eocausal.ingest.remote import Sign, probe, unsigned
from eocausal.provenance import Failure, atomic_path, hash_json

__all__ = ["changed_assets", "read_lock", "unsigned", "write_lock"]

_FORMAT: Final = 1
_SECRET_NAME = re.compile(
    r".*token|.*api[-_]?key|subscription-key|password|secret|authorization", re.IGNORECASE
)
_PROBE_THREADS: Final = 8


def write_lock(
    scenes: gpd.GeoDataFrame, path: str | Path, query: Mapping[str, Any] | None = None
) -> None:
    """Write a table of scenes, and what was asked for to get it, whole or not at all.

    Parameters
    ----------
    scenes
        From :func:`eocausal.search_stac`, :func:`eocausal.scan` or the like. Hrefs are written
        without their signatures.
    path
        File to write; its folder is made.
    query
        What was asked, of plain values; by default ``scenes.attrs['query']``.

    Raises
    ------
    MissingColumnError
        If ``scenes`` is not a table of scenes.
    """
    check_columns(scenes, SCENE_COLUMNS, what="table of scenes")
    asked = dict(query if query is not None else scenes.attrs.get("query", {}))
    outlines: dict[bytes, int] = {}
    numbers = [outlines.setdefault(g.wkb, len(outlines)) for g in scenes.geometry]
    plain = [name for name in scenes.columns if name != scenes.geometry.name]
    columns = {str(name): [_out(v) for v in scenes[name]] for name in plain}
    content = {
        "query": _out(asked),
        "columns": {str(name): str(scenes[name].dtype) for name in scenes.columns},
        "crs": scenes.crs.to_string(),
        "index": [_out(v) for v in scenes.index],
        "footprints": [shapely.geometry.mapping(shapely.from_wkb(w)) for w in outlines],
        "scenes": [
            {**{name: columns[name][k] for name in columns}, "footprint": numbers[k]}
            for k in range(len(scenes))
        ],
    }
    head = {
        "eocausal_lock": _FORMAT,
        "written": datetime.now(UTC).strftime("%Y-%m-%d"),
        "sha256": hash_json(content),
    }
    with atomic_path(path) as temporary:
        temporary.write_text(_text({**head, **content}), encoding="utf-8")


def _text(content: dict[str, Any]) -> str:
    """JSON with a scene, and a footprint, on each line."""

    def dump(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)

    parts = []
    for key, value in content.items():
        lines = isinstance(value, list) and key in ("scenes", "footprints")
        body = "[\n" + ",\n".join("  " + dump(v) for v in value) + "\n]" if lines else dump(value)
        parts.append(f"{dump(key)}: {body}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _out(value: Any) -> Any:
    """Turn a cell into JSON: missing is null; a number that JSON lacks is {"float": ...}."""
    if isinstance(value, Mapping):
        return {str(k): _out(v) for k, v in value.items() if not _SECRET_NAME.fullmatch(str(k))}
    if isinstance(value, tuple | list):
        return [
            {"float": repr(v)} if isinstance(v, float) and not math.isfinite(v) else _out(v)
            for v in value
        ]
    if isinstance(value, str):
        return unsigned(value) if "://" in value else str(value)
    if value is None or pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    return value


def _in(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_in(v) for v in value)
    if isinstance(value, dict) and list(value) == ["float"]:
        return float(value["float"])
    return value


def read_lock(path: str | Path) -> gpd.GeoDataFrame:
    """Read the table of scenes of a lock, without a request to any server.

    Returns
    -------
    GeoDataFrame
        As it was given to :func:`write_lock`; ``attrs['query']`` is what was asked.

    Raises
    ------
    IngestError
        If there is no such file, it is no lock, or it was cut or changed.

    Examples
    --------
    >>> scenes = read_lock("study/scenes.lock.json")  # doctest: +SKIP
    """
    content = _content(Path(path))
    try:
        table = _table(content)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise _damaged(
            path, f"It cannot be understood: {type(error).__name__}: {error}."
        ) from error
    table.attrs["query"] = content["query"]
    return table


def _damaged(path: str | Path, cause: str) -> IngestError:
    return IngestError(
        f"{path} is not a lock that can be used.",
        cause=cause,
        next_step="Take it from version control or a backup, or search again and write a new one.",
    )


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _damaged(path, "There is no such file.") from error
    except (OSError, ValueError) as error:
        raise _damaged(path, f"It cannot be read: {error}.") from error
    if not isinstance(content, dict) or "eocausal_lock" not in content:
        raise _damaged(path, "It was not written by write_lock.")
    if content["eocausal_lock"] != _FORMAT:
        known = f"this version of eocausal reads format {_FORMAT}"
        raise _damaged(path, f"Its format is {content['eocausal_lock']!r}; {known}.")
    body = {k: v for k, v in content.items() if k not in ("eocausal_lock", "written", "sha256")}
    if content.get("sha256") != hash_json(body):
        raise _damaged(path, "Its checksum does not fit: it was cut, or edited by hand.")
    return content


def _table(content: dict[str, Any]) -> gpd.GeoDataFrame:
    rows, crs = content["scenes"], content["crs"]
    outlines = [shapely.geometry.shape(g) for g in content["footprints"]]
    index = pd.Index([_in(v) for v in content["index"]])
    if index.equals(pd.RangeIndex(len(rows))):
        index = pd.RangeIndex(len(rows))
    columns = {}
    for name, kind in content["columns"].items():
        if kind == "geometry":
            shapes = [outlines[row["footprint"]] for row in rows]
            columns[name] = gpd.GeoSeries(shapes, index=index, crs=crs)
        else:
            columns[name] = pd.Series([_in(row[name]) for row in rows], index=index, dtype=kind)
    return gpd.GeoDataFrame(columns, index=index, geometry=_outline_column(content), crs=crs)


def _outline_column(content: dict[str, Any]) -> str:
    return next(str(name) for name, kind in content["columns"].items() if kind == "geometry")


def changed_assets(scenes: gpd.GeoDataFrame, *, sign: Sign | None = None) -> list[Failure]:
    """Find the assets whose size or ETag is no longer what the table says.

    Parameters
    ----------
    scenes
        From :func:`read_lock`.
    sign
        Turns an href into one that can be read now.

    Returns
    -------
    list of Failure
        ``changed`` for each; an asset of which nothing is known, or that does not answer, is
        not among them.
    """
    etags = scenes["etag"] if "etag" in scenes else pd.Series("", index=scenes.index)
    known = list(zip(scenes["href"], scenes["size_bytes"], etags.fillna(""), strict=True))

    def look(entry: tuple[str, int, str]) -> Failure | None:
        href, size, etag = entry
        if os.path.isfile(href):
            now: tuple[int, str] = (os.path.getsize(href), "")
        else:
            now = probe(href, sign=sign)
        resized = bool(size and now[0]) and int(size) != now[0]
        if not resized and not (etag and now[1] and etag != now[1]):
            return None
        detail = f"It had {size} bytes and ETag {etag or '-'}; now {now[0]} and {now[1] or '-'}."
        return Failure("scan", "scene", href, "changed", detail)

    with ThreadPoolExecutor(_PROBE_THREADS, thread_name_prefix="probe") as pool:
        return [found for found in pool.map(look, known) if found is not None]
