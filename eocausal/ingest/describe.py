"""What a store says beside its pixels: coordinates, status, attributes, failures."""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from eocausal.contracts import ChipStatus
from eocausal.ingest.spec import CubeSpec
from eocausal.ingest.store import ShardResult
from eocausal.ingest.times import ALL, parse_period
from eocausal.ingest.work import ShardTask
from eocausal.provenance import Failure

__all__ = ["describe"]

_REASONS: Final = {
    ChipStatus.NODATA_ONLY: "Scenes cover it, but none has a valid pixel there.",
    ChipStatus.OUTSIDE: "No scene of the period covers it.",
    ChipStatus.NO_SOURCE: "The period has no scene.",
    ChipStatus.READ_ERROR: "A scene that covers it could not be read, and nothing else did.",
}


def describe(
    spec: CubeSpec, tasks: list[ShardTask], results: dict[int, ShardResult], units: str
) -> tuple[dict[str, tuple[tuple[str, ...], NDArray[Any]]], dict[str, Any], list[Failure]]:
    """Put together everything in the store beside the image: arrays, attributes, failures."""
    n, periods = spec.shape[:2]
    table: dict[str, NDArray[Any]] = {
        "valid": np.zeros((n, periods), dtype=np.float32),
        "status": np.zeros((n, periods), dtype=np.int8),
        "looks": np.zeros((n, periods), dtype=np.int32),
        "day": np.full((n, periods), np.nan),
    }
    used: list[set[str]] = [set() for _ in range(periods)]
    for task in tasks:
        result = results[task.number]
        first = task.chunk * spec.chunk
        last = first + len(result.used)
        for name, values in table.items():
            values[task.start : task.stop, first:last] = getattr(result, name)
        for period, dates in enumerate(result.used, first):
            used[period].update(dates)
    spans = [_span(spec, p) for p in range(periods)]
    place, period_dim = ("neighborhood",), ("period",)
    both = place + period_dim
    arrays: dict[str, tuple[tuple[str, ...], NDArray[Any]]] = {
        "valid": (both, table["valid"]),
        "status": (both, table["status"]),
        "looks": (both, table["looks"]),
        "date": (both, table["day"]),
        "neighborhood": (place, spec.labels),
        "period": (period_dim, np.array(spec.periods, dtype=object)),
        "band": (("band",), np.array(spec.recipe.bands, dtype=object)),
        "crs": (place, np.array(spec.centres.crs, dtype=object)),
        "transform": ((*place, "affine"), spec.chips.transform),
        "lon": (place, spec.centres.lon),
        "lat": (place, spec.centres.lat),
        "period_start": (period_dim, np.array([s[0] for s in spans], dtype=object)),
        "period_end": (period_dim, np.array([s[1] for s in spans], dtype=object)),
        "last_date": (period_dim, np.array([_latest(d) for d in used], dtype=object)),
    }
    attrs = {
        "resolution": spec.resolution,
        "units": units,
        "sources": json.dumps(sorted({a.name for a in spec.assets}), ensure_ascii=False),
        "coordinates": "crs transform lon lat period_start period_end last_date",
    }
    return arrays, attrs, _failures(spec, tasks, results, table["status"])


def _span(spec: CubeSpec, period: int) -> tuple[str, str]:
    label = spec.periods[period]
    if label != ALL:
        start, end = parse_period(label)
        return start.strftime("%Y-%m-%d"), end.strftime("%Y-%m-%d")
    looks = [spec.looks[k] for k in spec.members[period]]
    first, last = min(k.start for k in looks), max(k.date for k in looks)
    return (first, last) if first else ("", "")


def _latest(dates: set[str]) -> str:
    """Last of the dates; '' (unknown) if any image used has none."""
    return "" if not dates or "" in dates else max(dates)


def _failures(
    spec: CubeSpec,
    tasks: list[ShardTask],
    results: dict[int, ShardResult],
    status: NDArray[np.int8],
) -> list[Failure]:
    found = list(spec.failures)
    by_asset: dict[int, dict[int, str]] = {}
    for task in tasks:
        for asset, chip, text in results[task.number].failed:
            by_asset.setdefault(int(asset), {}).setdefault(int(chip), text)
    for asset, chips in sorted(by_asset.items()):
        detail = f"Reading failed for {len(chips)} chips: {chips[min(chips)]}"
        found.append(Failure("cube", "scene", spec.assets[asset].name, "read_error", detail))
    for chip, period in np.argwhere(status >= ChipStatus.NODATA_ONLY):
        code = ChipStatus(int(status[chip, period]))
        subject, label = str(spec.index[chip]), spec.periods[period]
        found.append(Failure("cube", "chip", subject, code.name.lower(), _REASONS[code], label))
    return found
