"""What a study file may say of imagery: where scenes come from, and what is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt

from eocausal.studies.schema_base import (
    Choice,
    IsoDate,
    NoOptions,
    OneOrMore,
    Section,
    Share,
    Text,
    Texts,
    several,
)

__all__ = [
    "CatalogSection",
    "CompositeChoice",
    "GridsSection",
    "ImagerySection",
    "LooksSection",
    "MaskChoice",
    "PanelSection",
    "PeriodsSection",
    "SourceSection",
    "StacSection",
    "StatisticChoice",
]


def _labels(value: Any) -> Any:
    """Read labels of periods, or ``dates``, as the mapping they are short for."""
    if value == "dates":
        return {"dates": {}}
    return {"labels": value} if value is not None and not isinstance(value, Mapping) else value


def _names(value: Any) -> Any:
    """Read one name as a list of one; leave a mapping."""
    return value if isinstance(value, Mapping) else several(value)


Names = Annotated[
    tuple[Text, ...] | dict[str, Text],
    BeforeValidator(_names, json_schema_input_type=str | list[str] | dict[str, str]),
    Field(min_length=1),
]


class StacSection(Section):
    """A search of a STAC API; the boxes searched are those of the neighborhoods."""

    url: Text
    collections: Texts
    bands: Names = Field(
        description="Assets, common names or names of bands; or a mapping {wanted: found}."
    )
    time: Text | None = Field(default=None, description="Default: the periods of the study.")
    query: dict[str, dict[str, Any]] = Field(
        default={}, description="Conditions on properties, {'eo:cloud_cover': {lt: 60}}."
    )
    max_items: PositiveInt | None = None


class CatalogSection(Section):
    """A STAC catalog of files."""

    address: Text = Field(description="Path or URL of a catalog, collection or item.")
    bands: Names = Field(
        description="Assets, common names or names of bands; or a mapping {wanted: found}."
    )
    time: Text | None = Field(default=None, description="Default: the periods of the study.")
    query: dict[str, dict[str, Any]] = Field(default={})


class DatesSection(Section):
    """A period for every date with a scene."""

    within: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Scenes so many days apart share a period."
    )


class PeriodsSection(Section):
    """Periods by label, at regular steps, or one for each date."""

    labels: Texts | None = None
    every: Text | None = Field(default=None, description="day, month, quarter, season, year, 8D.")
    start: Text | None = Field(default=None, alias="from", description="First, e.g. 2015-01.")
    end: Text | None = Field(default=None, alias="to", description="Last, inclusive.")
    dates: DatesSection | None = None


Periods = Annotated[
    PeriodsSection,
    BeforeValidator(
        _labels, json_schema_input_type=str | list[str | int] | int | PeriodsSection | None
    ),
]


class GridsSection(Section):
    """Gridded files: NetCDF, HDF5, Zarr."""

    files: Texts = Field(description="A folder, a pattern or a list of files or Zarr stores.")
    variables: Names | None = Field(
        default=None, description="Variables, or a mapping {band: variable}; default all."
    )
    select: dict[str, int] = Field(
        default={}, description="Position along further dimensions, {depth: 0}."
    )
    time: Periods | None = Field(
        default=None,
        description="Dates instead of the files' own: a label for all steps, or one for each.",
    )


class SourceSection(Section):
    """Where scenes come from: exactly one of ``files``, ``stac``, ``catalog``, ``grids``."""

    root: Text = Field(
        default=".",
        description="Folder of the source's files, relative to data.root; ${NAME:-default} is "
        "taken from the environment.",
    )
    files: Texts | None = Field(
        default=None, description="A folder, a pattern or a list of images or URLs."
    )
    stac: StacSection | None = None
    catalog: CatalogSection | None = None
    grids: GridsSection | None = None
    lock: Text | None = Field(
        default=None,
        description="File that a search is written to; if it is there, it is read instead.",
    )
    band_names: Names | None = Field(
        default=None,
        description="Names of all bands of a file in order, where the files have none; or a "
        "mapping {wanted: found}.",
    )
    band_pattern: Text | None = Field(
        default=None, description="Regular expression with a group (?P<band>...), for file names."
    )
    item_pattern: Text | None = Field(
        default=None,
        description="Regular expression with a group (?P<item>...): files with the same item are "
        "one acquisition.",
    )
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
    nodata: float | None = None
    files_crs: Text | None = Field(default=None, description="CRS of files that do not say theirs.")

    @property
    def sources(self) -> tuple[str, ...]:
        """Keys of the sources that are given."""
        names = ("files", "stac", "catalog", "grids")
        return tuple(n for n in names if getattr(self, n) is not None)


class QAPixelSection(Section):
    """Bits of Landsat's QA_PIXEL; see :class:`~eocausal.ingest.masks.QAPixel`."""

    band: Text = "qa_pixel"
    drop: Texts | None = None
    dilate: Annotated[int, Field(ge=0)] = 0


