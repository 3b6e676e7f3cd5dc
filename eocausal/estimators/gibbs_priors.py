"""Priors of the numbers that a chain moves: variances, autocorrelations, degrees of freedom.

A chain moves unbounded coordinates, one number each: logarithms of standard deviations, or places
on a grid. Series have mean zero and standard deviation one before the event, controls too.

CausalImpact's priors (:class:`CompatiblePrior`) are those of METHODS.md section 5 and, where it has
no word, the defaults of bsts 0.9.10, as of the engine ``collapsed`` (:mod:`.collapsed_model`); the
degrees of freedom of a Student residual are uniform on (0.1, 100). With coefficients that walk,
sd^2 ~ IG(0.5, 0.5 0.01^2) for their steps (over the sd of the control at all times) and
IG(16, 16 level_sd^2) below 0.1^2 for the residual, as CausalImpact has it: the residual is all but
taken away.

Ours (:class:`LearnedPrior`) has its grid for level and residual; steps of slopes and seasons are
believed as by the engine ``collapsed``. The steps of coefficients that walk have an sd whose ratio
to that of the residual is log-normal, of median 0.02 for controls of sd one and one as sd of the
logarithm: a third of the residual over twenty years of months. The degrees of freedom have Juarez
& Steel's (2010) gamma density, 2 and 0.1, above two, so that the residual has a variance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eocausal.estimators.collapsed_model import CHANGE, RETURN, WANDER
from eocausal.estimators.structural_model import Season, StructuralModel, Trend
from eocausal.estimators.structural_priors import CompatiblePrior, LearnedPrior

__all__ = ["Coordinate", "GibbsPrior", "Values", "degrees_prior", "gibbs_prior"]

Float64 = NDArray[np.float64]
COEFFICIENT_STEP = 0.02
STILL = 0.02  # a level that stays takes steps of this over the number of times, too small to see
WIDEST = math.log(1e4)
BSTS = (0.005, 0.005 * 0.01**2, 1.0)  # shape and scale of IG, and bound of the sd


@dataclass(frozen=True, slots=True)
class Values:
    """What the coordinates stand for.

    Attributes
    ----------
    residual
        Variance of the residual; one if the others are ratios to it.
    phi
        Its autocorrelation.
    level, slope
        Variances of their steps.
    rho
        AR coefficient of a semi-local slope.
    seasons, coefficients
        Variances of the steps of each season that changes, and of each coefficient that walks.
    """

    residual: float
    phi: float
    level: float
    slope: float
    rho: float
    seasons: tuple[float, ...]
    coefficients: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Coordinate:
    """One number that a chain moves.

    Attributes
    ----------
    name
        What it is.
    low, high
        Its bounds.
    start
        Range from which chains start.
    log_density
        Of the coordinate, up to a constant.
    whole
        Whether only its whole part counts: a place on a grid.
    apart
        Whether places far apart may be likely and those between them not.
    """

    name: str
    low: float
    high: float
    start: tuple[float, float]
    log_density: Callable[[float], float]
    whole: bool = False
    apart: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class GibbsPrior:
    """Coordinates, the values they stand for, and their log density.

    Attributes
    ----------
    coordinates
        What is moved.
    values
        What they stand for.
    joint
        What the log density is beyond that of each coordinate.
    ratios
        Whether variances are ratios to that of the residual, whose prior is 1/s^2.
    cells
        Cumulated probabilities of the places of the first two coordinates on their grid.
    columns
        Places of the second of them.
    """

    coordinates: tuple[Coordinate, ...]
    values: Callable[[list[float]], Values]
    joint: Callable[[list[float]], float]
    ratios: bool = False
    cells: Float64 | None = None
    columns: int = 0

    def log_density(self, at: list[float]) -> float:
        """Return the log density up to a constant, minus infinity outside the bounds."""
        total = 0.0
        for coordinate, value in zip(self.coordinates, at, strict=True):
            if not coordinate.low <= value < coordinate.high:
                return -math.inf
            total += coordinate.log_density(value)
        return total + self.joint(at)


def gibbs_prior(model: StructuralModel, count: int, spread: Float64 | None) -> GibbsPrior:
    """Return the prior of a model.

    Parameters
    ----------
    count
        Number of times before the event.
    spread
        (K,) standard deviation of each control over all times, None without controls.
    """
    if isinstance(model.prior, CompatiblePrior):
        return _compatible(model, model.prior, spread)
    return _learned(model, model.prior, count, 0 if spread is None else len(spread))


def degrees_prior(model: StructuralModel) -> Coordinate:
    """Return the prior of log degrees of freedom of a Student residual."""
    if isinstance(model.prior, CompatiblePrior):
        bounds = math.log(0.1), math.log(100.0)
        return Coordinate("degrees", *bounds, (1.0, 3.0), lambda u: u)
    bounds = math.log(2.0), math.log(1e3)
    return Coordinate("degrees", *bounds, (1.0, 3.0), lambda u: 2.0 * u - 0.1 * math.exp(u))


def _compatible(
    model: StructuralModel, prior: CompatiblePrior, spread: Float64 | None
) -> GibbsPrior:
    level = (16.0, 16.0 * prior.level_sd**2)
    sloping = model.trend is not Trend.LEVEL
    walk = (0.005, 0.005 * prior.level_sd**2) if sloping else level
    dynamic = model.dynamic and spread is not None
    if dynamic:
        residual = _inverse_gamma("residual", *level, 0.1)
    elif spread is not None:
        residual = _inverse_gamma("residual", 25.0, 5.0, 1.2)
    else:
        residual = _inverse_gamma("residual", 0.005, 0.005, 1.2)
    found = [residual, _inverse_gamma("level", *walk, 1.0)]
    if sloping:
        found.append(_inverse_gamma("slope", *BSTS))
    if model.trend is Trend.SEMI_LOCAL:
        found.append(_stationary())
    changing = sum(bool(season.changes) for season in model.seasons)
    found.extend(_inverse_gamma(f"season {number}", *BSTS) for number in range(changing))
    if dynamic and spread is not None:
        for number, sd in enumerate(spread):
            step = _inverse_gamma(f"coefficient {number}", 0.5, 0.5 * (0.01 / sd) ** 2, math.inf)
            found.append(step)
    split = _split(model, changing)

    def values(at: list[float]) -> Values:
        slope, rho, seasons, rest = split(at[2:])
        return Values(
            _square(at[0]), 0.0, _square(at[1]), _square(slope), rho,
            tuple(map(_square, seasons)), tuple(map(_square, rest)),
        )  # fmt: skip

    return GibbsPrior(tuple(found), values, lambda _: 0.0)


def _learned(model: StructuralModel, prior: LearnedPrior, count: int, controls: int) -> GibbsPrior:
    grid = prior.grid(count)
    kinds, steps = grid.log_weight.shape
    phi = [residual.phi for residual in grid.residuals]
    ratio = np.maximum(grid.q, STILL / count)
    found = [
        Coordinate("phi", 0.0, kinds, (0.0, kinds), lambda _: 0.0, whole=True),
        Coordinate("level", 0.0, steps, (0.0, 0.6 * steps), lambda _: 0.0, whole=True, apart=True),
    ]
    if model.trend is Trend.LOCAL_LINEAR:
        found.append(_log_normal("slope", WANDER * math.sqrt(3.0) / count**1.5))
    if model.trend is Trend.SEMI_LOCAL:
        found.append(_log_normal("slope", RETURN))
        found.append(_stationary())
    changing = [season for season in model.seasons if season.changes]
    for number, season in enumerate(changing):
        found.append(_log_normal(f"season {number}", _season_step(season)))
    walking = controls if model.dynamic else 0
    found.extend(_log_normal(f"coefficient {k}", COEFFICIENT_STEP) for k in range(walking))
    split = _split(model, len(changing))

    def values(at: list[float]) -> Values:
        slope, rho, seasons, rest = split(at[2:])
        return Values(
            1.0, phi[int(at[0])], float(ratio[int(at[1])]) ** 2, _square(slope), rho,
            tuple(map(_square, seasons)), tuple(map(_square, rest)),
        )  # fmt: skip

    weight = grid.log_weight
    cells = np.exp(weight - weight.max()).ravel()
    return GibbsPrior(
        tuple(found), values, lambda at: float(weight[int(at[0]), int(at[1])]), ratios=True,
        cells=np.cumsum(cells) / cells.sum(), columns=steps,
    )  # fmt: skip


def _split(
    model: StructuralModel, changing: int
) -> Callable[[list[float]], tuple[float, float, list[float], list[float]]]:
    """Return what tells slope, rho, seasons and coefficients apart."""
    slopes = int(model.trend in (Trend.LOCAL_LINEAR, Trend.SEMI_LOCAL))
    rhos = int(model.trend is Trend.SEMI_LOCAL)
    first = slopes + rhos

    def parts(at: list[float]) -> tuple[float, float, list[float], list[float]]:
        slope = at[0] if slopes else 0.0
        rho = at[1] if rhos else 0.0
        return slope, rho, at[first : first + changing], at[first + changing :]

    return parts


def _season_step(season: Season) -> float:
    """Return the median of the sd of the shocks of a season over that of the residual."""
    if season.harmonics is None:
        return CHANGE / math.sqrt(2.0)
    return CHANGE / math.sqrt(2.0 * season.period * season.harmonics)


def _stationary() -> Coordinate:
    return Coordinate("rho", -1.0, 1.0, (0.0, 0.9), lambda u: -0.5 * u * u)


def _square(log_sd: float) -> float:
    return math.exp(2.0 * log_sd)


def _inverse_gamma(name: str, shape: float, scale: float, bound: float) -> Coordinate:
    """Return log sd of a variance IG(shape, scale) whose sd is below ``bound``."""
    guess = 0.5 * math.log(scale / shape)
    high = min(math.log(bound), WIDEST) if math.isfinite(bound) else WIDEST
    start = (min(guess - 0.5, high - 1.0), min(guess + 1.5, high - 0.1))
    return Coordinate(
        name, guess - 12.0, high, start,
        lambda u: -2.0 * shape * u - scale * math.exp(-2.0 * u),
    )  # fmt: skip


def _log_normal(name: str, median: float) -> Coordinate:
    """Return the log of a ratio of sds, normal with sd one."""
    middle = math.log(median)
    return Coordinate(
        name, middle - 8.0, middle + 8.0, (middle - 1.0, middle + 1.0),
        lambda u: -0.5 * (u - middle) ** 2,
    )  # fmt: skip
