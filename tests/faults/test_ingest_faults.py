"""What goes wrong with real files becomes a typed error or a row in the ledger."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from affine import Affine
from ingest_helpers import centred, chips, places_at, write_coordinates, write_tif

from eocausal.contracts import ChipStatus
from eocausal.errors import (
    BandError,
    CRSError,
    CubeError,
    DuplicateIdError,
    EmptyInputError,
    GeometryError,
    IngestError,
    MissingColumnError,
    SceneError,
    TooManyFailuresError,
)
from eocausal.ingest import store
from eocausal.ingest.cube import build_cube
from eocausal.ingest.places import read_neighborhoods
from eocausal.ingest.sources import scan
from eocausal.ingest.store import open_cube
from eocausal.provenance import FailureLedger, hash_tree

UTM = "EPSG:32636"
HERE = (32.58, 0.32)
NEAR = (32.60, 0.33)
FAR = (-60.0, -30.0)


def ramp(path: Path, *, value=None, size=256, at=HERE, dtype="uint8", names=("a", "b"), **kw):
    """Write a UTM scene around a place with random values from 1 (or one constant value)."""
    rng = np.random.default_rng(len(path.name))
    values = rng.integers(1, 200, size=(len(names), size, size))
    if value is not None:
        values[:] = value
    transform = centred(UTM, *at, 30.0, size, size)
    return write_tif(path, values.astype(dtype), UTM, transform, names=names, **kw)


def truncate(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def reasons(ledger: FailureLedger) -> list[tuple[str, str]]:
    return [(Path(r.subject).name, r.reason) for r in ledger.rows]


# Neighborhoods


def test_missing_crs_of_a_vector_file(tmp_path):
    frame = gpd.GeoDataFrame({"v": [1]}, geometry=[shapely.Point(*HERE)], crs=4326)
    frame.to_file(tmp_path / "places.shp")
    (tmp_path / "places.prj").unlink()
    with pytest.raises(CRSError, match="no coordinate reference system"):
        read_neighborhoods(tmp_path / "places.shp")
    assert read_neighborhoods(tmp_path / "places.shp", crs="EPSG:4326").crs.to_epsg() == 4326


def test_contradicting_crs(tmp_path):
    frame = gpd.GeoDataFrame({"v": [1]}, geometry=[shapely.Point(*HERE)], crs=4326)
    frame.to_file(tmp_path / "places.gpkg")
    with pytest.raises(CRSError, match="was given, but the file says"):
        read_neighborhoods(tmp_path / "places.gpkg", crs="EPSG:3857")
    with pytest.raises(CRSError, match="not a coordinate reference system"):
        read_neighborhoods(tmp_path / "places.gpkg", crs="EPSG:999999")


@pytest.mark.parametrize(
    ("x", "y", "crs"),
    [(500_000.0, 36_000.0, None), (0.32, 132.58, None), (32.58, 0.32, UTM), (9e9, 9e9, UTM)],
    ids=["metres as degrees", "swapped", "degrees as metres", "nowhere"],
)
def test_wrong_crs(x, y, crs):
    with pytest.raises(CRSError):
        read_neighborhoods(pd.DataFrame({"lon": [x], "lat": [y]}), crs=crs)


def test_bad_geometry_and_ids(tmp_path):
    points = [shapely.Point(*HERE), shapely.Point()]
    with pytest.raises(GeometryError, match="1 neighborhoods have no geometry: 1"):
        read_neighborhoods(gpd.GeoDataFrame(geometry=points, crs=4326))
    bow = shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])
    with pytest.raises(GeometryError, match="invalid"):
        read_neighborhoods(gpd.GeoDataFrame(geometry=[bow], crs=4326))
    table = pd.DataFrame({"k": ["a", "a", "b"], "lon": [1.0, 2, 3], "lat": [1.0, 2, 3]})
    with pytest.raises(DuplicateIdError, match="'a'"):
        read_neighborhoods(table, id="k")
    with pytest.raises(MissingColumnError, match="closest: 'lon'"):
        read_neighborhoods(table, x="lom")
    with pytest.raises(MissingColumnError, match="empty in 1 rows"):
        read_neighborhoods(table.assign(k=["a", None, "b"]), id="k")
    for broken in (np.nan, np.inf, "north"):
        with pytest.raises(GeometryError, match="rows 1"):
            read_neighborhoods(table.assign(lon=pd.Series([1.0, broken, 2.0], dtype=object)))
    with pytest.raises(EmptyInputError):
        read_neighborhoods(table.iloc[:0])
    with pytest.raises(EmptyInputError, match="no file"):
        read_neighborhoods(tmp_path / "absent.csv")
    (tmp_path / "broken.gpkg").write_bytes(b"not a GeoPackage")
    with pytest.raises(IngestError, match="cannot be read"):
        read_neighborhoods(tmp_path / "broken.gpkg")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(IngestError, match="cannot be read as a table"):
        read_neighborhoods(tmp_path / "empty.csv")


# Scenes


def test_scenes_without_a_place_on_earth(tmp_path):
    ramp(tmp_path / "good.tif")
    pixels = np.ones((1, 9, 9), "uint8")
    write_tif(tmp_path / "no_crs.tif", pixels, None, Affine(1, 0, 5, 0, -1, 5))
    write_tif(tmp_path / "no_transform.tif", pixels, UTM, Affine.identity())
    (tmp_path / "text.tif").write_text("this is no image")
    ledger = FailureLedger()
    scenes = scan(tmp_path, ledger=ledger)
    assert [Path(h).name for h in scenes.href] == ["good.tif"]
    assert sorted(reasons(ledger)) == [
        ("no_crs.tif", "no_crs"),
        ("no_transform.tif", "no_georeference"),
        ("text.tif", "read_error"),
    ]
    with pytest.raises(CRSError, match="None of the 1 files"):
        scan(tmp_path / "no_crs.tif")
    assert scan(tmp_path / "no_crs.tif", crs=UTM).scene_crs.tolist() == [UTM]
    with pytest.raises(SceneError):
        scan([tmp_path / "text.tif", tmp_path / "no_transform.tif"])
    with pytest.raises(CRSError, match="was given, but"):
        scan(tmp_path / "good.tif", crs="EPSG:4326")


def test_nothing_to_scan(tmp_path):
    with pytest.raises(EmptyInputError):
        scan(tmp_path)
    with pytest.raises(SceneError, match="no file or folder"):
        scan(tmp_path / "absent.tif")
    with pytest.raises(EmptyInputError):
        scan(str(tmp_path / "*.tif"))


def test_truncated_header(tmp_path):
    ramp(tmp_path / "good.tif")
    truncate(ramp(tmp_path / "cut.tif"), 0.0001)
    ledger = FailureLedger()
    assert len(scan(tmp_path, ledger=ledger)) == 1
    assert reasons(ledger) == [("cut.tif", "read_error")]


# Chips


def test_places_outside_every_scene(tmp_path):
    ramp(tmp_path / "s.tif")
    ledger = FailureLedger()
    cube = chips(tmp_path, places_at(HERE, FAR), tmp_path / "s.tif", bands=["a"], resolution=30,
                 size=16, ledger=ledger)  # fmt: skip
    assert cube.status.values.tolist() == [[ChipStatus.OK], [ChipStatus.OUTSIDE]]
    assert np.isnan(cube["image"].values[1]).all()
    assert [(r.kind, r.subject, r.reason, r.period) for r in ledger.rows] == [
        ("chip", "n1", "outside", "all")
    ]


def test_too_many_failures_after_the_store_is_whole(tmp_path):
    ramp(tmp_path / "s.tif")
    places = places_at(HERE, FAR, (10.0, 10.0))
    for _ in range(2):  # the second time the finished store is found, and judged the same
        ledger = FailureLedger()
        with pytest.raises(TooManyFailuresError, match="2 of 3"):
            chips(tmp_path, places, tmp_path / "s.tif", bands=["a"], resolution=30, size=16,
                  max_failed=0.5, ledger=ledger)  # fmt: skip
        assert len(ledger.rows) == 2
        assert open_cube(tmp_path / "cube.zarr").sizes["neighborhood"] == 3
    with pytest.raises(TooManyFailuresError):
        chips(tmp_path / "all", places_at(FAR), tmp_path / "s.tif", bands=["a"], resolution=30,
              size=16, max_failed=1.0)  # fmt: skip


def test_truncated_scene_fails_only_where_it_is_cut(tmp_path):
    whole = ramp(tmp_path / "in/whole.tif", at=HERE, value=7)
    cut = ramp(tmp_path / "in/cut.tif", at=NEAR, size=512, driver="COG", blocksize=128,
               overviews="NONE")  # fmt: skip
    scenes = scan(tmp_path / "in", time="2010")
    truncate(cut, 0.5)
    top, bottom = (32.60, 0.33 + 0.05), (32.60, 0.33 - 0.05)
    ledger = FailureLedger()
    cube = build_cube(places_at(HERE, top, bottom), scenes, bands=["a", "b"], resolution=30,
                      size=16, out=tmp_path / "c.zarr", ledger=ledger, max_failed=0.5)  # fmt: skip
    codes = cube.status.sel(neighborhood=["n0", "n1", "n2"]).values[:, 0].tolist()
    assert codes == [ChipStatus.OK, ChipStatus.OK, ChipStatus.READ_ERROR]
    assert (str(cut), "read_error") in [(r.subject, r.reason) for r in ledger.rows]
    assert ("n2", "read_error") in [(r.subject, r.reason) for r in ledger.rows]
    assert whole.exists()


def test_scene_that_vanished_or_changed_after_the_scan(tmp_path):
    for name in ("kept", "gone", "swapped"):
        ramp(tmp_path / f"in/{name}.tif", value=5)
    scenes = scan(tmp_path / "in")
    (tmp_path / "in/gone.tif").unlink()
    ramp(tmp_path / "in/swapped.tif", size=64)
    ledger = FailureLedger()
    cube = build_cube(places_at(HERE), scenes, bands=["a"], resolution=30, size=16,
                      out=tmp_path / "c.zarr", ledger=ledger)  # fmt: skip
    assert (cube["image"].values == 5).all()
    assert reasons(ledger) == [("gone.tif", "read_error"), ("swapped.tif", "read_error")]


def test_band_missing_in_one_scene_and_in_all(tmp_path):
    ramp(tmp_path / "in/1.tif", names=("red", "nir"), value=3)
    ramp(tmp_path / "in/2.tif", names=("red", "swir"), value=200)
    ledger = FailureLedger()
    cube = chips(tmp_path, places_at(HERE), tmp_path / "in", bands=["nir", "red"], resolution=30,
                 size=16, ledger=ledger)  # fmt: skip
    assert (cube["image"].values == 3).all()
    assert reasons(ledger) == [("2.tif", "band_missing")]
    with pytest.raises(BandError, match="closest: 'nir'"):
        chips(tmp_path, places_at(HERE), tmp_path / "in", bands=["nirr"], resolution=30, size=16)
    with pytest.raises(BandError, match="No scene has all"):
        chips(tmp_path, places_at(HERE), tmp_path / "in", bands=["nir", "swir"], resolution=30,
              size=16)  # fmt: skip


def test_all_nodata_chip(tmp_path):
    path = ramp(tmp_path / "s.tif", value=0, nodata=0)
    ledger = FailureLedger()
    with pytest.raises(TooManyFailuresError, match="nodata_only"):
        chips(tmp_path, places_at(HERE), path, bands=["a"], resolution=30, size=16, ledger=ledger)
    assert [(r.subject, r.reason) for r in ledger.rows] == [("n0", "nodata_only")]


def test_period_without_a_scene(tmp_path):
    ramp(tmp_path / "s_20100615.tif")
    ledger = FailureLedger()
    cube = chips(tmp_path, places_at(HERE), tmp_path / "s_20100615.tif", bands=["a"], resolution=30,
                 size=16, periods=["2010", "2011"], ledger=ledger)  # fmt: skip
    assert cube.status.values.tolist() == [[ChipStatus.OK, ChipStatus.NO_SOURCE]]
    assert [(r.reason, r.period) for r in ledger.rows] == [("no_source", "2011")]


def test_undated_scenes_and_bad_requests(tmp_path):
    path = ramp(tmp_path / "undated.tif")
    ask = {"bands": ["a"], "resolution": 30, "size": 16}
    with pytest.raises(SceneError, match=r"have no date: 'undated\.tif'"):
        chips(tmp_path, places_at(HERE), path, periods=["2010"], **ask)
    for wrong in ({"periods": ["June"]}, {"periods": ["2011/2010"]}, {"periods": ["2010", "2010"]},
                  {"periods": []}, {"size": 0}, {"resolution": 0}, {"resolution": float("nan")},
                  {"size": None}, {"max_failed": 2.0}):  # fmt: skip
        with pytest.raises(IngestError):
            chips(tmp_path, places_at(HERE), path, **{**ask, **wrong})
    for bands in ([], ["a", "a"]):
        with pytest.raises(BandError):
            chips(tmp_path, places_at(HERE), path, **{**ask, "bands": bands})
    with pytest.raises(CRSError):
        chips(tmp_path, places_at(HERE), path, crs="EPSG:0", **ask)


def test_a_folder_that_is_no_cube_is_not_deleted(tmp_path):
    (tmp_path / "cube.zarr").mkdir()
    (tmp_path / "cube.zarr" / "thesis.txt").write_text("years of work")
    path = ramp(tmp_path / "s.tif")
    with pytest.raises(CubeError, match="is not a cube"):
        chips(tmp_path, places_at(HERE), path, bands=["a"], resolution=30, size=16)
    assert (tmp_path / "cube.zarr" / "thesis.txt").exists()
    with pytest.raises(CubeError, match="no finished cube"):
        open_cube(tmp_path / "cube.zarr")


# Interrupted builds

BUILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from ingest_helpers import places_at
from eocausal.ingest.cube import build_cube
from eocausal.ingest.schedule import Threads
from eocausal.ingest.sources import scan
import numpy as np

rng = np.random.default_rng(0)
points = [tuple(p) for p in np.array([32.58, 0.32]) + rng.uniform(-0.02, 0.02, (150, 2))]
pause = float(sys.argv[2])
build_cube(
    places_at(*points), scan({scenes!r}), bands=["x", "y"], resolution=30.0, size=24,
    out=Path(sys.argv[1]), scheduler=Threads(int(sys.argv[3])),
    progress=lambda p: (print(p.done, flush=True), time.sleep(pause)),
)
"""


