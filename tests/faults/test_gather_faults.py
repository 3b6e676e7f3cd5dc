"""Builds that are broken off, starved or fed broken files: the same bytes, or a stated failure."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from ingest_helpers import centred, chips, places_at, write_tif
from stac_server import StacServer

from eocausal.contracts import ChipStatus
from eocausal.errors import CubeError
from eocausal.ingest.cube import build_cube
from eocausal.ingest.schedule import Threads
from eocausal.ingest.sources import scan
from eocausal.ingest.stac import search_stac
from eocausal.provenance import FailureLedger, hash_tree

UTM = "EPSG:32636"
HERE = (32.58, 0.32)
TESTS = str(Path(__file__).parents[1])
ASK = {"bands": ["a", "b"], "resolution": 10.0, "size": 64}


def scene(path: Path, seed: int = 0, size: int = 1024, value: int = 0, **profile) -> Path:
    """Write noise, or one value in a single band."""
    values = np.random.default_rng(seed).integers(1, 60_000, (2, size, size)).astype("uint16")
    if value:
        values = np.full_like(values, value)
    options = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
    return write_tif(path, values, UTM, centred(UTM, *HERE, 10.0, size, size), names=["a", "b"],
                     nodata=0, **{**options, **profile})  # fmt: skip


def spots(count: int = 300):
    rng = np.random.default_rng(7)
    return places_at(*(tuple(p) for p in np.array(HERE) + rng.uniform(-0.04, 0.04, (count, 2))))


def left_over(folder: Path) -> list[str]:
    """Whatever a build should have cleared away."""
    found = [p for p in folder.rglob("*") if p.suffix in (".tmp", ".lock", ".parts")]
    return sorted(str(p.relative_to(folder)) for p in found)


# A process that is killed, stopped or not alone


BUILD = """
import sys, time
sys.path.insert(0, {tests!r})
sys.path.insert(0, {faults!r})
from pathlib import Path
from test_gather_faults import ASK, spots
from eocausal.ingest.cube import build_cube
from eocausal.ingest.schedule import Threads
from eocausal.ingest.sources import scan

def tell(p):
    print(p.done, flush=True)
    if p.done:
        time.sleep(float(sys.argv[2]))

build_cube(spots(), scan({scenes!r}), out=Path(sys.argv[1]), scheduler=Threads(2), progress=tell,
           **ASK)
"""


#: Python tells its audit hooks of a rename before it happens: the kill is at that very moment
KILLED_BEFORE_A_SHARD_HAS_ITS_NAME = """
import os, signal, sys

def kill(event, args):
    if event == "os.rename" and "/store/" in str(args[0]) and str(args[0]).endswith(".tmp"):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill)
