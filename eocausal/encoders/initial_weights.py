"""First weights of a network, drawn by a seed alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from eocausal.errors import EncoderError

__all__ = ["draw_weights", "generator_of", "untouched_seeds"]

_ZERO = (
    "bias",
    "bias_table",
    "class_token",
    "pos_embedding",
    "rel_pos_h",
    "rel_pos_w",
    "rel_pos_t",
)

Module = TypeVar("Module", bound=torch.nn.Module)


def generator_of(seed: int) -> np.random.Generator:
    """Return numpy's generator of a seed.

    Raises
    ------
    EncoderError
        If the seed is not a whole number, at least 0.
    """
    whole = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
    if not whole or seed < 0:
        raise EncoderError(
            f"The seed is {seed!r}.",
            cause="A seed is a whole number, at least 0.",
            next_step="Use e.g. seed=0.",
        )
    return np.random.default_rng(seed)


def untouched_seeds(make: Callable[[], Module]) -> Module:
    """Call a constructor that draws from torch's global generator, and put the generator back.

    The module is float32 whatever torch's default type of numbers.
    """
    with torch.random.fork_rng(devices=[]):
        return make().float()


def draw_weights(network: torch.nn.Module, seed: int) -> None:
    """Draw the weights of a network in place: He et al. 2015, eq. 10 (normal, variance 2 / fan-in).

    Drawn with numpy, so that they depend neither on the version of torch nor on global seeds.
    Biases, tokens and position tables become 0; the scales of normalisation layers stay at 1.

    Parameters
    ----------
    network
        Any module; its parameters are changed.
    seed
        Of the draw; parameters are drawn in the order of ``named_parameters``.

    Raises
    ------
    EncoderError
        If the seed is not a whole number, at least 0.
    """
    rng = generator_of(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(_ZERO):
                parameter.zero_()
            elif name.endswith("weight") and parameter.dim() >= 2:
                draw = rng.standard_normal(tuple(parameter.shape), np.float32)
                sd = np.float32(np.sqrt(2.0 / parameter[0].numel()))
                parameter.copy_(torch.from_numpy(draw * sd))
