"""Which pixels of a scene are clear, from the quality band that came with it.

A mask looks at the stored values of one band on that band's own grid, before any resampling;
the answer is then taken to the chip by nearest neighbor. Missing mask pixels (fill, no data,
NaN) are never clear. They are not grown by ``dilate``: a gap is not a cloud, and growing the
gaps of a Landsat 7 scene would eat what lies between them.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from eocausal.contracts import some
from eocausal.errors import IngestError

__all__ = [
    "CloudProbability",
    "Mask",
    "NonZero",
    "QAPixel",
    "SceneClassification",
    "Values",
]

BoolArray = NDArray[np.bool_]

_QA_CONDITIONS: Final = {
    "fill": (0, 1, 1),
    "dilated_cloud": (1, 1, 1),
    "cirrus": (2, 1, 1),
    "cloud": (3, 1, 1),
    "cloud_shadow": (4, 1, 1),
    "snow": (5, 1, 1),
    "water": (7, 1, 1),
    "cloud_medium": (8, 3, 2),
}
"""Name → lowest bit, mask of the field, smallest value of the field that meets it."""

_SCL_CLASSES: Final = (
    "no_data", "saturated", "dark", "cloud_shadow", "vegetation", "bare", "water",
    "unclassified", "cloud_medium", "cloud_high", "cirrus", "snow",
)  # fmt: skip


class Mask(Protocol):
    """Says which pixels of a scene are clear: a frozen dataclass with these members."""

    @property
    def band(self) -> str:
        """Name of the band it looks at."""

    @property
    def reach(self) -> int:
        """Pixels beyond a window, on the band's own grid, that may change what is in it."""

    def clear(self, stored: NDArray[Any]) -> BoolArray:
        """Tell which pixels are clear from stored (unscaled) values of shape (h, w)."""


class _Dilated:
    """A mask that grows what it drops by ``dilate`` pixels."""

    __slots__ = ()
    dilate: int

    @property
    def reach(self) -> int:
        """Radius of the dilation."""
        return self.dilate


@dataclass(frozen=True, slots=True)
class QAPixel(_Dilated):
    """Bits of the Landsat Collection 2 ``QA_PIXEL`` band (uint16, Landsat 4 to 9).

    A band stored as int16 has the same bits; values that 16 bits cannot hold count as fill.

    Parameters
    ----------
    band
        Name of the band.
    drop
        Conditions that make a pixel unusable, of ``'fill'`` (bit 0; always dropped),
        ``'dilated_cloud'`` (1), ``'cirrus'`` (2; never set before Landsat 8), ``'cloud'``
        (3), ``'cloud_shadow'`` (4), ``'snow'`` (5), ``'water'`` (7), each as the product sets
        them (high confidence), and ``'cloud_medium'`` (bits 8-9: cloud confidence medium or
        high). The confidences of shadow, snow and cirrus know only low and high, so they say
        nothing that the bits do not.
    dilate
        Radius in pixels of the disc by which dropped pixels other than fill are grown.

    Raises
    ------
    IngestError
        If a name is unknown or ``dilate`` is not a whole number from 0.

    References
    ----------
    USGS, *Landsat 8-9 Collection 2 Level 2 Science Product Guide*, LSDS-1619, and *Landsat 4-7*,
    LSDS-1618, section on the pixel quality assessment band.
    """

    band: str = "qa_pixel"
    drop: tuple[str, ...] = ("fill", "dilated_cloud", "cirrus", "cloud", "cloud_shadow")
    dilate: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "drop", _names(self.drop, _QA_CONDITIONS, "QAPixel"))
        _check_dilate(self.dilate)

    def clear(self, stored: NDArray[Any]) -> BoolArray:
        """Tell which pixels meet none of the conditions; see :class:`Mask`."""
        if stored.dtype == np.int16:
            stored = stored.view(np.uint16)
        elif stored.dtype != np.uint16:
            stored = np.where((stored >= 0) & (stored < 2**16), stored, 1).astype(np.uint16)
        known, dropped = _qa_tables(self.drop)
        return _clear(known[stored], dropped[stored], self.dilate)


