"""Several looks at a chip become one image.

A look is what one acquisition gave for a chip, shape (band, y, x), NaN where invalid; looks come
stacked, ordered by date and name. Median, mean and percentile work band by band, so a look that is
valid in some bands only counts in these. Medoid, best pixel and nearest day take one whole
observation for each pixel, which keeps the relations between bands, and use only looks that are
valid in all bands. Ties go to the first look. The result depends on nothing but the looks and
their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from eocausal.contracts import some
from eocausal.errors import BandError, IngestError, SceneError
from eocausal.ingest.indices import KNOWN, Index, index
from eocausal.ingest.percentiles import percentile_of_looks

__all__ = [
    "BestPixel",
    "Composite",
    "Mean",
    "Median",
    "Medoid",
    "NearestDay",
    "Percentile",
    "count_valid",
    "median_of_looks",
]

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

_MEDOID_VALUES: Final = 2**17


class Composite(Protocol):
    """How the looks of a period become one image: a frozen dataclass with these members."""

    def check(self, bands: Sequence[str], dated: bool) -> None:
        """Refuse what cannot work, before any pixel is read.

        Parameters
        ----------
        bands
            Names of the bands in the order of the looks.
        dated
            Whether every scene has a date.

        Raises
        ------
        IngestError
        """

    def needs(self, bands: Sequence[str]) -> tuple[str, ...]:
        """Name the bands it must see besides ``bands``."""

    def reduce(
        self, looks: FloatArray, days: NDArray[np.int64], bands: Sequence[str]
    ) -> FloatArray:
        """Make one image of the looks.

        Parameters
        ----------
        looks
            Shape (look, band, y, x), NaN where invalid, ordered by date and name.
        days
            Days since 1970-01-01, shape (look,); the smallest int64 where unknown.
        bands
            Names of the bands.

        Returns
        -------
        ndarray
            Shape (band, y, x), NaN where no look is valid.
        """


class _BandByBand:
    """Composites that take any bands and need no date."""

    __slots__ = ()

    def check(self, bands: Sequence[str], dated: bool) -> None:
        """Nothing can be wrong: any bands will do, and dates are not needed."""

    def needs(self, bands: Sequence[str]) -> tuple[str, ...]:
        """No further band is needed."""
        return ()


@dataclass(frozen=True, slots=True)
class Median(_BandByBand):
    """Median of the valid looks, band by band; of an even number, the mean of the middle two."""

    def reduce(
        self, looks: FloatArray, days: NDArray[np.int64], bands: Sequence[str]
    ) -> FloatArray:
        """Make one image of the looks; see :meth:`Composite.reduce`."""
        return median_of_looks(looks)


@dataclass(frozen=True, slots=True)
class Percentile(_BandByBand):
    """Percentile of the valid looks, band by band, linear between the nearest two.

    Parameters
    ----------
    percent
        From 0 (the smallest value) to 100 (the largest).

    Raises
    ------
    IngestError
        If ``percent`` is not within 0..100.

    References
    ----------
    Hyndman & Fan (1996), *The American Statistician* 50(4), definition 7 (numpy's default).
    """

    percent: float

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= 100:
            raise IngestError(
                f"Percentile was given {self.percent!r}.",
                cause="A percentile is a number from 0 to 100.",
                next_step="Give e.g. Percentile(25).",
            )

    def reduce(
        self, looks: FloatArray, days: NDArray[np.int64], bands: Sequence[str]
    ) -> FloatArray:
        """Make one image of the looks; see :meth:`Composite.reduce`."""
        return percentile_of_looks(looks, self.percent)


@dataclass(frozen=True, slots=True)
class Mean(_BandByBand):
    """Mean of the valid looks, band by band, summed in float64."""

    def reduce(
        self, looks: FloatArray, days: NDArray[np.int64], bands: Sequence[str]
    ) -> FloatArray:
        """Make one image of the looks; see :meth:`Composite.reduce`."""
        total = np.zeros(looks.shape[1:])
        count = np.zeros(looks.shape[1:], dtype=np.int32)
        for look in looks:
            good = np.isfinite(look)
            total += look if good.all() else np.where(good, look, np.float32(0.0))
            count += good
        mean = np.full(total.shape, np.nan)
        np.divide(total, count, out=mean, where=count > 0)
        return mean.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Medoid(_BandByBand):
    """The look whose values are nearest to those of all others.

    It has the smallest sum of Euclidean distances in the space of the bands, and is always a true
    observation. Bands weigh by their spread: give them the same units.

    References
    ----------
    Flood (2013), Seasonal composite Landsat TM/ETM+ images using the medoid, *Remote Sensing*
    5(12), 6481-6500, equation 1.
    """

    def reduce(
        self, looks: FloatArray, days: NDArray[np.int64], bands: Sequence[str]
    ) -> FloatArray:
        """Make one image of the looks; see :meth:`Composite.reduce`."""
        if len(looks) == 0:
            return _missing(looks)
        flat = looks.reshape(*looks.shape[:2], -1)
        out = np.empty(flat.shape[1:], dtype=np.float32)
        step = max(256, min(4096, _MEDOID_VALUES // len(looks) ** 2))
        for start in range(0, flat.shape[2], step):
            part = flat[:, :, start : start + step]
            out[:, start : start + step] = _medoid(part)
        return out.reshape(looks.shape[1:])


@dataclass(frozen=True, slots=True)
class BestPixel:
    """The look with the highest (or lowest) value of a band or index.

    ``BestPixel("ndvi")`` is the maximum NDVI composite. A look in which the index has no value is
    taken only where there is no other.

    Parameters
    ----------
    by
        A band, the name of a known index (:data:`~eocausal.ingest.indices.KNOWN`), or
        ``'name = expression'``.
    highest
        Whether the highest value wins.

    Raises
    ------
    IngestError
        If an expression cannot be read.

    References
    ----------
    Holben (1986), Characteristics of maximum-value composite images from temporal AVHRR data,
    *International Journal of Remote Sensing* 7(11), 1417-1434.
    """

    by: str = "ndvi"
    highest: bool = True

    def __post_init__(self) -> None:
        if "=" in self.by:
            index(self.by)

    def check(self, bands: Sequence[str], dated: bool) -> None:
        """Refuse a band that is not there; see :meth:`Composite.check`."""
        score = self._score(bands)
        if score is not None:
            score.check(bands)

    def needs(self, bands: Sequence[str]) -> tuple[str, ...]:
        """Name the bands that it compares by, where they are not among ``bands``."""
        if self.by in bands:
            return ()
        if "=" in self.by or self.by.strip().lower() in KNOWN:
            return tuple(sorted(index(self.by).bands - set(bands)))
        return (self.by,)

    def _score(self, bands: Sequence[str]) -> Index | None:
        """Find the index to compare; None if it is one of the bands."""
        if self.by in bands:
            return None
        if "=" not in self.by and self.by.strip().lower() not in KNOWN:
            raise BandError(
                f"BestPixel compares {self.by!r}, which is neither a band nor a known index.",
                cause=f"The bands are {some(bands, 20)}; the indices {some(KNOWN, 20)}.",
                next_step="Give one of these as by=..., or by='name = expression'.",
            )
        return index(self.by)

    def reduce(
        self, looks: FloatArray, days: NDArray[np.int64], bands: Sequence[str]
    ) -> FloatArray:
        """Make one image of the looks; see :meth:`Composite.reduce`."""
        score = self._score(bands)
        out = _missing(looks)
        best = np.full(looks.shape[2:], -np.inf, dtype=np.float32)
        filled = np.zeros(looks.shape[2:], dtype=np.bool_)
        for look in looks:
            if score is None:
                value = look[list(bands).index(self.by)]
            else:
                value = score.evaluate(dict(zip(bands, look, strict=True)))
            ranked = np.where(np.isfinite(value), value if self.highest else -value, -np.inf)
            take = _whole(look) & (~filled | (ranked > best))
            np.copyto(out, look, where=take)
            np.copyto(best, ranked, where=take)
            filled |= take
        return out


@dataclass(frozen=True, slots=True)
class NearestDay:
    """The look whose date is nearest to a day of the year, in whichever year it was taken.

    Parameters
    ----------
    month, day
        The day, e.g. ``NearestDay(7, 1)`` for 1 July; one that every year has.

    Raises
    ------
    IngestError
        If no such day is in every year.
    """

    month: int
    day: int

    def __post_init__(self) -> None:
        try:
            date(2001, self.month, self.day)
        except (ValueError, TypeError) as error:
            raise IngestError(
                f"There is no day {self.day!r} of month {self.month!r} in every year.",
                cause=f"{error}.",
                next_step="Give e.g. NearestDay(month=7, day=1).",
            ) from error

    def check(self, bands: Sequence[str], dated: bool) -> None:
        """Refuse scenes without a date; see :meth:`Composite.check`."""
        if not dated:
            raise SceneError(
                "NearestDay needs the date of every scene, and some have none.",
                cause="Which look is nearest to the day is then unknown.",
                next_step="Pass time=... or time_pattern=... to scan(), or take Median().",
            )

    def needs(self, bands: Sequence[str]) -> tuple[str, ...]:
        """No further band is needed."""
        return ()

    def reduce(
        self, looks: FloatArray, days: NDArray[np.int64], bands: Sequence[str]
    ) -> FloatArray:
        """Make one image of the looks; undated ones come last. See :meth:`Composite.reduce`."""
        out = _missing(looks)
        empty = np.ones(looks.shape[2:], dtype=np.bool_)
        for k in np.argsort(self._distance(days), kind="stable"):
            take = _whole(looks[k]) & empty
            np.copyto(out, looks[k], where=take)
            empty &= ~take
        return out

    def _distance(self, days: NDArray[np.int64]) -> NDArray[np.int64]:
        """Days to the nearest such day of the same, the last or the next year."""
        dates = days.astype("datetime64[D]")
        years = dates.astype("datetime64[Y]")
        nearest = np.full(days.shape, np.iinfo(np.int64).max)
        known = ~np.isnat(dates)
        for shift in (-1, 0, 1):
            months = (years[known] + shift).astype("datetime64[M]") + (self.month - 1)
            there = months.astype("datetime64[D]") + (self.day - 1)
            away = np.abs((dates[known] - there).astype(np.int64))
            nearest[known] = np.minimum(nearest[known], away)
        return nearest


def count_valid(looks: FloatArray) -> NDArray[np.uint16]:
    """Count the looks valid in all bands.

    Parameters
    ----------
    looks
        Shape (look, band, y, x), NaN where invalid.

    Returns
    -------
    ndarray
        Shape (y, x).
    """
    count = np.zeros(looks.shape[2:], dtype=np.uint16)
    for look in looks:
        count += _whole(look)
    return count


def median_of_looks(looks: FloatArray) -> FloatArray:
    """Median over the first axis of what is finite, NaN where nothing is.

    For an even number of values it is the mean of the middle two, rounded once from float64.
    """
    return percentile_of_looks(looks, 50.0)


def _whole(look: FloatArray) -> BoolArray:
    """Where a look is valid in all bands, shape (y, x)."""
    good: BoolArray = np.logical_and.reduce(np.isfinite(look), axis=0)
    return good


def _missing(looks: FloatArray) -> FloatArray:
    return np.full(looks.shape[1:], np.nan, dtype=np.float32)


def _medoid(part: FloatArray) -> FloatArray:
    """Medoid of looks of shape (look, band, pixel)."""
    values = part.astype(np.float64)
    good: BoolArray = np.logical_and.reduce(np.isfinite(values), axis=1)
    np.copyto(values, 0.0, where=~good[:, None])
    count = len(values)
    apart = np.zeros((count, count, values.shape[2]))
    for i in range(count - 1):
        step = values[i + 1 :] - values[i]
        distance = np.sqrt(np.einsum("kbp,kbp->kp", step, step))
        distance *= good[i + 1 :] & good[i]
        apart[i, i + 1 :] = apart[i + 1 :, i] = distance
    # Equal looks have equal rows of distances, so their sums are equal to the last bit.
    total = np.where(good, apart.sum(axis=1), np.inf)
    chosen = np.take_along_axis(part, total.argmin(axis=0)[None, None], axis=0)[0]
    return np.where(good.any(axis=0), chosen, np.float32(np.nan))
