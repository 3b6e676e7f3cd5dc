"""The simulated world: files agree with tables, tables with the truth, all with the seed."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from pyproj import Transformer

from eocausal.contracts import check_neighborhoods
from eocausal.errors import DesignError, LeakageError
from eocausal.provenance import hash_tree
from eocausal.simulate.scenes import BANDS, plan_scenes
from eocausal.simulate.world import (
    ByNeighborhood,
    ByPerson,
    CoastModel,
    EffectSurface,
    WorldConfig,
    WorldFiles,
    build_landscape,
    redraw,
    render_world,
    simulate_aid,
    simulate_table,
)

SMALL = WorldConfig(seed=3, n_neighborhoods=60, n_trial=30)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return render_world(SMALL, tmp_path_factory.mktemp("world") / "country")


@pytest.fixture(scope="module")
def truth(files):
    return json.loads(files.truth.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def default_table():
    return simulate_table(WorldConfig(seed=1))


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(files, tmp_path):
    again = render_world(SMALL, tmp_path / "again")
    other = render_world(replace(SMALL, seed=4), tmp_path / "other")
    assert hash_tree(again.folder) == hash_tree(files.folder)
    same_name = [p.name for p in other.scenes]
    assert same_name != [p.name for p in files.scenes] or hash_tree(
        other.folder / "scenes"
    ) != hash_tree(files.folder / "scenes")
    assert hash_tree(other.units) != hash_tree(files.units)


def test_a_failed_rendering_leaves_nothing(tmp_path):
    def stop(done, total):
        assert (done, total) == (1, 18)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_world(SMALL, tmp_path / "country", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_scenes_come_in_two_zones_with_bands_dates_and_nodata(files):
    seen = set()
    assert len(files.scenes) == 18
    for path in files.scenes:
        with rasterio.open(path) as scene:
            seen.add(scene.crs.to_epsg())
            assert scene.descriptions == (*BANDS, "clear")
            assert set(scene.dtypes) == {"uint16"}
            assert scene.nodata == 0
            assert scene.res == (30.0, 30.0)
            stamp = scene.tags()["TIFFTAG_DATETIME"]
            assert stamp[:10].replace(":", "") == path.stem[-8:]
    assert seen == {32635, 32636}
    assert max(s.day for s in plan_scenes(SMALL)).isoformat() < SMALL.trial_start


def test_scenes_of_both_zones_see_the_same_land_at_the_seam(files):
    """The vegetation index of the two zones' composites agrees where they overlap."""
    composites = {}
    for zone in (35, 36):
        stack = []
        for path in (p for p in files.scenes if f"utm{zone}" in p.name):
            with rasterio.open(path) as scene:
                image, transform = scene.read().astype(float), scene.transform
            image[:, image[-1] == 0] = np.nan
            stack.append((image[3] - image[2]) / (image[3] + image[2]))
        seen = np.isfinite(stack).any(axis=0)
        median = np.full(seen.shape, np.nan)
        median[seen] = np.nanmedian(np.array(stack)[:, seen], axis=0)
        composites[zone] = median, transform
    lon, lat = np.meshgrid(np.linspace(29.99, 30.01, 60), np.linspace(1.46, 1.54, 120))
    looks = []
    for zone, (image, transform) in composites.items():
        to_utm = Transformer.from_crs("EPSG:4326", f"EPSG:326{zone}", always_xy=True)
        x, y = to_utm.transform(lon.ravel(), lat.ravel())
        columns = np.floor((x - transform.c) / 30.0).astype(int)
        rows = np.floor((transform.f - y) / 30.0).astype(int)
        looks.append(image[rows, columns])
    ok = np.isfinite(looks).all(axis=0)
    assert ok.sum() > 1000
    assert np.corrcoef(looks[0][ok], looks[1][ok])[0, 1] > 0.88


@pytest.mark.slow
@pytest.mark.parametrize(("cloud", "nodata"), [(0.2, 0.05), (0.4, 0.2), (0.0, 0.0)])
def test_clouds_and_holes_have_about_the_asked_share(tmp_path, cloud, nodata):
    config = replace(SMALL, cloud_share=cloud, nodata_share=nodata)
    bright, dark, empty = [], [], []
    for path in render_world(config, tmp_path / "c").scenes:
        with rasterio.open(path) as scene:
            image = scene.read()
        hole = image[0] == 0
        assert (image[-1][hole] == 0).all()
        empty.append(hole.mean())
        hidden = (image[-1] == 0) & ~hole
        bright.append((hidden & (image[0] > 2000)).sum() / (~hole).sum())
        dark.append((hidden & (image[0] < 800)).sum() / (~hole).sum())
    assert np.mean(empty) == pytest.approx(nodata, abs=0.025)
    assert np.mean(bright) == pytest.approx(cloud, abs=0.25 * cloud)
    assert (np.mean(dark) > 0.01) == (cloud > 0)


