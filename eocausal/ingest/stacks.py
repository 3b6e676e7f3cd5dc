"""The source pixels under one chip, of all dates and bands of a grid, as one stack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eocausal.ingest.bundles import Bundle
from eocausal.ingest.sampling import Piece

__all__ = ["Window", "sample", "valid_pixels"]


@dataclass(slots=True)
class Window:
    """One piece of a chip and the source pixels under it."""

    chip: int
    piece: Piece
    raw: NDArray[Any]
    known: NDArray[np.bool_] | None = None

    def masked(self) -> NDArray[np.bool_]:
        """Where pixels are known, made if it is not there."""
        if self.known is None:
            self.known = np.ones(self.raw.shape, dtype=bool)
        return self.known


def valid_pixels(bundle: Bundle, window: Window) -> NDArray[np.bool_] | None:
    """Where source pixels are known and not nodata; None if all are."""
    raw, known = window.raw, window.known
    first = bundle.nodata[0]
    if bundle.alike:
        if first == first:
            good = raw != first
            known = good if known is None else known & good
    else:
        known = window.masked()
        for k, nodata in enumerate(bundle.nodata):
            if nodata == nodata:
                known[k] &= raw[k] != nodata
    if bundle.dtype.kind == "f":
        finite = np.isfinite(raw)
        known = finite if known is None else known & finite
    return None if known is None or known.all() else known


def sample(
    raw: NDArray[Any], valid: NDArray[np.bool_] | None, piece: Piece
) -> tuple[NDArray[np.floating[Any]], NDArray[np.bool_] | None]:
    """Take a stack (layer, h, w) to the chip's pixels by the piece's weights.

    Parameters
    ----------
    raw
        Stored values; those that are not valid are overwritten.
    valid
        Of the same shape; None if all are.
    piece
        Where the pixels are.

    Returns
    -------
    values
        Shape (pixel, layer): ``W @ (v x)`` over ``W @ v``.
    known
        Of that shape; None if all are.
    """
    weights = piece.weights
    assert weights is not None
    layers = raw.shape[0]
    holed = np.empty(0, dtype=np.intp)
    if valid is not None:
        holed = np.flatnonzero(~valid.reshape(layers, -1).all(axis=1))
        if raw.dtype.kind in "iu":
            np.multiply(raw, valid, out=raw)
        else:
            np.copyto(raw, 0, where=~valid)
    flat = np.ascontiguousarray(raw.reshape(layers, -1).T).astype(weights.dtype, copy=False)
    values = weights @ flat
    if valid is None or not holed.size:
        return values, None
    seen = np.ascontiguousarray(valid[holed].reshape(len(holed), -1).T)
    total = weights @ seen.astype(weights.dtype)
    found = seen[piece.centre] & (total > 1e-6)
    values[:, holed] /= np.where(found, total, 1.0)
    known = np.ones(values.shape, dtype=bool)
    known[:, holed] = found
    return values, known
