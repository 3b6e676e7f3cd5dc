"""STAC searches and catalogs on a real loopback server and on disk."""

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from ingest_helpers import centred, places_at, write_tif
from stac_server import StacServer, make_item

from eocausal.errors import BandError, EmptyInputError, IngestError, SceneError
from eocausal.ingest.catalog import boxes_of_places, merge_boxes, split_box
from eocausal.ingest.stac import read_catalog, search_stac
from eocausal.provenance import FailureLedger

UTM = "EPSG:32636"


@pytest.fixture
def server(tmp_path):
    with StacServer(tmp_path, page=3) as running:
        yield running


def image(path: Path, *, lon=32.5, lat=0.3, crs=UTM, pixel=30.0, bands=1, side=20, **kw) -> Path:
    where = centred(crs, lon, lat, pixel, side, side)
    return write_tif(path, np.ones((bands, side, side), "uint16"), crs, where, **kw)


def two_bands(server, id, *, day="01", lon=32.5, lat=0.3, crs=UTM, **item):
    """An item with red at 10 m and nir at 20 m."""
    folder = server.folder / id
    paths = {
        "red": image(folder / "red.tif", lon=lon, lat=lat, crs=crs, pixel=10.0, side=40),
        "nir": image(folder / "nir.tif", lon=lon, lat=lat, crs=crs, pixel=20.0),
    }
    return server.add_item(id, paths, when=f"2020-06-{day}T10:20:30.123456Z", **item)


def search(server, **options):
    return search_stac(server.url, **{"collections": "made", "bands": ["red", "nir"], **options})


def test_one_row_an_asset_and_items_are_looks(server):
    for day in ("03", "01", "02"):
        two_bands(server, f"i{day}", day=day, properties={"platform": "sentinel-2b"})
    table = search(server)
    assert table["item"].tolist() == ["i01", "i01", "i02", "i02", "i03", "i03"]
    assert table["bands"].tolist() == [("red",), ("nir",)] * 3
    assert table["resolution"].tolist() == [10.0, 20.0] * 3
    assert table["href"][0] == server.href("i01/red.tif")
    assert table["time"][0] == table["time_end"][0] == pd.Timestamp("2020-06-01T10:20:30.123456")
    assert set(table["time_source"]) == {"item"}
    assert set(table["platform"]) == {"sentinel-2b"}
    assert table["step"].isna().all()
    assert (table["size_bytes"] == [Path(server.folder / h.split("assets/")[1]).stat().st_size
                                    for h in table["href"]]).all()  # fmt: skip
    assert table.crs == "EPSG:4326"


def test_pages_are_followed_to_the_end_or_to_max_items(server):
    for k in range(8):
        two_bands(server, f"i{k}", day=f"{k + 1:02}")
    assert search(server)["item"].nunique() == 8
    assert server.count("/search") == 3
    assert search(server, max_items=4)["item"].nunique() == 4


def test_place_time_collection_and_query_are_asked_for(server):
    two_bands(server, "here", properties={"eo:cloud_cover": 10})
    two_bands(server, "cloudy", properties={"eo:cloud_cover": 90})
    two_bands(server, "unknown")
    two_bands(server, "far", lon=33.5, properties={"eo:cloud_cover": 10})
    two_bands(server, "later", day="20", properties={"eo:cloud_cover": 10})
    two_bands(server, "other", collection="other", properties={"eo:cloud_cover": 10})
    options = {"bbox": (32.4, 0.2, 32.6, 0.4), "query": {"eo:cloud_cover": {"lt": 60}}}
    assert set(search(server, time="2020-06-01/2020-06-10", **options)["item"]) == {"here"}
    assert set(search(server, time=["2020-06-20", "2020-06-01"], **options)["item"]) == {
        "here",
        "later",
    }
    both = search(server, collections=["made", "other"], time="2020-06-01", **options)
    assert set(both["item"]) == {"here", "other"}
    assert set(both["collection"]) == {"made", "other"}
    bodies = [r.body for r in server.sent("/search")]
    assert bodies[0]["datetime"] == "2020-06-01T00:00:00Z/2020-06-10T23:59:59Z"
    assert bodies[0]["bbox"] == [32.4, 0.2, 32.6, 0.4]


