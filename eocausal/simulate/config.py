"""Every decision behind a simulated world, as frozen dataclasses."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from datetime import date
from math import ceil, sqrt

import numpy as np

from eocausal.errors import DesignError, LeakageError

__all__ = [
    "AidModel",
    "ByNeighborhood",
    "ByPerson",
    "CoastModel",
    "EffectSurface",
    "OutcomeModel",
    "WorldConfig",
]

CELL_GAP_PX = 6
BORDER_PX = 8
CELLS_USED = 0.46


@dataclass(frozen=True, slots=True)
class ByNeighborhood:
    """Whole neighborhoods are assigned: complete randomization with a fixed number treated.

    With ``blocked``, the number treated is fixed within each of the four regions (``stratum``).
    """

    prob: float = 0.5
    blocked: bool = False


@dataclass(frozen=True, slots=True)
class ByPerson:
    """Single people are assigned: complete randomization with a fixed number treated.

    With ``blocked``, the number treated is fixed within each neighborhood.
    """

    prob: float = 0.5
    blocked: bool = False


@dataclass(frozen=True, slots=True)
class EffectSurface:
    """Effect of the trial's treatment on income, as a function of what the image shows.

    tau_j = mean + settlement * s_j + greenness * g_j + interaction * (s_j * g_j - mean(s * g)),
    where s_j and g_j are the built-up and vegetated share of the chip, standardized over the
    country. Units: those of the outcome (its standard deviation is about 1).
    """

    mean: float = 0.5
    settlement: float = 0.27
    greenness: float = -0.21
    interaction: float = 0.0


@dataclass(frozen=True, slots=True)
class OutcomeModel:
    """Untreated income of a person i in neighborhood j.

    y_ij(0) = settlement * s_j + greenness * g_j + curvature * (s_j^2 - 1)
    + age * (age_ij - 35) / 10 + female * female_ij + educ * (educ_ij - 7) + u_j + e_ij,
    with Var(u_j) = icc * (Var(u_j) + Var(e_ij)): ``icc`` is the intraclass correlation given
    the covariates. ``noise`` is the standard deviation of u_j + e_ij.
    """

    settlement: float = 0.3
    greenness: float = -0.1
    curvature: float = 0.04
    age: float = 0.08
    female: float = -0.2
    educ: float = 0.06
    noise: float = 0.82
    icc: float = 0.1


@dataclass(frozen=True, slots=True)
class AidModel:
    """Aid projects placed where the image says, and the yearly wealth they change.

    The log-odds that a neighborhood gets a project of a sector are
    ``intercept + settlement * s_j + greenness * g_j``. A transport project adds
    ``transport + transport_settlement * s_j`` to the wealth of every year from its start on;
    a health project adds nothing (a placebo treatment with the same placement).
    """

    intercept: float = -0.9
    settlement: float = 0.7
    greenness: float = -0.4
    transport: float = 0.4
    transport_settlement: float = -0.1
    wealth_noise: float = 0.3
    start_years: tuple[int, ...] = (2018, 2019, 2020)
    wealth_years: tuple[int, ...] = (2014, 2015, 2016, 2017, 2018, 2019, 2020, 2021)


@dataclass(frozen=True, slots=True)
class CoastModel:
    """Monthly Kd490 of a coast with one lasting event in the impact zone (units m-1).

    ``effect`` is added to every pixel of the impact zone from ``event`` on. ``ar`` is the
    monthly autocorrelation of the shared and of the zones' own disturbances.
    """

    first: str = "1998-01"
    last: str = "2024-12"
    event: str = "2015-06"
    effect: float = 0.012
    base: float = 0.08
    season: float = 0.01
    ar: float = 0.6
    shared_sd: float = 0.006
    zone_sd: float = 0.003
    pixel_sd: float = 0.004
    cloud_share: float = 0.25


@dataclass(frozen=True, slots=True)
class WorldConfig:
    """All decisions behind a world; two equal configurations give the same files.

    Parameters
    ----------
    seed
        Seed of everything.
    n_neighborhoods, n_trial
        Neighborhoods in the country, and those of them in the trial.
    people_per_neighborhood
        Mean number of people of the trial in a neighborhood (1 + Poisson).
    chip_px, resolution
        Side of a neighborhood in pixels, and the pixel in metres.
    years, scenes_per_year
        Years of imagery, and the dates per year and UTM zone.
    cloud_share, nodata_share
        Share of each scene under cloud (mean over scenes), and outside the swath.
    growth
        Yearly growth of the built-up share.
    selection
        Log-odds by which a standard deviation of settlement makes it likelier that a
        neighborhood is in the trial.
    assignment
        Who is assigned: :class:`ByNeighborhood` or :class:`ByPerson`.
    trial_start
        ISO date after the last image.

    Raises
    ------
    DesignError
        If the numbers cannot make a trial.
    LeakageError
        If an image would be taken after the trial starts.
    """

    seed: int = 0
    n_neighborhoods: int = 600
    n_trial: int = 300
    people_per_neighborhood: float = 8.0
    chip_px: int = 32
    resolution: float = 30.0
    years: tuple[int, ...] = (2015, 2016, 2017)
    scenes_per_year: int = 3
    cloud_share: float = 0.2
    nodata_share: float = 0.05
    growth: float = 0.04
    selection: float = 0.6
    assignment: ByNeighborhood | ByPerson = ByNeighborhood()
    trial_start: str = "2018-01-01"
    effects: EffectSurface = field(default_factory=EffectSurface)
    outcome: OutcomeModel = field(default_factory=OutcomeModel)
    aid: AidModel = field(default_factory=AidModel)
    coast: CoastModel = field(default_factory=CoastModel)

    def __post_init__(self) -> None:
        problems = [
            text
            for wrong, text in (
                (not 4 <= self.n_trial <= self.n_neighborhoods, "n_trial is not in 4..n"),
                (not 0 < self.assignment.prob < 1, "assignment.prob is not in (0, 1)"),
                (self.people_per_neighborhood < 1, "people_per_neighborhood is below 1"),
                (self.chip_px < 8, "chip_px is below 8"),
                (self.resolution <= 0, "resolution is not positive"),
                (not self.years or self.scenes_per_year < 1, "there is no scene"),
                (not 0 <= self.cloud_share <= 0.6, "cloud_share is not in 0..0.6"),
                (not 0 <= self.nodata_share <= 0.4, "nodata_share is not in 0..0.4"),
                (not 0 <= self.outcome.icc < 1, "outcome.icc is not in [0, 1)"),
            )
            if wrong
        ]
        if problems:
            raise DesignError(
                f"This world cannot be made: {'; '.join(problems)}.",
                cause="A simulated trial needs two arms, people and images.",
                next_step="Correct these fields of WorldConfig.",
            )
        last_year, start = max(self.years), date.fromisoformat(self.trial_start)
        if date(last_year, 12, 31) >= start:
            raise LeakageError(
                f"Images of {last_year} are not all taken before the trial starts ({start}).",
                cause="A later image shows what the treatment did.",
                next_step="Choose earlier years or a later trial_start.",
            )

    def rng(self, stream: str) -> np.random.Generator:
        """Return the generator of a named stream, independent of all other streams."""
        return np.random.default_rng([self.seed, zlib.crc32(stream.encode())])

    @property
    def pitch_px(self) -> int:
        """Side of the cell that holds one neighborhood, in pixels."""
        return self.chip_px + CELL_GAP_PX

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of cells; somewhat under half of them hold a neighborhood."""
        wanted = max(self.n_neighborhoods / CELLS_USED, 12.0)
        rows = ceil(sqrt(wanted * 0.75))
        return rows, ceil(wanted / rows)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the country in pixels."""
        rows, columns = self.cells
        return rows * self.pitch_px + 2 * BORDER_PX, columns * self.pitch_px + 2 * BORDER_PX
