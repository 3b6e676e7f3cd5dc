"""How predictable placement is: every number against another program or a formula."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from eocausal.errors import EstimationError, FoldError
from eocausal.estimators.assignment import AssignmentMechanism, ByBlocks, sets_of
from eocausal.estimators.confounders import Confounders
from eocausal.estimators.given import GivenPropensity
from eocausal.estimators.held_out import (
    auc_over_folds,
    bin_numbers,
    calibration_line,
    curve,
    losses,
    noise_share,
    widening,
)
from eocausal.estimators.importance import groups_of, permuted
from eocausal.estimators.inference import HC0, Clustered
from eocausal.estimators.observational import observe
from eocausal.estimators.ridge_logit import RidgeLogit
from eocausal.folds import Buffered, GroupFolds, RandomFolds, SpatialBlocks, Splits, split

QUICK = AssignmentMechanism(RidgeLogit(penalties=(1.0,)), permutations=0)


def predictions(n=400, seed=0):
    """Probabilities that are too extreme, and arms drawn by the true ones."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(size=n)
    treated = (rng.random(n) < 1 / (1 + np.exp(-0.3 - odds))).astype(float)
    return 1 / (1 + np.exp(-2 * odds)), treated, rng.integers(0, 4, n)


class TestNumbers:
    def test_auc_is_that_of_scikit_learn_averaged_over_folds(self):
        p, treated, fold = predictions()
        value, _, scored = auc_over_folds(p, treated, fold)
        here = [fold == k for k in range(4)]
        pairs = [treated[h].sum() * (1 - treated[h]).sum() for h in here]
        each = [roc_auc_score(treated[h], p[h]) for h in here]
        assert value == pytest.approx(np.average(each, weights=pairs), abs=1e-12)
        assert scored == 4
        tied = np.round(p, 1)
        whole, _, _ = auc_over_folds(tied, treated, np.zeros(len(p), int))
        assert whole == pytest.approx(roc_auc_score(treated, tied), abs=1e-12)

    def test_variance_is_that_of_delong(self):
        p, treated, _ = predictions(n=150)
        psi = auc_over_folds(p, treated, np.zeros(150, int))[1]
        one, zero = p[treated == 1], p[treated == 0]
        wins = (one[:, None] > zero) + 0.5 * (one[:, None] == zero)
        v10, v01 = wins.mean(axis=1), wins.mean(axis=0)
        delong = v10.var() / len(one) + v01.var() / len(zero)
        assert psi @ psi == pytest.approx(delong, rel=1e-12)
        assert psi.sum() == pytest.approx(0, abs=1e-12)

    def test_folds_with_one_arm_are_left_out(self):
        p, treated, fold = predictions()
        treated[fold == 2] = 1
        value, psi, scored = auc_over_folds(p, treated, fold)
        kept = fold != 2
        assert (value, scored) == (auc_over_folds(p[kept], treated[kept], fold[kept])[0], 3)
        assert (psi[~kept] == 0).all()
        nothing = auc_over_folds(p, np.ones_like(p), fold)
        assert np.isnan(nothing[0])
        assert nothing[2] == 0

    def test_calibration_line_and_its_variance_are_those_of_statsmodels(self):
        p, treated, _ = predictions()
        line, psi = calibration_line(p, treated)
        odds = np.log(p / (1 - p))
        fit = sm.Logit(treated, sm.add_constant(odds)).fit(disp=0, cov_type="HC0")
        np.testing.assert_allclose(line, fit.params, rtol=1e-6)
        np.testing.assert_allclose(np.sqrt((psi**2).sum(axis=0)), fit.bse, rtol=1e-5)
        assert line[1] == pytest.approx(0.5, abs=0.12)

    def test_there_is_no_calibration_line_through_nothing(self):
        p, treated, _ = predictions(n=50)
        for probability, arm in (
            (np.full(50, 0.4), treated),
            (p, (p > 0.5).astype(float)),
        ):
            line, psi = calibration_line(probability, arm)
            assert np.isnan(line).all()
            assert (psi == 0).all()

    def test_losses_are_those_of_scikit_learn(self):
        p, treated, _ = predictions()
        share = np.full(len(p), treated.mean())
        brier, log = losses(p, treated, share)
        assert brier.loss == pytest.approx(brier_score_loss(treated, p), rel=1e-12)
        assert log.loss == pytest.approx(log_loss(treated, p), rel=1e-12)
        assert brier.base == pytest.approx(treated.var(), rel=1e-12)
        assert brier.skill == pytest.approx(1 - brier.loss / brier.base)

    def test_variance_of_a_skill_is_that_of_a_ratio(self):
        p, treated, _ = predictions(n=300)
        share = np.full(300, 0.5)
        for which in (0, 1):
            found = losses(p, treated, share)[which]
            left = []
            for i in range(300):
                keep = np.arange(300) != i
                left.append(losses(p[keep], treated[keep], share[keep])[which].skill)
            jackknife = 299 / 300 * ((np.array(left) - np.mean(left)) ** 2).sum()
            assert found.influence @ found.influence == pytest.approx(jackknife, rel=0.02)

    def test_curve_counts_and_intervals(self):
        p, treated, _ = predictions(n=500)
        table, error, chance = curve(p, treated, 5, lambda psi: float(psi @ psi), level=0.9)
        number = bin_numbers(p, 5)
        assert table["n"].sum() == 500
        assert table["n"].between(99, 101).all()
        for b, row in table.iterrows():
            inside = number == b
            assert row["predicted"] == pytest.approx(p[inside].mean())
            ends = stats.binomtest(int(treated[inside].sum()), int(inside.sum()))
            wilson = ends.proportion_ci(0.9, method="wilson")
            assert (row["ci_low"], row["ci_high"]) == pytest.approx((wilson.low, wilson.high))
        gaps = (table["predicted"] - table["share_treated"]).abs()
        assert error == pytest.approx(np.average(gaps, weights=table["n"]))
        assert error > 1.5 * chance
        wide, _, more = curve(p, treated, 5, lambda psi: 4 * float(psi @ psi), level=0.9)
        widths = [t["ci_high"] - t["ci_low"] for t in (wide, table)]
        assert (widths[0] / widths[1]).between(1.7, 2.1).all()
        assert more == pytest.approx(2 * chance)

    def test_calibration_error_by_chance_is_what_true_probabilities_have(self):
        rng = np.random.default_rng(0)
        found = []
        for _ in range(200):
            p = rng.uniform(0.1, 0.9, 400)
            treated = (rng.random(400) < p).astype(float)
            found.append(curve(p, treated, 8, lambda psi: float(psi @ psi), level=0.9)[1:])
        error, chance = np.mean(found, axis=0)
        assert error == pytest.approx(chance, rel=0.05)

    def test_ties_share_a_bin(self):
        number = bin_numbers(np.repeat([0.2, 0.4], [70, 30]), 10)
        assert set(number) == {0, 1}
        assert (bin_numbers(np.full(20, 0.3), 10) == 0).all()

    def test_noise_share_and_widening(self):
        rng = np.random.default_rng(0)
        signal, a, b = rng.normal(size=(3, 20_000))
        assert noise_share(signal, signal, (50, 50), 80) == pytest.approx(0)
        assert noise_share(a, b - a, (50, 50), 80) == 1
        one = noise_share(signal + a, signal + b, (50, 50), 100)
        assert one == pytest.approx(1 / 3, abs=0.02)
        assert widening(0.0, 5) == 1
        assert widening(1.0, 5) ** 2 == pytest.approx(1 + 5 / 4)


