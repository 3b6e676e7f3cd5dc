"""Refuse covariates and images that carry the treatment.

A covariate that equals, contains or is a function of the treatment, alone or together with
another covariate, hides the effect it should sharpen. In a trial it gives itself away: before
arms are drawn no covariate can show a pattern that implies them, except by a luck whose size the
draw itself tells (Fisher 1935). A column is refused when that luck is smaller than ``alpha``
divided by the number of patterns looked for, whatever its distribution; columns that merely name
clusters tell nothing about the draw and pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import chi2, rankdata

from eocausal.checks import leakage_pairs as pairs
from eocausal.checks import leakage_rules as rules
from eocausal.checks.base import CheckResult, Verdict
from eocausal.checks.draw import Draw
from eocausal.checks.leakage_rules import Column, Pattern
from eocausal.contracts import check_columns, some
from eocausal.designs import parse_date
from eocausal.errors import EmbeddingError, EstimationError, LeakageError

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from eocausal.designs import Trial

__all__ = [
    "Leak",
    "Leakage",
    "TrialData",
    "covariate_leaks",
    "embedding_leak",
    "refuse_embedding_leak",
    "refuse_leaks",
]

ALPHA = 1e-6
FEW_CLUSTER_CHANCE = 1e-3

SINGLE_RULES = (
    rules.arms_equal,
    rules.missing_in_one_arm,
    rules.one_sided,
    rules.pure_values,
    rules.separated,
)
CLOSE = math.log(20)
VALUE_GROUPS = 20
PAIR_RULES = (pairs.cells, pairs.lines, pairs.neighbors)


@dataclass(frozen=True, slots=True)
class Leak:
    """A covariate that carries the treatment.

    Attributes
    ----------
    column
        Its name.
    given
        Names of the covariates that must be known to read the treatment off it; usually none.
    how
        The pattern, in words that continue the column's name.
    p_value
        Probability of that pattern, or a stronger one found in the same search, if the column
        had been fixed before arms were drawn at random; NaN for an image date.
    """

    column: str
    given: tuple[str, ...]
    how: str
    p_value: float

    def __str__(self) -> str:
        given = f" (given {', '.join(self.given)})" if self.given else ""
        return f"{self.column}{given} {self.how}"


@dataclass(frozen=True, slots=True, eq=False)
class TrialData:
    """A trial with the data that are to adjust its estimate: the subject of the trial's checks.

    Attributes
    ----------
    units
        Units table.
    trial
        The design.
    covariates
        Names of columns of ``units``.
    embedding_last_date
        ISO date of the last image behind the embedding; ``''`` if unknown, None if there is no
        embedding.
    outcome
        Name of the outcome, whose missing values :class:`~eocausal.checks.overlap.Attrition`
        counts; None if it has none.
    has_image
        (n,) whether each unit has an image; None if images are not used.
    """

    units: pd.DataFrame
    trial: Trial
    covariates: tuple[str, ...] = ()
    embedding_last_date: str | None = None
    outcome: str | None = None
    has_image: NDArray[np.bool_] | None = None


def covariate_leaks(
    units: pd.DataFrame, trial: Trial, covariates: Sequence[str], *, alpha: float = ALPHA
) -> list[Leak]:
    """Find the covariates that carry the treatment.

    Parameters
    ----------
    units
        Units table; columns of any type, with or without missing values.
    trial
        The design. The unit of assignment is the cluster where one is named, and each arm's part
        of it where a cluster holds both arms; blocks and probabilities are respected.
    covariates
        Columns to look at.
    alpha
        Bound on the probability that a search among honest covariates names any of them. A column
        that equals the arm (or is missing for exactly one arm) is named whatever its probability,
        and so is one that is a different exact linear function of another column in each arm,
        unless the draw had fewer than about a hundred outcomes.

    Returns
    -------
    list of Leak
        In the order of ``covariates``, at most one for each. Of two columns that tell the arm only
        together, the one more associated with the arm is named.

    Raises
    ------
    MissingColumnError, AssignmentError, OneArmError, OneClusterError, EstimationError
    """
    if not 0 < alpha < 1:
        raise EstimationError(
            f"alpha={alpha} is not a probability.",
            cause="It bounds the chance of a false alarm.",
            next_step="Give a small number such as 1e-6.",
        )
    names = list(dict.fromkeys(covariates))
    check_columns(units, names, what="units table")
    draw = Draw.of(units, trial)
    columns = [Column.of(units[name], name) for name in names]
    p = len(columns)
    if p == 0:
        return []
    limit = math.log(alpha / 2)
    found = {
        c.name: leak
        for c in columns
        if (leak := _alone(c, draw, limit - math.log(len(SINGLE_RULES) * p))) is not None
    }
    rest = [c for c in columns if c.name not in found]
    found |= _in_pairs(rest, draw, limit - math.log(len(PAIR_RULES) * p**2))
    return [found[name] for name in names if name in found]


def _counts(pattern: Pattern, limit: float) -> bool:
    return (
        pattern.certain
        or pattern.log_chance < limit
        or (pattern.throughout and pattern.log_chance < math.log(FEW_CLUSTER_CHANCE))
    )


def _p_value(pattern: Pattern) -> float:
    return math.exp(min(pattern.log_chance, 0.0))


def _alone(column: Column, draw: Draw, limit: float) -> Leak | None:
    for rule in SINGLE_RULES:
        pattern = rule(column, draw)
        if pattern is not None and _counts(pattern, limit):
            return Leak(column.name, (), pattern.how, _p_value(pattern))
    return None


def _in_pairs(columns: list[Column], draw: Draw, limit: float) -> dict[str, Leak]:
    """Name one column of every pair that tells the arm, starting with the most associated."""
    if len(columns) < 2:
        return {}
    hits = [
        hit for rule in PAIR_RULES for hit in rule(columns, draw) if _counts(hit.pattern, limit)
    ]
    evidence = {i: _evidence(columns[i], draw) for hit in hits for i in (hit.x, hit.z)}

    def order(hit: pairs.PairPattern) -> tuple[float, int, bool, float]:
        named = _named(hit, evidence)
        return (-evidence[named], named, hit.x != named, hit.pattern.log_chance)

    found: dict[str, Leak] = {}
    for hit in sorted(hits, key=order):
        named = _named(hit, evidence)
        other = hit.z if named == hit.x else hit.x
        if columns[named].name in found or columns[other].name in found:
            continue
        how = hit.pattern.how
        if named != hit.x:
            how = f"tells the arm together with {columns[other].name}, which {how}"
        found[columns[named].name] = Leak(
            columns[named].name, (columns[other].name,), how, _p_value(hit.pattern)
        )
    return found


def _named(hit: pairs.PairPattern, evidence: dict[int, float]) -> int:
    """Return the column of a pair more associated with the arm; if close, the later one."""
    if abs(evidence[hit.x] - evidence[hit.z]) < CLOSE:
        return max(hit.x, hit.z)
    return hit.x if evidence[hit.x] > evidence[hit.z] else hit.z


def _evidence(column: Column, draw: Draw) -> float:
    """Minus log p of no association of the arm with the column's rank, spread or values."""
    seen = column.present
    arm = draw.treated[seen].astype(float)
    if arm.size < 2 or arm.std() == 0:
        return 0.0
    group = column.code[seen]
    tests = []
    if column.number is not None:
        number = column.number[seen]
        for score in (rankdata(number), rankdata(np.abs(number - np.median(number)))):
            if score.std() > 0:
                tests.append((arm.size * np.corrcoef(score, arm)[0, 1] ** 2, 1))
        if len(column.values) > VALUE_GROUPS:
            group = np.asarray(rankdata(number) * VALUE_GROUPS / (arm.size + 1), dtype=np.int64)
    size = np.bincount(group)
    mean = np.bincount(group, arm) / np.maximum(size, 1)
    if (groups := int((size > 0).sum())) > 1:
        tests.append((size @ (mean - arm.mean()) ** 2 / arm.var(), groups - 1))
    return max((-float(chi2.logsf(value, df)) for value, df in tests), default=0.0)