def start(tmp_path: Path, out: str, pause: float, workers: int) -> subprocess.Popen[str]:
    code = textwrap.dedent(BUILD).format(
        tests=str(Path(__file__).parents[1]), scenes=str(tmp_path / "in")
    )
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path / out), str(pause), str(workers)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_killed_build_resumes_to_the_same_bytes(tmp_path):
    transform = centred(UTM, *HERE, 30.0, 400, 400)
    for k in range(3):
        moved = transform @ Affine.translation(60 * k, 0)
        write_coordinates(tmp_path / f"in/{k}.tif", UTM, moved, 400, 400, compress="deflate")
    for out, workers in (("one.zarr", 1), ("four.zarr", 4)):
        process = start(tmp_path, out, 0.0, workers)
        process.communicate()
        assert process.returncode == 0
    whole = hash_tree(tmp_path / "one.zarr")
    assert hash_tree(tmp_path / "four.zarr") == whole

    process = start(tmp_path, "killed.zarr", 3.0, 1)
    assert process.stdout is not None
    while (line := process.stdout.readline()) and int(line) < 1:
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = sorted((tmp_path / "killed.zarr.parts/done").iterdir())
    assert 1 <= len(done) < 8
    assert not (tmp_path / "killed.zarr").exists()
    process = start(tmp_path, "killed.zarr", 0.0, 2)
    printed, _ = process.communicate()
    assert process.returncode == 0
    last = any(p.stem == "000007" for p in done)
    assert int(printed.split()[0]) == 19 * len(done) - 2 * last
    assert hash_tree(tmp_path / "killed.zarr") == whole
    assert not (tmp_path / "killed.zarr.parts").exists()


