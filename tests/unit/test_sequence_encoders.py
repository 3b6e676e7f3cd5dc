"""Encoders of image sequences: what is missing is neither computed nor filled in."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.metrics import roc_auc_score

from eocausal.encoders.base import encode, fit_encoder, image_spec
from eocausal.encoders.core import (
    Architecture,
    Backbone,
    Encoder,
    FittedEncoder,
    ImageSpec,
    SequenceEncoder,
    standardise,
)
from eocausal.encoders.dates import sequence_years
from eocausal.encoders.embedded_frames import EmbeddedFrames, embedding_cube
from eocausal.encoders.objectives import Propensity
from eocausal.encoders.random_conv import RandomConv
from eocausal.encoders.runner import embed_array
from eocausal.encoders.sequence import FrameSequence, SequenceNetwork, seen_frames
from eocausal.encoders.small_cnn import SmallCNN
from eocausal.encoders.temporal import Deviations, MeanDifference, MeanPool, MeanTrend, MeanVariance
from eocausal.encoders.temporal_networks import GRU, TemporalAttention, Transformer
from eocausal.encoders.training import TrainingSchedule, train_encoder
from eocausal.errors import EncoderError
from eocausal.folds import RandomFolds, SpatialBlocks
from eocausal.simulate.changes import ChangeWorldConfig, simulate_changes

SPEC = ImageSpec(("red", "nir"), "reflectance", 30.0, 12, 12)
FRAME = RandomConv(features=8)
FORMULAS = (MeanPool(), MeanDifference(), MeanTrend(), MeanVariance())
TRAINED = (GRU(6), TemporalAttention(2, 3, 8, 5), Transformer(1, 2, 8))
T = 4


def name_of(head) -> str:
    return type(head).__name__


def sequences(n: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Row 1 has one image, row 2 none, row 3 an image without a date, row 4 one in half."""
    rng = np.random.default_rng(0)
    images = rng.normal(0.2, 0.05, (n, T, 2, 12, 12)).astype(np.float32)
    years = (10 + np.arange(T) + rng.uniform(0, 0.9, (n, T))).astype(np.float32)
    images[1, [0, 1, 3]] = np.nan
    images[2] = np.nan
    years[3, 2] = np.nan
    images[4, 1, :, :6] = np.nan
    years[[1, 1, 1], [0, 1, 3]] = np.nan
    return images, years


def fitted(head, frame=FRAME) -> FittedEncoder:
    return FrameSequence(frame, head).fit_sequence(*sequences(), SPEC, seed=0)


def built(head) -> FittedEncoder:
    """A network to be trained, as it is before training, made to be applied."""
    images, years = sequences()
    backbone = FrameSequence(SmallCNN(widths=(8, 8)), head).build(SPEC, seed=0)
    scaled = RandomConv(2).fit(images[seen_frames(images, years)], SPEC, seed=0).scaling
    return FittedEncoder(
        "built", SPEC, scaled, backbone.module.eval(), backbone.n_features, sequence=True
    )


def every(head) -> FittedEncoder:
    return built(head) if head.trained else fitted(head)


every_head = pytest.mark.parametrize("head", FORMULAS + TRAINED, ids=name_of)


def test_it_keeps_the_protocols():
    sequence = FrameSequence(FRAME, MeanPool())
    assert isinstance(sequence, SequenceEncoder)
    assert isinstance(sequence, Architecture)
    assert not isinstance(sequence, Encoder)
    assert sequence.sequence
    assert sequence.name == f"FrameSequence({FRAME.name}; MeanPool())"


@every_head
def test_rows_are_nan_only_where_nothing_was_seen(head):
    encoder = every(head)
    features = encoder.transform(*sequences())
    assert features.shape == (8, encoder.n_features)
    missing = np.isnan(features)
    assert missing[2].all()
    assert not np.delete(missing, 2, axis=0).any()


@every_head
def test_pixels_of_a_missing_period_do_not_matter(head):
    """A period is missing if it has no date; NaN, clouds or a bright fill are then the same."""
    images, years = sequences()
    encoder = every(head)
    before = encoder.transform(images, years)
    images[3, 2] = 1e6
    np.testing.assert_array_equal(encoder.transform(images, years), before)
    images[3, 2] = np.nan
    np.testing.assert_array_equal(encoder.transform(images, years), before)


@every_head
def test_a_date_without_an_image_does_not_matter(head):
    images, years = sequences()
    encoder = every(head)
    before = encoder.transform(images, years)
    years[1] = [10.5, 11.5, years[1, 2], 13.5]
    np.testing.assert_array_equal(encoder.transform(images, years), before)


