"""A map of effects: what it holds, says in words, and turns into."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from eocausal.designs import Event
from eocausal.effect_map import EffectMap
from eocausal.effects import Status
from eocausal.errors import EmptyInputError, EstimationError
from eocausal.estimators.impact_map_files import write_map_cog, write_map_netcdf
from eocausal.estimators.impact_map_grid import MapGrid
from eocausal.estimators.impact_map_tiles import ESTIMATES, MapTask, PixelStatus, TileEffects
from eocausal.estimators.impact_map_zones import mean_series, series_effects, zone_means
from eocausal.estimators.impact_windows import EventRow
from eocausal.estimators.multiplicity import benjamini_hochberg

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["ImpactMap", "MapRequest", "assemble"]

Float64 = NDArray[np.float64]
Window = tuple[slice, slice]
SHARE_FALSE = 0.05
LONG_NAMES = {
    "estimate": "mean effect after the event",
    "std_error": "posterior standard deviation of the mean effect",
    "ci_low": "lower end of the interval of the mean effect",
    "ci_high": "upper end of the interval of the mean effect",
    "p_value": "two-sided tail probability of no effect",
    "relative": "mean effect over predicted mean",
    "relative_low": "lower end of the interval of the relative effect",
    "relative_high": "upper end of the interval of the relative effect",
}


@dataclass(frozen=True, slots=True, eq=False)
class MapRequest:
    """What a map was made from.

    Attributes
    ----------
    cube
        (time, rows, columns), lazy if it was.
    controls
        Shared controls at the steps of the calendar, that of the control zone among them.
    left_out
        (rows, columns) zero where a pixel was to be fitted, else its status.
    times
        Steps of the calendar.
    windows
        Tiles.
    name
        Of the outcome.
    """

    cube: xr.DataArray
    event: Event | EventRow
    controls: pd.DataFrame
    task: MapTask
    grid: MapGrid
    left_out: NDArray[np.int8]
    times: pd.Index
    windows: list[Window]
    name: str

    @property
    def begins(self) -> str:
        """First date, or row, after the event."""
        return self.event.when if isinstance(self.event, Event) else f"row {self.event.first}"


@dataclass(frozen=True, slots=True, eq=False)
class ImpactMap:
    """The mean effect of an event in every pixel.

    Attributes
    ----------
    data
        Dataset over rows and columns: ``estimate, std_error, ci_low, ci_high, p_value, q_value,
        q_value_dependent, relative, relative_low, relative_high, n_before, n_after, status``.
        ``q_value`` is Benjamini and Hochberg's, valid for independent tests and positive
        dependence, which neighbouring pixels have; ``q_value_dependent`` is Benjamini and
        Yekutieli's (2001, Annals of Statistics 29:1165), valid under any dependence, and larger.
    area
        Mean effect over the area of all pixels with an effect, from their mean series, since
        pixels depend on each other: ``estimate, std_error, ci_low, ci_high, p_value, n``.
    failures
        Status, words and number of pixels without an effect.
    request
        What the map was made from.
    """

    data: xr.Dataset
    area: pd.Series
    failures: pd.DataFrame
    request: MapRequest

    def __repr__(self) -> str:
        found = self._found
        return (
            f"ImpactMap({self.request.name}, {found.sum():,} of {found.size:,} pixels, "
            f"{self._share(self.data['q_value'].to_numpy() < SHARE_FALSE):.0%} of their area with "
            f"an effect at q < {SHARE_FALSE:g}; area mean {self.area['estimate']:.4g} "
            f"[{self.area['ci_low']:.4g}, {self.area['ci_high']:.4g}])"
        )

    @property
    def _found(self) -> NDArray[np.bool_]:
        return np.asarray(self.data["status"].to_numpy() == PixelStatus.OK)

    @property
    def level(self) -> float:
        """Probability of the intervals."""
        return self.request.task.level

    def _share(self, chosen: NDArray[np.bool_]) -> float:
        weights = np.where(self._found, self.request.grid.weights(), 0.0)
        return float(weights[chosen].sum() / weights.sum())

    def to_frame(self) -> pd.DataFrame:
        """Return a row per pixel with an effect or a reason for none."""
        return self.data.to_dataframe().reset_index()

    def summary(self, q: float = SHARE_FALSE) -> str:
        """Say the map in words.

        Parameters
        ----------
        q
            Share of false discoveries to accept.
        """
        q_value, estimate = (self.data[n].to_numpy() for n in ("q_value", "estimate"))
        hit = q_value < q
        up, down = int((hit & (estimate > 0)).sum()), int((hit & (estimate < 0)).sum())
        known = int(self._found.sum())
        strict = int((self.data["q_value_dependent"].to_numpy() < q).sum())
        a, unit = self.area, self.data["estimate"].attrs.get("units", "")
        unit = f" {unit}" if unit else ""
        parts = [
            f"{known:,} of {self._found.size:,} pixels have an effect of the event "
            f"{self.request.begins} on {self.request.name}.",
            f"In {hit.sum():,} of them it is told from none when at most {100 * q:g}% of such "
            f"pixels may be false discoveries (Benjamini-Hochberg): {up:,} increases and {down:,} "
            f"decreases, {100 * self._share(hit):.1f}% of the area. Neighbouring pixels rise and "
            f"fall together, and for such tests the rule holds; by the one for any dependence "
            f"(Benjamini-Yekutieli) there are {strict:,}.",
            f"Over the area the mean effect is {a['estimate']:.4g}{unit}, "
            f"{100 * self.level:g}% interval {a['ci_low']:.4g} to {a['ci_high']:.4g}, from the "
            "mean series of these pixels: intervals of single pixels do not add up to it, because "
            "pixels depend on each other.",
        ]
        lost = [f"{n:,} {words}" for words, n in self.failures[["words", "pixels"]].to_numpy()]
        if lost:
            parts.append(f"Pixels without an effect: {'; '.join(lost)}.")
        return " ".join(parts)

    def zones(self, zone: xr.DataArray | gpd.GeoDataFrame) -> pd.DataFrame:
        """Return the mean effect over zones, each from its own mean series.

        The cube is read again. Pixels without an effect do not count; zones without others are NaN.

        Parameters
        ----------
        zone
            (rows, columns) number of the zone of each pixel, none where missing or below zero; or
            polygons, which take the pixels whose centres they hold.

        Raises
        ------
        EmptyInputError
            If no zone has a pixel with an effect.
        """
        code, names = self._codes(zone)
        code = np.where(self._found, code, -1)
        count = np.bincount(code[code >= 0], minlength=len(names))
        kept = np.flatnonzero(count)
        if not kept.size:
            raise EmptyInputError(
                "No zone has a pixel with an effect.",
                cause="Zones lie outside the grid, on land or in the control zone.",
                next_step="Check them against the map.",
            )
        place = np.append(np.where(count > 0, np.cumsum(count > 0) - 1, -1), -1)
        r = self.request
        means = zone_means(r.cube, r.grid, place[code], len(kept), r.task, r.windows)
        table = series_effects(means, [names[k] for k in kept], r.task)
        table["pixels"] = count[kept]
        every = table.reindex(pd.Index(names, name="zone"))
        return every.fillna({"pixels": 0, "n": 0}).astype({"pixels": int, "n": int})

    def _codes(self, zone: xr.DataArray | gpd.GeoDataFrame) -> tuple[NDArray[np.int64], list[Any]]:
        grid = self.request.grid
        if isinstance(zone, xr.DataArray):
            values = zone.transpose(grid.rows, grid.columns).to_numpy().astype(float)
            names = np.unique(values[np.isfinite(values) & (values >= 0)])
            if not names.size:
                raise EmptyInputError(
                    "There is no zone.", cause="No pixel has a number of zero or more.",
                    next_step="Check the array.",
                )  # fmt: skip
            code = np.searchsorted(names, np.where(np.isfinite(values), values, names[0]))
            inside = np.isin(values, names)
            return np.where(inside, np.minimum(code, len(names) - 1), -1), names.tolist()
        import geopandas as gpd

        x = grid.boxes()[1].mean(1)
        columns, rows = np.meshgrid(x, grid.y)
        points = gpd.GeoSeries(gpd.points_from_xy(columns.ravel(), rows.ravel()), crs=grid.crs)
        polygons = zone.to_crs(grid.crs)
        pairs = polygons.sindex.query(points, predicate="intersects")
        code = np.full(points.size, -1)
        code[pairs[0][::-1]] = pairs[1][::-1]
        return code.reshape(grid.shape), list(zone.index)

    def to_effect_map(self, zones: gpd.GeoDataFrame | None = None) -> EffectMap:
        """Return the effects as a table of places.

        Parameters
        ----------
        zones
            Polygons by neighborhood, each with the effect on its mean series; the pixels if None.
        """
        import geopandas as gpd

        if zones is None:
            table = self._cells()
        else:
            found = self.zones(zones)
            table = gpd.GeoDataFrame(
                found.drop(columns=["n", "pixels"]), geometry=zones.geometry.to_numpy(),
                crs=zones.crs,
            )  # fmt: skip
            known = np.isfinite(found["estimate"].to_numpy())
            table["status"] = np.where(known, Status.OK.value, Status.REFUSED.value)
        table["estimand"] = "mean effect after the event"
        table["method"] = f"bsts ({self.request.task.model.prior!r})"
        table["support"] = np.where(table["status"] == Status.OK.value, 1.0, np.nan)
        table.index.name = "neighborhood"
        return EffectMap(table, self.level, meta={"event": self.request.begins})

    def _cells(self) -> gpd.GeoDataFrame:
        import geopandas as gpd
        from shapely import box

        y, x = self.request.grid.boxes()
        low_y, low_x = np.repeat(y[:, 0], len(x)), np.tile(x[:, 0], len(y))
        high_y, high_x = np.repeat(y[:, 1], len(x)), np.tile(x[:, 1], len(y))
        height, width = self.request.grid.shape
        names = [f"r{r}c{c}" for r in range(height) for c in range(width)]
        columns = ["estimate", "std_error", "ci_low", "ci_high", "p_value", "q_value"]
        values = {name: self.data[name].to_numpy().ravel() for name in columns}
        table = gpd.GeoDataFrame(
            values, index=names, geometry=box(low_x, low_y, high_x, high_y),
            crs=self.request.grid.crs,
        )  # fmt: skip
        code = self.data["status"].to_numpy().ravel()
        table["status"] = np.where(code == PixelStatus.OK, Status.OK.value, Status.REFUSED.value)
        table.loc[code == PixelStatus.EMPTY, "status"] = Status.NO_IMAGE.value
        return table[code != PixelStatus.OUTSIDE]

    def write(self, path: Path | str) -> Path:
        """Write a COG (``.tif``), NetCDF (``.nc``), or the table (``.parquet``, ``.gpkg``).

        The file appears whole or not at all. A COG has one band for each variable, north up, with
        longitudes to 180; NetCDF keeps the coordinates of the cube.

        Raises
        ------
        EstimationError
            If the suffix is none of these.
        CubeError
            If a COG is asked for pixels that are not evenly spaced.
        """
        target = Path(path)
        if target.suffix in {".tif", ".tiff"}:
            return write_map_cog(self.data, self.request.grid, target)
        if target.suffix == ".nc":
            return write_map_netcdf(self.data, self.request.grid, target)
        if target.suffix in {".parquet", ".gpkg"}:
            return self.to_effect_map().write(target)
        raise EstimationError(
            f"A map cannot be written as {target.suffix!r}.",
            cause="Known are .tif, .nc, .parquet and .gpkg.",
            next_step="Choose one of these suffixes.",
        )


def assemble(request: MapRequest, found: Iterator[tuple[int, TileEffects]]) -> ImpactMap:
    """Put tiles together as they come.

    Raises
    ------
    EmptyInputError
        If no pixel has an effect.
    """
    shape = request.grid.shape
    effects = np.full((len(ESTIMATES), *shape), np.nan)
    n_before, n_after = (np.zeros(shape, np.int32) for _ in range(2))
    status = np.zeros(shape, np.int8)
    sums: dict[int, Float64] = {}
    for at, tile in found:
        window = request.windows[at]
        size = status[window].shape
        effects[:, *window] = tile.effects.T.reshape(-1, *size)
        n_before[window], n_after[window] = tile.n_before.reshape(size), tile.n_after.reshape(size)
        status[window] = tile.status.reshape(size)
        sums[at] = tile.sums
    failures = _failures(status)
    if not (status == PixelStatus.OK).any():
        reasons = "; ".join(f"{n} {words}" for words, n in failures[["words", "pixels"]].to_numpy())
        raise EmptyInputError(
            "No pixel has an effect.", cause=f"Pixels: {reasons}.",
            next_step="Check dates and gaps of the cube, or pass a smaller least.",
        )  # fmt: skip
    series = mean_series(sum((sums[at] for at in sorted(sums)), np.zeros_like(sums[0])))
    area = series_effects(series, ["area"], request.task).iloc[0]
    data = _dataset(request, effects, n_before, n_after, status)
    return ImpactMap(data, area, failures, request)


def _failures(status: NDArray[np.int8]) -> pd.DataFrame:
    rows = [
        {"status": code.name.lower(), "words": code.words, "pixels": int((status == code).sum())}
        for code in PixelStatus
        if code is not PixelStatus.OK and (status == code).any()
    ]
    return pd.DataFrame(rows, columns=["status", "words", "pixels"])


def _dataset(
    request: MapRequest,
    effects: Float64,
    n_before: NDArray[np.int32],
    n_after: NDArray[np.int32],
    status: NDArray[np.int8],
) -> xr.Dataset:
    grid = request.grid
    dims = (grid.rows, grid.columns)
    unit = request.cube.attrs.get("units")
    data = xr.Dataset(coords={name: request.cube[name] for name in dims})
    for name, values in zip(ESTIMATES, effects, strict=True):
        attrs = {"long_name": LONG_NAMES[name]}
        own = name in ("estimate", "std_error", "ci_low", "ci_high")
        attrs["units"] = str(unit) if own and unit else "1"
        if own and not unit:
            attrs.pop("units")
        data[name] = (dims, values, attrs)
    p = data["p_value"].to_numpy()
    q = benjamini_hochberg(p.ravel()).reshape(p.shape)
    tests = int(np.isfinite(p).sum())
    harmonic = float((1.0 / np.arange(1, tests + 1)).sum())
    data["q_value"] = (
        dims, q, {"long_name": "false discovery rate (Benjamini-Hochberg)", "units": "1"}
    )  # fmt: skip
    data["q_value_dependent"] = (
        dims, np.minimum(q * harmonic, 1.0),
        {"long_name": "false discovery rate (Benjamini-Yekutieli)", "units": "1"},
    )  # fmt: skip
    data["n_before"] = (dims, n_before, {"long_name": "values learned from", "units": "1"})
    data["n_after"] = (dims, n_after, {"long_name": "values counted", "units": "1"})
    data["status"] = (
        dims, status,
        {
            "long_name": "what became of the pixel",
            "flag_values": np.array([int(s) for s in PixelStatus], np.int8),
            "flag_meanings": " ".join(s.name.lower() for s in PixelStatus),
        },
    )  # fmt: skip
    data.attrs = {
        "Conventions": "CF-1.10",
        "title": f"Mean effect of the event {request.begins} on {request.name}",
        "source": f"eocausal bsts_map, {request.task.model!r}",
    }
    return data
