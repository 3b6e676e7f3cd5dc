"""What is left of quadratic forms once columns are projected out, for every set of columns.

The Schur complement of the last rows of a symmetric matrix, with some of the others eliminated and
the rest left out; sets that begin alike share what they begin with.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["regression_remainders", "subset_remainders"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


def subset_remainders(matrix: Float64, included: Bool) -> Iterator[tuple[int, Float64, Float64]]:
    """Yield for each set its row in ``included``, its remainder and a log determinant.

    Parameters
    ----------
    matrix
        (k + r, k + r, M) symmetric, positive definite in its first k columns, for M cases.
    included
        (sets, k) True where a column is eliminated; the others are left out.

    Yields
    ------
    Row of the set, (r, r, M) remainder and (M,) log determinant of the columns in the set.
    """
    rows = np.arange(len(included))
    yield from _walk(matrix, np.zeros(matrix.shape[-1]), included, rows)


def _walk(
    left: Float64, log_det: Float64, included: Bool, rows: NDArray[np.int64]
) -> Iterator[tuple[int, Float64, Float64]]:
    at = included.shape[1]
    if not at:
        for row in rows:
            yield int(row), left, log_det
        return
    inside = included[:, 0]
    if not inside.all():
        yield from _walk(left[1:, 1:], log_det, included[~inside][:, 1:], rows[~inside])
    if inside.any():
        ratio = left[0, 1:] / left[0, 0]
        following = left[1:, 1:] - left[1:, 0, None] * ratio
        log_det = log_det + np.log(left[0, 0])
        yield from _walk(following, log_det, included[inside][:, 1:], rows[inside])


def regression_remainders(
    gram: Float64,
    products: Float64,
    squares: Float64,
    start: Float64,
    included: Bool,
    loading: Float64 | None = None,
) -> tuple[Float64, Float64]:
    """Return what the columns in each set leave of a series, and of a sum it loads on.

    Parameters
    ----------
    gram
        (N or 1, cells, k, k) inner products of columns, prior precision included.
    products, squares
        (N, cells, k) and (N, cells) those of the series with them, and with itself.
    start
        (N,) added to the first diagonal entry.
    included
        (sets, k) columns in each set.
    loading
        (N, cells, k) what the sum loads on the columns.

    Returns
    -------
    (r, r, N, cells, sets) remainders, of series and sum, and (N, cells, sets) log determinants.
    """
    rows, cells, k = products.shape
    extra = 1 if loading is None else 2
    matrix = np.zeros((k + extra, k + extra, rows, cells))
    matrix[:k, :k] = gram.transpose(2, 3, 0, 1)
    matrix[0, 0] += start[:, None]
    matrix[k, :k] = matrix[:k, k] = products.transpose(2, 0, 1)
    matrix[k, k] = squares
    if loading is not None:
        matrix[k + 1, :k] = matrix[:k, k + 1] = loading.transpose(2, 0, 1)
    left = np.empty((extra, extra, rows, cells, len(included)))
    log_det = np.empty((rows, cells, len(included)))
    flat = matrix.reshape(*matrix.shape[:2], -1)
    for at, remainder, log_determinant in subset_remainders(flat, included):
        left[..., at] = remainder.reshape(extra, extra, rows, cells)
        log_det[..., at] = log_determinant.reshape(rows, cells)
    return left, log_det
