"""The state of a network in training, on disk and back, bit for bit.

One safetensors file holds weights, the optimiser's state and, as JSON in its header, the history;
it is replaced whole after each epoch. Random draws need no state: they follow from seed, network,
epoch and step. Nothing is pickled.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from eocausal.provenance import atomic_path

__all__ = ["EpochRow", "Progressed", "read_checkpoint", "tensors_of", "write_checkpoint"]

Tensors = dict[str, torch.Tensor]
_HEADER = "eocausal"


@dataclass(frozen=True, slots=True)
class EpochRow:
    """What one epoch of one network came to; epoch 0 is before the first step."""

    fold: int
    epoch: int
    training: float | None
    held_out: float | None
    rate: float


@dataclass(slots=True)
class Progressed:
    """How far training has come.

    Attributes
    ----------
    epoch
        Epochs done.
    best_epoch, best_loss
        The epoch whose weights are kept, and its held-out loss.
    slowdown
        Factor on the learning rate, lowered where the loss diverged.
    restarts
        How often that was.
    finished
        Whether there is nothing left to do.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float | None = None
    slowdown: float = 1.0
    restarts: int = 0
    finished: bool = False
    rows: list[EpochRow] = field(default_factory=list)


def tensors_of(prefix: str, tensors: Tensors) -> Tensors:
    """Copy tensors to contiguous memory of the CPU, named ``prefix/name``."""
    return {
        f"{prefix}/{name}": tensor.detach().cpu().contiguous().clone()
        for name, tensor in tensors.items()
    }


def write_checkpoint(path: Path, key: str, progressed: Progressed, tensors: Tensors) -> None:
    """Write a checkpoint in place of an older one, whole or not at all."""
    header = json.dumps({"key": key, "progressed": asdict(progressed)})
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={_HEADER: header})


def read_checkpoint(path: Path, key: str) -> tuple[Progressed, Tensors] | None:
    """Read a checkpoint; None if there is none, it is damaged, or it belongs to other work."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            if header["key"] != key:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None
    known = header["progressed"]
    known["rows"] = [EpochRow(**row) for row in known["rows"]]
    return Progressed(**known), tensors
