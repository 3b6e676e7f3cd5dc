"""Acquisitions whose bands lie in several files, searched and then read from a failing server."""

import numpy as np
import pandas as pd
import pytest
from ingest_helpers import centred, places_at, write_tif
from stac_server import StacServer

from eocausal.contracts import ChipStatus
from eocausal.errors import TooManyFailuresError
from eocausal.ingest.cube import build_cube
from eocausal.ingest.lock import read_lock, write_lock
from eocausal.ingest.masks import SceneClassification
from eocausal.ingest.schedule import Processes, Threads
from eocausal.ingest.stac import search_stac
from eocausal.ingest.zonal import zonal_series
from eocausal.provenance import FailureLedger

UTM = "EPSG:32636"
HERE = (32.58, 0.32)
BANDS = ("red", "nir", "scl")


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served").mkdir()
    with StacServer(tmp_path / "served") as one:
        yield one


def acquisition(server, day: str, seed: int = 0) -> None:
    """Add an item with a file for each band; the classes are twice as coarse."""
    rng = np.random.default_rng(seed)
    files = {}
    for band in BANDS:
        coarse = 2 if band == "scl" else 1
        side, pixel = 512 // coarse, 10.0 * coarse  # larger than what GDAL keeps of a header
        values = (
            np.full((1, side, side), 4) if coarse == 2 else rng.integers(1, 9e3, (1, side, side))
        )
        dtype = "uint8" if coarse == 2 else "uint16"
        path = server.folder / f"{day}_{band}.tif"
        grid = centred(UTM, *HERE, pixel, side, side)
        files[band] = write_tif(path, values.astype(dtype), UTM, grid, nodata=0)
    server.add_item(day, files, when=f"{day}T08:00:00Z")


def search(server, **options):
    return search_stac(server.url, collections="made", bands=BANDS, **options)


def cut(tmp_path, scenes, name="c.zarr", **options):
    return build_cube(
        places_at(HERE), scenes, bands=["red", "nir"], mask=SceneClassification(), resolution=10,
        size=16, out=tmp_path / name, max_failed=1, **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("band", "scheduler"), [*((b, Threads(2)) for b in BANDS), ("scl", Processes(2))]
)
def test_the_file_that_could_not_be_read_is_the_one_named(tmp_path, server, band, scheduler):
    """Not another one of its acquisition."""
    acquisition(server, "2020-06-01")
    acquisition(server, "2020-06-02", seed=1)
    scenes = search(server)
    (server.folder / f"2020-06-02_{band}.tif").unlink()
    ledger = FailureLedger()
    cube = cut(tmp_path, scenes, ledger=ledger, scheduler=scheduler)
    gone = server.href(f"2020-06-02_{band}.tif")
    assert [(r.kind, r.subject, r.reason) for r in ledger.rows] == [("scene", gone, "read_error")]
    assert cube["status"].values.tolist() == [[ChipStatus.OK]]


def test_a_catalog_that_signs_its_addresses_gives_the_cube_of_its_lock(tmp_path, server):
    """A signature is in the table, to read by, and neither in the key, the store nor the ledger."""
    acquisition(server, "2020-06-01")
    acquisition(server, "2020-06-02", seed=1)
    plain = cut(tmp_path, search(server), "plain.zarr")
    for item in server.items:
        for asset in item["assets"].values():
            asset["href"] += "?sig=s3cret&se=2020-06-03"
    server.require_signature("s3cret")
    found = search(server)
    (server.folder / "2020-06-02_nir.tif").unlink()
    ledger = FailureLedger()
    cube = cut(tmp_path, pd.concat([found, found.head(1)]), "signed.zarr", ledger=ledger)
    assert cube.attrs["sources"] == plain.attrs["sources"]
    assert [r.reason for r in ledger.rows] == ["duplicate", "read_error"]
    assert ledger.rows[1].subject == server.href("2020-06-02_nir.tif")
    files = [p.read_bytes() for p in (tmp_path / "signed.zarr").rglob("*") if p.is_file()]
    assert not any(b"s3cret" in content for content in [*files, repr(ledger.rows).encode()])
    write_lock(found, tmp_path / "lock.json")
    keys = {
        cut(tmp_path, scenes, "signed.zarr").attrs["eocausal_key"]
        for scenes in (found, read_lock(tmp_path / "lock.json"))
    }
    assert keys == {plain.attrs["eocausal_key"]}


def test_a_series_keeps_no_signature_either(tmp_path, server):
    acquisition(server, "2020-06-01")
    for asset in server.items[0]["assets"].values():
        asset["href"] += "?sig=s3cret"
    server.require_signature("s3cret")
    found = search(server)
    (server.folder / "2020-06-01_nir.tif").unlink()
    ledger = FailureLedger()
    places = places_at(HERE, size_m=300)
    panel = zonal_series(places, found, bands=["red", "nir"], ledger=ledger, max_failed=1)
    assert np.isfinite(panel["red_mean"].values).all()
    assert [r.subject for r in ledger.rows] == [server.href("2020-06-01_nir.tif")]
    assert "s3cret" not in repr(ledger.rows) + repr(panel.attrs)


def test_a_series_signs_what_it_reads(server):
    acquisition(server, "2020-06-01")
    found, places = search(server), places_at(HERE, size_m=300)
    server.require_signature("now")
    with pytest.raises(TooManyFailuresError):
        zonal_series(places, found, bands=["red"])
    panel = zonal_series(places, found, bands=["red"], sign=lambda href: href + "?sig=now")
    assert np.isfinite(panel["red_mean"].values).all()
    assert (panel["status"] == ChipStatus.OK).all()
