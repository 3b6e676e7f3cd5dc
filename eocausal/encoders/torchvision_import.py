"""Import torchvision beside any torch.

The torchvision on the Python Package Index is built for CUDA. Beside a CPU-only torch its
compiled operators do not load, and the import fails on the missing schema ``torchvision::nms``.
The networks need none of these operators: declaring the two schemas is enough to import them.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

import torch

from eocausal.errors import EncoderError

__all__ = ["import_torchvision"]

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@cache
def _declared_operators() -> torch.library.Library:
    """Declare the missing schemas, once; the library lives as long as the process."""
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    return library


def _load_compiled_operators(package: Path) -> None:
    for path in sorted(package.glob("_C*.so")) + sorted(package.glob("_C*.pyd")):
        try:
            torch.ops.load_library(str(path))  # type: ignore[no-untyped-call]
        except (ImportError, OSError):
            continue


def import_torchvision() -> ModuleType:
    """Import torchvision, declaring its operators where its compiled part cannot be loaded.

    Returns
    -------
    module
        ``torchvision``, with ``torchvision.models``.

    Raises
    ------
    EncoderError
        If torchvision is not installed.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        raise EncoderError(
            "torchvision is not installed.",
            cause="The network architectures come from it.",
            next_step="Install torchvision of the release that goes with your torch.",
        )
    if not hasattr(torch.ops.torchvision, "nms"):
        _load_compiled_operators(Path(found.origin).parent)
    if not hasattr(torch.ops.torchvision, "nms"):
        _declared_operators()
    return importlib.import_module("torchvision")
