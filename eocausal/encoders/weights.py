"""Weights files: found, checked by sha256, and read without running what they hold."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from eocausal.encoders.cards import ModelCard, Weights, card_folders
from eocausal.encoders.key_maps import State, from_timm_vit
from eocausal.errors import WeightsError
from eocausal.provenance import hash_file

__all__ = ["State", "find_weights", "read_weights", "verify_weights"]

_GLOBAL = re.compile(r"GLOBAL (\S+)")
_SHOWN = 5


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


def verify_weights(path: Path, expected: Weights) -> str:
    """Return the sha256 of a weights file, which has to be the one its card states.

    Raises
    ------
    WeightsError
        If it is another one, or the card states none.
    """
    sha256 = hash_file(path)
    if not expected.checksum:
        raise WeightsError(
            f"The card of {path.name} states no checksum; the file {path} has sha256 {sha256}.",
            cause="No checksum is known for the published file, so only you can say that this "
            "is the right one.",
            next_step=f"Copy the card's folder, write 'sha256: {sha256}' under weights, complete "
            "what card.md leaves to you, and give the copy's path.",
        )
    if not expected.matches(sha256):
        dots = "" if expected.sha256 else "..."
        raise WeightsError(
            f"The weights file {path} has sha256 {sha256}.",
            cause=f"The card expects {expected.checksum}{dots}: "
            "the file is another one, cut short or changed.",
            next_step=f"Get it again from {expected.source}.",
        )
    return sha256


def read_weights(path: Path, expected: Weights) -> tuple[State, str]:
    """Read a weights file after checking its checksum.

    ``.safetensors`` hold tensors only; ``.pth`` and ``.pt`` are read with ``weights_only=True``,
    which refuses a pickle that would run code. Of a training checkpoint the entry that the card
    names is taken, and names of tensors are brought to those of torchvision as the card says.

    Returns
    -------
    tuple
        Tensors by name, and the file's sha256.

    Raises
    ------
    WeightsError
    """
    sha256 = verify_weights(path, expected)
    state = _tensors(_content(path, expected), path, expected)
    if expected.prefix:
        state = _without_prefix(state, path, expected.prefix)
    if expected.key_map == "timm_vit":
        state = from_timm_vit(state)
    return state, sha256


def _content(path: Path, expected: Weights) -> Any:
    """Whatever plain containers and tensors the file holds."""
    if _is_program(path):
        raise WeightsError(
            f"The weights file {path} is a TorchScript archive.",
            cause="It holds a whole network, and the card names an architecture of torchvision.",
            next_step="Write a card of the family torchscript, or save model.state_dict() alone.",
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"The weights file {path} holds more than tensors, numbers and text, or is damaged.",
            cause=_why(error),
            next_step="Use a file of plain tensors (safetensors, or model.state_dict() alone).",
        ) from error
    except Exception as error:  # the readers raise many kinds on a damaged file
        raise WeightsError(
            f"The weights file {path} cannot be read.",
            cause=f"{type(error).__name__}: {error}",
            next_step=f"Get it again from {expected.source}.",
        ) from error


def _why(error: pickle.UnpicklingError) -> str:
    named = _GLOBAL.search(str(error))
    if named is None:
        return "Nothing but tensors, numbers and text is read from a pickle."
    return f"It names {named[1]}; making such an object would run code."


def _is_program(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def _tensors(content: Any, path: Path, expected: Weights) -> State:
    """Return the dictionary of tensors: the whole content, or one entry of a checkpoint."""
    key = expected.state_key
    entries = content if isinstance(content, dict) else {}
    if key is not None and key not in entries:
        raise WeightsError(
            f"The weights file {path} has no entry {key!r}.",
            cause=f"Its entries are {_some(list(map(str, entries))) or 'none'}.",
            next_step="Correct state_key in the card.",
        )
    state = content if key is None else entries[key]
    if _is_state(state):
        return dict(state)
    nested = [str(name) for name, value in entries.items() if _is_state(value)]
    advice = f"Write state_key: {nested[0]} in the card" if nested else "Save model.state_dict()"
    raise WeightsError(
        f"{'The weights file' if key is None else f'The entry {key!r} of'} {path} is not a "
        "dictionary of tensors.",
        cause=f"Dictionaries of tensors in it: {_some(nested) or 'none'}.",
        next_step=f"{advice}.",
    )


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in value.items())
    )


def _without_prefix(state: State, path: Path, prefix: str) -> State:
    chosen = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    if not chosen:
        raise WeightsError(
            f"No tensor of {path} has a name that begins with {prefix!r}.",
            cause=f"Names are {_some(list(state))}.",
            next_step="Correct prefix in the card.",
        )
    return chosen


def _some(names: list[str]) -> str:
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
