"""The best two breaks beside coefficients that do not change, over all pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.breaks_scan import Scan

    Float64 = NDArray[np.float64]

__all__ = ["best_pairs"]

CHUNK = 512


def best_pairs(look: Scan, y: Float64, shortest: int) -> NDArray[np.int64]:
    """Return (N, 2) the two breaks that lower the sum of squares of each series most.

    With loadings b_k of a series on the basis of candidate k and M_lk the products of two bases,
    the pair lowers it by |b_k|² + |L⁻¹(b_l - M_lk b_k)|² with L L' = I - M_lk M_lk'.

    Parameters
    ----------
    look
        Candidates beside the model without breaks.
    y
        (N, n) series.
    shortest
        Fewest observations between the two.
    """
    count, q, n = look.basis.shape
    flat = look.basis.reshape(count * q, n)
    loadings = np.ascontiguousarray((look.residuals(y) @ flat.T).T).reshape(count, q, len(y))
    single = (loadings**2).sum(1)
    best = np.full(len(y), -1.0)
    pair = np.zeros((len(y), 2), dtype=np.int64)
    for k in range(count):
        first = int(np.searchsorted(look.at, look.at[k] + shortest))
        if first == count:
            break
        overlap = (flat[first * q :] @ flat[k * q : (k + 1) * q].T).reshape(-1, q, q)
        inverse = np.linalg.inv(
            np.linalg.cholesky(np.eye(q) - overlap @ overlap.transpose(0, 2, 1))
        )
        turned = inverse @ overlap
        for a in range(0, len(y), CHUNK):
            at = slice(a, a + CHUNK)
            _keep_best(
                best[at], pair[at], k, first, single[k, at],
                inverse, turned, loadings[first:, :, at], loadings[k, :, at],
            )  # fmt: skip
    return look.at[pair]


def _keep_best(
    best: Float64,
    pair: NDArray[np.int64],
    k: int,
    first: int,
    single: Float64,
    inverse: Float64,
    turned: Float64,
    second: Float64,
    own: Float64,
) -> None:
    more = inverse * second if len(own) == 1 else inverse @ second
    more -= turned * own if len(own) == 1 else turned @ own
    np.multiply(more, more, out=more)
    gain = more.sum(axis=1)
    winner = gain.argmax(axis=0)
    total = single + gain[winner, np.arange(len(winner))]
    better = total > best
    best[better] = total[better]
    pair[better, 0], pair[better, 1] = k, first + winner[better]
