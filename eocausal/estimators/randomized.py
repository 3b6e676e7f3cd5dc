"""Average effects of a randomized trial: difference in means and Lin's regression."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.contracts import check_columns, some
from eocausal.effects import EffectEstimate, Influence, VarianceRule
from eocausal.errors import EstimationError, OneClusterError, OutcomeError
from eocausal.estimators.inference import HC2, Clustered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from eocausal.designs import Assignment, Trial

__all__ = ["default_vcov", "difference_in_means", "lin_adjusted", "numeric_columns", "outcome_of"]


def default_vcov(trial: Trial) -> VarianceRule:
    """Return the variance that the design implies: clustered where clusters were assigned."""
    return Clustered(trial.cluster) if trial.cluster is not None else HC2()


def numeric_columns(
    units: pd.DataFrame, columns: Sequence[str], *, what: str
) -> NDArray[np.float64]:
    """Return (n, K) values of numeric columns.

    Raises
    ------
    EstimationError
        If a column is not numeric, or has missing or infinite values, naming the units.
    """
    check_columns(units, columns, what="units table")
    out = np.empty((len(units), len(columns)))
    for i, name in enumerate(columns):
        values = pd.to_numeric(units[name], errors="coerce").to_numpy(float, na_value=np.nan)
        bad = ~np.isfinite(values)
        if bad.any():
            raise EstimationError(
                f"The {what} {name!r} is missing, infinite or not a number for "
                f"{int(bad.sum())} units: {some(units.index[bad])}.",
                cause="A regression would drop these units silently.",
                next_step="Impute with an indicator of missingness, or drop the units yourself.",
            )
        out[:, i] = values
    return out


def outcome_of(units: pd.DataFrame, outcome: str) -> NDArray[np.float64]:
    """Return the (n,) outcome.

    Raises
    ------
    OutcomeError
        If values are missing, infinite or not numeric, or if the outcome does not vary.
    """
    try:
        values = numeric_columns(units, [outcome], what="outcome")[:, 0]
    except EstimationError as error:
        raise OutcomeError(
            error.fact,
            cause="An effect on units without an outcome is unknown; dropping them in silence "
            "would hide attrition.",
            next_step="Drop them yourself and report how many by arm, or bound the effect.",
        ) from error
    if np.ptp(values) == 0:
        raise OutcomeError(
            f"The outcome {outcome!r} is {values[0]:g} for all {len(values)} units.",
            cause="There is nothing to explain.",
            next_step="Check the column.",
        )
    return values


def _weighted_least_squares(
    x: NDArray[np.float64], y: NDArray[np.float64], w: NDArray[np.float64], coefficient: int
) -> tuple[float, NDArray[np.float64], NDArray[np.float64], int]:
    """Fit WLS; return a coefficient, its influence values, the leverages and the rank.

    ψ_i = [(X'WX)⁻¹]ₖ x_i w_i e_i, h_i = w_i x_i'(X'WX)⁻¹x_i.
    """
    root = np.sqrt(w)[:, None]
    left, size, right = np.linalg.svd(root * x, full_matrices=False)
    keep = size > size[0] * max(x.shape) * np.finfo(float).eps * 10
    left, size, right = left[:, keep], size[keep], right[keep]
    beta = right.T @ ((left.T @ (root[:, 0] * y)) / size)
    residual = y - x @ beta
    row = (right[:, coefficient] / size) @ left.T
    return (
        float(beta[coefficient]),
        row * root[:, 0] * residual,
        np.minimum((left**2).sum(axis=1), 1 - 1e-12),
        int(keep.sum()),
    )


def _refuse_lone_clusters(a: Assignment) -> None:
    """Refuse an arm with a single unit of assignment: its spread cannot be estimated."""
    for name, arm in (("treated", 1.0), ("control", 0.0)):
        n = np.unique(a.cluster[a.treated == arm]).size
        if n < 2:
            raise OneClusterError(
                f"The {name} arm has {n} unit of assignment.",
                cause="The spread within an arm cannot be estimated from one, and the standard "
                "error would be too small.",
                next_step="Use a finer cluster if arms were drawn by one, or more units.",
            )


def _arm_weights(treated: NDArray[np.float64], p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights 1/P(own arm), or ones where every unit had the same probability."""
    if np.ptp(p) < 1e-12:
        return np.ones_like(p)
    return treated / p + (1 - treated) / (1 - p)


def difference_in_means(
    units: pd.DataFrame, trial: Trial, outcome: str, *, vcov: VarianceRule | None = None
) -> EffectEstimate:
    """Estimate the average effect by the difference of the two arms' means.

    Where the probability of treatment differs between units (blocks, unequal shares), arms are
    weighted by its inverse (Hájek); with HC2 and equal probabilities the variance is Neyman's.

    Parameters
    ----------
    units
        One row per unit.
    trial
        Design; names the columns of arm, cluster, block and probability.
    outcome
        Column with the outcome.
    vcov
        Default: clustered if the design has clusters, else HC2.

    Raises
    ------
    OneArmError, OneClusterError, OutcomeError, MissingColumnError
    """
    a = trial.assignment(units)
    _refuse_lone_clusters(a)
    y = outcome_of(units, outcome)
    w = _arm_weights(a.treated, a.propensity)
    x = np.stack([np.ones_like(y), a.treated], axis=1)
    value, psi, leverage, rank = _weighted_least_squares(x, y, w, 1)
    weighted = bool(np.ptp(w))
    return EffectEstimate.of(
        value,
        Influence(units.index, psi, psi / np.sqrt(1 - leverage), len(y) - rank),
        estimand="ATE",
        method="Hájek difference in means" if weighted else "difference in means",
        units=units,
        vcov=vcov or default_vcov(trial),
        extra={"outcome": outcome, "n_treated": int(a.treated.sum()), "n_clusters": a.n_clusters},
    )


def lin_adjusted(
    units: pd.DataFrame,
    trial: Trial,
    outcome: str,
    covariates: Sequence[str],
    *,
    vcov: VarianceRule | None = None,
) -> EffectEstimate:
    """Estimate the average effect by regression with fully interacted, centred covariates.

    Lin (2013, Annals of Applied Statistics 7): asymptotically never less precise than the
    difference in means. Collinear columns are resolved by the minimum-norm solution, which
    leaves the effect as it is.

    Parameters
    ----------
    covariates
        Numeric columns fixed before treatment; no missing values.
    vcov
        Default: clustered if the design has clusters, else HC2.

    Raises
    ------
    OneArmError, OneClusterError, OutcomeError, EstimationError, MissingColumnError
    """
    a = trial.assignment(units)
    _refuse_lone_clusters(a)
    y = outcome_of(units, outcome)
    w = _arm_weights(a.treated, a.propensity)
    z = numeric_columns(units, covariates, what="covariate")
    z = z - z.mean(axis=0)
    scale = z.std(axis=0)
    z = z[:, scale > 0] / scale[scale > 0]
    x = np.column_stack([np.ones_like(y), a.treated, z, a.treated[:, None] * z])
    smallest = int(min(a.treated.sum(), (1 - a.treated).sum()))
    if z.shape[1] + 1 >= smallest:
        raise EstimationError(
            f"{z.shape[1]} covariates for {smallest} units in the smaller arm.",
            cause="Each arm's regression would fit its units exactly.",
            next_step="Use fewer covariates.",
        )
    value, psi, leverage, rank = _weighted_least_squares(x, y, w, 1)
    return EffectEstimate.of(
        value,
        Influence(units.index, psi, psi / np.sqrt(1 - leverage), len(y) - rank),
        estimand="ATE",
        method="Lin regression",
        units=units,
        vcov=vcov or default_vcov(trial),
        extra={"outcome": outcome, "covariates": list(covariates),
               "n_treated": int(a.treated.sum()), "n_clusters": a.n_clusters},
    )  # fmt: skip
