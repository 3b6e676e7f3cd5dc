"""Effects on predicted outcomes: formulas, influence values, and what is refused."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from eocausal.effects import Influence, Status
from eocausal.errors import (
    AlignmentError,
    DuplicateIdError,
    EmptyInputError,
    EstimationError,
    MissingColumnError,
    OneArmError,
    OutcomeError,
)
from eocausal.estimators.arm_means import Estimand
from eocausal.estimators.conley import Conley
from eocausal.estimators.inference import HC0, Clustered
from eocausal.estimators.labelled import labelled_study
from eocausal.estimators.linear_calibration import LinearCalibration
from eocausal.estimators.logit import Logit
from eocausal.estimators.measurement import CORRECTIONS, correct, corrected_table
from eocausal.estimators.overlap import Overlap
from eocausal.estimators.predicted_study import draw_labels, predicted_study
from eocausal.estimators.prediction_powered import PredictionPowered, least_variance
from eocausal.estimators.pseudo_outcomes import leverage_of, pseudo_outcome
from eocausal.estimators.scores import AIPW, CBPS, EntropyBalancing, Hajek
from eocausal.estimators.tweedie import Tweedie
from eocausal.estimators.weighting import Weighting, weight

TEXTBOOK = Weighting(
    score=Hajek(), propensity=Logit(), folds=None, overlap=Overlap(min_ess=0, empty=None)
)


def study(n=1000, labels=300, shift=0.0, seed=0, arms=2):
    """Wealth, a map that shrinks it to half, and measurements of a random sample."""
    rng = np.random.default_rng(seed)
    x, noise, error = rng.normal(size=(3, n))
    w = (rng.random(n) < 1 / (1 + np.exp(-0.7 * x))).astype(int)
    if arms == 3:
        w *= rng.integers(1, 3, n)
    y = 2.0 * w + x + noise
    seen = np.zeros(n, dtype=bool)
    seen[rng.permutation(n)[:labels]] = True
    return pd.DataFrame(
        {
            "x": x,
            "w": w,
            "wealth": np.where(seen, y, np.nan),
            "truth": y,
            "map": 1.0 + 0.5 * y + 0.6 * error + shift * w,
            "seen": seen,
            "lon": rng.uniform(0, 5, n),
            "lat": rng.uniform(0, 5, n),
            "district": rng.integers(0, 40, n),
        },
        index=pd.Index([f"u{i}" for i in range(n)], name="unit"),
    )


def on_map(units, **decisions):
    decided = Weighting(**decisions) if decisions else TEXTBOOK
    return weight(
        units, treatment="w", outcome="map", covariates=["x"], decisions=decided, seed=1
    )  # fmt: skip


JACKKNIFED = (
    LinearCalibration(),
    Tweedie(),
    Tweedie(keep_variance=False),
    PredictionPowered(power=0.7),
)


@pytest.fixture(scope="module")
def jackknifed():
    """Influence values of each correction, and those of deleting units one by one."""
    units = study(n=160, labels=100)

    def at(table):
        naive = on_map(table)
        return [correct(naive, measured="wealth", correction=c).estimate for c in JACKKNIFED]

    whole = at(units)
    left = np.array([[e.estimate for e in at(units.drop(index=u))] for u in units.index])
    deleted = np.array([e.estimate for e in whole]) - left
    return [(e.influence.raw, deleted[:, k]) for k, e in enumerate(whole)]


def test_linear_calibration_is_a_ratio_and_its_variance_that_of_one():
    units = study()
    naive = on_map(units)
    fixed = correct(naive, measured="wealth", correction=LinearCalibration())
    some = units[units["seen"]]
    slope = np.polyfit(some["wealth"], some["map"], 1)[0]
    assert fixed.found.numbers["slope"] == pytest.approx(slope)
    assert fixed.estimate.estimate == pytest.approx(naive.estimate.estimate / slope)
    assert fixed.naive.estimate == naive.estimate.estimate
    elsewhere = study(seed=7)
    table = elsewhere.rename(index=lambda label: f"other {label}")[["map", "truth"]]
    apart = correct(naive, measured="truth", labelled=np.zeros(len(units), dtype=bool),
                    calibration=table, correction=LinearCalibration())  # fmt: skip
    k = apart.found.numbers["slope"]
    expected = (naive.estimate.std_error / k) ** 2
    expected += (naive.estimate.estimate * apart.found.numbers["slope_error"] / k**2) ** 2
    assert apart.estimate.std_error**2 == pytest.approx(expected)
    assert apart.estimate.n == 2000


def test_tweedie_inverts_normal_shrinkage():
    units = study(n=6000, labels=6000)
    found = correct(on_map(units), measured="wealth", correction=Tweedie())
    line = correct(on_map(units), measured="wealth", correction=LinearCalibration())
    assert found.estimate.estimate == pytest.approx(line.estimate.estimate, rel=0.15)
    sigma = (units["map"] - units["truth"]).std(ddof=0)
    assert found.found.numbers["sigma"] == pytest.approx(sigma)
    flat = correct(on_map(units), measured="wealth", correction=Tweedie(keep_variance=False))
    assert abs(flat.estimate.estimate) < abs(found.estimate.estimate)


def test_pseudo_outcomes_make_the_rectified_weighted_mean():
    rng = np.random.default_rng(3)
    f, y = rng.normal(size=(2, 60))
    w = rng.uniform(0.5, 2, 60)
    arm, labelled = np.arange(60) % 2, np.arange(60) % 3 == 0
    chance = np.full(60, 1 / 3)
    made = pseudo_outcome(f, np.where(labelled, y, np.nan), labelled, chance, arm, w, 0.8)
    for k in (0, 1):
        here, some = arm == k, (arm == k) & labelled
        expected = 0.8 * np.average(f[here], weights=w[here])
        expected += np.average(y[some] - 0.8 * f[some], weights=w[some])
        assert np.average(made[here], weights=w[here]) == pytest.approx(expected)


def test_leverages_are_those_of_a_weighted_regression():
    rng = np.random.default_rng(4)
    f, w = rng.normal(size=80), rng.uniform(0.5, 3, 80)
    arm, labelled = np.arange(80) % 2, np.arange(80) % 4 > 1
    for tuned in (False, True):
        found = leverage_of(f, labelled, arm, w, tuned=tuned)
        x = np.column_stack([arm == 0, arm == 1, f][: 2 + tuned])[labelled].astype(float)
        root = np.sqrt(w[labelled])[:, None] * x
        hat = root @ np.linalg.solve(root.T @ root, root.T)
        np.testing.assert_allclose(found[labelled], np.diag(hat))
        assert not found[~labelled].any()


def test_prediction_powered_with_power_0_uses_labelled_units_only():
    units = study()
    naive = on_map(units)
    fixed = correct(naive, measured="wealth", correction=PredictionPowered(power=0.0))
    e = naive.nuisances.propensity[:, 1]
    seen, w = units["seen"].to_numpy(), units["w"].to_numpy()
    weights = np.where(w == 1, 1 / e, 1 / (1 - e))
    means = [
        np.average(units["wealth"][seen & (w == k)], weights=weights[seen & (w == k)])
        for k in (0, 1)
    ]
    assert fixed.estimate.estimate == pytest.approx(means[1] - means[0])


@pytest.mark.parametrize("rule", [HC0(), Clustered("district"), Conley(km=50)])
def test_the_power_has_the_least_variance_under_the_rule_of_the_study(rule):
    units = study(labels=200)
    zero, one = np.random.default_rng(2).normal(size=(2, 1000, 3))
    one -= 2 * zero

    def variance(power):
        psi = zero + power * (one - zero)
        apart = (psi[:, k] - psi[:, 0] for k in (1, 2))
        return sum(rule.variance(Influence(units.index, v, v), units).value for v in apart)

    best = least_variance(zero, one, rule, units)
    assert variance(best) < min(variance(best - 0.01), variance(best + 0.01))
    assert least_variance(zero, zero, rule, units) == 0
    naive = on_map(units, score=Hajek(), propensity=Logit(), folds=None, vcov=rule)
    tuned = correct(naive, measured="wealth", correction=PredictionPowered())
    away = [tuned.found.numbers["power"] + shift for shift in (-1.5, 1.5)]
    for power in away:
        other = correct(naive, measured="wealth", correction=PredictionPowered(power=power))
        assert other.estimate.std_error > tuned.estimate.std_error


def test_the_power_of_a_shrunken_map_exceeds_one():
    units = study(n=4000, labels=400)
    units["map"] = 1.0 + 0.5 * units["truth"] + 0.1 * (units["map"] - 0.5 * units["truth"])
    fixed = correct(on_map(units), measured="wealth")
    assert fixed.found.numbers["power"] > 1.3


@pytest.mark.parametrize("which", range(4))
def test_influence_values_are_those_of_deleting_units(jackknifed, which):
    psi, deleted = jackknifed[which]
    assert np.corrcoef(psi, deleted)[0, 1] > 0.99
    assert np.sqrt(psi @ psi) == pytest.approx(np.sqrt(deleted @ deleted), rel=0.06)


def test_how_labels_are_dealt_for_tuning_matters_little():
    naive = on_map(study(n=600, labels=120))
    each = [correct(naive, measured="wealth", seed=seed) for seed in range(8)]
    error = each[0].estimate.std_error
    assert np.std([e.estimate.estimate for e in each]) < 0.2 * error
    same = correct(naive, measured="wealth", seed=3).estimate.estimate
    assert same == each[3].estimate.estimate
    power = each[0].found.numbers["power"]
    fixed = correct(naive, measured="wealth", correction=PredictionPowered(power=power))
    assert abs(fixed.estimate.estimate - each[0].estimate.estimate) < 0.5 * error


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize(
    "score",
    [
        AIPW(),
        AIPW(Estimand.ATT),
        AIPW(Estimand.ATO),
        Hajek(Estimand.ATO),
        EntropyBalancing(),
        CBPS(),
    ],
)
def test_every_score_is_corrected(score, correction):
    units = study(n=3000, labels=1000)
    naive = on_map(units, score=score)
    assert naive.estimate.estimate == pytest.approx(1.0, abs=0.15)
    fixed = correct(naive, measured="wealth", correction=correction).estimate
    assert abs(fixed.estimate - 2.0) < max(4 * fixed.std_error, 0.2)
    assert fixed.estimand == naive.estimate.estimand
    assert fixed.extra["correction"] == correction.name


def test_several_treatments_are_corrected_together():
    units = study(n=3000, labels=900, arms=3)
    fixed = correct(on_map(units), measured="wealth")
    one, two = fixed.effects()
    assert abs(one.estimate - 2) < 4 * one.std_error
    assert abs(two.estimate - 4) < 4 * two.std_error
    apart = fixed.contrast("2", "1")
    assert apart.estimate == pytest.approx(two.estimate - one.estimate)
    assert apart.std_error == pytest.approx((two - one).std_error)


def test_other_variances_and_differences_need_no_refit():
    units = study()
    free, grouped = (
        on_map(units, score=Hajek(), propensity=Logit(), folds=None, vcov=rule)
        for rule in (HC0(), Clustered("district"))
    )
    for correction in (LinearCalibration(), Tweedie(), PredictionPowered(power=1.0)):
        plain, clustered = (
            correct(f, measured="wealth", correction=correction).estimate for f in (free, grouped)
        )
        assert plain.with_vcov(Clustered("district")).std_error == clustered.std_error
    same = [correct(free, measured="wealth", correction=c).estimate for c in CORRECTIONS]
    gap = same[0] - same[1]
    assert gap.std_error < same[0].std_error


def test_labels_of_all_units_give_the_measured_effect():
    units = study(labels=1000)
    fixed = correct(on_map(units), measured="wealth")
    direct = weight(
        units, treatment="w", outcome="truth", covariates=["x"], decisions=TEXTBOOK, seed=1
    ).estimate
    assert fixed.estimate.estimate == pytest.approx(direct.estimate)
    assert fixed.estimate.std_error == pytest.approx(direct.std_error)


def test_only_labels_of_the_study_repair_an_error_that_knows_the_treatment():
    units = study(n=6000, labels=1500, shift=-0.5)
    naive = on_map(units)
    slope, powered = (
        correct(naive, measured="wealth", correction=c).estimate
        for c in (LinearCalibration(), PredictionPowered())
    )
    assert slope.estimate < 1.5
    assert abs(powered.estimate - 2) < 4 * powered.std_error


def test_a_probability_of_being_labelled_takes_the_place_of_shares():
    rng = np.random.default_rng(5)
    units = study(n=8000, labels=8000)
    units["chance"] = np.where(units["x"] > 0, 0.4, 0.1)
    units["seen"] = rng.random(len(units)) < units["chance"]
    fixed = [
        correct(on_map(units), measured="wealth", labelled="seen", correction=c).estimate
        for c in (PredictionPowered(probability="chance"), PredictionPowered())
    ]
    assert abs(fixed[0].estimate - 2) < 4 * fixed[0].std_error
    with pytest.raises(EstimationError, match="or zeros"):
        correct(
            on_map(units.assign(chance=0.0)), measured="wealth", labelled="seen",
            correction=PredictionPowered(probability="chance"),
        )  # fmt: skip


def test_calibration_on_other_units_keeps_variances_of_both():
    units = study().reset_index(drop=True)
    table = study(seed=9).reset_index(drop=True)[["map", "truth", "district"]]
    naive = on_map(units, score=Hajek(), propensity=Logit(), folds=None,
                   vcov=Clustered("district"))  # fmt: skip
    for correction in (LinearCalibration(), Tweedie()):
        fixed = correct(
            naive, measured="truth", labelled=np.zeros(len(units), dtype=bool),
            calibration=table, correction=correction,
        )  # fmt: skip
        assert abs(fixed.estimate.estimate - 2) < 0.4
        assert fixed.estimate.std_error > naive.estimate.std_error
        assert "cannot be tested" in fixed.summary()
    default = correct(
        naive, measured="truth", labelled=np.zeros(len(units), dtype=bool), calibration=table
    )
    assert default.correction == LinearCalibration()


def test_shared_labels_are_the_same_units():
    units = study()
    table = units.loc[units["seen"], ["map", "truth"]]
    with_table = correct(on_map(units), measured="truth", calibration=table,
                         labelled=np.zeros(len(units), dtype=bool),
                         correction=LinearCalibration())  # fmt: skip
    within = correct(on_map(units), measured="wealth", correction=LinearCalibration())
    assert with_table.estimate.estimate == pytest.approx(within.estimate.estimate)
    assert with_table.estimate.std_error == pytest.approx(within.estimate.std_error)
    with pytest.raises(AlignmentError, match="other predictions"):
        labelled_study(on_map(units), "truth", calibration=table.assign(map=0.3))


def test_an_error_that_is_not_linear_is_said():
    units = study(n=4000, labels=2000)
    straight = correct(on_map(units), measured="wealth", correction=LinearCalibration())
    assert straight.estimate.status is Status.OK
    units["map"] = units["map"] + 0.15 * units["truth"] ** 2
    bent = correct(on_map(units), measured="wealth", correction=LinearCalibration())
    assert bent.estimate.status is Status.WARNED
    assert "not linear" in bent.estimate.note


def test_the_summary_says_what_it_rests_on():
    units = study()
    fixed = correct(on_map(units), measured="wealth", correction=LinearCalibration())
    text = fixed.summary()
    assert "effects on predictions are about" in text
    assert "300 labelled units" in text
    assert "same outcome" in text
    assert "would be found in" in text
    assert "±" in repr(fixed)
    assert fixed.slope is not None
    assert fixed.slope.estimate == pytest.approx(0.5, abs=0.1)
    powered = correct(on_map(units), measured="wealth").summary()
    assert "err alike" not in powered


def test_a_table_compares_predictions_and_corrections():
    units = study(labels=1000)
    units["other"] = 0.3 * units["truth"] + 0.2 * units["x"]
    fitted = weight(units, treatment="w", outcome="truth", covariates=["x"], seed=1)
    table, done = corrected_table(fitted, ["map", "other"], labelled=0.3, seed=4)
    assert list(table["correction"][:2]) == ["measured", "naive"]
    assert len(table) == 1 + 2 * 4
    assert len(done) == 6
    assert table["estimate"][0] == fitted.estimate.estimate
    rows = table[table["correction"] == "prediction-powered inference"]
    assert (rows["n_labelled"] == 300).all()
    assert ((rows["estimate"] - 2).abs() < 4 * rows["std_error"]).all()
    again, _ = corrected_table(fitted, ["map", "other"], labelled=0.3, seed=4)
    pd.testing.assert_frame_equal(table, again)
    few, none = corrected_table(fitted, ["map"], labelled=0.008, seed=4)
    assert list(few["status"][2:]) == ["refused"] * 3
    assert not none
    assert "Only 8 units" in few["note"][2]
    assert "arm '0'" in few["note"][4]
    assert few["slope"].isna().all()


def test_predictions_take_the_place_of_the_outcome():
    units = study(labels=1000)
    fitted = weight(units, treatment="w", outcome="truth", covariates=["x"], seed=1)
    moved = predicted_study(fitted, "map")
    direct = weight(units, treatment="w", outcome="map", covariates=["x"], seed=1)
    assert moved.estimate.estimate == pytest.approx(direct.estimate.estimate)
    assert moved.nuisances.propensity is fitted.nuisances.propensity
    with pytest.raises(EstimationError, match="confounder"):
        predicted_study(fitted, "x")
    with pytest.raises(MissingColumnError):
        predicted_study(fitted, "nothing")


def test_labels_are_drawn_by_seed():
    assert draw_labels(100, 0.2, seed=1).sum() == 20
    assert (draw_labels(100, 0.2, seed=1) == draw_labels(100, 0.2, seed=1)).all()
    for share in (0.0, 1.5, 0.001):
        with pytest.raises(EstimationError, match="share"):
            draw_labels(100, share, seed=1)


def test_no_labels_are_refused_with_what_to_do():
    units = study(labels=0)
    with pytest.raises(OutcomeError, match="No unit has a measured outcome 'wealth'"):
        correct(on_map(units), measured="wealth")
    with pytest.raises(OutcomeError, match="attenuated"):
        correct(on_map(units))


def test_one_arm_labelled_serves_the_slope_only():
    units = study(labels=1000)
    treated = units["w"] == 1
    with pytest.raises(OneArmError, match="0 in arm '1'"):
        correct(on_map(units), measured="truth", labelled=~treated.to_numpy())
    fixed = correct(
        on_map(units), measured="truth", labelled=~treated.to_numpy(),
        correction=LinearCalibration(),
    )  # fmt: skip
    assert "cannot be tested" in fixed.summary()


def test_one_label_in_an_arm_is_said_not_to_test():
    units = study(labels=1000)
    seen = units["w"].to_numpy() == 0
    seen[np.flatnonzero(~seen)[0]] = True
    fixed = correct(on_map(units), measured="truth", labelled=seen, correction=LinearCalibration())
    assert "cannot be tested" in fixed.summary()


def test_labels_without_a_measurement_are_named():
    units = study()
    with pytest.raises(OutcomeError, match=r"700 labelled units have no 'wealth': 'u"):
        correct(on_map(units.assign(all=True)), measured="wealth", labelled="all")


@pytest.mark.parametrize(
    ("bad", "error"),
    [("nothing", MissingColumnError), ("x", EstimationError), (np.ones(3, bool), AlignmentError)],
)
def test_masks_that_are_none_are_refused(bad, error):
    with pytest.raises(error):
        correct(on_map(study()), measured="wealth", labelled=bad)


def test_predictions_that_say_nothing_are_refused():
    units = study()
    with pytest.raises(OutcomeError):
        on_map(units.assign(map=1.0))
    units.loc[units["seen"], "map"] = 0.5
    with pytest.raises(OutcomeError, match=r"prediction is 0\.5 for all 300"):
        correct(on_map(units), measured="wealth")
    noise = study().assign(map=np.random.default_rng(1).normal(size=1000))
    with pytest.raises(EstimationError, match="slope of prediction"):
        correct(on_map(noise), measured="wealth", correction=LinearCalibration())
    powered = correct(on_map(noise), measured="wealth").estimate
    assert abs(powered.estimate - 2) < 4 * powered.std_error


def test_measurements_must_vary_and_be_another_column():
    units = study()
    with pytest.raises(OutcomeError, match="measured outcome is 3"):
        correct(on_map(units.assign(wealth=3.0)), measured="wealth")
    with pytest.raises(EstimationError, match="column of predictions"):
        correct(on_map(units), measured="map")
    with pytest.raises(EstimationError, match="infinite"):
        correct(on_map(units.assign(wealth=np.inf)), measured="wealth")


def test_bad_calibration_tables_are_refused():
    units = study()
    table = study(seed=3)[["map", "truth"]].rename(index=lambda label: f"o{label}")
    naive, none = on_map(units), np.zeros(len(units), dtype=bool)
    with pytest.raises(EmptyInputError):
        correct(naive, measured="truth", labelled=none, calibration=table.iloc[:0])
    with pytest.raises(DuplicateIdError):
        correct(naive, measured="truth", labelled=none, calibration=pd.concat([table, table]))
    with pytest.raises(MissingColumnError):
        correct(naive, measured="truth", labelled=none, calibration=table[["map"]])
    with pytest.raises(EstimationError, match="Only 5 units"):
        correct(naive, measured="truth", labelled=none, calibration=table.iloc[:5])
    far = table.assign(map=table["map"] + 3)
    with pytest.raises(EstimationError, match="outside the range"):
        correct(naive, measured="truth", labelled=none, calibration=far, correction=Tweedie())


def test_units_that_were_trimmed_are_not_corrected():
    units = study()
    naive = on_map(units)
    keep = np.arange(len(units)) % 5 > 0
    part = replace(naive.decisions, trim=None).fit(naive.data.subset(keep), seed=1)
    fixed = correct(part, measured="wealth", correction=LinearCalibration())
    assert fixed.estimate.n == keep.sum()
    assert fixed.estimate.extra["n_labelled"] == units["seen"].to_numpy()[keep].sum()
