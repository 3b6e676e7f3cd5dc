"""Weighted linear quantile regression by an interior-point method.

Koenker & Bassett (1978, Econometrica 46:33); the primal-dual method with predictor and corrector
is that of Portnoy & Koenker (1997, Statistical Science 12:279). A step costs O(n p²), and some
twenty steps are needed whatever n is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eocausal.errors import EstimationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["check_loss", "quantile_regression"]

MOST_STEPS = 200
GAP = 1e-12
SHORT_OF_BORDER = 0.9995


def check_loss(residual: NDArray[np.float64], tau: float) -> NDArray[np.float64]:
    """Return τ u for u > 0 and (τ - 1) u otherwise."""
    return np.maximum(tau * residual, (tau - 1) * residual)


def quantile_regression(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    tau: float,
    *,
    weights: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Minimise Σ w ρ_τ(y - x'γ).

    Parameters
    ----------
    x
        (n, p) columns, with a column of ones if there is to be an intercept. Columns that others
        can express are no harm.
    y
        (n,) outcomes.
    tau
        Quantile, between 0 and 1.
    weights
        (n,) non-negative weights; default equal.

    Returns
    -------
    (p,) coefficients; where several are as good, some one of them.

    Raises
    ------
    EstimationError
        If ``tau`` is no quantile or no weight is positive.
    """
    if not 0 < tau < 1:
        raise EstimationError(
            f"tau={tau} is no quantile.",
            cause="It is the share of outcomes below the line.",
            next_step="Give a number between 0 and 1.",
        )
    w = np.ones(len(y)) if weights is None else weights
    use = w > 0
    if not use.any():
        raise EstimationError(
            "No unit has a positive weight.",
            cause="Nothing is left to fit a quantile to.",
            next_step="Check the weights.",
        )
    w = w[use] / w[use].max()
    scaled = x[use] * w[:, None]
    u, s, vt = np.linalg.svd(scaled, full_matrices=False)
    keep = s > s[0] * 1e-11 if s[0] > 0 else np.zeros(len(s), dtype=bool)
    if not keep.any():
        return np.zeros(x.shape[1])
    columns = u[:, keep]
    target = y[use] * w
    middle = columns.T @ target
    target = target - columns @ middle
    unit = float(np.abs(target).max())
    if unit > 0:
        found = _interior_point(columns * np.sqrt(len(u)), target / unit, tau)
        middle = middle + found * unit * np.sqrt(len(u))
    return np.asarray(vt[keep].T @ (middle / s[keep]))


def _interior_point(
    x: NDArray[np.float64], y: NDArray[np.float64], tau: float
) -> NDArray[np.float64]:
    """Solve max y'a, x'a = (1 - τ) x'1, 0 ≤ a ≤ 1; its multipliers are the coefficients."""
    n = len(y)
    a, room = np.full(n, 1 - tau), np.full(n, tau)
    multiplier = -np.linalg.lstsq(x, y, rcond=None)[0]
    slack = -y - x @ multiplier
    inside = max(0.1 * float(np.abs(slack).mean()), 1e-12)
    z, w = np.maximum(slack, 0.0) + inside, np.maximum(-slack, 0.0) + inside
    for _ in range(MOST_STEPS):
        gap = float(z @ a + w @ room)
        if gap < GAP * n:
            break
        q = 1 / (z / a + w / room)
        apart = z - w
        gram = (x * q[:, None]).T @ x
        side = x.T @ (q * apart)
        step = np.linalg.solve(gram, side)
        da = q * (x @ step - apart)
        dz, dw = -z * (1 + da / a), -w * (1 - da / room)
        primal, dual = _length(a, da, room), min(_reach(z, dz), _reach(w, dw))
        if min(primal, dual) < 1:
            left = (z + dual * dz) @ (a + primal * da) + (w + dual * dw) @ (room - primal * da)
            mu = gap * (float(left) / gap) ** 3 / (2 * n)
            cross, back = da * dz / a, -da * dw / room
            centre = mu * (1 / a - 1 / room)
            step = np.linalg.solve(gram, side + x.T @ (q * (cross - back - centre)))
            da = q * (x @ step + centre - apart - cross + back)
            dz = mu / a - z - z * da / a - cross
            dw = mu / room - w + w * da / room - back
            primal, dual = _length(a, da, room), min(_reach(z, dz), _reach(w, dw))
        a, room = a + primal * da, room - primal * da
        multiplier, z, w = multiplier + dual * step, z + dual * dz, w + dual * dw
    return np.asarray(-multiplier)


def _length(a: NDArray[np.float64], da: NDArray[np.float64], room: NDArray[np.float64]) -> float:
    return min(_reach(a, da), _reach(room, -da))


def _reach(value: NDArray[np.float64], step: NDArray[np.float64]) -> float:
    """Return the longest step, at most 1, that keeps values positive."""
    down = step < 0
    if not down.any():
        return 1.0
    return min(1.0, SHORT_OF_BORDER * float((value[down] / -step[down]).min()))
