"""Treatment and outcome together: a representation that keeps what predicts treatment.

Shi, Blei & Veitch 2019, "Adapting neural networks for the estimation of treatment effects"
(arXiv 1906.02120): one representation, a linear head ``g`` for the treatment, two heads ``Q0`` and
``Q1`` for the outcome under each arm, and a fluctuation ``epsilon``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as functional

from eocausal.encoders.initial_weights import untouched_seeds
from eocausal.encoders.objectives import (
    Float64,
    Labels,
    OutcomeScale,
    Targets,
    TrainingHead,
    binary_column,
    check_arms,
    check_varies,
    number_column,
    seeded,
    weighted_mean,
)
from eocausal.errors import EncoderError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Dragonnet"]


@dataclass(frozen=True, slots=True)
class Dragonnet:
    """Loss of treatment and outcome on one representation, with targeted regularisation.

    With ``g = P(T = 1 | x)``, ``Q_t = E(Y | t, x)`` and ``h_t = t / g - (1 - t) / (1 - g)``:

    ``mean (Q_t - y)^2 + a * mean crossentropy(g, t)  +  b * mean (y - Q_t - epsilon h_t)^2``

    (Shi, Blei & Veitch 2019: the first two terms are eq. 2.2, the last is that of eq. 3.2), ``y``
    standardised. In ``h`` the propensity is ``(g + 0.01) / 1.02``, as in the authors' code.
    Predictions are ``g``, ``Q0`` and ``Q1``, without the fluctuation.

    Parameters
    ----------
    treatment, outcome
        Columns of the units' table. A unit without treatment is left out; one without outcome
        teaches the treatment only.
    targeted_regularisation
        ``b``; 0 leaves the fluctuation out.
    propensity_weight
        ``a``.
    hidden
        Width of the hidden layer of ``Q0`` and of ``Q1``.
    """

    treatment: str = "treated"
    outcome: str = "outcome"
    targeted_regularisation: float = 1.0
    propensity_weight: float = 1.0
    hidden: int = 64

    def __post_init__(self) -> None:
        if not (self.targeted_regularisation >= 0 < self.propensity_weight and self.hidden >= 1):
            raise EncoderError(
                f"targeted_regularisation={self.targeted_regularisation}, "
                f"propensity_weight={self.propensity_weight}, hidden={self.hidden}.",
                cause="Weights of losses are not negative, the treatment's is positive, and a "
                "layer has at least one unit.",
                next_step="Use targeted_regularisation=1, propensity_weight=1, hidden=64.",
            )

    @property
    def name(self) -> str:
        """Id string."""
        return repr(self)

    @property
    def columns(self) -> tuple[str, ...]:
        """Treatment and outcome."""
        return (self.treatment, self.outcome)

    @property
    def views(self) -> None:
        """One view."""
        return None

    def quantities(self, units: pd.DataFrame) -> Float64:
        """Return treatment, outcome if not treated, outcome if treated, ``(units, 3)``."""
        treatment = binary_column(units, self.treatment)
        outcome = number_column(units, self.outcome)
        arms = [np.where(treatment == arm, outcome, np.nan) for arm in (0, 1)]
        return np.stack([treatment, *arms], axis=1)

    def check(self, labels: Labels, where: str) -> None:
        """Refuse labels of one arm or an outcome that does not vary."""
        check_arms(labels.mean[:, 0], labels.weight[:, 0], self.treatment, where)
        check_varies(labels.mean[:, 1:], labels.weight[:, 1:], self.outcome, where)
        for arm in (0, 1):
            if not labels.weight[:, 1 + arm].any():
                raise EncoderError(
                    f"No unit {where} with {self.treatment} = {arm} has an outcome "
                    f"{self.outcome!r}.",
                    cause=f"The outcome under arm {arm} cannot be learnt.",
                    next_step="Complete the outcome, use fewer folds, or train for Propensity().",
                )

    def head(self, n_features: int, *, seed: int) -> TrainingHead:
        """Build ``g``, ``Q0``, ``Q1`` and ``epsilon``."""
        head = untouched_seeds(lambda: _DragonnetHead(n_features, self))
        return seeded(head, (head.logit, head.last(0), head.last(1)), seed)


class _DragonnetHead(TrainingHead):
    outputs = ("logit", "outcome_0", "outcome_1")

    def __init__(self, n_features: int, decision: Dragonnet) -> None:
        super().__init__()
        self.propensity_weight = decision.propensity_weight
        self.targeted_regularisation = decision.targeted_regularisation
        self.logit = torch.nn.Linear(n_features, 1)
        self.arms = torch.nn.ModuleList(
            torch.nn.Sequential(
                torch.nn.Linear(n_features, decision.hidden),
                torch.nn.ELU(),
                torch.nn.Linear(decision.hidden, 1),
            )
            for _ in range(2)
        )
        self.epsilon = torch.nn.Parameter(torch.zeros(()))
        self.scale = OutcomeScale()

    def last(self, arm: int) -> torch.nn.Linear:
        layer = self.arms[arm].get_submodule("2")
        assert isinstance(layer, torch.nn.Linear)
        return layer

    def begin(self, network: torch.nn.Module, labels: Labels | None) -> None:
        assert labels is not None
        share = float(np.average(labels.mean[:, 0], weights=labels.weight[:, 0]))
        torch.nn.init.constant_(self.logit.bias, float(np.log(share / (1.0 - share))))
        self.scale.set(labels.mean[:, 1:], labels.weight[:, 1:])

    def scores(self, features: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.logit(features), *(arm(features) for arm in self.arms)], dim=1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        scores = self.scores(features)
        return torch.cat([scores[:, :1], self.scale.restore(scores[:, 1:])], dim=1)

    def loss(
        self, features: torch.Tensor, targets: Targets | None, anchors: torch.Tensor | None
    ) -> torch.Tensor:
        assert targets is not None
        scores = self.scores(features[0])
        logit, fitted = scores[:, 0], scores[:, 1:]
        error = self.scale.standardise(targets.mean[:, 1:]) - fitted
        weight = targets.weight[:, 1:]
        crossentropy = functional.binary_cross_entropy_with_logits(
            logit, targets.mean[:, 0], reduction="none"
        )
        total = weighted_mean(error.square(), weight)
        total = total + self.propensity_weight * weighted_mean(crossentropy, targets.weight[:, 0])
        if self.targeted_regularisation == 0:
            return total
        share = (torch.sigmoid(logit) + 0.01) / 1.02
        direction = torch.stack([-1.0 / (1.0 - share), 1.0 / share], dim=1)
        fluctuation = weighted_mean((error - self.epsilon * direction).square(), weight)
        return total + self.targeted_regularisation * fluctuation

    def table(self, raw: Float64) -> dict[str, Float64]:
        return {
            "propensity": 1.0 / (1.0 + np.exp(-raw[:, 0])),
            "outcome_0": raw[:, 1],
            "outcome_1": raw[:, 2],
            "effect": raw[:, 2] - raw[:, 1],
        }
