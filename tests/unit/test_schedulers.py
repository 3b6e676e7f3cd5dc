"""Threads, processes and a cluster write the same bytes, also when a worker is killed."""

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from distributed import LocalCluster
from ingest_helpers import centred, places_at, write_tif

from eocausal.errors import IngestError
from eocausal.ingest.cube import build_cube
from eocausal.ingest.masks import Values
from eocausal.ingest.recipe import make_recipe
from eocausal.ingest.schedule import Distributed, Processes, Threads
from eocausal.ingest.sources import scan
from eocausal.ingest.spec import specify
from eocausal.ingest.store import Parts
from eocausal.ingest.work import cut_work, shard_tasks
from eocausal.provenance import hash_tree

HERE = (32.58, 0.32)
UTM = "EPSG:32636"
ASK = {"bands": ["a"], "resolution": 10.0, "size": 48, "periods": ["2001", "2001/2003"]}


def scenes(folder: Path, side: int = 700):
    """Three scenes with a mask of their own, of which one has nodata and one is cut off."""
    for k in range(3):
        rng = np.random.default_rng(k)
        values = rng.integers(1, 60_000, (1, side, side)).astype("uint16")
        values[0, k * 50 : k * 50 + 40] = 0
        grid = centred(UTM, HERE[0] + 0.003 * k, HERE[1], 10.0, side, side)
        tiles = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate"}
        write_tif(folder / f"s{k}_{2001 + k}_a.tif", values, UTM, grid, nodata=0, **tiles)
        mask = rng.choice([0, 1], (1, side, side), p=[0.1, 0.9]).astype("uint8")
        write_tif(folder / f"s{k}_{2001 + k}_m.tif", mask, UTM, grid, **tiles)
    found = scan(folder, item_pattern=r"(?P<item>s\d)_", band_pattern=r"_(?P<band>\w)\.tif")
    cut = folder / "s2_2003_a.tif"
    os.truncate(cut, cut.stat().st_size // 2)
    return found


def places(count: int = 200):
    rng = np.random.default_rng(9)
    return places_at(*(tuple(p) for p in np.array(HERE) + rng.uniform(-0.03, 0.03, (count, 2))))


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(
        n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None,
        host="127.0.0.1", scheduler_port=0,
    ) as one:  # fmt: skip
        yield one


@pytest.mark.slow
def test_every_scheduler_writes_the_same_bytes(tmp_path, cluster):
    table = scenes(tmp_path / "in")
    mask = Values("m", keep=(1,), dilate=1)
    hashes, seen = {}, {}
    for name, scheduler in {
        "one": Threads(1), "four": Threads(4), "processes": Processes(2),
        "cluster": Distributed(cluster.scheduler_address),
    }.items():  # fmt: skip
        tell = seen.setdefault(name, [])
        build_cube(places(), table, out=tmp_path / f"{name}.zarr", scheduler=scheduler, mask=mask,
                   progress=tell.append, **ASK)  # fmt: skip
        hashes[name] = hash_tree(tmp_path / f"{name}.zarr")
    assert len(set(hashes.values())) == 1, hashes
    for steps in seen.values():
        done = [p.done for p in steps]
        assert done == sorted(done)
        assert done[-1] == steps[-1].total == 400


@pytest.mark.slow
def test_a_worker_killed_while_it_writes_changes_no_byte(tmp_path, cluster):
    table = scenes(tmp_path / "in", side=1000)
    ask = {**ASK, "size": 128, "periods": ["2001", "2002", "2003"]}
    build_cube(places(), table, out=tmp_path / "calm.zarr", scheduler=Threads(2), **ask)
    store = tmp_path / "rough.zarr.parts/store"
    pids = {int(w.process.pid) for w in cluster.workers.values()}
    killed = []

    def kill_one() -> None:
        """Kill the process that is named in the first unfinished shard that is seen."""
        end = time.monotonic() + 30
        while not killed and time.monotonic() < end:
            for path in store.rglob("*.tmp"):
                pid = int(path.name.split(".")[-2])
                if pid in pids:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    return
            time.sleep(0.002)

    killer = threading.Thread(target=kill_one)
    killer.start()
    build_cube(places(), table, out=tmp_path / "rough.zarr",
               scheduler=Distributed(cluster.scheduler_address), **ask)  # fmt: skip
    killer.join()
    assert len(killed) == 1
    assert hash_tree(tmp_path / "rough.zarr") == hash_tree(tmp_path / "calm.zarr")
    assert [p.name for p in tmp_path.iterdir() if "rough" in p.name] == ["rough.zarr"]
    assert list((tmp_path / "rough.zarr").rglob("*.tmp")) == []


def test_an_error_on_a_worker_is_told_here_and_the_rest_is_kept(tmp_path, cluster):
    """A shard that cannot be written stops the build; what is made is not made again."""
    table = scenes(tmp_path / "in")
    out = tmp_path / "c.zarr"
    blocked = tmp_path / "c.zarr.parts/store/image/c/3"

    def block() -> None:
        end = time.monotonic() + 30
        while not blocked.parent.parent.is_dir() and time.monotonic() < end:
            time.sleep(0.001)
        blocked.parent.mkdir(exist_ok=True)
        blocked.write_text("in the way")

    blocker = threading.Thread(target=block)
    blocker.start()
    with pytest.raises(OSError, match=r"exists|directory"):
        build_cube(places(), table, out=out, scheduler=Distributed(cluster.scheduler_address),
                   **ASK)  # fmt: skip
    blocker.join()
    assert not out.exists()
    blocked.unlink()
    build_cube(places(), table, out=out, scheduler=Threads(2), **ASK)
    build_cube(places(), table, out=tmp_path / "calm.zarr", scheduler=Threads(1), **ASK)
    assert hash_tree(out) == hash_tree(tmp_path / "calm.zarr")


@pytest.mark.slow
def test_nobody_at_the_address():
    with pytest.raises(IngestError, match="No dask scheduler answers"):
        Distributed("tcp://127.0.0.1:9").pieces  # noqa: B018


def test_workers_in_a_script_without_a_main_guard_say_so(tmp_path):
    """Each worker imports the script anew; the message says what to write."""
    scenes(tmp_path / "in", side=200)
    script = tmp_path / "study.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from ingest_helpers import places_at
        from eocausal.ingest.cube import build_cube
        from eocausal.ingest.schedule import Processes
        from eocausal.ingest.sources import scan
        build_cube(places_at({HERE}), scan({str(tmp_path / "in/s0_2001_a.tif")!r}), bands=["b1"],
                   resolution=10.0, size=16, out={str(tmp_path / "c.zarr")!r},
                   scheduler=Processes(1))
    """)
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True,
                          check=False, timeout=120)  # fmt: skip
    assert done.returncode != 0
    assert "if __name__ == '__main__'" in done.stderr
    assert not (tmp_path / "c.zarr").exists()


def test_pieces_of_work_are_small(tmp_path):
    """2,000 places on 3 looks: what is sent to a worker is a few hundred kilobytes."""
    table = scenes(tmp_path / "in")
    spec = specify(places(2000), table, make_recipe(["a"], masks=Values("m", keep=(1,))), 10.0, 48,
                   ["2001", "2002", "2003"])  # fmt: skip
    parts = Parts(tmp_path / "c.zarr", "key")
    work = cut_work(spec, parts, shard_tasks(spec, 250), 250, pieces=4, threads=1, memory=2**28)
    sizes = [len(pickle.dumps(w)) for w in work]
    assert len(work) == 4
    assert max(sizes) < 500_000
    again = pickle.loads(pickle.dumps(work[0]))
    assert again.tasks == work[0].tasks
    np.testing.assert_array_equal(again.pairs.box, work[0].pairs.box)


def test_a_relative_folder_means_the_one_seen_here(tmp_path, cluster, monkeypatch):
    """The workers of the cluster were started in another folder."""
    table = scenes(tmp_path / "in", side=300)
    monkeypatch.chdir(tmp_path)
    build_cube(places_at(HERE), table, out="near.zarr", bands=["a"], resolution=10.0, size=16,
               scheduler=Distributed(cluster.scheduler_address))  # fmt: skip
    assert (tmp_path / "near.zarr").is_dir()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "near.zarr"]
