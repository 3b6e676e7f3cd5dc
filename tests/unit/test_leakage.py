"""The leak check names what carries the treatment, and nothing else."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from eocausal.checks.base import Verdict
from eocausal.checks.leakage import (
    Leakage,
    TrialData,
    covariate_leaks,
    embedding_leak,
    refuse_embedding_leak,
    refuse_leaks,
)
from eocausal.designs import Trial
from eocausal.errors import EmbeddingError, EstimationError, LeakageError, MissingColumnError

N = 400
UNIT = Trial("arm")
CLUSTER = Trial("arm", cluster="village")


def names(units, trial, covariates):
    return [leak.column for leak in covariate_leaks(units, trial, covariates)]


@pytest.fixture
def unit_table():
    """An individually randomized trial with honest covariates of every kind."""
    rng = np.random.default_rng(11)
    arm = np.zeros(N, dtype=int)
    arm[rng.permutation(N)[: N // 2]] = 1
    z = rng.normal(size=N)
    return pd.DataFrame(
        {
            "arm": arm,
            "z": z,
            "z_squared": z**2,
            "z_in_feet": z * 3.28 + 1,
            "positive_part": np.maximum(z, 0),
            "age": rng.integers(18, 60, N),
            "poor": rng.random(N) < 0.4,
            "rare": (rng.random(N) < 0.01).astype(int),
            "region": rng.choice(["north", "south", "west"], N),
            "joined": pd.Timestamp("2001-01-01") + pd.to_timedelta(rng.integers(0, 900, N), "D"),
            "person": [f"p{i}" for i in range(N)],
            "income": np.where(rng.random(N) < 0.3, np.nan, rng.lognormal(size=N)),
            "constant": 1.0,
            "u": rng.uniform(0, 10, N),
            "steps": rng.integers(0, 8, N),
        }
    )


HONEST = (
    "z", "z_squared", "z_in_feet", "positive_part", "age", "poor", "rare", "region", "joined",
    "person", "income", "constant", "u", "steps",
)  # fmt: skip


@pytest.fixture
def cluster_table():
    """Arms drawn over 100 villages of 20 people."""
    rng = np.random.default_rng(5)
    village = np.repeat(np.arange(100), 20)
    arm = np.zeros(100, dtype=int)
    arm[rng.permutation(100)[:50]] = 1
    return pd.DataFrame(
        {
            "arm": arm[village],
            "village": village,
            "village_name": [f"v{v:03d}" for v in village],
            "lon": rng.uniform(30, 34, 100)[village],
            "population": rng.integers(100, 5000, 100)[village],
            "has_school": (rng.random(100) < 0.4)[village],
            "z": rng.normal(size=2000),
            "poor": (rng.random(2000) < 0.4).astype(int),
        }
    )


def test_honest_covariates_pass(unit_table, cluster_table):
    assert names(unit_table, UNIT, HONEST) == []
    honest = ["village", "village_name", "lon", "population", "has_school", "z", "poor"]
    assert names(cluster_table, CLUSTER, honest) == []


ALONE = {
    "equal": lambda t, d, rng: t,
    "reversed": lambda t, d, rng: 1 - t,
    "text": lambda t, d, rng: np.where(t == 1, "treated", "control"),
    "label": lambda t, d, rng: [f"{'CT'[a]}-{i:05d}" for i, a in enumerate(t)],
    "boolean": lambda t, d, rng: t == 1,
    "category": lambda t, d, rng: pd.Categorical(np.where(t == 1, "a", "b")),
    "affine": lambda t, d, rng: 7.25 - 3 * t,
    "date": lambda t, d, rng: pd.Timestamp("2008-01-01") + pd.to_timedelta(90 * t, "D"),
    "with noise": lambda t, d, rng: 10 * t + rng.normal(size=len(t)),
    "with overlapping noise": lambda t, d, rng: t + 0.2 * rng.normal(size=len(t)),
    "dose": lambda t, d, rng: t * rng.integers(1, 5, len(t)),
    "codes": lambda t, d, rng: np.where(t == 1, rng.choice([1, 3], len(t)), 2),
    "take-up": lambda t, d, rng: (t * (rng.random(len(t)) < 0.6)).astype(bool),
    "times continuous": lambda t, d, rng: t * d["z"],
    "times binary": lambda t, d, rng: t * d["poor"],
    "control times continuous": lambda t, d, rng: (1 - t) * d["z"],
    "times square": lambda t, d, rng: t * d["z"] ** 2,
    "missing for an arm": lambda t, d, rng: np.where(t == 1, d["z"], np.nan),
    "missing in an arm": lambda t, d, rng: np.where((t == 1) & (d["poor"] == 1), np.nan, d["z"]),
}


@pytest.mark.parametrize("kind", ALONE)
@pytest.mark.parametrize("level", ["unit", "cluster"])
def test_column_that_carries_the_arm_by_itself(kind, level, unit_table, cluster_table):
    units, trial = (unit_table, UNIT) if level == "unit" else (cluster_table, CLUSTER)
    leak = ALONE[kind](units["arm"].to_numpy(), units, np.random.default_rng(3))
    units = units.assign(leak=leak)
    for covariates in (["leak"], ["z", "poor", "leak"]):
        found = covariate_leaks(units, trial, covariates)
        assert [k.column for k in found] == ["leak"]
        assert found[0].given == ()
        assert 0 <= found[0].p_value < 1e-6


GIVEN = {
    "shift": ("u", lambda t, z, rng: z + 2 * t),
    "difference": ("u", lambda t, z, rng: z - 3 * t),
    "scale": ("u", lambda t, z, rng: z * (1 + t)),
    "ratio": ("u", lambda t, z, rng: z / (1 + t)),
    "gain of the treated": ("u", lambda t, z, rng: z + t * rng.gamma(2, 1, len(z))),
    "logarithm": ("u", lambda t, z, rng: np.log(z + 3 * t)),
    "square": ("u", lambda t, z, rng: (z + t) ** 2),
    "rounded": ("u", lambda t, z, rng: np.round(z + 2 * t, 1)),
    "single precision": ("u", lambda t, z, rng: (z + 2 * t).astype("float32")),
    "a little noise": ("u", lambda t, z, rng: z + 2 * t + 0.05 * rng.normal(size=len(z))),
    "some missing": ("u", lambda t, z, rng: np.where(rng.random(len(z)) < 0.1, np.nan, z + 2 * t)),
    "exclusive or": ("poor", lambda t, z, rng: np.abs(t - z.astype(int))),
    "steps": ("steps", lambda t, z, rng: z + 3 * t),
    "root of steps": ("steps", lambda t, z, rng: np.sqrt(z + 4 * t)),
    "region": ("region", lambda t, z, rng: np.where(z == "north", t, np.where(z == "west", 1, 0))),
}


@pytest.mark.parametrize("kind", GIVEN)
def test_column_that_carries_the_arm_given_another(kind, unit_table):
    given, make = GIVEN[kind]
    arm = unit_table["arm"].to_numpy()
    leak = make(arm, unit_table[given].to_numpy(), np.random.default_rng(3))
    units = unit_table.assign(leak=leak)
    found = covariate_leaks(units, UNIT, [*HONEST, "leak"])
    assert [k.column for k in found] == ["leak"]
    if given != "region":
        assert covariate_leaks(units, UNIT, [given, "leak"])[0].given in {(given,), ()}


def test_rare_interaction_needs_its_partner(unit_table):
    """One person in ten, half of them treated: only the partner shows that it is no luck."""
    rng = np.random.default_rng(0)
    rare = (rng.random(N) < 0.1).astype(int)
    units = unit_table.assign(rare=rare, leak=rare * unit_table["arm"])
    assert names(units, UNIT, ["leak"]) == []
    assert names(units, UNIT, ["rare", "leak"]) == ["leak"]


def test_column_missing_on_some_rows_and_its_partner(unit_table):
    units = unit_table.assign(leak=unit_table["arm"] * unit_table["income"])
    assert names(units, UNIT, ["income", "leak"]) == ["leak"]


def test_uganda(real_data):
    units = pd.read_csv(real_data("uganda_yop") / "units.csv")
    x = {c.split("_")[0]: c for c in units.columns if c.startswith("X")}
    leaks = {"X1", "X3", "X5", "X7"}
    subsets = [
        list(x), ["X3"], ["X5"], ["X1"], ["X7"], ["X3", "X4"], ["X4", "X5"], ["X2", "X4", "X6"],
        ["X7", "X6", "X3"],
    ]  # fmt: skip
    for trial in (Trial("treat", cluster="image_key"), Trial("treat")):
        for subset in subsets:
            wanted = [x[k] for k in subset if k in leaks]
            assert names(units, trial, [x[k] for k in subset]) == wanted
        honest = ["X2_binA", "X4_contB", "X6_binC", "lon", "lat", "image_key"]
        assert names(units, trial, honest) == []


def test_refusal_names_every_column_and_what_remains(unit_table):
    units = unit_table.assign(got=unit_table["arm"], dose=unit_table["arm"] * unit_table["u"])
    with pytest.raises(LeakageError) as caught:
        refuse_leaks(units, UNIT, ["z", "got", "age", "dose"])
    assert "'got'" in caught.value.next_step
    assert "'dose'" in caught.value.next_step
    assert "use only 'z', 'age'" in caught.value.next_step
    assert "got equals the arm (1 for treated, 0 for control)" in str(caught.value)
    refuse_leaks(units, UNIT, ["z", "age"])


def test_few_clusters_still_show_a_dose(cluster_table):
    units = cluster_table[cluster_table["village"] < 24].copy()
    units["dose"] = units["arm"] * np.random.default_rng(1).lognormal(size=len(units))
    assert names(units, CLUSTER, ["z", "population", "has_school", "dose"]) == ["dose"]


def test_blocks_are_respected():
    """A covariate that follows the stratum's known chance of treatment is no leak."""
    rng = np.random.default_rng(2)
    stratum = np.repeat([0, 1], 1000)
    prob = np.where(stratum == 1, 0.98, 0.02)
    units = pd.DataFrame({"arm": (rng.random(2000) < prob).astype(int), "p": prob, "s": stratum})
    units["like_s"] = stratum * 5 + rng.normal(size=2000)
    assert names(units, Trial("arm", prob="p"), ["s", "p", "like_s"]) == []
    assert names(units, Trial("arm", block="s"), ["s", "p", "like_s"]) == []
    assert names(units, Trial("arm"), ["like_s"]) == ["like_s"]


