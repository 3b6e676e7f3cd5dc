"""Effects by weighting for a user who has only a table."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eocausal.contracts import check_columns
from eocausal.errors import EstimationError, OverlapError
from eocausal.studies.assemble import complete_covariates, read_table
from eocausal.studies.records import plain_records
from eocausal.studies.table_commands import Answer

if TYPE_CHECKING:
    import pandas as pd

    from eocausal.effects import VarianceRule
    from eocausal.estimators.observational import OutcomeModel, PropensityModel
    from eocausal.estimators.scores import Score
    from eocausal.estimators.trimming import Trimming
    from eocausal.estimators.weighting import Weighting
    from eocausal.folds import FoldRule

__all__ = [
    "TableWeighting",
    "parse_folds",
    "parse_models",
    "parse_score",
    "parse_trim",
    "weight_table",
]


def _unknown(what: str, text: str, known: Sequence[str]) -> EstimationError:
    import difflib

    close = difflib.get_close_matches(text, known, n=1)
    return EstimationError(
        f"{text!r} is not {what}" + (f" (closest: {close[0]})." if close else "."),
        cause=f"Known are {', '.join(known)}.",
        next_step="Write one of these.",
    )


def parse_score(text: str, estimand: str | None = None) -> Score:
    """Read a score: ``hajek``, ``aipw``, ``ato``, ``att``, ``ebal`` or ``cbps``.

    ``ato`` and ``att`` are weighting (Hájek) for that population; ``estimand`` (``ate``, ``att``,
    ``ato``) sets the population of the others.

    Raises
    ------
    EstimationError
        If it is none of these.
    """
    from eocausal.estimators.arm_means import Estimand
    from eocausal.estimators.scores import AIPW, CBPS, EntropyBalancing, Hajek

    populations = {str(e).lower(): e for e in Estimand}
    if estimand is not None and estimand.lower() not in populations:
        raise _unknown("an estimand", estimand, list(populations))
    given = populations[estimand.lower()] if estimand is not None else None
    fixed = {"ato": Estimand.ATO, "att": Estimand.ATT}
    if text in fixed:
        return Hajek(given or fixed[text])
    kinds: dict[str, tuple[Callable[[Estimand], Score], Estimand]] = {
        "hajek": (Hajek, Estimand.ATE),
        "aipw": (AIPW, Estimand.ATE),
        "ebal": (EntropyBalancing, Estimand.ATT),
        "cbps": (CBPS, Estimand.ATE),
    }
    if text not in kinds:
        raise _unknown("a score", text, [*kinds, *fixed])
    kind, usual = kinds[text]
    return kind(given or usual)


def parse_models(text: str) -> tuple[PropensityModel, OutcomeModel]:
    """Read how probabilities and outcomes are learned: ``logit``, ``ridge`` or ``boost``.

    Raises
    ------
    EstimationError
        If it is none of these.
    """
    from eocausal.estimators.boosting import BoostedOutcome, BoostedPropensity
    from eocausal.estimators.logit import Logit
    from eocausal.estimators.ridge import Ridge
    from eocausal.estimators.ridge_logit import RidgeLogit

    known: dict[str, Callable[[], tuple[PropensityModel, OutcomeModel]]] = {
        "logit": lambda: (Logit(), Ridge()),
        "ridge": lambda: (RidgeLogit(), Ridge()),
        "boost": lambda: (BoostedPropensity(), BoostedOutcome()),
    }
    if text not in known:
        raise _unknown("a model of treatment", text, list(known))
    return known[text]()


def parse_folds(text: str, *, lon: str, lat: str) -> FoldRule | None:
    """Read folds: ``none``, ``5``, ``group:COLUMN`` or ``blocks:100km``.

    Raises
    ------
    EstimationError, FoldError
        If it is none of these.
    """
    from eocausal.folds import GroupFolds, RandomFolds, SpatialBlocks

    name, _, option = text.partition(":")
    if text == "none":
        return None
    if text.isdigit():
        return RandomFolds(int(text))
    if name == "group" and option:
        return GroupFolds(option)
    if name == "blocks" and (km := _km(option)) is not None:
        return SpatialBlocks(km, lon=lon, lat=lat)
    raise _unknown("a rule for folds", text, ["none", "5", "group:COLUMN", "blocks:100km"])


def parse_trim(text: str | None) -> Trimming | None:
    """Read what is done about extreme probabilities: ``crump``, ``0.05`` or ``clip:0.01``.

    Raises
    ------
    EstimationError
        If it is none of these.
    """
    from eocausal.estimators.trimming import Clip, Crump, Drop

    if text is None or text == "none":
        return None
    if text == "crump":
        return Crump()
    name, _, option = text.rpartition(":")
    try:
        bound = float(option)
    except ValueError:
        bound = -1.0
    if bound < 0 or name not in ("", "clip"):
        raise _unknown("a way to trim", text, ["none", "crump", "0.05", "clip:0.01"])
    return Clip(bound) if name == "clip" else Drop(bound)


def _km(text: str) -> float | None:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(?:km)?", text)
    return float(found[1]) if found else None


def parse_conley(text: str, *, lon: str, lat: str) -> VarianceRule:
    """Read the cutoff of Conley's variance: ``50km``.

    Raises
    ------
    EstimationError
        If it is no distance.
    """
    from eocausal.estimators.inference import Conley

    km = _km(text)
    if km is None:
        raise EstimationError(
            f"{text!r} is not a distance in kilometres.",
            cause="Influence values of units closer than it are taken to be correlated.",
            next_step="Write a number, e.g. 50km.",
        )
    return Conley(km, lon=lon, lat=lat)


@dataclass(frozen=True, slots=True)
class TableWeighting:
    """What the user asked for, beside the decisions: which columns, and which variances.

    Attributes
    ----------
    treatment, outcome, covariates
        Columns.
    untreated
        Value of ``treatment`` that means none; None for the usual words.
    vcov
        Variances, the first for the headline; empty for independent units.
    seed
        Of folds and models.
    """

    treatment: str
    outcome: str
    covariates: tuple[str, ...]
    untreated: str | None = None
    vcov: tuple[VarianceRule, ...] = ()
    seed: int = 1


def weight_table(path: Path, asked: TableWeighting, decisions: Weighting) -> Answer:
    """Estimate effects of a treatment that was placed, from a table.

    Of two treatments their difference is estimated too. If the effect is refused because arms do
    not overlap, the answer has a record that says so (status ``refused``, no number) and those of
    the effects that can be estimated instead.

    Raises
    ------
    LeakageError, OutcomeError, DesignError, EstimationError, StudyError
    """
    from eocausal.checks.derived_columns import refuse_derived_columns
    from eocausal.checks.support import alternatives, refusal
    from eocausal.estimators.observational import observe

    units = read_table(path)
    names = list(dict.fromkeys(asked.covariates))
    check_columns(units, [asked.treatment, asked.outcome, *names], what="table")
    complete, columns, notes = _completed(units, names)
    data = observe(
        complete, treatment=asked.treatment, outcome=asked.outcome, covariates=columns,
        untreated=asked.untreated,
    )  # fmt: skip
    refuse_derived_columns(data)
    rules = list(asked.vcov) or [decisions.vcov]
    decided = replace(decisions, vcov=rules[0])
    records: list[dict[str, Any]] = []
    try:
        fitted = decided.fit(data, seed=asked.seed)
    except OverlapError as error:
        records = [refusal(data, decided, error), *alternatives(data, decided, asked.seed)]
    else:
        effects = fitted.effects()
        if len(data.arms) == 3:
            effects.append(fitted.contrast(data.arms[2], data.arms[1]))
        for effect in effects:
            records.append(effect.record())
            records += [effect.with_vcov(rule).record() for rule in rules[1:]]
    records[0]["primary"] = True
    return Answer(plain_records(records), notes)


def _completed(
    units: pd.DataFrame, names: Sequence[str]
) -> tuple[pd.DataFrame, list[str], tuple[str, ...]]:
    """Impute what is missing; complete columns of texts stay as they are, so that regions say them.

    Returns
    -------
    The table, the confounders' columns, and what was done, in sentences.
    """
    from pandas.api import types

    complete, columns, notes, _ = complete_covariates(units, names, missing="impute")
    texts = [
        name
        for name in names
        if not units[name].isna().any()
        and not types.is_numeric_dtype(units[name])
        and not types.is_datetime64_any_dtype(units[name])
    ]
    coded = tuple(f"{name}=" for name in texts)
    return complete, [c for c in columns if not c.startswith(coded)] + texts, notes
