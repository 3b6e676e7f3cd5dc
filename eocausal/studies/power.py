"""How small an effect a trial can find, before anyone looks at effects."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.designs import Assignment

__all__ = ["ASSUMED_ICC", "MinimumDetectableEffect", "intraclass", "minimum_detectable_effect"]

ASSUMED_ICC = 0.05


def intraclass(y: NDArray[np.float64], cluster: NDArray[np.int64]) -> float:
    """Estimate the intraclass correlation by analysis of variance, between 0 and 1.

    ρ = (MSB - MSW) / (MSB + (n₀ - 1) MSW) with n₀ = (N - Σn_g²/N) / (G - 1) (Donner 1986,
    International Statistical Review 54).

    Parameters
    ----------
    y
        (n,) outcome.
    cluster
        (n,) codes 0..G-1.
    """
    size = np.bincount(cluster).astype(float)
    n, g = float(len(y)), len(size)
    if g < 2 or n <= g:
        return 0.0
    mean = np.bincount(cluster, y) / size
    between = float((size * (mean - y.mean()) ** 2).sum()) / (g - 1)
    within = float(((y - mean[cluster]) ** 2).sum()) / (n - g)
    n0 = (n - float((size**2).sum()) / n) / (g - 1)
    total = between + (n0 - 1) * within
    return float(np.clip((between - within) / total, 0.0, 1.0)) if total > 0 else 0.0


@dataclass(frozen=True, slots=True)
class MinimumDetectableEffect:
    """The smallest effect found with probability ``power``.

    ``value`` and ``std_error`` are in units of the outcome, or in its standard deviations where
    ``sd`` is None (no outcome yet; then ``icc`` is assumed).
    """

    value: float
    std_error: float
    sd: float | None
    icc: float
    design_effect: float
    n: int
    n_clusters: int
    share_treated: float
    power: float
    level: float

    def record(self) -> dict[str, Any]:
        """Return it as a record of ``estimates.json``."""
        return {
            "estimand": "minimum detectable effect",
            "method": f"blinded, {self.power:.0%} power",
            "estimate": self.value,
            "std_error": self.std_error,
            "ci_low": math.nan,
            "ci_high": math.nan,
            "p_value": math.nan,
            "n": self.n,
            "level": self.level,
            "icc": self.icc,
            "design_effect": self.design_effect,
            "n_clusters": self.n_clusters,
        }

    def summary(self) -> str:
        """Say it in a sentence."""
        unit = "standard deviations of the outcome" if self.sd is None else "units of the outcome"
        relative = "" if not self.sd else f" ({self.value / self.sd:.3g} standard deviations)"
        clustered = (
            f", {self.n_clusters:,} clusters, intraclass correlation {self.icc:.3g}"
            f"{' (assumed)' if self.sd is None else ''}, design effect {self.design_effect:.3g}"
            if self.n_clusters < self.n
            else ""
        )
        return (
            f"With {self.n:,} units ({self.share_treated:.0%} treated{clustered}) an effect of "
            f"{self.value:.3g} {unit}{relative} is found with {self.power:.0%} probability at the "
            f"{100 * (1 - self.level):g}% level."
        )


def minimum_detectable_effect(
    assignment: Assignment,
    outcome: NDArray[np.float64] | None,
    *,
    power: float = 0.8,
    level: float = 0.95,
    assumed_icc: float = ASSUMED_ICC,
) -> MinimumDetectableEffect:
    """Compute the minimum detectable effect of the difference in means.

    MDE = (t_{1-α/2} + t_{power}) SE (Bloom 1995, Evaluation Review 19; Duflo, Glennerster &
    Kremer 2007, eq. 12), with SE² = σ² D mean(1/(p(1-p)))/n and the design effect of clusters of
    unequal size D = 1 + ((1 + cv²) m̄ - 1) ρ (Eldridge, Ashby & Kerry 2006, International Journal
    of Epidemiology 35). t has G - 2 degrees of freedom. It is blinded: σ² and ρ are those of all
    outcomes together, whatever their arm, so that the effect itself makes them a little too large
    and the result cautious; what blocks and covariates would gain is not counted.

    Parameters
    ----------
    assignment
        The trial's probabilities and clusters.
    outcome
        (n,) outcomes, or None if they are not known yet: the result is then in standard
        deviations, with ``assumed_icc``.
    """
    n, g = len(assignment.treated), assignment.n_clusters
    size = np.bincount(assignment.cluster).astype(float)
    if outcome is None:
        sd, rho = None, assumed_icc if g < n else 0.0
    else:
        sd, rho = float(outcome.std(ddof=1)), intraclass(outcome, assignment.cluster)
    spread = 1 + (size.std() / size.mean()) ** 2
    design_effect = 1 + (spread * float(size.mean()) - 1) * rho
    p = assignment.propensity
    information = float((1 / (p * (1 - p))).mean()) / n
    error = (1.0 if sd is None else sd) * math.sqrt(information * design_effect)
    df = max(1, g - 2)
    factor = float(stats.t.ppf(0.5 + level / 2, df) + stats.t.ppf(power, df))
    share = float(assignment.treated.mean())
    return MinimumDetectableEffect(
        factor * error, error, sd, rho, design_effect, n, g, share, power, level
    )
