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
        same step.
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
        float32. Faster on a GPU and on processors with bfloat16.
    clip
        Largest norm of the gradient; longer ones are scaled down to it.
    warm_up
        Share of the steps.
    """

    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    patience: int = 8
    held_out: int = 1
    augmentation: tuple[Augmentation, ...] = (FlipsAndTurns(),)
    mixed_precision: bool = False
    clip: float = 5.0
    warm_up: float = 0.05

    def __post_init__(self) -> None:
        whole = self.epochs >= 1 and self.batch_size >= 2 and self.patience >= 1
        real = self.learning_rate > 0 and self.weight_decay >= 0 and self.clip > 0
        if not (whole and real and self.held_out >= 0 and 0 <= self.warm_up < 1):
            raise EncoderError(
                f"{self!r}.",
                cause="epochs and patience are at least 1, batch_size at least 2, held_out at "
                "least 0; learning_rate and clip are above 0, weight_decay is not below; warm_up "
                "is a share below 1.",
                next_step="Start from TrainingSchedule() and change one value.",
            )

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step, 0..steps-1."""
        warm = math.ceil(self.warm_up * steps)
        if step < warm:
            return self.learning_rate * (step + 1) / (warm + 1)
        done = (step - warm) / max(steps - warm, 1)
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))
