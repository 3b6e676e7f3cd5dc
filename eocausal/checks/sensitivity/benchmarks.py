"""What leaving out something that was measured does: a yardstick for what was not.

Every column of the table, and every image as a whole, is left out in turn, and the models are
fitted anew on the same folds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from eocausal.errors import EstimationError, MissingColumnError
from eocausal.estimators.confounders import TABLE
from eocausal.estimators.scores import Nuisances

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.arm_means import ArmMeans
    from eocausal.estimators.confounders import Confounders
    from eocausal.estimators.weighting import Weighted

__all__ = ["LeftOut", "Progress", "leave_out_each", "outcome_predictions", "table_columns"]

Progress = Callable[[int, int], None]
KEPT = 16


@dataclass(frozen=True, slots=True, eq=False)
class LeftOut:
    """The analysis without one confounder.

    Attributes
    ----------
    name
        Column of the table, or name of an image.
    whole_image
        Whether all features of an image were left out together.
    confounders
        The others.
    nuisances
        Probabilities (where the score uses them) and predicted outcomes without it.
    means
        Mean outcomes of the arms without it.
    """

    name: str
    whole_image: bool
    confounders: Confounders
    nuisances: Nuisances
    means: ArmMeans

    def effect(self, arm: int) -> float:
        """Return the effect of arm number ``arm`` against none."""
        return float(self.means.value[arm] - self.means.value[0])


def table_columns(confounders: Confounders) -> list[str]:
    """Return the columns of the table; the indicators of one column count once."""
    if TABLE not in confounders.blocks:
        return []
    code = confounders.blocks.index(TABLE)
    names = (n for n, b in zip(confounders.names, confounders.block, strict=True) if b == code)
    return list(dict.fromkeys(name.partition("=")[0] for name in names))


def outcome_predictions(
    subject: Weighted, y: NDArray[np.float64], confounders: Confounders, *, seed: int = 0
) -> NDArray[np.float64]:
    """Predict an outcome under each arm with the subject's outcome model and folds, (n, K)."""
    return subject.decisions.outcome_model.cross_fit(
        confounders, y, subject.data.arm, subject.splits, seed=seed
    )


def leave_out_each(
    subject: Weighted,
    names: Sequence[str] | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[LeftOut]:
    """Fit the models without each confounder in turn.

    Units, folds and what is done about extreme probabilities stay as they are; no more units are
    trimmed. The outcome model is fitted for every score. A column that a model reads by its name
    (given probabilities) cannot be left out, and is passed over.

    Parameters
    ----------
    names
        Columns of the table and names of images; default all.
    seed
        Of the models.
    progress
        Called with the number of confounders done and their total.

    Raises
    ------
    EstimationError
        If there is no such confounder.
    """
    confounders = subject.data.confounders
    columns = table_columns(confounders)
    images = [name for name in confounders.blocks if name != TABLE]
    wanted = [*columns, *images] if names is None else list(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in columns and name not in images]
    if unknown:
        raise EstimationError(
            f"There is no confounder {unknown[0]!r} to compare with.",
            cause=f"The confounders are {', '.join([*columns, *images]) or 'none'}.",
            next_step="Name some of these.",
        )
    found = []
    for i, name in enumerate(wanted):
        with contextlib.suppress(MissingColumnError):
            found.append(_without(subject, name, name not in columns, seed))
        if progress is not None:
            progress(i + 1, len(wanted))
    return found


@lru_cache(maxsize=KEPT)
def _without(subject: Weighted, name: str, whole: bool, seed: int) -> LeftOut:
    """Leave out one confounder; the last ones are kept, since several checks ask for the same."""
    confounders = subject.data.confounders
    rest = (
        confounders.only(*(b for b in confounders.blocks if b != name))
        if whole
        else confounders.without(name)
    )
    data, decided = replace(subject.data, confounders=rest), subject.decisions
    propensity = None
    if decided.score.needs_propensity:
        propensity = decided.propensity.cross_fit(rest, data.arm, subject.splits, seed=seed)
        tiny = np.finfo(float).eps
        propensity = np.clip(propensity, tiny, 1 - tiny)
        if decided.trim is not None:
            propensity = decided.trim.apply(propensity)
    outcome = outcome_predictions(subject, data.y, rest, seed=seed)
    nuisances = Nuisances(propensity, outcome)
    return LeftOut(name, whole, rest, nuisances, decided.score.means(data, nuisances))
