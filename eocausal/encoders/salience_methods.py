"""How much each pixel matters to a number that a network computes from a chip.

All methods work on standardised values, so that bands of different units can be compared: a
gradient is per standard deviation of a band, and 0 is the band mean wherever the encoder's
scaling takes it from the data.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as functional

from eocausal.errors import EncoderError

__all__ = ["Gradient", "IntegratedGradients", "Level", "Method", "Occlusion", "Score"]

Score = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Level = float | tuple[float, ...]


@runtime_checkable
class Method(Protocol):
    """A decision how salience is computed."""

    def units(self, of: str) -> str:
        """Units of the maps of a target whose units are ``of``."""

    def apply(self, score: Score, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Map ``(n, [period,] band, y, x)`` to ``(n, [period,] y, x)``.

        ``score(values, valid)`` gives one number a chip, ``(n,)``; ``values`` are standardised
        and 0 where invalid. What is returned at invalid pixels has no meaning.
        """


def _derivative(score: Score, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Differentiate every chip's score by its own values; the shape of ``values``."""
    with torch.enable_grad():
        inputs = values.detach().requires_grad_(True)
        total = score(inputs, valid).sum()
        found = None
        if total.requires_grad:
            (found,) = torch.autograd.grad(total, inputs, allow_unused=True)
    if found is None:
        raise EncoderError(
            "The target has no derivative with respect to the pixels.",
            cause="Its network cuts the way back from its result to the values it was given.",
            next_step="Use Occlusion(), which needs no derivatives.",
        )
    return found


def _level(level: Level, values: torch.Tensor) -> torch.Tensor:
    """Shape a level per band, or one for all, so that it broadcasts over ``values``."""
    bands = values.shape[-3]
    if not isinstance(level, int | float) and len(level) != bands:
        raise EncoderError(
            f"{len(level)} levels were given for {bands} bands.",
            cause="A level is a number for all bands, or one number for each.",
            next_step="Give 0.0, the band mean, or a tuple with one number per band.",
        )
    return values.new_tensor(level).reshape(-1, 1, 1)


@dataclass(frozen=True, slots=True)
class Gradient:
    """Length of the derivative over bands, ``s(h, w) = ||d target / d M(h, w, .)||_2``.

    Never negative. Simonyan, Vedaldi & Zisserman (2014), arXiv 1312.6034; with the norm over
    bands as in Jerzak, Johansson & Daoud (2023), arXiv 2301.12985.

    Parameters
    ----------
    pool
        Side of the window, odd, over whose valid pixels the lengths are averaged; 3 as in the
        latter, 1 for none.
    """

    pool: int = 1

    def __post_init__(self) -> None:
        if self.pool < 1 or self.pool % 2 == 0:
            raise EncoderError(
                f"pool is {self.pool}.",
                cause="The window is centred on a pixel.",
                next_step="Use pool=3, or pool=1 for no averaging.",
            )

    def units(self, of: str) -> str:
        """Units of the target per standard deviation of a band."""
        return f"{of} per standard deviation"

    def apply(self, score: Score, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Return the lengths, ``(n, [period,] y, x)``."""
        lengths = torch.linalg.vector_norm(_derivative(score, values, valid), dim=-3)
        return lengths if self.pool == 1 else _pooled(lengths, valid, self.pool)


def _pooled(lengths: torch.Tensor, valid: torch.Tensor, side: int) -> torch.Tensor:
    """Average over the valid pixels of a window; 0 where it has none."""
    frames = lengths.where(valid, 0.0).flatten(0, -3)[:, None]
    weights = valid.flatten(0, -3)[:, None].to(lengths.dtype)
    total, weight = (
        functional.avg_pool2d(x, side, stride=1, padding=side // 2) for x in (frames, weights)
    )
    return (total / weight.clamp_min(1e-6)).reshape(lengths.shape)


@dataclass(frozen=True, slots=True)
class IntegratedGradients:
    """Each pixel's share of the difference between the chip's number and a plain chip's.

    ``sum over bands of (x - x0) * mean over a in (0, 1) of d target / d x at x0 + a (x - x0)``,
    by the midpoint rule. Signed. The pixels of a chip sum to ``target(x) - target(x0)``
    (completeness), the more exactly the more steps. Sundararajan, Taly & Yan (2017), ICML,
    arXiv 1703.01365, eq. 1.

    Parameters
    ----------
    steps
        Points of the path, each one pass forward and one back.
    baseline
        The plain chip ``x0``, with the same invalid pixels: standard deviations from the band
        mean, one number for all bands or one for each.
    """

    steps: int = 32
    baseline: Level = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise EncoderError(
                f"steps is {self.steps}.",
                cause="The path from the baseline to the chip has at least one point.",
                next_step="Use steps=32.",
            )

    def units(self, of: str) -> str:
        """Units of the target."""
        return of

    def apply(self, score: Score, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Return the shares, ``(n, [period,] y, x)``."""
        seen = valid.unsqueeze(-3)
        base = torch.where(seen, _level(self.baseline, values), 0.0)
        way = values - base
        total = torch.zeros_like(values)
        for step in range(self.steps):
            total += _derivative(score, base + way * ((step + 0.5) / self.steps), valid)
        return (way * total).sum(dim=-3) / self.steps


@dataclass(frozen=True, slots=True)
class Occlusion:
    """How far the number falls when a window around the pixel is hidden.

    A pixel gets the mean of ``target(chip) - target(chip without the window)`` over the windows
    that cover it. Signed. Windows of a sequence hide one period at a time. Needs no derivatives,
    but one pass forward for every window. Zeiler & Fergus (2014), ECCV, arXiv 1311.2901, sec. 4.2.

    Parameters
    ----------
    size
        Side of the window in pixels; the chip's side where that is smaller.
    stride
        Step between windows, at most ``size``; the last window ends at the border of the chip.
    fill
        None: hidden pixels are marked invalid, and 0 as every invalid pixel. Else they become
        ground of this level, in standard deviations from the band mean, one number for all
        bands or one for each, and stay valid.
    """

    size: int = 5
    stride: int = 2
    fill: Level | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.size:
            raise EncoderError(
                f"size is {self.size} and stride {self.stride}.",
                cause="Windows must cover every pixel.",
                next_step="Use a stride between 1 and the size, e.g. size=5, stride=2.",
            )

    def units(self, of: str) -> str:
        """Units of the target."""
        return of

    def apply(self, score: Score, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Return the falls, ``(n, [period,] y, x)``; NaN where no window gives a number."""
        with torch.no_grad():
            whole = score(values, valid)
            total = torch.zeros(valid.shape, dtype=values.dtype, device=values.device)
            count = torch.zeros_like(total)
            for where in self._windows(valid):
                fall = whole - score(*self._hidden(values, valid, where))
                known = fall.isfinite()
                # one chip's number fits all pixels of its window
                shape = (-1, *(1,) * (total[where].dim() - 1))
                total[where] += fall.where(known, 0.0).view(shape)
                count[where] += known.to(count.dtype).view(shape)
            return total / count

    def _windows(self, valid: torch.Tensor) -> Iterator[tuple[int | slice, ...]]:
        """Yield indices into ``(n, [period,] y, x)``, of periods in which anything is seen."""
        sides = [self._spans(length) for length in valid.shape[-2:]]
        if valid.dim() == 3:
            yield from ((slice(None), *window) for window in itertools.product(*sides))
            return
        for period in valid.any(dim=(0, 2, 3)).nonzero().flatten().tolist():
            yield from ((slice(None), period, *window) for window in itertools.product(*sides))

    def _spans(self, length: int) -> list[slice]:
        size = min(self.size, length)
        starts = sorted({*range(0, length - size, self.stride), length - size})
        return [slice(start, start + size) for start in starts]

    def _hidden(
        self, values: torch.Tensor, valid: torch.Tensor, where: tuple[int | slice, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        values = values.clone()
        in_bands = (*where[:-2], slice(None), *where[-2:])
        if self.fill is None:
            valid = valid.clone()
            valid[where] = False
            values[in_bands] = 0.0
        else:
            seen = valid[where].unsqueeze(-3)
            values[in_bands] = torch.where(seen, _level(self.fill, values), 0.0)
        return values, valid
