"""Scenes that hold their own coordinates: a chip must return where its pixels are.

Every case writes a real GeoTIFF whose bands are the x and y of its pixel centres and reads it
back through scan and build_cube. Bilinear interpolation of a linear field is exact but for
float32 and for the outermost half pixel of a scene; nearest may be half a source pixel off.
"""

import numpy as np
import pytest
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ingest_helpers import (
    centred,
    chips,
    coordinates_of,
    misplacement,
    own_coordinates,
    places_at,
    write_coordinates,
    write_tif,
)

from eocausal.ingest.grid import project, x_period
from eocausal.ingest.resample import Bilinear, Nearest

FLOAT32 = 1.2e-7


def tolerance(crs: str, cube) -> float:
    top = np.nanmax(np.abs(cube["image"].values))
    return FLOAT32 * float(top)


# name, CRS of the scene, place, source pixel in units of that CRS
AROUND = [
    ("utm36n", "EPSG:32636", (32.58, 0.32), 30.0),
    ("utm36s", "EPSG:32736", (32.58, -0.32), 30.0),
    ("utm35n seen from 36", "EPSG:32635", (30.05, 3.0), 30.0),
    ("utm36s seen from 35", "EPSG:32736", (29.95, -11.0), 30.0),
    ("north scene of a southern place", "EPSG:32636", (33.1, -0.2), 30.0),
    ("utm35 at 70 N", "EPSG:32635", (29.99, 70.0), 30.0),
    ("degrees", "EPSG:4326", (-74.5, -8.4), 0.0003),
    ("degrees at 75 N", "EPSG:4326", (20.1, 75.0), 0.0003),
    ("web mercator", "EPSG:3857", (103.8, 1.3), 30.0),
    ("web mercator at 60 N", "EPSG:3857", (25.0, 60.2), 60.0),
    ("ease grid", "EPSG:6933", (-3.7, 40.4), 30.0),
    ("ease grid south", "EPSG:6933", (-70.6, -33.4), 30.0),
    ("antarctic", "EPSG:3031", (166.6, -77.8), 50.0),
    ("antarctic next to the pole", "EPSG:3031", (45.0, -89.995), 50.0),
    ("arctic", "EPSG:3413", (-51.1, 69.2), 50.0),
    ("arctic at the pole", "EPSG:3413", (0.0, 90.0), 50.0),
    ("arctic beyond 84", "EPSG:3413", (12.0, 84.5), 50.0),
    ("europe", "EPSG:3035", (10.0, 52.0), 30.0),
    ("europe far east", "EPSG:3035", (30.01, 60.0), 30.0),
    ("albers", "EPSG:5070", (-96.5, 39.1), 30.0),
    ("lambert 93", "EPSG:2154", (2.35, 48.85), 30.0),
    ("feet", "EPSG:2263", (-73.98, 40.75), 100.0),
    ("mercator in the pacific", "EPSG:3395", (178.9, -17.8), 30.0),
    ("fiji", "EPSG:3460", (178.5, -17.8), 30.0),
]


@pytest.mark.parametrize("resampling", [Bilinear(), Nearest()], ids=["bilinear", "nearest"])
@pytest.mark.parametrize(
    ("crs", "place", "pixel"), [c[1:] for c in AROUND], ids=[c[0] for c in AROUND]
)
def test_chip_holds_its_coordinates(tmp_path, crs, place, pixel, resampling):
    width, height = 300, 280
    transform = centred(crs, *place, pixel, width, height) @ Affine.translation(0.37, -0.21)
    write_coordinates(tmp_path / "s.tif", crs, transform, width, height)
    cube = chips(tmp_path, places_at(place), tmp_path / "s.tif", resolution=25.0, size=40,
                 resampling=resampling)  # fmt: skip
    error = misplacement(cube, crs)
    assert np.isfinite(error).all()
    allowed = 0.5 * pixel if resampling == Nearest() else 0.0
    assert error.max() <= allowed + 2 * tolerance(crs, cube)


@pytest.mark.parametrize("angle", [0.0, 17.0, 90.0, 180.0, 200.5])
@pytest.mark.parametrize("crs", ["EPSG:32636", "EPSG:4326"])
def test_rotated_scene(tmp_path, crs, angle):
    pixel = 0.0003 if crs == "EPSG:4326" else 30.0
    transform = centred(crs, 32.58, 0.32, pixel, 200, 260, angle=angle)
    write_coordinates(tmp_path / "s.tif", crs, transform, 200, 260)
    cube = chips(tmp_path, places_at((32.58, 0.32)), tmp_path / "s.tif", resolution=20, size=48)
    assert misplacement(cube, crs).max() <= 2 * tolerance(crs, cube)


