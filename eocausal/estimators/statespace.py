"""Linear Gaussian state space models, many series at once: likelihood, filter, forecast.

    y_t = z_t' a_t + e_t,   e_t ~ N(0, h_t),      a_{t+1} = F a_t + n_t,   n_t ~ N(0, Q),

with a_1 ~ N(m, P). Transition and state noise do not change with time, design and observation
variance may. An observation that is NaN is skipped, in each series its own, and adds nothing to
the likelihood (Durbin & Koopman 2012, sections 4.3 and 4.10). Components of models are in
:mod:`eocausal.estimators.components`, smoothing and drawing in
:mod:`eocausal.estimators.smoothing`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from eocausal.errors import EstimationError

__all__ = ["Filtered", "Forecast", "StateSpace", "filter_series", "forecast", "log_likelihood"]

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True, slots=True, eq=False)
class StateSpace:
    """A model of d states; every part may have leading dimensions, one per series.

    Attributes
    ----------
    transition
        (..., d, d) F.
    state_cov
        (..., d, d) Q.
    design
        (..., T, d) z_t, or (..., 1, d) if it is the same at all times.
    obs_var
        (..., T) h_t >= 0, or (..., 1).
    mean, cov
        (..., d) and (..., d, d): m and P.
    """

    transition: Tensor
    state_cov: Tensor
    design: Tensor
    obs_var: Tensor
    mean: Tensor
    cov: Tensor

    @property
    def size(self) -> int:
        """Number of states."""
        return int(self.transition.shape[-1])

    def batch(self, y: Tensor) -> torch.Size:
        """Return the leading dimensions of the model together with those of ``y`` (..., T).

        Raises
        ------
        EstimationError
            If design or observation variance have neither one row nor one for each time.
        """
        times = y.shape[-1]
        if self.design.shape[-2] not in (1, times) or self.obs_var.shape[-1] not in (1, times):
            raise EstimationError(
                f"The model knows {self.design.shape[-2]} times in its design and "
                f"{self.obs_var.shape[-1]} in its variances; the series has {times}.",
                cause="Each time needs a row of the design and a variance.",
                next_step="Give the model one row for all times, or one for each.",
            )
        parts = (
            y.shape[:-1], self.transition.shape[:-2], self.state_cov.shape[:-2],
            self.design.shape[:-2], self.obs_var.shape[:-1], self.mean.shape[:-1],
            self.cov.shape[:-2],
        )  # fmt: skip
        return torch.Size(torch.broadcast_shapes(*parts))  # type: ignore[no-untyped-call]

    def design_at(self, time: int) -> Tensor:
        """Return z_t, ``(..., d)``."""
        return self.design[..., time if self.design.shape[-2] > 1 else 0, :]

    def obs_var_at(self, time: int) -> Tensor:
        """Return h_t, ``(...)``."""
        return self.obs_var[..., time if self.obs_var.shape[-1] > 1 else 0]


@dataclass(frozen=True, slots=True, eq=False)
class Filtered:
    """What the Kalman filter leaves behind, over time on the dimension before the states.

    Attributes
    ----------
    log_likelihood
        (...) log density of the observed values.
    innovation, innovation_var
        (..., T) y_t minus its prediction (0 where missing) and the variance of it.
    observed
        (..., T) True where y_t was there.
    predicted, predicted_cov
        (..., T, d) and (..., T, d, d): state at t given the values before t.
    filtered, filtered_cov
        The same given the values up to t.
    """

    log_likelihood: Tensor
    innovation: Tensor
    innovation_var: Tensor
    observed: Tensor
    predicted: Tensor
    predicted_cov: Tensor
    filtered: Tensor
    filtered_cov: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """Mean and variance of the values after the last one, each ``(..., horizon)``."""

    mean: Tensor
    variance: Tensor


def filter_series(model: StateSpace, y: Tensor) -> Filtered:
    """Run the Kalman filter over series that share a model or have each their own.

    Parameters
    ----------
    model
        Its leading dimensions broadcast against those of ``y``.
    y
        (..., T) values, NaN where missing.
    """
    step = _Steps(model, y)
    kept: list[tuple[Tensor, ...]] = []
    for time in range(y.shape[-1]):
        before = step.mean, step.cov
        innovation, variance = step.update(time)
        kept.append((innovation, variance, *before, step.mean, step.cov))
        step.predict()
    v, f, a, p, af, pf = zip(*kept, strict=True)
    return Filtered(
        step.log_likelihood, torch.stack(v, -1), torch.stack(f, -1), step.observed,
        torch.stack(a, -2), torch.stack(p, -3), torch.stack(af, -2), torch.stack(pf, -3),
    )  # fmt: skip


def log_likelihood(model: StateSpace, y: Tensor) -> Tensor:
    """Return the exact log density of the observed values of each series, ``(...)``.

    Keeps one time step in memory; otherwise as :func:`filter_series`.
    """
    step = _Steps(model, y)
    for time in range(y.shape[-1]):
        step.update(time)
        step.predict()
    return step.log_likelihood


def forecast(model: StateSpace, y: Tensor, horizon: int) -> Forecast:
    """Predict ``horizon`` values after the last of ``y``, observation noise included.

    Parameters
    ----------
    model
        Design and variances that change with time must cover the T + horizon times.
    y
        (..., T) values, NaN where missing.
    """
    ahead = torch.full((*y.shape[:-1], horizon), math.nan, dtype=y.dtype, device=y.device)
    step = _Steps(model, torch.cat([y, ahead], -1))
    means, variances = [], []
    for time in range(y.shape[-1] + horizon):
        if time >= y.shape[-1]:
            z = model.design_at(time)
            means.append((z * step.mean).sum(-1))
            variances.append(_quadratic(step.cov, z) + model.obs_var_at(time))
        step.update(time)
        step.predict()
    return Forecast(torch.stack(means, -1), torch.stack(variances, -1))


class _Steps:
    """The filter between two times: state mean and covariance, likelihood so far."""

    def __init__(self, model: StateSpace, y: Tensor) -> None:
        batch = model.batch(y)
        self.model = model
        self.observed = torch.isfinite(y).expand(*batch, y.shape[-1])
        self.values = torch.where(self.observed, y, torch.zeros_like(y))
        self.mean = model.mean.expand(*batch, model.size)
        self.cov = model.cov.expand(*batch, model.size, model.size)
        self.log_likelihood = torch.zeros(batch, dtype=y.dtype, device=y.device)
        self.moved = model.transition.transpose(-1, -2)

    def update(self, time: int) -> tuple[Tensor, Tensor]:
        """Take in the values of one time; return innovations and their variances."""
        z, there = self.model.design_at(time), self.observed[..., time]
        spread = (self.cov @ z[..., None])[..., 0]
        variance = (spread * z).sum(-1) + self.model.obs_var_at(time)
        innovation = self.values[..., time] - (self.mean * z).sum(-1)
        innovation = torch.where(there, innovation, torch.zeros_like(innovation))
        gain = torch.where(there[..., None], spread / variance[..., None], torch.zeros_like(spread))
        self.mean = self.mean + gain * innovation[..., None]
        self.cov = self.cov - gain[..., :, None] * spread[..., None, :]
        density = -0.5 * (LOG_2PI + torch.log(variance) + innovation.square() / variance)
        self.log_likelihood = self.log_likelihood + torch.where(
            there, density, torch.zeros_like(density)
        )
        return innovation, variance

    def predict(self) -> None:
        """Move on to the next time."""
        self.mean = (self.model.transition @ self.mean[..., None])[..., 0]
        cov = self.model.transition @ self.cov @ self.moved + self.model.state_cov
        self.cov = 0.5 * (cov + cov.transpose(-1, -2))


def _quadratic(matrix: Tensor, vector: Tensor) -> Tensor:
    return ((matrix @ vector[..., None])[..., 0] * vector).sum(-1)
