"""Draws of what would have been on the scale of the outcome: after the event, and all when asked.

Effects need the times after the event alone. The times learned from are drawn when a path or a
check of the fit is asked for; they continue the same draws, so that nothing said before changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eocausal.effects import EffectPath
from eocausal.estimators.impact_alignment import Aligned
from eocausal.estimators.impact_predictive import FitChecks, check_fit
from eocausal.estimators.impact_summary import ImpactSummary, summarise
from eocausal.estimators.impact_transforms import Transform
from eocausal.estimators.level_draws import Paths
from eocausal.estimators.structural_result import SeriesDraws

__all__ = ["ImpactDraws"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ImpactDraws:
    """Draws for one record of T steps.

    Attributes
    ----------
    drawn
        Draws of the steps of ``part``, on the scale of the model; None once all were drawn.
    data
        The record.
    part
        Steps that were fitted or predicted; the others are NaN.
    transform
        The way back to the scale of the outcome.
    level
        Probability of the intervals.
    compatible
        Whether conventions are those of R's CausalImpact.
    """

    drawn: SeriesDraws | None
    data: Aligned
    part: slice
    transform: Transform | None
    level: float
    compatible: bool

    @cached_property
    def modelled(self) -> Paths:
        """(draws, T) on the scale of the model."""
        assert self.drawn is not None
        found = self.drawn.all()
        if len(self.data.y) == found.expected.shape[1]:
            return found
        shape = (len(found.expected), len(self.data.y))
        expected, replicate = (np.full(shape, np.nan) for _ in range(2))
        expected[:, self.part], replicate[:, self.part] = found.expected, found.replicate
        return Paths(expected, replicate)

    @cached_property
    def told(self) -> Paths:
        """(draws, T) on the scale of the outcome; with a transform both are its draws."""
        return self._back(self.modelled)

    @cached_property
    def path(self) -> EffectPath:
        """All times."""
        data = self.data
        return EffectPath(
            data.regular.times, data.y, self.told.replicate, data.windows.post, self.level
        )

    def effects(self) -> tuple[ImpactSummary, dict[str, ImpactSummary]]:
        """Return the effects over all counted times, and over the window of each event."""
        assert self.drawn is not None
        data, windows = self.data, self.data.windows
        own, drawn = self.drawn.ahead()
        first = (self.part.start or 0) + own.start
        steps = slice(first, first + drawn.expected.shape[1])
        paths = self._back(drawn)
        path = EffectPath(
            data.regular.times[steps], data.y[steps], paths.replicate, windows.post[steps],
            self.level,
        )  # fmt: skip
        all_events = summarise(path, paths.expected, compatible=self.compatible)
        if len(windows.names) == 1:
            return all_events, {windows.names[0]: all_events}
        return all_events, {
            name: summarise(
                replace(path, post=mask[steps]), paths.expected, compatible=self.compatible,
                event=name,
            )
            for name, mask in zip(windows.names, windows.each, strict=True)
        }  # fmt: skip

    def fit_checks(self, *, seasonal: bool) -> FitChecks:
        """Compare the residual before the event with those that the model draws."""
        data, paths = self.data, self.modelled
        return check_fit(
            data.modelled, paths.expected, paths.replicate, data.windows.before,
            period=data.regular.period, variance=data.variance, seasonal=seasonal,
            learned=not self.compatible, times=data.regular.times,
        )  # fmt: skip

    def _back(self, paths: Paths) -> Paths:
        if self.transform is None:
            return paths
        replicate = self.transform.back(paths.replicate)
        return Paths(replicate, replicate)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is kept in a file: the draws, not the posterior they came from."""
        return {**self.__dict__, "modelled": self.modelled, "drawn": None}
