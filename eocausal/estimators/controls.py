"""Which controls predict an outcome, told by the times before the event alone.

Three answers for each candidate. Correlation of what is new in both series, season and memory taken
out. Probability that the candidate is in a model with the others; beforehand it is one in two, or
three of all candidates where these are many, so that the best of many chance finds is not believed.
Held-out error: the means of blocks in the last third of the times before the event are predicted,
each from what came before it, with the candidate and without; blocks overlap, and as there are few,
small differences between errors are chance. So probability decides, and errors tell what it is
worth. Values from the event on are cut off before anything is computed: choosing controls by what
happened later would choose the effect.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.designs import parse_date
from eocausal.errors import AlignmentError, EmptyInputError
from eocausal.estimators.controls_held_out import (
    FEWEST_LEARNED,
    block_error,
    blocks,
    held_out_errors,
)
from eocausal.estimators.controls_innovations import correlations_with, innovations
from eocausal.estimators.level_grid import LevelGrid
from eocausal.estimators.level_spectrum import spectra
from eocausal.estimators.structural import fit_structural
from eocausal.estimators.structural_design import build_design
from eocausal.estimators.structural_model import Engine, StructuralModel, engine_of
from eocausal.estimators.structural_priors import LearnedPrior, enumerated_sets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]
    Bool = NDArray[np.bool_]

__all__ = ["RankedControls", "rank_controls"]

MOST_TOGETHER = 8
EVEN = 0.5
EXPECTED = 3.0
SAME = 1.0 - 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class RankedControls:
    """Candidates, the best first: those more probable than not, by error, then the others.

    Attributes
    ----------
    table
        A row for each candidate: ``error`` (root mean squared error of held-out block means with
        it), ``error_ratio`` (over the one without any control at the same times; below one it
        helps), ``better_in`` (blocks in which it helped), ``blocks``, ``correlation`` (of what is
        new), ``inclusion`` (among the eight most correlated), and ``note`` with the reason where
        something was not computed. Those not among the ``full`` most correlated have no error.
    error_alone, error_best
        Held-out error without a control, and with all of :meth:`best` together.
    block
        Times in a block.
    until
        Last time that was read.
    model
        What the outcome was taken to be made of.
    """

    table: pd.DataFrame
    error_alone: float
    error_best: float
    block: int
    until: pd.Timestamp
    model: StructuralModel = field(repr=False)

    def __repr__(self) -> str:
        ratio = self.error_best / self.error_alone
        return (
            f"RankedControls({len(self.table)} candidates up to {self.until:%Y-%m-%d}, best "
            f"{self.best()}, with {ratio:.2f} of the error without)"
        )

    def to_frame(self) -> pd.DataFrame:
        """Return the table."""
        return self.table

    def best(self, count: int | None = None) -> list[str]:
        """Return at most ``count`` candidates that are more probable than not, by their error."""
        return list(self.table.index[(self.table["inclusion"] > EVEN).to_numpy()][:count])

    def summary(self) -> str:
        """Say in words which controls help."""
        tried, best = int(self.table["error"].notna().sum()), self.best()
        text = (
            f"Without a control, means of {self.block} times are missed by {self.error_alone:.4g} "
            f"(times up to {self.until:%Y-%m-%d} only). "
        )
        if not best:
            return f"{text}None of {tried} controls tried belongs to the model."
        less = 1.0 - self.error_best / self.error_alone
        what = f"{less:.0%} less" if less > 0 else f"{-less:.0%} more, so that they gain nothing"
        return (
            f"{text}{len(best)} of {tried} controls tried belong to the model: "
            f"{', '.join(map(str, best))}; with them it is {what}."
        )


def rank_controls(
    outcome: pd.Series,
    candidates: pd.DataFrame,
    before: str,
    *,
    model: StructuralModel | None = None,
    block: int | None = None,
    held_out: float = 1.0 / 3.0,
    full: int = 12,
) -> RankedControls:
    """Rank candidates for controls on the times before an event.

    Parameters
    ----------
    outcome
        Series over dates, NaN where missing.
    candidates
        Columns that the event did not reach, matched by date; thousands may be given.
    before
        Only times before this ISO date are read.
    model
        What the outcome is made of beside a control; our default if not given.
    block
        Times whose mean is predicted: the season's period, or 12, if not given, and at most half
        of those held out. Long effects need controls that predict far ahead: give a longer block.
    held_out
        Share of the times before the event that blocks are taken from.
    full
        Candidates whose errors are computed: those most correlated in what is new.

    Raises
    ------
    EmptyInputError
        If there is no candidate.
    AlignmentError
        If outcome and candidates share no date before the event.
    OutcomeError
        If there are too few times before the event to hold some out.
    """
    decided = StructuralModel() if model is None else model
    past = outcome[outcome.index < parse_date(before, what="before")]
    table = candidates.reindex(past.index)
    y, x = past.to_numpy(dtype=float), table.to_numpy(dtype=float)
    _check(x, past, candidates)
    starts, size = blocks(len(y), decided, block, held_out)
    new = innovations(np.column_stack([y, x]), decided.seasons)
    correlation = correlations_with(new[:, 0], new[:, 1:])
    notes = _problems(y, x)
    strength = np.where(notes == "", np.abs(np.nan_to_num(correlation)), -1.0)
    tried = [int(j) for j in np.argsort(-strength, kind="stable")[:full] if not notes[j]]
    alone, numbers = held_out_errors(y, x, tried, starts, size, decided)
    found = pd.DataFrame(
        numbers, table.columns, columns=["error", "error_ratio", "better_in", "blocks"]
    )
    found["correlation"] = correlation
    few = np.array(tried[:MOST_TOGETHER], dtype=int)
    chance = _inclusion(y, x, few, decided, min(EVEN, EXPECTED / int((notes == "").sum() or 1)))
    found["inclusion"] = chance
    unknown = np.isnan(numbers[:, 1])
    found["note"] = notes
    found.loc[unknown & (notes == ""), "note"] = f"not among the {full} most correlated"
    likely = np.nan_to_num(chance) > EVEN
    place = np.lexsort((-strength, np.where(unknown, np.inf, numbers[:, 1]), ~likely))
    together = x[:, likely] if likely.any() else None
    best = np.array([block_error(y, together, start, size, decided) for start in starts])
    roots = [
        float(np.sqrt(np.nanmean(e**2))) if np.isfinite(e).any() else np.nan for e in (alone, best)
    ]
    return RankedControls(found.iloc[place], roots[0], roots[1], size, past.index[-1], decided)


def _check(x: Float64, past: pd.Series, candidates: pd.DataFrame) -> None:
    if not x.shape[1]:
        raise EmptyInputError(
            "There is no candidate.", cause="Nothing can be ranked.", next_step="Give columns."
        )
    if not candidates.index.is_unique or not np.isfinite(x).any():
        raise AlignmentError(
            "Outcome and candidates share no date before the event, or dates occur twice.",
            cause="They are matched by date.",
            next_step="Give both the same dates, such as the first day of each month.",
        )


def _problems(y: Float64, x: Float64) -> NDArray[np.object_]:
    """Say of each candidate why it cannot be one, empty where it can."""
    notes = np.full(x.shape[1], "", dtype=object)
    both = np.isfinite(y)[:, None] & np.isfinite(x)
    n = both.sum(0)
    few = np.maximum(n, 1)
    a, b = np.where(both, y[:, None], 0.0), np.where(both, x, 0.0)
    a, b = np.where(both, a - a.sum(0) / few, 0.0), np.where(both, b - b.sum(0) / few, 0.0)
    sa, sb = np.sqrt((a**2).sum(0)), np.sqrt((b**2).sum(0))
    level = np.abs(np.where(both, x, 0.0)).max(0, initial=0.0)
    flat = ~(sb > 1e-10 * level * np.sqrt(few))
    r = np.abs((a * b).sum(0)) / np.where(flat | (sa == 0), 1.0, sa * sb)
    notes[r > SAME] = "is the outcome, in the same or another unit"
    notes[flat] = "does not vary"
    notes[n < FEWEST_LEARNED] = "too few values together with the outcome"
    return notes


def _inclusion(
    y: Float64, x: Float64, best: NDArray[np.int64], model: StructuralModel, share: float
) -> Float64:
    """Return (N,) probabilities that each of ``best`` is in a model with the others of them."""
    found = np.full(x.shape[1], np.nan)
    known = np.isfinite(x[:, best]).all(1) & np.isfinite(y)
    if not len(best) or known.sum() < FEWEST_LEARNED + len(best):
        return found
    before = np.ones(len(y), bool)
    plain = isinstance(model.prior, LearnedPrior) and engine_of(model, len(best)) is Engine.GRID
    if not plain:
        found[best] = fit_structural(y[None], before, model, controls=x[:, best]).inclusion()[0]
        return found
    design = build_design(len(y), before, x[:, best], model)
    always = design.columns.shape[1] - len(best)
    sets = enumerated_sets(always, design.sets.precision, share)
    design = replace(design, sets=sets)
    grid = LevelGrid(
        spectra(known, design.prior.residuals), design.prior, sets, design.columns, known
    )
    z = (y[known] - y[known].mean()) / y[known].std(ddof=1)
    found[best] = grid.fit(z[None]).inclusion()[0, always:]
    return found
