"""What results say of themselves, and the files of an effect map."""

import json
import math
from dataclasses import FrozenInstanceError

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
from scipy import stats
from shapely.geometry import Point, box

from eocausal.effect_map import COG_BANDS, EffectMap
from eocausal.effects import EffectEstimate, EffectPath, Influence, Status
from eocausal.errors import CRSError, EstimationError, MissingColumnError
from eocausal.estimators.inference import HC0, HC2, Clustered
from eocausal.provenance import hash_file


def estimate(value=0.5, rule=None, **options):
    rng = np.random.default_rng(1)
    psi = rng.normal(size=100) / 1000
    labels = pd.Index([f"u{i}" for i in range(100)])
    units = pd.DataFrame({"village": np.arange(100) % 10}, index=labels)
    influence = Influence(labels, psi, psi * 1.1, df=98)
    rule = HC2() if rule is None else rule
    return EffectEstimate.of(
        value, influence, estimand="ATE", method="m", units=units, vcov=rule, **options
    )


def test_interval_and_p_value():
    e = estimate()
    assert e.n == 100
    assert e.std_error == pytest.approx(np.linalg.norm(e.influence.hc2))
    t = stats.t.ppf(0.975, 98)
    assert e.ci_low == pytest.approx(0.5 - t * e.std_error)
    assert e.ci_high == pytest.approx(0.5 + t * e.std_error)
    assert e.p_value == pytest.approx(2 * stats.t.sf(0.5 / e.std_error, 98))
    wide = estimate(level=0.99)
    assert wide.ci_high - wide.ci_low > e.ci_high - e.ci_low


def test_record():
    e = estimate(extra={"outcome": "y"}, note="Look.")
    record = e.record()
    wanted = ("estimand", "method", "estimate", "std_error", "ci_low", "ci_high", "p_value", "n")
    assert list(record)[: len(wanted)] == list(wanted)
    assert record["outcome"] == "y"
    assert record["vcov"] == "HC2()"
    json.dumps(record, allow_nan=False)
    assert e.to_frame().shape == (1, len(record))
    assert "Look." in e.summary()
    assert "n=100" in repr(e)
    with pytest.raises(FrozenInstanceError):
        e.estimate = 1.0


def test_few_clusters_warn():
    e = estimate(rule=Clustered("village"))
    assert e.status is Status.WARNED
    assert "Only 10 clusters" in e.note
    assert e.df == 9
    back = e.with_vcov(HC0())
    assert back.status is Status.OK
    assert back.note == ""


def test_status_survives():
    e = estimate(status=Status.EXTRAPOLATED, note="Far away.")
    assert e.with_vcov(HC0()).status is Status.EXTRAPOLATED
    assert "Far away." in e.with_vcov(HC0()).note
    apart = e - estimate()
    assert apart.status is Status.EXTRAPOLATED
    assert apart.note == "Far away."


def test_path():
    rng = np.random.default_rng(0)
    time = pd.date_range("2001-01-01", periods=24, freq="MS")
    base = np.linspace(1, 2, 24)
    post = np.asarray(time >= "2002-01-01")
    observed = base + 0.5 * post
    observed[20] = np.nan
    path = EffectPath(time, observed, base + 0.1 * rng.normal(size=(4000, 24)), post)
    average = path.average()
    assert average["n"] == 11
    assert average["estimate"] == pytest.approx(0.5, abs=0.01)
    assert average["std_error"] == pytest.approx(0.1 / math.sqrt(11), rel=0.1)
    assert average["ci_low"] < 0.5 < average["ci_high"]
    assert average["p_value"] == pytest.approx(2 / 4001)
    assert path.cumulative[:, ~post].max() == 0
    assert path.cumulative[:, -1].mean() == pytest.approx(5.5, abs=0.05)
    frame = path.to_frame()
    assert frame.index.equals(time)
    assert (frame["effect_low"].dropna() <= frame["effect_high"].dropna()).all()
    assert "EffectPath(24 times" in repr(path)


