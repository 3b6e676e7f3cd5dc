"""Projects become treatments: near enough, late enough, early enough."""

import numpy as np
import pandas as pd
import pytest

from eocausal.errors import DesignError, MissingColumnError
from eocausal.placements import Kind, Placement, Projects, near_pairs

KM = 1 / 111.19492664455873  # degrees of latitude

UNITS = pd.DataFrame(
    {
        "lon": 0.0,
        "lat": [0.0, 2.0, 4.0, 6.0, 8.0],
        "year": [2010, 2010, 2010, 2010, 2010],
        "country": ["a", "a", "a", "a", "b"],
    },
    index=list("pqrst"),
)


def projects(*rows):
    table = pd.DataFrame(rows, columns=["lat", "start", "funder", "sector"])
    return Projects.of(table.assign(lon=0.0))


def only(placement, found):
    (one,) = placement.exposures(UNITS, found)
    return one


def test_near_late_and_early_enough():
    found = projects(
        (0.0 + 24 * KM, "2009-06-01", "F", "s"),  # p: treated
        (2.0 + 26 * KM, "2008-06-01", "F", "s"),  # q: too far
        (4.0, "2010-01-01", "F", "s"),  # r: too recent
        (6.0, "2004-12-31", "F", "s"),  # s: history
        (8.0, "2012-01-01", "F", "s"),  # t: after the outcome
    )
    one = only(Placement("year", "2005-01-01"), found)
    assert one.treated.tolist() == [True, False, False, False, False]
    assert one.compared.tolist() == [True, True, False, True, True]
    assert one.recent == 1
    assert one.history[:, 0].tolist() == [0, 0, 0, 1, 0]


def test_a_donut_leaves_out_who_may_be_reached():
    found = projects((0.0, "2008", "F", "s"), (2.0 + 30 * KM, "2008", "F", "s"))
    one = only(Placement("year", "2005", donut_km=50), found)
    assert one.treated.tolist() == [True, False, False, False, False]
    assert one.compared.tolist() == [True, False, True, True, True]
    assert one.near == 1


def test_only_countries_with_such_a_project_are_compared():
    one = only(Placement("year", "2005", within="country"), projects((0.0, "2008", "F", "s")))
    assert one.compared.tolist() == [True, True, True, True, False]
    assert one.abroad == 1


def test_history_counts_other_sectors_and_funders_apart():
    found = projects(
        (0.0, "2003", "F", "s"), (0.0, "2003", "F", "u"), (0.0, "2002", "F", "u"),
        (0.0, "2003", "G", "s"),
    )  # fmt: skip
    rows = {
        e.kind: e.history[0].tolist() for e in Placement("year", "2005").exposures(UNITS, found)
    }
    assert rows == {
        Kind("F", "s"): [1, 2, 1],
        Kind("F", "u"): [2, 1, 1],
        Kind("G", "s"): [1, 0, 3],
    }


def test_names_and_bad_rows():
    table = pd.DataFrame({"lon": [0.0, 400.0], "lat": 0.0, "start": 2008, "funder": 1, "sector": 7})
    named = Projects.of(table[:1], names={"1": "World Bank", "7": "water"})
    assert [str(k) for k in named.kinds] == ["World Bank, water"]
    assert str(named.start[0]) == "2008-01-01"
    with pytest.raises(DesignError, match="1 projects have no position"):
        Projects.of(table)
    with pytest.raises(MissingColumnError, match="begin"):
        Projects.of(table, start="begin")


def test_pairs_are_those_of_all_distances():
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(-180, 180, 300), rng.uniform(-89, 89, 300)
    other_lon, other_lat = rng.uniform(-180, 180, 200), rng.uniform(-89, 89, 200)
    first, second, km = near_pairs(lon, lat, other_lon, other_lat, 800.0)
    a, b = np.deg2rad(lat)[:, None], np.deg2rad(other_lat)[None]
    turn = np.deg2rad(lon)[:, None] - np.deg2rad(other_lon)[None]
    haversine = np.sin((a - b) / 2) ** 2 + np.cos(a) * np.cos(b) * np.sin(turn / 2) ** 2
    distance = 2 * 6371.0 * np.arcsin(np.sqrt(haversine))
    assert len(first) == (distance <= 800).sum() > 100
    np.testing.assert_allclose(km, distance[first, second], rtol=1e-9)


@pytest.mark.parametrize("wrong", [{"within_km": 0}, {"donut_km": 20}, {"first": "soon"}])
def test_designs_that_mean_nothing(wrong):
    with pytest.raises(DesignError):
        Placement(**{"year": "year", "first": "2005", **wrong})


def test_tables_without_funders_or_sectors_have_one():
    table = pd.DataFrame({"lon": [0.0], "lat": [0.0], "start": [2008], "sector": ["s"]})
    one = Projects.of(table, funder=None, names={"all funders": "Fund"})
    assert one.kinds == (Kind("Fund", "s"),)
    none = Projects.of(table, funder=None, sector=None)
    assert none.kinds == (Kind("all funders", "all sectors"),)
