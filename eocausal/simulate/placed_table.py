"""Treatments placed by what a table says, with the truth for every population: a world for weights.

The effect grows with a confounder, so that the averages over all units, over the treated and over
those who could be in either arm differ, and an estimator of one is no estimator of another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eocausal.errors import DesignError

__all__ = ["COVARIATES", "PlacedTableConfig", "simulate_placed_table"]

Float64 = NDArray[np.float64]
COVARIATES = ("x1", "x2", "x3")
NODES = 30


@dataclass(frozen=True, slots=True)
class PlacedTableConfig:
    """Decisions behind the world.

    x1, x2, x3 ~ N(0, 1). The log odds of arm k against none are ``confounding`` times a direction:
    (x1 + x2/2), (x2/2 + x3) for arms 1 and 2, standardised. The outcome is
    x1 + (x2 + x3)/2 + k (effect + heterogeneity x1) + error of standard deviation 1.

    Attributes
    ----------
    n
        Units.
    arms
        2 or 3; 0 is none.
    cluster
        Units per cluster. With more than one, x1 is that of the cluster, the cluster is treated
        as a whole according to x1, and its units share a part of the error.
    confounding
        How strongly placement follows the columns.
    effect, heterogeneity
        Of arm 1 at x1 = 0, and its rise with x1.
    shared
        Share of the variance of the error that units of a cluster have in common.

    Raises
    ------
    DesignError
        If the numbers make no world.
    """

    n: int = 1000
    arms: int = 2
    cluster: int = 1
    confounding: float = 0.8
    effect: float = 1.0
    heterogeneity: float = 0.5
    shared: float = 0.3

    def __post_init__(self) -> None:
        whole = self.cluster >= 1 and self.n >= 2 * self.cluster and self.n % self.cluster == 0
        if not whole or self.arms not in (2, 3) or not 0 <= self.shared <= 1:
            raise DesignError(
                f"{self.n} units in clusters of {self.cluster}, {self.arms} arms, "
                f"shared={self.shared}.",
                cause="Whole clusters, two or three arms and a share of variance are needed.",
                next_step="Use PlacedTableConfig(n=1000) and change one number at a time.",
            )

    def probabilities(self, x: Float64) -> Float64:
        """Return (n, K) probabilities of the arms of units with columns (n, 3)."""
        one, two = (x[:, 0] + x[:, 1] / 2) / math.sqrt(1.25), (x[:, 1] / 2 + x[:, 2])
        if self.cluster > 1:
            one, two = x[:, 0], -x[:, 0] * math.sqrt(1.25)
        logits = [np.zeros(len(x)), one, two / math.sqrt(1.25)][: self.arms]
        e = np.exp(self.confounding * np.stack(logits, axis=1))
        return np.asarray(e / e.sum(axis=1, keepdims=True))

    def truth(self, estimand: str, arm: int = 1) -> float:
        """Return the effect of an arm against none for a population, by quadrature.

        Parameters
        ----------
        estimand
            ATE, ATT (of arm 1 with two arms) or ATO.
        """
        at, weight = np.polynomial.hermite_e.hermegauss(NODES)
        x = np.stack(np.meshgrid(at, at, at, indexing="ij"), axis=-1).reshape(-1, 3)
        mass = np.einsum("i,j,k->ijk", weight, weight, weight).reshape(-1)
        e = self.probabilities(x)
        if estimand == "ATT":
            mass = mass * e[:, 1]
        elif estimand == "ATO":
            mass = mass / (1 / e).sum(axis=1)
        tau = arm * (self.effect + self.heterogeneity * x[:, 0])
        return float(mass @ tau / mass.sum())


def simulate_placed_table(config: PlacedTableConfig, rng: np.random.Generator) -> pd.DataFrame:
    """Draw the table.

    Parameters
    ----------
    config
        The world.
    rng
        Source of every draw.

    Returns
    -------
    pandas.DataFrame
        ``arm`` (none, a, b), ``outcome``, ``x1`` to ``x3``, ``cluster``.
    """
    groups = config.n // config.cluster
    cluster = np.repeat(np.arange(groups), config.cluster)
    x = rng.standard_normal((config.n, 3))
    x[:, 0] = rng.standard_normal(groups)[cluster]
    e = config.probabilities(x)
    drawn = rng.random(groups)[cluster]
    arm = (drawn[:, None] > np.cumsum(e, axis=1)).sum(axis=1)
    error = math.sqrt(1 - config.shared) * rng.standard_normal(config.n)
    error += math.sqrt(config.shared) * rng.standard_normal(groups)[cluster]
    effect = arm * (config.effect + config.heterogeneity * x[:, 0])
    outcome = x[:, 0] + (x[:, 1] + x[:, 2]) / 2 + effect + error
    return pd.DataFrame(
        {
            "arm": np.array(["none", "a", "b"], dtype=object)[arm],
            "outcome": outcome,
            **dict(zip(COVARIATES, x.T, strict=True)),
            "cluster": cluster,
        },
        index=pd.RangeIndex(config.n, name="unit"),
    )