def test_south_up_scene(tmp_path):
    transform = Affine(0.001, 0.0, 32.0, 0.0, 0.001, -1.0)
    write_coordinates(tmp_path / "s.tif", "EPSG:4326", transform, 1000, 2000)
    cube = chips(tmp_path, places_at((32.58, 0.32)), tmp_path / "s.tif", resolution=90, size=32)
    assert misplacement(cube, "EPSG:4326").max() <= 2 * tolerance("", cube)


def test_chip_is_north_up_and_centred(tmp_path):
    transform = centred("EPSG:32636", 32.58, 0.32, 30.0, 300, 300)
    write_coordinates(tmp_path / "s.tif", "EPSG:32636", transform, 300, 300)
    for size in (33, 32):
        cube = chips(
            tmp_path, places_at((32.58, 0.32)), tmp_path / "s.tif", resolution=30.0, size=size
        )
        x, y = cube["image"].values[0, 0]
        assert (np.diff(x, axis=1) > 0).all()
        assert (np.diff(y, axis=0) < 0).all()
        centre = project("EPSG:4326", "EPSG:32636", 32.58, 0.32)
        crs, own_x, own_y = own_coordinates(cube)
        assert crs == "EPSG:32636"
        assert own_x.mean() == pytest.approx(float(centre[0]), abs=1e-6)
        assert own_y.mean() == pytest.approx(float(centre[1]), abs=1e-6)
        assert x.mean() == pytest.approx(float(centre[0]), abs=0.1)
        assert float(cube.lon[0]) == pytest.approx(32.58, abs=1e-9)


# Longitudes: the same Earth written in several ways.
GLOBAL = {
    "-180..180": Affine(0.5, 0, -180, 0, -0.5, 90),
    "0..360": Affine(0.5, 0, 0, 0, -0.5, 90),
    "south up": Affine(0.5, 0, -180, 0, 0.5, -90),
    "-90..270": Affine(0.5, 0, -90, 0, -0.5, 90),
    "east to west": Affine(-0.5, 0, 180, 0, -0.5, 90),
}
SEAM_PLACES = [
    (180.0, -17.0),
    (179.99, -17.0),
    (-179.99, 66.0),
    (0.0, 10.0),
    (-0.3, 51.5),
    (90.01, 24.0),
    (-90.0, -45.0),
    (100.0, -89.9),
    (-30.0, 90.0),
]


@pytest.mark.parametrize("name", GLOBAL)
@pytest.mark.parametrize("resampling", [Bilinear(), Nearest()], ids=["bilinear", "nearest"])
def test_global_degrees(tmp_path, name, resampling):
    write_coordinates(tmp_path / "s.tif", "EPSG:4326", GLOBAL[name], 720, 360)
    places = places_at(*SEAM_PLACES)
    cube = chips(tmp_path, places, tmp_path / "s.tif", resolution=10_000, size=21,
                 resampling=resampling)  # fmt: skip
    assert float(cube.valid.min()) == 1.0
    assert (cube.status.values == 0).all()
    for k, (_lon, lat) in enumerate(SEAM_PLACES):
        error = misplacement(cube, "EPSG:4326", neighborhood=k, turn=360.0)
        held = cube["image"].values[k, 0, 0]
        at_an_end = abs(lat) > 80 or np.ptp(held) > 180
        exact = resampling == Bilinear() and not at_an_end
        assert error.max() <= (0.0 if exact else 0.25) + 3e-5


def test_large_windows_are_read_in_parts(tmp_path, monkeypatch):
    """The same pixels come out whether windows are read whole or in pieces."""
    transform = Affine(0.5, 0, -180, 0, -0.5, 90)
    write_coordinates(tmp_path / "s.tif", "EPSG:4326", transform, 720, 360)
    options = {"resolution": 50_000, "size": 21}
    whole = chips(tmp_path / "1", places_at(*SEAM_PLACES), tmp_path / "s.tif", **options)
    monkeypatch.setattr("eocausal.ingest.sampling._LARGEST", 60)
    parts = chips(tmp_path / "2", places_at(*SEAM_PLACES), tmp_path / "s.tif", **options)
    np.testing.assert_array_equal(whole["image"].values, parts["image"].values)


