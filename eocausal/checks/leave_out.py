"""Whether an effect hangs on one group of units: a country, a district, a funder's region."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eocausal.checks.base import CheckResult, Verdict
from eocausal.contracts import check_columns, codes
from eocausal.effects import Status
from eocausal.errors import EocausalError, OneClusterError, OverlapError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.effects import EffectEstimate
    from eocausal.estimators.weighting import Weighted

__all__ = ["LeaveOneOut", "hangs_on", "leave_one_out", "refit"]

Progress = Callable[[int, int], None]


def refit(subject: Weighted, keep: NDArray[np.bool_], *, seed: int) -> Weighted:
    """Run the same decisions on some of the units.

    Units that trimming left out stay out, and no more are trimmed, so that a change of the
    estimate is not one of the rule that chose the population.

    Parameters
    ----------
    keep
        (n,) True for units that stay.

    Raises
    ------
    OverlapError
        If an arm has fewer than two units left, or too few speak for it.
    EocausalError
        As :meth:`~eocausal.estimators.weighting.Weighting.fit` does.
    """
    data = subject.data.subset(keep)
    few = [name for name, n in zip(data.arms, data.counts(), strict=True) if n < 2]
    if few:
        raise OverlapError(
            f"Fewer than two units of arm {few[0]!r} are left.",
            cause=f"{int((~keep).sum()):,} of {len(keep):,} units were left out.",
            next_step="There is nothing to compare without them.",
        )
    decisions = subject.decisions
    if subject.n_trimmed:
        decisions = replace(decisions, trim=None)
    return decisions.fit(data, seed=seed)


def leave_one_out(
    subject: Weighted, by: str, *, seed: int = 0, progress: Progress | None = None
) -> pd.DataFrame:
    """Estimate every effect without each group of units in turn, models fitted anew.

    Returns
    -------
    DataFrame
        One row per group and treatment, the largest change first: ``group``, ``treatment``, ``n``
        and ``n_treated`` (units of the group), ``estimate``, ``std_error``, ``ci_low``,
        ``ci_high``, ``p_value`` without it, ``change`` = estimate - the one of all units,
        ``influence`` (the group's influence values summed: what it adds to the estimate to first
        order), ``status``, and ``note`` with the reason where there is no estimate.

    Raises
    ------
    OneClusterError
        If there are fewer than two groups.
    MissingColumnError, DesignError
        If there is no such column, or a value is missing.
    """
    data = subject.data
    check_columns(data.units, [by], what="units table")
    code = codes(data.units[by], by)
    groups = int(code.max()) + 1
    if groups < 2:
        raise OneClusterError(
            f"All units share one value of {by!r}.",
            cause="Nothing is left without them.",
            next_step="Name a column with several groups.",
        )
    rows: list[dict[str, Any]] = []
    whole = {arm: subject.effect(arm) for arm in data.arms[1:]}
    for g in range(groups):
        out = code == g
        try:
            found: Weighted | None = refit(subject, ~out, seed=seed)
            why = ""
        except EocausalError as error:
            found, why = None, f"{error.fact} {error.cause}".strip()
        name = data.units[by].to_numpy()[out][0]
        for k, (arm, all_units) in enumerate(whole.items(), start=1):
            row = {"group": name, "treatment": arm, "n": int(out.sum())}
            row["n_treated"] = int((data.arm[out] == k).sum())
            effect = None if found is None else found.effect(arm)
            row |= _numbers(effect, all_units, why)
            row["influence"] = float(all_units.influence.raw[out].sum())
            rows.append(row)
        if progress is not None:
            progress(g + 1, groups)
    table = pd.DataFrame(rows)
    size = table["change"].abs().fillna(math.inf)
    return table.loc[size.sort_values(ascending=False, kind="stable").index].reset_index(drop=True)


def _numbers(effect: EffectEstimate | None, whole: EffectEstimate, why: str) -> dict[str, Any]:
    names = ("estimate", "std_error", "ci_low", "ci_high", "p_value")
    if effect is None:
        empty = dict.fromkeys((*names, "change"), math.nan)
        return {**empty, "status": str(Status.REFUSED), "note": why}
    numbers = {name: getattr(effect, name) for name in names}
    change = effect.estimate - whole.estimate
    return {**numbers, "change": change, "status": str(effect.status), "note": effect.note}


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """Check that no single group decides the sign or the significance of an effect.

    Parameters
    ----------
    by
        Column of groups.
    seed
        Of folds and models of the refits.
    progress
        Called with the number of groups done and their total.
    """

    by: str = "country"
    seed: int = 0
    progress: Progress | None = field(default=None, compare=False, repr=False)

    def run(self, subject: Weighted) -> CheckResult:
        """Re-estimate without each group."""
        table = leave_one_out(subject, self.by, seed=self.seed, progress=self.progress)
        name = f"Estimates without each {self.by}"
        alpha = 1 - subject.decisions.level
        whole = {arm: subject.effect(arm) for arm in subject.data.arms[1:]}
        estimate = table["treatment"].map({a: e.estimate for a, e in whole.items()})
        sure = table["treatment"].map({a: e.p_value < alpha for a, e in whole.items()}).astype(bool)
        refused = table["estimate"].isna()
        flips = ~refused & (table["estimate"] * estimate < 0)
        turns = ~refused & ((table["p_value"] < alpha) != sure)
        values: dict[str, Any] = {
            "groups": int(table["group"].nunique()),
            "sign_hangs_on": list(table.loc[flips, "group"].astype(str).unique()),
            "significance_hangs_on": list(table.loc[turns, "group"].astype(str).unique()),
            "no_estimate_without": list(table.loc[refused, "group"].astype(str).unique()),
            "largest_change": float(table["change"].abs().max()),
        }
        claim = _claim(table, self.by, whole)
        if (flips & sure).any():
            verdict = Verdict.FAIL
        elif (flips | turns | refused).any():
            verdict = Verdict.WARN
        else:
            verdict = Verdict.PASS
        return CheckResult(name, verdict, claim, _detail(values, self.by), table, values)


def _claim(table: pd.DataFrame, by: str, whole: dict[str, EffectEstimate]) -> str:
    known = table.dropna(subset=["estimate"])
    if known.empty:
        return f"Without any one {by} there is no estimate."
    row = known.iloc[0]
    of = f" of {row['treatment']}" if len(whole) > 1 else ""
    return (
        f"Without {row['group']} the effect{of} moves from "
        f"{whole[row['treatment']].estimate:.4g} to {row['estimate']:.4g} "
        f"({row['ci_low']:.4g} to {row['ci_high']:.4g}), the largest change of "
        f"{known['group'].nunique()}."
    )


def hangs_on(values: dict[str, Any]) -> str:
    """Say what the sign, the significance or the estimate itself hangs on; empty if nothing."""
    parts = [
        ("sign_hangs_on", "The sign hangs on"),
        ("significance_hangs_on", "Whether the interval excludes zero hangs on"),
        ("no_estimate_without", "There is no estimate without"),
    ]
    return " ".join(f"{text} {', '.join(values[key])}." for key, text in parts if values[key])


def _detail(values: dict[str, Any], by: str) -> str:
    said = hangs_on(values)
    if not said:
        return ""
    return (
        f"{said} Say so with the result, and look at what sets this {by} apart; the effect of "
        "all is not one that holds in each."
    )
