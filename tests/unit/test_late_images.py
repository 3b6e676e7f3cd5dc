"""Images that show treatment raise an alarm; what is taken out of them is what they showed."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from eocausal.checks.base import Verdict
from eocausal.checks.image_changes import project_out, repaired_embedding, trace_test, traces
from eocausal.checks.late_images import LateImages, repair
from eocausal.errors import EmbeddingError, EstimationError, OneArmError
from eocausal.estimators.inference import Clustered
from eocausal.estimators.observational import observe
from eocausal.estimators.ridge import Ridge
from eocausal.estimators.ridge_logit import RidgeLogit
from eocausal.estimators.scores import EntropyBalancing
from eocausal.estimators.weighting import Weighting, weight
from eocausal.folds import RandomFolds

N, P = 600, 10
TRACE = np.array([1.0, -0.5, *np.zeros(P - 2)])
QUICK = Weighting(propensity=RidgeLogit((1.0,)), outcome_model=Ridge((1.0,)), folds=RandomFolds(3))


def world(mark=0.0, n=N, seed=0, arms=2):
    """Places whose true features confound; every exposure has noise; treatment may show."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=(n, P))
    x = rng.normal(size=n)
    odds = 0.8 * true[:, 0] + 0.4 * x
    e = np.column_stack([np.zeros(n), *(odds - 0.3 * k for k in range(arms - 1))])
    e = np.exp(e) / np.exp(e).sum(axis=1, keepdims=True)
    arm = (rng.random(n)[:, None] > e.cumsum(axis=1)).sum(axis=1)
    before, after = true + 0.2 * rng.normal(size=(2, n, P))
    after = after + mark * (arm > 0)[:, None] * TRACE + 0.3
    units = pd.DataFrame(
        {
            "neighborhood": np.arange(n), "x": x, "y": (arm > 0) + true[:, 0] + rng.normal(size=n),
            "w": np.array(["none", "roads", "water"])[arm] if arms > 2 else arm,
        }
    )  # fmt: skip
    return units, embedding(before, "2003-12-31"), embedding(after, "2012-12-31")


def embedding(values, date, encoder="toy"):
    return xr.DataArray(
        values, dims=("neighborhood", "feature"),
        coords={"neighborhood": np.arange(len(values))},
        attrs={"encoder": encoder, "last_image_date": date},
    )  # fmt: skip


def studied(units, after, decisions=QUICK, **images):
    return weight(
        units, treatment="w", outcome="y", covariates=["x"], images={"image": after, **images},
        decisions=decisions, seed=1,
    )  # fmt: skip


def check(earlier, **options):
    return LateImages({"2003": earlier}, **{"draws": 199, **options})


