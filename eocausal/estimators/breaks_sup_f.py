"""Is there a break at an unknown date? The largest F over the dates, against red noise.

Andrews (1993, Econometrica 61:821) without his critical values, which hold for errors without
memory: the statistic is compared with that of series drawn from an autoregression. The
autoregression is fitted to what the best break leaves, so that a break does not pass for
persistence, and the bias which that brings is taken out; what is left uncertain about its
coefficients is drawn as well (:mod:`eocausal.estimators.breaks_sieve`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eocausal.estimators.breaks_sieve import ArSieve, fit_autoregression

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.breaks_scan import Scan
    from eocausal.estimators.breaks_sieve import Autoregression, Refit

    Float64 = NDArray[np.float64]

__all__ = ["SupF", "sup_f"]


@dataclass(frozen=True, slots=True, eq=False)
class SupF:
    """The test of one more break.

    Attributes
    ----------
    statistic
        Largest F over the dates, times the number of coefficients that change.
    at
        First observation of the new regime there.
    p_value
        (1 + draws at least as large)/(1 + draws), of the largest.
    dates
        (K,) candidates: first observations of a new regime.
    path
        (K,) F at each of them.
    p_at
        (K,) p-values of each date on its own, had it been known beforehand.
    noise
        What series were drawn from.
    draws
        How many.
    """

    statistic: float
    at: int
    p_value: float
    dates: NDArray[np.int64]
    path: Float64
    p_at: Float64
    noise: Autoregression
    draws: int

    def __repr__(self) -> str:
        return (
            f"SupF({self.statistic:.2f} at observation {self.at}, p = {self.p_value:.3f}, "
            f"noise of order {self.noise.order})"
        )


def sup_f(
    y: Float64,
    look: Scan,
    position: NDArray[np.int64],
    sieve: ArSieve | None = None,
    seed: int = 0,
) -> SupF:
    """Test whether a series has a break at one of the candidates.

    Parameters
    ----------
    y
        (n,) observed values.
    look
        Candidates and the model without the new break.
    position
        (n,) numbers of the observed steps.
    """
    sieve = sieve or ArSieve()
    left = look.residuals(y[None])
    reductions = look.reductions(left)
    best = reductions.argmax(-1)
    noise = fit_autoregression(look.after(left, best)[0], position, _searched(look), sieve, seed)
    at = position - position[0]
    rng = np.random.default_rng([seed, 2])
    drawn = look.residuals(noise.draw(sieve.draws, int(at[-1]) + 1, rng)[:, at])
    path = look.statistics(left, reductions)[0]
    null = look.statistics(drawn, look.reductions(drawn))
    return SupF(
        float(path.max()), int(look.at[best[0]]),
        float(1 + (null.max(1) >= path.max()).sum()) / (1 + sieve.draws), look.at, path,
        np.asarray((1 + (null >= path).sum(0)) / (1 + sieve.draws)), noise, sieve.draws,
    )  # fmt: skip


def _searched(look: Scan) -> Refit:
    """Return what takes the best break out of drawn noise."""

    def refit(drawn: Float64) -> Float64:
        left = look.residuals(drawn)
        return look.after(left, look.reductions(left).argmax(-1))

    return refit
