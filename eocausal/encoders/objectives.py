"""What a network is trained for: labels of neighborhoods, heads on features, and losses.

An objective is a frozen decision. It takes its quantities from a table of units, which are
averaged over the units of a neighborhood with their number as weight, and builds the head that
turns features into predictions and a loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray

from eocausal.contracts import check_columns, some
from eocausal.encoders.augment import Augmentation
from eocausal.encoders.initial_weights import draw_weights, untouched_seeds
from eocausal.errors import AssignmentError, EncoderError, OneArmError, OutcomeError

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

__all__ = [
    "Labels",
    "Objective",
    "Outcome",
    "Propensity",
    "Targets",
    "TrainingHead",
    "average_labels",
    "binary_column",
    "check_arms",
    "check_varies",
    "number_column",
    "seeded",
    "weighted_mean",
]

Float64 = NDArray[np.float64]
View = tuple[torch.Tensor, ...]


class Targets(NamedTuple):
    """Labels of a batch: means ``(n, k)`` and their weights ``(n, k)``, 0 where missing."""

    mean: torch.Tensor
    weight: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Labels by row: means ``(n, k)``, and the numbers of units ``(n, k)`` that they stand for."""

    mean: Float64
    weight: Float64

    def rows(self, chosen: NDArray[np.int64]) -> Labels:
        """Return some rows."""
        return Labels(self.mean[chosen], self.weight[chosen])

    def known(self) -> NDArray[np.bool_]:
        """Mark the rows with any label; (n,)."""
        return np.asarray((self.weight > 0).any(axis=1))

    def targets(self, device: torch.device) -> Targets:
        """Return the labels as float32 tensors."""
        mean, weight = (
            torch.from_numpy(a.astype(np.float32)).to(device) for a in (self.mean, self.weight)
        )
        return Targets(mean, weight)


def average_labels(values: Float64, row: NDArray[np.int64], n: int) -> Labels:
    """Average quantities of units over the rows they belong to.

    Parameters
    ----------
    values
        ``(units, k)``, NaN where missing.
    row
        ``(units,)`` in 0..n-1.
    n
        Number of rows.
    """
    known = np.isfinite(values)
    weight = np.stack([np.bincount(row, k, minlength=n) for k in known.T], axis=1)
    filled = np.where(known, values, 0.0)
    total = np.stack([np.bincount(row, v, minlength=n) for v in filled.T], axis=1)
    return Labels(total / np.maximum(weight, 1.0), weight.astype(np.float64))


def weighted_mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean of ``values`` by ``weight`` of the same shape; 0 where all weights are 0."""
    return (values * weight).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)


class TrainingHead(torch.nn.Module):
    """Turns features ``(n, f)`` into predictions ``(n, len(outputs))`` and a loss."""

    outputs: tuple[str, ...] = ()

    def begin(self, network: torch.nn.Module, labels: Labels | None) -> None:
        """Take what is to be known before the first step; ``labels`` are those trained on."""

    def anchors(self, encode: Callable[[torch.nn.Module], torch.Tensor]) -> torch.Tensor | None:
        """Return what the loss compares with, where another network makes it, else None.

        ``encode`` gives the features ``(views, n, f)`` of a network, without gradient.
        """
        return None

    def scores(self, features: torch.Tensor) -> torch.Tensor:
        """Return predictions ``(n, len(outputs))`` on the scale of the loss."""
        raise NotImplementedError

    def loss(
        self, features: torch.Tensor, targets: Targets | None, anchors: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the loss of features ``(views, n, f)``; a scalar."""
        raise NotImplementedError

    def follow(self, network: torch.nn.Module) -> None:
        """Take note of a step that the network has made."""

    def table(self, raw: Float64) -> dict[str, Float64]:
        """Turn outputs ``(n, len(outputs))`` into named columns in the units of the data."""
        raise NotImplementedError


@runtime_checkable
class Objective(Protocol):
    """A decision what a network is trained for."""

    @property
    def name(self) -> str:
        """Id string."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the units' table that hold labels; none if training needs no labels."""

    @property
    def views(self) -> tuple[tuple[Augmentation, ...], ...] | None:
        """How each view of a chip is changed; None for one view, changed as the schedule says."""

    def quantities(self, units: pd.DataFrame) -> Float64:
        """Return what is learnt of each unit, ``(units, k)``, NaN where missing."""

    def check(self, labels: Labels, where: str) -> None:
        """Refuse labels from which nothing can be learnt."""

    def head(self, n_features: int, *, seed: int) -> TrainingHead:
        """Build the head; the same seed gives the same weights."""