def chip_indices(files: WorldFiles) -> pd.DataFrame:
    """Share of bright pixels, mean NDVI and share of dark pixels per chip, over all scenes."""
    places = gpd.read_file(files.neighborhoods).set_index("neighborhood")
    side = SMALL.chip_px
    found: dict[str, list[tuple[float, float, float]]] = {label: [] for label in places.index}
    for path in files.scenes:
        with rasterio.open(path) as scene:
            image, transform, crs = scene.read().astype(float), scene.transform, scene.crs
        for label, box in places.geometry.to_crs(crs).bounds.iterrows():
            column = round((box["minx"] - transform.c) / 30.0)
            row = round((transform.f - box["maxy"]) / 30.0)
            if row < 0 or column < 0:
                continue
            chip = image[:, row : row + side, column : column + side]
            clear = chip[-1] == 1
            if chip.shape[1:] != (side, side) or clear.mean() < 0.7:
                continue
            red, nir = chip[2][clear], chip[3][clear]
            ndvi = (nir - red) / (nir + red)
            found[label].append(((red > 2150).mean(), ndvi.mean(), (nir < 600).mean()))
    means = {label: np.mean(rows, axis=0) for label, rows in found.items() if rows}
    return pd.DataFrame(means, index=["bright", "ndvi", "dark"]).T


def test_the_images_show_the_features_and_the_effects(files, truth):
    seen = chip_indices(files)
    assert len(seen) >= 57
    land = pd.DataFrame(truth["neighborhoods"]).T.loc[seen.index]
    land = land[["settlement", "greenness", "water", "effect"]].astype(float)
    zones = gpd.read_file(files.neighborhoods).set_index("neighborhood").loc[seen.index]
    for zone in (35, 36):
        here = zones["utm_zone"] == zone
        assert here.sum() >= 15
        assert seen["bright"][here].corr(land["settlement"][here]) > 0.9
        assert seen["ndvi"][here].corr(land["greenness"][here]) > 0.9
    assert seen["dark"].corr(land["water"]) > 0.9
    design = np.column_stack([np.ones(len(seen)), seen["bright"], seen["ndvi"]])
    fitted = design @ np.linalg.lstsq(design, land["effect"], rcond=None)[0]
    assert np.corrcoef(fitted, land["effect"])[0, 1] > 0.9


def test_truth_agrees_with_the_tables(files, truth):
    table = simulate_table(SMALL)
    units = pd.read_csv(files.units).set_index("unit")
    places = check_neighborhoods(gpd.read_file(files.neighborhoods).set_index("neighborhood"))
    effects = pd.Series({k: v["effect"] for k, v in truth["neighborhoods"].items()})
    assert places.crs.to_epsg() == 4326
    assert places.index.tolist() == effects.index.tolist() == table.neighborhoods.index.tolist()
    np.testing.assert_allclose(effects, table.neighborhoods["true_effect"])
    assert truth["trial"]["ate_trial"] == pytest.approx(effects[units["neighborhood"]].mean())
    assert truth["trial"]["ate_country"] == pytest.approx(effects.mean())
    in_trial = places.index[places["in_trial"]]
    assert truth["trial"]["ate_trial_neighborhoods"] == pytest.approx(effects[in_trial].mean())
    assert sorted(units["neighborhood"].unique()) == sorted(in_trial)
    np.testing.assert_allclose(units["income"], table.units["income"], atol=1e-6)
    assert truth["trial"]["last_image"] < truth["trial"]["start"]
    assert "effect" not in " ".join([*units.columns, *places.columns])


def test_squares_have_the_asked_size_and_hold_their_people(files):
    places = gpd.read_file(files.neighborhoods).set_index("neighborhood")
    side = SMALL.chip_px * SMALL.resolution
    np.testing.assert_allclose(places.to_crs("EPSG:32636").area, side**2, rtol=1e-4)
    units = pd.read_csv(files.units)
    points = gpd.points_from_xy(units["lon"], units["lat"], crs="EPSG:4326")
    home = gpd.GeoSeries(places.geometry.loc[units["neighborhood"]].to_numpy(), crs="EPSG:4326")
    assert home.contains(gpd.GeoSeries(points)).all()
    assert set(places["utm_zone"]) == {35, 36}
    assert ((places["lon"] >= 30.0) == (places["utm_zone"] == 36)).all()


def test_effects_vary_and_the_trial_is_not_the_country(default_table):
    places, units = default_table.neighborhoods, default_table.units
    assert len(places) == 600
    assert int(places["in_trial"].sum()) == 300
    assert 0.33 < places["true_effect"].std() < 0.47
    assert 0.85 < units.loc[units["arm"] == 0, "income"].std() < 1.15
    assert default_table.ate_trial - default_table.ate_country > 0.08
    assert default_table.ate_country == pytest.approx(0.5)
    settled = default_table.features[:, 0] > 1.0
    outside = ~places["in_trial"].to_numpy()
    assert (settled & outside).sum() > 10
    assert (~settled & ~outside).sum() > 100


