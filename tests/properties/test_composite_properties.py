"""What must hold for any looks: order, membership, gaps, and growing masks."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eocausal.ingest.composites import (
    BestPixel,
    Mean,
    Median,
    Medoid,
    NearestDay,
    Percentile,
    count_valid,
)
from eocausal.ingest.masks import NonZero, QAPixel

BANDS = ("red", "nir")
VALUES = st.one_of(
    st.just(float("nan")),
    st.sampled_from([0.0, -0.0, 1.0, 2.0]),
    st.floats(-1e6, 1e6, width=32),
)


@st.composite
def looks_of(draw, most=30):
    count = draw(st.integers(1, most))
    looks = draw(hnp.arrays(np.float32, (count, 2, 2, 3), elements=VALUES))
    return looks, np.sort(draw(hnp.arrays(np.int64, count, elements=st.integers(-9000, 30000))))


@settings(max_examples=150, deadline=None)
@given(looks_of(), st.randoms(use_true_random=False), st.floats(0, 100))
def test_order_of_looks_does_not_matter_band_by_band(drawn, random, percent):
    looks, days = drawn
    order = list(range(len(looks)))
    random.shuffle(order)
    for composite in (Median(), Percentile(percent)):
        one = composite.reduce(looks, days, BANDS)
        other = composite.reduce(looks[order], days[order], BANDS)
        np.testing.assert_array_equal(one, other)
    one = Mean().reduce(looks, days, BANDS)
    np.testing.assert_allclose(Mean().reduce(looks[order], days, BANDS), one, rtol=1e-6, atol=1e-4)


@settings(max_examples=150, deadline=None)
@given(looks_of())
def test_band_by_band_lies_within_the_valid_values(drawn):
    looks, days = drawn
    filled = np.isfinite(looks).any(axis=0)
    low = np.where(np.isfinite(looks), looks, np.inf).min(axis=0)
    high = np.where(np.isfinite(looks), looks, -np.inf).max(axis=0)
    for composite in (Median(), Mean(), Percentile(33)):
        got = composite.reduce(looks, days, BANDS)
        np.testing.assert_array_equal(np.isfinite(got), filled)
        assert (got[filled] >= low[filled]).all()
        assert (got[filled] <= high[filled]).all()


@settings(max_examples=150, deadline=None)
@given(looks_of(12))
def test_whole_observations_come_from_one_look(drawn):
    looks, days = drawn
    whole = np.isfinite(looks).all(axis=1)
    for composite in (Medoid(), BestPixel("ndvi"), BestPixel("red"), NearestDay(3, 1)):
        got = composite.reduce(looks, days, BANDS)
        np.testing.assert_array_equal(np.isfinite(got).all(axis=0), whole.any(axis=0))
        np.testing.assert_array_equal(np.isnan(got).all(axis=0), ~whole.any(axis=0))
        same = (looks == got[None]).all(axis=1) & whole
        np.testing.assert_array_equal(same.any(axis=0), whole.any(axis=0))
    np.testing.assert_array_equal(count_valid(looks), whole.sum(axis=0))


@settings(max_examples=100, deadline=None)
@given(looks_of(12), st.randoms(use_true_random=False))
def test_looks_without_a_valid_pixel_change_nothing(drawn, random):
    looks, days = drawn
    at = random.randint(0, len(looks))
    more = np.insert(looks, at, np.float32(np.nan), axis=0)
    when = np.insert(days, at, days[min(at, len(days) - 1)])
    for composite in (
        Median(),
        Mean(),
        Percentile(80),
        Medoid(),
        BestPixel("nir"),
        NearestDay(1, 1),
    ):
        np.testing.assert_array_equal(
            composite.reduce(more, when, BANDS), composite.reduce(looks, days, BANDS)
        )


@settings(max_examples=100, deadline=None)
@given(looks_of(8), st.floats(-100, 100, width=32), st.sampled_from([0.25, 1.0, 8.0]))
def test_medoid_moves_and_scales_with_the_looks(drawn, shift, scale):
    looks, days = drawn
    looks = np.round(looks / 64) * 64
    shift = np.float32(round(shift))
    got = Medoid().reduce(looks, days, BANDS)
    moved = Medoid().reduce(looks * np.float32(scale) + shift, days, BANDS)
    np.testing.assert_array_equal(moved, got * np.float32(scale) + shift)


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(np.uint16, (9, 11), elements=st.sampled_from([1, 21824, 21824, 22280, 23888])),
    st.integers(0, 6),
)
def test_a_larger_dilation_never_clears_a_pixel(stored, dilate):
    some, more = QAPixel(dilate=dilate).clear(stored), QAPixel(dilate=dilate + 1).clear(stored)
    assert not (more & ~some).any()
    assert not (some & ~QAPixel().clear(stored)).any()


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.bool_, (8, 13)), st.integers(0, 5))
def test_dilation_is_the_same_in_every_direction(clear, dilate):
    mask = NonZero("m", dilate=dilate)
    got = mask.clear(clear.astype(np.uint8))
    np.testing.assert_array_equal(mask.clear(clear[::-1].astype(np.uint8)), got[::-1])
    np.testing.assert_array_equal(mask.clear(clear[:, ::-1].astype(np.uint8)), got[:, ::-1])
    np.testing.assert_array_equal(mask.clear(clear.T.astype(np.uint8)), got.T)
