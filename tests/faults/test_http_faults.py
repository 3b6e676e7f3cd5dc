"""Images over HTTP when the server fails, hangs up, refuses or has changed its mind."""

import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from ingest_helpers import write_tif
from rasterio.windows import Window
from stac_server import StacServer

from eocausal.errors import SceneError
from eocausal.ingest.remote import (
    RemoteImage,
    Retry,
    environment,
    gdal_path,
    is_remote,
    open_remote,
    probe,
)
from eocausal.ingest.sources import scan
from eocausal.ingest.stac import search_stac
from eocausal.provenance import FailureLedger

UTM = "EPSG:32636"
QUICK = Retry(first_delay=0.05)
LAST = Window(400, 400, 100, 100)
HEADER = 64 * 1024


@pytest.fixture(scope="module")
def values():
    return np.random.default_rng(0).integers(1, 30_000, (1, 512, 512), dtype="uint16")


@pytest.fixture
def server(tmp_path, values):
    where = Affine(10, 0, 500_000, 0, -10, 100_000)
    profile = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate"}
    for name in ("a.tif", "b.tif"):
        write_tif(tmp_path / name, values, UTM, where, **profile)
    with StacServer(tmp_path) as running:
        yield running


def read(source):
    return source.read(1, window=LAST)


def truth(values):
    return values[0, 400:500, 400:500]


def test_gdal_alone_never_asks_again_after_a_503(server):
    """The fact that the retry is built on; if it changes, the retry can be simpler."""
    path = gdal_path(server.href("a.tif"))
    server.fail("a.tif", times=1)
    asked = []
    for _ in range(3):
        with environment(path), pytest.raises(rasterio.errors.RasterioIOError, match="503"):
            rasterio.open(path)
        asked.append(server.count("a.tif"))
    assert asked == [1, 1, 1]


def test_a_503_is_waited_out(server, values):
    server.fail("a.tif", times=2)
    start = time.perf_counter()
    image = RemoteImage(server.href("a.tif"))
    assert time.perf_counter() - start < 5
    np.testing.assert_array_equal(image.run(read), truth(values))
    image.close()
    assert server.count("a.tif", "HEAD") >= 3
    assert all(r.span for r in server.sent("a.tif") if r.method == "GET")


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_errors_of_the_server_are_tried_again_while_reading(server, values, status):
    image = RemoteImage(server.href("a.tif"), retry=QUICK)
    server.fail("a.tif", times=4, status=status)
    np.testing.assert_array_equal(image.run(read), truth(values))
    image.close()


def test_a_connection_cut_within_a_range_is_read_again(server, values):
    image = RemoteImage(server.href("a.tif"), retry=QUICK)
    before = server.count("a.tif")
    server.cut("a.tif", times=1, beyond=HEADER)
    np.testing.assert_array_equal(image.run(read), truth(values))
    image.close()
    spans = [r.span for r in server.sent("a.tif")[before:] if r.span and r.span[0] >= HEADER]
    assert len(spans) >= 2
    assert server.faults[0].times == 0


def test_a_connection_cut_within_the_header_is_read_again(server, values):
    server.cut("a.tif", times=1)
    image = RemoteImage(server.href("a.tif"), retry=QUICK)
    np.testing.assert_array_equal(image.run(read), truth(values))
    image.close()


def test_it_gives_up_in_bounded_time_and_says_why(server):
    server.fail("a.tif", times=1000)
    start = time.perf_counter()
    with pytest.raises(OSError, match=r"503 \(after 4 attempts\)"):
        RemoteImage(server.href("a.tif"), retry=QUICK)
    assert time.perf_counter() - start < 2
    assert Retry().delays() == [0.5, 1.0, 2.0]
    assert sum(Retry(attempts=50, longest=10.0).delays()) <= 10.0
    assert Retry(attempts=1).delays() == []
    server.faults.clear()
    image = RemoteImage(server.href("b.tif"), retry=Retry(first_delay=0.05, longest=0.4))
    server.fail("b.tif", times=1000)
    start = time.perf_counter()
    for _ in range(20):
        with pytest.raises(OSError, match="503"):
            image.run(read)
    assert time.perf_counter() - start < 2


def test_what_was_refused_is_asked_for_again_later(server, values):
    server.fail("a.tif", times=1, status=404)
    with pytest.raises(OSError, match="404"):
        open_remote(server.href("a.tif"))
    assert server.count("a.tif") == 1
    with open_remote(server.href("a.tif")) as source:
        assert source.width == 512


