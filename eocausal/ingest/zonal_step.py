"""One step of a zonal series: read its looks, pool their pixels, compute the statistics."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from eocausal.contracts import ChipStatus
from eocausal.ingest.assets import Asset
from eocausal.ingest.composites import Composite
from eocausal.ingest.coverage import Coverage, Piece, coverage_of, pieces_of, pooled
from eocausal.ingest.grid import SceneGrid
from eocausal.ingest.masks import Mask
from eocausal.ingest.remote import Sign, reason_of
from eocausal.ingest.statistics import ClassArea, Count, Layer, Moment, Statistic, Sum, Zone
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
    sign: Sign | None = None


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
        self._pieces: dict[tuple[Key, tuple[int, int]], list[Piece]] = {}
        self._bytes = 0

    def get(self, key: Key, look: ZonalLook) -> Coverage:
        """Return the coverage on the grid of a look."""
        with self._lock:
            if key not in self._kept:
                near = self._near(look.outlines)
                if key[1] is not None:
                    near &= self._labels == key[1]
                shapes = np.where(near, self.shapes, shapely.Polygon())
                self._kept[key] = coverage_of(shapes, self._crs, key[0], area=self._area)
                self._bytes += _size(self._kept[key])
                self._shrink()
            self._kept.move_to_end(key)
            return self._kept[key]

    def pieces(self, key: Key, coverage: Coverage, block: tuple[int, int]) -> list[Piece]:
        """Windows that hold the pixels of a coverage, for files stored in such blocks."""
        with self._lock:
            found = self._pieces.get((key, block))
            if found is None:
                found = pieces_of(coverage.pixels, key[0], block)
                if key in self._kept:
                    self._pieces[key, block] = found
            return found

    def _shrink(self) -> None:
        while self._bytes > _CACHE_BYTES and len(self._kept) > 1:
            oldest, coverage = self._kept.popitem(last=False)
            self._bytes -= _size(coverage)
            self._pieces = {k: v for k, v in self._pieces.items() if k[0] != oldest}

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
    twice = 2 * (matrix.data.nbytes + matrix.indices.nbytes)
    return int(twice + 2 * coverage.pixels.nbytes + coverage.area.nbytes)


@dataclass(slots=True)
class StepResult:
    """What one step gives for a group of polygons."""

    columns: dict[str, FloatArray]
    status: NDArray[np.int8]
    failures: list[Failure]


@dataclass(slots=True)
class _Seen:
    """Pixels of one grid in one step: for each look, its layers by band."""

    coverage: Coverage
    looks: list[dict[str, Layer]] = field(default_factory=list)
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
            zone = _zone(band, parts, plan)
            whole = np.max([part.coverage.whole for part in parts], axis=0)
            inside = np.sum([part.coverage.inside for part in parts], axis=0)
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
    mine: dict[Key, dict[str, Layer]] = {}
    clear: dict[SceneGrid, BoolArray] = {}
    for asset, wanted in by_asset.items():
        key = (asset.grid, look.owner)
        coverage = zones.get(key, look)
        if len(coverage.pixels) == 0:
            continue
        try:
            if plan.masks and asset.grid not in clear:
                clear[asset.grid] = clear_pixels(
                    look, plan.masks, asset.grid, coverage.pixels, plan.sign
                )
            pieces = zones.pieces(key, coverage, asset.block)
            at_bands = [at for _, at in wanted]
            layers = read_pixels(asset, at_bands, pieces, len(coverage.pixels), plan.sign)
        except (RasterioError, OSError, ValueError) as error:
            lost |= np.diff(coverage.fraction.indptr) > 0
            detail = f"It cannot be read: {reason_of(error)}"
            failures.append(Failure("zonal", "scene", asset.name, "read_error", detail, step.label))
            continue
        if plan.masks:
            layers = [_masked(layer, clear[asset.grid]) for layer in layers]
        names = (band for band, _ in wanted)
        mine.setdefault(key, {}).update(zip(names, layers, strict=True))
        if key not in seen:
            seen[key] = _Seen(coverage)
    for key, bands in mine.items():
        seen[key].looks.append(bands)
        seen[key].days.append(look.day)
    return lost


def _masked(layer: Layer, clear: BoolArray) -> Layer:
    valid = layer.valid & clear
    return Layer(np.where(valid, layer.values, 0.0), valid)


def _zone(band: str, parts: Sequence[_Seen], plan: ZonalPlan) -> Zone:
    """Pool the pixels of all grids."""
    covers = [part.coverage for part in parts]
    made = [_combine(band, part, plan) for part in parts]
    if len(parts) == 1:
        return Zone(covers[0], *made[0])
    depth = max(len(looks) for _, looks in made)
    looks = [_joined([_nth(one, many, k) for one, many in made]) for k in range(depth)]
    return Zone(pooled(covers), _joined([one for one, _ in made]), looks)


def _joined(layers: Sequence[Layer]) -> Layer:
    return Layer(
        np.concatenate([one.values for one in layers]),
        np.concatenate([one.valid for one in layers]),
    )


def _nth(one: Layer, looks: Sequence[Layer], k: int) -> Layer:
    """Return the k-th look of a grid; one without valid pixels after its last."""
    looks = looks or (one,)
    return looks[k] if k < len(looks) else Layer(one.values, np.zeros_like(one.valid))


def _combine(band: str, part: _Seen, plan: ZonalPlan) -> tuple[Layer, tuple[Layer, ...]]:
    """One value a pixel from the looks of one grid, and the looks where there are several."""
    if plan.composite is not None:
        return _composited(band, part, plan.composite, plan.bands), ()
    looks = tuple(look[band] for look in part.looks if band in look)
    if len(looks) == 1:
        return looks[0], ()
    count = np.sum([look.valid for look in looks], axis=0)
    total = np.sum([look.values for look in looks], axis=0)
    return Layer(np.divide(total, count, out=total, where=count > 0), count > 0), looks


def _composited(band: str, part: _Seen, composite: Composite, bands: tuple[str, ...]) -> Layer:
    here = tuple(b for b in bands if any(b in look for look in part.looks))
    images = np.full((len(part.looks), len(here), len(part.coverage.pixels)), np.nan, np.float32)
    for k, look in enumerate(part.looks):
        for i, name in enumerate(here):
            if name in look:
                images[k, i] = np.where(look[name].valid, look[name].values, np.nan)
    made = composite.reduce(images[:, :, None, :], np.array(part.days, dtype=np.int64), here)
    values = np.asarray(made[here.index(band), 0], dtype=np.float64)
    valid = np.isfinite(values)
    return Layer(np.where(valid, values, 0.0), valid)
