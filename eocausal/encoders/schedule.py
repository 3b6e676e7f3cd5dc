"""How long and how fast a network is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

from eocausal.encoders.augment import Augmentation, FlipsAndTurns
from eocausal.errors import EncoderError

__all__ = ["TrainingSchedule"]


@dataclass(frozen=True, slots=True)
class TrainingSchedule:
    """Decisions of training; the optimiser is AdamW (Loshchilov & Hutter 2019).

    The rate rises linearly over the first ``warm_up`` share of the steps and falls to 0 as half a
    cosine over the rest of ``epochs``.

    Parameters
    ----------
    epochs
        Passes over the chips, at most.
    batch_size
        Chips a step. Where a GPU has no memory for so many they are taken in parts, with the
        same step; only batch normalisation, if the network has it, then sees parts.
    learning_rate, weight_decay
        Highest rate, and decay of the weights.
    patience
        Epochs without a lower held-out loss after which training stops; the weights of the best
        epoch are kept.
    held_out
        Whole folds kept from training to stop by. 0 trains all epochs and keeps the last; so does
        training without labels and without folds.
    augmentation
        How chips are changed where the objective does not say; ``()`` for not at all.
    mixed_precision
        Run the network in bfloat16 where torch's autocast does; weights, heads and losses stay
        float32. On CUDA GPUs only, elsewhere it is refused.
    clip
        Largest norm of the gradient; longer ones are scaled down to it.
    warm_up
        Share of the steps.
    """

    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    patience: int = 15
    held_out: int = 1
    augmentation: tuple[Augmentation, ...] = (FlipsAndTurns(),)
    mixed_precision: bool = False
    clip: float = 5.0
    warm_up: float = 0.05

    def __post_init__(self) -> None:
        numbers = (self.epochs, self.batch_size, self.patience, self.held_out)
        whole = all(isinstance(n, int) for n in numbers)
        enough = all(n >= least for n, least in zip(numbers, (1, 2, 1, 0), strict=True))
        real = 0 < self.learning_rate < math.inf and 0 <= self.weight_decay < math.inf
        if not (whole and enough and real and self.clip > 0 and 0 <= self.warm_up < 1):
            raise EncoderError(
                f"{self!r}.",
                cause="epochs and patience are at least 1, batch_size at least 2, held_out at "
                "least 0, all whole numbers; learning_rate and clip are above 0, weight_decay is "
                "not below, rate and decay are finite; warm_up is a share below 1.",
                next_step="Start from TrainingSchedule() and change one value.",
            )

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step, 0..steps-1."""
        warm = math.ceil(self.warm_up * steps)
        if step < warm:
            return self.learning_rate * (step + 1) / (warm + 1)
        done = (step - warm) / max(steps - warm, 1)
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))
