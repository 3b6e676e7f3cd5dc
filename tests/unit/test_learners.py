"""The DR-learner, its field regression, transport and the treatment AUC."""

import itertools

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from eocausal.designs import Trial
from eocausal.errors import (
    AlignmentError,
    EmbeddingError,
    EstimationError,
    FoldError,
    LeakageError,
    OneClusterError,
    OutcomeError,
    SupportError,
)
from eocausal.estimators.auc import treatment_auc
from eocausal.estimators.bases import ForestBasis, PrincipalComponents, RidgeBasis
from eocausal.estimators.field import EVEN, POWERS, fit_field
from eocausal.estimators.learners import EffectLearner, feature_frame
from eocausal.estimators.place_means import Places
from eocausal.estimators.ranking import rate_over_splits
from eocausal.estimators.transport import transport
from eocausal.folds import GroupFolds, RandomFolds

TRIAL = Trial("arm", cluster="neighborhood", prob=0.5)


def world(seed=0, places=160, people=6, noise=0.6):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(places, 5))
    tau = 0.5 + 0.5 * z[:, 0]
    arm = rng.permutation(np.arange(places) % 2)
    j = np.repeat(np.arange(places), people)
    y = 0.5 * z[j, 1] + tau[j] * arm[j] + noise * rng.normal(size=len(j))
    units = pd.DataFrame(
        {"neighborhood": j, "arm": arm[j], "y": y, "age": rng.normal(size=len(j))},
        index=[f"u{i}" for i in range(len(j))],
    )
    return units, pd.DataFrame(z), tau


