"""Weights chosen so that the means of the confounders agree between arms.

Entropy balancing (Hainmueller 2012, Political Analysis 20:25) takes the weights of least
divergence that do so, the covariate balancing propensity score (Imai & Ratkovic 2014, JRSS B
76:243) those of a logistic model. Formulas: METHODS D3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eocausal.contracts import some
from eocausal.errors import EstimationError, OverlapError
from eocausal.estimators.arm_means import ArmMeans, Estimand
from eocausal.estimators.design_columns import design_columns, independent_columns
from eocausal.estimators.hajek import balancing_weights, weighted_means
from eocausal.estimators.many_logits import probabilities
from eocausal.estimators.newton import minimise

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["balance_by_cbps", "balance_by_entropy"]

EXACT = 1e-6
"""Difference of means, in standard deviations, up to which balance counts as exact."""


def balance_by_entropy(
    y: NDArray[np.float64],
    arm: NDArray[np.int64],
    x: NDArray[np.float64],
    estimand: Estimand,
    *,
    ridge: float = 0.0,
    names: Sequence[str] | None = None,
) -> ArmMeans:
    """Average outcomes with the weights of least divergence that balance means of columns.

    The weights of an arm are w = exp(-λᵀz), z the columns less the target in standard deviations,
    where λ minimises log Σ w + ridge/2 ‖λ‖². The target is the mean of all units (ATE), or of the
    treated (ATT), who then all weigh 1. Influence values account for the estimation of weights and
    of the target; with it they are those of the just-identified CBPS for the ATT.

    Parameters
    ----------
    y
        (n,) outcomes.
    arm
        (n,) arms 0..K-1.
    x
        (n, p) columns; constant and dependent ones are left out.
    estimand
        ATE, or for two arms ATT.
    ridge
        0: exact balance. More gives up exact balance for less uneven weights: the mean of column j
        differs from the target by ridge · λⱼ standard deviations. It serves many image features,
        whose means no weights could balance exactly.
    names
        (p,) names of the columns, for messages.

    Returns
    -------
    ArmMeans
        With a note saying the largest difference left where balance is approximate.

    Raises
    ------
    OverlapError
        If no positive weights balance the columns.
    EstimationError
        For the ATO, or the ATT of several treatments.
    """
    arms = int(arm.max()) + 1
    _refuse_estimand(estimand, arms, ridge)
    z, names = _standardised(x, names, independent=ridge == 0)
    people = np.ones(len(y), dtype=bool) if estimand is Estimand.ATE else arm == 1
    z = z - z[people].mean(axis=0)
    value, psi, weights = np.zeros(arms), np.zeros((len(y), arms)), np.ones(len(y))
    worst: list[tuple[float, str]] = []
    for k in range(arms):
        mine = arm == k
        if estimand is Estimand.ATT and k == 1:
            value[k] = y[mine].mean()
            psi[mine, k] = (y[mine] - value[k]) / mine.sum()
            continue
        tilt = _tilt(z, mine, ridge, names)
        weights[mine] = tilt.weights
        value[k], psi[:, k] = tilt.mean(y, mine, people)
        worst.append(tilt.worst(names))
    note = ""
    if ridge > 0 and z.shape[1]:
        gap, name = max(worst)
        note = (
            f"Balance is approximate (ridge {ridge:g}): the largest difference of means left is "
            f"{gap:.2g} standard deviations ({name})."
        )
    return ArmMeans(value, psi, weights, note)


@dataclass(frozen=True, slots=True, eq=False)
class _Tilt:
    """Weights of the units of one arm.

    Attributes
    ----------
    z
        (n, q) columns less the target, those independent within the arm first used.
    used
        Columns that have a λ.
    tilt
        λ of these.
    weights
        (m,) weights of the arm's units, with mean 1.
    left
        (q,) weighted means that remain.
    """

    z: NDArray[np.float64]
    used: NDArray[np.int64]
    tilt: NDArray[np.float64]
    ridge: float
    weights: NDArray[np.float64]
    left: NDArray[np.float64]

    def worst(self, names: Sequence[str]) -> tuple[float, str]:
        if len(self.left) == 0:
            return 0.0, ""
        at = int(np.abs(self.left).argmax())
        return float(abs(self.left[at])), names[at]

    def mean(
        self, y: NDArray[np.float64], mine: NDArray[np.bool_], people: NDArray[np.bool_]
    ) -> tuple[float, NDArray[np.float64]]:
        """Return the weighted mean of the outcome and (n,) influence values."""
        total = float(self.weights.sum())
        mean = float(self.weights @ y[mine]) / total
        psi = np.zeros(len(y))
        psi[mine] = self.weights * (y[mine] - mean)
        if len(self.used):
            z = self.z[:, self.used]
            here = z[mine]
            weighted = self.weights[:, None] * here
            pull = self.ridge * self.tilt
            bend = weighted.T @ here
            bend += total * (self.ridge * np.eye(len(pull)) - np.outer(pull, pull))
            along = np.linalg.solve(bend, weighted.T @ (y[mine] - mean))
            psi[mine] -= self.weights * ((here - pull) @ along)
            psi[people] += total / people.sum() * (z[people] @ along)
        return mean, psi / total


def _tilt(
    z: NDArray[np.float64], mine: NDArray[np.bool_], ridge: float, names: Sequence[str]
) -> _Tilt:
    """Find the weights of one arm.

    Raises
    ------
    OverlapError
        If no weights balance all columns.
    """
    here = z[mine]
    count = len(here)
    used = np.arange(z.shape[1])
    turn = np.eye(z.shape[1])
    if ridge == 0:
        used = independent_columns(np.column_stack([np.ones(count), here]))[1:] - 1
        turn = np.linalg.qr(here[:, used] - here[:, used].mean(axis=0), mode="r") / np.sqrt(count)
    # In these columns the Hessian is the identity at equal weights.
    axes = np.linalg.solve(turn.T, here[:, used].T).T
    penalty = ridge * np.eye(len(used))

    def shares(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        eta = -(axes @ at)
        top = float(eta.max())
        w = np.exp(eta - top)
        return top + float(np.log(w.sum())), w / w.sum()

    def value(at: NDArray[np.float64]) -> float:
        return shares(at)[0] + float(at @ penalty @ at) / 2

    def derivatives(
        at: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        share = shares(at)[1]
        mean = share @ axes
        bend = (axes * share[:, None]).T @ axes - np.outer(mean, mean)
        return penalty @ at - mean, bend + penalty

    found = minimise(
        value, derivatives, np.zeros(len(used)), lambda step: float(np.ptp(axes @ step))
    )
    share = shares(found.at)[1]
    left = share @ here
    if not found.converged:
        raise _impossible(np.abs(np.linalg.solve(turn, found.step)), used, names, count)
    if ridge == 0 and z.shape[1] and np.abs(left).max() > EXACT:
        raise _impossible(np.abs(left), np.arange(z.shape[1]), names, count)
    tilt = np.asarray(np.linalg.solve(turn, found.at), dtype=float)
    return _Tilt(z, used, tilt, ridge, share * count, left)


def balance_by_cbps(
    y: NDArray[np.float64],
    arm: NDArray[np.int64],
    x: NDArray[np.float64],
    estimand: Estimand,
    *,
    names: Sequence[str] | None = None,
) -> ArmMeans:
    """Average outcomes with weights h/e of a logistic model whose weights balance the columns.

    As many conditions as coefficients (just-identified): Σ wA(1, x) = Σ w(1 - A)(1, x). They are
    the derivative of a convex loss (Zhao 2019, Annals of Statistics 47:965), which has one
    minimum: A(e^-η - η) + (1 - A)(e^η + η) for the ATE, (1 - A)e^η - Aη for the ATT, and the log
    loss of the logit for the ATO.

    Parameters
    ----------
    y
        (n,) outcomes.
    arm
        (n,) 0 or 1.
    x
        (n, p) columns; constant and dependent ones are left out.
    estimand
        ATE, ATT or ATO.
    names
        (p,) names of the columns, for messages.

    Raises
    ------
    OverlapError
        If no such weights balance the columns.
    EstimationError
        If there are more than two arms.
    """
    if arm.max() > 1:
        raise _two_arms("The covariate balancing propensity score")
    z, names = _standardised(x, names)
    z = np.column_stack([np.ones(len(y)), z])
    untreated = arm == 0
    used = independent_columns(z[untreated] if estimand is Estimand.ATT else z)
    axes, turn = np.linalg.qr(z[:, used])
    axes, turn = axes * np.sqrt(len(y)), turn / np.sqrt(len(y))
    treated = arm.astype(float)

    def derivatives(
        at: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        _, slope, bend = _cbps_loss(axes @ at, treated, estimand)
        return axes.T @ slope, (axes * bend[:, None]).T @ axes

    share = treated.mean()
    found = minimise(
        lambda at: float(_cbps_loss(axes @ at, treated, estimand)[0].sum()),
        derivatives,
        np.log(share / (1 - share)) * axes.mean(axis=0),
        lambda step: float(np.abs(axes @ step).max()),
    )
    if not found.converged:
        growth = np.abs(np.linalg.solve(turn, found.step))
        raise _impossible(growth[1:], used[1:] - 1, names, len(y))
    eta = axes @ found.at
    weights, slopes = balancing_weights(arm, probabilities(eta[:, None]), estimand)
    left = np.abs(_difference(z[:, 1:], weights, arm))
    if left.size and left.max() > EXACT:
        raise _impossible(left, np.arange(len(left)), names, len(y))
    _, slope, bend = _cbps_loss(eta, treated, estimand)
    return weighted_means(
        y,
        arm,
        weights,
        (weights * slopes[:, 0])[:, None] * axes,
        -slope[:, None] * axes,
        (axes * bend[:, None]).T @ axes,
    )


def _cbps_loss(
    eta: NDArray[np.float64], treated: NDArray[np.float64], estimand: Estimand
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the loss of each unit and its first and second derivatives by the logit."""
    if estimand is Estimand.ATO:
        e = probabilities(eta[:, None])[:, 1]
        return np.logaddexp(0, eta) - treated * eta, e - treated, e * (1 - e)
    if estimand is Estimand.ATT:
        odds = np.exp(np.where(treated == 1, -np.inf, eta))
        return odds - treated * eta, odds - treated, odds
    sign = 1 - 2 * treated
    odds = np.exp(sign * eta)
    return odds + sign * eta, sign * (odds + 1), odds


