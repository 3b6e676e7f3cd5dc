"""Series of the engine ``grid`` in groups: those with the same gaps, and those with their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from eocausal.estimators.level_grid import Contrast, GridPosterior, LevelGrid
from eocausal.estimators.level_scattered import ScatteredPosterior, scattered_size
from eocausal.estimators.level_spectrum import spectra
from eocausal.estimators.structural_design import Design
from eocausal.estimators.t_mixture import TMixture

__all__ = ["OwnGaps", "SharedGaps", "group_by_gaps"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
CHUNK = 300_000  # numbers of an array over series, cells and sets
FEW_SERIES = 1  # for each residual, and one more: passes that take as long as its decomposition
FEW_PATTERNS = 3


@dataclass(frozen=True, slots=True, eq=False)
class SharedGaps:
    """Series with values at the same times.

    Attributes
    ----------
    rows
        Which of all series.
    offset
        (N,) what was subtracted so that a series starts at zero, where the prior wants that.
    values
        (N, n) the series at the observed times.
    """

    rows: Int64
    offset: Float64
    values: Float64
    pattern: Bool
    design: Design
    variance: Float64 | None
    kept: dict[str, LevelGrid | GridPosterior] = field(default_factory=dict)
    contrasts: dict[bytes, Contrast] = field(default_factory=dict)

    @property
    def grid(self) -> LevelGrid:
        """What the series share."""
        found = self.kept.get("grid")
        if not isinstance(found, LevelGrid):
            rotations = spectra(self.pattern, self.design.prior.residuals, self.variance)
            found = LevelGrid(
                rotations, self.design.prior, self.design.sets, self.design.columns,
                self.pattern, self.variance,
            )  # fmt: skip
            self.kept["grid"] = found
        return found

    @property
    def size(self) -> int:
        """Series to take at once."""
        return max(
            8, CHUNK // (self.design.prior.log_weight.size * len(self.design.sets.log_prior))
        )

    def posterior(self, rows: Int64) -> GridPosterior:
        """Return the posterior of some of the series; kept if these are all."""
        kept = self.kept.get("posterior")
        if isinstance(kept, GridPosterior) and len(rows) == len(self.rows):
            return kept
        found = self.grid.fit(self.values[rows])
        if len(rows) == len(self.rows):
            self.kept["posterior"] = found
        return found

    def parts(self) -> Iterator[Int64]:
        """Yield rows of the group to take at once."""
        for start in range(0, len(self.rows), self.size):
            yield np.arange(start, min(start + self.size, len(self.rows)))

    def laws(self, counted: Bool) -> Iterator[tuple[Int64, TMixture]]:
        """Yield rows of the group and the laws of their means over the times counted (all, T)."""
        for part in self.parts():
            mine = counted[self.rows[part]]
            some = np.asarray(mine.any(1))
            if not some.any():
                continue
            law = self.posterior(part).law(self._contrast(mine))
            yield part[some], _picked(law, some)

    def _contrast(self, counted: Bool) -> Contrast:
        """Return what does not depend on data: once if all count the same times."""
        shares = counted / np.maximum(counted.sum(1, keepdims=True), 1)
        if (counted != counted[0]).any():
            return self.grid.contrast(shares)
        key = counted[0].tobytes()
        if key not in self.contrasts:
            self.contrasts.clear()
            self.contrasts[key] = self.grid.contrast(shares[:1])
        return self.contrasts[key]

    def inclusions(self) -> Iterator[tuple[Int64, Float64]]:
        """Yield rows of the group and how probable each column is."""
        for part in self.parts():
            yield part, self.posterior(part).inclusion()

    def one(self, row: int) -> tuple[GridPosterior, int, Float64]:
        """Return a posterior with one series, its row there, and its values."""
        if len(self.rows) <= self.size:
            return self.posterior(np.arange(len(self.rows))), row, self.values[row]
        return self.posterior(np.array([row])), 0, self.values[row]


@dataclass(frozen=True, slots=True, eq=False)
class OwnGaps:
    """Series that have their values at times of their own.

    Attributes
    ----------
    rows, offset
        As in :class:`SharedGaps`.
    values, observed
        (N, T) the series, and where they have values to learn from.
    variance
        (T,) relative variances, (N, T) those of each series, or None.
    """

    rows: Int64
    offset: Float64
    values: Float64
    observed: Bool
    design: Design
    variance: Float64 | None

    def _parts(self) -> Iterator[tuple[Int64, ScatteredPosterior]]:
        design = self.design
        size = scattered_size(
            self.observed.shape[1], design.columns.shape[1], design.prior,
            len(design.sets.log_prior),
        )  # fmt: skip
        for start in range(0, len(self.rows), size):
            part = np.arange(start, min(start + size, len(self.rows)))
            yield part, ScatteredPosterior(
                self.values[part], self.observed[part], design.prior, design.sets,
                design.columns, self._variance(part),
            )  # fmt: skip

    def _variance(self, rows: Int64) -> Float64 | None:
        own = self.variance
        return own[rows] if own is not None and own.ndim == 2 else own

    def laws(self, counted: Bool) -> Iterator[tuple[Int64, TMixture]]:
        """Yield rows of the group and the laws of their means over the times counted (all, T)."""
        times = np.arange(self.observed.shape[1])
        last = np.where(self.observed, times, -1).max(1)
        first = np.where(counted[self.rows], times, len(times)).min(1)
        for row in np.flatnonzero(first <= last):
            for _, law in self._alone(int(row)).laws(counted):
                yield np.array([row]), law
        for part, posterior in self._parts():
            mine = counted[self.rows[part]]
            use = np.asarray(mine.any(1) & (first > last)[part])
            if use.any():
                mine = mine & (times > last[part, None])
                shares = mine / np.maximum(mine.sum(1, keepdims=True), 1)
                yield part[use], _picked(posterior.law(shares), use)

    def inclusions(self) -> Iterator[tuple[Int64, Float64]]:
        """Yield rows of the group and how probable each column is."""
        for part, posterior in self._parts():
            yield part, posterior.inclusion()

    def one(self, row: int) -> tuple[GridPosterior, int, Float64]:
        """Return a posterior with one series, its row there, and its values."""
        return self._alone(row).one(0)

    def _alone(self, row: int) -> SharedGaps:
        pattern = self.observed[row]
        values = self.values[row : row + 1, pattern]
        part = slice(row, row + 1)
        own = self._variance(np.array([row]))
        variance = own if own is None else np.atleast_2d(own)[0]
        return SharedGaps(
            self.rows[part], self.offset[part], values, pattern, self.design, variance
        )


def group_by_gaps(
    rows: Int64, values: Float64, observed: Bool, design: Design, variance: Float64 | None
) -> tuple[SharedGaps | OwnGaps, ...]:
    """Put series (N, T) with the same gaps together, and those with rare ones.

    Parameters
    ----------
    rows
        Which of all series these are.
    values
        Scaled series.
    observed
        Where they have values to learn from.
    variance
        (T,) relative variances, (N, T) those of each series, or None.
    """
    offset = np.zeros(len(rows))
    if not design.prior.start_is_flat and len(rows):
        offset = np.take_along_axis(values, observed.argmax(1)[:, None], 1)[:, 0]
    values = values - offset[:, None]
    if variance is not None and variance.ndim == 2:
        return (OwnGaps(rows, offset, values, observed, design, variance),) if len(rows) else ()
    if len(rows) == 1:
        one = SharedGaps(rows, offset, values[:, observed[0]], observed[0], design, variance)
        return (one,)
    packed = np.packbits(observed, axis=1)
    _, back, count = np.unique(packed, axis=0, return_inverse=True, return_counts=True)
    back = back.ravel()
    rare = count < FEW_SERIES * (1 + len(design.prior.residuals))
    if rare.sum() <= FEW_PATTERNS:
        rare = np.zeros_like(rare)
    groups: list[SharedGaps | OwnGaps] = []
    for at in np.flatnonzero(~rare):
        mine = np.flatnonzero(back == at)
        pattern = observed[mine[0]]
        groups.append(
            SharedGaps(
                rows[mine], offset[mine], values[mine][:, pattern], pattern, design, variance
            )
        )
    mine = np.flatnonzero(rare[back])
    if mine.size:
        groups.append(
            OwnGaps(rows[mine], offset[mine], values[mine], observed[mine], design, variance)
        )
    return tuple(groups)


def _picked(law: TMixture, use: Bool) -> TMixture:
    df = law.df if np.ndim(law.df) == 0 else np.asarray(law.df)[use]
    if use.all():
        return law
    return TMixture(law.weight[use], law.center[use], law.scale[use], df)
