"""Masks against bit patterns made by hand from the product guides, and dilation by brute force."""

import numpy as np
import pytest

from eocausal.errors import IngestError
from eocausal.ingest.masks import (
    CloudProbability,
    Mask,
    NonZero,
    QAPixel,
    SceneClassification,
    Values,
)

# Values of QA_PIXEL as the guides interpret them (Landsat 8-9, then 4-7), written out as bits:
# cirrus, snow, shadow and cloud confidence (two bits each), then bits 7 to 0.
FILL = 1
CLEAR = 0b01_01_01_01_0100_0000
WATER = 0b01_01_01_01_1100_0000
DILATED = 0b01_01_01_01_0100_0010
MEDIUM = 0b01_01_01_10_0100_0000
CLOUD = 0b01_01_01_11_0000_1000
SHADOW = 0b01_01_11_01_0101_0000
SNOW = 0b01_11_01_01_0110_0000
CIRRUS = 0b11_01_01_01_0100_0100
TM_CLEAR = 0b00_01_01_01_0100_0000
TM_CLOUD = 0b00_01_01_11_0000_1000
TM_SHADOW = 0b00_01_11_01_0001_0000


def test_the_bit_patterns_are_the_numbers_of_the_guides():
    assert [CLEAR, WATER, DILATED, MEDIUM] == [21824, 21952, 21826, 22080]
    assert [CLOUD, SHADOW, SNOW, CIRRUS] == [22280, 23888, 30048, 54596]
    assert [TM_CLEAR, TM_CLOUD, TM_SHADOW] == [5440, 5896, 7440]


QA_CASES = [
    (FILL, False), (CLEAR, True), (WATER, True), (DILATED, False), (MEDIUM, True),
    (CLOUD, False), (SHADOW, False), (SNOW, True), (CIRRUS, False),
    (TM_CLEAR, True), (TM_CLOUD, False), (TM_SHADOW, False),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.float32])
def test_qa_pixel_drops_fill_clouds_and_shadows_by_default(dtype):
    stored = np.array([[v for v, _ in QA_CASES]])
    stored = stored.astype(np.uint16).view(dtype) if dtype is np.int16 else stored.astype(dtype)
    assert QAPixel().clear(stored).tolist() == [[c for _, c in QA_CASES]]


def test_qa_values_that_cannot_be_are_not_clear():
    stored = np.array([[CLEAR, np.nan, -1.0, 70_000.0]], dtype=np.float32)
    assert QAPixel().clear(stored).tolist() == [[True, False, False, False]]


@pytest.mark.parametrize(
    ("drop", "dropped"),
    [
        (("cloud",), {FILL, CLOUD}),
        (("cloud_medium",), {FILL, CLOUD, MEDIUM}),
        (("cloud_shadow",), {FILL, SHADOW}),
        (("snow",), {FILL, SNOW}),
        (("water",), {FILL, WATER}),
        (("cirrus",), {FILL, CIRRUS}),
        (("dilated_cloud",), {FILL, DILATED}),
        (("fill",), {FILL}),
        ("snow", {FILL, SNOW}),
        ((), {FILL}),
    ],
)
def test_qa_pixel_drops_what_is_named_and_always_fill(drop, dropped):
    every = [FILL, CLEAR, WATER, DILATED, MEDIUM, CLOUD, SHADOW, SNOW, CIRRUS]
    clear = QAPixel(drop=drop).clear(np.array([every], dtype=np.uint16))[0]
    assert {v for v, c in zip(every, clear, strict=True) if not c} == dropped


def test_every_scene_class_is_dropped_by_its_name():
    names = [
        "no_data", "saturated", "dark", "cloud_shadow", "vegetation", "bare", "water",
        "unclassified", "cloud_medium", "cloud_high", "cirrus", "snow",
    ]  # fmt: skip
    stored = np.arange(14, dtype=np.uint8)[None]
    for number, name in enumerate(names):
        clear = SceneClassification(drop=(name,)).clear(stored)[0]
        assert set(np.flatnonzero(~clear)) == {0, number, 12, 13}
    clear = SceneClassification().clear(stored)[0]
    assert np.flatnonzero(clear).tolist() == [2, 4, 5, 6, 7, 11]


def test_cloud_probability_is_clear_below_the_limit_only():
    stored = np.array([[0, 39, 40, 100, 255]], dtype=np.uint8)
    assert CloudProbability("cld").clear(stored).tolist() == [[True, True, False, False, False]]
    shares = np.array([[0.0, 0.39, 0.4, np.nan, -9999.0]], dtype=np.float32)
    clear = CloudProbability("clp", below=0.4).clear(shares)
    assert clear.tolist() == [[True, True, False, False, False]]


