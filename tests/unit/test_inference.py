"""Variances from influence values: two-way clusters, pairs over space, blocks."""

import math
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from eocausal.effects import EffectEstimate, Influence, Status
from eocausal.errors import EstimationError, MissingColumnError, OneClusterError
from eocausal.estimators import neighbours
from eocausal.estimators.bootstrap import (
    SpatialBootstrap,
    block_draws,
    multipliers,
    on_equal_area,
    random_blocks,
)
from eocausal.estimators.conley import (
    Conley,
    Projected,
    conley_by_cutoff,
    conley_variance,
    patches,
)
from eocausal.estimators.inference import Clustered, TwoWay
from eocausal.estimators.kernels import Bartlett, Spherical, Uniform, Wendland
from eocausal.estimators.neighbours import Places, kernel_sums


@pytest.fixture
def units():
    rng = np.random.default_rng(0)
    km = rng.uniform(0, 400, (500, 2))
    km[:60] = km[60:120]
    lon, lat = 20 + km[:, 0] / 111.19, km[:, 1] / 111.19
    return pd.DataFrame(
        {
            "lon": lon, "lat": lat, "x": 1000 * km[:, 0], "y": 1000 * km[:, 1],
            "district": rng.integers(0, 30, 500), "year": rng.integers(2000, 2025, 500),
        }
    )  # fmt: skip


@pytest.fixture
def psi(units):
    rng = np.random.default_rng(1)
    values = rng.normal(size=len(units)) * rng.gamma(1.0, size=len(units))
    return values - values.mean()


def influence(units, psi):
    return Influence(units.index, psi, psi)


def kernel_matrix(places, km, kernel):
    points = places.points[places.at]
    apart = np.sqrt(((points[:, None] - points) ** 2).sum(axis=2))
    if places.radius_km is not None:
        apart = 2 * places.radius_km * np.arcsin(np.minimum(apart / 2 / places.radius_km, 1))
    return np.where(apart <= km, kernel.weight(np.minimum(apart / km, 1)), 0.0)


def test_two_way_equals_an_independent_implementation(units):
    import statsmodels.api as sm
    from statsmodels.stats.sandwich_covariance import cov_cluster_2groups

    rng = np.random.default_rng(3)
    x = np.column_stack([np.ones(len(units)), rng.normal(size=len(units))])
    shock = rng.normal(size=30)[units["district"]] + rng.normal(size=25)[units["year"] - 2000]
    y = x[:, 1] * shock + rng.normal(size=len(units))
    fitted = sm.OLS(y, x).fit()
    rows = (x * fitted.resid[:, None]) @ np.linalg.inv(x.T @ x)
    codes = [pd.factorize(units[c])[0] for c in ("district", "year")]
    wanted = cov_cluster_2groups(fitted, codes[0], codes[1], use_correction=True)[0][1, 1]
    found = TwoWay("district", "year").variance(influence(units, rows[:, 1]), units)
    assert found.value * 499 / 498 == pytest.approx(wanted, rel=1e-9)
    assert found.df == 24
    assert found.note == ""


def test_two_way_with_nested_groups_is_the_coarser(units, psi):
    nested = units.assign(village=units["district"] * 10 + units["year"] % 3)
    found = TwoWay("district", "village").variance(influence(units, psi), nested)
    coarse = Clustered("district").variance(influence(units, psi), nested)
    assert found.value == pytest.approx(coarse.value)
    assert found.df == coarse.df


def test_two_way_is_never_below_one_way():
    """A checkerboard: what shares district and year cancels within each, the sum is negative."""
    rows = pd.DataFrame({"a": np.repeat(np.arange(30), 20), "b": np.tile(np.arange(20), 30)})
    board = (-1.0) ** (rows["a"] + rows["b"]).to_numpy()
    psi = board + 0.05 * (rows["a"].to_numpy() % 2 - 0.5)
    found = TwoWay("a", "b").variance(influence(rows, psi), rows)
    alone = [Clustered(by).variance(influence(rows, psi), rows).value for by in ("a", "b")]
    assert found.value == pytest.approx(max(alone))
    assert "smaller" in found.note


