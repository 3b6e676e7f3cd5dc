"""From the features of a sequence's frames to one vector, without weights.

A head sees features ``(n, period, feature)``, which periods are present, and when each image was
taken. It never sees what a missing period might have held. The heads with weights are in
:mod:`eocausal.encoders.temporal_networks`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

__all__ = [
    "Deviations",
    "Head",
    "MeanDifference",
    "MeanPool",
    "MeanTrend",
    "MeanVariance",
    "clear_missing",
]

Formula = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@runtime_checkable
class Head(Protocol):
    """A decision how the features of several frames become one vector."""

    @property
    def name(self) -> str:
        """Id string."""

    @property
    def trained(self) -> bool:
        """Whether it has weights, which say nothing before they are trained."""

    def n_outputs(self, n_features: int) -> int:
        """Length of the vector, given the number of features of a frame."""

    def build(self, n_features: int, *, seed: int) -> torch.nn.Module:
        """Build the module; global random states stay as they are.

        The module is called with features ``(n, period, feature)``, ``present (n, period)`` bool
        and ``years (n, period)`` (decimal, since 2000) and returns ``(n, output)``. Features and
        years where nothing is present are not used, not even NaN. A row without a present period
        gives finite numbers that mean nothing. The order of the periods does not matter.
        """


def clear_missing(
    features: torch.Tensor, present: torch.Tensor, years: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Set features and years of missing periods to 0, whatever was there."""
    return torch.where(present[..., None], features, 0.0), torch.where(present, years, 0.0)


class _ByFormula(torch.nn.Module):
    """A head that is a formula, without weights."""

    def __init__(self, formula: Formula) -> None:
        super().__init__()
        self.formula = formula

    def forward(
        self, features: torch.Tensor, present: torch.Tensor, years: torch.Tensor
    ) -> torch.Tensor:
        """Apply the formula to what is present."""
        features, years = clear_missing(features, present, years)
        return self.formula(features, present, years)


