"""What happened on land: areas by class and year, transitions, and timing beside the break."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from eocausal.errors import EocausalError, StudyError
from eocausal.land_cover.areas import ClassAreas, class_areas
from eocausal.land_cover.intensity import IntensityAnalysis, intensity_analysis
from eocausal.land_cover.legend import Legend
from eocausal.land_cover.pixels import GridPixels, NominalPixels, PixelArea
from eocausal.land_cover.timing import timing_beside_break
from eocausal.land_cover.transitions import Transitions, cross_years
from eocausal.provenance import atomic_path
from eocausal.studies.progress import Advance

if TYPE_CHECKING:
    from eocausal.studies.impact_space import ImpactSpace
    from eocausal.studies.schema_impact_water import LandCoverSection

__all__ = ["LAND_FILES", "look_at_land", "open_land_cover"]

LAND_FILES = ("land_cover.csv", "land_transitions.csv")
SPATIAL = (("lat", "lon"), ("latitude", "longitude"), ("y", "x"), ("northing", "easting"))
MOST_FOLLOWED = 4


def open_land_cover(root: Path, section: LandCoverSection) -> tuple[xr.DataArray, Legend]:
    """Open the maps, rows before columns, and say what their codes mean.

    Raises
    ------
    StudyError
        If the file cannot be read, has no such variable or no names of classes.
    """
    path = root / section.file
    try:
        found = xr.open_zarr(path) if path.is_dir() else xr.open_dataset(path, engine="h5netcdf")
    except (OSError, ValueError, KeyError) as error:
        raise StudyError(
            f"The land cover {path} cannot be read.",
            cause=f"{' '.join(str(error).split())}.",
            next_step="Check that it is a NetCDF-4 file or a Zarr store.",
        ) from error
    if section.variable not in found.data_vars:
        raise StudyError(
            f"The land cover {path} has no variable {section.variable!r}.",
            cause=f"It has: {', '.join(map(str, found.data_vars))}.",
            next_step="Correct land_cover.variable.",
        )
    cover = found[section.variable]
    pair = next((p for p in SPATIAL if set(p) <= set(map(str, cover.dims))), None)
    if pair is None or "time" not in cover.dims or cover.ndim != 3:
        raise StudyError(
            f"{section.variable!r} of {path} lies on {', '.join(map(str, cover.dims))}.",
            cause="Areas by year need time, rows and columns.",
            next_step="Rename the dimensions to time, lat and lon (or y and x).",
        )
    return cover.transpose("time", *pair), _legend(cover, section)


def _legend(cover: xr.DataArray, section: LandCoverSection) -> Legend:
    names = {code: name for name, code in section.classes.items()}
    if not names:
        codes, words = cover.attrs.get("flag_values"), cover.attrs.get("flag_meanings")
        if codes is None or words is None:
            raise StudyError(
                f"{section.variable!r} of {section.file} does not say what its codes mean.",
                cause="It has no attributes flag_values and flag_meanings.",
                next_step="Name the codes in land_cover.classes, e.g. {trees: 2, built: 7}.",
            )
        names = {
            int(c): w.replace("_", " ") for c, w in zip(codes, str(words).split(), strict=False)
        }
    clouds = {code for code, name in names.items() if "cloud" in name.lower()}
    return Legend(names, unobserved=frozenset(section.unobserved or {0, *clouds}))


def look_at_land(space: ImpactSpace, progress: Advance) -> list[str]:
    """Measure areas and transitions, and put the growth of a class beside the break."""
    section = space.study.land_cover
    assert section is not None
    cover, legend = open_land_cover(space.file.root, section)
    pixels: PixelArea = GridPixels() if section.pixel_m is None else NominalPixels(section.pixel_m)
    areas = class_areas(cover, legend, pixels=pixels, common=section.common)
    progress(1, 2)
    crossed = cross_years(cover, legend, pixels=pixels, exclude=section.exclude)
    intensity = intensity_analysis(crossed)
    for name, table in zip(LAND_FILES, (areas.to_frame(), crossed.to_frame()), strict=True):
        with atomic_path(space.folder / name) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n", float_format="%.6g")
    followed = _followed(areas, section)
    kept = {
        "areas": areas.km2.reset_index().to_dict("records"),
        "followed": followed,
        "words": _words(space, areas, crossed, intensity, followed[0]),
        "tables": _tables(crossed, intensity, followed[0]),
    }
    return [*LAND_FILES, space.keep("land_cover.json", kept)]


def _followed(areas: ClassAreas, section: LandCoverSection) -> list[str]:
    """Return the classes to draw: those asked for, or what grew most and what changed most."""
    for name in section.follow:
        areas.of(name)
    if section.follow:
        return list(section.follow)
    change = areas.km2.iloc[-1] - areas.km2.iloc[0]
    grown = str(change.idxmax())
    others = change.drop(grown).abs().sort_values(ascending=False, kind="stable")
    return [grown, *map(str, others.index[: MOST_FOLLOWED - 1])]


def _words(
    space: ImpactSpace,
    areas: ClassAreas,
    crossed: Transitions,
    intensity: IntensityAnalysis,
    grown: str,
) -> list[str]:
    said = [areas.summary(), _timing(space, areas, grown), crossed.summary(), intensity.summary()]
    return [part for part in said if part]


def _timing(space: ImpactSpace, areas: ClassAreas, grown: str) -> str:
    """Say whether a class grew when the water changed: at the break nearest to the event."""
    event = pd.Timestamp(space.study.event.when)
    when, interval = space.study.event.when, None
    if space.study.breaks is not None:
        outcome = space.kept("breaks.json")[0]
        held = [
            b for b in outcome.get("breaks", ())
            if pd.Timestamp(b["first"]) <= event <= pd.Period(b["last"]).end_time
        ]  # fmt: skip
        if held:
            when, interval = held[0]["after"], (held[0]["first"], held[0]["last"])
    try:
        return timing_beside_break(areas, grown, when, interval=interval).summary()
    except EocausalError as error:
        return f"Timing beside the break cannot be said. {error.fact} {error.cause}"


def _tables(crossed: Transitions, intensity: IntensityAnalysis, grown: str) -> list[dict[str, Any]]:
    first, last = crossed.years[0], crossed.years[-1]
    flows = crossed.flows().groupby("class", sort=False)[["gain", "loss", "net", "swap"]].sum()
    found = {
        f"Gain and loss by class, {first} to {last}, km², summed over the years": flows,
        f"What {grown} came from, km², and years in which it was targeted": intensity.sources(
            grown
        ),
        "Change by interval, % of the area a year": intensity.to_frame(),
    }
    return [
        {"caption": caption, "rows": _rows(table)} for caption, table in found.items()
    ]  # fmt: skip


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    named = table.reset_index() if table.index.name is not None else table
    return [{str(k): v for k, v in row.items()} for row in named.to_dict("records")]
