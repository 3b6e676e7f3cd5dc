"""Which columns are in a regression: flips of indicators by the evidence.

Coefficients b of the columns in the model are N(0, s^2 W^-1), W the prior's precision of those
columns, and integrate out (George & McCulloch 1997; bsts visits every indicator in random order):

    log p(y | in) = 1/2 log|W / s^2| - 1/2 log|P| + 1/2 g' P^-1 g,   P = Z'Z + W / s^2,

all taken of the columns in the model, Z'Z and g = Z'y as other effects have left them; with the
prior 1/s^2 the last part is -n/2 log(y'y - g' P^-1 g) instead, s^2 integrated out. Besides
flips a column in the model may change places with one outside, as controls that are alike do.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

__all__ = ["choose_columns", "log_evidence"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


def choose_columns(
    included: Bool,
    gram: Float64,
    signal: Float64,
    prior: Float64,
    share: float,
    rng: np.random.Generator,
    *,
    total: float = 0.0,
    freedom: int = 0,
) -> Bool:
    """Visit every indicator once, and try one exchange.

    Parameters
    ----------
    included
        (k,) the columns in the model so far.
    gram, signal
        (k, k) Z'Z and (k,) Z'y, in units of the residual's variance.
    prior
        (k, k) prior precision of all coefficients, in the same units.
    share
        Prior probability of each column, below one.
    total, freedom
        y'y and n, if s^2 is to be integrated out and the other arguments are for s = 1.
    """

    def evidence(columns: Bool) -> float:
        return log_evidence(columns, gram, signal, prior, total=total, freedom=freedom)

    chosen = included.copy()
    odds = math.log(share) - math.log1p(-share)
    now = evidence(chosen)
    uniform = rng.random(len(chosen) + 3)
    for number, at in enumerate(rng.permutation(len(chosen))):
        chosen[at] ^= True
        other = evidence(chosen)
        gain = other - now + (odds if chosen[at] else -odds)
        if uniform[number] < _logistic(gain):
            now = other
        else:
            chosen[at] ^= True
    inside, outside = np.flatnonzero(chosen), np.flatnonzero(~chosen)
    if inside.size and outside.size:
        pair = [inside[int(uniform[-3] * len(inside))], outside[int(uniform[-2] * len(outside))]]
        chosen[pair] ^= True
        gain = evidence(chosen) - now
        if math.log(max(uniform[-1], 1e-300)) >= gain:
            chosen[pair] ^= True
    return chosen


def log_evidence(
    included: Bool,
    gram: Float64,
    signal: Float64,
    prior: Float64,
    *,
    total: float = 0.0,
    freedom: int = 0,
) -> float:
    """Return the log density of the data given the columns in the model, up to a constant.

    The arguments are those of :func:`choose_columns`.
    """
    explained, log_ratio = 0.0, 0.0
    if included.any():
        own = prior[included][:, included]
        inner, broken = lapack.dpotrf(own, lower=1)
        root, failed = lapack.dpotrf(gram[included][:, included] + own, lower=1)
        if broken or failed:
            return -math.inf
        half = lapack.dtrtrs(root, signal[included], lower=1)[0]
        explained = float(half @ half)
        log_ratio = float(np.log(np.diagonal(inner) / np.diagonal(root)).sum())
    if freedom:
        return log_ratio - 0.5 * freedom * math.log(max(total - explained, 1e-300))
    return log_ratio + 0.5 * explained


def _logistic(gain: float) -> float:
    return 1.0 / (1.0 + math.exp(-gain)) if gain > -700 else 0.0
