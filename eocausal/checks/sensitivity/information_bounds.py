"""What can be said of an effect if anything may be hidden: Manski's bounds, and wider ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eocausal.checks.base import CheckResult, Verdict
from eocausal.checks.sensitivity.divergence_bounds import Divergence, greatest_mean
from eocausal.effects import EffectEstimate, Influence
from eocausal.errors import EstimationError
from eocausal.estimators.arm_means import Estimand

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.weighting import Weighted

__all__ = ["InformationBounds", "divergence_bounds"]

NAME = "Bounds if anything may be hidden"


def divergence_bounds(
    subject: Weighted,
    divergence: Divergence,
    *,
    arm: str | None = None,
    lowest: float,
    highest: float,
    strata: int = 5,
) -> tuple[EffectEstimate, EffectEstimate]:
    """Bound the average effect over all units, whatever decided treatment.

    Units are put into strata of about equal numbers by their probability of the treatment, where
    there is one: within each the arm's share of units and its outcomes are all that is used, so
    that the bounds hold whether the probabilities are right or not. Manski's bounds do not depend
    on the strata.

    Parameters
    ----------
    divergence
        What keeps the unseen near the seen.
    arm
        Treatment that is compared with none; default the first.
    lowest, highest
        Range of possible outcomes.
    strata
        At most; fewer where an arm would have less than two units in one.

    Raises
    ------
    EstimationError
        If an outcome lies outside of the range, or there is no such arm.
    """
    data = subject.data
    name = arm or data.arms[1]
    effect = subject.effect(name)
    if data.y.min() < lowest or data.y.max() > highest:
        raise EstimationError(
            f"Outcomes from {data.y.min():.4g} to {data.y.max():.4g} do not lie within "
            f"{lowest:.4g} to {highest:.4g}.",
            cause="The bounds put what was not seen at the ends of the range.",
            next_step="Give the range that the outcome can have, e.g. 0 to 100 for an index.",
        )
    code = data.arms.index(name)
    stratum = _strata(subject, code, strata)
    parts = [
        [_mean_bound(subject, k, stratum, divergence, sign, end) for k in (code, 0)]
        for sign, end in ((-1.0, -lowest), (1.0, highest))
    ]
    (low_one, low_zero), (high_one, high_zero) = parts
    ends = (
        (low_one[0] - high_zero[0], low_one[1] - high_zero[1], "least"),
        (high_one[0] - low_zero[0], high_one[1] - low_zero[1], "most"),
    )
    low, high = (
        EffectEstimate.of(
            value,
            Influence(effect.influence.labels, psi, psi),
            estimand=f"ATE, {word}",
            method=f"{divergence.value} bounds",
            units=data.units,
            vcov=effect.vcov,
            level=effect.level,
        )
        for value, psi, word in ends
    )
    return low, high


def _strata(subject: Weighted, code: int, strata: int) -> NDArray[np.int64]:
    """Deal units to strata by their probability of the treatment."""
    data, e = subject.data, subject.nuisances.propensity
    if e is None:
        return np.zeros(data.n, dtype=np.int64)
    rank = np.argsort(np.argsort(e[:, code], kind="stable"), kind="stable")
    for count in range(strata, 1, -1):
        found = rank * count // data.n
        cells = [np.bincount(found[data.arm == k], minlength=count).min() for k in (0, code)]
        if min(cells) >= 2:
            return np.asarray(found)
    return np.zeros(data.n, dtype=np.int64)


def _mean_bound(
    subject: Weighted,
    k: int,
    stratum: NDArray[np.int64],
    divergence: Divergence,
    sign: float,
    end: float,
) -> tuple[float, NDArray[np.float64]]:
    """Bound the mean of arm k over all units; return it with its influence values."""
    data, n = subject.data, subject.data.n
    value, psi = 0.0, np.zeros(n)
    for s in range(int(stratum.max()) + 1):
        here = stratum == s
        own = here & (data.arm == k)
        share, e = float(here.mean()), float(own.sum() / here.sum())
        found = greatest_mean(sign * data.y[own], e, end, divergence)
        value += share * found.value
        psi[here] += (found.value + found.slope_e * (own[here] - e)) / n
        psi[own] += share * found.influence
    return sign * value, sign * (psi - value / n)


@dataclass(frozen=True, slots=True)
class InformationBounds:
    """Check an effect against what holds without any assumption on who was treated.

    Without one the effect of two arms can always be zero, so that these bounds are no argument for
    an effect; but an estimate outside of Manski's is impossible, and says that weights or models
    extrapolate. Bounds by divergences are shown beside, and are never narrower in large samples.

    Parameters
    ----------
    lowest, highest
        Range of possible outcomes; default that of the observed ones, which says that no unit could
        have had a larger or smaller one.
    arm
        Treatment that is compared with none; default the first.
    strata
        Of the probability of treatment, for the divergences.
    """

    lowest: float | None = None
    highest: float | None = None
    arm: str | None = None
    strata: int = 5

    def run(self, subject: Weighted) -> CheckResult:
        """Compute all bounds and compare the estimate with Manski's."""
        if subject.decisions.score.estimand is not Estimand.ATE or subject.n_trimmed:
            raise EstimationError(
                "Bounds without assumptions are those of the effect over all units.",
                cause="The estimate is of another population, chosen by the probabilities.",
                next_step="Give a fit of the ATE without trimming.",
            )
        y = subject.data.y
        lowest = float(y.min()) if self.lowest is None else self.lowest
        highest = float(y.max()) if self.highest is None else self.highest
        rows = []
        for kind in Divergence:
            low, high = divergence_bounds(
                subject, kind, arm=self.arm, lowest=lowest, highest=highest, strata=self.strata
            )
            rows.append({
                "bounds": kind.value, "low": low.estimate, "high": high.estimate,
                "ci_low": low.ci_low, "ci_high": high.ci_high,
            })  # fmt: skip
        table = pd.DataFrame(rows).set_index("bounds")
        return self._judge(subject.effect(self.arm or subject.data.arms[1]), table)

    def _judge(self, effect: EffectEstimate, table: pd.DataFrame) -> CheckResult:
        low, high = map(float, table.loc[Divergence.MANSKI.value, ["low", "high"]])
        values: dict[str, Any] = {"low": low, "high": high, "estimate": effect.estimate}
        claim = (
            f"If anything may be hidden, the effect lies between {low:.3g} and {high:.3g} "
            f"(Manski); the estimate is {effect.estimate:.3g} ({effect.ci_low:.3g} to "
            f"{effect.ci_high:.3g})."
        )
        if not low <= effect.estimate <= high:
            return CheckResult(
                NAME, Verdict.FAIL, claim,
                "The estimate is one that no outcomes of the untreated and treated could give: "
                "weights or models extrapolate. Do not report it; look at the overlap.",
                table, values,
            )  # fmt: skip
        if effect.ci_low < low or effect.ci_high > high:
            return CheckResult(
                NAME, Verdict.WARN, claim,
                "The interval reaches beyond what is possible; the estimate is not precise.",
                table, values,
            )  # fmt: skip
        detail = (
            "The sign of the effect rests on the assumption that, given confounders, treatment is "
            "chance; without one the bounds of two arms always include zero."
        )
        return CheckResult(NAME, Verdict.PASS, claim, detail, table, values)