def test_changed_parameters_and_inputs_are_not_reused(tmp_path):
    path = ramp(tmp_path / "in/s.tif", value=3)
    ask = {"bands": ["a"], "resolution": 30, "size": 16}
    first = chips(tmp_path, places_at(HERE), path, **ask).attrs["eocausal_key"]
    stamp = (tmp_path / "cube.zarr/zarr.json").stat().st_mtime_ns
    assert chips(tmp_path, places_at(HERE), path, **ask).attrs["eocausal_key"] == first
    assert (tmp_path / "cube.zarr/zarr.json").stat().st_mtime_ns == stamp
    seen = {first}
    for change in ({"size": 15}, {"resolution": 29}, {"bands": ["b"]}, {"units": "reflectance"},
                   {"crs": "EPSG:3857"}, {"scan": {"nodata": 9}}):  # fmt: skip
        cube = chips(tmp_path, places_at(HERE), path, **{**ask, **change})
        assert cube.attrs["eocausal_key"] not in seen
        seen.add(cube.attrs["eocausal_key"])
    ramp(path, value=4)
    cube = chips(tmp_path, places_at(HERE), path, **ask)
    assert cube.attrs["eocausal_key"] not in seen
    assert (cube["image"].values == 4).all()


def test_parts_of_another_build_are_not_reused(tmp_path):
    """A leftover of a build with other parameters is thrown away."""
    path = ramp(tmp_path / "in/s.tif", value=3)
    parts = tmp_path / "cube.zarr.parts"
    (parts / "done").mkdir(parents=True)
    (parts / "key.json").write_text('"other"')
    (parts / "done/000000.json").write_text("{}")
    cube = chips(tmp_path, places_at(HERE), path, bands=["a"], resolution=30, size=16)
    assert (cube["image"].values == 3).all()


