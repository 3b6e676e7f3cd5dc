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
from eocausal.ingest.sources import scan
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
    row = scan(path).iloc[0]
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
