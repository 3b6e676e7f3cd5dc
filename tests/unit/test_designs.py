"""Designs read arms, probabilities, clusters and dates, and refuse what cannot be."""

import numpy as np
import pandas as pd
import pytest

from eocausal.contracts import codes
from eocausal.designs import Adoption, Event, Trial
from eocausal.errors import (
    AssignmentError,
    DesignError,
    EmptyInputError,
    MissingColumnError,
    OneArmError,
    OneClusterError,
)


def table(arm, **columns):
    return pd.DataFrame({"arm": arm, **columns})


@pytest.mark.parametrize(
    "arm",
    [
        [1, 0, 1],
        [True, False, True],
        [1.0, 0.0, 1.0],
        ["1", "0", "1"],
        pd.array([1, 0, 1], dtype="Int64"),
        pd.array([True, False, True], dtype="boolean"),
        pd.Categorical([1, 0, 1]),
    ],
)
def test_arm_of_any_type(arm):
    a = Trial("arm").assignment(table(arm))
    assert a.treated.tolist() == [1.0, 0.0, 1.0]
    assert a.treated.dtype == float
    assert a.propensity == pytest.approx([2 / 3] * 3)
    assert a.cluster.tolist() == [0, 1, 2]
    assert a.n_clusters == 3
    assert not a.known
    assert "3 units" in repr(a)


@pytest.mark.parametrize("only", [0, 1, True, False])
def test_one_arm(only):
    word = "treated" if only else "control"
    with pytest.raises(OneArmError, match=f"All 3 units are in the {word} arm"):
        Trial("arm").assignment(table([only] * 3))


@pytest.mark.parametrize("arm", [["yes", "no"], [2, 0], [1, 2], [1, 0.5], [1, -1], [np.inf, 0]])
def test_arm_that_is_not_two_arms(arm):
    with pytest.raises(AssignmentError, match="has the values"):
        Trial("arm").assignment(table(arm))


def test_missing_arm_names_the_units():
    units = table([1, 0, np.nan, None]).set_axis(["a", "b", "c", "d"])
    with pytest.raises(AssignmentError, match="missing for 2 units: 'c', 'd'"):
        Trial("arm").assignment(units)


def test_missing_column_names_the_closest():
    with pytest.raises(MissingColumnError, match=r"'armm' .closest: 'arm'"):
        Trial("armm").assignment(table([1, 0]))


def test_empty_table():
    with pytest.raises(EmptyInputError):
        Trial("arm").assignment(table([]))


def test_cluster():
    units = table([1, 1, 0, 0], village=["b", "b", "a", "c"])
    a = Trial("arm", cluster="village").assignment(units)
    assert a.cluster.tolist() == [1, 1, 0, 2]
    assert a.n_clusters == 3
    with pytest.raises(OneClusterError, match="one cluster of 'village'"):
        Trial("arm", cluster="village").assignment(units.assign(village="a"))
    with pytest.raises(DesignError, match="'village' is missing for 1 units: 2"):
        Trial("arm", cluster="village").assignment(units.assign(village=["b", "b", None, "c"]))


def test_probabilities():
    units = table([1, 0, 1, 0], p=[0.2, 0.4, 0.2, 0.9])
    column = Trial("arm", prob="p").assignment(units)
    assert column.propensity.tolist() == [0.2, 0.4, 0.2, 0.9]
    assert column.known
    number = Trial("arm", prob=0.25).assignment(units)
    assert number.propensity.tolist() == [0.25] * 4
    assert number.known
    for wrong in (0.0, 1.0, 1.2, -0.1, np.nan):
        with pytest.raises(AssignmentError, match="strictly between 0 and 1: units 1"):
            Trial("arm", prob="p").assignment(units.assign(p=[0.2, wrong, 0.2, 0.9]))


@pytest.mark.parametrize("prob", [0, 1, 0.0, 1.0, -0.5, 2, float("nan"), True])
def test_impossible_probability(prob):
    with pytest.raises(AssignmentError, match="not a probability"):
        Trial("arm", prob=prob)


def test_blocks():
    units = table([1, 0, 1, 1, 0, 0, 0], b=list("xxyyyyy"))
    a = Trial("arm", block="b").assignment(units)
    assert a.propensity == pytest.approx([0.5] * 2 + [0.4] * 5)
    with pytest.raises(AssignmentError, match="1 blocks of 'b' hold one arm only"):
        Trial("arm", block="b").assignment(units.assign(b=list("xxyyyzz")))
    known = Trial("arm", block="b", prob=0.5).assignment(units.assign(b=list("xxyyyzz")))
    assert known.propensity.tolist() == [0.5] * 7


def test_columns_read():
    assert Trial("a").columns == ("a",)
    assert Trial("a", cluster="c", prob="p", block="b").columns == ("a", "c", "b", "p")
    assert Trial("a", prob=0.5).columns == ("a",)


@pytest.mark.parametrize("start", ["soon", "2001-13-01", "2001-02-30"])
def test_wrong_start(start):
    with pytest.raises(DesignError, match="is not a date"):
        Trial("arm", start=start)


@pytest.mark.parametrize("start", ["", "NaT", "nan"])
def test_start_that_is_no_date(start):
    with pytest.raises(DesignError, match="is not a date"):
        Trial("arm", start=start)


def test_codes_do_not_depend_on_row_order():
    values = pd.Series(["b", "a", "c", "a"])
    shuffled = values.sample(frac=1, random_state=0)
    assert codes(values, "v").tolist() == [1, 0, 2, 0]
    assert dict(zip(shuffled, codes(shuffled, "v"), strict=True)) == {"a": 0, "b": 1, "c": 2}


def test_adoption():
    units = pd.DataFrame(
        {
            "start": ["2005-01-01", "2005-01-01", "2005-01-01", None],
            "time": ["2004-12-31", "2005-01-01", "2006-01-01", "2006-01-01"],
        }
    )
    assert Adoption("start", "time").treated(units).tolist() == [False, True, True, False]
    years = pd.DataFrame({"start": [2005, 2005, None], "time": [2004, 2005, 2006]})
    assert Adoption("start", "time").treated(years).tolist() == [False, True, False]
    with pytest.raises(MissingColumnError):
        Adoption("begin", "time").treated(units)


def test_event():
    months = pd.date_range("2015-01-01", periods=12, freq="MS")
    assert Event("2015-06").post(months).sum() == 7
    with pytest.raises(DesignError, match="leaves no post-period"):
        Event("2016").post(months)
    with pytest.raises(DesignError, match="leaves only post-period"):
        Event("2015").post(months)
    with pytest.raises(DesignError, match=r"ends .2014. before it begins"):
        Event("2015", end="2014")


def test_event_with_an_end():
    months = pd.date_range("2015-01-01", periods=12, freq="MS")
    assert Event("2015-06", end="2015-08").post(months).sum() == 3
