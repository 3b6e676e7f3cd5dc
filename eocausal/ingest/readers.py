"""Open assets: GeoTIFF and what else GDAL reads, and gridded files."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window

from eocausal.ingest.assets import Asset, Box, Reader
from eocausal.ingest.remote import RemoteImage, Sign, reason_of

__all__ = ["RasterReader", "ReaderPool", "open_reader"]

_MOST_OPEN: Final = 64
_BEFORE: Final = re.compile(r" at (?:row \d+, col \d+|scanline \d+)")
"""Where libtiff was before an error, which depends on what was read before."""


def open_reader(asset: Asset, sign: Sign | None = None) -> Reader:
    """Open an asset.

    Parameters
    ----------
    asset
        An image file (``step`` None) or one time step of a gridded file.
    sign
        Turns an href into one that can be read now.

    Raises
    ------
    OSError, rasterio.errors.RasterioError
        If it cannot be opened, or is not what it was when it was scanned.
    """
    if asset.step is None:
        return RasterReader(asset, sign)
    from eocausal.ingest.grids import open_grid

    reader: Reader = open_grid(asset)
    return reader


class RasterReader:
    """An image that rasterio opens, near or far."""

    def __init__(self, asset: Asset, sign: Sign | None = None) -> None:
        self._asset = asset
        self._image = RemoteImage(asset.href, sign=sign)
        try:
            self._masked, self._own = self._image.run(self._check)
        except BaseException:
            self._image.close()
            raise

    def _check(self, source: Any) -> tuple[bool, tuple[float, ...] | None]:
        """Whether the file has a mask band; the nodata of each band where they differ."""
        asset = self._asset
        if (source.width, source.height) != (asset.grid.width, asset.grid.height):
            raise ValueError("its size is not what it was when it was scanned")
        if source.count < len(asset.bands):
            raise ValueError("it has fewer bands than when it was scanned")
        own = tuple(math.nan if v is None else float(v) for v in source.nodatavals)
        first_is_ours = own[0] == asset.nodata or (math.isnan(own[0]) and math.isnan(asset.nodata))
        differ = first_is_ours and len({str(v) for v in own}) > 1
        masked = any(MaskFlags.per_dataset in flags for flags in source.mask_flag_enums)
        return masked, own if differ else None

    def read(
        self, bands: Sequence[int], box: Box, out: NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Read bands of a window; see :class:`~eocausal.ingest.assets.Reader`.

        ``out`` is memory to read into, of their shape and type.
        """
        indexes, window = [b + 1 for b in bands], Window(*box)
        values: NDArray[Any] = self._image.run(
            lambda s: s.read(indexes=indexes, window=window, out=out)
        )
        known: NDArray[np.bool_] | None = None
        if self._masked:
            found = self._image.run(lambda s: s.read_masks(indexes=indexes, window=window))
            known = found != 0
        if self._own is not None:
            nodata = [stored_nodata(self._own[b], values.dtype) for b in bands]
            ours = np.stack([v != n for v, n in zip(values, nodata, strict=True)])
            known = ours if known is None else known & ours
        return values, known

    def close(self) -> None:
        """Close the file."""
        self._image.close()


def stored_nodata(nodata: float, dtype: np.dtype[Any]) -> Any:
    """Return nodata as a pixel would hold it; NaN (equal to nothing) if none can."""
    if not math.isfinite(nodata):
        return math.nan
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        whole = nodata == int(nodata) and info.min <= nodata <= info.max
        return dtype.type(int(nodata)) if whole else math.nan
    with np.errstate(over="ignore"):
        return dtype.type(nodata)


class ReaderPool:
    """Open files of one thread: the last 64 stay open; one that cannot be opened is tried once."""

    def __init__(self, sign: Sign | None = None) -> None:
        self._sign = sign
        self._open: OrderedDict[int, Reader] = OrderedDict()
        self._broken: dict[int, str] = {}
        self.bytes_read = 0

    def read(
        self,
        number: int,
        asset: Asset,
        bands: Sequence[int],
        box: Box,
        *,
        out: NDArray[Any] | None = None,
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Read a window of an asset; its number tells it from others.

        Raises
        ------
        OSError
            With the reason in plain words.
        """
        try:
            reader = self._reader(number, asset)
            if isinstance(reader, RasterReader):
                values, known = reader.read(bands, box, out)
            else:
                values, known = reader.read(bands, box)
        except (RasterioError, OSError, ValueError) as error:
            raise OSError(_BEFORE.sub("", reason_of(error))) from error
        self.bytes_read += values.nbytes
        return values, known

    def _reader(self, number: int, asset: Asset) -> Reader:
        if number in self._broken:
            raise OSError(self._broken[number])
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        try:
            reader = open_reader(asset, self._sign)
        except (RasterioError, OSError, ValueError) as error:
            self._broken[number] = reason_of(error)
            raise
        self._open[number] = reader
        if len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)[1].close()
        return reader

    def close(self) -> None:
        """Close every file."""
        for reader in self._open.values():
            reader.close()
        self._open.clear()
