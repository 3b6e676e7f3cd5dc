"""Estimates for a user who has only a table: a trial, or a ranking."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eocausal.contracts import check_columns
from eocausal.designs import Trial
from eocausal.errors import EstimationError
from eocausal.estimators.inference import HC2, Clustered, Conley
from eocausal.studies.assemble import complete_covariates, read_table
from eocausal.studies.records import plain_records

if TYPE_CHECKING:
    from eocausal.effects import VarianceRule

__all__ = ["Answer", "parse_prob", "parse_vcov", "rank_table", "trial_table"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a table command prints.

    Attributes
    ----------
    records
        As in ``estimates.json``.
    notes
        What was done to the table, in sentences.
    """

    records: list[dict[str, Any]]
    notes: tuple[str, ...] = ()


def parse_prob(text: str | None) -> str | float | None:
    """Read a probability: a number, or the name of a column."""
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        return text


def parse_vcov(text: str, *, cluster: str | None, lon: str, lat: str) -> VarianceRule:
    """Read a variance: ``hc2``, ``clustered``, ``clustered:COLUMN`` or ``conley:50km``.

    Raises
    ------
    EstimationError
        If it is none of these.
    """
    name, _, option = text.partition(":")
    if name == "hc2" and not option:
        return HC2()
    if name == "clustered" and (option or cluster):
        return Clustered(option or str(cluster))
    if name == "conley":
        try:
            return Conley(float(option.removesuffix("km")), lon=lon, lat=lat)
        except ValueError:
            pass
    known = ["hc2", "clustered", "conley"]
    close = [] if name in known else difflib.get_close_matches(name, known, n=1)
    raise EstimationError(
        f"{text!r} is not a variance" + (f" (closest: {close[0]})." if close else "."),
        cause="Known are hc2, clustered (with --cluster), clustered:COLUMN and conley:50km.",
        next_step="Write one of these.",
    )


def trial_table(
    path: Path,
    trial: Trial,
    outcome: str,
    *,
    covariates: Sequence[str] = (),
    vcov: Sequence[VarianceRule] = (),
    level: float = 0.95,
) -> Answer:
    """Estimate the average effect of a trial in a table.

    The difference in means comes first, with the variance that the design implies unless others
    are asked for; then Lin's regression if there are covariates. Covariates that carry the
    treatment are refused.

    Raises
    ------
    LeakageError, OutcomeError, DesignError, MissingColumnError, StudyError
    """
    from eocausal.checks.leakage import refuse_leaks
    from eocausal.estimators.randomized import default_vcov, difference_in_means, lin_adjusted

    units = read_table(path)
    check_columns(units, [*trial.columns, outcome, *covariates], what="table")
    trial.assignment(units)
    covariates = tuple(dict.fromkeys(covariates))
    if outcome == trial.arm or outcome in covariates:
        raise EstimationError(
            f"The outcome {outcome!r} is named as the arm or a covariate too.",
            cause="An estimate would say nothing about the treatment.",
            next_step="Name another column.",
        )
    refuse_leaks(units, trial, covariates)
    rules = list(dict.fromkeys(vcov)) or [default_vcov(trial)]
    estimates = [difference_in_means(units, trial, outcome, vcov=rules[0])]
    notes: tuple[str, ...] = ()
    if covariates:
        complete, columns, notes, _ = complete_covariates(units, covariates, missing="impute")
        estimates.append(lin_adjusted(complete, trial, outcome, columns, vcov=rules[0]))
    records = [
        replace(item, level=level).record()
        for e in estimates
        for item in [e, *(e.with_vcov(rule) for rule in rules[1:])]
    ]
    records[0]["primary"] = True
    return Answer(plain_records(records), notes)


def rank_table(
    path: Path,
    *,
    score: str,
    priority: str,
    cluster: str | None = None,
    targets: Sequence[str] = ("autoc",),
    repetitions: int = 2000,
    seed: int = 1,
) -> Answer:
    """Say whether a ranking finds the units that gain more (RATE).

    Raises
    ------
    EstimationError, OneClusterError, MissingColumnError, StudyError
    """
    from eocausal.estimators.randomized import numeric_columns
    from eocausal.estimators.ranking import AUTOC, Qini, rate

    units = read_table(path)
    check_columns(units, [score, priority, *([cluster] if cluster else [])], what="table")
    values = numeric_columns(units, [score, priority], what="column")
    kinds: dict[str, AUTOC | Qini] = {"autoc": AUTOC(), "qini": Qini()}
    unknown = [t for t in targets if t not in kinds]
    if unknown:
        raise EstimationError(
            f"{unknown[0]!r} is not a target.",
            cause=f"Known are {', '.join(kinds)}.",
            next_step="Write one of these.",
        )
    records = [
        rate(
            values[:, 0], values[:, 1], target=kinds[name], repetitions=repetitions, seed=seed,
            cluster=units[cluster] if cluster else None,
        ).record()
        for name in dict.fromkeys(targets)
    ]  # fmt: skip
    return Answer(plain_records(records))
