"""The archive of the ingestion benchmark: yearly mosaics and sites, the same from any machine.

Twelve mosaics of six int16 bands, cloud-optimised GeoTIFFs in blocks of 512 by 512 (bands
together), deflate with predictor 2, with holes of nodata. The pixels are smooth fields, texture
and noise, so that they compress about as reflectances do (1.6 to 2 times).

    python benchmarks/archive.py --folder /data/archive          # 8192 pixels a side, 5 to 6 GB
    python benchmarks/archive.py --folder small --side 2048
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyproj
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.transform import Affine, from_origin
from rasterio.windows import Window

BANDS: Final = ("blue", "green", "red", "nir", "swir1", "swir2")
BLOCK: Final = 512
NODATA: Final = -32768
RESOLUTION: Final = 10.0
CRS: Final = "EPSG:32636"
OTHER_CRS: Final = "EPSG:32637"
CHIP: Final = 64
_LEFT, _TOP = 600_000.0, 3_560_000.0
_FORMAT: Final = 1
_LEVEL: Final = np.array([500, 800, 900, 2600, 2100, 1300], dtype=np.float32)
_LATTICES: Final = (256, 32, 4)
_YEARLY: Final = 64
_GAINS: Final = np.array(
    [[90, 60, 20, 40], [110, 80, 25, 50], [150, 110, 30, 60],
     [420, 260, 60, 240], [330, 200, 50, 160], [240, 150, 40, 110]],
    dtype=np.float32,
)  # fmt: skip
_NOISE: Final = np.array([20, 24, 28, 44, 40, 34], dtype=np.float32)
_HOLES_PER_SQUARE: Final = 150 / 8192**2

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Archive:
    """Where the mosaics are and what they hold."""

    folder: Path
    side: int = 8192
    years: int = 12
    seed: int = 3

    @property
    def labels(self) -> tuple[str, ...]:
        """The years, one a mosaic."""
        return tuple(str(2011 + k) for k in range(self.years))

    @property
    def files(self) -> tuple[Path, ...]:
        """The mosaics in the order of the years."""
        return tuple(self.folder / f"mosaic_{label}.tif" for label in self.labels)

    @property
    def transform(self) -> Affine:
        """From columns and rows to eastings and northings."""
        return from_origin(_LEFT, _TOP, RESOLUTION, RESOLUTION)

    @property
    def pixel_bytes(self) -> int:
        """Bytes of all pixels before compression."""
        return self.years * len(BANDS) * self.side**2 * 2

    @property
    def stored_bytes(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.files)

    def ensure(self, processes: int = 2) -> None:
        """Make the mosaics that are not there yet; start again if the parameters differ."""
        if self.side % BLOCK:
            raise SystemExit(f"--side is {self.side}: it must be a multiple of {BLOCK}.")
        self.folder.mkdir(parents=True, exist_ok=True)
        note = self.folder / "archive.json"
        wanted = {**asdict(self), "folder": "", "format": _FORMAT}
        if not note.is_file() or json.loads(note.read_text(encoding="utf-8")) != wanted:
            for path in self.folder.glob("mosaic_*.tif*"):
                path.unlink()
            note.write_text(json.dumps(wanted), encoding="utf-8")
        missing = [k for k, path in enumerate(self.files) if not path.is_file()]
        if not missing:
            return
        started = time.perf_counter()
        print(f"making {len(missing)} mosaics in {self.folder} ...", flush=True)
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            list(pool.map(_write_mosaic, [self] * len(missing), missing))
        print(f"made in {time.perf_counter() - started:.0f} s", flush=True)


def _write_mosaic(archive: Archive, year: int) -> None:
    path = archive.files[year]
    temporary = path.with_suffix(".tif.tmp")
    side = archive.side
    profile = {
        "driver": "MEM", "width": side, "height": side, "count": len(BANDS), "dtype": "int16",
        "crs": CRS, "transform": archive.transform, "nodata": NODATA,
    }  # fmt: skip
    fields, holes = _fields(archive, year), _holes(archive, year)
    with rasterio.open("mosaic", "w", **profile) as image:
        image.descriptions = BANDS
        for row in range(0, side, BLOCK):
            for col in range(0, side, BLOCK):
                tile = _tile(archive, fields, holes, year, row, col)
                image.write(tile, window=Window(col, row, BLOCK, BLOCK))
        rasterio.shutil.copy(
            image, temporary, driver="COG", BLOCKSIZE=BLOCK, COMPRESS="DEFLATE", LEVEL=6,
            PREDICTOR="STANDARD", OVERVIEWS="NONE", BIGTIFF="IF_SAFER",
        )  # fmt: skip
    os.replace(temporary, path)


def _fields(archive: Archive, year: int) -> list[tuple[int, FloatArray]]:
    """Coarse lattices of random values: the land, and what is different this year."""
    keys = [(step, (archive.seed, step)) for step in _LATTICES]
    keys.append((_YEARLY, (archive.seed, _YEARLY, year)))
    fields = []
    for step, key in keys:
        n = archive.side // step + 2
        fields.append((step, np.random.default_rng(key).standard_normal((n, n), dtype=np.float32)))
    return fields


def _holes(archive: Archive, year: int) -> NDArray[np.float64]:
    """Ellipses without data, one a row: centre column and row, half axes."""
    rng = np.random.default_rng((archive.seed, 1_000_003, year))
    n = max(2, rng.poisson(_HOLES_PER_SQUARE * archive.side**2))
    centres = rng.uniform(0, archive.side, (n, 2))
    axes = np.exp(rng.uniform(np.log(20), np.log(400), (n, 2)))
    return np.hstack([centres, axes])


def _tile(
    archive: Archive,
    fields: list[tuple[int, FloatArray]],
    holes: NDArray[np.float64],
    year: int,
    row: int,
    col: int,
) -> NDArray[np.int16]:
    rng = np.random.default_rng((archive.seed, year, row, col))
    parts = [_interpolated(lattice, step, row, col) for step, lattice in fields]
    tile = np.empty((len(BANDS), BLOCK, BLOCK), dtype=np.int16)
    for band, (level, gains, noise) in enumerate(zip(_LEVEL, _GAINS, _NOISE, strict=True)):
        values = rng.standard_normal((BLOCK, BLOCK), dtype=np.float32)
        values *= noise
        values += level
        for gain, part in zip(gains, parts, strict=True):
            values += gain * part
        tile[band] = np.clip(np.rint(values), 1, 10_000)
    rows, cols = np.arange(row, row + BLOCK)[:, None], np.arange(col, col + BLOCK)
    for x, y, a, b in holes:
        if abs(x - col - BLOCK / 2) < a + BLOCK and abs(y - row - BLOCK / 2) < b + BLOCK:
            tile[:, ((cols - x) / a) ** 2 + ((rows - y) / b) ** 2 < 1] = NODATA
    return tile


def _interpolated(lattice: FloatArray, step: int, row: int, col: int) -> FloatArray:
    """Values of a lattice at the pixels of one tile, by linear interpolation."""

    def place(start: int) -> tuple[NDArray[np.intp], FloatArray]:
        at = np.arange(start, start + BLOCK, dtype=np.float32) / np.float32(step)
        return at.astype(np.intp), at - np.floor(at)

    (i, v), (j, u) = place(row), place(col)
    lines = lattice[i] * (1 - v[:, None]) + lattice[i + 1] * v[:, None]
    return np.asarray(lines[:, j] * (1 - u) + lines[:, j + 1] * u, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Sites:
    """Random sites as columns and rows of the mosaics, shape (n,) each.

    ``aligned`` sites are pixel corners, so that chips in the mosaics' CRS are their pixels;
    the others lie anywhere and their chips are in the next UTM zone. The first ``n`` of a longer
    list are the list of ``n``.
    """

    cols: NDArray[np.float64]
    rows: NDArray[np.float64]
    aligned: bool

    @classmethod
    def draw(cls, archive: Archive, n: int, *, aligned: bool, seed: int = 11) -> Sites:
        """Draw ``n`` sites whose chips lie wholly within the mosaics."""
        rng = np.random.default_rng(seed)
        margin = CHIP // 2 if aligned else CHIP
        at = rng.uniform(margin, archive.side - margin, (n, 2))
        cols, rows = (np.rint(at) if aligned else at).T
        return cls(cols, rows, aligned)

    def __getitem__(self, which: Any) -> Sites:
        return Sites(self.cols[which], self.rows[which], self.aligned)

    def __len__(self) -> int:
        return len(self.cols)

    @property
    def crs(self) -> str:
        """CRS of the chips."""
        return CRS if self.aligned else OTHER_CRS

    def points(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Eastings and northings in the mosaics' CRS."""
        return _LEFT + RESOLUTION * self.cols, _TOP - RESOLUTION * self.rows

    def centres(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Eastings and northings in the chips' CRS."""
        return _project(CRS, self.crs, *self.points())

    def chip_pixels(self, which: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Columns and rows of the mosaics at the pixel centres of one chip, (size, size) each."""
        x, y = self[[which]].centres()
        steps = RESOLUTION * (np.arange(CHIP) + 0.5 - CHIP / 2)
        return self._back(*np.meshgrid(x[0] + steps, y[0] - steps))

    def _back(self, x: Any, y: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        x, y = _project(self.crs, CRS, x, y)
        return (x - _LEFT) / RESOLUTION, (_TOP - y) / RESOLUTION

    def boxes(self) -> NDArray[np.intp]:
        """First and last column, first and last row that each chip needs, shape (n, 4).

        Aligned chips need their own pixels, the others what bilinear interpolation needs.
        """
        reach = RESOLUTION * (CHIP - 1) / 2
        x, y = self.centres()
        cols, rows = self._back(
            np.stack([x - reach, x + reach, x - reach, x + reach], axis=1),
            np.stack([y - reach, y - reach, y + reach, y + reach], axis=1),
        )
        low, more = (0.0, 0) if self.aligned else (0.5, 1)
        ends = [cols.min(axis=1), cols.max(axis=1), rows.min(axis=1), rows.max(axis=1)]
        box = np.floor(np.stack(ends, axis=1) - low).astype(np.intp)
        return box + np.array([0, more, 0, more])

    def blocks(self, side: int) -> list[tuple[int, int]]:
        """Rows and columns of the blocks that some chip needs, in the order of the file."""
        touched = np.zeros((side // BLOCK, side // BLOCK), dtype=bool)
        for left, right, top, bottom in self.boxes() // BLOCK:
            touched[top : bottom + 1, left : right + 1] = True
        return [(int(r), int(c)) for r, c in np.argwhere(touched)]


def _project(
    source: str, target: str, x: Any, y: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if source == target:
        return x, y
    out = pyproj.Transformer.from_crs(source, target, always_xy=True).transform(x, y)
    return np.asarray(out[0]), np.asarray(out[1])


def default_folder(side: int) -> Path:
    """Where the archive is put if nothing else is said."""
    return Path(tempfile.gettempdir()) / f"eocausal-archive-{side}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="default: a folder for temporary files")
    parser.add_argument("--side", type=int, default=8192, help="pixels per side of a mosaic")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    archive = Archive(options.folder or default_folder(options.side), options.side)
    archive.ensure(options.processes)
    ratio = archive.pixel_bytes / archive.stored_bytes
    print(
        f"{ratio:.2f} times smaller than its pixels: {archive.years} mosaics of {archive.side} by "
        f"{archive.side} pixels, {archive.stored_bytes / 1e9:.2f} GB in {archive.folder}"
    )


if __name__ == "__main__":
    main()
