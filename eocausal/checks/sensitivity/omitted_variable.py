"""Bounds on a weighted effect if a confounder was omitted, by how much it explains."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from eocausal.checks.base import CheckResult
from eocausal.checks.sensitivity.benchmarks import (
    LeftOut,
    Progress,
    leave_out_each,
    outcome_predictions,
)
from eocausal.checks.sensitivity.linear_bias import robustness_value
from eocausal.checks.sensitivity.short_scale import ShortScale, short_scale
from eocausal.checks.sensitivity.verdicts import judge
from eocausal.effects import EffectEstimate, Influence
from eocausal.errors import EstimationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eocausal.estimators.weighting import Weighted

__all__ = ["OmittedVariable", "OmittedVariableBounds", "confounding_strength", "omitted_benchmarks"]

NAME = "Omitted variable"


def confounding_strength(c_outcome: float, c_treatment: float, rho: float = 1.0) -> float:
    """Return |ρ| √(C_Y C_D / (1 - C_D)), the bias in units of √(σ²ν²).

    Parameters
    ----------
    c_outcome
        Share of the outcome's residual variance that the omitted variable explains, 0 to 1.
    c_treatment
        Share of the mean square of the true weights that the variable adds, 0 to less than 1.
    rho
        Correlation of what it adds to the outcome with what it adds to the weights; 1 is the worst.

    Raises
    ------
    EstimationError
        If a number is outside of its range.
    """
    if not (0 <= c_outcome <= 1 and 0 <= c_treatment < 1 and abs(rho) <= 1):
        raise EstimationError(
            f"C_Y = {c_outcome}, C_D = {c_treatment}, ρ = {rho} are no shares and correlation.",
            cause="Shares lie between 0 and 1, that of treatment below 1, the correlation between "
            "-1 and 1.",
            next_step="Correct them.",
        )
    return abs(rho) * math.sqrt(c_outcome * c_treatment / (1 - c_treatment))


@dataclass(frozen=True, slots=True, eq=False)
class OmittedVariableBounds:
    """Bounds on the effect of one treatment against none, for an omitted variable of any strength.

    Make one with :meth:`of`.
    """

    subject: Weighted
    effect: EffectEstimate
    scale: ShortScale
    arm: int

    @classmethod
    def of(
        cls, subject: Weighted, arm: str | None = None, *, seed: int = 0
    ) -> OmittedVariableBounds:
        """Compute the scale of the bias; outcomes are predicted if the score did not need them.

        Raises
        ------
        EstimationError
            If there is no such arm.
        """
        name = arm or subject.data.arms[1]
        effect = subject.effect(name)
        outcome = subject.nuisances.outcome
        if outcome is None:
            outcome = outcome_predictions(
                subject, subject.data.y, subject.data.confounders, seed=seed
            )
        code = subject.data.arms.index(name)
        scale = short_scale(
            subject, code, subject.nuisances.propensity, outcome, subject.means.weights
        )
        return cls(subject, effect, scale, code)

    def at(
        self, c_outcome: float, c_treatment: float, rho: float = 1.0
    ) -> tuple[EffectEstimate, EffectEstimate]:
        """Return the least and the greatest effect, with their uncertainty.

        Parameters
        ----------
        c_outcome, c_treatment, rho
            As in :func:`confounding_strength`.
        """
        strength = confounding_strength(c_outcome, c_treatment, rho)
        return self._end(-strength), self._end(strength)

    def robustness_value(self, *, interval: bool) -> float:
        """Return the share that a variable must explain of both, for bounds to include zero.

        C_Y = C_D = RV and ρ = 1; with ``interval`` the ends of the bounds' intervals must.
        """
        if not interval:
            return robustness_value(self.effect.estimate / self.scale.value, 1.0)
        sign = math.copysign(1.0, self.effect.estimate)
        low, high = 0.0, 1.0
        while high - low > 1e-7:
            middle = 0.5 * (low + high)
            end = self._end(-sign * confounding_strength(middle, middle))
            reach = sign * (end.ci_low if sign > 0 else end.ci_high)
            low, high = (middle, high) if reach > 0 else (low, middle)
        return 0.5 * (low + high)

    def _end(self, strength: float) -> EffectEstimate:
        old, psi = self.effect.influence, strength * self.scale.influence
        return EffectEstimate.of(
            self.effect.estimate + strength * self.scale.value,
            Influence(old.labels, old.raw + psi, old.hc2 + psi, old.df),
            estimand=f"{self.effect.estimand}, {'least' if strength < 0 else 'most'}",
            method=self.effect.method, units=self.effect.units, vcov=self.effect.vcov,
            level=self.effect.level,
        )  # fmt: skip


def omitted_benchmarks(
    bounds: OmittedVariableBounds,
    left_out: Sequence[LeftOut],
    multiples: Sequence[float] = (1.0, 2.0, 3.0),
) -> pd.DataFrame:
    """Bound the effect for a variable that adds 1, 2, 3 times what each measured one adds.

    With G = ν² / ν²(without it) - 1 what it adds to the mean square of the weights, and
    R = σ²(without it) / σ² - 1 what it adds to the outcome's explained variance, as shares of what
    is left now: C_D = kG and C_Y = kR (Chernozhukov et al. 2022, section 4; in a linear model
    this is Cinelli & Hazlett's 2020 bound of the treatment).

    Parameters
    ----------
    left_out
        See :func:`~eocausal.checks.sensitivity.benchmarks.leave_out_each`.

    Returns
    -------
    DataFrame
        A row per confounder and multiple: ``confounder``, ``k``, ``whole_image``, ``c_outcome``,
        ``c_treatment``, ``low``, ``high``, ``ci_low``, ``ci_high``, ``taken_away`` (largest bias as
        a share of the estimate; infinite with the bounds where C_D reaches 1),
        ``change`` (of the estimate when it is left out), ``rho`` (correlation that this change
        implies; NaN where leaving it out loses nothing).
    """
    rows = []
    for left in left_out:
        short = short_scale(
            bounds.subject, bounds.arm, left.nuisances.propensity, _predictions(left),
            left.means.weights,
        )  # fmt: skip
        change = left.effect(bounds.arm) - bounds.effect.estimate
        gain_d = max(bounds.scale.nu2 / short.nu2 - 1, 0.0)
        gain_y = max(short.sigma2 / bounds.scale.sigma2 - 1, 0.0)
        lost = (short.sigma2 - bounds.scale.sigma2) * (bounds.scale.nu2 - short.nu2)
        both = gain_d > 0 and gain_y > 0
        rho = max(-1.0, min(1.0, change / math.sqrt(lost))) if both else math.nan
        for k in multiples:
            rows.append({
                "confounder": left.name, "k": k, "whole_image": left.whole_image,
                "c_outcome": min(k * gain_y, 1.0), "c_treatment": k * gain_d,
                **_ends(bounds, min(k * gain_y, 1.0), k * gain_d), "change": change, "rho": rho,
            })  # fmt: skip
    names = ["confounder", "k", "whole_image", "c_outcome", "c_treatment", "low", "high",
             "ci_low", "ci_high", "taken_away", "change", "rho"]  # fmt: skip
    return pd.DataFrame(rows, columns=names)


def _predictions(left: LeftOut) -> Any:
    assert left.nuisances.outcome is not None
    return left.nuisances.outcome


def _ends(bounds: OmittedVariableBounds, c_y: float, c_d: float) -> dict[str, float]:
    if c_d >= 1:
        none = {"low": -math.inf, "high": math.inf, "ci_low": -math.inf, "ci_high": math.inf}
        return {**none, "taken_away": math.inf}
    low, high = bounds.at(c_y, c_d)
    return {
        "low": low.estimate, "high": high.estimate, "ci_low": low.ci_low, "ci_high": high.ci_high,
        "taken_away": (high.estimate - low.estimate) / 2 / abs(bounds.effect.estimate),
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class OmittedVariable:
    """How much an omitted variable must explain to leave no effect, and what measured ones explain.

    Bounds the weighted effect itself, with its flexible models, by leaving out each column of the
    table and each image in turn and fitting anew.

    Parameters
    ----------
    arm
        Treatment that is compared with none; default the first.
    columns
        Confounders to compare with; default all.
    multiples
        How many times as strong as measured confounders.
    seed
        Of the models.
    progress
        Called with the number of confounders left out so far and their total.
    """

    arm: str | None = None
    columns: tuple[str, ...] | None = None
    multiples: tuple[float, ...] = (1.0, 2.0, 3.0)
    seed: int = 0
    progress: Progress | None = field(default=None, compare=False, repr=False)

    def run(self, subject: Weighted) -> CheckResult:
        """Compute robustness values and benchmarks."""
        bounds = OmittedVariableBounds.of(subject, self.arm, seed=self.seed)
        left_out = leave_out_each(subject, self.columns, seed=self.seed, progress=self.progress)
        table = omitted_benchmarks(bounds, left_out, self.multiples)
        return self.judge(bounds, table)

    def judge(self, bounds: OmittedVariableBounds, table: pd.DataFrame) -> CheckResult:
        """Say in words what :func:`omitted_benchmarks` found."""
        effect = bounds.effect
        point = bounds.robustness_value(interval=False)
        interval = bounds.robustness_value(interval=True)
        once = table[table["k"] == self.multiples[0]].set_index("confounder")
        taken = once["taken_away"]
        reach = confounding_strength(interval, interval) * bounds.scale.value / abs(effect.estimate)
        verdict, detail = judge(
            effect,
            1.0,
            reach,
            taken,
            once["whole_image"],
            measure="share of the estimate that one as strong could take away",
        )
        claim = (
            f"A variable that explains {point:.1%} of what is left of the outcome and of the "
            f"weights could take away all of the estimate {effect.estimate:.3g}; {interval:.1%} "
            "would make its interval include zero."
        )
        values: dict[str, Any] = {
            "robustness_value": point,
            "robustness_value_interval": interval,
            "sigma2": bounds.scale.sigma2,
            "nu2": bounds.scale.nu2,
            "taken_away": {str(k): float(v) for k, v in taken.items()},
        }
        return CheckResult(NAME, verdict, claim, detail, table, values)
