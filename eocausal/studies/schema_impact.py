"""What a study of an event may say: series, event, controls, model, checks, water, land, map."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from eocausal.studies.schema import Opening, ReportSection, RootedData
from eocausal.studies.schema_base import (
    Choice,
    IsoDate,
    NoOptions,
    OneOrMore,
    Section,
    Share,
    Text,
    several,
    switch,
)
from eocausal.studies.schema_impact_water import LandCoverSection, MapSection, OpticsSection

__all__ = [
    "BreaksSection",
    "ControlSection",
    "GridSection",
    "ImpactChecks",
    "ImpactStudy",
    "ModelSection",
    "PublishedSection",
    "TableSection",
    "VariantSection",
    "ZoneSection",
]

Longitude = Annotated[float, Field(ge=-180, le=360)]
Latitude = Annotated[float, Field(ge=-90, le=90)]


class TableSection(Section):
    """A table with a row for each time; its columns are series: ``NAME.COLUMN``."""

    file: Text = Field(description="CSV, TSV, Parquet or Stata.")
    time: Text = Field(default="time", description="Column with dates.")


class MaskSection(Section):
    """The pixels where another variable of the file has a value."""

    variable: Text
    values: Annotated[
        tuple[int, ...],
        BeforeValidator(several, json_schema_input_type=int | list[int]),
        Field(min_length=1),
    ]


class PolygonsSection(Section):
    """The pixels whose centres lie in the polygons of a vector file."""

    file: Text
    where: dict[str, Text] = Field(
        default={}, description="Only features with these values, e.g. {place: north-west}."
    )


class ZoneSection(Choice):
    """Which pixels of a grid make a zone; its mean weighs them by the cosine of latitude."""

    mask: MaskSection | None = None
    box: tuple[Longitude, Latitude, Longitude, Latitude] | None = Field(
        default=None, description="West, south, east, north in degrees."
    )
    polygons: PolygonsSection | None = None


class GridSection(Section):
    """A gridded variable over time; its zones are series: ``NAME.ZONE``."""

    file: Text = Field(description="NetCDF file or Zarr store.")
    variable: Text
    select: dict[str, NonNegativeInt] = Field(
        default={}, description="Position along other dimensions, e.g. {depth: 0}."
    )
    zones: dict[str, ZoneSection] = Field(min_length=1)
    least_seen: Share = Field(
        default=0.1, description="Times with a smaller share of a zone seen are missing there."
    )


class ImpactData(RootedData):
    """What is read; files are relative to ``root``, and ``root`` to the study file."""

    tables: dict[str, TableSection] = Field(default={})
    grids: dict[str, GridSection] = Field(default={})

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.tables and not self.grids:
            raise ValueError("neither tables nor grids are given; there is no series")
        twice = sorted(set(self.tables) & set(self.grids))
        if twice:
            raise ValueError(f"{', '.join(twice)} is the name of a table and of a grid")
        return self


class OutcomeSection(Section):
    """The series that the event may have changed."""

    series: Text = Field(description="TABLE.COLUMN or GRID.ZONE.")
    factor: PositiveFloat = Field(
        default=1.0, description="What numbers of the file are multiplied with to be in units."
    )
    units: Text = Field(default="1", description="Such as m-1, or 0.01 m-1.")
    looks_share: Share = Field(
        default=0.0,
        description="Share of the residual's variance, where a usual share of the zone was seen, "
        "that comes from having seen little of it; 0: times count alike.",
    )


class EventSection(Section):
    """What happened, and when; see :class:`eocausal.Event`."""

    name: Text = Field(default="the event", description="As it is named in a sentence.")
    when: IsoDate = Field(description="First time that counts as after.")
    end: IsoDate | None = Field(default=None, description="Last time that counts; default all.")
    learn_until: IsoDate | None = Field(
        default=None, description="Last time to learn from; default up to the event."
    )
    reach_km: PositiveFloat | None = Field(
        default=None, description="Controls nearer than this are refused."
    )


class ControlSection(Section):
    """A series that the event did not reach and that moves with the outcome."""

    series: Text
    name: Text | None = Field(default=None, description="Default: as the series.")
    factor: PositiveFloat = 1.0
    distance_km: PositiveFloat | None = Field(default=None, description="From the event.")
    same_record: bool = Field(
        default=True,
        description="Whether it comes from the sensors of the outcome, so that their dates are "
        "held against it.",
    )


def _control(value: object) -> object:
    return {"series": value} if isinstance(value, str) else value


Control = Annotated[
    ControlSection, BeforeValidator(_control, json_schema_input_type=str | ControlSection)
]


class LearnedSection(NoOptions):
    """Ours: autocorrelation and the walk of the level are learned."""


class CompatibleSection(Section):
    """The priors of R's CausalImpact."""

    level_sd: PositiveFloat = 0.01


class PriorChoice(Choice):
    """What is believed beforehand."""

    learned: LearnedSection | None = None
    compatible: CompatibleSection | None = None


TrendName = Literal["level", "line", "local_linear", "semi_local"]
Transform = Literal["none", "log", "logit"]


class ModelSection(Section):
    """What the series is made of; see :class:`eocausal.StructuralModel`."""

    season: NonNegativeInt = Field(
        default=0, description="Times in a cycle, 12 for months in a year; 0: no season."
    )
    trend: TrendName = "level"
    prior: PriorChoice = PriorChoice(learned=LearnedSection())
    transform: Transform = Field(
        default="none", description="Scale on which parts add up; effects are on the original one."
    )
    dynamic: bool = Field(default=False, description="Coefficients of controls walk over time.")
    heavy_tails: bool = Field(default=False, description="The residual is Student's t.")
    draws: Annotated[int, Field(ge=100, le=100_000)] = 10_000
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95


