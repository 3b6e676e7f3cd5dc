"""Is this machine ready: versions, formats, devices, disk."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from eocausal.errors import EocausalError
from eocausal.provenance import versions

__all__ = ["Finding", "examine"]

DRIVERS = ("GTiff", "COG", "GPKG", "GeoJSON", "ESRI Shapefile")
LEAST_FREE_GIB = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: ``ok`` is True, False, or None where it is only worth knowing."""

    what: str
    ok: bool | None
    detail: str


def examine(folder: Path | None = None) -> list[Finding]:
    """Look at everything a study needs; never raises."""
    folder = folder or Path.cwd()
    checks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("Python", _python),
        ("packages", _packages),
        ("GDAL", _gdal),
        ("projections", _projections),
        ("torch", _torch),
        ("torchvision", _torchvision),
        ("model cards", _cards),
        ("disk", lambda: _disk(folder)),
        ("writing", lambda: _writing(folder)),
    )
    return [_guarded(what, look) for what, look in checks]


def _guarded(what: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except (EocausalError, ImportError, OSError, RuntimeError, ValueError) as error:
        return Finding(what, False, " ".join(f"{type(error).__name__}: {error}".split()))


def _python() -> Finding:
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("Python", sys.version_info >= (3, 11), f"{text}, {os.cpu_count()} cores")


def _packages() -> Finding:
    found = versions()
    missing = [name for name, version in found.items() if version == "not installed"]
    text = ", ".join(f"{name} {version}" for name, version in found.items())
    return Finding("packages", not missing, text)


def _gdal() -> Finding:
    import pyogrio
    import rasterio
    from rasterio.drivers import raster_driver_extensions

    with rasterio.Env() as env:
        have = set(env.drivers()) | set(pyogrio.list_drivers()) | set(raster_driver_extensions())
    missing = [name for name in DRIVERS if name not in have]
    text = f"{rasterio.__gdal_version__}, " + (
        f"without {', '.join(missing)}" if missing else f"with {', '.join(DRIVERS)}"
    )
    return Finding("GDAL", not missing, text)


def _projections() -> Finding:
    import pyproj

    turn = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32636", always_xy=True)
    x, y = turn.transform(33.0, 0.0)
    right = abs(x - 500_000) < 0.01 and abs(y) < 0.01
    return Finding("projections", right, f"PROJ {pyproj.proj_version_str}")


def _torch() -> Finding:
    import torch

    if torch.cuda.is_available():
        device = torch.cuda.get_device_name(0)
    elif torch.backends.mps.is_available():
        device = "Apple GPU"
    else:
        device = "no GPU; encoders run on the processor"
    return Finding(
        "torch", None if device.startswith("no") else True, f"{torch.__version__}, {device}"
    )


def _torchvision() -> Finding:
    from eocausal.encoders.torchvision_import import import_torchvision

    return Finding("torchvision", True, str(import_torchvision().__version__))


def _cards() -> Finding:
    from eocausal.encoders.cards import list_cards, load_card

    names = list_cards()
    for name in names:
        load_card(name)
    return Finding("model cards", bool(names), ", ".join(names) or "none found")


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free / 2**30
    return Finding("disk", free >= LEAST_FREE_GIB, f"{free:,.1f} GiB free at {folder}")


def _writing(folder: Path) -> Finding:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".eocausal-") as name:
        Path(name, "probe").write_bytes(b"probe")
    return Finding("writing", True, f"{folder} can be written to")
