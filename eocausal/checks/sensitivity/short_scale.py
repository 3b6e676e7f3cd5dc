"""The scale of omitted-variable bias of a weighted effect: √(σ²ν²).

Chernozhukov, Cinelli, Newey, Sharma & Syrgkanis (2022, "Long story short: omitted variable bias in
causal machine learning", NBER 30302; METHODS D14): |bias| ≤ |ρ| √(C_Y C_D / (1 - C_D)) √(σ²ν²),
with σ² the variance of the outcome that treatment and confounders leave, and ν² the mean square of
the weights that the effect puts on outcomes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eocausal.errors import EstimationError
from eocausal.estimators.arm_means import Estimand

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.weighting import Weighted

__all__ = ["ShortScale", "short_scale"]


@dataclass(frozen=True, slots=True, eq=False)
class ShortScale:
    """σ² and ν² of an effect, each with influence values.

    Attributes
    ----------
    sigma2, nu2
        Residual variance of the outcome; mean square of the weights.
    sigma2_influence, nu2_influence
        (n,) each.
    """

    sigma2: float
    nu2: float
    sigma2_influence: NDArray[np.float64]
    nu2_influence: NDArray[np.float64]

    @property
    def value(self) -> float:
        """√(σ²ν²), in units of the outcome."""
        return math.sqrt(self.sigma2 * self.nu2)

    @property
    def influence(self) -> NDArray[np.float64]:
        """(n,) influence values of :attr:`value`."""
        relative = self.sigma2_influence / self.sigma2 + self.nu2_influence / self.nu2
        return 0.5 * self.value * relative


def short_scale(
    subject: Weighted,
    arm: int,
    propensity: NDArray[np.float64] | None,
    outcome: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> ShortScale:
    """Compute σ² and ν² for the effect of one arm against none.

    ν² is 2 E m(α) - E α² for the ATE and ATT, with m(α) the effect of treatment on the weights α
    themselves: errors of the probabilities then matter to second order only. Where weights do not
    come from probabilities, or that comes out below half of E α², it is E α² with α = ± n w / Σw.
    For the ATO it is 1 / E(A - e)².

    Parameters
    ----------
    subject
        Its arms, outcome and estimand are used.
    arm
        Number of the arm.
    propensity
        (n, K) probabilities, or None.
    outcome
        (n, K) predictions under each arm.
    weights
        (n,) weights within arms.

    Raises
    ------
    EstimationError
        If predictions leave nothing of the outcome.
    """
    data, n = subject.data, subject.data.n
    one, zero = data.arm == arm, data.arm == 0
    left = data.y - outcome[np.arange(n), data.arm]
    ato = subject.decisions.score.estimand is Estimand.ATO
    if ato and propensity is not None and len(data.arms) == 2:
        e = propensity[:, 1]
        effect = float(subject.means.value[1] - subject.means.value[0])
        left = data.y - (e * outcome[:, 1] + (1 - e) * outcome[:, 0]) - effect * (data.arm - e)
        square = (data.arm - e) ** 2
        nu2 = 1 / float(square.mean())
        nu2_psi = -(square * nu2 - 1) * nu2 / n
    else:
        nu2, nu2_psi = _nu2(subject, one, zero, propensity, weights, arm)
    error = np.where(one | zero, left**2, 0.0)
    sigma2 = float(error.mean())
    if not sigma2 > 0:
        raise EstimationError(
            "Predictions leave nothing of the outcome.",
            cause="There is no residual that something unmeasured could explain.",
            next_step="Check whether a confounder is the outcome under another name.",
        )
    return ShortScale(sigma2, nu2, (error - sigma2) / n, nu2_psi)


def _nu2(
    subject: Weighted,
    one: NDArray[np.bool_],
    zero: NDArray[np.bool_],
    propensity: NDArray[np.float64] | None,
    weights: NDArray[np.float64],
    arm: int,
) -> tuple[float, NDArray[np.float64]]:
    n, estimand = subject.data.n, subject.decisions.score.estimand
    if propensity is not None and estimand is not Estimand.ATO:
        e1, e0 = propensity[:, arm], propensity[:, 0]
        if estimand is Estimand.ATE:
            square = np.where(one, 1 / e1**2, np.where(zero, 1 / e0**2, 0.0))
            moved = 1 / e1 + 1 / e0
        else:
            share = float(one.mean())
            square = np.where(one, 1.0, (e1 / e0) ** 2) / share**2
            moved = np.where(one, 1 / e0, 0.0) / share**2
        terms = 2 * moved - square
        nu2 = float(terms.mean())
        if nu2 >= 0.5 * float(square.mean()):
            return nu2, (terms - nu2) / n
    alpha = np.zeros(n)
    for here in (one, zero):
        alpha[here] = n * weights[here] / weights[here].sum()
    nu2 = float(alpha @ alpha) / n
    return nu2, (alpha**2 - nu2) / n
