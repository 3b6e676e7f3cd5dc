"""Effects on outcomes of which a model gives draws instead of one prediction.

Rubin (1987, Multiple Imputation for Nonresponse in Surveys, ch. 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eocausal.errors import EstimationError
from eocausal.estimators.corrections import Effects
from eocausal.estimators.predicted_study import means_of
from eocausal.estimators.randomized import numeric_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.labelled import Labelled

__all__ = ["MultipleImputation", "combine_draws"]


def combine_draws(
    value: NDArray[np.float64], influence: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64], float]:
    """Combine estimates on m completed data sets.

    Estimates are averaged; the variance is W + (1 + 1/m) B, the mean of the m variances plus that
    between the estimates. No unit owns the part between: averaged influence values are scaled so
    that their squares sum to the whole. Degrees of freedom are (m - 1)(1 + W / ((1 + 1/m) B))².

    Parameters
    ----------
    value
        (m,) estimates.
    influence
        (m, n) influence values.

    Returns
    -------
    Estimate, (n,) influence values, degrees of freedom.
    """
    m = len(value)
    within = float((influence**2).sum(axis=1).mean())
    between = (1 + 1 / m) * float(value.var(ddof=1))
    mean = influence.mean(axis=0)
    square = float(mean @ mean)
    factor = np.sqrt((within + between) / square) if square > 0 else 1.0
    df = (m - 1) * (1 + within / between) ** 2 if between > 0 else np.inf
    return float(value.mean()), np.asarray(factor * mean), float(df)


@dataclass(frozen=True, slots=True)
class MultipleImputation:
    """Estimate on every draw of the outcome and combine; measured outcomes are used where they are.

    This makes the interval honest about what the map does not know. It undoes attenuation only if
    draws were made knowing the treatment, which those of a map are not.

    Parameters
    ----------
    draws
        Columns, each a draw of all units' outcomes; one draw is of one model, so that errors that
        units share are in it.
    """

    draws: Sequence[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "draws", tuple(dict.fromkeys(self.draws)))
        if len(self.draws) < 2:
            raise EstimationError(
                f"{len(self.draws)} draws of the outcome.",
                cause="What the map does not know shows in how draws differ.",
                next_step="Give at least two columns of draws; twenty are usual.",
            )

    @property
    def name(self) -> str:
        """Name of the correction."""
        return "multiple imputation"

    @property
    def trusts_map(self) -> bool:
        """True: draws are taken to be those of the outcome in every arm."""
        return True

    @property
    def needs_labels(self) -> bool:
        """False."""
        return False

    def effects(self, known: Labelled, *, seed: int) -> Effects:
        """Estimate the effects on every draw and combine them.

        Raises
        ------
        EstimationError
            If a draw has missing values.
        MissingColumnError
        """
        data = known.study.data
        columns = numeric_columns(data.units, list(self.draws), what="draw of the outcome")
        columns = np.where(known.labelled[:, None], known.truth[:, None], columns)
        fits = [means_of(known.study, y, seed=seed) for y in columns.T]
        value = np.stack([f.value - f.value[0] for f in fits])
        psi = np.stack([f.influence - f.influence[:, :1] for f in fits])
        out, influence, df = np.zeros(value.shape[1]), np.zeros(psi.shape[1:]), np.inf
        for k in range(1, value.shape[1]):
            out[k], influence[:, k], freedom = combine_draws(value[:, k], psi[:, :, k])
            df = min(df, freedom)
        between = float(value[:, 1].std(ddof=1))
        note = (
            f"Over {len(self.draws)} draws the estimate varies by {between:.2g}. Draws that were "
            "made without knowing the treatment leave the effect attenuated."
        )
        numbers = {"draws": float(len(self.draws)), "between": between}
        return Effects(out, known.spread(influence), numbers, note, df=df)
