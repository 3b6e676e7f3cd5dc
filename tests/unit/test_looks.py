"""Looks whose bands and masks are spread over files and grids, against plain arrays."""

import warnings

import numpy as np
import pytest
from ingest_helpers import centred, chips, places_at, write_tif
from scipy import ndimage
from test_gather import GRID, UTM, noise, places_on

from eocausal.contracts import ChipStatus
from eocausal.errors import TooManyFailuresError
from eocausal.ingest.composites import BestPixel, Mean, Median
from eocausal.ingest.cube import build_cube
from eocausal.ingest.masks import QAPixel, SceneClassification, Values
from eocausal.ingest.resample import Nearest
from eocausal.ingest.sources import scan
from eocausal.provenance import FailureLedger

HERE = (32.58, 0.32)
FINE = centred(UTM, *HERE, 10.0, 320, 320)
COARSE = centred(UTM, *HERE, 20.0, 160, 160)
NAMES = {"item_pattern": r"(?P<item>S\d)_", "band_pattern": r"_(?P<band>[a-z0-9]+)\.tif"}
CLOUD = (0, 1, 3, 8, 9, 10)


def sentinel(folder, look: int, *, day="01", leave_out=()):
    """One acquisition: red and nir at 10 m, swir and the classification at 20 m."""
    rng = np.random.default_rng(look)
    red, nir = rng.integers(1, 10_000, (2, 320, 320)).astype("uint16")
    swir = rng.integers(1, 10_000, (160, 160)).astype("uint16")
    scl = rng.choice([3, 4, 5, 6, 8, 9], (160, 160), p=[0.02, 0.5, 0.2, 0.2, 0.04, 0.04])
    scl[:4] = 0
    layers = {"red": (red, FINE), "nir": (nir, FINE), "swir": (swir, COARSE),
              "scl": (scl.astype("uint8"), COARSE)}  # fmt: skip
    for name, (values, grid) in layers.items():
        if name not in leave_out:
            write_tif(folder / f"S{look}_202006{day}_{name}.tif", values[None], UTM, grid,
                      tiled=True, blockxsize=64, blockysize=64,
                      **({} if name == "scl" else {"nodata": 0}))  # fmt: skip
    return layers


def disc(radius: int) -> np.ndarray:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return x * x + y * y <= radius * radius


