"""What a series is taken to be made of, and which engine computes its posterior."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from eocausal.errors import EstimationError
from eocausal.estimators.structural_priors import CompatiblePrior, LearnedPrior

__all__ = ["MOST_ENUMERATED", "Engine", "Season", "StructuralModel", "Trend", "engine_of"]

MOST_ENUMERATED = 8


class Trend(StrEnum):
    """How the series moves in the long run.

    ``level``: a level that may walk. ``line``: a straight line beside it, the same at all times
    (our prior only). ``local_linear``: level and slope both walk. ``semi_local``: the slope is an
    AR(1) around a long-run mean (Scott's semi-local linear trend, for long horizons).
    """

    LEVEL = "level"
    LINE = "line"
    LOCAL_LINEAR = "local_linear"
    SEMI_LOCAL = "semi_local"


class Engine(StrEnum):
    """How a posterior is computed.

    ``grid``: all but two numbers integrate out, exact; seasons stay the same, and there are none
    under CausalImpact's priors. ``collapsed``: regression and states
    integrate out, variances by importance sampling. ``gibbs``: a Markov chain over everything.
    """

    GRID = "grid"
    COLLAPSED = "collapsed"
    GIBBS = "gibbs"


@dataclass(frozen=True, slots=True)
class Season:
    """A pattern that comes again.

    Attributes
    ----------
    period
        Seasons in a cycle, such as 12 for months in a year.
    duration
        Times that each season lasts, such as 7 for weeks in daily data.
    harmonics
        Number of sines and cosines the pattern is made of; None for one effect for each season.
    changes
        Whether the pattern may change over time; None as the prior has it: it stays with ours, and
        changes with CausalImpact's.
    """

    period: int
    duration: int = 1
    harmonics: int | None = None
    changes: bool | None = None

    def __post_init__(self) -> None:
        if self.period < 2:
            raise EstimationError(
                f"A season of {self.period} times.",
                cause="A season is a pattern over at least two times.",
                next_step="Give the number of times in a cycle, such as 12 for months in a year.",
            )
        most = self.period // 2
        if self.duration < 1 or (self.harmonics is not None and not 1 <= self.harmonics <= most):
            raise EstimationError(
                f"A season of duration {self.duration} with {self.harmonics} harmonics.",
                cause=f"Durations are 1 or more, harmonics 1 to {most} for {self.period} seasons.",
                next_step="Correct the season.",
            )


@dataclass(frozen=True, slots=True)
class StructuralModel:
    """What a series is made of.

    Attributes
    ----------
    season
        Times in a cycle, such as 12 for months, or one or several :class:`Season`. With our prior
        a season is a set of harmonics that stay the same; with CausalImpact's it may change.
    trend
        How the series moves in the long run.
    dynamic
        Whether the coefficients of controls walk over time.
    heavy_tails
        Whether the residual has Student's t distribution, its degrees of freedom learned.
    prior
        What is believed beforehand.
    engine
        How the posterior is computed; the fastest that can if not given.
    """

    season: int | Season | tuple[Season, ...] | None = None
    trend: Trend = Trend.LEVEL
    dynamic: bool = False
    heavy_tails: bool = False
    prior: LearnedPrior | CompatiblePrior = field(default_factory=LearnedPrior)
    engine: Engine | None = None

    def __post_init__(self) -> None:
        _ = self.seasons
        if self.trend is Trend.LINE and isinstance(self.prior, CompatiblePrior):
            raise EstimationError(
                "A straight line under CausalImpact's priors.",
                cause="It has no such model.",
                next_step="Take Trend.LOCAL_LINEAR, or our prior.",
            )

    @property
    def seasons(self) -> tuple[Season, ...]:
        """Seasons, none to several, with ``changes`` decided."""
        given = self.season
        if given is None:
            return ()
        several = (given,) if isinstance(given, Season | int) else given
        found = [Season(item) if isinstance(item, int) else item for item in several]
        own = isinstance(self.prior, CompatiblePrior)
        return tuple(
            Season(s.period, s.duration, s.harmonics, own if s.changes is None else s.changes)
            for s in found
        )


def engine_of(model: StructuralModel, controls: int) -> Engine:
    """Return the engine for a model with a number of controls.

    Raises
    ------
    EstimationError
        If the engine that the model names cannot compute it.
    """
    able = _able(model, controls)
    if model.engine is None:
        return able[0]
    if model.engine not in able:
        raise EstimationError(
            f"The engine {model.engine} cannot compute {model!r} with {controls} controls.",
            cause=f"Those that can: {', '.join(able)}.",
            next_step="Leave the engine out: the fastest that can is taken.",
        )
    return model.engine


def _able(model: StructuralModel, controls: int) -> list[Engine]:
    """Engines that can compute a model, the fastest first."""
    seasons = model.seasons
    if model.dynamic or model.heavy_tails or controls > MOST_ENUMERATED:
        return [Engine.GIBBS]
    able = [Engine.COLLAPSED, Engine.GIBBS]
    level = model.trend in (Trend.LEVEL, Trend.LINE)
    own = isinstance(model.prior, CompatiblePrior)
    stays = not seasons if own else not any(s.changes for s in seasons)
    return [Engine.GRID, *able] if level and stays else able
