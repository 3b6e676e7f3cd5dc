"""What is left of quadratic forms once columns are projected out, for every set of columns.

The Schur complement of the last rows of a symmetric matrix, with some of the others eliminated and
the rest left out; sets that begin alike share what they begin with.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["subset_remainders"]

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
