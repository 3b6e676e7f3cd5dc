"""Read chosen pixels of a scene, and tell which of them are clear."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eocausal.ingest.assets import Asset
from eocausal.ingest.coverage import Piece, pieces_of
from eocausal.ingest.grid import SceneGrid, project
from eocausal.ingest.masks import Mask
from eocausal.ingest.readers import open_reader, stored_nodata
from eocausal.ingest.remote import Sign
from eocausal.ingest.statistics import Layer
from eocausal.ingest.zonal_plan import ZonalLook

__all__ = ["clear_pixels", "read_pixels"]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


def read_pixels(
    asset: Asset,
    bands: Sequence[int],
    pieces: Sequence[Piece],
    count: int,
    sign: Sign | None = None,
) -> list[Layer]:
    """Read chosen pixels of some bands, in units.

    Parameters
    ----------
    asset, bands
        What to read; positions in the asset's bands.
    pieces
        The windows, from :func:`~eocausal.ingest.coverage.pieces_of`.
    count
        Number of pixels.
    sign
        Turns an href into one that can be read now.

    Raises
    ------
    OSError, rasterio.errors.RasterioError
        If a window cannot be read.
    """
    layers = [Layer(np.empty(count), np.empty(count, dtype=bool)) for _ in bands]
    reader = open_reader(asset, sign)
    try:
        for piece in pieces:
            stored, known = reader.read(bands, piece.box)
            nodata = stored_nodata(asset.nodata, stored.dtype)
            for k, layer in enumerate(layers):
                raw = stored[k].ravel().take(piece.local)
                good = raw != nodata
                if raw.dtype.kind == "f":
                    good &= np.isfinite(raw)
                if known is not None:
                    good &= known[k].ravel().take(piece.local)
                layer.values[piece.at] = raw
                layer.valid[piece.at] = good
    finally:
        reader.close()
    for band, layer in zip(bands, layers, strict=True):
        if asset.scales[band] != 1.0:
            layer.values[:] *= asset.scales[band]
        if asset.offsets[band] != 0.0:
            layer.values[:] += asset.offsets[band]
        layer.values[np.flatnonzero(~layer.valid)] = 0.0
    return layers


def clear_pixels(
    look: ZonalLook,
    masks: Sequence[Mask],
    grid: SceneGrid,
    pixels: NDArray[np.int64],
    sign: Sign | None = None,
) -> BoolArray:
    """Which pixels of a grid all masks say are clear."""
    clear = np.ones(len(pixels), dtype=bool)
    for mask, (_, asset, at) in zip(masks, look.masks, strict=True):
        there, on_it = _nearest(grid, pixels, asset.grid)
        found = np.zeros(len(pixels), dtype=bool)
        hits = np.zeros(len(there), dtype=bool)
        reader = open_reader(asset, sign)
        try:
            for piece in pieces_of(there, asset.grid, asset.block, margin=mask.reach):
                stored, known = reader.read([at], piece.box)
                good = mask.clear(stored[0])
                good &= stored[0] != stored_nodata(asset.nodata, stored.dtype)
                if known is not None:
                    good &= known[0]
                hits[piece.at] = good.ravel()[piece.local]
        finally:
            reader.close()
        found[on_it] = hits
        clear &= found
    return clear


def _nearest(
    grid: SceneGrid, pixels: NDArray[np.int64], other: SceneGrid
) -> tuple[NDArray[np.int64], BoolArray]:
    """Pixels of another grid that hold the centres of these; and which lie on it at all."""
    if grid == other:
        return pixels, np.ones(len(pixels), dtype=bool)
    rows, cols = np.divmod(pixels, grid.width)
    a, b, c, d, e, f = grid.transform
    x, y = a * (cols + 0.5) + b * (rows + 0.5) + c, d * (cols + 0.5) + e * (rows + 0.5) + f
    to_col, to_row = other.pixels(*project(grid.crs, other.crs, x, y))
    on_it = other.contains(to_col, to_row)
    col = np.clip(np.floor(to_col[on_it]), 0, other.width - 1).astype(np.int64)
    row = np.clip(np.floor(to_row[on_it]), 0, other.height - 1).astype(np.int64)
    return row * other.width + col, on_it
