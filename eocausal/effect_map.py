"""Effects per neighborhood, and the files they are written to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eocausal.contracts import check_effects
from eocausal.effects import Status
from eocausal.errors import CRSError, EstimationError
from eocausal.provenance import atomic_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    import geopandas as gpd
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["COG_BANDS", "EffectMap"]

COG_BANDS = ("estimate", "std_error", "ci_low", "ci_high", "support")


@dataclass(frozen=True, slots=True, eq=False)
class EffectMap:
    """One effect per neighborhood, with interval, support and status.

    Attributes
    ----------
    table
        GeoDataFrame indexed by ``neighborhood`` with the columns ``estimand, method, estimate,
        std_error, ci_low, ci_high, support, status``. ``support`` is 1 where places like this one
        were in the study, falling to 0 where there was none; outside the area of applicability the
        status is ``extrapolated``.
    level
        Level of the intervals.
    root
        (m, r) root of the covariance of the estimates (covariance = root @ root.T), for averages
        over regions, or None.
    meta
        What the map was made from.
    """

    table: gpd.GeoDataFrame
    level: float = 0.95
    root: NDArray[np.float64] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_effects(self.table)

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        counts = self.table["status"].value_counts().to_dict()
        shown = ", ".join(f"{n} {name}" for name, n in counts.items())
        e = self.table["estimate"]
        return (
            f"EffectMap({len(self)} neighborhoods: {shown}; estimates {e.min():.3g} to "
            f"{e.max():.3g}, median {e.median():.3g})"
        )

    def to_frame(self) -> gpd.GeoDataFrame:
        """Return a copy of the table."""
        return self.table.copy()

    def average(
        self, weights: pd.Series | None = None, *, supported_only: bool = False
    ) -> dict[str, Any]:
        """Average over neighborhoods, with the covariance of their estimates in the interval.

        Parameters
        ----------
        weights
            One non-negative weight per neighborhood (population); equal if None.
        supported_only
            Leave out neighborhoods outside the area of applicability.
        """
        use = self.table["estimate"].notna().to_numpy(copy=True)
        if supported_only:
            use &= (self.table["status"] != Status.EXTRAPOLATED).to_numpy()
        if self.root is None or not use.any():
            raise EstimationError(
                "The map cannot be averaged.",
                cause="It has no covariance between neighborhoods, or none is left.",
                next_step="Make it with eocausal.transport, or average with supported_only=False.",
            )
        raw = np.ones(len(self)) if weights is None else weights.loc[self.table.index].to_numpy()
        share = np.where(use, raw, 0.0)
        share = share / share.sum()
        estimate = float(share[use] @ self.table["estimate"].to_numpy(float)[use])
        error = float(np.linalg.norm(share[use] @ self.root[use]))
        z = _normal_quantile(0.5 + self.level / 2)
        return {
            "estimand": "average effect over mapped neighborhoods",
            "method": f"mean of the map ({self.table['method'].iloc[0]})",
            "estimate": estimate,
            "std_error": error,
            "ci_low": estimate - z * error,
            "ci_high": estimate + z * error,
            "p_value": math.erfc(abs(estimate / error) / math.sqrt(2)) if error > 0 else math.nan,
            "n": int(use.sum()),
        }

    def summary(self) -> str:
        """Say the map in words."""
        t = self.table
        known = t[t["estimate"].notna()]
        above = int((known["ci_low"] > 0).sum())
        below = int((known["ci_high"] < 0).sum())
        outside = int((t["status"] == Status.EXTRAPOLATED).sum())
        low, high, middle = (
            f"{v:.3g}".replace("-", "\N{MINUS SIGN}")
            for v in (known["estimate"].min(), known["estimate"].max(), known["estimate"].median())
        )
        text = (
            f"{len(known):,} of {len(t):,} neighborhoods have an estimate, from {low} to {high} "
            f"(median {middle}). The {100 * self.level:g}% interval lies above zero in "
            f"{above:,} and below zero in {below:,}."
        )
        if outside:
            text += (
                f" In {outside:,} the imagery is unlike any place of the study: "
                "there the estimate is an extrapolation."
            )
        return text

    def write(self, path: Path | str, *, resolution: float | None = None) -> Path:
        """Write GeoParquet (``.parquet``), GeoPackage (``.gpkg``) or a COG (``.tif``).

        The file appears whole or not at all, and equal maps give equal bytes.

        Parameters
        ----------
        resolution
            Pixel side in metres for a COG; default a third of the smallest neighborhood's width.
        """
        path = Path(path)
        table = self.table.copy()
        table["status"] = table["status"].astype(str)
        with atomic_path(path) as temporary:
            if path.suffix == ".parquet":
                table.to_parquet(temporary)
            elif path.suffix == ".gpkg":
                _write_gpkg(table, temporary)
            elif path.suffix in {".tif", ".tiff"}:
                _write_cog(table, temporary, resolution)
            else:
                raise EstimationError(
                    f"A map cannot be written as {path.suffix!r}.",
                    cause="Known are .parquet, .gpkg and .tif.",
                    next_step="Choose one of these suffixes.",
                )
        return path

    def plot(self, **options: Any) -> Any:
        """Draw the estimates with GeoPandas; returns the axes."""
        return self.table.plot(column="estimate", legend=True, **options)


def _normal_quantile(p: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf(p))


def _write_gpkg(table: gpd.GeoDataFrame, path: Path) -> None:
    import pyogrio

    fixed = "1970-01-01T00:00:00.000Z"
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": fixed})
    try:
        pyogrio.write_dataframe(table.reset_index(), path, layer="effects", driver="GPKG")
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def _map_crs(table: gpd.GeoDataFrame) -> Any:
    """Choose a metric CRS: the UTM zone of the map, or an equal-area one where it is too wide."""
    from pyproj import CRS

    crs = table.estimate_utm_crs()
    bounds = table.to_crs(crs).total_bounds
    wide = max(bounds[2] - bounds[0], bounds[3] - bounds[1])
    if np.isfinite(wide) and wide <= 1_000_000:
        return crs
    points = table.to_crs("EPSG:4326").geometry.representative_point()
    lon, lat = np.deg2rad(points.x.to_numpy()), points.y.to_numpy()
    middle = math.degrees(math.atan2(np.sin(lon).mean(), np.cos(lon).mean()))
    return CRS.from_proj4(f"+proj=laea +lon_0={middle:.4f} +lat_0={lat.mean():.4f} +units=m")


def _write_cog(table: gpd.GeoDataFrame, path: Path, resolution: float | None) -> None:
    import rasterio
    from affine import Affine
    from rasterio.features import rasterize
    from rasterio.shutil import copy as copy_raster

    metric = table.to_crs(_map_crs(table))
    if not (metric.geometry.area > 0).any():
        raise CRSError(
            "The neighborhoods of the map are points.",
            cause="A raster needs areas.",
            next_step="Give them an area, e.g. read_neighborhoods(..., size_m=1000).",
        )
    low_x, low_y, high_x, high_y = metric.total_bounds
    if resolution is None:
        resolution = float(np.sqrt(metric.geometry.area[metric.geometry.area > 0].min())) / 3
    width = max(1, math.ceil((high_x - low_x) / resolution))
    height = max(1, math.ceil((high_y - low_y) / resolution))
    if width * height > 400_000_000:
        raise EstimationError(
            f"A COG of {width} × {height} pixels would not fit in memory.",
            cause=f"The resolution of {resolution:g} m is too fine for this extent.",
            next_step="Pass a coarser resolution=...",
        )
    transform = Affine(resolution, 0.0, low_x, 0.0, -resolution, high_y)
    row = rasterize(
        ((geometry, i + 1) for i, geometry in enumerate(metric.geometry)),
        out_shape=(height, width), transform=transform, fill=0, dtype="int32",
    )  # fmt: skip
    plain = path.with_suffix(".plain.tif")
    profile = {
        "driver": "GTiff", "width": width, "height": height, "count": len(COG_BANDS),
        "dtype": "float32", "crs": metric.crs, "transform": transform, "nodata": math.nan,
        "tiled": True, "blockxsize": 256, "blockysize": 256,
    }  # fmt: skip
    with rasterio.open(plain, "w", **profile) as sink:
        for i, name in enumerate(COG_BANDS, start=1):
            values = np.concatenate([[np.nan], metric[name].to_numpy(float)]).astype("float32")
            sink.write(values[row], i)
            sink.set_band_description(i, name)
    copy_raster(plain, path, driver="COG", compress="deflate", predictor="yes")
    plain.unlink()
