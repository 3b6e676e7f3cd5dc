"""Reading neighborhoods from every format, and squares that are right everywhere."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from eocausal.contracts import check_neighborhoods
from eocausal.errors import GeometryError, IngestError
from eocausal.ingest.grid import local_crs, project
from eocausal.ingest.places import locate, read_neighborhoods

POINTS = pd.DataFrame(
    {"village": ["p", "q", "r"], "lon": [32.5, -70.1, 12.0], "lat": [0.3, -33.0, 64.2], "n": 1}
)


@pytest.fixture
def frame() -> gpd.GeoDataFrame:
    return read_neighborhoods(POINTS, id="village")


def write(frame, path):
    flat = frame.reset_index().rename(columns={"neighborhood": "village"})
    if path.suffix == ".parquet":
        flat.to_parquet(path)
    elif path.suffix in (".csv", ".tsv"):
        flat.drop(columns="geometry").to_csv(path, sep="\t" if path.suffix == ".tsv" else ",",
                                             index=False)  # fmt: skip
    else:
        flat.to_file(path)
    return path


@pytest.mark.parametrize("name", ["p.gpkg", "p.geojson", "p.parquet", "p.shp", "p.csv", "p.tsv"])
def test_every_format_gives_the_same_places(tmp_path, frame, name):
    again = read_neighborhoods(write(frame, tmp_path / name), id="village")
    assert again.index.tolist() == ["p", "q", "r"]
    assert again.index.name == "neighborhood"
    assert again.crs.to_epsg() == 4326
    assert again["n"].tolist() == [1, 1, 1]
    np.testing.assert_allclose(shapely.get_coordinates(again.geometry), POINTS[["lon", "lat"]])


def test_plain_parquet_and_projected_table(tmp_path):
    x, y = project("EPSG:4326", "EPSG:32636", [32.5, 32.6], [0.3, 0.4])
    pd.DataFrame({"east": x, "north": y}).to_parquet(tmp_path / "t.parquet")
    places = read_neighborhoods(tmp_path / "t.parquet", x="east", y="north", crs="EPSG:32636",
                                size_m=500.0)  # fmt: skip
    assert places.index.tolist() == [0, 1]
    np.testing.assert_allclose(places.geometry.area, 500.0**2)
    np.testing.assert_allclose(places["center_lon"], [32.5, 32.6])
    np.testing.assert_allclose(places.geometry.centroid.x, x)


def test_index_from_column_or_frame(frame):
    named = POINTS.rename(columns={"village": "neighborhood"})
    assert read_neighborhoods(named).index.tolist() == ["p", "q", "r"]
    assert read_neighborhoods(frame).index.tolist() == ["p", "q", "r"]
    assert read_neighborhoods(POINTS).index.tolist() == [0, 1, 2]


def test_layers_must_be_named(tmp_path, frame):
    flat = frame.reset_index()
    flat.to_file(tmp_path / "p.gpkg", layer="one")
    flat.iloc[:1].to_file(tmp_path / "p.gpkg", layer="two")
    with pytest.raises(IngestError, match="'one', 'two'"):
        read_neighborhoods(tmp_path / "p.gpkg")
    assert len(read_neighborhoods(tmp_path / "p.gpkg", layer="two")) == 1


def test_crs84_is_wgs84(frame):
    assert len(read_neighborhoods(frame.to_crs("OGC:CRS84"), crs="EPSG:4326")) == 3


def test_size_is_for_points_and_positive(frame):
    boxes = frame.to_crs(3857).set_geometry(frame.to_crs(3857).buffer(100, cap_style="square"))
    with pytest.raises(GeometryError, match="Squares are made around points"):
        read_neighborhoods(boxes, size_m=100)
    for wrong in (0.0, -5.0, float("nan")):
        with pytest.raises(GeometryError, match="size_m is"):
            read_neighborhoods(frame, size_m=wrong)


PLACES = [
    (32.5, 0.3), (30.0, 45.0), (-70.1, -33.0), (180.0, -17.0), (179.999, 66.0), (-179.999, -16.5),
    (-180.0, 70.0), (359.99, 10.0), (10.0, 83.9), (10.0, 84.1), (120.0, 89.99), (0.0, 90.0),
    (55.0, -90.0), (180.0, -85.0),
]  # fmt: skip


@pytest.mark.parametrize(("lon", "lat"), PLACES)
@pytest.mark.parametrize("size_m", [500.0, 20_000.0])
def test_squares_are_right_everywhere(lon, lat, size_m):
    table = pd.DataFrame({"lon": [lon], "lat": [lat]})
    square = read_neighborhoods(table, size_m=size_m)
    check_neighborhoods(square)
    low_x, low_y, high_x, high_y = square.total_bounds
    assert low_x >= -180
    assert high_x <= 180
    assert low_y >= -90
    assert high_y <= 90
    # The geometry alone, without the kept centre, has the right place, size and area.
    zone = local_crs(np.array([lon]), np.array([lat]))[0]
    bare = locate(square[["geometry"]], zone)
    kept = locate(square)
    assert kept.crs == (zone,)
    cx, cy = project("EPSG:4326", zone, lon, lat)
    assert kept.x[0] == pytest.approx(float(cx), abs=1e-6)
    assert kept.y[0] == pytest.approx(float(cy), abs=1e-6)
    assert kept.side[0] == size_m
    area = shapely.area(
        shapely.transform(
            square.geometry.iloc[0],
            lambda p: np.column_stack(project("EPSG:4326", "EPSG:6933", p[:, 0], p[:, 1])),
        )
    )
    if abs(lat) < 83:
        off = (bare.lon[0] - lon + 180.0) % 360.0 - 180.0
        assert abs(off) * np.cos(np.deg2rad(lat)) < 1e-7 * size_m
        assert abs(bare.lat[0] - lat) < 1e-7 * size_m
        assert bare.side[0] == pytest.approx(size_m, rel=0.01)
    assert area == pytest.approx(size_m**2, rel=0.02)


def test_square_across_the_antimeridian_is_cut():
    square = read_neighborhoods(pd.DataFrame({"lon": [180.0], "lat": [-17.0]}), size_m=10_000)
    shape = square.geometry.iloc[0]
    assert shape.geom_type == "MultiPolygon"
    assert len(shape.geoms) == 2
    assert shape.covers(shapely.Point(179.99, -17.0))
    assert shape.covers(shapely.Point(-179.99, -17.0))
    assert not shape.intersects(shapely.Point(0.0, -17.0))


def test_square_over_the_pole_holds_the_pole():
    square = read_neighborhoods(pd.DataFrame({"lon": [10.0], "lat": [90.0]}), size_m=10_000)
    shape = square.geometry.iloc[0]
    assert shape.bounds[3] == 90.0
    for lon in range(-180, 181, 30):
        assert shape.covers(shapely.Point(lon, 89.99))


def test_centre_of_polygons_is_the_middle_of_their_box():
    x, y = project("EPSG:4326", "EPSG:32636", 32.5, 0.3)
    box = shapely.box(float(x) - 500, float(y) - 300, float(x) + 500, float(y) + 300)
    places = read_neighborhoods(gpd.GeoDataFrame(geometry=[box], crs=32636))
    found = locate(places.to_crs(4326))
    assert found.lon[0] == pytest.approx(32.5, abs=1e-5)
    assert found.lat[0] == pytest.approx(0.3, abs=1e-5)
    assert found.side[0] == pytest.approx(1000, abs=1)


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:6933"])
def test_places_across_the_antimeridian_in_projections_that_break_there(crs):
    halves = [shapely.box(179.9, -17.1, 180, -17), shapely.box(-180, -17.1, -179.9, -17)]
    degrees = read_neighborhoods(
        gpd.GeoDataFrame(geometry=[shapely.MultiPolygon(halves)], crs="EPSG:4326")
    )
    wanted = locate(degrees)
    for places, target in ((degrees, crs), (degrees.to_crs(crs), crs), (degrees.to_crs(crs), None)):
        found = locate(places, target)
        assert abs(abs(found.lon[0]) - 180.0) < 1e-3
        assert found.lat[0] == pytest.approx(wanted.lat[0], abs=1e-3)
        assert 15e3 < found.side[0] < 25e3


@pytest.mark.parametrize(
    "text", ["id,lon,lat\na,32,5,0,3\nb,32,6,0,4\n", "id,lon,lat,n\na,32.5,0.3,4,\n"]
)
def test_rows_longer_than_the_header_do_not_shift_columns(tmp_path, text):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(IngestError, match="more fields than its header"):
        read_neighborhoods(tmp_path / "p.csv")


def test_ids_of_mixed_type_in_a_long_file_are_text(tmp_path):
    rows = [f"{i},{i % 90},1" for i in range(300_000)]
    (tmp_path / "p.csv").write_text("\n".join(["\ufeffid,lon,lat", *rows, "A1,3,1"]))
    index = read_neighborhoods(tmp_path / "p.csv", id="id").index
    assert (index[0], index[-1]) == ("0", "A1")
