"""What ``eocausal impact --json`` prints, and its published schema."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

__all__ = ["ImpactAnswer", "impact_schema"]

Number = float | None


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class Span(_Open):
    """Times from the first to the last."""

    first: str
    last: str
    n: int = Field(description="Times with a value.")


class Effect(_Open):
    """Actual, predicted and their difference, with intervals of the level stated."""

    actual: Number
    predicted: Number
    predicted_sd: Number
    predicted_low: Number
    predicted_high: Number
    effect: Number
    effect_sd: Number
    effect_low: Number
    effect_high: Number


class Relative(_Open):
    """Effect over prediction; null where the prediction may be zero."""

    effect: Number
    effect_sd: Number
    effect_low: Number
    effect_high: Number


class FitCheck(_Open):
    """One aspect of the residual before the event, beside what the model draws."""

    aspect: str
    observed: Number
    expected_low: Number
    expected_high: Number
    p_value: Number


class HeldOutPart(_Open):
    """The end of the past predicted from the rest: nothing happened there."""

    effect: Number
    effect_sd: Number
    effect_low: Number
    effect_high: Number
    p_value: Number
    n: int
    inside: Number = Field(description="Share of values within the interval of their time.")
    holds_zero: bool


class ImpactAnswer(_Open):
    """The effect of an event on a series; null where a number does not exist."""

    outcome: str
    unit: str = ""
    event: str | list[str]
    learned_from: Span
    counted: Span
    step: str = Field(description="One step of the calendar.")
    level: float = Field(description="Of intervals.")
    average: Effect = Field(description="Mean over the counted times.")
    cumulative: Effect = Field(description="Sum over the counted times.")
    relative: Relative
    p_value: Number = Field(description="Of an average this far from its prediction by chance.")
    n: int = Field(description="Counted times.")
    tail: str = Field(description="two-sided, or one-sided as in R's CausalImpact.")
    by_event: list[dict[str, Any]] = Field(
        default_factory=list, description="The same for each of several events."
    )
    inclusion: dict[str, Number] = Field(description="Probability that a control is in the model.")
    model: dict[str, Any]
    transform: str | None
    engine: str = Field(description="grid, collapsed or gibbs.")
    draws: int
    seed: int
    fit_checks: list[FitCheck]
    held_out: HeldOutPart | None = Field(default=None, description="If it was asked for.")
    notes: list[str] = Field(description="What was done, not said, or does not fit.")


def impact_schema() -> dict[str, Any]:
    """Return the JSON Schema of an impact."""
    schema = TypeAdapter(ImpactAnswer).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
