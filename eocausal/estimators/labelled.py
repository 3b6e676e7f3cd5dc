"""A study whose outcome is predicted, and the units where the outcome was measured as well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.contracts import check_columns, some
from eocausal.errors import (
    AlignmentError,
    DuplicateIdError,
    EmptyInputError,
    EstimationError,
    OutcomeError,
)
from eocausal.estimators.randomized import numeric_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.weighting import Weighted

__all__ = ["Labelled", "Pairs", "labelled_study"]


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Predictions beside measurements of the same units.

    Attributes
    ----------
    prediction, measured
        (c,) what the map says, and what was measured.
    at
        (c,) rows of the units, in the table of all units of the analysis.
    """

    prediction: NDArray[np.float64]
    measured: NDArray[np.float64]
    at: NDArray[np.int64]

    @property
    def n(self) -> int:
        """Number of pairs."""
        return len(self.prediction)


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """A fitted study of a predicted outcome, with what was measured.

    Attributes
    ----------
    study
        The analysis of the predictions; its outcome is the column of predictions.
    measured
        Name of the column with measurements.
    truth
        (n,) measured outcome of the study's units; NaN where it was not measured.
    labelled
        (n,) True where it was.
    units
        (N,) all units of the analysis: those of the study, then those of a calibration table.
    pairs
        What corrections are learned from: the calibration table, or else the labelled units.
    """

    study: Weighted
    measured: str
    truth: NDArray[np.float64]
    labelled: NDArray[np.bool_]
    units: pd.DataFrame
    pairs: Pairs

    @property
    def prediction(self) -> NDArray[np.float64]:
        """(n,) predicted outcome of the study's units."""
        return self.study.data.y

    @property
    def outside(self) -> bool:
        """Whether corrections are learned from a table of other units."""
        return len(self.units) > self.study.data.n

    def by_arm(self) -> NDArray[np.int64]:
        """Return (K,) numbers of labelled units of the study."""
        data = self.study.data
        return np.bincount(data.arm[self.labelled], minlength=len(data.arms))

    def spread(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Write influence values of the study's units (n, K) into rows of all units (N, K)."""
        out = np.zeros((len(self.units), values.shape[1]))
        out[: len(values)] = values
        return out


def labelled_study(
    study: Weighted,
    measured: str | None,
    labelled: str | NDArray[np.bool_] | None = None,
    calibration: pd.DataFrame | None = None,
    *,
    needed: bool = True,
) -> Labelled:
    """Join the analysis of predictions with what was measured, and check it.

    Parameters
    ----------
    study
        Analysis of the predictions.
    measured
        Column of measurements, in the units or in the calibration table; None if there are none.
    labelled
        Column of yes and no, or (n,) booleans: units whose measurement may be used; default those
        that have one.
    calibration
        Units outside the study, with columns of the same names for prediction and measurement.
        Units with the label of one of the study are that unit.
    needed
        Whether a study without any measurement is refused.

    Raises
    ------
    OutcomeError
        If nothing was measured, if a labelled unit has no measurement, or all are the same.
    AlignmentError
        If a unit has two different predictions.
    EstimationError, MissingColumnError, EmptyInputError, DuplicateIdError
    """
    data = study.data
    if measured is None:
        nothing = np.zeros(data.n, dtype=bool)
        _refuse_unlabelled(nothing, "that is named", needed)
        empty = np.zeros(0)
        pairs = Pairs(empty, empty, np.zeros(0, dtype=np.int64))
        return Labelled(study, "", np.full(data.n, np.nan), nothing, data.units, pairs)
    if measured in (data.outcome, data.treatment):
        raise EstimationError(
            f"{measured!r} is the column of predictions or the treatment.",
            cause="Predictions are corrected by measurements of the same thing, another column.",
            next_step="Name the measured outcome.",
        )
    mask = _mask(data.units, measured, labelled, calibration is not None)
    _refuse_unlabelled(mask, repr(measured), needed and calibration is None)
    truth = np.full(data.n, np.nan)
    if mask.any():
        truth[mask] = numeric_columns(data.units[mask], [measured], what="measured outcome")[:, 0]
    if calibration is None:
        pairs = Pairs(data.y[mask], truth[mask], np.flatnonzero(mask))
        units = data.units
    else:
        units, pairs = _with_calibration(data.units, calibration, data.outcome, measured, data.y)
    for name, values in (("prediction", pairs.prediction), ("measured outcome", pairs.measured)):
        if pairs.n and np.ptp(values) == 0:
            raise OutcomeError(
                f"The {name} is {values[0]:g} for all {pairs.n} units that have both.",
                cause="How the one follows the other cannot be learned.",
                next_step="Check the columns, or label more units.",
            )
    return Labelled(study, measured, truth, mask, units, pairs)


def _mask(
    units: pd.DataFrame,
    measured: str,
    labelled: str | NDArray[np.bool_] | None,
    elsewhere: bool,
) -> NDArray[np.bool_]:
    if elsewhere and labelled is None and measured not in units:
        return np.zeros(len(units), dtype=bool)
    check_columns(units, [measured], what="units table")
    present = units[measured].notna().to_numpy()
    mask = present if labelled is None else _booleans(units, labelled)
    if (mask & ~present).any():
        lost = units.index[mask & ~present]
        raise OutcomeError(
            f"{len(lost)} labelled units have no {measured!r}: {some(lost)}.",
            cause="A label is a measurement.",
            next_step="Complete the column, or mark these units as not labelled.",
        )
    return mask


def _refuse_unlabelled(mask: NDArray[np.bool_], measured: str, needed: bool) -> None:
    if needed and not mask.any():
        raise OutcomeError(
            f"No unit has a measured outcome {measured}.",
            cause="How predictions err can only be learned where the outcome was measured.",
            next_step="Measure it for a random sample of units in each arm, or give a calibration "
            "table of other places; without either the effect stays attenuated by an unknown "
            "factor.",
        )


def _booleans(units: pd.DataFrame, labelled: str | NDArray[np.bool_]) -> NDArray[np.bool_]:
    if isinstance(labelled, str):
        check_columns(units, [labelled], what="units table")
        name, values = repr(labelled), units[labelled].to_numpy()
    else:
        name, values = "The mask of labelled units", np.asarray(labelled)
    if values.shape != (len(units),):
        raise AlignmentError(
            f"{name} has {values.size} entries for {len(units)} units.",
            cause="It says of each unit whether its measurement may be used.",
            next_step="Make it from the units of the analysis, after trimming.",
        )
    if not pd.Series(values).isin([0, 1]).all():
        raise EstimationError(
            f"{name} has values other than yes and no.",
            cause="It says of each unit whether its measurement may be used.",
            next_step="Recode it to True and False, without gaps.",
        )
    return values.astype(bool)


def _with_calibration(
    units: pd.DataFrame,
    table: pd.DataFrame,
    prediction: str,
    measured: str,
    y: NDArray[np.float64],
) -> tuple[pd.DataFrame, Pairs]:
    if len(table) == 0:
        raise EmptyInputError(
            "The calibration table has no rows.",
            cause="How predictions err is learned from it.",
            next_step="Give units with a prediction and a measurement.",
        )
    both = numeric_columns(table, [prediction, measured], what="calibration column")
    if isinstance(table.index, pd.RangeIndex) and isinstance(units.index, pd.RangeIndex):
        table = table.set_axis([f"calibration {k}" for k in range(len(table))])
    if not table.index.is_unique:
        raise DuplicateIdError(
            "Labels of the calibration table occur more than once.",
            cause="Its units could not be told apart.",
            next_step="Give it a unique index.",
        )
    known = units.index.get_indexer(table.index)
    here = known >= 0
    if not np.allclose(y[known[here]], both[here, 0]):
        raise AlignmentError(
            f"{int(here.sum())} units of the calibration table have labels of the study and other "
            "predictions.",
            cause="The same label means the same unit.",
            next_step="Rename them if they are other units.",
        )
    at = known.copy()
    at[~here] = len(units) + np.arange(int((~here).sum()))
    return pd.concat([units, table[~here]]), Pairs(both[:, 0], both[:, 1], at)