def test_pairs_within_clusters_that_hold_both_arms():
    """Arms drawn within villages: the village is no unit of assignment."""
    rng = np.random.default_rng(2)
    village = np.repeat(np.arange(10), 40)
    units = pd.DataFrame(
        {"village": village, "arm": np.tile([0, 1], 200), "z": rng.normal(size=400)}
    )
    units["leak"] = np.sqrt(np.abs(units["z"]) + units["arm"])
    units["height"] = np.abs(units["z"])
    assert names(units, CLUSTER, ["z", "height", "leak"]) == ["leak"]


def test_order_of_rows_and_of_equal_inputs_does_not_matter(unit_table):
    units = unit_table.assign(leak=np.log(unit_table["u"] + 3 * unit_table["arm"]))
    mixed = units.sample(frac=1, random_state=1)
    by_arm = units.sort_values("arm", kind="stable")
    for table in (units, mixed, by_arm):
        assert names(table, UNIT, ["z", "u", "leak", "leak"]) == ["leak"]


def test_wrong_use(unit_table):
    assert covariate_leaks(unit_table, UNIT, []) == []
    with pytest.raises(MissingColumnError, match="closest: 'age'"):
        covariate_leaks(unit_table, UNIT, ["agee"])
    with pytest.raises(EstimationError, match="alpha"):
        covariate_leaks(unit_table, UNIT, ["age"], alpha=0)
    assert names(unit_table, UNIT, ["arm"]) == ["arm"]


