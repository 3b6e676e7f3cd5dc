"""What the header of an image says, and the row of the table of scenes that it becomes.

The file is trusted over everything that is said about it: CRS, transform, size, type and blocks
come from here, whatever a catalog claims.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Final

import geopandas as gpd
import numpy as np
import pandas as pd
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from eocausal.errors import CRSError
from eocausal.ingest.footprints import scene_footprint
from eocausal.ingest.grid import WGS84, SceneGrid, parse_crs
from eocausal.ingest.remote import RemoteImage, Retry, Sign, is_remote, reason_of, unsigned
from eocausal.ingest.times import Span
from eocausal.provenance import Failure

__all__ = ["SCENE_COLUMNS", "Header", "band_names", "read_headers", "scene_row", "scenes_table"]

SCENE_COLUMNS: Final = (
    "href", "bands", "count", "dtype", "nodata", "scales", "offsets", "scene_crs", "transform",
    "width", "height", "resolution", "time", "time_end", "time_source", "size_bytes", "block",
    "item", "step",
)  # fmt: skip
_NOT_DEGREES: Final = "Its CRS is in degrees, but its coordinates lie beyond any on Earth."
_REMOTE_THREADS: Final = 8
_LOCAL_THREADS: Final = 4
_MANY: Final = 32


@dataclass(frozen=True, slots=True)
class Header:
    """What an image says of itself.

    ``nodata`` is NaN, ``scales`` are 1 and ``offsets`` 0 where the file is silent; ``footprint``
    is its outline in EPSG:4326, ``block`` the rows and columns of the pieces it is stored in,
    and ``tags`` have upper-case names.
    """

    href: str
    grid: SceneGrid
    footprint: Any
    count: int
    dtype: str
    nodata: float
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    descriptions: tuple[str | None, ...]
    block: tuple[int, int]
    tags: dict[str, str]


def read_headers(
    hrefs: Sequence[str],
    *,
    crs: str | None = None,
    retry: Retry | None = None,
    sign: Sign | None = None,
) -> list[Header | Failure]:
    """Read the headers of images, several at a time where they are many or far away.

    Parameters
    ----------
    hrefs
        Paths or URLs.
    crs
        CRS of images that do not say theirs.
    retry, sign
        See :mod:`eocausal.ingest.remote`.

    Returns
    -------
    list of Header or Failure
        In the order of ``hrefs``. The reasons are ``read_error``, ``no_crs``, ``wrong_crs``,
        ``no_georeference`` and ``dtype``.

    Raises
    ------
    CRSError
        If an image says another CRS than ``crs``.
    """
    read = partial(_read_header, crs=crs, retry=retry, sign=sign)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return _in_order(read, hrefs)


def _in_order(
    read: Callable[[str], Header | Failure], hrefs: Sequence[str]
) -> list[Header | Failure]:
    far = any(is_remote(h) for h in hrefs)
    threads = _REMOTE_THREADS if far else min(_LOCAL_THREADS, os.cpu_count() or 1)
    if threads < 2 or len(hrefs) < (2 if far else _MANY):
        return [read(h) for h in hrefs]
    with ThreadPoolExecutor(threads, thread_name_prefix="headers") as pool:
        return list(pool.map(read, hrefs))


def _read_header(
    href: str, *, crs: str | None, retry: Retry | None, sign: Sign | None
) -> Header | Failure:
    def failure(reason: str, detail: str) -> Failure:
        return Failure("scan", "scene", unsigned(href), reason, detail)

    image = None
    try:
        image = RemoteImage(href, retry=retry, sign=sign)
        facts = image.run(_facts)
    except (RasterioError, OSError, UnicodeDecodeError) as error:
        return failure("read_error", f"The header cannot be read: {reason_of(error)}")
    except CRSError as error:
        return failure("wrong_crs", f"{error.fact} {error.cause}")
    finally:
        if image is not None:
            image.close()
    own, problem = facts.pop("crs"), facts.pop("problem")
    if problem:
        return failure("no_georeference", problem)
    if own is None and crs is None:
        return failure("no_crs", "It has no coordinate reference system.")
    if own is not None and crs is not None:
        _check_same_crs(href, own, crs)
    grid = SceneGrid(own or str(crs), facts.pop("transform"), *facts.pop("shape"))
    if _beyond_degrees(grid):
        return failure("wrong_crs", _NOT_DEGREES)
    try:
        footprint = scene_footprint(grid)
    except CRSError as error:
        return failure("wrong_crs", f"{error.fact} {error.cause}")
    if facts["dtype"].startswith("complex"):
        return failure("dtype", f"Its pixels are {facts['dtype']}, not real numbers.")
    return Header(href=href, grid=grid, footprint=footprint, **facts)


def _facts(source: Any) -> dict[str, Any]:
    tags = {**source.tags(), **source.tags(ns="IMAGERY")}
    problem = ""
    if source.transform.is_identity or source.transform.determinant == 0.0:
        what = "only ground control points" if source.gcps[0] else "no affine transform"
        problem = f"It has {what}, so its pixels have no place on Earth."
    return {
        "count": source.count,
        "dtype": str(source.dtypes[0]),
        "nodata": float("nan") if source.nodata is None else float(source.nodata),
        "scales": tuple(float(v) for v in source.scales),
        "offsets": tuple(float(v) for v in source.offsets),
        "descriptions": tuple(source.descriptions),
        "crs": _crs_name(source.crs),
        "transform": tuple(float(v) for v in source.transform[:6]),
        "shape": (source.width, source.height),
        "block": tuple(int(v) for v in source.block_shapes[0]),
        "tags": {str(k).upper(): str(v) for k, v in tags.items()},
        "problem": problem,
    }


def _crs_name(crs: Any) -> str | None:
    """Name a CRS so that nothing is lost: its EPSG code only if that says the same."""
    if crs is None or not crs.to_wkt():
        return None
    return _name_of_wkt(str(crs.to_wkt(version="WKT2_2019")))


@lru_cache(maxsize=1024)
def _name_of_wkt(wkt: str) -> str:
    code = parse_crs(wkt).to_epsg(min_confidence=90)
    if code and parse_crs(f"EPSG:{code}").equals(parse_crs(wkt), ignore_axis_order=True):
        return f"EPSG:{code}"
    return wkt


def _check_same_crs(href: str, own: str, given: str) -> None:
    if not parse_crs(own).equals(parse_crs(given), ignore_axis_order=True):
        raise CRSError(
            f"crs={given!r} was given, but {href} says {parse_crs(own).name}.",
            cause="One of them is wrong, and the scene would silently move.",
            next_step="Leave crs out to use each file's own.",
        )


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


def band_names(descriptions: Iterable[str | None]) -> tuple[str, ...]:
    """Names of bands from their descriptions; ``b1``, ``b2``... where these say nothing."""
    given = tuple(descriptions)
    names = tuple(d or f"b{i}" for i, d in enumerate(given, 1))
    if len(set(names)) < len(names):
        return tuple(f"b{i}" for i in range(1, len(names) + 1))
    return names


def scene_row(
    header: Header,
    *,
    bands: tuple[str, ...],
    item: str,
    span: Span | None,
    time_source: str,
    size_bytes: int,
    **more: Any,
) -> dict[str, Any]:
    """Make a row of the table of scenes; ``more`` adds columns, or replaces what the file says."""
    grid = header.grid
    return {
        "href": header.href,
        "bands": bands,
        "count": header.count,
        "dtype": header.dtype,
        "nodata": header.nodata,
        "scales": header.scales,
        "offsets": header.offsets,
        "scene_crs": grid.crs,
        "transform": grid.transform,
        "width": grid.width,
        "height": grid.height,
        "resolution": (grid.transform[0] ** 2 + grid.transform[3] ** 2) ** 0.5,
        "time": span[0] if span else pd.NaT,
        "time_end": span[1] if span else pd.NaT,
        "time_source": time_source,
        "size_bytes": size_bytes,
        "block": header.block,
        "item": item,
        "step": pd.NA,
        "geometry": header.footprint,
        **more,
    }


def scenes_table(rows: Sequence[dict[str, Any]]) -> gpd.GeoDataFrame:
    """Make the table of scenes of its rows: times to the nanosecond, ``step`` a nullable integer.

    Parameters
    ----------
    rows
        See :func:`scene_row`; a column that some rows lack is missing there.
    """
    table = pd.DataFrame(list(rows))
    kinds = {"time": "datetime64[ns]", "time_end": "datetime64[ns]", "step": "Int64"}
    return gpd.GeoDataFrame(table.astype(kinds), geometry="geometry", crs=WGS84)
