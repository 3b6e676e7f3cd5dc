"""The effect pixel by pixel: a map as GeoTIFF and NetCDF, and pictures of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from eocausal.errors import EocausalError
from eocausal.studies.impact_decisions import event_of, model_of
from eocausal.studies.impact_zones import zone_pixels
from eocausal.studies.progress import Advance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eocausal.estimators.impact_map_result import ImpactMap
    from eocausal.studies.impact_space import ImpactSpace

__all__ = ["MAP_FILES", "map_pixels", "zones_of_grid"]

MAP_FILES = ("effects.tif", "effects.nc")


def zones_of_grid(space: ImpactSpace, grid: str) -> dict[str, NDArray[np.bool_]]:
    """Return the pixels of each zone of a grid."""
    found, section = space.sources.grid(grid), space.study.data.grids[grid]
    return {name: zone_pixels(found, z, space.file.root) for name, z in section.zones.items()}


def map_pixels(space: ImpactSpace, progress: Advance) -> list[str]:
    """Estimate the effect in every pixel that is not part of a control."""
    from eocausal.estimators.impact_map import bsts_map

    study, section = space.study, space.study.map
    assert section is not None
    grid = space.sources.grid(section.grid)
    zones = zones_of_grid(space, section.grid)
    used = {c.series for c in study.controls}
    controls = [m for name, m in zones.items() if f"{section.grid}.{name}" in used]
    wanted = ~np.logical_or.reduce([np.zeros(grid.values.shape[1:], bool), *controls])
    cube = (grid.values * study.outcome.factor).rename(study.outcome.series)
    cube.attrs["units"] = study.outcome.units
    area = xr.DataArray(wanted, dims=(grid.latitude, grid.longitude))
    try:
        found = bsts_map(
            cube, event_of(study), space.controls if len(study.controls) else None, area=area,
            model=model_of(study.model), learn_until=study.event.learn_until,
            level=study.model.level, least=section.least, crs="EPSG:4326",
            progress=progress,
        )  # fmt: skip
    except EocausalError as error:
        why = f"The effect could not be mapped. {error.fact} {error.cause}"
        return [space.keep("map.json", {"refused": why, "files": []})]
    for name in MAP_FILES:
        found.write(space.folder / name)
    kept = {
        "files": list(MAP_FILES), "zones": _zones(space, found, zones),
        "pixels": int(found.data["status"].size),
        "estimated": int(found.data["p_value"].notnull().sum()),
        "strict": int((found.data["q_value_dependent"] < section.false_discovery).sum()),
        "area": {str(k): float(v) for k, v in found.area.items()},
        "lost": found.failures.to_dict("records"),
    }  # fmt: skip
    return [*MAP_FILES, space.keep("map.json", kept)]


def _zones(
    space: ImpactSpace, found: ImpactMap, zones: dict[str, NDArray[np.bool_]]
) -> list[dict[str, object]]:
    """Return for each zone, and for what is in none, how many pixels are told from no effect."""
    assert space.study.map is not None
    q = found.data["q_value"].to_numpy()
    known = np.isfinite(q)
    hit = q < space.study.map.false_discovery
    rest = ~np.logical_or.reduce(list(zones.values()))
    rows: list[dict[str, object]] = []
    for name, inside in {**zones, "no zone": rest}.items():
        mine = inside & known
        if mine.any():
            rows.append({
                "zone": name, "pixels": int(mine.sum()), "marked": int((hit & mine).sum()),
                "estimate": float(found.data["estimate"].to_numpy()[mine].mean()),
            })  # fmt: skip
    return rows
