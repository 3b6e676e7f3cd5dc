import json
import shutil

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from affine import Affine
from ingest_helpers import write_tif

from eocausal.contracts import ChipStatus, check_panel
from eocausal.errors import BandError, GeometryError, IngestError, PanelError, TooManyFailuresError
from eocausal.ingest.coverage import coverage_of, ground_areas, pieces_of
from eocausal.ingest.grid import SceneGrid
from eocausal.ingest.masks import NonZero
from eocausal.ingest.panels import read_panel, write_panel
from eocausal.ingest.sources import scan
from eocausal.ingest.statistics import (
    ClassArea,
    ClassShare,
    Count,
    Max,
    Mean,
    Min,
    Quantile,
    StdDev,
    Sum,
)
from eocausal.ingest.zonal import zonal_series
from eocausal.provenance import FailureLedger

UTM = "EPSG:32636"
NORTH_UP = Affine(10, 0, 500_000, 0, -10, 100_000)


def places_of(*shapes, crs=UTM, ids=None) -> gpd.GeoDataFrame:
    index = pd.Index(ids or [f"p{i}" for i in range(len(shapes))], name="neighborhood")
    return gpd.GeoDataFrame(geometry=list(shapes), index=index, crs=crs)


def pixel_box(left, top, right, bottom):
    """Box in columns and rows of NORTH_UP."""
    return shapely.box(
        500_000 + 10 * left, 100_000 - 10 * bottom, 500_000 + 10 * right, 100_000 - 10 * top
    )


def ramp(size=20):
    return np.arange(size * size, dtype="float32").reshape(1, size, size)


def one_scene(tmp_path, values, name="2001.tif", transform=NORTH_UP, crs=UTM, bands=("v",), **kw):
    write_tif(tmp_path / name, values, crs, transform, names=list(bands), **kw)
    return scan(tmp_path)


def test_a_fraction_of_each_pixel_counts(tmp_path):
    values = ramp()
    places = places_of(pixel_box(2.5, 3, 4, 5))
    every = [Mean(), Sum(), Count(), StdDev(), Min(), Max(), Quantile(0.5)]
    panel = zonal_series(places, one_scene(tmp_path, values), bands="v", statistics=every)
    pixels = values[0, 3:5, 2:4]
    share = np.array([[0.5, 1], [0.5, 1]])
    mean = (pixels * share).sum() / 3
    assert panel["v_mean"].item() == pytest.approx(mean)
    assert panel["v_sum"].item() == pytest.approx((pixels * share).sum())
    assert panel["v_count"].item() == pytest.approx(3)
    assert panel["v_std"].item() == pytest.approx(np.sqrt(((pixels - mean) ** 2 * share).sum() / 3))
    assert (panel["v_min"].item(), panel["v_max"].item()) == (pixels.min(), pixels.max())
    assert panel["v_coverage"].item() == pytest.approx(1)
    assert panel["status"].item() == ChipStatus.OK
    check_panel(panel)


@pytest.mark.parametrize(
    "transform",
    [
        NORTH_UP,
        Affine(10, 0, 500_000, 0, 10, 99_800),
        Affine(-10, 0, 500_200, 0, -10, 100_000),
        Affine.translation(500_100, 99_900) @ Affine.rotation(30) @ Affine.translation(-100, 100)
        @ Affine.scale(10, -10),
    ],
    ids=["north-up", "south-up", "east-left", "rotated"],
)  # fmt: skip
def test_any_affine_grid(tmp_path, transform):
    """The mean of x and y over a polygon is near its centroid, however the grid lies."""
    cols, rows = np.meshgrid(np.arange(20) + 0.5, np.arange(20) + 0.5)
    a, b, c, d, e, f = transform[:6]
    values = np.stack([a * cols + b * rows + c, d * cols + e * rows + f])
    scenes = one_scene(tmp_path, values, transform=transform, bands=("x", "y"))
    shape = shapely.Point(500_090, 99_895).buffer(61)
    panel = zonal_series(places_of(shape), scenes, bands=["x", "y"], statistics=[Mean(), Count()])
    assert panel["x_mean"].item() == pytest.approx(shape.centroid.x, abs=0.05)
    assert panel["y_mean"].item() == pytest.approx(shape.centroid.y, abs=0.05)
    assert panel["x_count"].item() == pytest.approx(shape.area / 100, rel=1e-5)


