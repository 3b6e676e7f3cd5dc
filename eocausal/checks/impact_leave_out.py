"""Whether an effect hangs on one control, or on one year."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eocausal.checks.base import CheckResult
from eocausal.checks.impact_question import Question, column, question_of, row, turned
from eocausal.checks.leave_out import hangs_on
from eocausal.errors import EmptyInputError, OneClusterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.impact import Impact

__all__ = ["LeaveOneControlOut", "LeaveOneYearOut"]

CONTROLS = "The effect without each control"
YEARS = "The effect without each year"
DEFAULT_BLOCK = 12
EVERY = "any control"


@dataclass(frozen=True, slots=True)
class LeaveOneControlOut:
    """Check that no single control decides the effect; without any it is estimated as well."""

    def run(self, subject: Impact) -> CheckResult:
        """Estimate the effect without each control.

        Raises
        ------
        EmptyInputError
            If the impact has no controls.
        """
        question = question_of(subject)
        x = question.controls.to_numpy(dtype=float)
        names = list(question.controls.columns)
        if not names:
            raise EmptyInputError(
                "The impact has no controls.",
                cause="None can be left out.",
                next_step="Leave this check out.",
            )
        whole = row(question.averages(), 0)
        rows = []
        for k, name in enumerate(names):
            found = question.averages(controls=np.delete(x, k, axis=1))
            chance = float(subject.inclusion.get(name, np.nan))
            rows.append({"without": str(name), "inclusion": chance, **row(found, 0)})
        if len(names) > 1:
            alone = question.averages(controls=x[:, :0])
            rows.append({"without": EVERY, "inclusion": np.nan, **row(alone, 0)})
        table = pd.DataFrame(rows)
        return _result(CONTROLS, "control", table, whole)


@dataclass(frozen=True, slots=True)
class LeaveOneYearOut:
    """Check that no single year decides the effect, before the event or after it.

    The values of each year are taken for missing, and everything is fitted anew. Series without
    dates are cut into seasons, or pieces of twelve.
    """

    def run(self, subject: Impact) -> CheckResult:
        """Estimate the effect without each year.

        Raises
        ------
        OneClusterError
            If values that are learned from or counted lie in one year.
        """
        question = question_of(subject)
        year = _years(question)
        used = (question.before | question.post) & np.isfinite(question.y)
        years = np.unique(year[used])
        if len(years) < 2:
            raise OneClusterError(
                "All values lie in one year.",
                cause="Nothing is left without it.",
                next_step="Leave this check out.",
            )
        outcomes = np.tile(question.y, (len(years), 1))
        outcomes[year == years[:, None]] = np.nan
        found = question.averages(outcomes)
        whole = row(question.averages(), 0)
        rows = [
            {"without": str(name), "side": _side(question, used & (year == name)), **row(found, at)}
            for at, name in enumerate(years)
        ]
        return _result(YEARS, "year", pd.DataFrame(rows), whole)


def _years(question: Question) -> NDArray[np.int64]:
    if isinstance(question.times, pd.DatetimeIndex):
        return np.asarray(question.times.year, dtype=np.int64)
    periods = [s.period * s.duration for s in question.model.seasons]
    block = max(periods, default=DEFAULT_BLOCK)
    return np.arange(len(question.times)) // block * block


def _side(question: Question, mine: NDArray[np.bool_]) -> str:
    before, after = bool((mine & question.before).any()), bool((mine & question.post).any())
    return "both" if before and after else "before" if before else "after"


def _result(name: str, what: str, table: pd.DataFrame, whole: dict[str, Any]) -> CheckResult:
    table["change"] = table["estimate"] - whole["estimate"]
    verdict, flips, turns = turned(table, whole)
    size = table["change"].abs().fillna(np.inf)
    lost = table["estimate"].isna().to_numpy()
    values: dict[str, Any] = {
        "estimate": whole["estimate"],
        "lowest": float(np.nanmin(column(table, "estimate"))) if not lost.all() else np.nan,
        "highest": float(np.nanmax(column(table, "estimate"))) if not lost.all() else np.nan,
        "largest_change": float(table["change"].abs().max()),
        "sign_hangs_on": list(table.loc[flips, "without"]),
        "significance_hangs_on": list(table.loc[turns, "without"]),
        "no_estimate_without": list(table.loc[lost, "without"]),
    }
    order = size.sort_values(ascending=False, kind="stable").index
    table = table.loc[order].reset_index(drop=True)
    return CheckResult(
        name, verdict, _claim(table, whole, values, what), _detail(values, what), table, values
    )


def _claim(table: pd.DataFrame, whole: dict[str, Any], values: dict[str, Any], what: str) -> str:
    known = table.dropna(subset=["estimate"])
    if known.empty:
        return "With anything left out there is no estimate."
    most: dict[Any, Any] = known.iloc[0].to_dict()
    every = (table["without"] == EVERY).any()
    out = (
        f"one of {len(table) - every} {what}s, or all," if every else f"one of {len(table)} {what}s"
    )
    return (
        f"The average effect is {whole['estimate']:.4g} ({whole['ci_low']:.4g} to "
        f"{whole['ci_high']:.4g}); with {out} left out it lies between "
        f"{values['lowest']:.4g} and {values['highest']:.4g}. Furthest off is without "
        f"{most['without']}: {most['estimate']:.4g} "
        f"({most['ci_low']:.4g} to {most['ci_high']:.4g})."
    )


def _detail(values: dict[str, Any], what: str) -> str:
    said = hangs_on(values)
    if not said:
        return ""
    return f"{said} Say so with the result, and look at what sets this {what} apart."