def test_a_query_holds_where_the_api_ignores_it(server, monkeypatch):
    two_bands(server, "clear", properties={"eo:cloud_cover": 10})
    two_bands(server, "cloudy", properties={"eo:cloud_cover": 90})
    find = server.find
    server.find = lambda asked: find({k: v for k, v in asked.items() if k != "query"})
    monkeypatch.setattr(
        "stac_server.CONFORMANCE",
        ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"],
    )
    assert set(search(server, query={"eo:cloud_cover": {"lte": 10}})["item"]) == {"clear"}
    with pytest.raises(IngestError, match="below"):
        search(server, query={"eo:cloud_cover": {"below": 10}})


def test_bands_by_key_common_name_and_name(server):
    path = image(server.folder / "b04.tif")
    shown = image(server.folder / "tci.tif", bands=3)
    older = image(server.folder / "b08.tif")
    server.add_item(
        "s2",
        {"visual": shown, "B04": path, "nir-asset": older},
        fields={
            "visual": {
                "roles": ["visual"],
                "bands": [{"name": "B04", "eo:common_name": c} for c in ("red", "green", "blue")],
            },
            "B04": {"bands": [{"name": "B04", "eo:common_name": "red"}]},
            "nir-asset": {"eo:bands": [{"name": "B08", "common_name": "nir"}]},
        },
    )
    table = search(server)
    assert dict(zip(table["asset"], table["bands"], strict=True)) == {
        "B04": ("red",),
        "nir-asset": ("nir",),
    }
    table = search(server, bands={"r": "B04", "n": "B08"})
    assert dict(zip(table["asset"], table["bands"], strict=True)) == {
        "B04": ("r",),
        "nir-asset": ("n",),
    }
    with pytest.raises(BandError, match="closest: 'nir'"):
        search(server, bands=["nirr"])
    for wrong in ([], ["red", "red"], {"a": "red", "b": "red"}):
        with pytest.raises(BandError):
            search(server, bands=wrong)


def test_bands_of_one_asset_are_named_by_the_catalog(server):
    path = image(server.folder / "sr.tif", bands=4)
    described = [
        {"name": "SR_B2", "common_name": "blue"},
        {"name": "SR_B5", "common_name": "rededge"},
        {"name": "SR_B6", "common_name": "rededge"},
        {"name": "SR_B4", "common_name": "red"},
    ]
    server.add_item("a", {"sr": path}, fields={"sr": {"eo:bands": described}})
    table = search(server, bands={"r": "red", "blue": "SR_B2"})
    assert table["bands"].tolist() == [("blue", "SR_B5", "SR_B6", "r")]
    assert search(server, bands=["sr"])["bands"][0] == ("blue", "SR_B5", "SR_B6", "red")
    server.items[0]["assets"]["sr"]["eo:bands"] = described[:3]
    ledger = FailureLedger()
    with pytest.raises(SceneError, match="describes 3 bands, the file has 4"):
        search(server, bands=["blue"], ledger=ledger)
    assert [f.reason for f in ledger.rows] == ["band_count"]
    assert search(server, bands=["sr"])["bands"][0] == ("b1", "b2", "b3", "b4")


def test_an_item_without_the_asset_is_recorded_and_the_rest_stays(server):
    two_bands(server, "whole", day="01")
    two_bands(server, "half", day="02")
    del server.items[1]["assets"]["nir"]
    ledger = FailureLedger()
    table = search(server, ledger=ledger)
    assert table["item"].tolist() == ["whole", "whole", "half"]
    assert [(f.subject, f.reason) for f in ledger.rows] == [("half", "asset_missing")]
    assert "nir" in ledger.rows[0].detail


def test_the_file_wins_over_wrong_projection_fields(server):
    item = two_bands(server, "a")
    item["assets"]["red"].update(
        {"proj:code": "EPSG:32637", "proj:shape": [7, 7], "proj:transform": [10, 0, 0, 0, -10, 0]}
    )
    item["assets"]["nir"].update({"proj:code": "EPSG:999999"})
    ledger = FailureLedger()
    table = search(server, ledger=ledger)
    assert set(table["scene_crs"]) == {UTM}
    assert table["width"].tolist() == [40, 20]
    assert [f.reason for f in ledger.rows] == ["stac_mismatch"] * 4
    assert {f.subject for f in ledger.rows} == set(table["href"])
    assert shapely.Point(32.5, 0.3).within(table.geometry[0])


