"""A small country with known effects, as tables or rendered to real files.

The country straddles 30 degrees east just north of the equator, so that its imagery comes in
two UTM zones. What a neighborhood's chip shows decides its untreated income and its effect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eocausal.provenance import atomic_path, write_json
from eocausal.simulate.aid import AidWorld, simulate_aid
from eocausal.simulate.config import (
    AidModel,
    ByNeighborhood,
    ByPerson,
    CoastModel,
    EffectSurface,
    OutcomeModel,
    WorldConfig,
)
from eocausal.simulate.landscape import FEATURES, GRID_CRS, Landscape, build_landscape
from eocausal.simulate.table import WorldTable, redraw, simulate_table

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = [
    "AidModel",
    "AidWorld",
    "ByNeighborhood",
    "ByPerson",
    "CoastModel",
    "EffectSurface",
    "Landscape",
    "OutcomeModel",
    "WorldConfig",
    "WorldFiles",
    "WorldTable",
    "build_landscape",
    "redraw",
    "render_world",
    "simulate_aid",
    "simulate_table",
]

README = """A simulated country (eocausal.simulate.world). Nothing here was observed.

scenes/*.tif           Satellite images, two UTM zones (EPSG:32635, EPSG:32636). Bands blue, green,
                       red, nir, swir1: reflectance x 10000, uint16; band clear: 1 clear, 0 cloud,
                       shadow or nodata. Nodata 0. Date in the file name and TIFFTAG_DATETIME.
neighborhoods.gpkg     Squares of {side:g} m, EPSG:4326, id in column neighborhood.
units.csv              People of the trial: arm (0, 1), prob, income, covariates, place.
projects.csv           Aid projects: sector, start_year, place.
wealth.csv             Wealth index of every neighborhood and year.
coast/kd490_monthly.nc Monthly Kd490 (m-1) with zones (1 impact, 2 control).
truth.json             The true effects. Do not look before you have estimated them.

The trial starts on {start}; the last image was taken on {last}.
"""


@dataclass(frozen=True, slots=True)
class WorldFiles:
    """Where the files of a rendered world are."""

    folder: Path

    @property
    def scenes(self) -> tuple[Path, ...]:
        """All scenes, by name."""
        return tuple(sorted((self.folder / "scenes").glob("*.tif")))

    @property
    def neighborhoods(self) -> Path:
        """GeoPackage of the squares."""
        return self.folder / "neighborhoods.gpkg"

    @property
    def units(self) -> Path:
        """Table of the trial's people."""
        return self.folder / "units.csv"

    @property
    def projects(self) -> Path:
        """Table of aid projects."""
        return self.folder / "projects.csv"

    @property
    def wealth(self) -> Path:
        """Table of wealth by neighborhood and year."""
        return self.folder / "wealth.csv"

    @property
    def coast(self) -> Path:
        """NetCDF of monthly Kd490."""
        return self.folder / "coast" / "kd490_monthly.nc"

    @property
    def truth(self) -> Path:
        """The true effects as JSON."""
        return self.folder / "truth.json"


def render_world(
    config: WorldConfig,
    folder: Path | str,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> WorldFiles:
    """Render a world to GeoTIFF, GeoPackage, CSV and NetCDF files.

    The folder appears whole or not at all and replaces an older one. The same configuration
    gives the same bytes (on the same versions of GDAL and zlib).

    Parameters
    ----------
    config
        All decisions.
    folder
        Where to write.
    progress
        Called with (scenes written, scenes in all).

    Returns
    -------
    WorldFiles

    Examples
    --------
    >>> files = render_world(WorldConfig(n_neighborhoods=60, n_trial=30), tmp)  # doctest: +SKIP
    >>> len(files.scenes)  # doctest: +SKIP
    18
    """
    from eocausal.simulate.coast import simulate_coast, write_coast
    from eocausal.simulate.scenes import plan_scenes, write_scenes

    land = build_landscape(config)
    table = simulate_table(config, land)
    aid = simulate_aid(table, config.rng("aid"))
    plan = plan_scenes(config)
    folder = Path(folder)
    with atomic_path(folder) as temporary:
        files = WorldFiles(temporary)
        for done, _ in enumerate(write_scenes(land, temporary / "scenes"), start=1):
            if progress is not None:
                progress(done, len(plan))
        write_coast(simulate_coast(config.coast, config.rng("coast")), files.coast)
        _write_neighborhoods(_squares(land, table), files.neighborhoods)
        for frame, path in (
            (table.units.reset_index(), files.units),
            (aid.projects, files.projects),
            (aid.wealth, files.wealth),
        ):
            frame.to_csv(path, index=False, float_format="%.6f", lineterminator="\n")
        last = max(scene.day for scene in plan).isoformat()
        write_json(files.truth, _truth(table, aid, last))
        side = config.chip_px * config.resolution
        text = README.format(side=side, start=config.trial_start, last=last)
        (temporary / "README.txt").write_text(text, encoding="utf-8")
    return WorldFiles(folder)


def _squares(land: Landscape, table: WorldTable) -> gpd.GeoDataFrame:
    """Return the neighborhoods' squares in EPSG:4326, with what a surveyor would know."""
    import geopandas as gpd
    import shapely

    half = land.config.chip_px * land.config.resolution / 2.0
    x, y = land.centers().T
    boxes = shapely.box(x - half, y - half, x + half, y + half)
    known = table.neighborhoods[["stratum", "in_trial", "utm_zone", "lon", "lat"]].reset_index()
    return gpd.GeoDataFrame(known, geometry=boxes, crs=GRID_CRS).to_crs("EPSG:4326")


def _write_neighborhoods(squares: gpd.GeoDataFrame, path: Path) -> None:
    """Write a GeoPackage whose time stamp is fixed, so that its bytes depend on data alone."""
    import pyogrio

    name = "OGR_CURRENT_DATE"
    before = pyogrio.get_gdal_config_option(name)
    pyogrio.set_gdal_config_options({name: "2018-01-01T00:00:00.000Z"})
    try:
        squares.to_file(path, driver="GPKG", layer="neighborhoods", engine="pyogrio")
    finally:
        pyogrio.set_gdal_config_options({name: before})


def _truth(table: WorldTable, aid: AidWorld, last_image: str) -> dict[str, Any]:
    places, coast = table.neighborhoods, table.config.coast
    return {
        "config": asdict(table.config),
        "trial": {
            "ate_trial": table.ate_trial,
            "ate_trial_neighborhoods": table.ate_trial_neighborhoods,
            "ate_country": table.ate_country,
            "n_units": len(table.units),
            "start": table.config.trial_start,
            "last_image": last_image,
        },
        "aid": {
            "att_transport": aid.att,
            "ate_transport": aid.ate,
            "att_health": 0.0,
            "ate_health": 0.0,
            "n_transport": int((aid.start > 0).sum()),
        },
        "coast": {
            "event": f"{coast.event}-01",
            "effect": coast.effect,
            "control_effect": 0.0,
            "units": "m-1",
        },
        "neighborhoods": {
            str(label): {
                "effect": float(row["true_effect"]),
                "aid_effect": float(effect),
                "aid_start": int(start) or None,
                "in_trial": bool(row["in_trial"]),
                **{name: round(float(row[name]), 6) for name in FEATURES},
            }
            for (label, row), effect, start in zip(
                places.iterrows(), aid.effect, aid.start, strict=True
            )
        },
    }
