"""The scale on which a series is modelled, and the way back.

Effects are always on the original scale: draws of what would have been are turned back one by
one. A point prediction there is the mean of these draws. It is not the mean on the scale of the
model turned back, which is the median, since E exp(x) is larger than exp E x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import special

from eocausal.contracts import some
from eocausal.errors import OutcomeError

__all__ = ["Log", "Logit", "Transform"]

Float64 = NDArray[np.float64]


class Transform(Protocol):
    """A decision on what scale a series is modelled."""

    def forward(self, values: Float64, labels: list[str]) -> Float64:
        """Return values on the scale of the model; refuse those that have none."""
        ...

    def back(self, values: Float64) -> Float64:
        """Return values on the original scale."""
        ...


@dataclass(frozen=True, slots=True)
class Log:
    """Model the logarithm: for amounts above zero that vary in proportion to their size.

    Chlorophyll, attenuation and suspended matter usually do.
    """

    def forward(self, values: Float64, labels: list[str]) -> Float64:
        """Return logarithms.

        Raises
        ------
        OutcomeError
            If a value is zero or below.
        """
        _refuse(values <= 0, values, labels, "not above zero", "a logarithm")
        return np.log(values)

    def back(self, values: Float64) -> Float64:
        """Return exponentials."""
        return np.exp(values)


@dataclass(frozen=True, slots=True)
class Logit:
    """Model the log odds: for shares between zero and one, such as a cover or a frequency."""

    def forward(self, values: Float64, labels: list[str]) -> Float64:
        """Return log odds.

        Raises
        ------
        OutcomeError
            If a value is not strictly between zero and one.
        """
        _refuse((values <= 0) | (values >= 1), values, labels, "not between 0 and 1", "log odds")
        return np.asarray(special.logit(values))

    def back(self, values: Float64) -> Float64:
        """Return shares."""
        return np.asarray(special.expit(values))


def _refuse(
    wrong: NDArray[np.bool_], values: Float64, labels: list[str], fact: str, what: str
) -> None:
    if wrong.any():
        shown = [f"{labels[i]}: {values[i]:g}" for i in np.flatnonzero(wrong)]
        raise OutcomeError(
            f"{len(shown)} values of the outcome are {fact} ({some(shown).replace(chr(39), '')}).",
            cause=f"They do not have {what}.",
            next_step="Model the series as it is, correct these values, or make them missing.",
        )
