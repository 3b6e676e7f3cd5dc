"""What a study file may say: the sections of the YAML, their types and their defaults.

Everything is closed (unknown keys are errors) and frozen. A choice with options of its own is
written as its name or as a mapping with one key: ``hc2`` or ``{conley: {km: 50}}``.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from pydantic_core import CoreSchema

__all__ = [
    "BasisChoice",
    "CheckChoice",
    "DataSection",
    "DesignSection",
    "EncoderChoice",
    "EstimateSection",
    "Study",
    "VcovChoice",
]


def _text(value: Any) -> Any:
    """Read numbers and dates as text: YAML types an unquoted ``2000`` or ``2008-01-01``."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return str(value)
    return value.isoformat() if isinstance(value, date) else value


def _several(value: Any) -> Any:
    """Read one value as a list of one."""
    return value if isinstance(value, list | tuple) or value is None else [value]


Text = Annotated[
    str,
    BeforeValidator(_text, json_schema_input_type=str | int | float),
    Field(min_length=1),
]
_OneOrMore = BeforeValidator(_several, json_schema_input_type=str | list[str])
Texts = Annotated[tuple[Text, ...], _OneOrMore, Field(min_length=1)]
Sizes = Annotated[
    tuple[PositiveInt, ...],
    BeforeValidator(_several, json_schema_input_type=int | list[int]),
    Field(min_length=1),
]
Share = Annotated[float, Field(ge=0, le=1)]


def _iso(value: str) -> str:
    """Accept a year, a month or a day."""
    parts = value.split("-")
    try:
        whole = [int(p) for p in (*parts, "1", "1")[: max(3, len(parts))]]
        if not all(p.isdigit() for p in parts) or len(parts[0]) != 4:
            whole = [0, 0, 0]
        date(*whole)
    except (ValueError, TypeError):
        raise ValueError(f"{value!r} is not a date; write it as YYYY-MM-DD") from None
    return value


def _switch(value: Any) -> Any:
    """Read ``false`` as left out and ``true`` as with all defaults."""
    return ({} if value else None) if isinstance(value, bool) else value


IsoDate = Annotated[Text, AfterValidator(_iso)]


class Section(BaseModel):
    """A mapping of the study file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Choice(Section):
    """A mapping with exactly one key, which may be written as that key alone."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {value: {}}
        if isinstance(value, dict):
            return {k: {} if v is None else v for k, v in value.items()}
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.model_fields_set) != 1:
            named = ", ".join(sorted(self.model_fields_set)) or "none"
            raise ValueError(
                f"choose exactly one of {', '.join(type(self).model_fields)} (given: {named})"
            )
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        whole = handler.resolve_ref_schema(handler(core_schema))
        return {"anyOf": [{"enum": list(cls.model_fields)}, dict(whole)]}

    @property
    def name(self) -> str:
        """The key that was chosen."""
        return next(iter(self.model_fields_set))


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


class ImagerySection(Section):
    """The images and the chips to cut from them."""

    files: Texts = Field(description="A folder, a pattern or a list of GeoTIFFs.")
    bands: Texts = Field(description="Bands of the cube, by the names they have in the files.")
    band_names: Texts | None = Field(
        default=None,
        description="Names of all bands of a file in order, where the files have none.",
    )
    resolution: PositiveFloat = Field(description="Pixel side of the chips in metres.")
    size: PositiveInt | None = Field(default=None, description="Pixels per side of a chip.")
    time: IsoDate | None = Field(
        default=None, description="Date of all files, where they carry none."
    )
    time_pattern: Text | None = Field(
        default=None, description="Regular expression with a group (?P<date>...) or (?P<year>...)."
    )
    neighborhood_pattern: Text | None = Field(
        default=None,
        description="Regular expression with a group (?P<neighborhood>...), for a file per place.",
    )
    periods: Texts = ("all",)
    units: Text = "DN"
    mask_band: Text | None = Field(
        default=None, description="Band that is nonzero where it is clear."
    )
    nodata: float | None = None
    files_crs: Text | None = Field(default=None, description="CRS of files that do not say theirs.")
    crs: Text | None = Field(default=None, description="CRS of all chips; default the UTM zones.")
    resampling: Literal["bilinear", "nearest"] = "bilinear"
    max_failed: Share = 0.5


class RandomConvSection(Section):
    """Random convolutional features."""

    features: PositiveInt = 512
    patch: Sizes = (3,)
    patches: Literal["sampled", "gaussian"] = "sampled"


class CardSection(Section):
    """An encoder by its model card."""

    card: Text = Field(description="Name of a shipped card, or folder/ with one.")
    weights: Text | None = Field(default=None, description="File, where the card names one.")


class EncoderChoice(Choice):
    """How a chip becomes features."""

    random_conv: RandomConvSection | None = None
    model: CardSection | None = None


class DataSection(Section):
    """What is read; files are relative to ``root``, and ``root`` to the study file."""

    root: Text = "."
    units: UnitsSection
    neighborhoods: NeighborhoodsSection
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


class NoOptions(Section):
    """A choice without options."""


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
        _OneOrMore,
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
        tuple[Text, ...], BeforeValidator(_several, json_schema_input_type=str | list[str])
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
        _OneOrMore,
    ] = Field(default=None, description="Default: all that the covariates and the imagery allow.")
    vcov: Annotated[
        tuple[VcovChoice, ...],
        BeforeValidator(_several, json_schema_input_type=str | list[str | VcovChoice]),
    ] = Field(default=(), description="Besides the variance that the design implies.")
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    heterogeneity: Annotated[
        HeterogeneitySection | None,
        BeforeValidator(_switch, json_schema_input_type=bool | HeterogeneitySection | None),
    ] = HeterogeneitySection()
    map: Annotated[
        MapSection | None,
        BeforeValidator(_switch, json_schema_input_type=bool | MapSection | None),
    ] = MapSection()

    @model_validator(mode="before")
    @classmethod
    def _no_map_without_heterogeneity(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("heterogeneity", True) in (None, False):
            return {"map": None, **value}
        return value

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
    notes: Annotated[tuple[Text, ...], _OneOrMore] = Field(
        default=(), description="Sentences that a reader must know."
    )
    truth: Text | None = Field(
        default=None, description="truth.json of a simulated world, to be set beside the map."
    )


class Study(Section):
    """A whole study: data, design, estimates, checks, report, seed."""

    study: Text
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    data: DataSection
    design: DesignSection
    estimate: EstimateSection
    checks: Annotated[
        tuple[CheckChoice, ...],
        BeforeValidator(_several, json_schema_input_type=str | list[str | CheckChoice]),
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
