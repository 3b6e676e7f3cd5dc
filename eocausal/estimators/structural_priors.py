"""What is believed about a structural time series before the data: ours, and CausalImpact's.

Both are for series scaled to mean zero and standard deviation one over the times before the event.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from eocausal.errors import EstimationError
from eocausal.estimators.level_grid import GridPrior, RegressorSets
from eocausal.estimators.level_spectrum import Residual

__all__ = ["CompatiblePrior", "LearnedPrior", "enumerated_sets", "information_matrix"]

Float64 = NDArray[np.float64]
MOST_SELECTED = 9
PHI = (-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.87, 0.93, 0.97)
STEPS = (0.03, 0.045, 0.06, 0.08, 0.1, 0.13, 0.17, 0.23, 0.32, 0.5, 0.8, 1.3)


@dataclass(frozen=True, slots=True)
class CompatiblePrior:
    """The priors of R's CausalImpact 1.4.1 with bsts 0.9.10 (METHODS.md section 5).

    Attributes
    ----------
    level_sd
        Guess of the standard deviation of the level's steps, worth 32 observations.
    """

    level_sd: float = 0.01

    def grid(self, *, regressors: bool) -> GridPrior:
        """Return the prior on the grid.

        The level's variance is IG(16, 16 level_sd^2) below one; that of the residual is
        IG(0.005, 0.005), or IG(25, 5) with regressors, below 1.44. The level starts from
        N(first value, 1). The variance of the residual is given up to its ratio to that of the
        start, see :mod:`level_grid`.
        """
        log_q = np.arange(math.log(0.002), math.log(30.0), 0.1)
        q = np.exp(log_q)
        shape, scale = (25.0, 5.0) if regressors else (0.005, 0.005)
        scales = scale + 16.0 * self.level_sd**2 / q[None] ** 2
        bound = np.minimum(1.44, 1.0 / q[None] ** 2)
        return GridPrior((Residual(),), q, -32.0 * log_q[None], shape + 16.0, scales, 1.0, bound)


@dataclass(frozen=True, slots=True)
class LearnedPrior:
    """Ours: autocorrelation and the walk of the level are learned from the series.

    The level stays where it is, or takes steps whose sd over that of the residual, q, has a
    two-piece normal density of log q. The odds that it stays are ``even`` / n for n times before
    the event: the longer a record, the less likely that nothing drifts. The autocorrelation phi of
    the residual is uniform if the level stays, with ``negative`` times the density below zero: a
    residual that is independent in time is then not at an edge of what is believed, where intervals
    come out too wide. If the level walks, phi falls off as exp(-|phi| / decay) down to ``rest``: a
    walk and some autocorrelation look alike, and the simpler is believed. Level, line and season
    have flat priors, the variance of the residual 1/s^2.

    The numbers were chosen by coverage and width of the 95 % interval of the average effect over
    truths that do not come from this prior: ``benchmarks/interval_calibration.py`` reprints what
    they were chosen by, ``benchmarks/impact_coverage.py`` what they give. A level that walks slowly
    can barely be told from one that stays, so that the interval is a little wide where it stays and
    a little narrow where it walks slowly.

    Attributes
    ----------
    even
        Times before the event at which a level is as likely to walk as to stay.
    step
        Most probable q of a level that walks.
    below, above
        Standard deviations of log q on either side of it.
    decay
        Scale on which phi falls off beside a walk.
    rest
        What the density of phi falls off to beside a walk, over that at zero.
    negative
        Density of phi below zero over that above where the level stays.
    """

    even: float = 850.0
    step: float = 0.07
    below: float = 0.3
    above: float = 0.55
    decay: float = 0.05
    rest: float = 0.03
    negative: float = 7.0

    def still(self, count: int) -> float:
        """Return the probability that the level stays, for ``count`` times before the event."""
        return self.even / (self.even + count)

    def density(self, phi: Float64, *, walks: bool) -> Float64:
        """Return the density of phi up to a constant, beside a level that walks or stays."""
        if walks:
            return np.asarray(np.exp(-np.abs(phi) / self.decay) + self.rest)
        return np.where(phi < 0.0, self.negative, 1.0)

    def grid(self, count: int) -> GridPrior:
        """Return the prior on the grid, for ``count`` times before the event."""
        phi, q = np.array(PHI), np.array([0.0, *STEPS])
        wide = np.gradient(phi)
        stays, beside = (wide * self.density(phi, walks=walks) for walks in (False, True))
        far = np.log(q[1:] / self.step)
        density = -0.5 * (far / np.where(far < 0, self.below, self.above)) ** 2
        slab = np.exp(density - density.max()) * np.gradient(np.log(q[1:]))
        still = self.still(count)
        walks = (1.0 - still) * np.outer(beside / beside.sum(), slab / slab.sum())
        weight = np.column_stack([still * stays / stays.sum(), walks])
        residuals = tuple(Residual(float(p)) for p in phi)
        free = np.full_like(weight, math.inf)
        return GridPrior(residuals, q, np.log(weight), 0.0, np.zeros_like(weight), math.inf, free)


def information_matrix(columns: Float64) -> Float64:
    """Return the prior precision of coefficients: one hundredth of an observation's information.

    Half the off-diagonal is shrunk away: 0.01 (X'X + diag X'X) / 2n over all rows of ``columns``
    (n, k), as the spike-and-slab prior of bsts.
    """
    gram = columns.T @ columns / len(columns)
    return np.asarray(0.005 * (gram + np.diag(np.diagonal(gram))))


def enumerated_sets(always: int, precision: Float64, share: float) -> RegressorSets:
    """Return every set of columns, the first ``always`` in all of them.

    Parameters
    ----------
    always
        Number of columns that are never left out.
    precision
        (k, k) prior precision of all columns, times s^2.
    share
        Prior probability that a column is in the model; at one nothing is selected.

    Raises
    ------
    EstimationError
        If there are more than nine columns to choose among.
    """
    count = len(precision) - always
    if share >= 1.0 or not count:
        return RegressorSets(np.ones((1, len(precision)), bool), np.zeros(1), precision)
    if count > MOST_SELECTED:
        raise EstimationError(
            f"{count} columns to select from.",
            cause=f"All {2**count} sets of them would have to be weighed.",
            next_step=f"Keep the {MOST_SELECTED - 1} controls that fit best before the event.",
        )
    chosen = np.array(list(product([False, True], repeat=count)))
    included = np.column_stack([np.ones((len(chosen), always), bool), chosen])
    log_prior = np.where(chosen, math.log(share), math.log1p(-share)).sum(1)
    return RegressorSets(included, log_prior, precision)
