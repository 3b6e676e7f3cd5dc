"""What the metadata of a gridded file say: its axes, its place on Earth, its missing values.

The conventions are those of CF 1.11 (chapters 4, 5, 7 and 8) and the habits of ocean-colour
archives. Nothing here opens a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyproj
import xarray as xr
from numpy.typing import NDArray

from eocausal.contracts import some
from eocausal.errors import CRSError
from eocausal.ingest.grid import WGS84, SceneGrid, parse_crs, same_crs

__all__ = [
    "Layout",
    "Packing",
    "Refused",
    "choose",
    "grid_of",
    "layout_of",
    "packing_of",
    "unpacked",
]

FloatArray = NDArray[np.float64]

_STANDARD_NAMES: Final = {
    "latitude": "lat", "longitude": "lon", "time": "time",
    "projection_y_coordinate": "y", "projection_x_coordinate": "x",
    "grid_latitude": "y", "grid_longitude": "x",
}  # fmt: skip
_NAMES: Final = {
    "lat": "lat", "latitude": "lat", "lon": "lon", "long": "lon", "longitude": "lon",
    "y": "y", "yc": "y", "rlat": "y", "northing": "y",
    "x": "x", "xc": "x", "rlon": "x", "easting": "x",
    "time": "time", "t": "time", "valid_time": "time",
}  # fmt: skip
_NORTH: Final = ("degrees_north", "degree_north", "degrees_n", "degree_n", "degreesn", "degreen")
_EAST: Final = ("degrees_east", "degree_east", "degrees_e", "degree_e", "degreese", "degreee")
_AXES: Final = {"X": "x", "Y": "y", "T": "time"}
_CRS_TEXTS: Final = ("crs_wkt", "spatial_ref", "epsg_code", "proj4", "proj4text", "proj4_params")
_METRES: Final = {"m": 1.0, "metre": 1.0, "meter": 1.0, "metres": 1.0, "meters": 1.0,
                  "km": 1e3, "kilometre": 1e3, "kilometer": 1e3, "kilometers": 1e3}  # fmt: skip
_JITTER: Final = 0.05


class Refused(ValueError):
    """A gridded file cannot be used; ``reason`` is the short word of the ledger."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Packing:
    """How the numbers of a variable are stored: value = stored * scale + offset.

    ``dtype`` is that of the stored numbers as they are meant (the attribute ``_Unsigned`` turns
    bytes that say int8 into uint8); ``fills`` are the stored numbers that mean no data.
    """

    dtype: np.dtype[Any]
    fills: tuple[int | float, ...]
    scale: float
    offset: float


@dataclass(frozen=True, slots=True)
class Layout:
    """Which dimension of a variable is which; ``y_axis`` and ``x_axis`` name the coordinates.

    ``others`` are the dimensions that are neither horizontal nor time.
    """

    y: str
    x: str
    y_axis: str
    x_axis: str
    time: str | None
    others: tuple[str, ...]


def packing_of(variable: xr.Variable) -> Packing:
    """Read how a variable is packed (CF 8.1, and the netCDF attribute ``_Unsigned``)."""
    attrs = variable.attrs
    dtype = np.dtype(variable.dtype).newbyteorder("=")
    unsigned = str(attrs.get("_Unsigned", "")).lower()
    if (dtype.kind, unsigned) in (("i", "true"), ("u", "false")):
        dtype = np.dtype(("u" if unsigned == "true" else "i") + str(dtype.itemsize))
    fills: set[int | float] = set()
    for key in ("_FillValue", "missing_value"):
        for value in np.ravel(attrs.get(key, ())):
            stored = _as_stored(value, dtype)
            if stored is not None:
                fills.add(stored)
    try:
        scale = float(np.ravel(attrs.get("scale_factor", 1.0))[0])
        offset = float(np.ravel(attrs.get("add_offset", 0.0))[0])
    except (TypeError, ValueError, IndexError) as error:
        text = f"A scale_factor or add_offset is not a number: {error}."
        raise Refused("wrong_scale", text) from error
    return Packing(dtype, tuple(sorted(fills)), scale, offset)


