"""Who speaks for an arm, who has no counterpart and where, and what to ask instead."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from eocausal.checks.base import Verdict
from eocausal.checks.support import Support, alternatives
from eocausal.checks.support_tables import (
    heaviest_units,
    propensity_histogram,
    support_table,
    trimming_table,
)
from eocausal.errors import AlignmentError, OverlapError
from eocausal.estimators.arm_means import Estimand
from eocausal.estimators.confounders import confounders_of
from eocausal.estimators.empty_region import empty_region
from eocausal.estimators.observational import observe
from eocausal.estimators.overlap import Overlap
from eocausal.estimators.region import describe_region, find_region
from eocausal.estimators.scores import AIPW, EntropyBalancing, Hajek
from eocausal.estimators.trimming import Crump, Drop, crump_threshold
from eocausal.estimators.weighting import Weighting, weight


def places(n=1500, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "lon": rng.uniform(10, 40, n),
            "lat": rng.uniform(-20, 10, n),
            "country": rng.choice(["Angola", "Chad", "Kenya", "Mali", "Niger"], n),
            "urban": rng.integers(0, 2, n),
            "x": rng.normal(size=n),
            "begun": pd.Timestamp("2005-01-01")
            + pd.to_timedelta(rng.integers(0, 3000, n), unit="D"),
        },
        index=pd.Index([f"u{i}" for i in range(n)], name="unit"),
    )


COVARIATES = ["country", "urban", "x", "begun"]


def test_a_planted_region_is_named_with_its_units():
    units = places()
    bad = ((units["lon"] < 20.1) & (units["country"] == "Angola")).to_numpy()
    words = describe_region(confounders_of(units, COVARIATES), units, bad)
    assert words.startswith(f"{bad.sum()} units, exactly those with ")
    assert "country Angola" in words
    assert "lon below 20" in words
    assert f"{units.index[bad][0]!r}" in words
    assert f"and {bad.sum() - 5} more" in words


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (lambda u: u["country"].isin(["Angola", "Mali"]), "country Angola or Mali"),
        (lambda u: u["country"] != "Kenya", "country not Kenya"),
        (lambda u: u["urban"] == 1, "urban = 1"),
        (lambda u: u["begun"] > "2012-03-05", "begun after 2012-03-0"),
        (lambda u: u["begun"] <= "2006-03-05", "begun before 2006-03-0"),
        (lambda u: u["x"].between(-1, 1), "x between -1 and 1"),
    ],
)
def test_conditions_are_said_in_the_columns_own_terms(of, said):
    units = places()
    bad = of(units).to_numpy()
    region = find_region(confounders_of(units, COVARIATES), units, bad)
    assert said in region.words()
    np.testing.assert_array_equal(region.inside, bad)


def test_a_description_counts_what_it_gets_wrong():
    units, rng = places(), np.random.default_rng(1)
    here = ((units["lon"] < 20) & (units["urban"] == 1)).to_numpy()
    bad = (here & (rng.random(len(units)) < 0.8)) | (rng.random(len(units)) < 0.01)
    region = find_region(confounders_of(units, COVARIATES), units, bad)
    assert region.hits == (region.inside & bad).sum()
    assert region.precision == pytest.approx(0.8, abs=0.05)
    assert region.recall == pytest.approx(bad[here].sum() / bad.sum(), abs=0.05)
    assert abs(region.held_out_precision - region.precision) < 0.1
    assert f"{region.hits} of them with" in region.words()
    assert f"as are {region.inside.sum() - region.hits} others" in region.words()


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.8])
def test_scattered_units_get_no_region(share):
    units = places()
    confounders = confounders_of(units, COVARIATES)
    for seed in range(5):
        bad = np.random.default_rng(100 + seed).random(len(units)) < share
        region = find_region(confounders, units, bad)
        assert not region.boxes
        assert "in no simple region of country, urban" in region.words()


def test_few_no_and_all_units_are_just_named():
    units = places(100)
    confounders = confounders_of(units, COVARIATES)
    mark = np.zeros(100, dtype=bool)
    assert describe_region(confounders, units, mark) == "no unit"
    assert describe_region(confounders, units, ~mark) == "all 100 units"
    mark[[3, 7]] = True
    assert describe_region(confounders, units, mark) == "2 units: 'u3', 'u7'"
    with pytest.raises(AlignmentError, match="99 marks"):
        describe_region(confounders, units, mark[1:])


def test_units_known_by_images_alone_are_named_without_a_region():
    rng = np.random.default_rng(0)
    units = pd.DataFrame({"y": rng.normal(size=60)}, index=pd.Index(range(60), name="neighborhood"))
    features = pd.DataFrame(rng.normal(size=(60, 4)), index=units.index)
    confounders = confounders_of(units, images={"chip": features})
    bad = features[0].to_numpy() > 0
    assert describe_region(confounders, units, bad).startswith(f"{bad.sum()} units: ")


def study(n=800, strength=1.0, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    e = 1 / (1 + np.exp(-strength * x[:, 0]))
    w = (rng.random(n) < e).astype(int)
    y = x.sum(axis=1) + 2 * w + rng.normal(size=n)
    units = pd.DataFrame(x, columns=["a", "b", "c"]).assign(w=w, y=y)
    units.index = pd.Index([f"u{i}" for i in range(n)], name="unit")
    return units


def fitted(units, **decisions):
    return weight(
        units, treatment="w", outcome="y", covariates=["a", "b", "c"],
        decisions=Weighting(**decisions), seed=1,
    )  # fmt: skip


def test_good_overlap_passes_and_the_table_says_how_good():
    subject = fitted(study())
    result = Support().run(subject)
    assert result.verdict is Verdict.PASS
    table = support_table(subject)
    for k, arm in enumerate(subject.data.arms):
        w = subject.means.weights[subject.data.arm == k]
        assert table.loc[arm, "ess"] == pytest.approx(w.sum() ** 2 / (w**2).sum())
        own = subject.nuisances.propensity[subject.data.arm == k, k]
        assert table.loc[arm, "own_50"] == pytest.approx(np.median(own))
    counts = propensity_histogram(subject)
    assert counts.groupby("arm")["units"].sum().to_dict() == {
        arm: int((subject.data.arm == k).sum()) for k, arm in enumerate(subject.data.arms)
    }


def test_the_heaviest_units_come_first():
    subject = fitted(study(strength=1.5))
    heavy = heaviest_units(subject, count=3)
    assert len(heavy) == 6
    for arm, rows in heavy.groupby("arm"):
        here = subject.data.arm == subject.data.arms.index(arm)
        share = subject.means.weights[here] / subject.means.weights[here].sum()
        np.testing.assert_allclose(rows["share"], np.sort(share)[::-1][:3])
        assert list(rows["unit"]) == list(subject.data.units.index[here][np.argsort(-share)[:3]])


def test_uneven_weights_warn_and_too_few_fail_whatever_let_them_pass():
    subject = fitted(study())
    few = replace(subject.support[1], ess=9.0)
    result = Support().run(replace(subject, support=(subject.support[0], few)))
    assert result.verdict is Verdict.FAIL
    assert "no counterpart" in result.detail
    assert "weigh as much as 9 even ones" in result.claim
    uneven = replace(subject.support[1], ess=0.15 * few.n)
    assert uneven.ess > 30
    result = Support().run(replace(subject, support=(subject.support[0], uneven)))
    assert result.verdict is Verdict.WARN
    assert "very uneven" in result.detail
    extreme = int((subject.nuisances.propensity.min(axis=1) < 0.05).sum())
    assert f"Below 0.05 are {extreme} unit" in result.detail


def test_one_unit_that_makes_the_variance_is_named():
    units = study()
    units.loc["u7", "y"] = 1000.0
    result = Support().run(fitted(units))
    assert result.verdict is Verdict.WARN
    assert "'u7' alone makes" in result.detail


def test_trimming_counts_are_those_of_the_rules():
    subject = fitted(study(strength=1.5))
    e, arm = subject.nuisances.propensity, subject.data.arm
    table = trimming_table(e, arm, subject.data.arms)
    assert table.loc[repr(Drop(0.1)), "kept"] == (e.min(axis=1) >= 0.1).sum()
    crump = (1 / e).sum(axis=1) <= crump_threshold(e)
    assert table.loc[repr(Crump()), "kept 1"] == (crump & (arm == 1)).sum()
    assert table.loc[repr(Crump()), "lowest"] == e[crump].min()


def test_what_can_be_asked_where_the_effect_is_refused():
    units = study(n=1500, strength=5.0)
    data = observe(units, treatment="w", outcome="y", covariates=["a", "b", "c"])
    decisions = Weighting()
    with pytest.raises(OverlapError):
        decisions.fit(data, seed=1)
    records = alternatives(data, decisions, 1)
    assert [r["estimand"].split()[0] for r in records] == ["ATO", "ATT", "ATE"]
    ato, att, trimmed = records
    assert ato["status"] != "refused"
    assert abs(ato["estimate"] - 2) < 4 * ato["std_error"]
    assert att["status"] == "refused"
    assert att["estimate"] is None
    assert "ATT is refused" in att["note"]
    if trimmed["status"] != "refused":
        assert trimmed["estimand"] == "ATE of the kept"
        assert trimmed["n_trimmed"] > 0


def test_alternatives_ask_no_question_twice_and_none_that_needs_more_overlap():
    data = observe(study(), treatment="w", outcome="y", covariates=["a", "b", "c"])
    asked = Weighting(score=AIPW(Estimand.ATT))
    assert [r["estimand"].split()[0] for r in alternatives(data, asked, 1)] == ["ATO", "ATT"]
    asked = replace(asked, score=Hajek(Estimand.ATO))
    assert [r["estimand"].split()[0] for r in alternatives(data, asked, 1)] == ["ATO"]
    balanced = alternatives(data, Weighting(score=EntropyBalancing(Estimand.ATE)), 1)
    assert {r["method"] for r in balanced} == {"overlap weights", "Hájek IPW"}


def test_alternatives_of_several_arms_say_what_cannot_be_asked():
    units = study()
    rng = np.random.default_rng(5)
    units["w"] = np.where(units["w"] == 1, rng.choice(["road", "school"], len(units)), "none")
    data = observe(units, treatment="w", outcome="y", covariates=["a", "b", "c"])
    records = alternatives(data, Weighting(), 1)
    assert [r["treatment"] for r in records if r["estimand"] == "ATO"] == ["road", "school"]
    (att,) = [r for r in records if r["estimand"] == "ATT"]
    assert att["status"] == "refused"
    assert "compares two arms" in att["note"]


def planted(where, n=1500, seed=0, strength=0.5):
    """Whoever is ``where`` says is treated, the others by chance."""
    units = places(n, seed)
    rng = np.random.default_rng(seed + 1)
    everyone = where(units).to_numpy()
    e = np.where(everyone, 1.0, 1 / (1 + np.exp(-strength * units["x"])))
    units["w"] = (rng.random(n) < e).astype(int)
    units["y"] = units["x"] + units["w"] + rng.normal(size=n)
    return units, everyone


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (lambda u: u["lon"] < 20, "lon below 20"),
        (lambda u: u["country"].isin(["Mali", "Chad"]), "country Chad or Mali"),
        (lambda u: (u["lon"] < 22) & (u["country"] == "Mali"), "country Mali"),
    ],
)
def test_a_region_without_an_arm_is_found_whatever_the_model_says(where, said):
    units, everyone = planted(where)
    confounders = confounders_of(units, ["lon", "country", "x", "urban"])
    region = empty_region(confounders, units, (units["w"] == 0).to_numpy())
    assert said in region.words()
    assert (region.inside & everyone).sum() >= 0.85 * everyone.sum()
    assert not (units["w"] == 0)[region.inside].any()
    assert not empty_region(confounders, units, (units["w"] == 1).to_numpy()).boxes


def test_support_fails_where_a_logit_without_the_interaction_sees_nothing():
    units, everyone = planted(lambda u: (u["lon"] < 25) & u["country"].isin(["Mali", "Chad"]))
    subject = weight(
        units, treatment="w", outcome="y", covariates=["lon", "country", "x"], seed=1,
        decisions=Weighting(score=Hajek(), overlap=Overlap(empty=None)),
    )  # fmt: skip
    result = Support().run(subject)
    assert result.verdict is Verdict.FAIL
    assert "No unit of arm '0' occurs among" in result.detail
    assert "country Chad or Mali" in result.values["empty"]["0"]
    assert everyone.mean() > 0.1


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_no_region_is_made_up(strength):
    found = 0
    for seed in range(10):
        units, _ = planted(lambda u: u["lon"] < 0, n=800, seed=seed, strength=strength)
        confounders = confounders_of(units, [*COVARIATES, "lon", "lat"])
        for k in (0, 1):
            found += bool(empty_region(confounders, units, (units["w"] == k).to_numpy()).boxes)
    assert found <= 1


def test_clusters_that_are_treated_as_a_whole_are_no_regions_without_an_arm():
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(20), 100)
    units = pd.DataFrame({"lon": cluster + rng.random(2000)})
    member = rng.random(20)[cluster] < 0.5
    confounders = confounders_of(units, ["lon"])
    assert empty_region(confounders, units, member).boxes
    assert not empty_region(confounders, units, member, cluster=cluster).boxes
