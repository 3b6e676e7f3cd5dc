"""The worlds of chips: what is true in them, and that their files say the same."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import eocausal as eo
from eocausal.errors import EmptyInputError
from eocausal.simulate.changes import ChangeWorldConfig, simulate_changes
from eocausal.simulate.objects import ObjectWorldConfig, render_objects, simulate_objects

OBJECTS = ObjectWorldConfig(n=400, size=45, seed=3)
CHANGES = ChangeWorldConfig(n=300, size=24, periods=5, seed=3)


@pytest.fixture(scope="module")
def objects():
    return simulate_objects(OBJECTS)


@pytest.fixture(scope="module")
def changes():
    return simulate_changes(CHANGES)


def test_the_number_of_objects_drives_treatment_outcome_and_effect(objects):
    units, config = objects.units, objects.config
    u = (units["objects"] - units["objects"].mean()) / units["objects"].std(ddof=0)
    np.testing.assert_allclose(units["propensity"], 1 / (1 + np.exp(-config.confounding * u)))
    np.testing.assert_allclose(units["effect"], config.effect + config.heterogeneity * u)
    rest = units["outcome"] - u - units["effect"] * units["treated"]
    assert abs(rest.mean()) < 4 * config.noise / np.sqrt(config.n)
    assert rest.std() == pytest.approx(config.noise, rel=0.12)


def test_planted_pixels_are_those_of_the_objects_and_no_others(objects):
    assert (objects.planted.sum(axis=(1, 2)) == 13 * objects.units["objects"]).all()
    red = objects.cube["image"].sel(band="red").to_numpy()[:, 0]
    assert np.unique(red[objects.planted]).size == 1
    roofs = (red == red[objects.planted][0]).sum(axis=(1, 2))
    assert (roofs == 13 * objects.config.shapes).all()


def test_statistics_of_bands_say_nothing_of_the_objects(objects):
    chips = objects.cube["image"].to_numpy()[:, 0]
    bound = 4 / np.sqrt(len(chips))
    for statistic in (chips.mean(axis=(2, 3)), chips.std(axis=(2, 3))):
        for band in statistic.T:
            assert abs(np.corrcoef(band, objects.units["objects"])[0, 1]) < bound


def test_neighbors_resemble_each_other(objects):
    counts = objects.units["objects"].to_numpy().reshape(20, 20)
    assert np.corrcoef(counts[:, :-1].ravel(), counts[:, 1:].ravel())[0, 1] > 0.2


def test_the_seed_decides_everything(objects):
    again = simulate_objects(OBJECTS)
    np.testing.assert_array_equal(again.cube["image"], objects.cube["image"])
    pd.testing.assert_frame_equal(again.units, objects.units)
    other = simulate_objects(replace(OBJECTS, seed=4))
    assert not np.array_equal(other.units["objects"], objects.units["objects"])


def test_files_of_a_world_make_its_cube(objects, tmp_path):
    folder = render_objects(OBJECTS, tmp_path / "world")
    places = eo.read_neighborhoods(folder / "places.csv", id="place", size_m=45 * 30)
    cube = eo.build_cube(
        places, eo.scan(folder / "scenes"), bands=["blue", "green", "red", "nir"],
        resolution=30, size=45, periods=["2015"], out=tmp_path / "cube.zarr",
    )  # fmt: skip
    built = cube["image"].sel(neighborhood=np.arange(OBJECTS.n)).to_numpy()
    np.testing.assert_allclose(built / 10_000, objects.cube["image"], atol=0.6e-4)


def test_growth_drives_treatment_and_one_image_hardly_tells(changes):
    units, houses = changes.units, changes.houses
    grown = houses[:, -1] - houses[:, 0]
    assert np.corrcoef(grown, units["objects"])[0, 1] > 0.75
    for t in range(houses.shape[1]):
        assert abs(np.corrcoef(houses[:, t], units["objects"])[0, 1]) < 0.45


def test_missing_images_are_nan_and_have_no_date(changes):
    cube = changes.cube
    gone = np.isnat(cube["date"].to_numpy())
    assert 0.1 < gone.mean() < 0.25
    np.testing.assert_array_equal(np.isnan(cube["image"]).all(axis=(2, 3, 4)), gone)
    np.testing.assert_array_equal(cube["valid"].to_numpy() == 0, gone)
    assert (~gone).sum(axis=1).min() >= 2


def test_dates_lie_in_their_periods_and_rise(changes):
    cube = changes.cube
    days = cube["date"].to_numpy()
    for t in range(days.shape[1]):
        seen = days[~np.isnat(days[:, t]), t]
        assert seen.min() >= np.datetime64(str(cube["period_start"].values[t]))
        assert seen.max() <= np.datetime64(str(cube["period_end"].values[t]))
        assert len(np.unique(seen)) > 10


def test_visible_houses_are_those_counted(changes):
    nir = changes.cube["image"].sel(band="blue").to_numpy()
    bright = (nir > 0.26).sum(axis=(2, 3)) / 4
    there = np.isfinite(nir).all(axis=(2, 3))
    np.testing.assert_array_equal(bright[there], changes.houses[there])


@pytest.mark.parametrize(
    "make",
    [
        lambda: ObjectWorldConfig(size=20, shapes=9),
        lambda: ObjectWorldConfig(n=2),
        lambda: ChangeWorldConfig(periods=1),
        lambda: ChangeWorldConfig(size=12),
    ],
)
def test_impossible_worlds_are_refused(make):
    with pytest.raises(EmptyInputError, match="Use n=1500"):
        make()
