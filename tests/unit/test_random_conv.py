"""Random convolutional features: whitening, pooling, gaps, seeds, and what they can predict."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from eocausal.encoders import rectified
from eocausal.encoders.core import ImageSpec, Scaling
from eocausal.encoders.largest import LargestResponses
from eocausal.encoders.random_conv import (
    GaussianPatches,
    RandomConv,
    SampledPatches,
    draw_patches,
    whiten,
)
from eocausal.encoders.rectified import average_pool, patch_columns, whole_patches
from eocausal.encoders.spectral import SpectralStats
from eocausal.errors import EncoderError


def spec(images: np.ndarray) -> ImageSpec:
    bands = tuple(f"b{i}" for i in range(images.shape[1]))
    return ImageSpec(bands, "DN", 30.0, images.shape[2], images.shape[3])


def textured(n: int, *, bands: int = 3, size: int = 24, seed: int = 0) -> np.ndarray:
    """Smooth chips (a 3 by 3 moving average of noise) with correlated bands."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n, bands + 1, size + 2, size + 2))
    smooth = sum(noise[..., i : i + size, j : j + size] for i in range(3) for j in range(3)) / 3
    return (100 + 10 * (smooth[:, :bands] + smooth[:, bands:])).astype(np.float32)


def fit(encoder, images, seed=0):
    return encoder.fit(images, spec(images), seed=seed)


def test_whitened_patches_have_unit_covariance():
    images = textured(64)
    valid = np.ones(images.shape[:1] + images.shape[2:], bool)
    rng = np.random.default_rng(1)
    patches = draw_patches(images, valid, size=3, count=50_000, rng=rng)
    mean, matrix = whiten(patches, 1e-9)
    white = (patches - mean) @ matrix
    raw_off_diagonal = np.abs(np.corrcoef(patches, rowvar=False) - np.eye(27)).max()
    assert raw_off_diagonal > 0.5
    np.testing.assert_allclose(np.cov(white, rowvar=False), np.eye(27), atol=1e-5)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-10)
    fresh = draw_patches(images, valid, size=3, count=50_000, rng=rng)
    np.testing.assert_allclose(np.cov((fresh - mean) @ matrix, rowvar=False), np.eye(27), atol=0.05)


def test_regularisation_shrinks_the_noisy_directions_only():
    patches = np.random.default_rng(0).normal(size=(20_000, 2)) * [10.0, 0.01]
    mean, matrix = whiten(patches, 0.01)
    sd = ((patches - mean) @ matrix).std(axis=0)
    assert sd[0] == pytest.approx(1.0, abs=0.02)
    assert sd[1] < 0.02


def test_features_are_the_rectified_means_of_the_formula():
    images = textured(20, bands=2, size=9)
    encoder = RandomConv(features=8, patch=3, patches=SampledPatches(sample=2_000), bias=0.5)
    fitted = fit(encoder, images, seed=3)
    values, valid = Scaling.from_images(images, ("b0", "b1")).apply(images)
    rng = np.random.default_rng(3).spawn(1)[0]
    filters, offset = encoder.patches.draw(values, valid, size=3, count=4, rng=rng)
    windows = np.lib.stride_tricks.sliding_window_view(values[7], (3, 3), axis=(1, 2))
    places = windows.transpose(1, 2, 0, 3, 4).reshape(49, -1)
    response = places @ filters.T + offset
    expected = np.stack(
        [np.maximum(response - 0.5, 0).mean(0), np.maximum(-response - 0.5, 0).mean(0)], axis=1
    ).ravel()
    np.testing.assert_allclose(fitted.transform(images[7:8])[0], expected, rtol=1e-4, atol=1e-6)


def test_responses_are_of_unit_variance():
    images = textured(64)
    features = fit(RandomConv(features=64, bias=1.0), images).transform(images)
    # E max(z - 1, 0) for a standard normal z is 0.0833
    assert features.mean() == pytest.approx(0.0833, rel=0.1)


def test_missing_places_are_left_out_of_the_average():
    images = textured(40)
    fitted = fit(RandomConv(features=64), images)
    left = images[:4].copy()
    left[:, :, :, 12:] = np.nan
    np.testing.assert_allclose(
        fitted.transform(left), fitted.transform(images[:4, :, :, :12].copy()), rtol=1e-5
    )
    one_band = images[:4].copy()
    one_band[:, 1, :, 12:] = np.inf
    np.testing.assert_array_equal(fitted.transform(left), fitted.transform(one_band))


