"""Worlds in which some units have no counterpart, so that no average over all can be known.

Two ways in which it happens: everyone in a region is treated, and the untreated were taken from
elsewhere, a survey in which hardly anyone resembles the treated (as the controls CPS-1 and PSID-1
of LaLonde 1986, American Economic Review 76:604; Dehejia & Wahba 1999, JASA 94:1053).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eocausal.errors import DesignError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "ComparisonSurveyConfig",
    "SaturatedRegionConfig",
    "simulate_comparison_survey",
    "simulate_saturated_region",
]


@dataclass(frozen=True, slots=True)
class SaturatedRegionConfig:
    """Decisions behind a country in which everyone east of a meridian is treated.

    Elsewhere ``W ~ Bern(1 / (1 + exp(-(x - 0.5))))``; ``Y = effect * W + x + north + N(0, 1)``,
    with x ~ N(0, 1) and north the standardised latitude.

    Parameters
    ----------
    n
        Units, spread evenly over longitudes 20 to 30 and latitudes -5 to 5.
    meridian
        East of it everyone is treated, and the country is called East instead of West. At 30
        there is no such region, and nothing to refuse.
    effect
        Of treatment on everyone.

    Raises
    ------
    DesignError
        If there are no units, or the meridian lies outside the country.
    """

    n: int = 1000
    meridian: float = 28.0
    effect: float = 1.0

    def __post_init__(self) -> None:
        if self.n < 10 or not 20 < self.meridian <= 30:
            raise DesignError(
                f"A country of {self.n} units, saturated east of {self.meridian}.",
                cause="It spans longitudes 20 to 30, with units of both arms in its west.",
                next_step="Use n=1000 and meridian=28.",
            )


@dataclass(frozen=True, slots=True)
class ComparisonSurveyConfig:
    """Decisions behind a small programme and a survey of other people.

    Columns x1 to x8 are standard normal among the surveyed; among the treated their mean is
    shifted, by ``distance`` in all (Mahalanobis), x1 most. The programme changes the outcome by
    ``effect - 0.5 * (x1 - shift of x1)``.

    Few of the treated resemble the surveyed and must speak for them all. With unpenalised logistic
    probabilities the effective sample size of the treated is about 10 under the defaults (as with
    the CPS-1 controls) and about 2 under :meth:`psid` (as with the PSID-1 controls).

    Parameters
    ----------
    n_treated, n_control
        Units.
    distance
        Between the means of treated and surveyed, in standard deviations.
    alike
        This many of the treated are drawn as the surveyed are, without shift.
    effect
        Mean effect on the treated who are not alike.

    Raises
    ------
    DesignError
        If an arm is empty or the distance negative.
    """

    n_treated: int = 185
    n_control: int = 15_992
    distance: float = 2.4
    alike: int = 0
    effect: float = 1.0

    def __post_init__(self) -> None:
        empty = min(self.n_treated, self.n_control) < 2
        if empty or not self.distance >= 0 or not 0 <= self.alike <= self.n_treated:
            raise DesignError(
                f"{self.n_treated} treated, {self.alike} of them as the {self.n_control} surveyed, "
                f"the others {self.distance} apart.",
                cause="Each arm has units, and neither a number nor a distance is negative.",
                next_step="Use the defaults or ComparisonSurveyConfig.psid().",
            )

    @classmethod
    def psid(cls) -> ComparisonSurveyConfig:
        """Return a survey as large and as different as the PSID-1 controls."""
        return cls(n_control=2490, distance=3.0, alike=2)

    @property
    def ate(self) -> float:
        """Expected average effect over treated and surveyed."""
        share = (self.n_control + self.alike) / (self.n_treated + self.n_control)
        return self.effect + 0.5 * share * float(self.shift()[0])

    def shift(self) -> NDArray[np.float64]:
        """Return (8,) means of the treated."""
        direction = 0.7 ** np.arange(8)
        return np.asarray(self.distance * direction / np.linalg.norm(direction))


def simulate_saturated_region(
    config: SaturatedRegionConfig, rng: np.random.Generator
) -> pd.DataFrame:
    """Draw a country of which one region has treated units only.

    Parameters
    ----------
    config
        The world.
    rng
        Source of every draw.

    Returns
    -------
    pandas.DataFrame
        ``treated``, ``outcome``, ``x``, ``country`` (West or East), ``lon``, ``lat`` (degrees),
        ``propensity`` (1 in the East).
    """
    n = config.n
    lon, lat = rng.uniform(20, 30, n), rng.uniform(-5, 5, n)
    x = rng.standard_normal(n)
    east = lon > config.meridian
    propensity = np.where(east, 1.0, 1 / (1 + np.exp(0.5 - x)))
    treated = (rng.random(n) < propensity).astype(np.int64)
    north = lat / (10 / np.sqrt(12))
    outcome = config.effect * treated + x + north + rng.standard_normal(n)
    return pd.DataFrame(
        {
            "treated": treated,
            "outcome": outcome,
            "x": x,
            "country": np.where(east, "East", "West").astype(object),
            "lon": lon,
            "lat": lat,
            "propensity": propensity,
        },
        index=pd.RangeIndex(n, name="unit"),
    )


def simulate_comparison_survey(
    config: ComparisonSurveyConfig, rng: np.random.Generator
) -> pd.DataFrame:
    """Draw the participants of a programme and the people of a survey.

    Parameters
    ----------
    config
        The world.
    rng
        Source of every draw.

    Returns
    -------
    pandas.DataFrame
        ``treated``, ``outcome``, ``x1`` to ``x8``, ``effect`` (of each unit).
    """
    n = config.n_treated + config.n_control
    treated = (np.arange(n) < config.n_treated).astype(np.int64)
    shift = config.shift()
    shifted = (np.arange(n) >= config.alike) & (treated == 1)
    x = rng.standard_normal((n, 8)) + shifted[:, None] * shift
    effect = config.effect - 0.5 * (x[:, 0] - shift[0])
    outcome = x @ np.linspace(1, 0.3, 8) + effect * treated + rng.standard_normal(n)
    columns = {f"x{k + 1}": x[:, k] for k in range(8)}
    return pd.DataFrame(
        {"treated": treated, "outcome": outcome, **columns, "effect": effect},
        index=pd.RangeIndex(n, name="unit"),
    )
