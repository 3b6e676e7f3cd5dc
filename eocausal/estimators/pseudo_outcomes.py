"""Outcomes that stand for measured ones where few were measured, and how these few pull on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["leverage_of", "pseudo_outcome"]

MOST = 0.9
"""Leverages above it count as it: the arm's mean is that of one unit, whatever is divided."""


def pseudo_outcome(
    prediction: NDArray[np.float64],
    measured: NDArray[np.float64],
    labelled: NDArray[np.bool_],
    probability: NDArray[np.float64],
    arm: NDArray[np.int64],
    weights: NDArray[np.float64],
    power: float,
    own: NDArray[np.float64] | float | None = None,
    leverage: NDArray[np.float64] | float = 0.0,
) -> NDArray[np.float64]:
    """Return (n,) outcomes of all units whose means are those of the measured outcome.

    g + 1{labelled}(measured - g)/probability, where g = power · prediction + a constant of the arm
    such that the labelled units' measured - g has the weighted mean 0. With labels drawn at random
    its mean is that of the measured outcome for any power: a weighted mean of it is the labelled
    units' mean of measured - power · prediction, plus power times the mean prediction of all.

    Parameters
    ----------
    prediction, measured
        (n,); ``measured`` is not read where not labelled.
    labelled
        (n,).
    probability
        (n,) probability that the unit was labelled.
    arm
        (n,) arms.
    weights
        (n,) weights of units within arms.
    power
        How far predictions are believed: 0 not at all, 1 to the letter, more where they shrink.
    own
        (n,) power in the g of labelled units, where it was tuned on other units than these; default
        that of all.
    leverage
        (n,) of labelled units; their measured - g is divided by 1 - leverage. 0 for estimates; for
        influence values that of :func:`leverage_of`, which makes them those of deleting units.
    """
    share = np.where(labelled, 1 / probability, 0.0)
    rest = np.where(labelled, measured, 0.0) - (power if own is None else own) * prediction
    level = np.zeros(len(arm))
    for k in np.unique(arm):
        mine = (arm == k) & labelled
        w = weights[mine] * share[mine]
        level[arm == k] = (w @ rest[mine]) / w.sum()
    off = np.where(labelled, rest - level, 0.0) / (1 - leverage)
    return np.asarray(power * prediction + level + share * off)


def leverage_of(
    prediction: NDArray[np.float64],
    labelled: NDArray[np.bool_],
    arm: NDArray[np.int64],
    weights: NDArray[np.float64],
    *,
    tuned: bool,
) -> NDArray[np.float64]:
    """Return (n,) leverages of labelled units in the weighted mean of their arm, 0 for others.

    With few labels and uneven weights a unit pulls its arm's constant to itself, and squares of
    what is left are too small; divided by 1 - leverage they are those of the jackknife (HC3,
    MacKinnon & White 1985, Journal of Econometrics 29:305).

    Parameters
    ----------
    tuned
        Whether the power was estimated too, which is one more coefficient.
    """
    rows = np.flatnonzero(labelled)
    columns = (arm[rows, None] == np.unique(arm)).astype(float)
    if tuned:
        columns = np.column_stack([columns, prediction[rows] - prediction[rows].mean()])
    left, size, _ = np.linalg.svd(np.sqrt(weights[rows])[:, None] * columns, full_matrices=False)
    out = np.zeros(len(arm))
    out[rows] = np.minimum((left[:, size > size[0] * 1e-10] ** 2).sum(axis=1), MOST)
    return out