def test_two_way_needs_two_clusters_in_each(units, psi):
    with pytest.raises(OneClusterError, match="'same'"):
        TwoWay("district", "same").variance(influence(units, psi), units.assign(same=1))
    with pytest.raises(MissingColumnError):
        TwoWay("district", "yaer").variance(influence(units, psi), units)
    few = TwoWay("district", "five").variance(
        influence(units, psi), units.assign(five=units["year"] % 5)
    )
    assert "Only 5 clusters of 'five'" in few.note


@pytest.mark.parametrize("kernel", [Spherical(), Wendland(), Bartlett(), Uniform()])
@pytest.mark.parametrize("km", [0.01, 25.0, 120.0, 2000.0])
def test_kernel_sums_equal_the_full_matrix(units, kernel, km):
    values = np.random.default_rng(2).normal(size=(len(units), 2))
    for places in (
        Places.on_sphere(units["lon"].to_numpy(), units["lat"].to_numpy()),
        Places.on_plane(units["x"].to_numpy(), units["y"].to_numpy()),
    ):
        assert len(places.points) == 440
        matrix = kernel_matrix(places, km, kernel)
        found = kernel_sums(places, km, kernel, places.sums(values), places.sums(values**2))
        np.testing.assert_allclose(found.plain[places.at], matrix @ values, atol=1e-9)
        np.testing.assert_allclose(found.squared[places.at], matrix**2 @ values**2, atol=1e-9)


def test_kernel_sums_do_not_depend_on_the_size_of_blocks(units, psi, monkeypatch):
    places = Places.on_sphere(units["lon"].to_numpy(), units["lat"].to_numpy())
    sums = places.sums(psi[:, None])
    wanted = kernel_sums(places, 60, Spherical(), sums).plain
    for leaf, columns in ((1, 1), (7, 5), (500, 3)):
        monkeypatch.setattr(neighbours, "LEAF", leaf)
        monkeypatch.setattr(neighbours, "COLUMNS", columns)
        np.testing.assert_allclose(
            kernel_sums(places, 60, Spherical(), sums).plain, wanted, atol=1e-12
        )


def test_memory_does_not_hold_the_pairs():
    """5,000 units that are all neighbours: 12.5 million pairs, 200 MB if they were listed."""
    rng = np.random.default_rng(4)
    lon, lat, psi = rng.uniform(0, 1, 5000), rng.uniform(0, 1, 5000), rng.normal(size=5000)
    tracemalloc.start()
    conley_variance(psi, lon, lat, 500)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6


def test_reference_process_equals_the_full_matrices(units, psi):
    places = Places.on_sphere(units["lon"].to_numpy(), units["lat"].to_numpy())
    n = len(psi)
    centre = np.eye(n) - 1 / n
    for km in (1e-6, 40.0, 150.0, 1500.0):
        kernel = kernel_matrix(places, km, Spherical())
        left, s = centre @ kernel @ centre, psi**2
        mean, square = s @ np.diag(left), s @ left**2 @ s
        found = patches(places, psi, km, Spherical())
        assert found.value == pytest.approx(psi @ kernel @ psi)
        assert found.kept == pytest.approx(mean / s.sum() * n / (n - 1))
        assert found.df == pytest.approx(mean**2 / square)


def test_reference_corrects_what_a_wide_cutoff_loses(units):
    """Independent values less their mean: the textbook's variance is too small, by its share."""
    rng = np.random.default_rng(5)
    textbook, corrected = [], []
    for _ in range(300):
        values = rng.normal(size=len(units))
        values -= values.mean()
        given = influence(units, values)
        textbook.append(Conley(250, reference=False).variance(given, units).value)
        corrected.append(Conley(250).variance(given, units).value)
    assert np.mean(textbook) / len(units) < 0.85
    assert 0.93 < np.mean(corrected) / len(units) < 1.07


