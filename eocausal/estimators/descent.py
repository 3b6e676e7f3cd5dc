"""Many smooth convex functions of the same size, brought to their minima together.

Where one evaluation of all functions is a matrix product, it costs little more than an evaluation
of one. L-BFGS (Liu & Nocedal 1989, Mathematical Programming 45:503), every function with steps of
its own; functions that are done are evaluated no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Evaluate", "minimise_together"]

MEMORY = 8
SUFFICIENT = 1e-4
SHORTEST = 1e-9


class Evaluate(Protocol):
    """F functions of D numbers."""

    def __call__(
        self, at: NDArray[np.float64], which: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (F',) values and (D, F') gradients of some functions, each at its column."""
        ...


def minimise_together(
    evaluate: Evaluate,
    start: NDArray[np.float64],
    metric: NDArray[np.float64],
    *,
    tolerance: float,
    rounding: float = 1e-15,
    passes: int = 1000,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Minimise convex functions, each over a column.

    Parameters
    ----------
    evaluate
        Values and gradients.
    start
        (D, F) where to begin.
    metric
        (D, F) inverses of the diagonals of the Hessians, roughly.
    tolerance
        A function is done when g'Mg, about twice what it lies above its minimum, is at most this.
    rounding
        Relative error of the values.
    passes
        Most evaluations.

    Returns
    -------
    (D, F) minima, and (F,) whether they were reached.
    """
    out, reached = start.copy(), np.zeros(start.shape[1], dtype=bool)
    which = np.arange(start.shape[1])
    at = start
    value, gradient = evaluate(at, which)
    memory: list[_Pair] = []
    direction, step = -metric * gradient, np.ones(len(which))
    for _ in range(passes):
        left = _dot(gradient, metric * gradient) > tolerance
        stuck = step < SHORTEST
        if not (left & ~stuck).all():
            out[:, which], reached[which] = at, ~left
            keep = left & ~stuck
            if not keep.any():
                return out, reached
            which, value, step = which[keep], value[keep], step[keep]
            at, gradient, metric = at[:, keep], gradient[:, keep], metric[:, keep]
            direction = direction[:, keep]
            memory = [pair[:, keep] for pair in memory]
        trial = at + step * direction
        new_value, new_gradient = evaluate(trial, which)
        bound = value + SUFFICIENT * step * _dot(gradient, direction)
        good = new_value <= bound + rounding * np.abs(value)
        memory = [*memory[1 - MEMORY :], _Pair.of(trial - at, new_gradient - gradient, good)]
        at = np.where(good, trial, at)
        value = np.where(good, new_value, value)
        gradient = np.where(good, new_gradient, gradient)
        direction = np.where(good, -_times_inverse(gradient, memory, metric), direction)
        step = np.where(good, 1.0, step / 2)
    out[:, which] = at
    return out, reached


def _dot(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.einsum("df,df->f", a, b))


class _Pair:
    """A step and the change of gradient it made; weight 0 where no step was made."""

    def __init__(
        self, s: NDArray[np.float64], y: NDArray[np.float64], weight: NDArray[np.float64]
    ) -> None:
        self.s, self.y, self.weight = s, y, weight

    @classmethod
    def of(cls, s: NDArray[np.float64], y: NDArray[np.float64], good: NDArray[np.bool_]) -> _Pair:
        curvature = _dot(s, y)
        good = good & (curvature > 0)
        return cls(s, y, np.where(good, 1 / np.where(good, curvature, 1.0), 0.0))

    def __getitem__(self, key: tuple[slice, NDArray[np.bool_]]) -> _Pair:
        return _Pair(self.s[key], self.y[key], self.weight[key[1]])


def _times_inverse(
    gradient: NDArray[np.float64], memory: list[_Pair], metric: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Multiply gradients by the inverse Hessians that the last steps suggest."""
    q, shares = gradient.copy(), []
    scale = np.ones(gradient.shape[1])
    for pair in reversed(memory):
        share = pair.weight * _dot(pair.s, q)
        q -= share * pair.y
        shares.append(share)
    for pair in memory:
        length = pair.weight * _dot(pair.y, metric * pair.y)
        scale = np.where(length > 0, 1 / np.where(length > 0, length, 1.0), scale)
    q *= scale * metric
    for pair, share in zip(memory, reversed(shares), strict=True):
        q += (share - pair.weight * _dot(pair.y, q)) * pair.s
    return q
