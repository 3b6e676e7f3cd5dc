"""STAC items as plain dicts: from an API's search, or from a catalog of files.

Both 1.0 and 1.1 items are taken as they were written; nothing is migrated on the way. The hrefs of
assets come out absolute.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from pystac.utils import is_absolute_href, make_absolute_href
from pystac_client import Client
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from pystac_client.warnings import PystacClientWarning
from urllib3.util.retry import Retry as HTTPRetry

from eocausal.contracts import some
from eocausal.errors import IngestError, SceneError
from eocausal.ingest.grid import WGS84, project
from eocausal.ingest.remote import Retry
from eocausal.ingest.times import Span, read_date
from eocausal.provenance import Failure

__all__ = [
    "Boxes",
    "Item",
    "boxes_of_places",
    "check_query",
    "in_interval",
    "interval_of",
    "merge_boxes",
    "search_items",
    "span_of_item",
    "split_box",
    "stac_io",
    "touching",
    "walk_items",
    "with_properties",
]

Item = dict[str, Any]
Boxes = NDArray[np.float64]
"""West, south, east and north of each, in degrees, shape (n, 4), all within -180..180."""

_TIMEOUT: Final = (10.0, 60.0)
_CELL: Final = 4.0
_MOST_SEARCHES: Final = 32
_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "eq": lambda a, b: bool(a == b),
    "neq": lambda a, b: bool(a != b),
    "lt": lambda a, b: bool(a < b),
    "lte": lambda a, b: bool(a <= b),
    "gt": lambda a, b: bool(a > b),
    "gte": lambda a, b: bool(a >= b),
    "startsWith": lambda a, b: str(a).startswith(str(b)),
    "endsWith": lambda a, b: str(a).endswith(str(b)),
    "contains": lambda a, b: str(b) in str(a),
    "in": lambda a, b: a in b,
}


class _Patience(HTTPRetry):
    """Waits as long as a server asks for, but no longer than ``backoff_max``."""

    def get_retry_after(self, response: Any) -> float | None:
        asked = super().get_retry_after(response)
        return None if asked is None else min(asked, self.backoff_max)


def stac_io(retry: Retry, headers: Mapping[str, str] | None = None) -> StacApiIO:
    """Make what speaks to a catalog: with waits between attempts and limits of time."""
    policy = _Patience(
        total=retry.attempts - 1,
        backoff_factor=retry.first_delay,
        backoff_max=retry.longest,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods=None,
        raise_on_status=False,
    )
    return StacApiIO(
        headers=dict(headers) if headers else None, timeout=_TIMEOUT, max_retries=policy
    )


def search_items(
    url: str,
    *,
    collections: Sequence[str],
    boxes: Boxes | None,
    interval: str | None,
    query: Mapping[str, Mapping[str, Any]] | None,
    max_items: int | None,
    retry: Retry,
    headers: Mapping[str, str] | None,
) -> list[Item]:
    """Search a STAC API, once for each box; an item met twice is taken once.

    Raises
    ------
    SceneError
        If the API cannot be reached, refuses the search, or has none.
    """
    found: dict[tuple[str, str], Item] = {}
    areas: list[tuple[float, ...] | None] = [None] if boxes is None else [*map(tuple, boxes)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PystacClientWarning)
            client = Client.open(url, stac_io=stac_io(retry, headers))
            for area in areas:
                search = client.search(
                    collections=list(collections), bbox=area, datetime=interval,
                    query=None if query is None else {k: dict(v) for k, v in query.items()},
                    max_items=max_items,
                )  # fmt: skip
                for item in search.items_as_dicts():
                    found.setdefault((str(item.get("collection")), str(item["id"])), item)
    except (APIError, NotImplementedError, OSError, ValueError, KeyError, TypeError) as error:
        text = str(error).partition("\n")[0]
        raise SceneError(
            f"The STAC search at {url} failed.",
            cause=f"{type(error).__name__}: {text[:300]}",
            next_step="Check the address, the collections and the connection; for a catalog "
            "of files use read_catalog.",
        ) from error
    items = [_absolute(item, url) for item in found.values()]
    return items if max_items is None else items[:max_items]


def walk_items(
    address: str, *, retry: Retry, headers: Mapping[str, str] | None
) -> tuple[list[Item], list[Failure]]:
    """Read all items of a catalog of files: a catalog, collection, item or item collection.

    Returns
    -------
    items
        In the order of the links.
    failures
        One ``read_error`` for each linked file that cannot be read.

    Raises
    ------
    SceneError
        If the file at ``address`` itself cannot be read, or is none of these.
    """
    reader = stac_io(retry, headers)
    items: list[Item] = []
    failures: list[Failure] = []
    waiting, seen = [address], {address}
    while waiting:
        here = waiting.pop(0)
        try:
            content = json.loads(reader.read_text(here))
            own, links = _contents(content, here)
        except (APIError, OSError, ValueError) as error:
            if here == address:
                raise SceneError(
                    f"{address} cannot be read as a STAC catalog.",
                    cause=f"{str(error)[:300]}.",
                    next_step="Give the path or URL of a catalog.json, collection.json, an item "
                    "or an item collection; for an API use search_stac.",
                ) from error
            failures.append(Failure("scan", "scene", here, "read_error", str(error)[:300]))
            continue
        items += own
        new = [link for link in dict.fromkeys(links) if link not in seen]
        seen.update(new)
        waiting += new
    return items, failures


def _contents(content: Any, here: str) -> tuple[list[Item], list[str]]:
    """Items in a STAC file, and the files it links to."""
    kind = content.get("type") if isinstance(content, dict) else None
    if kind == "Feature":
        return [_absolute(content, here)], []
    if kind == "FeatureCollection":
        return [_absolute(item, here) for item in content["features"]], []
    if kind in ("Catalog", "Collection"):
        links = [link for link in content.get("links", []) if link.get("rel") in ("item", "child")]
        return [], [str(make_absolute_href(link["href"], here)) for link in links]
    raise ValueError(f"its type is {kind!r}, not Catalog, Collection, Feature, FeatureCollection")


def _absolute(item: Item, here: str) -> Item:
    own = next((k["href"] for k in item.get("links", []) if k.get("rel") == "self"), here)
    base = here if not is_absolute_href(own) or "://" not in here else own
    assets = {
        key: {**asset, "href": _path(str(make_absolute_href(asset["href"], base)))}
        for key, asset in item.get("assets", {}).items()
    }
    return {**item, "assets": assets}


def _path(href: str) -> str:
    return href.removeprefix("file://")


def check_query(query: Mapping[str, Mapping[str, Any]] | None) -> None:
    """Refuse a query with a comparison that is not known.

    Raises
    ------
    IngestError
    """
    for key, tests in (query or {}).items():
        unknown = [t for t in tests if t not in _COMPARE] if isinstance(tests, Mapping) else [tests]
        if unknown:
            raise IngestError(
                f"The query for {key!r} has {some(unknown)}.",
                cause=f"Known are {', '.join(_COMPARE)}.",
                next_step="Write e.g. query={'eo:cloud_cover': {'lt': 60}}.",
            )


def with_properties(
    items: Sequence[Item], query: Mapping[str, Mapping[str, Any]] | None
) -> list[Item]:
    """Keep the items that meet a query; an item that lacks the property does not.

    A search already asks for it, but an API that does not know the query extension ignores it.
    """

    def meets(item: Item) -> bool:
        values = item.get("properties", {})
        return all(
            values.get(key) is not None and _COMPARE[name](values[key], wanted)
            for key, tests in (query or {}).items()
            for name, wanted in tests.items()
        )

    return [item for item in items if meets(item)]


def span_of_item(item: Item) -> Span | None:
    """First and last instant of an item; None if it has no date that can be read."""
    values = item.get("properties", {})
    start, end = values.get("start_datetime"), values.get("end_datetime")
    if start and end:
        return read_date(f"{start}/{end}")
    return read_date(str(values.get("datetime") or ""))


def split_box(west: float, south: float, east: float, north: float) -> Iterator[tuple[float, ...]]:
    """Cut a box at the antimeridian; ``west > east`` says that it crosses it."""
    if west <= east and west >= -180.0 and east <= 180.0:
        yield west, south, east, north
        return
    if east - west >= 360.0:
        yield -180.0, south, 180.0, north
        return
    west = (west + 180.0) % 360.0 - 180.0
    east = (east + 180.0) % 360.0 - 180.0
    if west <= east:
        yield west, south, east, north
    else:
        yield west, south, 180.0, north
        yield -180.0, south, east, north


def boxes_of_places(places: Any) -> Boxes:
    """Boxes around neighborhoods, a hundredth wider; several for one that has several parts.

    Parameters
    ----------
    places
        GeoDataFrame with a CRS. Its polygons may cross the antimeridian.
    """
    parts = shapely.get_parts(np.asarray(places.geometry.values))
    xy, owner = shapely.get_coordinates(parts, return_index=True)
    lon, lat = project(places.crs.to_wkt(), WGS84, xy[:, 0], xy[:, 1])
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    first = np.repeat(lon[starts], np.diff(starts, append=len(lon)))
    lon = lon - 360.0 * np.round((lon - first) / 360.0)
    edges = [
        np.minimum.reduceat(lon, starts), np.minimum.reduceat(lat, starts),
        np.maximum.reduceat(lon, starts), np.maximum.reduceat(lat, starts),
    ]  # fmt: skip
    pad = 1e-3 + 0.01 * np.maximum(edges[2] - edges[0], edges[3] - edges[1])
    wide = np.column_stack(
        [
            edges[0] - pad,
            np.maximum(edges[1] - pad, -90.0),
            edges[2] + pad,
            np.minimum(edges[3] + pad, 90.0),
        ]
    )
    return np.array([part for box in wide.tolist() for part in split_box(*box)])


def merge_boxes(boxes: Boxes) -> Boxes:
    """Join boxes that lie in one cell of a coarse grid, so that few searches cover them all."""
    cell = _CELL
    while True:
        middle = np.floor((boxes[:, :2] + boxes[:, 2:]) / 2.0 / cell)
        cells, group = np.unique(middle, axis=0, return_inverse=True)
        if len(cells) <= _MOST_SEARCHES:
            break
        cell *= 2.0
    joined = [boxes[group.ravel() == k] for k in range(len(cells))]
    return np.array([[*b[:, :2].min(axis=0), *b[:, 2:].max(axis=0)] for b in joined])


def touching(items: Sequence[Item], boxes: Boxes) -> list[Item]:
    """Keep the items whose box touches one of the boxes; an item without a box is kept."""
    tree = shapely.STRtree(shapely.box(*boxes.T))

    def near(item: Item) -> bool:
        box = item.get("bbox")
        if not box:
            return True
        half = len(box) // 2
        parts = split_box(box[0], box[1], box[half], box[half + 1])
        return any(len(tree.query(shapely.box(*part), predicate="intersects")) for part in parts)

    return [item for item in items if near(item)]


def in_interval(items: Sequence[Item], spans: Sequence[Span]) -> list[Item]:
    """Keep the items that share an instant with one of the spans; undated ones are kept."""

    def meets(item: Item) -> bool:
        own = span_of_item(item)
        return own is None or any(own[0] <= last and own[1] >= first for first, last in spans)

    return [item for item in items if meets(item)]


def interval_of(span: Span) -> str | None:
    """Say a span as a STAC search does; None for all time."""
    if span[0] == pd.Timestamp.min:
        return None
    return "/".join(t.strftime("%Y-%m-%dT%H:%M:%SZ") for t in span)