@dataclass(frozen=True, slots=True)
class SceneClassification(_Dilated):
    """Classes of the Sentinel-2 level 2A scene classification (``SCL``, 20 m).

    Parameters
    ----------
    band
        Name of the band.
    drop
        Classes that make a pixel unusable, of ``'no_data'`` (0; always dropped),
        ``'saturated'`` (1, or defective), ``'dark'`` (2, dark area or cast shadow of terrain),
        ``'cloud_shadow'`` (3), ``'vegetation'`` (4), ``'bare'`` (5), ``'water'`` (6),
        ``'unclassified'`` (7), ``'cloud_medium'`` (8, medium probability), ``'cloud_high'``
        (9), ``'cirrus'`` (10), ``'snow'`` (11). Values that are no class count as no data.
    dilate
        Radius in pixels of the disc by which dropped pixels other than no data are grown.

    Raises
    ------
    IngestError
        If a name is unknown or ``dilate`` is not a whole number from 0.

    References
    ----------
    ESA, *Sentinel-2 Level-2A Algorithm Theoretical Basis Document*, scene classification.
    """

    band: str = "scl"
    drop: tuple[str, ...] = (
        "no_data", "saturated", "cloud_shadow", "cloud_medium", "cloud_high", "cirrus",
    )  # fmt: skip
    dilate: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "drop", _names(self.drop, _SCL_CLASSES, "SceneClassification"))
        _check_dilate(self.dilate)

    def clear(self, stored: NDArray[Any]) -> BoolArray:
        """Tell which pixels are of a class that is kept; see :class:`Mask`."""
        known = (stored > 0) & (stored < len(_SCL_CLASSES))
        classes = np.where(known, stored, 0).astype(np.intp)
        table = np.array([name in self.drop for name in _SCL_CLASSES])
        return _clear(known, table[classes], self.dilate)


@dataclass(frozen=True, slots=True)
class CloudProbability(_Dilated):
    """Pixels whose cloud probability is below a limit are clear.

    Parameters
    ----------
    band
        Name of the band.
    below
        Limit in the units stored: percent for ``MSK_CLDPRB`` of Sentinel-2 and for s2cloudless
        as usually stored (0 to 100; default 40), or a share for probabilities from 0 to 1. No
        data, whether NaN, negative or above the limit (255), is not clear.
    dilate
        Radius in pixels of the disc by which cloudy pixels are grown.

    Raises
    ------
    IngestError
        If ``below`` is not a positive number or ``dilate`` not a whole number from 0.
    """

    band: str = "cloud_probability"
    below: float = 40.0
    dilate: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.below) and self.below > 0):
            raise IngestError(
                f"below is {self.below!r} in CloudProbability.",
                cause="No probability is below it, so no pixel would be clear.",
                next_step="Give a positive limit in the units stored, e.g. below=40 for percent.",
            )
        _check_dilate(self.dilate)

    def clear(self, stored: NDArray[Any]) -> BoolArray:
        """Tell which pixels are below the limit; see :class:`Mask`."""
        return _clear(np.isfinite(stored) & (stored >= 0), stored >= self.below, self.dilate)


@dataclass(frozen=True, slots=True)
class NonZero(_Dilated):
    """Pixels whose mask value is not zero are clear.

    Parameters
    ----------
    band
        Name of the band.
    dilate
        Radius in pixels of the disc by which zeros are grown.

    Raises
    ------
    IngestError
        If ``dilate`` is not a whole number from 0.
    """

    band: str
    dilate: int = 0

    def __post_init__(self) -> None:
        _check_dilate(self.dilate)

    def clear(self, stored: NDArray[Any]) -> BoolArray:
        """Tell which pixels are not zero; see :class:`Mask`."""
        return _clear(np.isfinite(stored), stored == 0, self.dilate)


