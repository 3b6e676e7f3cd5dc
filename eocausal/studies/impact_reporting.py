"""The last stage of a study of an event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eocausal.studies.progress import Advance

if TYPE_CHECKING:
    from eocausal.studies.impact_space import ImpactSpace

__all__ = ["report"]


def report(space: ImpactSpace, progress: Advance) -> list[str]:
    """Write ``figures/`` and ``report.html``."""
    return [space.keep("claim.json", "")]
