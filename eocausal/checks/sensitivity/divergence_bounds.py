"""Bounds on a mean of which only a share of units shows the outcome, by divergence.

Where a share e of units is in an arm, the law P of the arm's outcomes and the law Q of what all
units would show differ by no more than the f-divergences D(P‖Q) that e allows: -log e
(Kullback-Leibler), 1 - √e (Hellinger), (1 - e)/2e (χ²), 1 - e (total variation); Jung & Kang (2026,
arXiv 2601.17160). The greatest mean of Q under such a budget has a dual with two numbers (METHODS
D14); for the first three it becomes, with v ≥ y_hi,

    min_v  v - e M_p(v - Y),

M_p the power mean over P with p = 0 (geometric), -1 (harmonic) and ½. At p = 1 the minimum is at
v = y_hi and is Manski's bound e E Y + (1 - e) y_hi. As M_p grows with p, no divergence can beat it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Divergence", "greatest_mean"]


class Divergence(Enum):
    """What keeps the outcomes that were not seen near those that were."""

    MANSKI = "Manski"
    CHI2 = "chi-squared"
    KL = "Kullback-Leibler"
    HELLINGER = "Hellinger"
    TV = "total variation"

    @property
    def power(self) -> float:
        """Exponent p of the power mean; not for total variation."""
        return {"Manski": 1.0, "chi-squared": 0.5, "Kullback-Leibler": 0.0, "Hellinger": -1.0}[
            self.value
        ]


@dataclass(frozen=True, slots=True, eq=False)
class GreatestMean:
    """The greatest mean over all units that a divergence allows.

    Attributes
    ----------
    value
        The mean.
    slope_e
        Its derivative with respect to the share e.
    influence
        (m,) influence values of the units of the arm, from their outcomes alone.
    """

    value: float
    slope_e: float
    influence: NDArray[np.float64]


def greatest_mean(
    y: NDArray[np.float64], e: float, y_hi: float, divergence: Divergence
) -> GreatestMean:
    """Return the greatest mean of a law within the divergence that e allows from that of ``y``.

    Parameters
    ----------
    y
        (m,) outcomes of the units of the arm, none above ``y_hi``; minus them, with minus the least
        possible outcome, for the least mean.
    e
        Share of units that are in the arm, more than 0.
    y_hi
        Greatest possible outcome.
    divergence
        Which.
    """
    if divergence is Divergence.TV:
        return _by_total_variation(y, e, y_hi)
    p = divergence.power
    v = y_hi if p == 1 or e >= 1 else _best_ceiling(y, e, y_hi, p)
    mean, slope = _power_mean(v - y, p)
    return GreatestMean(v - e * mean, -mean, -e * slope)


def _best_ceiling(y: NDArray[np.float64], e: float, y_hi: float, p: float) -> float:
    """Minimise the convex v - e M_p(v - y) over v ≥ y_hi."""
    spread = max(y_hi - float(y.min()), 1e-12)

    def excess(log_v: float) -> float:
        v = y_hi + spread * (np.expm1(log_v))
        return float(v - e * _power_mean(v - y, p)[0])

    found = optimize.minimize_scalar(
        excess, bounds=(0.0, 20.0), method="bounded", options={"xatol": 1e-10}
    )
    best = float(found.x) if found.fun < excess(0.0) else 0.0
    return float(y_hi + spread * np.expm1(best))


def _power_mean(gap: NDArray[np.float64], p: float) -> tuple[float, NDArray[np.float64]]:
    """Return M_p of non-negative numbers and the influence of each on it."""
    m = len(gap)
    if p <= 0 and (gap <= 0).any():
        return 0.0, np.zeros(m)
    powered = np.log(gap) if p == 0 else gap**p
    middle = float(powered.mean())
    mean = float(np.exp(middle)) if p == 0 else middle ** (1 / p)
    if p != 0 and middle == 0:
        return 0.0, np.zeros(m)
    rate = mean if p == 0 else mean / (p * middle)
    return mean, rate * (powered - middle) / m


def _by_total_variation(y: NDArray[np.float64], e: float, y_hi: float) -> GreatestMean:
    """Move the lowest share 1 - e of the outcomes to the greatest possible one."""
    cut = float(np.quantile(y, 1 - e, method="inverted_cdf")) if e < 1 else float(y.min())
    above = np.maximum(y - cut, 0.0)
    kept = e * cut + float(above.mean())
    return GreatestMean((1 - e) * y_hi + kept, cut - y_hi, (above - above.mean()) / len(y))
