"""How far a regression coefficient is off if a variable is omitted, by partial R².

Cinelli & Hazlett (2020, JRSS-B 82:39); METHODS D14.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from eocausal.errors import EstimationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Coefficient",
    "adjusted_std_error",
    "bias_bound",
    "bound_by_benchmark",
    "least_squares",
    "partial_r2_of",
    "robustness_value",
    "robustness_value_interval",
]


@dataclass(frozen=True, slots=True, eq=False)
class Coefficient:
    """The coefficient of a treatment in a linear regression.

    Attributes
    ----------
    estimate, std_error, df
        Coefficient, its classical standard error and the residual degrees of freedom. The formulas
        for the estimate need the classical error, which is only a name for a ratio of residual
        spreads.
    influence
        (n,) influence values of the estimate, for other standard errors.
    """

    estimate: float
    std_error: float
    df: int
    influence: NDArray[np.float64]

    @property
    def partial_r2(self) -> float:
        """Share of the outcome's residual variance that the treatment explains."""
        t2 = (self.estimate / self.std_error) ** 2
        return t2 / (t2 + self.df)


def least_squares(
    y: NDArray[np.float64], treatment: NDArray[np.float64], x: NDArray[np.float64]
) -> Coefficient:
    """Regress an outcome on treatment, confounders and an intercept.

    Parameters
    ----------
    y, treatment
        (n,).
    x
        (n, p) confounders; columns that others can express are no harm.

    Raises
    ------
    EstimationError
        If confounders tell treatment exactly, or leave no degree of freedom.
    """
    design = np.column_stack([np.ones(len(y)), x])
    rank, (y_left, d_left) = _residuals(design, y, treatment)
    df = len(y) - rank - 1
    square = float(d_left @ d_left)
    total = float(((treatment - treatment.mean()) ** 2).sum())
    if df < 1 or square <= 1e-10 * total:
        raise EstimationError(
            f"{rank} columns leave nothing of a treatment of {len(y)} units to regress on.",
            cause="A linear regression without penalty tells treatment from them exactly.",
            next_step="Use fewer confounders, e.g. principal components of the image.",
        )
    estimate = float(d_left @ y_left) / square
    left = y_left - estimate * d_left
    std_error = math.sqrt(float(left @ left) / df / square)
    return Coefficient(estimate, std_error, df, d_left * left / square)


def partial_r2_of(z: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64]) -> float:
    """Return the share of what ``x`` leaves of ``y`` that the columns ``z`` explain, all together.

    Parameters
    ----------
    z, x
        (n, q) and (n, p); an intercept is added.
    y
        (n,).
    """
    base = np.column_stack([np.ones(len(y)), x])
    without = _residuals(base, y)[1][0]
    with_z = _residuals(np.column_stack([base, z]), y)[1][0]
    square = float(without @ without)
    return max(0.0, 1 - float(with_z @ with_z) / square) if square > 0 else 0.0


def _residuals(
    design: NDArray[np.float64], *columns: NDArray[np.float64]
) -> tuple[int, list[NDArray[np.float64]]]:
    """Return the rank of a design and what it leaves of columns."""
    scale = np.sqrt((design**2).sum(axis=0))
    u, s, _ = np.linalg.svd(design[:, scale > 0] / scale[scale > 0], full_matrices=False)
    u = u[:, s > 1e-10 * s[0]]
    return u.shape[1], [c - u @ (u.T @ c) for c in columns]


def bias_bound(std_error: float, df: float, r2_outcome: float, r2_treatment: float) -> float:
    """Return |bias| = se √df √(R²_Y R²_D / (1 - R²_D)) (eq. 14): exact for one omitted variable.

    Parameters
    ----------
    std_error, df
        Classical, of the regression without the variable.
    r2_outcome
        Partial R² of the omitted variable with the outcome, given treatment and confounders.
    r2_treatment
        Partial R² with the treatment, given confounders; less than 1.
    """
    return std_error * math.sqrt(df * r2_outcome * r2_treatment / (1 - r2_treatment))


def adjusted_std_error(
    std_error: float, df: float, r2_outcome: float, r2_treatment: float
) -> float:
    """Return the classical standard error had the variable been in the regression (eq. 15)."""
    return std_error * math.sqrt((1 - r2_outcome) / (1 - r2_treatment) * df / (df - 1))


def _equal_strength(f: float) -> float:
    """Solve r²/(1 - r) = f² for r: a variable as strong with treatment as with the outcome."""
    return 0.5 * (math.sqrt(f**4 + 4 * f**2) - f**2)


def robustness_value(t: float, df: float, q: float = 1.0) -> float:
    """Return RV_q: R² with both that lowers the estimate by the share ``q`` (eq. 18).

    Parameters
    ----------
    t
        Classical t statistic.
    df
        Residual degrees of freedom.
    q
        Share of the estimate that the bias takes away; 1 leaves nothing.
    """
    return _equal_strength(q * abs(t) / math.sqrt(df))


def robustness_value_interval(t: float, df: float, q: float = 1.0, alpha: float = 0.05) -> float:
    """Return RV_{q,α}: R² with both at which the 1 - α interval reaches (1 - q) of the estimate.

    Where that needs more of the outcome than there is, the R² with treatment of a variable that
    explains all the rest of the outcome (Cinelli & Hazlett 2020, section 4.2, and their 2025 note
    on sharp robustness values).

    Parameters
    ----------
    t
        t statistic with the standard error that the interval is to have, robust or clustered.
    df, q
        As in :func:`robustness_value`.
    alpha
        One minus the level of the interval.
    """
    f = q * abs(t) / math.sqrt(df)
    chance = float(stats.t.ppf(1 - alpha / 2, df - 1)) / math.sqrt(df - 1)
    if f <= chance:
        return 0.0
    if chance > 0 and f >= 1 / chance:
        return (f**2 - chance**2) / (1 + f**2)
    return _equal_strength(f - chance)


def bound_by_benchmark(r2_outcome: float, r2_treatment: float, k: float) -> tuple[float, float]:
    """Return the R² of a variable ``k`` times as strong as measured columns (section 4.4).

    Parameters
    ----------
    r2_outcome
        Partial R² of the measured columns with the outcome, given treatment and the rest.
    r2_treatment
        Partial R² of them with the treatment, given the rest.
    k
        How many times as much of either the variable explains.

    Returns
    -------
    R² with the outcome (at most 1) and with the treatment; NaN where no variable can be so strong.
    """
    treatment = k * r2_treatment / (1 - r2_treatment) if r2_treatment < 1 else math.inf
    if treatment >= 1:
        return math.nan, math.nan
    shared = k * r2_treatment**2 / ((1 - k * r2_treatment) * (1 - r2_treatment))
    if shared >= 1 or r2_outcome >= 1:
        return 1.0, treatment
    eta = (math.sqrt(k) + math.sqrt(shared)) / math.sqrt(1 - shared)
    return min(1.0, eta**2 * r2_outcome / (1 - r2_outcome)), treatment
