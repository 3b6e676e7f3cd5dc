"""A folder or list of GeoTIFFs becomes a table of scenes, from the files' own headers."""

from __future__ import annotations

import glob
import json
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from eocausal.contracts import some
from eocausal.errors import BandError, CRSError, EmptyInputError, IngestError, SceneError
from eocausal.ingest.footprints import scene_footprint
from eocausal.ingest.grid import WGS84, SceneGrid, parse_crs
from eocausal.ingest.times import ALL, Span, date_in_name, parse_period, read_date
from eocausal.provenance import Failure, FailureLedger

__all__ = ["SCENE_COLUMNS", "scan"]

SCENE_COLUMNS: Final = (
    "href", "bands", "count", "dtype", "nodata", "scales", "offsets", "scene_crs", "transform",
    "width", "height", "resolution", "time", "time_end", "time_source", "size_bytes",
)  # fmt: skip
_SUFFIXES: Final = (".tif", ".tiff")
_DATE_TAGS: Final = (
    "ACQUISITION_DATE", "ACQUISITIONDATETIME", "DATE_ACQUIRED", "SENSING_TIME", "DATETIME",
    "TIFFTAG_DATETIME",
)  # fmt: skip
_NOT_DEGREES: Final = "Its CRS is in degrees, but its coordinates lie beyond any on Earth."
_DATE_KEYS: Final = ("datetime", "time", "acquired", "date")


@dataclass(frozen=True, slots=True)
class _Options:
    span: Span | None
    time_pattern: str | None
    place_pattern: str | None
    bands: tuple[str, ...] | None
    nodata: float | None
    crs: str | None