def test_chips_without_a_whole_patch_are_nan_and_others_are_not():
    images = textured(10)
    fitted = fit(RandomConv(features=16, patch=3), images)
    gaps = images.copy()
    gaps[0] = np.nan
    gaps[1, :, ::3] = np.nan
    gaps[2, :, 0, 0] = np.nan
    features = fitted.transform(gaps)
    assert np.isnan(features[:2]).all()
    assert np.isfinite(features[2:]).all()
    np.testing.assert_array_equal(features[3:], fitted.transform(images)[3:])


def test_a_constant_chip_among_others_is_finite_and_a_constant_sample_is_refused():
    images = textured(10)
    images[0] = 7.0
    assert np.isfinite(fit(RandomConv(features=16), images).transform(images)).all()
    with pytest.raises(EncoderError, match="one constant value"):
        fit(RandomConv(features=16), np.full_like(images, 7.0))


def test_a_band_that_never_varies_does_not_hurt():
    images = textured(30)
    images[:, 2] = 5000.0
    features = fit(RandomConv(features=32), images).transform(images)
    assert np.isfinite(features).all()
    assert features.std(axis=0).max() > 0


def test_moving_a_pattern_changes_features_only_through_the_border():
    rng = np.random.default_rng(0)
    pattern = rng.normal(size=(3, 6, 6)).astype(np.float32) * 30
    chips = np.full((3, 3, 40, 40), 100, np.float32)
    for chip, (row, column) in zip(chips, [(5, 5), (20, 25), (37, 20)], strict=True):
        height = min(6, 40 - row)
        chip[:, row : row + height, column : column + 6] += pattern[:, :height]
    fitted = fit(RandomConv(features=128, patch=5), textured(40, size=40))
    inside, moved, cut = fitted.transform(chips)
    np.testing.assert_allclose(moved, inside, rtol=1e-4)
    assert np.abs(cut - inside).max() > 1e-3


@pytest.mark.parametrize("patches", [SampledPatches(), GaussianPatches()])
def test_seed_decides(patches):
    images = textured(20)
    encoder = RandomConv(features=32, patch=(3, 5), patches=patches)
    first = fit(encoder, images, seed=1).transform(images)
    assert first.shape == (20, 32)
    np.testing.assert_array_equal(fit(encoder, images, seed=1).transform(images), first)
    assert np.abs(fit(encoder, images, seed=2).transform(images) - first).max() > 1e-3


def test_units_of_the_data_do_not_matter():
    images = textured(30)
    other = images * np.array([1e-4, 10, 3], np.float32)[:, None, None] + 2
    a = fit(RandomConv(features=64), images).transform(images)
    b = fit(RandomConv(features=64), other).transform(other)
    np.testing.assert_allclose(a, b, rtol=2e-2, atol=2e-3)


def test_stride_keeps_the_meaning():
    images = textured(40, size=64)
    whole = fit(RandomConv(features=64), images).transform(images)
    step = fit(RandomConv(features=64, stride=2), images).transform(images)
    np.testing.assert_allclose(step.mean(axis=0), whole.mean(axis=0), rtol=0.05)