def test_small_outside_and_touching_polygons(tmp_path):
    scenes = one_scene(tmp_path, ramp())
    inside_one = pixel_box(5.2, 6.2, 5.4, 6.3)
    half_off = pixel_box(-1, 0, 1, 1)
    corner = pixel_box(-1, -1, 0.5, 0.5)
    edge_only = pixel_box(-2, 0, 0, 2)
    far = pixel_box(900, 900, 910, 910)
    places = places_of(inside_one, half_off, corner, edge_only, far)
    ledger = FailureLedger()
    panel = zonal_series(places, scenes, bands="v", statistics=[Mean(), Sum()], ledger=ledger)
    mean, status = panel["v_mean"].values[:, 0], panel["status"].values[:, 0]
    assert mean[:3].tolist() == [6 * 20 + 5, 0, 0]
    assert np.isnan(mean[3:]).all()
    assert np.isnan(panel["v_sum"].values[3:, 0]).all()
    assert panel["v_coverage"].values[:, 0] == pytest.approx([1, 0.5, 1 / 9, 0, 0], abs=1e-6)
    partial, off = ChipStatus.PARTIAL, ChipStatus.OUTSIDE
    assert status.tolist() == [ChipStatus.OK, partial, partial, off, off]
    assert ledger.to_frame().query("reason == 'outside'")["subject"].tolist() == ["p3", "p4"]


def test_nothing_valid_is_missing_and_never_zero(tmp_path):
    values = ramp()
    values[0, :10] = -1
    values[0, 15, 15] = np.nan
    values[0, 15, 16] = np.inf
    scenes = one_scene(tmp_path, values, nodata=-1)
    places = places_of(pixel_box(2, 2, 6, 6), pixel_box(2, 8, 4, 12), pixel_box(15, 15, 17, 16))
    every = [Mean(), Sum(), StdDev(), Min(), Quantile(0.2), ClassShare({"a": 1})]
    panel = zonal_series(places, scenes, bands="v", statistics=every)
    for name in ("mean", "sum", "std", "min", "q20", "share_a"):
        assert np.isnan(panel[f"v_{name}"].values[[0, 2], 0]).all(), name
    assert panel["v_mean"].values[1, 0] == values[0, 10:12, 2:4].mean()
    assert panel["v_coverage"].values[:, 0] == pytest.approx([0, 0.5, 0])
    assert panel["status"].values[0, 0] == ChipStatus.NODATA_ONLY


def test_classes_as_shares_and_areas(tmp_path):
    values = np.full((1, 20, 20), 2, dtype="uint8")
    values[0, :, :5] = 7
    values[0, :, 19] = 0
    scenes = one_scene(tmp_path, values, nodata=0)
    classes = {"built": 7, "green": (2, 11), "none": [3]}
    panel = zonal_series(
        places_of(pixel_box(0, 0, 20, 20)), scenes, bands="v",
        statistics=[ClassShare(classes), ClassArea(classes)],
    )  # fmt: skip
    assert panel["v_share_built"].item() == pytest.approx(5 / 19)
    assert panel["v_share_green"].item() == pytest.approx(14 / 19)
    assert panel["v_share_none"].item() == 0
    assert panel["v_area_built"].item() == pytest.approx(100 * 100)


def test_scale_offset_and_own_mask(tmp_path):
    write_tif(tmp_path / "2001.tif", np.full((1, 4, 4), 50, "uint8"), UTM, NORTH_UP, names=["v"])
    import rasterio

    with rasterio.open(tmp_path / "2001.tif", "r+") as target:
        target.scales, target.offsets = (0.1,), (-2.0,)
    panel = zonal_series(places_of(pixel_box(0, 0, 4, 4)), scan(tmp_path), bands="v")
    assert panel["v_mean"].item() == pytest.approx(3)


def test_polygons_in_degrees_on_a_projected_grid_follow_their_own_edges(tmp_path):
    """A wide strip along a parallel is not the straight strip between its four corners."""
    crs = "EPSG:3034"
    transform = Affine(10_000, 0, 2_000_000, 0, -10_000, 4_500_000)
    cols, rows = np.meshgrid(np.arange(400) + 0.5, np.arange(350) + 0.5)
    from eocausal.ingest.grid import project

    _, lat = project(crs, "EPSG:4326", 2e6 + 1e4 * cols, 4.5e6 - 1e4 * rows)
    scenes = one_scene(tmp_path, lat[None], crs=crs, transform=transform)
    places = places_of(shapely.box(-5, 50, 25, 51), crs="EPSG:4326")
    panel = zonal_series(places, scenes, bands="v", statistics=[Mean(), Min(), Max()])
    assert panel["v_mean"].item() == pytest.approx(50.5, abs=0.02)
    assert panel["v_min"].item() > 49.9
    assert panel["v_max"].item() < 51.1


