"""``eocausal weight``: the textbook to eight digits, variances, trimming, refusals, wrong words."""

import json

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from typer.testing import CliRunner

from eocausal.cli import app
from eocausal.effects import Influence
from eocausal.errors import EstimationError
from eocausal.estimators.arm_means import Estimand
from eocausal.estimators.inference import Clustered, Conley
from eocausal.estimators.scores import AIPW, CBPS, EntropyBalancing, Hajek
from eocausal.estimators.trimming import Clip, Crump, Drop
from eocausal.folds import GroupFolds, RandomFolds, SpatialBlocks
from eocausal.simulate.no_overlap import (
    ComparisonSurveyConfig,
    SaturatedRegionConfig,
    simulate_comparison_survey,
    simulate_saturated_region,
)
from eocausal.studies.records import EstimateRecord
from eocausal.studies.weight_command import (
    parse_conley,
    parse_folds,
    parse_models,
    parse_score,
    parse_trim,
)

FAILED_CHECK = 3


def call(*arguments):
    return CliRunner().invoke(app, ["weight", *(str(a) for a in arguments)])


def frame(n=600, seed=0):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n))
    country = rng.choice(["Chad", "Kenya", "Mali"], n)
    w = (rng.random(n) < 1 / (1 + np.exp(-a + 0.5 * (country == "Mali")))).astype(int)
    y = 2 * w + a + b + (country == "Kenya") + rng.normal(size=n)
    return pd.DataFrame(
        {"w": w, "y": y, "a": a, "b": b, "country": country, "village": np.arange(n) // 6,
         "lon": rng.uniform(30, 34, n), "lat": rng.uniform(-2, 2, n)}
    )  # fmt: skip


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "units.csv"
    frame().to_csv(path, index=False)
    return path


BASE = ("--treatment", "w", "--outcome", "y", "--covariates", "a,b,country")
TEXTBOOK = (*BASE, "--propensity", "logit", "--folds", "none", "--score")


def records(shown):
    assert shown.exit_code in (0, FAILED_CHECK), shown.output
    found = json.loads(shown.stdout)
    for record in found:
        EstimateRecord.model_validate(record)
    assert [r.get("primary", False) for r in found] == [True] + [False] * (len(found) - 1)
    return found


def textbook(units, estimand):
    """Return estimate and influence values by statsmodels and the formulas of METHODS D1."""
    places = [units["country"] == name for name in ("Kenya", "Mali")]
    z = np.column_stack([np.ones(len(units)), units[["a", "b"]], *places]).astype(float)
    a, y = units["w"].to_numpy(), units["y"].to_numpy()
    e = sm.Logit(a, z).fit(disp=0, tol=1e-14, maxiter=100).predict(z)
    w, dw = {
        "ATE": (a / e + (1 - a) / (1 - e), -a * (1 - e) / e + (1 - a) * e / (1 - e)),
        "ATT": (a + (1 - a) * e / (1 - e), (1 - a) * e / (1 - e)),
        "ATO": (a * (1 - e) + (1 - a) * e, e * (1 - e) * (1 - 2 * a)),
    }[estimand]
    hessian = (z * (e * (1 - e))[:, None]).T @ z
    scores = z * (a - e)[:, None]
    means, psi = [], []
    for k in (0, 1):
        own = (a == k).astype(float)
        mean = (w * own) @ y / (w @ own)
        pull = z.T @ (dw * own * (y - mean))
        psi.append((w * own * (y - mean) + scores @ np.linalg.solve(hessian, pull)) / (w @ own))
        means.append(mean)
    return means[1] - means[0], psi[1] - psi[0]


@pytest.mark.parametrize(("score", "estimand"), [("hajek", "ATE"), ("att", "ATT"), ("ato", "ATO")])
def test_the_textbook_estimator_can_be_checked_against_anyones(table, score, estimand):
    (found,) = records(call(table, *TEXTBOOK, score, "--json"))
    estimate, psi = textbook(frame(), estimand)
    assert found["estimate"] == pytest.approx(estimate, rel=1e-8)
    assert found["std_error"] == pytest.approx(np.sqrt(psi @ psi), rel=1e-8)
    assert found["estimand"] == estimand
    assert found["n"] == 600
    assert found["treatment"] == "w"
    assert found["outcome"] == "y"