def bright_blobs(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Chips with 0 to 12 small houses; brightness of each chip varies and tells nothing.

    Each house is a bright pixel beside a dark one, so that it leaves the band means as they are.
    """
    rng = np.random.default_rng(seed)
    chips = textured(n, size=32, seed=seed + 1) + rng.normal(0, 20, size=(n, 3, 1, 1))
    count = rng.integers(0, 13, size=n)
    for chip, houses in zip(chips, count, strict=True):
        rows, columns = rng.integers(0, 32, houses), rng.integers(0, 31, houses)
        chip[:, rows, columns] += 40
        chip[:, rows, columns + 1] -= 40
    return chips.astype(np.float32), count.astype(float)


def held_out_r2(encoder, train, test) -> float:
    fitted = fit(encoder, train[0])
    scale = StandardScaler().fit(fitted.transform(train[0]))
    x, z = (scale.transform(fitted.transform(c)) for c in (train[0], test[0]))
    model = RidgeCV(alphas=np.logspace(-1, 5, 13)).fit(x, train[1])
    return float(model.score(z, test[1]))


def test_features_predict_a_density_that_bands_cannot():
    train, test = bright_blobs(600, 0), bright_blobs(300, 100)
    bands = held_out_r2(SpectralStats((), (), None), train, test)
    sampled = held_out_r2(RandomConv(features=256), train, test)
    gaussian = held_out_r2(RandomConv(features=256, patches=GaussianPatches()), train, test)
    assert bands < 0.6
    assert sampled > 0.8
    assert sampled > gaussian - 0.02


@pytest.mark.parametrize(
    "wrong",
    [
        {"features": 511},
        {"features": 2, "patch": (3, 5)},
        {"features": 512.0},
        {"features": 4, "scales": (1, 2, 4)},
        {"patch": 0},
        {"patch": 3.5},
        {"patch": (3, "5")},
        {"patch": True},
        {"scales": 0},
        {"scales": ()},
        {"scales": (1, 1.5)},
        {"stride": 1.5},
        {"patch": ()},
        {"bias": -1.0},
        {"bias": float("nan")},
        {"bias": float("inf")},
        {"bias": "1"},
        {"patches": "sampled"},
        {"patches": SampledPatches},
        {"stride": 0},
        {"pool": "sum"},
        {"pool": None},
        {"pool": ()},
        {"pool": ("max", "max")},
        {"pool": ("mean", "max"), "features": 2},
    ],
)
def test_meaningless_settings_are_refused(wrong):
    with pytest.raises(EncoderError):
        RandomConv(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"regularisation": "a"}, {"regularisation": float("inf")}, {"sample": 10.5}, {"sample": 1}],
)
def test_meaningless_patches_are_refused(wrong):
    with pytest.raises(EncoderError, match="SampledPatches has"):
        SampledPatches(**wrong)


def test_a_sample_with_one_patch_only_is_refused_rather_than_encoded_as_zeros():
    images = np.full((2, 3, 24, 24), np.nan, np.float32)
    images[0, :, 3:6, 3:6] = textured(1)[0, :, 3:6, 3:6]
    with pytest.raises(EncoderError, match="patches of 3 by 3 valid pixels are the same"):
        fit(QUICK, images)


def test_a_scale_at_which_nothing_of_the_sample_is_seen_is_refused():
    images = np.full((2, 3, 24, 24), np.nan, np.float32)
    images[0, :, 4:8, 4:6] = textured(1)[0, :, 4:8, 4:6]
    images[0, :, 8:9, 4:6] = 1.0
    encoder = RandomConv(features=4, patches=GaussianPatches(), scales=(1, 8))
    with pytest.raises(EncoderError, match="No coarse pixel"):
        fit(encoder, images)


@pytest.mark.parametrize("seed", [-1, 0.5, None])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(EncoderError, match="The seed is"):
        fit(QUICK, textured(4), seed=seed)


def test_chips_too_small_for_the_coarsest_scale_are_refused():
    encoder = RandomConv(features=8, patch=3, scales=(1, 4))
    with pytest.raises(EncoderError, match="at least 12"):
        fit(encoder, textured(4, size=11))
    assert fit(encoder, textured(4, size=12)).minimum_pixels == 12


def textbook(fitted, images: np.ndarray) -> np.ndarray:
    """Pool, convolve, rectify and average, one after the other and with nothing in between."""
    values, valid = (torch.from_numpy(a) for a in fitted.scaling.apply(images))
    columns = []
    for scale, bank in zip(fitted.network.scales, fitted.network.banks, strict=True):
        coarse, seen = average_pool(values, valid, scale)
        places = whole_patches(seen, bank.filters.shape[-1], bank.stride)[:, None]
        response = functional.conv2d(
            coarse, bank.filters, bank.thresholds + bank.bias, stride=bank.stride
        )
        for side in (response, -response):
            rectified = torch.relu(side - bank.bias) * places
            columns.append(rectified.sum(dim=(2, 3)) / places.sum(dim=(2, 3)))
    pairs = [
        torch.stack(p, dim=2).flatten(1) for p in zip(columns[::2], columns[1::2], strict=True)
    ]
    return torch.cat(pairs, dim=1).numpy()


QUICK = RandomConv(
    features=60, patch=(2, 3), scales=(1, 2, 3), patches=SampledPatches(sample=1_000)
)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("tile", [(64, 4_096), (7, 40), (3, 1)])
def test_tiles_do_not_change_the_features(stride, tile, monkeypatch):
    images = textured(9, size=25)
    images[2, :, 3:9, 10:20] = np.nan
    encoder = RandomConv(
        features=60,
        patch=(2, 3),
        scales=(1, 2, 3),
        stride=stride,
        patches=SampledPatches(sample=1_000),
    )
    fitted = fit(encoder, images)
    monkeypatch.setattr(rectified, "_CPU_TILE", tile)
    expected = textbook(fitted, images)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(fitted.transform(images), expected, rtol=1e-4, atol=1e-6)


def test_the_batch_does_not_matter():
    images = textured(7, size=30)
    images[3, :, 20:] = np.nan
    fitted = fit(QUICK, images)
    together = fitted.transform(images)
    alone = np.concatenate([fitted.transform(images[i : i + 1]) for i in range(7)])
    np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-7)


def test_gradients_are_those_of_finite_differences():
    images = textured(3, bands=2, size=12)
    images[1, :, 4:6, 7:] = np.nan
    fitted = fit(QUICK, images)
    network = fitted.network.double()
    values, valid = (torch.from_numpy(a) for a in fitted.scaling.apply(images))
    values = values.double().requires_grad_()
    direction = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 60)))
    (gradient,) = torch.autograd.grad((network(values, valid) * direction).sum(), values)
    step = torch.from_numpy(np.random.default_rng(1).normal(size=values.shape)) * valid[:, None]
    with torch.no_grad():
        ahead, behind = (network(values + h * step, valid) for h in (1e-6, -1e-6))
    slope = ((ahead - behind) * direction).sum() / 2e-6
    assert float((gradient * step).sum()) == pytest.approx(float(slope), rel=1e-5)
    assert float(gradient[1, :, 4:6, 7:].abs().max()) == 0.0


def test_features_with_and_without_a_gradient_are_the_same():
    images = textured(5)
    fitted = fit(QUICK, images)
    values, valid = (torch.from_numpy(a) for a in fitted.scaling.apply(images))
    before = values.clone()
    wanted = fitted.network(values.requires_grad_(), valid).detach().numpy()
    np.testing.assert_allclose(wanted, fitted.transform(images), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(values.detach(), before, rtol=0, atol=0)


def test_coarse_pixels_are_means_of_what_is_seen():
    values = torch.arange(2 * 7 * 6, dtype=torch.float32).view(1, 2, 7, 6)
    valid = torch.ones(1, 7, 6, dtype=torch.bool)
    valid[0, 0, :2] = False
    valid[0, 2:4, 2:4] = torch.tensor([[True, False], [False, False]])
    values = torch.where(valid[:, None], values, 0.0)
    coarse, seen = average_pool(values, valid, 2)
    assert coarse.shape == (1, 2, 3, 3)
    assert seen[0].tolist() == [[True, True, True], [True, False, True], [True, True, True]]
    expected = [[6.5, 5.5, 7.5], [15.5, 0.0, 19.5], [27.5, 29.5, 31.5]]
    assert coarse[0, 0].tolist() == expected


def test_a_scale_is_the_same_bank_on_pooled_chips():
    images = textured(30, size=24)
    pooled = images.reshape(30, 3, 12, 2, 12, 2).mean(axis=(3, 5))
    coarse = RandomConv(features=16, scales=2, patches=SampledPatches(sample=2_000))
    plain = RandomConv(features=16, scales=1, patches=SampledPatches(sample=2_000))
    found, expected = fit(coarse, images), fit(plain, pooled)
    # whitening undoes the scaling of the bands, which differs; its regularisation does so nearly
    np.testing.assert_allclose(
        found.transform(images), expected.transform(pooled), rtol=0.05, atol=5e-3
    )


def test_a_chip_seen_at_the_fine_scale_only_has_no_row():
    images = textured(6, size=12)
    fitted = fit(RandomConv(features=8, scales=(1, 4), patches=SampledPatches(sample=500)), images)
    images[1, :, :, 5:] = np.nan
    features = fitted.transform(images)
    assert np.isnan(features[1]).all()
    assert np.isfinite(np.delete(features, 1, axis=0)).all()


def test_columns_hold_the_patches():
    values = torch.randn(2, 3, 7, 8)
    columns = patch_columns(values, None, 3, 2).view(28, 2, 3, 3)
    torch.testing.assert_close(columns[:27, 1, 2, 1].view(3, 3, 3), values[1, :, 4:7, 2:5])
    assert bool((columns[27] == 1).all())


def test_gaussian_responses_keep_their_size_at_coarse_scales():
    images = np.random.default_rng(0).normal(size=(40, 2, 32, 32)).astype(np.float32)
    encoder = RandomConv(features=120, scales=(1, 4), patches=GaussianPatches())
    fine, coarse = np.split(fit(encoder, images).transform(images).mean(axis=0), 2)
    assert coarse.mean() == pytest.approx(fine.mean(), rel=0.15)


LARGEST = RandomConv(
    features=60, patch=(2, 3), scales=(1, 2), patches=SampledPatches(sample=1_000),
    pool=("mean", "max"),
)  # fmt: skip


def largest(fitted, images: np.ndarray) -> np.ndarray:
    """Convolve and take the ends of the responses of each chip, for every bank that does so."""
    values, valid = (torch.from_numpy(a) for a in fitted.scaling.apply(images))
    columns = []
    for scale, bank in zip(fitted.network.scales, fitted.network.banks, strict=True):
        if not isinstance(bank, LargestResponses):
            continue
        coarse, seen = average_pool(values, valid, scale)
        places = whole_patches(seen, bank.filters.shape[-1], bank.stride)[:, None]
        response = functional.conv2d(coarse, bank.filters, bank.offsets, stride=bank.stride)
        pair = [
            torch.where(places, side, -torch.inf).amax(dim=(2, 3)) for side in (response, -response)
        ]
        columns.append(torch.stack(pair, dim=2).flatten(1))
    return torch.cat(columns, dim=1).numpy()


def is_largest(fitted) -> np.ndarray:
    return np.concatenate([
        np.full(2 * len(b.filters), isinstance(b, LargestResponses)) for b in fitted.network.banks
    ])  # fmt: skip


@pytest.mark.parametrize("tile", [(64, 4_096), (7, 40), (3, 1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_largest_responses_are_those_of_the_formula(stride, tile, monkeypatch):
    images = textured(9, size=25)
    images[2, :, 3:9, 10:20] = np.nan
    fitted = fit(replace(LARGEST, stride=stride), images)
    monkeypatch.setattr(rectified, "_CPU_TILE", tile)
    found = fitted.transform(images)
    assert is_largest(fitted).sum() == 30
    np.testing.assert_allclose(found[:, is_largest(fitted)], largest(fitted, images), rtol=1e-4)


def test_without_a_choice_responses_are_averaged():
    images = textured(6)
    one, other = RandomConv(features=8), RandomConv(features=8, pool=("mean",))
    assert one.name == other.name
    np.testing.assert_array_equal(
        fit(one, images).transform(images), fit(other, images).transform(images)
    )
    assert RandomConv(features=8, pool="max").name.endswith("scales=1, pool='max')")


def test_gaps_do_not_count_as_responses():
    images = textured(6)
    fitted = fit(RandomConv(features=16, pool="max"), images)
    left = images[:2].copy()
    left[:, :, :, 12:] = np.nan
    np.testing.assert_allclose(
        fitted.transform(left), fitted.transform(images[:2, :, :, :12].copy()), rtol=1e-5
    )
    left[0] = np.nan
    assert np.isnan(fitted.transform(left)[0]).all()


def test_gradients_of_the_largest_are_those_of_finite_differences():
    images = textured(3, bands=2, size=12)
    images[1, :, 4:6, 7:] = np.nan
    fitted = fit(LARGEST, images)
    network = fitted.network.double()
    values, valid = (torch.from_numpy(a) for a in fitted.scaling.apply(images))
    values = values.double().requires_grad_()
    direction = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 60)))
    with_gradient = network(values, valid)
    (gradient,) = torch.autograd.grad((with_gradient * direction).sum(), values)
    step = torch.from_numpy(np.random.default_rng(1).normal(size=values.shape)) * valid[:, None]
    with torch.no_grad():
        ahead, behind = (network(values + h * step, valid) for h in (1e-7, -1e-7))
        torch.testing.assert_close(network(values, valid), with_gradient)
    slope = ((ahead - behind) * direction).sum() / 2e-7
    assert float((gradient * step).sum()) == pytest.approx(float(slope), rel=1e-5)


def streaks(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Chips with six streaks of very different strength, and how strong the strongest is."""
    rng = np.random.default_rng(seed)
    chips, strength = textured(n, size=32, seed=seed), 80 * rng.beta(0.5, 1.5, (n, 6))
    for chip, levels in zip(chips, strength, strict=True):
        for level, row, column in zip(levels, *rng.integers(0, 28, (2, 6)), strict=True):
            chip[:, row : row + 4, column : column + 4] += np.float32(level) * np.eye(4)
    return chips.astype(np.float32), strength.max(axis=1)


def test_the_largest_response_tells_how_strong_the_strongest_is():
    train, test = streaks(400, 0), streaks(300, 1)
    found = held_out_r2(RandomConv(features=128, patch=4, pool="max"), train, test)
    assert found > 0.8
    assert found > held_out_r2(RandomConv(features=128, patch=4), train, test) + 0.15
