"""Worlds in which images confound, or units have no counterpart, are what their texts say."""

import numpy as np
import pandas as pd
import pytest
from scipy import signal

from eocausal.contracts import check_cube
from eocausal.errors import DesignError, EmptyInputError
from eocausal.simulate import image_confounding, kernel_confounder, no_overlap, tutorial
from eocausal.simulate.image_confounding import (
    BlobPlaces,
    Embedded,
    Hidden,
    ImageConfoundingConfig,
    Visible,
    simulate_image_confounding,
)
from eocausal.simulate.kernel_confounder import (
    KernelConfounderConfig,
    anti_diagonal_kernel,
    coarsen,
    simulate_kernel_confounder,
    strongest_response,
)
from eocausal.simulate.no_overlap import (
    ComparisonSurveyConfig,
    SaturatedRegionConfig,
    simulate_comparison_survey,
    simulate_saturated_region,
)
from eocausal.simulate.tutorial import TutorialConfig, simulate_tutorial


def slope(units: pd.DataFrame, *columns: str) -> float:
    """Least-squares coefficient of treatment given columns."""
    design = np.column_stack([np.ones(len(units)), units["treated"], *(units[c] for c in columns)])
    return float(np.linalg.lstsq(design, units["outcome"], rcond=None)[0][1])


def draws_of(simulate, config, images: str) -> None:
    one, same, other = (simulate(config, np.random.default_rng(s)) for s in (3, 3, 4))
    pd.testing.assert_frame_equal(one.units, same.units)
    np.testing.assert_array_equal(getattr(one, images), getattr(same, images))
    assert not one.units["outcome"].equals(other.units["outcome"])


class TestTutorial:
    def test_red_is_the_confounder_and_nothing_else_is(self):
        world = simulate_tutorial(TutorialConfig(n=400, size=16), np.random.default_rng(0))
        level = world.images.mean(axis=(2, 3))
        c = world.units["confounder"]
        scaled = (c - c.min()) / (c.max() - c.min())
        np.testing.assert_allclose(level[:, 0], scaled + 0.1, atol=1e-5)
        assert np.abs(np.corrcoef(level.T, c)[1:3, 3]).max() < 0.15
        rows = world.images.mean(axis=(0, 1, 3))
        assert rows[-1] - rows[0] == pytest.approx(0.2, abs=0.02)

    def test_treatment_and_outcome_follow_the_design(self):
        world = simulate_tutorial(TutorialConfig(n=40_000, size=2), np.random.default_rng(1))
        units = world.units
        naive = slope(units) - 2
        assert naive == pytest.approx(1.966, abs=0.05)
        assert slope(units, "x1", "x2") - 2 > 0.6
        assert slope(units, "x1", "x2", "confounder") == pytest.approx(2, abs=0.05)
        shown = 1 / (1 + np.exp(-units[["confounder", "x1", "x2"]].sum(axis=1)))
        np.testing.assert_allclose(units["propensity"], shown)
        score = units["treated"] - units["propensity"]
        assert abs(score.mean()) < 4 * score.std() / np.sqrt(len(units))

    def test_same_generator_same_world(self):
        draws_of(simulate_tutorial, TutorialConfig(n=20, size=4), "images")

    def test_no_world_without_units(self):
        with pytest.raises(DesignError, match="n=0"):
            tutorial.TutorialConfig(n=0)


