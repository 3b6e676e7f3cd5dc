"""Columns made from the treatment are refused; strong predictors of placement are not."""

import numpy as np
import pandas as pd
import pytest

from eocausal.checks.base import Verdict
from eocausal.checks.derived_columns import (
    DerivedColumns,
    derived_columns,
    refuse_derived_columns,
)
from eocausal.errors import LeakageError
from eocausal.estimators.arm_means import Estimand
from eocausal.estimators.observational import observe
from eocausal.estimators.scores import Hajek
from eocausal.estimators.weighting import Weighting, weight
from eocausal.studies.assemble import complete_covariates

N = 900


@pytest.fixture
def placed():
    """Places of which the poor, dark and remote were more often treated."""
    rng = np.random.default_rng(4)
    country = rng.choice(["Angola", "Chad", "Kenya", "Mali"], N)
    wealth = rng.normal(size=N)
    night = np.maximum(rng.normal(size=N), 0) * rng.lognormal(size=N)
    treated = (rng.random(N) < 1 / (1 + np.exp(0.5 + 2 * wealth + night))).astype(int)
    treated[country == "Mali"] = 0
    return pd.DataFrame(
        {
            "treated": treated,
            "country": country,
            "wealth": wealth,
            "night": night,
            "urban": rng.integers(0, 2, N),
            "mines": rng.poisson(0.3, N),
            "year": rng.integers(2005, 2012, N),
            "income": 100 + 30 * rng.normal(size=N),
            "y": rng.normal(size=N),
        }
    )


HONEST = ["country", "wealth", "night", "urban", "mines", "year", "income"]


def found(units, covariates, *, treatment="treated", missing="refuse"):
    complete, names, _, _ = complete_covariates(units, covariates, missing=missing)
    data = observe(complete, treatment=treatment, outcome="y", covariates=names)
    direct = None
    if not units[list(covariates)].isna().any().any():
        direct = observe(units, treatment=treatment, outcome="y", covariates=list(covariates))
        assert [k.column for k in derived_columns(direct)] == [
            k.column for k in derived_columns(data)
        ]
    return [leak.column for leak in derived_columns(data)]


def test_honest_covariates_pass_though_nobody_is_treated_in_a_country(placed):
    assert found(placed, HONEST) == []


MADE = {
    "the treatment": lambda u: u["treated"],
    "its negation": lambda u: ~u["treated"].astype(bool),
    "a text for it": lambda u: u["treated"].map({0: "none", 1: "project"}),
    "several texts for the treated": lambda u: pd.Series(
        np.where(u["treated"] == 1, np.where(u["urban"] == 1, "roads", "water"), "none")
    ),
    "treatment times a dose": lambda u: u["treated"] * u["income"],
    "treatment times few doses": lambda u: u["treated"] * (1 + u["year"] - 2005),
    "untreated times a covariate": lambda u: (1 - u["treated"]) * u["wealth"],
    "treatment times yes or no": lambda u: u["treated"] * u["urban"],
    "treatment times a count": lambda u: u["treated"] * u["mines"],
    "treatment times a covariate, rescaled": lambda u: 7 - 3 * u["treated"] * u["wealth"],
    "a covariate plus treatment": lambda u: u["income"] + 20 * u["treated"],
    "a covariate that the treatment multiplied": lambda u: u["income"] * (1 + u["treated"]),
    "the outcome of the treated": lambda u: u["treated"] * u["y"],
}


@pytest.mark.parametrize("how", MADE)
def test_made_from_the_treatment(placed, how):
    units = placed.assign(made=np.asarray(MADE[how](placed)))
    assert found(units, [*HONEST, "made"]) == ["made"]
    assert found(units, ["made", *HONEST]) == ["made"]


def test_of_two_columns_that_tell_the_arm_together_the_later_is_named_if_both_might_be_it(placed):
    units = placed.assign(made=placed["income"] + 0.1 * placed["treated"])
    assert found(units, ["income", "urban", "made"]) == ["made"]
    assert found(units, ["made", "urban", "income"]) == ["income"]
    assert found(units, ["made", "urban"]) == []
    units = placed.assign(made=placed["income"] + 20 * placed["treated"])
    assert found(units, ["made", "urban"]) == ["made"]
    assert found(units, ["income", "urban"]) == []


def test_the_partner_need_not_be_a_confounder(placed):
    units = placed.assign(made=placed["treated"] * placed["urban"])
    assert found(units, ["wealth", "made"]) == ["made"]
    assert found(units.drop(columns="urban"), ["wealth", "made"]) == []


def test_missing_in_one_arm(placed):
    honest = placed["income"].mask((placed["country"] == "Mali") | (placed["year"] == 2007))
    for arm in (0, 1):
        gone = placed["income"].mask(placed["treated"] == arm)
        units = placed.assign(loan=gone, partly=honest)
        assert found(units, [*HONEST, "loan", "partly"], missing="impute") == ["loan"]
    funded = placed["treated"].where(placed["treated"] == 1)
    assert found(placed.assign(funded=funded), ["funded"], missing="impute") == ["funded"]