def seeded(head: TrainingHead, last: tuple[torch.nn.Linear, ...], seed: int) -> TrainingHead:
    """Draw a head's weights by a seed; the ``last`` layers start at 0, so it predicts constants."""
    draw_weights(head, seed)
    for layer in last:
        torch.nn.init.zeros_(layer.weight)
    return head


def number_column(units: pd.DataFrame, column: str) -> Float64:
    """Return a column as float64 (n,), NaN where missing.

    Raises
    ------
    MissingColumnError
    OutcomeError
        If it holds something that is neither a number nor missing, or an infinite number.
    """
    import pandas as pd

    check_columns(units, [column], what="units table")
    raw = units[column]
    values = pd.to_numeric(raw, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    wrong = (np.isnan(values) & raw.notna().to_numpy()) | np.isinf(values)
    if wrong.any():
        raise OutcomeError(
            f"{column!r} holds {some(raw[wrong].unique())} in {int(wrong.sum())} units.",
            cause="A loss can only be taken of finite numbers.",
            next_step="Make these values numbers, or missing (NaN) to leave the units out.",
        )
    return values


def binary_column(units: pd.DataFrame, column: str) -> Float64:
    """Return a treatment as float64 (n,): 0, 1, or NaN where missing.

    Raises
    ------
    MissingColumnError, OutcomeError
    AssignmentError
        If there are other values.
    """
    values = number_column(units, column)
    other = ~(np.isnan(values) | (values == 0) | (values == 1))
    if other.any():
        raise AssignmentError(
            f"The treatment {column!r} holds {some(np.unique(values[other]))}.",
            cause="Networks are trained for treatments that are 0 or 1.",
            next_step="Make a column that is 1 where a unit was treated and 0 where it was not.",
        )
    return values


def check_arms(share: Float64, weight: Float64, column: str, where: str) -> None:
    """Refuse labels of one arm: ``share`` treated and number of units, by neighborhood (n,)."""
    treated, units = float(share @ weight), float(weight.sum())
    _check_any(units, column, where)
    if not 1e-9 < treated < units - 1e-9:
        raise OneArmError(
            f"All {units:g} units {where} have {column} = {int(treated > 0)}.",
            cause="What tells treated from other places cannot be learnt from one arm.",
            next_step="Use fewer folds, or another seed or grouping of folds, so that each part "
            "has both arms.",
        )


def check_varies(mean: Float64, weight: Float64, column: str, where: str) -> None:
    """Refuse an outcome that is the same in all neighborhoods; (n,) or (n, arms)."""
    known = weight > 0
    _check_any(float(weight.sum()), column, where)
    values = mean[known]
    if np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())):
        raise OutcomeError(
            f"The outcome {column!r} is {values[0]:g} in every neighborhood {where}.",
            cause="There is no difference to be learnt.",
            next_step="Use another outcome, or fewer folds.",
        )


def _check_any(units: float, column: str, where: str) -> None:
    if units == 0:
        raise EncoderError(
            f"{column!r} is missing in all units {where} whose images have a valid pixel.",
            cause="There is nothing to learn from.",
            next_step="Complete the column, or check that units and cube name the same places.",
        )


@dataclass(frozen=True, slots=True)
class Propensity:
    """The treatment: logistic loss of a linear function of the features.

    Parameters
    ----------
    treatment
        Column of the units' table: 0, 1, or missing.
    smoothing
        Labels are drawn this far towards one half (Szegedy et al. 2016, section 7).
    """

    treatment: str = "treated"
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise EncoderError(
                f"smoothing is {self.smoothing}.",
                cause="Labels are drawn towards one half by a share of the way.",
                next_step="Use smoothing=0, or a little such as 0.05.",
            )

    @property
    def name(self) -> str:
        """Id string."""
        return repr(self)

    @property
    def columns(self) -> tuple[str, ...]:
        """The treatment."""
        return (self.treatment,)

    @property
    def views(self) -> None:
        """One view."""
        return None

    def quantities(self, units: pd.DataFrame) -> Float64:
        """Return the treatment, ``(units, 1)``."""
        return binary_column(units, self.treatment)[:, None]

    def check(self, labels: Labels, where: str) -> None:
        """Refuse labels of one arm (``OneArmError``)."""
        check_arms(labels.mean[:, 0], labels.weight[:, 0], self.treatment, where)

    def head(self, n_features: int, *, seed: int) -> TrainingHead:
        """Build the logit."""
        head = untouched_seeds(lambda: _PropensityHead(n_features, self.smoothing))
        return seeded(head, (head.logit,), seed)


