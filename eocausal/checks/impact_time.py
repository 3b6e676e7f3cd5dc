"""Placebos in time: events that did not happen, with the horizon of the real one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
from eocausal.errors import EstimationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.impact import Impact

    Int64 = NDArray[np.int64]

__all__ = ["PlaceboInTime", "pseudo_events"]

NAME = "Placebo events before the real one"
FEWEST_LEARNED = 36
CYCLES = 3


def pseudo_events(
    question: Question, offsets: Int64, gap: int, step: int, least: int
) -> tuple[Int64, pd.DataFrame]:
    """Estimate the effects of events that did not happen.

    Each is learned from what came before it alone and counted over the same steps after it; later
    values are cut off.

    Parameters
    ----------
    offsets
        Steps counted after an event, from 0.
    gap
        Steps between the last learned from and the event.
    step
        Steps between two events.
    least
        Fewest steps learned from.

    Returns
    -------
    (W,) first step of each window, and a row for each with its numbers.
    """
    last = int(np.flatnonzero(question.before)[-1])
    begin = int(np.flatnonzero(question.before & np.isfinite(question.y))[0])
    starts = np.arange(last - int(offsets[-1]), begin + least + gap - 1, -step)[::-1]
    rows = []
    steps = np.arange(len(question.y))
    for start in starts:
        before = question.before & (steps < start - gap)
        after = np.isin(steps, start + offsets)
        end = int(start + offsets[-1] + 1)
        found = row(question.averages(before=before, after=after, until=end), 0)
        rows.append({"event": question.label(int(start)), **found})
    return np.asarray(starts), pd.DataFrame(rows)


@dataclass(frozen=True, slots=True)
class PlaceboInTime:
    """Check that events which did not happen have no effect, and that the real one stands out.

    Parameters
    ----------
    horizon
        Times counted after each event, the real one too; as many as the impact counts if not
        given. A shorter one leaves room for more windows, and says less about the long run.
    step
        Times between two events; a quarter of the horizon if not given.
    least
        Fewest times to learn from. If not given, as many as the horizon or half of what it leaves
        before the event, and at least 36 and three cycles of the season.
    """

    horizon: int | None = None
    step: int | None = None
    least: int | None = None

    def __post_init__(self) -> None:
        given = [n for n in (self.horizon, self.step, self.least) if n is not None]
        if any(n < 1 for n in given):
            raise EstimationError(
                f"{self!r} has a number below one.",
                cause="They count times.",
                next_step="Leave out what is to be chosen.",
            )

    def run(self, subject: Impact) -> CheckResult:
        """Estimate the effects of all pseudo-events, and rank the real one among them."""
        question = question_of(subject)
        offsets = np.flatnonzero(question.post) - question.first
        if self.horizon is not None:
            offsets = offsets[offsets < self.horizon]
        span = int(offsets[-1]) + 1
        gap = question.first - 1 - int(np.flatnonzero(question.before)[-1])
        least = self._least(question, span)
        step = max(1, span // 4) if self.step is None else self.step
        starts, table = pseudo_events(question, offsets, gap, step, least)
        table = table.dropna(subset=["estimate"]) if len(table) else table
        if not len(table):
            return _no_room(question, span, least, gap)
        real = question.averages(
            after=np.isin(np.arange(len(question.y)), question.first + offsets)
        )
        return _result(question, row(real, 0), table, starts, span, least)

    def _least(self, question: Question, span: int) -> int:
        if self.least is not None:
            return self.least
        cycles = [CYCLES * s.period * s.duration for s in question.model.seasons]
        known = np.flatnonzero(question.before & np.isfinite(question.y))
        room = int(known[-1] - known[0] + 1 - span) // 2
        return max([FEWEST_LEARNED, min(span, room), *cycles])


def _result(
    question: Question,
    real: dict[str, float],
    table: pd.DataFrame,
    starts: Int64,
    span: int,
    least: int,
) -> CheckResult:
    estimate, se = column(table, "estimate"), column(table, "std_error")
    table["t"] = estimate / se
    rejected = excludes_zero(column(table, "ci_low"), column(table, "ci_high"))
    table["excludes_zero"] = rejected
    scores = normal_scores(estimate, column(table, "p_value"))
    statistic = abs(real["estimate"]) / real["std_error"]
    worth = (int(starts[-1]) - int(starts[0]) + span) / span
    own = normal_scores(np.array([real["estimate"]]), np.array([real["p_value"]]))[0]
    rank = rank_among(
        statistic, np.abs(column(table, "t")), worth, score=float(own), scores=scores,
        alpha=question.alpha, rejected=int(rejected.sum()),
    )  # fmt: skip
    claimed = bool(excludes_zero(np.array([real["ci_low"]]), np.array([real["ci_high"]]))[0])
    verdict, meaning = judge(rank, claimed, question.alpha)
    first = f"{table['event'].iloc[0]} to {table['event'].iloc[-1]}"
    learned = f"Each of them ({first}) was learned from at least {least} times before it."
    detail = " ".join(part for part in (spread_words(rank), meaning, learned) if part)
    values = {
        **rank.values(), "statistic": statistic, "estimate": real["estimate"], "horizon": span,
        "least_learned": least,
    }  # fmt: skip
    return CheckResult(NAME, verdict, _claim(rank, statistic, span), detail, table, values)


def _claim(rank: PlaceboRank, statistic: float, span: int) -> str:
    return (
        f"{rank.at_least} of {rank.placebos} events that did not happen have an effect as large as "
        f"the real one ({statistic:.1f} standard errors over {span} times): {p_words(rank)}."
    )


def _no_room(question: Question, span: int, least: int, gap: int) -> CheckResult:
    known = int((question.before & np.isfinite(question.y)).sum())
    room = int(question.before.sum()) - least - gap
    claim = (
        f"No event of {span} times fits before the real one: {known} values are there, and each "
        f"is to be learned from {least}."
    )
    shorter = f"PlaceboInTime(horizon={room}) has room." if room > 0 else "The record is too short."
    return CheckResult(NAME, Verdict.WARN, claim, f"This check says nothing. {shorter}")
