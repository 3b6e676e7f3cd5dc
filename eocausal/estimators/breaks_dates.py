"""How well the date of a break is known: by the theory of Bai, and with red noise drawn.

Bai (1997, Review of Economics and Statistics 79:551): the date that is found differs from the true
one by the place where a Brownian motion with drift, different on its two sides, is highest. The
other interval holds the dates whose sum of squares is within reach of the smallest one (Eo & Morley
2015, Quantitative Economics 6:463), the reach being what series with the break where it was found
and the noise of an autoregression show, and no less than that of a small break: found breaks look
larger than they are, and large ones leave less room.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import log_ndtr

from eocausal.errors import EstimationError
from eocausal.estimators.breaks_scan import candidates, regimes, scan
from eocausal.estimators.breaks_sieve import ArSieve, fit_autoregression, serial_variance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

__all__ = ["DateInterval", "argmax_quantiles", "bai_interval", "sieve_interval"]

STEPS = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class DateInterval:
    """Observations that may be the first of the new regime.

    Attributes
    ----------
    at
        The one found.
    first, last
        Ends of the interval, both in it.
    held
        Observations in it; fewer than lie between the ends if some between them are ruled out.
    level
        Probability that it holds the truth.
    method
        How it was made.
    """

    at: int
    first: int
    last: int
    held: NDArray[np.int64]
    level: float
    method: str


def bai_interval(
    y: Float64,
    changing: Float64,
    shared: Float64,
    breaks: Sequence[int],
    number: int,
    *,
    level: float = 0.95,
    position: NDArray[np.int64] | None = None,
) -> DateInterval:
    """Return the interval of Bai (1997, section 3) for one of the breaks of a series.

    Regressors and errors of the two regimes may differ in variance.

    Parameters
    ----------
    y
        (n,) series without gaps.
    changing, shared
        (n, q) and (n, s) columns whose coefficients change and last.
    breaks
        All breaks: first observation of each new regime.
    number
        Which of them, from 0.
    position
        (n,) numbers of the observed steps. Given: errors may be autocorrelated, and their variance
        at frequency zero is that of an autoregression. None: they are taken as independent.
    """
    edges = [0, *breaks, len(y)]
    q = changing.shape[1]
    design = np.concatenate([regimes(changing, breaks), shared], axis=1)
    coefficients = np.linalg.lstsq(design, y, rcond=None)[0]
    delta = coefficients[q * (number + 1) : q * (number + 2)]
    delta = delta - coefficients[q * number : q * (number + 1)]
    left = y - design @ coefficients
    square, spread = np.empty(2), np.empty(2)
    for side in (0, 1):
        inside = slice(edges[number + side], edges[number + side + 1])
        step = changing[inside] @ delta
        square[side] = np.mean(step**2)
        if position is None:
            spread[side] = np.mean(left[inside] ** 2) * square[side]
        else:
            spread[side] = serial_variance(step * left[inside], position[inside])
    scale = square[0] ** 2 / spread[0]
    low, high = argmax_quantiles((1 - level) / 2, square[1] / square[0], spread[1] / spread[0])
    at = int(breaks[number])
    first = max(int(np.floor(at - high / scale)), 1)
    last = min(int(np.ceil(at - low / scale)), len(y) - 1)
    name = "Bai 1997" if position is None else "Bai 1997, autocorrelated errors"
    return DateInterval(at, first, last, np.arange(first, last + 1), level, name)


def argmax_quantiles(tail: float, drift: float = 1.0, variance: float = 1.0) -> tuple[float, float]:
    """Return the lower and upper ``tail`` quantile of where a two-sided motion is highest.

    The motion is W₁(-s) - |s|/2 for s < 0 and √variance W₂(s) - drift s/2 for s > 0. Its maximum
    lies at s with density λ(J(0) - J(λ')), λ and λ' being the rates of the exponential maxima of
    this side and the other, and J(c) = ∫ m h(m, s) e^{-cm} dm with h the density of first passage
    of the level m at s.
    """
    low = _tail(tail, 0.5, 1.0, drift / variance)
    high = _tail(tail, drift / 2, variance, 1.0)
    return -low, high


def _tail(tail: float, drift: float, variance: float, other: float) -> float:
    """Return t such that the maximum lies on this side and beyond t with probability ``tail``."""
    rate = 2 * drift / variance
    mean = variance / drift**2
    root = np.linspace(0.0, np.sqrt(60.0 * mean), STEPS + 1)
    time = root**2
    density = np.zeros_like(root)
    density[1:] = rate * (
        _passages(time[1:], drift, variance, 0.0) - _passages(time[1:], drift, variance, other)
    )
    mass = 2 * root * density
    pieces = (mass[1:] + mass[:-1]) / 2 * (root[1] - root[0])
    beyond = np.append(pieces[::-1].cumsum()[::-1], 0.0)
    return float(np.interp(-tail, -beyond, time))


def _passages(time: Float64, drift: float, variance: float, rate: float) -> Float64:
    """Return J(rate): densities of first passage over all levels, weighted by exp(-rate level)."""
    steep = drift + rate * variance
    sd = np.sqrt(variance * time)
    at = steep * time / sd
    tilt = (steep**2 - drift**2) * time / (2 * variance)
    normal = np.exp(tilt - at**2 / 2) / np.sqrt(2 * np.pi)
    return np.asarray((sd * normal - steep * time * np.exp(tilt + log_ndtr(-at))) / time)


def sieve_interval(
    y: Float64,
    changing: Float64,
    shared: Float64,
    breaks: Sequence[int],
    number: int,
    *,
    position: NDArray[np.int64],
    shortest: int,
    level: float = 0.95,
    sieve: ArSieve | None = None,
    seed: int = 0,
) -> DateInterval:
    """Return the dates that red noise does not rule out, the other breaks being where they are.

    Parameters
    ----------
    y, changing, shared, breaks, number, position
        As in :func:`bai_interval`.
    shortest
        Fewest observations of a regime.
    """
    if not 0.5 <= level < 1:
        raise EstimationError(
            f"level={level} is no level of an interval.",
            cause="It is the probability that the interval holds the truth.",
            next_step="Use e.g. level=0.95.",
        )
    sieve = sieve or ArSieve()
    at = int(breaks[number])
    others = [b for b in breaks if b != at]
    edges = [0, *others, len(y)]
    inside = candidates(len(y), shortest, others)
    near = int(np.searchsorted(others, at))
    inside = inside[(inside > edges[near]) & (inside < edges[near + 1])]
    look = scan(changing, shared, inside, others)
    here = int(np.searchsorted(look.at, at))
    left = look.residuals(y[None])
    noise = look.after(left, np.array([here]))
    found = fit_autoregression(
        noise[0], position,
        lambda drawn: look.after(look.residuals(drawn), np.full(len(drawn), here)), sieve, seed,
    )  # fmt: skip
    at_steps = position - position[0]
    rng = np.random.default_rng([seed, 2])
    drawn = found.draw(sieve.draws, int(at_steps[-1]) + 1, rng)[:, at_steps]
    again = look.residuals(drawn + (left - noise))
    reach = max(
        np.quantile(_distance(look.reductions(again), again, look.free)[:, here], level),
        -2 * np.log(1 - np.sqrt(level)) * found.inflation**2,
    )
    distance = _distance(look.reductions(left), left, look.free)[0]
    held = look.at[distance <= reach]
    return DateInterval(at, int(held[0]), int(held[-1]), held, level, "inverted, red noise")


def _distance(reductions: Float64, left: Float64, free: int) -> Float64:
    """Return (N, K) how far each date is from the best one, over the variance there."""
    best = reductions.max(1, keepdims=True)
    total = (left**2).sum(1)[:, None]
    return np.asarray((best - reductions) / (total - best) * free)