def test_columns_of_extremes_raise_no_warning(unit_table):
    units = unit_table.assign(
        huge=unit_table["z"] * 1e200, tiny=unit_table["z"] * 1e-200, empty=np.nan,
        infinite=np.where(unit_table["poor"], np.inf, unit_table["z"]), nullable=pd.array(
            [None, 1] * (N // 2), dtype="Int64"), mixed_types=["1", 2, None, 3.5] * (N // 4),
    )  # fmt: skip
    columns = ["huge", "tiny", "empty", "infinite", "nullable", "mixed_types", "z"]
    assert names(units, UNIT, columns) == []


def make_embedding(date):
    return xr.DataArray(
        np.zeros((2, 3), dtype="float32"),
        dims=("neighborhood", "feature"),
        attrs={"encoder": "random_conv", "last_image_date": date},
    )


@pytest.mark.parametrize(
    ("date", "start", "late"),
    [
        ("2007-12-31", "2008-01-01", False),
        ("2008-01-01", "2008-01-01", True),
        ("2008-01-02", "2008-01-01", True),
        ("2008", "2008-06-01", True),
        ("2007", "2008-01-01", False),
        ("2008-05", "2008-06-01", False),
        ("2008-01-01T10:00:00Z", "2008-01-02", False),
        ("", "2008-01-01", False),
        ("2020-01-01", None, False),
    ],
)
def test_embedding_dates(date, start, late):
    trial = Trial("arm", start=start)
    leak = embedding_leak(make_embedding(date), trial)
    assert (leak is not None) == late
    if late:
        with pytest.raises(LeakageError) as caught:
            refuse_embedding_leak(make_embedding(date), trial)
        assert date in str(caught.value)
        assert start in str(caught.value)
    else:
        refuse_embedding_leak(make_embedding(date), trial)


def test_embedding_with_a_wrong_date():
    trial = Trial("arm", start="2008-01-01")
    with pytest.raises(EmbeddingError, match="not a date"):
        embedding_leak(make_embedding("soon"), trial)
    with pytest.raises(EmbeddingError, match="last_image_date"):
        embedding_leak(xr.DataArray(np.zeros((1, 1))), trial)


def test_check_verdicts(unit_table):
    dated = Trial("arm", start="2008-01-01")
    bad = unit_table.assign(got=unit_table["arm"])

    def run(trial, covariates, date, units=unit_table):
        return Leakage().run(TrialData(units, trial, covariates, date))

    clean = run(dated, ("z",), "2007-01-01")
    assert clean.verdict is Verdict.PASS
    assert "2007-01-01" in clean.claim
    assert run(UNIT, ("z",), None).verdict is Verdict.PASS
    for trial, date in ((dated, ""), (UNIT, "2007-01-01"), (UNIT, "")):
        result = run(trial, ("z",), date)
        assert result.verdict is Verdict.WARN
        assert result.values["dates_unknown"]
    late = run(dated, ("z",), "2009-01-01")
    assert late.verdict is Verdict.FAIL
    assert "2009-01-01" in late.detail
    found = run(dated, ("z", "got"), "", units=bad)
    assert found.verdict is Verdict.FAIL
    assert list(found.table["column"]) == ["got"]
    assert "date of the last image is not known" in found.detail
