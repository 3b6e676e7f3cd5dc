"""Areas and accuracies from a sample of reference observations, with their errors.

The area on a map is biased where the map errs more one way than the other. A sample of places with
known class, drawn at random within each class of the map, gives an unbiased area with a standard
error: Olofsson et al. (2014, Remote Sens. Environ. 148:42, equations 1 to 11), post-stratified
estimators of Cochran (1977).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from eocausal.errors import AlignmentError, EstimationError

__all__ = ["AdjustedAreas", "adjusted_areas"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class AdjustedAreas:
    """Error-adjusted areas and accuracies.

    Attributes
    ----------
    table
        One row per class: ``mapped`` area, ``area`` adjusted for error with ``std_error``, ``low``
        and ``high`` in the units of the mapped areas; ``users`` and ``producers`` accuracy with
        standard errors ``users_se`` and ``producers_se``.
    overall, overall_se
        Share of the area that the map has right, and its standard error.
    proportions
        Estimated share of the area in each cell of the error matrix; rows are of the map.
    level
        Probability of the intervals.
    """

    table: pd.DataFrame
    overall: float
    overall_se: float
    proportions: pd.DataFrame
    level: float

    def to_frame(self) -> pd.DataFrame:
        """Return one row per class."""
        return self.table.copy()

    def summary(self) -> str:
        """Say in words how areas differ from the map's."""
        lines = [
            f"The map is right on {self.overall:.1%} of the area (standard error "
            f"{self.overall_se:.1%})."
        ]
        for name, row in self.table.iterrows():
            verdict = (
                "the mapped area is within" if row["low"] <= row["mapped"] <= row["high"]
                else "less than mapped" if row["area"] < row["mapped"] else "more than mapped"
            )  # fmt: skip
            lines.append(
                f"{name}: {_told(row['area'])} ({self.level:.0%} interval {_told(row['low'])} to "
                f"{_told(row['high'])}), mapped {_told(row['mapped'])}: {verdict}."
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"AdjustedAreas({len(self.table)} classes, overall accuracy {self.overall:.1%})"


def adjusted_areas(
    counts: pd.DataFrame, mapped: Mapping[str, float], *, level: float = 0.95
) -> AdjustedAreas:
    """Estimate areas and accuracies.

    Parameters
    ----------
    counts
        Sampled places: rows by class of the map, columns by class of the reference, the same
        classes in both. The sample is random within each class of the map (or random altogether).
    mapped
        Area of each class on the map, in any one unit; all of the study area.
    level
        Probability of the intervals.

    Raises
    ------
    AlignmentError
        If rows, columns and mapped areas are not of the same classes.
    EstimationError
        If a class that is on the map has fewer than two samples, or counts are no counts.
    """
    classes = list(counts.index)
    if set(classes) != set(counts.columns) or set(classes) != set(mapped):
        raise AlignmentError(
            f"Rows {classes}, columns {list(counts.columns)}, areas {list(mapped)}.",
            cause="Map, reference and areas are of the same classes.",
            next_step="Give a square table and an area for each of its classes.",
        )
    n = counts[classes].to_numpy(dtype=float)
    area = np.array([float(mapped[name]) for name in classes])
    _check(n, area, classes)
    total, size = area.sum(), n.sum(1)
    weight = area / total
    sampled = size > 0
    share = np.divide(n, size[:, None], out=np.zeros_like(n), where=sampled[:, None])
    noise = np.divide(
        share * (1 - share), (size - 1)[:, None], out=np.zeros_like(n),
        where=(size > 1)[:, None],
    )  # fmt: skip
    proportions = weight[:, None] * share
    estimate = proportions.sum(0)
    error = np.sqrt((weight[:, None] ** 2 * noise).sum(0))
    users, right = np.diag(share), np.diag(proportions)
    users_var = np.diag(noise)
    producers = np.divide(right, estimate, out=np.full_like(right, np.nan), where=estimate > 0)
    half = float(stats.norm.ppf(0.5 + level / 2))
    table = pd.DataFrame(
        {
            "mapped": area, "area": total * estimate, "std_error": total * error,
            "low": np.clip(total * (estimate - half * error), 0, None),
            "high": total * (estimate + half * error),
            "users": np.where(sampled, users, np.nan),
            "users_se": np.where(sampled, np.sqrt(users_var), np.nan), "producers": producers,
            "producers_se": _producers_error(weight, noise, estimate, producers),
        },
        index=pd.Index(classes, name="class"),
    )  # fmt: skip
    return AdjustedAreas(
        table, float(right.sum()), float(np.sqrt((weight**2 * users_var).sum())),
        pd.DataFrame(proportions, counts.index, classes), level,
    )  # fmt: skip


def _told(area: float) -> str:
    return f"{area:,.0f}" if area >= 1000 else f"{area:.4g}"


def _producers_error(
    weight: Float64, noise: Float64, estimate: Float64, producers: Float64
) -> Float64:
    """Return the standard error of the producer's accuracy, equation 7."""
    cells = weight[:, None] ** 2 * noise
    own = np.diag(cells)
    others = cells.sum(0) - own
    variance = (1 - producers) ** 2 * own + producers**2 * others
    known = np.where(estimate > 0, estimate, np.nan)
    return np.asarray(np.sqrt(variance) / known)


def _check(n: Float64, area: Float64, classes: list[object]) -> None:
    if (n < 0).any() or (n != np.round(n)).any() or (area < 0).any() or area.sum() <= 0:
        raise EstimationError(
            "Samples that are no whole numbers, or areas below zero.",
            cause="Standard errors come from the number of places looked at.",
            next_step="Give the counts of the sample, not shares.",
        )
    thin = [
        str(name) for name, size, a in zip(classes, n.sum(1), area, strict=True)
        if a > 0 and size < 2
    ]  # fmt: skip
    if thin:
        raise EstimationError(
            f"Fewer than two samples of the mapped class {', '.join(thin)}.",
            cause="How often the map errs there is not known.",
            next_step="Sample each class of the map, or merge it with another.",
        )
