"""How pixels are stored: as the scenes hold them where that loses nothing, else as float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from eocausal.ingest.assets import Asset
from eocausal.ingest.recipe import Recipe

__all__ = ["Packing", "choose_packing"]

_WIDER: Final = {"uint8": ("int16", -32768), "int8": ("int16", -32768)}


@dataclass(frozen=True, slots=True)
class Packing:
    """value = stored * scale + offset; ``fill`` stands for a missing pixel."""

    name: str
    fill: float
    scale: float = 1.0
    offset: float = 0.0

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored pixels."""
        return np.dtype(self.name)

    @property
    def whole(self) -> bool:
        """Whether whole numbers are stored."""
        return self.dtype.kind in "iu"

    def pack(self, values: NDArray[np.floating[Any]]) -> NDArray[Any]:
        """Turn values (NaN where missing) into what is stored."""
        if not self.whole:
            return values.astype(self.dtype, copy=False)
        if self.scale != 1.0 or self.offset != 0.0:
            values = (values.astype(np.float64) - self.offset) / self.scale
        missing = np.isnan(values)
        info = np.iinfo(self.dtype)
        stored = self.rounded(np.clip(np.where(missing, 0.0, values), info.min, info.max))
        stored[missing] = self.fill
        return stored

    def rounded(self, values: NDArray[np.floating[Any]]) -> NDArray[Any]:
        """Round to stored numbers other than ``fill``, which would mean a missing pixel.

        No valid pixel of a scene holds it, but a value between two may be nearest to it; then the
        next number on its other side is taken.
        """
        info = np.iinfo(self.dtype)
        stored: NDArray[Any] = np.rint(values).astype(self.dtype)
        hit = stored == self.fill
        if info.min < self.fill < info.max and hit.any():
            stored[hit] = self.fill + np.where(values[hit] < self.fill, -1, 1)
        return stored

    @property
    def attributes(self) -> dict[str, Any]:
        """Say it by the CF conventions (section 8.1), for any reader."""
        if not self.whole:
            return {}
        found: dict[str, Any] = {"_FillValue": int(self.fill)}
        if self.scale != 1.0 or self.offset != 0.0:
            found |= {"scale_factor": self.scale, "add_offset": self.offset}
        return found


FLOAT: Final = Packing("float32", float("nan"))


def choose_packing(
    assets: Sequence[Asset],
    asset: NDArray[np.int32],
    band: NDArray[np.int32],
    target: NDArray[np.int32],
    recipe: Recipe,
) -> Packing:
    """Keep the scenes' own numbers where all hold whole numbers of one type, scale and nodata.

    The arrays are those of :class:`~eocausal.ingest.spec.Layers`. Interpolated values and medians
    are rounded to the nearest stored number that is not nodata. Where a type has
    no number left to stand for a missing pixel it is made wider (bytes), or float32 is taken.
    """
    if recipe.indices or recipe.count_band is not None:
        return FLOAT
    data = np.unique(np.column_stack([asset, band])[target < len(recipe.inputs)], axis=0)
    kinds = {
        (assets[a].dtype, str(assets[a].nodata), assets[a].scales[b], assets[a].offsets[b])
        for a, b in data.tolist()
    }
    if len(kinds) > 1:
        return FLOAT
    name, _, scale, offset = kinds.pop()
    nodata = assets[int(data[0, 0])].nodata
    dtype = np.dtype(name)
    if dtype.kind not in "iu" or dtype.itemsize > 2:
        return FLOAT
    info = np.iinfo(dtype)
    if np.isfinite(nodata) and nodata == int(nodata) and info.min <= nodata <= info.max:
        return Packing(name, int(nodata), scale, offset)
    if name not in _WIDER:
        return FLOAT
    wider, fill = _WIDER[name]
    return Packing(wider, fill, scale, offset)
