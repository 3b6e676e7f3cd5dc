"""Zonal means of many polygons over a series, against reading the rasters and against xvec.

The ratios come first: CPU seconds of ``zonal_series`` over those of reading every raster once with
rasterio and doing nothing else (1.00 would mean that weights and sums cost nothing), and CPU
seconds of xvec with exactextract over ours. All do the same work in one run, after a check that
the numbers agree. CPU seconds are those of the process with all of its threads; reading uses as
many threads. What is beyond reading goes to the coverage of the polygons, once, and to gathering
and summing their pixels at each step, so the ratio grows with the share of the rasters that they
cover: --across sets it.

    python benchmarks/zonal.py
    python benchmarks/zonal.py --quick
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import shapely
import xarray as xr
from affine import Affine

from eocausal.ingest.sources import scan
from eocausal.ingest.statistics import Count, Mean
from eocausal.ingest.zonal import zonal_series

CRS = "EPSG:32636"
PIXEL = 30.0
NODATA = -9999


def make_rasters(folder: Path, steps: int, size: int) -> list[Path]:
    """Monthly rasters: smooth fields with noise, int16, one twentieth missing under clouds."""
    files = [folder / f"ndvi_{1990 + k // 12}-{1 + k % 12:02d}.tif" for k in range(steps)]
    if all(f.exists() for f in files):
        return files
    rng = np.random.default_rng(7)
    rows, cols = np.meshgrid(np.linspace(0, 9, size), np.linspace(0, 7, size), indexing="ij")
    profile = {
        "driver": "GTiff", "count": 1, "height": size, "width": size, "dtype": "int16",
        "crs": CRS, "transform": Affine(PIXEL, 0, 300_000, 0, -PIXEL, 300_000), "tiled": True,
        "blockxsize": 256, "blockysize": 256, "compress": "deflate", "predictor": 2,
        "nodata": NODATA,
    }  # fmt: skip
    for k, file in enumerate(files):
        smooth = 3000 + 2000 * np.sin(rows + k / 6) * np.cos(cols)
        image = (smooth + rng.normal(0, 100, (size, size))).astype(np.int16)
        image[np.sin(3 * rows + k) * np.sin(4 * cols - k) > 0.87] = NODATA
        with rasterio.open(file, "w", **profile) as target:
            target.write(image, 1)
    return files


def make_polygons(n: int, size: int, across: float) -> gpd.GeoDataFrame:
    """Star-shaped districts, so many pixels across."""
    rng = np.random.default_rng(11)
    shapes = []
    for _ in range(n):
        angle = np.sort(rng.uniform(0, 2 * np.pi, 16))
        radius = rng.uniform(0.3, 0.7, 16) * across * PIXEL
        x, y = 300_000 + rng.uniform(0.02, 0.98, 2) * size * PIXEL * np.array([1, -1])
        shapes.append(
            shapely.Polygon(np.c_[x + radius * np.cos(angle), y + radius * np.sin(angle)])
        )
    places = gpd.GeoDataFrame(geometry=shapely.make_valid(np.array(shapes)), crs=CRS)
    return places.rename_axis("neighborhood")


def timed(work: Callable[[], object]) -> tuple[float, float, object]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.process_time() - cpu, time.perf_counter() - wall, result


def read_alone(files: list[Path], workers: int) -> int:
    def read(file: Path) -> int:
        with rasterio.open(file) as source:
            return int(source.read().nbytes)

    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(read, files))


def by_xvec(files: list[Path], places: gpd.GeoDataFrame) -> np.ndarray:
    """Open as xarray, missing pixels NaN, and let xvec call exactextract."""
    import xvec  # noqa: F401

    layers = []
    for file in files:
        with rasterio.open(file) as source:
            band = source.read(1)
            a, _, c, _, e, f = source.transform[:6]
        layers.append(np.where(band == NODATA, np.float32(np.nan), band.astype(np.float32)))
    size = layers[0].shape[0]
    cube = xr.DataArray(
        np.stack(layers),
        dims=("time", "y", "x"),
        coords={
            "time": np.arange(len(files)),
            "y": f + e * (np.arange(size) + 0.5),
            "x": c + a * (np.arange(size) + 0.5),
        },
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = cube.xvec.zonal_stats(
            places.geometry, x_coords="x", y_coords="y", stats="mean", method="exactextract"
        )
    return np.asarray(found.transpose("geometry", "time").values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--polygons", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--across", type=float, default=16, help="pixels across a polygon")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--quick", action="store_true", help="500 polygons, 12 steps")
    options = parser.parse_args()
    if options.quick:
        options.polygons, options.steps, options.size = 500, 12, 1024
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        run(folder, options)


def run(folder: Path, options: argparse.Namespace) -> None:
    files = make_rasters(folder, options.steps, options.size)
    places = make_polygons(options.polygons, options.size, options.across)
    scenes = scan(files, bands=["ndvi"])
    few = scenes.iloc[:1]
    zonal_series(places.iloc[:2], few, bands=["ndvi"], max_failed=1.0)
    read_alone(files, options.workers)
    reading = timed(lambda: read_alone(files, options.workers))
    ours = timed(
        lambda: zonal_series(
            places, scenes, bands=["ndvi"], statistics=[Mean(), Count()], workers=options.workers
        )
    )
    xvec = timed(lambda: by_xvec(files, places))
    mine, theirs = ours[2]["ndvi_mean"].values, xvec[2]
    same = np.isnan(mine) == np.isnan(theirs)
    off = np.nanmax(np.abs(mine - theirs) / np.abs(theirs))
    if not same.all() or off > 1e-6:
        raise SystemExit(
            f"The numbers differ: by {off:g}, {int((~same).sum())} missing in one only."
        )
    print(f"{ours[0] / reading[0]:.2f}  of reading alone, CPU (target: at most 1.60)")
    print(f"{xvec[0] / ours[0]:.2f}  times faster than xvec with exactextract, CPU (at least 3.00)")
    covered = ours[2]["ndvi_count"].values[:, 0].sum() / options.size**2
    print(
        f"\n{options.polygons:,} polygons of {options.across:g} pixels across, on {covered:.0%} of "
        f"the raster, x {len(files)} steps of {options.size}^2 int16, {options.workers} threads; "
        f"largest difference from exactextract {off:.1e}"
    )
    print(f"{'':28}{'CPU s':>8}{'wall s':>8}")
    rows = {"reading alone": reading, "zonal_series": ours, "xvec, exactextract": xvec}
    for name, (cpu, wall, _) in rows.items():
        print(f"{name:28}{cpu:8.2f}{wall:8.2f}")


if __name__ == "__main__":
    main()