class ParametersSection(Section):
    """Parameters of a model by maximum likelihood that are taken as given."""

    noise: PositiveFloat = Field(description="Variance of the irregular part.")
    level: NonNegativeFloat = 0.0
    slope: NonNegativeFloat = 0.0
    season: NonNegativeFloat = 0.0
    coefficients: dict[str, float] = Field(default={}, description="By name of the control.")


class VariantSection(Section):
    """The same question asked otherwise: what is not given is as in ``model``."""

    method: Literal["bayes", "maximum_likelihood"] = Field(
        default="bayes",
        description="maximum_likelihood: level and slope that walk, a season, and controls, fitted "
        "by maximum likelihood.",
    )
    parameters: ParametersSection | None = Field(
        default=None, description="With maximum_likelihood: use these instead of the best."
    )
    season: NonNegativeInt | None = None
    trend: TrendName | None = None
    prior: PriorChoice | None = None
    transform: Transform | None = None
    dynamic: bool | None = None
    controls: Annotated[tuple[Text, ...], OneOrMore] | None = Field(
        default=None, description="Names of the controls to use; [] for none; default all."
    )


def _variants() -> dict[str, VariantSection]:
    """Return the questions that every reader asks."""
    r = PriorChoice(compatible=CompatibleSection())
    return {
        "without controls": VariantSection(controls=()),
        "straight line": VariantSection(trend="line"),
        "R's CausalImpact": VariantSection(prior=r, season=0),
    }


class SensorSection(Section):
    """A date at which the record changed hands."""

    date: IsoDate
    what: Text


class BreaksSection(Section):
    """Breakpoints of outcome and controls; see :func:`eocausal.breakpoints`."""

    changes: Literal["level", "trend", "all"] = "level"
    trend: bool = False
    harmonics: NonNegativeInt = 2
    min_segment: PositiveFloat = 0.15
    most: PositiveInt | None = None
    choose: Literal["sequential", "bic", "lwz"] = "sequential"
    draws: Annotated[int, Field(ge=99, le=100_000)] = Field(
        default=999, description="Of red noise, for tests and intervals."
    )
    sensors: tuple[SensorSection, ...] = Field(
        default=(), description="Dates at which sensors came or went: placebo breaks."
    )
    compare: bool = Field(
        default=False, description="Beside PELT, binary segmentation and windows (ruptures)."
    )


class InTimeSection(Section):
    """Events that did not happen, before the real one, with the same horizon."""

    horizon: PositiveInt | None = Field(
        default=None, description="Times counted after each; default as many as after the event."
    )
    step: PositiveInt | None = Field(
        default=None, description="Times between two of them; default a quarter of the horizon."
    )
    least: PositiveInt | None = Field(
        default=None,
        description="Fewest times to learn from; default the horizon, 36 or three cycles.",
    )


class InSpaceSection(Section):
    """Series that the event did not reach take the treated role in turn."""

    series: Annotated[tuple[Text, ...], OneOrMore] = Field(
        default=(), description="TABLE.COLUMN or GRID.ZONE; GRID.*: pixels in no zone."
    )


class ImpactChecks(Section):
    """Checks of the effect; false leaves one out."""

    in_time: Annotated[
        InTimeSection | None,
        BeforeValidator(switch, json_schema_input_type=bool | InTimeSection | None),
    ] = InTimeSection()
    in_space: Annotated[
        InSpaceSection | None,
        BeforeValidator(switch, json_schema_input_type=bool | InSpaceSection | None),
    ] = InSpaceSection()
    drift: bool = True
    leave_out_controls: bool = True
    leave_out_years: bool = True
    control_breaks: bool = True
    predictive: bool = True


class PublishedSection(Section):
    """What a paper prints, to be set beside the study's own numbers."""

    source: Text = Field(description="Authors and year.")
    reference: Text | None = Field(default=None, description="Title, where it appeared, DOI.")
    average: float | None = None
    relative: float | None = Field(default=None, description="0.14 for 14 %.")
    cumulative: float | None = None
    p_value: float | None = None
    placebo_p_value: float | None = None
    placebos: PositiveInt | None = None
    controls: Annotated[tuple[Text, ...], OneOrMore] | None = Field(
        default=None, description="Names of the controls it used; default all."
    )
    depth_change_m: float | None = Field(default=None, description="Of the euphotic depth.")


class ImpactStudy(Opening):
    """A study of what an event did to a series."""

    data: ImpactData
    outcome: OutcomeSection
    event: EventSection
    controls: tuple[Control, ...] = ()
    model: ModelSection = ModelSection()
    variants: dict[str, VariantSection] = Field(default_factory=_variants)
    breaks: Annotated[
        BreaksSection | None,
        BeforeValidator(switch, json_schema_input_type=bool | BreaksSection | None),
    ] = BreaksSection()
    checks: ImpactChecks = ImpactChecks()
    optics: Annotated[
        OpticsSection | None,
        BeforeValidator(switch, json_schema_input_type=bool | OpticsSection | None),
    ] = None
    land_cover: LandCoverSection | None = None
    map: MapSection | None = None
    published: PublishedSection | None = None
    report: ReportSection = ReportSection()

    @property
    def title(self) -> str:
        """Title of the report."""
        return self.report.title or self.study
