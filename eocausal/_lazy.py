"""Names that are loaded on first use, so that importing a package imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazily"]


def lazily(package: str, names: Mapping[str, str], into: dict[str, Any]) -> Callable[[str], Any]:
    """Return a module's ``__getattr__``.

    Parameters
    ----------
    package
        Name of the package.
    names
        Module below ``package``, by public name; empty for a name that is itself a module.
    into
        The package's ``globals()``, where a name is kept once it is loaded.
    """

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if names[name]:
            value = getattr(import_module(f"{package}.{names[name]}"), name)
        else:
            value = import_module(f"{package}.{name}")
        into[name] = value
        return value

    return get