class TestCheck:
    def test_an_image_like_the_earlier_one_passes(self):
        units, before, after = world()
        result = check(before).run(studied(units, after))
        assert result.verdict is Verdict.PASS
        assert result.detail == ""
        assert abs(result.values["auc_jump"]) < 0.05
        assert result.values["change_p"] > 0.01
        assert not result.values["alarm"]
        table = result.table.set_index("image")
        assert list(table.index) == ["2003", "image"]
        assert table.loc["2003", "last_image_date"] == "2003-12-31"
        gap = table.loc["2003", "estimate"] - table.loc["image", "estimate"]
        assert abs(gap) < 2 * table.loc["image", "std_error"]

    def test_an_image_that_shows_treatment_fails(self):
        units, before, after = world(mark=1.5)
        data = observe(units, treatment="w", outcome="y", covariates=["x"], images={"image": after})
        result = check(before, decisions=QUICK).run(data)
        assert result.verdict is Verdict.FAIL
        assert result.values["auc_jump"] > 0.1
        assert result.values["change_p"] == pytest.approx(1 / 200)
        assert result.values["rise_extreme_p"] < 0.01
        assert "tells arms apart better than the image '2003' does, by 0." in result.detail
        assert "Adjust for the earlier image" in result.detail
        assert "AUC of treatment 0." in result.claim

    def test_a_faint_trace_that_hardly_helps_to_tell_arms_warns(self):
        units, before, after = world(mark=0.12)
        result = check(before).run(studied(units, after))
        assert result.values["auc_jump"] < 0.1
        assert result.verdict is Verdict.WARN
        assert "changed apart (p = 0.005)" in result.detail

    def test_a_refused_effect_is_named_in_the_table(self):
        units, before, after = world(mark=6.0)
        data = observe(units, treatment="w", outcome="y", covariates=["x"], images={"image": after})
        table = check(before, decisions=QUICK).run(data).table.set_index("image")
        assert np.isnan(table.loc["image", "estimate"])
        assert table.loc["image", "note"].startswith("The ATE is refused")
        assert np.isfinite(table.loc["2003", "estimate"])

    def test_several_earlier_images_the_last_decides(self):
        units, before, after = world()
        older = embedding(np.random.default_rng(9).normal(size=(N, P)), "1990")
        result = LateImages({"1990": older, "2003": before}, draws=199).run(studied(units, after))
        assert result.verdict is Verdict.PASS
        assert list(result.table["image"]) == ["1990", "2003", "image"]
        auc = result.table.set_index("image")["auc"]
        assert auc["1990"] < auc["2003"] - 0.05
        backwards = LateImages({"2003": before, "1990": older}, draws=199, jump=0.05)
        assert backwards.run(studied(units, after)).verdict is Verdict.FAIL

    def test_several_arms(self):
        units, before, after = world(mark=1.5, arms=3, n=900)
        study = observe(units, treatment="w", outcome="y", covariates=["x"], images={"i": after})
        assert check(before, decisions=QUICK).run(study).verdict is Verdict.FAIL
        units, before, after = world(arms=3, n=900)
        assert check(before).run(studied(units, after)).verdict is Verdict.PASS

    def test_units_without_the_earlier_image_are_left_out(self):
        units, before, after = world()
        result = check(before[100:]).run(studied(units, after))
        assert result.verdict is Verdict.PASS
        older = LateImages({"1990": before[300:], "2003": before}, draws=99)
        assert list(older.run(studied(units, after)).table["image"]) == ["2003", "image"]

    def test_scores_that_use_no_probabilities(self):
        units, before, after = world()
        balanced = Weighting(score=EntropyBalancing(), propensity=RidgeLogit((1.0,)), folds=None)
        assert check(before).run(studied(units, after, balanced)).verdict is Verdict.PASS

    def test_the_image_is_named_if_there_are_several(self):
        units, before, after = world()
        other = embedding(np.random.default_rng(1).normal(size=(N, 3)), "2000", "radar")
        fitted = studied(units, after, radar=other)
        with pytest.raises(EmbeddingError, match="'image', 'radar'"):
            check(before).run(fitted)
        assert check(before, image="image").run(fitted).verdict is Verdict.PASS
        with pytest.raises(EmbeddingError, match="'lidar' is not among them"):
            check(before, image="lidar").run(fitted)

    def test_bad_input(self):
        units, before, after = world()
        with pytest.raises(EstimationError, match="No earlier image"):
            LateImages({})
        with pytest.raises(EmbeddingError, match="10 features"):
            check(before[:, :4]).run(studied(units, after))
        bare = weight(units, treatment="w", outcome="y", covariates=["x"], decisions=QUICK)
        with pytest.raises(EmbeddingError, match="images are none"):
            check(before).run(bare)
        with pytest.raises(EmbeddingError, match="have a place in the earlier image"):
            check(before[:15]).run(studied(units, after))


