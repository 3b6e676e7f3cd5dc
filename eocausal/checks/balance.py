"""Whether the arms of a trial look alike before treatment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from eocausal.checks.base import CheckResult, Verdict
from eocausal.checks.draw import BalanceTest, Draw
from eocausal.contracts import check_columns
from eocausal.errors import EstimationError
from eocausal.estimators.inference import cluster_sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.checks.leakage import TrialData
    from eocausal.designs import Assignment, Trial

__all__ = ["Balance", "balance_table", "balance_test"]

MAX_LEVELS = 20


def balance_table(units: pd.DataFrame, trial: Trial, covariates: Sequence[str]) -> pd.DataFrame:
    """Compare the arms covariate by covariate.

    Units are weighted by the inverse of the probability of their arm, so that strata with
    different known chances of treatment do not look like imbalance; with one probability for all
    the means are plain means. A column of texts becomes one indicator per value (the 20 most
    frequent ones).

    Returns
    -------
    DataFrame
        Indexed by ``covariate``: ``mean_treated``, ``mean_control``, ``difference``, ``smd`` =
        difference / sqrt((s1² + s0²) / 2) with s1, s0 the standard deviations within arms (Austin
        2009, Statistics in Medicine 28:3083), ``std_error`` (clustered by the trial's cluster,
        G/(G-1) Σ_g (Σ ψ)²), ``p_value`` (t with G - 1 degrees of freedom), ``n``, and the shares
        ``missing_treated``, ``missing_control``. NaN where an arm has no value or nothing varies.

    Raises
    ------
    MissingColumnError, AssignmentError, OneArmError, OneClusterError
    """
    assignment = trial.assignment(units)
    columns = expand(units, covariates)
    rows = {name: _compare(values, assignment) for name, values in columns.items()}
    names = (
        "mean_treated", "mean_control", "difference", "smd", "std_error", "p_value", "n",
        "missing_treated", "missing_control",
    )  # fmt: skip
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(names))
    table.index.name = "covariate"
    return table.astype({"n": int})


def expand(units: pd.DataFrame, covariates: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Turn covariates of any type into (n,) columns of numbers, NaN where missing."""
    names = list(dict.fromkeys(covariates))
    check_columns(units, names, what="units table")
    columns: dict[str, NDArray[np.float64]] = {}
    for name in names:
        values = units[name]
        if pd.api.types.is_datetime64_any_dtype(values):
            columns[name] = ((values - values.min()) / pd.Timedelta(days=1)).to_numpy(float)
        elif pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
            number = values.to_numpy(dtype=float, na_value=np.nan)
            columns[name] = np.where(np.isfinite(number), number, np.nan)
        else:
            for level in values.value_counts().index[:MAX_LEVELS]:
                here = (values == level).to_numpy(dtype=float, na_value=np.nan)
                columns[f"{name}={level}"] = np.where(values.isna(), np.nan, here)
    return columns


def _compare(values: NDArray[np.float64], a: Assignment) -> tuple[float, ...]:
    seen = np.isfinite(values)
    treated = a.treated == 1
    arms = (treated, ~treated)
    missing = [float((~seen[arm]).mean()) for arm in arms]
    n = int(seen.sum())
    if not all((seen & arm).any() for arm in arms):
        nan = math.nan
        return (nan, nan, nan, nan, nan, nan, n, *missing)
    x = np.where(seen, values, 0.0)
    mean, spread = [], []
    influence = np.zeros(len(x))
    for arm, chance, sign in ((treated, a.propensity, 1.0), (~treated, 1 - a.propensity, -1.0)):
        weight = np.where(arm & seen, 1 / chance, 0.0)
        weight /= weight.sum()
        mean.append(float(weight @ x))
        spread.append(float(weight @ (x - mean[-1]) ** 2))
        influence += sign * weight * (x - mean[-1])
    difference = mean[0] - mean[1]
    pooled = math.sqrt(sum(spread) / 2)
    _, cluster = np.unique(a.cluster[seen], return_inverse=True)
    sums = cluster_sums(influence[seen], cluster)
    error = math.sqrt(float(sums @ sums) * sums.size / max(sums.size - 1, 1))
    tiny = 1e-12 * max(abs(mean[0]), abs(mean[1]))
    if error <= tiny:
        p = math.nan if abs(difference) <= tiny else 0.0
    else:
        p = float(2 * stats.t.sf(abs(difference / error), sums.size - 1))
    smd = difference / pooled if pooled > tiny else math.copysign(math.inf, difference)
    smd = math.nan if pooled <= tiny and abs(difference) <= tiny else smd
    return (mean[0], mean[1], difference, smd, error, p, n, *missing)


def balance_test(
    units: pd.DataFrame,
    trial: Trial,
    covariates: Sequence[str],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> BalanceTest:
    """Test all covariates at once by redrawing the arms over clusters, within blocks.

    A missing value is replaced by the column's mean and an indicator of missingness is tested
    beside it.

    Raises
    ------
    MissingColumnError, AssignmentError, OneArmError, OneClusterError, EstimationError
    """
    if draws < 1:
        raise EstimationError(
            f"{draws} redraws give no p-value.",
            cause="It is a share of redraws.",
            next_step="Use at least 199.",
        )
    draw = Draw.of(units, trial)
    columns = []
    for values in expand(units, covariates).values():
        seen = np.isfinite(values)
        if not seen.any():
            continue
        columns.append(np.where(seen, values, values[seen].mean()))
        if not seen.all():
            columns.append(seen.astype(float))
    stacked = np.stack(columns, axis=1) if columns else np.zeros((len(units), 0))
    return draw.balance_test(stacked, draws=draws, seed=seed)


@dataclass(frozen=True, slots=True)
class Balance:
    """Check that covariates are balanced as a random draw of arms would leave them.

    Parameters
    ----------
    draws
        Redraws of the arms for the omnibus p-value.
    seed
        Seed of the redraws.
    alpha
        Warn if the omnibus p-value is below this.
    """

    draws: int = 1000
    seed: int = 0
    alpha: float = 0.01

    def run(self, subject: TrialData) -> CheckResult:
        """Compare the arms; warn if chance alone seldom leaves them this different."""
        table = balance_table(subject.units, subject.trial, subject.covariates)
        test = balance_test(
            subject.units, subject.trial, subject.covariates, draws=self.draws, seed=self.seed
        )
        values = {
            "omnibus_p": test.p_value, "omnibus_statistic": test.statistic,
            "omnibus_df": test.rank, "draws": test.draws,
        }  # fmt: skip
        name = "Balance of covariates"
        if test.rank == 0:
            return CheckResult(
                name, Verdict.PASS, "There is no covariate that varies.", "", table, values
            )
        smd = table["smd"].fillna(0.0).to_numpy()
        at = int(np.abs(smd).argmax())
        values["largest_smd"] = float(abs(smd[at]))
        claim = (
            f"Omnibus p = {test.p_value:.3g} over {test.draws:,} redraws of the arms; the largest "
            f"standardized difference is {smd[at]:.2f} ({table.index[at]})."
        )
        if test.p_value >= self.alpha:
            return CheckResult(name, Verdict.PASS, claim, "", table, values)
        detail = (
            "Random arms seldom leave differences this large. Look whether a covariate was "
            "measured after treatment, whether the trial's cluster and block are those of the "
            "draw, and whether units were lost from one arm; then adjust for the covariates."
        )
        return CheckResult(name, Verdict.WARN, claim, detail, table, values)
