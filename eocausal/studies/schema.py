"""What a study file may say: the sections of the YAML, their types and their defaults.

Everything is closed (unknown keys are errors) and frozen. A choice with options of its own is
written as its name or as a mapping with one key: ``hc2`` or ``{conley: {km: 50}}``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from eocausal.studies.schema_base import (
    Choice,
    IsoDate,
    NoOptions,
    OneOrMore,
    Section,
    Text,
    several,
    switch,
)
from eocausal.studies.schema_encoder import (
    EmbeddingSection,
    EncoderChoice,
    RandomConvSection,
    SalienceSection,
)
from eocausal.studies.schema_imagery import ImagerySection, PanelSection

__all__ = [
    "BasisChoice",
    "CheckChoice",
    "DataSection",
    "DesignSection",
    "EstimateSection",
    "Ingestion",
    "Opening",
    "PlacesData",
    "RootedData",
    "Study",
    "VcovChoice",
]


class UnitsSection(Section):
    """The table of people, households or villages."""

    file: Text
    id: Text | None = Field(
        default=None, description="Column with a unique id; default the row number."
    )
    neighborhood: Text = Field(
        default="neighborhood", description="Column that links to the places."
    )
    lon: Text = Field(default="lon", description="Column in degrees; if absent, that of the place.")
    lat: Text = Field(default="lat", description="Column in degrees; if absent, that of the place.")


class NeighborhoodsSection(Section):
    """The places: a vector file, or a table of points."""

    file: Text
    id: Text | None = None
    x: Text = "lon"
    y: Text = "lat"
    size_m: PositiveFloat | None = Field(
        default=None, description="Side of the square around a point."
    )
    crs: Text | None = None
    layer: Text | None = None


class RootedData(Section):
    """What is read; files are relative to ``root``, and ``root`` to the study file."""

    root: Text = "."


class PlacesData(RootedData):
    """What is read of places; files are relative to ``root``, and ``root`` to the study file."""

    neighborhoods: NeighborhoodsSection
    imagery: ImagerySection | None = None
    panel: PanelSection | None = None
    encoder: EncoderChoice | None = Field(default=None, description="How chips become features.")
    scheduler: Text = Field(
        default="threads",
        description="Who reads images: threads, threads:4, processes:4, or tcp://HOST:PORT of a "
        "dask scheduler. The results do not depend on it.",
    )
    memory_gb: PositiveFloat = Field(
        default=1.0, description="Memory that a worker may use to build the cube, about."
    )


class DataSection(PlacesData):
    """What a study reads; files are relative to ``root``, and ``root`` to the study file."""

    units: UnitsSection
    imagery: ImagerySection
    encoder: EncoderChoice = EncoderChoice(random_conv=RandomConvSection())


class TrialSection(Section):
    """A randomized trial; see :class:`eocausal.Trial`."""

    arm: Text
    cluster: Text | None = None
    prob: float | str | None = None
    block: Text | None = None
    start: IsoDate | None = Field(default=None, description="ISO date when treatment began.")


class DesignSection(Section):
    """Who was treated, when, and how that was decided."""

    trial: TrialSection


class ClusteredSection(Section):
    """Clustered variance."""

    by: Text | None = Field(default=None, description="Column; default the cluster of the design.")


class ConleySection(Section):
    """Conley's spatial variance."""

    km: PositiveFloat


class VcovChoice(Choice):
    """How units depend on each other."""

    hc2: NoOptions | None = None
    clustered: ClusteredSection | None = None
    conley: ConleySection | None = None


class RidgeSection(Section):
    """Effects linear in the image features."""

    components: PositiveInt = 128


class ForestSection(Section):
    """Effects constant on the leaves of an honest forest."""

    trees: PositiveInt = 300
    min_leaf: PositiveInt = 10
    components: PositiveInt = 32


class BasisChoice(Choice):
    """What the effect may depend on."""

    ridge: RidgeSection | None = None
    forest: ForestSection | None = None


class HeterogeneitySection(Section):
    """How effects that differ between places are learned and tested."""

    basis: BasisChoice = BasisChoice(ridge=RidgeSection())
    folds: Annotated[int, Field(ge=2, le=100)] = 5
    splits: Annotated[int, Field(ge=2, le=1000)] = 20
    targets: Annotated[
        tuple[Literal["autoc", "qini"], ...],
        OneOrMore,
        Field(min_length=1),
    ] = ("autoc", "qini")


class MapSection(Section):
    """Where effects are predicted."""

    to: Literal["neighborhoods"] = Field(
        default="neighborhoods", description="Every place of the file, in the trial or not."
    )
    resolution: PositiveFloat | None = Field(
        default=None, description="Pixel side of effects.tif in m."
    )


