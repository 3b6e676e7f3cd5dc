"""Smoothed states and draws of states given the data, for many series at once.

The smoother is the backward recursion of Durbin & Koopman (2012, section 4.4); draws come from
their mean correction (section 4.9.1): states drawn from the model without data, plus the smoothed
states of the data minus the drawn data. Random numbers are given by the caller, so that a draw
depends on nothing but its own numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from eocausal.estimators.statespace import Filtered, StateSpace, filter_series

__all__ = ["Noise", "Smoothed", "draw_states", "simulate", "smooth"]


@dataclass(frozen=True, slots=True, eq=False)
class Smoothed:
    """States given all values: means ``(..., T, d)`` and covariances ``(..., T, d, d)``."""

    mean: Tensor
    cov: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """Standard normal numbers that make up one draw of a series.

    Attributes
    ----------
    start
        (..., d) for the first state.
    states
        (..., T, d) for the innovations of the states; those of the last time are not used.
    values
        (..., T) for the observation noise.
    """

    start: Tensor
    states: Tensor
    values: Tensor

    @classmethod
    def of(cls, shape: tuple[int, ...], size: int, generator: torch.Generator) -> Noise:
        """Draw the numbers for series of ``shape`` (..., T) and a model of ``size`` states."""
        *batch, times = shape
        draw = [
            torch.randn(*part, generator=generator, dtype=torch.float64)
            for part in ((*batch, size), (*batch, times, size), (*batch, times))
        ]
        return cls(*draw)


def smooth(model: StateSpace, y: Tensor, filtered: Filtered | None = None) -> Smoothed:
    """Return mean and covariance of every state given all values of its series.

    Parameters
    ----------
    y
        (..., T) values, NaN where missing.
    filtered
        Result of :func:`filter_series` on the same model and values, if at hand.
    """
    found = filter_series(model, y) if filtered is None else filtered
    means, covs = [], []
    r = torch.zeros_like(found.predicted[..., 0, :])
    n = torch.zeros_like(found.predicted_cov[..., 0, :, :])
    eye = torch.eye(model.size, dtype=y.dtype, device=y.device)
    for time in reversed(range(y.shape[-1])):
        z, there = model.design_at(time), found.observed[..., time]
        a, p = found.predicted[..., time, :], found.predicted_cov[..., time, :, :]
        weight = there / found.innovation_var[..., time]
        gain = (p @ z[..., None])[..., 0] * weight[..., None]
        left = model.transition @ (eye - gain[..., :, None] * z[..., None, :])
        turned = left.transpose(-1, -2)
        signal = weight * found.innovation[..., time]
        r = z * signal[..., None] + (turned @ r[..., None])[..., 0]
        n = z[..., :, None] * z[..., None, :] * weight[..., None, None] + turned @ n @ left
        means.append(a + (p @ r[..., None])[..., 0])
        covs.append(p - p @ n @ p)
    return Smoothed(torch.stack(means[::-1], -2), torch.stack(covs[::-1], -3))


def simulate(model: StateSpace, noise: Noise) -> tuple[Tensor, Tensor]:
    """Draw states and values from the model alone: ``(..., T, d)`` and ``(..., T)``."""
    root = _root(model.state_cov)
    state = model.mean + (_root(model.cov) @ noise.start[..., None])[..., 0]
    states, values = [], []
    for time in range(noise.values.shape[-1]):
        states.append(state)
        sd = model.obs_var_at(time).sqrt()
        values.append((model.design_at(time) * state).sum(-1) + sd * noise.values[..., time])
        shock = (root @ noise.states[..., time, :, None])[..., 0]
        state = (model.transition @ state[..., None])[..., 0] + shock
    return torch.stack(states, -2), torch.stack(values, -1)


def draw_states(model: StateSpace, y: Tensor, noise: Noise) -> Tensor:
    """Draw states given the values, ``(..., T, d)``; leading dimensions of all three broadcast.

    Times after the last value are drawn forward: append NaN to ``y`` for a forecast by draws.
    """
    states, values = simulate(model, noise)
    centred = replace(model, mean=torch.zeros_like(model.mean))
    return states + _smoothed_mean(centred, y - values)


def _smoothed_mean(model: StateSpace, y: Tensor) -> Tensor:
    """Smooth without covariances, which a draw does not need."""
    found = filter_series(model, y)
    means = []
    r = torch.zeros_like(found.predicted[..., 0, :])
    turned = model.transition.transpose(-1, -2)
    for time in reversed(range(y.shape[-1])):
        z, there = model.design_at(time), found.observed[..., time]
        weight = there / found.innovation_var[..., time]
        p = found.predicted_cov[..., time, :, :]
        ahead = (turned @ r[..., None])[..., 0]
        gain = (p @ z[..., None])[..., 0] * weight[..., None]
        signal = weight * found.innovation[..., time] - (gain * ahead).sum(-1)
        r = ahead + z * signal[..., None]
        means.append(found.predicted[..., time, :] + (p @ r[..., None])[..., 0])
    return torch.stack(means[::-1], -2)


def _root(cov: Tensor) -> Tensor:
    """Return a square root of a covariance that may be singular."""
    diagonal = torch.diagonal(cov, dim1=-2, dim2=-1)
    if torch.equal(torch.diag_embed(diagonal), cov):
        return torch.diag_embed(diagonal.clamp(min=0).sqrt())
    values, vectors = torch.linalg.eigh(cov)
    root: Tensor = vectors * values.clamp(min=0).sqrt()[..., None, :]
    return root
