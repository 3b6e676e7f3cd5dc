"""Effects of the pixels of one tile, and a mean series of what they share.

A tile is fitted alone, by whichever worker comes first: which worker does it, and with how many
others, changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from eocausal.estimators.structural import fit_structural
from eocausal.estimators.structural_grid import fit_grid
from eocausal.estimators.structural_model import StructuralModel

__all__ = ["ESTIMATES", "MapTask", "PixelStatus", "TileEffects", "fit_tile", "group_means"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
ESTIMATES = (
    "estimate", "std_error", "ci_low", "ci_high", "p_value",
    "relative", "relative_low", "relative_high",
)  # fmt: skip


class PixelStatus(IntEnum):
    """What became of a pixel."""

    OK = 0
    EMPTY = 1
    FEW = 2
    CONSTANT = 3
    NO_AFTER = 4
    CONTROL = 5
    OUTSIDE = 6

    @property
    def words(self) -> str:
        """What it means."""
        return _WORDS[self]


_WORDS = {
    PixelStatus.OK: "has an effect",
    PixelStatus.EMPTY: "no value at any time (land, or never seen)",
    PixelStatus.FEW: "too few values before the event",
    PixelStatus.CONSTANT: "the same value at all times before the event",
    PixelStatus.NO_AFTER: "no value after the event",
    PixelStatus.CONTROL: "in the control zone",
    PixelStatus.OUTSIDE: "left out of the area",
}


@dataclass(frozen=True, slots=True, eq=False)
class MapTask:
    """What is done to every pixel.

    Attributes
    ----------
    model
        What a series is taken to be made of.
    place
        (n,) where each time of the cube is among the T steps of its calendar.
    before, after
        (T,) times learned from and counted.
    controls
        (T, K) shared controls, or None.
    variance
        (T,) relative variances, or None.
    level
        Probability of the intervals.
    least
        Values before the event that a pixel must have.
    look_share
        Share of the variance that comes from having few looks.
    """

    model: StructuralModel
    place: NDArray[np.int64]
    before: Bool
    after: Bool
    controls: Float64 | None
    variance: Float64 | None
    level: float
    least: int
    look_share: float = 1.0

    def on_calendar(self, values: Float64) -> Float64:
        """Return (N, T) series of (n, N) values."""
        out = np.full((values.shape[1], len(self.before)), np.nan)
        out[:, self.place] = values.T
        return out

    @property
    def usable(self) -> Bool:
        """(T,) True where no control is missing."""
        if self.controls is None:
            return np.ones(len(self.before), bool)
        return np.asarray(np.isfinite(self.controls).all(1))


@dataclass(frozen=True, slots=True, eq=False)
class TileEffects:
    """Effects of N pixels.

    Attributes
    ----------
    effects
        (N, 8) the columns :data:`ESTIMATES`, NaN where there is no effect.
    n_before, n_after
        (N,) values learned from and counted.
    status
        (N,) codes of :class:`PixelStatus`.
    sums
        (G, 3, T + 1) see :func:`group_means`.
    """

    effects: Float64
    n_before: NDArray[np.int32]
    n_after: NDArray[np.int32]
    status: NDArray[np.int8]
    sums: Float64


def fit_tile(
    values: xr.DataArray,
    task: MapTask,
    left_out: NDArray[np.int8],
    weights: Float64,
    looks: xr.DataArray | None = None,
) -> TileEffects:
    """Fit the pixels of a tile.

    Parameters
    ----------
    values
        (time, rows, columns), read here.
    left_out
        (rows, columns) zero where a pixel is fitted, else its status.
    weights
        (rows, columns) areas.
    looks
        (time, rows, columns) valid looks behind each value.
    """
    series = task.on_calendar(_read(values))
    own = None
    if looks is not None:
        count = task.on_calendar(_read(looks))
        series = np.where(count > 0, series, np.nan)
        own = _variances(count, task.look_share)
    skip = left_out.ravel()
    seen = np.isfinite(series)
    n_before = (seen & task.before & task.usable).sum(1)
    n_after = (seen & task.after & task.usable).sum(1)
    status = skip.copy()
    for code, wrong in (
        (PixelStatus.NO_AFTER, n_after == 0),
        (PixelStatus.FEW, n_before < task.least),
        (PixelStatus.EMPTY, ~seen.any(1)),
    ):
        status[wrong & (skip == 0)] = code
    effects = np.full((len(series), len(ESTIMATES)), np.nan)
    rows = np.flatnonzero(status == PixelStatus.OK)
    if rows.size:
        fit = (
            fit_structural(
                series[rows], task.before, task.model,
                controls=task.controls, variance=task.variance,
            )
            if own is None
            else fit_grid(
                series[rows], task.before, task.model, controls=task.controls, variance=own[rows]
            )
        )  # fmt: skip
        for row, reason in fit.refused.items():
            few = "values before" in reason
            status[rows[row]] = PixelStatus.FEW if few else PixelStatus.CONSTANT
        found = fit.average(task.after, task.level)
        counted = seen[rows] & task.after & task.usable
        actual = np.where(counted, series[rows], 0.0).sum(1) / counted.sum(1)
        columns = [found.estimate, found.std_error, found.ci_low, found.ci_high, found.p_value]
        effects[rows] = np.stack([*columns, *_relative(actual, columns)], 1)
    fitted = (status == PixelStatus.OK).astype(np.int64) - 1
    sums = group_means(series, fitted, 1, weights.ravel(), task)
    return TileEffects(effects, n_before.astype(np.int32), n_after.astype(np.int32), status, sums)


def _variances(count: Float64, share: float) -> Float64:
    """Return (N, T) relative variances of means of (N, T) looks; see :class:`Looks`."""
    each = 1.0 / np.where(count > 0, count, np.nan)
    seen = np.isfinite(each)
    mean = np.where(seen, each, 0.0).sum(1, keepdims=True) / np.maximum(seen.sum(1), 1)[:, None]
    return np.where(seen, (1.0 - share) + share * each / np.where(mean > 0, mean, 1.0), 1.0)


def _relative(actual: Float64, columns: list[Float64]) -> list[Float64]:
    """Effects over predicted means, NaN where the prediction's interval holds zero."""
    estimate, _, low, high, _ = columns
    predicted, least, most = actual - estimate, actual - high, actual - low
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = [actual / part - 1.0 for part in (predicted, most, least)]
    straddles = ~((least > 0) | (most < 0))
    middle, low, high = (np.where(straddles, np.nan, ratio) for ratio in ratios)
    return [middle, np.fmin(low, high), np.fmax(low, high)]


