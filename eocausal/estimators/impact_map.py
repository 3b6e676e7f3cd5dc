"""The effect of an event on every pixel of a cube."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from eocausal.designs import Event
from eocausal.errors import AlignmentError, CubeError, EmptyInputError, EstimationError
from eocausal.estimators.impact_calendar import RegularTimes, plain_times, regular_times
from eocausal.estimators.impact_map_grid import MapGrid, grid_of
from eocausal.estimators.impact_map_result import ImpactMap, MapRequest, assemble
from eocausal.estimators.impact_map_run import Progress, TileJob, run_jobs, tiles_of
from eocausal.estimators.impact_map_tiles import MapTask, PixelStatus
from eocausal.estimators.impact_map_zones import zone_means
from eocausal.estimators.impact_units import check_units
from eocausal.estimators.impact_windows import EventRow, windows_of
from eocausal.estimators.structural_model import Engine, StructuralModel, engine_of

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["bsts_map"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
CONTROL_ZONE = "control zone"


def bsts_map(
    cube: xr.DataArray,
    event: Event | EventRow,
    controls: pd.DataFrame | pd.Series | None = None,
    *,
    control_zone: xr.DataArray | None = None,
    area: xr.DataArray | None = None,
    model: StructuralModel | None = None,
    learn_until: str | int | None = None,
    variance: pd.Series | None = None,
    looks: xr.DataArray | None = None,
    look_share: float = 1.0,
    level: float = 0.95,
    least: int = 24,
    pixels: int = 1024,
    workers: int = 1,
    client: Client | None = None,
    progress: Progress | None = None,
    resume: Path | str | None = None,
    crs: str | None = None,
) -> ImpactMap:
    """Estimate the mean effect of an event in every pixel, with an interval and false discoveries.

    Every pixel is a structural time series of its own (engine ``grid``: the law of its mean effect
    is exact, nothing is drawn), with gaps of its own. Tiles are read, fitted and forgotten, so
    memory does not grow with the cube: a worker holds one tile of ``pixels`` series and about
    100 MB of the engine's arrays.

    Parameters
    ----------
    cube
        (time, rows, columns) in any order, NaN where missing; read by tiles if it is lazy (dask,
        or opened from NetCDF or Zarr). Missing steps of its calendar are put in.
    event
        First and last time counted.
    controls
        Series over time, the same for all pixels.
    control_zone
        (rows, columns) True for pixels the event did not reach: their mean, weighted by area,
        becomes a control. They are not estimated.
    area
        (rows, columns) True for the pixels wanted; all if not given.
    model
        Our default if not given.
    learn_until
        Last time to learn from, if there is to be a gap before the event.
    variance
        Relative variance of the residual at each time, the same for all pixels.
    looks
        (time, rows, columns) number of valid looks behind each value: where there are few, the
        value counts less; where there is none, it is missing. Not together with ``variance``.
    look_share
        Share of the variance, at a usual number of looks, that comes from having few of them; the
        rest stays however many there are.
    level
        Probability of the intervals.
    least
        Values before the event that a pixel must have; 24 are two years of months.
    pixels
        Pixels in a tile, about.
    workers
        Processes on this machine. The map does not depend on it.
    client
        A client of dask.distributed, whose workers are used instead.
    progress
        Told how many tiles are done, of how many, and how long the rest may take.
    resume
        Folder in which tiles are kept; those whose values and request are the same are not fitted
        again.
    crs
        Coordinate reference system, where the cube does not say.

    Raises
    ------
    CubeError, CRSError
        If the cube has no such dimensions, or pixels cannot be placed.
    AlignmentError, DesignError, PanelError
        If times are irregular or do not fit the event or controls.
    EstimationError
        If a control does not vary or changes its unit, or the model has another engine.
    EmptyInputError
        If no pixel has an effect.
    """
    grid = grid_of(cube, crs)
    ordered = cube.transpose("time", grid.rows, grid.columns)
    given = plain_times(ordered.indexes["time"], "The cube")
    regular = regular_times(given)
    windows = windows_of(event, given, regular, learn_until)
    decided = StructuralModel() if model is None else model
    left_out = _left_out(grid, control_zone, area)
    windows_here = tiles_of(ordered, grid, pixels)
    table = _matched(controls, regular)
    variances = None
    if variance is not None:
        variances = _matched(variance, regular).to_numpy(dtype=float)[:, 0]
        variances = np.where(np.isin(np.arange(len(variances)), regular.place), variances, 1.0)
    behind = _checked_looks(looks, ordered, grid, variance, look_share)
    task = MapTask(
        decided, regular.place, windows.before, windows.post, None, variances, level, least,
        look_share,
    )  # fmt: skip
    if control_zone is not None:
        zone = (left_out == PixelStatus.CONTROL).astype(np.int64) - 1
        means = zone_means(ordered, grid, zone, 1, task, windows_here, workers, client)
        table[CONTROL_ZONE] = means[0]
    task = _with_controls(task, table, regular)
    weights = grid.weights()
    folder = None if resume is None else Path(resume)
    jobs = [
        TileJob(
            _cut(ordered, grid, window), task, left_out[window], weights[window],
            None if behind is None else _cut(behind, grid, window),
            folder and folder / f"tile-{window[0].start}-{window[1].start}.npz",
        )
        for window in windows_here
    ]  # fmt: skip
    found = run_jobs(jobs, workers=workers, client=client, progress=progress)
    request = MapRequest(
        ordered,
        event,
        table,
        task,
        grid,
        left_out,
        regular.times,
        windows_here,
        str(cube.name or "value"),
    )
    return assemble(request, found)


def _cut(cube: xr.DataArray, grid: MapGrid, window: tuple[slice, slice]) -> xr.DataArray:
    """Return a tile with no more of a dask graph than it needs."""
    part = cube.isel({grid.rows: window[0], grid.columns: window[1]}).reset_coords(drop=True)
    if part.chunks is None:
        return part
    import dask

    return part.copy(data=dask.optimize(part.data)[0])


def _checked_looks(
    looks: xr.DataArray | None,
    cube: xr.DataArray,
    grid: MapGrid,
    variance: pd.Series | None,
    share: float,
) -> xr.DataArray | None:
    if looks is None:
        return None
    if variance is not None or not 0.0 < share <= 1.0:
        raise EstimationError(
            f"Looks with a share of {share:g}{' and variances' if variance is not None else ''}.",
            cause="Looks give the variances, by a share above zero and at most one.",
            next_step="Give looks or variance, and a share such as 0.5.",
        )
    if dict(looks.sizes) != dict(cube.sizes):
        raise CubeError(
            f"The looks have the sizes {dict(looks.sizes)}, the cube {dict(cube.sizes)}.",
            cause="There is one number for each value.",
            next_step="Bring both to one grid and the same times.",
        )
    return looks.transpose("time", grid.rows, grid.columns)


def _left_out(
    grid: MapGrid, control_zone: xr.DataArray | None, area: xr.DataArray | None
) -> NDArray[np.int8]:
    out = np.zeros(grid.shape, np.int8)
    if area is not None:
        out[~_mask(grid, area, "area")] = PixelStatus.OUTSIDE
    if control_zone is not None:
        out[_mask(grid, control_zone, "control zone")] = PixelStatus.CONTROL
    return out


def _mask(grid: MapGrid, mask: xr.DataArray, what: str) -> Bool:
    if set(mask.dims) != {grid.rows, grid.columns} or mask.size != math.prod(grid.shape):
        raise CubeError(
            f"The {what} has the sizes {dict(mask.sizes)}, the cube {grid.rows}: "
            f"{grid.shape[0]}, {grid.columns}: {grid.shape[1]}.",
            cause="It says of every pixel whether it belongs to it.",
            next_step="Give a mask over the same grid.",
        )
    values = mask.transpose(grid.rows, grid.columns)
    for name, own in ((grid.rows, grid.y), (grid.columns, grid.x)):
        if name in values.coords and not np.allclose(values[name].to_numpy().astype(float), own):
            raise AlignmentError(
                f"The {what} has other {name} than the cube.",
                cause="Pixels of one would be taken for those of the other.",
                next_step=f"Bring it to the cube's grid, e.g. {what.replace(' ', '_')}"
                ".reindex_like(cube, method='nearest').",
            )
    chosen = np.asarray(values.to_numpy().astype(bool))
    if not chosen.any():
        raise EmptyInputError(
            f"The {what} has no pixel.", cause="The mask is False everywhere.",
            next_step="Check it against the grid.",
        )  # fmt: skip
    return chosen


def _matched(controls: pd.DataFrame | pd.Series | None, regular: RegularTimes) -> pd.DataFrame:
    """Return controls at the steps of the cube, NaN where they have none."""
    if controls is None:
        return pd.DataFrame(index=regular.times)
    table = controls.to_frame() if isinstance(controls, pd.Series) else controls
    own = plain_times(table.index, "The controls")
    place = regular.locate(own)
    inside = place >= 0
    if not inside.any():
        raise AlignmentError(
            "The controls have no time in common with the cube.",
            cause="They are matched by date.",
            next_step="Give both the same dates, such as the first day of each month.",
        )
    out = np.full((len(regular.times), table.shape[1]), np.nan)
    out[place[inside]] = table.to_numpy(dtype=float)[inside]
    return pd.DataFrame(out, regular.times, list(table.columns))


def _with_controls(task: MapTask, table: pd.DataFrame, regular: RegularTimes) -> MapTask:
    if engine_of(task.model, table.shape[1]) is not Engine.GRID:
        raise EstimationError(
            f"A map with {task.model!r} and {table.shape[1]} controls.",
            cause="Only models whose effects are exact are fast enough for pixels: a level or a "
            "line, at most eight controls, seasons that stay (none under CausalImpact's priors).",
            next_step="Take such a model for the map, and this one for the mean of a zone.",
        )
    names: Sequence[str] = [str(name) for name in table.columns]
    for at, name in enumerate(names):
        x = table.iloc[:, at].to_numpy(dtype=float)
        check_units(f"Control {name}", x, regular.times, task.before, task.after)
    if not names:
        return task
    return replace(task, controls=table.to_numpy(dtype=float))
