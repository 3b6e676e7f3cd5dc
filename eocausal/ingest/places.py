"""Neighborhoods: read them from any usual file, check them, find their centres."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyogrio
import shapely
from numpy.typing import NDArray

from eocausal.contracts import NEIGHBORHOOD, check_columns, check_neighborhoods, some
from eocausal.errors import (
    CRSError,
    DuplicateIdError,
    EmptyInputError,
    GeometryError,
    IngestError,
    MissingColumnError,
)
from eocausal.ingest.footprints import polygon_on_globe, square_ring
from eocausal.ingest.grid import (
    POLAR_CRS,
    WGS84,
    local_crs,
    parse_crs,
    project,
    same_crs,
    x_period,
)

__all__ = ["Centres", "locate", "read_neighborhoods"]

FloatArray = NDArray[np.float64]
SQUARE_COLUMNS: Final = ("size_m", "center_lon", "center_lat")
_TABLES: Final = {".csv": ",", ".tsv": "\t", ".txt": "\t", ".tab": "\t"}


def read_neighborhoods(
    source: str | Path | pd.DataFrame | gpd.GeoDataFrame,
    *,
    id: str | None = None,
    x: str = "lon",
    y: str = "lat",
    size_m: float | None = None,
    crs: str | None = None,
    layer: str | None = None,
) -> gpd.GeoDataFrame:
    """Read neighborhoods from a vector file, a table with coordinates, or a data frame.

    Parameters
    ----------
    source
        GeoPackage, GeoJSON, Shapefile or another file GDAL reads, (Geo)Parquet, CSV or TSV, or
        a DataFrame or GeoDataFrame.
    id
        Column that identifies a place; by default a column (or index) named ``neighborhood``,
        else the row number.
    x, y
        Columns with the coordinates, for tables.
    size_m
        For points: make each a square of this side in metres, drawn in its local UTM (or UPS)
        zone. The columns ``size_m``, ``center_lon`` and ``center_lat`` (EPSG:4326) keep what
        the square was made from; a cube takes its centre from them.
    crs
        CRS of the coordinates: for tables (EPSG:4326 by default) and for vector files that do
        not say. It never overrides the CRS of a file.
    layer
        Layer of a file with several.

    Returns
    -------
    GeoDataFrame
        Index ``neighborhood``, all other columns as they were. A geographic square across the
        antimeridian is a MultiPolygon cut there (RFC 7946), one over a pole reaches it.

    Raises
    ------
    EmptyInputError, MissingColumnError, CRSError, GeometryError, DuplicateIdError, IngestError

    Examples
    --------
    >>> table = pd.DataFrame({"village": ["a", "b"], "lon": [32.5, 32.6], "lat": [0.3, 0.4]})
    >>> read_neighborhoods(table, id="village", size_m=1000).size_m.tolist()
    [1000.0, 1000.0]
    """
    loaded = source if isinstance(source, pd.DataFrame) else _load(Path(source), layer)
    if len(loaded) == 0:
        raise EmptyInputError(
            "There are no neighborhoods.",
            cause="The source has no rows.",
            next_step="Give a file with at least one place.",
        )
    if isinstance(loaded, gpd.GeoDataFrame):
        places = _with_crs(loaded.copy(), crs)
    else:
        places = _points(loaded, x, y, crs or WGS84)
    places = check_neighborhoods(_indexed(places, id))
    _check_position(places)
    return places if size_m is None else check_neighborhoods(_squares(places, size_m))


def _load(path: Path, layer: str | None) -> Any:
    if not path.exists():
        raise EmptyInputError(
            f"There is no file {path}.",
            cause="The path is wrong, or the file was moved.",
            next_step="Check the path; relative paths start at the working directory.",
        )
    suffix = path.suffix.lower()
    try:
        if suffix in _TABLES:
            return _load_text(path, _TABLES[suffix])
        if suffix in (".parquet", ".pq", ".geoparquet"):
            return _load_parquet(path)
        layers = [str(name) for name in pyogrio.list_layers(path)[:, 0]]
        if layer is None and len(layers) > 1:
            raise IngestError(
                f"{path.name} has {len(layers)} layers: {some(layers, 10)}.",
                cause="Which of them holds the neighborhoods cannot be guessed.",
                next_step="Pass layer=... with one of these names.",
            )
        frame = gpd.read_file(path, layer=layer or layers[0])
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise IngestError(
            f"{path} cannot be read as a vector file.",
            cause=f"{error}.",
            next_step="Check that the file is whole and its format is one GDAL reads.",
        ) from error
    except (
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
        UnicodeDecodeError,
        pa.ArrowException,
    ) as error:
        raise IngestError(
            f"{path} cannot be read as a table.",
            cause=f"{error}.",
            next_step="Check that it is whole, and its separator and encoding (UTF-8).",
        ) from error
    if not isinstance(frame, gpd.GeoDataFrame):
        raise GeometryError(
            f"{path.name} has no geometry column.",
            cause="The layer is a plain table.",
            next_step="Give it as CSV with x=... and y=..., or another layer.",
        )
    return frame


def _load_text(path: Path, separator: str) -> pd.DataFrame:
    table = pd.read_csv(path, sep=separator, low_memory=False)
    if not isinstance(table.index, pd.RangeIndex):
        raise IngestError(
            f"The rows of {path.name} have more fields than its header has names.",
            cause="A separator at the end of the rows, or decimal commas, would shift the columns.",
            next_step="Write decimal points, and as many names as fields.",
        )
    return table


def _load_parquet(path: Path) -> Any:
    import pyarrow.parquet as pq

    metadata = pq.read_schema(path).metadata or {}
    return gpd.read_parquet(path) if b"geo" in metadata else pd.read_parquet(path)


def _with_crs(places: gpd.GeoDataFrame, crs: str | None) -> gpd.GeoDataFrame:
    if crs is None:
        if places.crs is None:
            raise CRSError(
                "The neighborhoods have no coordinate reference system.",
                cause="The file does not say which CRS its coordinates are in.",
                next_step="Pass crs=..., e.g. crs='EPSG:4326' for longitude and latitude.",
            )
        return places
    wanted = parse_crs(crs)
    if places.crs is None:
        return places.set_crs(wanted)
    if not parse_crs(places.crs).equals(wanted, ignore_axis_order=True):
        raise CRSError(
            f"crs={crs!r} was given, but the file says {places.crs.name}.",
            cause="One of them is wrong, and places would silently move.",
            next_step="Leave crs out to use the file's, or transform with to_crs() first.",
        )
    return places


def _points(table: pd.DataFrame, x: str, y: str, crs: str) -> gpd.GeoDataFrame:
    check_columns(table, [x, y], what="table of neighborhoods")
    wanted = parse_crs(crs)
    values = [pd.to_numeric(table[c], errors="coerce").to_numpy(dtype=float) for c in (x, y)]
    broken = ~(np.isfinite(values[0]) & np.isfinite(values[1]))
    if broken.any():
        raise GeometryError(
            f"{int(broken.sum())} rows have no finite {x!r} and {y!r}: "
            f"rows {some(np.flatnonzero(broken).tolist())}.",
            cause="A coordinate is missing, not a number or infinite.",
            next_step="Drop or correct those rows.",
        )
    return gpd.GeoDataFrame(
        table.copy(), geometry=gpd.points_from_xy(values[0], values[1]), crs=wanted
    )


def _indexed(places: gpd.GeoDataFrame, id: str | None) -> gpd.GeoDataFrame:
    if id is None and places.index.name == NEIGHBORHOOD:
        return places
    column = id if id is not None else NEIGHBORHOOD
    if id is None and column not in places.columns:
        places.index = pd.RangeIndex(len(places), name=NEIGHBORHOOD)
        return places
    check_columns(places, [column], what="table of neighborhoods")
    missing = places[column].isna().to_numpy()
    if missing.any():
        raise MissingColumnError(
            f"The id column {column!r} is empty in {int(missing.sum())} rows: "
            f"rows {some(np.flatnonzero(missing).tolist())}.",
            cause="A place without an id cannot be joined to its units; in text files NA, None "
            "and null are read as empty.",
            next_step="Fill the ids in, or drop those rows.",
        )
    if places[column].duplicated().any():
        repeated = places.loc[places[column].duplicated(), column].unique()
        raise DuplicateIdError(
            f"{len(repeated)} ids in {column!r} occur more than once: {some(repeated)}.",
            cause="An effect could not be told to which place it belongs.",
            next_step="Give one row per place; people link to places from their own table.",
        )
    return places.set_index(column).rename_axis(NEIGHBORHOOD)


def _check_position(places: gpd.GeoDataFrame) -> None:
    """Refuse projected coordinates that are degrees, or lie nowhere on Earth."""
    if places.crs.is_geographic:
        return
    low_x, low_y, high_x, high_y = places.total_bounds
    if max(-low_x, high_x) <= 360 and max(-low_y, high_y) <= 90:
        raise CRSError(
            f"Coordinates reach x {low_x:g}..{high_x:g}, y {low_y:g}..{high_y:g}, "
            f"but the CRS {places.crs.name} is not in degrees.",
            cause="They look like longitude and latitude.",
            next_step="Pass crs='EPSG:4326'.",
        )
    box = places.geometry.bounds
    lon, lat = project(
        places.crs.to_wkt(), WGS84, (box.minx + box.maxx) / 2, (box.miny + box.maxy) / 2
    )
    lost = ~(np.isfinite(lon) & np.isfinite(lat))
    if lost.any():
        raise CRSError(
            f"{int(lost.sum())} neighborhoods lie outside the CRS {places.crs.name}: "
            f"{some(places.index[lost])}.",
            cause="Their coordinates have no longitude and latitude.",
            next_step="Pass the right crs=..., or correct the coordinates.",
        )


def _squares(places: gpd.GeoDataFrame, size_m: float) -> gpd.GeoDataFrame:
    if not (np.isfinite(size_m) and size_m > 0):
        raise GeometryError(
            f"size_m is {size_m!r}.",
            cause="The side of a square is a positive number of metres.",
            next_step="Give the side in metres, e.g. size_m=6720.",
        )
    other = sorted(set(places.geom_type) - {"Point"})
    if other:
        raise GeometryError(
            f"size_m was given, but some geometries are {some(other)}.",
            cause="Squares are made around points.",
            next_step="Leave size_m out; build_cube(size=...) sets the chips of polygons.",
        )
    crs = places.crs.to_wkt()
    lon, lat = project(crs, WGS84, places.geometry.x, places.geometry.y)
    lon = _wrapped(lon)
    zones = np.array(local_crs(lon, lat))
    shapes = np.empty(len(places), dtype=object)
    for zone in np.unique(zones):
        rows = np.flatnonzero(zones == zone)
        cx, cy = project(WGS84, zone, lon[rows], lat[rows])
        u, v = square_ring(64 if zone in POLAR_CRS else 8)
        ring_x = cx[:, None] + (u - 0.5) * size_m
        ring_y = cy[:, None] + (v - 0.5) * size_m
        out_x, out_y = project(zone, crs, ring_x, ring_y)
        shapes[rows] = _rings(out_x, out_y, geographic=places.crs.is_geographic)
    columns = {"size_m": float(size_m), "center_lon": lon, "center_lat": lat}
    return places.set_geometry(shapes, crs=places.crs).assign(**columns)


def _rings(x: FloatArray, y: FloatArray, *, geographic: bool) -> NDArray[np.object_]:
    shapes: NDArray[np.object_] = shapely.polygons(np.stack([x, y], axis=-1))
    if geographic:
        broken = (np.abs(np.diff(x, axis=1)) > 180.0).any(axis=1) | (np.abs(x) > 180.0).any(axis=1)
        for row in np.flatnonzero(broken):
            shapes[row] = polygon_on_globe(x[row], y[row])
    return shapes


def _wrapped(lon: FloatArray) -> FloatArray:
    """Longitudes in -180..180; those already there are not touched."""
    return np.where(np.abs(lon) <= 180.0, lon, (lon + 180.0) % 360.0 - 180.0)


@dataclass(frozen=True, slots=True)
class Centres:
    """Where the chips of neighborhoods lie.

    Attributes
    ----------
    crs
        CRS of each chip, n names.
    x, y
        Centre in that CRS, shape (n,).
    lon, lat
        Centre in EPSG:4326, degrees, shape (n,).
    side
        Side of the square that holds the geometry, in units of the CRS, shape (n,); 0 for points.
    """

    crs: tuple[str, ...]
    x: FloatArray
    y: FloatArray
    lon: FloatArray
    lat: FloatArray
    side: FloatArray

    def take(self, rows: NDArray[np.intp]) -> Centres:
        """Choose some of them, in that order."""
        return Centres(
            tuple(np.asarray(self.crs, dtype=object)[rows].tolist()),
            *(v[rows] for v in (self.x, self.y, self.lon, self.lat, self.side)),
        )


def locate(places: gpd.GeoDataFrame, crs: str | None = None) -> Centres:
    """Find the centre and extent of each neighborhood in its local CRS.

    The centre is ``center_lon, center_lat`` where the table has them (with ``size_m``), else the
    middle of the bounding box in the local CRS (the point itself for points).

    Parameters
    ----------
    places
        Neighborhoods, see :func:`eocausal.contracts.check_neighborhoods`.
    crs
        One CRS for all; None for each one's UTM zone (UPS beyond 84 N and 80 S).
    """
    source = places.crs.to_wkt()
    kept = all(c in places.columns for c in SQUARE_COLUMNS)
    shapes = _continuous(np.asarray(places.geometry.array, dtype=object), source)
    if kept:
        lon, lat = (places[c].to_numpy(dtype=float) for c in SQUARE_COLUMNS[1:])
    else:
        box = shapely.bounds(shapes)
        lon, lat = project(source, WGS84, (box[:, 0] + box[:, 2]) / 2, (box[:, 1] + box[:, 3]) / 2)
    _refuse_lost(np.isfinite(lon) & np.isfinite(lat), places, [WGS84])
    lon = _wrapped(lon)
    names = np.array([crs] * len(places) if crs else local_crs(lon, lat))
    x, y, side = np.empty(len(places)), np.empty(len(places)), np.empty(len(places))
    for name in np.unique(names):
        rows = np.flatnonzero(names == name)
        if kept:
            x[rows], y[rows] = project(WGS84, name, lon[rows], lat[rows])
            side[rows] = _metres_to(name, places["size_m"].to_numpy(dtype=float)[rows])
            continue
        local = _transformed(shapes[rows], source, str(name))
        low_x, low_y, high_x, high_y = shapely.bounds(local).T
        x[rows], y[rows] = (low_x + high_x) / 2, (low_y + high_y) / 2
        side[rows] = np.maximum(high_x - low_x, high_y - low_y)
        lon[rows], lat[rows] = project(str(name), WGS84, x[rows], y[rows])
    found = np.isfinite(x) & np.isfinite(y) & np.isfinite(lon) & np.isfinite(lat)
    _refuse_lost(found, places, sorted(set(names[~found].tolist())))
    return Centres(tuple(names.tolist()), x, y, _wrapped(lon), lat, side)


def _refuse_lost(found: NDArray[np.bool_], places: gpd.GeoDataFrame, names: list[str]) -> None:
    if not found.all():
        raise CRSError(
            f"{int((~found).sum())} neighborhoods cannot be placed in {some(names)}: "
            f"{some(places.index[~found])}.",
            cause="Their coordinates lie outside that CRS, or outside their own.",
            next_step="Leave crs out to use local UTM zones, or correct the coordinates.",
        )


def _metres_to(crs: str, metres: FloatArray) -> FloatArray:
    parsed = parse_crs(crs)
    if parsed.is_geographic:
        return np.full(len(metres), np.nan)
    return np.asarray(metres / parsed.axis_info[0].unit_conversion_factor, dtype=float)


def _continuous(shapes: NDArray[np.object_], crs: str) -> NDArray[np.object_]:
    """Geometries whose x runs on across the antimeridian instead of breaking.

    That is so for longitudes and for cylindrical projections; others do not break there.
    """
    turn = x_period(crs)
    if turn is None:
        return shapes
    box = shapely.bounds(shapes)
    wide = box[:, 2] - box[:, 0] > turn / 2

    def shift(points: FloatArray) -> FloatArray:
        return np.where(np.arange(2) == 0, points % turn, points)

    if wide.any():
        shapes = shapes.copy()
        moved = shapely.transform(shapes[wide], shift)
        narrower = np.ptp(shapely.bounds(moved)[:, ::2], axis=1) < np.ptp(box[wide, ::2], axis=1)
        shapes[np.flatnonzero(wide)[narrower]] = moved[narrower]
    return shapes


def _transformed(shapes: NDArray[np.object_], source: str, target: str) -> NDArray[np.object_]:
    if same_crs(source, target):
        return shapes
    moved: NDArray[np.object_] = shapely.transform(
        shapes, lambda p: np.column_stack(project(source, target, p[:, 0], p[:, 1]))
    )
    return _continuous(moved, target)
