"""One step of a zonal series: read its looks, pool their pixels, compute the statistics."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pandas as pd
import scipy.sparse as sparse
import shapely
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from eocausal.contracts import ChipStatus
from eocausal.ingest.assets import Asset
from eocausal.ingest.composites import Composite
from eocausal.ingest.coverage import Coverage, coverage_of
from eocausal.ingest.grid import SceneGrid
from eocausal.ingest.masks import Mask
from eocausal.ingest.remote import reason_of
from eocausal.ingest.statistics import ClassArea, Count, Moment, Statistic, Sum, Zone
from eocausal.ingest.zonal_plan import Step, ZonalLook, lonlat_boxes
from eocausal.ingest.zonal_read import clear_pixels, read_pixels
from eocausal.provenance import Failure

__all__ = ["Coverages", "StepResult", "ZonalPlan", "compute_step"]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Key = tuple[SceneGrid, str | None]

OK_SHARE: Final = 0.99
_CACHE_BYTES: Final = 2**30
_TWICE: Final = 1.001
_TOTALS: Final = (Sum, Count, ClassArea)


@dataclass(frozen=True, slots=True)
class ZonalPlan:
    """What is asked of every step."""

    bands: tuple[str, ...]
    statistics: tuple[Statistic, ...]
    masks: tuple[Mask, ...]
    composite: Composite | None
    area: bool


class Coverages:
    """Coverage of one group of polygons on every grid, made when first needed.

    Those used last are kept, up to 1 GiB.
    """

    def __init__(
        self, shapes: NDArray[np.object_], crs: str, labels: pd.Index[str], area: bool
    ) -> None:
        self.shapes, self._crs, self._labels, self._area = shapes, crs, labels, area
        self._boxes = lonlat_boxes(shapes, crs)
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, Coverage] = OrderedDict()
        self._bytes = 0

    def get(self, key: Key, look: ZonalLook) -> Coverage:
        """Return the coverage on the grid of a look."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            near = self._near(look.outlines)
            if key[1] is not None:
                near &= self._labels == key[1]
            shapes = np.where(near, self.shapes, shapely.Polygon())
            found = coverage_of(shapes, self._crs, key[0], area=self._area)
            self._kept[key] = found
            self._bytes += _size(found)
            while self._bytes > _CACHE_BYTES and len(self._kept) > 1:
                self._bytes -= _size(self._kept.popitem(last=False)[1])
            return found

    def _near(self, outlines: tuple[tuple[float, ...], ...]) -> BoolArray:
        """Polygons whose box in degrees comes near a scene's, or is not known."""
        low_x, low_y, high_x, high_y = self._boxes.T
        pad = 0.05 + 0.1 * np.maximum(high_x - low_x, high_y - low_y)
        near: BoolArray = np.isnan(low_x) | (np.abs(low_y) + pad > 85) | (np.abs(high_y) + pad > 85)
        for x0, y0, x1, y1 in outlines:
            level = (low_y - pad <= y1) & (high_y + pad >= y0)
            for turn in (-720.0, -360.0, 0.0, 360.0, 720.0):
                near |= level & (low_x - pad <= x1 + turn) & (high_x + pad >= x0 + turn)
        return near


def _size(coverage: Coverage) -> int:
    matrix = coverage.fraction
    return int(
        matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes
        + coverage.pixels.nbytes + coverage.area.nbytes
    )  # fmt: skip


@dataclass(slots=True)
class StepResult:
    """What one step gives for a group of polygons."""

    columns: dict[str, FloatArray]
    status: NDArray[np.int8]
    failures: list[Failure]


@dataclass(slots=True)
class _Seen:
    """Pixels of one grid in one step: for each look, values by band."""

    coverage: Coverage
    looks: list[dict[str, FloatArray]] = field(default_factory=list)
    days: list[int] = field(default_factory=list)


def compute_step(step: Step, plan: ZonalPlan, zones: Coverages) -> StepResult:
    """Compute all statistics of one step for the polygons of ``zones``."""
    n = len(zones.shapes)
    failures: list[Failure] = []
    seen: dict[Key, _Seen] = {}
    lost = np.zeros(n, dtype=bool)
    for look in step.looks:
        lost |= _observe(look, step, plan, zones, seen, failures)
    columns: dict[str, FloatArray] = {}
    shares: list[FloatArray] = []
    touched = lost.copy()
    for band in plan.bands:
        parts = [s for s in seen.values() if any(band in look for look in s.looks)]
        share = np.zeros(n)
        if parts:
            zone, whole, inside = _zone(band, parts, plan)
            touched |= inside > 0
            twice = (len(parts) > 1) & (inside > whole * _TWICE)
            for statistic in plan.statistics:
                blank = twice if isinstance(statistic, _TOTALS) else np.zeros(n, dtype=bool)
                blank = blank | (inside == 0)
                for name, found in zip(statistic.names, statistic.compute(zone), strict=True):
                    columns[f"{band}_{name}"] = np.where(blank, np.nan, found)
            if twice.any() and any(isinstance(s, _TOTALS) for s in plan.statistics):
                failures.append(_overlap(step, band, int(twice.sum())))
            all_of_it = np.maximum(whole, inside)
            valid = zone.sum(Moment(0))
            np.divide(valid, all_of_it, out=share, where=all_of_it > 0)
        elif step.looks and not any(band == b for look in step.looks for b, _, _ in look.bands):
            failures.append(_no_band(step, band))
        columns[f"{band}_coverage"] = np.minimum(share, 1.0)
        shares.append(share)
    return StepResult(columns, _status(step, np.array(shares), touched, lost), failures)


