"""Conley's variance: units depend on each other the nearer they are.

The kernel loses what correlation it weighs down, and influence values that sum to zero lose what
all units share. The second is corrected, and the interval widened for the few independent patches
that the variance is estimated from, by a reference process (see :func:`patches`). The first is a
choice: take a cutoff of two or three times the distance at which dependence ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.contracts import check_columns
from eocausal.effects import EffectEstimate, Influence, Variance
from eocausal.errors import EstimationError
from eocausal.estimators.kernels import SPHERICAL, Kernel
from eocausal.estimators.neighbours import Places, kernel_sums
from eocausal.folds import EARTH_RADIUS_KM

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Conley",
    "Patches",
    "Projected",
    "conley_by_cutoff",
    "conley_variance",
    "patches",
    "places_of",
]

FEW_PATCHES = 8.0


@dataclass(frozen=True, slots=True)
class Projected:
    """Columns with coordinates of a projected system, in metres."""

    x: str = "x"
    y: str = "y"


def places_of(units: pd.DataFrame, lon: str, lat: str, projected: Projected | None) -> Places:
    """Read where units are.

    Parameters
    ----------
    units
        n units.
    lon, lat
        Columns in degrees.
    projected
        Columns in metres, used instead if given.

    Raises
    ------
    MissingColumnError
        If a column is not there.
    EstimationError
        If a coordinate is not finite, or a latitude lies beyond a pole.
    """
    names = [lon, lat] if projected is None else [projected.x, projected.y]
    check_columns(units, names, what="units table")
    here = units[names].to_numpy(float)
    if not np.isfinite(here).all():
        raise EstimationError(
            f"Some units have no finite {names[0]!r} or {names[1]!r}.",
            cause="Their distance to others is unknown.",
            next_step="Complete the coordinates or use another variance.",
        )
    if projected is not None:
        return Places.on_plane(here[:, 0], here[:, 1])
    if np.abs(here[:, 1]).max(initial=0.0) > 90:
        raise EstimationError(
            f"{lat!r} holds values beyond 90 degrees.",
            cause="Latitudes lie between -90 and 90.",
            next_step="Exchange longitude and latitude, or name columns in metres by "
            "Projected(x, y).",
        )
    return Places.on_sphere(here[:, 0], here[:, 1])


def conley_variance(
    psi: NDArray[np.float64],
    lon: NDArray[np.float64],
    lat: NDArray[np.float64],
    km: float,
    kernel: Kernel = SPHERICAL,
    radius_km: float = EARTH_RADIUS_KM,
) -> NDArray[np.float64]:
    """Compute ΣᵢΣⱼ K(dᵢⱼ/c) ψᵢψⱼᵀ over pairs of units within ``km`` (Conley 1999).

    Values at one location are summed first; pairs are found with a k-d tree and never listed, so
    that the work grows with the number of neighbours and memory with n.

    Parameters
    ----------
    psi
        (n,) or (n, K) influence values.
    lon, lat
        (n,) degrees.
    km
        Cutoff in kilometres along the great circle.

    Returns
    -------
    (K, K) variance matrix ((1, 1) for a vector).
    """
    places = Places.on_sphere(lon, lat, radius_km)
    sums = places.sums(psi.reshape(len(lon), -1))
    total = sums.T @ kernel_sums(places, km, kernel, sums).plain
    return np.asarray((total + total.T) / 2)


@dataclass(frozen=True, slots=True)
class Patches:
    """What a spatial variance of influence values is worth.

    Attributes
    ----------
    value
        Σ K ψψ as it is.
    kept
        Expected share of the variance that is left after influence values are made to sum to zero.
    df
        Degrees of freedom: about how many independent patches of units the variance comes from.
    """

    value: float
    kept: float
    df: float


def patches(places: Places, psi: NDArray[np.float64], km: float, kernel: Kernel) -> Patches:
    """Compute Conley's variance with what a reference process says of its mean and spread.

    The reference process has independent normal influence values of variance ψᵢ², less their
    mean. Under it the variance estimate Q = Σ K ψψ keeps the share ``kept`` of the truth, and
    2E[Q]²/Var[Q] degrees of freedom match its spread (Satterthwaite 1946; Bell & McCaffrey 2002;
    for kernels over space Bester et al. 2016, Journal of Econometrics 194:1, whose reference
    process has equal variances). Few units with large values, few treated ones for instance, give
    few degrees of freedom.

    Parameters
    ----------
    places
        Where the n units are.
    psi
        (n,) influence values that sum to zero.
    km, kernel
        Cutoff and weights.
    """
    n = len(psi)
    count = np.bincount(places.at, minlength=len(places.points)).astype(float)
    sums = places.sums(np.stack([psi, psi**2], axis=1))
    s = sums[:, 1]
    found = kernel_sums(places, km, kernel, np.column_stack([sums, count]), s[:, None])
    value = float(sums[:, 0] @ found.plain[:, 0])
    # M K M with M = I - 11'/n has elements K - a_p - a_q
    row = found.plain[:, 2]
    a = row / n - float(count @ row) / (2 * n**2)
    total = float(s.sum())
    mean = float(s @ (1 - 2 * a))
    square = float(
        s @ found.squared[:, 0]
        - 4 * (s * a) @ found.plain[:, 1]
        + 2 * total * (s @ a**2)
        + 2 * (s @ a) ** 2
    )
    if not (mean > 1e-9 * total > 0 and square > 0):
        return Patches(value, 0.0, math.inf)
    return Patches(value, mean / total * n / (n - 1), mean**2 / square)


@dataclass(frozen=True, slots=True)
class Conley:
    """Units closer than ``km`` depend on each other, less so with distance (Conley 1999).

    Parameters
    ----------
    km
        Cutoff in kilometres: two or three times the distance at which dependence ends, since the
        kernel weighs far pairs down. Look at several (:func:`conley_by_cutoff`).
    lon, lat
        Columns in degrees; distance is along the great circle.
    kernel
        :class:`Spherical` (default, always gives a variance >= 0), :class:`Wendland`,
        :class:`Bartlett` or :class:`Uniform`.
    projected
        Columns in metres to be used instead of ``lon`` and ``lat``.
    reference
        Whether the variance is corrected, and degrees of freedom taken, by a reference process
        (:func:`patches`); without it the textbook's formula, as other software has it.
    """

    km: float
    lon: str = "lon"
    lat: str = "lat"
    kernel: Kernel = SPHERICAL
    projected: Projected | None = None
    reference: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.km < math.inf:
            raise EstimationError(
                f"A Conley cutoff of {self.km} km is not a length.",
                cause="Pairs closer than the cutoff are summed.",
                next_step="Give a positive distance, e.g. Conley(km=50).",
            )

    def __repr__(self) -> str:
        given = [f"km={self.km:g}"]
        given += [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in fields(self)
            if f.name != "km" and getattr(self, f.name) != f.default
        ]
        return f"Conley({', '.join(given)})"

    def variance(self, influence: Influence, units: pd.DataFrame) -> Variance:
        """Return ΣΣ K(d/c) ψᵢψⱼ; a negative value is reported and gives no standard error.

        The leverage-corrected influence values are used, so that with a cutoff shorter than any
        distance the variance is HC2.

        Raises
        ------
        MissingColumnError, EstimationError
            If coordinates are missing.
        """
        places = places_of(units.loc[influence.labels], self.lon, self.lat, self.projected)
        found = patches(places, influence.hc2, self.km, self.kernel)
        if not self.reference:
            found = replace(found, kept=1.0, df=math.inf)
        if not found.kept > 0:
            return Variance(math.nan, influence.df, self._nothing_left(influence))
        note = ""
        if found.value <= 0:
            note = (
                f"The Conley variance at {self.km:g} km is not positive ({found.value:.3g}): "
                "this kernel is not positive semidefinite in two dimensions; use Spherical()."
            )
        elif found.df < FEW_PATCHES:
            note = (
                f"At {self.km:g} km the variance comes from about {found.df:.0f} independent "
                "patches of units: the interval may still be too short."
            )
        return Variance(found.value / found.kept, min(found.df, influence.df), note)

    def _nothing_left(self, influence: Influence) -> str:
        if not np.any(influence.hc2):
            return "All influence values are zero: there is no variance to estimate."
        return (
            f"Within {self.km:g} km of every unit lie almost all others: influence values sum to "
            "zero there and say nothing of the variance. Use a shorter cutoff."
        )


def conley_by_cutoff(
    estimate: EffectEstimate, km: Sequence[float], rule: Conley | None = None
) -> pd.DataFrame:
    """Tabulate the standard error against the cutoff, to be plotted before one is chosen.

    A standard error that still grows at the cutoff chosen says that dependence reaches further.

    Parameters
    ----------
    estimate
        Any estimate with influence values.
    km
        Cutoffs in kilometres.
    rule
        Columns and kernel; its cutoff is not used. Default: ``lon``, ``lat``, :class:`Spherical`.

    Returns
    -------
    pandas.DataFrame
        Columns ``km, std_error, df, ci_low, ci_high, note``, a row per cutoff, ascending.
    """
    rows = []
    for cutoff in sorted(km):
        at = replace(rule, km=cutoff) if rule is not None else Conley(cutoff)
        found = estimate.with_vcov(at)
        rows.append(
            {
                "km": cutoff,
                "std_error": found.std_error,
                "df": found.df,
                "ci_low": found.ci_low,
                "ci_high": found.ci_high,
                "note": at.variance(estimate.influence, estimate.units).note,
            }
        )
    return pd.DataFrame(rows, columns=["km", "std_error", "df", "ci_low", "ci_high", "note"])
