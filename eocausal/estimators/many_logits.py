"""Many ridge-penalised logits on the same columns, fitted together.

All fits (units left out, penalties) go down together: a pass over the data is two matrix products
for all of them, and on principal columns the diagonal of the Hessian is close to the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eocausal.estimators.descent import minimise_together

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.penalties import Cells

__all__ = ["ManyLogits", "log_losses", "principal_columns", "probabilities"]

BLOCK = 2048
EXACT = 1e-16
"""Mean squared error of a logit, weighted by its information, at which a fit is done."""
ROUGH = 1e-7
"""The same for fits that are only compared with each other."""


def principal_columns(x: NDArray[np.float64], order: NDArray[np.int64]) -> NDArray[np.float64]:
    """Rotate columns to their principal axes, behind a column of ones.

    A ridge penalty does not change under rotation. More columns than units become as many as units.

    Parameters
    ----------
    x
        (n, q) columns with mean 0.
    order
        (n,) order in which rows are returned.

    Returns
    -------
    (n, 1 + min(n, q))
    """
    n = len(x)
    if x.shape[1] > n:
        x = np.asarray(np.linalg.qr(x.T, mode="r")).T
    axes = np.linalg.eigh(x.T @ x)[1]
    out = np.empty((n, x.shape[1] + 1))
    out[:, 0] = 1.0
    for begin in range(0, n, BLOCK):
        out[begin : begin + BLOCK, 1:] = x[order[begin : begin + BLOCK]] @ axes
    return out


def probabilities(eta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n, K) probabilities of the arms.

    Parameters
    ----------
    eta
        (n, C) logits: that of arm 1 against arm 0 where C = 1, else one of each of C = K arms.
    """
    if eta.shape[1] == 1:
        eta = np.concatenate([np.zeros_like(eta), eta], axis=1)
    out = np.exp(eta - eta.max(axis=1, keepdims=True))
    return np.asarray(out / out.sum(axis=1, keepdims=True))


