"""A folder or list of images becomes a table of scenes, from the files' own headers."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import geopandas as gpd

from eocausal.contracts import some
from eocausal.errors import BandError, CRSError, EmptyInputError, IngestError, SceneError
from eocausal.ingest.grid import parse_crs
from eocausal.ingest.headers import (
    SCENE_COLUMNS,
    Header,
    band_names,
    read_headers,
    scene_row,
    scenes_table,
)
from eocausal.ingest.paths import list_paths
from eocausal.ingest.remote import Retry, Sign, is_remote
from eocausal.ingest.times import ALL, Span, date_in_name, parse_period, read_date
from eocausal.provenance import Failure, FailureLedger

__all__ = ["SCENE_COLUMNS", "file_name", "list_images", "scan"]

_SUFFIXES: Final = (".tif", ".tiff", ".jp2")
_ACQUIRED_TAGS: Final = (
    "ACQUISITION_DATE", "ACQUISITIONDATETIME", "DATE_ACQUIRED", "SENSING_TIME",
)  # fmt: skip
_WRITTEN_TAGS: Final = ("DATETIME", "TIFFTAG_DATETIME")
_DATE_KEYS: Final = ("datetime", "time", "acquired", "date")


@dataclass(frozen=True, slots=True)
class _Options:
    span: Span | None
    time_pattern: str | None
    place_pattern: str | None
    item_pattern: str | None
    band_pattern: str | None
    bands: tuple[str, ...] | None
    renamed: dict[str, str]
    nodata: float | None


def scan(
    paths: str | Path | Sequence[str | Path],
    *,
    time: str | None = None,
    time_pattern: str | None = None,
    bands: Sequence[str] | Mapping[str, str] | None = None,
    band_pattern: str | None = None,
    item_pattern: str | None = None,
    nodata: float | None = None,
    crs: str | None = None,
    neighborhood_pattern: str | None = None,
    retry: Retry | None = None,
    sign: Sign | None = None,
    ledger: FailureLedger | None = None,
) -> gpd.GeoDataFrame:
    r"""Read the headers of images into a table of scenes.

    Parameters
    ----------
    paths
        See :func:`list_images`: folders, files, glob patterns, URLs, or a list of these.
    time
        Date of all scenes: ``'YYYY'``, ``'YYYY-MM'``, ``'YYYY-MM-DD'`` or a range with ``/``.
    time_pattern
        Regular expression with a named group ``date``, or ``year`` (and ``month``, ``day``),
        searched in the file name.
    bands
        Names of the bands in order; by default the bands' descriptions, else ``b1``, ``b2``...
        Or a mapping from the name wanted to the name found, ``{"red": "B4"}``; bands that are
        not in it keep their names.
    band_pattern
        Regular expression with a named group ``band``, searched in the file name, that names
        the band of a file with one band only.
    item_pattern
        Regular expression with a named group ``item``, searched in the file name, for folders
        with a file for each band: files with the same item are one acquisition. For Landsat,
        ``r"(?P<item>L.+_T\d)_(?P<band>\w+)"`` serves as this and as ``band_pattern``. A file in
        which it is not found is an acquisition of its own.
    nodata
        Value that means no data, instead of the files' own tag.
    crs
        CRS of files that do not say theirs.
    neighborhood_pattern
        Regular expression with a named group ``neighborhood``, searched in the file name, for
        folders with a file for each place: such a scene feeds only the neighborhood with that
        id, even where it overlaps others. It adds the column ``neighborhood``.
    retry, sign
        For images behind HTTP: when to give up, and how an href is signed; see
        :class:`~eocausal.ingest.remote.Retry`.
    ledger
        Receives a row for every file left out (``read_error``, ``no_crs``, ``wrong_crs``,
        ``no_georeference``, ``band_count``, ``dtype``).

    Returns
    -------
    GeoDataFrame
        One row a file, sorted by name: ``href, bands, count, dtype, nodata, scales, offsets,
        scene_crs, transform, width, height, resolution, time, time_end, time_source,
        size_bytes, block, item, step`` and the footprint in EPSG:4326. ``time`` is UTC without
        a zone, or NaT; ``step`` is missing, for it belongs to gridded files.
        A date comes from, in this order: ``time``, ``time_pattern``, a JSON file beside the image
        (``datetime``, ``time`` or ``properties.datetime``), a tag that names the acquisition
        (``ACQUISITION_DATE``, ``DATE_ACQUIRED``, ``SENSING_TIME``...), the file name, the tag
        ``DATETIME`` (often the day on which the file was written).
        ``time_end`` is the last instant the date allows (31 December where only the year is
        known) and ``time_source`` says where it was found.

    Raises
    ------
    EmptyInputError
        If there is no file, or none that can be used.
    SceneError, BandError, CRSError, IngestError

    Examples
    --------
    >>> scenes = scan("landsat/", bands=["swir1", "nir", "red", "green"])  # doctest: +SKIP
    """
    hrefs = list_images(paths)
    options = _Options(
        span=parse_period(time) if time is not None and time != ALL else None,
        time_pattern=_checked(time_pattern, ("date", "year"), "time_pattern"),
        place_pattern=_checked(neighborhood_pattern, ("neighborhood",), "neighborhood_pattern"),
        item_pattern=_checked(item_pattern, ("item",), "item_pattern"),
        band_pattern=_checked(band_pattern, ("band",), "band_pattern"),
        bands=None if isinstance(bands, Mapping) else _named(bands),
        renamed={v: k for k, v in bands.items()} if isinstance(bands, Mapping) else {},
        nodata=nodata,
    )
    _check_one_naming(options)
    rows: list[dict[str, Any]] = []
    failures: list[Failure] = []
    name = parse_crs(crs).to_string() if crs is not None else None
    for header in read_headers(hrefs, crs=name, retry=retry, sign=sign):
        row = header if isinstance(header, Failure) else _row(header, options)
        if isinstance(row, Failure):
            failures.append(row)
        else:
            rows.append(row)
    if ledger is not None:
        ledger.rows.extend(failures)
    if not rows:
        _raise_none_left(failures)
    return scenes_table(rows)


def _check_one_naming(options: _Options) -> None:
    if options.bands is not None and options.band_pattern is not None:
        raise BandError(
            "bands=[...] and band_pattern=... were both given.",
            cause="Both name the bands of a file.",
            next_step="Give bands={'red': 'B4', ...} to rename what band_pattern finds.",
        )


def _named(bands: Sequence[str] | None) -> tuple[str, ...] | None:
    if bands is None:
        return None
    names = (bands,) if isinstance(bands, str) else tuple(str(b) for b in bands)
    if len(set(names)) < len(names):
        raise BandError(
            f"A band is named twice: {some(names, 20)}.",
            cause="Which of the two is meant later could not be told.",
            next_step="Give each band of the files a name of its own.",
        )
    return names


def _checked(pattern: str | None, groups: tuple[str, ...], name: str) -> str | None:
    if pattern is None:
        return None
    try:
        found = re.compile(pattern).groupindex
    except re.error as error:
        raise IngestError(
            f"{name}={pattern!r} is not a regular expression.",
            cause=f"{error}.",
            next_step="Correct it; remember the r before the quotes.",
        ) from error
    if not any(g in found for g in groups):
        raise IngestError(
            f"{name}={pattern!r} has no group named {' or '.join(groups)}.",
            cause="What it finds could not be told apart.",
            next_step=f"Write the part that matters as (?P<{groups[0]}>...).",
        )
    return pattern


def _raise_none_left(failures: list[Failure]) -> None:
    first = "; ".join(f"{Path(f.subject).name}: {f.detail}" for f in failures[:3])
    reasons = {f.reason for f in failures}
    message = f"None of the {len(failures)} files can be used as a scene."
    if reasons == {"band_count"}:
        raise BandError(
            message, cause=first, next_step="Give as many names in bands=... as there are bands."
        )
    if reasons <= {"no_crs", "wrong_crs"}:
        step = "Correct crs=..., or the files' own CRS (gdal_edit.py -a_srs EPSG:...)."
        if "no_crs" in reasons:
            step = "Pass crs=... if you know it, e.g. crs='EPSG:32636'."
        raise CRSError(message, cause=first, next_step=step)
    step = "Check the files, or fetch them again."
    if reasons == {"no_georeference"}:
        step = "Put them on a map grid first, e.g. with gdalwarp."
    raise SceneError(message, cause=first, next_step=step)


def file_name(href: str) -> str:
    """Name of the file at a path or URL, without its folders and its query."""
    return Path(unquote(urlsplit(href).path) if "://" in href else href).name


def list_images(paths: str | Path | Sequence[str | Path]) -> list[str]:
    """List the images of folders, files and glob patterns, sorted, each once.

    Parameters
    ----------
    paths
        A folder (searched with its subfolders, links included, for ``.tif``, ``.tiff`` and
        ``.jp2``), a file of any name, a URL, a glob pattern, or a list of these.

    Raises
    ------
    SceneError
        If a path leads nowhere.
    EmptyInputError
        If there is no image.
    """
    items = [paths] if isinstance(paths, str | Path) else list(paths)
    found = list_paths(items, whole=Path.is_file, inside=_inside, far=is_remote)
    if not found:
        raise EmptyInputError(
            f"No image was found in {some([str(i) for i in items])}.",
            cause="There is no file ending in .tif, .tiff or .jp2.",
            next_step="Check the folder or the glob pattern.",
        )
    return found


def _inside(folder: Path) -> list[str]:
    """Images under a folder; links are followed once, and those that lead nowhere are kept."""
    found: list[str] = []
    seen: set[str] = set()
    for base, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        real = os.path.realpath(base)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [os.path.join(base, n) for n in names if Path(n).suffix.lower() in _SUFFIXES]
    return found


def _row(header: Header, options: _Options) -> dict[str, Any] | Failure:
    href, count = header.href, header.count
    name = file_name(href)
    if options.bands is not None and len(options.bands) != count:
        detail = f"It has {count} bands, not {len(options.bands)}."
        return Failure("scan", "scene", href, "band_count", detail)
    own = options.bands or band_names(header.descriptions)
    if options.band_pattern is not None and count == 1:
        own = (_group(options.band_pattern, "band", name) or own[0],)
    span, found_in = _time_of(href, header.tags, options)
    more: dict[str, Any] = {}
    if options.nodata is not None:
        more["nodata"] = float(options.nodata)
    if options.place_pattern is not None:
        more["neighborhood"] = _group(options.place_pattern, "neighborhood", name)
    return scene_row(
        header,
        bands=tuple(options.renamed.get(b, b) for b in own),
        item=_group(options.item_pattern, "item", name) or href,
        span=span,
        time_source=found_in,
        size_bytes=os.path.getsize(href) if os.path.isfile(href) else 0,
        **more,
    )


def _group(pattern: str | None, group: str, name: str) -> str | None:
    match = re.search(pattern, name) if pattern is not None else None
    return match.group(group) if match else None


def _time_of(href: str, tags: dict[str, str], options: _Options) -> tuple[Span | None, str]:
    if options.span is not None:
        return options.span, "argument"
    name = file_name(href)
    if options.time_pattern is not None:
        span = date_in_name(name, options.time_pattern)
        if span is not None:
            return span, "time_pattern"
    span = _sidecar_date(href)
    if span is not None:
        return span, "sidecar"
    for tag in _ACQUIRED_TAGS:
        span = read_date(tags.get(tag, ""))
        if span is not None:
            return span, tag
    span = date_in_name(Path(name).stem)
    if span is not None:
        return span, "name"
    for tag in _WRITTEN_TAGS:
        span = read_date(tags.get(tag, ""))
        if span is not None:
            return span, tag
    return None, ""


def _sidecar_date(href: str) -> Span | None:
    if is_remote(href):
        return None
    for path in (Path(href).with_suffix(".json"), Path(href + ".json")):
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if not isinstance(content, dict):
            continue
        properties = content.get("properties")
        for holder in (content, properties if isinstance(properties, dict) else {}):
            for key in _DATE_KEYS:
                span = read_date(str(holder.get(key) or ""))
                if span is not None:
                    return span
    return None