@pytest.mark.parametrize("west", [-180, 0], ids=["-180..180", "0..360"])
def test_across_the_antimeridian_and_the_seam(tmp_path, west):
    """Longitude east of 170 is held by each pixel; polygons lie across 180 and across 0."""
    lon = west + np.arange(360) + 0.5
    values = np.stack([np.broadcast_to((lon - 170) % 360, (180, 360))] * 2).astype("float32")
    values[1] = (values[1] + 180) % 360
    transform = Affine(1, 0, west, 0, -1, 90)
    scenes = one_scene(tmp_path, values, crs="EPSG:4326", transform=transform, bands=("p", "q"))
    pieces = shapely.MultiPolygon([shapely.box(177, -3, 180, 4), shapely.box(-180, -3, -178.5, 4)])
    places = places_of(pieces, shapely.box(176.5, 0, 181.5, 2), shapely.box(-4, 0, 4, 2),
                       crs="EPSG:4326")  # fmt: skip
    panel = zonal_series(places, scenes, bands=["p", "q"], statistics=[Mean(), Count()])
    assert panel["p_count"].values[:, 0] == pytest.approx([4.5 * 7, 10, 16])
    assert panel["p_mean"].values[:2, 0] == pytest.approx([9.25, 9.0], abs=0.06)
    assert panel["q_mean"].values[2, 0] == pytest.approx(10)
    assert panel["p_coverage"].values[:, 0] == pytest.approx([1, 1, 1], abs=1e-6)


def test_a_polygon_around_the_pole(tmp_path):
    transform = Affine(25_000, 0, -3_850_000, 0, -25_000, 5_850_000)
    scenes = one_scene(
        tmp_path, np.ones((1, 448, 304), "float32"), crs="EPSG:3413", transform=transform
    )
    places = places_of(shapely.box(-180, 80, 180, 90), crs="EPSG:4326")
    panel = zonal_series(places, scenes, bands="v", statistics=[Mean(), ClassArea({"ice": 1})])
    assert panel["v_mean"].item() == 1
    ground = 2 * np.pi * 6_371_007**2 * (1 - np.sin(np.radians(80)))
    assert panel["v_area_ice"].item() == pytest.approx(ground, rel=0.06)


