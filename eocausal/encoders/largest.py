"""Largest responses to a bank of filters, over the places where a patch is whole.

Tiles of responses are made as in :mod:`eocausal.encoders.rectified`; of each, the largest and the
smallest value of a chip are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.checkpoint import checkpoint

from eocausal.encoders.rectified import (
    Workspace,
    patch_columns,
    piece_shape,
    strips,
    tile_shape,
    whole_patches,
)

__all__ = ["LargestResponses"]


@dataclass(frozen=True, slots=True)
class _Bank:
    """Filters as a matrix ``(filter, band * size * size + 1)``, and how they are applied."""

    filters: torch.Tensor
    size: int
    stride: int
    tile: int

    def extremes(
        self,
        values: torch.Tensor,
        places: torch.Tensor | None,
        workspace: Workspace | None = None,
    ) -> torch.Tensor:
        """Return the largest ``r`` and ``-r`` of chips; ``(n, 2 * filter)``, -inf without place."""
        buffer = None if workspace is None else workspace.columns
        columns = patch_columns(values, None, self.size, self.stride, buffer)
        gaps = None if places is None else ~places.flatten(1)
        found = []
        for part in torch.split(self.filters, self.tile):
            if workspace is None:
                response = torch.mm(part, columns.flatten(1)).view(len(part), *columns.shape[1:])
            else:
                response = workspace.responses(part, columns)
            found.append(_ends(response, gaps))
        return torch.cat(found).transpose(0, 1).flatten(1)


def _ends(response: torch.Tensor, gaps: torch.Tensor | None) -> torch.Tensor:
    """Return the ends of ``(filter, n, place)`` responses, ``(filter, n, 2)``."""
    if gaps is None:
        return torch.stack([response.amax(dim=2), -response.amin(dim=2)], dim=2)
    high = response.masked_fill(gaps, -torch.inf).amax(dim=2)
    low = response.masked_fill(gaps, torch.inf).amin(dim=2)
    return torch.stack([high, -low], dim=2)


class LargestResponses(torch.nn.Module):
    """One bank of filters of one size.

    Feature pair ``k`` is the largest ``r`` and the largest ``-r`` over places, with ``r`` the
    response to filter ``k``; NaN where a chip has no place.

    Parameters
    ----------
    filters
        ``(filter, band, size, size)``.
    offsets
        ``(filter,)``, added to the response.
    stride
        Step between places.
    """

    def __init__(self, filters: torch.Tensor, offsets: torch.Tensor, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.filters = torch.nn.Parameter(filters.float(), requires_grad=False)
        self.offsets = torch.nn.Parameter(offsets.float(), requires_grad=False)

    def forward(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Pool; ``(n, band, y, x), (n, y, x) -> (n, 2 * filter)``."""
        size, (tile, most) = self.filters.shape[-1], tile_shape(values)
        places = whole_patches(valid, size, self.stride)
        height, width = places.shape[1:]
        whole = bool(places.all())
        matrix = torch.cat([self.filters.flatten(1), self.offsets[:, None]], dim=1)
        bank = _Bank(matrix, size, self.stride, min(tile, len(matrix)))
        chips, rows = piece_shape(len(values), height, width, most)
        workspace = None
        if not (torch.is_grad_enabled() and values.requires_grad):
            workspace = Workspace(values, matrix.shape[1], bank.tile, chips * rows * width)
        found = []
        for i in range(0, len(values), chips):
            part, kept = values[i : i + chips], None if whole else places[i : i + chips]
            largest = values.new_full((len(part), 2 * len(matrix)), -torch.inf)
            for strip, here in strips(part, kept, size, self.stride, rows):
                if workspace is None:
                    ends = checkpoint(bank.extremes, strip, here, use_reentrant=False)
                else:
                    ends = bank.extremes(strip, here, workspace)
                largest = torch.maximum(largest, ends)
            found.append(largest)
        unseen = ~places.flatten(1).any(dim=1, keepdim=True)
        return torch.where(unseen, torch.nan, torch.cat(found))