def log_losses(
    eta: NDArray[np.floating], arm: NDArray[np.int64]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return the log loss of each unit and its derivative by the logits.

    Parameters
    ----------
    eta
        (n, C, F) logits of F fits, C as in :func:`probabilities`.
    arm
        (n,) arms.

    Returns
    -------
    (n, F) losses, and (n, C, F) derivatives.
    """
    if eta.shape[1] == 1:
        sign = (2 * arm - 1).astype(eta.dtype)[:, None]
        wrong = -sign * eta[:, 0]
        rest = np.exp(-np.abs(wrong))
        loss = np.maximum(wrong, 0) + np.log1p(rest)
        slope = np.where(wrong > 0, sign, sign * rest) / (1 + rest)
        return loss, -slope[:, None]
    own = (arm[:, None] == np.arange(eta.shape[1]))[:, :, None]
    top = eta.max(axis=1, keepdims=True)
    slope = np.exp(eta - top)
    total = slope.sum(axis=1, keepdims=True)
    loss = (np.log(total) + top)[:, 0] - (eta * own).sum(axis=1)
    return loss, slope / total - own


@dataclass(frozen=True, slots=True, eq=False)
class ManyLogits:
    """Logits on the units of each of several fits.

    Attributes
    ----------
    z
        (n, D) columns, a column of ones first, the units of each cell in a row; in single
        precision fits are rough.
    arm
        (n,) arms in the same order.
    cells
        Which units each of F fits uses.
    share
        (C, F) shares of the arms in each fit, none of them 0.
    square
        (D, F) sums of squares of the columns in each fit.
    """

    z: NDArray[np.floating]
    arm: NDArray[np.int64]
    cells: Cells
    share: NDArray[np.float64]
    square: NDArray[np.float64]

    @classmethod
    def of(cls, z: NDArray[np.floating], arm: NDArray[np.int64], cells: Cells) -> ManyLogits:
        """Sum up what each fit begins with."""
        parts = _slices(cells)
        train = cells.train.astype(float)
        count = np.stack([np.bincount(arm[part], minlength=arm.max() + 1) for part in parts])
        # Half a unit more in each arm: an inner fit may have none of a rare one.
        share = count.T @ train + 0.5
        share /= share.sum(axis=0)
        square = np.stack([np.einsum("nd,nd->d", z[part], z[part]) for part in parts])
        return cls(z, arm, cells, share[1:] if len(share) == 2 else share, square.T @ train)

    def fit(
        self, fits: NDArray[np.int64], penalties: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Fit each with a penalty of its own.

        Parameters
        ----------
        fits
            (F',) numbers of fits, which may repeat.
        penalties
            (F',) penalties.

        Returns
        -------
        (D, C, F') coefficients, the intercept first, and (F',) whether they converged.
        """
        n, d = self.z.shape
        share = self.share[:, fits]
        start = np.zeros((d, *share.shape))
        start[0] = np.log(share / (1 - share)) if len(share) == 1 else np.log(share)
        ridge = np.broadcast_to(penalties, start.shape).copy()
        ridge[0] = 0.0
        metric = 1 / (share * (1 - share) * self.square[:, None, fits] + ridge)

        def evaluate(
            at: NDArray[np.float64], which: NDArray[np.int64]
        ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            theta = at.reshape(d, -1, len(which))
            loss, slope = self.evaluate(theta, fits[which])
            pull = ridge[:, :, which] * theta
            loss += (pull * theta).sum(axis=(0, 1)) / 2
            return loss, (slope + pull).reshape(at.shape)

        single = self.z.dtype == np.float32
        theta, reached = minimise_together(
            evaluate,
            start.reshape(-1, len(fits)),
            metric.reshape(-1, len(fits)),
            tolerance=n * (ROUGH if single else EXACT),
            rounding=4 * float(np.finfo(self.z.dtype).eps),
        )
        return theta.reshape(start.shape), reached

    def evaluate(
        self, theta: NDArray[np.float64], fits: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (F',) log losses of fits at (D, C, F') coefficients, and their derivatives."""
        d, c, _ = theta.shape
        loss, slope = np.zeros(theta.shape[2]), np.zeros(theta.shape)
        for cell, part in enumerate(_slices(self.cells)):
            used = self.cells.train[cell, fits]
            at = theta[:, :, used].astype(self.z.dtype).reshape(d, -1)
            part_loss, part_slope = np.zeros(int(used.sum())), np.zeros(at.shape)
            for block in _blocks(part):
                z = self.z[block]
                one, residual = log_losses((z @ at).reshape(len(z), c, -1), self.arm[block])
                part_loss += one.sum(axis=0, dtype=float)
                part_slope += z.T @ residual.reshape(len(z), -1)
            loss[used] += part_loss
            slope[:, :, used] += part_slope.reshape(d, c, -1)
        return loss, slope

    def loss(self, penalties: NDArray[np.float64], folds: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (folds, penalties) log losses on held-out units; infinite without convergence."""
        tasks = self.cells.inner(folds)
        theta, reached = self.fit(
            np.repeat(tasks, len(penalties)), np.tile(penalties, len(tasks))
        )  # fmt: skip
        d, c, _ = theta.shape
        shape = (len(tasks), len(penalties))
        by_task = np.moveaxis(theta.reshape(d, c, *shape), 2, 0).astype(self.z.dtype)
        wrong = np.where(reached, 0.0, np.inf).reshape(shape)
        out = np.zeros((len(folds), len(penalties)))
        for part, scored in zip(_slices(self.cells), self.cells.scored[:, folds], strict=True):
            for task in np.unique(scored[scored >= 0]):
                i = int(np.searchsorted(tasks, task))
                total = wrong[i].copy()
                for block in _blocks(part):
                    z = self.z[block]
                    eta = (z @ by_task[i].reshape(d, -1)).reshape(len(z), c, -1)
                    total += log_losses(eta, self.arm[block])[0].sum(axis=0, dtype=float)
                out[scored == task] += total
        return out


def _slices(cells: Cells) -> list[slice]:
    ends = np.cumsum([len(rows) for rows in cells.rows])
    return [
        slice(int(end) - len(rows), int(end)) for rows, end in zip(cells.rows, ends, strict=True)
    ]


def _blocks(part: slice) -> list[slice]:
    return [
        slice(begin, min(begin + BLOCK, part.stop)) for begin in range(part.start, part.stop, BLOCK)
    ]
