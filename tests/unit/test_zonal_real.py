"""Land cover of Morowali, GLORYS12 temperature, ocean colour around Oahu: real files."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pytest
import shapely
import xarray as xr

from eocausal.contracts import ChipStatus
from eocausal.ingest.grids import scan_grids
from eocausal.ingest.statistics import ClassArea, ClassShare, Count, Mean
from eocausal.ingest.zonal import zonal_series

pytestmark = pytest.mark.realdata

CLASSES = {"water": 1, "trees": 2, "built": 7, "bare": 8, "rangeland": 11}


def places_of(*shapes):
    return gpd.GeoDataFrame(geometry=list(shapes), crs="EPSG:4326").rename_axis("neighborhood")


def test_built_area_of_morowali_is_that_of_the_paper(real_data):
    """The paper: 12.3 to 46.2 square kilometres from 2017 to 2024, tree cover 5.0 points less.

    It takes every pixel for 100 square metres; on the ellipsoid they have 99.3.
    """
    scenes = scan_grids(real_data("morowali") / "sentinel2LULC_IMIP.nc", variables=["lulc"])
    scenes = scenes.iloc[[0, -1]]
    west, south, east, north = scenes.total_bounds
    whole = places_of(
        shapely.box(west, south, east, north),
        shapely.box(west, south, (west + east) / 2, north),
        shapely.box((west + east) / 2, south, east, north),
    )
    panel = zonal_series(
        whole, scenes, bands="lulc", statistics=[ClassArea(CLASSES), ClassShare(CLASSES), Count()]
    )
    built = panel["lulc_area_built"].values / 1e6
    nominal = (panel["lulc_share_built"] * panel["lulc_count"]).values[0] * 100 / 1e6
    assert nominal == pytest.approx([12.3, 46.2], abs=0.05)
    densified = shapely.segmentize(whole.geometry.iloc[0], 0.001)
    ground = abs(pyproj.Geod(ellps="WGS84").geometry_area_perimeter(densified)[0])
    per_pixel = ground / panel["lulc_count"].values[0, 0]
    assert built[0] / nominal == pytest.approx([per_pixel / 100] * 2, rel=1e-4)
    assert built[1] + built[2] == pytest.approx(built[0], rel=1e-9)
    trees = 100 * panel["lulc_share_trees"].values[0]
    land = 1 - panel["lulc_share_water"].values[0]
    fallen = {"of all": trees[1] - trees[0], "of land": (trees / land)[1] - (trees / land)[0]}
    assert min(abs(v + 5.0) for v in fallen.values()) < 0.3, fallen
    assert panel["status"].values[0].tolist() == [ChipStatus.OK, ChipStatus.OK]


def test_temperature_means_are_xarrays_with_cosine_weights(real_data):
    path = real_data("morowali") / "salinity_temp.nc"
    scenes = scan_grids(path, variables=["thetao", "so"]).iloc[:24]
    with xr.open_dataset(path) as source:
        box = source.isel(time=slice(24), depth=0, latitude=slice(6, 15), longitude=slice(8, 21))
        half = 1 / 24
        shape = shapely.box(
            *(box.longitude.values[0] - half, box.latitude.values[0] - half),
            *(box.longitude.values[-1] + half, box.latitude.values[-1] + half),
        )
        truth = box.weighted(np.cos(np.radians(box.latitude))).mean(("latitude", "longitude"))
        panel = zonal_series(places_of(shape), scenes, bands=["thetao", "so"])
        for band in ("thetao", "so"):
            ours = panel[f"{band}_mean"].values[0]
            assert np.allclose(ours, truth[band].values, rtol=1e-5), band
        assert (panel["time"].values == box.time.values).all()


def test_ocean_colour_in_0_to_360_is_reached_from_western_longitudes(real_data):
    """The file's times are seconds after 1970 by mistake: its months are numbered, not dated."""
    path = real_data("ocean") / "esa_cci_monthly_chl-a_masked.nc"
    with pytest.warns(UserWarning, match="they number the layers"):
        scenes = scan_grids(path, variables=["chlor_a"]).iloc[:12].copy()
    scenes["time"] = pd.date_range("1998-01", periods=12, freq="MS")
    scenes["time_end"] = scenes["time"] + pd.offsets.MonthEnd(1)
    west = places_of(shapely.box(-158.3, 21.2, -157.7, 21.7), shapely.box(-100, 21.2, -99, 21.7))
    east = places_of(shapely.box(201.7, 21.2, 202.3, 21.7), shapely.box(260, 21.2, 261, 21.7))
    ours = zonal_series(west, scenes, bands="chlor_a", statistics=[Mean(), Count()])
    same = zonal_series(east, scenes, bands="chlor_a", statistics=[Mean(), Count()])
    assert np.allclose(ours["chlor_a_mean"], same["chlor_a_mean"], equal_nan=True)
    assert (ours["status"].values[1] == ChipStatus.OUTSIDE).all()
    with xr.open_dataset(path, decode_times=False) as source:
        values = source["chlor_a"].isel(time=slice(12)).values
        lon, lat = source["longitude"].values, source["latitude"].values
    step = lon[1] - lon[0]
    cover_x = np.clip(
        np.minimum(lon + step / 2, 202.3) - np.maximum(lon - step / 2, 201.7), 0, step
    )
    cover_y = np.clip(np.minimum(lat + step / 2, 21.7) - np.maximum(lat - step / 2, 21.2), 0, step)
    weight = cover_y[:, None] * cover_x * np.cos(np.radians(lat))[:, None]
    valid = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        truth = (np.where(valid, values, 0) * weight).sum((1, 2)) / (valid * weight).sum((1, 2))
    assert np.allclose(ours["chlor_a_mean"].values[0], truth, rtol=1e-4, equal_nan=True)
    share = (valid * weight).sum((1, 2)) / weight.sum()
    assert np.allclose(ours["chlor_a_coverage"].values[0], share, atol=1e-4)
    assert np.isnan(truth).any() or (share < 1).any()
