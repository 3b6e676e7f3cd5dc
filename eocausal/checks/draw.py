"""How the arms of a trial were drawn, and what other draws would have shown."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import gammaln

from eocausal.contracts import codes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.designs import Trial

__all__ = ["BalanceTest", "Draw", "log_choose"]

MIXED_SHARE = 0.9
"""If more clusters than this hold both arms, arms were not drawn by cluster."""

PROB_BINS = 10
"""Known probabilities with more values than this are put into as many bins to make strata."""

THROUGHOUT_SHARE = 0.8
"""Share of an arm's units of assignment that a pattern must reach to run through that arm."""


@dataclass(frozen=True, slots=True)
class BalanceTest:
    """The statistic of Hansen & Bowers (2008), its p-value over redraws, and its rank."""

    statistic: float
    p_value: float
    rank: int
    draws: int


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """How arms were drawn: units of assignment, their arms and their strata.

    Attributes
    ----------
    treated
        (n,) arm of each row.
    unit
        (n,) codes 0..G-1 of the unit of assignment of each row.
    arm
        (G,) arm of each unit of assignment.
    stratum
        (G,) stratum within which arms were drawn.
    clean
        Whether a cluster was named and every cluster is in one arm.
    prob
        (G,) known probability of treatment where it takes too many values to be a stratum; then
        arms are redrawn one by one, and ``stratum`` holds bins of it.
    """

    treated: NDArray[np.bool_]
    unit: NDArray[np.int64]
    arm: NDArray[np.bool_]
    stratum: NDArray[np.int64]
    clean: bool
    prob: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, units: pd.DataFrame, trial: Trial) -> Draw:
        """Read the draw from a trial.

        A cluster that holds both arms was not the unit of assignment; then each arm's part of it
        counts as one unit. If nearly all clusters do, arms were drawn within clusters and each
        row is a unit.
        """
        a = trial.assignment(units)
        treated = a.treated == 1
        share = np.bincount(a.cluster, a.treated) / np.bincount(a.cluster)
        mixed = float(((share > 0) & (share < 1)).mean())
        clean = trial.cluster is not None and mixed == 0
        if mixed > MIXED_SHARE:
            unit = np.arange(len(treated))
        else:
            unit = np.unique(2 * a.cluster + treated, return_inverse=True)[1].astype(np.int64)
        first = np.unique(unit, return_index=True)[1]
        stratum, binned = _strata(units.iloc[first], trial)
        prob = a.propensity[first] if binned else None
        return cls(treated, unit, treated[first], stratum, clean, prob)

    @property
    def n_units(self) -> int:
        """Number of units of assignment."""
        return len(self.arm)

    def log_chance(self, implied: NDArray[np.bool_]) -> float:
        """Log probability that all units of assignment in these rows have the arms they have."""
        which = np.zeros(self.n_units, dtype=bool)
        which[self.unit[implied]] = True
        n = int(self.stratum.max()) + 1
        size, ones = np.bincount(self.stratum), np.bincount(self.stratum, self.arm)
        m = np.bincount(self.stratum[which], minlength=n)
        m1 = np.bincount(self.stratum[which], self.arm[which], minlength=n)
        return float(np.sum(log_choose(size - m, ones - m1) - log_choose(size, ones)))

    def throughout(self, implied: NDArray[np.bool_], code: NDArray[np.int64]) -> bool:
        """Whether these rows reach nearly all units of an arm, and codes vary within those."""
        reached = np.unique(self.unit[implied])
        if reached.size in (0, len(self.treated)):
            return False
        enough = [
            (self.arm[reached] == arm).sum() >= THROUGHOUT_SHARE * (self.arm == arm).sum()
            for arm in (False, True)
        ]
        low = np.full(self.n_units, np.iinfo(np.int64).max)
        high = np.full(self.n_units, np.iinfo(np.int64).min)
        np.minimum.at(low, self.unit, code)
        np.maximum.at(high, self.unit, code)
        return any(enough) and bool((low[reached] < high[reached]).mean() >= 0.5)

    def redraw(self, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Draw (G,) arms anew: permuted within strata, or by their known probabilities."""
        if self.prob is not None:
            return np.asarray(rng.random(self.n_units) < self.prob)
        if self.stratum.max() == 0:
            return rng.permutation(self.arm)
        order = np.lexsort((rng.random(self.n_units), self.stratum))
        arm = np.empty_like(self.arm)
        arm[order] = self.arm[np.argsort(self.stratum, kind="stable")]
        return arm

    def balance_test(self, values: NDArray[np.float64], *, draws: int, seed: int) -> BalanceTest:
        """Test that columns of values are unrelated to the arms, by redrawing the arms.

        The statistic is d² = D' V⁻ D, where D holds the differences between the totals of the
        treated units of assignment and their expectation over draws, and V their covariance over
        draws (Hansen & Bowers 2008, Statistical Science 23:219).

        Parameters
        ----------
        values
            (n, K) finite values, one row per unit.
        draws
            Number of redraws; the p-value is at least 1/(draws + 1).
        seed
            Seed of the redraws.
        """
        centred = values - values.mean(axis=0)
        scale = np.abs(centred).max(axis=0, initial=0.0)
        varies = scale > 1e-12 * np.abs(values).max(axis=0, initial=0.0)
        centred = centred[:, varies] / scale[varies]
        if centred.shape[1] == 0:
            return BalanceTest(0.0, 1.0, 0, draws)
        totals = np.zeros((self.n_units, centred.shape[1]))
        np.add.at(totals, self.unit, centred)
        expected, root = self._moments(totals)
        rank = root.shape[1]
        if rank == 0:
            return BalanceTest(0.0, 1.0, 0, draws)
        projected = totals @ root
        middle = expected @ root

        def statistic(arm: NDArray[np.bool_]) -> float:
            return float(np.sum((arm @ projected - middle) ** 2))

        rng = np.random.default_rng(seed)
        observed = statistic(self.arm)
        more = sum(statistic(self.redraw(rng)) >= observed * (1 - 1e-9) for _ in range(draws))
        return BalanceTest(observed, (1 + more) / (1 + draws), rank, draws)

    def _moments(
        self, totals: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the expectation of the treated totals over draws, and R with R R' = V⁻."""
        size = np.bincount(self.stratum)
        share = (np.bincount(self.stratum, self.arm) / size)[self.stratum]
        within, weight = totals, share * (1 - share)
        if self.prob is not None:
            share = self.prob
            weight = share * (1 - share)
        else:
            mean = np.stack([np.bincount(self.stratum, t) / size for t in totals.T], axis=1)
            within = totals - mean[self.stratum]
            weight = weight * (size / np.maximum(size - 1, 1))[self.stratum]
        value, vector = np.linalg.eigh((within * weight[:, None]).T @ within)
        keep = value > 1e-10 * max(float(value.max()), np.finfo(float).tiny)
        return share @ totals, vector[:, keep] / np.sqrt(value[keep])

    def log_values(self, seen: NDArray[np.bool_]) -> float:
        """Log of how many values can be the only one of an arm in these rows, times two arms."""
        arm = self.arm[np.unique(self.unit[seen])]
        smaller = max(1, min(int(arm.sum()), int((~arm).sum())))
        return math.log(2 * (len(arm) // smaller))


def _strata(first: pd.DataFrame, trial: Trial) -> tuple[NDArray[np.int64], bool]:
    """Stratum of each unit of assignment (block and probability), and whether bins were needed."""
    stratum = np.zeros(len(first), dtype=np.int64)
    binned = False
    if trial.block is not None:
        stratum = codes(first[trial.block], trial.block)
    if isinstance(trial.prob, str):
        prob = pd.to_numeric(first[trial.prob]).round(9)
        value = pd.factorize(prob, sort=True)[0]
        binned = int(value.max()) >= PROB_BINS
        if binned:
            value = (prob.rank() * PROB_BINS / (len(prob) + 1)).to_numpy().astype(np.int64)
        stratum = stratum * (int(value.max()) + 1) + value
    return np.unique(stratum, return_inverse=True)[1].astype(np.int64), binned


def log_choose(n: Any, k: Any) -> Any:
    """Log of the binomial coefficient, for numbers or arrays."""
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
