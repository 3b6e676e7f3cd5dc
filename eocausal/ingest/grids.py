"""Gridded files (NetCDF, HDF5, Zarr) become a table of scenes, one row a file and time step."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import geopandas as gpd
import pandas as pd
import xarray as xr

from eocausal.contracts import some
from eocausal.errors import BandError, CRSError, EmptyInputError, IngestError, SceneError
from eocausal.ingest.cf import Layout, Refused, choose, grid_of, packing_of
from eocausal.ingest.cf_time import spans_of
from eocausal.ingest.footprints import scene_footprint
from eocausal.ingest.grid import parse_crs
from eocausal.ingest.grid_files import (
    ZARR_MARKS,
    GridReader,
    GridSource,
    close_idle,
    common_dtype,
    common_fill,
    open_dataset,
    open_grid,
)
from eocausal.ingest.headers import SCENE_COLUMNS, scenes_table
from eocausal.ingest.paths import list_paths
from eocausal.ingest.times import ALL, Span, parse_period
from eocausal.provenance import Failure, FailureLedger

__all__ = ["GridReader", "close_idle", "open_grid", "scan_grids"]

_SUFFIXES: Final = (".nc", ".nc3", ".nc4", ".cdf", ".h5", ".hdf5", ".he5", ".hdf")
_BLOCK_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True)
class _Options:
    variables: tuple[str, ...] | None
    names: tuple[str, ...] | None
    select: dict[str, int]
    crs: str | None
    spans: tuple[Span, ...] | None
    same_span: bool
    item: re.Pattern[str] | None
    renamed: dict[str, str]


def scan_grids(
    paths: str | Path | Sequence[str | Path],
    *,
    variables: str | Sequence[str] | Mapping[str, str] | None = None,
    select: Mapping[str, int] | None = None,
    crs: str | None = None,
    time: str | Sequence[str] | None = None,
    item_pattern: str | None = None,
    ledger: FailureLedger | None = None,
) -> gpd.GeoDataFrame:
    r"""Read the headers of gridded files into a table of scenes; no pixel is read.

    NetCDF-3, NetCDF-4 and HDF5 files and Zarr stores (formats 2 and 3) on regular grids: level-3
    ocean colour (OC-CCI, GlobColour, MODIS and VIIRS L3m), reanalyses, land cover. Longitudes may
    run in 0..360 or -180..180 or across the antimeridian, rows from north or south, and
    coordinates may be rounded to a twentieth of a pixel.

    Parameters
    ----------
    paths
        A folder (searched with its subfolders), a file, a Zarr store, a glob pattern, or a list
        of these.
    variables
        Variables to use, in order; or a mapping from the names of bands to variables. By default
        all that lie on the grid.
    select
        Position along each further dimension, e.g. ``{"depth": 0}``. Dimensions of length one
        need not be named.
    crs
        CRS of files that do not say theirs (those with axes of latitude and longitude need none).
    time
        Date instead of the files' own: one label for all (``'2015-06'``), or a list with a label
        for each step, such as ``period_range('1998-01', '2022-12')``.
    item_pattern
        Regular expression with a named group ``item``, searched in the file name, for archives
        with a file for each variable: steps of one date in files with the same item are one
        acquisition, whose bands are together. For level-3 files of NASA:
        ``r"(?P<item>[A-Z]\d+)\."``.
    ledger
        Receives a row for every file left out (``read_error``, ``no_georeference``,
        ``irregular_grid``, ``no_crs``, ``wrong_crs``, ``wrong_time``, ``band_missing``,
        ``several_grids``, ``extra_dimension``, ``wrong_scale``).

    Returns
    -------
    GeoDataFrame
        The columns of :func:`eocausal.ingest.sources.scan`. ``item`` is the href and the step
        unless ``item_pattern`` says more, ``step`` -1 without a time axis, and ``size_bytes``
        the step's share of the file. ``bands`` are the names of the variables, ``dtype`` the
        smallest type that holds them all, ``nodata`` their common fill value (NaN where they
        differ; readers then say which pixels are good), and ``transform`` describes the rows as
        they are stored. For ``time`` and ``time_end`` see :func:`eocausal.ingest.cf_time.spans_of`.

    Warns
    -----
    UserWarning
        If the times of a file only number its layers; its scenes then have no date.

    Raises
    ------
    EmptyInputError
        If there is no file.
    SceneError, BandError, CRSError
        If none can be used.
    IngestError
        If an argument is wrong.

    Examples
    --------
    >>> scenes = scan_grids("oc_cci/", variables={"chl": "chlor_a"})  # doctest: +SKIP
    """
    options = _options(variables, select, crs, time, item_pattern)
    rows: list[dict[str, Any]] = []
    failures: list[Failure] = []
    files = _find(paths)
    for path in files:
        try:
            rows += _rows(path, options)
        except Refused as refused:
            failures.append(Failure("scan", "scene", path, refused.reason, refused.detail))
        except OSError as error:
            text = f"The header cannot be read: {error}"
            failures.append(Failure("scan", "scene", path, "read_error", text))
    if ledger is not None:
        ledger.rows.extend(failures)
    if not rows:
        _raise_none_left(failures)
    return scenes_table(rows)[[*SCENE_COLUMNS, "geometry"]]


def _options(
    variables: str | Sequence[str] | Mapping[str, str] | None,
    select: Mapping[str, int] | None,
    crs: str | None,
    time: str | Sequence[str] | None,
    item_pattern: str | None,
) -> _Options:
    if isinstance(variables, str):
        variables = (variables,)
    names = None if variables is None else tuple(str(v) for v in variables)
    if isinstance(variables, Mapping):
        wanted: tuple[str, ...] | None = tuple(str(v) for v in variables.values())
    else:
        wanted = names
    if names is not None and (not names or len(set(names)) < len(names)):
        raise BandError(
            "No variable is named." if not names else f"A band is named twice: {some(names, 20)}.",
            cause="Each band has a name of its own.",
            next_step="Name each variable once, or leave variables out to use all.",
        )
    for dim, at in (select or {}).items():
        if isinstance(at, bool) or int(at) != at or at < 0:
            raise IngestError(
                f"select={{{dim!r}: {at!r}}} is not a position.",
                cause="Positions are counted from 0.",
                next_step=f"Give e.g. select={{{dim!r}: 0}}.",
            )
    labels = [time] if isinstance(time, str) else [] if time is None else [str(t) for t in time]
    pairs = zip(names or (), wanted or (), strict=True)
    return _Options(
        variables=wanted,
        names=names,
        select={str(d): int(i) for d, i in (select or {}).items()},
        crs=parse_crs(crs).to_string() if crs is not None else None,
        spans=tuple(parse_period(t) for t in labels) if time is not None and time != ALL else None,
        same_span=isinstance(time, str),
        item=_pattern(item_pattern),
        renamed={name: variable for name, variable in pairs if name != variable},
    )


def _rows(path: str, options: _Options) -> list[dict[str, Any]]:
    """Make the rows of one file."""
    with open_dataset(path) as dataset:
        names, layouts = choose(dataset, options.variables)
        select = _selected(dataset, layouts, options.select)
        grid = grid_of(dataset, names[0], layouts[0], options.crs)
        try:
            footprint = scene_footprint(grid)
        except CRSError as error:
            raise Refused("wrong_crs", f"{error.fact} {error.cause}") from error
        packings = [packing_of(dataset.variables[n]) for n in names]
        dim = _time_dimension(layouts)
        spans, found_in = _spans(dataset, dim, path, options)
        source = GridSource(path, options.renamed, select)
        common = {
            "href": source.href,
            "bands": options.names or names,
            "count": len(names),
            "dtype": str(common_dtype(packings)),
            "nodata": common_fill(packings),
            "scales": tuple(p.scale for p in packings),
            "offsets": tuple(p.offset for p in packings),
            "scene_crs": grid.crs,
            "transform": grid.transform,
            "width": grid.width,
            "height": grid.height,
            "resolution": abs(grid.transform[0]),
            "time_source": found_in,
            "size_bytes": _size(path) // len(spans),
            "block": _block(dataset, names, layouts),
        }
    return [
        {
            **common,
            "time": span[0] if span else pd.NaT,
            "time_end": span[1] if span else pd.NaT,
            "item": _item(source.href, step, options.item, dated=span is not None),
            "step": step if dim is not None else -1,
            "geometry": footprint,
        }
        for step, span in enumerate(spans)
    ]


def _pattern(text: str | None) -> re.Pattern[str] | None:
    if text is None:
        return None
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise IngestError(
            f"item_pattern={text!r} is not a regular expression.",
            cause=f"{error}.",
            next_step="Correct it; remember the r before the quotes.",
        ) from error
    if "item" not in pattern.groupindex:
        raise IngestError(
            f"item_pattern={text!r} has no group named item.",
            cause="What it finds could not be told apart.",
            next_step="Write the part that matters as (?P<item>...).",
        )
    return pattern


def _item(href: str, step: int, pattern: re.Pattern[str] | None, *, dated: bool) -> str:
    """Name the acquisition; those of one date that share a name are one."""
    match = pattern.search(Path(GridSource.parse(href).path).name) if pattern is not None else None
    if match is None:
        return f"{href}#{step}"
    return match["item"] if dated else f"{match['item']}#{step}"


def _selected(
    dataset: xr.Dataset, layouts: Sequence[Layout], select: Mapping[str, int]
) -> dict[str, int]:
    """Position along each further dimension that is longer than one."""
    others = dict.fromkeys(d for layout in layouts for d in layout.others)
    unknown = [d for d in select if d not in others]
    if unknown:
        text = f"Its variables have no dimension {some(unknown)}; they have {some(others)}."
        raise Refused("extra_dimension", text)
    chosen: dict[str, int] = {}
    for dim in others:
        size = dataset.sizes[dim]
        if dim not in select and size > 1:
            text = f"Dimension {dim!r} has {size} entries: name one, e.g. select={{{dim!r}: 0}}."
            raise Refused("extra_dimension", text)
        if select.get(dim, 0) >= size:
            text = f"select={{{dim!r}: {select[dim]}}} is beyond the {size} entries of {dim!r}."
            raise Refused("extra_dimension", text)
        if size > 1:
            chosen[dim] = select[dim]
    return chosen


def _time_dimension(layouts: Sequence[Layout]) -> str | None:
    dims = dict.fromkeys(layout.time for layout in layouts if layout.time is not None)
    if len(dims) > 1:
        text = f"Its variables have several time axes: {some(dims)}. Name some in variables."
        raise Refused("several_grids", text)
    return next(iter(dims), None)


def _spans(
    dataset: xr.Dataset, dim: str | None, path: str, options: _Options
) -> tuple[list[Span | None], str]:
    if options.spans is None:
        return spans_of(dataset, dim, path)
    steps = 1 if dim is None else dataset.sizes[dim]
    if options.same_span:
        return [options.spans[0]] * steps, "argument"
    if len(options.spans) != steps:
        raise SceneError(
            f"time has {len(options.spans)} labels, but {Path(path).name} has {steps} steps.",
            cause="Which label belongs to which step is unknown.",
            next_step="Give one label for each step, e.g. period_range('1998-01', '2022-12').",
        )
    return list(options.spans), "argument"


def _block(dataset: xr.Dataset, names: Sequence[str], layouts: Sequence[Layout]) -> tuple[int, int]:
    """Rows and columns that are stored together; whole rows of about a megabyte if unchunked."""
    height, width = dataset.sizes[layouts[0].y], dataset.sizes[layouts[0].x]
    rows, cols = 1, 1
    for name, layout in zip(names, layouts, strict=True):
        variable = dataset.variables[name]
        chunks = variable.encoding.get("preferred_chunks") or {}
        whole = max(1, _BLOCK_BYTES // (width * variable.dtype.itemsize))
        rows = max(rows, int(chunks.get(layout.y, whole)))
        cols = max(cols, int(chunks.get(layout.x, width)))
    return min(rows, height), min(cols, width)


def _size(path: str) -> int:
    if not os.path.isdir(path):
        return os.path.getsize(path)
    return sum(f.stat().st_size for f in Path(path).rglob("*") if f.is_file())


def _is_store(path: Path) -> bool:
    return path.is_dir() and any((path / mark).exists() for mark in ZARR_MARKS)


def _is_grid(path: Path) -> bool:
    return _is_store(path) or path.is_file()


def _refuse_remote(text: str) -> bool:
    if "://" in text:
        raise SceneError(
            f"{text} is not a local file.",
            cause="Gridded files are read from a disk.",
            next_step="Download it first; it may then be read as often as needed.",
        )
    return False


def _find(paths: str | Path | Sequence[str | Path]) -> list[str]:
    items = [paths] if isinstance(paths, str | Path) else list(paths)
    found = list_paths(items, whole=_is_grid, inside=_inside, far=_refuse_remote)
    if not found:
        raise EmptyInputError(
            f"No gridded file was found in {some([str(i) for i in items])}.",
            cause=f"There is no Zarr store and no file ending in {', '.join(_SUFFIXES)}.",
            next_step="Check the folder or the glob pattern.",
        )
    return found


def _inside(folder: Path) -> list[str]:
    """Gridded files and Zarr stores under a folder; links are followed once."""
    found: list[str] = []
    seen: set[str] = set()
    for base, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(base)
        if real in seen or _is_store(Path(base)):
            found += [base] if real not in seen else []
            folders.clear()
        else:
            found += [os.path.join(base, n) for n in names if Path(n).suffix.lower() in _SUFFIXES]
        seen.add(real)
        folders.sort()
    return found


def _raise_none_left(failures: list[Failure]) -> None:
    first = "; ".join(f"{Path(f.subject).name}: {f.detail}" for f in failures[:3])
    reasons = {f.reason for f in failures}
    count = "The file" if len(failures) == 1 else f"None of the {len(failures)} files"
    message = f"{count} can{'not' if len(failures) == 1 else ''} be used as a scene."
    if reasons == {"band_missing"}:
        raise BandError(message, cause=first, next_step="Correct the names in variables=....")
    if reasons <= {"no_crs", "wrong_crs"}:
        raise CRSError(
            message, cause=first, next_step="Pass crs=... if you know it, or correct the files."
        )
    steps = {
        "extra_dimension": "Say which entry is meant with select={...}, or name variables=....",
        "several_grids": "Name variables=... that share a grid.",
        "wrong_time": "Give the dates with time=....",
        "read_error": "Check the files, or fetch them again.",
    }
    kinds = [steps[r] for r in steps if r in reasons]
    raise SceneError(
        message, cause=first, next_step=kinds[0] if kinds else "Put them on a regular grid first."
    )
