"""Train a network for a purpose, always cross-fitted: propensity, outcome, both, or no label."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from eocausal.contracts import check_cube
from eocausal.encoders.base import image_spec
from eocausal.encoders.core import (
    Architecture,
    Backbone,
    FittedEncoder,
    Float32,
    ImageSpec,
    Progress,
    Scaling,
)
from eocausal.encoders.crossfit import (
    Parts,
    align,
    fold_of_neighborhoods,
    parts_of,
    rows_of_units,
)
from eocausal.encoders.dates import check_sequences
from eocausal.encoders.determinism import stream
from eocausal.encoders.devices import resolve_device
from eocausal.encoders.fitting import (
    Setting,
    Task,
    Trained,
    first_features,
    fit_network,
)
from eocausal.encoders.objectives import Labels, Objective, average_labels
from eocausal.encoders.schedule import TrainingSchedule
from eocausal.encoders.standardised import Standardised
from eocausal.encoders.trained import Scored, TrainedEncoder, weights_hash
from eocausal.encoders.trained_files import check_free, load_finished, save_trained
from eocausal.encoders.training_chips import ChipReader, Moments, encode_cells, moments, scaling_of
from eocausal.errors import DeviceError, EncoderError
from eocausal.provenance import hash_json

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from eocausal.folds import FoldRule

__all__ = ["TrainingSchedule", "train_encoder"]

Int64 = NDArray[np.int64]

_SAMPLE = 4
_REFERENCE_CHIPS = 1_000
_DEFAULT_SCHEDULE = TrainingSchedule()


def train_encoder(
    cube: xr.Dataset,
    architecture: Architecture,
    objective: Objective,
    units: pd.DataFrame | None = None,
    *,
    folds: FoldRule | None = None,
    out: Path | str | None = None,
    schedule: TrainingSchedule = _DEFAULT_SCHEDULE,
    device: str = "auto",
    seed: int = 0,
    memory: int = 2 << 30,
    readers: int = 2,
    progress: Progress | None = None,
) -> TrainedEncoder:
    """Train networks such that no neighborhood's features depend on its own fold's labels.

    ``folds`` deals the units, without looking at labels, and with them their neighborhoods. Network
    k is trained on the other folds except ``schedule.held_out`` of them, whose loss decides which
    epoch is kept; scaling is that of the chips trained on. All networks start from one set of
    weights. A unit whose label is missing is left out of the loss and is embedded like any other.
    An objective without labels (:class:`~eocausal.encoders.self_supervised.SimCLR`,
    :class:`~eocausal.encoders.self_supervised.BYOL`) trains one network on all chips that have a
    valid pixel; with ``folds`` it stops by the first ``held_out`` of them.

    Before the first step features are brought to one scale by mean and sd over chips, the same for
    all networks, since a rate that suits means of maps would never use their change per year.

    With several periods, a network of single images learns from each period of a neighborhood,
    with the weight shared among them. The images must show the places before treatment.

    Parameters
    ----------
    cube
        As :func:`eocausal.contracts.check_cube` says, in memory or on disk.
    architecture
        Which network, e.g. :class:`~eocausal.encoders.small_cnn.SmallCNN`.
    objective
        What for: :class:`~eocausal.encoders.objectives.Propensity`,
        :class:`~eocausal.encoders.objectives.Outcome`,
        :class:`~eocausal.encoders.dragonnet.Dragonnet`, or one without labels.
    units
        One row per unit: its ``neighborhood`` (column or index), the objective's columns and
        those of the folds. Several units may share a neighborhood.
    folds
        E.g. :class:`~eocausal.folds.SpatialBlocks` or :class:`~eocausal.folds.GroupFolds`.
    out
        Folder for the result; beside it, ``<out>.partial`` holds a checkpoint per network after
        each epoch, so that a run that was cut off goes on where it was, to the same result.
        Other data, labels or decisions start anew, network by network.
    schedule
        How long and how fast.
    device
        ``'auto'``, ``'cpu'``, ``'cuda[:i]'`` or ``'mps'``.
    seed
        Of folds, first weights, order, changes of chips.
    memory
        Bytes of pixels that may be kept; larger cubes are read again in each epoch.
    readers
        Threads that read ahead. Neither they nor ``memory`` change a result.
    progress
        Called with (epochs done, epochs in all) over all networks.

    Raises
    ------
    CubeError, EncoderError, AlignmentError, MissingColumnError
    DeviceError
        If the device is not there, mixed precision is asked of another than a CUDA GPU, or a
        single chip does not fit its memory.
    FoldError, OneClusterError
        If folds cannot be made, split a neighborhood, or leave nothing to train on.
    OneArmError, AssignmentError, OutcomeError
        If labels are of one arm, not binary, or do not vary in a part.
    """
    _check_decisions(architecture, objective, folds)
    spec = image_spec(check_cube(cube))
    architecture.check(spec)
    if architecture.sequence:
        check_sequences(cube, architecture.name)
    target = None if out is None else check_free(Path(out))
    _check_numbers(seed, readers)
    chosen = resolve_device(device)
    _check_precision(schedule, chosen)
    setting = Setting(
        reader=ChipReader(cube, sequence=architecture.sequence, memory=memory),
        objective=objective,
        schedule=schedule,
        device=chosen,
        seed=seed,
        readers=readers,
    )
    backbone = architecture.build(spec, seed=seed)
    labels, fold, parts = _divide(cube, units, folds, setting)
    known = moments(setting.reader, readers=readers)
    everywhere = scaling_of(known, np.arange(len(setting.reader)), spec.bands)
    blank = known.count == 0
    setting.reader.leave_out(blank)
    known = known.rows(np.flatnonzero(~blank))
    backbone = _standardised(backbone, setting, everywhere)
    first = _FirstState(architecture.name, weights_hash(backbone.module), spec)
    tasks = [_task(part, labels, fold, known, setting, first) for part in parts]
    key = hash_json([task.key for task in tasks])
    if target is not None:
        finished = load_finished(target, key, architecture, objective)
        if finished is not None:
            return finished
    folder = None if target is None else target.with_name(target.name + ".partial")
    fitted = _fit_all(tasks, setting, backbone, folder, progress)
    networks = _networks(fitted, tasks, setting, backbone, architecture, spec, everywhere)
    trained = TrainedEncoder(
        networks=networks,
        scored=tuple(Scored(f.network, f.head).eval() for f in fitted if objective.columns),
        neighborhoods=_table(cube, fold if objective.columns else np.zeros_like(fold)),
        history=_history(fitted),
        architecture=architecture,
        objective=objective,
        name=f"{architecture.name} trained for {objective.name}, seed={seed}",
    )
    if target is not None and folder is not None:
        save_trained(trained, target, key=key)
        for file in folder.glob("network_*.safetensors"):
            file.unlink()
        with suppress(OSError):  # something else lies there
            folder.rmdir()
    return trained


@dataclass(frozen=True, slots=True)
class _FirstState:
    """What is known of the network before training."""

    architecture: str
    weights_sha256: str
    spec: ImageSpec


def _check_decisions(architecture: Any, objective: Any, folds: Any) -> None:
    for what, given, fits, examples in (
        ("architecture", architecture, isinstance(architecture, Architecture), "SmallCNN()"),
        ("objective", objective, isinstance(objective, Objective), "Propensity() or SimCLR()"),
        ("folds", folds, folds is None or hasattr(folds, "assign"), "SpatialBlocks(km=100)"),
    ):
        if not fits or isinstance(given, type):
            raise EncoderError(
                f"{what} is {given!r}.",
                cause="It is a decision with all its settings, not a name, a number, a class or an "
                "encoder that has nothing to train.",
                next_step=f"Give {what}={examples}, for example.",
            )


def _check_numbers(seed: int, readers: int) -> None:
    if seed < 0 or readers < 1:
        raise EncoderError(
            f"seed={seed}, readers={readers}.",
            cause="A seed is not negative, and at least one thread reads.",
            next_step="Use seed=0, readers=2.",
        )


def _check_precision(schedule: TrainingSchedule, device: torch.device) -> None:
    if schedule.mixed_precision and device.type != "cuda":
        raise DeviceError(
            f"mixed_precision=True was asked for on {device}.",
            cause="Only CUDA GPUs are trusted with bfloat16: a CPU may say that it has it and "
            "still stop the program at the first product of matrices.",
            next_step="Use mixed_precision=False, or device='cuda' where there is one.",
        )


def _divide(
    cube: xr.Dataset, units: pd.DataFrame | None, folds: FoldRule | None, setting: Setting
) -> tuple[Labels | None, Int64, tuple[Parts, ...]]:
    """Labels and folds by neighborhood, and what each network is trained on."""
    objective, held_out = setting.objective, setting.schedule.held_out
    neighborhoods = cube.indexes["neighborhood"]
    labelled = bool(objective.columns)
    if (labelled and (units is None or folds is None)) or (folds is not None and units is None):
        raise EncoderError(
            f"{objective.name} was given units={'None' if units is None else 'a table'}, "
            f"folds={folds!r}.",
            cause="Labels come from a table of units, and networks that learn from labels are "
            "always cross-fitted: without folds a place's features would know its treatment.",
            next_step="Give units and folds, e.g. SpatialBlocks(km=100), or train without labels: "
            "SimCLR().",
        )
    if units is None or folds is None:
        return None, np.full(len(neighborhoods), -1), (Parts(0, (), ()),)
    row = rows_of_units(units, neighborhoods)
    fold = fold_of_neighborhoods(units, row, neighborhoods, folds, seed=setting.seed)
    if not labelled:
        parts_of(folds.k, held_out)
        return None, fold, (Parts(0, (), tuple(range(held_out))),)
    labels = average_labels(objective.quantities(units), row, len(neighborhoods))
    return labels, fold, parts_of(folds.k, held_out)


def _task(
    part: Parts,
    labels: Labels | None,
    fold: Int64,
    known: Moments,
    setting: Setting,
    first: _FirstState,
) -> Task:
    """Say which cells a network is trained on, and refuse labels that teach nothing."""
    reader, objective = setting.reader, setting.objective
    of_cell = fold[reader.row]
    held_out = np.isin(of_cell, part.held_out)
    by_cell = None
    if labels is None:
        training = ~held_out
    else:
        by_cell = labels.rows(reader.row)
        by_cell = Labels(by_cell.mean, by_cell.weight / reader.cells_of_row[reader.row][:, None])
        training = np.isin(of_cell, part.training) & by_cell.known()
        held_out &= by_cell.known()
        where = f"of the folds that network {part.network} "
        objective.check(by_cell.rows(np.flatnonzero(training)), where + "is trained on")
        if part.held_out:
            objective.check(by_cell.rows(np.flatnonzero(held_out)), where + "stops by")
    cells = np.flatnonzero(training), np.flatnonzero(held_out)
    if objective.views is not None and len(cells[0]) < 2:
        raise EncoderError(
            f"{objective.name} is given {len(cells[0])} chip to train on.",
            cause="It tells chips from each other.",
            next_step="Use a cube of more places, or hold out fewer folds.",
        )
    return Task(
        number=part.network,
        training=cells[0],
        held_out=cells[1],
        labels=by_cell,
        scaling=scaling_of(known, cells[0], first.spec.bands),
        key=_key(cells, by_cell, known, part.network, setting, first),
    )


def _key(
    cells: tuple[Int64, Int64],
    labels: Labels | None,
    known: Moments,
    number: int,
    setting: Setting,
    first: _FirstState,
) -> str:
    """Hash all that determines a network."""
    digest = hashlib.sha256()
    reader = setting.reader
    for part in cells:
        arrays = [reader.row[part], reader.period[part], known.count[part], known.mean[part]]
        arrays += [known.squares[part], known.pixels[part]]
        if reader.years is not None:
            arrays += [reader.years[reader.row[part]]]
        if labels is not None:
            arrays += [labels.mean[part], labels.weight[part]]
        for array in arrays:
            digest.update(f"{array.shape};".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    decisions = {
        "network": number, "data": digest.hexdigest(), "first": first,
        "objective": setting.objective.name, "schedule": repr(setting.schedule),
        "seed": setting.seed, "device": setting.device.type, "torch": torch.__version__,
    }  # fmt: skip
    return hash_json(decisions)


def _sample(setting: Setting) -> Int64:
    """Draw the cells from which what all networks share is taken; no label matters."""
    count = min(len(setting.reader), _REFERENCE_CHIPS)
    rng = stream(setting.seed, _SAMPLE)
    return np.sort(rng.choice(len(setting.reader), count, replace=False))


def _standardised(backbone: Backbone, setting: Setting, scaling: Scaling) -> Backbone:
    network = Standardised(backbone.module, backbone.n_features)
    network.take(
        first_features(
            setting, backbone.module, _sample(setting), scaling, n_features=backbone.n_features
        )
    )
    return replace(backbone, module=network)


def _fit_all(
    tasks: Sequence[Task],
    setting: Setting,
    backbone: Backbone,
    folder: Path | None,
    progress: Progress | None,
) -> list[Trained]:
    done = dict.fromkeys((task.number for task in tasks), 0)

    def tell(network: int, epoch: int) -> None:
        done[network] = epoch
        if progress is not None:
            progress(sum(done.values()), len(tasks) * setting.schedule.epochs)

    return [
        fit_network(
            setting,
            task,
            backbone.module,
            n_features=backbone.n_features,
            checkpoint=folder and folder / f"network_{task.number}.safetensors",
            tell=tell,
        )
        for task in tasks
    ]


def _networks(
    fitted: Sequence[Trained],
    tasks: Sequence[Task],
    setting: Setting,
    backbone: Backbone,
    architecture: Architecture,
    spec: ImageSpec,
    everywhere: Scaling,
) -> tuple[FittedEncoder, ...]:
    """Make fitted encoders of one coordinate system; a single network keeps its own."""

    def encoder(
        network: torch.nn.Module, scaling: Scaling, name: str, scores: int = 0
    ) -> FittedEncoder:
        return FittedEncoder(
            name=name,
            spec=spec,
            scaling=scaling,
            network=network.eval().requires_grad_(False),
            n_features=scores + backbone.n_features,
            weights_sha256=weights_hash(network),
            minimum_pixels=backbone.minimum_pixels,
            sequence=architecture.sequence,
        )

    names = [
        f"{architecture.name} trained for {setting.objective.name}, network {task.number + 1} "
        f"of {len(tasks)}, seed={setting.seed}"
        for task in tasks
    ]
    own = [
        encoder(f.network, task.scaling, name)
        for f, task, name in zip(fitted, tasks, names, strict=True)
    ]
    if len(own) == 1:
        return tuple(own)
    sample = _sample(setting)

    def features(encoder: FittedEncoder) -> Float32:
        return encode_cells(
            encoder, setting.reader, sample, device=setting.device,
            batch_size=setting.schedule.batch_size, readers=setting.readers,
        )  # fmt: skip

    reference = features(encoder(backbone.module, everywhere, "reference"))
    networks = []
    for f, o, task in zip(fitted, own, tasks, strict=True):
        aligned = align(f.network, f.head, features(o), reference, task.number)
        networks.append(encoder(aligned, task.scaling, o.name, len(f.head.outputs)))
    return tuple(networks)


def _table(cube: xr.Dataset, fold: Int64) -> pd.DataFrame:
    import pandas as pd

    places = {
        name: cube[name].to_numpy().astype(float) if name in cube.coords else np.nan
        for name in ("lon", "lat")
    }
    index = cube.indexes["neighborhood"].rename("neighborhood")
    return pd.DataFrame({"fold": fold, **places}, index=index)


def _history(fitted: Sequence[Trained]) -> pd.DataFrame:
    import pandas as pd

    rows = [{**asdict(row), "kept": row.epoch == f.kept} for f in fitted for row in f.rows]
    return pd.DataFrame(rows).astype({"training": float, "held_out": float})
