"""What the engine ``collapsed`` believes about variances and autocorrelations.

CausalImpact's priors are those of bsts 0.9.10 (the defaults of ``AddLocalLinearTrend``,
``AddSemilocalLinearTrend``, ``AddSeasonal`` and ``AddTrig``), for a series of mean zero and
standard deviation one: the variance of the shocks of slopes and seasons is
IG(0.005, 0.005 * 0.01^2), that of the level too where it has a slope beside it; all standard
deviations are below one, those of starting values are one; the autocorrelation of the slope of a
semi-local trend is N(0, 1) on (-1, 1).

Ours (:class:`~eocausal.estimators.structural_priors.LearnedPrior`) is in units of the residual:
autocorrelation and level as documented there, as densities instead of sums over cells. Slopes and
seasons have log-normal standard deviations of shocks, a factor e to one sd:

* slope: the wander of the level that it makes over the record, sd * n^1.5 / sqrt(3), is about
  ``WANDER`` residual sds;
* season: the effect of a season changes from one cycle to the next by about ``CHANGE``;
* semi-local trend: shocks of the slope about ``RETURN``, autocorrelation N(0, 1) on (-1, 1).

Starting values are vague. What coverage this gives: ``benchmarks/collapsed_coverage.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import special

from eocausal.estimators.collapsed_bands import Layout, Ratios
from eocausal.estimators.collapsed_parts import Dummies, Harmonics, Level, Part, Slope
from eocausal.estimators.structural_model import Season, StructuralModel, Trend
from eocausal.estimators.structural_priors import CompatiblePrior, LearnedPrior

__all__ = ["Believed", "Stratum", "layout_of", "strata_of"]

Float64 = NDArray[np.float64]
WANDER, CHANGE, RETURN = 1.0, 0.05, 0.03
VAGUE = 1e4  # variance of starts over that of the residual
RANGE, BEYOND = 12.0, 0.3
PHI = (-0.35, 0.99)  # the cells -0.3 to 0.97 of the grid, with half a cell on either side


class Believed(Protocol):
    """A prior of one number, on a scale without bounds."""

    @property
    def box(self) -> tuple[float, float]:
        """Where to look for it first."""
        ...

    @property
    def least(self) -> float:
        """Least sd of what is first drawn around the mode."""
        ...

    def value(self, x: Float64) -> Float64:
        """Return the number itself."""
        ...

    def log_density(self, x: Float64) -> Float64:
        """Return the log density of x."""
        ...


@dataclass(frozen=True, slots=True)
class InverseGamma:
    """A variance, IG(shape, scale) below a bound; x is its log."""

    shape: float
    scale: float
    bound: float
    box: tuple[float, float]
    least: float = 0.0

    def value(self, x: Float64) -> Float64:
        """Return the variance."""
        return np.asarray(np.exp(x))

    def log_density(self, x: Float64) -> Float64:
        """Return the log density, up to a constant."""
        inside = -self.shape * x - self.scale * np.exp(np.minimum(-x, 300.0))
        return np.where(x < math.log(self.bound), inside, -np.inf)


@dataclass(frozen=True, slots=True)
class Vague:
    """A variance, IG(0.005, 0.005 guess^2) below one, whose log is all but uniform over twelve.

    x is the log as its place in that range would have it as a normal quantile, and goes on linearly
    beyond: a posterior that is flat in the log has the shape of a normal in x.
    """

    guess: float
    box: tuple[float, float] = (-1.5, 1.5)
    least: float = 0.5

    def value(self, x: Float64) -> Float64:
        """Return the variance."""
        return np.asarray(np.exp(self._log(x)))

    def log_density(self, x: Float64) -> Float64:
        """Return the log density, up to a constant."""
        log = self._log(x)
        inside = -0.005 * log - 0.005 * self.guess**2 * np.exp(np.minimum(-log, 300.0))
        slope = RANGE * np.exp(-0.5 * x**2) / math.sqrt(2.0 * math.pi) + BEYOND
        return np.where(log < 0.0, inside + np.log(slope), -np.inf)

    def _log(self, x: Float64) -> Float64:
        low = math.log(0.005 * self.guess**2)
        return np.asarray(low + RANGE * special.ndtr(x) + BEYOND * x)


@dataclass(frozen=True, slots=True)
class LogNormal:
    """A ratio of standard deviations, of which x is the log; the square is the value."""

    center: float
    below: float = 1.0
    above: float = 1.0
    least: float = 0.0

    @property
    def box(self) -> tuple[float, float]:
        """Two sds below to one above."""
        middle = math.log(self.center)
        return middle - 2.0 * self.below, middle + 2.0 * self.above

    def value(self, x: Float64) -> Float64:
        """Return the ratio of variances."""
        return np.asarray(np.exp(2.0 * x))

    def log_density(self, x: Float64) -> Float64:
        """Return the log density of a normal with two pieces."""
        far = x - math.log(self.center)
        far = far / np.where(far < 0, self.below, self.above)
        return -0.5 * far**2 - math.log(math.sqrt(math.pi / 2.0) * (self.below + self.above))


@dataclass(frozen=True, slots=True)
class Autocorrelation:
    """An autocorrelation of the residual under our prior, of which x is the logit in its range."""

    prior: LearnedPrior
    walks: bool
    box: tuple[float, float] = (-2.0, 2.5)
    least: float = 0.2

    def value(self, x: Float64) -> Float64:
        """Return phi."""
        return np.asarray(PHI[0] + (PHI[1] - PHI[0]) * special.expit(x))

    def log_density(self, x: Float64) -> Float64:
        """Return the log density."""
        density = self.prior.density(self.value(x), walks=self.walks)
        turned = special.log_expit(x) + special.log_expit(-x)
        return np.asarray(np.log(density) + turned - math.log(self._mean()))

    def _mean(self) -> float:
        """Return the mean of the density over its range."""
        middle = (np.arange(8000) + 0.5) / 8000
        phi = PHI[0] + (PHI[1] - PHI[0]) * middle
        return float(self.prior.density(phi, walks=self.walks).mean())


@dataclass(frozen=True, slots=True)
class Stationary:
    """An autocorrelation N(0, 1) on (-1, 1), of which x is the inverse hyperbolic tangent."""

    box: tuple[float, float] = (-0.5, 1.8)
    least: float = 0.2

    def value(self, x: Float64) -> Float64:
        """Return rho, off its bounds by what rounding needs."""
        return np.clip(np.tanh(x), -0.9999, 0.9999)

    def log_density(self, x: Float64) -> Float64:
        """Return the log density, up to a constant."""
        return -0.5 * np.tanh(x) ** 2 - 2.0 * (np.logaddexp(x, -x) - math.log(2.0))


@dataclass(frozen=True, slots=True, eq=False)
class Stratum:
    """A case of the model: numbers that are learned, by what they are, and its probability.

    ``numbers`` maps ``residual``, ``part 0``, ..., ``slope``, ``phi`` and ``rho`` to priors; parts
    without one have no shocks. With ``residual`` the others are variances, else ratios to it.
    """

    numbers: dict[str, Believed]
    parts: int
    log_prob: float = 0.0
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.numbers))

    @property
    def scale_known(self) -> bool:
        """Whether the variance of the residual is one of the numbers."""
        return "residual" in self.numbers

    def log_prior(self, x: Float64) -> Float64:
        """Return (rows,) the log density of x (rows, numbers)."""
        densities = [b.log_density(x[:, at]) for at, b in enumerate(self.numbers.values())]
        return self.log_prob + np.sum(densities, 0) if densities else np.full(len(x), self.log_prob)

    def ratios(self, x: Float64) -> tuple[Ratios, Float64]:
        """Return points of the covariance, and the residual's variance (one if integrated out)."""
        value = {n: b.value(x[:, at]) for at, (n, b) in enumerate(self.numbers.items())}
        nothing = np.zeros(len(x))
        own = value.get("residual", np.ones(len(x)))
        parts = [value.get(f"part {at}", nothing) for at in range(self.parts)]
        return Ratios(
            np.stack(parts, 1) / own[:, None] if parts else np.zeros((len(x), 0)),
            value.get("slope", nothing) / own, 1.0 / own,
            value.get("phi", nothing), value.get("rho", nothing),
        ), own  # fmt: skip