class ClassesSection(Section):
    """Classes of Sentinel-2's SCL; see :class:`~eocausal.ingest.masks.SceneClassification`."""

    band: Text = "scl"
    drop: Texts | None = None
    dilate: Annotated[int, Field(ge=0)] = 0


class ProbabilitySection(Section):
    """Cloud probability; see :class:`~eocausal.ingest.masks.CloudProbability`."""

    band: Text = "cloud_probability"
    below: PositiveFloat = 40.0
    dilate: Annotated[int, Field(ge=0)] = 0


class NonZeroSection(Section):
    """A band that is not zero where it is clear."""

    band: Text
    dilate: Annotated[int, Field(ge=0)] = 0


_Numbers = Annotated[
    tuple[float, ...],
    BeforeValidator(several, json_schema_input_type=float | list[float]),
]


class ValuesSection(Section):
    """Values of a band that are kept, or dropped."""

    band: Text
    keep: _Numbers = ()
    drop: _Numbers = ()
    dilate: Annotated[int, Field(ge=0)] = 0


class MaskChoice(Choice):
    """Which pixels are clear."""

    qa_pixel: QAPixelSection | None = None
    scl: ClassesSection | None = None
    cloud_probability: ProbabilitySection | None = None
    nonzero: NonZeroSection | None = None
    values: ValuesSection | None = None


class PercentileSection(Section):
    """Percentile of the looks."""

    q: Annotated[float, Field(ge=0, le=100)]


class BestPixelSection(Section):
    """The look with the highest (or lowest) value of a band or index."""

    by: Text = "ndvi"
    highest: bool = True


class NearestDaySection(Section):
    """The look nearest to a day of the year."""

    month: Annotated[int, Field(ge=1, le=12)]
    day: Annotated[int, Field(ge=1, le=31)]


class CompositeChoice(Choice):
    """How the looks of a period become one image."""

    median: NoOptions | None = None
    mean: NoOptions | None = None
    medoid: NoOptions | None = None
    percentile: PercentileSection | None = None
    best_pixel: BestPixelSection | None = None
    nearest_day: NearestDaySection | None = None


class LooksSection(SourceSection):
    """Scenes, and what is made of those of a period."""

    bands: Texts = Field(
        description="Bands by their names in the scenes, and indices: "
        "'ndvi = (nir - red) / (nir + red)'."
    )
    mask: Annotated[
        tuple[MaskChoice, ...],
        BeforeValidator(several, json_schema_input_type=str | MaskChoice | list[MaskChoice]),
    ] = Field(default=(), description="A pixel counts where all of them are clear.")
    harmonize: Annotated[
        tuple[Literal["sentinel2_offset", "landsat_c2_scale", "landsat_to_oli"], ...], OneOrMore
    ] = Field(default=(), description="Make sensors and processing versions comparable.")
    max_failed: Share = 0.5


class ImagerySection(LooksSection):
    """The images and the chips to cut from them."""

    resolution: PositiveFloat = Field(description="Pixel side of the chips in metres.")
    size: PositiveInt | None = Field(default=None, description="Pixels per side of a chip.")
    periods: Periods = PeriodsSection(labels=("all",))
    composite: CompositeChoice = CompositeChoice(median=NoOptions())
    count_band: Text | None = Field(
        default=None, description="Name of a further band: the number of valid looks."
    )
    units: Text = "DN"
    crs: Text | None = Field(default=None, description="CRS of all chips; default the UTM zones.")
    resampling: Literal["bilinear", "nearest"] = "bilinear"


class QuantileSection(Section):
    """A quantile of the pixels of a polygon."""

    q: Annotated[float, Field(ge=0, le=1)] = 0.5


class LandClassesSection(Section):
    """Classes by name: the value of the band, or several values."""

    classes: Annotated[dict[str, _Numbers], Field(min_length=1)]


class StatisticChoice(Choice):
    """A number per polygon and time."""

    mean: NoOptions | None = None
    sum: NoOptions | None = None
    std: NoOptions | None = None
    count: NoOptions | None = None
    min: NoOptions | None = None
    max: NoOptions | None = None
    quantile: QuantileSection | None = None
    class_share: LandClassesSection | None = None
    class_area: LandClassesSection | None = None


class PanelSection(LooksSection):
    """Numbers per neighborhood and time; without a source of its own, from ``data.imagery``."""

    statistics: Annotated[
        tuple[StatisticChoice, ...],
        BeforeValidator(
            several, json_schema_input_type=str | StatisticChoice | list[str | StatisticChoice]
        ),
        Field(min_length=1),
    ] = (StatisticChoice(mean=NoOptions()),)
    periods: Periods | None = Field(default=None, description="Default: every time of the scenes.")
    composite: CompositeChoice | None = Field(
        default=None, description="Default: the mean of the looks of a grid."
    )
    area: bool = Field(default=True, description="Weigh pixels by their area on the ground.")
