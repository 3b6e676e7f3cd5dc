"""The effect of an event for a user who has only a table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eocausal.contracts import check_columns
from eocausal.errors import EstimationError, StudyError
from eocausal.studies.assemble import read_table
from eocausal.studies.impact_answer import ImpactAnswer
from eocausal.studies.impact_times import read_events, timed

if TYPE_CHECKING:
    import pandas as pd

    from eocausal.estimators.impact import Impact
    from eocausal.estimators.impact_held_out import HeldOut
    from eocausal.estimators.impact_transforms import Transform
    from eocausal.estimators.structural_model import Season, StructuralModel

__all__ = [
    "ImpactDraws",
    "ModelWords",
    "TableImpact",
    "answer_record",
    "answer_text",
    "impact_table",
    "read_model",
    "read_transform",
    "write_files",
]

TRENDS = {"level": "level", "line": "line", "trend": "local_linear", "semi_local": "semi_local"}


@dataclass(frozen=True, slots=True)
class ModelWords:
    """How the user names a model.

    Attributes
    ----------
    trend
        ``level``, ``line``, ``trend`` (level and slope walk) or ``semi_local``.
    season
        Times in a cycle, ``12``; several as ``7,52x7``: seasons of a cycle times the steps each
        lasts.
    compat
        ``R`` for CausalImpact's priors and conventions; None for ours.
    prior_level_sd
        Of CausalImpact's prior alone.
    dynamic, heavy_tails
        Whether coefficients walk, and whether the residual has far values.
    engine
        ``grid``, ``collapsed`` or ``gibbs``; None for the fastest that can.
    """

    trend: str = "level"
    season: str | None = None
    compat: str | None = None
    prior_level_sd: float | None = None
    dynamic: bool = False
    heavy_tails: bool = False
    engine: str | None = None


@dataclass(frozen=True, slots=True)
class TableImpact:
    """Which columns and times of a table are meant.

    Attributes
    ----------
    outcome
        Column.
    events
        Dates or rows, ``2019-05`` or ``2012-01..2013-12``.
    end
        Last time counted of the only event.
    learn_until
        Last time to learn from.
    controls
        Columns separated by commas; ``none``; None for every other column of numbers.
    time
        Column of dates; None to look for one.
    looks
        Column with the number of valid looks.
    """

    outcome: str
    events: tuple[str, ...]
    end: str | None = None
    learn_until: str | None = None
    controls: str | None = None
    time: str | None = None
    looks: str | None = None


@dataclass(frozen=True, slots=True)
class ImpactDraws:
    """How many draws, from which seed, for intervals of what level."""

    draws: int = 10_000
    seed: int = 1
    level: float = 0.95


def read_model(words: ModelWords) -> StructuralModel:
    """Read a model from words.

    Raises
    ------
    EstimationError
        If a word is not known, or goes with another one only.
    """
    from eocausal.estimators.structural_model import Engine, StructuralModel, Trend
    from eocausal.estimators.structural_priors import CompatiblePrior, LearnedPrior

    compat = words.compat is not None
    _known("a model", words.trend, list(TRENDS))
    if words.compat is not None:
        _known("a program to be compatible with", words.compat.upper(), ["R"])
    if words.engine is not None:
        _known("an engine", words.engine, [str(engine) for engine in Engine])
    if words.prior_level_sd is not None and not compat:
        raise EstimationError(
            "--prior-level-sd without --compat R.",
            cause="It belongs to CausalImpact's prior; ours learns how far the level walks.",
            next_step="Add --compat R, or leave it out.",
        )
    sd = 0.01 if words.prior_level_sd is None else words.prior_level_sd
    return StructuralModel(
        season=_seasons(words.season), trend=Trend(TRENDS[words.trend]), dynamic=words.dynamic,
        heavy_tails=words.heavy_tails, prior=CompatiblePrior(sd) if compat else LearnedPrior(),
        engine=None if words.engine is None else Engine(words.engine),
    )  # fmt: skip


def _known(what: str, text: str, known: list[str]) -> None:
    if text not in known:
        raise EstimationError(
            f"{text!r} is not {what}.",
            cause=f"Known are {', '.join(known)}.",
            next_step="Write one of these.",
        )


def _seasons(text: str | None) -> tuple[Season, ...] | None:
    from eocausal.estimators.structural_model import Season

    if text is None or text.strip() in ("", "0", "1", "none"):
        return None
    found = []
    for part in text.lower().split(","):
        period, _, duration = part.strip().partition("x")
        try:
            found.append(Season(int(period), int(duration or 1)))
        except ValueError as error:
            raise EstimationError(
                f"{part!r} is not a season.",
                cause="It is the number of times in a cycle, or that times the steps each lasts.",
                next_step="Write e.g. 12, or 7,52x7 for days with a weekly and a yearly cycle.",
            ) from error
    return tuple(found)


def read_transform(*, log: bool, logit: bool) -> Transform | None:
    """Return the scale of the model.

    Raises
    ------
    EstimationError
        If both are asked for.
    """
    from eocausal.estimators.impact_transforms import Log, Logit

    if log and logit:
        raise EstimationError(
            "--log and --logit together.",
            cause="A series is modelled on one scale.",
            next_step="Take --log for amounts, --logit for shares.",
        )
    return Log() if log else Logit() if logit else None


def impact_table(
    path: Path,
    asked: TableImpact,
    model: StructuralModel,
    computed: ImpactDraws | None = None,
    transform: Transform | None = None,
) -> tuple[Impact, tuple[str, ...]]:
    """Estimate the effect of an event from a table.

    Returns
    -------
    The impact, and what was done to the table, in sentences.

    Raises
    ------
    StudyError, MissingColumnError, EstimationError, DesignError, OutcomeError, AlignmentError
    """
    from eocausal.estimators.impact import bsts
    from eocausal.estimators.impact_looks import Looks

    how = ImpactDraws() if computed is None else computed
    table = read_table(path)
    named = [asked.outcome, *([asked.looks] if asked.looks else [])]
    check_columns(table, named, what="table")
    found = timed(table, asked.time)
    taken = {asked.outcome, asked.looks or asked.outcome, *found.columns}
    controls, notes = _controls(found.table, asked.controls, taken)
    event, learn_until = read_events(found, asked.events, asked.end, asked.learn_until)
    impact = bsts(
        found.table[asked.outcome], event, found.table[controls] if controls else None,
        model=model, learn_until=learn_until, draws=how.draws, seed=how.seed, level=how.level,
        variance=Looks(found.table[asked.looks]) if asked.looks else None, transform=transform,
    )  # fmt: skip
    return impact, (*found.notes, *notes)


def _controls(
    table: pd.DataFrame, text: str | None, taken: set[str]
) -> tuple[list[str], tuple[str, ...]]:
    """Return the controls, and which columns of numbers are none of their own accord."""
    from pandas.api import types

    if text is not None and text.strip().lower() == "none":
        return [], ()
    if text is not None:
        names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
        check_columns(table, names, what="table")
        return names, ()
    found: list[str] = []
    left: list[str] = []
    for name in table.columns:
        column = table[name]
        if name in taken or not types.is_numeric_dtype(column) or types.is_bool_dtype(column):
            continue
        values = column.dropna().to_numpy(dtype=float)
        counts = len(values) > 2 and bool((abs(values[1:] - values[:-1] - 1.0) < 1e-12).all())
        (left if counts or len(set(values)) < 2 else found).append(str(name))
    said = (
        (f"Not taken as controls: {', '.join(left)} (constant, or counting rows).",) if left else ()
    )
    return found, said


def answer_record(
    impact: Impact, notes: tuple[str, ...], held_out: HeldOut | None = None
) -> dict[str, Any]:
    """Return the record of an impact as JSON has it: null where a number does not exist."""
    record = impact.record()
    if held_out is not None:
        record["held_out"] = held_out.record()
    record["notes"] = [*notes, *record["notes"]]
    return ImpactAnswer.model_validate(_plain(record)).model_dump(mode="json", exclude_unset=True)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def answer_text(impact: Impact, notes: tuple[str, ...], held_out: HeldOut | None = None) -> str:
    """Return the table and the report, paragraphs wrapped."""
    import textwrap

    report = impact.summary("report")
    if held_out is not None:
        report += "\n\n" + held_out.summary()
    lines = []
    for line in report.splitlines():
        hanging = "  " if line.startswith("- ") else ""
        lines.append(textwrap.fill(line, 100, subsequent_indent=hanging) if line else "")
    said = ["", *notes] if notes else []
    return "\n".join([impact.summary(), "", *lines, *said])


def write_files(impact: Impact, *, plot: Path | None = None, series: Path | None = None) -> None:
    """Write the figure and the table of times, each whole or not at all.

    Raises
    ------
    StudyError
        If a file is of a kind that cannot be written.
    """
    from eocausal.provenance import atomic_path
    from eocausal.reports.plots import to_png, to_svg

    writers = {".png": to_png, ".svg": to_svg}
    if plot is not None:
        writer = writers.get(plot.suffix.lower())
        if writer is None:
            raise StudyError(
                f"A figure cannot be written as {plot.suffix or 'a file without suffix'}.",
                cause=f"Known are {', '.join(writers)}.",
                next_step="Choose one of these suffixes.",
            )
        drawn = writer(impact.plot())
        with atomic_path(plot) as temporary:
            temporary.write_bytes(drawn)
    if series is not None:
        with atomic_path(series) as temporary:
            impact.to_frame().rename_axis("time").to_csv(temporary, lineterminator="\n")
