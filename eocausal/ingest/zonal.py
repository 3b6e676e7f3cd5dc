"""Zonal series: numbers per polygon and time from rasters, with exact fractional coverage.

Coverage fractions are computed once for each grid and kept as a sparse matrix; a step of the
series reads the blocks under the polygons once and is a few products with that matrix.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import xarray as xr
from numpy.typing import NDArray

from eocausal.contracts import NEIGHBORHOOD, ChipStatus, check_neighborhoods, check_panel, some
from eocausal.errors import BandError, GeometryError, IngestError, TooManyFailuresError
from eocausal.ingest.acquisitions import scene_names, store_labels
from eocausal.ingest.composites import Composite
from eocausal.ingest.masks import Mask
from eocausal.ingest.panels import write_panel
from eocausal.ingest.remote import Sign
from eocausal.ingest.statistics import ClassArea, Mean, Statistic
from eocausal.ingest.zonal_plan import Step, groups_of, looks_of, steps_of
from eocausal.ingest.zonal_step import Coverages, StepResult, ZonalPlan, compute_step
from eocausal.provenance import Failure, FailureLedger

__all__ = ["zonal_series"]

FloatArray = NDArray[np.float64]


def zonal_series(
    neighborhoods: gpd.GeoDataFrame,
    scenes: gpd.GeoDataFrame,
    *,
    bands: Sequence[str],
    statistics: Sequence[Statistic] = (Mean(),),
    periods: Sequence[str] | None = None,
    mask: Mask | Sequence[Mask] | None = None,
    composite: Composite | None = None,
    area: bool = True,
    workers: int = 2,
    sign: Sign | None = None,
    max_failed: float = 0.5,
    ledger: FailureLedger | None = None,
    progress: Callable[[int, int], None] | None = None,
    out: str | Path | None = None,
) -> xr.Dataset:
    """Summarize rasters over polygons, for each polygon and time.

    Every pixel counts by the exact share of it that the polygon covers. Each block under the
    polygons is read once for all of its bands. Where several looks fall into a step: those of one
    grid are averaged pixel by pixel first (or made one by ``composite``); those of different
    grids then pool their pixels, so that where tiles overlap, ground seen twice weighs double in
    a mean, and totals (sum, count, class area) are not given (``overlap`` in the ledger).

    Parameters
    ----------
    neighborhoods
        Polygons; see :func:`eocausal.read_neighborhoods`. Any CRS, across the antimeridian too.
    scenes
        See :func:`eocausal.scan` and :func:`eocausal.ingest.grids.scan_grids`.
    bands
        Names of the bands; each may have a grid of its own.
    statistics
        ``Mean()``, ``Sum()``, ``StdDev()``, ``Count()``, ``Min()``, ``Max()``, ``Quantile(q)``,
        ``ClassShare({...})``, ``ClassArea({...})``.
    periods
        Labels as for :func:`eocausal.build_cube`; a look belongs to those that contain all of
        its date. By default every distinct time of the scenes is a step of its own.
    mask
        Says which pixels are clear: one mask or several; see :mod:`eocausal.ingest.masks`. A mask
        band with another grid is taken from the nearest pixel.
    composite
        Makes one image of the looks of one grid; see :mod:`eocausal.ingest.composites`.
    area
        Weigh pixels by their area on the ground, so that the mean of a grid in degrees is a mean
        over the Earth's surface. If not, by the share covered alone.
    workers
        Threads. The result does not depend on it.
    sign
        Turns the href of a remote scene into one that can be read now.
    max_failed
        Largest share of neighborhoods and times that files which cannot be read may cost.
    ledger
        Receives a row for every scene left out or not read (``read_error``, ``band_missing``,
        ``duplicate``), every step without a band (``band_missing``) or with tiles that overlap
        (``overlap``), and every neighborhood without any value (``outside``, ``nodata_only``,
        ``read_error``, ``no_source``).
    progress
        Called with (steps done, steps in all).
    out
        Also write the panel there: ``*.parquet`` (long GeoParquet) or a Zarr store.

    Returns
    -------
    xarray.Dataset
        A panel: ``<band>_<statistic>`` (neighborhood, time) float64, NaN where nothing is valid;
        ``<band>_coverage``, the share of the polygon's weight that was valid; ``status``
        (:class:`~eocausal.contracts.ChipStatus`); ``period`` and ``time_end`` along time.

    Raises
    ------
    GeometryError, BandError, SceneError, IngestError, CRSError
    TooManyFailuresError
        After ``out`` and the ledger are complete.

    Examples
    --------
    >>> zonal_series(places, scan("ndvi/"), bands=["ndvi"])  # doctest: +SKIP
    """
    shapes = _polygons(neighborhoods)
    names = _names(bands, "band")
    every = _names([n for s in statistics for n in s.names], "statistic")
    if not area and any(isinstance(s, ClassArea) for s in statistics):
        raise IngestError(
            "ClassArea was asked for with area=False.",
            cause="Areas on the ground are then not computed.",
            next_step="Leave area out, or ask for ClassShare.",
        )
    used = () if mask is None else tuple(mask) if isinstance(mask, Sequence) else (mask,)
    looks, failures = looks_of(scenes, names, [m.band for m in used])
    steps = steps_of(looks, periods)
    if composite is not None:
        composite.check(names, all(not pd.isna(look.start) for look in looks))
    labels = store_labels(neighborhoods.index)
    plan = ZonalPlan(names, tuple(statistics), used, composite, area, sign)
    crs = neighborhoods.crs.to_wkt()
    columns = [f"{b}_{s}" for b in names for s in every] + [f"{b}_coverage" for b in names]
    values = {c: np.full((len(shapes), len(steps)), np.nan) for c in columns}
    status = np.full((len(shapes), len(steps)), ChipStatus.NO_SOURCE, dtype=np.int8)
    groups = groups_of(shapes, crs, steps, len(names), max(1, workers))
    for number, rows in enumerate(groups):
        zones = Coverages(shapes[rows], crs, neighborhoods.index[rows].astype(str), area)
        with ThreadPoolExecutor(max(1, workers), thread_name_prefix="zonal") as pool:
            results = pool.map(lambda s, z=zones: _step(s, plan, z), steps)
            for t, result in enumerate(results):
                for name, column in result.columns.items():
                    values[name][rows, t] = column
                status[rows, t] = result.status
                failures += result.failures
                if progress is not None:
                    progress(number * len(steps) + t + 1, len(groups) * len(steps))
    failures = list(dict.fromkeys([*failures, *_lost_places(neighborhoods.index, status)]))
    if ledger is not None:
        ledger.rows.extend(failures)
    panel = _panel(labels, steps, values, status, plan)
    if out is not None:
        write_panel(
            panel, out, neighborhoods=neighborhoods.set_axis(labels).rename_axis(NEIGHBORHOOD)
        )
    _check_failed(status, max_failed)
    return panel


def _step(step: Step, plan: ZonalPlan, zones: Coverages) -> StepResult:
    """Compute a step where GDAL logs its warnings and keeps no blocks of its own."""
    with rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE):
        return compute_step(step, plan, zones)


def _polygons(places: gpd.GeoDataFrame) -> NDArray[np.object_]:
    check_neighborhoods(places)
    flat = places.geom_type.isin(["Polygon", "MultiPolygon"])
    if not flat.all():
        raise GeometryError(
            f"{int((~flat).sum())} neighborhoods are not polygons: {some(places.index[~flat])}.",
            cause="A point or a line covers no share of a pixel.",
            next_step="Give read_neighborhoods(..., size_m=...) to make squares of points.",
        )
    return np.asarray(places.geometry.array, dtype=object)


def _names(given: Sequence[str], what: str) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(str(n) for n in given)
    if not names or len(set(names)) < len(names):
        kind = BandError if what == "band" else IngestError
        raise kind(
            f"No {what} was asked for."
            if not names
            else f"A {what} is there twice: {some(names)}.",
            cause="A panel has one variable for each band and statistic.",
            next_step=f"Give each {what} once.",
        )
    return names


def _panel(
    labels: NDArray[Any],
    steps: Sequence[Step],
    values: dict[str, FloatArray],
    status: NDArray[np.int8],
    plan: ZonalPlan,
) -> xr.Dataset:
    dims = (NEIGHBORHOOD, "time")

    def instants(given: Sequence[pd.Timestamp]) -> NDArray[np.datetime64]:
        return np.array([t.to_datetime64() for t in given], dtype="datetime64[ns]")

    variables: dict[str, Any] = {name: (dims, array) for name, array in values.items()}
    variables["status"] = (dims, status)
    coords = {
        NEIGHBORHOOD: (NEIGHBORHOOD, labels),
        "time": ("time", instants([s.start for s in steps])),
        "time_end": ("time", instants([s.end for s in steps])),
        "period": ("time", np.array([s.label for s in steps], dtype=object)),
    }
    hrefs = sorted({look.name for s in steps for look in s.looks})
    weights = "share of the pixel covered times its area on the ground, square metres"
    attrs = {
        "bands": json.dumps(plan.bands),
        "statistics": json.dumps([repr(s) for s in plan.statistics]),
        "masks": json.dumps([repr(m) for m in plan.masks]),
        "composite": "mean of the looks of a grid"
        if plan.composite is None
        else repr(plan.composite),
        "weights": weights if plan.area else "share of the pixel covered",
        "scenes": json.dumps(sorted(set(scene_names(hrefs))), ensure_ascii=False),
    }
    return check_panel(xr.Dataset(variables, coords=coords, attrs=attrs))


_GDAL_CACHE: Final = 32 * 2**20
_REASONS: Final = {
    ChipStatus.NODATA_ONLY: "Scenes cover it, but no pixel in it is ever valid.",
    ChipStatus.OUTSIDE: "No scene covers it.",
    ChipStatus.NO_SOURCE: "There is no scene in any period.",
    ChipStatus.READ_ERROR: "The scenes that cover it could not be read.",
}


def _lost_places(index: pd.Index[Any], status: NDArray[np.int8]) -> list[Failure]:
    """One row for each neighborhood without a value at any time, for the gravest reason."""
    ids = index.astype(str).to_numpy()
    lost = np.flatnonzero((status >= ChipStatus.NODATA_ONLY).all(axis=1))
    found = []
    for row in lost:
        kinds = set(status[row].tolist())
        order = (ChipStatus.READ_ERROR, ChipStatus.NODATA_ONLY, ChipStatus.OUTSIDE)
        code = next((k for k in order if k in kinds), ChipStatus.NO_SOURCE)
        found.append(Failure("zonal", "chip", str(ids[row]), code.name.lower(), _REASONS[code]))
    return found


def _check_failed(status: NDArray[np.int8], max_failed: float) -> None:
    unread = status == ChipStatus.READ_ERROR
    empty = bool((status >= ChipStatus.NODATA_ONLY).all())
    if not empty and unread.mean() <= max_failed:
        return
    counts = {ChipStatus(int(c)).name.lower(): int((status == c).sum()) for c in np.unique(status)}
    raise TooManyFailuresError(
        "No neighborhood has a value at any time."
        if empty
        else f"Files that cannot be read cost {unread.mean():.0%} of all neighborhoods and times.",
        cause=f"At most {max_failed:.0%} may be lost so, and never all; they are {counts}.",
        next_step="Look at the ledger: files may be damaged, or the places lie elsewhere.",
    )
