"""What the effect means for light in the water: depths by several relations, draw by draw."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from eocausal.errors import EocausalError
from eocausal.studies.impact_rules import per_metre
from eocausal.studies.progress import Advance

if TYPE_CHECKING:
    from eocausal.studies.impact_space import ImpactSpace

__all__ = ["light_in_water"]


def light_in_water(space: ImpactSpace, progress: Advance) -> list[str]:
    """Turn every draw of the effect on Kd490 into depths."""
    from eocausal.ocean.depth_effect import RELATIONS, euphotic_depth_effect

    scale = per_metre(space.study)
    assert scale is not None
    own = space.impact.path
    path = replace(own, observed=own.observed * scale, counterfactual=own.counterfactual * scale)
    rows: list[dict[str, Any]] = []
    for relation in RELATIONS:
        row: dict[str, Any] = {"relation": relation.name, "meaning": relation.meaning}
        try:
            row |= euphotic_depth_effect(path, relation).record() | {"refused": ""}
        except EocausalError as error:
            row |= {"refused": f"{error.fact} {error.cause}"}
        rows.append(row)
    return [space.keep("optics.json", rows)]