def squares(n):
    points = gpd.points_from_xy(30 + 0.01 * (np.arange(n) % 20), 1 + 0.01 * (np.arange(n) // 20))
    table = gpd.GeoDataFrame(geometry=points.buffer(0.004), crs="EPSG:4326")
    table.index.name = "neighborhood"
    return table


def test_field_equals_the_dense_gaussian_posterior():
    """The posterior is the textbook one, mixed by brute force over the same grid."""
    rng = np.random.default_rng(0)
    phi, y, known = rng.normal(size=(30, 4)), rng.normal(size=30), rng.uniform(0.1, 1, 30)
    found = fit_field(phi, y, known)
    spread = np.sqrt(np.mean((y - y.mean()) ** 2))
    noise = np.linspace(0, 1, 12) * spread * 1.3
    noise[0] = 0.02 * spread
    signal = np.linspace(0, 1, 24) * spread * 1.5
    x = np.column_stack([np.ones(30), phi])
    size = np.sqrt((phi**2).mean(axis=0))
    log, means, covs = [], [], []
    for v in noise:
        for s in signal:
            for power, even in itertools.product(POWERS, EVEN):
                share = size ** (2 * power) / (size ** (2 * power)).sum()
                prior = ((1 - even) * share + even / 4) / size**2 * max(s, 1e-9) ** 2
                w = 1 / (known + v**2)
                cov = np.linalg.inv(x.T * w @ x + np.diag([0.0, *(1 / prior)]))
                mean = cov @ (x.T @ (w * y))
                big = np.diag(known + v**2) + phi * prior @ phi.T
                inv = np.linalg.inv(big)
                one = np.ones(30)
                info = one @ inv @ one
                r = y - (one @ inv @ y) / info
                log.append(-0.5 * (np.linalg.slogdet(big)[1] + np.log(info) + r @ inv @ r))
                means.append(mean)
                covs.append(cov)
    weight = np.exp(np.array(log) - max(log))
    weight /= weight.sum()
    mean = weight @ np.array(means)
    second = np.einsum("g,gij->ij", weight, np.array(covs)) + np.einsum(
        "g,gi,gj->ij", weight, np.array(means), np.array(means)
    )
    assert found.mean == pytest.approx(mean, abs=1e-5)
    assert found.covariance == pytest.approx(second - np.outer(mean, mean), abs=1e-5)


def test_field_with_groups_equals_the_dense_likelihood():
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(10), 4)
    phi = rng.normal(size=(40, 3))
    y = rng.normal(size=10)[group] + 0.3 * rng.normal(size=40)
    alone = fit_field(phi, y, np.full(40, 0.05))
    together = fit_field(phi, y, np.full(40, 0.05), group)
    assert together.covariance[0, 0] > 1.8 * alone.covariance[0, 0]


def test_principal_components_have_unit_mean_square():
    rng = np.random.default_rng(2)
    x = np.column_stack([rng.normal(size=(50, 4)) @ rng.normal(size=(4, 6)), np.full(50, 3.0)])
    phi = PrincipalComponents.fit(x, 64)(x)
    assert phi.shape == (50, 4)
    assert np.mean((phi**2).sum(axis=1)) == pytest.approx(1.0)
    assert np.isfinite(PrincipalComponents.fit(np.ones((5, 2)), 3)(np.ones((5, 2)))).all()


def test_places_average_people_and_keep_spanning_clusters():
    value, place = np.array([1.0, 3.0, 5.0, 7.0]), np.array([0, 0, 1, 1])
    own = Places.average(value, place, place)
    assert own.value.tolist() == [2, 6]
    assert own.group is None
    assert own.known.tolist() == [1.0, 1.0]  # pooled variance 2 over two people each
    spanning = Places.average(value, place, np.zeros(4, dtype=int))
    assert spanning.group.tolist() == [0, 0]


@pytest.mark.parametrize("basis", [RidgeBasis(), ForestBasis(trees=100)])
def test_learner_finds_planted_effects(basis):
    units, z, tau = world(places=300)
    fitted = EffectLearner(basis, seed=1).fit(TRIAL, units, z, outcome="y", covariates=["age"])
    mean, sd = fitted.predict(z)
    assert np.corrcoef(mean, tau)[0, 1] > (0.9 if isinstance(basis, RidgeBasis) else 0.7)
    assert np.mean(np.abs(mean - tau) < 1.96 * sd) > 0.85
    average = fitted.average()
    assert abs(average.estimate - tau.mean()) < 4 * average.std_error
    assert "FittedEffects" in repr(fitted)


def test_ridge_effects_are_linear_in_the_features():
    units, z, _ = world()
    z[5] = 3.0
    fitted = EffectLearner(RidgeBasis()).fit(TRIAL, units, z, outcome="y")
    slope, intercept = fitted.linear()
    np.testing.assert_allclose(z.to_numpy() @ slope + intercept, fitted.predict(z)[0], rtol=1e-9)
    assert slope[5] == 0
    forest = EffectLearner(ForestBasis(trees=20)).fit(TRIAL, units, z, outcome="y")
    with pytest.raises(EstimationError, match="RidgeBasis"):
        forest.linear()


def test_scores_do_not_see_their_own_fold():
    """Changing one cluster's outcomes must leave that cluster's outcome models as they were."""
    units, z, _ = world()
    learner = EffectLearner(seed=3)
    a = learner.fit(TRIAL, units, z, outcome="y")
    mine = (units["neighborhood"] == 5).to_numpy()
    changed = units.assign(y=units["y"] + 100.0 * mine)
    b = learner.fit(TRIAL, changed, z, outcome="y")
    arm = units["arm"].to_numpy()[mine]
    shift = (arm - 0.5) / 0.25 * 100.0
    assert b.scores_array[mine] - a.scores_array[mine] == pytest.approx(shift, rel=1e-9)


def test_same_seed_same_answer_and_row_order_does_not_matter():
    units, z, _ = world(places=80)
    learner = EffectLearner(ForestBasis(trees=20), seed=5)
    first = learner.fit(TRIAL, units, z, outcome="y").predict(z)[0]
    again = learner.fit(TRIAL, units, z, outcome="y").predict(z)[0]
    assert first.equals(again)
    shuffled = units.sample(frac=1, random_state=0)
    moved = EffectLearner(seed=5).fit(TRIAL, shuffled, z, outcome="y").predict(z)[0]
    plain = EffectLearner(seed=5).fit(TRIAL, units, z, outcome="y").predict(z)[0]
    assert moved.to_numpy() == pytest.approx(plain.to_numpy(), abs=1e-8)


def embedding(z, last="2015-12-31", **attrs):
    return xr.DataArray(
        z.to_numpy(), dims=("neighborhood", "feature"), coords={"neighborhood": z.index},
        attrs={"encoder": "test", "last_image_date": last, **attrs},
    )  # fmt: skip


def test_image_after_treatment_is_refused():
    units, z, _ = world(places=40)
    trial = Trial("arm", cluster="neighborhood", start="2015-06-01")
    with pytest.raises(LeakageError, match=r"2015-12-31.*2015-06-01"):
        EffectLearner().fit(trial, units, embedding(z), outcome="y")
    ok = EffectLearner().fit(trial, units, embedding(z, "2015-05-31"), outcome="y")
    assert len(ok.scores) == len(units)


def test_units_without_image_are_counted():
    units, z, _ = world(places=60)
    z.iloc[[3, 9]] = np.nan
    fitted = EffectLearner().fit(TRIAL, units, embedding(z), outcome="y")
    assert fitted.data.n_without_image == 12
    assert "12 units without a usable image" in fitted.average().note


def test_bad_input_is_refused():
    units, z, _ = world(places=40)
    learner = EffectLearner()
    with pytest.raises(AlignmentError, match="39"):
        learner.fit(TRIAL, units, z.iloc[:39], outcome="y")
    with pytest.raises(OutcomeError):
        learner.fit(TRIAL, units.assign(y=np.nan), z, outcome="y")
    with pytest.raises(FoldError, match="split between folds"):
        EffectLearner(folds=RandomFolds(5)).fit(TRIAL, units, z, outcome="y")
    both = units.groupby("arm")["neighborhood"].unique().map(lambda v: v[0])
    two = units[units["neighborhood"].isin(both)]
    with pytest.raises(OneClusterError):
        learner.fit(TRIAL, two, z, outcome="y")
    with pytest.raises(EmbeddingError, match="partly"):
        feature_frame(pd.DataFrame([[1.0, np.nan]]))


def test_transport_marks_what_it_has_not_seen():
    units, z, tau = world(places=120)
    target = pd.concat([z, z.iloc[:5] + 40.0], ignore_index=True)
    target.loc[125] = np.nan
    fitted = EffectLearner(seed=1).fit(TRIAL, units, z, outcome="y")
    found = transport(fitted, embedding(target), squares(126))
    status = found.table["status"]
    assert (status.iloc[120:125] == "extrapolated").all()
    assert status.iloc[125] == "no_image"
    assert np.isnan(found.table["estimate"].iloc[125])
    assert (status.iloc[:120] == "ok").mean() > 0.9
    assert found.table["support"].iloc[:120].min() >= 0.99  # the trial's own places
    far, near = found.table["std_error"].iloc[120:125], found.table["std_error"].iloc[:120]
    assert far.min() > near.max()
    average = found.average(supported_only=True)
    assert abs(average["estimate"] - tau.mean()) < 4 * average["std_error"]
    with pytest.raises(SupportError):
        transport(fitted, embedding(z + 100.0), squares(120))
    with pytest.raises(AlignmentError):
        transport(fitted, embedding(z), squares(60))


def test_auc_remembers_places_only_with_random_folds():
    rng = np.random.default_rng(0)
    z = pd.DataFrame(rng.normal(size=(80, 40)))
    arm = rng.permutation(np.arange(80) % 2)
    j = np.repeat(np.arange(80), 8)
    units = pd.DataFrame({"neighborhood": j, "arm": arm[j]})
    random = treatment_auc(TRIAL, units, z, RandomFolds(5), seed=1)
    grouped = treatment_auc(TRIAL, units, z, GroupFolds("neighborhood"), seed=1)
    assert random.auc > 0.8
    assert abs(grouped.auc - 0.5) < 3.5 * grouped.std_error
    assert grouped.record()["ci_low"] <= grouped.auc <= grouped.record()["ci_high"]


def test_auc_and_its_error_by_brute_force():
    from eocausal.estimators.auc import placements

    rng = np.random.default_rng(1)
    score, treated = rng.integers(0, 6, 50).astype(float), rng.integers(0, 2, 50).astype(float)
    pairs, auc, psi = placements(score, treated)
    one, zero = score[treated == 1], score[treated == 0]
    wins = (one[:, None] > zero) + 0.5 * (one[:, None] == zero)
    assert auc == pytest.approx(wins.mean(), rel=1e-12)
    assert pairs == wins.size
    delong = wins.mean(axis=1).var() / len(one) + wins.mean(axis=0).var() / len(zero)
    assert psi @ psi == pytest.approx(delong, rel=1e-9)


def test_rate_over_splits_is_a_distribution():
    units, z, _ = world(places=200, people=4)
    found = rate_over_splits(TRIAL, units, z, outcome="y", splits=6, repetitions=50, seed=2)
    frame = found.to_frame()
    assert frame.groupby("target").size().to_dict() == {"AUTOC": 6, "Qini": 6}
    assert frame["estimate"].nunique() == 12
    assert (frame["ratio"] > 1).all()
    again = rate_over_splits(TRIAL, units, z, outcome="y", splits=6, repetitions=50, seed=2)
    assert frame.equals(again.to_frame())
    record = found.records()[0]
    assert record["method"] == "RATE, median of 6 splits"
    assert record["p_value"] < 0.05
    assert "evidence" in found.summary()
