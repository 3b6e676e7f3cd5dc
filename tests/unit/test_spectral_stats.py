"""Statistics of bands, indices and texture: against plain computations, with gaps, and flat."""

import itertools

import numpy as np
import pytest
import torch

from eocausal.encoders.core import Encoder, ImageSpec
from eocausal.encoders.spectral import SpectralStats
from eocausal.encoders.spectral_indices import (
    KNOWN,
    Index,
    Sum,
    applicable,
    normalised_difference,
)
from eocausal.encoders.texture import (
    MEASURES,
    Texture,
    cooccurrence,
    grey_levels,
    haralick,
    texture_features,
)
from eocausal.errors import EncoderError
from eocausal.ingest.indices import KNOWN as EXPRESSIONS

BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")


def spec(bands=BANDS, units="reflectance", size=16) -> ImageSpec:
    return ImageSpec(tuple(bands), units, 30.0, size, size)


def chips(n=6, bands=6, size=16, seed=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(0.05, 0.5, size=(n, bands, size, size)).astype(np.float32)


def with_gaps(images: np.ndarray) -> np.ndarray:
    images = images.copy()
    images[0, :, 3:9, 5:] = np.nan
    images[1, 2, ::2] = np.inf
    images[2, :, np.random.default_rng(3).random((16, 16)) < 0.4] = np.nan
    return images


def seen(chip: np.ndarray) -> np.ndarray:
    """Valid pixels of a chip, ``(pixel, band)``."""
    return chip.transpose(1, 2, 0)[np.isfinite(chip).all(axis=0)].astype(np.float64)


def features_by_name(encoder: SpectralStats, images: np.ndarray, like: ImageSpec) -> dict:
    fitted = encoder.fit(images, like, seed=0)
    names = encoder.feature_names(like)
    found = fitted.transform(images)
    assert found.shape == (len(images), fitted.n_features) == (len(images), len(names))
    assert len(set(names)) == len(names)
    return dict(zip(names, found.T, strict=True))


def test_it_is_an_encoder():
    assert isinstance(SpectralStats(), Encoder)
    assert SpectralStats(texture=None).name == (
        "SpectralStats(quantiles=(0.05, 0.25, 0.5, 0.75, 0.95), indices=known, texture=None)"
    )


def test_means_sds_and_quantiles_are_those_of_numpy():
    images = with_gaps(chips())
    encoder = SpectralStats(quantiles=(0.0, 0.05, 0.5, 1.0), indices=(), texture=None)
    found = features_by_name(encoder, images, spec())
    for i, chip in enumerate(images):
        pixels = seen(chip)
        for b, band in enumerate(BANDS):
            expected = [pixels[:, b].mean(), pixels[:, b].std()]
            expected += list(np.quantile(pixels[:, b], (0.0, 0.05, 0.5, 1.0)))
            names = [f"{band} {s}" for s in ("mean", "sd", "q0", "q0.05", "q0.5", "q1")]
            np.testing.assert_allclose([found[n][i] for n in names], expected, rtol=1e-5)


def test_indices_are_those_of_the_expressions_that_cubes_use():
    images = with_gaps(chips())
    found = features_by_name(SpectralStats((), None, None), images, spec())
    assert {index.name for index in KNOWN} == set(EXPRESSIONS)
    for i, chip in enumerate(images):
        pixels = dict(zip(BANDS, seen(chip).T, strict=True))
        for index in KNOWN:
            image = EXPRESSIONS[index.name].evaluate(pixels).clip(-1, 1)
            values = [found[f"{index.name} mean"][i], found[f"{index.name} sd"][i]]
            np.testing.assert_allclose(values, [image.mean(), image.std()], rtol=2e-4)
            assert index.units == EXPRESSIONS[index.name].units


def test_indices_are_taken_by_name_whatever_the_order_of_bands():
    images = chips(bands=2)
    one = features_by_name(SpectralStats((), None, None), images, spec(("red", "nir"), "DN"))
    other = features_by_name(
        SpectralStats((), None, None), images[:, ::-1].copy(), spec(("nir", "red"), "DN")
    )
    np.testing.assert_array_equal(one["ndvi mean"], other["ndvi mean"])
    assert set(one) == {f"{n} {s}" for n in ("red", "nir", "ndvi") for s in ("mean", "sd")}


def test_constants_of_an_index_hold_in_its_units_only():
    assert {"evi", "savi"} <= {i.name for i in applicable(KNOWN, spec())}
    assert not {"evi", "savi"} & {i.name for i in applicable(KNOWN, spec(units="DN"))}


def test_a_named_index_that_is_impossible_is_refused():
    ndvi = SpectralStats(indices=(normalised_difference("ndvi", "nir", "red"),))
    ndvi.check(spec(("red", "nir")))
    with pytest.raises(EncoderError, match="needs the bands nir"):
        ndvi.fit(chips(bands=1), spec(("red",)), seed=0)
    evi = next(i for i in KNOWN if i.name == "evi")
    with pytest.raises(EncoderError, match="holds in units of 'reflectance'"):
        SpectralStats(indices=(evi,)).check(spec(units="DN"))


def test_an_index_without_value_is_left_out_and_extremes_are_held():
    images = chips(n=3, bands=2)
    images[0, :, 0] = 0.0
    images[1] = 0.0
    images[2, 0, 0, 0], images[2, 1, 0, 0] = 0.2, -0.199999
    found = features_by_name(SpectralStats((), None, None), images, spec(("red", "nir")))
    red, nir = images[0, :, 1:].astype(np.float64)
    expected = ((nir - red) / (nir + red)).mean()
    assert found["ndvi mean"][0] == pytest.approx(expected, rel=1e-4)
    assert found["ndvi mean"][1] == found["ndvi sd"][1] == 0.0
    assert abs(found["ndvi mean"][2]) < 0.2


def brute_force(classes: np.ndarray, valid: np.ndarray, levels: int, distance: int) -> np.ndarray:
    """Haralick's measures, pair by pair, averaged over the directions that have a pair."""
    each = []
    height, width = classes.shape
    for down, right in ((0, 1), (1, 1), (1, 0), (1, -1)):
        p = np.zeros((levels, levels))
        for y, x in itertools.product(range(height), range(width)):
            v, u = y + down * distance, x + right * distance
            if 0 <= v < height and 0 <= u < width and valid[y, x] and valid[v, u]:
                p[classes[y, x], classes[v, u]] += 1
                p[classes[v, u], classes[y, x]] += 1
        if p.sum() == 0:
            continue
        p /= p.sum()
        i, j = np.indices(p.shape)
        mean, sd = (p * i).sum(), np.sqrt((p * i**2).sum() - (p * i).sum() ** 2)
        correlation = (p * (i - mean) * (j - mean)).sum() / sd**2 if sd > 1e-6 else 1.0
        inside = p[p > 0]
        each.append(
            [
                (p * (i - j) ** 2).sum(),
                (p * abs(i - j)).sum(),
                (p / (1 + (i - j) ** 2)).sum(),
                np.sqrt((p**2).sum()),
                correlation,
                -(inside * np.log(inside)).sum(),
            ]
        )
    return np.mean(each, axis=0)


@pytest.mark.parametrize("distance", [1, 2])
def test_texture_is_that_of_counting_pairs(distance):
    images = with_gaps(chips(n=4, bands=3))
    bounds = grey_levels(images, 5)
    valid = np.isfinite(images).all(axis=1)
    values = np.where(valid[:, None], images, 0.0).astype(np.float32)
    tensors = [torch.from_numpy(a) for a in (values, valid, bounds)]
    found = texture_features(*tensors, (distance,)).numpy().reshape(4, 3, len(MEASURES))
    for i, b in itertools.product(range(4), range(3)):
        classes = np.searchsorted(bounds[b], values[i, b], side="right")
        expected = brute_force(classes, valid[i], 5, distance)
        np.testing.assert_allclose(found[i, b], expected, rtol=2e-5, atol=1e-6)


def test_the_matrices_of_haralicks_example():
    """Fig. 3 of the paper: a 4 by 4 image of 4 levels, at 0 and 90 degrees."""
    image = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [0, 2, 2, 2], [2, 2, 3, 3]])[None, None]
    valid = torch.ones(1, 4, 4, dtype=torch.bool)
    horizontal = cooccurrence(image, valid, 4, (0, 1))[0, 0]
    vertical = cooccurrence(image, valid, 4, (1, 0))[0, 0]
    assert horizontal.tolist() == [[4, 2, 1, 0], [2, 4, 0, 0], [1, 0, 6, 1], [0, 0, 1, 2]]
    assert vertical.tolist() == [[6, 0, 2, 0], [0, 4, 2, 0], [2, 2, 2, 2], [0, 0, 2, 0]]


