"""Scores: which estimator makes an effect out of outcomes, arms and nuisance models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from eocausal.errors import EstimationError
from eocausal.estimators.aipw import aipw_ate, aipw_ato, aipw_att
from eocausal.estimators.arm_means import ArmMeans, Estimand
from eocausal.estimators.balancing import balance_by_cbps, balance_by_entropy
from eocausal.estimators.hajek import hajek_means

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from eocausal.estimators.observational import Observed

__all__ = ["AIPW", "CBPS", "EntropyBalancing", "Hajek", "Nuisances", "Score"]


@dataclass(frozen=True, slots=True, eq=False)
class Nuisances:
    """Predictions that a score needs.

    Attributes
    ----------
    propensity
        (n, K) probabilities of the arms, or None.
    outcome
        (n, K) predicted outcomes under each arm, or None.
    design
        (n, q) columns, with the intercept, of the unpenalised multinomial logit that gave the
        probabilities in sample; None for any other model. With it the variance accounts for
        the estimation of the probabilities.
    """

    propensity: NDArray[np.float64] | None = None
    outcome: NDArray[np.float64] | None = None
    design: NDArray[np.float64] | None = None


class Score(Protocol):
    """A decision which estimator is used, and for which population."""

    @property
    def estimand(self) -> Estimand:
        """Population of the effect."""
        ...

    @property
    def name(self) -> str:
        """Name of the method in tables."""
        ...

    @property
    def needs_propensity(self) -> bool:
        """Whether probabilities of the arms are used."""
        ...

    @property
    def needs_outcome(self) -> bool:
        """Whether predicted outcomes are used."""
        ...

    def means(self, data: Observed, nuisances: Nuisances) -> ArmMeans:
        """Compute the arms' means with their influence values."""
        ...


def _only_two_arms(data: Observed, what: str) -> None:
    if len(data.arms) > 2:
        raise EstimationError(
            f"{what} compares two arms, and there are {len(data.arms)}: {', '.join(data.arms)}.",
            cause="For several treatments the population differs from contrast to contrast.",
            next_step="Use AIPW() or Hajek(), or compare the treatments one by one.",
        )


@dataclass(frozen=True, slots=True)
class AIPW:
    """Augmented inverse-probability weighting; the default.

    Parameters
    ----------
    estimand
        ATE (default), ATT or ATO.
    normalised
        Whether weights are normalised within arms; see :func:`~eocausal.estimators.aipw.aipw_ate`.
    """

    estimand: Estimand = Estimand.ATE
    normalised: bool = True

    @property
    def name(self) -> str:
        """Name of the method."""
        return "residual-on-residual regression" if self.estimand is Estimand.ATO else "AIPW"

    @property
    def needs_propensity(self) -> bool:
        """True."""
        return True

    @property
    def needs_outcome(self) -> bool:
        """True."""
        return True

    def means(self, data: Observed, nuisances: Nuisances) -> ArmMeans:
        """Compute the means; see :mod:`eocausal.estimators.aipw`."""
        e, m = nuisances.propensity, nuisances.outcome
        assert e is not None
        assert m is not None
        if self.estimand is Estimand.ATE:
            return aipw_ate(data.y, data.arm, e, m, normalised=self.normalised)
        _only_two_arms(data, f"The {self.estimand} by AIPW")
        if self.estimand is Estimand.ATT:
            return aipw_att(data.y, data.arm, e, m, normalised=self.normalised)
        return aipw_ato(data.y, data.arm, e, m)


@dataclass(frozen=True, slots=True)
class Hajek:
    """Inverse-probability weighting with weights normalised within arms.

    With :class:`~eocausal.estimators.logit.Logit` and no folds the variance accounts for the
    estimation of the probabilities. With other models, or cross-fitted, they are taken as given:
    for the ATE intervals are then too wide, by a third and more, and bias of the model stays;
    :class:`AIPW` has neither fault.

    Parameters
    ----------
    estimand
        ATE (default), ATT, or ATO (overlap weights).
    """

    estimand: Estimand = Estimand.ATE

    @property
    def name(self) -> str:
        """Name of the method."""
        return "overlap weights" if self.estimand is Estimand.ATO else "Hájek IPW"

    @property
    def needs_propensity(self) -> bool:
        """True."""
        return True

    @property
    def needs_outcome(self) -> bool:
        """False."""
        return False

    def means(self, data: Observed, nuisances: Nuisances) -> ArmMeans:
        """Compute the means; see :mod:`eocausal.estimators.hajek`."""
        if self.estimand is Estimand.ATT:
            _only_two_arms(data, "The ATT")
        assert nuisances.propensity is not None
        return hajek_means(
            data.y, data.arm, nuisances.propensity, self.estimand, design=nuisances.design
        )


@dataclass(frozen=True, slots=True)
class EntropyBalancing:
    """Weights of least divergence that balance the means of the confounders.

    Parameters
    ----------
    estimand
        ATT (default) or ATE.
    ridge
        0 (default) balances exactly; a small number accepts some imbalance for less uneven
        weights, which many image features need, and the result says how much is left.
    """

    estimand: Estimand = Estimand.ATT
    ridge: float = 0.0

    @property
    def name(self) -> str:
        """Name of the method."""
        return "approximate entropy balancing" if self.ridge else "entropy balancing"

    @property
    def needs_propensity(self) -> bool:
        """False."""
        return False

    @property
    def needs_outcome(self) -> bool:
        """False."""
        return False

    def means(self, data: Observed, nuisances: Nuisances) -> ArmMeans:
        """Compute the means; see :func:`~eocausal.estimators.balancing.balance_by_entropy`."""
        if self.estimand is Estimand.ATT:
            _only_two_arms(data, "The ATT")
        x, names = data.confounders.x, data.confounders.names
        return balance_by_entropy(data.y, data.arm, x, self.estimand, ridge=self.ridge, names=names)


@dataclass(frozen=True, slots=True)
class CBPS:
    """Logistic probabilities that balance the means of the confounders exactly.

    Parameters
    ----------
    estimand
        ATE (default), ATT or ATO.
    """

    estimand: Estimand = Estimand.ATE

    @property
    def name(self) -> str:
        """Name of the method."""
        return "covariate balancing propensity score"

    @property
    def needs_propensity(self) -> bool:
        """False."""
        return False

    @property
    def needs_outcome(self) -> bool:
        """False."""
        return False

    def means(self, data: Observed, nuisances: Nuisances) -> ArmMeans:
        """Compute the means; see :func:`~eocausal.estimators.balancing.balance_by_cbps`."""
        _only_two_arms(data, "The covariate balancing propensity score")
        x, names = data.confounders.x, data.confounders.names
        return balance_by_cbps(data.y, data.arm, x, self.estimand, names=names)