CROSSING = {
    "degrees beyond 180": ("EPSG:4326", Affine(0.002, 0, 179.0, 0, -0.002, -16.0), 1000, 1000),
    "degrees below -180": ("EPSG:4326", Affine(0.002, 0, -181.0, 0, -0.002, -16.0), 1000, 1000),
    "mercator beyond 180": (
        "EPSG:3857",
        Affine(200, 0, 20037508.34 - 100_000, 0, -200, -1_850_000),
        1000,
        1000,
    ),
    "ease beyond 180": (
        "EPSG:6933",
        Affine(200, 0, 17367530.45 - 100_000, 0, -200, -2_000_000),
        1000,
        1000,
    ),
    "utm 60": ("EPSG:32760", Affine(200, 0, 750_000, 0, -200, 8_200_000), 1000, 1000),
    "utm 1": ("EPSG:32701", Affine(200, 0, 100_000, 0, -200, 8_200_000), 1000, 1000),
}


@pytest.mark.parametrize("name", CROSSING)
def test_scene_across_the_antimeridian(tmp_path, name):
    crs, transform, width, height = CROSSING[name]
    write_coordinates(tmp_path / "s.tif", crs, transform, width, height)
    points = [(179.99, -17.0), (-179.99, -17.0), (180.0, -17.01)]
    cube = chips(tmp_path, places_at(*points), tmp_path / "s.tif", resolution=100, size=50)
    assert cube.crs.values.tolist() == ["EPSG:32760", "EPSG:32701", "EPSG:32701"]
    assert float(cube.valid.min()) == 1.0
    for k in range(3):
        error = misplacement(cube, crs, neighborhood=k, turn=x_period(crs))
        assert error.max() <= 2 * tolerance(crs, cube)


def test_two_tiles_meet_at_the_antimeridian(tmp_path):
    """Chukotka: one scene ends at 180 and another begins at -180; chips take from both."""
    for name, west in (("east", 179.0), ("west", -180.0)):
        transform = Affine(0.001, 0, west, 0, -0.001, 67.0)
        write_coordinates(tmp_path / "in" / f"{name}.tif", "EPSG:4326", transform, 1000, 1500)
    points = [(179.999, 66.3), (-179.999, 66.3), (180.0, 66.0)]
    cube = chips(tmp_path, places_at(*points), tmp_path / "in", resolution=50, size=40)
    assert float(cube.valid.min()) == 1.0
    for k in range(3):
        lon = cube["image"].values[k, 0, 0]
        assert lon.min() < -179.9
        assert lon.max() > 179.9
        error = misplacement(cube, "EPSG:4326", neighborhood=k, turn=360.0)
        assert error.max() <= 0.0005 + 4e-5


def test_two_zones_over_one_chip(tmp_path):
    """At the UTM seam scenes of both zones cover half a chip each and agree in the middle."""
    lon, lat = 30.0, 3.0
    for crs, west in (("EPSG:32635", 29.5), ("EPSG:32636", 29.98)):
        x0, _ = project("EPSG:4326", crs, west, lat)
        x1, y0 = project("EPSG:4326", crs, west + 0.52, lat + 0.1)
        width = int((x1 - x0) / 30)
        transform = Affine(30, 0, float(x0), 0, -30, float(y0))
        x, y = coordinates_of(transform, width, 800)
        field = np.stack(project(crs, "EPSG:4326", x, y))
        write_tif(tmp_path / "in" / f"{crs[5:]}.tif", field, crs, transform, names=["x", "y"])
    cube = chips(tmp_path, places_at((lon, lat), (29.97, lat), (30.03, lat)), tmp_path / "in",
                 resolution=30, size=200)  # fmt: skip
    assert float(cube.valid.min()) == 1.0
    assert cube.crs.values.tolist() == ["EPSG:32636", "EPSG:32635", "EPSG:32636"]
    for k in range(3):
        assert misplacement(cube, "EPSG:4326", neighborhood=k).max() <= 0.5 * 30 / 111_000