def test_few_large_values_give_few_degrees_of_freedom(units):
    even = np.ones(len(units)) * np.where(np.arange(len(units)) % 2, 1.0, -1.0)
    few = np.where(np.arange(len(units)) < 6, 10.0, 0.01) * even
    many = Conley(20).variance(influence(units, even), units)
    some = Conley(20).variance(influence(units, few), units)
    assert many.df > 100
    assert some.df < 8
    assert "patches" in some.note
    assert many.note == ""


def test_without_reference_it_is_the_textbook(units, psi):
    found = Conley(50, reference=False).variance(influence(units, psi), units)
    wanted = conley_variance(psi, units["lon"].to_numpy(), units["lat"].to_numpy(), 50)[0, 0]
    assert found.value == pytest.approx(wanted)
    assert found.df == math.inf


def test_projected_coordinates_are_metres(units, psi):
    sphere = Conley(50).variance(influence(units, psi), units)
    plane = Conley(50, projected=Projected("x", "y")).variance(influence(units, psi), units)
    assert plane.value == pytest.approx(sphere.value, rel=0.01)
    assert plane.df == pytest.approx(sphere.df, rel=0.01)


def test_a_cutoff_beyond_the_data_says_so(units, psi):
    given = influence(units, psi)
    estimate = EffectEstimate.of(
        1.0, given, estimand="ATE", method="m", units=units, vcov=Conley(5000, kernel=Uniform())
    )
    assert math.isnan(estimate.std_error)
    assert estimate.status is Status.WARNED
    assert "shorter cutoff" in estimate.note
    wide = Conley(5000).variance(given, units)
    assert wide.value > 0
    assert wide.df < 8
    zero = Conley(50).variance(influence(units, np.zeros(len(units))), units)
    assert math.isnan(zero.value)
    assert "All influence values are zero" in zero.note


def test_what_is_no_distance_or_place(units, psi):
    for km in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(EstimationError):
            Conley(km)
        with pytest.raises(EstimationError):
            SpatialBootstrap(km)
    given = influence(units, psi)
    for rule in (Conley(50), SpatialBootstrap(50)):
        with pytest.raises(EstimationError, match="no finite"):
            rule.variance(given, units.assign(lat=np.nan))
        with pytest.raises(EstimationError, match="beyond 90"):
            rule.variance(given, units.rename(columns={"lat": "y", "y": "lat"}))
        with pytest.raises(MissingColumnError):
            rule.variance(given, units.drop(columns="lon"))
    with pytest.raises(EstimationError, match="origins"):
        SpatialBootstrap(50, repetitions=10, origins=10)


def test_table_of_cutoffs(units, psi):
    estimate = EffectEstimate.of(
        1.0, influence(units, psi), estimand="ATE", method="m", units=units, vcov=Conley(20)
    )
    table = conley_by_cutoff(estimate, [200, 20, 60], Conley(1, kernel=Wendland()))
    assert list(table["km"]) == [20, 60, 200]
    alone = estimate.with_vcov(Conley(60, kernel=Wendland()))
    assert table["std_error"][1] == alone.std_error
    assert table["ci_low"][1] == alone.ci_low
    assert table["df"].is_monotonic_decreasing


def test_bootstrap_depends_on_the_seed_and_not_on_the_order_of_rows(units, psi):
    rule = SpatialBootstrap(60, seed=3)
    found = rule.variance(influence(units, psi), units)
    assert rule.variance(influence(units, psi), units) == found
    shuffled = units.sample(frac=1, random_state=1)
    moved = rule.variance(influence(shuffled, psi[shuffled.index]), shuffled)
    assert moved.value == pytest.approx(found.value, rel=1e-9)
    assert moved.df == pytest.approx(found.df, rel=1e-9)
    other = SpatialBootstrap(60, seed=4).variance(influence(units, psi), units)
    assert other.value != found.value
    assert other.value == pytest.approx(found.value, rel=0.1)