def layout_of(model: StructuralModel, times: int, variance: Float64 | None) -> Layout:
    """Return the parts of a model over ``times``, the level first and a walking slope second."""
    own = isinstance(model.prior, CompatiblePrior)
    parts: list[Part] = [Level()]
    start = 1.0 if own else VAGUE
    starts: list[tuple[float, ...]] = [(start,)]
    if model.trend is Trend.LOCAL_LINEAR:
        parts.append(Slope())
        starts.append((1.0 if own else (1000.0 / times) ** 2,))
    for season in model.seasons:
        if season.changes:
            part = _season(season)
            parts.append(part)
            starts.append((start,) * part.starts(2).shape[1])
    first = None
    if model.trend is Trend.SEMI_LOCAL:
        first = 1.0 if own else VAGUE / 100.0
    weights = b"" if variance is None else np.ascontiguousarray(variance, dtype=float).tobytes()
    return Layout(tuple(parts), tuple(starts), first, not own, times, weights)


def _season(season: Season) -> Part:
    if season.harmonics is None:
        return Dummies(season.period, season.duration)
    return Harmonics(season.period, season.harmonics, season.duration)


def strata_of(
    model: StructuralModel, layout: Layout, count: int, *, regressors: bool
) -> list[Stratum]:
    """Return the cases of a model, for ``count`` times before the event."""
    if isinstance(model.prior, CompatiblePrior):
        return [_compatible(model.prior, layout, regressors=regressors)]
    return _learned(model.prior, layout, count)


