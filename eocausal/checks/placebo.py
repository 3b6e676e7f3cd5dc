"""Effects on outcomes that treatment cannot have moved: earlier ones, and negative controls.

The same weights and the same kind of outcome model are used as for the effect itself. An effect on
an outcome that was there before says that arms differ in what was not measured (Rosenbaum 1989;
Lipsitch, Tchetgen Tchetgen & Cohen 2010, Epidemiology 21:383; METHODS D15).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from eocausal.checks.base import CheckResult, Verdict
from eocausal.checks.leave_out import refit
from eocausal.contracts import check_columns
from eocausal.errors import DesignError, EstimationError, OutcomeError, OverlapError
from eocausal.estimators.joint_covariance import joint_covariance
from eocausal.estimators.randomized import outcome_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from eocausal.effects import EffectEstimate
    from eocausal.estimators.weighting import Weighted

__all__ = ["Placebo", "Wald", "joint_wald", "placebo_table", "with_outcome"]

NAME = "Effects on placebo outcomes"


def with_outcome(subject: Weighted, outcome: str, *, seed: int = 0) -> Weighted:
    """Put another column in the place of the outcome and keep everything else.

    Probabilities and folds are those of the subject, the outcome model is fitted anew. Where the
    column is missing for some units, these are left out and all models are fitted anew.

    Raises
    ------
    EstimationError
        If the column is the treatment, the outcome, or a confounder.
    MissingColumnError, OutcomeError, OverlapError
    """
    data = subject.data
    check_columns(data.units, [outcome], what="units table")
    names = data.confounders.names
    if outcome in (data.treatment, data.outcome) or any(
        name == outcome or name.startswith(f"{outcome}=") for name in names
    ):
        raise EstimationError(
            f"{outcome!r} is already the treatment, the outcome or a confounder.",
            cause="What is adjusted for shows no effect, whatever is hidden.",
            next_step="Name another column, or leave it out of the confounders.",
        )
    here = data.units[outcome].notna().to_numpy()
    if not here.any():
        raise OutcomeError(
            f"The outcome {outcome!r} is missing for all units.",
            cause="There is nothing to compare.",
            next_step="Check the column.",
        )
    if not here.all():
        y = data.units[outcome].to_numpy(dtype=float, na_value=np.nan)
        outcome_of(data.units[here], outcome)
        other = replace(subject, data=replace(data, y=y, outcome=outcome))
        return refit(other, here, seed=seed)
    moved = replace(data, y=outcome_of(data.units, outcome), outcome=outcome)
    decisions, nuisances = subject.decisions, subject.nuisances
    if decisions.score.needs_outcome:
        predicted = decisions.outcome_model.cross_fit(
            moved.confounders, moved.y, moved.arm, subject.splits, seed=seed
        )
        nuisances = replace(nuisances, outcome=predicted)
    means = decisions.score.means(moved, nuisances)
    return replace(subject, data=moved, means=means, nuisances=nuisances)


@dataclass(frozen=True, slots=True)
class Wald:
    """A joint test that all of some effects are zero.

    Attributes
    ----------
    statistic
        b'V⁻b.
    rank
        Number of independent effects (of the matrix of influence values).
    df
        Degrees of freedom of the variances.
    p_value
        By χ², or Hotelling's F where df is finite; NaN if there are more independent effects than
        degrees of freedom.
    """

    statistic: float
    rank: int
    df: float
    p_value: float


def joint_wald(effects: Sequence[EffectEstimate], units: pd.DataFrame) -> Wald:
    """Test that effects are all zero, with the covariance of their influence values.

    Correlations are those of the joint influence values under the variance rule of the first
    effect; standard errors are the effects' own. With finite degrees of freedom ν,
    (ν - r + 1) W / (ν r) is compared with F(r, ν - r + 1) (Hotelling 1931).

    Parameters
    ----------
    effects
        At least one, on units of ``units``.
    units
        All n units; one that an effect was not estimated on has no influence on it.
    """
    raw = np.zeros((len(units), len(effects)))
    hc2 = np.zeros_like(raw)
    for k, effect in enumerate(effects):
        at = units.index.get_indexer(effect.influence.labels)
        raw[at, k], hc2[at, k] = effect.influence.raw, effect.influence.hc2
    covariance = joint_covariance(effects[0].vcov, raw, hc2, units)
    t = np.array([e.estimate / e.std_error for e in effects])
    value, vector, use = _eigen(covariance)
    statistic = float(((vector[:, use].T @ t) ** 2 / value[use]).sum())
    rank, df = int(_eigen(raw.T @ raw)[2].sum()), min(e.df for e in effects)
    p = _tail(statistic, rank, df) if use.sum() == rank else math.nan
    return Wald(statistic, rank, df, p)


def _eigen(
    covariance: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Eigenvalues and vectors of the correlation matrix, and which values are not zero."""
    scale = np.sqrt(np.diag(covariance))
    value, vector = np.linalg.eigh(covariance / np.outer(scale, scale))
    return value, vector, value > 1e-8 * value.max()


