"""Networks made for video: dense sequences only, bands by name, weights by path."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eocausal.encoders.core import Architecture, ImageSpec, SequenceEncoder
from eocausal.encoders.runner import embed_array
from eocausal.encoders.torchvision_import import import_torchvision
from eocausal.encoders.video import MViT, R2Plus1D
from eocausal.errors import EncoderError, WeightsError
from eocausal.provenance import hash_file

SPEC = ImageSpec(("nir", "red", "green", "blue"), "reflectance", 30.0, 32, 32)
COLOURS = ImageSpec(("red", "green", "blue"), "reflectance", 30.0, 32, 32)
CASES = {"R2Plus1D": (R2Plus1D(), 3, 512), "MViT": (MViT(length=4), 4, 768)}


def sequences(n: int, periods: int, spec: ImageSpec = SPEC) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (n, periods, len(spec.bands), spec.height, spec.width)
    images = rng.normal(0.2, 0.05, shape).astype(np.float32)
    years = np.arange(periods) + rng.uniform(10, 10.9, (n, periods))
    return images, years.astype(np.float32)


@pytest.fixture(scope="module", params=list(CASES))
def fitted(request):
    encoder, periods, n_features = CASES[request.param]
    images, years = sequences(5, periods)
    return encoder.fit_sequence(images, years, SPEC, seed=1), images, years, n_features


def test_shape_and_batches(fitted):
    encoder, images, years, n_features = fitted
    images = images.copy()
    images[0, 0, :, :4] = np.nan
    whole = encoder.transform(images, years)
    assert whole.shape == (5, n_features)
    assert np.isfinite(whole).all()
    assert np.ptp(whole, axis=0).max() > 0
    alone = embed_array(encoder, images, years=years, batch_size=2, device="cpu")
    np.testing.assert_allclose(alone, whole, rtol=1e-5, atol=1e-5 * np.abs(whole).max())


def test_frames_are_read_by_date(fitted):
    encoder, images, years, _ = fitted
    whole = encoder.transform(images, years)
    order = np.random.default_rng(3).permutation(images.shape[1])
    np.testing.assert_array_equal(encoder.transform(images[:, order], years[:, order]), whole)
    backwards = encoder.transform(images[:, ::-1], years)
    assert not np.allclose(backwards, whole, rtol=1e-3)


def test_a_missing_period_is_refused_not_filled_in(fitted):
    encoder, images, years, _ = fitted
    gap, undated = images.copy(), years.copy()
    gap[3, 1] = np.nan
    undated[3, 1] = np.nan
    for pair in ((gap, years), (images, undated)):
        with pytest.raises(EncoderError, match=r"1 of 5 .* periods number 2\..*FrameSequence"):
            encoder.transform(*pair)


def test_a_place_that_was_never_seen_is_nan(fitted):
    encoder, images, years, _ = fitted
    whole = encoder.transform(images, years)
    images = images.copy()
    images[2] = np.nan
    features = encoder.transform(images, years)
    assert np.isnan(features[2]).all()
    rest = [0, 1, 3, 4]
    np.testing.assert_allclose(
        features[rest], whole[rest], rtol=1e-5, atol=1e-5 * np.abs(whole).max()
    )
    images[:] = np.nan
    assert np.isnan(encoder.transform(images, years)).all()


@pytest.mark.parametrize("name", list(CASES))
def test_a_network_to_train_is_drawn_by_the_seed_and_has_gradients(name):
    encoder, periods, n_features = CASES[name]
    assert isinstance(encoder, Architecture)
    assert isinstance(encoder, SequenceEncoder)
    assert encoder.sequence
    torch.manual_seed(0)
    before = torch.get_rng_state()
    backbone = encoder.build(SPEC, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert backbone.n_features == n_features
    torch.manual_seed(5)
    again = encoder.build(SPEC, seed=1).module.state_dict()
    state = backbone.module.state_dict()
    assert all(torch.equal(state[k], again[k]) for k in state)
    images, years = sequences(2, periods)
    values = torch.from_numpy((images - 0.2) / 0.05).requires_grad_()
    valid = torch.ones(2, periods, 32, 32, dtype=torch.bool)
    backbone.module.eval()(values, valid, torch.from_numpy(years)).square().sum().backward()
    assert (values.grad.abs().sum(dim=(2, 3, 4)) > 0).all()


def test_weights_come_from_a_file_and_go_to_bands_by_name(tmp_path: Path):
    video = import_torchvision().models.video
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = video.r2plus1d_18(weights=None).eval()
    path = tmp_path / "r2plus1d_18.pth"
    torch.save(network.state_dict(), path)
    encoder = R2Plus1D(path, hash_file(path)[:8])
    images, years = sequences(2, 3, COLOURS)
    fitted = encoder.fit_sequence(images, years, COLOURS, seed=0)
    assert fitted.weights_sha256 == hash_file(path)
    values, _ = fitted.scaling.apply(images.reshape(6, 3, 32, 32))
    network.fc = torch.nn.Identity()
    with torch.inference_mode():
        frames = torch.from_numpy(values).view(2, 3, 3, 32, 32).transpose(1, 2)
        expected = network(frames).numpy()
    np.testing.assert_allclose(fitted.transform(images, years), expected, rtol=1e-4, atol=1e-4)
    stem = encoder.build(SPEC, seed=0).module.network.stem[0].weight
    red = network.stem[0].weight[:, 0]
    torch.testing.assert_close(stem[:, 1], red * 0.75)
    with pytest.raises(WeightsError, match="sha256"):
        R2Plus1D(path, "0" * 64).build(COLOURS, seed=0)
    with pytest.raises(WeightsError, match="does not fit MViT"):
        MViT(path, hash_file(path)).build(replace(COLOURS, height=224, width=224), seed=0)


def test_mvit_is_torchvisions():
    """Same tensors, of the same shapes, as the network whose weights it takes."""
    video = import_torchvision().models.video
    with torch.device("meta"):
        theirs = video.mvit_v2_s(weights=None).state_dict()
        ours = MViT()._network(replace(COLOURS, height=224, width=224)).state_dict()
    shapes = {k: v.shape for k, v in theirs.items() if not k.startswith("head.")}
    assert {k: v.shape for k, v in ours.items()} == shapes


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: R2Plus1D(Path("a.pth")), "goes with its checksum"),
        (lambda: R2Plus1D(sha256="0" * 8), "goes with its checksum"),
        (lambda: R2Plus1D(Path("a.pth"), "xyz"), "goes with its checksum"),
        (lambda: MViT(Path("a.pth"), ""), "goes with its checksum"),
        (lambda: MViT(length=3), "read in pairs"),
        (lambda: MViT(Path("a.pth"), "0" * 8, length=8), "trained on 16"),
        (lambda: MViT().check(ImageSpec(("red",), "DN", 30.0, 40, 64)), "a multiple of 32"),
        (
            lambda: MViT(Path("a.pth"), "0" * 8).check(ImageSpec(("red",), "DN", 30.0, 256, 256)),
            "takes 224 by 224",
        ),
        (lambda: R2Plus1D().check(ImageSpec(("red",), "DN", 30.0, 8, 64)), "at least 16"),
        (lambda: MViT(length=6).fit_sequence(*sequences(2, 4), SPEC, seed=0), "takes 6"),
    ],
)
def test_what_does_not_fit_is_refused(make, words):
    with pytest.raises(EncoderError, match=words):
        make()