def squares(crs="EPSG:32636", n=12, at=(400_000, 200_000)):
    rng = np.random.default_rng(2)
    side = 1000
    cells = [
        box(at[0] + side * (i % 4), at[1] + side * (i // 4),
            at[0] + side * (i % 4 + 1), at[1] + side * (i // 4 + 1))
        for i in range(n)
    ]  # fmt: skip
    value = rng.normal(size=n)
    value[3] = np.nan
    status = np.where(np.isnan(value), Status.NO_IMAGE, Status.OK).astype(object)
    return gpd.GeoDataFrame(
        {
            "estimand": "CATE", "method": "DR", "estimate": value, "std_error": 0.1,
            "ci_low": value - 0.2, "ci_high": value + 0.2, "support": 1.0, "status": status,
        },
        geometry=cells, index=pd.Index([f"n{i}" for i in range(n)], name="neighborhood"), crs=crs,
    )  # fmt: skip


def test_map_says_what_it_holds():
    shown = EffectMap(squares())
    assert len(shown) == 12
    assert "11 ok" in repr(shown)
    assert "11 of 12 neighborhoods have an estimate" in shown.summary()
    frame = shown.to_frame()
    frame["estimate"] = 0.0
    assert shown.table["estimate"].std() > 0
    with pytest.raises(MissingColumnError):
        EffectMap(squares().drop(columns="ci_low"))
    with pytest.raises(CRSError):
        EffectMap(squares().set_crs(None, allow_override=True))


def test_map_average():
    table = squares()
    rng = np.random.default_rng(0)
    root = rng.normal(size=(12, 5)) / 10
    shown = EffectMap(table, root=root)
    known = table["estimate"].notna().to_numpy()
    average = shown.average()
    assert average["estimate"] == pytest.approx(table["estimate"].mean())
    covariance = root[known] @ root[known].T
    assert average["std_error"] == pytest.approx(math.sqrt(covariance.mean()))
    assert average["n"] == 11
    weights = pd.Series(np.arange(12.0), index=table.index).sample(frac=1, random_state=0)
    weighted = shown.average(weights)
    share = np.arange(12.0)[known] / np.arange(12.0)[known].sum()
    assert weighted["estimate"] == pytest.approx(share @ table["estimate"][known])
    with pytest.raises(EstimationError, match="cannot be averaged"):
        EffectMap(table).average()
    outside = table.assign(status=Status.EXTRAPOLATED)
    with pytest.raises(EstimationError, match="cannot be averaged"):
        EffectMap(outside, root=root).average(supported_only=True)


@pytest.mark.parametrize("suffix", [".parquet", ".gpkg"])
@pytest.mark.parametrize("crs", ["EPSG:32636", "EPSG:4326"])
def test_vector_files_come_back(tmp_path, suffix, crs):
    table = squares().to_crs(crs)
    paths = [tmp_path / f"{name}{suffix}" for name in ("one", "two")]
    for path in paths:
        assert EffectMap(table).write(path) == path
    assert hash_file(paths[0]) == hash_file(paths[1])
    back = gpd.read_parquet(paths[0]) if suffix == ".parquet" else gpd.read_file(paths[0])
    if suffix == ".gpkg":
        back = back.set_index("neighborhood")
    assert back.crs == table.crs
    assert list(back.index) == list(table.index)
    assert back.index.name == "neighborhood"
    for name in COG_BANDS:
        assert np.allclose(back[name], table[name], equal_nan=True, rtol=0, atol=0)
    assert back["status"].tolist() == table["status"].astype(str).tolist()
    assert back.geometry.geom_equals_exact(table.geometry, 1e-9).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"one{suffix}", f"two{suffix}"]


def test_cog_comes_back(tmp_path):
    table = squares()
    for name in ("one", "two"):
        EffectMap(table).write(tmp_path / f"{name}.tif")
    assert hash_file(tmp_path / "one.tif") == hash_file(tmp_path / "two.tif")
    with rasterio.open(tmp_path / "one.tif") as raster:
        assert raster.crs == table.crs
        assert raster.descriptions == COG_BANDS
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.profile["tiled"]
        assert math.isnan(raster.nodata)
        values = raster.read()
        for row, centre in zip(table.itertuples(), table.centroid, strict=True):
            y, x = raster.index(centre.x, centre.y)
            for band, name in enumerate(COG_BANDS):
                wanted = np.float32(getattr(row, name))
                assert values[band, y, x] == wanted or np.isnan([values[band, y, x], wanted]).all()
        assert raster.bounds.left <= table.total_bounds[0]
        assert raster.bounds.top >= table.total_bounds[3]


def test_large_cog_has_overviews(tmp_path):
    EffectMap(squares()).write(tmp_path / "fine.tif", resolution=4)
    with rasterio.open(tmp_path / "fine.tif") as raster:
        assert raster.width == 1000
        assert raster.overviews(1)
        assert raster.profile["tiled"]
        assert max(raster.block_shapes[0]) <= 512


def test_cog_of_a_wide_map_is_metric(tmp_path):
    cells = [box(20 + 5 * i, 5, 20.5 + 5 * i, 5.5) for i in range(6)]
    table = squares(n=6).set_crs("EPSG:4326", allow_override=True).set_geometry(cells)
    table = table.set_crs("EPSG:4326", allow_override=True)
    EffectMap(table).write(tmp_path / "wide.tif")
    with rasterio.open(tmp_path / "wide.tif") as raster:
        assert raster.crs.is_projected
        centres = table.to_crs(raster.crs).centroid
        values = [v[0] for v in raster.sample([(p.x, p.y) for p in centres])]
    assert np.allclose(values, table["estimate"].astype("float32"), equal_nan=True)


def test_files_that_cannot_be_written(tmp_path):
    shown = EffectMap(squares())
    with pytest.raises(EstimationError, match=r"'\.xlsx'"):
        shown.write(tmp_path / "map.xlsx")
    points = squares().set_geometry([Point(4e5 + i, 2e5) for i in range(12)])
    with pytest.raises(CRSError, match="are points"):
        EffectMap(points.set_crs("EPSG:32636", allow_override=True)).write(tmp_path / "map.tif")
    with pytest.raises(EstimationError, match="would not fit"):
        shown.write(tmp_path / "map.tif", resolution=0.01)
    assert list(tmp_path.iterdir()) == []


def test_write_replaces_an_older_map(tmp_path):
    path = tmp_path / "map.parquet"
    EffectMap(squares()).write(path)
    EffectMap(squares().iloc[:5]).write(path)
    assert len(gpd.read_parquet(path)) == 5