def test_scale_offset_and_nodata_come_from_the_catalog_where_the_file_is_silent(server):
    folder = server.folder
    silent = image(folder / "silent.tif")
    telling = image(folder / "telling.tif", nodata=9)
    import rasterio

    with rasterio.open(telling, "r+") as target:
        target.scales, target.offsets = (0.5,), (2.0,)
    storage = {"raster:bands": [{"scale": 0.0001, "offset": -0.1, "nodata": 0}]}
    newer = {"bands": [{"raster:scale": 0.0001, "raster:offset": -0.1, "nodata": 0}]}
    for id, fields in (("old", storage), ("new", newer)):
        server.add_item(
            id,
            {"red": silent, "nir": telling},
            fields={"red": fields, "nir": fields},
            properties={"s2:processing_baseline": "05.09"},
        )
    table = search(server).set_index(["item", "asset"])
    for id in ("old", "new"):
        row = table.loc[(id, "red")]
        assert (row.scales, row.offsets, row.nodata) == ((0.0001,), (-0.1,), 0.0)
        row = table.loc[(id, "nir")]
        assert (row.scales, row.offsets, row.nodata) == ((0.5,), (2.0,), 9.0)
        assert (row.baseline, row.offset_applied) == ("05.09", False)


def test_an_offset_that_was_applied_is_not_applied_again(server):
    storage = {"raster:bands": [{"scale": 0.0001, "offset": -0.1}]}
    properties = {"earthsearch:boa_offset_applied": True, "s2:processing_baseline": "05.09"}
    path = image(server.folder / "red.tif")
    server.add_item("a", {"red": path}, fields={"red": storage}, properties=properties)
    ledger = FailureLedger()
    row = search(server, bands=["red"], ledger=ledger).iloc[0]
    assert (row.scales, row.offsets, bool(row.offset_applied)) == ((0.0001,), (0.0,), True)
    assert [f.reason for f in ledger.rows] == ["stac_mismatch"]


def test_an_interval_is_kept_whole(server):
    path = image(server.folder / "month.tif")
    server.add_item("m", {"red": path}, when=("2020-06-01T00:00:00Z", "2020-06-30T23:59:59Z"))
    row = search(server, bands="red", time="2020-06-15").iloc[0]
    assert row["time"] == pd.Timestamp("2020-06-01")
    assert row.time_end.floor("s") == pd.Timestamp("2020-06-30 23:59:59")


def test_two_zones_and_places_far_apart(server):
    two_bands(server, "z35", lon=29.9, crs="EPSG:32635")
    two_bands(server, "z36", lon=30.1)
    two_bands(server, "between", lon=60.0, crs="EPSG:32640")
    two_bands(server, "away", lon=100.0, crs="EPSG:32647")
    places = places_at((29.9, 0.3), (30.1, 0.3), (100.0, 0.3), size_m=500)
    table = search(server, neighborhoods=places)
    assert sorted(set(table["item"])) == ["away", "z35", "z36"]
    assert sorted(set(table["scene_crs"])) == ["EPSG:32635", "EPSG:32636", "EPSG:32647"]
    assert all(
        box["bbox"][2] - box["bbox"][0] < 1 for box in (r.body for r in server.sent("search"))
    )


def test_the_antimeridian_is_no_border(server):
    two_bands(server, "west", lon=179.99, lat=-17.0, crs="EPSG:32760")
    two_bands(server, "east", lon=-179.99, lat=-17.0, crs="EPSG:32701")
    two_bands(server, "greenwich", lon=0.0, lat=-17.0, crs="EPSG:32731")
    places = places_at((180.0, -17.0), size_m=5000)
    for where in ({"neighborhoods": places}, {"neighborhoods": places.to_crs("EPSG:3832")},
                  {"bbox": (179.9, -18, -179.9, -16)}):  # fmt: skip
        assert set(search(server, **where)["item"]) == {"west", "east"}, where


def test_boxes():
    assert list(split_box(170, 0, -170, 1)) == [(170, 0, 180, 1), (-180, 0, -170, 1)]
    assert list(split_box(359, 0, 361, 1)) == [(-1, 0, 1, 1)]
    assert list(split_box(0, 0, 360, 1)) == [(-180, 0, 180, 1)]
    rng = np.random.default_rng(0)
    points = gpd.points_from_xy(rng.uniform(-180, 180, 5000), rng.uniform(-60, 70, 5000))
    boxes = boxes_of_places(gpd.GeoDataFrame(geometry=points, crs="EPSG:4326"))
    merged = merge_boxes(boxes)
    assert len(merged) <= 32
    covered = shapely.union_all(shapely.box(*merged.T))
    assert shapely.covers(covered, shapely.box(*boxes.T)).all()


