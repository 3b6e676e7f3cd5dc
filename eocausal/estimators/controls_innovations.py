"""What is new in each value of many series: season and first-order memory taken out.

Two series with a season, or with memory, look correlated without anything in common. Both are
filtered first and then compared (prewhitening; Box & Jenkins 1970; Haugh 1976, Journal of the
American Statistical Association 71:378).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eocausal.estimators.structural_design import harmonics
from eocausal.estimators.structural_model import Season

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

__all__ = ["correlations_with", "independent_number", "innovations"]

MOST_HARMONICS = 2
FEWEST_PAIRS = 10
MOST_MEMORY = 0.98


def innovations(
    values: Float64, seasons: tuple[Season, ...] = (), others: Float64 | None = None
) -> Float64:
    """Return what is new in each value, (T, N), NaN where it or its predecessor is missing.

    Parameters
    ----------
    values
        (T, N) series, NaN where missing.
    seasons
        Patterns to take out, by up to two harmonics each.
    others
        (T, k) further columns to take out; NaN where missing.
    """
    times = len(values)
    parts = [np.ones((times, 1))]
    for season in seasons:
        most = season.period // 2 if season.harmonics is None else season.harmonics
        few = Season(season.period, season.duration, min(most, MOST_HARMONICS))
        parts.append(harmonics(times, few))
    parts.extend([] if others is None else [others])
    columns = np.concatenate(parts, 1)
    left = _residuals(np.asarray(values, dtype=float), columns)
    new = np.full_like(left, np.nan)
    both = np.asarray(np.isfinite(left[1:]) & np.isfinite(left[:-1]))
    now, last = np.where(both, left[1:], 0.0), np.where(both, left[:-1], 0.0)
    square = (last**2).sum(0)
    phi = np.where(square > 0, (now * last).sum(0) / np.where(square > 0, square, 1.0), 0.0)
    phi = np.clip(phi, -MOST_MEMORY, MOST_MEMORY)
    new[1:] = np.where(both, left[1:] - phi * left[:-1], np.nan)
    return new


def _residuals(values: Float64, columns: Float64) -> Float64:
    """Least squares on the columns, one fit for each pattern of gaps."""
    complete = np.asarray(np.isfinite(columns).all(1))
    seen = np.isfinite(values) & complete[:, None]
    left = np.full_like(values, np.nan)
    patterns, which = np.unique(seen, axis=1, return_inverse=True)
    for at in range(patterns.shape[1]):
        rows, mine = patterns[:, at], np.flatnonzero(which.ravel() == at)
        if rows.sum() > columns.shape[1]:
            y = values[np.ix_(rows, mine)]
            beta = np.linalg.lstsq(columns[rows], y, rcond=None)[0]
            left[np.ix_(rows, mine)] = y - columns[rows] @ beta
    return left


def correlations_with(one: Float64, many: Float64) -> Float64:
    """Return (N,) correlations of a series (T,) with each of ``many`` (T, N), where both are known.

    NaN where there are fewer than ten pairs, or one of the two does not vary.
    """
    both = np.isfinite(one)[:, None] & np.isfinite(many)
    n = both.sum(0)
    a, b = np.where(both, one[:, None], 0.0), np.where(both, many, 0.0)
    few = np.maximum(n, 1)
    a = np.where(both, a - a.sum(0) / few, 0.0)
    b = np.where(both, b - b.sum(0) / few, 0.0)
    size = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    known = (n >= FEWEST_PAIRS) & (size > 0)
    return np.where(known, (a * b).sum(0) / np.where(known, size, 1.0), np.nan)


def independent_number(new: Float64) -> float:
    """Return how many independent series N correlated ones (T, N) are worth.

    N^2 over the sum of squared correlations (Bretherton et al. 1999, Journal of Climate 12:1990,
    equation 5), less what the squares of correlations estimated from n pairs have by chance:
    (1 - r^2) / (n - 1) each. Pairs never seen together count as independent.
    """
    count = new.shape[1]
    seen = np.isfinite(new)
    z = np.where(seen, new, 0.0)
    z = np.where(seen, z - z.sum(0) / np.maximum(seen.sum(0), 1), 0.0)
    s = seen.astype(float)
    pairs = s.T @ s
    size = np.sqrt(((z**2).T @ s) * (s.T @ z**2))
    known = (pairs >= FEWEST_PAIRS) & (size > 0)
    r = np.where(known, (z.T @ z) / np.where(known, size, 1.0), 0.0)
    square = r**2 - np.where(known, (1.0 - r**2) / np.maximum(pairs - 1.0, 1.0), 0.0)
    np.fill_diagonal(square, 1.0)
    return float(np.clip(count**2 / max(square.sum(), count), 1.0, count))
