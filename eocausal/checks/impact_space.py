"""Placebos in space: places that the event did not reach take the treated role in turn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eocausal.checks.base import CheckResult, Verdict
from eocausal.checks.impact_question import (
    Question,
    column,
    excludes_zero,
    normal_scores,
    question_of,
    row,
)
from eocausal.checks.impact_ranks import PlaceboRank, judge, p_words, rank_among, spread_words
from eocausal.checks.impact_ratios import ratio_rows
from eocausal.contracts import some
from eocausal.errors import EmptyInputError, EstimationError
from eocausal.estimators.controls_innovations import independent_number, innovations
from eocausal.estimators.controls_reach import distances_km

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.impact import Impact

    Float64 = NDArray[np.float64]

__all__ = ["PlaceboInSpace", "Statistic"]

NAME = "Placebo places"
SAME = 1.0 - 1e-12


class Statistic(StrEnum):
    """What is compared.

    ``t``: average effect over its standard error. ``rmse_ratio``: how far a synthetic control of
    the other places misses after the event, over how far before (Abadie, Diamond & Hainmueller
    2010, section 3.4).
    """

    T = "t"
    RMSE_RATIO = "rmse_ratio"


@dataclass(frozen=True, slots=True, eq=False)
class PlaceboInSpace:
    """Check that places which the event did not reach have no effect, and that the real one has.

    Each candidate is put in the place of the outcome, with the model and the controls of the
    impact; a control that is the candidate itself is left out, and the real outcome is never among
    the controls. A control that is the mean of a region knows the pixels it is made of: take
    candidates from outside of it.

    Parameters
    ----------
    candidates
        A column for each site or pixel, matched by date; the impact's controls if not given.
    statistic
        What is compared.
    places, event, reach_km
        ``lon`` and ``lat`` of each candidate (a row each) and of the event, and how far it may have
        been felt: candidates within are left out and named.
    """

    candidates: pd.DataFrame | None = None
    statistic: Statistic | str = Statistic.T
    places: pd.DataFrame | None = None
    event: pd.DataFrame | None = None
    reach_km: float | None = None

    def __post_init__(self) -> None:
        if self.statistic not in tuple(Statistic):
            raise EstimationError(
                f"statistic={self.statistic!r} is not one of {', '.join(Statistic)}.",
                cause="It says what of the effects is compared.",
                next_step="Use 't' unless all candidates are measured alike and have no gaps.",
            )
        given = [part is not None for part in (self.places, self.event, self.reach_km)]
        if any(given) and not all(given):
            raise EstimationError(
                "A reach needs reach_km, the places of the candidates and those of the event.",
                cause="Candidates are left out by their distance from it.",
                next_step="Give all three, or none.",
            )

    def run(self, subject: Impact) -> CheckResult:
        """Estimate the effect at every candidate, and rank the real one among them."""
        question = question_of(subject)
        given = question.impact.request.controls if self.candidates is None else self.candidates
        if given is None or not given.shape[1]:
            raise EmptyInputError(
                "There is no candidate, and the impact has no controls.",
                cause="No place can take the treated role.",
                next_step="Give PlaceboInSpace(candidates) with a column for each place.",
            )
        values, notes = question.matched(given)
        notes = [note or why for note, why in zip(notes, self._near(given), strict=True)]
        usable = np.array([not note for note in notes])
        ratio = self.statistic == Statistic.RMSE_RATIO
        table = pd.DataFrame({"place": given.columns, "note": notes})
        numbers = (ratio_rows if ratio else _effect_rows)(question, values, usable)
        table = pd.concat([table, numbers.iloc[1:].reset_index(drop=True)], axis=1)
        missing = table["statistic"].isna() & (table["note"] == "")
        table.loc[missing, "note"] = "too few values"
        known = np.isfinite(column(table, "statistic"))
        if not known.any():
            claim = "The effect can be estimated at no candidate."
            return CheckResult(NAME, Verdict.WARN, claim, _left_out(table), table)
        new = innovations(
            np.where(question.before[:, None], values[:, known], np.nan), question.model.seasons,
            question.controls.to_numpy(dtype=float) if question.controls.shape[1] and not ratio
            else None,
        )  # fmt: skip
        return _result(question, numbers.iloc[0].to_dict(), table, independent_number(new))

    def _near(self, given: pd.DataFrame) -> list[str]:
        if self.places is None or self.event is None or self.reach_km is None:
            return [""] * given.shape[1]
        km = distances_km(self.places.loc[given.columns], self.event).to_numpy()
        return [
            f"{d:.1f} km from the event, within its reach" if d <= self.reach_km else "" for d in km
        ]


def _effect_rows(question: Question, values: Float64, usable: NDArray[np.bool_]) -> pd.DataFrame:
    """Return effects of the real outcome and then of each candidate, NaN where not usable."""
    x = question.controls.to_numpy(dtype=float)
    rows: list[dict[str, Any]] = [row(question.averages(), 0)]
    rows += [{} for _ in range(values.shape[1])]
    own = [_same_columns(values[:, k], x) if usable[k] else None for k in range(values.shape[1])]
    plain = [k for k, same in enumerate(own) if same is not None and not same.any()]
    if plain:
        found = question.averages(values[:, plain].T)
        for at, k in enumerate(plain):
            rows[k + 1] = row(found, at)
    for k, same in enumerate(own):
        if same is not None and same.any():
            rows[k + 1] = row(question.averages(values[:, [k]].T, controls=x[:, ~same]), 0)
    table = pd.DataFrame(rows)
    table["statistic"] = table["estimate"].abs() / table["std_error"]
    return table


def _same_columns(candidate: Float64, controls: Float64) -> NDArray[np.bool_]:
    """Return which controls are the candidate, in the same or another unit."""
    same = np.zeros(controls.shape[1], dtype=bool)
    for k in range(controls.shape[1]):
        both = np.isfinite(candidate) & np.isfinite(controls[:, k])
        a, b = candidate[both], controls[both, k]
        if both.sum() > 2 and a.std() and b.std():
            same[k] = abs(np.corrcoef(a, b)[0, 1]) > SAME
    return same


def _result(
    question: Question, real: dict[Any, Any], table: pd.DataFrame, worth: float
) -> CheckResult:
    known = table[table["statistic"].notna()]
    placebos = column(known, "statistic")
    alpha, ratio = question.alpha, "estimate" not in table
    effect = row(question.averages(), 0) if ratio else real
    claimed = bool(excludes_zero(np.array([effect["ci_low"]]), np.array([effect["ci_high"]]))[0])
    statistic, own = float(real["statistic"]), math.nan
    scores, rejected = None, 0
    if not ratio:
        table["excludes_zero"] = excludes_zero(column(table, "ci_low"), column(table, "ci_high"))
        rejected = int(table["excludes_zero"].sum())
        scores = normal_scores(column(known, "estimate"), column(known, "p_value"))
        own = float(normal_scores(np.array([effect["estimate"]]), np.array([effect["p_value"]]))[0])
    rank = rank_among(
        statistic, placebos, worth, score=own, scores=scores, alpha=alpha, rejected=rejected
    )
    said = "" if ratio else spread_words(rank)
    verdict, meaning = judge(rank, claimed, alpha)
    detail = " ".join(part for part in (said, meaning, _left_out(table)) if part)
    values = {**rank.values(), "statistic": statistic}
    return CheckResult(NAME, verdict, _claim(rank, statistic, ratio), detail, table, values)


def _claim(rank: PlaceboRank, statistic: float, ratio: bool) -> str:
    what = (
        f"the ratio of errors after and before the event ({statistic:.2f})"
        if ratio
        else f"the effect ({statistic:.1f} standard errors)"
    )
    return (
        f"At {rank.at_least} of {rank.placebos} places without the event {what} is as large: "
        f"{p_words(rank)}."
    )


def _left_out(table: pd.DataFrame) -> str:
    left = table[table["note"] != ""]
    if left.empty:
        return ""
    name, why = left["place"].iloc[0], left["note"].iloc[0]
    return f"{len(left)} candidates were left out, such as {some([name])} ({why})."