def study(n=500, *, image=0.0, seed=0, arms=2, p=8):
    """Placement by x, z is noise, and the first image feature may matter."""
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=(2, n))
    features = rng.normal(size=(n, p))
    odds = 1.2 * x + image * features[:, 0]
    e = np.column_stack([np.zeros(n), *(odds - 0.4 * k for k in range(arms - 1))])
    e = np.exp(e) / np.exp(e).sum(axis=1, keepdims=True)
    arm = (rng.random(n)[:, None] > e.cumsum(axis=1)).sum(axis=1)
    units = pd.DataFrame(
        {
            "x": x, "z": z, "country": rng.choice(["A", "B", "C"], n),
            "w": np.array(["none", "roads", "water"])[arm] if arms > 2 else arm,
            "y": rng.normal(size=n), "lon": rng.uniform(0, 8, n), "lat": rng.uniform(-4, 4, n),
        },
        index=pd.Index([f"u{i}" for i in range(n)], name="unit"),
    )  # fmt: skip
    image_table = pd.DataFrame(features, index=units.index)
    return observe(
        units, treatment="w", outcome="y", covariates=["x", "z", "country"],
        images={"image": image_table},
    )  # fmt: skip


class TestSets:
    def test_table_image_and_both(self):
        assert sets_of(study(n=60).confounders) == {
            "table": ("table",), "image": ("image",), "table + image": ("table", "image"),
        }  # fmt: skip

    def test_several_images(self):
        c = Confounders(np.zeros((2, 3)), ("a", "b", "c"), np.arange(3), ("table", "old", "new"))
        assert list(sets_of(c)) == ["table", "old", "new", "old + new", "table + old + new"]
        assert list(sets_of(c.only("old", "new"))) == ["old", "new", "old + new"]
        assert sets_of(c.only("table")) == {"table": ("table",)}


