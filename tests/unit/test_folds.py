"""Folds keep groups together, balance them, and depend on labels and seed alone."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eocausal.errors import FoldError, MissingColumnError, OneClusterError
from eocausal.folds import GroupFolds, RandomFolds, SpatialBlocks, fold_groups, halves


@st.composite
def grouped(draw):
    n_groups = draw(st.integers(2, 40))
    sizes = draw(st.lists(st.integers(1, 9), min_size=n_groups, max_size=n_groups))
    group = np.repeat(np.arange(n_groups), sizes)
    k = draw(st.integers(2, min(8, n_groups)))
    return group, k, draw(st.integers(0, 2**32 - 1))


@settings(max_examples=200, deadline=None)
@given(grouped(), st.booleans())
def test_groups_are_whole_folds_are_full_and_even(case, stratified):
    group, k, seed = case
    rng = np.random.default_rng(seed)
    arm = rng.integers(0, 2, group.max() + 1)[group].astype(float)
    fold = fold_groups(group, k, seed=seed, stratum=arm if stratified else None)
    assert set(fold) == set(range(k))
    of_group = pd.Series(fold).groupby(group)
    assert (of_group.nunique() == 1).all()
    groups_per_fold = np.bincount(of_group.first(), minlength=k)
    assert groups_per_fold.max() - groups_per_fold.min() <= 1
    if stratified:
        treated = np.bincount(of_group.first(), pd.Series(arm).groupby(group).first(), minlength=k)
        assert treated.max() - treated.min() <= 2


@settings(max_examples=100, deadline=None)
@given(grouped())
def test_row_order_does_not_matter(case):
    group, k, seed = case
    units = pd.DataFrame({"village": [f"v{g:02d}" for g in group], "arm": group % 2 * 1.0})
    mixed = units.sample(frac=1, random_state=seed % 1000)
    rule = GroupFolds("village", k)
    for stratum in (False, True):
        here, there = (
            pd.Series(
                rule.assign(t, seed=seed, stratum=t["arm"].to_numpy() if stratum else None), t.index
            )
            for t in (units, mixed)
        )
        assert here.equals(there.loc[here.index])


def test_seed_decides():
    group = np.repeat(np.arange(30), 3)
    first = fold_groups(group, 5, seed=1)
    assert np.array_equal(first, fold_groups(group, 5, seed=1))
    others = [fold_groups(group, 5, seed=s) for s in range(2, 12)]
    assert all(not np.array_equal(first, other) for other in others)


def test_every_pair_of_groups_is_split_sometimes():
    group = np.arange(8)
    together = sum(
        fold[:, None] == fold[None] for fold in (fold_groups(group, 2, seed=s) for s in range(200))
    )
    off = together[~np.eye(8, dtype=bool)]
    assert off.min() > 20
    assert off.max() < 180


def test_folds_have_both_arms():
    group = np.repeat(np.arange(40), 5)
    arm = (group % 4 == 0).astype(float)
    fold = fold_groups(group, 5, seed=0, stratum=arm)
    assert pd.Series(arm).groupby(fold).mean().tolist() == pytest.approx([0.25] * 5)


def test_sizes_are_even_when_groups_are_not():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(100), rng.geometric(0.02, 100))
    size = np.bincount(fold_groups(group, 5, seed=3))
    random = np.bincount(rng.integers(0, 5, 100)[group])
    assert np.ptp(size) < 0.35 * size.mean()
    assert np.ptp(size) < np.ptp(random) + size.mean() * 0.35


def test_halves():
    group = np.repeat(np.arange(10), 4)
    first = halves(group, seed=2)
    assert first.dtype == bool
    assert first.sum() == 20
    assert pd.Series(first).groupby(group).nunique().max() == 1


def test_too_few_groups():
    with pytest.raises(OneClusterError, match="3 groups for 5 folds"):
        fold_groups(np.array([0, 1, 2, 2]), 5, seed=0)
    with pytest.raises(OneClusterError):
        GroupFolds("v", 2).assign(pd.DataFrame({"v": ["a", "a"]}), seed=0)
    with pytest.raises(OneClusterError):
        RandomFolds(5).assign(pd.DataFrame(index=range(4)), seed=0)
    with pytest.raises(MissingColumnError):
        GroupFolds("w", 2).assign(pd.DataFrame({"v": ["a", "b"]}), seed=0)


@pytest.mark.parametrize("k", [-1, 0, 1])
def test_number_of_folds_must_allow_cross_fitting(k):
    with pytest.raises(FoldError):
        fold_groups(np.arange(10), k, seed=0)


def test_random_folds():
    units = pd.DataFrame(index=[f"u{i}" for i in range(23)])
    fold = RandomFolds(5).assign(units, seed=1)
    assert sorted(np.bincount(fold)) == [4, 4, 5, 5, 5]


def points(lon, lat):
    return pd.DataFrame({"lon": lon, "lat": lat})


def test_spatial_blocks_are_small_and_whole():
    rng = np.random.default_rng(4)
    units = points(rng.uniform(30, 35, 500), rng.uniform(-2, 4, 500))
    rule = SpatialBlocks(km=100, k=4)
    block = rule.blocks(units)
    kilometres = units * 111.2
    extent = kilometres.groupby(block).agg(np.ptp)
    assert extent.to_numpy().max() <= 101
    fold = rule.assign(units, seed=0)
    assert pd.Series(fold).groupby(block).nunique().max() == 1
    assert 20 <= len(extent) <= 60


@pytest.mark.parametrize("lat", [0.0, 45.0, 65.0])
def test_spatial_blocks_keep_their_size_toward_the_pole(lat):
    rng = np.random.default_rng(4)
    units = points(10 + rng.uniform(0, 4, 2000), lat + rng.uniform(0, 2, 2000))
    block = SpatialBlocks(km=50).blocks(units)
    km = pd.DataFrame(
        {"x": units["lon"] * 111.2 * np.cos(np.deg2rad(units["lat"])), "y": units["lat"] * 111.2}
    )
    extent = km.groupby(block).agg(np.ptp)
    full = extent[pd.Series(block).value_counts().sort_index() > 15]
    assert full.to_numpy().max() < 60
    assert full["x"].median() > 35


def test_spatial_blocks_centred_on_the_antimeridian():
    block = SpatialBlocks(km=200).blocks(points([179.9, -179.9, 179.8, -179.8], [0.1] * 4))
    assert len(set(block)) <= 2


def test_spatial_blocks_across_the_antimeridian():
    near = SpatialBlocks(km=5000).blocks(points([179.9, -179.9, 179.8], [10.0] * 3))
    assert len(set(near)) <= 2


@pytest.mark.parametrize("km", [0, -5, float("nan")])
def test_block_without_length(km):
    with pytest.raises(FoldError, match="not a length"):
        SpatialBlocks(km=km)


def test_blocks_need_coordinates():
    with pytest.raises(FoldError, match="finite longitude"):
        SpatialBlocks(km=10).blocks(points([30.0, np.nan], [1.0, 2.0]))
    with pytest.raises(MissingColumnError):
        SpatialBlocks(km=10).blocks(pd.DataFrame({"x": [1.0]}))