def test_flat_chips_and_chips_without_a_pair_have_the_texture_of_a_flat_image():
    images = chips(n=3, bands=1)
    images[0] = 0.3
    images[1] = np.nan
    images[1, 0, 8, 8] = 0.3
    encoder = SpectralStats(texture=Texture(levels=4))
    found = features_by_name(encoder, images, spec(("b",)))
    for distance in (1, 2):
        values = np.array([found[f"b {m} at {distance}"] for m in MEASURES])
        assert values[:, 0].tolist() == values[:, 1].tolist() == [0, 0, 1, 1, 1, 0]
        assert values[5, 2] > 1.0
    assert found["b sd"][1] == 0.0
    assert found["b q0.5"][1] == np.float32(0.3)


def test_distances_beyond_the_chip_are_flat_rather_than_wrong():
    flat = haralick(torch.zeros(4, 4))
    features = texture_features(
        torch.rand(1, 1, 3, 3), torch.ones(1, 3, 3, dtype=torch.bool), torch.zeros(1, 3), (5,)
    )
    torch.testing.assert_close(features[0], flat)


def test_grey_levels_make_brightness_and_contrast_of_a_sensor_immaterial():
    images = chips(bands=2)
    other = images * np.float32([3.0, 0.01])[:, None, None] + 7
    encoder = SpectralStats((), (), Texture(levels=8))
    one = encoder.fit(images, spec(("a", "b")), seed=0).transform(images)[:, 4:]
    two = encoder.fit(other, spec(("a", "b")), seed=0).transform(other)[:, 4:]
    np.testing.assert_allclose(two, one, rtol=0.02, atol=0.02)


