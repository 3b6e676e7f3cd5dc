"""Controls that the event reached, or that break at about its date."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eocausal.checks.base import CheckResult, Verdict
from eocausal.checks.impact_question import Question, column, excludes_zero, question_of, row
from eocausal.errors import EmptyInputError, EocausalError, EstimationError
from eocausal.estimators.breakpoints import breakpoints
from eocausal.estimators.breaks_model import BreakModel
from eocausal.estimators.breaks_number import Sequential
from eocausal.estimators.breaks_sieve import ArSieve
from eocausal.estimators.controls_reach import distances_km, outside_reach

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.impact import Impact

    Bool = NDArray[np.bool_]

__all__ = ["ControlBreaks", "ControlReach"]

BREAKS = "Controls that break themselves"
REACH = "Controls within the reach of the event"
HARMONICS = 2
FEWEST = 8
USUAL_SHARE = 0.15


@dataclass(frozen=True, slots=True)
class ControlBreaks:
    """Check that controls do not change at the event; fail if the effect is another without them.

    Two tests of each control. A search for breaks of its level, against red noise, says whether it
    breaks and when. A structural model without controls says how far its mean after the event lies
    from what it would have been, as for the outcome itself.

    Parameters
    ----------
    within
        Times by which a break may miss the event and still count as near.
    trend
        Let controls have a straight line beside breaks.
    sieve
        How red noise is drawn.
    seed
        Of what is drawn.
    """

    within: int = 12
    trend: bool = False
    sieve: ArSieve = field(default_factory=lambda: ArSieve(draws=499))
    seed: int = 0

    def run(self, subject: Impact) -> CheckResult:
        """Look at each control.

        Raises
        ------
        EmptyInputError
            If the impact has no controls.
        """
        question = question_of(subject)
        names = list(question.controls.columns)
        if not names:
            raise EmptyInputError(
                "The impact has no controls.",
                cause="None can break.",
                next_step="Leave this check out.",
            )
        x = question.controls.to_numpy(dtype=float)
        found = question.averages(x.T, controls=x[:, :0])
        rows = []
        for k, name in enumerate(names):
            sd = float(np.nanstd(x[question.before, k], ddof=1))
            numbers = row(found, k)
            rows.append({
                "control": str(name), **self._breaks(question, x[:, k]), **numbers,
                "in_sd": numbers["estimate"] / sd if sd > 0 else np.nan,
            })  # fmt: skip
        return self._result(question, pd.DataFrame(rows))

    def _breaks(self, question: Question, values: np.ndarray[Any, Any]) -> dict[str, Any]:
        """Return all breaks of a control in words, and the one nearest to the event if near."""
        empty = {"breaks": "", "near": "", "near_change": np.nan, "near_p": np.nan, "note": ""}
        used = (question.before | question.post) & np.isfinite(values)
        at = np.flatnonzero(used)
        after = int((used & question.post).sum())
        least = max(FEWEST, min(round(USUAL_SHARE * len(at)), after))
        model = BreakModel(trend=self.trend, min_segment=least)
        if question.model.seasons:
            period = min(s.period * s.duration for s in question.model.seasons)
            model = replace(model, harmonics=min(HARMONICS, (period - 1) // 2), period=period)
        series = pd.Series(np.where(used, values, np.nan), question.times)
        alpha = question.alpha / question.controls.shape[1]
        try:
            search = breakpoints(
                series, model=model, choice=Sequential(alpha, self.sieve), seed=self.seed
            )
        except EocausalError as error:
            return {**empty, "note": error.fact}
        said = [f"{b.after} ({b.first} to {b.last}): {b.change:+.3g}" for b in search.breaks]
        empty["breaks"] = "; ".join(said)
        near = [
            (abs(int(at[b.at]) - question.first), k)
            for k, b in enumerate(search.breaks)
            if abs(int(at[b.at]) - question.first) <= self.within
        ]
        if near:
            b = search.breaks[min(near)[1]]
            empty.update(near=b.after, near_change=b.change, near_p=b.p_value)
        return empty

    def _result(self, question: Question, table: pd.DataFrame) -> CheckResult:
        count = len(table)
        near = (table["near"] != "").to_numpy()
        moved = column(table, "p_value") * count < question.alpha
        values: dict[str, Any] = {
            "break_near_event": list(table.loc[near, "control"]),
            "change_at_event": list(table.loc[moved, "control"]),
            "smallest_p": float(min(1.0, np.nanmin(column(table, "p_value")) * count)),
        }
        parts = [_one(r, question) for r in table[near | moved].to_dict("records")]
        verdict = Verdict.PASS
        if (near & moved).any():
            verdict, said = _without(question, near & moved, values)
            parts.append(said)
        elif parts or (table["note"] != "").any():
            verdict = Verdict.WARN
        claim = (
            " ".join(parts)
            if parts
            else f"No control ({count}) breaks within {self.within} times of the event, and none "
            "lies elsewhere after it than it would have."
        )
        notes = [f"{r['control']}: {r['note']}" for r in table.to_dict("records") if r["note"]]
        detail = [_meaning() if parts else "", *notes]
        return CheckResult(BREAKS, verdict, claim, " ".join(d for d in detail if d), table, values)


def _one(found: dict[Any, Any], question: Question) -> str:
    change = f"{found['near_change']:+.3g} (p = {found['near_p']:.2g})"
    text = f"breaks in {found['near']} by {change}" if found["near"] else "has no break near"
    low, high = np.array([found["ci_low"]]), np.array([found["ci_high"]])
    says = "excludes zero" if excludes_zero(low, high)[0] else "includes zero"
    return (
        f"{found['control']} {text}; from {question.label(question.first)} on its mean is off by "
        f"{found['estimate']:+.3g} ({found['in_sd']:+.2f} sd; {found['ci_low']:.3g} to "
        f"{found['ci_high']:.3g}, which {says})."
    )


def _without(question: Question, out: Bool, values: dict[str, Any]) -> tuple[Verdict, str]:
    """Estimate the effect without the controls that change; fail if that is another effect."""
    x = question.controls.to_numpy(dtype=float)
    whole, rest = row(question.averages(), 0), row(question.averages(controls=x[:, ~out]), 0)
    values.update(estimate=whole["estimate"], estimate_without=rest["estimate"])
    low, high = (np.array([f[end] for f in (whole, rest)]) for end in ("ci_low", "ci_high"))
    sure = excludes_zero(low, high)
    another = (
        sure[0] != sure[1]
        or whole["estimate"] * rest["estimate"] < 0
        or abs(rest["estimate"] - whole["estimate"]) > whole["std_error"]
    )
    text = (
        f"Without {'it' if out.sum() == 1 else 'them'} the effect is {rest['estimate']:.4g} "
        f"({rest['ci_low']:.4g} to {rest['ci_high']:.4g}), with all controls "
        f"{whole['estimate']:.4g} ({whole['ci_low']:.4g} to {whole['ci_high']:.4g})."
    )
    return (Verdict.FAIL if another else Verdict.WARN), text


def _meaning() -> str:
    return (
        "A control that changes with the event was reached by it, or something else happened to "
        "both, or its sensor changed. If it was reached, leave it out for good."
    )


@dataclass(frozen=True, slots=True, eq=False)
class ControlReach:
    """Check that controls lie beyond the reach of the event.

    Parameters
    ----------
    places
        ``lon`` and ``lat`` of each control, by its name.
    event
        The same of one or several points of the event.
    reach_km
        How far it may have been felt: a matter of currents and knowledge of the site.
    """

    places: pd.DataFrame
    event: pd.DataFrame
    reach_km: float

    def run(self, subject: Impact) -> CheckResult:
        """Measure the distances.

        Raises
        ------
        EstimationError
            If a control of the impact has no place.
        """
        names = list(question_of(subject).controls.columns)
        lost = [name for name in names if name not in self.places.index]
        if lost or not names:
            raise EstimationError(
                f"Controls without a place: {', '.join(map(str, lost))}."
                if lost else "The impact has no controls.",
                cause="Their distance from the event cannot be told.",
                next_step="Give a row of places for each control.",
            )  # fmt: skip
        places = self.places.loc[names]
        km = distances_km(places, self.event)
        inside = ~outside_reach(places, self.event, self.reach_km).to_numpy()
        table = pd.DataFrame({"control": names, "km": km.to_numpy(), "within": inside})
        near = ", ".join(
            f"{r['control']} ({r['km']:.1f} km)"
            for r in table[inside].sort_values("km").to_dict("records")
        )
        nearest = float(km.min())
        values = {"reach_km": self.reach_km, "nearest_km": nearest, "within": int(inside.sum())}
        if inside.any():
            return CheckResult(
                REACH, Verdict.FAIL,
                f"{int(inside.sum())} of {len(names)} controls lie within {self.reach_km:g} km of "
                f"the event: {near}.",
                "What the event did to a control is taken out of the effect. Leave them out, or "
                "take controls further away.", table, values,
            )  # fmt: skip
        claim = (
            f"The nearest of {len(names)} controls is {nearest:.1f} km from the event, beyond its "
            f"reach of {self.reach_km:g} km."
        )
        return CheckResult(REACH, Verdict.PASS, claim, "", table, values)