def test_effect_surface_is_the_stated_function_of_the_features():
    surface = EffectSurface(mean=1.0, settlement=0.1, greenness=0.2, interaction=0.3)
    table = simulate_table(replace(SMALL, effects=surface))
    raw = table.neighborhoods[["settlement", "greenness"]].to_numpy()
    s, g = ((raw - raw.mean(axis=0)) / raw.std(axis=0)).T
    expected = 1.0 + 0.1 * s + 0.2 * g + 0.3 * (s * g - (s * g).mean())
    np.testing.assert_allclose(table.neighborhoods["true_effect"], expected)
    assert table.ate_country == pytest.approx(1.0)


@pytest.mark.parametrize(
    "how", [ByNeighborhood(), ByNeighborhood(blocked=True), ByPerson(), ByPerson(prob=0.3)]
)
def test_difference_in_means_is_unbiased_over_redraws(default_table, how):
    table = replace(default_table, config=replace(default_table.config, assignment=how))
    rng, draws = np.random.default_rng(11), []
    for _ in range(600):
        units = redraw(table, rng).units
        arm, income = units["arm"].to_numpy(), units["income"].to_numpy()
        draws.append(income[arm == 1].mean() - income[arm == 0].mean())
    z = (np.mean(draws) - table.ate_trial) / (np.std(draws) / np.sqrt(len(draws)))
    assert abs(z) < 3.5
    wrong = (np.mean(draws) - table.ate_country) / (np.std(draws) / np.sqrt(len(draws)))
    assert abs(wrong) > 10


@pytest.mark.parametrize("how", [ByNeighborhood(), ByNeighborhood(prob=0.25, blocked=True)])
def test_neighborhoods_are_assigned_as_a_whole_with_the_stated_probability(default_table, how):
    table = replace(default_table, config=replace(default_table.config, assignment=how))
    rng, share = np.random.default_rng(2), []
    for _ in range(400):
        units = redraw(table, rng).units
        arms = units.groupby("neighborhood")["arm"]
        assert (arms.nunique() == 1).all()
        share.append(arms.first().to_numpy())
        if how.blocked:
            by_block = arms.first().groupby(units.groupby("neighborhood")["stratum"].first())
            assert (abs(by_block.sum() - how.prob * by_block.size()) < 1).all()
        assert (units["prob"] == how.prob).all()
    assert np.abs(np.mean(share, axis=0) - how.prob).max() < 5 * 0.5 / np.sqrt(400)
    assert np.mean(share) == pytest.approx(how.prob, abs=0.002)


def test_people_are_assigned_singly_within_blocks():
    table = simulate_table(replace(SMALL, assignment=ByPerson(blocked=True)))
    arms = table.units.groupby("neighborhood")["arm"]
    assert (abs(arms.sum() - 0.5 * arms.size()) < 1).all()
    assert (arms.nunique() == 2).any()


def test_redraw_is_reproducible_fast_and_keeps_people_and_effects(default_table):
    first = redraw(default_table, np.random.default_rng(9))
    again = redraw(default_table, np.random.default_rng(9))
    pd.testing.assert_frame_equal(first.units, again.units)
    assert not np.allclose(first.units["income"], default_table.units["income"])
    fixed = ["neighborhood", "stratum", "age", "female", "educ", "lon", "lat"]
    pd.testing.assert_frame_equal(first.units[fixed], default_table.units[fixed])
    assert first.ate_trial == default_table.ate_trial
    rng, took = np.random.default_rng(0), []
    for _ in range(20):
        start = time.perf_counter()
        redraw(default_table, rng)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.010


def test_the_shock_has_the_asked_intraclass_correlation(default_table):
    """One-way analysis of variance of what covariates and effects leave over."""
    rng, found = np.random.default_rng(4), []
    for _ in range(30):
        drawn = redraw(default_table, rng)
        income = drawn.units["income"].to_numpy() - drawn.unit_mean
        rest = pd.Series(income - drawn.units["arm"].to_numpy() * drawn.unit_effects)
        groups = rest.groupby(drawn.unit_rows)
        size, n = groups.size(), len(rest)
        within = groups.apply(lambda v: ((v - v.mean()) ** 2).sum()).sum() / (n - len(size))
        between = (size * (groups.mean() - rest.mean()) ** 2).sum() / (len(size) - 1)
        typical = (n - (size**2).sum() / n) / (len(size) - 1)
        shock = (between - within) / typical
        found.append(shock / (shock + within))
    assert np.mean(found) == pytest.approx(default_table.config.outcome.icc, abs=0.015)


