"""Weights files: found, checked by sha256, and read without running what they hold."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch

from eocausal.encoders.cards import ModelCard, Weights, card_folders
from eocausal.errors import WeightsError
from eocausal.provenance import hash_file

__all__ = ["State", "find_weights", "read_weights"]

State = Mapping[str, torch.Tensor]


def find_weights(
    card: ModelCard, weights: Path | str | None, folder: Path | None = None
) -> Path | None:
    """Return the path of a card's weights file; None if the card has none.

    Raises
    ------
    WeightsError
        If the file is not there, or one is given to a card without weights.
    """
    if card.weights is None:
        if weights is not None:
            raise WeightsError(
                f"The model {card.name} takes no weights file, but {weights} was given.",
                cause="Its card says weights: null; the network is random.",
                next_step="Leave the path out, or choose a card that names a file.",
            )
        return None
    if folder is not None and folder.is_file():
        folder = folder.parent
    beside = [folder] if folder is not None else [f / card.name for f in card_folders()]
    candidates = [Path(weights)] if weights is not None else [f / card.weights.file for f in beside]
    for path in candidates:
        if path.is_file():
            return path
    raise WeightsError(
        f"The weights of {card.name} are not at {', '.join(map(str, candidates))}.",
        cause="Weights are not part of eocausal.",
        next_step=f"Get {card.weights.file} ({card.weights.licence}) from {card.weights.source} "
        "and pass its path as weights=....",
    )


def read_weights(path: Path, expected: Weights) -> tuple[State, str]:
    """Read a weights file after checking its checksum.

    ``.safetensors`` hold tensors only; ``.pth`` and ``.pt`` are read with ``weights_only=True``,
    which refuses a pickle that would run code.

    Returns
    -------
    tuple
        Tensors by name, and the file's sha256.

    Raises
    ------
    WeightsError
    """
    sha256 = hash_file(path)
    if not expected.matches(sha256):
        raise WeightsError(
            f"The weights file {path} has sha256 {sha256}.",
            cause=f"The card expects {expected.sha256 or (expected.sha256_prefix or '') + '...'}: "
            "the file is another one, cut short or changed.",
            next_step=f"Get it again from {expected.source}.",
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"The weights file {path} holds more than tensors.",
            cause="Reading it would run code: " + str(error).split("\n")[0].strip(),
            next_step="Use a file of plain tensors (safetensors, or a state dict).",
        ) from error
    except Exception as error:  # the readers raise many kinds on a damaged file
        raise WeightsError(
            f"The weights file {path} cannot be read.",
            cause=f"{type(error).__name__}: {error}",
            next_step=f"Get it again from {expected.source}.",
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise WeightsError(
            f"The weights file {path} is not a dictionary of tensors.",
            cause="It may hold a whole model or a training checkpoint.",
            next_step="Save model.state_dict() alone.",
        )
    return state, sha256
