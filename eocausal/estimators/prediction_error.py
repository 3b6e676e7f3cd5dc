"""How predictions err: by how much they shrink, and whether the error knows the treatment.

What corrects an effect on predictions from labels elsewhere assumes that, given the true outcome, a
prediction does not depend on treatment. A map from images taken after treatment can break this:
what was built with the aid may be seen, or overlooked (Rambachan, Singh & Viviano, arXiv
2411.10959; METHODS D12).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from eocausal.effects import EffectEstimate, Influence
from eocausal.errors import EstimationError, OneArmError
from eocausal.estimators.confounders import TABLE
from eocausal.estimators.design_columns import independent_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.labelled import Labelled, Pairs

__all__ = [
    "Bend",
    "Line",
    "bend_of",
    "higher",
    "least_squares",
    "line_through",
    "power_of_test",
    "prediction_slope",
    "refuse_few",
    "treatment_in_error",
]

FEWEST = 10
"""Fewer pairs than this teach nothing about how predictions err."""


def least_squares(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Fit y on x; return coefficients and their influence values.

    Parameters
    ----------
    x
        (c, p) columns of full rank, with the constant.
    y
        (c,).

    Returns
    -------
    (p,) coefficients, (c, p) influence values (x'x)⁻¹xᵢeᵢ, and (c,) leverages.

    Raises
    ------
    EstimationError
        If columns depend on each other, or there are too few rows.
    """
    left, size, right = np.linalg.svd(x, full_matrices=False)
    if len(x) <= x.shape[1] or size[-1] <= size[0] * 1e-10:
        raise EstimationError(
            f"A regression of {len(x)} units on {x.shape[1]} columns has no unique solution.",
            cause="There are too few labelled units, or columns repeat each other.",
            next_step="Label more units, or adjust for fewer columns.",
        )
    inverse = (right.T / size) @ left.T
    coefficients = inverse @ y
    residual = y - x @ coefficients
    return coefficients, (inverse * residual).T, (left**2).sum(axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """The regression of predictions on measurements, prediction = intercept + slope measured.

    Attributes
    ----------
    slope, intercept
        Coefficients; a slope below 1 is the shrinkage of the map.
    influence
        (c,) influence values of the slope.
    r2
        Squared correlation.
    """

    slope: float
    intercept: float
    influence: NDArray[np.float64]
    r2: float


def line_through(pairs: Pairs) -> Line:
    """Regress predictions on measurements.

    Raises
    ------
    EstimationError
        If there are too few pairs.
    """
    refuse_few(pairs)
    x = np.stack([np.ones(pairs.n), pairs.measured], axis=1)
    (intercept, slope), influence, _ = least_squares(x, pairs.prediction)
    r = np.corrcoef(pairs.prediction, pairs.measured)[0, 1]
    return Line(float(slope), float(intercept), influence[:, 1], float(r**2))


@dataclass(frozen=True, slots=True)
class Bend:
    """Whether predictions follow measurements along a line.

    Attributes
    ----------
    below, above
        Slopes of prediction on measurement on either side of the median measurement, of two lines
        that meet there.
    p_value
        Of no difference.
    """

    below: float
    above: float
    p_value: float


def bend_of(pairs: Pairs) -> Bend | None:
    """Compare the slopes below and above the median; None if too few units are on a side.

    A correction that takes the error to be linear is off where effects move outcomes in a range
    with another slope.
    """
    beyond = np.maximum(pairs.measured - np.median(pairs.measured), 0.0)
    if min((beyond > 0).sum(), (beyond == 0).sum()) < FEWEST:
        return None
    x = np.stack([np.ones(pairs.n), pairs.measured, beyond], axis=1)
    (_, below, more), influence, _ = least_squares(x, pairs.prediction)
    error = float(np.sqrt(influence[:, 2] @ influence[:, 2]))
    p = float(2 * stats.norm.sf(abs(more) / error)) if error > 0 else 1.0
    return Bend(float(below), float(below + more), p)


def refuse_few(pairs: Pairs, fewest: int = FEWEST) -> None:
    """Refuse to learn from almost nothing."""
    if pairs.n < fewest:
        raise EstimationError(
            f"Only {pairs.n} units have both a prediction and a measurement.",
            cause=f"How predictions err cannot be learned from fewer than {fewest}.",
            next_step="Label more units; a hundred are a beginning.",
        )


def prediction_slope(known: Labelled) -> EffectEstimate:
    """Return the slope of prediction on measurement, with the variance that was decided.

    Below 1, effects on predictions are attenuated by about this factor.

    Raises
    ------
    EstimationError
        If there are too few pairs.
    """
    line = line_through(known.pairs)
    decided = known.study.decisions
    labels = known.units.index[known.pairs.at]
    return EffectEstimate.of(
        line.slope,
        Influence(labels, line.influence, line.influence),
        estimand="slope of prediction on measurement",
        method="least squares",
        units=known.units.loc[labels],
        vcov=decided.vcov,
        level=decided.level,
        extra={"r2": line.r2, "n_labelled": known.pairs.n},
    )


def treatment_in_error(
    known: Labelled, arm: str | None = None, *, adjust: bool = False, curved: bool = True
) -> EffectEstimate:
    """Return the coefficient of treatment in prediction ~ measured + treatment, labelled units.

    If predictions err alike in all arms it is 0. Divided by the slope it is about the bias of
    corrections that are learned elsewhere.

    Parameters
    ----------
    known
        A study with labelled units.
    arm
        The treatment; default the first.
    adjust
        Whether the confounders of the table are in the regression, so that an error that depends
        on them (towns are seen better than villages) is not taken for one that depends on
        treatment.
    curved
        Whether predictions may follow the measured outcome along a line that bends at its
        quartiles (with at least 40 labels): where they do and a straight line is fitted, arms that
        differ in their outcomes seem to differ in their errors.

    Raises
    ------
    OneArmError
        If labelled units are not in both arms.
    EstimationError
        If there are too few of them.
    """
    data, decided = known.study.data, known.study.decisions
    one = 1 if arm is None else list(data.arms).index(arm)
    counts = known.by_arm()
    if min(counts[0], counts[one]) < 2:
        raise OneArmError(
            f"{counts[one]} treated and {counts[0]} untreated units are labelled.",
            cause="Whether predictions err differently in the arms takes labels in both.",
            next_step="Measure the outcome of some units in each arm.",
        )
    rows = np.flatnonzero(known.labelled)
    columns = [np.ones(len(rows)), known.truth[rows]]
    columns += [(data.arm[rows] == k).astype(float) for k in range(1, len(data.arms)) if counts[k]]
    at = 1 + int((counts[1 : one + 1] > 0).sum())
    if curved and len(rows) >= 4 * FEWEST:
        knots = np.quantile(known.truth[rows], [0.25, 0.5, 0.75])
        columns += [np.maximum(known.truth[rows] - knot, 0.0) for knot in knots]
    x = np.stack(columns, axis=1)
    if adjust:
        x = np.concatenate([x, _table(known, rows)], axis=1)
    x = x[:, independent_columns(x)]
    beta, influence, leverage = least_squares(x, known.prediction[rows])
    slope = float(np.polyfit(known.truth[rows], known.prediction[rows], 1)[0])
    labels = data.units.index[rows]
    raw = influence[:, at]
    hc2 = raw / np.sqrt(np.maximum(1 - leverage, 1e-12))
    return EffectEstimate.of(
        float(beta[at]),
        Influence(labels, raw, hc2, float(len(rows) - x.shape[1])),
        estimand="treatment in the prediction error",
        method="least squares",
        units=data.units.loc[labels],
        vcov=decided.vcov,
        level=decided.level,
        extra={"slope": slope, "n_labelled": len(rows), "treatment": data.arms[one]},
    )


def _table(known: Labelled, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    confounders = known.study.data.confounders
    if TABLE not in confounders.blocks:
        raise EstimationError(
            "There are no confounders of the table to adjust for.",
            cause="Only features of images were given.",
            next_step="Test without adjusting.",
        )
    return confounders.only(TABLE).x[rows]


def higher(shift: float) -> str:
    """Say a shift of predictions: ``0.42 lower``."""
    return f"{abs(shift):.3g} {'lower' if shift < 0 else 'higher'}"


def power_of_test(shift: float, std_error: float, df: float, alpha: float) -> float:
    """Return the probability that a two-sided t test finds a shift.

    Parameters
    ----------
    shift
        The true value.
    std_error, df
        Of its estimate.
    alpha
        Size of the test.
    """
    if not std_error > 0:
        return math.nan
    bound, t = float(stats.t.ppf(1 - alpha / 2, df)), abs(shift) / std_error
    return float(stats.t.sf(bound - t, df) + stats.t.cdf(-bound - t, df))