def test_clusters_and_distances_are_those_of_the_influence_values(table):
    options = ("--cluster", "village", "--conley", "50km", "--json")
    clustered, conley = records(call(table, *TEXTBOOK, "hajek", *options))
    units = frame()
    _, psi = textbook(units, "ATE")
    influence = Influence(units.index, psi, psi)
    for found, rule in ((clustered, Clustered("village")), (conley, Conley(50))):
        want = rule.variance(influence, units)
        assert found["std_error"] == pytest.approx(np.sqrt(want.value), rel=1e-7)
        assert found["vcov"] == repr(rule)
        assert found["estimate"] == clustered["estimate"]
    sums = np.bincount(units["village"], psi)
    assert clustered["std_error"] == pytest.approx(np.sqrt(100 / 99 * sums @ sums), rel=1e-7)
    moved = units.rename(columns={"lon": "east", "lat": "north"})
    moved.to_csv(table, index=False)
    options = ("--conley", "50", "--lon", "east", "--lat", "north", "--json")
    (again,) = records(call(table, *TEXTBOOK, "hajek", *options))
    assert again["std_error"] == pytest.approx(conley["std_error"], rel=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        (), ("--score", "ebal"), ("--score", "cbps", "--estimand", "ate"),
        ("--propensity", "boost", "--folds", "3"), ("--folds", "group:village"),
        ("--folds", "blocks:100km"), ("--repeats", "3"), ("--estimand", "ato"),
        ("--trim", "crump"), ("--trim", "0.05"), ("--trim", "clip:0.05"),
    ],
)  # fmt: skip
def test_every_kind_of_estimate_is_near_the_truth(table, options):
    (found,) = records(call(table, *BASE, *options, "--json"))
    assert abs(found["estimate"] - 2) < 4 * found["std_error"]
    assert found["ci_low"] < found["estimate"] < found["ci_high"]


def test_trimming_is_reported(table):
    units = frame()
    strong = units.assign(w=(np.random.default_rng(1).random(600)
                             < 1 / (1 + np.exp(-1.2 * units["a"]))).astype(int))  # fmt: skip
    strong["y"] += 2 * (strong["w"] - units["w"])
    strong.to_csv(table, index=False)
    (found,) = records(call(table, *TEXTBOOK, "hajek", "--trim", "0.1", "--json"))
    assert found["n_trimmed"] == 600 - found["n"] > 20
    assert found["estimand"] == "ATE of the kept"
    assert "were left out (Drop(low=0.1))" in found["note"]
    (found,) = records(call(table, *TEXTBOOK, "hajek", "--trim", "clip:0.1", "--json"))
    assert found["n_clipped"] > 20
    assert found["n"] == 600
    shown = call(table, *TEXTBOOK, "hajek", "--trim", "crump")
    assert shown.exit_code == 0
    assert "were left out (Crump())" in shown.stdout


def test_level_and_seed(table):
    (ninety,) = records(call(table, *TEXTBOOK, "hajek", "--level", "0.9", "--json"))
    (usual,) = records(call(table, *TEXTBOOK, "hajek", "--json"))
    assert ninety["level"] == 0.9
    assert ninety["ci_high"] - ninety["ci_low"] < usual["ci_high"] - usual["ci_low"]
    one, same, other = (
        records(call(table, *BASE, "--seed", s, "--json"))[0]["estimate"] for s in (1, 1, 2)
    )
    assert one == same != other


def test_two_treatments_come_with_their_difference(table):
    units = frame()
    rng = np.random.default_rng(4)
    names = np.where(units["w"] == 0, "nothing", rng.choice(["road", "school"], 600))
    units["y"] += (names == "school") * 1.0
    units.assign(w=names).to_csv(table, index=False)
    options = ("--untreated", "nothing", "--cluster", "village")
    road, school, between = records(call(table, *TEXTBOOK, "hajek", *options, "--json"))
    assert [r["treatment"] for r in (road, school, between)] == ["road", "school", "school - road"]
    assert between["estimate"] == pytest.approx(school["estimate"] - road["estimate"])
    assert between["std_error"] < np.hypot(road["std_error"], school["std_error"])
    assert abs(between["estimate"] - 1) < 4 * between["std_error"]
    shown = call(table, *TEXTBOOK, "hajek", *options)
    assert shown.exit_code == 0
    assert "treatment" in shown.stdout
    assert "school - road" in shown.stdout


def test_missing_values_are_imputed_and_said(table):
    units = frame()
    units.loc[:19, "b"] = np.nan
    units.loc[30:35, "country"] = None
    units.to_csv(table, index=False)
    shown = call(table, *BASE)
    assert shown.exit_code == 0
    assert "20 missing values of b are replaced" in shown.stdout
    assert "6 missing values of country are replaced" in shown.stdout


def test_a_region_where_everyone_is_treated_is_refused_and_alternatives_offered(table):
    world = simulate_saturated_region(SaturatedRegionConfig(), np.random.default_rng(0))
    world.to_csv(table, index=False)
    asked = (table, "--treatment", "treated", "--outcome", "outcome",
             "--covariates", "x,lat,country")  # fmt: skip
    shown = call(*asked, "--json")
    assert shown.exit_code == FAILED_CHECK
    refused, ato, att, trimmed = records(shown)
    assert refused["status"] == "refused"
    assert refused["estimate"] is None
    assert refused["std_error"] is None
    east = int((world["country"] == "East").sum())
    assert (
        f"no unit of arm '0' occurs among {east} units, exactly those with country East: "
        in (refused["note"])
    )
    assert ato["estimand"] == "ATO"
    assert abs(ato["estimate"] - 1) < 4 * ato["std_error"]
    assert att["status"] == "refused"
    assert trimmed["estimand"] == "ATE of the kept"
    assert abs(trimmed["estimate"] - 1) < 4 * trimmed["std_error"]
    shown = call(*asked)
    assert shown.exit_code == FAILED_CHECK
    assert "exactly those with country East" in shown.stdout.replace("\n", " ")


