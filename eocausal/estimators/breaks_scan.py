"""One more break at each time it could lie: how much it takes off the sum of squares.

The columns that may change are added once more from the candidate time on. What is left of them
beside the columns already there has an orthonormal basis that does not depend on the series, so
that all candidates of all series are one matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from eocausal.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

__all__ = ["Scan", "candidates", "regimes", "scan"]

DEPENDENT = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """Candidate breaks beside a model that is already there.

    Attributes
    ----------
    at
        (K,) first observation of the new regime.
    basis
        (K, q, n) orthonormal rows: the columns that change at each candidate.
    base
        (n, p) orthonormal columns of the model without the new break.
    """

    at: NDArray[np.int64]
    basis: Float64
    base: Float64

    @property
    def free(self) -> int:
        """Observations less coefficients, the new break's included."""
        return int(self.base.shape[0] - self.base.shape[1] - self.basis.shape[1])

    def residuals(self, y: Float64) -> Float64:
        """Return (..., n) what the model without the new break leaves of ``y``."""
        return np.asarray(y - (y @ self.base) @ self.base.T)

    def reductions(self, residuals: Float64) -> Float64:
        """Return (..., K) how far each candidate lowers the sum of squared residuals."""
        count, q, n = self.basis.shape
        loadings = residuals @ self.basis.reshape(count * q, n).T
        return np.asarray((loadings**2).reshape(*loadings.shape[:-1], count, q).sum(-1))

    def after(self, residuals: Float64, best: NDArray[np.int64]) -> Float64:
        """Return (N, n) residuals once each series has its break at candidate ``best`` (N,)."""
        basis = self.basis[best]
        loadings = np.einsum("Nqn,Nn->Nq", basis, residuals)
        return np.asarray(residuals - np.einsum("Nq,Nqn->Nn", loadings, basis))

    def statistics(self, residuals: Float64, reductions: Float64) -> Float64:
        """Return (..., K) F statistics times q: reduction over the variance that it leaves."""
        total = (residuals**2).sum(-1)[..., None]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(reductions / np.maximum(total - reductions, 0.0) * self.free)


def candidates(n: int, shortest: int, given: Sequence[int] = ()) -> NDArray[np.int64]:
    """Return the starts of a new regime that leave ``shortest`` observations on either side.

    Parameters
    ----------
    given
        Breaks that are there already.
    """
    edges = [0, *sorted(given), n]
    spans = [np.arange(a + shortest, b - shortest + 1) for a, b in pairwise(edges)]
    return np.concatenate(spans).astype(np.int64)


def regimes(columns: Float64, breaks: Sequence[int]) -> Float64:
    """Return (n, q (m + 1)) columns with a coefficient of its own in each regime."""
    edges = [0, *breaks, len(columns)]
    out = np.zeros((len(columns), len(edges) - 1, columns.shape[1]))
    for number, (a, b) in enumerate(pairwise(edges)):
        out[a:b, number] = columns[a:b]
    return out.reshape(len(columns), -1)


def scan(
    changing: Float64, shared: Float64, at: NDArray[np.int64], given: Sequence[int] = ()
) -> Scan:
    """Prepare the candidates ``at`` of a model with the breaks ``given``.

    Parameters
    ----------
    changing
        (n, q) columns whose coefficients change at a break.
    shared
        (n, s) columns whose coefficients do not.

    Raises
    ------
    EstimationError
        If columns are linearly dependent, over the record or beside a break.
    """
    n, q = changing.shape
    base = independent(np.concatenate([regimes(changing, given), shared], axis=1))
    ends = np.array([*sorted(given), n])
    until = ends[np.searchsorted(ends, at, side="right")]
    time = np.arange(n)
    inside = (time >= at[:, None]) & (time < until[:, None])
    moved = np.where(inside[:, :, None], changing, 0.0)
    size = np.linalg.norm(moved, axis=1)
    left = moved - base @ (base.T @ moved)
    rotation, triangle = np.linalg.qr(left)
    weak = np.abs(np.diagonal(triangle, axis1=1, axis2=2)) <= DEPENDENT * size
    if weak.any():
        raise _dependent(f"beside a break at observation {int(at[weak.any(1)][0])}")
    return Scan(at, np.ascontiguousarray(rotation.transpose(0, 2, 1)).reshape(-1, q, n), base)


def independent(columns: Float64) -> Float64:
    """Return an orthonormal basis (n, p) of p columns.

    Raises
    ------
    EstimationError
        If a column is a combination of the others.
    """
    rotation, triangle = np.linalg.qr(columns)
    size = np.linalg.norm(columns, axis=0)
    if (np.abs(np.diagonal(triangle)) <= DEPENDENT * size).any() or (size == 0).any():
        raise _dependent("over the observed times")
    return rotation


def _dependent(where: str) -> EstimationError:
    return EstimationError(
        f"A column of the model is a combination of the others {where}.",
        cause="Their coefficients cannot be told apart, so neither can a change of them.",
        next_step="Leave out a control or harmonics, or use longer segments.",
    )
