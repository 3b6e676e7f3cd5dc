"""Omitted variables in the linear regression beside a weighted effect, by partial R²."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eocausal.checks.base import CheckResult
from eocausal.checks.sensitivity.benchmarks import table_columns
from eocausal.checks.sensitivity.linear_bias import (
    adjusted_std_error,
    bias_bound,
    bound_by_benchmark,
    least_squares,
    partial_r2_of,
    robustness_value,
    robustness_value_interval,
)
from eocausal.checks.sensitivity.verdicts import judge
from eocausal.effects import EffectEstimate, Influence
from eocausal.errors import EstimationError
from eocausal.estimators.confounders import TABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from eocausal.estimators.observational import Observed
    from eocausal.estimators.weighting import Weighted

__all__ = ["LinearOmittedVariable", "linear_benchmarks", "linear_effect"]

NAME = "Omitted variable in a linear regression"


def linear_effect(subject: Weighted, arm: str | None = None) -> tuple[EffectEstimate, float, int]:
    """Regress the outcome on a treatment and all confounders, by plain least squares.

    Units of other treatments are left out. The standard error is that of the subject's variance
    rule.

    Returns
    -------
    The coefficient, its classical standard error, and the residual degrees of freedom.

    Raises
    ------
    EstimationError
        If the confounders are too many for a regression without penalty.
    """
    data, name = _two_arms(subject.data, arm)
    fitted = least_squares(data.y, data.arm.astype(float), data.confounders.x)
    decided = subject.decisions
    effect = EffectEstimate.of(
        fitted.estimate,
        Influence(data.units.index, fitted.influence, fitted.influence, float(fitted.df)),
        estimand="coefficient", method="linear regression", units=data.units,
        vcov=decided.vcov, level=decided.level, extra={"treatment": name},
    )  # fmt: skip
    return effect, fitted.std_error, fitted.df


def _two_arms(data: Observed, arm: str | None) -> tuple[Observed, str]:
    """Keep the units of one treatment and of none, as arms 1 and 0."""
    name = arm or data.arms[1]
    if name not in data.arms[1:]:
        raise EstimationError(
            f"There is no treatment {name!r}.",
            cause=f"The treatments are {', '.join(data.arms[1:])}.",
            next_step="Name one of these.",
        )
    if len(data.arms) == 2:
        return data, name
    code = data.arms.index(name)
    kept = data.subset((data.arm == code) | (data.arm == 0))
    return replace(kept, arm=(kept.arm == code).astype(np.int64), arms=(data.arms[0], name)), name


def linear_benchmarks(
    subject: Weighted,
    arm: str | None = None,
    multiples: Sequence[float] = (1.0, 2.0, 3.0),
    columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Bound the bias by variables 1, 2, 3 times as strong as each measured confounder.

    The indicators of one column count together, as do all features of an image. ``columns`` names
    the confounders to compare with; default all.

    Returns
    -------
    DataFrame
        A row per confounder and multiple: ``confounder``, ``k``, ``whole_image``, ``r2_outcome``
        and ``r2_treatment`` of the hidden variable, ``estimate`` and ``std_error`` (classical) had
        it been in the regression, if it takes away as much as it can. Where no variable can be so
        strong, weaker ones can take away any amount: R² are NaN and the estimate is infinite.
    """
    effect, std_error, df = linear_effect(subject, arm)
    data, _ = _two_arms(subject.data, arm)
    x, treatment = data.confounders.x, data.arm.astype(float)
    sign = math.copysign(1.0, effect.estimate)
    rows = []
    for name, whole, own in _groups(subject):
        if columns is not None and name not in columns:
            continue
        z, rest = x[:, own], x[:, ~own]
        outcome = partial_r2_of(z, data.y, np.column_stack([treatment, rest]))
        placed = partial_r2_of(z, treatment, rest)
        for k in multiples:
            r2_y, r2_d = bound_by_benchmark(outcome, placed, k)
            row: dict[str, Any] = {
                "confounder": name, "k": k, "whole_image": whole, "r2_outcome": r2_y,
                "r2_treatment": r2_d, "estimate": -sign * math.inf, "std_error": math.nan,
            }  # fmt: skip
            if math.isfinite(r2_y):
                size = abs(effect.estimate) - bias_bound(std_error, df, r2_y, r2_d)
                row["estimate"] = sign * size
                row["std_error"] = adjusted_std_error(std_error, df, r2_y, r2_d)
            rows.append(row)
    names = ["confounder", "k", "whole_image", "r2_outcome", "r2_treatment", "estimate",
             "std_error"]  # fmt: skip
    return pd.DataFrame(rows, columns=names)


def _groups(subject: Weighted) -> list[tuple[str, bool, NDArray[np.bool_]]]:
    c = subject.data.confounders
    stems = np.array([name.partition("=")[0] for name in c.names], dtype=object)
    source = np.array(c.blocks, dtype=object)[c.block] if c.p else np.array([], dtype=object)
    table = [(n, False, (stems == n) & (source == TABLE)) for n in table_columns(c)]
    return table + [(b, True, source == b) for b in c.blocks if b != TABLE]


@dataclass(frozen=True, slots=True)
class LinearOmittedVariable:
    """How much of treatment and outcome an omitted variable must explain to leave no effect.

    The effect is that of a plain linear regression on the same units and confounders, which has
    exact formulas and names (partial R²) that readers know; :class:`OmittedVariable` bounds the
    weighted effect itself.

    Parameters
    ----------
    arm
        Treatment that is compared with none; default the first.
    q
        Share of the estimate that the bias is to take away.
    multiples
        How many times as strong as measured confounders.
    columns
        Confounders to compare with; default all.
    """

    arm: str | None = None
    q: float = 1.0
    multiples: tuple[float, ...] = (1.0, 2.0, 3.0)
    columns: tuple[str, ...] | None = None

    def run(self, subject: Weighted) -> CheckResult:
        """Compute robustness values and benchmarks."""
        effect, std_error, df = linear_effect(subject, self.arm)
        point = robustness_value(effect.estimate / std_error, df, self.q)
        interval = robustness_value_interval(
            effect.estimate / effect.std_error, df, self.q, 1 - effect.level
        )
        table = linear_benchmarks(subject, self.arm, self.multiples, self.columns)
        once = table[table["k"] == self.multiples[0]].set_index("confounder")
        taken = 1 - once["estimate"] / effect.estimate
        chance = 0.5 * (effect.ci_high - effect.ci_low) / abs(effect.estimate)
        verdict, detail = judge(
            effect,
            self.q,
            self.q - chance,
            taken,
            once["whole_image"],
            measure="share of the estimate that one as strong takes away",
        )
        t = effect.estimate / std_error
        values: dict[str, Any] = {
            "estimate": effect.estimate,
            "std_error": effect.std_error,
            "partial_r2": t**2 / (t**2 + df),
            "robustness_value": point,
            "robustness_value_interval": interval,
            "taken_away": {str(k): float(v) for k, v in taken.items()},
        }
        claim = (
            f"A variable that explains {point:.1%} of what is left of both treatment and outcome "
            f"would take away {self.q:.0%} of the linear estimate {effect.estimate:.3g}; "
            f"{interval:.1%} would make its interval reach that."
        )
        return CheckResult(NAME, verdict, claim, detail, table, values)
