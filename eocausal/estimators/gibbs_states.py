"""States of a structural model as a Gaussian field with a banded precision.

All states at all times are one vector, time by time, whose prior precision is a sum of fixed
matrices, each times a number such as one over the variance of the level's steps (Chan & Jeliazkov
2009; Rue & Held 2005, chapter 3). Effects that load on many times (a line, harmonics that stay,
controls, seasons that last several times) stand beside it as the coefficients b of columns:

    value = design of the states + columns b + residual.

Times without a value between others have a slot for their residual where that is autocorrelated,
so that gaps leave the precision banded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from eocausal.estimators.collapsed_model import VAGUE
from eocausal.estimators.gibbs_priors import Values
from eocausal.estimators.season_effects import season_starts
from eocausal.estimators.structural_design import harmonics
from eocausal.estimators.structural_model import Season, StructuralModel, Trend
from eocausal.estimators.structural_priors import CompatiblePrior, information_matrix

__all__ = ["States", "Term", "build_states"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
Weight = Callable[[Values], float]
EXPECTED_SIZE = 3.0


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """A matrix of the prior precision and the number it is multiplied with.

    Attributes
    ----------
    matrix
        (n, n) sparse.
    weight
        The number.
    rank
        What half the log of the number counts in the log density.
    """

    matrix: sparse.csr_array
    weight: Weight
    rank: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class States:
    """The states and columns of a model.

    Attributes
    ----------
    slots
        States at each time.
    pad
        Positions before time 0, for seasonal effects that reach back.
    terms
        Of the prior precision of the states.
    loads
        (T, seen) values by which the observed states count, and at ``where`` (T, seen) they are.
    columns
        (T, m) columns.
    column_terms
        Of the prior precision of their coefficients.
    static
        Which columns are controls (and CausalImpact's intercept) with the prior N(0, s^2 W^-1).
    information
        (static, static) W.
    share
        Prior probability that such a column is in the model.
    cross
        (n, m) prior precision between states and coefficients, or None.
    controls
        Number of controls.
    dynamic
        Whether their coefficients are states.
    gaps
        Times whose residual is a state, the last slot.
    idle
        Number of places that stand for nothing.
    """

    slots: int
    pad: int
    terms: tuple[Term, ...]
    loads: Float64
    where: Int64
    columns: Float64
    column_terms: tuple[Term, ...]
    static: Int64
    information: Float64
    share: float
    cross: Float64 | None
    controls: int
    dynamic: bool
    gaps: Int64
    idle: int

    @property
    def size(self) -> int:
        """Number of states over all times."""
        return (len(self.columns) + self.pad) * self.slots


def build_states(
    times: int, x: Float64, usable: Bool, model: StructuralModel, gaps: Int64
) -> States:
    """Put the states of a model together.

    Parameters
    ----------
    x
        (T, K) scaled controls, zero at times that are not ``usable``.
    gaps
        Times without a value whose residual is to be a state.
    """
    builder = _Builder(times, model, gaps, x.shape[1] if model.dynamic else 0)
    builder.trend()
    for number, season in enumerate(s for s in model.seasons if s.changes):
        builder.changing_season(season, number)
    for season in model.seasons:
        if not season.changes:
            builder.fixed_season(season)
    if x.shape[1] and model.dynamic:
        builder.dynamic(x, usable)
    elif x.shape[1]:
        builder.static(x, usable)
    return builder.done(x.shape[1])


def _precision(size: int, rows: Sequence[tuple[Int64, float]]) -> sparse.csr_array:
    """Return D'D, D the sum over ``rows`` of a number at one place in each row."""
    steps = _rows(size, rows)
    return sparse.csr_array(steps.T @ steps)


def _rows(size: int, rows: Sequence[tuple[Int64, float]]) -> sparse.csr_array:
    count = len(rows[0][0])
    places = np.concatenate([at for at, _ in rows])
    numbers = np.concatenate([np.full(count, value) for _, value in rows])
    return sparse.csr_array(
        (numbers, (np.tile(np.arange(count), len(rows)), places)), shape=(count, size)
    )


@dataclass(slots=True, eq=False)
class _Builder:
    """Collects terms; a state is a slot at each position, positions are times after a pad."""

    times: int
    model: StructuralModel
    gaps: Int64
    walking: int
    pad: int = 0
    used: int = 0
    slots: int = 0
    terms: list[Term] = field(default_factory=list)
    loads: list[Float64] = field(default_factory=list)
    where: list[Int64] = field(default_factory=list)
    columns: list[Float64] = field(default_factory=list)
    column_terms: list[tuple[sparse.csr_array, Weight, int, int]] = field(default_factory=list)
    crossing: list[tuple[int, int, float]] = field(default_factory=list)
    selected: int = 0
    information: Float64 = field(default_factory=lambda: np.zeros((0, 0)))
    share: float = 1.0

    def __post_init__(self) -> None:
        banded = [s for s in self.model.seasons if s.changes and s.duration == 1]
        self.slots = 1 + (self.model.trend in (Trend.LOCAL_LINEAR, Trend.SEMI_LOCAL))
        for season in banded:
            self.slots += _season_slots(season)
            if season.harmonics is None:
                self.pad = max(self.pad, season.period - 2)
        self.slots += self.walking + bool(self.gaps.size)

    @property
    def compatible(self) -> bool:
        return isinstance(self.model.prior, CompatiblePrior)

    @property
    def size(self) -> int:
        return (self.times + self.pad) * self.slots

    def at(self, slot: int, first: int, last: int) -> Int64:
        """Return where a slot is at the times from ``first`` to before ``last``."""
        return (np.arange(first, last) + self.pad) * self.slots + slot

    def add(self, rows: Sequence[tuple[Int64, float]], weight: Weight, *, rank: bool) -> None:
        count = len(rows[0][0]) if rank else 0
        self.terms.append(Term(_precision(self.size, rows), weight, count))

    def observe(self, slot: int, load: Float64 | None = None) -> None:
        self.loads.append(np.ones(self.times) if load is None else load)
        self.where.append(self.at(slot, 0, self.times))

    def trend(self) -> None:
        later, earlier = self.at(0, 1, self.times), self.at(0, 0, self.times - 1)
        moves = [(later, 1.0), (earlier, -1.0)]
        if self.model.trend in (Trend.LOCAL_LINEAR, Trend.SEMI_LOCAL):
            moves.append((self.at(1, 0, self.times - 1), -1.0))
        self.add(moves, lambda v: 1.0 / v.level, rank=True)
        if self.compatible:
            self.add([(self.at(0, 0, 1), 1.0)], _one, rank=False)
        self.observe(0)
        self.used = 1
        if self.model.trend is Trend.LINE:
            self.column(np.linspace(-1.0, 1.0, self.times)[:, None], 0.0)
        if self.model.trend is Trend.LOCAL_LINEAR:
            self.walking_slope()
        if self.model.trend is Trend.SEMI_LOCAL:
            self.returning_slope()

    def walking_slope(self) -> None:
        rows = [(self.at(1, 1, self.times), 1.0), (self.at(1, 0, self.times - 1), -1.0)]
        self.add(rows, lambda v: 1.0 / v.slope, rank=True)
        if self.compatible:
            self.add([(self.at(1, 0, 1), 1.0)], _one, rank=False)
        self.used = 2

    def returning_slope(self) -> None:
        """Slope minus its long-run mean, an AR(1); the mean is the coefficient of a line."""
        later = _rows(self.size, [(self.at(1, 1, self.times), 1.0)])
        earlier = _rows(self.size, [(self.at(1, 0, self.times - 1), 1.0)])
        both = later.T @ earlier + earlier.T @ later
        count = self.times - 1
        self.terms.append(Term(sparse.csr_array(later.T @ later), lambda v: 1.0 / v.slope, count))
        self.terms.append(Term(sparse.csr_array(both), lambda v: -v.rho / v.slope))
        squared = sparse.csr_array(earlier.T @ earlier)
        self.terms.append(Term(squared, lambda v: v.rho**2 / v.slope))
        precision = 1.0 if self.compatible else 100.0 / VAGUE
        line = np.arange(self.times, dtype=float)[:, None]
        start = int(self.at(1, 0, 1)[0])
        self.crossing.append((start, sum(c.shape[1] for c in self.columns), precision))
        self.column(line, 2.0 * precision, rank=1)
        matrix = precision * _precision(self.size, [(np.array([start]), 1.0)])
        self.terms.append(Term(matrix, _over_residual if not self.compatible else _one, 1))
        self.used = 2

    def column(self, columns: Float64, precision: float, rank: int = 0) -> None:
        """Add columns whose coefficients have one precision, zero if it is flat."""
        count = columns.shape[1]
        first = sum(c.shape[1] for c in self.columns)
        if precision:
            self.column_terms.append((precision * sparse.eye_array(count), _one, rank, first))
        self.columns.append(columns)

    def changing_season(self, season: Season, number: int) -> None:
        def weight(values: Values) -> float:
            return 1.0 / values.seasons[number]

        if season.duration > 1:
            self.lasting_season(season, weight)
            return
        slots, pad = _season_slots(season), 0
        if season.harmonics is None:
            pad = season.period - 2
        first, size = self.used, self.size
        parts = _season_parts(
            season, slots, self.times, pad,
            lambda slot, start, end: self.at(first + slot, start, end), size,
        )  # fmt: skip
        self.terms.append(Term(parts.steps, weight, parts.rank))
        self.terms.append(Term(*self.season_start(parts.start)))
        for slot in parts.seen:
            self.observe(first + slot)
        self.used += slots

    def lasting_season(self, season: Season, weight: Weight) -> None:
        """Add a season whose effects hold for several times: one column each time they change."""
        slots = _season_slots(season)
        pad = season.period - 2 if season.harmonics is None else 0
        blocks = -(-self.times // season.duration)
        size = (blocks + pad) * slots

        def at(slot: int, start: int, end: int) -> Int64:
            return (np.arange(start, end) + pad) * slots + slot

        parts = _season_parts(season, slots, blocks, pad, at, size)
        first = sum(c.shape[1] for c in self.columns)
        self.column_terms.append((parts.steps, weight, parts.rank, first))
        self.column_terms.append((*self.season_start(parts.start), first))
        columns = np.zeros((self.times, size))
        every = np.arange(self.times)
        for slot in parts.seen:
            columns[every, at(slot, 0, blocks)[every // season.duration]] = 1.0
        self.columns.append(columns)

    def season_start(self, start: sparse.csr_array) -> tuple[sparse.csr_array, Weight, int]:
        """Return precision, weight and rank of effects at the start, given that of N(0, 1)."""
        if self.compatible:
            return start, _one, 0
        return start / VAGUE, _over_residual, start.nnz

    def fixed_season(self, season: Season) -> None:
        if not self.compatible:
            self.column(harmonics(self.times, season), 0.0)
        elif season.harmonics is None:
            steps = np.arange(self.times) // season.duration
            self.column(season_starts(season.period, int(steps[-1]) + 1)[steps], 1.0)
        else:
            self.column(harmonics(self.times, season), 1.0)

    def dynamic(self, x: Float64, usable: Bool) -> None:
        """Coefficients that walk, from the static prior with ours, from N(0, 1) with R's."""
        first = self.used
        count = x.shape[1]
        for k in range(count):
            rows = [
                (self.at(first + k, 1, self.times), 1.0),
                (self.at(first + k, 0, self.times - 1), -1.0),
            ]
            self.add(rows, _over_coefficient(k), rank=True)
            self.observe(first + k, x[:, k])
        places = np.array([int(self.at(first + k, 0, 1)[0]) for k in range(count)])
        start = np.eye(count) if self.compatible else information_matrix(x[usable])
        row, column = np.repeat(places, count), np.tile(places, count)
        matrix = sparse.csr_array((start.ravel(), (row, column)), shape=(self.size, self.size))
        if self.compatible:
            self.terms.append(Term(matrix, _one))
        else:
            self.terms.append(Term(matrix, _over_residual, count))
        self.used += count

    def static(self, x: Float64, usable: Bool) -> None:
        parts = [np.ones((self.times, 1)), x] if self.compatible else [x]
        columns = np.concatenate(parts, 1)
        self.columns.append(columns)
        self.selected = columns.shape[1]
        self.information = information_matrix(columns[usable])
        self.share = min(1.0, EXPECTED_SIZE / self.selected)

    def done(self, controls: int) -> States:
        columns = np.concatenate([np.zeros((self.times, 0)), *self.columns], 1)
        width = columns.shape[1]
        busy = [term.matrix.tocoo().row for term in self.terms]
        busy.append((self.gaps + self.pad) * self.slots + self.slots - 1)
        idle = np.setdiff1d(np.arange(self.size), np.concatenate(busy) if busy else [])
        if idle.size:
            self.terms.append(Term(_precision(self.size, [(idle, 1.0)]), _one))
        cross = np.zeros((self.size, width)) if self.crossing else None
        for state, column, precision in self.crossing:
            assert cross is not None
            cross[state, column] = precision
        placed = []
        for matrix, weight, rank, first in self.column_terms:
            inner = matrix.tocoo()
            moved = sparse.csr_array(
                (inner.data, (inner.row + first, inner.col + first)), shape=(width, width)
            )
            placed.append(Term(moved, weight, rank))
        return States(
            self.slots, self.pad, tuple(self.terms), np.stack(self.loads, 1),
            np.stack(self.where, 1), columns, tuple(placed),
            np.arange(width - self.selected, width), self.information, self.share, cross,
            controls, self.model.dynamic, self.gaps, idle.size,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _SeasonParts:
    steps: sparse.csr_array
    rank: int
    start: sparse.csr_array
    seen: tuple[int, ...]


def _season_slots(season: Season) -> int:
    if season.harmonics is None:
        return 1
    return min(2 * season.harmonics, season.period - 1)


def _season_parts(
    season: Season,
    slots: int,
    length: int,
    pad: int,
    at: Callable[[int, int, int], Int64],
    size: int,
) -> _SeasonParts:
    """Precision of the shocks of a season over ``length`` positions, and of its start.

    Effects of the seasons sum to the shock over any period (Harvey 1989, 2.3.42); harmonics turn
    and take a shock in each of their two states (2.3.51), or one where half a cycle is a step.
    """
    if season.harmonics is None:
        rows = [(at(0, 1 - lag, length - lag), 1.0) for lag in range(season.period)]
        start = _precision(size, [(at(0, -pad, 1), 1.0)])
        return _SeasonParts(_precision(size, rows), length - 1, start, (0,))
    total = sparse.csr_array((size, size))
    seen = []
    for k in range(1, season.harmonics + 1):
        a = 2 * (k - 1)
        seen.append(a)
        turn = 2.0 * np.pi * k / season.period
        c, s = float(np.cos(turn)), float(np.sin(turn))
        if 2 * k == season.period:
            alternate = [(at(a, 1, length), 1.0), (at(a, 0, length - 1), 1.0)]
            total = total + _precision(size, alternate)
            continue
        first = [
            (at(a, 1, length), 1.0), (at(a, 0, length - 1), -c), (at(a + 1, 0, length - 1), -s)
        ]  # fmt: skip
        second = [
            (at(a + 1, 1, length), 1.0), (at(a, 0, length - 1), s),
            (at(a + 1, 0, length - 1), -c),
        ]  # fmt: skip
        total = total + _precision(size, first) + _precision(size, second)
    start = _precision(size, [(np.concatenate([at(i, 0, 1) for i in range(slots)]), 1.0)])
    return _SeasonParts(sparse.csr_array(total), slots * (length - 1), start, tuple(seen))


def _over_coefficient(number: int) -> Weight:
    return lambda values: 1.0 / values.coefficients[number]


def _one(_: Values) -> float:
    return 1.0


def _over_residual(values: Values) -> float:
    return 1.0 / values.residual
