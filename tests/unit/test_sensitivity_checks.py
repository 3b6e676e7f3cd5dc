"""Sensitivity checks of weighted effects: verdicts, agreement with the estimate, refusals."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from eocausal.checks.base import Verdict
from eocausal.checks.sensitivity.benchmarks import leave_out_each
from eocausal.checks.sensitivity.evalue import EValue, e_value, risk_ratio
from eocausal.checks.sensitivity.image_confounders import ImageConfounders, image_confounders
from eocausal.checks.sensitivity.information_bounds import InformationBounds
from eocausal.checks.sensitivity.linear_omitted_variable import (
    LinearOmittedVariable,
    linear_benchmarks,
    linear_effect,
)
from eocausal.checks.sensitivity.marginal_sensitivity import (
    MarginalBounds,
    MarginalSensitivity,
    odds_benchmarks,
)
from eocausal.checks.sensitivity.omitted_variable import (
    OmittedVariable,
    OmittedVariableBounds,
    confounding_strength,
    omitted_benchmarks,
)
from eocausal.checks.sensitivity.short_scale import short_scale
from eocausal.errors import EstimationError
from eocausal.estimators.arm_means import ArmMeans, Estimand
from eocausal.estimators.inference import Clustered
from eocausal.estimators.logit import Logit
from eocausal.estimators.ridge import Ridge
from eocausal.estimators.scores import AIPW, CBPS, EntropyBalancing, Hajek
from eocausal.estimators.weighting import Weighting, weight
from eocausal.folds import GroupFolds


def table(n=500, effect=1.0, confounding=1.0, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    w = (rng.random(n) < 1 / (1 + np.exp(-confounding * x[:, 0]))).astype(int)
    y = effect * w + confounding * x[:, 0] + 0.3 * x[:, 1] + rng.normal(size=n)
    units = pd.DataFrame(x, columns=["a", "b", "c"])
    units["country"] = rng.choice(["KE", "TZ", "UG"], n)
    return units.assign(w=w, y=y, yes=(y > 0.5).astype(int), village=np.arange(n) // 5)


def fit(units=None, columns=("a", "b", "c", "country"), outcome="y", images=None, **decided):
    units = table() if units is None else units
    return weight(
        units, treatment="w", outcome=outcome, covariates=columns, images=images,
        decisions=Weighting(**decided),
    )  # fmt: skip


ALL = [EValue(), LinearOmittedVariable(), OmittedVariable(), MarginalSensitivity()]


@pytest.mark.parametrize("check", ALL, ids=lambda c: type(c).__name__)
def test_strong_effect_passes_and_weak_one_with_a_strong_confounder_does_not(check):
    strong = check.run(fit(table(effect=4.0, confounding=0.3)))
    assert strong.verdict is Verdict.PASS
    assert "stronger" in strong.detail
    weak = check.run(fit(table(n=4000, effect=0.25, confounding=1.0)))
    assert weak.verdict is Verdict.FAIL
    assert "'a'" in weak.detail
    between = [check.run(fit(table(effect=e))).verdict for e in np.arange(0.3, 1.5, 0.15)]
    assert Verdict.WARN in between


@pytest.mark.parametrize("check", ALL, ids=lambda c: type(c).__name__)
def test_no_effect_has_nothing_to_overturn(check):
    result = check.run(fit(table(effect=0.0)))
    assert result.verdict is Verdict.PASS
    assert "no effect to overturn" in result.detail


@pytest.mark.parametrize("check", ALL, ids=lambda c: type(c).__name__)
def test_without_confounders_there_is_no_yardstick(check):
    result = check.run(fit(table(effect=2.0), columns=()))
    assert result.verdict is Verdict.WARN
    assert "compare" in result.detail


SCORES = [AIPW(), AIPW(normalised=False), AIPW(Estimand.ATT), Hajek(), Hajek(Estimand.ATT)]


@pytest.mark.parametrize("score", SCORES, ids=repr)
def test_bounds_without_hidden_confounding_are_the_estimate(score):
    subject = fit(score=score, vcov=Clustered("village"))
    effect = subject.estimate
    bounds = MarginalBounds.of(subject)
    for end in bounds.at(1.0):
        assert end.estimate == pytest.approx(effect.estimate, rel=1e-12)
        assert end.std_error == pytest.approx(effect.std_error, rel=1e-12)
        assert end.df == effect.df
    assert bounds.sorted_at(1.0) == pytest.approx((effect.estimate,) * 2, rel=1e-12)


@pytest.mark.parametrize("score", SCORES, ids=repr)
def test_factor_at_which_zero_is_reached(score):
    bounds = MarginalBounds.of(fit(score=score))
    point, interval = bounds.first(interval=False), bounds.first(interval=True)
    assert 1 < interval < point
    assert bounds.at(point)[0].estimate == pytest.approx(0.0, abs=1e-4)
    assert bounds.at(interval)[0].ci_low == pytest.approx(0.0, abs=1e-4)
    negative = MarginalBounds.of(fit(table().assign(y=-table()["y"]), score=score))
    assert negative.first(interval=True) == pytest.approx(interval, rel=1e-4)


def test_estimated_probabilities_are_in_the_error_of_the_bounds():
    """Leaving a unit out and fitting the logit anew moves a bound by minus its influence."""
    units = table(n=300, confounding=0.5)
    units["y"] += (np.exp(units["a"]) - 1) * np.random.default_rng(1).normal(size=300)
    outcome = Ridge(penalties=(1e-9,))
    decided = {
        "score": Hajek(),
        "propensity": Logit(),
        "folds": None,
        "outcome_model": outcome,
    }
    subject = fit(units, ("a", "b"), **decided)
    fixed = replace(subject, nuisances=replace(subject.nuisances, design=None))
    ends = [MarginalBounds.of(s).at(2.0)[1] for s in (subject, fixed)]
    some = np.arange(0, 300, 4)
    moved = [
        ends[0].estimate
        - MarginalBounds.of(fit(units.drop(index=i), ("a", "b"), **decided)).at(2.0)[1].estimate
        for i in some
    ]
    with_it, without = (np.std(moved - e.influence.raw[some]) for e in ends)
    assert np.corrcoef(moved, ends[0].influence.raw[some])[0, 1] > 0.98
    assert with_it < 0.8 * without


def test_several_treatments_have_bounds_each():
    units = table(n=900)
    units["w"] = np.where(units["w"] == 0, "none", np.where(units.index % 2, "roads", "health"))
    subject = fit(units)
    for arm in ("health", "roads"):
        low, high = MarginalBounds.of(subject, arm).at(1.5)
        assert low.estimate < subject.effect(arm).estimate < high.estimate
        result = OmittedVariable(arm=arm).run(subject)
        assert 0 < result.values["robustness_value"] < 1
        assert linear_effect(subject, arm)[0].n == int(units["w"].isin(["none", arm]).sum())


def test_what_the_marginal_model_cannot_bound_is_refused():
    with pytest.raises(EstimationError, match="overlap weights"):
        MarginalBounds.of(fit(score=AIPW(Estimand.ATO)))
    with pytest.raises(EstimationError, match="entropy balancing"):
        MarginalBounds.of(fit(score=EntropyBalancing()))
    with pytest.raises(EstimationError, match="odds ratio"):
        MarginalBounds.of(fit()).at(0.5)


def test_factor_of_a_measured_confounder():
    units = table(n=3000)
    found = odds_benchmarks(fit(units), share=0.1)["factor"]
    assert found.idxmax() == "a"
    assert found["c"] < 1.2
    # without a the odds are constant, with it they are exp(a): 1.64 is the 95 % quantile
    assert np.log(found["a"]) == pytest.approx(1.64, rel=0.15)


def test_confounders_are_left_out_as_columns():
    subject = fit()
    names = [left.name for left in leave_out_each(subject)]
    assert names == ["a", "b", "c", "country"]
    assert leave_out_each(subject, ["country"])[0].confounders.names == ("a", "b", "c")
    with pytest.raises(EstimationError, match="no confounder 'z'"):
        leave_out_each(subject, ["z"])


def test_progress_is_told():
    seen = []
    leave_out_each(fit(), ["a", "b"], progress=lambda done, of: seen.append((done, of)))
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    "score",
    [AIPW(), AIPW(Estimand.ATT), AIPW(Estimand.ATO), Hajek(), EntropyBalancing(), CBPS()],
    ids=repr,
)
def test_robustness_value_is_where_bounds_reach_zero(score):
    bounds = OmittedVariableBounds.of(fit(score=score))
    point, interval = (bounds.robustness_value(interval=i) for i in (False, True))
    assert 0 < interval < point < 1
    assert bounds.at(point, point)[0].estimate == pytest.approx(0.0, abs=1e-6)
    assert bounds.at(interval, interval)[0].ci_low == pytest.approx(0.0, abs=1e-5)
    low, high = bounds.at(0.0, 0.0)
    assert low.estimate == high.estimate == bounds.effect.estimate


def test_strengths_out_of_range_are_refused():
    for strength in [(1.1, 0.1, 1.0), (0.1, 1.0, 1.0), (0.1, 0.1, 2.0), (-0.1, 0.1, 1.0)]:
        with pytest.raises(EstimationError, match="no shares"):
            confounding_strength(*strength)


@pytest.mark.parametrize("estimand", [Estimand.ATE, Estimand.ATT])
def test_bias_is_the_product_of_strength_and_scale_in_a_world_of_cells(estimand):
    """θ_short - θ = ρ √(C_Y C_D/(1 - C_D)) √(σ²ν²) exactly, probabilities and means known."""
    x, u, a = (v.ravel() for v in np.meshgrid([0, 1, 2], [0, 1], [0, 1], indexing="ij"))
    e = 1 / (1 + np.exp(-(0.5 * x - 0.4 + 0.9 * u)))
    p = np.array([0.2, 0.5, 0.3])[x] * np.where(u, 0.3 + 0.1 * x, 0.7 - 0.1 * x)
    p = p * np.where(a, e, 1 - e)
    g = 1.0 * a + 0.5 * x + 0.8 * u * (1 + 0.5 * a)

    def given(value, *by):
        keys = np.ravel_multi_index([*by], [3] * len(by))
        sums = np.bincount(keys, p * value, 9), np.bincount(keys, p, 9)
        return (sums[0] / np.where(sums[1] > 0, sums[1], 1))[keys]

    short_e = given(a.astype(float), x)
    target = np.ones(12) if estimand is Estimand.ATE else a / (p @ a)

    def weights(prob):
        if estimand is Estimand.ATE:
            return a / prob - (1 - a) / (1 - prob)
        return a / (p @ a) - (1 - a) * prob / (1 - prob) / (p @ a)

    alpha, alpha_short, g_short = weights(e), weights(short_e), given(g, x, a)
    effect, short = p @ (alpha * g), p @ (alpha_short * g)
    assert effect == pytest.approx(p @ (target * (1 + 0.4 * u)))
    c_d = 1 - (p @ alpha_short**2) / (p @ alpha**2)
    n = 120_000
    count = np.maximum(np.rint(n * p).astype(int), 1)
    noise = np.random.default_rng(0).normal(size=count.sum())
    rows = np.repeat(np.arange(12), count)
    units = pd.DataFrame({"x": x[rows], "w": a[rows], "y": g[rows] + noise})
    subject = fit(units, ("x",), score=AIPW(estimand), propensity=Logit(), folds=None)
    means = np.stack([
        np.array([g_short[(x == v) & (a == k)][0] for v in range(3)])[x[rows]] for k in (0, 1)
    ], axis=1)  # fmt: skip
    probability = np.stack([1 - short_e[rows], short_e[rows]], axis=1)
    scale = short_scale(subject, 1, probability, means, np.ones(len(rows)))
    explained = p @ (g - g_short) ** 2
    c_y = explained / (explained + 1)
    rho = (
        p
        @ ((g - g_short) * (alpha - alpha_short))
        / np.sqrt(explained * (p @ (alpha - alpha_short) ** 2))
    )
    bias = confounding_strength(c_y, c_d, rho) * scale.value
    assert bias == pytest.approx(abs(short - effect), rel=0.01)
    assert bias > 0.1


def test_benchmarks_speak_of_what_was_left_out():
    subject = fit(table(n=2000))
    bounds = OmittedVariableBounds.of(subject)
    found = omitted_benchmarks(bounds, leave_out_each(subject)).set_index(["confounder", "k"])
    assert found["taken_away"].groupby("confounder").max().idxmax() == "a"
    first = found.loc[("a", 1.0)]
    # hiding a moves the estimate by no more than the bound of a variable as strong
    assert abs(first["change"]) <= first["taken_away"] * bounds.effect.estimate * 1.5
    assert 0.5 < first["rho"] <= 1
    assert found.loc[("a", 2.0), "c_treatment"] == pytest.approx(2 * first["c_treatment"])
    assert (found["low"] <= bounds.effect.estimate + 1e-12).all()


def test_linear_benchmarks_hold_each_column_and_image():
    units = table()
    image = pd.DataFrame(np.random.default_rng(1).normal(size=(500, 8)), index=units.index)
    subject = fit(units, images={"landsat": image})
    found = linear_benchmarks(subject)
    assert list(found["confounder"].unique()) == ["a", "b", "c", "country", "landsat"]
    assert found[found["whole_image"]]["confounder"].unique() == ["landsat"]
    one = found[found["k"] == 1.0].set_index("confounder")["estimate"]
    assert one.idxmin() == "a"


def test_published_e_values():
    assert e_value(3.9) == pytest.approx(7.26, abs=0.005)
    assert e_value(1.8) == pytest.approx(3.0, abs=0.005)
    assert e_value(1 / 3.9) == pytest.approx(e_value(3.9))
    assert e_value(1.0) == 1.0
    with pytest.raises(EstimationError, match="no risk ratio"):
        e_value(0.0)


def test_risk_ratio_of_zeros_and_ones_is_that_of_the_means():
    subject = fit(outcome="yes")
    found = risk_ratio(subject)
    assert found.exact
    assert found.value == pytest.approx(subject.means.value[1] / subject.means.value[0])
    assert found.low < found.value < found.high
    rng, drawn = np.random.default_rng(0), []
    for _ in range(60):
        again = table().iloc[rng.integers(0, 500, 500)].reset_index(drop=True)
        drawn.append(np.log(risk_ratio(fit(again, outcome="yes")).value))
    ours = (np.log(found.high) - np.log(found.low)) / (2 * 1.96)
    assert ours == pytest.approx(np.std(drawn), rel=0.3)


def test_risk_ratio_of_other_outcomes_is_made_from_standard_deviations():
    units = table()
    subject = fit(units)
    found = risk_ratio(subject)
    within = np.sqrt(
        sum(((g - g.mean()) ** 2).sum() for _, g in units.groupby("w")["y"]) / (len(units) - 2)
    )
    assert not found.exact
    assert np.log(found.value) == pytest.approx(0.91 * subject.estimate.estimate / within)
    assert np.log(found.low) == pytest.approx(0.91 * subject.estimate.ci_low / within)
    assert risk_ratio(fit(table(effect=0.0))).nearest == 1.0


def test_estimate_that_no_outcomes_could_give_fails():
    subject = fit(table(effect=1.0))
    good = InformationBounds().run(subject)
    assert good.verdict is Verdict.PASS
    manski = good.table.loc["Manski"]
    assert manski["low"] < 0 < manski["high"]
    assert (good.table["low"] <= manski["low"] + 1e-9).all()
    assert (good.table["high"] >= manski["high"] - 1e-9).all()
    absurd = ArmMeans(
        subject.means.value + np.array([0.0, 25.0]),
        subject.means.influence,
        subject.means.weights,
    )
    bad = InformationBounds().run(replace(subject, means=absurd))
    assert bad.verdict is Verdict.FAIL
    assert "extrapolate" in bad.detail


def test_bounds_need_the_range_of_outcomes_and_all_units():
    units = table()
    y, w = units["y"], units["w"]
    wide = InformationBounds(lowest=-20.0, highest=20.0).run(fit(units))
    share = w.mean()
    low = (
        share * y[w == 1].mean() - (1 - share) * 20 - ((1 - share) * y[w == 0].mean() + share * 20)
    )
    assert wide.values["low"] == pytest.approx(low)
    with pytest.raises(EstimationError, match="do not lie within"):
        InformationBounds(lowest=0.0, highest=1.0).run(fit(units))
    with pytest.raises(EstimationError, match="all units"):
        InformationBounds().run(fit(units, score=AIPW(Estimand.ATT)))


def image_of(units, columns, seed=0, noise=0.05, features=12):
    rng = np.random.default_rng(seed)
    seen = units[list(columns)].to_numpy() @ rng.normal(size=(len(columns), features))
    return pd.DataFrame(seen + noise * rng.normal(size=seen.shape), index=units.index)


def test_image_that_tells_the_columns_passes_and_another_does_not():
    units = table(n=1500, effect=0.3)
    told = ImageConfounders().run(fit(units, images={"landsat": image_of(units, "abc")}))
    assert told.values["least_r2"] > 0.95
    blind = image_of(units, "c")
    subject = fit(units, images={"landsat": blind})
    result = ImageConfounders().run(subject)
    assert result.verdict is Verdict.FAIL
    assert "'a'" in result.detail
    scores = result.table.set_index("covariate")
    assert scores.loc["c", "score"] > 0.95
    assert abs(scores.loc["a", "score"]) < 0.05
    assert scores.loc["country=KE" if "country=KE" in scores.index else "country=TZ",
                      "measure"] == "AUC"  # fmt: skip
    assert result.claim.count(". ") == 1
    strong = ImageConfounders().run(fit(table(n=1500, effect=4.0), images={"landsat": blind}))
    assert strong.verdict is not Verdict.FAIL


def test_units_of_one_place_are_not_held_out_from_each_other():
    rng = np.random.default_rng(3)
    places, each = 60, 8
    units = table(n=places * each)
    units["neighborhood"] = np.repeat([f"p{i}" for i in range(places)], each)
    units["c"] = np.repeat(rng.normal(size=places), each)
    labels = pd.Index(units["neighborhood"].unique(), name="neighborhood")
    image = pd.DataFrame(rng.normal(size=(places, 40)), index=labels)
    found = image_confounders(fit(units, ("a", "c"), images={"landsat": image}))
    assert found.set_index("covariate").loc["c", "score"] < 0.2


def test_scores_are_held_out_by_the_folds_of_the_analysis():
    """Districts that share a look and a covariate are told only if one has seen the district."""
    rng = np.random.default_rng(3)
    units = table(n=600)
    units["district"] = np.arange(600) % 12
    units["c"] = rng.normal(size=12)[units["district"]]
    look = rng.normal(size=(12, 20))[units["district"]]
    image = pd.DataFrame(look + 0.1 * rng.normal(size=look.shape), index=units.index)
    columns, images = ("a", "c"), {"landsat": image}
    near = image_confounders(fit(units, columns, images=images)).set_index("covariate")
    folds = GroupFolds("district")
    far = image_confounders(fit(units, columns, images=images, folds=folds))
    assert near.loc["c", "score"] > 0.9
    assert far.set_index("covariate").loc["c", "score"] < 0.5


def test_image_and_table_are_both_needed():
    with pytest.raises(EstimationError, match="no image"):
        ImageConfounders().run(fit())
    units = table()
    with pytest.raises(EstimationError, match="no column"):
        ImageConfounders().run(fit(units, (), images={"landsat": image_of(units, "abc")}))
