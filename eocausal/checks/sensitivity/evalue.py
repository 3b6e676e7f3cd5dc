"""E-values: the least risk ratios with treatment and outcome that explain an effect away.

VanderWeele & Ding (2017, Annals of Internal Medicine 167:268).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from eocausal.checks.base import CheckResult
from eocausal.checks.sensitivity.benchmarks import Progress, leave_out_each
from eocausal.checks.sensitivity.verdicts import judge
from eocausal.effects import Influence
from eocausal.errors import EstimationError

if TYPE_CHECKING:
    from eocausal.effects import EffectEstimate
    from eocausal.estimators.weighting import Weighted

__all__ = ["EValue", "RiskRatio", "e_value", "risk_ratio", "smd_to_risk_ratio"]

NAME = "E-value"
PER_SD = 0.91


def e_value(risk_ratio: float) -> float:
    """Return RR + √(RR (RR - 1)), with 1/RR for ratios below one.

    Raises
    ------
    EstimationError
        If the ratio is not positive.
    """
    if not risk_ratio > 0:
        raise EstimationError(
            f"{risk_ratio} is no risk ratio.",
            cause="Ratios of risks are positive.",
            next_step="Give a ratio, or turn a standardised difference into one.",
        )
    ratio = max(risk_ratio, 1 / risk_ratio)
    return ratio + math.sqrt(ratio * (ratio - 1))


def smd_to_risk_ratio(d: float) -> float:
    """Return exp(0.91 d), the approximate risk ratio of a difference of d standard deviations.

    Of a normal outcome cut near its median (Chinn 2000, Statistics in Medicine 19:3127; VanderWeele
    2017, Biometrics: √ of the odds ratio exp(1.81 d)).
    """
    return math.exp(PER_SD * d)


@dataclass(frozen=True, slots=True)
class RiskRatio:
    """An effect as a risk ratio.

    Attributes
    ----------
    value, low, high
        Ratio and its interval.
    exact
        True for a ratio of risks, False if made from a difference of standard deviations.
    """

    value: float
    low: float
    high: float
    exact: bool

    @property
    def nearest(self) -> float:
        """The end of the interval that is nearest to one; one if the interval includes it."""
        if self.low <= 1 <= self.high:
            return 1.0
        return self.low if self.low > 1 else self.high


def _is_risk(subject: Weighted, arm: int) -> bool:
    risks = subject.means.value[[0, arm]]
    binary = bool(np.isin(subject.data.y, (0.0, 1.0)).all())
    return binary and bool(((risks > 0) & (risks <= 1)).all())


def outcome_spread(subject: Weighted, arm: int) -> float:
    """Return the outcome's standard deviation within arms, pooled over the two."""
    y, of = subject.data.y, subject.data.arm
    parts = [y[of == k] for k in (0, arm)]
    freedom = sum(len(p) - 1 for p in parts)
    square = sum(float(((p - p.mean()) ** 2).sum()) for p in parts)
    if freedom < 1 or not square > 0:
        raise EstimationError(
            f"The outcome {subject.data.outcome!r} does not vary within arms.",
            cause="An effect in standard deviations is not defined.",
            next_step="Report the difference alone.",
        )
    return math.sqrt(square / freedom)