@pytest.mark.parametrize(
    "options",
    [
        {"bbox": (0, 0, 1)},
        {"bbox": (0, 5, 1, 4)},
        {"bbox": (0, 0, 1, float("nan"))},
        {"bbox": (0, 0, 1, 1), "neighborhoods": places_at((0.0, 0.0))},
        {"neighborhoods": places_at((0.0, 0.0)).iloc[:0]},
        {"time": "last summer"},
    ],
)
def test_searches_that_contradict_themselves(server, options):
    with pytest.raises(IngestError):
        search(server, **options)
    assert server.count() == 0


def test_nothing_found_and_no_api(server):
    two_bands(server, "a")
    with pytest.raises(EmptyInputError, match="no item that was asked for"):
        search(server, time="1999")
    with pytest.raises(SceneError, match=r"search at .* failed"):
        search_stac(server.root + "/nothing", collections="made", bands=["red"])


def write_catalog(folder: Path, items: list[dict]) -> Path:
    """A catalog with a collection, whose items have relative hrefs."""
    collection = folder / "coll"
    collection.mkdir(parents=True, exist_ok=True)
    links = []
    for item in items:
        (collection / f"{item['id']}.json").write_text(json.dumps(item))
        links.append({"rel": "item", "href": f"./{item['id']}.json"})
    common = {"stac_version": "1.0.0", "description": "made"}
    up = [{"rel": "root", "href": "../catalog.json"}, {"rel": "parent", "href": "../catalog.json"}]
    (collection / "collection.json").write_text(
        json.dumps({"type": "Collection", "id": "made", **common, "links": [*up, *links]})
    )
    down = [{"rel": "child", "href": "./coll/collection.json"}]
    (folder / "catalog.json").write_text(
        json.dumps({"type": "Catalog", "id": "root", **common, "links": down})
    )
    return folder / "catalog.json"


def made_items(folder: Path) -> list[dict]:
    items = []
    for k in (1, 2, 3):
        path = image(folder / f"coll/i{k}/red.tif", lon=32.5 + k)
        pair = {"red": (f"./i{k}/red.tif", path)}
        items.append(make_item(f"i{k}", pair, when=f"2020-0{k}-05T10:00:00Z", collection="made"))
    return items


def test_a_catalog_on_disk(tmp_path, monkeypatch):
    address = write_catalog(tmp_path / "cat", made_items(tmp_path / "cat"))
    table = read_catalog(address, bands=["red"])
    assert table["item"].tolist() == ["i1", "i2", "i3"]
    assert table["href"].tolist() == [str(tmp_path / f"cat/coll/i{k}/red.tif") for k in (1, 2, 3)]
    assert (table["size_bytes"] > 0).all()
    assert read_catalog(address, bands=["red"], time="2020-02")["item"].tolist() == ["i2"]
    near = read_catalog(address, bands=["red"], bbox=(35.4, 0, 35.6, 1))
    assert near["item"].tolist() == ["i3"]
    monkeypatch.chdir(tmp_path)
    assert read_catalog("cat/coll/i2.json", bands="red")["href"].tolist() == [table["href"][1]]


def test_a_catalog_over_http_and_an_item_collection(server):
    items = made_items(server.folder)
    address = write_catalog(server.folder, items)
    server.fail("catalog.json", times=1)
    table = read_catalog(server.href(address), bands=["red"])
    assert table["href"].tolist() == [server.href(f"coll/i{k}/red.tif") for k in (1, 2, 3)]
    assert server.count("catalog.json") == 2
    collected = server.folder / "coll/all.json"
    collected.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    assert read_catalog(collected, bands=["red"])["item"].tolist() == ["i1", "i2", "i3"]


def test_a_broken_link_is_recorded(tmp_path):
    address = write_catalog(tmp_path, made_items(tmp_path))
    (tmp_path / "coll/i2.json").unlink()
    (tmp_path / "coll/i3.json").write_text('{"type": "Feature"')
    ledger = FailureLedger()
    assert read_catalog(address, bands=["red"], ledger=ledger)["item"].tolist() == ["i1"]
    assert [(Path(f.subject).name, f.reason) for f in ledger.rows] == [
        ("i2.json", "read_error"),
        ("i3.json", "read_error"),
    ]
    with pytest.raises(SceneError, match="cannot be read as a STAC catalog"):
        read_catalog(tmp_path / "none.json", bands=["red"])
    with pytest.raises(SceneError, match="cannot be read as a STAC catalog"):
        read_catalog(tmp_path / "coll/i1/red.tif", bands=["red"])
