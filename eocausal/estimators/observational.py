"""Units, arms, outcome and confounders of an observational study, checked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd

from eocausal.contracts import check_columns, some
from eocausal.errors import (
    AssignmentError,
    EmptyInputError,
    EstimationError,
    LeakageError,
    OneArmError,
)
from eocausal.estimators.confounders import Confounders, confounders_of
from eocausal.estimators.randomized import outcome_of

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from eocausal.folds import Splits

__all__ = ["Observed", "OutcomeModel", "PropensityModel", "arms_of", "observe"]


class PropensityModel(Protocol):
    """A decision how the probability of each arm is learned."""

    def cross_fit(
        self, confounders: Confounders, arm: NDArray[np.int64], splits: Splits, *, seed: int
    ) -> NDArray[np.float64]:
        """Return (n, K) probabilities, each unit's from the model of its fold; rows sum to 1."""
        ...


class OutcomeModel(Protocol):
    """A decision how the outcome under each arm is learned."""

    def cross_fit(
        self,
        confounders: Confounders,
        y: NDArray[np.float64],
        arm: NDArray[np.int64],
        splits: Splits,
        *,
        seed: int,
    ) -> NDArray[np.float64]:
        """Return (n, K) predictions under each arm, each unit's from the model of its fold."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """An observational study as arrays.

    Attributes
    ----------
    units
        The table, one row per unit, unique index.
    y
        (n,) outcome.
    arm
        (n,) arm of each unit, 0..K-1; 0 is untreated.
    arms
        Names of the K arms.
    confounders
        What treatment and outcome may both depend on.
    treatment, outcome
        Names of the columns.
    """

    units: pd.DataFrame
    y: NDArray[np.float64]
    arm: NDArray[np.int64]
    arms: tuple[str, ...]
    confounders: Confounders
    treatment: str
    outcome: str

    @property
    def n(self) -> int:
        """Number of units."""
        return len(self.y)

    def counts(self) -> NDArray[np.int64]:
        """Return (K,) numbers of units by arm."""
        return np.bincount(self.arm, minlength=len(self.arms))

    def subset(self, keep: NDArray[np.bool_]) -> Observed:
        """Keep some units; arms stay numbered as they are."""
        return Observed(
            self.units[keep], self.y[keep], self.arm[keep], self.arms,
            self.confounders.subset(keep), self.treatment, self.outcome,
        )  # fmt: skip


def arms_of(
    values: pd.Series, untreated: str | None = None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Read a treatment column: 0/1, yes/no, or names of several treatments.

    Parameters
    ----------
    values
        The column.
    untreated
        Value that means no treatment; default 0, False, ``none``, ``untreated`` or ``control``,
        whichever occurs.

    Returns
    -------
    (n,) codes, 0 for untreated, and the names of the arms.

    Raises
    ------
    AssignmentError
        If a value is missing, or it cannot be told which value means no treatment.
    OneArmError
        If there is one arm only.
    """
    name = str(values.name)
    if values.isna().any():
        raise AssignmentError(
            f"The treatment {name!r} is missing for {int(values.isna().sum())} units: "
            f"{some(values.index[values.isna()])}.",
            cause="Whether they were treated is unknown.",
            next_step="Drop these units or complete the column.",
        )
    text = values.map(_arm_text)
    found = sorted(text.unique())
    if len(found) < 2:
        raise OneArmError(
            f"All {len(values)} units have the treatment {found[0]!r} ({name!r}).",
            cause="An effect is a comparison of two arms.",
            next_step="Check the filter and the join that made this table.",
        )
    words = (untreated,) if untreated is not None else ("0", "none", "untreated", "control")
    zero = next((f for w in words for f in found if f.lower() == w.lower()), None)
    if zero is None:
        raise AssignmentError(
            f"The treatment {name!r} has the values {some(found)}.",
            cause="Which of them means no treatment cannot be told.",
            next_step="Recode it to 0 and 1, or name the untreated value.",
        )
    if len(found) > 50:
        raise AssignmentError(
            f"The treatment {name!r} has {len(found)} values.",
            cause="Each is taken as an arm of its own; a dose is not meant.",
            next_step="Cut it into a few arms, e.g. none and some.",
        )
    arms = (zero, *[f for f in found if f != zero])
    code = {value: k for k, value in enumerate(arms)}
    return text.map(code).to_numpy(np.int64), arms


def _arm_text(value: object) -> str:
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def observe(
    units: pd.DataFrame,
    *,
    treatment: str,
    outcome: str,
    covariates: Sequence[str] = (),
    images: Mapping[str, pd.DataFrame | xr.DataArray] | None = None,
    untreated: str | None = None,
    start: str | None = None,
) -> Observed:
    """Check a table of units and turn it into arrays.

    Parameters
    ----------
    units
        One row per unit, unique index.
    treatment, outcome, covariates
        Columns.
    images
        Embeddings by name; see :func:`~eocausal.estimators.confounders.confounders_of`.
    untreated
        Value of ``treatment`` that means none.
    start
        ISO date, or a column of dates, when treatment began: images must be older.

    Raises
    ------
    LeakageError
        If an image is not older than the start of treatment.
    EmptyInputError, MissingColumnError, AssignmentError, OneArmError, OutcomeError,
    EstimationError, EmbeddingError
    """
    check_columns(units, [treatment, outcome, *covariates], what="units table")
    if len(units) == 0:
        raise EmptyInputError(
            "The units table has no rows.",
            cause="There is no one whose outcome could be compared.",
            next_step="Check the filter and the join that made this table.",
        )
    clash = {treatment, outcome} & set(covariates)
    if clash or treatment == outcome:
        raise EstimationError(
            f"{min(clash or {outcome})!r} is named in two roles.",
            cause="Treatment, outcome and confounders must be different columns.",
            next_step="Name another column.",
        )
    arm, arms = arms_of(units[treatment], untreated)
    for features in (images or {}).values():
        _refuse_late(features, units, arm, start)
    return Observed(
        units, outcome_of(units, outcome), arm, arms,
        confounders_of(units, covariates, images), treatment, outcome,
    )  # fmt: skip


def _refuse_late(
    features: pd.DataFrame | xr.DataArray,
    units: pd.DataFrame,
    arm: NDArray[np.int64],
    start: str | None,
) -> None:
    if start is None or isinstance(features, pd.DataFrame):
        return
    last = str(features.attrs.get("last_image_date", ""))
    if not last:
        return
    if start in units.columns:
        begun = pd.to_datetime(units.loc[arm > 0, start])
    else:
        begun = pd.Series([pd.Timestamp(start)])
    late = begun <= pd.Timestamp(last)
    if late.any():
        more = ""
        if len(late) > 1:
            more = f" or later for {int(late.sum())} units that were treated before it"
        raise LeakageError(
            f"The last image is of {last}, and treatment began {begun[late].min():%Y-%m-%d}{more}.",
            cause="An image taken after treatment shows its effects; used as a confounder it "
            "biases every estimate.",
            next_step="Use images that end before treatment began.",
        )
