"""How far a series shifted, without trusting its tails: Cliff's delta and Hodges-Lehmann.

Cliff (1993, Psychological Bulletin 114:494): the probability that a later value is above an earlier
one, less that of below. Hodges & Lehmann (1963): the median of all differences between a later and
an earlier value. Values of a series depend on their neighbours, so intervals come from blocks of
them (Künsch 1989; length of Politis & White 2004, Econometric Reviews 23:53, for an autoregression
of order one) or from red noise (:mod:`eocausal.estimators.breaks_sieve`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.errors import EstimationError, OutcomeError
from eocausal.estimators.breaks_sieve import ArSieve, fit_autoregression

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

__all__ = ["Blocks", "Shift", "cliffs_delta", "hodges_lehmann", "shift_size"]

FEWEST = 5
WORDS = ((0.147, "negligible"), (0.33, "small"), (0.474, "medium"), (math.inf, "large"))


@dataclass(frozen=True, slots=True)
class Blocks:
    """Draw blocks of neighbouring values, around the ends of a regime.

    Parameters
    ----------
    length
        Of a block in observations. None: as the first autocorrelation suggests.
    draws
        How often.
    """

    length: int | None = None
    draws: int = 999

    def __post_init__(self) -> None:
        if self.draws < 19 or (self.length is not None and self.length < 1):
            raise EstimationError(
                f"Blocks(length={self.length}, draws={self.draws}) is no bootstrap.",
                cause="A block holds a value at least, and a tail of 2.5 % needs draws.",
                next_step="Use the defaults.",
            )


@dataclass(frozen=True, slots=True, eq=False)
class Shift:
    """How far values lie from those before.

    Attributes
    ----------
    delta, delta_low, delta_high
        Cliff's delta, from -1 to 1, and its interval.
    shift, shift_low, shift_high
        Hodges-Lehmann shift in units of the series, and its interval.
    before, after
        Numbers of values.
    level
        Of the intervals.
    method
        How they were made.
    """

    delta: float
    delta_low: float
    delta_high: float
    shift: float
    shift_low: float
    shift_high: float
    before: int
    after: int
    level: float
    method: str

    def __repr__(self) -> str:
        return (
            f"Shift(delta {self.delta:+.3f} [{self.delta_low:+.3f}, {self.delta_high:+.3f}], "
            f"shift {self.shift:+.4g} [{self.shift_low:+.4g}, {self.shift_high:+.4g}])"
        )

    @property
    def word(self) -> str:
        """Size of delta by the marks of Romano et al. (2006)."""
        return next(word for mark, word in WORDS if abs(self.delta) < mark)

    def to_frame(self) -> pd.DataFrame:
        """Return a row for delta and one for the shift."""
        return pd.DataFrame(
            {
                "estimate": [self.delta, self.shift],
                "low": [self.delta_low, self.shift_low],
                "high": [self.delta_high, self.shift_high],
            },
            index=pd.Index(["cliffs_delta", "hodges_lehmann"], name="measure"),
        )

    def summary(self) -> str:
        """Say in words how far values moved."""
        percent = 100 * self.level
        return (
            f"A later value is above an earlier one in {50 * (1 + self.delta):.0f} % of pairs "
            f"(Cliff's delta {self.delta:+.2f}, {self.word}; {percent:.0f} % interval "
            f"{self.delta_low:+.2f} to {self.delta_high:+.2f}). The typical shift is "
            f"{self.shift:+.4g} ({self.shift_low:+.4g} to {self.shift_high:+.4g}); "
            f"{self.before} values before, {self.after} after, intervals by {self.method}."
        )


def cliffs_delta(before: Float64, after: Float64) -> float:
    """Return P(after > before) - P(after < before) over all pairs."""
    ordered = np.sort(before)
    above = np.searchsorted(ordered, after, side="left").sum()
    below = (len(before) - np.searchsorted(ordered, after, side="right")).sum()
    return float(above - below) / (len(before) * len(after))


def hodges_lehmann(before: Float64, after: Float64) -> float:
    """Return the median of all differences after - before."""
    return float(np.median(after[:, None] - before))


def shift_size(
    values: Float64,
    at: int,
    *,
    position: NDArray[np.int64] | None = None,
    resample: Blocks | ArSieve | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Shift:
    """Measure how far values from observation ``at`` on lie from those before.

    Parameters
    ----------
    values
        (n,) without gaps; take a season out first, or it widens both.
    at
        First observation of the new regime.
    position
        (n,) numbers of the observed steps; None: there are no gaps.
    resample
        ``ArSieve()`` (the default) or ``Blocks()``.
    level
        Of the intervals; the date is taken as known.

    Raises
    ------
    OutcomeError
        If a value is not finite, or all are the same.
    EstimationError
        If a side has fewer than five values.
    """
    values = np.asarray(values, dtype=float)
    _check(values, at, level)
    before, after = values[:at], values[at:]
    delta, shift = cliffs_delta(before, after), hodges_lehmann(before, after)
    position = np.arange(len(values)) if position is None else position
    if isinstance(resample, Blocks):
        drawn, method = _blocks(before, after, resample, seed)
    else:
        drawn = _red_noise(values, at, position, resample or ArSieve(), seed)
        method = "red noise drawn"
    pairs = [(cliffs_delta(d[:at], d[at:]), hodges_lehmann(d[:at], d[at:])) for d in drawn]
    tails = (1 - level) / 2, (1 + level) / 2
    low, high = np.quantile(np.array(pairs), tails, axis=0)
    return Shift(
        delta, float(low[0]), float(high[0]), shift, float(low[1]), float(high[1]),
        len(before), len(after), level, method,
    )  # fmt: skip


def _check(values: Float64, at: int, level: float) -> None:
    if not np.isfinite(values).all() or np.ptp(values) == 0:
        raise OutcomeError(
            "Values are missing, infinite, or all the same.",
            cause="Their order says nothing then.",
            next_step="Leave missing times out and give their positions.",
        )
    if min(at, len(values) - at) < FEWEST or not 0 < level < 1:
        raise EstimationError(
            f"{at} values before and {len(values) - at} after the break, level {level}.",
            cause=f"Each side needs {FEWEST} values for an interval, and a level is below 1.",
            next_step="Choose a date further inside the record.",
        )


def _red_noise(
    values: Float64, at: int, position: NDArray[np.int64], sieve: ArSieve, seed: int
) -> Float64:
    """Draw series with the same two levels and spreads and the memory of what is left."""
    late = np.arange(len(values)) >= at
    level = np.where(late, values[at:].mean(), values[:at].mean())
    spread = np.array([values[:at].std(), values[at:].std()])
    spread = np.maximum(spread, 1e-9 * spread.max())[late.astype(int)]

    def refit(drawn: Float64) -> Float64:
        means = [drawn[:, part].mean(1, keepdims=True) for part in (slice(at), slice(at, None))]
        return np.asarray(drawn - np.where(late, means[1], means[0]))

    noise = fit_autoregression((values - level) / spread, position, refit, sieve, seed)
    steps = position - position[0]
    rng = np.random.default_rng([seed, 4])
    drawn = noise.draw(sieve.draws, int(steps[-1]) + 1, rng)[:, steps]
    return np.asarray(level + spread * drawn)


def _blocks(before: Float64, after: Float64, blocks: Blocks, seed: int) -> tuple[Float64, str]:
    rng = np.random.default_rng([seed, 5])
    length = blocks.length or max(_block_length(before), _block_length(after))
    parts = []
    for part in (before, after):
        n, each = len(part), min(length, len(part))
        starts = rng.integers(0, n, (blocks.draws, -(-n // each)))
        index = (starts[:, :, None] + np.arange(each)) % n
        parts.append(part[index.reshape(blocks.draws, -1)[:, :n]])
    return np.concatenate(parts, axis=1), f"blocks of {length}"


def _block_length(part: Float64) -> int:
    """Return (3n/2)^(1/3) (2ρ/(1 - ρ²))^(2/3), at most a third of n."""
    centred = part - part.mean()
    square = float(centred @ centred)
    rho = min(max(float(centred[1:] @ centred[:-1]) / square, 0.0), 0.97) if square else 0.0
    ideal: float = (1.5 * len(part)) ** (1 / 3) * (2 * rho / (1 - rho**2)) ** (2 / 3)
    return max(1, min(math.ceil(ideal), len(part) // 3))