class _PropensityHead(TrainingHead):
    outputs = ("logit",)

    def __init__(self, n_features: int, smoothing: float) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.logit = torch.nn.Linear(n_features, 1)

    def begin(self, network: torch.nn.Module, labels: Labels | None) -> None:
        assert labels is not None
        share = float(np.average(labels.mean[:, 0], weights=labels.weight[:, 0]))
        torch.nn.init.constant_(self.logit.bias, float(np.log(share / (1.0 - share))))

    def scores(self, features: torch.Tensor) -> torch.Tensor:
        logit: torch.Tensor = self.logit(features)
        return logit

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.scores(features)

    def loss(
        self, features: torch.Tensor, targets: Targets | None, anchors: torch.Tensor | None
    ) -> torch.Tensor:
        assert targets is not None
        label = targets.mean * (1.0 - self.smoothing) + 0.5 * self.smoothing
        each = functional.binary_cross_entropy_with_logits(
            self(features[0]), label, reduction="none"
        )
        return weighted_mean(each, targets.weight)

    def table(self, raw: Float64) -> dict[str, Float64]:
        return {"propensity": 1.0 / (1.0 + np.exp(-raw[:, 0]))}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome: squared error of a linear function of the features.

    Parameters
    ----------
    outcome
        Column of the units' table; standardised by its mean and sd over the neighborhoods trained
        on, and given back in its own units.
    """

    outcome: str = "outcome"

    @property
    def name(self) -> str:
        """Id string."""
        return repr(self)

    @property
    def columns(self) -> tuple[str, ...]:
        """The outcome."""
        return (self.outcome,)

    @property
    def views(self) -> None:
        """One view."""
        return None

    def quantities(self, units: pd.DataFrame) -> Float64:
        """Return the outcome, ``(units, 1)``."""
        return number_column(units, self.outcome)[:, None]

    def check(self, labels: Labels, where: str) -> None:
        """Refuse an outcome that does not vary (``OutcomeError``)."""
        check_varies(labels.mean, labels.weight, self.outcome, where)

    def head(self, n_features: int, *, seed: int) -> TrainingHead:
        """Build the regression."""
        head = untouched_seeds(lambda: _OutcomeHead(n_features))
        return seeded(head, (head.mean,), seed)


class _OutcomeHead(TrainingHead):
    outputs = ("outcome",)

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.mean = torch.nn.Linear(n_features, 1)
        self.scale = OutcomeScale()

    def begin(self, network: torch.nn.Module, labels: Labels | None) -> None:
        assert labels is not None
        self.scale.set(labels.mean, labels.weight)

    def scores(self, features: torch.Tensor) -> torch.Tensor:
        mean: torch.Tensor = self.mean(features)
        return mean

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.scale.restore(self.scores(features))

    def loss(
        self, features: torch.Tensor, targets: Targets | None, anchors: torch.Tensor | None
    ) -> torch.Tensor:
        assert targets is not None
        error = self.scores(features[0]) - self.scale.standardise(targets.mean)
        return weighted_mean(error.square(), targets.weight)

    def table(self, raw: Float64) -> dict[str, Float64]:
        return {"outcome": raw[:, 0]}


class OutcomeScale(torch.nn.Module):
    """Mean and sd of an outcome, kept with the weights."""

    centre: torch.Tensor
    spread: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    def set(self, mean: Float64, weight: Float64) -> None:
        """Take weighted mean and sd over neighborhoods."""
        centre = np.average(mean, weights=weight)
        self.centre.fill_(float(centre))
        self.spread.fill_(float(np.sqrt(np.average((mean - centre) ** 2, weights=weight))))

    def standardise(self, values: torch.Tensor) -> torch.Tensor:
        """Take values to mean 0 and sd 1."""
        return (values - self.centre) / self.spread

    def restore(self, values: torch.Tensor) -> torch.Tensor:
        """Take standardised values back to the outcome's units."""
        return values * self.spread + self.centre