Method = Literal["difference_in_means", "lin", "aipw"]


class EstimateSection(Section):
    """What is estimated, and with which variance.

    The first variance that the design implies (clustered where clusters were assigned) belongs to
    the headline estimate, the difference in means.
    """

    outcome: Text
    covariates: Annotated[
        tuple[Text, ...], BeforeValidator(several, json_schema_input_type=str | list[str])
    ] = ()
    missing_covariates: Literal["impute", "drop", "refuse"] = Field(
        default="impute", description="impute: the mean, and an indicator of missingness."
    )
    missing_outcome: Literal["refuse", "drop"] = Field(
        default="refuse",
        description="drop: leave these units out, and list them among the failures.",
    )
    average: Annotated[
        tuple[Method, ...] | None,
        OneOrMore,
    ] = Field(default=None, description="Default: all that the covariates and the imagery allow.")
    vcov: Annotated[
        tuple[VcovChoice, ...],
        BeforeValidator(several, json_schema_input_type=str | list[str | VcovChoice]),
    ] = Field(default=(), description="Besides the variance that the design implies.")
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    heterogeneity: Annotated[
        HeterogeneitySection | None,
        BeforeValidator(switch, json_schema_input_type=bool | HeterogeneitySection | None),
    ] = HeterogeneitySection()
    map: Annotated[
        MapSection | None,
        BeforeValidator(switch, json_schema_input_type=bool | MapSection | None),
    ] = MapSection()
    salience: Annotated[
        SalienceSection | None,
        BeforeValidator(switch, json_schema_input_type=bool | SalienceSection | None),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _no_map_without_heterogeneity(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("heterogeneity", True) in (None, False):
            return {"map": None, **value}
        return value

    @model_validator(mode="after")
    def _salience_of_linear_effects(self) -> Self:
        learned = self.heterogeneity
        if self.salience is not None and (learned is None or learned.basis.ridge is None):
            raise ValueError(
                "salience follows effects that are linear in the features: it needs "
                "heterogeneity: {basis: ridge}"
            )
        return self

    @property
    def methods(self) -> tuple[Method, ...]:
        """Methods for the average effect, in the order they are reported."""
        if self.average is not None:
            return tuple(dict.fromkeys(("difference_in_means", *self.average)))
        lin: tuple[Method, ...] = ("lin",) if self.covariates else ()
        aipw: tuple[Method, ...] = ("aipw",) if self.heterogeneity is not None else ()
        return ("difference_in_means", *lin, *aipw)


class LeakageSection(Section):
    """Treatment hidden in a covariate or an image; always looked for before anything else."""

    alpha: Annotated[float, Field(gt=0, lt=0.01)] = 1e-6


class BalanceSection(Section):
    """Whether the arms were alike before treatment."""

    draws: Annotated[int, Field(ge=199, le=100_000)] = 1000


class AttritionSection(Section):
    """Whether the arms lose units alike."""

    draws: Annotated[int, Field(ge=199, le=100_000)] = 1000


class CheckChoice(Choice):
    """A check of the study."""

    leakage: LeakageSection | None = None
    balance: BalanceSection | None = None
    attrition: AttritionSection | None = None


class ReportSection(Section):
    """How the report speaks of the study."""

    title: Text | None = None
    outcome: Text | None = Field(default=None, description="The outcome in words.")
    unit: Text | None = Field(default=None, description="What the outcome is measured in.")
    notes: Annotated[tuple[Text, ...], OneOrMore] = Field(
        default=(), description="Sentences that a reader must know."
    )
    truth: Text | None = Field(
        default=None, description="truth.json of a simulated world, to be set beside the map."
    )


class Opening(Section):
    """How every study begins."""

    study: Text
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    data: RootedData

    @property
    def title(self) -> str:
        """Title of the study."""
        return self.study


class Ingestion(Opening):
    """A study that only ingests: places and imagery, without a design."""

    data: PlacesData
    embedding: EmbeddingSection = EmbeddingSection()


class Study(Ingestion):
    """A whole study: data, design, estimates, checks, report, seed."""

    data: DataSection
    design: DesignSection
    estimate: EstimateSection
    checks: Annotated[
        tuple[CheckChoice, ...],
        BeforeValidator(several, json_schema_input_type=str | list[str | CheckChoice]),
    ] = (
        CheckChoice(leakage=LeakageSection()),
        CheckChoice(balance=BalanceSection()),
        CheckChoice(attrition=AttritionSection()),
    )
    report: ReportSection = ReportSection()

    @property
    def title(self) -> str:
        """Title of the report."""
        return self.report.title or self.study