def test_table_does_not_depend_on_whether_the_land_was_built_before():
    land = build_landscape(SMALL)
    pd.testing.assert_frame_equal(simulate_table(SMALL, land).units, simulate_table(SMALL).units)
    grown = land.built(2017).sum() / land.built(2015).sum()
    assert 1.03 < grown < 1.2


def test_aid_effect_is_found_by_adjustment_and_missed_without(default_table):
    """Wealth of the last year: the naive contrast is confounded, regression on features is not."""
    s, g = default_table.features[:, 0], default_table.features[:, 1]
    naive, adjusted, truth = [], [], []
    for seed in range(40):
        aid = simulate_aid(default_table, np.random.default_rng(seed))
        last = aid.wealth[aid.wealth["year"] == 2021]["wealth"].to_numpy()
        treated = aid.start > 0
        naive.append(last[treated].mean() - last[~treated].mean())
        design = np.column_stack([np.ones(len(s)), s, g])
        coef = np.linalg.lstsq(design[~treated], last[~treated], rcond=None)[0]
        adjusted.append((last - design @ coef)[treated].mean())
        truth.append(aid.att)
    error = np.array(adjusted) - np.array(truth)
    assert abs(error.mean()) < 3.5 * error.std() / np.sqrt(len(error))
    assert np.mean(naive) - np.mean(truth) > 0.3


def test_aid_files_say_what_the_truth_says(files, truth):
    projects, wealth = pd.read_csv(files.projects), pd.read_csv(files.wealth)
    transport = projects[projects["sector"] == "transport"]
    starts = {k: v["aid_start"] for k, v in truth["neighborhoods"].items() if v["aid_start"]}
    assert truth["aid"]["n_transport"] == len(transport) == len(starts)
    points = gpd.GeoDataFrame(
        transport, geometry=gpd.points_from_xy(transport["lon"], transport["lat"], crs=4326)
    )
    joined = points.sjoin(gpd.read_file(files.neighborhoods), predicate="within")
    assert dict(zip(joined["neighborhood"], joined["start_year"], strict=True)) == starts
    effects = [truth["neighborhoods"][k]["aid_effect"] for k in starts]
    assert truth["aid"]["att_transport"] == pytest.approx(np.mean(effects))
    assert len(wealth) == 60 * 8
    assert wealth.isna().sum().sum() == 0


def test_coast_opens_with_h5netcdf_and_holds_the_planted_shift(files, truth):
    with xr.open_dataset(files.coast, engine="h5netcdf") as coast:
        coast.load()
    kd, event = coast["kd490"], truth["coast"]["event"]
    assert kd.dims == ("time", "lat", "lon")
    assert kd.sizes["time"] == 27 * 12
    assert kd.attrs["units"] == "m-1"
    assert kd.encoding["_FillValue"] == np.float32(-9999)
    water = coast["zone"] >= 0
    assert float(kd.where(water).isnull().where(water).mean()) == pytest.approx(0.25, abs=0.05)
    assert kd.where(~water, drop=True).where(~water).isnull().all()
    zones = {z: kd.where(coast["zone"] == z).mean(("lat", "lon")) for z in (1, 2)}
    gap = (zones[1] - zones[2]).dropna("time")
    after = gap["time"] >= np.datetime64(event)
    shift = float(gap[after].mean() - gap[~after].mean())
    assert shift == pytest.approx(truth["coast"]["effect"], abs=0.0035)
    only = zones[2].sel(time=gap["time"])
    assert abs(float(only[after].mean() - only[~after].mean())) < 0.006


def test_coast_effect_is_exactly_what_was_planted():
    from eocausal.simulate.coast import simulate_coast

    with_event = simulate_coast(CoastModel(), np.random.default_rng(0))
    without = simulate_coast(CoastModel(effect=0.0), np.random.default_rng(0))
    change = (with_event["kd490"] - without["kd490"]).where(with_event["zone"] == 1)
    after = change["time"] >= np.datetime64("2015-06-01")
    np.testing.assert_allclose(change[after].mean(), 0.012, rtol=1e-5)
    assert float(np.abs(change[~after]).max()) == 0.0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"n_trial": 700}, "n_trial"),
        ({"assignment": ByNeighborhood(prob=1.0)}, "prob"),
        ({"years": ()}, "no scene"),
        ({"cloud_share": 0.9}, "cloud_share"),
    ],
)
def test_a_world_that_cannot_be_is_refused(wrong, words):
    with pytest.raises(DesignError, match=words):
        WorldConfig(**wrong)


def test_images_after_the_trial_starts_are_refused():
    with pytest.raises(LeakageError, match="2018"):
        WorldConfig(years=(2017, 2018))
