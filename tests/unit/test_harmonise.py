"""Harmonisation: numbers of the product guides and of Roy et al., and what must be refused."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from shapely import Point

from eocausal.errors import BandError, MissingColumnError, SceneError
from eocausal.ingest.harmonise import landsat_c2_scale, landsat_to_oli, sentinel2_offset
from eocausal.provenance import FailureLedger

OLD = "S2A_MSIL2A_20211231T104441_N0301_R008_T31UFU_20211231T134506"
NEW = "S2A_MSIL2A_20220301T104441_N0400_R008_T31UFU_20220301T134506"
AGAIN = "S2B_MSIL2A_20190301T104441_N0500_R008_T31UFU_20230301T134506"
ETM = "LE07_L2SP_007066_20100101_20200823_02_T1"
TM = "LT05_L2SP_007066_19900101_20200823_02_T1"
OLI = "LC08_L2SP_007066_20200101_20200823_02_T1"
SIX = ("blue", "green", "red", "nir08", "swir16", "swir22")


def scenes(*rows, **columns) -> gpd.GeoDataFrame:
    """Table of (item, bands, scale, offset, time) rows."""
    table = pd.DataFrame(
        {
            "href": [f"/archive/{r[0]}/{r[1][0]}.tif" for r in rows],
            "item": [r[0] for r in rows],
            "bands": [tuple(r[1]) for r in rows],
            "scales": [(r[2],) * len(r[1]) for r in rows],
            "offsets": [(r[3],) * len(r[1]) for r in rows],
            "time": [pd.Timestamp(r[4]) for r in rows],
            **columns,
        }
    )
    table.index = table.index + 10
    return gpd.GeoDataFrame(table, geometry=[Point(0, 0)] * len(rows), crs="EPSG:4326")


def test_the_offset_follows_the_baseline_in_the_name():
    table = scenes(
        (OLD, ("B04", "SCL"), 1e-4, 0.0, "2021-12-31"),
        (NEW, ("B04", "SCL"), 1e-4, 0.0, "2022-03-01"),
        (AGAIN, ("B04", "B8A"), 1.0, 0.0, "2019-03-01"),
    )
    before = table.copy()
    ledger = FailureLedger()
    got = sentinel2_offset(table, ledger=ledger)
    assert got["offsets"].tolist() == [(0.0, 0.0), (-0.1, 0.0), (-1000.0, -1000.0)]
    assert got["scales"].tolist() == table["scales"].tolist()
    assert got["baseline_source"].tolist() == ["name"] * 3
    assert ledger.rows == []
    pd.testing.assert_frame_equal(table, before)
    assert isinstance(got, gpd.GeoDataFrame)
    assert got.crs == table.crs
    assert got.index.tolist() == [10, 11, 12]


def test_the_same_ground_gives_the_same_reflectance():
    table = scenes(
        (OLD, ("red",), 1e-4, 0.0, "2021-12-31"), (NEW, ("red",), 1e-4, 0.0, "2022-03-01")
    )
    got = sentinel2_offset(table)
    stored = [1234, 2234]
    values = [
        v * s[0] + o[0] for v, s, o in zip(stored, got["scales"], got["offsets"], strict=True)
    ]
    assert values == pytest.approx([0.1234, 0.1234])


def test_it_is_applied_once():
    declared = (NEW, ("red", "scl"), 1e-4, -0.1, "2022-03-01")
    table = scenes(declared, (OLD, ("red", "scl"), 1e-4, 0.0, "2021-12-31"))
    table.at[10, "offsets"] = (-0.1, 0.0)
    once = sentinel2_offset(table)
    assert once["offsets"].tolist() == [(-0.1, 0.0), (0.0, 0.0)]
    twice = sentinel2_offset(once)
    pd.testing.assert_frame_equal(once, twice)


def test_a_column_leads_the_name_and_the_name_leads_the_date():
    plain = "S2A_31UFU_20220301_0_L2A"
    rows = [
        (plain, ("red",), 1e-4, 0.0, "2022-03-01"),
        (plain, ("red",), 1e-4, 0.0, "2022-03-01"),
        (AGAIN, ("red",), 1e-4, 0.0, "2019-03-01"),
        (plain, ("red",), 1e-4, 0.0, "2022-01-25"),
        (plain, ("red",), 1e-4, 0.0, "2022-01-24 23:59:59"),
    ]
    ledger = FailureLedger()
    table = scenes(*rows, baseline=["03.01", "05.09", None, pd.NA, ""])
    got = sentinel2_offset(table, ledger=ledger)
    assert [o[0] for o in got["offsets"]] == [0.0, -0.1, -0.1, -0.1, 0.0]
    assert got["baseline_source"].tolist() == ["column", "column", "name", "date", "date"]
    assert [r.reason for r in ledger.rows] == ["baseline_from_date"] * 2
    assert ledger.rows[0].subject == table["href"].iloc[3]
    assert "04.00" in ledger.rows[0].detail
    assert "03.00" in ledger.rows[1].detail


@pytest.mark.parametrize(
    ("baseline", "shifted"),
    [("04.00", True), ("4.0", True), (5.09, True), ("N0400", True), ("0511", True), ("10.00", True),
     ("02.14", False), ("N0301", False), (3.0, False), ("03.99", False)],
)  # fmt: skip
def test_baselines_as_they_are_written(baseline, shifted):
    table = scenes(("x", ("red",), 1.0, 0.0, "2020-01-01"), platform=["sentinel-2b"])
    table["baseline"] = pd.Series([baseline], index=table.index, dtype=object)
    got = sentinel2_offset(table)
    assert got["offsets"].tolist() == [(-1000.0 if shifted else 0.0,)]
    assert got["baseline_source"].tolist() == ["column"]


def test_an_archive_that_took_the_offset_away_is_believed_and_the_contradiction_noted():
    table = scenes(
        (NEW, ("red", "scl"), 1e-4, -0.1, "2022-03-01"),
        (NEW, ("red",), 1e-4, 0.0, "2022-03-01"),
        (OLD, ("red",), 1e-4, -0.1, "2021-12-31"),
        (NEW, ("red",), 1e-4, -0.1, "2022-03-01"),
        offset_applied=pd.array([True, True, pd.NA, False], dtype="boolean"),
    )
    table.at[10, "offsets"] = (-0.1, 0.0)
    ledger = FailureLedger()
    got = sentinel2_offset(table, ledger=ledger)
    assert got["offsets"].tolist() == [(0.0, 0.0), (0.0,), (0.0,), (-0.1,)]
    assert [r.reason for r in ledger.rows] == ["offset_contradicted"] * 2
    assert [r.subject for r in ledger.rows] == table["href"].iloc[[0, 2]].tolist()


def test_other_sensors_and_hls_are_left_alone():
    table = scenes(
        (NEW, ("B02",), 1e-4, 0.0, "2022-03-01"),
        (ETM, ("red",), 2.75e-5, -0.2, "2022-03-01"),
        ("HLS.S30.T31UFU.2022100T104441.v2.0", ("B04",), 1e-4, 0.0, "2022-04-10"),
        platform=[None, "landsat-7", "sentinel-2a"],
    )
    got = sentinel2_offset(table)
    assert got["offsets"].tolist() == [(-0.1,), (-0.2,), (0.0,)]
    assert got["baseline_source"].tolist() == ["name", "", ""]


def test_every_usual_band_is_sorted_into_reflectance_or_not():
    reflectance = [f"B{i:02d}" for i in range(1, 13)] + [
        "B8A", "B4", "B02_10m", "coastal", "blue", "green", "red", "rededge1", "rededge071", "nir",
        "nir08", "nir09", "swir16", "swir22", "swir1", "SWIR2",
    ]  # fmt: skip
    other = ["SCL", "scl_20m", "AOT", "wvp", "visual", "TCI_10m", "cloud", "snow", "cld", "QA60",
             "MSK_CLDPRB", "cloud_probability", "cloudmask", "mask"]  # fmt: skip
    got = sentinel2_offset(scenes((NEW, reflectance + other, 1.0, 0.0, "2022-03-01")))
    assert got["offsets"].iloc[0] == (-1000.0,) * len(reflectance) + (0.0,) * len(other)


def test_unusual_band_names_must_be_said():
    table = scenes((NEW, ("b1 of 3", "clp"), 1e-4, 0.0, "2022-03-01"))
    with pytest.raises(BandError, match=r"'b1 of 3'.*bands="):
        sentinel2_offset(table)
    got = sentinel2_offset(table, bands=["b1 of 3"])
    assert got["offsets"].tolist() == [(-0.1, 0.0)]
    with pytest.raises(BandError, match="'b9'"):
        sentinel2_offset(table, bands=["b9"])


def test_sentinel2_refusals():
    with pytest.raises(SceneError, match="None of the 1 scenes is known to be Sentinel-2"):
        sentinel2_offset(scenes((ETM, ("red",), 1.0, 0.0, "2020-01-01")))
    with pytest.raises(SceneError, match=r"baseline of .* is not known"):
        sentinel2_offset(scenes(("S2A_x", ("red",), 1.0, 0.0, None)))
    with pytest.raises(SceneError, match=r"offset -500, neither 0 nor -1000 DN"):
        sentinel2_offset(scenes((NEW, ("red",), 1.0, -500.0, "2022-03-01")))
    with pytest.raises(MissingColumnError, match="offsets"):
        sentinel2_offset(scenes((NEW, ("red",), 1.0, 0.0, None)).drop(columns="offsets"))


def test_pixels_that_were_scaled_before_are_refused():
    for item, change in ((NEW, sentinel2_offset), (OLI, landsat_c2_scale)):
        row = (item, ("red",), 1.0, 0.0, "2022-03-01")
        with pytest.raises(SceneError, match="are float32"):
            change(scenes(row, dtype=["float32"]))
        assert len(change(scenes(row, dtype=["uint16"]))) == 1


def test_collection_2_gets_the_scale_of_its_guide():
    table = scenes(
        (OLI, ("SR_B4", "QA_PIXEL"), 1.0, 0.0, "2020-01-01"),
        ("LC09_L2SR_007066_20220101_02_T1", ("red", "qa_aerosol"), 1.0, 0.0, "2022-01-01"),
        (TM, ("ST_B6", "ST_QA"), 1.0, 0.0, "1990-01-01"),
        (NEW, ("B04",), 1e-4, 0.0, "2022-03-01"),
        ("LC08_L1TP_007066_20200101_20200823_02_T1", ("b4",), 1.0, 0.0, "2020-01-01"),
    )
    got = landsat_c2_scale(table)
    assert got["scales"].tolist() == [
        (2.75e-5, 1.0), (2.75e-5, 1.0), (0.00341802, 1.0), (1e-4,), (1.0,)
    ]  # fmt: skip
    assert got["offsets"].tolist() == [(-0.2, 0.0), (-0.2, 0.0), (149.0, 0.0), (0.0,), (0.0,)]
    pd.testing.assert_frame_equal(landsat_c2_scale(got), got)
    # Valid range of the guide: 7273..43636 is reflectance 0..1; 293..61440 is 150..359 K.
    assert np.array([7273, 43636]) * 2.75e-5 - 0.2 == pytest.approx([0, 1], abs=1e-4)


def test_collection_2_refusals():
    with pytest.raises(SceneError, match="Collection 2 Level-2"):
        landsat_c2_scale(scenes((NEW, ("red",), 1.0, 0.0, "2022-03-01")))
    with pytest.raises(SceneError, match=r"scale 0.0001 and offset 0, not the guide's"):
        landsat_c2_scale(scenes((OLI, ("red",), 1e-4, 0.0, "2020-01-01")))
    with pytest.raises(BandError, match=r"'b1'.*bands="):
        landsat_c2_scale(scenes((OLI, ("b1",), 1.0, 0.0, "2020-01-01")))
    got = landsat_c2_scale(scenes((OLI, ("b1",), 1.0, 0.0, "2020-01-01")), bands={"b1": "red"})
    assert got["scales"].tolist() == [(2.75e-5,)]


ROY = {  # Roy et al. (2016), Table 2, surface reflectance, OLI on ETM+ by ordinary least squares
    "blue": (0.0003, 0.8474), "green": (0.0088, 0.8483), "red": (0.0061, 0.9047),
    "nir08": (0.0412, 0.8462), "swir16": (0.0254, 0.8937), "swir22": (0.0172, 0.9071),
}  # fmt: skip


@pytest.mark.parametrize(("scale", "offset"), [(2.75e-5, -0.2), (1e-4, 0.0)])
def test_etm_and_tm_become_oli(scale, offset):
    table = scenes(
        (ETM, SIX, scale, offset, "2010-01-01"),
        (TM, (*SIX, "qa_pixel"), scale, offset, "1990-01-01"),
        (OLI, SIX, scale, offset, "2020-01-01"),
    )
    got = landsat_to_oli(table)
    stored = 12_345.0
    for row in (0, 1):
        for band, (intercept, slope) in ROY.items():
            at = SIX.index(band)
            value = stored * got["scales"].iloc[row][at] + got["offsets"].iloc[row][at]
            assert value == pytest.approx(intercept + slope * (stored * scale + offset), rel=1e-12)
    assert (got["scales"].iloc[1][-1], got["offsets"].iloc[1][-1]) == (scale, offset)
    assert got["scales"].iloc[2] == (scale,) * 6
    assert got["harmonised"].tolist() == ["OLI", "OLI", ""]
    pd.testing.assert_frame_equal(landsat_to_oli(got), got)
    if scale == 2.75e-5:
        pd.testing.assert_frame_equal(landsat_c2_scale(got), got)


def test_numbered_bands_mean_other_things_on_tm_and_oli():
    names = ("SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B7")
    by_number = landsat_to_oli(scenes((TM, names, 2.75e-5, -0.2, "1990-01-01")))
    by_name = landsat_to_oli(scenes((TM, SIX, 2.75e-5, -0.2, "1990-01-01")))
    assert by_number["scales"].tolist() == by_name["scales"].tolist()
    assert by_number["offsets"].tolist() == by_name["offsets"].tolist()


def test_the_satellite_is_known_by_its_platform_too():
    rows = [("a", ("red",), 1e-4, 0.0, "2005-01-01")] * 4
    table = scenes(*rows, platform=["landsat-5", "LANDSAT_7", "Landsat 8", "landsat-9"])
    assert landsat_to_oli(table)["harmonised"].tolist() == ["OLI", "OLI", "", ""]


def test_landsat_to_oli_refuses_what_is_not_reflectance():
    with pytest.raises(SceneError, match=r"not surface reflectance.*landsat_c2_scale"):
        landsat_to_oli(scenes((ETM, ("red",), 1.0, 0.0, "2010-01-01")))
    forgotten = landsat_to_oli(scenes((ETM, ("red",), 1e-4, 0.0, "2010-01-01")))
    with pytest.raises(SceneError, match="not surface reflectance"):
        landsat_to_oli(forgotten.drop(columns="harmonised"))
    with pytest.raises(SceneError, match="multispectral scanner"):
        landsat_to_oli(scenes(("LM05_L1TP_x", ("red",), 1e-4, 0.0, "1990-01-01")))
    with pytest.raises(SceneError, match="known to be Landsat"):
        landsat_to_oli(scenes((NEW, ("red",), 1e-4, 0.0, "2022-03-01")))
    with pytest.raises(BandError, match="'layer'"):
        landsat_to_oli(scenes((ETM, ("layer",), 1e-4, 0.0, "2010-01-01")))


def test_thermal_and_coastal_bands_are_not_changed():
    table = scenes((ETM, ("lwir", "red"), 1e-4, 0.0, "2010-01-01"))
    got = landsat_to_oli(table)
    assert got["scales"].tolist() == [(1e-4, 0.9047 * 1e-4)]


@pytest.mark.parametrize("change", [landsat_c2_scale, landsat_to_oli])
@pytest.mark.parametrize("kind", ["Red", "quality"])
def test_what_a_band_is_said_to_be_must_be_known(change, kind):
    """A slip would scale a quality band, or leave a band as it was, without a word."""
    table = scenes((ETM, ["b1"], 1.0, 0.0, "2010-01-01"))
    with pytest.raises(BandError, match=f"'b1' is '{kind}'"):
        change(table, bands={"b1": kind})