def scan(
    paths: str | Path | Sequence[str | Path],
    *,
    time: str | None = None,
    time_pattern: str | None = None,
    bands: Sequence[str] | None = None,
    nodata: float | None = None,
    crs: str | None = None,
    neighborhood_pattern: str | None = None,
    ledger: FailureLedger | None = None,
) -> gpd.GeoDataFrame:
    r"""Read the headers of GeoTIFFs into a table of scenes.

    Parameters
    ----------
    paths
        A folder (searched with its subfolders, links included, for ``.tif`` and ``.tiff``), a
        file, a glob pattern, or a list of these.
    time
        Date of all scenes: ``'YYYY'``, ``'YYYY-MM'``, ``'YYYY-MM-DD'`` or a range with ``/``.
    time_pattern
        Regular expression with a named group ``date``, or ``year`` (and ``month``, ``day``),
        searched in the file name.
    bands
        Names of the bands in order; by default the bands' descriptions, else ``b1``, ``b2``...
    nodata
        Value that means no data, instead of the files' own tag.
    crs
        CRS of files that do not say theirs.
    neighborhood_pattern
        Regular expression with a named group ``neighborhood``, searched in the file name, for
        folders with a file for each place: such a scene feeds only the neighborhood with that
        id, even where it overlaps others. It adds the column ``neighborhood``.
    ledger
        Receives a row for every file left out (``read_error``, ``no_crs``, ``wrong_crs``,
        ``no_georeference``, ``band_count``, ``dtype``).

    Returns
    -------
    GeoDataFrame
        One row a file, sorted by name: ``href, bands, count, dtype, nodata, scales, offsets,
        scene_crs, transform, width, height, resolution, time, time_end, time_source,
        size_bytes`` and the footprint in EPSG:4326. ``time`` is UTC without a zone, or NaT.
        A date comes from, in this order: ``time``, ``time_pattern``, a JSON file beside the image
        (``datetime``, ``time`` or ``properties.datetime``), the TIFF's tags, the file name.
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
    hrefs = _find(paths)
    options = _Options(
        span=parse_period(time) if time is not None and time != ALL else None,
        time_pattern=_checked(time_pattern, ("date", "year"), "time_pattern"),
        place_pattern=_checked(neighborhood_pattern, ("neighborhood",), "neighborhood_pattern"),
        bands=_named(bands),
        nodata=nodata,
        crs=parse_crs(crs).to_string() if crs is not None else None,
    )
    rows: list[dict[str, Any]] = []
    failures: list[Failure] = []
    for href in hrefs:
        row = _header(href, options)
        if isinstance(row, Failure):
            failures.append(row)
        else:
            rows.append(row)
    if ledger is not None:
        ledger.rows.extend(failures)
    if not rows:
        _raise_none_left(failures)
    return gpd.GeoDataFrame(pd.DataFrame(rows), geometry="geometry", crs=WGS84)


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


def _is_remote(text: str) -> bool:
    return "://" in text or text.startswith("/vsi")


def _find(paths: str | Path | Sequence[str | Path]) -> list[str]:
    items = [paths] if isinstance(paths, str | Path) else list(paths)
    found: list[str] = []
    for item in items:
        text = str(item)
        path = Path(text)
        if _is_remote(text):
            found.append(text)
        elif path.is_dir():
            found += _inside(path.absolute())
        elif path.is_file():
            found.append(str(path.absolute()))
        elif glob.has_magic(text):
            matches = (Path(p) for p in glob.glob(text, recursive=True))
            found += [str(p.absolute()) for p in matches if p.is_file()]
        else:
            raise SceneError(
                f"There is no file or folder {text}.",
                cause="The path is wrong, or the file was moved.",
                next_step="Check the path; relative paths start at the working directory.",
            )
    if not found:
        raise EmptyInputError(
            f"No GeoTIFF was found in {some([str(i) for i in items])}.",
            cause="There is no file ending in .tif or .tiff.",
            next_step="Check the folder or the glob pattern.",
        )
    return sorted(set(found))


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


def _header(href: str, options: _Options) -> dict[str, Any] | Failure:
    def failure(reason: str, detail: str) -> Failure:
        return Failure("scan", "scene", href, reason, detail)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(href) as source:
                header = _read_header(source)
    except (RasterioError, OSError, UnicodeDecodeError) as error:
        return failure("read_error", f"The header cannot be read: {error}")
    except CRSError as error:
        return failure("wrong_crs", f"{error.fact} {error.cause}")
    grid, problem = _georeference(header, options.crs, href)
    if grid is None:
        return failure(*problem)
    try:
        footprint = scene_footprint(grid)
    except CRSError as error:
        return failure("wrong_crs", f"{error.fact} {error.cause}")
    if header["dtype"].startswith("complex"):
        return failure("dtype", f"Its pixels are {header['dtype']}, not real numbers.")
    count = header["count"]
    if options.bands is not None and len(options.bands) != count:
        return failure("band_count", f"It has {count} bands, not {len(options.bands)}.")
    span, found_in = _time_of(href, header["tags"], options)
    local = Path(href) if not _is_remote(href) else None
    row = {
        "href": href,
        "bands": options.bands or _band_names(header["descriptions"]),
        "count": count,
        "dtype": header["dtype"],
        "nodata": float(options.nodata if options.nodata is not None else header["nodata"]),
        "scales": header["scales"],
        "offsets": header["offsets"],
        "scene_crs": grid.crs,
        "transform": grid.transform,
        "width": grid.width,
        "height": grid.height,
        "resolution": (grid.transform[0] ** 2 + grid.transform[3] ** 2) ** 0.5,
        "time": span[0] if span else pd.NaT,
        "time_end": span[1] if span else pd.NaT,
        "time_source": found_in,
        "size_bytes": local.stat().st_size if local is not None and local.exists() else 0,
        "geometry": footprint,
    }
    if options.place_pattern is not None:
        match = re.search(options.place_pattern, Path(href).name)
        row["neighborhood"] = match.group("neighborhood") if match else None
    return row


def _read_header(source: Any) -> dict[str, Any]:
    tags = {**source.tags(), **source.tags(ns="IMAGERY")}
    return {
        "count": source.count,
        "dtype": str(source.dtypes[0]),
        "nodata": float("nan") if source.nodata is None else float(source.nodata),
        "scales": tuple(float(v) for v in source.scales),
        "offsets": tuple(float(v) for v in source.offsets),
        "descriptions": tuple(source.descriptions),
        "crs": _crs_name(source.crs),
        "transform": tuple(float(v) for v in source.transform[:6]),
        "identity": source.transform.is_identity,
        "singular": abs(source.transform.determinant) == 0.0,
        "gcps": len(source.gcps[0]),
        "shape": (source.width, source.height),
        "tags": {str(k).upper(): str(v) for k, v in tags.items()},
    }


def _crs_name(crs: Any) -> str | None:
    """Name a CRS so that nothing is lost: its EPSG code only if that says the same."""
    if crs is None or not crs.to_wkt():
        return None
    wkt = str(crs.to_wkt(version="WKT2_2019"))
    code = parse_crs(wkt).to_epsg(min_confidence=90)
    if code and parse_crs(f"EPSG:{code}").equals(parse_crs(wkt), ignore_axis_order=True):
        return f"EPSG:{code}"
    return wkt


def _georeference(
    header: dict[str, Any], crs: str | None, href: str
) -> tuple[SceneGrid | None, tuple[str, str]]:
    own = header["crs"]
    if header["identity"] or header["singular"]:
        what = "only ground control points" if header["gcps"] else "no affine transform"
        return None, ("no_georeference", f"It has {what}, so its pixels have no place on Earth.")
    if own is None and crs is None:
        return None, ("no_crs", "It has no coordinate reference system.")
    if (
        crs is not None
        and own is not None
        and not parse_crs(own).equals(parse_crs(crs), ignore_axis_order=True)
    ):
        raise CRSError(
            f"crs={crs!r} was given, but {href} says {parse_crs(own).name}.",
            cause="One of them is wrong, and the scene would silently move.",
            next_step="Leave crs out to use each file's own.",
        )
    grid = SceneGrid(own or str(crs), header["transform"], *header["shape"])
    return (None, ("wrong_crs", _NOT_DEGREES)) if _beyond_degrees(grid) else (grid, ("", ""))


def _beyond_degrees(grid: SceneGrid) -> bool:
    """Whether a scene in degrees reaches more than a pixel beyond a pole, or around the Earth."""
    if not parse_crs(grid.crs).is_geographic or grid.period is None:
        return False
    a, b, c, d, e, f = grid.transform
    turn = grid.period
    cols, rows = np.array([[0, 1, 0, 1], [0, 0, 1, 1]]) * [[grid.width], [grid.height]]
    x, y = a * cols + b * rows + c, d * cols + e * rows + f
    too_high = np.abs(y).max() > turn / 4 + abs(d) + abs(e)
    return bool(too_high or np.ptp(x) > turn + 2 * (abs(a) + abs(b)) or np.abs(x).max() > 2 * turn)


def _band_names(descriptions: tuple[str | None, ...]) -> tuple[str, ...]:
    names = tuple(d or f"b{i}" for i, d in enumerate(descriptions, 1))
    if len(set(names)) < len(names):
        return tuple(f"b{i}" for i in range(1, len(names) + 1))
    return names


def _time_of(href: str, tags: dict[str, str], options: _Options) -> tuple[Span | None, str]:
    if options.span is not None:
        return options.span, "argument"
    name = Path(href).name
    if options.time_pattern is not None:
        span = date_in_name(name, options.time_pattern)
        if span is not None:
            return span, "time_pattern"
    span = _sidecar_date(href)
    if span is not None:
        return span, "sidecar"
    for tag in _DATE_TAGS:
        span = read_date(tags.get(tag, ""))
        if span is not None:
            return span, tag
    span = date_in_name(Path(name).stem)
    return span, "name" if span is not None else ""


def _sidecar_date(href: str) -> Span | None:
    if _is_remote(href):
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