def test_killed_after_the_last_rename(tmp_path, monkeypatch):
    """What is left beside a finished cube is removed, and never stands in for one."""
    path = ramp(tmp_path / "in/s.tif", value=3)
    ask = {"bands": ["a"], "resolution": 30, "size": 16}
    parts = tmp_path / "cube.zarr.parts"
    for cube_is_lost in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(store.Parts, "clear", lambda self: None)
            patch.setattr(store.shutil, "rmtree", lambda *a, **k: None)
            chips(tmp_path, places_at(HERE), path, **ask)
        assert parts.exists()
        if cube_is_lost:
            shutil.rmtree(tmp_path / "cube.zarr")
        cube = chips(tmp_path, places_at(HERE), path, **ask)
        assert (cube["image"].values == 3).all()
        assert not parts.exists()
        shutil.rmtree(tmp_path / "cube.zarr")


def test_a_changed_mask_beside_the_image_is_not_reused(tmp_path):
    path = ramp(tmp_path / "in/s.tif", value=3)
    ask = {"bands": ["a"], "resolution": 30, "size": 16}
    for mask in (255, 0):
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as target:
            target.write_mask(np.full(target.shape, mask, "uint8"))
        if mask:
            assert (chips(tmp_path, places_at(HERE), path, **ask)["image"].values == 3).all()
    with pytest.raises(TooManyFailuresError, match="nodata_only"):
        chips(tmp_path, places_at(HERE), path, **ask)