def refuse_leaks(
    units: pd.DataFrame, trial: Trial, covariates: Sequence[str], *, alpha: float = ALPHA
) -> None:
    """Raise if a covariate carries the treatment; parameters as in :func:`covariate_leaks`.

    Raises
    ------
    LeakageError
        Naming every such column, the pattern, and the columns that remain.
    """
    leaks = covariate_leaks(units, trial, covariates, alpha=alpha)
    if not leaks:
        return
    gone = {leak.column for leak in leaks}
    kept = [name for name in dict.fromkeys(covariates) if name not in gone]
    remain = f"use only {some(kept, 20)}" if kept else "use no covariates"
    raise LeakageError(
        f"{_count(len(gone), 'covariate carries', 'covariates carry')} the treatment "
        f"{trial.arm!r}: " + "; ".join(map(str, leaks)) + ".",
        cause="Adjusting for what the treatment made removes part of its effect.",
        next_step=f"Leave {some([leak.column for leak in leaks], 20)} out and {remain}. If arms "
        "were drawn by group, name that group as the trial's cluster.",
    )


def _count(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"


def embedding_leak(embedding: xr.DataArray, trial: Trial) -> Leak | None:
    """Find out whether an embedding saw images taken on or after the start of treatment.

    Returns None as well if either date is unknown: :class:`Leakage` warns of that.

    Raises
    ------
    EmbeddingError
        If the attribute ``last_image_date`` is missing or not a date.
    """
    if "last_image_date" not in embedding.attrs:
        raise EmbeddingError(
            "The embedding's attribute 'last_image_date' is missing.",
            cause="Whether its images are older than the treatment cannot be checked.",
            next_step="Set it to an ISO date, or to '' if it is not known.",
        )
    name = str(embedding.attrs.get("encoder", "")) or "embedding"
    return _late(str(embedding.attrs["last_image_date"]), trial, name)


def _late(last_image_date: str, trial: Trial, name: str) -> Leak | None:
    if not last_image_date or not trial.start:
        return None
    try:
        last = pd.Period(last_image_date).end_time
    except ValueError as error:
        raise EmbeddingError(
            f"last_image_date is {last_image_date!r}, which is not a date.",
            cause=str(error),
            next_step="Write it as YYYY-MM-DD, or as '' if it is not known.",
        ) from error
    start = parse_date(trial.start, what="start")
    start = start.tz_convert(None) if start.tzinfo is not None else start
    if last < start:
        return None
    how = f"uses images up to {last_image_date}, but treatment began on {trial.start}"
    return Leak(name, (), how, math.nan)


def refuse_embedding_leak(embedding: xr.DataArray, trial: Trial) -> None:
    """Raise if an embedding saw images taken on or after the start of treatment.

    Raises
    ------
    LeakageError
        Stating both dates.
    """
    leak = embedding_leak(embedding, trial)
    if leak is not None:
        raise LeakageError(
            f"The embedding {leak}.",
            cause="An image taken after treatment may show its effect; it is no covariate.",
            next_step=f"Build the cube from images before {trial.start}, or correct the dates.",
        )


@dataclass(frozen=True, slots=True)
class Leakage:
    """Check that neither a covariate nor an image carries the treatment.

    Parameters
    ----------
    alpha
        See :func:`covariate_leaks`.
    """

    alpha: float = ALPHA

    def run(self, subject: TrialData) -> CheckResult:
        """Look for leaks; fail if there is one, warn if image or treatment dates are unknown."""
        trial = subject.trial
        leaks = covariate_leaks(subject.units, trial, subject.covariates, alpha=self.alpha)
        late = None
        unknown = ""
        if subject.embedding_last_date is not None:
            late = _late(subject.embedding_last_date, trial, "embedding")
            unknown = _unknown_dates(subject.embedding_last_date, trial)
        found = [*leaks, late] if late else leaks
        table = pd.DataFrame(
            [(k.column, ", ".join(k.given), k.how, k.p_value) for k in found],
            columns=["column", "given", "how", "p_value"],
        )
        verdict, claim, detail = self._words(subject, found, unknown)
        return CheckResult(
            "Leakage of treatment into covariates and images", verdict, claim, detail, table,
            {"leaks": [k.column for k in found], "dates_unknown": bool(unknown)},
        )  # fmt: skip

    def _words(
        self, subject: TrialData, found: list[Leak], unknown: str
    ) -> tuple[Verdict, str, str]:
        n = len(set(subject.covariates))
        if found:
            return (
                Verdict.FAIL,
                f"{some([k.column for k in found], 20)} "
                f"{'carries' if len(found) == 1 else 'carry'} the treatment.",
                " ".join(f"{k}." for k in found) + " Leave them out: adjusting for what the "
                "treatment made removes part of its effect." + (f" {unknown}" if unknown else ""),
            )
        clean = f"None of {_count(n, 'covariate', 'covariates')} carries the treatment"
        if unknown:
            return Verdict.WARN, f"{clean}, but the images' age is unchecked.", unknown
        dated = ""
        if subject.embedding_last_date:
            dated = (
                f"; the last image ({subject.embedding_last_date}) is older than the treatment "
                f"({subject.trial.start})"
            )
        return Verdict.PASS, clean + dated + ".", ""


def _unknown_dates(last_image_date: str, trial: Trial) -> str:
    gaps = []
    if not last_image_date:
        gaps.append("the date of the last image is not known")
    if not trial.start:
        gaps.append("the trial has no start")
    if not gaps:
        return ""
    return (
        f"Whether images are older than the treatment cannot be told: {' and '.join(gaps)}. "
        "Give dates to the scenes and start=... to the trial."
    )
