"""What an embedding can tell: equal numbers to plain computations, and honest error rates."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from eocausal.checks.autocorrelation import (
    Nearest,
    Within,
    correlogram,
    morans_i,
    spatial_autocorrelation,
)
from eocausal.checks.base import Verdict
from eocausal.checks.embedding_space import (
    Cosine,
    Whitened,
    degeneracy,
    nearest_neighbors,
    typical_places,
)
from eocausal.checks.predictability import predictability
from eocausal.checks.representation import EmbeddingData, Representation, neighborhood_means
from eocausal.errors import AlignmentError, EmbeddingError, EstimationError, OneClusterError
from eocausal.folds import GroupFolds, RandomFolds, SpatialBlocks


def embedding(values, lon=None, lat=None, labels=None) -> xr.DataArray:
    values = np.asarray(values, np.float32)
    array = xr.DataArray(
        values,
        dims=("neighborhood", "feature") if values.ndim == 2 else
        ("neighborhood", "period", "feature"),
        coords={"neighborhood": np.arange(len(values)) if labels is None else labels},
        attrs={"encoder": "by hand", "last_image_date": ""},
    )  # fmt: skip
    if lon is not None:
        array = array.assign_coords(lon=("neighborhood", lon), lat=("neighborhood", lat))
    return array


def smooth(lon, lat, rng, count, reach=0.5):
    """Random fields that lose their correlation within about ``reach`` degrees."""
    waves = rng.standard_normal((2, 60, count)) / reach
    phase = rng.uniform(0, 2 * np.pi, (60, count))
    angle = lon[:, None, None] * waves[0] + lat[:, None, None] * waves[1] + phase
    return np.cos(angle).sum(axis=1) / np.sqrt(30)


def places(rng, n, side=4.0):
    return rng.uniform(30, 30 + side, n), rng.uniform(0, side, n)


# --- neighbors ---------------------------------------------------------------------------------


def test_neighbors_are_those_of_the_plain_definition():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 6)) @ rng.standard_normal((6, 6))
    lon, lat = places(rng, 50)
    found = nearest_neighbors(embedding(x, lon, lat), queries=[7], k=49, metric=Whitened(6))
    centered = x - x.mean(axis=0)
    inverse = np.linalg.inv(np.cov(centered.T, ddof=0))
    gap = centered - centered[7]
    mahalanobis = np.sqrt(np.einsum("ij,jk,ik->i", gap, inverse, gap))
    order = np.argsort(mahalanobis)[1:]
    assert found["neighbor"].tolist() == order.tolist()
    np.testing.assert_allclose(found["distance"], mahalanobis[order], rtol=1e-4)
    np.testing.assert_allclose(
        found["relative"], mahalanobis[order] / np.median(mahalanobis[order]), rtol=1e-4
    )


def test_cosine_ignores_length():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((40, 5))
    x -= x.mean(axis=0)
    points = Cosine(5).points(np.vstack([x, -x]))
    np.testing.assert_allclose(np.linalg.norm(points[:40] - points[40:], axis=1), 2.0, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1.0)


def test_near_places_can_be_left_out():
    rng = np.random.default_rng(2)
    lon, lat = places(rng, 200)
    array = embedding(smooth(lon, lat, rng, 5), lon, lat)
    near = nearest_neighbors(array, queries=[3, 9], k=4)
    far = nearest_neighbors(array, queries=[3, 9], k=4, exclude_within_km=100)
    assert near["km"].median() < 100
    assert (far["km"] > 100).all()
    assert (far.groupby("query")["distance"].first() >= near.groupby("query")["distance"].first()
            ).all()  # fmt: skip
    assert far["rank"].tolist() == [1, 2, 3, 4] * 2


def test_distance_on_the_ground_crosses_the_antimeridian():
    lon, lat = np.array([179.9, -179.9, 0.0]), np.zeros(3)
    found = nearest_neighbors(embedding(np.diag([1.0, 2.0, 3.0]), lon, lat), queries=[0], k=2)
    assert found.set_index("neighbor").loc[1, "km"] == pytest.approx(0.2 * 111.195, rel=1e-3)


def test_neighbors_of_what_is_not_there():
    values = np.vstack([np.full((1, 3), np.nan), np.eye(3)])
    with pytest.raises(AlignmentError, match="queries"):
        nearest_neighbors(embedding(values), queries=[0])
    with pytest.raises(EmbeddingError, match="lon"):
        nearest_neighbors(embedding(values), queries=[1], exclude_within_km=5)
    with pytest.raises(EmbeddingError, match="k=0"):
        nearest_neighbors(embedding(values), queries=[1], k=0)
    found = nearest_neighbors(embedding(values), queries=[1], k=9)
    assert len(found) == 2
    assert found["km"].isna().all()


def test_typical_places_come_from_each_kind_the_largest_first():
    rng = np.random.default_rng(3)
    kind = np.repeat([0, 1, 2], [60, 30, 10])
    x = np.eye(3)[kind] * 10 + 0.1 * rng.standard_normal((100, 3))
    found = typical_places(embedding(x), 3, metric=Whitened(2), seed=0)
    assert kind[found].tolist() == [0, 1, 2]
    assert typical_places(embedding(np.ones((5, 2))), 3) == [0]


# --- collapse ----------------------------------------------------------------------------------


def test_effective_rank_counts_directions():
    rng = np.random.default_rng(4)
    free = degeneracy(embedding(rng.standard_normal((4000, 12))))
    assert free.effective_rank == pytest.approx(12, rel=0.02)
    one = degeneracy(embedding(rng.standard_normal((400, 1)) @ rng.standard_normal((1, 12))))
    assert one.effective_rank == pytest.approx(1, abs=1e-3)
    assert one.leading_share == pytest.approx(1, abs=1e-3)
    wide = degeneracy(embedding(rng.standard_normal((40, 300))))  # more features than places
    assert wide.effective_rank < 40


def test_scale_of_a_feature_does_not_count():
    x = np.random.default_rng(5).standard_normal((300, 4))
    scaled = degeneracy(embedding(x * [1, 1e4, 1e-4, 1] + [0, 5, 0, 1]))
    assert scaled.effective_rank == pytest.approx(degeneracy(embedding(x)).effective_rank, rel=1e-3)
    assert scaled.constant == 0


def test_constants_twins_and_unseen_places_are_counted():
    rng = np.random.default_rng(6)
    x = rng.standard_normal((60, 5))
    x[:, 2] = 1234.5
    x[10] = x[20] = x[30]
    x[40] = x[41] * (1 + 1e-6)
    x[50] = np.nan
    found = degeneracy(embedding(x))
    assert (found.n, found.unseen, found.constant, found.twins) == (60, 1, 1, 5)
    flat = degeneracy(embedding(np.ones((20, 3))))
    assert (flat.effective_rank, flat.constant, flat.twins) == (0.0, 3, 20)


# --- predictability ----------------------------------------------------------------------------


def test_what_the_embedding_holds_is_told_and_what_it_does_not_is_not():
    rng = np.random.default_rng(7)
    n = 600
    lon, lat = places(rng, n)
    x = rng.standard_normal((n, 8))
    known = pd.DataFrame({
        "linear": x @ rng.standard_normal(8) + 0.5 * rng.standard_normal(n) * np.sqrt(8),
        "noise": rng.standard_normal(n),
        "binary": x[:, 0] + 0.5 * rng.standard_normal(n) > 0,
        "coin": rng.random(n) < 0.5,
    }).rename_axis("neighborhood")  # fmt: skip
    known.loc[:49, "linear"] = np.nan
    table = predictability(embedding(x, lon, lat), known, SpatialBlocks(km=60)).set_index(
        ["covariate", "honest"]
    )
    assert table.loc[("linear", True), "measure"] == "R2"
    assert table.loc[("linear", True), "n"] == 550
    signal = known["linear"].var()
    assert table.loc[("linear", True), "score"] == pytest.approx(1 - 2 / signal, abs=0.06)
    assert table.loc[("binary", True), "measure"] == "AUC"
    assert table.loc[("binary", True), "score"] > 0.9
    assert abs(table.loc[("noise", True), "score"]) < 0.03
    assert table.loc[("coin", True), "ci_low"] < 0.5 < table.loc[("coin", True), "ci_high"]
    assert set(table["folds"]) == {"blocks of 60 km", "random"}


def test_r_squared_is_the_plain_one():
    """Where the penalty is of no account, ridge is least squares on the other folds."""
    rng = np.random.default_rng(8)
    n = 400
    x = rng.standard_normal((n, 3))
    y = x @ [1.0, -2.0, 0.5] + 0.3 * rng.standard_normal(n)
    known = pd.DataFrame({"y": y}).rename_axis("neighborhood")
    row = predictability(embedding(x), known, RandomFolds(4), seed=5).iloc[0]
    fold = RandomFolds(4).assign(known, seed=5)
    error = total = 0.0
    for k in range(4):
        a = np.column_stack([np.ones(n), x])
        beta = np.linalg.lstsq(a[fold != k], y[fold != k], rcond=None)[0]
        error += ((y - a @ beta)[fold == k] ** 2).sum()
        total += ((y[fold == k] - y[fold != k].mean()) ** 2).sum()
    assert row["score"] == pytest.approx(1 - error / total, abs=1e-3)


def test_random_folds_find_links_that_blocks_do_not():
    """Embedding and covariate are independent smooth fields: there is nothing to be told."""
    rng = np.random.default_rng(9)
    scores = {"blocks": [], "random": []}
    alarms = {"blocks": 0, "random": 0}
    for seed in range(15):
        lon, lat = places(rng, 300, side=8.0)
        fields = smooth(lon, lat, rng, 31)
        known = pd.DataFrame({"other": fields[:, 0]}).rename_axis("neighborhood")
        array = embedding(fields[:, 1:], lon, lat)
        for name, folds in (("blocks", SpatialBlocks(km=120)), ("random", RandomFolds())):
            row = predictability(array, known, folds, seed=seed).iloc[0]
            scores[name].append(row["score"])
            alarms[name] += row["ci_low"] > 0
    assert np.mean(scores["random"]) > 0.1
    assert np.mean(scores["blocks"]) < 0.06
    assert alarms["random"] >= 12
    assert alarms["blocks"] <= 4


@pytest.mark.slow
def test_intervals_of_nothing_miss_chance_as_rarely_as_stated():
    """Without allowing for the data that folds share, one AUC in five would miss 0.5."""
    rng = np.random.default_rng(21)
    reps = 80
    missed = {"R2": 0, "AUC": 0}
    for seed in range(reps):
        known = pd.DataFrame({"R2": rng.standard_normal(150), "AUC": rng.random(150) < 0.5})
        known = known.rename_axis("neighborhood")
        table = predictability(embedding(rng.standard_normal((150, 4))), known, RandomFolds(),
                               seed=seed)  # fmt: skip
        for row in table.to_dict("records"):
            chance = 0.5 if row["measure"] == "AUC" else 0.0
            missed[row["measure"]] += row["ci_low"] > chance
            missed[row["measure"]] += row["measure"] == "AUC" and row["ci_high"] < chance
    assert missed["AUC"] <= stats.binom.ppf(0.999, reps, 0.05)
    assert missed["R2"] <= stats.binom.ppf(0.999, reps, 0.025)


def test_scores_do_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(10)
    lon, lat = places(rng, 200)
    x = rng.standard_normal((200, 4))
    known = pd.DataFrame({"a": x[:, 0] + rng.standard_normal(200)}).rename_axis("neighborhood")
    first = predictability(embedding(x, lon, lat), known, SpatialBlocks(km=60))
    turned = predictability(embedding(x, lon, lat)[::-1], known, SpatialBlocks(km=60))
    assert first["score"].to_numpy() == pytest.approx(turned["score"].to_numpy())


def test_groups_dates_and_texts():
    rng = np.random.default_rng(11)
    n = 300
    x = rng.standard_normal((n, 3))
    known = pd.DataFrame({
        "country": np.arange(n) % 10,
        "kind": np.where(x[:, 0] > 0, "town", "village"),
        "day": pd.Timestamp("2000-01-01") + pd.to_timedelta(np.round(100 * x[:, 1]), unit="D"),
    }).rename_axis("neighborhood")  # fmt: skip
    table = predictability(embedding(x), known, GroupFolds("country"))
    first = known["kind"].value_counts().index[0]  # the other one says the same
    assert set(table["covariate"]) == {f"kind={first}", "day"}
    assert set(table["folds"]) == {"groups by country", "random"}
    honest = table[table["honest"]].set_index("covariate")
    assert honest.loc["day", "score"] > 0.9
    assert honest.loc["kind=town", "score"] > 0.95
    assert (honest["clusters"] == 10).all()


def test_what_cannot_be_scored_says_why():
    rng = np.random.default_rng(12)
    known = pd.DataFrame({
        "constant": np.ones(60), "few": np.where(np.arange(60) < 20, np.arange(60), np.nan),
    }).rename_axis("neighborhood")  # fmt: skip
    array = embedding(rng.standard_normal((60, 3)))
    table = predictability(array, known, RandomFolds()).set_index("covariate")
    assert table.loc["constant", "note"] == "the covariate does not vary"
    assert "fewer than 30" in table.loc["few", "note"]
    assert table["score"].isna().all()
    known["y"] = rng.standard_normal(60)
    two = predictability(array, known[["y"]], RandomFolds(2))
    assert "fewer than 3 folds" in two.loc[0, "note"]
    with pytest.raises(AlignmentError, match="more than one row"):
        predictability(array, pd.concat([known, known]), RandomFolds())
    with pytest.raises(AlignmentError, match="No neighborhood"):
        predictability(array, known.set_axis(known.index + 1000), RandomFolds())
    with pytest.raises(EstimationError, match="level"):
        predictability(array, known, RandomFolds(), level=95)
    spots = embedding(rng.standard_normal((60, 3)), np.full(60, 30.0), np.zeros(60))
    with pytest.raises(OneClusterError):
        predictability(spots, known, SpatialBlocks(km=50))


# --- autocorrelation ---------------------------------------------------------------------------


def test_morans_i_is_the_plain_double_sum():
    rng = np.random.default_rng(13)
    lon, lat = places(rng, 30)
    z = rng.standard_normal((30, 2))
    weights = Nearest(4).weights(lon, lat)
    moran, p = morans_i(z, weights, np.array([2.0, 1.0]), permutations=99, seed=0)
    w = weights.toarray()
    assert (w > 0).sum(axis=1).tolist() == [4] * 30
    for c in range(2):
        d = z[:, c] - z[:, c].mean()
        expected = 30 / w.sum() * (d @ w @ d) / (d @ d)
        assert moran[c] == pytest.approx(expected)
    assert moran[2] == pytest.approx((2 * moran[0] + moran[1]) / 3)
    assert ((p >= 0.01) & (p <= 1)).all()


def test_weights_of_places_at_one_point_and_of_lonely_ones():
    lon = np.array([10.0] * 6 + [50.0])
    nearest = Nearest(2).weights(lon, np.zeros(7)).toarray()
    assert (np.diag(nearest) == 0).all()
    assert nearest.sum(axis=1) == pytest.approx(np.ones(7))
    within = Within(10).weights(lon, np.zeros(7)).toarray()
    assert within.sum(axis=1) == pytest.approx([1] * 6 + [0])
    assert within[0, 1] == pytest.approx(0.2)


def test_range_is_that_of_the_field():
    """The mean correlation of cosine waves with normal frequencies is exp(-(d/reach)²/2)."""
    rng = np.random.default_rng(14)
    lon, lat = places(rng, 1500, side=6.0)
    found = spatial_autocorrelation(
        embedding(smooth(lon, lat, rng, 40, reach=0.4), lon, lat), components=12, permutations=49
    )
    expected = 0.4 * math.sqrt(2 * math.log(10)) * 111.2
    assert found.range_km == pytest.approx(expected, rel=0.25)
    assert found.p_value == pytest.approx(1 / 50)
    assert found.moran.loc["all", "share"] == pytest.approx(found.moran["share"].iloc[:-1].sum())


def test_correlogram_is_the_mean_over_pairs():
    rng = np.random.default_rng(15)
    lon, lat = places(rng, 60)
    z = smooth(lon, lat, rng, 2)
    table = correlogram(z, lon, lat, names=["a", "b"], seed=0)
    row = table[table["component"] == "a"].iloc[1]
    d = z[:, 0] - z[:, 0].mean()
    unit = np.deg2rad(np.stack([lon, lat], axis=1))
    cosine = (np.sin(unit[:, None, 1]) * np.sin(unit[None, :, 1])
              + np.cos(unit[:, None, 1]) * np.cos(unit[None, :, 1])
              * np.cos(unit[:, None, 0] - unit[None, :, 0]))  # fmt: skip
    km = 6371.0 * np.arccos(np.clip(cosine, -1, 1))
    pairs = (km >= row["km_low"]) & (km < row["km_high"]) & ~np.eye(60, dtype=bool)
    assert row["pairs"] == pairs.sum()
    assert row["correlation"] == pytest.approx(np.outer(d, d)[pairs].mean() / d.var())
    assert row["km"] == pytest.approx(km[pairs].mean())


def test_p_value_of_no_autocorrelation_is_uniform():
    rng = np.random.default_rng(16)
    lon, lat = places(rng, 80)
    weights = Nearest().weights(lon, lat)
    p = np.array([
        morans_i(rng.standard_normal((80, 3)), weights, np.array([3.0, 2.0, 1.0]),
                 permutations=99, seed=seed)[1]
        for seed in range(400)
    ])  # fmt: skip
    for column in p.T:
        rejected = (column <= 0.05).sum()
        low, high = stats.binom.ppf([0.001, 0.999], 400, 0.05)
        assert low <= rejected <= high
        assert stats.kstest(column - rng.uniform(0, 0.01, 400), "uniform").pvalue > 1e-3


def test_autocorrelation_of_too_little():
    few = embedding(np.random.default_rng(0).standard_normal((5, 3)), np.arange(5), np.zeros(5))
    with pytest.raises(EstimationError, match="5 places"):
        spatial_autocorrelation(few)
    with pytest.raises(EstimationError, match="same features"):
        spatial_autocorrelation(embedding(np.ones((40, 3)), np.arange(40.0), np.zeros(40)))
    with pytest.raises(EmbeddingError, match="lon"):
        spatial_autocorrelation(embedding(np.ones((40, 3))))
    lon = np.where(np.arange(40) == 7, np.nan, 1.0)
    with pytest.raises(EmbeddingError, match="1 places have no finite"):
        spatial_autocorrelation(embedding(np.eye(40), lon, np.zeros(40)))


# --- the check ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(17)
    lon, lat = places(rng, 500)
    x = smooth(lon, lat, rng, 6, reach=0.2)
    known = pd.DataFrame({
        "told": x[:, 0] + 0.3 * rng.standard_normal(500), "hidden": rng.standard_normal(500),
    }).rename_axis("neighborhood")  # fmt: skip
    return embedding(x, lon, lat), known


def test_a_sound_embedding_passes(world):
    array, known = world
    result = Representation(permutations=99).run(EmbeddingData(array, known, SpatialBlocks(km=120)))
    assert result.verdict is Verdict.PASS
    assert "tell 1 of 2 known covariates" in result.claim
    assert result.detail == ""
    assert result.values["covariates_told"] == 1
    assert 10 < result.values["range_km"] < 120


@pytest.mark.parametrize("folds", [SpatialBlocks(km=10), RandomFolds(), None])
def test_folds_shorter_than_the_likeness_of_places_are_warned_of(world, folds):
    array, known = world
    result = Representation(permutations=99).run(EmbeddingData(array, known, folds))
    assert result.verdict is Verdict.WARN
    assert "held-out scores are too good" in result.detail
    assert "SpatialBlocks(km=" in result.detail


def test_unknown_covariates_are_warned_of(world):
    array, known = world
    result = Representation(permutations=99).run(
        EmbeddingData(array, known[["hidden"]], SpatialBlocks(km=120))
    )
    assert result.verdict is Verdict.WARN
    assert "None of the known covariates" in result.detail


def test_periods_without_any_image_are_warned_of(world):
    sound, known = world
    few = sound.assign_attrs(periods_unseen='["2016"]')
    many = sound.assign_attrs(periods_unseen=json.dumps([str(y) for y in range(2010, 2017)]))
    for array, words in (
        (few, "No place has an image of 2016:"),
        (many, "No place has an image of 2010, 2011, 2012, 2013, 2014 and 2 more:"),
    ):
        result = Representation(permutations=99).run(
            EmbeddingData(array, known, SpatialBlocks(km=120))
        )
        assert result.verdict is Verdict.WARN
        assert result.detail.startswith(words)


def test_collapse_is_warned_of():
    rng = np.random.default_rng(18)
    x = np.ones((100, 10))
    x[:, :3] = rng.standard_normal((100, 1))
    x[60:80] = x[60]
    x[80:] = np.nan
    result = Representation().run(EmbeddingData(embedding(x)))
    assert result.verdict is Verdict.WARN
    for words in ("one number per place", "7 of 10 features", "20 of 80 places", "20 of 100"):
        assert words in result.detail
    assert result.values["range_km"] is None


def test_false_alarms_of_the_reach_are_as_rare_as_stated():
    """Features without any order in space must seldom be said to reach beyond the blocks."""
    rng = np.random.default_rng(19)
    check = Representation(permutations=99)
    alarms = 0
    for _ in range(100):
        lon, lat = places(rng, 60)
        result = check.run(
            EmbeddingData(embedding(rng.standard_normal((60, 4)), lon, lat), None, RandomFolds())
        )
        alarms += result.verdict is Verdict.WARN
    assert alarms <= stats.binom.ppf(0.999, 100, 0.05)


def test_sequences_are_averaged_over_their_periods():
    rng = np.random.default_rng(20)
    x = rng.standard_normal((50, 3, 4))
    x[3, 1] = np.nan
    mean = np.nanmean(np.asarray(x, np.float32), axis=1)
    assert degeneracy(embedding(x)).effective_rank == pytest.approx(
        degeneracy(embedding(mean)).effective_rank, rel=1e-4
    )


def test_neighborhood_means():
    units = pd.DataFrame({
        "neighborhood": ["a", "a", "b"], "age": [20, 40, np.nan], "sex": ["f", "m", "f"],
    })  # fmt: skip
    table = neighborhood_means(units, ["age", "sex"])
    assert table.loc["a"].to_dict() == {"age": 30.0, "sex=f": 0.5, "sex=m": 0.5}
    assert np.isnan(table.loc["b", "age"])


def test_few_places_are_not_all_equally_far_apart():
    """With as many whitened components as places, every distance would be the same."""
    rng = np.random.default_rng(3)
    near = nearest_neighbors(embedding(rng.normal(size=(12, 20))), queries=[0], k=11)
    assert near["relative"].max() > 1.5 * near["relative"].min()


def test_few_places_are_scored_by_no_fold_and_judged():
    rng = np.random.default_rng(0)
    known = pd.DataFrame({"x": rng.normal(size=4)}).rename_axis("neighborhood")
    data = embedding(rng.normal(size=(4, 6)), lon=np.arange(4.0), lat=np.zeros(4))
    for folds in (SpatialBlocks(50), RandomFolds()):
        subject = EmbeddingData(data, known, folds)
        found = Representation().diagnose(subject)
        assert (found.predictability["note"] == "fewer than 30 places have a value").all()
        assert "covariates" not in Representation().judge(subject, found).claim


def test_folds_lie_where_the_embedding_does():
    """A covariate that happens to be called lon is none of the folds' business."""
    rng = np.random.default_rng(1)
    lon, lat = places(rng, 200)
    x = rng.normal(size=(200, 4))
    known = pd.DataFrame({"y": x[:, 0]}).rename_axis("neighborhood")
    data = embedding(x, lon, lat)
    plain = predictability(data, known, SpatialBlocks(50))
    odd = predictability(data, known.assign(lon=np.nan, lat=7.0), SpatialBlocks(50))
    odd = odd[odd["covariate"] == "y"].reset_index(drop=True)
    pd.testing.assert_frame_equal(plain, odd)


def test_near_places_that_are_more_alike_than_chance_are_not_said_to_be_no_more_alike():
    rng = np.random.default_rng(5)
    lon, lat = places(rng, 400)
    field = smooth(lon, lat, rng, 4)
    for strength in (0.4, 0.3, 0.25, 0.2):
        x = strength * field / field.std(axis=0) + rng.normal(size=field.shape)
        subject = EmbeddingData(embedding(x, lon, lat))
        found = Representation().diagnose(subject)
        near = found.autocorrelation
        if near.range_km == 0 and near.p_value <= 0.05:
            break
    else:
        raise AssertionError("no field is faint and still found")
    assert "hardly more alike" in Representation().judge(subject, found).claim
