"""Changes to a chip that leave its meaning: what training may show a network in place of a chip.

Each is a frozen decision, called with standardised values ``(n, [period,] band, y, x)``, their mask
``(n, [period,] y, x)`` and a generator. Hidden pixels become invalid and 0, as pixels are that were
never seen. Draws are numpy's, so that they do not depend on the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from eocausal.errors import EncoderError

__all__ = ["Augmentation", "BandJitter", "Crop", "FlipsAndTurns", "HiddenSquares", "augment"]

Chips = tuple[torch.Tensor, torch.Tensor]


class Augmentation(Protocol):
    """A rule by which chips are changed at random."""

    def __call__(
        self, values: torch.Tensor, valid: torch.Tensor, rng: np.random.Generator
    ) -> Chips:
        """Return changed values and mask; the arguments stay as they are."""


def augment(
    rules: tuple[Augmentation, ...],
    values: torch.Tensor,
    valid: torch.Tensor,
    rng: np.random.Generator,
) -> Chips:
    """Apply rules one after another."""
    for rule in rules:
        values, valid = rule(values, valid, rng)
    return values, valid


def _share(name: str, value: float, *, low: float = 0.0) -> None:
    if not low <= value <= 1:
        raise EncoderError(
            f"{name} is {value}.",
            cause=f"It is a share between {low:g} and 1.",
            next_step=f"Use {name}={max(low, 0.25):g}.",
        )


@dataclass(frozen=True, slots=True)
class FlipsAndTurns:
    """One of the eight symmetries of the square for each chip, all its periods alike.

    What lies on the ground has no preferred direction; shadows do, and a place seen from
    above keeps its meaning where they fall elsewhere. Chips that are not square are not transposed.
    """

    def __call__(
        self, values: torch.Tensor, valid: torch.Tensor, rng: np.random.Generator
    ) -> Chips:
        """Flip and turn each chip."""
        square = valid.shape[-1] == valid.shape[-2]
        codes = rng.integers(8 if square else 4, size=len(values))
        turned, mask = torch.empty_like(values), torch.empty_like(valid)
        for code in np.unique(codes):
            chosen = torch.from_numpy(np.flatnonzero(codes == code)).to(values.device)
            axes = [axis for axis, bit in ((-1, 1), (-2, 2)) if code & bit]
            for source, target in ((values, turned), (valid, mask)):
                part = source[chosen].flip(axes)
                target[chosen] = part.transpose(-1, -2) if code & 4 else part
        return turned, mask


@dataclass(frozen=True, slots=True)
class Crop:
    """Only a window of each chip is seen; nothing is resized, so that pixels keep their size.

    Parameters
    ----------
    smallest
        Least side of the window as a share of the chip's.
    """

    smallest: float = 0.6

    def __post_init__(self) -> None:
        _share("smallest", self.smallest, low=0.1)

    def __call__(
        self, values: torch.Tensor, valid: torch.Tensor, rng: np.random.Generator
    ) -> Chips:
        """Hide all but a window of each chip."""
        inside = []
        for side in valid.shape[-2:]:
            length = np.rint(side * rng.uniform(self.smallest, 1.0, len(values)))
            first = np.floor(rng.random(len(values)) * (side - length + 1))
            places = np.arange(side)
            inside.append((places >= first[:, None]) & (places < (first + length)[:, None]))
        return _hide(values, valid, inside[0][:, :, None] & inside[1][:, None, :])


@dataclass(frozen=True, slots=True)
class HiddenSquares:
    """Squares at random are not seen, as under small clouds; drawn anew for each period.

    Parameters
    ----------
    share
        Area of the squares as a share of the chip's, at least one square; less is hidden where they
        overlap.
    side
        Side of a square in pixels.
    """

    share: float = 0.2
    side: int = 6

    def __post_init__(self) -> None:
        _share("share", self.share)
        if self.side < 1:
            raise EncoderError(
                f"side is {self.side}.",
                cause="A square has at least one pixel.",
                next_step="Use side=6.",
            )

    def __call__(
        self, values: torch.Tensor, valid: torch.Tensor, rng: np.random.Generator
    ) -> Chips:
        """Hide squares of each image."""
        height, width = valid.shape[-2:]
        count = max(1, round(self.share * height * width / self.side**2))
        images = valid.shape[:-2]
        hidden = np.zeros((*images, height, width), dtype=bool)
        for _ in range(count):
            row = rng.integers(1 - self.side, height, (*images, 1))
            column = rng.integers(1 - self.side, width, (*images, 1))
            rows = (np.arange(height) >= row) & (np.arange(height) < row + self.side)
            columns = (np.arange(width) >= column) & (np.arange(width) < column + self.side)
            hidden |= rows[..., :, None] & columns[..., None, :]
        return _hide(values, valid, ~hidden)


@dataclass(frozen=True, slots=True)
class BandJitter:
    """Each band of each chip is multiplied and shifted a little, all periods alike.

    As haze, sun and sensors do. Change between periods is what sequences show, and stays.

    Parameters
    ----------
    gain, offset
        Standard deviations of the factor about 1 and of the shift, in sd of the band.
    """

    gain: float = 0.1
    offset: float = 0.1

    def __call__(
        self, values: torch.Tensor, valid: torch.Tensor, rng: np.random.Generator
    ) -> Chips:
        """Multiply and shift each band."""
        shape = (len(values), *(1,) * (values.dim() - 4), values.shape[-3], 1, 1)
        gain, offset = (
            torch.from_numpy(sd * rng.standard_normal(shape, np.float32)).to(values.device)
            for sd in (np.float32(self.gain), np.float32(self.offset))
        )
        changed = values * (1.0 + gain) + offset
        return torch.where(valid.unsqueeze(-3), changed, 0.0), valid


def _hide(values: torch.Tensor, valid: torch.Tensor, seen: np.ndarray) -> Chips:
    """Keep ``seen`` pixels ``(n, [period,] y, x)``; a chip of which none would be left stays."""
    keep = torch.from_numpy(seen).to(valid.device)
    if keep.dim() < valid.dim():
        keep = keep[:, None]
    kept = valid & keep
    whole = ~kept.flatten(1).any(dim=1)
    kept = torch.where(whole.view(-1, *(1,) * (valid.dim() - 1)), valid, kept)
    return torch.where(kept.unsqueeze(-3), values, 0.0), kept
