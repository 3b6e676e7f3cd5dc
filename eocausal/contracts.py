"""What good data look like, as functions that say what is wrong with bad data.

Data stay plain (GeoDataFrame, xarray, pandas); each ``check_*`` returns its argument so that
it can stand in the middle of an expression.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from eocausal.errors import (
    AlignmentError,
    CRSError,
    CubeError,
    DesignError,
    DuplicateIdError,
    EmbeddingError,
    EmptyInputError,
    GeometryError,
    MissingColumnError,
    PanelError,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    import geopandas as gpd
    import pandas as pd
    import xarray as xr
    from numpy.typing import NDArray

__all__ = [
    "CUBE_DIMS",
    "EFFECT_COLUMNS",
    "ChipStatus",
    "check_columns",
    "check_cube",
    "check_effects",
    "check_embedding",
    "check_feature_rows",
    "check_neighborhoods",
    "check_panel",
    "check_same_neighborhoods",
    "codes",
]

NEIGHBORHOOD: Final = "neighborhood"
_ROWS_AT_ONCE: Final = 4096
CUBE_DIMS: Final = ("neighborhood", "period", "band", "y", "x")
EFFECT_COLUMNS: Final = (
    "estimand",
    "method",
    "estimate",
    "std_error",
    "ci_low",
    "ci_high",
    "support",
    "status",
)


class ChipStatus(IntEnum):
    """What became of one chip; stored as ``status(neighborhood, period)`` beside the cube."""

    OK = 0
    PARTIAL = 1
    NODATA_ONLY = 2
    OUTSIDE = 3
    NO_SOURCE = 4
    READ_ERROR = 5


def some(values: Iterable[Hashable], limit: int = 5) -> str:
    """Write out the first few values of a list for an error message."""
    items = list(values)
    shown = ", ".join(repr(v.item() if isinstance(v, np.generic) else v) for v in items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"


def check_columns(table: pd.DataFrame, columns: Sequence[str], *, what: str = "table") -> None:
    """Raise ``MissingColumnError`` naming every column that is not there, with near misses."""
    missing = [c for c in columns if c not in table.columns]
    if not missing:
        return
    import difflib

    hints = []
    for name in missing:
        close = difflib.get_close_matches(name, [str(c) for c in table.columns], n=1)
        hints.append(f"{name!r}" + (f" (closest: {close[0]!r})" if close else ""))
    raise MissingColumnError(
        f"The {what} has no column {', '.join(hints)}.",
        cause=f"Its columns are {some(table.columns, 20)}.",
        next_step="Correct the name, or add the column.",
    )


def check_neighborhoods(places: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Check that a table of neighborhoods keeps its contract.

    Parameters
    ----------
    places
        GeoDataFrame with a unique index named ``neighborhood``, a known CRS, and geometries
        that are present, non-empty and valid.

    Raises
    ------
    EmptyInputError, CRSError, DuplicateIdError, GeometryError
    """
    if len(places) == 0:
        raise EmptyInputError(
            "There are no neighborhoods.",
            cause="The table has no rows.",
            next_step="Give a file with at least one place.",
        )
    if places.crs is None:
        raise CRSError(
            "The neighborhoods have no coordinate reference system.",
            cause="Without one their position on Earth is unknown.",
            next_step="Pass crs=..., e.g. crs='EPSG:4326' for longitude and latitude.",
        )
    if places.index.name != NEIGHBORHOOD:
        raise MissingColumnError(
            f"The index of the neighborhoods is named {places.index.name!r}, not 'neighborhood'.",
            cause="Cubes, embeddings and effects are joined on that index.",
            next_step="Use read_neighborhoods(..., id=...) or rename the index.",
        )
    if not places.index.is_unique:
        repeated = places.index[places.index.duplicated()].unique()
        raise DuplicateIdError(
            f"{len(repeated)} neighborhood ids occur more than once: {some(repeated)}.",
            cause="An effect could not be told to which place it belongs.",
            next_step="Make the id unique, or drop the repeated rows.",
        )
    missing = places.geometry.isna() | places.geometry.is_empty
    if missing.any():
        raise GeometryError(
            f"{int(missing.sum())} neighborhoods have no geometry: {some(places.index[missing])}.",
            cause="They cannot be placed on any image.",
            next_step="Drop them or give their coordinates.",
        )
    invalid = ~places.geometry.is_valid
    if invalid.any():
        raise GeometryError(
            f"{int(invalid.sum())} geometries are invalid: {some(places.index[invalid])}.",
            cause="Self-intersections make areas and centroids meaningless.",
            next_step="Repair them, e.g. with places.geometry.make_valid().",
        )
    bounds = places.total_bounds
    if not np.isfinite(bounds).all():
        raise GeometryError(
            "Some coordinates are not finite.",
            cause="A coordinate is NaN or infinite.",
            next_step="Drop or correct those rows.",
        )
    if places.crs.is_geographic:
        low_x, low_y, high_x, high_y = bounds
        if low_y < -90 or high_y > 90 or low_x < -180 or high_x > 360:
            raise CRSError(
                f"Coordinates reach x {low_x:g}..{high_x:g}, y {low_y:g}..{high_y:g}, "
                f"but the CRS {places.crs.name} is in degrees.",
                cause="The coordinates are probably in metres of another CRS, or swapped.",
                next_step="Pass the right crs=..., or swap x and y.",
            )
    return places