class TestFit:
    def test_every_set_is_scored_on_the_same_units_and_folds(self):
        data = study(image=1.0)
        fitted = QUICK.fit(data, seed=3)
        splits = split(RandomFolds(), data.units, seed=3, stratum=data.arm.astype(float))
        np.testing.assert_array_equal(fitted.splits.fold, splits.fold)
        for found, blocks in zip(
            fitted.predicted, (("table",), ("image",), ("table", "image")), strict=True
        ):
            e = QUICK.model.cross_fit(data.confounders.only(*blocks), data.arm, splits, seed=3)
            value, psi, _ = auc_over_folds(e[:, 1], data.arm.astype(float), splits.fold)
            assert found.auc.estimate == pytest.approx(value, abs=1e-12)
            wide = widening(found.noise, 5)
            assert found.auc.std_error == pytest.approx(wide * np.sqrt(psi @ psi), rel=1e-9)
        table, image, both = (p.auc.estimate for p in fitted.predicted)
        assert both > max(table, image) > min(table, image) > 0.6

    def test_differences_are_between_pairs_of_sets(self):
        fitted = QUICK.fit(study(image=1.0), seed=3)
        aucs = {p.auc.confounders: p.auc.estimate for p in fitted.predicted}
        for d in fitted.differences:
            assert d.gain.estimate == pytest.approx(aucs[d.of] - aucs[d.over])
        assert [(d.of, d.over) for d in fitted.differences] == [
            ("image", "table"), ("table + image", "table"), ("table + image", "image"),
        ]  # fmt: skip
        gain = fitted.differences[1].gain
        assert gain.p_value < 1e-3
        # Paired: less uncertain than if the two AUCs were of different units.
        apart = np.hypot(*(p.auc.std_error for p in fitted.predicted[::2]))
        assert gain.std_error < 0.8 * apart

    def test_own_sets(self):
        data = study()
        fitted = QUICK.fit(data, seed=0, sets={"all": ["table", "image"]})
        assert [p.auc.confounders for p in fitted.predicted] == ["all"]
        assert fitted.differences == ()
        with pytest.raises(EstimationError, match="no confounders called 'radar'"):
            QUICK.fit(data, seed=0, sets={"r": ["radar"]})

    def test_probabilities_without_noise_are_not_widened(self):
        data = study(n=2000)
        known = data.confounders.x[:, :1]
        p = 1 / (1 + np.exp(-1.2 * known))
        told = Confounders(p, ("p",), np.zeros(1, int), ("table",))
        given = AssignmentMechanism(GivenPropensity("p", calibrator=None), permutations=0)
        found = given.fit(replace(data, confounders=told), seed=0).predicted[0]
        assert found.noise == pytest.approx(0, abs=1e-9)
        assert found.slope.ci_low < 1 < found.slope.ci_high
        assert found.intercept.ci_low < 0 < found.intercept.ci_high
        assert found.calibration_error < 2 * found.error_by_chance
        assert found.brier_skill.estimate > 0.1
        assert found.log_skill.p_value < 1e-6

    def test_in_sample_flatters(self):
        data = study(n=200, p=100)
        alone = AssignmentMechanism(RidgeLogit(penalties=(0.01,)), folds=None)
        fitted = alone.fit(data, seed=0, sets={"image": ["image"]})
        assert fitted.predicted[0].auc.estimate > 0.85
        assert "the units that models were fitted on" in fitted.summary()
        assert fitted.importances == ()
        honest = AssignmentMechanism(RidgeLogit(penalties=(0.01,)), permutations=0)
        assert honest.fit(data, seed=0, sets={"image": ["image"]}).predicted[0].auc.estimate < 0.65

    def test_several_arms_are_compared_with_untreated_units(self):
        data = study(n=900, arms=3)
        fitted = QUICK.fit(data, seed=1)
        assert [p.auc.treatment for p in fitted.predicted] == ["roads"] * 3 + ["water"] * 3
        e = QUICK.model.cross_fit(data.confounders.only("table"), data.arm, fitted.splits, seed=1)
        for k, name in ((1, "roads"), (2, "water")):
            keep = np.isin(data.arm, (0, k))
            share = e[keep, k] / (e[keep, k] + e[keep, 0])
            wanted = auc_over_folds(share, (data.arm[keep] == k) * 1.0, fitted.splits.fold[keep])
            found = next(p for p in fitted.predicted if p.auc.treatment == name)
            assert found.auc.estimate == pytest.approx(wanted[0], abs=1e-9)
            assert found.n_treated == (data.arm == k).sum()
            assert len(found.auc.influence.labels) == keep.sum()

    def test_blocks_are_the_default_dependence_of_blocked_folds(self):
        data = study(n=900, arms=3)
        blocks = SpatialBlocks(km=100)
        own = AssignmentMechanism(RidgeLogit((1.0,)), folds=Buffered(blocks, km=5), permutations=0)
        found = own.fit(data, seed=1).predicted[0].auc
        labels = data.units.assign(b=blocks.blocks(data.units))
        same = Clustered("b").variance(found.influence, labels)
        assert found.std_error == pytest.approx(np.sqrt(same.value), rel=1e-12)
        assert found.df == same.df
        named = AssignmentMechanism(
            RidgeLogit((1.0,)), folds=Buffered(blocks, km=5), permutations=0,
            vcov=ByBlocks(blocks),
        )  # fmt: skip
        assert named.fit(data, seed=1).predicted[0].auc.std_error == found.std_error

    def test_groups_and_other_variances(self):
        data = study(n=600)
        grouped = AssignmentMechanism(RidgeLogit((1.0,)), folds=GroupFolds("country", k=3))
        assert grouped.fit(data, seed=0).predicted[0].auc.df == 2
        plain = AssignmentMechanism(
            RidgeLogit((1.0,)), folds=GroupFolds("country", k=3), vcov=HC0(), permutations=0
        )
        assert np.isinf(plain.fit(data, seed=0).predicted[0].auc.df)


