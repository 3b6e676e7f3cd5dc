"""Ridge equations solved for several penalties."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import lapack

from eocausal.errors import EstimationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ridge_path"]

FEW = 5
PANEL = 64


def ridge_path(
    square: NDArray[np.float64], cross: NDArray[np.float64], penalties: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Solve (S + λI)β = c for several λ.

    A few are solved by Cholesky's method one by one. For more, S is made tridiagonal once by
    reflections (Eldén 1977, BIT 17:134; Golub & Van Loan 2013, §8.3), which leave λI as it is; a
    further λ then takes no more than two products with the reflections.

    Parameters
    ----------
    square
        (q, q) symmetric positive semidefinite S.
    cross
        (q,) c.
    penalties
        (L,) positive λ.

    Returns
    -------
    (q, L) solutions.

    Raises
    ------
    EstimationError
        If a matrix is not positive definite in double precision.
    """
    if len(cross) == 0:
        return np.zeros((0, len(penalties)))
    if len(penalties) <= FEW or len(cross) < 3:
        return _one_by_one(square, cross, penalties)
    return _tridiagonal(square, cross, penalties)


def _one_by_one(
    square: NDArray[np.float64], cross: NDArray[np.float64], penalties: NDArray[np.float64]
) -> NDArray[np.float64]:
    q = len(cross)
    out = np.empty((q, len(penalties)))
    work = np.empty((q, q), order="F")
    for i, penalty in enumerate(penalties):
        work[:] = square.T
        work.ravel(order="K")[:: q + 1] += penalty
        factor, info = lapack.dpotrf(work, lower=1, overwrite_a=1, clean=0)
        if info:
            raise _too_weak(float(penalty), q)
        out[:, i] = lapack.dpotrs(factor, cross, lower=1)[0]
    return out


def _tridiagonal(
    square: NDArray[np.float64], cross: NDArray[np.float64], penalties: NDArray[np.float64]
) -> NDArray[np.float64]:
    q = len(cross)
    room = int(lapack.dsytrd_lwork(q, lower=1)[0])
    work, diagonal, beside, scale, _ = lapack.dsytrd(
        np.array(square.T, order="F"), lower=1, lwork=room, overwrite_a=1
    )
    mirrors = np.asfortranarray(work[1:, :-1])
    turned = cross.copy()
    turned[1:] = lapack.dormqr("L", "T", mirrors, scale, cross[1:, None], PANEL * q)[0][:, 0]
    out = np.empty((q, len(penalties)), order="F")
    for i, penalty in enumerate(penalties):
        *_, solution, info = lapack.dptsv(diagonal + penalty, beside, turned)
        if info:
            raise _too_weak(float(penalty), q)
        out[:, i] = solution
    out[1:] = lapack.dormqr("L", "N", mirrors, scale, out[1:], PANEL * q)[0]
    return out


def _too_weak(penalty: float, columns: int) -> EstimationError:
    return EstimationError(
        f"A ridge regression with penalty {penalty:g} has no solution in double precision.",
        cause=f"The penalty is too weak for {columns} columns that depend on each other.",
        next_step="Use a stronger penalty.",
    )
