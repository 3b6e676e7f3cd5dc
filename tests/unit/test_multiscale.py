"""Crops of several sizes: what each sees, shared scaling, resizing, gaps and refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from eocausal.encoders.cards import load_card
from eocausal.encoders.core import Encoder, ImageSpec
from eocausal.encoders.image import TorchvisionCNN
from eocausal.encoders.multiscale import MultiScale, Resize, central_crop
from eocausal.encoders.patches import SampledPatches
from eocausal.encoders.random_conv import RandomConv
from eocausal.encoders.small_cnn import SmallCNN
from eocausal.encoders.spectral import SpectralStats
from eocausal.encoders.texture import Texture
from eocausal.errors import EncoderError, EocausalError

CONV = RandomConv(features=16, patches=SampledPatches(sample=1_000))


def chips(n=12, bands=3, size=40, seed=0) -> np.ndarray:
    """Noise that is stronger away from the middle, so that crops differ in scale."""
    rng = np.random.default_rng(seed)
    away = np.abs(np.arange(size) - size / 2) / size
    sd = 1 + 10 * np.maximum(away[:, None], away)
    return (100 + sd * rng.normal(size=(n, bands, size, size))).astype(np.float32)


def spec(images: np.ndarray) -> ImageSpec:
    bands = ("red", "green", "blue")[: images.shape[1]]
    return ImageSpec(bands, "DN", 10.0, *images.shape[2:])


def middle(images: np.ndarray, size: int) -> np.ndarray:
    top = (images.shape[-1] - size) // 2
    return images[..., top : top + size, top : top + size].copy()


@pytest.mark.parametrize(
    "encoder", [CONV, SpectralStats(), SpectralStats(texture=None)], ids=["conv", "stats", "bands"]
)
def test_each_crop_gets_the_features_of_its_own_fit(encoder):
    images = chips()
    images[3, :, 18:21, 19] = np.nan
    fitted = MultiScale(encoder, sizes=(12, 24, 40)).fit(images, spec(images), seed=3)
    expected = []
    for size in (12, 24, 40):
        crops = middle(images, size)
        own = replace(spec(images), height=size, width=size)
        expected.append(encoder.fit(crops, own, seed=3).transform(crops))
    expected = np.concatenate(expected, axis=1)
    assert fitted.n_features == expected.shape[1]
    np.testing.assert_allclose(fitted.transform(images), expected, rtol=1e-3, atol=1e-4)


def test_it_is_an_encoder_that_names_its_scales():
    images = chips()
    encoder = MultiScale(CONV, sizes=(24, 12))
    fitted = encoder.fit(images, spec(images), seed=5)
    assert isinstance(encoder, Encoder)
    assert fitted.name == f"MultiScale({CONV.name}, sizes=(24, 12)), seed=5"
    assert fitted.minimum_pixels == 24
    assert fitted.scaling == CONV.fit(middle(images, 24), spec(middle(images, 24)), seed=5).scaling


def test_chips_of_another_size_are_cropped_and_smaller_ones_refused():
    images = chips(size=40)
    fitted = MultiScale(CONV, sizes=(12, 24)).fit(images, spec(images), seed=0)
    np.testing.assert_array_equal(
        fitted.transform(images), fitted.transform(middle(images, 30).copy())
    )
    with pytest.raises(EncoderError, match="needs at least 24"):
        fitted.transform(middle(images, 20))
    with pytest.raises(EncoderError, match="needs at least 64"):
        MultiScale(CONV, sizes=(16, 64)).check(spec(images))


def test_only_the_middle_of_a_chip_matters():
    images = chips()
    fitted = MultiScale(CONV, sizes=(12, 24)).fit(images, spec(images), seed=0)
    before = fitted.transform(images)
    images[:, :, :8] = 5.0
    np.testing.assert_array_equal(fitted.transform(images), before)
    images[:, :, 8:14] = 5.0
    after = fitted.transform(images)
    np.testing.assert_array_equal(after[:, :16], before[:, :16])
    assert np.abs(after[:, 16:] - before[:, 16:]).max() > 0.01


def test_a_chip_of_which_one_crop_is_not_seen_has_no_row():
    images = chips()
    for encoder in (CONV, SpectralStats(texture=None)):
        fitted = MultiScale(encoder, sizes=(12, 40)).fit(images, spec(images), seed=0)
        gaps = images.copy()
        gaps[4, :, 14:26, 14:26] = np.nan
        features = fitted.transform(gaps)
        assert np.isnan(features[4]).all()
        assert np.isfinite(np.delete(features, 4, axis=0)).all()


def test_crops_of_odd_chips_lean_to_the_first_row_and_column():
    grid = torch.arange(25).view(5, 5)
    assert central_crop(grid, 2).tolist() == [[6, 7], [11, 12]]
    assert central_crop(grid, 3).tolist() == [[6, 7, 8], [11, 12, 13], [16, 17, 18]]


def test_resizing_averages_what_is_seen():
    values = torch.arange(32, dtype=torch.float32).view(1, 2, 4, 4)
    valid = torch.ones(1, 4, 4, dtype=torch.bool)
    same, all_valid = Resize(4).apply(values, valid)
    torch.testing.assert_close(same, values)
    assert bool(all_valid.all())
    valid[0, :, 2:] = False
    masked = torch.where(valid[:, None], values, 0.0)
    small, kept = Resize(2).apply(masked, valid)
    assert kept[0].tolist() == [[True, False], [True, False]]
    shifted, _ = Resize(2).apply(torch.where(valid[:, None], values + 100, 0.0), valid)
    torch.testing.assert_close(shifted[..., 0], small[..., 0] + 100)
    assert float(shifted[..., 1].abs().max()) == 0.0


def test_crops_are_resized_for_a_network_and_their_pixel_size_is_told():
    told = []

    class Listening:
        name = "listening"

        def check(self, spec):
            told.append((spec.resolution, spec.height, spec.width))

        def fit(self, images, spec, *, seed):
            assert images.shape[2:] == (20, 20)
            return CONV.fit(images, spec, seed=seed)

    images = chips()
    fitted = MultiScale(Listening(), (10, 40), Resize(20)).fit(images, spec(images), seed=0)
    assert set(told) == {(5.0, 20, 20), (20.0, 20, 20)}
    assert "resize=20" in fitted.name
    assert np.isfinite(fitted.transform(images)).all()


def test_a_torchvision_network_at_two_scales():
    images = chips(n=3, size=48)
    encoder = MultiScale(TorchvisionCNN(load_card("resnet18")), sizes=(32, 48))
    features = encoder.fit(images, spec(images), seed=0).transform(images)
    assert features.shape == (3, 1024)
    assert np.isfinite(features).all()
    with pytest.raises(EocausalError, match="16 pixels"):
        MultiScale(encoder.encoder, sizes=(16, 48)).check(spec(images))


def test_gradients_reach_the_pixels_of_every_crop():
    images = chips(n=2)
    fitted = MultiScale(CONV, sizes=(12, 24)).fit(images, spec(images), seed=0)
    values, valid = (torch.from_numpy(a) for a in fitted.scaling.apply(images))
    features = fitted.network(values.requires_grad_(), valid)
    (inner,) = torch.autograd.grad(features[:, :16].sum(), values, retain_graph=True)
    (outer,) = torch.autograd.grad(features[:, 16:].sum(), values)
    assert torch.equal(inner != 0, central_mask(inner, 12) & (inner != 0))
    assert float(inner.abs().sum()) > 0
    assert bool((outer[..., 8:14, 8:14] != 0).any())
    assert float(outer[..., :8, :].abs().max()) == 0.0


def central_mask(like: torch.Tensor, size: int) -> torch.Tensor:
    mask = torch.zeros_like(like, dtype=torch.bool)
    central_crop(mask, size).fill_(True)
    return mask


def test_the_whole_chip_is_scaled_for_stats_as_in_the_cube():
    images = chips()
    encoder = MultiScale(SpectralStats((), (), None), sizes=(40, 10))
    features = encoder.fit(images, spec(images), seed=0).transform(images)
    np.testing.assert_allclose(features[:, :3], images.mean(axis=(2, 3)), rtol=1e-5)
    np.testing.assert_allclose(features[:, 6:9], middle(images, 10).mean(axis=(2, 3)), rtol=1e-5)


@pytest.mark.parametrize("wrong", [{"encoder": SmallCNN()}, {"encoder": RandomConv}, {"resize": 8}])
def test_decisions_of_another_kind_are_refused(wrong):
    with pytest.raises(EncoderError, match=f"MultiScale has {next(iter(wrong))}="):
        MultiScale(**{"encoder": RandomConv(), "sizes": (16,)} | wrong)


@pytest.mark.parametrize("sizes", [(), (0, 16), (16, 16), (16.0, 32), (True,), 16, [16, 32]])
def test_meaningless_sizes_are_refused(sizes):
    with pytest.raises(EncoderError, match="sizes="):
        MultiScale(SpectralStats(texture=Texture(levels=4)), sizes=sizes)


@pytest.mark.parametrize("pixels", [0, 2.5, True])
def test_meaningless_resizing_is_refused(pixels):
    with pytest.raises(EncoderError, match="pixels="):
        Resize(pixels)