def _tail(statistic: float, rank: int, df: float) -> float:
    if math.isinf(df):
        return float(stats.chi2.sf(statistic, rank))
    left = df - rank + 1
    if left <= 0:
        return math.nan
    return float(stats.f.sf(statistic * left / (df * rank), rank, left))


def placebo_table(
    subject: Weighted, outcomes: Sequence[str], *, seed: int = 0
) -> tuple[pd.DataFrame, list[EffectEstimate]]:
    """Estimate every effect on every placebo outcome.

    Returns
    -------
    DataFrame
        One row per outcome and treatment: ``outcome``, ``treatment``, ``estimate``, ``std_error``,
        ``t`` = estimate / std_error, ``p_value``, ``ci_low``, ``ci_high``, ``sd`` (of the outcome
        among the untreated), ``in_sd`` and ``bound_in_sd`` (the estimate, and the end of its
        interval further from 0, in these), ``main_in_sd`` (the effect itself in standard
        deviations of its own outcome), ``ratio`` = in_sd / main_in_sd, ``n``, and ``note`` with
        the reason where there is no estimate.
    list of EffectEstimate
        Those that could be estimated.

    Raises
    ------
    EstimationError, MissingColumnError
        As :func:`with_outcome`.
    """
    data = subject.data
    rows: list[dict[str, Any]] = []
    effects: list[EffectEstimate] = []
    own = float(data.y[data.arm == 0].std(ddof=1))
    main = {arm: subject.effect(arm).estimate / own for arm in data.arms[1:]}
    for outcome in outcomes:
        check_columns(data.units, [outcome], what="units table")
        try:
            fitted = with_outcome(subject, outcome, seed=seed)
        except (OutcomeError, OverlapError, DesignError) as error:
            rows += [_gap(outcome, arm, f"{error.fact} {error.cause}") for arm in data.arms[1:]]
            continue
        untreated = fitted.data.y[fitted.data.arm == 0]
        sd = float(untreated.std(ddof=1))
        for arm in data.arms[1:]:
            effect = fitted.effect(arm)
            effects.append(effect)
            rows.append(_row(effect, outcome, arm, sd, main[arm]))
    return pd.DataFrame(rows), effects


def _row(effect: EffectEstimate, outcome: str, arm: str, sd: float, main: float) -> dict[str, Any]:
    bound = max(abs(effect.ci_low), abs(effect.ci_high))
    in_sd = effect.estimate / sd if sd > 0 else math.nan
    return {
        "outcome": outcome,
        "treatment": arm,
        "estimate": effect.estimate,
        "std_error": effect.std_error,
        "t": effect.estimate / effect.std_error if effect.std_error > 0 else math.nan,
        "p_value": effect.p_value,
        "ci_low": effect.ci_low,
        "ci_high": effect.ci_high,
        "sd": sd,
        "in_sd": in_sd,
        "bound_in_sd": bound / sd if sd > 0 else math.nan,
        "main_in_sd": main,
        "ratio": in_sd / main if main != 0 else math.nan,
        "n": effect.n,
        "note": effect.note,
    }


