"""Effects by maximum likelihood, with the uncertainty the model has and what it leaves out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from eocausal.effects import EffectPath
from eocausal.errors import EstimationError
from eocausal.estimators.unobserved_components import UnobservedComponents

__all__ = ["LikelihoodImpact", "Parameters"]

Float64 = NDArray[np.float64]
COLLAPSED = 0.01


@dataclass(frozen=True, slots=True)
class Parameters:
    """Variances and coefficients of an unobserved components model.

    Attributes
    ----------
    noise
        Variance of the irregular part.
    states
        Variances by name: ``level``, ``slope``, ``season``.
    coefficients
        Of the controls, by name.
    """

    noise: float
    states: Mapping[str, float]
    coefficients: Mapping[str, float] = field(default_factory=dict)

    def ratios(self, names: tuple[str, ...]) -> Float64:
        """Return state variances relative to the noise.

        Raises
        ------
        EstimationError
            If a variance is missing, too many, or negative.
        """
        values = list(self.states.values())
        if set(names) != set(self.states) or min([self.noise, *values]) < 0 or self.noise == 0:
            raise EstimationError(
                f"State variances {dict(self.states)} and noise {self.noise}.",
                cause=f"The model has {', '.join(names)}; variances are not negative.",
                next_step="Give each one, and a noise above zero.",
            )
        return np.array([self.states[name] for name in names]) / self.noise

    def of(self, names: list[str]) -> Float64:
        """Return the coefficients of controls.

        Raises
        ------
        EstimationError
            If coefficients and controls do not have the same names.
        """
        if set(names) != set(self.coefficients):
            raise EstimationError(
                f"Coefficients of {sorted(self.coefficients)} for the controls {sorted(names)}.",
                cause="Each control needs a coefficient.",
                next_step="Name them as the columns of the controls.",
            )
        return np.array([self.coefficients[name] for name in names], dtype=float)


@dataclass(frozen=True, slots=True, eq=False)
class LikelihoodImpact:
    """Observed minus predicted values after an event, with joint uncertainty.

    Attributes
    ----------
    time, observed, effect
        (H,) times after the event, values, and values minus their prediction.
    covariance
        (H, H) joint covariance of the prediction errors with coefficients taken as known, as
        statsmodels does.
    covariance_estimated
        (H, H) the same with the uncertainty of the coefficients.
    model, parameters, log_likelihood
        What was fitted, and how well; the likelihood leaves out the first values, one a state.
    converged
        Whether the search for the maximum ended.
    learned
        Number of values learned from.
    autocorrelation
        Of neighbouring one-step errors before the event: what the model should have left at 0.
    level
        Probability of the intervals of single times.
    """

    time: pd.DatetimeIndex
    observed: Float64
    effect: Float64
    covariance: Float64
    covariance_estimated: Float64
    model: UnobservedComponents
    parameters: Parameters
    log_likelihood: float
    converged: bool
    learned: int
    autocorrelation: float
    level: float = 0.95

    @property
    def average(self) -> float:
        """Mean effect."""
        return float(self.effect.mean())

    @property
    def cumulative(self) -> float:
        """Sum of effects."""
        return float(self.effect.sum())

    @property
    def predicted(self) -> float:
        """Mean prediction."""
        return float((self.observed - self.effect).mean())

    @property
    def relative(self) -> float:
        """Mean effect over mean prediction; NaN if that is not clear of zero."""
        spread = float(np.sqrt(self.covariance_estimated.mean()))
        return self.average / self.predicted if abs(self.predicted) > 2 * spread else math.nan

    @property
    def std_error(self) -> float:
        """Standard error of the mean effect from the joint forecast, coefficients known."""
        return float(np.sqrt(self.covariance.mean()))

    @property
    def std_error_estimated(self) -> float:
        """The same with the uncertainty of the coefficients."""
        return float(np.sqrt(self.covariance_estimated.mean()))

    @property
    def std_error_of_one(self) -> float:
        """Mean standard error of single times: the one that must not be used for the mean."""
        return float(np.sqrt(np.diag(self.covariance)).mean())

    @property
    def p_value(self) -> float:
        """Two-sided p-value of the mean effect from the joint forecast."""
        return float(2 * stats.norm.sf(abs(self.average) / self.std_error_estimated))

    @property
    def p_value_of_one(self) -> float:
        """What comes out if the mean of many times is judged by the spread of one. Wrong."""
        return float(2 * stats.norm.sf(abs(self.average) / self.std_error_of_one))

    @property
    def collapsed(self) -> tuple[str, ...]:
        """State variances that move the series by less than a tenth of its noise.

        A slope moves a long series even if its variance looks like zero: see
        :meth:`UnobservedComponents.natural`.
        """
        names = self.model.variances
        shares = self.parameters.ratios(names) / self.model.natural(self.learned)
        return tuple(n for n, share in zip(names, shares, strict=True) if share < COLLAPSED)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per time: observed, predicted, its interval, effect and running sum."""
        half = stats.norm.ppf(0.5 + self.level / 2) * np.sqrt(np.diag(self.covariance))
        predicted = self.observed - self.effect
        return pd.DataFrame(
            {
                "observed": self.observed, "predicted": predicted, "low": predicted - half,
                "high": predicted + half, "effect": self.effect,
                "cumulative": self.effect.cumsum(),
            },
            index=pd.Index(self.time, name="time"),
        )  # fmt: skip

    def path(self, draws: int = 1000, seed: int = 0) -> EffectPath:
        """Return the times after the event as draws from the joint forecast.

        Coefficients are uncertain in them, variances are not.
        """
        half = np.linalg.cholesky(self.covariance_estimated)
        noise = np.random.default_rng(seed).standard_normal((draws, len(self.effect)))
        expected = self.observed - self.effect
        return EffectPath(
            self.time, self.observed, expected + noise @ half.T,
            np.ones(len(self.effect), dtype=bool), self.level,
        )  # fmt: skip

    def explain_p_value(self) -> str:
        """Say why the spread of single times says nothing about their mean."""
        return (
            f"Judged by the spread of a single time ({self.std_error_of_one:.3f}) the mean of "
            f"{len(self.effect)} times has p = {self.p_value_of_one:.4f}. That is not its p-value: "
            "errors of single times partly cancel in a mean, and how much they do is in their "
            f"joint covariance, which gives the mean a standard error of {self.std_error:.3f} "
            f"({self.std_error_estimated:.3f} with estimated coefficients)."
        )

    def summary(self) -> str:
        """Say in words what was found and how far it can be trusted."""
        relative = "" if math.isnan(self.relative) else f" ({self.relative:+.2%})"
        lines = [
            f"Observed minus predicted: {self.average:+.4g} on average{relative}, "
            f"{self.cumulative:+.4g} in sum over {len(self.effect)} times; "
            f"predicted mean {self.predicted:.4g}.",
            self.explain_p_value(),
        ]
        if self.collapsed:
            lines.append(
                f"Estimated at practically nothing: the variance of {', '.join(self.collapsed)}. "
                "That part of the structural model stands still, and the interval takes it as "
                "certain that it does."
            )
        lines.append(
            "The standard error takes the variances as known, although the likelihood is flat "
            "around them, and errors as independent: before the event neighbouring ones are "
            f"correlated by {self.autocorrelation:.2f}. bsts(...) averages over the first and "
            "models the second."
        )
        if not self.converged:
            lines.append("The search for the highest likelihood did not end: do not use this.")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return (
            f"LikelihoodImpact(average {self.average:.4f} ± {self.std_error:.4f}, cumulative "
            f"{self.cumulative:.4g}, relative {self.relative:.2%}, n = {len(self.effect)})"
        )