def _overlap(step: Step, band: str, count: int) -> Failure:
    detail = f"Tiles overlap in {count} polygons: totals of {band} would count ground twice."
    return Failure("zonal", "period", step.label, "overlap", detail, step.label)


def _no_band(step: Step, band: str) -> Failure:
    detail = f"No scene of this time has the band {band!r}."
    return Failure("zonal", "period", step.label, "band_missing", detail, step.label)


def _status(
    step: Step, shares: FloatArray, touched: BoolArray, lost: BoolArray
) -> NDArray[np.int8]:
    status = np.where(touched, ChipStatus.NODATA_ONLY, ChipStatus.OUTSIDE)
    if not step.looks:
        status = np.full(len(touched), ChipStatus.NO_SOURCE)
    some_valid = shares.max(axis=0) > 0
    status = np.where(lost & ~some_valid, ChipStatus.READ_ERROR, status)
    status = np.where(some_valid, ChipStatus.PARTIAL, status)
    return np.where(shares.min(axis=0) >= OK_SHARE, ChipStatus.OK, status).astype(np.int8)


def _observe(
    look: ZonalLook,
    step: Step,
    plan: ZonalPlan,
    zones: Coverages,
    seen: dict[Key, _Seen],
    failures: list[Failure],
) -> BoolArray:
    """Read one look into ``seen``; return the polygons that lost pixels to a failed read."""
    lost = np.zeros(len(zones.shapes), dtype=bool)
    by_asset: dict[Asset, list[tuple[str, int]]] = {}
    for band, asset, at in look.bands:
        by_asset.setdefault(asset, []).append((band, at))
    mine: dict[Key, dict[str, FloatArray]] = {}
    clear: dict[SceneGrid, BoolArray] = {}
    for asset, wanted in by_asset.items():
        key = (asset.grid, look.owner)
        coverage = zones.get(key, look)
        if len(coverage.pixels) == 0:
            continue
        try:
            if plan.masks and asset.grid not in clear:
                clear[asset.grid] = clear_pixels(look, plan.masks, asset.grid, coverage.pixels)
            pixels = read_pixels(asset, [at for _, at in wanted], coverage.pixels)
        except (RasterioError, OSError, ValueError) as error:
            lost |= np.diff(coverage.fraction.indptr) > 0
            detail = f"It cannot be read: {reason_of(error)}"
            failures.append(Failure("zonal", "scene", asset.href, "read_error", detail, step.label))
            continue
        if plan.masks:
            pixels[:, ~clear[asset.grid]] = np.nan
        found = mine.setdefault(key, {})
        found.update({band: pixels[k] for k, (band, _) in enumerate(wanted)})
        if key not in seen:
            seen[key] = _Seen(coverage)
    for key, bands in mine.items():
        seen[key].looks.append(bands)
        seen[key].days.append(look.day)
    return lost


def _zone(
    band: str, parts: Sequence[_Seen], plan: ZonalPlan
) -> tuple[Zone, FloatArray, FloatArray]:
    """Pool the pixels of all grids; also the polygons' whole weight, and that on the grids."""
    made = [_combine(band, part, plan) for part in parts]
    covers = [part.coverage for part in parts]
    whole = np.max([c.whole for c in covers], axis=0)
    inside = np.sum([c.fraction @ c.area for c in covers], axis=0)
    if len(parts) == 1:
        return Zone(covers[0].fraction, covers[0].area, *made[0]), whole, inside
    values = np.concatenate([v for v, _ in made])
    depth = max(1 if many is None else len(many) for _, many in made)
    looks = np.full((depth, len(values)), np.nan)
    start = 0
    for one, many in made:
        stack = one[None] if many is None else many
        looks[: len(stack), start : start + len(one)] = stack
        start += len(one)
    fraction = sparse.hstack([c.fraction for c in covers], format="csr")
    area = np.concatenate([c.area for c in covers])
    return Zone(fraction, area, values, looks if depth > 1 else None), whole, inside


def _combine(band: str, part: _Seen, plan: ZonalPlan) -> tuple[FloatArray, FloatArray | None]:
    """One value a pixel from the looks of one grid, and the looks where they are needed."""
    if plan.composite is not None:
        return _composited(band, part, plan.composite, plan.bands), None
    layers = [look[band] for look in part.looks if band in look]
    if len(layers) == 1:
        return layers[0], None
    stack = np.stack(layers)
    count = np.isfinite(stack).sum(axis=0)
    total = np.where(np.isfinite(stack), stack, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0), stack


def _composited(band: str, part: _Seen, composite: Composite, bands: tuple[str, ...]) -> FloatArray:
    here = tuple(b for b in bands if any(b in look for look in part.looks))
    none = np.full(len(part.coverage.pixels), np.nan)
    looks = np.stack([np.stack([look.get(b, none) for b in here]) for look in part.looks])
    days = np.array(part.days, dtype=np.int64)
    made = composite.reduce(looks[:, :, None, :].astype(np.float32), days, here)
    return np.asarray(made[here.index(band), 0], dtype=np.float64)
