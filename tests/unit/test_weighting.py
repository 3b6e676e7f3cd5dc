"""Weighting from a table to effects: joint arms, folds, repeats, trimming."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from eocausal.effects import Status, difference
from eocausal.errors import (
    EstimationError,
    OverlapError,
)
from eocausal.estimators.arm_means import ArmMeans, Estimand
from eocausal.estimators.inference import HC0, Clustered
from eocausal.estimators.logit import Logit
from eocausal.estimators.observational import observe
from eocausal.estimators.overlap import Overlap
from eocausal.estimators.repeated import median_means
from eocausal.estimators.scores import AIPW, CBPS, EntropyBalancing, Hajek
from eocausal.estimators.trimming import Clip, Crump, Drop, crump_threshold
from eocausal.estimators.weighting import Weighting, weight
from eocausal.folds import GroupFolds

COLUMNS = ("a", "b", "c")
TEXTBOOK = Weighting(score=Hajek(), propensity=Logit(), folds=None)


def study(n=600, seed=0, strength=1.0, arms=("none", "road")):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    eta = strength * np.column_stack([np.zeros(n), *[x[:, k % 3] for k in range(len(arms) - 1)]])
    arm = (eta + rng.gumbel(size=eta.shape)).argmax(axis=1)
    y = 2.0 * arm + x.sum(axis=1) + rng.normal(size=n)
    units = pd.DataFrame(x, columns=COLUMNS).assign(w=np.asarray(arms, dtype=object)[arm], y=y)
    units["village"] = np.arange(n) // 6
    units.index = pd.Index([f"u{i}" for i in range(n)], name="unit")
    return units


def fit(units, decisions=TEXTBOOK, covariates=COLUMNS, seed=1):
    return weight(
        units, treatment="w", outcome="y", covariates=covariates, decisions=decisions, seed=seed
    )


THREE = ("none", "road", "school")


def test_the_textbook_estimator_to_eight_digits():
    units = study()
    found = fit(units).estimate
    arm = (units["w"] == "road").to_numpy()
    z = sm.add_constant(units[list(COLUMNS)].to_numpy())
    e = sm.Logit(arm.astype(float), z).fit(disp=0, tol=1e-14).predict(z)
    y = units["y"].to_numpy()
    want = np.average(y[arm], weights=1 / e[arm]) - np.average(y[~arm], weights=1 / (1 - e[~arm]))
    assert found.estimate == pytest.approx(want, abs=1e-8)
    assert found.extra["n_treated"] == arm.sum()
    assert found.extra["ess_treated"] == pytest.approx((1 / e[arm]).sum() ** 2
                                                       / (1 / e[arm] ** 2).sum())  # fmt: skip
    assert found.estimand == "ATE"
    assert found.status is Status.OK


def test_contrasts_of_several_arms_carry_their_covariance():
    units = study(arms=THREE, n=900)
    found = fit(units)
    assert found.data.arms == THREE
    road, school = found.effects()
    between = found.contrast("school", "road")
    assert between.estimate == pytest.approx(school.estimate - road.estimate, rel=1e-12)
    influence = found.means.influence
    v = influence.T @ influence
    assert between.std_error**2 == pytest.approx(v[1, 1] + v[2, 2] - 2 * v[1, 2], rel=1e-10)
    # Both are compared with the same untreated units: the parts are not independent.
    apart = np.hypot(road.std_error, school.std_error)
    assert between.std_error < 0.95 * apart
    joined = difference(school, road)
    assert joined.std_error == pytest.approx(between.std_error, rel=1e-12)
    clustered = found.contrast("school", "road").with_vcov(Clustered("village"))
    sums = pd.DataFrame(influence[:, 2] - influence[:, 1]).groupby(units["village"].to_numpy())
    g = sums.ngroups
    want = g / (g - 1) * float((sums.sum() ** 2).to_numpy().sum())
    assert clustered.std_error**2 == pytest.approx(want, rel=1e-10)
    with pytest.raises(EstimationError, match="no arm 'bridge'"):
        found.contrast("bridge", "road")


def test_the_effect_does_not_depend_on_the_order_of_units_or_names_of_arms():
    units = study(arms=THREE)
    found = fit(units).contrast("school", "road")
    back = fit(units.iloc[::-1]).contrast("school", "road")
    assert back.estimate == pytest.approx(found.estimate, rel=1e-9)
    renamed = units.assign(w=units["w"].map({"none": "none", "road": "z", "school": "a"}))
    again = fit(renamed).contrast("a", "z")
    assert again.estimate == pytest.approx(found.estimate, rel=1e-9)
    assert again.std_error == pytest.approx(found.std_error, rel=1e-9)


def test_scores_of_units_have_the_effect_as_mean():
    units = study(arms=THREE)
    found = fit(units, Weighting())
    for arm in ("road", "school"):
        scores = found.scores(arm)
        assert scores.mean() == pytest.approx(found.effect(arm).estimate, rel=1e-10)
        spread = scores.std() / np.sqrt(len(scores))
        assert spread == pytest.approx(found.effect(arm).std_error, rel=1e-10)
    np.testing.assert_array_equal(found.scores(), found.scores("road"))


@pytest.mark.parametrize("score", [AIPW(Estimand.ATT), AIPW(Estimand.ATO), Hajek(Estimand.ATT),
                                   EntropyBalancing(), CBPS()])  # fmt: skip
def test_scores_for_two_arms_say_so(score):
    with pytest.raises(EstimationError, match=r"there are 3: none, road, school"):
        fit(study(arms=THREE), Weighting(score=score))


def test_entropy_balancing_of_several_arms_for_all_units():
    found = fit(study(arms=THREE), Weighting(score=EntropyBalancing(Estimand.ATE)))
    assert found.nuisances.propensity is None
    assert not found.splits.crossed
    for effect, true in zip(found.effects(), (2, 4), strict=True):
        assert abs(effect.estimate - true) < 4 * effect.std_error


def test_approximate_balance_is_said_in_the_note():
    rng = np.random.default_rng(0)
    units = study(n=200)
    image = pd.DataFrame(rng.normal(size=(200, 150)), index=units.index)
    found = weight(
        units, treatment="w", outcome="y", covariates=COLUMNS, images={"chip": image},
        decisions=Weighting(score=EntropyBalancing(ridge=0.05)),
    ).estimate  # fmt: skip
    assert found.method == "approximate entropy balancing"
    assert "the largest difference of means left is 0." in found.note


# Folds and repeats


def test_every_unit_is_predicted_by_models_that_have_not_seen_it():
    units = study()
    data = observe(units, treatment="w", outcome="y", covariates=COLUMNS)
    decisions = Weighting(propensity=Logit(), folds=GroupFolds("village", k=3))
    found = decisions.fit(data, seed=3)
    assert found.splits.crossed
    village = pd.Series(found.splits.fold).groupby(units["village"].to_numpy()).nunique()
    assert (village == 1).all()
    train, here = found.splits.train[:, 0], found.splits.fold == 0
    z = sm.add_constant(data.confounders.x)
    e = sm.Logit(data.arm[train], z[train]).fit(disp=0, tol=1e-14).predict(z[here])
    np.testing.assert_allclose(found.nuisances.propensity[here, 1], e, atol=1e-10)
    assert found.nuisances.design is None


@pytest.mark.parametrize("vcov", [HC0(), Clustered("village")])
@pytest.mark.parametrize("repeats", [2, 5])
def test_repeats_report_the_median_and_its_spread(repeats, vcov):
    units = study(arms=THREE, n=500)
    data = observe(units, treatment="w", outcome="y", covariates=COLUMNS)
    once = Weighting(propensity=Logit(), outcome_model=Weighting().outcome_model, vcov=vcov)
    fits = [once.fit(data, seed=7 + 1_000_003 * r) for r in range(repeats)]
    found = replace(once, repeats=repeats).fit(data, seed=7)
    for arm in ("road", "school"):
        effects = [f.effect(arm) for f in fits]
        values = np.array([e.estimate for e in effects])
        centre = np.median(values)
        assert np.ptp(values) > 0
        wide = np.median([e.std_error**2 + (e.estimate - centre) ** 2 for e in effects])
        assert found.effect(arm).estimate == pytest.approx(centre, rel=1e-12)
        assert found.effect(arm).std_error == pytest.approx(np.sqrt(wide), rel=1e-10)
    ess = [sorted(f.support[1].ess for f in fits)[(repeats - 1) // 2]]
    assert found.support[1].ess == ess[0]
    typical = fits[int(np.abs([f.means.value[1] - f.means.value[0] - np.median(
        [g.means.value[1] - g.means.value[0] for g in fits]) for f in fits]).argmin())]  # fmt: skip
    np.testing.assert_array_equal(found.means.weights, typical.means.weights)
    np.testing.assert_array_equal(found.splits.fold, typical.splits.fold)


def test_a_loud_repeat_does_not_move_the_median():
    rng = np.random.default_rng(0)
    psi = rng.normal(size=(100, 2)) / 100
    means = [ArmMeans(np.array([0.0, v]), psi, np.ones(100)) for v in (1.0, 1.1, 50.0)]
    found = median_means(means, lambda p: float(p @ p))
    assert found.value[1] == 1.1
    own = float(((psi[:, 1] - psi[:, 0]) ** 2).sum())
    assert (found.influence[:, 1] ** 2).sum() == pytest.approx(own + 0.1**2)


def test_repeats_that_deal_nothing_anew_are_refused():
    for wrong in (0, 3):
        with pytest.raises(EstimationError, match=f"{wrong} repeats"):
            Weighting(repeats=wrong, folds=None)
    units = study(strength=2.0)
    with pytest.raises(EstimationError, match="different units in different repeats"):
        fit(units, Weighting(repeats=3, trim=Drop(0.1), overlap=Overlap(min_ess=2, empty=None)))


def test_seeds_change_folds_and_nothing_else():
    units = study()
    one, same, other = (fit(units, Weighting(), seed=s).estimate.estimate for s in (1, 1, 2))
    assert one == same
    assert one != other
    assert fit(units, seed=1).estimate.estimate == fit(units, seed=2).estimate.estimate


# Trimming


def test_trimming_refits_on_the_units_it_keeps_and_says_so():
    units = study(strength=1.5)
    found = fit(units, replace(TEXTBOOK, trim=Drop(0.1)))
    e = fit(units, replace(TEXTBOOK, overlap=Overlap(2, 1.0))).nuisances.propensity
    keep = e.min(axis=1) >= 0.1
    again = fit(units[keep])
    assert found.n_trimmed == (~keep).sum() > 0
    assert found.estimate.estimate == pytest.approx(again.estimate.estimate, rel=1e-12)
    assert found.estimate.std_error == pytest.approx(again.estimate.std_error, rel=1e-12)
    assert found.estimate.estimand == "ATE of the kept"
    left = f"{found.n_trimmed} of 600 units were left out (Drop(low=0.1))"
    assert left in found.estimate.note
    assert found.estimate.extra["n_trimmed"] == found.n_trimmed
    assert found.estimate.n == keep.sum()


@pytest.mark.parametrize("arms", [2, 3])
def test_crump_keeps_the_largest_set_of_the_rule(arms):
    rng = np.random.default_rng(0)
    raw = np.exp(2.5 * rng.normal(size=(300, arms)))
    e = raw / raw.sum(axis=1, keepdims=True)
    g = (1 / e).sum(axis=1)
    best = max(c for c in g if c <= 2 * g[g <= c].mean())
    assert crump_threshold(e) == pytest.approx(best)
    assert 0 < Crump().keep(e).sum() < 300
    np.testing.assert_array_equal(Crump().keep(e), g <= best)
    even = np.full((10, arms), 1 / arms)
    assert Crump().keep(even).all()
    if arms == 2:
        alpha = 0.5 - np.sqrt(0.25 - 1 / best)
        np.testing.assert_array_equal(Crump().keep(e), (e[:, 1] >= alpha) & (e[:, 1] <= 1 - alpha))


def test_clipping_is_counted_and_no_longer_the_textbook():
    units = study(strength=1.5)
    plain = fit(units, replace(TEXTBOOK, overlap=Overlap(2, 1.0)))
    found = fit(units, replace(TEXTBOOK, trim=Clip(0.1)))
    extreme = (plain.nuisances.propensity.min(axis=1) < 0.1).sum()
    assert found.n_clipped == extreme > 0
    assert found.n_trimmed == 0
    assert f"Probabilities of {extreme} units were moved" in found.estimate.note
    assert found.estimate.estimand == "ATE"
    assert found.nuisances.propensity.min() == pytest.approx(0.1)
    assert found.nuisances.design is None
    assert fit(units, replace(TEXTBOOK, trim=Clip(1e-9))).nuisances.design is not None
    three = np.array([[0.001, 0.001, 0.998]])
    np.testing.assert_allclose(Clip(0.01).apply(three), [[0.01, 0.01, 0.98]])


def test_trimming_that_makes_no_sense_is_refused():
    for kind in (Drop, Clip):
        for low in (0.0, 0.5, -1, float("nan")):
            with pytest.raises(EstimationError, match="no bound for probabilities"):
                kind(low)
    with pytest.raises(EstimationError, match="nothing to trim by with entropy balancing"):
        Weighting(score=EntropyBalancing(), trim=Crump())
    units = study(n=300, strength=0.5)
    units["a"] += 6.0 * (units["w"] == "road")
    with pytest.raises(OverlapError, match="fewer than two units in arm"):
        fit(units, Weighting(trim=Drop(0.2)))


def test_half_the_dealt_probability_is_no_reason_to_trim_evenly_drawn_units():
    units = study(strength=0.0)
    found = fit(units, replace(TEXTBOOK, trim=Crump()))
    assert found.n_trimmed == 0
    assert found.estimate.note == ""
    assert found.estimate.estimate == fit(units).estimate.estimate
