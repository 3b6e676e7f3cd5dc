"""Where pixels are: the local grids of chips, the grid of a scene, and the way between them.

Longitudes (and the eastings of cylindrical projections) are periodic: a point is moved by whole
turns into the range of the scene, so scenes in -180..180, 0..360 or across the antimeridian
are all reached. Nothing here reads a file.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import pyproj
from numpy.typing import NDArray

from eocausal.errors import CRSError

__all__ = [
    "POLAR_CRS",
    "WGS84",
    "ChipGrids",
    "SceneGrid",
    "local_crs",
    "parse_crs",
    "project",
    "same_crs",
    "x_period",
]

FloatArray = NDArray[np.float64]
Affine6 = tuple[float, float, float, float, float, float]

WGS84: Final = "EPSG:4326"
POLAR_CRS: Final = ("EPSG:5041", "EPSG:5042")
_CYLINDRICAL: Final = ("Mercator", "Cylindrical", "Pseudo Mercator")
_NOT_CYLINDRICAL: Final = ("Transverse", "Oblique", "Cassini")
_local = threading.local()


@lru_cache(maxsize=512)
def _known_crs(text: str) -> Any:
    return pyproj.CRS.from_user_input(text)


def parse_crs(value: Any) -> Any:
    """Turn anything that names a CRS into a ``pyproj.CRS``.

    Raises
    ------
    CRSError
        If PROJ does not know it.
    """
    try:
        return (
            _known_crs(str(value)) if isinstance(value, str) else pyproj.CRS.from_user_input(value)
        )
    except pyproj.exceptions.CRSError as error:
        raise CRSError(
            f"{value!r} is not a coordinate reference system.",
            cause=f"{error}.",
            next_step="Give an EPSG code such as 'EPSG:4326', or WKT.",
        ) from error


@lru_cache(maxsize=4096)
def same_crs(first: str, second: str) -> bool:
    """Whether two CRS are the same up to the order of their axes (we always use x, y)."""
    if first == second:
        return True
    return bool(parse_crs(first).equals(parse_crs(second), ignore_axis_order=True))


def project(source: str, target: str, x: Any, y: Any) -> tuple[FloatArray, FloatArray]:
    """Transform coordinates between two CRS, x (east) before y (north) in both.

    Points with no image in ``target`` come back as infinity. Where both CRS are the same the
    coordinates come back as they are, to the last bit.

    Raises
    ------
    CRSError
        If there is no way between them (a local drawing, another planet).
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if same_crs(source, target):
        return x, y
    cache: dict[tuple[str, str], Any] = _local.__dict__.setdefault("transformers", {})
    transformer = cache.get((source, target))
    if transformer is None:
        first, last = parse_crs(source), parse_crs(target)
        try:
            transformer = pyproj.Transformer.from_crs(first, last, always_xy=True)
        except pyproj.exceptions.ProjError as error:
            raise CRSError(
                f"Coordinates cannot be taken from the CRS {first.name} to {last.name}.",
                cause=f"{str(error).rstrip('.')}.",
                next_step="Give data with a CRS that is tied to the Earth.",
            ) from error
        cache[source, target] = transformer
    out_x, out_y = transformer.transform(x, y)
    return np.asarray(out_x, dtype=np.float64), np.asarray(out_y, dtype=np.float64)


