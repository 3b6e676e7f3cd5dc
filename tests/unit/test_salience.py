"""Salience against exact answers, planted objects, and random weights."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from eocausal.encoders.base import encode, fit_encoder, image_spec
from eocausal.encoders.core import FittedEncoder, Scaling
from eocausal.encoders.random_conv import RandomConv
from eocausal.encoders.salience import (
    Target,
    feature_coefficients,
    salience,
    salience_by_fold,
)
from eocausal.encoders.salience_checks import mass_on, randomise, rank_correlation
from eocausal.encoders.salience_methods import Gradient, IntegratedGradients, Occlusion
from eocausal.encoders.small_cnn import SmallCNN
from eocausal.errors import AlignmentError, EmptyInputError, EncoderError
from eocausal.simulate.changes import ChangeWorldConfig, simulate_changes
from eocausal.simulate.objects import ObjectWorldConfig, simulate_objects

METHODS = (
    Gradient(),
    Gradient(pool=3),
    IntegratedGradients(4),
    Occlusion(4, 3),
    Occlusion(4, 3, 1.0),
)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world():
    """Objects; chip 2 is missing, chip 3 half seen."""
    made = simulate_objects(ObjectWorldConfig(n=24, size=18, shapes=2))
    made.cube["image"][2] = np.nan
    made.cube["image"][3, :, :, :7] = np.nan
    made.cube["valid"][2:4, 0] = [0.0, 11 / 18]
    return made


class Weighted(torch.nn.Module):
    """A number that weighs every value: its salience is known."""

    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.as_tensor(weight, dtype=torch.float32))

    def forward(self, values, valid):
        return (values * self.weight).flatten(1).sum(dim=1)


class Squares(torch.nn.Module):
    """Sum of squares: gradient 2x, integrated gradients x² - x0²."""

    def forward(self, values, valid):
        return values.square().flatten(1).sum(dim=1)


class Steps(torch.nn.Module):
    """Weighs periods, and multiplies by the year."""

    def forward(self, values, valid, years):
        weight = torch.nan_to_num(years)[:, :, None, None, None]
        return (values * weight).flatten(1).sum(dim=1)


def fitted(cube, network=None, **more):
    spec = image_spec(cube)
    images = cube["image"].to_numpy().reshape(-1, *cube["image"].shape[2:])
    scaling = Scaling.from_images(images, spec.bands)
    return FittedEncoder("made", spec, scaling, network or torch.nn.Identity(), 1, **more)


def standardised(cube):
    """Values and mask, as the target sees them, of the first period."""
    return fitted(cube).scaling.apply(cube["image"].to_numpy()[:, 0])


def test_gradient_of_a_weighted_sum_is_the_length_of_its_weights(world):
    weight = np.random.default_rng(0).normal(size=(4, 18, 18))
    target = Target("sum", fitted(world.cube), Weighted(weight), "points")
    found = salience(world.cube, target, Gradient(), batch_size=5, device="cpu")
    values, valid = standardised(world.cube)
    assert found.dims == ("neighborhood", "y", "x")
    assert found.dtype == np.float32
    expected = np.where(valid, np.linalg.norm(weight, axis=0), np.nan)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    score = np.where(valid.any((1, 2)), (values * weight).sum((1, 2, 3)), np.nan)
    np.testing.assert_allclose(found["score"], score, rtol=1e-4, atol=1e-4)
    assert found.attrs == {
        "method": "Gradient(pool=1)",
        "target": "sum",
        "units": "points per standard deviation",
        "encoder": "made",
    }


def test_pooling_averages_the_valid_pixels_of_a_window(world):
    weight = np.random.default_rng(1).normal(size=(4, 18, 18))
    target = Target("sum", fitted(world.cube), Weighted(weight))
    found = salience(world.cube, target, Gradient(pool=3), device="cpu")
    length = np.linalg.norm(weight, axis=0)
    np.testing.assert_allclose(found[0, 5, 5], length[4:7, 4:7].mean(), rtol=1e-5)
    np.testing.assert_allclose(found[0, 0, 0], length[:2, :2].mean(), rtol=1e-5)
    np.testing.assert_allclose(found[3, 7, 5], length[7:9, 4:7].mean(), rtol=1e-5)


@pytest.mark.parametrize("baseline", [0.0, (0.5, -1.0, 0.0, 2.0)])
def test_integrated_gradients_of_squares_are_exact(world, baseline):
    target = Target("squares", fitted(world.cube), Squares())
    found = salience(world.cube, target, IntegratedGradients(3, baseline), device="cpu")
    values, valid = standardised(world.cube)
    base = np.broadcast_to(np.reshape(baseline, (-1, 1, 1)), values.shape[1:])
    expected = (values**2 - base**2).sum(axis=1)
    np.testing.assert_allclose(found, np.where(valid, expected, np.nan), rtol=1e-3, atol=1e-3)


def test_integrated_gradients_of_a_network_are_complete(world):
    encoder = fit_encoder(world.cube, RandomConv(64, 3), seed=0)
    weights = np.random.default_rng(2).normal(size=64)
    target = Target.linear(encoder, weights, 0.5, name="linear")
    values, valid = (torch.from_numpy(a[4:9]) for a in encoder.scaling.apply(
        world.cube["image"].to_numpy()[:, 0]))  # fmt: skip
    with torch.no_grad():
        change = target.module(values, valid) - target.module(torch.zeros_like(values), valid)
    labels = world.cube.indexes["neighborhood"][4:9]

    def gap(steps):
        found = salience(world.cube, target, IntegratedGradients(steps), neighborhoods=labels,
                         device="cpu")  # fmt: skip
        return np.abs(found.sum(("y", "x")).to_numpy() - change.numpy()).max()

    assert gap(100) < 0.01 * change.abs().max()
    assert gap(100) < gap(1) / 5


def test_occlusion_of_a_weighted_sum_is_the_mean_over_its_windows(world):
    weight = np.random.default_rng(3).normal(size=(4, 18, 18))
    target = Target("sum", fitted(world.cube), Weighted(weight))
    values, _ = standardised(world.cube)
    part = (values * weight).sum(axis=1)
    found = salience(world.cube, target, Occlusion(4, 4), device="cpu")
    np.testing.assert_allclose(found[0, 4:8, 8:12], part[0, 4:8, 8:12].sum(), atol=1e-3)
    # the last window ends at the border and overlaps the one before it
    overlap = (part[0, :4, 12:16].sum() + part[0, :4, 14:].sum()) / 2
    np.testing.assert_allclose(found[0, 1, 15], overlap, atol=1e-3)
    filled = salience(world.cube, target, Occlusion(4, 4, fill=2.0), device="cpu")
    expected = part[0, 4:8, 8:12].sum() - 2.0 * weight[:, 4:8, 8:12].sum()
    np.testing.assert_allclose(filled[0, 5, 9], expected, atol=2e-3)


def test_occluded_pixels_are_marked_invalid(world):
    class Seen(torch.nn.Module):
        def forward(self, values, valid):
            return valid.float().sum(dim=(1, 2))

    target = Target("pixels seen", fitted(world.cube), Seen())
    hidden = salience(world.cube, target, Occlusion(3, 3), device="cpu")
    assert (hidden[0] == 9).all()
    filled = salience(world.cube, target, Occlusion(3, 3, fill=0.0), device="cpu")
    assert (filled[0] == 0).all()
    with pytest.raises(EncoderError, match="no derivative"):
        salience(world.cube, target, Gradient(), device="cpu")


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_gaps_labels_and_batches(world, method):
    encoder = fit_encoder(world.cube, RandomConv(32, 3), seed=0)
    target = Target.linear(encoder, np.random.default_rng(4).normal(size=32), name="linear")
    whole = salience(world.cube, target, method, batch_size=64, device="cpu")
    _, valid = standardised(world.cube)
    np.testing.assert_array_equal(np.isnan(whole), ~valid)
    assert np.isnan(whole["score"][2])
    labels = [7, 3, 2, 20]
    some = salience(world.cube, target, method, neighborhoods=labels, batch_size=1, device="cpu")
    assert some["neighborhood"].to_numpy().tolist() == [2, 3, 7, 20]
    scale = float(np.nanmax(np.abs(whole)))
    np.testing.assert_allclose(some, whole.sel(neighborhood=[2, 3, 7, 20]), atol=1e-5 * scale)


def test_each_period_has_its_own_map_and_missing_ones_none():
    world = simulate_changes(ChangeWorldConfig(n=12, size=24, periods=3, missing=0.3))
    encoder = fit_encoder(world.cube, RandomConv(32, 3), seed=0)
    target = Target.linear(encoder, np.ones(32), name="linear")
    found = salience(world.cube, target, Gradient(), device="cpu")
    assert found.dims == ("neighborhood", "period", "y", "x")
    missing = np.isnan(world.cube["image"].to_numpy()).all(axis=(2, 3, 4))
    assert missing.any()
    np.testing.assert_array_equal(np.isnan(found).all(("y", "x")), missing)
    np.testing.assert_array_equal(np.isnan(found["score"]), missing)
    one = salience(world.cube.isel(period=[1]), target, Gradient(), device="cpu")
    np.testing.assert_allclose(one, found.isel(period=1), rtol=1e-5)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_sequences_know_their_dates(method):
    world = simulate_changes(ChangeWorldConfig(n=10, size=24, periods=3, missing=0.3))
    encoder = fitted(world.cube, sequence=True)
    target = Target("steps", encoder, Steps())
    found = salience(world.cube, target, method, batch_size=3, device="cpu")
    images = world.cube["image"].to_numpy()
    values, valid = encoder.scaling.apply(images.reshape(-1, *images.shape[2:]))
    values, valid = values.reshape(images.shape), valid.reshape(found.shape)
    days = (world.cube["date"].to_numpy() - np.datetime64("2000-01-01")) / np.timedelta64(1, "D")
    years = np.nan_to_num(days / 365.25)[:, :, None, None]
    np.testing.assert_array_equal(np.isnan(found), ~valid)
    np.testing.assert_allclose(
        found["score"], (values * years[..., None]).sum((1, 2, 3, 4)), rtol=1e-3, atol=0.1
    )
    if isinstance(method, Gradient):
        np.testing.assert_allclose(found, np.where(valid, 2.0 * years, np.nan), rtol=1e-4)
    if isinstance(method, IntegratedGradients):
        expected = np.where(valid, years * values.sum(axis=2), np.nan)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_coefficients_in_the_features_give_the_same_number(world):
    rng = np.random.default_rng(5)
    encoder = fit_encoder(world.cube, RandomConv(16, 3), seed=0)
    features = encode(world.cube, encoder, device="cpu").to_numpy().astype(float)
    features = features[np.isfinite(features).all(axis=1)]
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale[3] = np.inf
    rotation, slopes = rng.normal(size=(16, 4)), rng.normal(size=4)
    expected = 0.7 + ((features - mean) / scale) @ rotation @ slopes
    weights, intercept = feature_coefficients(
        slopes, 0.7, mean=mean, scale=scale, rotation=rotation
    )
    np.testing.assert_allclose(features @ weights + intercept, expected)
    assert weights[3] == 0
    target = Target.linear(encoder, weights, intercept, name="effect")
    score = salience(world.cube, target, Gradient(), device="cpu")["score"].to_numpy()
    # RandomConv's features are float32
    np.testing.assert_allclose(score[np.isfinite(score)], expected, rtol=1e-3, atol=1e-3)


def test_each_fold_is_explained_by_its_own_target(world):
    weights = np.random.default_rng(6).normal(size=(2, 4, 18, 18))
    targets = {k: Target("sum", fitted(world.cube), Weighted(weights[k])) for k in (0, 1)}
    labels = world.cube.indexes["neighborhood"]
    fold = pd.Series(np.arange(20) % 2, index=labels[4:])[::-1]
    found = salience_by_fold(world.cube, targets, fold, Gradient(), device="cpu")
    assert found["neighborhood"].to_numpy().tolist() == labels[4:].tolist()
    lengths = np.linalg.norm(weights, axis=1)
    np.testing.assert_allclose(found, lengths[fold[::-1].to_numpy()], rtol=1e-5)
    with pytest.raises(AlignmentError, match="folds 1"):
        salience_by_fold(world.cube, {0: targets[0]}, fold, Gradient(), device="cpu")
    with pytest.raises(EmptyInputError, match="no folds"):
        salience_by_fold(world.cube, targets, fold[:0], Gradient(), device="cpu")
    twice = pd.Series([0, 1], index=[5, 5])
    with pytest.raises(AlignmentError, match="several folds: 5"):
        salience_by_fold(world.cube, targets, twice, Gradient(), device="cpu")


def test_the_module_and_the_random_state_stay_as_they_are(world):
    module = Weighted(np.ones((4, 18, 18))).train()
    state = torch.get_rng_state()
    target = Target("sum", fitted(world.cube), module)
    salience(world.cube, target, IntegratedGradients(2), device="cpu")
    shuffled = randomise(target, seed=0)
    assert module.training
    assert module.weight.grad is None
    assert module.weight.requires_grad
    assert (module.weight == 1).all()
    assert shuffled.module is not module
    assert torch.equal(state, torch.get_rng_state())


def test_wrong_targets_and_decisions_are_refused(world):
    encoder = fit_encoder(world.cube, RandomConv(16, 3), seed=0)
    with pytest.raises(EncoderError, match="16 features"):
        Target.linear(encoder, np.ones(15), name="x")
    with pytest.raises(EncoderError, match="15 of them finite"):
        Target.linear(encoder, np.r_[np.ones(15), np.nan], name="x")
    target = Target.linear(encoder, np.ones(16), name="x")
    with pytest.raises(EncoderError, match="bands"):
        salience(world.cube.isel(band=[1, 0, 2, 3]), target, Gradient())
    with pytest.raises(AlignmentError, match="'nowhere'"):
        salience(world.cube, target, Gradient(), neighborhoods=["nowhere"])
    for levels in ((0.0, 0.0, 0.0), [0.0, 0.0, 0.0]):
        with pytest.raises(EncoderError, match="3 levels"):
            salience(world.cube, target, IntegratedGradients(2, levels), device="cpu")
    for method in (Gradient, "gradient"):
        with pytest.raises(EncoderError, match="is not a method"):
            salience(world.cube, target, method, device="cpu")
    with pytest.raises(EncoderError, match="batch_size"):
        salience(world.cube, target, Gradient(), batch_size=0)
    for wrong in (
        lambda: Gradient(2), lambda: IntegratedGradients(0), lambda: Occlusion(3, 4)
    ):  # fmt: skip
        with pytest.raises(EncoderError):
            wrong()


def test_memory_that_runs_out_halves_the_batch(world):
    class Small(Weighted):
        def forward(self, values, valid):
            if len(values) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried.")
            return super().forward(values, valid)

    weight = np.random.default_rng(7).normal(size=(4, 18, 18))
    encoder = fitted(world.cube)
    large = salience(world.cube, Target("sum", encoder, Weighted(weight)), Gradient(), device="cpu")
    small = salience(world.cube, Target("sum", encoder, Small(weight)), Gradient(), device="cpu")
    np.testing.assert_array_equal(large, small)


def maps(values):
    values = np.asarray(values, np.float32)
    dims = ("neighborhood", "y", "x") if values.ndim == 3 else ("neighborhood", "period", "y", "x")
    return xr.DataArray(values, dims=dims, coords={"neighborhood": np.arange(len(values))})


def test_mass_on_marks_is_counted_by_hand():
    salience = maps([[[6, -2], [1, 1]], [[2, 2], [np.nan, 4]], [[0, 0], [0, 0]]])
    mask = np.array([[[1, 0], [0, 0]], [[1, 1], [1, 0]], [[1, 1], [1, 1]]], bool)
    found = mass_on(salience, mask)
    np.testing.assert_allclose(found.chips["mass_share"], [0.6, 0.5, np.nan])
    np.testing.assert_allclose(found.chips["area_share"], [0.25, 2 / 3, 1])
    assert found.ratio == pytest.approx(0.55 / ((0.25 + 2 / 3) / 2))
    assert "ratio 1.20" in repr(found)
    assert "2 chips" in repr(found)
    assert np.isnan(mass_on(salience[:1], np.ones_like(mask[:1])).contrast)
    among = mass_on(salience[:1], mask[:1], among=np.array([[[1, 1], [0, 0]]], bool))
    assert among.ratio == pytest.approx(0.75 / 0.5)
    assert among.contrast == pytest.approx(3.0)
    both = maps([[[[6, -2], [1, 1]], [[0, 0], [0, 10]]]])
    assert mass_on(both, mask[:1]).mass_share == pytest.approx(6 / 20)
    with pytest.raises(AlignmentError):
        mass_on(salience, mask[:2])
    with pytest.raises(EmptyInputError):
        mass_on(salience[2:], mask[2:])
    with pytest.raises(EmptyInputError):
        mass_on(salience, np.zeros_like(mask))


def test_maps_of_other_places_or_periods_are_not_compared():
    values = np.random.default_rng(9).normal(size=(3, 2, 4, 4))
    first = maps(values).assign_coords(period=["2019", "2020"])
    assert rank_correlation(first, first).to_numpy().tolist() == pytest.approx([1.0] * 3)
    for other in (
        first.assign_coords(period=["2020", "2019"]),
        first.assign_coords(neighborhood=[0, 2, 1]),
        first.transpose("neighborhood", "period", "x", "y"),
        first[:2],
    ):
        with pytest.raises(AlignmentError, match="labels differ"):
            rank_correlation(first, other)


def test_the_error_of_the_ratio_is_its_spread():
    rng = np.random.default_rng(8)
    mask = rng.random((2000, 6, 6)) < 0.2
    made = maps(rng.gamma(1.0, size=(2000, 6, 6)))
    ratios = [mass_on(made[i : i + 100], mask[i : i + 100]) for i in range(0, 2000, 100)]
    spread = np.std([r.ratio for r in ratios])
    assert np.mean([r.std_error for r in ratios]) == pytest.approx(spread, rel=0.4)
    assert np.mean([r.ratio for r in ratios]) == pytest.approx(1.0, abs=0.03)


def test_rank_correlation_of_maps():
    rng = np.random.default_rng(9)
    a = maps(rng.normal(size=(3, 20, 20)))
    b = maps(np.exp(np.abs(a.to_numpy())))
    b[1] = rng.normal(size=(20, 20))
    b[2] = 1.0
    found = rank_correlation(a, b).to_numpy()
    assert found[0] == pytest.approx(1.0)
    assert abs(found[1]) < 0.15
    assert np.isnan(found[2])
    with pytest.raises(AlignmentError):
        rank_correlation(a, b[:2])


@pytest.fixture(scope="module")
def trained():
    """A network that learnt to count ``+``, its chips, and the pixels of ``+`` and of ``x``."""
    made = simulate_objects(ObjectWorldConfig(n=700, size=27, shapes=3, seed=1))
    encoder = fitted(made.cube)
    values, valid = map(
        torch.from_numpy, encoder.scaling.apply(made.cube["image"].to_numpy()[:, 0])
    )
    count = made.units["objects"].to_numpy(np.float32)
    wanted = torch.from_numpy((count - count.mean()) / count.std())
    backbone = SmallCNN(widths=(16, 32, 64)).build(encoder.spec, seed=0)
    network = torch.nn.Sequential(torch.nn.Linear(backbone.n_features, 1), torch.nn.Flatten(0))
    with torch.no_grad():
        network[0].weight.fill_(0.01)
        network[0].bias.zero_()

    class Counter(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = backbone.module, network

        def forward(self, values, valid):
            return self.head(self.backbone(values, valid))

    counter = Counter()
    generator = torch.Generator().manual_seed(0)
    epochs, learn = 24, slice(0, 600)
    optimiser = torch.optim.AdamW(counter.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=epochs * 10)
    for _ in range(epochs):
        for rows in torch.randperm(learn.stop, generator=generator).split(60):
            turns = int(torch.randint(4, (1,), generator=generator))
            guess = counter(torch.rot90(values[rows], turns, (2, 3)), valid[rows])
            loss = (guess - wanted[rows]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        guess = counter.eval()(values[learn.stop :], valid[learn.stop :])
    assert np.corrcoef(guess, count[learn.stop :])[0, 1] > 0.9
    image = made.cube["image"].to_numpy()[640:, 0]
    shapes = (image[:, 0] > 0.25) & (image[:, 1] > 0.3)
    return made.cube.isel(neighborhood=slice(640, None)), Target(
        "number of +", encoder, counter
    ), made.planted[640:], shapes  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [IntegratedGradients(16), Occlusion(5, 3)], ids=["integrated", "occlusion"]
)
def test_a_trained_network_looks_at_the_planted_objects(trained, method):
    cube, target, planted, shapes = trained
    learnt = salience(cube, target, method, device="cpu").clip(min=0)
    assert mass_on(learnt, planted).ratio > 5
    among = mass_on(learnt, planted, among=shapes)
    assert among.contrast > 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [IntegratedGradients(8), Occlusion(5, 3)], ids=["integrated", "occlusion"]
)
def test_random_weights_cannot_tell_planted_objects_from_others(trained, method):
    cube, target, planted, shapes = trained
    learnt = salience(cube, target, method, device="cpu")
    for seed in (0, 1):
        foil = salience(cube, randomise(target, seed=seed), method, device="cpu")
        found = mass_on(foil.clip(min=0), planted, among=shapes)
        assert 0.5 < found.contrast < 2.0
        assert rank_correlation(learnt, foil).mean() < 0.8
