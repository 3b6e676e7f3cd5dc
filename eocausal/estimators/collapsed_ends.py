"""What the states at the last time learned from share with the values, for draws after it.

What the states become without further shocks is, from time n - 1 on, a combination c of what unit
starting values become. These matrices do not depend on data or on the variances' ratios.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from eocausal.estimators.collapsed_bands import Layout
from eocausal.estimators.collapsed_spread import starts_of

__all__ = ["Edge", "End", "edge_of", "end_of"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class End:
    """What the states at time n - 1 share with those before, for shocks of variance one.

    Attributes
    ----------
    basis
        (T - n + 1, m) what a unit of each element of c becomes from time n - 1 on.
    inverse
        (m, m) turns m values without shocks, from time n - 1 on, into c.
    shared
        (parts + 1, m, n) covariances of c and values, by part, the last from starts.
    variance
        (parts + 1, m, m) covariances of c.
    """

    basis: Float64
    inverse: Float64
    shared: Float64
    variance: Float64


@dataclass(frozen=True, slots=True, eq=False)
class Edge:
    """The same from the values near time n - 1 alone, where D leaves nothing of those before.

    With F the m values without shocks from time n on, u = B y + C F shares something with the last
    w of D y only: the conditional law of u given y needs the corner of L and L^-1 D y there.

    Attributes
    ----------
    turn
        (m, m) turns u - B y into c.
    past
        (m, n) B.
    shared
        (parts + 2, w, m) covariances of the last of D y and u, by part, then starts and residual.
    variance
        (parts + 2, m, m) covariances of u.
    """

    turn: Float64
    past: Float64
    shared: Float64
    variance: Float64


@lru_cache(maxsize=8)
def edge_of(layout: Layout, n: int, polynomial: bytes) -> Edge:
    """Return the matrices of the last values; ``polynomial`` holds the numbers of D."""
    parts, m = layout.parts, sum(map(len, layout.start_vars))
    shared = np.frombuffer(polynomial)
    w, times = len(shared) - 1, n + m
    lagged = lfilter(shared, [1.0], np.eye(times), axis=0)
    responses = [[h[:, : n - 1] for h in part.responses(times)] for part in parts]
    responses.append([np.concatenate(starts_of(replace(layout, times=times, variance=b"")), 1)])
    responses.append([np.eye(times, n) * np.sqrt(layout.variances()[:n])])
    near, variance = np.zeros((len(responses), w, m)), np.zeros((len(responses), m, m))
    for at, kinds in enumerate(responses):
        for response in kinds:
            own = lagged @ response
            near[at] += own[n - w : n] @ own[n:].T
            variance[at] += own[n:] @ own[n:].T
    ahead = np.concatenate([part.starts(m + 1) for part in parts], 1)[1:]
    turn = np.linalg.pinv(ahead) @ np.linalg.inv(lagged[n:, n:])
    return Edge(turn, lagged[n:, :n], near, variance)


@lru_cache(maxsize=8)
def end_of(layout: Layout, n: int) -> End:
    """Return the matrices of a layout of which the first n times are learned from."""
    parts, m = layout.parts, sum(map(len, layout.start_vars))
    ahead = np.concatenate([part.starts(max(m, layout.times - n + 1)) for part in parts], 1)
    inverse = np.linalg.pinv(ahead[:m])
    later = slice(n - 1, n - 1 + m)
    responses = [[h[:, : n - 1] for h in part.responses(n - 1 + m)] for part in parts]
    responses.append([np.concatenate(starts_of(replace(layout, times=n - 1 + m, variance=b"")), 1)])
    shared, variance = np.zeros((len(responses), m, n)), np.zeros((len(responses), m, m))
    for at, kinds in enumerate(responses):
        for response in kinds:
            end = inverse @ response[later]
            shared[at] += end @ response[:n].T
            variance[at] += end @ end.T
    return End(ahead[: layout.times - n + 1], inverse, shared, variance)
