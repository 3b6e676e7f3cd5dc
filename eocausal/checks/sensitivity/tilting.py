"""The mean outcome of one arm if the odds of treatment are off by at most a factor Λ.

Marginal sensitivity model (Tan 2006, JASA 101:1619): given confounders *and* the outcome under an
arm, the odds of the arm are within a factor Λ of those given confounders alone. All functions take
the units of the arm and return the *shift* of its mean: zero at Λ = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eocausal.estimators.quantile_regression import check_loss, quantile_regression

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Shift", "doubly_robust_shift", "quantile_balancing_shift", "sorting_shift"]


@dataclass(frozen=True, slots=True, eq=False)
class Shift:
    """How far the mean of an arm may be off in one direction.

    Attributes
    ----------
    value
        Non-negative; towards larger outcomes if these were asked for, else towards smaller ones.
    influence
        (n,) influence values of ``value``, zero for units that do not enter.
    slope
        (n,) derivative of ``value`` with respect to each unit's log odds of *not* being in the
        arm, from which follows what the estimation of these adds; zero where it adds nothing to
        first order.
    """

    value: float
    influence: NDArray[np.float64]
    slope: NDArray[np.float64]


def sorting_shift(
    y: NDArray[np.float64],
    odds: NDArray[np.float64],
    known: float,
    lam: float,
) -> float:
    """Return the largest weighted mean minus the one at Λ = 1 (Zhao, Small & Bhattacharya 2019).

    Maximise Σ v y / Σ v over v between ``known + odds/Λ`` and ``known + odds Λ``. The best weights
    are large for the outcomes above some cut and small below it (JRSS-B 81:735, Proposition 2), so
    that sorting gives it in O(n log n). Weights need not balance anything: the bound is valid, and
    wider than :func:`quantile_balancing_shift`.

    Parameters
    ----------
    y
        (m,) outcomes of the units of the arm; minus them for the smallest mean.
    odds
        (m,) odds of not being in the arm, (1 - e)/e.
    known
        1 where the arm's own units are part of the population (ATE), 0 where they are not (ATT).
    lam
        Λ ≥ 1.
    """
    order = np.argsort(-y, kind="stable")
    y, odds = y[order], odds[order]
    high, low = known + odds * lam, known + odds / lam
    above, below = np.r_[0.0, np.cumsum(high)], np.r_[np.cumsum(low[::-1])[::-1], 0.0]
    top, bottom = np.r_[0.0, np.cumsum(high * y)], np.r_[np.cumsum((low * y)[::-1])[::-1], 0.0]
    best = float(((top + bottom) / (above + below)).max())
    plain = known + odds
    return max(best - float(plain @ y / plain.sum()), 0.0)


def quantile_balancing_shift(
    y: NDArray[np.float64],
    basis: NDArray[np.float64],
    odds: NDArray[np.float64],
    own: NDArray[np.bool_],
    known: float,
    lam: float,
) -> Shift:
    """Return the sharp shift of a Hájek mean (Dorn & Guo 2023, JASA 118:2645).

    Maximise Σ v y / Σ v over the same weights as in :func:`sorting_shift`, of which it is also
    asked that they balance the columns of ``basis`` as the plain weights do. The dual is one
    weighted quantile regression at τ = Λ/(1 + Λ), and the shift (Λ - 1/Λ) Σ odds ρ_τ(y - γ'basis)
    over the sum of the plain weights. It is never wider than :func:`sorting_shift`, valid for any
    basis, and sharp if the basis holds the quantile of the outcome given confounders.

    Parameters
    ----------
    y
        (n,) outcomes, of which those of the arm are used; minus them for the smallest mean.
    basis
        (n, q) columns with a column of ones.
    odds
        (n,) odds of not being in the arm.
    own
        (n,) True for units of the arm.
    known
        As in :func:`sorting_shift`.
    lam
        Λ ≥ 1.
    """
    loss = _loss(y, basis, odds, own, lam)
    weight = np.where(own, odds, 0.0)
    plain = np.where(own, known + odds, 0.0)
    total = float(plain.sum())
    value = float(weight @ loss) / total
    influence = (weight * loss - plain * value) / total
    return Shift(value, influence, weight * (loss - value) / total)


def doubly_robust_shift(
    y: NDArray[np.float64],
    basis: NDArray[np.float64],
    odds: NDArray[np.float64],
    own: NDArray[np.bool_],
    others: NDArray[np.bool_],
    known: float,
    lam: float,
) -> Shift:
    """Return the shift of an AIPW mean: doubly valid and doubly sharp (Dorn, Guo & Kallus 2024).

    With Q = γ'basis the quantile at τ = Λ/(1 + Λ), D = (Λ - 1/Λ) ρ_τ(Y - Q) is how far a unit like
    those of the arm may be off (JASA, arXiv 2112.11449; METHODS D14, minus its value at Λ = 1). A
    model r of D given confounders and the weighted residuals D - r give its mean over the units
    that are not in the arm, (Σ_others r + Σ_own odds (D - r)) / size. Here r is least squares on
    ``basis``, weighted by the odds, which leaves no residual sum, and which holds r exactly where
    outcomes differ between units by location and scale. Its estimation is in the influence values.

    Parameters
    ----------
    y, basis, odds, own, known, lam
        As in :func:`quantile_balancing_shift`.
    others
        (n,) True for units of the population that are not in the arm.
    """
    loss = _loss(y, basis, odds, own, lam)
    weight = np.where(own, odds, 0.0)
    gram = np.linalg.pinv((basis * weight[:, None]).T @ basis, hermitian=True)
    model = basis @ (gram @ (basis.T @ (weight * loss)))
    population = np.where(others, 1.0, np.where(own, known, 0.0))
    size = float(population.sum())
    value = float(model[others].sum()) / size
    balance = basis @ (gram @ basis[others].sum(axis=0))
    influence = np.where(others, model, weight * balance * (loss - model)) - population * value
    return Shift(value, influence / size, np.zeros(len(y)))


def _loss(
    y: NDArray[np.float64],
    basis: NDArray[np.float64],
    odds: NDArray[np.float64],
    own: NDArray[np.bool_],
    lam: float,
) -> NDArray[np.float64]:
    """Return (n,) (Λ - 1/Λ) ρ_τ(y - γ'basis) with γ fitted on the arm's units."""
    if lam == 1:
        return np.zeros(len(y))
    tau = lam / (1 + lam)
    slope = quantile_regression(basis[own], y[own], tau, weights=odds[own])
    return np.where(own, (lam - 1 / lam) * check_loss(y - basis @ slope, tau), 0.0)
