"""Inverses of all wanted principal submatrices at once, by sweeping.

Sweeping a column of a symmetric matrix adds it to the set that is inverted, so that every set
costs one sweep of the set without its last column (Goodnight 1979, The American Statistician
33:149). Many matrices are swept together.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["subset_inverses"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


def subset_inverses(matrices: Float64, included: Bool) -> tuple[Float64, Float64]:
    """Invert the principal submatrices of the columns in each set.

    Parameters
    ----------
    matrices
        (..., k, k) symmetric, positive definite.
    included
        (sets, k) True where a column is in the set.

    Returns
    -------
    (..., sets, k, k) inverses, zero in rows and columns left out, and (..., sets) their log
    determinants before inversion; zero for an empty set.
    """
    size = matrices.shape[-1]
    count = math.prod(matrices.shape[:-2])
    columns_first = np.moveaxis(matrices.reshape(count, size, size), 0, -1)
    done: dict[tuple[int, ...], tuple[Float64, Float64]] = {(): (columns_first, np.zeros(count))}
    inverse = np.zeros((len(included), size, size, count))
    log_det = np.zeros((len(included), count))
    for at, members in enumerate(included):
        chosen = tuple(int(i) for i in np.flatnonzero(members))
        swept, log_det[at] = _swept(chosen, done)
        np.multiply(swept, -1.0 * (members[:, None] & members)[..., None], out=inverse[at])
    shape = matrices.shape[:-2]
    return (
        np.moveaxis(inverse, -1, 0).reshape(*shape, len(included), size, size),
        log_det.T.reshape(*shape, len(included)),
    )


def _swept(
    chosen: tuple[int, ...], done: dict[tuple[int, ...], tuple[Float64, Float64]]
) -> tuple[Float64, Float64]:
    if chosen not in done:
        parent, log_det = _swept(chosen[:-1], done)
        at = chosen[-1]
        pivot = parent[at, at]
        row = parent[at] / pivot
        swept = parent - parent[:, at, None] * row
        swept[at] = row
        swept[:, at] = row
        swept[at, at] = -1.0 / pivot
        done[chosen] = swept, log_det + np.log(pivot)
    return done[chosen]