def _read(values: xr.DataArray) -> Float64:
    import dask

    with dask.config.set(scheduler="synchronous"):
        loaded = values.compute()  # load() would keep every tile with its job
    flat = loaded.to_numpy().reshape(len(loaded), -1).astype(float)
    return np.where(np.isfinite(flat), flat, np.nan)


def group_means(
    series: Float64, group: NDArray[np.int64], groups: int, weights: Float64, task: MapTask
) -> Float64:
    """Return (G, 3, T + 1) sums over pixels from which mean series of groups are made.

    Pixels come and go with clouds, so each is taken as its departure from its own mean before the
    event: the sums are those of weight times departure, of weights, and (last entry) of weight
    times mean. Pixels of group -1, and those without enough values, are in none.
    """
    seen = np.isfinite(series)
    known = seen & task.before
    count = known.sum(1)
    use = (group >= 0) & (count >= task.least)
    center = np.where(known, series, 0.0).sum(1) / np.maximum(count, 1)
    departure = np.where(seen, series - center[:, None], 0.0)
    sums = np.zeros((groups, 3, series.shape[1] + 1))
    weight = np.where(use, weights, 0.0)
    for g in range(groups):
        share = np.where(group == g, weight, 0.0)
        sums[g, 0, :-1] = share @ departure
        sums[g, 1, :-1] = share @ seen
        sums[g, 2, -1] = share @ center
        sums[g, 1, -1] = share.sum()
    return sums
