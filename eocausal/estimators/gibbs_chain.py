"""One Markov chain over a structural model: variances, columns in the model, states, tails.

A sweep moves, in this order,

1. each variance and autocorrelation by a slice, states and coefficients integrated out,
2. the columns in the model, states and coefficients integrated out (:mod:`.spike_slab`),
3. states and coefficients, drawn together,
4. with Student errors the degrees of freedom and precisions (:mod:`.gibbs_student`),

a partially collapsed Gibbs sampler (van Dyk & Park 2008). Variances are never drawn given the
states, as bsts does: steps of a walk and their variance hold each other in place where the
variance is small, and a chain then needs thousands of sweeps to forget where it was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from eocausal.estimators.gibbs_gauss import Conditional, Gaussian
from eocausal.estimators.gibbs_priors import GibbsPrior, Values
from eocausal.estimators.gibbs_slice import slice_step
from eocausal.estimators.gibbs_student import Tails
from eocausal.estimators.spike_slab import choose_columns

__all__ = ["Chain", "Sweep"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
TRIES = 200
JUMPS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """Where a chain is after a sweep.

    Attributes
    ----------
    at
        Coordinates of the prior.
    values
        What they stand for.
    sd
        Standard deviation of the residual.
    included
        (static,) columns in the model.
    expected
        (T,) states and columns.
    last
        Residual of scale one at the last value learned from.
    degrees
        Degrees of freedom, infinite for Normal errors.
    log_density
        Of the data and the coordinates, up to a constant.
    """

    at: tuple[float, ...]
    values: Values
    sd: float
    included: Bool
    expected: Float64
    last: float
    degrees: float
    log_density: float


@dataclass(slots=True, eq=False)
class Chain:
    """A chain for one series.

    Attributes
    ----------
    gaussian
        States and coefficients given the rest; not shared with other chains if there are tails.
    prior
        Of the coordinates.
    tails
        Of Student errors, or None.
    relative
        (T,) sds of the residual relative to others.
    rng
        Random numbers.
    """

    gaussian: Gaussian
    prior: GibbsPrior
    tails: Tails | None
    relative: Float64
    rng: np.random.Generator
    at: list[float] = field(init=False)
    included: Bool = field(init=False)
    widths: Float64 = field(init=False)
    _law: Conditional | None = field(init=False, default=None)
    _moved: Float64 = field(init=False)
    _count: int = 0

    def __post_init__(self) -> None:
        self.widths = np.array([3.0 if c.whole else 1.0 for c in self.prior.coordinates])
        self._moved = np.zeros(len(self.widths))
        self._weigh()
        for _ in range(TRIES):
            ranges = np.array([c.start for c in self.prior.coordinates])
            self.at = self.rng.uniform(ranges[:, 0], ranges[:, 1]).tolist()
            always = self.gaussian.states.share >= 1.0
            coins = self.rng.random(len(self.gaussian.states.static))
            self.included = np.asarray((coins < 0.5) | always)
            if math.isfinite(self._density(self.at)):
                return

    def sweep(self, *, tune: bool) -> Sweep:
        """Move everything once; with ``tune`` adapt the widths of the slices."""
        height = self._height()
        if self.prior.cells is not None:
            height = self._jump(height)
        for number in range(len(self.at)):
            height = self._slice(number, height, tune=tune)
        values = self.prior.values(self.at)
        law = self._law
        assert law is not None
        self._choose(law, values)
        sd = self._draw_scale(law, values)
        drawn, coefficients = self.gaussian.draw(law, self.included, values, sd, self.rng)
        expected = self.gaussian.expected(drawn, coefficients)
        total = sd * math.sqrt(values.residual)
        last, degrees = self._residuals(drawn, expected, total, values.phi)
        return Sweep(
            tuple(self.at), values, total, self.included.copy(), expected, last, degrees, height
        )

    def _draw_scale(self, law: Conditional, values: Values) -> float:
        """Draw the sd of the residual if the other numbers are ratios to it, else one."""
        if not self.prior.ratios:
            return 1.0
        _, squares = self.gaussian.squares(law, self.included, values)
        return math.sqrt(0.5 * squares / self.rng.standard_gamma(0.5 * self.gaussian.freedom))

    def _jump(self, height: float) -> float:
        """Propose places of autocorrelation and level from the prior of both together.

        A residual that is correlated and a level that walks look alike, so that the way from one
        to the other leads through less likely places if each moves alone.
        """
        assert self.prior.cells is not None
        for _ in range(JUMPS):
            cell = int(np.searchsorted(self.prior.cells, self.rng.random(), side="right"))
            cell = min(cell, len(self.prior.cells) - 1)
            kind, place = divmod(cell, self.prior.columns)
            old, law = self.at[:2], self._law
            if (kind, place) == (int(old[0]), int(old[1])):
                continue
            before = height - self.prior.joint(self.at)
            self.at[:2] = [float(kind), float(place)]
            found = self._density(self.at)
            gain = found - self.prior.joint(self.at) - before
            if gain > -self.rng.exponential():
                height = found
            else:
                self.at[:2], self._law = old, law
        return height

    def _slice(self, number: int, height: float, *, tune: bool) -> float:
        """Move one coordinate; return the log density."""
        coordinate = self.prior.coordinates[number]
        if coordinate.apart:
            return self._draw_place(number)
        known: dict[float, tuple[float, Conditional | None]] = {}
        start = self.at[number]
        key = math.floor(start) if coordinate.whole else start
        known[key] = height, self._law

        def density(value: float) -> float:
            key = math.floor(value) if coordinate.whole else value
            if key not in known:
                place = self.at.copy()
                place[number] = value
                known[key] = self._density(place), self._law
            return known[key][0]

        value, found = slice_step(
            start, height, density, float(self.widths[number]),
            (coordinate.low, coordinate.high), self.rng,
        )  # fmt: skip
        self.at[number] = value
        self._law = known[math.floor(value) if coordinate.whole else value][1]
        if tune:
            self._moved[number] += abs(value - start)
            self._count += number == 0
            if self._count >= 10:
                least = 1.0 if coordinate.whole else 0.02
                self.widths[number] = max(least, 3.0 * self._moved[number] / self._count)
        return found

    def _draw_place(self, number: int) -> float:
        """Draw a place on a grid from the law of all of them; return the log density."""
        coordinate = self.prior.coordinates[number]
        heights, laws = [], []
        for place in range(int(coordinate.high)):
            self.at[number] = float(place)
            heights.append(self._density(self.at))
            laws.append(self._law)
        weight = np.exp(np.array(heights) - max(heights))
        drawn = int(np.searchsorted(np.cumsum(weight), weight.sum() * self.rng.random()))
        self.at[number], self._law = float(drawn), laws[drawn]
        return heights[drawn]

    def _density(self, at: list[float]) -> float:
        """Return the log density of data and coordinates; keeps the law it found."""
        self._law = None
        prior = self.prior.log_density(at)
        if not math.isfinite(prior):
            return -math.inf
        values = self.prior.values(at)
        self._law = self.gaussian.condition(values)
        return prior + self._evidence(self._law, values)

    def _height(self) -> float:
        """Return the log density where the chain is, after columns or tails have changed."""
        if self.tails is not None or self._law is None:
            return self._density(self.at)
        values = self.prior.values(self.at)
        return self.prior.log_density(self.at) + self._evidence(self._law, values)

    def _evidence(self, law: Conditional | None, values: Values) -> float:
        log_det, squares = self.gaussian.squares(law, self.included, values)
        if not self.prior.ratios:
            return log_det - 0.5 * squares
        return log_det - 0.5 * self.gaussian.freedom * math.log(max(squares, 1e-300))

    def _choose(self, law: Conditional, values: Values) -> None:
        """Draw which static columns are in the model, those always in it integrated out."""
        states = self.gaussian.states
        if states.share >= 1.0 or not self.included.size:
            return
        fixed = self.gaussian.columns - len(states.static)
        gram, signal, total = law.schur[fixed:, fixed:], law.signal[fixed:], law.rest
        if fixed:
            turned = np.linalg.solve(law.schur[:fixed, :fixed], law.schur[:fixed, fixed:])
            inner = np.linalg.solve(law.schur[:fixed, :fixed], law.signal[:fixed])
            gram = gram - law.schur[fixed:, :fixed] @ turned
            signal = signal - turned.T @ law.signal[:fixed]
            total -= float(law.signal[:fixed] @ inner)
        freedom = self.gaussian.freedom if self.prior.ratios else 0
        self.included = choose_columns(
            self.included, gram, signal, states.information / values.residual, states.share,
            self.rng, total=total, freedom=freedom,
        )  # fmt: skip

    def _residuals(
        self, drawn: Float64, expected: Float64, sd: float, phi: float
    ) -> tuple[float, float]:
        """Move the tails; return the last residual of scale one and the degrees of freedom."""
        gaussian = self.gaussian
        residual = (gaussian.y - expected)[gaussian.span] / self.relative[gaussian.span]
        if self.tails is None:
            return float(residual[-1]) / sd, math.inf
        gaps = gaussian.states.gaps
        if gaps.size:
            slots, pad = gaussian.states.slots, gaussian.states.pad
            residual[gaps - gaussian.span[0]] = drawn[(gaps + pad) * slots + slots - 1]
        self.tails.step(residual, sd, phi, self.rng)
        self._weigh()
        last = float(residual[-1] * math.sqrt(self.tails.precision[-1])) / sd
        return last, self.tails.degrees

    def _weigh(self) -> None:
        """Tell the Gaussian part how residuals are scaled."""
        scale = 1.0 / self.relative
        if self.tails is not None:
            scale[self.gaussian.span] *= np.sqrt(self.tails.precision)
        self.gaussian.observe(scale)