def check_cube(cube: xr.Dataset) -> xr.Dataset:
    """Check that a cube has its variables, dimensions, coordinates and attributes.

    A cube holds ``image(neighborhood, period, band, y, x)`` (float, NaN where there is no
    valid pixel), ``valid(neighborhood, period)`` (share of good pixels, 0..1),
    ``status(neighborhood, period)`` (:class:`ChipStatus`), the coordinates ``crs``, ``transform``,
    ``lon``, ``lat`` per neighborhood and ``period_start``, ``period_end``, ``last_date`` per
    period, and the attributes ``resolution`` (CRS units, usually metres) and ``units``.

    Raises
    ------
    CubeError
    """
    for name in ("image", "valid", "status"):
        if name not in cube:
            raise CubeError(
                f"The cube has no variable {name!r}.",
                cause=f"It holds {some(cube.data_vars)}.",
                next_step="Build it with eocausal.build_cube, or open it with open_cube.",
            )
    if tuple(cube["image"].dims) != CUBE_DIMS:
        raise CubeError(
            f"image has dims {tuple(cube['image'].dims)}.",
            cause=f"A cube has {CUBE_DIMS}.",
            next_step="Transpose or expand it to these dimensions.",
        )
    for name in ("valid", "status"):
        if set(cube[name].dims) != {"neighborhood", "period"}:
            raise CubeError(
                f"{name} has dims {tuple(cube[name].dims)}.",
                cause="It says something of each chip, (neighborhood, period).",
                next_step="Expand or reduce it to these dimensions.",
            )
    if cube.sizes["period"] == 0:
        raise CubeError(
            "The cube has no period.",
            cause="Its dimension 'period' has length 0.",
            next_step="Select at least one period.",
        )
    if not np.issubdtype(cube["image"].dtype, np.floating):
        raise CubeError(
            f"image is {cube['image'].dtype}.",
            cause="Missing pixels are NaN, which integers cannot hold.",
            next_step="Open the store with eocausal.open_cube.",
        )
    for name in ("neighborhood", "period", "band"):
        values = cube.indexes.get(name)
        if values is None or not values.is_unique:
            raise CubeError(
                f"The cube's {name} labels are missing or not unique.",
                cause="Everything downstream selects by label.",
                next_step=f"Give unique labels along {name}.",
            )
    for name in ("resolution", "units"):
        if name not in cube.attrs:
            raise CubeError(
                f"The cube's attribute {name!r} is missing.",
                cause="An encoder needs it to refuse data it was not made for.",
                next_step=f"Set cube.attrs[{name!r}].",
            )
    return cube


def check_panel(panel: xr.Dataset) -> xr.Dataset:
    """Check that a panel has dims ``(neighborhood, time)``, unique labels and sorted times.

    Raises
    ------
    PanelError
    """
    for name in ("neighborhood", "time"):
        if name not in panel.indexes or not panel.indexes[name].is_unique:
            raise PanelError(
                f"The panel's {name} labels are missing or not unique.",
                cause="A panel is one value per neighborhood and time.",
                next_step="Aggregate repeated rows and set the index.",
            )
    if not panel.indexes["time"].is_monotonic_increasing:
        raise PanelError(
            "The panel's times are not sorted.",
            cause="Lags and pre-periods are taken by position.",
            next_step="Use panel.sortby('time').",
        )
    return panel