class TestImportance:
    def test_groups_are_columns_of_the_table_and_whole_images(self):
        groups = groups_of(study(n=60).confounders)
        assert [g.name for g in groups] == ["x", "z", "country", "image"]
        assert [len(g.columns) for g in groups] == [1, 1, 2, 8]

    def test_models_see_no_permuted_copy(self):
        data = study()
        splits = split(RandomFolds(), data.units, seed=0)
        c = data.confounders
        constant = Confounders(
            np.column_stack([c.x, np.ones(c.n)]), (*c.names, "one"), np.append(c.block, 0), c.blocks
        )
        model = RidgeLogit((1.0,))
        plain = model.cross_fit(constant, data.arm, splits, seed=0)
        found = dict(permuted(model, constant, data.arm, splits, repeats=2, seed=0))
        unchanged = next(v for g, v in found.items() if g.name == "one")
        for probability in unchanged:
            np.testing.assert_allclose(probability, plain, atol=1e-6)
        moved = next(v for g, v in found.items() if g.name == "x")
        assert np.abs(moved[0] - plain).max() > 0.1
        assert np.abs(moved[0] - moved[1]).max() > 0.1

    def test_batches_do_not_matter(self, monkeypatch):
        data = study(n=200)
        splits = split(RandomFolds(3), data.units, seed=0)
        model = RidgeLogit((1.0,))
        whole = list(permuted(model, data.confounders, data.arm, splits, repeats=3, seed=5))
        monkeypatch.setattr("eocausal.estimators.importance.CELLS", 2 * data.confounders.x.size)
        parts = list(permuted(model, data.confounders, data.arm, splits, repeats=3, seed=5))
        assert [g.name for g, _ in whole] == [g.name for g, _ in parts]
        for (_, a), (_, b) in zip(whole, parts, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)

    def test_loss_is_that_of_scikit_learn(self):
        data = study(n=1500)
        x = data.confounders.only("table").standardised()
        train = np.random.default_rng(0).random(1500) < 0.5
        splits = Splits(np.where(train, 1, 0), np.stack([train, ~train], axis=1))
        table = data.confounders.only("table")
        model = RidgeLogit((0.5,))
        base = model.cross_fit(table, data.arm, splits, seed=0)[:, 1]
        found = {
            g.name: np.mean([
                roc_auc_score(data.arm[~train], base[~train])
                - roc_auc_score(data.arm[~train], p[~train, 1])
                for p in probabilities
            ])
            for g, probabilities in permuted(model, table, data.arm, splits, repeats=30, seed=0)
        }  # fmt: skip
        other = LogisticRegression(C=2.0, tol=1e-8).fit(x[train], data.arm[train])
        wanted = permutation_importance(
            other, x[~train], data.arm[~train], scoring="roc_auc", n_repeats=30, random_state=0
        )
        assert found["x"] == pytest.approx(wanted.importances_mean[0], abs=0.01)
        assert found["z"] == pytest.approx(wanted.importances_mean[1], abs=0.005)

    def test_what_matters_comes_first(self):
        mechanism = AssignmentMechanism(RidgeLogit((1.0,)), permutations=4)
        fitted = mechanism.fit(study(n=800, image=0.8), seed=2)
        found = fitted.importance_frame()
        assert list(found["confounders"][:2]) == ["x", "image"]
        assert (found["within"] == "table + image").all()
        low, high = (found.set_index("confounders")[c] for c in ("ci_low", "ci_high"))
        assert low["x"] > 0.05
        assert low["z"] < 0.005 < high["x"]
        assert (found["permutations"] == 4).all()
        drop = fitted.importances[0]
        psi = drop.drop.influence.raw
        wanted = np.sqrt(psi @ psi + drop.spread**2 / 4)
        assert drop.drop.std_error == pytest.approx(wanted, rel=1e-9)


