"""How one sensor is brought to the level of another on the time both saw.

What is estimated on an overlap is uncertain, and an error in it is a step in the merged record, at
the date the sensors change. So every adjustment comes with draws, from blocks of consecutive times
of the overlap (Künsch 1989), since neighbouring months err together.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from eocausal.errors import EstimationError

__all__ = ["Adjustment", "Fitted", "Kind", "fit_adjustment"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


class Kind(StrEnum):
    """What differs between sensors.

    ``ratio``: a factor, the median log ratio. ``difference``: an offset, the median difference.
    ``line``: factor and exponent, the orthogonal regression of logarithms, which takes both sensors
    to be in error.
    """

    RATIO = "ratio"
    DIFFERENCE = "difference"
    LINE = "line"


@dataclass(frozen=True, slots=True)
class Adjustment:
    """How sensors are adjusted.

    Parameters
    ----------
    kind
        What differs between them.
    by_month
        Whether the factor or offset is another in each month of the year.
    minimum_overlap
        Times both must have seen; with ``by_month`` two in every month too.
    block
        Consecutive times that are drawn together.
    draws
        Number of draws.
    seed
        Fixes the draws.
    """

    kind: Kind = Kind.RATIO
    by_month: bool = False
    minimum_overlap: int = 12
    block: int = 6
    draws: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        if self.minimum_overlap < 3 or self.block < 1 or self.draws < 20:
            raise EstimationError(
                f"{self!r} is no adjustment.",
                cause="A median needs three times, a block one, and an interval twenty draws.",
                next_step="Use the defaults.",
            )
        if self.by_month and self.kind is Kind.LINE:
            raise EstimationError(
                "A line for every month of the year.",
                cause="An overlap of a few years holds too few of each month.",
                next_step="Take Kind.RATIO by month, or one line.",
            )

    @property
    def logarithmic(self) -> bool:
        """Whether work is on logarithms."""
        return self.kind is not Kind.DIFFERENCE


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """``adjusted = intercept[month] + slope * own`` on the scale of work, and draws of both.

    Attributes
    ----------
    intercept, slope
        (12,) and a number.
    intercepts, slopes
        (draws, 12) and (draws,).
    spread
        Standard deviation of single times around the adjustment.
    """

    intercept: Float64
    slope: float
    intercepts: Float64
    slopes: Float64
    spread: float

    @classmethod
    def reference(cls, draws: int) -> Fitted:
        """Return the adjustment of the reference: none, without doubt."""
        return cls(np.zeros(12), 1.0, np.zeros((draws, 12)), np.ones(draws), 0.0)

    def apply(self, own: Float64, month: Int64) -> Float64:
        """Adjust values ``(T, ...)`` on the scale of work; ``month`` (T,) from 0."""
        shape = (-1, *(1,) * (own.ndim - 1))
        return np.asarray(self.intercept[month].reshape(shape) + self.slope * own)

    def draw(self, own: Float64, month: Int64) -> Float64:
        """Adjust a series ``(T,)`` in every draw, ``(draws, T)``."""
        return np.asarray(self.intercepts[:, month] + self.slopes[:, None] * own)


def fit_adjustment(
    target: Float64, targets: Float64, own: Float64, month: Int64, how: Adjustment, key: int
) -> Fitted:
    """Fit one sensor to what has been adjusted before.

    Parameters
    ----------
    target, own
        (n,) both at the times of the overlap, on the scale of work.
    targets
        (draws, n) the target with the draws of earlier adjustments.
    month
        (n,) from 0.
    key
        Number of the sensor, so that each has draws of its own.
    """
    rng = np.random.default_rng([how.seed, key])
    n = len(own)
    starts = rng.integers(0, n, (how.draws, -(-n // how.block)))
    index = (starts[:, :, None] + np.arange(how.block)) % n
    index = index.reshape(how.draws, -1)[:, :n]
    drawn = np.take_along_axis(targets, index, axis=1), own[index]
    if how.kind is Kind.LINE:
        intercept, slope = _line(target, own)
        lines = [_line(*pair) for pair in zip(*drawn, strict=True)]
        intercepts, slopes = np.stack([a for a, _ in lines]), np.array([b for _, b in lines])
    else:
        shown = month if how.by_month else np.zeros_like(month)
        intercept, slope = _medians((target - own)[None], shown[None], None)[0], 1.0
        intercepts = _medians(drawn[0] - drawn[1], shown[index], intercept)
        slopes = np.ones(how.draws)
        if not how.by_month:
            intercept = np.full(12, intercept[0])
            intercepts = np.repeat(intercepts[:, :1], 12, axis=1)
    left = target - intercept[month] - slope * own
    return Fitted(intercept, slope, intercepts, slopes, float(left.std(ddof=1)))


def _line(target: Float64, own: Float64) -> tuple[Float64, float]:
    """Orthogonal regression of one on the other."""
    centre = target.mean(), own.mean()
    _, _, axes = np.linalg.svd(
        np.column_stack([own - centre[1], target - centre[0]]), full_matrices=False
    )
    slope = float(axes[0, 1] / axes[0, 0])
    return np.full(12, centre[0] - slope * centre[1]), slope


def _medians(differences: Float64, month: Int64, fallback: Float64 | None) -> Float64:
    """Median difference by month in each draw, ``(draws, 12)``; fallback where none was drawn."""
    start = np.full(12, np.nan) if fallback is None else fallback
    found = np.repeat(start[None], len(differences), axis=0)
    for m in np.unique(month):
        part = np.where(month == m, differences, np.nan)
        some = np.isfinite(part).any(1)
        found[some, m] = np.nanmedian(part[some], axis=1)
    return found