def test_scenes_with_an_impossible_crs(tmp_path):
    """One bad file is recorded and does not stop the others."""
    ramp(tmp_path / "good.tif")
    pixels = np.ones((1, 99, 99), "uint8")
    metres = Affine(30, 0, 5e5, 0, -30, 2000)
    write_tif(tmp_path / "drawing.tif", pixels, 'LOCAL_CS["x",UNIT["metre",1]]', metres)
    moon = (
        'GEOGCS["Moon",DATUM["Moon",SPHEROID["Moon",1737400,0]],PRIMEM["Meridian",0],'
        'UNIT["degree",0.0174532925199433]]'
    )
    write_tif(tmp_path / "moon.tif", pixels, moon, Affine(0.1, 0, 32, 0, -0.1, 1))
    write_tif(tmp_path / "metres.tif", pixels, "EPSG:4326", metres)
    write_tif(tmp_path / "nothing.tif", pixels, None, Affine.identity())
    ledger = FailureLedger()
    assert [Path(h).name for h in scan(tmp_path, ledger=ledger).href] == ["good.tif"]
    assert sorted(reasons(ledger)) == [
        ("drawing.tif", "wrong_crs"),
        ("metres.tif", "wrong_crs"),
        ("moon.tif", "wrong_crs"),
        ("nothing.tif", "no_georeference"),
    ]
    with pytest.raises(CRSError, match="in degrees"):
        scan(tmp_path / "metres.tif")


def test_a_scene_that_lost_a_band_after_the_scan(tmp_path):
    path = ramp(tmp_path / "in/s.tif")
    scenes = scan(path)
    ramp(path, names=("a",))
    with pytest.raises(TooManyFailuresError, match="read_error"):
        build_cube(places_at(HERE), scenes, bands=["b"], resolution=30, size=8,
                   out=tmp_path / "cube.zarr")  # fmt: skip


def test_places_beyond_their_crs(tmp_path):
    far = gpd.GeoDataFrame(geometry=[shapely.Point(1e13, 1e13)], crs=UTM)
    far.index.name = "neighborhood"
    with pytest.raises(CRSError, match="cannot be placed"):
        chips(tmp_path, far, ramp(tmp_path / "s.tif"), bands=["a"], resolution=30, size=8)


def test_a_broken_parquet_file(tmp_path):
    (tmp_path / "p.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(IngestError, match="cannot be read"):
        read_neighborhoods(tmp_path / "p.parquet")
