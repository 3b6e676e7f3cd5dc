"""A wild bootstrap of influence values over blocks of space: a second opinion beside Conley's.

Blocks of units, laid at random origins and angles, are multiplied by random draws (the wild
bootstrap of clusters; Cameron, Gelbach & Miller 2008, Review of Economics and Statistics 90:414),
and what is left is made to sum to zero anew each time. How much the variance of the draws loses by
that, and how much it varies, corrects the variance and gives its degrees of freedom. No model is
fitted again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eocausal.effects import Influence, Variance
from eocausal.errors import EstimationError, OneClusterError
from eocausal.estimators.conley import FEW_PATCHES, places_of
from eocausal.estimators.inference import cluster_sums

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from eocausal.estimators.conley import Projected
    from eocausal.estimators.neighbours import Places

__all__ = ["SpatialBootstrap", "block_draws", "multipliers", "on_equal_area", "random_blocks"]


@dataclass(frozen=True, slots=True)
class SpatialBootstrap:
    """Units in one block of ``km`` depend on each other; block bounds are many, and chance.

    Parameters
    ----------
    km
        Edge of the blocks in kilometres: about twice the distance at which dependence ends, since
        bounds cut through what belongs together.
    repetitions
        Bootstrap draws over all origins.
    seed
        Of origins and draws.
    origins
        Random origins and angles of the grid of blocks.
    lon, lat
        Columns in degrees; blocks lie on an equal-area plane around the middle of the units.
    projected
        Columns in metres to be used instead.
    """

    km: float
    repetitions: int = 4000
    seed: int = 0
    origins: int = 200
    lon: str = "lon"
    lat: str = "lat"
    projected: Projected | None = None

    def __post_init__(self) -> None:
        if not 0 < self.km < math.inf:
            raise EstimationError(
                f"Blocks of {self.km} km have no area.",
                cause="Units of one block are drawn together.",
                next_step="Give a positive edge, e.g. SpatialBootstrap(km=100).",
            )
        if not (self.origins >= 1 and self.repetitions >= 2 * self.origins):
            raise EstimationError(
                f"{self.repetitions} repetitions over {self.origins} origins.",
                cause="The spread of draws is taken at each origin, which needs two at least.",
                next_step="Use more repetitions or fewer origins.",
            )

    def variance(self, influence: Influence, units: pd.DataFrame) -> Variance:
        """Return the variance of the draws, corrected, with its degrees of freedom.

        The variance is the mean over origins of Σ_b (Σ_{i∈b} ψ_i)², the exact variance of the
        draws, over the share of it that is left when influence values sum to zero. Degrees of
        freedom are 2m²/v, with m and v the mean and variance of what is left among the draws of
        one origin (Satterthwaite 1946).

        Raises
        ------
        OneClusterError
            If all units lie in one block.
        MissingColumnError, EstimationError
            If coordinates are missing.
        """
        places = places_of(units.loc[influence.labels], self.lon, self.lat, self.projected)
        rng = np.random.default_rng(self.seed)
        psi = places.sums(influence.hc2[:, None])[:, 0]
        count = np.bincount(places.at, minlength=len(psi)).astype(float)
        plane = on_equal_area(places)
        whole, left, spread = np.zeros((3, self.origins))
        for k in range(self.origins):
            block = random_blocks(plane, self.km, rng)
            sums, size = cluster_sums(psi, block), cluster_sums(count, block)
            if len(sums) < 2:
                raise OneClusterError(
                    f"All units lie in one block of {self.km:g} km.",
                    cause="With one block no variance can be estimated.",
                    next_step="Use shorter blocks, or another variance.",
                )
            draws = multipliers(self.repetitions // self.origins, len(sums), rng)
            whole[k], left[k], squares = block_draws(sums, size, draws)
            spread[k] = squares.var(ddof=1)
        value, kept, noise = float(whole.mean()), float(left.mean()), float(spread.mean())
        if not (kept > 1e-9 * value and noise > 0):
            return Variance(math.nan, influence.df, "Blocks have no sums that differ from zero.")
        df = 2 * kept**2 / noise
        note = ""
        if df < FEW_PATCHES:
            note = (
                f"Blocks of {self.km:g} km are worth about {df:.0f} independent ones: the interval "
                "may still be too short."
            )
        return Variance(value**2 / kept, min(df, influence.df), note)


def on_equal_area(places: Places) -> NDArray[np.float64]:
    """Return (p, 2) kilometres on a plane where areas are true.

    Places on the sphere are projected around their middle (Lambert's azimuthal projection): at
    2,000 km from it lengths are wrong by about 1 %, at 4,500 km by 6 %.
    """
    if places.radius_km is None:
        return places.points
    unit = places.points / places.radius_km
    middle = unit.mean(axis=0)
    if not np.linalg.norm(middle) > 1e-6:
        middle = unit[0]
    middle = middle / np.linalg.norm(middle)
    smallest = np.eye(3)[int(np.abs(middle).argmin())]
    first = np.cross(middle, smallest)
    first /= np.linalg.norm(first)
    axes = np.stack([first, np.cross(middle, first)], axis=1)
    scale = np.sqrt(2 / np.maximum(1 + unit @ middle, 1e-12))
    return np.asarray(places.radius_km * scale[:, None] * (unit @ axes))


def random_blocks(
    plane: NDArray[np.float64], km: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Give (p, 2) km the numbers (p,) 0..G-1 of squares of random origin and angle."""
    angle = rng.uniform(0, math.pi / 2)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    cell = np.floor(plane @ turn / km + rng.random(2)).astype(np.int64)
    cell -= cell.min(axis=0)
    code = cell[:, 0] * (int(cell[:, 1].max()) + 1) + cell[:, 1]
    return np.unique(code, return_inverse=True)[1].reshape(-1).astype(np.int64)


def multipliers(repetitions: int, blocks: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw multipliers of mean 0, variance 1 and fourth moment 5/3; returns (R, G).

    They are ±√(5/3) with probability 3/10 each, and 0. With that fourth moment squares of
    multiplied block sums have, over samples, the variance of squares of normal sums:
    E[S⁴](E[g⁴] - 1) = 3V²·2/3 = 2V².
    """
    sign = np.array([-1, -1, -1, 0, 0, 0, 0, 1, 1, 1]) * math.sqrt(5 / 3)
    return np.asarray(sign[rng.integers(0, 10, (repetitions, blocks))])


def block_draws(
    sums: NDArray[np.float64], size: NDArray[np.float64], draws: NDArray[np.float64]
) -> tuple[float, float, NDArray[np.float64]]:
    """Multiply the sums of blocks by draws, and take from each block its share of the total.

    Parameters
    ----------
    sums
        (G,) influence values summed by block.
    size
        (G,) units in each block.
    draws
        (R, G) multipliers of mean 0 and variance 1.

    Returns
    -------
    The variance of the sum of all multiplied values; what squared sums of blocks add up to on
    average once values are made to sum to zero; (R,) what they add up to in each draw.
    """
    share = size / size.sum()
    square = sums**2
    whole = float(square.sum())
    left = whole - 2 * float(square @ share) + whole * float(share @ share)
    moved = draws * sums
    moved -= moved.sum(axis=1)[:, None] * share
    return whole, left, (moved**2).sum(axis=1)