def local_crs(lon: FloatArray, lat: FloatArray) -> list[str]:
    """Local metric CRS of each point: its UTM zone (WGS 84), or UPS beyond 84 N and 80 S.

    Parameters
    ----------
    lon, lat
        Degrees (EPSG:4326), shape (n,).
    """
    lon, lat = np.asarray(lon, dtype=np.float64), np.asarray(lat, dtype=np.float64)
    turned = (lon + 180.0) % 360.0 - 180.0
    zone = np.minimum(((turned + 180.0) // 6.0).astype(int), 59) + 1
    code = np.where(lat >= 0, 32600, 32700) + zone
    code = np.where(lat > 84.0, 5041, np.where(lat < -80.0, 5042, code))
    return [f"EPSG:{c}" for c in code]


@lru_cache(maxsize=512)
def x_period(crs: str) -> float | None:
    """Length of one turn around the Earth along x: 360 for degrees, None if x is not periodic.

    Cylindrical projections (Mercator, equal-area, equidistant) are periodic in x as longitudes
    are; their period is four times the easting of a quarter turn.
    """
    parsed = parse_crs(crs)
    if parsed.is_geographic:
        unit = parsed.axis_info[0]
        return 360.0 if unit.unit_name == "degree" else 2 * math.pi / unit.unit_conversion_factor
    operation = parsed.coordinate_operation
    method = operation.method_name if operation is not None else ""
    if not any(w in method for w in _CYLINDRICAL) or any(w in method for w in _NOT_CYLINDRICAL):
        return None
    starts = np.array([-180.0, -90.0, 0.0, 90.0])
    west, _ = project(WGS84, crs, starts + 0.25, np.zeros(4))
    east, _ = project(WGS84, crs, starts + 89.75, np.zeros(4))
    return float(np.median(east - west)) * 360.0 / 89.5


@dataclass(frozen=True, slots=True)
class ChipGrids:
    """The grids of many chips: square, north up, each in a CRS of its own.

    Parameters
    ----------
    names
        The CRS that occur, e.g. ``('EPSG:32636',)``.
    code
        Position in ``names`` of each chip's CRS, shape (n,).
    transform
        ``(a, b, c, d, e, f)`` of each chip, shape (n, 6): x = a*col + b*row + c,
        y = d*col + e*row + f, with columns and rows counted from the outer corner of the
        top-left pixel.
    size
        Pixels per side.
    """

    names: tuple[str, ...]
    code: NDArray[np.int32]
    transform: FloatArray
    size: int

    @classmethod
    def centred(
        cls, crs: Sequence[str], x: FloatArray, y: FloatArray, resolution: float, size: int
    ) -> ChipGrids:
        """Make grids whose centres are exactly ``(x, y)``."""
        names, code = np.unique(np.asarray(crs, dtype=str), return_inverse=True)
        transform = np.zeros((len(x), 6))
        half = 0.5 * size * resolution
        transform[:, 0], transform[:, 4] = resolution, -resolution
        transform[:, 2], transform[:, 5] = np.asarray(x) - half, np.asarray(y) + half
        return cls(tuple(str(n) for n in names), code.astype(np.int32), transform, size)

    def __len__(self) -> int:
        return len(self.code)

    def take(self, rows: NDArray[np.intp]) -> ChipGrids:
        """Choose some of the chips, in that order."""
        return ChipGrids(self.names, self.code[rows], self.transform[rows], self.size)

    def points(self, cols: FloatArray, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Coordinates of fractional columns and rows, the same for every chip.

        Returns
        -------
        x, y
            Shape (n, *cols.shape); column 0.5 is the centre of the first pixel.
        """
        t = self.transform.reshape(len(self), 6, *([1] * np.ndim(cols)))
        a, b, c, d, e, f = (t[:, k] for k in range(6))
        return a * cols + b * rows + c, d * cols + e * rows + f

    def project(self, x: FloatArray, y: FloatArray, target: str) -> tuple[FloatArray, FloatArray]:
        """Take coordinates of the chips, shape (n, ...), from their own CRS to another."""
        if len(self.names) == 1:
            return project(self.names[0], target, x, y)
        out_x, out_y = np.empty_like(x), np.empty_like(y)
        for k, name in enumerate(self.names):
            rows = np.flatnonzero(self.code == k)
            if rows.size:
                out_x[rows], out_y[rows] = project(name, target, x[rows], y[rows])
        return out_x, out_y


@dataclass(frozen=True, slots=True)
class SceneGrid:
    """The grid of a scene: any CRS, any affine transform (rotated and south-up too)."""

    crs: str
    transform: Affine6
    width: int
    height: int

    @property
    def period(self) -> float | None:
        """One turn along x in CRS units, or None."""
        return x_period(self.crs)

    @property
    def x_middle(self) -> float:
        """The x coordinate in the middle of the scene."""
        a, b, c = self.transform[:3]
        return a * self.width / 2 + b * self.height / 2 + c

    def pixels(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Fractional columns and rows of coordinates in the scene's CRS.

        0.5 is the centre of the first pixel; points that cannot be placed are NaN. A point is
        moved by whole turns to within half a turn of the middle of the scene. The two ends of a
        scene that goes around the Earth stay its ends: nothing is interpolated across them.
        """
        x = np.where(np.isfinite(x) & np.isfinite(y), x, np.nan)
        period = self.period
        if period is not None:
            x = x - period * np.floor((x - self.x_middle) / period + 0.5)
        a, b, c, d, e, f = self.transform
        det = a * e - b * d
        cols = (e * (x - c) - b * (y - f)) / det
        rows = (a * (y - f) - d * (x - c)) / det
        return cols, rows

    def contains(self, cols: FloatArray, rows: FloatArray) -> NDArray[np.bool_]:
        """Tell which points lie on the scene, to within a thousandth of a pixel."""
        slack = 1e-3
        in_rows = (rows >= -slack) & (rows < self.height + slack)
        return in_rows & (cols >= -slack) & (cols < self.width + slack)

    def shifts(self, chips: ChipGrids, tolerance: float) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Tell which chips' pixels are this scene's pixels to within ``tolerance`` of a pixel.

        Chips are moved by whole turns as in :meth:`pixels`; one that lies over the ends of a turn
        is not aligned.

        Returns
        -------
        shift
            Column and row of each chip's first pixel, shape (n, 2), whole numbers where aligned.
        aligned
            Shape (n,).
        """
        a, b, c, d, e, f = self.transform
        t, period = chips.transform, self.period
        left, seam = t[:, 2], np.zeros(len(chips), dtype=bool)
        if period is not None:
            wide = t[:, 0] * chips.size
            turns = np.floor((left + wide / 2 - self.x_middle) / period + 0.5)
            left = left - period * turns
            reach = np.abs(left + wide / 2 - self.x_middle) + wide / 2
            seam = reach > period / 2 + tolerance * abs(a)
        shift = np.column_stack([(left - c) / (a or 1.0), (t[:, 5] - f) / (e or 1.0)])
        same = np.array([same_crs(self.crs, n) for n in chips.names], dtype=bool)[chips.code]
        if tolerance <= 0 or b or d or a <= 0 or e >= 0:
            return shift, np.zeros(len(chips), dtype=bool)
        aligned = same & ~seam & (np.abs(t[:, 0] - a) * chips.size <= tolerance * a)
        aligned &= np.abs(t[:, 4] - e) * chips.size <= -tolerance * e
        aligned &= (np.abs(shift - np.round(shift)) < tolerance).all(axis=1)
        return np.round(shift), aligned