def test_nonzero_and_values():
    stored = np.array([[0, 1, 7, -1]], dtype=np.int16)
    assert NonZero("m").clear(stored).tolist() == [[False, True, True, True]]
    assert Values("m", keep=(1, 7)).clear(stored).tolist() == [[False, True, True, False]]
    assert Values("m", drop=(0,)).clear(stored).tolist() == [[False, True, True, True]]
    assert Values("m", keep=0).clear(stored).tolist() == [[True, False, False, False]]
    floats = np.array([[0.0, 1.0, np.nan, np.inf]], dtype=np.float32)
    assert NonZero("m").clear(floats).tolist() == [[False, True, False, False]]
    assert Values("m", drop=(0,)).clear(floats).tolist() == [[False, True, False, False]]


def by_disc(hit: np.ndarray, radius: int) -> np.ndarray:
    rows, cols = np.indices(hit.shape)
    out = np.zeros(hit.shape, dtype=bool)
    for r, c in np.argwhere(hit):
        out |= (rows - r) ** 2 + (cols - c) ** 2 <= radius**2
    return out


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 5, 9, 30])
@pytest.mark.parametrize("shape", [(17, 23), (4, 40), (1, 1)])
def test_dilation_grows_by_a_disc(radius, shape):
    rng = np.random.default_rng(radius)
    zero = rng.random(shape) < 0.03
    clear = NonZero("m", dilate=radius).clear((~zero).astype(np.uint8))
    np.testing.assert_array_equal(clear, ~by_disc(zero, radius))


@pytest.mark.parametrize(
    ("mask", "fill", "good", "bad"),
    [
        (QAPixel(dilate=2), FILL, CLEAR, CLOUD),
        (SceneClassification(dilate=2), 0, 4, 9),
        (CloudProbability(dilate=2), np.nan, 0.0, 80.0),
        (NonZero("m", dilate=2), np.nan, 1.0, 0.0),
        (Values("m", keep=(3,), dilate=2), np.nan, 3.0, 4.0),
        (Values("m", drop=(4,), dilate=2), np.nan, 3.0, 4.0),
    ],
)
def test_dilation_grows_clouds_but_not_gaps(mask: Mask, fill, good, bad):
    stored = np.full((9, 21), good, dtype=np.float64)
    stored[4, 4], stored[4, 15] = fill, bad
    expected = ~by_disc(stored == bad, 2)
    expected[4, 4] = False
    np.testing.assert_array_equal(mask.clear(stored), expected)
    assert mask.reach == 2


def test_a_window_with_its_reach_gives_the_same_answer_as_the_whole():
    rng = np.random.default_rng(3)
    stored = rng.choice([CLEAR, CLOUD, FILL], (60, 60), p=[0.96, 0.02, 0.02]).astype(np.uint16)
    mask = QAPixel(dilate=4)
    r = mask.reach
    whole = mask.clear(stored)[20:40, 10:50]
    part = mask.clear(stored[20 - r : 40 + r, 10 - r : 50 + r])[r:-r, r:-r]
    np.testing.assert_array_equal(part, whole)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: QAPixel(drop=("clouds",)), ["'clouds'", "closest: 'cloud'", "dilated_cloud"]),
        (lambda: SceneClassification(drop=("shadow",)), ["'shadow'", "'cloud_shadow'", "'snow'"]),
        (lambda: QAPixel(dilate=-1), ["-1", "pixels"]),
        (lambda: NonZero("m", dilate=1.5), ["1.5", "whole number"]),
        (lambda: Values("m"), ["neither", "keep"]),
        (lambda: Values("m", keep=(1,), drop=(2,)), ["both", "keep"]),
        (lambda: CloudProbability(below=0), ["below is 0", "percent"]),
        (lambda: CloudProbability(below=float("nan")), ["nan"]),
    ],
)
def test_wrong_decisions_are_refused(make, words):
    with pytest.raises(IngestError) as error:
        make()
    for word in words:
        assert word in str(error.value)


def test_masks_are_plain_decisions():
    assert QAPixel(drop=["cloud", "snow"]) == QAPixel(drop=("cloud", "snow"))
    assert len({QAPixel(), QAPixel(), SceneClassification(), Values("m", keep=[1])}) == 3
    assert [m.band for m in (QAPixel(), SceneClassification("SCL"))] == ["qa_pixel", "SCL"]
