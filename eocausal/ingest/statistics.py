"""What to know of the pixels in a polygon: means, totals, quantiles, classes.

Statistics of sums (mean, total, class share) are sparse matrix products; those of order
(quantiles, extremes) take the pixels of all polygons sorted once. A pixel weighs the share of it
that the polygon covers times its area on the ground; totals and counts take the share alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from eocausal.errors import IngestError
from eocausal.ingest.coverage import Coverage

__all__ = [
    "ClassArea",
    "ClassShare",
    "Count",
    "Layer",
    "Max",
    "Mean",
    "Min",
    "Moment",
    "Quantile",
    "Statistic",
    "StdDev",
    "Sum",
    "Zone",
]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Classes = tuple[tuple[str, tuple[float, ...]], ...]
_FEW: Final = 0.25


@dataclass(frozen=True, slots=True)
class Moment:
    """A weighted sum over the valid pixels of each polygon.

    Parameters
    ----------
    power
        0 sums the weights, 1 the values, 2 the squares of values less :attr:`Zone.shift`.
    area
        Whether a pixel weighs its area on the ground as well as the share covered.
    classes
        Sum over pixels with one of these values instead (``power`` 0).
    """

    power: int = 0
    area: bool = True
    classes: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Layer:
    """Values of pixels, 0 where there is none, and where there is one; both of shape (p,)."""

    values: FloatArray
    valid: BoolArray


class Zone:
    """The pixels of one band at one time, and how much of each every polygon covers.

    Parameters
    ----------
    coverage
        What share of each pixel each polygon covers, and what a pixel weighs.
    layer
        The pixels.
    looks
        What ``layer`` was made from, for classes. By default itself.
    """

    def __init__(self, coverage: Coverage, layer: Layer, looks: Sequence[Layer] = ()) -> None:
        self._coverage = coverage
        self._even = len(coverage.area) == 1
        self._values, self._valid = layer.values, layer.valid
        self._looks = looks or (layer,)
        self._sums: dict[Moment, FloatArray] = {}
        self._sorted: tuple[FloatArray, FloatArray, NDArray[np.intp]] | None = None

    @cached_property
    def shift(self) -> float:
        """Mean of all valid pixels, near which squares are taken."""
        good = int(np.count_nonzero(self._valid))
        return float(self._values.sum() / good) if good else 0.0

    def sum(self, moment: Moment) -> FloatArray:
        """Weighted sum over each polygon, shape (n,)."""
        plain = replace(moment, area=False) if self._even else moment
        if plain not in self._sums:
            counts_pixels = plain.power == 0 and not plain.classes
            total = self._weight_of_valid(plain.area) if counts_pixels else None
            if total is None:
                total = np.asarray(self._coverage.fraction @ self._column(plain))
            self._sums[plain] = total
        if self._even and moment.area:
            return np.asarray(self._sums[plain] * self._coverage.area[0])
        return self._sums[plain]

    def _weight_of_valid(self, area: bool) -> FloatArray | None:
        """Take the pixels without a value from the whole, where they are few; else None."""
        bad = np.flatnonzero(~self._valid)
        if len(bad) > _FEW * len(self._valid):
            return None
        whole = self._coverage.inside if area else self._coverage.share
        if len(bad) == 0:
            return whole
        by_pixel = self._coverage.by_pixel
        lengths = by_pixel.indptr[bad + 1] - by_pixel.indptr[bad]
        before = np.cumsum(lengths) - lengths
        at = np.arange(lengths.sum()) + np.repeat(by_pixel.indptr[bad] - before, lengths)
        rows, weights = by_pixel.indices[at], by_pixel.data[at]
        if area:
            weights = weights * np.repeat(self._coverage.area[bad], lengths)
        left = whole - np.bincount(rows, weights, minlength=len(whole))
        if (left < 1e-6 * whole).any():
            count = np.bincount(rows, minlength=len(whole))
            left[count == np.diff(self._coverage.fraction.indptr)] = 0.0
        return np.maximum(left, 0.0)

    def _column(self, moment: Moment) -> FloatArray:
        column: FloatArray
        if moment.classes:
            column = self._share_of(moment.classes)
        elif moment.power == 0:
            column = self._valid.astype(np.float64)
        elif moment.power == 1:
            column = self._values
        else:
            column = np.where(self._valid, (self._values - self.shift) ** moment.power, 0.0)
        return np.asarray(column * self._coverage.area) if moment.area else column

    def _share_of(self, classes: tuple[float, ...]) -> FloatArray:
        """Share of a pixel's valid looks that have one of the values."""
        hits = np.zeros(len(self._values))
        count = np.zeros(len(self._values))
        for look in self._looks:
            hits += np.isin(look.values, classes) & look.valid
            count += look.valid
        return np.asarray(np.divide(hits, count, out=hits, where=count > 0))

    def entries(self) -> tuple[FloatArray, FloatArray, NDArray[np.intp]]:
        """Sort the valid pixels of each polygon by value.

        Returns
        -------
        values, weights
            Shape (m,), polygon after polygon.
        starts
            Where each polygon begins, shape (n + 1,).
        """
        if self._sorted is None:
            good = np.flatnonzero(self._valid)
            order = good[np.argsort(self._values[good], kind="stable")]
            by_pixel = self._coverage.by_pixel[:, order].tocsr()
            at = order[by_pixel.indices]
            starts = by_pixel.indptr.astype(np.intp)
            area = np.broadcast_to(self._coverage.area, len(self._values))
            self._sorted = self._values[at], by_pixel.data * area[at], starts
        return self._sorted


