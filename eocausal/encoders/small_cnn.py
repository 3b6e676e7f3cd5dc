"""A small residual network for training on a few thousand chips.

Residual blocks with the normalisation inside the branch (He et al. 2016, "Identity mappings in deep
residual networks"), so that the amount of what is seen reaches the pooling unscaled. Group
normalisation (Wu & He 2018), because features of a chip must not depend on its batch. The mask
is an input channel, and places without a valid pixel have no part in the pooling.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional

from eocausal.encoders.core import Backbone, ImageSpec, check_size
from eocausal.encoders.initial_weights import draw_weights, untouched_seeds
from eocausal.errors import EncoderError

__all__ = ["SmallCNN", "masked_mean_max"]


@dataclass(frozen=True, slots=True)
class SmallCNN:
    """A residual CNN to be trained: mean and maximum of the last maps, ``2 * widths[-1]`` features.

    Parameters
    ----------
    widths
        Channels of each stage; a stage halves the side of the maps and is one residual block.
    groups
        Groups of the normalisation; divides every width.

    Raises
    ------
    EncoderError
        If there is no stage, or a width is not a multiple of ``groups``.
    """

    widths: tuple[int, ...] = (32, 64, 128, 128)
    groups: int = 8

    def __post_init__(self) -> None:
        widths = self.widths if isinstance(self.widths, tuple) else ()
        whole = all(type(number) is int and number >= 1 for number in (self.groups, *widths))
        if not widths or not whole or any(width % self.groups for width in widths):
            raise EncoderError(
                f"widths are {self.widths!r} and groups {self.groups!r}.",
                cause="Widths are a tuple of whole numbers, one for each stage; the channels of "
                "each fall into that many groups of the same size.",
                next_step="Use widths=(32, 64, 128, 128), groups=8.",
            )

    @property
    def name(self) -> str:
        """Id string."""
        return f"SmallCNN(widths={self.widths}, groups={self.groups})"

    @property
    def sequence(self) -> bool:
        """False: it reads one image."""
        return False

    @property
    def minimum_pixels(self) -> int:
        """Side of the chips that one place of the last maps stands for."""
        return 1 << len(self.widths)

    def check(self, spec: ImageSpec) -> None:
        """Refuse chips smaller than :attr:`minimum_pixels` (``EncoderError``)."""
        check_size(self.name, spec, self.minimum_pixels)

    def build(self, spec: ImageSpec, *, seed: int) -> Backbone:
        """Build the network; weights by He et al. 2015, the last layer of every branch at 0.

        Raises
        ------
        EncoderError
            If the chips are too small, or the seed is not a whole number, at least 0.
        """
        self.check(spec)
        network = untouched_seeds(lambda: _Network(len(spec.bands), self.widths, self.groups))
        draw_weights(network, seed)
        for block in network.blocks:
            torch.nn.init.zeros_(block.get_submodule("second").get_parameter("weight"))
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return Backbone(network, 2 * self.widths[-1], self.minimum_pixels)


class _Block(torch.nn.Module):
    """Norm, ReLU, 3x3 (halving); norm, ReLU, 3x3; plus the halved input."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1 = torch.nn.GroupNorm(groups, inputs)
        self.first = torch.nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.norm2 = torch.nn.GroupNorm(groups, outputs)
        self.second = torch.nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = (
            torch.nn.Identity()
            if inputs == outputs
            else torch.nn.Conv2d(inputs, outputs, 1, bias=False)
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """``(n, inputs, y, x) -> (n, outputs, ceil(y / 2), ceil(x / 2))``."""
        branch = self.first(functional.relu(self.norm1(maps)))
        branch = self.second(functional.relu(self.norm2(branch)))
        total: torch.Tensor = self.shortcut(_halve(maps)) + branch
        return total


class _Network(torch.nn.Module):
    def __init__(self, bands: int, widths: tuple[int, ...], groups: int) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(bands + 1, widths[0], 3, padding=1)
        inputs = (widths[0], *widths[:-1])
        self.blocks = torch.nn.ModuleList(
            _Block(i, o, groups) for i, o in zip(inputs, widths, strict=True)
        )

    def forward(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Encode ``(n, band, y, x)`` with its mask ``(n, y, x)``; ``(n, 2 * widths[-1])``."""
        weight = valid[:, None].to(values.dtype)
        maps = functional.relu(self.stem(torch.cat([values, weight], dim=1)))
        for block in self.blocks:
            maps, weight = block(maps), _halve(weight)
        return masked_mean_max(functional.relu(maps), weight)


def _halve(maps: torch.Tensor) -> torch.Tensor:
    """Mean over 3x3 places, every second one; the places of a halving 3x3 convolution."""
    return functional.avg_pool2d(maps, 3, stride=2, padding=1, count_include_pad=False)


def masked_mean_max(maps: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted mean and maximum over the places that were seen; 0 where none was.

    Parameters
    ----------
    maps
        ``(n, channel, y, x)``.
    weight
        ``(n, 1, y, x)``, 0 or more; a place of weight 0 was not seen.

    Returns
    -------
    torch.Tensor
        ``(n, 2 * channel)``: means, then maxima.
    """
    tiny = torch.finfo(maps.dtype).tiny
    mean = (maps * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3)).clamp_min(tiny)
    seen = weight > 0
    lowest = torch.finfo(maps.dtype).min
    highest = torch.where(seen, maps, lowest).amax(dim=(2, 3))
    return torch.cat([mean, torch.where(seen.any(dim=3).any(dim=2), highest, 0.0)], dim=1)
