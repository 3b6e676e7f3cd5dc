"""Minima of smooth convex functions of a few parameters by Newton's method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Minimum", "minimise"]

REACHED = 1e-8
"""Last change of a linear predictor; the error left is about its square."""


@dataclass(frozen=True, slots=True, eq=False)
class Minimum:
    """Where the search ended.

    Attributes
    ----------
    at
        (m,) parameters.
    step
        (m,) last step; without a minimum, the direction in which parameters grow for ever.
    converged
        Whether it is a minimum.
    """

    at: NDArray[np.float64]
    step: NDArray[np.float64]
    converged: bool


def minimise(
    value: Callable[[NDArray[np.float64]], float],
    derivatives: Callable[[NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]],
    start: NDArray[np.float64],
    reach: Callable[[NDArray[np.float64]], float],
    *,
    steps: int = 100,
) -> Minimum:
    """Go down by Newton steps, halved until the function falls enough.

    Where the infimum lies at infinity (separated arms, means that cannot be balanced), steps do
    not become small, and the result is not converged.

    Parameters
    ----------
    value
        The function.
    derivatives
        Its gradient (m,) and Hessian (m, m).
    start
        (m,) where to begin.
    reach
        Largest change of a linear predictor that a step makes; judges convergence.
    steps
        Steps at most.
    """
    at: NDArray[np.float64] = start
    now = value(start)
    step: NDArray[np.float64] = np.zeros_like(start)
    for _ in range(steps):
        gradient, hessian = derivatives(at)
        try:
            new = np.asarray(np.linalg.solve(hessian, gradient), dtype=float)
        except np.linalg.LinAlgError:
            return Minimum(at, step, False)
        fall = float(gradient @ new)
        moved = reach(new)
        if moved < REACHED:
            return Minimum(at - new, new, True)
        if not (np.isfinite(moved) and fall >= 0):
            return Minimum(at, step, False)
        step = new
        size, slack = 1.0, 1e-13 * (1 + abs(now))
        with np.errstate(over="ignore", invalid="ignore"):
            while not (after := value(at - size * step)) <= now - 1e-4 * size * fall + slack:
                size /= 2
                if size < 1e-10:
                    return Minimum(at, step, False)
        at, now = at - size * step, after
    return Minimum(at, step, False)
