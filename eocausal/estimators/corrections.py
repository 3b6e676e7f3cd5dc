"""What a correction of an effect on predictions is given, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from eocausal.estimators.labelled import Labelled

__all__ = ["Correction", "Effects"]


@dataclass(frozen=True, slots=True, eq=False)
class Effects:
    """Effects of the arms against the first, with influence values.

    Attributes
    ----------
    value
        (K,) effects; that of arm 0 is 0.
    influence
        (N, K) influence values of all units of the analysis, those of a calibration table included.
    numbers
        What was learned on the way, by name.
    note
        What a reader should know about this correction of this study.
    warned
        Whether the note is a warning.
    df
        Degrees of freedom.
    """

    value: NDArray[np.float64]
    influence: NDArray[np.float64]
    numbers: Mapping[str, float]
    note: str = ""
    warned: bool = False
    df: float = float("inf")


class Correction(Protocol):
    """A decision how effects on a predicted outcome are corrected."""

    @property
    def name(self) -> str:
        """Name in tables."""
        ...

    @property
    def trusts_map(self) -> bool:
        """Whether it takes predictions to err alike in all arms, given the true outcome."""
        ...

    @property
    def needs_labels(self) -> bool:
        """Whether it needs units with a measured outcome."""
        ...

    def effects(self, known: Labelled, *, seed: int) -> Effects:
        """Estimate the effects."""
        ...
