"""Training of one network: steps, held-out losses, early stopping, restarts, checkpoints.

Every draw follows from (seed, network, purpose, epoch), so that neither the number of reading
threads nor an interruption changes a result.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from eocausal.encoders.augment import augment
from eocausal.encoders.checkpoints import (
    EpochRow,
    Progressed,
    Tensors,
    read_checkpoint,
    tensors_of,
    write_checkpoint,
)
from eocausal.encoders.core import Scaling
from eocausal.encoders.determinism import deterministic, seeded_modules, stream
from eocausal.encoders.devices import halved
from eocausal.encoders.objectives import Labels, Objective, Targets, TrainingHead
from eocausal.encoders.schedule import TrainingSchedule
from eocausal.encoders.training_chips import ChipReader, read_ahead, to_device
from eocausal.errors import EncoderError

__all__ = ["Setting", "Task", "Trained", "first_features", "fit_network"]

Int64 = NDArray[np.int64]
View = tuple[torch.Tensor, ...]
Result = TypeVar("Result")

_LOG = logging.getLogger(__name__)
_ORDER, _CHANGE, _HELD_OUT, _INSIDE = range(4)
_MOST_RESTARTS = 4


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """What all networks of a training share."""

    reader: ChipReader
    objective: Objective
    schedule: TrainingSchedule
    device: torch.device
    seed: int
    readers: int


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One network to be trained: on which cells, with which labels (by cell) and scaling.

    ``key`` is a hash of all that determines the result.
    """

    number: int
    training: Int64
    held_out: Int64
    labels: Labels | None
    scaling: Scaling
    key: str


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A network and its head with the weights of the epoch that is kept, on the CPU."""

    network: torch.nn.Module
    head: TrainingHead
    rows: tuple[EpochRow, ...]
    kept: int


class _DivergedError(Exception):
    """The loss or its gradient is not finite."""


class _Loop:
    """Network, head and optimiser on a device, and the size of the parts that fit its memory."""

    def __init__(
        self, setting: Setting, task: Task, network: torch.nn.Module, head: TrainingHead
    ) -> None:
        self.setting = setting
        self.task = task
        self.network = network.to(setting.device)
        self.head = head.to(setting.device)
        schedule = setting.schedule
        self.parameters = [
            p
            for module in (self.network, self.head)
            for p in module.parameters()
            if p.requires_grad
        ]
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay
        )
        self.part = schedule.batch_size
        self._scaling = task.scaling.tensors(setting.device)

    # State -------------------------------------------------------------------------------

    def state(self) -> Tensors:
        """Copy all that changes from step to step."""
        state = tensors_of("network", self.network.state_dict())
        state |= tensors_of("head", self.head.state_dict())
        for index, parameter in enumerate(self.parameters):
            known = self.optimiser.state.get(parameter, {})
            state |= tensors_of(f"optimiser/{index}", known)
        return state

    def restore(self, state: Tensors) -> None:
        """Take a state back, tensors in the layout of the parameters they belong to."""
        _load(self.network, state, "network")
        _load(self.head, state, "head")
        self.optimiser.state.clear()
        for index, parameter in enumerate(self.parameters):
            prefix = f"optimiser/{index}/"
            known = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            if known:
                self.optimiser.state[parameter] = {
                    name: torch.empty_like(parameter).copy_(value)
                    if value.shape == parameter.shape and name != "step"
                    else value.clone()
                    for name, value in known.items()
                }

    # Features ----------------------------------------------------------------------------

    def _views(self, inputs: View, rng: np.random.Generator, *, change: bool) -> list[View]:
        values, valid, *years = inputs
        rules = self.setting.objective.views
        if rules is None:
            rules = (self.setting.schedule.augmentation,) if change else ((),)
        return [(*augment(view, values, valid, rng), *years) for view in rules]

    def _run(self, network: torch.nn.Module, view: View) -> torch.Tensor:
        device = self.setting.device
        enabled = self.setting.schedule.mixed_precision
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled):
            features: torch.Tensor = network(*view)
        return features.float()

    def _parts(self, view: View) -> Iterator[View]:
        for start in range(0, len(view[0]), self.part):
            yield tuple(tensor[start : start + self.part] for tensor in view)

    def _without_gradient(self, network: torch.nn.Module, views: list[View]) -> torch.Tensor:
        def run() -> torch.Tensor:
            return torch.stack(
                [torch.cat([self._run(network, p) for p in self._parts(v)]) for v in views]
            )

        with torch.no_grad():
            return self._fit_memory(len(views[0][0]), run)

    def _anchors(self, views: list[View]) -> torch.Tensor | None:
        return self.head.anchors(lambda network: self._without_gradient(network, views))

    def _fit_memory(self, size: int, work: Callable[[], Result]) -> Result:
        """Do work on a batch of ``size``; halve the parts where the device has no memory."""
        while True:
            try:
                return work()
            except torch.OutOfMemoryError as error:
                remedy = "a smaller network, or smaller chips"
                size = min(self.part, size)
                self.part = halved(size, "chip", self.setting.device, error, remedy=remedy)

    # Steps -------------------------------------------------------------------------------

    def step(self, inputs: View, targets: Targets | None, rng: np.random.Generator) -> float:
        """Make one step; halve the parts where the device runs out of memory.

        Raises
        ------
        DeviceError
            If a single chip does not fit.
        """
        views = self._views(inputs, rng, change=True)
        seed = int(rng.integers(1, 2**62))
        loss = self._fit_memory(len(inputs[0]), lambda: self._gradient(views, targets, seed))
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.setting.schedule.clip)
        if not (np.isfinite(loss) and bool(torch.isfinite(norm))):
            raise _DivergedError
        self.optimiser.step()
        self.head.follow(self.network)
        return loss

    def _gradient(self, views: list[View], targets: Targets | None, seed: int) -> float:
        self.optimiser.zero_grad(set_to_none=True)
        with seeded_modules(seed - 1, self.setting.device):
            anchors = self._anchors(views)
        if self.part >= len(views[0][0]):
            with seeded_modules(seed, self.setting.device):
                features = torch.stack([self._run(self.network, view) for view in views])
            loss = self.head.loss(features, targets, anchors)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.item()
        return self._gradient_in_parts(views, targets, anchors, seed)

    def _gradient_in_parts(
        self, views: list[View], targets: Targets | None, anchors: torch.Tensor | None, seed: int
    ) -> float:
        """Take the gradient of the whole batch with a part of it in memory (Gao et al. 2021).

        Features first without gradient, the loss's gradient with respect to them, and then that
        gradient carried through the network part by part.
        """
        pieces = [(v, part) for v, view in enumerate(views) for part in self._parts(view)]
        found: list[list[torch.Tensor]] = [[] for _ in views]
        with torch.no_grad():
            for index, (v, part) in enumerate(pieces):
                with seeded_modules(seed + index, self.setting.device):
                    found[v].append(self._run(self.network, part))
        features = torch.stack([torch.cat(view) for view in found]).requires_grad_()
        loss = self.head.loss(features, targets, anchors)
        loss.backward()  # type: ignore[no-untyped-call]
        assert features.grad is not None
        wanted = [piece for view in features.grad for piece in view.split(self.part)]
        for index, ((_, part), gradient) in enumerate(zip(pieces, wanted, strict=True)):
            with seeded_modules(seed + index, self.setting.device):
                self._run(self.network, part).backward(gradient)  # type: ignore[no-untyped-call]
        return loss.item()

    # Epochs ------------------------------------------------------------------------------

    def epoch(self, number: int, slowdown: float) -> tuple[float, float]:
        """Make all steps of an epoch (1, 2, ...); mean loss, and the last rate."""
        setting, task = self.setting, self.task
        order = stream(setting.seed, task.number, _ORDER, number).permutation(task.training)
        batches = [np.sort(batch) for batch in self._batches(order)]
        count = len(batches)
        rng = stream(setting.seed, task.number, _CHANGE, number)
        self.network.train()
        self.head.train()
        total, rate = 0.0, 0.0
        first = (number - 1) * count
        for index, (cells, inputs, targets) in enumerate(self._read(batches)):
            rate = slowdown * setting.schedule.rate(first + index, setting.schedule.epochs * count)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            total += self.step(inputs, targets, rng) * len(cells)
        return total / len(order), rate

    def held_out(self) -> float | None:
        """Loss on the held-out cells; None if there are none."""
        cells = self.task.held_out
        if len(cells) == 0:
            return None
        self.network.eval()
        self.head.eval()
        labelled = self.task.labels is not None
        batches = self._batches(cells)
        rng = stream(self.setting.seed, self.task.number, _HELD_OUT)
        found, losses = [], []
        with torch.no_grad():
            for part, inputs, targets in self._read(batches):
                views = self._views(inputs, rng, change=False)
                features = self._without_gradient(self.network, views)
                if labelled:
                    found.append(features)
                    continue
                anchors = self._anchors(views)
                losses.append(self.head.loss(features, targets, anchors).item() * len(part))
            if not labelled:
                return float(sum(losses) / len(cells))
            return self.head.loss(torch.cat(found, dim=1), self._targets(cells), None).item()

    def _batches(self, cells: Int64) -> list[Int64]:
        """Split into batches of about the same size, none of a single chip if there are more."""
        count = -(-len(cells) // self.setting.schedule.batch_size)
        return np.array_split(cells, max(1, min(count, len(cells) // 2)))

    def first_features(self) -> torch.Tensor:
        """Features ``(cells, f)`` as the first step would see them, on the CPU."""
        self.network.train()
        found = [
            self._without_gradient(self.network, [inputs])[0].cpu()
            for _, inputs, _ in self._read(self._batches(self.task.training))
        ]
        return torch.cat(found)

    def _read(self, batches: Sequence[Int64]) -> Iterator[tuple[Int64, View, Targets | None]]:
        for cells, chips in read_ahead(self.setting.reader, batches, readers=self.setting.readers):
            inputs = to_device(chips, self._scaling, self.setting.device)
            yield cells, inputs, self._targets(cells)

    def _targets(self, cells: Int64) -> Targets | None:
        labels = self.task.labels
        return None if labels is None else labels.rows(cells).targets(self.setting.device)


def _load(module: torch.nn.Module, state: Tensors, prefix: str) -> None:
    prefix += "/"
    module.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    )


def first_features(
    setting: Setting,
    network: torch.nn.Module,
    cells: Int64,
    scaling: Scaling,
    *,
    n_features: int,
) -> torch.Tensor:
    """Encode some cells by a network in training, before its first step; ``(cells, f)``.

    Parameters
    ----------
    setting
        What all networks share.
    network
        With its first weights; it is copied.
    cells
        Which chips.
    scaling
        Of their bands.
    n_features
        Of the network.
    """
    task = Task(0, cells, cells[:0], None, scaling, "")
    head = setting.objective.head(n_features, seed=setting.seed)
    with deterministic(setting.device), seeded_modules(setting.seed, setting.device):
        return _Loop(setting, task, copy.deepcopy(network), head).first_features()


def fit_network(
    setting: Setting,
    task: Task,
    network: torch.nn.Module,
    *,
    n_features: int,
    checkpoint: Path | None,
    tell: Callable[[int, int], None],
) -> Trained:
    """Train a network, from its checkpoint if that has the task's key.

    Parameters
    ----------
    setting, task
        What is trained on what.
    network
        With its first weights; it is copied.
    n_features
        Of the network.
    checkpoint
        File that holds the state after each epoch, or None.
    tell
        Called with (network, epochs done).

    Raises
    ------
    EncoderError
        If the loss is not finite even at a sixteenth of the learning rate.
    DeviceError
        If a single chip does not fit the device.
    """
    schedule = setting.schedule
    network = copy.deepcopy(network)
    head = setting.objective.head(n_features, seed=setting.seed)
    labels = None if task.labels is None else task.labels.rows(task.training)
    head.begin(network, labels)
    with deterministic(setting.device):
        loop = _Loop(setting, task, network, head)
        known = None if checkpoint is None else read_checkpoint(checkpoint, task.key)
        if known is None:
            progressed, best = Progressed(), _kept(loop)
            progressed.best_loss = _first_loss(loop)
            row = EpochRow(task.number, 0, None, progressed.best_loss, 0.0)
            progressed.rows.append(row)
        else:
            progressed, tensors = known
            best = {k: v for k, v in tensors.items() if k.startswith("best/")}
            loop.restore({k: v for k, v in tensors.items() if k not in best})
        while not progressed.finished:
            best = _advance(loop, progressed, best)
            if checkpoint is not None:
                write_checkpoint(checkpoint, task.key, progressed, loop.state() | best)
            tell(task.number, schedule.epochs if progressed.finished else progressed.epoch)
    _load(network, best, "best/network")
    _load(head, best, "best/head")
    network, head = network.cpu().eval(), head.cpu().eval()
    return Trained(
        network.requires_grad_(False),
        head.requires_grad_(False),
        tuple(progressed.rows),
        progressed.best_epoch,
    )


def _first_loss(loop: _Loop) -> float | None:
    loss = loop.held_out()
    if loss is not None and not np.isfinite(loss):
        raise EncoderError(
            f"The held-out loss of network {loop.task.number} is {loss} before the first step.",
            cause="A chip, a label or a first weight has an extreme value.",
            next_step="Look at the cube's largest values and at the outcome, or train without "
            "mixed_precision.",
        )
    return loss


def _kept(loop: _Loop) -> Tensors:
    best = tensors_of("best/network", loop.network.state_dict())
    return best | tensors_of("best/head", loop.head.state_dict())


def _advance(loop: _Loop, progressed: Progressed, best: Tensors) -> Tensors:
    """Run one epoch and take note of it; return the weights to keep so far."""
    schedule, number = loop.setting.schedule, progressed.epoch + 1
    before = loop.state()
    while True:
        try:
            training, rate = loop.epoch(number, progressed.slowdown)
            held_out = _finite(loop.held_out())
            break
        except _DivergedError:
            _slow_down(loop, progressed, number)
            loop.restore(before)
    progressed.epoch = number
    progressed.rows.append(EpochRow(loop.task.number, number, training, held_out, rate))
    better = held_out is None or progressed.best_loss is None or held_out < progressed.best_loss
    if better:
        progressed.best_epoch, progressed.best_loss = number, held_out
        best = _kept(loop)
    waited = number - progressed.best_epoch
    progressed.finished = number >= schedule.epochs or waited >= schedule.patience
    return best


def _finite(loss: float | None) -> float | None:
    if loss is not None and not np.isfinite(loss):
        raise _DivergedError
    return loss


def _slow_down(loop: _Loop, progressed: Progressed, number: int) -> None:
    progressed.restarts += 1
    progressed.slowdown *= 0.5
    rate = progressed.slowdown * loop.setting.schedule.learning_rate
    if progressed.restarts > _MOST_RESTARTS:
        raise EncoderError(
            f"The loss of network {loop.task.number} is not finite in epoch {number}, even at "
            f"a learning rate of {2 * rate:.2g}.",
            cause="Either steps are still too large, or a chip or label has extreme values.",
            next_step="Lower learning_rate or clip, look at the cube's largest values, or train "
            "without mixed_precision.",
        )
    _LOG.warning(
        "The loss of network %d diverged in epoch %d: the epoch is done again at half the rate "
        "(highest %.2g).", loop.task.number, number, rate,
    )  # fmt: skip
