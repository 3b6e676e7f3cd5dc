"""Trained networks on disk: safetensors for numbers, JSON for the rest, nothing pickled."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from eocausal.encoders.core import Architecture, FittedEncoder, ImageSpec, Scaling
from eocausal.encoders.crossfit import Aligned
from eocausal.encoders.decisions import from_json, to_json
from eocausal.encoders.objectives import Objective
from eocausal.encoders.standardised import Standardised
from eocausal.encoders.trained import Scored, TrainedEncoder
from eocausal.errors import EncoderError, WeightsError
from eocausal.provenance import atomic_path, hash_file, write_json

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["check_free", "load_finished", "load_trained", "save_trained"]

_FORMAT = 1
_FILE = "trained.json"


def check_free(path: Path) -> Path:
    """Refuse to write over anything but trained networks (``EncoderError``)."""
    if path.exists() and not (path / _FILE).is_file():
        raise EncoderError(
            f"{path} exists and holds no trained networks.",
            cause="Writing there would delete it.",
            next_step="Give another out=..., or remove it yourself.",
        )
    return path


def save_trained(trained: TrainedEncoder, path: Path, *, key: str = "") -> None:
    """Write ``trained.json`` and a safetensors file per network; the folder appears whole.

    Parameters
    ----------
    trained
        What to write.
    path
        Folder; older trained networks there are replaced, anything else is refused.
    key
        Hash of what was trained on what, if it is known.
    """
    if any(not isinstance(n.network, Aligned) for n in trained.networks if trained.scored):
        raise EncoderError(
            f"{trained.name} cannot be written by itself.",
            cause="only_scores() is a view of networks that have more features.",
            next_step="Write the trained networks, and take only_scores() after reading.",
        )
    with atomic_path(check_free(path)) as temporary:
        temporary.mkdir()
        networks = []
        for k, encoder in enumerate(trained.networks):
            file = f"network_{k}.safetensors"
            tensors = {
                name: tensor.detach().contiguous().clone()
                for name, tensor in encoder.network.state_dict().items()
            }
            save_file(tensors, temporary / file)
            networks.append(
                {
                    "file": file, "file_sha256": hash_file(temporary / file), "name": encoder.name,
                    "weights_sha256": encoder.weights_sha256, "scaling": asdict(encoder.scaling),
                    "n_features": encoder.n_features, "minimum_pixels": encoder.minimum_pixels,
                }
            )  # fmt: skip
        places = trained.neighborhoods
        content = {
            "format": _FORMAT, "key": key, "name": trained.name, "networks": networks,
            "spec": asdict(trained.networks[0].spec),
            "architecture": _described(trained.architecture),
            "objective": _described(trained.objective),
            "neighborhoods": {
                "neighborhood": places.index.tolist(), **places.to_dict(orient="list")
            },
            "history": trained.history.to_dict(orient="list"),
        }  # fmt: skip
        write_json(temporary / _FILE, content)


def _described(decision: Architecture | Objective) -> dict[str, Any]:
    try:
        return {"name": decision.name, "decision": to_json(decision)}
    except TypeError:  # defined elsewhere: to be given again on reading
        return {"name": decision.name, "decision": None}


def load_trained(
    path: Path | str,
    *,
    architecture: Architecture | None = None,
    objective: Objective | None = None,
) -> TrainedEncoder:
    """Read what :meth:`TrainedEncoder.save` or ``train_encoder(..., out=...)`` wrote.

    Parameters
    ----------
    path
        The folder.
    architecture, objective
        Needed only where these decisions are not of eocausal; otherwise the file names them.

    Raises
    ------
    WeightsError
        If files are missing, damaged or changed, or the decisions are others.
    """
    path = Path(path)
    try:
        content = json.loads((path / _FILE).read_text(encoding="utf-8"))
        return _built(path, content, architecture, objective)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
        raise WeightsError(
            f"There are no trained networks of this version that can be read at {path}.",
            cause=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            next_step="Give the folder that train_encoder(..., out=...) or save wrote, with all "
            "its files.",
        ) from error


def load_finished(
    path: Path, key: str, architecture: Architecture, objective: Objective
) -> TrainedEncoder | None:
    """Read finished networks if they have this key."""
    try:
        content = json.loads((path / _FILE).read_text(encoding="utf-8"))
        known = content["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if known != key:
        return None
    try:
        return load_trained(path, architecture=architecture, objective=objective)
    except WeightsError:
        return None


def _decision(what: str, given: Any, described: dict[str, Any]) -> Any:
    if given is None and described["decision"] is None:
        raise WeightsError(
            f"The {what} {described['name']} is not part of eocausal.",
            cause="A file can only name decisions of this package.",
            next_step=f"Give it again: load_trained(path, {what}=...).",
        )
    found = from_json(described["decision"]) if given is None else given
    if found.name != described["name"]:
        raise WeightsError(
            f"The {what} is {found.name}; the networks were trained with {described['name']}.",
            cause="Their weights do not belong to it.",
            next_step=f"Leave {what} out, or give the one they were trained with.",
        )
    return found


def _built(
    path: Path,
    content: dict[str, Any],
    architecture: Architecture | None,
    objective: Objective | None,
) -> TrainedEncoder:
    import pandas as pd

    if content["format"] != _FORMAT:
        raise ValueError(f"format {content['format']!r}, not {_FORMAT}")
    architecture = _decision("architecture", architecture, content["architecture"])
    objective = _decision("objective", objective, content["objective"])
    spec = ImageSpec(**{**content["spec"], "bands": tuple(content["spec"]["bands"])})
    encoders, scored = [], []
    for entry in content["networks"]:
        tensors = _checked(path / Path(entry["file"]).name, entry["file_sha256"])
        encoder, score = _network(entry, tensors, architecture, objective, spec)
        encoders.append(encoder)
        scored += [score] if score is not None else []
    places: pd.DataFrame = pd.DataFrame(content["neighborhoods"]).set_index("neighborhood")
    history = pd.DataFrame(content["history"]).astype({"training": float, "held_out": float})
    return TrainedEncoder(
        networks=tuple(encoders),
        scored=tuple(scored),
        neighborhoods=places.astype({"fold": int, "lon": float, "lat": float}),
        history=history,
        architecture=architecture,
        objective=objective,
        name=content["name"],
    )


def _checked(file: Path, sha256: str) -> dict[str, torch.Tensor]:
    if hash_file(file) != sha256:
        raise ValueError(f"{file.name} is not the file that was written")
    return dict(load_file(file))


def _network(
    entry: dict[str, Any],
    tensors: dict[str, torch.Tensor],
    architecture: Architecture,
    objective: Objective,
    spec: ImageSpec,
) -> tuple[FittedEncoder, Scored | None]:
    """Build one network and its head, and fill in the weights."""
    backbone = architecture.build(spec, seed=0)
    scored, features = None, backbone.n_features
    network: torch.nn.Module = Standardised(backbone.module, features)
    if objective.columns:
        head = objective.head(features, seed=0)
        scored = Scored(network, head)
        network = Aligned(network, head, torch.zeros(features), torch.zeros(features, features))
    network.load_state_dict(tensors)
    encoder = FittedEncoder(
        name=entry["name"],
        spec=spec,
        scaling=Scaling(tuple(entry["scaling"]["mean"]), tuple(entry["scaling"]["sd"])),
        network=network.eval().requires_grad_(False),
        n_features=entry["n_features"],
        weights_sha256=entry["weights_sha256"],
        minimum_pixels=entry["minimum_pixels"],
        sequence=architecture.sequence,
    )
    return encoder, scored and scored.eval().requires_grad_(False)