class TestKernelConfounder:
    def test_kernel_is_a_centred_streak_of_unit_length(self):
        kernel = anti_diagonal_kernel(4)
        assert kernel.sum() == pytest.approx(0)
        assert (kernel**2).sum() == pytest.approx(1)
        np.testing.assert_array_equal(kernel > 0, np.eye(4, dtype=bool)[::-1])
        np.testing.assert_array_equal(anti_diagonal_kernel(1), [[1.0]])

    def test_response_is_that_of_a_textbook_correlation(self):
        rng = np.random.default_rng(0)
        crops, kernel = rng.normal(size=(5, 12, 9)), rng.normal(size=(3, 3))
        expected = [signal.correlate2d(crop, kernel, mode="valid").max() for crop in crops]
        np.testing.assert_allclose(strongest_response(crops, kernel), expected)

    def test_a_streak_is_found_wherever_it_lies(self):
        crops = np.zeros((3, 20, 20))
        crops[1, 2:10, 5:13] = np.eye(8)[::-1]
        crops[2, 2:10, 5:13] = np.eye(8)
        found = strongest_response(crops, anti_diagonal_kernel(8))
        assert found[1] > 2 * found[2] > 0
        assert found[0] == pytest.approx(0)

    def test_coarse_pixels_are_block_means(self):
        crops = np.arange(2 * 7 * 6, dtype=float).reshape(2, 7, 6)
        coarse = coarsen(crops, 3)
        assert coarse.shape == (2, 2, 2)
        assert coarse[1, 1, 0] == pytest.approx(crops[1, 3:6, :3].mean())
        np.testing.assert_array_equal(coarsen(crops, 1), crops)
        with pytest.raises(DesignError, match="from 1 to 6"):
            coarsen(crops, 7)

    def test_units_follow_the_design(self):
        rng = np.random.default_rng(2)
        crops = rng.normal(size=(4000, 16, 16))
        units = simulate_kernel_confounder(crops, KernelConfounderConfig(width=4), rng)
        u = units["confounder"]
        assert u.mean() == pytest.approx(0, abs=1e-9)
        assert u.std(ddof=0) == pytest.approx(1)
        assert slope(units) - 1 == pytest.approx(0.82, abs=0.06)
        left = units["outcome"] - u - units["treated"]
        assert left.std() == pytest.approx(0.1, rel=0.1)
        odds = np.log(units["propensity"] / (1 - units["propensity"]))
        assert (odds - u).std() == pytest.approx(0.1, rel=0.1)

    def test_units_of_pixels_do_not_matter(self):
        crops = np.random.default_rng(3).normal(size=(50, 12, 12))
        one, other = (
            simulate_kernel_confounder(c, KernelConfounderConfig(4), np.random.default_rng(0))
            for c in (crops, 1000 + 50 * crops)
        )
        pd.testing.assert_frame_equal(one, other)

    def test_crops_that_hold_nothing_are_refused(self):
        rng = np.random.default_rng(0)
        crops = rng.normal(size=(5, 8, 8))
        with pytest.raises(DesignError, match="9 pixels"):
            simulate_kernel_confounder(crops, KernelConfounderConfig(9), rng)
        with pytest.raises(EmptyInputError, match="one value"):
            simulate_kernel_confounder(np.ones((5, 8, 8)), KernelConfounderConfig(2), rng)
        with pytest.raises(EmptyInputError, match="alike"):
            simulate_kernel_confounder(crops[[0, 0, 0]], KernelConfounderConfig(2), rng)
        crops[2, 3, 3] = np.nan
        with pytest.raises(EmptyInputError, match="not finite"):
            simulate_kernel_confounder(crops, KernelConfounderConfig(2), rng)
        with pytest.raises(DesignError, match="kernel of 0"):
            kernel_confounder.KernelConfounderConfig(width=0)


def first_pixels(images: np.ndarray) -> np.ndarray:
    return images[:, :, 8:12, 8:12].reshape(len(images), -1)


@pytest.fixture(scope="module")
def world():
    config = ImageConfoundingConfig(n=4000, mark=0.6)
    return simulate_image_confounding(config, np.random.default_rng(5))


class TestImageConfounding:
    def test_the_later_image_shows_treatment_and_the_earlier_does_not(self, world):
        treated = world.units["treated"].to_numpy() == 1
        change = (world.after - world.before).mean(axis=(1, 2, 3))
        marked = 0.6 * 9 / 400
        assert change[treated].mean() == pytest.approx(marked, rel=0.1)
        assert abs(change[~treated].mean()) < 0.1 * marked
        brightness = world.before.mean(axis=(1, 2, 3))
        gap = world.units["confounder"].groupby(world.units["treated"]).mean().diff().iloc[-1]
        implied = np.polyfit(world.units["confounder"], brightness, 1)[0] * gap
        seen = brightness[treated].mean() - brightness[~treated].mean()
        assert seen == pytest.approx(implied, abs=4 * brightness.std() / np.sqrt(1000))

    def test_without_a_mark_both_images_show_the_same_scene(self):
        config = ImageConfoundingConfig(n=200)
        world = simulate_image_confounding(config, np.random.default_rng(0))
        noise = world.after - world.before
        assert noise.std() == pytest.approx(np.sqrt(2) * 0.04, rel=0.02)
        assert abs(noise.mean()) < 1e-3

    def test_treatment_and_outcome_follow_the_design(self, world):
        units = world.units
        assert slope(units, "x") - 1 == pytest.approx(0.58, abs=0.08)
        assert slope(units, "x", "confounder") == pytest.approx(1, abs=0.12)
        past = units.assign(outcome=units["earlier"])
        assert slope(past, "x") == pytest.approx(0.58, abs=0.12)
        assert slope(past, "x", "confounder") == pytest.approx(0, abs=0.12)
        odds = 0.8 * units["confounder"] + 0.4 * units["x"]
        np.testing.assert_allclose(units["propensity"], 1 / (1 + np.exp(-odds)))

    def test_carriers_differ_in_what_the_image_tells(self, world):
        places = world.places
        count = Visible().values(places)
        np.testing.assert_array_equal(count, places.count)
        shared = np.corrcoef(count, Hidden().values(places))[0, 1] ** 2
        assert shared == pytest.approx(0.63, abs=0.05)
        part = Embedded(first_pixels).values(places)
        pixels = first_pixels(places.images).astype(float)
        design = np.column_stack([np.ones(len(pixels)), pixels])
        left = part - design @ np.linalg.lstsq(design, part, rcond=None)[0]
        assert np.abs(left).max() < 1e-6 * part.std()
        assert 0.1 < np.corrcoef(part, count)[0, 1] < 0.99

    @pytest.mark.parametrize("columns", [100, 600])
    def test_what_fits_by_chance_does_not_confound(self, world, columns):
        places = world.places
        some = BlobPlaces(places.images[:400], places.count[:400], places.development[:400])
        noise = np.random.default_rng(0).normal(size=(400, columns))
        told = Embedded(lambda _: noise).values(some)
        assert np.isfinite(told).all()
        assert told.var() < 0.1 * some.count.var()

    def test_confounder_is_standardised_and_that_of_the_carrier(self):
        for carrier in (Visible(), Hidden(), Embedded(first_pixels)):
            config = ImageConfoundingConfig(n=100, carrier=carrier)
            world = simulate_image_confounding(config, np.random.default_rng(0))
            c = world.units["confounder"]
            assert c.mean() == pytest.approx(0, abs=1e-9)
            assert c.std(ddof=0) == pytest.approx(1)
            assert np.corrcoef(c, carrier.values(world.places))[0, 1] == pytest.approx(1)

    def test_neighbours_resemble_each_other(self, world):
        side = 64
        grid = np.full(side * side, np.nan)
        grid[: len(world.units)] = world.places.development
        grid = grid.reshape(side, side)
        near, far = grid[:60, 1:] * grid[:60, :-1], grid[:60, 32:] * grid[:60, :-32]
        assert near.mean() > 0.3
        assert abs(far.mean()) < 0.15

    def test_images_make_a_cube(self, world):
        cube = check_cube(world.cube)
        assert list(cube["period"].values) == ["2010", "2015"]
        np.testing.assert_array_equal(cube["image"].isel(period=1), world.after)
        np.testing.assert_array_equal(cube["lon"], world.units["lon"])
        np.testing.assert_array_equal(cube["neighborhood"], world.units["neighborhood"])

    def test_same_generator_same_world(self):
        draws_of(simulate_image_confounding, ImageConfoundingConfig(n=30, mark=0.3), "after")

    @pytest.mark.parametrize(
        "wrong", [{"n": 3}, {"size": 2}, {"blobs": 0.0}, {"noise": -1.0}, {"shared": 2.0}]
    )
    def test_impossible_worlds_are_refused(self, wrong):
        with pytest.raises(DesignError, match=next(iter(wrong))):
            image_confounding.ImageConfoundingConfig(**wrong)


