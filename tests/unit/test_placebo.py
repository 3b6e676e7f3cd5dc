"""Placebo outcomes, and estimates without each group."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from eocausal.checks.base import Verdict
from eocausal.checks.leave_out import LeaveOneOut, leave_one_out, refit
from eocausal.checks.placebo import Placebo, joint_wald, placebo_table, with_outcome
from eocausal.errors import EstimationError, MissingColumnError, OneClusterError
from eocausal.estimators.inference import Clustered
from eocausal.estimators.scores import EntropyBalancing, Hajek
from eocausal.estimators.trimming import Crump
from eocausal.estimators.weighting import Weighting, weight


def study(n=1000, hidden=0.0, effect=1.0, seed=0):
    """Wealth before and after treatment; ``hidden`` moves placement and wealth."""
    rng = np.random.default_rng(seed)
    x, u = rng.normal(size=(2, n))
    w = (rng.random(n) < 1 / (1 + np.exp(-0.7 * x - hidden * u))).astype(int)
    before = x + u + rng.normal(size=n)
    return pd.DataFrame(
        {
            "x": x,
            "w": w,
            "before": before,
            "earlier": x + u + rng.normal(size=n),
            "height": x + rng.normal(size=n),
            "y": x + u + effect * w + rng.normal(size=n),
            "country": rng.choice(["A", "B", "C", "D"], n),
        },
        index=pd.Index([f"u{i}" for i in range(n)], name="unit"),
    )


def fitted(units, treatment="w", **decisions):
    return weight(
        units, treatment=treatment, outcome="y", covariates=["x"],
        decisions=Weighting(**decisions), seed=1,
    )  # fmt: skip


PAST = ("before", "earlier", "height")


def test_no_hidden_confounder_passes_and_a_hidden_one_fails():
    clean = Placebo(PAST).run(fitted(study()))
    assert clean.verdict is Verdict.PASS
    assert clean.values["p_joint"] > 0.05
    found = Placebo(PAST).run(fitted(study(hidden=1.0, effect=0.5)))
    assert found.verdict is Verdict.FAIL
    assert found.values["p_joint"] < 1e-6
    assert found.values["largest_ratio"] > 0.3
    assert "cannot have moved" in found.detail


def test_a_small_but_sure_placebo_effect_warns():
    result = Placebo(PAST).run(fitted(study(n=8000, hidden=0.15, effect=3.0)))
    assert result.values["p_joint"] < 0.05
    assert result.verdict is Verdict.WARN


def test_placebos_too_vague_to_compare_with_the_effect_warn():
    units = study(effect=0.5)
    rare = np.arange(len(units)) % 25 == 0
    units["early"] = units["before"].where(rare)
    result = Placebo(("early",)).run(fitted(units))
    assert result.values["p_joint"] > 0.05
    assert result.verdict is Verdict.WARN
    assert "says little" in result.detail


def test_weights_are_those_of_the_effect_and_the_outcome_model_is_not():
    units = study()
    subject = fitted(units)
    moved = with_outcome(subject, "before")
    assert moved.nuisances.propensity is subject.nuisances.propensity
    np.testing.assert_array_equal(moved.means.weights, subject.means.weights)
    assert not np.allclose(moved.nuisances.outcome, subject.nuisances.outcome)
    same = with_outcome(subject, "earlier").estimate
    direct = weight(units, treatment="w", outcome="earlier", covariates=["x"], seed=1).estimate
    assert same.estimate == pytest.approx(direct.estimate, abs=1e-10)
    assert same.std_error == pytest.approx(direct.std_error, abs=1e-10)


@pytest.mark.parametrize("score", [Hajek(), EntropyBalancing()])
def test_scores_without_an_outcome_model_have_placebos_too(score):
    table, effects = placebo_table(fitted(study(), score=score), PAST)
    assert len(effects) == 3
    assert (table["t"].abs() < 4).all()


def test_the_joint_test_is_the_quadratic_form_of_the_influence_values():
    subject = fitted(study())
    _, effects = placebo_table(subject, PAST)
    psi = np.stack([e.influence.raw for e in effects], axis=1)
    b = np.array([e.estimate for e in effects])
    expected = float(b @ np.linalg.solve(psi.T @ psi, b))
    wald = joint_wald(effects, subject.data.units)
    assert wald.statistic == pytest.approx(expected)
    assert wald.rank == 3
    assert wald.p_value == pytest.approx(stats.chi2.sf(expected, 3))


def test_an_outcome_given_twice_counts_once():
    units = study()
    units["again"] = 3 * units["before"] + 1
    subject = fitted(units)
    _, effects = placebo_table(subject, ("before", "again"))
    wald = joint_wald(effects, units)
    assert wald.rank == 1
    assert wald.p_value == pytest.approx(effects[0].p_value, rel=1e-3)


def test_few_clusters_leave_few_degrees_of_freedom():
    units = study()
    subject = fitted(units, vcov=Clustered("country"))
    _, effects = placebo_table(subject, PAST)
    wald = joint_wald(effects, units)
    assert wald.df == 3
    assert wald.p_value == pytest.approx(stats.f.sf(wald.statistic / 9, 3, 1))
    many = Placebo((*PAST, "y2", "y3")).run(
        fitted(units.assign(y2=units["x"] ** 2, y3=units["before"] ** 2), vcov=Clustered("country"))
    )
    assert many.verdict is Verdict.WARN


def test_a_placebo_that_is_missing_for_some_uses_the_others():
    units = study()
    units.loc[units.index[:300], "before"] = np.nan
    units["never"] = np.nan
    units["one arm"] = units["before"].where(units["w"] == 1)
    subject = fitted(units)
    table, effects = placebo_table(subject, ("before", "height", "never", "one arm"))
    assert list(table["n"]) == [700, 1000, 0, 0]
    assert "'never' is missing for all units" in table["note"][2]
    assert "two units of arm '0'" in table["note"][3]
    assert joint_wald(effects, units).rank == 2
    result = Placebo(("never",)).run(subject)
    assert result.verdict is Verdict.WARN
    assert "No effect on a placebo outcome" in result.claim


def test_what_is_adjusted_for_cannot_be_a_placebo():
    subject = fitted(study())
    for name in ("x", "w", "y"):
        with pytest.raises(EstimationError, match="already"):
            Placebo((name,)).run(subject)
    with pytest.raises(MissingColumnError, match="befor"):
        Placebo(("befor",)).run(subject)
    with pytest.raises(EstimationError, match="No placebo"):
        Placebo(())


def test_several_treatments_are_tested_together():
    units = study()
    rng = np.random.default_rng(3)
    units["kind"] = np.where(units["w"] == 1, rng.choice(["road", "school"], len(units)), "none")
    result = Placebo(("before", "height")).run(fitted(units, treatment="kind"))
    assert list(result.table["treatment"]) == ["road", "school"] * 2
    assert result.values["rank"] == 4


def test_leaving_a_country_out_is_the_estimate_of_the_rest():
    units = study()
    done = []
    subject = fitted(units)
    table = leave_one_out(subject, "country", progress=lambda k, n: done.append((k, n)))
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for row in table.itertuples():
        rest = units[units["country"] != row.group]
        direct = weight(rest, treatment="w", outcome="y", covariates=["x"], seed=0).estimate
        assert row.estimate == pytest.approx(direct.estimate)
        assert row.change == pytest.approx(direct.estimate - subject.estimate.estimate)
        assert row.n == len(units) - len(rest)
    assert table["influence"].sum() == pytest.approx(subject.means.influence.sum(axis=0) @ [-1, 1])
    assert list(table["change"].abs()) == sorted(table["change"].abs(), reverse=True)
    assert LeaveOneOut().run(subject).verdict is Verdict.PASS


def test_an_effect_of_one_country_hangs_on_it():
    units = study(effect=-0.2)
    only = units["country"] == "A"
    units["y"] += 4.0 * units["w"] * only
    result = LeaveOneOut().run(fitted(units))
    assert result.verdict is Verdict.FAIL
    assert result.values["sign_hangs_on"] == ["A"]
    assert "The sign hangs on A" in result.detail
    first = result.table.iloc[0]
    assert first["group"] == "A"
    assert first["change"] < 0 < first["influence"]


def test_a_country_without_which_there_is_no_overlap_is_a_row():
    units = study()
    untreated = units["w"] == 0
    units["country"] = np.where(untreated, "home", "abroad")
    units.loc[units.index[untreated][:1], "country"] = "abroad"
    result = LeaveOneOut().run(fitted(units))
    assert result.verdict is Verdict.WARN
    assert set(result.values["no_estimate_without"]) == {"home", "abroad"}
    assert result.table["note"].str.contains("Fewer than two units of arm").all()
    assert "there is no estimate" in result.claim


def test_groups_must_be_several():
    units = study()
    units["country"] = "A"
    with pytest.raises(OneClusterError, match="one value of 'country'"):
        LeaveOneOut().run(fitted(units))


def test_trimmed_units_stay_out_and_no_more_leave():
    units = study(n=4000, seed=2)
    rng = np.random.default_rng(5)
    units["w"] = (rng.random(len(units)) < 1 / (1 + np.exp(-2 * units["x"]))).astype(int)
    subject = fitted(units, score=Hajek(), trim=Crump())
    assert subject.n_trimmed > 0
    keep = np.arange(subject.data.n) > 20
    again = refit(subject, keep, seed=1)
    assert again.data.n == keep.sum()
    assert again.n_trimmed == 0


def test_a_real_experiment_moved_no_earnings_of_the_past(reference):
    units = pd.read_csv(reference("lalonde") / "nsw_dw.csv")
    subject = weight(
        units, treatment="treat", outcome="re78",
        covariates=["age", "education", "black", "hispanic", "married"], seed=1,
    )  # fmt: skip
    result = Placebo(("re74", "re75")).run(subject)
    assert result.values["p_joint"] > 0.05
    assert result.values["rank"] == 2
    poor = units[(units["treat"] == 0) | (units["re75"] == 0)]
    picked = weight(
        poor, treatment="treat", outcome="re78",
        covariates=["age", "education", "black", "hispanic", "married"], seed=1,
    )  # fmt: skip
    assert Placebo(("re74", "re75")).run(picked).verdict is Verdict.FAIL