"""


def start(tmp_path: Path, pause: float = 0.0, before: str = "") -> subprocess.Popen[str]:
    code = before + textwrap.dedent(BUILD).format(
        tests=TESTS, faults=str(Path(__file__).parent), scenes=str(tmp_path / "in")
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "made/cube.zarr"), str(pause)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def expected(tmp_path: Path) -> str:
    build_cube(spots(), scan(tmp_path / "in"), out=tmp_path / "whole.zarr", **ASK)
    return hash_tree(tmp_path / "whole.zarr")


def wait_for(condition, process: subprocess.Popen[str], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.002)


def test_killed_in_the_middle_of_a_shard(tmp_path):
    """What the killed process wrote of a shard must not stay in the finished store."""
    for k in range(2):
        scene(tmp_path / f"in/{k}.tif", k)
    store = tmp_path / "made/cube.zarr.parts/store"
    process = start(tmp_path, before=KILLED_BEFORE_A_SHARD_HAS_ITS_NAME)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert any(store.rglob("*.tmp"))
    assert not (tmp_path / "made/cube.zarr").exists()
    again = start(tmp_path)
    assert again.communicate()[1] == ""
    assert hash_tree(tmp_path / "made/cube.zarr") == expected(tmp_path)
    assert left_over(tmp_path / "made") == []


def test_control_c_stops_soon_and_the_rest_is_made_later(tmp_path):
    for k in range(2):
        scene(tmp_path / f"in/{k}.tif", k)
    done = tmp_path / "made/cube.zarr.parts/done"
    process = start(tmp_path)
    wait_for(lambda: done.is_dir() and len(list(done.glob("*.json"))) > 1, process)
    process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - begin < 10
    assert process.returncode != 0
    assert "KeyboardInterrupt" in said
    kept = len(list(done.glob("*.json")))
    assert kept > 1
    assert left_over(tmp_path / "made") == ["cube.zarr.parts"]
    printed = start(tmp_path).communicate()[0].split()
    assert int(printed[0]) > 0
    assert hash_tree(tmp_path / "made/cube.zarr") == expected(tmp_path)
    assert left_over(tmp_path / "made") == []


def test_one_cube_is_built_by_one_process(tmp_path):
    """The second is told at once; a lock left by a killed process holds nobody up."""
    scene(tmp_path / "in/0.tif")
    first = start(tmp_path, pause=60.0)
    assert first.stdout is not None
    while int(first.stdout.readline()) == 0:
        pass
    out = tmp_path / "made/cube.zarr"
    begin = time.monotonic()
    with pytest.raises(CubeError, match="being built by another process"):
        build_cube(spots(), scan(tmp_path / "in"), out=out, **ASK)
    assert time.monotonic() - begin < 5
    first.kill()
    first.communicate()
    assert out.with_name("cube.zarr.lock").exists()
    build_cube(spots(), scan(tmp_path / "in"), out=out, **ASK)
    assert hash_tree(out) == expected(tmp_path)
    assert left_over(tmp_path / "made") == []


@pytest.mark.parametrize("threads", [1, 3])
def test_a_disk_that_is_full(tmp_path, threads):
    """A limit on the size of files acts as a full disk does: writing fails midway."""
    scene(tmp_path / "in/0.tif")
    out = tmp_path / "made/cube.zarr"
    scenes, places = scan(tmp_path / "in"), spots()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            build_cube(places, scenes, out=out, scheduler=Threads(threads), **ASK)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not out.exists()
    assert left_over(tmp_path / "made") == ["cube.zarr.parts"]
    build_cube(places, scenes, out=out, scheduler=Threads(threads), **ASK)
    assert hash_tree(out) == expected(tmp_path)
    assert left_over(tmp_path / "made") == []


def test_a_small_file_system_that_is_full(tmp_path):
    """The same on a real file system of 4 MB, where mounting one is allowed."""
    scene(tmp_path / "in/0.tif")
    (tmp_path / "made").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path / "made")]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not allowed here; the limit on file sizes stands in")
    try:
        out = tmp_path / "made/cube.zarr"
        with pytest.raises(OSError, match="No space left"):
            build_cube(spots(), scan(tmp_path / "in"), out=out, **ASK)
        assert not out.exists()
        assert left_over(tmp_path / "made") == ["cube.zarr.parts"]
        subprocess.run(["mount", "-o", "remount,size=64m", str(tmp_path / "made")], check=True)
        build_cube(spots(), scan(tmp_path / "in"), out=out, **ASK)
        assert hash_tree(out) == expected(tmp_path)
    finally:
        subprocess.run(["umount", str(tmp_path / "made")], check=True)


@pytest.mark.parametrize("at", ["empty folder", "empty note", "no store", "half removed"])
def test_killed_while_the_parts_are_made_or_removed(tmp_path, at):
    """Every state of the folder between two steps can be gone on from."""
    path = scene(tmp_path / "in/0.tif", size=256)
    parts = tmp_path / "cube.zarr.parts"
    parts.mkdir()
    if at != "empty folder":
        (parts / "key.json").write_text("" if at == "empty note" else '"another"')
    if at == "half removed":
        (parts / "done").mkdir()
        (parts / "done/000000.json").write_text("{")
    cube = chips(tmp_path, places_at(HERE), path, **ASK)
    assert (cube["status"].values == ChipStatus.OK).all()
    assert left_over(tmp_path) == []


# Files whose bytes are wrong


def flip(path: Path, row: int, col: int) -> None:
    """Invert a byte in the middle of a stored block."""
    with rasterio.open(path) as source:
        at = int(source.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=1))
        size = int(source.get_tag_item(f"BLOCK_SIZE_{col}_{row}", "TIFF", bidx=1))
    with path.open("r+b") as file:
        file.seek(at + size // 2)
        byte = file.read(1)[0]
        file.seek(at + size // 2)
        file.write(bytes([byte ^ 0xFF]))


def one_a_block(tmp_path: Path, path: Path, ledger: FailureLedger):
    """A chip in the middle of each of the four blocks of a scene of 512 pixels."""
    grid = centred(UTM, *HERE, 10.0, 512, 512)
    from eocausal.ingest.grid import project

    corners = [grid @ (c, r) for r in (128, 384) for c in (128, 384)]
    points = [tuple(float(v) for v in project(UTM, "EPSG:4326", *c)) for c in corners]
    return chips(tmp_path, places_at(*points), path, ledger=ledger, **ASK)


@pytest.mark.parametrize("compress", ["deflate", "none"])
def test_a_flipped_byte(tmp_path, compress):
    """Deflate carries a checksum, so a broken block is known, and it alone is lost.

    Without compression (and with zstd as GDAL writes it) nothing in the file tells of it: the
    pixels are wrong, and only a checksum from elsewhere could say so.
    """
    path = scene(tmp_path / "s.tif", size=512, compress=compress)
    good = one_a_block(tmp_path / "good", path, FailureLedger())
    flip(path, 1, 0)
    ledger = FailureLedger()
    bad = one_a_block(tmp_path / "bad", path, ledger)
    others = [0, 1, 3]
    np.testing.assert_array_equal(bad["image"].values[others], good["image"].values[others])
    assert (bad["status"].values[others] == ChipStatus.OK).all()
    if compress == "deflate":
        assert bad["status"].values[2, 0] == ChipStatus.READ_ERROR
        assert np.isnan(bad["image"].values[2]).all()
        found = {(r.kind, r.reason): r for r in ledger.rows}
        assert found["scene", "read_error"].subject == str(path)
        assert "1 chips" in found["scene", "read_error"].detail
        assert found["chip", "read_error"].subject == "n2"
    else:
        assert bad["status"].values[2, 0] == ChipStatus.OK
        assert ledger.rows == []


def test_a_flipped_byte_of_zstd_changes_no_other_block(tmp_path):
    """It is either found by the decoder or not; the rest of the scene is what it was."""
    path = scene(tmp_path / "s.tif", size=512, compress="zstd")
    good = one_a_block(tmp_path / "good", path, FailureLedger())
    flip(path, 1, 0)
    ledger = FailureLedger()
    bad = one_a_block(tmp_path / "bad", path, ledger)
    np.testing.assert_array_equal(bad["image"].values[[0, 1, 3]], good["image"].values[[0, 1, 3]])
    lost = bad["status"].values[2, 0] == ChipStatus.READ_ERROR
    assert lost == any(r.reason == "read_error" for r in ledger.rows)


def test_a_cut_file_loses_what_is_cut_off(tmp_path):
    """Blocks before the cut are used, for each period by itself."""
    for year, seed in ((2001, 0), (2002, 1)):
        scene(tmp_path / f"in/s_{year}.tif", seed, size=512, driver="COG", blocksize=256,
              overviews="NONE", tiled=None, blockxsize=None, blockysize=None)  # fmt: skip
    cut = tmp_path / "in/s_2002.tif"
    scenes = scan(tmp_path / "in")
    with rasterio.open(cut) as source:
        at = int(source.get_tag_item("BLOCK_OFFSET_0_1", "TIFF", bidx=1))
    os.truncate(cut, at + 100)
    grid = centred(UTM, *HERE, 10.0, 512, 512)
    from eocausal.ingest.grid import project

    points = [
        tuple(float(v) for v in project(UTM, "EPSG:4326", *(grid @ (256, r)))) for r in (128, 384)
    ]
    ledger = FailureLedger()
    cube = build_cube(places_at(*points), scenes, out=tmp_path / "c.zarr", ledger=ledger,
                      periods=["2001", "2002"], max_failed=1.0, **ASK)  # fmt: skip
    cube = cube.sel(neighborhood=["n0", "n1"])
    ok, lost = ChipStatus.OK, ChipStatus.READ_ERROR
    assert cube["status"].values.tolist() == [[ok, ok], [ok, lost]]
    assert [(r.kind, r.period) for r in ledger.rows] == [("scene", ""), ("chip", "2002")]


# Servers


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served").mkdir()
    with StacServer(tmp_path / "served") as one:
        yield one


def test_a_server_that_fails_for_a_while_changes_no_pixel(tmp_path, server):
    places = places_at(HERE, (HERE[0] + 0.01, HERE[1]))
    scenes = {}
    for name in ("calm", "rough", "cut"):
        scene(tmp_path / f"served/{name}.tif", size=512)
        scenes[name] = scan([server.href(f"{name}.tif")])
    server.fail("rough.tif", times=3, method="GET")
    server.cut("cut.tif", times=2, beyond=40_000)
    images = {}
    for name, table in scenes.items():
        cube = build_cube(places, table, out=tmp_path / f"{name}.zarr", **ASK)
        images[name] = cube["image"].values
        assert (cube["status"].values == ChipStatus.OK).all()
    assert all(fault.times == 0 for fault in server.faults)
    np.testing.assert_array_equal(images["rough"], images["calm"])
    np.testing.assert_array_equal(images["cut"], images["calm"])


def test_an_asset_that_is_gone_when_it_is_read(tmp_path, server):
    kept, gone = (scene(tmp_path / f"served/{n}.tif", k, size=256) for k, n in enumerate("kg"))
    scenes = scan([server.href(kept.name), server.href(gone.name)])
    gone.unlink()
    ledger = FailureLedger()
    cube = build_cube(places_at(HERE), scenes, out=tmp_path / "c.zarr", ledger=ledger, **ASK)
    assert cube["status"].values.tolist() == [[ChipStatus.OK]]
    assert cube["looks"].values.tolist() == [[1]]
    assert [(r.subject, r.reason) for r in ledger.rows] == [(server.href("g.tif"), "read_error")]
    assert "404" in ledger.rows[0].detail


def test_a_remote_file_that_was_replaced_is_read_again(tmp_path, server):
    """The address is the same; the ETag that the search noted is not."""
    path = tmp_path / "served/s.tif"

    def build(value):
        scene(path, value=value, size=256)
        os.utime(path, ns=(value, value))
        server.items.clear()
        server.add_item("one", {"a": path})
        found = search_stac(server.url, collections="made", bands=["a"])
        return build_cube(places_at(HERE), found, out=tmp_path / "c.zarr", **{**ASK, "bands": "a"})

    first = build(5)
    assert (first["image"].values == 5).all()
    stamp = (tmp_path / "c.zarr/zarr.json").stat().st_mtime_ns
    assert build(5).attrs["eocausal_key"] == first.attrs["eocausal_key"]
    assert (tmp_path / "c.zarr/zarr.json").stat().st_mtime_ns == stamp
    new = build(6)
    assert new.attrs["eocausal_key"] != first.attrs["eocausal_key"]
    assert (new["image"].values == 6).all()


# Places at the ends of grids


@pytest.mark.parametrize("place", [(179.999, 10.0), (-179.999, -40.0), (20.0, 89.9), (0.0, -89.5)])
def test_blocks_at_the_antimeridian_and_the_poles(tmp_path, place):
    """Small blocks give what one strip gives."""
    values = np.random.default_rng(1).integers(1, 255, (1, 720, 1440)).astype("uint8")
    grid = Affine(0.25, 0, -180, 0, -0.25, 90)
    found = []
    for name, layout in (
        ("tiles", {"tiled": True, "blockxsize": 64, "blockysize": 64}),
        ("strip", {"blockysize": 720}),
    ):
        path = write_tif(tmp_path / f"{name}/s.tif", values, "EPSG:4326", grid, names=["a"],
                         nodata=0, **layout)  # fmt: skip
        cube = chips(tmp_path / name, places_at(place), path, bands=["a"], resolution=20_000.0,
                     size=12)  # fmt: skip
        found.append(cube["image"].values)
    np.testing.assert_array_equal(*found)
    assert np.isfinite(found[0]).mean() > 0.9
