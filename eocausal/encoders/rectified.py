"""Rectified responses to a bank of filters, averaged over the places where a patch is whole.

A convolution over a whole batch writes every response to memory and reads it back for each
rectification; that, not the arithmetic, is what takes the time. Here patches are laid out as
columns (the first row of a matrix product's second factor is a pixel of every patch), and one
product fills a tile of responses that stays in the processor's cache until both its sums are
taken. A row of ones in the columns carries the threshold, so that a place that does not count is
a column of zeros, at no cost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch.utils.checkpoint import checkpoint

__all__ = [
    "RectifiedMeans",
    "Workspace",
    "average_pool",
    "patch_columns",
    "piece_shape",
    "strips",
    "tile_shape",
    "whole_patches",
]

# Filters and places of a tile. On a processor a tile and its scratch copy (1 MiB each) fit the
# second-level cache; on a GPU the numbers bound memory.
_CPU_TILE = (64, 4_096)
_GPU_TILE = (512, 1 << 18)


def tile_shape(values: torch.Tensor) -> tuple[int, int]:
    """Return how many filters and places a tile of responses has at most."""
    return _CPU_TILE if values.device.type == "cpu" else _GPU_TILE


def piece_shape(n: int, height: int, width: int, most: int) -> tuple[int, int]:
    """Return how many of n chips, and rows of their places, make no more than ``most`` places."""
    return min(max(1, most // (height * width)), n), max(1, min(height, most // width))


def average_pool(
    values: torch.Tensor, valid: torch.Tensor, scale: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Average blocks of ``scale`` by ``scale`` pixels over what is seen of them.

    A block counts as valid if at least half its pixels are. Rows and columns that do not fill a
    block are left out, evenly at both ends.

    Parameters
    ----------
    values
        ``(n, band, y, x)``, 0 where invalid.
    valid
        ``(n, y, x)`` bool.
    scale
        Side of a block in pixels.

    Returns
    -------
    tuple of torch.Tensor
        Means ``(n, band, y // scale, x // scale)``, 0 where invalid, and their mask.
    """
    if scale == 1:
        return values, valid
    height, width = (side // scale * scale for side in valid.shape[1:])
    top, left = (valid.shape[1] - height) // 2, (valid.shape[2] - width) // 2
    window = (..., slice(top, top + height), slice(left, left + width))
    values, valid = values[window], valid[window]
    if bool(valid.all()):
        return functional.avg_pool2d(values, scale), valid[:, ::scale, ::scale]
    weight = valid.to(values.dtype)[:, None]
    share = functional.avg_pool2d(weight, scale)
    enough = share >= 0.5
    means = functional.avg_pool2d(values * weight, scale) / share.clamp_min(0.5)
    return torch.where(enough, means, 0.0), enough[:, 0]


def whole_patches(valid: torch.Tensor, size: int, stride: int) -> torch.Tensor:
    """Mark the places where all pixels of a patch are valid; ``(n, y, x) -> (n, h, w)``."""
    if bool(valid.all()):
        return valid[:, : valid.shape[1] - size + 1 : stride, : valid.shape[2] - size + 1 : stride]
    gaps = (~valid).float()[:, None]
    rows = functional.max_pool2d(gaps, (size, 1), stride=(stride, 1))
    return functional.max_pool2d(rows, (1, size), stride=(1, stride))[:, 0] == 0


def patch_columns(
    values: torch.Tensor,
    places: torch.Tensor | None,
    size: int,
    stride: int,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Lay the patches of chips out as columns, with a last row of ones.

    Parameters
    ----------
    values
        ``(n, band, y, x)``.
    places
        ``(n, h, w)`` bool: columns of other places become 0. None if all count.
    size, stride
        Side of a patch, and step between places.
    out
        Flat buffer to fill, for use where no gradient is wanted.

    Returns
    -------
    torch.Tensor
        ``(band * size * size + 1, n, h * w)``; rows by band, row and column of the patch.
    """
    patches = values.transpose(0, 1).unfold(2, size, stride).unfold(3, size, stride)
    bands, *shape = patches.shape[:4]
    n_rows = bands * size * size + 1
    if out is None:
        out = values.new_empty(n_rows * math.prod(shape))
    columns = out[: n_rows * math.prod(shape)].view(n_rows, *shape)
    columns[:-1].view(bands, size, size, *shape).copy_(patches.permute(0, 4, 5, 1, 2, 3))
    columns[-1].fill_(1.0)
    if places is not None:
        columns = columns.mul_(places)
    return columns.flatten(2)


def tile_sums(filters: torch.Tensor, columns: torch.Tensor, bias: float) -> torch.Tensor:
    """Sum both rectifications of a tile's responses over places, differentiably.

    Parameters
    ----------
    filters
        ``(filter, k)``, the last column the offset less ``bias``.
    columns
        ``(k, n, place)``, as of :func:`patch_columns`.
    bias
        Threshold.

    Returns
    -------
    torch.Tensor
        ``(filter, n, 2)``: sums of ``max(r - bias, 0)`` and of ``max(-r - bias, 0)``.
    """
    excess = torch.mm(filters, columns.flatten(1)).view(len(filters), *columns.shape[1:])
    positive, negative = excess.clamp_min(0.0), (-excess - 2.0 * bias).clamp_min(0.0)
    return torch.stack([positive.sum(dim=2), negative.sum(dim=2)], dim=2)


def strips(
    values: torch.Tensor, places: torch.Tensor | None, size: int, stride: int, rows: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """Cut chips, and the places that count in them, into strips of ``rows`` rows of places."""
    height = (values.shape[2] - size) // stride + 1
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        strip = values[:, :, top * stride : (bottom - 1) * stride + size]
        yield strip, None if places is None else places[:, top:bottom]


class Workspace:
    """Buffers that serve all tiles of a forward pass; no gradient passes through them."""

    def __init__(self, like: torch.Tensor, rows: int, filters: int, places: int) -> None:
        self.columns = like.new_empty(rows * places)
        self._excess = like.new_empty(filters * places)
        self._rectified = like.new_empty(filters * places)

    def responses(self, filters: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Return ``(filter, n, place)`` responses; the next call overwrites them."""
        shape = (len(filters), *columns.shape[1:])
        responses = self._excess[: math.prod(shape)].view(shape)
        torch.mm(filters, columns.flatten(1), out=responses.flatten(1))
        return responses

    def tile_sums(self, filters: torch.Tensor, columns: torch.Tensor, bias: float) -> torch.Tensor:
        """As :func:`tile_sums` does."""
        excess = self.responses(filters, columns)
        rectified = self._rectified[: excess.numel()].view(excess.shape)
        positive = torch.clamp_min(excess, 0.0, out=rectified).sum(dim=2)
        negative = excess.add_(2.0 * bias).clamp_max_(0.0).sum(dim=2)
        return torch.stack([positive, -negative], dim=2)


@dataclass(frozen=True, slots=True)
class _Bank:
    """Filters as a matrix ``(filter, band * size * size + 1)``, and how they are applied."""

    filters: torch.Tensor
    size: int
    stride: int
    bias: float
    tile: int

    def sums(
        self,
        values: torch.Tensor,
        places: torch.Tensor | None,
        workspace: Workspace | None = None,
    ) -> torch.Tensor:
        """Sum both rectifications over the places of chips, tile by tile; ``(n, 2 * filter)``."""
        buffer = None if workspace is None else workspace.columns
        columns = patch_columns(values, places, self.size, self.stride, buffer)
        sums = tile_sums if workspace is None else workspace.tile_sums
        tiles = [sums(part, columns, self.bias) for part in torch.split(self.filters, self.tile)]
        return torch.cat(tiles).transpose(0, 1).flatten(1)

    def chip_sums(
        self,
        values: torch.Tensor,
        places: torch.Tensor | None,
        rows: int,
        workspace: Workspace | None,
    ) -> torch.Tensor:
        """Add up strips of ``rows`` rows of places; ``(n, 2 * filter)``."""
        total = values.new_zeros(len(values), 2 * len(self.filters))
        for strip, kept in strips(values, places, self.size, self.stride, rows):
            if workspace is None:
                part = checkpoint(self.sums, strip, kept, use_reentrant=False)
            else:
                part = self.sums(strip, kept, workspace)
            total = total + part
        return total


class RectifiedMeans(torch.nn.Module):
    """One bank of filters of one size.

    Feature pair ``k`` is the mean over places of ``max(r - bias, 0)`` and ``max(-r - bias, 0)``
    with ``r`` the response to filter ``k``; NaN where a chip has no place.

    Parameters
    ----------
    filters
        ``(filter, band, size, size)``.
    offsets
        ``(filter,)``, added to the response.
    bias
        Threshold of the response, >= 0.
    stride
        Step between places.
    """

    def __init__(
        self, filters: torch.Tensor, offsets: torch.Tensor, bias: float, stride: int
    ) -> None:
        super().__init__()
        self.bias = bias
        self.stride = stride
        self.filters = torch.nn.Parameter(filters.float(), requires_grad=False)
        self.thresholds = torch.nn.Parameter((offsets - bias).float(), requires_grad=False)

    def forward(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Average; ``(n, band, y, x), (n, y, x) -> (n, 2 * filter)``.

        Where a gradient with respect to ``values`` is wanted, responses are computed again in the
        backward pass rather than kept.
        """
        size, (tile, most) = self.filters.shape[-1], tile_shape(values)
        places = whole_patches(valid, size, self.stride)
        n_places = places.sum(dim=(1, 2))
        height, width = places.shape[1:]
        whole = bool((n_places == height * width).all())
        matrix = torch.cat([self.filters.flatten(1), self.thresholds[:, None]], dim=1)
        bank = _Bank(matrix, size, self.stride, self.bias, min(tile, len(matrix)))
        chips, rows = piece_shape(len(values), height, width, most)
        workspace = None
        if not (torch.is_grad_enabled() and values.requires_grad):
            workspace = Workspace(values, matrix.shape[1], bank.tile, chips * rows * width)
        sums = []
        for i in range(0, len(values), chips):
            kept = None if whole else places[i : i + chips]
            sums.append(bank.chip_sums(values[i : i + chips], kept, rows, workspace))
        return torch.cat(sums) / n_places[:, None]