@pytest.mark.parametrize("config", [ComparisonSurveyConfig(), ComparisonSurveyConfig.psid()])
def test_a_programme_compared_with_a_survey_is_refused(table, config):
    world = simulate_comparison_survey(config, np.random.default_rng(1))
    world.drop(columns="effect").to_csv(table, index=False)
    columns = ",".join(f"x{k}" for k in range(1, 9))
    named = ("--treatment", "treated", "--outcome", "outcome", "--covariates", columns)
    shown = call(table, *named, *TEXTBOOK[6:], "hajek", "--json")
    assert shown.exit_code == FAILED_CHECK
    found = {r["estimand"]: r for r in records(shown)}
    assert found["ATE"]["status"] == "refused"
    assert "The ATE is refused" in found["ATE"]["note"]
    for estimand in ("ATO", "ATE of the kept"):
        assert found[estimand]["status"] != "refused"
        assert found[estimand]["std_error"] > 0


def test_columns_that_separate_the_arms_are_a_refusal_with_their_names(table):
    units = frame()
    units["rare"] = ((units["w"] == 1) & (units["b"] > 1.8)).astype(int)
    units.to_csv(table, index=False)
    options = (*TEXTBOOK[:5], "a,b,rare", *TEXTBOOK[6:], "hajek", "--json")
    shown = call(table, *options)
    assert shown.exit_code == FAILED_CHECK
    assert "('rare'; each of them alone does)" in records(shown)[0]["note"]


def test_a_column_made_from_the_treatment_is_refused(table):
    units = frame()
    units["dose"] = units["w"] * (1 + units["b"].abs())
    units.to_csv(table, index=False)
    shown = call(table, "--treatment", "w", "--outcome", "y", "--covariates", "a,dose")
    assert shown.exit_code == 2
    assert "dose" in shown.stderr
    assert "[EO600]" in shown.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--score", "hajeck"), "'hajeck' is not a score (closest: hajek)"),
        (("--score", "tmle"), "Known are hajek, aipw, ebal, cbps, ato, att"),
        (("--estimand", "atx"), "'atx' is not an estimand (closest: at"),
        (("--propensity", "logits"), "'logits' is not a model of treatment (closest: logit)"),
        (("--folds", "non"), "'non' is not a rule for folds (closest: none)"),
        (("--folds", "block:100km"), "(closest: blocks:100km)"),
        (("--folds", "blocks:far"), "is not a rule for folds"),
        (("--folds", "group:"), "is not a rule for folds"),
        (("--folds", "1"), "k=1 folds leave nothing to fit on"),
        (("--folds", "group:town"), "'town'"),
        (("--trim", "crumb"), "(closest: crump)"),
        (("--trim", "0.7"), "no bound for probabilities"),
        (("--trim", "clip:x"), "is not a way to trim"),
        (("--trim", "crump", "--score", "ebal"), "nothing to trim by"),
        (("--conley", "50miles"), "'50miles' is not a distance in kilometres"),
        (("--cluster", "town"), "'town'"),
        (("--repeats", "2", "--folds", "none"), "2 repeats without folds"),
        (("--score", "ebal", "--estimand", "ato"), "no ATO"),
        (("--untreated", "7"), "means no treatment"),
        (("--covariates", "a,bb"), "'bb'"),
        (("--covariates", "a,y"), "named in two roles"),
        (("--outcome", "country"), "country"),
    ],
)
def test_wrong_words_are_told_with_the_closest_right_one(table, options, words):
    shown = call(table, *BASE, *options)
    assert shown.exit_code == 2, shown.output
    assert words in shown.stderr.replace("\n", " ")


def test_words_become_decisions():
    assert parse_score("aipw") == AIPW()
    assert parse_score("hajek", "ATT") == Hajek(Estimand.ATT)
    assert parse_score("ato") == Hajek(Estimand.ATO)
    assert parse_score("ebal") == EntropyBalancing(Estimand.ATT)
    assert parse_score("cbps", "ato") == CBPS(Estimand.ATO)
    where = {"lon": "x", "lat": "y"}
    assert parse_folds("none", **where) is None
    assert parse_folds("4", **where) == RandomFolds(4)
    assert parse_folds("group:village", **where) == GroupFolds("village")
    assert parse_folds("blocks:100km", **where) == SpatialBlocks(100, lon="x", lat="y")
    assert parse_folds("blocks:12.5", **where) == SpatialBlocks(12.5, lon="x", lat="y")
    assert parse_trim(None) is parse_trim("none") is None
    assert parse_trim("crump") == Crump()
    assert parse_trim("0.05") == Drop(0.05)
    assert parse_trim("clip:0.01") == Clip(0.01)
    assert parse_conley("50 km", **where) == Conley(50, lon="x", lat="y")
    assert type(parse_models("boost")[0]).__name__ == "BoostedPropensity"
    with pytest.raises(EstimationError, match="Known are logit, ridge, boost"):
        parse_models("forest")
