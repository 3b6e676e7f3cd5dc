"""The table of scenes: what headers, names, tags and sidecars say."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from ingest_helpers import centred, write_tif

from eocausal.errors import BandError, IngestError
from eocausal.ingest.headers import read_headers
from eocausal.ingest.sources import SCENE_COLUMNS, list_images, scan
from eocausal.ingest.times import date_in_name, parse_period, read_date
from eocausal.provenance import FailureLedger

UTM = "EPSG:32636"


def scene(path: Path, *, bands=2, names=None, crs=UTM, transform=None, **kw) -> Path:
    transform = transform or centred(UTM, 32.5, 0.3, 30.0, 20, 10)
    return write_tif(path, np.ones((bands, 10, 20), "int16"), crs, transform, names=names, **kw)


def test_columns_come_from_the_header(tmp_path):
    path = scene(tmp_path / "s.tif", names=["red", "nir"], nodata=-7)
    row = scan(path).iloc[0]
    assert row.href == str(path)
    assert row.bands == ("red", "nir")
    assert (row["count"], row["dtype"], row.nodata) == (2, "int16", -7.0)
    assert (row.scales, row.offsets) == ((1.0, 1.0), (0.0, 0.0))
    assert (row.scene_crs, row.width, row.height, row.resolution) == (UTM, 20, 10, 30.0)
    assert row["transform"][0] == 30.0
    assert row.size_bytes == path.stat().st_size
    assert row["time"] is pd.NaT
    assert row.geometry.centroid.x == pytest.approx(32.5, abs=1e-6)


def test_folder_list_glob_and_file_give_the_same(tmp_path):
    for name in ("a.tif", "deep/b.TIF", "deep/c.tiff"):
        scene(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no scene")
    whole = scan(tmp_path).href.tolist()
    assert [Path(h).name for h in whole] == ["a.tif", "b.TIF", "c.tiff"]
    assert scan([tmp_path / "deep", tmp_path / "a.tif"]).href.tolist() == whole
    assert scan(str(tmp_path / "**/*.[tT]*[fF]")).href.tolist() == whole
    assert scan([tmp_path, tmp_path]).href.tolist() == whole


def test_band_names(tmp_path):
    scene(tmp_path / "s.tif")
    assert scan(tmp_path).bands[0] == ("b1", "b2")
    assert scan(tmp_path, bands=["x", "y"]).bands[0] == ("x", "y")
    scene(tmp_path / "twice.tif", names=["red", "red"])
    assert scan(tmp_path / "twice.tif").bands[0] == ("b1", "b2")
    scene(tmp_path / "three.tif", bands=3)
    ledger = FailureLedger()
    assert len(scan(tmp_path, bands=["x", "y"], ledger=ledger)) == 2
    assert [r.reason for r in ledger.rows] == ["band_count"]
    with pytest.raises(BandError):
        scan(tmp_path, bands=["x"])


def day(span):
    return None if span is None else tuple(t.strftime("%Y-%m-%d") for t in span)


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("1985.tif", "1985-01-01", "1985-12-31"),
        ("bluemarble_2004_africa.tif", "2004-01-01", "2004-12-31"),
        ("LC08_L2SP_171060_20200115_20200823_02_T1.tif", "2020-01-15", "2020-01-15"),
        ("S2A_MSIL2A_20160229T081022.tif", "2016-02-29", "2016-02-29"),
        ("MOD13Q1.A2015177.h21v08.tif", "2015-06-26", "2015-06-26"),
        ("kd490-2015-06.tif", "2015-06-01", "2015-06-30"),
        ("kd490_201506.tif", "2015-06-01", "2015-06-30"),
        ("bremen_sea_ice_conc_2022_9_9.tif", "2022-09-09", "2022-09-09"),
        ("gpm_1d.20240617.tif", "2024-06-17", "2024-06-17"),
        ("scene_20201341.tif", None, None),
        ("key_041.tif", None, None),
        ("nz_habitat_anticross_4326_1deg.tif", None, None),
    ],
)
def test_dates_in_names(name, first, last):
    found = day(date_in_name(Path(name).stem))
    assert found == (None if first is None else (first, last))


def test_a_pattern_of_ones_own(tmp_path):
    scene(tmp_path / "x15d03m1999.tif")
    times = scan(tmp_path, time_pattern=r"x(?P<day>\d+)d(?P<month>\d+)m(?P<year>\d{4})")
    assert times["time"].tolist() == [pd.Timestamp("1999-03-15")]
    assert times["time_source"].tolist() == ["time_pattern"]
    for wrong in (r"(\d{4})", r"(?P<year>["):
        with pytest.raises(IngestError, match="time_pattern"):
            scan(tmp_path, time_pattern=wrong)


def test_where_a_date_comes_from(tmp_path):
    path = scene(tmp_path / "s_2001.tif")
    assert scan(path)[["time_source"]].iloc[0, 0] == "name"
    scene(path, tags={"TIFFTAG_DATETIME": "2002:03:04 05:06:07"})
    assert scan(path)["time_source"].tolist() == ["name"]
    undated = scene(tmp_path / "x.tif", tags={"TIFFTAG_DATETIME": "2002:03:04 05:06:07"})
    row = scan(undated).iloc[0]
    assert (row["time"], row.time_source) == (
        pd.Timestamp("2002-03-04 05:06:07"),
        "TIFFTAG_DATETIME",
    )
    scene(path, tags={"ACQUISITION_DATE": "2003-05-06", "TIFFTAG_DATETIME": "2009:01:01 00:00:00"})
    assert scan(path)["time"].iloc[0] == pd.Timestamp("2003-05-06")
    path.with_suffix(".json").write_text("[broken")
    assert scan(path)["time"].iloc[0] == pd.Timestamp("2003-05-06")
    sidecar = {"properties": {"datetime": "2004-07-08T23:30:00-02:00"}}
    path.with_suffix(".json").write_text(json.dumps(sidecar))
    row = scan(path).iloc[0]
    assert (row["time"], row.time_source) == (pd.Timestamp("2004-07-09 01:30:00"), "sidecar")
    row = scan(path, time="2005-06").iloc[0]
    assert (row["time"], row.time_source) == (pd.Timestamp("2005-06-01"), "argument")
    assert row.time_end.strftime("%Y-%m-%d") == "2005-06-30"


def test_read_date_refuses_what_is_none():
    for text in ("", "None", "0000:00:00 00:00:00", "2020-13-01", "yesterday", "1"):
        assert read_date(text) is None


@pytest.mark.parametrize(
    ("label", "first", "last"),
    [
        ("2010", "2010-01-01", "2010-12-31"),
        ("2012-02", "2012-02-01", "2012-02-29"),
        ("2012-02-03", "2012-02-03", "2012-02-03"),
        ("1999/2001", "1999-01-01", "2001-12-31"),
        ("2010-03/2010-05", "2010-03-01", "2010-05-31"),
        ("2010-03-01 / 2010-05-15", "2010-03-01", "2010-05-15"),
    ],
)
def test_periods(label, first, last):
    assert day(parse_period(label)) == (first, last)


@pytest.mark.parametrize(
    "label", ["", "10", "2010/", "2010/2011/2012", "2010-13", "2011/2010", "x"]
)
def test_labels_that_are_no_period(label):
    with pytest.raises(IngestError):
        parse_period(label)


def test_footprints_on_the_globe(tmp_path):
    cases = {
        "crossing": ("EPSG:4326", Affine(0.1, 0, 179.0, 0, -0.1, -16.0)),
        "0..360": ("EPSG:4326", Affine(18.0, 0, 0.0, 0, -18.0, 90.0)),
        "utm": ("EPSG:32660", Affine(10_000, 0, 620_000, 0, -10_000, 7_300_000)),
        "pole": ("EPSG:3031", Affine(10_000, 0, -100_000, 0, -10_000, 50_000)),
    }
    inside = {
        "crossing": [(179.5, -16.5), (-179.5, -16.5)],
        "0..360": [(-10.0, 0.0), (10.0, 0.0), (179.0, 80.0)],
        "utm": [(179.9, 65.4), (-178.0, 65.4)],
        "pole": [(0.0, -90.0), (100.0, -89.9), (-100.0, -89.9)],
    }
    for name, (crs, transform) in cases.items():
        shape = scan(scene(tmp_path / f"{name}.tif", crs=crs, transform=transform)).geometry[0]
        assert shape.is_valid
        assert shape.bounds[0] >= -180
        assert shape.bounds[2] <= 180
        for point in inside[name]:
            assert shape.covers(shapely.Point(point)), (name, point)
        assert not shape.covers(shapely.Point(20.0, 100.0 if name == "0..360" else 40.0))


def test_neighborhood_of_a_file(tmp_path):
    scene(tmp_path / "key_012.tif")
    scene(tmp_path / "all.tif")
    table = scan(tmp_path, neighborhood_pattern=r"key_0*(?P<neighborhood>\d+)")
    owner = dict(zip((Path(h).name for h in table.href), table["neighborhood"], strict=True))
    assert owner["key_012.tif"] == "12"
    assert pd.isna(owner["all.tif"])
    with pytest.raises(IngestError, match="no group named neighborhood"):
        scan(tmp_path, neighborhood_pattern=r"key_(\d+)")


def test_linked_folders_are_searched_and_dead_links_recorded(tmp_path):
    scene(tmp_path / "store/a.tif")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path / "store")
    (folder / "linked/again").symlink_to(folder)
    (folder / "dead.tif").symlink_to(tmp_path / "nowhere.tif")
    ledger = FailureLedger()
    assert scan(folder, ledger=ledger).href.tolist() == [str(folder / "linked/a.tif")]
    assert [(Path(r.subject).name, r.reason) for r in ledger.rows] == [("dead.tif", "read_error")]


def test_band_names_given(tmp_path):
    scene(tmp_path / "s.tif", bands=3)
    with pytest.raises(BandError, match="3 bands, not 1"):
        scan(tmp_path, bands="red")
    with pytest.raises(BandError, match="named twice"):
        scan(tmp_path, bands=["red", "red", "nir"])


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("2010-05-06/2010-06-01", ("2010-05-06", "2010-06-01")),
        ("2010-05-06T10:00:00Z/2010-05-07T11:00:00Z", ("2010-05-06", "2010-05-07")),
        ("2010-06-01/2010-05-06", None),
        ("2010-05-06 before noon", None),
        ("2010-05-06T10:00:00.123456+03:00", ("2010-05-06", "2010-05-06")),
        ("20100506T100000Z", ("2010-05-06", "2010-05-06")),
    ],
)
def test_intervals_and_moments(text, span):
    found = read_date(text)
    assert (found and tuple(t.strftime("%Y-%m-%d") for t in found)) == span


LANDSAT = r"(?P<item>L.+_T\d)_(?P<band>\w+)"


def test_a_file_for_each_band_becomes_looks(tmp_path):
    for day in ("20200115", "20200216"):
        for band in ("SR_B4", "SR_B5", "QA_PIXEL"):
            scene(tmp_path / f"LC08_L2SP_171060_{day}_20200823_02_T1_{band}.TIF", bands=1)
    scene(tmp_path / "dem.tif", bands=1, names=["height"])
    table = scan(
        tmp_path,
        item_pattern=LANDSAT,
        band_pattern=LANDSAT,
        bands={"red": "SR_B4", "nir": "SR_B5"},
    )
    looks = {
        item: (sorted(n for names in rows.bands for n in names), rows["time"].unique().tolist())
        for item, rows in table.groupby("item")
    }
    product = "LC08_L2SP_171060_{}_20200823_02_T1"
    assert looks == {
        product.format("20200115"): (["QA_PIXEL", "nir", "red"], [pd.Timestamp("2020-01-15")]),
        product.format("20200216"): (["QA_PIXEL", "nir", "red"], [pd.Timestamp("2020-02-16")]),
        str(tmp_path / "dem.tif"): (["height"], [pd.NaT]),
    }


def test_names_of_bands_are_given_once(tmp_path):
    scene(tmp_path / "x_B4.tif", bands=1)
    with pytest.raises(BandError, match="both given"):
        scan(tmp_path, bands=["red"], band_pattern=r"_(?P<band>B\d)")
    for option in ("item_pattern", "band_pattern"):
        with pytest.raises(IngestError, match=f"{option}=.* has no group"):
            scan(tmp_path, **{option: r"_(B\d)"})
    scene(tmp_path / "two.tif", bands=2, names=["a", "b"])
    assert scan(tmp_path / "two.tif", band_pattern="(?P<band>two)").bands[0] == ("a", "b")
    assert scan(tmp_path / "two.tif", bands={"red": "a"}).bands[0] == ("red", "b")


def test_pieces_items_and_steps(tmp_path):
    tiled = {"tiled": True, "blockxsize": 32, "blockysize": 16}
    values = np.ones((1, 64, 96), "uint8")
    where = centred(UTM, 32.5, 0.3, 30.0, 96, 64)
    write_tif(tmp_path / "a.tif", values, UTM, where, **tiled)
    write_tif(tmp_path / "b.tif", values, UTM, where, blockysize=8)
    table = scan(tmp_path)
    assert table["block"].tolist() == [(16, 32), (8, 96)]
    assert table["item"].tolist() == table["href"].tolist()
    assert table["step"].isna().all()
    assert str(table["step"].dtype) == "Int64"
    assert list(table.columns) == [*SCENE_COLUMNS, "geometry"]
    assert str(table["time"].dtype) == "datetime64[ns]"


def test_jpeg_2000_is_an_image(tmp_path):
    where = centred(UTM, 32.5, 0.3, 10.0, 64, 64)
    values = np.arange(64 * 64, dtype="uint16").reshape(1, 64, 64)
    path = tmp_path / "T36NYF_20200101T080231_B04_10m.jp2"
    write_tif(path, values, UTM, where, driver="JP2OpenJPEG", quality=100, reversible=True)
    pattern = r"(?P<item>T\d{2}[A-Z]{3}_\d{8}T\d{6})_(?P<band>B..)"
    row = scan(tmp_path, item_pattern=pattern, band_pattern=pattern).iloc[0]
    assert (row["item"], row.bands) == ("T36NYF_20200101T080231", ("B04",))
    assert (row["time"], row.scene_crs) == (pd.Timestamp("2020-01-01"), UTM)


def test_images_are_listed_once_and_sorted(tmp_path):
    for name in ("b.tif", "a.TIFF", "c.jp2", "d.vrt", "notes.txt"):
        (tmp_path / name).write_text("")
    listed = list_images([tmp_path, tmp_path / "b.tif", "https://host/x.tif?v=1"])
    assert [Path(h).name for h in listed] == ["a.TIFF", "b.tif", "c.jp2", "x.tif?v=1"]
    assert list_images(tmp_path / "d.vrt") == [str(tmp_path / "d.vrt")]


def test_many_headers_come_in_order_and_one_broken_file_stops_none(tmp_path):
    hrefs = [str(scene(tmp_path / f"{k:03}.tif", bands=1 + k % 3)) for k in range(40)]
    Path(hrefs[7]).write_bytes(Path(hrefs[7]).read_bytes()[:60])
    found = read_headers(hrefs)
    assert [h.count for h in found[:7] + found[8:]] == [1 + k % 3 for k in range(40) if k != 7]
    assert (found[7].subject, found[7].reason) == (hrefs[7], "read_error")
