"""Bounds on an effect if the odds of treatment are off by at most a factor Λ (Tan 2006)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import optimize

from eocausal.checks.base import CheckResult
from eocausal.checks.sensitivity.benchmarks import Progress, leave_out_each, outcome_predictions
from eocausal.checks.sensitivity.tilting import (
    Shift,
    doubly_robust_shift,
    quantile_balancing_shift,
    sorting_shift,
)
from eocausal.checks.sensitivity.verdicts import judge
from eocausal.effects import EffectEstimate, Influence
from eocausal.errors import EstimationError
from eocausal.estimators.arm_means import Estimand

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from eocausal.estimators.weighting import Weighted

__all__ = ["MarginalBounds", "MarginalSensitivity", "marginal_table", "odds_benchmarks"]

NAME = "Odds of treatment that are off by a factor"
MOST = 1000.0


@dataclass(frozen=True, slots=True, eq=False)
class _Arm:
    """What the bounds of one arm's mean need."""

    own: NDArray[np.bool_]
    others: NDArray[np.bool_]
    odds: NDArray[np.float64]
    basis: NDArray[np.float64]
    known: float
    code: int


@dataclass(frozen=True, slots=True, eq=False)
class MarginalBounds:
    """Bounds on the effect of one treatment against none, for any Λ.

    Make one with :meth:`of`; models are fitted there once.
    """

    subject: Weighted
    effect: EffectEstimate
    arms: tuple[_Arm, ...]
    predicted: NDArray[np.float64]

    @classmethod
    def of(cls, subject: Weighted, arm: str | None = None, *, seed: int = 0) -> MarginalBounds:
        """Fit the models of location and scale whose quantiles the bounds need.

        Outcomes are modelled as m(x) + s(x)ε: m by the outcome model of the analysis, s by the
        same model for the size of Y - m. Where they are wrong, the bounds are valid, but wider than
        need be.

        Parameters
        ----------
        subject
            An ATE or ATT by AIPW or Hájek weighting.
        arm
            Treatment that is compared with none; default the first.

        Raises
        ------
        EstimationError
            If the score has no probabilities, or the estimand is the ATO.
        """
        data, nuisances, score = subject.data, subject.nuisances, subject.decisions.score
        e = nuisances.propensity
        if e is None or score.estimand is Estimand.ATO:
            what = "overlap weights" if score.estimand is Estimand.ATO else score.name
            raise EstimationError(
                f"There are no bounds under the marginal sensitivity model for {what}.",
                cause="They need probabilities of treatment and a population that does not depend "
                "on these.",
                next_step="Estimate the ATE or the ATT with AIPW or Hajek.",
            )
        m = nuisances.outcome
        if m is None:
            m = outcome_predictions(subject, data.y, data.confounders, seed=seed)
        away = np.abs(data.y - m[np.arange(data.n), data.arm])
        spread = outcome_predictions(subject, away, data.confounders, seed=seed)
        name = arm or data.arms[1]
        effect = subject.effect(name)
        att = score.estimand is Estimand.ATT
        arms = []
        for k in (0,) if att else (data.arms.index(name), 0):
            own = data.arm == k
            others = data.arm == 1 if att else ~own
            basis = np.column_stack([np.ones(data.n), m[:, k], spread[:, k]])
            arms.append(_Arm(own, others, (1 - e[:, k]) / e[:, k], basis, 0.0 if att else 1.0, k))
        return cls(subject, effect, tuple(arms), m)

    def at(self, lam: float) -> tuple[EffectEstimate, EffectEstimate]:
        """Return the least and the greatest effect that Λ allows, with their uncertainty.

        Sharp where outcomes differ by location and scale: quantile balancing for Hájek weighting,
        and its doubly robust form for AIPW. At Λ = 1 both are the estimate.

        Raises
        ------
        EstimationError
            If Λ is less than 1.
        """
        _check(lam)
        return self._end(lam, -1.0), self._end(lam, 1.0)

    def sorted_at(self, lam: float) -> tuple[float, float]:
        """Return the wider bounds of Zhao, Small & Bhattacharya (2019), which balance nothing.

        For AIPW they are those of the residuals of the outcome model.
        """
        _check(lam)
        y = self.subject.data.y
        ends = []
        for sign in (-1.0, 1.0):
            total = 0.0
            for arm in self.arms:
                values = y - self.predicted[:, arm.code] if self._robust else y
                turned = sign * self._sign(arm) * values[arm.own]
                total += sorting_shift(turned, arm.odds[arm.own], arm.known, lam)
            ends.append(self.effect.estimate + sign * total)
        return ends[0], ends[1]

    def first(self, *, interval: bool) -> float:
        """Return the smallest Λ at which the bounds include zero; with ``interval`` their ends.

        Infinite beyond 1000, and 1 if the estimate's interval includes zero already.
        """
        sign = math.copysign(1.0, self.effect.estimate)

        def room(lam: float) -> float:
            end = self._end(lam, -sign)
            if not interval:
                return sign * end.estimate
            return sign * (end.ci_low if sign > 0 else end.ci_high)

        if room(1.0) <= 0:
            return 1.0
        high = 2.0
        while room(high) > 0:
            if high > MOST:
                return math.inf
            high *= 2
        crossing = optimize.brentq(lambda a: room(math.exp(a)), 0.0, math.log(high), xtol=1e-5)
        return math.exp(crossing)

    @property
    def _robust(self) -> bool:
        return self.subject.decisions.score.needs_outcome

    def _sign(self, arm: _Arm) -> float:
        return -1.0 if arm.code == 0 else 1.0

    def _end(self, lam: float, sign: float) -> EffectEstimate:
        value, psi = self.effect.estimate, np.zeros(self.subject.data.n)
        for arm in self.arms:
            shift = self._shift(arm, lam, sign * self._sign(arm))
            value += sign * shift.value
            psi += sign * (shift.influence + self._estimated(arm, shift))
        old = self.effect.influence
        return EffectEstimate.of(
            value,
            Influence(old.labels, old.raw + psi, old.hc2 + psi, old.df),
            estimand=f"{self.effect.estimand}, {'most' if sign > 0 else 'least'} at {lam:g}",
            method=self.effect.method, units=self.effect.units, vcov=self.effect.vcov,
            level=self.effect.level,
        )  # fmt: skip

    def _shift(self, arm: _Arm, lam: float, direction: float) -> Shift:
        y = direction * self.subject.data.y
        if self._robust:
            return doubly_robust_shift(y, arm.basis, arm.odds, arm.own, arm.others, arm.known, lam)
        return quantile_balancing_shift(y, arm.basis, arm.odds, arm.own, arm.known, lam)

    def _estimated(self, arm: _Arm, shift: Shift) -> NDArray[np.float64]:
        """Return what the estimation of a multinomial logit adds to the influence of a shift."""
        z, e = self.subject.nuisances.design, self.subject.nuisances.propensity
        if z is None or e is None or not shift.slope.any():
            return np.zeros(len(shift.influence))
        data, k = self.subject.data, e.shape[1]
        is_arm = np.arange(1, k) == arm.code
        turn = -(is_arm - e[:, 1:]) / (1 - e[:, [arm.code]])
        gradient = (z.T @ (shift.slope[:, None] * turn)).T.reshape(-1)
        blocks = [
            [(z * (e[:, i] * ((i == j) - e[:, j]))[:, None]).T @ z for j in range(1, k)]
            for i in range(1, k)
        ]
        step = np.linalg.lstsq(np.block(blocks), gradient, rcond=None)[0].reshape(k - 1, -1)
        surprise = (data.arm[:, None] == np.arange(1, k)) - e[:, 1:]
        return np.asarray((surprise * (z @ step.T)).sum(axis=1))


