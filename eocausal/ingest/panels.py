"""Panels on disk: long GeoParquet (one row per neighborhood and time), or Zarr."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr

from eocausal.contracts import NEIGHBORHOOD, check_panel, check_same_neighborhoods
from eocausal.errors import PanelError
from eocausal.provenance import atomic_path

__all__ = ["read_panel", "write_panel"]

_KEY: Final = b"eocausal_panel"
_DIMS: Final = (NEIGHBORHOOD, "time")


def write_panel(
    panel: xr.Dataset, path: str | Path, *, neighborhoods: gpd.GeoDataFrame | None = None
) -> None:
    """Write a panel, whole or not at all; :func:`read_panel` gives back the same.

    Parameters
    ----------
    panel
        Dims ``(neighborhood, time)``; see :func:`eocausal.contracts.check_panel`.
    path
        ``*.parquet`` for a long table, else the folder of a Zarr store.
    neighborhoods
        For a long table: their geometries are written into every row, as GeoParquet.

    Raises
    ------
    PanelError
        If it is no panel, or has dimensions beside neighborhood and time.
    AlignmentError
        If a neighborhood of the panel has no geometry.
    """
    check_panel(panel)
    path = Path(path)
    extra = sorted(str(d) for d in set(panel.dims) - set(_DIMS))
    if extra:
        raise PanelError(
            f"The panel has dimensions {extra} beside neighborhood and time.",
            cause="A long table has one row per neighborhood and time.",
            next_step="Give one variable for each of their labels.",
        )
    with atomic_path(path) as temporary:
        if path.suffix != ".parquet":
            panel.to_zarr(temporary, zarr_format=2)
            return
        _write_long(panel, temporary, neighborhoods)


def _write_long(panel: xr.Dataset, path: Path, places: gpd.GeoDataFrame | None) -> None:
    n, steps = panel.sizes[NEIGHBORHOOD], panel.sizes["time"]
    position = {
        NEIGHBORHOOD: np.repeat(np.arange(n), steps),
        "time": np.tile(np.arange(steps), n),
    }
    columns: dict[str, Any] = {}
    layout: dict[str, list[str]] = {}
    for name in (*_DIMS, *(str(k) for k in panel.variables if k not in _DIMS)):
        variable = panel.variables[name]
        layout[name] = [str(d) for d in variable.dims]
        ordered = variable.transpose(*(d for d in _DIMS if d in variable.dims)).values
        if ordered.ndim == 2:
            columns[name] = ordered.ravel()
        elif ordered.ndim == 1:
            columns[name] = ordered[position[layout[name][0]]]
        else:
            columns[name] = np.full(n * steps, ordered)
    note = {
        "layout": layout,
        "coords": [str(c) for c in panel.coords],
        "attrs": panel.attrs,
        "variable_attrs": {str(k): dict(v.attrs) for k, v in panel.variables.items()},
        "dtypes": {str(k): str(v.dtype) for k, v in panel.variables.items()},
    }
    table = pd.DataFrame(columns)
    if places is not None:
        check_same_neighborhoods(
            panel.indexes[NEIGHBORHOOD], places.index, what="table of geometries", of="panel"
        )
        shapes = places.geometry.reindex(panel.indexes[NEIGHBORHOOD]).array
        table = gpd.GeoDataFrame(table, geometry=shapes[position[NEIGHBORHOOD]], crs=places.crs)
    _to_parquet(table, path, json.dumps(note))


def _to_parquet(table: pd.DataFrame, path: Path, note: str) -> None:
    """Write with the note in the file's metadata, beside pandas' and GeoParquet's own."""
    import pyarrow.parquet as pq

    table.to_parquet(path, index=False)
    plain = pq.read_table(path)
    metadata = {**(plain.schema.metadata or {}), _KEY: note.encode()}
    pq.write_table(plain.replace_schema_metadata(metadata), path, compression="zstd")


def read_panel(path: str | Path) -> xr.Dataset:
    """Read a panel that :func:`write_panel` wrote; geometries stay in the file.

    Raises
    ------
    PanelError
        If there is none.
    """
    path = Path(path)
    if path.is_dir():
        return check_panel(xr.open_zarr(path).load())
    import pyarrow.parquet as pq

    metadata = pq.read_schema(path).metadata or {} if path.is_file() else {}
    if _KEY not in metadata:
        raise PanelError(
            f"{path} is not a panel.",
            cause="It does not exist." if not path.exists() else "It lacks the note of its layout.",
            next_step="Give a file written by write_panel or zonal_series(out=...).",
        )
    note = json.loads(metadata[_KEY])
    table = pd.read_parquet(path, columns=list(note["layout"]))
    steps = int(table["time"].nunique())
    n = len(table) // steps
    variables = {}
    for name, dims in note["layout"].items():
        values = table[name].to_numpy().reshape(n, steps)
        picked = values if len(dims) == 2 else values[:, 0] if dims == [NEIGHBORHOOD] else values[0]
        picked = picked if dims else picked[0]
        order = tuple(d for d in _DIMS if d in dims)
        typed = np.asarray(picked).astype(note["dtypes"][name])
        variable = xr.Variable(order, typed, note["variable_attrs"][name])
        variables[name] = variable.transpose(*dims)
    coords = {k: variables.pop(k) for k in note["coords"]}
    return check_panel(xr.Dataset(variables, coords=coords, attrs=note["attrs"]))
