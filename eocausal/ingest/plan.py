"""What building a cube will read, write and take, before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import geopandas as gpd
import numpy as np

from eocausal.ingest.spec import CubeSpec, specify
from eocausal.ingest.store import shard_length

__all__ = ["CubePlan", "plan_cube"]

_LOOK_SECONDS: Final = 0.002
_PIXEL_LOOK_SECONDS: Final = 1e-7
_DECODE_BYTES_PER_SECOND: Final = 100e6
_COMPRESSION: Final = 2.0


@dataclass(frozen=True, slots=True)
class CubePlan:
    """What :func:`eocausal.build_cube` would do.

    Attributes
    ----------
    neighborhoods, scenes, periods, bands, size
        Numbers of each, and pixels per side of a chip.
    resolution
        Pixel size in units of the chips' CRS.
    looks
        Pairs of chip and scene that may share pixels, within a period.
    outside
        Chips (neighborhood and period) that no scene of their period touches.
    left_out
        Scenes that lack a band or are given twice.
    read_bytes
        Source pixels under the chips, before compression.
    shard_bytes
        Memory for one shard's pixels; each worker needs two to three times this.
    disk_bytes
        About the size of the store, taking compression to half.
    seconds
        Rough estimate for one worker: 100 MB of source pixels decoded a second, 2 ms for each
        look and 0.1 s for each million pixels resampled.
    """

    neighborhoods: int
    scenes: int
    periods: tuple[str, ...]
    bands: tuple[str, ...]
    size: int
    resolution: float
    looks: int
    outside: int
    left_out: int
    read_bytes: int
    shard_bytes: int
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
            f"{self.chips:,} chips of {self.size} x {self.size} pixels at {self.resolution:g}, "
            f"{len(self.bands)} bands ({', '.join(self.bands)}).",
            f"{self.scenes:,} scenes give {self.looks:,} looks: about {_size(self.read_bytes)} of "
            f"pixels to read, {_size(self.disk_bytes)} to write, {_size(self.shard_bytes)} of "
            "memory for a shard.",
            f"Rough estimate: {_duration(self.seconds)} on one worker.",
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
    bands: Sequence[str],
    resolution: float,
    size: int | None = None,
    periods: Sequence[str] | None = None,
    *,
    crs: str | None = None,
    mask_band: str | None = None,
) -> CubePlan:
    """Say what :func:`eocausal.build_cube` would read and write with these arguments.

    Raises
    ------
    The errors that ``build_cube`` would raise before it reads a pixel.

    Examples
    --------
    >>> print(plan_cube(places, scenes, ["red"], 30.0, 64).summary())  # doctest: +SKIP
    """
    spec = specify(
        neighborhoods, scenes, bands, resolution, size, periods, crs=crs, mask_band=mask_band
    )
    looks, touched, pixels_read = _count(spec)
    chip_pixels = spec.size**2
    n, n_periods, n_bands = len(spec.grids), len(spec.periods), len(spec.bands)
    length = shard_length(n, n_periods, n_bands, spec.size)
    chip_bytes = n_periods * n_bands * chip_pixels * 4
    resampled = looks * chip_pixels * n_bands
    return CubePlan(
        neighborhoods=n,
        scenes=len(spec.scenes),
        periods=spec.periods,
        bands=spec.bands,
        size=spec.size,
        resolution=spec.resolution,
        looks=looks,
        outside=n * n_periods - touched,
        left_out=len(spec.failures),
        read_bytes=pixels_read,
        shard_bytes=length * chip_bytes,
        disk_bytes=int(n * chip_bytes / _COMPRESSION),
        seconds=looks * _LOOK_SECONDS
        + resampled * _PIXEL_LOOK_SECONDS
        + pixels_read / _DECODE_BYTES_PER_SECOND,
    )


def _count(spec: CubeSpec) -> tuple[int, int, int]:
    """Count looks, chips with at least one, and bytes under them, over all periods."""
    item = np.array(spec.item_bytes, dtype=float) * len(spec.bands)
    looks = touched = 0
    total = 0.0
    for members in spec.members:
        used = np.isin(spec.pairs.scene, sorted(members))
        looks += int(used.sum())
        touched += len(np.unique(spec.pairs.chip[used]))
        total += float((spec.pairs.pixels[used] * item[spec.pairs.scene[used]]).sum())
    return looks, touched, int(total)


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
