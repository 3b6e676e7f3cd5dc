"""Errors of synthetic controls after an event over those before, for the outcome and for places."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.contracts import some
from eocausal.errors import EstimationError
from eocausal.estimators.synthetic_control_weights import simplex_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.checks.impact_question import Question

    Float64 = NDArray[np.float64]

__all__ = ["ratio_rows", "rmse_ratios"]


def rmse_ratios(
    values: Float64, before: NDArray[np.bool_], after: NDArray[np.bool_]
) -> tuple[Float64, Float64]:
    """Return (N,) ratios of errors after to before, and the errors before, of synthetic controls.

    Parameters
    ----------
    values
        (T, N) complete series of places; each is matched by all others but the first, which is
        the real outcome, by series centred and scaled before the event.
    before, after
        (T,) times fitted and counted.
    """
    count = values.shape[1]
    z = values - values[before].mean(0)
    scale = z[before].std(0, ddof=1)
    z = z / scale
    ratios, errors = np.empty(count), np.empty(count)
    for k in range(count):
        donors = [j for j in range(1, count) if j != k]
        weights = simplex_weights(z[before, k], z[before][:, donors])
        gap = z[:, k] - z[:, donors] @ weights
        errors[k] = math.sqrt(np.mean(gap[before] ** 2))
        ratios[k] = math.sqrt(np.mean(gap[after] ** 2)) / errors[k]
    return ratios, errors * scale


def ratio_rows(question: Question, values: Float64, usable: NDArray[np.bool_]) -> pd.DataFrame:
    """Return ratios of the real outcome and each candidate over times at which all have values."""
    places = np.flatnonzero(usable)
    both = np.column_stack([question.y, values[:, places]])
    complete = np.isfinite(both).all(1)
    before, after = question.before & complete, question.post & complete
    table = pd.DataFrame(index=range(values.shape[1] + 1), columns=["statistic", "rmse_before"])
    table = table.astype(float)
    if len(places) < 2 or before.sum() < 12 or not after.any():
        raise EstimationError(
            f"{len(places)} candidates have {before.sum()} times before and {after.sum()} after "
            "the event in common with the outcome.",
            cause="A synthetic control needs two candidates, and all values at a time.",
            next_step="Average pixels to regions, leave out those with gaps, or use 't'.",
        )
    flat = both[before].std(0) <= 1e-10 * np.abs(both[before]).max(0)
    if flat.any():
        names = [places[k - 1] for k in np.flatnonzero(flat)]
        raise EstimationError(
            f"Candidates in columns {some(names)} do not vary before the event.",
            cause="They have no scale.",
            next_step="Leave them out.",
        )
    ratios, errors = rmse_ratios(both, before, after)
    table.iloc[np.r_[0, places + 1], 0] = ratios
    table.iloc[np.r_[0, places + 1], 1] = errors
    return table
