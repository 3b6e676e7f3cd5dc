"""What building a cube will read, write and take, before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import geopandas as gpd
import numpy as np

from eocausal.ingest.blocks import units_of
from eocausal.ingest.composites import Composite
from eocausal.ingest.grid import parse_crs
from eocausal.ingest.indices import Index
from eocausal.ingest.masks import Mask
from eocausal.ingest.recipe import make_recipe
from eocausal.ingest.resample import Resampling
from eocausal.ingest.spec import CubeSpec, specify
from eocausal.ingest.store import shard_length

__all__ = ["CubePlan", "plan_cube"]

_DECODE: Final = 370e6
_CHIP_LOOK: Final = 0.0002
_SAMPLE: Final = 60e6
_COMPRESSION: Final = 1.7
_START: Final = 2.0
_UNITS: Final = {"metre": "m", "degree": "degrees"}


@dataclass(frozen=True, slots=True)
class CubePlan:
    """What :func:`eocausal.build_cube` would do.

    Attributes
    ----------
    neighborhoods, scenes, periods, bands, size
        Numbers of each, and pixels per side of a chip.
    resolution, unit
        Pixel size, in the unit of the chips' CRS (``'metre'``, ``'degree'``, ...).
    looks
        Pairs of chip and look that may share pixels, within a period.
    outside
        Chips (neighborhood and period) that no scene of their period touches.
    left_out
        Scenes that lack a band or are given twice.
    blocks
        Pieces of files that will be decoded, each once; per-site reading would decode
        ``block_uses``.
    block_uses
        Pairs of chip and piece.
    read_bytes
        Their pixels, before compression.
    shards
        Files of the store; one task writes one.
    disk_bytes
        About the size of the store.
    seconds
        Rough estimate for one core: 370 MB decoded and 60 million values resampled a second, and
        0.2 ms for each look at a chip.
    """

    neighborhoods: int
    scenes: int
    periods: tuple[str, ...]
    bands: tuple[str, ...]
    size: int
    resolution: float
    unit: str
    looks: int
    outside: int
    left_out: int
    blocks: int
    block_uses: int
    read_bytes: int
    shards: int
    disk_bytes: int
    seconds: float

    @property
    def chips(self) -> int:
        """Neighborhoods times periods."""
        return self.neighborhoods * len(self.periods)

    def summary(self) -> str:
        """Say the plan in words."""
        lines = [
            f"{self.neighborhoods:,} neighborhoods x {len(self.periods)} periods = "
            f"{self.chips:,} chips of {self.size} x {self.size} pixels of {self.resolution:g} "
            f"{_UNITS.get(self.unit, self.unit)}, {len(self.bands)} bands "
            f"({', '.join(self.bands)}).",
            f"{self.scenes:,} scenes give {self.looks:,} looks. {self.blocks:,} blocks are decoded "
            f"once ({_size(self.read_bytes)} of pixels); reading site by site would decode "
            f"{self.block_uses:,}.",
            f"{self.shards:,} shards, about {_size(self.disk_bytes)} to write.",
            f"Rough estimate: {_duration(self.seconds)} on one core.",
        ]
        if self.outside:
            lines.append(f"{self.outside:,} of {self.chips:,} chips lie outside every scene.")
        if self.left_out:
            lines.append(
                f"{self.left_out} more scenes lack a band or are given twice and will be left out."
            )
        return "\n".join(lines)


def plan_cube(
    neighborhoods: gpd.GeoDataFrame,
    scenes: gpd.GeoDataFrame,
    bands: Sequence[str | Index],
    resolution: float,
    size: int | None = None,
    periods: Sequence[str] | None = None,
    *,
    crs: str | None = None,
    resampling: Resampling | None = None,
    mask: Mask | Sequence[Mask] | None = None,
    composite: Composite | None = None,
    count_band: str | None = None,
) -> CubePlan:
    """Say what :func:`eocausal.build_cube` would read and write with these arguments.

    Raises
    ------
    The errors that ``build_cube`` would raise before it reads a pixel.

    Examples
    --------
    >>> print(plan_cube(places, scenes, ["red"], 30.0, 64).summary())  # doctest: +SKIP
    """
    recipe = make_recipe(
        bands, masks=mask, composite=composite, resampling=resampling, count_band=count_band
    )
    return summarize(specify(neighborhoods, scenes, recipe, resolution, size, periods, crs=crs))


def summarize(spec: CubeSpec) -> CubePlan:
    """Count what a specified cube reads and writes."""
    n, periods, bands, size, _ = spec.shape
    item = spec.packing.dtype.itemsize
    looks, touched = _looks(spec)
    blocks, uses, read_bytes = _blocks(spec)
    resampled = looks * size**2 * len(spec.recipe.inputs)
    length = shard_length(n, spec.chunk * bands * size**2 * item)
    return CubePlan(
        neighborhoods=n,
        scenes=len({a.href for a in spec.assets}),
        periods=spec.periods,
        bands=spec.recipe.bands,
        size=size,
        resolution=spec.resolution,
        unit=parse_crs(spec.chips.names[0]).axis_info[0].unit_name,
        looks=looks,
        outside=n * periods - touched,
        left_out=len(spec.failures),
        blocks=blocks,
        block_uses=uses,
        read_bytes=read_bytes,
        shards=-(-n // length) * -(-periods // spec.chunk),
        disk_bytes=int(n * periods * bands * size**2 * item / _COMPRESSION),
        seconds=_START + read_bytes / _DECODE + resampled / _SAMPLE + looks * _CHIP_LOOK,
    )


def _looks(spec: CubeSpec) -> tuple[int, int]:
    """Pairs of chip and look, and chips with at least one, over all periods."""
    classes = len(spec.classes)
    own = np.unique(
        np.column_stack([spec.layers.look, spec.asset_class[spec.layers.asset]]), axis=0
    )
    looks = touched = 0
    for members in spec.members:
        here = own[np.isin(own[:, 0], members)]
        per_class = np.bincount(here[:, 1], minlength=classes)
        count = per_class[spec.pairs.grid]
        looks += int(count.sum())
        touched += int(np.count_nonzero(np.bincount(spec.pairs.chip[count > 0])))
    return looks, touched


def _blocks(spec: CubeSpec) -> tuple[int, int, int]:
    """Blocks decoded, blocks that a reader of one site at a time would decode, and bytes."""
    unit = np.array([c.unit for c in spec.classes], dtype=np.int64).reshape(-1, 2)
    _, keys = units_of(spec.pairs.grid, spec.pairs.box, unit)
    span = keys.max(axis=0, initial=0) + 1
    code = np.ravel_multi_index(tuple(keys.T), tuple(span.tolist()))
    code.sort()
    code = code[np.r_[True, np.diff(code) != 0]] if len(code) else code
    distinct = np.unravel_index(code, tuple(span.tolist()))[0]
    layers = np.unique(np.column_stack([spec.layers.asset, spec.layers.band]), axis=0)
    item = np.array([np.dtype(a.dtype).itemsize for a in spec.assets], dtype=np.int64)
    owner = spec.asset_class[layers[:, 0]]
    classes = len(spec.classes)
    depth = np.bincount(owner, weights=item[layers[:, 0]], minlength=classes)
    assets = np.bincount(spec.asset_class, minlength=classes)
    pixels = unit[:, 0] * unit[:, 1]
    read = float((pixels * depth)[distinct].sum())
    return int(assets[distinct].sum()), int(assets[keys[:, 0]].sum()), int(read)


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
