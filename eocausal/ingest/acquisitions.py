"""Rows of the scenes table: which belong together, which are there twice, what each says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eocausal.contracts import some
from eocausal.errors import BandError, DuplicateIdError
from eocausal.ingest.assets import Asset
from eocausal.ingest.grid import SceneGrid
from eocausal.ingest.remote import unsigned
from eocausal.provenance import Failure

__all__ = [
    "as_asset",
    "check_bands",
    "item_numbers",
    "scene_names",
    "store_labels",
    "without_repeats",
]


def store_labels(index: pd.Index[Any]) -> NDArray[Any]:
    """Return the neighborhoods' ids as a store holds them: whole numbers or text."""
    if pd.api.types.infer_dtype(index, skipna=False) == "integer":
        return index.to_numpy(dtype=np.int64)
    labels = index.astype(str)
    if not labels.is_unique:
        raise DuplicateIdError(
            f"Some ids differ only in their type: {some(labels[labels.duplicated()])}.",
            cause="A cube keeps ids as whole numbers or as text.",
            next_step="Give all ids one type, e.g. places.index = places.index.astype(str), "
            "and tell the repeated ones apart.",
        )
    return labels.to_numpy(dtype=object)


def scene_names(hrefs: list[str]) -> list[str]:
    """Names without the folders that all scenes share."""
    if len(set(hrefs)) == 1:
        return [Path(h).name for h in hrefs]
    try:
        common = os.path.commonpath([os.path.dirname(h) for h in hrefs])
    except ValueError:
        return hrefs
    if not common or any("://" in h for h in hrefs):
        return hrefs
    return [Path(os.path.relpath(h, common)).as_posix() for h in hrefs]


def without_repeats(table: pd.DataFrame, names: list[str]) -> tuple[list[int], list[Failure]]:
    """Drop a file met again (by a link, or a table given twice): it would weigh double."""
    first: dict[tuple[str, ...], int] = {}
    failures = []
    columns = [c for c in ("time", "time_end", "neighborhood", "step") if c in table]
    keys = zip(*(table[c].astype(str) for c in columns), strict=True)
    for k, (href, key) in enumerate(zip(table["href"].astype(str), keys, strict=True)):
        real = os.path.realpath(href) if os.path.isfile(href) else unsigned(href)
        same = first.setdefault((real, *key, *map(str, table["bands"][k])), k)
        if same != k:
            detail = f"It is the same file, of the same date, as {names[same]}."
            failures.append(Failure("cube", "scene", names[k], "duplicate", detail))
    return list(first.values()), failures


def item_numbers(table: pd.DataFrame) -> NDArray[np.int64]:
    """Give each acquisition a number: rows with the same item, date and owner belong together."""
    if "item" not in table:
        return np.arange(len(table))
    keys = [table["item"].where(table["item"].notna(), table.index.astype(str)).astype(str)]
    keys += [table[c].astype(str) for c in ("time", "neighborhood") if c in table]
    return np.asarray(pd.MultiIndex.from_arrays(keys).factorize()[0], dtype=np.int64)


def as_asset(row: dict[Any, Any], name: str) -> Asset:
    """Make an asset of a row of the scenes table."""
    step, block = row.get("step"), row.get("block")
    grid = SceneGrid(
        str(row["scene_crs"]),
        tuple(float(v) for v in row["transform"]),  # type: ignore[arg-type]
        int(row["width"]),
        int(row["height"]),
    )
    return Asset(
        name=name,
        href=str(row["href"]),
        grid=grid,
        bands=tuple(row["bands"]),
        dtype=str(row["dtype"]),
        nodata=float("nan") if pd.isna(row["nodata"]) else float(row["nodata"]),
        scales=tuple(float(v) for v in row["scales"]),
        offsets=tuple(float(v) for v in row["offsets"]),
        block=(int(block[0]), int(block[1])) if block is not None else (256, grid.width),
        step=None if step is None or pd.isna(step) else int(step),
    )


def check_bands(own: Sequence[Sequence[str]], wanted: Sequence[str]) -> None:
    """Refuse bands that no asset has.

    Raises
    ------
    BandError
        Naming the closest band there is.
    """
    present: set[str] = set().union(*own)
    for band in wanted:
        if band not in present:
            close = get_close_matches(band, sorted(present), n=1, cutoff=0.4)
            raise BandError(
                f"No scene has a band {band!r}" + (f" (closest: {close[0]!r})." if close else "."),
                cause=f"The scenes have {some(sorted(present), 20)}.",
                next_step="Correct the name, or name the bands in scan(..., bands=[...]).",
            )