def odds_benchmarks(
    subject: Weighted,
    arm: str | None = None,
    names: Sequence[str] | None = None,
    *,
    share: float = 0.1,
    seed: int = 0,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Say by which factor the odds of treatment change when a measured confounder is left out.

    Parameters
    ----------
    share
        The factor that this share of units exceeds.

    Returns
    -------
    DataFrame
        Indexed by ``confounder``: ``factor`` (≥ 1, comparable with Λ), ``whole_image``.
    """
    data, e = subject.data, subject.nuisances.propensity
    assert e is not None
    k = data.arms.index(arm or data.arms[1])
    rows = []
    for left in leave_out_each(subject, names, seed=seed, progress=progress):
        without = left.nuisances.propensity
        assert without is not None
        change = np.abs(_logit(e[:, k]) - _logit(without[:, k]))
        factor = math.exp(float(np.quantile(change, 1 - share)))
        rows.append({"confounder": left.name, "factor": factor, "whole_image": left.whole_image})
    columns = ["confounder", "factor", "whole_image"]
    return pd.DataFrame(rows, columns=columns).set_index("confounder")


def _logit(e: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log(e) - np.log1p(-e)


def _check(lam: float) -> None:
    if not 1 <= lam < math.inf:
        raise EstimationError(
            f"Λ = {lam} is no bound on an odds ratio.",
            cause="1 means that nothing is hidden; larger values allow more.",
            next_step="Give numbers from 1 up, e.g. 1.5.",
        )


@dataclass(frozen=True, slots=True)
class MarginalSensitivity:
    """How far the odds of treatment would have to be off before an effect could be none.

    Parameters
    ----------
    factors
        Λ of the table.
    arm
        Treatment that is compared with none; default the first.
    columns
        Confounders to compare with; default all.
    share
        A confounder's factor is one that this share of units exceeds when it is left out.
    seed
        Of the models.
    progress
        Called with the number of confounders left out so far and their total.
    """

    factors: tuple[float, ...] = (1.0, 1.1, 1.25, 1.5, 2.0, 3.0)
    arm: str | None = None
    columns: tuple[str, ...] | None = None
    share: float = 0.1
    seed: int = 0
    progress: Progress | None = field(default=None, compare=False, repr=False)

    def run(self, subject: Weighted) -> CheckResult:
        """Bound the effect and compare with confounders that were measured."""
        bounds = MarginalBounds.of(subject, self.arm, seed=self.seed)
        point, interval = bounds.first(interval=False), bounds.first(interval=True)
        found = odds_benchmarks(
            subject, self.arm, self.columns, share=self.share, seed=self.seed,
            progress=self.progress,
        )  # fmt: skip
        verdict, detail = judge(
            bounds.effect, point, interval, found["factor"], found["whole_image"],
            measure=f"the factor by which it changes the odds of {self.share:.0%} of units or more",
        )  # fmt: skip
        values: dict[str, Any] = {
            "factor_estimate": point,
            "factor_interval": interval,
            "benchmarks": {str(k): float(v) for k, v in found["factor"].items()},
        }
        return CheckResult(
            NAME, verdict, _claim(bounds.effect, point, interval), detail,
            marginal_table(bounds, self.factors), values,
        )  # fmt: skip


def marginal_table(bounds: MarginalBounds, factors: Sequence[float]) -> pd.DataFrame:
    """Bound the effect for several Λ.

    Returns
    -------
    DataFrame
        A row per Λ: ``factor``; ``low``, ``high``, the bounds; ``ci_low``, ``ci_high``, their outer
        ends with the sampling error; ``sorted_low``, ``sorted_high``, the bounds that balance
        nothing.
    """
    rows = []
    for lam in factors:
        low, high = bounds.at(lam)
        wide = bounds.sorted_at(lam)
        rows.append({
            "factor": lam, "low": low.estimate, "high": high.estimate, "ci_low": low.ci_low,
            "ci_high": high.ci_high, "sorted_low": wide[0], "sorted_high": wide[1],
        })  # fmt: skip
    return pd.DataFrame(rows)


def _claim(effect: EffectEstimate, point: float, interval: float) -> str:
    if effect.ci_low <= 0 <= effect.ci_high:
        return (
            f"The interval includes zero without anything hidden; odds of treatment off by a "
            f"factor of {point:.2f} could make the estimate zero."
        )
    return (
        f"The interval excludes zero unless something hidden changes the odds of treatment by a "
        f"factor of {interval:.2f}, and the estimate unless by {point:.2f}."
    )
