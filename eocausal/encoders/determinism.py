"""The same bits every time: generators by purpose, torch's deterministic sums, seeded modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from eocausal.encoders.devices import float32_arithmetic

__all__ = ["deterministic", "seeded_modules", "stream"]


def stream(seed: int, *numbers: int) -> np.random.Generator:
    """Return the generator of one purpose."""
    return np.random.default_rng((seed, *numbers))


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Ask torch for algorithms that give the same sums every time; settings are put back.

    On CUDA, products of matrices are only so if CUBLAS_WORKSPACE_CONFIG=:4096:8 was set before.
    """
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
    memory.fill_uninitialized_memory = False
    try:
        with float32_arithmetic():
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        memory.fill_uninitialized_memory = fill


@contextmanager
def seeded_modules(seed: int, device: torch.device) -> Iterator[None]:
    """Seed what modules draw from torch's global generators (dropout), and put these back."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed(seed)
        yield
