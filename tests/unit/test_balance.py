"""Balance and attrition of a trial."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from eocausal.checks.balance import Balance, balance_table, balance_test
from eocausal.checks.base import Verdict
from eocausal.checks.leakage import TrialData
from eocausal.checks.overlap import Attrition, attrition_table
from eocausal.designs import Trial
from eocausal.errors import AlignmentError, EstimationError, MissingColumnError

TRIAL = Trial("arm", cluster="village")


@pytest.fixture
def units():
    rng = np.random.default_rng(8)
    village = rng.integers(0, 60, 900)
    arm = rng.permutation(np.repeat([0, 1], 30))
    effect = rng.normal(size=60)
    return pd.DataFrame(
        {
            "village": village,
            "arm": arm[village],
            "z": rng.normal(size=900) + effect[village],
            "poor": rng.random(900) < 0.4,
            "region": np.array(["north", "south", "west"])[village % 3],
            "joined": pd.Timestamp("2001-01-01") + pd.to_timedelta(rng.integers(0, 900, 900), "D"),
            "gaps": np.where(rng.random(900) < 0.2, np.nan, rng.normal(size=900)),
            "constant": 1.0,
        }
    )


COVARIATES = ("z", "poor", "region", "joined", "gaps", "constant")


def test_table_against_least_squares(units):
    """The clustered error equals that of a regression on the arm, but for its small factor."""
    table = balance_table(units, TRIAL, COVARIATES)
    assert list(table.index) == [
        "z", "poor", "region=north", "region=south", "region=west", "joined", "gaps", "constant",
    ]  # fmt: skip
    for name in ("z", "poor", "gaps"):
        seen = units[name].notna()
        fit = sm.OLS(units[name][seen].astype(float), sm.add_constant(units["arm"][seen])).fit(
            cov_type="cluster",
            cov_kwds={"groups": units["village"][seen], "use_correction": False},
        )
        n = units["village"][seen].nunique()
        row = table.loc[name]
        assert row["difference"] == pytest.approx(fit.params["arm"], rel=1e-12)
        assert row["std_error"] == pytest.approx(fit.bse["arm"] * np.sqrt(n / (n - 1)), rel=1e-10)
    a, b = (units.loc[units["arm"] == k, "z"] for k in (1, 0))
    smd = (a.mean() - b.mean()) / np.sqrt((a.var(ddof=0) + b.var(ddof=0)) / 2)
    assert table.loc["z", "smd"] == pytest.approx(smd, rel=1e-12)
    assert (
        table.loc["gaps", "missing_treated"] == units.loc[units["arm"] == 1, "gaps"].isna().mean()
    )
    assert table.loc["constant", ["smd", "p_value"]].isna().all()
    assert table.loc["constant", "difference"] == pytest.approx(0, abs=1e-12)


def test_table_weights_by_known_probabilities():
    """In each stratum the covariate is constant, so that a weighted comparison finds nothing."""
    units = pd.DataFrame({"s": np.repeat([0, 1], 100)})
    units["arm"] = np.r_[np.repeat([1, 0], [20, 80]), np.repeat([1, 0], [80, 20])]
    units["x"] = units["s"] * 3.0
    table = balance_table(units, Trial("arm", block="s"), ["x"])
    assert table.loc["x", "difference"] == pytest.approx(0, abs=1e-12)
    assert balance_table(units, Trial("arm"), ["x"]).loc["x", "difference"] == pytest.approx(1.8)


def test_column_that_equals_the_arm_has_infinite_difference(units):
    table = balance_table(units.assign(same=units["arm"]), TRIAL, ["same"])
    assert table.loc["same", "smd"] == np.inf
    assert table.loc["same", "p_value"] == 0


def test_column_seen_in_one_arm_only(units):
    one_arm = units.assign(dose=np.where(units["arm"] == 1, 1.0, np.nan))
    table = balance_table(one_arm, TRIAL, ["dose"])
    assert np.isnan(table.loc["dose", "difference"])
    assert table.loc["dose", "missing_control"] == 1


def test_omnibus_statistic_equals_its_formula(units):
    """With one covariate d² is the squared difference of totals over its exact variance."""
    totals = units["z"].sub(units["z"].mean()).groupby(units["village"]).sum()
    arm = units.groupby("village")["arm"].first()
    n, t = len(arm), arm.sum()
    difference = totals[arm == 1].sum() - t * totals.mean()
    variance = t * (n - t) / n * totals.var(ddof=1)
    test = balance_test(units, TRIAL, ["z"], draws=19)
    assert test.statistic == pytest.approx(difference**2 / variance, rel=1e-9)
    assert test.rank == 1


def test_omnibus_is_seeded_and_knows_duplicates(units):
    first = balance_test(units, TRIAL, COVARIATES, draws=199, seed=4)
    assert first == balance_test(units, TRIAL, COVARIATES, draws=199, seed=4)
    double = units.assign(z_in_feet=units["z"] * 3.28)
    again = balance_test(double, TRIAL, [*COVARIATES, "z_in_feet"], draws=199, seed=4)
    assert again.rank == first.rank
    assert again.p_value == first.p_value


def draw_p_values(design, draws):
    rng = np.random.default_rng(3)
    for _ in range(draws):
        if design == "cluster":
            village = rng.integers(0, 30, 200)
            units = pd.DataFrame({"arm": rng.permutation(np.arange(30) % 2)[village], "c": village})
            x = rng.normal(size=30)[village] + rng.lognormal(size=200)
            trial = Trial("arm", cluster="c")
        elif design == "block":
            block = np.arange(200) // 4
            arm = np.concatenate([rng.permutation([1, 0, 0, 0]) for _ in range(50)])
            units, x = pd.DataFrame({"arm": arm, "c": block}), block + rng.normal(size=200)
            trial = Trial("arm", block="c")
        else:
            score = rng.normal(size=200)
            prob = 1 / (1 + np.exp(-score))
            units = pd.DataFrame({"arm": (rng.random(200) < prob).astype(int), "p": prob})
            x, trial = score, Trial("arm", prob="p")
        units = units.assign(x=x, y=rng.normal(size=200))
        yield balance_test(
            units, trial, ["x", "y"], draws=99, seed=int(rng.integers(1 << 30))
        ).p_value


@pytest.mark.parametrize("design", ["cluster", "block", "prob"])
def test_omnibus_p_value_is_uniform_under_the_design(design):
    """200 trials: the share with p <= 0.1 lies within four standard errors of 0.1."""
    p = np.array(list(draw_p_values(design, 200)))
    assert abs((p <= 0.1).mean() - 0.1) < 4 * np.sqrt(0.09 / 200)
    assert 0.4 < p.mean() < 0.6


def test_verdicts(units):
    subject = TrialData(units, TRIAL, COVARIATES)
    assert Balance(draws=199).run(subject).verdict is Verdict.PASS
    shifted = units.assign(z=units["z"] + 2 * units["arm"])
    bad = Balance(draws=199).run(TrialData(shifted, TRIAL, COVARIATES))
    assert bad.verdict is Verdict.WARN
    assert "(z)" in bad.claim
    assert bad.values["omnibus_p"] == 1 / 200
    assert (
        Balance().run(TrialData(units.assign(constant=0.1), TRIAL, ("constant",))).verdict
        is Verdict.PASS
    )
    with pytest.raises(EstimationError, match="redraws"):
        balance_test(units, TRIAL, ["z"], draws=0)
    with pytest.raises(MissingColumnError):
        balance_table(units, TRIAL, ["zz"])


def test_attrition(units):
    rng = np.random.default_rng(1)
    even = rng.random(len(units)) > 0.1
    outcome = np.where(rng.random(len(units)) < 0.05, np.nan, 1.0)
    subject = TrialData(units.assign(y=outcome), TRIAL, ("z", "gaps"), outcome="y", has_image=even)
    table = attrition_table(subject, draws=199)
    assert list(table.index) == [
        "image",
        "outcome y",
        "covariate z",
        "covariate gaps",
        "any of these",
    ]
    assert table.loc["image", ["treated", "control"]].sum() == (~even).sum()
    assert table.loc["covariate z", "p_value"] == 1
    assert Attrition(draws=199).run(subject).verdict is Verdict.PASS

    uneven = even & ~((units["arm"] == 1) & (rng.random(len(units)) < 0.3)).to_numpy()
    result = Attrition(draws=1999).run(TrialData(units, TRIAL, (), has_image=uneven))
    assert result.verdict is Verdict.FAIL
    assert (
        Attrition(draws=1999, gross=0.01).run(TrialData(units, TRIAL, (), has_image=uneven)).verdict
        is Verdict.FAIL
    )
    assert "lack image" in result.claim
    nothing = Attrition().run(TrialData(units, TRIAL, ("z",)))
    assert nothing.verdict is Verdict.PASS
    assert "No unit lacks" in nothing.claim
    with pytest.raises(AlignmentError, match="3 entries for 900 units"):
        attrition_table(TrialData(units, TRIAL, has_image=np.ones(3, dtype=bool)))


def test_uganda_is_balanced_in_its_covariates(real_data):
    units = pd.read_csv(real_data("uganda_yop") / "units.csv")
    trial = Trial("treat", cluster="image_key")
    subject = TrialData(units, trial, ("X2_binA", "X4_contB", "X6_binC"), outcome="y")
    assert Balance().run(subject).verdict is Verdict.PASS
    assert Attrition().run(subject).verdict is Verdict.PASS