def _as_stored(value: Any, dtype: np.dtype[Any]) -> int | float | None:
    """Return a fill value as a stored number would hold it, None if it needs no comparison."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if not np.isfinite(number):
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return float(dtype.type(number))
    if number != int(number):
        return None
    info, whole = np.iinfo(dtype), int(value)
    if dtype.kind == "u" and whole < 0:
        whole += info.max + 1
    elif dtype.kind == "i" and info.max < whole <= 2 * info.max + 1:
        whole -= 2 * (info.max + 1)
    return whole if info.min <= whole <= info.max else None


def unpacked(variable: xr.Variable) -> FloatArray:
    """Values of a variable in its units, float64, NaN where there is no data."""
    packing = packing_of(variable)
    stored = np.asarray(variable.values)
    if stored.dtype.kind in "iu":
        stored = stored.astype(packing.dtype, copy=False)
    values = stored.astype(np.float64)
    if packing.fills:
        values[np.isin(values, packing.fills)] = np.nan
    return values * packing.scale + packing.offset


def _role(name: str, attrs: Mapping[Any, Any], *, by_name: bool = True) -> str | None:
    """Say what a coordinate measures: lat, lon, x, y, time, or None."""
    units = str(attrs.get("units", "")).strip().lower()
    if str(attrs.get("standard_name", "")) in _STANDARD_NAMES:
        return _STANDARD_NAMES[str(attrs["standard_name"])]
    if units in _NORTH or units in _EAST:
        return "lat" if units in _NORTH else "lon"
    if " since " in units:
        return "time"
    known = _NAMES.get(name.lower()) if by_name else None
    return known or _AXES.get(str(attrs.get("axis", "")).upper())


def _axes(dataset: xr.Dataset) -> dict[str, tuple[str, str]]:
    """For each dimension with a coordinate, what it measures and the name of the coordinate."""
    found: dict[str, tuple[str, str]] = {}
    names = sorted(dataset.variables, key=lambda n: str(n) not in dataset.dims)
    for key in names:
        name, variable = str(key), dataset.variables[key]
        if variable.ndim == 1 and variable.dtype.kind in "iuf":
            dim = str(variable.dims[0])
            role = _role(name, variable.attrs, by_name=name == dim)
            if role is not None:
                found.setdefault(dim, (role, name))
    for dim in map(str, dataset.dims):
        if dim not in found and _NAMES.get(dim.lower()) == "time":
            found[dim] = ("time", "")
    return found


def layout_of(dataset: xr.Dataset, name: str) -> Layout | None:
    """Find the horizontal dimensions and time of a variable; None if it is not on a grid."""
    variable = dataset.variables[name]
    if variable.ndim < 2 or variable.dtype.kind not in "iuf":
        return None
    axes = _axes(dataset)
    at: dict[str, tuple[str, str]] = {}
    for dim in map(str, variable.dims):
        if dim in axes:
            role, axis = axes[dim]
            at.setdefault(role, (dim, axis))
    pair = next((p for p in (("lat", "lon"), ("y", "x")) if p[0] in at and p[1] in at), None)
    if pair is None:
        return None
    (y, y_axis), (x, x_axis) = at[pair[0]], at[pair[1]]
    time = at["time"][0] if "time" in at else None
    others = tuple(d for d in map(str, variable.dims) if d not in (y, x, time))
    return Layout(y, x, y_axis, x_axis, time, others)


def grid_of(dataset: xr.Dataset, name: str, layout: Layout, crs: str | None) -> SceneGrid:
    """Grid of a variable: its CRS and the affine transform of its rows and columns as stored.

    Rows that run north have a positive e, longitudes in 0..360 stay so, and columns that jump
    from 180 to -180 (or 360 to 0) go on beyond.

    Parameters
    ----------
    crs
        CRS given by the user, for files that do not say theirs.

    Raises
    ------
    Refused
        If the pixels have no place, the grid is not regular or the CRS is unknown.
    CRSError
        If ``crs`` contradicts the file.
    """
    y, x = (dataset.variables[n] for n in (layout.y_axis, layout.x_axis))
    roles = _role(layout.y_axis, y.attrs), _role(layout.x_axis, x.attrs)
    degrees = roles == ("lat", "lon")
    own = _own_crs(dataset, name)
    if degrees and own is not None and not parse_crs(own).is_geographic:
        fact = f"Its axes are latitudes and longitudes, but its CRS is {parse_crs(own).name}."
        raise Refused("wrong_crs", fact)
    if own is not None and crs is not None and not same_crs(own, crs):
        raise CRSError(
            f"crs={crs!r} was given, but the file says {parse_crs(own).name}.",
            cause="One of them is wrong, and the grid would silently move.",
            next_step="Leave crs out to use each file's own.",
        )
    text = own or crs or (WGS84 if degrees else None)
    if text is None:
        raise Refused("no_crs", "It has no coordinate reference system: no grid_mapping.")
    factor = _units(x, y, text)
    dx, x0 = _regular(unpacked(x), x.dtype, layout.x_axis, turn=360.0 if degrees else None)
    dy, y0 = _regular(unpacked(y), y.dtype, layout.y_axis, turn=None)
    dx, x0, dy, y0 = dx * factor, x0 * factor, dy * factor, y0 * factor
    grid = SceneGrid(text, (dx, 0.0, x0 - dx / 2, 0.0, dy, y0 - dy / 2), x.size, y.size)
    if parse_crs(text).is_geographic and grid.period is not None:
        _check_degrees(grid)
    return grid


def _check_degrees(grid: SceneGrid) -> None:
    dx, _, left, _, dy, top = grid.transform
    turn = grid.period or 360.0
    high = max(abs(top), abs(top + dy * grid.height))
    wide = abs(dx) * grid.width
    if high > turn / 4 + abs(dy) or wide > turn + 2 * abs(dx) or abs(left) > 2 * turn:
        text = "Its axes are in degrees, but lie beyond any on Earth."
        raise Refused("wrong_crs", text)


def _units(x: xr.Variable, y: xr.Variable, crs: str) -> float:
    """Return the factor that turns the coordinates into the units of the CRS."""
    units = [str(v.attrs.get("units", "")).strip().lower() for v in (x, y)]
    if any(u.startswith("rad") for u in units):
        text = "Its axes are scan angles in radians, not map coordinates; put it on a map grid."
        raise Refused("no_georeference", text)
    parsed = parse_crs(crs)
    if parsed.is_geographic or units[0] not in _METRES or units[0] != units[1]:
        return 1.0
    return float(_METRES[units[0]] / parsed.axis_info[0].unit_conversion_factor)


def _regular(
    values: FloatArray, dtype: np.dtype[Any], name: str, *, turn: float | None
) -> tuple[float, float]:
    """Step and first centre of an axis, by least squares; coordinates may be rounded."""
    if values.size < 2:
        text = f"Its axis {name!r} has a single value, so the size of a pixel is unknown."
        raise Refused("irregular_grid", text)
    if not np.isfinite(values).all():
        raise Refused("irregular_grid", f"Its axis {name!r} has missing values.")
    if turn is not None:
        values = np.unwrap(values, period=turn)
    index = np.arange(values.size, dtype=np.float64)
    centred = index - index.mean()
    step = float(centred @ values / (centred @ centred))
    first = float(values.mean() - step * index.mean())
    rounding = float(np.spacing(np.abs(values).max().astype(dtype))) if dtype.kind == "f" else 0.0
    slack = min(max(_JITTER * abs(step), 2.0 * rounding), 0.5 * abs(step))
    off = np.abs(values - (first + step * index)).max()
    if step == 0 or off > slack:
        text = (
            f"Its axis {name!r} is not regular: values lie up to {off:.3g} off even steps of "
            f"{abs(step):.6g}. Put it on a regular grid first (e.g. with cdo remapbil)."
        )
        raise Refused("irregular_grid", text)
    return step, first


def _own_crs(dataset: xr.Dataset, name: str) -> str | None:
    """CRS that the file states for a variable, by its grid mapping (CF 5.6)."""
    attrs = dataset.variables[name].attrs
    mapping = str(attrs.get("grid_mapping", "")).split(" ")[0].rstrip(":")
    found = next((n for n in (mapping, "spatial_ref", "crs") if n in dataset.variables), None)
    if found is None or dataset.variables[found].size > 1:
        return None
    stated = dataset.variables[found].attrs
    texts = [str(stated[k]).strip() for k in _CRS_TEXTS if str(stated.get(k, "")).strip()]
    try:
        if texts:
            return _crs_name(parse_crs(f"EPSG:{texts[0]}" if texts[0].isdigit() else texts[0]))
        if "grid_mapping_name" in stated:
            return _crs_name(pyproj.CRS.from_cf(dict(stated)))
    except CRSError as error:
        raise Refused("wrong_crs", f"{error.fact} {error.cause}") from error
    except (pyproj.exceptions.CRSError, KeyError, ValueError) as error:
        raise Refused("wrong_crs", f"Its grid mapping {found!r} cannot be read: {error}") from error
    return None


def _crs_name(crs: Any) -> str:
    """Name a CRS so that nothing is lost: its EPSG code only if that says the same."""
    wkt = str(crs.to_wkt())
    if same_crs(wkt, WGS84) or (crs.is_geographic and _like_wgs84(crs)):
        return WGS84
    code = crs.to_epsg(min_confidence=90)
    return f"EPSG:{code}" if code and same_crs(wkt, f"EPSG:{code}") else wkt


def _like_wgs84(crs: Any) -> bool:
    """Whether degrees of an unnamed datum are on the ellipsoid of WGS 84, from Greenwich."""
    datum = crs.datum.name.lower() if crs.datum is not None else ""
    plain = not crs.is_derived and any(w in datum for w in ("unknown", "undefined"))
    if not plain or crs.ellipsoid is None or crs.prime_meridian.longitude != 0.0:
        return False
    shape = crs.ellipsoid
    return bool(
        shape.semi_major_metre == 6378137.0 and abs(shape.inverse_flattening - 298.25722) < 1e-4
    )


def choose(
    dataset: xr.Dataset, variables: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[Layout, ...]]:
    """Choose the variables on one horizontal grid, and how each is laid out.

    Raises
    ------
    Refused
        If a variable is missing or not on a grid, or they are on several grids.
    """
    layouts = {str(n): layout_of(dataset, str(n)) for n in dataset.data_vars}
    on_grid = [n for n, layout in layouts.items() if layout is not None]
    missing = [n for n in variables or () if n not in layouts]
    if missing:
        text = f"It has no variable {some(missing)}; those on a grid are {some(on_grid, 20)}."
        raise Refused("band_missing", text)
    beside = _auxiliary(dataset)
    wanted = tuple([n for n in on_grid if n not in beside] if variables is None else variables)
    off = [n for n in wanted if layouts[n] is None]
    if not wanted or off:
        raise Refused("no_georeference", _why_no_grid(dataset, off))
    chosen = tuple(layout for n in wanted if (layout := layouts[n]) is not None)
    if len({(c.y, c.x) for c in chosen}) > 1:
        text = f"Its variables are on several grids: {some(wanted, 20)}. Name some in variables."
        raise Refused("several_grids", text)
    return wanted, chosen


def _auxiliary(dataset: xr.Dataset) -> set[str]:
    """Names of variables that only say where others are: CF auxiliary coordinates."""
    holders = [dataset.attrs, *(v.attrs for v in dataset.variables.values())]
    named = {n for attrs in holders for n in str(attrs.get("coordinates", "")).split()}
    roles = {str(n): _role(str(n), v.attrs) for n, v in dataset.data_vars.items()}
    return named | {n for n, role in roles.items() if role in ("lat", "lon")}


def _why_no_grid(dataset: xr.Dataset, names: Sequence[str]) -> str:
    if not dataset.data_vars:
        return "It has no variables at its top level (those in groups are not read)."
    whose = f"Its variables {some(names)} have" if names else "It has"
    swath = any(
        v.ndim == 2 and _role(str(n), v.attrs) in ("lat", "lon")
        for n, v in dataset.variables.items()
    )
    if swath:
        return (
            "It is a swath or curvilinear grid: its latitudes and longitudes have two dimensions. "
            "Put it on a regular grid first (e.g. gdalwarp -geoloc, SNAP or pyresample)."
        )
    return f"{whose} no regular axes of latitude and longitude, or x and y, so no place on Earth."
