"""What a study of an event may say of light in the water, of land cover, and of its map."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from eocausal.studies.schema_base import Section, Text

__all__ = ["LandCoverSection", "MapSection", "OpticsSection"]


class OpticsSection(Section):
    """The outcome is Kd490: what the effect means for light in the water."""

    per_metre: PositiveFloat | None = Field(
        default=None,
        description="What one unit of the outcome is in m-1; default read from outcome.units.",
    )


class LandCoverSection(Section):
    """A grid of land-cover classes by year."""

    file: Text = Field(description="NetCDF file or Zarr store, relative to data.root.")
    variable: Text
    classes: dict[str, int] = Field(
        default={}, description="Codes by name; default those that the file gives its flags."
    )
    unobserved: tuple[int, ...] = Field(
        default=(), description="Codes that are no land cover; default 0 and those of clouds."
    )
    follow: tuple[Text, ...] = Field(
        default=(), description="Classes to draw, the first beside the break; default what grew."
    )
    exclude: tuple[Text, ...] = Field(
        default=(), description="Classes left out of transitions, such as water."
    )
    common: bool = Field(
        default=True, description="Count only places seen in every year, so that clouds move none."
    )
    pixel_m: PositiveFloat | None = Field(
        default=None, description="Side of a pixel; default from the coordinates."
    )


class MapSection(Section):
    """The effect pixel by pixel; see :func:`eocausal.estimators.impact_map.bsts_map`."""

    grid: Text = Field(description="Name of the grid, in units of the outcome's file.")
    false_discovery: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        default=0.05, description="Share of marked pixels that may be false."
    )
    least: PositiveInt = Field(
        default=24, description="Values before the event that a pixel must have."
    )
