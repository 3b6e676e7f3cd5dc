"""Columns of a design: standardised, constant and dependent ones left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["design_columns", "independent_columns"]

ALIKE = 1e-9
"""Share of a column's length outside the span of earlier ones below which it is one of them."""
CONSTANT = 1e-10


def design_columns(
    x: NDArray[np.float64], *, independent: bool = True
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return an intercept with the columns that vary, standardised, and the numbers of these.

    Parameters
    ----------
    x
        (n, p) columns.
    independent
        Whether columns that earlier ones span are left out too.

    Returns
    -------
    (n, 1 + q) design and (q,) columns of ``x``, in their order.
    """
    mean = x.mean(axis=0)
    centred = x - mean
    spread = centred.std(axis=0)
    vary = np.flatnonzero(spread > CONSTANT * (1 + np.abs(mean)))
    z = np.column_stack([np.ones(len(x)), centred[:, vary] / spread[vary]])
    kept = independent_columns(z) if independent else np.arange(z.shape[1])
    return z[:, kept], vary[kept[1:] - 1]


def independent_columns(z: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return (q,) numbers of the columns that earlier ones do not span, as R's ``lm`` keeps them.

    Columns are taken in their order: each is projected on those kept before it, twice for rounding
    (Giraud et al. 2005, Numerische Mathematik 101:87), in the triangular factor, whose columns
    depend on each other as those of ``z`` do.
    """
    r = np.asarray(np.linalg.qr(z, mode="r"))
    length = np.sqrt((r**2).sum(axis=0))
    basis = np.empty((len(r), min(r.shape)))
    kept: list[int] = []
    for j in np.flatnonzero(length > 0):
        if len(kept) == basis.shape[1]:
            break
        rest = r[:, j] / length[j]
        for _ in range(2):
            rest = rest - basis[:, : len(kept)] @ (basis[:, : len(kept)].T @ rest)
        left = float(np.sqrt(rest @ rest))
        if left > ALIKE:
            basis[:, len(kept)] = rest / left
            kept.append(int(j))
    return np.array(kept, dtype=np.int64)