def check_embedding(embedding: xr.DataArray) -> xr.DataArray:
    """Check dims ``(neighborhood[, period], feature)``, finite values, and the attributes.

    ``encoder`` names what made it; ``last_image_date`` (ISO date, or empty if no scene had a
    date) lets a design refuse images taken after treatment. Rows of neighborhoods without any
    valid image are all NaN; a row that is partly NaN, or infinite, is an error.

    Raises
    ------
    EmbeddingError
    """
    if tuple(embedding.dims) not in {
        ("neighborhood", "feature"),
        ("neighborhood", "period", "feature"),
    }:
        raise EmbeddingError(
            f"The embedding has dims {tuple(embedding.dims)}.",
            cause="It must be (neighborhood, feature) or (neighborhood, period, feature).",
            next_step="Make it with eocausal.encode, or transpose it.",
        )
    if "neighborhood" not in embedding.indexes or not embedding.indexes["neighborhood"].is_unique:
        raise EmbeddingError(
            "The embedding's neighborhood labels are missing or not unique.",
            cause="Units are joined to images by that label.",
            next_step="Keep one row per neighborhood.",
        )
    for name in ("encoder", "last_image_date"):
        if name not in embedding.attrs:
            raise EmbeddingError(
                f"The embedding's attribute {name!r} is missing.",
                cause="Leakage is checked against it.",
                next_step=f"Set embedding.attrs[{name!r}] (an ISO date; '' where unknown).",
            )
    for start in range(0, embedding.sizes["neighborhood"], _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        check_feature_rows(embedding[rows].values, embedding.indexes["neighborhood"][rows])
    return embedding


def check_feature_rows(features: NDArray[np.floating[Any]], labels: pd.Index) -> None:
    """Check that features ``(neighborhood, ..., feature)`` are all finite in a row, or all NaN.

    Raises
    ------
    EmbeddingError
        Names the neighborhoods (``labels``) of all other rows.
    """
    wrong = ~(np.isfinite(features).all(axis=-1) | np.isnan(features).all(axis=-1))
    if wrong.any():
        rows = labels[wrong.reshape(len(wrong), -1).any(axis=1)]
        raise EmbeddingError(
            f"{len(rows)} rows of the embedding are infinite or partly NaN: {some(rows)}.",
            cause="A feature overflowed or was computed from missing pixels.",
            next_step="Encode again, or drop these neighborhoods.",
        )


def check_effects(effects: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Check that an effect map is a table of neighborhoods with the effect columns."""
    check_columns(effects, EFFECT_COLUMNS, what="effect map")
    if effects.crs is None:
        raise CRSError(
            "The effect map has no coordinate reference system.",
            cause="It could not be drawn or written.",
            next_step="Set one with .set_crs().",
        )
    return effects


def check_same_neighborhoods(
    wanted: pd.Index, present: pd.Index, *, what: str, of: str = "units"
) -> None:
    """Raise ``AlignmentError`` if a label in ``wanted`` is not in ``present``."""
    missing = wanted.difference(present)
    if len(missing):
        raise AlignmentError(
            f"{len(missing)} neighborhoods of the {of} are not in the {what}: {some(missing)}.",
            cause="They cannot be joined.",
            next_step=f"Check that both use the same ids and the same type "
            f"({wanted.dtype} against {present.dtype}).",
        )


def codes(values: pd.Series, name: str) -> NDArray[np.int64]:
    """Turn a grouping column into codes 0..G-1 in sorted order.

    Raises
    ------
    DesignError
        If a value is missing.
    """
    if values.isna().any():
        raise DesignError(
            f"{name!r} is missing for {int(values.isna().sum())} units: "
            f"{some(values.index[values.isna()])}.",
            cause="A unit without a group cannot be kept together with its group.",
            next_step="Complete the column, or drop these units.",
        )
    import pandas as pd

    return np.asarray(pd.factorize(values, sort=True)[0], dtype=np.int64)