def _mean(features: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Mean over present periods of features that are 0 elsewhere; 0 where none is present."""
    return features.sum(dim=1) / present.sum(dim=1).clamp(min=1)[:, None]


def _only_mean(features: torch.Tensor, present: torch.Tensor, years: torch.Tensor) -> torch.Tensor:
    return _mean(features, present)


def _mean_difference(
    features: torch.Tensor, present: torch.Tensor, years: torch.Tensor
) -> torch.Tensor:
    begin = torch.where(present, years, torch.inf).amin(dim=1, keepdim=True)
    end = torch.where(present, years, -torch.inf).amax(dim=1, keepdim=True)
    first = _mean(*_at(features, present, years == begin))
    last = _mean(*_at(features, present, years == end))
    return torch.cat([_mean(features, present), _ratio(last - first, end - begin)], dim=1)


def _at(
    features: torch.Tensor, present: torch.Tensor, chosen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    chosen = chosen & present
    return torch.where(chosen[..., None], features, 0.0), chosen


def _ratio(change: torch.Tensor, over: torch.Tensor) -> torch.Tensor:
    """Divide ``(n, f)`` by ``(n, 1)``; 0 where the divisor is not positive and finite."""
    usable = (over > 0) & over.isfinite()
    return torch.where(usable, change / torch.where(usable, over, 1.0), 0.0)


def _mean_trend(features: torch.Tensor, present: torch.Tensor, years: torch.Tensor) -> torch.Tensor:
    mean = _mean(features, present)
    since = torch.where(present, years - _mean(years[..., None], present), 0.0)
    products = (since[..., None] * (features - mean[:, None])).sum(dim=1)
    return torch.cat([mean, _ratio(products, since.square().sum(dim=1, keepdim=True))], dim=1)


def _mean_variance(
    features: torch.Tensor, present: torch.Tensor, years: torch.Tensor
) -> torch.Tensor:
    mean = _mean(features, present)
    deviation = torch.where(present[..., None], features - mean[:, None], 0.0)
    return torch.cat([mean, _mean(deviation.square(), present)], dim=1)


@dataclass(frozen=True, slots=True)
class _Unweighted:
    """What the heads without weights and without settings share."""

    @property
    def name(self) -> str:
        """Id string."""
        return repr(self)

    @property
    def trained(self) -> bool:
        """Whether it has weights: no."""
        return False


@dataclass(frozen=True, slots=True)
class MeanPool(_Unweighted):
    """Mean over the present periods. Dates are not used."""

    def n_outputs(self, n_features: int) -> int:
        """As many as a frame has features."""
        return n_features

    def build(self, n_features: int, *, seed: int) -> torch.nn.Module:
        """Build the module; it has nothing to draw."""
        return _ByFormula(_only_mean)


@dataclass(frozen=True, slots=True)
class MeanDifference(_Unweighted):
    """Mean, and mean difference between consecutive present periods per year elapsed.

    With frames ``f_1 ... f_m`` present at years ``t_1 <= ... <= t_m``, each difference weighs by
    the time it covers::

        sum_k (f_k - f_{k-1}) / sum_k (t_k - t_{k-1}) = (f_m - f_1) / (t_m - t_1)

    Frames of the same day as the first (the last) are averaged. With one frame, or all of one
    day, the difference is 0. Moving all dates by the same time changes nothing. Where the first
    and the last image lie days apart the noise of both is divided by a small number:
    :class:`MeanTrend` uses all frames.
    """

    def n_outputs(self, n_features: int) -> int:
        """Twice the features of a frame: means, then differences."""
        return 2 * n_features

    def build(self, n_features: int, *, seed: int) -> torch.nn.Module:
        """Build the module; it has nothing to draw."""
        return _ByFormula(_mean_difference)


@dataclass(frozen=True, slots=True)
class MeanTrend(_Unweighted):
    """Mean, and slope per year of the least-squares line through the present frames.

    ``sum_k (t_k - t.) (f_k - f.) / sum_k (t_k - t.)^2``, means marked by a dot; 0 where all
    images are of one day. Moving all dates by the same time changes nothing.
    """

    def n_outputs(self, n_features: int) -> int:
        """Twice the features of a frame: means, then slopes."""
        return 2 * n_features

    def build(self, n_features: int, *, seed: int) -> torch.nn.Module:
        """Build the module; it has nothing to draw."""
        return _ByFormula(_mean_trend)


@dataclass(frozen=True, slots=True)
class MeanVariance(_Unweighted):
    """Mean and variance (divisor: the number of frames) over the present periods.

    Dates are not used; with one frame the variance is 0.
    """

    def n_outputs(self, n_features: int) -> int:
        """Twice the features of a frame: means, then variances."""
        return 2 * n_features

    def build(self, n_features: int, *, seed: int) -> torch.nn.Module:
        """Build the module; it has nothing to draw."""
        return _ByFormula(_mean_variance)


@dataclass(frozen=True, slots=True)
class Deviations:
    """Let another head see how each frame deviates from the mean of its sequence.

    Places differ from each other far more than a place does from one year to the next; a head with
    weights finds the change much sooner without these differences. The mean over the present
    periods itself is not passed on: :class:`MeanPool` gives it.

    Parameters
    ----------
    head
        The head that sees the deviations, e.g.
        :class:`~eocausal.encoders.temporal_networks.GRU`.
    """

    head: Head

    @property
    def name(self) -> str:
        """Id string."""
        return f"Deviations({self.head.name})"

    @property
    def trained(self) -> bool:
        """Whether the head has weights."""
        return self.head.trained

    def n_outputs(self, n_features: int) -> int:
        """As many as the head gives."""
        return self.head.n_outputs(n_features)

    def build(self, n_features: int, *, seed: int) -> torch.nn.Module:
        """Build the head, with the mean taken off what it sees."""
        return _OfDeviations(self.head.build(n_features, seed=seed))


class _OfDeviations(torch.nn.Module):
    def __init__(self, head: torch.nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(
        self, features: torch.Tensor, present: torch.Tensor, years: torch.Tensor
    ) -> torch.Tensor:
        """Take off the mean over the present periods."""
        features, years = clear_missing(features, present, years)
        deviation = features - _mean(features, present)[:, None]
        out: torch.Tensor = self.head(deviation, present, years)
        return out
