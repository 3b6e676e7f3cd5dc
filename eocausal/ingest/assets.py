"""What a task must know of one asset, and how its pixels are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eocausal.ingest.grid import SceneGrid

__all__ = ["Asset", "Box", "Reader"]

Box = tuple[int, int, int, int]
"""Left, top, width and height of a window, in pixels."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One image file, or one time step of a gridded file.

    Parameters
    ----------
    name
        Where it is, without the folder that all assets share.
    href
        Path or URL.
    grid
        CRS, transform, width and height.
    bands
        Names of all bands in the file's order; for a gridded file, its variables.
    dtype
        Type of the stored pixels.
    nodata
        Stored value that means no data; NaN if there is none.
    scales, offsets
        For each band: value = stored * scale + offset.
    block
        Rows and columns of the pieces the file is stored in.
    step
        Position along the time axis of a gridded file, -1 if it has no such axis; None for an
        image file.
    """

    name: str
    href: str
    grid: SceneGrid
    bands: tuple[str, ...]
    dtype: str
    nodata: float
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    block: tuple[int, int]
    step: int | None = None


class Reader(Protocol):
    """An open asset. One thread uses it at a time."""

    def read(self, bands: Sequence[int], box: Box) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Read bands (positions in ``Asset.bands``) of a window that lies within the grid.

        Returns
        -------
        values
            Stored values, shape (band, height, width), in the asset's dtype.
        known
            Where the file's own mask says that a pixel is good, of the same shape; None if it
            has no mask. Nodata and NaN need not be in it.

        Raises
        ------
        OSError, rasterio.errors.RasterioError
            If the window cannot be read.
        """

    def close(self) -> None:
        """Give back the file."""