class Statistic(Protocol):
    """A frozen dataclass that turns a :class:`Zone` into numbers for each polygon."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its results."""

    def compute(self, zone: Zone) -> list[FloatArray]:
        """One array of shape (n,) for each name; NaN where nothing is valid."""


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    return np.asarray(np.divide(above, below, out=np.full(len(below), np.nan), where=below > 0))


def _known(values: FloatArray, zone: Zone) -> FloatArray:
    """NaN where no pixel of the polygon is valid."""
    return np.where(zone.sum(Moment(area=False)) > 0, values, np.nan)


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean of the values, weighted by the area covered."""

    names: tuple[str, ...] = field(default=("mean",), init=False)

    def compute(self, zone: Zone) -> list[FloatArray]:
        """See :class:`Statistic`."""
        return [_ratio(zone.sum(Moment(1)), zone.sum(Moment(0)))]


@dataclass(frozen=True, slots=True)
class Sum:
    """Total of the values, each times the share of its pixel covered (people, for instance).

    Pixels without a value add nothing; the coverage says how much is missing.
    """

    names: tuple[str, ...] = field(default=("sum",), init=False)

    def compute(self, zone: Zone) -> list[FloatArray]:
        """See :class:`Statistic`."""
        return [_known(zone.sum(Moment(1, area=False)), zone)]


@dataclass(frozen=True, slots=True)
class Count:
    """Number of valid pixels, partly covered ones by the share covered.

    0 where the ground was seen without a valid pixel; NaN where it was not seen.
    """

    names: tuple[str, ...] = field(default=("count",), init=False)

    def compute(self, zone: Zone) -> list[FloatArray]:
        """See :class:`Statistic`."""
        return [zone.sum(Moment(area=False))]


@dataclass(frozen=True, slots=True)
class StdDev:
    """Standard deviation over the polygon, weighted by the area covered (divisor: the weight)."""

    names: tuple[str, ...] = field(default=("std",), init=False)

    def compute(self, zone: Zone) -> list[FloatArray]:
        """See :class:`Statistic`."""
        weight = zone.sum(Moment(0))
        square = _ratio(zone.sum(Moment(2)), weight)
        off = _ratio(zone.sum(Moment(1)), weight) - zone.shift
        return [np.sqrt(np.maximum(square - off**2, 0.0))]


@dataclass(frozen=True, slots=True)
class Min:
    """Smallest value of the pixels touched."""

    names: tuple[str, ...] = field(default=("min",), init=False)

    def compute(self, zone: Zone) -> list[FloatArray]:
        """See :class:`Statistic`."""
        values, _, starts = zone.entries()
        return [_at(values, starts, starts[:-1])]


@dataclass(frozen=True, slots=True)
class Max:
    """Largest value of the pixels touched."""

    names: tuple[str, ...] = field(default=("max",), init=False)

    def compute(self, zone: Zone) -> list[FloatArray]:
        """See :class:`Statistic`."""
        values, _, starts = zone.entries()
        return [_at(values, starts, starts[1:] - 1)]


def _at(values: FloatArray, starts: NDArray[np.intp], where: NDArray[np.intp]) -> FloatArray:
    out = np.full(len(starts) - 1, np.nan)
    filled = starts[1:] > starts[:-1]
    out[filled] = values[where[filled]]
    return out


@dataclass(frozen=True, slots=True)
class Quantile:
    """Weighted quantile of the values, interpolated.

    With values x_1 <= ... <= x_m of weights w and S_k = (k - 1) w_k + (m - 1) (w_1 + ... +
    w_{k-1}), the points (S_k / S_m, x_k) are joined by straight lines. With equal weights that is
    Hyndman and Fan's (1996) type 7, the default of R and numpy.

    Parameters
    ----------
    q
        From 0 to 1.

    Raises
    ------
    IngestError
        If it is not.
    """

    q: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.q <= 1.0:
            raise IngestError(
                f"Quantile({self.q!r}) is not a quantile.",
                cause="A quantile is a share.",
                next_step="Give a number from 0 to 1, e.g. Quantile(0.9).",
            )

    @property
    def names(self) -> tuple[str, ...]:
        """``'median'``, or ``'q10'`` for the 0.1 quantile."""
        return ("median" if self.q == 0.5 else f"q{100 * self.q:g}",)

    def compute(self, zone: Zone) -> list[FloatArray]:
        """See :class:`Statistic`."""
        values, weights, starts = zone.entries()
        out = np.full(len(starts) - 1, np.nan)
        count = np.diff(starts)
        rows = np.flatnonzero(count)
        if len(rows) == 0:
            return [out]
        first, size = starts[rows], count[rows]
        row = np.repeat(np.arange(len(rows)), size)
        place = np.arange(len(values)) - first[row]
        before = np.concatenate([[0.0], np.cumsum(weights)[:-1]])
        points = place * weights + (size[row] - 1) * (before - before[first][row])
        target = self.q * points[first + size - 1]
        below = np.add.reduceat(points <= target[row], first)
        low = first + np.maximum(below, 1) - 1
        high = np.minimum(low + 1, first + size - 1)
        gap = points[high] - points[low]
        part = np.divide(target - points[low], gap, out=np.zeros(len(rows)), where=gap > 0)
        out[rows] = values[low] + part * (values[high] - values[low])
        return [out]


def _classes(given: Mapping[str, float | Sequence[float]] | Classes, owner: str) -> Classes:
    items = given.items() if isinstance(given, Mapping) else given
    classes = tuple(
        (str(name), tuple(float(v) for v in np.atleast_1d(values))) for name, values in items
    )
    if not classes or any(not values for _, values in classes):
        raise IngestError(
            f"{owner} was given no classes." if not classes else f"A class of {owner} is empty.",
            cause="A class is a name with one or more stored values.",
            next_step=f"Write e.g. {owner}({{'built': 7, 'green': (2, 11)}}).",
        )
    return classes


@dataclass(frozen=True, slots=True)
class _OfClasses:
    """A statistic with a column for each class of a land-cover map."""

    _prefix: ClassVar[str]
    classes: Mapping[str, float | Sequence[float]] | Classes

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", _classes(self.classes, type(self).__name__))

    @property
    def names(self) -> tuple[str, ...]:
        """What is measured, then the class: ``'share_<class>'``, ``'area_<class>'``."""
        return tuple(f"{self._prefix}_{name}" for name, _ in self._pairs)

    @property
    def _pairs(self) -> Classes:
        assert isinstance(self.classes, tuple)
        return self.classes


@dataclass(frozen=True, slots=True)
class ClassShare(_OfClasses):
    """Share of the valid area that each class of a land-cover map takes.

    Where several looks of a period show a pixel, it counts by the share of looks in the class.

    Parameters
    ----------
    classes
        Name of each class and its value or values.
    """

    _prefix: ClassVar[str] = "share"

    def compute(self, zone: Zone) -> list[FloatArray]:
        """See :class:`Statistic`."""
        whole = zone.sum(Moment(0))
        return [_ratio(zone.sum(Moment(classes=codes)), whole) for _, codes in self._pairs]


@dataclass(frozen=True, slots=True)
class ClassArea(_OfClasses):
    """Area on the ground of each class of a land-cover map, in square metres.

    Only valid pixels count; the coverage says how much is missing. In a projected CRS areas are
    those of the projection.

    Parameters
    ----------
    classes
        Name of each class and its value or values.
    """

    _prefix: ClassVar[str] = "area"

    def compute(self, zone: Zone) -> list[FloatArray]:
        """See :class:`Statistic`."""
        return [_known(zone.sum(Moment(classes=codes)), zone) for _, codes in self._pairs]