@dataclass(frozen=True, slots=True)
class Values(_Dilated):
    """Pixels are clear by the value of a mask band: ``keep`` some, or ``drop`` some.

    Parameters
    ----------
    band
        Name of the band.
    keep
        Stored values that are clear; every other value is not.
    drop
        Stored values that are not clear; every other value is. Exactly one of ``keep`` and
        ``drop`` is given.
    dilate
        Radius in pixels of the disc by which pixels that are not clear are grown.

    Raises
    ------
    IngestError
        If both or neither of ``keep`` and ``drop`` are given, or ``dilate`` is not a whole number
        from 0.

    Examples
    --------
    >>> import numpy as np
    >>> Values("lulc", keep=(2, 5)).clear(np.array([[1, 2, 5]]))
    array([[False,  True,  True]])
    """

    band: str
    keep: tuple[float, ...] = ()
    drop: tuple[float, ...] = ()
    dilate: int = 0

    def __post_init__(self) -> None:
        for field in ("keep", "drop"):
            given = getattr(self, field)
            values = (given,) if isinstance(given, int | float) else tuple(given)
            object.__setattr__(self, field, values)
        if bool(self.keep) == bool(self.drop):
            raise IngestError(
                f"Values({self.band!r}) was given {'both' if self.keep else 'neither'} of keep "
                "and drop.",
                cause="Which pixels are clear is then not known.",
                next_step="Give either keep=(...) or drop=(...), with at least one value.",
            )
        _check_dilate(self.dilate)

    def clear(self, stored: NDArray[Any]) -> BoolArray:
        """Tell which pixels have a value that is kept; see :class:`Mask`."""
        listed = np.isin(stored, np.array(self.keep or self.drop))
        return _clear(np.isfinite(stored), ~listed if self.keep else listed, self.dilate)


def _names(given: Collection[str], valid: Collection[str], owner: str) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(given)
    for name in names:
        if name not in valid:
            close = get_close_matches(str(name), valid, n=1)
            raise IngestError(
                f"{owner} knows no {name!r}" + (f" (closest: {close[0]!r})." if close else "."),
                cause=f"It knows {some(valid, 20)}.",
                next_step="Correct the name in drop=(...).",
            )
    return names


def _check_dilate(dilate: int) -> None:
    if isinstance(dilate, bool) or not isinstance(dilate, int) or dilate < 0:
        raise IngestError(
            f"dilate is {dilate!r}.",
            cause="It is a number of pixels on the grid of the mask band.",
            next_step="Give a whole number from 0.",
        )


@lru_cache(maxsize=32)
def _qa_tables(drop: tuple[str, ...]) -> tuple[BoolArray, BoolArray]:
    """For each of the 65,536 values of QA_PIXEL: is it no fill, and is a condition met."""
    bits = np.arange(2**16)
    dropped = np.zeros(2**16, dtype=np.bool_)
    for name in drop:
        bit, field, least = _QA_CONDITIONS[name]
        dropped |= (bits >> bit) & field >= least
    return bits & 1 == 0, dropped


def _clear(known: BoolArray, dropped: BoolArray, dilate: int) -> BoolArray:
    """Say what is clear: known, and not within ``dilate`` of a known pixel that is dropped."""
    return known & ~_grow(known & dropped, dilate)


def _grow(hit: BoolArray, radius: int) -> BoolArray:
    """Grow what is hit by a disc: every pixel whose centre is within ``radius`` pixels of one.

    Runs over the widths that the disc's rows have, so that a pixel is visited about three times
    ``radius`` times and not once for every pixel of the disc.
    """
    if radius == 0 or not hit.any():
        return hit
    rows, cols = hit.shape
    grown = hit.copy()
    wide = hit.copy()
    width = 0
    for down in range(radius, -1, -1):
        while width < math.isqrt(radius * radius - down * down):
            width += 1
            wide[:, width:] |= hit[:, : max(cols - width, 0)]
            wide[:, : max(cols - width, 0)] |= hit[:, width:]
        grown[down:] |= wide[: max(rows - down, 0)]
        grown[: max(rows - down, 0)] |= wide[down:]
    return grown