def test_ground_areas_add_up_to_the_earth():
    grid = SceneGrid("EPSG:4326", (2.0, 0, -180.0, 0, -2.0, 90.0), 180, 90)
    rows, cols = np.divmod(np.arange(180 * 90), 180)
    assert ground_areas(grid, rows, cols).sum() == pytest.approx(510_065_621_724_088, rel=1e-9)
    cols_twice = SceneGrid("EPSG:4326", (2.0, 0, -180.0, 0, -2.0, 90.0), 181, 90)
    globe = np.array([shapely.box(-180, -90, 180, 90)], dtype=object)
    cover = coverage_of(globe, "EPSG:4326", cols_twice)
    assert cover.inside[0] == pytest.approx(510_065_621_724_088, rel=1e-9)
    assert set(cover.pixels // 181) == set(range(90))
    assert (cover.pixels % 181).max() == 179


def test_every_block_is_in_one_window_and_no_other_is_read():
    grid = SceneGrid(UTM, (1.0, 0, 0.0, 0, -1.0, 0.0), 1000, 700)
    rng = np.random.default_rng(1)
    pixels = np.unique(rng.integers(0, 700_000, 40))
    pieces = pieces_of(pixels, grid, (64, 128))
    out = np.full(len(pixels), -1)
    image = np.arange(700_000).reshape(700, 1000)
    read = np.zeros((700, 1000), int)
    for piece in pieces:
        left, top, width, height = piece.box
        out[piece.at] = image[top : top + height, left : left + width].ravel()[piece.local]
        read[top : top + height, left : left + width] += 1
    assert (out == pixels).all()
    assert read.max() == 1
    blocks = {(p // 1000 // 64, p % 1000 // 128) for p in pixels.tolist()}
    assert read.sum() == sum(
        (min(64 * r + 64, 700) - 64 * r) * (min(128 * c + 128, 1000) - 128 * c) for r, c in blocks
    )


def test_looks_of_a_period_are_averaged_pixel_by_pixel(tmp_path):
    first, second = np.full((1, 4, 4), 10.0), np.full((1, 4, 4), 20.0)
    second[0, :, :2] = np.nan
    write_tif(tmp_path / "20010110.tif", first, UTM, NORTH_UP, names=["v"])
    write_tif(tmp_path / "20010120.tif", second, UTM, NORTH_UP, names=["v"])
    places, scenes = places_of(pixel_box(0, 0, 4, 4)), scan(tmp_path)
    every = [Mean(), Sum(), ClassShare({"ten": 10})]
    panel = zonal_series(
        places, scenes, bands="v", periods=["2001-01", "2001-02"], statistics=every
    )
    assert panel["v_mean"].values[0, 0] == 12.5
    assert panel["v_sum"].values[0, 0] == 200
    assert panel["v_share_ten"].values[0, 0] == 0.75
    assert np.isnan(panel["v_mean"].values[0, 1])
    assert panel["status"].values[0].tolist() == [ChipStatus.OK, ChipStatus.NO_SOURCE]
    assert panel["period"].values.tolist() == ["2001-01", "2001-02"]
    each = zonal_series(places, scenes, bands="v")
    assert each["v_mean"].values[0].tolist() == [10, 20]
    assert each["v_coverage"].values[0].tolist() == [1, 0.5]


def test_tiles_pool_their_pixels_and_totals_over_an_overlap_are_refused(tmp_path):
    left = np.full((1, 10, 10), 1.0)
    write_tif(tmp_path / "a_2001.tif", left, UTM, NORTH_UP, names=["v"])
    beside = NORTH_UP @ Affine.translation(10, 0)
    write_tif(tmp_path / "b_2001.tif", 4 * left, UTM, beside, names=["v"])
    over = places_of(pixel_box(8, 2, 14, 4))
    every = [Mean(), Sum(), Quantile(1.0)]
    panel = zonal_series(over, scan(tmp_path), bands="v", periods=["2001"], statistics=every)
    assert panel["v_mean"].item() == pytest.approx(3)
    assert panel["v_sum"].item() == pytest.approx(2 * 2 * 1 + 4 * 2 * 4)
    assert panel["v_q100"].item() == 4
    assert panel["v_coverage"].item() == pytest.approx(1)
    shifted = NORTH_UP @ Affine.translation(9, 0)
    write_tif(tmp_path / "b_2001.tif", 4 * left, UTM, shifted, names=["v"])
    ledger = FailureLedger()
    twice = zonal_series(
        over, scan(tmp_path), bands="v", periods=["2001"], statistics=every, ledger=ledger
    )
    assert np.isnan(twice["v_sum"].item())
    assert twice["v_mean"].item() == pytest.approx((2 * 1 + 5 * 4) / 7)
    assert [f.reason for f in ledger.rows] == ["overlap"]


def test_a_damaged_file_is_a_missing_step_and_a_row(tmp_path):
    for year in (2001, 2002, 2003):
        values = np.random.default_rng(year).normal(size=(1, 64, 64))
        write_tif(tmp_path / f"{year}.tif", values, UTM, NORTH_UP, names=["v"], compress="deflate")
    scenes = scan(tmp_path)
    broken = tmp_path / "2002.tif"
    broken.write_bytes(broken.read_bytes()[:4000])
    ledger = FailureLedger()
    places = places_of(pixel_box(1, 1, 60, 60), pixel_box(500, 500, 501, 501))
    panel = zonal_series(places, scenes, bands="v", ledger=ledger)
    assert np.isnan(panel["v_mean"].values[0]).tolist() == [False, True, False]
    assert panel["status"].values[0, 1] == ChipStatus.READ_ERROR
    assert panel["status"].values[1, 1] == ChipStatus.OUTSIDE
    rows = ledger.to_frame()
    assert rows.query("reason == 'read_error'")["subject"].tolist() == [str(broken)]
    with pytest.raises(TooManyFailuresError, match="cost 17%"):
        zonal_series(places, scenes, bands="v", max_failed=0.1)


def test_a_mask_on_a_coarser_grid_of_another_file(tmp_path):
    write_tif(tmp_path / "x_2001_v.tif", ramp(8), UTM, NORTH_UP, names=["v"])
    clear = np.ones((1, 4, 4), "uint8")
    clear[0, 0, 0] = 0
    coarse = NORTH_UP @ Affine.scale(2)
    write_tif(tmp_path / "x_2001_qa.tif", clear, UTM, coarse, names=["qa"])
    scenes = scan(tmp_path)
    scenes["item"] = "x"
    places = places_of(pixel_box(0, 0, 4, 2))
    panel = zonal_series(places, scenes, bands="v", mask=NonZero("qa"))
    assert panel["v_mean"].item() == ramp(8)[0, :2, 2:4].mean()
    assert panel["v_coverage"].item() == 0.5
    with pytest.raises(TooManyFailuresError, match="nodata_only"):
        zonal_series(places, scenes, bands="v", mask=NonZero("qa", dilate=1))


def test_threads_and_groups_change_no_bit(tmp_path, monkeypatch):
    rng = np.random.default_rng(2)
    for year in range(2001, 2006):
        write_tif(
            tmp_path / f"{year}.tif", rng.normal(size=(1, 64, 64)), UTM, NORTH_UP, names=["v"]
        )
    scenes = scan(tmp_path)
    corners = rng.uniform(0, 60, (30, 2))
    places = places_of(*(pixel_box(x, y, x + 5.3, y + 4.7) for x, y in corners))
    every = [Mean(), StdDev(), Quantile(0.3), Sum()]
    one = zonal_series(places, scenes, bands="v", statistics=every, workers=1)
    four = zonal_series(places, scenes, bands="v", statistics=every, workers=4)
    assert one.identical(four)
    monkeypatch.setattr("eocausal.ingest.zonal_plan._MOST_ENTRIES", 100)
    xr.testing.assert_allclose(one, zonal_series(places, scenes, bands="v", statistics=every))


def test_a_scene_tied_to_one_neighborhood_feeds_no_other(tmp_path):
    for name in ("p0", "p1"):
        values = np.full((1, 8, 8), float(name[1]))
        write_tif(tmp_path / f"key_{name}_2001.tif", values, UTM, NORTH_UP, names=["v"])
    scenes = scan(tmp_path, neighborhood_pattern=r"key_(?P<neighborhood>p\d)")
    places = places_of(pixel_box(0, 0, 4, 4), pixel_box(1, 1, 5, 5))
    panel = zonal_series(places, scenes, bands="v", periods=["2001"])
    assert panel["v_mean"].values[:, 0].tolist() == [0, 1]


def test_a_panel_goes_to_long_parquet_and_back(tmp_path):
    for year in (2001, 2002):
        write_tif(tmp_path / "in" / f"{year}.tif", ramp() + year, UTM, NORTH_UP, names=["v"])
    places = places_of(pixel_box(0, 0, 4, 4), pixel_box(90, 90, 95, 95), ids=["a", "b"])
    out = tmp_path / "panel.parquet"
    panel = zonal_series(places, scan(tmp_path / "in"), bands="v", statistics=[Mean(), Sum()],
                         out=out)  # fmt: skip
    assert read_panel(out).identical(panel)
    table = gpd.read_parquet(out)
    assert table.crs == places.crs
    assert table[["neighborhood", "time"]].drop_duplicates().shape == (4, 2)
    assert table.geometry.iloc[3].equals(places.geometry.iloc[1])
    write_panel(panel, tmp_path / "panel.zarr")
    xr.testing.assert_identical(read_panel(tmp_path / "panel.zarr"), panel)
    shutil.copy(tmp_path / "in" / "2001.tif", tmp_path / "no.parquet")
    with pytest.raises(PanelError):
        read_panel(tmp_path / "none.parquet")
    assert json.loads(panel.attrs["bands"]) == ["v"]


def test_what_is_refused(tmp_path):
    scenes = one_scene(tmp_path, ramp())
    box = places_of(pixel_box(0, 0, 2, 2))
    with pytest.raises(GeometryError, match="not polygons"):
        zonal_series(places_of(shapely.Point(500_050, 99_950)), scenes, bands="v")
    with pytest.raises(BandError, match="closest: 'v'"):
        zonal_series(box, scenes, bands="vv")
    with pytest.raises(IngestError, match="twice"):
        zonal_series(box, scenes, bands="v", statistics=[Mean(), Mean()])
    with pytest.raises(IngestError, match="area=False"):
        zonal_series(box, scenes, bands="v", statistics=[ClassArea({"a": 1})], area=False)
    with pytest.raises(IngestError, match="no classes"):
        ClassShare({})
    with pytest.raises(IngestError, match="quantile"):
        Quantile(1.5)
    with pytest.raises(IngestError, match="begin alike"):
        zonal_series(box, scenes, bands="v", periods=["2001", "2001-01"])
    with pytest.raises(TooManyFailuresError, match="No neighborhood"):
        zonal_series(places_of(pixel_box(50, 50, 60, 60)), scenes, bands="v")