def test_texture_sees_order_that_the_values_alone_do_not():
    images = chips(n=40, bands=1)
    images[:20] = np.sort(images[:20].reshape(20, 1, -1), axis=2).reshape(20, 1, 16, 16)
    found = features_by_name(SpectralStats(), images, spec(("b",)))
    assert found["b contrast at 1"][:20].max() < found["b contrast at 1"][20:].min()
    assert abs(found["b mean"][:20].mean() - found["b mean"][20:].mean()) < 0.02


def test_a_chip_with_no_valid_pixel_is_nan_and_others_do_not_mind():
    images = chips()
    fitted = SpectralStats().fit(images, spec(), seed=0)
    whole = fitted.transform(images)
    images[2] = np.nan
    features = fitted.transform(images)
    assert np.isnan(features[2]).all()
    np.testing.assert_array_equal(np.delete(features, 2, 0), np.delete(whole, 2, 0))
    np.testing.assert_allclose(
        np.concatenate([fitted.transform(images[i : i + 1]) for i in range(6)]), features, rtol=1e-5
    )


def test_a_sample_of_one_constant_is_refused():
    images = np.full_like(chips(), 0.3)
    with pytest.raises(EncoderError, match="hold one constant value"):
        SpectralStats().fit(images, spec(), seed=0)
    images[0, 0] = 0.4
    assert np.isfinite(SpectralStats().fit(images, spec(), seed=0).transform(images)).all()


def test_digital_numbers_are_as_good_as_reflectance():
    images = np.rint(chips() * 10_000)
    found = features_by_name(SpectralStats((0.5,), (), None), images, spec(units="DN"))
    for b, band in enumerate(BANDS):
        pixels = images[:, b].reshape(len(images), -1).astype(np.float64)
        np.testing.assert_allclose(found[f"{band} mean"], pixels.mean(axis=1), rtol=1e-6)
        np.testing.assert_allclose(found[f"{band} sd"], pixels.std(axis=1), rtol=1e-5)


def test_moments_and_quantiles_have_gradients_and_flat_chips_finite_ones():
    images = chips(n=3, bands=2)
    images[1] = 0.25
    encoder = SpectralStats((0.5,), None, None)
    like = spec(("red", "nir"))
    network = encoder.fit(images, like, seed=0).network.double()
    values = torch.from_numpy(images).double().requires_grad_()
    valid = torch.ones(3, 16, 16, dtype=torch.bool)
    valid[0, :4] = False
    weights = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 10)))
    masked = torch.where(valid[:, None], values, 0.0)
    (gradient,) = torch.autograd.grad((network(masked, valid) * weights).sum(), values)
    assert bool(gradient.isfinite().all())
    assert float(gradient[0, :, :4].abs().max()) == 0.0
    step = torch.from_numpy(np.random.default_rng(1).normal(size=values.shape))
    step[1] = 0.0
    ahead, behind = (
        network(masked.detach() + h * step * valid[:, None], valid) for h in (1e-7, -1e-7)
    )
    slope = ((ahead - behind) * weights).sum() / 2e-7
    assert float((gradient * step).sum()) == pytest.approx(float(slope), rel=1e-4)


def test_meaningless_decisions_are_refused():
    with pytest.raises(EncoderError, match="quantile"):
        SpectralStats(quantiles=(0.5, 1.5))
    with pytest.raises(EncoderError, match="levels"):
        Texture(levels=1)
    with pytest.raises(EncoderError, match="distances"):
        Texture(distances=(0,))
    with pytest.raises(EncoderError, match="ratio of sums"):
        Index("none", Sum(()), Sum((), 1.0))
    for encoder in (SpectralStats(), SpectralStats(texture=None)):
        with pytest.raises(EncoderError, match="valid pixel"):
            encoder.fit(np.full((3, 6, 8, 8), np.nan, np.float32), spec(), seed=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"quantiles": 0.5},
        {"quantiles": ("0.5",)},
        {"indices": ("ndvi",)},
        {"indices": KNOWN[0]},
        {"texture": True},
    ],
)
def test_decisions_of_another_kind_are_refused(wrong):
    with pytest.raises(EncoderError, match=next(iter(wrong))):
        SpectralStats(**wrong)


@pytest.mark.parametrize("wrong", [{"levels": 16.5}, {"distances": 3}, {"distances": [1, 2]}])
def test_textures_of_another_kind_are_refused(wrong):
    with pytest.raises(EncoderError, match="Texture has"):
        Texture(**wrong)