class TestNoOverlap:
    def test_everyone_east_of_the_meridian_is_treated(self):
        config = SaturatedRegionConfig(n=2000)
        units = simulate_saturated_region(config, np.random.default_rng(0))
        east = units["country"] == "East"
        assert (east == (units["lon"] > 28)).all()
        assert east.mean() == pytest.approx(0.2, abs=0.04)
        assert (units.loc[east, "treated"] == 1).all()
        assert units.loc[~east, "treated"].mean() == pytest.approx(0.39, abs=0.05)
        assert (units.loc[~east, "propensity"] < 1).all()
        whole = simulate_saturated_region(
            SaturatedRegionConfig(meridian=30), np.random.default_rng(0)
        )
        assert set(whole["country"]) == {"West"}

    @pytest.mark.parametrize(
        ("config", "low", "high"),
        [(ComparisonSurveyConfig(), 5, 18), (ComparisonSurveyConfig.psid(), 1.2, 5)],
    )
    def test_few_of_the_treated_speak_for_the_surveyed(self, config, low, high):
        sizes = []
        for seed in range(7):
            units = simulate_comparison_survey(config, np.random.default_rng(seed))
            assert units["treated"].sum() == 185
            design = np.column_stack([np.ones(len(units)), units.filter(regex=r"^x\d")])
            weights = 1 / logistic(design, units["treated"].to_numpy())[units["treated"] == 1]
            sizes.append(weights.sum() ** 2 / (weights @ weights))
        assert low < np.median(sizes) < high

    def test_the_average_effect_is_what_it_says(self):
        config = ComparisonSurveyConfig(n_treated=20_000, n_control=20_000, alike=5000)
        units = simulate_comparison_survey(config, np.random.default_rng(0))
        assert units["effect"].mean() == pytest.approx(config.ate, abs=0.02)
        assert units["effect"].iloc[5000:20_000].mean() == pytest.approx(1, abs=0.02)

    def test_impossible_worlds_are_refused(self):
        with pytest.raises(DesignError, match="east of 19"):
            no_overlap.SaturatedRegionConfig(meridian=19)
        with pytest.raises(DesignError, match="1 treated"):
            no_overlap.ComparisonSurveyConfig(n_treated=1)
        with pytest.raises(DesignError, match="200 of them"):
            no_overlap.ComparisonSurveyConfig(alike=200)


def logistic(design: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Unpenalised logistic probabilities by Newton's method."""
    beta = np.zeros(design.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-design @ beta))
        hessian = (design * (p * (1 - p))[:, None]).T @ design
        beta += np.linalg.solve(hessian, design.T @ (w - p))
    return 1 / (1 + np.exp(-design @ beta))