def test_signed_at_reading_and_again_when_it_has_expired(server, values):
    href = server.href("a.tif")
    server.require_signature("first")
    with pytest.raises(OSError, match="403"):
        RemoteImage(href)
    assert server.count("a.tif") == 1
    image = RemoteImage(href, sign=server.sign, retry=QUICK)
    server.require_signature("second")
    np.testing.assert_array_equal(image.run(read), truth(values))
    image.close()
    assert {r.query.get("sig") for r in server.sent("a.tif")} == {None, "first", "second"}


def test_no_signature_in_a_message(server):
    def sign(href):
        return f"{href}?sig=topsecret"

    server.require_signature("other")
    broken = server.folder / "broken.tif"
    broken.write_bytes(b"no image at all")
    ledger = FailureLedger()
    for name in ("a.tif", "broken.tif"):
        with pytest.raises(SceneError) as caught:
            scan(server.href(name), sign=sign, retry=QUICK, ledger=ledger)
        assert "topsecret" not in str(caught.value)
        server.require_signature(None)
    assert [f.reason for f in ledger.rows] == ["read_error"] * 2
    assert "topsecret" not in ledger.to_frame().to_json()


def test_a_missing_file_is_asked_for_once(server):
    ledger = FailureLedger()
    table = scan([server.href("a.tif"), server.href("none.tif")], ledger=ledger)
    assert table["href"].tolist() == [server.href("a.tif")]
    assert [(f.subject, f.reason) for f in ledger.rows] == [(server.href("none.tif"), "read_error")]
    assert "404" in ledger.rows[0].detail
    assert server.count("none.tif") == 1


def test_a_server_that_is_gone(tmp_path):
    with StacServer(tmp_path) as server:
        href = server.href("a.tif")
    with pytest.raises(OSError, match="after 4 attempts"):
        RemoteImage(href, retry=QUICK)
    assert probe(href) == (0, "")
    with pytest.raises(SceneError, match="search at"):
        search_stac(server.url, collections="c", bands=["red"], retry=QUICK)


def test_paths_of_this_machine_pass_through(server, values):
    path = str(server.folder / "a.tif")
    assert gdal_path(path) == path
    assert gdal_path(Path(path).as_uri()) == path
    assert not is_remote(path)
    assert not is_remote(Path(path).as_uri())
    assert is_remote("s3://bucket/a.tif")
    image = RemoteImage(path)
    np.testing.assert_array_equal(image.run(read), truth(values))
    image.close()
    start = time.perf_counter()
    with pytest.raises(rasterio.errors.RasterioIOError):
        RemoteImage(path + "x")
    assert time.perf_counter() - start < 0.4
    assert server.count() == 0


def test_what_the_user_has_set_stays(server, monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "7")
    with environment("https://host/a.tif") as env:
        assert "GDAL_HTTP_TIMEOUT" not in env.options
        assert env.options["GDAL_HTTP_MAX_RETRY"] == "0"


def test_a_search_survives_a_failing_api_and_failing_assets(server):
    for id, name in (("one", "a.tif"), ("two", "b.tif")):
        server.add_item(id, {"red": server.folder / name})
    server.fail("/stac", times=1)
    server.fail("/search", times=2)
    server.fail("a.tif", times=2)
    server.fail("b.tif", times=1000, status=404)
    ledger = FailureLedger()
    start = time.perf_counter()
    table = search_stac(server.url, collections="made", bands=["red"], ledger=ledger)
    assert time.perf_counter() - start < 10
    assert table["item"].tolist() == ["one"]
    assert [(f.subject, f.reason) for f in ledger.rows] == [(server.href("b.tif"), "read_error")]
    assert server.count("/search") == 3


def test_size_and_etag(server):
    href = server.href("a.tif")
    size, etag = probe(href)
    assert size == (server.folder / "a.tif").stat().st_size
    assert etag.startswith('"')
    assert [r.span for r in server.sent("a.tif")] == [(0, 0)]
    assert probe(str(server.folder / "a.tif")) == probe(server.href("none")) == (0, "")


def test_an_api_that_asks_for_an_hour_is_not_given_it(server):
    server.add_item("one", {"red": server.folder / "a.tif"})
    server.fail("/search", times=1, retry_after=3600)
    start = time.perf_counter()
    retry = Retry(first_delay=0.05, longest=0.5)
    assert len(search_stac(server.url, collections="made", bands=["red"], retry=retry)) == 1
    assert 0.4 < time.perf_counter() - start < 5