@every_head
def test_order_of_periods_and_size_of_batches_do_not_matter(head):
    images, years = sequences()
    encoder = every(head)
    whole = encoder.transform(images, years)
    order = [2, 0, 3, 1]
    turned = encoder.transform(images[:, order], years[:, order])
    np.testing.assert_allclose(turned, whole, rtol=1e-5, atol=1e-5)
    for batch_size in (1, 3):
        other = embed_array(encoder, images, years=years, batch_size=batch_size, device="cpu")
        np.testing.assert_allclose(other, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("head", FORMULAS, ids=name_of)
def test_features_are_the_heads_of_the_frames_features(head):
    images, years = sequences()
    images, years = images[[0, 5, 6]], years[[0, 5, 6]]
    encoder = FrameSequence(FRAME, head).fit_sequence(images, years, SPEC, seed=3)
    frame = FRAME.fit(images.reshape(-1, 2, 12, 12), SPEC, seed=3)
    each = torch.from_numpy(frame.transform(images.reshape(-1, 2, 12, 12)).reshape(3, T, -1))
    present = torch.ones(3, T, dtype=torch.bool)
    expected = head.build(8, seed=0)(each, present, torch.from_numpy(years))
    np.testing.assert_allclose(encoder.transform(images, years), expected, rtol=1e-4, atol=1e-6)
    assert encoder.scaling == frame.scaling
    assert frame.name in encoder.name


class _Counted(torch.nn.Module):
    """Means of bands; remembers how many frames it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[int] = []

    def forward(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        self.frames.append(len(values))
        return values.mean(dim=(2, 3))


class _Counting:
    name = "counting"
    sequence = False

    def check(self, spec: ImageSpec) -> None:
        pass

    def build(self, spec: ImageSpec, *, seed: int) -> Backbone:
        return Backbone(_Counted(), len(spec.bands))


def test_missing_frames_are_not_computed_and_frames_come_in_bounded_numbers():
    images, years = sequences(40)
    module = FrameSequence(_Counting(), MeanPool()).build(SPEC, seed=0).module.eval()
    identity = torch.zeros(1, 2, 1, 1), torch.ones(1, 2, 1, 1)
    values, valid = standardise(torch.from_numpy(images).flatten(0, 1), identity)
    inputs = values.view(images.shape), valid.view(40, T, 12, 12), torch.from_numpy(years)
    module(*inputs)
    assert sum(module.frame.frames) == seen_frames(images, years).sum() == 40 * T - 3 - T - 1
    assert max(module.frame.frames) <= 64
    module.frame.frames.clear()
    module.train()(*inputs)
    assert len(module.frame.frames) == 1


def test_a_frame_without_a_whole_patch_counts_as_missing():
    images, years = sequences()
    encoder = fitted(MeanTrend())
    images[5, 1] = np.nan
    gone = encoder.transform(images, years)
    images[5, 1, :, ::2, ::2] = 0.2
    np.testing.assert_array_equal(encoder.transform(images, years), gone)
    images[6] = images[5, 1]
    assert np.isnan(encoder.transform(images, years)[6]).all()


@every_head
def test_gradients_reach_the_pixels_that_were_seen_and_no_others(head):
    if head.trained:
        network = built(head).network
    else:
        network = FrameSequence(SmallCNN(widths=(8, 8)), head).build(SPEC, seed=0).module.eval()
    images, years = sequences()
    rows = [0, 1, 3]
    images, years = images[rows], torch.from_numpy(years[rows])
    values, valid = standardise(
        torch.from_numpy(images).flatten(0, 1), (torch.tensor(0.2), torch.tensor(0.05))
    )
    values = values.view(images.shape).requires_grad_()
    out = network(values, valid.view(3, T, 12, 12), years)
    (out @ torch.linspace(1.0, 2.0, out.shape[1])).sum().backward()
    gradient = values.grad.abs().sum(dim=(2, 3, 4)).numpy()
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient > 0, seen_frames(images, years.numpy()))


class _Half(torch.nn.Module):
    """Means of bands in bfloat16, as a frame network gives under mixed precision."""

    def forward(self, values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return values.mean(dim=(2, 3)).bfloat16()


def test_dates_keep_their_precision_where_features_are_bfloat16():
    """bfloat16 holds 14.25 years to a month at best; a slope over two days needs more."""
    network = SequenceNetwork(_Half(), MeanTrend().build(1, seed=0), 2)
    values = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1, 1).expand(1, 2, 1, 3, 3)
    years = torch.tensor([[14.25, 14.26]])
    out = network(values, torch.ones(1, 2, 3, 3, dtype=torch.bool), years)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, torch.tensor([[0.5, 100.0]]), rtol=1e-3, atol=0)


def test_networks_of_frames_and_time_are_trained_together_and_drawn_by_the_seed():
    architecture = FrameSequence(SmallCNN(widths=(8, 8)), TemporalAttention(2, 3, 8, 5))
    first, again, other = (architecture.build(SPEC, seed=s) for s in (0, 0, 1))
    assert first.n_features == 5
    assert first.minimum_pixels == SmallCNN(widths=(8, 8)).minimum_pixels
    states = [b.module.state_dict() for b in (first, again, other)]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not all(torch.equal(states[0][k], states[2][k]) for k in states[0])
    assert {k.split(".")[0] for k in states[0]} == {"frame", "head"}


def test_a_fitted_encoder_of_frames_is_used_as_it_is():
    images, years = sequences()
    frame = FRAME.fit(images[0], SPEC, seed=9)
    encoder = FrameSequence(frame, MeanPool()).fit_sequence(images, years, SPEC, seed=0)
    assert encoder.network.frame is frame.network
    other = replace(SPEC, bands=("nir", "red"))
    with pytest.raises(EncoderError, match="differ"):
        FrameSequence(frame, MeanPool()).fit_sequence(images, years, other, seed=0)


@pytest.mark.parametrize("frame", [FRAME, SmallCNN()], ids=name_of)
def test_heads_with_weights_are_to_be_trained(frame):
    with pytest.raises(EncoderError, match=r"GRU\(hidden=6\) has weights.*train_encoder"):
        fitted(GRU(6), frame)


def test_frames_with_weights_are_to_be_trained():
    with pytest.raises(EncoderError, match=r"SmallCNN\(.* has weights.*train_encoder"):
        fitted(MeanPool(), SmallCNN())


def test_an_encoder_that_cannot_be_trained_is_refused():
    with pytest.raises(EncoderError, match=r"cannot be trained.*embedding_cube"):
        FrameSequence(FRAME, GRU(6)).build(SPEC, seed=0)


def test_sequences_of_sequences_are_refused():
    with pytest.raises(EncoderError, match="reads whole sequences"):
        FrameSequence(FrameSequence(SmallCNN(), GRU(6)), MeanPool())
    with pytest.raises(EncoderError, match="reads whole sequences"):
        FrameSequence(fitted(MeanPool()), MeanPool())


def test_nothing_seen_is_refused_when_fitting_and_nan_when_applied():
    images, years = sequences()
    encoder = fitted(MeanPool())
    images[:] = np.nan
    assert np.isnan(encoder.transform(images, years)).all()
    with pytest.raises(EncoderError, match="both a valid pixel and a date"):
        FrameSequence(FRAME, MeanPool()).fit_sequence(images, years, SPEC, seed=0)


@pytest.fixture(scope="module")
def world():
    return simulate_changes(ChangeWorldConfig(n=60, size=24, periods=4, missing=0.3, seed=1))


def decimal_years(cube: xr.Dataset) -> np.ndarray:
    days = (cube["date"].to_numpy() - np.datetime64("2000-01-01")) / np.timedelta64(1, "D")
    return (days / 365.25).astype(np.float32)


def test_encoded_frames_give_what_images_give(world):
    """The cube of features is the same road, cut in the middle (features standardised)."""
    frame = RandomConv(features=16)
    embedding = encode(world.cube, frame, seed=2)
    small = embedding_cube(embedding, world.cube)
    spec = image_spec(small)
    assert spec.resolution == 30.0 * 24
    assert small["image"].shape == (60, 4, 16, 1, 1)
    years = decimal_years(small)
    np.testing.assert_array_equal(np.isnan(years), np.isnan(embedding[..., 0]))
    np.testing.assert_array_equal(small["valid"] == 0, np.isnan(years))
    sequence = FrameSequence(EmbeddedFrames(), MeanTrend())
    cut = sequence.fit_sequence(small["image"].to_numpy(), years, spec, seed=0)
    features = cut.transform(small["image"].to_numpy(), years)
    mean, sd = np.array(cut.scaling.mean), np.array(cut.scaling.sd)
    features[:, :16] = features[:, :16] * sd + mean
    features[:, 16:] *= sd
    whole = FrameSequence(fit_encoder(world.cube, frame, seed=2), MeanTrend())
    images = world.cube["image"].to_numpy()
    encoder = whole.fit_sequence(images, years, image_spec(world.cube), seed=0)
    np.testing.assert_allclose(encoder.transform(images, years), features, rtol=1e-3, atol=1e-5)
    labelled = encode(world.cube, encoder)
    np.testing.assert_allclose(labelled, encoder.transform(images, years), rtol=1e-4, atol=1e-5)


def test_encoded_frames_are_trained_as_any_network(world):
    embedding = encode(world.cube, RandomConv(features=16), seed=2)
    spec = image_spec(embedding_cube(embedding, world.cube))
    backbone = FrameSequence(EmbeddedFrames(), GRU(6)).build(spec, seed=0)
    assert backbone.n_features == 6
    assert all(name.startswith("head.") for name, _ in backbone.module.named_parameters())


def test_a_head_is_trained_on_encoded_frames_across_folds(world):
    small = embedding_cube(encode(world.cube, RandomConv(features=16), seed=2), world.cube)
    trained = train_encoder(
        small,
        FrameSequence(EmbeddedFrames(), Deviations(GRU(4))),
        Propensity(),
        world.units,
        folds=SpatialBlocks(km=2, k=3),
        schedule=TrainingSchedule(epochs=2, batch_size=16),
    )
    embedding = trained.encode(small)
    assert embedding.dims == ("neighborhood", "feature")
    assert embedding.shape == (60, 1 + 4)
    assert np.isfinite(embedding).all()
    assert trained.predict(small)["propensity"].between(0, 1).all()


def test_a_cube_of_features_keeps_what_is_known_of_places(world):
    cube = world.cube.copy()
    cube["status"][0, :] = np.where(cube["valid"][0] > 0, cube["status"][0], 4)
    small = embedding_cube(encode(cube, RandomConv(features=4)), cube)
    np.testing.assert_array_equal(small["status"], cube["status"])
    xr.testing.assert_equal(small["lon"], cube["lon"])
    corner = small["transform"][5].to_numpy()
    np.testing.assert_allclose(corner[[0, 4]], [720.0, -720.0])
    np.testing.assert_allclose(corner[[2, 5]], cube["transform"][5].to_numpy()[[2, 5]])
    assert "RandomConv" in small.attrs["units"]


def test_wrong_pairs_are_refused(world):
    embedding = encode(world.cube, RandomConv(features=4))
    with pytest.raises(EncoderError, match="neighborhood labels"):
        embedding_cube(embedding[:10], world.cube)
    with pytest.raises(EncoderError, match="has dims"):
        embedding_cube(embedding.isel(period=0, drop=True), world.cube)
    with pytest.raises(EncoderError, match="takes one pixel"):
        FrameSequence(EmbeddedFrames(), MeanPool()).check(SPEC)


@pytest.mark.parametrize("nothing", [None, np.nan, "", "NaT"])
def test_text_that_is_a_date_is_read_and_what_is_none_is_missing(world, nothing):
    cube = world.cube.drop_vars("date")
    starts = cube["period_start"].to_numpy().astype(object)
    starts[1] = nothing
    gap = cube.assign_coords(period_start=("period", starts))
    with pytest.raises(EncoderError, match="Nothing says when"):
        sequence_years(gap)
    as_text = world.cube["date"].dt.strftime("%Y-%m-%d").astype(object)
    np.testing.assert_array_equal(
        sequence_years(world.cube.assign(date=as_text)), sequence_years(world.cube)
    )
    starts[1] = "someday"
    with pytest.raises(EncoderError, match=r"'period_start' holds what is no date.*someday"):
        sequence_years(cube.assign_coords(period_start=("period", starts)))


@pytest.mark.slow
def test_frames_and_head_together_find_change_from_pixels():
    """From random weights; with features on scales of their own the AUC stays near one half."""
    config = ChangeWorldConfig(n=400, size=24, periods=4, missing=0.1, confounding=4.0)
    world = simulate_changes(config)
    schedule = TrainingSchedule(epochs=12, batch_size=32, held_out=0, learning_rate=5e-3)
    architecture = FrameSequence(SmallCNN(widths=(8, 16)), MeanTrend())
    run = train_encoder(
        world.cube, architecture, Propensity(), world.units, folds=RandomFolds(2), schedule=schedule
    )
    found = run.predict(world.cube)["propensity"].to_numpy()
    treated, fold = world.units["treated"].to_numpy(), run.fold.to_numpy()
    auc = [roc_auc_score(treated[fold == k], found[fold == k]) for k in (0, 1)]
    assert np.mean(auc) > 0.7