def test_bootstrap_equals_the_kernel_of_its_random_squares(units, psi):
    """Units d apart share a square with a known probability, averaged over angles."""
    places = Places.on_plane(units["x"].to_numpy(), units["y"].to_numpy())
    points = places.points[places.at]
    gap = points[:, None] - points
    share = np.zeros(gap.shape[:2])
    angles = (np.arange(200) + 0.5) / 200 * np.pi / 2
    for angle in angles:
        one = np.abs(gap[..., 0] * np.cos(angle) - gap[..., 1] * np.sin(angle)) / 80
        two = np.abs(gap[..., 0] * np.sin(angle) + gap[..., 1] * np.cos(angle)) / 80
        share += np.maximum(1 - one, 0) * np.maximum(1 - two, 0) / len(angles)
    n = len(psi)
    whole = psi @ share @ psi
    kept = (whole - 2 / n * sum_rows(share, psi, points, 80)) / whole
    rule = SpatialBootstrap(80, origins=3000, repetitions=6000, projected=Projected("x", "y"))
    found = rule.variance(influence(units, psi), units)
    assert found.value == pytest.approx(whole / kept, rel=0.03)


def sum_rows(share, psi, points, km):
    """Σ_b S_b² n_b - ½ n⁻¹ ΣS_b² Σ n_b² on average over grids, by grids of its own."""
    rng = np.random.default_rng(99)
    values = []
    for _ in range(1500):
        block = random_blocks(points, km, rng)
        sums, size = np.bincount(block, psi), np.bincount(block).astype(float)
        values.append(sums**2 @ size - 0.5 / len(psi) * (sums @ sums) * (size @ size))
    return np.mean(values)


def test_blocks_of_single_units_have_as_many_degrees_of_freedom(units):
    rng = np.random.default_rng(7)
    apart = units.assign(lon=rng.uniform(0, 40, 500), lat=rng.uniform(-20, 20, 500))
    found = SpatialBootstrap(0.5).variance(influence(apart, rng.normal(size=500)), apart)
    assert 400 < found.df < 620


def test_what_blocks_keep_is_the_mean_of_their_draws():
    rng = np.random.default_rng(6)
    sums, size = rng.normal(size=12), rng.integers(1, 40, 12).astype(float)
    draws = multipliers(100_000, 12, rng)
    whole, left, squares = block_draws(sums, size, draws)
    assert whole == pytest.approx(((draws @ sums) ** 2).mean(), rel=0.02)
    assert left == pytest.approx(squares.mean(), rel=0.01)
    moments = [(draws**p).mean() for p in (1, 2, 4)]
    assert moments == pytest.approx([0, 1, 5 / 3], abs=0.01)


def test_bootstrap_refuses_one_block_and_says_when_blocks_are_few(units, psi):
    with pytest.raises(OneClusterError, match="one block"):
        SpatialBootstrap(50_000).variance(influence(units, psi), units)
    few = SpatialBootstrap(250).variance(influence(units, psi), units)
    assert few.df < 8
    assert "independent ones" in few.note
    many = SpatialBootstrap(15).variance(influence(units, psi), units)
    assert many.df > few.df
    assert many.note == ""


def test_the_plane_keeps_areas():
    """A cap of the sphere has the area of its disc, also across the date line."""
    angle = np.deg2rad(np.linspace(1, 60, 30))
    lon = (180 + np.rad2deg(angle) + 180) % 360 - 180
    both = np.concatenate([lon, (360 - lon) % 360 - 0.0])
    places = Places.on_sphere((both + 180) % 360 - 180, np.zeros(60))
    radius = np.linalg.norm(on_equal_area(places), axis=1)
    east = np.arccos(np.clip(places.points[:, 0] / -6371.0, -1, 1))
    np.testing.assert_allclose(np.pi * radius**2, 2 * np.pi * 6371**2 * (1 - np.cos(east)))
