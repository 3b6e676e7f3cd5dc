"""Every set of regressors from one matrix of sums, by elimination a column at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["eliminated", "log_sum"]

Float64 = NDArray[np.float64]


def eliminated(matrix: Float64, always: int, chosen: int) -> tuple[Float64, Float64]:
    """Take out the first columns of symmetric matrices, those to choose both in and out.

    Parameters
    ----------
    matrix
        (rows, k, k), positive definite.
    always, chosen
        Numbers of columns, in this order, that are in every set and in some.

    Returns
    -------
    tuple
        (rows, 2^chosen, m, m) what the sets leave of the other columns (Schur complements), and
        (rows, 2^chosen) log determinants of the columns in the sets. Sets are ordered as
        ``itertools.product([False, True], repeat=chosen)``.
    """
    left = matrix[:, None]
    log_det: Float64 = np.zeros((len(matrix), 1))
    for at in range(always + chosen):
        pivot = left[..., 0, 0]
        row = left[..., 0, 1:]
        out = left[..., 1:, 1:]
        inside = out - row[..., :, None] * (row / pivot[..., None])[..., None, :]
        grown = log_det + np.log(pivot)
        if at < always:
            left, log_det = inside, grown
        else:
            left = np.stack([out, inside], 2).reshape(len(matrix), -1, *out.shape[-2:])
            log_det = np.stack([log_det, grown], 2).reshape(len(matrix), -1)
    return left, log_det


def log_sum(x: Float64) -> Float64:
    """Return the log of the sum of exp x over the last axis; -inf where all are."""
    top = x.max(-1)
    top = np.where(np.isneginf(top), 0.0, top)
    with np.errstate(divide="ignore"):
        return np.asarray(top + np.log(np.exp(x - top[..., None]).sum(-1)))
