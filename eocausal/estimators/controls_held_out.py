"""How far block means are missed that were held out, with a control and without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eocausal.errors import EstimationError, OutcomeError
from eocausal.estimators.structural import fit_structural

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.structural_model import StructuralModel

    Float64 = NDArray[np.float64]

__all__ = ["block_error", "blocks", "held_out_errors"]

FEWEST_LEARNED = 24
DEFAULT_BLOCK = 12


def blocks(
    times: int, model: StructuralModel, block: int | None, held_out: float
) -> tuple[list[int], int]:
    """Return first times of the blocks, half their length apart, and their length."""
    if not 0 < held_out < 1 or (block is not None and block < 1):
        raise EstimationError(
            f"held_out={held_out}, block={block} hold nothing out.",
            cause="A share lies between 0 and 1, and a block has a length.",
            next_step="Use the defaults.",
        )
    longest = max((s.period * s.duration for s in model.seasons), default=DEFAULT_BLOCK)
    room = int(times * held_out)
    size = min(longest, room // 2) if block is None else block
    if size < 1 or room < size or times - room < FEWEST_LEARNED:
        raise OutcomeError(
            f"{times} times before the event leave {times - room} to learn from and {room} to hold "
            "out.",
            cause=f"{FEWEST_LEARNED} and one block are the least.",
            next_step="Give a longer record, or a shorter block.",
        )
    step = max(1, size // 2)
    return list(range(times - size, times - room - 1, -step))[::-1], size


def held_out_errors(
    y: Float64, x: Float64, tried: list[int], starts: list[int], size: int, model: StructuralModel
) -> tuple[Float64, Float64]:
    """Return errors of the blocks without a control, and (N, 4) the numbers of the table.

    A candidate with gaps is compared with no control at the same times. Blocks come first, as
    fits to the same times share most of their work.
    """
    whole = {j: bool(np.isfinite(x[:, j]).all()) for j in tried}
    alone = np.full(len(starts), np.nan)
    errors = np.full((2, len(tried), len(starts)), np.nan)
    for at, start in enumerate(starts):
        alone[at] = block_error(y, None, start, size, model)
        for k, j in enumerate(tried):
            errors[0, k, at] = block_error(y, x[:, [j]], start, size, model)
            seen = np.where(np.isfinite(x[:, j]), y, np.nan)
            errors[1, k, at] = (
                alone[at] if whole[j] else block_error(seen, None, start, size, model)
            )
    numbers = np.full((x.shape[1], 4), np.nan)
    for k, j in enumerate(tried):
        numbers[j] = _compared(errors[0, k], errors[1, k])
    return alone, numbers


def block_error(
    y: Float64, x: Float64 | None, start: int, size: int, model: StructuralModel
) -> float:
    """Return how far the mean of a block lies from what was predicted, NaN where it cannot be."""
    end = start + size
    before = np.arange(end) < start
    try:
        fit = fit_structural(y[None, :end], before, model, controls=None if x is None else x[:end])
    except EstimationError:
        return np.nan
    return float(fit.average(~before).estimate[0])


def _compared(error: Float64, base: Float64) -> tuple[float, float, int, int]:
    both = np.isfinite(error) & np.isfinite(base)
    if not both.any():
        return np.nan, np.nan, 0, 0
    mine, other = (float(np.sqrt(np.mean(e[both] ** 2))) for e in (error, base))
    better = int((np.abs(error[both]) < np.abs(base[both])).sum())
    return mine, mine / other if other > 0 else np.nan, better, int(both.sum())