def test_values_missing_at_random_do_not_hide_a_product(placed):
    rng = np.random.default_rng(1)
    made = (placed["treated"] * placed["wealth"]).mask(rng.random(N) < 0.05)
    assert found(placed.assign(made=made), [*HONEST, "made"], missing="impute") == ["made"]


def rules(rng, n=2000):
    """Honest covariates that separate arms by rule or by group, in ways that really occur."""
    district = rng.integers(0, 40, n)
    country = district // 4
    light = np.where(rng.random(n) < 0.5, 0.0, rng.lognormal(size=n))
    index = rng.normal(size=10)[country]
    table = {
        "country": np.array([f"c{k}" for k in country]),
        "district": district,
        "light": light,
        "index": index,
        "conflict": np.where(country == 3, 0, 1 + rng.poisson(3, 10)[country]),
        "elevation": rng.normal(size=40)[district] * 100,
        "poverty": rng.random(n),
        "rainfall": rng.gamma(2, size=n),
    }
    table |= {f"district_{k}": (district == k).astype(int) for k in range(40)}
    return pd.DataFrame(table).assign(y=rng.normal(size=n))


RULES = {
    "only unlit villages": lambda u, coin: (u["light"] == 0) & coin,
    "only one country": lambda u, coin: (u["conflict"] == 0) & coin,
    "poor villages, by threshold": lambda u, _: u["poverty"] > 0.7,
    "whole districts": lambda u, _: u["district"].isin([1, 2, 7, 12, 13, 30]),
    "whole districts of few countries": lambda u, _: u["district"].isin([1, 6]),
    "all but a district": lambda u, coin: (u["district"] != 3) & coin,
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(5))
def test_rules_of_placement_pass(rule, seed):
    rng = np.random.default_rng(seed)
    units = rules(rng)
    placed = RULES[rule](units, rng.random(len(units)) < 0.5).astype(int)
    units = units.assign(treated=placed)
    assert found(units, [c for c in units if c not in ("treated", "y")]) == []


def test_several_arms(placed):
    rng = np.random.default_rng(2)
    funder = np.where(placed["treated"] == 0, "none", rng.choice(["bank", "state"], N))
    units = placed.assign(funder=funder).drop(columns="treated")
    bank = (funder == "bank").astype(int)
    made = {
        "code": pd.factorize(funder)[0],
        "bank": bank,
        "loan": bank * units["income"],
        "poor loan": bank * units["urban"],
        "mixed": units["income"] + pd.factorize(funder)[0],
    }
    units = units.assign(**made)
    assert found(units, [*HONEST, *made], treatment="funder") == list(made)
    assert found(units, HONEST, treatment="funder") == []


def test_uganda_taken_as_placed(real_data):
    units = pd.read_csv(real_data("uganda_yop") / "units.csv")
    x = {c.split("_")[0]: c for c in units.columns if c.startswith("X")}
    leaks = {"X1", "X3", "X5", "X7"}
    for subset in (list(x), ["X3"], ["X5"], ["X1"], ["X7"], ["X3", "X4"], ["X2", "X4", "X6"]):
        columns = [x[k] for k in subset]
        wanted = [x[k] for k in subset if k in leaks]
        assert found(units, columns, treatment="treat", missing="impute") == wanted
    places = units[["X2_binA", "X4_contB", "X6_binC", "lon", "lat", "image_key"]]
    assert found(units, list(places), treatment="treat", missing="impute") == []


def test_refusal_names_columns_and_partners(placed):
    units = placed.assign(got=placed["treated"], dose=placed["treated"] * placed["urban"])
    data = observe(units, treatment="treated", outcome="y", covariates=["wealth", "got", "dose"])
    with pytest.raises(LeakageError) as caught:
        refuse_derived_columns(data)
    text = str(caught.value)
    assert "got equals the treatment (0 for '0', 1 for '1')" in text
    assert "dose (given urban) is 0 for every untreated unit" in text
    assert "Leave 'got', 'dose' out" in text
    refuse_derived_columns(observe(placed, treatment="treated", outcome="y", covariates=HONEST))
    refuse_derived_columns(observe(placed, treatment="treated", outcome="y"))


def test_check(placed):
    ato = Weighting(score=Hajek(Estimand.ATO))
    fitted = weight(
        placed, treatment="treated", outcome="y", covariates=["wealth", "urban"], decisions=ato
    )
    result = DerivedColumns().run(fitted)
    assert result.verdict is Verdict.PASS
    assert result.values == {"derived": []}
    units = placed.assign(dose=placed["treated"] * placed["urban"])
    fitted = weight(
        units, treatment="treated", outcome="y", covariates=["wealth", "dose"], decisions=ato
    )
    result = DerivedColumns().run(fitted)
    assert result.verdict is Verdict.FAIL
    assert result.values == {"derived": ["dose"]}
    assert result.table["given"].tolist() == ["urban"]
