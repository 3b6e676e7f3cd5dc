"""The lock file: the same table again, without a server and without a signature."""

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from affine import Affine
from geopandas.testing import assert_geodataframe_equal
from ingest_helpers import centred, write_tif
from stac_server import StacServer

from eocausal.errors import IngestError, MissingColumnError
from eocausal.ingest.lock import changed_assets, read_lock, unsigned, write_lock
from eocausal.ingest.sources import scan
from eocausal.ingest.stac import search_stac

UTM = "EPSG:32636"


def image(path: Path, *, crs=UTM, transform=None, **kw) -> Path:
    transform = transform or centred(UTM, 32.5, 0.3, 30.0, 20, 10)
    return write_tif(path, np.ones((1, 10, 20), "int16"), crs, transform, **kw)


def same(path: Path, scenes: gpd.GeoDataFrame) -> None:
    """Write, read, and demand the same to the last bit and type."""
    write_lock(scenes, path)
    again = read_lock(path)
    assert_geodataframe_equal(again, scenes, check_like=False)
    for name in scenes.columns.drop("geometry"):
        assert [repr(v) for v in again[name]] == [repr(v) for v in scenes[name]], name
        assert [type(v) for v in again[name]] == [type(v) for v in scenes[name]], name
    assert [g.wkb for g in again.geometry] == [g.wkb for g in scenes.geometry]


@pytest.fixture
def folder(tmp_path):
    """Images that make a table hard to keep: no date, no nodata, other CRS, split footprints."""
    images = tmp_path / "images"
    image(images / "key_1_2020-06-01.tif", nodata=-7)
    image(images / "undated.tif")
    image(images / "west.tif", crs="EPSG:4326", transform=Affine(0.1, 0, 179.0, 0, -0.1, -16.0))
    image(images / "lcc.tif", crs="+proj=lcc +lat_1=1.1 +lat_2=3 +lon_0=32.123456789 +datum=WGS84")
    image(images / "key_2_1999.tif", transform=Affine(1 / 3, 0, 5e5 + 1 / 7, 0, -0.1, 1e6 / 3))
    return images


def test_round_trip_is_exact(tmp_path, folder):
    pattern = r"key_(?P<neighborhood>\d+)"
    same(tmp_path / "a.json", scan(folder, neighborhood_pattern=pattern))
    whole = scan(folder)
    same(tmp_path / "b.json", whole[whole["time"].notna()])
    steps = pd.concat([whole.iloc[:1]] * 3, ignore_index=True)
    steps["step"] = pd.array([0, -1, None], dtype="Int64")
    steps["nodata"] = [np.nan, -np.inf, 1e-300]
    steps["scales"] = [(1e-5, np.nan), (0.1 + 0.2,), (1 / 3,)]
    steps.loc[2, "time"] = pd.NaT
    steps["share"] = np.array([0.1, 1e22, -0.0])
    same(tmp_path / "c.json", steps)
    assert np.signbit(read_lock(tmp_path / "c.json")["share"][2])


def test_a_search_is_repeated_without_it(tmp_path):
    with StacServer(tmp_path) as server:
        paths = {band: image(tmp_path / f"{band}.tif") for band in ("red", "nir")}
        server.add_item("a", paths, fields={"red": {"file:checksum": "1220abcd"}})
        server.require_signature("s3cret")
        scenes = search_stac(
            server.url, collections="made", bands=["red", "nir"], time="2020", sign=server.sign
        )
        asked = server.count()
        same(tmp_path / "lock.json", scenes)
        again = read_lock(tmp_path / "lock.json")
        assert server.count() == asked
        assert again.attrs["query"] == scenes.attrs["query"]
        assert again.attrs["query"]["time"] == "2020"
        assert again["checksum"].tolist() == ["1220abcd", ""]
        assert again["etag"].str.len().gt(5).all()
        assert again["size_bytes"].tolist() == [p.stat().st_size for p in paths.values()]
        assert changed_assets(again, sign=server.sign) == []
        paths["nir"].write_bytes(paths["nir"].read_bytes() + b"more")
        found = changed_assets(again, sign=server.sign)
        assert [(f.subject, f.reason) for f in found] == [(server.href("nir.tif"), "changed")]
    assert "s3cret" not in (tmp_path / "lock.json").read_text()


@pytest.mark.parametrize(
    ("href", "bare"),
    [
        ("https://h/a.tif?sv=2021&se=2024&sr=c&sp=r&sig=ab%2Bc%3D", "https://h/a.tif"),
        (
            "https://h/a.tif?X-Amz-Algorithm=A&X-Amz-Signature=1&version=3",
            "https://h/a.tif?version=3",
        ),
        ("https://h/a.tif?Expires=1&Key-Pair-Id=K&Signature=x", "https://h/a.tif"),
        ("https://user:pass@h:8443/a.tif", "https://h:8443/a.tif"),
        ("/vsicurl/https://h/a.tif?access_token=x", "/vsicurl/https://h/a.tif"),
        ("https://h/a%20b.tif?sp=1&x=a+b", "https://h/a%20b.tif?sp=1&x=a+b"),
        ("s3://bucket/a.tif", "s3://bucket/a.tif"),
    ],
)
def test_signatures_are_taken_out(tmp_path, href, bare):
    assert unsigned(href) == bare
    scenes = scan(image(tmp_path / "a.tif"))
    scenes["href"] = scenes["item"] = href
    query = {"catalog": href, "token": "abc", "headers": {"Authorization": "Bearer abc"}}
    write_lock(scenes, tmp_path / "lock.json", query)
    again = read_lock(tmp_path / "lock.json")
    assert again["href"].tolist() == again["item"].tolist() == [bare]
    assert again.attrs["query"] == {"catalog": bare, "headers": {}}


def test_damage_is_refused(tmp_path, folder):
    lock = tmp_path / "lock.json"
    write_lock(scan(folder), lock)
    text = lock.read_text()
    assert read_lock(lock).shape[0] == 5
    changed = json.loads(text)
    changed["scenes"][0]["nodata"] = 0
    cases = {
        "There is no such file": None,
        "cannot be read": text[: len(text) // 2],
        "not written by write_lock": "[]",
        "checksum does not fit": json.dumps(changed),
        "format is 9": text.replace('"eocausal_lock": 1', '"eocausal_lock": 9'),
    }
    for cause, content in cases.items():
        lock.unlink(missing_ok=True)
        if content is not None:
            lock.write_text(content)
        with pytest.raises(IngestError, match=cause) as caught:
            read_lock(lock)
        assert "search again" in caught.value.next_step
    with pytest.raises(MissingColumnError):
        write_lock(scan(folder).drop(columns="href"), lock)


def test_a_person_can_read_it(tmp_path, folder):
    write_lock(scan(folder), tmp_path / "deep/lock.json", {"time": "2020"})
    lines = (tmp_path / "deep/lock.json").read_text().splitlines()
    assert sum('"href"' in line and "undated.tif" in line for line in lines) == 1
    assert '"query": {"time": "2020"},' in lines
    assert max(map(len, lines)) < 6000
