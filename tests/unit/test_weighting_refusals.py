"""When weighting refuses: arms without counterpart, with region and units named; bad tables."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from eocausal.checks.support import alternatives
from eocausal.effects import Status
from eocausal.errors import (
    AlignmentError,
    AssignmentError,
    DuplicateIdError,
    EmbeddingError,
    EmptyInputError,
    EstimationError,
    FoldError,
    LeakageError,
    MissingColumnError,
    OneArmError,
    OutcomeError,
    OverlapError,
)
from eocausal.estimators.arm_means import Estimand
from eocausal.estimators.bootstrap import SpatialBootstrap
from eocausal.estimators.inference import HC0, Clustered, Conley, Projected, TwoWay
from eocausal.estimators.logit import Logit
from eocausal.estimators.observational import observe
from eocausal.estimators.overlap import ArmSupport, Overlap, effective_sample_size
from eocausal.estimators.refusal import dependent_groups
from eocausal.estimators.ridge_logit import RidgeLogit
from eocausal.estimators.scores import AIPW, CBPS, EntropyBalancing, Hajek
from eocausal.estimators.weighting import Weighting, weight
from eocausal.folds import GroupFolds, RandomFolds
from eocausal.simulate.no_overlap import (
    ComparisonSurveyConfig,
    SaturatedRegionConfig,
    simulate_comparison_survey,
    simulate_saturated_region,
)

COLUMNS = ("a", "b", "c")
STRICT = Overlap()
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


# Refusals


@pytest.mark.parametrize(
    ("config", "ess"), [(ComparisonSurveyConfig(), 20), (ComparisonSurveyConfig.psid(), 8)]
)
@pytest.mark.parametrize("seed", range(3))
def test_a_programme_compared_with_a_survey_of_others(config, ess, seed):
    """Treated ESS of about 10 (as with the CPS-1 controls) and of about 2 (as with PSID-1)."""
    table = simulate_comparison_survey(config, np.random.default_rng(seed))
    columns = [f"x{k}" for k in range(1, 9)]
    data = observe(table, treatment="treated", outcome="outcome", covariates=columns)
    with pytest.raises(OverlapError) as caught:
        TEXTBOOK.fit(data, seed=1)
    fact = caught.value.fact
    assert fact.startswith("The ATE is refused: ")
    assert "(ATO)" in caught.value.next_step
    assert "(Crump)" in caught.value.next_step
    assert "Hardly ever in it are" in fact or "no unit of arm '1' occurs among" in fact
    lenient = replace(TEXTBOOK, overlap=Overlap(0, 1.1, empty=None)).fit(data, seed=1)
    assert lenient.support[1].ess < ess
    records = {r["estimand"]: r for r in alternatives(data, TEXTBOOK, 1)}
    ato, trimmed = records["ATO"], records["ATE of the kept"]
    for record in (ato, trimmed):
        assert record["status"] != "refused"
        assert record["ess_treated"] > 30
        assert abs(record["estimate"] - 1.2) < 4 * record["std_error"] + 0.3
    assert trimmed["n_trimmed"] > 0.3 * data.n


@pytest.mark.parametrize("propensity", [Logit(), RidgeLogit()])
@pytest.mark.parametrize("covariates", [("x", "country"), ("x", "lon", "lat")])
@pytest.mark.parametrize("score", [AIPW(), Hajek(Estimand.ATT), EntropyBalancing(), CBPS()])
def test_a_region_where_everyone_is_treated_is_refused_and_named(propensity, covariates, score):
    table = simulate_saturated_region(SaturatedRegionConfig(), np.random.default_rng(0))
    east = table["country"] == "East"
    with pytest.raises(OverlapError) as caught:
        weight(
            table, treatment="treated", outcome="outcome", covariates=covariates,
            decisions=Weighting(score=score, propensity=propensity),
        )  # fmt: skip
    fact = caught.value.fact
    assert f"The {score.estimand} is refused: no unit of arm '0' occurs among" in fact
    assert f"{east.sum()} units" in fact
    where = "country East" if "country" in covariates else "lon above 28"
    assert f"exactly those with {where}: " in fact
    for unit in table.index[east][:5]:
        assert f" {unit}" in fact
    assert "(ATT)" not in caught.value.next_step


def test_the_region_is_no_hindrance_where_it_does_not_count():
    table = simulate_saturated_region(SaturatedRegionConfig(), np.random.default_rng(0))

    def run(score, overlap=STRICT, rows=slice(None), covariates=("x", "country")):
        return weight(
            table[rows], treatment="treated", outcome="outcome", covariates=covariates,
            decisions=Weighting(score=score, overlap=overlap),
        )  # fmt: skip

    ato = run(Hajek(Estimand.ATO)).estimate
    assert abs(ato.estimate - 1) < 4 * ato.std_error
    west = run(AIPW(), rows=(table["country"] == "West").to_numpy()).estimate
    assert abs(west.estimate - 1) < 4 * west.std_error
    assert run(AIPW(), covariates=("x", "lat")).estimate.status is Status.OK
    # Not looked for, it is what the model makes of it.
    with pytest.raises(OverlapError, match="among the tenth of units that are least likely"):
        run(AIPW(), Overlap(empty=None))
    assert run(AIPW(), Overlap(0, 1.1, empty=None)).support[0].absent


def test_no_region_to_refuse_where_everyone_may_be_treated():
    for seed in range(10):
        config = SaturatedRegionConfig(meridian=30.0)
        table = simulate_saturated_region(config, np.random.default_rng(seed))
        found = weight(
            table, treatment="treated", outcome="outcome", covariates=["x", "lon", "lat"], seed=seed
        ).estimate
        assert abs(found.estimate - 1) < 4 * found.std_error


def test_arms_that_are_thin_and_arms_that_are_merely_small():
    rule = Overlap()
    even, uneven = np.ones(20), np.r_[np.full(3, 100.0), np.full(97, 0.01)]
    assert not rule.refused([ArmSupport.of("small", even)])
    assert [a.arm for a in rule.refused([ArmSupport.of("thin", uneven)])] == ["thin"]
    one = np.r_[50.0, np.ones(99)]
    assert rule.refused([ArmSupport.of("one unit", one)])
    assert not rule.refused([ArmSupport.of("two units", np.ones(2))])
    words = ArmSupport.of("one unit", one).words()
    assert "the 100 units of arm 'one unit' weigh as much as 8.5 even ones" in words
    assert "the heaviest has 34% of the weight" in words
    warned = np.r_[np.full(100, 10.0), np.full(900, 0.1)]
    assert not rule.refused([ArmSupport.of("uneven", warned)])
    assert rule.warned([ArmSupport.of("uneven", warned)])
    assert effective_sample_size(np.zeros(3)) == 0


@pytest.mark.parametrize(
    ("hardest", "expected", "even", "absent"),
    [
        (0, 5.0, 20.0, True),  # the probabilities promised five
        (0, 0.1, 10.0, True),  # a hundred times less likely than the average
        (0, 2.0, 10.0, False),  # none by chance
        (1, 0.1, 10.0, False),
        (None, 0.0, 0.0, False),
    ],
)
def test_an_arm_that_does_not_occur_where_it_is_unlikely(hardest, expected, even, absent):
    found = ArmSupport.of("a", np.ones(40), hardest=hardest, expected=expected, even=even)
    assert found.absent is absent
    assert bool(Overlap().refused([found])) is absent
    few = ArmSupport.of("a", np.ones(20), hardest=hardest, expected=expected, even=even)
    assert not Overlap().refused([few])


def test_a_rare_treatment_that_could_reach_everyone_is_not_refused():
    absent = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(3000, 2))
        w = (rng.random(3000) < 1 / (1 + np.exp(4 - x[:, 0] / 2))).astype(int)
        y = x.sum(axis=1) + rng.normal(size=3000)
        units = pd.DataFrame(x, columns=["a", "b"]).assign(w=w, y=y)
        absent += fit(units, Weighting(), covariates=["a", "b"], seed=seed).support[1].hardest == 0
    assert absent > 0


def test_groups_that_depend_on_each_other():
    rng = np.random.default_rng(0)
    units = pd.DataFrame(
        {"lon": rng.uniform(0, 5, 400), "lat": rng.uniform(0, 5, 400),
         "east": rng.uniform(0, 5e5, 400), "north": rng.uniform(0, 5e5, 400),
         "v": np.arange(400) // 10, "t": np.arange(400) % 7}
    )  # fmt: skip
    assert dependent_groups(HC0(), units) is None
    np.testing.assert_array_equal(dependent_groups(Clustered("v"), units), units["v"])
    np.testing.assert_array_equal(dependent_groups(TwoWay("v", "t"), units), units["v"])
    for rule in (
        Conley(100),
        SpatialBootstrap(100),
        Conley(100, projected=Projected("east", "north")),
    ):
        groups = dependent_groups(rule, units)
        assert 25 <= groups.max() + 1 <= 49
        columns = ["lon", "lat"] if rule.projected is None else ["east", "north"]
        spread = units.groupby(groups)[columns].agg(np.ptp).max().max()
        assert spread < (1.01 if rule.projected is None else 1e5)


def test_whole_villages_that_are_treated_are_no_region():
    rng = np.random.default_rng(0)
    village = np.repeat(np.arange(30), 60)
    z = rng.normal(size=30)
    w = (rng.random(30) < 0.5).astype(int)[village]
    units = pd.DataFrame({"z": z[village], "village": village, "w": w})
    units["y"] = units["w"] + units["z"] + rng.normal(size=len(units))
    with pytest.raises(OverlapError, match="no unit of arm"):
        fit(units, Weighting(folds=GroupFolds("village")), covariates=["z"])
    clustered = Weighting(folds=GroupFolds("village"), vcov=Clustered("village"))
    assert fit(units, clustered, covariates=["z"]).estimate.std_error > 0.05


# Bad inputs


def bad_outcome(units):
    units.loc["u3", "y"] = np.nan
    return OutcomeError, "missing"


def text_outcome(units):
    units["y"] = "high"
    return OutcomeError, "number"


def constant_outcome(units):
    units["y"] = 1.0
    return OutcomeError, "for all 600 units"


def missing_confounder(units):
    units.loc["u3", "b"] = np.nan
    return EstimationError, "'b' is missing for 1 units: 'u3'"


def infinite_confounder(units):
    units.loc["u3", "b"] = np.inf
    return EstimationError, "'b' is infinite"


def missing_treatment(units):
    units.loc["u3", "w"] = None
    return AssignmentError, "missing for 1 units: 'u3'"


def one_arm(units):
    units["w"] = "road"
    return OneArmError, "All 600 units"


def no_untreated(units):
    units["w"] = np.where(units["w"] == "none", "school", "road")
    return AssignmentError, "means no treatment"


def a_dose(units):
    units["w"] = (np.arange(600) % 60).astype(float)
    return AssignmentError, "60 values"


def no_column(units):
    del units["b"]
    return MissingColumnError, "'b'"


def repeated_labels(units):
    units.index = ["same"] * len(units)
    return DuplicateIdError, "more than once"


@pytest.mark.parametrize(
    "spoil",
    [bad_outcome, text_outcome, constant_outcome, missing_confounder, infinite_confounder,
     missing_treatment, one_arm, no_untreated, a_dose, no_column, repeated_labels],
)  # fmt: skip
def test_bad_tables_are_refused_with_what_is_wrong(spoil):
    units = study()
    kind, words = spoil(units)
    with pytest.raises(kind, match=words):
        fit(units).estimate  # noqa: B018


@pytest.mark.parametrize(
    ("columns", "named"), [(("a", "w"), "'w'"), (("a", "y"), "'y'")]
)  # fmt: skip
def test_a_column_has_one_role(columns, named):
    with pytest.raises(EstimationError, match=f"{named} is named in two roles"):
        fit(study(), covariates=columns)


def test_a_table_without_rows_is_refused():
    with pytest.raises(EmptyInputError, match="no rows"):
        fit(study().iloc[:0])


def test_too_few_of_an_arm_for_the_folds():
    units = study(n=60)
    units["w"] = "none"
    units.iloc[:3, units.columns.get_loc("w")] = "road"
    with pytest.raises(FoldError, match="units of arm"):
        fit(units, Weighting(folds=RandomFolds(2)))


def test_no_confounder_at_all_is_a_difference_in_means():
    units = study()
    found = fit(units, covariates=()).estimate
    treated = units["w"] == "road"
    want = units["y"][treated].mean() - units["y"][~treated].mean()
    assert found.estimate == pytest.approx(want, rel=1e-10)


def embedding(units, last="2004-12-31"):
    values = np.random.default_rng(0).normal(size=(len(units), 3))
    return xr.DataArray(
        values, dims=("neighborhood", "feature"),
        coords={"neighborhood": units.index.to_numpy()},
        attrs={"encoder": "e", "weights_sha256": "", "bands": ["red"], "last_image_date": last},
    )  # fmt: skip


def test_images_taken_after_treatment_began_are_refused():
    units = study()
    images = {"chip": embedding(units)}
    asked = {"treatment": "w", "outcome": "y", "covariates": ["a"], "images": images}
    assert weight(units, **asked, start="2005-01-01").data.confounders.blocks == ("table", "chip")
    with pytest.raises(LeakageError, match=r"last image is of 2004-12-31.*began 2004-06-01"):
        weight(units, **asked, start="2004-06-01")
    begun = pd.Series(pd.Timestamp("2010-01-01"), units.index)
    treated = units.index[units["w"] == "road"]
    begun[treated[:2]] = pd.Timestamp("2003-01-01")
    with pytest.raises(LeakageError, match="2 units that were treated before it"):
        weight(units.assign(begun=begun), **asked, start="begun")
    begun[treated[:2]] = pd.Timestamp("2010-01-01")
    begun[units.index.difference(treated)] = pd.Timestamp("1990-01-01")  # no one's treatment
    weight(units.assign(begun=begun), **asked, start="begun")


def test_units_without_an_image_are_refused_and_named():
    units = study()
    images = {"chip": embedding(units.iloc[2:])}
    with pytest.raises(AlignmentError, match=r"not in the features 'chip': 'u0', 'u1'"):
        weight(units, treatment="w", outcome="y", images=images)
    images = {"chip": embedding(units)}
    images["chip"][3:5] = np.nan
    with pytest.raises(EmbeddingError, match=r"2 units have no features in 'chip': 'u3', 'u4'"):
        weight(units, treatment="w", outcome="y", images=images)
    with pytest.raises(AlignmentError):
        weight(units.set_index("other-" + units.index), treatment="w", outcome="y", images=images)