def truth(look, dilate: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Bands at 10 m as float64 and what is clear, from whole scenes."""
    scl = look["scl"][0]
    dropped = np.isin(scl, [c for c in CLOUD if c]) & (scl > 0)
    if dilate:
        dropped = ndimage.binary_dilation(dropped, disc(dilate))
    clear = np.kron((scl > 0) & ~dropped, np.ones((2, 2), bool))
    bands = {k: v[0].astype(float) for k, v in look.items() if k in ("red", "nir")}
    bands["swir"] = np.kron(look["swir"][0].astype(float), np.ones((2, 2)))
    return bands, clear


@pytest.mark.parametrize("dilate", [0, 3])
@pytest.mark.parametrize("how", [Median(), Mean()], ids=["median", "mean"])
def test_bands_masks_index_and_count_against_whole_scenes(tmp_path, dilate, how):
    """Growing a mask at a chip's edge sees clouds that are outside the chip."""
    looks = [sentinel(tmp_path / "in", k, day=f"{k + 1:02d}") for k in range(4)]
    size, spots = 24, [(100, 100), (12, 12), (160, 43), (308, 308), (201, 155), (4, 4)]
    cube = chips(tmp_path, places_on(FINE, *spots), tmp_path / "in", scan=NAMES,
                 bands=["red", "swir", "ndvi = (nir - red) / (nir + red)"], resolution=10.0,
                 size=size, resampling=Nearest(), mask=SceneClassification(dilate=dilate),
                 composite=how, count_band="n")  # fmt: skip
    assert cube["band"].values.tolist() == ["red", "swir", "ndvi", "n"]
    stack, count = [], np.zeros((320, 320))
    for look in looks:
        bands, clear = truth(look, dilate)
        index = (bands["nir"] - bands["red"]) / (bands["nir"] + bands["red"])
        layers = np.stack([bands["red"], bands["swir"], index])
        layers[:, ~clear] = np.nan
        stack.append(layers)
        count += clear
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        made = (np.nanmedian if isinstance(how, Median) else np.nanmean)(np.stack(stack), axis=0)
    padded = np.pad(made, ((0, 0), (size, size), (size, size)), constant_values=np.nan)
    counted = np.pad(count, size)
    for k, (col, row) in enumerate(spots):
        there = np.s_[row + size // 2 : row + 3 * size // 2, col + size // 2 : col + 3 * size // 2]
        image = cube["image"].values[k, 0]
        np.testing.assert_allclose(image[:3], padded[:, *there], rtol=1e-5, atol=1e-6)
        seen = np.nan_to_num(image[3])
        np.testing.assert_array_equal(seen, counted[there])
    assert cube["looks"].values.max() == 4


@pytest.mark.parametrize("shift", [0.0, 0.37], ids=["aligned", "between pixels"])
@pytest.mark.parametrize("size", [16, 17])
def test_growing_a_mask_at_the_edge_of_a_chip(tmp_path, shift, size):
    """A chip has the clear pixels that the whole scene has, wherever its edge runs."""
    rng = np.random.default_rng(0)
    flags = (rng.random((480, 640)) < 0.004).astype("uint16")
    values = noise(0, count=1)[0]
    write_tif(tmp_path / "s.tif", np.stack([values, flags]), UTM, GRID, names=["a", "m"])
    clear = ~ndimage.binary_dilation(flags > 0, disc(5))
    odd = size % 2 / 2
    spots = [(c + odd + shift, r + odd + shift) for c in range(30, 600, 37) for r in (50, 222, 401)]
    cube = chips(tmp_path, places_on(GRID, *spots), tmp_path / "s.tif", bands=["a"], size=size,
                 resolution=30.0, resampling=Nearest(),
                 mask=Values("m", drop=(1,), dilate=5))  # fmt: skip
    for k, (col, row) in enumerate(spots):
        left, top = (int(np.floor(v - size / 2 + 0.5)) for v in (col, row))
        expected = clear[top : top + size, left : left + size]
        got = np.isfinite(cube["image"].values[k, 0, 0])
        np.testing.assert_array_equal(got, expected)
        pixels = values[top : top + size, left : left + size]
        np.testing.assert_array_equal(cube["image"].values[k, 0, 0][got], pixels[got])


def test_two_masks_in_files_of_their_own_count_together(tmp_path):
    qa, shade = np.full((480, 640), 64, "uint16"), np.zeros((480, 640), "uint8")
    qa[:, 200:220] = 1 << 3
    shade[100:110] = 7
    for name, values in (("a", noise(0, count=1)[0]), ("qa", qa), ("shade", shade)):
        write_tif(tmp_path / f"in/S1_20200101_{name}.tif", values[None], UTM, GRID)
    cube = chips(tmp_path, places_on(GRID, (205, 105)), tmp_path / "in", bands=["a"], size=40,
                 resolution=30.0, scan=NAMES,
                 mask=[QAPixel("qa"), Values("shade", drop=(7,))])  # fmt: skip
    expected = np.ones((40, 40), bool)
    expected[15:25] = False
    expected[:, 15:35] = False
    np.testing.assert_array_equal(np.isfinite(cube["image"].values[0, 0, 0]), expected)


def test_an_acquisition_without_a_band_or_a_mask_is_left_out_and_named(tmp_path):
    sentinel(tmp_path / "in", 1, day="01")
    sentinel(tmp_path / "in", 2, day="02", leave_out=("swir",))
    sentinel(tmp_path / "in", 3, day="03", leave_out=("scl",))
    ledger = FailureLedger()
    cube = chips(tmp_path, places_on(FINE, (100, 100)), tmp_path / "in", scan=NAMES, size=16,
                 bands=["red", "swir"], resolution=10.0, mask=SceneClassification(),
                 ledger=ledger)  # fmt: skip
    assert cube["looks"].values.tolist() == [[1]]
    lost = {r.subject.rsplit("_", 1)[0][-11:] for r in ledger.rows if r.reason == "band_missing"}
    assert lost == {"S2_20200602", "S3_20200603"}
    assert {d for r in ledger.rows for d in ("swir", "scl") if f"'{d}'" in r.detail.split(";")[0]}


def test_a_band_in_two_files_of_one_acquisition(tmp_path):
    """Neighboring tiles of one pass: each fills what the other lacks, and it stays one look."""
    left, right = noise(1, count=1, width=320), noise(2, count=1, width=320)
    write_tif(tmp_path / "in/S1_20200101_west_a.tif", left, UTM, GRID, nodata=0)
    east = GRID @ GRID.translation(320, 0)
    write_tif(tmp_path / "in/S1_20200101_east_a.tif", right, UTM, east, nodata=0)
    whole = np.concatenate([left[0], right[0]], axis=1)
    cube = chips(tmp_path, places_on(GRID, (320, 240), (300, 100)), tmp_path / "in", bands=["a"],
                 size=64, resolution=30.0, scan={**NAMES, "band_pattern": r"_(?P<band>a)\.tif"},
                 count_band="n")  # fmt: skip
    assert cube["looks"].values.ravel().tolist() == [1, 1]
    for k, (col, row) in enumerate([(320, 240), (300, 100)]):
        there = whole[row - 32 : row + 32, col - 32 : col + 32]
        np.testing.assert_array_equal(cube["image"].values[k, 0, 0], there)
        assert (cube["image"].values[k, 0, 1] == 1).all()


def test_bands_of_two_sizes_between_pixels(tmp_path):
    """Each file is sampled on its own grid: a plane stays a plane, whatever the pixel."""
    for name, grid, size in (("fine", FINE, 320), ("coarse", COARSE, 160)):
        step = 3200 / size
        cols, rows = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
        plane = (100 + 2.0 * cols * step + 3.0 * rows * step).astype("float32")
        write_tif(tmp_path / f"in/S1_20200101_{name}.tif", plane[None], UTM, grid)
    cube = chips(tmp_path, places_at(HERE, (HERE[0] + 0.003, HERE[1])), tmp_path / "in",
                 scan=NAMES, bands=["fine", "coarse"], resolution=7.0, size=33)  # fmt: skip
    image = cube["image"].values[:, 0]
    np.testing.assert_allclose(image[:, 0], image[:, 1], atol=0.02)


def test_best_pixel_by_an_index_of_other_files(tmp_path):
    looks = [sentinel(tmp_path / "in", k, day=f"{k + 1:02d}") for k in range(3)]
    cube = chips(tmp_path, places_on(FINE, (100, 120)), tmp_path / "in", scan=NAMES, size=20,
                 bands=["red", "nir"], resolution=10.0, resampling=Nearest(),
                 composite=BestPixel("nir"), mask=SceneClassification())  # fmt: skip
    best = np.full((320, 320), -np.inf)
    red = np.full((320, 320), np.nan)
    for look in looks:
        bands, clear = truth(look, 0)
        take = clear & (bands["nir"] > best)
        best[take], red[take] = bands["nir"][take], bands["red"][take]
    np.testing.assert_array_equal(cube["image"].values[0, 0, 0], red[110:130, 90:110])


def test_a_mask_that_cannot_be_read_clears_nothing(tmp_path):
    sentinel(tmp_path / "in", 1, day="01")
    scenes = scan(tmp_path / "in", **NAMES)
    (tmp_path / "in/S1_20200601_scl.tif").write_bytes(b"no image")
    ledger = FailureLedger()
    with pytest.raises(TooManyFailuresError, match="no valid pixel"):
        build_cube(places_on(FINE, (100, 100)), scenes, bands=["red"], resolution=10.0, size=16,
                   out=tmp_path / "c.zarr", mask=SceneClassification(), ledger=ledger)  # fmt: skip
    kinds = [(r.kind, r.reason) for r in ledger.rows]
    assert kinds == [("scene", "read_error"), ("chip", ChipStatus.READ_ERROR.name.lower())]
    assert ledger.rows[0].subject.endswith("S1_20200601_scl.tif")
