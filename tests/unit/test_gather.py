"""Chips against readers that share no code with the gather: each block once, the same pixels."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from ingest_helpers import centred, chips, places_at, write_tif
from rasterio.warp import Resampling as Warp
from rasterio.warp import reproject

from eocausal.contracts import ChipStatus
from eocausal.ingest import gather, work
from eocausal.ingest.blocks import BlockCache
from eocausal.ingest.composites import Mean
from eocausal.ingest.cube import build_cube
from eocausal.ingest.places import read_neighborhoods
from eocausal.ingest.resample import Bilinear, Nearest
from eocausal.ingest.schedule import Threads
from eocausal.ingest.sources import scan
from eocausal.provenance import hash_tree

UTM = "EPSG:32636"
HERE = (32.58, 0.32)
GRID = centred(UTM, *HERE, 30.0, 640, 480)


def places_on(grid: Affine, *pixels, crs=UTM) -> gpd.GeoDataFrame:
    """Neighborhoods centred on corners of pixels (column, row) of a grid."""
    points = [shapely.Point(*(grid @ (float(c), float(r)))) for c, r in pixels]
    names = [f"n{i:03d}" for i in range(len(points))]
    return read_neighborhoods(gpd.GeoDataFrame({"id": names}, geometry=points, crs=crs), id="id")


def noise(seed: int, count=2, height=480, width=640, low=1, high=60_000, dtype="uint16"):
    rng = np.random.default_rng(seed)
    return rng.integers(low, high, (count, height, width)).astype(dtype)


def window_of(path: Path, left: int, top: int, size: int) -> np.ndarray:
    """Pixels of a window as float64, NaN where there are none or they are nodata."""
    with rasterio.open(path) as source:
        whole = source.read(masked=True).astype(float).filled(np.nan)
    padded = np.pad(whole, ((0, 0), (size, size), (size, size)), constant_values=np.nan)
    return padded[:, top + size : top + 2 * size, left + size : left + 2 * size]


def everywhere(size: int, width=640, height=480) -> list[tuple[int, int]]:
    """Centres of chips that tile a scene."""
    half = size // 2
    return [(c + half, r + half) for r in range(0, height, size) for c in range(0, width, size)]


LAYOUTS = {
    "tiles": {"tiled": True, "blockxsize": 64, "blockysize": 128},
    "large tiles": {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"},
    "strips": {"blockysize": 7, "compress": "lzw"},
    "one strip": {"blockysize": 480},
    "band by band": {"tiled": True, "blockxsize": 256, "blockysize": 256, "interleave": "band"},
    "predictor": {"compress": "zstd", "predictor": 2, "tiled": True, "blockxsize": 128,
                  "blockysize": 128, "interleave": "pixel"},
    "cog": {"driver": "COG", "blocksize": 128, "overviews": "AUTO"},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS, ids=list(LAYOUTS))
def test_every_layout_gives_the_pixels_and_each_block_once(tmp_path, layout):
    path = write_tif(tmp_path / "s.tif", noise(0), UTM, GRID, names=["a", "b"], nodata=0,
                     **LAYOUTS[layout])  # fmt: skip
    spots = everywhere(32)
    read = []
    cube = chips(tmp_path, places_on(GRID, *spots), path, bands=["a", "b"], resolution=30.0,
                 size=32, progress=lambda p: read.append(p.bytes_read))  # fmt: skip
    for k, (col, row) in enumerate(spots):
        expected = window_of(path, col - 16, row - 16, 32)
        np.testing.assert_array_equal(cube["image"].values[k, 0], expected)
    assert read[-1] == 2 * 480 * 640 * 2


def test_chips_that_hold_one_row_one_column_or_a_corner_of_a_scene(tmp_path):
    path = write_tif(tmp_path / "s.tif", noise(1), UTM, GRID, names=["a", "b"], nodata=0,
                     tiled=True, blockxsize=64, blockysize=64)  # fmt: skip
    size = 16
    spots = [(-8, 100), (-7, 100), (100, -7), (-7, -7), (647, 487), (647, 100), (648, 100),
             (100, 487), (100, 488), (300, 200)]  # fmt: skip
    cube = chips(tmp_path, places_on(GRID, *spots), path, bands=["a", "b"], resolution=30.0,
                 size=size)  # fmt: skip
    for k, (col, row) in enumerate(spots):
        expected = window_of(path, col - 8, row - 8, size)
        np.testing.assert_array_equal(cube["image"].values[k, 0], expected)
        share = np.isfinite(expected).all(axis=0).mean()
        assert cube["valid"].values[k, 0] == pytest.approx(share)
    seen = [int(np.isfinite(c).any(axis=0).sum()) for c in cube["image"].values[:, 0]]
    assert seen == [0, size, size, 1, 1, size, 0, size, 0, size * size]
    codes = cube["status"].values[:, 0].tolist()
    assert [c == ChipStatus.OUTSIDE for c in codes] == [n == 0 for n in seen]


@pytest.mark.parametrize("budget", [0, 300_000])
def test_a_tiny_memory_changes_no_byte(tmp_path, monkeypatch, budget):
    """Blocks are dropped and decoded again; what they give stays the same."""
    for k in range(3):
        write_tif(tmp_path / f"in/s_{2001 + k}.tif", noise(k), UTM,
                  GRID @ Affine.translation(40 * k, 3 * k), names=["a", "b"], nodata=0,
                  tiled=True, blockxsize=128, blockysize=128)  # fmt: skip
    rng = np.random.default_rng(5)
    spots = rng.integers(0, 480, (200, 2)).tolist()
    places, scenes = places_on(GRID, *spots), scan(tmp_path / "in")
    ask = {"bands": ["b", "a"], "resolution": 30.0, "size": 24, "periods": ["2001", "2001/2003"]}
    read = {}

    def build(name, threads):
        build_cube(places, scenes, out=tmp_path / name, scheduler=Threads(threads),
                   progress=lambda p: read.update({name: p.bytes_read}), **ask)  # fmt: skip
        return hash_tree(tmp_path / name)

    whole = build("whole.zarr", 1)
    monkeypatch.setattr(
        work, "BlockCache", lambda memory, *rest, **named: BlockCache(budget, *rest, **named)
    )
    monkeypatch.setattr(work, "_BATCH_BYTES", 20_000)
    assert build("tiny.zarr", 1) == whole
    assert build("tiny3.zarr", 3) == whole
    assert read["tiny.zarr"] > 1.5 * read["whole.zarr"]


@pytest.mark.parametrize("crs", ["EPSG:32636", "EPSG:32635", "EPSG:4326", "EPSG:3857"])
@pytest.mark.parametrize("method", [Nearest(), Bilinear()], ids=["nearest", "bilinear"])
def test_chips_between_pixels_equal_those_of_the_warper(tmp_path, crs, method):
    """GDAL, with its approximations switched off, gives the same to within rounding."""
    pixel = 30.0 if crs != "EPSG:4326" else 30.0 / 111_320
    grid = centred(crs, *HERE, pixel, 400, 400)
    rng = np.random.default_rng(2)
    smooth = np.add.outer(np.arange(400) * 37.0, np.arange(400) * 53.0)[None]
    values = (smooth + rng.uniform(0, 5, smooth.shape)).astype("float32")
    path = write_tif(tmp_path / "s.tif", values, crs, grid, names=["a"], tiled=True,
                     blockxsize=64, blockysize=64)  # fmt: skip
    places = places_at(HERE, (HERE[0] + 0.011, HERE[1] - 0.013), (HERE[0] - 0.02, HERE[1] + 0.01))
    cube = chips(tmp_path, places, path, bands=["a"], resolution=27.0, size=41, resampling=method)
    how = Warp.nearest if isinstance(method, Nearest) else Warp.bilinear
    for k in range(len(places)):
        chip = cube.isel(neighborhood=k)
        expected = np.full((41, 41), np.nan, dtype="float32")
        reproject(values[0], expected, src_transform=grid, src_crs=crs, src_nodata=np.nan,
                  dst_transform=Affine(*chip["transform"].values), dst_crs=str(chip["crs"].values),
                  dst_nodata=np.nan, resampling=how, tolerance=0)  # fmt: skip
        away = np.abs(chip["image"].values[0, 0] - expected)
        assert np.isfinite(away).all()
        if isinstance(method, Nearest):  # a centre on the border of two pixels may go either way
            assert (away > 0).mean() < 0.01
        else:
            assert away.max() < 0.05


def test_looks_of_other_grids_zones_and_types_in_one_median(tmp_path):
    """Constant scenes, so that the median is known whatever the grids are."""
    layouts = [(UTM, "uint8", 10, 0), ("EPSG:32635", "int16", 20, -9999),
               ("EPSG:4326", "float32", 40, np.nan),
               ("EPSG:3857", "uint16", 400, 65535)]  # fmt: skip
    for k, (crs, kind, value, nodata) in enumerate(layouts):
        pixel = 40.0 if crs != "EPSG:4326" else 4e-4
        grid = centred(crs, *HERE, pixel, 200, 200)
        values = np.full((1, 200, 200), value, dtype=kind)
        write_tif(tmp_path / f"in/{k}.tif", values, crs, grid, names=["a"], nodata=nodata)
    cube = chips(tmp_path, places_at(HERE), tmp_path / "in", bands=["a"], resolution=30.0, size=20,
                 count_band="n")  # fmt: skip
    assert cube["image"].dtype == np.float32
    np.testing.assert_allclose(cube["image"].values[0, 0, 0], 30.0, rtol=1e-6)
    assert (cube["image"].values[0, 0, 1] == 4).all()
    assert cube["looks"].values.tolist() == [[4]]
    mean = chips(tmp_path / "mean", places_at(HERE), tmp_path / "in", bands=["a"], resolution=30.0,
                 size=20, composite=Mean())  # fmt: skip
    np.testing.assert_allclose(mean["image"].values, 117.5, rtol=1e-6)


def test_small_stacks_change_no_byte(tmp_path, monkeypatch):
    """Looks are taken together as far as they fit; how many do must not matter."""
    from eocausal.ingest.masks import Values

    rng = np.random.default_rng(3)
    for k in range(4):
        grid = GRID @ Affine.translation(0.3, 0.4)
        write_tif(tmp_path / f"in/L{k}_200101_a.tif", noise(k, count=1), UTM, grid, nodata=0)
        flags = rng.integers(0, 4, (1, 480, 640)).astype("uint16")
        write_tif(tmp_path / f"in/L{k}_200101_qa.tif", flags, UTM, grid)
        shade = rng.integers(0, 3, (1, 480, 640)).astype("uint8")
        write_tif(tmp_path / f"in/L{k}_200101_shade.tif", shade, UTM, grid)
    names = {"item_pattern": r"(?P<item>L\d)_", "band_pattern": r"_(?P<band>[a-z]+)\."}
    masks = [Values("qa", drop=(0,), dilate=1), Values("shade", drop=(0,))]
    spots = np.random.default_rng(4).integers(20, 460, (30, 2)).tolist()
    ask = {"bands": ["a"], "resolution": 30.0, "size": 20, "mask": masks, "scan": names}
    chips(tmp_path / "one", places_on(GRID, *spots), tmp_path / "in", **ask)
    monkeypatch.setattr(gather, "_STACK_BYTES", 1)
    chips(tmp_path / "two", places_on(GRID, *spots), tmp_path / "in", **ask)
    assert hash_tree(tmp_path / "one/cube.zarr") == hash_tree(tmp_path / "two/cube.zarr")


def test_a_chip_valid_in_one_band_alone_keeps_it(tmp_path):
    """Whether a period is kept must not hang on the other periods."""
    for year, second in ((2001, 0), (2002, 7)):
        values = np.full((2, 480, 640), 5, dtype="uint16")
        values[1, :, :320] = second
        write_tif(tmp_path / f"in/s_{year}.tif", values, UTM, GRID, names=["a", "b"], nodata=0)
    places = places_on(GRID, (200, 200), (500, 200))
    for name, periods in (("one", ["2001"]), ("two", ["2001", "2002"])):
        cube = chips(tmp_path / name, places, tmp_path / "in", bands=["a", "b"], resolution=30.0,
                     size=16, periods=periods)  # fmt: skip
        image = cube["image"].values[0, 0]
        assert (image[0] == 5).all()
        assert np.isnan(image[1]).all()
        assert cube["valid"].values[0, 0] == 0
