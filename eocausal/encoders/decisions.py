"""Decisions of this package as JSON and back, so that trained networks can be rebuilt from a file.

A file can only name frozen dataclasses and model cards of ``eocausal.encoders``; nothing else is
imported or called.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from eocausal.errors import WeightsError

__all__ = ["from_json", "to_json"]

_PACKAGE: Final = "eocausal.encoders."


def to_json(value: Any) -> Any:
    """Turn a decision into JSON values.

    Raises
    ------
    TypeError
        If it, or one it holds, is not of this package.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return {"tuple": [to_json(v) for v in value]}
    if isinstance(value, Path):
        return {"path": str(value)}
    kind = type(value)
    if kind.__module__.startswith(_PACKAGE) and is_dataclass(value):
        parts = {f.name: to_json(getattr(value, f.name)) for f in fields(value) if f.init}
        return {"class": [kind.__module__, kind.__name__], "fields": parts}
    if kind.__module__.startswith(_PACKAGE) and isinstance(value, BaseModel):
        return {"model": [kind.__module__, kind.__name__], "fields": value.model_dump(mode="json")}
    raise TypeError(f"{kind.__module__}.{kind.__qualname__} is no decision of {_PACKAGE[:-1]}")


def from_json(value: Any) -> Any:
    """Build the decision that :func:`to_json` wrote down.

    Raises
    ------
    WeightsError
        If it names something that is not a decision of this package.
    """
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(from_json(v) for v in value["tuple"])
    if "path" in value:
        return Path(value["path"])
    if "model" in value:
        kind = _named(value["model"])
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind.model_validate(value["fields"])
    if "class" in value:
        kind = _named(value["class"])
        if isinstance(kind, type) and is_dataclass(kind):
            return kind(**{name: from_json(part) for name, part in value["fields"].items()})
    raise WeightsError(
        f"The file names {value.get('class') or value.get('model')!r} as a decision.",
        cause="It is no decision of this version of eocausal.",
        next_step="Use the version that wrote the file, or one you trust.",
    )


def _named(name: Any) -> Any:
    module, attribute = (str(part) for part in name)
    if not module.startswith(_PACKAGE) or not attribute.isidentifier():
        return None
    try:
        found = getattr(import_module(module), attribute, None)
    except ImportError:
        return None
    return found if getattr(found, "__module__", None) == module else None