class TestChanges:
    def test_trace_is_the_difference_in_differences(self):
        units, before, after = world(mark=1.0)
        change = (after - before).to_numpy()
        w = units["w"].to_numpy()
        wanted = change[w == 1].mean(axis=0) - change[w == 0].mean(axis=0)
        np.testing.assert_allclose(traces(change, w), wanted[None], atol=1e-12)

    def test_trace_given_a_table_is_that_of_a_regression(self):
        units, before, after = world(mark=1.0, arms=3)
        change = (after - before).to_numpy() + units[["x"]].to_numpy()
        arm = pd.factorize(units["w"], sort=True)[0]
        design = np.column_stack([np.ones(N), arm == 1, arm == 2, units["x"]]).astype(float)
        wanted = np.linalg.lstsq(design, change, rcond=None)[0][1:3]
        np.testing.assert_allclose(traces(change, arm, units[["x"]].to_numpy()), wanted, atol=1e-10)
        np.testing.assert_allclose(wanted, np.stack([TRACE, TRACE]), atol=0.1)

    def test_changes_that_the_table_explains_are_no_trace(self):
        units, before, after = world()
        change = (after - before).to_numpy() + units[["x"]].to_numpy()
        w = units["w"].to_numpy()
        assert trace_test(change, w, draws=199).p_value < 0.01
        assert trace_test(change, w, units[["x"]].to_numpy(), draws=199).p_value > 0.05

    def test_a_table_that_tells_the_arm_is_refused(self):
        units, before, after = world()
        with pytest.raises(EstimationError, match="tell the arm without error"):
            traces((after - before).to_numpy(), units["w"].to_numpy(), units[["w"]].to_numpy(float))

    def test_dependent_units_count_once(self):
        rng = np.random.default_rng(0)
        group = np.repeat(np.arange(30), 20)
        w = (np.arange(30) % 2)[group]
        shared = rng.normal(size=(30, 4))[group]
        change = shared + 0.1 * rng.normal(size=(600, 4))
        assert trace_test(change, w, draws=199).p_value < 0.05
        found = trace_test(change, w, groups=group, draws=199)
        assert found.p_value > 0.05
        assert (found.groups, found.components) == (30, 3)

    def test_the_check_asks_the_variance_which_units_depend(self):
        units, before, after = world()
        rng = np.random.default_rng(1)
        units["village"] = np.repeat(np.arange(30), N // 30)
        units["w"] = rng.permutation(30)[units["village"]] % 2
        season = rng.normal(size=(30, P))[units["village"]]
        moved = after + season
        alone = check(before).run(studied(units, moved))
        together = check(before).run(
            studied(
                units, moved,
                Weighting(
                    propensity=RidgeLogit((1.0,)), outcome_model=Ridge((1.0,)),
                    vcov=Clustered("village"),
                ),
            )
        )  # fmt: skip
        assert alone.values["change_p"] < 0.01 < together.values["change_p"]

    def test_projection(self):
        rng = np.random.default_rng(0)
        x, d = rng.normal(size=(50, 6)), rng.normal(size=(2, 6))
        scale = rng.uniform(0.5, 2, 6)
        out = project_out(x, d, scale)
        np.testing.assert_allclose(project_out(x + 3 * d[0] - d[1], d, scale), out, atol=1e-12)
        np.testing.assert_allclose(project_out(out, d, scale), out, atol=1e-12)
        across = np.linalg.svd(d)[2][2:].T
        np.testing.assert_allclose((x - out) @ (across / 1), (x - out) @ across)
        plain = project_out(x, d, np.ones(6))
        np.testing.assert_allclose(plain @ across, x @ across, atol=1e-12)
        np.testing.assert_allclose(plain @ d.T, 0, atol=1e-12)
        assert np.linalg.matrix_rank(out) == 4
        np.testing.assert_array_equal(project_out(x, np.zeros((1, 6)), scale), x)


class TestRepair:
    def study(self, mark=2.0):
        units, before, after = world(mark=mark, n=1500)
        data = observe(units, treatment="w", outcome="y", covariates=["x"], images={"image": after})
        return data, before

    def test_nothing_of_treatment_is_left(self):
        data, before = self.study()
        for keep in (True, False):
            fixed = repair(data, before, keep_earlier=keep)
            result = check(before, decisions=QUICK).run(fixed)
            assert result.values["auc_jump"] < 0.05
            assert result.verdict is not Verdict.FAIL
        assert check(before, decisions=QUICK).run(data).verdict is Verdict.FAIL

    def test_the_effect_is_right_again(self):
        data, before = self.study()
        fixed = QUICK.fit(repair(data, before), seed=1).estimate
        assert abs(fixed.estimate - 1) < 2.5 * fixed.std_error
        assert fixed.std_error < 0.1
        alone = QUICK.fit(repair(data, before, keep_earlier=False), seed=1).estimate
        assert alone.estimate > fixed.estimate
        table = data.confounders.only("table").x
        np.testing.assert_array_equal(repair(data, before).confounders.only("table").x, table)

    def test_in_the_directions_of_the_trace_the_earlier_image_speaks(self):
        data, before = self.study()
        old, new = before.to_numpy(), data.confounders.only("image").x
        out = repair(data, before).confounders.only("image").x
        scale = old.std(axis=0)
        d = traces(new - old, data.arm, data.confounders.only("table").x)[0]
        along = (out / scale) @ (d / scale)
        np.testing.assert_allclose(along, (old / scale) @ (d / scale), atol=1e-9)
        across = np.linalg.svd((d / scale)[None])[2][1:].T
        np.testing.assert_allclose(
            (out / scale) @ across, ((old + new) / 2 / scale) @ across, atol=1e-9
        )

    def test_places_without_the_earlier_image(self):
        data, before = self.study()
        with pytest.raises(EmbeddingError, match="500 of 1,500 units have no earlier image"):
            repair(data, before[500:])
        part = repair(data, before[500:], keep_earlier=False)
        assert part.n == 1500
        left = part.confounders.only("image").x
        # Across the trace (1, -1/2) the arms still differ by what drove placement, as before.
        across = [(z[:, 0] / 2 + z[:, 1]) for z in (left, before.to_numpy())]
        gaps = [z[data.arm == 1].mean() - z[data.arm == 0].mean() for z in across]
        assert gaps[1] > 0.2
        assert gaps[0] == pytest.approx(gaps[1], abs=0.05)

    def test_labelled_embeddings(self):
        data, before = self.study()
        units = data.units.set_index("neighborhood")
        after = embedding(data.confounders.only("image").x, "2012-12-31")
        found = repaired_embedding(after, before, units["w"], covariates=units[["x"]])
        wanted = repair(data, before, keep_earlier=False).confounders.only("image").x
        np.testing.assert_allclose(found, wanted, atol=1e-9)
        part = repaired_embedding(after, before[500:], units["w"])
        assert len(part) == 1500
        with pytest.raises(EmbeddingError, match="Encode both with one encoder"):
            repaired_embedding(after, embedding(before.to_numpy(), "2003", "other"), units["w"])
        with pytest.raises(EmbeddingError, match="places have both images"):
            repaired_embedding(after, before[:12], units["w"])
        with pytest.raises(OneArmError):
            repaired_embedding(after, before, units["w"] * 0)
