"""The building blocks of the study file's sections: closed, frozen, with choices by name."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PositiveInt,
    model_validator,
)
from pydantic_core import CoreSchema

__all__ = [
    "Choice", "IsoDate", "NoOptions", "OneOrMore", "Section", "Share", "Sizes", "Text", "Texts",
    "several", "switch",
]  # fmt: skip


def _text(value: Any) -> Any:
    """Read numbers and dates as text: YAML types an unquoted ``2000`` or ``2008-01-01``."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return str(value)
    return value.isoformat() if isinstance(value, date) else value


def several(value: Any) -> Any:
    """Read one value as a list of one."""
    return value if isinstance(value, list | tuple) or value is None else [value]


Text = Annotated[
    str,
    BeforeValidator(_text, json_schema_input_type=str | int | float),
    Field(min_length=1),
]
OneOrMore = BeforeValidator(several, json_schema_input_type=str | list[str])
Texts = Annotated[tuple[Text, ...], OneOrMore, Field(min_length=1)]
Sizes = Annotated[
    tuple[PositiveInt, ...],
    BeforeValidator(several, json_schema_input_type=int | list[int]),
    Field(min_length=1),
]
Share = Annotated[float, Field(ge=0, le=1)]


def _iso(value: str) -> str:
    """Accept a year, a month or a day."""
    parts = value.split("-")
    try:
        whole = [int(p) for p in (*parts, "1", "1")[: max(3, len(parts))]]
        if not all(p.isdigit() for p in parts) or len(parts[0]) != 4:
            whole = [0, 0, 0]
        date(*whole)
    except (ValueError, TypeError):
        raise ValueError(f"{value!r} is not a date; write it as YYYY-MM-DD") from None
    return value


def switch(value: Any) -> Any:
    """Read ``false`` as left out and ``true`` as with all defaults."""
    return ({} if value else None) if isinstance(value, bool) else value


IsoDate = Annotated[Text, AfterValidator(_iso)]


class Section(BaseModel):
    """A mapping of the study file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Choice(Section):
    """A mapping with exactly one key, which may be written as that key alone."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {value: {}}
        if isinstance(value, dict):
            return {k: {} if v is None else v for k, v in value.items()}
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.model_fields_set) != 1:
            named = ", ".join(sorted(self.model_fields_set)) or "none"
            raise ValueError(
                f"choose exactly one of {', '.join(type(self).model_fields)} (given: {named})"
            )
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        whole = handler.resolve_ref_schema(handler(core_schema))
        return {"anyOf": [{"enum": list(cls.model_fields)}, dict(whole)]}

    @property
    def name(self) -> str:
        """The key that was chosen."""
        return next(iter(self.model_fields_set))


class NoOptions(Section):
    """A choice without options."""
