"""Components of structural time series models, and how they add up to one.

Every function returns a :class:`Component`; :func:`combine` puts components side by side. All
variances, coefficients and starting values may be numbers or tensors with one entry per series.
Notation of Harvey (1989, chapter 2) and Scott & Varian (2014).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eocausal.errors import EstimationError
from eocausal.estimators.statespace import StateSpace

__all__ = [
    "Component",
    "autoregressive",
    "combine",
    "dynamic_regression",
    "local_level",
    "local_linear_trend",
    "regression",
    "seasonal_dummies",
    "seasonal_harmonics",
    "semi_local_trend",
]

Value = float | Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Component:
    """One part of a model; the shapes are those of :class:`StateSpace`."""

    transition: Tensor
    state_cov: Tensor
    design: Tensor
    mean: Tensor
    cov: Tensor


def local_level(variance: Value, *, start: Value = 0.0, start_var: Value) -> Component:
    """Level that walks at random with innovations of the given variance."""
    return _component([[1.0]], [variance], [1.0], [start], [start_var])


def local_linear_trend(
    level_var: Value,
    slope_var: Value,
    *,
    start: Value = 0.0,
    start_var: Value,
    slope: Value = 0.0,
    slope_start_var: Value,
) -> Component:
    """Level whose slope walks at random."""
    return _component(
        [[1.0, 1.0], [0.0, 1.0]],
        [level_var, slope_var],
        [1.0, 0.0],
        [start, slope],
        [start_var, slope_start_var],
    )


def semi_local_trend(
    level_var: Value,
    slope_var: Value,
    slope_ar: Value,
    *,
    start: Value = 0.0,
    start_var: Value,
    slope: Value = 0.0,
    slope_start_var: Value,
    long_run_slope: Value = 0.0,
    long_run_var: Value,
) -> Component:
    """Level whose slope returns, as an AR(1), to an unknown long-run slope.

    The states are the level, the slope and the long-run slope.
    """
    return _component(
        [[1.0, 1.0, 0.0], [0.0, slope_ar, 1.0 - slope_ar], [0.0, 0.0, 1.0]],
        [level_var, slope_var, 0.0],
        [1.0, 0.0, 0.0],
        [start, slope, long_run_slope],
        [start_var, slope_start_var, long_run_var],
    )


def autoregressive(coefficient: Value, variance: Value) -> Component:
    """Stationary AR(1) around zero; ``variance`` is that of its innovations."""
    return _component(
        [[coefficient]], [variance], [1.0], [0.0], [variance / (1.0 - coefficient * coefficient)]
    )


def seasonal_dummies(period: int, variance: Value, *, start_var: Value) -> Component:
    """Effects of the seasons, which sum to a shock of the given variance over any period."""
    _check_period(period)
    size = period - 1
    transition = [[-1.0] * size] + [[float(i == j) for j in range(size)] for i in range(size - 1)]
    nothing = [0.0] * (size - 1)
    return _component(
        transition, [variance, *nothing], [1.0, *nothing], [0.0] * size, [start_var] * size
    )


def seasonal_harmonics(
    period: float, variance: Value, *, harmonics: int | None = None, start_var: Value
) -> Component:
    """Sum of cycles of lengths period, period/2, ..., each turning with noise.

    Parameters
    ----------
    period
        Length in time steps; need not be whole.
    harmonics
        How many cycles; all up to the shortest that the steps can show, if not given.
    """
    _check_period(period)
    most = int(period // 2)
    count = most if harmonics is None else min(harmonics, most)
    blocks: list[list[list[float]]] = []
    for k in range(1, count + 1):
        c, s = math.cos(2 * math.pi * k / period), math.sin(2 * math.pi * k / period)
        blocks.append([[-1.0]] if 2 * k == period else [[c, s], [-s, c]])
    size = sum(len(block) for block in blocks)
    transition = _block_diagonal([torch.tensor(b, dtype=torch.float64) for b in blocks])
    design = [1.0 if i == 0 else 0.0 for block in blocks for i in range(len(block))]
    return _component(
        transition.tolist(), [variance] * size, design, [0.0] * size, [start_var] * size
    )


def regression(x: Tensor, *, mean: Tensor, cov: Tensor) -> Component:
    """Coefficients that do not change, with a normal prior: x (..., T, K), cov (..., K, K)."""
    size = x.shape[-1]
    eye = torch.eye(size, dtype=x.dtype, device=x.device)
    return Component(eye, torch.zeros_like(eye), x, mean, cov)


def dynamic_regression(x: Tensor, variances: Tensor, *, mean: Tensor, cov: Tensor) -> Component:
    """Coefficients that walk at random, with innovation variances (..., K)."""
    static = regression(x, mean=mean, cov=cov)
    return Component(static.transition, torch.diag_embed(variances), x, mean, cov)


def combine(components: Sequence[Component], obs_var: Value) -> StateSpace:
    """Put components side by side: their contributions and noise of variance ``obs_var`` add.

    Parameters
    ----------
    obs_var
        A number, or a tensor (..., T) or (..., 1).
    """
    if not components:
        raise EstimationError(
            "A structural model without components.",
            cause="There is nothing that could explain the series.",
            next_step="Give at least one, such as local_level(...).",
        )
    h = torch.as_tensor(obs_var, dtype=torch.float64)
    times = max(part.design.shape[-2] for part in components)
    designs = [
        part.design.expand(*part.design.shape[:-2], times, part.design.shape[-1])
        for part in components
    ]
    return StateSpace(
        _block_diagonal([part.transition for part in components]),
        _block_diagonal([part.state_cov for part in components]),
        _side_by_side(designs, 1),
        h[None] if h.ndim == 0 else h,
        _side_by_side([part.mean for part in components], 0),
        _block_diagonal([part.cov for part in components]),
    )


def _component(
    transition: Sequence[Sequence[Value]],
    noise: Sequence[Value],
    design: Sequence[float],
    mean: Sequence[Value],
    cov: Sequence[Value],
) -> Component:
    """Build tensors from nested entries, some of which may be one per series."""
    return Component(
        torch.stack([_row(row) for row in _matched(transition)], -2),
        torch.diag_embed(_row(noise)),
        torch.tensor([design], dtype=torch.float64),
        _row(mean),
        torch.diag_embed(_row(cov)),
    )


def _row(entries: Sequence[Value]) -> Tensor:
    tensors = [torch.as_tensor(entry, dtype=torch.float64) for entry in entries]
    return torch.stack(_broadcast(tensors), -1)


def _matched(rows: Sequence[Sequence[Value]]) -> list[list[Value]]:
    """Give every entry of a matrix the shape of the largest."""
    flat = [torch.as_tensor(entry, dtype=torch.float64) for row in rows for entry in row]
    wide = _broadcast(flat)
    width = len(rows[0])
    return [list(wide[i * width : (i + 1) * width]) for i in range(len(rows))]


def _block_diagonal(blocks: Sequence[Tensor]) -> Tensor:
    batch = _shape(b.shape[:-2] for b in blocks)
    size = sum(b.shape[-1] for b in blocks)
    out = torch.zeros((*batch, size, size), dtype=blocks[0].dtype, device=blocks[0].device)
    at = 0
    for block in blocks:
        end = at + block.shape[-1]
        out[..., at:end, at:end] = block
        at = end
    return out


def _side_by_side(parts: Sequence[Tensor], kept: int) -> Tensor:
    """Concatenate on the last dimension; ``kept`` dimensions before it are not broadcast."""
    batch = _shape(p.shape[: p.ndim - 1 - kept] for p in parts)
    return torch.cat([p.expand(*batch, *p.shape[p.ndim - 1 - kept :]) for p in parts], -1)


def _broadcast(tensors: Sequence[Tensor]) -> list[Tensor]:
    return list(torch.broadcast_tensors(*tensors))  # type: ignore[no-untyped-call]


def _shape(shapes: Iterable[torch.Size]) -> torch.Size:
    return torch.Size(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]


def _check_period(period: float) -> None:
    if period < 2:
        raise EstimationError(
            f"A season of {period} time steps.",
            cause="A season is a pattern over at least two steps.",
            next_step="Give the number of steps in a cycle, such as 12 for months in a year.",
        )
