"""Weights of a synthetic control: least squares over the simplex, exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import nnls

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

__all__ = ["simplex_weights"]


def simplex_weights(target: Float64, donors: Float64, ridge: float = 0.0) -> Float64:
    """Return the (N,) weights that bring donors closest to a target.

    They minimise ``mean((target - donors @ w)**2) + ridge * sum(w**2)`` over w >= 0, sum w = 1.
    As the weights sum to one, target - Dw = -(D - target 1')w =: -Cw, and the minimum of |Cw|^2
    over the simplex is v / sum v for the v >= 0 that minimises |Cv|^2 + (1'v - 1)^2: for a given
    direction w that is |Cw|^2 / (1 + |Cw|^2), which grows with |Cw|^2. So non-negative least
    squares solves it without a penalty to choose (Lawson & Hanson 1974, chapter 23).

    Parameters
    ----------
    target
        (n,) values to match.
    donors
        (n, N) what may be mixed.
    ridge
        Above zero spreads the weights; in units of the target squared.
    """
    n, count = donors.shape
    gap = (donors - target[:, None]) / np.sqrt(n)
    if ridge:
        gap = np.concatenate([gap, np.sqrt(ridge) * np.eye(count)])
    typical = float(np.sqrt((gap**2).sum(0)).min())
    gap = gap / typical if typical > 0 else gap
    found, _ = nnls(np.vstack([gap, np.ones(count)]), np.r_[np.zeros(len(gap)), 1.0])
    return np.asarray(found / found.sum())