def _gap(outcome: str, arm: str, why: str) -> dict[str, Any]:
    return {"outcome": outcome, "treatment": arm, "n": 0, "note": why}


@dataclass(frozen=True, slots=True)
class Placebo:
    """Check that there is no effect on outcomes that treatment cannot have moved.

    Parameters
    ----------
    outcomes
        Columns of the units table: the outcome before treatment, or others that it cannot move.
        None of them may be a confounder.
    alpha
        Warn if the joint test of no effect on any of them has a smaller p-value.
    large
        Fail if, besides, an effect that is significant by itself is at least this share of the
        main effect, both in standard deviations of their outcomes.
    seed
        Of the outcome models.
    """

    outcomes: tuple[str, ...]
    alpha: float = 0.05
    large: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "outcomes", tuple(dict.fromkeys(self.outcomes)))
        if not self.outcomes:
            raise EstimationError(
                "No placebo outcome is named.",
                cause="The check estimates effects on them.",
                next_step="Name columns that treatment cannot have moved.",
            )

    def run(self, subject: Weighted) -> CheckResult:
        """Estimate the effects on all placebo outcomes and test them together."""
        table, effects = placebo_table(subject, self.outcomes, seed=self.seed)
        usable = [e for e in effects if e.std_error > 0]
        if not usable:
            claim = "No effect on a placebo outcome could be estimated."
            return CheckResult(NAME, Verdict.WARN, claim, _reasons(table), table)
        wald = joint_wald(usable, subject.data.units)
        at = int(table["t"].abs().to_numpy(na_value=-1.0).argmax())
        row: dict[Any, Any] = table.iloc[at].to_dict()
        claim = (
            f"Joint test of no effect on {len(usable)} placebo outcomes: p = {wald.p_value:.3g}; "
            f"the largest, on {row['outcome']!r}, is {row['estimate']:.3g} (SE "
            f"{row['std_error']:.2g}), {row['ratio']:.2f} of the main effect in standard "
            "deviations."
        )
        values = {
            "p_joint": wald.p_value,
            "statistic": wald.statistic,
            "rank": wald.rank,
            "largest_t": float(row["t"]),
            "largest_ratio": float(table["ratio"].abs().max()),
        }
        verdict, detail = self._judge(table, wald.p_value, subject)
        detail = " ".join(part for part in (detail, _reasons(table)) if part)
        return CheckResult(NAME, verdict, claim, detail, table, values)

    def _judge(self, table: pd.DataFrame, p: float, subject: Weighted) -> tuple[Verdict, str]:
        if math.isnan(p):
            return Verdict.WARN, (
                "There are too few independent groups of units for a joint test; look at each "
                "outcome by itself."
            )
        if p < self.alpha:
            found = table[table["p_value"] < self.alpha]
            large = bool((found["ratio"].abs() >= self.large).any())
            return (Verdict.FAIL if large else Verdict.WARN), (
                "Treatment seems to move what it cannot have moved: the arms differ in something "
                "that was not measured, and the effect is off by about as much. Adjust for what "
                "was there before treatment, or subtract it (a difference in differences)."
            )
        if vague := self._vague(table, subject):
            return Verdict.WARN, (
                f"The intervals of all placebo effects of {vague} reach as far as the main effect: "
                "that none is found says little."
            )
        return Verdict.PASS, ""

    def _vague(self, table: pd.DataFrame, subject: Weighted) -> str:
        """Name a treatment with an effect that no placebo is precise enough to compare with."""
        level = 1 - subject.decisions.level
        for arm in subject.data.arms[1:]:
            rows = table[table["treatment"] == arm]
            precise = (rows["bound_in_sd"] < rows["main_in_sd"].abs()).any()
            if subject.effect(arm).p_value < level and not precise:
                return repr(arm) if len(subject.data.arms) > 2 else repr(subject.data.treatment)
        return ""


def _reasons(table: pd.DataFrame) -> str:
    if "estimate" in table:
        table = table[table["estimate"].isna()]
    return " ".join(f"{r.outcome}: {r.note}" for r in table.itertuples())
