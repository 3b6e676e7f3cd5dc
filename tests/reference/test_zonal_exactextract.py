"""Every number against exactextract, polygon by polygon and step by step."""

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from exactextract import exact_extract
from ingest_helpers import write_tif

from eocausal.ingest.sources import scan
from eocausal.ingest.statistics import Count, Max, Mean, Min, Quantile, StdDev, Sum
from eocausal.ingest.zonal import zonal_series

NAMES = {
    "mean": "mean", "sum": "sum", "count": "count", "stdev": "std", "min": "min", "max": "max",
    "quantile_10": "q10", "quantile_50": "median",
}  # fmt: skip


def districts(n, crs, x0, y0, extent, seed):
    """Stars of many sizes, from a fraction of a pixel up; some hang over the edge."""
    rng = np.random.default_rng(seed)
    shapes = []
    for _ in range(n):
        angle = np.sort(rng.uniform(0, 2 * np.pi, 12))
        radius = rng.uniform(0.4, 1.0, 12) * extent * rng.choice([0.004, 0.03, 0.2])
        x, y = rng.uniform(-0.02, 1.02, 2) * extent
        ring = np.c_[x0 + x + radius * np.cos(angle), y0 - y + radius * np.sin(angle)]
        shapes.append(shapely.make_valid(shapely.Polygon(ring)))
    flat = [s if "Polygon" in s.geom_type else s.buffer(0) for s in shapes]
    return gpd.GeoDataFrame(geometry=flat, crs=crs).rename_axis("neighborhood")


@pytest.mark.parametrize(
    ("crs", "pixel", "x0", "y0"), [("EPSG:32636", 30.0, 3e5, 9e5), ("EPSG:4326", 0.01, 30.0, 5.0)]
)
def test_every_statistic_is_exactextracts(tmp_path, crs, pixel, x0, y0):
    size = 128
    rng = np.random.default_rng(3)
    for year in (2001, 2002, 2003):
        image = rng.normal(500, 200, (1, size, size)).astype("float32")
        image[0, rng.random((size, size)) < 0.2] = -9999
        image[0, 40:80, 30:70] = -9999
        write_tif(
            tmp_path / f"{year}.tif", image, crs, Affine(pixel, 0, x0, 0, -pixel, y0), names=["v"],
            nodata=-9999, tiled=True, blockxsize=32, blockysize=16,
        )  # fmt: skip
    places = districts(120, crs, x0, y0, size * pixel, seed=5)
    panel = zonal_series(
        places, scan(tmp_path), bands=["v"], area=False,
        statistics=[Mean(), Sum(), Count(), StdDev(), Min(), Max(), Quantile(0.1), Quantile(0.5)],
    )  # fmt: skip
    compared = 0
    for t, year in enumerate((2001, 2002, 2003)):
        ops = ["mean", "sum", "count", "stdev", "min", "max", "quantile(q=0.1)", "quantile(q=0.5)"]
        with rasterio.open(tmp_path / f"{year}.tif") as source:
            truth = exact_extract(source, places, ops, output="pandas")
        for column, name in NAMES.items():
            theirs = truth[column].to_numpy(dtype=float)
            ours = panel[f"v_{name}"].values[:, t]
            valid = truth["count"].to_numpy(dtype=float) > 0
            assert np.isnan(ours[~valid]).all() or name == "count"
            assert np.allclose(ours[valid], theirs[valid], rtol=1e-6, atol=1e-6), name
            compared += int(valid.sum())
    assert compared > 2000


def test_area_weights_are_exactextracts_spherical_areas_up_to_the_ellipsoid(tmp_path):
    """On a tall polygon the area mean differs from the plain mean by far more than 1e-4."""
    rows = np.arange(60, dtype="float32")
    image = np.repeat(rows[:, None], 40, axis=1)[None]
    write_tif(tmp_path / "2000.tif", image, "EPSG:4326", Affine(1, 0, 0, 0, -1, 75), names=["v"])
    places = gpd.GeoDataFrame(geometry=[shapely.box(3.3, 20.2, 30.1, 74.5)], crs="EPSG:4326")
    places = places.rename_axis("neighborhood")
    scenes = scan(tmp_path)
    ours = zonal_series(places, scenes, bands=["v"])["v_mean"].item()
    plain = zonal_series(places, scenes, bands=["v"], area=False)["v_mean"].item()
    with rasterio.open(tmp_path / "2000.tif") as source:
        truth = exact_extract(
            source, places, ["m=mean(coverage_weight=area_spherical_m2)"], output="pandas"
        )["m"].item()
    found = {"truth": truth, "ours": ours, "plain": plain}
    assert abs(ours - truth) < 0.1, found
    assert abs(plain - truth) > 1.0, found
