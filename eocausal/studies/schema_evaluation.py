"""What a study of placed projects may say: projects, placement, adjustment, corrections."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from eocausal.studies.schema import Ingestion, PlacesData, ReportSection
from eocausal.studies.schema_base import (
    Choice,
    IsoDate,
    NoOptions,
    OneOrMore,
    Section,
    Text,
    Texts,
)
from eocausal.studies.schema_encoder import EncoderChoice, RandomConvSection
from eocausal.studies.schema_imagery import ImagerySection

__all__ = ["Evaluation", "EvaluationEstimate", "KindSection", "TrimChoice"]

Adjustment = Literal["table", "image", "both"]


class ProjectsSection(Section):
    """The table of projects, one row per location."""

    file: Text
    lon: Text = Field(default="lon", description="Column in degrees.")
    lat: Text = Field(default="lat", description="Column in degrees.")
    start: Text = Field(default="start", description="Column with the date or year of begin.")
    funder: Text | None = Field(default=None, description="Column; default: all have one funder.")
    sector: Text | None = Field(default=None, description="Column; default: all have one sector.")
    names: dict[str, Text] = Field(
        default={}, description="Readable names of funders and sectors by those of the table."
    )


class OutcomesSection(Section):
    """A table with a row per neighborhood and year, where outcomes are not among the places.

    Its other columns are known by the name of the column and the year: ``wealth_2021``.
    """

    file: Text
    neighborhood: Text = Field(default="neighborhood", description="Column with the place's id.")
    year: Text = Field(default="year", description="Column.")


class EvaluationData(PlacesData):
    """What an evaluation reads: places with outcomes and covariates, projects, imagery."""

    outcomes: OutcomesSection | None = None
    projects: ProjectsSection
    imagery: ImagerySection
    encoder: EncoderChoice = EncoderChoice(random_conv=RandomConvSection())


class PlacementSection(Section):
    """Which projects count as treatment of a neighborhood; see :class:`eocausal.Placement`."""

    year: Text = Field(
        description="Column of the neighborhoods: year of the outcome; or the year, if it is one."
    )
    first: IsoDate = Field(description="Projects that began before are history, not treatment.")
    within_km: PositiveFloat = 25.0
    years_before: Annotated[int, Field(ge=0)] = 1
    donut_km: PositiveFloat | None = Field(
        default=None, description="Units with such a project this near, but not near, are left out."
    )
    within: Text | None = Field(
        default=None,
        description="Column (country): compare only where the funder has such a project there.",
    )
    fewest: PositiveInt = Field(
        default=100, description="Kinds of projects with fewer treated units are only listed."
    )


class EvaluationDesign(Section):
    """Who was treated."""

    placement: PlacementSection


class DropSection(Section):
    """Units with a smaller probability are left out."""

    below: Annotated[float, Field(gt=0, lt=0.5)] = 0.05


class ClipSection(Section):
    """Smaller probabilities are raised to it."""

    at: Annotated[float, Field(gt=0, lt=0.5)] = 0.01


class TrimChoice(Choice):
    """What is done about extreme probabilities."""

    none: NoOptions | None = None
    crump: NoOptions | None = None
    drop: DropSection | None = None
    clip: ClipSection | None = None


class FoldsSection(Section):
    """Spatial blocks that are held out whole."""

    blocks_km: PositiveFloat = 100.0
    k: Annotated[int, Field(ge=2, le=50)] = 5
    buffer_km: PositiveFloat | None = None


class KindSection(Section):
    """One kind of project."""

    funder: Text
    sector: Text


class CorrectSection(Section):
    """How effects on outcomes predicted from images are corrected by those that were measured."""

    predictions: Texts = Field(description="Columns with predictions of the outcome.")
    labelled: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.2,
        description="Share of units, drawn at random, whose measured outcome is used for the "
        "correction; the others play units that were never surveyed.",
    )


class EvaluationEstimate(Section):
    """What is estimated, adjusted for what, and with which variance."""

    outcome: Text
    covariates: Texts
    history: bool = Field(
        default=True, description="Adjust for the numbers of projects near that began before."
    )
    adjust: Annotated[tuple[Adjustment, ...], OneOrMore, Field(min_length=1)] = (
        "table", "image", "both",
    )  # fmt: skip
    score: Literal["aipw", "hajek"] = "aipw"
    estimand: Literal["ATE", "ATT", "ATO"] = "ATE"
    otherwise: Literal["ATO", "ATT", "none"] = Field(
        default="ATO", description="Population of the effect where the first one is refused."
    )
    propensity: Literal["ridge", "boost"] = "ridge"
    trim: TrimChoice = TrimChoice(none=NoOptions())
    folds: FoldsSection = FoldsSection()
    conley_km: PositiveFloat = 100.0
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    headline: KindSection | None = Field(
        default=None,
        description="The kind of project that is looked at closely; default that with the most "
        "treated units among those with overlap.",
    )
    correct: CorrectSection | None = None
    map: bool = Field(
        default=True,
        description="Whether the effect is mapped by place; needs AIPW and the ATE.",
    )


class EvaluationChecks(Section):
    """Checks of the headline; balance, overlap and the dates of images are always checked."""

    placebo: tuple[Text, ...] = Field(
        default=(), description="Columns that projects cannot have changed."
    )
    leave_out: Text | None = Field(
        default=None, description="Column (country) whose groups are left out one by one."
    )
    spillover_km: tuple[PositiveFloat, ...] = (10.0, 25.0, 50.0, 100.0)
    benchmarks: Annotated[tuple[Text, ...], OneOrMore] = Field(
        default=(),
        description="Covariates that something hidden is compared with; default all but that of "
        "design.placement.within, whose many values together are like no single hidden variable.",
    )
    sensitivity: tuple[PositiveFloat, ...] = Field(
        default=(1.25, 1.5, 2.0, 3.0),
        description="Factors by which odds of treatment may differ between units that look alike.",
    )


class Evaluation(Ingestion):
    """A study of projects that were placed: by funder and sector, with images and tables."""

    data: EvaluationData
    design: EvaluationDesign
    estimate: EvaluationEstimate
    checks: EvaluationChecks = EvaluationChecks()
    report: ReportSection = ReportSection()

    @property
    def title(self) -> str:
        """Title of the report."""
        return self.report.title or self.study
