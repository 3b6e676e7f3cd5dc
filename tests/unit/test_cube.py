"""What a cube holds: values, masks, composites, periods, and what it says of itself."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from affine import Affine
from ingest_helpers import centred, chips, places_at, write_tif

from eocausal.contracts import ChipStatus, check_cube
from eocausal.errors import (
    DuplicateIdError,
    EmptyInputError,
    MissingColumnError,
    SceneError,
    TooManyFailuresError,
)
from eocausal.ingest.cube import build_cube
from eocausal.ingest.masks import NonZero
from eocausal.ingest.plan import plan_cube
from eocausal.ingest.resample import Nearest
from eocausal.ingest.sources import scan
from eocausal.ingest.store import open_cube, shard_length
from eocausal.provenance import FailureLedger, hash_tree

UTM = "EPSG:32636"
HERE = (32.58, 0.32)
GRID = centred(UTM, *HERE, 30.0, 40, 40)


def scene(path, values, *, names=("a",), dtype="float32", transform=GRID, **kw):
    values = np.broadcast_to(np.asarray(values, dtype=dtype), (len(names), 40, 40))
    return write_tif(path, values, UTM, transform, names=names, **kw)


def cube_of(tmp_path, source, **options):
    ask = {"bands": ["a"], "resolution": 30.0, "size": 16, **options}
    return chips(tmp_path, places_at(HERE), source, **ask)


def middle(cube, period=0, band=0):
    return cube["image"].values[0, period, band]


def test_a_cube_keeps_its_contract(tmp_path):
    scene(tmp_path / "in/s_2010.tif", [[[1.0]], [[2.0]]], names=("a", "b"))
    cube = cube_of(tmp_path, tmp_path / "in", bands=["b", "a"], periods=["2010", "2009/2011"],
                   units="reflectance")  # fmt: skip
    assert check_cube(cube) is cube
    assert cube["image"].dtype == np.float32
    assert cube.band.values.tolist() == ["b", "a"]
    assert middle(cube, band=0).tolist() == np.full((16, 16), 2.0).tolist()
    assert cube.period_start.values.tolist() == ["2010-01-01", "2009-01-01"]
    assert cube.period_end.values.tolist() == ["2010-12-31", "2011-12-31"]
    assert cube.last_date.values.tolist() == ["2010-12-31", "2010-12-31"]
    assert cube.attrs["units"] == "reflectance"
    assert cube.attrs["resolution"] == 30.0
    assert json.loads(cube.attrs["sources"]) == ["s_2010.tif"]
    assert float(cube.lon[0]) == pytest.approx(HERE[0])
    again = open_cube(tmp_path / "cube.zarr")
    xr.testing.assert_identical(cube.load(), again.load())
    assert again.indexes["neighborhood"].tolist() == ["n0"]


def test_integer_ids_stay_integers(tmp_path):
    path = scene(tmp_path / "s.tif", 1)
    places = places_at(HERE, HERE, ids=[7, 3])
    cube = build_cube(places, scan(path), bands=["a"], resolution=30, size=4, out=tmp_path / "c")
    assert cube.indexes["neighborhood"].tolist() == [7, 3]
    assert np.issubdtype(cube["neighborhood"].dtype, np.integer)


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [("uint8", 0), ("int16", -9999), ("uint16", 65535), ("float32", -3.4e38), ("float64", np.nan),
     ("int32", -1), ("uint32", 4294967295), ("int8", -128)],
)  # fmt: skip
def test_nodata_of_every_dtype_becomes_nan(tmp_path, dtype, nodata):
    values = np.full((1, 40, 40), 5, dtype=dtype)
    values[:, :, 20:] = nodata
    path = scene(tmp_path / "s.tif", values, dtype=dtype, nodata=nodata)
    cube = cube_of(tmp_path, path)
    got = middle(cube)
    assert (got[:, :8] == 5).all()
    assert np.isnan(got[:, 8:]).all()
    assert float(cube.valid[0, 0]) == 0.5
    assert cube.status.values.tolist() == [[ChipStatus.PARTIAL]]


def test_nodata_given_instead_of_the_tag(tmp_path):
    path = scene(tmp_path / "s.tif", np.eye(40)[None] * 9, nodata=0)
    cube = cube_of(tmp_path, path, scan={"nodata": 9})
    assert float(cube.valid[0, 0]) == pytest.approx(15 / 16)
    assert np.isnan(np.diag(middle(cube))).all()


def test_untagged_nan_infinity_and_internal_mask(tmp_path):
    values = np.ones((1, 40, 40))
    values[0, 12:14], values[0, 14:16] = np.nan, np.inf
    path = scene(tmp_path / "s.tif", values)
    assert np.isnan(middle(cube_of(tmp_path, path))).sum() == 4 * 16
    import rasterio

    path = scene(tmp_path / "m.tif", 3, dtype="uint8")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as target:
        mask = np.full((40, 40), 255, "uint8")
        mask[:, :20] = 0
        target.write_mask(mask)
    got = middle(cube_of(tmp_path / "2", path))
    assert np.isnan(got[:, :8]).all()
    assert (got[:, 8:] == 3).all()


def test_scale_and_offset_are_applied(tmp_path):
    import rasterio

    path = scene(tmp_path / "s.tif", [[[100]], [[200]]], names=("a", "b"), dtype="uint16", nodata=0)
    with rasterio.open(path, "r+") as target:
        target.scales, target.offsets = (0.1, 0.5), (-1.0, 2.0)
    cube = cube_of(tmp_path, path, bands=["b", "a"])
    assert (middle(cube, band=0) == 102.0).all()
    assert (middle(cube, band=1) == 9.0).all()


def test_mask_band(tmp_path):
    clear = np.zeros((40, 40))
    clear[:, 20:] = 3
    path = scene(tmp_path / "s.tif", [np.full((40, 40), 8.0), clear], names=("a", "clear"),
                 dtype="uint8", nodata=0)  # fmt: skip
    cube = cube_of(tmp_path, path, mask=NonZero("clear"))
    assert np.isnan(middle(cube)[:, :8]).all()
    assert (middle(cube)[:, 8:] == 8).all()
    scene(tmp_path / "no_mask.tif", 1)
    ledger = FailureLedger()
    cube_of(tmp_path, [path, tmp_path / "no_mask.tif"], mask=NonZero("clear"), ledger=ledger)
    assert [r.reason for r in ledger.rows] == ["band_missing"]


def test_composite_is_the_median_of_valid_looks(tmp_path):
    for k, (value, dtype) in enumerate(
        [(1, "uint8"), (5, "int16"), (100, "float32"), (7, "uint16"), (0, "uint8")]
    ):
        scene(tmp_path / f"in/{k}.tif", value, dtype=dtype, nodata=0)
    cube = cube_of(tmp_path, tmp_path / "in")
    assert (middle(cube) == 6).all()  # 1, 5, 7, 100; the fifth is all nodata
    assert cube.last_date.values.tolist() == [""]


def test_periods_contain_the_whole_date(tmp_path):
    for k, name in enumerate(("s_2010.tif", "s_201003.tif", "s_20100315.tif")):
        scene(tmp_path / "in" / name, k + 1)
    cube = cube_of(tmp_path, tmp_path / "in", periods=["2010", "2010-03", "2010-03-15", "2010-01"])
    assert [np.unique(middle(cube, p)).tolist()[0] for p in range(3)] == [2.0, 2.5, 3.0]
    assert cube.status.values[0].tolist() == [0, 0, 0, ChipStatus.NO_SOURCE]
    assert cube.last_date.values.tolist() == ["2010-12-31", "2010-03-31", "2010-03-15", ""]


def test_last_date_is_of_images_that_gave_pixels(tmp_path):
    scene(tmp_path / "in/s_20100101.tif", 1)
    scene(tmp_path / "in/s_20110101.tif", 0, nodata=0)
    assert cube_of(tmp_path, tmp_path / "in").last_date.values.tolist() == ["2010-01-01"]


def test_bilinear_shares_weights_among_valid_pixels(tmp_path):
    values = np.zeros((1, 40, 40))
    values[0, 20, 20], values[0, 20, 21], values[0, 21, 20], values[0, 21, 21] = 4, 10, 20, 30
    moved = GRID @ Affine.translation(0.5, 0.5)
    path = scene(tmp_path / "s.tif", values, transform=moved, nodata=-9)
    assert middle(cube_of(tmp_path, path))[8 + 1, 8 + 1] == 16.0
    values[0, 20, 20] = -9
    path = scene(tmp_path / "s.tif", values, transform=moved, nodata=-9)
    got = middle(cube_of(tmp_path, path))
    assert np.isnan(got).sum() in (0, 1)
    assert got[9, 9] == 20.0


def test_aligned_grids_are_taken_pixel_by_pixel(tmp_path):
    noise = np.random.default_rng(0).normal(size=(1, 40, 40))
    path = scene(tmp_path / "s.tif", noise, transform=GRID @ Affine.translation(0.004, -0.003))
    np.testing.assert_array_equal(
        middle(cube_of(tmp_path, path)), noise[0, 12:28, 12:28].astype("f4")
    )
    path = scene(tmp_path / "s.tif", noise, transform=GRID @ Affine.translation(0.3, 0.0))
    assert not np.isin(middle(cube_of(tmp_path, path)), noise.astype("f4")).any()


def test_size_from_the_places(tmp_path):
    path = scene(tmp_path / "s.tif", 1)
    cube = build_cube(places_at(HERE, size_m=500), scan(path), bands=["a"], resolution=30,
                      out=tmp_path / "c")  # fmt: skip
    assert cube.sizes["x"] == 17
    box = places_at(HERE, size_m=500)[["geometry"]]
    cube = build_cube(box, scan(path), bands=["a"], resolution=30, out=tmp_path / "c2")
    assert cube.sizes["x"] == 17


def test_a_scene_of_its_own(tmp_path):
    for k in range(2):
        scene(tmp_path / f"in/n{k}.tif", k + 1)
    table = scan(tmp_path / "in", neighborhood_pattern=r"(?P<neighborhood>n\d)")
    cube = build_cube(places_at(HERE, HERE), table, bands=["a"], resolution=30, size=8,
                      out=tmp_path / "c")  # fmt: skip
    assert [np.unique(c).tolist() for c in cube["image"].values] == [[1.0], [2.0]]


def test_bad_tables_of_scenes(tmp_path):
    table = scan(scene(tmp_path / "s.tif", 1))
    ask = {"bands": ["a"], "resolution": 30, "size": 8, "out": tmp_path / "c"}
    with pytest.raises(EmptyInputError):
        build_cube(places_at(HERE), table.iloc[:0], **ask)
    with pytest.raises(MissingColumnError, match="transform"):
        build_cube(places_at(HERE), table.drop(columns="transform"), **ask)


def test_the_order_of_scenes_and_progress(tmp_path):
    for k in range(4):
        scene(tmp_path / f"in/{k}.tif", np.random.default_rng(k).normal(size=(1, 40, 40)))
    table = scan(tmp_path / "in")
    steps = []
    points = [(32.58 + 0.0001 * k, 0.32) for k in range(40)]
    ask = {"bands": ["a"], "resolution": 30, "size": 8}
    one = build_cube(places_at(*points), table, out=tmp_path / "1", **ask,
                     progress=lambda p: steps.append((p.done, p.total)))  # fmt: skip
    other = build_cube(places_at(*points), table.iloc[::-1], out=tmp_path / "2", **ask)
    np.testing.assert_array_equal(one["image"].values, other["image"].values)
    assert steps[0] == (0, 40)
    assert steps[-1] == (40, 40)
    assert [s[0] for s in steps] == sorted(s[0] for s in steps)


def test_shards_are_bounded():
    assert shard_length(10_000, 12 * 6 * 64 * 64 * 4) == 113
    assert shard_length(10_000, 3 * 64 * 64 * 4) == 256
    assert shard_length(327, 3 * 35 * 35 * 4) == 41
    assert shard_length(3, 3 * 35 * 35 * 4) == 3
    assert shard_length(100, 40 * 13 * 1024 * 1024 * 4) == 1


def test_plan_says_what_will_be_done(tmp_path):
    for year in (2010, 2011):
        scene(tmp_path / f"in/s_{year}.tif", 1, dtype="uint16")
    scene(tmp_path / "in/other_2010.tif", 1, names=("z",))
    table = scan(tmp_path / "in")
    plan = plan_cube(places_at(HERE, (0.0, 0.0)), table, ["a"], 30.0, 16, ["2010", "2011", "2012"])
    assert (plan.neighborhoods, plan.scenes, plan.chips, plan.left_out) == (2, 2, 6, 1)
    assert (plan.looks, plan.outside) == (2, 4)
    assert 2 * 16 * 16 * 2 <= plan.read_bytes <= 2 * 40 * 40 * 2
    assert plan.disk_bytes == int(2 * 3 * 16 * 16 * 4 / 1.7)
    text = plan.summary()
    assert "6 chips of 16 x 16 pixels" in text
    assert "4 of 6 chips lie outside" in text
    assert "Rough estimate" in text


@pytest.mark.slow
def test_a_distributed_client_writes_the_same_bytes(tmp_path):
    from distributed import Client, LocalCluster

    noise = np.random.default_rng(0).normal(size=(1, 40, 40))
    path = scene(tmp_path / "s.tif", noise)
    points = [(32.58 + 0.0001 * k, 0.32) for k in range(40)]
    ask = {"bands": ["a"], "resolution": 25, "size": 8}
    build_cube(places_at(*points), scan(path), out=tmp_path / "1", **ask)
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
        ) as cluster,  # fmt: skip
        Client(cluster),
    ):
        build_cube(places_at(*points), scan(path), out=tmp_path / "2", **ask)
    assert hash_tree(tmp_path / "1") == hash_tree(tmp_path / "2")


def test_ids_of_another_type_are_another_cube(tmp_path):
    path = scene(tmp_path / "s.tif", 1)
    places = places_at(HERE, HERE)
    ask = {"bands": ["a"], "resolution": 30.0, "size": 8}
    for ids in ([1, 2], ["1", "2"], pd.array([1, 2], dtype=object)):
        places.index = pd.Index(ids, name="neighborhood")
        found = chips(tmp_path, places, path, **ask).indexes["neighborhood"].tolist()
        assert found == list(ids)
        assert {type(v) for v in found} == {type(v) for v in ids}
    places.index = pd.Index([1, "1"], name="neighborhood", dtype=object)
    with pytest.raises(DuplicateIdError, match="only in their type"):
        chips(tmp_path, places, path, **ask)


def test_a_scene_given_twice_weighs_once(tmp_path):
    scene(tmp_path / "in/a_2010.tif", 1)
    scene(tmp_path / "in/b_2010.tif", 9)
    (tmp_path / "in/link_2010.tif").symlink_to(tmp_path / "in/b_2010.tif")
    once = scan([tmp_path / "in/a_2010.tif", tmp_path / "in/b_2010.tif"])
    for scenes in (scan(tmp_path / "in"), pd.concat([once, once])):
        ledger = FailureLedger()
        cube = build_cube(places_at(HERE), scenes, bands=["a"], resolution=30.0, size=8,
                          out=tmp_path / "cube.zarr", ledger=ledger)  # fmt: skip
        assert (middle(cube) == 5).all()
        assert {r.reason for r in ledger.rows} == {"duplicate"}


def test_the_period_of_all_begins_with_the_first_scene(tmp_path):
    scene(tmp_path / "in/a_1999.tif", 1)
    scene(tmp_path / "in/b_2001-05.tif", 1)
    cube = cube_of(tmp_path, tmp_path / "in")
    assert cube.period_start.values.tolist() == ["1999-01-01"]
    assert cube.period_end.values.tolist() == ["2001-05-31"]


def test_nodata_in_the_mask_band_is_not_clear(tmp_path):
    clear = np.ones((40, 40))
    clear[:20] = -9999
    values = np.stack([np.full((40, 40), 5.0), clear])
    path = scene(tmp_path / "s.tif", values, names=("a", "clear"), nodata=-9999)
    cube = cube_of(tmp_path, path, mask=NonZero("clear"), resampling=Nearest())
    assert np.isnan(middle(cube)[:8]).all()
    assert (middle(cube)[8:] == 5).all()


def test_nodata_of_each_band(tmp_path):
    scene(tmp_path / "in/s.tif", [[[1.0]], [[2.0]]], names=("a", "b"))
    a, b, c, d, e, f = GRID[:6]
    bands = "".join(
        f'<VRTRasterBand dataType="Float32" band="{i}"><NoDataValue>{nodata}</NoDataValue>'
        f'<SimpleSource><SourceFilename relativeToVRT="1">in/s.tif</SourceFilename>'
        f"<SourceBand>{i}</SourceBand></SimpleSource></VRTRasterBand>"
        for i, nodata in ((1, 7), (2, 2))
    )
    (tmp_path / "s.vrt").write_text(
        f'<VRTDataset rasterXSize="40" rasterYSize="40"><SRS>{UTM}</SRS>'
        f"<GeoTransform>{c},{a},{b},{f},{d},{e}</GeoTransform>{bands}</VRTDataset>"
    )
    places = places_at(HERE)
    whole = chips(tmp_path, places, tmp_path / "s.vrt", bands=["b1"], resolution=30.0, size=8)
    assert (middle(whole) == 1).all()
    with pytest.raises(TooManyFailuresError, match="nodata_only"):
        chips(tmp_path, places, tmp_path / "s.vrt", bands=["b2"], resolution=30.0, size=8)


def test_scenes_that_belong_to_nobody_are_named(tmp_path):
    scene(tmp_path / "in/key_0001.tif", 1)
    pattern = {"neighborhood_pattern": r"key_(?P<neighborhood>\d+)"}
    with pytest.raises(SceneError, match="'0001'"):
        chips(tmp_path, places_at(HERE, ids=["1"]), tmp_path / "in", bands=["a"],
              resolution=30.0, size=8, scan=pattern)  # fmt: skip