def _compatible(prior: CompatiblePrior, layout: Layout, *, regressors: bool) -> Stratum:
    guess = prior.level_sd**2
    middle = math.log(guess)
    plain = len(layout.parts) == 1 or not isinstance(layout.parts[1], Slope)
    tight = plain and layout.returning is None
    numbers: dict[str, Believed] = {
        "residual": InverseGamma(
            *((25.0, 5.0) if regressors else (0.005, 0.005)), 1.44, (-4.0, 0.2)
        ),
        "part 0": InverseGamma(16.0, 16.0 * guess, 1.0, (middle - 0.5, middle + 1.5))
        if tight
        else Vague(prior.level_sd),
    }
    for at in range(1, len(layout.parts)):
        numbers[f"part {at}"] = Vague(0.01)
    if layout.returning is not None:
        numbers["slope"] = Vague(0.01)
        numbers["rho"] = Stationary()
    return Stratum(numbers, len(layout.parts))


def _learned(prior: LearnedPrior, layout: Layout, count: int) -> list[Stratum]:
    rest: dict[str, Believed] = {}
    for at, part in enumerate(layout.parts[1:], 1):
        if isinstance(part, Slope):
            rest[f"part {at}"] = LogNormal(WANDER * math.sqrt(3.0) / count**1.5)
        elif isinstance(part, Harmonics):
            turns = part.period * part.shocks
            rest[f"part {at}"] = LogNormal(CHANGE / math.sqrt(turns))
        else:
            rest[f"part {at}"] = LogNormal(CHANGE / math.sqrt(2.0))
    if layout.returning is not None:
        rest["slope"] = LogNormal(RETURN)
        rest["rho"] = Stationary()
    still = prior.still(count)
    walks: dict[str, Believed] = {
        "phi": Autocorrelation(prior, walks=True),
        "part 0": LogNormal(prior.step, prior.below, prior.above),
    }
    stays: dict[str, Believed] = {"phi": Autocorrelation(prior, walks=False)}
    return [
        Stratum(walks | rest, len(layout.parts), math.log1p(-still)),
        Stratum(stays | rest, len(layout.parts), math.log(still)),
    ]
