"""What every engine returns for N series: average effects, inclusion of controls, draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from eocausal.errors import OutcomeError
from eocausal.estimators.level_draws import Paths
from eocausal.estimators.structural_model import Engine, StructuralModel
from eocausal.estimators.t_mixture import TMixture

__all__ = [
    "AverageEffects",
    "ReadyDraws",
    "SeriesDraws",
    "StructuralFit",
    "effects_of_law",
    "not_fitted",
]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class AverageEffects:
    """Mean effect over the times after the event, one entry for each of N series.

    With the engine ``grid`` the law is exact, a mixture of t distributions; with the others it is
    one of draws. ``p_value`` is two-sided: twice the smaller tail beyond zero.
    """

    estimate: Float64
    std_error: Float64
    ci_low: Float64
    ci_high: Float64
    p_value: Float64
    n: NDArray[np.int64]


def effects_of_law(law: TMixture, actual: Float64, scale: Float64, level: float) -> Float64:
    """Return (5, N) estimate, error, ends and p of actual means less predictions times scale."""
    low, high = law.quantiles((0.5 - level / 2, 0.5 + level / 2))
    below = law.cdf(actual / scale)
    ends = [actual - scale * x for x in (law.mean, high, low)]
    tail = 2.0 * np.clip(np.minimum(below, 1.0 - below), 0.0, 0.5)
    return np.stack([ends[0], scale * law.sd, ends[1], ends[2], tail])


def not_fitted(series: int, refused: dict[int, str]) -> OutcomeError:
    """Return the error of asking for draws of a series without a posterior."""
    return OutcomeError(
        f"Series {series} was not fitted: {refused.get(series, 'there is none')}.",
        cause="There is no posterior to draw from.",
        next_step="Look at the refused series, and give each enough different values.",
    )


class SeriesDraws(Protocol):
    """Draws of one series in its own units; the times learned from only if asked for."""

    def all(self) -> Paths:
        """Return (draws, T) draws of all times."""
        ...

    def ahead(self) -> tuple[slice, Paths]:
        """Return the times after the last one learned from, and the same draws of these."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ReadyDraws:
    """Draws of an engine that draws all times at once."""

    paths: Paths

    def all(self) -> Paths:
        """Return (draws, T) draws of all times."""
        return self.paths

    def ahead(self) -> tuple[slice, Paths]:
        """Return all times: they were drawn together."""
        return slice(0, self.paths.expected.shape[1]), self.paths


class StructuralFit(Protocol):
    """Posterior of N series over T times with K controls.

    Attributes
    ----------
    outcomes
        (N, T) the series.
    center, scale
        (N,) mean and standard deviation before the event; NaN for series that were refused.
    refused
        Row and reason of every series that could not be fitted.
    engine
        How the posterior was computed.
    """

    @property
    def model(self) -> StructuralModel:
        """What the series were taken to be made of."""
        ...

    @property
    def outcomes(self) -> Float64:
        """(N, T) the series."""
        ...

    @property
    def center(self) -> Float64:
        """(N,) mean before the event."""
        ...

    @property
    def scale(self) -> Float64:
        """(N,) standard deviation before the event."""
        ...

    @property
    def refused(self) -> dict[int, str]:
        """Row and reason of every series that could not be fitted."""
        ...

    @property
    def engine(self) -> Engine:
        """How the posterior was computed."""
        ...

    def average(self, after: Bool, level: float = 0.95) -> AverageEffects:
        """Return the mean effect over the times ``after`` (T,) at which a series has a value."""
        ...

    def inclusion(self) -> Float64:
        """Return (N, K) the probability that each control is in the model."""
        ...

    def paths(self, series: int, *, draws: int = 1000, seed: int = 0, key: int = 0) -> Paths:
        """Draw what one series would have been, in its own units, ``(draws, T)``."""
        ...

    def path_draws(
        self, series: int, *, draws: int = 1000, seed: int = 0, key: int = 0
    ) -> SeriesDraws:
        """Prepare the draws of :meth:`paths`, for those who need only times after the event."""
        ...