@pytest.fixture(scope="module")
def fitted():
    mechanism = AssignmentMechanism(RidgeLogit((1.0,)), permutations=2)
    return mechanism.fit(study(n=900, arms=3), seed=0)


class TestResults:
    def test_tables(self, fitted):
        assert len(fitted.to_frame()) == 6
        assert fitted.to_frame()["auc"].between(0, 1).all()
        assert len(fitted.differences_frame()) == 6
        assert list(fitted.importance_frame()["treatment"]) == ["roads"] * 4 + ["water"] * 4
        curves = fitted.curves()
        assert len(curves) == 60
        counts = curves.groupby(["treatment", "confounders"])["n"].sum()
        assert counts["roads", "table"] == len(fitted.predicted[0].auc.influence.labels)
        names = {r["measure"] for r in fitted.records()}
        assert names == {
            "AUC", "calibration intercept", "calibration slope", "Brier skill", "log-loss skill",
            "difference of AUCs", "AUC lost when permuted",
        }  # fmt: skip
        assert len(fitted.records()) == 6 * 5 + 6 + 8

    def test_words(self, fitted):
        text = fitted.summary()
        assert "Placement of 'roads' is told, on held-out units, with an AUC of: from table" in text
        assert "table + image tells more than image alone, by" in text
        assert "That table + image tells more than table alone is not shown" in text or (
            "table + image tells less than table alone" in text
        )
        assert "overlap is in doubt" not in text
        assert repr(fitted).startswith("FittedAssignment(AUC of roads from table: 0.")

    def test_separated_arms_are_said_to_lack_overlap(self):
        data = study(n=400)
        x = np.column_stack([data.arm + 0.01 * data.confounders.x[:, 1]])
        told = Confounders(x, ("x",), np.zeros(1, int), ("table",))
        fitted = QUICK.fit(replace(data, confounders=told), seed=0)
        assert fitted.predicted[0].auc.estimate == 1
        assert fitted.predicted[0].auc.ci_high == 1
        assert "overlap is in doubt" in fitted.summary()

    def test_probabilities_that_are_too_extreme_are_said_to_be(self):
        wild = AssignmentMechanism(RidgeLogit(penalties=(1e-4,)), permutations=0)
        fitted = wild.fit(study(n=300, p=60), seed=0)
        assert "Probabilities from table + image are too extreme" in fitted.summary()


class TestBadInput:
    def test_decisions(self):
        for wrong in ({"bins": 0}, {"permutations": -1}, {"level": 1.0}):
            with pytest.raises(EstimationError, match="cannot be used"):
                AssignmentMechanism(**wrong)

    def test_nothing_to_tell_from(self):
        data = study(n=60)
        bare = observe(data.units, treatment="w", outcome="y")
        with pytest.raises(EstimationError, match="nothing to tell placement from"):
            QUICK.fit(bare, seed=0)

    def test_no_fold_with_both_arms(self):
        data = study(n=200)
        units = data.units.assign(w=(data.units["country"] == "A").astype(int))
        bad = observe(units, treatment="w", outcome="y", covariates=["x"])
        grouped = AssignmentMechanism(RidgeLogit((1.0,)), folds=GroupFolds("country", k=3))
        with pytest.raises(FoldError):
            grouped.fit(bad, seed=0)

    def test_a_rare_arm_that_half_of_the_folds_lack(self):
        data = study(n=300)
        w = np.zeros(300, int)
        w[:6] = 1
        units = data.units.assign(w=w, block=np.arange(300) // 6)
        rare = observe(units, treatment="w", outcome="y", covariates=["x"])
        found = AssignmentMechanism(RidgeLogit((1.0,)), permutations=1).fit(rare, seed=0)
        assert np.isfinite(found.predicted[0].auc.std_error)
