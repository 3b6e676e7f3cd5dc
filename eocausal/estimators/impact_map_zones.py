"""Mean series of zones of a cube, and the effects on them.

Pixels depend on each other, so that the interval of a zone's mean effect does not follow from
those of its pixels; it comes from the zone's mean series, fitted like a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from eocausal.errors import EmptyInputError
from eocausal.estimators.impact_map_grid import MapGrid
from eocausal.estimators.impact_map_run import run_jobs
from eocausal.estimators.impact_map_tiles import MapTask, group_means
from eocausal.estimators.structural import fit_structural

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["mean_series", "series_effects", "zone_means"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class _ZoneJob:
    values: xr.DataArray
    task: MapTask
    zone: Int64
    zones: int
    weights: Float64

    def __call__(self) -> Float64:
        import dask

        with dask.config.set(scheduler="synchronous"):
            values = self.values.compute()
        series = self.task.on_calendar(values.to_numpy().reshape(len(values), -1).astype(float))
        return group_means(series, self.zone.ravel(), self.zones, self.weights.ravel(), self.task)


def zone_means(
    cube: xr.DataArray,
    grid: MapGrid,
    zone: Int64,
    zones: int,
    task: MapTask,
    windows: Sequence[tuple[slice, slice]],
    workers: int = 1,
    client: Client | None = None,
) -> Float64:
    """Return (zones, T) mean series of zones, weighted by area.

    Parameters
    ----------
    zone
        (rows, columns) number of the zone of each pixel, or -1.

    Raises
    ------
    EmptyInputError
        If a zone has no pixel with enough values before the event.
    """
    weights = grid.weights()
    jobs = [
        _ZoneJob(
            cube.isel({grid.rows: w[0], grid.columns: w[1]}).reset_coords(drop=True),
            task, zone[w], zones, weights[w],
        )
        for w in windows
        if (zone[w] >= 0).any()
    ]  # fmt: skip
    total = np.zeros((zones, 3, len(task.before) + 1))
    kept = sorted(run_jobs(jobs, workers=workers, client=client), key=lambda item: item[0])
    for _, sums in kept:
        total += sums
    empty = np.flatnonzero(total[:, 1, -1] == 0)
    if empty.size:
        raise EmptyInputError(
            f"Zone {', '.join(map(str, empty[:5]))} has no pixel with {task.least} values before "
            "the event.",
            cause="There is no mean series of it.",
            next_step="Check the zone against land and gaps, or pass a smaller least.",
        )
    return mean_series(total)


def mean_series(sums: Float64) -> Float64:
    """Return (G, T) mean series from the sums of :func:`group_means`; NaN where nothing is seen."""
    departure, weight = sums[:, 0, :-1], sums[:, 1, :-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        center = sums[:, 2, -1:] / sums[:, 1, -1:]
        return np.asarray(np.where(weight > 0, departure / weight, np.nan) + center)


def series_effects(series: Float64, names: Sequence[Any], task: MapTask) -> pd.DataFrame:
    """Return the mean effect on each of (G, T) series: estimate, error, interval, p, n."""
    fit = fit_structural(
        series, task.before, task.model, controls=task.controls, variance=task.variance
    )
    found = fit.average(task.after, task.level)
    return pd.DataFrame(
        {
            "estimate": found.estimate, "std_error": found.std_error, "ci_low": found.ci_low,
            "ci_high": found.ci_high, "p_value": found.p_value, "n": found.n,
        },
        index=pd.Index(names, name="zone"),
    )  # fmt: skip
