"""Augmented inverse-probability weighting: the effect from two models, either of which may err.

Robins, Rotnitzky & Zhao (1994, JASA 89:846); cross-fitted as in Chernozhukov et al. (2018,
Econometrics Journal 21:C1). Formulas: METHODS D4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eocausal.estimators.arm_means import ArmMeans

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["aipw_ate", "aipw_ato", "aipw_att"]


def aipw_ate(
    y: NDArray[np.float64],
    arm: NDArray[np.int64],
    propensity: NDArray[np.float64],
    outcome: NDArray[np.float64],
    *,
    normalised: bool = True,
) -> ArmMeans:
    """Average the scores m_a + 1{A=a}(Y - m_a)/e_a over all units.

    Parameters
    ----------
    y
        (n,) outcomes.
    arm
        (n,) arms 0..K-1.
    propensity
        (n, K) probabilities of the arms.
    outcome
        (n, K) predictions under each arm.
    normalised
        Divide the corrections by the sum of their weights instead of n: a few small probabilities
        then move the mean less (Hájek 1971; Robins et al. 2007, Statistical Science 22:544).

    Returns
    -------
    ArmMeans
    """
    n, k = propensity.shape
    own = arm[:, None] == np.arange(k)
    weights = np.where(own, 1 / propensity, 0.0)
    residual = np.where(own, y[:, None] - outcome, 0.0)
    total = weights.sum(axis=0) if normalised else np.full(k, float(n))
    correction = (weights * residual).sum(axis=0) / total
    level = outcome.mean(axis=0)
    centre = correction if normalised else 0.0
    psi = (outcome - level) / n + weights * (residual - centre) / total
    if not normalised:
        psi -= correction / n
    return ArmMeans(level + correction, psi, weights[np.arange(n), arm])


def aipw_att(
    y: NDArray[np.float64],
    arm: NDArray[np.int64],
    propensity: NDArray[np.float64],
    outcome: NDArray[np.float64],
    *,
    normalised: bool = True,
) -> ArmMeans:
    """Compare the treated with what the untreated say of them; two arms.

    θ = mean over the treated of (Y - m₀) minus the mean of (Y - m₀) over the untreated, weighted
    by e/(1 - e).

    Parameters
    ----------
    y, arm, propensity, outcome
        As in :func:`aipw_ate`, K = 2.
    normalised
        Divide by the sum of the weights of the untreated instead of the number of treated.
    """
    treated = arm == 1
    odds = np.where(treated, 0.0, propensity[:, 1] / propensity[:, 0])
    residual = y - outcome[:, 0]
    count = float(treated.sum())
    total = float(odds.sum()) if normalised else count
    bias = float(odds @ residual) / total
    level = float(y[treated].mean())
    one = np.where(treated, y - level, 0.0) / count
    fit = np.where(treated, outcome[:, 0], 0.0)
    mean_fit = float(fit.sum()) / count
    centre = bias if normalised else 0.0
    zero = np.where(treated, outcome[:, 0] - mean_fit, 0.0) / count
    zero += odds * (residual - centre) / total
    if not normalised:
        zero -= np.where(treated, bias, 0.0) / count
    return ArmMeans(
        np.array([mean_fit + bias, level]),
        np.stack([zero, one], axis=1),
        np.where(treated, 1.0, odds),
    )


def aipw_ato(
    y: NDArray[np.float64],
    arm: NDArray[np.int64],
    propensity: NDArray[np.float64],
    outcome: NDArray[np.float64],
) -> ArmMeans:
    """Regress what is left of the outcome on what is left of the treatment; two arms.

    Robinson (1988, Econometrica 56:931): Y - m on A - e with m = e m₁ + (1 - e) m₀. Where effects
    differ this is their average weighted by the variance of treatment, e(1 - e).

    Returns
    -------
    ArmMeans
        With the effect as the second mean and 0 as the first.
    """
    e = propensity[:, 1]
    left = y - (e * outcome[:, 1] + (1 - e) * outcome[:, 0])
    surprise = arm - e
    square = float(surprise @ surprise)
    value = float(surprise @ left) / square
    psi = surprise * (left - value * surprise) / square
    return ArmMeans(
        np.array([0.0, value]),
        np.stack([np.zeros_like(psi), psi], axis=1),
        np.abs(surprise),
    )