def risk_ratio(subject: Weighted, arm: str | None = None) -> RiskRatio:
    """Turn an effect into a risk ratio.

    For an outcome of zeros and ones the ratio of the arms' means, with the interval of its
    logarithm by their influence values; for others exp(0.91 d), d the effect over the standard
    deviation of the outcome within arms, taken as known.

    Raises
    ------
    EstimationError
        If the outcome does not vary within arms, or there is no such arm.
    """
    name = arm or subject.data.arms[1]
    effect = subject.effect(name)
    code = subject.data.arms.index(name)
    critical = float(stats.t.ppf(0.5 + effect.level / 2, effect.df))
    exact = _is_risk(subject, code)
    if exact:
        zero, one = subject.means.value[0], subject.means.value[code]
        psi = subject.means.influence[:, code] / one - subject.means.influence[:, 0] / zero
        influence = Influence(effect.influence.labels, psi, psi)
        variance = effect.vcov.variance(influence, subject.data.units).value
        middle, half = math.log(one / zero), critical * math.sqrt(variance)
    else:
        unit = outcome_spread(subject, code)
        middle = PER_SD * effect.estimate / unit
        half = PER_SD * critical * effect.std_error / unit
    ends = (middle, middle - half, middle + half)
    value, low, high = (math.exp(v) for v in ends)
    return RiskRatio(value, low, high, exact)


@dataclass(frozen=True, slots=True)
class EValue:
    """How strongly something hidden must go with treatment and outcome to explain an effect away.

    Measured confounders are the yardstick: leaving one out moves the risk ratio by a factor, and
    its E-value says how strong something must be that does as much (D'Agostino McGowan & Greevy
    2020, arXiv 2011.07030).

    Parameters
    ----------
    arm
        Treatment that is compared with none; default the first.
    columns
        Confounders to compare with; default all.
    seed
        Of the models.
    progress
        Called with the number of confounders left out so far and their total.
    """

    arm: str | None = None
    columns: tuple[str, ...] | None = None
    seed: int = 0
    progress: Progress | None = field(default=None, compare=False, repr=False)

    def run(self, subject: Weighted) -> CheckResult:
        """Compute the E-values of the effect, of its interval, and of measured confounders."""
        found = risk_ratio(subject, self.arm)
        name = self.arm or subject.data.arms[1]
        effect = subject.effect(name)
        point, interval = e_value(found.value), e_value(found.nearest)
        table = self._benchmarks(subject, name, found)
        verdict, detail = judge(
            effect,
            point,
            interval,
            table["e_value"],
            table["whole_image"],
            measure="E-value of the factor by which the ratio moves when it is left out",
        )
        return CheckResult(
            NAME, verdict, _claim(found, effect, point, interval), detail, table,
            {
                "risk_ratio": found.value, "e_value": point, "e_value_interval": interval,
                "exact": found.exact,
            },
        )  # fmt: skip

    def _benchmarks(self, subject: Weighted, name: str, found: RiskRatio) -> pd.DataFrame:
        code = subject.data.arms.index(name)
        unit = 1.0 if found.exact else outcome_spread(subject, code)
        rows = []
        for left in leave_out_each(subject, self.columns, seed=self.seed, progress=self.progress):
            other = left.means.value
            if not found.exact:
                log_ratio = PER_SD * left.effect(code) / unit
            elif min(other[0], other[code]) > 0:
                log_ratio = math.log(other[code] / other[0])
            else:
                log_ratio = math.inf
            factor = math.exp(abs(log_ratio - math.log(found.value)))
            rows.append({
                "confounder": left.name, "ratio_without": math.exp(log_ratio), "factor": factor,
                "e_value": e_value(factor), "whole_image": left.whole_image,
            })  # fmt: skip
        names = ["confounder", "ratio_without", "factor", "e_value", "whole_image"]
        return pd.DataFrame(rows, columns=names).set_index("confounder")


def _claim(found: RiskRatio, effect: EffectEstimate, point: float, interval: float) -> str:
    kind = "risk ratio" if found.exact else "risk ratio (approximately, from standard deviations)"
    if interval == 1:
        return (
            f"The interval of the {kind} {found.value:.2f} includes one without anything hidden; "
            f"risk ratios of {point:.2f} with both treatment and outcome would explain the "
            "estimate."
        )
    return (
        f"Something hidden that goes with both treatment and outcome by risk ratios of "
        f"{point:.2f} could explain away the {kind} {found.value:.2f}; {interval:.2f} would make "
        f"its {effect.level:.0%} interval include one."
    )
