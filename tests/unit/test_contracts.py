"""Contracts pass good data through and say what is wrong with bad data."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from shapely.geometry import Point, Polygon, box

from eocausal.contracts import (
    check_columns,
    check_cube,
    check_effects,
    check_embedding,
    check_neighborhoods,
    check_panel,
    check_same_neighborhoods,
    some,
)
from eocausal.errors import (
    AlignmentError,
    CRSError,
    CubeError,
    DuplicateIdError,
    EmbeddingError,
    EmptyInputError,
    EocausalError,
    GeometryError,
    MissingColumnError,
    PanelError,
)


def places(geometry=None, ids=("a", "b"), crs="EPSG:4326", name="neighborhood"):
    geometry = [box(30, 1, 30.1, 1.1), box(31, 1, 31.1, 1.1)] if geometry is None else geometry
    return gpd.GeoDataFrame(geometry=geometry, index=pd.Index(ids, name=name), crs=crs)


def test_good_neighborhoods():
    good = places()
    assert check_neighborhoods(good) is good
    check_neighborhoods(places([box(4e5, 1e5, 5e5, 2e5)] * 2, crs="EPSG:32636"))
    check_neighborhoods(places([box(179.9, -17, 180.1, -16.9)] * 2))


BOW_TIE = Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])


@pytest.mark.parametrize(
    ("bad", "error", "text"),
    [
        (places([], ids=()), EmptyInputError, "no neighborhoods"),
        (places(crs=None), CRSError, "no coordinate reference system"),
        (places(name="id"), MissingColumnError, "named 'id'"),
        (places(ids=("a", "a")), DuplicateIdError, "more than once: 'a'"),
        (places([None, Point(1, 1)]), GeometryError, "1 neighborhoods have no geometry: 'a'"),
        (places([Point(), Point(1, 1)]), GeometryError, "no geometry: 'a'"),
        (places([BOW_TIE, Point(1, 1)]), GeometryError, "1 geometries are invalid: 'a'"),
        (places([Point(4e5, 1e5), Point(1, 1)]), CRSError, "in degrees"),
        (places([Point(10, 95), Point(1, 1)]), CRSError, "in degrees"),
    ],
)
def test_bad_neighborhoods(bad, error, text):
    with pytest.raises(error, match=text) as caught:
        check_neighborhoods(bad)
    assert caught.value.cause
    assert caught.value.next_step


def test_coordinates_that_are_not_finite():
    with pytest.raises(GeometryError):
        check_neighborhoods(places([Point(np.nan, 1), Point(1, 1)]))
    with pytest.raises(GeometryError):
        check_neighborhoods(places([Point(np.inf, 1), Point(1, 1)]))


def test_columns():
    table = pd.DataFrame({"income": [1], "age": [2]})
    check_columns(table, ["age"])
    with pytest.raises(MissingColumnError) as caught:
        check_columns(table, ["agee", "wealth", "age"], what="units table")
    assert "The units table has no column 'agee' (closest: 'age'), 'wealth'." in str(caught.value)
    assert "'income', 'age'" in str(caught.value)


def test_some_writes_plain_values():
    assert some([1, 2]) == "1, 2"
    assert some(np.array([1, 2])) == "1, 2"
    assert some("abcdefg") == "'a', 'b', 'c', 'd', 'e' and 2 more"
    assert some([]) == ""


def cube():
    return xr.Dataset(
        {
            "image": (
                ("neighborhood", "period", "band", "y", "x"),
                np.zeros((2, 1, 3, 4, 4), "f4"),
            ),
            "valid": (("neighborhood", "period"), np.ones((2, 1))),
            "status": (("neighborhood", "period"), np.zeros((2, 1), "i1")),
        },
        coords={"neighborhood": ["a", "b"], "period": ["2001"], "band": ["r", "g", "b"]},
        attrs={"resolution": 30.0, "units": "DN"},
    )


def without(name):
    def change(c):
        c = c.copy()
        del c.attrs[name]
        return c

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: c.drop_vars("image"), "no variable 'image'"),
        (lambda c: c.drop_vars("valid"), "no variable 'valid'"),
        (lambda c: c.drop_vars("status"), "no variable 'status'"),
        (lambda c: c.transpose("band", ...), "image has dims"),
        (lambda c: c.assign(image=c["image"].astype("u1")), "image is uint8"),
        (lambda c: c.drop_vars("band"), "band labels are missing"),
        (lambda c: c.assign_coords(neighborhood=["a", "a"]), "neighborhood labels"),
        (without("resolution"), "'resolution' is missing"),
        (without("units"), "'units' is missing"),
    ],
)
def test_cube(change, text):
    good = cube()
    assert check_cube(good) is good
    with pytest.raises(CubeError, match=text):
        check_cube(change(good))


def test_panel():
    times = pd.date_range("2001", periods=3, freq="MS")
    good = xr.Dataset(
        {"kd": (("neighborhood", "time"), np.zeros((2, 3)))},
        coords={"neighborhood": ["a", "b"], "time": times},
    )
    assert check_panel(good) is good
    with pytest.raises(PanelError, match="not sorted"):
        check_panel(good.isel(time=[1, 0, 2]))
    with pytest.raises(PanelError, match="time labels"):
        check_panel(good.isel(time=[0, 0, 1]))
    with pytest.raises(PanelError, match="neighborhood labels"):
        check_panel(good.drop_vars("neighborhood"))


def embedding(values=None, **attrs):
    values = np.zeros((3, 2), "f4") if values is None else values
    dims = (
        ("neighborhood", "feature") if values.ndim == 2 else ("neighborhood", "period", "feature")
    )
    return xr.DataArray(
        values,
        dims=dims,
        coords={"neighborhood": list("abc")},
        attrs={"encoder": "e", "last_image_date": "", **attrs},
    )


def test_embedding():
    good = embedding()
    assert check_embedding(good) is good
    no_image = np.zeros((3, 2), "f4")
    no_image[1] = np.nan
    check_embedding(embedding(no_image))
    check_embedding(embedding(np.zeros((3, 2, 2), "f4")))

    partly = np.zeros((3, 2), "f4")
    partly[2, 1] = np.inf
    with pytest.raises(EmbeddingError, match="partly NaN: 'c'"):
        check_embedding(embedding(partly))
    by_period = np.zeros((3, 2, 2), "f4")
    by_period[0, 1, 0] = np.nan
    with pytest.raises(EmbeddingError, match=r"1 rows .* are infinite or partly NaN: 'a'"):
        check_embedding(embedding(by_period))
    infinite = np.zeros((3, 2), "f4")
    infinite[1] = np.inf
    with pytest.raises(EmbeddingError, match="infinite or partly NaN: 'b'"):
        check_embedding(embedding(infinite))
    with pytest.raises(EmbeddingError, match="has dims"):
        check_embedding(good.transpose())
    with pytest.raises(EmbeddingError, match="not unique"):
        check_embedding(good.assign_coords(neighborhood=list("aab")))
    bare = good.copy()
    del bare.attrs["last_image_date"]
    with pytest.raises(EmbeddingError, match="'last_image_date' is missing"):
        check_embedding(bare)


def test_embedding_without_labels():
    with pytest.raises(EmbeddingError):
        check_embedding(embedding().drop_vars("neighborhood"))


def test_effects():
    columns = ["estimand", "method", "estimate", "std_error", "ci_low", "ci_high", "support"]
    table = places().assign(**dict.fromkeys(columns, 0.0), status="ok")
    assert check_effects(table) is table
    with pytest.raises(MissingColumnError, match="'support'"):
        check_effects(table.drop(columns="support"))
    with pytest.raises(CRSError):
        check_effects(table.set_crs(None, allow_override=True))


def test_same_neighborhoods():
    check_same_neighborhoods(pd.Index(["a"]), pd.Index(["b", "a"]), what="cube")
    with pytest.raises(
        AlignmentError, match="2 neighborhoods of the units are not in the cube: 1, 2"
    ):
        check_same_neighborhoods(pd.Index([1, 2]), pd.Index(["1", "2"]), what="cube")


def test_errors_survive_pickling_and_have_their_own_code():
    import pickle

    from eocausal import errors

    kinds = [getattr(errors, name) for name in errors.__all__]
    codes = [kind.code for kind in kinds]
    assert len(set(codes)) == len(codes)
    for kind in kinds:
        error = kind("A fact.", cause="A cause.", next_step="A step.")
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind
        assert str(again) == str(error) == f"[{kind.code}] A fact. A cause. Next: A step."
        assert isinstance(error, EocausalError)
