"""STAC catalogs become a table of scenes: one row per asset, from the asset's own header.

A catalog says what there is and when it was taken. Where an image lies and what it is made of is
read from the image: a wrong ``proj:`` field would otherwise give a cube without a valid pixel and
without a warning. What the two disagree on is recorded (``stac_mismatch``), and the file wins.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np

from eocausal.contracts import some
from eocausal.errors import BandError, IngestError
from eocausal.ingest.catalog import (
    Boxes,
    Item,
    boxes_of_places,
    check_query,
    in_interval,
    interval_of,
    merge_boxes,
    search_items,
    split_box,
    touching,
    walk_items,
    with_properties,
)
from eocausal.ingest.remote import Retry, Sign, is_remote
from eocausal.ingest.stac_assets import table_of_items
from eocausal.ingest.times import ALL, Span, parse_period
from eocausal.provenance import FailureLedger

__all__ = ["read_catalog", "search_stac"]


def search_stac(
    url: str,
    *,
    collections: str | Sequence[str],
    bands: Sequence[str] | Mapping[str, str],
    neighborhoods: gpd.GeoDataFrame | None = None,
    bbox: Sequence[float] | None = None,
    time: str | Sequence[str] | None = None,
    query: Mapping[str, Mapping[str, Any]] | None = None,
    max_items: int | None = None,
    headers: Mapping[str, str] | None = None,
    sign: Sign | None = None,
    retry: Retry | None = None,
    ledger: FailureLedger | None = None,
) -> gpd.GeoDataFrame:
    """Search a STAC API, and read the headers of the assets found into a table of scenes.

    Parameters
    ----------
    url
        Address of the API.
    collections
        Ids of the collections.
    bands
        Names of the bands wanted: an asset's key, the common name of a band (``'red'``) or its
        name (``'B04'``). Or a mapping from the name wanted to one of these,
        ``{"red": "B04", "mask": "SCL"}``.
    neighborhoods
        Where: only scenes whose box touches one of these are taken. Places that are far apart
        are searched for apart, and the antimeridian is no border.
    bbox
        Where, instead: west, south, east, north in degrees; west > east crosses the antimeridian.
    time
        One period, or several, as in :func:`~eocausal.ingest.times.parse_period`.
    query
        Conditions on properties, ``{"eo:cloud_cover": {"lt": 60}}``. An item that lacks the
        property is left out.
    max_items
        The most items to take, in the order in which the API gives them.
    headers
        HTTP headers for the API (not for the assets), e.g. of a subscription.
    sign
        Turns the href of an asset into one that can be read now; its result is kept nowhere.
    retry
        When to give up, for the API and for the assets.
    ledger
        Receives a row for each item without one of the assets (``asset_missing``), each asset
        that cannot be used (``read_error``, ``no_crs``, ``no_georeference``, ``wrong_crs``,
        ``dtype``, ``band_count``), and each in which file and catalog disagree
        (``stac_mismatch``: it is used, as the file says).

    Returns
    -------
    GeoDataFrame
        Columns as of :func:`eocausal.scan`; ``item`` is the id of the STAC item, so that rows
        with the same ``item`` are one acquisition. Scale, offset and nodata come from the catalog
        where the file has none. Further columns: ``asset`` (its key), ``collection``,
        ``platform``, ``baseline`` (Sentinel-2 processing baseline), ``offset_applied`` (the
        provider has already taken off the offset of that baseline), ``etag`` and ``checksum``
        (a multihash, hexadecimal), each '' or missing where unknown. ``attrs['query']`` is what
        was asked.

    Raises
    ------
    EmptyInputError
        If nothing was found.
    BandError
        If no item has any of the bands.
    SceneError
        If the search fails, or no asset can be read.
    IngestError
        If what is asked for contradicts itself.

    Examples
    --------
    >>> scenes = search_stac(  # doctest: +SKIP
    ...     "https://earth-search.aws.element84.com/v1", collections="sentinel-2-l2a",
    ...     bands=["red", "nir", "scl"], bbox=(32.4, 0.2, 32.7, 0.4), time="2020-06",
    ... )
    """
    names = [collections] if isinstance(collections, str) else [str(c) for c in collections]
    wanted, spans, area = _wanted(bands), _spans(time), _area(neighborhoods, bbox)
    check_query(query)
    policy = retry if retry is not None else Retry()
    found: dict[tuple[str, str], Item] = {}
    intervals = [interval_of(span) for span in spans] or [None]
    for interval in intervals:
        for item in search_items(
            url, collections=names, boxes=None if area is None else merge_boxes(area),
            interval=interval, query=query,
            max_items=max_items, retry=policy, headers=headers,
        ):  # fmt: skip
            found.setdefault((str(item.get("collection")), str(item["id"])), item)
    items = with_properties(list(found.values()), query)
    items = items if area is None else touching(items, area)
    table = table_of_items(items[:max_items], wanted, url, policy, sign, ledger)
    table.attrs["query"] = _asked(url, names, wanted, area, time, query, max_items)
    return table


def read_catalog(
    address: str | Path,
    *,
    bands: Sequence[str] | Mapping[str, str],
    neighborhoods: gpd.GeoDataFrame | None = None,
    bbox: Sequence[float] | None = None,
    time: str | Sequence[str] | None = None,
    query: Mapping[str, Mapping[str, Any]] | None = None,
    headers: Mapping[str, str] | None = None,
    sign: Sign | None = None,
    retry: Retry | None = None,
    ledger: FailureLedger | None = None,
) -> gpd.GeoDataFrame:
    """Read a STAC catalog of files, and the headers of its assets, into a table of scenes.

    Parameters
    ----------
    address
        Path or URL of a catalog, a collection, an item or an item collection. All that it links
        to is read; a linked file that cannot be is recorded (``read_error``).
    bands, neighborhoods, bbox, time, query, headers, sign, retry, ledger
        As for :func:`search_stac`.

    Returns
    -------
    GeoDataFrame
        As of :func:`search_stac`.

    Raises
    ------
    EmptyInputError, BandError, SceneError, IngestError
        As of :func:`search_stac`.
    """
    wanted, spans, area = _wanted(bands), _spans(time), _area(neighborhoods, bbox)
    check_query(query)
    policy = retry if retry is not None else Retry()
    where = str(address) if is_remote(str(address)) else os.path.abspath(address)
    items, failures = walk_items(where, retry=policy, headers=headers)
    if ledger is not None:
        ledger.rows.extend(failures)
    items = with_properties(items, query)
    items = in_interval(items, spans) if spans else items
    items = items if area is None else touching(items, area)
    table = table_of_items(items, wanted, where, policy, sign, ledger)
    table.attrs["query"] = _asked(where, [], wanted, area, time, query, None)
    return table


def _wanted(bands: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    if isinstance(bands, Mapping):
        wanted = {str(k): str(v) for k, v in bands.items()}
    else:
        names = (bands,) if isinstance(bands, str) else bands
        wanted = {str(b): str(b) for b in names}
        if len(wanted) < len(names):
            raise BandError(
                f"A band is named twice: {some(names, 20)}.",
                cause="Each name stands for one band.",
                next_step="Give each name once.",
            )
    if not wanted or len(set(wanted.values())) < len(wanted):
        raise BandError(
            "No bands were asked for." if not wanted else "Two names stand for one band.",
            cause="A scene has one layer per name.",
            next_step="Give e.g. bands=['red', 'nir'] or bands={'red': 'B04', 'nir': 'B08'}.",
        )
    return wanted


def _spans(time: str | Sequence[str] | None) -> list[Span]:
    labels = [] if time is None else [time] if isinstance(time, str) else list(time)
    return [] if ALL in labels else [parse_period(label) for label in labels]


def _area(neighborhoods: gpd.GeoDataFrame | None, bbox: Sequence[float] | None) -> Boxes | None:
    if neighborhoods is not None and bbox is not None:
        raise IngestError(
            "neighborhoods and bbox were both given.",
            cause="Both say where to search.",
            next_step="Leave one out.",
        )
    if neighborhoods is not None:
        if neighborhoods.crs is None or len(neighborhoods) == 0:
            raise IngestError(
                "The neighborhoods have no CRS, or there are none.",
                cause="Where to search is unknown.",
                next_step="Read them with read_neighborhoods.",
            )
        return boxes_of_places(neighborhoods)
    if bbox is None:
        return None
    values = [float(v) for v in bbox]
    good = len(values) == 4 and all(math.isfinite(v) for v in values)
    if not good or not -90.0 <= values[1] <= values[3] <= 90.0 or max(map(abs, values)) > 360.0:
        raise IngestError(
            f"bbox is {list(bbox)}.",
            cause="It must be west, south, east, north in degrees.",
            next_step="Give e.g. bbox=(32.4, 0.2, 32.7, 0.4).",
        )
    return np.array(list(split_box(*values)))


def _asked(
    where: str,
    collections: list[str],
    wanted: dict[str, str],
    area: Boxes | None,
    time: str | Sequence[str] | None,
    query: Mapping[str, Mapping[str, Any]] | None,
    max_items: int | None,
) -> dict[str, Any]:
    return {
        "catalog": where,
        "collections": collections,
        "bands": wanted,
        "boxes": None if area is None else merge_boxes(area).tolist(),
        "time": time if time is None or isinstance(time, str) else list(time),
        "query": {k: dict(v) for k, v in (query or {}).items()},
        "max_items": max_items,
    }