@pytest.mark.parametrize(
    "crs", ["EPSG:3857", "EPSG:4326", "EPSG:32637", "EPSG:6933", "EPSG:3035", "EPSG:4269"]
)
def test_chips_in_a_given_crs(tmp_path, crs):
    transform = centred("EPSG:32636", 35.9, 20.0, 30.0, 400, 400)
    write_coordinates(tmp_path / "s.tif", "EPSG:32636", transform, 400, 400)
    resolution = 0.0003 if crs in ("EPSG:4326", "EPSG:4269") else 30.0
    cube = chips(tmp_path, places_at((35.9, 20.0)), tmp_path / "s.tif", resolution=resolution,
                 size=64, crs=crs)  # fmt: skip
    assert cube.crs.values.tolist() == [crs]
    assert misplacement(cube, "EPSG:32636").max() <= 2 * tolerance(crs, cube)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lon=st.floats(-180, 180),
    lat=st.floats(-83, 83),
    zone_shift=st.sampled_from([-1, 0, 1]),
    pixel=st.sampled_from([10.0, 33.3, 250.0]),
    dx=st.floats(-3, 3),
    dy=st.floats(-3, 3),
)
def test_anywhere_on_earth(tmp_path, lon, lat, zone_shift, pixel, dx, dy):
    """Any place, a scene in its own or the next UTM zone, any offset between the grids."""
    zone = (int((lon + 180) // 6) + zone_shift) % 60 + 1
    crs = f"EPSG:{(32600 if lat >= 0 else 32700) + zone}"
    transform = centred(crs, lon, lat, pixel, 130, 130) @ Affine.translation(dx, dy)
    write_coordinates(tmp_path / "s.tif", crs, transform, 130, 130)
    cube = chips(tmp_path, places_at((lon, lat)), tmp_path / "s.tif", resolution=pixel / 2, size=32)
    error = misplacement(cube, crs)
    assert np.isfinite(error).all()
    assert error.max() <= 2 * tolerance(crs, cube)


def test_against_an_independent_warper(tmp_path):
    """rasterio.warp.reproject, another implementation, gives the same chip."""
    import rasterio
    from rasterio.warp import Resampling as Warp
    from rasterio.warp import reproject

    rng = np.random.default_rng(1)
    noise = rng.normal(size=(1, 500, 500)).cumsum(axis=1).cumsum(axis=2)
    crs = "EPSG:3035"
    transform = centred(crs, 10.3, 51.2, 25.0, 500, 500)
    path = write_tif(tmp_path / "s.tif", noise.astype("float32"), crs, transform, names=["v"])
    for method, warp in ((Bilinear(), Warp.bilinear), (Nearest(), Warp.nearest)):
        cube = chips(tmp_path, places_at((10.3, 51.2)), path, bands=["v"], resolution=25.0,
                     size=128, resampling=method)  # fmt: skip
        want = np.empty((128, 128), dtype="float32")
        with rasterio.open(path) as source:
            reproject(
                rasterio.band(source, 1),
                want,
                dst_transform=Affine(*cube["transform"].values[0]),
                dst_crs=str(cube["crs"].values[0]),
                resampling=warp,
                tolerance=0.0,
            )
        got = cube["image"].values[0, 0, 0]
        spread = float(np.ptp(noise))
        assert np.mean(np.abs(got - want) > 1e-5 * spread) < 0.001


@pytest.mark.parametrize("name", GLOBAL)
def test_chips_on_the_scene_s_own_grid_are_found_after_a_turn(tmp_path, name):
    """Chips whose pixels are the scene's, whole turns away from it or over its ends."""
    write_coordinates(tmp_path / "s.tif", "EPSG:4326", GLOBAL[name], 720, 360)
    places = places_at((-158.0, 21.0), (158.0, 21.0), (0.0, 10.0), (180.0, -17.0), (-90.0, 5.0))
    cube = chips(tmp_path, places, tmp_path / "s.tif", resolution=0.5, size=8, crs="EPSG:4326")
    assert (cube.status.values == 0).all()
    for k in range(len(places)):
        assert misplacement(cube, "EPSG:4326", neighborhood=k, turn=360.0).max() < 3e-5


def test_a_part_of_the_earth_beyond_180_is_found_on_its_own_grid(tmp_path):
    grid = Affine(0.125, 0, 201.5, 0, -0.125, 22.0)
    write_coordinates(tmp_path / "s.tif", "EPSG:4326", grid, 16, 16)
    cube = chips(tmp_path, places_at((-157.5, 21.0)), tmp_path / "s.tif", resolution=0.125,
                 size=4, crs="EPSG:4326")  # fmt: skip
    assert (cube.status.values == 0).all()
    assert misplacement(cube, "EPSG:4326", turn=360.0).max() == 0.0