def _difference(
    z: NDArray[np.float64], weights: NDArray[np.float64], arm: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return (q,) weighted means of the treated minus those of the untreated."""
    one, zero = (np.where(arm == k, weights, 0.0) for k in (1, 0))
    return np.asarray(one @ z / one.sum() - zero @ z / zero.sum())


def _standardised(
    x: NDArray[np.float64], names: Sequence[str] | None, *, independent: bool = True
) -> tuple[NDArray[np.float64], list[str]]:
    """Return (n, q) columns that vary with mean 0 and standard deviation 1, and their names."""
    given = names if names is not None else [f"column {j}" for j in range(x.shape[1])]
    z, kept = design_columns(x, independent=independent)
    return z[:, 1:], [given[j] for j in kept]


def _refuse_estimand(estimand: Estimand, arms: int, ridge: float) -> None:
    if not ridge >= 0:
        raise EstimationError(
            f"A ridge of {ridge} is not a penalty.",
            cause="It says how much imbalance is accepted for less uneven weights.",
            next_step="Give 0 for exact balance, or a small number, e.g. 0.01.",
        )
    if estimand is Estimand.ATO:
        raise EstimationError(
            "Entropy balancing has no ATO.",
            cause="It needs a population whose means are the target; that of overlap weights is "
            "known only with probabilities.",
            next_step="Use Hajek(Estimand.ATO) or CBPS(Estimand.ATO).",
        )
    if estimand is Estimand.ATT and arms > 2:
        raise _two_arms("The ATT by entropy balancing")


def _two_arms(what: str) -> EstimationError:
    return EstimationError(
        f"{what} compares two arms.",
        cause="For several treatments the population differs from contrast to contrast.",
        next_step="Compare the treatments with none one by one, or use AIPW() or Hajek().",
    )


def _impossible(
    size: NDArray[np.float64], columns: NDArray[np.int64], names: Sequence[str], count: int
) -> OverlapError:
    """Name the columns whose imbalance, or whose coefficients, are the largest."""
    worst = np.argsort(-size)[: max(1, int((size > 0.25 * size.max()).sum()))]
    named = some(names[columns[j]] for j in worst)
    return OverlapError(
        f"No weights of {count:,} units balance the means of {named}.",
        cause="The target lies at or beyond the edge of what the units of an arm show, or there "
        f"are too many columns ({len(names)}) for them.",
        next_step="Leave out or merge these columns, leave out the units that have no counterpart, "
        "or accept approximate balance, e.g. EntropyBalancing(ridge=0.01).",
    )
