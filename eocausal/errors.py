"""Typed errors: every message states the fact, its cause and the next step.

Each class has a stable ``code`` (``EO101``...), so that a program can tell them apart and a
user can search for one. The hierarchy follows the stages: data contracts, ingestion,
encoders, designs and estimators, checks, studies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

__all__ = [
    "AlignmentError",
    "AssignmentError",
    "BandError",
    "CRSError",
    "CubeError",
    "DesignError",
    "DeviceError",
    "DuplicateIdError",
    "EmbeddingError",
    "EmptyInputError",
    "EncoderError",
    "EocausalError",
    "EstimationError",
    "FoldError",
    "GeometryError",
    "IngestError",
    "LeakageError",
    "MissingColumnError",
    "ModelCardError",
    "OneArmError",
    "OneClusterError",
    "OutcomeError",
    "OverlapError",
    "PanelError",
    "SceneError",
    "StudyError",
    "SupportError",
    "TooManyFailuresError",
    "WeightsError",
]


class EocausalError(Exception):
    """Base of every error raised on purpose by eocausal.

    Parameters
    ----------
    fact
        What is so, with the offending values named.
    cause
        Why that stops the work.
    next_step
        What the user can do about it.
    """

    code: ClassVar[str] = "EO000"

    def __init__(self, fact: str, *, cause: str = "", next_step: str = "") -> None:
        self.fact = fact
        self.cause = cause
        self.next_step = next_step
        super().__init__(fact, cause, next_step)

    def __str__(self) -> str:
        parts = [part.strip() for part in (self.fact, self.cause) if part.strip()]
        if self.next_step.strip():
            parts.append("Next: " + self.next_step.strip())
        return f"[{self.code}] " + " ".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.fact, self.cause, self.next_step))


def _rebuild(kind: type[EocausalError], fact: str, cause: str, next_step: str) -> EocausalError:
    return kind(fact, cause=cause, next_step=next_step)


class EmptyInputError(EocausalError):
    """A table, folder or list that must hold something holds nothing."""

    code = "EO101"


class MissingColumnError(EocausalError):
    """A named column is not in the table."""

    code = "EO102"


class CRSError(EocausalError):
    """A coordinate reference system is missing or contradicts the coordinates."""

    code = "EO103"


class GeometryError(EocausalError):
    """A geometry is empty, missing or invalid."""

    code = "EO104"


class DuplicateIdError(EocausalError):
    """An id that must be unique occurs more than once."""

    code = "EO105"


class AlignmentError(EocausalError):
    """Two objects that must share neighborhoods or units do not."""

    code = "EO106"


class CubeError(EocausalError):
    """A cube breaks its contract."""

    code = "EO107"


class PanelError(EocausalError):
    """A panel breaks its contract."""

    code = "EO108"


class EmbeddingError(EocausalError):
    """An embedding breaks its contract."""

    code = "EO109"


class IngestError(EocausalError):
    """Ingestion could not be done as asked."""

    code = "EO200"


class SceneError(IngestError):
    """A scene cannot be read or lacks what is needed to place it."""

    code = "EO201"


class BandError(IngestError):
    """A band asked for is in no scene."""

    code = "EO202"


class TooManyFailuresError(IngestError):
    """More scenes or chips failed than the stated share allows."""

    code = "EO203"


class EncoderError(EocausalError):
    """An encoder cannot be fitted or applied to this cube."""

    code = "EO300"


class ModelCardError(EncoderError):
    """A model card is wrong, or the cube does not fit it."""

    code = "EO301"


class WeightsError(EncoderError):
    """A weights file is missing, has another checksum or another shape."""

    code = "EO302"


class DeviceError(EncoderError):
    """The device asked for is not there."""

    code = "EO303"


class DesignError(EocausalError):
    """A design contradicts the data."""

    code = "EO400"


class OneArmError(DesignError):
    """Only one arm of the trial is in the data."""

    code = "EO401"


class OneClusterError(DesignError):
    """Too few clusters for a variance or for cross-fitting."""

    code = "EO402"


class AssignmentError(DesignError):
    """Arms or assignment probabilities are not what a trial has."""

    code = "EO403"


class FoldError(DesignError):
    """Folds cannot be made as asked."""

    code = "EO404"


class EstimationError(EocausalError):
    """An estimate cannot be computed or would be meaningless."""

    code = "EO500"


class OutcomeError(EstimationError):
    """The outcome has missing or non-finite values, or does not vary."""

    code = "EO501"


class SupportError(EstimationError):
    """There is no overlap between where we learned and where we are asked to predict."""

    code = "EO502"


class OverlapError(EstimationError):
    """Units of one arm have no counterpart in the other: no number would mean anything."""

    code = "EO503"


class LeakageError(EocausalError):
    """A covariate or an image carries the treatment."""

    code = "EO600"


class StudyError(EocausalError):
    """A study file has problems; all of them are listed."""

    code = "EO700"

    def __init__(
        self,
        fact: str,
        *,
        cause: str = "",
        next_step: str = "",
        problems: Sequence[str] = (),
    ) -> None:
        super().__init__(fact, cause=cause, next_step=next_step)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"  - {problem}" for problem in self.problems)])

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_study, (self.fact, self.cause, self.next_step, self.problems))


def _rebuild_study(fact: str, cause: str, next_step: str, problems: tuple[str, ...]) -> StudyError:
    return StudyError(fact, cause=cause, next_step=next_step, problems=problems)
