"""Weighting by the inverse probability of the own arm, weights normalised within arms.

Lunceford & Davidian (2004, Statistics in Medicine 23:2937); several arms and overlap weights: Li &
Li (2019, Annals of Applied Statistics 13:2389). Formulas: METHODS D1, D2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eocausal.errors import EstimationError
from eocausal.estimators.arm_means import ArmMeans, Estimand

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["balancing_weights", "hajek_means", "weighted_means"]


def hajek_means(
    y: NDArray[np.float64],
    arm: NDArray[np.int64],
    propensity: NDArray[np.float64],
    estimand: Estimand,
    *,
    design: NDArray[np.float64] | None = None,
) -> ArmMeans:
    """Average outcomes within arms with weights h/e of the own arm.

    h is 1 (ATE), the probability of treatment (ATT, two arms) or (Σ_k 1/e_k)⁻¹ (ATO; e(1 - e) for
    two arms).

    Parameters
    ----------
    y
        (n,) outcomes.
    arm
        (n,) arms 0..K-1, each of which occurs.
    propensity
        (n, K) probabilities of the arms.
    estimand
        Population of the means.
    design
        (n, q) columns, with the intercept, of the unpenalised (multinomial) logit whose maximum
        likelihood fit on these units gave the probabilities. The influence values then account
        for its estimation (Stefanski & Boos 2002). None: probabilities are taken as given, which
        for the ATE errs on the side of caution.

    Returns
    -------
    ArmMeans

    Raises
    ------
    EstimationError
        For the ATT of several treatments, which is a population for each of them.
    """
    weights, slopes = balancing_weights(arm, propensity, estimand)
    score = bread = None
    if design is not None:
        axes = np.asarray(np.linalg.qr(design)[0])
        score, bread = _likelihood(arm, propensity, axes)
        slopes = _outer(weights[:, None] * slopes, axes)
    return weighted_means(y, arm, weights, slopes, score, bread)


def balancing_weights(
    arm: NDArray[np.int64], propensity: NDArray[np.float64], estimand: Estimand
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (n,) weights h/e of the own arm and the (n, K-1) derivatives of their logarithms.

    The derivatives are by the logits of arms 1..K-1 against arm 0 (METHODS D2).

    Raises
    ------
    EstimationError
        For the ATT with more than two arms.
    """
    n, arms = propensity.shape
    own = propensity[np.arange(n), arm]
    indicator = (arm[:, None] == np.arange(1, arms)).astype(float)
    slopes = propensity[:, 1:] - indicator
    if estimand is Estimand.ATE:
        return 1 / own, slopes
    if estimand is Estimand.ATO:
        tilt = 1 / (1 / propensity).sum(axis=1)
        return tilt / own, tilt[:, None] / propensity[:, 1:] - indicator
    if arms > 2:
        raise EstimationError(
            f"The ATT is asked for with {arms} arms.",
            cause="Each treatment has treated units of its own, hence a population of its own.",
            next_step="Use the ATE or the ATO, or compare the treatments with none one by one.",
        )
    return propensity[:, 1] / own, 1 - indicator


def weighted_means(
    y: NDArray[np.float64],
    arm: NDArray[np.int64],
    weights: NDArray[np.float64],
    slopes: NDArray[np.float64] | None = None,
    score: NDArray[np.float64] | None = None,
    bread: NDArray[np.float64] | None = None,
) -> ArmMeans:
    """Average outcomes within arms, weights being estimated or given.

    Parameters
    ----------
    y, arm
        (n,) outcomes and arms.
    weights
        (n,) weights within the own arm.
    slopes
        (n, m) derivatives of the weights by the m parameters of the model they come from.
    score
        (n, m) contributions to the model's estimating equations; their sum is 0. None: the
        weights are taken as given.
    bread
        (m, m) minus the derivative of that sum: parameters err by ``inv(bread) @ score.sum(0)``.
    """
    arms = int(arm.max()) + 1
    value, psi = np.zeros(arms), np.zeros((len(y), arms))
    pull = np.zeros((0 if slopes is None or score is None else slopes.shape[1], arms))
    for k in range(arms):
        mine = arm == k
        w = weights[mine]
        total = float(w.sum())
        value[k] = w @ y[mine] / total
        left = y[mine] - value[k]
        psi[mine, k] = w * left / total
        if slopes is not None and score is not None:
            pull[:, k] = left @ slopes[mine] / total
    if score is not None and bread is not None:
        psi += score @ np.linalg.solve(bread, pull)
    return ArmMeans(value, psi, weights)


def _likelihood(
    arm: NDArray[np.int64], propensity: NDArray[np.float64], z: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the scores (n, (K-1)q) of the multinomial logit and its information."""
    p = propensity[:, 1:]
    indicator = arm[:, None] == np.arange(1, propensity.shape[1])
    return _outer(indicator - p, z), information(p, z)


def information(p: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ((K-1)q, (K-1)q) information of the multinomial logit, an arm after the other.

    Parameters
    ----------
    p
        (n, K-1) probabilities of arms 1..K-1.
    z
        (n, q) columns.
    """
    m, q = p.shape[1], z.shape[1]
    out = np.empty((m, q, m, q))
    for j in range(m):
        for k in range(j + 1):
            bend = p[:, j] * ((j == k) - p[:, k])
            out[j, :, k] = z.T @ (bend[:, None] * z)
            out[k, :, j] = out[j, :, k].T
    return out.reshape(m * q, m * q)


def _outer(left: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n, m·q) products of (n, m) and (n, q) rows."""
    return (left[:, :, None] * z[:, None, :]).reshape(len(z), -1)
